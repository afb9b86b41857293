/// weft/runtime.hpp: starting and stopping the machine.
#pragma once

#include <weft/error.hpp>
#include <weft/go.hpp>
#include <weft/task.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// How a stack's end is guarded. Auto takes the first that this kernel offers, in this order.
enum class Guard : std::uint8_t { Auto, Install, Hole, Mprotect, Canary };

/// How much a crash report shows. Go: GOTRACEBACK.
enum class Traceback : std::uint8_t { None, Single, All, System, Crash };

enum class LogLevel : std::uint8_t { Debug, Info, Warn, Error };

/// A goroutine as reports name it.
struct GoroutineInfo {
  std::uint64_t id = 0;
  std::string name;
  std::string reason;  ///< what it waits for: "chan receive", "sleep", ...
};

/// Everything is parked and nothing can wake it: `text` says who waits on what.
struct StuckReport {
  std::string text;
  std::vector<GoroutineInfo> goroutines;
};

/// An exception left a goroutine: `text` is the whole report as it went to stderr.
struct UncaughtReport {
  std::uint64_t id = 0;
  std::string name;
  std::string message;
  std::string text;
};

/// A goroutine has run for a slice without a safepoint while others waited: `text` is the warning with its stack.
struct OverrunReport {
  std::uint64_t id = 0;
  std::string name;
  std::chrono::milliseconds ran{0};
  std::string text;
};

/// Every member before `use_env` has a WEFT_* variable that overrides it: WEFT_PROCS, WEFT_SEED, WEFT_STACK_BYTES,
/// WEFT_GUARD, WEFT_HIBERNATE, WEFT_THREADS_MAX, WEFT_DETACHED_MAX, WEFT_BLOCKING_MAX, WEFT_DEBUG, WEFT_TRACEBACK, WEFT_HIBERNATE_AFTER (ms),
/// WEFT_HIBERNATE_TARGET, WEFT_STACKS_BYTES_MAX, WEFT_CRASH_OUTPUT.
/// A value outside its range or an unknown word is an error (run(): one line and exit status 2).
struct Config {
  int procs = 0;                       ///< goroutines that run at once; 0: as set_default_procs() says. At most 1024
  std::uint64_t seed = 0;              ///< of every random choice; 0: a fresh one
  std::size_t stack_bytes = 256 << 10; ///< default stack; rounded up to 16 KiB, 64 KiB, 256 KiB, 1 MiB, ... 1 GiB
  Guard guard = Guard::Auto;
  Hibernate hibernate = Hibernate::Default;
  int threads_max = 10'000;            ///< OS threads; more is fatal in run(), as in Go
  int detached_max = 64;               ///< threads that run an overrun goroutine without a P, while those that wait have never run
  int blocking_max = 512;              ///< under Runtime: blocking calls at once; more wait for one to end
  /// Comma-separated: leaks (report parked goroutines at the end), hogs (report goroutines that run for long without a safepoint),
  /// preemptoff (nobody loses its P between safepoints), preemptsignal (nor without a signal),
  /// tls (name who keeps the address of a thread-local across a migration; builds with checks), nocgroup, fixedprocs (see set_default_procs()),
  /// stacks (how deep goroutines come, by where they were started: stacks.hpp; slow), copytraps (each copyable stack has a place of its own, and who touches that of a parked goroutine is reported),
  /// sameturns (the kernel is not asked to let threads with a P come before those that overrun)
  std::string debug = {};
  Traceback traceback = Traceback::Single;
  std::chrono::milliseconds hibernate_after{1000};  ///< stacks parked for longer may be taken out of memory
  /// While more bytes than this are resident, after 20 ms already; beyond an eighth more, goroutines that need a fresh stack start only as
  /// fast as others hibernate (and 1,000 a round, so that nobody waits for ever). 0: no such target.
  std::size_t hibernate_target = 0;
  std::size_t stacks_bytes_max = 0;    ///< address space of all stacks together; beyond it goroutines wait for a stack. 0: no limit
  std::string crash_output = {};       ///< file to which the report of a process that dies is appended, beside stderr; empty: none
  bool use_env = true;                 ///< false: WEFT_* variables are ignored
  std::function<void(LogLevel, std::string_view)> log = {};  ///< default: stderr. Called on runtime threads
  std::function<void(const StuckReport&)> on_stuck = {};     ///< called on a runtime thread, without a goroutine
  std::function<void(const UncaughtReport&)> on_uncaught = {};
  /// Called on a runtime thread, once per goroutine and function that it was found in; default: with WEFT_DEBUG=hogs, the log.
  std::function<void(const OverrunReport&)> on_overrun = {};
};

namespace detail {
int run_main(const Config& config, void* f, int (*call)(void*), const void* site);
}

