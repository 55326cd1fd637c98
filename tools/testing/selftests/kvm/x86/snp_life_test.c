// SPDX-License-Identifier: GPL-2.0-only
/*
 * SNP vCPUs that come and go, and VMs that end while they are busy.
 *
 * savic_life: vCPUs with Secure AVIC that aren't simply running or halted.
 *
 * snp_hotplug and savic_hotplug: vCPUs that userspace adds to a VM that runs already, with
 * Secure AVIC and without.  There was no launch for them and nobody sends them an INIT: all
 * that they get, they get by AP Creation.
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
#include "snp_ap.h"
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

/* The vCPU that is held, woken, or added. */
#define AP_ID			1
#define NR_VMSAS		2

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only. */
static u32 nr_ready;
static bool ap_waits;

static void send_to_ap(u64 icr)
{
	savic_wrmsr(APIC_ICR, (u64)AP_ID << 32 | icr);
}

static void send_init(void)
{
	send_to_ap(APIC_INT_ASSERT | APIC_DM_INIT);
}

static void send_sipi(void)
{
	send_to_ap(APIC_INT_ASSERT | APIC_DM_STARTUP | 0x10);
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
	GUEST_ASSERT_EQ(savic_nr_irqs(AP_ID, IPI_VECTOR), 1u);
	GUEST_DONE();
}

static void guest_starter(void)
{
	savic_enable();
	while (!READ_ONCE(nr_ready))
		cpu_relax();
	GUEST_SYNC(0);

	/* Not a start. */
	savic_wrmsr(APIC_ICR, APIC_DEST_ALLBUT | IPI_VECTOR);
	send_to_ap(IPI_VECTOR);
	send_to_ap(APIC_DM_NMI);
	GUEST_SYNC(1);

	/* That is the emulated APIC's, without a backing page. */
	savic_disable();
	/* KVM takes the first SIPI for the one that starts the vCPU at all. */
	send_init();
	send_sipi();
	while (READ_ONCE(nr_ready) < 2)
		cpu_relax();
	GUEST_SYNC(2);
	send_init();
	send_sipi();
	GUEST_DONE();
}

/* The vCPU halts in guest mode: there is no exit, so KVM doesn't know. */
static void guest_halts(void)
{
	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	GUEST_SYNC(0);
	while (savic_nr_irqs(AP_ID, IPI_VECTOR) < NR_ROUNDS ||
	       savic_nr_irqs(AP_ID, MSI_VECTOR) < NR_ROUNDS ||
	       savic_nr_nmis(AP_ID) < NR_ROUNDS) {
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
		savic_send_ipi(AP_ID, IPI_VECTOR);
		while (savic_nr_irqs(AP_ID, IPI_VECTOR) < i)
			cpu_relax();

		savic_write(AP_ID, SAVIC_NMI_REQ, 1);
		send_to_ap(APIC_DM_NMI);
		while (savic_nr_nmis(AP_ID) < i)
			cpu_relax();

		GUEST_SYNC(i);
		while (savic_nr_irqs(AP_ID, MSI_VECTOR) < i)
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
		savic_wrmsr(APIC_ICR, APIC_DEST_ALLBUT | APIC_DM_NMI);
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

static enum ghcb_status request_ap(u32 op, u32 i, void (*entry)(u64))
{
	snp_vmsa_prepare(i, entry, 0);
	return snp_ap_request(op, AP_ID, snp_vmsa_gpa(i), snp_sev_features());
}

static void guest_ap(u64 unused)
{
	GUEST_DONE();
}

static void guest_creator(void)
{
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE, 0, guest_ap), GHCB_OK);
	GUEST_DONE();
}

static void guest_destroyer(void)
{
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(snp_ap_destroy(AP_ID), GHCB_OK);
	GUEST_SYNC(1);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE, 1, guest_ap), GHCB_OK);
	GUEST_DONE();
}

/* As if the vCPU had been there from the start. */
static void guest_init_sipi(void)
{
	x2apic_enable();
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE_ON_INIT, 0, guest_ap), GHCB_OK);
	GUEST_SYNC(1);
	send_init();
	send_sipi();
	GUEST_DONE();
}

/* AP Creation starts the vCPU at once, whatever it waits for. */
static void guest_init(void)
{
	x2apic_enable();
	GUEST_SYNC(0);
	send_init();
	GUEST_SYNC(1);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE, 0, guest_ap), GHCB_OK);
	GUEST_DONE();
}

