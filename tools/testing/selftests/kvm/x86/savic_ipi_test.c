// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: IPIs to other vCPUs, by everything that ICR can express.
 *
 * A guest has two ways.  It sets IRR (or NmiReq) of the targets itself and tells
 * KVM by an MSR VMGEXIT, which is what Linux does, or it writes ICR and forwards
 * the #VC as AVIC_INCOMPLETE_IPI, and KVM delivers what the targets allow.  Either
 * way each target gets each interrupt once, and nobody else gets any.
 *
 * There are more vCPUs than the host has CPUs, or may have: targets are running,
 * preempted and halted at the same time.  Their IDs are not their indices, not in order, in
 * three clusters, and one doesn't fit an xAPIC.
 */
#include <pthread.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define NR_VCPUS		4
#define IPI_VECTOR		0x51
#define STOP_VECTOR		0x81
#define DENIED_VECTOR		0x91
#define NR_ROUNDS		50
#define NR_LOWEST_IPIS	40

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		240

static const u32 ids[NR_VCPUS] = { 0, 17, 3, 289 };

/* Guest only. */
static u32 nr_ready;

/* All vCPUs but 0: halt until told to stop. */
static void guest_target(void)
{
	savic_enable();
	savic_allow_vector(IPI_VECTOR);
	savic_allow_vector(STOP_VECTOR);
	__sync_fetch_and_add(&nr_ready, 1);

	savic_wait_for_irqs(STOP_VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_irqs(savic_apic_id(), DENIED_VECTOR), 0u);
	GUEST_DONE();
}

static void sender_start(void)
{
	savic_enable();
	savic_allow_vector(IPI_VECTOR);
	while (READ_ONCE(nr_ready) < NR_VCPUS - 1)
		cpu_relax();
}

static void sender_stop(void)
{
	u32 i;

	GUEST_ASSERT_EQ(savic_nr_irqs(0, DENIED_VECTOR), 0u);
	for (i = 1; i < NR_VCPUS; i++)
		savic_send_ipi(ids[i], STOP_VECTOR);
	GUEST_DONE();
}

static u32 nr_ipis(u32 vcpu)
{
	/* The sender's own can wait for an open window. */
	if (!vcpu)
		sti_nop_cli();

	return savic_nr_irqs(ids[vcpu], IPI_VECTOR);
}

/* Each vCPU in @targets has to get to its next count, the others must not.  Bits are indices. */
static void wait_for_targets(u32 targets, u32 count[])
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		if (targets & BIT(i))
			count[i]++;
		while (nr_ipis(i) < count[i])
			cpu_relax();
	}

	for (i = 0; i < NR_VCPUS; i++)
		GUEST_ASSERT_EQ(nr_ipis(i), count[i]);
}

struct ipi {
	u64 icr;
	u32 targets;
};

#define DEST(id)	((u64)(id) << 32)
#define ALL		(BIT(NR_VCPUS) - 1)

/* x2APIC logical IDs: cluster in 31:16, of 16 vCPUs, a bit for each in 15:0. */
#define CLUSTER(n, mask)	(APIC_DEST_LOGICAL | DEST((n) << 16 | (mask)))

static const struct ipi ipis[] = {
	{ DEST(17),				BIT(1) },
	{ DEST(3),				BIT(2) },
	{ DEST(289),				BIT(3) },
	{ DEST(0),				BIT(0) },
	{ DEST(0xffffffff),			ALL },
	{ APIC_DEST_ALLINC,			ALL },
	{ APIC_DEST_ALLBUT,			ALL & ~BIT(0) },
	{ CLUSTER(0, BIT(0) | BIT(3)),		BIT(0) | BIT(2) },
	{ CLUSTER(0, BIT(3)),			BIT(2) },
	{ CLUSTER(1, BIT(1)),			BIT(1) },
	{ CLUSTER(18, 0xffff),			BIT(3) },
	{ APIC_DEST_LOGICAL | DEST(0xffffffff),	ALL },
	/* Nobody is in there, or has that index for an ID. */
	{ CLUSTER(0, BIT(1) | BIT(2)),		0 },
	{ CLUSTER(1, BIT(2)),			0 },
	{ CLUSTER(2, 0xffff),			0 },
	/* Only the ID's lower eight bits are the same. */
	{ DEST(289 & 0xff),			0 },
	{ DEST(1),				0 },
	{ DEST(2),				0 },
	{ DEST(0x12345678),			0 },
};

