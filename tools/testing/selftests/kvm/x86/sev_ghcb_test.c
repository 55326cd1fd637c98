// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an SEV-ES or SNP guest asks of KVM by its GHCB: intercepted instructions
 * by way of #VC, ucalls, and page state changes.  On more than one vCPU, as each
 * has a GHCB of its own.
 */
#include <pthread.h>

#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "sev.h"
#include "test_util.h"

/* With Secure AVIC, KVM can't inject anything. */
#define SVM_SEV_FEAT_SECURE_AVIC	BIT_ULL(16)

#define NR_VCPUS	2
#define TEST_PORT	0x2000
#define TIMEOUT_SECS	120

#define HOST_PATTERN	0x1122334455667788ul
#define GUEST_PATTERN	0x99aabbccddeeff00ul

/* A page of the guest, by a private and by a shared mapping. */
struct test_page {
	gpa_t gpa;
	gva_t private_gva;
	gva_t shared_gva;
};

static struct test_page test_page;

static void guest_insns(void)
{
	u32 eax, ebx, ecx, edx;
	u64 val, cpuid;
	u8 al;

	/* CPUID: the same by #VC and NAE event as by the MSR protocol. */
	__cpuid(0x80000000, 0, &eax, &ebx, &ecx, &edx);
	cpuid = ghcb_msr_protocol(0x80000000ull << 32 | GHCB_MSR_CPUID_REQ);
	GUEST_ASSERT_EQ(cpuid & GHCB_MSR_INFO_MASK, (u64)GHCB_MSR_CPUID_RESP);
	GUEST_ASSERT_EQ(cpuid >> 32, (u64)eax);
	GUEST_ASSERT(this_cpu_has(X86_FEATURE_SEV_ES));

	/* MSRs: intercepted and there, intercepted and not there. */
	val = rdmsr(MSR_IA32_APICBASE);
	GUEST_ASSERT(val & MSR_IA32_APICBASE_ENABLE);
	wrmsr(MSR_IA32_APICBASE, val);
	GUEST_ASSERT_EQ(rdmsr_safe(0xdeadbeef, &val), GP_VECTOR);
	GUEST_ASSERT_EQ(wrmsr_safe(0xdeadbeef, 0), GP_VECTOR);

	/* Port I/O, answered by userspace. */
	asm volatile("outb %%al, %%dx" : : "a" (0x5a), "d" (TEST_PORT));
	asm volatile("inb %%dx, %%al" : "=a" (al) : "d" (TEST_PORT));
	GUEST_ASSERT_EQ(al, 0xa5);

	/* No such hypercall: -KVM_ENOSYS. */
	GUEST_ASSERT_EQ(kvm_hypercall(0xffff, 0, 0, 0, 0), -1000ul);

	GUEST_PRINTF("vCPU %s\n", "done");
	GUEST_DONE();
}

/* Guest only: what KVM has injected, by hardware. */
static u32 nr_injected;
static u64 injected_vector, injected_error_code;

static void record_exception(struct ex_regs *regs)
{
	injected_vector = regs->vector;
	injected_error_code = regs->error_code;
	nr_injected++;
}

/* SW_EXITINFO2 of an exception, and EVENTINJ (APM volume 2, 15.20). */
#define EVENTINJ_VECTOR		GENMASK_ULL(7, 0)
#define EVENTINJ_TYPE		GENMASK_ULL(10, 8)
#define EVENTINJ_TYPE_EXCEPTION	(3ull << 8)
#define EVENTINJ_ERROR_VALID	BIT_ULL(11)
#define EVENTINJ_VALID		BIT_ULL(31)

/*
 * The request ends with this exception.  KVM either injects it when it resumes the guest, after
 * the VMGEXIT, or asks the guest to raise it (GHCB spec, SW_EXITINFO1 = 1).  With Secure AVIC
 * hardware ignores what KVM injects, so only the latter is possible.
 */
