/*
 * The RMP as the host sees it: MSRs, RMPUPDATE, PSMASH, RMPREAD, and what an
 * access to a page that is not the host's comes to (15.36.2-12)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"
#include "rmp.h"
#include "user.h"

#define MSR_IORR_BASE0	0xc0010016
#define MSR_IORR_MASK1	0xc0010019
#define MSR_TOP_MEM	0xc001001a
#define MSR_TOP_MEM2	0xc001001d
#define MSR_VM_HSAVE_PA	0xc0010117
#define MSR_SMM_KEY	0xc0010119

/* Free RAM; 2M regions */
#define REGION_A	0x10000000UL
#define REGION_B	0x10200000UL
#define REGION_C	0x10400000UL

#define SECRET		0x5ec4e75ec4e75ec4UL
#define UNMAPPED	0xffff800000000000UL

static u64 not_covered;		/* first address beyond the RMP */

/* Bits 11:3 of a 2M region's first entry */
static u32 subpages(u64 spa)
{
	return rmp_entry(spa & ~(REGION - 1)) >> 3 & 0x1ff;
}

static u64 split[512] __attribute__((aligned(4096)));

/* With a page table of the caller's, which he may change */
static void map_4k(u64 region, u64 *pt)
{
	for (int i = 0; i < 512; i++)
		pt[i] = (region + i * PAGE_SIZE) | PTE;
	*own_pde(region) = (u64)pt | PTE;
	flush_tlb();
}

static void map_2m(u64 region)
{
	*own_pde(region) = region | PDE_2M;
	flush_tlb();
}

static void test_before(void)
{
	u64 v;

	section("APM2 7.10", "The C-bit of a page table entry is no part of the address.");
	check(rdmsr(MSR_SYSCFG) & SYSCFG_MEM_ENC, "firmware has set MemEncryptionModEn");
	*(volatile u64 *)REGION_B = SECRET;
	*own_pde(REGION_A) = REGION_B | C_BIT | PDE_2M;
	flush_tlb();
	check(try_read(REGION_A, &v) == NO_EXCEPTION && v == SECRET, "leaf entry");
	map_4k(REGION_A, split);
	split[0] = REGION_B | C_BIT | PTE;
	*own_pde(REGION_A) |= C_BIT;
	flush_tlb();
	check(try_read(REGION_A, &v) == NO_EXCEPTION && v == SECRET, "directory entry");
	*own_pde(REGION_A) = REGION_A | BIT(45) | PDE_2M;
	flush_tlb();
	try_read(REGION_A, &v);
	check(ex_vector == PF && (ex_error & PF_RSVD),
	      "other bits above the reduced address size are reserved");
	map_2m(REGION_A);

	section("APM2 15.36.2", "SNP is off until software sets SYSCFG.SecureNestedPagingEn; RMP instructions are #UD.");
	check(!(rdmsr(MSR_SYSCFG) & SYSCFG_SNP_EN), "SNP is off after reset");
	rmp_assign(REGION_A, 0, 1, false, false);
	check_raised(UD, 0, "RMPUPDATE");
	psmash(REGION_A);
	check_raised(UD, 0, "PSMASH");
}

static void enable_snp(void)
{
	u64 base = rdmsr(MSR_RMP_BASE), end = rdmsr(MSR_RMP_END);

	not_covered = rmp_pages() * PAGE_SIZE;
	if (rmp_cfg() & RMP_CFG_SEGMENTED) {
		u64 *table = rmp_segments(), shift = rmp_cfg() >> 8 & 0x3f;
		u32 eax, ebx, ecx, edx, n = 0;

		section("APM2 15.36.4", "A segmented RMP has a table of its segments behind 16K of bookkeeping, and no RMP_END.");
		cpuid(0x80000025, 0, &eax, &ebx, &ecx, &edx);
		check(shift >= (eax & 0x3f) && shift <= (eax >> 6 & 0x3f), "segments of a size that CPUID has (2^%lu)", shift);
		check(base && !end, "RMP_BASE is set, RMP_END is 0");
		while (n < RMP_SEGMENTS && table[n])
			n++;
		check(n > 1 && RMP_SEGMENT_BASE(table[0]) > RMP_SEGMENT_BASE(table[1]), "%u segments, not in order", n);
		check(not_covered > (RMP_SEGMENT_BASE(table[0]) | RMP_SEGMENT_GIB(table[0]) << 22), "they cover themselves");
		check_eq(wrmsr_safe(MSR_RMP_CFG, BIT(1)), GP, "RMP_CFG: reserved bits are #GP");
	} else {
		section("APM2 15.36.4", "RMP_BASE and RMP_END + 1 are aligned to 8K; an entry of 16 bytes for each page follows 16K of bookkeeping.");
		check(base && end > base && !(base & 0x1fff) && (end & 0x1fff) == 0x1fff,
		      "firmware has set them up");
		check(not_covered > end, "the RMP covers itself");
	}
	rmp_clear();
	rmp_enable();
	check(rdmsr(MSR_SYSCFG) & SYSCFG_SNP_EN, "SNP can be enabled");
}

