/*
 * AMD security processor: SEV and SEV-SNP firmware behind its PCI mailbox
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_I386_AMD_PSP_H
#define HW_I386_AMD_PSP_H

#define TYPE_AMD_PSP "amd-psp"

#endif
