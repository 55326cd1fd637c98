// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: the backing page has to be in the nested page tables whenever its
 * vCPU is in guest mode, else the vCPU never runs again (APM volume 2, 15.36.21,
 * backing page).
 *
 * The host takes away the mapping, or the page, in all the ways that userspace has,
 * while the guest keeps hardware busy with the page.  If KVM doesn't get the vCPU
 * out of guest mode first, or doesn't map the page again, then KVM_RUN returns with
 * VMEXIT_NPF or VMEXIT_BUSY.  What the host or the guest really breaks has to end
 * that VM only, in the documented way.
 */
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/mman.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define SELF_VECTOR	0x51
#define STOP_VECTOR	0x61
#define WAKE_VECTOR	0x71
#define NR_ROUNDS	300
/* With two vCPUs, neither of which ever sleeps, the host is slower. */
#define NR_SHARED_ROUNDS 30
#define NR_MOVES	20
#define NR_RACERS	3

/* Long enough to get the vCPU into the guest, mostly. */

/* Memory that the launch doesn't touch. */
#define UNASSIGNED_SLOT	20
#define UNASSIGNED_GPA	(4ul << 30)

/* Only to end a test that hangs. */
#define TIMEOUT_SECS	120

/* Guest only.  A page that the guest never touches but by hardware. */
static gpa_t other_page;

static void guest_busy(void)
{
	u32 nr = 0;

	savic_enable();
	savic_allow_vector(STOP_VECTOR);
	GUEST_SYNC(savic_page_gpa(0));

	while (!savic_nr_irqs(0, STOP_VECTOR)) {
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, SELF_VECTOR), ++nr);
	}
	GUEST_ASSERT(nr);
	GUEST_DONE();
}

static void guest_twice(void)
{
	savic_enable();
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
	GUEST_SYNC(savic_page_gpa(0));
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, SELF_VECTOR), 1u);
	GUEST_DONE();
}

/* Hardware found the page, but not validated. */
#define VC_NOT_RESTARTABLE	0x406

static void vc_handler(struct ex_regs *regs)
{
	if (regs->error_code != VC_NOT_RESTARTABLE) {
		savic_vc_handler(regs);
		return;
	}

	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_SYNC(VC_NOT_RESTARTABLE);
	GUEST_FAIL("The VM was to end here");
}

static void guest_other_page(void)
{
	savic_enable();
	wrmsr(MSR_AMD64_SAVIC_CONTROL, other_page | MSR_AMD64_SAVIC_EN);
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
	sti_nop_cli();
	GUEST_FAIL("The page that isn't registered is mapped");
}

/* On two pages in turn.  Only one of them is where the library looks. */
static u32 nr_moved_irqs;

static void moved_handler(struct ex_regs *regs)
{
	wrmsr(X2APIC_MSR(APIC_EOI), 0);
	nr_moved_irqs++;
}

static void guest_moves(void)
{
	gpa_t page[] = { savic_page_gpa(0), savic_page_gpa(1) }, old;
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_MOVES; i++) {
		/* With or without taking the old one back. */
		wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
		if (i % 3) {
			GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &old),
					GHCB_OK);
			GUEST_ASSERT_EQ(old, page[(i - 1) % 2]);
		}
		GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, page[i % 2], NULL),
				GHCB_OK);
		wrmsr(MSR_AMD64_SAVIC_CONTROL, page[i % 2] | MSR_AMD64_SAVIC_EN);

		GUEST_SYNC(page[i % 2]);
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(READ_ONCE(nr_moved_irqs), i);
	}
	GUEST_DONE();
}

/* Guest only. */
static bool second_user_ready;
static bool second_user_gone;

/*
 * Uses page 0 as well, with interrupts off: the page is read and written by both, but
 * interrupts are the first one's.
 */
