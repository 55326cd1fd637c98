// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: everything that can interrupt a guest, at the same time, with more
 * vCPUs than CPUs, and an account of each interrupt.
 *
 * Every source has a vector of its own and knows what the handler has counted for it
 * and its target.  Most wait for the target's handler before they send again, so
 * that nothing can coalesce: in the end each (target, vector) must have been received
 * exactly as often as it was sent.  Sources that don't wait may coalesce, i.e. there
 * is a lower bound as well as an upper one.  What a target doesn't allow must never
 * arrive.  NMIs have no vector: whoever sends one to a vCPU holds that vCPU's lock
 * until its handler has run, hence they are exact, too.
 *
 * Meanwhile vCPUs spin, halt, open and close their interrupt window and change what
 * they allow, their threads are sent signals, and the host zaps the mappings of their
 * backing pages.
 *
 * A lost interrupt ends in a hang.  The alarm then says which one it is.
 */
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "apic.h"
#include "ghcb.h"
#include "kselftest.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define NR_VCPUS		6
#define NR_CPUS_USED		2
#define DEFAULT_RUN_SECS	4

/* Only to end a test that hangs, on top of the time that it is to run. */
#define TIMEOUT_SECS		180

/* Each source is to be in use that often, however slow the host. */
#define MIN_ROUNDS		10

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
static bool has_resampler(u32 vcpu)
{
	return !(vcpu % 2);
}

/* The two sides take turns: see guest_toggle() and host_toggle(). */
enum toggle {
	TOGGLE_IDLE,
	TOGGLE_DENIED,
	TOGGLE_SENT,
	TOGGLE_ALLOWED,
};

/* In memory that host and guest share. */
static struct account {
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

	u32 nr_started;
	u32 nr_stopped;
	u32 nr_actions[NR_VCPUS];
	bool stop;
	u32 seed;
} *books;

static u32 nr_received(u32 vcpu, u8 vector)
{
	return READ_ONCE(books->received[vcpu][vector]);
}

/* Returns what the handler will have counted when this one has arrived. */
static u32 account(u32 vcpu, u8 vector)
{
	return __sync_add_and_fetch(&books->sent[vcpu][vector], 1);
}

static bool nmi_trylock(u32 vcpu)
{
	return !__sync_lock_test_and_set(&books->nmi_lock[vcpu], 1);
}

static void nmi_unlock(u32 vcpu)
{
	__sync_lock_release(&books->nmi_lock[vcpu]);
}

static u32 random_below(struct guest_random_state *rng, u32 limit)
{
	return guest_random_u32(rng) % limit;
}

/* ---- Guest ---- */

static void nmi_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&books->nmis_received[savic_apic_id()], 1);
}

static void irq_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&books->received[savic_apic_id()][regs->vector], 1);
	savic_eoi();
}

/* What a driver does: have the device lower its line, then EOI.  In all three ways. */
static void level_handler(struct ex_regs *regs)
{
	u32 id = savic_apic_id();
	u8 vector = LEVEL_VECTOR + id;
	u32 nr = __sync_fetch_and_add(&books->received[id][regs->vector], 1);
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_UNACCELERATED_ACCESS,
		.exit_info_1 = BIT_ULL(32) | APIC_EOI,
		.exit_info_2 = vector,
	};

	GUEST_ASSERT_EQ(regs->vector, (u64)vector);
	while (!has_resampler(id) && READ_ONCE(books->nr_lowered[id]) <= nr)
		cpu_relax();

	switch (nr % 3) {
	case 0:
		savic_eoi();
		break;
	case 1:
		wrmsr(X2APIC_MSR(APIC_EOI), 0);
		break;
	case 2:
		savic_clear_vector(id, APIC_ISR, vector);
		GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_OK);
		break;
	}
}

/* Interrupts have to be off, and are on in between. */
static void wait_for_vector(u32 target, u8 vector, u32 nr)
{
	while (nr_received(target, vector) < nr)
		sti_nop_cli();
}

static void wait_for_nmi(u32 target, u32 nr)
{
	while (READ_ONCE(books->nmis_received[target]) < nr)
		sti_nop_cli();
}

static void guest_wrmsr(u32 reg, u64 val)
{
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(reg), val), GHCB_OK);
}

