/*
 * Secure AVIC (15.36.21): control MSR, VMRUN, registers, delivery, NMI, doorbell,
 * interrupted delivery, and a backing page that is not there
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define MSR_CONTROL		0xc0010138
#define CONTROL_ENABLE		BIT(0)
#define CONTROL_ALLOWED_NMI	BIT(1)

#define X2APIC			0x800
#define TPR			0x80
#define PPR			0xa0
#define EOI			0xb0
#define ISR			0x100
#define TMR			0x180
#define IRR			0x200
#define ALLOWED			0x204
#define NMI_REQ			0x278
#define ICR			0x300
#define LVTT			0x320
#define SELF_IPI		0x3f0

#define X2MSR(offset)		(X2APIC + ((offset) >> 4))

#define VC_MSR			0x7c
#define VC_INCOMPLETE_IPI	0x401
#define VC_NOACCEL		0x402
#define VC_NOT_RESTARTABLE	0x406

#define NOT_RESTARTABLE		BIT(63)

/* Device vectors of the guest; LOW and HIGH differ in priority class */
#define LOW			0x31
#define HIGH			0x52
#define FORBIDDEN		0x61
#define LEVEL			0x71
#define KICK			0x40		/* host */

/* ---- The guest ----------------------------------------------------------------- */

static u8 backing[2][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static u8 unvalidated[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static u8 far_stack[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

/* The last #VC */
static volatile u64 vc_count, vc_code, vc_info_1, vc_info_2;
static volatile bool vc_fault;

/* What has been delivered, in order */
static volatile u32 log[64], logged, nmis, irqs;
static volatile u64 logged_rip;
static volatile bool auto_eoi;

static volatile u32 *reg(int offset)
{
	return (volatile u32 *)(backing[guest_index()] + offset);
}

static bool bit(int base, int vector)
{
	return *reg(base + vector / 32 * 16) >> (vector % 32) & 1;
}

static void set_bit(int base, int vector, bool on)
{
	volatile u32 *r = reg(base + vector / 32 * 16);

	if (on)
		__atomic_fetch_or(r, 1u << (vector % 32), __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(r, ~(1u << (vector % 32)), __ATOMIC_SEQ_CST);
}

static void on_vc(struct regs *r)
{
	u16 insn = *(u16 *)r->rip;

	vc_count++;
	vc_code = r->error_code;
	vc_info_1 = *vmsa_field(guest_vmsa(), VMSA_EXIT_INFO_1);
	vc_info_2 = *vmsa_field(guest_vmsa(), VMSA_EXIT_INFO_2);
	vc_fault = insn == 0x300f || insn == 0x320f;	/* WRMSR, RDMSR */
	if (vc_fault)
		r->rip += 2;
}

static void on_interrupt(struct regs *r)
{
	if (logged < ARRAY_SIZE(log))
		log[logged++] = r->vector;
	logged_rip = r->rip;
	nmis += r->vector == 2;
	irqs += r->vector != 2;
	if (auto_eoi && r->vector != 2)
		wrmsr(X2MSR(EOI), 0);
}

static void on_unexpected(struct regs *r)
{
	shared->result[510] = r->vector;
	shared->result[511] = r->rip;
	for (;;)
		vmgexit();
}

/* Each handler says by one character what an access came to. */
static char outcome(u32 vector)
{
	if (vector == GP)
		return 'G';
	if (vector != NO_EXCEPTION)
		return '?';
	switch (vc_code) {
	case 0:
		return '-';
	case VC_MSR:
		return vc_fault ? 'V' : '?';
	case VC_NOACCEL:
		return vc_fault ? 'F' : 'T';
	case VC_INCOMPLETE_IPI:
		return vc_fault ? '?' : 'I';
	}
	return '?';
}

static char x2_write(u32 msr, u64 val)
{
	vc_code = 0;
	return outcome(wrmsr_safe(msr, val));
}

static char x2_read(u32 msr, u64 *val)
{
	vc_code = 0;
	return outcome(rdmsr_safe(msr, val));
}

static void window(void)
{
	asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory");
}

static void clear_page(void)
{
	memset(backing[guest_index()], 0, PAGE_SIZE);
	logged = 0;
}

static void g_start(u64 arg)
{
	unexpected_handler = on_unexpected;
	shared->result[0] = rdmsr(MSR_SEV_STATUS);
}

static void g_try_write(u64 arg)
{
	shared->result[0] = x2_write(shared->result[0], shared->result[1]);
	shared->result[1] = vc_info_1;
	shared->result[2] = vc_info_2;
}

static void g_try_read(u64 arg)
{
	u64 val;

	shared->result[0] = x2_read(shared->result[0], &val);
	shared->result[1] = val;
}

static void g_enable(u64 flags)
{
	clear_page();
	wrmsr(MSR_CONTROL, (u64)backing[guest_index()] | CONTROL_ENABLE | flags);
}

static void g_disable(u64 arg)
{
	wrmsr(MSR_CONTROL, 0);
}

/* Outcome, and whether exit_info_1 names the access, for all 256 registers */
static void g_table(u64 write)
{
	u64 val;

	for (int i = 0; i < 256; i++) {
		char c = write ? x2_write(X2APIC + i, 0) : x2_read(X2APIC + i, &val);

		if ((c == 'F' || c == 'T') &&
		    vc_info_1 != ((write ? BIT(32) : 0) | (u64)i << 4))
			c = '!';
		shared->result[i] = c;
	}
	clear_page();
}

static void g_priority(u64 arg)
{
	volatile u64 *r = shared->result;

	clear_page();
	auto_eoi = false;
	wrmsr(X2MSR(SELF_IPI), LOW);
	r[0] = bit(IRR, LOW);
	wrmsr(X2MSR(ICR), 1 << 18 | HIGH);
	r[1] = bit(IRR, HIGH);
	window();
	r[2] = logged;
	r[3] = log[0];
	r[4] = bit(ISR, HIGH) && !bit(IRR, HIGH) && bit(IRR, LOW);
	r[5] = *reg(PPR);
	window();				/* LOW is below it */
	r[6] = logged;
	wrmsr(X2MSR(EOI), 0);
	r[7] = *reg(PPR);
	window();
	r[8] = logged;
	r[9] = log[1];
	wrmsr(X2MSR(EOI), 0);
	r[10] = bit(ISR, LOW) || bit(IRR, LOW) || *reg(PPR);

	/* TPR, by MSR and by CR8 */
	wrmsr(X2MSR(TPR), LOW & 0xf0);
	wrmsr(X2MSR(SELF_IPI), LOW);
	window();
	r[11] = logged;
	r[12] = *reg(PPR);
	r[13] = READ_CR(8);
	asm volatile("sti; nop" : : : "memory");
	WRITE_CR(8, 2);
	asm volatile("nop; cli" : : : "memory");
	r[14] = logged;
	r[15] = *reg(TPR);
	wrmsr(X2MSR(EOI), 0);
	wrmsr(X2MSR(TPR), 0);

	/* EOI with nothing in service */
	r[16] = x2_write(X2MSR(EOI), 0);
	r[17] = vc_count;
	wrmsr(X2MSR(TPR), 0);
	r[18] = vc_count;
}

static void g_level(u64 arg)
{
	volatile u64 *r = shared->result;

	clear_page();
	auto_eoi = false;
	set_bit(ISR, LEVEL, true);
	set_bit(TMR, LEVEL, true);
	r[0] = x2_write(X2MSR(EOI), 0);
	r[1] = vc_info_1;
	r[2] = vc_info_2;
	r[3] = bit(ISR, LEVEL);
	set_bit(ISR, LEVEL, false);
	/* Self-IPIs are edge: they clear TMR. */
	wrmsr(X2MSR(SELF_IPI), LEVEL);
	r[4] = bit(TMR, LEVEL);
	window();
	r[5] = x2_write(X2MSR(EOI), 0);
	r[6] = bit(ISR, LEVEL);
}

static void g_allow(u64 arg)
{
	clear_page();
	auto_eoi = true;
	set_bit(ALLOWED, LOW, true);
	set_bit(ALLOWED, HIGH, true);
}

/* Log, then IRR bits, for what VMRUN has brought */
static void g_look(u64 arg)
{
	volatile u64 *r = shared->result;

	r[0] = bit(IRR, LOW);
	r[1] = bit(IRR, FORBIDDEN);
	window();
	r[2] = logged;
	r[3] = log[0];
	r[4] = log[1];
	r[5] = *reg(NMI_REQ);
	logged = 0;
}

static void g_nmi_req(u64 arg)
{
	*reg(NMI_REQ) = 1;
	shared->result[6] = logged;
}

static void on_nmi_twice(struct regs *r)
{
	on_interrupt(r);
	/* With this NMI not over yet, ask for another one. */
	if (logged == 1) {
		*reg(NMI_REQ) = 1;
		vmgexit();
		shared->result[7] = logged;
	}
}

static void g_nested_nmi(u64 arg)
{
	logged = 0;
	set_handler(2, on_nmi_twice);
	*reg(NMI_REQ) = 1;
	vmgexit();
	shared->result[8] = logged;
	set_handler(2, on_interrupt);
	logged = 0;
}

static void g_hlt(u64 arg)
{
	auto_eoi = true;
	logged = 0;
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("sti; hlt; cli" : : : "memory");
	shared->result[0] = logged;
	asm volatile("sti; hlt; cli" : : : "memory");
	shared->result[1] = logged;
}

/* The interrupt's frame goes to a page that the host has taken away. */
static void g_interrupted(u64 arg)
{
	volatile u64 *r = shared->result;
	u64 sp;

	clear_page();
	auto_eoi = false;
	wrmsr(X2MSR(SELF_IPI), LOW);
	asm volatile("mov %%rsp, %0\n"
		     "mov %1, %%rsp\n"
		     "sti\n"
		     "nop\n"
		     "nop\n"
		     "cli\n"
		     "mov %0, %%rsp\n"
		     : "=&r"(sp) : "r"(far_stack + sizeof(far_stack)) : "memory");
	r[0] = logged;
	r[1] = log[0];
	r[2] = bit(ISR, LOW);
	r[3] = bit(IRR, LOW);
	wrmsr(X2MSR(EOI), 0);
	window();
	r[4] = logged;
	r[5] = bit(ISR, LOW);
}

/* The same for an NMI, which the VMRUN after VMGEXIT delivers */
static void g_interrupted_nmi(u64 arg)
{
	volatile u64 *r = shared->result;
	u64 sp;

	clear_page();
	*reg(NMI_REQ) = 1;
	asm volatile("mov %%rsp, %0\n"
		     "mov %1, %%rsp\n"
		     "rep; vmmcall\n"
		     "nop\n"
		     "mov %0, %%rsp\n"
		     : "=&r"(sp) : "r"(far_stack + sizeof(far_stack)) : "memory");
	r[0] = logged;
	r[1] = log[0];
	vmgexit();
	r[2] = logged;
}

/* The same for INT3 and INT n: what is returned to is behind the instruction. */
static void g_interrupted_soft(u64 arg)
{
	volatile u64 *r = shared->result;
	u64 sp;

	clear_page();
	auto_eoi = false;
	set_handler(BP, on_interrupt);
	asm volatile("lea 1f(%%rip), %%rax\n"
		     "mov %%rax, %1\n"
		     "mov %%rsp, %0\n"
		     "mov %2, %%rsp\n"
		     "int3\n"
		     "1: mov %0, %%rsp\n"
		     : "=&r"(sp), "=m"(r[1]) : "r"(far_stack + sizeof(far_stack)) : "rax", "memory");
	r[0] = logged;
	r[2] = logged_rip;
	set_handler(BP, on_unexpected);
	vmgexit();
	asm volatile("lea 1f(%%rip), %%rax\n"
		     "mov %%rax, %1\n"
		     "mov %%rsp, %0\n"
		     "mov %2, %%rsp\n"
		     "int %3\n"
		     "1: mov %0, %%rsp\n"
		     : "=&r"(sp), "=m"(r[4]) : "r"(far_stack + sizeof(far_stack)), "i"(LOW) : "rax", "memory");
	r[3] = logged;
	r[5] = logged_rip;
}

/* A nested page fault right behind STI; the host posts LOW meanwhile. */
static void g_shadow(u64 arg)
{
	volatile u64 *r = shared->result;

	clear_page();
	set_bit(ALLOWED, LOW, true);
	auto_eoi = true;
	asm volatile("lea 1f(%%rip), %%rax\n"
		     "mov %%rax, %0\n"
		     "sti\n"
		     "movb $1, %1\n"
		     "1: nop\n"
		     "nop\n"
		     "cli\n"
		     : "=m"(r[1]), "=m"(far_stack[PAGE_SIZE]) : : "rax", "memory");
	r[0] = logged;
	r[2] = logged_rip;
}

/* A #VC whose frame goes to a page that the host has taken away */
static void g_interrupted_vc(u64 arg)
{
	u64 sp;

	vc_count = 0;
	asm volatile("mov %%rsp, %0\n"
		     "mov %1, %%rsp\n"
		     "rdmsr\n"
		     "mov %0, %%rsp\n"
		     : "=&r"(sp) : "r"(far_stack + sizeof(far_stack)), "c"(X2MSR(0x90))
		     : "rax", "rdx", "memory");
	shared->result[0] = vc_count;
	shared->result[1] = vc_code;
}

static u64 random(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Any mix of vectors in IRR and allowed, none below 16 */
static void g_mix(u64 seed)
{
	clear_page();
	for (int i = 0; i < 8; i++) {
		*reg(ALLOWED + i * 16) = random(&seed);
		*reg(IRR + i * 16) = random(&seed) & random(&seed) & (i ? ~0u : ~0xffffu);
		shared->result[i] = *reg(ALLOWED + i * 16);
		shared->result[8 + i] = *reg(IRR + i * 16);
	}
}

static void g_mixed(u64 arg)
{
	for (int i = 0; i < 8; i++)
		shared->result[16 + i] = *reg(IRR + i * 16);
	clear_page();
}

/* Leaves in an NMI, with TPR set; goes on afterwards */
static void on_nmi_exits(struct regs *r)
{
	vmgexit();
}

static void g_exit_in_nmi(u64 arg)
{
	set_handler(2, on_nmi_exits);
	*reg(NMI_REQ) = 1;
	vmgexit();
	set_handler(2, on_interrupt);
}

static void g_exit_in_shadow(u64 arg)
{
	asm volatile("sti; rep; vmmcall; cli");
}

/* Of another vCPU of the guest: its VMSA */
static void g_read_vmsa(u64 vmsa)
{
	shared->result[200] = *vmsa_field(vmsa, VMSA_VINTR_CTRL);
	shared->result[201] = *vmsa_field(vmsa, VMSA_SECURE_AVIC_CONTROL);
	shared->result[202] = *vmsa_field(vmsa, VMSA_EVENTINJ);
}

static void g_rescind(u64 page)
{
	bool cf;

	vc_code = 0;
	pvalidate(page, 0, 0, &cf);
}

static void g_vc_code(u64 arg)
{
	shared->result[0] = vc_code;
}

/* Interrupts at any point: in a loop of its own, and around exits */
static void g_pings(u64 arg)
{
	u64 seed = 1;

	clear_page();
	auto_eoi = true;
	shared->result[100] = 1;
	asm volatile("sti");
	irqs = 0;
	while (!shared->result[102]) {
		u32 before = irqs;

		logged = 0;
		for (u64 n = random(&seed) % 2000; n && irqs == before; n--)
			cpu_relax();
		shared->result[101] = irqs;
		if (irqs == before)
			vmgexit();
	}
	asm volatile("cli");
}

/* On VMSAs of their own */
static void g_no_gif(u64 arg)
{
	clear_page();
	wrmsr(MSR_CONTROL, (u64)backing[0] | CONTROL_ENABLE);
	wrmsr(X2MSR(SELF_IPI), LOW);
	*reg(NMI_REQ) = 1;
	vmgexit();
	window();
	shared->result[0] = logged;
}

static void g_own_irq(u64 arg)
{
	logged = 0;
	window();
	window();
	shared->result[0] = logged;
	shared->result[1] = log[0];
	shared->result[2] = nmis;
}

static void g_icr(u64 arg)
{
	clear_page();
	wrmsr(MSR_CONTROL, (u64)backing[0] | CONTROL_ENABLE);
	shared->result[0] = 1;
	wrmsr(X2MSR(ICR), LOW);
	shared->result[0] = 2;
}

/* Send an IPI as Linux does: the other's IRR, then the host rings. */
static void g_send(u64 vector)
{
	__atomic_fetch_or((u32 *)(backing[1] + IRR + vector / 32 * 16),
			  1u << (vector % 32), __ATOMIC_SEQ_CST);
}

static void g_spin(u64 arg)
{
	clear_page();
	auto_eoi = true;
	shared->result[100] = 1;
	asm volatile("sti");
	while (!logged && !shared->result[102])
		cpu_relax();
	asm volatile("cli");
	shared->result[101] = log[0];
}

static void g_touch_tpr(u64 arg)
{
	shared->result[0] = x2_write(X2MSR(TPR), 0);
	shared->result[1] = vc_code;
	shared->result[2] = vc_info_2;
}

/* ---- The host -------------------------------------------------------------------- */

static struct snp_vcpu good, other, forbidden, restricted, alternate, mbz, far_page, dead;
static struct snp_vcpu no_gif, own_irq, own_nmi, reflect, reflect_page, reduced;

static volatile u64 *const r = shared->result;

static bool call(void (*fn)(u64), u64 arg)
{
	r[510] = 0;
	if (snp_call(&good, fn, arg))
		return true;
	return check(false, "guest function at 0x%lx: exit 0x%lx info 0x%lx 0x%lx, vector %lu at 0x%lx",
		     (u64)fn, good.vmcb->exit_code, good.vmcb->exit_info_1,
		     good.vmcb->exit_info_2, r[510], r[511]);
}

static char guest_write(u32 msr, u64 val)
{
	r[0] = msr;
	r[1] = val;
	return call(g_try_write, 0) ? r[0] : '?';
}

static char guest_read(u32 msr, u64 *val)
{
	r[0] = msr;
	if (!call(g_try_read, 0))
		return '?';
	*val = r[1];
	return r[0];
}

static void request(int vector)
{
	good.vmcb->requested_irr[vector / 32] |= 1u << (vector % 32);
}

static void test_invalid(void)
{
	section("APM2 15.36.21", "VMRUN fails with other injection modes, a control that is not valid, or a feature that is not allowed.");
	check_eq(snp_run(&restricted), EXIT_INVALID, "with RestrictedInjection");
	check_eq(snp_run(&alternate), EXIT_INVALID, "with AlternateInjection");
	check_eq(snp_run(&mbz), EXIT_INVALID, "reserved bits of the control");
	check_eq(snp_run(&far_page), EXIT_INVALID, "backing page beyond the address space");
	check_eq(snp_run(&dead), EXIT_BUSY, "BUSY");

	forbidden.vmcb->allowed_sev_features = ALLOWED_ENABLE | SNP_ACTIVE;
	check_eq(snp_run(&forbidden), EXIT_INVALID, "feature not in the mask");
	forbidden.vmcb->allowed_sev_features = SNP_ACTIVE | SECURE_AVIC;
	check_eq(snp_run(&forbidden), EXIT_INVALID, "mask not enabled");
	forbidden.vmcb->allowed_sev_features |= ALLOWED_ENABLE;
	forbidden.vmcb->int_ctl |= V_AVIC_ENABLE;
	check_eq(snp_run(&forbidden), EXIT_INVALID, "hypervisor's AVIC as well");
	forbidden.vmcb->int_ctl &= ~V_AVIC_ENABLE;
	check_eq(snp_run(&forbidden), EXIT_VMGEXIT, "none of these");
}

/* What the VMSA's VINTR_CTRL says, and ReflectVC */
static void test_vmsa(void)
{
	section("APM2 15.36.21", "Virtual interrupt state is that of the VMSA.");
	no_gif.vmcb->int_ctl |= V_GIF;
	shared->fn[0] = g_no_gif;
	check_eq(snp_run(&no_gif), EXIT_VMGEXIT, "VGIF of the VMSA clear");
	check_eq(snp_run(&no_gif), EXIT_VMGEXIT, "and again");
	check_eq(r[0], 0, "no interrupt and no NMI without VGIF");

	check(snp_call(&own_irq, g_own_irq, 0), "V_IRQ of the VMSA, engine off");
	check_eq(r[0], 1, "is delivered once");
	check_eq(r[1], HIGH, "with the VMSA's vector");

	check(snp_call(&own_nmi, g_own_irq, 0), "V_NMI of the VMSA, engine on");
	check_eq(r[2], 1, "is delivered once");

	shared->fn[0] = g_icr;
	check_eq(snp_run(&reflect), EXIT_VC, "ReflectVC: ICR write is VMEXIT_VC");
	check_eq(r[0], 1, "in the middle of the function");
	check_eq(snp_run(&reflect), EXIT_BUSY, "and sets BUSY");
	shared->fn[0] = NULL;
}

/* After vCPU 0 has started */
static void test_backing_page(void)
{
	section("APM2 15.34.6", "Guest physical addresses are not reduced: a backing page may be anywhere below the C-bit.");
	check_eq(snp_run(&reduced), EXIT_NPF, "a nested page fault, not VMEXIT_INVALID");
	check_eq(reduced.vmcb->exit_info_2, BIT(45), "for the address in the control MSR");

	section("APM2 15.36.21", "If ReflectVC is on, #VC(406h) sets BUSY, as 401h and 402h do.");
	call(g_rescind, (u64)unvalidated);
	shared->fn[0] = g_hlt;
	check_eq(snp_run(&reflect_page), EXIT_VC, "a backing page that is not validated");
	check_eq(snp_run(&reflect_page), EXIT_BUSY, "and BUSY");
	shared->fn[0] = NULL;
}

/* Table 15-22 as far as x2APIC lets it be reached; '-' is done without #VC */
static char expected(int i, bool write)
{
	switch (i) {
	case 0x02: case 0x03: case 0x0a: case 0x0d:
	case 0x10 ... 0x27:
		return write ? 'G' : '-';
	case 0x08:
		return '-';
	case 0x09: case 0x39: case 0x40:
		return write ? 'G' : 'F';
	case 0x0b:
		return write ? '-' : 'G';
	case 0x0f: case 0x28:
	case 0x32 ... 0x38:
	case 0x3e:
		return write ? 'T' : '-';
	case 0x30:
		return write ? 'I' : '-';
	case 0x3f:
		return write ? 'I' : 'G';	/* vector 0 */
	case 0x41: case 0x42:
	case 0x48 ... 0x4f:
	case 0x50 ... 0x53:
		return 'F';
	}
	return 'G';
}

static void test_engine_off(void)
{
	u64 val;

	section("APM2 15.36.21", "With the engine off every x2APIC access is #VC(MSR), and the host can deliver nothing.");
	call(g_start, 0);
	check_eq(r[0] >> 18 & 1, 1, "SEV_STATUS says Secure AVIC");
	check_eq(good.vmcb->guest_sev_features, SNP_ACTIVE | SECURE_AVIC,
		 "GUEST_SEV_FEATURES");
	check_eq(guest_read(X2MSR(TPR), &val), 'V', "engine off: register read is #VC(MSR)");
	check_eq(guest_write(X2MSR(ICR), 0), 'V', "engine off: register write is #VC(MSR)");
	check_eq(r[1], 1, "exit_info_1 of a write");
	check_eq(guest_write(X2MSR(TPR), BIT(8)), 'V', "engine off: the intercept comes before #GP for reserved bits");
	for (int write = 0; write < 2; write++) {
		int wrong = 0;

		call(g_table, write);
		for (int i = 0; i < 256; i++) {
			if (r[i] == 'V')
				continue;
			print("# %s of 0x%x: %c, expected V\n", write ? "write" : "read", X2APIC + i, (char)r[i]);
			wrong++;
		}
		check(!wrong, "engine off: %s of all 256 x2APIC registers",
		      write ? "writes" : "reads");
	}

	good.vmcb->update_irr = 1;
	request(LOW);
	good.vmcb->int_ctl |= V_NMI | V_IRQ | V_PRIO(5) | (u64)HIGH << 32;
	good.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | GP | BIT(11);
	good.vmcb->int_state = 1;
	call(g_look, 0);
	check_eq(r[2], 0, "engine off: nothing from the host is delivered");
	check_eq(good.vmcb->update_irr, 1, "nor is UPDATE_IRR used up");
	check_eq(good.vmcb->requested_irr[LOW / 32], 1u << (LOW % 32), "nor REQUESTED_IRR");
	check(good.vmcb->int_ctl & V_NMI, "nor V_NMI");
	good.vmcb->update_irr = 0;
	good.vmcb->requested_irr[LOW / 32] = 0;
	good.vmcb->int_ctl = V_INTR_MASKING | V_GIF_ENABLE;
	good.vmcb->event_inj = 0;
}

static void test_control(void)
{
	u64 val = 0;

	section("APM2 15.36.21", "SECURE_AVIC_CONTROL exists in Secure AVIC mode only; reserved bits and invalid addresses are #GP(0).");
	check_eq(wrmsr_safe(MSR_CONTROL, 0), GP, "host: control MSR is #GP");
	check_eq(rdmsr_safe(MSR_CONTROL, &val), GP, "host: reading it, too");
	check_eq(guest_write(MSR_CONTROL, BIT(2)), 'G', "control: reserved bit 2");
	check_eq(guest_write(MSR_CONTROL, BIT(52)), 'G', "control: reserved bit 52");
	check_eq(guest_write(MSR_CONTROL, BIT(51) | CONTROL_ENABLE), 'G',
		 "control: engine on, no valid address");
	check_eq(guest_write(MSR_CONTROL, IMAGE | CONTROL_ALLOWED_NMI), '-',
		 "control: engine off");
	check_eq(guest_read(MSR_CONTROL, &val), '-', "control can be read");
	check_eq(val, IMAGE | CONTROL_ALLOWED_NMI, "as written");
	call(g_enable, 0);
	check_eq(guest_read(MSR_CONTROL, &val), '-', "engine on");
	check_eq(val, (u64)backing[0] | CONTROL_ENABLE, "over #VMEXIT and VMRUN");
	check_eq(guest_read(X2MSR(TPR), &val), '-', "engine on: TPR can be read");
	call(g_disable, 0);
	check_eq(guest_read(X2MSR(TPR), &val), 'V', "engine off again: #VC");
	call(g_enable, 0);
}

static void test_table(void)
{
	section("APM2 15.36.21", "With the engine on, registers are accelerated, trap or fault as in table 15-22.");
	for (int write = 0; write < 2; write++) {
		int wrong = 0;

		call(g_table, write);
		for (int i = 0; i < 256; i++) {
			if (r[i] == (u64)expected(i, write))
				continue;
			print("# %s of 0x%x: %c, expected %c\n", write ? "write" : "read",
			      X2APIC + i, (char)r[i], expected(i, write));
			wrong++;
		}
		check(!wrong, "%s of all 256 x2APIC registers", write ? "writes" : "reads");
	}
	check_eq(guest_write(X2MSR(TPR), BIT(8)), 'G', "TPR: reserved bit");
	check_eq(guest_write(X2MSR(EOI), 1), 'G', "EOI: not 0");
	check_eq(guest_write(X2MSR(0x280), 1), 'G', "ESR: not 0");
	check_eq(guest_write(X2MSR(ICR), BIT(13)), 'G', "ICR: reserved bit");
	check_eq(guest_write(X2MSR(LVTT), BIT(20)), 'G', "LVTT: reserved bit");
	check_eq(guest_write(X2MSR(SELF_IPI), BIT(8)), 'G', "SELF_IPI: reserved bit");
}

static void test_ipi(void)
{
	static const struct {
		u64 icr;
		u32 reason;
		const char *what;
	} cases[] = {
		{ 0x0000000100000041, 5, "to a CPU" },
		{ 0x00000000000c0041, 5, "to all others" },
		{ 0x0000000000080041, 5, "to all" },
		{ 0x0000000000040400, 0, "NMI to self" },
		{ 0x0000000000048041, 0, "level to self" },
		{ 0x0000000000040009, 4, "vector below 16 to self" },
	};
	u64 val = 0;

	section("APM2 15.36.21", "ICR is accelerated for fixed edge interrupts to self; the rest is #VC(401h) with a reason.");
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		bool ok = guest_write(X2MSR(ICR), cases[i].icr) == 'I' &&
			  r[1] == cases[i].icr && r[2] == (u64)cases[i].reason << 32;

		check(ok, "ICR %s: #VC(401h), reason %u", cases[i].what, cases[i].reason);
	}
	check_eq(guest_write(X2MSR(SELF_IPI), 9), 'I', "SELF_IPI of a vector below 16");
	check_eq(guest_write(X2MSR(ICR), 0x0000000200000041), 'I', "ICR");
	guest_read(X2MSR(ICR), &val);
	check_eq(val, 0x0000000200000041, "ICR reads back 64 bits");
}

static void test_priority(void)
{
	section("APM2 15.36.21", "Vectors of IRR are delivered by priority, above PPR; EOI ends the highest in service.");
	call(g_priority, 0);
	check_eq(r[0], 1, "SELF_IPI sets IRR");
	check_eq(r[1], 1, "ICR to self sets IRR");
	check_eq(r[2], 1, "one interrupt at a time");
	check_eq(r[3], HIGH, "the higher first");
	check_eq(r[4], 1, "IRR to ISR");
	check_eq(r[5], HIGH & 0xf0, "PPR is its class");
	check_eq(r[6], 1, "the lower waits");
	check_eq(r[7], 0, "EOI: PPR");
	check_eq(r[8], 2, "then the lower");
	check_eq(r[9], LOW, "which it is");
	check_eq(r[10], 0, "EOI: all clear");
	check_eq(r[11], 2, "TPR holds its class off");
	check_eq(r[12], LOW & 0xf0, "PPR is TPR");
	check_eq(r[13], LOW >> 4, "CR8 is TPR");
	check_eq(r[14], 3, "CR8 write lets it in");
	check_eq(r[15], 0x20, "CR8 write is TPR");
	check_eq(r[16], '-', "EOI of nothing");
	check_eq(r[18], r[17], "no #VC for TPR");
}

static void test_level(void)
{
	section("APM2 15.36.21", "EOI of a level-triggered vector traps.");
	call(g_level, 0);
	check_eq(r[0], 'T', "EOI of a level vector traps");
	check_eq(r[1], BIT(32) | EOI, "exit_info_1");
	check_eq(r[2], LEVEL, "exit_info_2 is the vector");
	check_eq(r[3], 1, "ISR is the handler's to clear");
	check_eq(r[4], 0, "a self-IPI clears TMR");
	check_eq(r[5], '-', "EOI of an edge vector does not trap");
	check_eq(r[6], 0, "and clears ISR");
}

static void test_requested(void)
{
	section("APM2 15.36.21", "VMRUN moves requested vectors that are allowed to IRR, and clears the request.");
	call(g_allow, 0);
	request(LOW);
	call(g_look, 0);
	check_eq(r[0], 0, "REQUESTED_IRR without UPDATE_IRR does nothing");
	check_eq(good.vmcb->requested_irr[LOW / 32], 0, "but is cleared");

	good.vmcb->update_irr = 1;
	request(LOW);
	request(FORBIDDEN);
	request(HIGH);
	call(g_look, 0);
	check_eq(r[0], 1, "an allowed vector is in IRR");
	check_eq(r[1], 0, "one that is not allowed is not");
	check_eq(r[2], 2, "two are delivered");
	check(r[3] == HIGH && r[4] == LOW, "in order");
	check_eq(good.vmcb->update_irr, 0, "UPDATE_IRR is cleared");
	check_eq(good.vmcb->requested_irr[0] | good.vmcb->requested_irr[1] |
		 good.vmcb->requested_irr[2] | good.vmcb->requested_irr[3], 0,
		 "REQUESTED_IRR is cleared");
}

static void test_nmi(void)
{
	section("APM2 15.36.21", "V_NMI comes from the VMSA, NmiReq, and the host where AllowedNmi is set.");
	call(g_enable, 0);
	call(g_nmi_req, 0);
	check_eq(r[6], 0, "NmiReq is for VMRUN only");
	call(g_look, 0);
	check_eq(r[2], 1, "NmiReq brings an NMI");
	check_eq(r[3], 2, "which it is");
	check_eq(r[5], 0, "NmiReq is cleared");

	good.vmcb->int_ctl |= V_NMI;
	call(g_look, 0);
	check_eq(r[2], 0, "the host's NMI, not allowed");
	check_eq(good.vmcb->int_ctl & V_NMI, 0, "is used up");
	call(g_enable, CONTROL_ALLOWED_NMI);
	call(g_look, 0);
	check_eq(r[2], 0, "and gone");
	good.vmcb->int_ctl |= V_NMI;
	call(g_look, 0);
	check_eq(r[2], 1, "the host's NMI, allowed");

	shared->arg[0] = 0;
	shared->fn[0] = g_nested_nmi;
	for (int i = 0; i < 5 && shared->fn[0]; i++) {
		if (snp_run(&good) != EXIT_VMGEXIT)
			break;
	}
	check_eq((u64)shared->fn[0], 0, "NMI in an NMI");
	check_eq(r[7], 1, "an NMI in an NMI waits");
	check_eq(r[8], 2, "for IRET");
	good.vmcb->int_ctl = V_INTR_MASKING | V_GIF_ENABLE;
}

/* IRR |= allowed & requested, for every mix of the three */
static void test_mix(void)
{
	u64 seed = 0x5eed;
	int wrong = 0;

	section("APM2 15.36.21", "VMRUN: IRR |= ALLOWED_IRR & REQUESTED_IRR.");
	for (int round = 0; round < 50; round++) {
		u32 requested[8];

		call(g_mix, random(&seed));
		for (int i = 0; i < 8; i++) {
			requested[i] = random(&seed) & (i ? ~0u : ~0xffffu);
			good.vmcb->requested_irr[i] = requested[i];
		}
		good.vmcb->update_irr = round & 1;
		call(g_mixed, 0);
		for (int i = 0; i < 8; i++) {
			u32 added = round & 1 ? requested[i] & r[i] : 0;

			wrong += r[16 + i] != (r[8 + i] | added);
			wrong += good.vmcb->requested_irr[i] != 0;
		}
	}
	check_eq(wrong, 0, "50 mixes of 256 vectors, with and without UPDATE_IRR");
}

/* vCPU 1 looks at the VMSA of vCPU 0. */
static bool look_at_vmsa(void)
{
	return check(snp_call(&other, g_read_vmsa, good.vmsa), "vCPU 1 looks at the VMSA");
}

static void test_saved(void)
{
	section("APM2 15.36.21", "#VMEXIT saves bits 15:0 of VINTR_CTRL, and SECURE_AVIC_CONTROL.");
	call(g_enable, CONTROL_ALLOWED_NMI);
	guest_write(X2MSR(TPR), 0x50);
	shared->fn[0] = g_exit_in_nmi;
	snp_run(&good);
	check_eq(snp_run(&good), EXIT_VMGEXIT, "exit in an NMI");
	look_at_vmsa();
	check_eq(r[200] & (V_GIF | V_NMI | V_NMI_BLOCKED), V_GIF | V_NMI_BLOCKED,
		 "VGIF and V_NMI_MASK are set, V_NMI is clear");
	check(r[200] & V_NMI_ENABLE, "V_NMI_ENABLE stays");
	check_eq(r[201], (u64)backing[0] | CONTROL_ENABLE | CONTROL_ALLOWED_NMI,
		 "SECURE_AVIC_CONTROL");
	snp_run(&good);
	look_at_vmsa();
	check_eq(r[200] & V_NMI_BLOCKED, 0, "after IRET: V_NMI_MASK is clear");
	guest_write(X2MSR(TPR), 0);
	shared->fn[0] = g_exit_in_shadow;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "exit behind STI");
	look_at_vmsa();
	check_eq(r[200] & BIT(10), 0, "VMGEXIT is complete: no interrupt shadow");
	snp_run(&good);
}

static void test_msrpm(void)
{
	static u8 msrpm[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
	u64 saved = good.vmcb->msrpm, val;

	section("APM2 15.36.21", "The MSR permission map does not count for x2APIC MSRs.");
	memset(msrpm, 0xff, sizeof(msrpm));
	good.vmcb->msrpm = (u64)msrpm;
	svm_intercept(good.vmcb, EXIT_MSR, true);
	check_eq(guest_read(X2MSR(TPR), &val), '-', "engine on, all intercepted: TPR read");
	check_eq(guest_write(X2MSR(SELF_IPI), LOW), '-', "engine on, all intercepted: SELF_IPI");
	check_eq(guest_read(0xc0000082, &val), 'V', "other MSRs are intercepted: LSTAR");
	memset(msrpm, 0, sizeof(msrpm));
	call(g_disable, 0);
	check_eq(guest_read(X2MSR(TPR), &val), 'V', "engine off, none intercepted: TPR read");
	good.vmcb->msrpm = saved;
	svm_intercept(good.vmcb, EXIT_MSR, false);
	call(g_enable, 0);
}

static void test_hlt(void)
{
	section("APM2 15.9", "Idle-HLT does not exit while an interrupt of the backing page can be delivered.");
	svm_intercept(good.vmcb, EXIT_HLT, false);
	svm_intercept(good.vmcb, EXIT_IDLE_HLT, true);
	check(!snp_call(&good, g_hlt, 0), "HLT with nothing pending exits");
	check_eq(good.vmcb->exit_code, EXIT_IDLE_HLT, "as Idle-HLT");
	check_eq(r[0], 1, "with an interrupt pending it did not");
	good.vmcb->update_irr = 1;
	request(HIGH);
	check_eq(snp_run(&good), EXIT_VMGEXIT, "on after HLT");
	check_eq(r[1], 1, "a vector not allowed does not wake");
	svm_intercept(good.vmcb, EXIT_IDLE_HLT, false);
	svm_intercept(good.vmcb, EXIT_HLT, true);
}

static void test_interrupted(void)
{
	u64 gpa = (u64)far_stack + PAGE_SIZE;
	u64 pte = *snp_npt(gpa);

	section("APM2 15.36.21", "An interrupted delivery is kept in the VMSA, and goes on at the next VMRUN.");
	*snp_npt(gpa) = 0;
	check(!snp_call(&good, g_interrupted, 0), "interrupt to a stack that is not mapped");
	check_eq(good.vmcb->exit_code, EXIT_NPF, "exits with a nested page fault");
	check_eq(good.vmcb->exit_info_2 & ~0xfffUL, gpa, "on the stack");
	look_at_vmsa();
	check_eq(r[202] & 0xffffffff, EVENT_VALID | EVENT_INTR | LOW, "EVENTINJ of the VMSA");
	*snp_npt(gpa) = pte;
	good.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | 6;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "VMRUN goes on with it");
	check_eq(r[0], 1, "delivered once");
	check_eq(r[1], LOW, "which it is");
	check(r[2] && !r[3], "in service once");
	check(r[4] == 1 && !r[5], "and never again");
	good.vmcb->event_inj = 0;

	*snp_npt(gpa) = 0;
	shared->fn[0] = g_interrupted_nmi;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "NmiReq");
	check_eq(snp_run(&good), EXIT_NPF, "NMI to a stack that is not mapped");
	look_at_vmsa();
	check_eq(r[200] & V_NMI_BLOCKED, 0, "V_NMI_MASK is clear: the NMI has not been delivered");
	*snp_npt(gpa) = pte;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "VMRUN goes on with it");
	check_eq(snp_run(&good), EXIT_VMGEXIT, "to the end");
	check(!shared->fn[0] && r[0] == 1 && r[1] == 2 && r[2] == 1,
	      "delivered once, never again");

	*snp_npt(gpa) = 0;
	check(!snp_call(&good, g_interrupted_vc, 0) && good.vmcb->exit_code == EXIT_NPF,
	      "#VC to a stack that is not mapped");
	look_at_vmsa();
	check_eq(r[202] & EVENT_VALID, 0, "is not kept: its instruction raises it again");
	*snp_npt(gpa) = pte;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "and on");
	check(r[0] == 1 && r[1] == VC_NOACCEL, "#VC once");

	*snp_npt(gpa) = 0;
	shared->fn[0] = g_interrupted_soft;
	check_eq(snp_run(&good), EXIT_NPF, "INT3 to a stack that is not mapped");
	look_at_vmsa();
	check_eq(r[202] & 0xffffffff, EVENT_VALID | EVENT_EXCEPTION | BP, "EVENTINJ of the VMSA");
	*snp_npt(gpa) = pte;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "VMRUN goes on with it");
	check(r[0] == 1 && r[2] == r[1], "delivered once, and it returns behind INT3");
	*snp_npt(gpa) = 0;
	check_eq(snp_run(&good), EXIT_NPF, "INT n to a stack that is not mapped");
	*snp_npt(gpa) = pte;
	check_eq(snp_run(&good), EXIT_VMGEXIT, "VMRUN goes on with it");
	check(r[3] == 2 && r[5] == r[4], "delivered once, and it returns behind INT n");

	*snp_npt(gpa) = 0;
	shared->fn[0] = g_shadow;
	check_eq(snp_run(&good), EXIT_NPF, "nested page fault behind STI");
	*snp_npt(gpa) = pte;
	good.vmcb->int_state = 0;
	good.vmcb->update_irr = 1;
	request(LOW);
	check_eq(snp_run(&good), EXIT_VMGEXIT, "and on");
	check_eq(r[0], 1, "an interrupt comes");
	check_eq(r[2], r[1], "behind the shadow that the VMSA has kept");
}

