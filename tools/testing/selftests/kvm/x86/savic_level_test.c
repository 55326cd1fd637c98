// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: level-triggered interrupts whose EOI KVM has to guess.
 *
 * KVM isn't told which vector an EOI is for, nor that a vector was dropped since the
 * guest doesn't allow it.  If it gets that wrong then the line is blocked for good:
 * the next interrupt never arrives, and the guest waits for it until the harness kills
 * the test.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "snp_ap.h"
#include "test_util.h"

/* Two lines, and something that wakes the guest. */
#define NR_LINES		2
#define LINE_GSI(n)		(20 + (n))
#define LINE_VECTOR(n)		(0x81 - 0x10 * (n))
#define WAKE_VECTOR		0x51

#define NR_ROUNDS		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120
#define POLL_MSECS		60000

static void guest_setup(bool tmr)
{
	int n;

	savic_enable();
	savic_allow_vector(WAKE_VECTOR);
	for (n = 0; n < NR_LINES; n++) {
		if (tmr)
			savic_set_vector(0, APIC_TMR, LINE_VECTOR(n));
		ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(n)) + 1, 0);
		ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(n)), IOAPIC_LEVEL | LINE_VECTOR(n));
	}
}

/* Both lines are raised before the guest runs; one EOI could be for either. */
static void guest_two_lines(void)
{
	u32 i;

	guest_setup(true);
	savic_allow_vector(LINE_VECTOR(0));
	savic_allow_vector(LINE_VECTOR(1));
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_wait_for_irqs(LINE_VECTOR(0), i);
		savic_wait_for_irqs(LINE_VECTOR(1), i);
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), i);
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(1)), i);
	}
	GUEST_SYNC(i);
	GUEST_DONE();
}

/*
 * Line 1 is in service and still asserted when line 0 interrupts its handler and is EOI'd:
 * line 1 comes once more, although the device lowers it before its handler is done.
 */
static void still_asserted_handler(struct ex_regs *regs)
{
	static bool nested;

	if (!nested) {
		nested = true;
		GUEST_SYNC(1);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), 1u);
		GUEST_SYNC(2);
	}
	savic_irq_handler(regs);
}

static void guest_still_asserted(void)
{
	guest_setup(true);
	savic_allow_vector(LINE_VECTOR(0));
	savic_allow_vector(LINE_VECTOR(1));
	GUEST_SYNC(0);
	savic_wait_for_irqs(LINE_VECTOR(1), 2);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), 1u);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(1)), 2u);
	GUEST_DONE();
}

/* The EOI that names its vector, for the one line and not for the other. */
static void noaccel_handler(struct ex_regs *regs)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_UNACCELERATED_ACCESS,
		.exit_info_1 = BIT_ULL(32) | APIC_EOI,
		.exit_info_2 = regs->vector,
	};

	savic_clear_vector(0, APIC_ISR, regs->vector);
	GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_OK);
	GUEST_SYNC(regs->vector);
}

static void guest_noaccel_eoi(void)
{
	u32 i;

	guest_setup(true);
	savic_allow_vector(LINE_VECTOR(0));
	savic_allow_vector(LINE_VECTOR(1));
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		sti_nop_cli();
	}
	GUEST_DONE();
}

/* The kernel that the line interrupts is replaced by another one before its EOI. */
static u32 nr_without_eoi;

static void no_eoi_handler(struct ex_regs *regs)
{
	nr_without_eoi++;
	GUEST_SYNC(regs->vector);
}

static void guest_kexec(void)
{
	gpa_t gpa;

	guest_setup(true);
	savic_allow_vector(LINE_VECTOR(0));
	GUEST_SYNC(0);
	sti_nop_cli();

	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	savic_clear_vector(0, APIC_ISR, LINE_VECTOR(0));
	guest_setup(true);
	savic_wait_for_irqs(WAKE_VECTOR, 1);
	GUEST_SYNC(1);
	sti_nop_cli();
	GUEST_ASSERT_EQ(nr_without_eoi, 2u);
	GUEST_DONE();
}

/* The first interrupt of line 0 is dropped by hardware, the second one isn't. */
static void guest_denied(void)
{
	guest_setup(true);
	GUEST_SYNC(1);
	savic_wait_for_irqs(WAKE_VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), 0u);

	savic_allow_vector(LINE_VECTOR(0));
	GUEST_SYNC(2);
	savic_wait_for_irqs(LINE_VECTOR(0), 1);
	GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), 1u);
	GUEST_DONE();
}

