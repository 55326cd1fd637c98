/*
 * AMD security processor: SEV-SNP guests (ABI 8.10 - 8.29)
 *
 * A guest context is kept here, keyed by the address of its page; the page
 * itself stays empty. Not modelled: migration, page swapping, signatures of
 * ID blocks (they are compared, not verified) and of attestation reports,
 * whose signature is zero.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "amd_psp_gcm.h"
#include "amd_psp_internal.h"

/* ABI table "Guest Policy" */
#define POLICY_SMT              (1ULL << 16)
#define POLICY_RESERVED_ONE     (1ULL << 17)
#define POLICY_MIGRATE_MA       (1ULL << 18)
#define POLICY_DEBUG            (1ULL << 19)
#define POLICY_RESERVED         0xffffffffffe00000ULL

/* VMSA fields that firmware looks at or sets */
#define VMSA_TSC_SCALE          0x2f0
#define VMSA_TSC_OFFSET         0x2f8
#define VMSA_CRC                0x380
#define VMSA_SEV_FEATURES       0x3b0

enum { GUEST_INIT, GUEST_LAUNCH, GUEST_RUNNING };

/* ABI table "Page types" of LAUNCH_UPDATE */
enum {
    TYPE_NORMAL = 1,
    TYPE_VMSA,
    TYPE_ZERO,
    TYPE_UNMEASURED,
    TYPE_SECRETS,
    TYPE_CPUID,
};

#define ID_KEY_SIZE             0x404

typedef struct SnpGuest {
    uint64_t gctx;
    uint8_t state;
    bool imi;
    bool vcek_disabled;
    bool author_key;
    uint32_t asid;              /* 0: not active */
    uint64_t policy;
    uint32_t tsc_khz;
    uint32_t guest_svn;
    uint8_t gosvw[16];
    uint8_t ld[48];
    uint8_t host_data[32];
    uint8_t family_id[16];
    uint8_t image_id[16];
    uint8_t id_key_digest[48];
    uint8_t author_key_digest[48];
    uint8_t report_id[32];
    uint8_t vmpck[4][32];
    uint64_t msg_count[4];
} SnpGuest;

/* ---- Finding and dropping guests --------------------------------------- */

static void snp_release_asid(AmdPspState *s, SnpGuest *g)
{
    if (g->asid) {
        psp_release_asid(s, g->asid);
        g->asid = 0;
    }
}

void psp_snp_reset(AmdPspState *s)
{
    g_hash_table_remove_all(s->snp_guests);
}

uint32_t psp_snp_guest_count(AmdPspState *s)
{
    return g_hash_table_size(s->snp_guests);
}

/* The context page's own checks: after those of parameters and platform. */
static PspStatus snp_find(AmdPspState *s, uint64_t gctx, SnpGuest **g)
{
    PspPageState state;
    SnpRmpEntry e;
    PspStatus st;

    gctx &= ~SEV_C_BIT;
    st = psp_lookup(s, gctx, &e, &state);
    if (st) {
        return st;
    }
    if (state != PAGE_CONTEXT) {
        return PSP_INVALID_GUEST;
    }
    *g = g_hash_table_lookup(s->snp_guests, &gctx);
    return *g ? PSP_SUCCESS : PSP_INVALID_GUEST;
}

/* How commands that name a guest begin; @reserved: any reserved bit is set. */
static PspStatus snp_get(AmdPspState *s, uint64_t gctx, bool reserved,
                         SnpGuest **g)
{
    if (gctx & 0xfff || reserved) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    return snp_find(s, gctx, g);
}

/* ---- Life cycle -------------------------------------------------------- */

PspStatus psp_snp_gctx_create(AmdPspState *s, uint8_t *buf)
{
    static const uint8_t zero[4096];
    uint64_t addr = ldq_le_p(buf);
    PspPageState state;
    SnpRmpEntry e;
    SnpGuest *g;
    PspStatus st;

    if (addr & 0xfff) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    addr &= ~SEV_C_BIT;
    st = psp_lookup(s, addr, &e, &state);
    if (st) {
        return st;
    }
    if (state != PAGE_FIRMWARE) {
        return PSP_INVALID_PAGE_STATE;
    }
    if (e.size_2m) {
        return PSP_INVALID_PAGE_SIZE;
    }
    st = psp_check_address(s, &addr, 4 * KiB);
    if (st) {
        return st;
    }
    psp_write(s, addr, zero, sizeof(zero));
    snp_rmp_lock();
    psp_set_page_state(s, addr, PAGE_CONTEXT);
    snp_rmp_unlock();

    g = g_new0(SnpGuest, 1);
    g->gctx = addr;
    g_hash_table_replace(s->snp_guests, &g->gctx, g);
    return PSP_SUCCESS;
}

