/*
 * Guest private memory: what an SNP guest sees of the RMP, by PVALIDATE,
 * RMPADJUST, RMPQUERY, the C-bit, nested page faults and VMPLs
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"
#include "user.h"

/* Guest physical, system physical and virtual addresses, 2M each */
#define LARGE		0x21000000UL	/* assigned as 2M */
#define SMALL		0x21200000UL	/* assigned as 4K */
#define EMPTY		0x21400000UL	/* no nested mapping */
#define NO_TABLE	0x21600000UL	/* its page table is in EMPTY */
#define SPARE		0x21800000UL	/* the host's */
#define NOT_MAPPED	0x7000000000UL	/* nor by the guest's tables */

/* What the guest wants from the host */
enum { MAP_SHARED = 1, ASSIGN, MAP_RIGHT, SMASH, MAP_SMALL, MAP_LARGE, END };

struct talk {
	/* The next NPF, and what the host is to do about it */
	volatile u64 gpa, info_1;
	volatile u32 action;
	volatile u32 npfs;		/* that came as expected */
	volatile u32 request;		/* by VMGEXIT */
};

#define talk ((struct talk *)&shared->result[256])

/* ---- Guest --------------------------------------------------------------- */

static void expect(u64 gpa, u64 info_1, u32 action)
{
	talk->gpa = gpa;
	talk->info_1 = info_1;
	talk->action = action;
}

/* Exactly one NPF has come since expect(), and it was that. */
static void npf_seen(const char *name)
{
	guest_check_eq(talk->npfs, 1, name);
	talk->npfs = 0;
}

static void request(u32 what)
{
	talk->request = what;
	vmgexit();
}

static void not_validated(u64 va, const char *name)
{
	guest_check_eq(ex_vector == VC ? ex_error : ex_vector, VC_NOT_VALIDATED, name);
	guest_check_eq(ex_cr2, va, "CR2 is the address");
}

static void set_c_bit(u64 va, bool on)
{
	u64 *pte = snp_guest_pte(va);

	*pte = on ? *pte | C_BIT : *pte & ~C_BIT;
	invlpg(va);
}

static void g_start(u64 arg)
{
	guest_check_eq(rdmsr(MSR_SEV_STATUS) & 7, 7, "SEV, SEV-ES and SNP");
	guest_check_eq(wrmsr_safe(MSR_SEV_STATUS, 0), GP, "write is #GP");
}

static void g_validated(u64 page)
{
	u64 v;
	bool cf;

	try_read(page, &v);
	not_validated(page, "read of a page that is not validated");
	try_write(page + 8, 1);
	not_validated(page + 8, "write to a page that is not validated");
	try_fetch(page + 16);
	not_validated(page + 16, "fetch from a page that is not validated");
	pvalidate(page, 0, 1, &cf);
	guest_check_eq(try_write(page, 1), NO_EXCEPTION, "validated, it can be written");
}

static void g_pvalidate(u64 page)
{
	u64 v;
	bool cf;

	guest_check_eq(pvalidate(page, 1, 1, &cf), FAIL_SIZEMISMATCH,
		       "2M on 4K pages: FAIL_SIZEMISMATCH");
	guest_check_eq(pvalidate(page + 0x1000, 1, 1, &cf), FAIL_INPUT,
		       "2M, not aligned: FAIL_INPUT");
	guest_check_eq(pvalidate(page, 0x3ac00, 0x3ac01, &cf), 0,
		       "only bit 0 of ECX and EDX counts");
	guest_check_eq(pvalidate(page, 0, 1, &cf), 0, "a page that is validated");
	guest_check_eq(cf, 1, "CF says that nothing has changed");
	guest_check_eq(pvalidate(page + 0x123, 0, 0, &cf), 0, "rescind validation");
	guest_check_eq(cf, 0, "CF says that it has changed something");
	try_read(page, &v);
	not_validated(page, "the page is out of reach, also of the TLB");
	guest_check_eq(pvalidate(page, 0, 0, &cf), 0, "rescind it again");
	guest_check_eq(cf, 1, "CF says that nothing has changed");
	guest_check_eq(pvalidate(page, 0, 1, &cf), 0, "validate");
	guest_check_eq(cf, 0, "CF says that it has changed something");
	pvalidate(NOT_MAPPED, 0, 1, &cf);
	guest_check_eq(ex_vector, PF, "what is not mapped: #PF");
}

