/*
 * Exits for what comes from outside (INTR, NMI, INIT: 15.13, 15.17), for a task
 * switch (15.14.1) and for some writes of CR0 (15.9); VM_CR (15.30.1)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define EXIT_WRITE_CR0		0x10
#define EXIT_CR0_SEL_WRITE	0x65
#define EXIT_TASK_SWITCH	0x7d

#define ICR_NMI			(4 << 8)
#define ICR_INIT		(5 << 8 | BIT(14))

#define MSR_VM_CR		0xc0010114
#define VM_CR_R_INIT		BIT(1)
#define VM_CR_LOCK		BIT(3)
#define VM_CR_SVMDIS		BIT(4)

#define NMI			2
#define SX			30
#define NP			11
#define VECTOR			0x41
#define RFLAGS_IF		BIT(9)
#define RFLAGS_NT		BIT(14)
#define RFLAGS_RF		BIT(16)
#define CR0_MP			BIT(1)
#define CR0_TS			BIT(3)
#define CR0_AM			BIT(18)

static struct vcpu v;
static volatile u32 irqs, nmis;

static void on_irq(struct regs *r)
{
	irqs++;
	wrmsr(MSR_X2APIC_EOI, 0);
}

static void on_nmi(struct regs *r)
{
	nmis++;
}

GUEST(g_nops, "nop; nop");
GUEST(g_write_cr0, "mov %r11, %cr0");
GUEST(g_clts, "clts");
GUEST(g_lmsw, "lmsw %ax");
GUEST(g_halt, "incq guest_count(%rip); 1: hlt; jmp 1b");
GUEST(g_count, "1: inc %rcx; mov %rcx, guest_count(%rip); jmp 1b");

static void start(void (*fn)(void))
{
	irqs = nmis = 0;
	svm_set_up(&v, fn);
}

static void send(u64 icr)
{
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | icr);
}

static bool requested(void)
{
	return rdmsr(MSR_X2APIC_IRR + VECTOR / 32) & BIT(VECTOR % 32);
}

/* The vCPU leaves with @code before its first instruction. */
static void leaves_at_once(u64 code, const char *what)
{
	check_eq(svm_run(&v), code, what);
	check_eq(v.vmcb->rip, (u64)g_nops, "the guest has not run");
	check(!(v.vmcb->exit_int_info & EVENT_VALID), "EXITINTINFO is not valid: nothing was being delivered");
}

static void test_intr(void)
{
	section("APM2 15.13.1", "An intercepted INTR exits without acknowledging the interrupt, which stays pending for the host.");
	start(g_nops);
	v.vmcb->int_ctl = 0;
	v.vmcb->rflags |= RFLAGS_IF;
	send(VECTOR);
	leaves_at_once(EXIT_INTR, "V_INTR_MASKING 0: RFLAGS.IF of the guest decides");
	check(requested() && !irqs, "it is not acknowledged");
	asm volatile("sti; nop; cli" : : : "memory");
	check_eq(irqs, 1, "the host takes it when it allows interrupts");

	start(g_nops);
	v.vmcb->int_ctl = 0;
	send(VECTOR);
	check_eq(svm_run(&v), EXIT_VMMCALL, "the guest's IF 0: no exit");
	check(requested(), "it stays pending");

	start(g_nops);
	v.vmcb->rflags |= RFLAGS_IF;
	check_eq(svm_run(&v), EXIT_VMMCALL, "V_INTR_MASKING 1 and the host's IF 0: no exit, whatever the guest's IF is");
	check(requested() && !irqs, "it stays pending");

	start(g_nops);
	asm volatile("clgi; sti" : : : "memory");
	leaves_at_once(EXIT_INTR, "V_INTR_MASKING 1 and the host's IF 1: exit, with the guest's IF 0");
	asm volatile("cli" : : : "memory");
	check_eq(irqs, 1, "STGI lets the host take it, once");

	start(g_nops);
	v.vmcb->int_ctl = 0;
	v.vmcb->rflags |= RFLAGS_IF;
	v.vmcb->int_state = 1;
	send(VECTOR);
	check_eq(svm_run(&v), EXIT_INTR, "in an interrupt shadow");
	check_eq(v.vmcb->rip, (u64)g_nops + 1, "one instruction later");
	check_eq(v.vmcb->int_state & 1, 0, "the shadow is over");

	start(g_nops);
	v.vmcb->int_ctl = 0;
	v.vmcb->rflags |= RFLAGS_IF;
	svm_intercept(v.vmcb, EXIT_INTR, false);
	check_eq(svm_run(&v), EXIT_VMMCALL, "no intercept: no exit");
	check(irqs == 1 && !requested(), "the guest takes it");
}

