// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest of Secure AVIC's stress test, and the account of its interrupts.
 */
#include "apic.h"
#include "ghcb.h"
#include "kselftest.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "savic_stress.h"
#include "sev.h"
#include "test_util.h"

/* Of the guest's address space in the guest, of the host's in the host. */
struct savic_books *books;

static void nmi_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&books->nmis_received[savic_apic_id()], 1);
}

static void irq_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&books->received[savic_apic_id()][regs->vector], 1);
	savic_eoi();
}

/* What a driver does: have the device lower its line, then EOI.  In all three ways. */
static void level_handler(struct ex_regs *regs)
{
	u32 id = savic_apic_id();
	u8 vector = LEVEL_VECTOR + id;
	u32 nr = __sync_fetch_and_add(&books->received[id][regs->vector], 1);
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_UNACCELERATED_ACCESS,
		.exit_info_1 = BIT_ULL(32) | APIC_EOI,
		.exit_info_2 = vector,
	};

	GUEST_ASSERT_EQ(regs->vector, (u64)vector);
	while (!has_resampler(id) && READ_ONCE(books->nr_lowered[id]) <= nr)
		cpu_relax();

	switch (nr % 3) {
	case 0:
		savic_eoi();
		break;
	case 1:
		wrmsr(X2APIC_MSR(APIC_EOI), 0);
		break;
	case 2:
		savic_clear_vector(id, APIC_ISR, vector);
		GUEST_ASSERT_EQ(ghcb_vmgexit(&req), GHCB_OK);
		break;
	}
}

/* Interrupts have to be off, and are on in between. */
static void wait_for_vector(u32 target, u8 vector, u32 nr)
{
	while (nr_received(target, vector) < nr)
		sti_nop_cli();
}

static void wait_for_nmi(u32 target, u32 nr)
{
	while (READ_ONCE(books->nmis_received[target]) < nr)
		sti_nop_cli();
}

/* ICR without the vector, and the vCPUs that it is for. */
static u64 random_icr(struct kvm_random_state *rng, u32 id, u32 *targets)
{
	const u32 all = BIT(NR_VCPUS) - 1;
	u32 set = random_below(rng, all) + 1;
	u32 target = random_below(rng, NR_VCPUS);

	switch (random_below(rng, 6)) {
	case 0:
		*targets = all & ~BIT(id);
		return APIC_DEST_ALLBUT;
	case 1:
		*targets = all;
		return APIC_DEST_ALLINC;
	case 2:
		*targets = set;
		return APIC_DEST_LOGICAL | (u64)set << 32;
	default:
		*targets = BIT(target);
		return (u64)target << 32;
	}
}

static void wait_for_ipi(u32 targets, u8 vector)
{
	u32 target;

	for (target = 0; target < NR_VCPUS; target++) {
		if (targets & BIT(target))
			wait_for_vector(target, vector, READ_ONCE(books->sent[target][vector]));
	}
}

/* As Linux does it: the sender has set IRR when it tells KVM. */
static void guest_ipi(struct kvm_random_state *rng, u32 id)
{
	u8 vector = IPI_VECTOR + id;
	u32 targets, target;
	u64 icr = random_icr(rng, id, &targets);

	for (target = 0; target < NR_VCPUS; target++) {
		if (!(targets & BIT(target)))
			continue;
		account(target, vector);
		savic_set_vector(target, APIC_IRR, vector);
	}
	savic_wrmsr(APIC_ICR, icr | vector);
	wait_for_ipi(targets, vector);
	account_use(KIND_IPI);
}

/* By a #VC: KVM delivers. */
static void guest_forwarded_ipi(struct kvm_random_state *rng, u32 id)
{
	u8 vector = FORWARD_VECTOR + id;
	u32 targets, target;
	u64 icr = random_icr(rng, id, &targets);

	for (target = 0; target < NR_VCPUS; target++) {
		if (targets & BIT(target))
			account(target, vector);
	}
	wrmsr(X2APIC_MSR(APIC_ICR), icr | vector);
	wait_for_ipi(targets, vector);
	account_use(KIND_FORWARDED_IPI);
}

