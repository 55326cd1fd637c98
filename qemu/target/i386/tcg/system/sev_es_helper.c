/*
 * SEV-ES and SNP world switch, #VC and VMGEXIT (APM vol. 2, 15.35)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/exec-all.h"
#include "exec/address-spaces.h"
#include "exec/cputlb.h"
#include "exec/helper-proto.h"
#include "fpu/softfloat-types.h"
#include "tcg/helper-tcg.h"
#include "qemu/host-utils.h"
#include "snp.h"
#include "snp-disturb.h"
#include "x86-savic-regs.h"
#include "target/i386/trace.h"

/*
 * The save area of SEV-ES and SNP guests (table B-4), and with the same
 * layout the host save area at VM_HSAVE_PA + 400h.
 *
 * Swap types, table B-3:
 *   A  VMRUN saves the host's value, an automatic exit loads it again
 *   B  an automatic exit loads the host's value, which software has stored
 *   C  an automatic exit resets the host's register
 *   -  the guest's only, or control information
 * For every type VMRUN loads the guest's value and an automatic exit saves it.
 */
typedef enum VmsaSwap { SWAP_A, SWAP_B, SWAP_C, SWAP_NONE } VmsaSwap;

typedef enum VmsaKind {
    VMSA_SEG,           /* ES ... GS; where is an index of env->segs[] */
    VMSA_SYSSEG,        /* LDTR and TR, all of the descriptor */
    VMSA_TABLE,         /* GDTR and IDTR, base and limit */
    VMSA_QWORD,
    VMSA_DWORD,
    VMSA_CONTROL,       /* more than one place in env: see load_controls() */
    VMSA_FPU,           /* x87, SSE and AVX as one block */
} VmsaKind;

typedef enum VmsaOnlyIf {
    ALWAYS,
    IF_DEBUG_VIRT,      /* SEV_FEATURES DebugVirtualization */
    IF_TSC_AUX_VIRT,    /* Fn8000_001F EAX[9] */
    IF_PKU,
} VmsaOnlyIf;

typedef struct VmsaField {
    uint16_t offset;
    VmsaSwap swap;
    VmsaKind kind;
    uint32_t where;     /* index, or offset into CPUX86State */
    VmsaOnlyIf only_if;
} VmsaField;