static void on_kick(struct regs *regs)
{
	wrmsr(X2MSR(EOI), 0);
}

/* Second CPU: run vCPU 1 until its function is done; result[103] counts exits. */
static void ap(void *arg)
{
	snp_start_cpu();
	shared->arg[1] = 0;
	shared->fn[1] = g_start;
	snp_run(&other);
	shared->fn[1] = g_enable;
	snp_run(&other);
	shared->fn[1] = g_spin;
	wrmsr(X2MSR(0xf0), 0x1ff);
	asm volatile("sti");
	while (shared->fn[1]) {
		u64 code = snp_run(&other);

		if (shared->fn[1])
			r[103]++;
		if (code != EXIT_INTR && code != EXIT_VMGEXIT) {
			r[104] = code;
			break;
		}
	}
	asm volatile("cli");
}

static bool eventually(volatile u64 *p)
{
	u64 end = rdtsc() + 2000000000UL;

	while (!*p && rdtsc() < end)
		cpu_relax();
	return *p;
}

static void test_doorbell(void)
{
	u32 id = apic_id() ^ 1;
	u64 end;

	for (int i = 100; i < 105; i++)
		r[i] = 0;
	section("APM2 15.36.21", "A doorbell makes a CPU in guest mode look at the backing page.");
	set_handler(KICK, on_kick);
	ap_run(ap, NULL);
	if (!check(eventually(&r[100]), "vCPU 1 runs"))
		return;

	/* Somewhere in its loop by now */
	end = rdtsc() + 100000000UL;
	while (rdtsc() < end)
		cpu_relax();
	call(g_send, LOW);
	end = rdtsc() + 100000000UL;
	while (rdtsc() < end)
		cpu_relax();
	check_eq(r[101], 0, "IRR set by another vCPU is not seen by itself");
	check_eq(wrmsr_safe(MSR_DOORBELL, BIT(32)), GP, "doorbell: reserved bits");
	wrmsr(MSR_DOORBELL, 0xfff);		/* nobody */
	wrmsr(MSR_DOORBELL, apic_id());		/* not in guest mode */
	wrmsr(MSR_DOORBELL, id);
	check(eventually(&r[101]), "doorbell");
	check_eq(r[101], LOW, "delivers it");
	check_eq(r[103], 0, "without an exit");
	r[102] = 1;
	/* Should it still spin: out of guest mode */
	wrmsr(X2MSR(ICR), (u64)id << 32 | KICK);
	ap_wait();
	check_eq(r[104], 0, "no other exits");
}

