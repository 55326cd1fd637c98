/*
 * Who may access what: the table of RMP checks of 15.36.10, row by row, for the
 * host, a guest without SNP and an SNP guest
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define NPT_RESERVED	BIT(45)

/* The first page of a 2M region each; see fill_rmp() */
enum owner {
	HYPERVISOR, FIRMWARE, OTHER_GUEST, IN_LAUNCH, OTHER_GPA, NOT_VALIDATED, VALID,
	MIXED,			/* hypervisor's, with one page assigned in its region */
	LARGE_NOT_VALIDATED, LARGE_VALID, OWNERS,
};

static const char *const owner_names[] = {
	"hypervisor's page", "firmware's page", "another guest's page", "page in launch",
	"page with another GPA", "page that is not validated", "valid page",
	"hypervisor's page next to a guest's", "2M page that is not validated",
	"valid 2M page",
};

enum access { READ, WRITE, FETCH, TABLE, ACCESSES };

static const char *const access_names[] = { "read", "write", "fetch", "page table" };

#define AREA(owner)	(0x22000000UL + (owner) * REGION)
#define TABLE_VA	0x28000000UL	/* mapped by the page in question as a table */
#define RET_OFFSET	0x800
#define ADDR(owner, access) (AREA(owner) + ((access) == FETCH ? RET_OFFSET : 0x10))

static void fill_rmp(void)
{
	static const u64 head[] = {
		[FIRMWARE] = RMP_ASSIGNED | RMP_IMMUTABLE,
		[OTHER_GUEST] = RMP_ASSIGNED | RMP_VALIDATED | RMP_ASID(GUEST_ASID + 1),
		[IN_LAUNCH] = RMP_ASSIGNED | RMP_VALIDATED | RMP_IMMUTABLE | RMP_ASID(GUEST_ASID),
		[OTHER_GPA] = (RMP_ASSIGNED | RMP_VALIDATED | RMP_ASID(GUEST_ASID)) + PAGE_SIZE,
		[NOT_VALIDATED] = RMP_ASSIGNED | RMP_ASID(GUEST_ASID),
		[VALID] = RMP_ASSIGNED | RMP_VALIDATED | RMP_ASID(GUEST_ASID),
		[LARGE_NOT_VALIDATED] = RMP_ASSIGNED | RMP_2M | RMP_ASID(GUEST_ASID),
		[LARGE_VALID] = RMP_ASSIGNED | RMP_2M | RMP_VALIDATED | RMP_ASID(GUEST_ASID),
	};

	rmp_clear();
	for (int i = 0; i < OWNERS; i++) {
		u64 *entry = rmp_quads(AREA(i));

		*(u8 *)(AREA(i) + RET_OFFSET) = 0xc3;
		if (i == MIXED) {
			entry[0] = 1 << 3;		/* assigned pages behind it */
			entry[2 * 9 + 0] = head[VALID] | (AREA(i) + 9 * PAGE_SIZE);
		} else if (head[i]) {
			entry[0] = head[i] + (i == FIRMWARE ? 0 : AREA(i));
			entry[1] = 0x1f1f1f1f;
		}
		if (i == LARGE_NOT_VALIDATED || i == LARGE_VALID) {
			entry[0] |= 511 << 3;
			for (int j = 1; j < 512; j++)
				entry[2 * j + 0] = RMP_ASSIGNED;
		}
	}
}

static bool hypervisor_owned(enum owner owner, bool whole_2m)
{
	return owner == HYPERVISOR || (owner == MIXED && !whole_2m);
}

/* ---- The access, by whoever ------------------------------------------------ */

static void access(enum owner owner, enum access access)
{
	u64 v;

	switch (access) {
	case READ:
		try_read(ADDR(owner, access), &v);
		break;
	case WRITE:
		try_write(ADDR(owner, access), 0);
		break;
	case FETCH:
		try_fetch(ADDR(owner, access));
		break;
	default:
		try_read(TABLE_VA + 0x5010, &v);
	}
}

/* ---- Host ------------------------------------------------------------------- */

static void host_row(enum owner owner, enum access what, const char *size, bool whole_2m)
{
	bool good = hypervisor_owned(owner, whole_2m);
	u32 vector = NO_EXCEPTION, error = 0;

	if (what == TABLE) {
		*own_pde(TABLE_VA) = AREA(owner) | PTE;
		vector = PF;		/* there is no translation in it */
	}
	if (!good && what != READ) {
		vector = PF;
		error = PF_P | PF_RMP | (what == WRITE ? PF_W : 0);
	}
	flush_tlb();
	ex_error = 0;
	access(owner, what);
	check(ex_vector == vector && ex_error == error,
	      "host %s, %s mapping, %s: vector %d, error 0x%x", access_names[what], size,
	      owner_names[owner], (int)ex_vector, ex_error);
}