static void guest_second_user(void)
{
	u32 i;
	gpa_t gpa;

	/* Not before the first one has set it up. */
	while (!savic_test_vector(0, SAVIC_ALLOWED_IRR, STOP_VECTOR))
		cpu_relax();
	x2apic_enable();
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, savic_page_gpa(0), NULL),
			GHCB_OK);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN);
	WRITE_ONCE(second_user_ready, true);

	while (!savic_nr_irqs(0, WAKE_VECTOR)) {
		for (i = 0; i < 1000; i++)
			GUEST_ASSERT_EQ(rdmsr(X2APIC_MSR(APIC_LVR)), (u64)savic_read(0, APIC_LVR));
	}

	/* That is the end of one registration of two. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	GUEST_ASSERT_EQ(gpa, savic_page_gpa(0));
	WRITE_ONCE(second_user_gone, true);
	GUEST_DONE();
}

static void guest_first_user(void)
{
	u32 nr = 0;

	savic_enable();
	savic_allow_vector(WAKE_VECTOR);
	savic_allow_vector(STOP_VECTOR);
	while (!READ_ONCE(second_user_ready))
		cpu_relax();
	GUEST_SYNC(savic_page_gpa(0));

	/* The host stops it, but not before the other one has gone. */
	while (!savic_nr_irqs(0, STOP_VECTOR) || !READ_ONCE(second_user_gone)) {
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, SELF_VECTOR), ++nr);
	}
	GUEST_DONE();
}

/* All do it to the last vCPU, which isn't running. */
static u32 nr_finished;

static void guest_races(u32 id)
{
	enum ghcb_status status;
	gpa_t gpa;
	u32 i;

	for (i = 0; i < NR_ROUNDS; i++) {
		GUEST_ASSERT_EQ(savic_register_page(NR_RACERS, savic_page_gpa(id), NULL),
				GHCB_OK);
		status = savic_unregister_page(NR_RACERS, &gpa);
		GUEST_ASSERT(status == GHCB_OK || status == GHCB_MALFORMED);
		if (status == GHCB_OK)
			GUEST_ASSERT(gpa >= savic_page_gpa(0) && gpa < savic_page_gpa(NR_RACERS));
	}

	/* Each has been unregistered. */
	__sync_fetch_and_add(&nr_finished, 1);
	while (READ_ONCE(nr_finished) < NR_RACERS)
		cpu_relax();
	GUEST_ASSERT_EQ(savic_unregister_page(NR_RACERS, &gpa), GHCB_MALFORMED);
	GUEST_DONE();
}

static void expect_counts(u32 nr_wake, u32 nr_stop)
{
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, WAKE_VECTOR), nr_wake);
	GUEST_ASSERT_EQ(savic_nr_irqs(1, STOP_VECTOR), nr_stop);
}

/* Never registers its page, which is mapped because it has been written to. */
static void guest_sleeper(void)
{
	u64 on = savic_page_gpa(1) | MSR_AMD64_SAVIC_EN;

	x2apic_enable();
	savic_write(1, APIC_ID, 1);
	savic_write(1, APIC_SPIV, rdmsr(X2APIC_MSR(APIC_SPIV)));
	savic_set_vector(1, SAVIC_ALLOWED_IRR, WAKE_VECTOR);
	savic_set_vector(1, SAVIC_ALLOWED_IRR, STOP_VECTOR);

	/* Touches all that it takes to get from there to HLT, lest there be an exit. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, on);
	savic_wait_for_irqs(WAKE_VECTOR, 0);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_SYNC(0);

	/* The last VMRUN was told of the first vector, but the engine was off. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, on);
	savic_wait_for_irqs(WAKE_VECTOR, 1);
	savic_wait_for_irqs(STOP_VECTOR, 1);
	expect_counts(1, 1);

	/* One vector is handed to hardware, another one is still KVM's. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_SYNC(1);
	GUEST_SYNC(2);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, on);
	expect_counts(1, 1);

	GUEST_SYNC(3);
	savic_wait_for_irqs(WAKE_VECTOR, 2);
	expect_counts(2, 1);
	GUEST_DONE();
}

static void guest_registrar(void)
{
	gpa_t gpa;

	/* Not while the other one sleeps: KVM wakes all vCPUs if one changes its APIC. */
	savic_enable();
	GUEST_SYNC(0);

	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	while (!savic_nr_irqs(1, WAKE_VECTOR))
		cpu_relax();
	savic_send_ipi(1, STOP_VECTOR);
	GUEST_SYNC(1);

	GUEST_ASSERT_EQ(savic_unregister_page(1, &gpa), GHCB_OK);
	GUEST_ASSERT_EQ(gpa, savic_page_gpa(1));
	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	GUEST_DONE();
}

