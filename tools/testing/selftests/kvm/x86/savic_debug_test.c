// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what KVM says about it to whoever debugs a guest: per-vCPU statistics, state in
 * debugfs, and trace events.
 *
 * What is counted is done by one thread, i.e. nothing happens at the same time, and all counts
 * are exact.
 *
 * Each test of trace events causes something, in one thread if it can, and compares all events
 * of interest with what is documented.  They are recorded in an instance of tracefs of its own,
 * and only for the test's process.
 */
#include <fnmatch.h>
#include <pthread.h>
#include <sys/stat.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define DEBUGFS_KVM		"/sys/kernel/debug/kvm"
#define TRACEFS			"/sys/kernel/tracing"
#define EVENTS			"events/kvm_savic"

#define NR_VCPUS		2
#define SENDER			0
#define TARGET			1

#define ILLEGAL_VECTOR		0xf
#define OTHER_VECTOR		0x41
#define VECTOR			0x51
#define LEVEL_VECTOR		0x82
#define LINE_VECTOR		0x83
#define STOP_VECTOR		0x61

#define LINE_GSI		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

static struct kvm_vm *create_vm(u32 nr_vcpus, void *guest_code, struct kvm_vcpu *vcpus[],
				bool split_irqchip)
{
	struct kvm_vm *vm = __vm_savic_create(nr_vcpus, guest_code, vcpus, split_irqchip, 0);

	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, LEVEL_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, LINE_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
	return vm;
}

static void guest_counts(void)
{
	u64 error;

	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(LEVEL_VECTOR);
	savic_set_vector(0, APIC_TMR, LEVEL_VECTOR);
	GUEST_SYNC(0);

	/* The host sent two before it ran the vCPU, and an NMI. */
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 1u);
	GUEST_SYNC(0);

	savic_send_ipi(0, VECTOR);
	savic_wait_for_irqs(VECTOR, 2);
	GUEST_SYNC(0);

	/* With a destination, if only itself: hardware doesn't, the #VC handler forwards it. */
	wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_PHYSICAL | APIC_DM_FIXED | VECTOR);
	savic_wait_for_irqs(VECTOR, 3);
	GUEST_SYNC(0);

	/* The host sent a level-triggered one, which the handler ends by VMGEXIT. */
	savic_wait_for_irqs(LEVEL_VECTOR, 1);
	GUEST_SYNC(0);

	savic_wrmsr(APIC_EOI, 0);
	GUEST_ASSERT_EQ(savic_register_page(~0ull, savic_page_gpa(0) + 1, &error),
			GHCB_MALFORMED);
	GUEST_SYNC(0);

	GUEST_DONE();
}

enum savic_stat {
	POSTED, KICKS, DOORBELLS, WAKES, IPIS, LEVEL_EOIS, MISSING_EOIS, REFUSED_VMGEXITS,
	PAGE_LOSSES,
	NR_STATS,
};

static const char * const stat_names[NR_STATS] = {
	[POSTED]		= "savic_posted",
	[KICKS]			= "savic_kicks",
	[DOORBELLS]		= "savic_doorbells",
	[WAKES]			= "savic_wakes",
	[IPIS]			= "savic_ipis",
	[LEVEL_EOIS]		= "savic_level_eois",
	[MISSING_EOIS]		= "savic_missing_eois",
	[REFUSED_VMGEXITS]	= "savic_refused_vmgexits",
	[PAGE_LOSSES]		= "savic_page_losses",
};

struct stats {
	u64 nr[NR_STATS];
};

/* Compare what was counted since *@old, which becomes the new one. */
static void expect_stats(struct kvm_vcpu *vcpu, struct stats *old, struct stats expected)
{
	u64 new;
	int i;

	for (i = 0; i < NR_STATS; i++) {
		kvm_get_stat(&vcpu->stats, stat_names[i], &new, 1);
		TEST_ASSERT(new - old->nr[i] == expected.nr[i],
			    "%s: %lu more, expected %lu", stat_names[i],
			    new - old->nr[i], expected.nr[i]);
		old->nr[i] = new;
	}
}

/* Tests with a VM each. */
FIXTURE(stats) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(stats)
{
}

