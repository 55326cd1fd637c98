// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what userspace does to a VM while interrupts are on their way.
 *
 * savic_traffic: the backing pages are in a memslot of their own.  The host deletes it, or
 * takes a page away, in all the ways that it has.  Until it is back, KVM_RUN fails, and the
 * vCPU's thread repeats it.  Or the host gets all vCPUs out of KVM_RUN, saves and restores
 * what userspace sees of them, and goes on.  No interrupt may be lost by that, nor doubled.
 *
 * A token is passed around: each vCPU sleeps until it gets an IPI, and sends one to the next.
 * A lost IPI ends that, and the test by its limit, one too many fails an assertion.
 *
 * savic_delivery: the page of the stack that hardware pushes to isn't mapped, so there is a
 * nested page fault when the interrupt has left IRR and the handler hasn't started.  Hardware
 * completes the delivery at the next VMRUN, whatever is in between, and KVM must not do so
 * as well.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

/* Not of the I/O APIC. */
#define MSI_GSI			24

/* More than there are CPUs on the machine that this usually runs on. */
#define NR_VCPUS		3

#define TOKEN_VECTOR		0x51
#define MSI_VECTOR		0x61
#define EXTRA_VECTOR		0x71

/* The backing pages, and a page that is none. */
#define PAGES_SLOT		20
#define PAGES_GPA		(4ul << 30)
#define NR_PAGES		(NR_VCPUS + 1)
#define PAGES_GVA		0xc0000000ul

/* Something else. */
#define OTHER_SLOT		21
#define OTHER_GPA		(5ul << 30)

#define NR_ROUNDS		40
#define NR_DELIVERIES		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* In memory that host and guest share. */
static struct shared {
	u32 nr_tokens[NR_VCPUS];
	u32 nr_msis[NR_VCPUS];
	u32 nr_extra[NR_VCPUS];
	u32 nr_nmis[NR_VCPUS];
	bool stop;
} *shared;

static void count_handler(struct ex_regs *regs)
{
	u32 id = savic_apic_id();

	if (regs->vector == MSI_VECTOR)
		shared->nr_msis[id]++;
	if (regs->vector == EXTRA_VECTOR)
		shared->nr_extra[id]++;
	savic_irq_handler(regs);
}

static void nmi_handler(struct ex_regs *regs)
{
	shared->nr_nmis[savic_apic_id()]++;
}

static void guest_ring(u32 id)
{
	u32 next = (id + 1) % NR_VCPUS, nr = 0;
	bool stop;

	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	savic_allow_vector(EXTRA_VECTOR);
	GUEST_SYNC(0);

	if (!id)
		savic_send_ipi(next, TOKEN_VECTOR);
	do {
		savic_wait_for_irqs(TOKEN_VECTOR, ++nr);
		GUEST_ASSERT_EQ(savic_nr_irqs(id, TOKEN_VECTOR), nr);
		shared->nr_tokens[id] = nr;

		/* With the token in hand, so that the others get it after that. */
		stop = READ_ONCE(shared->stop);
		savic_send_ipi(next, TOKEN_VECTOR);
	} while (!stop);
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t threads[NR_VCPUS];
	int irqfd;
};

/* For all vCPUs and the main thread, which has a vCPU pause by its immediate_exit. */
static pthread_barrier_t paused, resumed;

static void pause_vcpu(struct kvm_vcpu *vcpu)
{
	if (READ_ONCE(vcpu->run->immediate_exit)) {
		pthread_barrier_wait(&paused);
		pthread_barrier_wait(&resumed);
	}
}

