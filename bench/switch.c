/*
 * Something that the machine does ROUNDS times: see bench/switch
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

/* What: bench/switch knows these numbers. */
enum { NOTHING, SVM_SWITCH, SNP_SWITCH, WALK, NESTED_WALK };

#ifndef WHAT
#define WHAT NOTHING
#endif
#ifndef ROUNDS
#define ROUNDS 0
#endif

/* Pages of a walk: more would not fit into the TLB, which QEMU enlarges as it fills. */
#define PAGES		64
#define DATA		0x38000000UL

static void svm_guest(void)
{
	for (;;)
		vmmcall(0);
}

/* Each round touches pages, none of which has a translation. */
static void walks(u64 rounds)
{
	for (u64 i = 0; i < rounds; i++) {
		WRITE_CR(3, READ_CR(3));
		for (int page = 0; page < PAGES; page++)
			*(volatile u64 *)(DATA + page * 0x200000UL);
	}
}

void test_main(void)
{
	static struct snp_vcpu snp;
	static struct vcpu svm;

	/* The same for all, so that it is no part of a difference. */
	svm_init();
	svm_set_up(&svm, svm_guest);
	snp_set_up(&snp, 0);
	snp_start();

	for (int i = 0; i < ROUNDS && WHAT == SVM_SWITCH; i++)
		svm_run(&svm);
	for (int i = 0; i < ROUNDS && WHAT == SNP_SWITCH; i++)
		snp_run(&snp);
	if (WHAT == WALK)
		walks(ROUNDS);
	if (WHAT == NESTED_WALK)
		snp_call(&snp, walks, ROUNDS);

	check(true, "TEST done");
	test_done();
}
