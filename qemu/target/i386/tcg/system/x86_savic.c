/*
 * Virtual NMI, Idle-HLT and Secure AVIC (APM vol. 2, 15.21.10, 15.9, 15.36.21)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "tcg/helper-tcg.h"
#include "../seg_helper.h"
#include "snp.h"
#include "snp-disturb.h"
#include "x86-savic-regs.h"
#include "target/i386/trace.h"

/* Set or withdraw one of the requests that x86_cpu_pending_interrupt() sees. */
static void svm_request(CPUX86State *env, int mask, bool on)
{
    CPUState *cs = env_cpu(env);

    /* Nobody else sets or clears these: most calls have nothing to do. */
    if (!(qatomic_read(&cs->interrupt_request) & mask) == !on) {
        return;
    }
    BQL_LOCK_GUARD();
    if (on) {
        cpu_interrupt(cs, mask);
    } else {
        cs->interrupt_request &= ~mask;
    }
}

/* ---- Secure AVIC: the backing page (15.36.21, backing page) -------------- */

#define MSR_AVIC_DOORBELL               0xc001011b
#define MSR_SECURE_AVIC_CONTROL         0xc0010138

#define VMCB_UPDATE_IRR                 0x134
#define VMCB_REQUESTED_IRR              0x150

/* #VC error codes; those of AVIC are also exit codes */
#define VC_AVIC_INCOMPLETE_IPI          SVM_EXIT_AVIC_INCOMPLETE_IPI
#define VC_AVIC_NOACCEL                 SVM_EXIT_AVIC_NOACCEL
#define VC_NOT_RESTARTABLE              SVM_EXIT_NOT_RESTARTABLE

#define NOACCEL_WRITE                   (1ULL << 32)

/* AVIC_INCOMPLETE_IPI: exit_info_2[63:32] */
#define IPI_INVALID_TYPE                0
#define IPI_INVALID_VECTOR              4
#define IPI_UNACCELERATED               5

#define ICR_RESERVED                    (0xfff00000u | 3u << 16 | 1u << 13)
#define ICR_SHORTHAND(icr)              ((icr) >> 18 & 3)
#define ICR_SHORTHAND_SELF              1
#define ICR_MODE(icr)                   ((icr) >> 8 & 7)
#define ICR_MODE_NMI                    4
#define ICR_LEVEL_TRIGGERED             (1u << 15)

#define FIRST_VECTOR                    16

typedef struct SavicPage {
    uint8_t *host;              /* the page, in QEMU's memory */
    hwaddr spa;                 /* and where the machine has it */
    SnpAccess status;
    uint64_t exit_info_1;       /* of the nested page fault */
} SavicPage;

static bool savic_on(CPUX86State *env)
{
    return x86_savic_mode(env) && (env->sev.savic_control & CONTROL_ENABLE);
}

static uint64_t page_gpa(CPUX86State *env)
{
    return env->sev.savic_control & CONTROL_PAGE;
}

/*
 * Every use translates anew: what the host or the guest has done to the page
 * since the last one shows. Raises nothing; see savic_page_failed().
 */
static bool savic_page(CPUX86State *env, bool write, SavicPage *p)
{
    hwaddr xlat, len = TARGET_PAGE_SIZE;
    MemoryRegion *mr;

    p->exit_info_1 = 0;
    p->status = snp_access_private(env, page_gpa(env), write, &p->spa,
                                   &p->exit_info_1);
    if (p->status != SNP_ACCESS_OK) {
        return false;
    }

    /*
     * The pointer outlives the guard: a vCPU runs guest code inside an RCU
     * critical section, and a doorbell's work holds the BQL.
     */
    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(env_cpu(env)->as, p->spa & TARGET_PAGE_MASK,
                                 &xlat, &len, write, MEMTXATTRS_UNSPECIFIED);
    if (len < TARGET_PAGE_SIZE || !memory_region_is_ram(mr)) {
        /* Nothing behind the address that could hold registers. */
        p->status = SNP_ACCESS_NPF;
        p->exit_info_1 = SVM_NPTEXIT_GPA | PG_ERROR_U_MASK | PG_ERROR_P_MASK |
                         (write ? PG_ERROR_W_MASK : 0);
        return false;
    }
    p->host = (uint8_t *)memory_region_get_ram_ptr(mr) + xlat;
    return true;
}

/*
 * From VMRUN to #VMEXIT, or for as long as the engine is on, RMPUPDATE of the
 * page fails with FAIL_INUSE (15.36.12). @p is NULL when that ends.
 */
