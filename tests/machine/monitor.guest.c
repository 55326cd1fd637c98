/*
 * A guest for tests/monitor: one without SEV for machine checks, then one with Secure AVIC state that
 * is known, first outside and then in guest mode
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define MSR_CONTROL		0xc0010138
#define CONTROL_ENABLE		BIT(0)
#define CONTROL_ALLOWED_NMI	BIT(1)

#define APIC_ID			0x20
#define TPR			0x80
#define ISR			0x100
#define TMR			0x180
#define IRR			0x200
#define ALLOWED			0x204
#define NMI_REQ			0x278

static u8 backing[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static void set_vector(int base, int vector)
{
	*(volatile u32 *)(backing + base + vector / 32 * 16) |= 1u << vector % 32;
}

/* ---- The guest: interrupts stay off, so what is in the page stays there. ---- */

static void guest_prepare(u64 unused)
{
	*(volatile u32 *)(backing + APIC_ID) = 7;
	*(volatile u32 *)(backing + TPR) = 0x20;
	set_vector(ISR, 0x41);
	set_vector(TMR, 0x41);
	set_vector(IRR, 0x31);
	set_vector(IRR, 0xff);
	for (int vector = 0x30; vector < 0x38; vector++)
		set_vector(ALLOWED, vector);
	set_vector(ALLOWED, 0xec);
	wrmsr(MSR_CONTROL, (u64)backing | CONTROL_ENABLE | CONTROL_ALLOWED_NMI);
}

static void guest_stay(u64 unused)
{
	/* Looked at by the next VMRUN, which never comes. */
	*(volatile u32 *)(backing + NMI_REQ) = 1;
	shared->result[0] = 1;
	for (;;)
		cpu_relax();
}

/* ---- The host -------------------------------------------------------------------- */

/* Say how far we are, and wait for a line. */
static void stop(const char *where)
{
	print("# at %s\n", where);
	while (!(inb(0x3fd) & 1) || inb(0x3f8) != '\n')
		cpu_relax();
}

/* ---- Machine checks, in a guest without SEV: the monitor raises them. ------------- */

#define MC		18
#define CR4_MCE		BIT(6)
#define MSR_MCG_STATUS	0x17a

static volatile u32 looping, machine_checks;

static void on_machine_check(struct regs *r)
{
	machine_checks++;
	vmmcall(0);
}

static void guest_loop(void)
{
	looping = 1;
	for (;;)
		cpu_relax();
}

static void say_looping(void *where)
{
	while (!looping)
		cpu_relax();
	stop(where);
}

/* Exit code, and machine checks that were delivered: under EXIT_NAME and COUNT_NAME */
static void machine_check(const char *place, bool intercepted)
{
	static struct vcpu plain;
	u64 code;

	looping = machine_checks = 0;
	svm_set_up(&plain, guest_loop);
	plain.vmcb->cr4 |= CR4_MCE;
	plain.vmcb->intercept[2] = intercepted ? BIT(MC) : 0;
	wrmsr(MSR_MCG_STATUS, 0);
	ap_run(say_looping, (void *)place);
	code = svm_run(&plain);
	ap_wait();
	print("# exit_%s 0x%lx\n# delivered_%s %u\n", place, code, place, machine_checks);
}

static void other_cpu(void *unused)
{
	while (!shared->result[0])
		cpu_relax();
	stop("guest mode");
	test_done();
}

void test_main(void)
{
	static struct snp_vcpu v;

	svm_init();
	WRITE_CR(4, READ_CR(4) | CR4_MCE);
	set_handler(MC, on_machine_check);
	machine_check("intercepted", true);
	machine_check("delivered", false);
	WRITE_CR(4, READ_CR(4) & ~CR4_MCE);
	shared->result[0] = 0;
	stop("start");
	snp_set_up(&v, 0);
	snp_start();
	print("# asid %u\n", GUEST_ASID);
	print("# vmsa 0x%lx\n", v.vmsa);
	print("# page 0x%lx\n", (u64)backing - IMAGE + IMAGE_COPY);
	print("# gpa 0x%lx\n", (u64)backing);
	print("# hypervisor 0x%lx\n", (u64)v.vmcb);
	stop("no vCPU");
	if (!snp_call(&v, guest_prepare, 0))
		print("Bail out! the guest left with exit code 0x%lx\n", v.vmcb->exit_code);
	stop("host mode");
	ap_run(other_cpu, NULL);
	snp_call(&v, guest_stay, 0);
}
