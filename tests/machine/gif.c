/*
 * The global interrupt flag is its CPU's alone, whatever another CPU does meanwhile (15.17)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "svm.h"

#define VECTOR		0x41
#define ROUNDS		1000000
#define PATIENCE	100000
#define SVR_ENABLE	BIT(8)

static volatile u64 interrupts;
static volatile bool done;

static void on_interrupt(struct regs *r)
{
	interrupts++;
	wrmsr(MSR_X2APIC_EOI, 0);
}

/* As an operating system does for each task that it switches to */
static void restore_fpu(void *unused)
{
	static u32 env[7];

	asm volatile("fnstenv %0" : "=m"(env));
	while (!done)
		asm volatile("fldenv %0" : : "m"(env));
}

void test_main(void)
{
	u64 early = 0, late = 0;

	section("APM2 15.17", "CLGI holds interrupts pending, STGI lets them in; the flag is each CPU's own.");
	svm_init();
	apic_id();
	wrmsr(MSR_X2APIC_SVR, SVR_ENABLE | 0xff);
	set_handler(VECTOR, on_interrupt);
	ap_run(restore_fpu, NULL);
	asm volatile("sti");
	for (u64 i = 0; i < ROUNDS && !early && !late; i++) {
		asm volatile("clgi" : : : "memory");
		wrmsr(MSR_X2APIC_SELF_IPI, VECTOR);
		asm volatile("nop" : : : "memory");
		early += interrupts != i;
		asm volatile("stgi" : : : "memory");
		for (int n = 0; n < PATIENCE && interrupts == i; n++)
			cpu_relax();
		late += interrupts != i + 1;
	}
	asm volatile("cli");
	check_eq(early, 0, "interrupts between CLGI and STGI");
	check_eq(late, 0, "interrupts that did not come after STGI");
	done = true;
	ap_wait();
}