/* TMR doesn't tell hardware, and the host doesn't see any EOI. */
static void guest_unseen_eoi(void)
{
	u32 i;

	guest_setup(false);
	savic_allow_vector(LINE_VECTOR(0));
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		savic_wait_for_irqs(LINE_VECTOR(0), i);
		savic_wait_for_irqs(WAKE_VECTOR, i);
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), i);
	}
	GUEST_DONE();
}

/*
 * What Linux makes of a level-triggered vector that TMR doesn't show as such: an EOI that
 * the host doesn't see, and one at the I/O APIC's pin, which forgets what is in service if
 * it becomes edge-triggered.
 */
static void pin_eoi_handler(struct ex_regs *regs)
{
	savic_irq_handler(regs);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)), IOAPIC_MASKED | LINE_VECTOR(0));
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)), IOAPIC_LEVEL | LINE_VECTOR(0));
}

/* It never halts, so KVM has no reason to guess. */
static void guest_pin_eoi(void)
{
	u32 i;

	guest_setup(false);
	savic_allow_vector(LINE_VECTOR(0));
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		sti();
		while (savic_nr_irqs(0, LINE_VECTOR(0)) < i)
			cpu_relax();
		cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, LINE_VECTOR(0)), i);
	}
	GUEST_DONE();
}

/* The guest routes the line to another (absent) vCPU while it is in service. */
static void moving_handler(struct ex_regs *regs)
{
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)) + 1, 1u << 24);
	savic_irq_handler(regs);
}

static void guest_moved(void)
{
	u32 i;

	guest_setup(true);
	savic_allow_vector(LINE_VECTOR(0));
	for (i = 1; i <= NR_ROUNDS; i++) {
		ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)) + 1, 0);
		GUEST_SYNC(i);
		savic_wait_for_irqs(LINE_VECTOR(0), i);
	}
	GUEST_SYNC(i);
	GUEST_DONE();
}

static void guest_ap(u64 unused)
{
	savic_enable();
	savic_allow_vector(WAKE_VECTOR);
	savic_wait_for_irqs(WAKE_VECTOR, 1);
	GUEST_DONE();
}

/* vCPU 1 is destroyed while it has the line's vector, and created anew. */
static void guest_creator(void)
{
	savic_enable();
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)) + 1, 1u << 24);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI(0)), IOAPIC_LEVEL | LINE_VECTOR(0));
	GUEST_SYNC(1);

	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_SYNC(2);

	snp_vmsa_prepare(0, guest_ap, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_DONE();
}

/* Both vectors are sent before the guest runs, the first EOI is for both. */
static void guest_split(void)
{
	int n;

	savic_enable();
	for (n = 0; n < NR_LINES; n++) {
		savic_set_vector(0, APIC_TMR, LINE_VECTOR(n));
		savic_allow_vector(LINE_VECTOR(n));
	}
	GUEST_SYNC(1);
	savic_wait_for_irqs(LINE_VECTOR(0), 1);
	savic_wait_for_irqs(LINE_VECTOR(1), 1);
	GUEST_DONE();
}

/* An EOI while the vector waits for the engine, i.e. of nothing, and one that is for it. */
static void guest_eoi_before_taken(void)
{
	x2apic_enable();
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, savic_page_gpa(0), NULL),
			GHCB_OK);
	savic_set_vector(0, APIC_TMR, LINE_VECTOR(0));
	savic_set_vector(0, SAVIC_ALLOWED_IRR, LINE_VECTOR(0));
	GUEST_SYNC(1);
	savic_wrmsr(APIC_EOI, 0);
	GUEST_SYNC(2);

	savic_enable();
	savic_wait_for_irqs(LINE_VECTOR(0), 1);
	GUEST_DONE();
}

/* The first pins, by MMIO instructions, each both ways. */
#define NR_PINS			4
#define PIN_VECTOR(pin)		(0xa1 + 0x10 * (pin))

static void write_ioapic(u32 reg, u32 val)
{
	mmio_write(IOAPIC_GPA, reg);
	GUEST_ASSERT_EQ(mmio_read(IOAPIC_GPA), reg);
	mmio_write(IOAPIC_GPA + IOAPIC_WINDOW, val);
	GUEST_ASSERT_EQ(mmio_read(IOAPIC_GPA + IOAPIC_WINDOW), val);
}

