// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU takes several ticks to allow its local timer's vector. If its timer has been started before, the first
 * interrupt comes meanwhile, and hardware drops it.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include <asm/apic.h>
#include <asm/irq_vectors.h>

#define DELAY_MS	100

static void (*update_vector)(unsigned int cpu, unsigned int vector, bool set);

static void update_vector_slowly(unsigned int cpu, unsigned int vector, bool set)
{
	if (vector == LOCAL_TIMER_VECTOR && set)
		mdelay(DELAY_MS);
	update_vector(cpu, vector, set);
}

/* The driver is read-only by now, but not where this maps it. */
static int replace(void *callback)
{
	struct page *page = pfn_to_page(PHYS_PFN(__pa(&apic->update_vector)));
	void *map = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!map)
		return -ENOMEM;
	*(void **)(map + offset_in_page(&apic->update_vector)) = callback;
	vunmap(map);
	return 0;
}

static int __init slow_timer_init(void)
{
	update_vector = apic->update_vector;
	return update_vector ? replace(update_vector_slowly) : -ENODEV;
}

static void __exit slow_timer_exit(void)
{
	WARN_ON(replace(update_vector));
}

module_init(slow_timer_init);
module_exit(slow_timer_exit);
MODULE_DESCRIPTION("Lets a CPU's local timer end before its vector is allowed");
MODULE_LICENSE("GPL");