static void guest_unassigned(void)
{
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, other_page, NULL),
			GHCB_OK);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, other_page | MSR_AMD64_SAVIC_EN);
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
	GUEST_FAIL("Hardware takes a page that isn't validated");
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	gpa_t page;
};

FIXTURE(savic_page) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_page)
{
	struct test_vm *t = &self->t;
	gva_t spare;

	t->vm = vm_savic_create(1, guest_busy, &t->vcpu);
	vm_install_exception_handler(t->vm, SELF_VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, STOP_VECTOR, savic_irq_handler);
	spare = vm_alloc_page(t->vm);
	write_guest_global(t->vm, other_page, (gpa_t)addr_gva2gpa(t->vm, spare));
}

FIXTURE_TEARDOWN(savic_page)
{
	kvm_vm_free(self->t.vm);
}

static void *run_to_not_restartable(void *vcpu)
{
	TEST_ASSERT_EQ(savic_vcpu_run_to_sync(vcpu), (u64)VC_NOT_RESTARTABLE);
	return NULL;
}

static void launch(struct test_vm *t, void *guest_code)
{
	vcpu_arch_set_entry_point(t->vcpu, guest_code);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	if (guest_code == guest_other_page)
		return;

	t->page = savic_vcpu_run_to_sync(t->vcpu);
}

/* Call the function, with the VM as its argument, while the guest is busy. */
static void hammer(struct test_vm *t, void (*fn)(struct test_vm *t))
{
	pthread_t thread;
	int i;

	launch(t, guest_busy);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpu);
	for (i = 0; i < NR_ROUNDS; i++) {
		fn(t);
		usleep(i % 100);
	}
	savic_send_msi(t->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
}

static void zap_page(u8 *hva)
{
	TEST_ASSERT(!madvise(hva, PAGE_SIZE, MADV_DONTNEED), "madvise() failed");
	/* There has to be something that a notifier is called for. */
	WRITE_ONCE(*hva, 1);
}

/* An MMU notifier for the shared memory that is behind the same GPA. */
static void zap_by_notifier(struct test_vm *t)
{
	zap_page(addr_gpa2hva(t->vm, t->page));
}

TEST_F_TIMEOUT(savic_page, mmu_notifier, TIMEOUT_SECS)
{
	hammer(&self->t, zap_by_notifier);
	EXPECT_GE(vcpu_get_stat(self->t.vcpu, savic_page_losses), NR_ROUNDS);
}

/* The next page, with which it could share a large page. */
static void convert_neighbour(struct test_vm *t)
{
	gpa_t neighbour = t->page + PAGE_SIZE;

	vm_mem_set_shared(t->vm, neighbour, PAGE_SIZE);
	vm_mem_set_private(t->vm, neighbour, PAGE_SIZE);
}

TEST_F_TIMEOUT(savic_page, neighbour_converted, TIMEOUT_SECS)
{
	/* Nothing else is in the page, vm_savic_create() has one vCPU's. */
	hammer(&self->t, convert_neighbour);
	/* The host's memory management may have a reason now and then, but not each time. */
	EXPECT_LT(vcpu_get_stat(self->t.vcpu, savic_page_losses), NR_ROUNDS / 2);
}

static void expect_memory_fault(struct test_vm *t)
{
	struct kvm_run *run = t->vcpu->run;
	int r = _vcpu_run(t->vcpu);

	TEST_ASSERT(r == -1 && errno == EFAULT, "KVM_RUN: %d, errno %d", r, errno);
	TEST_ASSERT_EQ(run->exit_reason, (u32)KVM_EXIT_MEMORY_FAULT);
	TEST_ASSERT_EQ((u64)run->memory_fault.gpa, (u64)t->page);
	TEST_ASSERT_EQ((u64)run->memory_fault.size, (u64)PAGE_SIZE);
	TEST_ASSERT_EQ((u64)run->memory_fault.flags, (u64)KVM_MEMORY_EXIT_FLAG_PRIVATE);
}

