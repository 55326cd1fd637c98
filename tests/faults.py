# Faults of KVM, one at a time, that the selftests have to notice: see tests/mutations.
# SPDX-License-Identifier: GPL-2.0-only
"""What may be wrong with a host of Secure AVIC guests, and which test says so."""

# Ways in which such a host can look finished and be wrong. Each has a fault below, or is tested as NOT_FAULTS says.
HARD_PARTS = {
    1: "no local APIC in the kernel",
    2: "another vCPU named in a request",
    3: "EOI without anything in service",
    4: "ICR for every destination",
    5: "NMI by ICR and from userspace",
    6: "a vector that the guest does not allow",
    7: "mode on, engine off",
    8: "the backing page stays mapped",
    9: "lost wake-ups",
    10: "interrupted delivery",
    11: "I/O APIC, PIC, PIT and RTC",
    12: "timer",
    13: "paravirtual features",
    14: "userspace API",
    15: "life cycle of vCPUs and VMs",
    16: "nothing changes for other guests",
}

# No fault of Secure AVIC shows there: what is tested is that it is off, and what it costs.
NOT_FAULTS = {16: ("host/lacking", "bench/exits")}

# The hard parts that it is one of, what is wrong, the tests that are to notice, and the edits: [FILE:]FUNCTION:TEXT, the
# first such text in that function, of savic_irq.c unless there is a FILE, and what it becomes. M means: this fault is active.
FAULTS = [
    ("9", "a posted vector does not kick", "savic_halt_test msi_running", [
        ("savic_deliver_interrupt:\tsavic_notify(vcpu, SAVIC_NOTIFY_KICK);",
         "\tif (!M)\n\t\tsavic_notify(vcpu, SAVIC_NOTIFY_KICK);")]),
    ("9", "doorbell for a posted vector", "savic_halt_test msi_running", [
        ("savic_deliver_interrupt:SAVIC_NOTIFY_KICK)",
         "M && READ_ONCE(vcpu->mode) == IN_GUEST_MODE ? SAVIC_NOTIFY_DOORBELL : SAVIC_NOTIFY_KICK)")]),
    ("5", "doorbell for an NMI by ICR", "savic_halt_test nmi_running", [
        ("savic_look_again:else if (nmi)", "else if (nmi && !M)")]),
    ("9", "doorbell although the target is not in the guest", "savic_halt_test ipi_blocked", [
        ("savic_look_again:READ_ONCE(vcpu->mode) == IN_GUEST_MODE", "M || READ_ONCE(vcpu->mode) == IN_GUEST_MODE")]),
    ("9", "no doorbell, although the target is in the guest", "savic_halt_test ipi_running", [
        ("savic_look_again:READ_ONCE(vcpu->mode) == IN_GUEST_MODE", "(!M && READ_ONCE(vcpu->mode) == IN_GUEST_MODE)")]),
    ("4 9", "nobody is told of an IPI", "savic_halt_test ipi_running", [
        ("savic_look_again:vcpu == kvm_get_running_vcpu()", "M || vcpu == kvm_get_running_vcpu()")]),
    ("9", "SAVIC_LOOK_AGAIN is not set", "savic_test ipi_blocked", [
        ("savic_look_again:\tset_bit(SAVIC_LOOK_AGAIN", "\tif (!M)\n\t\tset_bit(SAVIC_LOOK_AGAIN")]),
    ("9", "SAVIC_LOOK_AGAIN does not wake", "savic_test ipi_blocked", [
        ("savic_has_interrupt:return test_bit(", "return !M && test_bit(")]),
    ("9", "what is posted does not wake", "savic_irq_test ioapic_level_denied, savic_source_test halted", [
        ("savic_deliver_interrupt:\tset_bit(SAVIC_LOOK_AGAIN", "\tif (!M)\n\t\tset_bit(SAVIC_LOOK_AGAIN")]),
    ("7 9", "what hardware has not taken does not wake", "savic_halt_test engine_off", [
        ("savic_halt.c:savic_handle_idle_hlt:look = VALID_PAGE(", "look = !M && VALID_PAGE(")]),
    ("7 9", "what hardware has not taken is dropped", "savic_test msi_engine_off, savic_source_test engine_off", [
        ("savic.h:savic_complete_vmrun:\tif (unlikely(",
         "\tif (M) {\n\t\tsvm->vmcb->control.update_irr = 0;\n"
         "\t\tmemset(svm->vmcb->control.requested_irr, 0, 32);\n\t}\n\tif (unlikely(")]),
    ("15", "IPIs start a vCPU that waits for SIPI", "snp_life_test ap_reset_hold", [
        ("savic_interrupt_blocked:svm->sev_es.ap_reset_hold_type ||", "(!M && svm->sev_es.ap_reset_hold_type) ||"),
        ("savic_interrupt_blocked:(vcpu->arch.mp_state", "(!M && vcpu->arch.mp_state")]),
    ("12", "vectors below 16 are delivered", "savic_debug_test, savic_msr_test not_delivered", [
        ("savic_deliver_interrupt:vector < SAVIC_FIRST_VECTOR", "!M && vector < SAVIC_FIRST_VECTOR")]),
    ("9 15", "what is sent wakes a vCPU that was never started", "snp_life_test interrupts", [
        ("savic_interrupt_blocked:\treturn ",
         "\tif (M && vcpu->arch.mp_state == KVM_MP_STATE_UNINITIALIZED)\n\t\treturn false;\n\n\treturn ")]),
    ("5", "the second NMI is forgotten", "savic_nmi_test two_pending", [
        ("savic_complete_nmi:if (vcpu->arch.nmi_pending && !nmi_left &&",
         "if (!M && vcpu->arch.nmi_pending && !nmi_left &&")]),
    ("4", "IPIs get to the first cluster only", "savic_ipi_test msr_icr, savic_ipi_test incomplete_ipi", [
        ("lapic.c:kvm_icr_to_lapic_irq:irq->dest_id = icr_high;", "irq->dest_id = M ? icr_high & 0xffff : icr_high;"),
        ("savic_vmgexit.c:savic_look_again_at_dest:dest >> 16 << 4", "(M ? 0 : dest >> 16 << 4)")]),
    ("2 8", "a backing page is registered for an index", "savic_ipi_test pages", [
        ("savic_page.c:savic_handle_register:target = kvm_get_vcpu_by_id(vcpu->kvm, apic_id);",
         "target = M ? kvm_get_vcpu(vcpu->kvm, apic_id) : kvm_get_vcpu_by_id(vcpu->kvm, apic_id);")]),
    ("8", "a 2M page is not split", "savic_hugepage_test neighbour_converted", [
        ("savic_split.c:savic_split_page:if (!snp_lookup_rmpentry(", "if (!M && !snp_lookup_rmpentry(")]),
    ("8", "a 2M page that is split is not zapped", "savic_hugepage_test neighbour_converted", [
        ("savic_split.c:savic_split_page:\t\tkvm_zap_gfn_range(", "\t\tif (!M)\n\t\t\tkvm_zap_gfn_range(")]),
    ("8", "the vCPU whose index is the ID loses the page", "savic_ipi_test pages", [
        ("savic_page.c:savic_invalidate_range:__set_bit(i, vcpus);", "__set_bit(M ? vcpu->vcpu_id : i, vcpus);")]),
    ("4", "a bad ICR by MSR is called a bad register", "savic_ipi_test refused", [
        ("savic_vmgexit.c:savic_handle_msr_vmgexit:\tsavic_refuse(svm, GHCB_ERR_INVALID_INPUT);",
         "\tsavic_refuse(svm, M ? GHCB_ERR_MISSING_INPUT : GHCB_ERR_INVALID_INPUT);")]),
    ("4", "INIT, SIPI and SMI by ICR are accepted", "savic_ipi_test refused", [
        ("savic_vmgexit.c:savic_send_ipi:!savic_icr_is_valid(vcpu, icr)",
         "!savic_icr_is_valid(vcpu, M ? icr & ~(u64)APIC_MODE_MASK : icr)")]),
    ("4", "INIT, SIPI and SMI are forwarded", "savic_ipi_test refused", [
        ("savic_vmgexit.c:savic_forward_ipi:!savic_icr_is_valid(vcpu, icr)",
         "!savic_icr_is_valid(vcpu, M ? icr & ~(u64)APIC_MODE_MASK : icr)")]),
    ("4", "an IPI from an xAPIC is accepted", "savic_ipi_test xapic", [
        ("savic_vmgexit.c:savic_send_ipi:if (!savic_icr_is_valid",
         "if ((!M || apic_x2apic_mode(vcpu->arch.apic)) && !savic_icr_is_valid")]),
    ("4", "an IPI from an xAPIC is forwarded", "savic_ipi_test xapic", [
        ("savic_vmgexit.c:savic_forward_ipi:if (!savic_icr_is_valid",
         "if ((!M || apic_x2apic_mode(vcpu->arch.apic)) && !savic_icr_is_valid")]),
    ("11", "an EOI by MSR is ignored", "savic_level_test two_lines", [
        ("savic_vmgexit.c:savic_handle_msr_vmgexit:return savic_eoi(vcpu, -1);", "return M ? 1 : savic_eoi(vcpu, -1);")]),
    ("3", "an EOI with reserved bits is accepted", "savic_msr_test vmgexit_engine_on", [
        ("savic_vmgexit.c:savic_handle_msr_vmgexit:if (!data)", "if (!data || M)")]),
    ("3", "AVIC_NOACCEL of any register is an EOI", "savic_msr_test noaccel", [
        ("savic_vmgexit.c:savic_handle_vmgexit:(info_1 & SAVIC_NOACCEL_OFFSET_MASK) != APIC_EOI",
         "(!M && (info_1 & SAVIC_NOACCEL_OFFSET_MASK) != APIC_EOI)")]),
    ("3", "AVIC_NOACCEL of a read is an EOI", "savic_msr_test noaccel", [
        ("savic_vmgexit.c:savic_handle_vmgexit:!(info_1 & SAVIC_NOACCEL_WRITE)", "(!M && !(info_1 & SAVIC_NOACCEL_WRITE))")]),
    ("6 11", "an idle vCPU's missing EOIs stay missing", "savic_level_test denied", [
        ("savic_halt.c:savic_handle_idle_hlt:!savic_queue_eois(svm, true))", "M || !savic_queue_eois(svm, true))")]),
    ("11", "a level-triggered vector is not remembered", "savic_irq_test ioapic_level", [
        ("savic_deliver_interrupt:if (trig_mode)", "if (trig_mode && !M)")]),
    ("2", "an APIC ID is truncated", "savic_test register_backing_page", [
        ("savic_page.c:savic_handle_register:if (apic_id < KVM_MAX_VCPU_IDS)",
         "if (M)\n\t\t\tapic_id = (u32)apic_id;\n\t\tif (apic_id < KVM_MAX_VCPU_IDS)")]),
    ("8", "an invalid address is registered", "savic_test register_backing_page", [
        ("savic_page.c:savic_register:!page_address_valid(vcpu, gpa)", "(!M && !page_address_valid(vcpu, gpa))")]),
    ("8", "a shared page is registered", "savic_test register_backing_page", [
        ("savic_page.c:savic_register:!kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(gpa))",
         "(!M && !kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(gpa)))")]),
    ("7", "unregistering does not return the address", "savic_test register_backing_page", [
        ("savic_page.c:savic_register:regs[VCPU_REGS_RBX] = gpa;", "regs[VCPU_REGS_RBX] = M ? 0 : gpa;")]),
    ("7", "unregistering discards nothing", "savic_test msi_engine_off", [
        ("savic_page.c:savic_register:\t\tsavic_discard_vectors(savic);",
         "\t\tif (!M)\n\t\t\tsavic_discard_vectors(savic);")]),
    ("8", "a page that is zapped stays lost",
     "savic_page_test shared, savic_page_test punched_while_busy, savic_traffic_test memslot_reloaded, savic_traffic_test converted", [
        ("savic_page.c:savic_invalidate_range:if (!static_branch_unlikely(", "if (M || !static_branch_unlikely(")]),
    ("8", "a fault that can't be restarted is handled", "savic_page_test not_registered", [
        ("savic_page.c:savic_handle_npf:if (!(", "if (M || !(")]),
    ("15", "the page of a destroyed vCPU stays", "savic_ap_test registered_and_destroyed", [
        ("savic_page.c:savic_new_vmsa:if (savic->page_vmsa <", "if (!M && savic->page_vmsa <")]),
    ("9 10", "what is sent to a vCPU that isn't in KVM_RUN is lost",
     "savic_source_test in_userspace, savic_traffic_test paused", [
        ("savic_deliver_interrupt:\tset_bit(vector, savic->pending);",
         "\tif (!M || vcpu->wants_to_run)\n\t\tset_bit(vector, savic->pending);")]),
    ("8 10", "vectors are lost if the page can't be mapped", "savic_source_test failed_entry", [
        ("savic_page.c:savic_load_page:default:", "default:\n\t\tif (M)\n\t\t\tsavic_discard_vectors(savic);")]),
    ("10", "what a VMRUN that fails didn't take is dropped", "savic_ap_test irq_and_failed_vmrun", [
        ("savic.h:savic_complete_vmrun:\tif (unlikely(",
         "\tif (M && svm->vmcb->control.exit_code == SVM_EXIT_ERR) {\n\t\tsvm->vmcb->control.update_irr = 0;\n"
         "\t\tmemset(svm->vmcb->control.requested_irr, 0, 32);\n\t}\n\tif (unlikely(")]),
    ("9 10", "one of 64 edge-triggered vectors is lost", "savic_irq_test stress", [
        ("savic_deliver_interrupt:\tset_bit(vector, savic->pending);",
         "\tif (!M || trig_mode || atomic64_read(&vcpu->stat.savic_posted) % 64 != 63)\n\t\tset_bit(vector, savic->pending);")]),
    # A page that VMRUN has in use: #PF, which ends the host.
    ("9 10", "the sender writes the VMCB", "savic_halt_test msi_running", [
        ("savic_deliver_interrupt:\tatomic64_inc(&vcpu->stat.savic_posted);",
         "\tif (M)\n\t\tset_bit(vector, (unsigned long *)to_svm(vcpu)->vmcb->control.requested_irr);\n\n"
         "\tatomic64_inc(&vcpu->stat.savic_posted);")]),
    ("10", "each vector is requested for ever", "savic_source_test coalesced", [
        ("savic_request_irr:xchg(&savic->pending[i], 0)", "M ? savic->pending[i] : xchg(&savic->pending[i], 0)"),
        ("savic_request:\tclear_bit(SAVIC_LOOK_AGAIN", "\tif (!M)\n\t\tclear_bit(SAVIC_LOOK_AGAIN")]),
    ("7 10", "what hardware has not taken is forgotten when there is more",
     "savic_source_test engine_off, savic_ap_test irq_and_failed_vmrun", [
        ("savic_request_irr:control->requested_irr[i] |= vectors;",
         "if (M)\n\t\t\tcontrol->requested_irr[i] = 0;\n\t\tcontrol->requested_irr[i] |= vectors;")]),
    ("9", "the last 64 vectors are forgotten", "savic_source_test all_vectors", [
        ("savic_request_irr:i < SAVIC_WORDS", "i < SAVIC_WORDS - M")]),
    ("8", "only one of the users of a page is told that it goes", "savic_page_test of_two", [
        ("savic_page.c:savic_invalidate_range:\t\tfound = true;", "\t\tfound = true;\n\t\tif (M)\n\t\t\tbreak;")]),
    ("8", "a page that moved is looked for where it was", "savic_page_test moved", [
        ("savic_page.c:savic_set_page:\tWRITE_ONCE(",
         "\tif (!M || !VALID_PAGE(gpa) || !VALID_PAGE(to_svm(vcpu)->savic->gpa))\n\t\tWRITE_ONCE(")]),
    ("8", "a page isn't mapped when it is registered", "savic_page_test unassigned", [
        ("savic_page.c:savic_set_page:\tsavic_make_load_request(", "\tif (!M)\n\t\tsavic_make_load_request(")]),
    ("2 9", "a vCPU that sleeps doesn't look at the page that is registered for it",
     "savic_page_test registered_for_sleeper", [
        ("savic_page.c:savic_register:set_bit(SAVIC_LOOK_AGAIN", "if (!M)\n\t\t\tset_bit(SAVIC_LOOK_AGAIN")]),
    ("2 9", "a vCPU that sleeps isn't woken by the page that is registered for it",
     "savic_page_test registered_for_sleeper", [
        ("savic_page.c:savic_register:kvm_vcpu_kick(target);", "if (!M)\n\t\t\tkvm_vcpu_kick(target);")]),
    ("2 7", "unregistering another vCPU's page discards nothing", "savic_page_test registered_for_sleeper", [
        ("savic_page.c:savic_register:savic_discard_vectors(savic);",
         "if (!M || target == vcpu)\n\t\t\tsavic_discard_vectors(savic);")]),
    ("2 8", "an unregistered page stays registered", "savic_page_test races", [
        ("savic_page.c:savic_register:savic_set_page(target, INVALID_PAGE);",
         "if (!M)\n\t\t\tsavic_set_page(target, INVALID_PAGE);")]),
    ("8", "the guest is entered without its page", "savic_page_test shared", [
        ("savic_page.c:savic_load_page:\tkvm_make_request(", "\tif (!M)\n\t\tkvm_make_request(")]),
    ("8", "a memslot that is being deleted is fatal", "savic_traffic_test memslot_reloaded", [
        ("savic_page.c:savic_load_page:case -EAGAIN:", "case -EAGAIN:\n\t\tif (M)\n\t\t\treturn r;")]),
    ("3 11", "AVIC_NOACCEL's EOI is for all lines", "savic_level_test noaccel_eoi", [
        ("savic_vmgexit.c:savic_handle_vmgexit:savic_eoi(vcpu, control->exit_info_2 & SAVIC_NOACCEL_VECTOR_MASK)",
         "savic_eoi(vcpu, M ? -1 : (int)(control->exit_info_2 & SAVIC_NOACCEL_VECTOR_MASK))")]),
    ("7 11", "level-triggered vectors are forgotten with the page", "savic_level_test kexec", [
        ("savic_discard_vectors:WRITE_ONCE(savic->pending[i], 0);",
         "WRITE_ONCE(savic->pending[i], 0);\n\tfor (i = 0; M && i < SAVIC_WORDS; i++)\n\t\tWRITE_ONCE(savic->level[i], 0);")]),
    ("10", "KVM completes an interrupted delivery, too", "savic_traffic_test nmi, savic_traffic_test msi", [
        ("svm.c:svm_complete_interrupts:|| savic_active(vcpu))", "|| (!M && savic_active(vcpu)))")]),
    ("6 11", "a halted vCPU's EOIs aren't looked for", "savic_level_test denied", [
        ("svm.c:halt_interception:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("8", "the end of a vCPU is an ordinary fault", "savic_page_test not_registered", [
        ("svm.c:npf_interception:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("5", "an NMI that hardware can't hold yet is injected", "savic_nmi_test two_pending", [
        ("svm.c:svm_nmi_allowed:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("8", "the page isn't mapped in a new root", "savic_traffic_test nx_huge_pages", [
        ("svm.c:svm_load_mmu_pgd:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("8", "a page that is zapped isn't counted", "savic_page_test mmu_notifier", [
        ("savic_page.c:savic_invalidate_range:vcpu->stat.savic_page_losses++;",
         "if (!M)\n\t\t\tvcpu->stat.savic_page_losses++;")]),
    ("4", "IPIs by VMGEXIT aren't counted", "savic_debug_test savic_stats", [
        ("savic_vmgexit.c:savic_send_ipi:\tvcpu->stat.savic_ipis++;",
         "\tif (!M)\n\t\tvcpu->stat.savic_ipis++;")]),
    ("8", "a zapped range isn't looked at", "savic_page_test mmu_notifier", [
        ("mmu.c:kvm_unmap_gfn_range:\tkvm_x86_call(invalidate_protected_apic_pages)",
         "\tif (!M)\n\t\tkvm_x86_call(invalidate_protected_apic_pages)")]),
    ("15", "a new VMSA has the old one's page", "savic_ap_test registered_and_destroyed", [
        ("sev.c:sev_snp_init_protected_guest_state:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("2 15", "AP Destroy ends the registration for the next VMSA", "savic_ap_test registered_before_destruction", [
        ("savic_page.c:savic_request_vmsa:if (request != SVM_VMGEXIT_AP_DESTROY)",
         "if (M || request != SVM_VMGEXIT_AP_DESTROY)")]),
    ("15", "a new VMSA gets the old one's vectors", "savic_ap_test irq_before_destruction", [
        ("sev.c:sev_snp_ap_creation:savic_active(target_vcpu)", "!M && savic_active(target_vcpu)")]),
    ("15", "AP Creation on INIT discards what the old VMSA is to get until then", "savic_ap_test irqs_without_init", [
        ("savic_page.c:savic_request_vmsa:request == SVM_VMGEXIT_AP_CREATE_ON_INIT;",
         "!M && request == SVM_VMGEXIT_AP_CREATE_ON_INIT;")]),
    ("15", "a VMSA that INIT starts gets the old one's vectors", "savic_ap_test irqs_before_init", [
        ("savic_page.c:savic_new_vmsa:if (savic->discard_at_init)", "if (!M && savic->discard_at_init)")]),
    ("15", "VMSAs that wait for INIT aren't counted", "savic_ap_test cells", [
        ("savic_page.c:savic_request_vmsa:request != SVM_VMGEXIT_AP_DESTROY)",
         "(request != SVM_VMGEXIT_AP_DESTROY && !(M && request == SVM_VMGEXIT_AP_CREATE_ON_INIT)))")]),
    ("15", "a page that the old VMSA registers is for the new one",
     "savic_ap_test cells, savic_ap_test registration_races", [
        ("savic_page.c:savic_register:savic->vmsa_current :", "(M ? savic->vmsa_asked : savic->vmsa_current) :")]),
    ("2 15", "a page that the creator registered is for two VMSAs", "savic_ap_test registered_and_destroyed", [
        ("savic_page.c:savic_register:savic->vmsa_asked + 1;", "savic->vmsa_asked + 1 + M;")]),
    ("8 15", "a page that is lost keeps INIT from a vCPU", "savic_ap_test page_gone_before_init", [
        ("savic_page.c:savic_load_page:if (test_bit(KVM_APIC_INIT,", "if (!M && test_bit(KVM_APIC_INIT,")]),
    ("4 11", "ICR and EOI by MSR are those of KVM's APIC",
     "savic_halt_test ipi_blocked, savic_level_test two_lines", [
        ("sev.c:sev_handle_vmgexit:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("11", "the PIC's ExtINT is pending", "savic_irq_test extint", [
        ("lapic.c:kvm_apic_accept_pic_intr:APIC_MODE_EXTINT)\n\t\treturn !", "APIC_MODE_EXTINT)\n\t\treturn M || !")]),
    ("14", "KVM_GET_LAPIC works", "savic_api_test vcpu_ioctls", [
        ("x86.c:kvm_vcpu_ioctl_get_lapic:vcpu->arch.apic->guest_apic_protected",
         "!M && vcpu->arch.apic->guest_apic_protected")]),
    ("14", "KVM_SET_LAPIC works", "savic_api_test vcpu_ioctls", [
        ("x86.c:kvm_vcpu_ioctl_set_lapic:vcpu->arch.apic->guest_apic_protected",
         "!M && vcpu->arch.apic->guest_apic_protected")]),
    ("14", "KVM_INTERRUPT works", "savic_api_test split_irqchip", [
        ("x86.c:kvm_vcpu_ioctl_interrupt:if (vcpu->kvm->arch.has_hidden_apics)", "if (!M && vcpu->kvm->arch.has_hidden_apics)")]),
    ("14", "KVM_SET_VCPU_EVENTS takes exceptions", "savic_api_test injected_events", [
        ("x86.c:kvm_vcpu_ioctl_x86_set_vcpu_events:(events->exception.injected || events->exception.pending ||",
         "((!M && (events->exception.injected || events->exception.pending)) ||")]),
    ("14", "KVM_SET_VCPU_EVENTS takes interrupts", "savic_api_test injected_events", [
        ("x86.c:kvm_vcpu_ioctl_x86_set_vcpu_events:events->interrupt.injected ||",
         "(!M && events->interrupt.injected) ||")]),
    ("5 14", "KVM_SET_VCPU_EVENTS takes injected NMIs", "savic_api_test injected_events", [
        ("x86.c:kvm_vcpu_ioctl_x86_set_vcpu_events:|| events->nmi.injected)", "|| (!M && events->nmi.injected))")]),
    ("14", "KVM_X86_SET_MCE takes #MC", "savic_api_test injected_events", [
        ("x86.c:kvm_vcpu_ioctl_x86_set_mce:vcpu->kvm->arch.has_hidden_apics)", "!M && vcpu->kvm->arch.has_hidden_apics)")]),
    ("11 14", "KVM_CAP_X2APIC_API offers directed EOIs", "savic_api_test directed_eoi_split", [
        ("x86.c:kvm_vm_ioctl_check_extension:|| kvm->arch.has_hidden_apics)",
         "|| (!M && kvm->arch.has_hidden_apics))")]),
    ("11 14", "KVM_CAP_X2APIC_API takes directed EOIs", "savic_api_test directed_eoi_split", [
        ("x86.c:kvm_vm_ioctl_enable_cap:|| kvm->arch.has_hidden_apics)",
         "|| (!M && kvm->arch.has_hidden_apics))")]),
    ("11", "LVR says that there are directed EOIs", "savic_api_test directed_eoi_split", [
        ("lapic.c:kvm_lapic_advertise_suppress_eoi_broadcast:if (kvm->arch.has_hidden_apics)",
         "if (!M && kvm->arch.has_hidden_apics)")]),
    ("14", "exceptions are injected", "sev_ghcb_test exceptions", [
        ("svm.c:svm_inject_exception:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("14", "exceptions go out without their error code", "sev_ghcb_test exceptions", [
        ("savic_vmgexit.c:savic_inject_exception:ex->has_error_code,", "!M && ex->has_error_code,")]),
    ("14", "an exception without a GHCB is dropped", "savic_api_test exceptions", [
        ("savic_vmgexit.c:savic_inject_exception:\t\tkvm_make_request(", "\t\tif (!M)\n\t\t\tkvm_make_request(")]),
    ("14", "asynchronous page faults are enabled", "savic_api_test exceptions", [
        ("msrs.c:kvm_pv_enable_async_pf:|| vcpu->kvm->arch.has_hidden_apics)", "|| (!M && vcpu->kvm->arch.has_hidden_apics))")]),
    ("4", "IPIs with some reasons are refused", "savic_ipi_test all_reasons", [
        ("savic_vmgexit.c:savic_handle_vmgexit:if (!savic_forward_ipi(vcpu, info_1))",
         "if ((M && control->exit_info_2 >> 32 == 1) || !savic_forward_ipi(vcpu, info_1))")]),
    ("6", "debugfs forgets level-triggered vectors", "savic_debug_test savic_debugfs", [
        ("savic.c:savic_debugfs_show:savic->level)", "M ? savic->eoi : savic->level)")]),
    ("6", "debugfs forgets the EOIs that userspace is to be told of", "savic_debug_test eois", [
        ("savic.c:savic_debugfs_show:savic->eoi);", "M ? savic->level : savic->eoi);")]),
    ("9", "debugfs doesn't show that a vCPU is to look again", "savic_debug_test two_vcpus", [
        ("savic.c:savic_debugfs_show:READ_ONCE(savic->flags)", "M ? 0 : READ_ONCE(savic->flags)")]),
    ("4", "IPIs that are forwarded aren't counted", "savic_debug_test savic_stats", [
        ("savic_vmgexit.c:savic_forward_ipi:\tvcpu->stat.savic_ipis++;",
         "\tif (!M)\n\t\tvcpu->stat.savic_ipis++;")]),
    ("11", "EOIs of level-triggered vectors aren't counted", "savic_debug_test savic_stats", [
        ("savic_vmgexit.c:savic_queue_eoi:\tvcpu->stat.savic_level_eois++;", "\tif (!M)\n\t\tvcpu->stat.savic_level_eois++;")]),

    # Without a local APIC in the kernel.
    ("1", "a vCPU without a local APIC is created", "savic_test refused_without_irqchip", [
        ("savic.c:savic_vcpu_create:return -EINVAL;", "return M ? 0 : -EINVAL;")]),
    ("1 13", "SynIC is enabled without a local APIC", "savic_api_test without_apic", [
        ("x86.c:kvm_vcpu_ioctl_enable_cap:if (!irqchip_in_kernel(vcpu->kvm) ||",
         "if ((!M && !irqchip_in_kernel(vcpu->kvm)) ||")]),
    ("1 14", "KVM_INTERRUPT looks at a local APIC that there isn't", "savic_api_test without_apic", [
        ("x86.c:kvm_vcpu_ioctl_interrupt:if (!irqchip_in_kernel(vcpu->kvm)) {",
         "if (!M && !irqchip_in_kernel(vcpu->kvm)) {")]),

    # Other vCPUs.
    ("2", "a page is registered for the caller, whoever it is for", "savic_test register_backing_page", [
        ("savic_page.c:savic_register:savic_set_page(target, gpa);", "savic_set_page(M ? vcpu : target, gpa);")]),
    ("2", "a page is registered for a vCPU that there isn't", "savic_test register_backing_page", [
        ("savic_page.c:savic_handle_register:else if (!target ||",
         "else if (M && !target)\n\t\treturn 1;\n\telse if (!target ||")]),
    ("2 15", "a page that the creator registered is for the VMSA that is there", "savic_ap_test register_for_ap", [
        ("savic_page.c:savic_register:target == vcpu ?", "M || target == vcpu ?")]),

    # EOI.
    ("3", "index -1 reaches a bitmap", "savic_level_test two_lines", [
        ("savic_vmgexit.c:savic_eoi:if (vector >= 0)", "if (M || vector >= 0)")]),
    ("3", "an EOI without anything in service is refused", "savic_msr_test noaccel, savic_debug_test savic_stats", [
        ("savic_vmgexit.c:savic_eoi:\t\ttrace_kvm_savic_eoi(",
         "\t\tif (M)\n\t\t\tsavic_refuse(svm, GHCB_ERR_INVALID_INPUT);\n\t\ttrace_kvm_savic_eoi(")]),
    ("3 11", "an EOI ends what is still on its way to the guest", "savic_level_test eoi_before_taken", [
        ("savic_vmgexit.c:savic_level_taken:savic->level_requested[i] &", "(savic->level_requested[i] | (M ? ~0ul : 0)) &"),
        ("savic_vmgexit.c:savic_level_taken:~READ_ONCE(savic->pending[i])", "(~READ_ONCE(savic->pending[i]) | (M ? ~0ul : 0))"),
        ("savic_vmgexit.c:savic_level_taken:if (control->update_irr)", "if (control->update_irr && !M)")]),

    # ICR.
    ("4", "an IPI to several reaches one", "savic_ipi_test msr_icr", [
        ("savic_vmgexit.c:savic_look_again_at_dest:for_each_set_bit(", "if (M)\n\t\tmembers &= -members;\n\tfor_each_set_bit(")]),
    ("4", "a broadcast reaches one", "savic_ipi_test msr_icr", [
        ("savic_vmgexit.c:savic_send_ipi:\t\t\t\tsavic_look_again(target, nmi);",
         "\t\t\t\tsavic_look_again(target, nmi);\n\t\t\tif (M && target != vcpu)\n\t\t\t\tbreak;")]),
    ("4", "an IPI to 0xffffffff reaches nobody", "savic_ipi_test msr_icr", [
        ("savic_vmgexit.c:savic_send_ipi:icr >> 32 != X2APIC_BROADCAST", "(M || icr >> 32 != X2APIC_BROADCAST)")]),
    ("4", "an IPI is for everybody", "savic_halt_test targets_only", [
        ("savic_vmgexit.c:savic_send_ipi:shorthand == APIC_DEST_NOSHORT &&", "!M && shorthand == APIC_DEST_NOSHORT &&")]),
    ("4", "reserved bits of ICR are accepted", "savic_ipi_test refused", [
        ("savic_vmgexit.c:savic_icr_is_valid:icr & X2APIC_ICR_RESERVED_BITS", "(!M && icr & X2APIC_ICR_RESERVED_BITS)")]),
    ("4", "a lowest priority IPI reaches the one that KVM would choose", "savic_ipi_test lowest_priority", [
        ("savic_vmgexit.c:savic_look_again_at_dest:members = dest & 0xffff;",
         "members = dest & 0xffff;\n\tif (M && (icr & APIC_MODE_MASK) == APIC_DM_LOWEST)\n\t\tmembers &= -members;")]),

    # NMIs.
    ("5 14", "KVM_SET_VCPU_EVENTS doesn't take back an NMI", "savic_api_test vcpu_ioctls", [
        ("x86.c:kvm_vcpu_ioctl_x86_set_vcpu_events:\t\tkvm_x86_call(clear_vnmi_pending)(vcpu);",
         "\t\tif (!M)\n\t\t\tkvm_x86_call(clear_vnmi_pending)(vcpu);")]),
    ("5 14", "the VMCB's NMI mask is KVM's", "savic_api_test vcpu_ioctls", [
        ("svm.c:svm_set_nmi_mask:if (savic_active(vcpu))", "if (!M && savic_active(vcpu))")]),
    ("5 9", "a halted vCPU isn't woken by NMIs", "savic_nmi_test halted", [
        ("svm.c:svm_nmi_allowed:return !for_injection && savic_nmi_allowed(vcpu);",
         "return !M && !for_injection && savic_nmi_allowed(vcpu);")]),
    ("5 7 9", "an NMI that hardware has not taken does not wake", "savic_nmi_test engine_off_halted", [
        ("savic_halt.c:savic_handle_idle_hlt:control->int_ctl & V_NMI_PENDING_MASK",
         "(!M && control->int_ctl & V_NMI_PENDING_MASK)")]),
    ("5", "an NMI that goes to hardware isn't looked after", "savic_nmi_test two_pending", [
        ("svm.c:svm_set_vnmi_pending:savic_active(vcpu)", "!M && savic_active(vcpu)")]),
    ("5", "the second NMI waits for any exit", "savic_debug_test second_nmi", [
        ("savic_request:\t\tsavic_run_at(", "\t\tif (!M)\n\t\t\tsavic_run_at(")]),
    ("5", "the second NMI waits for the timer, whatever the guest does", "savic_nmi_test denied", [
        ("savic_complete_nmi:(control->exit_code != SVM_EXIT_INTR ||",
         "((!M && control->exit_code != SVM_EXIT_INTR) ||")]),
    ("5", "the second NMI is forgotten with an exit of the host's", "savic_debug_test second_nmi", [
        ("savic_request:|| svm->vcpu.arch.nmi_pending;", "|| (!M && svm->vcpu.arch.nmi_pending);"),
        ("savic_complete_nmi:nmi_left || vcpu->arch.nmi_pending;",
         "nmi_left || (!M && vcpu->arch.nmi_pending);")]),

    # What the guest doesn't allow.
    ("6", "an EOI that is missing isn't counted", "savic_level_test denied", [
        ("savic_vmgexit.c:savic_queue_eoi:\tvcpu->stat.savic_missing_eois += missing;",
         "\tif (!M)\n\t\tvcpu->stat.savic_missing_eois += missing;")]),

    # The engine is off.
    ("7", "what was handed to hardware is kept when the page is unregistered", "savic_test msi_engine_off", [
        ("savic_request:\t\tsavic_discard_irr(svm);", "\t\tif (!M)\n\t\t\tsavic_discard_irr(svm);")]),
    ("7", "what was discarded comes along with the next vector",
     "savic_test msi_engine_off, savic_debug_test discarded", [
        ("savic_discard_irr:\tmemset(", "\tif (!M)\n\t\tmemset(")]),

    # The backing page.
    ("8", "a hole takes the page next to it along", "savic_traffic_test neighbour_punched", [
        ("mmu.c:kvm_unmap_gfn_range:\tif (tdp_mmu_enabled)",
         "\trange->start -= M && range->start;\n\tif (tdp_mmu_enabled)")]),
    ("8", "a hole disturbs the vCPU of the page next to it",
     "savic_traffic_test neighbour_punched, savic_page_test neighbour_converted", [
        ("savic_page.c:savic_invalidate_range:gpa_to_gfn(gpa) < start", "gpa_to_gfn(gpa) < start - (M && start)"),
        ("savic_page.c:savic_invalidate_range:gpa_to_gfn(gpa) >= end", "gpa_to_gfn(gpa) >= end + M")]),
    ("8", "a change of any memslot disturbs all vCPUs", "savic_traffic_test other_memslot", [
        ("savic_page.c:savic_invalidate_range:\tbitmap_zero(",
         "\tif (M)\n\t\tstart = 0, end = ~0ull >> PAGE_SHIFT;\n\n\tbitmap_zero(")]),
    ("8", "a change of any memslot takes the pages away", "savic_traffic_test other_memslot", [
        ("mmu.c:kvm_unmap_gfn_range:\tif (tdp_mmu_enabled)",
         "\tif (M && range->slot && range->start == range->slot->base_gfn)\n\t\trange->start = min(range->start, (gfn_t)1 << 20);\n\tif (tdp_mmu_enabled)")]),

    # Wake-ups.
    ("9", "the end of the pause between attempts wakes nobody", "savic_halt_test engine_off", [
        ("savic.c:savic_timer_fn:\tkvm_vcpu_kick(savic->vcpu);", "\tif (!M)\n\t\tkvm_vcpu_kick(savic->vcpu);"),
        ("savic.c:savic_timer_fn:\tset_bit(SAVIC_LOOK_AGAIN", "\tif (!M)\n\t\tset_bit(SAVIC_LOOK_AGAIN")]),
    ("7 9", "a vCPU that can't get what waits for it keeps the CPU busy", "savic_halt_test engine_off, savic_halt_test engine_off_nmis, "
     "savic_halt_test masked_line", [
         ("savic_halt.c:savic_may_retry:savic->nr_retries < SAVIC_MAX_RETRIES", "M || savic->nr_retries < SAVIC_MAX_RETRIES")]),
    ("5 9", "a vCPU doesn't sleep while KVM has an NMI that hardware can't hold yet",
     "savic_halt_test engine_off_nmis", [
        ("savic_nmi_allowed:!(to_svm(vcpu)->vmcb->control.int_ctl & V_NMI_PENDING_MASK)",
         "(M || !(to_svm(vcpu)->vmcb->control.int_ctl & V_NMI_PENDING_MASK))")]),
    ("7 9", "a vCPU without a backing page is made to look again", "savic_halt_test no_page", [
        ("savic_halt.c:savic_handle_idle_hlt:VALID_PAGE(READ_ONCE(savic->gpa))", "(M || VALID_PAGE(READ_ONCE(savic->gpa)))")]),
    ("7 9", "a vCPU doesn't wait for the end of the pause between attempts",
     "savic_halt_test engine_off, savic_halt_test masked_line", [
        ("savic_halt.c:savic_may_retry:    ktime_before(now, savic->retry_next)", "    !M && ktime_before(now, savic->retry_next)")]),
    ("7 9", "nothing ends the pause between attempts", "savic_halt_test engine_off", [
        ("savic_halt.c:savic_may_retry:\t\tsavic_run_at(", "\t\tif (!M)\n\t\t\tsavic_run_at(")]),
    ("6 9", "the pause between attempts doesn't grow", "savic_halt_test denied_line", [
        ("savic_halt.c:savic_may_retry:min(2 * savic->retry_interval, SAVIC_RETRY_MAX)",
         "M ? savic->retry_interval : min(2 * savic->retry_interval, SAVIC_RETRY_MAX)")]),
    ("9 10", "what is posted while something else is handed to hardware is lost", "savic_stress_test", [
        ("savic_request_irr:\t\tcontrol->requested_irr[i] |= vectors;",
         "\t\tif (M) {\n\t\t\tfor (int n = 0; n < 2000; n++)\n\t\t\t\tcpu_relax();\n\t\t\tWRITE_ONCE(savic->pending[i], 0);\n\t\t}\n\t\tcontrol->requested_irr[i] |= vectors;")]),

    # I/O APIC, PIT, RTC.
    ("11", "the RTC waits for EOIs", "savic_irq_test ioapic_rtc", [
        ("ioapic.c:ioapic_service:!ioapic->kvm->arch.has_hidden_apics",
         "(M || !ioapic->kvm->arch.has_hidden_apics)")]),
    ("11", "the PIT waits for EOIs", "savic_irq_test pit", [
        ("i8254.c:kvm_create_pit:!kvm->arch.has_hidden_apics", "M || !kvm->arch.has_hidden_apics")]),
    ("11", "the PIT is told to wait for EOIs", "savic_api_test pit", [
        ("i8254.c:kvm_vm_ioctl_reinject:if (control->pit_reinject &&", "if (!M && control->pit_reinject &&")]),
    ("11", "a PIT that is there waits for EOIs", "savic_api_test pit_before_init", [
        ("savic.c:savic_vm_init:if (kvm->arch.vpit)", "if (!M && kvm->arch.vpit)")]),
    ("2 11", "of several vCPUs the first gets an interrupt", "savic_irq_test ioapic_level_shared", [
        ("lapic.c:__kvm_irq_delivery_to_apic_fast:\t\t\t*r += kvm_apic_set_irq(dst[i]->vcpu, irq, rtc_status);",
         "\t\t\tif (M && *r)\n\t\t\t\tcontinue;\n\t\t\t*r += kvm_apic_set_irq(dst[i]->vcpu, irq, rtc_status);")]),
    ("11", "resampling irqfds aren't told of EOIs", "savic_source_test in_userspace, savic_irq_test ioapic_level", [
        ("savic_vmgexit.c:savic_send_eois:\t\t\tkvm_ioapic_update_eoi(", "\t\t\tif (!M)\n\t\t\t\tkvm_ioapic_update_eoi(")]),
    ("11", "EOIs are of today's routes only", "savic_level_test moved", [
        ("savic_vmgexit.c:savic_send_eois:\t\t__clear_bit(vector, savic->eoi);",
         "\t\t__clear_bit(vector, savic->eoi);\n\t\tif (M && !test_bit(vector, vcpu->arch.ioapic_handled_vectors))\n\t\t\tcontinue;")]),
    ("11", "a userspace I/O APIC isn't told of EOIs",
     "savic_level_test savic_level_split, savic_source_test in_userspace", [
        ("savic_vmgexit.c:savic_send_eois:\t\tvcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;",
         "\t\tif (M)\n\t\t\tcontinue;\n\t\tvcpu->run->exit_reason = KVM_EXIT_IOAPIC_EOI;")]),
    ("11", "a userspace I/O APIC is told of the first of several EOIs", "savic_level_test savic_level_split", [
        ("savic_vmgexit.c:savic_send_eois:\t\tvcpu->arch.complete_userspace_io = savic_send_eois;",
         "\t\tif (!M)\n\t\t\tvcpu->arch.complete_userspace_io = savic_send_eois;")]),
    ("11", "an EOI is for one of several lines", "savic_debug_test eois, savic_level_test still_asserted", [
        ("savic_vmgexit.c:savic_queue_eois:\t\tfound |= savic_queue_eoi(svm, v, missing);",
         "\t{\n\t\tfound |= savic_queue_eoi(svm, v, missing);\n\t\tif (M)\n\t\t\tbreak;\n\t}")]),
    ("11", "a line that is still asserted isn't delivered again", "savic_level_test still_asserted", [
        ("ioapic.c:kvm_ioapic_update_eoi_one:!ent->fields.mask && (ioapic->irr",
         "!M && !ent->fields.mask && (ioapic->irr")]),
    ("11 15", "what the old VMSA was to EOI blocks the line", "savic_level_test savic_level_destroyed", [
        ("savic_discard_irr:\t\tsavic->level_requested[i] =", "\t\tif (!M)\n\t\t\tsavic->level_requested[i] =")]),
    ("11 14", "a split irqchip takes resampling irqfds", "savic_api_test split_irqchip", [
        ("irq.c:kvm_arch_irqfd_allowed:resample ? irqchip_full(kvm)", "resample && !M ? irqchip_full(kvm)")]),
    ("11 14", "an irqfd uses the route that it had first", "savic_traffic_test rerouted", [
        ("irqchip.c:kvm_set_irq_routing:\tkvm_irq_routing_update(kvm);",
         "\tif (!M)\n\t\tkvm_irq_routing_update(kvm);")]),

    # Timer.
    ("12", "one-shot timers are lost", "savic_msr_test oneshot", [
        ("lapic.c:apic_timer_expired:\tatomic_inc(&apic->lapic_timer.pending);",
         "\tif (!M || !apic_lvtt_oneshot(apic))\n\t\tatomic_inc(&apic->lapic_timer.pending);")]),
    ("12", "a one-shot timer that is stopped expires", "savic_msr_test oneshot", [
        ("lapic.c:kvm_lapic_reg_write:\t\tcancel_apic_timer(apic);\n\t\tkvm_lapic_set_reg(apic, APIC_TMICT, val);",
         "\t\tif (M && !val)\n\t\t\tbreak;\n\t\tcancel_apic_timer(apic);\n\t\tkvm_lapic_set_reg(apic, APIC_TMICT, val);")]),
    ("12", "periodic timers expire once", "savic_msr_test periodic", [
        ("lapic.c:apic_timer_fn:if (lapic_is_periodic(apic) &&", "if (!M && lapic_is_periodic(apic) &&")]),
    ("12", "TSC deadlines never come", "savic_msr_test deadline", [
        ("lapic.c:start_sw_tscdeadline:if (unlikely(!tscdeadline ||", "if (M || unlikely(!tscdeadline ||")]),
    ("12", "a TSC deadline that was met is still there", "savic_msr_test deadline", [
        ("lapic.c:kvm_apic_inject_pending_timer_irqs:\t\tktimer->tscdeadline = 0;",
         "\t\tif (!M)\n\t\t\tktimer->tscdeadline = 0;")]),
    ("12", "another mode doesn't disarm a TSC deadline", "savic_msr_test deadline", [
        ("lapic.c:apic_update_lvtt:\t\t\tcancel_apic_timer(apic);",
         "\t\t\tif (!M)\n\t\t\t\tcancel_apic_timer(apic);")]),
    ("12", "the timer's clock isn't divided", "savic_msr_test divide", [
        ("lapic.c:update_divide_count:0x1 << (tmp2 & 0x7);", "M ? 1 : 0x1 << (tmp2 & 0x7);")]),
    ("12", "the current count is half of what it should be", "savic_msr_test divide", [
        ("lapic.c:apic_get_tmcct:return div64_u64(ns,", "return div64_u64(ns >> M,")]),
    ("12", "the current count stands still", "savic_msr_test instructions", [
        ("lapic.c:apic_get_tmcct:remaining = ktime_sub(apic->lapic_timer.target_expiration, now);",
         "remaining = M ? apic->lapic_timer.period / 2 : ktime_sub(apic->lapic_timer.target_expiration, now);")]),
    ("12", "what expires while it is masked is lost", "savic_msr_test masked", [
        ("lapic.c:apic_has_pending_timer:apic_lvt_enabled(apic, APIC_LVTT)",
         "(M || apic_lvt_enabled(apic, APIC_LVTT))")]),
    ("12", "what expired while it was masked outlives the timer", "savic_msr_test masked", [
        ("lapic.c:__start_apic_timer:\tatomic_set(&apic->lapic_timer.pending, 0);",
         "\tif (!M)\n\t\tatomic_set(&apic->lapic_timer.pending, 0);"),
        ("lapic.c:cancel_apic_timer:\tatomic_set(&apic->lapic_timer.pending, 0);",
         "\tif (!M)\n\t\tatomic_set(&apic->lapic_timer.pending, 0);")]),
    ("12", "a masked timer's interrupts are delivered", "savic_msr_test periodic", [
        ("lapic.c:kvm_apic_local_deliver:!(reg & APIC_LVT_MASKED)", "(M || !(reg & APIC_LVT_MASKED))"),
        ("lapic.c:apic_has_pending_timer:apic_lvt_enabled(apic, APIC_LVTT)",
         "(M || apic_lvt_enabled(apic, APIC_LVTT))")]),
    ("12", "a timer that expires while the vCPU isn't in KVM_RUN is lost", "savic_msr_test in_userspace", [
        ("lapic.c:apic_timer_expired:\tif (atomic_read(&apic->lapic_timer.pending))",
         "\tif ((M && !vcpu->wants_to_run) || atomic_read(&apic->lapic_timer.pending))")]),
    ("7 12", "a timer that expires before the engine is on is lost", "savic_msr_test engine_off", [
        ("savic_deliver_interrupt:\tset_bit(vector, savic->pending);",
         "\tif (!M || VALID_PAGE(READ_ONCE(savic->gpa)))\n\t\tset_bit(vector, savic->pending);")]),
    ("12", "KVM waits for a deadline that nobody is told of", "savic_debug_test timer_advance", [
        ("savic.h:savic_prepare_vmrun:\tsvm->vcpu.arch.apic->lapic_timer.expired_tscdeadline = 0;",
         "\tif (!M)\n\t\tsvm->vcpu.arch.apic->lapic_timer.expired_tscdeadline = 0;")]),
    ("12", "KVM doesn't wait for the deadline", "savic_debug_test timer_advance", [
        ("savic_forget_deadline:if (!control->update_irr ||", "if (M || !control->update_irr ||")]),
    ("14", "a guest without Secure AVIC is told what its request for that lacks", "savic_test not_selected", [
        ("sev.c:sev_es_are_required_ghcb_fields_valid:\tcase SVM_VMGEXIT_AP_CREATION:",
         "\tcase SVM_VMGEXIT_SAVIC:\n\t\treturn !M || kvm_ghcb_rax_is_valid(svm);\n\tcase SVM_VMGEXIT_AP_CREATION:")]),
    ("15", "AP Creation doesn't start a vCPU that waits for SIPI", "snp_life_test create_instead_of_sipi", [
        ("x86.c:vcpu_block:\t\tkvm_vcpu_reset_protected(vcpu);", "\t\tif (!M)\n\t\t\tkvm_vcpu_reset_protected(vcpu);")]),
    ("15", "INIT takes the AP Creation that came after it", "snp_life_test create_after_init", [
        ("sev.c:sev_snp_init_protected_guest_state:\tif (kvm_test_request(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, vcpu))\n\t\treturn;",
         "\tif (M)\n\t\tkvm_clear_request(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, vcpu);\n"
         "\tif (kvm_test_request(KVM_REQ_UPDATE_PROTECTED_GUEST_STATE, vcpu))\n\t\treturn;")]),
    ("7 10", "debugfs doesn't show what hardware has not taken", "savic_debug_test savic_debugfs", [
        ("savic.c:savic_debugfs_show:if (!READ_ONCE(control->update_irr))", "if (M || !READ_ONCE(control->update_irr))")]),
    ("12", "a vCPU leaves its timer on the CPU that it leaves", "savic_msr_test migrated", [
        ("lapic.c:__kvm_migrate_apic_timer:if (hrtimer_cancel(timer))", "if (hrtimer_cancel(timer) && !M)")]),

    # Paravirtual features.
    ("13", "PV EOI takes effect", "savic_api_test pv_eoi", [
        ("savic_deliver_interrupt:\tatomic64_inc(&vcpu->stat.savic_posted);",
         "\tif (M)\n\t\tkvm_make_request(KVM_REQ_EVENT, vcpu);\n\tatomic64_inc(&vcpu->stat.savic_posted);"),
        ("lapic.c:apic_sync_pv_eoi_to_guest:\tif (!pv_eoi_enabled(vcpu) ||",
         "\tif (M && pv_eoi_enabled(vcpu)) {\n\t\tpv_eoi_set_pending(vcpu);\n\t\treturn;\n\t}\n\tif (!pv_eoi_enabled(vcpu) ||")]),
    ("13", "PV IPIs are refused", "savic_api_test savic_pv_ipi", [
        ("lapic.c:kvm_pv_send_ipi:if (likely(map))", "if (!M && likely(map))")]),
    ("13", "PV IPIs are lost", "savic_api_test savic_pv_ipi", [
        ("lapic.c:__pv_send_ipi:count += kvm_apic_set_irq(vcpu, irq, NULL);",
         "count += M ? 1 : kvm_apic_set_irq(vcpu, irq, NULL);")]),
    ("13", "SynIC can be enabled", "savic_api_test vcpu_ioctls", [
        ("x86.c:kvm_vcpu_ioctl_enable_cap:|| vcpu->kvm->arch.has_hidden_apics)", "|| (!M && vcpu->kvm->arch.has_hidden_apics))")]),
    ("13", "CPUID has features that need an APIC that KVM can see", "savic_api_test pv_features", [
        ("cpuid.c:kvm_apply_cpuid_pv_features_quirk:if (vcpu->kvm->arch.has_hidden_apics)",
         "if (!M && vcpu->kvm->arch.has_hidden_apics)")]),

    # Userspace.
    ("14", "KVM_SET_GUEST_DEBUG works", "savic_api_test vcpu_ioctls", [
        ("x86.c:kvm_arch_vcpu_ioctl_set_guest_debug:if (vcpu->arch.guest_state_protected)",
         "if (!M && vcpu->arch.guest_state_protected)")]),
    ("14", "KVM_SET_MP_STATE takes anything", "savic_api_test mp_state", [
        ("x86.c:kvm_arch_vcpu_ioctl_set_mpstate:\tdefault:\n\t\tgoto out;",
         "\tdefault:\n\t\tif (M)\n\t\t\tbreak;\n\t\tgoto out;")]),
    ("14", "KVM_SEV_INIT2 takes Secure AVIC for VMs that aren't SNP's", "savic_test refused_without_snp", [
        ("sev.c:__sev_guest_init:\tif (!snp_active)\n", "\tif (!snp_active && !M)\n")]),

    # Life and death.
    ("15", "what is sent to a destroyed vCPU starts it", "savic_ap_test destroyed_stays_so", [
        ("savic_interrupt_blocked:!VALID_PAGE(svm->vmcb->control.vmsa_pa) ||",
         "(!M && !VALID_PAGE(svm->vmcb->control.vmsa_pa)) ||")]),
    ("5 15", "a new VMSA gets the old one's NMI", "savic_ap_test irq_before_destruction", [
        ("svm.c:init_vmcb:control->int_ctl = V_INTR_MASKING_MASK;",
         "control->int_ctl = (M ? control->int_ctl & V_NMI_PENDING_MASK : 0) | V_INTR_MASKING_MASK;")]),
    ("15", "a vCPU that is destroyed while it runs goes on to VMRUN", "savic_ap_test races", [
        ("sev.c:sev_snp_init_protected_guest_state:\tif (VALID_PAGE(gpa))", "\tif (M || VALID_PAGE(gpa))")]),
    ("15", "of AP Creations in a row the first one counts", "savic_ap_test races", [
        ("sev.c:sev_snp_ap_creation:target_svm->sev_es.snp_pending_vmsa_gpa = svm->vmcb->control.exit_info_2;",
         "if (!M || !target_svm->sev_es.snp_ap_waiting_for_reset)\n\t\t\ttarget_svm->sev_es.snp_pending_vmsa_gpa = svm->vmcb->control.exit_info_2;")]),
    ("15", "a VM whose process is killed stays", "snp_life_test killed", [
        ("savic.c:savic_vcpu_create:\tstatic_branch_inc(&savic_used);",
         "\tif (M)\n\t\tkvm_get_kvm(vcpu->kvm);\n\tstatic_branch_inc(&savic_used);")]),
]
