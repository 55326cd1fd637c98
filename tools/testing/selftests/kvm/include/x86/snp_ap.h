/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SNP AP Creation (GHCB spec, 4.1.9): a guest that starts its own vCPUs.
 */
#ifndef SELFTEST_KVM_SNP_AP_H
#define SELFTEST_KVM_SNP_AP_H

#include "ghcb.h"
#include "kvm_util.h"

/* Offsets in a VMSA (APM volume 2, table B-4). */
#define VMSA_SAVIC_CTL		0x320
#define VMSA_SEV_FEATURES	0x3b0

/*
 * Guest side.  @vmsa is a private page, not 2M-aligned, @stack_end a page boundary.
 * snp_vmsa_init() copies the caller's control registers and descriptor tables.
 * After snp_vmsa_seal() the page is a VMSA for hardware.
 */
void snp_vmsa_init(void *vmsa, void (*entry)(u64 arg), u64 arg, void *stack_end);
void snp_vmsa_write(void *vmsa, u32 offset, u64 val);
void snp_vmsa_seal(void *vmsa);

/* @op is SVM_VMGEXIT_AP_CREATE etc. */
enum ghcb_status snp_ap_request(u32 op, u32 apic_id, gpa_t vmsa, u64 sev_features);

/* SEV_FEATURES of the calling vCPU, which is what KVM wants those of an AP to be. */
u64 snp_sev_features(void);

#endif /* SELFTEST_KVM_SNP_AP_H */
