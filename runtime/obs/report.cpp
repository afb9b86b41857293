// Uncaught panics and fatal errors.
//
// Throw point  g_entry's return address is undefined for unwinders, so an exception that nobody catches finds no handler, and
//              std::terminate runs on top of the thrower's whole stack: its frames are collected first, before any user code
//              (what()) gets to run.
// One report   The first goroutine that panics claims the report; others that panic meanwhile park for ever, or, where they
//              cannot park, their thread sleeps. A message that itself panics is fatal.
// Room         Everything but what() and Config::on_uncaught runs below g0's frames (room.hpp): a demangler needs more than a
//              small stack has.
// Order        message, own stack; then the world is stopped for the others: if that hangs, the most is said.
// Orders       [run-state] see sched/lifecycle.cpp.
#include "runtime/obs/report.hpp"

#include <cxxabi.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <typeinfo>
#include <vector>

#include "arch/gate.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/emit.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/block/thrown.hpp"
#include "runtime/obs/dump.hpp"
#include "runtime/obs/room.hpp"
#include "runtime/obs/throw_hook.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::rt {

ThrowTraceFn throw_trace = nullptr;

namespace {

std::terminate_handler previous = nullptr;
std::atomic<G*> reporting{nullptr};   // whose panic is being reported
volatile bool describing = false;     // user code runs: what()

[[noreturn]] void pass_on() {
  if (previous && previous != std::get_terminate()) previous();
  std::abort();
}

[[noreturn]] void wait_for_ever() {
  Inside inside;
  for (;;) {
    M* mp = current_m();
    if (mp && mp->p && !mp->curg->system)
      park_call(mp, WaitReason::PanicWait, nullptr, [](M*, G*, void*) {}, nullptr);
    else
      ::pause();
  }
}

// ---- what was thrown -----------------------------------------------------------------------------------------------

struct Message {
  std::string text;  // what UncaughtReport says
  bool is_panic = false;
  std::vector<std::string> lines;  // the list of panics, oldest first, as it is printed
};

/// Runs user code: what() of everything in the list.
void describe(const std::exception_ptr& e, Message* m) {
  if (!e) {
    m->text = "terminate called without an active exception";
    m->lines.push_back(m->text);
    return;
  }
  const std::vector<ThrownEntry> list = thrown_list(e);
  for (std::size_t i = 0; i < list.size(); i++) {
    const bool last = i + 1 == list.size();
    const Thrown* t = list[i].thrown;
    const Described d = describe_exception(last ? e : t->exception);
    if (last) {
      m->text = d.text;
      m->is_panic = d.is_panic;
    }
    if (t && t->goexit && !last) continue;
    if (i > 0 && list[i - 1].repanicked) continue;  // said already
    std::string line = d.text;
    if (t && t->recovered) line += list[i].repanicked ? " [recovered, repanicked]" : " [recovered]";
    m->lines.push_back(std::move(line));
  }
}

/// A Defer that threw while another exception unwound: both belong into the report.
void look_for_the_first(const G* gp, Message* m) {
  PanicsUnderWay under_way = panics_under_way(gp->id);
  if (!under_way.defer_failed) return;
  if (m->is_panic && !under_way.messages.empty()) under_way.messages.pop_back();
  std::string first;
  if (!under_way.messages.empty())
    first = under_way.messages.back();
  else if (gp->unwinding == Unwinding::No)
    first = "(an exception that was unwinding)";
  else
    return;
  m->lines.insert(m->lines.end() - 1, std::move(first));
}

void print_message(Sink& out, const Message& m) {
  for (std::size_t i = 0; i < m.lines.size(); i++) {
    out << (i > 0 ? "\tpanic: " : "panic: ");
    out.indented(m.lines[i]);
    out << "\n";
  }
}

// ---- where it was thrown -------------------------------------------------------------------------------------------

/// The frames of the throw, if they are not this stack's any more: the exception has been thrown again.
struct ThrowPoint {
  std::uint64_t goid = 0;  // 0: none
  Frames frames;
};

/// The second frame is looked for, too: the first may be a function that many call.
bool stands(const std::uintptr_t* raised, std::size_t n, const FrameList& own) {
  for (std::size_t i = 0; i + 1 < own.kept; i++)
    if (own.pcs[i] == raised[0] - 1 && (n < 2 || own.pcs[i + 1] == raised[1] - 1)) return true;
  return false;
}

void find_throw_point(const std::exception_ptr& e, const G* gp, const FrameList& own, ThrowPoint* out) {
  constexpr std::size_t kMost = 64;
  std::uintptr_t found[kMost];
  const std::uintptr_t* pcs = found;
  std::size_t n = 0;
  std::uint64_t by = gp->id;
  const Thrown* t = newest_thrown();
  const auto state = panic_state_in(e);
  if (t && !t->handling && t->exception == e && !t->trace.empty()) {
    pcs = t->trace.data();
    n = t->trace.size();
  } else if (state) {
    pcs = state->raised_at.data();
    n = state->raised_at.size();
    by = state->raised_by;
  } else if (e && throw_trace) {
    n = throw_trace(arch::object_in(e), e.__cxa_exception_type(), found, kMost, &by);
  }
  if (n == 0 || by == 0 || (by == gp->id && stands(pcs, n, own))) return;
  out->goid = by;
  for (std::size_t i = 0; i < n; i++) out->frames.add(pcs[i], false);
}

// ---- the panic -----------------------------------------------------------------------------------------------------

/// The message is being made and panics itself, or the report is at work already.
[[noreturn]] void panic_while_printing() {
  if (!describing) leave_with_2();
  describing = false;
  const std::type_info* type = abi::__cxa_current_exception_type();
  std::string what = type ? detail::describe_unknown(*type) : "?";
  fatalf("panic while printing panic value: %s", what.c_str());
}

void claim(G* gp) {
  G* nobody = nullptr;
  if (reporting.compare_exchange_strong(nobody, gp, memory_order_relaxed)) return;
  if (nobody == gp) panic_while_printing();
  wait_for_ever();
}

[[noreturn]] void report_panic(G* gp) {
  sched.panicking.store(true, memory_order_relaxed);
  claim(gp);
  emit_as_crash();
  Frames own;
  collect_own_frames(&own);

  // Never destroyed: a token that dies here would complain.
  alignas(std::exception_ptr) static unsigned char kept[sizeof(std::exception_ptr)];
  const auto& thrown = *::new (kept) std::exception_ptr(std::current_exception());
  Message m;
  describing = true;
  describe(thrown, &m);
  describing = false;
  look_for_the_first(gp, &m);
  const FrameList here = own.list();
  ThrowPoint origin;
  find_throw_point(thrown, gp, here, &origin);

  const Traceback level = traceback_level();
  const bool wants_text = sched.config && sched.config->on_uncaught;
  std::string text;
  begin_patience([] { leave_with_2(); });
  with_room([&] {
    EmitSink out;
    if (wants_text) out.tee(&text);
    print_message(out, m);
    if (level == Traceback::None) return;
    out << "\n";
    const PrintOptions options{.system = level >= Traceback::System};
    print_current(out, gp, origin.goid == gp->id ? origin.frames.list() : here, options);
    if (origin.goid && origin.goid != gp->id) {
      out << "\nraised by goroutine ";
      out.dec(origin.goid);
      out << ":\n";
      print_frames(out, origin.frames.list(), options);
    }
  });
  if (level >= Traceback::All) print_all_others(wants_text ? &text : nullptr);
  end_patience();

  if (wants_text) {
    UncaughtReport r;
    r.id = gp->id;
    if (gp->extra) r.name = gp->extra->spawn.name;
    r.message = m.text;
    r.text = std::move(text);
    sched.config->on_uncaught(r);
  }
  if (sched.in_run) leave_with_2();
  pass_on();
}

[[noreturn]] void on_terminate() {
  G* gp = current_g();
  if (!gp || sched.state.load(memory_order_acquire) == RunState::Off) pass_on();  // [run-state]
  report_panic(gp);
}

// ---- fatal errors --------------------------------------------------------------------------------------------------

// After "fatal error: ..." has been printed; once in a process.
void on_fatal() {
  sched.panicking.store(true, memory_order_relaxed);
  const Traceback level = traceback_level();
  if (level != Traceback::None) {
    G* gp = current_g();
    Frames own;
    collect_own_frames(&own);
    begin_patience([] { leave_with_2(); });
    with_room([&] {
      EmitSink out;
      const PrintOptions options{.system = level >= Traceback::System};
      out << "\n";
      if (gp) {
        print_current(out, gp, own.list(), options);
      } else {
        out << (current_m() ? "runtime stack:\n" : "stack of a thread that is not the runtime's:\n");
        print_frames(out, own.list(), options);
      }
    });
    if (!gp || level >= Traceback::All) print_all_others(nullptr);
  }
  leave_with_2();
}

}  // namespace

Traceback traceback_level() {
  const Config* c = sched.config;
  return c ? c->traceback : Traceback::Single;
}

void leave_with_2() {
  if (traceback_level() == Traceback::Crash) {
    std::signal(SIGABRT, SIG_DFL);
    std::abort();
  }
  ::_exit(2);
}

void print_all_others(std::string* copy) {
  const G* self = current_g();
  const bool stopped = stop_world_for_report();
  with_room([&] {
    EmitSink out;
    out.tee(copy);
    try {
      StackDump all(traceback_level() >= Traceback::System);
      all.take(self, stopped);
      all.print(out);
    } catch (const std::bad_alloc&) {
      out << "\n[no memory for the other goroutines]\n";
    }
  });
}

void reports_install() {
  reporting.store(nullptr, memory_order_relaxed);
  fatal_reporter = on_fatal;
  stuck_reporter = report_stuck;
  const std::terminate_handler before = std::set_terminate(on_terminate);
  if (before != on_terminate) previous = before;
}

void reports_remove() {
  if (std::get_terminate() == on_terminate) std::set_terminate(previous);
}

}  // namespace weft::rt
