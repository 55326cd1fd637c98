// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: guests that halt although something waits for them which a halted
 * vCPU can't get.  KVM doesn't see whether that has changed, i.e. has to run the vCPU
 * every now and then, but must not keep the CPU busy with it.
 */
#include <pthread.h>
#include <time.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define VECTOR			0x51
/* Of a higher priority class than what is masked. */
#define STOP_VECTOR		0xf1
#define MASKED_PRIORITY		0xe0
/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))
/* Not of a PIC. */
#define LINE_GSI		20

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
#define DENIED_VECTOR		0x61

/* Halts that only the host ends. */
#define NR_WAKEUPS		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only: in memory that host and guest share. */
static bool *stop;

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
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(STOP_VECTOR);
	savic_set_vector(0, APIC_TMR, VECTOR);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), MASKED_PRIORITY);
}

static void guest_masked_line(void)
{
	mask_level();
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI), IOAPIC_LEVEL | VECTOR);
	GUEST_SYNC(0);
	halt_until_stopped();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

/* As for the masked one, but the vector vanishes in hardware. */
static void guest_denied_line(void)
{
	savic_enable();
	savic_set_vector(0, APIC_TMR, VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI), IOAPIC_LEVEL | VECTOR);
	GUEST_SYNC(0);
	while (!READ_ONCE(*stop))
		safe_halt();
	cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

static void guest_masked_level(void)
{
	mask_level();
	GUEST_SYNC(0);
	while (!savic_nr_irqs(0, STOP_VECTOR)) {
		safe_halt();
		cli();
	}
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

static void send_ipi(u64 icr)
{
	savic_wrmsr(APIC_ICR, icr);
}

/* As fast as the guest can.  Nothing of that is anything for the other vCPU, which halts. */
static void guest_storms(void)
{
	u32 i;

	savic_enable();
	GUEST_SYNC(0);
	for (i = 0; i < NR_REQUESTS; i++)
		savic_wrmsr(APIC_EOI, 0);
	GUEST_SYNC(1);
	for (i = 0; i < NR_REQUESTS; i++) {
		send_ipi(1ull << 32 | DENIED_VECTOR);
		send_ipi(APIC_DEST_ALLBUT | DENIED_VECTOR);
		/* Hardware hands this one to the #VC handler, which forwards it. */
		wrmsr(X2APIC_MSR(APIC_ICR), 1ull << 32 | DENIED_VECTOR);
		savic_clear_vector(1, APIC_IRR, DENIED_VECTOR);
		GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	}
	GUEST_DONE();
}

static void guest_storm_target(void)
{
	savic_enable();
	GUEST_SYNC(0);
	while (!READ_ONCE(*stop))
		safe_halt();
	cli();
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	struct kvm_vcpu *target;
	bool *stop;
};

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

static void add_stop_flag(struct test_vm *t)
{
	gva_t gva = vm_alloc_shared(t->vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);

	write_guest_global(t->vm, stop, (bool *)gva);
	t->stop = addr_gva2hva(t->vm, gva);
	*t->stop = false;
}

/* Returns at the guest's first GUEST_SYNC(). */
static void launch(struct test_vm *t, void *guest_code, bool split_irqchip)
{
	t->vm = __vm_savic_create(1, guest_code, &t->vcpu, split_irqchip, 0);
	vm_install_exception_handler(t->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, NMI_VECTOR, savic_nmi_handler);
	add_stop_flag(t);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	TEST_ASSERT(savic_vcpu_run(t->vcpu), "Unexpected GUEST_DONE()");
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
		TEST_ASSERT(savic_vcpu_run(t->vcpu), "Unexpected GUEST_DONE()");
		nr_halts += NR_HALTS;
		expect_rate(nr_halts, start);
	} while (nr_sleeps(t->vcpu) < NR_SLEEPS && nr_halts < MAX_HALTS);

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
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
}

/* One waits for hardware, and one for the first. */
TEST_F_TIMEOUT(savic_halt, engine_off_nmis, TIMEOUT_SECS)
{
	launch(&self->t, guest_engine_off_nmis, false);
	vcpu_ioctl(self->t.vcpu, KVM_NMI, NULL);
	vcpu_ioctl(self->t.vcpu, KVM_NMI, NULL);
	expect_limited_halts(&self->t);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
}

