// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: interrupts for SEV-SNP guests that own their local APIC.
 *
 * In Secure AVIC mode the state of a vCPU's APIC lives in a guest-private
 * backing page, which hardware reads and writes with the guest's key.  The host
 * sees neither IRR nor ISR nor TPR, and can inject nothing: hardware ignores
 * EVENTINJ and V_IRQ of the VMCB.  What is left to the host is to
 *
 *   - ask for vectors: VMCB.REQUESTED_IRR, which VMRUN ANDs with the guest's
 *     ALLOWED_IRR and ORs into the backing page's IRR,
 *   - ask for an NMI: VMCB.V_NMI_PENDING, taken if the guest set AllowedNmi,
 *   - make a CPU look at the backing page again: VMRUN does so in full, the
 *     AVIC doorbell does so for IRR, but not for NmiReq and REQUESTED_IRR,
 *   - emulate what isn't in hardware: the timer and the other LVTs, IPIs to
 *     other vCPUs (the guest sets their IRR itself), EOIs of level-triggered
 *     vectors, all of it on request by VMGEXIT.
 *
 * Two rules hold everywhere:
 *
 *   1. Any CPU posts into struct savic.  Only the CPU that is about to VMRUN
 *      moves what was posted to the VMCB.
 *
 *   2. A vCPU may block only after it has made "not in guest mode" visible and
 *      then found SAVIC_LOOK_AGAIN clear.  A sender first sets what it has to
 *      say, then SAVIC_LOOK_AGAIN, and then looks at the mode:
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
 *      Without the sender's barrier, the sender could see the vCPU in guest mode
 *      and ring a doorbell that nobody hears, while the vCPU doesn't see the flag
 *      (look-again-vs-sleep, doorbell-vs-exit).  On entry the vCPU sets
 *      IN_GUEST_MODE, has a full barrier, and then looks at the flag.  Either the
 *      vCPU sees the flag, or the sender sees IN_GUEST_MODE and sends an IPI,
 *      which ends guest mode at once (look-again-vs-entry).
 *
 *      The CPU about to VMRUN clears the flag, has a full barrier, and then reads
 *      @pending and, by VMRUN, the backing page.  A sender whose vector or write
 *      comes too late for that sets the flag once more (look-again-vs-vmrun).
 *
 * Names in parentheses are those of litmus tests in
 * Documentation/litmus-tests/kvm.  NMIs from the host and AP Creation are
 * requests to a vCPU, for which KVM's own rules are the same
 * (nmi-before-request, nmi-vs-entry, nmi-vs-sleep, ap-creation-vs-sleep).
 *
 * Section numbers are of the AMD64 APM vol. 2, rev. 3.44.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/kvm_host.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/nospec.h>
#include <linux/seq_file.h>

#include <asm/apic.h>
#include <asm/sev.h>

#include "ioapic.h"
#include "irq.h"
#include "lapic.h"
#include "mmu.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"
#include "trace.h"

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

/* ring doorbells for IPIs to vCPUs that are in guest mode, else send them an IPI */
static bool __ro_after_init savic_doorbell = true;
module_param(savic_doorbell, bool, 0444);

/*
 * have a halted vCPU look at its backing page again after so many ms, lest a
 * wake-up be lost if hardware said too early that nothing was pending; 0: never
 */
static unsigned int savic_idle_look_ms = 100;
module_param(savic_idle_look_ms, uint, 0644);

/* A local APIC never delivers vectors below 16. */
#define SAVIC_FIRST_VECTOR	16

/* Words of a set of vectors. */
#define SAVIC_WORDS		BITS_TO_LONGS(KVM_NR_INTERRUPTS)

/*
 * The doorbell belongs to AVIC (15.29.8.2, doorbell), which CPUID need not have.
 * Its MSR may be there all the same: try, nothing rings on a CPU that isn't in
 * guest mode.
 */
static bool __init savic_probe_doorbell(void)
{
	u32 apic_id = cpu_physical_id(raw_smp_processor_id());

	return boot_cpu_has(X86_FEATURE_AVIC) ||
	       !wrmsrq_safe(MSR_AMD64_SVM_AVIC_DOORBELL, apic_id);
}

