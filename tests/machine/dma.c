/*
 * DMA and the RMP: what a device may do to pages that are not the hypervisor's.
 * The
 * IOMMU passes the addresses of QEMU's "edu" through, or translates them by 2M pages.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "edu.h"
#include "rmp.h"

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

static u64 page_table[512] __attribute__((aligned(PAGE_SIZE)));

/* The device does not write @page, which is somebody else's, but may write the one behind it. */
static void cannot_write(volatile u64 *page)
{
	volatile u64 *neighbour = page + PAGE_SIZE / sizeof(*page);

	edu_write(page, MARK_DEVICE, 1);
	edu_write(neighbour, MARK_DEVICE, 1);
	check_eq(neighbour[0], MARK_DEVICE, "the page next to it can be written");
	edu_write(page - 1, MARK_DEVICE, 2);
	check_eq(page[-1], MARK_DEVICE, "also by a transfer that goes on in this one");
}

static void test_firmware_page(u64 region)
{
	volatile u64 *page = (u64 *)(region + PAGE_SIZE);

	page[0] = MARK_MEMORY;
	if (rmp_assign((u64)page, 0, 0, false, true))
		check(false, "RMPUPDATE");
	check_eq(edu_read(page), MARK_MEMORY, "a read is not hindered");
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
	check(page[0] != MARK_MEMORY && edu_read(page) == page[0], "a read gives the ciphertext that the host sees");
	cannot_write(page);
	rmp_release((u64)page, false);
	check_eq(page[0], MARK_MEMORY, "but this one is not");
	edu_write(page, MARK_DEVICE, 1);
	check_eq(page[0], MARK_DEVICE, "the hypervisor's again: the write arrives");

	inside[0] = MARK_MEMORY;
	if (rmp_assign(region, 0x200000, 1, true, false))
		check(false, "RMPUPDATE");
	check(inside[0] != MARK_MEMORY && edu_read(inside) == inside[0], "and so it does within 2M of a guest");
	edu_write(inside, MARK_DEVICE, 1);
	rmp_release(region, true);
	check_eq(inside[0], MARK_MEMORY, "which is not written either");
}

void test_main(void)
{
	volatile u64 *page = (u64 *)REGIONS;

	section("TEST dma", "Preparation");
	if (!edu_init())
		return;

	section("IOMMU SNP", "Without SNP a device may write everywhere.");
	edu_write(page, MARK_DEVICE, 1);
	check_eq(page[0], MARK_DEVICE, "IOMMU off");
	for (unsigned int i = 0; i < ARRAY_SIZE(page_table); i++)
		page_table[i] = (u64)i << 21 | IOMMU_PRESENT | IOMMU_READ | IOMMU_WRITE;
	iommu_enable(0, NULL);
	page[0] = 0;
	edu_write(page, MARK_DEVICE, 1);
	check_eq(page[0], MARK_DEVICE, "IOMMU on");

	rmp_clear();
	rmp_enable();
	section("IOMMU SNP", "A device may write only what is hypervisor-owned, and reads ciphertext elsewhere; addresses not translated.");
	test_guest_pages(REGIONS + REGION_SIZE);
	section("IOMMU SNP", "And translated, by 2M pages.");
	iommu_enable(2, page_table);
	test_guest_pages(REGIONS + 2 * REGION_SIZE);
	section("IOMMU SNP", "Pages of firmware cannot be written either.");
	test_firmware_page(REGIONS + 3 * REGION_SIZE);
}
