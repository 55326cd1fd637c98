// SPDX-License-Identifier: GPL-2.0-only
/*
 * vCPUs that userspace adds to an SNP VM that runs already, with Secure AVIC and without.
 * There was no launch for them and nobody sends them an INIT: all that they get, they get
 * by AP Creation.
 */
#include <pthread.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "snp_ap.h"
#include "test_util.h"

#define IPI_VECTOR	0x51
#define MSI_VECTOR	0x71

#define AP_ID		1
#define NR_VMSAS	2

/* Only to end a test that hangs. */
#define TIMEOUT_SECS	60

/* Guest only. */
static bool ap_waits;

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
	u64 icr = (u64)AP_ID << 32 | APIC_INT_ASSERT;

	x2apic_enable();
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(request_ap(SVM_VMGEXIT_AP_CREATE_ON_INIT, 0, guest_ap), GHCB_OK);
	GUEST_SYNC(1);
	savic_wrmsr(APIC_ICR, icr | APIC_DM_INIT);
	savic_wrmsr(APIC_ICR, icr | APIC_DM_STARTUP);
	GUEST_DONE();
}

/* AP Creation starts the vCPU at once, whatever it waits for. */
static void guest_init(void)
{
	u64 icr = (u64)AP_ID << 32 | APIC_INT_ASSERT;

	x2apic_enable();
	GUEST_SYNC(0);
	savic_wrmsr(APIC_ICR, icr | APIC_DM_INIT);
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
	vm_install_exception_handler(vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, MSI_VECTOR, savic_irq_handler);
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