/* ICR without the vector, and the vCPUs that it is for. */
static u64 random_icr(struct guest_random_state *rng, u32 id, u32 *targets)
{
	const u32 all = BIT(NR_VCPUS) - 1;
	u32 set = random_below(rng, all) + 1;
	u32 target = random_below(rng, NR_VCPUS);

	switch (random_below(rng, 6)) {
	case 0:
		*targets = all & ~BIT(id);
		return APIC_DEST_ALLBUT;
	case 1:
		*targets = all;
		return APIC_DEST_ALLINC;
	case 2:
		*targets = set;
		return APIC_DEST_LOGICAL | (u64)set << 32;
	default:
		*targets = BIT(target);
		return (u64)target << 32;
	}
}

static void wait_for_ipi(u32 targets, u8 vector)
{
	u32 target;

	for (target = 0; target < NR_VCPUS; target++) {
		if (targets & BIT(target))
			wait_for_vector(target, vector, READ_ONCE(books->sent[target][vector]));
	}
}

/* As Linux does it: the sender has set IRR when it tells KVM. */
static void guest_ipi(struct guest_random_state *rng, u32 id)
{
	u8 vector = IPI_VECTOR + id;
	u32 targets, target;
	u64 icr = random_icr(rng, id, &targets);

	for (target = 0; target < NR_VCPUS; target++) {
		if (!(targets & BIT(target)))
			continue;
		account(target, vector);
		savic_set_vector(target, APIC_IRR, vector);
	}
	guest_wrmsr(APIC_ICR, icr | vector);
	wait_for_ipi(targets, vector);
}

/* By a #VC: KVM delivers. */
static void guest_forwarded_ipi(struct guest_random_state *rng, u32 id)
{
	u8 vector = FORWARD_VECTOR + id;
	u32 targets, target;
	u64 icr = random_icr(rng, id, &targets);

	for (target = 0; target < NR_VCPUS; target++) {
		if (targets & BIT(target))
			account(target, vector);
	}
	wrmsr(X2APIC_MSR(APIC_ICR), icr | vector);
	wait_for_ipi(targets, vector);
}

static void guest_nmi(struct guest_random_state *rng, u32 id)
{
	u32 target = random_below(rng, NR_VCPUS);
	u64 icr = (u64)target << 32 | APIC_DM_NMI;
	u32 nr;

	if (target == id || !nmi_trylock(target))
		return;

	nr = __sync_add_and_fetch(&books->nmis_sent[target], 1);
	if (guest_random_bool(rng)) {
		savic_write(target, SAVIC_NMI_REQ, 1);
		guest_wrmsr(APIC_ICR, icr);
	} else {
		wrmsr(X2APIC_MSR(APIC_ICR), icr);
	}
	wait_for_nmi(target, nr);
	nmi_unlock(target);
}

static void guest_self_ipi(struct guest_random_state *rng, u32 id)
{
	u32 nr = account(id, SELF_VECTOR);

	if (guest_random_bool(rng))
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
	else
		wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_SELF | SELF_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(nr_received(id, SELF_VECTOR), nr);
}

static void guest_oneshot(struct guest_random_state *rng, u32 id)
{
	static const u8 divide[] = { 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa, 0xb };
	u32 nr = account(id, ONESHOT_VECTOR);

	if (guest_random_bool(rng)) {
		/* KVM's one-shot timer fires again if its divisor is changed. */
		guest_wrmsr(APIC_TMICT, 0);
		guest_wrmsr(APIC_TDCR, divide[random_below(rng, ARRAY_SIZE(divide))]);
		guest_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | ONESHOT_VECTOR);
		guest_wrmsr(APIC_TMICT, 1 + random_below(rng, 20000));
	} else {
		guest_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | ONESHOT_VECTOR);
		wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + random_below(rng, 1000000));
	}

	if (guest_random_bool(rng)) {
		while (nr_received(id, ONESHOT_VECTOR) < nr) {
			safe_halt();
			cli();
		}
	} else {
		wait_for_vector(id, ONESHOT_VECTOR, nr);
	}
}

/* What is in between the last one and the stop isn't known. */
static void guest_periodic(struct guest_random_state *rng, u32 id)
{
	u32 nr = nr_received(id, PERIODIC_VECTOR) + 3;

	guest_wrmsr(APIC_TMICT, 0);
	guest_wrmsr(APIC_TDCR, 0xb);
	guest_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | PERIODIC_VECTOR);
	guest_wrmsr(APIC_TMICT, 1000000 + random_below(rng, 1000000));
	wait_for_vector(id, PERIODIC_VECTOR, nr);
	guest_wrmsr(APIC_TMICT, 0);
	savic_settle();
}

