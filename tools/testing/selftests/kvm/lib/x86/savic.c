// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC for SEV-SNP selftest guests (APM volume 2, 15.36.21).
 *
 * Interrupt handlers use this file, see ghcb.c.
 */
#include <pthread.h>

#include "savic.h"
#include "sev.h"

#define X2APIC_REG(msr)		(((msr) - APIC_BASE_MSR) << 4)

/* Guest copy only. */
static struct savic_pool {
	gva_t gva;
	gpa_t gpa;
	u32 nr_pages;
} savic_pool;

/*
 * What each vCPU waits for, by its slot, in a page that host and guest share.  A lost interrupt
 * makes a test hang, and this is how the host can tell which one it is.
 */
struct savic_wait {
	u32 vector;
	u32 wanted;
	u32 seen;
};

/* Guest copy only. */
static struct savic_wait *savic_waits;

#define WATCH_SECS	30

/* Host only: the VM that was created last. */
static struct savic_watch {
	struct kvm_vm *vm;
	struct savic_wait *waits;
	pthread_t thread;
} savic_watch;

/* What KVM lets userspace ask for, see KVM_X86_SEV_VMSA_FEATURES in api.rst. */
bool kvm_has_savic(void)
{
	int kvm_fd = open_kvm_dev_path_or_exit();
	u64 features = 0;

	if (!__kvm_has_device_attr(kvm_fd, KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES))
		kvm_device_attr_get(kvm_fd, KVM_X86_GRP_SEV,
				    KVM_X86_SEV_VMSA_FEATURES, &features);
	close(kvm_fd);

	return features & SVM_SEV_FEAT_SECURE_AVIC;
}

/*
 * Have vCPUs use the contiguous pages at @gva, in place of those that vm_savic_create() has
 * allocated for them.  Before launch.
 */
void savic_set_pages(struct kvm_vm *vm, gva_t gva, u32 nr_pages)
{
	struct savic_pool pool = {
		.gva = gva,
		.gpa = addr_gva2gpa(vm, gva),
		.nr_pages = nr_pages,
	};

	memset(addr_gva2hva(vm, gva), 0, nr_pages * PAGE_SIZE);
	write_guest_global(vm, savic_pool, pool);
}

static void report_wait(struct kvm_vcpu *vcpu, struct savic_wait *wait)
{
	ksft_print_msg("vCPU %u waits for vector %#x, %u of %u came; %s, %lu exits, %lu vectors posted, %lu kicks, %lu doorbells, %lu wakes\n",
		       vcpu->id, wait->vector, wait->seen, wait->wanted,
		       vcpu_get_stat(vcpu, blocking) ? "halted" : "not halted",
		       vcpu_get_stat(vcpu, exits), vcpu_get_stat(vcpu, savic_posted),
		       vcpu_get_stat(vcpu, savic_kicks),
		       vcpu_get_stat(vcpu, savic_doorbells), vcpu_get_stat(vcpu, savic_wakes));
	fflush(stdout);
}

/* Every now and then, say who is waiting for what.  It's the test's timeout that ends it. */
static void *watch_thread(void *unused)
{
	struct savic_wait waits[SAVIC_NR_SLOTS];
	struct kvm_vcpu *vcpu;
	int fds[2];

	TEST_ASSERT(!pipe(fds), "pipe() failed, errno %d", errno);
	for (;;) {
		sleep(WATCH_SECS);

		/* The VM may be gone by now, and its memory with it: then write() fails. */
		if (write(fds[1], READ_ONCE(savic_watch.waits), sizeof(waits)) != sizeof(waits) ||
		    read(fds[0], waits, sizeof(waits)) != sizeof(waits))
			continue;

		list_for_each_entry(vcpu, &savic_watch.vm->vcpus, list) {
			if (waits[savic_slot(vcpu->id)].wanted)
				report_wait(vcpu, &waits[savic_slot(vcpu->id)]);
		}
	}
	return NULL;
}

static void watch(struct kvm_vm *vm)
{
	gva_t gva = vm_alloc_shared(vm, PAGE_SIZE, KVM_UTIL_MIN_VADDR, MEM_REGION_DATA);

	kvm_static_assert(SAVIC_NR_SLOTS * sizeof(struct savic_wait) <= PAGE_SIZE);
	write_guest_global(vm, savic_waits, (struct savic_wait *)gva);
	savic_watch.vm = vm;
	WRITE_ONCE(savic_watch.waits, addr_gva2hva(vm, gva));
	if (!savic_watch.thread)
		pthread_create(&savic_watch.thread, NULL, watch_thread, NULL);
}

