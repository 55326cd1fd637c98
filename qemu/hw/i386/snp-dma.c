/*
 * Reverse map table (RMP) checks of the IOMMU: what a device may do to pages that
 * are not hypervisor-owned (AMD IOMMU specification, 48882)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "hw/i386/snp-host.h"
#include "target/i386/cpu.h"
#include "target/i386/snp.h"

bool snp_host_check_dma(hwaddr addr, IOMMUAccessFlags flag,
                        IOMMUTLBEntry *entry)
{
    CPUX86State *env = &X86_CPU(first_cpu)->env;
    hwaddr page = addr & TARGET_PAGE_MASK;
    SnpRmpEntry e;
    bool foreign;

    if (!snp_enabled(env) || entry->perm == IOMMU_NONE) {
        return true;
    }
    /* Pages next to it may be somebody else's. */
    entry->translated_addr += page & entry->addr_mask;
    entry->iova = page;
    entry->addr_mask = ~TARGET_PAGE_MASK;
    foreign = snp_rmp_lookup(env, entry->translated_addr, &e) && e.assigned;
    if (!foreign && !snp_in_use_write_refused(env, entry->translated_addr)) {
        return true;
    }
    if (flag & IOMMU_WO) {
        entry->perm = IOMMU_NONE;
        return false;
    }
    entry->perm &= IOMMU_RO;
    /* Firmware's pages are not encrypted. */
    if (foreign && e.asid) {
        entry->translated_addr += SNP_SCRAMBLED_BASE;
        entry->target_as = cpu_get_address_space(first_cpu, X86ASIdx_MEM);
    }
    return true;
}
