// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts of an SEV-SNP guest whose APIC state the host can't
 * see.  Covers the ways that an interrupt can take to the guest (own IPI, another
 * vCPU's, MSI, timer), and requests that KVM has to refuse.
 *
 * A lost interrupt shows as a hang: guests wait without a limit, and the harness
 * kills the test.  A doubled or unwanted one shows in the per-vector counts.
 */
#include <pthread.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

/* Whether the host may send it; the denied one has the higher priority. */
#define ALLOWED_VECTOR		0x41
#define DENIED_VECTOR		0x71
/* Allowed as well, for what is sent last. */
#define LAST_VECTOR		0x42
#define NR_IPIS			100

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only: #VCs, of all vCPUs. */
static u32 vcs;

/* Guest only: vCPU 1 has its engine on; it may return. */
static bool receiver_ready;
static bool receiver_stop;

static void vc_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&vcs, 1);
	savic_vc_handler(regs);
}

static void guest_engine_on(void)
{
	u64 ctl = savic_page_gpa(0) | MSR_AMD64_SAVIC_EN | MSR_AMD64_SAVIC_ALLOWEDNMI;
	u32 before;

	GUEST_ASSERT(rdmsr(MSR_AMD64_SEV) & MSR_AMD64_SNP_SECURE_AVIC);
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_SAVIC_CONTROL), 0ul);

	/* Mode on, engine off: the host's registers, each access a #VC. */
	before = vcs;
	x2apic_enable();
	GUEST_ASSERT_EQ(rdmsr(X2APIC_MSR(APIC_ID)), 0ul);
	GUEST_ASSERT(vcs > before);

	savic_enable();
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_SAVIC_CONTROL), ctl);

	/* Engine on: the backing page's. */
	before = vcs;
	savic_write(0, APIC_LVR, 0x12345678);
	GUEST_ASSERT_EQ(rdmsr(X2APIC_MSR(APIC_LVR)), 0x12345678ul);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0x30);
	GUEST_ASSERT_EQ(savic_read(0, APIC_TASKPRI), 0x30u);
	GUEST_ASSERT_EQ(vcs, before);
	GUEST_DONE();
}

static void guest_self_ipi(void)
{
	u32 before;

	savic_enable();
	before = vcs;

	/* ALLOWED_IRR is about the host only. */
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), DENIED_VECTOR);
	GUEST_ASSERT(savic_test_vector(0, APIC_IRR, DENIED_VECTOR));
	GUEST_ASSERT_EQ(savic_nr_irqs(0, DENIED_VECTOR), 0u);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, DENIED_VECTOR), 1u);
	GUEST_ASSERT(!savic_test_vector(0, APIC_IRR, DENIED_VECTOR));

	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_SELF | APIC_DM_FIXED | ALLOWED_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);

	/* TPR holds back what isn't above its class. */
	wrmsr(X2APIC_MSR(APIC_TASKPRI), ALLOWED_VECTOR & 0xf0);
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), ALLOWED_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);
	sti_nop();
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 2u);

	/* None of it needed anybody's help. */
	GUEST_ASSERT_EQ(vcs, before);
	GUEST_DONE();
}

/* Guest only. */
static u32 edge_eois;

static void edge_eoi_handler(struct ex_regs *regs)
{
	u32 before = vcs;

	GUEST_ASSERT(savic_test_vector(0, APIC_ISR, regs->vector));
	wrmsr(X2APIC_MSR(APIC_EOI), 0);
	GUEST_ASSERT(!savic_test_vector(0, APIC_ISR, regs->vector));

	/* The host can't intercept an MSR other than by #VC: no #VC, no exit. */
	GUEST_ASSERT_EQ(vcs, before);
	edge_eois++;
}

static void guest_edge_eoi(void)
{
	savic_enable();
	savic_allow_vector(ALLOWED_VECTOR);
	GUEST_SYNC(0);
	while (!READ_ONCE(edge_eois)) {
		safe_halt();
		cli();
	}
	GUEST_DONE();
}

