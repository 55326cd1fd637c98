/*
 * AMD host with SEV-ES, SEV-SNP and Secure AVIC (TCG): state and interfaces
 * between the files that model it.
 *
 *   tcg/system/sev_es_helper.c  world switch, #VC, VMGEXIT (APM 15.35)
 *   tcg/system/snp_rmp.c        RMP, its instructions and checks (15.36.3-12)
 *   tcg/system/x86_savic.c      Secure AVIC, VNMI, Idle-HLT (15.36.21)
 *   hw/i386/amd_psp.c           security processor (SEV-SNP firmware ABI)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SNP_H
#define I386_SNP_H

#include "cpu.h"
#include "snp-cpu.h"
#include "snp-readings.h"

/* VMCB 090h */
#define SVM_NESTED_CTL_NP           (1ULL << 0)
#define SVM_NESTED_CTL_SEV          (1ULL << 1)
#define SVM_NESTED_CTL_SEV_ES       (1ULL << 2)

/* VMSA 3B0h SEV_FEATURES */
#define SEV_FEATURE_SNP_ACTIVE          (1ULL << 0)
#define SEV_FEATURE_VTOM                (1ULL << 1)
#define SEV_FEATURE_REFLECT_VC          (1ULL << 2)
#define SEV_FEATURE_RESTRICTED_INJ      (1ULL << 3)
#define SEV_FEATURE_ALTERNATE_INJ       (1ULL << 4)
#define SEV_FEATURE_DEBUG_VIRT          (1ULL << 5)
#define SEV_FEATURE_PREVENT_HOST_IBS    (1ULL << 6)
#define SEV_FEATURE_BTB_ISOLATION       (1ULL << 7)
#define SEV_FEATURE_SECURE_TSC          (1ULL << 9)
#define SEV_FEATURE_VMGEXIT_PARAM       (1ULL << 10)
#define SEV_FEATURE_SMT_PROTECTION      (1ULL << 15)
#define SEV_FEATURE_SECURE_AVIC         (1ULL << 16)
#define SEV_FEATURE_IBPB_ON_ENTRY       (1ULL << 21)

/* SEV_STATUS: SEV_FEATURES follow the first two bits. */
#define SEV_STATUS_SEV                  (1ULL << 0)
#define SEV_STATUS_SEV_ES               (1ULL << 1)
#define SEV_STATUS_FEATURES_SHIFT       2

#define ALLOWED_SEV_FEATURES_ENABLE     (1ULL << 63)

/* VMCB 0B8h */
#define SVM_LBR_CTL_ENABLE              (1ULL << 0)

#define CPUID_8000_001F_EAX_64BIT_HOST  (1U << 11)

#define MSR_AMD64_SEV_ES_GHCB           0xc0010130
#define MSR_AMD64_SEV                   0xc0010131
#define MSR_AMD64_GUEST_TSC_FREQ        0xc0010134

/* Offset of the host save area in the page of VM_HSAVE_PA */
#define SEV_HOST_SAVE_AREA              0x400

/* C-bit of guest and host page tables: Fn8000_001F EBX[5:0] */
#define SEV_C_BIT_POS                   51
#define SEV_C_BIT                       (1ULL << SEV_C_BIT_POS)

/* MSRs of the host that snp_rdmsr()/snp_wrmsr() know */
#define MSR_AMD64_SYSCFG                0xc0010010
#define MSR_AMD64_IORR_BASE0            0xc0010016
#define MSR_AMD64_IORR_MASK0            0xc0010017
#define MSR_AMD64_IORR_BASE1            0xc0010018
#define MSR_AMD64_IORR_MASK1            0xc0010019
#define MSR_AMD64_TOP_MEM               0xc001001a
#define MSR_AMD64_TOP_MEM2              0xc001001d
#define MSR_AMD64_VM_CR                 0xc0010114
#define MSR_AMD64_SMM_KEY               0xc0010119
#define MSR_AMD64_RMP_BASE              0xc0010132
#define MSR_AMD64_RMP_END               0xc0010133
#define MSR_AMD64_RMP_CFG               0xc0010136

typedef enum SnpMsrWrite {
    SNP_MSR_OTHER,              /* not ours: go on */
    SNP_MSR_DONE,
    SNP_MSR_GP,
} SnpMsrWrite;

/*
 * One RMP entry, firmware ABI layout unpacked (spec psp.md section 4).
 * gpa is the byte address of GPA[51:12]; lock is quadword 0 bit 63.
 */
