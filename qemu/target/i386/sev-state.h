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
    uint64_t cr0, cr3, cr4, efer;
    uint32_t asid, vmpl, pkru;
    int32_t nested_pg_mode;
} X86SevTlbKey;

/* Guest and host state of the SEV machine in one CPU. */
typedef struct X86SevState {
    /* MSRs of the host */
    uint64_t syscfg;            /* C001_0010 */
    uint64_t hwcr;              /* C001_0015 */
    uint64_t vm_cr;             /* C001_0114 */
    uint64_t rmp_base;          /* C001_0132 */
    uint64_t rmp_end;           /* C001_0133 */

    /* WBINVD since firmware last asked for one; it clears the flag */
    bool wbinvd_done;
    uint64_t ghcb;              /* C001_0130, guest only */

    /* The running guest; all zero outside guest mode. */
    uint64_t nested_ctl;        /* VMCB 090h; SEV bits cleared where ignored */
    uint64_t sev_status;        /* C001_0131: what the last VMRUN turned on */
    uint64_t sev_features;      /* VMSA 3B0h */
    uint64_t vmsa;              /* VMSA page, system physical */
    uint32_t asid;
    uint32_t vmpl;
    uint64_t intercept_ext;     /* VMCB intercept words 4 (31:0), 5 (63:32) */
    uint16_t pause_filter;      /* PAUSEs from here to the one that exits */
    uint64_t vintr_ctrl;        /* VMSA 3B8h, live copy */
    uint64_t savic_control;     /* VMSA 320h, live copy */
    bool savic_page_fault;      /* a doorbell could not use the backing page */
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
    X86SevTlbKey guest_tlb;     /* at the last automatic exit */
    uint32_t tlb_asid;          /* whose private translations there may be */

    /* Length of the instruction that cpu_restore_state() went back to. */
    uint8_t insn_len;
    uint8_t known_insn_len;     /* the same, where there was no need to */
} X86SevState;

#endif