static void test_nmi(void)
{
	section("APM2 15.13.2", "An intercepted NMI exits, and stays pending until STGI.");
	start(g_nops);
	asm volatile("clgi" : : : "memory");
	send(ICR_NMI);
	check_eq(nmis, 0, "GIF 0 holds an NMI");
	leaves_at_once(EXIT_NMI, "VMRUN sets GIF");
	check_eq(nmis, 1, "STGI lets the host take it, once");

	start(g_nops);
	asm volatile("clgi; sti" : : : "memory");
	send(VECTOR);
	send(ICR_NMI);
	leaves_at_once(EXIT_NMI, "NMI comes before INTR");
	asm volatile("cli" : : : "memory");
	check(nmis == 1 && irqs == 1, "then both are the host's");

	start(g_nops);
	svm_intercept(v.vmcb, EXIT_NMI, false);
	asm volatile("clgi" : : : "memory");
	send(ICR_NMI);
	check_eq(svm_run(&v), EXIT_VMMCALL, "no intercept: no exit");
	check_eq(nmis, 1, "the guest takes it");
}

/* CPU 1: in the guest when guest_count is not 0, and done when it has passed STGI */
static volatile u64 guest_count;
static volatile u64 passed_stgi;
static volatile bool init_intercepted;
static struct vcpu other;

static void other_cpu(void *fn)
{
	svm_init();
	svm_set_up(&other, fn);
	svm_intercept(other.vmcb, EXIT_INIT, init_intercepted);
	svm_run(&other);
	passed_stgi = true;
}

static void run_other_cpu(void (*fn)(void), bool intercepted)
{
	guest_count = 0;
	passed_stgi = false;
	init_intercepted = intercepted;
	ap_run(other_cpu, fn);
	while (!guest_count)
		cpu_relax();
}

/* Wait until *@val is not 0, but not for ever: 2^34 ticks are some seconds. */
static u64 eventually(volatile u64 *val)
{
	u64 end = rdtsc() + BIT(34);

	while (!*val && rdtsc() < end)
		cpu_relax();
	return *val;
}

static void alive(void *answer)
{
	*(volatile bool *)answer = true;
}

/* CPU 1 has been INITed and waits for SIPI. */
static void check_alive(void)
{
	volatile bool answered = false;

	ap_restart();
	ap_run(alive, (void *)&answered);
	ap_wait();
	check(answered && !passed_stgi, "the CPU has gone no further, and starts with the next SIPI");
}

static void test_init(void)
{
	section("APM2 15.13.4", "An intercepted INIT exits, and stays pending until STGI.");
	run_other_cpu(g_count, true);
	ap_init();
	check_eq(eventually(&other.vmcb->exit_code), EXIT_INIT, "exit");
	check(eventually(&other.regs.rcx), "the host runs on while GIF is 0");
	check_alive();

	section("APM2 15.13.4", "An INIT that is not intercepted resets the CPU, which is in host mode then.");
	run_other_cpu(g_count, false);
	ap_init();
	check_alive();
	check(!other.vmcb->exit_code && !other.regs.rcx, "there was no exit");
	run_other_cpu(g_count, true);
	ap_init();
	check_eq(eventually(&other.vmcb->exit_code), EXIT_INIT, "and it can run a guest again");
	ap_restart();

	section("APM2 15.13.4", "A guest that halts is left by INIT as well.");
	run_other_cpu(g_halt, true);
	for (u64 end = rdtsc() + BIT(26); rdtsc() < end;)
		cpu_relax();
	ap_init();
	check_eq(eventually(&other.vmcb->exit_code), EXIT_INIT, "in HLT, without an interrupt");
}

/* CPU 1 */
static volatile u64 redirected, redirect_error, halted, woken;

static void on_sx(struct regs *r)
{
	redirect_error = r->error_code;
	redirected++;
}

static void redirects(void *arg)
{
	wrmsr(MSR_VM_CR, VM_CR_R_INIT);
	halted = 1;
	while (!redirected)
		asm volatile("hlt");
	woken = 1;
}

static void clear_vm_cr(void *arg)
{
	wrmsr(MSR_VM_CR, 0);
}

