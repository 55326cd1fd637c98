// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest private memory: an SNP guest without any firmware or hypervisor.
 *
 * The host writes the RMP by hand before it enables SNP, which gives a guest
 * with validated pages and a VMSA. The guest is this same program, copied
 * into private memory and mapped where it is linked. It tells its results and
 * what it expects to happen in a shared page, and leaves by VMGEXIT. Sections
 * are of the APM, vol. 2.
 */
#include "machine-test.h"

#define SYSCFG		0xc0010010
#define VM_HSAVE_PA	0xc0010117
#define GHCB_MSR	0xc0010130
#define SEV_STATUS	0xc0010131
#define RMP_BASE	0xc0010132
#define RMP_END		0xc0010133
#define EFER		0xc0000080

#define C_BIT		(1ULL << 51)
#define ASID		1
#define VC		29

#define FAIL_INPUT		1
#define FAIL_PERMISSION		2
#define FAIL_SIZEMISMATCH	6

/* NPF error code: EXITINFO1 (15.25.6, 15.36.10) */
#define NPF_P		(1ULL << 0)
#define NPF_W		(1ULL << 1)
#define NPF_U		(1ULL << 2)
#define NPF_ID		(1ULL << 4)
#define NPF_RMP		(1ULL << 31)
#define NPF_GPA		(1ULL << 32)
#define NPF_GPT		(1ULL << 33)
#define NPF_ENC		(1ULL << 34)
#define NPF_SIZEM	(1ULL << 35)
#define NPF_VMPL	(1ULL << 36)

#define EXIT_NPF	0x400
#define EXIT_VMGEXIT	0x403

/*
 * Guest physical memory, in 2M regions: SPA = GPA + GUEST. The guest sees it
 * at VA = GPA + WINDOW as well.
 */
#define GUEST		0x1000000ULL
#define WINDOW		0x40000000ULL
#define PRIVATE		0x000000ULL	/* 4K, validated: program, page tables */
#define LARGE		0x200000ULL	/* 2M, assigned */
#define SMALL		0x400000ULL	/* 4K, assigned */
#define SHARED		0x600000ULL	/* hypervisor-owned */
#define EMPTY		0x800000ULL	/* no nested mapping */
#define REGIONS		5

/* In PRIVATE */
#define G_PML4		(PRIVATE + 0x1000)
#define G_PDPT		(PRIVATE + 0x2000)
#define G_PD0		(PRIVATE + 0x3000)
#define G_PD1		(PRIVATE + 0x4000)
#define G_PT_PROGRAM	(PRIVATE + 0x5000)
#define G_PT_WINDOW	(PRIVATE + 0x6000)	/* one for each region */
#define G_VMSA		(PRIVATE + 0x10000)
#define G_VMSA_VMPL1	(PRIVATE + 0x11000)
#define G_STACK		(PRIVATE + 0x20000)
#define G_STACK_VMPL1	(PRIVATE + 0x30000)
#define G_PROGRAM	(PRIVATE + 0x100000)

#define PROGRAM		0x200000ULL	/* where it is linked */
#define PROGRAM_SIZE	0x80000ULL

/* What guest and host tell each other, in the shared page. */
enum { REPORT = 1, DONE, REMAP_LARGE };
enum { MAP_SHARED, ASSIGN, MAP_RIGHT, SMASH, MAP_SMALL, END };

struct talk {
	/* A result to print */
	const char *name;
	u64 got, want;
	/* The next NPF, and what the host is to do about it */
	u64 gpa, info_1;
	u32 action;
	u32 npfs;		/* that came as expected */
};

#define TALK		((volatile struct talk *)(WINDOW + SHARED))
#define HOST_TALK	((volatile struct talk *)(GUEST + SHARED))

static u64 *rmp;

/* ---- Instructions -------------------------------------------------------- */