static void guest_msi(void)
{
	savic_enable();
	savic_allow_vector(ALLOWED_VECTOR);

	/* The host sends both, and VMRUN takes the one. */
	GUEST_SYNC(0);
	GUEST_ASSERT(savic_test_vector(0, APIC_IRR, ALLOWED_VECTOR));
	GUEST_ASSERT(!savic_test_vector(0, APIC_IRR, DENIED_VECTOR));
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);

	/* What was denied is gone, also for a guest that changes its mind. */
	savic_allow_vector(DENIED_VECTOR);
	GUEST_SYNC(1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, DENIED_VECTOR), 0u);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);
	GUEST_DONE();
}

/* What the host posts while it can't deliver waits for the engine. */
static void guest_msi_engine_off(void)
{
	gpa_t gpa;

	savic_set_vector(0, SAVIC_ALLOWED_IRR, ALLOWED_VECTOR);
	savic_set_vector(0, SAVIC_ALLOWED_IRR, LAST_VECTOR);
	GUEST_SYNC(0);
	savic_enable();
	savic_wait_for_irqs(ALLOWED_VECTOR, 1);

	/* Off, page gone, and on again: kexec. */
	savic_disable();
	GUEST_SYNC(1);
	savic_enable();
	savic_wait_for_irqs(ALLOWED_VECTOR, 2);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 2u);

	/* What the old kernel left behind isn't for the new one, and mustn't come along later. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_SYNC(2);
	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	GUEST_SYNC(3);
	savic_enable();
	savic_wait_for_irqs(LAST_VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LAST_VECTOR), 1u);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 2u);
	GUEST_DONE();
}

static void guest_timer(void)
{
	u64 val;
	u32 nr;

	savic_enable();
	savic_allow_vector(ALLOWED_VECTOR);

	savic_wrmsr(APIC_TDCR, 0xb);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | ALLOWED_VECTOR);
	savic_wrmsr(APIC_TMICT, 100000);
	savic_wait_for_irqs(ALLOWED_VECTOR, 1);
	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_TMCCT), &val), GHCB_OK);
	GUEST_ASSERT_EQ(val, 0ul);

	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | ALLOWED_VECTOR);
	savic_wrmsr(APIC_TMICT, 10000000);
	savic_wait_for_irqs(ALLOWED_VECTOR, 4);
	savic_wrmsr(APIC_TMICT, 0);

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_LVTT), &val), GHCB_OK);
	GUEST_ASSERT_EQ(val, (u64)(APIC_LVT_TIMER_PERIODIC | ALLOWED_VECTOR));

	/* The last period may have ended before it was stopped. */
	savic_settle();
	nr = savic_nr_irqs(0, ALLOWED_VECTOR);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | ALLOWED_VECTOR);
	wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + 1000000);
	savic_wait_for_irqs(ALLOWED_VECTOR, nr + 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), nr + 1);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
	GUEST_DONE();
}

static void guest_ipi_sender(void)
{
	u32 i;

	savic_enable();
	while (!READ_ONCE(receiver_ready))
		cpu_relax();

	for (i = 1; i <= NR_IPIS; i++) {
		savic_send_ipi(1, DENIED_VECTOR);
		while (savic_nr_irqs(1, DENIED_VECTOR) < i)
			cpu_relax();
		GUEST_ASSERT_EQ(savic_nr_irqs(1, DENIED_VECTOR), i);
	}

	WRITE_ONCE(receiver_stop, true);
	savic_send_ipi(1, ALLOWED_VECTOR);
	GUEST_DONE();
}

static void guest_ipi_running(void)
{
	savic_enable();
	WRITE_ONCE(receiver_ready, true);
	sti_nop();
	while (!READ_ONCE(receiver_stop))
		cpu_relax();
	GUEST_DONE();
}

static void guest_ipi_halted(void)
{
	savic_enable();
	WRITE_ONCE(receiver_ready, true);
	savic_wait_for_irqs(ALLOWED_VECTOR, 1);
	GUEST_DONE();
}

