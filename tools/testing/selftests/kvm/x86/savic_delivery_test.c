// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts and NMIs whose delivery to the guest is interrupted.
 *
 * The page of the stack that hardware pushes to isn't mapped, so there is a nested page
 * fault when the interrupt has left IRR and the handler hasn't started.  Hardware completes
 * the delivery at the next VMRUN, whatever is in between, and KVM must not do so as well.
 */
#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define VECTOR			0x51
#define OTHER_VECTOR		0x41

#define NR_ROUNDS		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

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
	savic_allow_vector(VECTOR);
	savic_allow_vector(OTHER_VECTOR);
	for (i = 1; i <= NR_ROUNDS; i++) {
		if (self)
			wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
		GUEST_SYNC(0);
		open_window_on_stack();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), i);
		GUEST_ASSERT_EQ(savic_nr_irqs(0, OTHER_VECTOR), i);
		savic_settle();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), i);
		GUEST_ASSERT(!savic_test_vector(0, APIC_ISR, VECTOR));
	}
	GUEST_DONE();
}

/* Hardware takes an NMI right at VMRUN, on the stack that is in use then. */
static void guest_nmi(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_ROUNDS; i++) {
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
	vm_install_exception_handler(self->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, OTHER_VECTOR, savic_irq_handler);
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

static void launch(struct kvm_vcpu *vcpu, void *guest_code, bool arg)
{
	vcpu_arch_set_entry_point(vcpu, guest_code);
	vcpu_args_set(vcpu, 1, (u64)arg);
	vm_sev_launch(vcpu->vm, snp_default_policy(), NULL);
}

static void test_irq(struct kvm_vcpu *vcpu, gpa_t stack_gpa, bool self)
{
	launch(vcpu, guest_irq, self);
	while (savic_vcpu_run(vcpu)) {
		if (!self)
			savic_send_msi(vcpu->vm, 0, VECTOR);
		run_without_page(vcpu, stack_gpa);
		/* Of a lower priority, for the same window. */
		savic_send_msi(vcpu->vm, 0, OTHER_VECTOR);
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

	launch(vcpu, guest_nmi, false);
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
	EXPECT_EQ(vcpu_get_stat(vcpu, nmi_injections), NR_ROUNDS);
}

SAVIC_TEST_HARNESS_MAIN
