/*
 * Machine tests: VMCB and VMRUN
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define GUEST_STACK	0x8000

void svm_vmrun(u64 vmcb, struct guest_regs *regs, u64 hsave);

static u8 hsave[2][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static struct vmcb vmcbs[2];
static u8 guest_stack[2][GUEST_STACK] __attribute__((aligned(16)));
static u8 no_bitmap[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

void svm_init(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_VM_HSAVE_PA, (u64)hsave[apic_id() & 1]);
}

void svm_intercept(struct vmcb *vmcb, unsigned int code, bool on)
{
	unsigned int bit = code - EXIT_INTR;
	u32 *word = &vmcb->intercept[3 + bit / 32];

	*word &= ~BIT(bit % 32);
	if (on)
		*word |= BIT(bit % 32);
}

static void set_seg(struct vmcb_seg *s, u16 selector, u16 attrib)
{
	*s = (struct vmcb_seg){ selector, attrib, 0xffffffff, 0 };
}

void svm_set_up(struct vcpu *v, void (*fn)(void))
{
	int cpu = apic_id() & 1;
	struct vmcb *vmcb = &vmcbs[cpu];
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) table;

	memset(vmcb, 0, sizeof(*vmcb));
	memset(&v->regs, 0, sizeof(v->regs));
	v->vmcb = vmcb;

	svm_intercept(vmcb, EXIT_INTR, true);
	svm_intercept(vmcb, EXIT_NMI, true);
	svm_intercept(vmcb, EXIT_SHUTDOWN, true);
	svm_intercept(vmcb, EXIT_VMRUN, true);
	svm_intercept(vmcb, EXIT_VMMCALL, true);
	vmcb->iopm = vmcb->msrpm = (u64)no_bitmap;
	vmcb->asid = 1;
	vmcb->tlb_ctl = 1;
	vmcb->int_ctl = V_INTR_MASKING;

	set_seg(&vmcb->cs, 0x08, 0xa9b);
	set_seg(&vmcb->ss, 0x10, 0xc93);
	vmcb->ds = vmcb->es = vmcb->fs = vmcb->gs = vmcb->ss;
	asm volatile("sgdt %0" : "=m"(table));
	vmcb->gdtr.base = table.base;
	vmcb->gdtr.limit = table.limit;
	asm volatile("sidt %0" : "=m"(table));
	vmcb->idtr.base = table.base;
	vmcb->idtr.limit = table.limit;

	vmcb->efer = rdmsr(MSR_EFER);
	vmcb->cr0 = READ_CR(0);
	vmcb->cr3 = READ_CR(3);
	vmcb->cr4 = READ_CR(4);
	vmcb->dr6 = 0xffff0ff0;
	vmcb->dr7 = 0x400;
	vmcb->rflags = 2;
	vmcb->rip = (u64)fn;
	vmcb->rsp = (u64)guest_stack[cpu] + GUEST_STACK - 8;
	vmcb->g_pat = 0x0007040600070406;
}

u64 svm_run(struct vcpu *v)
{
	svm_vmrun((u64)v->vmcb, &v->regs, (u64)hsave[apic_id() & 1]);
	return v->vmcb->exit_code;
}
