// Finding what goroutines hold: their live words, whatever instruction their threads stand at.
//
// Who is where   The stack pointer of a thread that stands decides, not any status: status, M::curg and the saved context change one
//            after the other, and a freeze may come between any two of these. So first each M is looked at: the stack that its
//            stack pointer lies in is live from there on (less the red zone), with the registers of the signal's frame; that stack
//            is done. Then each G whose stack no thread stands in: live from its saved context on.
// Half way   A context is stored by who comes after, on the new stack (landed()). Between the jump and that store the leaver's
//            G::ctx is old:
//
//              M                                    G::ctx of `from`    M::curg    stack pointer in
//              set_out(): from, curg = to           old                 to         from's   <- done by the stack pointer
//              jump: push registers, rax = rsp      old                 to         from's
//                    rsp = to's                     old                 to         to's     <- here, up to
//              landed(): from->ctx = rax            right               to         to's
//
//            Meanwhile the right one is in a register of that M, or in a word of the stack that it is on: it is that code's only
//            copy. So for an M's `from` and `curg` the lowest word among those that points into the G's stack counts, if it is
//            lower than G::ctx. It can only be too low: more is live then, never less. M::from stays after the switch; then the
//            word found is at worst some old pointer.
//            The next G is `to` before it runs: its context was stored before anybody could find it.
// Taken over   A G that ends hands its stack to one that has never run, without a switch: for some instructions neither G has it.
//            It is found by the stack pointer all the same.
// Segments   A goroutine on a segmented stack has a view for each piece that is live: that of the stack pointer, found as above, and the
//            older ones, from where each was left (core/segments.hpp). Half way it may be any: then each piece that such a word
//            points into.
// Signals    A thread may stand in a handler of somebody else's, on its signal stack: the outer frame there holds the registers,
//            stack pointer included, of the goroutine: its stack is live from the lowest word found there, less the red zone.
//            On a stack that is not known at all (a coroutine library's, inside a goroutine): the whole goroutine's.
// Closures   G::closure is set before `go` builds the closure in it and cleared when it has been destroyed, also in descriptors
//            that are not started yet: their only copy may be there.
// Caller     Its own frames count from here up, with the registers it has left to its callees.
// No locks   Descriptors, stack slots and Ms are read as they are; none is freed while Sched::freezing is held (sched/lifecycle.cpp).
// Orders     [status] see core/g.hpp. [freeze], [sleeps] see sched/freeze.cpp.
#include <weft/gc_hook.hpp>
#include <weft/panic.hpp>

#include <algorithm>
#include <string>

#include "arch/registers.hpp"
#include "arch/signal.hpp"
#include "arch/stack_memory.hpp"
#include "runtime/base/collector.hpp"
#include "runtime/core/blocks.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

using gc::GoState;
using gc::StackView;
using gc::Words;

constexpr std::uintptr_t kWord = sizeof(void*);

std::uintptr_t up(std::uintptr_t a) { return (a + kWord - 1) & ~(kWord - 1); }
std::uintptr_t down(std::uintptr_t a) { return a & ~(kWord - 1); }
std::uintptr_t to_word(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }
const void* to_ptr(std::uintptr_t a) { return reinterpret_cast<const void*>(a); }

struct Range {
  std::uintptr_t lo = 0;
  std::uintptr_t hi = 0;
  bool holds(std::uintptr_t a) const { return a >= lo && a < hi; }
};

/// The lowest word in `words` that points into `target`; target.hi if none does.
WEFT_NO_SANITIZE std::uintptr_t lowest_into(const Range& words, const Range& target) {
  std::uintptr_t lowest = target.hi;
  for (std::uintptr_t a = up(words.lo); a + kWord <= words.hi; a += kWord) {
    const std::uintptr_t w = *reinterpret_cast<const volatile std::uintptr_t*>(a);
    if (target.holds(w) && w < lowest) lowest = w;
  }
  return lowest;
}

/// Where an M stands, as seen between a freeze and its thaw.
struct Seat {
  enum class On : std::uint8_t { Nothing, System, Signal, Goroutine, Unknown };
  On on = On::Nothing;          // which stack; Nothing: it sleeps, begins or ends, and runs no goroutine
  StackSlot* slot = nullptr;    // Goroutine: whose
  Range live;                   // of that stack
  Range registers;              // empty: the caller's own, which are on its stack
};