/* The host sends one while it is denied, which is lost, and one while it isn't. */
static void guest_toggle(u32 id)
{
	switch (READ_ONCE(books->toggle[id])) {
	case TOGGLE_IDLE:
		savic_clear_vector(id, SAVIC_ALLOWED_IRR, TOGGLED_VECTOR);
		/* Until VMRUN the host may have seen the vector allowed. */
		savic_settle();
		WRITE_ONCE(books->toggle[id], TOGGLE_DENIED);
		break;
	case TOGGLE_SENT:
		savic_settle();
		GUEST_ASSERT(!savic_test_vector(id, APIC_IRR, TOGGLED_VECTOR));
		savic_allow_vector(TOGGLED_VECTOR);
		WRITE_ONCE(books->toggle[id], TOGGLE_ALLOWED);
		break;
	default:
		break;
	}
}

static void guest_idle(struct guest_random_state *rng)
{
	u32 i;

	switch (random_below(rng, 3)) {
	case 0:
		/* The host wakes all when it is over. */
		if (!READ_ONCE(books->stop)) {
			safe_halt();
			cli();
		}
		break;
	case 1:
		sti_nop();
		for (i = random_below(rng, 4000); i; i--)
			cpu_relax();
		cli();
		break;
	default:
		/* In a critical section. */
		for (i = random_below(rng, 4000); i; i--)
			cpu_relax();
		break;
	}
}

static void guest_setup(u32 id)
{
	const u8 allowed[] = {
		STOP_VECTOR, ONESHOT_VECTOR, PERIODIC_VECTOR, MSI_VECTOR, BURST_VECTOR,
		TOGGLED_VECTOR, WAKE_VECTOR, IRQFD_VECTOR, EDGE_VECTOR, LEVEL_VECTOR + id,
	};
	u32 i;

	savic_enable();
	for (i = 0; i < ARRAY_SIZE(allowed); i++)
		savic_allow_vector(allowed[i]);
	for (i = 0; i < NR_VCPUS; i++)
		savic_allow_vector(FORWARD_VECTOR + i);
	savic_set_vector(id, APIC_TMR, LEVEL_VECTOR + id);
	books->page[id] = savic_page_gpa(id);

	ghcb_ioapic_write(IOAPIC_REDIR(EDGE_GSI(id)) + 1, id << 24);
	ghcb_ioapic_write(IOAPIC_REDIR(EDGE_GSI(id)), EDGE_VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI(id)) + 1, id << 24);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI(id)), IOAPIC_LEVEL | (LEVEL_VECTOR + id));
	if (id == NMI_VCPU) {
		ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI) + 1, id << 24);
		ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI), APIC_DM_NMI);
	}
}

static void guest_code(u32 id)
{
	struct guest_random_state rng = new_guest_random_state(books->seed + id);

	/* Two register accesses each, so one vCPU after the other. */
	while (READ_ONCE(books->nr_started) < id)
		cpu_relax();
	guest_setup(id);
	__sync_fetch_and_add(&books->nr_started, 1);
	while (READ_ONCE(books->nr_started) < NR_VCPUS)
		sti_nop_cli();

	while (!READ_ONCE(books->stop) || books->nr_actions[id] < MIN_ROUNDS) {
		switch (random_below(&rng, 12)) {
		case 0 ... 1:
			guest_ipi(&rng, id);
			break;
		case 2 ... 3:
			guest_forwarded_ipi(&rng, id);
			break;
		case 4:
			guest_nmi(&rng, id);
			break;
		case 5:
			guest_self_ipi(&rng, id);
			break;
		case 6:
			guest_oneshot(&rng, id);
			break;
		case 7:
			guest_periodic(&rng, id);
			break;
		case 8:
			guest_toggle(id);
			break;
		default:
			guest_idle(&rng);
			break;
		}
		books->nr_actions[id]++;
	}

	/* The others still send, and wait for this one. */
	__sync_fetch_and_add(&books->nr_stopped, 1);
	while (!nr_received(id, STOP_VECTOR)) {
		safe_halt();
		cli();
		guest_toggle(id);
	}
	savic_settle();
	GUEST_DONE();
}

