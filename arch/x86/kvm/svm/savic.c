// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts for SEV-SNP guests that own their local APIC.
 *
 * In Secure AVIC mode the state of a vCPU's APIC lives in a guest-private
 * backing page, which hardware reads and writes with the guest's key.  The host
 * sees neither IRR nor ISR nor TPR, and can inject nothing: EVENTINJ and
 * V_IRQ of the VMCB are ignored.  What is left to the host is to
 *
 *   - ask for vectors: VMCB.REQUESTED_IRR, which VMRUN ANDs with the guest's
 *     ALLOWED_IRR and ORs into the backing page's IRR,
 *   - ask for an NMI: VMCB.V_NMI_PENDING, taken if the guest set AllowedNmi,
 *   - make a CPU look at the backing page again: VMRUN does so in full, the
 *     AVIC doorbell does so for IRR (but not for NmiReq and REQUESTED_IRR),
 *   - emulate what isn't in hardware: the timer and the other LVTs, IPIs to
 *     other vCPUs (the guest sets their IRR itself), EOI of level-triggered
 *     vectors, all of it on request by VMGEXIT.
 *
 * Two rules hold everywhere:
 *
 *   1. Any CPU posts into struct savic.  Only the CPU that is about to VMRUN
 *      moves what was posted to the VMCB.
 *
 *   2. A vCPU may block only after it has made "not in guest mode" visible and
 *      then found nothing posted and SAVIC_LOOK_AGAIN clear.  A sender first
 *      sets what it has to say, and then looks at the mode:
 *
 *        sender                              vCPU
 *        ------                              ----
 *        set pending or SAVIC_LOOK_AGAIN     mode = OUTSIDE_GUEST_MODE
 *        full barrier                        full barrier
 *        read mode:                          read pending, SAVIC_LOOK_AGAIN:
 *          in guest: kick or doorbell          any: VMRUN
 *          else: wake                          none: block
 *
 *      Without the sender's barrier it could see the vCPU in guest mode, ring
 *      a doorbell that nobody hears, and the vCPU not see the flag.  The other
 *      way round, on entry, the vCPU sets IN_GUEST_MODE, has a full barrier,
 *      and then moves pending to the VMCB: either it sees the vector, or the
 *      sender sees IN_GUEST_MODE and sends an IPI, which is held until VMRUN
 *      and then ends guest mode at once.
 *
 * Every such pair has a litmus test in Documentation/litmus-tests/kvm, named
 * in parentheses where its barriers are.  NMIs from the host and the creation
 * of APs aren't posted here, but are requests to a vCPU, for which the rules are
 * the same (nmi-before-request, nmi-vs-entry, nmi-vs-sleep, ap-creation-vs-sleep).
 *
 * Section numbers are of the AMD64 APM vol. 2, rev. 3.44.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/interval_tree.h>
#include <linux/kvm_host.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/seq_file.h>

#include <asm/apic.h>
#include <asm/sev.h>

#include "cpuid.h"
#include "ioapic.h"
#include "irq.h"
#include "lapic.h"
#include "mmu.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"

enum savic_notify {
	SAVIC_NOTIFY_NONE,
	SAVIC_NOTIFY_KICK,
	SAVIC_NOTIFY_DOORBELL,
	SAVIC_NOTIFY_WAKE,
};

#define CREATE_TRACE_POINTS
#include "savic_trace.h"

/* Counts the vCPUs in Secure AVIC mode, see savic_active(). */
DEFINE_STATIC_KEY_FALSE(savic_used);

/* enable/disable Secure AVIC for SEV-SNP guests that ask for it */
static bool __ro_after_init secure_avic = true;
module_param(secure_avic, bool, 0444);

/* The first 16 vectors are reserved, a local APIC never delivers them. */
#define SAVIC_FIRST_VECTOR	16

/**
 * savic_hardware_setup - decide whether KVM can offer Secure AVIC
 * @snp_enabled: KVM offers SNP VMs
 *
 * Called once at module load.
 *
 * The doorbell MSR is part of Secure AVIC, AVIC itself isn't needed.  Without
 * Idle-HLT KVM would have to let a halting vCPU sleep on an interrupt that it
 * can't see.  The shadow MMU recycles page tables behind the vCPUs' backs, only
 * the TDP MMU can keep backing pages mapped.
 *
 * Return: true if SVM_SEV_FEAT_SECURE_AVIC can be offered to userspace.
 */
bool __init savic_hardware_setup(bool snp_enabled)
{
	if (secure_avic)
		secure_avic = snp_enabled &&
			      boot_cpu_has(X86_FEATURE_SECURE_AVIC) &&
			      boot_cpu_has(X86_FEATURE_ALLOWED_SEV_FEATURES) &&
			      boot_cpu_has(X86_FEATURE_IDLE_HLT) &&
			      tdp_mmu_enabled &&
			      vgif && boot_cpu_has(X86_FEATURE_VGIF) &&
			      vnmi && boot_cpu_has(X86_FEATURE_VNMI);

	if (secure_avic)
		pr_info("Secure AVIC enabled\n");

	return secure_avic;
}

/*
 * True if the VM's vCPUs are in Secure AVIC mode, which is fixed before the
 * first vCPU is created.  Callable from any context.
 */
bool savic_enabled_for_vm(struct kvm *kvm)
{
	return to_kvm_sev_info(kvm)->vmsa_features & SVM_SEV_FEAT_SECURE_AVIC;
}

/**
 * savic_vm_init - prepare a VM for vCPUs in Secure AVIC mode
 * @kvm: the VM, no vCPU has been created yet
 *
 * Called with kvm->lock held, when userspace selects Secure AVIC.
 *
 * Return: 0, or -EINVAL if there already is a PIT, which by default waits for
 * EOIs that KVM is never going to see.
 */
int savic_vm_init(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->lock);

#ifdef CONFIG_KVM_IOAPIC
	if (kvm->arch.vpit)
		return -EINVAL;