/// What the caller of each_stack() is itself.
struct Self {
  const M* mp;
  std::uintptr_t sp;
};

Range system_stack(const M* mp) { return {to_word(mp->stack_lo), to_word(mp->stack_hi)}; }

Range signal_stack(const M* mp) {
  Range r;
  arch::signal_stack_range(mp->signal_stack, &r.lo, &r.hi);
  return r;
}

Seat seat_of(const M* mp, const Self& self) {
  Seat s;
  std::uintptr_t sp = self.sp;
  if (mp != self.mp) {
    const void* uc = mp->stands_at.load(memory_order_acquire);  // [freeze]
    if (!uc) return s;
    const arch::RegisterFile file = arch::register_file(uc);
    s.registers = {to_word(file.lo), to_word(file.hi)};
    sp = arch::fault_regs(uc).sp - arch::kRedZoneBytes;
  }
  const Range signals = signal_stack(mp);
  s.slot = find_stack(to_ptr(sp));
  if (!s.slot) s.slot = find_stack(to_ptr(sp + arch::kRedZoneBytes));
  if (s.slot) {
    s.on = Seat::On::Goroutine;
    s.live = {std::max(sp, to_word(s.slot->lo)), to_word(s.slot->hi)};
  } else if (signals.holds(sp)) {
    s.on = Seat::On::Signal;
    s.live = {sp, signals.hi};
  } else if (const Range own = system_stack(mp); sp < own.hi && (own.lo != 0 ? sp >= own.lo : own.hi - sp < (1u << 20))) {
    s.on = Seat::On::System;
    s.live = {sp, own.hi};
  } else {
    s.on = Seat::On::Unknown;
  }
  // The handler itself, where it runs on the stack that it interrupted: no signal stack, or a sanitizer that calls it late.
  if (mp != self.mp && s.live.hi != 0 && mp->stands_sp < s.live.lo && s.live.lo - mp->stands_sp < arch::kSignalStackBytes &&
      (!s.slot || mp->stands_sp >= to_word(s.slot->lo)) && !signals.holds(mp->stands_sp))
    s.live.lo = mp->stands_sp;
  s.live.lo = down(s.live.lo);
  return s;
}

Range whole(const StackSlot* s) { return {to_word(s->lo), to_word(s->hi)}; }

/// Where `stack` is live from, seen from an M that has just left it, or is about to go on on it.
std::uintptr_t live_from(const Seat& seat, const Range& stack, std::uintptr_t saved) {
  std::uintptr_t lo = stack.holds(saved) ? saved : stack.hi;
  lo = std::min(lo, lowest_into(seat.registers, stack));
  lo = std::min(lo, lowest_into(seat.live, stack));
  if (seat.on == Seat::On::Unknown) lo = stack.lo;
  if (seat.on == Seat::On::Signal) lo = std::max(stack.lo, lo - arch::kRedZoneBytes);
  return down(lo);
}

/// The same for pieces of a segmented stack.
auto half_way(const Seat& seat, std::uintptr_t saved) {
  return [&seat, saved](const StackSlot*, std::uintptr_t lo, std::uintptr_t hi) { return live_from(seat, {lo, hi}, saved); };
}

// ---- views -------------------------------------------------------------------------------------------------------------

GoState state_of(const G* gp) {
  switch (gp->status.load(memory_order_acquire)) {  // [status]
    case GStatus::Waiting: return GoState::Parked;
    case GStatus::Syscall: return GoState::Detached;
    case GStatus::Running:
    case GStatus::Dead: {
      const M* mp = gp->m;
      return mp && mp->p ? GoState::Running : GoState::Detached;
    }
    case GStatus::Runnable: break;
  }
  return gp->stack ? GoState::Runnable : GoState::Fresh;
}

/// [lo, hi) of `s`. The one place that knows kinds: a parked stack that lies elsewhere is handed out as the block it is in.
void place(StackView& v, const StackSlot* s, const Range& live) {
  v.lo = v.home = to_ptr(live.lo);
  v.hi = to_ptr(live.hi);
  if (!s) return;
  v.reserved_bytes = s->limit();
  switch (s->kind) {
    case StackKind::Growable: v.kind = gc::StackKind::Growable; break;
    case StackKind::Copyable: v.kind = gc::StackKind::Copyable; break;
    case StackKind::Segmented: v.kind = gc::StackKind::Segmented; break;
  }
}

