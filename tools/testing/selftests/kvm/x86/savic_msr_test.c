// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: every x2APIC register, by everything that a guest can ask for.
 *
 * An MSR access by VMGEXIT reaches the APIC that KVM emulates: with the engine off that
 * is all there is, later the guest asks for what hardware doesn't do.  A guest may also
 * forward AVIC_NOACCEL as it is, but that has no operand: only an EOI can be done then.
 * And of the instruction itself, hardware does what APM volume 2, table 15-22 says,
 * while the rest comes as a #VC, which the handler turns into the first.
 *
 * The timer is KVM's as well: KVM posts its vector when it expires, without knowing when, or
 * if, it is delivered.  Interrupts are counted, and waited for without a limit: the harness
 * ends a test that has lost one.
 */
#include <pthread.h>
#include <sched.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define APIC_LDR		0x0d0
#define APIC_ESR		0x280
#define APIC_LVTTHMR		0x330
#define APIC_LVTPC		0x340
#define APIC_LVT0		0x350
#define APIC_LVT1		0x360
#define APIC_LVTERR		0x370

#define VECTOR			0x51
#define OTHER_VECTOR		0x52
#define DIVIDE_BY_1		0xb

/* KVM's APIC bus has 1 GHz: a millisecond, divided by 1. */
#define MILLISECOND		1000000

#define NR_ROUNDS		20

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
	{ APIC_TDCR,	APIC_TDCR,	true,	KEPT,		DIVIDE_BY_1 },
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

static u64 read_by_vmgexit(u32 reg)
{
	u64 val;

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(reg), &val), GHCB_OK);
	return val;
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

	val = read_by_vmgexit(reg);
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
		GUEST_ASSERT_EQ(read_by_vmgexit(lvts[i]), (u64)(APIC_LVT_MASKED | (VECTOR + i)));
	}

	wrmsr(X2APIC_MSR(APIC_SPIV), APIC_SPIV_APIC_ENABLED | 0xfe);
	check_rdmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xfe);
	wrmsr(X2APIC_MSR(APIC_ESR), 0);
	check_rdmsr(APIC_ESR, 0);

	/* The timer runs at the host: its count is the one thing that has to be asked for. */
	wrmsr(X2APIC_MSR(APIC_TDCR), DIVIDE_BY_1);
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
	GUEST_ASSERT_EQ(read_by_vmgexit(APIC_TASKPRI), 0x10ul);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), 0);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 2u);

	/* These trap: an instruction writes both, a VMGEXIT KVM's only. */
	wrmsr(X2APIC_MSR(APIC_SPIV), APIC_SPIV_APIC_ENABLED | 0xfe);
	savic_wrmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xaf);
	check_rdmsr(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xfe);
	GUEST_ASSERT_EQ(read_by_vmgexit(APIC_SPIV), (u64)(APIC_SPIV_APIC_ENABLED | 0xaf));

	/* The timer is KVM's, whichever way it is told. */
	wrmsr(X2APIC_MSR(APIC_TDCR), DIVIDE_BY_1);
	wrmsr(X2APIC_MSR(APIC_LVTT), VECTOR);
	wrmsr(X2APIC_MSR(APIC_TMICT), 1000);
	savic_wait_for_irqs(VECTOR, 3);
	savic_wrmsr(APIC_TDCR, 0);
	savic_wrmsr(APIC_TMICT, 2000);
	savic_wait_for_irqs(VECTOR, 4);
	check_rdmsr(APIC_TDCR, DIVIDE_BY_1);
	check_rdmsr(APIC_TMICT, 1000);
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | VECTOR);
	check_rdmsr(APIC_LVTT, VECTOR);
	GUEST_DONE();
}

/*
 * Returns when it has expired, and KVM has looked at that.  The count is zero by the
 * clock, which may be before KVM's own timer has fired: see run_timer().
 */
static void wait_for_zero(void)
{
	while (read_by_vmgexit(APIC_TMCCT))
		cpu_relax();
	GUEST_SYNC(0);
	savic_settle();
}

static void start_oneshot(u32 count)
{
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, count);
}

static void setup(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_wrmsr(APIC_TDCR, DIVIDE_BY_1);
}

static void expect_irqs(u32 nr)
{
	savic_wait_for_irqs(VECTOR, nr);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
}

static void guest_oneshot(void)
{
	u32 i;

	setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		start_oneshot(i * MILLISECOND / 10);
		expect_irqs(i);
		GUEST_ASSERT_EQ(read_by_vmgexit(APIC_TMCCT), 0ul);
		GUEST_ASSERT_EQ(read_by_vmgexit(APIC_TMICT), i * MILLISECOND / 10ul);
	}

	/* Stopped, and replaced, before they expire. */
	start_oneshot(GENMASK(31, 0));
	savic_wrmsr(APIC_TMICT, 0);
	GUEST_ASSERT_EQ(read_by_vmgexit(APIC_TMCCT), 0ul);
	start_oneshot(GENMASK(31, 0));
	start_oneshot(MILLISECOND);
	expect_irqs(i);
	GUEST_DONE();
}