/**
 * savic_hardware_setup - decide whether KVM can offer Secure AVIC
 * @snp_enabled: KVM offers SNP VMs
 *
 * Called once at module load.
 *
 * Without Idle-HLT a vCPU could sleep on an interrupt that KVM can't see.  The
 * shadow MMU recycles page tables behind the vCPUs' backs, only the TDP MMU can
 * keep backing pages mapped.
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

	if (secure_avic) {
		savic_doorbell = savic_doorbell && savic_probe_doorbell();
		pr_info("Secure AVIC enabled\n");
	}

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
 * Return: 0.  -EINVAL if userspace has set up what needs EOIs that KVM can't
 * see: a PIT, or suppressed EOI broadcasts.
 */
int savic_vm_init(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->lock);

	if (kvm->arch.suppress_eoi_broadcast_mode == KVM_SUPPRESS_EOI_BROADCAST_ENABLED)
		return -EINVAL;

#ifdef CONFIG_KVM_IOAPIC
	if (kvm->arch.vpit)
		return -EINVAL;
#endif

	kvm->arch.has_protected_edge_eoi = true;

	/*
	 * Recovering NX huge pages zaps page tables while vCPUs are in the guest.
	 * The mitigation is for Intel CPUs only.
	 */
	kvm->arch.disable_nx_huge_pages = true;
	return 0;
}

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

/**
 * savic_deliver_interrupt - post a vector from the host
 * @vcpu: the target, may be any vCPU of a VM with Secure AVIC
 * @trig_mode: nonzero if level-triggered
 * @vector: the vector
 *
 * Callable from any context, also from hard interrupts.  Only hardware knows
 * whether the guest allows the vector.
 */
void savic_deliver_interrupt(struct kvm_vcpu *vcpu, int trig_mode, int vector)
{
	struct savic *savic = to_svm(vcpu)->savic;

	trace_kvm_savic_post(vcpu, vector, trig_mode);

	if (vector < SAVIC_FIRST_VECTOR) {
		atomic64_inc(&vcpu->stat.savic_illegal_vectors);
		return;
	}

	if (trig_mode) {
		set_bit(vector, savic->level);

		/* The xchg() in savic_request() then sees it (level-before-pending). */
		smp_mb__after_atomic();
	}

	set_bit(vector, savic->pending);

	/* Whoever clears the flag sees the vector (look-again-vs-vmrun). */
	smp_mb__after_atomic();
	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* Rule 2, sender's side. */
	smp_mb__after_atomic();

	atomic64_inc(&vcpu->stat.savic_posted);

	/* Only VMRUN looks at REQUESTED_IRR, a doorbell would do nothing. */
	savic_notify(vcpu, SAVIC_NOTIFY_KICK);
}

/*
 * Make @vcpu evaluate its backing page, which another vCPU has written.  A
 * doorbell is enough for IRR, but only VMRUN looks at NmiReq (15.36.21.4).
 */
