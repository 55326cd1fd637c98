// SPDX-License-Identifier: GPL-2.0-only
/*
 * Instructions that the host executes from #VMEXIT to VMRUN, for guests that have
 * nothing to do with Secure AVIC, or for one that has.  Linked with KVM's selftest
 * library by bench/exits.
 *
 * To be run on one CPU of a machine on which the TSC counts instructions (QEMU
 * with -icount shift=0), with kvm.lapic_timer_advance=0, as KVM would wait for time
 * to pass otherwise.  The guest reads the TSC before and after an instruction that
 * exits, or when it takes an interrupt; the smallest of many differences is one
 * without any other interrupt in it.
 */
#include <pthread.h>
#include <sched.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
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

/* In the loop is the WRMSR of the request, which does not exit. */
static void report_vmgexit(void)
{
	u64 ghcb = rdmsr(MSR_AMD64_SEV_ES_GHCB), count;

	count = measure("wrmsr; rep; vmmcall", : : "c" (MSR_AMD64_SEV_ES_GHCB),
			"a" (GHCB_MSR_CPUID_REQ), "d" (0) : "memory");
	wrmsr(MSR_AMD64_SEV_ES_GHCB, ghcb);
	report("VMGEXIT-CPUID", count);
}

static void guest_vmgexits(void)
{
	report_vmgexit();

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

#define VECTOR		0x60

/* From now to a timer's expiry: longer than it takes to arm it, and to halt. */
#define DELAY		100000

/* What the host's other thread does when the vCPU lets it run. */
enum other {
	SPIN,
	SEND,
	STOP,
};

/* When the guest took the last interrupt or NMI, 0 until then, and what RSI was. */
static volatile u64 taken, rsi;

/* The guest is in Secure AVIC mode: the timer is KVM's, and is asked for by VMGEXIT. */
static bool has_savic;

static void write_msr(u32 msr, u64 val)
{
	if (has_savic)
		GUEST_ASSERT_EQ(ghcb_wrmsr(msr, val), GHCB_OK);
	else
		wrmsr(msr, val);
}

static void irq_handler(struct ex_regs *regs)
{
	taken = rdtsc();
	rsi = regs->rsi;
	x2apic_write_reg(APIC_EOI, 0);
}

static void nmi_handler(struct ex_regs *regs)
{
	taken = rdtsc();
}

/* Each of these is one round: what an interrupt costs from its cause to its handler. */

static u64 self_ipi(int round)
{
	u64 begin = rdtsc();

	x2apic_write_reg(APIC_SELF_IPI, VECTOR);
	while (!taken)
		;
	return taken - begin;
}

/* KVM has to wait for an interrupt window. */
static u64 masked_self_ipi(int round)
{
	u64 begin;

	cli();
	begin = rdtsc();
	x2apic_write_reg(APIC_SELF_IPI, VECTOR);
	sti_nop();
	while (!taken)
		;
	return taken - begin;
}

static u64 self_nmi(int round)
{
	u64 begin = rdtsc();

	x2apic_write_reg(APIC_ICR, APIC_DEST_SELF | APIC_DM_NMI);
	while (!taken)
		;
	return taken - begin;
}

/* Set the timer for an instant that differs from round to round. */
static u64 arm_timer(u32 lvtt, int round)
{
	u64 deadline;

	write_msr(X2APIC_MSR(APIC_LVTT), lvtt | APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	deadline = rdtsc() + DELAY + round;
	write_msr(MSR_IA32_TSC_DEADLINE, deadline);
	return deadline;
}

/* The timer expires while the guest runs, which is an interrupt of the host only. */
static u64 host_interrupt(int round)
{
	u64 end = arm_timer(APIC_LVT_MASKED, round) + DELAY, most = 0, last, now = rdtsc();

	do {
		last = now;
		now = rdtsc();
		most = max(most, now - last);
	} while (now < end);

	/* Not if it has expired before the loop, as the host did something else. */
	return most > 100 ? most : -1ull;
}

/* The same, and the guest gets an interrupt: counted from the last RDTSC before it. */
static u64 timer_interrupt(int round)
{
	arm_timer(0, round);
	asm volatile("1: rdtsc; mov %%eax, %%esi; cmpq $0, %0; je 1b"
		     : : "m" (taken) : "rax", "rdx", "rsi", "cc");
	return (u32)taken - (u32)rsi;
}

/* The vCPU blocks until the timer, or the other thread, wakes it. */
static u64 timer_wakes(int round)
{
	u64 deadline;

	cli();
	deadline = arm_timer(0, round);
	asm volatile("sti; hlt");
	return taken - deadline;
}

static u64 msi_wakes(int round)
{
	u64 begin;

	cli();
	begin = rdtsc();
	asm volatile("sti; hlt");
	return taken - begin;
}

static void report_interrupt(const char *what, u64 (*one)(int round))
{
	u64 best = -1ull;

	for (int i = 0; i < ROUNDS; i++) {
		taken = 0;
		best = min(best, one(i));
	}
	GUEST_PRINTF("%s %lu\n", what, (unsigned long)best);
}

static void report_timer_and_msi(void)
{
	report_interrupt("host-interrupt", host_interrupt);
	report_interrupt("timer", timer_interrupt);
	report_interrupt("HLT-timer", timer_wakes);
	GUEST_SYNC(SEND);
	report_interrupt("HLT-MSI", msi_wakes);
}

static void guest_interrupts(void)
{
	x2apic_enable();
	sti();

	GUEST_SYNC(SPIN);
	report_interrupt("IPI-to-self", self_ipi);
	report_interrupt("IPI-window", masked_self_ipi);
	report_interrupt("NMI-to-self", self_nmi);
	report_timer_and_msi();
	GUEST_DONE();
}

static u64 read_lvtt(int round)
{
	u64 begin = rdtsc(), val;

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_LVTT), &val), GHCB_OK);
	return rdtsc() - begin;
}

