/*
 * The APIC's registers in memory: only while it is enabled, in xAPIC mode (16.3.1, 16.9)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "machine.h"

#define MSR_APIC_BASE	0x1b
#define BASE_ENABLE	BIT(11)
#define BASE_X2APIC	BIT(10)
#define VERSION		0x30
#define TPR		0x80
#define TMICT		0x380

static volatile u32 *reg(u32 offset)
{
	return (u32 *)(0xfee00000UL + offset);
}

static void test_hidden(const char *mode)
{
	u32 version = *reg(VERSION), before = *reg(TPR);

	check(version == 0xffffffff || version == 0, "%s: reads are not of the version (0x%x)", mode, version);
	*reg(TPR) = 0x20;
	/* Ordinary memory keeps it. */
	check(*reg(TPR) == before || *reg(TPR) == 0x20, "%s: TPR", mode);
	*reg(TPR) = 0;
}

void test_main(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);
	u32 version;

	section("APM2 16.3.1", "In xAPIC mode the APIC's registers are in the page at the APIC base.");
	wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
	version = *reg(VERSION);
	check(version != 0xffffffff && (version & 0xff) >= 0x10, "version (0x%x)", version);
	*reg(TPR) = 0x30;
	check_eq(*reg(TPR), 0x30, "TPR");

	section("APM2 16.9", "In x2APIC mode they are not.");
	wrmsr(MSR_APIC_BASE, base | BASE_ENABLE | BASE_X2APIC);
	check_eq(rdmsr(0x808), 0x30, "TPR is an MSR");
	test_hidden("x2APIC mode");
	check_eq(rdmsr(0x808), 0x30, "TPR is what it was");

	section("APM2 16.3.1", "Nor while the APIC is disabled.");
	wrmsr(MSR_APIC_BASE, base & ~(BASE_ENABLE | BASE_X2APIC));
	test_hidden("disabled");
	wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
	check_eq(*reg(VERSION), version, "enabled again, they are there");
}
