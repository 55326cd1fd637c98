// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what userspace gets from ioctls, and the guest from paravirtual features, that
 * make no sense if KVM can't see the APIC.  Each works, or fails, as
 * Documentation/virt/kvm/x86/secure-avic.rst says.
 */
#include <asm/kvm_para.h>
#include <linux/kvm_para.h>
#include <pthread.h>
#include <sys/mman.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "mce.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define VECTOR			0x51
#define DENIED_VECTOR		0x61

#define APIC_LVR_DIRECTED_EOI	BIT(24)
#define MCG_STATUS_MCIP		BIT_ULL(2)

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

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

/* Tests of other VMs. */
FIXTURE(savic_api_vm) {
	struct kvm_vm *vm;
};

FIXTURE_SETUP(savic_api_vm)
{
}

FIXTURE_TEARDOWN(savic_api_vm)
{
	kvm_vm_free(self->vm);
}

static void __expect_errno(int ret, const char *call, int expected)
{
	TEST_ASSERT(ret == -1 && errno == expected, "%s: %d, errno %d, expected errno %d",
		    call, ret, errno, expected);
}

#define expect_errno(call, expected) __expect_errno(call, #call, expected)

/* Those that need an APIC which KVM has, and can see. */
static void check_apic_ioctls(struct kvm_vcpu *vcpu)
{
	struct kvm_enable_cap synic = { .cap = KVM_CAP_HYPERV_SYNIC };
	struct kvm_enable_cap synic2 = { .cap = KVM_CAP_HYPERV_SYNIC2 };
	struct kvm_lapic_state lapic = {};

	expect_errno(__vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic), EINVAL);
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic), EINVAL);
	if (kvm_has_cap(KVM_CAP_HYPERV_SYNIC))
		expect_errno(__vcpu_ioctl(vcpu, KVM_ENABLE_CAP, &synic), EINVAL);
	if (kvm_has_cap(KVM_CAP_HYPERV_SYNIC2))
		expect_errno(__vcpu_ioctl(vcpu, KVM_ENABLE_CAP, &synic2), EINVAL);
}

static void check_vcpu_ioctls(struct kvm_vcpu *vcpu)
{
	struct kvm_interrupt irq = { .irq = 0x41 };
	struct kvm_xen_vcpu_attr xen = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = KVM_XEN_INVALID_GPA,
	};

	check_apic_ioctls(vcpu);
	expect_errno(__vcpu_ioctl(vcpu, KVM_INTERRUPT, &irq), ENXIO);
	/* Also if KVM has nothing for Xen at all. */
	expect_errno(__vcpu_ioctl(vcpu, KVM_XEN_VCPU_SET_ATTR, &xen), EINVAL);
}

TEST_F_TIMEOUT(savic_api, vcpu_ioctls, TIMEOUT_SECS)
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

	/* Setting what was read adds nothing, nothing means nothing, the mask is the guest's. */
	vcpu_events_set(self->vcpu, &events);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 1);
	events.nmi.masked = 1;
	vcpu_events_set(self->vcpu, &events);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.masked, 0);
	events.nmi.pending = 0;
	vcpu_events_set(self->vcpu, &events);
	vcpu_events_get(self->vcpu, &events);
	EXPECT_EQ(events.nmi.pending, 0);
}

static void guest_not_injected(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_SYNC(0);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 0u);

	/* Two real NMIs. */
	GUEST_SYNC(1);
	savic_settle();
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 2u);
	GUEST_DONE();
}

static void expect_no_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events)
{
	vcpu_events_get(vcpu, events);
	TEST_ASSERT_EQ(events->exception.injected, 0);
	TEST_ASSERT_EQ(events->exception.pending, 0);
	TEST_ASSERT_EQ(events->interrupt.injected, 0);
	TEST_ASSERT_EQ(events->nmi.injected, 0);
	TEST_ASSERT_EQ(events->nmi.masked, 0);
}

