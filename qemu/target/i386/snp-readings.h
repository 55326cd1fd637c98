/*
 * What an SNP host does where the manual leaves it open (TCG)
 *
 * Each question has a property of the CPU, "x-...", and one function here that the
 * model asks. The first answer in the table of snp-readings.c is the default.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SNP_READINGS_H
#define I386_SNP_READINGS_H

#include "cpu.h"

/* Adds the properties to all x86 CPUs. */
void snp_readings_class_init(ObjectClass *oc);
/*
 * False and *@errp if the CPU has readings that exclude each other, or has any
 * without being that of an SNP host.
 */
bool snp_readings_check(X86CPU *cpu, Error **errp);

static inline bool snp_reading_is(CPUX86State *env, SnpReading reading,
                                  unsigned value)
{
    return env_archcpu(env)->snp.readings[reading] == value;
}

/* Fn8000_001F EAX[30]: may software write to what VMRUN has in use? */
static inline bool snp_in_use_write_allowed(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IN_USE_WRITE, 1);
}

#endif
