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
#define ILLEGAL_VECTOR		0xf

/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))

static void guest_code(void)
{
	u64 error;

	savic_enable();
	savic_allow_vector(VECTOR);
	GUEST_SYNC(0);

	/* The host sent two before it ran the vCPU, and an NMI. */
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_ASSERT_EQ(savic_nr_nmis(0), 1u);
	GUEST_SYNC(0);

	savic_send_ipi(0, VECTOR);
	savic_wait_for_irqs(VECTOR, 2);
	GUEST_SYNC(0);

	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 0), GHCB_OK);
	GUEST_ASSERT_EQ(savic_register_page(~0ull, savic_page_gpa(0) + 1, &error),
			GHCB_MALFORMED);
	GUEST_SYNC(0);

	GUEST_DONE();
}

enum savic_stat {
	POSTED, ILLEGAL_VECTORS, KICKS, DOORBELLS, WAKES, IRR_REQUESTS, NMIS, IPIS,
	FORWARDED_IPIS, LEVEL_EOIS, MISSING_EOIS, SPURIOUS_EOIS, REFUSED_VMGEXITS,
	PAGE_REGISTRATIONS, PAGE_LOSSES,
	NR_STATS,
};

static const char * const stat_names[NR_STATS] = {
	[POSTED]		= "savic_posted",
	[ILLEGAL_VECTORS]	= "savic_illegal_vectors",
	[KICKS]			= "savic_kicks",
	[DOORBELLS]		= "savic_doorbells",
	[WAKES]			= "savic_wakes",
	[IRR_REQUESTS]		= "savic_irr_requests",
	[NMIS]			= "savic_nmis",
	[IPIS]			= "savic_ipis",
	[FORWARDED_IPIS]	= "savic_forwarded_ipis",
	[LEVEL_EOIS]		= "savic_level_eois",
	[MISSING_EOIS]		= "savic_missing_eois",
	[SPURIOUS_EOIS]		= "savic_spurious_eois",
	[REFUSED_VMGEXITS]	= "savic_refused_vmgexits",
	[PAGE_REGISTRATIONS]	= "savic_page_registrations",
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

TEST(savic_stats)
{
	struct stats stats = {};
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = vm_savic_create(1, guest_code, &vcpu);
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	expect_stats(vcpu, &stats, (struct stats) {});

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	EXPECT_GE(vcpu_get_stat(vcpu, savic_page_loads), 1ull);
	expect_stats(vcpu, &stats, (struct stats) { .nr[PAGE_REGISTRATIONS] = 1 });

	/* Both vectors are one interrupt, and take one VMRUN. */
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, ILLEGAL_VECTOR);
	vcpu_ioctl(vcpu, KVM_NMI, NULL);
	expect_stats(vcpu, &stats, (struct stats) {
		.nr[POSTED] = 2, .nr[KICKS] = 2, .nr[ILLEGAL_VECTORS] = 1 });
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .nr[IRR_REQUESTS] = 1, .nr[NMIS] = 1 });

	/* The sender is on its way to VMRUN, there is nobody to notify. */
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .nr[IPIS] = 1 });

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {
		.nr[SPURIOUS_EOIS] = 1, .nr[REFUSED_VMGEXITS] = 1 });

	EXPECT_FALSE(savic_vcpu_run(vcpu));
	kvm_vm_free(vm);
}

#define DEBUGFS_KVM		"/sys/kernel/debug/kvm"

/* The line of the vCPU's debugfs file that begins with @name, without that. */
static void read_debugfs(struct kvm_vcpu *vcpu, const char *name, char *value, size_t size)
{
	char path[128], line[256];
	FILE *f;

	snprintf(path, sizeof(path), DEBUGFS_KVM "/%d-%d/vcpu%u/savic", getpid(), vcpu->vm->fd,
		 vcpu->id);
	f = fopen(path, "r");
	TEST_ASSERT(f, "Opening %s failed, errno %d", path, errno);
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':') {
			line[strcspn(line, "\n")] = 0;
			snprintf(value, size, "%s", line + strlen(name) + 2);
			fclose(f);
			return;
		}
	}
	TEST_FAIL("%s has no line \"%s\"", path, name);
}

static void guest_debugfs(void)
{
	GUEST_SYNC(0);
	savic_enable();
	GUEST_SYNC(savic_page_gpa(0));
	GUEST_DONE();
}

/* A level-triggered vector on its way to a vCPU that doesn't run. */
TEST(savic_debugfs)
{
	char value[128], expected[32];
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;

	if (access(DEBUGFS_KVM, R_OK))
		SKIP(return, DEBUGFS_KVM " isn't readable");

	vm = vm_savic_create(1, guest_debugfs, &vcpu);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	read_debugfs(vcpu, "page", value, sizeof(value));
	EXPECT_STREQ(value, "0xffffffffffffffff");
	read_debugfs(vcpu, "pending", value, sizeof(value));
	EXPECT_STREQ(value, "");

	vcpu_run(vcpu);
	EXPECT_EQ(get_ucall(vcpu, &uc), UCALL_SYNC);
	snprintf(expected, sizeof(expected), "%#lx", uc.args[1]);
	read_debugfs(vcpu, "page", value, sizeof(value));
	EXPECT_STREQ(value, expected);

	savic_send_msi(vm, 0, OTHER_VECTOR);
	savic_send_msi(vm, 0, MSI_LEVEL | VECTOR);
	read_debugfs(vcpu, "pending", value, sizeof(value));
	EXPECT_STREQ(value, "65,81");
	read_debugfs(vcpu, "level", value, sizeof(value));
	EXPECT_STREQ(value, "81");

	EXPECT_FALSE(savic_vcpu_run(vcpu));
	read_debugfs(vcpu, "pending", value, sizeof(value));
	EXPECT_STREQ(value, "");
	kvm_vm_free(vm);
}

SAVIC_TEST_HARNESS_MAIN
