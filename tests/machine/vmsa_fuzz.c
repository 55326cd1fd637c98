/*
 * VMRUN with arbitrary VMSAs (15.35.8): an SNP guest writes those of its vCPUs
 * itself, so whatever is in there must end in some exit, with the machine
 * alive and the host's state intact
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "snp.h"

#define TIMER			0x50

#define ROUNDS			30000
#define TIMER_TICKS		200000

void svm_vmrun(u64 vmcb, struct guest_regs *regs, u64 hsave);

#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u64 npt_pml4[512] PAGE, npt_pdpt[512] PAGE, npt_pd[512] PAGE;
static u8 template[PAGE_SIZE] PAGE, all_ones[4 * PAGE_SIZE] PAGE;
static u8 guest_stack[PAGE_SIZE] PAGE;

/* Field offsets that VMRUN looks at; more than once where more can go wrong */
static const u16 fields[] = {
	0x000, 0x008, 0x010, 0x010, 0x018, 0x020, 0x020, 0x028, 0x030, 0x038,
	0x040, 0x048, 0x050, 0x060, 0x068, 0x070, 0x078, 0x080, 0x080, 0x088,
	0x090, 0x090, 0x098, 0x0c8, 0x0c8, 0x0d0, 0x0d0, 0x0d0, 0x140, 0x148,
	0x148, 0x150, 0x150, 0x158, 0x158, 0x158, 0x160, 0x168, 0x170, 0x170,
	0x178, 0x180, 0x188, 0x1d8, 0x1f8, 0x220, 0x240, 0x268, 0x2e8, 0x308,
	0x320, 0x3b0, 0x3b8, 0x3d0, 0x3e0, 0x3e8, 0x3e8, 0x400, 0x408, 0x410,
	0x418, 0x470, 0x570,
};

static u64 seed = 0x9e3779b97f4a7c15;

static u64 random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void on_timer(struct regs *r)
{
	wrmsr(MSR_X2APIC_EOI, 0);
}

asm("fuzz_guest: rep; vmmcall; jmp fuzz_guest\n");
void fuzz_guest(void);

static void mutate(u8 *vmsa)
{
	u64 *field = (u64 *)(vmsa + fields[random() % ARRAY_SIZE(fields)]);

	switch (random() % 4) {
	case 0:
		*field = random();
		break;
	case 1:
		*field = random() & 0xffff;
		break;
	case 2:
		*field = 0;
		break;
	default:
		*field ^= BIT(random() % 64);
	}
}

static u64 run(struct snp_vcpu *v, u32 ticks)
{
	v->vmcb->event_inj = 0;
	v->vmcb->int_state = 0;
	v->vmcb->int_ctl = V_INTR_MASKING | V_GIF_ENABLE;
	wrmsr(MSR_X2APIC_TMICT, ticks);
	asm volatile("clgi; sti");
	svm_vmrun((u64)v->vmcb, &v->regs, rdmsr(MSR_VM_HSAVE_PA));
	asm volatile("cli");
	return v->vmcb->exit_code;
}

/* A plain VMSA's exit, but for what is left of the timer */
static u64 run_plain(struct snp_vcpu *v)
{
	u64 code = EXIT_INTR;

	for (int i = 0; i < 10 && code == EXIT_INTR; i++)
		code = run(v, 1000 * TIMER_TICKS);
	return code;
}

void test_main(void)
{
	struct snp_vcpu v;
	u64 exits[4] = { 0 }, star = 0x0023001000000000;
	bool ok = true;
	u32 a, b, c, d;

	cpuid(0x8000001f, 0, &a, &b, &c, &d);
	if (!check(a & BIT(3), "CPUID has SEV-ES"))
		return;

	/* SEV-ES only: the host can write its VMSA. */
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SVME);
	wrmsr(MSR_HWCR, rdmsr(MSR_HWCR) | 1);
	snp_set_up(&v, 0);
	wrmsr(MSR_VM_HSAVE_PA, VMSAS + 0x100000);
	npt_pml4[0] = (u64)npt_pdpt | 7;
	for (u64 i = 0; i < 512; i++) {
		npt_pdpt[i] = i << 30 | 0x87;
		npt_pd[i] = i << 21 | 0x87;
	}
	npt_pdpt[0] = (u64)npt_pd | 7;
	/* It may run into any function of the test, on memory of its own. */
	npt_pd[IMAGE >> 21] = IMAGE_COPY | 0x87;
	v.vmcb->nested_cr3 = (u64)npt_pml4;
	v.vmcb->allowed_sev_features = 0;
	*vmsa_field(v.vmsa, VMSA_SEV_FEATURES) = 0;
	*vmsa_field(v.vmsa, VMSA_VINTR_CTRL) = 0;
	/* No exception is handled, no MSR and no port are its own. */
	memset(all_ones, 0xff, sizeof(all_ones));
	v.vmcb->iopm = v.vmcb->msrpm = (u64)all_ones;
	svm_intercept(v.vmcb, EXIT_MSR, true);
	svm_intercept(v.vmcb, 0x7b, true);
	*vmsa_field(v.vmsa, 0x080) = 0;
	*vmsa_field(v.vmsa, 0x088) = 0;
	*vmsa_field(v.vmsa, 0x150) = READ_CR(3);
	*vmsa_field(v.vmsa, 0x178) = (u64)fuzz_guest;
	*vmsa_field(v.vmsa, 0x1d8) = (u64)guest_stack + PAGE_SIZE - 64;
	memcpy(template, (void *)v.vmsa, PAGE_SIZE);
	memcpy((void *)IMAGE_COPY, (void *)IMAGE, 1 << 21);

	/* So that no guest runs for ever */
	apic_id();
	set_handler(TIMER, on_timer);
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	wrmsr(MSR_X2APIC_TDCR, 0xb);
	wrmsr(MSR_X2APIC_LVTT, TIMER);
	wrmsr(0xc0000081, star);

	section("APM2 15.35.8", "VMRUN of any VMSA ends in an exit and leaves the host as it was.");
	check_eq(run_plain(&v), EXIT_VMGEXIT, "the plain VMSA");
	for (int i = 0; i < ROUNDS && ok; i++) {
		u64 code;

		memcpy((void *)v.vmsa, template, PAGE_SIZE);
		for (int n = random() % 4; n >= 0; n--)
			mutate((u8 *)v.vmsa);
		code = run(&v, TIMER_TICKS);
		exits[code == EXIT_VMGEXIT ? 0 : code == EXIT_INVALID ? 1 :
		      code == EXIT_SHUTDOWN ? 2 : 3]++;
		ok = rdmsr(0xc0000081) == star && READ_CR(0) & BIT(31) &&
		     rdmsr(MSR_EFER) & EFER_SVME;
	}
	check(ok, "the host's state after %d VMRUNs", ROUNDS);
	check(exits[0] && exits[1] && exits[2],
	      "%lu VMGEXIT, %lu invalid, %lu shutdown, %lu other exits",
	      exits[0], exits[1], exits[2], exits[3]);
	memcpy((void *)v.vmsa, template, PAGE_SIZE);
	check_eq(run_plain(&v), EXIT_VMGEXIT, "the plain VMSA once more");
}
