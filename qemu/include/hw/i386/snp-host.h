/*
 * q35 as an AMD SEV-SNP host: what firmware and board provide (TCG only)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_SNP_HOST_H
#define HW_I386_SNP_HOST_H

#include "hw/i386/pc.h"

/* Adds the machine property "snp-host". */
void snp_host_class_init(ObjectClass *oc);

/*
 * Put the RMP at the top of RAM, above 4G, and tell the processors. Called
 * with RAM split but neither mapped nor CPUs created. Exits on an error in
 * the configuration.
 */
void snp_host_init_memory(PCMachineState *pcms);

/* The IOMMU and the security processor, on the root bus. */
void snp_host_create_devices(PCMachineState *pcms);

/*
 * The RMP's say in an IOMMU's translation of @addr for an access of kind @flag, which
 * has become @entry: the latter is reduced to the page. False: a write to a page
 * that is not hypervisor-owned, with no permission left in @entry. A read of a
 * guest's page is redirected to what stands for ciphertext. From any thread.
 */
bool snp_host_check_dma(hwaddr addr, IOMMUAccessFlags flag,
                        IOMMUTLBEntry *entry);

#endif
