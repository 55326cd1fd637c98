/*
 * Exits from KVM that end an SEV guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef I386_KVM_SEV_EXIT_H
#define I386_KVM_SEV_EXIT_H

#include "qemu/typedefs.h"
#include "system/confidential-guest-support.h"

/*
 * The guest asked to be terminated (KVM_SYSTEM_EVENT_SEV_TERM): report its
 * reason, and do what the user wants of a guest that panicked.  Takes the BQL.
 * Returns what kvm_arch_handle_exit() returns.
 */
int kvm_handle_sev_termination(CPUState *cs);

/*
 * Report why KVM_RUN of @cs ended for good.  Returns false if the guest's
 * registers are not encrypted, i.e. if it is worth to look at them.
 */
bool sev_explain_exit(ConfidentialGuestSupport *cgs, CPUState *cs);

#endif