#endif

	kvm->arch.has_protected_edge_eoi = true;
	to_kvm_sev_info(kvm)->savic_pages = RB_ROOT_CACHED;

	/*
	 * Recovering NX huge pages zaps page tables while vCPUs are in the guest.
	 * The mitigation is for Intel CPUs only.
	 */
	kvm->arch.disable_nx_huge_pages = true;
	return 0;
}

/*
 * Sets of vectors that other CPUs change at any time, by set_bit().  A reader may
 * miss what is added meanwhile, whoever adds it makes the reader look again.
 */
static void savic_read_vectors(unsigned long *dst, const unsigned long *src)
{
	int i;

	for (i = 0; i < BITS_TO_LONGS(KVM_NR_INTERRUPTS); i++)
		dst[i] = READ_ONCE(src[i]);
}

static bool savic_no_vectors(const unsigned long *vectors)
{
	int i;

	for (i = 0; i < BITS_TO_LONGS(KVM_NR_INTERRUPTS); i++) {
		if (READ_ONCE(vectors[i]))
			return false;
	}

	return true;
}

static void savic_clear_vectors(unsigned long *vectors)
{
	int i;

	for (i = 0; i < BITS_TO_LONGS(KVM_NR_INTERRUPTS); i++)
		WRITE_ONCE(vectors[i], 0);
}

/* Did the last VMRUN leave something behind because the engine was off? */
static bool savic_request_not_taken(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;

	return READ_ONCE(control->update_irr) ||
	       READ_ONCE(control->int_ctl) & V_NMI_PENDING_MASK;
}

static void savic_notify(struct kvm_vcpu *vcpu, enum savic_notify how)
{
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

/**
 * savic_deliver_interrupt - post a vector from the host
 * @vcpu: the target, may be any vCPU of a VM with Secure AVIC
 * @trig_mode: nonzero if level-triggered
 * @vector: the vector
 *
 * Callable from any context, also from hard interrupts.  Whether the guest
 * allows the vector is known to hardware only.
 */
void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode, int vector)
{
	struct savic *savic = to_svm(vcpu)->savic;

	trace_kvm_savic_post(vcpu, vector, trig_mode);

	if (vector < SAVIC_FIRST_VECTOR) {
		atomic64_inc(&vcpu->stat.savic_illegal_vectors);
		return;
	}

	if (trig_mode)
		set_bit(vector, savic->level);

	/*
	 * The guest can't EOI what isn't pending yet.  Pairs with the xchg() in
	 * savic_request_irr() (level-before-pending).
	 *
	 * Whoever posts because of a new VMSA makes the vector visible after the
	 * request for that VMSA.  Pairs with smp_rmb() there (post-after-creation).
	 */
	smp_mb__before_atomic();
	set_bit(vector, savic->pending);

	/*
	 * Rule 2, sender's side: the vector must be visible before vcpu->mode is
	 * read (by kvm_vcpu_kick()).  Pairs with the barrier between the store
	 * of IN_GUEST_MODE in vcpu_enter_guest() and savic_prepare_vmrun()
	 * (post-vs-entry), and with those between leaving guest mode and
	 * savic_has_interrupt() (post-vs-exit, post-vs-sleep).
	 */
	smp_mb__after_atomic();

	atomic64_inc(&vcpu->stat.savic_posted);

	/* Only VMRUN looks at REQUESTED_IRR, a doorbell would do nothing. */
	savic_notify(vcpu, SAVIC_NOTIFY_KICK);
}

/*
 * Make @vcpu evaluate its backing page, which was written by another vCPU.  A
 * doorbell is enough for IRR, but only VMRUN looks at NmiReq (15.36.21.4).
 */
static void savic_look_again(struct kvm_vcpu *vcpu, bool nmi)
{
	struct savic *savic = to_svm(vcpu)->savic;

	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/*
	 * Rule 2, sender's side: the flag must be visible before vcpu->mode is
	 * read.  Pairs with the same barriers as in savic_deliver_interrupt()
	 * (look-again-vs-entry, doorbell-vs-exit, look-again-vs-sleep), and
	 * with VMRUN on another CPU (doorbell-vs-migration).
	 */
	smp_mb__after_atomic();

	/* A vCPU that calls here is on its way to VMRUN. */
	if (vcpu == kvm_get_running_vcpu())
		savic_notify(vcpu, SAVIC_NOTIFY_NONE);
	else if (nmi)
		savic_notify(vcpu, SAVIC_NOTIFY_KICK);
	else if (READ_ONCE(vcpu->mode) == IN_GUEST_MODE)
		savic_notify(vcpu, SAVIC_NOTIFY_DOORBELL);
	else
		savic_notify(vcpu, SAVIC_NOTIFY_WAKE);
}

/**
 * savic_interrupt_blocked - is it pointless to run the vCPU for an interrupt?
 * @vcpu: the vCPU
 *
 * Whether the guest accepts interrupts is between the guest and hardware.  KVM
 * only knows of vCPUs that don't run until they are started: those without
 * VMSA, those that wait for INIT or SIPI, and those that wait for the latter by
 * AP Reset Hold.  An IPI to all must not start them.
 */
bool savic_interrupt_blocked(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);

	return !VALID_PAGE(svm->vmcb->control.vmsa_pa) ||
	       svm->sev_es.ap_reset_hold_type ||
	       (vcpu->arch.mp_state != KVM_MP_STATE_RUNNABLE &&
		vcpu->arch.mp_state != KVM_MP_STATE_HALTED);
}

/**
 * savic_nmi_allowed - must the vCPU run for an NMI, although it is halted?
 * @vcpu: the vCPU
 *
 * As for interrupts, but hardware holds one NMI only.  If the last VMRUN didn't
 * take that one then there is no point in bringing another.
 */
bool savic_nmi_allowed(struct kvm_vcpu *vcpu)
{
	return !savic_interrupt_blocked(vcpu) &&
	       !(to_svm(vcpu)->vmcb->control.int_ctl & V_NMI_PENDING_MASK);
}

