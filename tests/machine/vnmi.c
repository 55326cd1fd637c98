/*
 * Virtual interrupts, virtual NMI, virtual GIF and the Idle-HLT intercept (15.21,
 * 15.33.2, 15.9)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define VECTOR	0x41

static struct vcpu v;
static volatile u32 nmis, irqs;
static volatile u64 nmi_rip;

static void on_nmi(struct regs *r)
{
	nmis++;
	nmi_rip = r->rip;
	vmmcall(0x100 + nmis);
}

static void on_irq(struct regs *r)
{
	irqs++;
}

static bool exited(u64 code, u64 rax, const char *what)
{
	u64 seen = svm_run(&v);

	if (seen == EXIT_VMMCALL)
		v.vmcb->rip += 3;
	if (seen == code && (code != EXIT_VMMCALL || v.vmcb->rax == rax))
		return check(true, "%s", what);
	return check(false, "%s: exit 0x%lx rax 0x%lx info 0x%lx rip 0x%lx, expected 0x%lx rax 0x%lx",
		     what, seen, v.vmcb->rax, v.vmcb->exit_info_1, v.vmcb->rip, code, rax);
}

static void start(void (*fn)(void), u64 int_ctl)
{
	nmis = irqs = 0;
	svm_set_up(&v, fn);
	v.vmcb->int_ctl |= int_ctl;
}

static void guest_calls(void)
{
	for (u64 i = 1;; i++)
		vmmcall(i);
}

asm("guest_nops:	nop\n"
    "	nop\n"
    "	nop\n"
    "	vmmcall\n");
void guest_nops(void);

static void test_nmi(void)
{
	section("APM2 15.21.10", "A pending V_NMI is taken when NMIs are not blocked; taking it blocks them until IRET.");
	start(guest_calls, V_NMI_ENABLE | V_NMI);
	exited(EXIT_VMMCALL, 0x101, "V_NMI is taken at once");
	check_eq(v.vmcb->int_ctl & (V_NMI | V_NMI_BLOCKED), V_NMI_BLOCKED,
		 "taking it clears V_NMI and blocks NMIs");

	v.vmcb->int_ctl |= V_NMI;
	exited(EXIT_VMMCALL, 0x102, "IRET of the first takes the second");
	exited(EXIT_VMMCALL, 1, "then the guest goes on");
	check_eq(v.vmcb->int_ctl & (V_NMI | V_NMI_BLOCKED), 0,
		 "IRET ends the blocking");

	v.vmcb->int_ctl |= V_NMI | V_NMI_BLOCKED;
	exited(EXIT_VMMCALL, 2, "a blocked NMI waits");
	check_eq(v.vmcb->int_ctl & (V_NMI | V_NMI_BLOCKED), V_NMI | V_NMI_BLOCKED,
		 "and stays pending");

	start(guest_nops, V_NMI_ENABLE | V_NMI);
	v.vmcb->int_state = 1;
	exited(EXIT_VMMCALL, 0x101, "with an interrupt shadow, an NMI");
	check_eq(nmi_rip, (u64)guest_nops + 1, "comes one instruction later");

	start(guest_calls, V_NMI);
	exited(EXIT_VMMCALL, 1, "V_NMI without V_NMI_ENABLE does nothing");

	start(guest_calls, V_NMI_ENABLE | V_NMI);
	svm_intercept(v.vmcb, EXIT_NMI, false);
	exited(EXIT_INVALID, 0, "V_NMI_ENABLE without NMI intercept is invalid");

	start(guest_calls, V_NMI_ENABLE);
	v.vmcb->event_inj = EVENT_VALID | EVENT_NMI | 2;
	exited(EXIT_VMMCALL, 0x101, "EVENTINJ of an NMI");
	check_eq(v.vmcb->int_ctl & (V_NMI | V_NMI_BLOCKED), V_NMI_BLOCKED,
		 "EVENTINJ of an NMI blocks virtual NMIs");
	exited(EXIT_VMMCALL, 1, "until IRET");
	check_eq(v.vmcb->int_ctl & V_NMI_BLOCKED, 0, "IRET ends it here, too");
}

static void guest_irq(void)
{
	vmmcall(irqs);
	asm volatile("sti; nop; nop; cli");
	vmmcall(irqs);
}

static void guest_cr8(void)
{
	WRITE_CR(8, 5);
	vmmcall(READ_CR(8));
}

#define V_VECTOR	((u64)VECTOR << 32)

static void test_v_intr(void)
{
	section("APM2 15.21.4", "V_IRQ is taken when RFLAGS.IF allows it and its priority is above V_TPR, or V_IGN_TPR is set.");
	start(guest_irq, V_IRQ | V_PRIO(4) | V_VECTOR);
	exited(EXIT_VMMCALL, 0, "RFLAGS.IF clear: not taken");
	check(v.vmcb->int_ctl & V_IRQ, "it stays pending");
	exited(EXIT_VMMCALL, 1, "RFLAGS.IF set: taken once");
	check_eq(v.vmcb->int_ctl & V_IRQ, 0, "V_IRQ is clear");
	start(guest_irq, V_IRQ | V_PRIO(4) | V_VECTOR | 4);
	exited(EXIT_VMMCALL, 0, "V_TPR of the same class");
	exited(EXIT_VMMCALL, 0, "holds it off");
	start(guest_irq, V_IRQ | V_PRIO(4) | V_VECTOR | 4 | V_IGN_TPR);
	exited(EXIT_VMMCALL, 0, "the same with V_IGN_TPR");
	exited(EXIT_VMMCALL, 1, "does not");
	start(guest_irq, V_IRQ | V_PRIO(4) | V_VECTOR);
	svm_intercept(v.vmcb, EXIT_VINTR, true);
	exited(EXIT_VMMCALL, 0, "VINTR is intercepted");
	exited(EXIT_VINTR, 0, "exit in place of the interrupt");
	check(v.vmcb->int_ctl & V_IRQ, "which stays pending");
	check_eq(irqs, 0, "and is not taken");

	section("APM2 15.21.1", "With V_INTR_MASKING, CR8 of the guest is V_TPR.");
	WRITE_CR(8, 2);
	start(guest_cr8, 0);
	exited(EXIT_VMMCALL, 5, "the guest reads what it has written");
	check_eq(v.vmcb->int_ctl & 0xff, 5, "V_TPR");
	check_eq(READ_CR(8), 2, "the host's CR8 is its own");
	WRITE_CR(8, 0);
}

static void guest_gif(void)
{
	vmmcall(1);
	asm volatile("stgi");
	vmmcall(2);
}

static void guest_clgi(void)
{
	asm volatile("clgi");
	vmmcall(1);
	vmmcall(2);
	asm volatile("stgi");
	vmmcall(3);
}

static void test_gif(void)
{
	section("APM2 15.33.2", "Virtual GIF holds virtual interrupts and NMIs off; CLGI and STGI of the guest change it without an exit.");
	start(guest_gif, V_NMI_ENABLE | V_NMI | V_GIF_ENABLE);
	exited(EXIT_VMMCALL, 1, "virtual GIF clear: no NMI");
	exited(EXIT_VMMCALL, 0x101, "STGI: NMI");
	exited(EXIT_VMMCALL, 2, "after it");

	start(guest_clgi, V_NMI_ENABLE | V_GIF_ENABLE | V_GIF);
	exited(EXIT_VMMCALL, 1, "CLGI in the guest");
	check_eq(v.vmcb->int_ctl & V_GIF, 0, "#VMEXIT stores V_GIF");
	v.vmcb->int_ctl |= V_NMI;
	exited(EXIT_VMMCALL, 2, "and holds NMIs off");
	exited(EXIT_VMMCALL, 0x101, "until STGI");
	exited(EXIT_VMMCALL, 3, "after it");
}

static void guest_hlt(void)
{
	asm volatile("sti; hlt; cli");
	vmmcall(irqs);
	asm volatile("hlt");
	vmmcall(0x200 + nmis);
	asm volatile("hlt");
}

static void test_idle_hlt(void)
{
	section("APM2 15.9", "Idle-HLT exits only if no virtual interrupt or NMI is pending.");
	start(guest_hlt, V_NMI_ENABLE);
	svm_intercept(v.vmcb, EXIT_IDLE_HLT, true);
	exited(EXIT_IDLE_HLT, 0, "HLT with nothing pending");
	check_eq(*(u8 *)v.vmcb->rip, 0xf4, "RIP is at HLT");
	check_eq(v.vmcb->next_rip, v.vmcb->rip + 1, "nRIP behind it");

	v.vmcb->int_ctl |= V_IRQ | V_PRIO(VECTOR >> 4) | (u64)VECTOR << 32;
	v.vmcb->rflags &= ~BIT(9);
	v.vmcb->int_state = 0;
	v.vmcb->rip--;			/* STI again: its shadow covers HLT */
	check_eq(*(u8 *)v.vmcb->rip, 0xfb, "back at STI");
	exited(EXIT_VMMCALL, 1, "HLT with V_IRQ pending ends with the interrupt");

	v.vmcb->int_state = 1;
	v.vmcb->int_ctl |= V_NMI;
	exited(EXIT_VMMCALL, 0x101, "HLT in a shadow with V_NMI pending ends with the NMI");
	exited(EXIT_VMMCALL, 0x201, "and the guest goes on");

	v.vmcb->int_ctl |= V_NMI | V_NMI_BLOCKED;
	exited(EXIT_IDLE_HLT, 0, "a blocked NMI does not count");

	v.vmcb->int_ctl &= ~(V_NMI | V_NMI_BLOCKED | V_PRIO(15));
	v.vmcb->int_ctl |= V_IRQ | V_PRIO(3) | 5;
	exited(EXIT_IDLE_HLT, 0, "nor does an interrupt below V_TPR");

	svm_intercept(v.vmcb, EXIT_HLT, true);
	v.vmcb->int_ctl |= V_IGN_TPR;
	exited(EXIT_HLT, 0, "the HLT intercept has precedence");
}

void test_main(void)
{
	u32 a, b, c, d;

	cpuid(0x8000000a, 0, &a, &b, &c, &d);
	section("APM2 15.21.10", "CPUID reports virtual NMI, and Idle-HLT.");
	check(d & BIT(25), "CPUID has VNMI");
	check(d & BIT(30), "CPUID has IdleHltIntercept");
	svm_init();
	set_handler(2, on_nmi);
	set_handler(VECTOR, on_irq);
	test_v_intr();
	test_nmi();
	test_gif();
	test_idle_hlt();
}
