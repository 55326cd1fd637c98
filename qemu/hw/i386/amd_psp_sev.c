/*
 * AMD security processor: SEV and SEV-ES guests (SEV API 6)
 *
 * Memory is not encrypted, so that "encrypting in place" only extends the
 * launch digest, and the debug commands copy. Sessions with a guest owner
 * (certificates, secrets bound to them) and migration are not modelled.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "crypto/hash.h"
#include "crypto/hmac.h"
#include "qapi/error.h"
#include "qemu/units.h"
#include "amd_psp_internal.h"

#define SEV_MAX_GUESTS          1024

#define POLICY_NODBG            (1U << 0)
#define POLICY_NOKS             (1U << 1)
#define POLICY_ES               (1U << 2)

#define SESSION_SIZE            0x80
#define CERT_SIZE               0x824

/* VMSA: checksum and the address of one, firmware's own fields */
#define VMSA_CRC                0x380

/* SEV API table "Guest state" */
enum {
    GUEST_NONE,
    GUEST_LUPDATE,
    GUEST_LSECRET,
    GUEST_RUNNING,
};

typedef struct SevGuest {
    uint32_t handle;
    uint32_t policy;
    uint32_t asid;              /* 0: not active */
    uint8_t state;
    QCryptoHash *digest;        /* of all plaintext, in order */
    uint8_t ld[32];
} SevGuest;

static SevGuest *sev_find(AmdPspState *s, uint32_t handle)
{
    return g_hash_table_lookup(s->sev_guests, GUINT_TO_POINTER(handle));
}

/* The check that opens most commands: WORKING, and the handle is known. */
static PspStatus sev_get(AmdPspState *s, uint32_t handle, SevGuest **g)
{
    if (s->sev_state != SEV_WORKING) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    *g = sev_find(s, handle);
    return *g ? PSP_SUCCESS : PSP_INVALID_GUEST;
}

static void sev_release_asid(AmdPspState *s, SevGuest *g)
{
    if (g->asid) {
        psp_release_asid(s, g->asid);
        g->asid = 0;
    }
}

static void sev_guest_free(AmdPspState *s, SevGuest *g)
{
    sev_release_asid(s, g);
    qcrypto_hash_free(g->digest);
    g_hash_table_remove(s->sev_guests, GUINT_TO_POINTER(g->handle));
}

void psp_sev_reset(AmdPspState *s)
{
    GList *guests = g_hash_table_get_values(s->sev_guests);

    for (GList *l = guests; l; l = l->next) {
        sev_guest_free(s, l->data);
    }
    g_list_free(guests);
    s->next_handle = 1;
}

uint32_t psp_sev_guest_count(AmdPspState *s)
{
    return g_hash_table_size(s->sev_guests);
}

