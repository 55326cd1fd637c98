// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what userspace gets from ioctls that make no sense if KVM can't see
 * the APIC.  Each works, or fails as Documentation/virt/kvm/x86/secure-avic.rst says.
 */
#include "apic.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

static void guest_code(void)
{
	GUEST_SYNC(0);
	GUEST_DONE();
}

FIXTURE(savic_api) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_SETUP(savic_api)
{
	self->vm = vm_savic_create(1, guest_code, &self->vcpu);
}

FIXTURE_TEARDOWN(savic_api)
{
	kvm_vm_free(self->vm);
}

#define expect_errno(call, err)						\
({									\
	int __r = (call);						\
									\
	TEST_ASSERT(__r == -1 && errno == (err),			\
		    "%s: %d, errno %d, expected errno %d", #call, __r, errno, err); \
})

static void check_vcpu_ioctls(struct kvm_vcpu *vcpu)
{
	struct kvm_enable_cap synic = { .cap = KVM_CAP_HYPERV_SYNIC };
	struct kvm_interrupt irq = { .irq = 0x41 };
	struct kvm_lapic_state lapic = {};

	expect_errno(__vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic), EINVAL);
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic), EINVAL);
	expect_errno(__vcpu_ioctl(vcpu, KVM_INTERRUPT, &irq), ENXIO);
	if (kvm_has_cap(KVM_CAP_HYPERV_SYNIC))
		expect_errno(__vcpu_ioctl(vcpu, KVM_ENABLE_CAP, &synic), EINVAL);
}

TEST_F(savic_api, vcpu_ioctls)
{
	struct kvm_guest_debug debug = { .control = KVM_GUESTDBG_ENABLE };
	struct kvm_vcpu_events events;

	check_vcpu_ioctls(self->vcpu);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	check_vcpu_ioctls(self->vcpu);
	expect_errno(__vcpu_ioctl(self->vcpu, KVM_SET_GUEST_DEBUG, &debug), EINVAL);

	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	check_vcpu_ioctls(self->vcpu);

	/* An NMI that nobody takes, as the engine is off, stays. */
	vcpu_ioctl(self->vcpu, KVM_NMI, NULL);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);
	EXPECT_EQ(events.nmi.masked, 0);
	EXPECT_EQ(events.interrupt.injected, 0);

	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);

	/* Setting what was read adds nothing, and nothing means nothing. */
	vcpu_events_set(self->vcpu, &events);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);
	events.nmi.pending = 0;
	vcpu_events_set(self->vcpu, &events);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 0);
}

/* Reinjection waits for EOIs that KVM doesn't see. */
TEST_F(savic_api, pit)
{
	struct kvm_pit_config config = {};
	struct kvm_reinject_control on = { .pit_reinject = 1 };
	struct kvm_reinject_control off = { .pit_reinject = 0 };

	vm_ioctl(self->vm, KVM_CREATE_PIT2, &config);
	expect_errno(__vm_ioctl(self->vm, KVM_REINJECT_CONTROL, &on), EINVAL);
	vm_ioctl(self->vm, KVM_REINJECT_CONTROL, &off);
}

TEST(pit_before_init)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_pit_config config = {};
	struct kvm_vm *vm;

	vm = vm_create_barebones_type(KVM_X86_SNP_VM);
	vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
	vm_ioctl(vm, KVM_CREATE_PIT2, &config);
	vm->arch.sev_fd = open_sev_dev_path_or_exit();
	expect_errno(__vm_sev_ioctl(vm, KVM_SEV_INIT2, &init), EINVAL);

	init.vmsa_features = 0;
	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);
	kvm_vm_free(vm);
}

SAVIC_TEST_HARNESS_MAIN
