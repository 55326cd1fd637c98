/*
 * Machine tests: code at CPL 3
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "paging.h"
#include "user.h"

#define VECTOR_BACK	0x82
#define STACK		0x2000

extern u8 idt[256][16];
extern char user_exit[], user_back[];

u64 user_saved_rsp;
static u64 gdt[8];
static u8 user_stack[STACK] __attribute__((aligned(16)));
static u8 trap_stack[STACK] __attribute__((aligned(16)));
static struct {
	u32 reserved;
	u64 rsp[3];
	u8 rest[0x68 - 0x1c];
} __attribute__((packed)) tss;

/* void user_enter(void (*fn)(void), u64 *stack) */
void user_enter(void (*fn)(void), u64 *stack);
asm("user_enter:\n"
    "	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "	mov %rsp, user_saved_rsp(%rip)\n"
    "	push $0x3b; push %rsi; push $2; push $0x33; push %rdi\n"
    "	iretq\n"
    "user_exit: int $0x82\n"
    "user_back:\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	ret\n");

static void on_back(struct regs *r)
{
	r->rip = (u64)user_back;
	r->cs = 0x08;
	r->ss = 0x10;
	r->rsp = user_saved_rsp;
}

static void load_tables(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(gdt) - 1, (u64)gdt };
	u64 base = (u64)&tss;

	gdt[1] = 0x00af9b000000ffff;		/* 08, 10, 18: as in crt.S */
	gdt[2] = 0x00cf93000000ffff;
	gdt[3] = 0x00cf9b000000ffff;
	gdt[4] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ULL << 40 |
		 (base >> 24 & 0xff) << 56;
	gdt[5] = base >> 32;
	gdt[6] = 0x00affb000000ffff;		/* 30: 64-bit code, DPL 3 */
	gdt[7] = 0x00cff3000000ffff;		/* 38: data, DPL 3 */
	tss.rsp[0] = (u64)trap_stack + STACK;
	asm volatile("lgdt %0" : : "m"(pointer));
	asm volatile("ltr %0" : : "r"((u16)0x20));
}

void user_map(void)
{
	u64 *pml4 = (u64 *)(READ_CR(3) & ~0xfffUL);
	u64 *pdpt = (u64 *)(pml4[0] & ~0xfffUL & ~C_BIT);

	pml4[0] |= 4;
	for (int i = 0; i < 512; i++)
		pdpt[i] |= 4;
	flush_tlb();
}

void user_call(void (*fn)(void))
{
	u64 *stack = (u64 *)(user_stack + STACK - 16);

	load_tables();
	set_handler(VECTOR_BACK, on_back);
	idt[VECTOR_BACK][5] |= 0x60;
	*--stack = (u64)user_exit;
	user_enter(fn, stack);
	set_handler(VECTOR_BACK, NULL);
}
