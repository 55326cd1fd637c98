// SPDX-License-Identifier: GPL-2.0-only
/*
 * #VMEXITs and instructions of an interrupt, an IPI, and an access to the APIC, for a VM of
 * one of four kinds.  Linked with KVM's selftest library by bench/events.
 *
 * To be run on a machine on which the TSC counts instructions (QEMU with -icount shift=0),
 * with kvm.lapic_timer_advance=0, as KVM would wait for time to pass otherwise.  All TSC
 * offsets are 0, so that vCPUs and host count from the same instant.
 *
 * On one CPU, the thread of vCPU 0 goes before or after those of the other vCPUs, as a row
 * needs it, and before a thread that keeps the CPU from being idle.  So each round is like
 * the other.
 */
#include <pthread.h>
#include <sched.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define ROUNDS		100
#define VECTOR		0x60
#define LEVEL_VECTOR	0x70
#define LEVEL_PIN	20
/* Behind those of the I/O APIC's pins: MSIs to vCPU 0 and 1. */
#define MSI_GSI(vcpu)	(24 + (vcpu))

/* From now to a timer's expiry: longer than it takes to set it, and to halt. */
#define DELAY		200000

#define NONE		(-1ull)

/* What vCPU 0 asks the host for. */
enum {
	/* Exits of all vCPUs count from the return of this one... */
	BEFORE,
	/* ... to this one. */
	AFTER,
	/* What exits were counted is what comes along with each round of the next row. */
	OVERHEAD,
	/* The other vCPUs go before, or after, vCPU 0. */
	OTHERS_FIRST,
	OTHERS_LAST,
	/* vCPU 0 lets the others run. */
	LET_RUN,
	LEVEL_LINE,
	/* An MSI to vCPU 1, until it has taken it. */
	SEND_MSI,
};

/* In a page that host and guest share. */
struct shared {
	/* The TSC when the host caused an event, and when the last handler began. */
	u64 begin, taken;
	/* Instructions of the best round of this row. */
	u64 to_handler, to_next;
	u32 nr_taken;
	u32 nr_ready;
	/* vCPU 0 is about to halt, and wants an MSI then. */
	bool wants_msi;
	/* The other vCPUs are busy, else they halt. */
	bool busy;
};

static volatile struct shared *shared;
static bool has_savic;
static u32 nr_running;

/* What RSI was when the last handler began. */
static u64 rsi;

/* The handler's EOI is what counts. */
static bool counts_eoi;

/* Instructions of nothing. */
static u64 nothing;

static void apic_enable(void)
{
	if (has_savic) {
		savic_enable();
		savic_allow_vector(VECTOR);
		savic_allow_vector(LEVEL_VECTOR);
	} else {
		x2apic_enable();
	}
}

/* Registers that a kernel in Secure AVIC mode asks the host for without waiting for a #VC. */
static void write_forwarded(u32 reg, u64 val)
{
	if (has_savic)
		GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(reg), val), GHCB_OK);
	else
		wrmsr(X2APIC_MSR(reg), val);
}

static u64 read_forwarded(u32 reg)
{
	u64 val;

	if (!has_savic)
		return rdmsr(X2APIC_MSR(reg));
	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(reg), &val), GHCB_OK);
	return val;
}

/* To vCPU 1, or all others.  In Secure AVIC mode, the sender changes their backing pages first. */
static void send_ipi(u64 icr)
{
	u32 i, last = icr & APIC_DEST_ALLBUT ? nr_running - 1 : 1;

	for (i = 1; has_savic && i <= last; i++) {
		if (icr & APIC_DM_NMI)
			savic_write(i, SAVIC_NMI_REQ, 1);
		else
			savic_set_vector(i, APIC_IRR, VECTOR);
	}
	write_forwarded(APIC_ICR, icr);
}

static void eoi(u32 vector)
{
	if (has_savic && vector == LEVEL_VECTOR) {
		savic_clear_vector(0, APIC_ISR, vector);
		write_forwarded(APIC_EOI, 0);
	} else {
		wrmsr(X2APIC_MSR(APIC_EOI), 0);
	}
}

static void before(void)
{
	shared->nr_taken = 0;
	GUEST_SYNC(BEFORE);
}

static void record(u64 to_handler, u64 to_next)
{
	if (to_handler != NONE)
		shared->to_handler = min((u64)shared->to_handler, to_handler - nothing);
	if (to_next != NONE)
		shared->to_next = min((u64)shared->to_next, to_next - nothing);
}

static void after(u64 to_handler, u64 to_next)
{
	record(to_handler, to_next);
	GUEST_SYNC(AFTER);
}