/* vCPU IDs are indices if @ids is NULL. */
static struct kvm_vm *create(u32 nr_vcpus, const u32 ids[], void *guest_code,
			     struct kvm_vcpu *vcpus[], bool split_irqchip,
			     u64 disabled_exits)
{
	struct vm_shape shape = {
		.mode = VM_MODE_DEFAULT,
		.type = KVM_X86_SNP_VM,
		.vmsa_features = SVM_SEV_FEAT_SECURE_AVIC,
		.split_irqchip = split_irqchip,
	};
	bool used[SAVIC_NR_SLOTS] = {};
	u32 i, id, nr_pages = 0;
	struct kvm_vm *vm;

	vm = __vm_create(shape, nr_vcpus, nr_vcpus);
	if (disabled_exits)
		vm_enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS, disabled_exits);
	for (i = 0; i < nr_vcpus; i++) {
		id = ids ? ids[i] : i;
		TEST_ASSERT(!used[savic_slot(id)], "Another vCPU has the slot of ID %u", id);
		used[savic_slot(id)] = true;
		vcpus[i] = vm_vcpu_add(vm, id, guest_code);
		nr_pages = max(nr_pages, savic_slot(id) + 1);
	}
	kvm_arch_vm_finalize_vcpus(vm);

	savic_set_pages(vm, vm_alloc_pages(vm, nr_pages), nr_pages);
	vm_install_exception_handler(vm, VC_VECTOR, savic_vc_handler);
	watch(vm);

	return vm;
}

/*
 * The caller launches the VM, after having installed its handlers.  @disabled_exits is
 * for KVM_CAP_X86_DISABLE_EXITS, which has to come before the vCPUs.
 */
struct kvm_vm *__vm_savic_create(u32 nr_vcpus, void *guest_code,
				 struct kvm_vcpu *vcpus[], bool split_irqchip,
				 u64 disabled_exits)
{
	return create(nr_vcpus, NULL, guest_code, vcpus, split_irqchip, disabled_exits);
}

struct kvm_vm *vm_savic_create(u32 nr_vcpus, void *guest_code,
			       struct kvm_vcpu *vcpus[])
{
	return __vm_savic_create(nr_vcpus, guest_code, vcpus, false, 0);
}

struct kvm_vm *vm_savic_create_with_ids(u32 nr_vcpus, const u32 ids[], void *guest_code,
					struct kvm_vcpu *vcpus[])
{
	return create(nr_vcpus, ids, guest_code, vcpus, false, 0);
}

/* Launch the VM, of which @vcpu begins with @guest_code and has an argument. */
void savic_launch(struct kvm_vcpu *vcpu, void *guest_code, u64 arg)
{
	vcpu_arch_set_entry_point(vcpu, guest_code);
	vcpu_args_set(vcpu, 1, arg);
	vm_sev_launch(vcpu->vm, snp_default_policy(), NULL);
}

static bool check_ucall(struct kvm_vcpu *vcpu, struct ucall *uc)
{
	switch (get_ucall(vcpu, uc)) {
	case UCALL_SYNC:
		return true;
	case UCALL_DONE:
		return false;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(*uc);
	default:
		TEST_FAIL("vCPU %u: unexpected exit: %s", vcpu->id,
			  exit_reason_str(vcpu->run->exit_reason));
	}
}

/* Why KVM_RUN has returned: at a GUEST_SYNC(), true, or GUEST_DONE(), false. */
bool savic_check_ucall(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	return check_ucall(vcpu, &uc);
}

/* Returns at the next GUEST_SYNC(), true, or GUEST_DONE(), false. */
bool savic_vcpu_run(struct kvm_vcpu *vcpu)
{
	vcpu_run(vcpu);
	return savic_check_ucall(vcpu);
}

/* Returns the argument of the next GUEST_SYNC(), which has to come. */
u64 savic_vcpu_run_to_sync(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);
	TEST_ASSERT(check_ucall(vcpu, &uc), "Unexpected GUEST_DONE()");
	return uc.args[1];
}

/* For pthread_create(). */
void *savic_vcpu_thread(void *vcpu)
{
	TEST_ASSERT(!savic_vcpu_run(vcpu), "Unexpected GUEST_SYNC()");
	return NULL;
}

/* For pthread_create(), if the guest goes on after that. */
void *savic_vcpu_thread_to_sync(void *vcpu)
{
	savic_vcpu_run_to_sync(vcpu);
	return NULL;
}