static bool has_rmpquery;

static void g_rmpadjust(u64 page)
{
	u64 size = 5, attrs = 1;

	guest_check_eq(rmpadjust(page, 0x3ac00, 1 | 0xf00), 0,
		       "rights for VMPL1; only bit 0 of RCX counts");
	if (has_rmpquery) {
		guest_check_eq(rmpquery(page, &size, &attrs), 0, "RMPQUERY");
		guest_check_eq(attrs, 1 | 0xf00, "gives what RMPADJUST has set");
		guest_check_eq(size, 0, "and the page size");
		attrs = 2;
		rmpquery(page, &size, &attrs);
		guest_check_eq(attrs, 2, "and nothing for VMPL2");
	} else {
		rmpquery(page, &size, &attrs);
		guest_check_eq(ex_vector, UD, "RMPQUERY that CPUID does not report is #UD");
	}
	guest_check_eq(rmpadjust(page, 0, 0xf00), FAIL_PERMISSION,
		       "the own VMPL: FAIL_PERMISSION");
	guest_check_eq(rmpadjust(page, 0, 4), FAIL_INPUT,
		       "a VMPL that does not exist: FAIL_INPUT");
	guest_check_eq(rmpadjust(page, 0, 1 | BIT(17)), FAIL_INPUT,
		       "a reserved bit: FAIL_INPUT");
	guest_check_eq(rmpadjust(page + 0x1000, 1, 1), FAIL_INPUT,
		       "2M, not aligned: FAIL_INPUT");
	guest_check_eq(rmpadjust(page, 1, 1), FAIL_SIZEMISMATCH,
		       "2M on 4K pages: FAIL_SIZEMISMATCH");
	guest_check_eq(rmpadjust(page, 0, 1 | ADJUST_VMSA), 0, "makes a VMSA");
	attrs = 1;
	if (has_rmpquery) {
		rmpquery(page, &size, &attrs);
		guest_check_eq(attrs, 1 | ADJUST_VMSA, "RMPQUERY says so");
	}
	guest_check_eq(rmpadjust(page, 0, 1), 0, "and an ordinary page again");
	rmpadjust(page + 0x1000, 0, 1);
	not_validated(page + 0x1000, "a page that is not validated");
	rmpadjust(NOT_MAPPED, 0, 1);
	guest_check_eq(ex_vector, PF, "what is not mapped: #PF");
}

static void g_shared(u64 page)
{
	u64 v, w;
	bool cf;

	pvalidate(page, 0, 1, &cf);
	*(volatile u64 *)page = 0x1234;
	set_c_bit(page, false);
	guest_check_eq(try_read(page, &v), NO_EXCEPTION, "private page without C-bit can be read");
	guest_check_eq(v != 0x1234, true, "but not what is in it");
	expect(page, NPF_P | NPF_W | NPF_U | NPF_RMP | NPF_GPA, MAP_SHARED);
	guest_check_eq(try_write(page, 1), NO_EXCEPTION, "write without C-bit");
	npf_seen("was NPF with the RMP bit, not ENC");
	guest_check_eq(try_read(page, &w) == NO_EXCEPTION && w == 1, true,
		       "and goes to shared memory");
	set_c_bit(page, true);
	expect(page, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_GPA, MAP_RIGHT);
	guest_check_eq(try_read(page, &v), NO_EXCEPTION, "private read of a shared page");
	npf_seen("was NPF with RMP and ENC");
	guest_check_eq(v, 0x1234, "and finds the contents when mapped right");
}

static void g_fetch(u64 page)
{
	u64 v;

	*(volatile u8 *)page = 0xc3;
	set_c_bit(page, false);
	guest_check_eq(try_fetch(page), NO_EXCEPTION, "fetch without C-bit comes from private memory");
	guest_check_eq(try_read(page, &v) == NO_EXCEPTION && (u8)v != 0xc3, true,
		       "where a read does not");
	guest_check_eq(try_fetch(page), NO_EXCEPTION, "and fetch again");
	set_c_bit(page, true);
}