/* Hardware would ignore what userspace would have KVM inject. */
static void check_injection(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events none, events;
	struct kvm_x86_mce mce = {
		.status = MCI_STATUS_VAL | MCI_STATUS_UC | MCI_STATUS_EN,
		.mcg_status = MCG_STATUS_MCIP,
	};

	expect_no_events(vcpu, &none);

	events = none;
	events.exception.injected = 1;
	events.exception.nr = GP_VECTOR;
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events), EINVAL);

	events = none;
	events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	events.exception.pending = 1;
	events.exception.nr = GP_VECTOR;
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events), EINVAL);

	events = none;
	events.interrupt.injected = 1;
	events.interrupt.nr = VECTOR;
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events), EINVAL);
	events.interrupt.soft = 1;
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events), EINVAL);

	events = none;
	events.nmi.injected = 1;
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_VCPU_EVENTS, &events), EINVAL);

	/* #MC can't be injected.  An error without #MC is fine. */
	expect_errno(__vcpu_ioctl(vcpu, KVM_X86_SET_MCE, &mce), EINVAL);
	mce.status &= ~MCI_STATUS_UC;
	vcpu_ioctl(vcpu, KVM_X86_SET_MCE, &mce);

	expect_no_events(vcpu, &events);
	vcpu_events_set(vcpu, &none);
}

TEST_F_TIMEOUT(savic_api, injected_events, TIMEOUT_SECS)
{
	u64 mcg_cap = MCG_CTL_P | 1;

	vm_enable_cap(self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	vcpu_ioctl(self->vcpu, KVM_X86_SETUP_MCE, &mcg_cap);
	vm_install_exception_handler(self->vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, NMI_VECTOR, savic_nmi_handler);
	vcpu_arch_set_entry_point(self->vcpu, guest_not_injected);
	check_injection(self->vcpu);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	check_injection(self->vcpu);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	check_injection(self->vcpu);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	check_injection(self->vcpu);

	vcpu_ioctl(self->vcpu, KVM_NMI, NULL);
	vcpu_ioctl(self->vcpu, KVM_NMI, NULL);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

static void guest_faults(void)
{
	struct ghcb_request cpuid = {
		.exit_code = SVM_EXIT_CPUID,
		.reg[GHCB_XCR0] = 1,
		.reg[GHCB_CPL] = 3,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_XCR0) | BIT(GHCB_CPL),
	};

	savic_enable();
	/* KVM would have #PFs for the guest at any time, although CPUID doesn't say so. */
	GUEST_ASSERT_EQ(ghcb_wrmsr(MSR_KVM_ASYNC_PF_EN, KVM_ASYNC_PF_ENABLED |
				   KVM_ASYNC_PF_SEND_ALWAYS), GHCB_EXCEPTION);
	GUEST_ASSERT_EQ(ghcb_wrmsr(MSR_KVM_ASYNC_PF_EN, 0), GHCB_OK);

	GUEST_ASSERT_EQ(ghcb_wrmsr(MSR_MISC_FEATURES_ENABLES,
				   MSR_MISC_FEATURES_ENABLES_CPUID_FAULT), GHCB_OK);
	GUEST_ASSERT_EQ(ghcb_vmgexit(&cpuid), GHCB_EXCEPTION);
	GUEST_ASSERT_EQ(cpuid.exit_info_2 & 0xff, GP_VECTOR);

	/* The #GP of this CPUID can't be reported. */
	ghcb_msr_protocol(GHCB_MSR_CPUID_REQ);
	GUEST_FAIL("CPUID works at CPL 3");
}

/* Exceptions that KVM has for the guest, with and without a GHCB. */
TEST_F_TIMEOUT(savic_api, exceptions, TIMEOUT_SECS)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_faults);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	vcpu_run(self->vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpu, KVM_EXIT_SHUTDOWN);
}

static void guest_halted(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_DONE();
}

