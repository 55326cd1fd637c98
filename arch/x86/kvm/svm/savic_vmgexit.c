// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: what a guest asks the host for by VMGEXIT.
 *
 * An invalid request is answered by one of GHCB_ERR_*.  sev_handle_vmgexit()
 * has checked the GHCB's common fields.
 *
 * Section numbers are of the AMD64 APM vol. 2, rev. 3.44.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/nospec.h>

#include <asm/apic.h>

#include "ioapic.h"
#include "irq.h"
#include "lapic.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"
#include "savic_trace.h"

/* Fields of AVIC_NOACCEL's exit information (15.29.9.2). */
#define SAVIC_NOACCEL_WRITE		BIT_ULL(32)
#define SAVIC_NOACCEL_OFFSET_MASK	GENMASK_ULL(11, 4)
#define SAVIC_NOACCEL_VECTOR_MASK	GENMASK_ULL(7, 0)

/*
 * Hardware doesn't deliver INIT, SIPI and SMI in Secure AVIC mode.  ExtINT and
 * the reserved modes aren't valid in an ICR at all.  The destination is that of
 * an x2APIC.
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

/*
 * As savic_look_again(), for the vCPU that has the x2APIC ID, if any.  The map
 * costs the same for any number of vCPUs, but may lack a vCPU.
 */
static void savic_look_again_by_id(struct kvm *kvm, u32 id, bool nmi)
{
	struct kvm_apic_map *map = rcu_dereference(kvm->arch.apic_map);
	struct kvm_lapic *apic = NULL;
	struct kvm_vcpu *vcpu;

	if (map && id <= map->max_apic_id)
		apic = map->phys_map[array_index_nospec(id, map->max_apic_id + 1)];

	vcpu = apic ? apic->vcpu : kvm_get_vcpu_by_id(kvm, id);
	if (vcpu)
		savic_look_again(vcpu, nmi);
}

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

	/* A cluster, and a bit for each of its 16 members. */
	members = dest & 0xffff;
	for_each_set_bit(i, &members, 16)
		savic_look_again_by_id(kvm, dest >> 16 << 4 | i, nmi);
}

/*
 * The guest has written the IPI to the targets' backing pages.  Notify all of a
 * lowest priority IPI's destinations, as KVM doesn't know which one it chose.
 *
 * Return false if the ICR value isn't valid.
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
 * The guest passes on a write of ICR that hardware didn't handle.  No backing
 * page was written.  Send the IPI as an interrupt from the host.
 *
 * Return false if the ICR value isn't valid.
 */
static bool savic_forward_ipi(struct kvm_vcpu *vcpu, u64 icr)
{
	if (!savic_icr_is_valid(vcpu, icr))
		return false;

	vcpu->stat.savic_ipis++;
	trace_kvm_savic_ipi(vcpu, icr, true);

	return !kvm_x2apic_icr_write(vcpu->arch.apic, icr);
}

/*
 * The level-triggered vectors that VMRUN has taken from REQUESTED_IRR and that
 * are not EOI'd.
 */
void savic_level_taken(struct vcpu_svm *svm, unsigned long *vectors)
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

/* Return false if the vector doesn't wait for an EOI. */
static bool savic_queue_eoi(struct vcpu_svm *svm, int vector, bool missing)
{
	struct kvm_vcpu *vcpu = &svm->vcpu;
	struct savic *savic = svm->savic;

	__clear_bit(vector, savic->level_requested);
	if (!test_and_clear_bit(vector, savic->level))
		return false;

	__set_bit(vector, savic->eoi);
	vcpu->stat.savic_level_eois++;
	vcpu->stat.savic_missing_eois += missing;
	trace_kvm_savic_eoi(vcpu, vector, missing);
	return true;
}

/*
 * Queue EOIs for all of savic_level_taken().  @missing if the vCPU halted
 * without them.  Return true if there are any.
 */
bool savic_queue_eois(struct vcpu_svm *svm, bool missing)
{
	DECLARE_BITMAP(vectors, KVM_NR_INTERRUPTS);
	bool found = false;
	int v;

	savic_level_taken(svm, vectors);
	for_each_set_bit(v, vectors, KVM_NR_INTERRUPTS)
		found |= savic_queue_eoi(svm, v, missing);

	return found;
}

