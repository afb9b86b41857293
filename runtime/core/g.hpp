// G: a goroutine.
//
// A descriptor lives in dense slabs (g_table), never on its stack, and is recycled; its id is not. What the scheduler touches
// at every switch stands in the first cache line.
//
// Status     who may touch the context and the stack (one function changes it: set_status, which checks the previous one)
//
//   status     user code runs  context saved  on a queue        has an M   set by
//   Dead       no              no             a free list       no         exit, before the first start
//   Runnable   no              yes or fresh   exactly one       no         start, ready, yield, preempt
//   Running    yes             no             none              yes        execute, direct switch, exit_syscall
//   Syscall    yes (no calls)  no             none              yes        enter_syscall
//   Waiting    no              yes (*)        its object's      no         park
//
//   (*) from the moment the commit has run on the next context; nobody can find the G before that.
//
// Orders     [cancel] see sched/cancel.hpp.
//            [status] release on every change by the owner, acquire by readers in dumps and the stop.
#pragma once

#include <weft/go.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "arch/context.hpp"
#include "arch/eh_globals.hpp"
#include "arch/sanitizer.hpp"
#include "runtime/base/atomic.hpp"
#include "runtime/core/local.hpp"
#include "runtime/core/stack.hpp"
#include "runtime/core/timer_heap.hpp"
#include "runtime/core/waiter.hpp"

namespace weft::rt {

struct M;
struct Thrown;
struct Domain;

enum class GStatus : std::uint8_t { Dead, Runnable, Running, Syscall, Waiting };
const char* status_text(GStatus s);

/// How a G is started: G::started.
enum GStart : std::uint8_t {
  kFresh,    // has no context yet
  kStarted,  // by a switch
  kSpecial,  // the same, but not by just anybody: only g0 starts it (sched/locked.cpp)
};

/// Whether its frames are being taken down, by goexit or the stop.
enum class Unwinding : std::uint8_t {
  No,
  UnderWay,
  Arrived,  // the token that does it has reached the entry
};

/// What few Gs have: a name, labels, attributes of their stack, values of their own, a thread of their own.
struct GExtra {
  Spawn spawn = {};
  std::unique_ptr<Locals> locals = {};
  Thrown* thrown = nullptr;  // block/thrown.hpp
  std::uint32_t locks = 0;  // lock_os_thread() calls that are not undone
  M* locked_m = nullptr;
  // --- suspended (sched/freeze.cpp); changed with the world stopped, but for `aside` ---
  std::uint32_t held = 0;      // suspend() calls that are not undone
  std::uint8_t started_before = kFresh;
  bool aside = false;          // runnable, found in a queue and kept out of it
  M* stands = nullptr;         // it was running: on this thread
  G* held_link = nullptr;      // in Sched::held_first

  /// A goroutine that it starts gets something of it.
  bool hands_on() const { return !spawn.labels.empty() || (locals && locals->hands_on()); }
  std::atomic<bool> to_come{false};  // is to say when it comes to a safepoint (runtime/gc/safepoint.cpp)
};

struct alignas(arch::kCacheLine) G {
  // --- every switch: one line ---
  std::atomic<std::uint8_t> preempt{0};  // somebody wants this G to stop at its next safepoint
  std::atomic<GStatus> status{GStatus::Dead};
  std::uint8_t started = kFresh;  // GStart; not kFresh: it has run
  Unwinding unwinding = Unwinding::No;
  std::atomic<std::uint8_t> cancel{0};  // [cancel] its domain is cancelled (sched/cancel.hpp)
  bool system = false;     // an M's g0
  bool is_main = false;    // goroutine 1 of run()
  bool select_ = false;    // parked with several nodes (in `nodes`)
  std::uint8_t stack_cls = 0;
  WaitReason reason = WaitReason::None;
  std::atomic<std::uint8_t> depth{0};  // > 0: inside the runtime, which holds the P (sched.hpp: Inside)
  std::atomic<std::uint8_t> no_preempt{0};  // > 0: keeps its P (NoPreempt)
  std::uint32_t since = 0;  // coarse tick (ms since start) when it parked
  [[no_unique_address]] arch::SanStack san;  // of a g0; empty in plain builds
  arch::Context ctx = nullptr;
  arch::EhGlobals eh;
  StackSlot* stack = nullptr;
  union {
    M* m = nullptr;  // while Running or Syscall
    void* block;     // of a copyable one that does not run: where it has been copied to; null: it lies in its slot
  };
  const weft::detail::ClosureOps* ops = nullptr;

