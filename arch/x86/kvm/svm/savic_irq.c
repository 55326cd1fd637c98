// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts and NMIs, from the sender to VMRUN.
 *
 * Any CPU posts vectors into struct savic.  Only the CPU that is about to VMRUN
 * moves them to the VMCB.  VMRUN takes them if the engine is on, otherwise they
 * stay in the VMCB for the next VMRUN.
 *
 * A sender sets a bit in @pending, or the guest has written the target's
 * backing page.  The sender then sets SAVIC_LOOK_AGAIN and reads vcpu->mode:
 *
 *        sender                              vCPU
 *        ------                              ----
 *        set pending, or write the
 *          target's backing page
 *        set SAVIC_LOOK_AGAIN                mode = OUTSIDE_GUEST_MODE
 *        full barrier                        full barrier
 *        read mode:                          read SAVIC_LOOK_AGAIN:
 *          in guest: kick or doorbell          set: VMRUN
 *          else: wake                          clear: block
 *
 * Before it blocks (look-again-vs-sleep, doorbell-vs-exit): without the
 * sender's barrier, the sender could see the vCPU in guest mode and ring a
 * doorbell that is ignored, while the vCPU doesn't see the flag and blocks.
 *
 * On entry (look-again-vs-entry): the vCPU sets IN_GUEST_MODE, has a full
 * barrier, and reads the flag.  Either the vCPU sees the flag, or the sender
 * sees IN_GUEST_MODE.  A kick then ends guest mode.  A doorbell that comes
 * before VMRUN has no effect, but VMRUN evaluates the backing page.
 *
 * Before VMRUN (look-again-vs-vmrun): the vCPU clears the flag, has a full
 * barrier, and reads @pending and, by VMRUN, the backing page.  A sender that
 * sets a vector after that also sets the flag again, for the next VMRUN.
 *
 * Names in parentheses are those of litmus tests in
 * Documentation/litmus-tests/kvm.  NMIs from the host and AP Creation use KVM's
 * requests (nmi-before-request, nmi-vs-entry, nmi-vs-sleep,
 * ap-creation-vs-sleep).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>

#include <asm/apic.h>

#include "lapic.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"
#include "savic_trace.h"

/* ring doorbells for IPIs to vCPUs in guest mode, else send them an IPI */
bool __ro_after_init savic_doorbell = true;
module_param(savic_doorbell, bool, 0444);

/* A local APIC never delivers vectors below 16. */
#define SAVIC_FIRST_VECTOR	16

/* See savic_complete_nmi(). */
#define SAVIC_SECOND_NMI_DELAY	(5 * NSEC_PER_MSEC)

static void savic_notify(struct kvm_vcpu *vcpu, enum savic_notify how)
{
	if (how == SAVIC_NOTIFY_DOORBELL && !savic_doorbell)
		how = SAVIC_NOTIFY_KICK;

	switch (how) {
	case SAVIC_NOTIFY_KICK:
		atomic64_inc(&vcpu->stat.savic_kicks);
		kvm_vcpu_kick(vcpu);
		break;
	case SAVIC_NOTIFY_DOORBELL:
		atomic64_inc(&vcpu->stat.savic_doorbells);
		avic_ring_doorbell(vcpu);
		break;
	case SAVIC_NOTIFY_WAKE:
		atomic64_inc(&vcpu->stat.savic_wakes);
		kvm_vcpu_wake_up(vcpu);
		break;
	default:
		break;
	}

	trace_kvm_savic_notify(vcpu, how);
}

/* Post a vector from the host.  Callable from any context. */
void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode, int vector)
{
	struct savic *savic = to_svm(vcpu)->savic;

	trace_kvm_savic_post(vcpu, vector, trig_mode);

	if (vector < SAVIC_FIRST_VECTOR)
		return;

	if (trig_mode) {
		set_bit(vector, savic->level);

		/* Pairs with xchg() on @pending (level-before-pending). */
		smp_mb__after_atomic();
	}

	set_bit(vector, savic->pending);

	/* Pairs with the barrier in savic_request() (look-again-vs-vmrun). */
	smp_mb__after_atomic();
	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* Pairs with the vCPU's barrier, see the top of this file. */
	smp_mb__after_atomic();

	atomic64_inc(&vcpu->stat.savic_posted);

	/* Only VMRUN evaluates REQUESTED_IRR, a doorbell has no effect. */
	savic_notify(vcpu, SAVIC_NOTIFY_KICK);
}

/*
 * Make @vcpu evaluate its backing page, which another vCPU has written.  A
 * doorbell is enough for IRR, but only VMRUN evaluates NmiReq (15.36.21.4).
 */
void savic_look_again(struct kvm_vcpu *vcpu, bool nmi)
{
	set_bit(SAVIC_LOOK_AGAIN, &to_svm(vcpu)->savic->flags);

	/* Pairs with the vCPU's barrier, see the top of this file. */
	smp_mb__after_atomic();

	/* The sender itself is about to VMRUN. */
	if (vcpu == kvm_get_running_vcpu())
		savic_notify(vcpu, SAVIC_NOTIFY_NONE);
	else if (nmi)
		savic_notify(vcpu, SAVIC_NOTIFY_KICK);
	else if (READ_ONCE(vcpu->mode) == IN_GUEST_MODE)
		savic_notify(vcpu, SAVIC_NOTIFY_DOORBELL);
	else
		savic_notify(vcpu, SAVIC_NOTIFY_WAKE);
}

