/*
 * Security processor: mailbox, states, and what bad commands come to. Section
 * numbers are those of the SEV-SNP Firmware ABI specification (56860).
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */
#include "gcm.h"
#include "machine.h"
#include "pci.h"
#include "rmp.h"

#define MSR_VM_HSAVE_PA	0xc0010117

#define IOMMU_CONTROL	((volatile u64 *)0xfed80018)
/* With SNP on, the exclusion range is that of completion waits. */
#define IOMMU_EXCL_BASE	((volatile u64 *)0xfed80020)

#define PSP_ID		0x14ca1022
#define CMDRESP		0x10980
#define CMDBUF_LO	0x109e0
#define CMDBUF_HI	0x109e4
#define RESPONSE	BIT(31)

/* Pages that change hands, each in its own 2M: the host maps no smaller ones */
#define PAGE(n)		(0x20000000UL + (n) * 0x200000UL)
#define GCTX		PAGE(0)
#define FIRMWARE	PAGE(1)		/* firmware page for output */
#define GUEST_A		PAGE(2)
#define GUEST_B		PAGE(3)
#define GUEST_C		PAGE(4)
#define SCRATCH		PAGE(5)
#define TMR		PAGE(6)
#define GCTX2		PAGE(7)
#define SECRETS		PAGE(8)
#define COMPLETION	PAGE(10)	/* where the IOMMU says that it has completed commands */

enum {
	OK, PLATFORM_STATE, GUEST_STATE, CONFIG, LENGTH, POLICY = 7, INACTIVE,
	ADDRESS, BAD_MEASUREMENT = 0xb, ASID_OWNED, BAD_ASID, WBINVD, DF_FLUSH,
	GUEST, COMMAND, ACTIVE, HARDWARE, UNSUPPORTED = 0x15, PARAM,
	PAGE_SIZE_ERR = 0x19, PAGE_STATE, PAGE_OWNER = 0x1c, AEAD_OFLOW,
	RMP_INIT = 0x20,
	BUFFER_STATE = 0x5a,
};

enum {
	INIT = 0x01, SHUTDOWN, PLATFORM_RESET, PLATFORM_STATUS, PDH_CERT_EXPORT = 0x08, GET_ID = 0x0c, INIT_EX,
	SEV_DECOMMISSION = 0x20, SEV_ACTIVATE, SEV_DEACTIVATE, SEV_GUEST_STATUS,
	LAUNCH_START = 0x30, UPDATE_DATA, UPDATE_VMSA, MEASURE, SECRET, FINISH,
	SEV_DBG_DECRYPT = 0x60,
	SNP_SHUTDOWN_EX = 0x86, SNP_PLATFORM_STATUS = 0x83, SNP_DF_FLUSH,
	SNP_INIT_EX, DECOMMISSION = 0x90, ACTIVATE, GUEST_STATUS, GCTX_CREATE,
	GUEST_REQUEST, SNP_LAUNCH_START = 0xa0, LAUNCH_UPDATE, LAUNCH_FINISH,
	DBG_DECRYPT = 0xb0, SET_STATE = 0xc6, RECLAIM, UNSMASH, CONFIG_SET = 0xc9, COMMIT = 0xcb,
	FEATURE_INFO = 0xce,
};

#define POLICY_OK	(BIT(17) | BIT(16))

static volatile u32 *regs;
static u64 buf[64] __attribute__((aligned(4096)));
static u64 out[512] __attribute__((aligned(4096)));

/*
 * The launch digest of a page of (i * 7) & ff at GPA 1000h, then a ZERO page at
 * 2000h, both without rights for VMPL1-3: SHA-384 over PAGE_INFO (8.17.2).
 */
static const u8 digest[48] = {
	0x6b, 0x1a, 0x3d, 0x58, 0x44, 0x98, 0xff, 0xc4,
	0x41, 0x3c, 0xf1, 0xc0, 0x2f, 0x27, 0xd3, 0x75,
	0x79, 0x10, 0x38, 0x2c, 0xdc, 0x11, 0xe2, 0x5e,
	0x27, 0x42, 0x74, 0x4c, 0x68, 0x46, 0x09, 0xdd,
	0x90, 0x47, 0x7d, 0x6b, 0x93, 0x3b, 0xdc, 0xdc,
	0x48, 0xac, 0xe6, 0x42, 0x4d, 0x5b, 0x2d, 0x0c,
};

static u32 command_at(u32 id, u64 addr)
{
	u32 resp;

	barrier();		/* the buffer is complete before the command */
	regs[CMDBUF_LO / 4] = addr;
	regs[CMDBUF_HI / 4] = addr >> 32;
	regs[CMDRESP / 4] = id << 16;
	while (!((resp = regs[CMDRESP / 4]) & RESPONSE))
		cpu_relax();
	barrier();
	return resp & 0xffff;
}

static u32 command(u32 id)
{
	return command_at(id, (u64)buf);
}

static void clear(void)
{
	memset(buf, 0, sizeof(buf));
}

/* A command whose buffer begins with two quadwords, the rest zero */
static u32 command2(u32 id, u64 a, u64 b)
{
	clear();
	buf[0] = a;
	buf[1] = b;
	return command(id);
}

static bool find_psp(void)
{
	u32 function = pci_find(PSP_ID);

	if (!function)
		return false;
	pci_write(function, PCI_COMMAND, pci_read(function, PCI_COMMAND) | PCI_MEMORY | PCI_MASTER);
	regs = (void *)(u64)(pci_read(function, PCI_BAR(2)) & ~15u);
	return true;
}

static void rmp_done(u32 ret, u64 addr)
{
	if (ret)
		check(false, "RMPUPDATE of 0x%lx: %u", addr, ret);
}

static void make_firmware(u64 addr)
{
	rmp_done(rmp_assign(addr, 0, 0, false, true), addr);
}

static void make_guest(u64 addr, u64 gpa, u32 asid)
{
	rmp_done(rmp_assign(addr, gpa, asid, false, true), addr);
}

static void make_shared(u64 addr)
{
	rmp_done(rmp_release(addr, false), addr);
}

static void wbinvd(void *unused)
{
	asm volatile("wbinvd" : : : "memory");
}

