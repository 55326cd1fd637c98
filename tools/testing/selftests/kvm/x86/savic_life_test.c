// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: vCPUs that aren't simply running or halted, and VMs that end while they
 * are busy.
 */
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define NR_VCPUS		4
#define IPI_VECTOR		0x51
#define TIMER_VECTOR		0x61
#define MSI_VECTOR		0x71
/* Not of the I/O APIC. */
#define MSI_GSI			24

#define NR_ROUNDS		50
#define NR_KILLS		5

/* What it takes a vCPU to start if it wrongly does. */
#define START_USECS		200000

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only. */
static u32 nr_ready;

static void send_icr(u64 icr)
{
	savic_wrmsr(APIC_ICR, icr);
}

/* As firmware does with all vCPUs but the first, until the OS starts them. */
static void guest_held(void)
{
	struct ghcb_request hold;

	x2apic_enable();
	do {
		__sync_fetch_and_add(&nr_ready, 1);
		hold = (struct ghcb_request) { .exit_code = SVM_VMGEXIT_AP_HLT_LOOP };
		GUEST_ASSERT_EQ(ghcb_vmgexit(&hold), GHCB_OK);
	} while (!hold.exit_info_2);
	GUEST_ASSERT_EQ(READ_ONCE(nr_ready), 2u);

	savic_enable();
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), IPI_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, IPI_VECTOR), 1u);
	GUEST_DONE();
}

static void send_init_sipi(void)
{
	send_icr(1ull << 32 | APIC_INT_ASSERT | APIC_DM_INIT);
	send_icr(1ull << 32 | APIC_INT_ASSERT | APIC_DM_STARTUP | 0x10);
}

static void guest_starter(void)
{
	savic_enable();
	while (!READ_ONCE(nr_ready))
		cpu_relax();
	GUEST_SYNC(0);

	/* Not a start. */
	send_icr(APIC_DEST_ALLBUT | IPI_VECTOR);
	send_icr(1ull << 32 | IPI_VECTOR);
	send_icr(1ull << 32 | APIC_DM_NMI);
	GUEST_SYNC(1);

	/* That is the emulated APIC's, without a backing page. */
	savic_disable();
	/* KVM takes the first SIPI for the one that starts the vCPU at all. */
	send_init_sipi();
	while (READ_ONCE(nr_ready) < 2)
		cpu_relax();
	GUEST_SYNC(2);
	send_init_sipi();
	GUEST_DONE();
}

/* The vCPU halts in guest mode: there is no exit, so KVM doesn't know. */
static void guest_halts(void)
{
	u32 id;

	savic_enable();
	id = savic_apic_id();
	savic_allow_vector(MSI_VECTOR);
	GUEST_SYNC(0);
	while (savic_nr_irqs(id, IPI_VECTOR) < NR_ROUNDS ||
	       savic_nr_irqs(id, MSI_VECTOR) < NR_ROUNDS ||
	       savic_nr_nmis(1) < NR_ROUNDS) {
		safe_halt();
		cli();
	}
	GUEST_DONE();
}

static void guest_wakes(void)
{
	u32 i;

	savic_enable();
	for (i = 1; i <= NR_ROUNDS; i++) {
		savic_send_ipi(1, IPI_VECTOR);
		while (savic_nr_irqs(1, IPI_VECTOR) < i)
			cpu_relax();

		savic_write(1, SAVIC_NMI_REQ, 1);
		send_icr(1ull << 32 | APIC_DM_NMI);
		while (savic_nr_nmis(1) < i)
			cpu_relax();

		GUEST_SYNC(i);
		while (savic_nr_irqs(1, MSI_VECTOR) < i)
			cpu_relax();
	}
	GUEST_DONE();
}

/* For ever. */
static void guest_busy(u32 id)
{
	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	savic_allow_vector(TIMER_VECTOR);
	__sync_fetch_and_add(&nr_ready, 1);
	while (READ_ONCE(nr_ready) < NR_VCPUS)
		sti_nop_cli();

	savic_wrmsr(APIC_TDCR, 0xb);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | TIMER_VECTOR);
	savic_wrmsr(APIC_TMICT, 1000000);
	for (;;) {
		savic_send_ipi((id + 1) % NR_VCPUS, IPI_VECTOR);
		send_icr(APIC_DEST_ALLBUT | APIC_DM_NMI);
		safe_halt();
		cli();
	}
}

static void guest_simple(void)
{
	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(MSI_VECTOR, 1);
	GUEST_DONE();
}

static struct kvm_vm *create_vm(u32 nr_vcpus, struct kvm_vcpu *vcpus[], u64 disabled_exits)
{
	struct kvm_vm *vm;