TEST_F_TIMEOUT(savic_page, shared, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_twice);
	vm_mem_set_shared(t->vm, t->page, PAGE_SIZE);
	expect_memory_fault(t);
	expect_memory_fault(t);

	/* The private page has been there all the time. */
	vm_mem_set_private(t->vm, t->page, PAGE_SIZE);
	TEST_ASSERT(!savic_vcpu_run(t->vcpu), "Unexpected GUEST_SYNC()");
}

TEST_F_TIMEOUT(savic_page, punched, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	vm_install_exception_handler(t->vm, VC_VECTOR, vc_handler);
	launch(t, guest_twice);
	vm_guest_mem_punch_hole(t->vm, t->page, PAGE_SIZE);

	/* KVM gives it a new page, which the guest hasn't validated. */
	run_to_not_restartable(t->vcpu);
}

/* The same while the guest uses the page: it gets out of the guest first. */
TEST_F_TIMEOUT(savic_page, punched_while_busy, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;
	u64 exits;

	vm_install_exception_handler(t->vm, VC_VECTOR, vc_handler);
	launch(t, guest_busy);
	exits = vcpu_get_stat(t->vcpu, exits);
	pthread_create(&thread, NULL, run_to_not_restartable, t->vcpu);
	/* By then it has been in the guest, and it goes back there. */
	while (vcpu_get_stat(t->vcpu, exits) == exits)
		usleep(50);
	vm_guest_mem_punch_hole(t->vm, t->page, PAGE_SIZE);
	pthread_join(thread, NULL);
}

/* Private, but the host has never given any memory to it: it does so now. */
TEST_F_TIMEOUT(savic_page, unassigned, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	vm_userspace_mem_region_add(t->vm, VM_MEM_SRC_ANONYMOUS, UNASSIGNED_GPA, UNASSIGNED_SLOT,
				    1, KVM_MEM_GUEST_MEMFD);
	write_guest_global(t->vm, other_page, (gpa_t)UNASSIGNED_GPA);
	vm_install_exception_handler(t->vm, VC_VECTOR, vc_handler);
	vm_mem_set_private(t->vm, UNASSIGNED_GPA, PAGE_SIZE);
	vcpu_arch_set_entry_point(t->vcpu, guest_unassigned);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	run_to_not_restartable(t->vcpu);
}

/* Each page is zapped right after it was registered, and has been mapped. */
TEST_F_TIMEOUT(savic_page, moved, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	int i;

	savic_set_pages(t->vm, vm_alloc_pages(t->vm, 2), 2);
	vm_install_exception_handler(t->vm, SELF_VECTOR, moved_handler);
	vcpu_arch_set_entry_point(t->vcpu, guest_moves);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	for (i = 0; i < NR_MOVES; i++)
		zap_page(addr_gpa2hva(t->vm, savic_vcpu_run_to_sync(t->vcpu)));
	EXPECT_FALSE(savic_vcpu_run(t->vcpu));
}

/* Of these, a test runs as many as it needs. */
#define NR_VCPUS	(NR_RACERS + 1)

FIXTURE(savic_pages) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
};

FIXTURE_SETUP(savic_pages)
{
	self->vm = vm_savic_create(NR_VCPUS, guest_first_user, self->vcpus);
	vm_install_exception_handler(self->vm, SELF_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, WAKE_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, STOP_VECTOR, savic_irq_handler);
}

FIXTURE_TEARDOWN(savic_pages)
{
	kvm_vm_free(self->vm);
}