/* KVM says whether there is a target, not whether the guest allows the vector. */
void savic_send_msi(struct kvm_vm *vm, u32 apic_id, u32 data)
{
	struct kvm_msi msi = {
		.address_lo = APIC_DEFAULT_GPA | apic_id << 12,
		.data = data,
	};

	int ret = __vm_ioctl(vm, KVM_SIGNAL_MSI, &msi);

	TEST_ASSERT(ret >= 0, KVM_IOCTL_ERROR(KVM_SIGNAL_MSI, ret));
}

void savic_signal_eventfd(int fd)
{
	u64 one = 1;

	TEST_ASSERT(write(fd, &one, sizeof(one)) == sizeof(one),
		    "Writing to an eventfd failed, errno %d", errno);
}

/* Returns when the vCPU sleeps in the host, which is not for this moment only: it stays so. */
void savic_wait_until_blocked(struct kvm_vcpu *vcpu)
{
	u64 exits, halts;

	do {
		while (!vcpu_get_stat(vcpu, blocking))
			usleep(100);
		exits = vcpu_get_stat(vcpu, exits);
		halts = vcpu_get_stat(vcpu, halt_exits);
		usleep(1000);
	} while (!vcpu_get_stat(vcpu, blocking) || vcpu_get_stat(vcpu, exits) != exits ||
		 vcpu_get_stat(vcpu, halt_exits) != halts);
}

/* The first @nr CPUs that the test may use.  Returns how many there are. */
int savic_get_cpus(int cpus[], int nr)
{
	cpu_set_t possible;
	int cpu, n = 0;

	kvm_sched_getaffinity(0, sizeof(possible), &possible);
	for (cpu = 0; cpu < CPU_SETSIZE && n < nr; cpu++) {
		if (CPU_ISSET(cpu, &possible))
			cpus[n++] = cpu;
	}
	return n;
}

gpa_t savic_page_gpa(u32 apic_id)
{
	GUEST_ASSERT(savic_slot(apic_id) < savic_pool.nr_pages);
	return savic_pool.gpa + savic_slot(apic_id) * PAGE_SIZE;
}

static u32 *savic_reg(u32 apic_id, u32 reg)
{
	GUEST_ASSERT(savic_slot(apic_id) < savic_pool.nr_pages);
	return (u32 *)(savic_pool.gva + savic_slot(apic_id) * PAGE_SIZE + reg);
}

u32 savic_read(u32 apic_id, u32 reg)
{
	return READ_ONCE(*savic_reg(apic_id, reg));
}

void savic_write(u32 apic_id, u32 reg, u32 val)
{
	WRITE_ONCE(*savic_reg(apic_id, reg), val);
}

/*
 * @reg is the first of the eight registers of a bitmap.  Atomic, because hardware
 * and other vCPUs write to the same registers.
 */
static u32 *vector_reg(u32 apic_id, u32 reg, u8 vector)
{
	return savic_reg(apic_id, reg + APIC_VECTOR_TO_REG_OFFSET(vector));
}

bool savic_test_vector(u32 apic_id, u32 reg, u8 vector)
{
	return READ_ONCE(*vector_reg(apic_id, reg, vector)) &
	       BIT(APIC_VECTOR_TO_BIT_NUMBER(vector));
}

void savic_set_vector(u32 apic_id, u32 reg, u8 vector)
{
	__sync_fetch_and_or(vector_reg(apic_id, reg, vector),
			    1u << APIC_VECTOR_TO_BIT_NUMBER(vector));
}

void savic_clear_vector(u32 apic_id, u32 reg, u8 vector)
{
	__sync_fetch_and_and(vector_reg(apic_id, reg, vector),
			     ~(1u << APIC_VECTOR_TO_BIT_NUMBER(vector)));
}

/* The engine has to be on: the register is read from the backing page. */
u32 savic_apic_id(void)
{
	return rdmsr(X2APIC_MSR(APIC_ID));
}

void savic_allow_vector(u8 vector)
{
	savic_set_vector(savic_apic_id(), SAVIC_ALLOWED_IRR, vector);
}

static enum ghcb_status savic_vmgexit(u64 op, u64 apic_id, gpa_t *gpa, u64 *error)
{
	struct ghcb_request req = {
		.exit_code = SVM_VMGEXIT_SAVIC,
		.exit_info_1 = op,
		.reg[GHCB_RAX] = apic_id,
		.reg[GHCB_RBX] = *gpa,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RBX),
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	*gpa = req.reg[GHCB_RBX];
	if (error)
		*error = req.exit_info_2;
	return status;
}