FIXTURE_TEARDOWN(stats)
{
	kvm_vm_free(self->vm);
}

TEST_F_TIMEOUT(stats, savic_stats, TIMEOUT_SECS)
{
	struct stats stats = {};
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = create_vm(1, guest_counts, &vcpu, false);
	self->vm = vm;
	vm_sev_launch(vm, snp_default_policy(), NULL);
	expect_stats(vcpu, &stats, (struct stats) {});

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {});

	/* Both vectors are one interrupt.  The third one isn't posted. */
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, ILLEGAL_VECTOR);
	vcpu_ioctl(vcpu, KVM_NMI, NULL);
	expect_stats(vcpu, &stats, (struct stats) { .nr[POSTED] = 2, .nr[KICKS] = 2 });
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {});

	/* The sender is on its way to VMRUN, there is nobody to notify. */
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .nr[IPIS] = 1 });

	/* KVM delivers this one, like an MSI. */
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {
		.nr[IPIS] = 1, .nr[POSTED] = 1, .nr[KICKS] = 1 });

	savic_send_msi(vm, 0, MSI_LEVEL | LEVEL_VECTOR);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {
		.nr[POSTED] = 1, .nr[KICKS] = 1, .nr[LEVEL_EOIS] = 1 });

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .nr[REFUSED_VMGEXITS] = 1 });

	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

static FILE *open_debugfs(struct kvm_vm *vm, const char *file)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), DEBUGFS_KVM "/%d-%d/%s", getpid(), vm->fd, file);
	f = fopen(path, "r");
	TEST_ASSERT(f, "Opening %s failed, errno %d", path, errno);
	return f;
}

/* The line of the vCPU's debugfs file that begins with @name, without that. */
static void read_debugfs(struct kvm_vcpu *vcpu, const char *name, char *value, size_t size)
{
	char file[32], line[256];
	FILE *f;

	snprintf(file, sizeof(file), "vcpu%u/savic", vcpu->id);
	f = open_debugfs(vcpu->vm, file);
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':') {
			line[strcspn(line, "\n")] = 0;
			snprintf(value, size, "%s", line + strlen(name) + 2);
			fclose(f);
			return;
		}
	}
	TEST_FAIL("%s has no line \"%s\"", file, name);
}

static void expect_debugfs(struct kvm_vcpu *vcpu, const char *name, const char *expected)
{
	char value[128];

	read_debugfs(vcpu, name, value, sizeof(value));
	TEST_ASSERT(!strcmp(value, expected), "vCPU %u, %s: \"%s\", expected \"%s\"", vcpu->id,
		    name, value, expected);
}

/* The file of the VM that has the sum of its vCPUs' statistics. */
static u64 read_vm_stat(struct kvm_vm *vm, const char *name)
{
	FILE *f = open_debugfs(vm, name);
	u64 value;

	TEST_ASSERT(fscanf(f, "%lu", &value) == 1, "%s isn't a number", name);
	fclose(f);
	return value;
}

FIXTURE(debugfs) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(debugfs)
{
}

FIXTURE_TEARDOWN(debugfs)
{
	kvm_vm_free(self->vm);
}

static void guest_debugfs(void)
{
	x2apic_enable();
	GUEST_SYNC(0);
	GUEST_SYNC(0);
	savic_enable();
	GUEST_SYNC(savic_page_gpa(0));
	GUEST_DONE();
}

/*
 * A vector that hardware doesn't take, as the engine is off, and a level-triggered one on
 * its way to a vCPU that doesn't run.
 */
TEST_F_TIMEOUT(debugfs, savic_debugfs, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	char expected[32];
	struct kvm_vm *vm;
	struct ucall uc;

	vm = create_vm(1, guest_debugfs, &vcpu, false);
	self->vm = vm;
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_debugfs(vcpu, "page", "0xffffffffffffffff");
	expect_debugfs(vcpu, "pending", "");

	savic_send_msi(vm, 0, OTHER_VECTOR);
	expect_debugfs(vcpu, "pending", "65");
	expect_debugfs(vcpu, "requested", "");
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_debugfs(vcpu, "pending", "");
	expect_debugfs(vcpu, "requested", "65");

	vcpu_run(vcpu);
	EXPECT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
	snprintf(expected, sizeof(expected), "%#lx", uc.args[1]);
	expect_debugfs(vcpu, "page", expected);

	savic_send_msi(vm, 0, OTHER_VECTOR);
	savic_send_msi(vm, 0, MSI_LEVEL | VECTOR);
	expect_debugfs(vcpu, "pending", "65,81");
	expect_debugfs(vcpu, "level", "81");
	expect_debugfs(vcpu, "eoi", "");

	EXPECT_FALSE(savic_vcpu_run(vcpu));
	expect_debugfs(vcpu, "pending", "");
	expect_debugfs(vcpu, "requested", "");
}