static void guest_pins(void)
{
	u32 pin, level;

	savic_enable();
	for (pin = 0; pin < NR_PINS; pin++)
		savic_allow_vector(PIN_VECTOR(pin));
	for (level = 0; level <= 1; level++) {
		for (pin = 0; pin < NR_PINS; pin++) {
			if (level)
				savic_set_vector(0, APIC_TMR, PIN_VECTOR(pin));
			write_ioapic(IOAPIC_REDIR(pin) + 1, 0);
			write_ioapic(IOAPIC_REDIR(pin), PIN_VECTOR(pin) |
							(level ? IOAPIC_LEVEL : 0));
		}
		/* The host raises and lowers each of them once. */
		GUEST_SYNC(level);
		for (pin = 0; pin < NR_PINS; pin++)
			savic_wait_for_irqs(PIN_VECTOR(pin), level + 1);
		savic_settle();
		for (pin = 0; pin < NR_PINS; pin++)
			GUEST_ASSERT_EQ(savic_nr_irqs(0, PIN_VECTOR(pin)), level + 1);
	}
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	int irqfd[NR_LINES];
	int resamplefd[NR_LINES];
};

static void setup_lines(struct test_vm *t)
{
	int n;

	vm_install_exception_handler(t->vm, WAKE_VECTOR, savic_irq_handler);
	for (n = 0; n < NR_LINES; n++) {
		struct kvm_irqfd irqfd = {
			.gsi = LINE_GSI(n),
			.flags = KVM_IRQFD_FLAG_RESAMPLE,
		};

		vm_install_exception_handler(t->vm, LINE_VECTOR(n), savic_irq_handler);
		t->irqfd[n] = eventfd(0, EFD_NONBLOCK);
		t->resamplefd[n] = eventfd(0, EFD_NONBLOCK);
		irqfd.fd = t->irqfd[n];
		irqfd.resamplefd = t->resamplefd[n];
		vm_ioctl(t->vm, KVM_IRQFD, &irqfd);
	}
}

static void free_lines(struct test_vm *t)
{
	int n;

	kvm_vm_free(t->vm);
	for (n = 0; n < NR_LINES; n++) {
		close(t->irqfd[n]);
		close(t->resamplefd[n]);
	}
}

FIXTURE(savic_level) {
	struct test_vm t;
};

FIXTURE_SETUP(savic_level)
{
	self->t.vm = vm_savic_create(1, guest_two_lines, &self->t.vcpu);
	setup_lines(&self->t);
}

FIXTURE_TEARDOWN(savic_level)
{
	free_lines(&self->t);
}

static void launch(struct test_vm *t, void *guest_code)
{
	vcpu_arch_set_entry_point(t->vcpu, guest_code);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
}

/* The line stays asserted until KVM sees an EOI. */
static void assert_line(struct test_vm *t, int n)
{
	savic_signal_eventfd(t->irqfd[n]);
}

/* An irqfd's work is done by another thread. */
static void wait_until_posted(struct kvm_vcpu *vcpu, u64 nr)
{
	while (vcpu_get_stat(vcpu, savic_posted) < nr)
		usleep(50);
}

static void wait_for_eoi(struct test_vm *t, int n)
{
	struct pollfd pfd = { .fd = t->resamplefd[n], .events = POLLIN };
	u64 nr;

	TEST_ASSERT(poll(&pfd, 1, POLL_MSECS) == 1, "Line %d isn't EOI'd", n);
	TEST_ASSERT(read(t->resamplefd[n], &nr, sizeof(nr)) == sizeof(nr),
		    "Reading from resamplefd %d failed, errno %d", n, errno);
}

/* Since the last call. */
static u64 nr_eois(struct test_vm *t, int n)
{
	u64 nr;

	return read(t->resamplefd[n], &nr, sizeof(nr)) == sizeof(nr) ? nr : 0;
}

TEST_F_TIMEOUT(savic_level, pins_by_mmio, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	u32 pin, nr = 0;
	u64 *pte;

	for (pin = 0; pin < NR_PINS; pin++)
		vm_install_exception_handler(t->vm, PIN_VECTOR(pin), savic_irq_handler);
	/* The library maps memory only, so another page's page table entry has to point there. */
	virt_pg_map(t->vm, IOAPIC_GPA, addr_gva2gpa(t->vm, vm_alloc_page(t->vm)));
	pte = vm_get_pte(t->vm, IOAPIC_GPA);
	*pte = (*pte & ~(PHYSICAL_PAGE_MASK | t->vm->arch.c_bit)) | IOAPIC_GPA;
	launch(t, guest_pins);
	while (savic_vcpu_run(t->vcpu)) {
		for (pin = 0; pin < NR_PINS; pin++) {
			kvm_irq_line(t->vm, pin, 1);
			kvm_irq_line(t->vm, pin, 0);
		}
		nr++;
	}
	EXPECT_EQ(nr, 2);
	EXPECT_EQ(vcpu_get_stat(t->vcpu, savic_level_eois), NR_PINS);
}

