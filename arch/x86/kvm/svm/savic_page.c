// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: the backing page, from its registration to its end.
 *
 * Hardware reads and writes the backing page from VMRUN to #VMEXIT.  A nested
 * page fault on that page can't be restarted: the VMSA stays busy for ever.  So
 * KVM keeps the page that the guest registered mapped while the vCPU is in
 * guest mode:
 *
 *   - Before a mapping is zapped, KVM makes KVM_REQ_VMSA_PAGE_RELOAD, and waits
 *     for the vCPU to leave guest mode.  mmu_lock is held for write.
 *   - The vCPU services the request before it enters guest mode, as for the
 *     page of its VMSA: it takes the fault on behalf of hardware.  That takes
 *     mmu_lock, i.e. waits for the zap.
 *   - savic->gpa changes in the same way, and mmu_lock is released only after
 *     the vCPU has left guest mode.
 *
 * A page is registered for one VMSA.  If the vCPU registers it, that is the
 * current VMSA.  If another vCPU registers it, that is the VMSA of the next AP
 * Creation, but the current one may use the page until then.  The registration
 * ends when the vCPU leaves that VMSA (ap-creation-vs-destruction).
 *
 * Section numbers are of the AMD64 APM vol. 2, rev. 3.44.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>

#include "lapic.h"
#include "mmu.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"
#include "savic_trace.h"

/*
 * EXITINFO1 of VMEXIT_NPF: hardware can't restart the access (15.36.21, backing
 * page).
 */
#define SAVIC_NPF_NOT_RESTARTABLE	BIT_ULL(63)

/*
 * Wait until @vcpus have left guest mode.  A vCPU that is entering sees the
 * request after it has set IN_GUEST_MODE, and goes back (zap-vs-entry).
 * kvm_make_request_and_kick() wouldn't wait if another kick is on its way.
 */
static void savic_make_load_requests(struct kvm *kvm, unsigned long *vcpus)
{
	kvm_make_vcpus_request_mask(kvm, KVM_REQ_VMSA_PAGE_RELOAD, vcpus);
}

static void savic_make_load_request(struct kvm_vcpu *vcpu)
{
	DECLARE_BITMAP(vcpus, KVM_MAX_VCPUS);

	bitmap_zero(vcpus, KVM_MAX_VCPUS);
	__set_bit(vcpu->vcpu_idx, vcpus);
	savic_make_load_requests(vcpu->kvm, vcpus);
}

/*
 * Hardware may be using the old page until the vCPU has left guest mode, and
 * nobody zaps that before mmu_lock is released.  The request comes after the
 * GPA (register-vs-load).
 */
static void savic_set_page(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm *kvm = vcpu->kvm;

	write_lock(&kvm->mmu_lock);
	WRITE_ONCE(to_svm(vcpu)->savic->gpa, gpa);
	savic_make_load_request(vcpu);
	write_unlock(&kvm->mmu_lock);
}

/*
 * Register or unregister the backing page of @target.  The mutex keeps @target
 * from changing to another VMSA meanwhile.
 *
 * Return false if the request isn't valid.
 */
static bool savic_register(struct kvm_vcpu *vcpu, struct kvm_vcpu *target)
{
	struct savic *savic = to_svm(target)->savic;
	struct vcpu_svm *svm = to_svm(vcpu);
	u64 gpa = vcpu->arch.regs[VCPU_REGS_RBX];
	u64 action = svm->vmcb->control.exit_info_1;

	guard(mutex)(&to_svm(target)->sev_es.snp_vmsa_mutex);

	switch (action) {
	case SVM_VMGEXIT_SAVIC_REGISTER_GPA:
		/* savic_load_page() checks that the page is there. */
		if (!page_address_valid(vcpu, gpa) ||
		    !kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(gpa)))
			return false;

		savic->page_vmsa = target == vcpu ? savic->vmsa_current :
						    savic->vmsa_asked + 1;
		savic_set_page(target, gpa);
		break;
	case SVM_VMGEXIT_SAVIC_UNREGISTER_GPA:
		gpa = savic->gpa;
		if (!VALID_PAGE(gpa))
			return false;

		savic_set_page(target, INVALID_PAGE);
		savic_discard_vectors(savic);
		vcpu->arch.regs[VCPU_REGS_RBX] = gpa;
		break;
	default:
		return false;
	}

	trace_kvm_savic_register(vcpu, target->vcpu_id, gpa,
				 action == SVM_VMGEXIT_SAVIC_UNREGISTER_GPA);

	if (target != vcpu) {
		/* @target may have halted with vectors that wait. */
		set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

		/* Pairs with the vCPU's barrier, see savic_irq.c. */
		smp_mb__after_atomic();
		kvm_vcpu_kick(target);
	}
	return true;
}

/* Handle SVM_VMGEXIT_SAVIC (GHCB, "Secure AVIC"). */
int savic_handle_register(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	u64 apic_id = vcpu->arch.regs[VCPU_REGS_RAX];
	struct kvm_vcpu *target = vcpu;

	if (apic_id != SVM_VMGEXIT_SAVIC_SELF_GPA) {
		/* The x2APIC ID is the vCPU ID, RAX can have any value. */
		target = NULL;
		if (apic_id < KVM_MAX_VCPU_IDS)
			target = kvm_get_vcpu_by_id(vcpu->kvm, apic_id);
	}

	if (!kvm_ghcb_rax_is_valid(svm) ||
	    (svm->vmcb->control.exit_info_1 == SVM_VMGEXIT_SAVIC_REGISTER_GPA &&
	     !kvm_ghcb_rbx_is_valid(svm)))
		savic_refuse(svm, GHCB_ERR_MISSING_INPUT);
	else if (!target || !savic_register(vcpu, target))
		savic_refuse(svm, GHCB_ERR_INVALID_INPUT);
	return 1;
}

