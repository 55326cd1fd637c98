// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: everything that userspace can send an interrupt with, and everything that
 * the target may be doing at that time.
 *
 * A vector that the guest allows arrives once for each time it is sent, neither less nor
 * more, unless it is sent again while it is pending.  The handler counts in memory that
 * it shares with the host, and after the EOI, i.e. a line is ready for its next
 * interrupt by then.  One that is lost shows as a hang: waiting has no limit.
 */
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

/*
 * Of each source, the highest priority is not the first to be sent.  The first two are in the
 * same 64 bits of IRR.
 */
#define MSI_VECTOR		0x51
#define IRQFD_VECTOR		0x61
#define EDGE_VECTOR		0x71
#define LEVEL_VECTOR		0x41
#define RESAMPLED_VECTOR	0x81
#define STOP_VECTOR		0xf1

/* The I/O APIC's pins from 16 on aren't a PIC's, the others are MSIs. */
#define EDGE_GSI		18
#define LEVEL_GSI		19
#define RESAMPLED_GSI		20
#define IRQFD_GSI		24
#define LEVEL_IRQFD_GSI		25

/* Vectors below are reserved, a local APIC has none of them. */
#define FIRST_VECTOR		16

#define NR_ROUNDS		10

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* In memory that host and guest share. */
static struct shared {
	u32 received[256];
	u32 nr_lowered;
	bool sync_in_handler;
	gpa_t page;
} *shared;

static void irq_handler(struct ex_regs *regs)
{
	if (READ_ONCE(shared->sync_in_handler)) {
		WRITE_ONCE(shared->sync_in_handler, false);
		GUEST_SYNC(regs->vector);
	}
	savic_eoi();
	__sync_fetch_and_add(&shared->received[regs->vector], 1);
}

/* The device lowers its line before the EOI. */
static void level_handler(struct ex_regs *regs)
{
	while (READ_ONCE(shared->nr_lowered) <= shared->received[regs->vector])
		cpu_relax();
	irq_handler(regs);
}

static u32 nr_received(u8 vector)
{
	return READ_ONCE(shared->received[vector]);
}

/* Before the engine is on, all but the I/O APIC is in the backing page. */
static void allow_vectors(void)
{
	static const u8 vectors[] = {
		MSI_VECTOR, IRQFD_VECTOR, EDGE_VECTOR, LEVEL_VECTOR, RESAMPLED_VECTOR,
		STOP_VECTOR,
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(vectors); i++)
		savic_set_vector(0, SAVIC_ALLOWED_IRR, vectors[i]);
	savic_set_vector(0, APIC_TMR, LEVEL_VECTOR);
	savic_set_vector(0, APIC_TMR, RESAMPLED_VECTOR);
	shared->page = savic_page_gpa(0);
}

static void setup_pin(u32 pin, u32 entry)
{
	ghcb_ioapic_write(IOAPIC_REDIR(pin) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(pin), entry);
}

static void guest_setup(bool split)
{
	allow_vectors();
	if (split)
		return;
	setup_pin(EDGE_GSI, EDGE_VECTOR);
	setup_pin(LEVEL_GSI, IOAPIC_LEVEL | LEVEL_VECTOR);
	setup_pin(RESAMPLED_GSI, IOAPIC_LEVEL | RESAMPLED_VECTOR);
}

static void guest_spins(bool split)
{
	guest_setup(split);
	savic_enable();
	GUEST_SYNC(0);
	sti_nop();
	while (!nr_received(STOP_VECTOR))
		cpu_relax();
	GUEST_DONE();
}

static void guest_halts(bool split)
{
	guest_setup(split);
	savic_enable();
	GUEST_SYNC(0);
	while (!nr_received(STOP_VECTOR)) {
		safe_halt();
		cli();
	}
	GUEST_DONE();
}

/* Whatever was sent at a GUEST_SYNC() is there at the next one. */
static void guest_syncs(bool split)
{
	guest_setup(split);
	savic_enable();
	while (!nr_received(STOP_VECTOR)) {
		GUEST_SYNC(0);
		sti_nop_cli();
	}
	GUEST_DONE();
}