/// Boots the machine, runs `main_fn` as goroutine 1 on it, ends when that returns, as a Go program does: the other
/// goroutines run no further statement. main_fn may return int: run()'s result; else 0. May be called again afterwards.
/// Errors:  uncaught panics, deadlocks and bad WEFT_* values end the process with Go's message and exit status 2.
///          If a goroutine is still in user code 100 ms after the end, stdio is flushed and the process left by _exit
///          with the result.
/// Threads: a plain thread. Inside a goroutine, or while another runtime runs: fatal.
template <class F>
[[gnu::always_inline]] inline int run(F&& main_fn, const Config& config = {}) {
  const void* site = detail::here();
  using Fn = std::remove_reference_t<F>;
  if (detail::is_nil_callable(main_fn)) detail::fatal_nil_func();
  return detail::run_main(
      config, const_cast<void*>(static_cast<const volatile void*>(std::addressof(main_fn))),
      [](void* f) -> int {
        if constexpr (std::is_convertible_v<std::invoke_result_t<Fn&>, int>) {
          return static_cast<int>((*static_cast<Fn*>(f))());
        } else {
          (void)(*static_cast<Fn*>(f))();
          return 0;
        }
      },
      site);
}

/// What stop() found. `unwound`: parked goroutines whose destructors it ran. `abandoned`: those that never left user
/// code or swallowed the unwinding; they keep their stacks for the rest of the process.
struct StopResult {
  std::vector<GoroutineInfo> unwound;
  std::vector<GoroutineInfo> abandoned;
};

/// The machine for a host that owns the process: no exit, no signal handlers but those for stack overflow. Restartable.
/// Errors: bad config and refused resources are error codes of start(); an uncaught panic is reported, then
///         std::terminate. One runtime runs at a time.
class Runtime {
 public:
  explicit Runtime(Config config = {});
  ~Runtime();  ///< stop(0s) if it runs
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Errors: Errc::bad_config, already_running, refused. Nothing is left behind then.
  std::error_code start();

  /// As weft::go, from any thread.
  template <class F, class... Args>
  [[gnu::always_inline]] void go(F&& f, Args&&... args) {
    weft::go(std::forward<F>(f), std::forward<Args>(args)...);
  }

  template <class F, class... Args>
  [[gnu::always_inline]] void go(Spawn spawn, F&& f, Args&&... args) {
    weft::go(std::move(spawn), std::forward<F>(f), std::forward<Args>(args)...);
  }

  /// As weft::spawn, from any thread.
  template <class F, class... Args>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Spawn>)
  [[nodiscard, gnu::always_inline]] auto submit(F&& f, Args&&... args) {
    return weft::spawn(std::forward<F>(f), std::forward<Args>(args)...);
  }
  template <class F, class... Args>
  [[nodiscard, gnu::always_inline]] auto submit(const Spawn& attributes, F&& f, Args&&... args) {
    return weft::spawn(attributes, std::forward<F>(f), std::forward<Args>(args)...);
  }

  /// Waits up to `drain` for all goroutines to end, then unwinds those that are parked, at their waits (destructors
  /// run; up to a second), then stops the threads. From a plain thread. Stopping a stopped runtime does nothing.
  template <class Rep, class Period>
  StopResult stop(std::chrono::duration<Rep, Period> drain) {
    return stop_ns(std::chrono::duration_cast<std::chrono::nanoseconds>(drain).count());
  }
  StopResult stop() { return stop_ns(0); }

  bool running() const;

  /// Goroutines on a thread of the host's, such as a GUI's: those of Spawn{.main_thread = true} run only inside
  /// run_main_pending(), each until it blocks, gives way or ends. It is called by one thread, always the same, when main_loop_fd() is
  /// readable (poll it with the host's other descriptors), and returns how many it has run. It waits if all Ps are busy.
  /// stop() on the same thread runs them to their ends. Errors: main_loop_fd() is -1 if the kernel refuses an eventfd.
  int main_loop_fd();
  int run_main_pending();

 private:
  StopResult stop_ns(std::int64_t drain_ns);

  Config config_;
  bool running_ = false;
};

/// One runtime for several libraries of a process: the first caller starts it with its config, the last handle stops
/// it. Null if it could not be started (`*error` says why).
std::shared_ptr<Runtime> shared_runtime(const Config& config = {}, std::error_code* error = nullptr);

/// How many goroutines run at once.
int procs();

/// Changes it; stops the world for microseconds. Returns the old value; n < 1 only reads. Go: runtime.GOMAXPROCS.
int set_procs(int n);

/// Back to the default, from whatever Config::procs, WEFT_PROCS or set_procs() said; returns the old value. The default is the number
/// of CPUs in the affinity mask, or the CPU quota of the process's control groups (version 1 or 2, the smallest on the way up),
/// rounded up, if that is less; a quota counts as 2 at least. While goroutines run it is looked at once a second, and followed.
/// Debug:  the word `nocgroup` leaves the quota out, `fixedprocs` keeps what there was at start.
/// Errors: fatal while no runtime runs. Go: runtime.SetDefaultGOMAXPROCS; containermaxprocs=0 and updatemaxprocs=0.
int set_default_procs();

/// What this kernel and build offer, and why not.
struct Capabilities {
  std::string guard;      ///< the rung in force: "install", "hole", "mprotect", "canary"
  std::string hibernate;  ///< "on", or "off: ..." with the reason
  std::string copyable;   ///< "copied", or why copyable goroutines have stacks of their own
  std::string segmented;  ///< "on", or "off: ..." with the reason
  bool symbols = false;   ///< reports carry functions and lines
  bool precise_sleep = false;  ///< epoll_pwait2
};
Capabilities capabilities();

}  // namespace weft
