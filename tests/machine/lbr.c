/*
 * Last-branch records (13.1) and LBR virtualization (15.23)
 *
 * Each piece of code here turns recording on, transfers control once from its
 * label _from to its label _to, and turns it off again.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define MSR_DEBUGCTL		0x1d9
#define MSR_BR_FROM		0x1db
#define MSR_BR_TO		0x1dc
#define MSR_INT_FROM		0x1dd
#define MSR_INT_TO		0x1de

#define ON	"mov $0x1d9, %ecx; mov $1, %eax; xor %edx, %edx; wrmsr\n"
#define OFF	"mov $0x1d9, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr\n"

#define RECORD(name, code)						\
	asm(#name ": push %rbx\n" ON code "\n" OFF "pop %rbx; ret\n");	\
	void name(void);						\
	extern char name##_from[], name##_to[];

RECORD(jmp, "jmp_from: jmp jmp_to; nop; jmp_to:")
RECORD(next, "next_from: jmp next_to; next_to:")
RECORD(jmp_reg, "lea jmp_reg_to(%rip), %rax; jmp_reg_from: jmp *%rax; nop; jmp_reg_to:")
RECORD(call, "call_from: call call_to; nop; call_to: pop %rax")
RECORD(call_reg, "lea call_reg_to(%rip), %rax; call_reg_from: call *%rax; nop; call_reg_to: pop %rax")
RECORD(ret, "lea ret_to(%rip), %rax; push %rax; ret_from: ret; nop; ret_to:")
RECORD(jz, "xor %eax, %eax; jz_from: jz jz_to; nop; jz_to:")
RECORD(jz_next, "xor %eax, %eax; jz_next_from: jz jz_next_to; jz_next_to:")
RECORD(not_taken, "not_taken_from: jmp not_taken_to; nop; not_taken_to: test %ecx, %ecx; jz 1f; nop; 1:")
RECORD(loop, "mov $2, %ecx; loop_to: nop; loop_from: loop loop_to")
RECORD(jrcxz, "xor %ecx, %ecx; jrcxz_from: jrcxz jrcxz_to; nop; jrcxz_to:")
RECORD(far_ret, "push $8; lea far_ret_to(%rip), %rax; push %rax; far_ret_from: lretq; nop; far_ret_to:")
RECORD(iret, "mov %rsp, %rbx; mov %ss, %eax; push %rax; push %rbx; pushf; push $8;"
	     "lea iret_to(%rip), %rax; push %rax; iret_from: iretq; nop; iret_to:")
RECORD(rep, "rep_from: jmp rep_to; nop; rep_to: mov $4, %ecx; lea buffer(%rip), %rdi; rep stosb")
RECORD(ud, "jmp 1f; nop; 1: ud_from: ud2; ud_resume:")
RECORD(fault, "fault_from: jmp fault_to; nop; fault_to: mov $0x8000000000, %rax; push %rax; 1: ret; fault_resume:")
RECORD(debug, "debug_from: jmp debug_to; nop; debug_to: nop; debug_at: nop")
extern char ud_resume[], fault_resume[], debug_at[];

/* Straight into the IDT, with no branch before recording is off */
asm("ud_to: " OFF "lea ud_resume(%rip), %rax; mov %rax, (%rsp); iretq\n"
    "pf_entry: add $8, %rsp\n" OFF
    "lea fault_resume(%rip), %rax; mov %rax, (%rsp); iretq\n");
extern char pf_entry[];

static u8 buffer[8] __attribute__((used));

static const struct {
	const char *name;
	void (*fn)(void);
	char *from, *to;
} branches[] = {
#define B(name) { #name, name, name##_from, name##_to }
	B(jmp), B(next), B(jmp_reg), B(call), B(call_reg), B(ret), B(jz), B(jz_next), B(loop),
	B(jrcxz), B(far_ret), B(iret), B(not_taken), B(rep),
};

static struct vcpu v;

static bool recorded(const void *from, const void *to, const char *what)
{
	u64 f = rdmsr(MSR_BR_FROM), t = rdmsr(MSR_BR_TO);

	return check(f == (u64)from && t == (u64)to, "%s: from 0x%lx to 0x%lx, expected 0x%lx to 0x%lx",
		     what, f, t, (u64)from, (u64)to);
}

