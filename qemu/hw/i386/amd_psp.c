/*
 * AMD security processor: PCI function, mailbox and platform commands of the
 * SEV and SEV-SNP firmware. Guests are in amd_psp_sev.c and amd_psp_snp.c.
 *
 * The firmware runs at once and to completion when a command is written.
 * Nothing is encrypted: memory of a guest is plain in RAM, and what the host
 * sees of an SNP guest's pages is up to the RMP checks of the CPU. Left out
 * are certificates, firmware update and migration.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "exec/address-spaces.h"
#include "hw/i386/pc.h"
#include "hw/i386/x86-iommu.h"
#include "hw/pci/msix.h"
#include "hw/qdev-properties.h"
#include "qapi/error.h"
#include "migration/vmstate.h"
#include "qemu/cutils.h"
#include "qemu/guest-random.h"
#include "qemu/units.h"
#include "amd_iommu.h"
#include "amd_psp_internal.h"
#include "trace.h"

/* Registers: offsets in BAR 2 of PCI ID 1022:14CA */
#define PSP_REG_INTEN           0x10690     /* P2CMSG_INTEN */
#define PSP_REG_INTSTS          0x10694     /* P2CMSG_INTSTS */
#define PSP_REG_CMDRESP         0x10980     /* C2PMSG_32 */
#define PSP_REG_CMDBUF_LO       0x109e0     /* C2PMSG_56 */
#define PSP_REG_CMDBUF_HI       0x109e4     /* C2PMSG_57 */
#define PSP_REG_BOOTLOADER      0x109ec     /* C2PMSG_59 */
#define PSP_REG_FEATURE         0x109fc     /* C2PMSG_63 */
#define PSP_BAR_SIZE            0x20000

#define PSP_FEATURE_SEV         (1U << 0)

#define CMDRESP_IOC             (1U << 0)
#define CMDRESP_ID(val)         extract32(val, 16, 8)
#define CMDRESP_RESPONSE        (1U << 31)

#define INT_CMD_COMPLETE        (1U << 1)

#define PSP_BUF_MAX             0x80

/* Highest address that a pointer may have */
#define PSP_ADDR_MAX            0x3ffcffffffffULL

#define ASEG_START              0xa0000
#define ASEG_END                0xc0000
#define HT_HOLE_START           0xfd00000000ULL
#define HT_HOLE_END             0x10000000000ULL

#define SEV_TMR_SIZE            (1 * MiB)
#define SNP_TMR_SIZE            (2 * MiB)
#define SEV_NV_LENGTH           0x8000
#define SEV_INIT_EX_LENGTH      0x24

/* RMP entries as they are in memory, quadword 0 */
#define RMP_BOOKKEEPING_SIZE    0x4000
#define RMP_ASSIGNED            (1ULL << 0)
#define RMP_IMMUTABLE           (1ULL << 2)
#define RMP_SUBPAGES_SHIFT      3
#define RMP_LOCK                (1ULL << 63)

/* ---- Memory ------------------------------------------------------------ */

bool psp_read(AmdPspState *s, hwaddr addr, void *buf, size_t len)
{
    return address_space_read(&address_space_memory, addr,
                              MEMTXATTRS_UNSPECIFIED, buf, len) == MEMTX_OK;
}

bool psp_write(AmdPspState *s, hwaddr addr, const void *buf, size_t len)
{
    return address_space_write(&address_space_memory, addr,
                               MEMTXATTRS_UNSPECIFIED, buf, len) == MEMTX_OK;
}

