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

#include "runtime/base/check.hpp"
#include "runtime/base/emit.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/obs/dump.hpp"
#include "runtime/obs/room.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::rt {
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
  std::string text;
  std::string first;     // of the exception that was unwinding when a Defer threw; with `chained`
  bool chained = false;
  bool is_panic = false;
  bool is_token = false;  // goexit met a noexcept function
};

template <class T>
void of_number(const char* type, T v, Message* m) {
  m->text = std::string(type) + "(" + std::to_string(v) + ")";
}

/// Runs user code, which may use the runtime: Stack: G, its own.
void describe(const std::exception_ptr& e, Message* m) {
  if (!e) {
    m->text = "terminate called without an active exception";
    return;
  }
  try {
    std::rethrow_exception(e);
  } catch (const Panic& p) {
    m->is_panic = true;
    m->text = p.what();
  } catch (const UnwindToken&) {
    m->is_token = true;
    m->text = "goexit cannot unwind a noexcept function";
  } catch (const std::exception& x) {
    const char* what = x.what();
    m->text = what && *what ? what : detail::describe_unknown(typeid(x));
  } catch (const char* s) {
    m->text = s ? s : "nil";
  } catch (const std::string& s) {
    m->text = s;
  } catch (int v) {
    of_number("int", v, m);
  } catch (unsigned v) {
    of_number("unsigned", v, m);
  } catch (long v) {
    of_number("long", v, m);
  } catch (unsigned long v) {
    of_number("unsigned long", v, m);
  } catch (double v) {
    of_number("double", v, m);
  } catch (bool v) {
    m->text = v ? "bool(true)" : "bool(false)";
  } catch (...) {
    const std::type_info* type = abi::__cxa_current_exception_type();
    m->text = type ? detail::describe_unknown(*type) : "an exception that is not of C++";
  }
}

/// A Defer that threw while another exception unwound: both belong into the report.
void look_for_the_first(const G* gp, Message* m) {
  PanicsUnderWay under_way = panics_under_way(gp->id);
  if (!under_way.defer_failed) return;
  if (m->is_panic && !under_way.messages.empty()) under_way.messages.pop_back();
  if (!under_way.messages.empty()) {
    m->chained = true;
    m->first = under_way.messages.back();
  } else if (gp->unwinding == Unwinding::No) {
    m->chained = true;
    m->first = "(an exception that was unwinding)";
  }
}

void print_message(Sink& out, const Message& m) {
  if (m.chained) {
    out << "panic: ";
    out.indented(m.first);
    out << "\n\t";
  }
  out << "panic: ";
  out.indented(m.text);
  out << "\n";
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
    print_current(out, gp, own.list(), options);
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
