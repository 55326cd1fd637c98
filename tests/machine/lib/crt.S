/*
 * Start-up of the machine tests: from PVH entry or SIPI to 64-bit C, with
 * memory mapped one to one.
 *
 * SPDX-License-Identifier: GPL-2.0-only
 */

#define TRAMPOLINE	0x8000
#define CR0_PE		(1 << 0)
#define CR0_NE		(1 << 5)
#define CR0_WP		(1 << 16)
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define EFER_LME	(1 << 8)
#define EFER_NXE	(1 << 11)
#define MSR_EFER	0xc0000080
#define STACK_SIZE	0x10000

	.section .note.pvh, "a", @note
	.align 4
	.long 4, 8, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad start32

	.text
	.code32
	.globl start32
start32:
	cli
	cld
	movl %ebx, start_info		/* PVH: struct hvm_start_info */
	/* 512G by pages of 1G: memory above 4G has the RMP. */
	movl $boot_pdpt + 3, boot_pml4
	xorl %ecx, %ecx
1:	movl %ecx, %eax
	shll $30, %eax
	orl $0x83, %eax
	movl %eax, boot_pdpt(, %ecx, 8)
	movl %ecx, %eax
	shrl $2, %eax
	movl %eax, boot_pdpt + 4(, %ecx, 8)
	incl %ecx
	cmpl $512, %ecx
	jne 1b
	movl $bsp_stack + STACK_SIZE, %esp
	movl $bsp_entry, %edi
	jmp to_64bit

/* %esp and %edi: stack and 64-bit entry point, both below 4G */
to_64bit:
	movl $CR4_PAE, %eax
	movl %eax, %cr4
	movl $boot_pml4, %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	movl $(EFER_LME | EFER_NXE), %eax
	xorl %edx, %edx
	wrmsr
	movl $(CR0_PG | CR0_WP | CR0_NE | CR0_PE), %eax
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $0x08, $1f
	.code64
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl %esp, %esp
	movl %edi, %edi
	lidt idt_pointer(%rip)
	xorl %ebp, %ebp
	call *%rdi
1:	hlt
	jmp 1b

/* Copied to TRAMPOLINE, where the other CPU starts in real mode. */
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl TRAMPOLINE + (3f - ap_trampoline)
	movl $CR0_PE, %eax
	movl %eax, %cr0
	ljmpl $0x18, $1f
3:	.word gdt_end - gdt - 1
	.long gdt
ap_trampoline_end:
	.code32
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $ap_stack + STACK_SIZE, %esp
	movl $ap_entry, %edi
	jmp to_64bit

	.code64
/*
 * One entry for each vector: error code (or 0) and vector on the stack, then
 * all registers; trap() in C gets a pointer to them.
 */
	.align 16
	.globl vector_stubs
vector_stubs:
	.set v, 0
	.rept 256
	.align 16
	.if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
	pushq $0
	.endif
	pushq $v
	jmp common_stub
	.set v, v + 1
	.endr

common_stub:
	pushq %r15
	pushq %r14
	pushq %r13
	pushq %r12
	pushq %r11
	pushq %r10
	pushq %r9
	pushq %r8
	pushq %rbp
	pushq %rdi
	pushq %rsi
	pushq %rdx
	pushq %rcx
	pushq %rbx
	pushq %rax
	movq %rsp, %rdi
	movq %rsp, %rbp
	andq $-16, %rsp
	cld
	call trap
	movq %rbp, %rsp
	popq %rax
	popq %rbx
	popq %rcx
	popq %rdx
	popq %rsi
	popq %rdi
	popq %rbp
	popq %r8
	popq %r9
	popq %r10
	popq %r11
	popq %r12
	popq %r13
	popq %r14
	popq %r15
	addq $16, %rsp
	iretq

/*
 * void svm_vmrun(u64 vmcb_pa, u64 *gprs, u64 hsave_pa)
 *
 * VMRUN with GIF clear before and after; gprs[] is rcx rdx rbx rbp rsi rdi
 * r8-r15. Everything else the caller keeps is put where #VMEXIT of a SEV-ES
 * guest takes it from, so that one path serves all guests (15.35.2, type B).
 */
	.globl svm_vmrun
svm_vmrun:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushq %rsi
	pushq %rdi
	movq %rdx, %rax
	clgi
	vmsave %rax
	movl $1, 0x7e8(%rdx)		/* XCR0 */
	movl $0, 0x7ec(%rdx)
	movq %rbp, 0x728(%rdx)
	movq %rsi, 0x730(%rdx)
	movq %rdi, %rax
	movq 0(%rsi), %rcx
	movq 8(%rsi), %rdx
	movq 16(%rsi), %rbx
	movq 24(%rsi), %rbp
	movq 40(%rsi), %rdi
	movq 48(%rsi), %r8
	movq 56(%rsi), %r9
	movq 64(%rsi), %r10
	movq 72(%rsi), %r11
	movq 80(%rsi), %r12
	movq 88(%rsi), %r13
	movq 96(%rsi), %r14
	movq 104(%rsi), %r15
	movq 32(%rsi), %rsi
	vmrun %rax
	pushq %rsi
	movq 16(%rsp), %rsi
	movq %rcx, 0(%rsi)
	movq %rdx, 8(%rsi)
	movq %rbx, 16(%rsi)
	movq %rbp, 24(%rsi)
	movq %rdi, 40(%rsi)
	movq %r8, 48(%rsi)
	movq %r9, 56(%rsi)
	movq %r10, 64(%rsi)
	movq %r11, 72(%rsi)
	movq %r12, 80(%rsi)
	movq %r13, 88(%rsi)
	movq %r14, 96(%rsi)
	movq %r15, 104(%rsi)
	popq %rax
	movq %rax, 32(%rsi)
	stgi
	popq %rdi
	popq %rsi
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.data
	.align 16
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 08: 64-bit code */
	.quad 0x00cf93000000ffff	/* 10: data */
	.quad 0x00cf9b000000ffff	/* 18: 32-bit code */
	.globl gdt_tss
gdt_tss:
	.quad 0, 0			/* 20: TSS */
gdt_end:
	.globl gdt_pointer
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt
	.globl idt_pointer
idt_pointer:
	.word 256 * 16 - 1
	.quad idt

	.bss
	.align 4096
boot_pml4:	.skip 4096
boot_pdpt:	.skip 4096
	.globl idt
idt:		.skip 256 * 16
bsp_stack:	.skip STACK_SIZE
ap_stack:	.skip STACK_SIZE

	.section .note.GNU-stack, "", @progbits