/**
 * savic_has_interrupt - must the vCPU run, although it is halted?
 * @vcpu: the vCPU
 *
 * KVM can't know whether an interrupt would be delivered, only whether VMRUN
 * has something to look at.  A false positive costs a spurious wakeup from HLT.
 * What the last VMRUN didn't take is savic_handle_idle_hlt()'s.
 *
 * Callable for any vCPU, from process context.
 */
bool savic_has_interrupt(struct kvm_vcpu *vcpu)
{
	struct savic *savic = to_svm(vcpu)->savic;

	/*
	 * Rule 2, vCPU's side.  The full barrier after the store of
	 * OUTSIDE_GUEST_MODE is smp_mb__after_srcu_read_lock() in
	 * vcpu_enter_guest() for a vCPU that just halted, and
	 * set_current_state() in kvm_vcpu_block() for one that is about to
	 * sleep.  Pairs with the senders' smp_mb__after_atomic() (post-vs-exit,
	 * post-vs-sleep, doorbell-vs-exit, look-again-vs-sleep,
	 * register-vs-sleep).
	 */
	return test_bit(SAVIC_LOOK_AGAIN, &savic->flags) ||
	       !savic_no_vectors(savic->pending);
}

static void savic_discard_irr(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;

	control->update_irr = 0;
	memset(control->requested_irr, 0, sizeof(control->requested_irr));
	svm->savic->irr_in_flight = false;
}

/* Move what was posted to the VMCB. */
static void savic_request_irr(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	unsigned long vectors;
	int i;

	BUILD_BUG_ON(sizeof(control->requested_irr) != sizeof(savic->pending));

	if (savic_no_vectors(savic->pending))
		return;

	/*
	 * What was posted after the request for a new VMSA is not for this VMRUN,
	 * for which that request came too late.  It ends at once by the kick that
	 * came with the request.  Pairs with smp_mb__before_atomic() in
	 * savic_deliver_interrupt() (post-after-creation).
	 */
	smp_rmb();
	if (unlikely(kvm_test_request(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, &svm->vcpu)))
		return;

	for (i = 0; i < ARRAY_SIZE(savic->pending); i++) {
		if (!READ_ONCE(savic->pending[i]))
			continue;

		vectors = xchg(&savic->pending[i], 0);
		control->requested_irr[i] |= vectors;
		savic->level_requested[i] |= vectors & READ_ONCE(savic->level[i]);
	}
	control->update_irr = 1;
	savic->irr_new = true;
	savic->irr_in_flight = true;

	svm->vcpu.stat.savic_irr_requests++;
	trace_kvm_savic_request_irr(&svm->vcpu, control->requested_irr);
}

/*
 * KVM's timer fires before the guest's deadline, by about the time that it takes to get
 * back into the guest, and what is left of that time is waited for before VMRUN, lest the
 * guest be interrupted too early.  Don't wait if VMRUN doesn't bring the timer's interrupt,
 * e.g. because the timer is masked.
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

/**
 * savic_prepare_vmrun - hand what was posted to hardware
 * @svm: the vCPU that is about to VMRUN on this CPU
 *
 * Called with IRQs disabled and mode IN_GUEST_MODE, nothing between here and
 * VMRUN can fail.  What hardware doesn't take, because the engine is off or
 * because VMRUN fails, stays in the VMCB for the next VMRUN.
 */
void savic_prepare_vmrun(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;

	if (unlikely(READ_ONCE(savic->flags) &
		     (BIT(SAVIC_LOOK_AGAIN) | BIT(SAVIC_DISCARD_IRR)))) {
		if (test_and_clear_bit(SAVIC_DISCARD_IRR, &savic->flags)) {
			savic_discard_irr(svm);

			/* Nobody is going to EOI what was discarded. */
			savic_read_vectors(savic->level_requested, savic->level);
		}

		/* VMRUN is the look that was asked for. */
		clear_bit(SAVIC_LOOK_AGAIN, &savic->flags);

		/*
		 * The sender wrote the backing page before it set the flag, and
		 * VMRUN reads the page after the flag is cleared.  Pairs with
		 * the VMGEXIT before savic_look_again() (look-again-vs-vmrun):
		 * a sender that sets the flag after this sees IN_GUEST_MODE.
		 */
		smp_mb__after_atomic();
	}

	savic->nmi_in_flight = control->int_ctl & V_NMI_PENDING_MASK;
	if (unlikely(savic->nmi_in_flight))
		trace_kvm_savic_nmi(&svm->vcpu);

	savic_request_irr(svm);

	/* Before kvm_wait_lapic_expire(). */
	if (unlikely(svm->vcpu.arch.apic->lapic_timer.expired_tscdeadline))
		savic_forget_deadline(svm);
}

/**
 * savic_complete_vmrun - see what hardware took
 * @svm: the vCPU that just left the guest on this CPU
 *
 * Called with IRQs and GIF disabled.  VMRUN clears UPDATE_IRR, REQUESTED_IRR and
 * V_NMI_PENDING when it takes them, which it does with the engine on only
 * (15.36.21.2).
 */
void savic_complete_vmrun(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct kvm_vcpu *vcpu = &svm->vcpu;
	struct savic *savic = svm->savic;

	/* Hardware itself completes the delivery of an interrupted event. */
	control->exit_int_info &= ~SVM_EXITINTINFO_VALID;

	/* With the engine off a request may wait for many VMRUNs, say so once. */
	if (savic->irr_new || (savic->irr_in_flight && !control->update_irr))
		trace_kvm_savic_vmrun_done(vcpu, !control->update_irr, control->exit_code);

	savic->irr_new = false;
	savic->irr_in_flight = control->update_irr;

	if (control->int_ctl & V_NMI_PENDING_MASK)
		return;

	if (unlikely(savic->nmi_in_flight))
		vcpu->stat.savic_nmis++;

	/* Hardware holds one pending NMI, KVM another.  Pass on the latter. */
	if (unlikely(vcpu->arch.nmi_pending))
		kvm_make_request(KVM_REQ_NMI, vcpu);
}

