// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest-side GHCB protocol, for SEV-ES and SEV-SNP selftest guests.
 *
 * A VM has a pool of shared pages, contiguous in both address spaces.  A vCPU
 * takes its page on first use, and from then on finds it by the GPA in its own
 * GHCB MSR: no per-CPU data is needed.
 *
 * #VC and interrupt handlers use this file, and the selftests' exception entry
 * saves general purpose registers only: see the compiler flags in Makefile.kvm.
 */
#include "ghcb.h"
#include "sev.h"

/* The page itself (GHCB spec, table 3), the save area as an array of quadwords. */
struct ghcb_page {
	u64 save[0x3f0 / 8];
	u64 valid_bitmap[2];
	u8 reserved_400[0x400];
	u8 shared_buffer[0x7f0];
	u8 reserved_ff0[10];
	u16 protocol_version;
	u32 usage;
};

kvm_static_assert(sizeof(struct ghcb_page) == 4096);
kvm_static_assert(offsetof(struct ghcb_page, shared_buffer) == 0x800);

/* APM volume 3, PVALIDATE. */
#define PVALIDATE_FAIL_SIZEMISMATCH	6

#define GHCB_PROTOCOL_VERSION	2

/* Offsets in the save area. */
#define SAVE_CPL		0x0cb
#define SAVE_RAX		0x1f8
#define SAVE_RCX		0x308
#define SAVE_RDX		0x310
#define SAVE_RBX		0x318
#define SAVE_RSI		0x330
#define SAVE_SW_EXITCODE	0x390
#define SAVE_SW_EXITINFO1	0x398
#define SAVE_SW_EXITINFO2	0x3a0
#define SAVE_SW_SCRATCH		0x3a8
#define SAVE_XCR0		0x3e8

static const u16 save_offset[NR_GHCB_REGS] = {
	[GHCB_RAX] = SAVE_RAX, [GHCB_RBX] = SAVE_RBX, [GHCB_RCX] = SAVE_RCX,
	[GHCB_RDX] = SAVE_RDX, [GHCB_RSI] = SAVE_RSI, [GHCB_CPL] = SAVE_CPL,
	[GHCB_XCR0] = SAVE_XCR0,
};

/* A vCPU that the guest creates anew, on another VMSA, has lost its GHCB MSR. */
#define GHCB_PAGES_PER_VCPU	8

/* Guest copy only; the host never looks at its own. */
static struct ghcb_pool {
	gva_t gva;
	gpa_t gpa;
	u32 nr_pages;
	u32 nr_used;
	bool snp;
} ghcb_pool;

