// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts and NMIs from outside of the guest, i.e. IOAPIC, irqfd
 * and KVM_NMI, and all of them at once.
 *
 * KVM can't see whether a vector was delivered, let alone when it is done.  For a
 * level-triggered one it depends on the guest's EOI request, and must pass it on
 * once: the guest counts interrupts, the host counts EOIs.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define APIC_LVT0		0x350
#define APIC_LVTERR		0x370
#define APIC_ESR		0x280

/* Highest priority first: an MSI must not hide what has a lower one. */
#define MSI_VECTOR		0xa1
#define EDGE_VECTOR		0x91
#define LEVEL_VECTOR		0x81
#define TIMER_VECTOR		0x71
#define IPI_VECTOR		0x61
#define STOP_VECTOR		0x51
#define ERROR_VECTOR		0xb1
#define ILLEGAL_VECTOR		0xf

/* By the default routing, GSI n is pin n, and of no PIC from 16 on. */
#define PIT_GSI			0
#define RTC_GSI			8
#define EDGE_GSI		18
#define LEVEL_GSI		20

#define NR_ROUNDS		50
#define NR_STRESS		500

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		240

static u32 edge_gsi = EDGE_GSI;

/* To vCPU 0, physical. */
static void ioapic_setup(void)
{
	ghcb_ioapic_write(IOAPIC_REDIR(edge_gsi) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(edge_gsi), EDGE_VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI), IOAPIC_LEVEL | LEVEL_VECTOR);
}

/* TMR is the guest's: REQUESTED_IRR doesn't say how a vector is triggered. */
static void guest_setup(void)
{
	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	savic_allow_vector(EDGE_VECTOR);
	savic_allow_vector(LEVEL_VECTOR);
	savic_allow_vector(TIMER_VECTOR);
	savic_allow_vector(STOP_VECTOR);
	savic_set_vector(savic_apic_id(), APIC_TMR, LEVEL_VECTOR);
}

static void guest_edge(void)
{
	u32 i;

	guest_setup();
	ioapic_setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_wait_for_irqs(EDGE_VECTOR, i);
		savic_settle();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, EDGE_VECTOR), i);
	}
	GUEST_DONE();
}

static void guest_level(void)
{
	u32 i;

	guest_setup();
	ioapic_setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_wait_for_irqs(LEVEL_VECTOR, i);
		savic_settle();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LEVEL_VECTOR), i);
		GUEST_ASSERT(!savic_test_vector(0, APIC_ISR, LEVEL_VECTOR));
	}
	/* One more, for the host to see the last EOI. */
	GUEST_SYNC(i);
	GUEST_DONE();
}

/* Destination IDs of a logical cluster's first vCPUs, in an I/O APIC entry's upper half. */
#define CLUSTER0_VCPUS_0_1	(0x3 << 24)

/* One line, whose interrupt both vCPUs get, and EOI. */
static void guest_level_shared(void)
{
	u32 id;

	guest_setup();
	id = savic_apic_id();
	if (!id) {
		ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI) + 1, CLUSTER0_VCPUS_0_1);
		ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI),
				  IOAPIC_LEVEL | APIC_DEST_LOGICAL | LEVEL_VECTOR);
	}
	GUEST_SYNC(0);
	savic_wait_for_irqs(STOP_VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(id, LEVEL_VECTOR), (u32)NR_ROUNDS);
	GUEST_DONE();
}

/* As savic_irq_handler(), but lets hardware and its #VC do the EOI. */
static u32 nr_hw_eois;

static void hw_eoi_handler(struct ex_regs *regs)
{
	wrmsr(X2APIC_MSR(APIC_EOI), 0);
	nr_hw_eois++;
}

static void guest_level_hw_eoi(void)
{
	u32 i;

	guest_setup();
	ioapic_setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		while (READ_ONCE(nr_hw_eois) < i) {
			safe_halt();
			cli();
		}
		sti_nop_cli();
		GUEST_ASSERT_EQ(READ_ONCE(nr_hw_eois), i);
		GUEST_ASSERT(!savic_test_vector(0, APIC_ISR, LEVEL_VECTOR));
	}
	GUEST_SYNC(i);
	GUEST_DONE();
}

