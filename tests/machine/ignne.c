/*
 * x87 exceptions by FERR# and IGNNE# (8.2.16, CR0.NE clear): IRQ 13, and what port F0h does about it
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "machine.h"

#define CR0_NE		BIT(5)
#define PIC1		0x20
#define PIC2		0xa0
#define BASE		0x50
#define IRQ13		(BASE + 13)
#define BUSY_PORT	0xf0
#define UNMASK_ZE	0x37b		/* control word: all masked but division by zero */
#define PATIENCE	1000

static volatile u64 interrupts;
static bool write_busy_port;

static void on_irq13(struct regs *r)
{
	interrupts++;
	if (write_busy_port)
		outb(BUSY_PORT, 0);
	outb(PIC2, 0x20);
	outb(PIC1, 0x20);
}

/* Edge-triggered, at vectors from BASE on; only IRQ 13 gets through. */
static void init_pics(void)
{
	outb(PIC1, 0x11);
	outb(PIC1 + 1, BASE);
	outb(PIC1 + 1, 1 << 2);
	outb(PIC1 + 1, 1);
	outb(PIC2, 0x11);
	outb(PIC2 + 1, BASE + 8);
	outb(PIC2 + 1, 2);
	outb(PIC2 + 1, 1);
	outb(PIC1 + 1, (u8)~(1 << 2));
	outb(PIC2 + 1, (u8)~(1 << 5));
}

/* No exception is pending, and a division by zero would be one. */
static void load_clean_environment(void *unused)
{
	u32 env[7] = { UNMASK_ZE, 0, 0xffff };

	asm volatile("fldenv %0" : : "m"(env));
}

static void divide_by_zero(void)
{
	load_clean_environment(NULL);
	asm volatile("fld1; fldz; fdivrp" : : : "memory");
}

/* The next x87 instruction, which finds the exception pending; how many interrupts that was. */
static u64 wait_x87(void)
{
	u64 before = interrupts;

	asm volatile("fwait");
	for (int i = 0; i < 1000; i++)
		cpu_relax();
	return interrupts - before;
}

static void write_port(void *unused)
{
	outb(BUSY_PORT, 0);
}

/* Without IGNNE# there is one more each time, as the port ends the last one. */
static u64 wait_after_other_cpus_write(void)
{
	ap_run(write_port, NULL);
	ap_wait();
	return wait_x87();
}

/* What another CPU does to IGNNE# may reach this one later. */
static bool becomes(u64 (*count)(void), u64 expected)
{
	for (int i = 0; i < PATIENCE; i++)
		if (count() == expected)
			return true;
	return false;
}

void test_main(void)
{
	section("APM2 8.2.16", "With CR0.NE clear a pending x87 exception is an interrupt by FERR#, unless IGNNE# is asserted.");
	init_pics();
	set_handler(IRQ13, on_irq13);
	WRITE_CR(0, READ_CR(0) & ~CR0_NE);
	asm volatile("sti");

	write_busy_port = true;
	divide_by_zero();
	check_eq(wait_x87(), 1, "IRQ 13");
	check_eq(wait_x87(), 0, "more of them after a write to port F0h");
	divide_by_zero();
	check_eq(wait_x87(), 1, "IRQ 13 after FLDENV and another division");

	write_busy_port = false;
	divide_by_zero();
	check_eq(wait_x87(), 1, "IRQ 13, and nobody writes to port F0h");
	check(becomes(wait_after_other_cpus_write, 0), "none after writes by another CPU");
	ap_run(load_clean_environment, NULL);
	ap_wait();
	check(becomes(wait_x87, 1), "IRQ 13 after FLDENV by another CPU");
	asm volatile("cli");
}
