/*
 * World switch of SEV-ES and SNP guests (APM vol. 2, 15.34.3, 15.35, 15.36):
 * checks of VMRUN, swap types, automatic exits, #VC, MSRs, event injection
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define MSR_GHCB		0xc0010130
#define MSR_GUEST_TSC_FREQ	0xc0010134
#define MSR_PAT			0x277

#define EXIT_SMI		0x62
#define EXIT_CR0_TRAP		0x90
#define EXIT_CR4_TRAP		0x94
#define EXIT_CR8_TRAP		0x98

#define VMSA_CPL		0x0cb
#define VMSA_VMPL		0x0ca
#define VMSA_EFER		0x0d0
#define VMSA_RSP		0x1d8
#define VMSA_CR0		0x158
#define VMSA_XCR0_		0x3e8
#define VMSA_TSC_SCALE		0x2f0
#define VMSA_TSC_OFFSET		0x2f8
#define VMSA_TLB_ID		0x3d0
#define VMSA_PCPU_ID		0x3d8
#define DEBUG_VIRT		BIT(5)
#define SECURE_TSC		BIT(9)
#define VMGEXIT_PARAM		BIT(10)

#define TSC_OFFSET		0x123456789000UL
/* 8.32 fixed point, of a clock of 99.8 MHz; the machine's own TSC has 1 GHz */
#define HALF_TSC_SCALE		((500000UL << 32) / 99800)

/* VMSAs whose RMP entries are wrong, each in a 2M of its own */
#define BAD_VMSA(n)		(0x24000000UL + (n) * REGION)

#define EXIT_DB			0x41
#define VECTOR			0x41

#define RFLAGS_TF		BIT(8)
#define CR0_TS			BIT(3)
#define CR4_PCE			BIT(8)
#define EFER_NXE		BIT(11)

/* ---- The guest ------------------------------------------------------------- */

static volatile u64 vc_count, vc_code, vc_rip, vc_expect_rip, vc_resume;
static volatile u64 events, event_rip, event_error;

static void on_vc(struct regs *r)
{
	vc_count++;
	/* IRET: the host takes the intercept away, and it is done again. */
	if (r->error_code == EXIT_IRET) {
		shared->result[20]++;
		vmgexit();
		return;
	}
	vc_code = r->error_code;
	vc_rip = r->rip;
	r->rip = vc_resume;
	r->rflags &= ~RFLAGS_TF;
}

static void on_event(struct regs *r)
{
	events++;
	event_rip = r->rip;
	event_error = r->error_code;
}

static void on_unexpected(struct regs *r)
{
	shared->result[510] = r->vector;
	shared->result[511] = r->rip;
	for (;;)
		vmgexit();
}

/* Run @insn; its #VC goes on behind it. */
#define TRY_VC(insn, ...)						\
	do {								\
		vc_count = 0;						\
		vc_code = ~0ULL;					\
		asm volatile("lea 1f(%%rip), %%r11\n"			\
			     "mov %%r11, vc_expect_rip(%%rip)\n"	\
			     "lea 2f(%%rip), %%r11\n"			\
			     "mov %%r11, vc_resume(%%rip)\n"		\
			     "1:	" insn "\n"			\
			     "2:\n" __VA_ARGS__);			\
	} while (0)

/*
 * One instruction each, RAX = RBX = RDX = 0 and RCX as given. What need not be
 * intercepted by the VMCB (15.36.9, 15.36.12) has no intercept.
 */
#define NAES								\
	NAE(cpuid, "cpuid", 0, 0x72, false)				\
	NAE(in, "inb $0x80, %%al", 0, EXIT_IO, false)			\
	NAE(out, "outb %%al, $0x80", 0, EXIT_IO, false)			\
	NAE(vmload, "vmload %%rax", 0, 0x82, false)			\
	NAE(vmsave, "vmsave %%rax", 0, 0x83, false)			\
	NAE(rdtsc, "rdtsc", 0, 0x6e, true)				\
	NAE(rdmsr, "rdmsr", MSR_LSTAR, EXIT_MSR, true)			\
	NAE(wrmsr, "wrmsr", MSR_LSTAR, EXIT_MSR, true)			\
	NAE(vmmcall, "vmmcall", 0, EXIT_VMMCALL, true)			\
	NAE(wbinvd, "wbinvd", 0, 0x89, true)				\
	NAE(invd, "invd", 0, 0x76, true)				\
	NAE(rdpmc, "rdpmc", 0, 0x6f, true)				\
	NAE(rdtscp, "rdtscp", 0, 0x87, true)				\
	NAE(xsetbv, "xsetbv", 0, 0x8d, true)				\
	NAE(invlpg, "invlpg (%%rax)", 0, 0x79, true)			\
	NAE(invlpga, "invlpga %%rax, %%ecx", 0, 0x7a, true)		\
	NAE(vmrun, "vmrun %%rax", 0, EXIT_VMRUN, true)			\
	NAE(stgi, "stgi", 0, 0x84, true)				\
	NAE(clgi, "clgi", 0, 0x85, true)				\
	NAE(skinit, "skinit %%eax", 0, 0x86, true)			\
	NAE(sidt, "sidt table(%%rip)", 0, 0x66, true)			\
	NAE(sgdt, "sgdt table(%%rip)", 0, 0x67, true)			\
	NAE(sldt, "sldt %%eax", 0, 0x68, true)				\
	NAE(str, "str %%eax", 0, 0x69, true)				\
	NAE(lidt, "lidt table(%%rip)", 0, 0x6a, true)			\
	NAE(lgdt, "lgdt table(%%rip)", 0, 0x6b, true)			\
	NAE(lldt, "lldt %%ax", 0, 0x6c, true)				\
	NAE(ltr, "ltr %%ax", 0, 0x6d, true)				\
	NAE(pushf, "pushf", 0, 0x70, true)				\
	NAE(popf, "popf", 0, 0x71, true)				\
	NAE(int_n, "int $0x77", 0, 0x75, true)				\
	NAE(icebp, ".byte 0xf1", 0, 0x88, true)				\
	NAE(read_cr0, "mov %%cr0, %%rax", 0, 0x00, true)		\
	NAE(read_cr2, "mov %%cr2, %%rax", 0, 0x02, true)		\
	NAE(read_cr3, "mov %%cr3, %%rax", 0, 0x03, true)		\
	NAE(read_cr4, "mov %%cr4, %%rax", 0, 0x04, true)		\
	NAE(read_cr8, "mov %%cr8, %%rax", 0, 0x08, true)		\
	NAE(smsw, "smsw %%eax", 0, 0x00, true)				\
	NAE(write_cr0, "mov %%rax, %%cr0", 0, 0x10, true)		\
	NAE(clts, "clts", 0, 0x10, true)				\
	NAE(lmsw, "lmsw %%ax", 0, 0x10, true)				\
	/* Zero in CR0, which changes more than TS and MP */		\
	NAE(write_cr0_selective, "mov %%rax, %%cr0", 0, 0x65, true)	\
	NAE(lmsw_selective, "lmsw %%ax", 0, 0x65, true)			\
	NAE(write_cr2, "mov %%rax, %%cr2", 0, 0x12, true)		\
	NAE(write_cr3, "mov %%rax, %%cr3", 0, 0x13, true)		\
	NAE(write_cr4, "mov %%rax, %%cr4", 0, 0x14, true)		\
	NAE(write_cr8, "mov %%rax, %%cr8", 0, 0x18, true)		\
	NAE(read_dr0, "mov %%dr0, %%rax", 0, 0x20, true)		\
	NAE(read_dr6, "mov %%dr6, %%rax", 0, 0x26, true)		\
	NAE(read_dr7, "mov %%dr7, %%rax", 0, 0x27, true)		\
	NAE(write_dr0, "mov %%rax, %%dr0", 0, 0x30, true)		\
	NAE(write_dr7, "mov %%rax, %%dr7", 0, 0x37, true)		\
	NAE(de, "div %%ecx", 0, 0x40, true)				\
	NAE(bp, "int3", 0, 0x43, true)					\
	NAE(ud, "ud2", 0, 0x46, true)					\
	NAE(gp, "mov (%%rcx), %%rax", BIT(63), 0x4d, true)		\
	NAE(pf, "mov (%%rcx), %%rax", BIT(40), 0x4e, true)