TEST_F_TIMEOUT(savic_halt, no_page, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;
	u64 i;

	launch(t, guest_no_page, false);
	savic_send_msi(t->vm, 0, VECTOR);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpu);
	for (i = 1; i <= NR_WAKEUPS; i++) {
		while (vcpu_get_stat(t->vcpu, halt_exits) < i ||
		       !vcpu_get_stat(t->vcpu, blocking))
			usleep(50);
		TEST_ASSERT_EQ(vcpu_get_stat(t->vcpu, halt_exits), i);
		savic_send_msi(t->vm, 0, VECTOR);
	}
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_halt, pending, TIMEOUT_SECS)
{
	launch(&self->t, guest_pending, false);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
	EXPECT_EQ(vcpu_get_stat(self->t.vcpu, halt_exits), 0);
}

/* A line that stays asserted, so that each halt is one more EOI. */
TEST_F_TIMEOUT(savic_halt, masked_line, TIMEOUT_SECS)
{
	launch(&self->t, guest_masked_line, false);
	kvm_irq_line(self->t.vm, LINE_GSI, 1);
	expect_limited_halts(&self->t);
	EXPECT_GE(vcpu_get_stat(self->t.vcpu, savic_missing_eois), NR_SLEEPS);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
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
		vcpu_run(t->vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(t->vcpu, KVM_EXIT_IOAPIC_EOI);
	}
	expect_rate(NR_HALTS, start);

	savic_send_msi(t->vm, 0, STOP_VECTOR);
	do {
		vcpu_run(t->vcpu);
	} while (t->vcpu->run->exit_reason == KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(get_ucall(t->vcpu, NULL), UCALL_DONE);
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
	u64 nr_unmasks = 0, one = 1, nr;
	pthread_t thread;
	long start;

	launch(t, guest_denied_line, false);
	vm_ioctl(t->vm, KVM_IRQFD, &irqfd);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpu);
	start = now_ms();
	while (nr_unmasks < NR_UNMASKS) {
		TEST_ASSERT_EQ(write(irqfd.fd, &one, sizeof(one)), (ssize_t)sizeof(one));
		TEST_ASSERT_EQ(read(irqfd.resamplefd, &nr, sizeof(nr)), (ssize_t)sizeof(nr));
		nr_unmasks += nr;
		expect_rate(nr_unmasks, start);
	}
	/* One of them for each EOI that was missing. */
	EXPECT_EQ(vcpu_get_stat(t->vcpu, savic_missing_eois), nr_unmasks);
	EXPECT_EQ(vcpu_get_stat(t->vcpu, savic_level_eois), nr_unmasks);

	WRITE_ONCE(*t->stop, true);
	savic_send_msi(t->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
	close(irqfd.fd);
	close(irqfd.resamplefd);
}

/* A request of the guest costs the host nothing but that request, and the target one halt. */
TEST_F_TIMEOUT(savic_halt, storms, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct kvm_vcpu *vcpus[2];
	pthread_t thread;
	u64 nr;

	t->vm = vm_savic_create(2, guest_storms, vcpus);
	t->vcpu = vcpus[0];
	t->target = vcpus[1];
	vcpu_arch_set_entry_point(t->target, guest_storm_target);
	add_stop_flag(t);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(t->vcpu));
	EXPECT_TRUE(savic_vcpu_run(t->target));
	pthread_create(&thread, NULL, savic_vcpu_thread, t->target);

	EXPECT_TRUE(savic_vcpu_run(t->vcpu));
	EXPECT_EQ(vcpu_get_stat(t->vcpu, savic_level_eois), 0);
	EXPECT_EQ(vcpu_get_stat(t->vcpu, savic_kicks), 0);

	EXPECT_FALSE(savic_vcpu_run(t->vcpu));
	EXPECT_EQ(vcpu_get_stat(t->target, savic_posted), NR_REQUESTS);
	nr = vcpu_get_stat(t->target, savic_kicks) + vcpu_get_stat(t->target, savic_wakes) +
	     vcpu_get_stat(t->target, savic_doorbells);
	EXPECT_LE(nr, NR_REQUESTS_TO_OTHER);
	EXPECT_LE(vcpu_get_stat(t->target, halt_exits), NR_REQUESTS_TO_OTHER + 1);
	EXPECT_EQ(vcpu_get_stat(t->target, savic_missing_eois), 0);

	WRITE_ONCE(*t->stop, true);
	savic_send_msi(t->vm, 1, STOP_VECTOR);
	pthread_join(thread, NULL);
}

SAVIC_TEST_HARNESS_MAIN
