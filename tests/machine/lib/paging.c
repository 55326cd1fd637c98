/*
 * Machine tests: page tables
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"

#define PAGE_LARGE	BIT(7)
#define TABLES		64
#define ADDRESS		0x7fffffffff000UL	/* without the C-bit */

static u64 tables[TABLES][512] __attribute__((aligned(PAGE_SIZE)));
static unsigned int used;

u64 *page_split(u64 *entry, bool huge)
{
	u64 step = huge ? REGION : PAGE_SIZE;
	u64 flags = *entry & ~ADDRESS;
	u64 *table;

	if (!(*entry & PAGE_LARGE))
		return (u64 *)(*entry & ADDRESS);
	table = tables[used++ % TABLES];
	if (used > TABLES) {
		check(false, "more page tables are split than lib/paging.c has");
		test_done();
	}
	if (!huge)
		flags &= ~PAGE_LARGE;
	for (u64 i = 0; i < 512; i++)
		table[i] = (*entry & ADDRESS & -(512 * step)) + i * step + flags;
	*entry = (u64)table | (flags & C_BIT) | PTE;
	return table;
}

u64 *own_pde(u64 va)
{
	u64 *pml4 = (u64 *)(READ_CR(3) & ADDRESS);
	u64 *pdpt = (u64 *)(pml4[va >> 39 & 511] & ADDRESS);

	return &page_split(&pdpt[va >> 30 & 511], true)[va >> 21 & 511];
}

u64 *own_pte(u64 va)
{
	return &page_split(own_pde(va), false)[va >> 12 & 511];
}
