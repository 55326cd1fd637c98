/*
 * Machine tests: QEMU's device "edu", which copies up to 4K between memory and a buffer
 * of its own, behind the IOMMU
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef EDU_H
#define EDU_H

#include "machine.h"

/* Find the device and the IOMMU, and let the former reach memory. */
bool edu_init(void);
/* The IOMMU on, for all devices: addresses as they are (@levels 0), or @levels levels of page tables */
void iommu_enable(int levels, const void *page_table);
/* So many quadwords of @value */
void edu_write(volatile u64 *to, u64 value, int count);
/* The quadword that the device reads there */
u64 edu_read(volatile u64 *from);

#endif