static void guest_two_levels(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(LEVEL_VECTOR);
	savic_set_vector(0, APIC_TMR, VECTOR);
	savic_set_vector(0, APIC_TMR, LEVEL_VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(LEVEL_VECTOR, 1);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_DONE();
}

/* One EOI is for two vectors, of which userspace is told one by one. */
TEST_F_TIMEOUT(debugfs, eois, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = create_vm(1, guest_two_levels, &vcpu, true);
	self->vm = vm;
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(vm, 0, MSI_LEVEL | VECTOR);
	savic_send_msi(vm, 0, MSI_LEVEL | LEVEL_VECTOR);
	expect_debugfs(vcpu, "level", "81,130");
	expect_debugfs(vcpu, "eoi", "");

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(vcpu->run->eoi.vector, VECTOR);
	expect_debugfs(vcpu, "level", "");
	expect_debugfs(vcpu, "eoi", "130");

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(vcpu->run->eoi.vector, LEVEL_VECTOR);
	expect_debugfs(vcpu, "eoi", "");
	EXPECT_FALSE(savic_vcpu_run(vcpu));
}

static void guest_sender(void)
{
	savic_enable();
	GUEST_SYNC(0);
	savic_send_ipi(1, VECTOR);
	GUEST_DONE();
}

static void guest_target(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(VECTOR, 1);
	savic_send_ipi(0, VECTOR);
	GUEST_DONE();
}

/* A vCPU that doesn't run is to look at its backing page; sums of all vCPUs. */
TEST_F_TIMEOUT(debugfs, two_vcpus, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;

	vm = create_vm(2, guest_sender, vcpus, false);
	self->vm = vm;
	vcpu_arch_set_entry_point(vcpus[1], guest_target);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	EXPECT_TRUE(savic_vcpu_run(vcpus[1]));
	expect_debugfs(vcpus[1], "flags", "0x0");

	EXPECT_FALSE(savic_vcpu_run(vcpus[0]));
	expect_debugfs(vcpus[0], "flags", "0x0");
	/* SAVIC_LOOK_AGAIN */
	expect_debugfs(vcpus[1], "flags", "0x1");
	EXPECT_FALSE(savic_vcpu_run(vcpus[1]));
	expect_debugfs(vcpus[1], "flags", "0x0");

	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 1, VECTOR);
	savic_send_msi(vm, 1, VECTOR);
	EXPECT_EQ(vcpu_get_stat(vcpus[0], savic_posted), 1);
	EXPECT_EQ(vcpu_get_stat(vcpus[1], savic_posted), 2);
	EXPECT_EQ(read_vm_stat(vm, "savic_posted"), 3);
	/* One that is no atomic counter. */
	EXPECT_EQ(read_vm_stat(vm, "savic_ipis"), 2);
}

/* Bits 0x51 and 0x82 of REQUESTED_IRR. */
#define IRR_VECTOR \
	"irr 0000000000000000:0000000000000000:0000000000020000:0000000000000000"
#define IRR_LEVEL_VECTOR \
	"irr 0000000000000000:0000000000000004:0000000000000000:0000000000000000"
#define IRR_NONE \
	"irr 0000000000000000:0000000000000000:0000000000000000:0000000000000000"
#define IRR_BOTH_VECTORS \
	"irr 0000000000000000:0000000000000004:0000000000020000:0000000000000000"

#define MAX_EVENTS		64

struct events {
	int nr;
	char text[MAX_EVENTS][160];
};

struct test_vm {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	char instance[96];
};

FIXTURE(savic_trace) {
	struct test_vm t;
};

