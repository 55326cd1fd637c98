// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: guests that halt although something waits for them which a halted
 * vCPU can't get.  KVM doesn't see whether that has changed, i.e. has to run the vCPU
 * every now and then, but must not keep the CPU busy with it.
 */
#include <time.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define VECTOR			0x51
/* Of a higher priority class than what is masked. */
#define STOP_VECTOR		0xf1
#define MASKED_PRIORITY		0xe0
/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))

/* At most so many useless wakeups in any such period, see savic_may_retry() in KVM. */
#define MAX_RETRIES		8
#define RETRY_PERIOD_MS		10

#define NR_HALTS		160
/*
 * What they take at least, whatever else the CPU does.  The halt that has to wait for the
 * end of the period is one more.
 */
#define MIN_MS			((NR_HALTS / (MAX_RETRIES + 1) - 2) * RETRY_PERIOD_MS)

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void guest_engine_off(void)
{
	int i;

	x2apic_enable();
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA,
					    savic_page_gpa(0), NULL), GHCB_OK);
	GUEST_SYNC(0);

	for (i = 0; i < NR_HALTS; i++)
		safe_halt();
	GUEST_SYNC(1);

	/* What has been waiting all the time. */
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_wait_for_irqs(VECTOR, 1);
	GUEST_DONE();
}

TEST(engine_off)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	long start;

	vm = vm_savic_create(1, guest_engine_off, &vcpu);
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));

	savic_send_msi(vm, 0, VECTOR);
	start = now_ms();
	EXPECT_TRUE(savic_vcpu_run(vcpu));
	EXPECT_GE(now_ms() - start, MIN_MS);

	EXPECT_FALSE(savic_vcpu_run(vcpu));
	kvm_vm_free(vm);
}

/* The vector waits in IRR, as the guest masks it, and nobody is going to EOI it. */
static void guest_masked_level(void)
{
	savic_enable();
	savic_allow_vector(VECTOR);
	savic_allow_vector(STOP_VECTOR);
	savic_set_vector(0, APIC_TMR, VECTOR);
	wrmsr(X2APIC_MSR(APIC_TASKPRI), MASKED_PRIORITY);
	GUEST_SYNC(0);

	while (!savic_nr_irqs(0, STOP_VECTOR))
		safe_halt();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, VECTOR), 0u);
	GUEST_DONE();
}

TEST(masked_level)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	long start;
	int i;

	vm = __vm_savic_create(1, guest_masked_level, &vcpu, true, 0);
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, STOP_VECTOR, savic_irq_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	EXPECT_TRUE(savic_vcpu_run(vcpu));

	/* A line that stays asserted, so that each halt is one more EOI. */
	start = now_ms();
	for (i = 0; i < NR_HALTS; i++) {
		savic_send_msi(vm, 0, MSI_LEVEL | VECTOR);
		vcpu_run(vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IOAPIC_EOI);
	}
	EXPECT_GE(now_ms() - start, MIN_MS);

	savic_send_msi(vm, 0, STOP_VECTOR);
	do {
		vcpu_run(vcpu);
	} while (vcpu->run->exit_reason == KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(get_ucall(vcpu, NULL), UCALL_DONE);
	kvm_vm_free(vm);
}

SAVIC_TEST_HARNESS_MAIN