#define SEG(off, swap, reg)     { off, swap, VMSA_SEG, reg }
#define ENV(off, swap, kind, field, ...) \
    { off, swap, kind, offsetof(CPUX86State, field), ##__VA_ARGS__ }
#define REG(off, reg)           ENV(off, SWAP_B, VMSA_QWORD, regs[reg])
#define CTL(off, swap)          { off, swap, VMSA_CONTROL, 0 }

#define VMSA_CPL                0x0cb
#define VMSA_EFER               0x0d0
#define VMSA_CR4                0x148
#define VMSA_CR3                0x150
#define VMSA_CR0                0x158
#define VMSA_DR7                0x160
#define VMSA_DR6                0x168
#define VMSA_RFLAGS             0x170
#define VMSA_G_PAT              0x268
#define VMSA_DBGCTL             0x270
#define VMSA_PKRU               0x2e8
#define VMSA_GUEST_TSC_SCALE    0x2f0
#define VMSA_GUEST_TSC_OFFSET   0x2f8
#define VMSA_GUEST_EXITINFO1    0x390
#define VMSA_GUEST_EXITINFO2    0x398
#define VMSA_GUEST_EXITINTINFO  0x3a0
#define VMSA_GUEST_NRIP         0x3a8
#define VMSA_GUEST_EXITCODE     0x3c0
#define VMSA_TLB_ID             0x3d0
#define VMSA_PCPU_ID            0x3d8
#define VMSA_EVENTINJ           0x3e0
#define VMSA_XCR0               0x3e8
#define VMSA_X87_DP             0x400

/* What the processor swaps ends with YMM_HI. */
#define VMSA_STATE_SIZE         0x670

#define VMSA_VINTR_INT_SHADOW   (1ULL << 10)

static const VmsaField vmsa_fields[] = {
    SEG(0x000, SWAP_A, R_ES),
    SEG(0x010, SWAP_A, R_CS),
    SEG(0x020, SWAP_A, R_SS),
    SEG(0x030, SWAP_A, R_DS),
    SEG(0x040, SWAP_B, R_FS),
    SEG(0x050, SWAP_B, R_GS),
    ENV(0x060, SWAP_A, VMSA_TABLE, gdt),
    ENV(0x070, SWAP_B, VMSA_SYSSEG, ldt),
    ENV(0x080, SWAP_A, VMSA_TABLE, idt),
    ENV(0x090, SWAP_B, VMSA_SYSSEG, tr),
    CTL(VMSA_CPL, SWAP_A),
    CTL(VMSA_EFER, SWAP_A),
    ENV(0x140, SWAP_B, VMSA_QWORD, xss),
    CTL(VMSA_CR4, SWAP_A),
    CTL(VMSA_CR3, SWAP_A),
    CTL(VMSA_CR0, SWAP_A),
    CTL(VMSA_DR7, SWAP_C),
    CTL(VMSA_DR6, SWAP_C),
    CTL(VMSA_RFLAGS, SWAP_A),
    ENV(0x178, SWAP_A, VMSA_QWORD, eip),
    ENV(0x180, SWAP_B, VMSA_QWORD, dr[0], IF_DEBUG_VIRT),
    ENV(0x188, SWAP_B, VMSA_QWORD, dr[1], IF_DEBUG_VIRT),
    ENV(0x190, SWAP_B, VMSA_QWORD, dr[2], IF_DEBUG_VIRT),
    ENV(0x198, SWAP_B, VMSA_QWORD, dr[3], IF_DEBUG_VIRT),
    ENV(0x1d8, SWAP_A, VMSA_QWORD, regs[R_ESP]),
    ENV(0x1f8, SWAP_A, VMSA_QWORD, regs[R_EAX]),
    ENV(0x200, SWAP_B, VMSA_QWORD, star),
    ENV(0x208, SWAP_B, VMSA_QWORD, lstar),
    ENV(0x210, SWAP_B, VMSA_QWORD, cstar),
    ENV(0x218, SWAP_B, VMSA_QWORD, fmask),
    ENV(0x220, SWAP_B, VMSA_QWORD, kernelgsbase),
    ENV(0x228, SWAP_B, VMSA_DWORD, sysenter_cs),
    ENV(0x230, SWAP_B, VMSA_QWORD, sysenter_esp),
    ENV(0x238, SWAP_B, VMSA_QWORD, sysenter_eip),
    ENV(0x240, SWAP_C, VMSA_QWORD, cr[2]),
    CTL(VMSA_G_PAT, SWAP_NONE),
    CTL(VMSA_DBGCTL, SWAP_A),
    ENV(0x278, SWAP_A, VMSA_QWORD, sev.lbr.br_from),
    ENV(0x280, SWAP_A, VMSA_QWORD, sev.lbr.br_to),
    ENV(0x288, SWAP_A, VMSA_QWORD, sev.lbr.int_from),
    ENV(0x290, SWAP_A, VMSA_QWORD, sev.lbr.int_to),
    ENV(VMSA_PKRU, SWAP_B, VMSA_DWORD, pkru, IF_PKU),
    ENV(0x2ec, SWAP_B, VMSA_DWORD, tsc_aux, IF_TSC_AUX_VIRT),
    REG(0x308, R_ECX),
    REG(0x310, R_EDX),
    REG(0x318, R_EBX),
    REG(0x328, R_EBP),
    REG(0x330, R_ESI),
    REG(0x338, R_EDI),
    REG(0x340, 8),
    REG(0x348, 9),
    REG(0x350, 10),
    REG(0x358, 11),
    REG(0x360, 12),
    REG(0x368, 13),
    REG(0x370, 14),
    REG(0x378, 15),
    CTL(VMSA_XCR0, SWAP_B),
    { VMSA_X87_DP, SWAP_C, VMSA_FPU, 0 },
};

/* TSC_RATIO is 8.32 fixed point. */
#define TSC_RATIO_RESERVED      MAKE_64BIT_MASK(40, 24)

/*
 * SEV_FEATURES that VMRUN takes, with their bits of Fn8000_001F EAX; any other is
 * VMEXIT_INVALID.
 */
static const struct {
    uint64_t feature;
    uint32_t cpuid;
} sev_known_features[] = {
    { SEV_FEATURE_SNP_ACTIVE, SEV_EAX_SNP },
    { SEV_FEATURE_REFLECT_VC, SEV_EAX_SNP },
    { SEV_FEATURE_ALTERNATE_INJ, SEV_EAX_ALTERNATE_INJ },
    { SEV_FEATURE_DEBUG_VIRT, SEV_EAX_DEBUG_VIRT },
    { SEV_FEATURE_PREVENT_HOST_IBS, SEV_EAX_PREVENT_HOST_IBS },
    { SEV_FEATURE_BTB_ISOLATION, SEV_EAX_SNP },
    { SEV_FEATURE_SECURE_TSC, SEV_EAX_SECURE_TSC },
    { SEV_FEATURE_VMGEXIT_PARAM, SEV_EAX_VMGEXIT_PARAM },
    { SEV_FEATURE_SECURE_AVIC, SEV_EAX_SECURE_AVIC },
    { SEV_FEATURE_IBPB_ON_ENTRY, SEV_EAX_IBPB_ON_ENTRY },
};

static uint64_t known_features(CPUX86State *env)
{
    uint32_t eax = snp_host_sev_eax(env_archcpu(env));
    uint64_t known = 0;

    for (int i = 0; i < ARRAY_SIZE(sev_known_features); i++) {
        if (eax & sev_known_features[i].cpuid) {
            known |= sev_known_features[i].feature;
        }
    }
    return known;
}

static uint64_t ldq(CPUX86State *env, hwaddr addr)
{
    return x86_ldq_phys(env_cpu(env), addr);
}

static void stq(CPUX86State *env, hwaddr addr, uint64_t val)
{
    x86_stq_phys(env_cpu(env), addr, val);
}

#define VMCB(env, field)        ((env)->vm_vmcb + offsetof(struct vmcb, field))

static void read_area(CPUX86State *env, hwaddr addr, uint8_t *area)
{
    address_space_read(env_cpu(env)->as, addr, MEMTXATTRS_UNSPECIFIED, area,
                       VMSA_STATE_SIZE);
}

static void write_area(CPUX86State *env, hwaddr addr, const uint8_t *area)
{
    address_space_write(env_cpu(env)->as, addr, MEMTXATTRS_UNSPECIFIED, area,
                        VMSA_STATE_SIZE);
}

/* ---- Loading and storing one save area -------------------------------- */

static bool field_in_use(CPUX86State *env, const VmsaField *f)
{
    uint32_t eax, ebx, ecx, edx;

    switch (f->only_if) {
    case ALWAYS:
        return true;
    case IF_DEBUG_VIRT:
        return env->sev.sev_features & SEV_FEATURE_DEBUG_VIRT;
    case IF_TSC_AUX_VIRT:
        cpu_x86_cpuid(env, 0x8000001f, 0, &eax, &ebx, &ecx, &edx);
        return eax & (1 << 9);
    case IF_PKU:
        return env->features[FEAT_7_0_ECX] & CPUID_7_0_ECX_PKU;
    }
    return true;
}

static void load_segment(CPUX86State *env, const uint8_t *p,
                         SegmentCache *sc)
{
    uint16_t attrib = lduw_le_p(p + offsetof(struct vmcb_seg, attrib));
    unsigned shift = 64 - cpu_x86_virtual_addr_width(env);

    sc->selector = lduw_le_p(p + offsetof(struct vmcb_seg, selector));
    sc->limit = ldl_le_p(p + offsetof(struct vmcb_seg, limit));
    sc->flags = (attrib & 0xff) << 8 | (attrib & 0xf00) << 12;
    /* VMRUN makes all bases canonical (15.5.1). */
    sc->base = (int64_t)(ldq_le_p(p + offsetof(struct vmcb_seg, base))
                         << shift) >> shift;
}

static void store_segment(uint8_t *p, const SegmentCache *sc)
{
    stw_le_p(p + offsetof(struct vmcb_seg, selector), sc->selector);
    stw_le_p(p + offsetof(struct vmcb_seg, attrib),
             (sc->flags >> 8 & 0xff) | (sc->flags >> 12 & 0xf00));
    stl_le_p(p + offsetof(struct vmcb_seg, limit), sc->limit);
    stq_le_p(p + offsetof(struct vmcb_seg, base), sc->base);
}

/*
 * x87, SSE and AVX state, from offset 400h: the x87 registers are eight 64-bit
 * significands in stack order, then their eight exponent words; the tag word
 * is FXSAVE's.
 */
static void load_fpu(CPUX86State *env, const uint8_t *area)
{
    const uint8_t *fpu = area + VMSA_X87_DP;
    uint16_t ftw, fsw;
    int i;

    env->fpdp = ldq_le_p(fpu);
    cpu_set_mxcsr(env, ldl_le_p(fpu + 0x08) & 0xffff);
    ftw = lduw_le_p(fpu + 0x0c);
    fsw = lduw_le_p(fpu + 0x0e);
    env->fpstt = fsw >> 11 & 7;
    env->fpus = fsw & ~0x3800;
    cpu_set_fpuc(env, lduw_le_p(fpu + 0x10));
    env->fpop = lduw_le_p(fpu + 0x12);
    env->fpds = lduw_le_p(fpu + 0x14);
    env->fpcs = lduw_le_p(fpu + 0x16);
    env->fpip = ldq_le_p(fpu + 0x18);

    for (i = 0; i < 8; i++) {
        FPReg *st = &env->fpregs[(env->fpstt + i) & 7];

        env->fptags[i] = !(ftw >> i & 1);
        st->d.low = ldq_le_p(fpu + 0x20 + 8 * i);
        st->d.high = lduw_le_p(fpu + 0x60 + 2 * i);
    }
    for (i = 0; i < 16; i++) {
        ZMMReg *reg = &env->xmm_regs[i];

        reg->ZMM_Q(0) = ldq_le_p(area + 0x470 + 16 * i);
        reg->ZMM_Q(1) = ldq_le_p(area + 0x478 + 16 * i);
        reg->ZMM_Q(2) = ldq_le_p(area + 0x570 + 16 * i);
        reg->ZMM_Q(3) = ldq_le_p(area + 0x578 + 16 * i);
    }
}

static void store_fpu(CPUX86State *env, uint8_t *area)
{
    uint8_t *fpu = area + VMSA_X87_DP;
    uint16_t ftw = 0;
    int i;

    for (i = 0; i < 8; i++) {
        FPReg *st = &env->fpregs[(env->fpstt + i) & 7];

        ftw |= !env->fptags[i] << i;
        stq_le_p(fpu + 0x20 + 8 * i, st->d.low);
        stw_le_p(fpu + 0x60 + 2 * i, st->d.high);
    }
    for (i = 0; i < 16; i++) {
        ZMMReg *reg = &env->xmm_regs[i];

        stq_le_p(area + 0x470 + 16 * i, reg->ZMM_Q(0));
        stq_le_p(area + 0x478 + 16 * i, reg->ZMM_Q(1));
        stq_le_p(area + 0x570 + 16 * i, reg->ZMM_Q(2));
        stq_le_p(area + 0x578 + 16 * i, reg->ZMM_Q(3));
    }

    update_mxcsr_from_sse_status(env);
    stq_le_p(fpu, env->fpdp);
    stl_le_p(fpu + 0x08, env->mxcsr);
    stw_le_p(fpu + 0x0c, ftw);
    stw_le_p(fpu + 0x0e,
                 (env->fpus & ~0x3800) | (env->fpstt & 7) << 11);
    stw_le_p(fpu + 0x10, env->fpuc);
    stw_le_p(fpu + 0x12, env->fpop);
    stw_le_p(fpu + 0x14, env->fpds);
    stw_le_p(fpu + 0x16, env->fpcs);
    stq_le_p(fpu + 0x18, env->fpip);
}

/* The values of type C after an automatic exit. */
static void reset_type_c(CPUX86State *env)
{
    int i;

    env->cr[2] = 0;
    env->dr[6] = DR6_FIXED_1;
    cpu_x86_update_dr7(env, DR7_FIXED_1);

    env->fpstt = 0;
    env->fpus = 0;
    env->fpop = env->fpds = env->fpcs = 0;
    env->fpip = env->fpdp = 0;
    cpu_set_fpuc(env, 0x40);
    memset(env->fptags, 0, sizeof(env->fptags));
    memset(env->fpregs, 0, sizeof(env->fpregs));
    cpu_set_mxcsr(env, 0x1f80);
    for (i = 0; i < 16; i++) {
        memset(&env->xmm_regs[i], 0, sizeof(env->xmm_regs[i]));
    }
}

/*
 * Paging and mode registers, which other fields depend on: EFER first, as the
 * changes of CR0 and the segments look at LME and LMA.
 */
static void load_controls(CPUX86State *env, const uint8_t *area, bool guest)
{
    uint64_t efer = ldq_le_p(area + VMSA_EFER);
    uint64_t cr0 = ldq_le_p(area + VMSA_CR0);
    int rflags_mask = ~(CC_O | CC_S | CC_Z | CC_A | CC_P | CC_C | DF_MASK);

    if (!guest) {
        cr0 |= CR0_PE_MASK;
        rflags_mask &= ~(RF_MASK | VM_MASK);
    } else {
        /*
         * The guest may write its own VMSA: LMA follows from the rest, and
         * there is no virtual-8086 mode in long mode.
         */
        efer &= ~MSR_EFER_LMA;
        if ((efer & MSR_EFER_LME) && (cr0 & CR0_PG_MASK)) {
            efer |= MSR_EFER_LMA;
            rflags_mask &= ~VM_MASK;
        }
    }

    /*
     * Already there, the new values do not look like a change that drops
     * translations: those of host and guest are apart, see svm_tlb_enter().
     */
    env->cr[4] = ldq_le_p(area + VMSA_CR4);
    env->cr[0] = cr0;
    cpu_load_efer(env, efer);
    cpu_x86_update_cr4(env, env->cr[4]);
    cpu_x86_update_cr0(env, cr0);
    env->cr[3] = ldq_le_p(area + VMSA_CR3);
    cpu_load_efer(env, efer);

    env->eflags = 0;
    cpu_load_eflags(env, ldq_le_p(area + VMSA_RFLAGS), rflags_mask);

    x86_lbr_set_debugctl(env, ldq_le_p(area + VMSA_DBGCTL));
    env->xcr0 = ldq_le_p(area + VMSA_XCR0);
    cpu_sync_bndcs_hflags(env);
    cpu_sync_avx_hflag(env);
}

static void load_area(CPUX86State *env, const uint8_t *area, bool guest)
{
    size_t i;

    /* Breakpoints are matched by address: take them out before DR0-3 change. */
    cpu_x86_update_dr7(env, DR7_FIXED_1);
    load_controls(env, area, guest);

    for (i = 0; i < ARRAY_SIZE(vmsa_fields); i++) {
        const VmsaField *f = &vmsa_fields[i];
        const uint8_t *p = area + f->offset;
        void *where = (char *)env + f->where;
        SegmentCache sc;

        if (!guest && (f->swap == SWAP_C || f->swap == SWAP_NONE)) {
            continue;
        }
        if (!field_in_use(env, f)) {
            continue;
        }
        switch (f->kind) {
        case VMSA_SEG:
            load_segment(env, p, &sc);
            cpu_x86_load_seg_cache(env, f->where, sc.selector, sc.base,
                                   sc.limit, sc.flags);
            break;
        case VMSA_SYSSEG:
        case VMSA_TABLE:
            load_segment(env, p, where);
            break;
        case VMSA_QWORD:
            *(uint64_t *)where = ldq_le_p(p);
            break;
        case VMSA_DWORD:
            *(uint32_t *)where = ldl_le_p(p);
            break;
        case VMSA_FPU:
            load_fpu(env, area);
            break;
        case VMSA_CONTROL:
            break;
        }
    }

    if (guest) {
        unsigned cpl = ldub_p(area + VMSA_CPL) & 3;

        if (!(env->cr[0] & CR0_PE_MASK)) {
            cpl = 0;
        } else if (env->eflags & VM_MASK) {
            cpl = 3;
        }
        env->hflags = (env->hflags & ~HF_CPL_MASK) | cpl;
        env->sev.host_pat = env->pat;
        env->pat = ldq_le_p(area + VMSA_G_PAT);
        env->dr[6] = ldq_le_p(area + VMSA_DR6);
        cpu_x86_update_dr7(env, ldq_le_p(area + VMSA_DR7));
    } else {
        env->pat = env->sev.host_pat;
        reset_type_c(env);
    }
}

static uint64_t control_value(CPUX86State *env, uint16_t offset)
{
    switch (offset) {
    case VMSA_CPL:
        return env->hflags & HF_CPL_MASK;
    case VMSA_EFER:
        return env->efer;
    case VMSA_CR4:
        return env->cr[4];
    case VMSA_CR3:
        return env->cr[3];
    case VMSA_CR0:
        return env->cr[0];
    case VMSA_DR7:
        return env->dr[7];
    case VMSA_DR6:
        return env->dr[6];
    case VMSA_RFLAGS:
        return cpu_compute_eflags(env);
    case VMSA_G_PAT:
        return env->pat;
    case VMSA_DBGCTL:
        return env->sev.lbr.debugctl;
    case VMSA_XCR0:
        return env->xcr0;
    }
    return 0;
}

static void store_area(CPUX86State *env, uint8_t *area)
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(vmsa_fields); i++) {
        const VmsaField *f = &vmsa_fields[i];
        uint8_t *p = area + f->offset;
        void *where = (char *)env + f->where;

        if (!field_in_use(env, f)) {
            continue;
        }
        switch (f->kind) {
        case VMSA_SEG:
            store_segment(p, &env->segs[f->where]);
            break;
        case VMSA_SYSSEG:
            store_segment(p, where);
            break;
        case VMSA_TABLE:
            stq_le_p(p + offsetof(struct vmcb_seg, base),
                ((SegmentCache *)where)->base);
            stl_le_p(p + offsetof(struct vmcb_seg, limit),
                         ((SegmentCache *)where)->limit);
            break;
        case VMSA_QWORD:
            stq_le_p(p, *(uint64_t *)where);
            break;
        case VMSA_DWORD:
            stl_le_p(p, *(uint32_t *)where);
            break;
        case VMSA_CONTROL:
            if (f->offset == VMSA_CPL) {
                stb_p(p, control_value(env, f->offset));
            } else {
                stq_le_p(p, control_value(env, f->offset));
            }
            break;
        case VMSA_FPU:
            store_fpu(env, area);
            break;
        }
    }
}

