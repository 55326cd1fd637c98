/*
 * The processor of an SEV-SNP host under TCG: what it reports in CPUID and
 * what firmware has left in its MSRs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "cpu.h"
#include "qemu/timer.h"
#include "system/tcg.h"
#include "snp.h"
#include "snp-cpu.h"

/* CPUID Fn8000_000A_EDX */
#define SVM_EDX_IDLE_HLT            (1U << 30)

/*
 * What a processor with SEV-SNP reports as its physical address size. The
 * difference to what the machine decodes is the address space reduction that
 * comes with memory encryption: Fn8000_001F_EBX[11:6].
 */
#define SNP_HOST_PHYS_BITS          52
/* What is left of them: TCG's 40, or so many */
#define TURIN_PHYS_BITS             44

/* ASIDs for VMRUN at large; Fn8000_001F says which of them are for SEV. */
#define SVM_NR_ASIDS                0x8000

/*
 * Features that the model adds to what TCG offers. Those in @always are what
 * SEV-ES and SNP (APM vol. 2, 15.34-15.36) or hosts of them cannot do
 * without; those in @model only lift TCG's veto for CPU models that have them.
 */
static const struct {
    FeatureWord word;
    uint64_t always;
    uint64_t model;
} snp_host_features[] = {
    {
        .word = FEAT_SVM,
        .always = CPUID_SVM_NPT | CPUID_SVM_LBRV | CPUID_SVM_NRIPSAVE |
                  CPUID_SVM_TSCSCALE | CPUID_SVM_FLUSHASID |
                  CPUID_SVM_DECODEASSIST | CPUID_SVM_PAUSEFILTER |
                  CPUID_SVM_V_VMSAVE_VMLOAD | CPUID_SVM_VGIF |
                  CPUID_SVM_VNMI | CPUID_SVM_SVME_ADDR_CHK |
                  SVM_EDX_IDLE_HLT,
    }, {
        .word = FEAT_1_ECX,
        .always = CPUID_EXT_X2APIC,
    }, {
        .word = FEAT_8000_0001_ECX,
        .always = CPUID_EXT3_SVM,
        .model = CPUID_EXT3_TOPOEXT,
    }, {
        /* Linux takes no SNP guest without XSAVEC or XSAVES. */
        .word = FEAT_XSAVE,
        .always = CPUID_XSAVE_XSAVEC,
    }, {
        .word = FEAT_8000_0007_EDX,
        .always = CPUID_APM_INVTSC,
    }, {
        .word = FEAT_8000_0021_EAX,
        .always = CPUID_8000_0021_EAX_LFENCE_ALWAYS_SERIALIZING,
        .model = CPUID_8000_0021_EAX_NO_NESTED_DATA_BP,
    },
};

/* Model features that a host on TCG is better off without. */
static const struct {
    FeatureWord word;
    uint64_t mask;
} snp_host_hidden[] = {
    /* It is the host: Linux refuses SNP below a hypervisor. */
    { FEAT_1_ECX, CPUID_EXT_HYPERVISOR },
    /* TCG's MWAIT spins where there is more than one CPU. */
    { FEAT_1_ECX, CPUID_EXT_MONITOR },
};

uint64_t snp_host_supported_features(FeatureWord w)
{
    for (int i = 0; i < ARRAY_SIZE(snp_host_features); i++) {
        if (snp_host_features[i].word == w) {
            return snp_host_features[i].always | snp_host_features[i].model;
        }
    }
    return 0;
}