static void create_vm(struct test_vm *t)
{
	struct kvm_vm *vm;
	gva_t gva;
	int i;

	vm = vm_savic_create(NR_VCPUS, guest_ring, t->vcpus);
	t->vm = vm;
	vm_install_exception_handler(vm, TOKEN_VECTOR, count_handler);
	vm_install_exception_handler(vm, MSI_VECTOR, count_handler);
	vm_install_exception_handler(vm, EXTRA_VECTOR, count_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);

	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, PAGES_GPA, PAGES_SLOT,
				    NR_PAGES, KVM_MEM_GUEST_MEMFD);
	vm_phy_pages_alloc(vm, NR_PAGES, PAGES_GPA, PAGES_SLOT);
	virt_map(vm, PAGES_GVA, PAGES_GPA, NR_PAGES);
	savic_set_pages(vm, PAGES_GVA, NR_PAGES);

	gva = vm_alloc_shared(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	write_guest_global(vm, shared, (struct shared *)gva);
	shared = addr_gva2hva(vm, gva);
	memset(shared, 0, sizeof(*shared));

	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(t->vcpus[i], 1, i);
}

FIXTURE(savic_traffic) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_traffic)
{
	create_vm(&self->t);
}

FIXTURE_TEARDOWN(savic_traffic)
{
	kvm_vm_free(self->t.vm);
}

/* As savic_vcpu_thread(), but waits until there is memory. */
static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *vcpu = arg;

	while (__vcpu_run(vcpu)) {
		if (errno == EINTR) {
			pause_vcpu(vcpu);
			continue;
		}
		TEST_ASSERT(errno == EFAULT, "KVM_RUN: errno %d", errno);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_MEMORY_FAULT);
		TEST_ASSERT(vcpu->run->memory_fault.gpa >= PAGES_GPA &&
			    vcpu->run->memory_fault.gpa < PAGES_GPA + NR_PAGES * PAGE_SIZE,
			    "Unexpected fault on GPA %#llx", vcpu->run->memory_fault.gpa);
		sched_yield();
	}

	TEST_ASSERT(!savic_check_ucall(vcpu), "Unexpected GUEST_SYNC()");
	return NULL;
}

static void wait_for_tokens(u32 nr)
{
	u32 start = READ_ONCE(shared->nr_tokens[0]);

	while (READ_ONCE(shared->nr_tokens[0]) - start < nr)
		usleep(50);
}

/* Call the function in each round, while tokens are passed and MSIs sent. */
static void hammer(struct test_vm *t, void (*fn)(struct test_vm *t, u32 round))
{
	u32 i, round;

	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(savic_vcpu_run(t->vcpus[i]), "Unexpected GUEST_DONE()");
	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&t->threads[i], NULL, vcpu_thread, t->vcpus[i]);

	for (round = 1; round <= NR_ROUNDS; round++) {
		wait_for_tokens(1);
		for (i = 0; i < NR_VCPUS; i++)
			savic_send_msi(t->vm, i, MSI_VECTOR);
		fn(t, round);
		for (i = 0; i < NR_VCPUS; i++) {
			while (READ_ONCE(shared->nr_msis[i]) < round)
				usleep(50);
			TEST_ASSERT_EQ(shared->nr_msis[i], round);
		}
	}

	WRITE_ONCE(shared->stop, true);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(t->threads[i], NULL);
}

static void reload_pages(struct test_vm *t, u32 round)
{
	vm_mem_region_reload(t->vm, PAGES_SLOT);
}

/*
 * Deleted, with or without a vCPU that sees it, and created.  That is all there is, a slot
 * with private memory can't be moved.
 */
TEST_F_TIMEOUT(savic_traffic, memslot_reloaded, TIMEOUT_SECS)
{
	struct userspace_mem_region *region = memslot2region(self->t.vm, PAGES_SLOT);
	struct kvm_userspace_memory_region2 moved = region->region;

	moved.guest_phys_addr += NR_PAGES * PAGE_SIZE;
	EXPECT_EQ(-1, __vm_ioctl(self->t.vm, KVM_SET_USER_MEMORY_REGION2, &moved));
	EXPECT_EQ(EINVAL, errno);

	hammer(&self->t, reload_pages);
	EXPECT_GT(vcpu_get_stat(self->t.vcpus[0], savic_page_losses), 0);
}

static void change_other_slot(struct test_vm *t, u32 round)
{
	void *hva = addr_gpa2hva(t->vm, PAGES_GPA);

	vm_set_user_memory_region(t->vm, OTHER_SLOT, 0, OTHER_GPA, PAGE_SIZE, hva);
	vm_set_user_memory_region(t->vm, OTHER_SLOT, 0, OTHER_GPA + PAGE_SIZE, PAGE_SIZE, hva);
	vm_set_user_memory_region(t->vm, OTHER_SLOT, 0, OTHER_GPA + PAGE_SIZE, 0, hva);
}

