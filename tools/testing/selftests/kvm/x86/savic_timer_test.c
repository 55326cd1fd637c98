// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: the local APIC's timer, which is KVM's.
 *
 * The guest asks for its registers by VMGEXIT, and KVM posts the vector when the timer
 * expires, without knowing when, or if, it is delivered.  Interrupts are counted, and
 * waited for without a limit: the harness ends a test that has lost one.
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

#define VECTOR			0x51
#define OTHER_VECTOR		0x52
#define DIVIDE_BY_1		0xb

/* KVM's APIC bus has 1 GHz: a millisecond, divided by 1. */
#define MILLISECOND		1000000

#define NR_ROUNDS		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

static u32 timer_read(u32 reg)
{
	u64 val;

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(reg), &val), GHCB_OK);
	return val;
}

/*
 * Returns when it has expired, and KVM has looked at that.  The count is zero by the
 * clock, which may be before KVM's own timer has fired: see run().
 */
static void wait_for_zero(void)
{
	while (timer_read(APIC_TMCCT))
		cpu_relax();
	GUEST_SYNC(0);
	savic_settle();
}

static void start_oneshot(u32 count)
{
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, count);
}

static void setup(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_wrmsr(APIC_TDCR, DIVIDE_BY_1);
}

static void expect_irqs(u32 nr)
{
	savic_wait_for_irqs(VECTOR, nr);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
}

static void guest_oneshot(void)
{
	u32 i;

	setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		start_oneshot(i * MILLISECOND / 10);
		expect_irqs(i);
		GUEST_ASSERT_EQ(timer_read(APIC_TMCCT), 0u);
		GUEST_ASSERT_EQ(timer_read(APIC_TMICT), i * MILLISECOND / 10);
	}

	/* Stopped, and replaced, before they expire. */
	start_oneshot(GENMASK(31, 0));
	savic_wrmsr(APIC_TMICT, 0);
	GUEST_ASSERT_EQ(timer_read(APIC_TMCCT), 0u);
	start_oneshot(GENMASK(31, 0));
	start_oneshot(MILLISECOND);
	expect_irqs(i);
	GUEST_DONE();
}

/* What guest_divide() and the host share. */
struct divide {
	/* TMCCT, a while after the maximum was written to TMICT. */
	u32 count;
	/* The host wants another one for the same value of TDCR. */
	bool again;
};

/* Value i divides by 2 to the power of i. */
static const u8 divide_values[] = { 0xb, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa };

static void guest_divide(struct divide *divide)
{
	u32 i;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	for (i = 0; i < ARRAY_SIZE(divide_values); i++) {
		savic_wrmsr(APIC_TDCR, divide_values[i]);
		do {
			savic_wrmsr(APIC_TMICT, GENMASK(31, 0));
			GUEST_SYNC(0);
			WRITE_ONCE(divide->count, timer_read(APIC_TMCCT));
			GUEST_SYNC(1);
			savic_wrmsr(APIC_TMICT, 0);
		} while (READ_ONCE(divide->again));
	}
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

static void guest_periodic(void)
{
	u32 nr;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	for (nr = 1; nr <= NR_ROUNDS; nr++) {
		savic_wait_for_irqs(VECTOR, nr);
		GUEST_ASSERT(timer_read(APIC_TMCCT) <= MILLISECOND);
	}

	/* Masked, it goes on, without interrupts but for one that is on its way. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_settle();
	nr = savic_nr_irqs(0, VECTOR);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | VECTOR);
	savic_wait_for_irqs(VECTOR, nr + 2);

	/* Stopped, likewise. */
	savic_wrmsr(APIC_TMICT, 0);
	savic_settle();
	nr = savic_nr_irqs(0, VECTOR);
	GUEST_SYNC(1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	GUEST_DONE();
}

static void guest_deadline(u64 tsc_khz)
{
	u64 tsc, deadline;
	u32 i, nr;

	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	for (i = 1; i <= NR_ROUNDS; i++) {
		deadline = rdtsc() + tsc_khz;
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		savic_wait_for_irqs(VECTOR, i);
		/* KVM's own timer fires before that. */
		GUEST_ASSERT(rdtsc() >= deadline);
		expect_irqs(i);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
	}

	/* In the past, i.e. now. */
	wrmsr(MSR_IA32_TSC_DEADLINE, 1);
	expect_irqs(i);

	/* Disarmed in three ways.  If that took so long that it came too late, once more. */
	do {
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
		savic_settle();
		nr = savic_nr_irqs(0, VECTOR);
		tsc = rdtsc();
		deadline = tsc + 20 * tsc_khz;
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		wrmsr(MSR_IA32_TSC_DEADLINE, 0);
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
		wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
		GUEST_ASSERT_EQ(rdmsr(MSR_IA32_TSC_DEADLINE), 0ul);
	} while (rdtsc() - tsc > 10 * tsc_khz);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);

	/* In this mode there is no count. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	GUEST_ASSERT_EQ(timer_read(APIC_TMCCT), 0u);
	GUEST_SYNC(1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), nr);
	GUEST_DONE();
}

/* What expires while it isn't allowed, or has no valid vector, is gone. */
static void guest_not_delivered(void)
{
	setup();
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | OTHER_VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	savic_allow_vector(OTHER_VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, OTHER_VECTOR), 0u);

	savic_allow_vector(15);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | 15);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT(!savic_test_vector(0, APIC_IRR, 15));

	start_oneshot(MILLISECOND);
	expect_irqs(1);
	GUEST_DONE();
}

