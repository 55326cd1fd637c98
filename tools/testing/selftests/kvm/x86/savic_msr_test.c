// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: every x2APIC register, by everything that a guest can ask for.
 *
 * An MSR access by VMGEXIT reaches the APIC that KVM emulates: with the engine off that
 * is all there is, later the guest asks for what hardware doesn't do.  A guest may also
 * forward AVIC_NOACCEL as it is, but that has no operand: only an EOI can be done then.
 * And of the instruction itself, hardware does what APM volume 2, table 15-22 says,
 * while the rest comes as a #VC, which the handler turns into the first.
 */
#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define APIC_RRR		0x0c0
#define APIC_LDR		0x0d0
#define APIC_DFR		0x0e0
#define APIC_ESR		0x280
#define APIC_LVTTHMR		0x330
#define APIC_LVTPC		0x340
#define APIC_LVT0		0x350
#define APIC_LVT1		0x360
#define APIC_LVTERR		0x370
#define APIC_EFEAT		0x400
#define APIC_EILVT0		0x500

#define VECTOR			0x51

/* EXITINFO1 of AVIC_NOACCEL. */
#define NOACCEL_WRITE		BIT_ULL(32)

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* What becomes of a value that is written, or read back. */
enum access {
	REFUSED,
	DONE,
	/* Done, and the value is what a read returns. */
	KEPT,
};

struct reg {
	u32 first, last;
	bool readable;
	enum access write;
	u64 val;
};

/* KVM's APIC in x2APIC mode.  What isn't here isn't a register at all. */
static const struct reg regs[] = {
	{ APIC_ID,	APIC_ID,	true,	REFUSED,	0 },
	{ APIC_LVR,	APIC_LVR,	true,	REFUSED,	0 },
	{ APIC_TASKPRI,	APIC_TASKPRI,	true,	KEPT,		0x30 },
	{ APIC_TASKPRI,	APIC_TASKPRI,	true,	KEPT,		0 },
	{ APIC_PROCPRI,	APIC_PROCPRI,	true,	REFUSED,	0 },
	{ APIC_EOI,	APIC_EOI,	false,	DONE,		0 },
	{ APIC_LDR,	APIC_LDR,	true,	REFUSED,	0 },
	{ APIC_SPIV,	APIC_SPIV,	true,	KEPT,		APIC_SPIV_APIC_ENABLED | 0xff },
	{ APIC_ISR,	APIC_ISR + 0x70, true,	REFUSED,	0 },
	{ APIC_TMR,	APIC_TMR + 0x70, true,	REFUSED,	0 },
	{ APIC_IRR,	APIC_IRR + 0x70, true,	REFUSED,	0 },
	{ APIC_ESR,	APIC_ESR,	true,	DONE,		0 },
	{ APIC_LVTT,	APIC_LVTT,	true,	KEPT,
	  APIC_LVT_MASKED | APIC_LVT_TIMER_PERIODIC | VECTOR },
	{ APIC_LVTTHMR,	APIC_LVTTHMR,	true,	KEPT,		APIC_LVT_MASKED | VECTOR },
	{ APIC_LVTPC,	APIC_LVTPC,	true,	KEPT,		APIC_LVT_MASKED | VECTOR },
	{ APIC_LVT0,	APIC_LVT0,	true,	KEPT,		APIC_LVT_MASKED | VECTOR },
	{ APIC_LVT1,	APIC_LVT1,	true,	KEPT,		APIC_LVT_MASKED | VECTOR },
	{ APIC_LVTERR,	APIC_LVTERR,	true,	KEPT,		APIC_LVT_MASKED | VECTOR },
	{ APIC_TMICT,	APIC_TMICT,	true,	KEPT,		0x12345678 },
	{ APIC_TMICT,	APIC_TMICT,	true,	KEPT,		0 },
	{ APIC_TMCCT,	APIC_TMCCT,	true,	REFUSED,	0 },
	{ APIC_TDCR,	APIC_TDCR,	true,	KEPT,		0xb },
	{ APIC_SELF_IPI, APIC_SELF_IPI,	false,	DONE,		VECTOR },
	/* Send an interrupt to nobody. */
	{ APIC_ICR,	APIC_ICR,	true,	DONE,		7ull << 32 | VECTOR },
};

