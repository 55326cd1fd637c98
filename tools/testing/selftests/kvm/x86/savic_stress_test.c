// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: everything that can interrupt a guest, at the same time, with more
 * vCPUs than CPUs, and an account of each interrupt.
 *
 * This is the host's part: its sources, and what it does to the vCPUs.  The guest and its books
 * are in lib/x86/savic_stress.c, the rules of accounting in savic_stress.h.
 *
 * Meanwhile vCPUs spin, halt, open and close their interrupt window and change what
 * they allow, their threads are sent signals, and the host zaps the mappings of their
 * backing pages.
 *
 * It goes on until each kind of source and disturbance has been used several times, from the
 * cause to the effect.  A lost interrupt ends in a hang.  The alarm then says which one it is.
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
#include "savic_stress.h"
#include "sev.h"
#include "test_util.h"

#define NR_CPUS_USED		2
#define DEFAULT_RUN_SECS	4
#define DEFAULT_SEED		1

/* Only to end a test that hangs, on top of the time that it is to run. */
#define TIMEOUT_SECS		180

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

static void host_msi(struct kvm_random_state *rng, u32 target)
{
	u32 nr = account(target, MSI_VECTOR);

	/* The higher one is dropped and must not take the other along. */
	account(target, DENIED_VECTOR);
	savic_send_msi(vm, target, DENIED_VECTOR);
	savic_send_msi(vm, target, MSI_VECTOR);
	host_wait(target, MSI_VECTOR, nr);
	account_use(KIND_MSI);
}

static void host_burst(struct kvm_random_state *rng, u32 target)
{
	u32 i, nr = 0;

	for (i = random_below(rng, 8); i < 8; i++) {
		account(target, BURST_VECTOR);
		nr = nr_received(target, BURST_VECTOR);
		savic_send_msi(vm, target, BURST_VECTOR);
	}
	__sync_fetch_and_add(&books->bursts[target], 1);
	host_wait(target, BURST_VECTOR, nr + 1);
	account_use(KIND_BURST);
}

static void host_irqfd(struct kvm_random_state *rng, u32 target)
{
	u32 nr = account(target, IRQFD_VECTOR);

	savic_signal_eventfd(msi_fd[target]);
	host_wait(target, IRQFD_VECTOR, nr);
	account_use(KIND_IRQFD);
}

static void host_edge(struct kvm_random_state *rng, u32 target)
{
	u32 nr = account(target, EDGE_VECTOR);

	kvm_irq_line(vm, EDGE_GSI(target), 1);
	kvm_irq_line(vm, EDGE_GSI(target), 0);
	host_wait(target, EDGE_VECTOR, nr);
	account_use(KIND_EDGE);
}

static void host_level(struct kvm_random_state *rng, u32 target)
{
	struct pollfd pfd = { .fd = resample_fd[target], .events = POLLIN };
	u8 vector = LEVEL_VECTOR + target;
	u32 nr = account(target, vector);
	u64 eois;

	if (has_resampler(target)) {
		savic_signal_eventfd(level_fd[target]);
		host_wait(target, vector, nr);
		TEST_ASSERT(poll(&pfd, 1, -1) == 1, "poll() failed, errno %d", errno);
		TEST_ASSERT(read(pfd.fd, &eois, sizeof(eois)) == sizeof(eois),
			    "Reading from a resamplefd failed, errno %d", errno);
		TEST_ASSERT_EQ(eois, 1ul);
		account_use(KIND_RESAMPLED_LEVEL);
		return;
	}

	kvm_irq_line(vm, LEVEL_GSI(target), 1);
	host_wait(target, vector, nr);
	kvm_irq_line(vm, LEVEL_GSI(target), 0);
	WRITE_ONCE(books->nr_lowered[target], nr);
	account_use(KIND_LEVEL);
}

static void host_toggle(struct kvm_random_state *rng, u32 target)
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
		account_use(KIND_TOGGLE);
		break;
	default:
		sched_yield();
		break;
	}
}

