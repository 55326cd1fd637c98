// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: NMIs, from all that can send one.
 *
 * KVM hands an NMI to hardware, V_NMI_PENDING, which takes it at VMRUN if the engine is
 * on, drops it if the guest doesn't allow NMIs, and holds it back while another one is
 * being handled.  KVM can't see the latter two.  It keeps one more NMI while hardware
 * hasn't taken the first.
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

#define APIC_LVT0		0x350

/* Not of a PIC. */
#define NMI_GSI			18

#define PIT_COMMAND		0x43
#define PIT_CHANNEL0		0x40
/* Channel 0, both bytes, rate generator. */
#define PIT_MODE		0x34
/* A tick is 838 ns. */
#define PIT_PERIOD		1200
#define NR_TICKS		5

#define NR_ROUNDS		50
#define NR_ENGINE_ROUNDS	5

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only. */
static u32 nr_nmis;
static u32 depth;
static bool sync_in_handler;
static bool complete_in_handler;

/*
 * Halt until there were @nr.  Nothing but an NMI ends the HLT, so one that comes after the check
 * and before the HLT makes the handler repeat the check.
 */
extern const char halt_begin[], halt_end[];

static __attribute__((__noinline__, __noclone__)) void halt_until_nmis(u32 nr)
{
	asm volatile("halt_begin:\n\t"
		     "cmp %[nr], %[nr_nmis]\n\t"
		     "jae halt_end\n\t"
		     "hlt\n\t"
		     "jmp halt_begin\n"
		     "halt_end:"
		     : : [nr] "r" (nr), [nr_nmis] "m" (nr_nmis) : "cc", "memory");
}

/* What guests without virtual NMI tell KVM.  It means nothing here, the IRET does. */
static void nmi_complete(void)
{
	struct ghcb_request complete = { .exit_code = SVM_VMGEXIT_NMI_COMPLETE };

	GUEST_ASSERT_EQ(ghcb_vmgexit(&complete), GHCB_OK);
}

/*
 * There is no GHCB request of the guest that this could interrupt, if it makes one
 * itself: see ghcb.h.
 */
static void nmi_handler(struct ex_regs *regs)
{
	if (regs->rip > (u64)halt_begin && regs->rip < (u64)halt_end)
		regs->rip = (u64)halt_begin;

	GUEST_ASSERT_EQ(depth, 0u);
	depth++;
	nr_nmis++;
	if (complete_in_handler)
		nmi_complete();
	if (sync_in_handler) {
		sync_in_handler = false;
		GUEST_SYNC(0);
		GUEST_ASSERT_EQ(nr_nmis, 1u);
	}
	depth--;
}

static void wait_for_nmis(u32 nr)
{
	u32 seen;

	while ((seen = READ_ONCE(nr_nmis)) < nr) {
		savic_show_wait(0, NMI_VECTOR, seen, nr);
		cpu_relax();
	}
	savic_show_wait(0, 0, 0, 0);
}

/* Any exit and VMRUN, twice for the NMI that KVM keeps. */
static void settle(void)
{
	savic_settle();
	savic_settle();
}

/* The host sends one for each GUEST_SYNC(). */
static void guest_one_by_one(void)
{
	u32 i;

	savic_enable();
	ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI), APIC_DM_NMI);
	for (i = 1; i <= NR_ROUNDS; i++) {
		GUEST_SYNC(i);
		/* Taken by VMRUN, i.e. before the first instruction after it. */
		GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), i);
		settle();
		GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), i);
	}
	GUEST_DONE();
}

/* As many as the host says are to be seen, of those that it has sent before. */
static void guest_expects(u64 nr)
{
	u32 i;

	savic_enable();
	GUEST_SYNC(0);
	/* KVM hands over the next one after an exit. */
	for (i = 1; i <= nr; i++) {
		wait_for_nmis(i);
		savic_settle();
	}
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), (u32)nr);
	GUEST_DONE();
}

/* As many, and each handler makes a VMGEXIT. */
static void guest_expects_in_handler(u64 nr)
{
	complete_in_handler = true;
	guest_expects(nr);
}

static void allow_nmis(bool allow)
{
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN |
				       (allow ? MSR_AMD64_SAVIC_ALLOWEDNMI : 0));
}

/*
 * Two NMIs wait for the next VMRUN, which comes with NMIs denied: hardware drops the first one
 * then, and the second one at the VMRUN after that.
 */