/* Tell the guest, by one of GHCB_ERR_*, that its request isn't valid. */
static void savic_refuse(struct vcpu_svm *svm, u64 error)
{
	svm->vcpu.stat.savic_refused_vmgexits++;
	svm_vmgexit_bad_input(svm, error);
}

static void savic_look_again_ipi(struct kvm_vcpu *vcpu, void *nmi)
{
	savic_look_again(vcpu, *(bool *)nmi);
}

/*
 * An IPI that the guest has put into the targets' backing pages.  The cost is
 * that of finding the targets in KVM's APIC map.
 *
 * INIT, SIPI and SMI can't be delivered that way, guests start vCPUs with AP
 * Creation.  ExtINT and the reserved modes aren't valid in an ICR at all.
 *
 * Return: false if the ICR value isn't valid, or if the APIC isn't in x2APIC mode.
 */
static bool savic_send_ipi(struct kvm_vcpu *vcpu, u64 icr)
{
	bool nmi;

	/* KVM would take the destination for that of an xAPIC. */
	if (!apic_x2apic_mode(vcpu->arch.apic))
		return false;

	switch (icr & APIC_MODE_MASK) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
		nmi = false;
		break;
	case APIC_DM_NMI:
		nmi = true;
		break;
	default:
		return false;
	}

	vcpu->stat.savic_ipis++;
	trace_kvm_savic_ipi(vcpu, icr, false);

	return !kvm_apic_visit_ipi_targets(vcpu->arch.apic, icr,
					   savic_look_again_ipi, &nmi);
}

/*
 * An IPI that the guest forwards as it got it from hardware, i.e. without having
 * touched any backing page.  Post it as an interrupt from the host, which is
 * delivered if the target allows the vector, or NMIs.
 */
static bool savic_forward_ipi(struct kvm_vcpu *vcpu, u64 icr)
{
	/* See savic_send_ipi(). */
	if (!apic_x2apic_mode(vcpu->arch.apic))
		return false;

	switch (icr & APIC_MODE_MASK) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
	case APIC_DM_NMI:
		break;
	default:
		return false;
	}

	vcpu->stat.savic_forwarded_ipis++;
	trace_kvm_savic_ipi(vcpu, icr, true);

	return !kvm_x2apic_icr_write(vcpu->arch.apic, icr);
}

/*
 * Tell the I/O APIC of the vectors in savic->eoi.  A userspace I/O APIC is told
 * by one exit per vector, this is the completion callback of those as well.
 *
 * These vectors were posted as level-triggered, so don't filter them.  What KVM
 * knows of routes (ioapic_handled_vectors) and of KVM's copy of TMR is of today:
 * the guest may have routed the line elsewhere, or the vCPU been reset, since.
 */
static int savic_send_eois(struct kvm_vcpu *vcpu)
{
	struct savic *savic = to_svm(vcpu)->savic;
	int vector;

	for_each_set_bit(vector, savic->eoi, KVM_NR_INTERRUPTS) {
		__clear_bit(vector, savic->eoi);
		vcpu->stat.savic_level_eois++;
		trace_kvm_savic_eoi(vcpu, vector);

#ifdef CONFIG_KVM_IOAPIC
		if (ioapic_in_kernel(vcpu->kvm)) {
			kvm_ioapic_update_eoi(vcpu, vector, IOAPIC_LEVEL_TRIG);
			continue;
		}
#endif
		vcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
		vcpu->run->eoi.vector = vector;
		vcpu->arch.complete_userspace_io = savic_send_eois;
		return 0;
	}

	return 1;
}

/*
 * The level-triggered vectors that hardware has taken.  Not those that are on their
 * way to the guest, i.e. can't be what the guest EOIs.
 */
static void savic_level_taken(struct vcpu_svm *svm, unsigned long *vectors)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	int i;

	for (i = 0; i < BITS_TO_LONGS(KVM_NR_INTERRUPTS); i++) {
		vectors[i] = savic->level_requested[i] & READ_ONCE(savic->level[i]) &
			     ~READ_ONCE(savic->pending[i]);
		if (control->update_irr)
			vectors[i] &= ~control->requested_irr[i];
	}
}

/* The vector is EOI'd.  Return false if it isn't one that has to be. */
static bool savic_queue_eoi(struct savic *savic, int vector)
{
	__clear_bit(vector, savic->level_requested);
	if (!test_and_clear_bit(vector, savic->level))
		return false;

	__set_bit(vector, savic->eoi);
	return true;
}

/*
 * Queue an EOI for all level-triggered vectors that hardware has taken.  Return
 * true if there was any.
 */
static bool savic_queue_eois(struct vcpu_svm *svm)
{
	DECLARE_BITMAP(vectors, KVM_NR_INTERRUPTS);
	bool found = false;
	int v;

	savic_level_taken(svm, vectors);
	for_each_set_bit(v, vectors, KVM_NR_INTERRUPTS)
		found |= savic_queue_eoi(svm->savic, v);

	return found;
}

/*
 * The guest EOI'd a level-triggered vector.  Which one is known only if the
 * guest says so (vector >= 0).  An EOI by MSR names none, and KVM can't guess:
 * of several level-triggered vectors that hardware has taken, those that wait in
 * the IRR look like those in service, and those that the guest doesn't allow are
 * nowhere.  So EOI all of them.  A line that is still asserted is delivered
 * once more, which at worst is a spurious interrupt, whereas an EOI that goes
 * missing blocks the line for good.
 */
static int savic_eoi(struct kvm_vcpu *vcpu, int vector)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct savic *savic = svm->savic;
	bool found;

	if (vector >= 0)
		found = savic_queue_eoi(savic, vector);
	else
		found = savic_queue_eois(svm);

	/* Nothing in service?  So be it, hardware ignores such an EOI, too. */
	if (!found) {
		vcpu->stat.savic_spurious_eois++;
		trace_kvm_savic_eoi(vcpu, -1);
		return 1;
	}

	return savic_send_eois(vcpu);
}

/*
 * A vCPU that halts is made to run again, although that may be of no use, so many
 * times in this time.  After that it sleeps until the time is over.
 */
