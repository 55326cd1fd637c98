/*
 * Machine tests: an SNP guest made without a security processor
 *
 * The guest runs this very program: a private copy of its image, at the same
 * guest physical and virtual addresses. All other memory is the host's, shared
 * and mapped one to one, unless a test hands it over. What the guest runs are
 * functions of the test, on variables of its own; results go through the page at
 * SHARED, or are reported by guest_check_eq().
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef SNP_H
#define SNP_H

#include "paging.h"
#include "rmp.h"
#include "svm.h"

/* NPF error code: EXITINFO1 (15.25.6, 15.36.10) */
#define NPF_P		BIT(0)
#define NPF_W		BIT(1)
#define NPF_U		BIT(2)
#define NPF_ID		BIT(4)
#define NPF_RMP		BIT(31)
#define NPF_GPA		BIT(32)
#define NPF_GPT		BIT(33)
#define NPF_ENC		BIT(34)
#define NPF_SIZEM	BIT(35)
#define NPF_VMPL	BIT(36)

/* #VC: the page is not validated (15.36.10) */
#define VC_NOT_VALIDATED	0x404

#define MSR_HWCR		0xc0010015
#define MSR_SEV_STATUS		0xc0010131

#define SNP_ACTIVE		BIT(0)
#define REFLECT_VC		BIT(2)
#define RESTRICTED_INJ		BIT(3)
#define ALTERNATE_INJ		BIT(4)
#define SECURE_AVIC		BIT(16)
#define ALLOWED_ENABLE		BIT(63)

#define GUEST_ASID		1

/* VMSA fields beyond the state save area's */
#define VMSA_SECURE_AVIC_CONTROL 0x320
#define VMSA_EXIT_INFO_1	0x390
#define VMSA_EXIT_INFO_2	0x398
#define VMSA_EXIT_INT_INFO	0x3a0
#define VMSA_SEV_FEATURES	0x3b0
#define VMSA_VINTR_CTRL		0x3b8
#define VMSA_EXIT_CODE		0x3c0
#define VMSA_EVENTINJ		0x3e0
#define VMSA_XCR0		0x3e8

/* System physical addresses; each its own 2M */
#define IMAGE			0x1000000UL
#define IMAGE_COPY		0x20000000UL
#define VMSAS			0x20200000UL
#define SHARED			0x30000000UL

#define SNP_VCPUS		40	/* that can be prepared */

struct snp_vcpu {
	struct vmcb *vmcb;		/* the host's */
	struct guest_regs regs;		/* nothing in there for SEV-ES */
	u64 vmsa;			/* system, and private guest physical */
};

struct shared {
	void (*volatile fn[2])(u64);	/* by vCPU: to run next */
	volatile u64 arg[2];
	volatile u64 result[512];
	struct {
		const char *volatile what;
		volatile u64 seen, expected;
	} report[2];			/* by vCPU; none: what is NULL */
};

#define shared ((struct shared *)SHARED)

static inline u64 *vmsa_field(u64 vmsa, unsigned int offset)
{
	return (u64 *)(vmsa + offset);
}

/*
 * Prepare VMSA @n: for vCPU 0 of the guest if it is even, vCPU 1 if it is odd.
 * Each vCPU has one stack, so several of one vCPU are for one after the other.
 * Only before snp_start(); after it the VMSA is the guest's.
 */
void snp_set_up(struct snp_vcpu *v, int n);
/* Copy the image, hand it and the VMSAs to the guest, and turn SNP on. */
void snp_start(void);
/* SNP on the second CPU; called there. */
void snp_start_cpu(void);

/* Returns the exit code. */
u64 snp_run(struct snp_vcpu *v);
/* Run @fn(@arg) in the guest until it is done; false: some other exit. */
bool snp_call(struct snp_vcpu *v, void (*fn)(u64), u64 arg);

/*
 * Entries for @gpa (or the guest's virtual address, which is the same) in the
 * nested and in the guest's page tables. Of the latter the host has its own copy
 * after snp_start(). Both maps are of 2M pages, but for the image; asking for the
 * 4K entry splits them.
 */
u64 *snp_npt_pde(u64 gpa);
u64 *snp_npt(u64 gpa);
u64 *snp_guest_pde(u64 va);
u64 *snp_guest_pte(u64 va);
/* RMPUPDATE of the system page behind @gpa of the image; EAX */
u32 snp_assign(u64 gpa, bool assigned);

/* ---- In the guest ---- */

/* Automatic exit 403h */
static inline void vmgexit(void)
{
	asm volatile("rep; vmmcall" : : : "memory");
}

/* A check that the guest makes; the host prints it in snp_run(). */
void guest_check_eq(u64 seen, u64 expected, const char *what);
/* Which vCPU this is: 0 or 1 */
int guest_index(void);
/* The VMSA of this vCPU, as the guest sees it */
u64 guest_vmsa(void);

#endif