PspStatus psp_snp_decommission(AmdPspState *s, uint8_t *buf)
{
    SnpGuest *g;
    PspStatus st = snp_get(s, ldq_le_p(buf), false, &g);
    uint64_t gctx;

    if (st) {
        return st;
    }
    gctx = g->gctx;
    snp_release_asid(s, g);
    g_hash_table_remove(s->snp_guests, &gctx);
    snp_rmp_lock();
    psp_set_page_state(s, gctx, PAGE_FIRMWARE);
    snp_rmp_unlock();
    return PSP_SUCCESS;
}

PspStatus psp_snp_launch_start(AmdPspState *s, uint8_t *buf)
{
    uint64_t policy = ldq_le_p(buf + 8);
    uint32_t flags = ldl_le_p(buf + 0x18);
    SnpGuest *g;
    PspStatus st = snp_get(s, ldq_le_p(buf), flags & ~3U, &g);

    if (st) {
        return st;
    }
    if (g->state != GUEST_INIT) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!(policy & POLICY_RESERVED_ONE) || policy & POLICY_RESERVED ||
        (!(policy & POLICY_SMT) && current_machine->smp.threads > 1) ||
        extract64(policy, 0, 16) > (PSP_API_MAJOR << 8 | PSP_API_MINOR)) {
        return PSP_POLICY_FAILURE;
    }
    if (flags & 1) {
        /* No migration agents in this model. */
        return policy & POLICY_MIGRATE_MA ? PSP_INVALID_GUEST :
                                            PSP_POLICY_FAILURE;
    }
    g->policy = policy;
    g->imi = flags & 2;
    g->tsc_khz = ldl_le_p(buf + 0x1c);
    memcpy(g->gosvw, buf + 0x20, sizeof(g->gosvw));
    psp_random(g->vmpck, sizeof(g->vmpck));
    psp_random(g->report_id, sizeof(g->report_id));
    g->state = GUEST_LAUNCH;
    return PSP_SUCCESS;
}

/* Number of pages that belong to the ASID, counted in the RMP. */
static uint64_t snp_asid_pages(AmdPspState *s, uint32_t asid)
{
    uint8_t count[8] = {};

    if (asid < 2048) {
        psp_read(s, psp_env()->sev.rmp_base + asid * 8, count, sizeof(count));
    }
    return ldq_le_p(count);
}

PspStatus psp_snp_activate(AmdPspState *s, uint8_t *buf)
{
    uint32_t asid = ldl_le_p(buf + 8);
    SnpGuest *g;
    PspStatus st = snp_get(s, ldq_le_p(buf), false, &g);

    if (st) {
        return st;
    }
    if (g->state == GUEST_INIT) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (snp_asid_pages(s, asid)) {
        return PSP_INVALID_CONFIG;
    }
    st = psp_asid_available(s, asid, g->asid);
    if (st) {
        return st;
    }
    if (asid >= SEV_MIN_ASID) {
        return PSP_INVALID_ASID;
    }
    s->asid[asid] = g->state == GUEST_RUNNING ? ASID_IN_USE : ASID_ALLOCATED;
    g->asid = asid;
    return PSP_SUCCESS;
}

PspStatus psp_snp_guest_status(AmdPspState *s, uint8_t *buf)
{
    uint64_t gctx = ldq_le_p(buf), addr = ldq_le_p(buf + 8);
    uint8_t out[0x20] = {};
    SnpGuest *g;
    PspStatus st;

    if (gctx & 0xfff || (addr & 0xfff) + sizeof(out) > 4 * KiB) {
        return PSP_INVALID_PARAM;
    }
    st = snp_get(s, gctx, false, &g);
    if (st) {
        return st;
    }
    st = psp_check_output(s, &addr, sizeof(out));
    if (st) {
        return st;
    }
    stq_le_p(out, g->policy);
    stl_le_p(out + 8, g->asid);
    out[0xc] = g->state;
    stl_le_p(out + 0x18, g->tsc_khz);
    psp_write(s, addr, out, sizeof(out));
    return PSP_SUCCESS;
}