static void guest_nmi(struct kvm_random_state *rng, u32 id)
{
	u32 target = random_below(rng, NR_VCPUS);
	u64 icr = (u64)target << 32 | APIC_DM_NMI;
	bool request = kvm_random_bool(rng);
	u32 nr;

	if (target == id || !nmi_trylock(target))
		return;

	nr = __sync_add_and_fetch(&books->nmis_sent[target], 1);
	if (request) {
		savic_write(target, SAVIC_NMI_REQ, 1);
		savic_wrmsr(APIC_ICR, icr);
	} else {
		wrmsr(X2APIC_MSR(APIC_ICR), icr);
	}
	wait_for_nmi(target, nr);
	nmi_unlock(target);
	account_use(request ? KIND_NMI_REQ : KIND_FORWARDED_NMI);
}

static void guest_self_ipi(struct kvm_random_state *rng, u32 id)
{
	u32 nr = account(id, SELF_VECTOR);

	if (kvm_random_bool(rng))
		wrmsr(X2APIC_MSR(APIC_SELF_IPI), SELF_VECTOR);
	else
		wrmsr(X2APIC_MSR(APIC_ICR), APIC_DEST_SELF | SELF_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(nr_received(id, SELF_VECTOR), nr);
	account_use(KIND_SELF_IPI);
}

static void guest_oneshot(struct kvm_random_state *rng, u32 id)
{
	static const u8 divide[] = { 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa, 0xb };
	enum kind kind = kvm_random_bool(rng) ? KIND_ONESHOT : KIND_DEADLINE;
	u32 nr = account(id, ONESHOT_VECTOR);

	if (kind == KIND_ONESHOT) {
		/* KVM's one-shot timer fires again if its divisor is changed. */
		savic_wrmsr(APIC_TMICT, 0);
		savic_wrmsr(APIC_TDCR, divide[random_below(rng, ARRAY_SIZE(divide))]);
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_ONESHOT | ONESHOT_VECTOR);
		savic_wrmsr(APIC_TMICT, 1 + random_below(rng, 20000));
	} else {
		savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | ONESHOT_VECTOR);
		wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + random_below(rng, 1000000));
	}

	if (kvm_random_bool(rng)) {
		while (nr_received(id, ONESHOT_VECTOR) < nr) {
			safe_halt();
			cli();
		}
	} else {
		wait_for_vector(id, ONESHOT_VECTOR, nr);
	}
	account_use(kind);
}

/* What is in between the last one and the stop isn't known. */
static void guest_periodic(struct kvm_random_state *rng, u32 id)
{
	u32 nr = nr_received(id, PERIODIC_VECTOR) + 3;

	savic_wrmsr(APIC_TMICT, 0);
	savic_wrmsr(APIC_TDCR, 0xb);
	savic_wrmsr(APIC_LVTT, APIC_LVT_TIMER_PERIODIC | PERIODIC_VECTOR);
	savic_wrmsr(APIC_TMICT, 1000000 + random_below(rng, 1000000));
	wait_for_vector(id, PERIODIC_VECTOR, nr);
	savic_wrmsr(APIC_TMICT, 0);
	savic_settle();
	account_use(KIND_PERIODIC);
}

/* The host sends one while it is denied, which is lost, and one while it isn't. */
static void guest_toggle(u32 id)
{
	switch (READ_ONCE(books->toggle[id])) {
	case TOGGLE_IDLE:
		savic_clear_vector(id, SAVIC_ALLOWED_IRR, TOGGLED_VECTOR);
		/* Until VMRUN the host may have seen the vector allowed. */
		savic_settle();
		WRITE_ONCE(books->toggle[id], TOGGLE_DENIED);
		break;
	case TOGGLE_SENT:
		savic_settle();
		GUEST_ASSERT(!savic_test_vector(id, APIC_IRR, TOGGLED_VECTOR));
		savic_allow_vector(TOGGLED_VECTOR);
		WRITE_ONCE(books->toggle[id], TOGGLE_ALLOWED);
		break;
	default:
		break;
	}
}

static void guest_idle(struct kvm_random_state *rng)
{
	u32 i;

	switch (random_below(rng, 3)) {
	case 0:
		/* The host wakes all when it is over. */
		if (!READ_ONCE(books->stop)) {
			safe_halt();
			cli();
		}
		break;
	case 1:
		sti_nop();
		for (i = random_below(rng, 4000); i; i--)
			cpu_relax();
		cli();
		break;
	default:
		/* In a critical section. */
		for (i = random_below(rng, 4000); i; i--)
			cpu_relax();
		break;
	}
}

