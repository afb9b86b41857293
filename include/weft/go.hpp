/// weft/go.hpp: starting goroutines, and what one can do with itself.
#pragma once

#include <weft/detail/closure.hpp>
#include <weft/detail/poll_cpu.hpp>
#include <weft/local.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// Which kind of stack a goroutine runs on. README, "Stacks".
enum class Stack : std::uint8_t {
  Growable,   ///< own address range, committed on touch
  /// Shares a slot of full size with others, copied out to a block of a few hundred bytes when another runs there. At most 1 MiB.
  /// While it is parked nobody else may touch its stack: no reference to a local may be given away. Waiting on an object of the
  /// runtime's there (WaitGroup, Mutex, ...) is a Panic; channels and contexts are handles and may lie anywhere. A goroutine that
  /// computes for long holds up the few that share its slot. WEFT_DEBUG=copytraps finds who touches what it must not.
  Copyable,
  /// Grows by segments where code that is built with -fsplit-stack needs more: no large address range, and `stack_bytes` (1 GiB by
  /// default) only limits it. For deep recursion in few goroutines. Fatal in a weft built without (Meson option `segmented`) and in a
  /// program that is not linked with weft-segmented. It parks and resumes through the scheduler loop: about 30 ns more.
  Segmented,
};

/// Whether an idle goroutine's stack may be taken out of memory while it is parked.
enum class Hibernate : std::uint8_t { Default, Off, Auto, On };

/// What to know about a goroutine before it starts. All members have defaults.
struct Spawn {
  std::string name = {};  ///< stands in dumps and reports
  /// Stand in dumps. A goroutine that it starts has them too; where both give a key, the new one's counts. Go: pprof labels.
  std::vector<std::pair<std::string, std::string>> labels = {};
  Stack stack = Stack::Growable;
  std::size_t stack_bytes = 0;  ///< 0: Config::stack_bytes, segmented 1 GiB; rounded up to a class, at most 1 GiB
  Hibernate hibernate = Hibernate::Default;
  bool save_fp = false;  ///< the goroutine changes floating-point control words and wants them kept to itself
  bool main_thread = false;  ///< runs only inside Runtime::run_main_pending(), on the host's thread; a Panic in run()
};

namespace detail {

struct Goroutine;  // the runtime's G

/// A new goroutine with room for its closure at `storage`. Fatal if no runtime runs.
struct NewG {
  Goroutine* g;
  void* storage;
};
NewG new_goroutine(std::size_t size, std::size_t align);
/// The same with attributes. With `must_have_stack` the stack is bound at once and g is null if none can be had.
NewG new_goroutine_with(const Spawn& spawn, std::size_t size, std::size_t align, bool must_have_stack);
void start_goroutine(Goroutine* g, const ClosureOps* ops, const void* site);
/// The closure's constructor threw.
void drop_goroutine(Goroutine* g);
[[noreturn]] void fatal_nil_func();
void safepoint_slow();

template <class C>
void launch(NewG n, C&& c, const void* site) {
  using Closure = std::remove_cvref_t<C>;
  if constexpr (std::is_nothrow_move_constructible_v<Closure>) {
    ::new (n.storage) Closure(std::forward<C>(c));
  } else {
    try {
      ::new (n.storage) Closure(std::forward<C>(c));
    } catch (...) {
      drop_goroutine(n.g);
      throw;
    }
  }
  start_goroutine(n.g, &kClosureOps<Closure>, site);
}

}  // namespace detail

/// Starts `f(args...)` as a goroutine. Arguments are decay-copied, as std::thread does.
/// Order:   what happened before `go` happens before the first statement of f.
/// Errors:  an empty f is fatal ("go of nil func value"), as in Go; so is `go` while no runtime runs. An exception
///          that leaves f is an uncaught panic. A refused stack is no error here: the goroutine waits for one.
/// Cost:    tens of nanoseconds; no allocation while the closure has at most 64 bytes; no stack until it first runs.
/// Threads: any. Go: `go f(x)`; the order in which new goroutines start is unspecified there as here.
template <class F, class... Args>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Spawn>)
[[gnu::always_inline]] inline void go(F&& f, Args&&... args) {
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  detail::launch(detail::new_goroutine(sizeof c, alignof(decltype(c))), std::move(c), site);
}

template <class F, class... Args>
[[gnu::always_inline]] inline void go(Spawn spawn, F&& f, Args&&... args) {
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  detail::launch(detail::new_goroutine_with(spawn, sizeof c, alignof(decltype(c)), false), std::move(c), site);
}

/// Like `go`, for callers who want the answer: false if no descriptor or stack can be had now; nothing has started
/// then. Binds the stack at once.
template <class F, class... Args>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Spawn>)
[[gnu::always_inline]] inline bool try_go(F&& f, Args&&... args) {
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  detail::NewG n = detail::new_goroutine_with(Spawn{}, sizeof c, alignof(decltype(c)), true);
  if (!n.g) return false;
  detail::launch(n, std::move(c), site);
  return true;
}

