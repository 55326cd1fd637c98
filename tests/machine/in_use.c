/*
 * Pages that VMRUN has in use: no software and no device writes to the VMCB, VMSA or
 * backing page of a vCPU that runs, unless Fn8000_001F EAX[30] says so (15.36.12)
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "edu.h"
#include "snp.h"

#define MSR_CONTROL		0xc0010138
#define EAX_IN_USE_WRITE	BIT(30)

#define SECRET			0x5ec4e75ec4e75ec4UL
/* In a VMCB: reserved, so that nothing comes of a write */
#define VMCB_RESERVED		0x3e0

static struct snp_vcpu snp;
static struct vcpu plain;
static u8 backing[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static struct vmcb es_vmcb;
#define PAGE __attribute__((aligned(PAGE_SIZE)))
static u64 es_vmsa[512] PAGE, npt_pml4[512] PAGE, npt_pdpt[512] PAGE, es_stack[512] PAGE;
static bool allowed;

/* ---- The guests ---------------------------------------------------------------- */

#define running		shared->result[0]
#define stop		shared->result[1]

static void g_wait(u64 savic)
{
	if (savic)
		wrmsr(MSR_CONTROL, (u64)backing | 1);
	running = 1;
	while (!stop)
		cpu_relax();
}

static void g_plain(void)
{
	g_wait(0);
	vmmcall(0);
}

/* Without private memory: SEV-ES, not SNP. Private and shared are the same. */
static void g_es(void)
{
	g_wait(0);
	vmgexit();
}

/* ---- CPU 1 ----------------------------------------------------------------------- */

void svm_vmrun(u64 vmcb, struct guest_regs *regs, u64 hsave);

static volatile u64 exit_code;

static void cpu_1_enable(void *arg)
{
	snp_start_cpu();
	flush_tlb();
}

static void cpu_1_snp(void *arg)
{
	exit_code = snp_call(&snp, g_wait, 1) ? EXIT_VMGEXIT : 0;
}

static void cpu_1_plain(void *arg)
{
	svm_set_up(&plain, g_plain);
	exit_code = svm_run(&plain);
}

static void cpu_1_es(void *arg)
{
	struct guest_regs regs;

	svm_vmrun((u64)&es_vmcb, &regs, rdmsr(MSR_VM_HSAVE_PA));
	exit_code = es_vmcb.exit_code;
}

/* ---- CPU 0 ----------------------------------------------------------------------- */

static void start(void (*fn)(void *))
{
	running = stop = 0;
	exit_code = 0;
	ap_run(fn, NULL);
	while (!running)
		cpu_relax();
}

static void end(u64 expected, const char *what)
{
	stop = 1;
	ap_wait();
	check_eq(exit_code, expected, what);
}

static void writes(volatile u64 *p, bool ours, const char *what)
{
	u64 v = 0;

	try_write((u64)p, SECRET);
	if (allowed && ours)
		check(ex_vector == NO_EXCEPTION && *p == SECRET, "write to the %s", what);
	else
		check(ex_vector == PF && ex_error == (PF_P | PF_W | PF_RMP) && ex_cr2 == (u64)p,
		      "write to the %s is #PF with P, W and RMP (vector %d, error code 0x%x)", what, (int)ex_vector, ex_error);
	check_eq(try_read((u64)p, &v), NO_EXCEPTION, "which can be read");
	try_write((u64)p, SECRET);
	check_eq(ex_vector, allowed && ours ? NO_EXCEPTION : PF, "and is so once more, with that translation cached");
	if (!ours)
		return;
	v = *p;
	edu_write(p, SECRET + 1, 1);
	check_eq(*p, allowed ? SECRET + 1 : v, "a device's write");
	check_eq(edu_read(p), *p, "a device's read");
}

static void test_vmcb(void (*fn)(void *), struct vmcb *vmcb, u64 exit, const char *whose)
{
	volatile u64 *p = (u64 *)((u64)vmcb + VMCB_RESERVED);

	/* What is cached when VMRUN starts */
	*p = 0;
	start(fn);
	writes(p, true, whose);
	check_eq(try_write((u64)vmcb - 8, 0), NO_EXCEPTION, "the page in front of it can be written");
	end(exit, "the guest runs to its end");
	check_eq(try_write((u64)p, 0), NO_EXCEPTION, "after which it can be written");
	edu_write(p, SECRET, 1);
	check_eq(*p, SECRET, "also by a device");
	*p = 0;
}

static void set_up_es(void)
{
	svm_set_control(&es_vmcb, 2);
	es_vmcb.nested_ctl = 7;
	es_vmcb.lbr_ctl = 1;
	for (u64 i = 0; i < 512; i++)
		npt_pdpt[i] = i << 30 | PDE_2M;
	npt_pml4[0] = (u64)npt_pdpt | PTE;
	es_vmcb.nested_cr3 = (u64)npt_pml4;
	es_vmcb.vmsa = (u64)es_vmsa;
	svm_set_state((struct vmcb *)((u64)es_vmsa - 0x400), (u64)g_es, (u64)&es_stack[511]);
	*vmsa_field((u64)es_vmsa, VMSA_XCR0) = 1;
	*(u32 *)((u64)es_vmsa + 0x408) = 0x1f80;
	*(u16 *)((u64)es_vmsa + 0x410) = 0x37f;
}

void test_main(void)
{
	u32 eax, ebx, ecx, edx;

	allowed = machine_has("x-in-use-write", "allowed", false);
	section("TEST in_use", "Preparation");
	if (!edu_init())
		return;
	iommu_enable(0, NULL);
	rmp_clear();
	own_pte((u64)backing);		/* Only 4K mappings may write next to a guest's page. */
	own_pte(IMAGE_COPY);
	own_pte(VMSAS);
	snp_set_up(&snp, 0);
	snp_start();
	ap_run(cpu_1_enable, NULL);
	ap_wait();

	section("APM2 15.36.12", "CPUID says whether pages that VMRUN has in use may be written.");
	cpuid(0x8000001f, 0, &eax, &ebx, &ecx, &edx);
	check_eq(!!(eax & EAX_IN_USE_WRITE), allowed, "Fn8000_001F EAX[30]");

	section("APM2 15.36.12", "From VMRUN to #VMEXIT a write to the VMCB is an RMP violation, unless CPUID allows it.");
	test_vmcb(cpu_1_snp, snp.vmcb, EXIT_VMGEXIT, "VMCB of an SNP guest");
	plain.vmcb = NULL;
	start(cpu_1_plain);
	end(EXIT_VMMCALL, "a guest without SEV");
	test_vmcb(cpu_1_plain, plain.vmcb, EXIT_VMMCALL, "VMCB of a guest without SEV");

	section("APM2 15.36.12", "The same goes for its VMSA and its backing page.");
	start(cpu_1_snp);
	writes((u64 *)(snp.vmsa + 0xf00), false, "VMSA of an SNP guest");
	writes((u64 *)((u64)backing - IMAGE + IMAGE_COPY), false, "backing page");
	end(EXIT_VMGEXIT, "the guest runs to its end");
	set_up_es();
	es_vmsa[500] = 0;
	start(cpu_1_es);
	writes(&es_vmsa[500], true, "VMSA of an SEV-ES guest");
	end(EXIT_VMGEXIT, "the guest runs to its end");
	check_eq(try_write((u64)&es_vmsa[500], 0), NO_EXCEPTION, "after which the VMSA can be written");
}
