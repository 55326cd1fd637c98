/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Secure AVIC for SEV-SNP selftest guests (APM volume 2, 15.36.21).
 *
 * A vCPU's APIC ID is its vCPU ID, by default its index, and it has the page of its
 * slot of a pool of guest-private pages as its backing page.  Handlers and tests look
 * at backing pages directly, as a guest may.
 */
#ifndef SELFTEST_KVM_SAVIC_H
#define SELFTEST_KVM_SAVIC_H

#include "apic.h"
#include "ghcb.h"
#include "kvm_util.h"
#include "processor.h"

/* VMSA.SEV_FEATURES, i.e. kvm_sev_init.vmsa_features. */
#define SVM_SEV_FEAT_SECURE_AVIC	BIT_ULL(16)

#define X86_FEATURE_SECURE_AVIC	KVM_X86_CPU_FEATURE(0x8000001F, 0, EAX, 26)

/* Fields of the backing page that aren't x2APIC registers. */
#define SAVIC_ALLOWED_IRR	0x204
#define SAVIC_NMI_REQ		0x278

/* exit_info_2[63:32] of SVM_EXIT_AVIC_INCOMPLETE_IPI, as for AVIC. */
#define SAVIC_IPI_UNACCELERATED	5

/*
 * What the library keeps for each vCPU is in the slot of its APIC ID modulo this.  Two
 * vCPUs of a VM can't have the same one.
 */
#define SAVIC_NR_SLOTS		40

static inline u32 savic_slot(u32 apic_id)
{
	return apic_id % SAVIC_NR_SLOTS;
}

#define X2APIC_MSR(reg)		(APIC_BASE_MSR + ((reg) >> 4))

/* Host side. */
bool kvm_has_savic(void);
struct kvm_vm *__vm_savic_create(u32 nr_vcpus, void *guest_code,
				 struct kvm_vcpu *vcpus[], bool split_irqchip,
				 u64 disabled_exits);
struct kvm_vm *vm_savic_create(u32 nr_vcpus, void *guest_code,
			       struct kvm_vcpu *vcpus[]);
struct kvm_vm *vm_savic_create_with_ids(u32 nr_vcpus, const u32 ids[], void *guest_code,
					struct kvm_vcpu *vcpus[]);
void savic_set_pages(struct kvm_vm *vm, gva_t gva, u32 nr_pages);
void savic_launch(struct kvm_vcpu *vcpu, void *guest_code, u64 arg);
bool savic_vcpu_run(struct kvm_vcpu *vcpu);
bool savic_check_ucall(struct kvm_vcpu *vcpu);
u64 savic_vcpu_run_to_sync(struct kvm_vcpu *vcpu);
void *savic_vcpu_thread(void *vcpu);
void *savic_vcpu_thread_to_sync(void *vcpu);
void savic_send_msi(struct kvm_vm *vm, u32 apic_id, u32 data);
void savic_signal_eventfd(int fd);
void savic_wait_until_blocked(struct kvm_vcpu *vcpu);
int savic_get_cpus(int cpus[], int nr);

/* MSI data: level-triggered, asserted. */
#define MSI_LEVEL		(BIT(15) | BIT(14))

/* For tests that use kselftest's harness: main(), which skips all on other hosts. */
#define SAVIC_TEST_HARNESS_MAIN						\
int main(int argc, char *argv[])					\
{									\
	__TEST_REQUIRE(kvm_has_savic(), SAVIC_MISSING);			\
									\
	return test_harness_run(argc, argv);				\
}

#define SAVIC_MISSING \
	"KVM doesn't offer Secure AVIC (bit 16 of KVM_X86_SEV_VMSA_FEATURES)"

/* Guest side: setting up. */
void savic_enable(void);
void savic_disable(void);
gpa_t savic_page_gpa(u32 apic_id);
enum ghcb_status savic_register_page(u64 apic_id, gpa_t gpa, u64 *error);
enum ghcb_status savic_unregister_page(u64 apic_id, gpa_t *gpa);

/* Guest side: any vCPU's backing page. */
u32 savic_read(u32 apic_id, u32 reg);
void savic_write(u32 apic_id, u32 reg, u32 val);
bool savic_test_vector(u32 apic_id, u32 reg, u8 vector);
void savic_set_vector(u32 apic_id, u32 reg, u8 vector);
void savic_clear_vector(u32 apic_id, u32 reg, u8 vector);

/* Guest side: the calling vCPU, unless an APIC ID is given. */
u32 savic_apic_id(void);
void savic_allow_vector(u8 vector);
void savic_wrmsr(u32 reg, u64 val);
void savic_send_ipi(u32 apic_id, u8 vector);
void savic_eoi(void);

/*
 * Guest side: a handler that counts, and ends, interrupts.  Waiting has no limit,
 * and interrupts have to be off, with one window for them at least.  If a vCPU waits
 * long then the host says what for, other loops may use savic_show_wait().
 */
void savic_irq_handler(struct ex_regs *regs);
u32 savic_nr_irqs(u32 apic_id, u8 vector);
void savic_wait_for_irqs(u8 vector, u32 nr);
void savic_show_wait(u32 apic_id, u8 vector, u32 seen, u32 wanted);
void savic_settle(void);

/*
 * Guest side: a handler that counts NMIs.  It makes no VMGEXIT, as it may interrupt one,
 * and the engine has to be on.
 */
void savic_nmi_handler(struct ex_regs *regs);
u32 savic_nr_nmis(u32 apic_id);

/* sev_vc_handler() and the exit codes of AVIC; what vm_savic_create() installs. */
void savic_vc_handler(struct ex_regs *regs);

#endif /* SELFTEST_KVM_SAVIC_H */