static u32 pvalidate(u64 va, u64 size, u64 validate, bool *cf)
{
	u32 ret = 0xdead;
	u8 c = 0;

	TRY(".byte 0xf2, 0x0f, 0x01, 0xff\n\tsetc %1", : "=a"(ret), "+&q"(c)
	    : "a"(va), "c"(size), "d"(validate) : "r11", "memory", "cc");
	*cf = c;
	return exc_vector == NONE ? ret : 0xdead;
}

static u32 rmpadjust(u64 va, u64 size, u64 attrs)
{
	u32 ret = 0xdead;

	TRY(".byte 0xf3, 0x0f, 0x01, 0xfe", : "=a"(ret)
	    : "a"(va), "c"(size), "d"(attrs) : "r11", "memory", "cc");
	return exc_vector == NONE ? ret : 0xdead;
}

static u32 rmpquery(u64 va, u64 *size, u64 *attrs)
{
	u32 ret = 0xdead;
	u64 c = *size, d = *attrs;

	TRY(".byte 0xf3, 0x0f, 0x01, 0xfd", : "=a"(ret), "+c"(c), "+d"(d)
	    : "a"(va) : "r11", "memory", "cc");
	*size = c;
	*attrs = d;
	return exc_vector == NONE ? ret : 0xdead;
}

static u32 rmpupdate(u64 spa, u64 gpa, u32 asid, bool assigned, bool size_2m)
{
	struct {
		u64 gpa;
		u8 assigned, pagesize, immutable, rsvd;
		u32 asid;
	} __attribute__((packed, aligned(16))) st = {
		.gpa = gpa, .assigned = assigned, .pagesize = size_2m, .asid = asid,
	};
	u32 ret;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe" : "=a"(ret)
		     : "a"(spa), "c"(&st) : "memory", "cc");
	return ret;
}

static u32 psmash(u64 spa)
{
	u32 ret;

	asm volatile(".byte 0xf3, 0x0f, 0x01, 0xff" : "=a"(ret) : "a"(spa)
		     : "memory", "cc");
	return ret;
}

/* ---- Guest --------------------------------------------------------------- */

static void vmgexit(u64 msr)
{
	asm volatile("wrmsr\n\t.byte 0xf3, 0x0f, 0x01, 0xd9"
		     : : "c"(GHCB_MSR), "a"((u32)msr), "d"((u32)(msr >> 32))
		     : "memory");
}

static void report(u64 got, u64 want, const char *name)
{
	TALK->name = name;
	TALK->got = got;
	TALK->want = want;
	vmgexit(REPORT << 12);
}

/* The last TRY() raised #VC for an access to a page not validated. */
static void not_validated(u64 va, const char *name)
{
	report(exc_vector == VC ? exc_error : exc_vector, 0x404, name);
	report(exc_cr2, va, "its address is in CR2");
}

static void expect(u64 gpa, u64 info_1, u32 action)
{
	TALK->gpa = gpa;
	TALK->info_1 = info_1;
	TALK->action = action;
}

/* Exactly one NPF has come since expect(), and it was that. */
static void npf_seen(const char *name)
{
	report(TALK->npfs, 1, name);
	TALK->npfs = 0;
}

static void *window(u64 gpa)
{
	return (void *)(WINDOW + gpa);
}

static void set_c_bit(u64 gpa, bool on)
{
	u64 *pte = window(G_PT_WINDOW + (gpa >> 12) * 8);

	*pte = on ? *pte | C_BIT : *pte & ~C_BIT;
	asm volatile("invlpg (%0)" : : "r"(window(gpa)) : "memory");
}

