/*
 * Code in a page table: fetching an instruction may write to the page it is in
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"

#define PRESENT		BIT(0)
#define ACCESSED	BIT(5)
#define VALUE		0x12345678

/* A table of the highest level, and the page behind it */
static u64 pages[2][512] __attribute__((aligned(PAGE_SIZE)));

/* The last entry is not present: its other bits are free for code. */
static u8 *const ret = (u8 *)&pages[0][511] + 1;
static u8 *const mov = (u8 *)&pages[1] - 1;

static u32 call_mov(void)
{
	u32 val = 0;

	asm volatile("call *%1" : "+a"(val) : "r"(mov) : "rcx", "memory");
	return val;
}

static void test_fetch(void)
{
	section("APM2 5.4.2", "A page table walk sets the Accessed bit, also where the entry is in the page that is executed.");
	check_eq(try_fetch((u64)ret), NO_EXCEPTION, "code in the table");
	flush_tlb();
	pages[0][0] &= ~ACCESSED;
	check_eq(call_mov(), VALUE, "an instruction from there to the next page");
	check(pages[0][0] & ACCESSED, "the entry has been accessed");
	/* It is code no more once it is written to. */
	*mov = 0xb9;
	check(call_mov() != VALUE, "the table's code is another after a write");
	*mov = 0xb8;
}

static void test_fault(void)
{
	u64 *pte = own_pte((u64)&pages[1]);

	section("APM2 8.2.15", "#PF of an instruction whose second page is not present has that page's address.");
	*pte &= ~PRESENT;
	flush_tlb();
	for (int i = 0; i < 2; i++) {
		check_eq(try_fetch((u64)mov), 14, "#PF");
		check_eq(ex_cr2, (u64)&pages[1], "CR2");
		*ret = 0xc3;
	}
	*pte |= PRESENT;
	flush_tlb();
	check_eq(call_mov(), VALUE, "present again");
}

void test_main(void)
{
	static const u8 rest[] = { 0x78, 0x56, 0x34, 0x12, 0xc3 };

	memcpy(pages[0], (void *)(READ_CR(3) & ~0xfffUL), PAGE_SIZE);
	pages[0][511] = 0;
	*ret = 0xc3;
	*mov = 0xb8;			/* mov $VALUE, %eax */
	memcpy(pages[1], rest, sizeof(rest));
	WRITE_CR(3, pages);

	test_fetch();
	test_fault();
}