static void locked(u32 msr)
{
	u64 v;

	/* Only if this processor has it */
	if (rdmsr_safe(msr, &v) != NO_EXCEPTION)
		v = 0;
	check(wrmsr_safe(msr, v) == GP && !ex_error, "write of MSR %x is #GP(0)", msr);
}

static void test_locks(void)
{
	static const u32 fixed[] = {
		0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
	};
	u64 syscfg = rdmsr(MSR_SYSCFG), base = rdmsr(MSR_RMP_BASE), end = rdmsr(MSR_RMP_END);

	section("APM2 15.36.2", "With SNP on, SYSCFG ignores writes; fixed MTRRs, IORRs, TOP_MEM, TOP_MEM2 and SMM_KEY are #GP(0).");
	check_eq(wrmsr_safe(MSR_SYSCFG, 0), NO_EXCEPTION, "SYSCFG write does not fault");
	check_eq(rdmsr(MSR_SYSCFG), syscfg, "and is ignored");
	wrmsr_safe(MSR_RMP_BASE, 0);
	check_eq(rdmsr(MSR_RMP_BASE), base, "RMP_BASE is locked");
	wrmsr_safe(MSR_RMP_END, 0x1fff);
	check_eq(rdmsr(MSR_RMP_END), end, "RMP_END is locked");
	if (rmp_cfg()) {
		u64 cfg = rmp_cfg();

		wrmsr_safe(MSR_RMP_CFG, 0);
		check_eq(rmp_cfg(), cfg, "RMP_CFG is locked");
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(fixed); i++)
		locked(fixed[i]);
	for (u32 msr = MSR_IORR_BASE0; msr <= MSR_IORR_MASK1; msr++)
		locked(msr);
	locked(MSR_TOP_MEM);
	locked(MSR_TOP_MEM2);
	locked(MSR_SMM_KEY);
}

static void test_rmpupdate_input(void)
{
	struct rmp_state st = { .assigned = 1, .asid = 1, .reserved = 1 };

	section("APM3 RMPUPDATE", "FAIL_INPUT for what is not aligned, not covered or reserved; the entry stays as it is.");
	check_eq(rmp_assign(REGION_A + 0x1000, 0, 1, true, false), FAIL_INPUT,
		 "2M at an address that is not 2M-aligned");
	check_eq(rmp_assign(REGION_A, 0x1000, 1, true, false), FAIL_INPUT,
		 "2M with a GPA that is not 2M-aligned");
	check_eq(rmp_assign(not_covered, 0, 1, false, false), FAIL_INPUT,
		 "first page that is not covered");
	check_eq(rmp_assign(~0xfffUL, 0, 1, false, false), FAIL_INPUT, "highest address");
	check_eq(rmp_assign(C_BIT, 0, 1, false, false), FAIL_INPUT, "address with the C-bit");
	check_eq(rmp_assign(REGION_A, 0, 0x10000, false, false), FAIL_INPUT,
		 "ASID that does not exist");
	check_eq(rmpupdate_raw(REGION_A, &st), FAIL_INPUT, "reserved byte of the new state");
	st = (struct rmp_state){ .asid = 1 };
	check_eq(rmpupdate_raw(REGION_A, &st), FAIL_INPUT, "ASID without assigned");
	rmpupdate_raw(REGION_A, (void *)UNMAPPED);
	check(ex_vector == PF && ex_cr2 == UNMAPPED, "new state is read through the page tables");
	check_eq(rmp_entry(REGION_A), 0, "none of these has changed the entry");
}