static void savic_set_page_in_use(CPUX86State *env, const SavicPage *p)
{
    uint64_t page = p ? (p->spa & TARGET_PAGE_MASK) + 1 : 0;

    if (env->sev.savic_page_in_use == page) {
        return;
    }
    if (env->sev.savic_page_in_use) {
        snp_page_set_in_use(env, env->sev.savic_page_in_use - 1, false);
    }
    if (page) {
        snp_page_set_in_use(env, page - 1, true);
    }
    env->sev.savic_page_in_use = page;
}

/*
 * The hardware's own access to the page failed in the middle of something
 * that cannot be done again: the vCPU is lost, or the guest is told. @ra is 0
 * where the guest's RIP is in env.
 */
static G_NORETURN void savic_page_failed(CPUX86State *env, SavicPage *p,
                                         uintptr_t ra)
{
    uint64_t gpa = page_gpa(env);

    trace_x86_savic_page_failed(env_cpu(env)->cpu_index, gpa, p->status,
                                p->exit_info_1);
    if (p->status == SNP_ACCESS_NOT_VALIDATED) {
        sev_es_raise_vc(env, VC_NOT_RESTARTABLE, 0, gpa, ra);
    }
    env->sev.vintr_ctrl |= VMSA_VINTR_CTRL_BUSY;
    x86_stq_phys(env_cpu(env), env->vm_vmcb +
                 offsetof(struct vmcb, control.exit_info_2), gpa);
    cpu_vmexit(env, SVM_EXIT_NPF, p->exit_info_1 | SVM_NPTEXIT_NOT_RESTARTABLE,
               ra);
}

/*
 * Other vCPUs of the guest set bits in the page with locked instructions, at
 * any time: whatever the hardware changes is one atomic operation on a dword.
 */
static uint32_t *page_reg(SavicPage *p, unsigned offset)
{
    return (uint32_t *)(p->host + offset);
}

static uint32_t page_read(SavicPage *p, unsigned offset)
{
    return le32_to_cpu(qatomic_read(page_reg(p, offset)));
}

static void page_write(SavicPage *p, unsigned offset, uint32_t val)
{
    qatomic_set(page_reg(p, offset), cpu_to_le32(val));
}

/* Returns the old bits. */
static uint32_t page_set_bits(SavicPage *p, unsigned offset, uint32_t bits)
{
    return le32_to_cpu(qatomic_fetch_or(page_reg(p, offset),
                                        cpu_to_le32(bits))) & bits;
}

static uint32_t page_clear_bits(SavicPage *p, unsigned offset, uint32_t bits)
{
    return le32_to_cpu(qatomic_fetch_and(page_reg(p, offset),
                                         cpu_to_le32(~bits))) & bits;
}

static unsigned vector_reg(unsigned base, int vector)
{
    return base + vector / 32 * 16;
}

static uint32_t vector_bit(int vector)
{
    return 1u << (vector % 32);
}

/* The highest vector in IRR, ISR or TMR; -1 if there is none. */
static int highest_vector(SavicPage *p, unsigned base)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t bits = page_read(p, base + i * 16);

        if (bits) {
            return i * 32 + 31 - clz32(bits);
        }
    }
    return -1;
}

/* ---- Evaluation (15.29.4; 15.36.21, VMRUN) ------------------------------- */

/* Processor priority from TPR and ISR, also into the page. */
static uint32_t update_ppr(SavicPage *p)
{
    uint32_t tpr = page_read(p, REG_TPR) & 0xff;
    int isr = highest_vector(p, REG_ISR);
    uint32_t ppr = tpr;

    if (isr >= 0 && isr >> 4 > tpr >> 4) {
        ppr = isr & 0xf0;
    }
    if (page_read(p, REG_PPR) != ppr) {
        page_write(p, REG_PPR, ppr);
    }
    return ppr;
}

/*
 * Sets the processor's own V_IRQ, V_INTR_PRIO, V_IGN_TPR and V_TPR, and with
 * them what x86_cpu_pending_interrupt() goes by. The vector itself is looked
 * up when it is taken. Returns it, or -1 if none can be delivered now.
 */
static int evaluate(CPUX86State *env, SavicPage *p)
{
    uint32_t ppr = update_ppr(p);
    int irr = highest_vector(p, REG_IRR);
    bool deliver = irr >= 0 && irr >> 4 > ppr >> 4;

    env->int_ctl &= ~(V_IRQ_MASK | V_INTR_PRIO_MASK | V_IGN_TPR_MASK |
                      V_TPR_MASK);
    env->int_ctl |= page_read(p, REG_TPR) >> 4 & V_TPR_MASK;
    if (deliver) {
        env->int_ctl |= V_IRQ_MASK | V_IGN_TPR_MASK |
                        irr >> 4 << V_INTR_PRIO_SHIFT;
    }
    svm_request(env, CPU_INTERRUPT_VIRQ, deliver);
    trace_x86_savic_evaluate(env_cpu(env)->cpu_index, irr,
                             highest_vector(p, REG_ISR), ppr, deliver);
    return deliver ? irr : -1;
}

