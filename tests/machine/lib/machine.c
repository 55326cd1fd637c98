/*
 * Machine tests: reporting, exceptions, the second CPU
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "machine.h"

#define SERIAL		0x3f8
#define DEBUG_EXIT	0xf4
#define TRAMPOLINE	0x8000UL

#define MSR_APIC_BASE	0x1b
#define ICR_INIT	0x4500
#define ICR_SIPI	0x4600

/* ---- Reporting ---------------------------------------------------------- */

static unsigned int tests, failed;
static const char *tag = "TEST set-up";

static void put(char c)
{
	while (!(inb(SERIAL + 5) & 0x20))
		;
	outb(SERIAL, c);
}

static void put_number(u64 v, unsigned int base, bool negative, int width, char pad)
{
	char buf[24];
	int n = 0;

	do {
		buf[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (negative)
		buf[n++] = '-';
	for (; width > n; width--)
		put(pad);
	while (n)
		put(buf[--n]);
}

static void vprint(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		bool is_long = false;
		char pad = ' ';
		int width = 0;
		const char *s;

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		fmt++;
		if (*fmt == '0')
			pad = '0';
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + *fmt++ - '0';
		while (*fmt == 'l' || *fmt == 'z') {
			is_long = true;
			fmt++;
		}
		switch (*fmt) {
		case 'd': {
			long v = is_long ? va_arg(ap, long) : va_arg(ap, int);

			put_number(v < 0 ? -v : v, 10, v < 0, width, pad);
			break;
		}
		case 'u':
		case 'x':
			put_number(is_long ? va_arg(ap, u64) : va_arg(ap, u32),
				   *fmt == 'x' ? 16 : 10, false, width, pad);
			break;
		case 'c':
			put(va_arg(ap, int));
			break;
		case 's':
			for (s = va_arg(ap, const char *); *s; s++)
				put(*s);
			break;
		default:
			put(*fmt);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

void section(const char *new_tag, const char *says)
{
	tag = new_tag;
	print("# section %s: %s\n", tag, says);
}

bool check(bool ok, const char *fmt, ...)
{
	va_list ap;

	print("%sok %u - %s: ", ok ? "" : "not ", ++tests, tag);
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
	if (!ok)
		failed++;
	return ok;
}

bool check_eq(u64 seen, u64 expected, const char *what)
{
	if (seen == expected)
		return check(true, "%s", what);
	return check(false, "%s: seen 0x%lx, expected 0x%lx", what, seen, expected);
}

bool check_raised(u32 vector, u32 error, const char *what)
{
	if (ex_vector == vector && ex_error == error)
		return check(true, "%s", what);
	return check(false, "%s: seen vector %d, error code 0x%x, CR2 0x%lx; expected %u, 0x%x",
		     what, (int)ex_vector, ex_error, ex_cr2, vector, error);
}

void skip(const char *reason)
{
	print("1..0 # SKIP %s\n", reason);
	outb(DEBUG_EXIT, 2);
	for (;;)
		asm volatile("hlt");
}

void test_done(void)
{
	print("1..%u\n", tests);
	outb(DEBUG_EXIT, failed || !tests ? 1 : 0);
	for (;;)
		asm volatile("hlt");
}

/* ---- Exceptions ---------------------------------------------------------- */

struct gate {
	u16 offset_lo, selector;
	u8 ist, type;
	u16 offset_mid;
	u32 offset_hi, reserved;
};

extern struct gate idt[256];
extern char vector_stubs[];
extern const u64 ex_table[][2], ex_table_end[][2];

volatile u32 ex_vector, ex_error;
volatile u64 ex_cr2;
static volatile u64 ex_fetch;
static handler_t handlers[256];
handler_t unexpected_handler;

void set_handler(int vector, handler_t handler)
{
	handlers[vector] = handler;
}

u32 try_fetch(u64 va)
{
	EX_BEGIN();
	ex_fetch = va;
	asm volatile("call *%0" : : "r"(va) : "memory");
	ex_fetch = 0;
	return ex_vector;
}

static void caught(struct regs *r)
{
	ex_vector = r->vector;
	ex_error = r->error_code;
	ex_cr2 = READ_CR(2);
}

void trap(struct regs *r)
{
	if (handlers[r->vector]) {
		handlers[r->vector](r);
		return;
	}
	if (ex_fetch && r->rip == ex_fetch) {
		caught(r);
		r->rip = *(u64 *)r->rsp;
		r->rsp += 8;
		return;
	}
	for (int i = 0; &ex_table[i] < ex_table_end; i++) {
		if (ex_table[i][0] == r->rip) {
			caught(r);
			r->rip = ex_table[i][1];
			return;
		}
	}
	if (unexpected_handler) {
		unexpected_handler(r);
		return;
	}
	check(false, "unexpected vector %u, error code 0x%x, rip 0x%lx, cr2 0x%lx",
	      (u32)r->vector, (u32)r->error_code, r->rip, READ_CR(2));
	test_done();
}

static void set_up_idt(void)
{
	for (int i = 0; i < 256; i++) {
		u64 stub = (u64)vector_stubs;

		/* Each is aligned to 16 bytes and no longer than that. */
		stub += i * 16;
		idt[i] = (struct gate){
			.offset_lo = stub, .selector = 0x08, .type = 0x8e,
			.offset_mid = stub >> 16, .offset_hi = stub >> 32,
		};
	}
}

/* ---- The command line ------------------------------------------------------ */

/* PVH's hvm_start_info */
u32 start_info;
#define START_INFO_CMDLINE	24

bool machine_has(const char *name, const char *value, bool by_default)
{
	const char *c = *(const char **)((u64)start_info + START_INFO_CMDLINE);
	bool has = by_default;

	while (c && *c) {
		const char *n = name;

		while (*n && *c == *n)
			c++, n++;
		if (!*n && *c == '=') {
			for (n = value, c++; *n && *c == *n; n++)
				c++;
			has = !*n && (!*c || *c == ' ');
		}
		while (*c && *c != ' ')
			c++;
		while (*c == ' ')
			c++;
	}
	return has;
}

/* ---- Memory -------------------------------------------------------------- */

void *memset(void *p, int c, size_t n)
{
	void *ret = p;

	asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return ret;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

int memcmp(const void *a, const void *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int d = ((const u8 *)a)[i] - ((const u8 *)b)[i];

		if (d)
			return d;
	}
	return 0;
}

/* ---- The other CPU ------------------------------------------------------- */

extern char ap_trampoline[], ap_trampoline_end[];

static void (*volatile ap_fn)(void *);
static void *volatile ap_arg;
static volatile bool ap_up;

void ap_entry(void)
{
	apic_id();
	ap_up = true;
	for (;;) {
		while (!ap_fn)
			cpu_relax();
		ap_fn(ap_arg);
		ap_fn = NULL;
	}
}

u32 apic_id(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	/* xAPIC first: the step from disabled to x2APIC is not allowed. */
	if (!(base & BIT(11)))
		wrmsr(MSR_APIC_BASE, base |= BIT(11));
	if (!(base & BIT(10)))
		wrmsr(MSR_APIC_BASE, base | BIT(10));
	return rdmsr(MSR_X2APIC_ID);
}

static void delay(u64 cycles)
{
	u64 end = rdtsc() + cycles;

	while (rdtsc() < end)
		cpu_relax();
}

static u64 other_apic(void)
{
	return (u64)(apic_id() ^ 1) << 32;
}

void ap_init(void)
{
	wrmsr(MSR_X2APIC_ICR, other_apic() | ICR_INIT);
}

void ap_restart(void)
{
	ap_up = false;
	ap_fn = NULL;
	memcpy((void *)TRAMPOLINE, ap_trampoline, ap_trampoline_end - ap_trampoline);
	/* A CPU that has not taken its INIT yet does not see a SIPI; one that runs ignores it. */
	while (!ap_up) {
		wrmsr(MSR_X2APIC_ICR, other_apic() | ICR_SIPI | TRAMPOLINE >> 12);
		delay(20 * 1000 * 1000);
	}
}

void ap_run(void (*fn)(void *), void *arg)
{
	if (!ap_up) {
		ap_init();
		ap_restart();
	}
	ap_wait();
	ap_arg = arg;
	barrier();
	ap_fn = fn;
}

void ap_wait(void)
{
	while (ap_fn)
		cpu_relax();
}

/* ---- Start ----------------------------------------------------------------- */

void bsp_entry(void)
{
	set_up_idt();
	/* For software interrupts of the 8259s: none */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	print("TAP version 13\n");
	test_main();
	test_done();
}
