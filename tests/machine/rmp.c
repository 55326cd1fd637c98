// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The RMP as the host sees it: MSRs, RMPUPDATE, PSMASH, RMPREAD, and what an
 * access to a page that is not the host's comes to (APM vol. 2, 15.36.2-12).
 */
#include "machine-test.h"

#define SYSCFG		0xc0010010
#define TOP_MEM		0xc001001a
#define VM_HSAVE_PA	0xc0010117
#define RMP_BASE	0xc0010132
#define RMP_END		0xc0010133
#define MTRR_FIX64K	0x250

#define SYSCFG_MFDM	(1ULL << 19)
#define SYSCFG_MEM_ENC	(1ULL << 23)
#define SYSCFG_SNP_EN	(1ULL << 24)
#define SYSCFG_VMPL_EN	(1ULL << 25)

#define C_BIT		(1ULL << 51)

/* #PF error codes */
#define PF_P		1
#define PF_W		2
#define PF_RSVD		8
#define PF_RMP		(1ULL << 31)

enum { OK, FAIL_INPUT, FAIL_PERMISSION, FAIL_INUSE, FAIL_OVERLAP, FAIL_SIZE = 6 };

/* Free RAM; 2M regions */
#define REGION_A	0x1000000ULL
#define REGION_B	0x1200000ULL
#define REGION_C	0x1400000ULL

#define SECRET		0x5ec4e75ec4e75ec4ULL

struct rmp_state {
	u64 gpa;
	u8 assigned, pagesize, immutable, rsvd;
	u32 asid;
} __attribute__((packed, aligned(16)));

static u64 *rmp;	/* entries */
static u64 pages;	/* that they cover */

static u64 split[512] __attribute__((aligned(4096)));
static u64 split_a[512] __attribute__((aligned(4096)));

static u32 rmpupdate_raw(u64 spa, struct rmp_state *st)
{
	u32 ret = 0xdead;

	TRY(".byte 0xf2, 0x0f, 0x01, 0xfe", : "=a"(ret) : "a"(spa), "c"(st)
	    : "r11", "memory", "cc");
	return exc_vector == NONE ? ret : 0xdead;
}

static u32 rmpupdate(u64 spa, u64 gpa, u32 asid, bool size_2m, bool immutable)
{
	struct rmp_state st = {
		.gpa = gpa, .assigned = 1, .pagesize = size_2m,
		.immutable = immutable, .asid = asid,
	};

	return rmpupdate_raw(spa, &st);
}

static u32 release(u64 spa, bool size_2m)
{
	struct rmp_state st = { .pagesize = size_2m };

	return rmpupdate_raw(spa, &st);
}

static u32 psmash(u64 spa)
{
	u32 ret = 0xdead;

	TRY(".byte 0xf3, 0x0f, 0x01, 0xff", : "=a"(ret) : "a"(spa)
	    : "r11", "memory", "cc");
	return exc_vector == NONE ? ret : 0xdead;
}

static u32 rmpread(u64 spa, struct rmp_state *st)
{
	u32 ret = 0xdead;

	TRY(".byte 0xf2, 0x0f, 0x01, 0xfd", : "=a"(ret) : "a"(spa), "c"(st)
	    : "r11", "memory", "cc");
	return exc_vector == NONE ? ret : 0xdead;
}

static u64 lo(u64 spa)
{
	return ((volatile u64 *)rmp)[spa >> 12 << 1];
}

/* Bits 11:3 of a 2M region's first entry */
static u32 subpages(u64 spa)
{
	return lo(spa & ~0x1fffffULL) >> 3 & 0x1ff;
}

static void map_4k(u64 region, u64 *pt)
{
	for (int i = 0; i < 512; i++)
		pt[i] = (region + i * 4096) | 7;
	pd[region >> 21] = (u64)pt | 7;
	flush_tlb();
}

static void map_2m(u64 region)
{
	pd[region >> 21] = region | 0x87;
	flush_tlb();
}

