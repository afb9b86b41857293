/// weft/gc_hook.hpp: stopping goroutines from outside and finding what they hold, for a companion collector, a profiler or a
/// debugger. `weft/gc_boehm.hpp` is a collector that is built on it.
///
/// Two ways to stop the world:
///   stop_world    at safepoints. A goroutine in user code that does not come to one runs on without its P, so its stack still
///                 changes: right for changing the runtime's state, and for looking at who is parked.
///   freeze_world  every thread of the runtime stands still in a signal handler (SIGURG), at any instruction, inside malloc or the
///                 runtime itself: nothing changes. Until thaw_world() the caller must not allocate, take a lock or call the
///                 runtime (but for each_stack, each_root), since a frozen thread may hold what that needs. Calls that do not
///                 restart return EINTR. Freezing is no safepoint and waits for none: a collector may do it inside its allocator.
/// One stop of a kind at a time: a second stopper waits for the first; stopping again what one has stopped oneself is a Panic, and
/// ends one's freeze. In a build with checks a runtime call inside one's own freeze is a fatal error.
///
/// What a collector finds, between freeze_world() and thaw_world():
///   each_stack    the live words of every goroutine's stack and of the runtime's threads, with the registers of those that ran
///   each_root     what goroutines hold in their descriptors: closures, what they wait with, their locals
/// Values that the runtime keeps elsewhere (buffers and boxed elements of channels, large closures, values of contexts, results of
/// await and once) live in blocks that Collector::allocate makes: from a collected heap they are roots, or reachable, as any other
/// block there. That is exact and costs nothing without a collector, where a register of all channels would cost each of them a
/// lock. Left out: an exception object, from throw to the end of its handler, is libstdc++'s own malloc, and what a Panic carries is in
/// ordinary memory: keep what they point to somewhere else as well.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::gc {

// ---- stopping ----------------------------------------------------------------------------------------------------------

/// Threads: any; a goroutine keeps its P and must not block until start_world().
void stop_world();
void start_world();

/// False: some thread did not come within a second (it blocks SIGURG); everybody runs on then. While no runtime runs there is nobody
/// to freeze.
/// Cost: tens of microseconds per running thread.   Threads: any. The same one thaws.
bool freeze_world();
void thaw_world();
/// The calling thread has frozen the world and not yet thawed it.
bool frozen_by_caller();

/// Stops one goroutine where it is; the others run on. When it returns, the goroutine executes no instruction of user code until
/// resume(). Nests. False: there is no such goroutine (any more). Suspending oneself is a Panic.
/// Cost: a stop of the world.
bool suspend(std::uint64_t goid);
/// Panic: it is not suspended.
void resume(std::uint64_t goid);

/// How long the world was frozen, from the first question to the thaw, since the process began or the last clear_pause_stats().
/// `stop`: of that, until everybody stood. Percentiles are rounded up by at most an eighth.
struct PauseStats {
  std::uint64_t count = 0;
  std::int64_t total_ns = 0;
  std::int64_t max_ns = 0;
  std::int64_t p50_ns = 0;
  std::int64_t p99_ns = 0;
  std::int64_t stop_p50_ns = 0;
  std::int64_t stop_p99_ns = 0;
};
PauseStats pause_stats();
void clear_pause_stats();

// ---- what goroutines hold ----------------------------------------------------------------------------------------------

/// Whose words.
enum class Words : std::uint8_t {
  Goroutine,     // a goroutine's stack
  System,        // the own stack of a thread of the runtime; of threads but the first also their thread-local variables
  Signal,        // its signal stack, where a handler was interrupted
  ThreadLocals,  // of the thread that called run()
};

enum class GoState : std::uint8_t {
  Fresh,     // has not run yet: no stack
  Runnable,  // in a queue
  Parked,    // waits
  Running,   // was on a thread when the world stopped
  Detached,  // the same without a P: in blocking() or a SyscallRegion, or in user code whose P was taken
};

enum class StackKind : std::uint8_t { Growable, Copyable, Segmented };

enum class Where : std::uint8_t {
  InPlace,  // [lo, hi) is the stack itself
  Block,    // [lo, hi) is a copy of what lies at `home` when the goroutine runs: it is parked, and its stack is elsewhere
  Moving,   // it runs: freeze the world, or suspend it, to see its stack; lo == hi
};

