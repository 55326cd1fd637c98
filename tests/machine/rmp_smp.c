/*
 * RMP changes against the other CPU: its translations go, updates of
 * neighbouring entries from two CPUs do not disturb each other, and pages that
 * it runs a guest with are in use (15.36.3-12)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define REGION		0x8000000UL
#define PAGE		(REGION + 0x7000)
#define SECRET		0x5ec4e75ec4e75ec4UL
#define ROUNDS		100
#define UPDATES		3000

#define PF		14
#define FAIL_INUSE	3
#define PF_P_W_RMP	0x80000003u

static u64 *rmp;
static u64 region_pt[512] __attribute__((aligned(4096)));

/* Written by CPU 1, but for stop */
static volatile u64 loops, writes, plaintext, wrong_faults;
static volatile bool stop;

static u32 rmpupdate(u64 spa, bool assigned)
{
	struct {
		u64 gpa;
		u8 assigned, pagesize, immutable, rsvd;
		u32 asid;
	} __attribute__((packed, aligned(16))) st = {
		.gpa = 0x1000, .assigned = assigned, .asid = assigned ? 5 : 0,
	};
	u32 ret;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe" : "=a"(ret)
		     : "a"(spa), "c"(&st) : "memory", "cc");
	return ret;
}

static u64 entry(u64 spa)
{
	return ((volatile u64 *)rmp)[(spa >> 12) * 2];
}

/* Only 4K mappings may write next to a guest's page. */
static void split(void)
{
	u64 *pml4 = (u64 *)(READ_CR(3) & ~0xfffUL);
	u64 *pdpt = (u64 *)(pml4[0] & ~0xfffUL & ~C_BIT);
	u64 *pd;

	if (pdpt[0] & BIT(7)) {
		static u64 new_pd[512] __attribute__((aligned(4096)));

		for (u64 i = 0; i < 512; i++)
			new_pd[i] = i << 21 | 0xe7;
		pdpt[0] = (u64)new_pd | 0x67;
	}
	pd = (u64 *)(pdpt[0] & ~0xfffUL & ~C_BIT);
	for (u64 i = 0; i < 512; i++)
		region_pt[i] = (REGION + i * 4096) | 0x67;
	pd[REGION >> 21] = (u64)region_pt | 0x67;
	WRITE_CR(3, READ_CR(3));
}

static void cpu_1_enable(void *arg)
{
	snp_start_cpu();
	WRITE_CR(3, READ_CR(3));
}

static void cpu_1_writes(void *arg)
{
	while (!stop) {
		EX_BEGIN();
		asm volatile(EX("movq %0, (%1)") : : "r"(SECRET), "r"(PAGE) : "memory");
		if (ex_vector == NO_EXCEPTION)
			writes++;
		else if (ex_vector != PF || ex_error != PF_P_W_RMP)
			wrong_faults++;
		barrier();
		loops++;
	}
}

static void cpu_1_reads(void *arg)
{
	while (!stop) {
		u64 v;

		EX_BEGIN();
		asm volatile(EX("movq (%1), %0") : "=r"(v) : "r"(PAGE) : "memory");
		if (ex_vector != NO_EXCEPTION)
			wrong_faults++;
		else if (v == SECRET)
			plaintext++;
		barrier();
		loops++;
	}
}

/* CPU 1 has gone around at least twice more. */
static void wait_for_cpu_1(void)
{
	u64 seen = loops;

	while (loops < seen + 3)
		cpu_relax();
}

static void test_access(void (*fn)(void *), volatile u64 *successes, const char *name)
{
	u32 late = 0, dead = 0, failed = 0;

	stop = false;
	wrong_faults = 0;
	*(volatile u64 *)PAGE = SECRET;
	ap_run(fn, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		u64 seen;

		wait_for_cpu_1();
		seen = *successes;
		wait_for_cpu_1();
		dead += *successes == seen;

		failed += rmpupdate(PAGE, true) != 0;
		/* What it is in the middle of may still count. */
		seen = *successes + 1;
		wait_for_cpu_1();
		late += *successes > seen;

		failed += rmpupdate(PAGE, false) != 0;
		*(volatile u64 *)PAGE = SECRET;
	}
	stop = true;
	ap_wait();
	check_eq(failed, 0, "all updates succeed");
	check(!late, "no %s after RMPUPDATE has given the page away (%u of %u rounds)",
	      name, late, ROUNDS);
	check(!dead, "%s succeeds while the page is the host's (%u of %u rounds not)",
	      name, dead, ROUNDS);
	check_eq(wrong_faults, 0, "all faults have the RMP bit");
}

static volatile u64 update_failures;

static void update(u64 spa)
{
	for (int i = 0; i < UPDATES; i++) {
		if (rmpupdate(spa, true) || rmpupdate(spa, false))
			update_failures++;
	}
}

static void cpu_1_updates(void *arg)
{
	update(REGION + 0x2000);
	rmpupdate(REGION + 0x2000, true);
}

static struct snp_vcpu vcpu;
static volatile bool guest_done;

static void guest_waits(u64 arg)
{
	while (!shared->result[0])
		shared->result[1]++;
}

static void cpu_1_guest(void *arg)
{
	guest_done = snp_call(&vcpu, guest_waits, 0);
}

static void test_in_use(void)
{
	ap_run(cpu_1_guest, NULL);
	while (shared->result[1] < 10)
		cpu_relax();
	check_eq(rmpupdate(vcpu.vmsa, false), FAIL_INUSE, "RMPUPDATE of a VMSA in use");
	check_eq(rmpupdate((u64)vcpu.vmcb, true), FAIL_INUSE, "RMPUPDATE of a VMCB in use");
	check_eq(rmpupdate(vcpu.vmsa + 4096, true), 0, "RMPUPDATE of the page behind the VMSA");
	shared->result[0] = 1;
	ap_wait();
	check(guest_done, "guest runs to its end");
	check_eq(rmpupdate(vcpu.vmsa, false), 0, "RMPUPDATE of a VMSA that nobody uses");
}

void test_main(void)
{
	u64 base = rdmsr(MSR_RMP_BASE), end = rdmsr(MSR_RMP_END);

	rmp = (u64 *)(base + 0x4000);
	memset((void *)base, 0, end + 1 - base);
	split();
	snp_set_up(&vcpu, 0);
	snp_start();
	ap_run(cpu_1_enable, NULL);
	ap_wait();

	test_access(cpu_1_writes, &writes, "write");
	test_access(cpu_1_reads, &plaintext, "sight of plaintext");

	ap_run(cpu_1_updates, NULL);
	update(REGION + 0x1000);
	rmpupdate(REGION + 0x1000, true);
	ap_wait();
	check_eq(update_failures, 0, "updates from two CPUs succeed");
	check(entry(REGION + 0x1000) & entry(REGION + 0x2000) & 1, "both have been made");
	check_eq(entry(REGION) >> 3 & 0x1ff, 2, "the region counts both");
	test_in_use();
	test_done();
}