/* ---- Launch ------------------------------------------------------------ */

/* Extend the launch digest by one 4K page (ABI table "PAGE_INFO"). */
static void snp_extend_digest(SnpGuest *g, const uint8_t *contents,
                              uint8_t type, bool imi, const uint8_t *perm,
                              uint64_t gpa)
{
    uint8_t info[0x70] = {};

    memcpy(info, g->ld, 48);
    if (contents) {
        memcpy(info + 0x30, contents, 48);
    }
    stw_le_p(info + 0x60, sizeof(info));
    info[0x62] = type;
    info[0x63] = imi;
    memcpy(info + 0x65, perm, 3);
    stq_le_p(info + 0x68, gpa);
    psp_sha384(info, sizeof(info), g->ld);
}

/* GUEST_TSC_SCALE, 8.32 fixed point (APM vol. 2, 15.36.18) */
static uint64_t snp_tsc_scale(SnpGuest *g)
{
    return ((uint64_t)g->tsc_khz << 32) / SNP_REFERENCE_TSC_KHZ;
}

static void snp_secrets_page(SnpGuest *g, uint8_t *page)
{
    memset(page, 0, 4096);
    stl_le_p(page, 3);
    stl_le_p(page + 4, g->imi);
    stl_le_p(page + 8, psp_env()->cpuid_version);
    memcpy(page + 0x10, g->gosvw, 16);
    memcpy(page + 0x20, g->vmpck, sizeof(g->vmpck));
    stl_le_p(page + 0x160, 200);
}

/* One 4K page: make its content, measure it, write it where it changed. */
static PspStatus snp_launch_page(AmdPspState *s, SnpGuest *g, hwaddr addr,
                                 uint8_t type, bool imi, const uint8_t *perm,
                                 uint64_t gpa)
{
    uint8_t page[4096], hash[48];
    const uint8_t *contents = NULL;
    bool change = true;

    if (!psp_read(s, addr, page, sizeof(page))) {
        return PSP_INVALID_ADDRESS;
    }
    switch (type) {
    case TYPE_NORMAL:
        psp_sha384(page, sizeof(page), hash);
        contents = hash;
        change = false;
        break;
    case TYPE_VMSA:
        memset(page + VMSA_TSC_SCALE, 0, 16);
        psp_sha384(page, sizeof(page), hash);
        contents = hash;
        if (ldq_le_p(page + VMSA_SEV_FEATURES) & SEV_FEATURE_SECURE_TSC) {
            stq_le_p(page + VMSA_TSC_SCALE, snp_tsc_scale(g));
        } else {
            psp_read(s, addr + VMSA_TSC_SCALE, page + VMSA_TSC_SCALE, 16);
        }
        stq_le_p(page + VMSA_CRC, 0);
        stq_le_p(page + VMSA_CRC + 8, -1);
        break;
    case TYPE_ZERO:
        memset(page, 0, sizeof(page));
        break;
    case TYPE_UNMEASURED:
        change = false;
        break;
    case TYPE_SECRETS:
        snp_secrets_page(g, page);
        break;
    case TYPE_CPUID:
        if (!psp_check_cpuid_page(page)) {
            psp_write(s, addr, page, sizeof(page));
            return PSP_INVALID_PARAM;
        }
        change = false;
        break;
    }
    if (change) {
        psp_write(s, addr, page, sizeof(page));
    }
    snp_extend_digest(g, contents, type, imi, perm, gpa);
    return PSP_SUCCESS;
}