/* The page has to be there for either, and after one of them has gone for the other. */
TEST_F_TIMEOUT(savic_pages, of_two, TIMEOUT_SECS)
{
	struct test_vm t = { .vm = self->vm, .vcpu = self->vcpus[0] };
	struct kvm_vcpu **vcpus = self->vcpus;
	pthread_t threads[2];
	int i;

	vcpu_arch_set_entry_point(vcpus[1], guest_second_user);
	vm_sev_launch(t.vm, snp_default_policy(), NULL);
	pthread_create(&threads[1], NULL, savic_vcpu_thread, vcpus[1]);
	t.page = savic_vcpu_run_to_sync(vcpus[0]);
	pthread_create(&threads[0], NULL, savic_vcpu_thread, vcpus[0]);

	for (i = 0; i < 2 * NR_SHARED_ROUNDS; i++) {
		if (i == NR_SHARED_ROUNDS)
			savic_send_msi(t.vm, 0, WAKE_VECTOR);
		zap_by_notifier(&t);
		usleep(i % 100);
	}
	EXPECT_GT(vcpu_get_stat(vcpus[0], savic_page_losses), 0);
	EXPECT_GT(vcpu_get_stat(vcpus[1], savic_page_losses), 0);

	pthread_join(threads[1], NULL);
	savic_send_msi(t.vm, 0, STOP_VECTOR);
	pthread_join(threads[0], NULL);
}

/*
 * By another vCPU, while the page's own one sleeps with something waiting for it: that is
 * delivered.  What waits when the page is unregistered is not, not even by a page that is
 * registered before the vCPU runs again.
 */
TEST_F_TIMEOUT(savic_pages, registered_for_sleeper, TIMEOUT_SECS)
{
	struct kvm_vcpu *registrar = self->vcpus[0], *sleeper = self->vcpus[1];
	pthread_t thread;

	vcpu_arch_set_entry_point(registrar, guest_registrar);
	vcpu_arch_set_entry_point(sleeper, guest_sleeper);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);

	EXPECT_TRUE(savic_vcpu_run(registrar));
	EXPECT_TRUE(savic_vcpu_run(sleeper));
	savic_send_msi(self->vm, 1, WAKE_VECTOR);
	pthread_create(&thread, NULL, savic_vcpu_thread_to_sync, sleeper);
	/* If there is an exit right before it halts, then it waits for the next vector only. */
	savic_wait_until_blocked(sleeper);
	EXPECT_TRUE(savic_vcpu_run(registrar));
	pthread_join(thread, NULL);

	savic_send_msi(self->vm, 1, WAKE_VECTOR);
	EXPECT_TRUE(savic_vcpu_run(sleeper));
	savic_send_msi(self->vm, 1, STOP_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(registrar));
	EXPECT_TRUE(savic_vcpu_run(sleeper));

	savic_send_msi(self->vm, 1, WAKE_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(sleeper));
}

TEST_F_TIMEOUT(savic_pages, races, TIMEOUT_SECS)
{
	struct kvm_vcpu **vcpus = self->vcpus;
	pthread_t threads[NR_RACERS];
	int i;

	for (i = 0; i < NR_RACERS; i++) {
		vcpu_arch_set_entry_point(vcpus[i], guest_races);
		vcpu_args_set(vcpus[i], 1, i);
	}
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	for (i = 0; i < NR_RACERS; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, vcpus[i]);
	for (i = 0; i < NR_RACERS; i++)
		pthread_join(threads[i], NULL);
}

TEST_F_TIMEOUT(savic_page, not_registered, TIMEOUT_SECS)
{
	struct kvm_run *run = self->t.vcpu->run;
	struct test_vm *t = &self->t;

	launch(t, guest_other_page);

	vcpu_run(t->vcpu);
	TEST_ASSERT_EQ(run->exit_reason, (u32)KVM_EXIT_INTERNAL_ERROR);
	TEST_ASSERT_EQ(run->internal.suberror,
		       (u32)KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
	TEST_ASSERT_EQ((u64)run->internal.data[0], (u64)SVM_EXIT_NPF);

	/* VMEXIT_BUSY, for ever. */
	vcpu_run(t->vcpu);
	TEST_ASSERT_EQ(run->exit_reason, (u32)KVM_EXIT_INTERNAL_ERROR);
	TEST_ASSERT_EQ((u64)run->internal.data[0], (u64)-2ll);
	vcpu_run(t->vcpu);
	TEST_ASSERT_EQ((u64)run->internal.data[0], (u64)-2ll);
}

SAVIC_TEST_HARNESS_MAIN