TEST_F_TIMEOUT(savic_level, two_lines, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpu;
	int i;

	launch(&self->t, guest_two_lines);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	for (i = 1; i <= NR_ROUNDS; i++) {
		assert_line(&self->t, i % NR_LINES);
		assert_line(&self->t, (i + 1) % NR_LINES);
		wait_until_posted(vcpu, NR_LINES * i);
		EXPECT_TRUE(savic_vcpu_run(vcpu));
		EXPECT_EQ(nr_eois(&self->t, 0), 1);
		EXPECT_EQ(nr_eois(&self->t, 1), 1);
	}
	EXPECT_FALSE(savic_vcpu_run(vcpu));

	/* The first EOI of each round was for both. */
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_posted), NR_LINES * NR_ROUNDS);
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_level_eois), NR_LINES * NR_ROUNDS);
}

TEST_F_TIMEOUT(savic_level, still_asserted, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->t.vcpu;

	vm_install_exception_handler(self->t.vm, LINE_VECTOR(1), still_asserted_handler);
	launch(&self->t, guest_still_asserted);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	kvm_irq_line(self->t.vm, LINE_GSI(1), 1);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	assert_line(&self->t, 0);
	wait_until_posted(vcpu, 2);
	EXPECT_EQ(nr_eois(&self->t, 1), 0);

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	EXPECT_EQ(nr_eois(&self->t, 0), 1);
	EXPECT_EQ(nr_eois(&self->t, 1), 1);
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_posted), 3);
	kvm_irq_line(self->t.vm, LINE_GSI(1), 0);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
	EXPECT_EQ(nr_eois(&self->t, 0), 0);
	EXPECT_EQ(nr_eois(&self->t, 1), 1);
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_posted), 3);
}

TEST_F_TIMEOUT(savic_level, noaccel_eoi, TIMEOUT_SECS)
{
	int i, n;

	for (n = 0; n < NR_LINES; n++)
		vm_install_exception_handler(self->t.vm, LINE_VECTOR(n), noaccel_handler);
	launch(&self->t, guest_noaccel_eoi);
	for (i = 1; i <= NR_ROUNDS; i++) {
		EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
		assert_line(&self->t, 0);
		assert_line(&self->t, 1);
		wait_until_posted(self->t.vcpu, NR_LINES * i);

		EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
		EXPECT_EQ(nr_eois(&self->t, 0), 1);
		EXPECT_EQ(nr_eois(&self->t, 1), 0);
		EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
		EXPECT_EQ(nr_eois(&self->t, 0), 0);
		EXPECT_EQ(nr_eois(&self->t, 1), 1);
	}
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
}

TEST_F_TIMEOUT(savic_level, kexec, TIMEOUT_SECS)
{
	pthread_t thread;

	vm_install_exception_handler(self->t.vm, LINE_VECTOR(0), no_eoi_handler);
	launch(&self->t, guest_kexec);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	assert_line(&self->t, 0);
	wait_until_posted(self->t.vcpu, 1);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	EXPECT_EQ(nr_eois(&self->t, 0), 0);

	/* The next kernel is idle. */
	pthread_create(&thread, NULL, savic_vcpu_thread_to_sync, self->t.vcpu);
	wait_for_eoi(&self->t, 0);
	savic_send_msi(self->t.vm, 0, WAKE_VECTOR);
	pthread_join(thread, NULL);

	/* And has the line's next interrupt. */
	assert_line(&self->t, 0);
	wait_until_posted(self->t.vcpu, 3);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
}

TEST_F_TIMEOUT(savic_level, denied, TIMEOUT_SECS)
{
	pthread_t thread;

	launch(&self->t, guest_denied);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	assert_line(&self->t, 0);

	pthread_create(&thread, NULL, savic_vcpu_thread_to_sync, self->t.vcpu);
	wait_for_eoi(&self->t, 0);
	savic_send_msi(self->t.vm, 0, WAKE_VECTOR);
	pthread_join(thread, NULL);

	/* It was lost, and that can be seen. */
	EXPECT_EQ(vcpu_get_stat(self->t.vcpu, savic_missing_eois), 1);

	assert_line(&self->t, 0);
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
	EXPECT_EQ(vcpu_get_stat(self->t.vcpu, savic_missing_eois), 1);
}