static bool is_register(u32 reg)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		if (reg >= regs[i].first && reg <= regs[i].last)
			return true;
	}
	return false;
}

static void check_by_vmgexit(const struct reg *r, u32 reg)
{
	enum ghcb_status status;
	u64 val;

	status = ghcb_rdmsr(X2APIC_MSR(reg), &val);
	__GUEST_ASSERT((status == GHCB_OK) == r->readable, "Read of %#x: status %u",
		       reg, status);

	status = ghcb_wrmsr(X2APIC_MSR(reg), r->val);
	__GUEST_ASSERT((status == GHCB_OK) == (r->write != REFUSED),
		       "Write of %#lx to %#x: status %u", r->val, reg, status);
	if (r->write != KEPT)
		return;

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(reg), &val), GHCB_OK);
	__GUEST_ASSERT(val == r->val, "%#x is %#lx, %#lx was written", reg, val, r->val);
}

static void check_all_by_vmgexit(void)
{
	enum ghcb_status status;
	u32 i, reg;
	u64 val;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		for (reg = regs[i].first; reg <= regs[i].last; reg += 0x10)
			check_by_vmgexit(&regs[i], reg);
	}

	for (reg = 0; reg < 0x1000; reg += 0x10) {
		/* Depends on KVM's MCE banks. */
		if (is_register(reg) || reg == APIC_LVTCMCI)
			continue;
		status = ghcb_rdmsr(X2APIC_MSR(reg), &val);
		__GUEST_ASSERT(status != GHCB_OK, "Read of %#x accepted", reg);
		status = ghcb_wrmsr(X2APIC_MSR(reg), 0);
		__GUEST_ASSERT(status != GHCB_OK, "Write of %#x accepted", reg);
	}
}

static void guest_by_vmgexit(bool engine_on)
{
	if (engine_on) {
		savic_enable();
		savic_allow_vector(VECTOR);
	} else {
		x2apic_enable();
	}

	check_all_by_vmgexit();

	/* Reserved bits.  KVM's own EOI register takes anything, as for other VMs. */
	if (engine_on)
		GUEST_ASSERT_NE(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 1), GHCB_OK);
	GUEST_ASSERT_NE(ghcb_wrmsr(X2APIC_MSR(APIC_ESR), 1), GHCB_OK);
	GUEST_ASSERT_NE(ghcb_wrmsr(X2APIC_MSR(APIC_TASKPRI), BIT_ULL(32)), GHCB_OK);
	GUEST_ASSERT_NE(ghcb_wrmsr(X2APIC_MSR(APIC_SELF_IPI), BIT_ULL(8) | VECTOR), GHCB_OK);

	/* Which is what SELF_IPI was for: posted by the host, when it can be delivered. */
	if (!engine_on) {
		savic_set_vector(0, SAVIC_ALLOWED_IRR, VECTOR);
		savic_enable();
	}
	savic_wait_for_irqs(VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);
	GUEST_DONE();
}

static enum ghcb_status noaccel(u64 info_1, u64 info_2, u64 *error)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_UNACCELERATED_ACCESS,
		.exit_info_1 = info_1,
		.exit_info_2 = info_2,
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	*error = req.exit_info_2;
	return status;
}

/* As hardware would describe it, for all registers and both directions. */
static void guest_noaccel(void)
{
	enum ghcb_status status;
	u64 error;
	u32 reg;

	savic_enable();
	for (reg = 0; reg < 0x1000; reg += 0x10) {
		status = noaccel(reg, 0, &error);
		__GUEST_ASSERT(status == GHCB_MALFORMED && error == GHCB_ERR_INVALID_INPUT,
			       "Read of %#x: status %u, error %lu", reg, status, error);
		if (reg == APIC_EOI)
			continue;
		status = noaccel(reg | NOACCEL_WRITE, 0, &error);
		__GUEST_ASSERT(status == GHCB_MALFORMED && error == GHCB_ERR_INVALID_INPUT,
			       "Write of %#x: status %u, error %lu", reg, status, error);
	}

	/* Nothing is in service, whichever vector it says. */
	for (reg = 0; reg < 256; reg++)
		GUEST_ASSERT_EQ(noaccel(NOACCEL_WRITE | APIC_EOI, reg, &error), GHCB_OK);

	wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);
	GUEST_DONE();
}

