/*
 * RMP changes against the other CPU: its translations go, updates of
 * neighbouring entries from two CPUs do not disturb each other, and pages that
 * it runs a guest with are in use (15.36.3-12)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define AREA		0x8000000UL
#define PAGE		(AREA + 0x7000)
#define SECRET		0x5ec4e75ec4e75ec4UL
#define ROUNDS		100
#define UPDATES		3000

#define PF_P_W_RMP	0x80000003u

/* Written by CPU 1, but for stop */
static volatile u64 loops, writes, plaintext, wrong_faults;
static volatile bool stop;

/* Not rmp_assign(): ex_vector is CPU 1's here. */
static u32 rmpupdate(u64 spa, bool assigned)
{
	struct rmp_state st = {
		.gpa = 0x1000, .assigned = assigned, .asid = assigned ? 5 : 0,
	};
	u32 ret;

	asm volatile(".byte 0xf2, 0x0f, 0x01, 0xfe" : "=a"(ret)
		     : "a"(spa), "c"(&st) : "memory", "cc");
	return ret;
}

static void cpu_1_enable(void *arg)
{
	snp_start_cpu();
	flush_tlb();
}

static void cpu_1_writes(void *arg)
{
	while (!stop) {
		if (try_write(PAGE, SECRET) == NO_EXCEPTION)
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

		if (try_read(PAGE, &v) != NO_EXCEPTION)
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
	update(AREA + 0x2000);
	rmpupdate(AREA + 0x2000, true);
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
	section("APM2 15.36.12", "VMCB and VMSA of a running guest are in use: RMPUPDATE fails with FAIL_INUSE.");
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
	rmp_clear();
	own_pte(PAGE);		/* Only 4K mappings may write next to a guest's page. */
	snp_set_up(&vcpu, 0);
	snp_start();
	ap_run(cpu_1_enable, NULL);
	ap_wait();

	section("APM2 15.36.10", "RMPUPDATE drops cached translations on every CPU before it retires.");
	test_access(cpu_1_writes, &writes, "write");
	test_access(cpu_1_reads, &plaintext, "sight of plaintext");

	section("APM2 15.36.3", "Entries change atomically.");
	ap_run(cpu_1_updates, NULL);
	update(AREA + 0x1000);
	rmpupdate(AREA + 0x1000, true);
	ap_wait();
	check_eq(update_failures, 0, "updates from two CPUs succeed");
	check(rmp_entry(AREA + 0x1000) & rmp_entry(AREA + 0x2000) & 1, "both have been made");
	check_eq(rmp_entry(AREA) >> 3 & 0x1ff, 2, "the region counts both");
	test_in_use();
	test_done();
}