/* ---- VMRUN ------------------------------------------------------------- */

/*
 * Checks of the control area for every SEV guest (15.34.3, 15.35.2, 15.35.8);
 * sets what sev_guest() and sev_es_guest() look at.
 */
bool sev_vmrun_control_ok(CPUX86State *env, uint64_t nested_ctl, uint32_t asid)
{
    uint32_t eax, ebx, max_asid, min_sev_asid;

    env->sev.nested_ctl = nested_ctl;
    env->sev.asid = asid;
    env->sev.sev_features = 0;
    env->sev.vmsa = 0;
    env->sev.vmsa_loaded = false;
    env->sev.vmpl = 0;
    env->sev.sev_status = 0;
    env->sev.ghcb = 0;
    if (snp_enabled(env)) {
        env->sev.vmcb_in_use = true;
        snp_page_set_in_use(env, env->vm_vmcb, true);
    }

    if (!(env->sev.syscfg & SYSCFG_MEM_ENCRYPTION_MOD_EN)) {
        /* The SEV bits are ignored, not an error. */
        env->sev.nested_ctl &= ~(SVM_NESTED_CTL_SEV | SVM_NESTED_CTL_SEV_ES);
    }
    nested_ctl = env->sev.nested_ctl;

    if (!(nested_ctl & SVM_NESTED_CTL_SEV)) {
        return !(nested_ctl & SVM_NESTED_CTL_SEV_ES);
    }

    cpu_x86_cpuid(env, 0x8000001f, 0, &eax, &ebx, &max_asid, &min_sev_asid);
    if (!(nested_ctl & SVM_NESTED_CTL_NP) ||
        !(env->sev.hwcr & HWCR_SMM_LOCK) ||
        asid > max_asid ||
        ((eax & CPUID_8000_001F_EAX_64BIT_HOST) &&
         !(env->efer & MSR_EFER_LMA))) {
        return false;
    }

    env->sev.sev_status = SEV_STATUS_SEV;
    if (!(nested_ctl & SVM_NESTED_CTL_SEV_ES)) {
        return asid >= min_sev_asid;
    }
    if (!(ldq(env, VMCB(env, control.lbr_ctl)) & SVM_LBR_CTL_ENABLE)) {
        return false;
    }
    env->sev.sev_status |= SEV_STATUS_SEV_ES;
    return true;
}

