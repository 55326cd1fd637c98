/*
 * AES-256-GCM (NIST SP 800-38D) for the messages between an SNP guest and the
 * security processor: 96-bit IV, 128-bit tag, data and AAD in whole blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_AMD_PSP_GCM_H
#define HW_I386_AMD_PSP_GCM_H

void amd_psp_gcm_encrypt(const uint8_t key[32], const uint8_t iv[12],
                         const uint8_t *aad, size_t aad_len,
                         uint8_t *data, size_t len, uint8_t tag[16]);

/* False, with @data in an undefined state, if the tag does not fit. */
bool amd_psp_gcm_decrypt(const uint8_t key[32], const uint8_t iv[12],
                         const uint8_t *aad, size_t aad_len,
                         uint8_t *data, size_t len, const uint8_t tag[16]);

#endif
