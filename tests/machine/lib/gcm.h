/*
 * Machine tests: AES-256-GCM, as guests speak it with the security processor
 * (SEV-SNP Firmware ABI 8.26). Data and AAD are whole blocks.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef GCM_H
#define GCM_H

#include "machine.h"

/* Encrypts @data in place and makes the tag; or the other way round. */
void gcm_seal(const u8 key[32], const u8 iv[12], const u8 *aad, u32 aad_len,
	      u8 *data, u32 len, u8 tag[16]);
bool gcm_open(const u8 key[32], const u8 iv[12], const u8 *aad, u32 aad_len,
	      u8 *data, u32 len, const u8 tag[16]);

#endif
