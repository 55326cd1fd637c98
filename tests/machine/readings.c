/*
 * What the manual leaves open: the machine does what its properties "x-..." say. They are on
 * the command line of this program as well; one that is not there has its default.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define MSR_CONTROL		0xc0010138
#define ENABLE			BIT(0)
#define ALLOWED_NMI		BIT(1)

#define X2MSR(offset)		(0x800 + ((offset) >> 4))
#define TPR			0x80
#define EOI			0xb0
#define ISR			0x100
#define TMR			0x180
#define IRR			0x200
#define ALLOWED			0x204
#define ICR			0x300
#define SELF_IPI		0x3f0
#define ICR_SELF		BIT(18)
#define ICR_LEVEL		BIT(15)
#define ICR_NMI			(4 << 8)

#define VC_INCOMPLETE_IPI	0x401
#define VC_NOT_RESTARTABLE	0x406

#define LOW			0x31
#define HIGH			0x52
#define KICK			0x40	/* host: its timer */
#define MS			1000000UL	/* of the TSC */

/* Free RAM, for RMPUPDATE and PSMASH */
#define REGION_A		0x8000000UL

#define READS(name, value)	machine_has(name, value, false)

/* ---- The guest ----------------------------------------------------------------- */

#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u8 backing[2][PAGE_SIZE] PAGE, second_page[PAGE_SIZE] PAGE, unvalidated[PAGE_SIZE] PAGE;
static u8 far_stack[2 * PAGE_SIZE] PAGE;
static volatile u64 vc_code, vc_info_2;
static volatile u32 irqs, nmis;
static volatile bool exit_in_nmi;

static volatile u32 *reg(int base, int vector)
{
	return (volatile u32 *)(backing[guest_index()] + base + vector / 32 * 16);
}

static bool bit(int base, int vector)
{
	return *reg(base, vector) >> (vector % 32) & 1;
}

static void set_bit(int base, int vector)
{
	__atomic_fetch_or(reg(base, vector), 1u << (vector % 32), __ATOMIC_SEQ_CST);
}

static void on_vc(struct regs *r)
{
	u16 insn = *(u16 *)r->rip;

	vc_code = r->error_code;
	vc_info_2 = *vmsa_field(guest_vmsa(), VMSA_EXIT_INFO_2);
	if (vc_code == VC_NOT_RESTARTABLE) {
		shared->result[400] = vc_code;
		for (;;)
			vmgexit();
	}
	if (insn == 0x300f || insn == 0x320f)
		r->rip += 2;
}

static void on_irq(struct regs *r)
{
	irqs++;
	wrmsr(X2MSR(EOI), 0);
}

static void on_nmi(struct regs *r)
{
	nmis++;
	if (exit_in_nmi) {
		/* The host asks for another one. */
		exit_in_nmi = false;
		vmgexit();
		asm volatile("hlt");
	}
}

static void on_unexpected(struct regs *r)
{
	shared->result[510] = r->vector;
	shared->result[511] = r->rip;
	for (;;)
		vmgexit();
}

static void window(void)
{
	asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory");
}

static void g_start(u64 arg)
{
	unexpected_handler = on_unexpected;
}

static void g_nothing(u64 arg)
{
}

static void g_enable(u64 flags)
{
	memset(backing[guest_index()], 0, PAGE_SIZE);
	set_bit(ALLOWED, LOW);
	irqs = nmis = 0;
	wrmsr(MSR_CONTROL, (u64)backing[guest_index()] | ENABLE | flags);
}

static void g_disable(u64 arg)
{
	wrmsr(MSR_CONTROL, 0);
}

static void g_irr_after_enable(u64 arg)
{
	g_enable(0);
	shared->result[0] = bit(IRR, LOW);
}

static void g_set_tmr(u64 arg)
{
	set_bit(TMR, LOW);
}

static void g_get_tmr(u64 arg)
{
	shared->result[0] = bit(IRR, LOW);
	shared->result[1] = bit(TMR, LOW);
	window();
}

/* Idle-HLT, each with something that is pending in one sense and not in the other */
static void g_hlt_low_in_service_of_high(u64 arg)
{
	set_bit(ISR, HIGH);
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("hlt");
	vmgexit();
}

static void g_hlt_if_clear(u64 arg)
{
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("hlt");
	vmgexit();
}

static void g_hlt_in_shadow(u64 arg)
{
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("sti; hlt; cli");
	vmgexit();
}

static void g_hlt_in_nmi(u64 arg)
{
	exit_in_nmi = true;
	vmgexit();
}

