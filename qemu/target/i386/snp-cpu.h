/*
 * CPUID and reset state of an SEV-SNP host's processors (TCG)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SNP_CPU_H
#define I386_SNP_CPU_H

#include "cpu.h"

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
/* MSR C001_0114 VM_CR (15.30.1) */
#define VM_CR_DPD                       (1ULL << 0)
#define VM_CR_R_INIT                    (1ULL << 1)
#define VM_CR_DIS_A20M                  (1ULL << 2)
#define VM_CR_LOCK                      (1ULL << 3)
#define VM_CR_SVMDIS                    (1ULL << 4)
#define VM_CR_WRITABLE                  (VM_CR_DPD | VM_CR_R_INIT | \
                                         VM_CR_DIS_A20M | VM_CR_LOCK | \
                                         VM_CR_SVMDIS)

/* Features that TCG can offer with snp-host=on only. */
uint64_t snp_host_supported_features(FeatureWord w);

/*
 * Turn the CPU model into one of an SNP host. False and *@errp if that
 * cannot be done with this model or accelerator.
 */
bool snp_host_expand_features(X86CPU *cpu, Error **errp);

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