static void snp_enable(void *unused)
{
	wrmsr(MSR_SYSCFG, rdmsr(MSR_SYSCFG) | SYSCFG_MFDM);
	wrmsr(MSR_SYSCFG, rdmsr(MSR_SYSCFG) | SYSCFG_SNP_EN | SYSCFG_VMPL_EN);
}

static bool second_cpu;

static void on_all(void (*fn)(void *))
{
	fn(NULL);
	if (second_cpu) {
		ap_run(fn, NULL);
		ap_wait();
	}
}

static void test_mailbox(void)
{
	section("SNP mailbox", "Commands that do not exist, and buffers where none can be, are refused.");
	check_eq(command(0), COMMAND, "command 0 is not one");
	check_eq(command(0xff), COMMAND, "command FFh is not one");
	check_eq(regs[CMDBUF_LO / 4] | regs[CMDBUF_HI / 4], 0, "no extended error");
	check_eq(command_at(SNP_PLATFORM_STATUS, BIT(47)), ADDRESS, "buffer above all memory");
	check_eq(command_at(SNP_PLATFORM_STATUS, 0xfee00000), CONFIG, "buffer outside RAM");
	check_eq(command_at(SNP_PLATFORM_STATUS, 0xb0000), ADDRESS, "buffer in ASEG");
	check_eq(command_at(SNP_PLATFORM_STATUS, rdmsr(MSR_RMP_BASE) + 0x100000), ADDRESS,
		 "buffer in the RMP");
}

/* Commands for SNP guests, in a state in which there are none */
static void test_no_snp(const char *when)
{
	static const u8 commands[] = {
		DECOMMISSION, ACTIVATE, GUEST_STATUS, GCTX_CREATE, GUEST_REQUEST,
		SNP_LAUNCH_START, LAUNCH_UPDATE, LAUNCH_FINISH, DBG_DECRYPT, RECLAIM,
	};

	section("SNP 8", "Commands for guests need SNP to be initialised.");
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 seen = command2(commands[i], GCTX, 0);

		check(seen == PLATFORM_STATE, "command %xh %s: status %xh", commands[i], when, seen);
	}
	check_eq(command2(SNP_SHUTDOWN_EX, 8, 0), OK, "SNP_SHUTDOWN_EX has nothing to do");
}

/* The same for SEV and SEV-ES */
static void test_no_sev(const char *when)
{
	static const u8 commands[] = {
		0x05, 0x09, 0x20, 0x21, 0x22, 0x23, LAUNCH_START, 0x31, 0x33, 0x35, 0x60, 0x61,
	};

	section("SEV 6", "Commands for SEV guests need INIT.");
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 seen = command2(commands[i], 1, 0);

		check(seen == PLATFORM_STATE, "command %xh %s: status %xh", commands[i], when, seen);
	}
}

/* Those that the machine's documentation names */
static void test_left_out(void)
{
	static const u8 commands[] = {
		0x06, 0x07, 0x0b, 0x36, 0x40, 0x41, 0x42, 0x43, 0x44, 0x50, 0x51, 0x52, 0x53, 0x70, 0x71,
		0x95, 0xc0, 0xc1, 0xc2, 0xc3, 0xca, 0xcd,
	};

	section("SNP mailbox", "Commands of the ABI that are left out answer UNSUPPORTED.");
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 seen = command2(commands[i], 0, 0);

		check(seen == UNSUPPORTED, "command %xh: status %xh", commands[i], seen);
	}
}

/* INIT_EX without SEV-ES; the data of the platform is at SCRATCH. */
static u32 init_ex(u32 length, u32 flags, u64 data, u32 size)
{
	clear();
	buf[0] = length | (u64)flags << 32;
	buf[3] = data;
	buf[4] = size;
	return command(INIT_EX);
}

/* The certificates go to SCRATCH, the chain of three to two pages after it. */
static u32 pdh_cert_export(u32 length, u32 chain_length)
{
	clear();
	buf[0] = SCRATCH;
	buf[1] = length;
	buf[2] = SCRATCH + 0x2000;
	buf[3] = chain_length;
	return command(PDH_CERT_EXPORT);
}

static void test_certificates(void)
{
	u32 *pdh = (u32 *)SCRATCH;

	section("SEV 5.12", "PDH_CERT_EXPORT says what it needs, and writes four certificates.");
	check_eq(pdh_cert_export(0, 0), PLATFORM_STATE, "PDH_CERT_EXPORT before INIT");
	check_eq(init_ex(0x24, 0, SCRATCH, 0x8000), OK, "INIT_EX");
	check_eq(pdh_cert_export(0x823, 0x186c), LENGTH, "PDH_CERT_EXPORT: length");
	check_eq(pdh_cert_export(0x824, 0x186b), LENGTH, "PDH_CERT_EXPORT: length of the chain");
	check_eq((u32)buf[1], 0x824, "what the certificate needs");
	check_eq((u32)buf[3], 0x186c, "what the chain needs");
	check_eq(pdh_cert_export(0x824, 0x186c), OK, "PDH_CERT_EXPORT");
	check_eq(pdh[0], 1, "version of the certificate's format");
	check_eq(pdh[2], 0x1003, "it is the PDH's");
	for (unsigned int i = 0; i < 3; i++) {
		static const u32 usage[] = { 0x1002, 0x1001, 0x1004 };

		check_eq(((u32 *)(SCRATCH + 0x2000 + i * 0x824))[2], usage[i], "usage in the chain");
	}
	check_eq(command(SHUTDOWN), OK, "SHUTDOWN");
}

