// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: VMs and vCPUs.
 *
 * In Secure AVIC mode the state of a vCPU's APIC is in a guest-private backing
 * page, which hardware reads and writes with the guest's key.  The host sees
 * neither IRR nor ISR nor TPR.  It can't inject anything: hardware ignores
 * EVENTINJ and V_IRQ of the VMCB.  What the host can do is to
 *
 *   - request vectors (VMCB.REQUESTED_IRR).  VMRUN ANDs them with the guest's
 *     ALLOWED_IRR and ORs the result into the backing page's IRR.
 *   - request an NMI (VMCB.V_NMI_PENDING).  VMRUN takes it if the guest has set
 *     AllowedNmi.
 *   - make a CPU evaluate the backing page.  VMRUN evaluates all of it.  The
 *     AVIC doorbell is for IRR only, not for NmiReq and REQUESTED_IRR.
 *   - emulate what hardware doesn't have, when the guest asks for it by
 *     VMGEXIT: the timer and the other LVTs, EOIs of level-triggered vectors,
 *     and IPIs, for which the guest sets the target's IRR itself.
 *
 * savic_irq.c		interrupts and NMIs, from the sender to VMRUN
 * savic_page.c		the backing page, registered and kept mapped
 * savic_vmgexit.c	IPIs, EOIs and APIC registers by VMGEXIT
 * savic_halt.c		halted vCPUs
 *
 * Section numbers are of the AMD64 APM vol. 2, rev. 3.44.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/kvm_host.h>
#include <linux/moduleparam.h>
#include <linux/seq_file.h>

#include <asm/sev.h>

#include "irq.h"
#include "lapic.h"
#include "mmu.h"
#include "x86.h"
#include "svm.h"
#include "savic.h"

#define CREATE_TRACE_POINTS
#include "savic_trace.h"

/* Counts the vCPUs in Secure AVIC mode, see savic_active(). */
DEFINE_STATIC_KEY_FALSE(savic_used);

/* enable/disable Secure AVIC for SEV-SNP guests that ask for it */
static bool __ro_after_init secure_avic = true;
module_param(secure_avic, bool, 0444);

/*
 * The doorbell's MSR (15.29.8.2) may be there although CPUID doesn't report
 * AVIC.  A doorbell has no effect on a CPU that isn't in guest mode.
 */
static bool __init savic_probe_doorbell(void)
{
	u32 apic_id = cpu_physical_id(raw_smp_processor_id());

	return boot_cpu_has(X86_FEATURE_AVIC) ||
	       !wrmsrq_safe(MSR_AMD64_SVM_AVIC_DOORBELL, apic_id);
}

/*
 * Return true if SVM_SEV_FEAT_SECURE_AVIC can be offered to userspace.
 *
 * Without Idle-HLT a vCPU could sleep on an interrupt that KVM can't see.  The
 * shadow MMU recycles page tables while vCPUs are in guest mode, only the TDP
 * MMU can keep backing pages mapped.
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

/* Fixed before the first vCPU is created.  Callable from any context. */
bool savic_enabled_for_vm(struct kvm *kvm)
{
	return to_kvm_sev_info(kvm)->vmsa_features & SVM_SEV_FEAT_SECURE_AVIC;
}

/*
 * Userspace selects Secure AVIC.  Return -EINVAL if it has set up what needs
 * EOIs that KVM can't see: a PIT, or suppressed EOI broadcasts.
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

	kvm->arch.has_hidden_apics = true;

	/*
	 * Recovery of NX huge pages zaps page tables while vCPUs are in guest
	 * mode.  No CPU with Secure AVIC needs the mitigation.
	 */
	kvm->arch.disable_nx_huge_pages = true;
	return 0;
}

/* Called at the vCPU's creation, for INIT and for AP Creation. */
void savic_init_vmcb(struct vcpu_svm *svm)
{
	/* TPR is in the backing page, KVM has nothing to track. */
	svm_clr_intercept(svm, TRAP_CR8_WRITE);
}

/* VGIF and V_NMI_ENABLE are taken from the VMSA (15.36.21.2). */
void savic_init_vmsa(struct sev_es_save_area *save)
{
	save->vintr_ctrl |= V_GIF_MASK | V_NMI_ENABLE_MASK;
}

/* The guest's access to the MSR isn't KVM's business. */
void savic_recalc_msr_intercepts(struct kvm_vcpu *vcpu)
{
	svm_disable_intercept_for_msr(vcpu, MSR_AMD64_SAVIC_CONTROL, MSR_TYPE_RW);
}

static enum hrtimer_restart savic_timer_fn(struct hrtimer *timer)
{
	struct savic *savic = container_of(timer, struct savic, timer);

	set_bit(SAVIC_LOOK_AGAIN, &savic->flags);

	/* Pairs with the vCPU's barrier, see savic_irq.c. */
	smp_mb__after_atomic();
	kvm_vcpu_kick(savic->vcpu);

	return HRTIMER_NORESTART;
}

/* Does nothing unless the VM is in Secure AVIC mode. */
int savic_vcpu_create(struct kvm_vcpu *vcpu)
{
	struct vcpu_svm *svm = to_svm(vcpu);
	struct savic *savic;

	if (!savic_enabled_for_vm(vcpu->kvm))
		return 0;

	/* The timer, MSIs and IPIs need an APIC in the kernel. */
	if (!irqchip_in_kernel(vcpu->kvm))
		return -EINVAL;

	savic = kzalloc_obj(*savic, GFP_KERNEL_ACCOUNT);
	if (!savic)
		return -ENOMEM;

	savic->vcpu = vcpu;
	savic->gpa = INVALID_PAGE;
	hrtimer_setup(&savic->timer, savic_timer_fn, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS_HARD);
	svm->savic = savic;
	static_branch_inc(&savic_used);

	vcpu->arch.apic->guest_apic_protected = true;

	/* KVM's own inhibition of AVIC comes only later. */
	vcpu->arch.apic->apicv_active = false;

	return 0;
}

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
			       const void *vectors)
{
	DECLARE_BITMAP(copy, KVM_NR_INTERRUPTS);
	const unsigned long *words = vectors;
	int i;

	for (i = 0; i < SAVIC_WORDS; i++)
		copy[i] = READ_ONCE(words[i]);
	seq_printf(m, "%s: %*pbl\n", name, KVM_NR_INTERRUPTS, copy);
}

static int savic_debugfs_show(struct seq_file *m, void *unused)
{
	static const unsigned long none[SAVIC_WORDS];
	struct kvm_vcpu *vcpu = m->private;
	struct vmcb_control_area *control = &to_svm(vcpu)->vmcb->control;
	struct savic *savic = to_svm(vcpu)->savic;
	const void *requested = control->requested_irr;

	if (!READ_ONCE(control->update_irr))
		requested = none;

	seq_printf(m, "page: 0x%llx\n", READ_ONCE(savic->gpa));
	seq_printf(m, "flags: 0x%lx\n", READ_ONCE(savic->flags));
	savic_show_vectors(m, "pending", savic->pending);
	savic_show_vectors(m, "requested", requested);
	savic_show_vectors(m, "level", savic->level);
	savic_show_vectors(m, "eoi", savic->eoi);

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(savic_debugfs);

void savic_create_vcpu_debugfs(struct kvm_vcpu *vcpu, struct dentry *dentry)
{
	if (savic_active(vcpu))
		debugfs_create_file("savic", 0444, dentry, vcpu,
				    &savic_debugfs_fops);
}
