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

/*
 * VMRUN fails, or finds the engine off: do UPDATE_IRR, REQUESTED_IRR and
 * V_NMI_PENDING wait for the next one?
 */
static inline bool savic_keeps_requests(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_REQUESTS, 0);
}

/* Is V_NMI_PENDING of the VMCB clear from VMRUN on, or from #VMEXIT? */
static inline bool savic_clears_nmi_at_vmrun(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_VNMI_TAKEN, 0);
}

/* Is V_NMI_PENDING cleared also where the guest has not set AllowedNmi? */
static inline bool savic_drops_denied_nmi(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_VNMI_DENIED, 0);
}

/* Idle-HLT: does an interrupt count that is above TPR, but not above PPR? */
static inline bool idle_hlt_by_tpr(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_PRIORITY, 1);
}

/* Idle-HLT: what RFLAGS.IF, a shadow or VGIF hold off, is it not pending? */
static inline bool idle_hlt_honours_if(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_IF, 1);
}

static inline bool idle_hlt_honours_shadow(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_SHADOW, 1);
}

static inline bool idle_hlt_honours_gif(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_GIF, 1);
}

/* Idle-HLT: does a virtual NMI count while NMIs are masked? */
static inline bool idle_hlt_counts_masked_nmi(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_NMI, 1);
}

/* Idle-HLT: does it exit whatever is pending? */
static inline bool idle_hlt_exits_always(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IDLE_HLT_SPURIOUS, 1);
}

/* Is the doorbell there only with AVIC, Fn8000_000A EDX[13]? */
static inline bool doorbell_needs_avic(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_DOORBELL_CPUID, 1);
}

/* May the WRMSR be seen some time after it has retired? */
static inline bool doorbell_is_late(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_DOORBELL_ORDER, 1);
}

/* Is a doorbell lost that is rung before VMRUN has entered the guest? */
static inline bool doorbell_is_lost_at_entry(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_DOORBELL_ENTRY, 1);
}

/* Fn8000_001F EAX[30]: may software write to what VMRUN has in use? */
static inline bool snp_in_use_write_allowed(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_IN_USE_WRITE, 1);
}

/* Do RMPUPDATE and PSMASH fail for a moment, now and then? */
static inline bool rmpupdate_may_be_busy(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_RMP_BUSY, 1) ||
           snp_reading_is(env, SNP_READING_RMP_BUSY, 3);
}

static inline bool psmash_may_be_busy(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_RMP_BUSY, 2) ||
           snp_reading_is(env, SNP_READING_RMP_BUSY, 3);
}

/* Does VMRUN with the engine on put the backing page in use? */
static inline bool savic_page_in_use_by_vmrun(CPUX86State *env)
{
    return !snp_reading_is(env, SNP_READING_PAGE_IN_USE, 1);
}

/* Does a write of SECURE_AVIC_CONTROL, or end it? */
static inline bool savic_page_in_use_by_control(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_PAGE_IN_USE, 0);
}

/* ICR with the shorthand self, but not fixed and edge */
static inline bool savic_accelerates_any_self_icr(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_SELF_ICR, 1);
}

static inline bool savic_self_icr_is_unaccelerated(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_SELF_ICR, 2);
}

/* ALLOWED_SEV_FEATURES is not enabled: does VMRUN go on without Secure AVIC? */
static inline bool savic_is_off_if_not_allowed(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_NOT_ALLOWED, 1);
}

/* Does the WRMSR that turns the engine on take the VMCB's requests? */
static inline bool savic_control_takes_requests(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_CONTROL_WRITE, 1);
}

/* Is an event whose delivery was interrupted in the VMCB's EXITINTINFO, too? */
static inline bool savic_exit_int_info_in_vmcb(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_EXIT_INT_INFO, 0);
}

/* Does VMRUN fail if the backing page is not validated? */
static inline bool savic_unvalidated_is_invalid(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_UNVALIDATED, 1);
}

/* Does a vector from REQUESTED_IRR become edge-triggered? */
static inline bool savic_request_clears_tmr(CPUX86State *env)
{
    return snp_reading_is(env, SNP_READING_TMR, 1);
}

/* A processor of the generation after Genoa */
static inline bool snp_turin(CPUX86State *env)
{
    return snp_reading_is(env, SNP_GENERATION, 1);
}

#endif
