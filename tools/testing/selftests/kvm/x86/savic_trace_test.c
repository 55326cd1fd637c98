// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what KVM's trace events say.
 *
 * Each test causes something, in one thread if it can, and compares all events of
 * interest with what is documented.  They are recorded in an instance of tracefs of
 * its own, and only for the test's process.
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

#define TRACEFS			"/sys/kernel/tracing"
#define EVENTS			"events/kvm_savic"

#define NR_VCPUS		2
#define SENDER			0
#define TARGET			1

#define VECTOR			0x51
#define LEVEL_VECTOR		0x82
#define LINE_VECTOR		0x83
#define STOP_VECTOR		0x61

/* Bits 0x51 and 0x82 of REQUESTED_IRR. */
#define IRR_VECTOR \
	"irr 0000000000000000:0000000000000000:0000000000020000:0000000000000000"
#define IRR_LEVEL_VECTOR \
	"irr 0000000000000000:0000000000000004:0000000000000000:0000000000000000"
#define IRR_NONE \
	"irr 0000000000000000:0000000000000000:0000000000000000:0000000000000000"
#define IRR_BOTH_VECTORS \
	"irr 0000000000000000:0000000000000004:0000000000020000:0000000000000000"

/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))

#define LINE_GSI		20

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

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
	snprintf(t->instance, sizeof(t->instance), TRACEFS "/instances/savic_trace_test.%s", pid);
	TEST_ASSERT(!mkdir(t->instance, 0700), "Making %s failed, errno %d", t->instance, errno);
	trace_write(t, "options/event-fork", "1");
	trace_write(t, "set_event_pid", pid);

	t->vm = vm_savic_create(NR_VCPUS, NULL, t->vcpus);
	vm_install_exception_handler(t->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, LEVEL_VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, STOP_VECTOR, savic_irq_handler);
	vm_install_exception_handler(t->vm, NMI_VECTOR, savic_nmi_handler);
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

static void guest_spins_until_stopped(void)
{
	savic_enable();
	savic_allow_vector(STOP_VECTOR);
	GUEST_SYNC(0);
	sti();
	while (!savic_nr_irqs(0, STOP_VECTOR))
		cpu_relax();
	GUEST_DONE();
}

/* The guest makes no exit.  A second NMI then depends on a timer of KVM's. */
TEST_F_TIMEOUT(savic_trace, second_nmi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;
	pthread_t thread;

	launch(t, guest_spins_until_stopped, NULL);
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
	savic_send_msi(t->vm, 0, 0xf);
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

static void send_ipi(u64 icr)
{
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_ICR), icr), GHCB_OK);
}

static void guest_sends(void)
{
	savic_enable();
	GUEST_SYNC(0);
	send_ipi(APIC_DEST_SELF | VECTOR);
	GUEST_SYNC(0);
	send_ipi((u64)TARGET << 32 | VECTOR);
	GUEST_SYNC(0);
	send_ipi((u64)TARGET << 32 | APIC_DM_NMI);
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

static void guest_spins(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(STOP_VECTOR);
	GUEST_SYNC(0);
	sti_nop();
	while (!savic_nr_irqs(TARGET, STOP_VECTOR))
		cpu_relax();
	GUEST_DONE();
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
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 0), GHCB_OK);
	GUEST_SYNC(0);
	/* Not in TMR, i.e. EOI'd in hardware.  The line stays asserted. */
	savic_wait_for_irqs(LINE_VECTOR, 2);
	GUEST_SYNC(0);
	GUEST_DONE();
}

TEST_F_TIMEOUT(savic_trace, eoi, TIMEOUT_SECS)
{
	struct test_vm *t = &self->t;

	vm_install_exception_handler(t->vm, LINE_VECTOR, savic_irq_handler);
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

static void timer_write(u32 reg, u32 val)
{
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(reg), val), GHCB_OK);
}

static void guest_deadlines(u64 tsc_khz)
{
	u64 deadline;

	savic_enable();
	savic_allow_vector(VECTOR);
	timer_write(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	GUEST_SYNC(0);
	wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + tsc_khz);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_SYNC(0);

	timer_write(APIC_LVTT, APIC_LVT_MASKED | APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
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
	__TEST_REQUIRE(!access(TRACEFS "/" EVENTS, F_OK),
		       "No " TRACEFS "/" EVENTS ": tracefs has to be mounted, by root");
	__TEST_REQUIRE(!access(TRACEFS "/instances", W_OK),
		       "Can't make instances in " TRACEFS);

	return test_harness_run(argc, argv);
}