/// The same for a goroutine whose stack no thread stands in: its bytes may have been copied out, or taken out of memory.
void place_parked(StackView& v, const G* gp, const StackSlot* s, const Range& live) {
  place(v, s, live);
  if (!s || live.lo == live.hi) return;
  // A trap would take the collector for a stranger. It is set again when its goroutine has run.
  if (copy_mode() == CopyMode::Trapped && is_copyable(gp)) arch::allow_access(s->lo, s->bytes());
  const StackImage image = stack_image(gp);
  if (image.shift == 0) return;
  v.where = gc::Where::Block;
  v.home = to_ptr(down(to_word(image.lo)));
  v.lo = to_ptr(down(to_word(image.lo)) + static_cast<std::uintptr_t>(image.shift));
  v.hi = to_ptr(to_word(image.hi) + static_cast<std::uintptr_t>(image.shift));
}

/// The thread stands on a stack of gp's.
bool stands_on(const Seat& seat, const G* gp) {
  if (!seat.slot || !gp->stack) return false;
  return seat.slot == gp->stack || (has_segments(gp) && segment_slot_at(gp, to_word(seat.slot->lo)) == seat.slot);
}

/// A view for each live piece, the newest first, which has the registers. `from` as in each_live_segment().
template <class From>
void view_segments(StackView v, const G* gp, From from, gc::StackFn f, void* arg) {
  bool any = false;
  each_live_segment(gp, from, [&](const StackSlot* s, std::uintptr_t lo, std::uintptr_t hi) {
    place(v, s, {up(lo), down(hi)});
    f(v, arg);
    v.registers_lo = v.registers_hi = nullptr;
    any = true;
  });
  if (any) return;
  place(v, gp->stack, {});
  f(v, arg);
}

/// The stack that a thread stands on, of gp if that is known.
void view_seat(StackView v, const G* gp, const Seat& seat, gc::StackFn f, void* arg) {
  if (gp && has_segments(gp)) {
    view_segments(
        v, gp, [&](const StackSlot* s, std::uintptr_t, std::uintptr_t hi) { return s == seat.slot ? seat.live.lo : hi; }, f, arg);
    return;
  }
  place(v, seat.slot, seat.live);
  f(v, arg);
}

StackView view_of(const G* gp) {
  StackView v;
  v.goid = gp->id;
  v.state = state_of(gp);
  v.suspended = gp->extra && gp->extra->held != 0;
  return v;
}

void add_registers(StackView& v, const Seat& seat) {
  v.registers_lo = to_ptr(seat.registers.lo);
  v.registers_hi = to_ptr(seat.registers.hi);
}

/// Who has `slot`, of those that the M may be at.
const G* whose(const M* mp, const StackSlot* slot) {
  const G* cur = running_on(mp);
  if (cur && cur->stack == slot) return cur;
  if (mp->from && mp->from != &mp->g0 && mp->from->stack == slot) return mp->from;
  return peek(slot->owner);
}

/// The stack that the M stands on, its own stack, its signal stack.
void each_of_thread(const M* mp, const Self& self, gc::StackFn f, void* arg) {
  const Seat seat = seat_of(mp, self);
  const std::uintptr_t sleeps_at = mp->sleeps_at.load(memory_order_acquire);  // [sleeps]
  if (seat.on == Seat::On::Nothing && sleeps_at == 0) return;                 // begins or ends: nothing of it is to be read
  const Range own = system_stack(mp);
  StackView v;
  if (seat.on == Seat::On::Goroutine) {
    const G* gp = whose(mp, seat.slot);
    if (gp) v = view_of(gp);
    add_registers(v, seat);
    view_seat(v, gp, seat, f, arg);
  } else if (seat.on == Seat::On::Signal) {
    v.words = Words::Signal;
    place(v, nullptr, seat.live);
    add_registers(v, seat);
    f(v, arg);
  }
  v = {};
  v.words = Words::System;
  Range live{own.hi, own.hi};
  if (seat.on == Seat::On::System) {
    live = seat.live;
    add_registers(v, seat);
  } else if (seat.on == Seat::On::Nothing) {
    if (own.lo != 0 ? own.holds(sleeps_at) : sleeps_at < own.hi) live.lo = down(sleeps_at);
  } else {
    if (seat.on == Seat::On::Unknown) add_registers(v, seat);
    const auto saved = to_word(mp->g0.ctx);
    if (own.lo != 0 && mp->from == &mp->g0)
      live.lo = live_from(seat.on == Seat::On::Unknown ? Seat{} : seat, own, saved);
    else if (saved < own.hi)
      live.lo = down(saved);
  }
  place(v, nullptr, live);
  v.reserved_bytes = own.lo ? own.hi - own.lo : 0;
  f(v, arg);
  if (mp->tls_hi != 0) {
    v = {};
    v.words = Words::ThreadLocals;
    place(v, nullptr, {mp->tls_lo, mp->tls_hi});
    f(v, arg);
  }
}

