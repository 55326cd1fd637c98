/*
 * CPUID and reset state of an SEV-SNP host's processors (TCG)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SNP_CPU_H
#define I386_SNP_CPU_H

#include "cpu.h"
#include "snp-readings.h"

/* Fn8000_001F ECX: highest ASID; EDX: first one for SEV guests without ES. */
#define SEV_MAX_ASID                    1006
#define SEV_MIN_ASID                    100
#define SNP_NR_VMPLS                    4

/* MSR C001_0010 SYSCFG (APM vol. 2, 3.2.8) */
#define SYSCFG_MTRR_FIX_DRAM_MOD_EN     (1ULL << 19)
#define SYSCFG_MEM_ENCRYPTION_MOD_EN    (1ULL << 23)
#define SYSCFG_SNP_EN                   (1ULL << 24)
#define SYSCFG_VMPL_EN                  (1ULL << 25)
/* MSR C001_0015 HWCR */
#define HWCR_SMM_LOCK                   (1ULL << 0)
#define HWCR_TSC_FREQ_SEL               (1ULL << 24)
/* MSR C001_0136 RMP_CFG */
#define RMP_CFG_SEGMENTED               (1ULL << 0)
#define RMP_CFG_SHIFT(cfg)              extract64(cfg, 8, 6)
#define RMP_CFG_WRITABLE                (RMP_CFG_SEGMENTED | 0x3f00)
/* Segments of 1G to 2^48 bytes: Fn8000_0025 EAX */
#define RMP_SEGMENT_SHIFT_MIN           30
#define RMP_SEGMENT_SHIFT_MAX           48
/*
 * The segment table is behind the bookkeeping: address of the segment's entries in
 * 51:20, and in 19:0 how many GiB they cover.
 */
#define RMP_BOOKKEEPING_SIZE            0x4000
#define RMP_SEGMENTS                    512
#define RMP_SEGMENT_BASE(entry)         ((entry) & MAKE_64BIT_MASK(20, 32))
#define RMP_SEGMENT_GIB(entry)          extract64(entry, 0, 20)
/* MSR C001_0114 VM_CR (15.30.1) */
#define VM_CR_DPD                       (1ULL << 0)
#define VM_CR_R_INIT                    (1ULL << 1)
#define VM_CR_DIS_A20M                  (1ULL << 2)
#define VM_CR_LOCK                      (1ULL << 3)
#define VM_CR_SVMDIS                    (1ULL << 4)
#define VM_CR_WRITABLE                  (VM_CR_DPD | VM_CR_R_INIT | \
                                         VM_CR_DIS_A20M | VM_CR_LOCK | \
                                         VM_CR_SVMDIS)

/* The clock that GUEST_TSC_SCALE is relative to (firmware ABI) */
#define SNP_REFERENCE_TSC_KHZ           99800
/*
 * The TSC goes by the clock of the machine's timers, so that software that compares
 * them finds no skew. "tsc-frequency" of the CPU, else 1 GHz.
 */
#define SNP_DEFAULT_TSC_KHZ             1000000
static inline uint32_t snp_host_tsc_khz(CPUX86State *env)
{
    return env->tsc_khz > 0 ? env->tsc_khz : SNP_DEFAULT_TSC_KHZ;
}
uint64_t snp_host_tsc(CPUX86State *env);

/* Features that TCG can offer with snp-host=on only. */
uint64_t snp_host_supported_features(FeatureWord w);

/*
 * Turn the CPU model into one of an SNP host. False and *@errp if that
 * cannot be done with this model or accelerator.
 */
bool snp_host_expand_features(X86CPU *cpu, Error **errp);

/* CPUID Fn8000_001F_EAX (APM vol. 3, appendix E.4.17) */
#define SEV_EAX_SEV                     (1U << 1)
#define SEV_EAX_SEV_ES                  (1U << 3)
#define SEV_EAX_SNP                     (1U << 4)
#define SEV_EAX_VMPL                    (1U << 5)
#define SEV_EAX_RMPQUERY                (1U << 6)
#define SEV_EAX_SECURE_TSC              (1U << 8)
#define SEV_EAX_TSC_AUX                 (1U << 9)
#define SEV_EAX_COHERENT                (1U << 10)
#define SEV_EAX_64BIT_HOST              (1U << 11)
#define SEV_EAX_ALTERNATE_INJ           (1U << 13)
#define SEV_EAX_DEBUG_VIRT              (1U << 14)
#define SEV_EAX_PREVENT_HOST_IBS        (1U << 15)
#define SEV_EAX_VMGEXIT_PARAM           (1U << 17)
#define SEV_EAX_RMPREAD                 (1U << 21)
#define SEV_EAX_SEGMENTED_RMP           (1U << 23)
#define SEV_EAX_SECURE_AVIC             (1U << 26)
#define SEV_EAX_ALLOWED_FEATURES        (1U << 27)
#define SEV_EAX_IN_USE_WRITE            (1U << 30)
#define SEV_EAX_IBPB_ON_ENTRY           (1U << 31)
uint32_t snp_host_sev_eax(X86CPU *cpu);

/* Leaves in which an SNP host differs; called last in cpu_x86_cpuid(). */
void snp_host_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax,
                    uint32_t *ebx, uint32_t *ecx, uint32_t *edx);

/* MSRs as firmware leaves them for the operating system (15.34.2, 15.36.4). */
void snp_host_cpu_reset(X86CPU *cpu);
/* INIT of a CPU with VM_CR.R_INIT: raises #SX in its place (15.28). */
void snp_host_redirect_init(X86CPU *cpu);
/* INIT leaves MSRs alone that RESET does not. */
void snp_host_cpu_init(X86CPU *cpu, const X86SevState *before);

#endif