/*
 * Off before the page is registered, and off with it.  Each time there is more than one VMRUN
 * that has something to request, and takes nothing.
 */
static void guest_engine_off(bool split)
{
	x2apic_enable();
	guest_setup(split);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_SYNC(1);
	savic_enable();
	savic_settle();
	GUEST_SYNC(2);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_SYNC(3);
	savic_settle();
	GUEST_SYNC(4);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(0) | MSR_AMD64_SAVIC_EN);
	savic_settle();
	GUEST_SYNC(5);
	GUEST_DONE();
}

static bool has_error_code(int vector)
{
	return vector == AC_VECTOR || vector == CP_VECTOR || vector == VC_VECTOR ||
	       vector == SX_VECTOR;
}

static void guest_all_vectors(void)
{
	int i;

	savic_enable();
	for (i = 0; i < 256; i++)
		savic_allow_vector(i);
	GUEST_SYNC(0);
	sti_nop_cli();
	GUEST_DONE();
}

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
	int irqfd, level_irqfd, resampled_irqfd, resamplefd;
	u32 nr_eois[256];
	u32 nr_sent;
};

static void send_msi(struct test_vm *t)
{
	savic_send_msi(t->vm, 0, MSI_VECTOR);
}

static void send_irqfd(struct test_vm *t)
{
	savic_signal_eventfd(t->irqfd);
}

static void send_edge(struct test_vm *t)
{
	kvm_irq_line(t->vm, EDGE_GSI, 1);
	kvm_irq_line(t->vm, EDGE_GSI, 0);
}

static void send_level(struct test_vm *t)
{
	kvm_irq_line(t->vm, LEVEL_GSI, 1);
	kvm_irq_line(t->vm, LEVEL_GSI, 0);
	WRITE_ONCE(shared->nr_lowered, shared->nr_lowered + 1);
}

/* Up until the EOI.  A workqueue does it, wait for that. */
static void send_resampled(struct test_vm *t)
{
	u64 nr = vcpu_get_stat(t->vcpu, savic_posted);

	savic_signal_eventfd(t->resampled_irqfd);
	while (vcpu_get_stat(t->vcpu, savic_posted) == nr)
		sched_yield();
}

static void send_level_msi(struct test_vm *t)
{
	savic_send_msi(t->vm, 0, MSI_LEVEL | LEVEL_VECTOR);
}

static void send_level_irqfd(struct test_vm *t)
{
	savic_signal_eventfd(t->level_irqfd);
}

struct source {
	const char *name;
	u8 vector;
	void (*send)(struct test_vm *t);
};

#define NR_SOURCES	5

FIXTURE(savic_source) {
	struct test_vm t;
};

FIXTURE_VARIANT(savic_source) {
	bool split;
	struct source sources[NR_SOURCES];
};

FIXTURE_VARIANT_ADD(savic_source, ioapic) {
	.sources = {
		{ "KVM_SIGNAL_MSI",	MSI_VECTOR,	send_msi },
		{ "irqfd",		IRQFD_VECTOR,	send_irqfd },
		{ "edge by KVM_IRQ_LINE", EDGE_VECTOR,	send_edge },
		{ "level by KVM_IRQ_LINE", LEVEL_VECTOR, send_level },
		{ "resampled irqfd",	RESAMPLED_VECTOR, send_resampled },
	},
};

/* The I/O APIC is userspace's, its interrupts are MSIs. */
FIXTURE_VARIANT_ADD(savic_source, split) {
	.split = true,
	.sources = {
		{ "KVM_SIGNAL_MSI",	MSI_VECTOR,	send_msi },
		{ "irqfd",		IRQFD_VECTOR,	send_irqfd },
		{ "level KVM_SIGNAL_MSI", LEVEL_VECTOR,	send_level_msi },
		{ "level irqfd",	RESAMPLED_VECTOR, send_level_irqfd },
	},
};

static void add_pin_route(struct kvm_irq_routing *routing, u32 gsi)
{
	routing->entries[routing->nr++] = (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = gsi },
	};
}