static void test_lengths(void)
{
	section("SEV 5", "Platform commands check lengths and alignment, in the order of the firmware.");
	check_eq(command2(GET_ID, (u64)out, 0x3f), LENGTH, "GET_ID: length");
	check_eq((u32)buf[1], 0x40, "it says what it needs");
	check_eq(command2(GET_ID, (u64)out, 0x40), OK, "GET_ID");
	check_eq(init_ex(0, 2, SCRATCH, 0x8000), CONFIG, "INIT_EX: a reserved flag comes before the length");
	check_eq(init_ex(0x20, 0, SCRATCH, 0x8000), LENGTH, "INIT_EX: length");
	check_eq(init_ex(0x24, 0, SCRATCH + 8, 0), ADDRESS, "INIT_EX: alignment of the data comes before its size");
	check_eq(init_ex(0x24, 0, SCRATCH, 0x7000), LENGTH, "INIT_EX: size of the data");
	check_eq(init_ex(0x24, 0, SCRATCH, 0x8000), OK, "INIT_EX");
	check_eq(init_ex(0, 0, 0, 0), PLATFORM_STATE, "INIT_EX again: the state comes first");
	check_eq(command(PLATFORM_RESET), PLATFORM_STATE, "PLATFORM_RESET after INIT");
	check_eq(command(SHUTDOWN), OK, "SHUTDOWN");
	check_eq(command(PLATFORM_RESET), OK, "PLATFORM_RESET");
	section("SNP 8", "PAGE_SET_STATE and PAGE_UNSMASH check their operands before the state.");
	check_eq(command2(SET_STATE, 0xf, 1), LENGTH, "PAGE_SET_STATE: length");
	check_eq(command2(SET_STATE, 0x10, 1), PARAM, "PAGE_SET_STATE: alignment");
	check_eq(command2(SET_STATE, 0x10, SCRATCH), PLATFORM_STATE, "PAGE_SET_STATE: state");
	check_eq(command2(UNSMASH, SCRATCH + PAGE_SIZE, 0), PARAM, "PAGE_UNSMASH: alignment");
	check_eq(command2(UNSMASH, SCRATCH, 0), PLATFORM_STATE, "PAGE_UNSMASH: state");
}

static void test_platform(void)
{
	section("SNP platform", "Platform commands before SNP_INIT.");
	check_eq(command2(SNP_PLATFORM_STATUS, (u64)out, 0), OK, "SNP_PLATFORM_STATUS");
	check((out[0] & 0xff) == 1 && (out[0] >> 8 & 0xff) >= 51 && !(out[0] >> 16 & 0xffff),
	      "API 1.51 or newer, SNP not initialised");
	check_eq(command2(SNP_PLATFORM_STATUS, (u64)out + 0xff0, 0), PARAM,
		 "status must not cross a page");
	check_eq(command2(SNP_PLATFORM_STATUS, 0xfed00000, 0), CONFIG, "status outside RAM");

	check_eq(command2(FEATURE_INFO, 15, (u64)out), PARAM, "FEATURE_INFO: length");
	check_eq(command2(FEATURE_INFO, 16, (u64)out + 2), ADDRESS, "FEATURE_INFO: alignment");
	check_eq(command2(FEATURE_INFO, 16 | 7UL << 32, (u64)out), PARAM, "FEATURE_INFO: leaf");
	check_eq(command2(FEATURE_INFO, 16, (u64)out), OK, "FEATURE_INFO");
	check_eq(command2(COMMIT, 5, 0), PARAM, "COMMIT: length");
	check_eq(command2(CONFIG_SET, 0, BIT(2)), PARAM, "CONFIG: reserved bit");
	check_eq(command2(CONFIG_SET, ~0UL, 0), PARAM, "CONFIG: TCB above the committed one");

	check_eq(command2(GCTX_CREATE, GCTX, 0), PLATFORM_STATE, "GCTX_CREATE before SNP_INIT");
	check_eq(command2(LAUNCH_START, 0, 0), PLATFORM_STATE, "LAUNCH_START before INIT");
	check_eq(command2(INIT, 2, 0), CONFIG, "INIT: reserved flag");
	check_eq(command2(INIT, 1, TMR + 0x1000), ADDRESS, "INIT: TMR not aligned");
}

static void test_snp_init(void)
{
	section("SNP SNP_INIT_EX", "SNP_INIT_EX checks the whole platform, then makes the RMP.");
	check_eq(command2(SNP_INIT_EX, BIT(5), 0), PARAM, "SNP_INIT_EX: reserved flag");
	check_eq(command2(SNP_INIT_EX, 0, 0), RMP_INIT, "SNP_INIT_EX: no RMP yet");
	check_eq(command2(SNP_INIT_EX, 1, 0), CONFIG, "SNP_INIT_EX: SYSCFG not set up");
	on_all(snp_enable);
	check_eq(command2(SNP_INIT_EX, 1, 0), HARDWARE, "SNP_INIT_EX: IOMMU is off");
	*IOMMU_CONTROL = 1;
	*IOMMU_EXCL_BASE = COMPLETION;
	check_eq(*IOMMU_EXCL_BASE, COMPLETION, "the IOMMU's exclusion base is what has been written");
	wrmsr(MSR_VM_HSAVE_PA, SCRATCH);
	check_eq(command2(SNP_INIT_EX, 1, 0), CONFIG, "SNP_INIT_EX: VM_HSAVE_PA not zero");
	wrmsr(MSR_VM_HSAVE_PA, 0);
	check_eq(command2(SNP_INIT_EX, 1, 0), OK, "SNP_INIT_EX");
	check_eq(rmp_entry(COMPLETION) & RMP_ASSIGNED, RMP_ASSIGNED, "the IOMMU's page for completions isn't the host's any more");
	check_eq(command2(SNP_INIT_EX, 1, 0), PLATFORM_STATE, "SNP_INIT_EX again");
	check_eq(command(SNP_DF_FLUSH), WBINVD, "DF_FLUSH without WBINVD");
	on_all(wbinvd);
	check_eq(command(SNP_DF_FLUSH), OK, "DF_FLUSH after WBINVD");
	check_eq(command2(SNP_PLATFORM_STATUS, SCRATCH, 0), PAGE_STATE,
		 "status to a page of the hypervisor");
	make_firmware(FIRMWARE);
	check_eq(command2(SNP_PLATFORM_STATUS, FIRMWARE, 0), OK, "status to a page of firmware");
	check_eq(*(u32 *)FIRMWARE >> 16, 0x101, "SNP is initialised, and the RMP");
	check_eq(command(PLATFORM_STATUS), BUFFER_STATE,
		 "legacy command with output: buffer has to be firmware's");
}

static u32 launch_update(u64 gctx, u64 page, u32 type, u32 flags)
{
	clear();
	buf[0] = gctx;
	buf[1] = type << 1 | flags;
	buf[2] = page;
	return command(LAUNCH_UPDATE);
}