static void g_hlt_gif_clear(u64 arg)
{
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("clgi; sti; nop; hlt; cli; stgi");
	vmgexit();
}

static void g_self_icr(u64 val)
{
	vc_code = ~0ULL;
	nmis = 0;
	wrmsr(X2MSR(ICR), ICR_SELF | val);
	shared->result[0] = vc_code;
	shared->result[1] = vc_info_2 >> 32;
	shared->result[2] = nmis;
	shared->result[3] = bit(IRR, LOW) && bit(TMR, LOW);
}

static void g_interrupted(u64 arg)
{
	u64 sp;

	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("mov %%rsp, %0; mov %1, %%rsp; sti; nop; nop; cli; mov %0, %%rsp"
		     : "=&r"(sp) : "r"(far_stack + sizeof(far_stack)) : "memory");
	shared->result[0] = irqs;
}

/* Wait for an interrupt that somebody has put into IRR, at most 20 ms. */
static void g_doorbell(u64 arg)
{
	u64 end = rdtsc() + 20 * MS;

	irqs = 0;
	set_bit(IRR, LOW);
	asm volatile("sti");
	while (!irqs && rdtsc() < end)
		cpu_relax();
	asm volatile("cli");
	shared->result[0] = irqs;
	memset((void *)reg(IRR, LOW), 0, 4);
}

static void g_send(u64 arg)
{
	__atomic_fetch_or((u32 *)(backing[1] + IRR + LOW / 32 * 16), 1u << (LOW % 32), __ATOMIC_SEQ_CST);
}

static void g_wait(u64 arg)
{
	shared->result[100] = 1;
	asm volatile("sti");
	while (!shared->result[102])
		shared->result[101] = irqs;
	asm volatile("cli");
}

static void g_second_page(u64 arg)
{
	wrmsr(MSR_CONTROL, 0);
	wrmsr(MSR_CONTROL, (u64)second_page | ENABLE);
	g_wait(0);
}

static void g_rescind(u64 page)
{
	bool cf;

	pvalidate(page, 0, 0, &cf);
}

/* ---- The host -------------------------------------------------------------------- */

static struct snp_vcpu v, other, busy, not_allowed, no_page;
static volatile u64 *const r = shared->result;
static u32 interval;

static bool call(void (*fn)(u64), u64 arg)
{
	if (snp_call(&v, fn, arg))
		return true;
	return check(false, "guest function at 0x%lx: exit 0x%lx info 0x%lx 0x%lx, vector %lu at 0x%lx", (u64)fn,
		     v.vmcb->exit_code, v.vmcb->exit_info_1, v.vmcb->exit_info_2, r[510], r[511]);
}

static void on_kick(struct regs *regs)
{
	wrmsr(MSR_X2APIC_EOI, 0);
}

/* VMRUN with the host's timer, which ends a HLT that does not exit */
static u64 run_timed(void)
{
	u64 code;

	asm volatile("clgi; sti" : : : "memory");
	wrmsr(MSR_X2APIC_TMICT, interval);
	code = snp_run(&v);
	asm volatile("cli" : : : "memory");
	wrmsr(MSR_X2APIC_TMICT, 0);
	return code;
}

static void request(struct vmcb *vmcb)
{
	vmcb->update_irr = 1;
	vmcb->requested_irr[LOW / 32] = 1u << (LOW % 32);
	vmcb->int_ctl |= V_NMI;
}

static bool requested(struct vmcb *vmcb)
{
	bool all = vmcb->update_irr && vmcb->requested_irr[LOW / 32] && (vmcb->int_ctl & V_NMI);
	bool any = vmcb->update_irr || vmcb->requested_irr[LOW / 32] || (vmcb->int_ctl & V_NMI);

	if (all != any)
		check(false, "all of UPDATE_IRR, REQUESTED_IRR and V_NMI_PENDING, or none");
	vmcb->update_irr = 0;
	vmcb->requested_irr[LOW / 32] = 0;
	vmcb->int_ctl &= ~V_NMI;
	return any;
}