static u8 table[16] __attribute__((used));

/* DR7: breakpoint 0 on, for instructions or for writes of 8 bytes */
#define DR7_EXECUTE		0x402ULL
#define DR7_WRITE		0x90402ULL

static volatile u64 watched;
static volatile u32 debug_traps;

static void on_db(struct regs *r)
{
	debug_traps++;
	r->rflags &= ~RFLAGS_TF;
	asm volatile("mov %0, %%dr7" : : "r"(0x400ULL));
}

/* Debug exceptions, each behind or (instruction breakpoint) at its NOP: as result[1..3] for nae() */
static void g_debug(u64 kind)
{
	u64 address = (u64)&watched, dr7 = DR7_WRITE;

	debug_traps = 0;
	if (kind == 0) {
		TRY_VC("pushfq; orq $0x100, (%%rsp); popfq; nop", : : : "r11", "memory", "cc");
		vc_expect_rip = vc_resume;
	} else if (kind == 1) {
		dr7 = DR7_EXECUTE;
		TRY_VC("lea 3f(%%rip), %%r11; mov %%r11, vc_expect_rip(%%rip); mov %%r11, %%dr0; mov %0, %%dr7; 3: nop",
		       : : "r"(dr7) : "r11", "memory");
	} else {
		TRY_VC("mov %0, %%dr0; mov %1, %%dr7; mov %0, watched(%%rip)", : : "r"(address), "r"(dr7) : "r11", "memory");
		vc_expect_rip = vc_resume;
	}
	asm volatile("mov %0, %%dr7" : : "r"(0x400ULL));
	shared->result[0] = vc_count;
	shared->result[1] = vc_code;
	shared->result[2] = vc_rip - vc_expect_rip;
	shared->result[3] = debug_traps;
}

#define NAE(name, insn, rcx, code, intercept)				\
	static void nae_##name(u64 arg)					\
	{								\
		u64 a = 0, c = rcx, d = 0, b = 0;			\
		TRY_VC(insn, : "+a"(a), "+c"(c), "+d"(d), "+b"(b)	\
		       : : "r11", "memory", "cc");			\
		shared->result[0] = vc_count;				\
		shared->result[1] = vc_code;				\
		shared->result[2] = vc_rip - vc_expect_rip;		\
	}
NAES
#undef NAE

static const struct {
	void (*fn)(u64);
	u32 code;
	bool intercept;
	const char *name;
} naes[] = {
#define NAE(name, insn, rcx, code, intercept) { nae_##name, code, intercept, #name },
NAES
};

static void g_start(u64 arg)
{
	unexpected_handler = on_unexpected;
	shared->result[0] = rdmsr(MSR_SEV_STATUS);
	shared->result[1] = rdmsr(MSR_GHCB);
	shared->result[2] = wrmsr_safe(MSR_SEV_STATUS, 0);
	shared->result[3] = wrmsr_safe(MSR_GUEST_TSC_FREQ, 0);
	shared->result[4] = READ_CR(2);
	wrmsr(MSR_GHCB, arg);
	wrmsr(MSR_LSTAR, 0x1234567000);
	wrmsr(MSR_PAT, 0x0606060606060606);
	asm volatile("mov %0, %%cr2; mov %0, %%dr6" : : "r"(0xabc000ULL));
}

static void g_msrs(u64 arg)
{
	TRY_VC("rdmsr", : : "c"(MSR_SEV_STATUS) : "rax", "rdx", "r11", "memory");
	shared->result[0] = vc_count;
	TRY_VC("rdmsr", : : "c"(MSR_GHCB) : "rax", "rdx", "r11", "memory");
	shared->result[0] += vc_count;
}

/* All that was loaded before is still there after an exit. */
static void g_again(u64 arg)
{
	shared->result[0] = rdmsr(MSR_GHCB);
	shared->result[1] = rdmsr(MSR_LSTAR);
	shared->result[2] = rdmsr(MSR_PAT);
	shared->result[3] = READ_CR(2);
}

asm("	.globl g_registers\n"
    "g_registers:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	mov $1, %rbx; mov $2, %rbp; mov $3, %r12; mov $4, %r13; mov $5, %r14\n"
    "	mov $6, %r15; mov $7, %rcx; mov $8, %rdx; mov $9, %rsi; mov $10, %rdi\n"
    "	mov $11, %r8; mov $12, %r9; mov $13, %r10; mov $14, %r11; mov $15, %rax\n"
    "	rep; vmmcall\n"
    "	cmp $1, %rbx; jne 1f; cmp $2, %rbp; jne 1f; cmp $3, %r12; jne 1f\n"
    "	cmp $4, %r13; jne 1f; cmp $5, %r14; jne 1f; cmp $6, %r15; jne 1f\n"
    "	cmp $7, %rcx; jne 1f; cmp $8, %rdx; jne 1f; cmp $9, %rsi; jne 1f\n"
    "	cmp $10, %rdi; jne 1f; cmp $11, %r8; jne 1f; cmp $12, %r9; jne 1f\n"
    "	cmp $13, %r10; jne 1f; cmp $14, %r11; jne 1f; cmp $15, %rax; jne 1f\n"
    "	mov $1, %ecx; jmp 2f\n"
    "1:	mov $0, %ecx\n"
    "2:	mov %rcx, registers_ok(%rip)\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n");
