/*
 * Intercept words 3 to 5 bit by bit (15.9, table B-1): each instruction exits with
 * its code if its bit is set, and else does what it does without a hypervisor.
 * What this processor does not have is #UD in both cases.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define EXIT_RDPRU		0x8e
#define EXIT_CR_TRAP(n)		(0x90 + (n))
#define EXIT_INVPCID		0xa2
#define EXIT_BUS_LOCK		0xa5

#define EFER_NXE		BIT(11)
#define CR0_TS			BIT(3)
#define CR4_PCE			BIT(8)
#define CR4_OSXSAVE		BIT(18)

static struct vcpu v;
static u8 data[16] __attribute__((used));

/*
 * X(name, instruction, exit code, reaches: what it ends in without an intercept)
 * In RAX the guest has what its instruction needs, else 0.
 */
#define ENDS_HERE	0		/* not to be tried: the host would notice */
#define GOES_ON		EXIT_VMMCALL

#define INSTRUCTIONS							\
	X(sidt, "sidt data(%rip)", 0x66, GOES_ON)			\
	X(sgdt, "sgdt data(%rip)", 0x67, GOES_ON)			\
	X(sldt, "sldt %eax", 0x68, GOES_ON)				\
	X(str, "str %eax", 0x69, GOES_ON)				\
	X(lidt, "lidt data(%rip)", 0x6a, GOES_ON)			\
	X(lgdt, "lgdt data(%rip)", 0x6b, GOES_ON)			\
	X(lldt, "lldt %ax", 0x6c, ENDS_HERE)				\
	X(ltr, "ltr %ax", 0x6d, ENDS_HERE)				\
	X(rdtsc, "rdtsc", 0x6e, GOES_ON)				\
	X(rdpmc, "rdpmc", 0x6f, ENDS_HERE)				\
	/* The intercept comes before #UD for not being in SMM. */	\
	X(rsm, "rsm", 0x73, EXIT_EXCP + UD)				\
	X(pushf, "pushf", 0x70, GOES_ON)				\
	X(popf, "popf", 0x71, ENDS_HERE)				\
	X(cpuid, "cpuid", 0x72, GOES_ON)				\
	X(iret, "iretq", 0x74, ENDS_HERE)				\
	X(int_n, "int $0x77", 0x75, ENDS_HERE)				\
	X(invd, "invd", 0x76, GOES_ON)					\
	X(pause, "pause", 0x77, GOES_ON)				\
	X(hlt, "hlt", 0x78, ENDS_HERE)					\
	X(invlpg, "invlpg (%rax)", 0x79, GOES_ON)			\
	X(invlpga, "invlpga %rax, %ecx", 0x7a, GOES_ON)			\
	X(in, "inb $0x80, %al", 0x7b, GOES_ON)				\
	X(rdmsr, "rdmsr", 0x7c, GOES_ON)				\
	X(vmrun, "vmrun %rax", 0x80, EXIT_INVALID)			\
	X(vmmcall, "vmmcall", 0x81, EXIT_EXCP + UD)			\
	X(vmload, "vmload %rax", 0x82, ENDS_HERE)			\
	X(vmsave, "vmsave %rax", 0x83, ENDS_HERE)			\
	X(stgi, "stgi", 0x84, GOES_ON)					\
	X(clgi, "clgi", 0x85, GOES_ON)					\
	X(skinit, "skinit %eax", 0x86, ENDS_HERE)			\
	X(rdtscp, "rdtscp", 0x87, GOES_ON)				\
	/* dispatched without regard to the intercept of #DB */		\
	X(icebp, ".byte 0xf1", 0x88, GOES_ON)				\
	X(wbinvd, "wbinvd", 0x89, GOES_ON)				\
	X(wbnoinvd, "rep; wbinvd", 0x89, GOES_ON)			\
	X(xsetbv, "xsetbv", 0x8d, GOES_ON)

