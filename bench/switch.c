/*
 * Something that the machine does ROUNDS times: see bench/switch
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

/* What: bench/switch knows these numbers. */
enum { NOTHING, SVM_SWITCH, SNP_SWITCH, WALK, NESTED_WALK, SVM_FLUSH, SNP_FLUSH, ACCEPT };

#ifndef WHAT
#define WHAT NOTHING
#endif
#ifndef ROUNDS
#define ROUNDS 0
#endif

/* Pages of a walk: more would not fit into the TLB, which QEMU enlarges as it fills. */
#define PAGES		64
#define DATA		0x38000000UL
/* Its pages come and go as the guest's. */
#define REGION_4K	0x22000000UL

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

static void validate(u64 page)
{
	bool cf;

	pvalidate(page, 0, 1, &cf);
}

/* A page that the host has used becomes the guest's, which accepts it, and the host's again. */
static void accept(struct snp_vcpu *v, u64 page)
{
	*(volatile u64 *)page = 0;
	rmp_assign(page, page, GUEST_ASID, false, false);
	snp_call(v, validate, page);
	rmp_release(page, false);
}

void test_main(void)
{
	static struct snp_vcpu snp;
	static struct vcpu svm;

	/* The same for all, so that it is no part of a difference. */
	svm_init();
	svm_set_up(&svm, svm_guest);
	snp_set_up(&snp, 0);
	own_pte(REGION_4K);
	*snp_guest_pde(REGION_4K) |= C_BIT;
	snp_npt(REGION_4K);
	snp_start();
	/* The region's head: no page is the first or the last one that the guest has there. */
	rmp_assign(REGION_4K, REGION_4K, GUEST_ASID, false, false);

	/* They begin with TLB_CONTROL 1. KVM has 0 there nearly always. */
	if (WHAT != SVM_FLUSH && WHAT != SNP_FLUSH)
		svm.vmcb->tlb_ctl = snp.vmcb->tlb_ctl = 0;
	for (int i = 0; i < ROUNDS && (WHAT == SVM_SWITCH || WHAT == SVM_FLUSH); i++)
		svm_run(&svm);
	for (int i = 0; i < ROUNDS && (WHAT == SNP_SWITCH || WHAT == SNP_FLUSH); i++)
		snp_run(&snp);
	for (int i = 0; i < ROUNDS && WHAT == ACCEPT; i++)
		accept(&snp, REGION_4K + (i % 511 + 1) * PAGE_SIZE);
	if (WHAT == WALK)
		walks(ROUNDS);
	if (WHAT == NESTED_WALK)
		snp_call(&snp, walks, ROUNDS);

	check(true, "TEST done");
	test_done();
}