/* The line must not stay blocked because of an interrupt that nobody wanted. */
static void guest_level_denied(void)
{
	guest_setup();
	savic_clear_vector(0, SAVIC_ALLOWED_IRR, LEVEL_VECTOR);
	ioapic_setup();
	GUEST_SYNC(0);
	savic_wait_for_irqs(STOP_VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LEVEL_VECTOR), 0u);

	savic_allow_vector(LEVEL_VECTOR);
	GUEST_SYNC(1);
	savic_wait_for_irqs(LEVEL_VECTOR, 1);
	GUEST_SYNC(2);
	GUEST_DONE();
}

#define PIT_COMMAND		0x43
#define PIT_CHANNEL0		0x40
/* Channel 0, both bytes, rate generator. */
#define PIT_MODE		0x34
/* About a millisecond. */
#define PIT_PERIOD		1200

#define PIC1_COMMAND		0x20
#define PIC1_DATA		0x21
#define PIC_BASE_VECTOR		0x30
#define PIC_GSI			3

static void write_port(u16 port, u8 val)
{
	asm volatile("outb %0, %1" : : "a" (val), "d" (port));
}

/* A PIC that has everything unmasked, behind LINT0 in ExtINT mode, and no way to the vCPU. */
static void guest_extint(void)
{
	guest_setup();
	write_port(PIC1_COMMAND, 0x11);
	write_port(PIC1_DATA, PIC_BASE_VECTOR);
	write_port(PIC1_DATA, 0x04);
	write_port(PIC1_DATA, 0x01);
	write_port(PIC1_DATA, 0x00);
	savic_wrmsr(APIC_LVT0, APIC_DM_EXTINT);
	savic_allow_vector(PIC_BASE_VECTOR + PIC_GSI);
	GUEST_SYNC(0);
	savic_settle();
	savic_wait_for_irqs(STOP_VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, PIC_BASE_VECTOR + PIC_GSI), 0u);
	GUEST_DONE();
}

/* The next tick comes although KVM sees no EOI of the one before. */
static void guest_pit(void)
{
	guest_setup();
	ioapic_setup();
	write_port(PIT_COMMAND, PIT_MODE);
	write_port(PIT_CHANNEL0, PIT_PERIOD & 0xff);
	write_port(PIT_CHANNEL0, PIT_PERIOD >> 8);
	savic_wait_for_irqs(EDGE_VECTOR, NR_ROUNDS);
	GUEST_DONE();
}

static void guest_nmi(void)
{
	u32 i;

	guest_setup();
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		/* Taken by VMRUN, i.e. before the first instruction after it. */
		GUEST_ASSERT_EQ(savic_nr_nmis(0), i);
	}

	/* Not allowed: consumed by hardware, and not kept. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN);
	GUEST_SYNC(i);
	GUEST_ASSERT_EQ(savic_nr_nmis(0), i - 1);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN |
				       MSR_AMD64_SAVIC_ALLOWEDNMI);
	GUEST_SYNC(i + 1);
	GUEST_ASSERT_EQ(savic_nr_nmis(0), i - 1);
	GUEST_DONE();
}

static u32 sender_done;

/* In memory that host and guest share.  By vector, of which the NMI has one, too. */
static struct shared {
	u32 received[256];
} *shared;

/* Counts after the EOI, i.e. what is sent then can't be one with this. */
static void shared_handler(struct ex_regs *regs)
{
	savic_irq_handler(regs);
	__sync_fetch_and_add(&shared->received[regs->vector], 1);
}

static void shared_nmi_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&shared->received[NMI_VECTOR], 1);
}

