/*
 * What newer SVM adds to VMRUN and #VMEXIT and stock TCG leaves out: next RIP
 * and decode assists (APM vol. 2, 15.7.1, 15.8.4), soft interrupt injection
 * with the next RIP (15.20), traps after register writes (15.9, 15.35.10), the
 * pause filter (15.14.4)
 *
 * Only for machines with the SNP host model, so that all others keep what
 * their guests know.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "exec/cputlb.h"
#include "exec/helper-proto.h"
#include "tcg/helper-tcg.h"
#include "snp.h"
#include "snp-disturb.h"

#define VMCB(env, field)        ((env)->vm_vmcb + offsetof(struct vmcb, field))

#define MAX_INSN_BYTES          15

/* The one error code of #SX (15.28) */
#define SX_INIT_REDIRECTION     1

bool snp_vmrun_pages_ok(CPUX86State *env, hwaddr vmcb)
{
    if (snp_disturbed(env)) {
        snp_disturb_switch(env);
    }
    /* 15.36.12: #GP(0) for both. */
    return env->vm_hsave != 0 && snp_hypervisor_owned(env, vmcb);
}

bool snp_always_intercepted(CPUX86State *env, uint32_t type)
{
    switch (type) {
    case SVM_EXIT_CPUID:
    case SVM_EXIT_IOIO:
        /* 15.36.9: SNP guests cannot be run without these intercepts. */
        return snp_guest(env);
    case SVM_EXIT_SMI:
    case SVM_EXIT_VMLOAD:
    case SVM_EXIT_VMSAVE:
        /* 15.35.11, and not supported in SEV-ES guests: 15.36.12 */
        return sev_es_guest(env);
    }
    return false;
}

bool svm_instruction_exit(uint64_t exit_code)
{
    switch (exit_code) {
    case SVM_EXIT_READ_CR0 ... SVM_EXIT_WRITE_DR7 + 8:
    case SVM_EXIT_CR0_SEL_WRITE ... SVM_EXIT_MSR:
    case SVM_EXIT_VMRUN ... SVM_EXIT_RDPRU:
    case SVM_EXIT_INVPCID:
    case SVM_EXIT_IDLE_HLT:
    case SVM_EXIT_AVIC_INCOMPLETE_IPI:
    case SVM_EXIT_AVIC_NOACCEL:
        return true;
    }
    return false;
}

/* Trap-like exits: RIP is behind the instruction (15.9, 15.35.10). */
static bool is_trap_exit(uint64_t exit_code)
{
    return exit_code >= SVM_EXIT_EFER_WRITE_TRAP &&
           exit_code <= SVM_EXIT_CR15_WRITE_TRAP;
}

/*
 * The bytes at CS:RIP, as far as they can be read without a fault; where the
 * fetch itself faulted there are none.
 */
static int fetch_insn_bytes(CPUX86State *env, uint8_t *buf)
{
    CPUState *cs = env_cpu(env);
    int mmu_idx = x86_mmu_index_pl(env, env->hflags & HF_CPL_MASK);
    int saved_error_code = env->error_code;
    int done = 0;

    while (done < MAX_INSN_BYTES) {
        vaddr addr = env->segs[R_CS].base + env->eip + done;
        int size;
        void *host;

        if (!(env->hflags & HF_CS64_MASK)) {
            addr = (uint32_t)addr;
        }
        size = MIN(MAX_INSN_BYTES - done,
                   TARGET_PAGE_SIZE - (int)(addr & ~TARGET_PAGE_MASK));
        if (probe_access_flags(env, addr, size, MMU_INST_FETCH, mmu_idx, true,
                               &host, 0) & (TLB_INVALID_MASK | TLB_MMIO)) {
            break;
        }
        if (!host) {
            break;
        }
        memcpy(buf + done, host, size);
        done += size;
    }
    /* The probe's own faults are nobody's. */
    env->error_code = saved_error_code;
    cs->exception_index = -1;
    return done;
}