PspStatus psp_snp_launch_update(AmdPspState *s, uint8_t *buf)
{
    uint32_t word = ldl_le_p(buf + 8);
    bool size_2m = extract32(word, 0, 1);
    uint8_t type = extract32(word, 1, 3);
    bool imi = extract32(word, 4, 1);
    uint64_t addr = ldq_le_p(buf + 0x10);
    const uint8_t *perm = buf + 0x19;       /* VMPL1-3 */
    bool reserved = word >> 5 || ldl_le_p(buf + 0xc) || buf[0x18] ||
                    ldl_le_p(buf + 0x1c);
    uint64_t size = size_2m ? 2 * MiB : 4 * KiB;
    PspPageState state;
    SnpRmpEntry e;
    SnpGuest *g;
    PspStatus st = snp_get(s, ldq_le_p(buf), reserved, &g);

    if (!st) {
        st = psp_check_address(s, &addr, 1);
    }
    if (st) {
        return st;
    }
    addr &= ~0xfffULL;
    st = psp_lookup(s, addr, &e, &state);
    if (st) {
        return st;
    }
    if (state != PAGE_PRE_GUEST) {
        return PSP_INVALID_PAGE_STATE;
    }
    if (size_2m != e.size_2m) {
        return PSP_INVALID_PAGE_SIZE;
    }
    if (addr % size) {
        return PSP_INVALID_ADDRESS;
    }
    if (type < TYPE_NORMAL || type > TYPE_CPUID) {
        return PSP_INVALID_PARAM;
    }
    if (size_2m && (type == TYPE_VMSA || type >= TYPE_SECRETS)) {
        return PSP_INVALID_PAGE_SIZE;
    }
    if (g->state != GUEST_LAUNCH) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    if (e.asid != g->asid) {
        return PSP_INVALID_PAGE_OWNER;
    }
    if (imi && !g->imi) {
        return PSP_INVALID_PARAM;
    }
    for (uint64_t off = 0; off < size; off += 4 * KiB) {
        st = snp_launch_page(s, g, addr + off, type, imi, perm, e.gpa + off);
        if (st) {
            return st;
        }
    }

    /* Still what it was, RMPUPDATE refuses immutable pages: to GUEST_VALID. */
    snp_rmp_lock();
    e.validated = true;
    e.immutable = false;
    e.lock = false;
    e.vmsa = type == TYPE_VMSA;
    memcpy(e.perm + 1, perm, 3);
    snp_rmp_write(psp_env(), addr, &e);
    snp_rmp_unlock();
    return PSP_SUCCESS;
}

/* Offsets: ABI tables "ID Block" and "ID Authentication Information" */
static PspStatus snp_check_id_block(AmdPspState *s, SnpGuest *g,
                                    uint64_t block_addr, uint64_t auth_addr,
                                    bool author_key)
{
    uint8_t block[0x60], auth[0x1000];
    PspStatus st = psp_check_address(s, &block_addr, sizeof(block));

    if (!st) {
        st = psp_check_address(s, &auth_addr, sizeof(auth));
    }
    if (st) {
        return st;
    }
    if (!psp_read(s, block_addr, block, sizeof(block)) ||
        !psp_read(s, auth_addr, auth, sizeof(auth))) {
        return PSP_INVALID_ADDRESS;
    }
    if (memcmp(block, g->ld, 48)) {
        return PSP_BAD_MEASUREMENT;
    }
    if (ldq_le_p(block + 0x58) != g->policy) {
        return PSP_POLICY_FAILURE;
    }
    /* ECDSA P-384 with SHA-384, key on curve P-384 */
    if (ldl_le_p(auth) != 1 || (author_key && ldl_le_p(auth + 4) != 1)) {
        return PSP_INVALID_PARAM;
    }
    if (ldl_le_p(auth + 0x240) != 2 ||
        (author_key && ldl_le_p(auth + 0x880) != 2)) {
        return PSP_BAD_SIGNATURE;
    }
    memcpy(g->family_id, block + 0x30, 16);
    memcpy(g->image_id, block + 0x40, 16);
    g->guest_svn = ldl_le_p(block + 0x54);
    psp_sha384(auth + 0x240, ID_KEY_SIZE, g->id_key_digest);
    if (author_key) {
        psp_sha384(auth + 0x880, MIN(ID_KEY_SIZE, sizeof(auth) - 0x880),
                   g->author_key_digest);
    }
    g->author_key = author_key;
    return PSP_SUCCESS;
}