PspStatus psp_sev_launch_start(AmdPspState *s, uint8_t *buf)
{
    uint32_t handle = ldl_le_p(buf);
    uint32_t policy = ldl_le_p(buf + 4);
    uint64_t cert = ldq_le_p(buf + 8);
    SevGuest *g;

    if (s->sev_state == SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if (cert) {
        if (ldl_le_p(buf + 0x20) != SESSION_SIZE ||
            ldl_le_p(buf + 0x10) != CERT_SIZE) {
            return PSP_INVALID_LENGTH;
        }
        /* No guest owner can have a certificate of this platform. */
        return PSP_INVALID_CERTIFICATE;
    }
    if (extract32(policy, 16, 8) > PSP_API_MAJOR ||
        (extract32(policy, 16, 8) == PSP_API_MAJOR &&
         extract32(policy, 24, 8) > PSP_API_MINOR) ||
        extract32(policy, 6, 10)) {
        return PSP_POLICY_FAILURE;
    }
    if (handle) {
        SevGuest *shared = sev_find(s, handle);

        if (!shared) {
            return PSP_INVALID_GUEST;
        }
        if (shared->policy != policy || policy & POLICY_NOKS) {
            return PSP_POLICY_FAILURE;
        }
    }
    if (psp_sev_guest_count(s) >= SEV_MAX_GUESTS) {
        return PSP_RESOURCE_LIMIT;
    }
    if (policy & POLICY_ES && !s->sev_es) {
        return PSP_UNSUPPORTED;
    }

    do {
        handle = s->next_handle++;
    } while (!handle || sev_find(s, handle));
    g = g_new0(SevGuest, 1);
    g->handle = handle;
    g->policy = policy;
    g->state = GUEST_LUPDATE;
    g->digest = qcrypto_hash_new(QCRYPTO_HASH_ALGO_SHA256, &error_abort);
    g_hash_table_insert(s->sev_guests, GUINT_TO_POINTER(handle), g);
    s->sev_state = SEV_WORKING;
    stl_le_p(buf, handle);
    return PSP_SUCCESS;
}

PspStatus psp_sev_activate(AmdPspState *s, uint8_t *buf)
{
    uint32_t asid = ldl_le_p(buf + 4);
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    st = psp_asid_available(s, asid, g->asid);
    if (st) {
        return st;
    }
    if ((asid < SEV_MIN_ASID) != !!(g->policy & POLICY_ES)) {
        return PSP_INVALID_ASID;
    }
    s->asid[asid] = g->state == GUEST_RUNNING ? ASID_IN_USE : ASID_ALLOCATED;
    g->asid = asid;
    return PSP_SUCCESS;
}

PspStatus psp_sev_deactivate(AmdPspState *s, uint8_t *buf)
{
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    sev_release_asid(s, g);
    return PSP_SUCCESS;
}

PspStatus psp_sev_decommission(AmdPspState *s, uint8_t *buf)
{
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (g->asid) {
        return PSP_ACTIVE;
    }
    sev_guest_free(s, g);
    if (!psp_sev_guest_count(s)) {
        s->sev_state = SEV_INIT;
    }
    return PSP_SUCCESS;
}

PspStatus psp_sev_guest_status(AmdPspState *s, uint8_t *buf)
{
    SevGuest *g = sev_find(s, ldl_le_p(buf));

    if (s->sev_state == SEV_UNINIT) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    /* An unknown handle is not an error, it has state "none". */
    stl_le_p(buf + 4, g ? g->policy : 0);
    stl_le_p(buf + 8, g ? g->asid : 0);
    buf[0xc] = g ? g->state : GUEST_NONE;
    return PSP_SUCCESS;
}

/* Adds memory that has been checked to the digest. */
static void sev_measure(AmdPspState *s, SevGuest *g, hwaddr addr,
                        uint32_t len)
{
    uint8_t page[4096];

    while (len) {
        uint32_t n = MIN(len, sizeof(page));

        if (!psp_read(s, addr, page, n)) {
            memset(page, 0, n);
        }
        qcrypto_hash_update(g->digest, (const char *)page, n, &error_abort);
        addr += n;
        len -= n;
    }
}

PspStatus psp_sev_launch_update_data(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf + 8);
    uint32_t len = ldl_le_p(buf + 0x10);
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (g->state != GUEST_LUPDATE) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    if (addr & 15) {
        return PSP_INVALID_ADDRESS;
    }
    if (!len || len & 15) {
        return PSP_INVALID_LENGTH;
    }
    st = psp_check_output(s, &addr, len);
    if (st) {
        return st;
    }
    sev_measure(s, g, addr, len);
    return PSP_SUCCESS;
}

PspStatus psp_sev_launch_update_vmsa(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf + 8);
    uint32_t len = ldl_le_p(buf + 0x10);
    uint8_t out[16];
    SevGuest *g;
    PspStatus st;

    if (len != 4 * KiB) {
        return PSP_INVALID_LENGTH;
    }
    st = sev_get(s, ldl_le_p(buf), &g);
    if (st) {
        return st;
    }
    if (g->state != GUEST_LUPDATE) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!(g->policy & POLICY_ES)) {
        return PSP_UNSUPPORTED;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    if (addr & 15) {
        return PSP_INVALID_ADDRESS;
    }
    st = psp_check_output(s, &addr, len);
    if (st) {
        return st;
    }
    if (!s->df_flushed) {
        return PSP_RESOURCE_LIMIT;
    }
    sev_measure(s, g, addr, len);
    /* There is no checksum of the VMSA in this model: no address of one. */
    stq_le_p(out, 0);
    stq_le_p(out + 8, -1);
    psp_write(s, addr + VMSA_CRC, out, sizeof(out));
    return PSP_SUCCESS;
}

