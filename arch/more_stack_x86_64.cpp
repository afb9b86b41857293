// x86-64: __morestack, what a function built with -fsplit-stack calls when its stack may not do. Library
// weft-segmented.
//
// Call       r10: bytes of the function's frame, r11: bytes of its arguments on the stack, rax: its static chain or
//            count of vector registers; everything else as the function was called. Behind the call stands a `ret`, one
//            byte, then the rest of the function. So: find a place, copy the arguments, call what stands behind the
//            `ret`; when that has returned go back to the `ret`, which returns from the function.
// Frame      rbp as in every frame, on the stack that was left; the unwinder finds all by it. Functions with variable
//            arguments find those that were not copied at rbp + 24 (`lea 24(%rbp), %r11` behind the `ret`).
//
//              rbp+24  arguments on the stack
//              rbp+16  where the function returns to
//              rbp+8   the `ret` behind the call
//              rbp     its caller's rbp
//              rbp-8   SplitCall::guard
//              rbp-16  SplitCall::segment
//              rbp-80  rax rdi rsi rdx rcx r8 r9 r11, downwards from rbp-24
//              below   vector registers: arguments, and at the end results. All of them, as wide as the CPU has them.
//
// Word       is 0 while the runtime is asked, since the linker may have taken the runtime's copies of templates from
//            code that asks.
// Return     Two loads and two compares, if there is nothing to give back (Segment::newer and ::blocks,
//            core/segments.hpp).
// Unwinding  goes from __morestack to the function's caller: the CFA is that of the function. The `ret` between them
//            has no entry in the function's table of calls, and an exception that passed it would be std::terminate. So
//            the function, whose rest stands below, is in a traceback once; not at all while the runtime is being
//            asked.
// Throw      What is thrown through lands at 3: below, which does the same and lets it go on.
// non_split  What lld and gold put in place of __morestack in functions that call code built without -fsplit-stack:
//            with 16 KiB to spare the function goes on where it is. A return into another place than the call's costs a
//            misprediction, 5 ns; a jump would leave the return predictor one off for all frames above.
// Threads    Linked with -fsplit-stack, gcc sends calls of pthread_create to __wrap_pthread_create. libgcc's gives the
//            new thread segments and brings libgcc's __morestack along; ours leaves threads the stack that they were
//            made with.
// gdb        knows the name and steps from one segment to the other by it.
#include "arch/more_stack.hpp"

#if defined(__x86_64__)

#include <pthread.h>

extern "C" {
/// The real one where the linker makes the difference, else null.
__attribute__((weak)) int __real_pthread_create(pthread_t* out, const pthread_attr_t* attr, void* (*fn)(void*),
                                                void* arg);
__attribute__((visibility("hidden"))) int __wrap_pthread_create(pthread_t* out, const pthread_attr_t* attr,
                                                                void* (*fn)(void*), void* arg);

int __wrap_pthread_create(pthread_t* out, const pthread_attr_t* attr, void* (*fn)(void*), void* arg) {
  return __real_pthread_create(out, attr, fn, arg);
}

/// 0: SSE, 1: AVX, 2: AVX-512.
__attribute__((visibility("hidden"))) unsigned char weft_vector_kind;
}

namespace {

__attribute__((constructor(101))) WEFT_NO_SANITIZE void tell_runtime() {
  __builtin_cpu_init();
  weft_vector_kind = __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx") ? 1 : 0;
  weft_has_more_stack();
}

}  // namespace