/* As Linux does it. */
static void guest_msr_icr(void)
{
	u32 count[NR_VCPUS] = {};
	u32 i, target;

	sender_start();
	for (i = 0; i < NR_ROUNDS * ARRAY_SIZE(ipis); i++) {
		const struct ipi *ipi = &ipis[i % ARRAY_SIZE(ipis)];

		for (target = 0; target < NR_VCPUS; target++) {
			if (ipi->targets & BIT(target))
				savic_set_vector(ids[target], APIC_IRR, IPI_VECTOR);
		}
		/* No target isn't an error, on no APIC. */
		savic_wrmsr(APIC_ICR, ipi->icr | IPI_VECTOR);
		wait_for_targets(ipi->targets, count);
	}
	sender_stop();
}

/* As a guest without a Secure AVIC driver of its own would. */
static void guest_incomplete_ipi(void)
{
	u32 count[NR_VCPUS] = {};
	u32 i;

	sender_start();
	for (i = 0; i < NR_ROUNDS * ARRAY_SIZE(ipis); i++) {
		const struct ipi *ipi = &ipis[i % ARRAY_SIZE(ipis)];

		/* What a target doesn't allow must not get there. */
		wrmsr(X2APIC_MSR(APIC_ICR), ipi->icr | DENIED_VECTOR);
		wrmsr(X2APIC_MSR(APIC_ICR), ipi->icr | IPI_VECTOR);
		wait_for_targets(ipi->targets, count);
	}
	sender_stop();
}

/* Hardware's reason is none of KVM's business, the IPI is sent. */
static void guest_all_reasons(void)
{
	u32 count[NR_VCPUS] = {};
	u64 reason;

	sender_start();
	for (reason = 0; reason <= SAVIC_IPI_UNACCELERATED; reason++) {
		struct ghcb_request req = {
			.exit_code = SVM_EXIT_AVIC_INCOMPLETE_IPI,
			.exit_info_1 = APIC_DEST_ALLBUT | IPI_VECTOR,
			.exit_info_2 = reason << 32 | 1,
		};

		GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_OK);
		wait_for_targets(ALL & ~BIT(0), count);
	}
	sender_stop();
}

static void guest_nmi(void)
{
	u32 i, target;

	sender_start();
	for (i = 1; i <= NR_ROUNDS; i++) {
		for (target = 1; target < NR_VCPUS; target++) {
			savic_write(ids[target], SAVIC_NMI_REQ, 1);
			savic_wrmsr(APIC_ICR, DEST(ids[target]) | APIC_DM_NMI);
			while (savic_nr_nmis(ids[target]) < i)
				cpu_relax();
			GUEST_ASSERT_EQ(savic_nr_nmis(ids[target]), i);
		}
	}
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 0u);
	sender_stop();
}

/* Like fixed, KVM doesn't arbitrate: whom the guest chose, or all of the destination. */
static void guest_lowest_priority(void)
{
	u32 count[NR_VCPUS] = {};
	u64 icr = CLUSTER(0, BIT(0) | BIT(3)) | APIC_DM_LOWEST;
	u32 n, i;

	/*
	 * Every other one is also for an APIC that doesn't exist, with which KVM would choose
	 * another one.  More than once, as whoever isn't told may look for another reason.
	 */
	sender_start();
	for (n = 0; n < NR_LOWEST_IPIS; n++) {
		i = n % 2 ? 2 : 0;
		if (n % 2 == 0)
			icr ^= DEST(BIT(5));
		savic_set_vector(ids[i], APIC_IRR, IPI_VECTOR);
		savic_wrmsr(APIC_ICR, icr | IPI_VECTOR);
		wait_for_targets(BIT(i), count);
	}

	/* KVM arbitrates if it delivers: one of them, and only one. */
	wrmsr(X2APIC_MSR(APIC_ICR), icr | IPI_VECTOR);
	while (nr_ipis(0) + nr_ipis(2) <= NR_LOWEST_IPIS)
		cpu_relax();
	savic_settle();
	GUEST_ASSERT_EQ(nr_ipis(0) + nr_ipis(2), NR_LOWEST_IPIS + 1u);
	GUEST_ASSERT_EQ(nr_ipis(1) + nr_ipis(3), 0u);
	sender_stop();
}