static void test_requests(void)
{
	bool kept = !READS("x-savic-requests", "cleared");

	section("APM2 15.36.21", "Requests of a VMRUN that fails, or finds the engine off: x-savic-requests.");
	call(g_disable, 0);
	request(v.vmcb);
	call(g_nothing, 0);
	check_eq(requested(v.vmcb), kept, "engine off");
	request(busy.vmcb);
	check_eq(snp_run(&busy), EXIT_BUSY, "VMRUN that fails");
	check_eq(requested(busy.vmcb), kept, "leaves them so, too");

	section("APM2 15.36.21", "What turning the engine on looks at: x-savic-control-write.");
	v.vmcb->update_irr = 1;
	v.vmcb->requested_irr[LOW / 32] = kept ? 1u << (LOW % 32) : 0;
	if (kept) {
		call(g_irr_after_enable, 0);
		check_eq(r[0], READS("x-savic-control-write", "vmcb"), "REQUESTED_IRR");
	} else {
		call(g_enable, 0);
	}
	v.vmcb->update_irr = 0;
	v.vmcb->requested_irr[LOW / 32] = 0;

	section("APM2 15.36.21", "TMR of a vector from REQUESTED_IRR: x-savic-tmr.");
	call(g_enable, 0);
	call(g_set_tmr, 0);
	v.vmcb->update_irr = 1;
	v.vmcb->requested_irr[LOW / 32] = 1u << (LOW % 32);
	call(g_get_tmr, 0);
	check_eq(r[0], 1, "the vector is in IRR");
	check_eq(r[1], !READS("x-savic-tmr", "cleared"), "TMR");
}

static void test_nmi(void)
{
	section("APM2 15.36.21", "V_NMI_PENDING without AllowedNmi: x-savic-nmi-denied.");
	call(g_enable, 0);
	v.vmcb->int_ctl |= V_NMI;
	call(g_nothing, 0);
	check_eq(!!(v.vmcb->int_ctl & V_NMI), READS("x-savic-nmi-denied", "kept"), "after #VMEXIT");
	v.vmcb->int_ctl &= ~V_NMI;
}

static void idle_hlt(void (*fn)(u64), bool pending, u64 otherwise, const char *what)
{
	u64 code;

	if (READS("x-idle-hlt-spurious", "on"))
		pending = false;
	call(g_enable, ALLOWED_NMI);
	shared->arg[0] = 0;
	shared->fn[0] = fn;
	if (fn == g_hlt_in_nmi) {
		/* For the NMI, which exits in its handler, and again */
		check_eq(snp_run(&v), EXIT_VMGEXIT, "VMGEXIT");
		v.vmcb->int_ctl |= V_NMI;
		check_eq(snp_run(&v), EXIT_VMGEXIT, "in the NMI");
		v.vmcb->int_ctl |= V_NMI;
	}
	code = run_timed();
	check_eq(code, pending ? otherwise : EXIT_IDLE_HLT, what);
	/* To its end */
	for (int i = 0; i < 10 && shared->fn[0]; i++)
		run_timed();
	check(!shared->fn[0], "and on");
}

static void test_idle_hlt(void)
{
	section("APM2 15.9", "Idle-HLT: what is pending (x-idle-hlt-...).");
	svm_intercept(v.vmcb, EXIT_HLT, false);
	svm_intercept(v.vmcb, EXIT_IDLE_HLT, true);
	idle_hlt(g_hlt_low_in_service_of_high, READS("x-idle-hlt-priority", "tpr"), EXIT_INTR,
		 "above TPR, not above PPR");
	idle_hlt(g_hlt_if_clear, !READS("x-idle-hlt-if", "honoured"), EXIT_INTR, "RFLAGS.IF clear");
	idle_hlt(g_hlt_in_shadow, !READS("x-idle-hlt-shadow", "honoured"), EXIT_VMGEXIT, "in the shadow of STI");
	idle_hlt(g_hlt_in_nmi, READS("x-idle-hlt-nmi", "any"), EXIT_INTR, "an NMI, while NMIs are masked");
	idle_hlt(g_hlt_gif_clear, !READS("x-idle-hlt-gif", "honoured"), EXIT_INTR, "VGIF clear");
	svm_intercept(v.vmcb, EXIT_IDLE_HLT, false);
	svm_intercept(v.vmcb, EXIT_HLT, true);
}

static void test_self_icr(void)
{
	bool accelerated = READS("x-savic-self-icr", "accelerated");
	u64 reason = READS("x-savic-self-icr", "unaccelerated") ? 5 : 0;

	section("APM2 15.36.21", "ICR with shorthand self, NMI or level-triggered: x-savic-self-icr.");
	call(g_enable, 0);
	call(g_self_icr, ICR_NMI);
	check_eq(r[0], accelerated ? ~0ULL : VC_INCOMPLETE_IPI, "NMI: #VC");
	check_eq(accelerated ? 0 : r[1], reason, "its reason");
	call(g_nothing, 0);
	call(g_enable, 0);
	call(g_self_icr, ICR_LEVEL | BIT(14) | LOW);
	check_eq(r[0], accelerated ? ~0ULL : VC_INCOMPLETE_IPI, "level-triggered: #VC");
	check_eq(accelerated ? 0 : r[1], reason, "its reason");
	check_eq(r[3], accelerated, "IRR and TMR");
}