/// One that is wholly parked, or not started.
void view_parked(StackView& v, const G* gp, gc::StackFn f, void* arg) {
  const StackSlot* s = gp->stack;
  const auto ctx = to_word(gp->ctx);
  if (has_segments(gp)) {
    const auto from_context = [ctx](const StackSlot*, std::uintptr_t lo, std::uintptr_t hi) { return ctx >= lo && ctx < hi ? ctx : hi; };
    return view_segments(v, gp, from_context, f, arg);
  }
  if (s && whole(s).holds(ctx))
    place_parked(v, gp, s, {ctx, to_word(s->hi)});
  else
    place(v, s, {});
  f(v, arg);
}

/// A goroutine whose stack no thread stands in; or, unless the world is frozen, one that runs on.
void view_goroutine(const G* gp, const Self& self, bool frozen, gc::StackFn f, void* arg) {
  const GStatus status = gp->status.load(memory_order_acquire);  // [status]
  if (status == GStatus::Dead) return;
  StackView v = view_of(gp);
  const StackSlot* s = gp->stack;
  const M* mp = runs_on(gp);
  const bool runs = status == GStatus::Running || status == GStatus::Syscall;
  const auto ctx = to_word(gp->ctx);
  const auto from_lowest = [](const StackSlot*, std::uintptr_t lo, std::uintptr_t) { return lo; };
  Range live;
  if (runs && gp->id == 0) {  // left behind by an earlier run: nobody knows where it is
    if (has_segments(gp)) return view_segments(v, gp, from_lowest, f, arg);
    if (s) live = whole(s);
  } else if (mp && (frozen || mp == self.mp) && (running_on(mp) == gp || mp->from == gp)) {
    const Seat seat = seat_of(mp, self);
    if (stands_on(seat, gp)) return;  // done
    if (seat.on == Seat::On::Unknown && running_on(mp) == gp) add_registers(v, seat);
    if (has_segments(gp)) return view_segments(v, gp, half_way(seat, ctx), f, arg);
    if (s) live = {live_from(seat, whole(s), ctx), to_word(s->hi)};
  } else if (runs && !frozen) {
    v.where = gc::Where::Moving;
    f(v, arg);
    return;
  } else {
    view_parked(v, gp, f, arg);
    return;
  }
  place(v, s, live);
  f(v, arg);
}

struct Each {
  gc::StackFn f;
  void* arg;
  Self self;
  bool frozen;
};

void root(gc::RootKind kind, const G* gp, const void* lo, std::size_t bytes, gc::RootFn f, void* arg) {
  const gc::Root r{kind, gp->id, lo, static_cast<const char*>(lo) + bytes};
  f(r, arg);
}

struct EachRoot {
  gc::RootFn f;
  void* arg;
  const G* gp;
};

void in_flight(const G* gp, const WaitNode& n, const EachRoot& e) {
  if (const std::size_t bytes = peer_block_bytes(n.elem)) root(gc::RootKind::WaitState, gp, n.elem, bytes, e.f, e.arg);
}

void need_stop(const char* what) {
  if (!frozen_here() && !stopped_here()) panic(std::string("weft: gc::") + what + " of a world that the caller has not stopped");
}

