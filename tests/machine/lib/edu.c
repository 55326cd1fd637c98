/*
 * Machine tests: DMA by QEMU's device "edu", and the IOMMU in front of it
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "edu.h"
#include "pci.h"

#define EDU_ID			0x11e81234
#define EDU_DMA_SOURCE		0x80
#define EDU_DMA_TARGET		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_COMMAND		0x98
#define EDU_RUN			BIT(0)
#define EDU_TO_MEMORY		BIT(1)
#define EDU_BUFFER		0x40000

#define CLASS_IOMMU		0x0806
#define CAP_IOMMU		0x0f
#define IOMMU_DEVICE_TABLE	0x00
#define IOMMU_CONTROL		0x18
#define IOMMU_ENABLE		BIT(0)

#define DTE_VALID		BIT(0)
#define DTE_TRANSLATE		BIT(1)
#define DTE_LEVELS(n)		((u64)(n) << 9)
#define DTE_READ		BIT(61)
#define DTE_WRITE		BIT(62)

static u64 device_table[256][4] __attribute__((aligned(2 * PAGE_SIZE)));
static volatile u64 bounce[512] __attribute__((aligned(PAGE_SIZE)));
static volatile u64 *edu, *iommu;

static void copy(u64 from, u64 to, u64 direction, u64 bytes)
{
	edu[EDU_DMA_SOURCE / 8] = from;
	edu[EDU_DMA_TARGET / 8] = to;
	edu[EDU_DMA_COUNT / 8] = bytes;
	edu[EDU_DMA_COMMAND / 8] = EDU_RUN | direction;
	while (edu[EDU_DMA_COMMAND / 8] & EDU_RUN)
		cpu_relax();
}

void edu_write(volatile u64 *to, u64 value, int count)
{
	for (int i = 0; i < count; i++)
		bounce[i] = value;
	copy((u64)bounce, EDU_BUFFER, 0, 8 * count);
	copy(EDU_BUFFER, (u64)to, EDU_TO_MEMORY, 8 * count);
}

u64 edu_read(volatile u64 *from)
{
	bounce[0] = 0;
	copy((u64)from, EDU_BUFFER, 0, 8);
	copy(EDU_BUFFER, (u64)bounce, EDU_TO_MEMORY, 8);
	return bounce[0];
}

void iommu_enable(int levels, const void *page_table)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(device_table); i++)
		device_table[i][0] = DTE_VALID | DTE_TRANSLATE | DTE_LEVELS(levels) | (u64)page_table |
				     DTE_READ | DTE_WRITE;
	iommu[IOMMU_DEVICE_TABLE / 8] = (u64)device_table | (sizeof(device_table) / PAGE_SIZE - 1);
	iommu[IOMMU_CONTROL / 8] = IOMMU_ENABLE;
}

bool edu_init(void)
{
	u32 edu_function = pci_find(EDU_ID), function = pci_find_class(CLASS_IOMMU), cap;

	if (!check(edu_function && function, "an IOMMU, and a device: -device edu"))
		return false;
	pci_write(edu_function, PCI_COMMAND, pci_read(edu_function, PCI_COMMAND) | PCI_MEMORY | PCI_MASTER);
	edu = (void *)(u64)(pci_read(edu_function, PCI_BAR(0)) & ~15u);
	cap = pci_capability(function, CAP_IOMMU);
	iommu = (void *)((u64)pci_read(function, cap + 8) << 32 | (pci_read(function, cap + 4) & ~0x3fffu));
	return check(cap && iommu, "the IOMMU's registers are where its capability says");
}