static void guest_denies_nmis(u64 nr_exits)
{
	u32 i;

	savic_enable();
	allow_nmis(false);
	GUEST_SYNC(0);
	for (i = 0; i < nr_exits; i++)
		savic_settle();
	allow_nmis(true);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 0u);

	/* Those that come after that are taken. */
	GUEST_SYNC(1);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 2u);
	GUEST_DONE();
}

static void guest_engine_off(void)
{
	x2apic_enable();
	GUEST_SYNC(0);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 0u);
	GUEST_SYNC(1);
	savic_enable();
	wait_for_nmis(1);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 1u);
	GUEST_DONE();
}

/*
 * The last VMRUN before the HLT has the engine off, i.e. leaves the NMI where it is.  KVM
 * has to run the vCPU once more, as nothing else ends the HLT: interrupts are off.  (In the
 * first round it may be that pages have to be mapped after the engine is on, which are VMRUNs.)
 */
static void guest_engine_off_halted(void)
{
	u32 i;

	for (i = 1; i <= NR_ENGINE_ROUNDS; i++) {
		x2apic_enable();
		GUEST_SYNC(i);
		savic_enable();
		halt_until_nmis(i);
		GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), i);
		savic_disable();
	}
	GUEST_DONE();
}

/* The second one arrives while the first is being handled, and waits for its IRET. */
static void guest_masked(void)
{
	sync_in_handler = true;
	savic_enable();
	GUEST_SYNC(0);
	wait_for_nmis(2);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 2u);
	GUEST_DONE();
}

static void guest_halted(void)
{
	savic_enable();
	GUEST_SYNC(0);
	/* Interrupts are off: nothing else ends this. */
	halt_until_nmis(1);
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 1u);
	GUEST_DONE();
}

static void guest_own_nmis(void)
{
	u32 nr = 0;

	savic_enable();

	/* By hardware: any VMRUN is enough. */
	savic_write(0, SAVIC_NMI_REQ, 1);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);
	GUEST_ASSERT_EQ(savic_read(0, SAVIC_NMI_REQ), 0u);

	/* Linux' way. */
	savic_write(0, SAVIC_NMI_REQ, 1);
	savic_wrmsr(APIC_ICR, APIC_DEST_SELF | APIC_DM_NMI);
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);

	/* Hardware sends no NMIs: #VC, and KVM does. */
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_SELF | APIC_DM_NMI);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DM_NMI);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_ALLINC | APIC_DM_NMI);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_ALLBUT | APIC_DM_NMI);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), nr);

	/* Nothing to be done, and nothing to be refused. */
	nmi_complete();
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), nr);

	/* AllowedNmi is about the host only. */
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN);
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DM_NMI);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), nr);
	savic_write(0, SAVIC_NMI_REQ, 1);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), ++nr);
	GUEST_DONE();
}

static void write_port(u16 port, u8 val)
{
	asm volatile("outb %0, %1" : : "a" (val), "d" (port));
}

/* The old NMI watchdog: the timer's line is LINT0. */
static void guest_lint0(void)
{
	u32 nr;

	savic_enable();
	write_port(PIT_COMMAND, PIT_MODE);
	write_port(PIT_CHANNEL0, PIT_PERIOD & 0xff);
	write_port(PIT_CHANNEL0, PIT_PERIOD >> 8);
	settle();
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), 0u);

	/* Waiting takes no exit, and with the handler's VMGEXITs none is interrupted. */
	savic_wrmsr(APIC_LVT0, APIC_DM_NMI);
	wait_for_nmis(NR_TICKS);
	savic_wrmsr(APIC_LVT0, APIC_LVT_MASKED | APIC_DM_NMI);

	/* One more may have been on its way. */
	settle();
	nr = READ_ONCE(nr_nmis);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(READ_ONCE(nr_nmis), nr);
	GUEST_DONE();
}

/* All of them in one cluster. */
#define NR_TARGETS		3
#define ALL_VCPUS		GENMASK(NR_TARGETS, 0)

/* Guest only. */
static u32 nr_targets_ready;

static void guest_nmi_target(void)
{
	savic_enable();
	__sync_fetch_and_add(&nr_targets_ready, 1);
	/* No exit: the NMIs are what interrupts this. */
	while (savic_nr_nmis(savic_apic_id()) < 4)
		cpu_relax();
	GUEST_DONE();
}