static void guest_masked(void)
{
	setup();

	/* What expires while it is masked KVM keeps, for any guest, until that changes. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	expect_irqs(1);

	/* Or until the timer is stopped. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, MILLISECOND);
	wait_for_zero();
	savic_wrmsr(APIC_TMICT, 0);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 1u);

	/* Unmasked before it expires. */
	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_ONESHOT | VECTOR);
	savic_wrmsr(APIC_TMICT, 20 * MILLISECOND);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | VECTOR);
	expect_irqs(2);
	GUEST_DONE();
}

/* Armed in the guest, expires while the vCPU is somewhere else. */
static void guest_in_userspace(void)
{
	u32 i;

	setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		start_oneshot(MILLISECOND);
		GUEST_SYNC(i);
		expect_irqs(i);
	}
	GUEST_DONE();
}

/* Firmware does that: the engine is off, and is turned on much later. */
static void guest_engine_off(void)
{
	x2apic_enable();
	savic_wrmsr(APIC_TDCR, DIVIDE_BY_1);
	start_oneshot(MILLISECOND);
	wait_for_zero();
	start_oneshot(MILLISECOND);
	wait_for_zero();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);

	/* They have become one. */
	savic_set_vector(0, SAVIC_ALLOWED_IRR, VECTOR);
	savic_enable();
	expect_irqs(1);
	start_oneshot(MILLISECOND);
	expect_irqs(2);
	GUEST_DONE();
}

static void guest_migrated(void)
{
	u32 i;

	setup();
	GUEST_SYNC(0);
	for (i = 1; i <= 10 * NR_ROUNDS; i++) {
		start_oneshot(MILLISECOND / 4);
		expect_irqs(i);
	}
	GUEST_DONE();
}

FIXTURE(savic_timer) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_timer)
{
	self->vm = vm_savic_create(1, NULL, &self->vcpu);
	vm_install_exception_handler(self->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, OTHER_VECTOR, savic_irq_handler);
}

FIXTURE_TEARDOWN(savic_timer)
{
	kvm_vm_free(self->vm);
}

static void launch(struct kvm_vcpu *vcpu, void *guest_code, u64 arg)
{
	vcpu_arch_set_entry_point(vcpu, guest_code);
	vcpu_args_set(vcpu, 1, arg);
	vm_sev_launch(vcpu->vm, snp_default_policy(), NULL);
}

/* At each GUEST_SYNC() stay in userspace longer than any timer takes. */
static void run(struct kvm_vcpu *vcpu, void *guest_code)
{
	launch(vcpu, guest_code, __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL));
	while (savic_vcpu_run(vcpu))
		usleep(25000);
}

TEST_F_TIMEOUT(savic_timer, oneshot, TIMEOUT_SECS)
{
	run(self->vcpu, guest_oneshot);
}

