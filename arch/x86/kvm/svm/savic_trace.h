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

/* VMRUN is requested to take these vectors, and an NMI. */
TRACE_EVENT(kvm_savic_request,
	TP_PROTO(struct kvm_vcpu *vcpu, u64 *irr, bool nmi),
	TP_ARGS(vcpu, irr, nmi),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__array(u64,		irr, 4)
		__field(bool,		nmi)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		memcpy(__entry->irr, irr, sizeof(__entry->irr));
		__entry->nmi	= nmi;
	),

	TP_printk("vcpu %u irr %016llx:%016llx:%016llx:%016llx%s",
		  __entry->vcpu_id, __entry->irr[3], __entry->irr[2],
		  __entry->irr[1], __entry->irr[0],
		  __entry->nmi ? " nmi" : "")
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

/*
 * A level-triggered vector was EOI'd, by the guest or because the guest halted
 * without an EOI (@missing).  The vector is -1 if the guest had none to EOI.
 */
TRACE_EVENT(kvm_savic_eoi,
	TP_PROTO(struct kvm_vcpu *vcpu, int vector, bool missing),
	TP_ARGS(vcpu, vector, missing),

	TP_STRUCT__entry(
		__field(unsigned int,	vcpu_id)
		__field(int,		vector)
		__field(bool,		missing)
	),

	TP_fast_assign(
		__entry->vcpu_id = vcpu->vcpu_id;
		__entry->vector	= vector;
		__entry->missing = missing;
	),

	TP_printk("vcpu %u vector %d%s", __entry->vcpu_id, __entry->vector,
		  __entry->missing ? " missing" : "")
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

#endif /* _TRACE_KVM_SAVIC_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH ../../arch/x86/kvm/svm
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE savic_trace

/* This part must be outside protection */
#include <trace/define_trace.h>
