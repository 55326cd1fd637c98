// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: halted vCPUs.
 *
 * VMEXIT_IDLE_HLT says that hardware found nothing pending in the backing page.
 * Two things may wait for the vCPU all the same:
 *
 *   - Vectors or an NMI in the VMCB.  If VMRUN didn't take them, then the
 *     engine was off at that time.  The guest may have turned it on since, and
 *     halted.  So run the vCPU again (APM vol. 2, 15.36.21.2).
 *
 *   - EOIs of level-triggered vectors.  A vector that VMRUN has taken and that
 *     has no EOI was dropped by ALLOWED_IRR, or EOI'd without a VMGEXIT as TMR
 *     is clear.  KVM assumes that a vCPU in HLT has no interrupt in service,
 *     and EOIs the vector.  Otherwise the line would stay blocked.
 *
 * Neither may help, so attempts are limited: SAVIC_MAX_RETRIES at once, then at
 * intervals that double.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>

#include "x86.h"
#include "svm.h"
#include "savic.h"

/*
 * wake a halted vCPU after so many ms, in case that hardware reported Idle HLT
 * although something was pending; 0: never
 */
static unsigned int savic_idle_look_ms = 100;
module_param(savic_idle_look_ms, uint, 0644);

#define SAVIC_MAX_RETRIES	8
#define SAVIC_RETRY_MIN		(10 * NSEC_PER_MSEC)
#define SAVIC_RETRY_MAX		(160 * NSEC_PER_MSEC)

/* Return false if the limit is reached.  Then the timer wakes the vCPU. */
static bool savic_may_retry(struct savic *savic)
{
	ktime_t now = ktime_get();

	if (ktime_to_ns(ktime_sub(now, savic->retry_last)) > 2 * SAVIC_RETRY_MAX)
		savic->nr_retries = 0;

	if (savic->nr_retries >= SAVIC_MAX_RETRIES &&
	    ktime_before(now, savic->retry_next)) {
		savic_run_at(savic, savic->retry_next);
		return false;
	}

	if (savic->nr_retries < SAVIC_MAX_RETRIES) {
		savic->nr_retries++;
		savic->retry_interval = SAVIC_RETRY_MIN;
	} else {
		savic->retry_interval = min(2 * savic->retry_interval, SAVIC_RETRY_MAX);
	}

	savic->retry_last = now;
	savic->retry_next = ktime_add_ns(now, savic->retry_interval);
	return true;
}

/* The timer runs on if the vCPU wakes up, as starting it is expensive. */
static void savic_look_later(struct savic *savic)
{
	unsigned int ms = READ_ONCE(savic_idle_look_ms);

	if (ms && VALID_PAGE(READ_ONCE(savic->gpa)) &&
	    !hrtimer_is_queued(&savic->timer))
		savic_run_at(savic, ktime_add_ms(ktime_get(), ms));
}

/* The vCPU's new MP state is already set. */
static int savic_handle_idle_hlt(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct vmcb_control_area *control = &svm->vmcb->control;
	DECLARE_BITMAP(taken, KVM_NR_INTERRUPTS);
	struct savic *savic = svm->savic;
	bool look, eoi;

	look = VALID_PAGE(READ_ONCE(savic->gpa)) &&
	       (control->update_irr || control->int_ctl & V_NMI_PENDING_MASK);

	savic_level_taken(svm, taken);
	eoi = !bitmap_empty(taken, KVM_NR_INTERRUPTS);

	savic_look_later(savic);
	if (likely(!look && !eoi))
		return 1;

	if (!savic_may_retry(savic))
		return 1;

	/* The vCPU itself reads the flag before it blocks. */
	if (look)
		set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	if (!eoi || !savic_queue_eois(svm, true))
		return 1;

	return savic_send_eois(vcpu);
}

/* Handle VMEXIT_IDLE_HLT.  KVM doesn't intercept HLT in another way. */
int savic_handle_hlt(struct kvm_vcpu *vcpu)
{
	int r = kvm_emulate_halt(vcpu);

	return r > 0 ? savic_handle_idle_hlt(vcpu) : r;
}