void g_registers(u64 arg);
volatile u64 registers_ok;

static void g_registers_ok(u64 arg)
{
	shared->result[0] = registers_ok;
}

static void g_fpu_set(u64 arg)
{
	u16 cw = 0x127f;

	asm volatile("fninit; fldcw %0; fldpi; fld1" : : "m"(cw));
}

static void g_fpu_get(u64 arg)
{
	u16 cw;
	u64 one, pi;

	asm volatile("fnstcw %0; fstpl %1; fstpl %2" : "=m"(cw), "=m"(one), "=m"(pi));
	shared->result[0] = cw;
	shared->result[1] = one;
	shared->result[2] = pi;
}

/* Each leaves by the exit that it is called after, and then comes back. */
static void g_hlt(u64 arg)
{
	asm volatile("hlt");
	shared->result[0] = 1;
}

static void g_pause(u64 arg)
{
	asm volatile("pause");
	shared->result[0] = 1;
}

static void g_cr0(u64 arg)
{
	WRITE_CR(0, READ_CR(0) ^ CR0_TS);
	shared->result[0] = READ_CR(0);
}

static void g_clts(u64 arg)
{
	asm volatile("clts");
	shared->result[0] = READ_CR(0);
}

static void g_cr4(u64 arg)
{
	WRITE_CR(4, READ_CR(4) ^ CR4_PCE);
	shared->result[0] = READ_CR(4);
}

static void g_cr8(u64 arg)
{
	WRITE_CR(8, 5);
	shared->result[0] = READ_CR(8);
}

/* With SVME cleared, which has no effect */
static void g_efer(u64 arg)
{
	wrmsr(MSR_EFER, (rdmsr(MSR_EFER) ^ EFER_NXE) & ~EFER_SVME);
	shared->result[0] = rdmsr(MSR_EFER);
}

static void g_reserved(u64 arg)
{
	EX_BEGIN();
	asm volatile(EX("mov %0, %%cr4") : : "r"(BIT(63)));
	shared->result[0] = ex_vector;
	EX_BEGIN();
	asm volatile(EX("mov %0, %%cr3") : : "r"(READ_CR(3) | BIT(52)));
	shared->result[1] = ex_vector;
}

static void g_events(u64 arg)
{
	shared->result[0] = events;
	shared->result[1] = event_error;
	events = 0;
}

static void g_sti(u64 arg)
{
	asm volatile("sti");
	vmgexit();
	asm volatile("cli");
}

static void g_dr0(u64 val)
{
	u64 seen;

	asm volatile("mov %%dr0, %0; mov %1, %%dr0" : "=&r"(seen) : "r"(val));
	shared->result[0] = seen;
}

static void on_nmi(struct regs *r)
{
	shared->result[21]++;
}

static void g_nmi(u64 arg)
{
	asm volatile("nop");
}

static void g_window(u64 arg)
{
	asm volatile("sti; nop; nop; cli");
}

static void g_pcpu_id(u64 arg)
{
	shared->result[0] = *vmsa_field(guest_vmsa(), VMSA_PCPU_ID);
	shared->result[1] = *vmsa_field(guest_vmsa(), VMSA_TLB_ID);
}

static void g_exit_int_info(u64 arg)
{
	shared->result[0] = *vmsa_field(guest_vmsa(), VMSA_EXIT_INT_INFO);
}

/* Anything of the guest's, another vCPU's VMSA included */
static void g_peek(u64 addr)
{
	shared->result[0] = *(volatile u64 *)addr;
}

static void g_tsc(u64 arg)
{
	shared->result[0] = rdtsc();
	shared->result[2] = rdmsr_safe(MSR_GUEST_TSC_FREQ, (u64 *)&shared->result[1]);
	shared->result[3] = wrmsr_safe(MSR_GUEST_TSC_FREQ, 1);
}

static void g_touch(u64 addr)
{
	*(volatile u8 *)addr = 1;
}

static void g_param(u64 arg)
{
	asm volatile("rep; vmmcall" : : "a"(arg) : "memory");
}

static void g_shutdown(u64 arg)
{
	asm volatile("ud2");
}

/* An x2APIC register, which the permission map leaves to the guest */
static void g_x2apic(u64 arg)
{
	TRY_VC("rdmsr", : : "c"(0x808) : "rax", "rdx", "r11", "memory");
	shared->result[0] = vc_count;
	shared->result[1] = vc_code;
}

static void g_reflect(u64 arg)
{
	asm volatile("cpuid" : : "a"(0), "c"(0) : "rbx", "rdx");
}

/* ---- The host -------------------------------------------------------------- */

/* Plain; and one for each way in which a VMSA can be wrong */
static struct snp_vcpu v, reflect, debug, param, shut_down, alternate, secure_tsc, interrupted, reflect_busy;
static struct {
	struct snp_vcpu v;
	unsigned int offset;
	u64 clear, set;
	u64 exit_code;
	const char *name;
} bad[] = {
	{ .offset = VMSA_EFER, .clear = EFER_SVME, .exit_code = EXIT_INVALID,
	  .name = "EFER.SVME clear" },
	{ .offset = VMSA_CR0, .set = BIT(32), .exit_code = EXIT_INVALID,
	  .name = "high bits of CR0" },
	{ .offset = VMSA_XCR0_, .clear = 1, .exit_code = EXIT_INVALID,
	  .name = "XCR0 without x87" },
	{ .offset = VMSA_SEV_FEATURES, .set = BIT(40), .exit_code = EXIT_INVALID,
	  .name = "an unknown SEV feature" },
	{ .offset = VMSA_VMPL & ~7u, .set = 4ULL << 8 * (VMSA_VMPL & 7),
	  .exit_code = EXIT_INVALID, .name = "VMPL 4" },
	{ .offset = VMSA_VINTR_CTRL, .set = BIT(63), .exit_code = EXIT_BUSY,
	  .name = "BUSY" },
};

/* VMRUN with something wrong in the VMCB */
#define INVALID(change, what)						\
	do {								\
		struct vmcb saved = *v.vmcb;				\
		change;							\
		check_eq(snp_run(&v), EXIT_INVALID, what);		\
		*v.vmcb = saved;					\
	} while (0)