/* LBR virtualization is always on for an SNP guest: KVM mustn't have to do with this MSR. */
static void guest_lbr_ap(u64 unused)
{
	wrmsr(MSR_IA32_DEBUGCTLMSR, DEBUGCTLMSR_LBR);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_DEBUGCTLMSR), (u64)DEBUGCTLMSR_LBR);
	wrmsr(MSR_IA32_DEBUGCTLMSR, 0);
	GUEST_ASSERT_EQ(rdmsr(MSR_IA32_DEBUGCTLMSR), 0ul);
	GUEST_DONE();
}

static void guest_lbr_creator(void)
{
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE, 0, guest_lbr_ap), GHCB_OK);
	GUEST_DONE();
}

static void guest_savic_ap(u64 unused)
{
	savic_enable();
	savic_allow_vector(MSI_VECTOR);
	WRITE_ONCE(ap_waits, true);
	savic_wait_for_irqs(IPI_VECTOR, 1);
	GUEST_SYNC(0);
	savic_wait_for_irqs(MSI_VECTOR, 1);
	GUEST_DONE();
}

static void guest_savic_creator(void)
{
	savic_enable();
	GUEST_SYNC(0);
	/* It is there, but must not run for that. */
	savic_send_ipi(AP_ID, IPI_VECTOR);
	savic_clear_vector(AP_ID, APIC_IRR, IPI_VECTOR);
	GUEST_SYNC(1);

	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE, 0, guest_savic_ap), GHCB_OK);
	while (!READ_ONCE(ap_waits))
		cpu_relax();
	savic_send_ipi(AP_ID, IPI_VECTOR);
	while (!savic_nr_irqs(AP_ID, IPI_VECTOR))
		cpu_relax();
	GUEST_DONE();
}

static void install_handlers(struct kvm_vm *vm)
{
	vm_install_exception_handler(vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, TIMER_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, MSI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
}

static struct kvm_vm *create_savic_vm(u32 nr_vcpus, struct kvm_vcpu *vcpus[], u64 disabled_exits)
{
	struct kvm_vm *vm;

	vm = __vm_savic_create(nr_vcpus, guest_simple, vcpus, false, disabled_exits);
	install_handlers(vm);
	return vm;
}

FIXTURE(savic_life) {
};

FIXTURE_SETUP(savic_life)
{
	if (!kvm_has_savic())
		SKIP(return, SAVIC_MISSING);
}

FIXTURE_TEARDOWN(savic_life)
{
}

TEST_F_TIMEOUT(savic_life, ap_reset_hold, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;
	pthread_t thread;

	vm = create_savic_vm(2, vcpus, 0);
	vcpu_arch_set_entry_point(vcpus[0], guest_starter);
	vcpu_arch_set_entry_point(vcpus[AP_ID], guest_held);
	vm_sev_launch(vm, snp_default_policy(), NULL);

	pthread_create(&thread, NULL, savic_vcpu_thread, vcpus[AP_ID]);
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	savic_wait_until_blocked(vcpus[AP_ID]);

	/* If it is started, then it ends with a failed assertion. */
	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	usleep(START_USECS);
	EXPECT_EQ(vcpu_get_stat(vcpus[AP_ID], blocking), 1);

	EXPECT_TRUE(savic_vcpu_run(vcpus[0]));
	savic_wait_until_blocked(vcpus[AP_ID]);
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

	vm = create_savic_vm(2, vcpus, KVM_X86_DISABLE_EXITS_HLT);
	vcpu_arch_set_entry_point(vcpus[0], guest_wakes);
	vcpu_arch_set_entry_point(vcpus[AP_ID], guest_halts);
	vm_sev_launch(vm, snp_default_policy(), NULL);

	EXPECT_TRUE(savic_vcpu_run(vcpus[AP_ID]));
	pthread_create(&thread, NULL, savic_vcpu_thread, vcpus[AP_ID]);
	while (savic_vcpu_run(vcpus[0]))
		savic_send_msi(vm, AP_ID, MSI_VECTOR);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu_get_stat(vcpus[AP_ID], halt_exits), 0);
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

	vm = create_savic_vm(NR_VCPUS, vcpus, 0);
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
			savic_signal_eventfd(irqfd);
		TEST_ASSERT(WIFSIGNALED(status), "The VM ended by itself, status %#x", status);
		while (has_vm(pid))
			usleep(1000);
		close(irqfd);
		close(fds[0]);
		close(fds[1]);
	}

	/* ASIDs and pages are there again. */
	vm = create_savic_vm(1, &vcpu, 0);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(vm, 0, MSI_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
	kvm_vm_free(vm);
}

/* Requests that a test's guest makes for the new vCPU. */
#define MAX_REQUESTS	2