/// Of a goroutine that is suspended while the world runs.
WEFT_NOINLINE void view_suspended(const G* gp, gc::StackFn f, void* arg) {
  const Self nobody{nullptr, 0};
  const M* mp = gp->extra->stands;
  if (!mp) {
    // The world was stopped when it was suspended: no thread is on its way out of it.
    StackView v = view_of(gp);
    view_parked(v, gp, f, arg);
    return;
  }
  const Seat seat = seat_of(mp, nobody);
  if (stands_on(seat, gp)) {
    StackView v = view_of(gp);
    add_registers(v, seat);
    view_seat(v, gp, seat, f, arg);
    return;
  }
  // It stands between two stacks, or in a handler on the signal stack.
  if (seat.on == Seat::On::Signal) {
    StackView v;
    v.words = Words::Signal;
    v.goid = gp->id;
    v.suspended = true;
    place(v, nullptr, seat.live);
    add_registers(v, seat);
    f(v, arg);
  }
  StackView v = view_of(gp);
  if (seat.on != Seat::On::Signal) add_registers(v, seat);
  if (has_segments(gp)) return view_segments(v, gp, half_way(seat, to_word(gp->ctx)), f, arg);
  if (const StackSlot* s = gp->stack) place(v, s, {live_from(seat, whole(s), to_word(gp->ctx)), to_word(s->hi)});
  f(v, arg);
}

}  // namespace
}  // namespace weft::rt

namespace weft::gc {

using namespace rt;

WEFT_NOINLINE void each_stack(StackFn f, void* arg) {
  need_stop("each_stack");
  arch::KeptRegisters kept;
  arch::keep_registers(kept);
  Each e{f, arg, {current_m(), down(arch::stack_pointer())}, frozen_here()};
  if (e.frozen) {
    const FrozenMs ms = frozen_ms();
    for (std::size_t i = 0; i < ms.count; i++) each_of_thread(ms.first[i], e.self, f, arg);
  } else if (const M* mp = e.self.mp) {
    // The caller's own goroutine is the only one of those that run that stands still for it.
    const Seat seat = seat_of(mp, e.self);
    const G* gp = running_on(mp);
    if (gp && stands_on(seat, gp)) view_seat(view_of(gp), gp, seat, f, arg);
  }
  g_table_each(
      [](G* gp, void* arg) {
        auto* e = static_cast<Each*>(arg);
        view_goroutine(gp, e->self, e->frozen, e->f, e->arg);
      },
      &e);
  asm volatile("" ::"r"(&kept) : "memory");
}

WEFT_NOINLINE bool own_stack(const void** lo, const void** hi) {
  const StackSlot* s = find_stack(to_ptr(arch::stack_pointer()));
  if (!s) return false;
  *lo = s->lo;
  *hi = s->hi;
  return true;
}

void stack_of(std::uint64_t goid, StackFn f, void* arg) {
  const G* gp = held_g(goid);
  if (!gp)
    panic("weft: gc::stack_of goroutine " + std::to_string(goid) + ", which is not suspended");
  view_suspended(gp, f, arg);
}

void each_root(RootFn f, void* arg) {
  need_stop("each_root");
  EachRoot e{f, arg, nullptr};
  g_table_each(
      [](G* gp, void* arg) {
        auto* e = static_cast<EachRoot*>(arg);
        if (gp->closure && (gp->closure == gp->inline_closure || !collector.allocate))
          root(RootKind::Closure, gp, gp->closure, closure_bytes(gp), e->f, e->arg);
        const GStatus status = gp->status.load(memory_order_acquire);  // [status]
        if (status == GStatus::Dead) return;
        if (gp->waiter.node.elem) root(RootKind::WaitState, gp, &gp->waiter.node.elem, sizeof(void*), e->f, e->arg);
        if (gp->nodes && gp->nodes_count != 0)
          root(RootKind::WaitState, gp, gp->nodes, gp->nodes_count * sizeof(WaitNode), e->f, e->arg);
        if (is_copyable(gp)) {
          // What travels to or from it lies beside its stack (block/peer_cell.hpp); an old one is only too much.
          root(RootKind::WaitState, gp, &gp->timer.when, sizeof gp->timer.when, e->f, e->arg);
          in_flight(gp, gp->waiter.node, *e);
          for (unsigned i = 0; gp->nodes && i < gp->nodes_count; i++) in_flight(gp, gp->nodes[i], *e);
        }
        if (local_roots) {
          e->gp = gp;
          local_roots(
              gp,
              [](const void* lo, const void* hi, void* arg) {
                auto* e = static_cast<EachRoot*>(arg);
                e->f({RootKind::Locals, e->gp->id, lo, hi}, e->arg);
              },
              e);
        }
      },
      &e);
}

}  // namespace weft::gc
