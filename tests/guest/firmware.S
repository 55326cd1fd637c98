/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The smallest firmware that QEMU launches as an SEV-SNP guest: from the reset
 * vector to guest_main() in long mode.
 *
 * Virtual addresses: 0-1 GiB and 3-4 GiB are private and identical to guest
 * physical ones; 1-2 GiB is 0-1 GiB once more, shared. The memory that is
 * validated before the guest starts is the one that the metadata names.
 */
#define C_BIT	0x0008000000000000
#define PAGE	0x23	/* present, writable, accessed */
#define LARGE	0xe3	/* and dirty, 1 GiB */
#define MEMORY	0x10000
#define SIZE	0x10000

	.section .choice, "a"
	.globl choice
choice:	.byte 0		/* the runner writes the case's number here */

	.section .tables, "a"
	.balign 4096
pml4:	.quad 0xffff2000 + PAGE + C_BIT
	.fill 511, 8, 0
pdpt:	.quad 0x00000000 + LARGE + C_BIT
	.quad 0x00000000 + LARGE
	.quad 0
	.quad 0xc0000000 + LARGE + C_BIT
	.fill 508, 8, 0

	.section .text
	.balign 16
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	/* 08: 32-bit code */
	.quad 0x00cf93000000ffff	/* 10: data */
	.quad 0x00af9b000000ffff	/* 18: 64-bit code */
gdtr:	.word gdtr - gdt - 1
	.long gdt

	.code16
start:	lgdtl %cs:(gdtr - 0xffff0000)
	movl $0x11, %eax
	movl %eax, %cr0
	ljmpl $0x08, $start32

	.code32
start32:
	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x6a0, %eax		/* PAE, PGE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $pml4, %eax		/* CR3 bit 51: the table is encrypted */
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80000011, %eax
	movl %eax, %cr0
	ljmpl $0x18, $start64

	.code64
start64:
	movl $pml4, %eax
	movq $C_BIT, %rcx
	orq %rcx, %rax
	movq %rax, %cr3
	movq $(MEMORY + SIZE), %rsp
	movabsq $guest_main, %rax
	call *%rax
1:	hlt
	jmp 1b

/*
 * The GUIDed table of OVMF, which ends 32 bytes below the end. Each entry is
 * its data, the length of the entry and its GUID.
 */
	.section .footer, "a"
metadata:
	.ascii "ASEV"
	.long metadata_end - metadata
	.long 1, 1
	.long MEMORY, SIZE, 1		/* memory to be validated */
metadata_end:
	.org 0xe0 - 62
table:
	/* Offset of the metadata from the end: dc886566-984a-4798-A75e-5585a7bf67cc */
	.long 0x100
	.word 22
	.byte 0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc
	/* Where other vCPUs would start: 00f771de-1a7e-4fcb-890e-68c77e2fb44e */
	.long 0xfffffff0
	.word 22
	.byte 0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e
	/* The footer: 96b582de-1fb2-45f7-baea-a366c55a082d */
	.word table_end - table
	.byte 0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d
table_end:
	.if table_end - table - 62
	.error "the table is not where QEMU looks for it"
	.endif

	.section .reset, "ax"
	.code16
	.globl reset
reset:	.byte 0xe9			/* jmp start, in 16 bits */
	.word start - (reset + 3)
