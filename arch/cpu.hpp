// Compiler and CPU words: inlining, branch hints, pause, cache line. Every #if on them stands here.
#pragma once

#include <cstddef>

#define WEFT_ALWAYS_INLINE inline __attribute__((always_inline))
#define WEFT_NOINLINE __attribute__((noinline))
#define WEFT_COLD __attribute__((noinline, cold))
#define WEFT_LIKELY(x) __builtin_expect(!!(x), 1)
#define WEFT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define WEFT_INITIAL_EXEC __attribute__((tls_model("initial-exec")))

#if defined(__SANITIZE_THREAD__)
#define WEFT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT_TSAN 1
#endif
#endif
#ifndef WEFT_TSAN
#define WEFT_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define WEFT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEFT_ASAN 1
#endif
#endif
#ifndef WEFT_ASAN
#define WEFT_ASAN 0
#endif

/// For code that runs where TSan's stack of functions must be empty.
#define WEFT_NO_TSAN __attribute__((no_sanitize("thread")))

/// For what polls that the compiler inserts (poll.cpp) lead to.
#if defined(__clang__)
#define WEFT_NO_COVERAGE __attribute__((no_sanitize("coverage")))
#else
#define WEFT_NO_COVERAGE __attribute__((no_sanitize_coverage))
#endif

/// For code that walks foreign stacks or runs between two stacks.
#define WEFT_NO_SANITIZE __attribute__((no_sanitize("address", "thread", "undefined")))

namespace weft::arch {

inline constexpr std::size_t kCacheLine = 64;

/// What stands before it is done before what stands after it, as a signal handler on the same thread sees it. No instruction.
WEFT_ALWAYS_INLINE void order_for_signals() { asm volatile("" ::: "memory"); }

/// Tells the CPU that this is a spin loop.
WEFT_ALWAYS_INLINE void cpu_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#else
#error "arch/cpu.hpp: add this CPU's pause"
#endif
}

}  // namespace weft::arch