/* ---- Host ---- */

static struct kvm_vm *vm;
static struct kvm_vcpu *vcpus[NR_VCPUS];
static pthread_t vcpu_threads[NR_VCPUS];

/* Of the level-triggered line of an even vCPU, and of the route to each vCPU. */
static int level_fd[NR_VCPUS];
static int resample_fd[NR_VCPUS];
static int msi_fd[NR_VCPUS];

static void host_wait(u32 target, u8 vector, u32 nr)
{
	while (nr_received(target, vector) < nr)
		usleep(50);
}

static void host_wait_for_nmi(u32 target, u32 nr)
{
	while (READ_ONCE(books->nmis_received[target]) < nr)
		usleep(50);
}

static void signal_eventfd(int fd)
{
	u64 one = 1;

	TEST_ASSERT(write(fd, &one, sizeof(one)) == sizeof(one),
		    "Writing to an eventfd failed, errno %d", errno);
}

static void host_msi(struct guest_random_state *rng, u32 target)
{
	u32 nr = account(target, MSI_VECTOR);

	/* The higher one is dropped and must not take the other along. */
	account(target, DENIED_VECTOR);
	savic_send_msi(vm, target, DENIED_VECTOR);
	savic_send_msi(vm, target, MSI_VECTOR);
	host_wait(target, MSI_VECTOR, nr);
}

static void host_burst(struct guest_random_state *rng, u32 target)
{
	u32 i, nr = 0;

	for (i = random_below(rng, 8); i < 8; i++) {
		account(target, BURST_VECTOR);
		nr = nr_received(target, BURST_VECTOR);
		savic_send_msi(vm, target, BURST_VECTOR);
	}
	__sync_fetch_and_add(&books->bursts[target], 1);
	host_wait(target, BURST_VECTOR, nr + 1);
}

static void host_irqfd(struct guest_random_state *rng, u32 target)
{
	u32 nr = account(target, IRQFD_VECTOR);

	signal_eventfd(msi_fd[target]);
	host_wait(target, IRQFD_VECTOR, nr);
}

static void host_edge(struct guest_random_state *rng, u32 target)
{
	u32 nr = account(target, EDGE_VECTOR);

	kvm_irq_line(vm, EDGE_GSI(target), 1);
	kvm_irq_line(vm, EDGE_GSI(target), 0);
	host_wait(target, EDGE_VECTOR, nr);
}

static void host_level(struct guest_random_state *rng, u32 target)
{
	struct pollfd pfd = { .fd = resample_fd[target], .events = POLLIN };
	u8 vector = LEVEL_VECTOR + target;
	u32 nr = account(target, vector);
	u64 eois;

	if (has_resampler(target)) {
		signal_eventfd(level_fd[target]);
		host_wait(target, vector, nr);
		TEST_ASSERT(poll(&pfd, 1, -1) == 1, "poll() failed, errno %d", errno);
		TEST_ASSERT(read(pfd.fd, &eois, sizeof(eois)) == sizeof(eois),
			    "Reading from a resamplefd failed, errno %d", errno);
		TEST_ASSERT_EQ(eois, 1ul);
		return;
	}

	kvm_irq_line(vm, LEVEL_GSI(target), 1);
	host_wait(target, vector, nr);
	kvm_irq_line(vm, LEVEL_GSI(target), 0);
	WRITE_ONCE(books->nr_lowered[target], nr);
}

static void host_toggle(struct guest_random_state *rng, u32 target)
{
	u32 nr;

	switch (READ_ONCE(books->toggle[target])) {
	case TOGGLE_DENIED:
		savic_send_msi(vm, target, TOGGLED_VECTOR);
		WRITE_ONCE(books->toggle[target], TOGGLE_SENT);
		break;
	case TOGGLE_ALLOWED:
		nr = account(target, TOGGLED_VECTOR);
		savic_send_msi(vm, target, TOGGLED_VECTOR);
		host_wait(target, TOGGLED_VECTOR, nr);
		WRITE_ONCE(books->toggle[target], TOGGLE_IDLE);
		break;
	default:
		sched_yield();
		break;
	}
}