static u64 write_lvtt(int round)
{
	u64 begin = rdtsc();

	write_msr(X2APIC_MSR(APIC_LVTT), APIC_LVT_MASKED | APIC_LVT_TIMER_TSCDEADLINE | VECTOR);
	return rdtsc() - begin;
}

static u64 write_deadline(int round)
{
	u64 begin = rdtsc();

	write_msr(MSR_IA32_TSC_DEADLINE, 0);
	return rdtsc() - begin;
}

static void guest_with_savic(void)
{
	has_savic = true;
	savic_enable();
	savic_allow_vector(VECTOR);
	sti();

	GUEST_SYNC(SPIN);
	report_vmgexit();
	report_interrupt("RDMSR-LVTT", read_lvtt);
	report_interrupt("WRMSR-LVTT", write_lvtt);
	report_interrupt("WRMSR-deadline", write_deadline);
	report_timer_and_msi();
	GUEST_DONE();
}

static bool encrypts_state(u32 type)
{
	return type == KVM_X86_SEV_ES_VM || type == KVM_X86_SNP_VM;
}

static struct kvm_vm *create(u32 type, void *code, struct kvm_vcpu **vcpu)
{
	struct kvm_vm *vm;

	if (code == guest_with_savic)
		vm = vm_savic_create(1, code, vcpu);
	else if (type == KVM_X86_DEFAULT_VM)
		vm = vm_create_with_one_vcpu(vcpu, code);
	else
		vm = vm_sev_create_with_one_vcpu(type, code, vcpu);

	/* The vCPU doesn't wait for a wakeup, the other thread needs the CPU. */
	vm_enable_cap(vm, KVM_CAP_HALT_POLL, 0);
	vm_install_exception_handler(vm, VECTOR, irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);

	if (type != KVM_X86_DEFAULT_VM)
		vm_sev_launch(vm, type == KVM_X86_SNP_VM ? snp_default_policy() :
			      type == KVM_X86_SEV_ES_VM ? SEV_POLICY_ES : 0, NULL);
	return vm;
}

static enum other other_job;

/*
 * Keeps the CPU from being idle while the vCPU blocks.  The vCPU's thread always takes
 * the CPU from this one, so each round is like the other.
 */
static void *other_thread(void *arg)
{
	struct kvm_msi msi = { .address_lo = APIC_DEFAULT_GPA, .data = VECTOR };
	struct kvm_vm *vm = arg;
	enum other job;

	while ((job = READ_ONCE(other_job)) != STOP) {
		if (job == SEND)
			TEST_ASSERT(__vm_ioctl(vm, KVM_SIGNAL_MSI, &msi) >= 0,
				    "KVM_SIGNAL_MSI failed, errno %d", errno);
	}
	return NULL;
}

static void run_vcpu(const char *name, struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	for (;;) {
		vcpu_run(vcpu);
		switch (get_ucall(vcpu, &uc)) {
		case UCALL_PRINTF:
			printf("@@ %s %s", name, uc.buffer);
			continue;
		case UCALL_SYNC:
			WRITE_ONCE(other_job, uc.args[1]);
			continue;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		case UCALL_DONE:
			return;
		default:
			TEST_FAIL("exit reason %u", vcpu->run->exit_reason);
		}
	}
}

static void run_with_other(const char *name, u32 type, void *code)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;
	pthread_t other;

	vm = create(type, code, &vcpu);
	WRITE_ONCE(other_job, SPIN);
	pthread_create(&other, NULL, other_thread, vm);
	run_vcpu(name, vcpu);
	WRITE_ONCE(other_job, STOP);
	pthread_join(other, NULL);
	kvm_vm_free(vm);
}

static void run(const char *name, u32 type)
{
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	vm = create(type, encrypts_state(type) ? guest_vmgexits : guest_exits, &vcpu);
	run_vcpu(name, vcpu);
	kvm_vm_free(vm);

	run_with_other(name, type, guest_interrupts);
}

/* This thread runs the vCPUs, and goes before those that it creates. */
static void take_precedence(void)
{
	struct sched_param param = { .sched_priority = 1 };

	TEST_ASSERT(!sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param),
		    "sched_setscheduler() failed, errno %d", errno);
}

static void guest_waits(void)
{
	savic_enable();
	GUEST_SYNC(0);
}

/* "beside": there is a VM with Secure AVIC meanwhile.  "own": only such a VM is counted. */
int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	if (!strcmp(what, "own")) {
		take_precedence();
		run_with_other("savic", KVM_X86_SNP_VM, guest_with_savic);
		return 0;
	}
	if (!strcmp(what, "beside")) {
		vm = vm_savic_create(1, guest_waits, &vcpu);
		vm_sev_launch(vm, snp_default_policy(), NULL);
		TEST_ASSERT(savic_vcpu_run(vcpu), "Unexpected GUEST_DONE()");
	}
	take_precedence();
	run("SVM", KVM_X86_DEFAULT_VM);
	run("SEV", KVM_X86_SEV_VM);
	run("SEV-ES", KVM_X86_SEV_ES_VM);
	run("SNP", KVM_X86_SNP_VM);
	return 0;
}