/* Write to a file of the test's instance of tracefs.  An empty string clears it. */
static void trace_write(struct test_vm *t, const char *file, const char *value)
{
	char path[192];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", t->instance, file);
	f = fopen(path, "w");
	TEST_ASSERT(f, "Opening %s failed, errno %d", path, errno);
	fputs(value, f);
	TEST_ASSERT(!fclose(f), "Writing \"%s\" to %s failed, errno %d", value, path, errno);
}

/* Record only these events of ours, from now on.  The last one is NULL. */
static void trace_only(struct test_vm *t, const char * const *events)
{
	char file[64];

	trace_write(t, EVENTS "/enable", "0");
	for (; *events; events++) {
		snprintf(file, sizeof(file), EVENTS "/kvm_savic_%s/enable", *events);
		trace_write(t, file, "1");
	}
	trace_write(t, "trace", "");
}

#define trace_only(t, ...) trace_only(t, (const char * const []) { __VA_ARGS__, NULL })

/* What was recorded since trace_only(), each as "event: fields", without "kvm_(savic_)". */
static void trace_read(struct test_vm *t, struct events *events)
{
	static const char ours[] = "savic_", start[] = ": kvm_", timer[] = ": hrtimer_start: ";
	char path[192], line[512], *event;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", t->instance);
	f = fopen(path, "r");
	TEST_ASSERT(f, "Opening %s failed, errno %d", path, errno);

	events->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#')
			continue;
		event = strstr(line, start);
		if (!event) {
			event = strstr(line, timer);
			if (!event || !strstr(event, " function=savic_"))
				continue;
			event += strlen(": ");
		} else {
			event += strlen(start);
		}
		TEST_ASSERT(events->nr < MAX_EVENTS, "More events than expected");
		event[strcspn(event, "\n")] = 0;
		if (!strncmp(event, ours, strlen(ours)))
			event += strlen(ours);
		snprintf(events->text[events->nr++], sizeof(events->text[0]), "%s", event);
	}
	fclose(f);
}

/* These, and only these, were recorded since then.  Patterns are fnmatch()'s, the last is NULL. */
static void trace_expect(struct test_vm *t, const char * const *patterns)
{
	struct events e;
	int i = 0, n;

	trace_read(t, &e);
	trace_write(t, "trace", "");
	while (i < e.nr && patterns[i] && !fnmatch(patterns[i], e.text[i], 0))
		i++;
	if (i == e.nr && !patterns[i])
		return;

	for (n = 0; n < e.nr; n++)
		printf("# event %d: %s\n", n, e.text[n]);
	TEST_FAIL("Event %d is \"%s\", expected \"%s\"", i, i < e.nr ? e.text[i] : "missing",
		  patterns[i] ?: "none");
}

#define trace_expect(t, ...) trace_expect(t, (const char * const []) { __VA_ARGS__, NULL })

static int trace_count(struct test_vm *t, const char *pattern)
{
	struct events e;
	int i, nr = 0;

	trace_read(t, &e);
	for (i = 0; i < e.nr; i++)
		nr += !fnmatch(pattern, e.text[i], 0);
	return nr;
}

FIXTURE_SETUP(savic_trace)
{
	struct test_vm *t = &self->t;
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	snprintf(t->instance, sizeof(t->instance), TRACEFS "/instances/savic_debug_test.%s", pid);
	TEST_ASSERT(!mkdir(t->instance, 0700), "Making %s failed, errno %d", t->instance, errno);
	trace_write(t, "options/event-fork", "1");
	trace_write(t, "set_event_pid", pid);

	t->vm = create_vm(NR_VCPUS, NULL, t->vcpus, false);
}

/* The parent's, as a test that fails ends its process. */
FIXTURE_TEARDOWN_PARENT(savic_trace)
{
	if (self->t.instance[0] && rmdir(self->t.instance))
		TH_LOG("Removing %s failed, errno %d", self->t.instance, errno);
}

static void launch(struct test_vm *t, void *sender, void *target)
{
	vcpu_arch_set_entry_point(t->vcpus[SENDER], sender);
	vcpu_arch_set_entry_point(t->vcpus[TARGET], target);
	vm_sev_launch(t->vm, snp_default_policy(), NULL);
}