/* Not in CPUID: leaf, register (0-3: A to D), bit */
#define MISSING								\
	M(monitor, ".byte 0x0f, 0x01, 0xc8", 0x8a, 1, 2, 3)		\
	M(mwait, ".byte 0x0f, 0x01, 0xc9", 0x8b, 1, 2, 3)		\
	M(mwait_armed, ".byte 0x0f, 0x01, 0xc9", 0x8c, 1, 2, 3)		\
	M(monitorx, ".byte 0x0f, 0x01, 0xfa", 0x8a, 0x80000001, 2, 29)	\
	M(mwaitx, ".byte 0x0f, 0x01, 0xfb", 0x8b, 0x80000001, 2, 29)	\
	M(rdpru, ".byte 0x0f, 0x01, 0xfd", EXIT_RDPRU, 0x80000008, 1, 4) \
	M(invlpgb, ".byte 0x0f, 0x01, 0xfe", 0xa0, 0x80000008, 1, 3)	\
	M(invlpgb_illegal, ".byte 0x0f, 0x01, 0xfe", 0xa1, 0x80000008, 1, 3) \
	M(invpcid, "invpcid data(%rip), %rax", EXIT_INVPCID, 7, 1, 10)	\
	M(mcommit, ".byte 0xf3, 0x0f, 0x01, 0xfa", 0xa3, 0x80000008, 1, 8) \
	M(tlbsync, ".byte 0x0f, 0x01, 0xff", 0xa4, 0x80000008, 1, 3)

/* g_NAME and g_NAME_end */
#define G(name, insn)	GUEST(g_##name, insn);

#define X(name, insn, code, reaches) G(name, insn)
INSTRUCTIONS
#undef X
#define M(name, insn, code, leaf, reg, bit) G(name, insn)
MISSING
#undef M

/* MOV to CRn and what else writes it */
G(write_cr0, "mov %rax, %cr0")
G(write_cr2, "mov %rax, %cr2")
G(write_cr3, "mov %rax, %cr3")
G(write_cr4, "mov %rax, %cr4")
G(write_cr8, "mov %rax, %cr8")
G(clts, "clts")
G(lmsw, "lmsw %ax")
G(wrmsr, "wrmsr")
G(split_lock, "lock incl data + 14(%rip)")

static const struct {
	const char *name;
	void (*fn)(void), (*end)(void);
	u64 code, reaches;
} instructions[] = {
#define X(name, insn, code, reaches) { #name, g_##name, g_##name##_end, code, reaches },
INSTRUCTIONS
#undef X
};

static const struct {
	const char *name;
	void (*fn)(void);
	u64 code;
	u32 leaf, reg, bit;
} missing[] = {
#define M(name, insn, code, leaf, reg, bit) { #name, g_##name, code, leaf, reg, bit },
MISSING
#undef M
};

