/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a machine test needs: TAP on the serial port, MSRs, page tables, and
 * instructions that may fault. A test ends with done(), which makes QEMU exit
 * with 1 (all passed) or 3 (isa-debug-exit at port f4h: 2 * value + 1).
 */
#ifndef MACHINE_TEST_H
#define MACHINE_TEST_H

#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

extern volatile u64 exc_vector, exc_error, exc_rip, exc_cr2, exc_fixup;
extern u64 pml4[], pdpt[], pd[];

_Noreturn void quit(int value);

#define NONE		(~0ULL)
#define UD		6
#define GP		13
#define PF		14

/*
 * Run one instruction. exc_vector is NONE afterwards, or that of the
 * exception that it raised.
 */
#define TRY(insn, ...)							\
	do {								\
		exc_vector = NONE;					\
		exc_error = exc_cr2 = 0;				\
		asm volatile("leaq 99f(%%rip), %%r11\n\t"		\
			     "movq %%r11, exc_fixup\n\t"		\
			     insn "\n99:\n\t"				\
			     "movq $0, exc_fixup"			\
			     __VA_ARGS__);				\
	} while (0)

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return lo | (u64)hi << 32;
}

/* True: it went through; false: it faulted, see exc_vector. */
static inline bool wrmsr(u32 msr, u64 v)
{
	TRY("wrmsr", : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32))
	    : "r11", "memory");
	return exc_vector == NONE;
}

static inline bool try_write(volatile void *p, u64 v)
{
	TRY("movq %0, (%1)", : : "r"(v), "r"(p) : "r11", "memory");
	return exc_vector == NONE;
}

static inline bool try_read(volatile void *p, u64 *v)
{
	u64 r = 0;

	TRY("movq (%1), %0", : "+&r"(r) : "r"(p) : "r11", "memory");
	*v = r;
	return exc_vector == NONE;
}

static inline void flush_tlb(void)
{
	asm volatile("mov %%cr3, %%rax\n\tmov %%rax, %%cr3" : : : "rax", "memory");
}

static void print(const char *s)
{
	for (; *s; s++) {
		while (!(inb(0x3fd) & 0x20))
			;
		outb(0x3f8, *s);
	}
}

static void print_hex(u64 v)
{
	char buf[19] = "0x";
	int n = 2, digits = 16;

	while (digits > 1 && !(v >> (digits * 4 - 4)))
		digits--;
	while (digits--)
		buf[n++] = "0123456789abcdef"[v >> (digits * 4) & 15];
	buf[n] = 0;
	print(buf);
}

static void print_dec(unsigned int v)
{
	char buf[12];
	int n = sizeof(buf) - 1;

	buf[n] = 0;
	do {
		buf[--n] = '0' + v % 10;
		v /= 10;
	} while (v);
	print(buf + n);
}

static unsigned int tests, failed;

static bool ok(bool good, const char *name)
{
	print(good ? "ok " : "not ok ");
	print_dec(++tests);
	print(" - ");
	print(name);
	print("\n");
	failed += !good;
	return good;
}

static bool equal(u64 got, u64 want, const char *name)
{
	if (ok(got == want, name))
		return true;
	print("# got ");
	print_hex(got);
	print(", want ");
	print_hex(want);
	print("\n");
	return false;
}

/* The last TRY() raised the exception with that error code. */
static inline bool raised(u64 vector, u64 error, const char *name)
{
	if (ok(exc_vector == vector && exc_error == error, name))
		return true;
	print("# got vector ");
	print_hex(exc_vector);
	print(" error ");
	print_hex(exc_error);
	print(" CR2 ");
	print_hex(exc_cr2);
	print("\n");
	return false;
}

static _Noreturn void done(void)
{
	print("1..");
	print_dec(tests);
	print("\n");
	quit(failed ? 1 : 0);
}

_Noreturn void unexpected(void);
_Noreturn void unexpected(void)
{
	print("Bail out! exception ");
	print_dec(exc_vector);
	print(" error ");
	print_hex(exc_error);
	print(" at ");
	print_hex(exc_rip);
	print(" CR2 ");
	print_hex(exc_cr2);
	print("\n");
	quit(2);
}

#endif