static void test_r_init(void)
{
	ap_restart();
	section("APM2 15.30.1", "With VM_CR.R_INIT, an INIT that is not intercepted is #SX with error code 1.");
	ap_run(redirects, NULL);
	eventually(&halted);
	ap_init();
	check_eq(eventually(&redirected), 1, "#SX");
	check_eq(redirect_error, 1, "its error code");
	check(eventually(&woken), "the CPU goes on, also one that has halted");
	ap_wait();

	redirected = 0;
	run_other_cpu(g_count, true);
	ap_init();
	check_eq(eventually(&other.vmcb->exit_code), EXIT_INIT, "an intercepted INIT exits");
	check_eq(eventually(&redirected), 1, "and is #SX of the host when GIF is set");
	check(eventually(&passed_stgi), "which goes on");

	ap_run(clear_vm_cr, NULL);
	ap_wait();
	redirected = 0;
	ap_init();
	ap_restart();
	check_eq(redirected, 0, "without R_INIT it resets the CPU again");
}

/* To be the last test: LOCK stays. */
static void test_vm_cr(void)
{
	u64 efer = rdmsr(MSR_EFER), val;
	u32 a, b, c, d;

	section("APM2 15.30.1", "VM_CR.SVMDIS makes EFER.SVME a bit that must be zero; LOCK keeps it as it is.");
	check(rdmsr_safe(MSR_VM_CR, &val) == NO_EXCEPTION && !val, "VM_CR is 0 after reset");
	check_eq(wrmsr_safe(MSR_VM_CR, BIT(5)), GP, "reserved bits: #GP");
	check_eq(wrmsr_safe(MSR_VM_CR, VM_CR_SVMDIS), GP, "SVMDIS while EFER.SVME is 1: #GP");
	wrmsr(MSR_EFER, efer & ~EFER_SVME);
	wrmsr(MSR_VM_CR, VM_CR_SVMDIS);
	check_eq(rdmsr(MSR_VM_CR), VM_CR_SVMDIS, "SVMDIS while it is 0");
	check_eq(wrmsr_safe(MSR_EFER, efer), GP, "then EFER.SVME: #GP");
	check_eq(wrmsr_safe(MSR_EFER, efer & ~EFER_SVME), NO_EXCEPTION, "but no other bit");
	cpuid(0x80000001, 0, &a, &b, &c, &d);
	check(c & BIT(2), "CPUID reports SVM all the same");
	wrmsr(MSR_VM_CR, 0);
	check_eq(wrmsr_safe(MSR_EFER, efer), NO_EXCEPTION, "without SVMDIS EFER.SVME can be set again");

	wrmsr(MSR_EFER, efer & ~EFER_SVME);
	wrmsr(MSR_VM_CR, VM_CR_LOCK);
	wrmsr(MSR_VM_CR, VM_CR_SVMDIS | VM_CR_R_INIT);
	check_eq(rdmsr(MSR_VM_CR), VM_CR_LOCK | VM_CR_R_INIT, "with LOCK, writes change neither LOCK nor SVMDIS");
	wrmsr(MSR_EFER, efer);
	check_eq(wrmsr_safe(MSR_VM_CR, VM_CR_SVMDIS), GP, "SVMDIS while EFER.SVME is 1: #GP, with LOCK as well");
}

/* ---- CR0 --------------------------------------------------------------------- */

static void write_cr0(u64 change, u64 code, const char *what)
{
	start(g_write_cr0);
	svm_intercept(v.vmcb, EXIT_CR0_SEL_WRITE, true);
	v.regs.r11 = v.vmcb->cr0 ^ change;
	check_eq(svm_run(&v), code, what);
}

