// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: how KVM makes a vCPU look at what was sent to it, and what it does with
 * halted vCPUs.
 *
 * Only VMRUN looks at what the host posts and at NmiReq: the target has to leave guest
 * mode (kick).  For an IPI, i.e. a bit in the target's IRR, the doorbell does, and only
 * if the target is in guest mode; else it is enough that it doesn't sleep (wake).
 *
 * What works by mistake can't be told from the guest: a CPU leaves guest mode for
 * each of the host's ticks.  KVM's statistics tell.
 *
 * A guest may also halt although something waits for it which a halted vCPU can't get.
 * KVM doesn't see whether that has changed, i.e. has to run the vCPU every now and then,
 * but must not keep the CPU busy with it.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

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

#define VECTOR			0x51
#define DENIED_VECTOR		0x61
/* Of a higher priority class than what is masked. */
#define STOP_VECTOR		0xf1
#define MASKED_PRIORITY		0xe0
/* Not of a PIC. */
#define LINE_GSI		20

/* Of the sender. */
#define NR_ROUNDS		50

/*
 * See savic_may_retry() in KVM: so many useless wakeups at once, then intervals that double up to
 * the longest one.  It starts again after a pause of twice that.
 */
#define MAX_RETRIES		8
#define NR_INTERVALS		5
#define MAX_INTERVAL_MS		160
#define RETRY_PERIOD_MS		(2 * MAX_INTERVAL_MS)

/* Halts between two looks of the host, and how often the limit is to be reached in all. */
#define NR_HALTS		40
#define NR_SLEEPS		10
#define NR_UNMASKS		60
/* If that isn't enough then a halt takes so long that there is nothing to be limited. */
#define MAX_HALTS		(20 * NR_HALTS)

/* Of each kind of request that a guest makes as fast as it can. */
#define NR_REQUESTS		200
#define NR_REQUESTS_TO_OTHER	(4 * NR_REQUESTS)

/* Halts that only the host ends. */
#define NR_WAKEUPS		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only: in memory that host and guest share. */
static bool *stop;

static void target_setup(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(STOP_VECTOR);
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

static void halt_until_stop_vector(void)
{
	while (!savic_nr_irqs(savic_apic_id(), STOP_VECTOR)) {
		safe_halt();
		cli();
	}
}

static void guest_halts(void)
{
	target_setup();
	GUEST_SYNC(0);
	halt_until_stop_vector();
	GUEST_DONE();
}

static void send_nmi(u32 target)
{
	savic_write(target, SAVIC_NMI_REQ, 1);
	savic_wrmsr(APIC_ICR, (u64)target << 32 | APIC_DM_NMI);
}

/* One per GUEST_SYNC(), with an acknowledgment. */
static void guest_sends_ipis(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_send_ipi(TARGET, VECTOR);
		while (savic_nr_irqs(TARGET, VECTOR) < i)
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
	savic_send_ipi(TARGET, VECTOR);
	GUEST_DONE();
}

static void guest_takes_one(void)
{
	target_setup();
	GUEST_SYNC(0);
	savic_wait_for_irqs(VECTOR, 1);
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
		savic_wrmsr(APIC_ICR, ipis[i].icr | VECTOR);
	}
	GUEST_SYNC(i);
	GUEST_DONE();
}

/* Returns with interrupts off, for savic_wait_for_irqs(). */
static void halt_until_stopped(void)
{
	int i;

	while (!READ_ONCE(*stop)) {
		for (i = 0; i < NR_HALTS; i++)
			safe_halt();
		GUEST_SYNC(1);
	}
	cli();
}

static void x2apic_enable_with_page(void)
{
	x2apic_enable();
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA,
					    savic_page_gpa(0), NULL), GHCB_OK);
}

static void guest_engine_off(void)
{
	x2apic_enable_with_page();
	GUEST_SYNC(0);
	halt_until_stopped();

	/* What has been waiting all the time.  The next VMRUN may be right after that. */
	savic_set_vector(0, SAVIC_ALLOWED_IRR, VECTOR);
	savic_enable();
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_DONE();
}

