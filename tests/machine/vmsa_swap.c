/*
 * The world switch field by field (tables B-1, B-3, B-4): what VMRUN loads from
 * the VMSA, what an automatic exit stores there, and what it leaves in the host's
 * registers. A SEV-ES guest without SNP, so that the host can look at the VMSA.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define HOST_AREA		(VMSAS + 0x100000)
#define DEBUG_VIRT		BIT(5)

enum type { A, B, C };

/* Registers of the guest and of the host, by functions that both can run */
#define MSR_REG(name, msr)						\
	static u64 get_##name(void) { return rdmsr(msr); }		\
	static void set_##name(u64 v) { wrmsr(msr, v); }
#define ASM_REG(name, reg)						\
	static u64 get_##name(void)					\
	{ u64 v; asm volatile("mov %%" reg ", %0" : "=r"(v)); return v; } \
	static void set_##name(u64 v)					\
	{ asm volatile("mov %0, %%" reg : : "r"(v) : "memory"); }

MSR_REG(star, 0xc0000081)
MSR_REG(lstar, 0xc0000082)
MSR_REG(cstar, 0xc0000083)
MSR_REG(sfmask, 0xc0000084)
MSR_REG(fs_base, 0xc0000100)
MSR_REG(gs_base, 0xc0000101)
MSR_REG(kernel_gs, 0xc0000102)
MSR_REG(tsc_aux, 0xc0000103)
MSR_REG(sysenter_cs, 0x174)
MSR_REG(sysenter_esp, 0x175)
MSR_REG(sysenter_eip, 0x176)
MSR_REG(efer, MSR_EFER)
ASM_REG(cr0, "cr0")
ASM_REG(cr2, "cr2")
ASM_REG(cr4, "cr4")
ASM_REG(dr0, "dr0")
ASM_REG(dr1, "dr1")
ASM_REG(dr2, "dr2")
ASM_REG(dr3, "dr3")
ASM_REG(dr6, "dr6")
ASM_REG(dr7, "dr7")

static u64 get_xcr0(void)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

static void set_xcr0(u64 v)
{
	asm volatile("xsetbv" : : "a"((u32)v), "d"(0), "c"(0));
}

static u64 get_pkru(void)
{
	u32 lo, hi;

	asm volatile("rdpkru" : "=a"(lo), "=d"(hi) : "c"(0));
	return lo;
}

static void set_pkru(u64 v)
{
	asm volatile("wrpkru" : : "a"((u32)v), "d"(0), "c"(0));
}

