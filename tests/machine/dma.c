/*
 * DMA and the RMP: what a device may do to pages that are not the hypervisor's.
 * The device is QEMU's "edu", which copies up to 4K between memory and a buffer of
 * its own; the IOMMU passes its addresses through, or translates them by 2M pages.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "pci.h"
#include "rmp.h"

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
#define IOMMU_PRESENT		BIT(0)
#define IOMMU_READ		BIT(61)
#define IOMMU_WRITE		BIT(62)

#define MARK_MEMORY		0x1111111111111111UL
#define MARK_DEVICE		0x5ec4e75ec4e75ec4UL

/*
 * Free RAM, 2M regions within the 28 address bits of the device. The host has them in
 * large pages, so it can't write there while a page of the region is a guest's.
 */
#define REGIONS			0xe000000UL
#define REGION_SIZE		0x200000UL

static u64 device_table[256][4] __attribute__((aligned(2 * PAGE_SIZE)));
static u64 page_table[512] __attribute__((aligned(PAGE_SIZE)));
static volatile u64 source[512] __attribute__((aligned(PAGE_SIZE)));

static volatile u64 *edu, *iommu;
static u32 edu_function;

static void copy(u64 from, u64 to, u64 direction, u64 bytes)
{
	edu[EDU_DMA_SOURCE / 8] = from;
	edu[EDU_DMA_TARGET / 8] = to;
	edu[EDU_DMA_COUNT / 8] = bytes;
	edu[EDU_DMA_COMMAND / 8] = EDU_RUN | direction;
	while (edu[EDU_DMA_COMMAND / 8] & EDU_RUN)
		cpu_relax();
}

/* The device writes so many quadwords. */
static void device_writes(volatile u64 *to, int count)
{
	source[0] = source[1] = MARK_DEVICE;
	copy((u64)source, EDU_BUFFER, 0, 8 * count);
	copy(EDU_BUFFER, (u64)to, EDU_TO_MEMORY, 8 * count);
}

/* The quadword that the device reads there */
static u64 device_reads(volatile u64 *from)
{
	source[0] = 0;
	copy((u64)from, EDU_BUFFER, 0, 8);
	copy(EDU_BUFFER, (u64)source, EDU_TO_MEMORY, 8);
	return source[0];
}

/* The device does not write @page, which is somebody else's, but may write the one behind it. */
static void cannot_write(volatile u64 *page)
{
	volatile u64 *neighbour = page + PAGE_SIZE / sizeof(*page);

	device_writes(page, 1);
	device_writes(neighbour, 1);
	check_eq(neighbour[0], MARK_DEVICE, "the page next to it can be written");
	device_writes(page - 1, 2);
	check_eq(page[-1], MARK_DEVICE, "also by a transfer that goes on in this one");
}

static void test_firmware_page(u64 region)
{
	volatile u64 *page = (u64 *)(region + PAGE_SIZE);

	page[0] = MARK_MEMORY;
	if (rmp_assign((u64)page, 0, 0, false, true))
		check(false, "RMPUPDATE");
	check_eq(device_reads(page), MARK_MEMORY, "a read is not hindered");
	cannot_write(page);
	check_eq(page[0], MARK_MEMORY, "but this one is not");
}

/* @region: with no page that the IOMMU has met before, since it caches translations */
static void test_guest_pages(u64 region)
{
	volatile u64 *page = (u64 *)(region + PAGE_SIZE), *inside = (u64 *)(region + 5 * PAGE_SIZE);

	page[0] = MARK_MEMORY;
	if (rmp_assign((u64)page, 0x1000, 1, false, false))
		check(false, "RMPUPDATE");
	check(page[0] != MARK_MEMORY && device_reads(page) == page[0], "a read gives the ciphertext that the host sees");
	cannot_write(page);
	rmp_release((u64)page, false);
	check_eq(page[0], MARK_MEMORY, "but this one is not");
	device_writes(page, 1);
	check_eq(page[0], MARK_DEVICE, "the hypervisor's again: the write arrives");

	inside[0] = MARK_MEMORY;
	if (rmp_assign(region, 0x200000, 1, true, false))
		check(false, "RMPUPDATE");
	check(inside[0] != MARK_MEMORY && device_reads(inside) == inside[0], "and so it does within 2M of a guest");
	device_writes(inside, 1);
	rmp_release(region, true);
	check_eq(inside[0], MARK_MEMORY, "which is not written either");
}

/* All devices: addresses as they are (@levels 0), or @levels levels of page tables */
static void set_device_table(int levels)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(device_table); i++)
		device_table[i][0] = DTE_VALID | DTE_TRANSLATE | DTE_LEVELS(levels) | (levels ? (u64)page_table : 0) |
				     IOMMU_READ | IOMMU_WRITE;
}

static bool find_devices(void)
{
	u32 function = pci_find_class(CLASS_IOMMU), cap;

	edu_function = pci_find(EDU_ID);
	if (!check(edu_function && function, "an IOMMU, and a device: -device edu"))
		return false;
	pci_write(edu_function, PCI_COMMAND, pci_read(edu_function, PCI_COMMAND) | PCI_MEMORY | PCI_MASTER);
	edu = (void *)(u64)(pci_read(edu_function, PCI_BAR(0)) & ~15u);
	cap = pci_capability(function, CAP_IOMMU);
	iommu = (void *)((u64)pci_read(function, cap + 8) << 32 | (pci_read(function, cap + 4) & ~0x3fffu));
	return check(cap && iommu, "the IOMMU's registers are where its capability says");
}

void test_main(void)
{
	volatile u64 *page = (u64 *)REGIONS;

	section("TEST dma", "Preparation");
	if (!find_devices())
		return;

	section("IOMMU SNP", "Without SNP a device may write everywhere.");
	device_writes(page, 1);
	check_eq(page[0], MARK_DEVICE, "IOMMU off");
	for (unsigned int i = 0; i < ARRAY_SIZE(page_table); i++)
		page_table[i] = (u64)i << 21 | IOMMU_PRESENT | IOMMU_READ | IOMMU_WRITE;
	set_device_table(0);
	iommu[IOMMU_DEVICE_TABLE / 8] = (u64)device_table | (sizeof(device_table) / PAGE_SIZE - 1);
	iommu[IOMMU_CONTROL / 8] = IOMMU_ENABLE;
	page[0] = 0;
	device_writes(page, 1);
	check_eq(page[0], MARK_DEVICE, "IOMMU on");

	rmp_clear();
	rmp_enable();
	section("IOMMU SNP", "A device may write only what is hypervisor-owned, and reads ciphertext elsewhere; addresses not translated.");
	test_guest_pages(REGIONS + REGION_SIZE);
	section("IOMMU SNP", "And translated, by 2M pages.");
	set_device_table(2);
	test_guest_pages(REGIONS + 2 * REGION_SIZE);
	section("IOMMU SNP", "Pages of firmware cannot be written either.");
	test_firmware_page(REGIONS + 3 * REGION_SIZE);
}
