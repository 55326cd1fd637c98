/*
 * Per-CPU state of the AMD SEV-ES/SNP/Secure AVIC host model (TCG).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_SEV_STATE_H
#define I386_SEV_STATE_H

/*
 * What translations depend on, but for page tables and the RMP. No padding: it
 * is compared as a whole.
 */
typedef struct X86SevTlbKey {
    uint64_t vmsa;
    uint64_t nested_cr3;
    uint64_t sev_features;
    uint64_t nested_ctl;
    uint64_t cr0, cr3, cr4, efer;
    uint32_t asid, vmpl, pkru;
    int32_t nested_pg_mode;
} X86SevTlbKey;

/* Where the manual leaves something open: see snp-readings.h. */
typedef enum SnpReading {
    SNP_READING_REQUESTS,           /* R1 */
    SNP_READING_VNMI_TAKEN,         /* R2 */
    SNP_READING_VNMI_DENIED,
    SNP_READING_IDLE_HLT_PRIORITY,  /* R3 */
    SNP_READING_IDLE_HLT_IF,
    SNP_READING_IDLE_HLT_SHADOW,
    SNP_READING_IDLE_HLT_NMI,
    SNP_READING_IDLE_HLT_GIF,
    SNP_READING_IDLE_HLT_SPURIOUS,
    SNP_READING_DOORBELL_CPUID,     /* R4 */
    SNP_READING_DOORBELL_ORDER,
    SNP_READING_DOORBELL_ENTRY,
    SNP_READING_IN_USE_WRITE,       /* R5 */
    SNP_READING_RMP_BUSY,           /* R6 */
    SNP_READING_PAGE_IN_USE,        /* R7 */
    SNP_READING_SELF_ICR,           /* R8 */
    SNP_READING_NOT_ALLOWED,        /* R9 */
    SNP_READING_CONTROL_WRITE,      /* R10 */
    SNP_READING_EXIT_INT_INFO,      /* R11 */
    SNP_READING_UNVALIDATED,        /* R12 */
    SNP_READING_TMR,                /* R13 */
    SNP_GENERATION,                 /* no reading: which processor it is */
    SNP_NR_READINGS,
} SnpReading;

/* With snp-host=on: which such host this CPU is one of. */
typedef struct X86SnpModel {
    uint8_t readings[SNP_NR_READINGS];  /* numbers of the properties' values */
    uint32_t disturb_rate;              /* one disturbance in so many, or 0 */
    uint64_t disturb_seed;
    uint64_t rmp_cfg;                   /* C001_0136, as firmware leaves it */
    uint8_t rmp_segment_shift;          /* segmented RMP: 2^n bytes, or 0 */
} X86SnpModel;

/* Guest and host state of the SEV machine in one CPU. */
typedef struct X86SevState {
    /* MSRs of the host */
    uint64_t syscfg;            /* C001_0010 */
    uint64_t hwcr;              /* C001_0015 */
    uint64_t vm_cr;             /* C001_0114 */
    uint64_t rmp_base;          /* C001_0132 */
    uint64_t rmp_end;           /* C001_0133 */
    uint64_t rmp_cfg;           /* C001_0136 */

    /* WBINVD since firmware last asked for one; it clears the flag */
    bool wbinvd_done;
    uint64_t ghcb;              /* C001_0130, guest only */

    /* The running guest; all zero outside guest mode. */
    uint64_t nested_ctl;        /* VMCB 090h; SEV bits cleared where ignored */
    uint64_t sev_status;        /* C001_0131 in a guest: what VMRUN turned on */
    uint64_t sev_features;      /* VMSA 3B0h */
    uint64_t vmsa;              /* VMSA page, system physical */
    uint32_t asid;
    uint32_t vmpl;
    uint64_t intercept_ext;     /* VMCB intercept words 4 (31:0), 5 (63:32) */
    uint16_t pause_filter;      /* PAUSEs from here to the one that exits */
    uint64_t vintr_ctrl;        /* VMSA 3B8h, live copy */
    uint64_t savic_control;     /* VMSA 320h, live copy */
    bool savic_page_fault;      /* a doorbell could not use the backing page */
    bool vmcb_nmi_taken;        /* V_NMI_PENDING of the VMCB: clear at #VMEXIT */
    bool savic_entered;         /* VMRUN is over: see doorbells */
    bool disturb_exit;          /* x-disturb: leave the guest, as by INTR */
    uint64_t tsc_scale;         /* VMSA 2F0h, 8.32 fixed point */
    uint64_t tsc_offset;        /* VMSA 2F8h */
    uint64_t host_pat;
    bool vmsa_loaded;           /* the registers are the guest's */
    bool vmcb_in_use;           /* marked in the RMP model */
    bool vmsa_in_use;
    uint64_t savic_page_in_use; /* address + 1, or 0 */

    /* Last-branch records: DebugCtl[LBR] and its MSRs, 1D9h to 1DEh */
    struct {
        uint64_t debugctl;
        uint64_t br_from, br_to;
        uint64_t int_from, int_to;
        uint64_t pending_from;  /* a branch under way, if branching */
        bool branching;
        bool swapped;           /* a guest's, without SEV-ES: on #VMEXIT back */
    } lbr;

    X86SevTlbKey host_tlb;      /* at the last VMRUN */
    X86SevTlbKey guest_tlb;     /* at the last #VMEXIT */
    bool tlb_entered;           /* the guest makes translations */

    /* Length of the instruction that cpu_restore_state() went back to. */
    uint8_t insn_len;
    uint8_t known_insn_len;     /* the same, where there was no need to */
} X86SevState;

#endif
