/*
 * Translations that a CPU may keep over a world switch, and those that it must not
 * (15.16, 15.36.10, 15.36.15). All VMRUNs are with TLB_CONTROL 0 unless it says so.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define VMSA_VMPL		0x0ca
#define VMSA_PCPU_ID		0x3d8


/* Guest physical and virtual addresses, in a 2M of 4K pages each */
#define PRIVATE			0x21000000UL	/* assigned, validated by the guest */
#define SHARED_PAGES		0x21200000UL	/* the host's */
#define OTHER			(SHARED_PAGES + 0x1000)

static struct snp_vcpu v, vcpu_1, vmpl1;

static void g_validate(u64 page)
{
	bool cf;

	pvalidate(page, 0, 1, &cf);
	*(volatile u64 *)page = 1;
}

static void g_rescind(u64 page)
{
	bool cf;

	pvalidate(page, 0, 0, &cf);
}

static void g_read(u64 page)
{
	u64 val;

	ex_error = 0;
	shared->result[0] = try_read(page, &val);
	shared->result[1] = ex_error;
	shared->result[2] = val;
}

/* By VMPL0, to the VMSA of another vCPU: flush at its next VMRUN */
static void g_forget_cpu(u64 vmsa)
{
	*vmsa_field(vmsa, VMSA_PCPU_ID) = 0;
}

static bool call(struct snp_vcpu *vcpu, void (*fn)(u64), u64 arg)
{
	vcpu->vmcb->tlb_ctl = 0;
	return snp_call(vcpu, fn, arg);
}

static u64 read_by(struct snp_vcpu *vcpu, u64 page)
{
	check(call(vcpu, g_read, page) && shared->result[0] == NO_EXCEPTION, "(the guest reads it)");
	return shared->result[2];
}

static void test_tlb_control(void)
{
	u64 *npte = snp_npt(SHARED_PAGES);

	*(volatile u64 *)SHARED_PAGES = 0x1111;
	*(volatile u64 *)OTHER = 0x2222;
	for (int control = 1; control <= 7; control += 2) {
		if (control == 5)
			continue;
		*npte = SHARED_PAGES | PTE;
		v.vmcb->tlb_ctl = 1;
		snp_call(&v, g_read, SHARED_PAGES);
		*npte = OTHER | PTE;
		v.vmcb->tlb_ctl = control;
		snp_call(&v, g_read, SHARED_PAGES);
		check(shared->result[2] == 0x2222, "TLB_CONTROL %d: the new nested mapping counts",
		      control);
	}

	section("APM2 15.36.15", "VMRUN flushes if PCPU_ID says that the VMSA ran elsewhere; 0 forces it.");
	*npte = SHARED_PAGES | PTE;
	v.vmcb->tlb_ctl = 1;
	snp_call(&v, g_read, SHARED_PAGES);
	*npte = OTHER | PTE;
	check(call(&vcpu_1, g_forget_cpu, v.vmsa), "PCPU_ID of the VMSA is 0");
	check_eq(read_by(&v, SHARED_PAGES), 0x2222, "the new nested mapping counts");

	section("APM2 15.16", "A nested page fault's cause can be mended without a flush.");
	*npte = 0;
	v.vmcb->tlb_ctl = 1;
	check(!snp_call(&v, g_read, SHARED_PAGES) && v.vmcb->exit_code == EXIT_NPF, "not mapped");
	*npte = SHARED_PAGES | PTE;
	v.vmcb->tlb_ctl = 0;
	check_eq(snp_run(&v), EXIT_VMGEXIT, "mapped, TLB_CONTROL 0");
	check_eq(shared->result[2], 0x1111, "and read");
}

static void test_host(void)
{
	u64 *pte = own_pte(OTHER), val;

	section("APM2 15.16", "Guest and host do not use each other's translations.");
	*pte = SHARED_PAGES | PTE;
	flush_tlb();
	try_read(OTHER, &val);
	check_eq(val, 0x1111, "the host's page");
	check_eq(read_by(&v, OTHER), 0x2222, "the guest's at the same address");
	try_read(OTHER, &val);
	check_eq(val, 0x1111, "the host's again");
	*pte = OTHER | PTE;
	flush_tlb();
}