static struct gate {
	u16 lo, selector, type, mid;
	u32 hi, reserved;
} *gate_of(int vector)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) t;

	asm volatile("sidt %0" : "=m"(t));
	return (struct gate *)t.base + vector;
}

/* Run @fn with @vector's entry at @entry. */
static void with_entry(int vector, char *entry, void (*fn)(void))
{
	struct gate *g = gate_of(vector), saved = *g;

	g->lo = (u64)entry;
	g->mid = (u64)entry >> 16;
	g->hi = (u64)entry >> 32;
	barrier();
	fn();
	*g = saved;
}

static volatile u64 db_debugctl, db_count;

static void on_db(struct regs *r)
{
	db_debugctl = rdmsr(MSR_DEBUGCTL);
	db_count++;
	asm volatile("mov %0, %%dr7" : : "r"(0x400UL));
}

static void test_records(void)
{
	u64 val;

	section("APM2 13.1", "With DebugCtl[LBR] the source and target of the last branch that was taken are recorded.");
	check(rdmsr_safe(MSR_DEBUGCTL, &val) == NO_EXCEPTION && !val, "DebugCtl is 0 after reset");
	wrmsr(MSR_DEBUGCTL, 1);
	val = rdmsr(MSR_DEBUGCTL);
	wrmsr(MSR_DEBUGCTL, 0);
	check_eq(val, 1, "DebugCtl[LBR] is kept");
	for (unsigned int i = 0; i < ARRAY_SIZE(branches); i++) {
		branches[i].fn();
		recorded(branches[i].from, branches[i].to, branches[i].name);
	}

	section("APM2 13.1", "An exception is a control transfer; the branch before it is in LastExceptionFrom and To.");
	with_entry(UD, ud_to, ud);
	recorded(ud_from, ud_to, "#UD");
	check(rdmsr(MSR_INT_TO) == (u64)ud_from && rdmsr(MSR_INT_FROM) == (u64)ud_from - 3,
	      "the branch before it: from 0x%lx to 0x%lx", rdmsr(MSR_INT_FROM), rdmsr(MSR_INT_TO));
	with_entry(PF, pf_entry, fault);
	recorded((void *)0x8000000000, pf_entry, "#PF at the target of RET");
	check(rdmsr(MSR_INT_TO) == 0x8000000000 && rdmsr(MSR_INT_FROM) == (u64)fault_resume - 1,
	      "which was taken: from 0x%lx to 0x%lx", rdmsr(MSR_INT_FROM), rdmsr(MSR_INT_TO));
	val = rdmsr(MSR_INT_FROM);

	section("APM2 13.1", "#DB clears DebugCtl[LBR] and leaves the records alone.");
	set_handler(DB, on_db);
	asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(debug_at), "r"(0x402UL));
	debug();
	check_eq(db_count, 1, "a breakpoint behind a branch");
	check_eq(db_debugctl, 0, "DebugCtl in its handler");
	recorded(debug_from, debug_to, "the branch before the breakpoint");
	check_eq(rdmsr(MSR_INT_FROM), val, "LastExceptionFrom");
}

asm("g_jmp: g_jmp_from: jmp g_jmp_to; nop; g_jmp_to: vmmcall\n"
    "g_on: " ON "g_on_from: jmp g_on_to; nop; g_on_to: vmmcall\n");
void g_jmp(void);
void g_on(void);
extern char g_jmp_from[], g_jmp_to[], g_on_from[], g_on_to[];

static u64 g_seen[5];
static void g_read(void)
{
	for (int i = 0; i < 5; i++)
		g_seen[i] = rdmsr(MSR_DEBUGCTL + (i ? i + 1 : 0));
	vmmcall(0);
}

static void start(void (*fn)(void), u64 lbr_ctl, u64 dbgctl)
{
	svm_set_up(&v, fn);
	v.vmcb->lbr_ctl = lbr_ctl;
	v.vmcb->dbgctl = dbgctl;
	v.vmcb->br_from = 0x1111;
	v.vmcb->br_to = 0x2222;
	v.vmcb->last_excp_from = 0x3333;
	v.vmcb->last_excp_to = 0x4444;
}