/**
 * savic_register_page - tell KVM which page has to stay mapped
 * @apic_id: the vCPU that uses it, or SVM_VMGEXIT_SAVIC_SELF_GPA
 * @gpa: the page
 * @error: if non-NULL and the request is refused, why (enum ghcb_error)
 */
enum ghcb_status savic_register_page(u64 apic_id, gpa_t gpa, u64 *error)
{
	return savic_vmgexit(SVM_VMGEXIT_SAVIC_REGISTER_GPA, apic_id, &gpa, error);
}

/* On success, @gpa is the page that was registered. */
enum ghcb_status savic_unregister_page(u64 apic_id, gpa_t *gpa)
{
	*gpa = 0;
	return savic_vmgexit(SVM_VMGEXIT_SAVIC_UNREGISTER_GPA, apic_id, gpa, NULL);
}

/* With the engine off every x2APIC register is the host's, by way of #VC. */
void savic_enable(void)
{
	u32 id;

	x2apic_enable();
	id = rdmsr(X2APIC_MSR(APIC_ID));

	savic_write(id, APIC_ID, id);
	savic_write(id, APIC_LVR, rdmsr(X2APIC_MSR(APIC_LVR)));
	savic_write(id, APIC_SPIV, rdmsr(X2APIC_MSR(APIC_SPIV)));

	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA,
					    savic_page_gpa(id), NULL), GHCB_OK);
	wrmsr(MSR_AMD64_SAVIC_CONTROL, savic_page_gpa(id) | MSR_AMD64_SAVIC_EN |
				       MSR_AMD64_SAVIC_ALLOWEDNMI);
}

/* As for kexec: off first, then the page may go. */
void savic_disable(void)
{
	gpa_t expected = savic_page_gpa(savic_apic_id());
	gpa_t gpa;

	wrmsr(MSR_AMD64_SAVIC_CONTROL, 0);
	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	GUEST_ASSERT_EQ(gpa, expected);
}

/* A write to an x2APIC register that KVM is asked for, and has to do. */
void savic_wrmsr(u32 reg, u64 val)
{
	enum ghcb_status status = ghcb_wrmsr(X2APIC_MSR(reg), val);

	__GUEST_ASSERT(status == GHCB_OK, "Write of %#lx to %#x: status %u", val, reg, status);
}

/*
 * The sender sets IRR itself, all the host has to do is to make the target look.
 * @apic_id must not be the caller: SELF_IPI is for that.
 */
void savic_send_ipi(u32 apic_id, u8 vector)
{
	savic_set_vector(apic_id, APIC_IRR, vector);
	savic_wrmsr(APIC_ICR, (u64)apic_id << 32 | APIC_DEST_PHYSICAL | APIC_DM_FIXED | vector);
}

static int savic_highest_vector(u32 apic_id, u32 reg)
{
	int vector;

	for (vector = 255; vector >= 0; vector--) {
		if (savic_test_vector(apic_id, reg, vector))
			return vector;
	}
	return -1;
}

/*
 * Hardware does it all for an edge-triggered interrupt.  For a level-triggered one
 * the host has to know, and asking it directly is cheaper than a #VC.
 */
void savic_eoi(void)
{
	u32 id = savic_apic_id();
	int vector = savic_highest_vector(id, APIC_ISR);

	GUEST_ASSERT(vector >= 0);
	if (savic_test_vector(id, APIC_TMR, vector)) {
		savic_clear_vector(id, APIC_ISR, vector);
		GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 0), GHCB_OK);
	} else {
		wrmsr(X2APIC_MSR(APIC_EOI), 0);
	}
}

/*
 * Go through KVM and VMRUN, and open a window: whatever was posted for this vCPU
 * before, be it wanted or not, has been counted after that.
 */
void savic_settle(void)
{
	u64 val;

	GUEST_ASSERT_EQ(ghcb_rdmsr(X2APIC_MSR(APIC_LVTT), &val), GHCB_OK);
	sti_nop_cli();
}

/* Guest copy only. */
static u32 savic_irqs[SAVIC_NR_SLOTS][256];

void savic_irq_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&savic_irqs[savic_slot(savic_apic_id())][regs->vector], 1);
	savic_eoi();
}

/* How often the handler has run on that vCPU. */
u32 savic_nr_irqs(u32 apic_id, u8 vector)
{
	return READ_ONCE(savic_irqs[savic_slot(apic_id)][vector]);
}

