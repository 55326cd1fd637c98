// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a guest in Secure AVIC mode makes the host do that does so on purpose.  Linked with
 * KVM's selftest library by bench/storms.
 *
 * vCPU 0 does the same thing again and again, vCPU 1 is halted.  After some seconds the host
 * prints, per second: CPU time of either vCPU's thread (ms, the guest's included), exits of
 * vCPU 1, and how often an interrupt of a device was unmasked.
 */
#include <pthread.h>
#include <time.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "test_util.h"

#define SECONDS		4
#define VECTOR		0x51
#define DENIED_VECTOR	0x61
/* Not of a PIC. */
#define LINE_GSI	20

static void icr(u64 val)
{
	GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_ICR), val), GHCB_OK);
}

static void guest_is_halted(void)
{
	savic_enable();
	GUEST_SYNC(0);
	for (;;)
		safe_halt();
}

/* A level-triggered line that the guest doesn't allow. */
static void guest_denied_line(void)
{
	savic_enable();
	savic_set_vector(0, APIC_TMR, VECTOR);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI) + 1, 0);
	ghcb_ioapic_write(IOAPIC_REDIR(LINE_GSI), IOAPIC_LEVEL | VECTOR);
	GUEST_SYNC(0);
	for (;;)
		safe_halt();
}

/* Something waits that hardware doesn't take, as the engine is off. */
static void guest_engine_off(void)
{
	x2apic_enable();
	GUEST_ASSERT_EQ(savic_register_page(SVM_VMGEXIT_SAVIC_SELF_GPA, savic_page_gpa(0), NULL), GHCB_OK);
	GUEST_SYNC(0);
	for (;;)
		safe_halt();
}

static void guest_spurious_eois(void)
{
	savic_enable();
	GUEST_SYNC(0);
	for (;;)
		GUEST_ASSERT_EQ(ghcb_wrmsr(X2APIC_MSR(APIC_EOI), 0), GHCB_OK);
}

static void guest_icr(void)
{
	savic_enable();
	GUEST_SYNC(0);
	for (;;)
		icr(1ull << 32 | DENIED_VECTOR);
}

static void guest_broadcasts(void)
{
	savic_enable();
	GUEST_SYNC(0);
	for (;;)
		icr(APIC_DEST_ALLBUT | APIC_DM_NMI);
}

static void guest_registers(void)
{
	u64 gpa;

	savic_enable();
	GUEST_SYNC(0);
	for (;;) {
		GUEST_ASSERT_EQ(savic_unregister_page(1, &gpa), GHCB_OK);
		GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	}
}

static const struct {
	const char *name;
	void *guest;
	bool line;
} storms[] = {
	{ "denied-line", guest_denied_line, true },
	{ "engine-off", guest_engine_off },
	{ "spurious-EOIs", guest_spurious_eois },
	{ "ICR", guest_icr },
	{ "NMIs-to-all", guest_broadcasts },
	{ "registrations", guest_registers },
};

static u64 nr_unmasks;

/* What VFIO and a device that never lowers its line do. */
static void *device(void *arg)
{
	struct kvm_irqfd *irqfd = arg;
	u64 one = 1, nr;

	for (;;) {
		TEST_ASSERT_EQ(write(irqfd->fd, &one, sizeof(one)), (ssize_t)sizeof(one));
		TEST_ASSERT_EQ(read(irqfd->resamplefd, &nr, sizeof(nr)), (ssize_t)sizeof(nr));
		__atomic_add_fetch(&nr_unmasks, nr, __ATOMIC_RELAXED);
	}
	return NULL;
}

static u64 cpu_ms(pthread_t thread)
{
	struct timespec ts;
	clockid_t clock;

	TEST_ASSERT_EQ(pthread_getcpuclockid(thread, &clock), 0);
	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int main(int argc, char *argv[])
{
	struct kvm_irqfd irqfd = { .gsi = LINE_GSI, .flags = KVM_IRQFD_FLAG_RESAMPLE };
	pthread_t sender, target, other;
	u64 cpu0, cpu1, exits, unmasks;
	struct kvm_vcpu *vcpus[2];
	struct kvm_vm *vm;
	u32 i = argc > 1 ? atoi(argv[1]) : ARRAY_SIZE(storms);

	if (i >= ARRAY_SIZE(storms))
		return 1;

	vm = vm_savic_create(2, guest_is_halted, vcpus);
	vcpu_arch_set_entry_point(vcpus[0], storms[i].guest);
	vm_install_exception_handler(vm, VECTOR, savic_irq_handler);
	vm_install_exception_handler(vm, NMI_VECTOR, savic_nmi_handler);
	vm_sev_launch(vm, snp_default_policy(), NULL);
	TEST_ASSERT(savic_vcpu_run(vcpus[0]) && savic_vcpu_run(vcpus[1]), "Unexpected GUEST_DONE()");
	if (storms[i].line) {
		irqfd.fd = kvm_new_eventfd();
		irqfd.resamplefd = kvm_new_eventfd();
		vm_ioctl(vm, KVM_IRQFD, &irqfd);
		pthread_create(&other, NULL, device, &irqfd);
	} else if (storms[i].guest == guest_engine_off) {
		savic_send_msi(vm, 0, VECTOR);
	}
	pthread_create(&target, NULL, savic_vcpu_thread, vcpus[1]);
	pthread_create(&sender, NULL, savic_vcpu_thread, vcpus[0]);

	sleep(1);
	cpu0 = cpu_ms(sender);
	cpu1 = cpu_ms(target);
	exits = vcpu_get_stat(vcpus[1], exits);
	unmasks = __atomic_load_n(&nr_unmasks, __ATOMIC_RELAXED);
	sleep(SECONDS);
	printf("@@ %s CPU0 %lu\n@@ %s CPU1 %lu\n@@ %s exits1 %lu\n@@ %s unmasks %lu\n",
	       storms[i].name, (cpu_ms(sender) - cpu0) / SECONDS,
	       storms[i].name, (cpu_ms(target) - cpu1) / SECONDS,
	       storms[i].name, (vcpu_get_stat(vcpus[1], exits) - exits) / SECONDS,
	       storms[i].name, (__atomic_load_n(&nr_unmasks, __ATOMIC_RELAXED) - unmasks) / SECONDS);
	fflush(stdout);
	_exit(0);
}