PspStatus psp_snp_launch_finish(AmdPspState *s, uint8_t *buf)
{
    uint64_t flags = ldq_le_p(buf + 0x18);
    SnpGuest *g;
    PspStatus st = snp_get(s, ldq_le_p(buf), flags & ~7ULL, &g);

    if (st) {
        return st;
    }
    if (g->state != GUEST_LAUNCH || g->imi) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    if (flags & 1) {
        st = snp_check_id_block(s, g, ldq_le_p(buf + 8),
                                ldq_le_p(buf + 0x10), flags & 2);
        if (st) {
            return st;
        }
    }
    g->vcek_disabled = flags & 4;
    memcpy(g->host_data, buf + 0x20, sizeof(g->host_data));
    s->asid[g->asid] = ASID_IN_USE;
    g->state = GUEST_RUNNING;
    return PSP_SUCCESS;
}

/* ---- Debugging --------------------------------------------------------- */

static PspStatus snp_dbg(AmdPspState *s, uint8_t *buf, bool encrypt)
{
    uint64_t gctx = ldq_le_p(buf);
    uint64_t src = ldq_le_p(buf + 8) & ~SEV_C_BIT;
    uint64_t dst = ldq_le_p(buf + 0x10) & ~SEV_C_BIT;
    PspPageState guest_state, other_state;
    SnpRmpEntry guest, other;
    uint8_t page[4096];
    SnpGuest *g;
    PspStatus st;

    if (encrypt && s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if ((gctx | src | dst) & 0xfff) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    st = psp_check_address(s, &src, 4 * KiB);
    if (!st) {
        st = psp_check_address(s, &dst, 4 * KiB);
    }
    if (!st) {
        st = psp_lookup(s, encrypt ? dst : src, &guest, &guest_state);
    }
    if (!st) {
        st = psp_lookup(s, encrypt ? src : dst, &other, &other_state);
    }
    if (!st) {
        st = snp_find(s, gctx, &g);
    }
    if (st) {
        return st;
    }
    if (encrypt ? guest_state != PAGE_PRE_GUEST && guest_state != PAGE_PRE_SWAP
                : guest_state < PAGE_PRE_GUEST ||
                  other_state != PAGE_FIRMWARE) {
        return PSP_INVALID_PAGE_STATE;
    }
    if (guest.asid != g->asid) {
        return PSP_INVALID_PAGE_OWNER;
    }
    if (!(g->policy & POLICY_DEBUG)) {
        return PSP_POLICY_FAILURE;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    if (!psp_read(s, src, page, sizeof(page)) ||
        !psp_write(s, dst, page, sizeof(page))) {
        return PSP_INVALID_ADDRESS;
    }
    return PSP_SUCCESS;
}

PspStatus psp_snp_dbg_decrypt(AmdPspState *s, uint8_t *buf)
{
    return snp_dbg(s, buf, false);
}

PspStatus psp_snp_dbg_encrypt(AmdPspState *s, uint8_t *buf)
{
    return snp_dbg(s, buf, true);
}

/* ---- Pages ------------------------------------------------------------- */

PspStatus psp_snp_page_reclaim(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf);
    bool size_2m = addr & 1;
    PspPageState state;
    SnpRmpEntry e;
    PspStatus st;

    if (addr & 0xffe) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    addr &= ~1ULL;
    st = psp_check_address(s, &addr, size_2m ? 2 * MiB : 4 * KiB);
    if (!st) {
        st = psp_lookup(s, addr, &e, &state);
    }
    if (st) {
        return st;
    }
    if (size_2m != e.size_2m) {
        return PSP_INVALID_PAGE_SIZE;
    }
    if (size_2m && addr % (2 * MiB)) {
        return PSP_INVALID_ADDRESS;
    }
    if (!e.immutable) {
        return PSP_SUCCESS;
    }
    switch (state) {
    case PAGE_METADATA:
    case PAGE_FIRMWARE:
        e.gpa = 0;
        e.vmsa = false;
        break;
    case PAGE_PRE_GUEST:        /* becomes GUEST_INVALID */
    case PAGE_PRE_SWAP:         /* becomes GUEST_VALID */
        break;
    default:
        return PSP_INVALID_PAGE_STATE;
    }
    e.immutable = false;
    e.lock = false;
    snp_rmp_lock();
    snp_rmp_write(psp_env(), addr, &e);
    snp_rmp_unlock();
    return PSP_SUCCESS;
}

PspStatus psp_snp_page_unsmash(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf) & ~SEV_C_BIT;
    CPUX86State *env = psp_env();
    SnpRmpEntry head, e;
    PspStatus st = PSP_SUCCESS;

    if (addr % (2 * MiB)) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if (psp_check_address(s, &addr, 2 * MiB)) {
        return PSP_INVALID_ADDRESS;
    }
    snp_rmp_lock();
    for (uint64_t off = 0; off < 2 * MiB; off += 4 * KiB) {
        if (!snp_rmp_read(env, addr + off, &e)) {
            st = PSP_INVALID_PAGE_STATE;
            break;
        }
        if (!off) {
            head = e;
        }
        if (!e.assigned || e.size_2m || !e.immutable || e.vmsa || !e.asid ||
            e.asid != head.asid || e.validated != head.validated ||
            memcmp(e.perm, head.perm, sizeof(e.perm)) ||
            head.gpa % (2 * MiB) || e.gpa != head.gpa + off) {
            st = PSP_INVALID_PAGE_STATE;
            break;
        }
    }
    if (!st) {
        for (uint64_t off = 4 * KiB; off < 2 * MiB; off += 4 * KiB) {
            snp_rmp_read(env, addr + off, &e);
            e.asid = 0;
            e.immutable = false;
            e.lock = false;
            snp_rmp_write(env, addr + off, &e);
        }
        head.size_2m = true;
        snp_rmp_write(env, addr, &head);
    }
    snp_rmp_unlock();
    if (!st) {
        snp_rmp_flush_tlbs(env);
    }
    return st;
}