/* Commands that do not fit the state of the guest at @gctx */
static void wrong_order(const char *state, u32 start, u32 activate, u32 update, u32 finish,
			u32 request)
{
	static const char *const names[] = {
		"LAUNCH_START", "ACTIVATE", "LAUNCH_UPDATE", "LAUNCH_FINISH", "GUEST_REQUEST",
	};
	u32 expected[] = { start, activate, update, finish, request };
	u32 seen[ARRAY_SIZE(names)];

	section("SNP 8", "A command for a guest in another state is refused, and changes nothing.");
	seen[0] = start ? command2(SNP_LAUNCH_START, GCTX, POLICY_OK) : OK;
	seen[1] = activate ? command2(ACTIVATE, GCTX, 9) : OK;
	seen[2] = update ? launch_update(GCTX, GUEST_C, 1, 0) : OK;
	seen[3] = finish ? command2(LAUNCH_FINISH, GCTX, 0) : OK;
	clear();
	buf[0] = GCTX;
	buf[1] = (u64)out;
	buf[2] = FIRMWARE;
	seen[4] = command(GUEST_REQUEST);
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (expected[i])
			check(seen[i] == expected[i], "%s, guest %s: status %xh", names[i], state,
			      seen[i]);
	}
}

static void test_launch(void)
{
	section("SNP LAUNCH", "Launch commands: states, page states and sizes, in the order of the firmware's checks.");
	check_eq(command2(GCTX_CREATE, GCTX + 8, 0), PARAM, "GCTX_CREATE: alignment");
	check_eq(command2(GCTX_CREATE, GCTX, 0), PAGE_STATE, "GCTX_CREATE: page of the hypervisor");
	make_firmware(GCTX);
	check_eq(command2(GCTX_CREATE, GCTX, 0), OK, "GCTX_CREATE");
	check_eq(command2(GCTX_CREATE, GCTX, 0), PAGE_STATE, "GCTX_CREATE: is a context already");
	make_guest(GUEST_C, 0x9000, 9);
	wrong_order("INIT", 0, GUEST_STATE, GUEST_STATE, GUEST_STATE, GUEST_STATE);
	section("SNP LAUNCH", "Launch commands: states, page states and sizes, in the order of the firmware's checks.");
	check_eq(launch_update(GCTX, SCRATCH, 1, 0), PAGE_STATE, "LAUNCH_UPDATE: page state comes first");

	check_eq(command2(SNP_LAUNCH_START, GCTX, 0), POLICY, "LAUNCH_START: policy bit 17 is 0");
	check_eq(command2(SNP_LAUNCH_START, GCTX, POLICY_OK | BIT(40)), POLICY,
		 "LAUNCH_START: reserved policy bit");
	check_eq(command2(SNP_LAUNCH_START, GCTX, POLICY_OK | 0xffff), POLICY,
		 "LAUNCH_START: API above the firmware's");
	check_eq(command2(SNP_LAUNCH_START, FIRMWARE, POLICY_OK), GUEST,
		 "LAUNCH_START: not a context page");
	check_eq(command2(SNP_LAUNCH_START, 0xfed00000, POLICY_OK), GUEST,
		 "LAUNCH_START: context outside RAM");
	check_eq(command2(SNP_LAUNCH_START, GCTX + 1, POLICY_OK), PARAM,
		 "LAUNCH_START: context not aligned");
	check_eq(command2(SNP_LAUNCH_START, GCTX, POLICY_OK), OK, "LAUNCH_START");
	wrong_order("LAUNCH, not activated", GUEST_STATE, 0, INACTIVE, INACTIVE, GUEST_STATE);
	section("SNP LAUNCH", "Launch commands: states, page states and sizes, in the order of the firmware's checks.");
	check_eq(command2(SNP_LAUNCH_START, GCTX, POLICY_OK), GUEST_STATE, "LAUNCH_START again");

	make_guest(GUEST_B, 0x2000, 2);
	check_eq(launch_update(GCTX, GUEST_B, 1, 0), INACTIVE, "LAUNCH_UPDATE before ACTIVATE");
	check_eq(command2(ACTIVATE, GCTX, 0), BAD_ASID, "ACTIVATE: ASID 0");
	check_eq(command2(ACTIVATE, GCTX, 100), BAD_ASID, "ACTIVATE: ASID of plain SEV");
	check_eq(command2(ACTIVATE, GCTX, 5000), BAD_ASID, "ACTIVATE: ASID too high");
	check_eq(command2(ACTIVATE, GCTX, 1), OK, "ACTIVATE");
	check_eq(command2(ACTIVATE, GCTX, 3), ACTIVE, "ACTIVATE again");

	for (int i = 0; i < 4096; i++)
		((u8 *)GUEST_A)[i] = i * 7;
	make_guest(GUEST_A, 0x1000, 1);
	check_eq(launch_update(GCTX, GUEST_A, 1, 1), PAGE_SIZE_ERR, "LAUNCH_UPDATE: page size");
	check_eq(launch_update(GCTX, GUEST_A, 0, 0), PARAM, "LAUNCH_UPDATE: type 0");
	check_eq(launch_update(GCTX, GUEST_A, 7, 0), PARAM, "LAUNCH_UPDATE: type 7");
	check_eq(launch_update(GCTX, GUEST_A, 1, BIT(8)), PARAM, "LAUNCH_UPDATE: reserved bit");
	check_eq(launch_update(GCTX, GUEST_B, 1, 0), PAGE_OWNER, "LAUNCH_UPDATE: ASID of another");
	check_eq(launch_update(GCTX, GUEST_A, 1, 0), OK, "LAUNCH_UPDATE: NORMAL");
	check_eq(launch_update(GCTX, GUEST_A, 1, 0), PAGE_STATE, "LAUNCH_UPDATE: page is the guest's by now");

	command2(RECLAIM, GUEST_C, 0);
	make_shared(GUEST_C);
	((u32 *)GUEST_C)[0] = 65;
	make_guest(GUEST_C, 0x3000, 1);
	check_eq(launch_update(GCTX, GUEST_C, 6, 0), PARAM, "LAUNCH_UPDATE: CPUID page with 65 entries");
	check_eq(command2(RECLAIM, GUEST_C, 0), OK, "RECLAIM of a page in launch");
	make_shared(GUEST_C);
	memset((void *)GUEST_C, 0, 4096);
	((u32 *)GUEST_C)[0] = 1;
	((u32 *)GUEST_C)[4] = 7;				/* leaf 7: no such EDX bit */
	((u32 *)GUEST_C)[4 + 9] = BIT(1);
	make_guest(GUEST_C, 0x3000, 1);
	check_eq(launch_update(GCTX, GUEST_C, 6, 0), PARAM, "LAUNCH_UPDATE: CPUID feature that is not there");
	check_eq(command2(RECLAIM, GUEST_C, 0), OK, "RECLAIM again");
	make_shared(GUEST_C);
	check_eq(((u32 *)GUEST_C)[4 + 9], 0, "the CPUID page is corrected in place");

	check_eq(command2(RECLAIM, GUEST_B, 0), OK, "RECLAIM of the other page");
	make_shared(GUEST_B);
	make_guest(GUEST_B, 0x2000, 1);
	check_eq(launch_update(GCTX, GUEST_B, 3, 0), OK, "LAUNCH_UPDATE: ZERO");
}