static void add_msi_route(struct kvm_irq_routing *routing, u32 gsi, u32 data)
{
	routing->entries[routing->nr++] = (struct kvm_irq_routing_entry) {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = APIC_DEFAULT_GPA, .data = data },
	};
}

static void setup_routes(struct test_vm *t, bool split)
{
	struct kvm_irq_routing *routing = kvm_gsi_routing_create();
	struct kvm_irqfd resampled = {
		.gsi = RESAMPLED_GSI,
		.flags = KVM_IRQFD_FLAG_RESAMPLE,
	};

	if (!split) {
		add_pin_route(routing, EDGE_GSI);
		add_pin_route(routing, LEVEL_GSI);
		add_pin_route(routing, RESAMPLED_GSI);
	}
	add_msi_route(routing, IRQFD_GSI, IRQFD_VECTOR);
	add_msi_route(routing, LEVEL_IRQFD_GSI, MSI_LEVEL | RESAMPLED_VECTOR);
	kvm_gsi_routing_write(t->vm, routing);

	t->irqfd = kvm_new_eventfd();
	kvm_assign_irqfd(t->vm, IRQFD_GSI, t->irqfd);
	t->level_irqfd = kvm_new_eventfd();
	kvm_assign_irqfd(t->vm, LEVEL_IRQFD_GSI, t->level_irqfd);

	t->resampled_irqfd = kvm_new_eventfd();
	t->resamplefd = eventfd(0, EFD_NONBLOCK);
	if (split)
		return;
	resampled.fd = t->resampled_irqfd;
	resampled.resamplefd = t->resamplefd;
	vm_ioctl(t->vm, KVM_IRQFD, &resampled);
}

