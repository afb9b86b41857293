// func() and its Frame: defer, recover, panic and goexit in Go's order.
//
// Protocol   A function's body, and each of its deferred calls, runs behind a gate (arch/gate.hpp). An exception's search for a
//            handler asks the gates from the innermost out:
//
//            body's gate      runs the deferred calls for it, on top of the stack that threw it. Nobody recovers: declines, and the
//                             search goes on further out with the stack as it is. Somebody does, or another exception has
//                             taken its place: claims it. The frames above are unwound, run_frame() lands it, and returns or
//                             throws the other one.
//            a deferred       claims everything: what is thrown there replaces what the call runs for. Its frames, and those below
//            call's gate      that still stand, are noted first (Thrown::trace).
//
//            After a recovery, the deferred calls that are left run on the function's own stack, as on a return.
// Lists      TopScope makes an entry the goroutine's newest for as long as it is handled or in flight from run_frame(). Its
//            destructor runs on the way out too, so the list never names what is over.
// Traces     What replaces a panic was thrown on top of it, but by the time of a report the panic's own frames are unwound. So a trace is
//            the frames above the deferred call, and then the trace of what that call ran for.
#include <weft/error.hpp>
#include <weft/frame.hpp>

#include <array>
#include <typeinfo>

#include "arch/gate.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/block/thrown.hpp"
#include "runtime/sched/cancel.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::detail {

/// What block/frame.cpp does with a frame.
struct FrameAccess {
  static Deferred*& newest(FrameBase& f) { return f.newest_; }
  static void*& handling(FrameBase& f) { return f.handling_; }
  static const void*& gate(FrameBase& f) { return f.gate_; }
};

}  // namespace weft::detail

namespace weft::rt {
namespace {

using detail::Deferred;
using detail::FrameAccess;
using detail::FrameBase;
using ThrownPtr = std::shared_ptr<Thrown>;

constexpr std::size_t kTraceMost = 1000;

void set_newest(Thrown* t) {
  G* gp = current_g();
  if (!gp) return;  // a plain thread: nobody reports on it
  if (!gp->extra) {
    if (!t) return;
    gp->extra = new GExtra{};
  }
  gp->extra->thrown = t;
}

class TopScope {
 public:
  explicit TopScope(const ThrownPtr& t) : before_(newest_thrown()) { set_newest(t.get()); }
  TopScope(const TopScope&) = delete;
  TopScope& operator=(const TopScope&) = delete;
  ~TopScope() { set_newest(before_); }