/* The clock that KVM's timer goes by. */
static u64 now_ns(void)
{
	struct timespec ts;

	TEST_ASSERT(!clock_gettime(CLOCK_MONOTONIC, &ts), "clock_gettime() failed, errno %d",
		    errno);
	return timespec_to_ns(ts);
}

/* What is left of TMICT's maximum after @elapsed_ns. */
static u64 expected_count(u64 elapsed_ns, u64 period_ns)
{
	u64 total_ns = GENMASK(31, 0) * period_ns;

	return elapsed_ns < total_ns ? (total_ns - elapsed_ns) / period_ns : 0;
}

/*
 * The timer has counted from some time between start[0] and start[1] to some time between
 * end[0] and end[1].  However long these take, its count can't be outside of what they
 * allow.  Returns false if they also allow a period of half or twice as long, or an end
 * of the count.
 */
static bool check_divide(struct kvm_vcpu *vcpu, struct divide *divide, u64 period_ns,
			 u32 sleep_us)
{
	u64 start[2], end[2], min, max;

	start[0] = now_ns();
	TEST_ASSERT(savic_vcpu_run(vcpu), "Unexpected GUEST_DONE()");
	start[1] = now_ns();
	usleep(sleep_us);
	end[0] = now_ns();
	TEST_ASSERT(savic_vcpu_run(vcpu), "Unexpected GUEST_DONE()");
	end[1] = now_ns();

	min = expected_count(end[1] - start[0], period_ns);
	max = expected_count(end[0] - start[1], period_ns);
	TEST_ASSERT(divide->count >= min && divide->count <= max,
		    "A period of %lu ns: TMCCT is %u, expected %lu to %lu",
		    period_ns, divide->count, min, max);
	return min && end[1] - start[0] < 2 * (end[0] - start[1]);
}

TEST_F_TIMEOUT(savic_timer, divide, TIMEOUT_SECS)
{
	gva_t gva = vm_alloc_shared(self->vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	struct divide *divide = addr_gva2hva(self->vm, gva);
	u64 cycle_ns = vm_check_cap(self->vm, KVM_CAP_X86_APIC_BUS_CYCLES_NS);
	u32 i, sleep_us;

	launch(self->vcpu, guest_divide, gva);
	for (i = 0; i < ARRAY_SIZE(divide_values); i++) {
		sleep_us = 1000;
		do {
			divide->again = !check_divide(self->vcpu, divide, cycle_ns << i, sleep_us);
			sleep_us *= 2;
		} while (divide->again);
	}
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

TEST_F_TIMEOUT(savic_timer, periodic, TIMEOUT_SECS)
{
	run(self->vcpu, guest_periodic);
}

TEST_F_TIMEOUT(savic_timer, deadline, TIMEOUT_SECS)
{
	run(self->vcpu, guest_deadline);
}

TEST_F_TIMEOUT(savic_timer, not_delivered, TIMEOUT_SECS)
{
	run(self->vcpu, guest_not_delivered);
}

TEST_F_TIMEOUT(savic_timer, masked, TIMEOUT_SECS)
{
	run(self->vcpu, guest_masked);
}

TEST_F_TIMEOUT(savic_timer, in_userspace, TIMEOUT_SECS)
{
	run(self->vcpu, guest_in_userspace);
}

TEST_F_TIMEOUT(savic_timer, engine_off, TIMEOUT_SECS)
{
	run(self->vcpu, guest_engine_off);
}

/* From CPU to CPU, along with the thread. */
TEST_F_TIMEOUT(savic_timer, migrated, TIMEOUT_SECS)
{
	cpu_set_t possible;
	pthread_t thread;
	int cpu, i = 0;

	kvm_sched_getaffinity(0, sizeof(possible), &possible);
	if (CPU_COUNT(&possible) < 2)
		SKIP(return, "Needs two CPUs");

	launch(self->vcpu, guest_migrated, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpu);
	for (cpu = 0; pthread_tryjoin_np(thread, NULL); cpu = (cpu + 1) % CPU_SETSIZE) {
		if (!CPU_ISSET(cpu, &possible))
			continue;
		pin_task_to_cpu(thread, cpu);
		usleep(500 + i++ % 500);
	}
}

SAVIC_TEST_HARNESS_MAIN