static void test_host(void)
{
	u64 *pdpte = (u64 *)(*(u64 *)READ_CR(3) & ~0xfffUL);

	section("APM2 15.36.10", "Host: data writes and page tables have to be hypervisor-owned, all of the 2M for a larger mapping.");
	/* 1G first: it cannot be put together again. */
	for (int i = 0; i < OWNERS; i++) {
		host_row(i, READ, "1G", true);
		host_row(i, WRITE, "1G", true);
	}
	check(pdpte[0] & BIT(7), "(that was a mapping of 1G)");
	for (int i = 0; i < OWNERS; i++) {
		own_pde(AREA(i));
		host_row(i, READ, "2M", true);
		host_row(i, WRITE, "2M", true);
	}
	for (int i = 0; i < OWNERS; i++) {
		own_pte(AREA(i));
		host_row(i, READ, "4K", false);
		host_row(i, WRITE, "4K", false);
		host_row(i, TABLE, "4K", false);
	}
	*own_pde(TABLE_VA) = TABLE_VA | PDE_2M;
	flush_tlb();
}

/* ---- Guest without SNP -------------------------------------------------------- */

static struct vcpu plain;
static u64 plain_pml4[512] __attribute__((aligned(PAGE_SIZE)));
static u64 plain_pdpt[512] __attribute__((aligned(PAGE_SIZE)));
static volatile enum owner plain_owner;
static volatile enum access plain_access;

static void plain_guest(void)
{
	access(plain_owner, plain_access);
	vmmcall(0);
}

static void plain_row(enum owner owner, enum access what, const char *size, bool whole_2m)
{
	bool good = hypervisor_owned(owner, whole_2m) || what == READ;
	u64 info = 0, address = ADDR(owner, what), code;

	if (what == TABLE) {
		*own_pde(TABLE_VA) = AREA(owner) | PTE;
		address = AREA(owner) + 5 * 8;
	}
	if (!good)
		info = NPF_P | NPF_W | NPF_U | NPF_RMP | (what == TABLE ? NPF_GPT : NPF_GPA);
	plain_owner = owner;
	plain_access = what;
	svm_set_up(&plain, plain_guest);
	plain.vmcb->nested_ctl = 1;
	plain.vmcb->nested_cr3 = (u64)plain_pml4;
	plain.vmcb->asid = 200;
	code = svm_run(&plain);
	check(good ? code == EXIT_VMMCALL :
	      code == EXIT_NPF && plain.vmcb->exit_info_1 == info &&
	      plain.vmcb->exit_info_2 == address,
	      "guest %s, %s nested mapping, %s: exit 0x%lx, info 0x%lx 0x%lx",
	      access_names[what], size, owner_names[owner], code, plain.vmcb->exit_info_1,
	      plain.vmcb->exit_info_2);
	*own_pde(TABLE_VA) = TABLE_VA | PDE_2M;
	flush_tlb();
}

static void test_plain(void)
{
	u64 *pd;

	section("APM2 15.36.10", "Guest without SNP: data writes and page tables have to be hypervisor-owned, else NPF with the RMP bit.");
	plain_pml4[0] = (u64)plain_pdpt | PTE;
	for (u64 i = 0; i < 8; i++)
		plain_pdpt[i] = i << 30 | PDE_2M;
	for (int i = 0; i < OWNERS; i++) {
		plain_row(i, READ, "1G", true);
		plain_row(i, WRITE, "1G", true);
	}
	pd = page_split(&plain_pdpt[0], true);
	for (int i = 0; i < OWNERS; i++) {
		plain_row(i, READ, "2M", true);
		plain_row(i, WRITE, "2M", true);
	}
	for (int i = 0; i < OWNERS; i++) {
		page_split(&pd[AREA(i) / REGION], false);
		plain_row(i, READ, "4K", false);
		plain_row(i, WRITE, "4K", false);
		plain_row(i, TABLE, "4K", false);
	}
}

/* ---- SNP guest ------------------------------------------------------------------ */

static struct snp_vcpu snp;

struct snp_row {
	enum owner owner;
	enum access access;
	bool private;
};

static void snp_guest(u64 arg)
{
	struct snp_row row = { arg & 15, arg >> 4 & 15, arg >> 8 & 1 };
	u64 *pde = snp_guest_pde(AREA(row.owner));

	*pde = row.private ? *pde | C_BIT : *pde & ~C_BIT;
	invlpg(AREA(row.owner));
	if (row.access == TABLE) {
		*snp_guest_pde(TABLE_VA) = AREA(row.owner) | PTE;
		invlpg(TABLE_VA + 0x5010);
	}
	ex_error = 0;
	ex_cr2 = 0;
	access(row.owner, row.access);
	shared->result[0] = ex_vector;
	shared->result[1] = ex_error;
	shared->result[2] = ex_cr2;
}

static bool is_large(enum owner owner)
{
	return owner == LARGE_VALID || owner == LARGE_NOT_VALIDATED;
}