TEST_F_TIMEOUT(savic_level, unseen_eoi, TIMEOUT_SECS)
{
	pthread_t thread;
	int i;

	launch(&self->t, guest_unseen_eoi);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	for (i = 1; i <= NR_ROUNDS; i++) {
		assert_line(&self->t, 0);
		pthread_create(&thread, NULL, i < NR_ROUNDS ? savic_vcpu_thread_to_sync :
							      savic_vcpu_thread, self->t.vcpu);
		wait_for_eoi(&self->t, 0);
		savic_send_msi(self->t.vm, 0, WAKE_VECTOR);
		pthread_join(thread, NULL);
	}
}

TEST_F_TIMEOUT(savic_level, pin_eoi, TIMEOUT_SECS)
{
	bool more;
	int i;

	vm_install_exception_handler(self->t.vm, LINE_VECTOR(0), pin_eoi_handler);
	launch(&self->t, guest_pin_eoi);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	for (i = 1; i <= NR_ROUNDS; i++) {
		assert_line(&self->t, 0);
		more = savic_vcpu_run(self->t.vcpu);
		EXPECT_EQ(more, i < NR_ROUNDS);
	}
	EXPECT_EQ(vcpu_get_stat(self->t.vcpu, savic_missing_eois), 0);
}

TEST_F_TIMEOUT(savic_level, moved, TIMEOUT_SECS)
{
	int i;

	vm_install_exception_handler(self->t.vm, LINE_VECTOR(0), moving_handler);
	launch(&self->t, guest_moved);
	EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
	for (i = 1; i <= NR_ROUNDS; i++) {
		assert_line(&self->t, 0);
		EXPECT_TRUE(savic_vcpu_run(self->t.vcpu));
		wait_for_eoi(&self->t, 0);
	}
	EXPECT_FALSE(savic_vcpu_run(self->t.vcpu));
}

/* Tests of other VMs. */
FIXTURE(savic_level_vm) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(savic_level_vm)
{
}

FIXTURE_TEARDOWN(savic_level_vm)
{
	kvm_vm_free(self->vm);
}

TEST_F_TIMEOUT(savic_level_vm, savic_level_destroyed, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	pthread_t thread;
	struct test_vm t;

	t.vm = vm_savic_create(2, guest_creator, vcpus);
	t.vcpu = vcpus[0];
	setup_lines(&t);
	snp_alloc_vmsas(t.vm, 1);
	launch(&t, guest_creator);

	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	assert_line(&t, 0);
	wait_until_posted(vcpus[1], 1);
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));

	/* The vCPU sleeps as soon as it has seen that it is destroyed. */
	pthread_create(&thread, NULL, savic_vcpu_thread, vcpus[1]);
	savic_wait_until_blocked(vcpus[1]);
	EXPECT_EQ(nr_eois(&t, 0), 0);
	EXPECT_FALSE(savic_vcpu_run(vcpus[0]));

	wait_for_eoi(&t, 0);
	savic_send_msi(t.vm, 1, WAKE_VECTOR);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu_get_stat(vcpus[1], savic_missing_eois), 1);
	free_lines(&t);
}

/* The I/O APIC is userspace's: KVM exits once per vector. */
TEST_F_TIMEOUT(savic_level_vm, savic_level_split, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int n, vector;

	vm = __vm_savic_create(1, guest_split, &vcpu, true, 0);
	self->vm = vm;
	for (n = 0; n < NR_LINES; n++)
		vm_install_exception_handler(vm, LINE_VECTOR(n), savic_irq_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));

	for (n = 0; n < NR_LINES; n++)
		savic_send_msi(vm, 0, MSI_LEVEL | LINE_VECTOR(n));

	/* In the order of the vectors' numbers. */
	for (n = NR_LINES - 1; n >= 0; n--) {
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
		vector = vcpu->run->eoi.vector;
		EXPECT_EQ(vector, LINE_VECTOR(n));
	}

	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

TEST_F_TIMEOUT(savic_level_vm, eoi_before_taken, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = __vm_savic_create(1, guest_eoi_before_taken, &vcpu, true, 0);
	self->vm = vm;
	vm_install_exception_handler(vm, LINE_VECTOR(0), savic_irq_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(vm, 0, MSI_LEVEL | LINE_VECTOR(0));
	EXPECT_TRUE(savic_vcpu_run(vcpu));

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(vcpu->run->eoi.vector, LINE_VECTOR(0));
	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

SAVIC_TEST_HARNESS_MAIN
