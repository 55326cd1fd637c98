/*
 * No access by a translation that has gone (15.16, 15.36.10): a random sequence of
 * changes to RMP entries, C-bits, the nested page table, the guest's tables and the
 * host's, each followed by what the manual asks for; after each, host and guest
 * read, write and execute on both CPUs, a device reads and writes, and a model says
 * what has to happen.
 *
 * The sequence is the same in each run. One thing happens at a time, so that there is
 * one right answer: rmp_smp.c is about changes that come in the middle of something.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "edu.h"
#include "snp.h"

/* Changes; there are 48 accesses for each, and one more by the device for some: it takes 0.2 s. */
#ifndef ROUNDS
#define ROUNDS		4000
#endif

/* System physical addresses; each its own 2M, and PAGES where the device's 28 bits reach */
#define PAGES		0x0e000000UL
#define LARGE		0x24000000UL	/* also guest physical and virtual, and the host's virtual */
/* Guest physical and virtual, and the host's virtual */
#define GPAS		0x26000000UL
#define GUEST_VAS	0x28000000UL
#define HOST_VAS	0x2a000000UL

#define NR		8		/* pages, and guest physical pages */
#define VAS		12		/* of either kind: some pages are mapped more than once */
#define LARGE_PAGES	2		/* of the 2M, that are accessed */
#define LARGE_PAGE(i)	(LARGE + ((i) ? 0x155000UL : 0))
#define BATCH		16

#define CR0_WP		BIT(16)
#define WRITABLE	BIT(1)
#define DATA		64		/* in a page: a number; at its beginning code */
#define VMSA_RIP	0x178
#define LARGE_INDEX	VAS
#define IPI		0x50

enum { READ, WRITE, EXECUTE };
enum outcome { DONE, SCRAMBLED, PAGE_FAULT, NESTED_FAULT, NOT_VALIDATED, DROPPED, NR_OUTCOMES };

static struct batch {
	u32 n, next;
	struct access {
		u64 va, value;		/* value: to write, or what has been read */
		u32 type, vector, error;
	} access[BATCH];
} *const batch = (void *)(SHARED + 0x10000);

static struct snp_vcpu vcpu[2];
static bool flush_pending[2];		/* by CPU */
static u64 nested_fault[BATCH];		/* EXITINFO1 */

/* ---- The model --------------------------------------------------------------- */

static struct page {
	u64 data;
	bool assigned, validated;
	int gpa;
} pages[NR], large[LARGE_PAGES];

static int npt[NR];			/* page, or -1 */
static struct guest_pte {
	int gpa;
	bool c, w;
} guest_ptes[VAS];
static struct host_pte {
	int page;
	bool w;
} host_ptes[VAS];
static bool large_smashed;

static u64 page_tag(u64 spa)
{
	return spa >> 12;
}

static struct page *host_page(int i, bool *w)
{
	*w = i >= LARGE_INDEX || host_ptes[i].w;
	return i >= LARGE_INDEX ? &large[i - LARGE_INDEX] : &pages[host_ptes[i].page];
}

static enum outcome host_outcome(int i, int type, struct page **page, u64 *error)
{
	bool w;

	*page = host_page(i, &w);
	*error = PF_P | PF_W;
	if (type == WRITE && !w)
		return PAGE_FAULT;
	if (!(*page)->assigned)
		return DONE;
	*error |= PF_RMP;
	return type == WRITE ? PAGE_FAULT : SCRAMBLED;
}

static enum outcome guest_outcome(int i, int type, struct page **page, u64 *error)
{
	struct guest_pte *pte = &guest_ptes[i];
	bool size_ok = true, gpa_ok;

	*error = PF_P | PF_W;
	if (i >= LARGE_INDEX) {
		*page = &large[i - LARGE_INDEX];
		gpa_ok = true;
		size_ok = !large_smashed;
	} else {
		if (type == WRITE && !pte->w)
			return PAGE_FAULT;
		*error = 0;
		if (npt[pte->gpa] < 0)
			return NESTED_FAULT;
		*page = &pages[npt[pte->gpa]];
		gpa_ok = (*page)->gpa == pte->gpa;
	}
	*error = NPF_RMP;
	if (i >= LARGE_INDEX || pte->c || type == EXECUTE) {
		if (!(*page)->assigned || !gpa_ok || !size_ok)
			return NESTED_FAULT;
		return (*page)->validated ? DONE : NOT_VALIDATED;
	}
	if (!(*page)->assigned)
		return DONE;
	return type == WRITE ? NESTED_FAULT : SCRAMBLED;
}