static void taken(struct ex_regs *regs)
{
	shared->taken = rdtsc();
	rsi = regs->rsi;
	__sync_fetch_and_add(&shared->nr_taken, 1);
}

static void irq_handler(struct ex_regs *regs)
{
	u64 begin;

	if (counts_eoi) {
		GUEST_SYNC(BEFORE);
		begin = rdtsc();
		eoi(regs->vector);
		after(NONE, rdtsc() - begin);
		taken(regs);
	} else {
		taken(regs);
		eoi(regs->vector);
	}
}

/* There may be a VMGEXIT below this one. */
static void nmi_handler(struct ex_regs *regs)
{
	taken(regs);
}

/* Each of these is one round. */

/* An access that is over when the next instruction runs. */
#define access_round(access)					\
({								\
	u64 begin, end;						\
								\
	before();						\
	begin = rdtsc();					\
	access;							\
	end = rdtsc();						\
	after(NONE, end - begin);				\
})

static void tpr_by_msr(int round)
{
	access_round(wrmsr(X2APIC_MSR(APIC_TASKPRI), 0));
}

static void tpr_by_cr8(int round)
{
	access_round(asm volatile("mov %0, %%cr8" : : "r" (0ull)));
}

static void read_lvt(int round)
{
	access_round(read_forwarded(APIC_LVTT));
}

static void write_lvt(int round)
{
	access_round(write_forwarded(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | VECTOR));
}

static void set_deadline(int round)
{
	access_round(wrmsr(MSR_IA32_TSC_DEADLINE, begin + NSEC_PER_SEC));
	wrmsr(MSR_IA32_TSC_DEADLINE, 0);
}

/* Counted from the last RDTSC before it. */
static void timer_running(int round)
{
	u32 end;

	before();
	wrmsr(MSR_IA32_TSC_DEADLINE, rdtsc() + DELAY + round);
	asm volatile("1: rdtsc; mov %%eax, %%esi; cmpl $0, %0; je 1b"
		     : : "m" (shared->nr_taken) : "rax", "rdx", "rsi", "cc");
	end = rdtsc();
	after((u32)shared->taken - (u32)rsi, end - (u32)rsi);
}

static void halt_until_taken(void)
{
	while (!shared->nr_taken)
		asm volatile("sti; hlt; cli");
}

static void timer_halted(int round)
{
	u64 deadline, end;

	before();
	cli();
	deadline = rdtsc() + DELAY + round;
	wrmsr(MSR_IA32_TSC_DEADLINE, deadline);
	halt_until_taken();
	end = rdtsc();
	after(shared->taken - deadline, end - deadline);
	sti();
}

static void msi_halted(int round)
{
	u64 end;

	before();
	cli();
	shared->wants_msi = true;
	halt_until_taken();
	end = rdtsc();
	after(shared->taken - shared->begin, end - shared->begin);
	sti();
}

static void self_ipi(int round)
{
	u64 begin, end;

	before();
	begin = rdtsc();
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
	while (!shared->nr_taken)
		;
	end = rdtsc();
	after(shared->taken - begin, end - begin);
}

static void edge_eoi(int round)
{
	shared->nr_taken = 0;
	wrmsr(X2APIC_MSR(APIC_SELF_IPI), VECTOR);
	while (!shared->nr_taken)
		;
}

static void level_eoi(int round)
{
	shared->nr_taken = 0;
	GUEST_SYNC(LEVEL_LINE);
	while (!shared->nr_taken)
		;
}

static u64 icr;

/* The targets are woken, and take the CPU from vCPU 0 until they have halted again. */
static void ipi_halted(int round)
{
	u32 nr_targets = icr & APIC_DEST_ALLBUT ? nr_running - 1 : 1;
	u64 begin;

	before();
	begin = rdtsc();
	send_ipi(icr);
	while (shared->nr_taken < nr_targets)
		;
	after(shared->taken - begin, NONE);
}

/* vCPU 0 goes on first. */
static void ipi_halted_sender(int round)
{
	u64 begin = rdtsc();

	send_ipi(icr);
	record(NONE, rdtsc() - begin);
	GUEST_SYNC(LET_RUN);
}

/* The target would run, but vCPU 0 does. */
static void ipi_preempted(int round)
{
	u64 begin, end;

	before();
	begin = rdtsc();
	send_ipi(icr);
	end = rdtsc();
	GUEST_SYNC(LET_RUN);
	while (!shared->nr_taken)
		;
	after(NONE, end - begin);
}

static void let_run(int round)
{
	before();
	GUEST_SYNC(LET_RUN);
	after(NONE, NONE);
}