/* Halted by userspace, and woken by KVM. */
TEST_F_TIMEOUT(savic_api, mp_state, TIMEOUT_SECS)
{
	struct kvm_mp_state mp_state;

	vm_install_exception_handler(self->vm, VECTOR, savic_irq_handler);
	vcpu_arch_set_entry_point(self->vcpu, guest_halted);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	vcpu_mp_state_get(self->vcpu, &mp_state);
	EXPECT_EQ(mp_state.mp_state, KVM_MP_STATE_RUNNABLE);

	mp_state.mp_state = 100;
	expect_errno(__vcpu_ioctl(self->vcpu, KVM_SET_MP_STATE, &mp_state), EINVAL);
	mp_state.mp_state = KVM_MP_STATE_HALTED;
	vcpu_mp_state_set(self->vcpu, &mp_state);
	mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_mp_state_get(self->vcpu, &mp_state);
	EXPECT_EQ(mp_state.mp_state, KVM_MP_STATE_HALTED);

	savic_send_msi(self->vm, 0, VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	vcpu_mp_state_get(self->vcpu, &mp_state);
	EXPECT_EQ(mp_state.mp_state, KVM_MP_STATE_RUNNABLE);
}

/* Real mode: handlers that say by port I/O that they were called, and a guest that halts. */
#define REAL_MODE_VECTOR	0x41
#define REAL_MODE_HANDLER(n)	(0x500 + (n) * 4)
#define REAL_MODE_START		0x800

static void write_real_mode_guest(u8 *page)
{
	static const u8 vectors[] = { NMI_VECTOR, REAL_MODE_VECTOR };
	static const u8 code[] = { 0xfb /* sti */, 0xf4, 0xf4, 0xf4 /* hlt */ };
	int i;

	for (i = 0; i < ARRAY_SIZE(vectors); i++) {
		const u8 handler[] = { 0xe6, vectors[i] /* out */, 0xcf /* iret */ };
		const u16 entry[] = { REAL_MODE_HANDLER(i), 0 };

		memcpy(page + vectors[i] * sizeof(entry), entry, sizeof(entry));
		memcpy(page + REAL_MODE_HANDLER(i), handler, sizeof(handler));
	}
	memcpy(page + REAL_MODE_START, code, sizeof(code));
}

static void expect_halt(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_HLT);
}

static void expect_handler(struct kvm_vcpu *vcpu, u8 vector)
{
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	TEST_ASSERT_EQ(vcpu->run->io.port, vector);
}

/*
 * Other VMs needn't have an APIC at all, which must not be looked at then.  This one runs
 * while there is a VM with Secure AVIC, i.e. while KVM asks each vCPU whether it is of that kind.
 */
TEST_F_TIMEOUT(savic_api, without_apic, TIMEOUT_SECS)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_interrupt irq = { .irq = REAL_MODE_VECTOR };
	struct kvm_msi msi = { .address_lo = APIC_DEFAULT_GPA, .data = VECTOR };
	struct kvm_vcpu *vcpu = __vm_vcpu_add(vm, 0);
	struct kvm_mp_state mp_state = { .mp_state = KVM_MP_STATE_HALTED };
	struct kvm_sregs sregs;
	struct kvm_regs regs = {
		.rip = REAL_MODE_START,
		.rsp = PAGE_SIZE,
		.rflags = X86_EFLAGS_FIXED,
	};
	u8 *page;

	check_apic_ioctls(vcpu);
	vcpu_init_cpuid(vcpu, kvm_get_supported_cpuid());
	check_apic_ioctls(vcpu);
	expect_errno(__vcpu_ioctl(vcpu, KVM_SET_MP_STATE, &mp_state), EINVAL);
	expect_errno(__vm_ioctl(vm, KVM_SIGNAL_MSI, &msi), EINVAL);

	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(page != MAP_FAILED, "mmap() failed, errno %d", errno);
	write_real_mode_guest(page);
	vm_set_user_memory_region(vm, 0, 0, 0, PAGE_SIZE, page);
	vcpu_sregs_get(vcpu, &sregs);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_regs_set(vcpu, &regs);

	/* The interrupt is userspace's, and so is the halt. */
	expect_halt(vcpu);
	vcpu_ioctl(vcpu, KVM_INTERRUPT, &irq);
	expect_handler(vcpu, REAL_MODE_VECTOR);
	expect_halt(vcpu);
	vcpu_ioctl(vcpu, KVM_NMI, NULL);
	expect_handler(vcpu, NMI_VECTOR);
	expect_halt(vcpu);

	kvm_vm_free(vm);
	munmap(page, PAGE_SIZE);
}