static u64 nr_page_losses(struct test_vm *t)
{
	u64 nr = 0;
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		nr += vcpu_get_stat(t->vcpus[i], savic_page_losses);
	return nr;
}

/* Created, moved and deleted: none of the vCPUs' business. */
TEST_F_TIMEOUT(savic_traffic, other_memslot, TIMEOUT_SECS)
{
	hammer(&self->t, change_other_slot);
	EXPECT_EQ(nr_page_losses(&self->t), 0);
}

/* The page of a vCPU that others write to. */
static void convert_page(struct test_vm *t, u32 round)
{
	gpa_t gpa = PAGES_GPA + (round % NR_VCPUS) * PAGE_SIZE;

	vm_mem_set_shared(t->vm, gpa, PAGE_SIZE);
	usleep(round * 10);
	vm_mem_set_private(t->vm, gpa, PAGE_SIZE);
}

TEST_F_TIMEOUT(savic_traffic, converted, TIMEOUT_SECS)
{
	hammer(&self->t, convert_page);
	EXPECT_GT(vcpu_get_stat(self->t.vcpus[0], savic_page_losses), 0);
}

static void punch_neighbour(struct test_vm *t, u32 round)
{
	vm_guest_mem_punch_hole(t->vm, PAGES_GPA + NR_VCPUS * PAGE_SIZE, PAGE_SIZE);
}

TEST_F_TIMEOUT(savic_traffic, neighbour_punched, TIMEOUT_SECS)
{
	hammer(&self->t, punch_neighbour);
	EXPECT_EQ(nr_page_losses(&self->t), 0);
}

#define NX_HUGE_PAGES	"/sys/module/kvm/parameters/nx_huge_pages"

static void set_nx_huge_pages(const char *val)
{
	FILE *f = fopen(NX_HUGE_PAGES, "w");

	TEST_ASSERT(f && fputs(val, f) >= 0 && !fclose(f), "Writing to %s failed, errno %d",
		    NX_HUGE_PAGES, errno);
}

static void toggle_nx_huge_pages(struct test_vm *t, u32 round)
{
	set_nx_huge_pages(round % 2 ? "force" : "off");
}

/* The parent puts the parameter back, also if the test fails. */
FIXTURE(savic_nx) {
	char old[16];
};

FIXTURE_SETUP(savic_nx)
{
	FILE *f = fopen(NX_HUGE_PAGES, "r+");

	if (!f || !fgets(self->old, sizeof(self->old), f))
		SKIP(return, NX_HUGE_PAGES " isn't writable");
	fclose(f);
}

FIXTURE_TEARDOWN_PARENT(savic_nx)
{
	set_nx_huge_pages(self->old);
}

/* Each change zaps all page tables of all VMs, whether or not they care. */
TEST_F_TIMEOUT(savic_nx, nx_huge_pages, TIMEOUT_SECS)
{
	struct test_vm t = {};
	int i;

	create_vm(&t);
	hammer(&t, toggle_nx_huge_pages);

	/*
	 * Two changes may be followed by one VMRUN, if the MSI of the second is sent but not yet
	 * handled.  Three can't: the first MSI has been handled by then.
	 */
	for (i = 0; i < NR_VCPUS; i++)
		EXPECT_GE(vcpu_get_stat(t.vcpus[i], pf_fixed), NR_ROUNDS / 2);
	kvm_vm_free(t.vm);
}

static void write_route(struct kvm_vm *vm, u32 target)
{
	struct kvm_irq_routing *routing = kvm_gsi_routing_create();

	routing->nr = 1;
	routing->entries[0] = (struct kvm_irq_routing_entry) {
		.gsi = MSI_GSI,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = APIC_DEFAULT_GPA | target << 12, .data = EXTRA_VECTOR },
	};
	kvm_gsi_routing_write(vm, routing);
}

