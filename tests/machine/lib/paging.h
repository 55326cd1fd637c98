/*
 * Machine tests: page tables, of the test itself and of its guests
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef PAGING_H
#define PAGING_H

#include "machine.h"

#define C_BIT		BIT(51)
#define REGION		0x200000UL	/* what an entry of a page directory maps */
#define PTE		0x67UL		/* present, writable, user, accessed, dirty */
#define PDE_2M		0xe7UL

/*
 * Make a table of what the large page at @entry maps (1G if @huge, else 2M),
 * with the same rights. Returns the table that is there if it is no large page.
 */
u64 *page_split(u64 *entry, bool huge);
/* Entries of the test's own page tables, which map memory one to one */
u64 *own_pde(u64 va);
u64 *own_pte(u64 va);

static inline void flush_tlb(void)
{
	WRITE_CR(3, READ_CR(3));
}

static inline void invlpg(u64 va)
{
	asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* Return the exception's vector, or NO_EXCEPTION. */
static inline u32 try_write(u64 va, u64 v)
{
	EX_BEGIN();
	asm volatile(EX("movq %0, (%1)") : : "r"(v), "r"(va) : "memory");
	return ex_vector;
}

static inline u32 try_read(u64 va, u64 *v)
{
	u64 r = 0;

	EX_BEGIN();
	asm volatile(EX("movq (%1), %0") : "+&r"(r) : "r"(va) : "memory");
	*v = r;
	return ex_vector;
}

#endif
