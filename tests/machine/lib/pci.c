/*
 * Machine tests: PCI functions
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "pci.h"

#define CONFIG_ADDRESS		0xcf8
#define CONFIG_DATA		0xcfc
#define FUNCTION(devfn)		(BIT(31) | (devfn) << 8)
#define FUNCTIONS		256

u32 pci_read(u32 function, u32 reg)
{
	u32 val;

	asm volatile("outl %0, %1" : : "a"(function | reg), "Nd"((u16)CONFIG_ADDRESS));
	asm volatile("inl %1, %0" : "=a"(val) : "Nd"((u16)CONFIG_DATA));
	return val;
}

void pci_write(u32 function, u32 reg, u32 val)
{
	asm volatile("outl %0, %1" : : "a"(function | reg), "Nd"((u16)CONFIG_ADDRESS));
	asm volatile("outl %0, %1" : : "a"(val), "Nd"((u16)CONFIG_DATA));
}

/* The first function whose register @reg, shifted right, is @val */
static u32 find(u32 reg, int shift, u32 val)
{
	for (u32 devfn = 0; devfn < FUNCTIONS; devfn++) {
		if (pci_read(FUNCTION(devfn), reg) >> shift == val)
			return FUNCTION(devfn);
	}
	return 0;
}

u32 pci_find(u32 id)
{
	return find(0, 0, id);
}

u32 pci_find_class(u32 class)
{
	return find(8, 16, class);
}

u32 pci_capability(u32 function, u8 id)
{
	u32 cap = pci_read(function, 0x34) & 0xfc;

	while (cap && (pci_read(function, cap) & 0xff) != id)
		cap = pci_read(function, cap) >> 8 & 0xfc;
	return cap;
}