static void test_before(void)
{
	u64 v;

	ok(rdmsr(SYSCFG) & SYSCFG_MEM_ENC, "firmware has set MemEncryptionModEn");
	ok(!(rdmsr(SYSCFG) & SYSCFG_SNP_EN), "SNP is off after reset");

	rmpupdate(REGION_A, 0, 1, false, false);
	raised(UD, 0, "RMPUPDATE is #UD before SNP is enabled");
	psmash(REGION_A);
	raised(UD, 0, "PSMASH is #UD before SNP is enabled");

	/* The C-bit is no part of the address. */
	*(volatile u64 *)REGION_B = SECRET;
	pd[REGION_A >> 21] = REGION_B | C_BIT | 0x87;
	flush_tlb();
	ok(try_read((void *)REGION_A, &v) && v == SECRET,
	   "C-bit in a leaf entry is masked out");
	map_4k(REGION_A, split);
	split[0] = REGION_B | C_BIT | 7;
	pd[REGION_A >> 21] |= C_BIT;
	flush_tlb();
	ok(try_read((void *)REGION_A, &v) && v == SECRET,
	   "C-bit in a directory entry is masked out");
	map_2m(REGION_A);

	pd[REGION_A >> 21] = REGION_A | (1ULL << 45) | 0x87;
	flush_tlb();
	try_read((void *)REGION_A, &v);
	ok(exc_vector == PF && (exc_error & PF_RSVD),
	   "other bits above the address size are reserved");
	map_2m(REGION_A);
}

static void enable_snp(void)
{
	u64 base = rdmsr(RMP_BASE), end = rdmsr(RMP_END);

	rmp = (u64 *)(base + 0x4000);
	pages = (end + 1 - base - 0x4000) / 16;
	ok(base && end > base && end < 8ULL << 30 && !(base & 0x1fff) &&
	   (end & 0x1fff) == 0x1fff, "RMP_BASE and RMP_END are set and aligned");
	for (u64 *p = (u64 *)base; p < (u64 *)(end + 1); p++)
		*p = 0;
	wrmsr(SYSCFG, rdmsr(SYSCFG) | SYSCFG_MFDM | SYSCFG_SNP_EN | SYSCFG_VMPL_EN);
	ok(rdmsr(SYSCFG) & SYSCFG_SNP_EN, "SNP can be enabled");
}

static void test_locks(void)
{
	u64 syscfg = rdmsr(SYSCFG), base = rdmsr(RMP_BASE);

	ok(wrmsr(SYSCFG, 0), "SYSCFG write with SNP enabled does not fault");
	equal(rdmsr(SYSCFG), syscfg, "and is ignored");
	wrmsr(RMP_BASE, 0);
	equal(rdmsr(RMP_BASE), base, "RMP_BASE is locked");
	wrmsr(TOP_MEM, 0);
	raised(GP, 0, "TOP_MEM write is #GP");
	wrmsr(MTRR_FIX64K, 0);
	raised(GP, 0, "fixed MTRR write is #GP");
}

