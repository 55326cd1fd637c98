/*
 * Secure AVIC: its control MSR, its fields of the VMSA, and the guest APIC
 * backing page (APM vol. 2, 15.36.21)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_X86_SAVIC_REGS_H
#define I386_X86_SAVIC_REGS_H

/* VMSA (table B-4) */
#define VMSA_VMPL                       0x0ca
#define VMSA_SECURE_AVIC_CONTROL        0x320
#define VMSA_SEV_FEATURES               0x3b0
#define VMSA_VINTR_CTRL                 0x3b8

#define VMSA_VINTR_CTRL_BUSY            (1ULL << 63)

/* SECURE_AVIC_CONTROL, VMSA 320h */
#define CONTROL_ENABLE                  (1ULL << 0)
#define CONTROL_ALLOWED_NMI             (1ULL << 1)
#define CONTROL_PAGE                    MAKE_64BIT_MASK(12, 40)
#define CONTROL_MBZ                     (~(CONTROL_PAGE | CONTROL_ENABLE | \
                                           CONTROL_ALLOWED_NMI))

/* Offsets in the backing page: 16 bytes for each x2APIC register */
#define REG_ID                          0x020
#define REG_VERSION                     0x030
#define REG_TPR                         0x080
#define REG_APR                         0x090
#define REG_PPR                         0x0a0
#define REG_EOI                         0x0b0
#define REG_LDR                         0x0d0
#define REG_SVR                         0x0f0
#define REG_ISR                         0x100
#define REG_TMR                         0x180
#define REG_IRR                         0x200
#define REG_IRR_END                     0x27f
#define REG_ESR                         0x280
#define REG_ICR                         0x300
#define REG_ICR_HIGH                    0x310
#define REG_LVT_TIMER                   0x320
#define REG_LVT_THERMAL                 0x330
#define REG_LVT_PERF                    0x340
#define REG_LVT_LINT0                   0x350
#define REG_LVT_LINT1                   0x360
#define REG_LVT_ERROR                   0x370
#define REG_TIMER_INITIAL               0x380
#define REG_TIMER_CURRENT               0x390
#define REG_TIMER_DIVIDE                0x3e0
#define REG_SELF_IPI                    0x3f0
#define REG_EXT_FEATURE                 0x400
#define REG_EXT_SEOI                    0x420
#define REG_EXT_IER                     0x480
#define REG_EXT_LVT                     0x500
#define REG_EXT_LVT_END                 0x53f

/* Fields of the guest's own, between the IRR words */
#define PAGE_ALLOWED_IRR                0x204
#define PAGE_NMI_REQ                    0x278

#endif
