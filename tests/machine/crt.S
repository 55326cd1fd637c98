/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start of a machine test: PVH entry (32-bit, no paging), then 64-bit mode
 * with the first 8G mapped 1:1 in 2M pages, exceptions caught, and main().
 */
	.section .note, "a"
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	start32

	.text
	.code32
	.globl	start32
start32:
	cld
	cli
	movl	$stack_end, %esp

	/* PML4[0] -> PDPT, PDPT[0-7] -> eight PDs, full of 2M pages */
	movl	$pdpt + 7, pml4
	movl	$pd + 7, %eax
	movl	$pdpt, %edi
	movl	$8, %ecx
1:	movl	%eax, (%edi)
	addl	$4096, %eax
	addl	$8, %edi
	loop	1b

	movl	$0x87, %eax
	xorl	%edx, %edx
	movl	$pd, %edi
	movl	$8 * 512, %ecx
1:	movl	%eax, (%edi)
	movl	%edx, 4(%edi)
	addl	$0x200000, %eax
	adcl	$0, %edx
	addl	$8, %edi
	loop	1b

	movl	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: LME, NXE */
	rdmsr
	orl	$0x900, %eax
	wrmsr
	movl	$0x80010033, %eax	/* PG, WP, PE */
	movl	%eax, %cr0
	lgdt	gdt_desc
	ljmp	$8, $start64

	.code64
start64:
	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$24, %eax
	ltr	%ax

	/* IDT: vectors 0-31 */
	leaq	vectors(%rip), %rsi
	leaq	idt(%rip), %rdi
	movl	$32, %ecx
1:	movq	%rsi, %rax
	movw	%ax, (%rdi)
	movw	$8, 2(%rdi)
	movw	$0x8e00, 4(%rdi)
	shrq	$16, %rax
	movw	%ax, 6(%rdi)
	shrq	$16, %rax
	movl	%eax, 8(%rdi)
	addq	$16, %rsi
	addq	$16, %rdi
	loop	1b
	lidt	idt_desc

	call	main
	xorl	%edi, %edi
	.globl	quit
quit:					/* isa-debug-exit, then for ever */
	movl	%edi, %eax
	movl	$0xf4, %edx
	outb	%al, %dx
1:	cli
	hlt
	jmp	1b

	.balign	16
vectors:
	.set	n, 0
	.rept	32
	.balign	16
	/* With error code: 8, 10-14, 17, 21, 29, 30 */
	.if !((1 << n) & ((1 << 8) | (0x1f << 10) | (1 << 17) | (1 << 21) | (3 << 29)))
	pushq	$0
	.endif
	pushq	$n
	jmp	exception
	.set	n, n + 1
	.endr

exception:
	pushq	%rax
	movq	8(%rsp), %rax
	movq	%rax, exc_vector
	movq	16(%rsp), %rax
	movq	%rax, exc_error
	movq	24(%rsp), %rax
	movq	%rax, exc_rip
	movq	%cr2, %rax
	movq	%rax, exc_cr2
	movq	exc_fixup, %rax
	testq	%rax, %rax
	jz	unexpected
	movq	%rax, 24(%rsp)
	popq	%rax
	addq	$16, %rsp
	iretq

	.data
	.balign	16
gdt:	.quad	0
	.quad	0x00af9b000000ffff	/* 8: code, 64 bit */
	.quad	0x00cf93000000ffff	/* 16: data */
	.quad	0x0000890000000067	/* 24: TSS, never used */
	.quad	0
gdt_desc:
	.word	. - gdt - 1
	.quad	gdt
idt_desc:
	.word	32 * 16 - 1
	.quad	idt

	.globl	exc_vector, exc_error, exc_rip, exc_cr2, exc_fixup
exc_vector:	.quad	0
exc_error:	.quad	0
exc_rip:	.quad	0
exc_cr2:	.quad	0
exc_fixup:	.quad	0

	.bss
	.globl	pml4, pdpt, pd
	.balign	4096
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	8 * 4096
idt:	.skip	32 * 16
	.balign	16
	.skip	16384
stack_end:
