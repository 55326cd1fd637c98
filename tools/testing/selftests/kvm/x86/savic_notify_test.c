// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: how KVM makes a vCPU look at what was sent to it.
 *
 * Only VMRUN looks at what the host posts and at NmiReq: the target has to leave guest
 * mode (kick).  For an IPI, i.e. a bit in the target's IRR, the doorbell does, and only
 * if the target is in guest mode; else it is enough that it doesn't sleep (wake).
 *
 * What works by mistake can't be told from the guest: a CPU leaves guest mode for
 * each of the host's ticks.  KVM's statistics tell.
 */
#include <pthread.h>
#include <sched.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define NR_VCPUS		4
#define SENDER			0
#define TARGET			1

#define IPI_VECTOR		0x51
#define STOP_VECTOR		0x61
#define NR_ROUNDS		50

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only. */
static u32 nr_ready;

static void target_setup(void)
{
	savic_enable();
	savic_allow_vector(IPI_VECTOR);
	savic_allow_vector(STOP_VECTOR);
	__sync_fetch_and_add(&nr_ready, 1);
}

static void guest_spins(void)
{
	target_setup();
	GUEST_SYNC(0);
	sti_nop();
	while (!savic_nr_irqs(savic_apic_id(), STOP_VECTOR))
		cpu_relax();
	GUEST_DONE();
}

static void guest_halts(void)
{
	target_setup();
	GUEST_SYNC(0);
	while (!savic_nr_irqs(savic_apic_id(), STOP_VECTOR)) {
		safe_halt();
		cli();
	}
	GUEST_DONE();
}

static void send_ipi(u64 icr)
{
	savic_wrmsr(APIC_ICR, icr);
}

static void send_nmi(u32 target)
{
	savic_write(target, SAVIC_NMI_REQ, 1);
	send_ipi((u64)target << 32 | APIC_DM_NMI);
}

/* One per GUEST_SYNC(), with an acknowledgment. */
static void guest_sends_ipis(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_send_ipi(TARGET, IPI_VECTOR);
		while (savic_nr_irqs(TARGET, IPI_VECTOR) < i)
			cpu_relax();
	}
	GUEST_DONE();
}

static void guest_sends_nmis(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		send_nmi(TARGET);
		while (savic_nr_nmis(TARGET) < i)
			cpu_relax();
		GUEST_ASSERT_EQ(savic_nr_nmis(TARGET), i);
	}
	GUEST_DONE();
}

/* Nobody is there to take it. */
static void guest_sends_one(void)
{
	savic_enable();
	GUEST_SYNC(0);
	savic_send_ipi(TARGET, IPI_VECTOR);
	GUEST_DONE();
}

static void guest_takes_one(void)
{
	target_setup();
	GUEST_SYNC(0);
	savic_wait_for_irqs(IPI_VECTOR, 1);
	GUEST_DONE();
}

/* To sets of vCPUs that aren't all, none of which is in guest mode. */
#define LOGICAL(set)		(APIC_DEST_LOGICAL | (u64)(set) << 32)

static const struct {
	u64 icr;
	u32 targets;
} ipis[] = {
	{ (u64)TARGET << 32,				BIT(TARGET) },
	{ LOGICAL(BIT(1) | BIT(3)),			BIT(1) | BIT(3) },
	{ LOGICAL(BIT(SENDER) | BIT(2)),		BIT(2) },
	{ APIC_DEST_ALLBUT,				BIT(1) | BIT(2) | BIT(3) },
	{ APIC_DEST_ALLINC,				BIT(1) | BIT(2) | BIT(3) },
	{ APIC_DEST_SELF,				0 },
	{ (u64)NR_VCPUS << 32,				0 },
};

static void guest_sends_to_many(void)
{
	u32 i;

	savic_enable();
	for (i = 0; i < ARRAY_SIZE(ipis); i++) {
		GUEST_SYNC(i);
		send_ipi(ipis[i].icr | IPI_VECTOR);
	}
	GUEST_SYNC(i);
	GUEST_DONE();
}