/*
 * Called before SPTEs of the GFNs from @start to @end, which is not included,
 * are zapped.
 */
void savic_invalidate_range(struct kvm *kvm, gfn_t start, gfn_t end)
{
	DECLARE_BITMAP(vcpus, KVM_MAX_VCPUS);
	struct kvm_vcpu *vcpu;
	bool found = false;
	unsigned long i;

	lockdep_assert_held_write(&kvm->mmu_lock);

	if (!static_branch_unlikely(&savic_used) || !savic_enabled_for_vm(kvm))
		return;

	bitmap_zero(vcpus, KVM_MAX_VCPUS);

	kvm_for_each_vcpu(i, vcpu, kvm) {
		gpa_t gpa = to_svm(vcpu)->savic->gpa;

		if (!VALID_PAGE(gpa) || gpa_to_gfn(gpa) < start ||
		    gpa_to_gfn(gpa) >= end)
			continue;

		vcpu->stat.savic_page_losses++;
		__set_bit(i, vcpus);
		found = true;
	}

	if (found)
		savic_make_load_requests(kvm, vcpus);
}

/* The vCPU switched to a new TDP root, which may lack the backing page. */
void savic_reload_page(struct kvm_vcpu *vcpu)
{
	if (VALID_PAGE(READ_ONCE(to_svm(vcpu)->savic->gpa)))
		kvm_make_request(KVM_REQ_VMSA_PAGE_RELOAD, vcpu);
}

/*
 * Service KVM_REQ_VMSA_PAGE_RELOAD: map the backing page, if one is registered.
 *
 * Return 0 on success or to try again, and an error to exit to userspace:
 * -EFAULT or -EHWPOISON with KVM_EXIT_MEMORY_FAULT if the page can't be
 * mapped.  The request stays pending unless the page is mapped, so the vCPU
 * doesn't enter guest mode without it.
 */
int savic_load_page(struct kvm_vcpu *vcpu)
{
	struct savic *savic = to_svm(vcpu)->savic;
	gpa_t gpa;
	int r;

	/*
	 * The request was cleared before the GPA is read.  Whoever changes the
	 * GPA makes a request after that (register-vs-load), and whoever zaps
	 * the mapping makes one before that (zap-vs-load).
	 */
	gpa = READ_ONCE(savic->gpa);
	if (!VALID_PAGE(gpa))
		return 0;

	r = kvm_tdp_try_map_private(vcpu, gpa);
	if (!r)
		return 0;

	kvm_make_request(KVM_REQ_VMSA_PAGE_RELOAD, vcpu);

	/* INIT is handled later, and may replace the VMSA and the page. */
	if (test_bit(KVM_APIC_INIT, &vcpu->arch.apic->pending_events))
		return 0;

	switch (r) {
	case -EAGAIN:
		/*
		 * An invalidation is in progress, or a memslot is being
		 * deleted.  vcpu_enter_guest() comes back for the request, and
		 * drops SRCU before that.
		 */
		return 0;
	case -EIO:
	case -ENOMEM:
		return r;
	default:
		kvm_prepare_memory_fault_exit(vcpu, gpa, PAGE_SIZE, true, false, true);
		return r == -EHWPOISON ? r : -EFAULT;
	}
}

/*
 * Return 0 to exit to userspace if the vCPU can't run again: hardware didn't
 * find its backing page, because the guest uses another page than it
 * registered.  Return 1 if the fault is an ordinary one.
 */
int savic_handle_npf(struct kvm_vcpu *vcpu)
{
	struct vmcb_control_area *control = &to_svm(vcpu)->vmcb->control;

	if (!(control->exit_info_1 & SAVIC_NPF_NOT_RESTARTABLE))
		return 1;

	vcpu_unimpl(vcpu,
		    "Secure AVIC: fault on GPA 0x%llx can't be restarted, backing page is 0x%llx\n",
		    control->exit_info_2, READ_ONCE(to_svm(vcpu)->savic->gpa));
	kvm_prepare_unexpected_reason_exit(vcpu, control->exit_code);
	return 0;
}

/*
 * The guest requested another VMSA for @vcpu, or none, and KVM has made
 * KVM_REQ_UPDATE_PROTECTED_GUEST_STATE.  Discard the vectors for the old VMSA.
 * With CREATE_ON_INIT the old VMSA runs on until the INIT.
 */
void savic_request_vmsa(struct kvm_vcpu *vcpu, unsigned int request)
{
	struct savic *savic = to_svm(vcpu)->savic;

	lockdep_assert_held(&to_svm(vcpu)->sev_es.snp_vmsa_mutex);

	if (request != SVM_VMGEXIT_AP_DESTROY)
		savic->vmsa_asked++;

	savic->discard_at_init = request == SVM_VMGEXIT_AP_CREATE_ON_INIT;
	if (savic->discard_at_init)
		return;

	/* The old VMSA must not take what is posted for the new one. */
	savic_make_load_request(vcpu);
	savic_discard_vectors(savic);
}

/* The vCPU itself changes to another VMSA (@valid), or to none. */
void savic_new_vmsa(struct kvm_vcpu *vcpu, bool valid)
{
	struct savic *savic = to_svm(vcpu)->savic;

	lockdep_assert_held(&to_svm(vcpu)->sev_es.snp_vmsa_mutex);

	if (savic->discard_at_init)
		savic_discard_vectors(savic);

	if (valid)
		savic->vmsa_current = savic->vmsa_asked;

	if (savic->page_vmsa < savic->vmsa_asked + !valid)
		savic_set_page(vcpu, INVALID_PAGE);
}