/* ---- Accesses ------------------------------------------------------------------ */

static volatile u64 fetched;
u64 stale_read(u64 va);
void stale_write(u64 va, u64 value);
void stale_skip(void);
asm("stale_read:	" EX("movq (%rdi), %rax") "ret\n"
    "stale_write:	" EX("movq %rsi, (%rdi)")
    "stale_skip:	ret\n");

/* On the host or in the guest */
static void do_batch(u64 unused)
{
	for (; batch->next < batch->n; batch->next++) {
		struct access *a = &batch->access[batch->next];

		EX_BEGIN();
		ex_error = 0;
		fetched = 0;
		if (a->type == READ) {
			a->value = stale_read(a->va + DATA);
		} else if (a->type == WRITE) {
			stale_write(a->va + DATA, a->value);
		} else {
			try_fetch(a->va);
			a->value = fetched;
		}
		a->vector = ex_vector;
		a->error = ex_error;
	}
}

/* Where VMSA @vmsa stopped, something else goes on: behind its access. */
static void g_skip(u64 vmsa)
{
	*vmsa_field(vmsa, VMSA_RIP) = (u64)stale_skip;
}

/* CPU 1 waits in HLT, and so does CPU 0 for it: two that spin share a processor badly. */
static void (*volatile host_fn)(u64);
static u64 host_arg;

static void on_ipi(struct regs *r)
{
	wrmsr(MSR_X2APIC_EOI, 0);
}

static void other_cpu_looks(void)
{
	wrmsr(MSR_X2APIC_ICR, (u64)(apic_id() ^ 1) << 32 | IPI);
}

static void wait_while(bool busy)
{
	while (!!host_fn == busy)
		asm volatile("sti; hlt; cli" : : : "memory");
}

static void cpu_1_serves(void *unused)
{
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	for (;;) {
		wait_while(false);
		host_fn(host_arg);
		host_fn = NULL;
		other_cpu_looks();
	}
}

static void on_cpu(int cpu, void (*fn)(u64), u64 arg)
{
	if (!cpu) {
		fn(arg);
		return;
	}
	host_arg = arg;
	host_fn = fn;
	other_cpu_looks();
	wait_while(true);
}

static struct {
	int vcpu;
	void (*fn)(u64);
	u64 arg;
	bool done;
} guest;

static void run_guest(u64 cpu)
{
	struct snp_vcpu *v = &vcpu[guest.vcpu];

	v->vmcb->tlb_ctl = flush_pending[cpu] ? 3 : 0;
	flush_pending[cpu] = false;
	guest.done = guest.fn ? snp_call(v, guest.fn, guest.arg) : snp_run(v) == EXIT_VMGEXIT;
}

static bool guest_call(int index, int cpu, void (*fn)(u64), u64 arg)
{
	guest.vcpu = index;
	guest.fn = fn;
	guest.arg = arg;
	on_cpu(cpu, run_guest, cpu);
	return guest.done;
}

static void guest_does(int index, int cpu, void (*fn)(u64), u64 arg)
{
	if (!guest_call(index, cpu, fn, arg)) {
		check(false, "vCPU %d: exit %lx %lx %lx", index, vcpu[index].vmcb->exit_code,
		      vcpu[index].vmcb->exit_info_1, vcpu[index].vmcb->exit_info_2);
		test_done();
	}
}

static void guest_batch(int index, int cpu)
{
	bool done = guest_call(index, cpu, do_batch, 0);

	while (!done) {
		if (vcpu[index].vmcb->exit_code != EXIT_NPF) {
			check(false, "vCPU %d: exit %lx", index, vcpu[index].vmcb->exit_code);
			test_done();
		}
		nested_fault[batch->next] = vcpu[index].vmcb->exit_info_1;
		/* The other vCPU, as the VMSA is the guest's. */
		guest_does(!index, !index, g_skip, vcpu[index].vmsa);
		done = guest_call(index, cpu, NULL, 0);
	}
}

/* ---- Random numbers, and what has been found ------------------------------------- */

static u64 seed = 0x9e3779b97f4a7c15;

static u64 random(u64 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 16) % below;
}

/* Where a vCPU runs: mostly on the CPU of its number. */
static int some_cpu(int index)
{
	return random(6) ? index : !index;
}

static const char *const type_names[] = { "read", "write", "fetch" };
static u64 accesses, outcomes[NR_OUTCOMES], numbers;
static const char *last_change;

