/*
 * What KVM needs of SVM for any guest: next RIP, decode assists, traps after
 * register writes, event injection (15.7.1, 15.8.4, 15.9, 15.20)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define EXIT_READ_CR		0x00
#define EXIT_WRITE_CR		0x10
#define EXIT_WRITE_DR		0x30
#define EXIT_RDTSC		0x6e
#define EXIT_RDTSCP		0x87
#define EXIT_SWINT		0x75
#define EXIT_INVLPG		0x79
#define EXIT_CR4_TRAP		0x94

#define MSR_TSC_RATIO		0xc0000104

#define VECTOR			0x41
#define COUNTED			0x42	/* its handler does not exit */
#define DOORBELLS		50

#define INFO_MOV		BIT(63)
#define CR4_PCE			BIT(8)
#define EFER_NXE		BIT(11)
#define UNMAPPED		0x8000000000ULL	/* beyond the 512G of the test */

static struct vcpu v;
static volatile u64 events, event_rip, event_error;

static void on_event(struct regs *r)
{
	events++;
	event_rip = r->rip;
	event_error = r->error_code;
	vmmcall(0x200);
}

static volatile u64 counted, rounds, doorbells;

static void on_counted(struct regs *r)
{
	counted++;
}

/* Without an exit, and without PAUSE: nothing but the doorbells disturbs it. */
static void g_disturbed(void)
{
	while (doorbells < DOORBELLS)
		rounds++;
	vmmcall(counted);
}

static void cpu_1_rings(void *arg)
{
	while (doorbells < DOORBELLS) {
		u64 seen = rounds;

		while (rounds < seen + 1000)
			cpu_relax();
		wrmsr(MSR_DOORBELL, (u64)arg);
		doorbells++;
	}
}

/* One instruction each. */
GUEST(g_cpuid, "cpuid");
GUEST(g_rdtsc, "rdtsc");
GUEST(g_pause, "pause");
GUEST(g_hlt, "hlt");
GUEST(g_in, "inb $0x80, %al");
GUEST(g_read_cr8, "mov %cr8, %r9");
GUEST(g_read_cr4, "mov %cr4, %r13");
GUEST(g_write_cr3, "mov %r10, %cr3");
GUEST(g_write_dr1, "mov %rdx, %dr1");
GUEST(g_invlpg, "invlpg 0x1234(%rsi)");
GUEST(g_int, "int $0x77");
GUEST(g_int3, "int3");
GUEST(g_load, "mov (%r8), %rax");
GUEST(g_write_cr4, "mov %rax, %cr4");
GUEST(g_wrmsr, "wrmsr");
GUEST(g_nop, "nop");
GUEST(g_read_dr1, "mov %dr1, %rax");
GUEST(g_read_dr4, ".byte 0x0f, 0x21, 0xe0");
GUEST(g_rdtscp, "rdtscp");
GUEST(g_pauses, "pause; pause; pause; pause");
GUEST(g_vmgexit, "rep; vmmcall");

static void start(void (*fn)(void))
{
	events = 0;
	svm_set_up(&v, fn);
}

/* The guest leaves at its one instruction. */
static void fault(void (*fn)(void), void (*end)(void), u64 code, const char *name)
{
	check_eq(svm_run(&v), code, name);
	check_eq(v.vmcb->rip, (u64)fn, "RIP is at it");
	check_eq(v.vmcb->next_rip, (u64)end, "nRIP is behind it");
}

#define FAULT(fn, code, name) fault(fn, fn##_end, code, name)

