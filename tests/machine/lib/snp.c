/*
 * Machine tests: an SNP guest made without a security processor
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define REGION		0x200000UL
#define STACK		0x8000
#define PTE		7UL		/* present, writable, user */
#define PDE_2M		0x87UL

/* Quadword 0 of an RMP entry (firmware ABI) */
#define RMP_ASSIGNED	BIT(0)
#define RMP_ASID(n)	((u64)(n) << 51)
#define RMP_VMSA	BIT(61)
#define RMP_VALIDATED	BIT(62)
#define RMP_BOOKKEEPING	0x4000
#define VMPL_ALL	0x1f

struct rmp_update {
	u64 gpa;
	u8 assigned, size_2m, immutable, res;
	u32 asid;
	u8 res2[16];
} __attribute__((packed, aligned(16)));

extern struct {
	u16 limit;
	u64 base;
} __attribute__((packed)) gdt_pointer, idt_pointer;

void svm_vmrun(u64 vmcb, struct guest_regs *regs, u64 hsave);

#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u64 npt_pml4[512] PAGE, npt_pdpt[512] PAGE, npt_pd[512] PAGE;
static u64 npt_image[512] PAGE, npt_vmsas[512] PAGE;
static u64 pml4[512] PAGE, pdpt[512] PAGE, pd[512] PAGE;
static u8 hsave[2][PAGE_SIZE] PAGE;
static struct vmcb vmcbs[SNP_VCPUS];
static u8 no_bitmap[4 * PAGE_SIZE] PAGE;
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

/* ---- The host ---------------------------------------------------------------- */

static void set_seg(struct vmcb_seg *s, u16 selector, u16 attrib, u32 limit, u64 base)
{
	*s = (struct vmcb_seg){ selector, attrib, limit, base };
}

void snp_set_up(struct snp_vcpu *v, int n)
{
	int index = n & 1;
	struct vmcb *vmcb = &vmcbs[n];
	u64 vmsa = VMSAS + n * PAGE_SIZE;
	struct vmcb *s = (struct vmcb *)(vmsa - 0x400);

	if (n >= vcpus)
		vcpus = n + 1;
	memset(vmcb, 0, sizeof(*vmcb));
	memset((void *)vmsa, 0, PAGE_SIZE);
	*v = (struct snp_vcpu){ .vmcb = vmcb, .vmsa = vmsa };

	svm_intercept(vmcb, EXIT_INTR, true);
	svm_intercept(vmcb, EXIT_NMI, true);
	svm_intercept(vmcb, EXIT_SHUTDOWN, true);
	svm_intercept(vmcb, EXIT_VMRUN, true);
	svm_intercept(vmcb, EXIT_VMMCALL, true);
	svm_intercept(vmcb, EXIT_HLT, true);
	vmcb->iopm = vmcb->msrpm = (u64)no_bitmap;
	vmcb->asid = GUEST_ASID;
	vmcb->tlb_ctl = 1;
	vmcb->int_ctl = V_INTR_MASKING | V_GIF_ENABLE;
	vmcb->nested_ctl = 7;			/* NP, SEV, SEV-ES */
	vmcb->nested_cr3 = (u64)npt_pml4;
	vmcb->lbr_ctl = 1;
	vmcb->vmsa = vmsa;
	vmcb->allowed_sev_features = ALLOWED_ENABLE | SNP_ACTIVE | SECURE_AVIC;

	/* From here on @s is the VMSA. */
	set_seg(&s->cs, 0x08, 0xa9b, 0xffffffff, 0);
	set_seg(&s->ss, 0x10, 0xc93, 0xffffffff, 0);
	s->ds = s->es = s->fs = s->gs = s->ss;
	set_seg(&s->gdtr, 0, 0, gdt_pointer.limit, gdt_pointer.base);
	set_seg(&s->idtr, 0, 0, idt_pointer.limit, idt_pointer.base);
	set_seg(&s->tr, 0, 0x8b, 0xffff, 0);
	set_seg(&s->ldtr, 0, 0x82, 0xffff, 0);
	s->efer = rdmsr(MSR_EFER) | EFER_SVME;
	s->cr0 = READ_CR(0);
	s->cr3 = (u64)pml4 | C_BIT;
	s->cr4 = READ_CR(4);
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->rflags = 2;
	s->rip = (u64)guest_main;
	s->rsp = (u64)stacks[index] + STACK - 8;
	s->g_pat = 0x0007040600070406;
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
	u64 (*rmp)[2] = (void *)(rdmsr(MSR_RMP_BASE) + RMP_BOOKKEEPING);
	u64 first = spa / PAGE_SIZE;

	for (u64 i = 0; i < pages; i++) {
		rmp[first + i][0] = RMP_ASSIGNED | RMP_VALIDATED | flags |
				    RMP_ASID(GUEST_ASID) | (gpa + i * PAGE_SIZE);
		rmp[first + i][1] = VMPL_ALL;
	}
	/* Of the region, but for the head */
	rmp[first & ~511UL][0] |= (pages - 1) << 3;
}

void snp_start(void)
{
	npt_pml4[0] = (u64)npt_pdpt | PTE;
	npt_pdpt[0] = (u64)npt_pd | PTE;
	pml4[0] = (u64)pdpt | C_BIT | PTE;
	pdpt[0] = (u64)pd | C_BIT | PTE;
	for (u64 i = 0; i < 512; i++) {
		npt_pd[i] = i * REGION | PDE_2M;
		pd[i] = i * REGION | PDE_2M;
		npt_image[i] = (IMAGE_COPY + i * PAGE_SIZE) | PTE;
		npt_vmsas[i] = (VMSAS + i * PAGE_SIZE) | PTE;
	}
	npt_pd[IMAGE / REGION] = (u64)npt_image | PTE;
	npt_pd[VMSAS / REGION] = (u64)npt_vmsas | PTE;
	pd[IMAGE / REGION] |= C_BIT;
	pd[VMSAS / REGION] |= C_BIT;

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
	wrmsr(MSR_SYSCFG, rdmsr(MSR_SYSCFG) | SYSCFG_MFDM | SYSCFG_SNP_EN | SYSCFG_VMPL_EN);
}

u64 snp_run(struct snp_vcpu *v)
{
	svm_vmrun((u64)v->vmcb, &v->regs, (u64)hsave[apic_id() & 1]);
	return v->vmcb->exit_code;
}

bool snp_call(struct snp_vcpu *v, void (*fn)(u64), u64 arg)
{
	int index = v->vmsa & PAGE_SIZE ? 1 : 0;

	shared->arg[index] = arg;
	shared->fn[index] = fn;
	return snp_run(v) == EXIT_VMGEXIT && !shared->fn[index];
}

u64 *snp_npt(u64 gpa)
{
	return &npt_image[(gpa - IMAGE) / PAGE_SIZE];
}

u32 snp_assign(u64 gpa, bool assigned)
{
	struct rmp_update u = { 0 };
	u32 ret;

	if (assigned) {
		u.gpa = gpa;
		u.assigned = 1;
		u.asid = GUEST_ASID;
	}
	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe"
		     : "=a"(ret) : "a"(gpa - IMAGE + IMAGE_COPY), "c"(&u)
		     : "memory", "cc");
	return ret;
}