static void host_nmi(struct guest_random_state *rng, u32 target)
{
	u32 nr;

	if (!nmi_trylock(target)) {
		sched_yield();
		return;
	}

	nr = __sync_add_and_fetch(&books->nmis_sent[target], 1);
	switch (random_below(rng, 3)) {
	case 0:
		savic_send_msi(vm, target, APIC_DM_NMI);
		break;
	case 1:
		if (target == NMI_VCPU) {
			kvm_irq_line(vm, NMI_GSI, 1);
			kvm_irq_line(vm, NMI_GSI, 0);
			break;
		}
		fallthrough;
	default:
		/* The ioctl is the vCPU thread's, as it waits for KVM_RUN to end. */
		WRITE_ONCE(books->kvm_nmi[target], true);
		while (READ_ONCE(books->kvm_nmi[target])) {
			pthread_kill(vcpu_threads[target], SIGUSR1);
			usleep(100);
		}
		break;
	}
	host_wait_for_nmi(target, nr);
	nmi_unlock(target);
}

/* Not a source: out to userspace and back, or a backing page that has to be mapped again. */
static void host_disturb(struct guest_random_state *rng, u32 target)
{
	u8 *hva = addr_gpa2hva(vm, books->page[target]);

	if (guest_random_bool(rng)) {
		pthread_kill(vcpu_threads[target], SIGUSR1);
	} else {
		/* The shared memory of the same GPA, there has to be some. */
		WRITE_ONCE(*hva, 1);
		TEST_ASSERT(!madvise(hva, PAGE_SIZE, MADV_DONTNEED),
			    "madvise() failed, errno %d", errno);
	}
	usleep(random_below(rng, 2000));
}

static struct source {
	const char *name;
	void (*fn)(struct guest_random_state *rng, u32 target);
	u32 nr_rounds;
	pthread_t thread;
} sources[] = {
	{ "KVM_SIGNAL_MSI", host_msi },
	{ "MSI bursts", host_burst },
	{ "irqfd", host_irqfd },
	{ "edge-triggered lines", host_edge },
	{ "level-triggered lines", host_level },
	{ "toggled vector", host_toggle },
	{ "NMI", host_nmi },
	{ "disturbance", host_disturb },
};

static void *source_thread(void *arg)
{
	struct source *source = arg;
	struct guest_random_state rng =
		new_guest_random_state(books->seed + NR_VCPUS + (source - sources));

	while (!READ_ONCE(books->stop) || source->nr_rounds < MIN_ROUNDS) {
		source->fn(&rng, random_below(&rng, NR_VCPUS));
		source->nr_rounds++;
	}
	return NULL;
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	struct ucall uc;
	int r;

	while ((r = __vcpu_run(vcpu))) {
		TEST_ASSERT(errno == EINTR, KVM_IOCTL_ERROR(KVM_RUN, r));
		if (__sync_lock_test_and_set(&books->kvm_nmi[vcpu->id], false))
			vcpu_ioctl(vcpu, KVM_NMI, NULL);
	}

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_DONE:
		break;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
	default:
		TEST_FAIL("vCPU %u: unexpected exit: %s", vcpu->id,
			  exit_reason_str(vcpu->run->exit_reason));
	}
	return NULL;
}

static void signal_handler(int sig)
{
}

/* How often the handler may have run, given what was sent. */
static void expected(u32 vcpu, u8 vector, u32 *min, u32 *max)
{
	*min = *max = READ_ONCE(books->sent[vcpu][vector]);

	switch (vector) {
	case BURST_VECTOR:
		*min = READ_ONCE(books->bursts[vcpu]);
		break;
	case PERIODIC_VECTOR:
		/* Each use has waited for its own. */
		*max = -1u;
		break;
	case DENIED_VECTOR:
		*min = *max = 0;
		break;
	default:
		break;
	}
}

/* Returns the number of (target, vector) for which the account doesn't tally. */
static u32 check_account(void)
{
	u32 min, max, nr, vcpu, vector, bad = 0;

	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		for (vector = 0; vector < 256; vector++) {
			expected(vcpu, vector, &min, &max);
			nr = nr_received(vcpu, vector);
			if (nr >= min && nr <= max)
				continue;
			ksft_print_msg("vCPU %u, vector %#x: %u sent, %u to %u expected, %u received\n",
				       vcpu, vector, books->sent[vcpu][vector], min, max, nr);
			bad++;
		}

		if (books->nmis_sent[vcpu] == books->nmis_received[vcpu])
			continue;
		ksft_print_msg("vCPU %u: %u NMIs sent, %u received\n", vcpu,
			       books->nmis_sent[vcpu], books->nmis_received[vcpu]);
		bad++;
	}
	return bad;
}