static void test_finish(void)
{
	u8 *block = (u8 *)out, *auth = (u8 *)SCRATCH;

	section("SNP LAUNCH_FINISH", "The launch digest is SHA-384 over PAGE_INFO of each page; ID blocks are compared with it.");
	memset(out, 0, sizeof(out));
	memset(auth, 0, 4096);
	*(u64 *)(block + 0x58) = POLICY_OK;
	*(u32 *)auth = 1;				/* ECDSA P-384 with SHA-384 */
	*(u32 *)(auth + 0x240) = 2;			/* curve P-384 */
	clear();
	buf[0] = GCTX;
	buf[1] = (u64)out;
	buf[2] = SCRATCH;
	buf[3] = 1;
	check_eq(command(LAUNCH_FINISH), BAD_MEASUREMENT, "LAUNCH_FINISH: ID block of another image");
	memcpy(block, digest, sizeof(digest));
	*(u64 *)(block + 0x58) = POLICY_OK | BIT(19);
	check_eq(command(LAUNCH_FINISH), POLICY, "LAUNCH_FINISH: ID block with another policy");
	*(u64 *)(block + 0x58) = POLICY_OK;
	check_eq(command(LAUNCH_FINISH), OK, "LAUNCH_FINISH: the launch digest is right");
	check_eq(command2(LAUNCH_FINISH, GCTX, 0), GUEST_STATE, "LAUNCH_FINISH again");
	make_guest(GUEST_C, 0x9000, 1);
	wrong_order("RUNNING", GUEST_STATE, ACTIVE, GUEST_STATE, GUEST_STATE, 0);
	command2(RECLAIM, GUEST_C, 0);
	make_shared(GUEST_C);
	clear();
	buf[0] = GCTX;
	buf[1] = GUEST_A;
	buf[2] = FIRMWARE;
	check_eq(command(DBG_DECRYPT), POLICY, "DBG_DECRYPT against the policy");
	check_eq(command2(GUEST_STATUS, GCTX, FIRMWARE), OK, "GUEST_STATUS");
	check_eq(*(u64 *)(FIRMWARE + 8) & 0xffffffffff, 1 | 2UL << 32, "ASID 1, running");
}

/* With a guest that runs, and SCRATCH a page of the hypervisor */
static void test_operands(void)
{
	static const u8 commands[] = { DECOMMISSION, ACTIVATE, GUEST_STATUS, GUEST_REQUEST, SNP_LAUNCH_START,
				       LAUNCH_UPDATE, LAUNCH_FINISH, DBG_DECRYPT };

	section("SNP 8", "Commands for a guest check the address of its context, then what is there.");
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 seen = command2(commands[i], GCTX + 8, 0);

		check(seen == PARAM, "command %xh, not aligned: status %xh", commands[i], seen);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 seen = command2(commands[i], SCRATCH, FIRMWARE);

		if (commands[i] != LAUNCH_UPDATE)
			check(seen == GUEST, "command %xh, page of the hypervisor: status %xh", commands[i], seen);
	}
	section("SNP GUEST_STATUS", "The status has to be within a page of firmware.");
	check_eq(command2(GUEST_STATUS, GCTX, FIRMWARE + 0xff0), PARAM, "crosses the page");
	check_eq(command2(GUEST_STATUS, GCTX, SCRATCH), PAGE_STATE, "page of the hypervisor");
	section("SNP DBG_DECRYPT", "Source and destination have to be the guest's and firmware's.");
	clear();
	buf[0] = GCTX;
	buf[1] = SCRATCH;
	buf[2] = FIRMWARE;
	check_eq(command(DBG_DECRYPT), PAGE_STATE, "source of the hypervisor");
	buf[1] = GUEST_A;
	buf[2] = SCRATCH;
	check_eq(command(DBG_DECRYPT), PAGE_STATE, "destination of the hypervisor");
	buf[1] = GUEST_A + 16;
	buf[2] = FIRMWARE;
	check_eq(command(DBG_DECRYPT), PARAM, "alignment");
}

#define SMALL_PAGES	PAGE(9)

/* 512 pages of a guest in launch, which began as one of 2M */
static void test_unsmash(void)
{
	section("SNP PAGE_UNSMASH", "512 pages of a guest in launch, with consecutive GPAs, become one of 2M.");
	check_eq(command2(UNSMASH, rdmsr(MSR_RMP_BASE) & ~0x1fffffUL, 0), ADDRESS, "in the RMP");
	check_eq(command2(UNSMASH, SMALL_PAGES, 0), PAGE_STATE, "pages of the hypervisor");
	for (int i = 0; i < 511; i++)
		make_guest(SMALL_PAGES + i * PAGE_SIZE, 0x400000 + i * PAGE_SIZE, 1);
	check_eq(command2(UNSMASH, SMALL_PAGES, 0), PAGE_STATE, "511 of them");
	make_guest(SMALL_PAGES + 511 * PAGE_SIZE, 0x400000, 1);
	check_eq(command2(UNSMASH, SMALL_PAGES, 0), PAGE_STATE, "one of another GPA");
	command2(RECLAIM, SMALL_PAGES + 511 * PAGE_SIZE, 0);
	make_guest(SMALL_PAGES + 511 * PAGE_SIZE, 0x400000 + 511 * PAGE_SIZE, 2);
	check_eq(command2(UNSMASH, SMALL_PAGES, 0), PAGE_STATE, "one of another guest");
	command2(RECLAIM, SMALL_PAGES + 511 * PAGE_SIZE, 0);
	make_guest(SMALL_PAGES + 511 * PAGE_SIZE, 0x400000 + 511 * PAGE_SIZE, 1);
	check_eq(command2(UNSMASH, SMALL_PAGES, 0), OK, "all as they should be");
	check_eq(rmp_entry(SMALL_PAGES) & (RMP_ASSIGNED | RMP_2M | RMP_IMMUTABLE), RMP_ASSIGNED | RMP_2M | RMP_IMMUTABLE,
		 "the first entry is one of 2M");
	check_eq(command2(RECLAIM, SMALL_PAGES, 0), PAGE_SIZE_ERR, "RECLAIM of 4K");
	check_eq(command2(RECLAIM, SMALL_PAGES + 1, 0), OK, "RECLAIM of 2M");
	rmp_done(rmp_release(SMALL_PAGES, true), SMALL_PAGES);
}