struct StackView {
  Words words = Words::Goroutine;
  GoState state = GoState::Parked;
  StackKind kind = StackKind::Growable;
  Where where = Where::InPlace;
  bool suspended = false;
  std::uint64_t goid = 0;          ///< 0: none
  const void* lo = nullptr;        ///< live words, the red zone below the stack pointer counted in
  const void* hi = nullptr;        ///< lo == hi: none
  const void* home = nullptr;      ///< where `lo` is in its goroutine's eyes
  std::size_t reserved_bytes = 0;  ///< of the stack; 0: not known
  const void* registers_lo = nullptr;  ///< of who was interrupted there: general and vector registers. Parked ones have theirs on
  const void* registers_hi = nullptr;  ///< the stack
};
using StackFn = void (*)(const StackView& view, void* arg);

/// Calls f for every goroutine, whatever its state, and for the runtime's threads; for one on a segmented stack once per piece, the
/// newest first, which has the registers. `f` must not allocate while the world is frozen.
/// All ranges are aligned to words. The caller's own frames are in, from this call up, with what its registers held.
/// The caller has frozen the world, or stopped it: then threads are left out, and who runs on without a P is Moving. Else: Panic.
/// Cost: linear in goroutines; no allocation, no lock.
void each_stack(StackFn f, void* arg);

/// The same for one goroutine, which the caller has suspended, while the others run. Panic: it is not suspended.
void stack_of(std::uint64_t goid, StackFn f, void* arg);

enum class RootKind : std::uint8_t {
  Closure,    // what `go` was given, until it has run to its end
  WaitState,  // where a parked goroutine's channel operation reads or writes its element
  Locals,     // goroutine-local values
};
struct Root {
  RootKind kind = RootKind::Closure;
  std::uint64_t goid = 0;  ///< 0: not started yet
  const void* lo = nullptr;
  const void* hi = nullptr;
};
using RootFn = void (*)(const Root& root, void* arg);
/// The whole stack that the caller runs on, if it is a goroutine's (of a segmented one the piece): its bounds as the runtime knows them. Any time, no safepoint.
bool own_stack(const void** lo, const void** hi);

/// What goroutines hold outside their stacks, but for blocks of Collector::allocate. As each_stack().
void each_root(RootFn f, void* arg);

/// Calls f for each goroutine once it has come to a safepoint: at once, on the caller's thread, for all that are parked, queued or
/// were stopped there for it; on its own thread when it next calls the runtime, or ends, for one in user code without a P or in a
/// blocking call. New goroutines are not asked. `f` must not block. Returns how many are still to come.
/// Cost: a stop of the world.   Panic: some are still to come from the time before.
std::size_t at_next_safepoint(void (*f)(std::uint64_t goid, void* arg), void* arg);
/// How many are still to come.
std::size_t safepoints_to_come();

// ---- a collector of one's own ------------------------------------------------------------------------------------------

/// A thread of the runtime, as its notifications see it. Ranges may be empty where they are not known.
struct ThreadView {
  int id = 0;  ///< used again by later threads
  const void* stack_lo = nullptr;
  const void* stack_hi = nullptr;
  const void* signal_stack_lo = nullptr;
  const void* signal_stack_hi = nullptr;
};

/// Each member may be null.
struct Collector {
  /// A block that may hold values of users and must not be collected, but traced, until `release`. Null: bad_alloc.
  void* (*allocate)(std::size_t bytes, std::size_t align) = nullptr;
  void (*release)(void* block) = nullptr;
  /// On the goroutine that says `go`, and on the one that ends. Goroutines dropped at the end of a run end without it.
  /// Must not call the runtime.
  void (*goroutine_made)(std::uint64_t goid, std::uint64_t parent) = nullptr;
  void (*goroutine_ended)(std::uint64_t goid) = nullptr;
  /// On the thread itself, before it runs any goroutine and after the last. Must not call the runtime; may block.
  void (*thread_began)(const ThreadView& thread) = nullptr;
  void (*thread_ends)(const ThreadView& thread) = nullptr;
};

/// Once per process, before anything of weft's that holds values has been made. `allocate` and `release` go together.
/// Panic: a runtime runs, or such a thing exists already, or there is a collector.
void attach(const Collector& collector);

}  // namespace weft::gc