static void guest_engine_off_nmis(void)
{
	x2apic_enable_with_page();
	GUEST_SYNC(0);
	halt_until_stopped();

	savic_enable();
	while (savic_nr_nmis(0) < 2)
		savic_settle();
	GUEST_DONE();
}

/* Without a page nothing can change behind KVM's back: no halt ends by itself. */
static void guest_no_page(void)
{
	int i;

	x2apic_enable();
	GUEST_SYNC(0);
	for (i = 0; i < NR_WAKEUPS; i++)
		safe_halt();
	cli();

	savic_set_vector(0, SAVIC_ALLOWED_IRR, VECTOR);
	savic_enable();
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_DONE();
}

/* With an interrupt pending, HLT isn't intercepted. */
static void guest_pending(void)
{
	int i;

	savic_enable();
	GUEST_SYNC(0);
	for (i = 1; i <= NR_WAKEUPS; i++) {
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
		safe_halt();
		cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), (u32)i);
	}
	GUEST_DONE();
}

/* The vector waits in IRR, as the guest masks it, and nobody is going to EOI it. */
static void mask_level(void)
{
	target_setup();
	savic_set_vector(0, APIC_TMR, VECTOR);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), MASKED_PRIORITY);
}

static void setup_line(void)
{
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI), IOAPIC_LEVEL | VECTOR);
}

