// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: the backing page has to be in the nested page tables whenever its
 * vCPU is in guest mode, else the vCPU never runs again (APM volume 2, 15.36.21).
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
#define NR_ROUNDS	300

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

static void launch(struct test_vm *t, void *guest_code)
{
	struct ucall uc;

	vcpu_arch_set_entry_point(t->vcpu, guest_code);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	if (guest_code == guest_other_page)
		return;

	vcpu_run(t->vcpu);
	TEST_ASSERT_EQ(get_ucall(t->vcpu, &uc), UCALL_SYNC);
	t->page = uc.args[1];
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

/* An MMU notifier for the shared memory that is behind the same GPA. */
static void zap_by_notifier(struct test_vm *t)
{
	void *hva = addr_gpa2hva(t->vm, t->page);

	TEST_ASSERT(!madvise(hva, PAGE_SIZE, MADV_DONTNEED), "madvise() failed");
	/* There has to be something that a notifier is called for. */
	WRITE_ONCE(*(u8 *)hva, 1);
}

TEST_F_TIMEOUT(savic_page, mmu_notifier, TIMEOUT_SECS)
{
	hammer(&self->t, zap_by_notifier);
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
	struct ucall uc;

	vm_install_exception_handler(t->vm, VC_VECTOR, vc_handler);
	launch(t, guest_twice);
	vm_guest_mem_punch_hole(t->vm, t->page, PAGE_SIZE);

	/* KVM gives it a new page, which the guest hasn't validated. */
	vcpu_run(t->vcpu);
	TEST_ASSERT_EQ(get_ucall(t->vcpu, &uc), UCALL_SYNC);
	TEST_ASSERT_EQ(uc.args[1], (u64)VC_NOT_RESTARTABLE);
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