static void test_selective_cr0(void)
{
	u64 cr0 = READ_CR(0);

	section("APM2 15.9", "The selective intercept of CR0 is for a MOV that changes more than TS and MP, and for any LMSW.");
	write_cr0(0, EXIT_VMMCALL, "MOV that changes nothing: no exit");
	write_cr0(CR0_TS, EXIT_VMMCALL, "TS: no exit");
	write_cr0(CR0_MP, EXIT_VMMCALL, "MP: no exit");
	write_cr0(CR0_AM, EXIT_CR0_SEL_WRITE, "AM");
	check(v.vmcb->rip == (u64)g_write_cr0 && v.vmcb->next_rip == (u64)g_write_cr0_end,
	      "RIP is at the instruction, nRIP behind it");
	check_eq(v.vmcb->cr0, cr0, "CR0 is not written");
	check_eq(v.vmcb->exit_info_1, BIT(63) | 11, "EXITINFO1 names the register");
	write_cr0(CR0_AM | CR0_TS, EXIT_CR0_SEL_WRITE, "AM and TS");

	start(g_write_cr0);
	svm_intercept(v.vmcb, EXIT_CR0_SEL_WRITE, true);
	v.vmcb->intercept[0] = BIT(16);
	v.regs.r11 = cr0 ^ CR0_AM;
	check_eq(svm_run(&v), EXIT_WRITE_CR0, "the intercept of all writes comes first");

	start(g_clts);
	svm_intercept(v.vmcb, EXIT_CR0_SEL_WRITE, true);
	v.vmcb->cr0 |= CR0_TS;
	check_eq(svm_run(&v), EXIT_VMMCALL, "CLTS: no exit");

	start(g_lmsw);
	svm_intercept(v.vmcb, EXIT_CR0_SEL_WRITE, true);
	v.vmcb->rax = cr0;
	check_eq(svm_run(&v), EXIT_CR0_SEL_WRITE, "LMSW that changes nothing");
	check(v.vmcb->rip == (u64)g_lmsw && v.vmcb->next_rip == (u64)g_lmsw_end,
	      "RIP is at the instruction, nRIP behind it");
	check_eq(v.vmcb->exit_info_1, 0, "EXITINFO1: no MOV");
}

/* ---- Task switch --------------------------------------------------------------- */

#define INFO_IRET		BIT(36)
#define INFO_JUMP		BIT(38)
#define INFO_ERROR_CODE		BIT(44)
#define INFO_RF			BIT(48)

/* Selectors of the guest, which is a 32-bit one without paging */
enum { CODE = 0x08, DATA = 0x10, TSS_OLD = 0x18, TSS_NEW = 0x20, GATE = 0x28, NOT_THERE = 0x30 };

struct tss {
	u32 link, stacks[6], cr3, eip, eflags, regs[8], segs[6], ldt, trap;
};