#define SAVIC_MAX_RETRIES	8
#define SAVIC_RETRY_PERIOD	(10 * NSEC_PER_MSEC)

static enum hrtimer_restart savic_retry_timer_fn(struct hrtimer *timer)
{
	struct savic *savic = container_of(timer, struct savic, retry_timer);

	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/*
	 * Rule 2, sender's side, as in savic_look_again(), but this may well
	 * interrupt the vCPU on its way to sleep (look-again-vs-sleep).
	 */
	smp_mb__after_atomic();
	kvm_vcpu_kick(savic->vcpu);

	return HRTIMER_NORESTART;
}

/* If the vCPU must not retry now, then it will be woken as soon as it may. */
static bool savic_may_retry(struct savic *savic)
{
	u64 now = ktime_get_ns();

	if (now - savic->retry_start >= SAVIC_RETRY_PERIOD) {
		savic->retry_start = now;
		savic->nr_retries = 0;
	}

	if (savic->nr_retries < SAVIC_MAX_RETRIES) {
		savic->nr_retries++;
		return true;
	}

	hrtimer_start(&savic->retry_timer,
		      ns_to_ktime(savic->retry_start + SAVIC_RETRY_PERIOD),
		      HRTIMER_MODE_ABS);
	return false;
}

/*
 * The vCPU halted with nothing pending in its APIC.  Its new MP state is already set.
 *
 * If the last VMRUN took nothing, then the engine was off at that time, but the
 * guest may have turned it on since, and halted.  So have another look, at
 * least if the guest is known to care (15.36.21.2).
 *
 * A level-triggered vector that hardware has taken, that is not pending, and in
 * whose handler the guest hardly is, is one that the guest doesn't allow, or one
 * that it EOI'd without telling as its TMR doesn't say that it is
 * level-triggered.  Nobody is ever going to EOI it, so do that here lest its
 * line stay blocked.  If the line is still asserted then the I/O APIC sends the
 * vector once more.
 *
 * A guest that halts for good, or doesn't turn on the engine, must not keep the
 * CPU busy with either.
 *
 * Return: as for exit handlers.
 */
static int savic_handle_idle_hlt(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	DECLARE_BITMAP(taken, KVM_NR_INTERRUPTS);
	struct savic *savic = svm->savic;
	bool look, eoi = false;
	int vector;

	look = VALID_PAGE(READ_ONCE(savic->gpa)) && savic_request_not_taken(svm);
	if (!savic_no_vectors(savic->level)) {
		savic_level_taken(svm, taken);
		eoi = !bitmap_empty(taken, KVM_NR_INTERRUPTS);
	}

	if (likely(!look && !eoi) || !savic_may_retry(savic))
		return 1;

	/* The vCPU itself looks at this before it blocks. */
	if (look)
		set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	if (!eoi || !savic_queue_eois(svm))
		return 1;

	for_each_set_bit(vector, savic->eoi, KVM_NR_INTERRUPTS) {
		vcpu->stat.savic_missing_eois++;
		trace_kvm_savic_missing_eoi(vcpu, vector);
	}

	return savic_send_eois(vcpu);
}

/**
 * savic_handle_hlt - the vCPU halted
 * @vcpu: the vCPU, which had a VMEXIT_HLT or VMEXIT_IDLE_HLT
 *
 * Return: as for exit handlers.
 */
int savic_handle_hlt(struct kvm_vcpu *vcpu)
{
	int r = kvm_emulate_halt(vcpu);

	/* Only Idle-HLT says that hardware found nothing pending. */
	if (r > 0 && to_svm(vcpu)->vmcb->control.exit_code == SVM_EXIT_IDLE_HLT)
		return savic_handle_idle_hlt(vcpu);

	return r;
}

/**
 * savic_handle_msr_vmgexit - handle an RDMSR or WRMSR that the guest asks for
 * @vcpu: the calling vCPU, which is in Secure AVIC mode
 *
 * Before the engine is on, all accesses to the x2APIC's registers come here,
 * and KVM's copy is all that there is.  After that the guest asks for what isn't
 * in its backing page, and of that KVM's copy of LVTs and timer is the real
 * one.  Only ICR and EOI have another meaning once the guest has a backing page.
 *
 * Return: as for exit handlers.
 */
int savic_handle_msr_vmgexit(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	u32 msr = vcpu->arch.regs[VCPU_REGS_RCX];
	bool write = svm->vmcb->control.exit_info_1;
	u64 data = (u32)vcpu->arch.regs[VCPU_REGS_RAX] |
		   (u64)(u32)vcpu->arch.regs[VCPU_REGS_RDX] << 32;

	if (!write || !VALID_PAGE(READ_ONCE(svm->savic->gpa)))
		goto common;

	switch (msr) {
	case X2APIC_MSR(APIC_ICR):
		if (!savic_send_ipi(vcpu, data))
			savic_refuse(svm, GHCB_ERR_INVALID_INPUT);
		return 1;
	case X2APIC_MSR(APIC_EOI):
		if (data) {
			savic_refuse(svm, GHCB_ERR_INVALID_INPUT);
			return 1;
		}
		return savic_eoi(vcpu, -1);
	default:
		break;
	}

common:
	return svm_invoke_exit_handler(vcpu, SVM_EXIT_MSR);
}

/*
 * Set the backing page that KVM keeps mapped.  The VM's pages are found by their
 * GFNs with mmu_lock held, so that no mapping can be removed unnoticed meanwhile.
 */
static void savic_set_page(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	struct kvm_sev_info *sev = to_kvm_sev_info(vcpu->kvm);
	struct savic *savic = to_svm(vcpu)->savic;

	guard(write_lock)(&vcpu->kvm->mmu_lock);

	if (VALID_PAGE(savic->gpa))
		interval_tree_remove(&savic->page_node, &sev->savic_pages);

	WRITE_ONCE(savic->gpa, gpa);

	if (VALID_PAGE(gpa)) {
		savic->page_node.start = gpa_to_gfn(gpa);
		savic->page_node.last = gpa_to_gfn(gpa);
		interval_tree_insert(&savic->page_node, &sev->savic_pages);
	}
}

