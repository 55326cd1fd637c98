/*
 * Properties for the readings of the manual that an SNP host can play (TCG)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qapi/visitor.h"
#include "qemu/cutils.h"
#include "qom/object.h"
#include "cpu.h"
#include "snp-readings.h"

#define DEFAULT_DISTURB_RATE    16

typedef struct SnpReadingProperty {
    const char *name;
    const char *values[5];      /* the default first; ends with NULL */
    const char *description;
} SnpReadingProperty;

static const SnpReadingProperty properties[SNP_NR_READINGS] = {
    [SNP_READING_REQUESTS] = {
        "x-savic-requests", { "kept", "cleared" },
        "UPDATE_IRR, REQUESTED_IRR and V_NMI_PENDING when VMRUN fails or "
        "finds the engine off",
    },
    [SNP_READING_VNMI_TAKEN] = {
        "x-savic-nmi-taken", { "vmrun", "vmexit" },
        "What clears V_NMI_PENDING in the VMCB",
    },
    [SNP_READING_VNMI_DENIED] = {
        "x-savic-nmi-denied", { "dropped", "kept" },
        "V_NMI_PENDING without AllowedNmi",
    },
    [SNP_READING_IDLE_HLT_PRIORITY] = {
        "x-idle-hlt-priority", { "ppr", "tpr" },
        "What an interrupt has to be above for Idle-HLT",
    },
    [SNP_READING_IDLE_HLT_IF] = {
        "x-idle-hlt-if", { "ignored", "honoured" },
        "RFLAGS.IF for Idle-HLT",
    },
    [SNP_READING_IDLE_HLT_SHADOW] = {
        "x-idle-hlt-shadow", { "ignored", "honoured" },
        "An interrupt shadow for Idle-HLT",
    },
    [SNP_READING_IDLE_HLT_NMI] = {
        "x-idle-hlt-nmi", { "unmasked", "any" },
        "A virtual NMI that counts for Idle-HLT",
    },
    [SNP_READING_IDLE_HLT_GIF] = {
        "x-idle-hlt-gif", { "ignored", "honoured" },
        "VGIF for Idle-HLT",
    },
    [SNP_READING_IDLE_HLT_SPURIOUS] = {
        "x-idle-hlt-spurious", { "off", "on" },
        "Idle-HLT exits although something is pending",
    },
    [SNP_READING_DOORBELL_CPUID] = {
        "x-doorbell-cpuid", { "ignored", "needed" },
        "The doorbell without Fn8000_000A EDX[13]",
    },
    [SNP_READING_DOORBELL_ORDER] = {
        "x-doorbell-order", { "prompt", "late" },
        "When the doorbell is seen",
    },
    [SNP_READING_DOORBELL_ENTRY] = {
        "x-doorbell-entry", { "taken", "lost" },
        "The doorbell for a CPU that is not yet in guest mode",
    },
    [SNP_READING_IN_USE_WRITE] = {
        "x-in-use-write", { "fault", "allowed" },
        "Writes to the VMCB, VMSA or backing page of a running vCPU "
        "(Fn8000_001F EAX[30])",
    },
    [SNP_READING_RMP_BUSY] = {
        "x-rmp-busy", { "never", "rmpupdate", "psmash", "both" },
        "Instructions that fail for a moment: RMPUPDATE with FAIL_OVERLAP, "
        "PSMASH with FAIL_INUSE",
    },
    [SNP_READING_PAGE_IN_USE] = {
        "x-savic-page-in-use", { "control", "never", "vmrun" },
        "From when on the backing page is in use",
    },
    [SNP_READING_SELF_ICR] = {
        "x-savic-self-icr", { "invalid", "accelerated", "unaccelerated" },
        "ICR with shorthand self that is not fixed and edge",
    },
    [SNP_READING_NOT_ALLOWED] = {
        "x-savic-not-allowed", { "invalid", "off" },
        "Secure AVIC with ALLOWED_SEV_FEATURES not enabled",
    },
    [SNP_READING_CONTROL_WRITE] = {
        "x-savic-control-write", { "page", "vmcb" },
        "What a WRMSR that turns the engine on looks at",
    },
    [SNP_READING_EXIT_INT_INFO] = {
        "x-savic-exit-int-info", { "both", "vmsa" },
        "Where an interrupted event is saved",
    },
    [SNP_READING_UNVALIDATED] = {
        "x-savic-unvalidated", { "vc", "invalid" },
        "VMRUN with a backing page that is not validated",
    },
    [SNP_READING_TMR] = {
        "x-savic-tmr", { "kept", "cleared" },
        "TMR of a vector from REQUESTED_IRR",
    },
    [SNP_GENERATION] = {
        "x-generation", { "genoa", "turin" },
        "turin: with a segmented RMP, RMPREAD and RMPQUERY, and IBPB on entry",
    },
};

static void get_reading(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    const SnpReadingProperty *p = opaque;
    g_autofree char *value =
        g_strdup(p->values[X86_CPU(obj)->snp.readings[p - properties]]);

    visit_type_str(v, name, &value, errp);
}