template <class F, class... Args>
[[gnu::always_inline]] inline bool try_go(Spawn spawn, F&& f, Args&&... args) {
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  detail::NewG n = detail::new_goroutine_with(spawn, sizeof c, alignof(decltype(c)), true);
  if (!n.g) return false;
  detail::launch(n, std::move(c), site);
  return true;
}

/// Lets others run. Returns at once if nobody is runnable. On a plain thread: std::this_thread::yield.
/// Go: runtime.Gosched, but the caller goes to the local tail unless the global queue has work.
void yield();

/// Ends the calling goroutine after running its destructors. `catch (...)` blocks on the way must rethrow: one that
/// swallows it is fatal. In goroutine 1 the program goes on with the others. Go: runtime.Goexit.
[[noreturn]] void goexit();

/// The calling goroutine's id, never reused while a runtime runs; 0 on a plain thread. Goroutine 1 is run()'s.
std::uint64_t goid();

/// A point where the runtime may switch this goroutine out if it has run for long. Every runtime call is one as well.
/// Cost: three loads and two branches, about 0 ns in a loop that was scalar anyway; it keeps a loop from being vectorised, which
/// costs more: see for_each_chunk. Threads: any; on a plain thread nothing happens.
[[gnu::always_inline]] inline void safepoint() {
  if (__builtin_expect(detail::preempt_requested(), 0)) detail::safepoint_slow();
}

/// A part of a range that is not contiguous; of one that is, for_each_chunk gives a std::span.
template <class It, class End = It>
class Chunk {
 public:
  Chunk(It begin, End end) : begin_(begin), end_(end) {}
  It begin() const { return begin_; }
  End end() const { return end_; }

 private:
  It begin_;
  End end_;
};

/// Calls `f(part)` for each part of `n` elements of `range` in order (the last may be shorter), with a safepoint after each: for
/// loops that would lose their vectorisation to a poll per element. `part` is a std::span if the range is contiguous, else a
/// Chunk; n below 1 counts as 1. Some hundred elements per part make the poll too cheap to see.
/// Errors: an exception of f passes through. Go: nothing like it; its loops are preempted anywhere.
///     weft::for_each_chunk(v, 1024, [](std::span<float> part) { for (float& x : part) x *= 2; });
template <class Range, class F>
void for_each_chunk(Range&& range, std::ptrdiff_t n, F&& f) {
  auto at = std::ranges::begin(range);
  auto end = std::ranges::end(range);
  if (n < 1) n = 1;
  if constexpr (std::contiguous_iterator<decltype(at)> && std::sized_sentinel_for<decltype(end), decltype(at)>) {
    for (auto left = end - at; left > 0; safepoint()) {
      const auto some = left < n ? left : n;
      f(std::span(at, static_cast<std::size_t>(some)));
      at += some;
      left -= some;
    }
  } else {
    while (at != end) {
      auto next = at;
      if constexpr (std::random_access_iterator<decltype(at)> && std::sized_sentinel_for<decltype(end), decltype(at)>) {
        next += end - at < n ? end - at : n;
      } else {
        for (std::ptrdiff_t i = 0; i < n && next != end; i++) ++next;
      }
      f(Chunk(at, next));
      at = next;
      safepoint();
    }
  }
}

/// From here on the calling goroutine runs on this OS thread only, and nobody else does: for libraries that keep state per
/// thread (graphics contexts, namespaces, scheduling attributes). Nests: as many unlock_os_thread() calls undo it; one more is
/// ignored. If the goroutine ends while locked the thread ends too, unless it is run()'s caller. New threads never inherit the
/// state of a locked one. Cost: each switch to or from it is a hand-off between threads, some microseconds. On a plain thread
/// both do nothing. Go: runtime.LockOSThread; in run(), goroutine 1 starts on run()'s caller.
void lock_os_thread();
void unlock_os_thread();

/// While one lives, its goroutine keeps its P: nobody else runs in its place, also if it computes for long, and a stop of the
/// world waits for it. Runtime calls that block still do. For code that must not be overtaken: a lock of the OS held over
/// several statements, thread_local scratch space in code with inserted polls. Nests, at most 255 deep. On a plain thread it
/// does nothing. Its end is a safepoint. Cost: two runtime calls.
class [[nodiscard]] NoPreempt {
 public:
  NoPreempt();
  ~NoPreempt();
  NoPreempt(const NoPreempt&) = delete;
  NoPreempt& operator=(const NoPreempt&) = delete;
};

/// Goroutines that have been started and have not ended. Go: runtime.NumGoroutine.
int num_goroutines();

}  // namespace weft
