/*
 * Exceptions of a guest, handled by its own IDT and intercepted (15.12), and physical
 * interrupts that wait for a guest's RFLAGS.IF (15.13.1, 15.21.1)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"
#include "svm.h"
#include "user.h"

enum { DE = 0, OF = 4, NM = 7, NP = 11, SS = 12, AC = 17 };

#define RFLAGS_TF	"0x100"
#define RFLAGS_AC	"0x40000"
#define RFLAGS_IF	BIT(9)
#define CR0_EM		BIT(2)
#define CR0_TS		BIT(3)
#define CR0_AM		BIT(18)
#define VECTOR		0x41

static struct vcpu v;
static volatile u32 traps, irqs, irqs_seen;
static u8 unaligned[64] __attribute__((aligned(64)));

/* ---- The guest ----------------------------------------------------------------- */

static void on_trap(struct regs *r)
{
	traps++;
	ex_vector = r->vector;
	r->rflags &= ~BIT(8);
}

static void g_de(void)
{
	EX_BEGIN();
	asm volatile(EX("div %%ecx") : : "a"(1), "d"(0), "c"(0));
	vmmcall(0);
}

static void g_db(void)
{
	EX_BEGIN();
	asm volatile("pushf; orl $" RFLAGS_TF ", (%%rsp); popf; nop" : : : "cc", "memory");
	vmmcall(0);
}

static void g_bp(void)
{
	EX_BEGIN();
	asm volatile("int3");
	vmmcall(0);
}

/* INTO is for legacy modes: compatibility mode, by a far call to 18h. */
asm("	.code32\n"
    "into_32: mov $0x7fffffff, %eax\n"
    "	add $1, %eax\n"
    "	into\n"
    "	lret\n"
    "	.code64\n");
extern char into_32[];

static void g_of(void)
{
	struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) target = { (u32)(u64)into_32, 0x18 };

	EX_BEGIN();
	asm volatile("lcall *%0" : : "m"(target) : "rax", "cc", "memory");
	vmmcall(0);
}

static void g_ud(void)
{
	EX_BEGIN();
	asm volatile(EX("ud2"));
	vmmcall(0);
}

static void g_nm(void)
{
	EX_BEGIN();
	asm volatile(EX("fnop"));
	vmmcall(0);
}

static void g_gp(void)
{
	EX_BEGIN();
	asm volatile(EX("movq (%0), %%rax") : : "r"(BIT(62)) : "rax");
	vmmcall(0);
}

static void g_pf(void)
{
	EX_BEGIN();
	asm volatile(EX("movq (%0), %%rax") : : "r"(0xffff800000000000UL) : "rax");
	vmmcall(0);
}

static void u_unaligned(void)
{
	asm volatile("pushf; orl $" RFLAGS_AC ", (%%rsp); popf\n"
		     EX("movl 1(%0), %%eax")
		     "pushf; andl $~" RFLAGS_AC ", (%%rsp); popf\n"
		     : : "r"(unaligned) : "rax", "cc", "memory");
}

static void u_aligned(void)
{
	asm volatile("pushf; orl $" RFLAGS_AC ", (%%rsp); popf\n"
		     EX("movq 8(%0), %%rax; movb 1(%0), %%al; movw 2(%0), %%ax; movw %%ax, 6(%0); lock; incl 4(%0)")
		     "pushf; andl $~" RFLAGS_AC ", (%%rsp); popf\n"
		     : : "r"(unaligned) : "rax", "cc", "memory");
}

static void g_ac(void)
{
	EX_BEGIN();
	user_call(u_unaligned);
	vmmcall(0);
}

static void g_aligned(void)
{
	EX_BEGIN();
	user_call(u_aligned);
	vmmcall(0);
}

static void g_supervisor(void)
{
	EX_BEGIN();
	u_unaligned();
	vmmcall(0);
}

static void g_window(void)
{
	irqs_seen = irqs;
	vmmcall(0);
	irqs_seen += irqs;
	asm volatile("sti; nop; cli" : : : "memory");
	vmmcall(irqs);
}

/* ---- The host -------------------------------------------------------------------- */

static void on_irq(struct regs *r)
{
	irqs++;
	wrmsr(MSR_X2APIC_EOI, 0);
}

