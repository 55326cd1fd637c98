// SPDX-License-Identifier: GPL-2.0-only
/*
 * Secure AVIC: vCPUs that the guest itself creates and destroys, each time with a
 * VMSA of its own, and so with an APIC that starts from nothing.  Nothing may be
 * left of the previous one, IPIs to a vCPU that isn't there go nowhere, and a bad
 * VMSA is the end of that vCPU's run, not of the host.
 */
#include <pthread.h>

#include "apic.h"
#include "ghcb.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "savic.h"
#include "sev.h"
#include "snp_ap.h"
#include "test_util.h"

/* In the same 64 bits of IRR. */
#define IPI_VECTOR		0x51
#define OTHER_VECTOR		0x61

#define STOP_VECTOR		0x22
#define FIRST_STORM_VECTOR	0x30

#define NR_ROUNDS		8
#define NR_RACES		300
#define NR_STORMS		4
#define NR_REGISTRATION_RACES	40

/* Enough for a vCPU to see that it is destroyed. */
#define DESTROY_USECS		500000

/* Only to end a test that hangs. */
#define TIMEOUT_SECS		120

/* Guest only. */
static u32 round_started;

/* The vCPU as KVM launched it, to be replaced while it is halted. */
static void guest_first_ap(void)
{
	savic_enable();
	WRITE_ONCE(round_started, 1);
	for (;;)
		safe_halt();
}

static void guest_ap(u64 round)
{
	/* A new VMSA has the engine off. */
	GUEST_ASSERT_EQ(rdmsr(MSR_AMD64_SAVIC_CONTROL), 0ul);
	/* The previous one may have been destroyed in its handler. */
	savic_clear_vector(1, APIC_ISR, IPI_VECTOR);
	savic_enable();
	WRITE_ONCE(round_started, round);

	while (round < NR_ROUNDS - 1)
		safe_halt();

	savic_wait_for_irqs(IPI_VECTOR, round);
	GUEST_DONE();
}

static void guest_creator(void)
{
	u32 round, nr = 0;

	savic_enable();
	for (round = 1; round < NR_ROUNDS; round++) {
		while (READ_ONCE(round_started) < round)
			cpu_relax();

		savic_send_ipi(1, IPI_VECTOR);
		nr++;
		while (savic_nr_irqs(1, IPI_VECTOR) < nr)
			cpu_relax();
		if (round == NR_ROUNDS - 1)
			break;

		GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);

		/* To nobody, but not an error. */
		savic_wrmsr(APIC_ICR, 1ull << 32 | IPI_VECTOR);
		savic_wrmsr(APIC_ICR, APIC_DEST_ALLBUT | IPI_VECTOR);
		savic_wrmsr(APIC_ICR, 1ull << 32 | APIC_DM_NMI);

		snp_vmsa_prepare(round, guest_ap, round + 1);
		GUEST_ASSERT_EQ(snp_ap_create(1, round), GHCB_OK);
	}
	GUEST_ASSERT_EQ(savic_nr_irqs(1, IPI_VECTOR), nr);
	GUEST_DONE();
}

/* Runs on a page that its creator has registered. */
static void guest_registered_ap(u64 unused)
{
	gpa_t gpa;

	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_OK);
	GUEST_ASSERT_EQ(gpa, savic_page_gpa(1));
	GUEST_DONE();
}

/* AP Destroy takes effect some time later, here after the page was registered. */
static void guest_registers_for_ap(void)
{
	savic_enable();
	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	GUEST_SYNC(1);

	snp_vmsa_prepare(0, guest_registered_ap, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_DONE();
}

/* AP Destroy gives the vCPU no next VMSA, so the registration isn't used up by it. */
static void guest_registers_before_destroying(void)
{
	savic_enable();
	snp_vmsa_prepare(0, guest_registered_ap, 0);

	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_DONE();
}

static void guest_ap_without_irq(u64 unused)
{
	savic_enable();
	savic_allow_vector(IPI_VECTOR);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, IPI_VECTOR), 0u);
	GUEST_ASSERT_EQ(savic_nr_nmis(1), 0u);
	GUEST_DONE();
}

