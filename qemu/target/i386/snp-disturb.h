/*
 * Disturbances of an SNP host, at random from a seed (TCG)
 *
 * Nothing of it is against the manual: software has to live with interrupts, delays,
 * lost translations and busy RMP entries at any time. x-disturb=SEED[:RATE] makes
 * them happen once in RATE occasions.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SNP_DISTURB_H
#define I386_SNP_DISTURB_H

#include "cpu.h"

static inline bool snp_disturbed(CPUX86State *env)
{
    return unlikely(env_archcpu(env)->snp.disturb_rate);
}

/* Before VMRUN does anything, and after #VMEXIT */
void snp_disturb_switch(CPUX86State *env);
/* In the guest, before its first instruction */
void snp_disturb_guest(CPUX86State *env);
/*
 * Is another CPU working on an RMP entry? One time in @rate, but not twice in
 * succession on one CPU.
 */
bool snp_disturb_rmp(CPUX86State *env, uint32_t rate);

#endif
