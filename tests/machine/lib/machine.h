/*
 * Machine tests: the bare machine
 *
 * A test is one ELF file that QEMU starts by -kernel. It runs on the first
 * CPU, in 64-bit mode, without interrupts, with 512G mapped one to one; it
 * prints TAP on the serial port and leaves by test_done().
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_SIZE	4096
#define BIT(n)		(1ULL << (n))
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* The local APIC in x2APIC mode, in which apic_id() leaves it */
#define MSR_X2APIC_ID		0x802
#define MSR_X2APIC_EOI		0x80b
#define MSR_X2APIC_SVR		0x80f
#define MSR_X2APIC_IRR		0x820
#define MSR_X2APIC_ICR		0x830
#define MSR_X2APIC_LVTT		0x832
#define MSR_X2APIC_TMICT	0x838
#define MSR_X2APIC_TDCR		0x83e
#define MSR_X2APIC_SELF_IPI	0x83f

/* To be defined by the test */
void test_main(void);

/* ---- Reporting ---------------------------------------------------------- */

void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/*
 * What the following checks are about: @tag is the manual and its section ("APM2
 * 15.36.10"; also APM3, SNP for the firmware ABI), @says what it says there, in
 * one sentence. The table in the machine's documentation is made of this.
 */
void section(const char *tag, const char *says);
/* One TAP line; false makes the test fail. Returns @ok. */
bool check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for two numbers; shows both where they differ. */
bool check_eq(u64 seen, u64 expected, const char *what);
void skip(const char *reason);
/* TAP plan, and the end of the machine: exit status 1 if all is well, else 3 */
void test_done(void) __attribute__((noreturn));

/* ---- How the machine was started ------------------------------------------ */

/* Is "@name=@value" a word of the command line? Without any for @name: is it @by_default? */
bool machine_has(const char *name, const char *value, bool by_default);

/* ---- Exceptions ---------------------------------------------------------- */

struct regs {
	u64 rax, rbx, rcx, rdx, rsi, rdi, rbp;
	u64 r8, r9, r10, r11, r12, r13, r14, r15;
	u64 vector, error_code;
	u64 rip, cs, rflags, rsp, ss;
};

typedef void (*handler_t)(struct regs *);
/* Also for interrupts. NULL: an exception ends the test. */
void set_handler(int vector, handler_t handler);
/* In place of the end of the test for what nobody handles */
extern handler_t unexpected_handler;

/* Vector, error code and CR2 of the last exception that EX() caught */
extern volatile u32 ex_vector, ex_error;
extern volatile u64 ex_cr2;
/* Call @va, where there is a RET or no way to fetch one. Returns as wrmsr_safe(). */
u32 try_fetch(u64 va);
/* It was that one; shows it otherwise. */
bool check_raised(u32 vector, u32 error, const char *what);
#define NO_EXCEPTION	0xffffffffu

/*
 * Assembler for one instruction that may fault: execution goes on behind it,
 * with ex_vector set.
 */
#define EX(insn)					\
	"1:	" insn "\n"				\
	"2:\n"						\
	".pushsection .ex_table, \"a\"\n"		\
	"	.quad 1b, 2b\n"				\
	".popsection\n"

#define EX_BEGIN()	(ex_vector = NO_EXCEPTION)

/* ---- Instructions -------------------------------------------------------- */

static inline void outb(u16 port, u8 val)
{
	asm volatile("outb %0, %1" : : "a"(val), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 val;

	asm volatile("inb %1, %0" : "=a"(val) : "Nd"(port));
	return val;
}

/* Return the exception's vector, or NO_EXCEPTION. */
static inline u32 wrmsr_safe(u32 msr, u64 val)
{
	EX_BEGIN();
	asm volatile(EX("wrmsr") : : "c"(msr), "a"((u32)val), "d"((u32)(val >> 32))
		     : "memory");
	return ex_vector;
}

static inline u32 rdmsr_safe(u32 msr, u64 *val)
{
	u32 lo = 0, hi = 0;

	EX_BEGIN();
	asm volatile(EX("rdmsr") : "+a"(lo), "+d"(hi) : "c"(msr) : "memory");
	*val = (u64)hi << 32 | lo;
	return ex_vector;
}

static inline void wrmsr(u32 msr, u64 val)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)val), "d"((u32)(val >> 32))
		     : "memory");
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (u64)hi << 32 | lo;
}

static inline void cpuid(u32 leaf, u32 sub, u32 *a, u32 *b, u32 *c, u32 *d)
{
	asm volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d)
		     : "a"(leaf), "c"(sub));
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

#define READ_CR(n)						\
	({ u64 v_; asm volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_CR(n, v)						\
	asm volatile("mov %0, %%cr" #n : : "r"((u64)(v)) : "memory")

static inline void cpu_relax(void)
{
	asm volatile("pause" : : : "memory");
}

/* Exception vectors */
enum { DB = 1, BP = 3, UD = 6, DF = 8, GP = 13, PF = 14, VC = 29 };

#define barrier()	asm volatile("" : : : "memory")

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- The other CPU ------------------------------------------------------- */

/*
 * Start CPU 1 (once) and let it run @fn(@arg). It waits for more afterwards.
 * ap_wait() returns when it is done.
 */
void ap_run(void (*fn)(void *), void *arg);
void ap_wait(void);
/* INIT for CPU 1, which may take a while to see it */
void ap_init(void);
/* SIPI for CPU 1 after an INIT: it waits for ap_run() again, whatever it did before. */
void ap_restart(void);
/* x2APIC ID of this CPU; the first call turns x2APIC mode on. */
u32 apic_id(void);

#endif
