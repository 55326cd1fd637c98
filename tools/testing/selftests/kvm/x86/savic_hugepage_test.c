// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: backing pages in 2M pages of the RMP.
 *
 * KVM has to split such a page before a vCPU uses it.  If it didn't then the conversion of
 * another 4K page in there would take the mapping of all of it away, without getting the
 * vCPU out of guest mode first, and that vCPU never runs again.
 *
 * Skipped if guest_memfd has no memory in 2M pages.
 */
#include <linux/sizes.h>
#include <pthread.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define SELF_VECTOR	0x51
#define STOP_VECTOR	0x61
#define NR_ROUNDS	300
#define NR_VCPUS	2

/* Memory that the launch doesn't touch, lest it have 4K pages. */
#define HUGE_SLOT	20
#define HUGE_GPA	(4ul << 30)
#define HUGE_GVA	0x40000000ul
#define HUGE_SIZE	((u64)SZ_2M)
#define NR_HUGE		16

/* Where the vCPUs' pages are in each of these. */
#define FIRST_PAGE	(100 * PAGE_SIZE)

/* Only to end a test that hangs. */
#define TIMEOUT_SECS	120

static gva_t page_gva(u32 huge, u32 id)
{
	return HUGE_GVA + huge * HUGE_SIZE + FIRST_PAGE + id * PAGE_SIZE;
}

static gpa_t page_gpa(u32 huge, u32 id)
{
	return page_gva(huge, id) - HUGE_GVA + HUGE_GPA;
}

static void guest_busy(void)
{
	u32 nr = 0;

	GUEST_SYNC(snp_validate_large_page(HUGE_GVA));

	savic_enable();
	savic_allow_vector(STOP_VECTOR);
	GUEST_SYNC(0);

	while (!savic_nr_irqs(0, STOP_VECTOR)) {
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(savic_nr_irqs(0, SELF_VECTOR), ++nr);
	}
	GUEST_ASSERT(nr);
	GUEST_DONE();
}

/* Guest only. */
static u32 nr_arrived;

static void barrier_of_all(u32 nr)
{
	__sync_fetch_and_add(&nr_arrived, 1);
	while (READ_ONCE(nr_arrived) < nr * NR_VCPUS)
		cpu_relax();
}

static u32 nr_moved_irqs[NR_VCPUS];

static void moved_handler(struct ex_regs *regs)
{
	u32 id = savic_apic_id();

	wrmsr(X2APIC_MSR(APIC_EOI), 0);
	nr_moved_irqs[id]++;
}

/* Both go from one 2M page to the next at the same time. */
static void guest_moves(u32 id)
{
	u32 i, nr = 0;

	if (!id)
		GUEST_SYNC(snp_validate_large_page(HUGE_GVA));
	barrier_of_all(++nr);
	savic_enable();

	for (i = 1; i < NR_HUGE; i++) {
		if (!id)
			GUEST_ASSERT(snp_validate_large_page(HUGE_GVA + i * HUGE_SIZE));
		barrier_of_all(++nr);

		WRITE_ONCE(*(u32 *)(page_gva(i, id) + APIC_ID), id);
		wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
		barrier_of_all(++nr);
		GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, page_gpa(i, id),
						    NULL), GHCB_OK);
		wrmsr(MSR_AMD64_SAVIC_CONTROL, page_gpa(i, id) | MSR_AMD64_SAVIC_EN);
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
		sti_nop_cli();
		GUEST_ASSERT_EQ(READ_ONCE(nr_moved_irqs[id]), i);
	}
	GUEST_DONE();
}

FIXTURE(savic_hugepage) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[NR_VCPUS];
};

FIXTURE_SETUP(savic_hugepage)
{
	u64 size = NR_HUGE * HUGE_SIZE, offset;
	struct kvm_vm *vm;
	int i;

	vm = vm_savic_create(NR_VCPUS, guest_busy, self->vcpus);
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS_THP, HUGE_GPA, HUGE_SLOT,
				    size / PAGE_SIZE, KVM_MEM_GUEST_MEMFD);
	virt_map(vm, HUGE_GVA, HUGE_GPA, size / PAGE_SIZE);
	for (offset = 0; offset < size; offset += PAGE_SIZE)
		*vm_get_pte(vm, HUGE_GVA + offset) |= vm->arch.c_bit;
	vm_mem_set_private(vm, HUGE_GPA, size);
	savic_set_pages(vm, page_gva(0, 0), NR_VCPUS);

	vm_install_exception_handler(vm, SELF_VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, STOP_VECTOR, savic_irq_handler);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(self->vcpus[i], 1, i);
	self->vm = vm;
}

FIXTURE_TEARDOWN(savic_hugepage)
{
	kvm_vm_free(self->vm);
}

static bool runs_in_large_pages(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
	vm_sev_launch(vm, snp_default_policy(), NULL);
	if (!savic_vcpu_run_to_sync(vcpu))
		return false;

	TEST_ASSERT_EQ(vm_get_stat(vm, pages_2m), 1ul);
	return true;
}

/* The guest never touches that one. */
static void convert_neighbour(struct kvm_vm *vm)
{
	gpa_t neighbour = page_gpa(0, NR_VCPUS);

	vm_mem_set_shared(vm, neighbour, PAGE_SIZE);
	vm_mem_set_private(vm, neighbour, PAGE_SIZE);
}

TEST_F_TIMEOUT(savic_hugepage, neighbour_converted, TIMEOUT_SECS)
{
	struct kvm_vcpu *vcpu = self->vcpus[0];
	pthread_t thread;
	int i;

	if (!runs_in_large_pages(self->vm, vcpu))
		SKIP(return, "guest_memfd has no 2M pages");

	savic_vcpu_run_to_sync(vcpu);
	EXPECT_EQ(vm_get_stat(self->vm, pages_2m), 0);
	/* Of the mapping by 2M, which another vCPU's fault might bring back, before any use. */
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_page_losses), 1);

	pthread_create(&thread, NULL, savic_vcpu_thread, vcpu);
	for (i = 0; i < NR_ROUNDS; i++) {
		convert_neighbour(self->vm);
		usleep(i % 100);
	}
	savic_send_msi(self->vm, 0, STOP_VECTOR);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu_get_stat(vcpu, savic_page_losses), 1);
}

TEST_F_TIMEOUT(savic_hugepage, two_in_one, TIMEOUT_SECS)
{
	pthread_t threads[NR_VCPUS];
	int i;

	vm_install_exception_handler(self->vm, SELF_VECTOR, moved_handler);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_arch_set_entry_point(self->vcpus[i], guest_moves);
	if (!runs_in_large_pages(self->vm, self->vcpus[0]))
		SKIP(return, "guest_memfd has no 2M pages");

	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&threads[i], NULL, savic_vcpu_thread, self->vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(vm_get_stat(self->vm, pages_2m), 0);
}

SAVIC_TEST_HARNESS_MAIN