static void savic_look_again(struct kvm_vcpu *vcpu, bool nmi)
{
	set_bit(SAVIC_LOOK_AGAIN, &to_svm(vcpu)->savic->flags);

	/* Rule 2, sender's side. */
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

static enum hrtimer_restart savic_timer_fn(struct hrtimer *timer)
{
	struct savic *savic = container_of(timer, struct savic, timer);

	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* Rule 2, sender's side.  This may interrupt the vCPU on its way to sleep. */
	smp_mb__after_atomic();
	kvm_vcpu_kick(savic->vcpu);

	return HRTIMER_NORESTART;
}

/* Make the vCPU VMRUN at some time. */
static void savic_run_at(struct savic *savic, ktime_t time)
{
	hrtimer_start(&savic->timer, time, HRTIMER_MODE_ABS);
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
 * Requests that the last VMRUN didn't take are checked in
 * savic_handle_idle_hlt().
 *
 * Rule 2, vCPU's side.  The full barrier after the store of OUTSIDE_GUEST_MODE
 * is smp_mb__after_srcu_read_lock() in vcpu_enter_guest() for a vCPU that just
 * halted, and set_current_state() in kvm_vcpu_block() for one that is about to
 * sleep.
 *
 * Callable for any vCPU, from process context.
 */
bool savic_has_interrupt(struct kvm_vcpu *vcpu)
{
	return test_bit(SAVIC_LOOK_AGAIN, &to_svm(vcpu)->savic->flags);
}

/**
 * savic_dy_has_interrupt - is the vCPU a candidate for directed yield?
 * @vcpu: any vCPU
 *
 * Callable for any vCPU, from process context.
 */
bool savic_dy_has_interrupt(struct kvm_vcpu *vcpu)
{
	return savic_active(vcpu) && savic_has_interrupt(vcpu);
}

/*
 * Discard the vectors that were posted and not taken: the next user of this APIC
 * mustn't see them.  The VMCB is left to its owner.
 */
void savic_discard_vectors(struct savic *savic)
{
	int i;

	for (i = 0; i < SAVIC_WORDS; i++)
		WRITE_ONCE(savic->pending[i], 0);

	/*
	 * Once the flag is taken no old vector may be left in @pending.  Pairs
	 * with test_and_clear_bit() in savic_request() (unregister-vs-vmrun).
	 */
	smp_mb__before_atomic();
	set_bit(SAVIC_DISCARD_IRR, &savic->flags);
}

/* Forget what is in the VMCB. */
static void savic_discard_irr(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	int i;

	control->update_irr = 0;
	memset(control->requested_irr, 0, sizeof(control->requested_irr));
	savic->irr_in_flight = false;

	/* The guest can't EOI what was discarded, see savic_handle_idle_hlt(). */
	for (i = 0; i < SAVIC_WORDS; i++)
		savic->level_requested[i] = READ_ONCE(savic->level[i]);
}

/* Move posted vectors to the VMCB.  Return true if there were any. */
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
 * Hardware holds one NMI that is pending, KVM another.  The second is merged with
 * the first if the guest hasn't taken that yet, which KVM can't see.  So hand it
 * over after an exit that the guest caused, or after this time (ns).
 */
#define SAVIC_SECOND_NMI_DELAY	(5 * NSEC_PER_MSEC)

/*
 * KVM's timer fires before the guest's deadline, and what is left of that time is
 * waited for before VMRUN.  Don't wait if VMRUN doesn't bring the timer's
 * interrupt, e.g. because the timer is masked.
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
 * savic_request - hand what waits to hardware
 * @svm: the vCPU that is about to VMRUN on this CPU
 *
 * Called with IRQs disabled and mode IN_GUEST_MODE.  What hardware doesn't take,
 * because the engine is off or because VMRUN fails, stays in the VMCB for the
 * next VMRUN.
 *
 * Return: 0, see savic_prepare_vmrun().
 */
int savic_request(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;

	if (test_and_clear_bit(SAVIC_DISCARD_IRR, &savic->flags))
		savic_discard_irr(svm);

	/* VMRUN is the look that was asked for. */
	clear_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* See rule 2 (look-again-vs-vmrun). */
	smp_mb__after_atomic();

	if (savic_request_irr(svm)) {
		control->update_irr = 1;
		savic->irr_in_flight = true;
		savic->irr_new = true;
		svm->vcpu.stat.savic_irr_requests++;
		trace_kvm_savic_request_irr(&svm->vcpu, control->requested_irr);
	}

	savic->nmi_in_flight = control->int_ctl & V_NMI_PENDING_MASK;
	if (savic->nmi_in_flight) {
		trace_kvm_savic_nmi(&svm->vcpu);
		if (svm->vcpu.arch.nmi_pending) {
			savic->second_nmi = ktime_add_ns(ktime_get(), SAVIC_SECOND_NMI_DELAY);
			savic_run_at(savic, savic->second_nmi);
		}
	}

	savic->in_flight = savic->irr_in_flight || savic->nmi_in_flight ||
			   svm->vcpu.arch.nmi_pending;

	savic_forget_deadline(svm);
	return 0;
}

/**
 * savic_request_done - see what VMRUN took of the requests in the VMCB
 * @svm: the vCPU that just left the guest on this CPU
 *
 * Called with IRQs and GIF disabled.  VMRUN clears UPDATE_IRR, REQUESTED_IRR and
 * V_NMI_PENDING when it takes them, which it does with the engine on only
 * (15.36.21.2).
 */
void savic_request_done(struct vcpu_svm *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	bool nmi_left = control->int_ctl & V_NMI_PENDING_MASK;
	struct kvm_vcpu *vcpu = &svm->vcpu;
	struct savic *savic = svm->savic;

	/* With the engine off a request may wait for many VMRUNs, say so once. */
	if (savic->irr_new || (savic->irr_in_flight && !control->update_irr))
		trace_kvm_savic_vmrun_done(vcpu, !control->update_irr, control->exit_code);

	savic->irr_new = false;
	savic->irr_in_flight = control->update_irr;

	if (savic->nmi_in_flight && !nmi_left) {
		vcpu->stat.savic_nmis++;
		savic->nmi_in_flight = false;
	}

	if (vcpu->arch.nmi_pending && !nmi_left &&
	    (control->exit_code != SVM_EXIT_INTR ||
	     !ktime_before(ktime_get(), savic->second_nmi)))
		kvm_make_request(KVM_REQ_NMI, vcpu);

	savic->in_flight = savic->irr_in_flight || nmi_left || vcpu->arch.nmi_pending;
}

/* Tell the guest, by one of GHCB_ERR_*, that its request isn't valid. */
void savic_refuse(struct vcpu_svm *svm, u64 error)
{
	svm->vcpu.stat.savic_refused_vmgexits++;
	svm_vmgexit_bad_input(svm, error);
}

/**
 * savic_inject_exception - give the guest an exception of its VMGEXIT
 * @vcpu: the vCPU, on its way to the guest
 *
 * Hardware ignores EVENTINJ.  An exception that KVM queues while it handles a
 * VMGEXIT goes out in SW_EXITINFO1 and 2 (GHCB, "Exception injection").  No other
 * is ever queued, userspace can't do so either.
 */
void savic_inject_exception(struct kvm_vcpu *vcpu)
{
	struct kvm_queued_exception *ex = &vcpu->arch.exception;
	struct vcpu_svm *svm = to_svm(vcpu);

	if (KVM_BUG_ON(!svm->sev_es.ghcb, vcpu->kvm))
		return;

	svm_vmgexit_inject_exception(svm, ex->vector, ex->has_error_code, ex->error_code);
}

/*
 * The modes in which a guest may send IPIs by ICR.  INIT, SIPI and SMI can't be
 * delivered in Secure AVIC mode, guests start vCPUs with AP Creation.  ExtINT and
 * the reserved modes aren't valid in an ICR at all.
 *
 * Without x2APIC mode KVM would take the destination for that of an xAPIC.
 */
static bool savic_icr_is_valid(struct kvm_vcpu *vcpu, u64 icr)
{
	if (!apic_x2apic_mode(vcpu->arch.apic) || icr & X2APIC_ICR_RESERVED_BITS)
		return false;

	switch (icr & APIC_MODE_MASK) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
	case APIC_DM_NMI:
		return true;
	default:
		return false;
	}
}

/* As savic_look_again(), for the vCPU that has the x2APIC ID, if there is one. */
static void savic_look_again_by_id(struct kvm *kvm, u32 id, bool nmi)
{
	struct kvm_apic_map *map = rcu_dereference(kvm->arch.apic_map);
	struct kvm_lapic *apic;

	if (!map || id > map->max_apic_id)
		return;

	apic = map->phys_map[array_index_nospec(id, map->max_apic_id + 1)];
	if (apic)
		savic_look_again(apic->vcpu, nmi);
}

/* The destination of an IPI without a shorthand. */
static void savic_look_again_at_dest(struct kvm *kvm, u64 icr, bool nmi)
{
	unsigned long members;
	u32 dest = icr >> 32;
	int i;

	guard(rcu)();

	if (!(icr & APIC_DEST_LOGICAL)) {
		savic_look_again_by_id(kvm, dest, nmi);
		return;
	}

	/* A logical ID is made of the x2APIC ID: cluster and member of 16. */
	members = dest & 0xffff;
	for_each_set_bit(i, &members, 16)
		savic_look_again_by_id(kvm, dest >> 16 << 4 | i, nmi);
}

/*
 * An IPI that the guest has put into the targets' backing pages.  All candidates
 * of a lowest priority IPI have to look, only the guest knows its choice.
 *
 * Return: false if the ICR value isn't valid.
 */
static bool savic_send_ipi(struct kvm_vcpu *vcpu, u64 icr)
{
	bool nmi = (icr & APIC_MODE_MASK) == APIC_DM_NMI;
	u32 shorthand = icr & APIC_SHORT_MASK;
	struct kvm_vcpu *target;
	unsigned long i;

	if (!savic_icr_is_valid(vcpu, icr))
		return false;

	vcpu->stat.savic_ipis++;
	trace_kvm_savic_ipi(vcpu, icr, false);

	if (shorthand == APIC_DEST_SELF) {
		savic_look_again(vcpu, nmi);
	} else if (shorthand == APIC_DEST_NOSHORT && icr >> 32 != X2APIC_BROADCAST) {
		savic_look_again_at_dest(vcpu->kvm, icr, nmi);
	} else {
		kvm_for_each_vcpu(i, target, vcpu->kvm) {
			if (target != vcpu || shorthand != APIC_DEST_ALLBUT)
				savic_look_again(target, nmi);
		}
	}
	return true;
}

/*
 * An IPI that the guest forwards as it got it from hardware, i.e. without having
 * touched any backing page.  Post it as an interrupt from the host, which is
 * delivered if the target allows the vector, or NMIs.
 */
static bool savic_forward_ipi(struct kvm_vcpu *vcpu, u64 icr)
{
	if (!savic_icr_is_valid(vcpu, icr))
		return false;

	vcpu->stat.savic_forwarded_ipis++;
	trace_kvm_savic_ipi(vcpu, icr, true);

	return !kvm_x2apic_icr_write(vcpu->arch.apic, icr & ~APIC_ICR_BUSY);
}

/*
 * Tell the I/O APIC of the vectors in savic->eoi.  A userspace I/O APIC is told
 * by one exit per vector, this is the completion callback of those as well.
 *
 * These vectors were posted as level-triggered, so don't filter them by KVM's
 * routes, which the guest may have changed since.
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
 * The level-triggered vectors that hardware has taken, i.e. that the guest may
 * EOI.  Vectors that are on their way to the guest aren't among them.
 */
static void savic_level_taken(struct vcpu_svm *svm, unsigned long *vectors)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct savic *savic = svm->savic;
	int i;

	for (i = 0; i < SAVIC_WORDS; i++) {
		vectors[i] = savic->level_requested[i] & READ_ONCE(savic->level[i]) &
			     ~READ_ONCE(savic->pending[i]);
		if (control->update_irr)
			vectors[i] &= ~control->requested_irr[i];
	}
}