/* ---- Messages between a guest and the firmware (8.26) --------------------- */

enum { KEY_REQ = 3, REPORT_REQ = 5, TSC_INFO_REQ = 17 };

#define HEADER		0x60
#define AAD		0x30

static u8 vmpck[4][32];
static u8 reply[4096] __attribute__((aligned(16)));

static u8 *request(void)
{
	memset(out, 0, sizeof(out));
	return (u8 *)out + HEADER;
}

/* Seals what request() gave and sends it; the reply's payload is in reply[]. */
static u32 send(u32 type, u32 len, u64 seqno, u32 key, u32 spoil)
{
	u8 iv[12] = {}, *msg = (u8 *)out;
	u32 status;

	*(u64 *)(msg + 0x20) = seqno;
	msg[0x30] = msg[0x31] = msg[0x35] = 1;
	*(u16 *)(msg + 0x32) = HEADER;
	msg[0x34] = type;
	*(u16 *)(msg + 0x36) = len;
	msg[0x3c] = key;
	*(u64 *)iv = seqno;
	gcm_seal(vmpck[key & 3], iv, msg + AAD, HEADER - AAD, msg + HEADER, len, msg);
	msg[spoil] ^= !!spoil;

	clear();
	buf[0] = GCTX2;
	buf[1] = (u64)out;
	buf[2] = FIRMWARE;
	status = command(GUEST_REQUEST);
	if (!status) {
		u8 *r = (u8 *)FIRMWARE;

		memcpy(reply, r + HEADER, *(u16 *)(r + 0x36));
		*(u64 *)iv = seqno + 1;
		check(*(u64 *)(r + 0x20) == seqno + 1 && r[0x34] == type + 1 &&
		      gcm_open(vmpck[key], iv, r + AAD, HEADER - AAD, reply,
			       *(u16 *)(r + 0x36), r), "the reply fits the request");
	}
	return status;
}

static void test_messages(void)
{
	u8 first[32], *secrets = (u8 *)FIRMWARE;

	section("SNP GUEST_REQUEST", "Messages are authenticated, in sequence, and answered with the next number.");
	make_firmware(GCTX2);
	command2(GCTX_CREATE, GCTX2, 0);
	command2(SNP_LAUNCH_START, GCTX2, POLICY_OK | BIT(19));
	check_eq(command2(ACTIVATE, GCTX2, 1), ASID_OWNED, "ACTIVATE: ASID of a running guest");
	command2(ACTIVATE, GCTX2, 3);
	make_guest(SECRETS, 0x5000, 3);
	check_eq(launch_update(GCTX2, SECRETS, 5, 0), OK, "LAUNCH_UPDATE: SECRETS");
	clear();
	buf[0] = GCTX2;
	buf[1] = SECRETS;
	buf[2] = FIRMWARE;
	check_eq(command(DBG_DECRYPT), OK, "DBG_DECRYPT as the policy allows");
	check_eq(*(u32 *)secrets, 3, "version of the secrets page");
	memcpy(vmpck, secrets + 0x20, sizeof(vmpck));

	request();
	check_eq(send(REPORT_REQ, 0x60, 1, 0, 0), GUEST_STATE, "GUEST_REQUEST during launch");
	check_eq(command2(LAUNCH_FINISH, GCTX2, 0), OK, "LAUNCH_FINISH");
	request();
	check_eq(send(REPORT_REQ, 0x60, 1, 0, 0x70), BAD_MEASUREMENT, "GUEST_REQUEST: payload was changed");
	request();
	check_eq(send(REPORT_REQ, 0x60, 1, 0, 0x3e), BAD_MEASUREMENT, "GUEST_REQUEST: header was changed");
	request();
	check_eq(send(REPORT_REQ, 0x60, 2, 0, 0), AEAD_OFLOW, "GUEST_REQUEST: sequence number");
	request();
	check_eq(send(REPORT_REQ, 0x68, 1, 0, 0), PARAM, "GUEST_REQUEST: size");
	request();
	check_eq(send(REPORT_REQ, 0x60, 1, 5, 0), PARAM, "GUEST_REQUEST: key 5");
	request();
	check_eq(send(99, 0x60, 1, 0, 0), PARAM, "GUEST_REQUEST: unknown message");

	memcpy(request(), "what the guest wants in its report", 34);
	check_eq(send(REPORT_REQ, 0x60, 1, 0, 0), OK, "GUEST_REQUEST: report");
	check(!*(u32 *)reply && *(u32 *)(reply + 4) == 0x4a0 &&
	      *(u64 *)(reply + 0x28) == (POLICY_OK | BIT(19)) &&
	      !memcmp(reply + 0x70, "what the guest wants in its report", 34),
	      "the report is that of this guest");
	request();
	check_eq(send(REPORT_REQ, 0x60, 1, 0, 0), AEAD_OFLOW, "GUEST_REQUEST: replay");

	request();
	check_eq(send(KEY_REQ, 0x20, 3, 0, 0), OK, "GUEST_REQUEST: key");
	memcpy(first, reply + 0x20, 32);
	request();
	send(KEY_REQ, 0x20, 5, 0, 0);
	check(!memcmp(first, reply + 0x20, 32), "the same key again");
	*(u32 *)(request() + 0x10) = 1;
	send(KEY_REQ, 0x20, 7, 0, 0);
	check(!*(u32 *)reply && memcmp(first, reply + 0x20, 32), "another one for VMPL1");
	request();
	check_eq(send(KEY_REQ, 0x20, 1, 1, 0), OK, "GUEST_REQUEST with VMPCK1");
	check_eq(*(u32 *)reply, PARAM, "VMPL1 does not get the key of VMPL0");

	command2(DECOMMISSION, GCTX2, 0);
	check_eq(send(KEY_REQ, 0x20, 9, 0, 0), GUEST, "GUEST_REQUEST of a guest that is gone");
	command2(RECLAIM, GCTX2, 0);
	make_shared(GCTX2);
	make_shared(SECRETS);
}

