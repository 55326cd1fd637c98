/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __KVM_X86_SVM_SAVIC_H
#define __KVM_X86_SVM_SAVIC_H

#include <linux/bitmap.h>
#include <linux/hrtimer.h>
#include <linux/kvm_host.h>

#include "lapic.h"
#include "svm.h"

/*
 * Secure AVIC (APM vol. 2, 15.36.21): see savic.c for what is where, and
 * Documentation/virt/kvm/x86/secure-avic.rst for what userspace and the guest
 * see.
 */

/* Words of a set of vectors. */
#define SAVIC_WORDS		BITS_TO_LONGS(KVM_NR_INTERRUPTS)

/* How a vCPU is told of an interrupt. */
enum savic_notify {
	SAVIC_NOTIFY_NONE,
	SAVIC_NOTIFY_KICK,
	SAVIC_NOTIFY_DOORBELL,
	SAVIC_NOTIFY_WAKE,
};

/* Bits of struct savic's flags. */
enum savic_flag {
	/*
	 * VMRUN is needed: for a vector in @pending, for V_NMI_PENDING, or for
	 * a backing page that another vCPU changed.  The vCPU must not block.
	 * Set by any CPU, cleared by the CPU that is about to VMRUN.
	 */
	SAVIC_LOOK_AGAIN,
	/*
	 * Clear REQUESTED_IRR before VMRUN.  Set by any CPU, cleared by the CPU
	 * that is about to VMRUN.
	 */
	SAVIC_DISCARD_IRR,
};

struct savic {
	struct kvm_vcpu *vcpu;

	unsigned long flags;

	/*
	 * Vectors that are not yet in the VMCB's REQUESTED_IRR.  Set by any
	 * CPU, moved to the VMCB by the CPU that is about to VMRUN.
	 */
	DECLARE_BITMAP(pending, KVM_NR_INTERRUPTS);

	/*
	 * V_NMI_PENDING was set at the last VMRUN, or KVM holds a second NMI:
	 * see savic_complete_nmi().  Owned by the vCPU.
	 */
	bool nmi_waits;

	/* Earliest time to pass the second NMI.  Owned by the vCPU. */
	ktime_t second_nmi;

	/*
	 * Level-triggered vectors that were posted and are not yet EOI'd.  A
	 * vector is set here before it is set in @pending.
	 */
	DECLARE_BITMAP(level, KVM_NR_INTERRUPTS);

	/*
	 * The vectors of @level that were moved to the VMCB, i.e. that the
	 * guest may EOI.  Owned by the vCPU.
	 */
	DECLARE_BITMAP(level_requested, KVM_NR_INTERRUPTS);

	/* EOIs that the I/O APIC is still to get.  Owned by the vCPU. */
	DECLARE_BITMAP(eoi, KVM_NR_INTERRUPTS);

	/* For retries, the second NMI and savic_idle_look_ms. */
	struct hrtimer timer;

	/* See savic_may_retry().  Owned by the vCPU. */
	ktime_t retry_last;
	ktime_t retry_next;
	u64 retry_interval;
	unsigned int nr_retries;

	/*
	 * The registered backing page, INVALID_PAGE if there is none.  Written
	 * with mmu_lock held for write, read locklessly.
	 */
	gpa_t gpa;

	/*
	 * Numbers of VMSAs, in the order in which the guest requested them: the
	 * one that the vCPU runs on, the last one requested, and the one that
	 * @gpa is registered for.  Protected by snp_vmsa_mutex, as all below.
	 */
	u64 vmsa_current;
	u64 vmsa_asked;
	u64 page_vmsa;

	/* CREATE_ON_INIT is pending: discard vectors at the INIT. */
	bool discard_at_init;
};

DECLARE_STATIC_KEY_FALSE(savic_used);

/* Costs next to nothing as long as no vCPU is in Secure AVIC mode. */
static __always_inline bool savic_active(struct kvm_vcpu *vcpu)
{
	return IS_ENABLED(CONFIG_KVM_AMD_SEV) &&
	       static_branch_unlikely(&savic_used) && to_svm(vcpu)->savic;
}

