/*
 * What an SEV-SNP guest with Secure AVIC needs of host, machine and vCPUs
 *
 * Everything is checked before the guest is launched, so that what is wrong is
 * named along with what to change, in place of an EINVAL of KVM's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"

#include <linux/kvm.h>

#include "qapi/error.h"
#include "hyperv-proto.h"
#include "kvm/hyperv.h"
#include "kvm/kvm_i386.h"
#include "sev-secure-avic.h"
#include "system/kvm.h"

/* CPUID Fn8000_001F EAX (APM vol. 3, E.4.17) */
#define CPUID_SEV_SECURE_AVIC   (1U << 26)

#define KVM_AMD_PARAMETER       "/sys/module/kvm_amd/parameters/secure_avic"

bool sev_kvm_offers_vmsa_feature(uint64_t feature)
{
    uint64_t features = 0;
    struct kvm_device_attr attr = {
        .group = KVM_X86_GRP_SEV,
        .attr = KVM_X86_SEV_VMSA_FEATURES,
        .addr = (uintptr_t)&features,
    };

    return kvm_ioctl(kvm_state, KVM_GET_DEVICE_ATTR, &attr) == 0 &&
           (features & feature);
}

bool sev_secure_avic_check_host(Error **errp)
{
    uint32_t eax;

    if (!kvm_kernel_irqchip_allowed()) {
        error_setg(errp, "Secure AVIC needs KVM's local APIC: use"
                   " kernel-irqchip=on or kernel-irqchip=split");
        return false;
    }

    if (sev_kvm_offers_vmsa_feature(SEV_VMSA_SECURE_AVIC)) {
        return true;
    }

    /* Why not?  The processor first, no kernel can help there. */
    host_cpuid(0x8000001F, 0, &eax, NULL, NULL, NULL);
    if (!(eax & CPUID_SEV_SECURE_AVIC)) {
        error_setg(errp, "the host's processor does not have Secure AVIC"
                   " (CPUID Fn8000_001F EAX[26]): use secure-avic=off");
    } else if (access(KVM_AMD_PARAMETER, F_OK) < 0) {
        error_setg(errp, "the host's kernel cannot give Secure AVIC to guests:"
                   " use one whose kvm-amd module has the parameter"
                   " secure_avic, or secure-avic=off");
    } else {
        error_setg(errp, "Secure AVIC is turned off in the host's KVM: load"
                   " kvm with tdp_mmu=1 and kvm-amd with secure_avic=1"
                   " sev_snp=1 vgif=1 vnmi=1, or use secure-avic=off");
    }
    return false;
}

/*
 * Paravirtual features by which KVM would read or write APIC registers, or
 * inject what the guest does not allow.
 */
static const struct {
    const char *name;
    uint32_t mask;
} unusable_pv_features[] = {
    { "kvm-asyncpf", CPUID_KVM_ASYNCPF },
    { "kvm-asyncpf-vmexit", 1U << KVM_FEATURE_ASYNC_PF_VMEXIT },
    { "kvm-asyncpf-int", CPUID_KVM_ASYNCPF_INT },
    { "kvm-pv-eoi", CPUID_KVM_PV_EOI },
    { "kvm-pv-ipi", 1U << KVM_FEATURE_PV_SEND_IPI },
};

bool sev_secure_avic_prepare_cpu(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;
    int i;

    if (!(env->features[FEAT_1_EDX] & CPUID_APIC)) {
        error_setg(errp, "Secure AVIC needs a local APIC:"
                   " remove -apic or apic=off from -cpu");
        return false;
    }
    /* There is no xAPIC in Secure AVIC mode (APM vol. 2, 15.36.21). */
    if (!(env->features[FEAT_1_ECX] & CPUID_EXT_X2APIC)) {
        error_setg(errp, "Secure AVIC needs x2APIC: remove -x2apic or"
                   " x2apic=off from -cpu");
        return false;
    }
    /* Its message EOI and auto-EOI work on APIC registers that KVM lacks. */
    if (hyperv_feat_enabled(cpu, HYPERV_FEAT_SYNIC)) {
        error_setg(errp, "Secure AVIC excludes Hyper-V's synthetic interrupt"
                   " controller: remove hv-synic, and hv-stimer with it,"
                   " from -cpu");
        return false;
    }
    /* CPU models with everything have these, too: that is nobody's wish. */
    for (i = 0; i < ARRAY_SIZE(unusable_pv_features); i++) {
        uint32_t mask = unusable_pv_features[i].mask;

        if (env->features[FEAT_KVM] & env->user_features[FEAT_KVM] & mask) {
            error_setg(errp, "Secure AVIC excludes %s, which needs an APIC that"
                       " KVM can see: remove %s from -cpu",
                       unusable_pv_features[i].name,
                       unusable_pv_features[i].name);
            return false;
        }
        env->features[FEAT_KVM] &= ~mask;
    }
    return true;
}