static void guest_pvalidate(void)
{
	u64 page = WINDOW + SMALL, v;
	bool cf;

	try_read((void *)page, &v);
	not_validated(page, "read of a page that is not validated");
	try_write((void *)(page + 8), 1);
	not_validated(page + 8, "write to a page that is not validated");

	report(pvalidate(page, 1, 1, &cf), FAIL_SIZEMISMATCH,
	       "PVALIDATE of 2M on 4K pages: FAIL_SIZEMISMATCH");
	report(pvalidate(page + 0x1000, 1, 1, &cf), FAIL_INPUT,
	       "PVALIDATE of 2M, not aligned: FAIL_INPUT");
	report(pvalidate(page, 2, 1, &cf), FAIL_INPUT,
	       "PVALIDATE with a page size that does not exist: FAIL_INPUT");
	report(pvalidate(page, 0, 1, &cf), 0, "PVALIDATE");
	report(cf, 0, "CF says that it has changed something");
	report(pvalidate(page, 0, 1, &cf), 0, "PVALIDATE once more");
	report(cf, 1, "CF says that nothing has changed");
	report(try_write((void *)page, 1), true, "now the page can be written");
	report(pvalidate(page + 0x123, 0, 0, &cf), 0, "rescind validation");
	report(cf, 0, "CF says that it has changed something");
	try_read((void *)page, &v);
	not_validated(page, "the page is out of reach, also of the TLB");
	pvalidate(page, 0, 1, &cf);

	pvalidate(0x7000000000, 0, 1, &cf);
	report(exc_vector, PF, "PVALIDATE of what is not mapped: #PF");
}

static void guest_rmpadjust(void)
{
	u64 page = WINDOW + SMALL, size, attrs;

	report(rmpadjust(page, 0, 1 | 0xf00), 0, "RMPADJUST for VMPL1");
	size = 5;
	attrs = 1;
	report(rmpquery(page, &size, &attrs), 0, "RMPQUERY");
	report(attrs, 1 | 0xf00, "gives what RMPADJUST has set");
	report(size, 0, "and the page size");
	report(rmpadjust(page, 0, 0xf00), FAIL_PERMISSION,
	       "RMPADJUST for the own VMPL: FAIL_PERMISSION");
	report(rmpadjust(page, 0, 4), FAIL_INPUT,
	       "RMPADJUST for a VMPL that does not exist: FAIL_INPUT");
	report(rmpadjust(page, 0, 1 | 1 << 17), FAIL_INPUT,
	       "RMPADJUST with a reserved bit: FAIL_INPUT");
	report(rmpadjust(page, 1, 1), FAIL_SIZEMISMATCH,
	       "RMPADJUST of 2M on 4K pages: FAIL_SIZEMISMATCH");
	report(rmpadjust(page, 0, 1 | 1 << 16), 0, "RMPADJUST makes a VMSA");
	size = 0;
	attrs = 1;
	rmpquery(page, &size, &attrs);
	report(attrs, 1 | 1 << 16, "RMPQUERY says so");
	report(rmpadjust(page, 0, 1), 0, "and an ordinary page again");
	rmpadjust(page + 0x1000, 0, 1);
	not_validated(page + 0x1000, "RMPADJUST of a page that is not validated");
}

static void guest_shared(void)
{
	u64 page = WINDOW + SMALL + 0x2000, gpa = SMALL + 0x2000, v, w;
	bool cf;

	pvalidate(page, 0, 1, &cf);
	*(volatile u64 *)page = 0x1234;
	set_c_bit(gpa, false);
	report(try_read((void *)page, &v), true, "private page without C-bit can be read");
	report(v != 0x1234, true, "but not what is in it");
	expect(gpa, NPF_P | NPF_W | NPF_U | NPF_RMP | NPF_GPA, MAP_SHARED);
	report(try_write((void *)page, 1), true, "write without C-bit");
	npf_seen("was NPF with the RMP bit, not ENC");
	report(try_read((void *)page, &w) && w == 1, true, "and goes to shared memory");
	set_c_bit(gpa, true);
	expect(gpa, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_GPA, MAP_RIGHT);
	report(try_read((void *)page, &v), true, "private read of a shared page");
	npf_seen("was NPF with RMP and ENC");
	report(v, 0x1234, "and finds the contents when mapped right");

	/* Fetches are private whatever the C-bit says (15.34.5). */
	*(volatile u8 *)page = 0xc3;
	set_c_bit(gpa, false);
	TRY("callq *%0", : : "r"(page) : "r11", "rax", "memory");
	report(exc_vector, NONE, "fetch without C-bit comes from private memory");
	report(try_read((void *)page, &v) && (u8)v != 0xc3, true,
	       "where a read does not");
	TRY("callq *%0", : : "r"(page) : "r11", "rax", "memory");
	report(exc_vector, NONE, "and fetch again");
	set_c_bit(gpa, true);
}