struct notified {
	u64 kicks, doorbells, wakes;
};

static struct notified notified(struct kvm_vcpu *vcpu)
{
	return (struct notified) {
		.kicks = vcpu_get_stat(vcpu, savic_kicks),
		.doorbells = vcpu_get_stat(vcpu, savic_doorbells),
		.wakes = vcpu_get_stat(vcpu, savic_wakes),
	};
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t target;
};

FIXTURE(savic_notify) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_notify)
{
	self->t.vm = vm_savic_create(NR_VCPUS, guest_halts, self->t.vcpus);
	vm_install_exception_handler(self->t.vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->t.vm, NMI_VECTOR, savic_nmi_handler);
}

FIXTURE_TEARDOWN(savic_notify)
{
	kvm_vm_free(self->t.vm);
}

/* The first two CPUs that the test may use, false if there aren't two. */
static bool two_cpus(int cpu[2])
{
	cpu_set_t possible;
	int i, nr = 0;

	TEST_ASSERT(!sched_getaffinity(0, sizeof(possible), &possible),
		    "sched_getaffinity() failed, errno %d", errno);
	for (i = 0; i < CPU_SETSIZE && nr < 2; i++) {
		if (CPU_ISSET(i, &possible))
			cpu[nr++] = i;
	}
	return nr == 2;
}

/* The target is set up and on its way into the guest. */
static void start(struct test_vm *t, void *sender, void *target)
{
	vcpu_arch_set_entry_point(t->vcpus[TARGET], target);
	vcpu_arch_set_entry_point(t->vcpus[SENDER], sender);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);

	TEST_ASSERT(savic_vcpu_run(t->vcpus[TARGET]), "Unexpected GUEST_DONE()");
	pthread_create(&t->target, NULL, savic_vcpu_thread, t->vcpus[TARGET]);
}

static void stop(struct test_vm *t)
{
	savic_send_msi(t->vm, TARGET, STOP_VECTOR);
	pthread_join(t->target, NULL);
}

/* Each round of the sender, while the target is what it is. */
static struct notified run_sender(struct test_vm *t, bool blocked)
{
	struct notified n;

	while (savic_vcpu_run(t->vcpus[SENDER])) {
		if (blocked)
			savic_wait_until_blocked(t->vcpus[TARGET]);
	}
	n = notified(t->vcpus[TARGET]);
	stop(t);
	return n;
}

/* The target spins on another CPU than the sender's.  False if there is only one. */
static bool start_on_two_cpus(struct test_vm *t, void *sender)
{
	int cpu[2];

	if (!two_cpus(cpu))
		return false;

	pin_self_to_cpu(cpu[0]);
	start(t, sender, guest_spins);
	pin_task_to_cpu(t->target, cpu[1]);
	return true;
}

TEST_F_TIMEOUT(savic_notify, msi_running, TIMEOUT_SECS)
{
	struct kvm_vcpu *target = self->t.vcpus[TARGET];
	struct notified n;
	u64 nr_exits;
	u32 i;

	if (!start_on_two_cpus(&self->t, guest_sends_ipis))
		SKIP(return, "Needs two CPUs");
	for (i = 0; i < NR_ROUNDS; i++) {
		nr_exits = vcpu_get_stat(target, exits);
		savic_send_msi(self->t.vm, TARGET, IPI_VECTOR);
		while (vcpu_get_stat(target, exits) == nr_exits)
			sched_yield();
	}
	n = notified(target);
	EXPECT_EQ(n.kicks, NR_ROUNDS);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, 0);
	stop(&self->t);
}