static void ap_again(void *fn)
{
	shared->fn[1] = fn;
	while (shared->fn[1]) {
		r[104] = snp_run(&other);
		if (r[104] != EXIT_INTR && r[104] != EXIT_VMGEXIT)
			break;
	}
}

/* Wherever the doorbell meets the other CPU, the interrupt comes. */
static void test_pings(void)
{
	int rounds = 300, done = 0;

	section("APM2 15.36.21", "A doorbell at any point around VMRUN: the vector is delivered once.");
	for (int i = 100; i < 106; i++)
		r[i] = 0;
	ap_run(ap_again, g_pings);
	if (!check(eventually(&r[100]), "vCPU 1 runs, in and out"))
		return;
	for (done = 0; done < rounds; done++) {
		u64 end = rdtsc() + 2000000000UL;

		call(g_send, LOW);
		wrmsr(MSR_DOORBELL, apic_id() ^ 1);
		while (r[101] == (u64)done && rdtsc() < end)
			cpu_relax();
		if (r[101] != (u64)done + 1)
			break;
	}
	check_eq(done, rounds, "vectors delivered");
	r[102] = 1;
	ap_wait();
	check_eq(r[101], rounds, "none twice");
}

static void enable_snp(void *unused)
{
	snp_start_cpu();
}

