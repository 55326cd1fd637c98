/*
 * Machine tests: the instructions of the RMP (APM vol. 3) and its entries
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#ifndef RMP_H
#define RMP_H

#include "machine.h"

#define MSR_SYSCFG		0xc0010010
#define MSR_RMP_BASE		0xc0010132
#define MSR_RMP_END		0xc0010133
#define MSR_RMP_CFG		0xc0010136
#define RMP_CFG_SEGMENTED	BIT(0)
#define RMP_SEGMENTS		512
#define RMP_SEGMENT_BASE(e)	((e) & 0xffffffff00000UL)
#define RMP_SEGMENT_GIB(e)	((e) & 0xfffffUL)

#define SYSCFG_MFDM		BIT(19)
#define SYSCFG_MEM_ENC		BIT(23)
#define SYSCFG_SNP_EN		BIT(24)
#define SYSCFG_VMPL_EN		BIT(25)

/* CPUID Fn8000_001F EAX */
#define SEV_RMPQUERY		BIT(6)
#define SEV_RMPREAD		BIT(21)
#define SEV_SEGMENTED_RMP	BIT(23)

static inline u32 sev_eax(void)
{
	u32 eax, ebx, ecx, edx;

	cpuid(0x8000001f, 0, &eax, &ebx, &ecx, &edx);
	return eax;
}

/* What the instructions return in EAX; FAULTED: see ex_vector */
enum {
	RMP_OK, FAIL_INPUT, FAIL_PERMISSION, FAIL_INUSE, FAIL_OVERLAP,
	FAIL_BADADDR = 4, FAIL_SIZEMISMATCH = 6, FAULTED = 0xdead,
};

/* Quadword 0 of an entry (firmware ABI) */
#define RMP_ASSIGNED		BIT(0)
#define RMP_2M			BIT(1)
#define RMP_IMMUTABLE		BIT(2)
#define RMP_ASID(n)		((u64)(n) << 51)
#define RMP_VMSA		BIT(61)
#define RMP_VALIDATED		BIT(62)
#define RMP_BOOKKEEPING		0x4000

/* VMPL rights, RDX of RMPADJUST */
#define VMPL_READ		BIT(8)
#define VMPL_WRITE		BIT(9)
#define VMPL_EXEC_USER		BIT(10)
#define VMPL_EXEC_SUPER		BIT(11)
#define ADJUST_VMSA		BIT(16)

/* #PF error codes */
#define PF_P			BIT(0)
#define PF_W			BIT(1)
#define PF_U			BIT(2)
#define PF_RSVD			BIT(3)
#define PF_ID			BIT(4)
#define PF_RMP			BIT(31)

/* In memory at RCX of RMPUPDATE and RMPREAD */
struct rmp_state {
	u64 gpa;
	u8 assigned, pagesize, immutable, reserved;
	u32 asid;
	u8 rest[16];
} __attribute__((packed, aligned(16)));

/* RMP_CFG; without segments 0 */
static inline u64 rmp_cfg(void)
{
	return sev_eax() & SEV_SEGMENTED_RMP ? rdmsr(MSR_RMP_CFG) : 0;
}

/* The table of segments: base of each one's entries, and how many GiB these cover */
static inline u64 *rmp_segments(void)
{
	return (void *)(rdmsr(MSR_RMP_BASE) + RMP_BOOKKEEPING);
}

/* The two quadwords of the page at @spa */
static inline u64 *rmp_quads(u64 spa)
{
	u64 cfg = rmp_cfg(), shift = cfg >> 8 & 0x3f;

	if (!(cfg & RMP_CFG_SEGMENTED))
		return rmp_segments() + (spa >> 12) * 2;
	return (u64 *)RMP_SEGMENT_BASE(rmp_segments()[spa >> shift]) + (spa & (BIT(shift) - 1)) / PAGE_SIZE * 2;
}

/* Quadword 0 of the entry of the page at @spa */
static inline u64 rmp_entry(u64 spa)
{
	return *(volatile u64 *)rmp_quads(spa);
}