static void test_rmpupdate(void)
{
	u64 page = REGION_A + 0x3000;

	section("APM2 15.36.6", "RMPUPDATE assigns: validated is cleared, VMPL0 has all rights, the others none.");
	*(volatile u64 *)page = SECRET;
	check_eq(rmp_assign(page, 0x12345000, 5, false, false), RMP_OK, "assign a 4K page");
	check_eq(rmp_entry(page), RMP_ASSIGNED | 0x12345000 | RMP_ASID(5), "entry in memory");
	check_eq(rmp_quads(page)[1] & 0xffffffff, 0x1f, "rights of the VMPLs");
	check_eq(subpages(page), 1, "the region's first entry counts it");
	check_eq(rmp_assign(page, 0x1000, 6, false, false), RMP_OK, "and assign it anew");
	check_eq(rmp_entry(page), RMP_ASSIGNED | 0x1000 | RMP_ASID(6), "with the new state");

	section("APM3 RMPUPDATE", "FAIL_OVERLAP where an entry of another size is in the way.");
	check_eq(rmp_assign(REGION_A, 0, 1, true, false), FAIL_OVERLAP,
		 "2M over an assigned 4K page");
	check_eq(rmp_release(page, false), RMP_OK, "release it");
	check_eq(rmp_entry(page), 0, "entry is empty again");
	check_eq(subpages(page), 0, "and not counted");
	check_eq(rmp_assign(REGION_A, 0x40000000, 7, true, false), RMP_OK, "assign a 2M page");
	check_eq(rmp_entry(REGION_A) & ~0xff8UL,
		 RMP_ASSIGNED | RMP_2M | 0x40000000 | RMP_ASID(7), "its entry");
	check_eq(rmp_assign(page, 0, 1, false, false), FAIL_OVERLAP, "4K inside a 2M entry");
	check_eq(rmp_release(page, false), FAIL_OVERLAP, "also to release it");

	section("APM3 PSMASH", "PSMASH turns a 2M entry into 512 of 4K, with consecutive GPAs.");
	check_eq(psmash(page), FAIL_INPUT, "address that is not 2M-aligned");
	check_eq(psmash((not_covered + REGION - 1) & -REGION), FAIL_BADADDR,
		 "what is not covered");
	check_eq(psmash(REGION_B), FAIL_INPUT, "page that is not assigned");
	check_eq(psmash(REGION_A), RMP_OK, "a 2M page");
	check_eq(rmp_entry(page), RMP_ASSIGNED | 0x40003000 | RMP_ASID(7), "one of the 512 entries");
	check_eq(rmp_entry(REGION_A + 511 * PAGE_SIZE),
		 RMP_ASSIGNED | 0x401ff000 | RMP_ASID(7), "the last one");
	check_eq(rmp_entry(REGION_A) & ~0xff8UL, RMP_ASSIGNED | 0x40000000 | RMP_ASID(7),
		 "the first one");
	check_eq(rmp_quads(REGION_A + 511 * PAGE_SIZE)[1] & 0xffffffff, 0x1f,
		 "all have the rights of the whole");
	check_eq(subpages(REGION_A), 511, "511 others are counted");
	check_eq(psmash(REGION_A), FAIL_INPUT, "once more");
	check_eq(rmp_release(REGION_A, true), FAIL_OVERLAP, "2M release of 4K pages");
	for (int i = 0; i < 512; i++)
		rmp_release(REGION_A + i * PAGE_SIZE, false);
	check_eq(rmp_entry(REGION_A), 0, "all released");
	check_eq(rmp_assign(REGION_A, 0, 7, true, false), RMP_OK, "2M again");
	check_eq(rmp_release(REGION_A, true), RMP_OK, "2M release of a 2M page");
	check_eq(rmp_entry(REGION_A), 0, "is empty");

	section("APM2 15.36.3", "An immutable page cannot be changed by the hypervisor.");
	check_eq(rmp_assign(REGION_A, 0, 0, false, true), RMP_OK, "give a page to the firmware");
	check_eq(rmp_release(REGION_A, false), FAIL_PERMISSION, "RMPUPDATE, to take it back");
	check_eq(rmp_assign(REGION_A, 0, 1, false, false), FAIL_PERMISSION, "RMPUPDATE, to a guest");
	check_eq(rmp_assign(REGION_A, 0, 0, true, true), FAIL_PERMISSION, "RMPUPDATE of the 2M around it");
	rmp_assign(REGION_B, 0, 5, true, true);
	check_eq(psmash(REGION_B), FAIL_PERMISSION, "PSMASH of a guest's page in launch");
}

