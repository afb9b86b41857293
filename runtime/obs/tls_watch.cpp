// See tls_watch.hpp.
//
// A compiler may keep such an address in a register that calls preserve; then what it does with it after the call it does to the
// old thread's variable. So when a goroutine has landed on another thread than it left, its own stack is unwound: what each frame
// will find in these registers when its call returns is compared with the old thread's TLS block.
//
// Blame      The frames between the runtime and the one that put the value there only pass it on: the outermost of those that see
//            it is named.
// Wrong      A register may still hold an address that nobody uses any more: hence a line in the log, once for each place, no
//            more. An address in a stack slot is not seen: slots that are dead hold too many. The lint (tools/weft-lint-tls) sees both.
// State      StackSlot::ran_on: where its goroutine ran last. Touched by the goroutine's own thread, in landed() alone.
#include "runtime/obs/tls_watch.hpp"

#include "arch/tls.hpp"
#include "arch/tls_block.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/probe.hpp"
#include "runtime/obs/room.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

#ifdef NDEBUG

void tls_watch_start() { log_warn("WEFT_DEBUG=tls needs a build with checks (-Db_ndebug=false)"); }
void tls_watch_stop() {}

#else

namespace {

constexpr unsigned kPlacesMost = 64;

struct Hit {
  std::uintptr_t pc = 0;
  std::uintptr_t value = 0;
};

struct Look {
  arch::TlsBlock old;
  std::uintptr_t from_sp;  // frames below it are our own
  Hit hits[arch::kKeptRegs];
};

SpinLock places_lock;
std::uintptr_t places[kPlacesMost];
unsigned places_count = 0;

bool first_time(std::uintptr_t pc) {
  places_lock.lock();
  bool is_new = places_count < kPlacesMost;
  for (unsigned i = 0; i < places_count; i++) is_new = is_new && places[i] != pc;
  if (is_new) places[places_count++] = pc;
  places_lock.unlock();
  return is_new;
}

void say(const G* gp, const arch::TlsBlock& old, unsigned reg, const Hit& hit) {
  if (!first_time(hit.pc)) return;
  with_room([&] {
    SymbolCache cache;
    const SourceFrame at = creation_site(reinterpret_cast<const void*>(hit.pc), cache, nullptr);
    const char* what = arch::tls_name(old, hit.value);
    const std::string name = gp->extra ? gp->extra->spawn.name : std::string();
    log_warn("goroutine %llu%s%s%s went on on another thread while %s (%s:%d) keeps the address of %s of the thread that it left in %s",
             static_cast<unsigned long long>(gp->id), name.empty() ? "" : " \"", name.c_str(), name.empty() ? "" : "\"",
             at.function.c_str(), at.file.c_str(), at.line, what ? what : "a thread-local variable", arch::kKeptRegNames[reg]);
  });
}

bool look_at_frame(const arch::KeptFrame& frame, void* arg) {
  auto* look = static_cast<Look*>(arg);
  if (frame.sp < look->from_sp) return true;
  for (unsigned i = 0; i < arch::kKeptRegs; i++) {
    Hit& hit = look->hits[i];
    if (hit.value == frame.kept[i] && hit.value != 0) {
      hit.pc = frame.pc;
    } else if (hit.value == 0 && look->old.holds(frame.kept[i])) {
      hit = {frame.pc, frame.kept[i]};
    }
  }
  return true;
}

WEFT_NOINLINE void on_landed(void* m) {
  M* mp = static_cast<M*>(m);
  G* gp = mp->curg;
  StackSlot* s = gp->stack;
  if (!s) return;
  const arch::TlsBlock now = arch::tls_block();
  const StackSlot::RanOn was = s->ran_on;
  s->ran_on = {gp->id, sched.started_at, now.lo, now.hi};
  if (was.goroutine != gp->id || was.run != sched.started_at || was.tls_lo == now.lo) return;
  Look look{{was.tls_lo, was.tls_hi}, reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)) + 2 * sizeof(void*), {}};
  arch::walk_kept_registers(look_at_frame, &look);
  for (unsigned i = 0; i < arch::kKeptRegs; i++)
    if (look.hits[i].value != 0) say(gp, look.old, i, look.hits[i]);
}

}  // namespace

void tls_watch_start() {
  if (!arch::probe_tls_block()) {
    log_warn("WEFT_DEBUG=tls: not on this machine");
    return;
  }
  places_count = 0;
  probe::on_landed.store(on_landed, memory_order_relaxed);
}

void tls_watch_stop() { probe::on_landed.store(nullptr, memory_order_relaxed); }

#endif

}  // namespace weft::rt
