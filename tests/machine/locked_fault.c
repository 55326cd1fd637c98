/*
 * A fault of a locked instruction (8.1.2): one that crosses a page TCG does
 * again with all CPUs stopped, and only there it sees the second page
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"

#define RFLAGS_CF	BIT(0)
#define RFLAGS_DF	BIT(10)

static u8 pages[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
#define SECOND		((u64)pages + PAGE_SIZE)

static volatile u64 faults, fault_rflags;

static void on_pf(struct regs *r)
{
	faults++;
	fault_rflags = r->rflags;
	*own_pte(SECOND) |= PTE;
	asm volatile("cld");
}

static void unmap_second(void)
{
	*own_pte(SECOND) &= ~PTE;
	invlpg(SECOND);
	faults = 0;
}

void test_main(void)
{
	volatile u32 *val = (u32 *)(SECOND - 2);
	u64 rflags;

	set_handler(PF, on_pf);
	page_split(own_pde(SECOND), false);

	section("APM2 8.1.2", "A fault leaves the flags as they were before the instruction, which can be restarted.");
	unmap_second();
	asm volatile("stc; lock adcl $0, %0" : "+m"(*val) : : "cc");
	check_eq(faults, 1, "LOCK ADC over two pages, without the second, faults");
	check(fault_rflags & RFLAGS_CF, "with CF");
	check_eq(*val, 1, "which it adds");

	unmap_second();
	asm volatile("std; lock incl %0; pushfq; popq %1; cld" : "+m"(*val), "=r"(rflags) : : "cc");
	check_eq(faults, 1, "LOCK INC faults");
	check(fault_rflags & RFLAGS_DF, "with DF");
	check(rflags & RFLAGS_DF, "which is still there behind it");
}