 private:
  Thrown* before_;
};

const UnwindToken* token_in(const std::exception_ptr& e) {
  return e && *e.__cxa_exception_type() == typeid(UnwindToken) ? static_cast<const UnwindToken*>(arch::object_in(e)) : nullptr;
}

struct FrameGate : arch::Gate {
  FrameBase* frame = nullptr;
  ThrownPtr replaced;  // claimed: what goes on instead; null: it was recovered
};

struct CallGate : arch::Gate {
  FrameBase* frame = nullptr;
  ThrownPtr running_for;  // null: the function returns
  ThrownPtr thrown;       // claimed
};

/// The entry for what is in flight: its own, or a new one.
ThrownPtr entry_of(const _Unwind_Exception* in_flight) {
  std::exception_ptr e = arch::in_flight(in_flight);
  Thrown* top = newest_thrown();
  // Thrown on by a frame further in, which keeps the entry while it flies.
  if (top && !top->handling && top->exception == e) return top->shared_from_this();
  auto t = std::make_shared<Thrown>();
  if (top && top->handling) t->link = top->shared_from_this();
  if (const UnwindToken* token = token_in(e)) {
    t->goexit = true;
    t->because_of_stop = token->because_of_stop;
  } else {
    t->state = panic_state_in(e);
    t->passes = e && *e.__cxa_exception_type() == typeid(Canceled);
  }
  t->exception = std::move(e);
  return t;
}

void note_trace(CallGate& gate, Thrown* t) {
  std::array<std::uintptr_t, kTraceMost> pcs;
  const bool spliced = gate.running_for && !gate.running_for->trace.empty();
  std::size_t n = arch::frames_above(spliced ? &gate : nullptr, pcs.data(), pcs.size());
  if (n > pcs.size()) n = pcs.size();
  t->trace.assign(pcs.begin(), pcs.begin() + static_cast<std::ptrdiff_t>(n));
  if (spliced) {
    const auto& below = gate.running_for->trace;
    t->trace.insert(t->trace.end(), below.begin(), below.end());
  }
}

bool asked_of_call(arch::Gate* g, _Unwind_Exception* in_flight) {
  auto& gate = *static_cast<CallGate*>(g);
  gate.thrown = entry_of(in_flight);
  if (gate.thrown->trace.empty()) note_trace(gate, gate.thrown.get());
  return true;
}

void land(_Unwind_Exception* thrown) {
  const std::exception_ptr e = arch::in_flight(thrown);
  if (const UnwindToken* token = token_in(e)) const_cast<UnwindToken*>(token)->arrived = true;  // not swallowed: thrown anew
  arch::land(thrown);
}

struct DropScope {
  Deferred* d;
  ~DropScope() { d->drop(d); }
};

Deferred* take_newest(FrameBase& f) {
  Deferred*& newest = FrameAccess::newest(f);
  Deferred* d = newest;
  newest = d->next;
  return d;
}

/// Runs the newest deferred call for `t`. What it throws; null: it returned.
ThrownPtr call_for(FrameBase& f, const ThrownPtr& t) {
  DropScope drop{take_newest(f)};
  TopScope top(t);
  CallGate gate;
  gate.asked = asked_of_call;
  gate.frame = &f;
  gate.running_for = t;
  FrameAccess::handling(f) = t.get();
  FrameAccess::gate(f) = &gate;
  t->handling = true;
  _Unwind_Exception* thrown =
      arch::gate_call([](void* d) { static_cast<Deferred*>(d)->run(static_cast<Deferred*>(d)); }, drop.d, &gate);
  t->handling = false;
  FrameAccess::handling(f) = nullptr;
  FrameAccess::gate(f) = nullptr;
  if (!thrown) return nullptr;
  land(thrown);
  return std::move(gate.thrown);
}

/// The goexit that a panic has interrupted: it goes on once the panic is recovered.
ThrownPtr goexit_below(const ThrownPtr& t) {
  for (ThrownPtr below = t->link; below; below = below->link)
    if (below->goexit) return below;
  return nullptr;
}

bool asked_of_frame(arch::Gate* g, _Unwind_Exception* in_flight) {
  auto& gate = *static_cast<FrameGate*>(g);
  FrameBase& f = *gate.frame;
  if (!FrameAccess::newest(f)) return false;
  const ThrownPtr first = entry_of(in_flight);
  ThrownPtr now = first;
  while (FrameAccess::newest(f)) {
    if (ThrownPtr other = call_for(f, now)) {
      now = std::move(other);
    } else if (now->recovered) {
      ThrownPtr goexit = goexit_below(now);
      if (!goexit) return true;  // `replaced` is null
      now = std::move(goexit);
    }
  }
  if (now == first) return false;
  gate.replaced = std::move(now);
  return true;
}

/// What is thrown is in flight until the scope's destructor.
[[noreturn]] void throw_on(ThrownPtr t) {
  TopScope top(t);
  if (t->goexit) unwind_current(t->because_of_stop);
  if (!t->exception) panic_runtime("weft: an exception that is not of C++ was replaced and cannot be thrown again");
  std::rethrow_exception(t->exception);
}

}  // namespace

Thrown* newest_thrown() {
  const G* gp = current_g();
  return gp && gp->extra ? gp->extra->thrown : nullptr;
}

std::vector<ThrownEntry> thrown_list(const std::exception_ptr& e) {
  std::vector<ThrownEntry> list;
  const Thrown* top = newest_thrown();
  for (const Thrown* t = top; t; t = t->link.get()) list.insert(list.begin(), {t});
  const auto state_of = [&](const ThrownEntry& x) { return x.thrown ? x.thrown->state : panic_state_in(e); };
  const auto exception_of = [&](const ThrownEntry& x) { return x.thrown ? x.thrown->exception : e; };
  if (!top || top->handling || top->exception != e) list.push_back({});
  for (std::size_t i = 0; i + 1 < list.size(); i++) {
    const auto state = state_of(list[i]);
    list[i].repanicked = (state && state == state_of(list[i + 1])) || exception_of(list[i]) == exception_of(list[i + 1]);
  }
  return list;
}

}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

void run_frame(FrameBase& frame, void (*body)(void*), void* arg) {
  for (;;) {
    FrameGate gate;
    gate.asked = asked_of_frame;
    gate.frame = &frame;
    if (_Unwind_Exception* thrown = arch::gate_call(body, arg, &gate)) {
      land(thrown);
      if (gate.replaced) throw_on(std::move(gate.replaced));
    }
    if (!FrameAccess::newest(frame)) return;
    body = [](void* f) {
      Masked masked(current_g());
      DropScope d{take_newest(*static_cast<FrameBase*>(f))};
      d.d->run(d.d);
    };
    arg = &frame;
  }
}

std::optional<Panic> FrameBase::recover() {
  auto* t = static_cast<Thrown*>(handling_);
  if (!t || t->goexit || t->passes || t->recovered || arch::innermost_gate() != gate_) return std::nullopt;
  if (!t->state) t->state = panic_state_for(t->exception);
  t->recovered = true;
  return Panic(t->state, t->exception);
}

void panic_nil_deferred() { panic_runtime("invalid memory address or nil pointer dereference"); }

}  // namespace weft::detail