/* What a hanging test waits for, in all likelihood.  Not async-signal-safe, so what. */
static void alarm_handler(int sig)
{
	check_account();
	ksft_exit_fail_msg("Something has got lost, or the host is very slow\n");
}

static void print_totals(void)
{
	static const struct {
		const char *name;
		u8 first, last;
	} kinds[] = {
		{ "IPIs", IPI_VECTOR, IPI_VECTOR + NR_VCPUS - 1 },
		{ "forwarded IPIs", FORWARD_VECTOR, FORWARD_VECTOR + NR_VCPUS - 1 },
		{ "IPIs to self", SELF_VECTOR, SELF_VECTOR },
		{ "timer, one-shot and deadline", ONESHOT_VECTOR, ONESHOT_VECTOR },
		{ "timer, periodic", PERIODIC_VECTOR, PERIODIC_VECTOR },
		{ "MSIs", MSI_VECTOR, MSI_VECTOR },
		{ "MSIs in bursts", BURST_VECTOR, BURST_VECTOR },
		{ "MSIs while denied", DENIED_VECTOR, DENIED_VECTOR },
		{ "MSIs after being denied", TOGGLED_VECTOR, TOGGLED_VECTOR },
		{ "irqfds", IRQFD_VECTOR, IRQFD_VECTOR },
		{ "edge-triggered lines", EDGE_VECTOR, EDGE_VECTOR },
		{ "level-triggered lines", LEVEL_VECTOR, LEVEL_VECTOR + NR_VCPUS - 1 },
	};
	u32 i, vcpu, vector, sent, received;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		sent = received = 0;
		for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
			for (vector = kinds[i].first; vector <= kinds[i].last; vector++) {
				sent += books->sent[vcpu][vector];
				received += books->received[vcpu][vector];
			}
		}
		ksft_print_msg("%s: %u sent, %u received\n", kinds[i].name, sent, received);
	}

	sent = received = 0;
	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		sent += books->nmis_sent[vcpu];
		received += books->nmis_received[vcpu];
	}
	ksft_print_msg("NMIs: %u sent, %u received\n", sent, received);
}

/* All pins of the I/O APIC, none of a PIC, and an MSI to each vCPU. */
static void setup_routes(void)
{
	struct kvm_irq_routing *routing = kvm_gsi_routing_create();
	struct kvm_irq_routing_entry *entry = routing->entries;
	u32 gsi, vcpu;

	for (gsi = 0; gsi < KVM_IOAPIC_NUM_PINS; gsi++, entry++) {
		entry->gsi = gsi;
		entry->type = KVM_IRQ_ROUTING_IRQCHIP;
		entry->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		entry->u.irqchip.pin = gsi;
	}
	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++, entry++) {
		entry->gsi = MSI_GSI(vcpu);
		entry->type = KVM_IRQ_ROUTING_MSI;
		entry->u.msi.address_lo = APIC_DEFAULT_GPA | vcpu << 12;
		entry->u.msi.data = IRQFD_VECTOR;
	}
	routing->nr = entry - routing->entries;
	kvm_gsi_routing_write(vm, routing);

	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		struct kvm_irqfd level = {
			.gsi = LEVEL_GSI(vcpu),
			.flags = KVM_IRQFD_FLAG_RESAMPLE,
		};

		msi_fd[vcpu] = kvm_new_eventfd();
		kvm_assign_irqfd(vm, MSI_GSI(vcpu), msi_fd[vcpu]);
		if (!has_resampler(vcpu))
			continue;

		level_fd[vcpu] = level.fd = kvm_new_eventfd();
		resample_fd[vcpu] = level.resamplefd = kvm_new_eventfd();
		vm_ioctl(vm, KVM_IRQFD, &level);
	}
}

