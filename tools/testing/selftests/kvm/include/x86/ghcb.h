/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest-side GHCB protocol, for SEV-ES and SEV-SNP selftest guests.
 *
 * Numbers are from AMD's "SEV-ES Guest-Hypervisor Communication Block
 * Standardization" (GHCB spec), version 2.
 */
#ifndef SELFTEST_KVM_GHCB_H
#define SELFTEST_KVM_GHCB_H

#include "kvm_util.h"
#include "processor.h"

/* GHCB MSR protocol (GHCB spec, 2.3.1): request and response codes. */
#define GHCB_MSR_INFO_MASK		GENMASK_ULL(11, 0)
#define GHCB_MSR_CPUID_REQ		0x004
#define GHCB_MSR_CPUID_RESP		0x005
#define GHCB_MSR_REG_GPA_REQ		0x012
#define GHCB_MSR_REG_GPA_RESP		0x013
#define GHCB_MSR_PSC_REQ		0x014
#define GHCB_MSR_PSC_RESP		0x015
#define GHCB_MSR_TERM_REQ		0x100

/* SW_EXITINFO1 of SVM_EXIT_IOIO, as in the VMCB (APM volume 2, 15.10.2). */
#define GHCB_IOIO_IN			BIT(0)
#define GHCB_IOIO_STR			BIT(2)
#define GHCB_IOIO_REP			BIT(3)
#define GHCB_IOIO_SZ8			BIT(4)
#define GHCB_IOIO_SZ16			BIT(5)
#define GHCB_IOIO_SZ32			BIT(6)
#define GHCB_IOIO_A64			BIT(9)

/* SW_EXITINFO1[31:0] on return, and SW_EXITINFO2 of a malformed request. */
enum ghcb_status {
	GHCB_OK			= 0,
	GHCB_EXCEPTION		= 1,
	GHCB_MALFORMED		= 2,
};

enum ghcb_error {
	GHCB_ERR_NOT_REGISTERED	= 1,
	GHCB_ERR_INVALID_USAGE,
	GHCB_ERR_INVALID_SCRATCH,
	GHCB_ERR_MISSING_INPUT,
	GHCB_ERR_INVALID_INPUT,
	GHCB_ERR_INVALID_EVENT,
};

/* Registers of a request; the bit numbers of ghcb_request.valid. */
enum ghcb_reg {
	GHCB_RAX, GHCB_RBX, GHCB_RCX, GHCB_RDX, GHCB_RSI, GHCB_CPL, GHCB_XCR0,
	NR_GHCB_REGS,
};

/*
 * One NAE event.  @exit_info_1 and @exit_info_2, and on return RAX to RDX, hold
 * what the hypervisor answered.
 */
struct ghcb_request {
	u64 exit_code;
	u64 exit_info_1;
	u64 exit_info_2;
	u64 reg[NR_GHCB_REGS];
	u32 valid;

	/* If non-NULL, copied to the shared buffer, which becomes SW_SCRATCH. */
	const void *buffer;
	u32 buffer_len;
};

/* Host side: give each of @nr_vcpus a shared page.  Before launch. */
void ghcb_init(struct kvm_vm *vm, u32 nr_vcpus);

/*
 * Guest side.  All may be called with interrupts on or off, but not from an NMI
 * handler: a vCPU has one GHCB only.
 *
 * The GHCB of a vCPU is set up and registered on its first use.
 */
bool ghcb_is_available(void);
u64 ghcb_msr_protocol(u64 request);
enum ghcb_status ghcb_vmgexit(struct ghcb_request *req);

enum ghcb_status ghcb_rdmsr(u32 msr, u64 *val);
enum ghcb_status ghcb_wrmsr(u32 msr, u64 val);

/* @gpa is a device's, @len at most eight. */
enum ghcb_status ghcb_mmio_write(gpa_t gpa, const void *data, u32 len);
enum ghcb_status ghcb_mmio_read(gpa_t gpa, void *data, u32 len);

/* The same by an instruction, for which there has to be a mapping whose GVAs are GPAs. */
static inline void mmio_write(gpa_t gpa, u32 val)
{
	asm volatile("movl %%eax, (%%rdx)" : : "a" (val), "d" (gpa) : "memory");
}

static inline u32 mmio_read(gpa_t gpa)
{
	u32 val;

	asm volatile("movl (%%rdx), %%eax" : "=a" (val) : "d" (gpa) : "memory");
	return val;
}

#define IOAPIC_GPA		0xfec00000ull
#define IOAPIC_WINDOW		0x10

/* The registers of a pin's redirection entry (low half, high half is next). */
#define IOAPIC_REDIR(pin)	(0x10 + 2 * (pin))
#define IOAPIC_LEVEL		BIT(15)
#define IOAPIC_MASKED		BIT(16)

/* Write a register of the I/O APIC, which is where KVM puts it. */
void ghcb_ioapic_write(u32 reg, u32 val);

/* Write @len bytes, a multiple of four and at most eight, to an I/O port. */
void ghcb_outs(u16 port, const void *data, u32 len);

/*
 * SNP only: have the host convert the page, and (in)validate it.  Userspace gets
 * KVM_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE in between.  Page tables, i.e.
 * the C-bit, are the caller's business.
 */
void snp_set_page_shared(gpa_t gpa, gva_t private_gva);
void snp_set_page_private(gpa_t gpa, gva_t private_gva);

/* Validates 2M that the host has given to the guest.  False if not as one page of the RMP. */
bool snp_validate_large_page(gva_t gva);

/* Terminates the VM, with KVM_EXIT_SYSTEM_EVENT and KVM_SYSTEM_EVENT_SEV_TERM. */
void __noreturn ghcb_terminate(void);

/* The #VC handler that every SEV-ES and SNP VM starts out with. */
void sev_vc_handler(struct ex_regs *regs);

#endif /* SELFTEST_KVM_GHCB_H */