/* As Linux does it: NmiReq in the targets' backing pages first. */
static void send_nmi(u64 icr, u32 targets)
{
	u32 id, before[NR_TARGETS + 1];

	for (id = 0; id <= NR_TARGETS; id++)
		before[id] = savic_nr_nmis(id);
	for (id = 0; id <= NR_TARGETS; id++) {
		if (targets & BIT(id))
			savic_write(id, SAVIC_NMI_REQ, 1);
	}
	savic_wrmsr(APIC_ICR, icr | APIC_DM_NMI);
	for (id = 0; id <= NR_TARGETS; id++) {
		while (targets & BIT(id) && savic_nr_nmis(id) == before[id])
			cpu_relax();
	}
	for (id = 0; id <= NR_TARGETS; id++)
		__GUEST_ASSERT(savic_nr_nmis(id) == before[id] + !!(targets & BIT(id)),
			       "ICR %#lx: %u NMIs for vCPU %u", icr,
			       savic_nr_nmis(id) - before[id], id);
}

static void guest_nmi_sender(void)
{
	u32 others = ALL_VCPUS & ~BIT(0);

	savic_enable();
	while (READ_ONCE(nr_targets_ready) < NR_TARGETS)
		cpu_relax();

	send_nmi((u64)others << 32 | APIC_DEST_LOGICAL, others);
	send_nmi((u64)ALL_VCPUS << 32 | APIC_DEST_LOGICAL, ALL_VCPUS);
	send_nmi(APIC_DEST_ALLINC, ALL_VCPUS);
	send_nmi(APIC_DEST_ALLBUT, others);
	GUEST_DONE();
}

FIXTURE(savic_nmi) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_nmi)
{
	self->vm = vm_savic_create(1, NULL, &self->vcpu);
	vm_install_exception_handler(self->vm, NMI_VECTOR, nmi_handler);
}

FIXTURE_TEARDOWN(savic_nmi)
{
	kvm_vm_free(self->vm);
}

static void send_kvm_nmi(struct kvm_vcpu *vcpu)
{
	vcpu_ioctl(vcpu, KVM_NMI, NULL);
}

static void send_msi_nmi(struct kvm_vcpu *vcpu)
{
	/* The vector is ignored, also one that couldn't be an interrupt's. */
	savic_send_msi(vcpu->vm, 0, APIC_DM_NMI | 2);
}

static void send_ioapic_nmi(struct kvm_vcpu *vcpu)
{
	kvm_irq_line(vcpu->vm, NMI_GSI, 1);
	kvm_irq_line(vcpu->vm, NMI_GSI, 0);
}

static void send_events_nmi(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;

	vcpu_events_get(vcpu, &events);
	TEST_ASSERT_EQ(events.nmi.pending, 0);
	events.nmi.pending = 1;
	events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
	vcpu_events_set(vcpu, &events);
	vcpu_events_get(vcpu, &events);
	TEST_ASSERT_EQ(events.nmi.pending, 1);
}

static void test_one_by_one(struct kvm_vcpu *vcpu, void (*send)(struct kvm_vcpu *vcpu))
{
	u32 nr = 0;

	savic_launch(vcpu, guest_one_by_one, 0);
	while (savic_vcpu_run(vcpu)) {
		send(vcpu);
		nr++;
	}
	TEST_ASSERT_EQ(nr, (u32)NR_ROUNDS);
	TEST_ASSERT_EQ(vcpu_get_stat(vcpu, nmi_injections), (u64)NR_ROUNDS);
}

TEST_F_TIMEOUT(savic_nmi, kvm_nmi, TIMEOUT_SECS)
{
	test_one_by_one(self->vcpu, send_kvm_nmi);
}

TEST_F_TIMEOUT(savic_nmi, msi, TIMEOUT_SECS)
{
	test_one_by_one(self->vcpu, send_msi_nmi);
}

TEST_F_TIMEOUT(savic_nmi, ioapic, TIMEOUT_SECS)
{
	test_one_by_one(self->vcpu, send_ioapic_nmi);
}

TEST_F_TIMEOUT(savic_nmi, vcpu_events, TIMEOUT_SECS)
{
	test_one_by_one(self->vcpu, send_events_nmi);
}

