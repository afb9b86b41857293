// Stacks: the interface that knows kinds, and the growable kind.
//
// A stack is a StackSlot: a record in a dense side table, never on the stack itself, that lives as long as its address range
// does. A P binds a slot to a G when the G first runs and takes it back at exit.
//
// Growable   Own virtual range out of NORESERVE reservations, one set per size class; committed on touch; guarded at its
//            low end; kept in a LIFO per P (hot) and a central list per class (stack_pool.cpp). Nothing is madvised on
//            the free path. Above 1 MiB: an own mapping, up to 1 GiB.
// Size       A class is the distance between two stacks and includes the guard, as pthread_attr_setstacksize counts: the
//            page tables of a guard beside the class would cost each default stack 32 bytes. An own mapping's guard
//            lies outside.
// Hibernated A growable one whose top page has been taken away while its goroutine is parked (hibernate.cpp).
// Copyable   A growable stack that many goroutines share in turn (run_slot.cpp).
// Guards     guard.cpp: the ladder install > hole > mprotect > canary, probed once, forced by WEFT_GUARD.
// Lookup     find_stack(address): the slot whose range (guard included) holds it; async-signal-safe, lock-free.
// Ownership  A slot is in exactly one place: a P's cache, the central list, or bound to a G. `owner` is set by the P that
//            binds; stack_release() clears it. A fault handler reads it on the owner's own thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/sanitizer.hpp"
#include "arch/stack_memory.hpp"
#include "runtime/base/atomic.hpp"

namespace weft::rt {

struct G;

enum class StackKind : std::uint8_t { Growable, Copyable, Segmented };

inline constexpr unsigned kStackClasses = 4;  // 16K, 64K, 256K, 1M
inline constexpr std::size_t kStackClassBytes[kStackClasses] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};
// Installing 4 pages costs what 1 does, 16 hardly more; a frame larger than this can jump over the guard unless it was
// compiled with -fstack-clash-protection.
inline constexpr std::size_t kStackGuardBytes[kStackClasses] = {4 << 10, 16 << 10, 32 << 10, 64 << 10};
inline constexpr unsigned kStacksAtOnce = 32;  // are carved
inline constexpr std::uint8_t kOwnMapping = 255;  // "class" of a stack above 1 MiB
inline constexpr std::size_t kOwnGuardBytes = 256 << 10;
inline constexpr std::size_t kStackBytesMax = std::size_t{1} << 30;

enum class GuardKind : std::uint8_t { Auto, Install, Hole, Mprotect, Canary };

struct StackSlot {
  char* lo = nullptr;  // lowest usable byte; the guard lies below
  char* hi = nullptr;  // top
  std::atomic<G*> owner{nullptr};
  std::uint32_t next = 0;  // in the central list: which slot, packed (stack_pool.cpp); 0: none. Of a run slot: which
  std::uint8_t cls = 0;
  StackKind kind = StackKind::Growable;
  GuardKind guard = GuardKind::Canary;  // what protects this one (a ladder may change rung while it grows)
  bool used = false;                    // was handed out: its top page is committed
  bool may_hibernate = false;           // who lies on it now
  std::atomic<std::uintptr_t> away{0};  // where its top page is: core/hibernate.hpp
  [[no_unique_address]] arch::SanStack san;
#ifndef NDEBUG
  /// Of obs/tls_watch.cpp: which goroutine of which run this stack carried last, and the TLS block of the thread it ran on.
  struct RanOn {
    std::uint64_t goroutine = 0;
    std::int64_t run = 0;
    std::uintptr_t tls_lo = 0;
    std::uintptr_t tls_hi = 0;
  } ran_on;
#endif

  /// Usable bytes.
  std::size_t bytes() const { return static_cast<std::size_t>(hi - lo); }
  /// Lowest byte of the guard.
  char* bottom() const { return cls == kOwnMapping ? lo - kOwnGuardBytes : hi - kStackClassBytes[cls]; }
  /// Where its first frame begins. Stacks lie at multiples of their class, so without the shift the hot frames of all of them
  /// would share a few sets of the caches (the sieve's 2,000 goroutines: 105 ms instead of 85). It stays well inside the top
  /// page, which is committed anyway.
  char* start() const {
    constexpr std::uintptr_t kColours = 16, kStep = 64;
    if (cls == kOwnMapping) return hi;
    return hi - (reinterpret_cast<std::uintptr_t>(hi) >> (14 + 2 * cls)) % kColours * kStep;
  }
  /// The size as users ask for it.
  std::size_t limit() const { return cls == kOwnMapping ? bytes() : kStackClassBytes[cls]; }
};