static const struct {
	u64 rmp;
	u64 exit_code;
	const char *name;
} vmsa_pages[] = {
	{ 0, EXIT_INVALID, "hypervisor-owned" },
	{ RMP_ASSIGNED | RMP_VMSA | RMP_IMMUTABLE, EXIT_INVALID, "firmware's" },
	{ RMP_ASSIGNED | RMP_VMSA | RMP_VALIDATED | RMP_ASID(GUEST_ASID + 1), EXIT_INVALID,
	  "another guest's" },
	{ RMP_ASSIGNED | RMP_VMSA | RMP_VALIDATED | RMP_IMMUTABLE | RMP_ASID(GUEST_ASID),
	  EXIT_INVALID, "immutable" },
	{ RMP_ASSIGNED | RMP_VALIDATED | RMP_ASID(GUEST_ASID), EXIT_INVALID, "VMSA=0" },
	{ RMP_ASSIGNED | RMP_2M | RMP_VMSA | RMP_VALIDATED | RMP_ASID(GUEST_ASID), EXIT_INVALID,
	  "2M" },
	{ RMP_ASSIGNED | RMP_VMSA | RMP_VALIDATED | RMP_ASID(GUEST_ASID), EXIT_VMGEXIT,
	  "as it should be" },
};

/* Before SNP is on: copies of @v's VMSA */
static void set_up_vmsa_pages(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(vmsa_pages); i++) {
		u64 page = BAD_VMSA(i);

		memcpy((void *)page, (void *)v.vmsa, PAGE_SIZE);
		rmp_quads(page)[0] = vmsa_pages[i].rmp | page;
		if (!vmsa_pages[i].rmp)
			rmp_quads(page)[0] = 0;
	}
}

static void test_vmsa_pages(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(vmsa_pages); i++) {
		struct vmcb saved = *v.vmcb;

		v.vmcb->vmsa = BAD_VMSA(i);
		check_eq(snp_run(&v), vmsa_pages[i].exit_code, vmsa_pages[i].name);
		*v.vmcb = saved;
	}
	INVALID(v.vmcb->vmsa = rmp_pages() * PAGE_SIZE, "page that the RMP does not cover");
}

static u8 *hsave(void)
{
	return (u8 *)rdmsr(MSR_VM_HSAVE_PA) + 0x400;
}

static u32 vmrun_safe(u64 vmcb)
{
	EX_BEGIN();
	asm volatile("clgi\n" EX("vmrun %%rax") "stgi" : : "a"(vmcb)
		     : "memory", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9",
		       "r10", "r11", "r12", "r13", "r14", "r15");
	return ex_vector;
}

static void sev_guest(void)
{
	vmmcall(0);
}

/* A guest with SEV alone, in the VMCB of another that is as it should be */
static void test_sev_asid(u32 min_sev)
{
	struct vcpu sev;

	section("APM2 15.35.2", "A guest with SEV, but not SEV-ES, may only have the ASIDs from Fn8000_001F EDX on.");
	for (int i = 0; i < 2; i++) {
		svm_set_up(&sev, sev_guest);
		sev.vmcb->nested_ctl = 3;
		sev.vmcb->nested_cr3 = v.vmcb->nested_cr3;
		sev.vmcb->asid = min_sev - i;
		svm_run(&sev);
		check((sev.vmcb->exit_code == EXIT_INVALID) == i, "ASID %u: exit 0x%lx",
		      min_sev - i, sev.vmcb->exit_code);
	}
}

static void test_vmrun(void)
{
	u64 page = rdmsr(MSR_VM_HSAVE_PA);
	u32 a, b, max_asid, min_sev;

	cpuid(0x8000001f, 0, &a, &b, &max_asid, &min_sev);
	section("APM2 15.34.3", "VMRUN with inconsistent SEV controls, or an ASID that is not for it, is VMEXIT_INVALID.");
	INVALID(v.vmcb->nested_ctl = 6, "SEV without nested paging");
	INVALID(v.vmcb->nested_ctl = 5, "SEV-ES without SEV");
	INVALID(v.vmcb->lbr_ctl = 0, "SEV-ES without LBR virtualization");
	INVALID(v.vmcb->asid = 0, "ASID 0");
	INVALID(v.vmcb->asid = max_asid + 1, "ASID above the highest");
	INVALID(v.vmcb->asid = 2, "another guest's ASID");
	section("APM2 15.36.12", "The VMSA has to be a VMSA page of the guest: covered, its ASID, VMSA=1, mutable.");
	INVALID(v.vmcb->vmsa += 8, "misaligned VMSA");
	INVALID(v.vmcb->vmsa |= BIT(51), "VMSA beyond physical memory");
	INVALID(v.vmcb->vmsa = IMAGE_COPY, "VMSA in a page that is none");
	test_vmsa_pages();
	section("APM2 15.36.20", "A SEV feature that the mask lacks, once it is enabled, is VMEXIT_INVALID.");
	INVALID(v.vmcb->allowed_sev_features = ALLOWED_ENABLE,
		"SEV feature that is not allowed");
	test_sev_asid(min_sev);
	section("APM2 15.5.1", "VMRUN with illegal controls is VMEXIT_INVALID.");
	INVALID(svm_intercept(v.vmcb, EXIT_VMRUN, false), "VMRUN not intercepted");
	INVALID(v.vmcb->event_inj = EVENT_VALID | 1 << 8 | VECTOR, "EVENTINJ type 1");
	INVALID(v.vmcb->event_inj = EVENT_VALID | 5 << 8 | VECTOR, "EVENTINJ type 5");
	INVALID(v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | 32, "EVENTINJ of exception 32");
	INVALID(v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | 2, "EVENTINJ of exception 2");

	section("APM2 15.35.8", "An error in loading guest state is VMEXIT_INVALID, BUSY is VMEXIT_BUSY.");
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		check_eq(snp_run(&bad[i].v), bad[i].exit_code, bad[i].name);

	section("APM2 15.36.12", "VMCB, VM_HSAVE_PA and the target of VMSAVE have to be the hypervisor's, else #GP(0).");
	check_eq(vmrun_safe(VMSAS), GP, "#GP: VMCB in a guest's page");
	check_eq(vmrun_safe(BAD_VMSA(1)), GP, "#GP: VMCB in firmware's page");
	check_eq(vmrun_safe(SHARED + 8), GP, "#GP: misaligned VMCB");
	check_eq(vmrun_safe(BIT(45)), GP, "#GP: VMCB beyond physical memory");
	check_eq(wrmsr_safe(MSR_VM_HSAVE_PA, VMSAS), GP,
		 "#GP: VM_HSAVE_PA in a guest's page");
	wrmsr(MSR_VM_HSAVE_PA, 0);
	check_eq(vmrun_safe((u64)v.vmcb), GP, "#GP: VM_HSAVE_PA of 0");
	wrmsr(MSR_VM_HSAVE_PA, page);
	EX_BEGIN();
	asm volatile(EX("vmsave %%rax") : : "a"(VMSAS) : "memory");
	check_eq(ex_vector, GP, "#GP: VMSAVE to a guest's page");
}