static void g_npf(u64 page)
{
	u64 v;
	bool cf;

	expect(page, NPF_U | NPF_ENC | NPF_GPA, ASSIGN);
	try_read(page, &v);
	not_validated(page, "private read of what is not mapped, once the host maps it");
	npf_seen("was NPF with ENC, not present");
	pvalidate(page, 0, 1, &cf);
	guest_check_eq(cf, 0, "and it is validated");

	set_c_bit(page + 0x1000, false);
	expect(page + 0x1000, NPF_W | NPF_U | NPF_GPA, MAP_SHARED);
	guest_check_eq(try_write(page + 0x1000, 7), NO_EXCEPTION,
		       "shared write to what is not mapped");
	npf_seen("was NPF without ENC");

	/* Page tables are private as well, without a C-bit. */
	*snp_guest_pde(NO_TABLE) = (page + 0x2000) | PTE;
	invlpg(NO_TABLE);
	expect(page + 0x2000, NPF_W | NPF_U | NPF_ENC | NPF_GPT, ASSIGN);
	try_read(NO_TABLE, &v);
	not_validated(NO_TABLE, "page table that is not mapped, once the host maps it");
	npf_seen("was NPF for the page table");
}

static void g_mmio(u64 page)
{
	u64 v;

	try_read(page, &v);
	guest_check_eq(ex_vector == VC ? ex_error : ex_vector, EXIT_NPF,
		       "private read: #VC(400h)");
	set_c_bit(page, false);
	try_read(page, &v);
	guest_check_eq(ex_vector == VC ? ex_error : ex_vector, EXIT_NPF,
		       "shared read: #VC(400h)");
	try_write(page, 1);
	guest_check_eq(ex_vector == VC ? ex_error : ex_vector, EXIT_NPF,
		       "shared write: #VC(400h)");
}

static void g_large(u64 page)
{
	u64 v;
	bool cf;

	guest_check_eq(pvalidate(page, 1, 1, &cf), 0, "PVALIDATE of a 2M page");
	guest_check_eq(cf, 0, "has changed something");
	guest_check_eq(try_write(page + 0x5000, 5), NO_EXCEPTION, "it can be written");
	expect(page, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_SIZEM | NPF_GPA, SMASH);
	guest_check_eq(pvalidate(page, 0, 0, &cf), 0, "PVALIDATE of 4K in a 2M page");
	npf_seen("was NPF with SIZEM");
	guest_check_eq(cf, 0, "and has changed something after PSMASH");
	try_read(page, &v);
	not_validated(page, "one page is not validated");
	request(MAP_LARGE);
	expect(page + 0x5000, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_GPA, MAP_SMALL);
	guest_check_eq(try_read(page + 0x5000, &v) == NO_EXCEPTION && v == 5, true,
		       "the next is, mapped by 4K");
	npf_seen("and NPF when mapped by 2M");
}

static void g_grant(u64 page)
{
	bool cf;

	pvalidate(page, 0, 1, &cf);
	*(volatile u64 *)page = 3;
	guest_check_eq(rmpadjust(page, 0, 1 | VMPL_READ), 0, "VMPL1 gets the right to read a page");
	pvalidate(page + 0x1000, 0, 1, &cf);
	guest_check_eq(rmpadjust(page + 0x1000, 0, 1), 0, "VMPL1 gets no right to another page");
	pvalidate(page + 0x2000, 0, 1, &cf);
	rmpadjust(page + 0x2000, 0, 1 | VMPL_WRITE);
}

/* At VMPL1, with all rights to the image and those of g_grant() */
static void g_vmpl1(u64 page)
{
	u64 v, size = 0, attrs = 2;
	bool cf;

	guest_check_eq(try_read(page, &v) == NO_EXCEPTION && v == 3, true, "VMPL1 may read the page");
	pvalidate(page, 0, 0, &cf);
	guest_check_eq(ex_vector, GP, "PVALIDATE at VMPL1 is #GP");
	guest_check_eq(rmpadjust(page, 0, 1 | VMPL_READ), FAIL_PERMISSION,
		       "RMPADJUST for the own VMPL: FAIL_PERMISSION");
	guest_check_eq(rmpadjust(page, 0, VMPL_READ), FAIL_PERMISSION,
		       "RMPADJUST for VMPL0: FAIL_PERMISSION");
	guest_check_eq(rmpadjust(page, 0, 2 | VMPL_READ | VMPL_WRITE), FAIL_PERMISSION,
		       "RMPADJUST of a right that the caller lacks: FAIL_PERMISSION");
	guest_check_eq(rmpadjust(page, 0, 2 | ADJUST_VMSA), FAIL_PERMISSION,
		       "RMPADJUST of the VMSA flag: FAIL_PERMISSION");
	guest_check_eq(rmpadjust(page, 0, 2 | VMPL_READ), 0, "RMPADJUST of one that it has");
	if (has_rmpquery) {
		rmpquery(page, &size, &attrs);
		guest_check_eq(attrs, 2 | VMPL_READ, "RMPQUERY gives that");
	}
}