static bool psp_overlap(hwaddr a, uint64_t alen, hwaddr b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

static bool psp_in_dram(hwaddr addr, uint64_t len)
{
    X86MachineState *x86ms = X86_MACHINE(qdev_get_machine());
    hwaddr above = x86ms->above_4g_mem_start;

    return addr + len <= x86ms->below_4g_mem_size ||
           (addr >= above && addr + len <= above + x86ms->above_4g_mem_size);
}

PspStatus psp_check_address(AmdPspState *s, uint64_t *addr, uint64_t len)
{
    CPUX86State *env = psp_env();
    uint64_t a = *addr & ~SEV_C_BIT;

    if (a > PSP_ADDR_MAX || len > PSP_ADDR_MAX - a) {
        return PSP_INVALID_ADDRESS;
    }
    if (psp_overlap(a, len, ASEG_START, ASEG_END - ASEG_START) ||
        (s->tmr_len && psp_overlap(a, len, s->tmr, s->tmr_len)) ||
        psp_overlap(a, len, env->sev.rmp_base,
                    env->sev.rmp_end + 1 - env->sev.rmp_base)) {
        return PSP_INVALID_ADDRESS;
    }
    if (!psp_in_dram(a, len)) {
        return PSP_INVALID_CONFIG;
    }
    *addr = a;
    return PSP_SUCCESS;
}

/* ---- RMP --------------------------------------------------------------- */

bool psp_in_rmp(AmdPspState *s, hwaddr addr)
{
    CPUX86State *env = psp_env();

    return addr >= env->sev.rmp_base && addr <= env->sev.rmp_end;
}

static PspPageState psp_page_state(const SnpRmpEntry *e)
{
    if (!e->assigned) {
        return e->immutable ? PAGE_HV_FIXED : PAGE_HYPERVISOR;
    }
    if (e->asid) {
        if (e->immutable) {
            return e->validated ? PAGE_PRE_SWAP : PAGE_PRE_GUEST;
        }
        return e->validated ? PAGE_GUEST_VALID : PAGE_GUEST_INVALID;
    }
    if (!e->immutable) {
        return PAGE_RECLAIM;
    }
    /* What is in the GPA field tells the firmware's own pages apart. */
    if (e->gpa & (1ULL << (36 + 12))) {
        return PAGE_METADATA;
    }
    if (e->gpa) {
        return PAGE_FIRMWARE_IOMMU;
    }
    return e->vmsa ? PAGE_CONTEXT : PAGE_FIRMWARE;
}

PspStatus psp_lookup(AmdPspState *s, hwaddr addr, SnpRmpEntry *e,
                     PspPageState *state)
{
    if (psp_in_rmp(s, addr)) {
        return PSP_INVALID_PARAM;
    }
    if (snp_rmp_lookup(psp_env(), addr, e)) {
        *state = psp_page_state(e);
    } else {
        memset(e, 0, sizeof(*e));
        *state = PAGE_DEFAULT;
    }
    return PSP_SUCCESS;
}

void psp_set_page_state(AmdPspState *s, hwaddr addr, PspPageState state)
{
    SnpRmpEntry e = {}, old;

    /* Not a part of a 2M page: RECLAIM takes that as a whole. */
    if (!snp_rmp_lookup(psp_env(), addr, &old) || old.size_2m) {
        return;
    }
    switch (state) {
    case PAGE_HV_FIXED:
        e.immutable = true;
        break;
    case PAGE_FIRMWARE:
        e.assigned = true;
        e.immutable = true;
        break;
    case PAGE_CONTEXT:
        e.assigned = true;
        e.immutable = true;
        e.vmsa = true;
        break;
    case PAGE_RECLAIM:
        e.assigned = true;
        break;
    case PAGE_FIRMWARE_IOMMU:
        e.assigned = true;
        e.immutable = true;
        e.gpa = (1ULL | 1ULL << 37) << 12;
        break;
    default:
        return;
    }
    e.lock = e.immutable;
    snp_rmp_write(psp_env(), addr, &e);
}

static PspStatus psp_check_firmware_pages(AmdPspState *s, hwaddr addr,
                                          uint64_t len)
{
    if (s->snp_state != SNP_INIT) {
        return PSP_SUCCESS;
    }
    for (hwaddr a = addr & ~0xfffULL; a < addr + len; a += 4 * KiB) {
        SnpRmpEntry e;
        PspPageState state;
        PspStatus st = psp_lookup(s, a, &e, &state);

        if (st) {
            return st;
        }
        if (state != PAGE_FIRMWARE && state != PAGE_DEFAULT) {
            return PSP_INVALID_PAGE_STATE;
        }
    }
    return PSP_SUCCESS;
}

PspStatus psp_check_output(AmdPspState *s, uint64_t *addr, uint64_t len)
{
    PspStatus st = psp_check_address(s, addr, len);

    return st ? st : psp_check_firmware_pages(s, *addr, len);
}

/* ---- Cryptography ------------------------------------------------------ */

void psp_random(void *buf, size_t len)
{
    qemu_guest_getrandom_nofail(buf, len);
}

void psp_sha256(const struct iovec *iov, size_t n, uint8_t digest[32])
{
    size_t len = 32;

    qcrypto_hash_bytesv(QCRYPTO_HASH_ALGO_SHA256, iov, n, &digest, &len,
                        &error_abort);
}

void psp_sha384(const void *buf, size_t len, uint8_t digest[48])
{
    size_t dlen = 48;

    qcrypto_hash_bytes(QCRYPTO_HASH_ALGO_SHA384, buf, len, &digest, &dlen,
                       &error_abort);
}

/* ---- Platform ---------------------------------------------------------- */

/* A register that has to be the same and has to have @set on all CPUs */
static bool psp_syscfg_ok(uint64_t set)
{
    uint64_t first = psp_env()->sev.syscfg;
    CPUState *cs;

    CPU_FOREACH(cs) {
        uint64_t syscfg = X86_CPU(cs)->env.sev.syscfg;

        if (syscfg != first || (syscfg & set) != set) {
            return false;
        }
    }
    return true;
}

static bool psp_smm_locked(void)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (!(X86_CPU(cs)->env.sev.hwcr & HWCR_SMM_LOCK)) {
            return false;
        }
    }
    return true;
}

static PspStatus psp_check_rmp_bounds(AmdPspState *s)
{
    CPUX86State *env = psp_env();
    uint64_t base = env->sev.rmp_base, end = env->sev.rmp_end;
    CPUState *cs;

    CPU_FOREACH(cs) {
        CPUX86State *e = &X86_CPU(cs)->env;

        if (e->sev.rmp_base != base || e->sev.rmp_end != end) {
            return PSP_INVALID_CONFIG;
        }
    }
    if (end <= base || base % MiB || (end + 1 - base) % MiB) {
        return PSP_INVALID_CONFIG;
    }
    if ((base | end) & SEV_C_BIT) {
        return PSP_UNSUPPORTED;
    }
    if (!psp_in_dram(base, end + 1 - base)) {
        return PSP_INVALID_CONFIG;
    }
    return PSP_SUCCESS;
}

static AMDVIState *psp_iommu(void)
{
    X86IOMMUState *iommu = x86_iommu_get_default();

    return (AMDVIState *)object_dynamic_cast(OBJECT(iommu),
                                             TYPE_AMD_IOMMU_DEVICE);
}

/* The RMP's memory, and what covers each page */
typedef struct PspRmp {
    uint8_t *map;
    hwaddr base;
    uint64_t nr;                /* pages covered */
    uint64_t cfg;
} PspRmp;

static uint64_t *psp_rmp_entry(const PspRmp *r, uint64_t pfn)
{
    uint8_t *table = r->map + RMP_BOOKKEEPING_SIZE;
    unsigned shift = RMP_CFG_SHIFT(r->cfg) - 12;
    uint64_t segment;

    if (!(r->cfg & RMP_CFG_SEGMENTED)) {
        return (uint64_t *)table + pfn * 2;
    }
    segment = ldq_le_p(table + (pfn >> shift) * 8);
    return (uint64_t *)(r->map + RMP_SEGMENT_BASE(segment) - r->base) +
           (pfn & ((1ULL << shift) - 1)) * 2;
}

/* How many pages does it cover? */
static uint64_t psp_rmp_pages(const PspRmp *r, hwaddr len)
{
    uint64_t pages = 0;

    if (!(r->cfg & RMP_CFG_SEGMENTED)) {
        return (len - RMP_BOOKKEEPING_SIZE) / 16;
    }
    for (int i = 0; i < RMP_SEGMENTS; i++) {
        pages += RMP_SEGMENT_GIB(ldq_le_p(r->map + RMP_BOOKKEEPING_SIZE +
                                          i * 8)) << 18;
    }
    return pages;
}

