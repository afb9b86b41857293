// See dump.hpp.
//
// Signals    The handler does nothing but ask sysmon, which is no goroutine and holds no lock of user code. SIGQUIT in run()
//            also starts a clock: if there is no dump within five seconds, or at a second SIGQUIT, the states are listed without
//            stacks from the handler and the process ends.
// Orders     [status] see core/g.hpp. [run-state] see sched/lifecycle.cpp.
#include "runtime/obs/dump.hpp"

#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <new>

#include "runtime/base/emit.hpp"
#include "runtime/block/domain.hpp"
#include "runtime/obs/report.hpp"
#include "runtime/obs/room.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::int64_t kStopLimit = 100'000'000;
constexpr std::int64_t kLockLimit = 20'000'000;

bool runs() {
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state]
  return s != RunState::Off;
}

/// The mutex is free now and then.
bool comes_free(Mutex& mu) {
  const std::int64_t limit = arch::clock_now() + kLockLimit;
  do {
    if (mu.try_lock()) {
      mu.unlock();
      return true;
    }
    ::usleep(200);
  } while (arch::clock_now() < limit);
  return false;
}

}  // namespace

std::vector<G*> goroutines_by_id() {
  std::vector<G*> all;
  g_table_each(
      [](G* gp, void* arg) {
        // Id 0: abandoned by an earlier run.
        if (gp->status.load(memory_order_acquire) != GStatus::Dead && gp->id != 0)  // [status]
          static_cast<std::vector<G*>*>(arg)->push_back(gp);
      },
      &all);
  std::sort(all.begin(), all.end(), [](const G* a, const G* b) { return a->id < b->id; });
  return all;
}

bool stop_world_for_report() { return runs() && comes_free(sched.mu) && comes_free(sched.world) && stop_world(kStopLimit); }

namespace {

/// Whose scope ends only after `gp` has; 0: nobody's. World stopped.
std::uint64_t scope_owner(const G* gp) {
  for (const Tree* t = static_cast<const Tree*>(gp->domain); t; t = t->parent)
    if (t->kind == TreeKind::Scope && t->goid != gp->id) return t->goid;
  return 0;
}

}  // namespace

void StackDump::take(const G* without, bool stopped) {
  options_.checked = !stopped;
  arch::FrameRules* rules = arch::new_frame_rules();
  StringSink headers(&headers_, kDumpBytesMax);
  for (G* gp : goroutines_by_id()) {
    if (gp == without || headers.full()) continue;
    Taken t{};
    t.header_at = headers_.size();
    Frames frames;
    const GStatus s = gp->status.load(memory_order_acquire);  // [status]
    t.elsewhere = s == GStatus::Running || s == GStatus::Syscall;
    print_header(headers, gp, nullptr, options_);
    t.header_size = headers_.size() - t.header_at;
    t.pcs_at = pcs_.size();
    if (collect_parked_frames(gp, options_.checked, rules, &frames)) {
      const FrameList list = frames.list();
      pcs_.insert(pcs_.end(), list.pcs, list.pcs + list.kept);
      t.pcs_kept = list.kept;
      t.pcs_count = list.count;
    }
    t.site = shown_site(gp);
    t.parent = gp->parent;
    t.scope_of = stopped ? scope_owner(gp) : 0;
    taken_.push_back(t);
  }
  arch::delete_frame_rules(rules);
}

void StackDump::print(Sink& out) {
  for (const Taken& t : taken_) {
    if (out.full()) {
      out << "\n...and so on: the dump is cut short\n";
      return;
    }
    out << "\n" << std::string_view(headers_).substr(t.header_at, t.header_size);
    if (t.pcs_count)
      print_frames(out, {pcs_.data() + t.pcs_at, t.pcs_kept, t.pcs_count}, options_);
    else if (t.elsewhere)
      out << "\tgoroutine running on other thread; stack unavailable\n";
    print_created_by(out, t.site, t.parent, options_);
    if (t.scope_of) {
      out << "in the scope of goroutine ";
      out.dec(t.scope_of);
      out << "\n";
    }
  }
}