static void expect_exception(struct ghcb_request *req, u8 vector, bool has_error_code)
{
	bool savic = rdmsr(MSR_AMD64_SEV) & MSR_AMD64_SNP_SECURE_AVIC;
	u64 exit_code = req->exit_code;
	u32 nr = READ_ONCE(nr_injected);
	enum ghcb_status status;
	u64 event;

	status = ghcb_vmgexit(req);
	if (!savic && READ_ONCE(nr_injected) != nr) {
		GUEST_ASSERT_EQ(status, GHCB_OK);
		GUEST_ASSERT_EQ(nr_injected, nr + 1);
		GUEST_ASSERT_EQ(injected_vector, (u64)vector);
		GUEST_ASSERT_EQ(injected_error_code, 0ul);
		return;
	}

	event = req->exit_info_2;
	__GUEST_ASSERT(status == GHCB_EXCEPTION && nr_injected == nr,
		       "VMGEXIT %#lx: status %u, event %#lx, %u exceptions injected",
		       exit_code, status, event, nr_injected - nr);
	__GUEST_ASSERT(event == (EVENTINJ_VALID | EVENTINJ_TYPE_EXCEPTION | vector |
				 (has_error_code ? EVENTINJ_ERROR_VALID : 0)),
		       "VMGEXIT %#lx: event %#lx, expected vector %u", exit_code, event, vector);
}

#define EXPECT_EXCEPTION(_vector, _has_error_code, ...)			\
do {									\
	struct ghcb_request req = { __VA_ARGS__ };			\
									\
	expect_exception(&req, _vector, _has_error_code);		\
} while (0)

static void guest_bad_msrs(void)
{
	EXPECT_EXCEPTION(GP_VECTOR, true, .exit_code = SVM_EXIT_MSR,
			 .reg[GHCB_RCX] = 0xdeadbeef, .valid = BIT(GHCB_RCX));
	EXPECT_EXCEPTION(GP_VECTOR, true, .exit_code = SVM_EXIT_MSR, .exit_info_1 = 1,
			 .reg[GHCB_RCX] = 0xdeadbeef,
			 .valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX));
	/* There, but not with this value. */
	EXPECT_EXCEPTION(GP_VECTOR, true, .exit_code = SVM_EXIT_MSR, .exit_info_1 = 1,
			 .reg[GHCB_RCX] = MSR_IA32_APICBASE, .reg[GHCB_RAX] = -1u,
			 .reg[GHCB_RDX] = -1u,
			 .valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX));
}

/* All NAE events for which KVM has an exception, see svm_exit_handlers[]. */
static void guest_exceptions(void)
{
	struct ghcb_request dr7 = {
		.exit_code = SVM_EXIT_WRITE_DR7,
		.reg[GHCB_RAX] = -1ull,
		.valid = BIT(GHCB_RAX),
	};
	u64 val;
	u32 nr;

	guest_bad_msrs();
	/* And once more with userspace being asked. */
	GUEST_SYNC(0);
	guest_bad_msrs();

	EXPECT_EXCEPTION(GP_VECTOR, true, .exit_code = SVM_EXIT_RDPMC,
			 .reg[GHCB_RCX] = 0x1234, .valid = BIT(GHCB_RCX));
	EXPECT_EXCEPTION(UD_VECTOR, false, .exit_code = SVM_EXIT_RDTSCP);
	EXPECT_EXCEPTION(UD_VECTOR, false, .exit_code = SVM_EXIT_MONITOR,
			 .valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX));
	EXPECT_EXCEPTION(UD_VECTOR, false, .exit_code = SVM_EXIT_MWAIT,
			 .valid = BIT(GHCB_RAX) | BIT(GHCB_RCX));
	EXPECT_EXCEPTION(GP_VECTOR, true, .exit_code = SVM_EXIT_CPUID, .reg[GHCB_CPL] = 3,
			 .valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_CPL));

	/* Hardware swaps DR7, KVM neither uses nor checks the value. */
	GUEST_ASSERT_EQ(ghcb_vmgexit(&dr7), GHCB_OK);

	/* No exception is left for later. */
	nr = nr_injected;
	GUEST_ASSERT_EQ(ghcb_rdmsr(MSR_IA32_APICBASE, &val), GHCB_OK);
	GUEST_ASSERT_EQ(READ_ONCE(nr_injected), nr);
	GUEST_DONE();
}

