/*
 * AES-256-GCM (NIST SP 800-38D) for the messages between an SNP guest and the
 * security processor. QEMU's crypto layer has no AEAD interface; speed does
 * not matter here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "crypto/aes.h"
#include "amd_psp_gcm.h"

typedef struct Gcm {
    AES_KEY key;
    uint64_t h[2];              /* hash key, most significant first */
    uint64_t y[2];              /* running hash */
    uint8_t counter[16];
} Gcm;

static void gcm_mul(Gcm *g)
{
    uint64_t z[2] = {}, v[2] = { g->h[0], g->h[1] };

    for (int i = 0; i < 128; i++) {
        uint64_t bit = g->y[i / 64] >> (63 - i % 64) & 1;
        uint64_t carry = v[1] & 1;

        z[0] ^= v[0] & -bit;
        z[1] ^= v[1] & -bit;
        v[1] = v[1] >> 1 | v[0] << 63;
        v[0] = v[0] >> 1 ^ (0xe1ULL << 56 & -carry);
    }
    g->y[0] = z[0];
    g->y[1] = z[1];
}

static void gcm_hash(Gcm *g, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 16) {
        uint8_t block[16] = {};

        memcpy(block, data + i, MIN(16, len - i));
        g->y[0] ^= ldq_be_p(block);
        g->y[1] ^= ldq_be_p(block + 8);
        gcm_mul(g);
    }
}

static void gcm_crypt(Gcm *g, uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += 16) {
        uint8_t stream[16];

        stl_be_p(g->counter + 12, ldl_be_p(g->counter + 12) + 1);
        AES_encrypt(g->counter, stream, &g->key);
        for (size_t k = 0; k < 16 && i + k < len; k++) {
            data[i + k] ^= stream[k];
        }
    }
}

static void gcm_init(Gcm *g, const uint8_t key[32], const uint8_t iv[12],
                     const uint8_t *aad, size_t aad_len)
{
    uint8_t h[16] = {};

    memset(g, 0, sizeof(*g));
    AES_set_encrypt_key(key, 256, &g->key);
    AES_encrypt(h, h, &g->key);
    g->h[0] = ldq_be_p(h);
    g->h[1] = ldq_be_p(h + 8);
    memcpy(g->counter, iv, 12);
    g->counter[15] = 1;
    gcm_hash(g, aad, aad_len);
}

static void gcm_tag(Gcm *g, const uint8_t iv[12], size_t aad_len, size_t len,
                    uint8_t tag[16])
{
    uint8_t first[16] = {};

    g->y[0] ^= (uint64_t)aad_len * 8;
    g->y[1] ^= (uint64_t)len * 8;
    gcm_mul(g);
    memcpy(first, iv, 12);
    first[15] = 1;
    AES_encrypt(first, tag, &g->key);
    stq_be_p(tag, ldq_be_p(tag) ^ g->y[0]);
    stq_be_p(tag + 8, ldq_be_p(tag + 8) ^ g->y[1]);
}

void amd_psp_gcm_encrypt(const uint8_t key[32], const uint8_t iv[12],
                         const uint8_t *aad, size_t aad_len,
                         uint8_t *data, size_t len, uint8_t tag[16])
{
    Gcm g;

    gcm_init(&g, key, iv, aad, aad_len);
    gcm_crypt(&g, data, len);
    gcm_hash(&g, data, len);
    gcm_tag(&g, iv, aad_len, len, tag);
}

bool amd_psp_gcm_decrypt(const uint8_t key[32], const uint8_t iv[12],
                         const uint8_t *aad, size_t aad_len,
                         uint8_t *data, size_t len, const uint8_t tag[16])
{
    uint8_t want[16];
    Gcm g;

    gcm_init(&g, key, iv, aad, aad_len);
    gcm_hash(&g, data, len);
    gcm_tag(&g, iv, aad_len, len, want);
    gcm_crypt(&g, data, len);
    return !memcmp(want, tag, sizeof(want));
}
