/*
 * Machine tests: an SNP guest made without a security processor
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define STACK		0x8000

/* Quadword 1 of an RMP entry (firmware ABI): all rights for all VMPLs */
#define VMPL_ALL	0x1f1f1f1fUL

void svm_vmrun(u64 vmcb, struct guest_regs *regs, u64 hsave);

#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u64 npt_pml4[512] PAGE, npt_pdpt[512] PAGE, npt_pd[512] PAGE;
static u64 pml4[512] PAGE, pdpt[512] PAGE, pd[512] PAGE;
static u8 hsave[2][PAGE_SIZE] PAGE;
static struct vmcb vmcbs[SNP_VCPUS];
static u8 stacks[2][STACK] PAGE;
static int vcpus;

/* ---- The guest's own code -------------------------------------------------- */

static u64 my_vmsa[2];

int guest_index(void)
{
	u64 sp;

	asm("mov %%rsp, %0" : "=r"(sp));
	return sp >= (u64)stacks[1];
}

u64 guest_vmsa(void)
{
	return my_vmsa[guest_index()];
}

static void guest_main(u64 index, u64 vmsa)
{
	my_vmsa[index] = vmsa;
	for (;;) {
		void (*fn)(u64) = shared->fn[index];

		if (fn) {
			fn(shared->arg[index]);
			shared->fn[index] = NULL;
		}
		vmgexit();
	}
}

void guest_check_eq(u64 seen, u64 expected, const char *what)
{
	int index = guest_index();

	shared->report[index].seen = seen;
	shared->report[index].expected = expected;
	shared->report[index].what = what;
	vmgexit();
}

/* ---- The host ---------------------------------------------------------------- */

void snp_set_up(struct snp_vcpu *v, int n)
{
	int index = n & 1;
	struct vmcb *vmcb = &vmcbs[n];
	u64 vmsa = VMSAS + n * PAGE_SIZE;
	struct vmcb *s = (struct vmcb *)(vmsa - 0x400);

	if (n >= vcpus)
		vcpus = n + 1;
	memset((void *)vmsa, 0, PAGE_SIZE);
	*v = (struct snp_vcpu){ .vmcb = vmcb, .vmsa = vmsa };

	svm_set_control(vmcb, GUEST_ASID);
	svm_intercept(vmcb, EXIT_HLT, true);
	vmcb->int_ctl |= V_GIF_ENABLE;
	vmcb->nested_ctl = 7;			/* NP, SEV, SEV-ES */
	vmcb->nested_cr3 = (u64)npt_pml4;
	vmcb->lbr_ctl = 1;
	vmcb->vmsa = vmsa;
	vmcb->allowed_sev_features = ALLOWED_ENABLE | SNP_ACTIVE | SECURE_AVIC;

	/* The VMSA begins as the VMCB's state save area does. */
	svm_set_state(s, (u64)guest_main, (u64)stacks[index] + STACK - 8);
	s->cr3 = (u64)pml4 | C_BIT;
	*vmsa_field(vmsa, 0x330) = vmsa;	/* RSI */
	*vmsa_field(vmsa, 0x338) = index;	/* RDI */
	*vmsa_field(vmsa, VMSA_XCR0) = 1;
	*vmsa_field(vmsa, VMSA_SEV_FEATURES) = SNP_ACTIVE | SECURE_AVIC;
	*vmsa_field(vmsa, VMSA_VINTR_CTRL) = V_GIF | V_NMI_ENABLE;
	*(u32 *)(vmsa + 0x408) = 0x1f80;	/* MXCSR */
	*(u16 *)(vmsa + 0x410) = 0x37f;		/* FCW */
}

static void rmp_entries(u64 spa, u64 gpa, unsigned int pages, u64 flags)
{
	for (u64 i = 0; i < pages; i++) {
		u64 *entry = rmp_quads(spa + i * PAGE_SIZE);

		entry[0] = RMP_ASSIGNED | RMP_VALIDATED | flags |
				    RMP_ASID(GUEST_ASID) | (gpa + i * PAGE_SIZE);
		entry[1] = VMPL_ALL;
	}
	/* Of the region, but for the head */
	rmp_quads(spa & -REGION)[0] |= (pages - 1) << 3;
}

/* 1G, by 2M. Whoever asks for an entry first comes here. */
static void build_tables(void)
{
	if (pml4[0])
		return;
	npt_pml4[0] = (u64)npt_pdpt | PTE;
	npt_pdpt[0] = (u64)npt_pd | PTE;
	pml4[0] = (u64)pdpt | C_BIT | PTE;
	pdpt[0] = (u64)pd | C_BIT | PTE;
	for (u64 i = 0; i < 512; i++)
		npt_pd[i] = pd[i] = i * REGION | PDE_2M;
	for (u64 i = 0; i < REGION; i += PAGE_SIZE)
		*snp_npt(IMAGE + i) = (IMAGE_COPY + i) | PTE;
	snp_npt(VMSAS);
	pd[IMAGE / REGION] |= C_BIT;
	pd[VMSAS / REGION] |= C_BIT;
}

u64 *snp_npt_pde(u64 gpa)
{
	build_tables();
	return &npt_pd[gpa / REGION];
}

u64 *snp_npt(u64 gpa)
{
	return &page_split(snp_npt_pde(gpa), false)[gpa / PAGE_SIZE & 511];
}

u64 *snp_guest_pde(u64 va)
{
	build_tables();
	return &pd[va / REGION];
}

u64 *snp_guest_pte(u64 va)
{
	return &page_split(snp_guest_pde(va), false)[va / PAGE_SIZE & 511];
}

void snp_start(void)
{
	build_tables();
	memset(shared, 0, sizeof(*shared));
	memcpy((void *)IMAGE_COPY, (void *)IMAGE, REGION);
	rmp_entries(IMAGE_COPY, IMAGE, 512, 0);
	rmp_entries(VMSAS, VMSAS, vcpus, RMP_VMSA);
	snp_start_cpu();
}

void snp_start_cpu(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, (u64)hsave[apic_id() & 1]);
	wrmsr(MSR_HWCR, rdmsr(MSR_HWCR) | 1);
	rmp_enable();
}

static int index_of(const struct snp_vcpu *v)
{
	return v->vmsa & PAGE_SIZE ? 1 : 0;
}

/* What guest_check_eq() has left, if it has */
static bool take_report(int index)
{
	const char *what = shared->report[index].what;

	if (!what)
		return false;
	shared->report[index].what = NULL;
	check_eq(shared->report[index].seen, shared->report[index].expected, what);
	return true;
}

u64 snp_run(struct snp_vcpu *v)
{
	do {
		svm_vmrun((u64)v->vmcb, &v->regs, (u64)hsave[apic_id() & 1]);
	} while (v->vmcb->exit_code == EXIT_VMGEXIT && take_report(index_of(v)));
	return v->vmcb->exit_code;
}

bool snp_call(struct snp_vcpu *v, void (*fn)(u64), u64 arg)
{
	int index = index_of(v);

	shared->arg[index] = arg;
	shared->fn[index] = fn;
	return snp_run(v) == EXIT_VMGEXIT && !shared->fn[index];
}

u32 snp_assign(u64 gpa, bool assigned)
{
	u64 spa = gpa - IMAGE + IMAGE_COPY;

	return assigned ? rmp_assign(spa, gpa, GUEST_ASID, false, false) :
			  rmp_release(spa, false);
}
