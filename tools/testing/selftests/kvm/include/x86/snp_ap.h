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

/* Host side: give the guest @nr pages for VMSAs, each with a stack.  Before launch. */
void snp_alloc_vmsas(struct kvm_vm *vm, u32 nr);

/*
 * Guest side: the VMSA with index @i.  snp_vmsa_init() copies the caller's control
 * registers and descriptor tables.  After snp_vmsa_seal() the page is a VMSA for
 * hardware.  snp_vmsa_prepare() does both.
 */
gpa_t snp_vmsa_gpa(u32 i);
void snp_vmsa_init(u32 i, void (*entry)(u64 arg), u64 arg);
void snp_vmsa_write(u32 i, u32 offset, u64 val);
void snp_vmsa_seal(u32 i);
void snp_vmsa_prepare(u32 i, void (*entry)(u64 arg), u64 arg);

/* Guest side.  @op is SVM_VMGEXIT_AP_CREATE etc., @i the VMSA that the vCPU gets. */
enum ghcb_status snp_ap_request(u32 op, u32 apic_id, gpa_t vmsa, u64 sev_features);
enum ghcb_status snp_ap_create(u32 apic_id, u32 i);
enum ghcb_status snp_ap_destroy(u32 apic_id);

/* SEV_FEATURES of the calling vCPU, which is what KVM wants those of an AP to be. */
u64 snp_sev_features(void);

#endif /* SELFTEST_KVM_SNP_AP_H */