static void test_not_allowed(void)
{
	bool off = READS("x-savic-not-allowed", "off");

	section("APM2 15.36.20", "Secure AVIC, and ALLOWED_SEV_FEATURES not enabled: x-savic-not-allowed.");
	not_allowed.vmcb->allowed_sev_features = SNP_ACTIVE | SECURE_AVIC;
	check_eq(snp_run(&not_allowed), off ? EXIT_VMGEXIT : EXIT_INVALID, "VMRUN");
	if (off)
		check_eq(not_allowed.vmcb->guest_sev_features, SNP_ACTIVE, "runs without it");
}

static void test_interrupted(void)
{
	u64 gpa = (u64)far_stack + PAGE_SIZE, pte = *snp_npt(gpa);

	section("APM2 15.36.21", "EXITINTINFO of an interrupted delivery: x-savic-exit-int-info.");
	call(g_enable, 0);
	*snp_npt(gpa) = 0;
	v.vmcb->tlb_ctl = 1;
	shared->fn[0] = g_interrupted;
	check_eq(snp_run(&v), EXIT_NPF, "interrupt to a stack that is not mapped");
	check_eq(v.vmcb->exit_int_info & 0xffffffff,
		 READS("x-savic-exit-int-info", "vmsa") ? 0 : EVENT_VALID | EVENT_INTR | LOW, "in the VMCB");
	*snp_npt(gpa) = pte;
	check(snp_run(&v) == EXIT_VMGEXIT && r[0] == 1, "it is delivered once all the same");
	v.vmcb->tlb_ctl = 0;
}

static void test_unvalidated(void)
{
	section("APM2 15.36.21", "VMRUN with a backing page that is not validated: x-savic-unvalidated.");
	call(g_rescind, (u64)unvalidated);
	r[400] = 0;
	if (READS("x-savic-unvalidated", "invalid")) {
		check_eq(snp_run(&no_page), EXIT_INVALID, "fails");
	} else {
		check_eq(snp_run(&no_page), EXIT_VMGEXIT, "enters the guest");
		check_eq(r[400], VC_NOT_RESTARTABLE, "which gets #VC");
	}
}

/* ---- With the other CPU ---- */

static void ap_init_other(void *arg)
{
	snp_start_cpu();
	snp_call(&other, g_start, 0);
	snp_call(&other, g_enable, ALLOWED_NMI);
}

static void ap_call(void *fn)
{
	snp_call(&other, fn, 0);
}

static void start_other(void (*fn)(u64))
{
	r[100] = r[101] = r[102] = 0;
	ap_run(ap_call, fn);
	while (!r[100])
		cpu_relax();
}

static void stop_other(void)
{
	r[102] = 1;
	wrmsr(MSR_X2APIC_ICR, (u64)(apic_id() ^ 1) << 32 | KICK);
	ap_wait();
}

static void test_nmi_taken(void)
{
	section("APM2 15.36.21", "When V_NMI_PENDING of the VMCB is clear: x-savic-nmi-taken.");
	other.vmcb->int_ctl |= V_NMI;
	start_other(g_wait);
	check_eq(!!(other.vmcb->int_ctl & V_NMI), READS("x-savic-nmi-taken", "vmexit"), "in the guest");
	stop_other();
	check_eq(other.vmcb->int_ctl & V_NMI, 0, "after #VMEXIT");
}

static void test_doorbell(void)
{
	bool late = READS("x-doorbell-order", "late"), lost = READS("x-doorbell-entry", "lost");
	bool seen = false;

	section("APM2 15.29.8.2", "The doorbell without AVIC in CPUID: x-doorbell-cpuid.");
	if (READS("x-doorbell-cpuid", "needed")) {
		check_eq(wrmsr_safe(MSR_DOORBELL, apic_id()), GP, "#GP");
		return;
	}
	check_eq(wrmsr_safe(MSR_DOORBELL, 0xfff), NO_EXCEPTION, "is there");

	start_other(g_wait);
	for (int i = 0; i < 3; i++) {
		u64 before = r[101], start;

		call(g_send, 0);
		start = rdtsc();
		wrmsr(MSR_DOORBELL, apic_id() ^ 1);
		while (r[101] == before && rdtsc() - start < 5000 * MS)
			cpu_relax();
		check(r[101] != before, "and a CPU in guest mode sees it");
	}
	stop_other();

	/* One that is late comes to the guest of a VMRUN that follows; now and then even before it. */
	section("APM2 15.29.8.2", "A doorbell that is rung just before VMRUN: x-doorbell-order, x-doorbell-entry.");
	call(g_enable, 0);
	for (int i = 0; i < 10 && !seen; i++) {
		shared->fn[0] = g_doorbell;
		wrmsr(MSR_DOORBELL, apic_id());
		if (snp_run(&v) != EXIT_VMGEXIT)
			break;
		seen = r[0];
	}
	check_eq(seen, late && !lost, "the guest sees it");
}