/// Hot stacks of one class, the runtime's default, of one P. Only the P's owner touches it.
struct StackCache {
  static constexpr unsigned kCapacity = 64;
  StackSlot* slots[kCapacity];
  unsigned count = 0;
  std::uint8_t cls = 2;
};

/// The class for a stack of `bytes` (kOwnMapping above the largest).
std::uint8_t stack_class(std::size_t bytes);

StackSlot* stack_acquire_slow(StackCache* cache, std::uint8_t cls, std::size_t bytes);
void stack_release_slow(StackCache* cache, StackSlot* s);

/// Takes a stack: the P's hottest if the cache is of this class, else half a cache from the central list, else newly carved
/// ones. `cache` may be null (no P at hand). `bytes` counts for own mappings only. Null: the kernel refuses memory now.
WEFT_ALWAYS_INLINE StackSlot* stack_acquire(StackCache* cache, std::uint8_t cls, std::size_t bytes) {
  if (WEFT_LIKELY(cache && cache->cls == cls && cache->count > 0)) {
    StackSlot* s = cache->slots[--cache->count];
    arch::san_ready_stack(s->san);
    return s;
  }
  return stack_acquire_slow(cache, cls, bytes);
}

/// Gives one back, its owner still set: the check of a canary names it. Overfull caches hand half to the central list. Own
/// mappings are unmapped.
WEFT_ALWAYS_INLINE void stack_release(StackCache* cache, StackSlot* s) {
  if (WEFT_LIKELY(cache && cache->cls == s->cls && cache->count < StackCache::kCapacity && s->guard != GuardKind::Canary)) {
    s->owner.store(nullptr, memory_order_relaxed);
    cache->slots[cache->count++] = s;
    return;
  }
  stack_release_slow(cache, s);
}

/// More is resident than was asked for (sched/hibernator.cpp): pages of stacks that are given back go back to the kernel. Changed under Sched::mu.
extern std::atomic<bool> memory_short;

/// One that somebody has had already: it commits no page that is not committed. A hint.
bool stack_at_hand(const StackCache* cache, std::uint8_t cls);

/// Everything in the cache goes to the central list (a P is retired).
void stack_flush(StackCache* cache, std::uint8_t cls);

/// The slot that holds `addr` in its guard or its range, or null. Async-signal-safe.
StackSlot* find_stack(const void* addr);
/// True if `addr` lies in the guard below `s`.
bool in_guard(const StackSlot* s, const void* addr);
/// True if `addr` lies in memory set aside for stacks, carved or not. Async-signal-safe.
bool in_stack_memory(const void* addr);

/// The range of the 64 stacks around `s`, guards included. False: a stack of its own mapping.
bool stack_neighbourhood(const StackSlot* s, char** lo, char** hi);

/// The guards are holes: a page of a stack that is given back has to be filled again.
bool guards_are_holes();

/// Told of each growable stack that somebody gets, and of who ends on one. Null: nobody is told. Set by runtime/obs before the start.
extern void (*stack_bound_hook)(StackSlot* s);
extern void (*stack_ended_hook)(const G* gp, const StackSlot* s);

/// Told of a stack whose canary was found overwritten at release, on whatever stack runs then. Must not return. Set once by
/// runtime/obs.
extern void (*canary_reporter)(StackSlot* s, G* owner);

/// Probes the ladder once per start of a runtime; `forced` other than Auto takes that rung only (false: this kernel does
/// not have it). `bytes_max`: no more than that of address ranges; 0: no limit.
bool stacks_start(GuardKind forced, std::size_t bytes_max = 0);
/// Gives back the pages of stacks that nobody has wanted for a second, some at a time. Returns when to call it again.
std::int64_t stacks_trim(std::int64_t now);
/// The same at once, for all but a few.
void stacks_trim_all();
/// Unmaps every reservation none of whose stacks is bound (owner set); of the others, empties the stacks that are not.
/// Called when the runtime has stopped; caches of Ps are not to be used again.
void stacks_stop();

struct StackStats {
  GuardKind guard = GuardKind::Canary;  // the rung in force
  std::size_t carved = 0;               // stacks that exist
  std::size_t bound = 0;                // those with an owner (counted by looking at all)
  std::size_t peak_bound = 0;           // at most this many were bound at once; counts the Ps' caches in
  std::size_t refused = 0;              // times the kernel refused memory, or the limit was reached
  std::size_t trimmed = 0;              // stacks whose pages were given back
};
StackStats stack_stats();
const char* guard_name(GuardKind k);

}  // namespace weft::rt