asm(R"(
	.macro WEFT_VECTORS sse avx avx512
	cmpb	$1, weft_vector_kind(%rip)
	je	8f
	ja	9f
	\sse
	jmp	7f
8:	\avx
	jmp	7f
9:	\avx512
7:
	.endm

	.macro WEFT_SAVE op reg width
	\op	%\reg\()0, 0*\width(%rsp)
	\op	%\reg\()1, 1*\width(%rsp)
	\op	%\reg\()2, 2*\width(%rsp)
	\op	%\reg\()3, 3*\width(%rsp)
	\op	%\reg\()4, 4*\width(%rsp)
	\op	%\reg\()5, 5*\width(%rsp)
	\op	%\reg\()6, 6*\width(%rsp)
	\op	%\reg\()7, 7*\width(%rsp)
	.endm

	.macro WEFT_RESTORE op reg width
	\op	0*\width(%rsp), %\reg\()0
	\op	1*\width(%rsp), %\reg\()1
	\op	2*\width(%rsp), %\reg\()2
	\op	3*\width(%rsp), %\reg\()3
	\op	4*\width(%rsp), %\reg\()4
	\op	5*\width(%rsp), %\reg\()5
	\op	6*\width(%rsp), %\reg\()6
	\op	7*\width(%rsp), %\reg\()7
	.endm

	.macro WEFT_SAVE_VECTORS
	WEFT_VECTORS "WEFT_SAVE movaps xmm 16", "WEFT_SAVE vmovaps ymm 32", "WEFT_SAVE vmovaps zmm 64"
	.endm
	.macro WEFT_RESTORE_VECTORS
	WEFT_VECTORS "WEFT_RESTORE movaps xmm 16", "WEFT_RESTORE vmovaps ymm 32", "WEFT_RESTORE vmovaps zmm 64"
	.endm

	.macro WEFT_ROOM
	leaq	-656(%rbp), %rsp
	andq	$-64, %rsp
	.endm

	.text
	.p2align 4
	.globl	__morestack_non_split
	.hidden	__morestack_non_split
	.type	__morestack_non_split, @function
__morestack_non_split:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	pushq	%rax
	.cfi_adjust_cfa_offset 8
	leaq	-16384(%rsp), %rax
	subq	%r10, %rax
	cmpq	%fs:0x70, %rax
	popq	%rax
	.cfi_adjust_cfa_offset -8
	jb	1f
	movq	(%rsp), %r10
	cmpl	$0x185d8d4c, 1(%r10)
	je	2f
	incq	(%rsp)
	ret
2:	leaq	16(%rsp), %r11
	addq	$5, (%rsp)
	ret
1:	addq	$16384, %r10
	jmp	__morestack
	.cfi_endproc
	.size	__morestack_non_split, . - __morestack_non_split

	.p2align 4
	.globl	__morestack
	.hidden	__morestack
	.type	__morestack, @function
__morestack:
.Lweft_start:
	.cfi_startproc
	.cfi_personality 0x9b, .Lweft_personality
	.cfi_lsda 0x1b, .Lweft_lsda
	.cfi_def_cfa_offset 16
	pushq	%rbp
	.cfi_def_cfa_offset 24
	.cfi_offset %rbp, -24
	movq	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	WEFT_ROOM
	movq	%rax, -24(%rbp)
	movq	%rdi, -32(%rbp)
	movq	%rsi, -40(%rbp)
	movq	%rdx, -48(%rbp)
	movq	%rcx, -56(%rbp)
	movq	%r8, -64(%rbp)
	movq	%r9, -72(%rbp)
	movq	%r11, -80(%rbp)
	WEFT_SAVE_VECTORS
	movq	%fs:0x70, %rax
	movq	%rax, -8(%rbp)
	movq	$0, %fs:0x70
	movq	%r10, %rdi
	movq	%r11, %rsi
	movq	%rbp, %rdx
	leaq	-16(%rbp), %rcx
	call	weft_more_stack@PLT
	testq	%rax, %rax
	cmovzq	%rsp, %rax
	movq	-80(%rbp), %rcx
	subq	%rcx, %rax
	andq	$-16, %rax
	movq	%rax, %r10
	movq	%rax, %rdi
	leaq	24(%rbp), %rsi
	rep movsb
	WEFT_RESTORE_VECTORS
	movq	-24(%rbp), %rax
	movq	-32(%rbp), %rdi
	movq	-40(%rbp), %rsi
	movq	-48(%rbp), %rdx
	movq	-56(%rbp), %rcx
	movq	-64(%rbp), %r8
	movq	-72(%rbp), %r9
	movq	%r10, %rsp
	movq	8(%rbp), %r10
	incq	%r10
.Lweft_call:
	call	*%r10
.Lweft_called:
	movq	-8(%rbp), %rcx
	movq	%rcx, %fs:0x70
	movq	-16(%rbp), %rcx
	testq	%rcx, %rcx
	jz	1f
	cmpq	$0, 16(%rcx)
	jne	2f
	cmpq	$0, 24(%rcx)
	jne	2f
1:	leave
	.cfi_remember_state
	.cfi_def_cfa %rsp, 16
	ret
	.cfi_restore_state

2:	WEFT_ROOM
	movq	%rax, -24(%rbp)
	movq	%rdx, -48(%rbp)
	WEFT_SAVE_VECTORS
	movq	$0, %fs:0x70
	movq	%rcx, %rdi
	call	weft_less_stack@PLT
	movq	-8(%rbp), %rcx
	movq	%rcx, %fs:0x70
	WEFT_RESTORE_VECTORS
	movq	-24(%rbp), %rax
	movq	-48(%rbp), %rdx
	leave
	.cfi_remember_state
	.cfi_def_cfa %rsp, 16
	ret
	.cfi_restore_state

3:	WEFT_ROOM
	movq	%rax, -24(%rbp)
	movq	$0, %fs:0x70
	movq	-16(%rbp), %rdi
	testq	%rdi, %rdi
	jz	4f
	call	weft_less_stack@PLT
4:	movq	-8(%rbp), %rcx
	movq	%rcx, %fs:0x70
	movq	-24(%rbp), %rdi
.Lweft_resume:
	call	_Unwind_Resume@PLT
.Lweft_resumed:
	ud2
	.cfi_endproc
	.size	__morestack, . - __morestack

	.section .gcc_except_table, "a", @progbits
	.p2align 2
.Lweft_lsda:
	.byte	0xff
	.byte	0xff
	.byte	0x01
	.uleb128 .Lweft_sites_end - .Lweft_sites
.Lweft_sites:
	.uleb128 .Lweft_call - .Lweft_start
	.uleb128 .Lweft_called - .Lweft_call
	.uleb128 3b - .Lweft_start
	.uleb128 0
	.uleb128 .Lweft_resume - .Lweft_start
	.uleb128 .Lweft_resumed - .Lweft_resume
	.uleb128 0
	.uleb128 0
.Lweft_sites_end:

	.section .data.rel.local, "aw", @progbits
	.p2align 3
.Lweft_personality:
	.quad	__gxx_personality_v0
	.text
)");

#endif