/* A vCPU that was refused leaves nothing behind: the next one may have the same ID. */
TEST_F_TIMEOUT(savic_api_vm, apic_after_refusal, TIMEOUT_SECS)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SNP_VM);
	struct kvm_vcpu *vcpu;

	self->vm = vm;
	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);
	expect_errno(__vm_ioctl(vm, KVM_CREATE_VCPU, (void *)0), EINVAL);
	vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
	vcpu = __vm_vcpu_add(vm, 0);
	check_vcpu_ioctls(vcpu);
	vcpu_init_cpuid(vcpu, kvm_get_supported_cpuid());
	check_vcpu_ioctls(vcpu);
}

/* Without a PIC in the kernel, KVM_INTERRUPT depends on the APIC only. */
TEST_F_TIMEOUT(savic_api_vm, split_irqchip, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm = __vm_savic_create(1, guest_code, &vcpu, true, 0);
	struct kvm_irqfd resample = {
		.fd = kvm_new_eventfd(),
		.resamplefd = kvm_new_eventfd(),
		.gsi = 20,
		.flags = KVM_IRQFD_FLAG_RESAMPLE,
	};

	self->vm = vm;
	/* There are no pins to be resampled, EOIs are exits to userspace. */
	expect_errno(__vm_ioctl(vm, KVM_IRQFD, &resample), EINVAL);

	check_vcpu_ioctls(vcpu);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	check_vcpu_ioctls(vcpu);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	check_vcpu_ioctls(vcpu);
	EXPECT_FALSE(savic_vcpu_run(vcpu));
	close(resample.fd);
	close(resample.resamplefd);
}

/* There is nothing by which the state of an APIC could be moved or shared. */
TEST_F_TIMEOUT(savic_api, move_and_copy, TIMEOUT_SECS)
{
	struct kvm_vm *dst = vm_create_barebones_type(KVM_X86_SNP_VM);
	struct kvm_enable_cap cap = { .args = { self->vm->fd } };

	vm_sev_launch(self->vm, snp_default_policy(), NULL);

	cap.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM;
	expect_errno(__vm_ioctl(dst, KVM_ENABLE_CAP, &cap), EINVAL);
	cap.cap = KVM_CAP_VM_COPY_ENC_CONTEXT_FROM;
	expect_errno(__vm_ioctl(dst, KVM_ENABLE_CAP, &cap), EINVAL);
	kvm_vm_free(dst);

	EXPECT_TRUE(savic_vcpu_run(self->vcpu));
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
}

/* CPUID says the same as KVM_X86_SEV_VMSA_FEATURES. */
TEST(savic_cpuid)
{
	EXPECT_EQ(kvm_cpu_has(X86_FEATURE_SECURE_AVIC), kvm_has_savic());
}

static void guest_reads_lvr(void)
{
	x2apic_enable();
	GUEST_ASSERT_EQ(rdmsr(X2APIC_MSR(APIC_LVR)) & APIC_LVR_DIRECTED_EOI, 0ul);
	GUEST_DONE();
}

/* EOIs are always broadcast, as KVM can't see SPIV. */
static void test_directed_eoi(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	const u64 flags[] = {
		KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST,
		KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST | KVM_X2APIC_API_USE_32BIT_IDS,
	};
	struct kvm_enable_cap cap = { .cap = KVM_CAP_X2APIC_API };
	int i;

	TEST_ASSERT(!(vm_check_cap(vm, KVM_CAP_X2APIC_API) &
		      KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST),
		    "KVM_CAP_X2APIC_API offers directed EOIs");
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		cap.args[0] = flags[i];
		expect_errno(__vm_ioctl(vm, KVM_ENABLE_CAP, &cap), EINVAL);
	}
	vm_enable_cap(vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS |
					      KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	TEST_ASSERT(!savic_vcpu_run(vcpu), "Unexpected GUEST_SYNC()");
}