typedef struct SnpRmpEntry {
    bool assigned;
    bool size_2m;
    bool immutable;
    bool vmsa;
    bool validated;
    bool lock;
    uint16_t subpage_count;
    uint32_t asid;
    uint64_t gpa;
    uint8_t perm[4];            /* VMPL0-3: bits R W Xu Xs SSS */
    uint64_t hi_rest;           /* quadword 1 bits 63:32, kept as they are */
} SnpRmpEntry;

/* What the hardware's own access to a guest private page came to. */
typedef enum SnpAccess {
    SNP_ACCESS_OK,
    SNP_ACCESS_NPF,             /* not mapped, or an RMP violation */
    SNP_ACCESS_NOT_VALIDATED,
} SnpAccess;

/* The machine models an SNP host; everything below is off without it. */
static inline bool snp_host(CPUX86State *env)
{
    return env_archcpu(env)->snp_host;
}

/* SYSCFG.SecureNestedPagingEn: the RMP is in force on this CPU. */
static inline bool snp_enabled(CPUX86State *env)
{
    return env->sev.syscfg & SYSCFG_SNP_EN;
}

/* The architecture's state, for use inside TCG code. */
static inline bool sev_guest(CPUX86State *env)
{
    return env->sev.nested_ctl & SVM_NESTED_CTL_SEV;
}

static inline bool sev_es_guest(CPUX86State *env)
{
    return env->sev.nested_ctl & SVM_NESTED_CTL_SEV_ES;
}

static inline bool snp_guest(CPUX86State *env)
{
    return env->sev.sev_features & SEV_FEATURE_SNP_ACTIVE;
}

static inline bool x86_savic_mode(CPUX86State *env)
{
    return env->sev.sev_features & SEV_FEATURE_SECURE_AVIC;
}

/* ---- RMP: tcg/system/snp_rmp.c ---------------------------------------- */

/*
 * Read the entry that governs the 4K page at @spa (for a page inside a 2M
 * entry: the head's, with size_2m). False where the RMP does not cover it.
 */
bool snp_rmp_lookup(CPUX86State *env, hwaddr spa, SnpRmpEntry *e);
/*
 * Read/write exactly the entry of the 4K page at @spa. Nothing happens where
 * the RMP does not cover it. On a write subpage_count is ignored: the count
 * in the first entry of each 2M region is kept up to date by snp_rmp_write()
 * itself. Takes the lock for the write; hold it around read-modify-write.
 */
bool snp_rmp_read(CPUX86State *env, hwaddr spa, SnpRmpEntry *e);
void snp_rmp_write(CPUX86State *env, hwaddr spa, const SnpRmpEntry *e);
/*
 * Serialises all readers-modifiers of the RMP: instructions and firmware.
 * Recursive. Never take the BQL or access guest memory through the MMU
 * inside; with the BQL held it may be taken.
 */
void snp_rmp_lock(void);
void snp_rmp_unlock(void);
/*
 * Drop translations cached from the RMP on every CPU. From any thread, with
 * or without BQL. On a vCPU thread it is complete before that vCPU's next
 * translation block; on other threads it is queued.
 */
void snp_rmp_flush_tlbs(CPUX86State *env);
/*
 * Pages in use by a running VMRUN (VMCB, VMSA, AVIC pages): RMPUPDATE fails
 * with FAIL_INUSE, and software's writes with an RMP violation. Called around
 * guest mode, by the CPU itself.
 */
void snp_page_set_in_use(CPUX86State *env, hwaddr spa, bool in_use);
/* Does @cs use the page like that now? From any thread. */
bool snp_page_in_use_by(CPUState *cs, hwaddr spa);
/* Is a write by software or a device refused because of it? */
bool snp_in_use_write_refused(CPUX86State *env, hwaddr spa);
/* RESET and INIT: the CPU uses no page any more. */
void snp_rmp_cpu_reset(CPUState *cs);
/* VMRUN's check of the VMSA page (15.36.12). */
bool snp_vmrun_vmsa_ok(CPUX86State *env, hwaddr vmsa, uint32_t asid);
/* True if the host may write the page: not covered, or hypervisor-owned. */
bool snp_hypervisor_owned(CPUX86State *env, hwaddr spa);
/*
 * Translate guest-private @gpa for an access that the hardware itself makes
 * (Secure AVIC): nested walk, then RMP with ASID, GPA, validated, VMPL.
 * On success *@spa is the system physical address. On SNP_ACCESS_NPF
 * *@exit_info_1 is the NPF error code, as for EXITINFO1.
 * Raises nothing.
 */