/*
 * Return true if a halted vCPU must VMRUN.  The wakeup is spurious if the guest
 * masks the interrupt, which KVM can't see.
 *
 * The vCPU's full barrier is smp_mb__after_srcu_read_lock() in
 * vcpu_enter_guest() if it just halted, and set_current_state() in
 * kvm_vcpu_block() if it is about to sleep.
 */
bool savic_has_interrupt(struct kvm_vcpu *vcpu)
{
	return test_bit(SAVIC_LOOK_AGAIN, &to_svm(vcpu)->savic->flags);
}

/* Is the vCPU a candidate for directed yield? */
bool savic_dy_has_interrupt(struct kvm_vcpu *vcpu)
{
	return savic_active(vcpu) && savic_has_interrupt(vcpu);
}

/*
 * Interrupts don't wake a vCPU that has no VMSA, that waits for INIT or SIPI,
 * or that is in AP Reset Hold.  KVM doesn't see whether the guest masks them.
 */
bool savic_interrupt_blocked(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);

	return !VALID_PAGE(svm->vmcb->control.vmsa_pa) ||
	       svm->sev_es.ap_reset_hold_type ||
	       (vcpu->arch.mp_state != KVM_MP_STATE_RUNNABLE &&
		vcpu->arch.mp_state != KVM_MP_STATE_HALTED);
}

/*
 * Return true if a halted vCPU must run for an NMI.  It must not if VMRUN
 * didn't take the previous one, as hardware can't hold a second one.
 */
bool savic_nmi_allowed(struct kvm_vcpu *vcpu)
{
	return !savic_interrupt_blocked(vcpu) &&
	       !(to_svm(vcpu)->vmcb->control.int_ctl & V_NMI_PENDING_MASK);
}

/*
 * Discard the vectors that were posted and that hardware hasn't taken.
 * Callable on any CPU, the vCPU itself clears REQUESTED_IRR.
 */
void savic_discard_vectors(struct savic *savic)
{
	int i;

	for (i = 0; i < SAVIC_WORDS; i++)
		WRITE_ONCE(savic->pending[i], 0);

	/* Pairs with test_and_clear_bit() (unregister-vs-vmrun). */
	smp_mb__before_atomic();
	set_bit(SAVIC_DISCARD_IRR, &savic->flags);
}

static void savic_discard_irr(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	int i;

	control->update_irr = 0;
	memset(control->requested_irr, 0, sizeof(control->requested_irr));

	/* The guest won't EOI these, savic_handle_idle_hlt() does. */
	for (i = 0; i < SAVIC_WORDS; i++)
		savic->level_requested[i] = READ_ONCE(savic->level[i]);
}

/* Move posted vectors to the VMCB.  Return true if there are any. */
static bool savic_request_irr(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	unsigned long vectors;
	bool found = false;
	int i;

	BUILD_BUG_ON(sizeof(control->requested_irr) != sizeof(savic->pending));

	for (i = 0; i < SAVIC_WORDS; i++) {
		if (!READ_ONCE(savic->pending[i]))
			continue;

		vectors = xchg(&savic->pending[i], 0);
		control->requested_irr[i] |= vectors;
		savic->level_requested[i] |= vectors & READ_ONCE(savic->level[i]);
		found = true;
	}

	return found;
}

/*
 * KVM's timer fires before a TSC deadline, and KVM waits for the rest of that
 * time before VMRUN.  Don't wait unless the timer's vector is in REQUESTED_IRR.
 */
static void savic_forget_deadline(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct kvm_lapic *apic = svm->vcpu.arch.apic;
	u8 vector = kvm_lapic_get_reg(apic, APIC_LVTT);

	if (!control->update_irr ||
	    !(control->requested_irr[vector / 64] & BIT_ULL(vector % 64)))
		apic->lapic_timer.expired_tscdeadline = 0;
}

/* Hand vectors and NMIs to hardware.  See savic_prepare_vmrun(). */
int savic_request(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	bool irr, nmi;

	if (test_and_clear_bit(SAVIC_DISCARD_IRR, &savic->flags))
		savic_discard_irr(svm);

	clear_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* A later sender sets the flag again (look-again-vs-vmrun). */
	smp_mb__after_atomic();

	nmi = control->int_ctl & V_NMI_PENDING_MASK;
	irr = savic_request_irr(svm);
	if (irr)
		control->update_irr = 1;
	if (irr || nmi)
		trace_kvm_savic_request(&svm->vcpu, control->requested_irr, nmi);

	if (nmi && svm->vcpu.arch.nmi_pending) {
		savic->second_nmi = ktime_add_ns(ktime_get(),
						 SAVIC_SECOND_NMI_DELAY);
		savic_run_at(savic, savic->second_nmi);
	}

	savic->nmi_waits = nmi || svm->vcpu.arch.nmi_pending;

	savic_forget_deadline(svm);
	return 0;
}

/*
 * VMRUN clears V_NMI_PENDING when it takes an NMI.  KVM can't see whether the
 * guest took it too, and hardware merges a second one if it didn't.  So pass
 * the second one after the next exit that isn't an interrupt's, or after
 * SAVIC_SECOND_NMI_DELAY.
 */
void savic_complete_nmi(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	bool nmi_left = control->int_ctl & V_NMI_PENDING_MASK;
	struct kvm_vcpu *vcpu = &svm->vcpu;
	struct savic *savic = svm->savic;

	if (vcpu->arch.nmi_pending && !nmi_left &&
	    (control->exit_code != SVM_EXIT_INTR ||
	     !ktime_before(ktime_get(), savic->second_nmi)))
		kvm_make_request(KVM_REQ_NMI, vcpu);

	savic->nmi_waits = nmi_left || vcpu->arch.nmi_pending;
}
