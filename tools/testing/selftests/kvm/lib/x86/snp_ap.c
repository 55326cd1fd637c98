// SPDX-License-Identifier: GPL-2.0-only
/*
 * SNP AP Creation (GHCB spec, 4.1.9): a guest that starts its own vCPUs.
 */
#include "sev.h"
#include "snp_ap.h"

/* Offsets in a VMSA (APM volume 2, table B-4). */
#define VMSA_ES			0x000
#define VMSA_CS			0x010
#define VMSA_SS			0x020
#define VMSA_DS			0x030
#define VMSA_FS			0x040
#define VMSA_GS			0x050
#define VMSA_GDTR		0x060
#define VMSA_LDTR		0x070
#define VMSA_IDTR		0x080
#define VMSA_TR			0x090
#define VMSA_EFER		0x0d0
#define VMSA_CR4		0x148
#define VMSA_CR3		0x150
#define VMSA_CR0		0x158
#define VMSA_DR7		0x160
#define VMSA_DR6		0x168
#define VMSA_RFLAGS		0x170
#define VMSA_RIP		0x178
#define VMSA_RSP		0x1d8
#define VMSA_G_PAT		0x268
#define VMSA_RDI		0x338
#define VMSA_VINTR_CTRL		0x3b8
#define VMSA_XCR0		0x3e8
#define VMSA_MXCSR		0x408
#define VMSA_X87_FCW		0x410

#define VINTR_CTRL_VGIF		BIT_ULL(9)
#define VINTR_CTRL_V_NMI_ENABLE	BIT_ULL(26)

/* Attributes: bits 55:52 and 47:40 of a descriptor. */
#define ATTR_CODE64		0xa9b
#define ATTR_DATA		0xc93
#define ATTR_LDT		0x082
#define ATTR_TSS64		0x08b

/* SEV_STATUS has SEV_FEATURES from this bit on (APM volume 2, 15.34.10). */
#define SEV_STATUS_FEATURES_SHIFT	2

#define RMPADJUST_VMPL1		1
#define RMPADJUST_VMSA		BIT_ULL(16)

#define STACK_PAGES		2

struct ap_page {
	u8 vmsa[PAGE_SIZE];
	u8 stack[STACK_PAGES * PAGE_SIZE];
};

/* Guest copy only. */
static struct ap_pool {
	struct ap_page *aps;
	gpa_t gpa;
	u32 nr;
} ap_pool;

void snp_alloc_vmsas(struct kvm_vm *vm, u32 nr)
{
	gva_t gva = vm_alloc_pages(vm, nr * sizeof(struct ap_page) / PAGE_SIZE);
	struct ap_pool pool = {
		.aps = (struct ap_page *)gva,
		.gpa = addr_gva2gpa(vm, gva),
		.nr = nr,
	};

	write_guest_global(vm, ap_pool, pool);
}

static struct ap_page *ap_page(u32 i)
{
	GUEST_ASSERT(i < ap_pool.nr);
	return &ap_pool.aps[i];
}

gpa_t snp_vmsa_gpa(u32 i)
{
	return ap_pool.gpa + ((gva_t)ap_page(i)->vmsa - (gva_t)ap_pool.aps);
}

static void vmsa_write(void *vmsa, u32 offset, u64 val)
{
	WRITE_ONCE(*(u64 *)(vmsa + offset), val);
}

static void vmsa_write_seg(void *vmsa, u32 offset, u16 selector, u16 attr,
			   u32 limit, u64 base)
{
	vmsa_write(vmsa, offset, selector | attr << 16 | (u64)limit << 32);
	vmsa_write(vmsa, offset + 8, base);
}

void snp_vmsa_write(u32 i, u32 offset, u64 val)
{
	vmsa_write(ap_page(i)->vmsa, offset, val);
}

u64 snp_sev_features(void)
{
	return rdmsr(MSR_AMD64_SEV) >> SEV_STATUS_FEATURES_SHIFT;
}