  // --- birth: one line more for a small closure ---
  void* closure = nullptr;  // `inline_closure` or a heap block; null: none (any more)
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  const void* site = nullptr;  // the PC of its `go`
  GExtra* extra = nullptr;
  Domain* domain = nullptr;  // the innermost task or scope that it runs in; null: none, as most
  alignas(16) std::byte inline_closure[64];

  // --- waiting; a plain wait touches the first line and the last two ---
  WaitNode* nodes = nullptr;  // of a select, or what may cancel a plain wait: an array, nodes_capacity() long
  SpinLock guard;  // held while the commit of a wait that more than one may end is at work
  std::uint16_t nodes_count = 0;    // in `nodes`, while a wait uses them
  std::uint8_t nodes_log = 0;       // log2 of the array's size, plus 1; 0: there is none
  std::uint8_t closure_log = 4;     // log2 of a heap block's alignment
  union {
    G* link = nullptr;        // in a queue or free list
    const void* wait_object;  // while Waiting: what it waits on, for reports
  };
  Waiter waiter;
  TimerNode timer;  // of sleep and timed waits

  std::uint32_t nodes_capacity() const { return nodes_log ? 1u << (nodes_log - 1) : 0; }
  std::size_t closure_align() const { return std::size_t{1} << closure_log; }
};

static_assert(offsetof(G, preempt) == 0, "include/weft/detail/poll_x86_64.hpp");

#if !WEFT_ASAN && !WEFT_TSAN
static_assert(sizeof(G) == 320, "a parked goroutine's bytes are a bar: think before adding");
static_assert(offsetof(G, link) == 192 && offsetof(G, ctx) == 16, "lines that a park touches");
#endif

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
inline G* Waiter::g() {
  return node.of_thread ? nullptr : reinterpret_cast<G*>(reinterpret_cast<char*>(this) - offsetof(G, waiter));
}
inline G* g_of_timer(TimerNode* t) { return reinterpret_cast<G*>(reinterpret_cast<char*>(t) - offsetof(G, timer)); }
#pragma GCC diagnostic pop

inline G* to_g(weft::detail::Goroutine* g) { return reinterpret_cast<G*>(g); }
inline weft::detail::Goroutine* to_public(G* g) { return reinterpret_cast<weft::detail::Goroutine*>(g); }

/// Changes the status, checking the one before in debug builds.
WEFT_ALWAYS_INLINE void set_status(G* gp, [[maybe_unused]] GStatus from, GStatus to) {
#ifndef NDEBUG
  extern void check_status(G * gp, GStatus from, GStatus to);
  check_status(gp, from, to);
#endif
  gp->status.store(to, memory_order_release);  // [status]
}

/// Of who has a closure. A block's size stands in the room that it does not use.
inline std::size_t closure_bytes(const G* gp) {
  if (gp->closure == gp->inline_closure) return sizeof gp->inline_closure;
  return *std::launder(reinterpret_cast<const std::size_t*>(gp->inline_closure));
}

/// Tells of the words that `gp`'s goroutine-local values lie in. Set by whoever keeps them; null: there are none. Called while the
/// world stands still at any instruction: no lock, no allocation.
extern void (*local_roots)(const G* gp, void (*each)(const void* lo, const void* hi, void* arg), void* arg);

// --- the table of all descriptors (g_table.cpp) ---

/// Takes up to `n` dead descriptors into `out`, carving new ones if there are none. Returns how many: fewer if the kernel
/// refuses memory.
std::uint32_t g_table_take(G** out, std::uint32_t n);
void g_table_give(G* const* gs, std::uint32_t n);
/// Calls f for every descriptor that ever was in use, dead ones included, in no order. The world should be stopped.
/// No lock, no allocation.
void g_table_each(void (*f)(G*, void*), void* arg);
/// Forgets ids and unmaps the slabs. With `keep` (somebody was abandoned) and ever after: frees all descriptors but those of
/// who was. Nothing of theirs is left (extra, nodes, stack).
void g_table_reset(bool keep);
/// A block of `n` ids.
std::uint64_t g_table_ids(unsigned n);

}  // namespace weft::rt
