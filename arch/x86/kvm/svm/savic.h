/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __KVM_X86_SVM_SAVIC_H
#define __KVM_X86_SVM_SAVIC_H

#include <linux/bitmap.h>
#include <linux/hrtimer.h>
#include <linux/interval_tree.h>
#include <linux/kvm_host.h>

#include "svm.h"

/*
 * Secure AVIC (APM vol. 2, 15.36.21): the guest owns its local APIC's state, in
 * a private page that the host can neither read nor write.  See savic.c for the
 * rules, and Documentation/virt/kvm/x86/secure-avic.rst for what userspace and
 * the guest see.
 */

/* Bits of struct savic's flags. */
enum savic_flag {
	/*
	 * Someone changed the guest's backing page (IRR or NmiReq) and only
	 * VMRUN will notice: don't block before having been in the guest once
	 * more.  Set by any CPU, cleared by the CPU that is about to VMRUN.
	 */
	SAVIC_LOOK_AGAIN,
	/*
	 * The APIC page was unregistered, forget what was handed to hardware
	 * but not taken.  Set by any CPU, the VMCB is changed by its owner.
	 */
	SAVIC_DISCARD_IRR,
};

/* Which VMSA the registered page is for. */
enum savic_page_owner {
	/* The vCPU's, or the one that was asked for. */
	SAVIC_PAGE_OF_VMSA,
	/* The vCPU's, and the guest has asked for another VMSA, or none. */
	SAVIC_PAGE_OF_OLD_VMSA,
	/* Another vCPU registered the page, for the VMSA that it will ask for. */
	SAVIC_PAGE_OF_NEXT_VMSA,
};

struct savic {
	struct kvm_vcpu *vcpu;

	/*
	 * Vectors that are not yet in the VMCB's REQUESTED_IRR.  Set by any CPU,
	 * moved to the VMCB only by the CPU that is about to VMRUN.
	 */
	DECLARE_BITMAP(pending, KVM_NR_INTERRUPTS);

	/*
	 * Level-triggered vectors that were posted and not yet EOI'd.  A vector
	 * is added before it becomes visible in @pending, so that the guest
	 * can't EOI a vector that isn't in here yet.
	 */
	DECLARE_BITMAP(level, KVM_NR_INTERRUPTS);

	/*
	 * Those of @level that were moved to the VMCB, i.e. that the guest may
	 * EOI: a vector that is in @level only is just being posted.  Owned by the
	 * vCPU.
	 */
	DECLARE_BITMAP(level_requested, KVM_NR_INTERRUPTS);

	unsigned long flags;

	/* Vectors that the guest EOI'd and userspace is still to be told of. */
	DECLARE_BITMAP(eoi, KVM_NR_INTERRUPTS);

	/*
	 * For tracing: the request in the VMCB has been added to since the last
	 * VMRUN, or was there already.  Owned by the vCPU.
	 */
	bool irr_new;
	bool irr_in_flight;

	/* V_NMI_PENDING was set at the last VMRUN. */
	bool nmi_in_flight;

	/* See savic_may_retry().  Owned by the vCPU. */
	struct hrtimer retry_timer;
	u64 retry_start;
	unsigned int nr_retries;

	/*
	 * The registered backing page, INVALID_PAGE if there is none.  Written
	 * by the guest's requests (of any vCPU) with mmu_lock held, read
	 * locklessly.  In kvm_sev_info's savic_pages as @page_node if valid.
	 */
	gpa_t gpa;
	struct interval_tree_node page_node;

	/* Protected by snp_vmsa_mutex. */
	enum savic_page_owner page_owner;
};

#ifdef CONFIG_KVM_AMD_SEV
DECLARE_STATIC_KEY_FALSE(savic_used);

/*
 * True if the vCPU is in Secure AVIC mode.  Costs other guests next to nothing
 * as long as no such vCPU exists.
 */
static __always_inline bool savic_active(struct kvm_vcpu *vcpu)
{
	return static_branch_unlikely(&savic_used) && to_svm(vcpu)->savic;
}

bool __init savic_hardware_setup(bool snp_enabled);
bool savic_enabled_for_vm(struct kvm *kvm);
int savic_vm_init(struct kvm *kvm);

int savic_vcpu_create(struct kvm_vcpu *vcpu);
void savic_vcpu_free(struct kvm_vcpu *vcpu);
void savic_create_vcpu_debugfs(struct kvm_vcpu *vcpu, struct dentry *dentry);
void savic_init_vmcb(struct vcpu_svm *svm);
void savic_init_vmsa(struct vcpu_svm *svm, struct sev_es_save_area *save);
void savic_recalc_msr_intercepts(struct kvm_vcpu *vcpu);
void savic_request_vmsa(struct kvm_vcpu *vcpu, bool create);
void savic_new_vmsa(struct kvm_vcpu *vcpu);

void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode, int vector);
bool savic_interrupt_blocked(struct kvm_vcpu *vcpu);
bool savic_nmi_allowed(struct kvm_vcpu *vcpu);
bool savic_has_interrupt(struct kvm_vcpu *vcpu);
void savic_prepare_vmrun(struct vcpu_svm *svm);
void savic_complete_vmrun(struct vcpu_svm *svm);

int savic_handle_vmgexit(struct kvm_vcpu *vcpu);
int savic_handle_msr_vmgexit(struct kvm_vcpu *vcpu);
int savic_handle_hlt(struct kvm_vcpu *vcpu);
int savic_handle_npf(struct kvm_vcpu *vcpu);

void savic_invalidate_range(struct kvm *kvm, gfn_t start, gfn_t end);
void savic_page_lost(struct kvm_vcpu *vcpu);
int savic_load_page(struct kvm_vcpu *vcpu);
#else
static __always_inline bool savic_active(struct kvm_vcpu *vcpu)
{
	return false;
}

static inline void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode,
					   int vector) {}
static inline bool savic_interrupt_blocked(struct kvm_vcpu *vcpu) { return false; }
static inline bool savic_nmi_allowed(struct kvm_vcpu *vcpu) { return false; }
static inline void savic_complete_vmrun(struct vcpu_svm *svm) {}
static inline int savic_handle_hlt(struct kvm_vcpu *vcpu) { return 1; }
static inline int savic_handle_npf(struct kvm_vcpu *vcpu) { return 1; }
static inline void savic_page_lost(struct kvm_vcpu *vcpu) {}
#endif

#endif /* __KVM_X86_SVM_SAVIC_H */