static void test_rmp(void)
{
	section("APM2 15.36.10", "RMP changes drop a guest's translations also while it is not running.");
	check(call(&v, g_validate, PRIVATE), "the guest has a page");
	check_eq(read_by(&v, PRIVATE), 1, "and its translation");
	check_eq(rmp_release(PRIVATE, false), RMP_OK, "RMPUPDATE takes it away");
	check(!call(&v, g_read, PRIVATE) && v.vmcb->exit_code == EXIT_NPF,
	      "the next access is a nested page fault");
	check_eq(rmp_assign(PRIVATE, PRIVATE, GUEST_ASID, false, false), RMP_OK,
		 "RMPUPDATE gives it back");
	v.vmcb->tlb_ctl = 0;
	check_eq(snp_run(&v), EXIT_VMGEXIT, "and on");
	check_eq(shared->result[1], VC_NOT_VALIDATED, "the page is not validated");

	call(&v, g_validate, PRIVATE);
	check_eq(read_by(&v, PRIVATE), 1, "validated, and its translation");
	check(call(&vcpu_1, g_rescind, PRIVATE), "another vCPU rescinds validation");
	check(call(&v, g_read, PRIVATE), "read");
	check_eq(shared->result[1], VC_NOT_VALIDATED, "is #VC(404h)");
}

static void cpu_1_rescinds(void *arg)
{
	snp_start_cpu();
	call(&vcpu_1, g_rescind, PRIVATE);
}

static void cpu_1_reads(void *arg)
{
	call(&v, g_read, PRIVATE);
}

/* The same, from another CPU, and a vCPU that moves */
static void test_other_cpu(void)
{
	section("APM2 15.36.10", "And so they do on another CPU.");
	call(&v, g_validate, PRIVATE);
	check_eq(read_by(&v, PRIVATE), 1, "validated, and its translation");
	ap_run(cpu_1_rescinds, NULL);
	ap_wait();
	check(call(&v, g_read, PRIVATE), "read");
	check_eq(shared->result[1], VC_NOT_VALIDATED, "is #VC(404h)");

	section("APM2 15.36.15", "A vCPU that comes back to a CPU does not meet its old translations.");
	*snp_npt(SHARED_PAGES) = SHARED_PAGES | PTE;
	v.vmcb->tlb_ctl = 1;
	snp_call(&v, g_read, SHARED_PAGES);
	*snp_npt(SHARED_PAGES) = OTHER | PTE;
	ap_run(cpu_1_reads, NULL);
	ap_wait();
	check_eq(read_by(&v, SHARED_PAGES), 0x2222, "the new nested mapping counts");
}

static void test_vmpl(void)
{
	section("APM2 15.36.7", "A translation of one VMPL is not another's.");
	call(&v, g_validate, PRIVATE);
	check_eq(read_by(&v, PRIVATE), 1, "VMPL0 has a translation");
	check(!call(&vmpl1, g_read, PRIVATE) && vmpl1.vmcb->exit_code == EXIT_NPF &&
	      vmpl1.vmcb->exit_info_1 >> 36 & 1, "VMPL1 has no right to the page");
}

/* Ordinary guests: the same but for CR3 or the nested page table, by which alone they differ. */
static u64 tables[3][3][512] __attribute__((aligned(PAGE_SIZE)));
static volatile u64 ordinary_result;

static void ordinary_guest(void)
{
	for (;;) {
		ordinary_result = *(volatile u64 *)OTHER;
		vmmcall(0);
	}
}

/* A copy of the test's tables, in which OTHER is SHARED_PAGES */
static u64 own_tables(u64 (*t)[512])
{
	u64 mask = 0x7fffffffff000UL, *pml4 = (u64 *)(READ_CR(3) & mask);
	u64 *pdpt = (u64 *)(pml4[0] & mask), *pd;

	own_pte(OTHER);
	pd = (u64 *)(pdpt[0] & mask);
	memcpy(t[0], pdpt, PAGE_SIZE);
	memcpy(t[1], pd, PAGE_SIZE);
	memcpy(t[2], (void *)(pd[OTHER / REGION] & mask), PAGE_SIZE);
	t[0][0] = (u64)t[1] | PTE;
	t[1][OTHER / REGION] = (u64)t[2] | PTE;
	t[2][OTHER / PAGE_SIZE % 512] = SHARED_PAGES | PTE;
	return (u64)t[0] | PTE;
}

/* 1G one to one, with OTHER as a page of 4K */
static u64 nested_tables(u64 (*t)[512])
{
	t[0][0] = (u64)t[1] | PTE;
	for (u64 i = 0; i < 512; i++) {
		t[1][i] = i * REGION | PDE_2M;
		t[2][i] = ((OTHER & -REGION) + i * PAGE_SIZE) | PTE;
	}
	t[1][OTHER / REGION] = (u64)t[2] | PTE;
	return (u64)t[0] | PTE;
}