/* Interrupts by irqfd, to another vCPU each time. */
static void reroute(struct test_vm *t, u32 round)
{
	u32 target = round % NR_VCPUS, nr = READ_ONCE(shared->nr_extra[target]);

	write_route(t->vm, target);
	savic_signal_eventfd(t->irqfd);
	while (READ_ONCE(shared->nr_extra[target]) == nr)
		usleep(50);
	TEST_ASSERT_EQ(READ_ONCE(shared->nr_extra[target]), nr + 1);
}

TEST_F_TIMEOUT(savic_traffic, rerouted, TIMEOUT_SECS)
{
	/* The irqfd remembers the route that it has. */
	write_route(self->t.vm, 0);
	self->t.irqfd = kvm_new_eventfd();
	kvm_assign_irqfd(self->t.vm, MSI_GSI, self->t.irqfd);
	hammer(&self->t, reroute);
	close(self->t.irqfd);
}

/* As for a snapshot or a migration, but with something new on its way in between. */
static void save_and_restore(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;

	savic_send_msi(vcpu->vm, vcpu->id, APIC_DM_NMI);
	vcpu_mp_state_get(vcpu, &mp_state);
	vcpu_events_get(vcpu, &events);
	savic_send_msi(vcpu->vm, vcpu->id, EXTRA_VECTOR);
	vcpu_events_set(vcpu, &events);
	vcpu_mp_state_set(vcpu, &mp_state);
}

static void pause_all(struct test_vm *t, u32 round)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		WRITE_ONCE(t->vcpus[i]->run->immediate_exit, 1);
		pthread_kill(t->threads[i], SIGUSR1);
	}
	pthread_barrier_wait(&paused);

	for (i = 0; i < NR_VCPUS; i++) {
		save_and_restore(t->vcpus[i]);
		WRITE_ONCE(t->vcpus[i]->run->immediate_exit, 0);
	}
	pthread_barrier_wait(&resumed);

	for (i = 0; i < NR_VCPUS; i++) {
		while (READ_ONCE(shared->nr_nmis[i]) < round ||
		       READ_ONCE(shared->nr_extra[i]) < round)
			usleep(50);
	}
}

static void signal_handler(int sig)
{
}

TEST_F_TIMEOUT(savic_traffic, paused, TIMEOUT_SECS)
{
	int i;

	signal(SIGUSR1, signal_handler);
	pthread_barrier_init(&paused, NULL, NR_VCPUS + 1);
	pthread_barrier_init(&resumed, NULL, NR_VCPUS + 1);
	hammer(&self->t, pause_all);
	for (i = 0; i < NR_VCPUS; i++) {
		EXPECT_EQ(shared->nr_nmis[i], NR_ROUNDS);
		EXPECT_EQ(shared->nr_extra[i], NR_ROUNDS);
	}
}

/* Guest only.  Nothing but the handler's frame is in it. */
static u8 *stack;

static void open_window_on_stack(void)
{
	asm volatile("mov %%rsp, %%rbx\n\t"
		     "mov %0, %%rsp\n\t"
		     "sti\n\t"
		     "nop\n\t"
		     "cli\n\t"
		     "mov %%rbx, %%rsp\n\t"
		     : : "r" (stack + PAGE_SIZE) : "rbx", "cc", "memory");
}

/* One by the host, or by the guest, which is pending when the page is gone. */
static void guest_irq(bool self)
{
	u32 i;

	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	savic_allow_vector(TOKEN_VECTOR);
	for (i = 1; i <= NR_DELIVERIES; i++) {
		if (self)
			wrmsr(X2APIC_MSR(APIC_SELF_IPI), MSI_VECTOR);
		GUEST_SYNC(0);
		open_window_on_stack();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, MSI_VECTOR), i);
		GUEST_ASSERT_EQ(savic_nr_irqs(0, TOKEN_VECTOR), i);
		savic_settle();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, MSI_VECTOR), i);
		GUEST_ASSERT(!savic_test_vector(0, APIC_ISR, MSI_VECTOR));
	}
	GUEST_DONE();
}