/* Tell the host what the vCPU waits for, nothing if @wanted is 0. */
void savic_show_wait(u32 apic_id, u8 vector, u32 seen, u32 wanted)
{
	struct savic_wait *wait = &savic_waits[savic_slot(apic_id)];

	if (!savic_waits)
		return;

	WRITE_ONCE(wait->vector, vector);
	WRITE_ONCE(wait->seen, seen);
	WRITE_ONCE(wait->wanted, wanted);
}

void savic_wait_for_irqs(u8 vector, u32 nr)
{
	u32 seen, id = savic_apic_id();

	while ((seen = savic_nr_irqs(id, vector)) < nr) {
		savic_show_wait(id, vector, seen, nr);
		safe_halt();
		cli();
	}
	savic_show_wait(id, 0, 0, 0);
}

/* Guest copy only. */
static u32 savic_nmis[SAVIC_NR_SLOTS];

/* The APIC ID comes from the backing page, i.e. without a VMGEXIT. */
void savic_nmi_handler(struct ex_regs *regs)
{
	__sync_fetch_and_add(&savic_nmis[savic_slot(savic_apic_id())], 1);
}

/* How often the handler has run on that vCPU. */
u32 savic_nr_nmis(u32 apic_id)
{
	return READ_ONCE(savic_nmis[savic_slot(apic_id)]);
}

/*
 * AVIC_INCOMPLETE_IPI is a trap: RIP is past the WRMSR of ICR, whose operands are
 * still there.  Handed to the host as it is; the host delivers.
 */
static void vc_incomplete_ipi(struct ex_regs *regs)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_AVIC_INCOMPLETE_IPI,
		.exit_info_1 = regs->rdx << 32 | (u32)regs->rax,
		.exit_info_2 = (u64)SAVIC_IPI_UNACCELERATED << 32,
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	__GUEST_ASSERT(status == GHCB_OK, "ICR %#lx refused, status %u, error %lu",
		       regs->rdx << 32 | (u32)regs->rax, status, req.exit_info_2);
}

/*
 * AVIC_NOACCEL: a fault for registers that hardware doesn't write at all, else a
 * trap, with the backing page written (APM volume 2, table 15-22).  No register
 * has a fault on reads but a trap on writes, so the register tells which it is.
 */
static bool savic_is_fault(u32 reg)
{
	switch (reg) {
	case APIC_LVR:
	case APIC_ARBPRI:
	case APIC_PROCPRI:
	case APIC_ISR ... APIC_IRR + 0x70:
	case APIC_TMCCT:
	case 0x400 ... 0x4f0:
		return true;
	default:
		return false;
	}
}

static void vc_unaccelerated_access(struct ex_regs *regs)
{
	u32 msr = regs->rcx, reg = X2APIC_REG(msr);
	bool fault = savic_is_fault(reg);
	/* WRMSR is 0f 30, RDMSR is 0f 32.  Only writes trap. */
	bool write = !fault || ((u8 *)regs->rip)[1] == 0x30;
	enum ghcb_status status;
	int vector;
	u64 val;

	/*
	 * A trapped EOI leaves ISR alone: that, like KVM does for AVIC, is how to
	 * find out which vector it was for.
	 */
	if (reg == APIC_EOI) {
		u32 id = savic_apic_id();

		vector = savic_highest_vector(id, APIC_ISR);
		GUEST_ASSERT(vector >= 0);
		savic_clear_vector(id, APIC_ISR, vector);
	}

	if (write) {
		status = ghcb_wrmsr(msr, regs->rdx << 32 | (u32)regs->rax);
	} else {
		status = ghcb_rdmsr(msr, &val);
		regs->rax = (u32)val;
		regs->rdx = val >> 32;
	}

	/* The host has an exception for it, which a fault can still become. */
	if (fault && status == GHCB_EXCEPTION) {
		regs->vector = GP_VECTOR;
		regs->error_code = 0;
		route_exception(regs);
		return;
	}

	__GUEST_ASSERT(status == GHCB_OK, "%s of x2APIC register %#x refused, status %u",
		       write ? "Write" : "Read", reg, status);
	if (fault)
		regs->rip += 2;
}

void savic_vc_handler(struct ex_regs *regs)
{
	switch (regs->error_code) {
	case SVM_EXIT_AVIC_INCOMPLETE_IPI:
		vc_incomplete_ipi(regs);
		break;
	case SVM_EXIT_AVIC_UNACCELERATED_ACCESS:
		vc_unaccelerated_access(regs);
		break;
	default:
		sev_vc_handler(regs);
	}
}