PspStatus psp_sev_launch_measure(AmdPspState *s, uint8_t *buf)
{
    uint64_t addr = ldq_le_p(buf + 8);
    uint32_t len = ldl_le_p(buf + 0x10);
    uint8_t msg[8 + 32 + 16], out[0x30];
    static const uint8_t tik[16];       /* no session: no key of the owner */
    uint8_t *digest;
    size_t n = 32;
    SevGuest *g;
    QCryptoHmac *hmac;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (g->state != GUEST_LUPDATE) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (len < sizeof(out)) {
        stl_le_p(buf + 0x10, sizeof(out));
        return PSP_INVALID_LENGTH;
    }
    st = psp_check_output(s, &addr, sizeof(out));
    if (st) {
        return st;
    }

    digest = g->ld;
    qcrypto_hash_finalize_bytes(g->digest, &digest, &n, &error_abort);
    msg[0] = 4;
    msg[1] = PSP_API_MAJOR;
    msg[2] = PSP_API_MINOR;
    msg[3] = PSP_BUILD;
    stl_le_p(msg + 4, g->policy);
    memcpy(msg + 8, g->ld, 32);
    psp_random(msg + 40, 16);
    hmac = qcrypto_hmac_new(QCRYPTO_HASH_ALGO_SHA256, tik, sizeof(tik),
                            &error_abort);
    digest = out;
    n = 32;
    qcrypto_hmac_bytes(hmac, (const char *)msg, sizeof(msg), &digest, &n,
                       &error_abort);
    qcrypto_hmac_free(hmac);
    memcpy(out + 32, msg + 40, 16);
    psp_write(s, addr, out, sizeof(out));
    g->state = GUEST_LSECRET;
    return PSP_SUCCESS;
}

PspStatus psp_sev_launch_secret(AmdPspState *s, uint8_t *buf)
{
    uint64_t guest = ldq_le_p(buf + 0x18), trans = ldq_le_p(buf + 0x28);
    uint32_t guest_len = ldl_le_p(buf + 0x20);
    uint32_t trans_len = ldl_le_p(buf + 0x30);
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (guest & 15 || trans & 15) {
        return PSP_INVALID_ADDRESS;
    }
    if (!guest_len || guest_len & 15 || guest_len > 16 * KiB ||
        trans_len < guest_len) {
        return PSP_INVALID_LENGTH;
    }
    if (g->state != GUEST_LSECRET) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    st = psp_check_output(s, &guest, guest_len);
    if (st) {
        return st;
    }
    /* Nobody shares a transport key with this guest. */
    return PSP_BAD_MEASUREMENT;
}

PspStatus psp_sev_launch_finish(AmdPspState *s, uint8_t *buf)
{
    SevGuest *g;
    PspStatus st = sev_get(s, ldl_le_p(buf), &g);

    if (st) {
        return st;
    }
    if (g->state != GUEST_LSECRET) {
        return PSP_INVALID_GUEST_STATE;
    }
    if (g->asid) {
        s->asid[g->asid] = ASID_IN_USE;
    }
    g->state = GUEST_RUNNING;
    return PSP_SUCCESS;
}

static PspStatus sev_dbg(AmdPspState *s, uint8_t *buf)
{
    uint64_t src = ldq_le_p(buf + 8), dst = ldq_le_p(buf + 0x10);
    uint32_t len = ldl_le_p(buf + 0x18);
    uint8_t page[4096];
    SevGuest *g;
    PspStatus st;

    if (s->sev_state != SEV_WORKING) {
        return PSP_INVALID_PLATFORM_STATE;
    }
    if ((src | dst) & 15) {
        return PSP_INVALID_ADDRESS;
    }
    if (!len || len & 15) {
        return PSP_INVALID_LENGTH;
    }
    st = sev_get(s, ldl_le_p(buf), &g);
    if (st) {
        return st;
    }
    if (g->policy & POLICY_NODBG) {
        return PSP_POLICY_FAILURE;
    }
    st = psp_check_address(s, &src, len);
    if (!st) {
        st = psp_check_output(s, &dst, len);
    }
    if (st) {
        return st;
    }
    if (!g->asid) {
        return PSP_INACTIVE;
    }
    while (len) {
        uint32_t n = MIN(len, sizeof(page));

        if (!psp_read(s, src, page, n) || !psp_write(s, dst, page, n)) {
            return PSP_INVALID_ADDRESS;
        }
        src += n;
        dst += n;
        len -= n;
    }
    return PSP_SUCCESS;
}

PspStatus psp_sev_dbg_decrypt(AmdPspState *s, uint8_t *buf)
{
    return sev_dbg(s, buf);
}

PspStatus psp_sev_dbg_encrypt(AmdPspState *s, uint8_t *buf)
{
    return sev_dbg(s, buf);
}