/*
 * The first time that a vCPU is run: KVM_RUN sleeps until there is a VMSA, or the guest says that
 * there is none, and then fails with EAGAIN.  It does so again only for another request.
 */
static bool run_new(struct kvm_vcpu *vcpu)
{
	int i, ret;

	for (i = 0; i <= MAX_REQUESTS; i++) {
		ret = _vcpu_run(vcpu);
		if (!ret && i)
			return savic_check_ucall(vcpu);
		TEST_ASSERT(ret == -1 && errno == EAGAIN, "KVM_RUN: %d, errno %d", ret, errno);
	}
	TEST_FAIL("KVM_RUN has failed %d times", i);
}

static void *ap_thread(void *vcpu)
{
	TEST_ASSERT(!run_new(vcpu), "Unexpected GUEST_SYNC()");
	return NULL;
}

static void *ap_thread_to_sync(void *vcpu)
{
	TEST_ASSERT(run_new(vcpu), "Unexpected GUEST_DONE()");
	return NULL;
}

static u32 mp_state(struct kvm_vcpu *vcpu)
{
	struct kvm_mp_state state;

	vcpu_mp_state_get(vcpu, &state);
	return state.mp_state;
}

static struct kvm_vm *create_vm(u64 vmsa_features, struct kvm_vcpu **creator)
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = KVM_X86_SNP_VM,
		.vmsa_features = vmsa_features,
	};
	struct kvm_vm *vm;

	vm = __vm_create(shape, AP_ID + 1, 0);
	*creator = vm_vcpu_add(vm, 0, guest_creator);
	kvm_arch_vm_finalize_vcpus(vm);

	savic_set_pages(vm, vm_alloc_pages(vm, AP_ID + 1), AP_ID + 1);
	vm_install_exception_handler(vm, VC_VECTOR, savic_vc_handler);
	install_handlers(vm);
	snp_alloc_vmsas(vm, NR_VMSAS);
	return vm;
}

FIXTURE(snp_hotplug) {
	struct kvm_vm *vm;
	struct kvm_vcpu *creator;
	struct kvm_vcpu *ap;
};

FIXTURE_VARIANT(snp_hotplug) {
	u64 vmsa_features;
};

FIXTURE_VARIANT_ADD(snp_hotplug, snp) {
};

FIXTURE_VARIANT_ADD(snp_hotplug, savic) {
	.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC,
};

FIXTURE_SETUP(snp_hotplug)
{
	if (variant->vmsa_features && !kvm_has_savic())
		SKIP(return, SAVIC_MISSING);

	self->vm = create_vm(variant->vmsa_features, &self->creator);
}

FIXTURE_TEARDOWN(snp_hotplug)
{
	kvm_vm_free(self->vm);
}

/* For what makes sense with Secure AVIC only. */
FIXTURE(savic_hotplug) {
	struct kvm_vm *vm;
	struct kvm_vcpu *creator;
	struct kvm_vcpu *ap;
};

FIXTURE_SETUP(savic_hotplug)
{
	if (!kvm_has_savic())
		SKIP(return, SAVIC_MISSING);

	self->vm = create_vm(SVM_SEV_FEAT_SECURE_AVIC, &self->creator);
}

FIXTURE_TEARDOWN(savic_hotplug)
{
	kvm_vm_free(self->vm);
}

/* The creator runs to its first GUEST_SYNC(), and gets another vCPU then. */
static struct kvm_vcpu *launch_and_add(struct kvm_vcpu *creator, void *guest_code)
{
	struct kvm_vcpu *ap;

	vcpu_arch_set_entry_point(creator, guest_code);
	vm_sev_launch(creator->vm, snp_default_policy(), NULL);
	TEST_ASSERT(savic_vcpu_run(creator), "Unexpected GUEST_DONE()");

	/* As KVM makes it: other than vm_vcpu_add(), without setting its state. */
	ap = vm_arch_vcpu_recreate(creator->vm, AP_ID);
	TEST_ASSERT_EQ(mp_state(ap), KVM_MP_STATE_UNINITIALIZED);
	return ap;
}

/* KVM doesn't send to a new vCPU before that. */
static void set_x2apic_mode(struct kvm_vcpu *vcpu)
{
	vcpu_set_msr(vcpu, MSR_IA32_APICBASE, MSR_IA32_APICBASE_ENABLE | MSR_IA32_APICBASE_EXTD);
}