static void wrong(const char *who, int cpu, struct access *a, enum outcome expected, u64 error)
{
	check(false, "access %lu, after %s: %s on CPU %d, %s of %lx: vector %x error %x NPF %lx value %lx, not outcome %d error %lx",
	      accesses, last_change, who, cpu, type_names[a->type], a->va, a->vector, a->error,
	      nested_fault[a - batch->access], a->value, expected, error);
	test_done();
}

static void judge(bool is_guest, int cpu, int n, const u8 *index)
{
	for (int i = 0; i < n; i++) {
		struct access *a = &batch->access[i];
		struct page *page = NULL;
		u64 error, spa;
		enum outcome expected = is_guest ? guest_outcome(index[i], a->type, &page, &error) :
						   host_outcome(index[i], a->type, &page, &error);
		bool ok, faulted = a->vector != NO_EXCEPTION || nested_fault[i];

		spa = page >= large && page < large + LARGE_PAGES ? LARGE_PAGE(page - large) :
								    PAGES + (page - pages) * PAGE_SIZE;
		switch (expected) {
		case DONE:
			ok = !faulted && (a->type == WRITE || a->value ==
					  (a->type == READ ? page->data : page_tag(spa)));
			if (ok && a->type == WRITE)
				page->data = a->value;
			break;
		case SCRAMBLED:
			ok = !faulted && a->value != page->data;
			break;
		case PAGE_FAULT:
			ok = !nested_fault[i] && a->vector == PF && a->error == (u32)error;
			break;
		case NESTED_FAULT:
			ok = nested_fault[i] && (nested_fault[i] & NPF_RMP) == error;
			break;
		default:
			ok = !nested_fault[i] && a->vector == VC && a->error == VC_NOT_VALIDATED;
		}
		accesses++;
		outcomes[expected]++;
		if (!ok)
			wrong(is_guest ? "guest" : "host", cpu, a, expected, error);
	}
}

/* Some accesses by one of the four */
static void access_some(void)
{
	bool is_guest = random(2), w;
	int cpu = random(2), index = some_cpu(cpu);
	u8 what[BATCH];

	batch->n = BATCH;
	batch->next = 0;
	for (int i = 0; i < BATCH; i++) {
		struct access *a = &batch->access[i];
		int va = random(VAS + LARGE_PAGES);

		what[i] = va;
		a->type = random(3);
		/* What stands for ciphertext is no code to run. */
		if (!is_guest && a->type == EXECUTE && host_page(va, &w)->assigned)
			a->type = READ;
		a->value = ++numbers;
		a->va = va >= LARGE_INDEX ? LARGE_PAGE(va - LARGE_INDEX) :
			(is_guest ? GUEST_VAS : HOST_VAS) + va * PAGE_SIZE;
		nested_fault[i] = 0;
	}
	if (is_guest)
		guest_batch(index, cpu);
	else
		on_cpu(cpu, do_batch, 0);
	judge(is_guest, cpu, BATCH, what);
}

/* A device writes only what is the hypervisor's; elsewhere the write is gone, and a read gives ciphertext. */
static void device_access(void)
{
	int i = random(NR), type = random(2);
	u64 spa = PAGES + i * PAGE_SIZE, value = ++numbers;
	struct page *page = &pages[i];
	enum outcome expected = !page->assigned ? DONE : type == READ ? SCRAMBLED : DROPPED;
	bool ok = true;

	if (type == WRITE)
		edu_write((u64 *)(spa + DATA), value, 1);
	else
		value = edu_read((u64 *)(spa + DATA));
	/* A write that isn't dropped is found by who reads the page next. */
	if (expected == DONE && type == WRITE)
		page->data = value;
	else if (type == READ)
		ok = (value == page->data) == (expected == DONE);
	accesses++;
	outcomes[expected]++;
	if (!ok) {
		check(false, "access %lu, after %s: a device's read of %lx gives %lx, not outcome %d of %lx", accesses, last_change, spa,
		      value, expected, page->data);
		test_done();
	}
}

/* ---- Changes ------------------------------------------------------------------- */

static struct {
	u64 spa, gpa;
	bool assign, large, smash;
	u32 ret;
} rmp;

static void rmp_change(u64 unused)
{
	rmp.ret = rmp.smash ? psmash(rmp.spa) :
		  rmp.assign ? rmp_assign(rmp.spa, rmp.gpa, GUEST_ASID, rmp.large, false) :
			       rmp_release(rmp.spa, rmp.large);
}

