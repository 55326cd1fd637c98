/*
 * Code that one CPU changes while another one executes it (7.6.1)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "machine.h"

#ifndef ROUNDS
#define ROUNDS		4000
#endif

/* Changed, by system physical address: its own 4K page, in which nothing else is executed but @other. */
static struct {
	u8 nops[3];
	u8 mov;				/* mov $value, %eax */
	u32 value;
	u8 ret;
	u8 other[16];
} code __attribute__((aligned(PAGE_SIZE)));

/* Written by CPU 0 */
static volatile u32 written;
static volatile bool stop;
/* Written by CPU 1 */
static volatile u64 runs, stale;

static u32 call(void *fn)
{
	u32 value = 0;

	asm volatile("call *%1" : "+a"(value) : "r"(fn) : "memory");
	return value;
}

static void cpu_1_executes(void *arg)
{
	while (!stop) {
		u32 at_least = written, a, b, c, d;

		cpuid(0, 0, &a, &b, &c, &d);
		if ((int)(call(&code) - at_least) < 0)
			stale++;
		barrier();
		runs++;
	}
}

static void cpu_1_executes_other(void *arg)
{
	call(code.other);
}

static void delay(u32 loops)
{
	for (u32 i = 0; i < loops; i++)
		barrier();
}

enum how { STORE, LOCKED, FRESH };

static void modify(u32 value, enum how how)
{
	switch (how) {
	case FRESH:
		asm volatile("invlpg %0" : : "m"(code) : "memory");
		/* fall through */
	case STORE:
		*(volatile u32 *)&code.value = value;
		break;
	case LOCKED:
		asm volatile("xchg %0, %1" : "+r"(value), "+m"(code.value) : : "memory");
		break;
	}
}

/*
 * Two changes in each round: CPU 1 has just seen the first, and is about to execute, or does,
 * while the second comes.
 */
static void test(enum how how, const char *name)
{
	u32 value = code.value;

	stale = 0;
	written = value;
	stop = false;
	ap_run(cpu_1_executes, NULL);
	for (u32 i = 0; i < ROUNDS; i++) {
		u64 seen;

		modify(++value, how);
		delay(i * 7 % 1009);
		modify(++value, how);
		written = value;
		seen = runs;
		while (runs < seen + 3)
			cpu_relax();
	}
	stop = true;
	ap_wait();
	check_eq(stale, 0, name);
}

void test_main(void)
{
	static const u8 ret = 0xc3;

	memset(code.nops, 0x90, sizeof(code.nops));
	code.mov = 0xb8;
	code.ret = ret;
	code.other[0] = ret;

	section("APM2 7.6.1", "A CPU executes what another has stored once it has seen that, and has serialized.");
	test(STORE, "stores, nothing else is executed from the page: old code");
	test(FRESH, "stores after INVLPG, nothing else is executed from the page: old code");
	test(LOCKED, "locked stores, nothing else is executed from the page: old code");
	ap_run(cpu_1_executes_other, NULL);
	ap_wait();
	test(STORE, "stores to a page with other code: old code");
	test(FRESH, "stores after INVLPG to a page with other code: old code");
	test(LOCKED, "locked stores to a page with other code: old code");
	test_done();
}