/* Every bit of the permission maps set */
static u8 all_ones[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static void start(void (*fn)(void))
{
	svm_set_up(&v, fn);
	v.vmcb->iopm = v.vmcb->msrpm = (u64)all_ones;
	v.vmcb->intercept[2] = ~0u;
	v.vmcb->rax = 0;
	if (fn == g_xsetbv)
		v.vmcb->rax = 1;
	if (fn == g_rdmsr || fn == g_wrmsr)
		v.regs.rcx = MSR_LSTAR;
}

static void on_db(struct regs *r)
{
	vmmcall(0);
}

static void test_instructions(void)
{
	section("APM2 15.9", "Each bit of intercept words 3 and 4 makes its instruction exit, and nothing else does.");
	memset(all_ones, 0xff, sizeof(all_ones));
	for (unsigned int i = 0; i < ARRAY_SIZE(instructions); i++) {
		u64 code = instructions[i].code, reaches = instructions[i].reaches, exit;

		start(instructions[i].fn);
		svm_intercept(v.vmcb, code, true);
		exit = svm_run(&v);
		check(exit == code && v.vmcb->rip == (u64)instructions[i].fn &&
		      v.vmcb->next_rip == (u64)instructions[i].end,
		      "%s: exit 0x%lx, RIP at 0x%lx, nRIP %ld bytes on", instructions[i].name, exit,
		      v.vmcb->rip, v.vmcb->next_rip - v.vmcb->rip);
		if (reaches == ENDS_HERE)
			continue;

		/* All others of these words, but for those that mean the same */
		start(instructions[i].fn);
		v.vmcb->intercept[3] |= 0x3fffffff;
		v.vmcb->intercept[4] |= 0x7fff;
		svm_intercept(v.vmcb, EXIT_VMMCALL, true);
		svm_intercept(v.vmcb, code, false);
		exit = svm_run(&v);
		check(exit == reaches, "%s: not intercepted: exit 0x%lx, expected 0x%lx",
		      instructions[i].name, exit, reaches);
	}
}

static void test_missing(void)
{
	section("APM2 15.9", "An intercept of what CPUID does not report has no effect: it is #UD.");
	for (unsigned int i = 0; i < ARRAY_SIZE(missing); i++) {
		u32 r[4];
		u64 exit;

		cpuid(missing[i].leaf, 0, &r[0], &r[1], &r[2], &r[3]);
		if (!check(!(r[missing[i].reg] & BIT(missing[i].bit)), "CPUID has no %s", missing[i].name))
			continue;
		start(missing[i].fn);
		svm_intercept(v.vmcb, missing[i].code, true);
		exit = svm_run(&v);
		check(exit == EXIT_EXCP + UD, "%s: exit 0x%lx", missing[i].name, exit);
	}
	start(g_split_lock);
	svm_intercept(v.vmcb, EXIT_BUS_LOCK, true);
	check_eq(svm_run(&v), EXIT_VMMCALL, "nor is a bus lock intercepted (Fn8000_000A EDX[29] is 0)");
}

/* The write trap @code after @fn with @value in RAX; EXITINFO1 is @result. */
static void trap(void (*fn)(void), void (*end)(void), u64 code, u64 value, u64 result, const char *name)
{
	u64 exit;

	start(fn);
	v.vmcb->rax = value;
	svm_intercept(v.vmcb, code, true);
	exit = svm_run(&v);
	check(exit == code && v.vmcb->rip == (u64)end && v.vmcb->exit_info_1 == result,
	      "%s: exit 0x%lx, RIP off by %ld, EXITINFO1 0x%lx", name, exit,
	      v.vmcb->rip - (u64)end, v.vmcb->exit_info_1);
	start(fn);
	v.vmcb->rax = value;
	v.vmcb->intercept[4] |= 0xffff8000;
	svm_intercept(v.vmcb, code, false);
	check_eq(svm_run(&v), EXIT_VMMCALL, "and none if only the others are set");
}

static void test_traps(void)
{
	u64 cr0 = READ_CR(0), cr3 = READ_CR(3), cr4 = READ_CR(4);

	section("APM2 15.9", "CR and EFER write traps exit behind the instruction, with the new value.");
	trap(g_write_cr0, g_write_cr0_end, EXIT_CR_TRAP(0), cr0 | CR0_TS, cr0 | CR0_TS, "MOV to CR0");
	trap(g_clts, g_clts_end, EXIT_CR_TRAP(0), 0, cr0 & ~CR0_TS, "CLTS");
	trap(g_lmsw, g_lmsw_end, EXIT_CR_TRAP(0), (cr0 & 7) | CR0_TS, cr0 | CR0_TS, "LMSW");
	trap(g_write_cr2, g_write_cr2_end, EXIT_CR_TRAP(2), 0x1000, 0x1000, "MOV to CR2");
	trap(g_write_cr3, g_write_cr3_end, EXIT_CR_TRAP(3), cr3, cr3, "MOV to CR3");
	trap(g_write_cr4, g_write_cr4_end, EXIT_CR_TRAP(4), cr4 | CR4_PCE, cr4 | CR4_PCE, "MOV to CR4");
	trap(g_write_cr8, g_write_cr8_end, EXIT_CR_TRAP(8), 5, 5, "MOV to CR8");

	/* Intercept words that are of the same instruction come first. */
	start(g_write_cr4);
	v.vmcb->rax = cr4 | CR4_PCE;
	v.vmcb->intercept[0] = BIT(16 + 4);
	svm_intercept(v.vmcb, EXIT_CR_TRAP(4), true);
	check_eq(svm_run(&v), 0x14, "the intercept of MOV to CR4 comes before its trap");
	start(g_write_cr4);
	v.vmcb->rax = BIT(63);
	svm_intercept(v.vmcb, EXIT_CR_TRAP(4), true);
	check_eq(svm_run(&v), EXIT_EXCP + GP, "and #GP before both");

	/* WRMSR of another MSR than EFER is no EFER write. */
	start(g_wrmsr);
	v.vmcb->rax = (u32)rdmsr(MSR_LSTAR);
	svm_intercept(v.vmcb, EXIT_EFER_TRAP, true);
	check_eq(svm_run(&v), EXIT_VMMCALL, "EFER's trap is for EFER only");
}

void test_main(void)
{
	svm_init();
	set_handler(DB, on_db);
	WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
	test_instructions();
	test_missing();
	test_traps();
}