/* Fill the entries of the pages from @start up to @end with @val. */
static void psp_rmp_fill(const PspRmp *r, hwaddr start, hwaddr end,
                         uint64_t val)
{
    for (uint64_t pfn = start >> 12; pfn < end >> 12 && pfn < r->nr; pfn++) {
        uint64_t *entry = psp_rmp_entry(r, pfn);

        entry[0] = cpu_to_le64(val);
        entry[1] = 0;
    }
}

static void psp_rmp_fill_list(AmdPspState *s, const PspRmp *r, hwaddr list)
{
    uint8_t page[4096];
    uint32_t n;

    /* A list that cannot be used is ignored without a word. */
    if (list % 4096 || !psp_read(s, list, page, sizeof(page))) {
        return;
    }
    n = ldl_le_p(page);
    if (n > 255) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        hwaddr base = ldq_le_p(page + 8 + i * 16) & ~SEV_C_BIT;
        uint64_t pages = ldl_le_p(page + 8 + i * 16 + 8);

        for (uint64_t k = 0; k < pages; k++) {
            hwaddr a = base + k * 4096;

            if (a >> 12 >= r->nr) {
                break;
            }
            if (!psp_in_rmp(s, a)) {
                psp_rmp_fill(r, a, a + 4096, RMP_IMMUTABLE);
            }
        }
    }
}

static PspStatus psp_rmp_build(AmdPspState *s, hwaddr list)
{
    X86MachineState *x86ms = X86_MACHINE(qdev_get_machine());
    hwaddr base = psp_env()->sev.rmp_base;
    hwaddr end = psp_env()->sev.rmp_end + 1;
    hwaddr above = x86ms->above_4g_mem_start;
    hwaddr len = end - base;
    PspRmp r = { .base = base, .cfg = psp_env()->sev.rmp_cfg };

    r.map = address_space_map(&address_space_memory, base, &len, true,
                              MEMTXATTRS_UNSPECIFIED);
    if (!r.map) {
        return PSP_RMP_INITIALIZATION_FAILED;
    }
    if (len != end - base) {
        address_space_unmap(&address_space_memory, r.map, len, true, 0);
        return PSP_RMP_INITIALIZATION_FAILED;
    }

    snp_rmp_lock();
    memset(r.map, 0, RMP_BOOKKEEPING_SIZE);
    r.nr = psp_rmp_pages(&r, len);

    psp_rmp_fill(&r, 0, r.nr << 12, RMP_IMMUTABLE);
    psp_rmp_fill(&r, 0, x86ms->below_4g_mem_size, 0);
    psp_rmp_fill(&r, above, above + x86ms->above_4g_mem_size, 0);
    if (list) {
        psp_rmp_fill_list(s, &r, list);
    }
    psp_rmp_fill(&r, ASEG_START, ASEG_END, RMP_IMMUTABLE);
    psp_rmp_fill(&r, HT_HOLE_START, HT_HOLE_END, RMP_IMMUTABLE);
    psp_rmp_fill(&r, base, end,
                 RMP_ASSIGNED | RMP_IMMUTABLE | RMP_LOCK);

    /* The head of 2M counts its assigned pages, without itself. */
    for (hwaddr head = ROUND_DOWN(base, 2 * MiB); head < end;
         head += 2 * MiB) {
        hwaddr from = MAX(head + 4 * KiB, base);
        hwaddr to = MIN(head + 2 * MiB, end);

        if (head >> 12 < r.nr && to > from) {
            *psp_rmp_entry(&r, head >> 12) |=
                cpu_to_le64(((to - from) >> 12) << RMP_SUBPAGES_SHIFT);
        }
    }
    snp_rmp_unlock();
    address_space_unmap(&address_space_memory, r.map, len, true, len);
    snp_rmp_flush_tlbs(psp_env());
    return PSP_SUCCESS;
}

/* Logs that the IOMMU writes belong to firmware while it enforces SNP. */
static void psp_iommu_pages(AmdPspState *s, PspPageState state)
{
    AMDVIState *iommu = psp_iommu();
    struct {
        hwaddr base;
        uint64_t len;
    } log[] = {
        { iommu->evtlog, (uint64_t)iommu->evtlog_len * AMDVI_EVENT_LEN },
        { iommu->ppr_log, (uint64_t)iommu->pprlog_len * 16 },
        /* With SNP, the exclusion range is that of completion waits. */
        { ldq_le_p(&iommu->mmior[AMDVI_MMIO_EXCL_BASE]) & 0xffffffffff000ULL,
          4 * KiB },
    };

    for (int i = 0; i < ARRAY_SIZE(log); i++) {
        for (hwaddr a = log[i].base;
             log[i].base && a < log[i].base + log[i].len; a += 4 * KiB) {
            if (psp_in_dram(a, 4 * KiB) && !psp_in_rmp(s, a)) {
                psp_set_page_state(s, a, state);
            }
        }
    }
}