static void test_state(void)
{
	u64 dr6, dr7, msr;
	u16 cw;

	section("APM2 15.35.7", "The GHCB MSR is loaded from and saved to VMCB 0A0h; it does not exist in the host.");
	check_eq(rdmsr_safe(MSR_GHCB, &msr), GP, "GHCB MSR is #GP in the host");
	check_eq(rdmsr_safe(MSR_GUEST_TSC_FREQ, &msr), GP,
		 "GUEST_TSC_FREQ is #GP in the host");

	section("APM2 B-3", "State is saved, loaded and reset by swap type.");
	v.vmcb->ghcb = 0x7654000;
	asm volatile("mov %0, %%cr2; mov %0, %%dr6; mov %1, %%dr7; fninit"
		     : : "r"(0x1000ULL), "r"(0x700ULL));
	check(snp_call(&v, g_start, 0x30303000), "a guest runs");
	asm volatile("mov %%dr6, %0; mov %%dr7, %1; fnstcw %2"
		     : "=r"(dr6), "=r"(dr7), "=m"(cw));
	check_eq(READ_CR(2), 0, "type C: CR2 is reset");
	check_eq(dr6, 0xffff0ff0, "type C: DR6 is reset");
	check_eq(dr7, 0x400, "type C: DR7 is reset");
	check_eq(cw, 0x40, "type C: the x87 control word is reset");
	check_eq(rdmsr(MSR_LSTAR), *(u64 *)(hsave() + 0x208),
		 "type B: LSTAR comes from the host save area");
	check_eq(shared->result[0], 7, "SEV_STATUS: SEV, SEV-ES, SNP");
	check_eq(shared->result[1], 0x7654000, "GHCB MSR is VMCB 0A0h");
	check_eq(shared->result[2], GP, "SEV_STATUS is read-only");
	check_eq(shared->result[3], GP, "no GUEST_TSC_FREQ without Secure TSC");
	check_eq(shared->result[4], 0, "the guest does not see the host's CR2");
	check_eq(v.vmcb->ghcb, 0x30303000, "VMCB 0A0h is the GHCB MSR");
	check_eq(v.vmcb->guest_sev_features, SNP_ACTIVE, "VMCB 140h GUEST_SEV_FEATURES");
	check(rdmsr(MSR_PAT) != 0x0606060606060606, "the guest's PAT is its own");

	check(snp_call(&v, g_again, 0), "it goes on");
	check_eq(shared->result[0], 0x30303000, "GHCB MSR");
	check_eq(shared->result[1], 0x1234567000, "LSTAR");
	check_eq(shared->result[2], 0x0606060606060606, "PAT");
	check_eq(shared->result[3], 0xabc000, "CR2");

	shared->fn[0] = g_registers;
	check_eq(snp_run(&v), EXIT_VMGEXIT, "with known registers");
	check_eq(snp_run(&v), EXIT_VMGEXIT, "back in there");
	check(snp_call(&v, g_registers_ok, 0) && shared->result[0],
	      "general registers are kept");

	snp_call(&v, g_fpu_set, 0);
	asm volatile("fninit");
	snp_call(&v, g_fpu_get, 0);
	check_eq(shared->result[0], 0x127f, "x87 control word is kept");
	check_eq(shared->result[1], 0x3ff0000000000000, "ST(0) is kept");
	check_eq(shared->result[2], 0x400921fb54442d18, "ST(1) is kept");

	section("APM2 B-1", "GUEST_INTERRUPT_MASK tells RFLAGS.IF of a SEV-ES guest.");
	snp_call(&v, g_sti, 0);
	check(v.vmcb->int_state & 2, "GUEST_INTERRUPT_MASK is RFLAGS.IF: set");
	snp_run(&v);
	check(!(v.vmcb->int_state & 2), "GUEST_INTERRUPT_MASK is RFLAGS.IF: clear");
}

/* By exit code, of any of the six words */
static void intercept(u32 code, bool on)
{
	u32 *word = &v.vmcb->intercept[code / 32];

	*word = on ? *word | 1u << code % 32 : *word & ~(1u << code % 32);
}