static void guest_stress_target(void)
{
	guest_setup();
	ioapic_setup();
	savic_wrmsr(APIC_TDCR, 0xb);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | TIMER_VECTOR);
	savic_wrmsr(APIC_TMICT, 5000000);
	GUEST_SYNC(0);

	savic_wait_for_irqs(STOP_VECTOR, 1);
	savic_wrmsr(APIC_TMICT, 0);

	/* Each sender waits for its own, so that none can coalesce with the one before. */
	while (!READ_ONCE(sender_done))
		sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, IPI_VECTOR), (u32)NR_STRESS);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LEVEL_VECTOR), (u32)NR_STRESS);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, EDGE_VECTOR), (u32)NR_STRESS);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, MSI_VECTOR), (u32)NR_STRESS);
	GUEST_ASSERT_EQ(READ_ONCE(shared->received[NMI_VECTOR]), (u32)NR_STRESS);
	GUEST_ASSERT(savic_nr_irqs(0, TIMER_VECTOR) > 0);
	GUEST_DONE();
}

static void guest_stress_sender(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_STRESS; i++) {
		savic_send_ipi(0, IPI_VECTOR);
		while (savic_nr_irqs(0, IPI_VECTOR) < i)
			cpu_relax();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, IPI_VECTOR), i);
	}
	WRITE_ONCE(sender_done, 1);
	GUEST_DONE();
}

/* What a real APIC reports as an error, if the guest wants to hear of it. */
static void guest_error(void)
{
	struct ghcb_request illegal_ipi = {
		.exit_code = SVM_EXIT_AVIC_INCOMPLETE_IPI,
		.exit_info_1 = ILLEGAL_VECTOR,
	};

	guest_setup();
	savic_allow_vector(ERROR_VECTOR);
	savic_wrmsr(APIC_LVTERR, ERROR_VECTOR);
	GUEST_ASSERT_EQ(ghcb_vmgexit(&illegal_ipi), GHCB_OK);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, ERROR_VECTOR), 0u);
	GUEST_ASSERT_EQ(savic_read(0, APIC_ESR), 0u);
	GUEST_SYNC(1);
	savic_wait_for_irqs(ERROR_VECTOR, 1);
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
	int irqfd;
	int resamplefd;
};

FIXTURE(savic_irq) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_irq)
{
	static const u8 vectors[] = {
		MSI_VECTOR, EDGE_VECTOR, LEVEL_VECTOR, TIMER_VECTOR, IPI_VECTOR, STOP_VECTOR,
	};
	struct kvm_irqfd level = { .gsi = LEVEL_GSI, .flags = KVM_IRQFD_FLAG_RESAMPLE };
	int i;

	self->t.vm = vm_savic_create(2, guest_stress_sender, self->t.vcpus);
	for (i = 0; i < ARRAY_SIZE(vectors); i++)
		vm_install_exception_handler(self->t.vm, vectors[i], savic_irq_handler);
	vm_install_exception_handler(self->t.vm, NMI_VECTOR, savic_nmi_handler);

	self->t.irqfd = eventfd(0, EFD_NONBLOCK);
	self->t.resamplefd = eventfd(0, EFD_NONBLOCK);
	level.fd = self->t.irqfd;
	level.resamplefd = self->t.resamplefd;
	vm_ioctl(self->t.vm, KVM_IRQFD, &level);
}

FIXTURE_TEARDOWN(savic_irq)
{
	kvm_vm_free(self->t.vm);
	close(self->t.irqfd);
	close(self->t.resamplefd);
}

static void launch(struct test_vm *t, void *guest_code)
{
	vcpu_arch_set_entry_point(t->vcpus[0], guest_code);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
}

/* How often KVM saw an EOI since last time. */
static u64 nr_resamples(struct test_vm *t)
{
	u64 nr;

	return read(t->resamplefd, &nr, sizeof(nr)) == sizeof(nr) ? nr : 0;
}

TEST_F_TIMEOUT(savic_irq, ioapic_edge, TIMEOUT_SECS)
{
	launch(&self->t, guest_edge);
	while (savic_vcpu_run(self->t.vcpus[0])) {
		kvm_irq_line(self->t.vm, EDGE_GSI, 1);
		kvm_irq_line(self->t.vm, EDGE_GSI, 0);
	}
}