int x86_savic_take_vector(CPUX86State *env)
{
    SavicPage p;
    int vector;

    svm_request(env, CPU_INTERRUPT_VIRQ, false);
    if (!savic_on(env)) {
        /* As with alternate injection: the VMSA's own (15.36.16). */
        env->int_ctl &= ~V_IRQ_MASK;
        return extract64(env->sev.vintr_ctrl, 32, 8);
    }

    if (!savic_page(env, true, &p)) {
        savic_page_failed(env, &p, 0);
    }
    do {
        vector = evaluate(env, &p);
        if (vector < 0) {
            return -1;
        }
        /* Somebody else may have cleared it since. */
    } while (!page_clear_bits(&p, vector_reg(REG_IRR, vector),
                              vector_bit(vector)));
    page_set_bits(&p, vector_reg(REG_ISR, vector), vector_bit(vector));
    /* Nothing else is above it, so this withdraws the request, too. */
    evaluate(env, &p);
    trace_x86_savic_inject(env_cpu(env)->cpu_index, vector, env->eip);
    return vector;
}

/* ---- World switch -------------------------------------------------------- */

static bool control_ok(CPUX86State *env, uint64_t control)
{
    /*
     * A disabled engine does not look at the pointer. Guest physical addresses
     * are not reduced (15.34.6), but the C-bit is no part of them.
     */
    return !(control & CONTROL_MBZ) &&
           (!(control & CONTROL_ENABLE) || !(control & SEV_C_BIT));
}

bool x86_savic_vmrun(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    uint64_t control = x86_ldq_phys(cs, env->sev.vmsa +
                                    VMSA_SECURE_AVIC_CONTROL);

    env->sev.savic_page_fault = false;
    if ((x86_ldl_phys(cs, env->vm_vmcb +
                      offsetof(struct vmcb, control.int_ctl)) &
         V_AVIC_ENABLE_MASK) ||
        (env->sev.sev_features &
         (SEV_FEATURE_RESTRICTED_INJ | SEV_FEATURE_ALTERNATE_INJ)) ||
        !control_ok(env, control)) {
        return false;
    }
    env->sev.savic_control = control;
    return true;
}

/* UPDATE_IRR and REQUESTED_IRR of the VMCB are used up. */
static void clear_requested_irr(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    hwaddr update = env->vm_vmcb + VMCB_UPDATE_IRR;

    x86_stl_phys(cs, update, x86_ldl_phys(cs, update) & ~1u);
    for (int i = 0; i < 8; i++) {
        x86_stl_phys(cs, env->vm_vmcb + VMCB_REQUESTED_IRR + i * 4, 0);
    }
}

static void clear_requested_nmi(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    hwaddr int_ctl = env->vm_vmcb + offsetof(struct vmcb, control.int_ctl);

    x86_stl_phys(cs, int_ctl, x86_ldl_phys(cs, int_ctl) & ~V_NMI_PENDING_MASK);
}

/* VMRUN does not get to the requests, or finds the engine off. */
static void drop_requests(CPUX86State *env)
{
    if (!savic_keeps_requests(env)) {
        clear_requested_irr(env);
        clear_requested_nmi(env);
    }
}

void x86_savic_vmrun_failed(CPUX86State *env)
{
    if (x86_ldq_phys(env_cpu(env), env->sev.vmsa + VMSA_SEV_FEATURES) &
        SEV_FEATURE_SECURE_AVIC) {
        drop_requests(env);
    }
}

/* What UPDATE_IRR asks for goes to the backing page, as far as it is allowed. */
static void take_requested_irr(CPUX86State *env, SavicPage *p)
{
    CPUState *cs = env_cpu(env);

    if (!(x86_ldl_phys(cs, env->vm_vmcb + VMCB_UPDATE_IRR) & 1)) {
        return;
    }
    for (int i = 0; i < 8; i++) {
        uint32_t word = x86_ldl_phys(cs, env->vm_vmcb + VMCB_REQUESTED_IRR +
                                     i * 4);
        uint32_t allowed = page_read(p, PAGE_ALLOWED_IRR + i * 16);

        if (savic_request_clears_tmr(env)) {
            page_clear_bits(p, REG_TMR + i * 16, word & allowed);
        }
        page_set_bits(p, REG_IRR + i * 16, word & allowed);
        for (; word; word &= word - 1) {
            int vector = i * 32 + ctz32(word);

            if (allowed & vector_bit(vector)) {
                trace_x86_savic_posted(cs->cpu_index, vector);
            } else {
                trace_x86_savic_dropped(cs->cpu_index, vector);
            }
        }
    }
}