static void test_nae(void)
{
	static u8 msrpm[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
	u64 saved = v.vmcb->msrpm;

	section("APM2 15.35.5", "An intercepted instruction that is no automatic exit is #VC, with the exit code as its error code.");
	memset(msrpm, 0xff, sizeof(msrpm));
	v.vmcb->msrpm = (u64)msrpm;
	for (unsigned int i = 0; i < ARRAY_SIZE(naes); i++) {
		bool ran;

		if (naes[i].intercept)
			intercept(naes[i].code, true);
		ran = snp_call(&v, naes[i].fn, 0);
		check(ran && shared->result[0] == 1 && shared->result[1] == naes[i].code &&
		      !shared->result[2],
		      "%s%s: exit 0x%lx #VC %lu times, code 0x%lx, RIP off by %ld", naes[i].name,
		      naes[i].intercept ? "" : " (not intercepted by the VMCB)",
		      v.vmcb->exit_code, shared->result[0], shared->result[1],
		      shared->result[2]);
		if (naes[i].intercept)
			intercept(naes[i].code, naes[i].code == EXIT_VMRUN ||
						naes[i].code == EXIT_VMMCALL);
	}

	for (u64 kind = 0; kind < 3; kind++) {
		static const char *const names[] = { "single step", "instruction breakpoint", "write breakpoint" };
		bool ran;

		intercept(EXIT_DB, true);
		ran = snp_call(&v, g_debug, kind);
		check(ran && shared->result[0] == 1 && shared->result[1] == EXIT_DB && !shared->result[2] && !shared->result[3],
		      "#DB, %s: exit 0x%lx #VC %lu times, code 0x%lx, RIP off by %ld", names[kind],
		      v.vmcb->exit_code, shared->result[0], shared->result[1], shared->result[2]);
		intercept(EXIT_DB, false);
		ran = snp_call(&v, g_debug, kind);
		check(ran && !shared->result[0] && shared->result[3] == 1, "%s, not intercepted: #DB", names[kind]);
	}

	svm_intercept(v.vmcb, EXIT_MSR, true);
	/* These MSRs are the guest's, whatever the map says. */
	check(snp_call(&v, g_msrs, 0) && !shared->result[0],
	      "SEV_STATUS and the GHCB MSR cannot be intercepted");
	svm_intercept(v.vmcb, EXIT_MSR, false);
	v.vmcb->msrpm = saved;
}

/* @fn exits with @code, EXITINFO1 @info, and goes on behind the instruction. */
static void trap(void (*fn)(u64), u64 code, u64 bits, u64 set, const char *name)
{
	u64 seen, info;

	svm_intercept(v.vmcb, code, true);
	shared->result[0] = 0;
	shared->fn[0] = fn;
	seen = snp_run(&v);
	info = v.vmcb->exit_info_1;
	check(seen == code && (info & bits) == set, "%s exits: 0x%lx, info 0x%lx", name,
	      seen, info);
	svm_intercept(v.vmcb, code, false);
	check(snp_run(&v) == EXIT_VMGEXIT && shared->result[0], "%s: RIP is behind it", name);
	check(!bits || (shared->result[0] & bits) == set, "%s has been done", name);
}

static void test_traps(void)
{
	section("APM2 15.35.9", "HLT, PAUSE and write traps are automatic exits, with RIP behind the instruction.");
	trap(g_hlt, EXIT_HLT, 0, 0, "HLT");
	trap(g_pause, EXIT_PAUSE, 0, 0, "PAUSE");
	trap(g_cr0, EXIT_CR0_TRAP, CR0_TS, CR0_TS, "MOV to CR0");
	trap(g_clts, EXIT_CR0_TRAP, CR0_TS, 0, "CLTS");
	trap(g_cr4, EXIT_CR4_TRAP, CR4_PCE, CR4_PCE, "MOV to CR4");
	trap(g_cr8, EXIT_CR8_TRAP, 15, 5, "MOV to CR8");
	trap(g_efer, EXIT_EFER_TRAP, EFER_SVME, EFER_SVME, "WRMSR EFER");
	snp_call(&v, g_reserved, 0);
	check_eq(shared->result[0], GP, "reserved bits of CR4 are #GP");
	check_eq(shared->result[1], GP, "reserved bits of CR3 are #GP");
}

static void inject(u64 event, u64 error, u64 seen_error, const char *name)
{
	snp_call(&v, g_events, 0);
	v.vmcb->event_inj = EVENT_VALID | event | error << 32;
	/* The guest took the event: nothing of it is left in EXITINTINFO. */
	check(snp_call(&v, g_events, 0) && shared->result[0] == 1 &&
	      (!error || shared->result[1] == seen_error) && !v.vmcb->exit_int_info, "EVENTINJ of %s", name);
}

static void test_injection(void)
{
	section("APM2 15.35.8", "EVENTINJ works but for software interrupts, #BP and #OF, which are VMEXIT_INVALID.");
	inject(EVENT_INTR | VECTOR, 0, 0, "an interrupt");
	inject(EVENT_EXCEPTION | BIT(11) | PF, 0x15, 0x15, "#PF with an error code");
	INVALID(v.vmcb->event_inj = EVENT_VALID | 4 << 8 | VECTOR,
		"EVENTINJ of a software interrupt");
	INVALID(v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | 3, "EVENTINJ of #BP");
	INVALID(v.vmcb->event_inj = EVENT_VALID | EVENT_EXCEPTION | 4, "EVENTINJ of #OF");
	check(snp_call(&v, g_events, 0), "these change nothing in the guest");

	section("APM2 15.7.2", "EXITINTINFO is that of an event whose delivery the exit interrupted, and 0 if there is none.");
	inject(EVENT_EXCEPTION | BIT(11) | PF, 0x15, 0x15, "#PF");
	snp_call(&v, g_exit_int_info, 0);
	check_eq(shared->result[0], 0, "GUEST_EXITINTINFO of the VMSA when #PF has been taken");
}

/* #PF with an error code: more than the low half of EVENTINJ */
#define PAGE_FAULT		(EVENT_VALID | EVENT_EXCEPTION | BIT(11) | PF | 0x15ULL << 32)

#define NO_STACK		(IMAGE + 0x1ff000)

static void test_alternate(void)
{
	u64 npte;

	section("APM2 15.36.16", "With AlternateInjection events are those of the VMSA, not of the VMCB.");
	alternate.vmcb->event_inj = EVENT_VALID | EVENT_INTR | VECTOR;
	check(snp_call(&alternate, g_events, 0), "a guest with AlternateInjection");
	check_eq(shared->result[0], 1, "one event");
	check_eq(shared->result[1], 0x15, "#PF of EVENTINJ of the VMSA");
	snp_call(&v, g_peek, alternate.vmsa + VMSA_EVENTINJ);
	check_eq(shared->result[0], 0, "nothing of it is left there");
	snp_call(&alternate, g_events, 0);
	check_eq(shared->result[0], 0, "nor delivered again");

	section("APM2 15.36.16", "AlternateInjection forces the intercepts of INTR, NMI, INIT, #MC and the x2APIC MSRs.");
	svm_intercept(alternate.vmcb, EXIT_INTR, false);
	svm_intercept(alternate.vmcb, EXIT_NMI, false);
	asm volatile("clgi" : : : "memory");
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | 4 << 8);
	shared->fn[1] = g_events;
	check_eq(snp_run(&alternate), EXIT_NMI, "NMI");
	check(snp_call(&alternate, g_events, 0), "and on");
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	asm volatile("clgi; sti" : : : "memory");
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | VECTOR);
	shared->fn[1] = g_events;
	check_eq(snp_run(&alternate), EXIT_INTR, "INTR");
	asm volatile("cli" : : : "memory");
	wrmsr(MSR_X2APIC_EOI, 0);
	check(snp_call(&alternate, g_x2apic, 0), "RDMSR of an x2APIC register");
	check_eq(shared->result[0], 1, "is #VC");
	check_eq(shared->result[1], EXIT_MSR, "for the MSR");

	section("APM2 15.36.21", "An interrupted event goes to EVENTINJ of the VMSA with Secure AVIC only.");
	npte = *snp_npt(NO_STACK);
	*snp_npt(NO_STACK) = 0;
	interrupted.vmcb->tlb_ctl = 1;
	check_eq(snp_run(&interrupted), EXIT_NPF, "AlternateInjection, and a stack that is not mapped");
	*snp_npt(NO_STACK) = npte;
	check_eq(interrupted.vmcb->exit_int_info & 0xffffffff, PAGE_FAULT & 0xffffffff, "EXITINTINFO has the event");
	snp_call(&v, g_peek, interrupted.vmsa + VMSA_EVENTINJ);
	check_eq(shared->result[0], 0, "EVENTINJ has not");
}

#define VMSA_RIP		0x178
#define VMSA_NRIP		0x3a8

static void test_reflect(void)
{
	u64 seen;

	section("APM2 15.36.9", "With ReflectVC, #VC is the automatic exit VMEXIT_VC.");
	check(snp_call(&reflect, g_start, 0), "a guest with ReflectVC");
	shared->fn[0] = g_reflect;
	check_eq(snp_run(&reflect), EXIT_VC, "its #VC is VMEXIT_VC");
	check_eq(snp_run(&reflect), EXIT_VC, "and not BUSY");
	snp_call(&debug, g_peek, reflect.vmsa + VMSA_NRIP);
	seen = shared->result[0];
	snp_call(&debug, g_peek, reflect.vmsa + VMSA_RIP);
	check_eq(seen, shared->result[0] + 2, "GUEST_NRIP is behind the instruction");

	section("APM2 15.36.9", "With AlternateInjection as well, VMEXIT_VC sets BUSY.");
	check(snp_call(&reflect_busy, g_start, 0), "a guest with both");
	shared->fn[0] = g_reflect;
	check_eq(snp_run(&reflect_busy), EXIT_VC, "its #VC is VMEXIT_VC");
	check_eq(snp_run(&reflect_busy), EXIT_BUSY, "and it is BUSY");
	shared->fn[0] = NULL;
}