SnpAccess snp_access_private(CPUX86State *env, uint64_t gpa, bool write,
                             hwaddr *spa, uint64_t *exit_info_1);

/* MSRs: call with snp_host() only. @val is set when true is returned. */
bool snp_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);
SnpMsrWrite snp_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);

/* ---- Translations: between excp_helper.c and snp_rmp.c ----------------- */

/* NPF error code (EXITINFO1) and, bit 31, #PF error code bits (15.36.10) */
#define SNP_ERROR_RMP                   (1ULL << 31)
#define SNP_ERROR_ENC                   (1ULL << 34)
#define SNP_ERROR_SIZEM                 (1ULL << 35)
#define SNP_ERROR_VMPL                  (1ULL << 36)

/* #VC error code of an access to a page that is not validated (15.36.9) */
#define SVM_EXIT_NOT_VALIDATED          0x404
/* and of one that the hardware's own access cannot be restarted for (15.36.21) */
#define SVM_EXIT_NOT_RESTARTABLE        0x406

/* Guest page tables know 52 address bits, whatever the machine decodes. */
#define SNP_GUEST_PHYS_BITS             52

/* One access that has passed all paging checks. */
typedef struct SnpCheck {
    hwaddr spa;                 /* in; out: where a read is redirected */
    uint64_t gpa;               /* in, guest only */
    uint64_t page_size;         /* in: of the host's or nested mapping */
    MMUAccessType access_type;  /* in */
    bool page_table;            /* in: access by the page walker */
    bool cached;                /* in: for the TLB, at @va */
    vaddr va;
    bool private_access;        /* in: effective C-bit of an SNP guest */
    bool user;                  /* in: CPL 3 */
    int prot;                   /* in; out: without what may not be cached */
    uint64_t error;             /* out, on failure: bits 31, 34, 36 */
    bool not_validated;         /* out, on failure: #VC instead of NPF */
} SnpCheck;

/* RMP and VMPL checks (15.36.10). Call with snp_enabled() only. */
bool snp_check_access(CPUX86State *env, SnpCheck *c);

/*
 * Result of a guest's or host's page walk for RMP instructions: all paging
 * checks made, none of the RMP's. Raises the fault if there is one.
 */
typedef struct SnpTranslation {
    hwaddr spa;
    uint64_t gpa;
    uint64_t page_size;         /* of the nested mapping */
} SnpTranslation;

void snp_translate(CPUX86State *env, vaddr addr, MMUAccessType access_type,
                   SnpTranslation *out, uintptr_t ra);
/* Raise NPF for a guest physical address. Called in SNP guests. */
G_NORETURN void snp_raise_npf(CPUX86State *env, uint64_t gpa,
                              uint64_t exit_info_1, uintptr_t ra);

/* Bits that a CR3 may not have set on an SNP host. */
static inline uint64_t x86_cr3_reserved_bits(CPUX86State *env)
{
    int bits = env_archcpu(env)->phys_bits;
    uint64_t c_bit = 0;

    if (snp_host(env)) {
        if (env->hflags & HF_GUEST_MASK) {
            bits = SNP_GUEST_PHYS_BITS;
        } else if (env->sev.syscfg & SYSCFG_MEM_ENCRYPTION_MOD_EN) {
            c_bit = SEV_C_BIT;
        }
    }
    return (~0ULL << bits) & ~c_bit;
}

/*
 * Reads of guest-owned pages by somebody else give scrambled bytes: they are
 * redirected into this region, above all physical addresses.
 */
#define SNP_SCRAMBLED_BASE              (1ULL << 52)
#define SNP_SCRAMBLED_SIZE              (1ULL << 52)
void snp_add_scrambled_region(X86CPU *cpu, MemoryRegion *root);

/* ---- World switch: tcg/system/sev_es_helper.c ------------------------- */

/*
 * Second half of VMRUN for SEV-ES guests: checks, host save, VMSA load.
 * helper_vmrun() has read the control area before and injects after.
 */
void sev_es_vmrun(CPUX86State *env, uintptr_t ra);
/* Automatic exit: VMSA store, host state load (15.35.2, table B-3). */
void sev_es_vmexit(CPUX86State *env);
/*
 * Raise #VC with @error_code in the guest (or VMEXIT_VC with ReflectVC);
 * @exit_info_1/2 are for the VMSA's GUEST_EXITINFO fields.
 */