/* AP Creation wakes a vCPU that sleeps in KVM_RUN. */
TEST_F_TIMEOUT(snp_hotplug, create, TIMEOUT_SECS)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE };
	struct kvm_regs regs = {};
	pthread_t thread;

	self->ap = launch_and_add(self->creator, guest_creator);
	pthread_create(&thread, NULL, ap_thread, self->ap);
	savic_wait_until_blocked(self->ap);
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	pthread_join(thread, NULL);

	/* Its state is as protected as any other's. */
	EXPECT_EQ(__vcpu_ioctl(self->ap, KVM_SET_REGS, &regs), -1);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_EQ(__vcpu_ioctl(self->ap, KVM_SET_GUEST_DEBUG, &debug), -1);
	EXPECT_EQ(errno, EINVAL);
}

/* AP Creation comes before the vCPU is run at all. */
TEST_F_TIMEOUT(snp_hotplug, create_before_run, TIMEOUT_SECS)
{
	self->ap = launch_and_add(self->creator, guest_creator);
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(run_new(self->ap));
	EXPECT_EQ(mp_state(self->ap), KVM_MP_STATE_RUNNABLE);
}

TEST_F_TIMEOUT(snp_hotplug, destroy, TIMEOUT_SECS)
{
	pthread_t thread;

	self->ap = launch_and_add(self->creator, guest_destroyer);
	pthread_create(&thread, NULL, ap_thread, self->ap);
	savic_wait_until_blocked(self->ap);
	EXPECT_TRUE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(snp_hotplug, create_on_init, TIMEOUT_SECS)
{
	pthread_t thread;

	self->ap = launch_and_add(self->creator, guest_init_sipi);
	set_x2apic_mode(self->ap);
	pthread_create(&thread, NULL, ap_thread, self->ap);
	savic_wait_until_blocked(self->ap);
	EXPECT_TRUE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	pthread_join(thread, NULL);
}

static struct kvm_vcpu *add_and_send_init(struct kvm_vcpu *creator)
{
	struct kvm_vcpu *ap = launch_and_add(creator, guest_init);

	set_x2apic_mode(ap);
	TEST_ASSERT(savic_vcpu_run(creator), "Unexpected GUEST_DONE()");
	return ap;
}

TEST_F_TIMEOUT(snp_hotplug, create_instead_of_sipi, TIMEOUT_SECS)
{
	self->ap = add_and_send_init(self->creator);
	EXPECT_EQ(_vcpu_run(self->ap), -1);
	EXPECT_EQ(errno, EAGAIN);
	TEST_ASSERT_EQ(mp_state(self->ap), KVM_MP_STATE_INIT_RECEIVED);

	EXPECT_FALSE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(savic_vcpu_run(self->ap));
}

/* The vCPU finds both. */
TEST_F_TIMEOUT(snp_hotplug, create_after_init, TIMEOUT_SECS)
{
	self->ap = add_and_send_init(self->creator);
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(run_new(self->ap));
}

TEST_F_TIMEOUT(snp_hotplug, last_branch_records, TIMEOUT_SECS)
{
	self->ap = launch_and_add(self->creator, guest_lbr_creator);
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(run_new(self->ap));
}

/* KVM's page for the initial VMSA of such a vCPU was never made one. */
TEST_F_TIMEOUT(snp_hotplug, run_without_vmsa, TIMEOUT_SECS)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };

	self->ap = launch_and_add(self->creator, guest_creator);
	vcpu_mp_state_set(self->ap, &state);
	vcpu_run(self->ap);
	TEST_ASSERT_KVM_EXIT_REASON(self->ap, KVM_EXIT_FAIL_ENTRY);

	/* No harm done. */
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	EXPECT_FALSE(savic_vcpu_run(self->ap));
}

/* What is sent to a vCPU that has no VMSA is no reason for KVM_RUN to return. */
TEST_F_TIMEOUT(savic_hotplug, interrupts, TIMEOUT_SECS)
{
	pthread_t thread;

	self->ap = launch_and_add(self->creator, guest_savic_creator);
	set_x2apic_mode(self->ap);
	EXPECT_TRUE(savic_vcpu_run(self->creator));
	savic_send_msi(self->vm, AP_ID, MSI_VECTOR);

	pthread_create(&thread, NULL, ap_thread_to_sync, self->ap);
	savic_wait_until_blocked(self->ap);
	EXPECT_FALSE(savic_vcpu_run(self->creator));
	pthread_join(thread, NULL);
	savic_send_msi(self->vm, AP_ID, MSI_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->ap));
}

int main(int argc, char *argv[])
{
	__TEST_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SNP_VM),
		       "KVM doesn't offer SNP VMs");

	return test_harness_run(argc, argv);
}
