/* SPDX-License-Identifier: GPL-2.0-only */
#if !defined(_TRACE_KVM_SAVIC_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVM_SAVIC_H

#include <linux/tracepoint.h>

#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_savic

TRACE_DEFINE_ENUM(SAVIC_NOTIFY_NONE);
TRACE_DEFINE_ENUM(SAVIC_NOTIFY_KICK);
TRACE_DEFINE_ENUM(SAVIC_NOTIFY_DOORBELL);
TRACE_DEFINE_ENUM(SAVIC_NOTIFY_WAKE);

/* A vector was posted for the vCPU, by any CPU. */
TRACE_EVENT(kvm_savic_post,
	TP_PROTO(struct kvm_vcpu *vcpu, int vector, bool level),
	TP_ARGS(vcpu, vector, level),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(int,		vector)
		__field(bool,		level)
		__field(int,		mode)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->vector	= vector;
		__entry->level	= level;
		__entry->mode	= READ_ONCE(vcpu->mode);
	),

	TP_printk("vcpu %u vector %d %s mode %d",
		  __entry->vcpu_id, __entry->vector,
		  __entry->level ? "level" : "edge", __entry->mode)
);

/* How the vCPU was told to look at its pending vectors or backing page. */
TRACE_EVENT(kvm_savic_notify,
	TP_PROTO(struct kvm_vcpu *vcpu, int how),
	TP_ARGS(vcpu, how),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(int,		how)
		__field(int,		cpu)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->how	= how;
		__entry->cpu	= READ_ONCE(vcpu->cpu);
	),

	TP_printk("vcpu %u %s cpu %d", __entry->vcpu_id,
		  __print_symbolic(__entry->how,
				   { SAVIC_NOTIFY_NONE, "none" },
				   { SAVIC_NOTIFY_KICK, "kick" },
				   { SAVIC_NOTIFY_DOORBELL, "doorbell" },
				   { SAVIC_NOTIFY_WAKE, "wake" }),
		  __entry->cpu)
);

/* The CPU about to VMRUN moved pending vectors to the VMCB. */
TRACE_EVENT(kvm_savic_request_irr,
	TP_PROTO(struct kvm_vcpu *vcpu, u64 *irr),
	TP_ARGS(vcpu, irr),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__array(u64,		irr, 4)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		memcpy(__entry->irr, irr, sizeof(__entry->irr));
	),

	TP_printk("vcpu %u requested %016llx:%016llx:%016llx:%016llx",
		  __entry->vcpu_id, __entry->irr[3], __entry->irr[2],
		  __entry->irr[1], __entry->irr[0])
);

/* A guest's IPI, after the guest put it into the targets' backing pages. */
TRACE_EVENT(kvm_savic_ipi,
	TP_PROTO(struct kvm_vcpu *vcpu, u64 icr, bool forwarded),
	TP_ARGS(vcpu, icr, forwarded),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(u64,		icr)
		__field(bool,		forwarded)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->icr	= icr;
		__entry->forwarded = forwarded;
	),

	TP_printk("vcpu %u icr 0x%016llx%s", __entry->vcpu_id, __entry->icr,
		  __entry->forwarded ? " forwarded" : "")
);

/* The guest EOI'd a level-triggered vector, -1 if none was outstanding. */
TRACE_EVENT(kvm_savic_eoi,
	TP_PROTO(struct kvm_vcpu *vcpu, int vector),
	TP_ARGS(vcpu, vector),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(int,		vector)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->vector	= vector;
	),

	TP_printk("vcpu %u vector %d", __entry->vcpu_id, __entry->vector)
);

/* The vCPU halted without having EOI'd a level-triggered vector. */
TRACE_EVENT(kvm_savic_missing_eoi,
	TP_PROTO(struct kvm_vcpu *vcpu, int vector),
	TP_ARGS(vcpu, vector),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(int,		vector)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->vector	= vector;
	),

	TP_printk("vcpu %u vector %d", __entry->vcpu_id, __entry->vector)
);

/* An NMI was handed to VMRUN. */
TRACE_EVENT(kvm_savic_nmi,
	TP_PROTO(struct kvm_vcpu *vcpu),
	TP_ARGS(vcpu),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
	),

	TP_printk("vcpu %u", __entry->vcpu_id)
);

/* The guest (un)registered a backing page. */
TRACE_EVENT(kvm_savic_register,
	TP_PROTO(struct kvm_vcpu *vcpu, unsigned int target_id, gpa_t gpa,
		 bool unregister),
	TP_ARGS(vcpu, target_id, gpa, unregister),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(unsigned int,	target_id)
		__field(u64,		gpa)
		__field(bool,		unregister)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->target_id = target_id;
		__entry->gpa	= gpa;
		__entry->unregister = unregister;
	),

	TP_printk("vcpu %u %s gpa 0x%llx for vcpu %u", __entry->vcpu_id,
		  __entry->unregister ? "unregister" : "register",
		  __entry->gpa, __entry->target_id)
);

/* The backing page was made present before guest mode, or couldn't be. */
TRACE_EVENT(kvm_savic_load_page,
	TP_PROTO(struct kvm_vcpu *vcpu, gpa_t gpa, int ret),
	TP_ARGS(vcpu, gpa, ret),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(u64,		gpa)
		__field(int,		ret)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->gpa	= gpa;
		__entry->ret	= ret;
	),

	TP_printk("vcpu %u gpa 0x%llx ret %d", __entry->vcpu_id, __entry->gpa,
		  __entry->ret)
);

#endif /* _TRACE_KVM_SAVIC_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH ../../arch/x86/kvm/svm
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE savic_trace

/* This part must be outside protection */
#include <trace/define_trace.h>