static u64 get_mxcsr(void)
{
	u32 v;

	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static void set_mxcsr(u64 v)
{
	u32 w = v;

	asm volatile("ldmxcsr %0" : : "m"(w));
}

static u64 get_fcw(void)
{
	u16 v;

	asm volatile("fnstcw %0" : "=m"(v));
	return v;
}

static void set_fcw(u64 v)
{
	u16 w = v;

	asm volatile("fldcw %0" : : "m"(w));
}

/* Low and high half of the first and of the last XMM register, and of YMM9 */
#define XMM_REG(n)							\
	static u64 get_xmm##n(void)					\
	{ u64 v; asm volatile("movq %%xmm" #n ", %0" : "=r"(v)); return v; } \
	static void set_xmm##n(u64 v)					\
	{ asm volatile("movq %0, %%xmm" #n : : "r"(v)); }
XMM_REG(0)
XMM_REG(15)

static u64 get_ymm9(void)
{
	u64 v[4];

	asm volatile("vmovdqu %%ymm9, %0" : "=m"(v));
	return v[3];
}

static void set_ymm9(u64 x)
{
	u64 v[4] = { 0, 0, 0, x };

	asm volatile("vmovdqu %0, %%ymm9" : : "m"(v));
}

struct table {
	u16 limit;
	u64 base;
} __attribute__((packed));

static u64 get_gdt_limit(void)
{
	struct table t;

	asm volatile("sgdt %0" : "=m"(t));
	return t.limit;
}

static void set_gdt_limit(u64 v)
{
	struct table t;

	asm volatile("sgdt %0" : "=m"(t));
	t.limit = v;
	asm volatile("lgdt %0" : : "m"(t));
}

static u64 get_idt_limit(void)
{
	struct table t;

	asm volatile("sidt %0" : "=m"(t));
	return t.limit;
}

static void set_idt_limit(u64 v)
{
	struct table t;

	asm volatile("sidt %0" : "=m"(t));
	t.limit = v;
	asm volatile("lidt %0" : : "m"(t));
}

/* Branches between places that differ by the value that is asked for */
#define MSR_DEBUGCTL	0x1d9
#define BRANCH(n)							\
	asm("branch_" #n ": mov $0x1d9, %ecx; mov $1, %eax; xor %edx, %edx; wrmsr\n" \
	    "from_" #n ": jmp to_" #n "; nop; to_" #n ":"		\
	    " mov $0x1d9, %ecx; xor %eax, %eax; wrmsr; ret\n");	\
	void branch_##n(void);						\
	extern char from_##n[], to_##n[];
BRANCH(1)
BRANCH(2)

static void branch(u64 v)
{
	if (v == (u64)from_1 || v == (u64)to_1)
		branch_1();
	else
		branch_2();
}

MSR_REG(debugctl, MSR_DEBUGCTL)
static u64 get_br_from(void) { return rdmsr(0x1db); }
static void set_br_from(u64 v) { branch(v); }
static u64 get_br_to(void) { return rdmsr(0x1dc); }
static void set_br_to(u64 v) { branch(v); }

static u64 get_es(void)
{
	u16 v;

	asm volatile("mov %%es, %0" : "=r"(v));
	return v;
}

static void set_es(u64 v)
{
	asm volatile("mov %0, %%es" : : "r"((u16)v));
}

static u64 get_rflags_ac(void)
{
	u64 v;

	asm volatile("pushf; pop %0" : "=r"(v));
	return v & (BIT(18) | BIT(21));
}

static void set_rflags_ac(u64 v)
{
	u64 f;

	asm volatile("pushf; pop %0" : "=r"(f));
	f = (f & ~(BIT(18) | BIT(21))) | v;
	asm volatile("push %0; popf" : : "r"(f) : "cc");
}

/*
 * @load is in the VMSA before VMRUN, the guest changes it to @store. The host's
 * register is @host; @area is what the host save area has (type B), or the reset
 * value (type C).
 */
static const struct field {
	const char *name;
	enum type type;
	u16 offset;
	u8 size;
	u64 load, store, host, area;
	u64 (*get)(void);
	void (*set)(u64);
} fields[] = {
#define BASE(n) 0x7f0012340000UL + (n)
#define F(name, type, offset, size, load, store, host, area)		\
	{ #name, type, offset, size, load, store, host, area, get_##name, set_##name }
	F(star, B, 0x200, 8, 0x10001000000000, 0x20002000000000, 0x30003000000000, 0x40004000000000),
	F(lstar, B, 0x208, 8, BASE(1), BASE(2), BASE(3), BASE(4)),
	F(cstar, B, 0x210, 8, BASE(5), BASE(6), BASE(7), BASE(8)),
	F(sfmask, B, 0x218, 8, 0x100, 0x200, 0x300, 0x400),
	F(kernel_gs, B, 0x220, 8, BASE(9), BASE(10), BASE(11), BASE(12)),
	F(sysenter_cs, B, 0x228, 8, 0x10, 0x20, 0x30, 0x40),
	F(sysenter_esp, B, 0x230, 8, BASE(13), BASE(14), BASE(15), BASE(16)),
	F(sysenter_eip, B, 0x238, 8, BASE(17), BASE(18), BASE(19), BASE(20)),
	F(fs_base, B, 0x048, 8, BASE(21), BASE(22), BASE(23), BASE(24)),
	F(gs_base, B, 0x058, 8, BASE(25), BASE(26), BASE(27), BASE(28)),
	F(tsc_aux, B, 0x2ec, 4, 0x11, 0x12, 0x13, 0x14),
	F(pkru, B, 0x2e8, 4, 0x40, 0x80, 0x100, 0x200),
	F(xcr0, B, 0x3e8, 8, 7, 0x207, 3, 0x203),
	F(dr0, B, 0x180, 8, 0x1100, 0x1200, 0x1300, 0x1400),
	F(dr1, B, 0x188, 8, 0x2100, 0x2200, 0x2300, 0x2400),
	F(dr2, B, 0x190, 8, 0x3100, 0x3200, 0x3300, 0x3400),
	F(dr3, B, 0x198, 8, 0x4100, 0x4200, 0x4300, 0x4400),
	F(dr7, C, 0x160, 8, 0x401, 0x404, 0x410, 0x400),
	F(dr6, C, 0x168, 8, 0xffff0ff1, 0xffff0ff2, 0xffff0ff4, 0xffff0ff0),
	F(cr2, C, 0x240, 8, 0x5000, 0x6000, 0x7000, 0),
	F(fcw, C, 0x410, 2, 0x27f, 0x17f, 0x37f, 0x40),
	F(mxcsr, C, 0x408, 4, 0x1f00, 0x1e80, 0x1d80, 0x1f80),
	F(xmm0, C, 0x470, 8, 0x101, 0x102, 0x103, 0),
	F(xmm15, C, 0x560, 8, 0x201, 0x202, 0x203, 0),
	F(ymm9, C, 0x608, 8, 0x301, 0x302, 0x303, 0),
	F(cr0, A, 0x158, 8, 0x80010033, 0x80050033, 0x80010031, 0),
	F(cr4, A, 0x148, 8, 0x440620, 0x440720, 0x440628, 0),
	F(efer, A, 0x0d0, 8, 0x1d00, 0x1501, 0x1d01, 0),
	F(gdt_limit, A, 0x064, 4, 0x2e, 0x2d, 0x2f, 0),
	F(idt_limit, A, 0x084, 4, 0xf0f, 0xf1f, 0xfff, 0),
	F(es, A, 0x000, 2, 0x10, 0, 0x18, 0),
	F(debugctl, A, 0x270, 8, 0, 1, 0, 0),
	F(br_from, A, 0x278, 8, BASE(40), (u64)from_1, (u64)from_2, 0),
	F(br_to, A, 0x280, 8, BASE(41), (u64)to_1, (u64)to_2, 0),
	F(rflags_ac, A, 0x170, 4, BIT(18), BIT(21), BIT(18) | BIT(21), 0),
};

static struct snp_vcpu v;
static u64 npt_pml4[512] __attribute__((aligned(PAGE_SIZE)));
static u64 npt_pdpt[512] __attribute__((aligned(PAGE_SIZE)));
static volatile u64 seen;

static void guest(const struct field *f)
{
	for (;;) {
		seen = f->get();
		f->set(f->store);
		vmgexit();
	}
}

static u64 read_field(u64 page, const struct field *f)
{
	u64 v = *(u64 *)(page + (f->offset & ~7u)) >> 8 * (f->offset & 7);

	if (f->size < 8)
		v &= BIT(8 * f->size) - 1;
	if (f->get == get_rflags_ac)
		v &= BIT(18) | BIT(21);
	return v;
}

static void write_field(u64 page, const struct field *f, u64 v)
{
	if (f->get == get_rflags_ac)
		v |= 2;
	memcpy((void *)(page + f->offset), &v, f->size);
}

static void prepare(const struct field *f)
{
	u64 vmsa;

	snp_set_up(&v, 0);
	vmsa = v.vmsa;
	v.vmcb->nested_cr3 = (u64)npt_pml4;
	v.vmcb->allowed_sev_features = 0;
	v.vmcb->clean = ~0UL;			/* ignored: all is loaded each time */
	*vmsa_field(vmsa, VMSA_SEV_FEATURES) = DEBUG_VIRT;
	*vmsa_field(vmsa, VMSA_VINTR_CTRL) = 0;
	*vmsa_field(vmsa, VMSA_XCR0) = 7;
	*vmsa_field(vmsa, 0x150) = READ_CR(3);
	*vmsa_field(vmsa, 0x178) = (u64)guest;
	*vmsa_field(vmsa, 0x338) = (u64)f;	/* RDI */
	write_field(vmsa, f, f->load);

	/* What software has to store before VMRUN (type B) */
	asm volatile("vmsave %%rax" : : "a"(HOST_AREA) : "memory");
	for (unsigned int i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].type == B)
			write_field(HOST_AREA + 0x400, &fields[i], fields[i].get());
	}
	if (f->type == B)
		write_field(HOST_AREA + 0x400, f, f->area);
}

/* The host's general registers are type B as well, and not in its save area. */
static void vmrun(void)
{
	asm volatile("push %%rbx; push %%rbp; push %%r12; push %%r13; push %%r14; push %%r15\n"
		     "clgi; vmrun %%rax; stgi\n"
		     "pop %%r15; pop %%r14; pop %%r13; pop %%r12; pop %%rbp; pop %%rbx"
		     : : "a"(v.vmcb) : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
				      "memory", "cc");
}

static void test_field(const struct field *f)
{
	u64 saved = f->get(), host, stored, expected = f->type == A ? f->host : f->area;

	prepare(f);
	f->set(f->host);
	vmrun();
	host = f->get();
	f->set(saved);
	stored = read_field(v.vmsa, f);
	check(v.vmcb->exit_code == EXIT_VMGEXIT && seen == f->load && stored == f->store &&
	      host == expected,
	      "%s, type %c: exit 0x%lx, guest sees 0x%lx, VMSA has 0x%lx, host has 0x%lx",
	      f->name, "ABC"[f->type], v.vmcb->exit_code, seen, stored, host);
}

void test_main(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_HWCR, rdmsr(MSR_HWCR) | 1);
	wrmsr(MSR_VM_HSAVE_PA, HOST_AREA);
	/* OSFXSR, OSXMMEXCPT, OSXSAVE, PKE */
	WRITE_CR(4, READ_CR(4) | 0x440600);
	set_xcr0(7);
	npt_pml4[0] = (u64)npt_pdpt | PTE;
	for (u64 i = 0; i < 512; i++)
		npt_pdpt[i] = i << 30 | PDE_2M;

	section("APM2 B-3", "Each field by its swap type: A saved and loaded, B loaded from the host save area only, C reset in the host.");
	for (unsigned int i = 0; i < ARRAY_SIZE(fields); i++)
		test_field(&fields[i]);
}