static void test_end(void)
{
	section("SNP PAGE_RECLAIM", "RECLAIM gives back pages of firmware and of guests in launch, but not contexts.");
	check_eq(command2(RECLAIM, SCRATCH + 2, 0), PARAM, "RECLAIM: reserved bits");
	check_eq(command2(RECLAIM, FIRMWARE + 1, 0), PAGE_SIZE_ERR, "RECLAIM: page size");
	check_eq(command2(RECLAIM, rdmsr(MSR_RMP_BASE), 0), ADDRESS, "RECLAIM: in the RMP");
	check_eq(command2(RECLAIM, 0xfee00000, 0), CONFIG, "RECLAIM: not RAM");
	check_eq(command2(RECLAIM, GCTX, 0), PAGE_STATE, "RECLAIM of a context page");
	check_eq(command2(RECLAIM, SCRATCH, 0), OK, "RECLAIM of a page of the hypervisor");
	check_eq(command2(RECLAIM, FIRMWARE, 0), OK, "RECLAIM of a page of firmware");
	make_shared(FIRMWARE);

	section("SNP SNP_SHUTDOWN_EX", "Shutdown needs all ASIDs clean.");
	check_eq(command2(SNP_SHUTDOWN_EX, 8 | 1UL << 32, 0), DF_FLUSH, "SHUTDOWN with a guest");
	check_eq(command2(DECOMMISSION, GCTX, 0), OK, "DECOMMISSION");
	check_eq(command2(DECOMMISSION, GCTX, 0), GUEST, "DECOMMISSION again");
	make_guest(GUEST_C, 0x9000, 1);
	make_firmware(FIRMWARE);
	wrong_order("gone", GUEST, GUEST, GUEST, GUEST, GUEST);
	section("SNP SNP_SHUTDOWN_EX", "Shutdown needs all ASIDs clean.");
	command2(RECLAIM, FIRMWARE, 0);
	make_shared(FIRMWARE);
	command2(RECLAIM, GUEST_C, 0);
	make_shared(GUEST_C);
	check_eq(command2(SNP_SHUTDOWN_EX, 8 | 1UL << 32, 0), DF_FLUSH, "SHUTDOWN with a dirty ASID");
	check_eq(command(SNP_DF_FLUSH), WBINVD, "DF_FLUSH: the guest's cache lines");
	on_all(wbinvd);
	check_eq(command(SNP_DF_FLUSH), OK, "DF_FLUSH after WBINVD");
	check_eq(command2(RECLAIM, GCTX, 0), OK, "RECLAIM of what was the context page");
	make_shared(GCTX);
	check_eq(command2(SNP_SHUTDOWN_EX, 9 | 1UL << 32, 0), PARAM, "SHUTDOWN: length");
	check_eq(command2(SNP_SHUTDOWN_EX, 8 | 1UL << 34, 0), PARAM, "SHUTDOWN: reserved flag");
	check_eq(command2(SNP_SHUTDOWN_EX, 8 | 3UL << 32, 0), OK, "SHUTDOWN");
	check(!(rdmsr(MSR_SYSCFG) & SYSCFG_SNP_EN), "SNP is off");
}

/* A command whose buffer is the handle, an address (and another for DBG_DECRYPT), and a length */
static u32 sev(u32 id, u32 handle, u64 addr, u32 length)
{
	clear();
	buf[0] = handle;
	buf[1] = addr;
	buf[2] = length;
	if (id == SEV_DBG_DECRYPT) {
		buf[2] = (u64)out;
		buf[3] = length;
	}
	return command(id);
}

static u32 secret(u64 guest, u32 guest_len, u64 data, u32 data_len)
{
	clear();
	buf[0] = 1;
	buf[3] = guest;
	buf[4] = guest_len;
	buf[5] = data;
	buf[6] = data_len;
	return command(SECRET);
}

