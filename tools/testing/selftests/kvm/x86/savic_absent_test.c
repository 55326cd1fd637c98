// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what userspace gets on a host that can't offer it, as the CPU
 * lacks something, or as KVM was told to do without.  VMs that ask for it are
 * refused when they are created, all others are as always.
 */
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

static bool kvm_has_snp(void)
{
	return kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SNP_VM);
}

static void guest_code(void)
{
	GUEST_ASSERT(!(rdmsr(MSR_AMD64_SEV) & MSR_AMD64_SNP_SECURE_AVIC));
	GUEST_DONE();
}

/* The parameter says what came of it, not what was asked for. */
TEST(parameter)
{
	EXPECT_FALSE(get_kvm_amd_param_bool("secure_avic"));
}

TEST(refused)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_vm *vm;

	if (!kvm_has_snp())
		SKIP(return, "No SNP");

	vm = vm_create_barebones_type(KVM_X86_SNP_VM);
	EXPECT_EQ(-1, __vm_sev_ioctl(vm, KVM_SEV_INIT2, &init));
	EXPECT_EQ(EINVAL, errno);

	/* Nothing of it is left: no in-kernel local APIC is needed. */
	init.vmsa_features = 0;
	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);
	EXPECT_LE(0, __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)0));
	kvm_vm_free(vm);
}

TEST(snp_guest)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	if (!kvm_has_snp())
		SKIP(return, "No SNP");
	if (!kvm_get_module_param_bool("kvm", "tdp_mmu"))
		SKIP(return, "SNP guests hang without the TDP MMU, sev_smoke_test as well");

	vm = vm_sev_create_with_one_vcpu(KVM_X86_SNP_VM, guest_code, &vcpu);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	__TEST_REQUIRE(!kvm_has_savic(), "KVM offers Secure AVIC");

	return test_harness_run(argc, argv);
}
