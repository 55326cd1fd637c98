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

#define FOR_EACH_STAT(x)							\
	x(posted) x(illegal_vectors) x(kicks) x(doorbells) x(wakes)	\
	x(irr_requests) x(nmis) x(ipis) x(forwarded_ipis)		\
	x(level_eois) x(missing_eois) x(spurious_eois)			\
	x(refused_vmgexits) x(page_registrations) x(page_losses)

struct stats {
#define FIELD(name) u64 name;
	FOR_EACH_STAT(FIELD)
};

static struct stats get_stats(struct kvm_vcpu *vcpu)
{
#define GET(name) .name = vcpu_get_stat(vcpu, savic_##name),
	return (struct stats) { FOR_EACH_STAT(GET) };
}

/* Compare what was counted since *@old, which becomes the new one. */
static void expect_stats(struct kvm_vcpu *vcpu, struct stats *old, struct stats expected)
{
	struct stats new = get_stats(vcpu);

#define EXPECT(name)							\
	TEST_ASSERT(new.name - old->name == expected.name,		\
		    "savic_" #name ": %lu more, expected %lu",		\
		    new.name - old->name, expected.name);
	FOR_EACH_STAT(EXPECT)

	*old = new;
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
	expect_stats(vcpu, &stats, (struct stats) { .page_registrations = 1 });

	/* Both vectors are one interrupt, and take one VMRUN. */
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, VECTOR);
	savic_send_msi(vm, 0, ILLEGAL_VECTOR);
	vcpu_ioctl(vcpu, KVM_NMI, NULL);
	expect_stats(vcpu, &stats, (struct stats) {
		.posted = 2, .kicks = 2, .illegal_vectors = 1 });
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .irr_requests = 1, .nmis = 1 });

	/* The sender is on its way to VMRUN, there is nobody to notify. */
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) { .ipis = 1 });

	EXPECT_TRUE(savic_vcpu_run(vcpu));
	expect_stats(vcpu, &stats, (struct stats) {
		.spurious_eois = 1, .refused_vmgexits = 1 });

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