static void finish(struct test_vm *t, struct kvm_vcpu *vcpu)
{
	TEST_ASSERT(!savic_vcpu_run(vcpu), "Unexpected GUEST_SYNC()");
	kvm_vm_free(t->vm);
}

static void guest_spins(void)
{
	u32 id;

	savic_enable();
	id = savic_apic_id();
	savic_allow_vector(VECTOR);
	savic_allow_vector(STOP_VECTOR);
	GUEST_SYNC(0);
	sti_nop();
	while (!savic_nr_irqs(id, STOP_VECTOR))
		cpu_relax();
	GUEST_DONE();
}

/* The guest makes no exit.  A second NMI then depends on a timer of KVM's. */
TEST_F_TIMEOUT(savic_trace, second_nmi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;

	launch(t, guest_spins, NULL);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_only(t, "request");
	trace_write(t, "events/timer/hrtimer_start/enable", "1");
	vcpu_ioctl(t->vcpus[0], KVM_NMI, NULL);
	vcpu_ioctl(t->vcpus[0], KVM_NMI, NULL);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpus[0]);
	while (trace_count(t, "request: *nmi") < 2)
		usleep(100);
	trace_write(t, "events/timer/hrtimer_start/enable", "0");
	trace_expect(t, "request: vcpu 0 " IRR_NONE " nmi", "hrtimer_start: *function=savic_*",
		     "request: vcpu 0 " IRR_NONE " nmi");
	savic_send_msi(t->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
	kvm_vm_free(t->vm);
}

static void guest_posted(void)
{
	GUEST_SYNC(0);
	/* Through KVM and VMRUN, with the engine off. */
	GUEST_SYNC(0);
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(LEVEL_VECTOR);
	savic_settle();
	GUEST_SYNC(0);
	savic_settle();
	GUEST_SYNC(0);
	GUEST_DONE();
}

/* From the MSI to VMRUN, with the engine off and on. */
TEST_F_TIMEOUT(savic_trace, posted, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_posted, NULL);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_only(t, "post", "notify", "request");

	savic_send_msi(t->vm, 0, VECTOR);
	trace_expect(t, "post: vcpu 0 vector 81 edge mode 0", "notify: vcpu 0 kick cpu [0-9]*");
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "request: vcpu 0 " IRR_VECTOR);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, NULL);

	savic_send_msi(t->vm, 0, VECTOR);
	savic_send_msi(t->vm, 0, MSI_LEVEL | LEVEL_VECTOR);
	trace_expect(t, "post: vcpu 0 vector 81 edge mode 0", "notify: vcpu 0 kick cpu [0-9]*",
		     "post: vcpu 0 vector 130 level mode 0", "notify: vcpu 0 kick cpu [0-9]*");
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "request: vcpu 0 " IRR_BOTH_VECTORS);

	/* One that no APIC delivers is dropped, which is an event, too. */
	savic_send_msi(t->vm, 0, ILLEGAL_VECTOR);
	trace_expect(t, "post: vcpu 0 vector 15 edge mode 0");
	finish(t, t->vcpus[0]);
}

static void guest_discards(void)
{
	gpa_t gpa;

	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, savic_page_gpa(0), NULL),
			GHCB_OK);
	GUEST_SYNC(0);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	GUEST_SYNC(0);
	GUEST_SYNC(0);
	GUEST_DONE();
}

/* What is discarded before hardware takes it isn't requested with what comes later. */
TEST_F_TIMEOUT(savic_trace, discarded, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_discards, NULL);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_only(t, "request");

	savic_send_msi(t->vm, 0, VECTOR);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "request: vcpu 0 " IRR_VECTOR);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	savic_send_msi(t->vm, 0, LEVEL_VECTOR);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "request: vcpu 0 " IRR_LEVEL_VECTOR);
	finish(t, t->vcpus[0]);
}