static void test_next_rip(void)
{
	section("APM2 15.7.1", "nRIP is the next instruction for exits due to one, and 0 for the others.");
	start(g_cpuid);
	svm_intercept(v.vmcb, EXIT_CPUID, true);
	FAULT(g_cpuid, EXIT_CPUID, "CPUID");

	start(g_rdtsc);
	svm_intercept(v.vmcb, EXIT_RDTSC, true);
	FAULT(g_rdtsc, EXIT_RDTSC, "RDTSC");

	start(g_pause);
	svm_intercept(v.vmcb, EXIT_PAUSE, true);
	FAULT(g_pause, EXIT_PAUSE, "PAUSE");

	start(g_hlt);
	svm_intercept(v.vmcb, EXIT_HLT, true);
	FAULT(g_hlt, EXIT_HLT, "HLT");

	start(g_nop);
	check_eq(svm_run(&v), EXIT_VMMCALL, "VMMCALL");
	check_eq(v.vmcb->next_rip, (u64)g_nop_end + 3, "nRIP is behind it");

	start(g_load);
	v.regs.r8 = UNMAPPED;
	v.vmcb->intercept[2] = BIT(PF);
	check_eq(svm_run(&v), EXIT_EXCP + PF, "#PF");
	check_eq(v.vmcb->next_rip, 0, "nRIP is 0 for what is no instruction's exit");
	check_eq(v.vmcb->exit_info_2, UNMAPPED, "EXITINFO2 is the address");
	check_eq(v.vmcb->insn[0], 15, "15 bytes of the instruction");
	check(!memcmp(v.vmcb->insn + 1, (void *)g_load, 15), "and they are right");
}

static void test_decode(void)
{
	section("APM2 15.8.4", "Decode assists name the register, address or vector of the instruction.");
	start(g_read_cr8);
	v.vmcb->intercept[0] = BIT(8);
	FAULT(g_read_cr8, EXIT_READ_CR + 8, "MOV from CR8");
	check_eq(v.vmcb->exit_info_1, INFO_MOV | 9, "to R9");

	start(g_read_cr4);
	v.vmcb->intercept[0] = BIT(0);
	check_eq(svm_run(&v), EXIT_VMMCALL, "CR4 has its own intercept, not CR0's");

	start(g_read_cr4);
	v.vmcb->intercept[0] = BIT(4);
	FAULT(g_read_cr4, EXIT_READ_CR + 4, "MOV from CR4");
	check_eq(v.vmcb->exit_info_1, INFO_MOV | 13, "to R13");

	start(g_write_cr3);
	v.vmcb->intercept[0] = BIT(16 + 3);
	FAULT(g_write_cr3, EXIT_WRITE_CR + 3, "MOV to CR3");
	check_eq(v.vmcb->exit_info_1, INFO_MOV | 10, "from R10");

	start(g_write_dr1);
	v.vmcb->intercept[1] = BIT(16 + 1);
	FAULT(g_write_dr1, EXIT_WRITE_DR + 1, "MOV to DR1");
	check_eq(v.vmcb->exit_info_1 & 15, 2, "from RDX");

	start(g_invlpg);
	svm_intercept(v.vmcb, EXIT_INVLPG, true);
	v.regs.rsi = 0x50000;
	FAULT(g_invlpg, EXIT_INVLPG, "INVLPG");
	check_eq(v.vmcb->exit_info_1, 0x51234, "its address");

	start(g_int);
	svm_intercept(v.vmcb, EXIT_SWINT, true);
	FAULT(g_int, EXIT_SWINT, "INT");
	check_eq(v.vmcb->exit_info_1, 0x77, "its vector");

	start(g_int3);
	svm_intercept(v.vmcb, EXIT_SWINT, true);
	v.vmcb->intercept[2] = BIT(BP);
	FAULT(g_int3, EXIT_EXCP + BP, "INT3 is #BP, not a software interrupt");
}

static void test_traps(void)
{
	section("APM2 15.9", "CR and EFER write traps exit after the write, with the new value.");
	start(g_write_cr4);
	svm_intercept(v.vmcb, EXIT_CR4_TRAP, true);
	v.vmcb->rax = v.vmcb->cr4 ^ CR4_PCE;
	check_eq(svm_run(&v), EXIT_CR4_TRAP, "CR4 write trap");
	check_eq(v.vmcb->rip, (u64)g_write_cr4_end, "RIP is behind it");
	check_eq(v.vmcb->cr4, v.vmcb->rax, "the write is done");
	check_eq(v.vmcb->exit_info_1, v.vmcb->rax, "EXITINFO1 is the new value");

	start(g_wrmsr);
	svm_intercept(v.vmcb, EXIT_EFER_TRAP, true);
	v.vmcb->rax = (u32)(v.vmcb->efer ^ EFER_NXE);
	v.regs.rcx = MSR_EFER;
	check_eq(svm_run(&v), EXIT_EFER_TRAP, "EFER write trap");
	check_eq(v.vmcb->rip, (u64)g_wrmsr_end, "RIP is behind it");
	check_eq(v.vmcb->exit_info_1, v.vmcb->efer, "EXITINFO1 is the new value");
}