static void guest_npf(void)
{
	u64 page = WINDOW + EMPTY, v;
	bool cf;

	expect(EMPTY, NPF_U | NPF_ENC | NPF_GPA, ASSIGN);
	try_read((void *)page, &v);
	not_validated(page, "private read of what is not mapped, once the host maps it");
	npf_seen("was NPF with ENC, not present");
	pvalidate(page, 0, 1, &cf);
	report(cf, 0, "and it is validated");

	set_c_bit(EMPTY + 0x1000, false);
	expect(EMPTY + 0x1000, NPF_W | NPF_U | NPF_GPA, MAP_SHARED);
	report(try_write((void *)(page + 0x1000), 7), true,
	       "shared write to what is not mapped");
	npf_seen("was NPF without ENC");

	/* Page tables are private as well, without a C-bit. */
	*(u64 *)window(G_PD1 + REGIONS * 8) = (EMPTY + 0x2000) | 7;
	expect(EMPTY + 0x2000, NPF_W | NPF_U | NPF_ENC | NPF_GPT, ASSIGN);
	page = WINDOW + REGIONS * 0x200000;
	try_read((void *)page, &v);
	not_validated(page, "page table that is not mapped, once the host maps it");
	npf_seen("was NPF for the page table");

	try_read(window(EMPTY + 0x3000), &v);
	report(exc_vector == VC ? exc_error : exc_vector, 0x400,
	       "nested entry with a reserved bit: #VC for NPF");
}

static void guest_large(void)
{
	u64 page = WINDOW + LARGE, v;
	bool cf;

	report(pvalidate(page, 1, 1, &cf), 0, "PVALIDATE of a 2M page");
	report(cf, 0, "has changed something");
	report(try_write((void *)(page + 0x5000), 5), true, "it can be written");
	expect(LARGE, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_SIZEM | NPF_GPA, SMASH);
	report(pvalidate(page, 0, 0, &cf), 0, "PVALIDATE of 4K in a 2M page");
	npf_seen("was NPF with SIZEM");
	report(cf, 0, "and has changed something after PSMASH");
	try_read((void *)page, &v);
	not_validated(page, "one page is not validated");
	vmgexit(REMAP_LARGE << 12);
	expect(LARGE + 0x5000, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_GPA, MAP_SMALL);
	report(try_read((void *)(page + 0x5000), &v) && v == 5, true,
	       "the next is, mapped by 4K");
	npf_seen("and NPF when mapped by 2M");
}

/* The second VMSA: VMPL1, with all rights to PRIVATE and those set here. */
void guest_vmpl1(void);
void guest_vmpl1(void)
{
	u64 page = WINDOW + SMALL + 0x3000, v, size = 0, attrs = 2;
	bool cf;

	report(try_read((void *)page, &v) && v == 3, true, "VMPL1 may read the page");
	pvalidate(page, 0, 0, &cf);
	report(exc_vector, GP, "PVALIDATE at VMPL1 is #GP");
	report(rmpadjust(page, 0, 1 | 0x100), FAIL_PERMISSION,
	       "RMPADJUST for the own VMPL: FAIL_PERMISSION");
	report(rmpadjust(page, 0, 2 | 0x300), FAIL_PERMISSION,
	       "RMPADJUST of a right that the caller lacks: FAIL_PERMISSION");
	report(rmpadjust(page, 0, 2 | 1 << 16), FAIL_PERMISSION,
	       "RMPADJUST of the VMSA flag: FAIL_PERMISSION");
	report(rmpadjust(page, 0, 2 | 0x100), 0, "RMPADJUST of one that it has");
	rmpquery(page, &size, &attrs);
	report(attrs, 2 | 0x100, "RMPQUERY gives that");
	expect(SMALL + 0x3000, NPF_P | NPF_W | NPF_U | NPF_RMP | NPF_ENC | NPF_VMPL |
	       NPF_GPA, END);
	try_write((void *)page, 1);
	for (;;)
		;
}