/* The second VMSA of the two that its creator asks for. */
static void guest_ap_without_page(u64 unused)
{
	gpa_t gpa;

	GUEST_ASSERT_EQ(savic_unregister_page(SVM_VMGEXIT_SAVIC_SELF_GPA, &gpa), GHCB_MALFORMED);
	GUEST_DONE();
}

/* The page is for the first VMSA, even if that never runs. */
static void guest_registers_and_destroys(void)
{
	savic_enable();
	snp_vmsa_prepare(0, guest_registered_ap, 0);
	snp_vmsa_prepare(1, guest_ap_without_page, 0);

	GUEST_ASSERT_EQ(savic_register_page(1, savic_page_gpa(1), NULL), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_create(1, 1), GHCB_OK);
	GUEST_DONE();
}

/* What waits is taken, or dropped, by the first VMRUN that finds the engine on. */
static void guest_ap_with_irq(u64 unused)
{
	savic_set_vector(1, SAVIC_ALLOWED_IRR, IPI_VECTOR);
	savic_enable();
	savic_wait_for_irqs(IPI_VECTOR, 1);
	GUEST_DONE();
}

static void guest_creates_ap(void)
{
	savic_enable();
	snp_vmsa_prepare(0, guest_ap_with_irq, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_DONE();
}

/* The host sends one to the first of two, neither of which has run by then. */
static void guest_creates_two(void)
{
	savic_enable();
	snp_vmsa_prepare(0, guest_ap_without_irq, 0);
	snp_vmsa_prepare(1, guest_ap_without_irq, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_SYNC(0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 1), GHCB_OK);
	GUEST_DONE();
}

/* The vCPU as KVM launched it, which doesn't live long. */
static void guest_doomed_ap(void)
{
	savic_enable();
	WRITE_ONCE(round_started, 1);
	safe_halt();
	GUEST_FAIL("A destroyed vCPU runs");
}

static void guest_done(u64 unused)
{
	GUEST_DONE();
}

/* Guest only. */
static u32 nr_spins;

/*
 * These two may be interrupted at any instruction, and go on from there when they are created
 * again.  So no VMGEXITs: the GHCB may be another's by then.
 */
static void guest_spins(u64 unused)
{
	for (;;)
		WRITE_ONCE(nr_spins, nr_spins + 1);
}

static void guest_halts(u64 unused)
{
	for (;;)
		asm volatile("hlt");
}

/* They may wake it, but that's all.  Meanwhile it gets further, or not. */
static void send_ipis(u32 nr)
{
	while (nr--)
		savic_send_ipi(1, IPI_VECTOR);
}

/* Now and then it waits until the vCPU has got as far as the guest. */
static void guest_races_with_ap(void)
{
	u32 i, nr;

	savic_enable();
	snp_vmsa_prepare(0, guest_spins, 0);
	snp_vmsa_prepare(1, guest_halts, 0);
	snp_vmsa_prepare(2, guest_done, 0);
	for (i = 0; i < NR_RACES; i++) {
		GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
		nr = READ_ONCE(nr_spins);
		while (i % 8 == 0 && READ_ONCE(nr_spins) == nr)
			cpu_relax();
		send_ipis(i % 3);
		GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
		send_ipis(i % 5);
		GUEST_ASSERT_EQ(snp_ap_create(1, 1), GHCB_OK);
		send_ipis(i % 7);
		if (i % 2)
			GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	}
	GUEST_ASSERT_EQ(snp_ap_create(1, 2), GHCB_OK);
	GUEST_DONE();
}

static void guest_destroys_ap(void)
{
	savic_enable();
	snp_vmsa_prepare(0, guest_done, 0);
	snp_vmsa_prepare(1, guest_done, 0);
	while (!READ_ONCE(round_started))
		cpu_relax();

	/* The vCPU as launched, and then one without ever having run. */
	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_SYNC(1);
	savic_send_ipi(1, IPI_VECTOR);
	GUEST_SYNC(2);

	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
	GUEST_SYNC(3);

	GUEST_ASSERT_EQ(snp_ap_create(1, 1), GHCB_OK);
	GUEST_DONE();
}

static void guest_bad_requests(void)
{
	u64 features = snp_sev_features();
	gpa_t gpa = snp_vmsa_gpa(0);

	savic_enable();
	snp_vmsa_prepare(0, guest_ap, 0);

	GUEST_ASSERT_NE(snp_ap_request(SVM_VMGEXIT_AP_CREATE, 7, gpa, features), GHCB_OK);
	GUEST_ASSERT_NE(snp_ap_request(SVM_VMGEXIT_AP_CREATE, -1u, gpa, features), GHCB_OK);
	GUEST_ASSERT_NE(snp_ap_request(SVM_VMGEXIT_AP_CREATE, 1, gpa + 8, features), GHCB_OK);
	GUEST_ASSERT_NE(snp_ap_request(7, 1, gpa, features), GHCB_OK);
	GUEST_ASSERT_NE(snp_ap_request(SVM_VMGEXIT_AP_CREATE, 1, gpa,
				       features & ~SVM_SEV_FEAT_SECURE_AVIC), GHCB_OK);

	/* Not there, and never was. */
	savic_wrmsr(APIC_ICR, 7ull << 32 | IPI_VECTOR);

	wrmsr(X2APIC_MSR(APIC_SELF_IPI), IPI_VECTOR);
	sti_nop_cli();
	GUEST_ASSERT_EQ(savic_nr_irqs(0, IPI_VECTOR), 1u);
	GUEST_DONE();
}

static void guest_ap_with_irqs(u64 unused)
{
	savic_set_vector(1, SAVIC_ALLOWED_IRR, IPI_VECTOR);
	savic_set_vector(1, SAVIC_ALLOWED_IRR, OTHER_VECTOR);
	savic_enable();
	savic_wait_for_irqs(IPI_VECTOR, 1);
	savic_wait_for_irqs(OTHER_VECTOR, 1);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, IPI_VECTOR), 1u);
	GUEST_ASSERT_EQ(savic_nr_irqs(1, OTHER_VECTOR), 1u);
	GUEST_DONE();
}