/* V_NMI_PENDING of the VMCB becomes the guest's V_NMI, if it is allowed. */
static void take_requested_nmi(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    bool allowed = env->sev.savic_control & CONTROL_ALLOWED_NMI;

    if (!(x86_ldl_phys(cs, env->vm_vmcb +
                       offsetof(struct vmcb, control.int_ctl)) &
          V_NMI_PENDING_MASK)) {
        return;
    }
    trace_x86_savic_nmi(cs->cpu_index, "host", allowed);
    if (allowed) {
        env->int_ctl |= V_NMI_PENDING_MASK;
    } else if (!savic_drops_denied_nmi(env)) {
        return;
    }
    if (savic_clears_nmi_at_vmrun(env)) {
        clear_requested_nmi(env);
    } else {
        env->sev.vmcb_nmi_taken = true;
    }
}

/*
 * What VMRUN does with the engine on, once the guest's state is loaded. The
 * four steps in the order of 15.36.21, VMRUN.
 */
static void savic_vmrun_requests(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    SavicPage p;

    trace_x86_savic_vmrun(cs->cpu_index, env->sev.savic_control,
                          x86_ldl_phys(cs, env->vm_vmcb + VMCB_UPDATE_IRR) & 1);
    if (!savic_page(env, true, &p)) {
        if (p.status == SNP_ACCESS_NOT_VALIDATED &&
            savic_unvalidated_is_invalid(env)) {
            cpu_vmexit(env, SVM_EXIT_ERR, 0, 0);
        }
        savic_page_failed(env, &p, 0);
    }
    if (savic_page_in_use_by_vmrun(env)) {
        savic_set_page_in_use(env, &p);
    }
    take_requested_irr(env, &p);
    evaluate(env, &p);

    /* int_ctl has the VMSA's V_NMI. */
    if (page_clear_bits(&p, PAGE_NMI_REQ, 1)) {
        trace_x86_savic_nmi(cs->cpu_index, "NmiReq", true);
        env->int_ctl |= V_NMI_PENDING_MASK;
    }
    take_requested_nmi(env);
    clear_requested_irr(env);
}

void x86_savic_vmexit(CPUX86State *env)
{
    savic_set_page_in_use(env, NULL);
    if (env->sev.vmcb_nmi_taken) {
        env->sev.vmcb_nmi_taken = false;
        clear_requested_nmi(env);
    }
    x86_stq_phys(env_cpu(env), env->sev.vmsa + VMSA_SECURE_AVIC_CONTROL,
                 env->sev.savic_control);
    env->sev.savic_page_fault = false;
}

/* A doorbell has found the page missing; see doorbell_work(). */
static void doorbell_page_fault(CPUX86State *env)
{
    SavicPage p;

    env->sev.savic_page_fault = false;
    svm_request(env, CPU_INTERRUPT_SVM_EVENT, x86_vnmi_pending(env));
    if (!savic_page(env, true, &p)) {
        savic_page_failed(env, &p, 0);
    }
    evaluate(env, &p);
}

/* ---- Virtual NMI (15.21.10) ------------------------------------------- */

/* Before the guest's first instruction: see savic_doorbell(). */
static void entered_work(CPUState *cs, run_on_cpu_data data)
{
    qatomic_set(&cpu_env(cs)->sev.savic_entered, true);
}

void x86_svm_vmrun(CPUX86State *env, uintptr_t ra)
{
    if (savic_on(env)) {
        savic_vmrun_requests(env);
    } else if (x86_savic_mode(env)) {
        drop_requests(env);
    }
    if (doorbell_is_lost_at_entry(env)) {
        env->sev.savic_entered = false;
        async_run_on_cpu(env_cpu(env), entered_work, RUN_ON_CPU_NULL);
    }
    if (snp_disturbed(env)) {
        snp_disturb_guest(env);
    }
    if (!x86_vnmi_enabled(env)) {
        return;
    }
    if (!cpu_svm_has_intercept(env, SVM_EXIT_NMI)) {
        cpu_vmexit(env, SVM_EXIT_ERR, 0, sev_es_guest(env) ? 0 : ra);
    }
    if (env->int_ctl & V_NMI_PENDING_MASK) {
        svm_request(env, CPU_INTERRUPT_SVM_EVENT, true);
    }
}

void x86_vnmi_vmexit(CPUX86State *env)
{
    uint64_t event;

    if (!x86_vnmi_enabled(env)) {
        return;
    }
    event = x86_ldq_phys(env_cpu(env), env->vm_vmcb +
                         offsetof(struct vmcb, control.event_inj));
    /* One whose delivery was interrupted has not blocked NMIs yet. */
    if ((event & SVM_EVTINJ_VALID) &&
        (event & SVM_EVTINJ_TYPE_MASK) == SVM_EVTINJ_TYPE_NMI) {
        env->int_ctl &= ~V_NMI_BLOCKED_MASK;
    }
}

