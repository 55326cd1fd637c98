/*
 * Machine tests: PCI functions of bus 0, by their configuration space
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef PCI_H
#define PCI_H

#include "machine.h"

#define PCI_COMMAND		0x04
#define PCI_MEMORY		BIT(1)
#define PCI_MASTER		BIT(2)
#define PCI_BAR(n)		(0x10 + 4 * (n))

/* @function is what pci_find() returns, @reg a multiple of 4. */
u32 pci_read(u32 function, u32 reg);
void pci_write(u32 function, u32 reg, u32 val);
/* By device ID in 31:16 and vendor ID in 15:0; by class and subclass. 0: there is none. */
u32 pci_find(u32 id);
u32 pci_find_class(u32 class);
/* Offset of the capability with that ID; 0: there is none. */
u32 pci_capability(u32 function, u8 id);

#endif