/* KVM would wait for EOIs of the RTC, and report what comes before as coalesced. */
TEST_F_TIMEOUT(savic_irq, ioapic_rtc, TIMEOUT_SECS)
{
	struct kvm_irq_level line = { .irq = RTC_GSI };

	edge_gsi = RTC_GSI;
	sync_global_to_guest(self->t.vm, edge_gsi);
	launch(&self->t, guest_edge);
	while (savic_vcpu_run(self->t.vcpus[0])) {
		line.level = 1;
		vm_ioctl(self->t.vm, KVM_IRQ_LINE_STATUS, &line);
		EXPECT_GT(line.status, 0);
		line.irq = RTC_GSI;
		line.level = 0;
		vm_ioctl(self->t.vm, KVM_IRQ_LINE_STATUS, &line);
		line.irq = RTC_GSI;
	}
}

TEST_F_TIMEOUT(savic_irq, pit, TIMEOUT_SECS)
{
	struct kvm_pit_config config = {};

	vm_ioctl(self->t.vm, KVM_CREATE_PIT2, &config);
	edge_gsi = PIT_GSI;
	sync_global_to_guest(self->t.vm, edge_gsi);
	launch(&self->t, guest_pit);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

static void test_level(struct test_vm *t, void *guest_code)
{
	int i;

	launch(t, guest_code);
	for (i = 0; i <= NR_ROUNDS; i++) {
		TEST_ASSERT(savic_vcpu_run(t->vcpus[0]), "Guest ended in round %d", i);
		TEST_ASSERT_EQ(nr_resamples(t), i ? 1ul : 0ul);
		if (i < NR_ROUNDS)
			savic_signal_eventfd(t->irqfd);
	}
	TEST_ASSERT(!savic_vcpu_run(t->vcpus[0]), "Unexpected GUEST_SYNC()");
}

TEST_F_TIMEOUT(savic_irq, ioapic_level, TIMEOUT_SECS)
{
	test_level(&self->t, guest_level);
}

TEST_F_TIMEOUT(savic_irq, ioapic_level_hw_eoi, TIMEOUT_SECS)
{
	vm_install_exception_handler(self->t.vm, LEVEL_VECTOR, hw_eoi_handler);
	test_level(&self->t, guest_level_hw_eoi);
}

TEST_F_TIMEOUT(savic_irq, ioapic_level_denied, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpus[0];
	struct pollfd pfd = { .fd = self->t.resamplefd, .events = POLLIN };
	pthread_t thread;

	launch(&self->t, guest_level_denied);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_signal_eventfd(self->t.irqfd);

	/* The guest halts, with nothing to wake it but what comes after the EOI. */
	pthread_create(&thread, NULL, savic_vcpu_thread_to_sync, vcpu);
	poll(&pfd, 1, -1);
	EXPECT_EQ(1, nr_resamples(&self->t));
	savic_send_msi(self->t.vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);

	savic_signal_eventfd(self->t.irqfd);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	EXPECT_EQ(1, nr_resamples(&self->t));
	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

/* ESR is in the guest's page, so KVM has nothing to raise the error interrupt for. */
TEST_F_TIMEOUT(savic_irq, illegal_vector, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpus[0];

	vm_install_exception_handler(self->t.vm, ERROR_VECTOR, savic_irq_handler);
	launch(&self->t, guest_error);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(self->t.vm, 0, ILLEGAL_VECTOR);
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_posted), 0);
	EXPECT_TRUE(savic_vcpu_run(vcpu));

	/* There is nothing wrong with that vector. */
	savic_send_msi(self->t.vm, 0, ERROR_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

/* Neither delivered, nor taken from the PIC, nor a reason to run a halted vCPU. */
TEST_F_TIMEOUT(savic_irq, extint, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpus[0];
	pthread_t thread;

	vm_install_exception_handler(self->t.vm, PIC_BASE_VECTOR + PIC_GSI, savic_irq_handler);
	launch(&self->t, guest_extint);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	kvm_irq_line(self->t.vm, PIC_GSI, 1);
	pthread_create(&thread, NULL, savic_vcpu_thread, vcpu);
	savic_wait_until_blocked(vcpu);
	savic_send_msi(self->t.vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu_get_stat(vcpu, irq_injections), 0);
}

TEST_F_TIMEOUT(savic_irq, nmi, TIMEOUT_SECS)
{
	int i;

	launch(&self->t, guest_nmi);
	for (i = 0; i <= NR_ROUNDS; i++) {
		EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
		vcpu_ioctl(self->t.vcpus[0], KVM_NMI, NULL);
	}
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpus[0]));
}