/* On two CPUs, instructions until the handler are of both, and no two runs have the same. */
static void ipi_running(int round)
{
	u64 begin, end;

	before();
	begin = rdtsc();
	send_ipi(icr);
	end = rdtsc();
	while (!shared->nr_taken)
		cpu_relax();
	after(NONE, end - begin);
}

static void msi_running(int round)
{
	before();
	GUEST_SYNC(SEND_MSI);
	after(NONE, NONE);
}

static void rounds(void (*one)(int round))
{
	for (int i = 0; i < ROUNDS; i++)
		one(i);
}

static void report(const char *row)
{
	GUEST_PRINTF("%s", row);
}

static void row(const char *name, void (*one)(int round))
{
	rounds(one);
	report(name);
}

static void row_halted(const char *name, u64 val)
{
	icr = val;
	GUEST_SYNC(OTHERS_FIRST);
	rounds(ipi_halted);
	GUEST_SYNC(OTHERS_LAST);
	rounds(ipi_halted_sender);
	report(name);
}

static void guest_begin(void)
{
	u64 begin;

	apic_enable();
	sti();
	begin = rdtsc();
	nothing = rdtsc() - begin;
}

#define TO_ONE		(1ull << 32 | VECTOR)
#define NMI_TO_ONE	(1ull << 32 | APIC_DM_NMI)

static void guest_one_target(void)
{
	guest_begin();

	row("self-IPI", self_ipi);
	row_halted("IPI, halted", TO_ONE);
	row_halted("NMI, halted", NMI_TO_ONE);

	icr = TO_ONE;
	shared->busy = true;
	send_ipi(icr);
	GUEST_SYNC(LET_RUN);
	rounds(let_run);
	GUEST_SYNC(OVERHEAD);
	row("IPI, preempted", ipi_preempted);
	shared->busy = false;
	GUEST_SYNC(LET_RUN);

	row("TPR, MSR", tpr_by_msr);
	row("TPR, CR8", tpr_by_cr8);
	counts_eoi = true;
	row("EOI, edge", edge_eoi);
	if (has_savic)
		savic_set_vector(0, APIC_TMR, LEVEL_VECTOR);
	row("EOI, level", level_eoi);
	counts_eoi = false;
	row("LVT, read", read_lvt);
	row("LVT, write", write_lvt);
	row("timer, set", set_deadline);
	row("timer, running", timer_running);
	row("timer, halted", timer_halted);
	row("MSI, halted", msi_halted);
	GUEST_DONE();
}

static void guest_broadcasts(void)
{
	guest_begin();
	row_halted("broadcast", APIC_DEST_ALLBUT | VECTOR);
	GUEST_DONE();
}

static void guest_one_of_many(void)
{
	guest_begin();
	row_halted("one", TO_ONE);
	GUEST_DONE();
}

static void guest_two_cpus(void)
{
	guest_begin();
	shared->busy = true;
	icr = TO_ONE;
	send_ipi(icr);
	row("IPI, running", ipi_running);
	icr = NMI_TO_ONE;
	row("NMI, running", ipi_running);
	row("MSI, running", msi_running);
	GUEST_DONE();
}

static void guest_target(void)
{
	apic_enable();
	sti();
	__sync_fetch_and_add(&shared->nr_ready, 1);
	for (;;) {
		if (shared->busy)
			cpu_relax();
		else
			asm volatile("hlt");
	}
}

/* From here on it is the host's. */

#define MAX_RUNNING	16u

static const char *const kinds[] = { "SVM", "SEV-ES", "SNP", "SAVIC" };
static const u32 types[] = { KVM_X86_DEFAULT_VM, KVM_X86_SEV_ES_VM, KVM_X86_SNP_VM, KVM_X86_SNP_VM };

static struct kvm_vcpu *vcpus[MAX_RUNNING];
static pthread_t threads[MAX_RUNNING];
static u32 nr_threads;
static int msi_fds[2];
static volatile struct shared *host_shared;

static void send_msi(u32 vcpu)
{
	u64 one = 1;

	TEST_ASSERT_EQ(write(msi_fds[vcpu], &one, sizeof(one)), (ssize_t)sizeof(one));
}

