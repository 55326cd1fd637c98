/*
 * Disturbances of an SNP host, at random from a seed
 *
 * Each CPU has a sequence of its own. What it does to it is the same in each run of
 * the same software with the same seed, as far as the CPUs do not depend on each
 * other: with one CPU and -icount, exactly.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "cpu.h"
#include "exec/cputlb.h"
#include "exec/exec-all.h"
#include "system/cpu-timers.h"
#include "snp.h"
#include "snp-disturb.h"
#include "target/i386/trace.h"

#define MAX_DELAY_US            200
#define MAX_EXIT_NS             (500 * SCALE_US)

typedef struct Disturber {
    uint64_t random;
    QEMUTimer *exit_timer;
    bool rmp_was_busy;
} Disturber;

/* By CPU index; each used by its CPU's thread only */
static Disturber *disturbers[1024];

static Disturber *disturber(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    Disturber **d = &disturbers[cs->cpu_index % ARRAY_SIZE(disturbers)];

    if (!*d) {
        *d = g_new0(Disturber, 1);
        (*d)->random = (env_archcpu(env)->snp.disturb_seed + 1) *
                       0x9e3779b97f4a7c15ULL + cs->cpu_index;
    }
    return *d;
}

static uint32_t random_below(Disturber *d, uint32_t n)
{
    d->random ^= d->random << 13;
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    return (d->random >> 32) % n;
}

static bool once_in(Disturber *d, uint32_t rate)
{
    return random_below(d, rate) == 0;
}

void snp_disturb_switch(CPUX86State *env)
{
    Disturber *d = disturber(env);

    if (once_in(d, env_archcpu(env)->snp.disturb_rate)) {
        uint32_t us = random_below(d, MAX_DELAY_US);

        trace_snp_disturb(env_cpu(env)->cpu_index, "delay", us);
        if (!icount_enabled()) {
            g_usleep(us);
        }
    }
}

/* An interrupt has come and gone: the exit is all that is left of it. */
static void exit_work(CPUState *cs, run_on_cpu_data data)
{
    CPUX86State *env = cpu_env(cs);

    if ((env->hflags & HF_GUEST_MASK) &&
        (env->intercept & (1ULL << (SVM_EXIT_INTR - SVM_EXIT_INTR)))) {
        trace_snp_disturb(cs->cpu_index, "INTR", env->eip);
        env->sev.disturb_exit = true;
        cpu_interrupt(cs, CPU_INTERRUPT_SVM_EVENT);
    }
}

static void exit_timer(void *opaque)
{
    async_run_on_cpu(opaque, exit_work, RUN_ON_CPU_NULL);
}

void snp_disturb_guest(CPUX86State *env)
{
    Disturber *d = disturber(env);
    uint32_t rate = env_archcpu(env)->snp.disturb_rate;

    if (once_in(d, rate)) {
        trace_snp_disturb(env_cpu(env)->cpu_index, "TLB flush", 0);
        tlb_flush(env_cpu(env));
    }
    if (once_in(d, rate)) {
        uint32_t ns = random_below(d, MAX_EXIT_NS);

        if (!d->exit_timer) {
            d->exit_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, exit_timer,
                                         env_cpu(env));
        }
        timer_mod(d->exit_timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + ns);
    }
}

bool snp_disturb_rmp(CPUX86State *env, uint32_t rate)
{
    Disturber *d = disturber(env);

    d->rmp_was_busy = !d->rmp_was_busy && once_in(d, rate);
    if (d->rmp_was_busy) {
        trace_snp_disturb(env_cpu(env)->cpu_index, "RMP entry busy", 0);
    }
    return d->rmp_was_busy;
}