G_NORETURN void sev_es_raise_vc(CPUX86State *env, uint64_t error_code,
                                uint64_t exit_info_1, uint64_t exit_info_2,
                                uintptr_t ra);
/* The same with RIP behind the instruction that is the cause */
G_NORETURN void sev_es_raise_vc_trap(CPUX86State *env, uint64_t error_code,
                                     uint64_t exit_info_1,
                                     uint64_t exit_info_2);

/* ---- Virtual NMI and Idle-HLT: tcg/system/x86_savic.c ------------------ */

/* The running guest has NMI virtualization (15.21.10). */
static inline bool x86_vnmi_enabled(CPUX86State *env)
{
    return (env->int_ctl & V_NMI_ENABLE_MASK) &&
           (env->hflags & HF_GUEST_MASK) && snp_host(env);
}

/* A virtual NMI is pending, and would be taken but for shadow and GIF. */
static inline bool x86_vnmi_pending(CPUX86State *env)
{
    return (env->int_ctl & (V_NMI_PENDING_MASK | V_NMI_BLOCKED_MASK)) ==
           V_NMI_PENDING_MASK && x86_vnmi_enabled(env);
}

/* CPU_INTERRUPT_SVM_EVENT has something that can be done now. */
static inline bool x86_svm_event_ready(CPUX86State *env)
{
    if (env->sev.savic_page_fault || env->sev.disturb_exit) {
        return true;
    }
    return x86_vnmi_pending(env) && (env->hflags2 & HF2_VGIF_MASK) &&
           !(env->hflags & HF_INHIBIT_IRQ_MASK);
}

/* IRET ends the blocking of NMIs: of virtual ones where those are on. */
static inline void x86_iret_unblock_nmi(CPUX86State *env)
{
    if (x86_vnmi_enabled(env)) {
        env->int_ctl &= ~V_NMI_BLOCKED_MASK;
    } else {
        env->hflags2 &= ~HF2_NMI_MASK;
    }
}

/* VMRUN, once int_ctl is loaded: checks, and requests a pending NMI. */
void x86_svm_vmrun(CPUX86State *env, uintptr_t ra);
/* #VMEXIT, with int_ctl still in the processor (15.21.10) */
void x86_vnmi_vmexit(CPUX86State *env);
/* EVENTINJ of an NMI: virtual NMIs are blocked from here to IRET. */
void x86_vnmi_block(CPUX86State *env);
/* CPU_INTERRUPT_SVM_EVENT; only if x86_svm_event_ready(). */
void x86_svm_take_event(CPUX86State *env);
/* HLT that the HLT intercept does not stop; may leave the guest. */
void x86_svm_check_idle_hlt(CPUX86State *env, uintptr_t ra);

/*
 * An intercept in a SEV-ES guest: raises #VC for non-automatic exits, else
 * returns with RIP where the automatic exit saves it (15.35.4, 15.35.5).
 */
void sev_es_intercept(CPUX86State *env, uint64_t exit_code,
                      uint64_t exit_info_1, int insn_len);
/*
 * VMRUN's checks of the control area for SEV; sets env->sev.nested_ctl, asid
 * and sev_status. False: VMEXIT_INVALID (15.34.3, 15.35.2).
 */
bool sev_vmrun_control_ok(CPUX86State *env, uint64_t nested_ctl,
                          uint32_t asid);
/* False: VMEXIT_INVALID (15.35.8). */
bool sev_es_event_inj_ok(CPUX86State *env, uint32_t event_inj);
/* Back in host mode: forget the guest. */
void sev_clear_guest(CPUX86State *env);
/* SEV_STATUS, GHCB, GUEST_TSC_FREQ. False: not ours. May raise #GP or exit. */
bool sev_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val, uintptr_t ra);
bool sev_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val, uintptr_t ra);
/* The guest's TSC from the raw one: TSC_OFFSET or Secure TSC (15.36.18). */
uint64_t snp_guest_tsc(CPUX86State *env, uint64_t raw);

/* ---- VMRUN and #VMEXIT of every guest: tcg/system/svm_assists.c -------- */

/* VMCB and VM_HSAVE_PA before VMRUN; false: #GP(0) (15.36.12). */
bool snp_vmrun_pages_ok(CPUX86State *env, hwaddr vmcb);
/* Exits whose cause is an instruction: nRIP is its successor (15.7.1). */
bool svm_instruction_exit(uint64_t exit_code);
/* Intercepts that SNP guests have whatever the VMCB says. */
bool snp_always_intercepted(CPUX86State *env, uint32_t type);
/*
 * With the state at the instruction that exits: nRIP, instruction bytes, RIP
 * of trap-like exits. Raises #VC instead for non-automatic exits of SEV-ES
 * guests.
 */