/* As for a CPU: one is pending while one is handled, the third is lost. */
TEST_F_TIMEOUT(savic_nmi, two_pending, TIMEOUT_SECS)
{
	struct kvm_vcpu_events events;

	savic_launch(self->vcpu, guest_expects, 2);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	send_kvm_nmi(self->vcpu);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);
	send_kvm_nmi(self->vcpu);
	send_kvm_nmi(self->vcpu);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 2);
	EXPECT_EQ(events.nmi.masked, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

/* The same with NMI_COMPLETE, which doesn't let an NMI interrupt the handler. */
TEST_F_TIMEOUT(savic_nmi, complete_in_handler, TIMEOUT_SECS)
{
	savic_launch(self->vcpu, guest_expects_in_handler, 2);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	send_kvm_nmi(self->vcpu);
	send_kvm_nmi(self->vcpu);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	EXPECT_EQ(vcpu_get_stat(self->vcpu, nmi_injections), 2);
}

TEST_F_TIMEOUT(savic_nmi, denied, TIMEOUT_SECS)
{
	int i;

	savic_launch(self->vcpu, guest_denies_nmis, 2);
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(savic_vcpu_run(self->vcpu));
		send_kvm_nmi(self->vcpu);
		send_kvm_nmi(self->vcpu);
	}
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	EXPECT_EQ(vcpu_get_stat(self->vcpu, nmi_injections), 4);
}

TEST_F_TIMEOUT(savic_nmi, engine_off, TIMEOUT_SECS)
{
	struct kvm_vcpu_events events;

	savic_launch(self->vcpu, guest_engine_off, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	send_kvm_nmi(self->vcpu);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 0);
}

TEST_F_TIMEOUT(savic_nmi, engine_off_halted, TIMEOUT_SECS)
{
	u32 nr = 0;

	savic_launch(self->vcpu, guest_engine_off_halted, 0);
	while (savic_vcpu_run(self->vcpu)) {
		send_kvm_nmi(self->vcpu);
		nr++;
	}
	EXPECT_EQ(nr, NR_ENGINE_ROUNDS);
	EXPECT_EQ(vcpu_get_stat(self->vcpu, nmi_injections), NR_ENGINE_ROUNDS);
}

TEST_F_TIMEOUT(savic_nmi, masked, TIMEOUT_SECS)
{
	struct kvm_vcpu_events events;

	savic_launch(self->vcpu, guest_masked, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	send_kvm_nmi(self->vcpu);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));

	/* In the handler, which is between the guest and hardware. */
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.masked, 0);
	EXPECT_EQ(events.nmi.pending, 0);
	send_kvm_nmi(self->vcpu);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

TEST_F_TIMEOUT(savic_nmi, halted, TIMEOUT_SECS)
{
	pthread_t thread;

	savic_launch(self->vcpu, guest_halted, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpu);
	savic_wait_until_blocked(self->vcpu);
	send_msi_nmi(self->vcpu);
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_nmi, own, TIMEOUT_SECS)
{
	savic_launch(self->vcpu, guest_own_nmis, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

TEST_F_TIMEOUT(savic_nmi, lint0, TIMEOUT_SECS)
{
	struct kvm_pit_config config = {};

	vm_ioctl(self->vm, KVM_CREATE_PIT2, &config);
	savic_launch(self->vcpu, guest_lint0, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	/* Some more periods, in which there must be none. */
	usleep(10 * PIT_PERIOD);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

FIXTURE(savic_nmi_ipi) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_TARGETS + 1];
};

FIXTURE_SETUP(savic_nmi_ipi)
{
	self->vm = vm_savic_create(NR_TARGETS + 1, guest_nmi_target, self->vcpus);
	vm_install_exception_handler(self->vm, NMI_VECTOR, savic_nmi_handler);
}

FIXTURE_TEARDOWN(savic_nmi_ipi)
{
	kvm_vm_free(self->vm);
}

TEST_F_TIMEOUT(savic_nmi_ipi, several, TIMEOUT_SECS)
{
	pthread_t threads[NR_TARGETS + 1];
	int i;

	savic_launch(self->vcpus[0], guest_nmi_sender, 0);
	for (i = 0; i <= NR_TARGETS; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, self->vcpus[i]);
	for (i = 0; i <= NR_TARGETS; i++)
		pthread_join(threads[i], NULL);
}

SAVIC_TEST_HARNESS_MAIN
