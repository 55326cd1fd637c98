/*
 * Error codes of nested page faults (15.25.6), on the guest's final pages and on its page
 * tables, with every combination of EFER.NXE and CR4.SMEP of host and guest
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"
#include "svm.h"

#define EFER_NXE	BIT(11)
#define CR4_SMEP	BIT(20)
#define NX		BIT(63)
#define GLOBAL		BIT(8)

/* EXITINFO1 */
#define P		BIT(0)
#define W		BIT(1)
#define U		BIT(2)
#define RSVD		BIT(3)
#define ID		BIT(4)
#define FINAL		BIT(32)
#define TABLE		BIT(33)

/* Free RAM */
#define TARGET		0x8000000UL
#define RET		0xc3

#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u64 pml4[512] PAGE, pdpt[512] PAGE, pd[512] PAGE, pt[512] PAGE, image_pt[512] PAGE;
static u64 *tables;		/* the guest's, and the test's own: the top level */
static struct vcpu v;
static u64 host_efer, host_cr4, guest_efer, guest_cr4;

enum { READ, WRITE, FETCH };
GUEST(g_read, "movq (%rbx), %rax");
GUEST(g_write, "movq %rbx, 8(%rbx)");
GUEST(g_fetch, "call *%rbx");
static void (*const access_fn[])(void) = { g_read, g_write, g_fetch };
static const char *const access_name[] = { "read", "write", "fetch" };

static void reset_npt(void)
{
	pml4[0] = (u64)pdpt | PTE;
	for (u64 i = 0; i < 512; i++) {
		pdpt[i] = i << 30 | PDE_2M;
		pd[i] = i * REGION | PDE_2M;
		pt[i] = (TARGET + i * PAGE_SIZE) | PTE;
		image_pt[i] = (((u64)tables & -REGION) + i * PAGE_SIZE) | PTE;
	}
	pdpt[0] = (u64)pd | PTE;
	pd[TARGET / REGION] = (u64)pt | PTE;
	pd[(u64)tables / REGION] = (u64)image_pt | PTE;
}

static u64 run(int access)
{
	u64 efer = rdmsr(MSR_EFER), cr4 = READ_CR(4);

	svm_set_up(&v, access_fn[access]);
	v.regs.rbx = TARGET;
	v.vmcb->nested_ctl = 1;
	v.vmcb->nested_cr3 = (u64)pml4;
	v.vmcb->efer = (v.vmcb->efer & ~EFER_NXE) | guest_efer;
	v.vmcb->cr4 = (v.vmcb->cr4 & ~CR4_SMEP) | guest_cr4;
	wrmsr(MSR_EFER, (efer & ~EFER_NXE) | host_efer);
	WRITE_CR(4, (cr4 & ~CR4_SMEP) | host_cr4);
	svm_run(&v);
	wrmsr(MSR_EFER, efer);
	WRITE_CR(4, cr4);
	return v.vmcb->exit_code;
}

/* With the nested tables as they are now: an access ends with EXITINFO1 @info, 0 for no fault. */
static int wrong(int access, u64 info, u64 address)
{
	u64 code = run(access);

	if (info ? code == EXIT_NPF && v.vmcb->exit_info_1 == info && v.vmcb->exit_info_2 == address :
		   code == EXIT_VMMCALL)
		return 0;
	print("# host NXE %d SMEP %d, guest NXE %d SMEP %d: %s: exit 0x%lx, 0x%lx 0x%lx; expected 0x%lx 0x%lx\n",
	      !!host_efer, !!host_cr4, !!guest_efer, !!guest_cr4, access_name[access], code,
	      v.vmcb->exit_info_1, v.vmcb->exit_info_2, info, address);
	return 1;
}

/* What a fault of each kind of access says */
static u64 code_of(int access, u64 cause)
{
	cause |= FINAL | U;
	if (access == WRITE)
		return cause | W;
	if (access == FETCH && (host_efer || host_cr4))
		return cause | ID;
	return cause;
}

static int all_fault(u64 cause)
{
	int n = 0;

	for (int access = READ; access <= FETCH; access++)
		n += wrong(access, code_of(access, cause), TARGET + (access == WRITE ? 8 : 0));
	return n;
}

static int none(void)
{
	return wrong(READ, 0, 0) + wrong(WRITE, 0, 0) + wrong(FETCH, 0, 0);
}

static int not_present(void)
{
	pt[0] = 0;
	return all_fault(0);
}

static int read_only(void)
{
	pt[0] &= ~W;
	return wrong(READ, 0, 0) + wrong(WRITE, code_of(WRITE, P), TARGET + 8) + wrong(FETCH, 0, 0);
}

static int supervisor(void)
{
	pt[0] &= ~U;
	return all_fault(P);
}

