// What stacks ask of the kernel: reservations, guards of three kinds, and the sanitizers' view of a pooled stack.
//
// Every call is an answer: false or null means that the kernel refused, errno says why.
// Reservation  NORESERVE and readable. Where the kernel accounts for it all the same (strict overcommit) the range is taken
//              without access and made accessible piece by piece: `needs_commit`.
// Install      MADV_GUARD_INSTALL (Linux 6.13): no VMA, no memory, raises SIGSEGV. Survives MADV_DONTNEED.
// Hole         A range registered with userfaultfd in its SIGBUS mode: pages that nobody filled raise SIGBUS. All but the
//              guard is filled with the zero page, after which it grows like ordinary memory. A filled page that is
//              given back must be filled again.
#pragma once

#include <cstddef>

#include "arch/sanitizer.hpp"

namespace weft::arch {

/// The smallest piece a guard can have.
inline constexpr std::size_t kPageBytes = 4096;

/// How much address space one reservation may take: a share of RLIMIT_AS where there is one. Never more than `wish`.
std::size_t reservation_limit(std::size_t wish);

/// `bytes` of zeroes without huge pages; null: refused. `*needs_commit`: nothing of it is accessible yet.
char* reserve_range(std::size_t bytes, bool* needs_commit);
bool commit_range(char* lo, std::size_t bytes);
void release_range(char* lo, std::size_t bytes);
/// Gives the pages back; the range reads as zeroes afterwards (of a hole range: has to be filled again).
bool empty_range(char* lo, std::size_t bytes);

/// `bytes` (a power of two) of zeroes at a multiple of their size, on huge pages if `huge`; null: refused.
char* map_chunk(std::size_t bytes, bool huge);
void unmap_chunk(char* chunk, std::size_t bytes);

struct Range {
  char* lo;
  std::size_t bytes;
};
/// empty_range() of many: one call where the kernel has it.
bool empty_ranges(const Range* ranges, std::size_t n);

bool install_guard(char* lo, std::size_t bytes);
/// install_guard works here and guards.
bool probe_install_guard();
bool deny_access(char* lo, std::size_t bytes);
bool allow_access(char* lo, std::size_t bytes);

/// A userfaultfd in SIGBUS mode, or -1.
int open_holes();
void close_holes(int fd);
bool register_holes(int fd, char* lo, std::size_t bytes);
bool unregister_holes(int fd, char* lo, std::size_t bytes);
/// Makes a piece of a registered range usable.
bool fill_hole(int fd, char* lo, std::size_t bytes);

/// A stack is about to run code for the first time since it was carved: TSan's fiber (0.5 ms, 843 KiB) is made here.
WEFT_ALWAYS_INLINE void san_ready_stack([[maybe_unused]] SanStack& s) {
#if WEFT_TSAN
  if (WEFT_UNLIKELY(!s.fiber)) s.fiber = san_create_fiber();
#endif
}

/// The stack ceases to exist; and its range, which whatever comes to lie there next must not find poisoned.
void san_forget_stack(SanStack& s);
void san_forget_range(char* lo, std::size_t bytes);

/// Stacks of one reservation that the sanitizers have room for; 0: no limit.
#if WEFT_TSAN
inline constexpr std::size_t kSanStacksMax = 8192;
#else
inline constexpr std::size_t kSanStacksMax = 0;
#endif

}  // namespace weft::arch
