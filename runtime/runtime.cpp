// Entry: boot, run, drain, stop.
//
// run()      The caller becomes an M and goroutine 1 runs main_fn. When that returns no goroutine runs user code any more: Ms leave
//            at safepoints. If one is still in user code after 100 ms the process is left with the result, stdio flushed:
//            going on would race static destructors with it. sysmon watches over this in case the caller's own thread is
//            the one that is stuck.
// Runtime    Threads of its own; errors are codes. stop(): wait, unwind what is parked, end as above, but nothing exits: whoever
//            is still in user code then is abandoned and reported.
// Orders     [run-state] see sched/lifecycle.cpp.
#include <weft/runtime.hpp>
#include <weft/test.hpp>
#include <weft/time.hpp>

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <mutex>

#include "arch/more_stack.hpp"
#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/emit.hpp"
#include "runtime/base/fault.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/base/knobs.hpp"
#include "runtime/base/log.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/obs/dump.hpp"
#include "runtime/obs/hogs.hpp"
#include "runtime/obs/leaks.hpp"
#include "runtime/obs/overflow.hpp"
#include "runtime/obs/report.hpp"
#include "runtime/obs/stack_depth.hpp"
#include "runtime/obs/symbolize.hpp"
#include "runtime/obs/tls_watch.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"