TEST_F_TIMEOUT(savic_api, directed_eoi, TIMEOUT_SECS)
{
	vcpu_arch_set_entry_point(self->vcpu, guest_reads_lvr);
	test_directed_eoi(self->vm, self->vcpu);
}

TEST_F_TIMEOUT(savic_api_vm, directed_eoi_split, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu;

	self->vm = __vm_savic_create(1, guest_reads_lvr, &vcpu, true, 0);
	test_directed_eoi(self->vm, vcpu);
}

/* Whatever userspace wants, the guest isn't told of what needs an APIC that KVM can see. */
TEST_F_TIMEOUT(savic_api, pv_features, TIMEOUT_SECS)
{
	const u32 hidden = BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_SEND_IPI) |
			   BIT(KVM_FEATURE_ASYNC_PF) | BIT(KVM_FEATURE_ASYNC_PF_VMEXIT) |
			   BIT(KVM_FEATURE_ASYNC_PF_INT);
	const u32 kept = BIT(KVM_FEATURE_CLOCKSOURCE2) | BIT(KVM_FEATURE_STEAL_TIME);
	struct kvm_cpuid_entry2 *entry = vcpu_get_cpuid_entry(self->vcpu, KVM_CPUID_FEATURES);

	entry->eax |= hidden | kept;
	vcpu_set_cpuid(self->vcpu);
	vcpu_get_cpuid(self->vcpu);
	entry = vcpu_get_cpuid_entry(self->vcpu, KVM_CPUID_FEATURES);
	EXPECT_EQ(entry->eax & hidden, 0);
	EXPECT_EQ(entry->eax & kept, kept);
}

/* Hardware can't have both (15.36.21, VMRUN), KVM knows nothing of the former. */
TEST_F_TIMEOUT(savic_api_vm, injection_modes, TIMEOUT_SECS)
{
	const u64 modes[] = { BIT_ULL(3) /* Restricted */, BIT_ULL(4) /* Alternate */ };
	struct kvm_sev_init init = {};
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SNP_VM);
	int i;

	self->vm = vm;
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		init.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC | modes[i];
		expect_errno(__vm_sev_ioctl(vm, KVM_SEV_INIT2, &init), EINVAL);
	}

	init.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC;
	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);

	/* It can't be lost afterwards. */
	init.vmsa_features = 0;
	expect_errno(__vm_sev_ioctl(vm, KVM_SEV_INIT2, &init), EPERM);
}

/* vCPUs that exist already can't be changed to Secure AVIC mode. */
TEST_F_TIMEOUT(savic_api_vm, vcpu_before_init, TIMEOUT_SECS)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SNP_VM);

	self->vm = vm;
	vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
	EXPECT_LE(0, __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)0));
	expect_errno(__vm_sev_ioctl(vm, KVM_SEV_INIT2, &init), EINVAL);
}

/* Reinjection waits for EOIs that KVM doesn't see. */
TEST_F_TIMEOUT(savic_api, pit, TIMEOUT_SECS)
{
	struct kvm_pit_config config = {};
	struct kvm_reinject_control on = { .pit_reinject = 1 };
	struct kvm_reinject_control off = { .pit_reinject = 0 };

	vm_ioctl(self->vm, KVM_CREATE_PIT2, &config);
	expect_errno(__vm_ioctl(self->vm, KVM_REINJECT_CONTROL, &on), EINVAL);
	vm_ioctl(self->vm, KVM_REINJECT_CONTROL, &off);
}

