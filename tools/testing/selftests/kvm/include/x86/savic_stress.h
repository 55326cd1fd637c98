/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest of Secure AVIC's stress test, and the account of its interrupts.
 *
 * Every source has a vector of its own and knows what the handler has counted for it
 * and its target.  Most wait for the target's handler before they send again, so
 * that nothing can coalesce: in the end each (target, vector) must have been received
 * exactly as often as it was sent.  Sources that don't wait may coalesce, i.e. there
 * is a lower bound as well as an upper one.  What a target doesn't allow must never
 * arrive.  NMIs have no vector: whoever sends one to a vCPU holds that vCPU's lock
 * until its handler has run, hence they are exact, too.
 */
#ifndef SELFTEST_KVM_SAVIC_STRESS_H
#define SELFTEST_KVM_SAVIC_STRESS_H

#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define NR_VCPUS		6

/* Each kind is to be used that often, however slow the host. */
#define MIN_USES		10

/* Of each source, in no particular order of priority. */
enum {
	STOP_VECTOR		= 0x31,
	IPI_VECTOR		= 0x41,		/* + sender */
	FORWARD_VECTOR		= 0x51,		/* + sender */
	SELF_VECTOR		= 0x61,
	ONESHOT_VECTOR		= 0x71,
	PERIODIC_VECTOR,
	MSI_VECTOR		= 0x81,
	BURST_VECTOR,
	DENIED_VECTOR,
	TOGGLED_VECTOR,
	WAKE_VECTOR,
	IRQFD_VECTOR		= 0x91,
	EDGE_VECTOR,
	LEVEL_VECTOR		= 0xa1,		/* + target, an EOI is for all pins */
};

/* GSIs: one per vCPU for edge- and level-triggered pins and for an MSI route. */
#define EDGE_GSI(vcpu)		(10 + (vcpu))
#define LEVEL_GSI(vcpu)		(16 + (vcpu))
#define NMI_GSI			22
#define NMI_VCPU		1
#define MSI_GSI(vcpu)		(24 + (vcpu))

/*
 * Even vCPUs have a level-triggered line that is driven by an irqfd with resampling,
 * the line of odd ones is raised and lowered by KVM_IRQ_LINE.
 */
static inline bool has_resampler(u32 vcpu)
{
	return !(vcpu % 2);
}

/* The two sides take turns: one denies and allows its vector, the other one sends. */
enum toggle {
	TOGGLE_IDLE,
	TOGGLE_DENIED,
	TOGGLE_SENT,
	TOGGLE_ALLOWED,
};

/* Kinds of sources and of disturbances: the guest's first, then the host's. */
enum kind {
	KIND_IPI,
	KIND_FORWARDED_IPI,
	KIND_SELF_IPI,
	KIND_NMI_REQ,
	KIND_FORWARDED_NMI,
	KIND_ONESHOT,
	KIND_DEADLINE,
	KIND_PERIODIC,
	KIND_MSI,
	KIND_BURST,
	KIND_IRQFD,
	KIND_EDGE,
	KIND_LEVEL,
	KIND_RESAMPLED_LEVEL,
	KIND_TOGGLE,
	KIND_MSI_NMI,
	KIND_IOAPIC_NMI,
	KIND_IOCTL_NMI,
	KIND_SIGNAL,
	KIND_ZAP,
	NR_KINDS,
};

/* In memory that host and guest share. */
extern struct savic_books {
	u32 received[NR_VCPUS][256];
	u32 sent[NR_VCPUS][256];
	u32 nmis_received[NR_VCPUS];
	u32 nmis_sent[NR_VCPUS];
	u32 nmi_lock[NR_VCPUS];

	/* What is in @sent of WAKE_VECTOR and BURST_VECTOR that can't coalesce. */
	u32 bursts[NR_VCPUS];

	enum toggle toggle[NR_VCPUS];
	u32 nr_lowered[NR_VCPUS];
	bool kvm_nmi[NR_VCPUS];
	gpa_t page[NR_VCPUS];

	/* How often each has been used, i.e. what it sent has arrived. */
	u32 used[NR_KINDS];

	u32 nr_started;
	u32 nr_stopped;
	bool stop;
	u32 seed;
} *books;

static inline u32 nr_received(u32 vcpu, u8 vector)
{
	return READ_ONCE(books->received[vcpu][vector]);
}

/* Returns what the handler will have counted when this one has arrived. */
static inline u32 account(u32 vcpu, u8 vector)
{
	return __sync_add_and_fetch(&books->sent[vcpu][vector], 1);
}

static inline void account_use(enum kind kind)
{
	__sync_fetch_and_add(&books->used[kind], 1);
}

static inline bool nmi_trylock(u32 vcpu)
{
	return !__sync_lock_test_and_set(&books->nmi_lock[vcpu], 1);
}

static inline void nmi_unlock(u32 vcpu)
{
	__sync_lock_release(&books->nmi_lock[vcpu]);
}

static inline u32 random_below(struct kvm_random_state *rng, u32 limit)
{
	return kvm_random_u32(rng) % limit;
}

/*
 * Host side: install the guest's handlers and open its books, for all vCPUs.  The guest does
 * everything at random until the host has @stop set, and ends when it gets STOP_VECTOR.
 */
void savic_stress_setup(struct kvm_vm *vm, struct kvm_vcpu *vcpus[NR_VCPUS], u32 seed);
void savic_stress_guest(u32 id);

/* Host side: has each kind been used MIN_USES times? */
bool savic_stress_all_used(void);

/* Host side: print what doesn't tally, or wasn't used, and return the number of such cases. */
u32 savic_stress_check(void);
void savic_stress_print_totals(void);

#endif /* SELFTEST_KVM_SAVIC_STRESS_H */