static void guest_setup(u32 id)
{
	const u8 allowed[] = {
		STOP_VECTOR, ONESHOT_VECTOR, PERIODIC_VECTOR, MSI_VECTOR, BURST_VECTOR,
		TOGGLED_VECTOR, WAKE_VECTOR, IRQFD_VECTOR, EDGE_VECTOR, LEVEL_VECTOR + id,
	};
	u32 i;

	savic_enable();
	for (i = 0; i < ARRAY_SIZE(allowed); i++)
		savic_allow_vector(allowed[i]);
	for (i = 0; i < NR_VCPUS; i++)
		savic_allow_vector(FORWARD_VECTOR + i);
	savic_set_vector(id, APIC_TMR, LEVEL_VECTOR + id);
	books->page[id] = savic_page_gpa(id);

	ghcb_ioapic_write(IOAPIC_REDIR(EDGE_GSI(id)) + 1, id << 24);
	ghcb_ioapic_write(IOAPIC_REDIR(EDGE_GSI(id)), EDGE_VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI(id)) + 1, id << 24);
	ghcb_ioapic_write(IOAPIC_REDIR(LEVEL_GSI(id)), IOAPIC_LEVEL | (LEVEL_VECTOR + id));
	if (id == NMI_VCPU) {
		ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI) + 1, id << 24);
		ghcb_ioapic_write(IOAPIC_REDIR(NMI_GSI), APIC_DM_NMI);
	}
}

void savic_stress_guest(u32 id)
{
	struct kvm_random_state rng = new_kvm_random_state(books->seed + id);

	/* Two register accesses each, so one vCPU after the other. */
	while (READ_ONCE(books->nr_started) < id)
		cpu_relax();
	guest_setup(id);
	__sync_fetch_and_add(&books->nr_started, 1);
	while (READ_ONCE(books->nr_started) < NR_VCPUS)
		sti_nop_cli();

	while (!READ_ONCE(books->stop)) {
		switch (random_below(&rng, 12)) {
		case 0 ... 1:
			guest_ipi(&rng, id);
			break;
		case 2 ... 3:
			guest_forwarded_ipi(&rng, id);
			break;
		case 4:
			guest_nmi(&rng, id);
			break;
		case 5:
			guest_self_ipi(&rng, id);
			break;
		case 6:
			guest_oneshot(&rng, id);
			break;
		case 7:
			guest_periodic(&rng, id);
			break;
		case 8:
			guest_toggle(id);
			break;
		default:
			guest_idle(&rng);
			break;
		}
	}

	/* The others still send, and wait for this one. */
	__sync_fetch_and_add(&books->nr_stopped, 1);
	while (!nr_received(id, STOP_VECTOR)) {
		safe_halt();
		cli();
		guest_toggle(id);
	}
	savic_settle();
	GUEST_DONE();
}

