/*
 * Machine tests: AES-256-GCM (FIPS 197, NIST SP 800-38D), the slow way
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "gcm.h"

#define ROUNDS	14

static u8 sbox[256];

static u8 times2(u8 a)
{
	return a << 1 ^ (a & 0x80 ? 0x1b : 0);
}

/* 3 generates the field: walk it and its inverse at once. */
static void make_sbox(void)
{
	u8 p = 1, q = 1;

	do {
		u8 x;

		p ^= times2(p);
		q ^= q << 1;
		q ^= q << 2;
		q ^= q << 4;
		if (q & 0x80)
			q ^= 0x09;
		x = q;
		for (int i = 1; i < 5; i++)
			x ^= (u8)(q << i | q >> (8 - i));
		sbox[p] = x ^ 0x63;
	} while (p != 1);
	sbox[0] = 0x63;
}

static void expand_key(const u8 key[32], u8 w[16 * (ROUNDS + 1)])
{
	u8 rcon = 1;

	memcpy(w, key, 32);
	for (int i = 32; i < 16 * (ROUNDS + 1); i += 4) {
		u8 t[4] = { w[i - 4], w[i - 3], w[i - 2], w[i - 1] };

		if (i % 32 == 0) {
			u8 first = t[0];

			for (int k = 0; k < 3; k++)
				t[k] = sbox[t[k + 1]];
			t[3] = sbox[first];
			t[0] ^= rcon;
			rcon = times2(rcon);
		} else if (i % 32 == 16) {
			for (int k = 0; k < 4; k++)
				t[k] = sbox[t[k]];
		}
		for (int k = 0; k < 4; k++)
			w[i + k] = w[i + k - 32] ^ t[k];
	}
}

static void aes(const u8 *w, const u8 in[16], u8 out[16])
{
	u8 s[16], t[16];

	for (int i = 0; i < 16; i++)
		s[i] = in[i] ^ w[i];
	for (int round = 1; round <= ROUNDS; round++) {
		for (int i = 0; i < 16; i++)
			t[i] = sbox[s[(i + i % 4 * 4) % 16]];
		for (int c = 0; c < 16 && round < ROUNDS; c += 4) {
			u8 all = t[c] ^ t[c + 1] ^ t[c + 2] ^ t[c + 3], first = t[c];

			for (int k = 0; k < 4; k++) {
				u8 next = k < 3 ? t[c + k + 1] : first;

				t[c + k] ^= all ^ times2(t[c + k] ^ next);
			}
		}
		for (int i = 0; i < 16; i++)
			s[i] = t[i] ^ w[round * 16 + i];
	}
	memcpy(out, s, 16);
}

static u64 load(const u8 *p)
{
	return __builtin_bswap64(*(const u64 *)p);
}

static void store(u8 *p, u64 v)
{
	*(u64 *)p = __builtin_bswap64(v);
}

static void ghash(u64 y[2], const u64 h[2], u64 hi, u64 lo)
{
	u64 v0 = h[0], v1 = h[1], z0 = 0, z1 = 0;

	y[0] ^= hi;
	y[1] ^= lo;
	for (int i = 0; i < 128; i++) {
		bool odd = v1 & 1;

		if (y[i / 64] >> (63 - i % 64) & 1) {
			z0 ^= v0;
			z1 ^= v1;
		}
		v1 = v1 >> 1 | v0 << 63;
		v0 = v0 >> 1 ^ (odd ? 0xe1UL << 56 : 0);
	}
	y[0] = z0;
	y[1] = z1;
}

static void gcm(const u8 key[32], const u8 iv[12], const u8 *aad, u32 aad_len,
		u8 *data, u32 len, u8 tag[16], bool seal)
{
	u8 w[16 * (ROUNDS + 1)], counter[16] = {}, block[16] = {};
	u64 h[2], y[2] = {};

	make_sbox();
	expand_key(key, w);
	aes(w, block, block);
	h[0] = load(block);
	h[1] = load(block + 8);
	memcpy(counter, iv, 12);

	for (u32 i = 0; i < aad_len; i += 16)
		ghash(y, h, load(aad + i), load(aad + i + 8));
	for (u32 i = 0; i < len; i += 16) {
		u32 n = i / 16 + 2;

		if (!seal)
			ghash(y, h, load(data + i), load(data + i + 8));
		*(u32 *)(counter + 12) = __builtin_bswap32(n);
		aes(w, counter, block);
		for (int k = 0; k < 16; k++)
			data[i + k] ^= block[k];
		if (seal)
			ghash(y, h, load(data + i), load(data + i + 8));
	}
	ghash(y, h, aad_len * 8UL, len * 8UL);
	*(u32 *)(counter + 12) = __builtin_bswap32(1);
	aes(w, counter, block);
	store(tag, y[0] ^ load(block));
	store(tag + 8, y[1] ^ load(block + 8));
}

void gcm_seal(const u8 key[32], const u8 iv[12], const u8 *aad, u32 aad_len,
	      u8 *data, u32 len, u8 tag[16])
{
	gcm(key, iv, aad, aad_len, data, len, tag, true);
}

bool gcm_open(const u8 key[32], const u8 iv[12], const u8 *aad, u32 aad_len,
	      u8 *data, u32 len, const u8 tag[16])
{
	u8 seen[16];

	gcm(key, iv, aad, aad_len, data, len, seen, false);
	return !memcmp(seen, tag, 16);
}