/* Tells the host that it is about to halt, lest the sender be too early. */
static void guest_ipi_blocked(void)
{
	savic_enable();
	GUEST_SYNC(0);
	savic_wait_for_irqs(DENIED_VECTOR, 1);
	GUEST_DONE();
}

static void guest_ipi_one(void)
{
	savic_enable();
	savic_send_ipi(1, DENIED_VECTOR);
	GUEST_DONE();
}

static void guest_control_msr(void)
{
	u64 good = savic_page_gpa(0);
	int bit;

	for (bit = 2; bit < 64; bit++) {
		if (bit < 12 || bit > 51)
			GUEST_ASSERT_EQ(wrmsr_safe(MSR_AMD64_SAVIC_CONTROL,
						   good | BIT_ULL(bit)), GP_VECTOR);
	}

	/* Beyond any physical address, on any CPU with SEV-SNP. */
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_AMD64_SAVIC_CONTROL,
				   BIT_ULL(51) | MSR_AMD64_SAVIC_EN), GP_VECTOR);
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_SAVIC_CONTROL), 0ul);

	savic_enable();
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), ALLOWED_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);
	GUEST_DONE();
}

static void guest_no_savic(void)
{
	static const u64 exits[] = {
		SVM_VMGEXIT_SAVIC, SVM_EXIT_AVIC_INCOMPLETE_IPI,
		SVM_EXIT_AVIC_UNACCELERATED_ACCESS,
	};
	u64 val, error;
	int i;

	GUEST_ASSERT(!(rdmsr(MSR_AMD64_SEV) & MSR_AMD64_SNP_SECURE_AVIC));
	GUEST_ASSERT_EQ(rdmsr_safe(MSR_AMD64_SAVIC_CONTROL, &val), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(MSR_AMD64_SAVIC_CONTROL, 0), GP_VECTOR);
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, 0, &error),
			GHCB_MALFORMED);
	GUEST_ASSERT_EQ(error, (u64)GHCB_ERR_INVALID_EVENT);
	/* Whatever else they lack. */
	for (i = 0; i < ARRAY_SIZE(exits); i++) {
		struct ghcb_request req = { .exit_code = exits[i] };

		GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_MALFORMED);
		GUEST_ASSERT_EQ(req.exit_info_2, (u64)GHCB_ERR_INVALID_EVENT);
	}
	GUEST_DONE();
}

static void assert_register_refused(u64 apic_id, gpa_t gpa)
{
	u64 error;

	GUEST_ASSERT_EQ(savic_register_page(apic_id, gpa, &error), GHCB_MALFORMED);
	GUEST_ASSERT_EQ(error, (u64)GHCB_ERR_INVALID_INPUT);
}

static void guest_register(void)
{
	gpa_t gpa;

	/* No such vCPU, and what it might be truncated to exists. */
	assert_register_refused(2, savic_page_gpa(0));
	assert_register_refused(GENMASK_ULL(31, 0), savic_page_gpa(0));
	assert_register_refused(BIT_ULL(32), savic_page_gpa(0));

	/* Not a page, not memory. */
	assert_register_refused(SVM_VMGEXIT_SAVIC_SELF_GPA, savic_page_gpa(0) + 8);
	assert_register_refused(SVM_VMGEXIT_SAVIC_SELF_GPA, BIT_ULL(45));
	assert_register_refused(SVM_VMGEXIT_SAVIC_SELF_GPA, -1ull << 12);

	/* Shared: the GHCB. */
	assert_register_refused(SVM_VMGEXIT_SAVIC_SELF_GPA, rdmsr(MSR_AMD64_SEV_ES_GHCB));

	/* On behalf of another vCPU, moved, and removed. */
	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(0), NULL), GHCB_OK);
	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	GUEST_ASSERT_EQ(savic_unregister_page(1, &gpa), GHCB_OK);
	GUEST_ASSERT_EQ(gpa, savic_page_gpa(1));

	savic_enable();
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), ALLOWED_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);
	GUEST_DONE();
}