FIXTURE_SETUP(savic_source)
{
	const size_t size = align_up(sizeof(struct shared), PAGE_SIZE);
	struct test_vm *t = &self->t;
	gva_t gva;
	int i;

	t->vm = __vm_savic_create(1, guest_spins, &t->vcpu, variant->split, 0);
	for (i = FIRST_VECTOR; i < 256; i++) {
		if (i != VC_VECTOR)
			vm_install_exception_handler(t->vm, i, irq_handler);
	}

	if (!variant->split)
		vm_install_exception_handler(t->vm, LEVEL_VECTOR, level_handler);

	gva = vm_alloc_shared(t->vm, size, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	write_guest_global(t->vm, shared, (struct shared *)gva);
	shared = addr_gva2hva(t->vm, gva);
	memset(shared, 0, size);

	setup_routes(t, variant->split);
	vcpu_args_set(t->vcpu, 1, (u64)variant->split);
}

FIXTURE_TEARDOWN(savic_source)
{
	struct test_vm *t = &self->t;

	kvm_vm_free(t->vm);
	close(t->irqfd);
	close(t->level_irqfd);
	close(t->resampled_irqfd);
	close(t->resamplefd);
}

/* As savic_vcpu_run(), for a vCPU that is interrupted by signals and has EOIs. */
static bool run(struct test_vm *t)
{
	struct kvm_run *run = t->vcpu->run;
	int r;

	do {
		r = __vcpu_run(t->vcpu);
		TEST_ASSERT(!r || errno == EINTR, KVM_IOCTL_ERROR(KVM_RUN, r));
		if (!r && run->exit_reason == KVM_EXIT_IOAPIC_EOI)
			t->nr_eois[run->eoi.vector]++;
	} while (r || run->exit_reason == KVM_EXIT_IOAPIC_EOI);

	return savic_check_ucall(t->vcpu);
}

static void *run_to_end(void *t)
{
	TEST_ASSERT(!run(t), "Unexpected GUEST_SYNC()");
	return NULL;
}

static void launch(struct test_vm *t, void *guest_code)
{
	vcpu_arch_set_entry_point(t->vcpu, guest_code);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
	TEST_ASSERT(run(t), "Unexpected GUEST_DONE()");
}

/* All sources, each of which has to have got through before the next one. */
static void send_one_by_one(struct test_vm *t, const struct source *sources, bool blocked)
{
	int i;

	for (t->nr_sent = 1; t->nr_sent <= NR_ROUNDS; t->nr_sent++) {
		for (i = 0; i < NR_SOURCES && sources[i].send; i++) {
			if (blocked)
				savic_wait_until_blocked(t->vcpu);
			sources[i].send(t);
			while (nr_received(sources[i].vector) < t->nr_sent)
				sched_yield();
		}
	}
	t->nr_sent = NR_ROUNDS;
}

static void send_all(struct test_vm *t, const struct source *sources)
{
	int i;

	for (i = 0; i < NR_SOURCES && sources[i].send; i++)
		sources[i].send(t);
	t->nr_sent++;
}

/* Every other source. */
static void send_half(struct test_vm *t, const struct source *sources, int first)
{
	int i;

	for (i = first; i < NR_SOURCES && sources[i].send; i += 2)
		sources[i].send(t);
}

static void check_counts(struct test_vm *t, const struct source *sources)
{
	int i;

	for (i = 0; i < NR_SOURCES && sources[i].send; i++) {
		TEST_ASSERT(nr_received(sources[i].vector) == t->nr_sent,
			    "%s: %u sent, %u received", sources[i].name, t->nr_sent,
			    nr_received(sources[i].vector));
	}
}

/* One EOI for each interrupt of those whose device learns about it. */
static void check_eois(struct test_vm *t, bool split)
{
	u64 nr = 0;

	if (split) {
		TEST_ASSERT_EQ(t->nr_eois[LEVEL_VECTOR], t->nr_sent);
		TEST_ASSERT_EQ(t->nr_eois[RESAMPLED_VECTOR], t->nr_sent);
	} else {
		TEST_ASSERT(read(t->resamplefd, &nr, sizeof(nr)) == sizeof(nr),
			    "Reading from the resamplefd failed, errno %d", errno);
		TEST_ASSERT_EQ(nr, (u64)t->nr_sent);
	}
}

static void stop(struct test_vm *t, pthread_t thread)
{
	savic_send_msi(t->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
}

/* To a vCPU that runs in @thread, which ends. */
static void check_one_by_one(struct test_vm *t, const struct source *sources, bool split,
			     pthread_t thread, bool blocked)
{
	send_one_by_one(t, sources, blocked);
	stop(t, thread);
	check_counts(t, sources);
	check_eois(t, split);
}

TEST_F_TIMEOUT(savic_source, running, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;
	int cpu[2];

	if (savic_get_cpus(cpu, 2) < 2)
		SKIP(return, "Needs two CPUs");
	pin_self_to_cpu(cpu[0]);
	launch(t, guest_spins);
	pthread_create(&thread, NULL, run_to_end, t);
	pin_task_to_cpu(thread, cpu[1]);
	check_one_by_one(t, variant->sources, variant->split, thread, false);
}

/* The sender has the CPU: the target wants it, too, but is not in the guest. */
TEST_F_TIMEOUT(savic_source, preempted, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;
	int cpu;

	savic_get_cpus(&cpu, 1);
	pin_self_to_cpu(cpu);
	launch(t, guest_spins);
	pthread_create(&thread, NULL, run_to_end, t);
	check_one_by_one(t, variant->sources, variant->split, thread, false);
}

TEST_F_TIMEOUT(savic_source, halted, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;

	launch(t, guest_halts);
	pthread_create(&thread, NULL, run_to_end, t);
	check_one_by_one(t, variant->sources, variant->split, thread, true);
}

TEST_F_TIMEOUT(savic_source, in_userspace, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	int i;

	launch(t, guest_syncs);
	for (i = 0; i < NR_ROUNDS; i++) {
		send_all(t, variant->sources);
		EXPECT_TRUE(run(t));
		check_counts(t, variant->sources);
	}
	check_eois(t, variant->split);
	savic_send_msi(t->vm, 0, STOP_VECTOR);
	EXPECT_FALSE(run(t));
}

/* The guest is at a GUEST_SYNC() with its engine off, and turns it on after the next one. */
static void send_engine_off(struct test_vm *t, const struct source *sources)
{
	send_half(t, sources, 0);
	TEST_ASSERT(run(t), "Unexpected GUEST_DONE()");
	check_counts(t, sources);

	send_half(t, sources, 1);
	TEST_ASSERT(run(t), "Unexpected GUEST_DONE()");
	t->nr_sent++;
	check_counts(t, sources);
}

TEST_F_TIMEOUT(savic_source, engine_off, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_engine_off);
	send_engine_off(t, variant->sources);
	EXPECT_TRUE(run(t));
	send_engine_off(t, variant->sources);
	check_eois(t, variant->split);
	EXPECT_FALSE(run(t));
}

/*
 * KVM_RUN that doesn't get to VMRUN: it is told not to, or the backing page is not to be
 * had.  What was sent before, or in between, waits.
 */
TEST_F_TIMEOUT(savic_source, failed_entry, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	int i, r;

	launch(t, guest_syncs);
	for (i = 0; i < NR_ROUNDS; i++) {
		vcpu_run_complete_io(t->vcpu);
		send_all(t, variant->sources);
		vcpu_run_complete_io(t->vcpu);

		vm_mem_set_shared(t->vm, shared->page, PAGE_SIZE);
		r = __vcpu_run(t->vcpu);
		TEST_ASSERT(r == -1 && errno == EFAULT, "KVM_RUN: %d, errno %d", r, errno);
		TEST_ASSERT_KVM_EXIT_REASON(t->vcpu, KVM_EXIT_MEMORY_FAULT);
		vm_mem_set_private(t->vm, shared->page, PAGE_SIZE);

		EXPECT_TRUE(run(t));
		check_counts(t, variant->sources);
	}
	check_eois(t, variant->split);
}

static void signal_handler(int sig)
{
}

struct signals {
	pthread_t target;
	bool stop;
};

static void *send_signals(void *arg)
{
	struct signals *s = arg;

	while (!READ_ONCE(s->stop)) {
		pthread_kill(s->target, SIGUSR1);
		usleep(100);
	}
	return NULL;
}

/* Out to userspace and back all the time, at any point. */
TEST_F_TIMEOUT(savic_source, signals, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct signals s = {};
	pthread_t thread;

	signal(SIGUSR1, signal_handler);
	launch(t, guest_halts);
	pthread_create(&s.target, NULL, run_to_end, t);
	pthread_create(&thread, NULL, send_signals, &s);
	send_one_by_one(t, variant->sources, false);
	WRITE_ONCE(s.stop, true);
	pthread_join(thread, NULL);
	stop(t, s.target);
	check_counts(t, variant->sources);
	check_eois(t, variant->split);
}

/* One bit per vector: what is pending can't be sent again, what is in service can. */
TEST_F_TIMEOUT(savic_source, coalesced, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	int i;

	launch(t, guest_syncs);
	WRITE_ONCE(shared->sync_in_handler, true);
	for (i = 0; i < 3; i++)
		send_msi(t);
	EXPECT_TRUE(run(t));
	EXPECT_EQ(nr_received(MSI_VECTOR), 0);
	for (i = 0; i < 3; i++)
		send_msi(t);
	EXPECT_TRUE(run(t));
	EXPECT_EQ(nr_received(MSI_VECTOR), 2);
	EXPECT_TRUE(run(t));
	EXPECT_EQ(nr_received(MSI_VECTOR), 2);
}

/* All at once, and those in between that no APIC delivers. */
TEST_F_TIMEOUT(savic_source, all_vectors, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	int i;

	/* No line is up. */
	WRITE_ONCE(shared->nr_lowered, 1);
	launch(t, guest_all_vectors);
	for (i = 0; i < 256; i++) {
		if (!has_error_code(i))
			savic_send_msi(t->vm, 0, i);
	}
	EXPECT_FALSE(run(t));
	for (i = 0; i < 256; i++) {
		EXPECT_EQ(nr_received(i), i >= FIRST_VECTOR && !has_error_code(i)) {
			TH_LOG("vector %#x", i);
		}
	}
}

SAVIC_TEST_HARNESS_MAIN