void x86_vnmi_block(CPUX86State *env)
{
    if (x86_vnmi_enabled(env)) {
        env->int_ctl |= V_NMI_BLOCKED_MASK;
    }
}

void x86_svm_take_event(CPUX86State *env)
{
    svm_request(env, CPU_INTERRUPT_SVM_EVENT, false);
    if (env->sev.savic_page_fault) {
        doorbell_page_fault(env);
        return;
    }
    if (env->sev.disturb_exit) {
        env->sev.disturb_exit = false;
        svm_request(env, CPU_INTERRUPT_SVM_EVENT, x86_vnmi_pending(env));
        cpu_vmexit(env, SVM_EXIT_INTR, 0, 0);
    }
    env->int_ctl &= ~V_NMI_PENDING_MASK;
    env->int_ctl |= V_NMI_BLOCKED_MASK;
    trace_x86_vnmi_inject(env_cpu(env)->cpu_index, env->eip);
    do_interrupt_x86_hardirq(env, EXCP02_NMI, 1);
}

/* ---- Idle-HLT (15.9) --------------------------------------------------- */

/*
 * By default, "pending" is what V_IRQ, its priority and V_NMI say; RFLAGS.IF
 * does not matter.
 */
static bool idle_hlt_pending(CPUX86State *env)
{
    bool irq = ctl_has_irq(env), nmi = x86_vnmi_pending(env);
    SavicPage p;

    if (idle_hlt_by_tpr(env) && savic_on(env) && savic_page(env, false, &p)) {
        int vector = highest_vector(&p, REG_IRR);

        irq = vector >= 0 &&
              vector >> 4 > (page_read(&p, REG_TPR) >> 4 & 0xf);
    }
    if (idle_hlt_counts_masked_nmi(env) && x86_vnmi_enabled(env)) {
        nmi = env->int_ctl & V_NMI_PENDING_MASK;
    }
    if ((idle_hlt_honours_gif(env) && !(env->hflags2 & HF2_VGIF_MASK)) ||
        (idle_hlt_honours_shadow(env) &&
         (env->hflags & HF_INHIBIT_IRQ_MASK))) {
        irq = nmi = false;
    }
    if (idle_hlt_honours_if(env) && !(env->eflags & IF_MASK)) {
        irq = false;
    }
    return (irq || nmi) && !idle_hlt_exits_always(env);
}

/* The HLT intercept has precedence and was looked at by the caller. */
void x86_svm_check_idle_hlt(CPUX86State *env, uintptr_t ra)
{
    bool pending;

    if (!(env->sev.intercept_ext & SVM_INTERCEPT_EXT_IDLE_HLT)) {
        return;
    }
    pending = idle_hlt_pending(env);
    trace_x86_idle_hlt(env_cpu(env)->cpu_index, env->eip, pending);
    if (!pending) {
        cpu_vmexit(env, SVM_EXIT_IDLE_HLT, 0, ra);
    }
}

/* ---- Doorbell (15.29.8.2; 15.36.21, doorbell) ---------------------------- */

static void doorbell_work(CPUState *cs, run_on_cpu_data data)
{
    CPUX86State *env = cpu_env(cs);
    bool guest = (env->hflags & HF_GUEST_MASK) && savic_on(env);
    SavicPage p;

    trace_x86_savic_doorbell_taken(cs->cpu_index, guest);
    if (!guest) {
        return;
    }
    if (savic_page(env, true, &p)) {
        evaluate(env, &p);
    } else {
        /* No guest code is running that could be left from here. */
        env->sev.savic_page_fault = true;
        svm_request(env, CPU_INTERRUPT_SVM_EVENT, true);
    }
}

/* A doorbell on its way to the target, where it comes late */
typedef struct LateDoorbell {
    QEMUTimer timer;
    CPUState *target;
} LateDoorbell;

#define LATE_DOORBELL_NS        (2 * SCALE_MS)

static void late_doorbell(void *opaque)
{
    LateDoorbell *bell = opaque;

    async_run_on_cpu(bell->target, doorbell_work, RUN_ON_CPU_NULL);
    timer_del(&bell->timer);
    g_free(bell);
}

