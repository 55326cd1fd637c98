/*
 * XSAVEC and the compacted form of XRSTOR (APM vol. 2, 11.5; vol. 4)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "machine.h"

#define X87		BIT(0)
#define SSE		BIT(1)
#define AVX		BIT(2)
#define PKRU		BIT(9)
#define COMPACTED	BIT(63)


/* Offsets in the save area */
#define MXCSR		24
#define XMM(n)		(160 + (n) * 16)
#define XSTATE_BV	512
#define XCOMP_BV	520
#define RESERVED	528
#define EXTENDED	576

static u8 area[4096] __attribute__((aligned(64)));
static u8 copy[4096] __attribute__((aligned(64)));
static const u64 low[2] = { 0x1111111111111111, 0x2222222222222222 };
static const u64 high[2] = { 0x3333333333333333, 0x4444444444444444 };

static u64 *field(unsigned int offset)
{
	return (u64 *)(area + offset);
}

static u32 xsavec(u64 mask)
{
	EX_BEGIN();
	asm volatile(EX("xsavec64 (%0)") : : "r"(area), "a"((u32)mask),
		     "d"((u32)(mask >> 32)) : "memory");
	return ex_vector;
}

static u32 xrstor(u64 mask)
{
	EX_BEGIN();
	asm volatile(EX("xrstor64 (%0)") : : "r"(area), "a"((u32)mask),
		     "d"((u32)(mask >> 32)) : "memory");
	return ex_vector;
}

/* YMM5 = high:low, and PKRU */
static void load(const u64 *lo, const u64 *hi, u32 pkru)
{
	u64 v[4] = { lo[0], lo[1], hi[0], hi[1] };

	asm volatile("vmovdqu (%0), %%ymm5" : : "r"(v) : "memory");
	asm volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0));
}

static void store(u64 *v, u32 *pkru)
{
	u32 edx;

	asm volatile("vmovdqu %%ymm5, (%0)" : : "r"(v) : "memory");
	asm volatile("rdpkru" : "=a"(*pkru), "=d"(edx) : "c"(0));
}

static u32 area_size(void)
{
	u32 a, b, c, d;

	cpuid(0xd, 1, &a, &b, &c, &d);
	return b;
}

static void set_xcr0(u64 v)
{
	asm volatile("xsetbv" : : "a"((u32)v), "d"((u32)(v >> 32)), "c"(0));
}

void test_main(void)
{
	static const u64 zero[2];
	u32 a, b, c, d, pkru, mxcsr = 0x1f80;
	u64 v[4];

	section("APM2 11.5.9", "XSAVEC writes the compacted form, which XRSTOR reads.");
	cpuid(0xd, 1, &a, &b, &c, &d);
	if (!(a & BIT(1))) {
		skip("no XSAVEC");
		test_done();
	}
	WRITE_CR(4, READ_CR(4) | BIT(18) | BIT(9) | BIT(22));	/* OSXSAVE, PKE */
	set_xcr0(X87 | SSE | AVX | PKRU);
	check_eq(area_size(), EXTENDED + 256 + 8, "size of the area for x87, SSE, AVX, PKRU");
	set_xcr0(X87 | SSE | PKRU);
	check_eq(area_size(), EXTENDED + 8, "without AVX");
	set_xcr0(X87 | SSE | AVX | PKRU);

	asm volatile("fninit");
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	load(low, high, 0x10);
	memset(area, 0xaa, sizeof(area));
	check_eq(xsavec(~0UL), NO_EXCEPTION, "XSAVEC of all there is");
	check_eq(*field(XCOMP_BV), COMPACTED | X87 | SSE | AVX | PKRU, "XCOMP_BV");
	check_eq(*field(XSTATE_BV) & ~X87, SSE | AVX | PKRU, "XSTATE_BV");
	check(!memcmp(area + XMM(5), low, 16), "XMM5");
	check(!memcmp(area + EXTENDED + 5 * 16, high, 16), "upper half of YMM5");
	check_eq(*(u32 *)field(EXTENDED + 256), 0x10, "PKRU behind AVX");
	check_eq(*field(RESERVED), 0xaaaaaaaaaaaaaaaa, "rest of the header is not written");

	memset(field(RESERVED), 0, 48);
	memcpy(copy, area, sizeof(copy));
	load(zero, zero, 0);
	check_eq(xrstor(~0UL), NO_EXCEPTION, "XRSTOR of the compacted form");
	store(v, &pkru);
	check(!memcmp(v, low, 16) && !memcmp(v + 2, high, 16), "restores YMM5");
	check_eq(pkru, 0x10, "and PKRU");

	xsavec(SSE | PKRU);
	check_eq(*field(XCOMP_BV), COMPACTED | SSE | PKRU, "XCOMP_BV of a part");
	check_eq(*(u32 *)field(EXTENDED), 0x10, "PKRU takes the place of AVX");

	memcpy(area, copy, sizeof(copy));
	*field(XSTATE_BV) = AVX;
	*(u32 *)field(MXCSR) = 0x1fc0;
	mxcsr = 0x3f80;
	asm volatile("ldmxcsr %0" : : "m"(mxcsr));
	check_eq(xrstor(SSE | AVX), NO_EXCEPTION, "XRSTOR with SSE in its initial state");
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	check_eq(mxcsr, 0x1f80, "resets MXCSR");
	store(v, &pkru);
	check(!v[0] && !v[1] && !memcmp(v + 2, high, 16), "and XMM5, but not the upper half");

	section("APM2 11.5.9", "XRSTOR of a header that is not valid is #GP(0).");
	memcpy(area, copy, sizeof(copy));
	*field(RESERVED) = 1;
	check_eq(xrstor(~0UL), GP, "reserved bytes of the header: #GP");
	memcpy(area, copy, sizeof(copy));
	*field(RESERVED + 40) = 1;
	check_eq(xrstor(~0UL), GP, "the last ones as well");
	memcpy(area, copy, sizeof(copy));
	*field(XCOMP_BV) |= BIT(5);
	check_eq(xrstor(~0UL), GP, "component that XCR0 does not enable: #GP");
	memcpy(area, copy, sizeof(copy));
	*field(XCOMP_BV) &= ~AVX;
	check_eq(xrstor(~0UL), GP, "XSTATE_BV with what XCOMP_BV does not list: #GP");
	memcpy(area, copy, sizeof(copy));
	*field(XCOMP_BV) &= ~COMPACTED;
	check_eq(xrstor(~0UL), GP, "XCOMP_BV in the standard form: #GP");
	test_done();
}
