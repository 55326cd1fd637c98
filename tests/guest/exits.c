// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest that does one thing, chosen by the number that the runner patched
 * into the ROM, to see what the VMM makes of it. No exception is handled: one
 * that is not meant ends in a triple fault, of which the VMM tells. With AT_A_WORD
 * it waits for a character on the serial port first.
 */
#include <stdint.h>

#define MSR_GHCB	0xc0010130
#define MSR_SAVIC	0xc0010138

/* Requests of the GHCB MSR protocol (GHCB specification, 2.3.1) */
#define GHCB_REGISTER	0x012
#define GHCB_PSC	0x014
#define GHCB_TERMINATE	0x100

#define EXIT_IOIO	0x7b
#define EXIT_SAVIC	0x8000001a
#define EXIT_AP_CREATE	0x80000013

/* Of the VM: SNP and Secure AVIC. The hypervisor wants to hear the same. */
#define SEV_FEATURES	0x10001

#define AT_A_WORD	0x80	/* of the number; 0, 7 and 8 cannot have it */

#define VMSA_PAGE	0x12000
#define GHCB_PAGE	0x100000
#define SHARED(gpa)	((gpa) + 0x40000000ull)
#define NOWHERE		0x200000	/* memory, but nobody has asked for it */

extern const volatile uint8_t choice;

static void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return low | (uint64_t)high << 32;
}

static uint64_t vmgexit(uint64_t ghcb)
{
	wrmsr(MSR_GHCB, ghcb);
	asm volatile("rep; vmmcall" : : : "memory");
	return rdmsr(MSR_GHCB);
}

static void terminate(unsigned int set, unsigned int reason)
{
	vmgexit(GHCB_TERMINATE | set << 12 | reason << 16);
}

static void page_state(uint64_t gpa, int shared)
{
	if (vmgexit(GHCB_PSC | gpa | (shared ? 2ull : 1ull) << 52) >> 32)
		terminate(15, 1);
}

/* 64-bit fields of the GHCB, by their offset (table 3), which is also their place in the bitmap. */
static void ghcb_set(unsigned int offset, uint64_t value)
{
	volatile uint64_t *ghcb = (void *)SHARED(GHCB_PAGE);

	ghcb[offset / 8] = value;
	ghcb[(0x3f0 + offset / 64 / 8 * 8) / 8] |= 1ull << offset / 8 % 64;
}

static void ghcb_start(void)
{
	page_state(GHCB_PAGE, 1);
	if (vmgexit(GHCB_REGISTER | GHCB_PAGE) >> 12 != GHCB_PAGE >> 12)
		terminate(15, 2);
}

/* Call the hypervisor with RAX and RBX; returns SW_EXITINFO1, not 0 on failure. */
static uint32_t ghcb_call(uint64_t code, uint64_t info1, uint64_t info2, uint64_t rax, uint64_t rbx)
{
	volatile uint64_t *ghcb = (void *)SHARED(GHCB_PAGE);

	for (int i = 0; i < 512; i++)
		ghcb[i] = 0;
	*(volatile uint16_t *)SHARED(GHCB_PAGE + 0xffa) = 2;
	ghcb_set(0x390, code);
	ghcb_set(0x398, info1);
	ghcb_set(0x3a0, info2);
	ghcb_set(0x1f8, rax);
	ghcb_set(0x318, rbx);
	vmgexit(GHCB_PAGE);
	return ghcb[0x398 / 8];
}

/* The first serial port. */
static void say(const char *text)
{
	for (; *text; text++)
		ghcb_call(EXIT_IOIO, 0x3f8 << 16 | 1 << 4, 0, *text, 0);
}

static uint8_t in(uint16_t port)
{
	const volatile uint64_t *ghcb = (void *)SHARED(GHCB_PAGE);

	ghcb_call(EXIT_IOIO, port << 16 | 1 << 4 | 1, 0, 0, 0);
	return ghcb[0x1f8 / 8];
}

static void wait_for_a_word(void)
{
	ghcb_start();
	say("waiting\n");
	while (!(in(0x3fd) & 1))
		;
}

/* This vCPU gets a VMSA that no processor runs: it is all zeroes. */
static void bad_vmsa(void)
{
	uint32_t failed;

	asm volatile("rmpadjust" : "=a"(failed) : "a"(VMSA_PAGE), "c"(0), "d"(0x10001) : "memory", "cc");
	if (failed)
		terminate(15, 3);
	ghcb_start();
	failed = ghcb_call(EXIT_AP_CREATE, 1, VMSA_PAGE, SEV_FEATURES, 0);
	if (failed)
		terminate(15, 4);
}

/* The registered backing page is given away; the VMM has to put another one there. */
static void share_backing_page(void)
{
	ghcb_start();
	if (ghcb_call(EXIT_SAVIC, 0, 0, ~0ull, NOWHERE))
		terminate(15, 5);
	page_state(NOWHERE, 1);
	say("still here\n");
	terminate(0, 0);
}

void guest_main(void)
{
	if (choice & AT_A_WORD)
		wait_for_a_word();

	switch (choice & ~AT_A_WORD) {
	case 0:
		ghcb_start();
		say("waiting\n");
		break;
	case 1:
		terminate(0, 2);
		break;
	case 2:
		terminate(1, 12);
		break;
	case 3:
		terminate(7, 200);
		break;
	case 4:
		/* Hardware does not find the backing page. */
		wrmsr(MSR_SAVIC, NOWHERE | 1);
		break;
	case 5:
		asm volatile("ud2");
		break;
	case 6:
		/* Private, and not memory. */
		*(volatile uint32_t *)0xd0000000 = 0;
		break;
	case 7:
		bad_vmsa();
		break;
	case 8:
		share_backing_page();
		break;
	}
	for (;;)
		asm volatile("hlt");
}