static PspStatus psp_do_snp_init(AmdPspState *s, bool init_rmp, hwaddr list)
{
    AMDVIState *iommu = psp_iommu();
    PspStatus st;
    CPUState *cs;

    if (s->snp_state != SNP_UNINIT || s->sev_state != SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if (!init_rmp && !s->rmp_init) {
        return PSP_RMP_INIT_REQUIRED;
    }
    if (!psp_syscfg_ok(SYSCFG_MEM_ENCRYPTION_MOD_EN | SYSCFG_SNP_EN |
                       SYSCFG_VMPL_EN | SYSCFG_MTRR_FIX_DRAM_MOD_EN) ||
        !psp_smm_locked()) {
        return PSP_INVALID_CONFIG;
    }
    st = psp_check_rmp_bounds(s);
    if (st) {
        return st;
    }
    if (init_rmp) {
        CPU_FOREACH(cs) {
            if (X86_CPU(cs)->env.vm_hsave) {
                return PSP_INVALID_CONFIG;
            }
        }
    }
    if (!iommu || !iommu->snpsup || !iommu->enabled) {
        return PSP_HARDWARE_PLATFORM;
    }
    if (init_rmp) {
        st = psp_rmp_build(s, list);
        if (st) {
            return st;
        }
        psp_iommu_pages(s, PAGE_FIRMWARE_IOMMU);
    }
    for (int i = 0; i <= SEV_MAX_ASID; i++) {
        s->asid[i] = ASID_DIRTY;
    }
    psp_request_wbinvd(s);
    s->rmp_init = true;
    s->snp_state = SNP_INIT;
    return PSP_SUCCESS;
}

static PspStatus psp_snp_init(AmdPspState *s, uint8_t *buf)
{
    return psp_do_snp_init(s, true, 0);
}

static PspStatus psp_snp_init_ex(AmdPspState *s, uint8_t *buf)
{
    uint32_t flags = ldl_le_p(buf);
    uint64_t list = ldq_le_p(buf + 8);

    if (flags & ~3U || ldl_le_p(buf + 4) ||
        !buffer_is_zero(buf + 0x10, 0x30)) {
        return PSP_INVALID_PARAM;
    }
    if ((flags & 3) == 2) {
        return s->snp_state != SNP_UNINIT || s->sev_state != SEV_UNINIT ?
               PSP_INVALID_PLATFORM_STATE :
               s->rmp_init ? PSP_INVALID_PARAM : PSP_RMP_INIT_REQUIRED;
    }
    if (flags & 2 && psp_check_address(s, &list, 4 * KiB)) {
        list = 0;
    }
    return psp_do_snp_init(s, flags & 1, flags & 2 ? list : 0);
}

static PspStatus psp_do_snp_shutdown(AmdPspState *s, uint32_t length,
                                     uint32_t flags)
{
    CPUState *cs;

    if (s->sev_state != SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if (s->snp_state == SNP_UNINIT) {
        return PSP_SUCCESS;
    }

    for (int i = 1; i <= SEV_MAX_ASID; i++) {
        if (s->asid[i] != ASID_CLEAN) {
            return PSP_DF_FLUSH_REQUIRED;
        }
    }
    if (length != 8 || flags & ~3U || flags == 2) {
        return PSP_INVALID_PARAM;
    }
    if (flags & 1) {
        psp_iommu_pages(s, PAGE_RECLAIM);
        s->rmp_init = false;
        s->tmr_len = 0;
    }
    psp_snp_reset(s);
    s->snp_state = SNP_UNINIT;
    if (flags & 2) {
        CPU_FOREACH(cs) {
            X86_CPU(cs)->env.sev.syscfg &= ~(uint64_t)SYSCFG_SNP_EN;
        }
        snp_rmp_flush_tlbs(psp_env());
    }
    return PSP_SUCCESS;
}

static PspStatus psp_snp_shutdown(AmdPspState *s, uint8_t *buf)
{
    return psp_do_snp_shutdown(s, 8, 0);
}

static PspStatus psp_snp_shutdown_ex(AmdPspState *s, uint8_t *buf)
{
    return psp_do_snp_shutdown(s, ldl_le_p(buf), ldl_le_p(buf + 4));
}

static PspStatus psp_snp_platform_status(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf);
    uint8_t out[0x20] = {};
    PspStatus st;

    if ((addr & 0xfff) + sizeof(out) > 4 * KiB) {
        return PSP_INVALID_PARAM;
    }
    st = psp_check_output(s, &addr, sizeof(out));
    if (st) {
        return st;
    }
    out[0] = PSP_API_MAJOR;
    out[1] = PSP_API_MINOR;
    out[2] = s->snp_state;
    out[3] = s->rmp_init;
    stl_le_p(out + 4, PSP_BUILD);
    stl_le_p(out + 8, s->config_mask | 1U << 3 /* FEATURE_INFO is there */);
    stl_le_p(out + 0xc, psp_snp_guest_count(s));
    stq_le_p(out + 0x10, PSP_TCB);
    stq_le_p(out + 0x18, s->reported_tcb);
    psp_write(s, addr, out, sizeof(out));
    return PSP_SUCCESS;
}

static PspStatus psp_snp_feature_info(AmdPspState *s, uint8_t *buf)
{
    uint32_t ecx = ldl_le_p(buf + 4);
    uint64_t addr = ldq_le_p(buf + 8);
    uint8_t out[16] = {};
    PspStatus st;

    if (ldl_le_p(buf) != 16) {
        return PSP_INVALID_PARAM;
    }
    if (addr & 3 || (addr & 0xfff) + sizeof(out) > 4 * KiB) {
        return PSP_INVALID_ADDRESS;
    }
    st = psp_check_output(s, &addr, sizeof(out));
    if (st) {
        return st;
    }
    switch (ecx) {
    case 0:
        stl_le_p(out, 1);
        stl_le_p(out + 4, 1);
        stl_le_p(out + 8, 3);       /* VLEK, x86 shutdown */
        break;
    case 1:
        stl_le_p(out, 0x1ff);
        break;
    default:
        return PSP_INVALID_PARAM;
    }
    psp_write(s, addr, out, sizeof(out));
    return PSP_SUCCESS;
}

/* A TCB version is above another if any of its parts is. */
static bool psp_tcb_above(uint64_t a, uint64_t b)
{
    for (int i = 0; i < 64; i += 8) {
        if (extract64(a, i, 8) > extract64(b, i, 8)) {
            return true;
        }
    }
    return false;
}

static PspStatus psp_snp_config(AmdPspState *s, uint8_t *buf)
{
    uint64_t tcb = ldq_le_p(buf);
    uint32_t mask = ldl_le_p(buf + 8);

    if (mask & ~3U || !buffer_is_zero(buf + 0xc, 0x34)) {
        return PSP_INVALID_PARAM;
    }
    if (psp_tcb_above(tcb, s->committed_tcb)) {
        return PSP_INVALID_PARAM;
    }
    s->reported_tcb = tcb ? tcb : s->committed_tcb;
    s->config_mask = mask;
    return PSP_SUCCESS;
}

static PspStatus psp_snp_commit(AmdPspState *s, uint8_t *buf)
{
    if (ldl_le_p(buf) != 4) {
        return PSP_INVALID_PARAM;
    }
    s->committed_tcb = PSP_TCB;
    return PSP_SUCCESS;
}

void psp_request_wbinvd(AmdPspState *s)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        qatomic_set(&X86_CPU(cs)->env.sev.wbinvd_done, false);
    }
}