/* Only to interrupt KVM_RUN, which vcpu_run() repeats. */
static void signal_handler(int sig)
{
}

static void alloc_shared(struct kvm_vm *vm)
{
	gva_t gva = vm_alloc_shared(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);

	write_guest_global(vm, shared, (struct shared *)gva);
	shared = addr_gva2hva(vm, gva);
	memset(shared, 0, sizeof(*shared));
}

static void wait_for_vector(u8 vector, u32 nr)
{
	while (READ_ONCE(shared->received[vector]) < nr)
		sched_yield();
}

/* The line goes down with the first EOI, which isn't the other vCPU's. */
TEST_F_TIMEOUT(savic_irq, ioapic_level_shared, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t threads[2];
	int i;

	vm_install_exception_handler(t->vm, LEVEL_VECTOR, shared_handler);
	alloc_shared(t->vm);
	vcpu_arch_set_entry_point(t->vcpus[1], guest_level_shared);
	launch(t, guest_level_shared);
	/* Both have to be in x2APIC mode before the pin is set up. */
	for (i = 1; i >= 0; i--)
		EXPECT_TRUE(savic_vcpu_run(t->vcpus[i]));
	for (i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, t->vcpus[i]);

	for (i = 1; i <= NR_ROUNDS; i++) {
		savic_signal_eventfd(t->irqfd);
		wait_for_vector(LEVEL_VECTOR, 2 * i);
		EXPECT_EQ(nr_resamples(t), 2);
	}

	for (i = 0; i < 2; i++) {
		savic_send_msi(t->vm, i, STOP_VECTOR);
		pthread_join(threads[i], NULL);
		EXPECT_EQ(vcpu_get_stat(t->vcpus[i], savic_level_eois), NR_ROUNDS);
	}
	EXPECT_EQ(nr_resamples(t), 0);
}

/* All sources at once, in each round.  The guest does the accounts. */
TEST_F_TIMEOUT(savic_irq, stress, TIMEOUT_SECS)
{
	struct pollfd pfd = { .fd = self->t.resamplefd, .events = POLLIN };
	struct kvm_vm *vm = self->t.vm;
	pthread_t target, sender;
	int i;

	vm_install_exception_handler(vm, MSI_VECTOR, shared_handler);
	vm_install_exception_handler(vm, EDGE_VECTOR, shared_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, shared_nmi_handler);
	alloc_shared(vm);

	signal(SIGUSR1, signal_handler);
	launch(&self->t, guest_stress_target);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpus[0]));

	pthread_create(&target, NULL, savic_vcpu_thread, self->t.vcpus[0]);
	pthread_create(&sender, NULL, savic_vcpu_thread, self->t.vcpus[1]);

	for (i = 0; i < NR_STRESS; i++) {
		/* Out to userspace and back, at any point. */
		if (i % 4 == 0)
			pthread_kill(target, SIGUSR1);

		savic_signal_eventfd(self->t.irqfd);
		savic_send_msi(vm, 0, MSI_VECTOR);
		kvm_irq_line(vm, EDGE_GSI, 1);
		kvm_irq_line(vm, EDGE_GSI, 0);
		savic_send_msi(vm, 0, APIC_DM_NMI);
		poll(&pfd, 1, -1);
		EXPECT_EQ(1, nr_resamples(&self->t));
		wait_for_vector(MSI_VECTOR, i + 1);
		wait_for_vector(EDGE_VECTOR, i + 1);
		wait_for_vector(NMI_VECTOR, i + 1);
	}
	savic_send_msi(vm, 0, STOP_VECTOR);
	pthread_join(sender, NULL);
	pthread_join(target, NULL);
}

SAVIC_TEST_HARNESS_MAIN