/* SEV_FEATURES, as far as this CPU takes the VMSA to have them */
static uint64_t sev_features(CPUX86State *env, const uint8_t *vmsa)
{
    uint64_t features = ldq_le_p(vmsa + VMSA_SEV_FEATURES);

    if (!(ldq(env, VMCB(env, control.allowed_sev_features)) &
          ALLOWED_SEV_FEATURES_ENABLE) && savic_is_off_if_not_allowed(env)) {
        features &= ~SEV_FEATURE_SECURE_AVIC;
    }
    return features;
}

/* ALLOWED_SEV_FEATURES and the features' own rules (15.36.20, 15.36.21). */
static bool sev_features_ok(CPUX86State *env, uint64_t features)
{
    uint64_t allowed = ldq(env, VMCB(env, control.allowed_sev_features));
    const uint64_t explicit = SEV_FEATURE_SECURE_AVIC;

    if (features & ~known_features(env)) {
        return false;
    }
    if (allowed & ALLOWED_SEV_FEATURES_ENABLE) {
        if (features & ~allowed) {
            return false;
        }
    } else if (features & explicit) {
        return false;
    }
    if ((features & SEV_FEATURE_SNP_ACTIVE) &&
        !(env->sev.syscfg & SYSCFG_SNP_EN)) {
        return false;
    }
    /* All other features belong to SNP, but for DebugVirtualization. */
    if (!(features & SEV_FEATURE_SNP_ACTIVE) &&
        (features & ~SEV_FEATURE_DEBUG_VIRT)) {
        return false;
    }
    if ((features & SEV_FEATURE_SECURE_AVIC) &&
        (features & (SEV_FEATURE_RESTRICTED_INJ | SEV_FEATURE_ALTERNATE_INJ))) {
        return false;
    }
    return true;
}