static void run(void (*fn)(void), u64 cr0, u32 intercepted)
{
	traps = 0;
	svm_set_up(&v, fn);
	v.vmcb->cr0 |= cr0;
	v.vmcb->intercept[2] = intercepted;
	svm_run(&v);
}

static void raises(void (*fn)(void), u64 cr0, u32 vector, u32 error, const char *what)
{
	u64 code;

	run(fn, cr0, 0);
	check_eq(v.vmcb->exit_code, EXIT_VMMCALL, what);
	check(ex_vector == vector && (traps || ex_error == error), "the guest's IDT has it (vector %d, error code 0x%x)",
	      (int)ex_vector, ex_error);
	run(fn, cr0, BIT(vector));
	code = v.vmcb->exit_code;
	check(code == EXIT_EXCP + vector && v.vmcb->exit_info_1 == error, "intercepted: it exits (exit code 0x%lx, 0x%lx)",
	      code, v.vmcb->exit_info_1);
	run(fn, cr0, ~BIT(vector) & ~BIT(2));
	check_eq(v.vmcb->exit_code, EXIT_VMMCALL, "all others intercepted: it does not");
}

static void test_exceptions(void)
{
	section("APM2 15.12", "Each exception goes to the guest's IDT, or exits if it is intercepted.");
	set_handler(DB, on_trap);
	set_handler(BP, on_trap);
	set_handler(OF, on_trap);
	raises(g_de, 0, DE, 0, "#DE");
	raises(g_db, 0, DB, 0, "#DB, by RFLAGS.TF");
	raises(g_bp, 0, BP, 0, "#BP");
	raises(g_of, 0, OF, 0, "#OF, by INTO in compatibility mode");
	raises(g_ud, 0, UD, 0, "#UD");
	raises(g_nm, CR0_TS, NM, 0, "#NM, by CR0.TS");
	raises(g_nm, CR0_EM, NM, 0, "#NM, by CR0.EM");
	raises(g_gp, 0, GP, 0, "#GP");
	raises(g_pf, 0, PF, 0, "#PF");
	raises(g_ac, CR0_AM, AC, 0, "#AC");

	section("APM2 8.2.18", "#AC is for unaligned data at CPL 3, with CR0.AM and RFLAGS.AC set.");
	run(g_ac, 0, 0);
	check(v.vmcb->exit_code == EXIT_VMMCALL && ex_vector == NO_EXCEPTION, "CR0.AM clear");
	run(g_supervisor, CR0_AM, 0);
	check(v.vmcb->exit_code == EXIT_VMMCALL && ex_vector == NO_EXCEPTION, "CPL 0");
	run(g_aligned, CR0_AM, 0);
	check(v.vmcb->exit_code == EXIT_VMMCALL && ex_vector == NO_EXCEPTION, "aligned data (vector %d)", (int)ex_vector);
	WRITE_CR(0, READ_CR(0) | CR0_AM);
	EX_BEGIN();
	user_call(u_unaligned);
	check_raised(AC, 0, "outside of guests");
	WRITE_CR(0, READ_CR(0) & ~CR0_AM);
}

static void send(u32 vector)
{
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | vector);
}

static void test_pending(void)
{
	section("APM2 15.21.1", "Without V_INTR_MASKING a physical interrupt that is pending at VMRUN waits for the guest's RFLAGS.IF.");
	for (int intercept = 0; intercept < 2; intercept++) {
		for (int host_if = 0; host_if < 2; host_if++) {
			irqs = 0;
			svm_set_up(&v, g_window);
			v.vmcb->int_ctl = 0;
			svm_intercept(v.vmcb, EXIT_INTR, intercept);
			asm volatile("clgi" : : : "memory");
			if (host_if)
				asm volatile("sti" : : : "memory");
			send(VECTOR);
			check_eq(svm_run(&v), EXIT_VMMCALL, "the guest leaves before it has set IF");
			v.vmcb->rip += 3;
			asm volatile("cli" : : : "memory");
			if (host_if && !irqs_seen) {
				/* It was the host's meanwhile. */
				irqs = 0;
				asm volatile("clgi; sti" : : : "memory");
				send(VECTOR);
			}
			svm_run(&v);
			asm volatile("cli" : : : "memory");
			check_eq(irqs_seen, 0, host_if ? "the host's IF set" : "the host's IF clear");
			if (intercept) {
				check_eq(v.vmcb->exit_code, EXIT_INTR, "intercepted: it exits");
				check(v.vmcb->rip > (u64)g_window, "not before the guest has set IF");
				asm volatile("stgi; sti; nop; cli" : : : "memory");
			} else {
				check_eq(v.vmcb->rax, 1, "then the guest takes it");
			}
			check_eq(irqs, 1, "it comes once");
		}
	}
}