static void guest_sends(void)
{
	savic_enable();
	GUEST_SYNC(0);
	savic_wrmsr(APIC_ICR, APIC_DEST_SELF | VECTOR);
	GUEST_SYNC(0);
	savic_wrmsr(APIC_ICR, (u64)TARGET << 32 | VECTOR);
	GUEST_SYNC(0);
	savic_wrmsr(APIC_ICR, (u64)TARGET << 32 | APIC_DM_NMI);
	GUEST_SYNC(0);
	/* Hardware doesn't do this one, the #VC handler forwards it. */
	wrmsr(X2APIC_MSR(APIC_ICR), (u64)TARGET << 32 | VECTOR);
	GUEST_SYNC(0);
	GUEST_DONE();
}

/* The target doesn't run, and isn't in KVM_RUN. */
TEST_F_TIMEOUT(savic_trace, ipi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_sends, NULL);
	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	trace_only(t, "ipi", "notify", "post");

	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	trace_expect(t, "ipi: vcpu 0 icr 0x0000000000040051", "notify: vcpu 0 none cpu [0-9]*");
	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	trace_expect(t, "ipi: vcpu 0 icr 0x0000000100000051", "notify: vcpu 1 wake cpu *");
	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	trace_expect(t, "ipi: vcpu 0 icr 0x0000000100000400", "notify: vcpu 1 kick cpu *");
	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	trace_expect(t, "ipi: vcpu 0 icr 0x0000000100000051 forwarded",
		     "post: vcpu 1 vector 81 edge mode 0", "notify: vcpu 1 kick cpu *");
	finish(t, t->vcpus[SENDER]);
}

/* Until one of them, and of the host's MSIs, has found the target in guest mode. */
static void guest_sends_often(void)
{
	u32 i;

	savic_enable();
	for (i = 1; ; i++) {
		GUEST_SYNC(i);
		savic_send_ipi(TARGET, VECTOR);
		while (savic_nr_irqs(TARGET, VECTOR) < i)
			cpu_relax();
	}
}

static bool trace_has(struct test_vm *t, const char *pattern)
{
	int nr = trace_count(t, pattern);

	trace_write(t, "trace", "");
	return nr;
}

/* How a target that runs is notified, and that vCPU's mode (IN_GUEST_MODE). */
TEST_F_TIMEOUT(savic_trace, running, TIMEOUT_SECS)
{
	bool doorbell = kvm_get_module_param_bool("kvm_amd", "savic_doorbell");
	struct test_vm *t = &self->t;
	pthread_t thread;

	launch(t, guest_sends_often, guest_spins);
	savic_vcpu_run_to_sync(t->vcpus[TARGET]);
	savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	pthread_create(&thread, NULL, savic_vcpu_thread, t->vcpus[TARGET]);

	trace_only(t, "notify");
	do {
		savic_vcpu_run_to_sync(t->vcpus[SENDER]);
	} while (!trace_has(t, doorbell ? "notify: vcpu 1 doorbell cpu [0-9]*" :
					  "notify: vcpu 1 kick cpu [0-9]*"));

	/* One that isn't allowed, the sender counts the other's interrupts. */
	trace_only(t, "post");
	do {
		savic_send_msi(t->vm, TARGET, LEVEL_VECTOR);
	} while (!trace_has(t, "post: vcpu 1 vector 130 edge mode 1"));

	savic_send_msi(t->vm, TARGET, STOP_VECTOR);
	pthread_join(thread, NULL);
	kvm_vm_free(t->vm);
}

static void guest_eois(void)
{
	savic_enable();
	savic_allow_vector(LEVEL_VECTOR);
	savic_allow_vector(LINE_VECTOR);
	savic_set_vector(0, APIC_TMR, LEVEL_VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI), IOAPIC_LEVEL | LINE_VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(LEVEL_VECTOR, 1);
	GUEST_SYNC(0);
	savic_wrmsr(APIC_EOI, 0);
	GUEST_SYNC(0);
	/* Not in TMR, i.e. EOI'd in hardware.  The line stays asserted. */
	savic_wait_for_irqs(LINE_VECTOR, 2);
	GUEST_SYNC(0);
	GUEST_DONE();
}

TEST_F_TIMEOUT(savic_trace, eoi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_eois, NULL);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_only(t, "eoi");

	savic_send_msi(t->vm, 0, MSI_LEVEL | LEVEL_VECTOR);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "eoi: vcpu 0 vector 130");
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "eoi: vcpu 0 vector -1");

	kvm_irq_line(t->vm, LINE_GSI, 1);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "eoi: vcpu 0 vector 131 missing");
	finish(t, t->vcpus[0]);
}

