// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest with 4 vCPUs that computes on memory of its own: not confidential, then
 * SEV-SNP.  Linked with KVM's selftest library by bench/compute.
 */
#include <pthread.h>
#include <time.h>

#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "sev.h"
#include "test_util.h"

#define NR_VCPUS	4
#define ROUNDS		240
#define WORDS		(64 * 1024 / 8)	/* what fits beside the program */

static u64 data[NR_VCPUS][WORDS];

/* Arithmetic, branches and memory in an order that no cache line or page is used twice in a row. */
static void guest_compute(u32 index)
{
	u64 *mine = data[index], sum = index + 1;

	for (int round = 0; round < ROUNDS; round++) {
		for (u32 i = 0; i < WORDS; i++) {
			u64 *word = &mine[i * 521 % WORDS];

			sum = sum * 6364136223846793005ull + 1442695040888963407ull;
			*word += sum & 1 ? sum >> 33 : *word >> 3;
		}
	}
	GUEST_ASSERT(sum);
	GUEST_DONE();
}

static void *vcpu_thread(void *arg)
{
	struct kvm_vcpu *vcpu = arg;
	struct ucall uc;

	do {
		vcpu_run(vcpu);
	} while (get_ucall(vcpu, &uc) == UCALL_NONE);
	TEST_ASSERT(uc.cmd == UCALL_DONE, "exit reason %u, ucall %lu",
		    vcpu->run->exit_reason, (unsigned long)uc.cmd);
	return NULL;
}

static void run(const char *name, u32 type)
{
	struct vm_shape shape = { .mode = VM_MODE_DEFAULT, .type = type };
	struct kvm_vcpu *vcpus[NR_VCPUS];
	pthread_t threads[NR_VCPUS];
	struct timespec begin, end;
	struct kvm_vm *vm;
	int i;

	vm = __vm_create_with_vcpus(shape, NR_VCPUS, 0, guest_compute, vcpus);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(vcpus[i], 1, i);
	if (type == KVM_X86_SNP_VM)
		vm_sev_launch(vm, snp_default_policy(), NULL);

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_create(&threads[i], NULL, vcpu_thread, vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(threads[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("@@ %s %ld\n", name, (end.tv_sec - begin.tv_sec) * 1000 +
	       (end.tv_nsec - begin.tv_nsec) / 1000000);
	kvm_vm_free(vm);
}

int main(void)
{
	setbuf(stdout, NULL);
	for (int i = 0; i < 3; i++) {
		run("plain", KVM_X86_DEFAULT_VM);
		run("snp", KVM_X86_SNP_VM);
	}
	return 0;
}
