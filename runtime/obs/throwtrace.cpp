// weft-throwtrace: remembers where each exception was thrown first, so that the report of an uncaught one that has been caught and
// thrown again (`throw;`, std::rethrow_exception, a task's get()) shows that place and not the last. Panics remember it themselves.
//
// A library of its own: it takes the place of __cxa_throw, and every throw of the program pays a walk of its stack (microseconds).
// Link it before the C++ library, which has to be a shared one: the real function is the next in the order of symbols.
// Table      One entry per slot, by the address of the object. An address that comes again was freed in between, and its throw
//            overwrites; two live ones that share a slot lose the older. An object that was never thrown by `throw`
//            (std::make_exception_ptr) may be taken for a dead one of its type at its address: the price of not wrapping destructors.
#include <dlfcn.h>
#include <weft/go.hpp>

#include <cstdlib>
#include <typeinfo>

#include "arch/unwind.hpp"
#include "runtime/base/emit.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/obs/throw_hook.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kSlots = 256;
constexpr std::size_t kFrames = 64;

struct Slot {
  SpinLock lock;
  const void* object = nullptr;
  const std::type_info* type = nullptr;
  std::uint64_t goid = 0;
  std::size_t count = 0;
  std::uintptr_t pcs[kFrames];
};

Slot* slots() {
  static Slot* all = new Slot[kSlots];  // never destroyed: static destructors throw, too
  return all;
}

Slot& slot_of(const void* object) { return slots()[(reinterpret_cast<std::uintptr_t>(object) >> 5) * 0x9e3779b97f4a7c15 >> 56]; }

struct Walk {
  std::uintptr_t* pcs;
  std::size_t count = 0;
};

void note(const void* object, const std::type_info* type) {
  std::uintptr_t pcs[kFrames];
  Walk w{pcs};
  arch::walk_here(
      [](std::uintptr_t pc, bool, void* arg) {
        Walk& to = *static_cast<Walk*>(arg);
        to.pcs[to.count++] = pc;
        return to.count < kFrames;
      },
      &w);
  Slot& s = slot_of(object);
  s.lock.lock();
  s.object = object;
  s.type = type;
  s.goid = goid();
  s.count = w.count;
  for (std::size_t i = 0; i < w.count; i++) s.pcs[i] = pcs[i];
  s.lock.unlock();
}

std::size_t look_up(const void* object, const std::type_info* type, std::uintptr_t* pcs, std::size_t max, std::uint64_t* by) {
  Slot& s = slot_of(object);
  std::size_t n = 0;
  s.lock.lock();
  if (s.object == object && s.type && type && *s.type == *type) {
    *by = s.goid;
    while (n < s.count && n < max) {
      pcs[n] = s.pcs[n];
      n++;
    }
  }
  s.lock.unlock();
  return n;
}

using RealThrow = void (*)(void*, std::type_info*, void (*)(void*));

RealThrow real_throw() {
  static const auto real = reinterpret_cast<RealThrow>(::dlsym(RTLD_NEXT, "__cxa_throw"));
  if (!real) {
    emit("fatal error: weft-throwtrace: no other __cxa_throw: link the shared C++ library, after this one\n");
    std::abort();
  }
  return real;
}

const bool linked = [] {
  throw_trace = look_up;
  return true;
}();

}  // namespace
}  // namespace weft::rt

/// Under the name of the real one, whose own declaration belongs to the compiler.
extern "C" [[noreturn]] void weft_traced_throw(void* object, std::type_info* type, void (*destroy)(void*)) asm("__cxa_throw");

void weft_traced_throw(void* object, std::type_info* type, void (*destroy)(void*)) {
  weft::rt::note(object, type);
  weft::rt::real_throw()(object, type, destroy);
  __builtin_unreachable();
}