PspStatus psp_snp_page_set_state(AmdPspState *s, uint8_t *buf)
{
    uint64_t list = ldq_le_p(buf + 8);
    uint8_t page[4096];
    PspStatus st;
    uint32_t n;

    if (ldl_le_p(buf) != 0x10) {
        return PSP_INVALID_LENGTH;
    }
    if (ldl_le_p(buf + 4) || list & 0xfff) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    st = psp_check_address(s, &list, sizeof(page));
    if (st) {
        return st;
    }
    if (!psp_read(s, list, page, sizeof(page))) {
        return PSP_INVALID_ADDRESS;
    }
    n = MIN(ldl_le_p(page), 255);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < n; i++) {
            uint64_t base = ldq_le_p(page + 8 + i * 16) & ~SEV_C_BIT;
            uint64_t count = ldl_le_p(page + 8 + i * 16 + 8);

            if (base % (2 * MiB)) {
                return PSP_INVALID_PARAM;
            }
            st = psp_check_address(s, &base, count * 4 * KiB);
            if (st) {
                return st;
            }
            for (uint64_t k = 0; k < count; k++) {
                PspPageState state;
                SnpRmpEntry e;

                st = psp_lookup(s, base + k * 4 * KiB, &e, &state);
                if (st) {
                    return st;
                }
                if (!pass && state != PAGE_FIRMWARE) {
                    return PSP_INVALID_PAGE_STATE;
                }
                if (pass) {
                    psp_set_page_state(s, base + k * 4 * KiB, PAGE_HV_FIXED);
                }
            }
        }
    }
    return PSP_SUCCESS;
}

/* ---- Messages from guests (ABI 7, 8.26) --------------------------------- */

enum {
    MSG_CPUID_REQ = 1,
    MSG_KEY_REQ = 3,
    MSG_REPORT_REQ = 5,
    MSG_TSC_INFO_REQ = 17,
};

#define MSG_HDR_SIZE            0x60
#define MSG_AAD                 0x30
#define REPORT_SIZE             0x4a0

