/*
 * Cache flushes that SEV firmware asks for before an ASID is used again
 * (SEV-SNP Firmware ABI, DF_FLUSH). There are no caches; the security
 * processor wants to know that software did its part.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/helper-proto.h"

void helper_wbinvd(CPUX86State *env)
{
    qatomic_set(&env->sev.wbinvd_done, true);
}