static void check_rdmsr(u32 reg, u64 expected)
{
	u64 val = rdmsr(X2APIC_MSR(reg));

	__GUEST_ASSERT(val == expected, "RDMSR of %#x: %#lx, expected %#lx", reg, val, expected);
}

/* What is allowed and what traps goes to the backing page, the latter also to KVM. */
static void guest_by_instruction(void)
{
	static const u32 lvts[] = {
		APIC_LVTTHMR, APIC_LVTPC, APIC_LVT0, APIC_LVT1, APIC_LVTERR,
	};
	u64 val;
	u32 i;

	savic_enable();
	for (i = 0; i < 8; i++) {
		savic_write(0, APIC_TMR + i * 0x10, 0x11111111 * i);
		check_rdmsr(APIC_TMR + i * 0x10, 0x11111111 * i);
		savic_write(0, APIC_TMR + i * 0x10, 0);
		check_rdmsr(APIC_ISR + i * 0x10, 0);
		check_rdmsr(APIC_IRR + i * 0x10, 0);
	}
	check_rdmsr(APIC_ID, 0);
	check_rdmsr(APIC_LVR, savic_read(0, APIC_LVR));

	for (i = 0; i < ARRAY_SIZE(lvts); i++) {
		wrmsr(X2APIC_MSR(lvts[i]), APIC_LVT_MASKED | (VECTOR + i));
		check_rdmsr(lvts[i], APIC_LVT_MASKED | (VECTOR + i));
		GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(lvts[i]), &val), GHCB_OK);
		GUEST_ASSERT_EQ(val, (u64)(APIC_LVT_MASKED | (VECTOR + i)));
	}

	wrmsr(X2APIC_MSR(APIC_SPIV), APIC_SPIV_APIC_ENABLED | 0xfe);
	check_rdmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xfe);
	wrmsr(X2APIC_MSR(APIC_ESR), 0);
	check_rdmsr(APIC_ESR, 0);

	/* The timer runs at the host: its count is the one thing that has to be asked for. */
	wrmsr(X2APIC_MSR(APIC_TDCR), 0xb);
	wrmsr(X2APIC_MSR(APIC_LVTT), APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	wrmsr(X2APIC_MSR(APIC_TMICT), GENMASK(31, 0));
	check_rdmsr(APIC_TMICT, GENMASK(31, 0));
	val = rdmsr(X2APIC_MSR(APIC_TMCCT));
	GUEST_ASSERT(val && val < GENMASK(31, 0));
	GUEST_ASSERT(rdmsr(X2APIC_MSR(APIC_TMCCT)) < val);
	wrmsr(X2APIC_MSR(APIC_TMICT), 0);
	check_rdmsr(APIC_TMCCT, 0);
	GUEST_DONE();
}

/* Registers that can't be written, or read, also not by the host. */
static void guest_read_only(void)
{
	static const u32 read_only[] = {
		APIC_LVR, APIC_PROCPRI, APIC_ISR, APIC_ISR + 0x70, APIC_TMR, APIC_TMR + 0x70,
		APIC_IRR, APIC_IRR + 0x70, APIC_TMCCT,
	};
	u64 val;
	u32 i;

	savic_enable();
	for (i = 0; i < ARRAY_SIZE(read_only); i++) {
		val = rdmsr(X2APIC_MSR(read_only[i]));
		__GUEST_ASSERT(wrmsr_safe(X2APIC_MSR(read_only[i]), 1) == GP_VECTOR,
			       "WRMSR of %#x is no #GP", read_only[i]);
		check_rdmsr(read_only[i], val);
	}
	GUEST_ASSERT_EQ(rdmsr_safe(X2APIC_MSR(APIC_EOI), &val), GP_VECTOR);
	GUEST_ASSERT_EQ(rdmsr_safe(X2APIC_MSR(APIC_SELF_IPI), &val), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(X2APIC_MSR(APIC_EOI), 1), GP_VECTOR);
	GUEST_DONE();
}