/* An ICR by MSR, and as AVIC_INCOMPLETE_IPI with each of its reasons. */
static void assert_icr_refused(u64 icr)
{
	struct ghcb_request msr = {
		.exit_code = SVM_EXIT_MSR,
		.exit_info_1 = 1,
		.reg[GHCB_RCX] = X2APIC_MSR(APIC_ICR),
		.reg[GHCB_RAX] = (u32)icr,
		.reg[GHCB_RDX] = icr >> 32,
		.valid = BIT(GHCB_RCX) | BIT(GHCB_RAX) | BIT(GHCB_RDX),
	};
	enum ghcb_status status = ghcb_vmgexit(&msr);
	u64 reason;

	__GUEST_ASSERT(status == GHCB_MALFORMED && msr.exit_info_2 == GHCB_ERR_INVALID_INPUT,
		       "ICR %#lx: status %u, error %lu", icr, status, msr.exit_info_2);

	for (reason = 0; reason <= SAVIC_IPI_UNACCELERATED; reason++) {
		struct ghcb_request req = {
			.exit_code = SVM_EXIT_AVIC_INCOMPLETE_IPI,
			.exit_info_1 = icr,
			.exit_info_2 = reason << 32,
		};

		status = ghcb_vmgexit(&req);
		__GUEST_ASSERT(status == GHCB_MALFORMED &&
			       req.exit_info_2 == GHCB_ERR_INVALID_INPUT,
			       "ICR %#lx, reason %lu: status %u, error %lu",
			       icr, reason, status, req.exit_info_2);
	}
}

/* What Secure AVIC can't deliver, or is reserved, KVM refuses. */
static void guest_refused(void)
{
	static const u64 bad_icrs[] = {
		DEST(3) | APIC_DM_SMI,
		DEST(3) | APIC_DM_REMRD | IPI_VECTOR,
		DEST(3) | APIC_DM_INIT,
		DEST(3) | APIC_INT_ASSERT | APIC_INT_LEVELTRIG | APIC_DM_INIT,
		DEST(3) | APIC_DM_STARTUP | IPI_VECTOR,
		DEST(3) | APIC_DM_EXTINT | IPI_VECTOR,
		APIC_DEST_ALLBUT | APIC_DM_INIT,
		APIC_DEST_ALLBUT | APIC_DM_STARTUP | IPI_VECTOR,
		DEST(-1u) | APIC_DM_SMI,
		/* Reserved bits; delivery status is read-only, i.e. isn't one. */
		DEST(3) | BIT(13) | IPI_VECTOR,
		DEST(3) | BIT(16) | IPI_VECTOR,
		DEST(3) | BIT(17) | IPI_VECTOR,
		DEST(3) | BIT(20) | IPI_VECTOR,
		DEST(3) | BIT(31) | IPI_VECTOR,
	};
	u32 i;

	sender_start();
	for (i = 0; i < ARRAY_SIZE(bad_icrs); i++)
		assert_icr_refused(bad_icrs[i]);
	for (i = 1; i < NR_VCPUS; i++)
		GUEST_ASSERT_EQ(nr_ipis(i), 0u);
	sender_stop();
}