static void g_nothing(u64 unused)
{
}

static void ap_once(void *fn)
{
	shared->fn[1] = fn;
	snp_run(&other);
}

static void test_always_intercepted(void)
{
	section("APM2 15.36.21", "Physical INTR, NMI and INIT exit, whatever the VMCB intercepts.");
	svm_intercept(good.vmcb, EXIT_NMI, false);
	svm_intercept(good.vmcb, EXIT_INTR, false);
	svm_intercept(other.vmcb, EXIT_INIT, false);
	nmis = irqs = 0;
	asm volatile("clgi; sti" : : : "memory");
	wrmsr(X2MSR(ICR), (u64)apic_id() << 32 | HIGH);
	wrmsr(X2MSR(ICR), (u64)apic_id() << 32 | 4 << 8);
	shared->fn[0] = g_nothing;
	check(snp_run(&good) == EXIT_NMI && shared->fn[0], "NMI, before the guest runs");
	asm volatile("cli" : : : "memory");
	check(nmis == 1 && irqs == 1, "the host takes it, and an interrupt");
	wrmsr(X2MSR(EOI), 0);
	asm volatile("clgi; sti" : : : "memory");
	wrmsr(X2MSR(ICR), (u64)apic_id() << 32 | HIGH);
	check(snp_run(&good) == EXIT_INTR && shared->fn[0], "INTR, before the guest runs");
	asm volatile("cli" : : : "memory");
	check_eq(irqs, 2, "the host takes it");
	wrmsr(X2MSR(EOI), 0);
	check(snp_run(&good) == EXIT_VMGEXIT && !shared->fn[0], "and on");
	svm_intercept(good.vmcb, EXIT_NMI, true);
	svm_intercept(good.vmcb, EXIT_INTR, true);

	for (int i = 100; i < 106; i++)
		r[i] = 0;
	other.vmcb->exit_code = 0;
	ap_run(ap_once, g_spin);
	if (!check(eventually(&r[100]), "vCPU 1 runs"))
		return;
	ap_init();
	check(eventually(&other.vmcb->exit_code) && other.vmcb->exit_code == EXIT_INIT, "INIT");
	ap_restart();
	ap_run(enable_snp, NULL);
	r[102] = 1;
	ap_run(ap_again, g_spin);
	ap_wait();
	check(!shared->fn[1], "and on, after a SIPI");
}