static void test_order(void)
{
	section("APM2 15.9", "Exceptions of MOV DRn come before its intercept.");
	start(g_read_dr1);
	v.vmcb->intercept[1] = 0xffffffff;
	v.vmcb->intercept[2] = BIT(DB);
	v.vmcb->dr7 |= BIT(13);
	check_eq(svm_run(&v), EXIT_EXCP + DB, "DR7.GD: #DB");
	check_eq(v.vmcb->dr6, 0xffff2ff0, "DR6.BD is set");
	check_eq(v.vmcb->rip, (u64)g_read_dr1, "RIP is at the instruction");
	start(g_read_dr4);
	v.vmcb->intercept[1] = 0xffffffff;
	v.vmcb->intercept[2] = BIT(UD);
	v.vmcb->cr4 |= BIT(3);
	check_eq(svm_run(&v), EXIT_EXCP + UD, "DR4 with CR4.DE: #UD");

	section("APM2 15.9", "RDTSCP has an intercept of its own.");
	start(g_rdtscp);
	svm_intercept(v.vmcb, EXIT_RDTSC, true);
	check_eq(svm_run(&v), EXIT_VMMCALL, "RDTSC's is not for it");
	start(g_rdtscp);
	svm_intercept(v.vmcb, EXIT_RDTSCP, true);
	FAULT(g_rdtscp, EXIT_RDTSCP, "RDTSCP");

	section("APM2 15.35.6", "VMGEXIT is VMMCALL outside of SEV-ES guests.");
	start(g_vmgexit);
	check_eq(svm_run(&v), EXIT_VMMCALL, "in a guest");
	EX_BEGIN();
	asm volatile(EX("rep; vmmcall"));
	check_eq(ex_vector, UD, "in the host: #UD");
}

/* PAUSEs that the guest has done at its exit: two bytes each */
static u64 pauses(void)
{
	svm_run(&v);
	return (v.vmcb->rip - (u64)g_pauses) / 2;
}

static void test_pause_filter(void)
{
	u32 a, b, c, d;

	section("APM2 15.14.4", "An intercepted PAUSE exits when it is the last of the pause filter count since VMRUN.");
	cpuid(0x8000000a, 0, &a, &b, &c, &d);
	check(d & BIT(10), "CPUID has PauseFilter");
	check(!(d & BIT(12)), "but not PauseFilterThreshold");
	start(g_pauses);
	svm_intercept(v.vmcb, EXIT_PAUSE, true);
	v.vmcb->pause_filter_count = 3;
	check_eq(pauses(), 2, "count 3: exit at the third");
	check_eq(v.vmcb->exit_code, EXIT_PAUSE, "PAUSE");
	check_eq(v.vmcb->pause_filter_count, 3, "the VMCB's count is not changed");
	check_eq(pauses(), 4, "VMRUN loads the count again: none at the fourth");
	check_eq(v.vmcb->exit_code, EXIT_VMMCALL, "but the guest's end");

	start(g_pauses);
	svm_intercept(v.vmcb, EXIT_PAUSE, true);
	v.vmcb->pause_filter_count = 1;
	check_eq(pauses(), 0, "count 1: exit at the first");
	v.vmcb->pause_filter_count = 0;
	v.vmcb->rip += 2;
	check_eq(pauses(), 1, "count 0: exit at each");
	svm_intercept(v.vmcb, EXIT_PAUSE, false);
	v.vmcb->pause_filter_count = 2;
	check_eq(pauses(), 4, "no intercept: no exit");
}

#define HALF			0x80000000UL
#define TSC_OFFSET		0x123456789000UL

static u64 guest_tsc(void)
{
	start(g_rdtsc);
	v.vmcb->tsc_offset = TSC_OFFSET;
	svm_run(&v);
	return (v.regs.rdx << 32 | (u32)v.vmcb->rax) - TSC_OFFSET;
}