/* Request at @req, reply to @out: its size. Guests' mistakes go in there. */
static size_t snp_msg_report(AmdPspState *s, SnpGuest *g, int vmpck,
                             const uint8_t *req, uint8_t *out)
{
    uint32_t vmpl = ldl_le_p(req + 0x40);
    uint8_t *r = out + 0x20;

    stl_le_p(out + 4, REPORT_SIZE);
    if (vmpl > 3 || vmpl < vmpck || ldl_le_p(req + 0x44) > 2 ||
        !buffer_is_zero(req + 0x48, 0x18)) {
        stl_le_p(out, PSP_INVALID_PARAM);
        return 0x20 + REPORT_SIZE;
    }
    if (ldl_le_p(req + 0x44) == 2) {
        stl_le_p(out, PSP_INVALID_KEY);         /* no VLEK is loaded */
        return 0x20 + REPORT_SIZE;
    }
    stl_le_p(r, 2);
    stl_le_p(r + 4, g->guest_svn);
    stq_le_p(r + 8, g->policy);
    memcpy(r + 0x10, g->family_id, 16);
    memcpy(r + 0x20, g->image_id, 16);
    stl_le_p(r + 0x30, vmpl);
    stl_le_p(r + 0x34, 1);
    stq_le_p(r + 0x38, PSP_TCB);
    stq_le_p(r + 0x40, current_machine->smp.threads > 1);
    /* Not signed: signing key "none" */
    stl_le_p(r + 0x48, g->author_key | 7U << 2);
    memcpy(r + 0x50, req, 64);
    memcpy(r + 0x90, g->ld, 48);
    memcpy(r + 0xc0, g->host_data, 32);
    memcpy(r + 0xe0, g->id_key_digest, 48);
    memcpy(r + 0x110, g->author_key_digest, 48);
    memcpy(r + 0x140, g->report_id, 32);
    memset(r + 0x160, 0xff, 32);
    stq_le_p(r + 0x180, s->reported_tcb);
    if (!(s->config_mask & 1)) {
        memcpy(r + 0x1a0, s->chip_id, 64);
    }
    stq_le_p(r + 0x1e0, s->committed_tcb);
    for (int i = 0x1e8; i <= 0x1ec; i += 4) {   /* current, committed */
        r[i] = PSP_BUILD;
        r[i + 1] = PSP_API_MINOR;
        r[i + 2] = PSP_API_MAJOR;
    }
    stq_le_p(r + 0x1f0, PSP_TCB);
    return 0x20 + REPORT_SIZE;
}

static size_t snp_msg_key(AmdPspState *s, SnpGuest *g, int vmpck,
                          const uint8_t *req, uint8_t *out)
{
    uint64_t fields = ldq_le_p(req + 8);
    uint32_t vmpl = ldl_le_p(req + 0x10);
    uint8_t in[0x140] = {}, hash[48];

    if (ldl_le_p(req) & ~7U || ldl_le_p(req + 4) || fields & ~0x3fULL ||
        vmpl > 3 || vmpl < vmpck || ldl_le_p(req + 0x14) > g->guest_svn) {
        stl_le_p(out, PSP_INVALID_PARAM);
        return 0x40;
    }
    memcpy(in, s->secret, 32);
    memcpy(in + 0x20, req, 0x20);
    if (fields & 1) {
        stq_le_p(in + 0x40, g->policy);
    }
    if (fields & 2) {
        memcpy(in + 0x48, g->image_id, 16);
    }
    if (fields & 4) {
        memcpy(in + 0x58, g->family_id, 16);
    }
    if (fields & 8) {
        memcpy(in + 0x68, g->ld, 48);
    }
    memcpy(in + 0x98, g->id_key_digest, 48);
    memcpy(in + 0xc8, g->author_key_digest, 48);
    memcpy(in + 0xf8, g->host_data, 32);
    psp_sha384(in, sizeof(in), hash);
    memcpy(out + 0x20, hash, 32);
    return 0x40;
}

static size_t snp_msg_tsc_info(SnpGuest *g, uint8_t *out)
{
    stq_le_p(out + 8, snp_tsc_scale(g));
    stl_le_p(out + 0x18, 200);
    return 0x80;
}