static struct tss tss_old, tss_new;
static u64 gdt32[8], idt32[256];
static u8 stack32[1024] __attribute__((aligned(16)));
static u8 host_state[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

#define GUEST32(name, insn)						\
	asm(".code32; " #name ": " insn "; " #name "_end: vmmcall; .code64\n");	\
	void name(void);						\
	void name##_end(void)

GUEST32(g_jump, "ljmp $0x20, $0");
GUEST32(g_call, "lcall $0x20, $0");
GUEST32(g_call_gate, "lcall $0x28, $0");
GUEST32(g_call_not_there, "lcall $0x30, $0");
GUEST32(g_iret, "iret");
GUEST32(g_int, "int $0x41");
GUEST32(g_ud2, "ud2");
GUEST32(g_gp, "movl %eax, %ds");
GUEST32(g_new_task, "nop");

static u64 tss_descriptor(struct tss *tss, u8 type)
{
	u64 base = (u64)tss;

	return 103 | (base & 0xffffff) << 16 | (u64)type << 40 | (base >> 24 & 0xff) << 56;
}

static void start32(void (*fn)(void))
{
	static const struct tss none;
	const u64 gate = (u64)TSS_NEW << 16 | 0x85ULL << 40;

	start(fn);
	gdt32[CODE / 8] = 0x00cf9b000000ffff;
	gdt32[DATA / 8] = 0x00cf93000000ffff;
	gdt32[TSS_OLD / 8] = tss_descriptor(&tss_old, 0x8b);
	gdt32[TSS_NEW / 8] = tss_descriptor(&tss_new, 0x89);
	gdt32[GATE / 8] = gate;
	gdt32[NOT_THERE / 8] = tss_descriptor(&tss_new, 0x09);
	idt32[UD] = idt32[GP] = idt32[VECTOR] = gate;
	tss_old = tss_new = none;
	tss_new.eip = (u64)g_new_task;
	tss_new.eflags = 2;
	tss_new.regs[4] = (u64)stack32 + sizeof(stack32);
	for (int i = 0; i < 6; i++)
		tss_new.segs[i] = i == 1 ? CODE : DATA;

	v.vmcb->efer = EFER_SVME;
	v.vmcb->cr0 = BIT(0) | BIT(4) | BIT(5);
	v.vmcb->cr3 = v.vmcb->cr4 = 0;
	v.vmcb->cs = (struct vmcb_seg){ CODE, 0xc9b, 0xffffffff, 0 };
	v.vmcb->gdtr = (struct vmcb_seg){ .limit = sizeof(gdt32) - 1, .base = (u64)gdt32 };
	v.vmcb->idtr = (struct vmcb_seg){ .limit = sizeof(idt32) - 1, .base = (u64)idt32 };
	v.vmcb->tr = (struct vmcb_seg){ TSS_OLD, 0x8b, 103, (u64)&tss_old };
	v.vmcb->rsp = (u64)stack32 + sizeof(stack32);
	svm_intercept(v.vmcb, EXIT_TASK_SWITCH, true);
}

/* TR is VMLOAD's. */
static u64 run32(void)
{
	u64 code;

	asm volatile("vmsave %%rax" : : "a"(host_state) : "memory");
	asm volatile("vmload %%rax" : : "a"(v.vmcb) : "memory");
	code = svm_run(&v);
	asm volatile("vmsave %%rax" : : "a"(v.vmcb) : "memory");
	asm volatile("vmload %%rax" : : "a"(host_state) : "memory");
	return code;
}

static void switches(void (*fn)(void), u64 info, u64 event, const char *what)
{
	u64 code = run32();

	check(code == EXIT_TASK_SWITCH && v.vmcb->rip == (u64)fn, "%s: exit 0x%lx, RIP off by %ld",
	      what, code, v.vmcb->rip - (u64)fn);
	check_eq(v.vmcb->exit_info_1 & 0xffff, TSS_NEW, "EXITINFO1 is the selector of the new task's TSS");
	check_eq(v.vmcb->exit_info_2, info, "EXITINFO2");
	check_eq(v.vmcb->exit_int_info, event, "EXITINTINFO is the event that goes through a task gate");
}

static void test_task_switch(void)
{
	section("APM2 15.14.1", "A task switch exits before it is made; EXITINFO1 is the new TSS, EXITINFO2 tells its cause.");
	start32(g_jump);
	switches(g_jump, INFO_JUMP, 0, "JMP");
	check(v.vmcb->tr.selector == TSS_OLD && !tss_old.eip && gdt32[TSS_NEW / 8] == tss_descriptor(&tss_new, 0x89),
	      "nothing is switched");
	start32(g_call);
	switches(g_call, 0, 0, "CALL");
	check_eq(tss_new.link, 0, "no link is written");
	start32(g_call_gate);
	switches(g_call_gate, 0, 0, "CALL of a task gate");
	start32(g_call);
	v.vmcb->rflags |= RFLAGS_RF;
	switches(g_call, INFO_RF, 0, "with RFLAGS.RF");

	start32(g_iret);
	v.vmcb->rflags |= RFLAGS_NT;
	tss_old.link = TSS_NEW;
	gdt32[TSS_NEW / 8] = tss_descriptor(&tss_new, 0x8b);
	switches(g_iret, INFO_IRET, 0, "IRET of a nested task");

	start32(g_int);
	switches(g_int, 0, EVENT_VALID | 4 << 8 | VECTOR, "INT");
	start32(g_ud2);
	switches(g_ud2, INFO_RF, EVENT_VALID | EVENT_EXCEPTION | UD, "#UD");
	start32(g_gp);
	v.vmcb->rax = 0x7f8;
	switches(g_gp, INFO_RF | INFO_ERROR_CODE | 0x7f8, EVENT_VALID | EVENT_EXCEPTION | BIT(11) | GP | 0x7f8ULL << 32,
		 "#GP");

	start32(g_call_not_there);
	v.vmcb->intercept[2] = BIT(NP);
	check_eq(run32(), EXIT_EXCP + NP, "the checks of the TSS come before the exit: not present");

	section("APM2 15.14.1", "Without the intercept tasks are switched.");
	start32(g_call);
	svm_intercept(v.vmcb, EXIT_TASK_SWITCH, false);
	check_eq(run32(), EXIT_VMMCALL, "CALL");
	check_eq(v.vmcb->rip, (u64)g_new_task_end, "the new task runs");
	check_eq(v.vmcb->tr.selector, TSS_NEW, "TR is the new TSS");
	check_eq(tss_new.link, TSS_OLD, "linked to the old one");
	check_eq(tss_old.eip, (u64)g_call_end, "which returns behind the CALL");
}

void test_main(void)
{
	apic_id();
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	svm_init();
	set_handler(VECTOR, on_irq);
	set_handler(NMI, on_nmi);
	set_handler(SX, on_sx);
	test_intr();
	test_nmi();
	test_selective_cr0();
	test_task_switch();
	test_init();
	test_r_init();
	test_vm_cr();
}
