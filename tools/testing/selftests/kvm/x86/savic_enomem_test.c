// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: a host without memory.
 *
 * One allocation of KVM's after the other fails, by fault injection.  The ioctl says
 * ENOMEM, and works when it is called again.
 */
#include <fcntl.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define DEBUGFS			"/sys/kernel/debug/"
#define FAIL_NTH		"/proc/thread-self/fail-nth"

#define SELF_VECTOR		0x51

/* Of each 2M of this region one page is mapped, which takes one page table. */
#define TABLES_SLOT		20
#define TABLES_GPA		(4ul << 30)
#define NR_TABLES		256
#define TABLE_SIZE		(2ul << 20)

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/*
 * All kinds of allocations fail, silently.  These are for everybody, but nothing fails as
 * long as no thread asks for it.
 */
static struct knob {
	const char *file;
	const char *value;
	char old[16];
} knobs[] = {
	{ DEBUGFS "failslab/ignore-gfp-wait", "N" },
	{ DEBUGFS "failslab/verbose", "0" },
	{ DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ DEBUGFS "fail_page_alloc/min-order", "0" },
	{ DEBUGFS "fail_page_alloc/verbose", "0" },
};

static void knob_read(struct knob *knob)
{
	int fd = open_path_or_exit(knob->file, O_RDONLY);

	TEST_ASSERT(read(fd, knob->old, sizeof(knob->old) - 1) > 0, "Reading %s", knob->file);
	close(fd);
}

static void knob_write(struct knob *knob, const char *value)
{
	int fd = open_path_or_exit(knob->file, O_WRONLY);

	TEST_ASSERT(write(fd, value, strlen(value)) > 0, "Writing \"%s\" to %s", value, knob->file);
	close(fd);
}

/* From here to fail_end() this thread's @nth allocation fails. */
static int fail_begin(unsigned int nth)
{
	int fd = open(FAIL_NTH, O_RDWR);

	TEST_ASSERT(fd >= 0, "Opening " FAIL_NTH " failed, errno %d", errno);
	TEST_ASSERT(dprintf(fd, "%u", nth) > 0, "Writing " FAIL_NTH " failed, errno %d", errno);
	return fd;
}

/* Returns true if there were that many.  Keeps errno. */
static bool fail_end(int fd)
{
	int saved_errno = errno;
	char left[16] = "";

	TEST_ASSERT(pread(fd, left, sizeof(left) - 1, 0) > 0, "Reading " FAIL_NTH);
	TEST_ASSERT(pwrite(fd, "0", 1, 0) == 1, "Writing " FAIL_NTH);
	close(fd);
	errno = saved_errno;
	return !atoi(left);
}

static void check_is_savic(int vcpu_fd)
{
	struct kvm_lapic_state state;

	TEST_ASSERT(ioctl(vcpu_fd, KVM_GET_LAPIC, &state) == -1 && errno == EINVAL,
		    "The vCPU isn't in Secure AVIC mode");
}

/* Returns false if KVM_CREATE_VCPU makes less than @nth allocations. */
static bool create_vcpu(unsigned int nth, unsigned int *nr_failures)
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = KVM_X86_SNP_VM,
		.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC,
	};
	struct kvm_vm *vm = __vm_create(shape, 1, 0);
	int fail, fd;
	bool failed;

	fail = fail_begin(nth);
	fd = __vm_ioctl(vm, KVM_CREATE_VCPU, NULL);
	failed = fail_end(fail);

	if (fd < 0) {
		TEST_ASSERT(failed && errno == ENOMEM,
			    "Allocation %u %s, and KVM_CREATE_VCPU failed with errno %d", nth,
			    failed ? "failed" : "was not made", errno);
		(*nr_failures)++;
		fd = __vm_ioctl(vm, KVM_CREATE_VCPU, NULL);
		TEST_ASSERT(fd >= 0, "The second KVM_CREATE_VCPU failed, errno %d", errno);
	}
	check_is_savic(fd);
	close(fd);
	kvm_vm_free(vm);
	return failed;
}

FIXTURE(savic_enomem) {
};

FIXTURE_SETUP(savic_enomem)
{
}

FIXTURE_TEARDOWN(savic_enomem)
{
}

TEST_F_TIMEOUT(savic_enomem, create_vcpu, TIMEOUT_SECS)
{
	unsigned int nth = 1, nr_failures = 0;

	while (create_vcpu(nth, &nr_failures))
		nth++;

	/* At least those of the vCPU, its APIC, VMCB, VMSA, and Secure AVIC's state. */
	TEST_ASSERT(nr_failures >= 5, "KVM_CREATE_VCPU failed %u times only", nr_failures);
	TH_LOG("%u allocations, without %u of them there is no vCPU", nth - 1, nr_failures);
}

static void guest_code(void)
{
	u32 nr;

	savic_enable();
	for (nr = 1; ; nr++) {
		GUEST_SYNC(savic_page_gpa(0));
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, SELF_VECTOR), nr);
	}
}

/* Take one page table from those that the vCPU has in reserve. */
static void use_table(struct kvm_vcpu *vcpu, u32 nr)
{
	struct kvm_pre_fault_memory range = {
		.gpa = TABLES_GPA + nr * TABLE_SIZE,
		.size = PAGE_SIZE,
	};

	vcpu_ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &range);
}

/*
 * KVM gets many page tables at a time, and only at the begin of a fault or of mapping the
 * backing page.  So take them away one by one, and let KVM map the page after each.
 */
TEST_F_TIMEOUT(savic_enomem, load_page, TIMEOUT_SECS)
{
	unsigned int i, nr_failures = 0;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	gpa_t page;
	int fail, r;

	vm = vm_savic_create(1, guest_code, &vcpu);
	vm_install_exception_handler(vm, SELF_VECTOR, savic_irq_handler);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, TABLES_GPA, TABLES_SLOT,
				    NR_TABLES * TABLE_SIZE / PAGE_SIZE, 0);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	page = savic_vcpu_run_to_sync(vcpu);

	for (i = 0; i < NR_TABLES && nr_failures < 3; i++) {
		use_table(vcpu, i);
		vm_mem_set_shared(vm, page, PAGE_SIZE);
		vm_mem_set_private(vm, page, PAGE_SIZE);

		fail = fail_begin(1);
		r = _vcpu_run(vcpu);
		if (fail_end(fail)) {
			TEST_ASSERT(r == -1 && errno == ENOMEM, "KVM_RUN: %d, errno %d", r, errno);
			nr_failures++;
			savic_vcpu_run_to_sync(vcpu);
		} else {
			TEST_ASSERT(!r, "KVM_RUN: %d, errno %d", r, errno);
		}
	}
	TEST_ASSERT_EQ(nr_failures, 3u);
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	int i, r;

	__TEST_REQUIRE(kvm_has_savic(), SAVIC_MISSING);
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		__TEST_REQUIRE(!access(knobs[i].file, W_OK),
			       "No fault injection: needs root, debugfs, CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC and CONFIG_FAULT_INJECTION_DEBUG_FS");

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		knob_read(&knobs[i]);
		knob_write(&knobs[i], knobs[i].value);
	}
	r = test_harness_run(argc, argv);
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		knob_write(&knobs[i], knobs[i].old);
	return r;
}