/* Consistency of the guest state: as for any guest (15.5.1). */
static bool guest_state_ok(CPUX86State *env, const uint8_t *vmsa)
{
    uint64_t efer = ldq_le_p(vmsa + VMSA_EFER);
    uint64_t cr0 = ldq_le_p(vmsa + VMSA_CR0);
    uint64_t cr3 = ldq_le_p(vmsa + VMSA_CR3);
    uint64_t cr4 = ldq_le_p(vmsa + VMSA_CR4);
    uint64_t xcr0 = ldq_le_p(vmsa + VMSA_XCR0);
    SegmentCache cs;
    uint32_t lo, hi, ebx, ecx;

    if (!(efer & MSR_EFER_SVME) || (efer & MSR_EFER_RESERVED)) {
        return false;
    }
    if ((cr0 & SVM_CR0_RESERVED_MASK) ||
        ((cr0 & CR0_NW_MASK) && !(cr0 & CR0_CD_MASK))) {
        return false;
    }
    if ((efer & MSR_EFER_LME) && (cr0 & CR0_PG_MASK) &&
        (cr3 & x86_cr3_reserved_bits(env))) {
        return false;
    }
    if (cr4 & cr4_reserved_bits(env)) {
        return false;
    }
    if ((ldq_le_p(vmsa + VMSA_DR7) | ldq_le_p(vmsa + VMSA_DR6)) >> 32) {
        return false;
    }
    if ((efer & MSR_EFER_LME) && (cr0 & CR0_PG_MASK)) {
        if (!(cr4 & CR4_PAE_MASK) || !(cr0 & CR0_PE_MASK)) {
            return false;
        }
        load_segment(env, vmsa + 0x010, &cs);
        if ((cs.flags & DESC_L_MASK) && (cs.flags & DESC_B_MASK)) {
            return false;
        }
    }

    cpu_x86_cpuid(env, 0xd, 0, &lo, &ebx, &ecx, &hi);
    if (!(xcr0 & XSTATE_FP_MASK) || (xcr0 & ~((uint64_t)hi << 32 | lo)) ||
        (xcr0 & (XSTATE_SSE_MASK | XSTATE_YMM_MASK)) == XSTATE_YMM_MASK) {
        return false;
    }
    return true;
}

static G_NORETURN void vmrun_failed(CPUX86State *env, uint64_t exit_code,
                                    uintptr_t ra)
{
    trace_sev_es_vmrun_failed(env_cpu(env)->cpu_index, env->sev.asid,
                              env->sev.vmsa, exit_code);
    if (env->sev.vmsa) {
        x86_savic_vmrun_failed(env);
    }
    cpu_vmexit(env, exit_code, 0, ra);
}

/* Virtual interrupts and event injection come from the VMSA (15.36.16). */
static bool sev_es_own_interrupts(CPUX86State *env)
{
    return env->sev.sev_features &
           (SEV_FEATURE_ALTERNATE_INJ | SEV_FEATURE_SECURE_AVIC);
}

/* Has the VMSA been on another CPU, or is it to be flushed? (15.36.15) */
static bool vmsa_moved(CPUX86State *env, const uint8_t *area)
{
    uint64_t cpu = env_cpu(env)->cpu_index + 1;
    bool moved;

    if (!(env->sev.sev_features & SEV_FEATURE_SNP_ACTIVE)) {
        return false;
    }
    moved = ldq_le_p(area + VMSA_PCPU_ID) != cpu ||
            ldq_le_p(area + VMSA_TLB_ID) != 1;
    stq(env, env->sev.vmsa + VMSA_PCPU_ID, cpu);
    stq(env, env->sev.vmsa + VMSA_TLB_ID, 1);
    return moved;
}