/*
 * Send the queued EOIs to the I/O APIC.  A userspace I/O APIC takes one exit
 * per vector, and this is the completion callback of that exit as well.
 *
 * The guest may have changed the routes since a vector was posted, so don't
 * filter the EOIs by KVM's routes.
 */
int savic_send_eois(struct kvm_vcpu *vcpu)
{
	struct savic *savic = to_svm(vcpu)->savic;
	int vector;

	for_each_set_bit(vector, savic->eoi, KVM_NR_INTERRUPTS) {
		__clear_bit(vector, savic->eoi);

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
 * The guest EOIs a level-triggered vector.  An EOI by MSR doesn't name the
 * vector (@vector is -1).  KVM takes that as the EOI of all level-triggered
 * vectors that hardware has taken.  A line that is still asserted is then
 * delivered once more, which may be a spurious interrupt.  A missing EOI would
 * block the line.
 */
static int savic_eoi(struct kvm_vcpu *vcpu, int vector)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	bool found;

	if (vector >= 0)
		found = savic_queue_eoi(svm, vector, false);
	else
		found = savic_queue_eois(svm, false);

	/* An EOI with nothing in service is a nop, as in hardware. */
	if (!found) {
		trace_kvm_savic_eoi(vcpu, -1, false);
		return 1;
	}

	savic_guest_is_active(svm->savic);
	return savic_send_eois(vcpu);
}

/*
 * Handle an RDMSR or WRMSR (SVM_EXIT_MSR).
 *
 * KVM's APIC has all x2APIC registers until the guest has a backing page, and
 * after that those that aren't in it, the timer and the other LVTs.  Writes of
 * ICR and EOI then say what the guest has done to backing pages.
 */
int savic_handle_msr_vmgexit(struct kvm_vcpu *vcpu)
{
	u32 msr = vcpu->arch.regs[VCPU_REGS_RCX];
	struct vcpu_svm *svm = to_svm(vcpu);
	u64 data;

	if (!svm->vmcb->control.exit_info_1)
		return kvm_emulate_rdmsr(vcpu);

	if ((msr != X2APIC_MSR(APIC_ICR) && msr != X2APIC_MSR(APIC_EOI)) ||
	    !VALID_PAGE(READ_ONCE(svm->savic->gpa)))
		return kvm_emulate_wrmsr(vcpu);

	data = (u32)vcpu->arch.regs[VCPU_REGS_RAX] |
	       (u64)(u32)vcpu->arch.regs[VCPU_REGS_RDX] << 32;

	if (msr == X2APIC_MSR(APIC_EOI)) {
		if (!data)
			return savic_eoi(vcpu, -1);
	} else if (savic_send_ipi(vcpu, data)) {
		return 1;
	}

	savic_refuse(svm, GHCB_ERR_INVALID_INPUT);
	return 1;
}

/* Handle the VMGEXITs that are specific to Secure AVIC. */
int savic_handle_vmgexit(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct vmcb_control_area *control = &svm->vmcb->control;
	u64 info_1 = control->exit_info_1;

	switch (control->exit_code) {
	case SVM_VMGEXIT_SAVIC:
		return savic_handle_register(vcpu);
	case SVM_EXIT_AVIC_INCOMPLETE_IPI:
		/* EXITINFO1 has the whole ICR, whatever the reason. */
		if (!savic_forward_ipi(vcpu, info_1))
			break;
		return 1;
	case SVM_EXIT_AVIC_UNACCELERATED_ACCESS:
		/* The exit information has a value for EOI only. */
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

/*
 * Hardware ignores EVENTINJ, so exceptions go out in SW_EXITINFO1 and 2 (GHCB,
 * "Exception injection").  The GHCB's MSR protocol has no way to say that.
 */
void savic_inject_exception(struct kvm_vcpu *vcpu)
{
	struct kvm_queued_exception *ex = &vcpu->arch.exception;
	struct vcpu_svm *svm = to_svm(vcpu);

	if (svm->sev_es.ghcb)
		svm_vmgexit_inject_exception(svm, ex->vector, ex->has_error_code,
					     ex->error_code);
	else
		kvm_make_request(KVM_REQ_TRIPLE_FAULT, vcpu);
}