/* The next user of this APIC mustn't see this one's vectors. */
static void savic_discard_vectors(struct savic *savic)
{
	savic_clear_vectors(savic->pending);

	/*
	 * Once the flag is taken nothing of the old vectors may be left.  Pairs
	 * with test_and_clear_bit() in savic_prepare_vmrun()
	 * (unregister-vs-vmrun).
	 */
	smp_mb__before_atomic();
	set_bit(SAVIC_DISCARD_IRR, &savic->flags);
}

/*
 * If the guest has just destroyed @target, or created it anew, then hardware may still be using
 * the page that @vcpu is about to replace or unregister.  Have it leave guest mode first, the
 * request keeps it from going back on the old VMSA.
 */
static void savic_leave_old_vmsa(struct kvm_vcpu *vcpu, struct kvm_vcpu *target)
{
	DECLARE_BITMAP(vcpus, KVM_MAX_VCPUS);

	if (target == vcpu ||
	    !kvm_test_request(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, target))
		return;

	/* This one waits, as in savic_invalidate_range(). */
	bitmap_zero(vcpus, KVM_MAX_VCPUS);
	__set_bit(target->vcpu_idx, vcpus);
	kvm_make_vcpus_request_mask(vcpu->kvm, KVM_REQ_LOAD_PROTECTED_APIC_PAGE, vcpus);
}

/*
 * Register or unregister the backing page of @target.  The mutex keeps @target
 * from changing to another VMSA meanwhile, see savic_new_vmsa().
 *
 * Return: false if the request isn't valid.
 */
static bool savic_register(struct kvm_vcpu *vcpu, struct kvm_vcpu *target)
{
	struct savic *savic = to_svm(target)->savic;
	struct vcpu_svm *svm = to_svm(vcpu);
	u64 gpa = vcpu->arch.regs[VCPU_REGS_RBX];
	u64 action = svm->vmcb->control.exit_info_1;

	guard(mutex)(&to_svm(target)->sev_es.snp_vmsa_mutex);

	savic_leave_old_vmsa(vcpu, target);

	switch (action) {
	case SVM_VMGEXIT_SAVIC_REGISTER_GPA:
		/*
		 * Whether the page is there can change at any time, so don't
		 * check now what has to be checked before VMRUN anyway.
		 */
		if (!page_address_valid(vcpu, gpa) ||
		    !kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(gpa)))
			return false;

		savic->page_owner = target == vcpu ? SAVIC_PAGE_OF_VMSA :
						     SAVIC_PAGE_OF_NEXT_VMSA;
		savic_set_page(target, gpa);
		target->stat.savic_page_registrations++;

		/*
		 * Orders the GPA before the request, see savic_load_page()
		 * (register-vs-load).
		 */
		kvm_make_request(KVM_REQ_LOAD_PROTECTED_APIC_PAGE, target);
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
		/* It may have halted with something that waits for this page. */
		set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

		/* Rule 2, as in savic_look_again() (register-vs-sleep). */
		smp_mb__after_atomic();
		kvm_vcpu_kick(target);
	}
	return true;
}