void ghcb_init(struct kvm_vm *vm, u32 nr_vcpus)
{
	struct ghcb_pool pool = {
		.nr_pages = max(nr_vcpus, 1u) * GHCB_PAGES_PER_VCPU,
		.snp = is_sev_snp_vm(vm),
	};

	pool.gva = vm_alloc_shared(vm, pool.nr_pages * PAGE_SIZE,
				   KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	pool.gpa = addr_gva2gpa(vm, pool.gva);
	write_guest_global(vm, ghcb_pool, pool);

	vm_install_exception_handler(vm, VC_VECTOR, sev_vc_handler);
}

bool ghcb_is_available(void)
{
	return ghcb_pool.nr_pages;
}

static unsigned long irq_save(void)
{
	unsigned long flags;

	asm volatile("pushfq; popq %0; cli" : "=r" (flags) : : "memory");
	return flags;
}

static void irq_restore(unsigned long flags)
{
	asm volatile("pushq %0; popfq" : : "r" (flags) : "memory", "cc");
}

static u64 __ghcb_msr_protocol(u64 request)
{
	wrmsr(MSR_AMD64_SEV_ES_GHCB, request);
	vmgexit();
	return rdmsr(MSR_AMD64_SEV_ES_GHCB);
}

/**
 * ghcb_msr_protocol - make a request by the GHCB MSR alone
 * @request: code in bits 11:0, data above
 *
 * The MSR is as before afterwards.
 *
 * Return: the response, with the same layout.
 */
u64 ghcb_msr_protocol(u64 request)
{
	unsigned long flags = irq_save();
	u64 old = rdmsr(MSR_AMD64_SEV_ES_GHCB);
	u64 response;

	response = __ghcb_msr_protocol(request);
	wrmsr(MSR_AMD64_SEV_ES_GHCB, old);
	irq_restore(flags);
	return response;
}

/* Without a GHCB there are no ucalls: GUEST_ASSERT() can't be used below here. */
void __noreturn ghcb_terminate(void)
{
	for (;;)
		__ghcb_msr_protocol(GHCB_MSR_TERM_REQ);
}

static struct ghcb_page *ghcb_get(void)
{
	u64 gpa = rdmsr(MSR_AMD64_SEV_ES_GHCB);

	if (!gpa || (gpa & GHCB_MSR_INFO_MASK)) {
		u32 i = __sync_fetch_and_add(&ghcb_pool.nr_used, 1);

		if (i >= ghcb_pool.nr_pages)
			ghcb_terminate();

		gpa = ghcb_pool.gpa + i * PAGE_SIZE;

		/* SNP guests must register (GHCB spec, 2.3.2), others can't. */
		if (ghcb_pool.snp &&
		    __ghcb_msr_protocol(gpa | GHCB_MSR_REG_GPA_REQ) !=
		    (gpa | GHCB_MSR_REG_GPA_RESP))
			ghcb_terminate();

		wrmsr(MSR_AMD64_SEV_ES_GHCB, gpa);
	}

	return (void *)(ghcb_pool.gva + (gpa - ghcb_pool.gpa));
}

static void ghcb_set(struct ghcb_page *ghcb, u32 offset, u64 val)
{
	u32 i = offset / 8;

	/* CPL is the only field that isn't a quadword. */
	WRITE_ONCE(ghcb->save[i], val << (offset % 8 * 8));
	WRITE_ONCE(ghcb->valid_bitmap[i / 64],
		   READ_ONCE(ghcb->valid_bitmap[i / 64]) | BIT_ULL(i % 64));
}

static u64 ghcb_get_field(struct ghcb_page *ghcb, u32 offset)
{
	return READ_ONCE(ghcb->save[offset / 8]);
}

/**
 * ghcb_vmgexit - have the hypervisor handle an NAE event
 * @req: the event, and its answer
 *
 * Return: what the hypervisor put in SW_EXITINFO1.  For GHCB_EXCEPTION,
 * @req->exit_info_2 has the event in EVENTINJ format, for GHCB_MALFORMED an enum
 * ghcb_error.
 */
enum ghcb_status ghcb_vmgexit(struct ghcb_request *req)
{
	unsigned long flags = irq_save();
	struct ghcb_page *ghcb = ghcb_get();
	u32 i;

	WRITE_ONCE(ghcb->valid_bitmap[0], 0);
	WRITE_ONCE(ghcb->valid_bitmap[1], 0);
	WRITE_ONCE(ghcb->protocol_version, GHCB_PROTOCOL_VERSION);
	WRITE_ONCE(ghcb->usage, 0);

	for (i = 0; i < NR_GHCB_REGS; i++) {
		if (req->valid & BIT(i))
			ghcb_set(ghcb, save_offset[i], req->reg[i]);
	}

	if (req->buffer) {
		for (i = 0; i < req->buffer_len; i++)
			WRITE_ONCE(ghcb->shared_buffer[i], ((const u8 *)req->buffer)[i]);
		ghcb_set(ghcb, SAVE_SW_SCRATCH, rdmsr(MSR_AMD64_SEV_ES_GHCB) +
			 offsetof(struct ghcb_page, shared_buffer));
	}

	ghcb_set(ghcb, SAVE_SW_EXITCODE, req->exit_code);
	ghcb_set(ghcb, SAVE_SW_EXITINFO1, req->exit_info_1);
	ghcb_set(ghcb, SAVE_SW_EXITINFO2, req->exit_info_2);

	vmgexit();
	barrier();

	req->exit_info_1 = ghcb_get_field(ghcb, SAVE_SW_EXITINFO1);
	req->exit_info_2 = ghcb_get_field(ghcb, SAVE_SW_EXITINFO2);
	for (i = GHCB_RAX; i <= GHCB_RDX; i++)
		req->reg[i] = ghcb_get_field(ghcb, save_offset[i]);

	irq_restore(flags);
	return (u32)req->exit_info_1;
}

enum ghcb_status ghcb_rdmsr(u32 msr, u64 *val)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_MSR,
		.reg[GHCB_RCX] = msr,
		.valid = BIT(GHCB_RCX),
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	*val = (u32)req.reg[GHCB_RAX] | req.reg[GHCB_RDX] << 32;
	return status;
}