/* What guest_divide() and the host share. */
struct divide {
	/* TMCCT, a while after the maximum was written to TMICT. */
	u32 count;
	/* The host wants another one for the same value of TDCR. */
	bool again;
};

/* Value i divides by 2 to the power of i. */
static const u8 divide_values[] = { DIVIDE_BY_1, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa };

static void guest_divide(struct divide *divide)
{
	u32 i;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	for (i = 0; i < ARRAY_SIZE(divide_values); i++) {
		savic_wrmsr(APIC_TDCR, divide_values[i]);
		do {
			savic_wrmsr(APIC_TMICT, GENMASK(31, 0));
			GUEST_SYNC(0);
			WRITE_ONCE(divide->count, read_by_vmgexit(APIC_TMCCT));
			GUEST_SYNC(1);
			savic_wrmsr(APIC_TMICT, 0);
		} while (READ_ONCE(divide->again));
	}
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

static void guest_periodic(void)
{
	u32 nr;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	for (nr = 1; nr <= NR_ROUNDS; nr++) {
		savic_wait_for_irqs(VECTOR, nr);
		GUEST_ASSERT(read_by_vmgexit(APIC_TMCCT) <= MILLISECOND);
	}

	/* Masked, it goes on, without interrupts but for one that is on its way. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_settle();
	nr = savic_nr_irqs(0, VECTOR);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_wait_for_irqs(VECTOR, nr + 2);

	/* Stopped, likewise. */
	savic_wrmsr(APIC_TMICT, 0);
	savic_settle();
	nr = savic_nr_irqs(0, VECTOR);
	GUEST_SYNC(1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	GUEST_DONE();
}

static void guest_deadline(u64 tsc_khz)
{
	u64 tsc, deadline;
	u32 i, nr;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	for (i = 1; i <= NR_ROUNDS; i++) {
		deadline = rdtsc() + tsc_khz;
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		savic_wait_for_irqs(VECTOR, i);
		/* KVM's own timer fires before that. */
		GUEST_ASSERT(rdtsc() >= deadline);
		expect_irqs(i);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
	}

	/* In the past, i.e. now. */
	wrmsr(MSR_IA32_TSC_DEADLINE, 1);
	expect_irqs(i);

	/* Disarmed in three ways.  If that took so long that it came too late, once more. */
	do {
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
		savic_settle();
		nr = savic_nr_irqs(0, VECTOR);
		tsc = rdtsc();
		deadline = tsc + 20 * tsc_khz;
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		wrmsr(MSR_IA32_TSC_DEADLINE, 0);
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
	} while (rdtsc() - tsc > 10 * tsc_khz);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);

	/* In this mode there is no count. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	GUEST_ASSERT_EQ(read_by_vmgexit(APIC_TMCCT), 0ul);
	GUEST_SYNC(1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	GUEST_DONE();
}

/* What expires while it isn't allowed, or has no valid vector, is gone. */
static void guest_not_delivered(void)
{
	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | OTHER_VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	savic_allow_vector(OTHER_VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, OTHER_VECTOR), 0u);

	savic_allow_vector(15);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | 15);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT(!savic_test_vector(0, APIC_IRR, 15));

	start_oneshot(MILLISECOND);
	expect_irqs(1);
	GUEST_DONE();
}

static void guest_masked(void)
{
	setup();

	/* What expires while it is masked KVM keeps, for any guest, until that changes. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	expect_irqs(1);

	/* Or until the timer is stopped. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	savic_wrmsr(APIC_TMICT, 0);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);

	/* Unmasked before it expires. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, 20 * MILLISECOND);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	expect_irqs(2);
	GUEST_DONE();
}

/* Armed in the guest, expires while the vCPU is somewhere else. */
static void guest_in_userspace(void)
{
	u32 i;

	setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		start_oneshot(MILLISECOND);
		GUEST_SYNC(i);
		expect_irqs(i);
	}
	GUEST_DONE();
}

/* Firmware does that: the engine is off, and is turned on much later. */
static void guest_engine_off(void)
{
	x2apic_enable();
	savic_wrmsr(APIC_TDCR, DIVIDE_BY_1);
	start_oneshot(MILLISECOND);
	wait_for_zero();
	start_oneshot(MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);

	/* They have become one. */
	savic_set_vector(0, SAVIC_ALLOWED_IRR, VECTOR);
	savic_enable();
	expect_irqs(1);
	start_oneshot(MILLISECOND);
	expect_irqs(2);
	GUEST_DONE();
}

static void guest_migrated(void)
{
	u32 i;

	setup();
	GUEST_SYNC(0);
	for (i = 1; i <= 10 * NR_ROUNDS; i++) {
		start_oneshot(MILLISECOND / 4);
		expect_irqs(i);
	}
	GUEST_DONE();
}