TEST_F_TIMEOUT(savic_api_vm, pit_before_init, TIMEOUT_SECS)
{
	struct kvm_sev_init init = { .vmsa_features = SVM_SEV_FEAT_SECURE_AVIC };
	struct kvm_pit_config config = {};
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SNP_VM);

	self->vm = vm;
	vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);
	vm_ioctl(vm, KVM_CREATE_PIT2, &config);
	vm->arch.sev_fd = open_sev_dev_path_or_exit();
	expect_errno(__vm_sev_ioctl(vm, KVM_SEV_INIT2, &init), EINVAL);

	init.vmsa_features = 0;
	vm_sev_ioctl(vm, KVM_SEV_INIT2, &init);
}

/* Guest only. */
static u8 *pv_eoi;
static gpa_t pv_eoi_gpa;

/* KVM would set it if it saw what is in service, and the guest would EOI by clearing it. */
static void pv_eoi_handler(struct ex_regs *regs)
{
	GUEST_ASSERT_EQ(READ_ONCE(*pv_eoi), 0u);
	savic_irq_handler(regs);
}

static void guest_pv_eoi(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_ASSERT_EQ(ghcb_wrmsr(MSR_KVM_PV_EOI_EN, pv_eoi_gpa | KVM_MSR_ENABLED), GHCB_OK);
	GUEST_SYNC(0);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_SYNC(1);
	savic_wait_for_irqs(VECTOR, 2);
	GUEST_DONE();
}

TEST_F_TIMEOUT(savic_api, pv_eoi, TIMEOUT_SECS)
{
	gva_t gva = vm_alloc_shared(self->vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);

	write_guest_global(self->vm, pv_eoi, (u8 *)gva);
	write_guest_global(self->vm, pv_eoi_gpa, addr_gva2gpa(self->vm, gva));
	vm_install_exception_handler(self->vm, VECTOR, pv_eoi_handler);
	vcpu_arch_set_entry_point(self->vcpu, guest_pv_eoi);
	vm_sev_launch(self->vm, snp_default_policy(), NULL);
	while (savic_vcpu_run(self->vcpu))
		savic_send_msi(self->vm, 0, VECTOR);
}

static void guest_pv_ipi(void)
{
	savic_enable();
	GUEST_ASSERT_EQ(kvm_hypercall(KVM_HC_SEND_IPI, BIT(1), 0, 0, DENIED_VECTOR), 1ul);
	GUEST_ASSERT_EQ(kvm_hypercall(KVM_HC_SEND_IPI, BIT(1), 0, 0, VECTOR), 1ul);
	GUEST_DONE();
}

static void guest_pv_ipi_target(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_SYNC(0);
	savic_wait_for_irqs(VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, VECTOR), 1u);
	GUEST_ASSERT_EQ(savic_nr_irqs(1, DENIED_VECTOR), 0u);
	GUEST_DONE();
}

/* Like a device's interrupt: if the target allows it. */
TEST_F_TIMEOUT(savic_api_vm, savic_pv_ipi, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;

	vm = vm_savic_create(2, guest_pv_ipi, vcpus);
	self->vm = vm;
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, DENIED_VECTOR, savic_irq_handler);
	vcpu_arch_set_entry_point(vcpus[1], guest_pv_ipi_target);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpus[1]));
	EXPECT_FALSE(savic_vcpu_run(vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(vcpus[1]));
}

/* Every type of page that has a source needs one. */
TEST_F_TIMEOUT(savic_api, launch_update_without_source, TIMEOUT_SECS)
{
	const u8 types[] = {
		KVM_SEV_SNP_PAGE_TYPE_NORMAL,
		KVM_SEV_SNP_PAGE_TYPE_UNMEASURED,
		KVM_SEV_SNP_PAGE_TYPE_SECRETS,
		KVM_SEV_SNP_PAGE_TYPE_CPUID,
	};
	gva_t gva = vm_alloc_page(self->vm);
	struct kvm_sev_snp_launch_update update = {
		.gfn_start = addr_gva2gpa(self->vm, gva) >> PAGE_SHIFT,
		.len = PAGE_SIZE,
	};
	int i;

	snp_vm_launch_start(self->vm, snp_default_policy());
	vm_mem_set_private(self->vm, update.gfn_start << PAGE_SHIFT, PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		update.type = types[i];
		expect_errno(__vm_sev_ioctl(self->vm, KVM_SEV_SNP_LAUNCH_UPDATE, &update), EINVAL);
	}
	update.type = KVM_SEV_SNP_PAGE_TYPE_ZERO;
	vm_sev_ioctl(self->vm, KVM_SEV_SNP_LAUNCH_UPDATE, &update);
}

