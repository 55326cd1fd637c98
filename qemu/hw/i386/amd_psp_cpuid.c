/*
 * AMD security processor: checks of an SNP guest's CPUID page
 * (ABI 8.17.2.6): the host must not promise what the processor lacks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "amd_psp_internal.h"

#define CPUID_MAX_ENTRIES       64
#define CPUID_ENTRY_SIZE        0x30

/* How a register of a leaf is checked */
enum {
    ZERO,                       /* has to be 0 */
    ANY,
    MASK,                       /* only bits of the processor, or of @allow */
    MAX,                        /* not above @allow */
    FMS,                        /* not a later model than the processor */
    CLFLUSH,                    /* line size in bits 15:8 */
    CBIT,                       /* position of the C-bit in bits 5:0 */
    XSIZE,                      /* size of the XSAVE area, standard form */
    XSIZE_COMPACT,
};

#define ALL_SUBLEAVES   0xffffffff

static const struct {
    uint32_t leaf;
    uint32_t sub;               /* lowest; ALL_SUBLEAVES ignores ECX */
    uint32_t sub_last;
    struct {
        uint8_t how;
        uint32_t allow;
    } reg[4];
} cpuid_rules[] = {
    { 0x0, ALL_SUBLEAVES, 0, { { MAX, 0x10 }, { ANY }, { ANY }, { ANY } } },
    /* x2APIC, OSXSAVE and "hypervisor" are between host and guest. */
    { 0x1, ALL_SUBLEAVES, 0,
      { { FMS }, { CLFLUSH }, { MASK, 1U << 21 | 1U << 27 | 1U << 31 },
        { MASK, 1U << 28 } } },
    { 0x2, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x4, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x5, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x6, ALL_SUBLEAVES, 0, { { MASK, 4 }, { ZERO }, { MASK, 1 } } },
    { 0x7, 0, 0,
      { { MAX, 1 }, { MASK }, { MASK, 1U << 4 }, { MASK, 0x10000010 } } },
    { 0x7, 1, 1, { { MASK }, { ZERO }, { ZERO }, { ZERO } } },
    { 0xb, 0, 0xff, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0xd, 0, 0, { { MASK }, { XSIZE }, { ANY }, { MASK } } },
    { 0xd, 1, 1, { { MASK }, { XSIZE_COMPACT }, { MASK }, { ZERO } } },
    { 0xd, 2, 0xc, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x80000000, ALL_SUBLEAVES, 0,
      { { MAX, 0x80000028 }, { ANY }, { ANY }, { ANY } } },
    /* CmpLegacy and topology extensions */
    { 0x80000001, ALL_SUBLEAVES, 0,
      { { FMS }, { ANY }, { MASK, 1U << 1 | 1U << 22 }, { MASK } } },
    { 0x80000002, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x80000003, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x80000004, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x80000005, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x80000006, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    /*
     * The processor's model has machine-check recovery (and, below, clean
     * bits of the VMCB).  TCG does not, but hypervisors offer their own.
     */
    { 0x80000007, ALL_SUBLEAVES, 0,
      { { ZERO }, { MASK, 3 }, { ZERO }, { MASK } } },
    { 0x80000008, ALL_SUBLEAVES, 0, { { ANY }, { MASK }, { ANY }, { ANY } } },
    { 0x8000000a, ALL_SUBLEAVES, 0,
      { { ANY }, { ANY }, { ZERO }, { MASK, 1U << 5 } } },
    { 0x80000019, ALL_SUBLEAVES, 0, { { ANY }, { ANY } } },
    { 0x8000001a, ALL_SUBLEAVES, 0, { { MASK, 7 } } },
    { 0x8000001b, ALL_SUBLEAVES, 0, { { MASK } } },
    { 0x8000001d, 0, 4, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x8000001e, ALL_SUBLEAVES, 0, { { ANY }, { ANY }, { ANY }, { ANY } } },
    { 0x8000001f, ALL_SUBLEAVES, 0, { { MASK }, { CBIT }, { ANY }, { ANY } } },
    { 0x80000020, 0, 0xf, { { MASK }, { MASK }, { MASK }, { MASK } } },
    /*
     * Hypervisors add what is true of every processor of this family:
     * bits 0, 2, 6 and 9 (no SMM_CTL), and the SRSO ones, 27-29.
     */
    { 0x80000021, ALL_SUBLEAVES, 0,
      { { MASK, 0x38000245 }, { MASK }, { ZERO }, { ZERO } } },
    { 0x80000022, ALL_SUBLEAVES, 0,
      { { MASK }, { MASK }, { MASK }, { ZERO } } },
    { 0x80000023, ALL_SUBLEAVES, 0, { { MASK }, { MASK } } },
    { 0x80000024, ALL_SUBLEAVES, 0, { { ZERO } } },
    { 0x80000026, 0, 0xff, { { ANY }, { ANY }, { ANY }, { ANY } } },
};

static int cpuid_find_rule(uint32_t leaf, uint32_t sub)
{
    for (int i = 0; i < ARRAY_SIZE(cpuid_rules); i++) {
        if (cpuid_rules[i].leaf == leaf &&
            (cpuid_rules[i].sub == ALL_SUBLEAVES ||
             (sub >= cpuid_rules[i].sub && sub <= cpuid_rules[i].sub_last))) {
            return i;
        }
    }
    return -1;
}

/* Size of an XSAVE area with the given components. */
static uint32_t cpuid_xsave_size(uint64_t xcr0, uint64_t xss, bool compact)
{
    static const struct {
        uint64_t bit;
        uint32_t end;           /* standard form */
        uint32_t size;
    } area[] = {
        { 1ULL << 2, 0x340, 0x100 },    /* AVX */
        { 1ULL << 5, 0x380, 0x40 },     /* opmask */
        { 1ULL << 6, 0x580, 0x200 },    /* ZMM_Hi256 */
        { 1ULL << 7, 0x980, 0x400 },    /* Hi16_ZMM */
        { 1ULL << 9, 0x988, 0x8 },      /* PKRU */
        { 1ULL << 11, 0, 0x10 },        /* CET_U */
        { 1ULL << 12, 0, 0x18 },        /* CET_S */
    };
    uint32_t size = 0x240;

    for (int i = 0; i < ARRAY_SIZE(area); i++) {
        if (compact && (xcr0 | xss) & area[i].bit) {
            size += area[i].size;
        } else if (!compact && xcr0 & area[i].bit) {
            size = MAX(size, area[i].end);
        }
    }
    return size;
}

/* The highest value that the rule lets @val be */
static uint32_t cpuid_correct(uint8_t how, uint32_t allow, uint32_t val,
                              uint32_t cpu, uint64_t xcr0, uint64_t xss)
{
    switch (how) {
    case ANY:
        return val;
    case MASK:
        return val & (cpu | allow);
    case MAX:
        return MIN(val, allow);
    case FMS:
        return MIN(val, cpu);
    case CLFLUSH:
        return deposit32(val, 8, 8, 8);
    case CBIT:
        return deposit32(val, 0, 6, SEV_C_BIT_POS);
    case XSIZE:
        return cpuid_xsave_size(xcr0, xss, false);
    case XSIZE_COMPACT:
        /* Without XSAVEC and XSAVES there is no such size. */
        return val ? cpuid_xsave_size(xcr0, xss, true) : 0;
    default:
        return 0;
    }
}

static bool cpuid_check_entry(uint8_t *entry)
{
    uint32_t leaf = ldl_le_p(entry), sub = ldl_le_p(entry + 4);
    uint64_t xcr0 = ldq_le_p(entry + 8), xss = ldq_le_p(entry + 0x10);
    int rule = cpuid_find_rule(leaf, sub);
    uint32_t cpu[4] = {};
    bool ok = true;

    /* The hypervisor's leaves (40000000h and on) are nothing to check. */
    if ((leaf & 0x7fffffff) > 0xffff) {
        return true;
    }
    if (!buffer_is_zero(entry + 0x28, 8)) {
        memset(entry + 0x28, 0, 8);
        ok = false;
    }
    if (rule < 0) {
        if (!buffer_is_zero(entry + 0x18, 16)) {
            memset(entry + 0x18, 0, 16);
            ok = false;
        }
        return ok;
    }

    cpu_x86_cpuid(psp_env(), leaf, sub, &cpu[0], &cpu[1], &cpu[2], &cpu[3]);
    for (int i = 0; i < 4; i++) {
        uint8_t *reg = entry + 0x18 + i * 4;
        uint32_t val = ldl_le_p(reg);
        uint32_t right = cpuid_correct(cpuid_rules[rule].reg[i].how,
                                       cpuid_rules[rule].reg[i].allow,
                                       val, cpu[i], xcr0, xss);

        if (right != val) {
            stl_le_p(reg, right);
            ok = false;
        }
    }
    return ok;
}

bool psp_check_cpuid_page(uint8_t *page)
{
    uint32_t count = ldl_le_p(page);
    bool ok = true;

    if (count > CPUID_MAX_ENTRIES || !buffer_is_zero(page + 4, 12)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        ok &= cpuid_check_entry(page + 0x10 + i * CPUID_ENTRY_SIZE);
    }
    return ok;
}