static void change_rmp(u64 spa, u64 gpa, bool assign, bool size_2m, bool smash)
{
	rmp.spa = spa;
	rmp.gpa = gpa;
	rmp.assign = assign;
	rmp.large = size_2m;
	rmp.smash = smash;
	on_cpu(random(2), rmp_change, 0);
	if (rmp.ret != RMP_OK) {
		check_eq(rmp.ret, RMP_OK, last_change);
		test_done();
	}
}

static void change_page(void)
{
	int i = random(NR), gpa = random(NR);
	struct page *page = &pages[i];
	bool assign = !page->assigned || !random(4);

	last_change = assign ? "RMPUPDATE that assigns" : "RMPUPDATE that releases";
	/* Else hardly any page is where the guest can use it. */
	for (int g = 0; g < NR && random(4); g++) {
		if (npt[g] == i)
			gpa = g;
	}
	change_rmp(PAGES + i * PAGE_SIZE, GPAS + gpa * PAGE_SIZE, assign, false, false);
	page->assigned = assign;
	page->validated = false;
	page->gpa = gpa;
}

static void g_pvalidate(u64 arg)
{
	bool cf;

	shared->result[0] = pvalidate(arg & -PAGE_SIZE, arg >> 1 & 1, arg & 1, &cf);
}

static void validate(u64 va, bool size_2m, bool on)
{
	int index = random(2);

	guest_does(index, index, g_pvalidate, va | size_2m << 1 | on);
	if (shared->result[0] != RMP_OK) {
		check_eq(shared->result[0], RMP_OK, last_change);
		test_done();
	}
}

static void change_validated(void)
{
	int va = random(VAS);
	struct page *page;
	u64 error;
	enum outcome now = guest_outcome(va, EXECUTE, &page, &error);

	if (now != DONE && now != NOT_VALIDATED)
		return;
	last_change = "PVALIDATE";
	page->validated = now == NOT_VALIDATED;
	validate(GUEST_VAS + va * PAGE_SIZE, false, page->validated);
}

static void change_large(void)
{
	bool assigned = large[0].assigned, validated = large[0].validated;

	if (!assigned) {
		last_change = "RMPUPDATE that assigns 2M";
		change_rmp(LARGE, LARGE, true, true, false);
		assigned = true;
		validated = false;
	} else if (large_smashed) {
		last_change = "RMPUPDATE that releases 2M by 4K";
		for (u64 i = 0; i < 512; i++)
			change_rmp(LARGE + i * PAGE_SIZE, 0, false, false, false);
		assigned = large_smashed = false;
	} else if (random(2)) {
		last_change = "PVALIDATE of 2M";
		validated = !validated;
		validate(LARGE, true, validated);
	} else if (random(2)) {
		last_change = "RMPUPDATE that releases 2M";
		change_rmp(LARGE, 0, false, true, false);
		assigned = false;
	} else {
		last_change = "PSMASH";
		change_rmp(LARGE, 0, false, false, true);
		large_smashed = true;
	}
	for (int i = 0; i < LARGE_PAGES; i++) {
		large[i].assigned = assigned;
		large[i].validated = validated;
	}
}

static void set_npt(int gpa, int page)
{
	*snp_npt(GPAS + gpa * PAGE_SIZE) = page < 0 ? 0 : (PAGES + page * PAGE_SIZE) | PTE;
	npt[gpa] = page;
}

static void change_npt(void)
{
	int gpa = random(NR), old = npt[gpa];

	last_change = "a change of the nested page table";
	set_npt(gpa, random(6) ? (int)random(NR) : -1);
	/* A page that was not there is not cached. */
	if (old >= 0)
		flush_pending[0] = flush_pending[1] = true;
}

static void g_set_pte(u64 arg)
{
	u64 va = GUEST_VAS + (arg >> 8 & 0xff) * PAGE_SIZE;

	*snp_guest_pte(va) = (GPAS + (arg & 0xff) * PAGE_SIZE) | (PTE & ~WRITABLE) |
			     (arg & BIT(16) ? C_BIT : 0) | (arg & BIT(17) ? WRITABLE : 0);
	invlpg(va);
}

static void g_invlpg(u64 va)
{
	if (va)
		invlpg(va);
	else
		flush_tlb();
}