void sev_es_vmrun(CPUX86State *env, uintptr_t ra)
{
    CPUState *cs = env_cpu(env);
    hwaddr vmsa = ldq(env, VMCB(env, control.vmsa_pa));
    uint8_t area[VMSA_STATE_SIZE];
    uint64_t features, vintr;
    unsigned vmpl;

    if ((vmsa & ~TARGET_PAGE_MASK) ||
        (vmsa & ~MAKE_64BIT_MASK(0, env_archcpu(env)->phys_bits))) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }
    env->sev.vmsa = vmsa;
    if (snp_enabled(env)) {
        env->sev.vmsa_in_use = true;
        snp_page_set_in_use(env, vmsa, true);
    }

    /*
     * One look at what the guest's other CPUs may be writing to: what has
     * been checked is what will be loaded.
     */
    read_area(env, vmsa, area);

    /*
     * Whether the VMSA is an SNP guest's is only known from its content; one
     * that SNP cannot vouch for must be the hypervisor's (15.36.12).
     */
    features = sev_features(env, area);
    if (features & SEV_FEATURE_SNP_ACTIVE
        ? !snp_vmrun_vmsa_ok(env, vmsa, env->sev.asid)
        : !snp_hypervisor_owned(env, vmsa)) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }
    if (!sev_features_ok(env, features)) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }
    vmpl = ldub_p(area + VMSA_VMPL);
    if (vmpl >= SNP_NR_VMPLS ||
        (vmpl && !(env->sev.syscfg & SYSCFG_VMPL_EN))) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }

    vintr = ldq_le_p(area + VMSA_VINTR_CTRL);
    if (vintr & VMSA_VINTR_CTRL_BUSY) {
        vmrun_failed(env, SVM_EXIT_BUSY, ra);
    }
    if (!guest_state_ok(env, area)) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }

    /*
     * helper_vmrun() has saved what is of type A, as for every guest: the save
     * area of the VMCB has the VMSA's offsets there.
     */
    env->sev.sev_features = features;
    env->sev.sev_status |= features << SEV_STATUS_FEATURES_SHIFT;
    env->sev.vintr_ctrl = vintr;
    env->sev.vmpl = vmpl;
    env->sev.ghcb = ldq(env, VMCB(env, control.ghcb_gpa));
    if (features & SEV_FEATURE_SECURE_TSC) {
        env->sev.tsc_scale = ldq_le_p(area + VMSA_GUEST_TSC_SCALE);
        env->sev.tsc_offset = ldq_le_p(area + VMSA_GUEST_TSC_OFFSET);
    }
    if (x86_savic_mode(env) && !x86_savic_vmrun(env)) {
        vmrun_failed(env, SVM_EXIT_ERR, ra);
    }

    /* V_INTR_MASKING makes the host's RFLAGS.IF count for its interrupts. */
    env->int_ctl = x86_ldl_phys(cs, VMCB(env, control.int_ctl));
    env->hflags2 &= ~(HF2_HIF_MASK | HF2_VINTR_MASK);
    if (env->int_ctl & V_INTR_MASKING_MASK) {
        env->hflags2 |= HF2_VINTR_MASK;
        if (env->eflags & IF_MASK) {
            env->hflags2 |= HF2_HIF_MASK;
        }
    }

    svm_tlb_save_host(env);
    load_area(env, area, true);
    env->sev.vmsa_loaded = true;
    svm_tlb_enter(env, vmsa_moved(env, area));

    /*
     * With alternate injection and Secure AVIC, the virtual interrupt state
     * and the interrupt shadow are the guest's (15.36.16).
     */
    if (sev_es_own_interrupts(env)) {
        uint64_t event = ldq_le_p(area + VMSA_EVENTINJ);

        /* Always intercepted in these modes (15.36.16; 15.36.21, #VMEXIT) */
        env->intercept |= 1ULL << (SVM_EXIT_INTR - SVM_EXIT_INTR) |
                          1ULL << (SVM_EXIT_NMI - SVM_EXIT_INTR) |
                          1ULL << (SVM_EXIT_INIT - SVM_EXIT_INTR);
        env->intercept_exceptions |= 1u << EXCP12_MCHK;

        env->int_ctl &= SVM_INT_CTL_HOST_MASK;
        env->int_ctl |= vintr & ~(uint64_t)SVM_INT_CTL_HOST_MASK &
                        ~(uint64_t)VMSA_VINTR_INT_SHADOW;
        env->hflags &= ~HF_INHIBIT_IRQ_MASK;
        if (vintr & VMSA_VINTR_INT_SHADOW) {
            env->hflags |= HF_INHIBIT_IRQ_MASK;
        }
        /* The VMCB's is ignored, and it is the event under delivery now. */
        stq(env, VMCB(env, control.event_inj), event);
        stq(env, VMCB(env, control.next_rip),
            ldq_le_p(area + VMSA_GUEST_NRIP));
        stq(env, vmsa + VMSA_EVENTINJ, 0);
    }

    trace_sev_es_vmrun(cs->cpu_index, env->sev.asid, vmsa, env->eip,
                       features);
}

static bool is_software_event(uint32_t event)
{
    uint8_t vector = event & SVM_EVTINJ_VEC_MASK;

    switch (event & (SVM_EVTINJ_TYPE_MASK | SVM_EVTINJ_VALID)) {
    case SVM_EVTINJ_VALID | SVM_EVTINJ_TYPE_SOFT:
        return true;
    case SVM_EVTINJ_VALID | SVM_EVTINJ_TYPE_EXEPT:
        return vector == EXCP03_INT3 || vector == EXCP04_INTO;
    }
    return false;
}

bool sev_es_event_inj_ok(CPUX86State *env, uint32_t event_inj)
{
    return !sev_es_guest(env) || sev_es_own_interrupts(env) ||
           !is_software_event(event_inj);
}

/* ---- Automatic exit ---------------------------------------------------- */