/* Guest only: requests that are Secure AVIC's to refuse. */
static u32 nr_refused;

static void assert_malformed(u64 exit_code, u64 exit_info_1, u32 valid, u64 error)
{
	struct ghcb_request req = {
		.exit_code = exit_code,
		.exit_info_1 = exit_info_1,
		.reg[GHCB_RAX] = SVM_VMGEXIT_SAVIC_SELF_GPA,
		.reg[GHCB_RBX] = savic_page_gpa(0),
		.reg[GHCB_RCX] = X2APIC_MSR(APIC_EOI),
		.valid = valid,
	};

	GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_MALFORMED);
	GUEST_ASSERT_EQ(req.exit_info_2, error);
}

static void assert_refused(u64 exit_code, u64 exit_info_1, u32 valid, u64 error)
{
	assert_malformed(exit_code, exit_info_1, valid, error);
	nr_refused++;
}

/* Each error code of requests that lack something, or ask for what there isn't. */
static void guest_malformed(void)
{
	const u32 rax = BIT(GHCB_RAX), rbx = BIT(GHCB_RBX);
	const u32 msr = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX);

	/* Nothing is registered yet. */
	assert_refused(SVM_VMGEXIT_SAVIC, SVM_VMGEXIT_SAVIC_UNREGISTER_GPA, rax,
		       GHCB_ERR_INVALID_INPUT);
	assert_refused(SVM_VMGEXIT_SAVIC, SVM_VMGEXIT_SAVIC_REGISTER_GPA, rbx,
		       GHCB_ERR_MISSING_INPUT);
	assert_refused(SVM_VMGEXIT_SAVIC, SVM_VMGEXIT_SAVIC_REGISTER_GPA, rax,
		       GHCB_ERR_MISSING_INPUT);
	assert_refused(SVM_VMGEXIT_SAVIC, SVM_VMGEXIT_SAVIC_UNREGISTER_GPA, 0,
		       GHCB_ERR_MISSING_INPUT);
	assert_refused(SVM_VMGEXIT_SAVIC, SVM_VMGEXIT_SAVIC_UNREGISTER_GPA + 1, rax | rbx,
		       GHCB_ERR_INVALID_INPUT);

	/* The EOI register takes nothing but zero, which RAX isn't. */
	savic_enable();
	assert_refused(SVM_EXIT_MSR, 1, msr, GHCB_ERR_INVALID_INPUT);
	assert_malformed(SVM_EXIT_MSR, 1, msr & ~rax, GHCB_ERR_MISSING_INPUT);
	assert_malformed(SVM_EXIT_MSR, 1, msr & ~BIT(GHCB_RDX), GHCB_ERR_MISSING_INPUT);
	assert_malformed(SVM_EXIT_MSR, 1, msr & ~BIT(GHCB_RCX), GHCB_ERR_MISSING_INPUT);
	assert_malformed(SVM_EXIT_MSR, 0, 0, GHCB_ERR_MISSING_INPUT);

	/* A register that the guest has to access by MSR, and EOI can't be read. */
	assert_refused(SVM_EXIT_AVIC_UNACCELERATED_ACCESS, BIT_ULL(32) | APIC_LVTT, 0,
		       GHCB_ERR_INVALID_INPUT);
	assert_refused(SVM_EXIT_AVIC_UNACCELERATED_ACCESS, APIC_EOI, 0,
		       GHCB_ERR_INVALID_INPUT);
	assert_refused(SVM_EXIT_AVIC_INCOMPLETE_IPI, APIC_DM_INIT, 0,
		       GHCB_ERR_INVALID_INPUT);
	GUEST_SYNC(nr_refused);
	GUEST_DONE();
}

/* As for any MSR, an error that the guest is to see as an exception of its instruction. */
#define GHCB_GP			(SVM_EVTINJ_VALID | SVM_EVTINJ_VALID_ERR |	\
				 SVM_EVTINJ_TYPE_EXEPT | GP_VECTOR)

