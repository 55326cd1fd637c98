// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: per-vCPU statistics, and state in debugfs.  What is counted is done by one
 * thread, i.e. nothing happens at the same time, and all counts are exact.
 */
#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define VECTOR			0x51
#define OTHER_VECTOR		0x41
#define LEVEL_VECTOR		0x61
#define ILLEGAL_VECTOR		0xf

/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

static void guest_code(void)
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

	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 0), GHCB_OK);
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

	vm = vm_savic_create(1, guest_code, &vcpu);
	self->vm = vm;
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, LEVEL_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
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

#define DEBUGFS_KVM		"/sys/kernel/debug/kvm"

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
	if (access(DEBUGFS_KVM, R_OK))
		SKIP(return, DEBUGFS_KVM " isn't readable");
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

	vm = vm_savic_create(1, guest_debugfs, &vcpu);
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

	vm = __vm_savic_create(1, guest_two_levels, &vcpu, true, 0);
	self->vm = vm;
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, LEVEL_VECTOR, savic_irq_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	savic_send_msi(vm, 0, MSI_LEVEL | VECTOR);
	savic_send_msi(vm, 0, MSI_LEVEL | LEVEL_VECTOR);
	expect_debugfs(vcpu, "level", "81,97");
	expect_debugfs(vcpu, "eoi", "");

	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(vcpu->run->eoi.vector, VECTOR);
	expect_debugfs(vcpu, "level", "");
	expect_debugfs(vcpu, "eoi", "97");

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

	vm = vm_savic_create(2, guest_sender, vcpus);
	self->vm = vm;
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
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

SAVIC_TEST_HARNESS_MAIN