static void test_page_in_use(void)
{
	for (int i = 100; i < 106; i++)
		r[i] = 0;
	ap_run(ap_again, g_spin);
	if (!check(eventually(&r[100]), "vCPU 1 runs again"))
		return;
	section("APM2 15.36.12", "The backing page of a running guest is in use: RMPUPDATE fails with FAIL_INUSE.");
	check_eq(snp_assign((u64)backing[1], false), FAIL_INUSE, "RMPUPDATE of the backing page");
	check_eq(snp_assign((u64)far_stack, true), RMP_OK, "of another page");
	section("APM2 15.36.21", "A backing page that is not validated is #VC(406h).");
	call(g_rescind, (u64)backing[1]);
	wrmsr(MSR_DOORBELL, apic_id() ^ 1);
	r[0] = 0;
	for (int i = 0; i < 1000 && r[0] != VC_NOT_RESTARTABLE; i++)
		call(g_vc_code, 0);
	check_eq(r[0], VC_NOT_RESTARTABLE, "found by a doorbell");
	r[102] = 1;
	ap_wait();
	check_eq(snp_assign((u64)backing[1], false), RMP_OK, "RMPUPDATE, once it is out of guest mode");
}

static void test_page(void)
{
	u64 gpa = (u64)backing[0];
	u64 pte = *snp_npt(gpa);

	section("APM2 15.36.21", "A backing page that is not validated is #VC(406h).");
	/* Assigned anew: no longer validated */
	call(g_enable, 0);
	snp_assign(gpa, false);
	check_eq(snp_assign(gpa, true), 0, "RMPUPDATE of the backing page");
	call(g_touch_tpr, 0);
	check_eq(r[1], VC_NOT_RESTARTABLE, "page not validated: #VC(406h)");
	/* Once for VMRUN, once for each access: nothing is lost of the vCPU. */
	check_eq(r[2], gpa, "exit_info_2 is the page");

	/* VMRUN itself */
	*snp_npt(gpa) = 0;
	check(!snp_call(&good, g_start, 0), "page not mapped");
	check_eq(good.vmcb->exit_code, EXIT_NPF, "exits with a nested page fault");
	check(good.vmcb->exit_info_1 & NOT_RESTARTABLE, "that is not restartable");
	check_eq(good.vmcb->exit_info_2, gpa, "on the page");
	*snp_npt(gpa) = pte;
	check_eq(snp_run(&good), EXIT_BUSY, "the vCPU is dead");
}

