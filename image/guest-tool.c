// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tests in the guest (image/guest-test) need and busybox does not have:
 *
 *   guest-tool timers N                  N sleeps of 1 ms; fails if one ends early
 *   guest-tool tlb N                     N times: a page goes away under threads on all CPUs
 *   guest-tool calls                     each CPU's call of CPU 0 by IPI, and CPU 0's of each, is answered
 *   guest-tool memory N                  N megabytes are written, by all CPUs at a time, and read
 *   guest-tool features                  KVM's paravirtual features: the numbers of the bits set in CPUID 4000_0001 EAX
 *   guest-tool kexec KERNEL INITRD ARGS  start another kernel
 *   guest-tool on-panic KERNEL INITRD ARGS  load another kernel for a panic
 *
 * Static, for the guest's initramfs.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC	1000000000LL
#define SLEEP_NS	1000000LL
#define MAX_CPUS	64

/*
 * By the kernel, which reads the clock of the CPU that it runs on. The vDSO reads CPU 0's, which KVM sets only when
 * that CPU runs again: if the VM was paused while CPU 0 was idle then time jumps ahead, and back.
 */
static int64_t now_ns(void)
{
	struct timespec ts;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static int timers(int rounds)
{
	int64_t worst = 0, sum = 0;

	for (int i = 0; i < rounds; i++) {
		struct timespec ts = { .tv_nsec = SLEEP_NS };
		int64_t start = now_ns(), took;

		if (clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL))
			errx(1, "clock_nanosleep failed");
		took = now_ns() - start;
		if (took < SLEEP_NS)
			errx(1, "a sleep of %lld ns ended after %lld ns", SLEEP_NS, (long long)took);
		sum += took;
		if (took > worst)
			worst = took;
	}
	printf("  %d sleeps of 1 ms: %lld us on average, %lld us at most\n", rounds,
	       (long long)(sum / rounds / 1000), (long long)(worst / 1000));
	return 0;
}

/*
 * One thread a CPU reads the number of the round through a mapping that the main thread replaces by another
 * page each round. A thread whose TLB was not flushed goes on reading the old one.
 */
static struct {
	_Atomic int *window;
	atomic_int round;
	atomic_int stop;
	atomic_int seen[MAX_CPUS];
} shared;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", cpu);
}

/* The CPUs that are online: none is forbidden here. */
static cpu_set_t online_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		err(1, "sched_getaffinity");
	return set;
}

static void *reader(void *arg)
{
	int cpu = (intptr_t)arg;

	pin(cpu);
	while (!shared.stop) {
		int expected = shared.round;

		/* Read after the round was announced: that round's page, or a later one's. */
		if (*shared.window < expected)
			errx(1, "CPU %d reads round %d in round %d", cpu, *shared.window, expected);
		shared.seen[cpu] = expected;
	}
	return NULL;
}