static void ring(CPUX86State *env, CPUState *target)
{
    LateDoorbell *bell;

    if (doorbell_is_lost_at_entry(env) &&
        !((qatomic_read(&cpu_env(target)->hflags) & HF_GUEST_MASK) &&
          qatomic_read(&cpu_env(target)->sev.savic_entered))) {
        return;
    }
    if (!doorbell_is_late(env)) {
        async_run_on_cpu(target, doorbell_work, RUN_ON_CPU_NULL);
        return;
    }
    bell = g_new0(LateDoorbell, 1);
    bell->target = target;
    timer_init_ns(&bell->timer, QEMU_CLOCK_VIRTUAL, late_doorbell, bell);
    timer_mod(&bell->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
              LATE_DOORBELL_NS);
}

/*
 * The target looks at its state when it gets there, between two translation
 * blocks. One that is not in guest mode by then, or runs something else, takes
 * no notice: the manual leaves that undefined, and nothing may depend on it.
 */
static void savic_doorbell(CPUX86State *env, uint32_t apic_id)
{
    CPUState *cs;

    trace_x86_savic_doorbell(env_cpu(env)->cpu_index, apic_id);
    CPU_FOREACH(cs) {
        if (X86_CPU(cs)->apic_id == apic_id) {
            ring(env, cs);
            return;
        }
    }
}

/* ---- x2APIC registers (table 15-22; 15.36.21, guest accesses) ------------ */

typedef enum RegAccess {
    REG_GP,             /* not there, or not in this direction */
    REG_ALLOW,
    REG_FAULT,
    REG_TRAP,
    REG_ACCEL,          /* by the engine: see savic_write() */
} RegAccess;

static RegAccess read_access(unsigned reg)
{
    switch (reg) {
    case REG_ID:
    case REG_VERSION:
    case REG_TPR:
    case REG_PPR:
    case REG_LDR:
    case REG_SVR:
    case REG_ISR ... REG_IRR_END:
    case REG_ESR:
    case REG_ICR:
    case REG_LVT_TIMER ... REG_TIMER_INITIAL:
    case REG_TIMER_DIVIDE:
        return REG_ALLOW;
    case REG_APR:
    case REG_TIMER_CURRENT:
    case REG_EXT_FEATURE ... REG_EXT_SEOI:
    case REG_EXT_IER ... REG_EXT_LVT - 1:
    case REG_EXT_LVT ... REG_EXT_LVT_END:   /* Fn8000_000A EDX[27] is 0 */
        return REG_FAULT;
    }
    return REG_GP;
}

/* Registers that x2APIC makes read-only never get as far as the engine. */
static RegAccess write_access(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_EOI:
    case REG_ICR:
    case REG_SELF_IPI:
        return REG_ACCEL;
    case REG_SVR:
    case REG_ESR:
    case REG_LVT_TIMER ... REG_TIMER_INITIAL:
    case REG_TIMER_DIVIDE:
        return REG_TRAP;
    case REG_EXT_FEATURE + 0x10 ... REG_EXT_SEOI:
    case REG_EXT_IER ... REG_EXT_LVT - 1:
    case REG_EXT_LVT ... REG_EXT_LVT_END:   /* Fn8000_000A EDX[27] is 0 */
        return REG_FAULT;
    }
    return REG_GP;
}

/* Bits that must be written as zero (16.11, 16.4 and on). */
static uint64_t reserved_bits(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return ~0xffULL;
    case REG_EOI:
    case REG_ESR:
        return ~0ULL;
    case REG_SVR:
        return ~0x3ffULL;
    case REG_ICR:
        return ICR_RESERVED;
    case REG_LVT_TIMER:
        return ~0x710ffULL;             /* vector, status, mask, mode */
    case REG_LVT_THERMAL:
    case REG_LVT_PERF:
    case REG_LVT_ERROR:
        return ~0x117ffULL;
    case REG_LVT_LINT0:
    case REG_LVT_LINT1:
        return ~0x1f7ffULL;
    case REG_TIMER_DIVIDE:
        return ~0xbULL;
    }
    return ~0xffffffffULL;
}

static G_NORETURN void savic_raise_vc(CPUX86State *env, uint64_t code,
                                      uint64_t info_1, uint64_t info_2,
                                      uintptr_t ra)
{
    trace_x86_savic_vc(env_cpu(env)->cpu_index, code, info_1, info_2);
    sev_es_raise_vc(env, code, info_1, info_2, ra);
}

/* The instruction is complete, and #VC comes with RIP behind it. */
static G_NORETURN void savic_trap(CPUX86State *env, uint64_t code,
                                  uint64_t info_1, uint64_t info_2,
                                  uintptr_t ra)
{
    cpu_restore_state(env_cpu(env), ra);
    env->eip += env->sev.insn_len;
    if (!(env->hflags & HF_CS64_MASK)) {
        env->eip = (uint32_t)env->eip;
    }
    do_end_instruction(env);
    trace_x86_savic_vc(env_cpu(env)->cpu_index, code, info_1, info_2);
    sev_es_raise_vc_trap(env, code, info_1, info_2);
}