/* Registration of the backing page, see "Secure AVIC" in the GHCB specification. */
static void savic_handle_register(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	u64 apic_id = vcpu->arch.regs[VCPU_REGS_RAX];
	struct kvm_vcpu *target = vcpu;

	if (apic_id != SVM_VMGEXIT_SAVIC_SELF_GPA) {
		/* x2APIC IDs are vCPU IDs, and have 32 bits. */
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
}

/* Fields of AVIC_NOACCEL's exit information (15.29.9.2). */
#define SAVIC_NOACCEL_WRITE		BIT_ULL(32)
#define SAVIC_NOACCEL_OFFSET_MASK	GENMASK_ULL(11, 4)
#define SAVIC_NOACCEL_VECTOR_MASK	GENMASK_ULL(7, 0)

/**
 * savic_handle_vmgexit - handle the VMGEXITs that are specific to Secure AVIC
 * @vcpu: the calling vCPU, which is in Secure AVIC mode
 *
 * An invalid request gets one of GHCB_ERR_*, the guest decides what that means
 * to it.  The GHCB's common fields have been checked.
 *
 * Return: as for exit handlers.
 */
int savic_handle_vmgexit(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct vmcb_control_area *control = &svm->vmcb->control;
	u64 info_1 = control->exit_info_1;

	switch (control->exit_code) {
	case SVM_VMGEXIT_SAVIC:
		savic_handle_register(vcpu);
		return 1;
	case SVM_EXIT_AVIC_INCOMPLETE_IPI:
		/* Whatever the reason, the whole ICR is in EXITINFO1. */
		if (!savic_forward_ipi(vcpu, info_1))
			break;
		return 1;
	case SVM_EXIT_AVIC_UNACCELERATED_ACCESS:
		/*
		 * Other registers take a value, which isn't in the exit
		 * information.  The guest has to ask for an MSR access.
		 */
		if ((info_1 & SAVIC_NOACCEL_OFFSET_MASK) != APIC_EOI ||
		    !(info_1 & SAVIC_NOACCEL_WRITE))
			break;
		return savic_eoi(vcpu, control->exit_info_2 & SAVIC_NOACCEL_VECTOR_MASK);
	default:
		break;
	}

	savic_refuse(svm, GHCB_ERR_INVALID_INPUT);
	return 1;
}

/* EXITINFO1 of VMEXIT_NPF: in the middle of what can't be restarted (15.36.21). */
#define SAVIC_NPF_NOT_RESTARTABLE	BIT_ULL(63)

/**
 * savic_handle_npf - catch nested page faults that are the end of the vCPU
 * @vcpu: a vCPU in Secure AVIC mode that just had a VMEXIT_NPF
 *
 * If hardware doesn't find the backing page, the VMSA stays busy for ever.  KVM
 * keeps the registered page mapped, so the guest uses another one.
 *
 * Return: 1 if it is an ordinary fault, 0 to exit to userspace.
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

/**
 * savic_invalidate_range - SPTEs of a range of GFNs are about to be zapped
 * @kvm: any VM
 * @start: first GFN
 * @end: last GFN plus one
 *
 * Called with mmu_lock held for write.  The cost is that of finding the affected
 * vCPUs in a tree, which is empty for other VMs.  A vCPU whose backing page loses its
 * mapping while it is in guest mode can't ever run again, so get it out of
 * there first.  That looks at 4K pages only: there is no larger mapping of private
 * memory which a zap of other pages would remove as well, see savic_split_page().  The
 * vCPU has to take mmu_lock to put the page back before it can
 * re-enter, see savic_load_page().
 */
void savic_invalidate_range(struct kvm *kvm, gfn_t start, gfn_t end)
{
	struct kvm_sev_info *sev = to_kvm_sev_info(kvm);
	DECLARE_BITMAP(vcpus, KVM_MAX_VCPUS);
	struct interval_tree_node *node;
	struct kvm_vcpu *vcpu;

	lockdep_assert_held_write(&kvm->mmu_lock);

	node = interval_tree_iter_first(&sev->savic_pages, start, end - 1);
	if (likely(!node))
		return;

	bitmap_zero(vcpus, KVM_MAX_VCPUS);

	for (; node; node = interval_tree_iter_next(node, start, end - 1)) {
		vcpu = container_of(node, struct savic, page_node)->vcpu;
		vcpu->stat.savic_page_losses++;
		__set_bit(vcpu->vcpu_idx, vcpus);
	}

	/*
	 * Waits for the vCPUs to leave guest mode.  One that isn't in guest mode
	 * sees the request after it has set IN_GUEST_MODE, and goes back
	 * (zap-vs-entry).
	 */
	kvm_make_vcpus_request_mask(kvm, KVM_REQ_LOAD_PROTECTED_APIC_PAGE, vcpus);
}

/**
 * savic_page_lost - the vCPU got another root, in which nothing need be mapped
 * @vcpu: the loaded vCPU, in Secure AVIC mode
 */
void savic_page_lost(struct kvm_vcpu *vcpu)
{
	if (VALID_PAGE(READ_ONCE(to_svm(vcpu)->savic->gpa)))
		kvm_make_request(KVM_REQ_LOAD_PROTECTED_APIC_PAGE, vcpu);
}

/*
 * If the page is part of a 2M page of the RMP then split that before the page is used.  KVM
 * does so sooner or later, when the guest asks for another part of it, and zaps its mapping:
 * a fault on the backing page, from which hardware can't recover.  RMP entries that are
 * assigned don't grow.
 *
 * guest_memfd has no such pages yet.
 *
 * Return: 0, also if there is no page to be split, -EIO if PSMASH fails.
 */
static int savic_split_page(struct kvm *kvm, gfn_t gfn)
{
	struct kvm_memory_slot *slot = gfn_to_memslot(kvm, gfn);
	struct kvm_sev_info *sev = to_kvm_sev_info(kvm);
	struct page *page;
	bool assigned;
	int level, r = 0;
	kvm_pfn_t pfn;

	if (!kvm_mem_is_private(kvm, gfn) || !kvm_slot_has_gmem(slot) ||
	    kvm_gmem_get_pfn(kvm, slot, gfn, &pfn, &page, NULL))
		return 0;

	/*
	 * If somebody else has just split it then there may be a fault that saw the 2M
	 * page, and hasn't mapped it yet.  That is over when they unlock.
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
 * savic_load_page - map the registered backing page, if there is one
 * @vcpu: the loaded vCPU, which services KVM_REQ_LOAD_PROTECTED_APIC_PAGE
 *
 * Return: 1 on success or to try again, -EFAULT, or -EHWPOISON for bad memory, with
 * KVM_EXIT_MEMORY_FAULT if userspace or the guest took the page away, another error if
 * that is fatal.  But for success the request stays pending, i.e. the vCPU doesn't get into the
 * guest.  Userspace may repair the mapping and run the vCPU again.
 */
int savic_load_page(struct kvm_vcpu *vcpu)
{
	struct savic *savic = to_svm(vcpu)->savic;
	gpa_t gpa;
	int r;

	/*
	 * The request was cleared before the GPA is read, whoever changes it
	 * makes a new request after that (register-vs-load).  Likewise, whoever
	 * zaps the mapping makes a new request before that (zap-vs-load), for
	 * which they see the GPA of a page that was mapped (register-vs-zap).
	 */
	gpa = READ_ONCE(savic->gpa);
	if (!VALID_PAGE(gpa))
		return 1;

	r = savic_split_page(vcpu->kvm, gpa_to_gfn(gpa));
	if (!r)
		r = kvm_tdp_try_map_private(vcpu, gpa);
	trace_kvm_savic_load_page(vcpu, gpa, r);
	if (!r) {
		vcpu->stat.savic_page_loads++;
		return 1;
	}

	kvm_make_request(KVM_REQ_LOAD_PROTECTED_APIC_PAGE, vcpu);

	switch (r) {
	case -EAGAIN:
		/*
		 * An invalidation is in progress, or a memslot is being deleted.
		 * The latter waits for SRCU readers, let go of it.
		 */
		kvm_vcpu_srcu_read_unlock(vcpu);
		cond_resched();
		kvm_vcpu_srcu_read_lock(vcpu);
		return 1;
	case -EIO:
	case -ENOMEM:
		return r;
	default:
		kvm_prepare_memory_fault_exit(vcpu, gpa, PAGE_SIZE, true, false, true);
		return r == -EHWPOISON ? r : -EFAULT;
	}
}

/**
 * savic_request_vmsa - a guest asked for another VMSA for a vCPU, or for none
 * @vcpu: the vCPU that is to get it, not the one that asked for it
 * @create: false if there is to be no VMSA
 *
 * A page that a vCPU's creator registered on its behalf is for the VMSA that is
 * created next, however often the vCPU is destroyed before.
 *
 * The new VMSA gets what is posted from now on.  What was posted before is not
 * for it, and the old one gets nothing any more: the vCPU sees the request for the new
 * VMSA, which follows, before another VMRUN, or at the latest before it hands vectors to
 * one.  (If creation is deferred until INIT then the old one may lose vectors, as it would
 * by INIT.)
 *
 * Called with the vCPU's snp_vmsa_mutex held, i.e. not while the creator registers a
 * page (ap-creation-vs-destruction).
 */
void savic_request_vmsa(struct kvm_vcpu *vcpu, bool create)
{
	struct savic *savic = to_svm(vcpu)->savic;

	lockdep_assert_held(&to_svm(vcpu)->sev_es.snp_vmsa_mutex);

	if (savic->page_owner != SAVIC_PAGE_OF_NEXT_VMSA)
		savic->page_owner = SAVIC_PAGE_OF_OLD_VMSA;
	else if (create)
		savic->page_owner = SAVIC_PAGE_OF_VMSA;

	savic_discard_vectors(savic);
}

/**
 * savic_new_vmsa - the vCPU is about to run on another VMSA, or on none
 * @vcpu: the vCPU itself
 *
 * The old VMSA's backing page is void now.  Until now it was kept mapped, as the
 * vCPU may have been in guest mode.
 *
 * Called with snp_vmsa_mutex held.
 */
void savic_new_vmsa(struct kvm_vcpu *vcpu)
{
	lockdep_assert_held(&to_svm(vcpu)->sev_es.snp_vmsa_mutex);

	if (to_svm(vcpu)->savic->page_owner == SAVIC_PAGE_OF_OLD_VMSA)
		savic_set_page(vcpu, INVALID_PAGE);
}

/**
 * savic_init_vmcb - put the VMCB into the state for Secure AVIC
 * @svm: the vCPU, in Secure AVIC mode, at its creation, an INIT or AP Creation
 *
 * INIT changes nothing in the backing page, and with a new VMSA all was done when it was
 * asked for, see savic_request_vmsa().
 */
void savic_init_vmcb(struct vcpu_svm *svm)
{
	/* TPR is hardware's, there is nothing to track. */
	svm_clr_intercept(svm, TRAP_CR8_WRITE);
}

/**
 * savic_init_vmsa - complete the initial VMSA, before it is encrypted
 * @svm: the vCPU, in Secure AVIC mode
 * @save: the VMSA
 *
 * The VMCB's bits of that name are ignored (15.36.21.2).
 */
void savic_init_vmsa(struct vcpu_svm *svm, struct sev_es_save_area *save)
{
	save->vintr_ctrl |= V_GIF_MASK | V_NMI_ENABLE_MASK;
}

/**
 * savic_recalc_msr_intercepts - let the guest control its APIC
 * @vcpu: the vCPU, in Secure AVIC mode
 *
 * x2APIC MSRs aren't subject to the permission map in Secure AVIC mode.
 */
void savic_recalc_msr_intercepts(struct kvm_vcpu *vcpu)
{
	svm_disable_intercept_for_msr(vcpu, MSR_AMD64_SAVIC_CONTROL, MSR_TYPE_RW);
}

/**
 * savic_vcpu_create - allocate what a vCPU needs for Secure AVIC
 * @vcpu: the vCPU, not yet visible to others
 *
 * Return: 0 on success or if the VM doesn't use Secure AVIC, -EINVAL if there
 * is no in-kernel local APIC, -ENOMEM.
 */
int savic_vcpu_create(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);

	if (!savic_enabled_for_vm(vcpu->kvm))
		return 0;

	/* Timer, MSIs and IPIs are KVM's, a userspace APIC can't do its part. */
	if (!irqchip_in_kernel(vcpu->kvm))
		return -EINVAL;

	svm->savic = kzalloc_obj(*svm->savic, GFP_KERNEL_ACCOUNT);
	if (!svm->savic)
		return -ENOMEM;

	static_branch_inc(&savic_used);
	svm->savic->vcpu = vcpu;
	svm->savic->gpa = INVALID_PAGE;
	hrtimer_setup(&svm->savic->retry_timer, savic_retry_timer_fn,
		      CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	vcpu->arch.apic->guest_apic_protected = true;
	vcpu->arch.apic->guest_apic_hidden = true;

	/* Don't even start with AVIC, which KVM inhibits only later. */
	vcpu->arch.apic->apicv_active = false;

	return 0;
}

/**
 * savic_vcpu_free - undo savic_vcpu_create()
 * @vcpu: the vCPU, no longer visible to others
 */
void savic_vcpu_free(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);

	if (!svm->savic)
		return;

	hrtimer_cancel(&svm->savic->retry_timer);
	savic_set_page(vcpu, INVALID_PAGE);
	kfree(svm->savic);
	svm->savic = NULL;
	static_branch_dec(&savic_used);
}

static void savic_show_vectors(struct seq_file *m, const char *name,
			       const unsigned long *vectors)
{
	DECLARE_BITMAP(copy, KVM_NR_INTERRUPTS);

	savic_read_vectors(copy, vectors);
	seq_printf(m, "%s: %*pbl\n", name, KVM_NR_INTERRUPTS, copy);
}

static int savic_debugfs_show(struct seq_file *m, void *unused)
{
	struct kvm_vcpu *vcpu = m->private;
	struct savic *savic = to_svm(vcpu)->savic;

	seq_printf(m, "page: 0x%llx\n", READ_ONCE(savic->gpa));
	seq_printf(m, "flags: 0x%lx\n", READ_ONCE(savic->flags));
	savic_show_vectors(m, "pending", savic->pending);
	savic_show_vectors(m, "level", savic->level);
	savic_show_vectors(m, "eoi", savic->eoi);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(savic_debugfs);

/**
 * savic_create_vcpu_debugfs - show the vCPU's state
 * @vcpu: any vCPU
 * @dentry: the vCPU's debugfs directory
 */
void savic_create_vcpu_debugfs(struct kvm_vcpu *vcpu, struct dentry *dentry)
{
	if (savic_active(vcpu))
		debugfs_create_file("savic", 0444, dentry, vcpu, &savic_debugfs_fops);
}