static void create_vm(struct kvm_vm **vm, struct kvm_vcpu **vcpu)
{
	*vm = vm_savic_create(1, NULL, vcpu);
	vm_install_exception_handler(*vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(*vm, OTHER_VECTOR, savic_irq_handler);
}

FIXTURE(savic_msr) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_msr)
{
	create_vm(&self->vm, &self->vcpu);
}

FIXTURE_TEARDOWN(savic_msr)
{
	kvm_vm_free(self->vm);
}

static void run(struct kvm_vcpu *vcpu, void *guest_code, u64 arg)
{
	savic_launch(vcpu, guest_code, arg);
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

FIXTURE(savic_timer) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_timer)
{
	create_vm(&self->vm, &self->vcpu);
}

FIXTURE_TEARDOWN(savic_timer)
{
	kvm_vm_free(self->vm);
}

/* At each GUEST_SYNC() stay in userspace longer than any timer takes. */
static void run_timer(struct kvm_vcpu *vcpu, void *guest_code)
{
	savic_launch(vcpu, guest_code, __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL));
	while (savic_vcpu_run(vcpu))
		usleep(25000);
}

TEST_F_TIMEOUT(savic_timer, oneshot, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_oneshot);
}

/* The clock that KVM's timer goes by. */
static u64 now_ns(void)
{
	struct timespec ts;

	TEST_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts), "clock_gettime() failed, errno %d",
		    errno);
	return timespec_to_ns(ts);
}

/* What is left of TMICT's maximum after @elapsed_ns. */
static u64 expected_count(u64 elapsed_ns, u64 period_ns)
{
	u64 total_ns = GENMASK(31, 0) * period_ns;

	return elapsed_ns < total_ns ? (total_ns - elapsed_ns) / period_ns : 0;
}

/*
 * The timer has counted from some time between start[0] and start[1] to some time between
 * end[0] and end[1].  However long these take, its count can't be outside of what they
 * allow.  Returns false if they also allow a period of half or twice as long, or an end
 * of the count.
 */
static bool check_divide(struct kvm_vcpu *vcpu, struct divide *divide, u64 period_ns,
			 u32 sleep_us)
{
	u64 start[2], end[2], min, max;

	start[0] = now_ns();
	TEST_ASSERT(savic_vcpu_run(vcpu), "Unexpected GUEST_DONE()");
	start[1] = now_ns();
	usleep(sleep_us);
	end[0] = now_ns();
	TEST_ASSERT(savic_vcpu_run(vcpu), "Unexpected GUEST_DONE()");
	end[1] = now_ns();

	min = expected_count(end[1] - start[0], period_ns);
	max = expected_count(end[0] - start[1], period_ns);
	TEST_ASSERT(divide->count >= min && divide->count <= max,
		    "A period of %lu ns: TMCCT is %u, expected %lu to %lu",
		    period_ns, divide->count, min, max);
	return min && end[1] - start[0] < 2 * (end[0] - start[1]);
}

TEST_F_TIMEOUT(savic_timer, divide, TIMEOUT_SECS)
{
	gva_t gva = vm_alloc_shared(self->vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	struct divide *divide = addr_gva2hva(self->vm, gva);
	u64 cycle_ns = vm_check_cap(self->vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS);
	u32 i, sleep_us;

	savic_launch(self->vcpu, guest_divide, gva);
	for (i = 0; i < ARRAY_SIZE(divide_values); i++) {
		sleep_us = 1000;
		do {
			divide->again = !check_divide(self->vcpu, divide, cycle_ns << i, sleep_us);
			sleep_us *= 2;
		} while (divide->again);
	}
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

TEST_F_TIMEOUT(savic_timer, periodic, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_periodic);
}

TEST_F_TIMEOUT(savic_timer, deadline, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_deadline);
}

TEST_F_TIMEOUT(savic_timer, not_delivered, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_not_delivered);
}

TEST_F_TIMEOUT(savic_timer, masked, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_masked);
}

TEST_F_TIMEOUT(savic_timer, in_userspace, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_in_userspace);
}

TEST_F_TIMEOUT(savic_timer, engine_off, TIMEOUT_SECS)
{
	run_timer(self->vcpu, guest_engine_off);
}

/* From CPU to CPU, along with the thread. */
TEST_F_TIMEOUT(savic_timer, migrated, TIMEOUT_SECS)
{
	cpu_set_t possible;
	pthread_t thread;
	int cpu, i = 0;

	kvm_sched_getaffinity(0, sizeof(possible), &possible);
	if (CPU_COUNT(&possible) < 2)
		SKIP(return, "Needs two CPUs");

	savic_launch(self->vcpu, guest_migrated, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpu);
	for (cpu = 0; pthread_tryjoin_np(thread, NULL); cpu = (cpu + 1) % CPU_SETSIZE) {
		if (!CPU_ISSET(cpu, &possible))
			continue;
		pin_task_to_cpu(thread, cpu);
		usleep(500 + i++ % 500);
	}
}

SAVIC_TEST_HARNESS_MAIN