static void prepare_vmpl1(void)
{
	u64 page = WINDOW + SMALL + 0x3000;
	bool cf;

	pvalidate(page, 0, 1, &cf);
	*(volatile u64 *)page = 3;
	report(rmpadjust(page, 0, 1 | 0x100), 0, "VMPL1 gets the right to read a page");
}

void guest_main(void);
void guest_main(void)
{
	report(rdmsr(SEV_STATUS) & 7, 7, "SEV_STATUS says SEV, SEV-ES and SNP");
	guest_pvalidate();
	guest_rmpadjust();
	guest_shared();
	guest_npf();
	guest_large();
	prepare_vmpl1();
	vmgexit(DONE << 12);
	for (;;)
		;
}

/* ---- Host ---------------------------------------------------------------- */

static u8 vmcb[4096] __attribute__((aligned(4096)));
static u8 hsave[4096] __attribute__((aligned(4096)));
static u8 bitmaps[5 * 4096] __attribute__((aligned(4096)));
static u64 n_pml4[512] __attribute__((aligned(4096)));
static u64 n_pdpt[512] __attribute__((aligned(4096)));
static u64 n_pd[512] __attribute__((aligned(4096)));
static u64 n_pt[REGIONS][512] __attribute__((aligned(4096)));
static u8 spare[4096] __attribute__((aligned(4096)));

static void put(void *page, u32 offset, u64 v, u32 size)
{
	volatile u8 *p = (volatile u8 *)page + offset;

	while (size--) {
		*p++ = v;
		v >>= 8;
	}
}

static u64 get(void *page, u32 offset)
{
	return *(volatile u64 *)((u8 *)page + offset);
}

static void put_seg(void *page, u32 offset, u16 sel, u16 attr, u32 limit, u64 base)
{
	put(page, offset, sel, 2);
	put(page, offset + 2, attr, 2);
	put(page, offset + 4, limit, 4);
	put(page, offset + 8, base, 8);
}

static void map_small(u64 region)
{
	u64 *pt = n_pt[region >> 21];

	for (u64 i = 0; i < 512; i++)
		pt[i] = (GUEST + region + i * 4096) | 0x67;
	n_pd[region >> 21] = (u64)pt | 0x67;
}

static void map_large(u64 region)
{
	n_pd[region >> 21] = (GUEST + region) | 0xe7;
}

static u64 *gtable(u64 gpa)
{
	return (u64 *)(GUEST + gpa);
}

static void build_vmsa(u64 gpa, void (*rip)(void), u64 stack, u8 vmpl)
{
	void *vmsa = (void *)(GUEST + gpa);
	struct { u16 limit; u64 base; } __attribute__((packed)) dt;

	put_seg(vmsa, 0x000, 16, 0xc93, ~0, 0);
	put_seg(vmsa, 0x010, 8, 0xa9b, ~0, 0);
	put_seg(vmsa, 0x020, 16, 0xc93, ~0, 0);
	put_seg(vmsa, 0x030, 16, 0xc93, ~0, 0);
	asm volatile("sgdt %0" : "=m"(dt));
	put_seg(vmsa, 0x060, 0, 0, dt.limit, dt.base);
	put_seg(vmsa, 0x070, 0, 0x82, 0xffff, 0);
	asm volatile("sidt %0" : "=m"(dt));
	put_seg(vmsa, 0x080, 0, 0, dt.limit, dt.base);
	put_seg(vmsa, 0x090, 24, 0x8b, 0x67, 0);
	put(vmsa, 0x0ca, vmpl, 1);
	put(vmsa, 0x0d0, 0x1d00, 8);			/* EFER */
	put(vmsa, 0x148, 0x620, 8);			/* CR4 */
	put(vmsa, 0x150, G_PML4 | C_BIT, 8);
	put(vmsa, 0x158, 0x80010033, 8);		/* CR0 */
	put(vmsa, 0x160, 0x400, 8);			/* DR7 */
	put(vmsa, 0x168, 0xffff0ff0, 8);		/* DR6 */
	put(vmsa, 0x170, 2, 8);				/* RFLAGS */
	put(vmsa, 0x178, (u64)rip, 8);
	put(vmsa, 0x1d8, WINDOW + stack + 0x8000 - 8, 8);
	put(vmsa, 0x268, 0x0007040600070406, 8);	/* PAT */
	put(vmsa, 0x3b0, 1, 8);				/* SNPActive */
	put(vmsa, 0x3e8, 1, 8);				/* XCR0 */
	put(vmsa, 0x408, 0x1f80, 4);			/* MXCSR */
	put(vmsa, 0x410, 0x37f, 2);			/* FCW */
}