/* Hardware refuses a VMSA that isn't sealed.  There is nothing else wrong with it. */
static void guest_seals_later(void)
{
	savic_enable();
	snp_vmsa_init(0, guest_ap_with_irqs, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_SYNC(1);
	snp_vmsa_seal(0);
	GUEST_DONE();
}

/* What VMRUN refuses. */
static void guest_bad_vmsa(u64 which)
{
	snp_vmsa_init(0, guest_ap, 0);
	switch (which) {
	case 0:
		/* Not sealed. */
		break;
	case 1:
		/* The engine on, with reserved bits. */
		snp_vmsa_write(0, VMSA_SAVIC_CTL, savic_page_gpa(1) | BIT_ULL(52) |
						  MSR_AMD64_SAVIC_EN);
		break;
	case 2:
		/* No such physical address. */
		snp_vmsa_write(0, VMSA_SAVIC_CTL, BIT_ULL(51) | MSR_AMD64_SAVIC_EN);
		break;
	case 3:
		/* Features that the VM doesn't have: vTOM. */
		snp_vmsa_write(0, VMSA_SEV_FEATURES, snp_sev_features() | BIT_ULL(1));
		break;
	}
	if (which)
		snp_vmsa_seal(0);
	GUEST_ASSERT_EQ(snp_ap_create(1, 0), GHCB_OK);
	GUEST_DONE();
}

/*
 * Whose the registered page is, for every request for another VMSA, every order of request
 * and registration, and every state of the vCPU.
 */
enum request { REQ_NONE, REQ_CREATE, REQ_CREATE_ON_INIT, REQ_DESTROY };
enum vcpu_state { STATE_SPINS, STATE_RUNS, STATE_HALTS };
enum registrar {
	BY_NOBODY,
	BY_ITSELF,
	BY_ITSELF_AFTER_REQUEST,
	BY_ANOTHER,
	BY_ANOTHER_AFTER_REQUEST,
	BY_ITSELF_THEN_ANOTHER,
	BY_ANOTHER_THEN_ITSELF,
	NR_REGISTRARS,
};

/* Guest only.  Cells are counted from 1, there is a VMSA for each. */
static enum vcpu_state cell_state;
static enum request cell_request;
static u32 cell_ready, cell_order, cell_obeyed, cell_report;
static gpa_t cell_inherited;

/* The vCPU's GHCB, for all VMSAs but the first. */
static u64 ap_ghcb;

static void keep_ghcb(void)
{
	if (ap_ghcb)
		wrmsr(MSR_AMD64_SEV_ES_GHCB, ap_ghcb);
	else
		x2apic_enable();
	ap_ghcb = rdmsr(MSR_AMD64_SEV_ES_GHCB);
}

static gpa_t take_page(u64 apic_id)
{
	gpa_t gpa;

	return savic_unregister_page(apic_id, &gpa) == GHCB_OK ? gpa : 0;
}

static void register_page(u64 apic_id)
{
	GUEST_ASSERT_EQ(savic_register_page(apic_id, savic_page_gpa(1), NULL), GHCB_OK);
}

/* Can the vCPU be told to do something after the request? */
static bool survives_request(void)
{
	return cell_request == REQ_NONE || cell_request == REQ_CREATE_ON_INIT;
}

/* On a new VMSA: whose page is it?  Then get into the state of the next cell. */
static void guest_cell_ap(u64 cell)
{
	enum registrar by = cell - 1;

	keep_ghcb();
	/* The other vCPU may register a page for this VMSA, however late. */
	while (READ_ONCE(cell_report) != cell)
		cpu_relax();
	WRITE_ONCE(cell_inherited, take_page(SVM_VMGEXIT_SAVIC_SELF_GPA));

	if (by == BY_ITSELF || by == BY_ITSELF_THEN_ANOTHER)
		register_page(SVM_VMGEXIT_SAVIC_SELF_GPA);
	WRITE_ONCE(cell_ready, cell);

	for (;;) {
		if (READ_ONCE(cell_order) == cell && READ_ONCE(cell_obeyed) != cell) {
			register_page(SVM_VMGEXIT_SAVIC_SELF_GPA);
			WRITE_ONCE(cell_obeyed, cell);
		}

		/* Before, after, or while the request is handled. */
		if (by == BY_ITSELF_AFTER_REQUEST && !survives_request())
			register_page(SVM_VMGEXIT_SAVIC_SELF_GPA);
		else if (cell_state == STATE_HALTS)
			safe_halt();
		else if (cell_state == STATE_RUNS)
			sti_nop();
	}
}

static void send_to_ap(u32 mode)
{
	savic_wrmsr(APIC_ICR, 1ull << 32 | APIC_INT_ASSERT | mode);
}

static void order_registration(u32 cell)
{
	WRITE_ONCE(cell_order, cell);
	/* With the engine off the IPI isn't delivered, but it ends a HLT that came before it. */
	while (READ_ONCE(cell_obeyed) != cell)
		send_to_ap(APIC_DM_FIXED | IPI_VECTOR);
}

static void request_next_vmsa(enum request request, u32 cell)
{
	u32 i = cell % NR_ROUNDS;

	if (request == REQ_DESTROY) {
		GUEST_ASSERT_EQ(snp_ap_destroy(1), GHCB_OK);
		return;
	}

	if (request == REQ_NONE)
		return;

	snp_vmsa_prepare(i, guest_cell_ap, cell);
	GUEST_ASSERT_EQ(snp_ap_request(request == REQ_CREATE ? SVM_VMGEXIT_AP_CREATE :
				       SVM_VMGEXIT_AP_CREATE_ON_INIT, 1, snp_vmsa_gpa(i),
				       snp_sev_features()), GHCB_OK);
}

/* The vCPU returns to userspace for good. */
static void end_ap(u32 i)
{
	snp_vmsa_prepare(i, guest_done, 0);
	GUEST_ASSERT_EQ(snp_ap_create(1, i), GHCB_OK);
}

static void guest_walk_cells(void)
{
	enum registrar by;
	bool kept;
	u32 cell;
	gpa_t gpa;

	x2apic_enable();
	request_next_vmsa(REQ_CREATE, 1);
	WRITE_ONCE(cell_report, 1);

	for (cell = 1; cell <= NR_REGISTRARS; cell++) {
		by = cell - 1;
		while (READ_ONCE(cell_ready) != cell)
			cpu_relax();

		if (by == BY_ANOTHER || by == BY_ITSELF_THEN_ANOTHER ||
		    by == BY_ANOTHER_THEN_ITSELF)
			register_page(1);
		if (by == BY_ANOTHER_THEN_ITSELF)
			order_registration(cell);

		request_next_vmsa(cell_request, cell + 1);

		if (by == BY_ITSELF_AFTER_REQUEST && survives_request())
			order_registration(cell);
		if (by == BY_ANOTHER_AFTER_REQUEST)
			register_page(1);

		kept = by == BY_ANOTHER || by == BY_ANOTHER_AFTER_REQUEST ||
		       by == BY_ITSELF_THEN_ANOTHER;

		switch (cell_request) {
		case REQ_NONE:
			gpa = take_page(1);
			__GUEST_ASSERT(!gpa == (by == BY_NOBODY),
				       "Registration %u: page %#lx without another VMSA", by, gpa);
			kept = false;
			request_next_vmsa(REQ_CREATE, cell + 1);
			break;
		case REQ_DESTROY:
			request_next_vmsa(REQ_DESTROY, 0);
			request_next_vmsa(REQ_CREATE, cell + 1);
			break;
		case REQ_CREATE_ON_INIT:
			send_to_ap(APIC_DM_INIT);
			send_to_ap(APIC_DM_STARTUP);
			break;
		default:
			break;
		}

		WRITE_ONCE(cell_report, cell + 1);
		while (READ_ONCE(cell_ready) != cell + 1)
			cpu_relax();
		gpa = READ_ONCE(cell_inherited);
		__GUEST_ASSERT(gpa == (kept ? savic_page_gpa(1) : 0),
			       "Registration %u: the new VMSA has page %#lx", by, gpa);
	}
	end_ap(1);
	GUEST_DONE();
}

/* Each new VMSA comes while the old one registers a page for itself. */
static u32 race_ready;

static void guest_racing_ap(u64 round)
{
	keep_ghcb();
	GUEST_ASSERT_EQ(take_page(SVM_VMGEXIT_SAVIC_SELF_GPA), 0ul);
	WRITE_ONCE(race_ready, round);
	for (;;)
		register_page(SVM_VMGEXIT_SAVIC_SELF_GPA);
}

static void guest_races_with_registration(void)
{
	u32 round;

	for (round = 1; round <= NR_REGISTRATION_RACES; round++) {
		snp_vmsa_prepare(round % 2, guest_racing_ap, round);
		GUEST_ASSERT_EQ(snp_ap_create(1, round % 2), GHCB_OK);
		while (READ_ONCE(race_ready) != round)
			cpu_relax();
	}
	end_ap(2);
	GUEST_DONE();
}

static void create_on_init(void (*entry)(u64))
{
	snp_vmsa_prepare(0, entry, 0);
	GUEST_ASSERT_EQ(snp_ap_request(SVM_VMGEXIT_AP_CREATE_ON_INIT, 1, snp_vmsa_gpa(0),
				       snp_sev_features()), GHCB_OK);
}

/* Until there is an INIT, a VMSA gets all that is sent before and after the request. */
static void guest_before_init(void)
{
	savic_enable();
	savic_allow_vector(IPI_VECTOR);
	savic_allow_vector(OTHER_VECTOR);
	GUEST_SYNC(0);
	savic_settle();
	GUEST_ASSERT_EQ(savic_nr_irqs(1, IPI_VECTOR), 1u);
	GUEST_ASSERT_EQ(savic_nr_irqs(1, OTHER_VECTOR), 1u);
	GUEST_ASSERT_EQ(savic_nr_nmis(1), 1u);
	GUEST_DONE();
}

static void guest_waits_for_init(void)
{
	savic_enable();
	GUEST_SYNC(0);
	GUEST_FAIL("The old VMSA runs after INIT");
}

static void guest_asks_on_init(void)
{
	create_on_init(guest_ap_without_irq);
	GUEST_DONE();
}

static void guest_asks_on_init_without_page(void)
{
	create_on_init(guest_done);
	GUEST_DONE();
}

static void guest_asks_on_init_with_irq(void)
{
	create_on_init(guest_ap_with_irq);
	GUEST_DONE();
}

/* One MSI of each vector comes while the other vCPU asks all the time. */
static bool storm_over;

static void guest_storm_target(void)
{
	u32 vector, round;

	savic_enable();
	for (vector = FIRST_STORM_VECTOR; vector < 256; vector++)
		savic_allow_vector(vector);

	for (round = 1; round <= NR_STORMS; round++) {
		GUEST_SYNC(round);
		while (!READ_ONCE(storm_over))
			savic_settle();
		savic_settle();
		for (vector = FIRST_STORM_VECTOR; vector < 256; vector++)
			__GUEST_ASSERT(savic_nr_irqs(1, vector) == round,
				       "Vector %#x: %u of %u interrupts", vector,
				       savic_nr_irqs(1, vector), round);
		WRITE_ONCE(storm_over, false);
	}
	GUEST_DONE();
}

static void guest_storm_creator(void)
{
	u32 round;

	savic_enable();
	savic_allow_vector(STOP_VECTOR);
	for (round = 1; round <= NR_STORMS; round++) {
		GUEST_SYNC(round);
		while (savic_nr_irqs(0, STOP_VECTOR) < round) {
			create_on_init(guest_done);
			sti_nop_cli();
		}
		WRITE_ONCE(storm_over, true);
	}
	GUEST_DONE();
}

FIXTURE(savic_ap) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
};