void sev_es_vmexit(CPUX86State *env)
{
    CPUState *cs = env_cpu(env);
    hwaddr vmsa = env->sev.vmsa;
    uint64_t exit_code = ldq(env, VMCB(env, control.exit_code));
    uint64_t event;
    uint8_t area[VMSA_STATE_SIZE];
    uint32_t int_state = 0;

    if (env->hflags & HF_INHIBIT_IRQ_MASK) {
        int_state |= SVM_INTERRUPT_SHADOW_MASK;
    }
    if (cpu_compute_eflags(env) & IF_MASK) {
        int_state |= SVM_GUEST_INTERRUPT_MASK;
    }
    x86_stl_phys(cs, VMCB(env, control.int_state), int_state);
    stq(env, VMCB(env, control.ghcb_gpa), env->sev.ghcb);
    stq(env, VMCB(env, control.guest_sev_features),
        env->sev.sev_features);

    event = svm_interrupted_event(ldq(env, VMCB(env, control.event_inj)));
    /* What is not in the table stays as it is. */
    read_area(env, vmsa, area);
    store_area(env, area);
    write_area(env, vmsa, area);

    if (sev_es_own_interrupts(env)) {
        uint64_t vintr = env->sev.vintr_ctrl & ~0xffffULL;

        vintr |= env->int_ctl & 0xffff;
        vintr &= ~VMSA_VINTR_INT_SHADOW;
        if (env->hflags & HF_INHIBIT_IRQ_MASK) {
            vintr |= VMSA_VINTR_INT_SHADOW;
        }
        env->sev.vintr_ctrl = vintr;
        stq(env, vmsa + VMSA_VINTR_CTRL, vintr);

    } else {
        x86_stl_phys(cs, VMCB(env, control.int_ctl), env->int_ctl);
    }

    /* The VMSA has a copy of what the VMCB says (15.36.9). */
    if (exit_code != SVM_EXIT_VC) {
        stq(env, vmsa + VMSA_GUEST_EXITCODE, exit_code);
        stq(env, vmsa + VMSA_GUEST_EXITINFO1,
            ldq(env, VMCB(env, control.exit_info_1)));
        stq(env, vmsa + VMSA_GUEST_EXITINFO2,
            ldq(env, VMCB(env, control.exit_info_2)));
        stq(env, vmsa + VMSA_GUEST_NRIP, 0);
    }
    stq(env, vmsa + VMSA_GUEST_EXITINTINFO, event);

    if (x86_savic_mode(env)) {
        /*
         * An interrupted delivery goes on with the next VMRUN, but for
         * #VC, whose instruction raises it again (15.36.21, #VMEXIT).
         */
        stq(env, vmsa + VMSA_EVENTINJ,
            (event & SVM_EVTINJ_VEC_MASK) == EXCP1D_VC ? 0 : event);
        if (is_software_event(event)) {
            /* INT3, INTO and INT n return behind the instruction. */
            stq(env, vmsa + VMSA_GUEST_NRIP, env->exception_next_eip);
        }
        if (!savic_exit_int_info_in_vmcb(env)) {
            /* do_vmexit() makes EXITINTINFO of it. */
            stq(env, VMCB(env, control.event_inj), 0);
        }
        x86_savic_vmexit(env);
    }

    trace_sev_es_vmexit(cs->cpu_index, env->sev.asid, vmsa, env->eip,
                        exit_code, ldq(env, VMCB(env, control.exit_info_1)),
                        ldq(env, VMCB(env, control.exit_info_2)));

    /* Back to the host, as do_vmexit() does for other guests. */
    env->hflags &= ~(HF_INHIBIT_IRQ_MASK | HF_GUEST_MASK);
    env->hflags2 &= ~(HF2_HIF_MASK | HF2_VINTR_MASK);
    env->intercept = 0;
    env->intercept_exceptions = 0;
    cs->interrupt_request &= ~(CPU_INTERRUPT_VIRQ | CPU_INTERRUPT_SVM_EVENT);
    env->int_ctl = 0;
    env->tsc_offset = 0;
    svm_tlb_leave(env);
    read_area(env, env->vm_hsave + SEV_HOST_SAVE_AREA, area);
    load_area(env, area, false);
    svm_tlb_host_loaded(env);
}

void sev_clear_guest(CPUX86State *env)
{
    if (snp_disturbed(env)) {
        snp_disturb_switch(env);
    }
    env->sev.disturb_exit = false;
    if (env->sev.vmcb_in_use) {
        snp_page_set_in_use(env, env->vm_vmcb, false);
        env->sev.vmcb_in_use = false;
    }
    if (env->sev.vmsa_in_use) {
        snp_page_set_in_use(env, env->sev.vmsa, false);
        env->sev.vmsa_in_use = false;
    }
    env->sev.nested_ctl = 0;
    env->sev.sev_features = 0;
    env->sev.vmsa = 0;
    env->sev.vmsa_loaded = false;
    env->sev.vmpl = 0;
    env->sev.asid = 0;
    env->sev.intercept_ext = 0;
    env->sev.vintr_ctrl = 0;
    env->sev.savic_control = 0;
    env->sev.ghcb = 0;
}

/* ---- #VC --------------------------------------------------------------- */

typedef enum NaeClass {
    EXIT_NAE,           /* #VC in the guest */
    EXIT_AE,            /* automatic exit, as a fault */
    EXIT_AE_TRAP,       /* automatic exit, RIP behind the instruction */
} NaeClass;

/* Table 15-35: which events leave the guest by themselves. */
static NaeClass classify_exit(uint64_t exit_code, uint64_t exit_info_1)
{
    switch (exit_code) {
    case SVM_EXIT_EXCP_BASE + EXCP12_MCHK:
    case SVM_EXIT_VC:
    case SVM_EXIT_INTR ... SVM_EXIT_VINTR:
    case SVM_EXIT_SHUTDOWN:
    case SVM_EXIT_BUS_LOCK:
        return EXIT_AE;
    case SVM_EXIT_PAUSE:
    case SVM_EXIT_HLT:
    case SVM_EXIT_EFER_WRITE_TRAP:
    case SVM_EXIT_CR0_WRITE_TRAP ... SVM_EXIT_CR15_WRITE_TRAP:
    case SVM_EXIT_IDLE_HLT:
    case SVM_EXIT_VMGEXIT:
        return EXIT_AE_TRAP;
    case SVM_EXIT_NPF:
        /*
         * MMIO, as the host marks it, is for the guest to handle; but not if
         * it is where the Secure AVIC backing page ought to be.
         */
        return (exit_info_1 & PG_ERROR_RSVD_MASK) &&
               !(exit_info_1 & SVM_NPTEXIT_NOT_RESTARTABLE) ? EXIT_NAE
                                                            : EXIT_AE;
    default:
        return (int64_t)exit_code < 0 ? EXIT_AE : EXIT_NAE;
    }
}

/* Which of them make a VMSA BUSY when ReflectVC takes them out of the guest? */
static bool reflected_vc_sets_busy(CPUX86State *env, uint64_t error_code)
{
    return (env->sev.sev_features & SEV_FEATURE_ALTERNATE_INJ) ||
           error_code == SVM_EXIT_AVIC_INCOMPLETE_IPI ||
           error_code == SVM_EXIT_AVIC_NOACCEL ||
           error_code == SVM_EXIT_NOT_RESTARTABLE;
}