bool snp_host_expand_features(X86CPU *cpu, Error **errp)
{
    CPUX86State *env = &cpu->env;
    int family = ((env->cpuid_version >> 8) & 0xf) +
                 ((env->cpuid_version >> 20) & 0xff);

    if (!tcg_enabled()) {
        error_setg(errp, "snp-host needs the TCG accelerator");
        return false;
    }
    if (!IS_AMD_CPU(env) || family < 0x19) {
        error_setg(errp, "snp-host needs an AMD CPU model of family 19h or "
                   "later, for instance -cpu EPYC-Genoa");
        return false;
    }

    /*
     * Server models list more than TCG can do; that is expected here and
     * worth a warning only for what the user asked for.
     */
    for (FeatureWord w = 0; w < FEATURE_WORDS; w++) {
        uint64_t can = x86_cpu_get_supported_feature_word(NULL, w) |
                       snp_host_supported_features(w);

        env->features[w] &= can | env->user_features[w];
    }
    for (int i = 0; i < ARRAY_SIZE(snp_host_features); i++) {
        FeatureWord w = snp_host_features[i].word;

        env->features[w] |= snp_host_features[i].always &
                            ~env->user_features[w];
    }
    for (int i = 0; i < ARRAY_SIZE(snp_host_hidden); i++) {
        FeatureWord w = snp_host_hidden[i].word;

        env->features[w] &= ~snp_host_hidden[i].mask | env->user_features[w];
    }
    env->cpuid_min_xlevel = MAX(env->cpuid_min_xlevel,
                                snp_turin(env) ? 0x80000025 : 0x80000021);
    if (snp_turin(env) && !cpu->phys_bits) {
        cpu->phys_bits = TURIN_PHYS_BITS;
    }
    if ((cpu->snp.rmp_cfg & RMP_CFG_SEGMENTED) && !snp_turin(env)) {
        error_setg(errp, "x-segmented-rmp=on: only with -cpu %s,"
                   "x-generation=turin", "EPYC-Genoa");
        return false;
    }
    return true;
}

uint32_t snp_host_sev_eax(X86CPU *cpu)
{
    uint32_t eax = SEV_EAX_SEV | SEV_EAX_SEV_ES | SEV_EAX_SNP | SEV_EAX_VMPL |
                   SEV_EAX_SECURE_TSC | SEV_EAX_TSC_AUX | SEV_EAX_COHERENT |
                   SEV_EAX_64BIT_HOST | SEV_EAX_ALTERNATE_INJ |
                   SEV_EAX_DEBUG_VIRT | SEV_EAX_PREVENT_HOST_IBS |
                   SEV_EAX_VMGEXIT_PARAM | SEV_EAX_SECURE_AVIC |
                   SEV_EAX_ALLOWED_FEATURES;

    if (snp_turin(&cpu->env)) {
        eax |= SEV_EAX_RMPQUERY | SEV_EAX_RMPREAD | SEV_EAX_SEGMENTED_RMP |
               SEV_EAX_IBPB_ON_ENTRY;
    }
    if (snp_in_use_write_allowed(&cpu->env)) {
        eax |= SEV_EAX_IN_USE_WRITE;
    }
    return eax;
}

void snp_host_cpuid(X86CPU *cpu, uint32_t index, uint32_t *eax,
                    uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    switch (index) {
    case 0x80000008:
        *eax = (*eax & ~0xffU) | SNP_HOST_PHYS_BITS;
        break;
    case 0x8000000A:
        *ebx = SVM_NR_ASIDS;
        break;
    case 0x8000001F:
        *eax = snp_host_sev_eax(cpu);
        *ebx = SEV_C_BIT_POS | (SNP_HOST_PHYS_BITS - cpu->phys_bits) << 6 |
               SNP_NR_VMPLS << 12;
        *ecx = SEV_MAX_ASID;
        *edx = SEV_MIN_ASID;
        break;
    case 0x80000025:
        if (snp_turin(&cpu->env)) {
            *eax = RMP_SEGMENT_SHIFT_MIN | RMP_SEGMENT_SHIFT_MAX << 6;
            *ebx = RMP_SEGMENTS;
        }
        break;
    }
}

uint64_t snp_host_tsc(CPUX86State *env)
{
    return muldiv64(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL),
                    snp_host_tsc_khz(env), 1000000);
}

void snp_host_cpu_reset(X86CPU *cpu)
{
    X86SevState *sev = &cpu->env.sev;

    sev->syscfg = SYSCFG_MEM_ENCRYPTION_MOD_EN;
    sev->hwcr = HWCR_SMM_LOCK | HWCR_TSC_FREQ_SEL;
    sev->rmp_base = cpu->rmp_base;
    sev->rmp_end = cpu->rmp_end;
    sev->rmp_cfg = cpu->snp.rmp_cfg;
    if (tcg_enabled()) {
        snp_rmp_cpu_reset(CPU(cpu));
    }
}

void snp_host_cpu_init(X86CPU *cpu, const X86SevState *before)
{
    X86SevState *sev = &cpu->env.sev;

    sev->syscfg = before->syscfg;
    sev->hwcr = before->hwcr;
    sev->vm_cr = before->vm_cr;
    if (!(sev->vm_cr & VM_CR_LOCK)) {
        sev->vm_cr &= ~VM_CR_SVMDIS;
    }
    sev->rmp_base = before->rmp_base;
    sev->rmp_end = before->rmp_end;
    sev->rmp_cfg = before->rmp_cfg;
}