static int no_execute(void)
{
	pt[0] |= NX;
	if (!host_efer)
		return all_fault(P | RSVD);
	return wrong(READ, 0, 0) + wrong(WRITE, 0, 0) + wrong(FETCH, code_of(FETCH, P), TARGET);
}

static int reserved_4k(void)
{
	pt[0] |= BIT(45);
	return all_fault(P | RSVD);
}

static int reserved_2m(void)
{
	pd[TARGET / REGION] = TARGET | BIT(13) | PDE_2M;
	return all_fault(P | RSVD);
}

static int global_leaf(void)
{
	pt[0] |= GLOBAL;
	return none();
}

/* What is above the guest's page tables, too: those are met first. */
static int table_fault(u64 cause)
{
	return wrong(READ, TABLE | U | W | cause, (u64)tables) + wrong(FETCH, TABLE | U | W | cause, (u64)tables);
}

static int reserved_1g(void)
{
	pdpt[0] = BIT(13) | PDE_2M;
	return table_fault(P | RSVD);
}

static int global_pdpte(void)
{
	pdpt[0] |= GLOBAL;
	return table_fault(P | RSVD);
}

static int global_pml4e(void)
{
	pml4[0] |= GLOBAL;
	return table_fault(P | RSVD);
}

static int table_read_only(void)
{
	image_pt[(u64)tables / PAGE_SIZE & 511] &= ~W;
	return table_fault(P);
}

static int table_not_present(void)
{
	image_pt[(u64)tables / PAGE_SIZE & 511] = 0;
	return table_fault(0);
}

static int table_reserved(void)
{
	image_pt[(u64)tables / PAGE_SIZE & 511] |= BIT(45);
	return table_fault(P | RSVD);
}

static void every(int (*fn)(void), const char *what)
{
	int n = 0;

	for (int i = 0; i < 16; i++) {
		host_efer = i & 1 ? EFER_NXE : 0;
		host_cr4 = i & 2 ? CR4_SMEP : 0;
		guest_efer = i & 4 ? EFER_NXE : 0;
		guest_cr4 = i & 8 ? CR4_SMEP : 0;
		reset_npt();
		n += fn();
	}
	check(!n, "%s: %d wrong", what, n);
}

/* The same in the tables of the host itself */
static void test_own(void)
{
	u64 *pde = own_pde(TARGET), pml4e = tables[0], v;
	volatile u64 *pdpte = (u64 *)(tables[0] & ~0xfffUL), saved;

	section("APM2 5.3.3", "Bit 8 is reserved in PML4 entries, and in PDP entries that point to a table; P is set in the error code.");
	*pde |= BIT(45);
	flush_tlb();
	try_read(TARGET, &v);
	check_raised(PF, P | RSVD, "reserved bit of a 2M page");
	*pde &= ~BIT(45);
	flush_tlb();

	/* Entries for addresses that are not used otherwise */
	tables[1] = pml4e | GLOBAL;
	try_read(BIT(39) + TARGET, &v);
	check_raised(PF, P | RSVD, "PML4 entry");
	tables[1] = 0;
	saved = pdpte[5];
	pdpte[5] = (u64)pd | PTE | GLOBAL;
	flush_tlb();
	try_read(5UL << 30, &v);
	check_raised(PF, P | RSVD, "PDP entry for a table");
	pdpte[5] = TARGET & -BIT(30);
	pdpte[5] |= PDE_2M | GLOBAL;
	flush_tlb();
	check_eq(try_read(5UL << 30, &v), NO_EXCEPTION, "not in one for a page");
	pdpte[5] = saved;
	flush_tlb();
}

void test_main(void)
{
	tables = (u64 *)(READ_CR(3) & ~0xfffUL);
	apic_id();
	svm_init();
	*(u8 *)TARGET = RET;

	section("APM2 15.25.6", "EXITINFO1 of a nested page fault: P, W, U, reserved and I/D for the guest's final pages.");
	every(none, "no fault");
	every(not_present, "not present");
	every(read_only, "read-only");
	every(supervisor, "supervisor");
	every(no_execute, "NX");
	every(reserved_4k, "reserved bits of a 4K page");
	every(reserved_2m, "reserved bits of a 2M page");
	every(global_leaf, "bit 8 of a page is ignored");

	section("APM2 15.25.6", "And for its page tables, which are read as if they were written by CPL 3.");
	every(reserved_1g, "reserved bits of a 1G page");
	every(global_pdpte, "bit 8 of a PDP entry for a table");
	every(global_pml4e, "bit 8 of a PML4 entry");
	every(table_read_only, "read-only");
	every(table_not_present, "not present");
	every(table_reserved, "reserved bits");
	test_own();
}