/* The checks that SEV's and SNP's ACTIVATE share, in the firmware's order. */
PspStatus psp_asid_available(AmdPspState *s, uint32_t asid, bool active)
{
    if (!asid || asid > SEV_MAX_ASID) {
        return PSP_INVALID_ASID;
    }
    if (s->asid[asid] == ASID_IN_USE) {
        return PSP_ASID_OWNED;
    }
    if (active) {
        return PSP_ACTIVE;
    }
    if (s->asid[asid] == ASID_DIRTY) {
        return PSP_DF_FLUSH_REQUIRED;
    }
    if (s->asid[asid] != ASID_CLEAN) {
        return PSP_ASID_OWNED;
    }
    return PSP_SUCCESS;
}

void psp_release_asid(AmdPspState *s, uint32_t asid)
{
    if (s->asid[asid] == ASID_IN_USE) {
        s->asid[asid] = ASID_DIRTY;
        psp_request_wbinvd(s);
    } else {
        s->asid[asid] = ASID_CLEAN;
    }
}

static PspStatus psp_df_flush(AmdPspState *s, uint8_t *buf)
{
    PspStatus st = PSP_SUCCESS;
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (!qatomic_read(&X86_CPU(cs)->env.sev.wbinvd_done)) {
            st = PSP_WBINVD_REQUIRED;
        }
    }
    /* Per core complex, of which there is one, its first core decides. */
    if (!qatomic_read(&psp_env()->sev.wbinvd_done)) {
        return st;
    }
    for (int i = 0; i <= SEV_MAX_ASID; i++) {
        if (s->asid[i] == ASID_DIRTY) {
            s->asid[i] = ASID_CLEAN;
        }
    }
    s->df_flushed = true;
    return st;
}

/* @ex_length: of INIT_EX, as its buffer says; INIT has none and no @nv. */
static PspStatus psp_do_init(AmdPspState *s, uint32_t flags, uint64_t tmr,
                             uint32_t tmr_len, uint64_t nv, uint32_t nv_len,
                             bool ex, uint32_t ex_length, uint32_t reserved)
{
    uint32_t tmr_size = s->rmp_init ? SNP_TMR_SIZE : SEV_TMR_SIZE;
    PspStatus st;

    if (!psp_syscfg_ok(SYSCFG_MEM_ENCRYPTION_MOD_EN)) {
        return PSP_HARDWARE_PLATFORM;
    }
    if (flags & ~1U || reserved) {
        return PSP_INVALID_CONFIG;
    }
    if (psp_env()->sev.syscfg & SYSCFG_SNP_EN) {
        st = psp_check_rmp_bounds(s);
        if (st) {
            return st;
        }
        if (!s->rmp_init) {
            return PSP_INVALID_PLATFORM_STATE;
        }
    }
    if (ex) {
        if (ex_length != SEV_INIT_EX_LENGTH) {
            return PSP_INVALID_LENGTH;
        }
        if (nv & 0xfff) {
            return PSP_INVALID_ADDRESS;
        }
        if (nv_len != SEV_NV_LENGTH) {
            return PSP_INVALID_LENGTH;
        }
        st = psp_check_output(s, &nv, nv_len);
        if (st) {
            return st;
        }
        /* The contents do not matter: the platform has no identity to keep. */
    }
    if (flags & 1) {
        st = psp_check_output(s, &tmr, tmr_len);
        if (st) {
            return st;
        }
        if (tmr % tmr_size) {
            return PSP_INVALID_ADDRESS;
        }
        if (tmr_len != tmr_size) {
            return PSP_INVALID_LENGTH;
        }
        s->tmr = tmr;
        s->tmr_len = tmr_len;
    }
    s->sev_es = flags & 1;
    s->df_flushed = false;
    s->sev_state = SEV_INIT;
    return PSP_SUCCESS;
}