static void change_guest_pte(void)
{
	int va = random(VAS), by = random(2);
	struct guest_pte *pte = &guest_ptes[va];

	last_change = "a change of the guest's page table";
	pte->gpa = random(NR);
	pte->c = random(4) != 0;
	pte->w = random(4) != 0;
	guest_does(by, some_cpu(by), g_set_pte, pte->gpa | va << 8 | pte->c << 16 | pte->w << 17);
	guest_does(!by, some_cpu(!by), g_invlpg, random(4) ? GUEST_VAS + va * PAGE_SIZE : 0);
}

static void h_invlpg(u64 va)
{
	invlpg(va);
}

static void set_host_pte(int va, int page, bool w)
{
	*own_pte(HOST_VAS + va * PAGE_SIZE) = (PAGES + page * PAGE_SIZE) |
					      (w ? PTE : PTE & ~WRITABLE);
	host_ptes[va] = (struct host_pte){ page, w };
}

static void change_host_pte(void)
{
	int va = random(VAS);

	last_change = "a change of the host's page table";
	set_host_pte(va, random(NR), random(4));
	invlpg(HOST_VAS + va * PAGE_SIZE);
	on_cpu(1, h_invlpg, HOST_VAS + va * PAGE_SIZE);
}

/* ---- Start ---------------------------------------------------------------------- */

/* movl $tag, fetched; ret */
static void fill(struct page *page, u64 spa)
{
	u8 *code = (u8 *)spa;

	memset(code, 0xcc, PAGE_SIZE);
	code[0] = 0xc7;
	code[1] = 0x04;
	code[2] = 0x25;
	*(u32 *)(code + 3) = (u64)&fetched;
	*(u32 *)(code + 7) = page_tag(spa);
	code[11] = 0xc3;
	page->data = *(u64 *)(code + DATA) = ++numbers;
}

static void cpu_1_starts(u64 unused)
{
	WRITE_CR(0, READ_CR(0) | CR0_WP);
	snp_start_cpu();
	flush_tlb();
}

/* As often as they are there */
static void (*const changes[12])(void) = {
	[0 ... 3] = change_page,
	[4 ... 5] = change_validated,
	[6] = change_large,
	[7 ... 8] = change_npt,
	[9 ... 10] = change_guest_pte,
	[11] = change_host_pte,
};

void test_main(void)
{
	apic_id();
	wrmsr(MSR_X2APIC_SVR, 0x1ff);
	set_handler(IPI, on_ipi);
	ap_run(cpu_1_serves, NULL);

	section("TEST stale", "Preparation");
	if (!edu_init())
		return;
	iommu_enable(0, NULL);
	rmp_clear();
	WRITE_CR(0, READ_CR(0) | CR0_WP);
	for (int i = 0; i < NR; i++)
		fill(&pages[i], PAGES + i * PAGE_SIZE);
	for (int i = 0; i < LARGE_PAGES; i++)
		fill(&large[i], LARGE_PAGE(i));
	snp_set_up(&vcpu[0], 0);
	snp_set_up(&vcpu[1], 1);
	*snp_guest_pde(LARGE) |= C_BIT;
	for (int i = 0; i < NR; i++)
		set_npt(i, i);
	for (int i = 0; i < VAS; i++) {
		guest_ptes[i] = (struct guest_pte){ i % NR, true, true };
		*snp_guest_pte(GUEST_VAS + i * PAGE_SIZE) = (GPAS + i % NR * PAGE_SIZE) | C_BIT | PTE;
		set_host_pte(i, i % NR, true);
	}
	own_pte(LARGE);
	flush_tlb();
	snp_start();
	on_cpu(1, cpu_1_starts, 0);

	section("APM2 15.36.10", "No access is by a translation that a change before it has made invalid.");
	for (int i = 0; i < ROUNDS; i++) {
		changes[random(12)]();
		for (int batches = 3; batches; batches--)
			access_some();
		if (i % 256 == 255)
			device_access();
	}
	check(true, "%lu accesses: %lu done, %lu of ciphertext, %lu page faults, %lu nested, %lu not validated, %lu dropped",
	      accesses, outcomes[DONE], outcomes[SCRAMBLED], outcomes[PAGE_FAULT],
	      outcomes[NESTED_FAULT], outcomes[NOT_VALIDATED], outcomes[DROPPED]);
	check(outcomes[DROPPED], "(a device's write was dropped)");
	for (int i = 0; i < DROPPED; i++)
		check(outcomes[i] > accesses / 100, "(outcome %d is among them)", i);
	test_done();
}