/* #VC with the guest's RIP in env; @next_rip: 0 where no instruction is the cause */
static G_NORETURN void raise_vc(CPUX86State *env, uint64_t error_code,
                                uint64_t exit_info_1, uint64_t exit_info_2,
                                uint64_t next_rip)
{
    hwaddr vmsa = env->sev.vmsa;

    trace_sev_es_vc(env_cpu(env)->cpu_index, env->eip, error_code,
                    exit_info_1, exit_info_2);

    stq(env, vmsa + VMSA_GUEST_EXITCODE, error_code);
    stq(env, vmsa + VMSA_GUEST_EXITINFO1, exit_info_1);
    stq(env, vmsa + VMSA_GUEST_EXITINFO2, exit_info_2);

    if (env->sev.sev_features & SEV_FEATURE_REFLECT_VC) {
        stq(env, vmsa + VMSA_GUEST_NRIP, next_rip);
        if (reflected_vc_sets_busy(env, error_code)) {
            env->sev.vintr_ctrl |= VMSA_VINTR_CTRL_BUSY;
            stq(env, vmsa + VMSA_VINTR_CTRL, env->sev.vintr_ctrl);
        }
        cpu_vmexit(env, SVM_EXIT_VC, 0, 0);
    }
    raise_exception_err(env, EXCP1D_VC, error_code);
}

/*
 * An intercepted event in a SEV-ES guest, at the instruction in env->eip of
 * @insn_len bytes. Returns only for an automatic exit.
 */
void sev_es_intercept(CPUX86State *env, uint64_t exit_code,
                      uint64_t exit_info_1, int insn_len)
{
    switch (classify_exit(exit_code, exit_info_1)) {
    case EXIT_NAE:
        raise_vc(env, exit_code, exit_info_1, 0,
                 svm_instruction_exit(exit_code) ? env->eip + insn_len : 0);
    case EXIT_AE_TRAP:
        env->eip += insn_len;
        if (!(env->hflags & HF_CS64_MASK)) {
            env->eip = (uint32_t)env->eip;
        }
        do_end_instruction(env);
        break;
    case EXIT_AE:
        break;
    }
    if (exit_code != SVM_EXIT_NPF) {
        stq(env, VMCB(env, control.exit_info_2), 0);
    }
}

G_NORETURN void sev_es_raise_vc(CPUX86State *env, uint64_t error_code,
                                uint64_t exit_info_1, uint64_t exit_info_2,
                                uintptr_t ra)
{
    uint64_t next_rip = 0;

    if (cpu_restore_state(env_cpu(env), ra) &&
        svm_instruction_exit(error_code)) {
        next_rip = env->eip + env->sev.insn_len;
    }
    raise_vc(env, error_code, exit_info_1, exit_info_2, next_rip);
}

G_NORETURN void sev_es_raise_vc_trap(CPUX86State *env, uint64_t error_code,
                                     uint64_t exit_info_1,
                                     uint64_t exit_info_2)
{
    raise_vc(env, error_code, exit_info_1, exit_info_2, env->eip);
}

/* ---- Instructions and MSRs --------------------------------------------- */

/* @ratio has 32 fractional bits. */
static uint64_t scale_tsc(uint64_t raw, uint64_t ratio)
{
    uint64_t lo, hi;

    mulu64(&lo, &hi, raw, ratio);
    return hi << 32 | lo >> 32;
}

void helper_vmgexit(CPUX86State *env)
{
    uintptr_t ra = GETPC();

    if (!sev_es_guest(env)) {
        /* VMMCALL with a prefix to everybody else (15.35.6). */
        cpu_svm_check_intercept_param(env, SVM_EXIT_VMMCALL, 0, ra);
        raise_exception_ra(env, EXCP06_ILLOP, ra);
    }
    if (env->sev.sev_features & SEV_FEATURE_VMGEXIT_PARAM) {
        stq(env, VMCB(env, control.vmgexit_rax), env->regs[R_EAX]);
        stq(env, VMCB(env, control.vmgexit_cpl), env->hflags & HF_CPL_MASK);
    }
    cpu_vmexit(env, SVM_EXIT_VMGEXIT, 0, ra);
}

bool sev_rdmsr(CPUX86State *env, uint32_t msr, uint64_t *val, uintptr_t ra)
{
    switch (msr) {
    case MSR_AMD64_SEV:
        /* Linux takes itself for a guest otherwise, after kexec on a host. */
        *val = env->hflags & HF_GUEST_MASK ? env->sev.sev_status : 0;
        return true;
    case MSR_AMD64_SEV_ES_GHCB:
        if (!sev_es_guest(env)) {
            cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 0, ra);
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        *val = env->sev.ghcb;
        return true;
    case MSR_AMD64_GUEST_TSC_FREQ:
        if (!(env->sev.sev_features & SEV_FEATURE_SECURE_TSC)) {
            cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 0, ra);
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        /* MHz of the guest's TSC; the scale is rounded down */
        *val = (scale_tsc(SNP_REFERENCE_TSC_KHZ, env->sev.tsc_scale) + 500) /
               1000;
        return true;
    case MSR_AMD64_TSC_RATIO:
        cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 0, ra);
        if (!(env->features[FEAT_SVM] & CPUID_SVM_TSCSCALE)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        *val = env->amd_tsc_scale_msr;
        return true;
    }
    return false;
}

bool sev_wrmsr(CPUX86State *env, uint32_t msr, uint64_t val, uintptr_t ra)
{
    switch (msr) {
    case MSR_AMD64_SEV:
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    case MSR_AMD64_SEV_ES_GHCB:
        if (!sev_es_guest(env)) {
            cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 1, ra);
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        env->sev.ghcb = val;
        return true;
    case MSR_AMD64_GUEST_TSC_FREQ:
        cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 1, ra);
        raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
    case MSR_AMD64_TSC_RATIO:
        cpu_svm_check_intercept_param(env, SVM_EXIT_MSR, 1, ra);
        if (!(env->features[FEAT_SVM] & CPUID_SVM_TSCSCALE) ||
            (val & TSC_RATIO_RESERVED)) {
            raise_exception_err_ra(env, EXCP0D_GPF, 0, ra);
        }
        env->amd_tsc_scale_msr = val;
        return true;
    }
    return false;
}

uint64_t snp_guest_tsc(CPUX86State *env, uint64_t raw)
{
    if (env->sev.sev_features & SEV_FEATURE_SECURE_TSC) {
        raw = muldiv64(raw, SNP_REFERENCE_TSC_KHZ, snp_host_tsc_khz(env));
        return scale_tsc(raw, env->sev.tsc_scale) + env->sev.tsc_offset;
    }
    /* The ratio is the host's MSR, and 1.0 where there is none (15.30.5). */
    if ((env->hflags & HF_GUEST_MASK) &&
        env->amd_tsc_scale_msr != MSR_AMD64_TSC_RATIO_DEFAULT) {
        raw = scale_tsc(raw, env->amd_tsc_scale_msr);
    }
    return raw + env->tsc_offset;
}