static PspStatus psp_init(AmdPspState *s, uint8_t *buf)
{
    if (s->sev_state != SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    return psp_do_init(s, ldl_le_p(buf), ldq_le_p(buf + 8),
                       ldl_le_p(buf + 0x10), 0, 0, false, 0,
                       ldl_le_p(buf + 4));
}

static PspStatus psp_init_ex(AmdPspState *s, uint8_t *buf)
{
    if (s->sev_state != SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    return psp_do_init(s, ldl_le_p(buf + 4), ldq_le_p(buf + 8),
                       ldl_le_p(buf + 0x10), ldq_le_p(buf + 0x18),
                       ldl_le_p(buf + 0x20), true, ldl_le_p(buf),
                       ldl_le_p(buf + 0x14));
}

static PspStatus psp_shutdown(AmdPspState *s, uint8_t *buf)
{
    psp_sev_reset(s);
    s->sev_state = SEV_UNINIT;
    s->sev_es = false;
    s->tmr_len = 0;
    return PSP_SUCCESS;
}

static PspStatus psp_platform_reset(AmdPspState *s, uint8_t *buf)
{
    return s->sev_state == SEV_UNINIT ? PSP_SUCCESS :
           PSP_INVALID_PLATFORM_STATE;
}

static PspStatus psp_platform_status(AmdPspState *s, uint8_t *buf)
{
    memset(buf, 0, 0xc);
    buf[0] = PSP_API_MAJOR;
    buf[1] = PSP_API_MINOR;
    buf[2] = s->sev_state;
    stl_le_p(buf + 3, (s->sev_es ? 1U << 8 : 0) | 1 /* self-owned */);
    buf[7] = PSP_BUILD;
    stl_le_p(buf + 8, psp_sev_guest_count(s));
    return PSP_SUCCESS;
}

static PspStatus psp_pek_gen(AmdPspState *s, uint8_t *buf)
{
    return s->sev_state == SEV_INIT ? PSP_SUCCESS :
           PSP_INVALID_PLATFORM_STATE;
}

static PspStatus psp_pdh_gen(AmdPspState *s, uint8_t *buf)
{
    return s->sev_state != SEV_UNINIT ? PSP_SUCCESS :
           PSP_INVALID_PLATFORM_STATE;
}

/* SEV API, appendix C.1 */
#define SEV_CERT_SIZE           0x824
#define SEV_CERT_API            0x004
#define SEV_CERT_USAGE          0x008
#define SEV_CERT_SIGNED_BY      0x414
#define SEV_CERT_SIGNED_BY2     0x61c
#define SEV_USAGE_INVALID       0x1000
#define SEV_USAGE_OCA           0x1001
#define SEV_USAGE_PEK           0x1002
#define SEV_USAGE_PDH           0x1003
#define SEV_USAGE_CEK           0x1004

/* A certificate of the right form, with no key and no signature in it. */
static void psp_write_cert(AmdPspState *s, uint64_t addr, uint32_t usage)
{
    uint8_t cert[SEV_CERT_SIZE] = {};

    stl_le_p(cert, 1);
    cert[SEV_CERT_API] = PSP_API_MAJOR;
    cert[SEV_CERT_API + 1] = PSP_API_MINOR;
    stl_le_p(cert + SEV_CERT_USAGE, usage);
    stl_le_p(cert + SEV_CERT_SIGNED_BY, SEV_USAGE_INVALID);
    stl_le_p(cert + SEV_CERT_SIGNED_BY2, SEV_USAGE_INVALID);
    psp_write(s, addr, cert, sizeof(cert));
}

static PspStatus psp_pdh_cert_export(AmdPspState *s, uint8_t *buf)
{
    static const uint32_t chain[] = {
        SEV_USAGE_PEK, SEV_USAGE_OCA, SEV_USAGE_CEK,
    };
    const uint32_t chain_size = ARRAY_SIZE(chain) * SEV_CERT_SIZE;
    uint64_t pdh_addr = ldq_le_p(buf), chain_addr = ldq_le_p(buf + 0x10);
    bool fits = ldl_le_p(buf + 8) >= SEV_CERT_SIZE &&
                ldl_le_p(buf + 0x18) >= chain_size;
    PspStatus st;

    if (s->sev_state == SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    stl_le_p(buf + 8, SEV_CERT_SIZE);
    stl_le_p(buf + 0x18, chain_size);
    if (!fits) {
        return PSP_INVALID_LENGTH;
    }
    st = psp_check_output(s, &pdh_addr, SEV_CERT_SIZE);
    if (!st) {
        st = psp_check_output(s, &chain_addr, chain_size);
    }
    if (st) {
        return st;
    }
    psp_write_cert(s, pdh_addr, SEV_USAGE_PDH);
    for (int i = 0; i < ARRAY_SIZE(chain); i++) {
        psp_write_cert(s, chain_addr + i * SEV_CERT_SIZE, chain[i]);
    }
    return PSP_SUCCESS;
}

static PspStatus psp_get_id(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf);
    PspStatus st;

    if (ldl_le_p(buf + 8) < sizeof(s->chip_id)) {
        stl_le_p(buf + 8, sizeof(s->chip_id));
        return PSP_INVALID_LENGTH;
    }
    st = psp_check_output(s, &addr, sizeof(s->chip_id));
    if (st) {
        return st;
    }
    psp_write(s, addr, s->chip_id, sizeof(s->chip_id));
    stl_le_p(buf + 8, sizeof(s->chip_id));
    return PSP_SUCCESS;
}

/* ---- Mailbox ----------------------------------------------------------- */

/* When a command's buffer goes back to memory */
typedef enum PspCopyBack {
    COPY_NEVER,
    COPY_SUCCESS,
    COPY_LENGTH,                /* on INVALID_LENGTH as well */
} PspCopyBack;

typedef struct PspCommand {
    const char *name;
    PspHandler *handler;        /* NULL: in the ABI, not in this model */
    uint8_t size;
    PspCopyBack copy_back;
    bool legacy_output;
} PspCommand;

#define CMD(id, n, sz, h)       [id] = { .name = n, .size = sz, .handler = h }
#define OUT(id, n, sz, h, c)    [id] = { .name = n, .size = sz, .handler = h, \
                                         .copy_back = c, .legacy_output = true }

/* Sizes are what the firmware reads: C structures with tail padding. */
static const PspCommand psp_commands[256] = {
    CMD(0x01, "INIT", 0x18, psp_init),
    CMD(0x02, "SHUTDOWN", 0, psp_shutdown),
    CMD(0x03, "PLATFORM_RESET", 0, psp_platform_reset),
    OUT(0x04, "PLATFORM_STATUS", 0x0c, psp_platform_status, COPY_SUCCESS),
    CMD(0x05, "PEK_GEN", 0, psp_pek_gen),
    OUT(0x06, "PEK_CSR", 0x10, NULL, COPY_LENGTH),
    CMD(0x07, "PEK_CERT_IMPORT", 0x20, NULL),
    OUT(0x08, "PDH_CERT_EXPORT", 0x20, psp_pdh_cert_export, COPY_LENGTH),
    CMD(0x09, "PDH_GEN", 0, psp_pdh_gen),
    CMD(0x0a, "DF_FLUSH", 0, psp_df_flush),
    CMD(0x0b, "DOWNLOAD_FIRMWARE", 0x10, NULL),
    OUT(0x0c, "GET_ID", 0x10, psp_get_id, COPY_LENGTH),
    CMD(0x0d, "INIT_EX", 0x28, psp_init_ex),

    CMD(0x20, "DECOMMISSION", 0x04, psp_sev_decommission),
    CMD(0x21, "ACTIVATE", 0x08, psp_sev_activate),
    CMD(0x22, "DEACTIVATE", 0x04, psp_sev_deactivate),
    OUT(0x23, "GUEST_STATUS", 0x10, psp_sev_guest_status, COPY_SUCCESS),

    OUT(0x30, "LAUNCH_START", 0x28, psp_sev_launch_start, COPY_SUCCESS),
    CMD(0x31, "LAUNCH_UPDATE_DATA", 0x18, psp_sev_launch_update_data),
    CMD(0x32, "LAUNCH_UPDATE_VMSA", 0x18, psp_sev_launch_update_vmsa),
    OUT(0x33, "LAUNCH_MEASURE", 0x18, psp_sev_launch_measure, COPY_LENGTH),
    CMD(0x34, "LAUNCH_UPDATE_SECRET", 0x38, psp_sev_launch_secret),
    CMD(0x35, "LAUNCH_FINISH", 0x04, psp_sev_launch_finish),
    [0x36] = { .name = "ATTESTATION_REPORT", .size = 0x28,
               .copy_back = COPY_LENGTH },

    OUT(0x40, "SEND_START", 0x48, NULL, COPY_LENGTH),
    OUT(0x41, "SEND_UPDATE_DATA", 0x38, NULL, COPY_LENGTH),
    OUT(0x42, "SEND_UPDATE_VMSA", 0x38, NULL, COPY_LENGTH),
    CMD(0x43, "SEND_FINISH", 0x04, NULL),
    CMD(0x44, "SEND_CANCEL", 0x04, NULL),
    OUT(0x50, "RECEIVE_START", 0x28, NULL, COPY_SUCCESS),
    CMD(0x51, "RECEIVE_UPDATE_DATA", 0x38, NULL),
    CMD(0x52, "RECEIVE_UPDATE_VMSA", 0x38, NULL),
    CMD(0x53, "RECEIVE_FINISH", 0x04, NULL),

    CMD(0x60, "DBG_DECRYPT", 0x20, psp_sev_dbg_decrypt),
    CMD(0x61, "DBG_ENCRYPT", 0x20, psp_sev_dbg_encrypt),
    OUT(0x70, "SWAP_OUT", 0x28, NULL, COPY_LENGTH),
    CMD(0x71, "SWAP_IN", 0x20, NULL),

    CMD(0x81, "SNP_INIT", 0, psp_snp_init),
    CMD(0x82, "SNP_SHUTDOWN", 0, psp_snp_shutdown),
    CMD(0x83, "SNP_PLATFORM_STATUS", 0x08, psp_snp_platform_status),
    CMD(0x84, "SNP_DF_FLUSH", 0, psp_df_flush),
    CMD(0x85, "SNP_INIT_EX", 0x40, psp_snp_init_ex),
    CMD(0x86, "SNP_SHUTDOWN_EX", 0x08, psp_snp_shutdown_ex),
    CMD(0x90, "SNP_DECOMMISSION", 0x08, psp_snp_decommission),
    CMD(0x91, "SNP_ACTIVATE", 0x10, psp_snp_activate),
    CMD(0x92, "SNP_GUEST_STATUS", 0x10, psp_snp_guest_status),
    CMD(0x93, "SNP_GCTX_CREATE", 0x08, psp_snp_gctx_create),
    CMD(0x94, "SNP_GUEST_REQUEST", 0x18, psp_snp_guest_request),
    CMD(0x95, "SNP_ACTIVATE_EX", 0x20, NULL),
    CMD(0xa0, "SNP_LAUNCH_START", 0x30, psp_snp_launch_start),
    CMD(0xa1, "SNP_LAUNCH_UPDATE", 0x20, psp_snp_launch_update),
    CMD(0xa2, "SNP_LAUNCH_FINISH", 0x40, psp_snp_launch_finish),
    CMD(0xb0, "SNP_DBG_DECRYPT", 0x18, psp_snp_dbg_decrypt),
    CMD(0xb1, "SNP_DBG_ENCRYPT", 0x18, psp_snp_dbg_encrypt),
    CMD(0xc0, "SNP_PAGE_SWAP_OUT", 0x30, NULL),
    CMD(0xc1, "SNP_PAGE_SWAP_IN", 0x30, NULL),
    CMD(0xc2, "SNP_PAGE_MOVE", 0x20, NULL),
    CMD(0xc3, "SNP_PAGE_MD_INIT", 0x10, NULL),
    CMD(0xc6, "SNP_PAGE_SET_STATE", 0x10, psp_snp_page_set_state),
    CMD(0xc7, "SNP_PAGE_RECLAIM", 0x08, psp_snp_page_reclaim),
    CMD(0xc8, "SNP_PAGE_UNSMASH", 0x08, psp_snp_page_unsmash),
    CMD(0xc9, "SNP_CONFIG", 0x40, psp_snp_config),
    CMD(0xca, "SNP_DOWNLOAD_FIRMWARE_EX", 0x18, NULL),
    CMD(0xcb, "SNP_COMMIT", 0x04, psp_snp_commit),
    CMD(0xcd, "SNP_VLEK_LOAD", 0x10, NULL),
    CMD(0xce, "SNP_FEATURE_INFO", 0x10, psp_snp_feature_info),
};

static PspStatus psp_run(AmdPspState *s, const PspCommand *cmd, uint64_t addr)
{
    uint8_t buf[PSP_BUF_MAX] = {};
    bool legacy = cmd->legacy_output && s->snp_state == SNP_INIT;
    PspStatus st;

    if (cmd->size) {
        st = psp_check_address(s, &addr, cmd->size);
        if (st) {
            return st;
        }
        if (legacy && psp_check_firmware_pages(s, addr, cmd->size)) {
            return PSP_BUFFER_PAGE_STATE;
        }
        if (!psp_read(s, addr, buf, cmd->size)) {
            return PSP_INVALID_ADDRESS;
        }
    }

    st = cmd->handler ? cmd->handler(s, buf) : PSP_UNSUPPORTED;

    if (cmd->copy_back != COPY_NEVER &&
        (st == PSP_SUCCESS ||
         (st == PSP_INVALID_LENGTH && cmd->copy_back == COPY_LENGTH))) {
        psp_write(s, addr, buf, cmd->size);
    }
    if (legacy) {
        psp_set_page_state(s, addr & ~0xfffULL, PAGE_RECLAIM);
    }
    return st;
}

static void psp_command(AmdPspState *s, uint32_t val)
{
    uint64_t addr = (uint64_t)s->cmdbuf_hi << 32 | s->cmdbuf_lo;
    uint8_t id = CMDRESP_ID(val);
    const PspCommand *cmd = &psp_commands[id];
    PspStatus st = cmd->name ? psp_run(s, cmd, addr) : PSP_INVALID_COMMAND;

    trace_amd_psp_command(cmd->name ?: "?", id, addr, st);

    /* The address registers carry the stack of extended errors: none. */
    s->cmdbuf_lo = 0;
    s->cmdbuf_hi = 0;
    s->cmdresp = CMDRESP_RESPONSE | st;
    if (val & CMDRESP_IOC) {
        s->intsts |= INT_CMD_COMPLETE;
        if (s->inten & INT_CMD_COMPLETE) {
            msix_notify(PCI_DEVICE(s), 0);
        }
    }
}

static uint64_t amd_psp_read(void *opaque, hwaddr addr, unsigned size)
{
    AmdPspState *s = opaque;

    switch (addr) {
    case PSP_REG_INTEN:
        return s->inten;
    case PSP_REG_INTSTS:
        return s->intsts;
    case PSP_REG_CMDRESP:
        return s->cmdresp;
    case PSP_REG_CMDBUF_LO:
        return s->cmdbuf_lo;
    case PSP_REG_CMDBUF_HI:
        return s->cmdbuf_hi;
    case PSP_REG_BOOTLOADER:
        return 0x00370019;
    case PSP_REG_FEATURE:
        return PSP_FEATURE_SEV;
    default:
        return 0;
    }
}

static void amd_psp_write(void *opaque, hwaddr addr, uint64_t val,
                          unsigned size)
{
    AmdPspState *s = opaque;

    switch (addr) {
    case PSP_REG_INTEN:
        s->inten = val;
        break;
    case PSP_REG_INTSTS:
        s->intsts &= ~val;
        break;
    case PSP_REG_CMDRESP:
        /* Software clears the response bit to start a command. */
        if (!(val & CMDRESP_RESPONSE)) {
            psp_command(s, val);
        }
        break;
    case PSP_REG_CMDBUF_LO:
        s->cmdbuf_lo = val;
        break;
    case PSP_REG_CMDBUF_HI:
        s->cmdbuf_hi = val;
        break;
    }
}

static const MemoryRegionOps amd_psp_ops = {
    .read = amd_psp_read,
    .write = amd_psp_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

/* ---- Device ------------------------------------------------------------ */

static void amd_psp_reset_hold(Object *obj, ResetType type)
{
    AmdPspState *s = AMD_PSP(obj);

    psp_sev_reset(s);
    psp_snp_reset(s);
    s->cmdresp = CMDRESP_RESPONSE;
    s->cmdbuf_lo = s->cmdbuf_hi = 0;
    s->inten = s->intsts = 0;
    s->sev_state = SEV_UNINIT;
    s->snp_state = SNP_UNINIT;
    s->rmp_init = false;
    s->sev_es = false;
    s->df_flushed = false;
    s->tmr_len = 0;
    s->committed_tcb = s->reported_tcb = PSP_TCB;
    s->config_mask = 0;
    memset(s->asid, ASID_DIRTY, sizeof(s->asid));
}

static void amd_psp_realize(PCIDevice *pdev, Error **errp)
{
    AmdPspState *s = AMD_PSP(pdev);

    if (!object_dynamic_cast(qdev_get_machine(), TYPE_PC_MACHINE) ||
        !PC_MACHINE(qdev_get_machine())->snp_host) {
        error_setg(errp, "amd-psp needs -machine q35,snp-host=on");
        return;
    }
    memory_region_init_io(&s->mmio, OBJECT(s), &amd_psp_ops, s, "amd-psp",
                          PSP_BAR_SIZE);
    pci_register_bar(pdev, 2, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->mmio);
    if (msix_init_exclusive_bar(pdev, 2, 5, errp)) {
        return;
    }
    msix_vector_use(pdev, 0);
    msix_vector_use(pdev, 1);
    psp_random(s->chip_id, sizeof(s->chip_id));
    psp_random(s->secret, sizeof(s->secret));
}

static void amd_psp_init(Object *obj)
{
    AmdPspState *s = AMD_PSP(obj);

    s->sev_guests = g_hash_table_new_full(g_direct_hash, g_direct_equal,
                                          NULL, g_free);
    s->snp_guests = g_hash_table_new_full(g_int64_hash, g_int64_equal,
                                          NULL, g_free);
}

static void amd_psp_finalize(Object *obj)
{
    AmdPspState *s = AMD_PSP(obj);

    g_hash_table_unref(s->sev_guests);
    g_hash_table_unref(s->snp_guests);
}

/* The machine refuses as well; this is for a device on its own. */
static const VMStateDescription vmstate_amd_psp = {
    .name = TYPE_AMD_PSP,
    .unmigratable = 1,
};

static void amd_psp_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    k->vendor_id = PCI_VENDOR_ID_AMD;
    k->device_id = 0x14ca;
    k->class_id = PCI_CLASS_CRYPT_OTHER;
    k->realize = amd_psp_realize;
    rc->phases.hold = amd_psp_reset_hold;
    dc->vmsd = &vmstate_amd_psp;
    dc->hotpluggable = false;
    dc->desc = "AMD security processor with SEV and SEV-SNP firmware";
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo amd_psp_info = {
    .name = TYPE_AMD_PSP,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(AmdPspState),
    .instance_init = amd_psp_init,
    .instance_finalize = amd_psp_finalize,
    .class_init = amd_psp_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { },
    },
};

static void amd_psp_register_types(void)
{
    type_register_static(&amd_psp_info);
}

type_init(amd_psp_register_types);