static void host_nmi(struct kvm_random_state *rng, u32 target)
{
	const enum kind kinds[] = { KIND_MSI_NMI, KIND_IOAPIC_NMI, KIND_IOCTL_NMI };
	enum kind kind = kinds[random_below(rng, ARRAY_SIZE(kinds))];
	u32 nr;

	if (kind == KIND_IOAPIC_NMI)
		target = NMI_VCPU;
	if (!nmi_trylock(target)) {
		sched_yield();
		return;
	}

	nr = __sync_add_and_fetch(&books->nmis_sent[target], 1);
	switch (kind) {
	case KIND_MSI_NMI:
		savic_send_msi(vm, target, APIC_DM_NMI);
		break;
	case KIND_IOAPIC_NMI:
		kvm_irq_line(vm, NMI_GSI, 1);
		kvm_irq_line(vm, NMI_GSI, 0);
		break;
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
	account_use(kind);
}

/* Not a source: out to userspace and back, or a backing page that has to be mapped again. */
static void host_disturb(struct kvm_random_state *rng, u32 target)
{
	u8 *hva = addr_gpa2hva(vm, books->page[target]);

	if (kvm_random_bool(rng)) {
		pthread_kill(vcpu_threads[target], SIGUSR1);
		account_use(KIND_SIGNAL);
	} else {
		/* The shared memory of the same GPA, there has to be some. */
		WRITE_ONCE(*hva, 1);
		TEST_ASSERT(!madvise(hva, PAGE_SIZE, MADV_DONTNEED),
			    "madvise() failed, errno %d", errno);
		account_use(KIND_ZAP);
	}
	usleep(random_below(rng, 2000));
}

static struct source {
	void (*fn)(struct kvm_random_state *rng, u32 target);
	pthread_t thread;
} sources[] = {
	{ host_msi },
	{ host_burst },
	{ host_irqfd },
	{ host_edge },
	{ host_level },
	{ host_toggle },
	{ host_nmi },
	{ host_disturb },
};

static void *source_thread(void *arg)
{
	struct source *source = arg;
	struct kvm_random_state rng =
		new_kvm_random_state(books->seed + NR_VCPUS + (source - sources));

	while (!READ_ONCE(books->stop))
		source->fn(&rng, random_below(&rng, NR_VCPUS));
	return NULL;
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	int r;

	while ((r = __vcpu_run(vcpu))) {
		TEST_ASSERT(errno == EINTR, KVM_IOCTL_ERROR(KVM_RUN, r));
		if (__sync_lock_test_and_set(&books->kvm_nmi[vcpu->id], false))
			vcpu_ioctl(vcpu, KVM_NMI, NULL);
	}

	TEST_ASSERT(!savic_check_ucall(vcpu), "Unexpected GUEST_SYNC()");
	return NULL;
}

static void signal_handler(int sig)
{
}

/* What a hanging test waits for, in all likelihood. */
static void *watchdog_thread(void *secs)
{
	sleep((uintptr_t)secs);
	savic_stress_check();
	ksft_exit_fail_msg("Something has got lost, or the host is very slow\n");
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

		level.fd = kvm_new_eventfd();
		level.resamplefd = kvm_new_eventfd();
		level_fd[vcpu] = level.fd;
		resample_fd[vcpu] = level.resamplefd;
		vm_ioctl(vm, KVM_IRQFD, &level);
	}
}

static void setup_vm(u32 seed)
{
	vm = vm_savic_create(NR_VCPUS, savic_stress_guest, vcpus);
	savic_stress_setup(vm, vcpus, seed);
	setup_routes();
	vm_sev_launch(vm, snp_default_policy(), NULL);
}

/* More vCPUs than CPUs, on any host. */
static void use_few_cpus(void)
{
	int i, nr, cpus[NR_CPUS_USED];
	cpu_set_t used;

	CPU_ZERO(&used);
	nr = savic_get_cpus(cpus, NR_CPUS_USED);
	for (i = 0; i < nr; i++)
		CPU_SET(cpus[i], &used);
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
	while (!savic_stress_all_used())
		usleep(1000);

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
			   "# -s  how long to run at least, %d by default\n"
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
	u32 seed = DEFAULT_SEED;
	pthread_t watchdog;

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
	use_few_cpus();
	setup_vm(seed);
	pthread_create(&watchdog, NULL, watchdog_thread,
		       (void *)(uintptr_t)(run_secs + TIMEOUT_SECS));
	run(run_secs);

	savic_stress_print_totals();
	ksft_test_result(!savic_stress_check(), "accounts of all sources\n");

	kvm_vm_free(vm);
	ksft_finished();
}