static void assert_gp(u32 msr, bool write)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_MSR,
		.exit_info_1 = write,
		.reg[GHCB_RCX] = msr,
		.valid = write ? BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX) : BIT(GHCB_RCX),
	};

	GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_EXCEPTION);
	/* The upper half would be an error code, if there were any. */
	GUEST_ASSERT_EQ((u32)req.exit_info_2, (u32)GHCB_GP);
}

/* Requests that make no sense, after which interrupts must work all the same. */
static void guest_bad_msrs(void)
{
	savic_enable();
	savic_allow_vector(ALLOWED_VECTOR);

	/* Nothing in service: not an error of the protocol, but no more than that. */
	savic_wrmsr(APIC_EOI, 0);
	assert_gp(X2APIC_MSR(APIC_EOI), false);

	assert_gp(0x8ff, false);
	assert_gp(0x8ff, true);
	assert_gp(X2APIC_MSR(APIC_TMCCT), true);

	GUEST_SYNC(0);
	savic_wait_for_irqs(ALLOWED_VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), 1u);
	GUEST_DONE();
}

/* A vCPU may have another GHCB for each VMGEXIT, also one that its interrupt handler uses. */
#define NR_GHCBS		4
#define NR_GHCB_ROUNDS		100

static u64 first_ghcb;

static void change_ghcb(void)
{
	u64 gpa = rdmsr(MSR_AMD64_SEV_ES_GHCB);

	gpa = first_ghcb + (gpa - first_ghcb + PAGE_SIZE) % (NR_GHCBS * PAGE_SIZE);
	GUEST_ASSERT_EQ(ghcb_msr_protocol(gpa | GHCB_MSR_REG_GPA_REQ), gpa | GHCB_MSR_REG_GPA_RESP);
	wrmsr(MSR_AMD64_SEV_ES_GHCB, gpa);
}

static void read_msr_by_new_ghcb(void)
{
	u64 val;

	change_ghcb();
	GUEST_ASSERT_EQ(ghcb_rdmsr(MSR_IA32_APICBASE, &val), GHCB_OK);
	GUEST_ASSERT(val & MSR_IA32_APICBASE_ENABLE);
}

static void ghcb_irq_handler(struct ex_regs *regs)
{
	read_msr_by_new_ghcb();
	savic_irq_handler(regs);
	read_msr_by_new_ghcb();
}

static void guest_changes_ghcb(void)
{
	u32 i;

	savic_enable();
	first_ghcb = rdmsr(MSR_AMD64_SEV_ES_GHCB);
	for (i = 1; i <= NR_GHCB_ROUNDS; i++) {
		read_msr_by_new_ghcb();
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), ALLOWED_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, ALLOWED_VECTOR), i);
		read_msr_by_new_ghcb();
	}
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
};

FIXTURE(savic) {
	struct test_vm t;
};

FIXTURE_SETUP(savic)
{
	/* KVM may be without the patch that adds the I/O APIC in the kernel. */
	self->t.vm = __vm_savic_create(2, NULL, self->t.vcpus, true, 0);
	vm_install_exception_handler(self->t.vm, ALLOWED_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, DENIED_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, LAST_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, VC_VECTOR, vc_handler);
}

FIXTURE_TEARDOWN(savic)
{
	kvm_vm_free(self->t.vm);
}

static void launch(struct test_vm *t, void *guest0, void *guest1)
{
	vcpu_arch_set_entry_point(t->vcpus[0], guest0);
	vcpu_arch_set_entry_point(t->vcpus[1], guest1);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
}