/* Pages that the RMP covers */
static inline u64 rmp_pages(void)
{
	u64 pages = 0;

	if (!(rmp_cfg() & RMP_CFG_SEGMENTED))
		return (rdmsr(MSR_RMP_END) + 1 - rdmsr(MSR_RMP_BASE) - RMP_BOOKKEEPING) / 16;
	for (int i = 0; i < RMP_SEGMENTS; i++)
		pages += RMP_SEGMENT_GIB(rmp_segments()[i]) << 18;
	return pages;
}

/* Fill the table with zeroes: all pages are the hypervisor's. Before SNP is on. */
static inline void rmp_clear(void)
{
	u64 base = rdmsr(MSR_RMP_BASE);

	if (!(rmp_cfg() & RMP_CFG_SEGMENTED)) {
		memset((void *)base, 0, rdmsr(MSR_RMP_END) + 1 - base);
		return;
	}
	memset((void *)base, 0, RMP_BOOKKEEPING);
	for (int i = 0; i < RMP_SEGMENTS; i++) {
		u64 segment = rmp_segments()[i];

		memset((void *)RMP_SEGMENT_BASE(segment), 0, RMP_SEGMENT_GIB(segment) << 22);
	}
}

/* SNP on for this CPU */
static inline void rmp_enable(void)
{
	wrmsr(MSR_SYSCFG, rdmsr(MSR_SYSCFG) | SYSCFG_MFDM | SYSCFG_SNP_EN | SYSCFG_VMPL_EN);
}

static inline u32 rmpupdate_raw(u64 spa, const struct rmp_state *st)
{
	u32 ret = FAULTED;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf2, 0x0f, 0x01, 0xfe") : "=a"(ret)
		     : "a"(spa), "c"(st) : "memory", "cc");
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

static inline u32 rmp_assign(u64 spa, u64 gpa, u32 asid, bool size_2m, bool immutable)
{
	struct rmp_state st = {
		.gpa = gpa, .assigned = 1, .pagesize = size_2m,
		.immutable = immutable, .asid = asid,
	};

	return rmpupdate_raw(spa, &st);
}

/* Back to the hypervisor */
static inline u32 rmp_release(u64 spa, bool size_2m)
{
	struct rmp_state st = { .pagesize = size_2m };

	return rmpupdate_raw(spa, &st);
}

static inline u32 psmash(u64 spa)
{
	u32 ret = FAULTED;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf3, 0x0f, 0x01, 0xff") : "=a"(ret) : "a"(spa)
		     : "memory", "cc");
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

static inline u32 rmpread(u64 spa, struct rmp_state *st)
{
	u32 ret = FAULTED;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf2, 0x0f, 0x01, 0xfd") : "=a"(ret)
		     : "a"(spa), "c"(st) : "memory", "cc");
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

/* In a guest. @cf: nothing has changed. */
static inline u32 pvalidate(u64 va, u64 size, u64 validate, bool *cf)
{
	u32 ret = FAULTED;
	u8 c = 0;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf2, 0x0f, 0x01, 0xff") "setc %1"
		     : "=a"(ret), "+&q"(c) : "a"(va), "c"(size), "d"(validate)
		     : "memory", "cc");
	*cf = c;
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

/* @attrs: VMPL in 7:0, rights in 15:8, ADJUST_VMSA */
static inline u32 rmpadjust(u64 va, u64 size, u64 attrs)
{
	u32 ret = FAULTED;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf3, 0x0f, 0x01, 0xfe") : "=a"(ret)
		     : "a"(va), "c"(size), "d"(attrs) : "memory", "cc");
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

static inline u32 rmpquery(u64 va, u64 *size, u64 *attrs)
{
	u32 ret = FAULTED;
	u64 c = *size, d = *attrs;

	EX_BEGIN();
	asm volatile(EX(".byte 0xf3, 0x0f, 0x01, 0xfd") : "=a"(ret), "+c"(c), "+d"(d)
		     : "a"(va) : "memory", "cc");
	*size = c;
	*attrs = d;
	return ex_vector == NO_EXCEPTION ? ret : (u32)FAULTED;
}

#endif