static void setup_vm(u32 seed)
{
	const size_t size = align_up(sizeof(struct account), PAGE_SIZE);
	gva_t gva;
	u32 i;

	vm = vm_savic_create(NR_VCPUS, guest_code, vcpus);

	/* Any vector is accounted for, also one that nobody sends. */
	for (i = 32; i < 256; i++)
		vm_install_exception_handler(vm, i, irq_handler);
	for (i = 0; i < NR_VCPUS; i++)
		vm_install_exception_handler(vm, LEVEL_VECTOR + i, level_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);
	setup_routes();

	gva = vm_alloc_shared(vm, size, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	write_guest_global(vm, books, (struct account *)gva);
	books = addr_gva2hva(vm, gva);
	memset(books, 0, size);
	books->seed = seed;

	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(vcpus[i], 1, i);
	vm_sev_launch(vm, snp_default_policy(), NULL);
}

/* More vCPUs than CPUs, on any host. */
static void use_few_cpus(void)
{
	cpu_set_t possible, used;
	int cpu, nr = 0;

	TEST_ASSERT(!sched_getaffinity(0, sizeof(possible), &possible),
		    "sched_getaffinity() failed, errno %d", errno);
	CPU_ZERO(&used);
	for (cpu = 0; cpu < CPU_SETSIZE && nr < NR_CPUS_USED; cpu++) {
		if (CPU_ISSET(cpu, &possible)) {
			CPU_SET(cpu, &used);
			nr++;
		}
	}
	TEST_ASSERT(!sched_setaffinity(0, sizeof(used), &used),
		    "sched_setaffinity() failed, errno %d", errno);
}

static void run(int run_secs)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&vcpu_threads[i], NULL, vcpu_thread, vcpus[i]);
	while (READ_ONCE(books->nr_started) < NR_VCPUS)
		usleep(1000);

	for (i = 0; i < ARRAY_SIZE(sources); i++)
		pthread_create(&sources[i].thread, NULL, source_thread, &sources[i]);
	sleep(run_secs);

	WRITE_ONCE(books->stop, true);
	for (i = 0; i < NR_VCPUS; i++) {
		account(i, WAKE_VECTOR);
		savic_send_msi(vm, i, WAKE_VECTOR);
	}
	for (i = 0; i < ARRAY_SIZE(sources); i++)
		pthread_join(sources[i].thread, NULL);

	/* Nobody sends any more but the vCPUs, whose last IPIs and NMIs are waited for. */
	while (READ_ONCE(books->nr_stopped) < NR_VCPUS)
		usleep(1000);
	for (i = 0; i < NR_VCPUS; i++) {
		account(i, STOP_VECTOR);
		savic_send_msi(vm, i, STOP_VECTOR);
	}
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(vcpu_threads[i], NULL);
}

static void __noreturn bad_arguments(const char *name)
{
	ksft_exit_fail_msg("usage: %s [-s SECONDS] [-r SEED]\n"
			   "# -s  how long to run, %d by default\n"
			   "# -r  what the choice of actions begins with, the time by default\n",
			   name, DEFAULT_RUN_SECS);
}

static u32 number(const char *name, const char *arg)
{
	char *end;
	unsigned long val = strtoul(arg, &end, 0);

	if (!*arg || *end || val > UINT_MAX)
		bad_arguments(name);
	return val;
}

int main(int argc, char *argv[])
{
	int opt, run_secs = DEFAULT_RUN_SECS;
	u32 i, seed = time(NULL);

	ksft_print_header();
	while ((opt = getopt(argc, argv, "s:r:")) != -1) {
		switch (opt) {
		case 's':
			run_secs = number(argv[0], optarg);
			break;
		case 'r':
			seed = number(argv[0], optarg);
			break;
		default:
			bad_arguments(argv[0]);
		}
	}
	if (optind < argc)
		bad_arguments(argv[0]);

	if (!kvm_has_savic())
		ksft_exit_skip(SAVIC_MISSING "\n");

	ksft_set_plan(1);
	ksft_print_msg("%d seconds, seed %#x: repeat with -s %d -r %#x\n",
		       run_secs, seed, run_secs, seed);

	signal(SIGUSR1, signal_handler);
	signal(SIGALRM, alarm_handler);
	use_few_cpus();
	setup_vm(seed);
	alarm(run_secs + TIMEOUT_SECS);
	run(run_secs);
	alarm(0);

	for (i = 0; i < ARRAY_SIZE(sources); i++)
		ksft_print_msg("source %s: %u rounds\n", sources[i].name, sources[i].nr_rounds);
	print_totals();
	ksft_test_result(!check_account(), "accounts of all sources\n");

	kvm_vm_free(vm);
	ksft_finished();
}
