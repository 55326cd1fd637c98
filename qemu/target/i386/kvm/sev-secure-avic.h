/*
 * What an SEV-SNP guest with Secure AVIC needs of host, machine and vCPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef I386_SEV_SECURE_AVIC_H
#define I386_SEV_SECURE_AVIC_H

#include "cpu.h"

/* VMSA SEV_FEATURES (APM vol. 2, table B-4) */
#define SEV_VMSA_DEBUG_SWAP     (1ULL << 5)
#define SEV_VMSA_SECURE_AVIC    (1ULL << 16)

/*
 * True if KVM lets userspace set @feature in the initial VMSA's SEV_FEATURES.
 * Call it with KVM's VM created.
 */
bool sev_kvm_offers_vmsa_feature(uint64_t feature);

/*
 * True if the host and the accelerator's options allow Secure AVIC.  Call it
 * with KVM's VM created, before KVM_SEV_INIT2.  Otherwise the error says what
 * the user has to change.
 */
bool sev_secure_avic_check_host(Error **errp);

/*
 * True if a vCPU with @cpu's features can be one of a guest with Secure AVIC.
 * Paravirtual features that such a guest cannot use are turned off, or refused
 * if the user asks for them.  Call it once the features are expanded, for each
 * vCPU, also a hot-plugged one.
 */
bool sev_secure_avic_prepare_cpu(X86CPU *cpu, Error **errp);

#endif