static void set_routes(struct kvm_vm *vm)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entries[3];
	} routing = {
		.head.nr = 3,
		.entries[0] = {
			.gsi = LEVEL_PIN,
			.type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = LEVEL_PIN },
		},
	};

	for (u32 i = 0; i < 2; i++) {
		routing.entries[1 + i] = (struct kvm_irq_routing_entry) {
			.gsi = MSI_GSI(i),
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = APIC_DEFAULT_GPA | i << 12, .data = VECTOR },
		};
	}
	vm_ioctl(vm, KVM_SET_GSI_ROUTING, &routing.head);
	for (u32 i = 0; i < 2; i++) {
		msi_fds[i] = kvm_new_eventfd();
		kvm_assign_irqfd(vm, MSI_GSI(i), msi_fds[i]);
	}

	vm_ioctl(vm, KVM_GET_IRQCHIP, &chip);
	chip.chip.ioapic.redirtbl[LEVEL_PIN].bits = LEVEL_VECTOR | IOAPIC_LEVEL;
	vm_ioctl(vm, KVM_SET_IRQCHIP, &chip);
}

static void set_line(struct kvm_vm *vm, u32 level)
{
	struct kvm_irq_level line = { .irq = LEVEL_PIN, .level = level };

	vm_ioctl(vm, KVM_IRQ_LINE, &line);
}

static struct kvm_vm *create(u32 kind, void *code)
{
	struct vm_shape shape = { .mode = VM_MODE_DEFAULT, .type = types[kind] };
	struct kvm_vm *vm;

	if (!strcmp(kinds[kind], "SAVIC"))
		vm = vm_savic_create(nr_running, guest_target, vcpus);
	else
		vm = __vm_create_with_vcpus(shape, nr_running, 0, guest_target, vcpus);
	vcpu_arch_set_entry_point(vcpus[0], code);
	return vm;
}

static void launch(struct kvm_vm *vm, u32 kind)
{
	gva_t gva = vm_alloc_shared(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);
	u64 offset = 0;
	u32 i;

	host_shared = addr_gva2hva(vm, gva);
	host_shared->to_handler = host_shared->to_next = NONE;
	write_guest_global(vm, shared, (struct shared *)gva);
	write_guest_global(vm, has_savic, !strcmp(kinds[kind], "SAVIC"));
	sync_global_to_guest(vm, nr_running);

	/* The vCPU doesn't wait for a wakeup, another thread needs the CPU. */
	vm_enable_cap(vm, KVM_CAP_HALT_POLL, 0);
	vm_install_exception_handler(vm, VECTOR, irq_handler);
	vm_install_exception_handler(vm, LEVEL_VECTOR, irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, nmi_handler);
	for (i = 0; i < nr_running; i++)
		vcpu_device_attr_set(vcpus[i], KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
	set_routes(vm);
	if (types[kind] != KVM_X86_DEFAULT_VM)
		vm_sev_launch(vm, types[kind] == KVM_X86_SNP_VM ? snp_default_policy() :
			      SEV_POLICY_ES, NULL);
}

static void *target_thread(void *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_FAIL("A target's KVM_RUN returned");
	return NULL;
}

/* Keeps the CPU from being idle, and is the device: runs when vCPU 0 has halted. */
static void *other_thread(void *arg)
{
	for (;;) {
		if (host_shared->wants_msi) {
			host_shared->wants_msi = false;
			host_shared->begin = rdtsc();
			send_msi(0);
		}
	}
	return NULL;
}

static void set_priority(pthread_t thread, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	TEST_ASSERT(!pthread_setschedparam(thread, SCHED_FIFO, &param),
		    "pthread_setschedparam() failed");
}

static void set_others_priority(int priority)
{
	for (u32 i = 1; i < nr_threads; i++)
		set_priority(threads[i], priority);
	usleep(1000);
}

static u64 nr_exits(void)
{
	u64 sum = 0;

	for (u32 i = 0; i < nr_running; i++)
		sum += vcpu_get_stat(vcpus[i], exits);
	return sum;
}

/* How often a round had that many exits. */
static u32 had_exits[256];

/* What most rounds had: a tick of the host may add one, or be what lets a vCPU look. */
static u64 usual_exits(void)
{
	u64 i, usual = 0;

	for (i = 0; i < ARRAY_SIZE(had_exits); i++) {
		if (had_exits[i] > had_exits[usual])
			usual = i;
	}
	if (!had_exits[usual])
		return NONE;
	memset(had_exits, 0, sizeof(had_exits));
	return usual;
}

static void print(const char *kind, const char *row, const char *what, u64 val)
{
	if (val != NONE)
		printf("@@ %s/%s/%s %lu\n", kind, row, what, (unsigned long)val);
}

static void run(struct kvm_vm *vm, const char *kind)
{
	u64 exits = 0, now, nr_syncs = 0, overhead = 0;
	struct ucall uc;

	for (;;) {
		vcpu_run(vcpus[0]);
		switch (get_ucall(vcpus[0], &uc)) {
		case UCALL_PRINTF:
			now = usual_exits();
			print(kind, uc.buffer, "exits", now == NONE ? now : now - overhead);
			print(kind, uc.buffer, "handler", host_shared->to_handler);
			print(kind, uc.buffer, "next", host_shared->to_next);
			fflush(stdout);
			host_shared->to_handler = host_shared->to_next = NONE;
			overhead = 0;
			continue;
		case UCALL_SYNC:
			break;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
		case UCALL_DONE:
			return;
		default:
			TEST_FAIL("exit reason %u", vcpus[0]->run->exit_reason);
		}
		/* That was an exit, too. */
		nr_syncs++;
		switch (uc.args[1]) {
		case BEFORE:
			exits = nr_exits();
			nr_syncs = 0;
			break;
		case AFTER:
			now = nr_exits() - exits - nr_syncs;
			had_exits[min(now, ARRAY_SIZE(had_exits) - 1ul)]++;
			break;
		case OVERHEAD:
			overhead = usual_exits();
			break;
		case OTHERS_FIRST:
			set_others_priority(4);
			break;
		case OTHERS_LAST:
			set_others_priority(2);
			break;
		case LET_RUN:
			usleep(500);
			break;
		case LEVEL_LINE:
			set_line(vm, 1);
			set_line(vm, 0);
			break;
		case SEND_MSI:
			send_msi(1);
			while (!host_shared->nr_taken)
				cpu_relax();
			break;
		default:
			TEST_FAIL("No such request");
		}
	}
}

/* Instructions that the host needs for each of the first 2, 4, ... vCPUs. */
static void count_creation(u32 kind)
{
	static const u32 numbers[] = { 2, 4, 8, 16, 64, 240 };
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = types[kind],
		.vmsa_features = strcmp(kinds[kind], "SAVIC") ? 0 : SVM_SEV_FEAT_SECURE_AVIC,
	};
	struct kvm_vm *vm = __vm_create(shape, 1, 0);
	u64 begin, sum = 0;
	u32 i, next = 0;
	char row[32];
	int fd;

	for (i = 0; next < ARRAY_SIZE(numbers); i++) {
		begin = rdtsc();
		fd = __vm_ioctl(vm, KVM_CREATE_VCPU, (void *)(unsigned long)i);
		sum += rdtsc() - begin;
		TEST_ASSERT(fd >= 0, "KVM_CREATE_VCPU failed, errno %d", errno);
		if (i + 1 < numbers[next])
			continue;
		snprintf(row, sizeof(row), "creation, %u vCPUs", numbers[next++]);
		print(kinds[kind], row, "next", sum / (i + 1));
	}
}