static void g_denied(u64 page)
{
	u64 v;

	expect(page + 0x1000, NPF_P | NPF_U | NPF_RMP | NPF_ENC | NPF_VMPL | NPF_GPA, END);
	try_read(page + 0x1000, &v);
}

static void g_denied_write(u64 page)
{
	expect(page, NPF_P | NPF_W | NPF_U | NPF_RMP | NPF_ENC | NPF_VMPL | NPF_GPA, END);
	try_write(page, 1);
}

static void g_write_only(u64 page)
{
	expect(page + 0x2000, NPF_P | NPF_W | NPF_U | NPF_RMP | NPF_ENC | NPF_VMPL | NPF_GPA, END);
	try_write(page + 0x2000, 1);
}

static void g_denied_fetch(u64 page)
{
	expect(page, NPF_P | NPF_U | NPF_ID | NPF_RMP | NPF_ENC | NPF_VMPL | NPF_GPA, END);
	asm volatile("jmp *%0" : : "r"(page));
}

/* ---- Host ---------------------------------------------------------------- */

static struct snp_vcpu v, vmpl1, vmpl1_write, vmpl1_only, vmpl1_fetch;
static bool ended;

static void map_small(void)
{
	*snp_npt_pde(LARGE) = LARGE | PDE_2M;
	page_split(snp_npt_pde(LARGE), false);
}

static bool handle_npf(u64 info_1, u64 gpa)
{
	u64 page = gpa & ~0xfffUL;
	u64 *npte = snp_npt(page);

	if (info_1 != talk->info_1 || page != talk->gpa) {
		check(false, "NPF 0x%lx for 0x%lx, expected 0x%lx for 0x%lx", info_1, page,
		      talk->info_1, talk->gpa);
		return false;
	}
	talk->npfs++;
	talk->info_1 = 0;
	switch (talk->action) {
	case MAP_SHARED:
		*npte = SPARE | PTE;
		break;
	case ASSIGN:
		rmp_assign(page, page, GUEST_ASID, false, false);
		/* fall through */
	case MAP_RIGHT:
		*npte = page | PTE;
		break;
	case SMASH:
		map_small();
		return check_eq(psmash(LARGE), 0, "PSMASH on behalf of the guest");
	case MAP_SMALL:
		map_small();
		break;
	case END:
		ended = true;
		return false;
	}
	return true;
}

/* Run @fn(@page) to its end, or to the NPF that it waits for with END. */
static bool run(struct snp_vcpu *vcpu, void (*fn)(u64), u64 page)
{
	int index = vcpu->vmsa & PAGE_SIZE ? 1 : 0;
	struct vmcb *vmcb = vcpu->vmcb;

	ended = false;
	shared->arg[index] = page;
	shared->fn[index] = fn;
	for (;;) {
		/* The host changes the nested page table. */
		vmcb->tlb_ctl = 3;
		snp_run(vcpu);
		if (vmcb->exit_code == EXIT_VMGEXIT && !shared->fn[index])
			return true;
		if (vmcb->exit_code == EXIT_VMGEXIT && talk->request == MAP_LARGE) {
			talk->request = 0;
			*snp_npt_pde(LARGE) = LARGE | PDE_2M;
		} else if (vmcb->exit_code != EXIT_NPF ||
			   !handle_npf(vmcb->exit_info_1, vmcb->exit_info_2)) {
			break;
		}
	}
	if (!ended)
		check(false, "guest runs to its end: exit 0x%lx info 0x%lx 0x%lx",
		      vmcb->exit_code, vmcb->exit_info_1, vmcb->exit_info_2);
	return ended;
}

/* @fn meets the NPF that it waits for; it does not come to its end. */
static bool denied(struct snp_vcpu *vcpu, void (*fn)(u64))
{
	return run(vcpu, fn, SMALL + 0x4000) && ended;
}

static void set_up_vmpl1(struct snp_vcpu *vcpu, int n)
{
	snp_set_up(vcpu, n);
	*(u8 *)vmsa_field(vcpu->vmsa, 0x0ca) = 1;
}

