// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: backing pages that are part of a 2M page of the RMP.
 *
 * KVM splits a 2M page (PSMASH) when the guest asks for another part of it, and
 * zaps its mapping.  For a backing page that would be a fault from which
 * hardware can't recover.  So the page is split before it is used.  RMP entries
 * that are assigned don't grow.
 *
 * guest_memfd has no such pages yet.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>

#include <asm/sev.h>

#include "mmu.h"
#include "svm.h"
#include "savic.h"

/* Return: 0, also if there is no page to be split, -EIO if PSMASH fails. */
static int savic_split_page(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	struct kvm_memory_slot *slot = kvm_vcpu_gfn_to_memslot(vcpu, gfn);
	struct kvm *kvm = vcpu->kvm;
	struct kvm_sev_info *sev = to_kvm_sev_info(kvm);
	struct page *page;
	bool assigned;
	int level, r = 0;
	kvm_pfn_t pfn;

	if (!kvm_mem_is_private(kvm, gfn) || !kvm_slot_has_gmem(slot) ||
	    kvm_gmem_get_pfn(kvm, slot, gfn, &pfn, &page, NULL))
		return 0;

	/*
	 * Whoever else has just split the page holds the mutex until its
	 * mapping is zapped.  A fault that saw the 2M page is then over.
	 */
	mutex_lock(&sev->psmash_mutex);
	if (!snp_lookup_rmpentry(pfn, &assigned, &level) && assigned &&
	    level > PG_LEVEL_4K) {
		if (snp_rmptable_psmash(pfn))
			r = -EIO;

		/* All of it, as another backing page may be in there. */
		gfn = ALIGN_DOWN(gfn, KVM_PAGES_PER_HPAGE(PG_LEVEL_2M));
		kvm_zap_gfn_range(kvm, gfn, gfn + KVM_PAGES_PER_HPAGE(PG_LEVEL_2M));
	}
	mutex_unlock(&sev->psmash_mutex);

	kvm_release_page_unused(page);
	return r;
}

/**
 * savic_split_and_load_page - split the 2M page, then map the backing page
 * @vcpu: the loaded vCPU, which services KVM_REQ_VMSA_PAGE_RELOAD
 *
 * Return: as savic_load_page(), or -EIO if the page can't be split.
 */
int savic_split_and_load_page(struct kvm_vcpu *vcpu)
{
	gpa_t gpa = READ_ONCE(to_svm(vcpu)->savic->gpa);
	int r;

	r = VALID_PAGE(gpa) ? savic_split_page(vcpu, gpa_to_gfn(gpa)) : 0;
	if (r) {
		kvm_make_request(KVM_REQ_VMSA_PAGE_RELOAD, vcpu);
		return r;
	}

	return savic_load_page(vcpu);
}