void svm_prepare_exit(CPUX86State *env, uint64_t exit_code,
                      uint64_t exit_info_1, int insn_len)
{
    CPUState *cs = env_cpu(env);
    uint8_t bytes[16] = { 0 };
    target_ulong next_rip = 0;

    if (sev_es_guest(env)) {
        if (env->sev.vmsa_loaded) {
            sev_es_intercept(env, exit_code, exit_info_1, insn_len);
        }
        /* No nRIP and no instruction bytes for SEV-ES. */
        return;
    }

    if (is_trap_exit(exit_code)) {
        env->eip += insn_len;
        do_end_instruction(env);
    } else if (insn_len && (svm_instruction_exit(exit_code) ||
                            exit_code == SVM_EXIT_EXCP_BASE + EXCP03_INT3 ||
                            exit_code == SVM_EXIT_EXCP_BASE + EXCP04_INTO)) {
        next_rip = env->eip + insn_len;
        if (!(env->hflags & HF_CS64_MASK)) {
            next_rip = (uint32_t)next_rip;
        }
    } else if ((exit_code == SVM_EXIT_NPF &&
                !(exit_info_1 & PG_ERROR_I_D_MASK)) ||
               (exit_code == SVM_EXIT_EXCP_BASE + EXCP0E_PAGE &&
                !(exit_info_1 & PG_ERROR_I_D_MASK))) {
        bytes[0] = fetch_insn_bytes(env, bytes + 1);
    }

    x86_stq_phys(cs, VMCB(env, control.next_rip), next_rip);
    x86_stq_phys(cs, VMCB(env, control.insn_len), ldq_le_p(bytes));
    x86_stq_phys(cs, VMCB(env, control.insn_len) + 8, ldq_le_p(bytes + 8));
}

/* Held back and intercepted INITs do not get here. */
void snp_host_redirect_init(X86CPU *cpu)
{
    CPUX86State *env = &cpu->env;

    if (env->sev.vm_cr & VM_CR_R_INIT) {
        cpu_reset_interrupt(CPU(cpu), CPU_INTERRUPT_INIT);
        raise_exception_err(env, EXCP1E_SX, SX_INIT_REDIRECTION);
    }
}

bool svm_pause_filtered(CPUX86State *env)
{
    return env->sev.pause_filter && --env->sev.pause_filter;
}

void svm_check_swint(CPUX86State *env, int intno, int insn_len)
{
    /* INT3 and INTO are exceptions, whatever TCG's name for them. */
    uint32_t type = insn_len == 1 ? SVM_EXIT_EXCP_BASE + intno
                                  : SVM_EXIT_SWINT;

    if (!(env->hflags & HF_GUEST_MASK) || !cpu_svm_has_intercept(env, type)) {
        return;
    }
    env->sev.known_insn_len = insn_len;
    cpu_vmexit(env, type, type == SVM_EXIT_SWINT ? intno : 0, 0);
}

uint64_t svm_decode_info(uint32_t type, uint32_t operand)
{
    /* 15.8.1: number of the register, and that it is a MOV at all. */
    if (!(operand & SVM_OPERAND_VALID)) {
        return 0;
    }
    return (operand & 0xf) | (type < SVM_EXIT_READ_DR0 ? 1ULL << 63 : 0);
}

void svm_check_selective_cr0(CPUX86State *env, uint32_t operand, uintptr_t ra)
{
    target_ulong val = env->regs[operand & 0xf];

    /* CLTS and LMSW have no operand that is a register. */
    if (!snp_host(env) || !(operand & SVM_OPERAND_VALID) ||
        !cpu_svm_has_intercept(env, SVM_EXIT_CR0_SEL_WRITE)) {
        return;
    }
    if (!(env->hflags & HF_CS64_MASK)) {
        val = (uint32_t)val;
    }
    if ((env->cr[0] ^ val) & ~(CR0_TS_MASK | CR0_MP_MASK)) {
        cpu_vmexit(env, SVM_EXIT_CR0_SEL_WRITE,
                   svm_decode_info(SVM_EXIT_WRITE_CR0, operand), ra);
    }
}