static void test_virtualization(void)
{
	u64 host;

	section("APM2 15.23", "With LBR virtualization VMRUN loads the guest's records, and #VMEXIT saves them; the host keeps its own.");
	jmp();
	start(g_read, 1, 0);
	check_eq(svm_run(&v), EXIT_VMMCALL, "a guest reads its MSRs");
	check(g_seen[0] == 0 && g_seen[1] == 0x1111 && g_seen[2] == 0x2222 && g_seen[3] == 0x3333 &&
	      g_seen[4] == 0x4444, "they are the VMCB's: 0x%lx 0x%lx 0x%lx 0x%lx 0x%lx",
	      g_seen[0], g_seen[1], g_seen[2], g_seen[3], g_seen[4]);
	check(v.vmcb->br_from == 0x1111 && v.vmcb->last_excp_to == 0x4444, "and stay there");
	recorded(jmp_from, jmp_to, "the host's");

	start(g_jmp, 1, 1);
	check_eq(svm_run(&v), EXIT_VMMCALL, "a guest with DebugCtl[LBR]");
	check(v.vmcb->br_from == (u64)g_jmp_from && v.vmcb->br_to == (u64)g_jmp_to,
	      "its branch: from 0x%lx to 0x%lx", v.vmcb->br_from, v.vmcb->br_to);
	check_eq(v.vmcb->dbgctl, 1, "its DebugCtl");
	check_eq(rdmsr(MSR_DEBUGCTL), 0, "not the host's");
	recorded(jmp_from, jmp_to, "nor are the host's records");

	start(g_on, 1, 0);
	check_eq(svm_run(&v), EXIT_VMMCALL, "a guest that sets it by itself");
	check(v.vmcb->br_from == (u64)g_on_from && v.vmcb->br_to == (u64)g_on_to && v.vmcb->dbgctl == 1,
	      "DebugCtl 0x%lx, from 0x%lx to 0x%lx", v.vmcb->dbgctl, v.vmcb->br_from, v.vmcb->br_to);

	start(g_read, 1, 0);
	wrmsr(MSR_DEBUGCTL, 1);
	svm_run(&v);
	host = rdmsr(MSR_DEBUGCTL);
	wrmsr(MSR_DEBUGCTL, 0);
	check(host == 1 && g_seen[0] == 0, "the host's DebugCtl[LBR] is not the guest's, and comes back");
	check_eq(v.vmcb->br_from, 0x1111, "the guest's branches are not recorded then");

	section("APM2 15.23", "Without it nothing is swapped.");
	jmp();
	start(g_read, 0, 1);
	check_eq(svm_run(&v), EXIT_VMMCALL, "a guest reads its MSRs");
	check(g_seen[0] == 0 && g_seen[1] == (u64)jmp_from, "they are the host's");
	start(g_on, 0, 0);
	svm_run(&v);
	host = rdmsr(MSR_DEBUGCTL);
	wrmsr(MSR_DEBUGCTL, 0);
	check_eq(host, 1, "what the guest has set is set in the host");
	check(v.vmcb->dbgctl == 0 && v.vmcb->br_from == 0x1111, "the VMCB is as it was");

	section("APM2 15.23", "VMRUN that fails leaves the host's records alone.");
	jmp();
	start(g_jmp, 1, 1);
	v.vmcb->efer = 0;
	check_eq(svm_run(&v), EXIT_INVALID, "EFER.SVME clear");
	check_eq(rdmsr(MSR_DEBUGCTL), 0, "DebugCtl");
	recorded(jmp_from, jmp_to, "the records");
}

void test_main(void)
{
	u32 a, b, c, d;

	cpuid(0x8000000a, 0, &a, &b, &c, &d);
	section("APM2 15.23", "CPUID reports LBR virtualization.");
	check(d & BIT(1), "CPUID has LBRV");
	test_records();
	svm_init();
	test_virtualization();
}