/* SEV_FEATURES bits and those of Fn8000_001F EAX that report them; 0: not modelled */
static const struct {
	u8 feature, cpuid;
	const char *name;
} features[] = {
	{ 1, 0, "vTOM" }, { 3, 12, "RestrictedInjection" }, { 4, 13, "AlternateInjection" },
	{ 5, 14, "DebugVirtualization" }, { 6, 15, "PreventHostIBS" }, { 8, 7, "VmplSSS" },
	{ 9, 8, "SecureTSC" }, { 10, 17, "VmgexitParameter" }, { 12, 19, "IbsVirtualization" },
	{ 14, 24, "VmsaRegProt" }, { 15, 25, "SmtProtection" }, { 21, 31, "IbpbOnEntry" },
};
static struct snp_vcpu featured[ARRAY_SIZE(features)];

/* Number of the first one's VMSA; all are for vCPU 1. */
#define FIRST_FEATURED	11

static void set_up_featured(void)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(features); i++) {
		snp_set_up(&featured[i], FIRST_FEATURED + 2 * i);
		*vmsa_field(featured[i].vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | BIT(features[i].feature);
		featured[i].vmcb->allowed_sev_features = 0;
	}
}

static void test_features(void)
{
	section("APM2 15.36.20", "VMRUN takes the SEV_FEATURES that CPUID reports, and no others.");
	for (unsigned int i = 0; i < ARRAY_SIZE(features); i++) {
		bool has = features[i].cpuid && sev_eax() >> features[i].cpuid & 1;

		shared->fn[1] = NULL;
		check_eq(snp_run(&featured[i]), has ? EXIT_VMGEXIT : EXIT_INVALID, features[i].name);
	}
}

/* Interrupt window, and the end of an NMI by IRET */
static void test_windows(void)
{
	u64 int_ctl = v.vmcb->int_ctl;

	section("APM2 15.35.9", "The interrupt window (VINTR) is an automatic exit.");
	svm_intercept(v.vmcb, EXIT_VINTR, true);
	v.vmcb->int_ctl |= V_GIF | V_IRQ | V_PRIO(15) | V_IGN_TPR;
	check(snp_call(&v, g_nmi, 0), "RFLAGS.IF clear: none");
	shared->fn[0] = g_window;
	check_eq(snp_run(&v), EXIT_VINTR, "RFLAGS.IF set: VINTR");
	check_eq(v.vmcb->exit_int_info, 0, "with nothing to inject again");
	v.vmcb->int_ctl = int_ctl;
	svm_intercept(v.vmcb, EXIT_VINTR, false);
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on");

	section("APM2 15.35.5", "An intercepted IRET is #VC(74h); the guest ends the NMI.");
	shared->result[20] = shared->result[21] = 0;
	svm_intercept(v.vmcb, EXIT_IRET, true);
	v.vmcb->event_inj = EVENT_VALID | EVENT_NMI | 2;
	shared->fn[0] = g_nmi;
	check_eq(snp_run(&v), EXIT_VMGEXIT, "NMI, and its IRET");
	check_eq(shared->result[21], 1, "the NMI is delivered");
	check_eq(shared->result[20], 1, "IRET is #VC");
	svm_intercept(v.vmcb, EXIT_IRET, false);
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on");

	section("APM2 15.21.10", "Virtual NMI for a SEV-ES guest: state is the VMCB's.");
	v.vmcb->int_ctl |= V_GIF | V_NMI_ENABLE | V_NMI;
	check(snp_call(&v, g_nmi, 0), "V_NMI pending");
	check_eq(shared->result[21], 2, "is delivered");
	check_eq(v.vmcb->int_ctl & (V_NMI | V_NMI_BLOCKED), 0, "and over after IRET");
	v.vmcb->int_ctl = int_ctl;
}

static void test_secure_tsc(void)
{
	u64 before, after, seen;

	section("APM2 15.36.18", "With Secure TSC the TSC is scaled by GUEST_TSC_SCALE (8.32 fixed point) and moved by GUEST_TSC_OFFSET, both of the VMSA.");
	secure_tsc.vmcb->tsc_offset = 0x7777000000000000;
	before = rdtsc();
	check(snp_call(&secure_tsc, g_tsc, 0), "a guest with Secure TSC");
	after = rdtsc();
	seen = shared->result[0] - TSC_OFFSET;
	/* The scale is rounded. */
	check(seen >= before / 2 - (before >> 24) && seen <= after / 2 + (after >> 24),
	      "0x%lx is half of 0x%lx to 0x%lx: not what the VMCB says", seen, before, after);
	check(shared->result[2] == NO_EXCEPTION && shared->result[1] == 500,
	      "GUEST_TSC_FREQ: %lu MHz", shared->result[1]);
	check_eq(shared->result[3], GP, "and read-only");
}

/* While GIF is clear, so that the processor holds it until VMRUN */
static void send_smi(void)
{
	asm volatile("clgi");
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | 2 << 8);
}

static void test_smi(void)
{
	section("APM2 15.35.11", "SMI in a SEV-ES guest is an automatic exit, intercepted or not; it waits for STGI.");
	apic_id();
	send_smi();
	shared->fn[0] = g_nmi;
	check_eq(snp_run(&v), EXIT_SMI, "SMI");
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on, without it");
}

static void test_physical(void)
{
	section("APM2 15.35.9", "INTR and NMI are automatic exits; they stay pending for the host.");
	shared->result[21] = 0;
	asm volatile("clgi");
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | 4 << 8);
	shared->fn[0] = g_nmi;
	check(snp_run(&v) == EXIT_NMI && shared->fn[0], "NMI, before the guest runs");
	check_eq(shared->result[21], 1, "the host takes it");
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on, without it");
	check_eq(shared->result[21], 1, "the guest does not");

	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	events = 0;
	asm volatile("clgi; sti" : : : "memory");
	wrmsr(MSR_X2APIC_ICR, (u64)apic_id() << 32 | VECTOR);
	shared->fn[0] = g_nmi;
	check(snp_run(&v) == EXIT_INTR && shared->fn[0], "INTR, before the guest runs");
	asm volatile("cli" : : : "memory");
	check_eq(events, 1, "the host takes it");
	wrmsr(MSR_X2APIC_EOI, 0);
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on, without it");
}