static void test_tsc(void)
{
	u64 val, before, seen, after;

	section("APM2 15.30.5", "A guest's TSC is the host's x TSC_RATIO (8.32 fixed point) + TSC_OFFSET.");
	check(rdmsr_safe(MSR_TSC_RATIO, &val) == NO_EXCEPTION && val == BIT(32),
	      "TSC_RATIO is 1.0 after reset");
	check_eq(wrmsr_safe(MSR_TSC_RATIO, BIT(40)), GP, "its reserved bits: #GP");
	before = rdtsc();
	seen = guest_tsc();
	after = rdtsc();
	check(seen >= before && seen <= after, "1.0");
	wrmsr(MSR_TSC_RATIO, HALF);
	before = rdtsc();
	seen = guest_tsc();
	after = rdtsc();
	check(seen >= before / 2 && seen <= after / 2, "0.5");
	check(rdtsc() >= after, "the host's TSC is not scaled");
	wrmsr(MSR_TSC_RATIO, BIT(32));
}

static void test_injection(void)
{
	section("APM2 15.20", "EVENTINJ delivers an event through the IDT before the first instruction of the guest.");
	start(g_nop);
	v.vmcb->event_inj = EVENT_VALID | 4 << 8 | VECTOR;
	v.vmcb->next_rip = (u64)g_nop_end;
	check_eq(svm_run(&v), EXIT_VMMCALL, "EVENTINJ of a software interrupt");
	check_eq(event_rip, (u64)g_nop_end, "it returns to nRIP");

	start(g_nop);
	v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | BP;
	v.vmcb->next_rip = (u64)g_nop_end;
	check_eq(svm_run(&v), EXIT_VMMCALL, "EVENTINJ of #BP");
	check_eq(event_rip, (u64)g_nop_end, "it returns to nRIP");

	start(g_nop);
	v.vmcb->event_inj = EVENT_VALID | EVENT_INTR | VECTOR;
	check_eq(svm_run(&v), EXIT_VMMCALL, "EVENTINJ of an interrupt");
	check_eq(event_rip, (u64)g_nop, "it returns to RIP");

	start(g_nop);
	v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | BIT(11) | GP | 0x77ULL << 32;
	check_eq(svm_run(&v), EXIT_VMMCALL, "EVENTINJ of #GP");
	check_eq(event_error, 0x77, "with its error code");

	section("APM2 15.20", "An event is delivered once, whatever becomes of the CPU afterwards.");
	start(g_disturbed);
	v.vmcb->event_inj = EVENT_VALID | EVENT_INTR | COUNTED;
	ap_run(cpu_1_rings, (void *)(u64)apic_id());
	check_eq(svm_run(&v), EXIT_VMMCALL, "an interrupt, and doorbells of another CPU");
	check_eq(v.vmcb->rax, 1, "are one interrupt");
	ap_wait();

	section("APM2 15.20", "EVENTINJ delivers an event through the IDT before the first instruction of the guest.");
	/* No IDT: the delivery faults, which makes #DF of #GP. */
	start(g_nop);
	v.vmcb->idtr.limit = 0;
	v.vmcb->intercept[2] = BIT(DF);
	v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | BIT(11) | GP;
	check_eq(svm_run(&v), EXIT_EXCP + DF, "#GP in the delivery of #GP is #DF");
	start(g_nop);
	v.vmcb->idtr.limit = 0;
	v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | BIT(11) | GP;
	check_eq(svm_run(&v), EXIT_SHUTDOWN, "then a shutdown");
}

void test_main(void)
{
	u32 a, b, c, d;

	section("APM2 15.7.1", "CPUID reports NRIPS and DecodeAssists.");
	cpuid(0x8000000a, 0, &a, &b, &c, &d);
	if (!check(d & BIT(3), "CPUID has NRIPS") || !check(d & BIT(7), "CPUID has DecodeAssists"))
		return;
	svm_init();
	test_tsc();
	set_handler(VECTOR, on_event);
	set_handler(COUNTED, on_counted);
	set_handler(BP, on_event);
	set_handler(GP, on_event);
	test_next_rip();
	test_decode();
	test_traps();
	test_order();
	test_pause_filter();
	test_injection();
}