void snp_vmsa_init(u32 i, void (*entry)(u64 arg), u64 arg)
{
	struct ap_page *ap = ap_page(i);
	struct desc_ptr gdt = get_gdt(), idt = get_idt();
	u16 tr = get_tr();
	void *vmsa = ap->vmsa;
	u32 offset;

	for (offset = 0; offset < PAGE_SIZE; offset += sizeof(u64))
		vmsa_write(vmsa, offset, 0);

	vmsa_write_seg(vmsa, VMSA_CS, get_cs(), ATTR_CODE64, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_SS, get_ss(), ATTR_DATA, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_DS, get_ds(), ATTR_DATA, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_ES, get_es(), ATTR_DATA, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_FS, get_fs(), ATTR_DATA, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_GS, get_gs(), ATTR_DATA, -1u, 0);
	vmsa_write_seg(vmsa, VMSA_LDTR, 0, ATTR_LDT, 0, 0);
	vmsa_write_seg(vmsa, VMSA_TR, tr, ATTR_TSS64, 0x67,
		       get_desc64_base((struct desc64 *)(gdt.address + tr)));
	vmsa_write_seg(vmsa, VMSA_GDTR, 0, 0, gdt.size, gdt.address);
	vmsa_write_seg(vmsa, VMSA_IDTR, 0, 0, idt.size, idt.address);

	/* VMRUN wants to see SVME, which a guest can't write. */
	vmsa_write(vmsa, VMSA_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	vmsa_write(vmsa, VMSA_CR0, get_cr0());
	vmsa_write(vmsa, VMSA_CR3, get_cr3());
	vmsa_write(vmsa, VMSA_CR4, get_cr4());
	vmsa_write(vmsa, VMSA_XCR0, get_cr4() & X86_CR4_OSXSAVE ? xgetbv(0) : 1);
	vmsa_write(vmsa, VMSA_DR6, 0xffff0ff0);
	vmsa_write(vmsa, VMSA_DR7, 0x400);
	vmsa_write(vmsa, VMSA_G_PAT, 0x0007040600070406ull);
	vmsa_write(vmsa, VMSA_MXCSR, 0x1f80);
	vmsa_write(vmsa, VMSA_X87_FCW, 0x37f);

	vmsa_write(vmsa, VMSA_RFLAGS, X86_EFLAGS_FIXED);
	vmsa_write(vmsa, VMSA_RIP, (u64)entry);
	vmsa_write(vmsa, VMSA_RDI, arg);
	/* As if called: see vm_arch_vcpu_add(). */
	vmsa_write(vmsa, VMSA_RSP, (u64)ap->stack + sizeof(ap->stack) - 8);

	/* The VMCB's bits don't count with Secure AVIC, else these don't. */
	vmsa_write(vmsa, VMSA_VINTR_CTRL, VINTR_CTRL_VGIF | VINTR_CTRL_V_NMI_ENABLE);
	vmsa_write(vmsa, VMSA_SEV_FEATURES, snp_sev_features());
}

void snp_vmsa_seal(u32 i)
{
	u32 ret;

	asm volatile("rmpadjust"
		     : "=a" (ret)
		     : "a" (ap_page(i)->vmsa), "c" (0), "d" (RMPADJUST_VMPL1 | RMPADJUST_VMSA)
		     : "memory", "cc");
	GUEST_ASSERT_EQ(ret, 0u);
}

void snp_vmsa_prepare(u32 i, void (*entry)(u64 arg), u64 arg)
{
	snp_vmsa_init(i, entry, arg);
	snp_vmsa_seal(i);
}

enum ghcb_status snp_ap_request(u32 op, u32 apic_id, gpa_t vmsa, u64 sev_features)
{
	struct ghcb_request req = {
		.exit_code = SVM_VMGEXIT_AP_CREATION,
		.exit_info_1 = (u64)apic_id << 32 | op,
		.exit_info_2 = vmsa,
		.reg[GHCB_RAX] = sev_features,
		.valid = BIT(GHCB_RAX),
	};

	return ghcb_vmgexit(&req);
}

enum ghcb_status snp_ap_create(u32 apic_id, u32 i)
{
	return snp_ap_request(SVM_VMGEXIT_AP_CREATE, apic_id, snp_vmsa_gpa(i),
			      snp_sev_features());
}

enum ghcb_status snp_ap_destroy(u32 apic_id)
{
	return snp_ap_request(SVM_VMGEXIT_AP_DESTROY, apic_id, 0, 0);
}