void savic_stress_setup(struct kvm_vm *vm, struct kvm_vcpu *vcpus[NR_VCPUS], u32 seed)
{
	const size_t size = align_up(sizeof(*books), PAGE_SIZE);
	gva_t gva;
	u32 i;

	/* Any vector is accounted for, also one that nobody sends. */
	for (i = 32; i < 256; i++)
		vm_install_exception_handler(vm, i, irq_handler);
	for (i = 0; i < NR_VCPUS; i++)
		vm_install_exception_handler(vm, LEVEL_VECTOR + i, level_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);

	gva = vm_alloc_shared(vm, size, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	write_guest_global(vm, books, (struct savic_books *)gva);
	books = addr_gva2hva(vm, gva);
	memset(books, 0, size);
	books->seed = seed;

	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(vcpus[i], 1, i);
}

/* How often the handler may have run, given what was sent. */
static void expected(u32 vcpu, u8 vector, u32 *min, u32 *max)
{
	*min = READ_ONCE(books->sent[vcpu][vector]);
	*max = *min;

	switch (vector) {
	case BURST_VECTOR:
		*min = READ_ONCE(books->bursts[vcpu]);
		break;
	case PERIODIC_VECTOR:
		/* Each use has waited for its own. */
		*max = -1u;
		break;
	case DENIED_VECTOR:
		*min = 0;
		*max = 0;
		break;
	default:
		break;
	}
}

static const char * const kind_names[NR_KINDS] = {
	[KIND_IPI]		= "IPI",
	[KIND_FORWARDED_IPI]	= "forwarded IPI",
	[KIND_SELF_IPI]		= "IPI to self",
	[KIND_NMI_REQ]		= "NMI by NmiReq",
	[KIND_FORWARDED_NMI]	= "forwarded NMI",
	[KIND_ONESHOT]		= "timer, one-shot",
	[KIND_DEADLINE]		= "timer, deadline",
	[KIND_PERIODIC]		= "timer, periodic",
	[KIND_MSI]		= "MSI",
	[KIND_BURST]		= "burst of MSIs",
	[KIND_IRQFD]		= "irqfd",
	[KIND_EDGE]		= "edge-triggered line",
	[KIND_LEVEL]		= "level-triggered line by ioctl",
	[KIND_RESAMPLED_LEVEL]	= "level-triggered line by irqfd",
	[KIND_TOGGLE]		= "MSI after being denied",
	[KIND_MSI_NMI]		= "NMI by MSI",
	[KIND_IOAPIC_NMI]	= "NMI by I/O APIC",
	[KIND_IOCTL_NMI]	= "NMI by KVM_NMI",
	[KIND_SIGNAL]		= "signal",
	[KIND_ZAP]		= "zapped backing page",
};

bool savic_stress_all_used(void)
{
	u32 i;

	for (i = 0; i < NR_KINDS; i++) {
		if (READ_ONCE(books->used[i]) < MIN_USES)
			return false;
	}
	return true;
}

u32 savic_stress_check(void)
{
	u32 i, min, max, nr, vcpu, vector, bad = 0;

	for (i = 0; i < NR_KINDS; i++) {
		nr = READ_ONCE(books->used[i]);
		if (nr >= MIN_USES)
			continue;
		ksft_print_msg("%s: used %u times, not at least %u\n", kind_names[i], nr,
			       MIN_USES);
		bad++;
	}

	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		for (vector = 0; vector < 256; vector++) {
			expected(vcpu, vector, &min, &max);
			nr = nr_received(vcpu, vector);
			if (nr >= min && nr <= max)
				continue;
			ksft_print_msg("vCPU %u, vector %#x: %u received of %u, not %u to %u\n",
				       vcpu, vector, nr, books->sent[vcpu][vector], min, max);
			bad++;
		}

		if (books->nmis_sent[vcpu] == books->nmis_received[vcpu])
			continue;
		ksft_print_msg("vCPU %u: %u NMIs sent, %u received\n", vcpu,
			       books->nmis_sent[vcpu], books->nmis_received[vcpu]);
		bad++;
	}
	return bad;
}

void savic_stress_print_totals(void)
{
	static const struct {
		const char *name;
		u8 first, last;
	} vectors[] = {
		{ "IPIs", IPI_VECTOR, IPI_VECTOR + NR_VCPUS - 1 },
		{ "forwarded IPIs", FORWARD_VECTOR, FORWARD_VECTOR + NR_VCPUS - 1 },
		{ "IPIs to self", SELF_VECTOR, SELF_VECTOR },
		{ "timer, one-shot and deadline", ONESHOT_VECTOR, ONESHOT_VECTOR },
		{ "timer, periodic", PERIODIC_VECTOR, PERIODIC_VECTOR },
		{ "MSIs", MSI_VECTOR, MSI_VECTOR },
		{ "MSIs in bursts", BURST_VECTOR, BURST_VECTOR },
		{ "MSIs while denied", DENIED_VECTOR, DENIED_VECTOR },
		{ "MSIs after being denied", TOGGLED_VECTOR, TOGGLED_VECTOR },
		{ "irqfds", IRQFD_VECTOR, IRQFD_VECTOR },
		{ "edge-triggered lines", EDGE_VECTOR, EDGE_VECTOR },
		{ "level-triggered lines", LEVEL_VECTOR, LEVEL_VECTOR + NR_VCPUS - 1 },
	};
	u32 i, vcpu, vector, sent, received;

	for (i = 0; i < NR_KINDS; i++)
		ksft_print_msg("%s: used %u times\n", kind_names[i], books->used[i]);

	for (i = 0; i < ARRAY_SIZE(vectors); i++) {
		sent = 0;
		received = 0;
		for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
			for (vector = vectors[i].first; vector <= vectors[i].last; vector++) {
				sent += books->sent[vcpu][vector];
				received += books->received[vcpu][vector];
			}
		}
		ksft_print_msg("%s: %u sent, %u received\n", vectors[i].name, sent, received);
	}

	sent = 0;
	received = 0;
	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		sent += books->nmis_sent[vcpu];
		received += books->nmis_received[vcpu];
	}
	ksft_print_msg("NMIs: %u sent, %u received\n", sent, received);
}