static void test_rmpread(void)
{
	struct rmp_state st = { 0 };
	u64 page = REGION_C + 0x5000;

	section("APM3 RMPREAD", "RMPREAD gives the entry in the format of RMPUPDATE; page size 2 tells of assigned pages in the region.");
	if (!(sev_eax() & SEV_RMPREAD)) {
		rmpread(page, &st);
		check_raised(UD, 0, "not in CPUID: it is #UD");
		return;
	}
	rmp_assign(page, 0x7000, 9, false, false);
	check_eq(rmpread(page, &st), RMP_OK, "an assigned page");
	check(st.gpa == 0x7000 && st.assigned == 1 && !(st.pagesize & 1) &&
	      !st.immutable && st.asid == 9, "its entry");
	check_eq(rmpread(REGION_C, &st), RMP_OK, "the region's first page");
	check(!st.assigned && st.pagesize == 2, "region status says that one is assigned");
	check_eq(rmpread(not_covered, &st), FAIL_INPUT, "what is not covered");
	rmp_release(page, false);
}

/* A host's view of a guest's page; who may access what is in rmp_access.c. */
static void test_view(void)
{
	u64 page = REGION_C + 0x8000, v, w;

	section("APM2 15.34.5", "What is private to a guest is ciphertext for the host.");
	map_4k(REGION_C, split);
	*(volatile u64 *)page = SECRET;
	*(volatile u64 *)(page + 8) = SECRET;
	rmp_assign(page, 0, 3, false, false);
	check(try_read(page, &v) == NO_EXCEPTION, "a read does not fault");
	check(v != SECRET, "but does not see the contents");
	check(try_read(page + 8, &w) == NO_EXCEPTION && w != v && w != SECRET,
	      "equal plaintext does not look equal");
	check(try_read(page, &w) == NO_EXCEPTION && w == v, "the view is stable");
	rmp_release(page, false);

	section("APM2 15.36.12", "WRMSR of VM_HSAVE_PA is #GP(0) for a page that is not the hypervisor's.");
	rmp_assign(page, 0, 3, false, false);
	check_eq(wrmsr_safe(MSR_VM_HSAVE_PA, page), GP, "a guest's page");
	check_eq(wrmsr_safe(MSR_VM_HSAVE_PA, REGION_A), GP, "firmware's page");
	check_eq(wrmsr_safe(MSR_VM_HSAVE_PA, page + PAGE_SIZE), NO_EXCEPTION, "the host's own");

	section("APM2 15.36.10", "Translations that are cached go when the RMP changes.");
	check_eq(try_write(page - 0x1000, 1), NO_EXCEPTION, "fill the TLB for a page");
	rmp_assign(page - 0x1000, 0, 3, false, false);
	check_eq(try_write(page - 0x1000, 1), PF, "RMPUPDATE drops the translation");
	rmp_release(page, false);
	rmp_release(page - 0x1000, false);
	check_eq(try_write(page, 1), NO_EXCEPTION, "a released page can be written");
}

static void test_guest_only(void)
{
	u64 size = 0, attrs = 1;
	bool cf;

	section("APM3 PVALIDATE", "PVALIDATE, RMPADJUST and RMPQUERY are #UD outside of SNP guests.");
	pvalidate(REGION_A, 0, 1, &cf);
	check_raised(UD, 0, "PVALIDATE");
	rmpadjust(REGION_A, 0, 1);
	check_raised(UD, 0, "RMPADJUST");
	rmpquery(REGION_A, &size, &attrs);
	check_raised(UD, 0, "RMPQUERY");
}

static struct rmp_state user_state;
static void u_rmpupdate(void) { rmpupdate_raw(REGION_C, &user_state); }
static void u_psmash(void) { psmash(REGION_C); }
static void u_rmpread(void) { rmpread(REGION_C, &user_state); }

static void test_user(void)
{
	section("APM3 RMPUPDATE", "RMPUPDATE, PSMASH and RMPREAD are #GP(0) above CPL 0.");
	user_call(u_rmpupdate);
	check_raised(GP, 0, "RMPUPDATE");
	user_call(u_psmash);
	check_raised(GP, 0, "PSMASH");
	user_call(u_rmpread);
	check_raised(sev_eax() & SEV_RMPREAD ? GP : UD, 0, "RMPREAD");
}

void test_main(void)
{
	user_map();
	test_before();
	enable_snp();
	test_locks();
	test_rmpupdate_input();
	test_rmpupdate();
	test_rmpread();
	test_view();
	test_guest_only();
	test_user();
}