/* Guest 1, active and in launch, until it is gone; and another one that keeps the platform working */
static void test_legacy_guest(void)
{
	check_eq(command2(LAUNCH_START, 0, 0), OK, "another guest");
	section("SEV 6", "Launch, debugging and end of a guest: states and lengths.");
	check_eq(sev(UPDATE_DATA, 1, SCRATCH, 8), LENGTH, "LAUNCH_UPDATE_DATA: length not a multiple of 16");
	check_eq(sev(UPDATE_DATA, 9, SCRATCH, 16), GUEST, "LAUNCH_UPDATE_DATA: unknown handle");
	check_eq(sev(UPDATE_DATA, 1, SCRATCH, 16), OK, "LAUNCH_UPDATE_DATA");
	check_eq(secret(SCRATCH + 8, 16, SCRATCH, 16), ADDRESS, "SECRET: alignment, before the state");
	check_eq(secret(SCRATCH, 8, SCRATCH, 16), LENGTH, "SECRET: length of the guest's memory");
	check_eq(secret(SCRATCH, 32, SCRATCH, 16), LENGTH, "SECRET: less data than memory");
	check_eq(secret(SCRATCH, 16, SCRATCH, 16), GUEST_STATE, "SECRET before LAUNCH_MEASURE");
	check_eq(sev(MEASURE, 1, (u64)out, 0x30), OK, "LAUNCH_MEASURE");
	check_eq(sev(MEASURE, 1, (u64)out, 0x30), GUEST_STATE, "LAUNCH_MEASURE again");
	check_eq(sev(UPDATE_DATA, 1, SCRATCH, 16), GUEST_STATE, "LAUNCH_UPDATE_DATA after LAUNCH_MEASURE");
	check_eq(sev(UPDATE_VMSA, 1, SCRATCH, 0x1000), GUEST_STATE, "LAUNCH_UPDATE_VMSA after LAUNCH_MEASURE");
	check_eq(secret(SCRATCH, 16, SCRATCH, 16), BAD_MEASUREMENT, "SECRET of nobody");
	check_eq(command2(FINISH, 1, 0), OK, "LAUNCH_FINISH");
	check_eq(command2(FINISH, 1, 0), GUEST_STATE, "LAUNCH_FINISH again");
	check_eq(command2(SEV_GUEST_STATUS, 1, 0), OK, "GUEST_STATUS");
	check_eq(buf[1] & 0xffffffffffUL, 100 | 3UL << 32, "ASID 100, RUNNING");
	check_eq(command2(SEV_GUEST_STATUS, 9, 0), OK, "GUEST_STATUS of an unknown handle");
	check_eq(buf[1] >> 32 & 0xff, 0, "which is in no state");

	check_eq(sev(SEV_DBG_DECRYPT, 1, SCRATCH + 8, 16), ADDRESS, "DBG_DECRYPT: alignment");
	check_eq(sev(SEV_DBG_DECRYPT, 1, SCRATCH, 8), LENGTH, "DBG_DECRYPT: length");
	check_eq(sev(SEV_DBG_DECRYPT, 9, SCRATCH, 16), GUEST, "DBG_DECRYPT: unknown handle");
	check_eq(sev(SEV_DBG_DECRYPT, 2, SCRATCH, 16), INACTIVE, "DBG_DECRYPT of a guest without an ASID");
	check_eq(sev(SEV_DBG_DECRYPT, 1, SCRATCH, 16), OK, "DBG_DECRYPT");
	check_eq(command2(LAUNCH_START, 1UL << 32, 0), OK, "a guest whose policy forbids debugging");
	check_eq(sev(SEV_DBG_DECRYPT, 3, SCRATCH, 16), POLICY, "DBG_DECRYPT of that one");

	check_eq(command2(SEV_ACTIVATE, 1 | 101UL << 32, 0), ACTIVE, "ACTIVATE again");
	check_eq(command2(SEV_ACTIVATE, 2 | 100UL << 32, 0), ASID_OWNED, "ACTIVATE: ASID of another");
	check_eq(command2(SEV_DEACTIVATE, 1, 0), OK, "DEACTIVATE");
	check_eq(command2(SEV_DEACTIVATE, 1, 0), INACTIVE, "DEACTIVATE again");
	check_eq(command2(SEV_ACTIVATE, 2 | 100UL << 32, 0), DF_FLUSH, "ACTIVATE: the ASID is dirty");
	on_all(wbinvd);
	check_eq(command(SNP_DF_FLUSH), OK, "DF_FLUSH");
	check_eq(command2(SEV_ACTIVATE, 2 | 100UL << 32, 0), OK, "ACTIVATE after it");
	check_eq(command2(SEV_DECOMMISSION, 1, 0), OK, "DECOMMISSION");
	check_eq(command2(SEV_DECOMMISSION, 1, 0), GUEST, "DECOMMISSION again");
}

static void test_legacy(void)
{
	section("SEV 6", "Commands for SEV and SEV-ES guests, in the order of their states.");
	check_eq(command2(INIT, 1, TMR), LENGTH, "INIT: length of the TMR");
	clear();
	buf[0] = 1;
	buf[1] = TMR;
	buf[2] = 0x100000;
	check_eq(command(INIT), OK, "INIT");
	check_eq(command(INIT), PLATFORM_STATE, "INIT again");
	check_eq(command_at(PLATFORM_STATUS, TMR), ADDRESS, "buffer in the TMR");
	check_eq(command2(LAUNCH_START, 5, 0), GUEST, "LAUNCH_START: unknown handle");
	check_eq(command2(LAUNCH_START, BIT(8) << 32, 0), POLICY, "LAUNCH_START: reserved policy bit");
	check_eq(command2(0x21, 1, 0), PLATFORM_STATE, "ACTIVATE without guests");
	check_eq(command2(LAUNCH_START, 0, 0), OK, "LAUNCH_START");
	check_eq(command2(0x31, (u32)buf[0], 0), INACTIVE, "LAUNCH_UPDATE_DATA before ACTIVATE");
	check_eq(command2(0x21, 77, 0), GUEST, "ACTIVATE: unknown handle");
	check_eq(command2(0x21, 1 | 1UL << 32, 0), BAD_ASID, "ACTIVATE: ASID of SEV-ES");
	check_eq(command2(0x21, 1 | 100UL << 32, 0), OK, "ACTIVATE");
	check_eq(command2(0x31, 1, SCRATCH + 8), ADDRESS, "LAUNCH_UPDATE_DATA: alignment");
	check_eq(command2(0x31, 1, SCRATCH), LENGTH, "LAUNCH_UPDATE_DATA: length 0");
	check_eq(command2(0x35, 1, 0), GUEST_STATE, "LAUNCH_FINISH before LAUNCH_MEASURE");
	check_eq(command2(0x33, 1, (u64)out), LENGTH, "LAUNCH_MEASURE: length");
	check_eq((u32)buf[2], 0x30, "LAUNCH_MEASURE says what it needs");
	check_eq(command2(0x32, 1, SCRATCH), LENGTH, "LAUNCH_UPDATE_VMSA: length");
	clear();
	buf[0] = 1;
	buf[1] = SCRATCH;
	buf[2] = 0x1000;
	check_eq(command(0x32), UNSUPPORTED, "LAUNCH_UPDATE_VMSA of a guest without ES");
	check_eq(command2(0x20, 1, 0), ACTIVE, "DECOMMISSION of an active guest");
	test_legacy_guest();
	check_eq(command(SHUTDOWN), OK, "SHUTDOWN drops it");
	check_eq(command2(0x20, 1, 0), PLATFORM_STATE, "DECOMMISSION after that");
}

void test_main(void)
{
	u32 a, b, c, d;

	if (!find_psp())
		skip("no security processor: needs -machine q35,snp-host=on");
	cpuid(0x80000008, 0, &a, &b, &c, &d);
	second_cpu = (c & 0xff) == 1;

	test_mailbox();
	test_no_snp("before SNP_INIT");
	test_no_sev("before INIT");
	test_platform();
	test_certificates();
	test_lengths();
	test_left_out();
	test_snp_init();
	test_launch();
	test_finish();
	test_operands();
	test_unsmash();
	test_messages();
	test_end();
	test_no_snp("after SNP_SHUTDOWN");
	test_legacy();
	test_no_sev("after SHUTDOWN");
	test_done();
}