/* KVM would take the destination for that of an xAPIC. */
static void guest_xapic(void)
{
	u64 base;

	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA,
					    savic_page_gpa(0), NULL), GHCB_OK);
	GUEST_ASSERT_EQ(ghcb_rdmsr(MSR_IA32_APICBASE, &base), GHCB_OK);
	GUEST_ASSERT(!(base & MSR_IA32_APICBASE_EXTD));
	while (READ_ONCE(nr_ready) < NR_VCPUS - 1)
		cpu_relax();

	assert_icr_refused(DEST(3) | IPI_VECTOR);
	assert_icr_refused(APIC_DEST_ALLBUT | APIC_DM_NMI);

	sender_start();
	GUEST_ASSERT_EQ(nr_ipis(2), 0u);
	GUEST_ASSERT_EQ(savic_nr_nmis(ids[2]), 0u);
	sender_stop();
}

static void guest_page(void)
{
	savic_enable();
	GUEST_SYNC(savic_page_gpa(savic_apic_id()));
	/* Somebody has registered it once more. */
	GUEST_SYNC(0);
	savic_settle();
	GUEST_DONE();
}

static void guest_registers(void)
{
	u32 other = ids[1];
	u64 error;

	savic_enable();
	GUEST_ASSERT_EQ(savic_register_page(other, savic_page_gpa(other), NULL), GHCB_OK);
	/* That is an index. */
	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), &error), GHCB_MALFORMED);
	GUEST_ASSERT_EQ(error, (u64)GHCB_ERR_INVALID_INPUT);
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
};

FIXTURE(savic_ipi) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_ipi)
{
	self->t.vm = vm_savic_create_with_ids(NR_VCPUS, ids, guest_target, self->t.vcpus);
	vm_install_exception_handler(self->t.vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, DENIED_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, NMI_VECTOR, savic_nmi_handler);
}

FIXTURE_TEARDOWN(savic_ipi)
{
	kvm_vm_free(self->t.vm);
}

static void run_all(struct test_vm *t, void *sender)
{
	pthread_t threads[NR_VCPUS];
	int i;

	vcpu_arch_set_entry_point(t->vcpus[0], sender);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);

	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, t->vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(threads[i], NULL);
}

TEST_F_TIMEOUT(savic_ipi, msr_icr, TIMEOUT_SECS)
{
	run_all(&self->t, guest_msr_icr);
}

TEST_F_TIMEOUT(savic_ipi, incomplete_ipi, TIMEOUT_SECS)
{
	run_all(&self->t, guest_incomplete_ipi);
}

TEST_F_TIMEOUT(savic_ipi, all_reasons, TIMEOUT_SECS)
{
	run_all(&self->t, guest_all_reasons);
}

TEST_F_TIMEOUT(savic_ipi, nmi, TIMEOUT_SECS)
{
	run_all(&self->t, guest_nmi);
}

TEST_F_TIMEOUT(savic_ipi, refused, TIMEOUT_SECS)
{
	run_all(&self->t, guest_refused);
}

TEST_F_TIMEOUT(savic_ipi, lowest_priority, TIMEOUT_SECS)
{
	run_all(&self->t, guest_lowest_priority);
}

TEST_F_TIMEOUT(savic_ipi, xapic, TIMEOUT_SECS)
{
	run_all(&self->t, guest_xapic);
}

/* Backing pages, too, are those of IDs. */
TEST_F_TIMEOUT(savic_ipi, pages, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	gpa_t page = 0;
	int i;

	vcpu_arch_set_entry_point(t->vcpus[0], guest_registers);
	for (i = 1; i < NR_VCPUS; i++)
		vcpu_arch_set_entry_point(t->vcpus[i], guest_page);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);

	for (i = NR_VCPUS - 1; i; i--)
		page = savic_vcpu_run_to_sync(t->vcpus[i]);
	savic_vcpu_thread(t->vcpus[0]);
	for (i = 1; i < NR_VCPUS; i++)
		savic_vcpu_run_to_sync(t->vcpus[i]);
	vm_mem_set_shared(t->vm, page, PAGE_SIZE);
	vm_mem_set_private(t->vm, page, PAGE_SIZE);

	for (i = 1; i < NR_VCPUS; i++) {
		EXPECT_EQ(!!vcpu_get_stat(t->vcpus[i], savic_page_losses), i == 1);
		savic_vcpu_thread(t->vcpus[i]);
	}
}

SAVIC_TEST_HARNESS_MAIN