static void test_exits(void)
{
	u64 npte = *snp_npt(IMAGE + 0x1ff000);

	section("APM2 15.36.15", "VMRUN stores a PCPU_ID that is not zero.");
	snp_call(&v, g_pcpu_id, 0);
	check(shared->result[0], "PCPU_ID");
	check(shared->result[1], "TLB_ID");

	section("APM2 15.35.9", "Instruction bytes of a SEV-ES guest are not stored.");
	memset(v.vmcb->insn, 0, sizeof(v.vmcb->insn));
	*snp_npt(IMAGE + 0x1ff000) = 0;
	v.vmcb->tlb_ctl = 3;
	shared->arg[0] = IMAGE + 0x1ff000;
	shared->fn[0] = g_touch;
	check_eq(snp_run(&v), EXIT_NPF, "nested page fault");
	check(!v.vmcb->insn[0] && !v.vmcb->insn[1] && !v.vmcb->insn[2], "no bytes");
	*snp_npt(IMAGE + 0x1ff000) = npte;
	check(snp_run(&v) == EXIT_VMGEXIT && !shared->fn[0], "and on");

	section("APM2 15.35.6", "With VmgexitParameter, RAX and CPL are in the VMCB.");
	shared->arg[1] = 0x123456789;
	shared->fn[1] = g_param;
	param.vmcb->vmgexit_cpl = 7;
	check_eq(snp_run(&param), EXIT_VMGEXIT, "VMGEXIT");
	check_eq(param.vmcb->vmgexit_rax, 0x123456789, "RAX");
	check_eq(param.vmcb->vmgexit_cpl, 0, "CPL");
	shared->fn[1] = NULL;

	section("APM2 15.35.9", "A shutdown is an automatic exit.");
	shared->fn[1] = g_shutdown;
	check_eq(snp_run(&shut_down), EXIT_SHUTDOWN, "exception without an IDT");
	shared->fn[1] = NULL;
}

/* DR0-3 are swapped with DebugVirtualization only (15.35.10, table B-3). */
static void test_debug(void)
{
	u64 seen, old;

	section("APM2 B-3", "DR0-3 are swapped with DebugVirtualization only.");
	asm volatile("mov %0, %%dr0" : : "r"(0x1000ULL));
	snp_call(&v, g_dr0, 0x2000);
	asm volatile("mov %%dr0, %0" : "=r"(seen));
	check_eq(shared->result[0], 0x1000, "DR0 is shared without DebugVirtualization");
	check_eq(seen, 0x2000, "in both directions");

	old = *(u64 *)(hsave() + 0x180);
	*(u64 *)(hsave() + 0x180) = 0x3000;
	check(snp_call(&debug, g_dr0, 0x4000), "a guest with DebugVirtualization");
	asm volatile("mov %%dr0, %0" : "=r"(seen));
	check_eq(shared->result[0], 0, "DR0 is from the VMSA");
	check_eq(seen, 0x3000, "type B: then from the host save area");
	snp_call(&debug, g_dr0, 0);
	check_eq(shared->result[0], 0x4000, "the guest's is kept");
	*(u64 *)(hsave() + 0x180) = old;
	asm volatile("mov %0, %%dr0" : : "r"(0ULL));
}

void test_main(void)
{
	u32 a, b, c, d;

	cpuid(0x8000001f, 0, &a, &b, &c, &d);
	if (!check((a & 0x1a) == 0x1a, "CPUID has SEV, SEV-ES, SNP"))
		return;

	set_handler(VC, on_vc);
	set_handler(2, on_nmi);
	set_handler(VECTOR, on_event);
	set_handler(DB, on_db);
	set_handler(PF, on_event);

	WRITE_CR(4, READ_CR(4) | BIT(18));	/* OSXSAVE, for XSETBV */
	snp_set_up(&v, 0);
	*vmsa_field(v.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE;
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		u64 *field;

		/* Even ones: all of them are for vCPU 0. */
		snp_set_up(&bad[i].v, 2 * i + 2);
		*vmsa_field(bad[i].v.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE;
		bad[i].v.vmcb->allowed_sev_features = 0;
		field = vmsa_field(bad[i].v.vmsa, bad[i].offset);
		*field = (*field & ~bad[i].clear) | bad[i].set;
	}
	snp_set_up(&reflect, 14);
	*vmsa_field(reflect.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | REFLECT_VC;
	reflect.vmcb->allowed_sev_features |= REFLECT_VC;
	snp_set_up(&debug, 1);
	*vmsa_field(debug.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | DEBUG_VIRT;
	debug.vmcb->allowed_sev_features |= DEBUG_VIRT;
	snp_set_up(&param, 3);
	*vmsa_field(param.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | VMGEXIT_PARAM;
	param.vmcb->allowed_sev_features |= VMGEXIT_PARAM;
	snp_set_up(&shut_down, 5);
	*vmsa_field(shut_down.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE;
	*vmsa_field(shut_down.vmsa, 0x080) = 0;		/* IDTR.limit */
	snp_set_up(&secure_tsc, 9);
	*vmsa_field(secure_tsc.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | SECURE_TSC;
	*vmsa_field(secure_tsc.vmsa, VMSA_TSC_SCALE) = HALF_TSC_SCALE;
	*vmsa_field(secure_tsc.vmsa, VMSA_TSC_OFFSET) = TSC_OFFSET;
	secure_tsc.vmcb->allowed_sev_features |= SECURE_TSC;
	snp_set_up(&alternate, 7);
	*vmsa_field(alternate.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | ALTERNATE_INJ;
	*vmsa_field(alternate.vmsa, VMSA_EVENTINJ) = PAGE_FAULT;
	alternate.vmcb->allowed_sev_features |= ALTERNATE_INJ;
	snp_set_up(&interrupted, 35);
	*vmsa_field(interrupted.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | ALTERNATE_INJ;
	*vmsa_field(interrupted.vmsa, VMSA_EVENTINJ) = PAGE_FAULT;
	*vmsa_field(interrupted.vmsa, VMSA_RSP) = NO_STACK + 0x800;
	interrupted.vmcb->allowed_sev_features |= ALTERNATE_INJ;
	snp_set_up(&reflect_busy, 16);
	*vmsa_field(reflect_busy.vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | REFLECT_VC | ALTERNATE_INJ;
	reflect_busy.vmcb->allowed_sev_features |= REFLECT_VC | ALTERNATE_INJ;
	set_up_featured();
	rmp_clear();
	set_up_vmsa_pages();
	snp_start();
	set_handler(PF, NULL);

	test_vmrun();
	test_state();
	test_nae();
	test_traps();
	test_injection();
	test_alternate();
	test_windows();
	test_smi();
	test_physical();
	test_secure_tsc();
	test_exits();
	test_debug();
	/* On the stack of the first guest, which ends here */
	test_reflect();
	test_features();
}
