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

void svm_set_control(struct vmcb *vmcb, u32 asid)
{
	memset(vmcb, 0, sizeof(*vmcb));
	svm_intercept(vmcb, EXIT_INTR, true);
	svm_intercept(vmcb, EXIT_NMI, true);
	svm_intercept(vmcb, EXIT_SHUTDOWN, true);
	svm_intercept(vmcb, EXIT_VMRUN, true);
	svm_intercept(vmcb, EXIT_VMMCALL, true);
	vmcb->iopm = vmcb->msrpm = (u64)no_bitmap;
	vmcb->asid = asid;
	vmcb->tlb_ctl = 1;
	vmcb->int_ctl = V_INTR_MASKING;
}

static struct vmcb_seg seg(u16 selector, u16 attrib, u32 limit, u64 base)
{
	return (struct vmcb_seg){ selector, attrib, limit, base };
}

void svm_set_state(struct vmcb *s, u64 rip, u64 rsp)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) table;

	s->cs = seg(0x08, 0xa9b, 0xffffffff, 0);
	s->ss = seg(0x10, 0xc93, 0xffffffff, 0);
	s->ds = s->es = s->fs = s->gs = s->ss;
	asm volatile("sgdt %0" : "=m"(table));
	s->gdtr = seg(0, 0, table.limit, table.base);
	asm volatile("sidt %0" : "=m"(table));
	s->idtr = seg(0, 0, table.limit, table.base);
	s->ldtr = seg(0, 0x82, 0xffff, 0);
	s->tr = seg(0, 0x8b, 0xffff, 0);
	s->efer = rdmsr(MSR_EFER) | EFER_SVME;
	s->cr0 = READ_CR(0);
	s->cr3 = READ_CR(3);
	s->cr4 = READ_CR(4);
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->rflags = 2;
	s->rip = rip;
	s->rsp = rsp;
	s->g_pat = 0x0007040600070406;
}

void svm_set_up(struct vcpu *v, void (*fn)(void))
{
	int cpu = apic_id() & 1;

	memset(&v->regs, 0, sizeof(v->regs));
	v->vmcb = &vmcbs[cpu];
	svm_set_control(v->vmcb, 1);
	svm_set_state(v->vmcb, (u64)fn, (u64)guest_stack[cpu] + GUEST_STACK - 8);
}

u64 svm_run(struct vcpu *v)
{
	svm_vmrun((u64)v->vmcb, &v->regs, (u64)hsave[apic_id() & 1]);
	return v->vmcb->exit_code;
}