	vm = __vm_savic_create(nr_vcpus, guest_simple, vcpus, false, disabled_exits);
	vm_install_exception_handler(vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, TIMER_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, MSI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
	return vm;
}

FIXTURE(savic_life) {
};

FIXTURE_SETUP(savic_life)
{
}

FIXTURE_TEARDOWN(savic_life)
{
}

TEST_F_TIMEOUT(savic_life, ap_reset_hold, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;
	pthread_t thread;

	vm = create_vm(2, vcpus, 0);
	vcpu_arch_set_entry_point(vcpus[0], guest_starter);
	vcpu_arch_set_entry_point(vcpus[1], guest_held);
	vm_sev_launch(vm, snp_default_policy(), NULL);

	pthread_create(&thread, NULL, savic_vcpu_thread, vcpus[1]);
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	savic_wait_until_blocked(vcpus[1]);

	/* If it is started, then it ends with a failed assertion. */
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	usleep(START_USECS);
	EXPECT_EQ(vcpu_get_stat(vcpus[1], blocking), 1);

	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	savic_wait_until_blocked(vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(vcpus[0]));
	pthread_join(thread, NULL);
	kvm_vm_free(vm);
}

TEST_F_TIMEOUT(savic_life, halt_without_exit, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;
	pthread_t thread;

	if (!(kvm_check_cap(KVM_CAP_X86_DISABLE_EXITS) & KVM_X86_DISABLE_EXITS_HLT))
		SKIP(return, "KVM intercepts HLT always");

	vm = create_vm(2, vcpus, KVM_X86_DISABLE_EXITS_HLT);
	vcpu_arch_set_entry_point(vcpus[0], guest_wakes);
	vcpu_arch_set_entry_point(vcpus[1], guest_halts);
	vm_sev_launch(vm, snp_default_policy(), NULL);

	EXPECT_TRUE(savic_vcpu_run(vcpus[1]));
	pthread_create(&thread, NULL, savic_vcpu_thread, vcpus[1]);
	while (savic_vcpu_run(vcpus[0]))
		savic_send_msi(vm, 1, MSI_VECTOR);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu_get_stat(vcpus[1], halt_exits), 0);
	kvm_vm_free(vm);
}

/* In a process of its own, which tells when all vCPUs are busy, and goes on. */
static void __noreturn run_busy_vm(int ready_fd, int irqfd)
{
	struct kvm_irq_routing *routing = kvm_gsi_routing_create();
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t threads[NR_VCPUS];
	struct kvm_vm *vm;
	int i;

	vm = create_vm(NR_VCPUS, vcpus, 0);
	for (i = 0; i < NR_VCPUS; i++) {
		vcpu_arch_set_entry_point(vcpus[i], guest_busy);
		vcpu_args_set(vcpus[i], 1, i);
	}
	vm_sev_launch(vm, snp_default_policy(), NULL);

	routing->nr = 1;
	routing->entries[0] = (struct kvm_irq_routing_entry) {
		.gsi = MSI_GSI,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = APIC_DEFAULT_GPA, .data = MSI_VECTOR },
	};
	kvm_gsi_routing_write(vm, routing);
	kvm_assign_irqfd(vm, MSI_GSI, irqfd);

	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, vcpus[i]);
	while (vcpu_get_stat(vcpus[NR_VCPUS - 1], savic_ipis) < NR_VCPUS)
		usleep(1000);
	TEST_ASSERT(write(ready_fd, "", 1) == 1, "write() failed, errno %d", errno);

	for (i = 0;; i = (i + 1) % NR_VCPUS)
		savic_send_msi(vm, i, MSI_VECTOR);
}

#define DEBUGFS_KVM		"/sys/kernel/debug/kvm"

/* In debugfs, where a VM is until KVM has taken it apart. */
static bool has_vm(pid_t pid)
{
	char pattern[64];
	glob_t found;
	bool has;

	snprintf(pattern, sizeof(pattern), DEBUGFS_KVM "/%d-*", pid);
	has = !glob(pattern, 0, NULL, &found);
	if (has)
		globfree(&found);
	return has;
}

/* KVM has to get rid of it whatever is on its way: the kernel would complain. */
TEST_F_TIMEOUT(savic_life, killed, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	int i, status, irqfd, fds[2];
	u64 one = 1;
	pid_t pid;
	char c;

	for (i = 0; i < NR_KILLS; i++) {
		TEST_ASSERT(!pipe(fds), "pipe() failed, errno %d", errno);
		irqfd = kvm_new_eventfd();
		pid = fork();
		TEST_ASSERT(pid >= 0, "fork() failed, errno %d", errno);
		if (!pid)
			run_busy_vm(fds[1], irqfd);

		TEST_ASSERT(read(fds[0], &c, 1) == 1, "read() failed, errno %d", errno);
		TEST_ASSERT(has_vm(pid) || access(DEBUGFS_KVM, R_OK),
			    "The VM of process %d isn't in " DEBUGFS_KVM, pid);
		usleep(i * 5000);
		kill(pid, SIGKILL);
		/* The device is still there, and goes on. */
		while (!waitpid(pid, &status, WNOHANG))
			TEST_ASSERT(write(irqfd, &one, sizeof(one)) == sizeof(one),
				    "Writing to the irqfd failed, errno %d", errno);
		TEST_ASSERT(WIFSIGNALED(status), "The VM ended by itself, status %#x", status);
		while (has_vm(pid))
			usleep(1000);
		close(irqfd);
		close(fds[0]);
		close(fds[1]);
	}

	/* ASIDs and pages are there again. */
	vm = create_vm(1, &vcpu, 0);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(vm, 0, MSI_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
	kvm_vm_free(vm);
}

SAVIC_TEST_HARNESS_MAIN