TEST_F_TIMEOUT(savic, engine_on, TIMEOUT_SECS)
{
	launch(&self->t, guest_engine_on, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, self_ipi, TIMEOUT_SECS)
{
	launch(&self->t, guest_self_ipi, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, edge_eoi_without_exit, TIMEOUT_SECS)
{
	vm_install_exception_handler(self->t.vm, ALLOWED_VECTOR, edge_eoi_handler);
	launch(&self->t, guest_edge_eoi, NULL);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	savic_send_msi(self->t.vm, 0, ALLOWED_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, msi, TIMEOUT_SECS)
{
	launch(&self->t, guest_msi, NULL);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	savic_send_msi(self->t.vm, 0, DENIED_VECTOR);
	savic_send_msi(self->t.vm, 0, ALLOWED_VECTOR);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, msi_engine_off, TIMEOUT_SECS)
{
	int i;

	launch(&self->t, guest_msi_engine_off, NULL);
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
		savic_send_msi(self->t.vm, 0, ALLOWED_VECTOR);
	}
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	savic_send_msi(self->t.vm, 0, LAST_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, timer, TIMEOUT_SECS)
{
	launch(&self->t, guest_timer, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

static void test_ipis(struct test_vm *t, void *receiver)
{
	pthread_t thread;

	launch(t, guest_ipi_sender, receiver);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpus[1]);
	TEST_ASSERT(!savic_vcpu_run(t->vcpus[0]), "Unexpected GUEST_SYNC()");
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic, ipi_running, TIMEOUT_SECS)
{
	test_ipis(&self->t, guest_ipi_running);
}

/* HLT against the sender, as close as it gets. */
TEST_F_TIMEOUT(savic, ipi_halting, TIMEOUT_SECS)
{
	test_ipis(&self->t, guest_ipi_halted);
}

/* The target is asleep in the host for certain. */
TEST_F_TIMEOUT(savic, ipi_blocked, TIMEOUT_SECS)
{
	pthread_t thread;

	launch(&self->t, guest_ipi_one, guest_ipi_blocked);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[1]));
	pthread_create(&thread, NULL, savic_vcpu_thread, self->t.vcpus[1]);
	savic_wait_until_blocked(self->t.vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic, control_msr, TIMEOUT_SECS)
{
	launch(&self->t, guest_control_msr, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, register_backing_page, TIMEOUT_SECS)
{
	launch(&self->t, guest_register, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, many_ghcbs, TIMEOUT_SECS)
{
	vm_install_exception_handler(self->t.vm, ALLOWED_VECTOR, ghcb_irq_handler);
	launch(&self->t, guest_changes_ghcb, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic, malformed, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpus[0];

	launch(&self->t, guest_malformed, NULL);
	/* What other VMGEXITs may lack, too, isn't counted. */
	EXPECT_EQ(savic_vcpu_run_to_sync(vcpu), vcpu_get_stat(vcpu, savic_refused_vmgexits));
	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

TEST_F_TIMEOUT(savic, bad_msrs, TIMEOUT_SECS)
{
	launch(&self->t, guest_bad_msrs, NULL);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	savic_send_msi(self->t.vm, 0, ALLOWED_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

FIXTURE(snp) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(snp)
{
	self->vm = vm_sev_create_with_one_vcpu(KVM_X86_SNP_VM, guest_no_savic, &self->vcpu);
}

FIXTURE_TEARDOWN(snp)
{
	kvm_vm_free(self->vm);
}

/* An SNP guest that didn't ask for Secure AVIC must see none of it. */
TEST_F_TIMEOUT(snp, not_selected, TIMEOUT_SECS)
{
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

TEST(refused_without_snp)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_vm *vm;

	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SEV_ES_VM)))
		SKIP(return, "No SEV-ES");

	vm = vm_create_barebones_type(KVM_X86_SEV_ES_VM);
	EXPECT_EQ(-1, __vm_sev_ioctl(vm, KVM_SEV_INIT2, &init));
	EXPECT_EQ(EINVAL, errno);
	kvm_vm_free(vm);
}

/* Userspace may create the irqchip after KVM_SEV_INIT2, but not after a vCPU. */
TEST(refused_without_irqchip)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SNP_VM);

	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);
	EXPECT_EQ(-1, __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)0));
	EXPECT_EQ(EINVAL, errno);
	kvm_vm_free(vm);
}

SAVIC_TEST_HARNESS_MAIN