static bool run_ordinary(struct vcpu *o, u32 tlb_control)
{
	o->vmcb->tlb_ctl = tlb_control;
	if (svm_run(o) != EXIT_VMMCALL)
		return false;
	o->vmcb->rip = o->vmcb->next_rip;
	return true;
}

static void runs_and_sees(struct vcpu *o, u64 expected, const char *what)
{
	check(run_ordinary(o, 0) && ordinary_result == expected, "%s", what);
}

static void test_ordinary(void)
{
	static u64 pml4[3][512] __attribute__((aligned(PAGE_SIZE)));
	static struct vmcb other_vmcb;
	struct vcpu a, b = {};
	u64 *pte = own_pte(OTHER), *npte = &tables[1][2][OTHER / PAGE_SIZE % 512];

	*(volatile u64 *)SHARED_PAGES = 0x1111;
	*(volatile u64 *)OTHER = 0x2222;
	pml4[0][0] = own_tables(tables[0]);
	pml4[1][0] = nested_tables(tables[1]);
	pml4[2][0] = nested_tables(tables[2]);
	*npte = SHARED_PAGES | PTE;
	svm_set_up(&a, ordinary_guest);
	memcpy(&other_vmcb, a.vmcb, sizeof(other_vmcb));
	b.vmcb = &other_vmcb;
	b.vmcb->cr3 = (u64)pml4[0];
	a.vmcb->asid = 2;
	b.vmcb->asid = 3;

	section("APM2 15.16", "Guests without SEV-ES do not use each other's translations, nor the host's.");
	for (int i = 0; i < 2; i++) {
		runs_and_sees(&a, 0x2222, "a guest's page");
		runs_and_sees(&b, 0x1111, "another guest's at the same address, by its CR3");
		check_eq(*(volatile u64 *)OTHER, 0x2222, "the host's");
	}
	a.vmcb->nested_ctl = b.vmcb->nested_ctl = 1;
	b.vmcb->cr3 = a.vmcb->cr3;
	a.vmcb->nested_cr3 = (u64)pml4[2];
	b.vmcb->nested_cr3 = (u64)pml4[1];
	for (int i = 0; i < 2; i++) {
		runs_and_sees(&a, 0x2222, "a guest's page, with nested paging");
		runs_and_sees(&b, 0x1111, "another guest's, by its nested page table");
		check_eq(*(volatile u64 *)OTHER, 0x2222, "the host's");
	}

	section("APM2 15.16", "TLB_CONTROL 1, 3 and 7 make VMRUN drop what is cached for a guest without SEV-ES.");
	for (int control = 1; control <= 7; control += 2) {
		if (control == 5)
			continue;
		*npte = SHARED_PAGES | PTE;
		run_ordinary(&b, 1);
		*npte = OTHER | PTE;
		check(run_ordinary(&b, control) && ordinary_result == 0x2222,
		      "TLB_CONTROL %d: the new nested mapping counts", control);
	}

	section("APM2 15.16", "INVLPG and MOV to CR3 of the host drop its translations, whatever guest ran before.");
	for (int i = 0; i < 2; i++) {
		check_eq(*(volatile u64 *)OTHER, 0x2222, "the host reads a page");
		runs_and_sees(&a, 0x2222, "(a guest runs)");
		*pte = SHARED_PAGES | PTE;
		if (i)
			flush_tlb();
		else
			invlpg(OTHER);
		check_eq(*(volatile u64 *)OTHER, 0x1111, i ? "after MOV to CR3 the new one" :
							     "after INVLPG the new one");
		*pte = OTHER | PTE;
		flush_tlb();
	}
}

void test_main(void)
{
	rmp_clear();
	snp_set_up(&v, 0);
	snp_set_up(&vcpu_1, 1);
	snp_set_up(&vmpl1, 3);
	*(u8 *)vmsa_field(vmpl1.vmsa, VMSA_VMPL) = 1;
	*snp_guest_pde(PRIVATE) |= C_BIT;
	snp_npt(PRIVATE);
	snp_npt(SHARED_PAGES);
	own_pte(PRIVATE);
	flush_tlb();
	snp_start();
	rmp_assign(PRIVATE, PRIVATE, GUEST_ASID, false, false);

	section("APM2 15.16", "TLB_CONTROL 1, 3 and 7 make VMRUN drop what is cached for the guest.");
	test_tlb_control();
	test_ordinary();
	test_host();
	test_rmp();
	test_other_cpu();
	test_vmpl();
}