void svm_prepare_exit(CPUX86State *env, uint64_t exit_code,
                      uint64_t exit_info_1, int insn_len);
/* An intercepted PAUSE does not exit yet; counts it (15.14.4). */
bool svm_pause_filtered(CPUX86State *env);
/* INTn, INT3 and INTO at env->eip, before they are delivered. */
void svm_check_swint(CPUX86State *env, int intno, int insn_len);
/* EXITINFO1 of MOV to and from CR and DR. */
uint64_t svm_decode_info(uint32_t type, uint32_t operand);
/*
 * The selective intercept for MOV to CR0 (15.9), behind that of all writes; with
 * decode assists. @operand as for svm_decode_info().
 */
void svm_check_selective_cr0(CPUX86State *env, uint32_t operand, uintptr_t ra);
/* EFER and CR write traps, after the write. */
void svm_check_write_trap(CPUX86State *env, uint32_t type, uint64_t value,
                          uintptr_t ra);
/* EVENTINJ of exceptions, and of what pushes the next RIP. */
void svm_prepare_injection(CPUX86State *env, int vector);
void svm_prepare_soft_injection(CPUX86State *env);

/* Translations that stay over a world switch, with snp_host() */
void svm_tlb_save_host(CPUX86State *env);
/* The guest's state is loaded; @moved: nothing that is cached for it counts. */
void svm_tlb_enter(CPUX86State *env, bool moved);
/* #VMEXIT, before and after the host's state is loaded */
void svm_tlb_leave(CPUX86State *env);
void svm_tlb_host_loaded(CPUX86State *env);
void svm_tlb_flush_guest(CPUX86State *env);

/* ---- Last-branch records: tcg/system/x86_lbr.c ------------------------- */

void x86_lbr_set_debugctl(CPUX86State *env, uint64_t val);
#ifdef CONFIG_USER_ONLY
static inline void x86_lbr_before_event(CPUX86State *env)
{
}

static inline void x86_lbr_interrupt(CPUX86State *env, int intno,
                                     target_ulong from)
{
}
#else
/* Before and after the delivery of an interrupt or exception from RIP @from */
void x86_lbr_before_event(CPUX86State *env);
void x86_lbr_interrupt(CPUX86State *env, int intno, target_ulong from);
#endif
/* True: it is one of these MSRs, and done. */
bool x86_lbr_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val);
bool x86_lbr_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val);
/*
 * LBR virtualization: the host's records to VM_HSAVE_PA; then for guests without
 * SEV-ES, whose VMSA has no part in it, the VMCB's, and back on #VMEXIT.
 */
void x86_lbr_vmrun_save_host(CPUX86State *env);
void x86_lbr_vmrun_load_guest(CPUX86State *env);
void x86_lbr_vmexit(CPUX86State *env);

/* ---- Secure AVIC: tcg/system/x86_savic.c ------------------------------ */

/*
 * VMRUN, with the VMSA found good and nothing of it loaded: checks and loads
 * what is Secure AVIC's own. False: VMEXIT_INVALID. The host's requests are
 * taken by x86_svm_vmrun() later on.
 */
bool x86_savic_vmrun(CPUX86State *env);
/* VMRUN fails, after it has looked for the VMSA. */
void x86_savic_vmrun_failed(CPUX86State *env);
/* Saves what an automatic exit saves for Secure AVIC, but for VINTR_CTRL. */
void x86_savic_vmexit(CPUX86State *env);
/*
 * x2APIC MSRs in Secure AVIC mode, SECURE_AVIC_CONTROL and the doorbell. True:
 * done. Raises #VC or #GP itself, checks intercepts. False: not ours.
 */
bool x86_savic_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val,
                     uintptr_t ra);
bool x86_savic_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val,
                     uintptr_t ra);
/* CR8 of a guest that has the engine on. False: not ours. */
bool x86_savic_read_cr8(CPUX86State *env, target_ulong *val, uintptr_t ra);
bool x86_savic_write_cr8(CPUX86State *env, target_ulong val, uintptr_t ra);
/*
 * The vector that a CPU_INTERRUPT_VIRQ delivers in Secure AVIC mode; with the
 * engine on it is moved from IRR to ISR. -1: it has gone away. May exit.
 */
int x86_savic_take_vector(CPUX86State *env);

#endif
