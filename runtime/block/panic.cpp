// Raising panics and fatal errors.
//
// Under way  C++ has no access to an exception that unwinds. The report of a Defer that throws meanwhile must name both, so
//            each panic leaves a weak reference in a small table when it is raised; one that has been caught and dropped has
//            expired. The table is lossy: what it has lost is reported as an exception without a message.
#include "runtime/block/panic.hpp"

#include <weft/await.hpp>
#include <weft/defer.hpp>
#include <weft/go.hpp>
#include <weft/time.hpp>

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <typeinfo>
#include <utility>

#include "arch/unwind.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::detail {

struct PanicAccess {
  static const std::shared_ptr<const PanicState>& state(const Panic& p) { return p.state_; }
};

}  // namespace weft::detail

namespace weft::rt {
namespace {

constexpr std::size_t kRaisedMost = 128;  // frames that a Panic keeps
constexpr std::size_t kSlots = 64;
constexpr std::size_t kDepth = 4;

struct Slot {
  std::uint64_t goid = 0;
  std::weak_ptr<const detail::PanicState> raised[kDepth];  // a ring
  unsigned next = 0;
  bool defer_failed = false;
};

struct Table {
  SpinLock lock;
  Slot slots[kSlots];
};
// Never destroyed: panics are raised while static destructors run, too.
Table& table() {
  static Table* t = new Table;
  return *t;
}

/// The slot of this goroutine, emptied if it was another's. Under the lock.
Slot& slot_of(Table& t, std::uint64_t goid) {
  Slot& s = t.slots[goid % kSlots];
  if (s.goid != goid) {
    s = Slot{};
    s.goid = goid;
  }
  return s;
}

void remember(const std::shared_ptr<const detail::PanicState>& state) {
  const std::uint64_t id = goid();
  if (id == 0) return;
  Table& t = table();
  t.lock.lock();
  Slot& s = slot_of(t, id);
  s.raised[s.next++ % kDepth] = state;
  t.lock.unlock();
}

template <class T>
void of_number(const char* type, T v, Described* m) {
  m->text = std::string(type) + "(" + std::to_string(v) + ")";
}

void describe(const std::exception_ptr& e, Described* m) {
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

}  // namespace

Described describe_exception(const std::exception_ptr& e) {
  Described d;
  if (e)
    describe(e, &d);
  else
    d.text = "an exception that is not of C++";
  return d;
}

std::shared_ptr<const detail::PanicState> panic_state_in(const std::exception_ptr& e) {
  if (!e) return nullptr;
  try {
    std::rethrow_exception(e);
  } catch (const Panic& p) {
    return detail::PanicAccess::state(p);
  } catch (...) {
    return nullptr;
  }
}

std::shared_ptr<const detail::PanicState> panic_state_for(const std::exception_ptr& e) {
  auto state = std::make_shared<detail::PanicState>();
  state->message = describe_exception(e).text;
  return state;
}

PanicsUnderWay panics_under_way(std::uint64_t id) {
  PanicsUnderWay found;
  std::shared_ptr<const detail::PanicState> alive[kDepth];
  unsigned n = 0;
  Table& t = table();
  t.lock.lock();
  Slot& s = slot_of(t, id);
  found.defer_failed = s.defer_failed;
  for (unsigned i = 0; i < kDepth; i++)
    if (auto state = s.raised[(s.next + i) % kDepth].lock()) alive[n++] = std::move(state);
  t.lock.unlock();
  for (unsigned i = 0; i < n; i++) found.messages.push_back(alive[i]->message);
  return found;
}

void panic_runtime(const char* message) {
  auto state = std::make_shared<detail::PanicState>();
  state->message = message;
  state->value = state->message;
  state->runtime_error = true;
  detail::throw_panic(std::move(state));
}

}  // namespace weft::rt

namespace weft {

void fatal(std::string_view message) { rt::fatalf("%.*s", static_cast<int>(message.size()), message.data()); }

namespace detail {

void throw_panic(std::shared_ptr<PanicState> state) {
  state->raised_by = goid();
  arch::walk_here(
      [](std::uintptr_t pc, bool, void* at) {
        auto* pcs = static_cast<std::vector<std::uintptr_t>*>(at);
        pcs->push_back(pc);
        return pcs->size() < rt::kRaisedMost;
      },
      &state->raised_at);
  rt::remember(state);
  throw Panic(std::move(state));
}

void throw_again(const Panic& p) {
  rt::remember(PanicAccess::state(p));
  throw Panic(p);
}

std::string describe_unknown(const std::type_info& type) {
  int status = 0;
  char* name = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string text = status == 0 && name ? name : type.name();
  std::free(name);
  return text;
}

void fatal_nil_func() { rt::fatalf("go of nil func value"); }

// Called inside the handler of the second exception, which is the current one then: the terminate handler finds it there.
void defer_failed_while_unwinding(std::exception_ptr) noexcept {
  const std::uint64_t id = goid();
  if (id != 0) {
    rt::Table& t = rt::table();
    t.lock.lock();
    rt::slot_of(t, id).defer_failed = true;
    t.lock.unlock();
  }
  std::terminate();
}

void panic_ticker_interval(bool reset) {
  rt::panic_runtime(reset ? "non-positive interval for Ticker.Reset" : "non-positive interval for NewTicker");
}

void panic_timer_uninitialized(bool reset) {
  rt::panic_runtime(reset ? "time: Reset called on uninitialized Timer" : "time: Stop called on uninitialized Timer");
}

void panic_nil() { rt::panic_runtime("panic called with nil argument"); }
void panic_await_abandoned() { rt::panic_runtime("weft: await: the last Resume was dropped without being called"); }

}  // namespace detail
}  // namespace weft