static void guest_nmi(void)
{
	savic_enable();
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 1u);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_DONE();
}

TEST_F_TIMEOUT(savic_trace, nmi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	launch(t, guest_nmi, NULL);
	trace_only(t, "request");
	savic_vcpu_run_to_sync(t->vcpus[0]);

	vcpu_ioctl(t->vcpus[0], KVM_NMI, NULL);
	savic_vcpu_run_to_sync(t->vcpus[0]);
	trace_expect(t, "request: vcpu 0 " IRR_NONE " nmi");
	finish(t, t->vcpus[0]);
}

static void guest_deadlines(u64 tsc_khz)
{
	u64 deadline;

	savic_enable();
	savic_allow_vector(VECTOR);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	GUEST_SYNC(0);
	wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + tsc_khz);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_SYNC(0);

	savic_wrmsr(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	deadline = rdtsc() + tsc_khz;
	wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
	while (rdtsc() < deadline)
		cpu_relax();
	GUEST_SYNC(0);
	savic_settle();
	GUEST_SYNC(0);
	GUEST_DONE();
}

/*
 * KVM's timer fires before the deadline, and KVM then waits for that.  It must not while the
 * timer is masked, as it would do so in vain.
 */
TEST_F_TIMEOUT(savic_trace, timer_advance, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct kvm_vcpu *vcpu = t->vcpus[0];

	vcpu_args_set(vcpu, 1, (u64)__vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL));
	launch(t, guest_deadlines, NULL);
	savic_vcpu_run_to_sync(vcpu);
	trace_write(t, "events/kvm/kvm_wait_lapic_expire/enable", "1");
	savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, "wait_lapic_expire: vcpu 0: delta *");
	savic_vcpu_run_to_sync(vcpu);
	/* By now it has expired for KVM, too.  If not, then it is still masked when it does. */
	usleep(25000);
	savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, NULL);
	finish(t, vcpu);
}

static void guest_pages(void)
{
	gpa_t gpa;

	GUEST_SYNC(savic_page_gpa(0));
	savic_enable();
	GUEST_SYNC(0);
	savic_disable();
	GUEST_SYNC(savic_page_gpa(TARGET));
	GUEST_ASSERT_EQ(savic_register_page(TARGET, savic_page_gpa(TARGET), NULL), GHCB_OK);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(savic_unregister_page(TARGET, &gpa), GHCB_OK);
	GUEST_SYNC(0);
	GUEST_DONE();
}

/* Format an expected event. */
#define event(...)						\
({								\
	static char text[128];					\
								\
	snprintf(text, sizeof(text), __VA_ARGS__);		\
	text;							\
})

TEST_F_TIMEOUT(savic_trace, page, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	struct kvm_vcpu *vcpu = t->vcpus[0];
	gpa_t gpa, next;

	launch(t, guest_pages, NULL);
	gpa = savic_vcpu_run_to_sync(vcpu);
	trace_only(t, "register");
	savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, event("register: vcpu 0 register gpa %#lx for vcpu 0", gpa));
	next = savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, event("register: vcpu 0 unregister gpa %#lx for vcpu 0", gpa));
	savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, event("register: vcpu 0 register gpa %#lx for vcpu 1", next));
	savic_vcpu_run_to_sync(vcpu);
	trace_expect(t, event("register: vcpu 0 unregister gpa %#lx for vcpu 1", next));
	finish(t, vcpu);
}

int main(int argc, char *argv[])
{
	__TEST_REQUIRE(kvm_has_savic(), SAVIC_MISSING);
	__TEST_REQUIRE(!access(DEBUGFS_KVM, R_OK), DEBUGFS_KVM " isn't readable");
	__TEST_REQUIRE(!access(TRACEFS "/" EVENTS, F_OK),
		       "No " TRACEFS "/" EVENTS ": tracefs has to be mounted, by root");
	__TEST_REQUIRE(!access(TRACEFS "/instances", W_OK),
		       "Can't make instances in " TRACEFS);

	return test_harness_run(argc, argv);
}