static u64 *field(struct snp_vcpu *v, unsigned int offset)
{
	return vmsa_field(v->vmsa, offset);
}

void test_main(void)
{
	u32 a, b, c, d;

	cpuid(0x8000001f, 0, &a, &b, &c, &d);
	section("APM2 15.36.21", "CPUID reports Secure AVIC and ALLOWED_SEV_FEATURES.");
	check(a & BIT(26), "CPUID has SecureAvic");
	check(a & BIT(27), "CPUID has AllowedSevFeatures");
	if (!(a & BIT(26)) || !(a & BIT(4)))
		return;

	set_handler(VC, on_vc);
	set_handler(2, on_interrupt);
	set_handler(LOW, on_interrupt);
	set_handler(HIGH, on_interrupt);
	set_handler(FORBIDDEN, on_interrupt);
	set_handler(LEVEL, on_interrupt);

	snp_set_up(&good, 0);
	snp_set_up(&other, 1);
	snp_set_up(&forbidden, 2);
	snp_set_up(&restricted, 4);
	*field(&restricted, VMSA_SEV_FEATURES) |= RESTRICTED_INJ;
	restricted.vmcb->allowed_sev_features |= RESTRICTED_INJ;
	snp_set_up(&alternate, 6);
	*field(&alternate, VMSA_SEV_FEATURES) |= ALTERNATE_INJ;
	alternate.vmcb->allowed_sev_features |= ALTERNATE_INJ;
	snp_set_up(&mbz, 8);
	*field(&mbz, VMSA_SECURE_AVIC_CONTROL) = BIT(3);
	snp_set_up(&far_page, 10);
	*field(&far_page, VMSA_SECURE_AVIC_CONTROL) = BIT(51) | CONTROL_ENABLE;
	snp_set_up(&reduced, 22);
	*field(&reduced, VMSA_SECURE_AVIC_CONTROL) = BIT(45) | CONTROL_ENABLE;
	snp_set_up(&dead, 12);
	*field(&dead, VMSA_VINTR_CTRL) |= BIT(63);
	*field(&dead, VMSA_SEV_FEATURES) = SNP_ACTIVE;

	snp_set_up(&no_gif, 14);
	*field(&no_gif, VMSA_VINTR_CTRL) = V_NMI_ENABLE;
	snp_set_up(&own_irq, 16);
	*field(&own_irq, VMSA_VINTR_CTRL) |= V_IRQ | V_PRIO(HIGH >> 4) | (u64)HIGH << 32;
	snp_set_up(&own_nmi, 20);
	*field(&own_nmi, VMSA_VINTR_CTRL) |= V_NMI;
	*field(&own_nmi, VMSA_SECURE_AVIC_CONTROL) = (u64)backing[0] | CONTROL_ENABLE;
	snp_set_up(&reflect, 18);
	*field(&reflect, VMSA_SEV_FEATURES) |= REFLECT_VC;
	reflect.vmcb->allowed_sev_features |= REFLECT_VC;
	snp_set_up(&reflect_page, 24);
	*field(&reflect_page, VMSA_SEV_FEATURES) |= REFLECT_VC;
	*field(&reflect_page, VMSA_SECURE_AVIC_CONTROL) = (u64)unvalidated | CONTROL_ENABLE;
	reflect_page.vmcb->allowed_sev_features |= REFLECT_VC;

	snp_start();
	test_invalid();
	test_vmsa();
	test_engine_off();
	test_control();
	test_backing_page();
	test_table();
	test_ipi();
	test_priority();
	test_level();
	test_requested();
	test_mix();
	test_nmi();
	test_saved();
	test_msrpm();
	test_hlt();
	test_interrupted();
	test_doorbell();
	test_pings();
	test_always_intercepted();
	test_page_in_use();
	test_page();
}
