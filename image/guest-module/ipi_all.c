// SPDX-License-Identifier: GPL-2.0-only
/*
 * IPIs to all CPUs, this one included: no part of Linux sends one, but its APIC drivers can. All that the vector's
 * handler does is to count, as nobody has been called.
 */
#include <linux/delay.h>
#include <linux/hardirq.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <asm/apic.h>

#define NR_IPIS		100
#define TIMEOUT_MS	1000

/* This CPU's CAL in /proc/interrupts. */
static unsigned int taken(void)
{
	return this_cpu_read(irq_stat.counts[IRQ_COUNT_CALL_FUNCTION]);
}

/* Send one and wait until this CPU has got it. */
static int send(void)
{
	unsigned int before, ms;

	preempt_disable();
	before = taken();
	apic->send_IPI_all(CALL_FUNCTION_SINGLE_VECTOR);
	for (ms = 0; ms < TIMEOUT_MS && taken() == before; ms++)
		mdelay(1);
	preempt_enable();

	return ms < TIMEOUT_MS ? 0 : -ETIMEDOUT;
}

static int __init ipi_all_init(void)
{
	int i;

	for (i = 0; i < NR_IPIS; i++) {
		int err = send();

		if (err) {
			pr_err("ipi_all: the IPI to all did not get to its sender\n");
			return err;
		}
		/* Two that come before one is taken are one. */
		msleep(2);
	}
	return 0;
}

static void __exit ipi_all_exit(void)
{
}

module_init(ipi_all_init);
module_exit(ipi_all_exit);
MODULE_DESCRIPTION("Sends IPIs to all CPUs, itself included");
MODULE_LICENSE("GPL");