namespace weft {

using namespace rt;

namespace {

constexpr std::int64_t kEndPatience = 100'000'000;
constexpr std::int64_t kUnwindPatience = 1'000'000'000;
constexpr std::int64_t kUnwindRound = 10'000'000;

// One runtime at a time: start to end of stop.
std::atomic<bool> taken{false};

void install_reports(const Config& config, bool in_run) {
  reports_install();
  overflow_install();
  hogs_install(config.on_overrun || debug_has(config, "hogs"));
  if (debug_has(config, "tls")) tls_watch_start();
  if (in_run) sigquit_install();
}

/// Before the first goroutine.
void measure_stacks(const Config& config) {
  if (debug_has(config, "stacks") && !stack_depth_start())
    log_warn("WEFT_DEBUG=stacks: depths are not measured: /proc/self/pagemap cannot be read, or the guards are holes");
}

void remove_reports(bool in_run) {
  stack_depth_stop();
  if (in_run) sigquit_remove();
  tls_watch_stop();
  hogs_remove();
  overflow_remove();
  reports_remove();
}

bool open_crash_output(const Config& c, std::string* why) {
  if (c.crash_output.empty() || set_crash_file(c.crash_output.c_str())) return true;
  *why = "weft: Config::crash_output = " + c.crash_output + ": cannot be written: " + std::generic_category().message(errno);
  return false;
}

void close_crash_output(const Config& c) {
  if (!c.crash_output.empty()) set_crash_fd(-1);
}

[[noreturn]] void leave_now(int result) {
  std::fflush(nullptr);
  ::_exit(result);
}

// When sysmon first saw this run end; run_main() clears it before there is a sysmon.
std::int64_t ending_since = 0;

/// The caller's own thread may be the one that never comes back: then sysmon leaves for it.
std::atomic<std::int64_t> end_seen{0};

void watch_the_end() {
  const std::int64_t now = arch::clock_now();
  if (peek(end_seen) == 0) end_seen.store(now, memory_order_relaxed);
  if (now - peek(end_seen) > kEndPatience && !peek(sched.panicking) && main_lingers()) leave_now(sched.main_result);
}

/// A panic that is being reported by another goroutine decides how the process ends.
void let_panics_finish() {
  for (int tries = 0; peek(sched.panicking); tries++) {
    ::usleep(1000);
    if (tries > 10'000) ::_exit(2);  // its message needs the scheduler, which has ended
  }
}

struct MainCall {
  void* f;
  int (*call)(void*);
  void operator()() {
    sched.main_result = call(f);
    // A panic that is being described may need the scheduler: its message may yield or sleep.
    while (peek(sched.panicking)) sleep_for(std::chrono::milliseconds(1));
  }
};

}  // namespace

namespace detail {

int run_main(const Config& config, void* f, int (*call)(void*), const void* site) {
  check_not_forked();
  if (current_m()) fatalf("weft: run called inside a goroutine");
  if (taken.exchange(true, memory_order_acq_rel)) fatalf("weft: run called while a runtime runs");  // [run-state]
  Config c = config;
  std::string why;
  if (apply_env(c, &why)) {
    emit(why.c_str());
    emit("\n");
    ::_exit(2);
  }
  if (!open_crash_output(c, &why) || (c.use_env && !fault_from_env(&why))) {
    emit(why.c_str());
    emit("\n");
    ::_exit(2);
  }
  set_log_sink(c.log);
  install_reports(c, true);
  ending_since = 0;
  end_seen.store(0, memory_order_relaxed);
  end_watch.store(watch_the_end, memory_order_relaxed);
  if (const std::error_code e = sched_boot(c, true)) fatalf("weft: cannot start: %s", e.message().c_str());
  measure_stacks(c);
  M* mp = enter_as_m();

  auto main_closure = detail::bind(MainCall{f, call});
  NewG g = new_goroutine(sizeof main_closure, alignof(decltype(main_closure)));
  to_g(g.g)->stack_cls = kOwnMapping;  // 8 MiB, or more if that is everybody's
  sched.main_g = to_g(g.g);
  to_g(g.g)->is_main = true;
  launch(g, std::move(main_closure), site);

  schedule(mp);

  let_panics_finish();
  if (!wait_for_ms(kEndPatience)) {
    let_panics_finish();
    leave_now(sched.main_result);
  }
  let_panics_finish();
  leave_as_m(mp);
  sysmon_stop();
  end_watch.store(nullptr, memory_order_relaxed);
  if (debug_has(c, "leaks")) report_leaks();
  if (debug_has(c, "stacks")) report_stack_depths();
  const int result = sched.main_result;
  log_flush();
  remove_reports(true);
  sched_shutdown();
  set_log_sink({});
  close_crash_output(c);
  taken.store(false, memory_order_release);  // [run-state]
  return result;
}

}  // namespace detail

// ---- Runtime -------------------------------------------------------------------------------------------------------

Runtime::Runtime(Config config) : config_(std::move(config)) {}

Runtime::~Runtime() {
  if (running_ && !sched.forked) stop_ns(0);
}

bool Runtime::running() const { return running_; }

std::error_code Runtime::start() {
  check_not_forked();
  if (running_ || taken.exchange(true, memory_order_acq_rel)) return Errc::already_running;  // [run-state]
  Config c = config_;
  std::string why;
  auto give_up = [&](std::error_code e) {
    close_crash_output(c);
    set_log_sink({});
    taken.store(false, memory_order_release);  // [run-state]
    return e;
  };
  set_log_sink(c.log);
  if (const std::error_code e = apply_env(c, &why)) {
    log_warn("%s", why.c_str() + (why.rfind("weft: ", 0) == 0 ? 6 : 0));
    log_flush();
    return give_up(e);
  }
  if (!open_crash_output(c, &why)) {
    log_warn("%s", why.c_str() + 6);
    log_flush();
    return give_up(Errc::bad_config);
  }
  install_reports(c, false);
  if (const std::error_code e = sched_boot(c, false)) {
    remove_reports(false);
    log_flush();
    return give_up(e);
  }
  measure_stacks(c);
  if (!sched_first_m()) {
    begin_ending();
    sysmon_stop();
    remove_reports(false);
    sched_shutdown();
    log_flush();
    return give_up(Errc::refused);
  }
  running_ = true;
  return {};
}

int Runtime::main_loop_fd() {
  if (!running_) fatalf("weft: main_loop_fd of a runtime that does not run");
  return host_loop_fd();
}

int Runtime::run_main_pending() {
  if (!running_) fatalf("weft: run_main_pending of a runtime that does not run");
  return host_loop_run();
}

namespace {

/// settle_until(0), while this thread also runs what belongs to it.
bool all_end_by(std::int64_t deadline) {
  while (sched.host_m->tid == arch::thread_id()) {
    host_loop_run();
    const std::int64_t round = arch::clock_now() + kUnwindRound / 10;
    if (detail::settle_until(0, round < deadline ? round : deadline)) return true;
    if (arch::clock_now() >= deadline) return false;
  }
  return detail::settle_until(0, deadline);
}

}  // namespace

StopResult Runtime::stop_ns(std::int64_t drain_ns) {
  StopResult r;
  check_not_forked();
  if (!running_) return r;
  if (current_m()) fatalf("weft: Runtime::stop called inside a goroutine");
  if (drain_ns > 0) all_end_by(detail::deadline_after(drain_ns));
  if (live_goroutines() != 0) {
    sched.state.store(RunState::Unwinding, memory_order_release);  // [run-state]
    const std::int64_t limit = arch::clock_now() + kUnwindPatience;
    do {
      unwind_parked(r.unwound);
    } while (!all_end_by(arch::clock_now() + kUnwindRound) && arch::clock_now() < limit);
  }
  begin_ending();
  if (!wait_for_ms(kEndPatience)) abandon_ms();
  sysmon_stop();
  if (live_goroutines() != 0) {
    r.abandoned = list_alive();
    // What was woken to unwind but is still alive did not unwind.
    std::erase_if(r.unwound, [&](const GoroutineInfo& u) {
      return std::any_of(r.abandoned.begin(), r.abandoned.end(), [&](const GoroutineInfo& a) { return a.id == u.id; });
    });
  }
  log_flush();
  if (debug_has(*sched.config, "leaks") && !r.abandoned.empty()) report_leaks();
  if (debug_has(*sched.config, "stacks")) report_stack_depths();
  remove_reports(false);
  close_crash_output(*sched.config);
  sched_shutdown();
  set_log_sink({});
  running_ = false;
  taken.store(false, memory_order_release);  // [run-state]
  return r;
}

std::shared_ptr<Runtime> shared_runtime(const Config& config, std::error_code* error) {
  static std::mutex mu;
  static Immortal<std::weak_ptr<Runtime>> shared;
  std::lock_guard l(mu);
  if (error) *error = {};
  if (auto rt = shared->lock()) return rt;
  auto fresh = std::make_unique<Runtime>(config);
  if (const std::error_code e = fresh->start()) {
    if (error) *error = e;
    return nullptr;
  }
  // The last handle stops it under the same lock: a caller that comes meanwhile starts a new one after it.
  std::shared_ptr<Runtime> rt(fresh.release(), [](Runtime* p) {
    std::lock_guard stop_alone(mu);
    delete p;
  });
  *shared = rt;
  return rt;
}

Capabilities capabilities() {
  Capabilities c;
  c.guard = guard_name(stack_stats().guard);
  c.hibernate = hibernation_text();
  switch (copy_mode()) {
    case CopyMode::Copied: c.copyable = "copied"; break;
    case CopyMode::Trapped: c.copyable = "stacks of their own: foreign touches are trapped"; break;
    case CopyMode::Own: c.copyable = "stacks of their own: a sanitizer watches them"; break;
  }
  c.segmented = !arch::kSegmented               ? "off: built without (Meson option segmented)"
                : !arch::split_code_is_there() ? "off: the program is not linked with weft-segmented"
                                               : "on";
  c.symbols = symbols_available();
  timespec now{};
  const int fd = arch::kernel.epoll_create(0);
  if (fd >= 0) {
    epoll_event ev;
    c.precise_sleep = arch::kernel.epoll_pwait2(fd, &ev, 1, &now) == 0;
    ::close(fd);
  }
  return c;
}

}  // namespace weft