static void guest_masked_line(void)
{
	mask_level();
	setup_line();
	GUEST_SYNC(0);
	halt_until_stopped();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

/* As for the masked one, but the vector vanishes in hardware. */
static void guest_denied_line(void)
{
	savic_enable();
	savic_allow_vector(STOP_VECTOR);
	savic_set_vector(0, APIC_TMR, VECTOR);
	setup_line();
	GUEST_SYNC(0);
	halt_until_stop_vector();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

static void guest_masked_level(void)
{
	mask_level();
	GUEST_SYNC(0);
	halt_until_stop_vector();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

/* As fast as the guest can.  Nothing of that is anything for the other vCPU, which halts. */
static void guest_storms(void)
{
	u32 i;

	savic_enable();
	for (i = 0; i < NR_REQUESTS; i++)
		savic_wrmsr(APIC_EOI, 0);
	GUEST_SYNC(1);
	for (i = 0; i < NR_REQUESTS; i++) {
		savic_wrmsr(APIC_ICR, 1ull << 32 | DENIED_VECTOR);
		savic_wrmsr(APIC_ICR, APIC_DEST_ALLBUT | DENIED_VECTOR);
		/* Hardware hands this one to the #VC handler, which forwards it. */
		wrmsr(X2APIC_MSR(APIC_ICR), 1ull << 32 | DENIED_VECTOR);
		savic_clear_vector(1, APIC_IRR, DENIED_VECTOR);
		GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	}
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t target;
	bool *stop;
};

static void create_vm(struct test_vm *t, u32 nr_vcpus, void *guest_code, bool split_irqchip)
{
	t->vm = __vm_savic_create(nr_vcpus, guest_code, t->vcpus, split_irqchip, 0);
	vm_install_exception_handler(t->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, NMI_VECTOR, savic_nmi_handler);
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

FIXTURE(savic_notify) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_notify)
{
	create_vm(&self->t, NR_VCPUS, guest_halts, false);
}

FIXTURE_TEARDOWN(savic_notify)
{
	kvm_vm_free(self->t.vm);
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

static void stop_target(struct test_vm *t)
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
	stop_target(t);
	return n;
}

/* The target spins on another CPU than the sender's.  False if there is only one. */
static bool start_on_two_cpus(struct test_vm *t, void *sender)
{
	int cpu[2];

	if (savic_get_cpus(cpu, 2) < 2)
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
		savic_send_msi(self->t.vm, TARGET, VECTOR);
		while (vcpu_get_stat(target, exits) == nr_exits)
			sched_yield();
	}
	n = notified(target);
	EXPECT_EQ(n.kicks, NR_ROUNDS);
	EXPECT_EQ(n.doorbells, 0);
	EXPECT_EQ(n.wakes, 0);
	stop_target(&self->t);
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
	EXPECT_EQ(n.doorbells + n.wakes, NR_ROUNDS);
	/* Now and then an IPI may find the target awake, as KVM wakes it from time to time. */
	EXPECT_LE(n.doorbells, kvm_get_module_param_integer("kvm_amd", "savic_idle_look_ms") ?
			       NR_ROUNDS / 5 : 0);
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

FIXTURE(savic_halt) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_halt)
{
}

FIXTURE_TEARDOWN(savic_halt)
{
	kvm_vm_free(self->t.vm);
}

/* Returns at the guest's first GUEST_SYNC(). */
static void launch(struct test_vm *t, void *guest_code, bool split_irqchip)
{
	gva_t gva;

	create_vm(t, 1, guest_code, split_irqchip);
	gva = vm_alloc_shared(t->vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	write_guest_global(t->vm, stop, (bool *)gva);
	t->stop = addr_gva2hva(t->vm, gva);
	*t->stop = false;
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	TEST_ASSERT(savic_vcpu_run(t->vcpus[0]), "Unexpected GUEST_DONE()");
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Not more than what is allowed, whatever else the CPU does: in each period that has begun
 * since, in the one before, and one more that has to wait for the end of its interval.
 */
static void expect_rate(u64 nr, long start)
{
	long ms = now_ms() - start;
	u64 max = (ms / RETRY_PERIOD_MS + 2) * (MAX_RETRIES + NR_INTERVALS + 1);

	TEST_ASSERT(nr <= max, "%lu retries in %ld ms, at most %lu expected", nr, ms, max);
}

/* How often the vCPU has waited for the end of a period, after all. */
static u64 nr_sleeps(struct kvm_vcpu *vcpu)
{
	return vcpu_get_stat(vcpu, halt_wakeup) + vcpu_get_stat(vcpu, halt_successful_poll);
}

static void expect_limited_halts(struct test_vm *t)
{
	long start = now_ms();
	u32 nr_halts = 0;

	do {
		TEST_ASSERT(savic_vcpu_run(t->vcpus[0]), "Unexpected GUEST_DONE()");
		nr_halts += NR_HALTS;
		expect_rate(nr_halts, start);
	} while (nr_sleeps(t->vcpus[0]) < NR_SLEEPS && nr_halts < MAX_HALTS);

	if (nr_halts >= MAX_HALTS)
		ksft_print_msg("%u halts took %ld ms, that's too slow for the limit\n", nr_halts,
			       now_ms() - start);
	WRITE_ONCE(*t->stop, true);
}

TEST_F_TIMEOUT(savic_halt, engine_off, TIMEOUT_SECS)
{
	launch(&self->t, guest_engine_off, false);
	savic_send_msi(self->t.vm, 0, VECTOR);
	expect_limited_halts(&self->t);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

/* One waits for hardware, and one for the first. */
TEST_F_TIMEOUT(savic_halt, engine_off_nmis, TIMEOUT_SECS)
{
	launch(&self->t, guest_engine_off_nmis, false);
	vcpu_ioctl(self->t.vcpus[0], KVM_NMI, NULL);
	vcpu_ioctl(self->t.vcpus[0], KVM_NMI, NULL);
	expect_limited_halts(&self->t);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

TEST_F_TIMEOUT(savic_halt, no_page, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;
	u64 i;

	launch(t, guest_no_page, false);
	savic_send_msi(t->vm, 0, VECTOR);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpus[0]);
	for (i = 1; i <= NR_WAKEUPS; i++) {
		while (vcpu_get_stat(t->vcpus[0], halt_exits) < i ||
		       !vcpu_get_stat(t->vcpus[0], blocking))
			usleep(50);
		TEST_ASSERT_EQ(vcpu_get_stat(t->vcpus[0], halt_exits), i);
		savic_send_msi(t->vm, 0, VECTOR);
	}
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_halt, pending, TIMEOUT_SECS)
{
	launch(&self->t, guest_pending, false);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
	EXPECT_EQ(vcpu_get_stat(self->t.vcpus[0], halt_exits), 0);
}

/* A line that stays asserted, so that each halt is one more EOI. */
TEST_F_TIMEOUT(savic_halt, masked_line, TIMEOUT_SECS)
{
	launch(&self->t, guest_masked_line, false);
	kvm_irq_line(self->t.vm, LINE_GSI, 1);
	expect_limited_halts(&self->t);
	EXPECT_GE(vcpu_get_stat(self->t.vcpus[0], savic_missing_eois), NR_SLEEPS);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

/* The same if the I/O APIC is userspace's. */
TEST_F_TIMEOUT(savic_halt, masked_level, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	long start;
	int i;

	launch(t, guest_masked_level, true);
	start = now_ms();
	for (i = 0; i < NR_HALTS; i++) {
		savic_send_msi(t->vm, 0, MSI_LEVEL | VECTOR);
		vcpu_run(t->vcpus[0]);
		TEST_ASSERT_KVM_EXIT_REASON(t->vcpus[0], KVM_EXIT_IOAPIC_EOI);
	}
	expect_rate(NR_HALTS, start);

	savic_send_msi(t->vm, 0, STOP_VECTOR);
	do {
		vcpu_run(t->vcpus[0]);
	} while (t->vcpus[0]->run->exit_reason == KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(get_ucall(t->vcpus[0], NULL), UCALL_DONE);
}

/*
 * An assigned device's line that the guest doesn't allow: the host masks the device's interrupt
 * until the resampling, finds the line still asserted, and so on.
 */
TEST_F_TIMEOUT(savic_halt, denied_line, TIMEOUT_SECS)
{
	struct kvm_irqfd irqfd = {
		.fd = kvm_new_eventfd(),
		.resamplefd = kvm_new_eventfd(),
		.gsi = LINE_GSI,
		.flags = KVM_IRQFD_FLAG_RESAMPLE,
	};
	struct test_vm *t = &self->t;
	u64 nr_unmasks = 0, nr;
	pthread_t thread;
	long start;

	launch(t, guest_denied_line, false);
	vm_ioctl(t->vm, KVM_IRQFD, &irqfd);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpus[0]);
	start = now_ms();
	while (nr_unmasks < NR_UNMASKS) {
		savic_signal_eventfd(irqfd.fd);
		TEST_ASSERT_EQ(read(irqfd.resamplefd, &nr, sizeof(nr)), (ssize_t)sizeof(nr));
		nr_unmasks += nr;
		expect_rate(nr_unmasks, start);
	}
	/* One of them for each EOI that was missing. */
	EXPECT_EQ(vcpu_get_stat(t->vcpus[0], savic_missing_eois), nr_unmasks);
	EXPECT_EQ(vcpu_get_stat(t->vcpus[0], savic_level_eois), nr_unmasks);

	savic_send_msi(t->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
	close(irqfd.fd);
	close(irqfd.resamplefd);
}

/* A request of the guest costs the host nothing but that request, and the target one halt. */
TEST_F_TIMEOUT(savic_halt, storms, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct kvm_vcpu *sender, *target;
	struct notified n;

	create_vm(t, 2, NULL, false);
	sender = t->vcpus[SENDER];
	target = t->vcpus[TARGET];
	start(t, guest_storms, guest_halts);

	EXPECT_TRUE(savic_vcpu_run(sender));
	EXPECT_EQ(vcpu_get_stat(sender, savic_level_eois), 0);
	EXPECT_EQ(vcpu_get_stat(sender, savic_kicks), 0);

	EXPECT_FALSE(savic_vcpu_run(sender));
	EXPECT_EQ(vcpu_get_stat(target, savic_posted), NR_REQUESTS);
	n = notified(target);
	EXPECT_LE(n.kicks + n.wakes + n.doorbells, NR_REQUESTS_TO_OTHER);
	EXPECT_LE(vcpu_get_stat(target, halt_exits), NR_REQUESTS_TO_OTHER + 1);
	EXPECT_EQ(vcpu_get_stat(target, savic_missing_eois), 0);
	stop_target(t);
}

SAVIC_TEST_HARNESS_MAIN