void svm_check_write_trap(CPUX86State *env, uint32_t type, uint64_t value,
                          uintptr_t ra)
{
    if ((env->hflags & HF_GUEST_MASK) && snp_host(env) &&
        cpu_svm_has_intercept(env, type)) {
        cpu_vmexit(env, type, value, ra);
    }
}

void svm_prepare_soft_injection(CPUX86State *env)
{
    /* 15.20: the return address is VMCB nRIP. */
    env->exception_is_int = 1;
    env->exception_next_eip = x86_ldq_phys(env_cpu(env),
                                           VMCB(env, control.next_rip));
}

void svm_prepare_injection(CPUX86State *env, int vector)
{
    if (vector == EXCP03_INT3 || vector == EXCP04_INTO) {
        svm_prepare_soft_injection(env);
        return;
    }
    /* A fault while this one is delivered may make it a double fault. */
    if (vector == EXCP00_DIVZ || (vector >= EXCP0A_TSS && vector <= EXCP0E_PAGE)
        || vector == EXCP08_DBLE || vector == EXCP1D_VC) {
        env->old_exception = vector;
    }
}

void helper_svm_check_invlpg(CPUX86State *env, target_ulong addr)
{
    cpu_svm_check_intercept_param(env, SVM_EXIT_INVLPG,
                                  snp_host(env) ? addr : 0, GETPC());
}

/* ---- Translations over a world switch (15.16, 15.36.15) ----------------- */

/*
 * A CPU keeps those of its host, and those of the guest that it has run last:
 * of one ASID, with registers and tables as they were at its last #VMEXIT. Each
 * set has MMU indexes of its own; MMU_NESTED_IDX is the guest's.
 */
#define HOST_MMU_INDEXES        MAKE_64BIT_MASK(0, MMU_PHYS_IDX)
#define GUEST_MMU_INDEXES \
    (MAKE_64BIT_MASK(MMU_GUEST_IDX, MMU_PHYS_IDX) | 1 << MMU_NESTED_IDX)

static X86SevTlbKey host_tlb_key(CPUX86State *env)
{
    return (X86SevTlbKey) {
        .cr0 = env->cr[0], .cr3 = env->cr[3], .cr4 = env->cr[4],
        .efer = env->efer, .pkru = env->pkru,
    };
}

static X86SevTlbKey guest_tlb_key(CPUX86State *env)
{
    X86SevTlbKey key = host_tlb_key(env);

    key.asid = env->sev.asid;
    key.vmsa = env->sev.vmsa;
    key.vmpl = env->sev.vmpl;
    key.sev_features = env->sev.sev_features;
    key.nested_ctl = env->sev.nested_ctl;
    key.nested_cr3 = env->nested_cr3;
    key.nested_pg_mode = env->nested_pg_mode;
    return key;
}

static bool same_tlb_key(const X86SevTlbKey *a, const X86SevTlbKey *b)
{
    return !memcmp(a, b, sizeof(*a));
}

void svm_tlb_save_host(CPUX86State *env)
{
    env->sev.host_tlb = host_tlb_key(env);
}

void svm_tlb_flush_guest(CPUX86State *env)
{
    tlb_flush_by_mmuidx(env_cpu(env), GUEST_MMU_INDEXES);
}

void svm_tlb_enter(CPUX86State *env, bool moved)
{
    X86SevTlbKey key = guest_tlb_key(env);

    if (moved || !same_tlb_key(&key, &env->sev.guest_tlb)) {
        svm_tlb_flush_guest(env);
    }
    env->sev.guest_tlb = key;
    env->sev.tlb_entered = true;
}

void svm_tlb_leave(CPUX86State *env)
{
    /* A VMRUN that failed has made no translations. */
    if (env->sev.tlb_entered) {
        env->sev.guest_tlb = guest_tlb_key(env);
        env->sev.tlb_entered = false;
    }
}

void svm_tlb_host_loaded(CPUX86State *env)
{
    X86SevTlbKey host = host_tlb_key(env);

    if (!same_tlb_key(&host, &env->sev.host_tlb)) {
        tlb_flush_by_mmuidx(env_cpu(env), HOST_MMU_INDEXES);
    }
}
