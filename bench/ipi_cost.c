// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that a vCPU in Secure AVIC mode, and its host, execute for an IPI to one other
 * vCPU, with few and with many vCPUs that are not its target.  Linked with KVM's selftest
 * library by bench/ipis.
 *
 * To be run on one CPU of a machine on which the TSC counts instructions.  The smallest of
 * many differences is one without any other interrupt in it.
 */
#include "apic.h"
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define ROUNDS		300
#define VECTOR		0x60
#define TARGET		1

/* So many vCPUs get as far as to have a backing page.  The others are only there. */
#define MAX_VCPUS	256
#define NR_RUNNING	15u

static void by_msr(u64 icr)
{
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_ICR), icr), GHCB_OK);
}

static void forwarded(u64 icr)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_INCOMPLETE_IPI,
		.exit_info_1 = icr,
	};

	GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_OK);
}

static void report(const char *what, void (*send)(u64 icr), u64 icr)
{
	u64 best = -1ull, begin;

	for (int i = 0; i < ROUNDS; i++) {
		begin = rdtsc();
		send(icr);
		best = min(best, rdtsc() - begin);
	}
	GUEST_PRINTF("%s %lu\n", what, (unsigned long)best);
}

static void guest_sends(void)
{
	u64 physical = (u64)TARGET << 32 | VECTOR;
	u64 logical = APIC_DEST_LOGICAL | BIT(TARGET) << 32 | VECTOR;

	savic_enable();
	report("ICR-physical", by_msr, physical);
	report("ICR-logical", by_msr, logical);
	report("ICR-NMI", by_msr, physical | APIC_DM_NMI);
	report("forwarded-physical", forwarded, physical);
	report("forwarded-logical", forwarded, logical);
	GUEST_DONE();
}

static void guest_waits(void)
{
	savic_enable();
	GUEST_SYNC(0);
}

int main(int argc, char *argv[])
{
	u32 i, nr_running, nr_vcpus = argc > 1 ? atoi(argv[1]) : 0;
	struct kvm_vcpu *vcpus[MAX_VCPUS];
	struct kvm_vm *vm;
	struct ucall uc;

	TEST_ASSERT(nr_vcpus > TARGET && nr_vcpus <= MAX_VCPUS, "usage: ipi_cost VCPUS");
	nr_running = min(nr_vcpus, NR_RUNNING);
	vm = vm_savic_create(nr_running, guest_waits, vcpus);
	for (i = nr_running; i < nr_vcpus; i++)
		__vm_vcpu_add(vm, i);
	vcpu_arch_set_entry_point(vcpus[0], guest_sends);
	vm_sev_launch(vm, snp_default_policy(), NULL);

	/* They have an APIC in x2APIC mode, and are not in KVM_RUN. */
	for (i = 1; i < nr_running; i++)
		TEST_ASSERT(savic_vcpu_run(vcpus[i]), "The guest is done");
	for (;;) {
		vcpu_run(vcpus[0]);
		switch (get_ucall(vcpus[0], &uc)) {
		case UCALL_PRINTF:
			printf("@@ %s", uc.buffer);
			continue;
		case UCALL_DONE:
			kvm_vm_free(vm);
			return 0;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		default:
			TEST_FAIL("exit reason %u", vcpus[0]->run->exit_reason);
		}
	}
}