/* Hardware takes an NMI right at VMRUN, on the stack that is in use then. */
static void guest_nmi(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_DELIVERIES; i++) {
		GUEST_SYNC(__builtin_frame_address(0));
		GUEST_ASSERT_EQ(savic_nr_nmis(0), i);
		savic_settle();
		GUEST_ASSERT_EQ(savic_nr_nmis(0), i);
	}
	GUEST_DONE();
}

FIXTURE(savic_delivery) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	gpa_t stack;
};

FIXTURE_SETUP(savic_delivery)
{
	gva_t gva;

	self->vm = vm_savic_create(1, guest_irq, &self->vcpu);
	vm_install_exception_handler(self->vm, MSI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, TOKEN_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, NMI_VECTOR, savic_nmi_handler);
	gva = vm_alloc_page(self->vm);
	write_guest_global(self->vm, stack, (u8 *)gva);
	self->stack = addr_gva2gpa(self->vm, gva);
}

FIXTURE_TEARDOWN(savic_delivery)
{
	kvm_vm_free(self->vm);
}

/* Run into a page that isn't there for the guest, some times, and give it back. */
static void run_without_page(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_vcpu_events events;
	int i, r;

	vm_mem_set_shared(vcpu->vm, gpa, PAGE_SIZE);
	for (i = 0; i < 3; i++) {
		r = __vcpu_run(vcpu);
		TEST_ASSERT(r == -1 && errno == EFAULT, "KVM_RUN: %d, errno %d", r, errno);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_MEMORY_FAULT);
		TEST_ASSERT_EQ((gpa_t)vcpu->run->memory_fault.gpa, gpa);

		/* Nothing is left to userspace, or taken from there. */
		vcpu_events_get(vcpu, &events);
		TEST_ASSERT_EQ(events.interrupt.injected, 0);
		TEST_ASSERT_EQ(events.nmi.injected, 0);
		TEST_ASSERT_EQ(events.nmi.pending, 0);
		vcpu_events_set(vcpu, &events);
		vcpu_run_complete_io(vcpu);
	}
	vm_mem_set_private(vcpu->vm, gpa, PAGE_SIZE);
}

static void test_irq(struct kvm_vcpu *vcpu, gpa_t stack_gpa, bool self)
{
	savic_launch(vcpu, guest_irq, self);
	while (savic_vcpu_run(vcpu)) {
		if (!self)
			savic_send_msi(vcpu->vm, 0, MSI_VECTOR);
		run_without_page(vcpu, stack_gpa);
		/* Of a lower priority, for the same window. */
		savic_send_msi(vcpu->vm, 0, TOKEN_VECTOR);
	}
}

TEST_F_TIMEOUT(savic_delivery, msi, TIMEOUT_SECS)
{
	test_irq(self->vcpu, self->stack, false);
}

TEST_F_TIMEOUT(savic_delivery, self_ipi, TIMEOUT_SECS)
{
	test_irq(self->vcpu, self->stack, true);
}

/* The guest is below that frame, but not by more than a page. */
TEST_F_TIMEOUT(savic_delivery, nmi, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->vcpu;
	struct kvm_regs regs;
	struct ucall uc;
	gva_t offset;
	gpa_t top;

	/* Neither can be looked up once the VM is launched. */
	vcpu_regs_get(vcpu, &regs);
	regs.rsp &= ~(PAGE_SIZE - 1ul);
	top = addr_gva2gpa(self->vm, regs.rsp);

	savic_launch(vcpu, guest_nmi, false);
	for (;;) {
		vcpu_run(vcpu);
		if (get_ucall(vcpu, &uc) != UCALL_SYNC)
			break;
		offset = regs.rsp - (uc.args[1] & ~(PAGE_SIZE - 1ul));
		savic_send_msi(self->vm, 0, APIC_DM_NMI);
		run_without_page(vcpu, top - offset);
	}
	if (uc.cmd == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	EXPECT_EQ(uc.cmd, UCALL_DONE);
	EXPECT_EQ(vcpu_get_stat(vcpu, nmi_injections), NR_DELIVERIES);
}

SAVIC_TEST_HARNESS_MAIN