static void self_ipi(CPUX86State *env, SavicPage *p, int vector)
{
    page_clear_bits(p, vector_reg(REG_TMR, vector), vector_bit(vector));
    page_set_bits(p, vector_reg(REG_IRR, vector), vector_bit(vector));
    trace_x86_savic_self_ipi(env_cpu(env)->cpu_index, vector);
    evaluate(env, p);
}

/* NMI and level-triggered; false: neither. */
static bool accelerate_self_icr(CPUX86State *env, SavicPage *p, uint64_t val)
{
    uint8_t vector = val;

    if (ICR_MODE(val) == ICR_MODE_NMI) {
        env->int_ctl |= V_NMI_PENDING_MASK;
        svm_request(env, CPU_INTERRUPT_SVM_EVENT, x86_vnmi_pending(env));
        return true;
    }
    if (ICR_MODE(val) || vector < FIRST_VECTOR) {
        return false;
    }
    page_set_bits(p, vector_reg(REG_TMR, vector), vector_bit(vector));
    page_set_bits(p, vector_reg(REG_IRR, vector), vector_bit(vector));
    evaluate(env, p);
    return true;
}

static void write_icr(CPUX86State *env, SavicPage *p, uint64_t val,
                      uintptr_t ra)
{
    uint8_t vector = val;
    bool plain = !ICR_MODE(val) && !(val & ICR_LEVEL_TRIGGERED);
    uint64_t reason;

    page_write(p, REG_ICR_HIGH, val >> 32);
    page_write(p, REG_ICR, val);

    if (ICR_SHORTHAND(val) != ICR_SHORTHAND_SELF) {
        reason = IPI_UNACCELERATED;
    } else if (!plain && savic_accelerates_any_self_icr(env) &&
               accelerate_self_icr(env, p, val)) {
        return;
    } else if (!plain) {
        reason = savic_self_icr_is_unaccelerated(env) ? IPI_UNACCELERATED
                                                      : IPI_INVALID_TYPE;
    } else if (vector < FIRST_VECTOR) {
        reason = IPI_INVALID_VECTOR;
    } else {
        self_ipi(env, p, vector);
        return;
    }
    savic_trap(env, VC_AVIC_INCOMPLETE_IPI, val, reason << 32, ra);
}

static void write_eoi(CPUX86State *env, SavicPage *p, uintptr_t ra)
{
    int vector = highest_vector(p, REG_ISR);

    page_write(p, REG_EOI, 0);
    if (vector < 0) {
        /* Nothing is in service: nothing to do, also not for the guest. */
        return;
    }
    if (page_read(p, vector_reg(REG_TMR, vector)) & vector_bit(vector)) {
        /* ISR stays: it tells the handler which one it was. */
        trace_x86_savic_eoi(env_cpu(env)->cpu_index, vector, true);
        savic_trap(env, VC_AVIC_NOACCEL, NOACCEL_WRITE | REG_EOI, vector, ra);
    }
    page_clear_bits(p, vector_reg(REG_ISR, vector), vector_bit(vector));
    trace_x86_savic_eoi(env_cpu(env)->cpu_index, vector, false);
    evaluate(env, p);
}

static void savic_write(CPUX86State *env, unsigned reg, uint64_t val,
                        uintptr_t ra)
{
    SavicPage p;

    if (!savic_page(env, true, &p)) {
        savic_page_failed(env, &p, ra);
    }
    switch (reg) {
    case REG_TPR:
        page_write(&p, REG_TPR, val);
        evaluate(env, &p);
        break;
    case REG_EOI:
        write_eoi(env, &p, ra);
        break;
    case REG_ICR:
        write_icr(env, &p, val, ra);
        break;
    case REG_SELF_IPI:
        if ((uint8_t)val < FIRST_VECTOR) {
            savic_trap(env, VC_AVIC_INCOMPLETE_IPI,
                       ICR_SHORTHAND_SELF << 18 | val,
                       (uint64_t)IPI_INVALID_VECTOR << 32, ra);
        }
        self_ipi(env, &p, val);
        break;
    default:
        page_write(&p, reg, val);
        savic_trap(env, VC_AVIC_NOACCEL, NOACCEL_WRITE | reg, 0, ra);
    }
}