static void build_guest(void)
{
	for (u64 i = 0; i < PROGRAM_SIZE; i += 8)
		*(volatile u64 *)(GUEST + G_PROGRAM + i) = *(volatile u64 *)(PROGRAM + i);

	gtable(G_PML4)[0] = G_PDPT | 0x67 | C_BIT;
	gtable(G_PDPT)[0] = G_PD0 | 0x67 | C_BIT;
	gtable(G_PDPT)[1] = G_PD1 | 0x67 | C_BIT;
	gtable(G_PD0)[PROGRAM >> 21] = G_PT_PROGRAM | 0x67 | C_BIT;
	for (u64 i = 0; i < PROGRAM_SIZE >> 12; i++)
		gtable(G_PT_PROGRAM)[i] = (G_PROGRAM + i * 4096) | 0x67 | C_BIT;
	for (u64 r = 0; r < REGIONS; r++) {
		u64 pt = G_PT_WINDOW + r * 4096;

		gtable(G_PD1)[r] = pt | 0x67 | C_BIT;
		for (u64 i = 0; i < 512; i++)
			gtable(pt)[i] = ((r << 21) + i * 4096) | 0x67 |
					(r << 21 == SHARED ? 0 : C_BIT);
	}
}

static void enable_snp(void)
{
	u64 base = rdmsr(RMP_BASE), end = rdmsr(RMP_END);

	rmp = (u64 *)(base + 0x4000);
	for (u64 *p = (u64 *)base; p < (u64 *)(end + 1); p++)
		*p = 0;
	for (u64 gpa = PRIVATE; gpa < PRIVATE + 0x200000; gpa += 4096) {
		u64 *e = rmp + ((GUEST + gpa) >> 12) * 2;

		e[0] = 1 | gpa | (u64)ASID << 51 | 1ULL << 62;
		if (gpa == G_VMSA || gpa == G_VMSA_VMPL1)
			e[0] |= 1ULL << 61;
		if (gpa == PRIVATE)
			e[0] |= 511 << 3;
		e[1] = 0x1f1f;		/* VMPL0 and 1 */
	}
	wrmsr(SYSCFG, rdmsr(SYSCFG) | 1 << 19 | 3 << 24);
	wrmsr(EFER, rdmsr(EFER) | 1 << 12);
	wrmsr(VM_HSAVE_PA, (u64)hsave);
	put(hsave, 0x400 + 0x3e8, 1, 8);		/* XCR0 */
}

static void build_vmcb(void)
{
	put(vmcb, 0x010, 3, 4);				/* VMRUN, VMMCALL */
	put(vmcb, 0x00c, 1 << 31 | 1 << 18, 4);		/* shutdown, CPUID */
	put(vmcb, 0x040, (u64)bitmaps, 8);		/* IOPM, MSRPM */
	put(vmcb, 0x048, (u64)bitmaps + 3 * 4096, 8);
	put(vmcb, 0x058, ASID, 4);
	put(vmcb, 0x090, 7, 8);				/* NP, SEV, SEV-ES */
	put(vmcb, 0x0b0, (u64)n_pml4, 8);
	put(vmcb, 0x0b8, 1, 8);				/* LBR virtualization */

	n_pml4[0] = (u64)n_pdpt | 0x67;
	n_pdpt[0] = (u64)n_pd | 0x67;
	map_small(PRIVATE);
	map_large(LARGE);
	map_small(SMALL);
	map_large(SHARED);
	map_small(EMPTY);
	for (int i = 0; i < 512; i++)
		n_pt[EMPTY >> 21][i] = 0;
	n_pt[EMPTY >> 21][3] = 1ULL << 45 | 0x67;
}