static void test_rmpupdate(void)
{
	struct rmp_state st = { .assigned = 1, .asid = 1, .rsvd = 1 };
	u64 page = REGION_A + 0x3000;

	equal(rmpupdate(REGION_A + 0x1000, 0, 1, true, false), FAIL_INPUT,
	      "2M at an address that is not 2M-aligned: FAIL_INPUT");
	equal(rmpupdate(REGION_A, 0x1000, 1, true, false), FAIL_INPUT,
	      "2M with a GPA that is not 2M-aligned: FAIL_INPUT");
	equal(rmpupdate(pages << 12, 0, 1, false, false), FAIL_INPUT,
	      "first page that is not covered: FAIL_INPUT");
	equal(rmpupdate(~0xfffULL, 0, 1, false, false), FAIL_INPUT,
	      "highest address: FAIL_INPUT");
	equal(rmpupdate(1ULL << 51, 0, 1, false, false), FAIL_INPUT,
	      "address with the C-bit: FAIL_INPUT");
	equal(rmpupdate(REGION_A, 0, 0x10000, false, false), FAIL_INPUT,
	      "ASID that does not exist: FAIL_INPUT");
	equal(rmpupdate_raw(REGION_A, &st), FAIL_INPUT,
	      "reserved byte of the new state: FAIL_INPUT");
	st = (struct rmp_state){ .asid = 1 };
	equal(rmpupdate_raw(REGION_A, &st), FAIL_INPUT,
	      "ASID without assigned: FAIL_INPUT");
	rmpupdate_raw(REGION_A, (void *)0xffff800000000000ULL);
	ok(exc_vector == PF && exc_cr2 == 0xffff800000000000ULL,
	   "new state is read through the page tables");
	equal(lo(REGION_A), 0, "none of these has changed the entry");

	*(volatile u64 *)page = SECRET;
	equal(rmpupdate(page, 0x12345000, 5, false, false), OK, "assign a 4K page");
	equal(lo(page), 1 | 0x12345000 | 5ULL << 51, "entry in memory");
	equal(rmp[(page >> 12) * 2 + 1] & 0xffffffff, 0x1f,
	      "VMPL0 has all rights, the others none");
	equal(subpages(page), 1, "the region's first entry counts it");
	equal(rmpupdate(page, 0x1000, 6, false, false), OK, "and assign it anew");
	equal(rmpupdate(REGION_A, 0, 1, true, false), FAIL_OVERLAP,
	      "2M over an assigned 4K page: FAIL_OVERLAP");
	equal(release(page, false), OK, "release it");
	equal(lo(page), 0, "entry is empty again");
	equal(subpages(page), 0, "and not counted");

	equal(rmpupdate(REGION_A, 0x40000000, 7, true, false), OK, "assign a 2M page");
	equal(lo(REGION_A) & ~0xff8ULL, 3 | 0x40000000 | 7ULL << 51, "its entry");
	equal(rmpupdate(page, 0, 1, false, false), FAIL_OVERLAP,
	      "4K inside a 2M entry: FAIL_OVERLAP");
	equal(release(page, false), FAIL_OVERLAP, "also to release it");

	equal(psmash(page), FAIL_INPUT, "PSMASH of an address that is not 2M-aligned");
	equal(psmash(pages << 12), 4, "PSMASH of what is not covered: FAIL_BADADDR");
	equal(psmash(REGION_B), FAIL_INPUT, "PSMASH of a page that is not assigned");
	equal(psmash(REGION_A), OK, "PSMASH");
	equal(lo(page), 1 | 0x40003000 | 7ULL << 51, "one of the 512 entries");
	equal(lo(REGION_A) & ~0xff8ULL, 1 | 0x40000000 | 7ULL << 51, "the first one");
	equal(subpages(REGION_A), 511, "511 others are counted");
	equal(psmash(REGION_A), FAIL_INPUT, "PSMASH once more");
	equal(release(REGION_A, true), FAIL_OVERLAP, "2M release of 4K pages");
	for (int i = 0; i < 512; i++)
		release(REGION_A + i * 4096, false);
	equal(lo(REGION_A), 0, "all released");

	equal(rmpupdate(REGION_A, 0, 0, false, true), OK, "give a page to the firmware");
	equal(release(REGION_A, false), FAIL_PERMISSION,
	      "RMPUPDATE of an immutable page: FAIL_PERMISSION");
}

static void test_rmpread(void)
{
	struct rmp_state st = { 0 };
	u64 page = REGION_B + 0x5000;

	rmpupdate(page, 0x7000, 9, false, false);
	equal(rmpread(page, &st), OK, "RMPREAD");
	ok(st.gpa == 0x7000 && st.assigned == 1 && !(st.pagesize & 1) &&
	   !st.immutable && st.asid == 9, "RMPREAD gives the entry");
	equal(rmpread(REGION_B, &st), OK, "RMPREAD of the region's first page");
	ok(!st.assigned && st.pagesize == 2, "region status says that one is assigned");
	equal(rmpread(pages << 12, &st), FAIL_INPUT, "RMPREAD of what is not covered");
	release(page, false);
}