namespace {

// ---- on request ----------------------------------------------------------------------------------------------------

/// The caller's goroutine first, then all others. Locks: none.
void dump_to(Sink& out, bool* first) {
  Inside inside;
  G* self = current_g();
  Frames own;
  if (self) collect_own_frames(&own);
  StackDump all(traceback_level() >= Traceback::System);
  const bool stopped = stop_world_for_report();
  with_room([&] { all.take(self, stopped); });
  if (stopped) start_world();
  with_room([&] {
    if (self) {
      const PrintOptions options{.system = traceback_level() >= Traceback::System};
      print_current(out, self, own.list(), options);
    }
    *first = !self;
    all.print(out);
  });
}

// ---- on a signal ---------------------------------------------------------------------------------------------------

void dump_and_go_on() {
  if (!runs()) return;
  EmitSink out;
  bool first = false;
  dump_to(out, &first);
  out << "\n";
}

void on_dump_signal(int) {
  if (runs()) sysmon_request(dump_and_go_on);
}

struct Sigquit {
  std::atomic<int> asked{0};
  struct sigaction before_quit = {};
};
Sigquit sigquit;

[[noreturn]] void leave_after_sigquit() {
  if (traceback_level() == Traceback::Crash) {
    std::signal(SIGABRT, SIG_DFL);
    std::abort();
  }
  ::_exit(2);
}

void set_alarm(long seconds) {
  itimerval t{};
  t.it_value.tv_sec = seconds;
  ::setitimer(ITIMER_REAL, &t, nullptr);
}

void on_late(int);

void listen_for_alarm() {
  struct sigaction a = {};
  a.sa_handler = on_late;
  a.sa_flags = SA_ONSTACK | SA_NODEFER;
  ::sigaction(SIGALRM, &a, nullptr);
}

// Nobody answers. What can be said from a signal handler, once; if even that hangs, the next alarm ends it.
void on_late(int) {
  static std::atomic<int> tries{0};
  if (tries.fetch_add(1, memory_order_relaxed) == 0) {
    listen_for_alarm();
    set_alarm(1);
    emit_as_crash();
    emit("SIGQUIT: quit\n\n[the runtime does not answer: states only]\n");
    g_table_each(
        [](G* gp, void*) {
          if (gp->status.load(memory_order_acquire) == GStatus::Dead) return;  // [status]
          emit("\ngoroutine ");
          emit_dec(gp->id);
          emit(" [");
          emit(state_text(gp));
          emit("]:\n");
        },
        nullptr);
  }
  ::_exit(2);
}

// On sysmon's thread.
void dump_and_quit() {
  sched.panicking.store(true, memory_order_relaxed);
  emit_as_crash();
  EmitSink out;
  out << "SIGQUIT: quit\n";
  out.flush();
  if (traceback_level() != Traceback::None) {
    const bool stopped = stop_world_for_report();
    begin_patience([] { ::_exit(2); });
    StackDump all(traceback_level() >= Traceback::System);
    all.take(nullptr, stopped);
    all.print(out);
    out.flush();
  }
  leave_after_sigquit();
}

void on_sigquit(int signo) {
  if (sigquit.asked.fetch_add(1, memory_order_relaxed) > 0) on_late(signo);
  listen_for_alarm();
  set_alarm(5);
  sysmon_request(dump_and_quit);
}

}  // namespace

void sigquit_install() {
  sigquit.asked.store(0, memory_order_relaxed);
  struct sigaction a = {};
  a.sa_handler = on_sigquit;
  a.sa_flags = SA_ONSTACK | SA_RESTART | SA_NODEFER;
  ::sigaction(SIGQUIT, &a, &sigquit.before_quit);
}

void sigquit_remove() {
  struct sigaction now = {};
  if (::sigaction(SIGQUIT, nullptr, &now) == 0 && now.sa_handler == on_sigquit) ::sigaction(SIGQUIT, &sigquit.before_quit, nullptr);
}

}  // namespace weft::rt

namespace weft {

std::string dump_goroutines() {
  std::string text;
  if (!rt::runs()) return text;
  rt::StringSink out(&text, rt::kDumpBytesMax);
  bool first = false;
  rt::dump_to(out, &first);
  if (first && !text.empty()) text.erase(0, 1);  // the empty line before the first one
  return text;
}

std::error_code set_crash_output(int fd) {
  if (rt::set_crash_fd(fd)) return {};
  return {errno, std::generic_category()};
}

bool dump_on_signal(int signo) {
  struct sigaction a = {};
  a.sa_handler = rt::on_dump_signal;
  a.sa_flags = SA_ONSTACK | SA_RESTART;
  return ::sigaction(signo, &a, nullptr) == 0;
}

}  // namespace weft