/* VMRUN; an exit restores RSP and RAX only, the rest is on the stack. */
static void vmrun(void)
{
	put(vmcb, 0x05c, 3, 1);				/* flush this ASID */
	asm volatile("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\t"
		     "push %%r14\n\tpush %%r15\n\t"
		     "vmrun\n\t"
		     "pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\t"
		     "pop %%rbp\n\tpop %%rbx"
		     : : "a"(vmcb)
		     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
		       "memory", "cc");
}

static bool ended;

static bool handle_npf(u64 info_1, u64 gpa)
{
	volatile struct talk *t = HOST_TALK;
	u64 page = gpa & ~0xfffULL;
	u64 *npte = &n_pt[gpa >> 21][(gpa >> 12) & 511];
	bool good = info_1 == t->info_1 && page == t->gpa;

	if (!good) {
		equal(info_1, t->info_1, "NPF error code");
		equal(page, t->gpa, "NPF address");
		return false;
	}
	t->npfs++;
	t->info_1 = 0;
	switch (t->action) {
	case MAP_SHARED:
		*npte = (u64)spare | 0x67;
		break;
	case ASSIGN:
		rmpupdate(GUEST + page, page, ASID, true, false);
		/* fall through */
	case MAP_RIGHT:
		*npte = (GUEST + page) | 0x67;
		break;
	case SMASH:
		map_small(LARGE);
		return equal(psmash(GUEST + LARGE), 0, "PSMASH on behalf of the guest");
	case MAP_SMALL:
		map_small(LARGE);
		break;
	case END:
		ended = true;
		break;
	}
	return true;
}

static void run(u64 vmsa)
{
	volatile struct talk *t = HOST_TALK;

	put(vmcb, 0x108, GUEST + vmsa, 8);
	while (!ended) {
		u64 code, info_1, info_2;

		vmrun();
		code = get(vmcb, 0x070);
		info_1 = get(vmcb, 0x078);
		info_2 = get(vmcb, 0x080);
		if (code == EXIT_VMGEXIT) {
			u64 msr = get(vmcb, 0x0a0);

			if (msr == DONE << 12)
				return;
			if (msr == REPORT << 12) {
				equal(t->got, t->want, (const char *)t->name);
				continue;
			}
			if (msr == REMAP_LARGE << 12) {
				map_large(LARGE);
				continue;
			}
		} else if (code == EXIT_NPF && handle_npf(info_1, info_2)) {
			continue;
		}
		ok(false, "guest runs to its end");
		print("# exit code ");
		print_hex(code);
		print(" info 1 ");
		print_hex(info_1);
		print(" info 2 ");
		print_hex(info_2);
		print("\n");
		return;
	}
}

int main(void);
int main(void)
{
	u64 v;

	build_guest();
	build_vmsa(G_VMSA, guest_main, G_STACK, 0);
	build_vmsa(G_VMSA_VMPL1, guest_vmpl1, G_STACK_VMPL1, 1);
	enable_snp();
	build_vmcb();
	for (u64 i = 0; i < 512; i++)
		rmpupdate(GUEST + SMALL + i * 4096, SMALL + i * 4096, ASID, true, false);
	rmpupdate(GUEST + LARGE, LARGE, ASID, true, true);
	run(G_VMSA);
	run(G_VMSA_VMPL1);
	ok(ended, "write without the right is NPF with the VMPL bit");
	ok(try_read((void *)(GUEST + G_PROGRAM), &v) && v != *(u64 *)PROGRAM,
	   "the host does not see the guest's program");
	done();
}