static void set_reading(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    const SnpReadingProperty *p = opaque;
    g_autofree char *value = NULL;
    g_autoptr(GString) allowed = g_string_new(NULL);

    if (!visit_type_str(v, name, &value, errp)) {
        return;
    }
    for (int i = 0; p->values[i]; i++) {
        if (!strcmp(value, p->values[i])) {
            X86_CPU(obj)->snp.readings[p - properties] = i;
            return;
        }
        g_string_append_printf(allowed, "%s%s", i ? ", " : "", p->values[i]);
    }
    error_setg(errp, "%s=%s: allowed values are %s", name, value,
               allowed->str);
}

static void get_disturb(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    X86SnpModel *snp = &X86_CPU(obj)->snp;
    g_autofree char *value = g_strdup_printf("%" PRIu64 ":%" PRIu32,
                                             snp->disturb_seed,
                                             snp->disturb_rate);

    visit_type_str(v, name, &value, errp);
}

/* "SEED[:RATE]" */
static bool parse_disturb(X86CPU *cpu, const char *value)
{
    uint64_t seed, rate = DEFAULT_DISTURB_RATE;
    const char *end;

    if (qemu_strtou64(value, &end, 0, &seed) < 0 ||
        (*end && (*end != ':' || qemu_strtou64(end + 1, NULL, 0, &rate) < 0)) ||
        !rate || rate > UINT32_MAX) {
        return false;
    }
    cpu->snp.disturb_seed = seed;
    cpu->snp.disturb_rate = rate;
    return true;
}

static void set_disturb(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    g_autofree char *value = NULL;

    if (visit_type_str(v, name, &value, errp) &&
        !parse_disturb(X86_CPU(obj), value)) {
        error_setg(errp, "%s=%s: allowed values are SEED and SEED:RATE, "
                   "two numbers, RATE not 0", name, value);
    }
}

void snp_readings_class_init(ObjectClass *oc)
{
    object_class_property_add(oc, "x-disturb", "str", get_disturb,
                              set_disturb, NULL, NULL);
    object_class_property_set_description(oc, "x-disturb",
        "SEED[:RATE]: exits, delays, TLB flushes and busy RMP entries at random");
    for (int i = 0; i < SNP_NR_READINGS; i++) {
        const SnpReadingProperty *p = &properties[i];

        object_class_property_add(oc, p->name, "str", get_reading,
                                  set_reading, NULL, (void *)p);
        object_class_property_set_description(oc, p->name, p->description);
    }
}

/* The first one leaves nothing of what the second one is about. */
static const struct {
    SnpReading reading;
    uint8_t value;
    SnpReading excluded;
} contradictions[] = {
    { SNP_READING_DOORBELL_CPUID, 1, SNP_READING_DOORBELL_ORDER },
    { SNP_READING_DOORBELL_CPUID, 1, SNP_READING_DOORBELL_ENTRY },
    { SNP_READING_IDLE_HLT_SPURIOUS, 1, SNP_READING_IDLE_HLT_PRIORITY },
    { SNP_READING_IDLE_HLT_SPURIOUS, 1, SNP_READING_IDLE_HLT_IF },
    { SNP_READING_IDLE_HLT_SPURIOUS, 1, SNP_READING_IDLE_HLT_SHADOW },
    { SNP_READING_IDLE_HLT_SPURIOUS, 1, SNP_READING_IDLE_HLT_NMI },
    { SNP_READING_IDLE_HLT_SPURIOUS, 1, SNP_READING_IDLE_HLT_GIF },
};

bool snp_readings_check(X86CPU *cpu, Error **errp)
{
    for (int i = 0; i < SNP_NR_READINGS; i++) {
        if (cpu->snp.readings[i] && !cpu->snp_host) {
            error_setg(errp, "%s=%s: only with -machine q35,snp-host=on",
                       properties[i].name,
                       properties[i].values[cpu->snp.readings[i]]);
            return false;
        }
    }
    for (int i = 0; i < ARRAY_SIZE(contradictions); i++) {
        const SnpReadingProperty *p = &properties[contradictions[i].reading];
        const SnpReadingProperty *other = &properties[contradictions[i].excluded];
        uint8_t value = contradictions[i].value;

        if (cpu->snp.readings[contradictions[i].reading] == value &&
            cpu->snp.readings[contradictions[i].excluded]) {
            error_setg(errp, "%s=%s: with that, only %s=%s is allowed",
                       p->name, p->values[value], other->name,
                       other->values[0]);
            return false;
        }
    }
    if (cpu->snp.disturb_rate) {
        if (!cpu->snp_host) {
            error_setg(errp, "x-disturb: only with -machine q35,snp-host=on");
            return false;
        }
        if (!first_cpu || CPU(cpu) == first_cpu) {
            info_report("x-disturb=%" PRIu64 ":%" PRIu32,
                        cpu->snp.disturb_seed, cpu->snp.disturb_rate);
        }
    }
    return true;
}