static void test_busy(void)
{
	bool rmpupdate = READS("x-rmp-busy", "rmpupdate") || READS("x-rmp-busy", "both");
	bool smash = READS("x-rmp-busy", "psmash") || READS("x-rmp-busy", "both");
	u32 overlap = 0, in_use = 0, twice = 0, wrong = 0, ret, before = 0;

	section("APM3 RMPUPDATE", "RMPUPDATE and PSMASH fail for a moment, or never: x-rmp-busy.");
	for (int i = 0; i < 2000; i++) {
		ret = i & 1 ? rmp_release(REGION_A, false) : rmp_assign(REGION_A, 0, 1, false, false);
		overlap += ret == FAIL_OVERLAP;
		wrong += ret && ret != FAIL_OVERLAP;
		twice += ret && before;
		before = ret;
		if (ret)
			i--;
	}
	check_eq(!!overlap, rmpupdate, "RMPUPDATE: FAIL_OVERLAP");
	for (int i = 0; i < 100; i++) {
		while (rmp_assign(REGION_A, 0, 1, true, false))
			;
		do {
			ret = psmash(REGION_A);
			in_use += ret == FAIL_INUSE;
			wrong += ret && ret != FAIL_INUSE;
			twice += ret && before;
			before = ret;
		} while (ret);
		for (u64 j = 0; j < 512; j++) {
			while (rmp_release(REGION_A + j * PAGE_SIZE, false))
				;
		}
		before = 0;
	}
	check_eq(!!in_use, smash, "PSMASH: FAIL_INUSE");
	check(!twice && !wrong, "once at a time, and with no other code");
}

static void rmpupdate_in_guest(u8 *page, bool in_use, const char *what)
{
	u32 ret;

	do {
		ret = snp_assign((u64)page, true);
	} while (ret == FAIL_OVERLAP);
	check_eq(ret, in_use ? FAIL_INUSE : RMP_OK, what);
}

static void test_page_in_use(void)
{
	bool by_vmrun = !READS("x-savic-page-in-use", "never");
	bool by_control = by_vmrun && !READS("x-savic-page-in-use", "vmrun");

	section("APM2 15.36.12", "From when on the backing page is in use: x-savic-page-in-use.");
	start_other(g_second_page);
	rmpupdate_in_guest(second_page, by_control, "the page of a control MSR written since VMRUN");
	rmpupdate_in_guest(backing[1], by_vmrun && !by_control, "the one that VMRUN has found");
	stop_other();
}

static void set_up_timer(void)
{
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	wrmsr(MSR_X2APIC_TDCR, 0xb);
	wrmsr(MSR_X2APIC_LVTT, KICK);
	interval = 20 * MS;
}

void test_main(void)
{
	apic_id();
	set_up_timer();
	set_handler(VC, on_vc);
	set_handler(2, on_nmi);
	set_handler(LOW, on_irq);
	set_handler(KICK, on_kick);
	rmp_clear();
	snp_set_up(&v, 0);
	snp_set_up(&other, 1);
	snp_set_up(&busy, 2);
	*vmsa_field(busy.vmsa, VMSA_VINTR_CTRL) |= BIT(63);
	snp_set_up(&not_allowed, 3);
	snp_set_up(&no_page, 5);
	*vmsa_field(no_page.vmsa, VMSA_SECURE_AVIC_CONTROL) = (u64)unvalidated | ENABLE;
	snp_start();
	call(g_start, 0);

	test_requests();
	test_nmi();
	test_idle_hlt();
	test_self_icr();
	test_interrupted();
	test_not_allowed();
	test_unvalidated();
	/* vCPU 1 begins here: the ones above were on its stack. */
	ap_run(ap_init_other, NULL);
	ap_wait();
	test_nmi_taken();
	test_doorbell();
	test_busy();
	test_page_in_use();
}