enum ghcb_status ghcb_wrmsr(u32 msr, u64 val)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_MSR,
		.exit_info_1 = 1,
		.reg[GHCB_RCX] = msr,
		.reg[GHCB_RAX] = (u32)val,
		.reg[GHCB_RDX] = val >> 32,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX),
	};

	return ghcb_vmgexit(&req);
}

enum ghcb_status ghcb_mmio_write(gpa_t gpa, const void *data, u32 len)
{
	struct ghcb_request req = {
		.exit_code = SVM_VMGEXIT_MMIO_WRITE,
		.exit_info_1 = gpa,
		.exit_info_2 = len,
		.buffer = data,
		.buffer_len = len,
	};

	return ghcb_vmgexit(&req);
}

/* The answer is in the shared buffer. */
enum ghcb_status ghcb_mmio_read(gpa_t gpa, void *data, u32 len)
{
	struct ghcb_request req = {
		.exit_code = SVM_VMGEXIT_MMIO_READ,
		.exit_info_1 = gpa,
		.exit_info_2 = len,
		.buffer = data,
		.buffer_len = len,
	};
	unsigned long flags = irq_save();
	enum ghcb_status status = ghcb_vmgexit(&req);
	struct ghcb_page *ghcb = ghcb_get();
	u32 i;

	for (i = 0; i < len; i++)
		((u8 *)data)[i] = READ_ONCE(ghcb->shared_buffer[i]);
	irq_restore(flags);
	return status;
}

void ghcb_ioapic_write(u32 reg, u32 val)
{
	GUEST_ASSERT_EQ(ghcb_mmio_write(IOAPIC_GPA, &reg, sizeof(reg)), GHCB_OK);
	GUEST_ASSERT_EQ(ghcb_mmio_write(IOAPIC_GPA + IOAPIC_WINDOW, &val, sizeof(val)),
			GHCB_OK);
}

/*
 * String OUT, because it is the one port access that takes more than four bytes
 * to userspace in one exit, and without the guest's registers.
 */
void ghcb_outs(u16 port, const void *data, u32 len)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_IOIO,
		.exit_info_1 = (u64)port << 16 | GHCB_IOIO_A64 | GHCB_IOIO_SZ32 |
			       GHCB_IOIO_REP | GHCB_IOIO_STR,
		.exit_info_2 = len / 4,
		.buffer = data,
		.buffer_len = len,
	};

	if (ghcb_vmgexit(&req))
		ghcb_terminate();
}

/* Returns the instruction's return code; a page that it takes was in the other state before. */
static u32 pvalidate(gva_t gva, bool large, bool validate)
{
	bool no_change;
	u32 ret;

	asm volatile("pvalidate"
		     : "=@ccc" (no_change), "=a" (ret)
		     : "a" (gva), "c" (large), "d" (validate)
		     : "memory");
	GUEST_ASSERT(ret || !no_change);
	return ret;
}

static void snp_page_state_change(gpa_t gpa, u64 operation)
{
	u64 resp = ghcb_msr_protocol(operation << 52 | gpa | GHCB_MSR_PSC_REQ);

	GUEST_ASSERT_EQ(resp, (u64)GHCB_MSR_PSC_RESP);
}

void snp_set_page_shared(gpa_t gpa, gva_t private_gva)
{
	GUEST_ASSERT_EQ(pvalidate(private_gva, false, false), 0u);
	snp_page_state_change(gpa, 2);
}

void snp_set_page_private(gpa_t gpa, gva_t private_gva)
{
	snp_page_state_change(gpa, 1);
	GUEST_ASSERT_EQ(pvalidate(private_gva, false, true), 0u);
}

bool snp_validate_large_page(gva_t gva)
{
	u32 ret = pvalidate(gva, true, true);

	GUEST_ASSERT(!ret || ret == PVALIDATE_FAIL_SIZEMISMATCH);
	return !ret;
}