/* usage: event_cost KIND one | two-CPUs | creation | broadcast TARGETS | many VCPUS */
int main(int argc, char *argv[])
{
	u32 i, kind, number = argc > 3 ? atoi(argv[3]) : 0;
	void *code = guest_one_target;
	struct kvm_vm *vm;
	const char *what;
	pthread_t other;

	TEST_ASSERT(argc > 2, "usage: event_cost KIND WHAT [NUMBER]");
	what = argv[2];
	for (kind = 0; strcmp(kinds[kind], argv[1]); kind++)
		TEST_ASSERT(kind < ARRAY_SIZE(kinds) - 1, "No such kind of VM: %s", argv[1]);
	if (!strcmp(what, "creation")) {
		count_creation(kind);
		return 0;
	}

	nr_running = 2;
	if (!strcmp(what, "two-CPUs")) {
		code = guest_two_cpus;
	} else if (!strcmp(what, "broadcast")) {
		code = guest_broadcasts;
		nr_running = 1 + number;
	} else if (!strcmp(what, "many")) {
		code = guest_one_of_many;
	}
	TEST_ASSERT(nr_running <= MAX_RUNNING, "Too many vCPUs");
	vm = create(kind, code);
	for (i = nr_running; !strcmp(what, "many") && i < number; i++)
		__vm_vcpu_add(vm, i);
	launch(vm, kind);

	for (i = 1; i < nr_running; i++) {
		pthread_create(&threads[i], NULL, target_thread, vcpus[i]);
		if (code == guest_two_cpus)
			pin_task_to_cpu(threads[i], 1);
	}
	while (host_shared->nr_ready < nr_running - 1)
		usleep(1000);
	if (code == guest_two_cpus) {
		pin_task_to_cpu(pthread_self(), 0);
	} else {
		nr_threads = nr_running;
		pthread_create(&other, NULL, other_thread, NULL);
		set_priority(pthread_self(), 3);
	}
	run(vm, kinds[kind]);
	/* The targets never end. */
	fflush(stdout);
	_exit(0);
}