static u64 user_page;
static void u_pvalidate(void) { bool cf; pvalidate(user_page, 0, 1, &cf); }
static void u_rmpadjust(void) { rmpadjust(user_page, 0, 0x101); }
static void u_rmpquery(void) { u64 size = 0, attrs = 1; rmpquery(user_page, &size, &attrs); }

static void g_user(u64 page)
{
	user_page = page;
	user_call(u_pvalidate);
	guest_check_eq(ex_vector, GP, "PVALIDATE");
	user_call(u_rmpadjust);
	guest_check_eq(ex_vector, GP, "RMPADJUST");
	guest_check_eq(ex_error, 0, "with error code 0");
	user_call(u_rmpquery);
	guest_check_eq(ex_vector, has_rmpquery ? GP : UD, "RMPQUERY");
}

void test_main(void)
{
	u64 value;

	has_rmpquery = sev_eax() & SEV_RMPQUERY;
	rmp_clear();
	snp_set_up(&v, 0);
	set_up_vmpl1(&vmpl1, 1);
	set_up_vmpl1(&vmpl1_write, 3);
	set_up_vmpl1(&vmpl1_fetch, 5);
	set_up_vmpl1(&vmpl1_only, 7);
	*snp_guest_pde(LARGE) |= C_BIT;
	*snp_guest_pde(SMALL) |= C_BIT;
	*snp_guest_pde(EMPTY) |= C_BIT;
	snp_guest_pte(SMALL);
	snp_guest_pte(EMPTY);
	snp_npt(SMALL);
	for (u64 i = 0; i < REGION; i += PAGE_SIZE)
		*snp_npt(EMPTY + i) = 0;
	*snp_npt(EMPTY + 0x3000) = BIT(45) | PTE;
	snp_start();
	for (u64 i = 0; i < REGION; i += PAGE_SIZE)
		rmp_assign(SMALL + i, SMALL + i, GUEST_ASID, false, false);
	rmp_assign(LARGE, LARGE, GUEST_ASID, true, false);

	section("APM2 15.34.10", "SEV_STATUS reports what VMRUN has turned on; it is read-only.");
	run(&v, g_start, 0);
	check_eq(rdmsr(MSR_SEV_STATUS), 0, "SEV_STATUS of the host after it");
	section("APM2 15.36.10", "A private access to a page that is not validated is #VC(404h), with the address in CR2.");
	run(&v, g_validated, SMALL);
	section("APM3 PVALIDATE", "PVALIDATE sets and clears validated, and CF if nothing has changed.");
	run(&v, g_pvalidate, SMALL);
	section("APM3 RMPADJUST", "RMPADJUST changes rights of a numerically higher VMPL; RMPQUERY reads them.");
	run(&v, g_rmpadjust, SMALL);
	section("APM3 PVALIDATE", "PVALIDATE, RMPADJUST and RMPQUERY are #GP(0) above CPL 0.");
	run(&v, g_user, SMALL);
	section("APM2 15.34.5", "The C-bit chooses between private and shared for data; fetches and page tables are always private.");
	run(&v, g_shared, SMALL + 0x2000);
	run(&v, g_fetch, SMALL + 0x2000);
	section("APM2 15.36.10", "Nested page faults of an SNP guest say whether the access was private (ENC), and where sizes differ (SIZEM).");
	run(&v, g_npf, EMPTY);
	run(&v, g_large, LARGE);
	section("APM2 15.35.5", "A nested page fault for a reserved bit is no exit but #VC(400h).");
	run(&v, g_mmio, EMPTY + 0x3000);
	section("APM2 15.36.7", "Rights of each VMPL are checked last; violations are nested page faults with the VMPL bit.");
	run(&v, g_grant, SMALL + 0x4000);
	run(&vmpl1, g_vmpl1, SMALL + 0x4000);
	check(denied(&vmpl1, g_denied), "read without a right");
	check(denied(&vmpl1_write, g_denied_write), "write with the right to read");
	check(denied(&vmpl1_only, g_write_only), "write without the right to read");
	check(denied(&vmpl1_fetch, g_denied_fetch), "fetch with the right to read");
	section("APM2 15.34.5", "What is private to a guest is ciphertext for the host.");
	check(try_read(IMAGE_COPY, &value) == NO_EXCEPTION && value != *(u64 *)IMAGE,
	      "the guest's program");
}