/* Private to shared, where the host can write, and back. */
static void guest_page_state(void)
{
	u64 *private = (u64 *)test_page.private_gva;
	u64 *shared = (u64 *)test_page.shared_gva;

	WRITE_ONCE(*private, GUEST_PATTERN);
	snp_set_page_shared(test_page.gpa, test_page.private_gva);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(READ_ONCE(*shared), HOST_PATTERN);
	WRITE_ONCE(*shared, GUEST_PATTERN);
	GUEST_SYNC(1);

	snp_set_page_private(test_page.gpa, test_page.private_gva);
	WRITE_ONCE(*private, GUEST_PATTERN + 1);
	GUEST_SYNC(2);
	GUEST_ASSERT_EQ(READ_ONCE(*private), GUEST_PATTERN + 1);
	GUEST_DONE();
}

/* Returns the stage of a GUEST_SYNC(), or -1 after GUEST_DONE(). */
static int run_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct ucall uc;

	for (;;) {
		vcpu_run(vcpu);

		if (run->exit_reason == KVM_EXIT_HYPERCALL &&
		    run->hypercall.nr == KVM_HC_MAP_GPA_RANGE) {
			u64 *args = (u64 *)run->hypercall.args;

			vm_set_memory_attributes(vcpu->vm, args[0], args[1] * PAGE_SIZE,
						 args[2] & KVM_MAP_GPA_RANGE_ENCRYPTED ?
						 KVM_MEMORY_ATTRIBUTE_PRIVATE : 0);
			run->hypercall.ret = 0;
			continue;
		}

		if (run->exit_reason == KVM_EXIT_X86_RDMSR ||
		    run->exit_reason == KVM_EXIT_X86_WRMSR) {
			run->msr.error = 1;
			continue;
		}

		if (run->exit_reason == KVM_EXIT_IO &&
		    run->io.port == TEST_PORT) {
			u8 *data = (u8 *)run + run->io.data_offset;

			if (run->io.direction == KVM_EXIT_IO_OUT)
				TEST_ASSERT_EQ(*data, 0x5a);
			else
				*data = 0xa5;
			continue;
		}

		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			TEST_ASSERT(!strcmp(uc.buffer, "vCPU done\n"),
				    "Unexpected text from the guest: %s", uc.buffer);
			continue;
		case UCALL_SYNC:
			return uc.args[1];
		case UCALL_DONE:
			return -1;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		default:
			TEST_FAIL("vCPU %u: unexpected exit: %s", vcpu->id,
				  exit_reason_str(run->exit_reason));
		}
	}
}

static void *vcpu_thread(void *vcpu)
{
	TEST_ASSERT_EQ(run_vcpu(vcpu), -1);
	return NULL;
}

static struct kvm_vm *create(u32 type, u64 vmsa_features, void *guest_code,
			     struct kvm_vcpu *vcpus[])
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = type,
		.vmsa_features = vmsa_features,
	};

	return __vm_create_with_vcpus(shape, NR_VCPUS, 0, guest_code, vcpus);
}

FIXTURE(vm_type) {
};

FIXTURE_VARIANT(vm_type) {
	u32 type;
	u64 vmsa_features;
};

FIXTURE_VARIANT_ADD(vm_type, sev_es) {
	.type = KVM_X86_SEV_ES_VM,
};

FIXTURE_VARIANT_ADD(vm_type, snp) {
	.type = KVM_X86_SNP_VM,
};

FIXTURE_VARIANT_ADD(vm_type, savic) {
	.type = KVM_X86_SNP_VM,
	.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC,
};