/* The vector is EOI'd.  Return false if it doesn't wait for an EOI. */
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
 * The guest EOI'd a level-triggered vector.  KVM knows which one only if the
 * guest says so (vector >= 0).  An EOI by MSR names none.  KVM takes that as the
 * EOI of all level-triggered vectors that hardware has taken: a line that is
 * still asserted is delivered once more, which at worst is a spurious interrupt,
 * whereas an EOI that goes missing blocks the line for good.
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

	/* An EOI with nothing in service is a nop, as in hardware. */
	if (!found) {
		vcpu->stat.savic_spurious_eois++;
		trace_kvm_savic_eoi(vcpu, -1);
		return 1;
	}

	savic_guest_is_active(savic);
	return savic_send_eois(vcpu);
}

/*
 * A vCPU that halts is made to run again, although that may be of no use, so many
 * times at once.  After that at intervals that double, from the first to the
 * second of these (ns).
 */
#define SAVIC_MAX_RETRIES	8
#define SAVIC_RETRY_MIN		(10 * NSEC_PER_MSEC)
#define SAVIC_RETRY_MAX		(160 * NSEC_PER_MSEC)

/* If the vCPU must not retry now, then it will be woken as soon as it may. */
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

/* The timer isn't stopped on wake-up, so frequent halts cost next to nothing. */
static void savic_look_later(struct savic *savic)
{
	unsigned int ms = READ_ONCE(savic_idle_look_ms);

	if (ms && VALID_PAGE(READ_ONCE(savic->gpa)) &&
	    !hrtimer_is_queued(&savic->timer))
		savic_run_at(savic, ktime_add_ms(ktime_get(), ms));
}

