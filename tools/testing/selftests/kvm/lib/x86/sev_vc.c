// SPDX-License-Identifier: GPL-2.0-only
/*
 * #VC handler for SEV-ES and SEV-SNP selftest guests (APM volume 2, 15.35.5).
 *
 * Turns an intercepted instruction into the NAE event that the GHCB spec defines
 * for it.  The error code of a #VC is the exit code; everything else comes from
 * the instruction.  Decodes what selftests use: MMIO and string I/O they can ask
 * for by calling ghcb.h directly.
 */
#include "ghcb.h"
#include "sev.h"

static void vc_finish(struct ex_regs *regs, struct ghcb_request *req,
		      enum ghcb_status status, u32 insn_len)
{
	switch (status) {
	case GHCB_OK:
		regs->rip += insn_len;
		break;
	case GHCB_EXCEPTION:
		regs->vector = req->exit_info_2 & 0xff;
		regs->error_code = req->exit_info_2 >> 32;
		route_exception(regs);
		break;
	default:
		GUEST_FAIL("NAE event %#lx at RIP %#lx refused, status %u, error %lu",
			   regs->error_code, regs->rip, status, req->exit_info_2);
	}
}

static void vc_cpuid(struct ex_regs *regs)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_CPUID,
		.reg[GHCB_RAX] = (u32)regs->rax,
		.reg[GHCB_RCX] = (u32)regs->rcx,
		.reg[GHCB_XCR0] = 1,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_XCR0),
	};
	enum ghcb_status status;

	/* KVM takes XCR0 over from the GHCB: it must be the real one. */
	if (get_cr4() & X86_CR4_OSXSAVE)
		req.reg[GHCB_XCR0] = xgetbv(0);

	status = ghcb_vmgexit(&req);
	if (!status) {
		regs->rax = (u32)req.reg[GHCB_RAX];
		regs->rbx = (u32)req.reg[GHCB_RBX];
		regs->rcx = (u32)req.reg[GHCB_RCX];
		regs->rdx = (u32)req.reg[GHCB_RDX];
	}
	vc_finish(regs, &req, status, 2);
}

static void vc_msr(struct ex_regs *regs)
{
	bool write = ((u8 *)regs->rip)[1] == 0x30;
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_MSR,
		.exit_info_1 = write,
		.reg[GHCB_RAX] = (u32)regs->rax,
		.reg[GHCB_RCX] = (u32)regs->rcx,
		.reg[GHCB_RDX] = (u32)regs->rdx,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RCX) | BIT(GHCB_RDX),
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	if (!status && !write) {
		regs->rax = (u32)req.reg[GHCB_RAX];
		regs->rdx = (u32)req.reg[GHCB_RDX];
	}
	vc_finish(regs, &req, status, 2);
}

/* IN and OUT, with an immediate port or DX, and an operand size prefix. */
static void vc_ioio(struct ex_regs *regs)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_IOIO,
		.reg[GHCB_RAX] = regs->rax,
		.valid = BIT(GHCB_RAX),
	};
	const u8 *insn = (u8 *)regs->rip;
	enum ghcb_status status;
	u64 mask = GENMASK(31, 0);
	u32 len = 1;
	u16 port;

	if (*insn == 0x66) {
		mask = GENMASK(15, 0);
		insn++;
		len++;
	}

	/* 111xd0iw: x = port in DX, else an immediate; d = out; i = 0. */
	switch (*insn) {
	case 0xe4 ... 0xe7:
		port = insn[1];
		len++;
		break;
	case 0xec ... 0xef:
		port = regs->rdx;
		break;
	default:
		GUEST_FAIL("Can't decode port I/O at RIP %#lx: %#x", regs->rip, *insn);
		return;
	}

	if (!(*insn & 1))
		mask = GENMASK(7, 0);

	req.exit_info_1 = (u64)port << 16 | GHCB_IOIO_A64;
	req.exit_info_1 |= mask == GENMASK(7, 0) ? GHCB_IOIO_SZ8 :
			   mask == GENMASK(15, 0) ? GHCB_IOIO_SZ16 : GHCB_IOIO_SZ32;
	if (!(*insn & 2))
		req.exit_info_1 |= GHCB_IOIO_IN;

	status = ghcb_vmgexit(&req);
	if (!status && !(*insn & 2)) {
		/* A write of EAX clears the upper half, of AX or AL nothing. */
		if (mask == GENMASK(31, 0))
			regs->rax = 0;
		regs->rax = (regs->rax & ~mask) | (req.reg[GHCB_RAX] & mask);
	}
	vc_finish(regs, &req, status, len);
}

static void vc_vmmcall(struct ex_regs *regs)
{
	struct ghcb_request req = {
		.exit_code = SVM_EXIT_VMMCALL,
		.reg[GHCB_RAX] = regs->rax,
		.reg[GHCB_RBX] = regs->rbx,
		.reg[GHCB_RCX] = regs->rcx,
		.reg[GHCB_RDX] = regs->rdx,
		.reg[GHCB_RSI] = regs->rsi,
		.reg[GHCB_CPL] = regs->cs & 3,
		.valid = BIT(GHCB_RAX) | BIT(GHCB_RBX) | BIT(GHCB_RCX) |
			 BIT(GHCB_RDX) | BIT(GHCB_RSI) | BIT(GHCB_CPL),
	};
	enum ghcb_status status = ghcb_vmgexit(&req);

	if (!status)
		regs->rax = req.reg[GHCB_RAX];
	vc_finish(regs, &req, status, 3);
}

/* No operands and no results, e.g. WBINVD. */
static void vc_plain(struct ex_regs *regs, u32 insn_len)
{
	struct ghcb_request req = { .exit_code = regs->error_code };

	vc_finish(regs, &req, ghcb_vmgexit(&req), insn_len);
}

/*
 * MMIO by MOV between EAX and memory at RDX, with a virtual address that is the physical one,
 * see mmio_read() and mmio_write().
 */
static void vc_mmio(struct ex_regs *regs)
{
	const u8 *insn = (u8 *)regs->rip;
	enum ghcb_status status;
	u32 val = regs->rax;

	if ((insn[0] != 0x89 && insn[0] != 0x8b) || insn[1] != 0x02)
		GUEST_FAIL("Can't decode MMIO at RIP %#lx: %#x %#x", regs->rip, insn[0], insn[1]);

	if (insn[0] == 0x89) {
		status = ghcb_mmio_write(regs->rdx, &val, sizeof(val));
	} else {
		status = ghcb_mmio_read(regs->rdx, &val, sizeof(val));
		regs->rax = val;
	}
	if (status)
		GUEST_FAIL("MMIO at %#lx refused, status %u", regs->rdx, status);
	regs->rip += 2;
}

void sev_vc_handler(struct ex_regs *regs)
{
	switch (regs->error_code) {
	case SVM_EXIT_NPF:
		vc_mmio(regs);
		break;
	case SVM_EXIT_CPUID:
		vc_cpuid(regs);
		break;
	case SVM_EXIT_MSR:
		vc_msr(regs);
		break;
	case SVM_EXIT_IOIO:
		vc_ioio(regs);
		break;
	case SVM_EXIT_VMMCALL:
		vc_vmmcall(regs);
		break;
	case SVM_EXIT_INVD:
	case SVM_EXIT_WBINVD:
		vc_plain(regs, 2);
		break;
	default:
		/* HLT isn't here: it is an automatic exit (APM 15.35.4). */
		GUEST_FAIL("Unexpected #VC, error code %#lx at RIP %#lx",
			   regs->error_code, regs->rip);
	}
}