static void write_control(CPUX86State *env, uint64_t val, uintptr_t ra)
{
    SavicPage p;

    if (!control_ok(env, val)) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    trace_x86_savic_control(env_cpu(env)->cpu_index, val);
    env->sev.savic_control = val;
    if (!(val & CONTROL_ENABLE)) {
        /* What the engine has found is no longer the guest's state. */
        env->int_ctl &= ~(V_IRQ_MASK | V_INTR_PRIO_MASK | V_IGN_TPR_MASK);
        svm_request(env, CPU_INTERRUPT_VIRQ, false);
        if (savic_page_in_use_by_control(env)) {
            savic_set_page_in_use(env, NULL);
        }
        return;
    }
    if (!savic_page(env, true, &p)) {
        savic_page_failed(env, &p, ra);
    }
    if (savic_page_in_use_by_control(env)) {
        savic_set_page_in_use(env, &p);
    }
    if (savic_control_takes_requests(env)) {
        take_requested_irr(env, &p);
        clear_requested_irr(env);
    }
    evaluate(env, &p);
}

/* MSRs that are not x2APIC registers; true: done. */
static bool control_msr(CPUX86State *env, uint32_t msr, bool write,
                        uint64_t *val, uintptr_t ra)
{
    switch (msr) {
    case MSR_SECURE_AVIC_CONTROL:
        cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, write, ra);
        if (!x86_savic_mode(env)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        if (write) {
            write_control(env, *val, ra);
        } else {
            *val = env->sev.savic_control;
        }
        return true;
    case MSR_AVIC_DOORBELL:
        cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, write, ra);
        if (!write || *val >> 32 ||
            (doorbell_needs_avic(env) &&
             !(env->features[FEAT_SVM] & CPUID_SVM_AVIC))) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        savic_doorbell(env, *val);
        return true;
    }
    return false;
}

/*
 * The part that reads and writes have in common: the intercept of all registers
 * while the engine is off, which comes before exceptions that are an MSR's own
 * (15.11); #GP as on any x2APIC, and faults.
 */
static RegAccess check_access(CPUX86State *env, unsigned reg, bool write,
                              uint64_t val, uintptr_t ra)
{
    RegAccess access = write ? write_access(reg) : read_access(reg);

    if (!savic_on(env)) {
        savic_raise_vc(env, SVM_EXIT_MSR, write, 0, ra);
    }
    if (access == REG_GP ||
        (write && (val & reserved_bits(reg)))) {
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    }
    if (access == REG_FAULT) {
        savic_raise_vc(env, VC_AVIC_NOACCEL, (write ? NOACCEL_WRITE : 0) | reg,
                       0, ra);
    }
    return access;
}

/*
 * An x2APIC MSR in Secure AVIC mode. With alternate injection these are
 * intercepted whatever the permission map says (15.36.16).
 */
static bool own_x2apic_msr(CPUX86State *env, uint32_t msr, bool write,
                           uintptr_t ra)
{
    if (msr < MSR_APIC_START || msr > MSR_APIC_END) {
        return false;
    }
    if (env->sev.sev_features & SEV_FEATURE_ALTERNATE_INJ) {
        savic_raise_vc(env, SVM_EXIT_MSR, write, 0, ra);
    }
    return x86_savic_mode(env);
}

bool x86_savic_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val,
                     uintptr_t ra)
{
    unsigned reg;
    SavicPage p;

    if (control_msr(env, msr, false, val, ra)) {
        return true;
    }
    if (!own_x2apic_msr(env, msr, false, ra)) {
        return false;
    }

    reg = (msr - MSR_APIC_START) << 4;
    check_access(env, reg, false, 0, ra);
    if (!savic_page(env, false, &p)) {
        savic_page_failed(env, &p, ra);
    }
    *val = page_read(&p, reg);
    if (reg == REG_ICR) {
        *val |= (uint64_t)page_read(&p, REG_ICR_HIGH) << 32;
    }
    return true;
}

bool x86_savic_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val,
                     uintptr_t ra)
{
    unsigned reg;

    if (control_msr(env, msr, true, &val, ra)) {
        return true;
    }
    if (!own_x2apic_msr(env, msr, true, ra)) {
        return false;
    }

    reg = (msr - MSR_APIC_START) << 4;
    check_access(env, reg, true, val, ra);
    savic_write(env, reg, val, ra);
    return true;
}

/* CR8 is TPR[7:4]: with the engine on, that of the backing page. */
bool x86_savic_read_cr8(CPUX86State *env, target_ulong *val, uintptr_t ra)
{
    SavicPage p;

    if (!savic_on(env)) {
        return false;
    }
    if (!savic_page(env, false, &p)) {
        savic_page_failed(env, &p, ra);
    }
    *val = page_read(&p, REG_TPR) >> 4 & 0xf;
    return true;
}

bool x86_savic_write_cr8(CPUX86State *env, target_ulong val, uintptr_t ra)
{
    if (!savic_on(env)) {
        return false;
    }
    savic_write(env, REG_TPR, (val & 0xf) << 4, ra);
    return true;
}
