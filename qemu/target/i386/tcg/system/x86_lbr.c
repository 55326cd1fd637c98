/*
 * Last-branch records: DebugCtl[LBR] and its MSRs (APM vol. 2, 13.1), and what
 * LBR virtualization swaps at VMRUN and #VMEXIT (15.23)
 *
 * Translated code notes the source of a control transfer; its target is known
 * when the next translation block starts, or when an interrupt or #VMEXIT comes
 * before that. HF_LBR_MASK is part of a translation's key, so that code
 * that runs without records pays nothing for them.
 *
 * Addresses are offsets into CS. VMRUN and #VMEXIT are not recorded.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/helper-proto.h"
#include "tcg/helper-tcg.h"
#include "snp.h"

#define DEBUGCTL_LBR            (1ULL << 0)

#define MSR_DEBUGCTL            0x1d9
#define MSR_LAST_BRANCH_FROM    0x1db
#define MSR_LAST_BRANCH_TO      0x1dc
#define MSR_LAST_INT_FROM       0x1dd
#define MSR_LAST_INT_TO         0x1de

#define SAVE(base, field)       ((base) + offsetof(struct vmcb, save.field))

void x86_lbr_set_debugctl(CPUX86State *env, uint64_t val)
{
    env->sev.lbr.debugctl = val & DEBUGCTL_LBR;
    env->sev.lbr.branching = false;
    if (env->sev.lbr.debugctl) {
        env->hflags |= HF_LBR_MASK;
    } else {
        env->hflags &= ~HF_LBR_MASK;
    }
}

/* An instruction that transfers control begins; it may still fault. */
void helper_lbr_branch(CPUX86State *env, target_ulong from)
{
    env->sev.lbr.pending_from = from;
    env->sev.lbr.branching = true;
}

void helper_lbr_not_taken(CPUX86State *env)
{
    env->sev.lbr.branching = false;
}

/* Complete the record of a branch that has been taken to RIP. */
static void settle(CPUX86State *env)
{
    if (!env->sev.lbr.branching) {
        return;
    }
    env->sev.lbr.branching = false;
    env->sev.lbr.br_from = env->sev.lbr.pending_from;
    env->sev.lbr.br_to = env->eip;
}

void helper_lbr_settle(CPUX86State *env)
{
    settle(env);
}

/*
 * An interrupt or exception has been delivered, from what was at RIP @from. #DB
 * turns recording off and leaves the records alone.
 */
void x86_lbr_interrupt(CPUX86State *env, int intno, target_ulong from)
{
    if (intno == EXCP01_DB) {
        x86_lbr_set_debugctl(env, 0);
        return;
    }
    env->sev.lbr.int_from = env->sev.lbr.br_from;
    env->sev.lbr.int_to = env->sev.lbr.br_to;
    env->sev.lbr.br_from = from;
    env->sev.lbr.br_to = env->eip;
}

/*
 * Something comes between two instructions, or in the middle of one: a branch
 * whose own address is still in RIP has not been taken.
 */
void x86_lbr_before_event(CPUX86State *env)
{
    if (env->sev.lbr.branching && env->sev.lbr.pending_from == env->eip) {
        env->sev.lbr.branching = false;
    }
    settle(env);
}

bool x86_lbr_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case MSR_DEBUGCTL:
        *val = env->sev.lbr.debugctl;
        return true;
    case MSR_LAST_BRANCH_FROM:
        *val = env->sev.lbr.br_from;
        return true;
    case MSR_LAST_BRANCH_TO:
        *val = env->sev.lbr.br_to;
        return true;
    case MSR_LAST_INT_FROM:
        *val = env->sev.lbr.int_from;
        return true;
    case MSR_LAST_INT_TO:
        *val = env->sev.lbr.int_to;
        return true;
    }
    return false;
}

bool x86_lbr_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val)
{
    if (msr != MSR_DEBUGCTL) {
        return false;
    }
    x86_lbr_set_debugctl(env, val);
    return true;
}

static void save(CPUX86State *env, hwaddr page)
{
    CPUState *cs = env_cpu(env);

    x86_stq_phys(cs, SAVE(page, dbgctl), env->sev.lbr.debugctl);
    x86_stq_phys(cs, SAVE(page, br_from), env->sev.lbr.br_from);
    x86_stq_phys(cs, SAVE(page, br_to), env->sev.lbr.br_to);
    x86_stq_phys(cs, SAVE(page, last_excp_from), env->sev.lbr.int_from);
    x86_stq_phys(cs, SAVE(page, last_excp_to), env->sev.lbr.int_to);
}

static void load(CPUX86State *env, hwaddr page)
{
    CPUState *cs = env_cpu(env);

    x86_lbr_set_debugctl(env, x86_ldq_phys(cs, SAVE(page, dbgctl)));
    env->sev.lbr.br_from = x86_ldq_phys(cs, SAVE(page, br_from));
    env->sev.lbr.br_to = x86_ldq_phys(cs, SAVE(page, br_to));
    env->sev.lbr.int_from = x86_ldq_phys(cs, SAVE(page, last_excp_from));
    env->sev.lbr.int_to = x86_ldq_phys(cs, SAVE(page, last_excp_to));
}

static bool lbr_virtualized(CPUX86State *env)
{
    return x86_ldq_phys(env_cpu(env), env->vm_vmcb +
                        offsetof(struct vmcb, control.lbr_ctl)) &
           SVM_LBR_CTL_ENABLE;
}

void x86_lbr_vmrun_save_host(CPUX86State *env)
{
    if (lbr_virtualized(env)) {
        save(env, env->vm_hsave);
    }
}

void x86_lbr_vmrun_load_guest(CPUX86State *env)
{
    if (lbr_virtualized(env)) {
        load(env, env->vm_vmcb);
        env->sev.lbr.swapped = true;
    }
}

void x86_lbr_vmexit(CPUX86State *env)
{
    x86_lbr_before_event(env);
    if (env->sev.lbr.swapped) {
        env->sev.lbr.swapped = false;
        save(env, env->vm_vmcb);
        load(env, env->vm_hsave);
    }
}
