// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that the host executes from #VMEXIT to VMRUN, for guests that have
 * nothing to do with Secure AVIC.  Linked with KVM's selftest library by bench/exits.
 *
 * To be run on one CPU of a machine on which the TSC counts instructions (QEMU
 * with -icount shift=0).  The guest reads it before and after an instruction that
 * exits; the smallest of many differences is one without any interrupt in it.
 */
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "sev.h"
#include "test_util.h"

#define ROUNDS		300

#define measure(insn, ...)						\
({									\
	u64 best = -1ull;						\
									\
	for (int i = 0; i < ROUNDS; i++) {				\
		u64 begin, end;						\
									\
		asm volatile("rdtsc; shl $32, %%rdx; or %%rdx, %%rax"	\
			     : "=a" (begin) : : "rdx");			\
		asm volatile(insn __VA_ARGS__);				\
		asm volatile("rdtsc; shl $32, %%rdx; or %%rdx, %%rax"	\
			     : "=a" (end) : : "rdx");			\
		best = min(best, end - begin);				\
	}								\
	best;								\
})

#define NOTHING	measure("", : : "a" (0), "c" (0), "d" (0))

static void report(const char *what, u64 count)
{
	GUEST_PRINTF("%s %lu\n", what, (unsigned long)(count - NOTHING));
}

static void guest_exits(void)
{
	u32 eax;

	report("CPUID", measure("cpuid", : "=a" (eax) : "a" (0), "c" (0) : "rbx", "rdx"));
	report("VMMCALL", measure("vmmcall", : "=a" (eax) : "a" (0xffff)));
	report("RDMSR", measure("rdmsr", : "=a" (eax) : "c" (MSR_IA32_APICBASE) : "rdx"));
	report("WRMSR-fastpath", measure("wrmsr", : : "c" (MSR_IA32_TSC_DEADLINE), "a" (0), "d" (0)));
	GUEST_DONE();
}

static void guest_vmgexits(void)
{
	u64 ghcb = rdmsr(MSR_AMD64_SEV_ES_GHCB), count;

	/* In the loop is the WRMSR of the request, which does not exit. */
	count = measure("wrmsr; rep; vmmcall", : : "c" (MSR_AMD64_SEV_ES_GHCB),
			"a" (GHCB_MSR_CPUID_REQ), "d" (0) : "memory");
	wrmsr(MSR_AMD64_SEV_ES_GHCB, ghcb);
	report("VMGEXIT-CPUID", count);

	/* By the GHCB page: instructions of the guest's #VC handler are in the count. */
	report("#VC-RDMSR", ({
		u64 best = -1ull;

		for (int i = 0; i < ROUNDS; i++) {
			u64 begin = rdtsc();

			rdmsr(MSR_IA32_APICBASE);
			best = min(best, rdtsc() - begin);
		}
		best;
	}));
	GUEST_DONE();
}

static struct kvm_vm *create(u32 type, void *code, struct kvm_vcpu **vcpu)
{
	struct kvm_vm *vm;

	if (type == KVM_X86_DEFAULT_VM)
		return vm_create_with_one_vcpu(vcpu, code);
	vm = vm_sev_create_with_one_vcpu(type, code, vcpu);
	vm_sev_launch(vm, type == KVM_X86_SNP_VM ? snp_default_policy() :
		      type == KVM_X86_SEV_ES_VM ? SEV_POLICY_ES : 0, NULL);
	return vm;
}

static void run(const char *name, u32 type)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	struct ucall uc;

	vm = create(type, type == KVM_X86_SEV_ES_VM || type == KVM_X86_SNP_VM ?
		    guest_vmgexits : guest_exits, &vcpu);
	for (;;) {
		vcpu_run(vcpu);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			printf("@@ %s %s", name, uc.buffer);
			continue;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		case UCALL_DONE:
			kvm_vm_free(vm);
			return;
		default:
			TEST_FAIL("exit reason %u", vcpu->run->exit_reason);
		}
	}
}

int main(void)
{
	run("SVM", KVM_X86_DEFAULT_VM);
	run("SEV", KVM_X86_SEV_VM);
	run("SEV-ES", KVM_X86_SEV_ES_VM);
	run("SNP", KVM_X86_SNP_VM);
	return 0;
}