FIXTURE_SETUP(savic_ap)
{
	self->vm = vm_savic_create(2, guest_first_ap, self->vcpus);
	vm_install_exception_handler(self->vm, IPI_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, OTHER_VECTOR, savic_irq_handler);
	vm_install_exception_handler(self->vm, NMI_VECTOR, savic_nmi_handler);
	snp_alloc_vmsas(self->vm, NR_ROUNDS);
}

FIXTURE_TEARDOWN(savic_ap)
{
	kvm_vm_free(self->vm);
}

TEST_F_TIMEOUT(savic_ap, create_and_destroy, TIMEOUT_SECS)
{
	pthread_t thread;

	savic_launch(self->vcpus[0], guest_creator, 0);
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_ap, register_for_ap, TIMEOUT_SECS)
{
	pthread_t thread;

	savic_launch(self->vcpus[0], guest_registers_for_ap, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[0]));
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	usleep(DESTROY_USECS);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_ap, registered_before_destruction, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_registers_before_destroying, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

TEST_F_TIMEOUT(savic_ap, registered_and_destroyed, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_registers_and_destroys, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* KVM has the vCPU's new VMSA by then, but the vCPU hasn't. */
TEST_F_TIMEOUT(savic_ap, irq_before_first_run, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_creates_ap, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* Neither the vector nor the NMI is for the new VMSA. */
TEST_F_TIMEOUT(savic_ap, irq_before_destruction, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_creates_two, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	savic_send_msi(self->vm, 1, APIC_DM_NMI);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* Neither an NMI nor an IPI starts it. */
TEST_F_TIMEOUT(savic_ap, destroyed_stays_so, TIMEOUT_SECS)
{
	pthread_t thread;
	int i;

	vcpu_arch_set_entry_point(self->vcpus[1], guest_doomed_ap);
	savic_launch(self->vcpus[0], guest_destroys_ap, 0);
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(savic_vcpu_run(self->vcpus[0]));
		usleep(DESTROY_USECS);
		savic_send_msi(self->vm, 1, APIC_DM_NMI);
		usleep(DESTROY_USECS);
	}
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_ap, registration_races, TIMEOUT_SECS)
{
	pthread_t thread;

	vcpu_arch_set_entry_point(self->vcpus[1], guest_spins);
	savic_launch(self->vcpus[0], guest_races_with_registration, 0);
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

static void send_init_sipi(struct kvm_vm *vm)
{
	savic_send_msi(vm, 1, APIC_INT_ASSERT | APIC_DM_INIT);
	savic_send_msi(vm, 1, APIC_INT_ASSERT | APIC_DM_STARTUP);
}

/* One interrupt before the request, and one between the request and the INIT that never comes. */
TEST_F_TIMEOUT(savic_ap, irqs_without_init, TIMEOUT_SECS)
{
	vcpu_arch_set_entry_point(self->vcpus[1], guest_before_init);
	savic_launch(self->vcpus[0], guest_asks_on_init, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[1]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	savic_send_msi(self->vm, 1, APIC_DM_NMI);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, OTHER_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* What the old VMSA didn't take before the INIT isn't for the new one. */
TEST_F_TIMEOUT(savic_ap, irqs_before_init, TIMEOUT_SECS)
{
	vcpu_arch_set_entry_point(self->vcpus[1], guest_waits_for_init);
	savic_launch(self->vcpus[0], guest_asks_on_init, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[1]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	savic_send_msi(self->vm, 1, APIC_DM_NMI);
	send_init_sipi(self->vm);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* KVM_GET_MP_STATE has the vCPU take the INIT, the SIPI comes later. */
TEST_F_TIMEOUT(savic_ap, irq_after_init, TIMEOUT_SECS)
{
	struct kvm_mp_state state;

	vcpu_arch_set_entry_point(self->vcpus[1], guest_waits_for_init);
	savic_launch(self->vcpus[0], guest_asks_on_init_with_irq, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[1]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, APIC_INT_ASSERT | APIC_DM_INIT);
	vcpu_mp_state_get(self->vcpus[1], &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	savic_send_msi(self->vm, 1, APIC_INT_ASSERT | APIC_DM_STARTUP);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

/* The old VMSA's page may be gone by the time of the INIT, which comes first. */
TEST_F_TIMEOUT(savic_ap, page_gone_before_init, TIMEOUT_SECS)
{
	gva_t pages = vm_alloc_pages(self->vm, 2);
	gpa_t gpa = addr_gva2gpa(self->vm, pages + PAGE_SIZE);

	savic_set_pages(self->vm, pages, 2);
	vcpu_arch_set_entry_point(self->vcpus[1], guest_waits_for_init);
	savic_launch(self->vcpus[0], guest_asks_on_init_without_page, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[1]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	send_init_sipi(self->vm);
	vm_mem_set_shared(self->vm, gpa, PAGE_SIZE);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

static void *run_once(void *vcpu)
{
	savic_vcpu_run(vcpu);
	return NULL;
}

/* The MSIs come at different times of what the other vCPU does. */
static void send_storm(struct kvm_vm *vm, struct kvm_vcpu *creator)
{
	u64 exits = 0;
	u32 vector;

	for (vector = FIRST_STORM_VECTOR; vector < 256; vector++) {
		while (vcpu_get_stat(creator, exits) == exits)
			sched_yield();
		exits = vcpu_get_stat(creator, exits);
		savic_send_msi(vm, 1, vector);
	}
}

/* No interrupt is lost to requests that are never followed by an INIT. */
TEST_F_TIMEOUT(savic_ap, irqs_and_requests_on_init, TIMEOUT_SECS)
{
	pthread_t threads[2];
	u32 round, vector, i;

	for (vector = FIRST_STORM_VECTOR; vector < 256; vector++)
		vm_install_exception_handler(self->vm, vector, savic_irq_handler);
	vm_install_exception_handler(self->vm, STOP_VECTOR, savic_irq_handler);
	vcpu_arch_set_entry_point(self->vcpus[1], guest_storm_target);
	savic_launch(self->vcpus[0], guest_storm_creator, 0);
	for (i = 0; i < 2; i++)
		EXPECT_TRUE(savic_vcpu_run(self->vcpus[i]));

	for (round = 1; round <= NR_STORMS; round++) {
		for (i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, run_once, self->vcpus[i]);
		send_storm(self->vm, self->vcpus[0]);
		savic_send_msi(self->vm, 0, STOP_VECTOR);
		for (i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
	}
}

/* Whatever the vCPU runs on, it's a VMSA, and in the end it's the last one that was asked for. */
TEST_F_TIMEOUT(savic_ap, races, TIMEOUT_SECS)
{
	pthread_t thread;

	vcpu_arch_set_entry_point(self->vcpus[1], guest_spins);
	savic_launch(self->vcpus[0], guest_races_with_ap, 0);
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

TEST_F_TIMEOUT(savic_ap, bad_requests, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_bad_requests, 0);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
}

/* One VM each: guests can't take an unusable VMSA back. */
static void test_bad_vmsa(struct kvm_vcpu *vcpus[], u64 which)
{
	vcpu_args_set(vcpus[0], 1, which);
	savic_launch(vcpus[0], guest_bad_vmsa, 0);
	TEST_ASSERT(!savic_vcpu_run(vcpus[0]), "Unexpected GUEST_SYNC()");

	vcpu_run(vcpus[1]);
	TEST_ASSERT_KVM_EXIT_REASON(vcpus[1], KVM_EXIT_FAIL_ENTRY);
}

TEST_F_TIMEOUT(savic_ap, vmsa_not_sealed, TIMEOUT_SECS)
{
	test_bad_vmsa(self->vcpus, 0);
}

/* What was posted before VMRUNs that fail is delivered by the one that doesn't. */
TEST_F_TIMEOUT(savic_ap, irq_and_failed_vmrun, TIMEOUT_SECS)
{
	savic_launch(self->vcpus[0], guest_seals_later, 0);
	EXPECT_TRUE(savic_vcpu_run(self->vcpus[0]));
	savic_send_msi(self->vm, 1, IPI_VECTOR);
	vcpu_run(self->vcpus[1]);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpus[1], KVM_EXIT_FAIL_ENTRY);
	savic_send_msi(self->vm, 1, OTHER_VECTOR);
	vcpu_run(self->vcpus[1]);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpus[1], KVM_EXIT_FAIL_ENTRY);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[1]));
}

TEST_F_TIMEOUT(savic_ap, vmsa_control_reserved, TIMEOUT_SECS)
{
	test_bad_vmsa(self->vcpus, 1);
}

TEST_F_TIMEOUT(savic_ap, vmsa_control_address, TIMEOUT_SECS)
{
	test_bad_vmsa(self->vcpus, 2);
}

TEST_F_TIMEOUT(savic_ap, vmsa_features, TIMEOUT_SECS)
{
	test_bad_vmsa(self->vcpus, 3);
}

FIXTURE(savic_registration) {
	struct kvm_vm *vm;
	struct kvm_vcpu *vcpus[2];
};

FIXTURE_VARIANT(savic_registration) {
	enum request request;
	enum vcpu_state state;
};

#define REGISTRATION_VARIANT(_name, _request, _state)			\
FIXTURE_VARIANT_ADD(savic_registration, _name) {			\
	.request = _request,						\
	.state = _state,						\
}

REGISTRATION_VARIANT(none_spins, REQ_NONE, STATE_SPINS);
REGISTRATION_VARIANT(none_runs, REQ_NONE, STATE_RUNS);
REGISTRATION_VARIANT(none_halts, REQ_NONE, STATE_HALTS);
REGISTRATION_VARIANT(create_spins, REQ_CREATE, STATE_SPINS);
REGISTRATION_VARIANT(create_runs, REQ_CREATE, STATE_RUNS);
REGISTRATION_VARIANT(create_halts, REQ_CREATE, STATE_HALTS);
REGISTRATION_VARIANT(create_on_init_spins, REQ_CREATE_ON_INIT, STATE_SPINS);
REGISTRATION_VARIANT(create_on_init_runs, REQ_CREATE_ON_INIT, STATE_RUNS);
REGISTRATION_VARIANT(create_on_init_halts, REQ_CREATE_ON_INIT, STATE_HALTS);
REGISTRATION_VARIANT(destroy_spins, REQ_DESTROY, STATE_SPINS);
REGISTRATION_VARIANT(destroy_runs, REQ_DESTROY, STATE_RUNS);
REGISTRATION_VARIANT(destroy_halts, REQ_DESTROY, STATE_HALTS);

FIXTURE_SETUP(savic_registration)
{
	self->vm = vm_savic_create(2, guest_spins, self->vcpus);
	snp_alloc_vmsas(self->vm, NR_ROUNDS);
	write_guest_global(self->vm, cell_state, variant->state);
	write_guest_global(self->vm, cell_request, variant->request);
}

FIXTURE_TEARDOWN(savic_registration)
{
	kvm_vm_free(self->vm);
}

TEST_F_TIMEOUT(savic_registration, cells, TIMEOUT_SECS)
{
	pthread_t thread;

	savic_launch(self->vcpus[0], guest_walk_cells, 0);
	pthread_create(&thread, NULL, savic_vcpu_thread, self->vcpus[1]);
	EXPECT_FALSE(savic_vcpu_run(self->vcpus[0]));
	pthread_join(thread, NULL);
}

SAVIC_TEST_HARNESS_MAIN