static u64 supported_vmsa_features(void)
{
	int kvm_fd = open_kvm_dev_path_or_exit();
	u64 features = 0;

	if (!__kvm_has_device_attr(kvm_fd, KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES))
		kvm_device_attr_get(kvm_fd, KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES, &features);
	close(kvm_fd);
	return features;
}

FIXTURE_SETUP(vm_type)
{
	if (variant->vmsa_features & ~supported_vmsa_features())
		SKIP(return, "KVM doesn't offer VMSA features %#lx", variant->vmsa_features);
	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(variant->type)))
		SKIP(return, "KVM doesn't offer VMs of type %u", variant->type);
}

FIXTURE_TEARDOWN(vm_type)
{
}

TEST_F_TIMEOUT(vm_type, insns, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t threads[NR_VCPUS];
	struct kvm_vm *vm;
	int i;

	vm = create(variant->type, variant->vmsa_features, guest_insns, vcpus);
	vm_sev_launch(vm, variant->type == KVM_X86_SNP_VM ? snp_default_policy() :
		      SEV_POLICY_ES, NULL);

	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&threads[i], NULL, vcpu_thread, vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(threads[i], NULL);

	kvm_vm_free(vm);
}

TEST_F_TIMEOUT(vm_type, exceptions, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct kvm_vm *vm;

	vm = create(variant->type, variant->vmsa_features, guest_exceptions, vcpus);
	vm_enable_cap(vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
	vcpu_clear_cpuid_feature(vcpus[0], X86_FEATURE_MWAIT);
	vcpu_set_msr(vcpus[0], MSR_PLATFORM_INFO, MSR_PLATFORM_INFO_CPUID_FAULT);
	vcpu_set_msr(vcpus[0], MSR_MISC_FEATURES_ENABLES, MSR_MISC_FEATURES_ENABLES_CPUID_FAULT);
	vm_install_exception_handler(vm, GP_VECTOR, record_exception);
	vm_install_exception_handler(vm, UD_VECTOR, record_exception);
	vm_sev_launch(vm, variant->type == KVM_X86_SNP_VM ? snp_default_policy() :
		      SEV_POLICY_ES, NULL);
	EXPECT_EQ(0, run_vcpu(vcpus[0]));
	vm_enable_cap(vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN |
						      KVM_MSR_EXIT_REASON_INVAL);
	EXPECT_EQ(-1, run_vcpu(vcpus[0]));
	kvm_vm_free(vm);
}

TEST(page_state)
{
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct test_page page;
	struct kvm_vm *vm;
	u64 *hva;

	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SNP_VM)))
		SKIP(return, "KVM doesn't offer SNP VMs");

	vm = create(KVM_X86_SNP_VM, 0, guest_page_state, vcpus);
	page.private_gva = vm_alloc_page(vm);
	page.gpa = addr_gva2gpa(vm, page.private_gva);
	page.shared_gva = vm_unused_gva_gap(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR);
	virt_pg_map(vm, page.shared_gva, page.gpa);
	*vm_get_pte(vm, page.shared_gva) &= ~vm->arch.c_bit;
	write_guest_global(vm, test_page, page);
	hva = addr_gpa2hva(vm, page.gpa);

	vm_sev_launch(vm, snp_default_policy(), NULL);

	EXPECT_EQ(0, run_vcpu(vcpus[0]));
	EXPECT_NE(GUEST_PATTERN, *hva);
	*hva = HOST_PATTERN;

	EXPECT_EQ(1, run_vcpu(vcpus[0]));
	EXPECT_EQ(GUEST_PATTERN, *hva);

	/* Private again: the host's page and the guest's are two. */
	EXPECT_EQ(2, run_vcpu(vcpus[0]));
	EXPECT_NE(GUEST_PATTERN + 1, *hva);
	EXPECT_EQ(-1, run_vcpu(vcpus[0]));

	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SEV));

	return test_harness_run(argc, argv);
}
