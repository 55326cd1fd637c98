/*
 * Exits from KVM that end an SEV guest
 *
 * The registers of an SEV-ES or SEV-SNP guest are encrypted, so that the usual
 * dump of them says nothing.  What there is to know is in the exit itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"

#include <linux/kvm.h>

#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "exec/cpu-common.h"
#include "hw/core/cpu.h"
#include "qapi/qapi-types-run-state.h"
#include "system/runstate.h"
#include "target/i386/sev.h"
#include "sev-exit.h"

/* #VMEXIT codes (APM vol. 2, appendix C) */
#define VMEXIT_NPF      0x400ULL
#define VMEXIT_INVALID  (-1ULL)
#define VMEXIT_BUSY     (-2ULL)

/* Reason set 0: GHCB specification, section 2.3.1, GHCBData 100h. */
static const char *const ghcb_reasons[] = {
    "general request",
    "GHCB protocol version not supported",
    "SEV feature not supported: the guest's kernel lacks one that it was"
    " started with",
};

/* Reason set 1: Linux, arch/x86/include/asm/sev-common.h. */
static const char *const linux_reasons[] = {
    "GHCB page not registered",
    "page state change failed",
    "PVALIDATE failed",
    "not running at VMPL 0",
    "CPUID table not valid",
    "CPUID by the hypervisor failed",
    "secrets page not usable",
    "no SVSM in the secrets page",
    "SVSM does not run at VMPL 0",
    "SVSM calling area not aligned",
    "Secure TSC failed",
    "SVSM calling area not mapped",
    "Secure AVIC failed",
};

static const char *termination_message(unsigned set, unsigned reason)
{
    if (set == 0 && reason < ARRAY_SIZE(ghcb_reasons)) {
        return ghcb_reasons[reason];
    }
    if (set == 1 && reason < ARRAY_SIZE(linux_reasons)) {
        return linux_reasons[reason];
    }
    return NULL;
}

int kvm_handle_sev_termination(CPUState *cs)
{
    struct kvm_run *run = cs->kvm_run;
    uint64_t data = run->system_event.ndata ? run->system_event.data[0] : 0;
    GuestPanicInformation *info = g_new0(GuestPanicInformation, 1);
    GuestPanicInformationSev *sev = &info->u.sev;
    const char *message;

    info->type = GUEST_PANIC_INFORMATION_TYPE_SEV;
    sev->reason_set = extract64(data, 12, 4);
    sev->reason = extract64(data, 16, 8);
    message = termination_message(sev->reason_set, sev->reason);
    sev->message = g_strdup(message);

    error_report("vCPU %d: the guest terminated itself, reason set %u,"
                 " reason %u (%s)", cs->cpu_index, sev->reason_set,
                 sev->reason, message ?: "unknown");

    bql_lock();
    qemu_system_guest_panicked(info);
    bql_unlock();
    return EXCP_INTERRUPT;
}

static char *explain_internal_error(const struct kvm_run *run)
{
    if (run->internal.suberror != KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON ||
        !run->internal.ndata) {
        return g_strdup_printf("KVM internal error %u", run->internal.suberror);
    }

    switch (run->internal.data[0]) {
    case VMEXIT_NPF:
        return g_strdup("the processor did not find the guest's Secure AVIC"
                        " backing page: the guest uses a page that is not"
                        " mapped or that it has not registered; this vCPU"
                        " cannot run again");
    case VMEXIT_BUSY:
        return g_strdup("this vCPU cannot run again: its state has been left in"
                        " the middle of an access to its Secure AVIC backing"
                        " page");
    default:
        return g_strdup_printf("#VMEXIT 0x%llx, which KVM cannot handle",
                               run->internal.data[0]);
    }
}

static char *explain_exit(const struct kvm_run *run)
{
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        return explain_internal_error(run);
    case KVM_EXIT_FAIL_ENTRY:
        if (run->fail_entry.hardware_entry_failure_reason == VMEXIT_INVALID) {
            return g_strdup("the processor refuses to run it: its state (VMSA)"
                            " is not valid, or asks for SEV features that the"
                            " guest was not started with");
        }
        return g_strdup_printf("entry failed, reason 0x%llx",
                               run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_MEMORY_FAULT:
        return g_strdup_printf("there is no memory that could be %s at guest"
                               " address 0x%llx, which the guest accesses as"
                               " such",
                               run->memory_fault.flags &
                               KVM_MEMORY_EXIT_FLAG_PRIVATE ?
                               "private" : "shared", run->memory_fault.gpa);
    default:
        return g_strdup_printf("it cannot go on, KVM exit reason %u",
                               run->exit_reason);
    }
}

bool sev_explain_exit(ConfidentialGuestSupport *cgs, CPUState *cs)
{
    g_autofree char *why = NULL;

    if (!sev_es_enabled()) {
        return false;
    }

    why = explain_exit(cs->kvm_run);
    error_report("vCPU %d: %s", cs->cpu_index, why);
    qemu_system_vcpu_failed(cs->cpu_index, why);
    return true;
}