/* The backing page and KVM's APIC: what is asked of one of them isn't seen in the other. */
static void guest_two_apics(void)
{
	u64 val;

	savic_enable();
	savic_allow_vector(VECTOR);

	/* TPR is accelerated, and KVM's has no effect. */
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0x20);
	savic_wrmsr(APIC_TASKPRI, 0xf0);
	check_rdmsr(APIC_TASKPRI, 0x20);
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0xf0);
	savic_wrmsr(APIC_TASKPRI, 0x10);
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);
	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_TASKPRI), &val), GHCB_OK);
	GUEST_ASSERT_EQ(val, 0x10ul);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 2u);

	/* These trap: an instruction writes both, a VMGEXIT KVM's only. */
	wrmsr(X2APIC_MSR(APIC_SPIV), APIC_SPIV_APIC_ENABLED | 0xfe);
	savic_wrmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xaf);
	check_rdmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xfe);
	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_SPIV), &val), GHCB_OK);
	GUEST_ASSERT_EQ(val, (u64)(APIC_SPIV_APIC_ENABLED | 0xaf));

	/* The timer is KVM's, whichever way it is told. */
	wrmsr(X2APIC_MSR(APIC_TDCR), 0xb);
	wrmsr(X2APIC_MSR(APIC_LVTT), VECTOR);
	wrmsr(X2APIC_MSR(APIC_TMICT), 1000);
	savic_wait_for_irqs(VECTOR, 3);
	savic_wrmsr(APIC_TDCR, 0);
	savic_wrmsr(APIC_TMICT, 2000);
	savic_wait_for_irqs(VECTOR, 4);
	check_rdmsr(APIC_TDCR, 0xb);
	check_rdmsr(APIC_TMICT, 1000);
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | VECTOR);
	check_rdmsr(APIC_LVTT, VECTOR);
	GUEST_DONE();
}

FIXTURE(savic_msr) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_msr)
{
	self->vm = vm_savic_create(1, NULL, &self->vcpu);
	vm_install_exception_handler(self->vm, VECTOR, savic_irq_handler);
}

FIXTURE_TEARDOWN(savic_msr)
{
	kvm_vm_free(self->vm);
}

static void run(struct kvm_vcpu *vcpu, void *guest_code, u64 arg)
{
	vcpu_arch_set_entry_point(vcpu, guest_code);
	vcpu_args_set(vcpu, 1, arg);
	vm_sev_launch(vcpu->vm, snp_default_policy(), NULL);
	TEST_ASSERT(!savic_vcpu_run(vcpu), "Unexpected GUEST_SYNC()");
}

TEST_F_TIMEOUT(savic_msr, vmgexit_engine_off, TIMEOUT_SECS)
{
	run(self->vcpu, guest_by_vmgexit, false);
}

TEST_F_TIMEOUT(savic_msr, vmgexit_engine_on, TIMEOUT_SECS)
{
	run(self->vcpu, guest_by_vmgexit, true);
}

TEST_F_TIMEOUT(savic_msr, noaccel, TIMEOUT_SECS)
{
	run(self->vcpu, guest_noaccel, 0);
	EXPECT_EQ(vcpu_get_stat(self->vcpu, savic_level_eois), 0);
	EXPECT_EQ(vcpu_get_stat(self->vcpu, savic_refused_vmgexits), 511);
}

TEST_F_TIMEOUT(savic_msr, instructions, TIMEOUT_SECS)
{
	run(self->vcpu, guest_by_instruction, 0);
}

TEST_F_TIMEOUT(savic_msr, read_only, TIMEOUT_SECS)
{
	run(self->vcpu, guest_read_only, 0);
}

TEST_F_TIMEOUT(savic_msr, two_apics, TIMEOUT_SECS)
{
	run(self->vcpu, guest_two_apics, 0);
}

SAVIC_TEST_HARNESS_MAIN