static struct {
	u16 offset_lo, selector;
	u32 rest[3];
} *gate;
extern u8 idt[256][16];

static void faults(u32 vector, u32 error, const char *what)
{
	check(ex_vector == vector && ex_error == error, "%s (vector %d, error code 0x%x)", what, (int)ex_vector, ex_error);
	wrmsr(MSR_X2APIC_EOI, 0);
}

static void take(u32 vector)
{
	EX_BEGIN();
	asm volatile("sti\n" EX("nop") EX("nop") "cli" : : : "memory");
}

static void g_take(void)
{
	take(0);
	vmmcall(0);
}

GUEST(g_take_2, "sti; nop; nop");

/* An interrupt with the vector is there, and its gate is bad. */
static void by_virq(void)
{
	svm_set_up(&v, g_take);
	v.vmcb->int_ctl |= V_IRQ | V_PRIO(15) | V_IGN_TPR | (u64)VECTOR << 32;
	svm_run(&v);
}

static void by_injection(u64 event)
{
	svm_set_up(&v, g_take_2);
	v.vmcb->event_inj = EVENT_VALID | event;
	v.vmcb->intercept[2] = BIT(GP) | BIT(NP) | BIT(SS) | BIT(DF);
	svm_run(&v);
	ex_vector = v.vmcb->exit_code - EXIT_EXCP;
	ex_error = v.vmcb->exit_info_1;
}

static void test_ext(void)
{
	u8 saved[16];
	u32 in_idt = VECTOR * 8 + 2;

	section("APM2 8.4.1", "A fault in the delivery of an external event has EXT (bit 0) in its error code.");
	memcpy(saved, idt[VECTOR], sizeof(saved));
	gate = (void *)idt[VECTOR];

	idt[VECTOR][5] &= ~0x80;
	send(VECTOR);
	take(VECTOR);
	faults(NP, in_idt | 1, "physical interrupt, gate not present");
	by_virq();
	faults(NP, in_idt | 1, "V_IRQ");
	by_injection(EVENT_INTR | VECTOR);
	faults(NP, in_idt | 1, "EVENTINJ of an interrupt");
	EX_BEGIN();
	asm volatile(EX("int $0x41"));
	faults(NP, in_idt, "INTn: no EXT");

	idt[VECTOR][5] = 0x80;
	send(VECTOR);
	take(VECTOR);
	faults(GP, in_idt | 1, "physical interrupt, no gate");
	memcpy(idt[VECTOR], saved, sizeof(saved));
	gate->selector = 0x7f0;
	send(VECTOR);
	take(VECTOR);
	faults(GP, 0x7f0 | 1, "selector beyond the table");
	gate->selector = 0;
	send(VECTOR);
	take(VECTOR);
	faults(GP, 1, "null selector");
	gate->selector = 0x10;
	send(VECTOR);
	take(VECTOR);
	faults(GP, 0x10 | 1, "selector of a data segment");
	memcpy(idt[VECTOR], saved, sizeof(saved));
	irqs = 0;
	send(VECTOR);
	take(VECTOR);
	check_eq(irqs, 1, "with the gate mended it is delivered");

	memcpy(saved, idt[2], sizeof(saved));
	idt[2][5] &= ~0x80;
	by_injection(EVENT_NMI | 2);
	faults(NP, 2 * 8 + 2 + 1, "EVENTINJ of an NMI");
	memcpy(idt[2], saved, sizeof(saved));
}

void test_main(void)
{
	apic_id();
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	user_map();
	svm_init();
	set_handler(VECTOR, on_irq);
	test_exceptions();
	test_pending();
	test_ext();
}