/*
 * A level-triggered line of the PIC goes up and down while the vCPU takes interrupts and has them
 * off.  KVM must not warn if it finds the line low after it was high.
 */
#define PIC_GSI			3
#define PIC_BASE		0x30
#define NR_PIC_LINES		8
#define NR_PIC_WINDOWS		20000

static bool pic_works;
static u32 nr_pic_irqs;

static void pic_handler(struct ex_regs *regs)
{
	nr_pic_irqs++;
}

static void guest_pic(void)
{
	u32 i;

	for (i = 0; i < NR_PIC_WINDOWS || (pic_works && !READ_ONCE(nr_pic_irqs)); i++)
		sti_nop_cli();
	GUEST_ASSERT(pic_works || !nr_pic_irqs);
	GUEST_DONE();
}

FIXTURE(pic) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpu;
};

FIXTURE_VARIANT(pic) {
	u32 type;
	u64 vmsa_features;
	u64 policy;
};

FIXTURE_VARIANT_ADD(pic, plain) {
	.type = KVM_X86_DEFAULT_VM,
};

FIXTURE_VARIANT_ADD(pic, sev_es) {
	.type = KVM_X86_SEV_ES_VM,
	.policy = SEV_POLICY_ES,
};

FIXTURE_VARIANT_ADD(pic, snp) {
	.type = KVM_X86_SNP_VM,
};

FIXTURE_VARIANT_ADD(pic, savic) {
	.type = KVM_X86_SNP_VM,
	.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC,
};

FIXTURE_SETUP(pic)
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = variant->type,
		.vmsa_features = variant->vmsa_features,
	};
	struct kvm_irqchip chip = {
		.chip_id = KVM_IRQCHIP_PIC_MASTER,
		.chip.pic = {
			.irq_base = PIC_BASE,
			.auto_eoi = 1,
			.elcr = BIT(PIC_GSI),
			.elcr_mask = 0xf8,
		},
	};
	int i;

	self->vm = __vm_create_with_vcpus(shape, 1, 0, guest_pic, &self->vcpu);
	write_guest_global(self->vm, pic_works, !variant->vmsa_features);
	/* Also the spurious one, if the line was low by the time of the acknowledgment. */
	for (i = 0; i < NR_PIC_LINES; i++)
		vm_install_exception_handler(self->vm, PIC_BASE + i, pic_handler);
	if (variant->type != KVM_X86_DEFAULT_VM)
		vm_sev_launch(self->vm, variant->policy ?: snp_default_policy(), NULL);
	vm_ioctl(self->vm, KVM_SET_IRQCHIP, &chip);
}

FIXTURE_TEARDOWN(pic)
{
	kvm_vm_free(self->vm);
}

static bool pic_done;

static void *toggle_pic_line(void *vm)
{
	while (!READ_ONCE(pic_done)) {
		kvm_irq_line(vm, PIC_GSI, 1);
		kvm_irq_line(vm, PIC_GSI, 0);
	}
	return NULL;
}

TEST_F_TIMEOUT(pic, level, TIMEOUT_SECS)
{
	pthread_t thread;

	pthread_create(&thread, NULL, toggle_pic_line, self->vm);
	EXPECT_FALSE(savic_vcpu_run(self->vcpu));
	WRITE_ONCE(pic_done, true);
	pthread_join(thread, NULL);
}

SAVIC_TEST_HARNESS_MAIN
