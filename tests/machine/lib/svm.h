/*
 * Machine tests: VMCB and VMRUN (APM vol. 2, 15 and appendix B)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef SVM_H
#define SVM_H

#include "machine.h"

#define MSR_EFER		0xc0000080
#define MSR_LSTAR		0xc0000082
#define MSR_VM_HSAVE_PA		0xc0010117
#define MSR_DOORBELL		0xc001011b
#define EFER_SVME		BIT(12)

#define EXIT_EXCP		0x40
#define EXIT_VC			0x5d
#define EXIT_INTR		0x60
#define EXIT_NMI		0x61
#define EXIT_INIT		0x63
#define EXIT_VINTR		0x64
#define EXIT_CPUID		0x72
#define EXIT_IRET		0x74
#define EXIT_PAUSE		0x77
#define EXIT_HLT		0x78
#define EXIT_IO			0x7b
#define EXIT_MSR		0x7c
#define EXIT_SHUTDOWN		0x7f
#define EXIT_VMRUN		0x80
#define EXIT_VMMCALL		0x81
#define EXIT_EFER_TRAP		0x8f
#define EXIT_IDLE_HLT		0xa6
#define EXIT_NPF		0x400
#define EXIT_VMGEXIT		0x403
#define EXIT_INVALID		(-1ULL)
#define EXIT_BUSY		(-2ULL)

/* Intercept bits by exit code, from 60h on */
#define INTERCEPT(code)		(code)

#define V_IRQ			BIT(8)
#define V_GIF			BIT(9)
#define V_NMI			BIT(11)
#define V_NMI_BLOCKED		BIT(12)
#define V_PRIO(n)		((u64)(n) << 16)
#define V_IGN_TPR		BIT(20)
#define V_INTR_MASKING		BIT(24)
#define V_GIF_ENABLE		BIT(25)
#define V_NMI_ENABLE		BIT(26)
#define V_AVIC_ENABLE		BIT(31)

#define EVENT_VALID		BIT(31)
#define EVENT_INTR		(0 << 8)
#define EVENT_NMI		(2 << 8)
#define EVENT_EXCEPTION		(3 << 8)

struct vmcb_seg {
	u16 selector, attrib;
	u32 limit;
	u64 base;
} __attribute__((packed));

struct vmcb {
	u32 intercept[6];		/* 000: CR, DR, exceptions, vectors 3-5 */
	u8 res1[0x3e - 0x18];
	u16 pause_filter_count;		/* 03E */
	u64 iopm, msrpm;		/* 040 */
	u64 tsc_offset;
	u32 asid;
	u8 tlb_ctl, res2[3];
	u64 int_ctl;			/* 060, V_INTR_VECTOR in 39:32 */
	u64 int_state;
	u64 exit_code, exit_info_1, exit_info_2;	/* 070 */
	u64 exit_int_info;
	u64 nested_ctl;			/* 090 */
	u64 avic_bar, ghcb;
	u64 event_inj;			/* 0A8 */
	u64 nested_cr3, lbr_ctl;
	u64 clean, next_rip;		/* 0C0 */
	u8 insn[16];
	u8 res3[0x108 - 0xe0];
	u64 vmsa;			/* 108 */
	u64 vmgexit_rax;
	u8 vmgexit_cpl, res4[0x134 - 0x119];
	u32 update_irr;			/* 134 */
	u64 allowed_sev_features;	/* 138 */
	u64 guest_sev_features;
	u8 res5[8];
	u32 requested_irr[8];		/* 150 */
	u8 res6[0x400 - 0x170];

	/* State save area; the VMSA begins like this as well. */
	struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 res7[0xcb - 0xa0];
	u8 cpl;				/* 0CB */
	u32 res8;
	u64 efer;			/* 0D0 */
	u8 res9[0x148 - 0xd8];
	u64 cr4, cr3, cr0, dr7, dr6;	/* 148 */
	u64 rflags, rip;		/* 170 */
	u8 res10[0x1d8 - 0x180];
	u64 rsp;			/* 1D8 */
	u8 res11[0x1f8 - 0x1e0];
	u64 rax;			/* 1F8 */
	u8 res12[0x240 - 0x200];
	u64 cr2;			/* 240 */
	u8 res13[0x268 - 0x248];
	u64 g_pat;			/* 268 */
	u64 dbgctl, br_from, br_to, last_excp_from, last_excp_to;
	u8 res14[0x1000 - 0x400 - 0x298];
} __attribute__((packed, aligned(PAGE_SIZE)));

_Static_assert(sizeof(struct vmcb) == PAGE_SIZE, "VMCB");
_Static_assert(offsetof(struct vmcb, requested_irr) == 0x150, "VMCB");
_Static_assert(offsetof(struct vmcb, g_pat) == 0x668, "VMCB");

/* Order of svm_vmrun() */
struct guest_regs {
	u64 rcx, rdx, rbx, rbp, rsi, rdi;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
};

struct vcpu {
	struct vmcb *vmcb;
	struct guest_regs regs;
};

/* Turn SVM on for this CPU. */
void svm_init(void);
/*
 * What guests of either kind begin with: intercepts that VMRUN or the test
 * needs, permission maps without a bit set, virtual interrupt masking.
 */
void svm_set_control(struct vmcb *vmcb, u32 asid);
/*
 * State save area of @s, or a VMSA that begins 400h bytes after @s: 64-bit mode
 * with the test's own tables, at @rip with the stack @rsp.
 */
void svm_set_state(struct vmcb *s, u64 rip, u64 rsp);
/*
 * A guest in the address space of the test: same page tables and IDT, nested
 * paging off; @fn runs on a stack of its own. VMRUN, VMMCALL, INTR and NMI are
 * intercepted.
 */
void svm_set_up(struct vcpu *v, void (*fn)(void));
void svm_intercept(struct vmcb *vmcb, unsigned int code, bool on);
/* Enter the guest; returns the exit code. */
u64 svm_run(struct vcpu *v);
/* Guest code: a few instructions, their end marked, then VMMCALL */
#define GUEST(name, insn)						\
	asm(#name ": " insn "\n" #name "_end: vmmcall\n");		\
	void name(void);						\
	void name##_end(void)

/* The guest's way to tell the host something: VMMCALL with @code in RAX */
static inline void vmmcall(u64 code)
{
	asm volatile("vmmcall" : "+a"(code) : : "memory");
}

#endif