/* Without a doorbell it takes a kick. */
TEST_F_TIMEOUT(savic_notify, ipi_running, TIMEOUT_SECS)
{
	bool doorbell = kvm_get_module_param_bool("kvm_amd", "savic_doorbell");
	struct notified n;

	if (!start_on_two_cpus(&self->t, guest_sends_ipis))
		SKIP(return, "Needs two CPUs");
	n = run_sender(&self->t, false);
	EXPECT_EQ(doorbell ? n.kicks : n.doorbells, 0);
	/* Not in guest mode because of a tick, now and then. */
	EXPECT_EQ(n.doorbells + n.kicks + n.wakes, NR_ROUNDS);
	EXPECT_GT(doorbell ? n.doorbells : n.kicks, 0);
}

TEST_F_TIMEOUT(savic_notify, nmi_running, TIMEOUT_SECS)
{
	struct notified n;

	if (!start_on_two_cpus(&self->t, guest_sends_nmis))
		SKIP(return, "Needs two CPUs");
	n = run_sender(&self->t, false);
	EXPECT_EQ(n.kicks, NR_ROUNDS);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, 0);
}

TEST_F_TIMEOUT(savic_notify, ipi_blocked, TIMEOUT_SECS)
{
	struct notified n;

	start(&self->t, guest_sends_ipis, guest_halts);
	n = run_sender(&self->t, true);
	EXPECT_EQ(n.kicks, 0);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, NR_ROUNDS);
}

TEST_F_TIMEOUT(savic_notify, nmi_blocked, TIMEOUT_SECS)
{
	struct notified n;

	start(&self->t, guest_sends_nmis, guest_halts);
	n = run_sender(&self->t, true);
	EXPECT_EQ(n.kicks, NR_ROUNDS);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, 0);
}

/* The target isn't in KVM_RUN when it is sent an IPI, and halts when it is. */
TEST_F_TIMEOUT(savic_notify, ipi_in_userspace, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct notified n;

	vcpu_arch_set_entry_point(t->vcpus[TARGET], guest_takes_one);
	vcpu_arch_set_entry_point(t->vcpus[SENDER], guest_sends_one);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);

	EXPECT_TRUE(savic_vcpu_run(t->vcpus[TARGET]));
	EXPECT_TRUE(savic_vcpu_run(t->vcpus[SENDER]));
	EXPECT_FALSE(savic_vcpu_run(t->vcpus[SENDER]));
	n = notified(t->vcpus[TARGET]);
	EXPECT_EQ(n.kicks, 0);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, 1);
	EXPECT_FALSE(savic_vcpu_run(t->vcpus[TARGET]));
}

/* Each target once, and nobody else at all. */
TEST_F_TIMEOUT(savic_notify, targets_only, TIMEOUT_SECS)
{
	struct notified before[NR_VCPUS], n;
	struct test_vm *t = &self->t;
	int i, vcpu;

	vcpu_arch_set_entry_point(t->vcpus[SENDER], guest_sends_to_many);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	for (vcpu = 1; vcpu < NR_VCPUS; vcpu++)
		EXPECT_TRUE(savic_vcpu_run(t->vcpus[vcpu]));

	EXPECT_TRUE(savic_vcpu_run(t->vcpus[SENDER]));
	for (i = 0; i < ARRAY_SIZE(ipis); i++) {
		for (vcpu = 0; vcpu < NR_VCPUS; vcpu++)
			before[vcpu] = notified(t->vcpus[vcpu]);
		EXPECT_TRUE(savic_vcpu_run(t->vcpus[SENDER]));
		for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
			n = notified(t->vcpus[vcpu]);
			EXPECT_EQ(n.kicks, before[vcpu].kicks);
			EXPECT_EQ(n.doorbells, before[vcpu].doorbells);
			EXPECT_EQ(n.wakes - before[vcpu].wakes,
				  ipis[i].targets & BIT(vcpu) ? 1 : 0) {
				TH_LOG("ICR %#lx, vCPU %d", ipis[i].icr, vcpu);
			}
		}
	}
	EXPECT_FALSE(savic_vcpu_run(t->vcpus[SENDER]));
}

SAVIC_TEST_HARNESS_MAIN