/*
 * The vCPU halted with nothing pending in its APIC.  Its new MP state is already
 * set.
 *
 * If the last VMRUN took nothing, then the engine was off at that time.  The guest
 * may have turned it on since, and halted.  So have another look, if the guest has
 * a backing page (15.36.21.2).
 *
 * The vCPU executed HLT, so it isn't handling an interrupt.  A level-triggered
 * vector that hardware has taken, and that is neither pending nor EOI'd, was
 * dropped by ALLOWED_IRR, or the guest EOI'd it without a VMGEXIT because TMR
 * doesn't say that it is level-triggered.  KVM takes the HLT as the EOI, lest the
 * line stay blocked.
 *
 * Return: as for exit handlers.
 */
static int savic_handle_idle_hlt(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct vmcb_control_area *control = &svm->vmcb->control;
	DECLARE_BITMAP(taken, KVM_NR_INTERRUPTS);
	struct savic *savic = svm->savic;
	bool look, eoi;
	int vector;

	look = VALID_PAGE(READ_ONCE(savic->gpa)) &&
	       (control->update_irr || control->int_ctl & V_NMI_PENDING_MASK);

	savic_level_taken(svm, taken);
	eoi = !bitmap_empty(taken, KVM_NR_INTERRUPTS);

	if (likely(!look && !eoi)) {
		savic_look_later(savic);
		return 1;
	}

	if (!savic_may_retry(savic))
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

/*
 * An access to KVM's copy of a register.  As for any access to an x2APIC MSR,
 * userspace's MSR filter doesn't apply.
 */
static int savic_emulate_x2apic_msr(struct kvm_vcpu *vcpu, u32 msr, bool write,
				    u64 data)
{
	int r;

	if (write) {
		r = kvm_x2apic_msr_write(vcpu, msr, data);
		if (r)
			trace_kvm_msr_write_ex(msr, data);
		else
			trace_kvm_msr_write(msr, data);
	} else {
		r = kvm_x2apic_msr_read(vcpu, msr, &data);
		if (r) {
			trace_kvm_msr_read_ex(msr);
		} else {
			trace_kvm_msr_read(msr, data);
			vcpu->arch.regs[VCPU_REGS_RAX] = (u32)data;
			vcpu->arch.regs[VCPU_REGS_RDX] = data >> 32;
		}
	}

	if (r)
		svm_vmgexit_inject_exception(to_svm(vcpu), GP_VECTOR, true, 0);
	return 1;
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

	if (msr < APIC_BASE_MSR || msr > APIC_BASE_MSR + 0xff)
		return write ? kvm_emulate_wrmsr(vcpu) : kvm_emulate_rdmsr(vcpu);

	if (!write || !VALID_PAGE(READ_ONCE(svm->savic->gpa)))
		return savic_emulate_x2apic_msr(vcpu, msr, write, data);

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
		return savic_emulate_x2apic_msr(vcpu, msr, write, data);
	}
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

/**
 * savic_init_vmcb - put the VMCB into the state for Secure AVIC
 * @svm: the vCPU, in Secure AVIC mode, at its creation, an INIT or AP Creation
 *
 * INIT changes nothing in the backing page.  For a new VMSA see
 * savic_new_vmsa().
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
	hrtimer_setup(&svm->savic->timer, savic_timer_fn, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
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

	hrtimer_cancel(&svm->savic->timer);
	kfree(svm->savic);
	svm->savic = NULL;
	static_branch_dec(&savic_used);
}

static void savic_show_vectors(struct seq_file *m, const char *name,
			       const unsigned long *vectors)
{
	DECLARE_BITMAP(copy, KVM_NR_INTERRUPTS);
	int i;

	for (i = 0; i < SAVIC_WORDS; i++)
		copy[i] = READ_ONCE(vectors[i]);
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