/* savic.c */
bool __init savic_hardware_setup(bool snp_enabled);
bool savic_enabled_for_vm(struct kvm *kvm);
int savic_vm_init(struct kvm *kvm);
void savic_init_vmcb(struct vcpu_svm *svm);
void savic_init_vmsa(struct sev_es_save_area *save);
void savic_recalc_msr_intercepts(struct kvm_vcpu *vcpu);
int savic_vcpu_create(struct kvm_vcpu *vcpu);
void savic_vcpu_free(struct kvm_vcpu *vcpu);
void savic_create_vcpu_debugfs(struct kvm_vcpu *vcpu, struct dentry *dentry);

/* savic_irq.c */
extern bool savic_doorbell;

void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode, int vector);
void savic_look_again(struct kvm_vcpu *vcpu, bool nmi);
bool savic_has_interrupt(struct kvm_vcpu *vcpu);
bool savic_dy_has_interrupt(struct kvm_vcpu *vcpu);
bool savic_interrupt_blocked(struct kvm_vcpu *vcpu);
bool savic_nmi_allowed(struct kvm_vcpu *vcpu);
void savic_discard_vectors(struct savic *savic);
int savic_request(struct vcpu_svm *svm);
void savic_complete_nmi(struct vcpu_svm *svm);

/* Make the vCPU VMRUN at @time, and not at another time that was set before. */
static inline void savic_run_at(struct savic *savic, ktime_t time)
{
	hrtimer_start(&savic->timer, time, HRTIMER_MODE_ABS_HARD);
}

/*
 * Hand pending vectors and NMIs to hardware.  Called with IRQs disabled and
 * mode IN_GUEST_MODE, by the CPU that is about to VMRUN.  Always returns 0.
 */
static __always_inline int savic_prepare_vmrun(struct vcpu_svm *svm)
{
	if (unlikely(READ_ONCE(svm->savic->flags)))
		return savic_request(svm);

	/* See savic_forget_deadline(). */
	svm->vcpu.arch.apic->lapic_timer.expired_tscdeadline = 0;
	return 0;
}

/* The vCPU just left the guest on this CPU.  IRQs and GIF are disabled. */
static __always_inline void savic_complete_vmrun(struct vcpu_svm *svm)
{
	if (unlikely(svm->savic->nmi_waits))
		savic_complete_nmi(svm);
}

/* savic_page.c */
int savic_handle_register(struct kvm_vcpu *vcpu);
void savic_invalidate_range(struct kvm *kvm, gfn_t start, gfn_t end);
void savic_reload_page(struct kvm_vcpu *vcpu);
int savic_load_page(struct kvm_vcpu *vcpu);
int savic_handle_npf(struct kvm_vcpu *vcpu);
void savic_request_vmsa(struct kvm_vcpu *vcpu, unsigned int request);
void savic_new_vmsa(struct kvm_vcpu *vcpu, bool valid);

/* Tell the guest, by one of GHCB_ERR_*, that its request isn't valid. */
static inline void savic_refuse(struct vcpu_svm *svm, u64 error)
{
	svm->vcpu.stat.savic_refused_vmgexits++;
	svm_vmgexit_bad_input(svm, error);
}

/* savic_vmgexit.c */
void savic_level_taken(struct vcpu_svm *svm, unsigned long *vectors);
bool savic_queue_eois(struct vcpu_svm *svm, bool missing);
int savic_send_eois(struct kvm_vcpu *vcpu);
int savic_handle_msr_vmgexit(struct kvm_vcpu *vcpu);
int savic_handle_vmgexit(struct kvm_vcpu *vcpu);
void savic_inject_exception(struct kvm_vcpu *vcpu);

/*
 * Reset the limit of savic_may_retry(): the guest EOI'd a level-triggered
 * vector, or accessed MMIO, e.g. an I/O APIC.
 */
static __always_inline void savic_guest_is_active(struct savic *savic)
{
	savic->nr_retries = 0;
}

/* savic_halt.c */
int savic_handle_hlt(struct kvm_vcpu *vcpu);

/* savic_split.c */
int savic_split_and_load_page(struct kvm_vcpu *vcpu);

#endif /* __KVM_X86_SVM_SAVIC_H */