static int tlb(int rounds)
{
	int cpus = 0, page = getpagesize();
	cpu_set_t online = online_cpus();
	pthread_t threads[MAX_CPUS];
	int fd = memfd_create("rounds", 0);

	if (fd < 0 || ftruncate(fd, (off_t)(rounds + 1) * page))
		err(1, "memfd");
	shared.window = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared.window == MAP_FAILED)
		err(1, "mmap");
	/* So that each other CPU has to be called: the one that this runs on flushes its TLB by itself. */
	pin(0);
	for (intptr_t cpu = 0; cpu < MAX_CPUS; cpu++) {
		if (!CPU_ISSET(cpu, &online))
			continue;
		if (pthread_create(&threads[cpus++], NULL, reader, (void *)cpu))
			errx(1, "no thread");
	}
	for (int i = 1; i <= rounds; i++) {
		if (pwrite(fd, &i, sizeof(i), (off_t)i * page) != sizeof(i))
			err(1, "pwrite");
		if (mmap((void *)shared.window, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			 (off_t)i * page) == MAP_FAILED)
			err(1, "mmap");
		shared.round = i;
		/* All have to run: a thread that sleeps has no translation to flush. */
		for (int cpu = 0; cpu < MAX_CPUS; cpu++)
			while (CPU_ISSET(cpu, &online) && shared.seen[cpu] < i)
				sched_yield();
	}
	shared.stop = 1;
	for (int i = 0; i < cpus; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* A call that is not answered for so long is lost. */
#define ANSWER_SEC	20

/*
 * A thread that runs on one CPU all the time, so that this CPU never looks for calls by itself, which it does when it
 * is idle.
 */
static struct {
	int cpu;
	atomic_int running;
	atomic_int stop;
	atomic_int gave_up;
} called;

static void *busy(void *arg)
{
	int64_t end = now_ns() + ANSWER_SEC * NSEC_PER_SEC;

	(void)arg;
	pin(called.cpu);
	called.running = 1;
	while (!called.stop) {
		if (now_ns() > end) {
			called.gave_up = 1;
			break;
		}
	}
	return NULL;
}

/* CPU from has CPU to flush its TLB, and waits for it. Return whether that was done before the time was up. */
static bool call(int from, int to)
{
	long page = sysconf(_SC_PAGESIZE);
	pthread_t thread;
	char *shared_page;

	shared_page = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (shared_page == MAP_FAILED)
		err(1, "mmap");
	called.cpu = to;
	called.running = called.stop = called.gave_up = 0;
	pin(from);
	if (pthread_create(&thread, NULL, busy, NULL))
		errx(1, "no thread");
	while (!called.running)
		sched_yield();
	*(volatile char *)shared_page = 1;
	if (mprotect(shared_page, page, PROT_READ))
		err(1, "mprotect");
	called.stop = 1;
	pthread_join(thread, NULL);
	munmap(shared_page, page);
	return !called.gave_up;
}

static int calls(void)
{
	cpu_set_t online = online_cpus();
	int lost = 0;

	for (int cpu = 1; cpu < MAX_CPUS; cpu++) {
		if (!CPU_ISSET(cpu, &online))
			continue;
		for (int way = 0; way < 2; way++) {
			int from = way ? cpu : 0, to = way ? 0 : cpu;

			if (!call(from, to)) {
				printf("  CPU %d did not answer CPU %d's call within %d s\n", to, from, ANSWER_SEC);
				lost++;
			}
		}
	}
	printf("  calls by IPI: %d lost\n", lost);
	return lost != 0;
}

/* One thread a CPU writes its part of this memory: the page's number to each page. */
static struct {
	uint64_t *start;
	size_t pages;
	size_t step;
	int cpus[MAX_CPUS];
} filled;

static uint64_t *filled_page(size_t page)
{
	return filled.start + page * (getpagesize() / sizeof(uint64_t));
}

static void *fill(void *arg)
{
	size_t first = (intptr_t)arg;

	pin(filled.cpus[first]);
	for (size_t i = first; i < filled.pages; i += filled.step)
		*filled_page(i) = i;
	return NULL;
}

static int memory(size_t megabytes)
{
	cpu_set_t online = online_cpus();
	pthread_t threads[MAX_CPUS];

	filled.pages = (megabytes << 20) / getpagesize();
	filled.start = mmap(NULL, megabytes << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (filled.start == MAP_FAILED)
		err(1, "mmap");
	for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
		if (CPU_ISSET(cpu, &online))
			filled.cpus[filled.step++] = cpu;
	}
	for (size_t i = 0; i < filled.step; i++) {
		if (pthread_create(&threads[i], NULL, fill, (void *)i))
			errx(1, "no thread");
	}
	for (size_t i = 0; i < filled.step; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < filled.pages; i++) {
		if (*filled_page(i) != i)
			errx(1, "page %zu has 0x%llx", i, (unsigned long long)*filled_page(i));
	}
	return 0;
}

/* Load another kernel, and start it, or have it started if this one panics. */
static int start_kernel(const char *kernel, const char *initrd, char *args, bool on_panic)
{
	int kernel_fd = open(kernel, O_RDONLY), initrd_fd = open(initrd, O_RDONLY);

	if (kernel_fd < 0 || initrd_fd < 0)
		err(1, "%s", kernel_fd < 0 ? kernel : initrd);
	args[strcspn(args, "\n")] = 0;
	if (syscall(SYS_kexec_file_load, kernel_fd, initrd_fd, strlen(args) + 1, args, on_panic ? KEXEC_FILE_ON_CRASH : 0))
		err(1, "kexec_file_load");
	if (on_panic)
		return 0;
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	err(1, "reboot");
}

static int features(void)
{
	uint32_t eax, ebx, ecx, edx;
	int i;

	__cpuid(0x40000001, eax, ebx, ecx, edx);
	for (i = 0; i < 32; i++) {
		if (eax & UINT32_C(1) << i)
			printf("%d\n", i);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "features"))
		return features();
	if (argc == 2 && !strcmp(argv[1], "calls"))
		return calls();
	if (argc == 3 && !strcmp(argv[1], "timers"))
		return timers(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "tlb"))
		return tlb(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "memory"))
		return memory(atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "kexec"))
		return start_kernel(argv[2], argv[3], argv[4], false);
	if (argc == 5 && !strcmp(argv[1], "on-panic"))
		return start_kernel(argv[2], argv[3], argv[4], true);
	errx(2, "usage: guest-tool timers N | tlb N | memory N | calls | features | kexec KERNEL INITRD ARGS | "
	     "on-panic KERNEL INITRD ARGS");
}