/* What the manual's table has for that: an NPF's error code, or else #VC 404h, or nothing */
static u64 snp_expected(struct snp_row row, bool large_npt, bool *not_validated)
{
	u64 info = NPF_P | NPF_U | NPF_RMP;
	/* Fetches and table accesses are private whatever the C-bit says. */
	bool private = row.private || row.access == FETCH || row.access == TABLE;

	*not_validated = false;
	info |= row.access == TABLE ? NPF_GPT | NPF_W : NPF_GPA;
	if (row.access == WRITE)
		info |= NPF_W;
	if (row.access == FETCH)
		info |= NPF_ID;
	if (!private)
		return row.access == READ || hypervisor_owned(row.owner, large_npt) ? 0 : info;
	if (row.owner == VALID || row.owner == NOT_VALIDATED || is_large(row.owner)) {
		if (is_large(row.owner) == large_npt) {
			*not_validated = row.owner == NOT_VALIDATED ||
					 row.owner == LARGE_NOT_VALIDATED;
			return 0;
		}
	}
	return info | NPF_ENC;
}

static void snp_row(struct snp_row row, bool large_npt)
{
	u64 gpa = AREA(row.owner), info_1 = 0, info_2 = 0, expected, vector = NO_EXCEPTION;
	u64 address = row.access == TABLE ? gpa + 5 * 8 : ADDR(row.owner, row.access);
	u64 cr2 = row.access == TABLE ? TABLE_VA + 0x5010 : address;
	u64 *npte = large_npt ? snp_npt_pde(gpa) : snp_npt(gpa);
	u64 saved = *npte, error = 0;
	bool not_validated, done;

	expected = snp_expected(row, large_npt, &not_validated);
	snp.vmcb->tlb_ctl = 3;
	done = snp_call(&snp, snp_guest, row.owner | row.access << 4 | row.private << 8);
	if (snp.vmcb->exit_code == EXIT_NPF) {
		info_1 = snp.vmcb->exit_info_1;
		info_2 = snp.vmcb->exit_info_2;
		/* It goes on with #VC(400h). */
		*npte |= NPT_RESERVED;
		done = snp_run(&snp) == EXIT_VMGEXIT;
		*npte = saved;
	}
	if (expected) {
		vector = VC;
		error = EXIT_NPF;
	} else if (not_validated) {
		vector = VC;
		error = VC_NOT_VALIDATED;
	} else if (row.access == TABLE) {
		vector = PF;
	}
	check(done && info_1 == expected && (!info_1 || info_2 == address) &&
	      shared->result[0] == vector && shared->result[1] == error &&
	      (!not_validated || shared->result[2] == cr2),
	      "SNP guest %s, %s, %s nested mapping, %s: exit 0x%lx, info 0x%lx 0x%lx, vector %d, error 0x%lx, CR2 0x%lx",
	      access_names[row.access], row.private ? "private" : "shared",
	      large_npt ? "2M" : "4K", owner_names[row.owner], snp.vmcb->exit_code, info_1,
	      info_2, (int)shared->result[0], shared->result[1], shared->result[2]);
}

static void snp_rows(bool large_npt)
{
	for (int owner = 0; owner < OWNERS; owner++) {
		if (!large_npt)
			snp_npt(AREA(owner));
		for (int what = 0; what < ACCESSES; what++) {
			snp_row((struct snp_row){ owner, what, true }, large_npt);
			snp_row((struct snp_row){ owner, what, false }, large_npt);
		}
	}
}

/* Beyond the RMP everything is the hypervisor's. */
static void test_not_covered(void)
{
	u64 *npte = snp_npt(AREA(VALID)), saved = *npte;
	struct snp_row row = { VALID, READ, true };

	*npte = (rmp_pages() * PAGE_SIZE) | PTE;
	snp.vmcb->tlb_ctl = 3;
	snp_call(&snp, snp_guest, row.owner | row.access << 4 | row.private << 8);
	check(snp.vmcb->exit_code == EXIT_NPF &&
	      snp.vmcb->exit_info_1 == (NPF_P | NPF_U | NPF_RMP | NPF_GPA | NPF_ENC),
	      "SNP guest, private, page that the RMP does not cover: exit 0x%lx, info 0x%lx",
	      snp.vmcb->exit_code, snp.vmcb->exit_info_1);
	*npte = saved;
	snp_run(&snp);
}

void test_main(void)
{
	fill_rmp();
	svm_init();
	snp_set_up(&snp, 0);
	snp_start();
	test_host();
	test_plain();
	section("APM2 15.36.10", "SNP guest: private accesses need a page of its ASID, with that GPA and size, mutable and validated; shared writes a hypervisor-owned one.");
	check(snp_call(&snp, snp_guest, HYPERVISOR), "the guest runs");
	snp_rows(true);
	snp_rows(false);
	test_not_covered();
}