PspStatus psp_snp_guest_request(AmdPspState *s, uint8_t *buf)
{
    uint64_t gctx = ldq_le_p(buf);
    uint64_t req_addr = ldq_le_p(buf + 8), rsp_addr = ldq_le_p(buf + 0x10);
    uint8_t page[4096], rsp[4096] = {}, iv[12] = {};
    PspPageState req_state, rsp_state;
    SnpRmpEntry req_e, rsp_e;
    uint64_t seqno;
    uint16_t size;
    uint32_t vmpck;
    size_t len;
    SnpGuest *g;
    PspStatus st;

    if (gctx & 0xfff) {
        return PSP_INVALID_PARAM;
    }
    if (s->snp_state != SNP_INIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    st = psp_check_address(s, &req_addr, MSG_HDR_SIZE);
    if (!st) {
        st = psp_check_address(s, &rsp_addr, MSG_HDR_SIZE);
    }
    if (!st) {
        st = psp_lookup(s, req_addr, &req_e, &req_state);
    }
    if (!st) {
        st = psp_lookup(s, rsp_addr, &rsp_e, &rsp_state);
    }
    if (!st) {
        st = snp_find(s, gctx, &g);
    }
    if (st) {
        return st;
    }
    if (rsp_state != PAGE_FIRMWARE) {
        return PSP_INVALID_PAGE_STATE;
    }
    if (req_e.size_2m || rsp_e.size_2m) {
        return PSP_INVALID_PAGE_SIZE;
    }
    if (g->state != GUEST_RUNNING) {
        return PSP_INVALID_GUEST_STATE;
    }
    len = 4 * KiB - (req_addr & 0xfff);
    if (len < MSG_HDR_SIZE || !psp_read(s, req_addr, page, len)) {
        return PSP_INVALID_PARAM;
    }
    size = lduw_le_p(page + 0x36);
    vmpck = page[0x3c];
    if (page[0x31] != 1 || lduw_le_p(page + 0x32) != MSG_HDR_SIZE ||
        page[0x30] != 1 || !size || size & 15 ||
        MSG_HDR_SIZE + size > len || vmpck > 3) {
        return PSP_INVALID_PARAM;
    }
    seqno = ldq_le_p(page + 0x20);
    stq_le_p(iv, seqno);
    if (!amd_psp_gcm_decrypt(g->vmpck[vmpck], iv, page + MSG_AAD,
                             MSG_HDR_SIZE - MSG_AAD, page + MSG_HDR_SIZE,
                             size, page)) {
        return PSP_BAD_MEASUREMENT;
    }
    if (seqno != g->msg_count[vmpck] + 1 ||
        g->msg_count[vmpck] == UINT64_MAX - 1) {
        return PSP_AEAD_OFLOW;
    }
    if (page[0x35] != 1) {
        return PSP_INVALID_PARAM;
    }
    /* A message that is too short for its type reads zeros. */
    memset(page + MSG_HDR_SIZE + size, 0, sizeof(page) - MSG_HDR_SIZE - size);
    switch (page[0x34]) {
    case MSG_KEY_REQ:
        len = snp_msg_key(s, g, vmpck, page + MSG_HDR_SIZE,
                          rsp + MSG_HDR_SIZE);
        break;
    case MSG_REPORT_REQ:
        len = snp_msg_report(s, g, vmpck, page + MSG_HDR_SIZE,
                             rsp + MSG_HDR_SIZE);
        break;
    case MSG_TSC_INFO_REQ:
        len = snp_msg_tsc_info(g, rsp + MSG_HDR_SIZE);
        break;
    default:
        return PSP_INVALID_PARAM;
    }
    if ((rsp_addr & 0xfff) + MSG_HDR_SIZE + len > 4 * KiB) {
        return PSP_INVALID_PARAM;
    }

    g->msg_count[vmpck] += 2;
    memcpy(rsp + MSG_AAD, page + MSG_AAD, MSG_HDR_SIZE - MSG_AAD);
    stq_le_p(rsp + 0x20, seqno + 1);
    rsp[0x34] = page[0x34] + 1;
    stw_le_p(rsp + 0x36, len);
    stq_le_p(iv, seqno + 1);
    amd_psp_gcm_encrypt(g->vmpck[vmpck], iv, rsp + MSG_AAD,
                        MSG_HDR_SIZE - MSG_AAD, rsp + MSG_HDR_SIZE, len, rsp);
    psp_write(s, rsp_addr, rsp, MSG_HDR_SIZE + len);
    return PSP_SUCCESS;
}