static void test_access(void)
{
	u64 page = REGION_C + 0x8000, v, w;

	map_4k(REGION_C, split);
	*(volatile u64 *)page = SECRET;
	*(volatile u64 *)(page + 8) = SECRET;
	rmpupdate(page, 0, 3, false, false);

	ok(!try_write((void *)page, 1), "host write to a guest's page faults");
	raised(PF, PF_P | PF_W | PF_RMP, "with the RMP bit");
	equal(exc_cr2, page, "and CR2");
	ok(try_read((void *)page, &v), "host read does not fault");
	ok(v != SECRET, "but does not see the contents");
	ok(try_read((void *)(page + 8), &w) && w != v && w != SECRET,
	   "equal plaintext does not look equal");
	ok(try_read((void *)page, &w) && w == v, "the view is stable");
	ok(try_write((void *)(page + 0x1000), 2), "next page can be written by a 4K mapping");

	/* A 2M mapping needs all sub-pages. */
	map_2m(REGION_C);
	ok(!try_write((void *)(page + 0x1000), 3), "but not by a 2M mapping");
	raised(PF, PF_P | PF_W | PF_RMP, "with the RMP bit");
	ok(try_read((void *)(page + 0x1000), &v) && v == 2, "where reads are fine");

	/* Page tables have to be the host's. */
	map_4k(REGION_A, split_a);
	for (int i = 0; i < 512; i++)
		((volatile u64 *)REGION_A)[512 + i] = (REGION_C + i * 4096) | 7;
	pd[REGION_B >> 21] = (REGION_A + 0x1000) | 7;
	flush_tlb();
	ok(try_read((void *)REGION_B, &v), "a page table in the host's memory");
	rmpupdate(REGION_A + 0x1000, 0, 3, false, false);
	try_read((void *)REGION_B, &v);
	raised(PF, PF_P | PF_RMP, "is a fault once it is a guest's");
	release(REGION_A + 0x1000, false);
	ok(try_read((void *)REGION_B, &v), "and works when it is released");
	map_2m(REGION_B);

	ok(!wrmsr(VM_HSAVE_PA, page), "VM_HSAVE_PA cannot be a guest's page");
	ok(wrmsr(VM_HSAVE_PA, REGION_B), "but one of the host's");

	map_4k(REGION_C, split);
	ok(try_write((void *)(page - 0x1000), 1), "fill the TLB for a page");
	rmpupdate(page - 0x1000, 0, 3, false, false);
	ok(!try_write((void *)(page - 0x1000), 1), "RMPUPDATE drops the translation");

	/* Firmware's pages: readable, not writable. */
	ok(try_read((void *)REGION_A, &v), "firmware's page can be read");
	ok(!try_write((void *)REGION_A, v), "but not written");

	release(page, false);
	release(page - 0x1000, false);
	map_4k(REGION_C, split);
	ok(try_write((void *)page, 1), "a released page can be written");
}

static void test_guest_only(void)
{
	TRY(".byte 0xf2, 0x0f, 0x01, 0xff", : : "a"(REGION_A), "c"(0), "d"(1)
	    : "r11", "memory", "cc");
	raised(UD, 0, "PVALIDATE is #UD in the host");
	TRY(".byte 0xf3, 0x0f, 0x01, 0xfe", : : "a"(REGION_A), "c"(0), "d"(1)
	    : "r11", "memory", "cc");
	raised(UD, 0, "RMPADJUST is #UD in the host");
}

int main(void);
int main(void)
{
	test_before();
	enable_snp();
	test_locks();
	test_rmpupdate();
	test_rmpread();
	test_access();
	test_guest_only();
	done();
}
