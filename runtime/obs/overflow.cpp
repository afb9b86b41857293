// See overflow.hpp.
//
// Whose     The G that this thread runs (M::curg), if the fault lies in the guard of its stack or up to kJump bytes below its
//           lowest byte, since a frame may step over the guard and land in that of a stranger; or if sp is below its
//           stack. Else, in the few instructions around a switch, the owner of the guard if sp is there as well. A fault
//           near sp on g0 is an overflow of the M's own stack. Everything else is not ours.
// Segments  What runs into the guard of a segment did not ask for another one. Who asks and may have no more, or gets none, is reported from
//           where it asks.
// How       The handler runs on the M's alternate stack. It prints the header from what lies in the descriptor, unwinds the
//           stack below it into an array (libgcc's unwinder: it has all registers, which the probes of a wide frame's
//           prologue need), moves to a fresh 1 MiB stack, where a demangler has room, and names the frames there.
// Locks     The overflow may have happened inside malloc or the loader, whose lock this very thread then holds, and naming a
//           frame may want it, and so may freeing what naming allocated. So from the header on a timer of two seconds
//           runs; its signal prints the frames bare and ends the process.
// Rejected  A helper thread that names the frames: it would have to be there beforehand (pthread_create allocates), count
//           as nobody's in every all-asleep check, and would meet the same lock.
// Orders    [overflow] release by the reporter, acquire by the timer's handler, which may run on any thread.
// Once      The first thread reports; others that fault meanwhile wait for the end. A fault while reporting ends it at once.
#include "runtime/obs/overflow.hpp"

#include <sys/time.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>

#include "arch/context.hpp"
#include "arch/more_stack.hpp"
#include "arch/signal.hpp"
#include "arch/stack_memory.hpp"
#include "arch/thread.hpp"
#include "arch/tls.hpp"
#include "runtime/base/atomic.hpp"
#include "runtime/base/emit.hpp"
#include "runtime/core/m.hpp"
#include "runtime/obs/sink.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"

namespace weft::rt {
namespace {

constexpr std::ptrdiff_t kJump = 2 << 20;
constexpr std::size_t kFramesMax = 1'000'000;
constexpr std::size_t kReportStackBytes = 1 << 20;

std::atomic<int> reporter{0};  // thread id of who reports

// The reporter's alone; static, since it moves between stacks.
struct Walk {
  Frames frames;
  FrameList list;
  std::uintptr_t fault_pc = 0;
  std::uintptr_t sp = 0;
  bool inside = false;  // past the handler's own frames
};
Walk walk;
const G* culprit = nullptr;
// What the timer's handler may look at.
enum Known : int { kNothing, kCulprit, kFrames };
std::atomic<int> known{kNothing};

_Unwind_Reason_Code take_frame(_Unwind_Context* context, void*) {
  int exact = 0;
  const std::uintptr_t pc = _Unwind_GetIPInfo(context, &exact);
  if (!walk.inside && !(pc == walk.fault_pc && _Unwind_GetCFA(context) >= walk.sp)) return _URC_NO_REASON;
  if (pc == 0 || walk.frames.count == kFramesMax) return _URC_END_OF_STACK;
  walk.frames.add(pc, exact || !walk.inside);
  walk.inside = true;
  return _URC_NO_REASON;
}

[[noreturn]] void print_and_leave() {
  EmitSink out;
  const PrintOptions options;
  if (walk.list.count > 0) print_frames(out, walk.list, options);
  if (culprit && shown_site(culprit)) print_created_by(out, shown_site(culprit), culprit->parent, options);
  out.flush();
  ::_exit(2);
}

void on_alarm(int) {
  emit("[naming the frames takes too long]\n");
  const int so_far = known.load(memory_order_acquire);  // [overflow]
  const FrameList& f = walk.list;
  for (std::size_t i = 0; so_far == kFrames && i < f.kept; i++) {
    if (f.elided() && i == kFramesKept) {
      emit("...");
      emit_dec(f.elided());
      emit(" frames elided...\n");
    }
    emit("\tpc=");
    emit_hex(f.pcs[i]);
    emit("\n");
  }
  if (so_far != kNothing && culprit && shown_site(culprit)) {
    emit("created by ");
    emit_hex(reinterpret_cast<std::uintptr_t>(shown_site(culprit)));
    emit(" in goroutine ");
    emit_dec(culprit->parent);
    emit("\n");
  }
  ::_exit(2);
}

void limit_patience() {
  known.store(kCulprit, memory_order_release);  // [overflow]
  struct sigaction a = {};
  a.sa_handler = on_alarm;
  a.sa_flags = SA_ONSTACK;
  sigfillset(&a.sa_mask);
  ::sigaction(SIGALRM, &a, nullptr);
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
  itimerval patience{};
  patience.it_value.tv_sec = WEFT_TSAN ? 20 : 2;  // it unwinds and names ten times slower
  ::setitimer(ITIMER_REAL, &patience, nullptr);
}

arch::SanStack report_san;

WEFT_NO_SANITIZE void on_report_stack(arch::Transfer) {
  WEFT_MARK_ENTRY;
  arch::san_take_over(&report_san);
  arch::san_finish_switch(report_san);
  print_and_leave();
}

[[noreturn]] WEFT_NO_SANITIZE void print_with_room() {
  bool needs_commit = false;
  char* lo = arch::reserve_range(kReportStackBytes, &needs_commit);
  if (lo && (!needs_commit || arch::commit_range(lo, kReportStackBytes))) {
    // For TSan a fiber of its own also is no signal handler, where it minds each allocation.
    arch::san_ready_stack(report_san);
    arch::san_fresh_stack(report_san, lo, kReportStackBytes);
    arch::SanStack from;
    const arch::Context to = arch::make_context(lo + kReportStackBytes, kReportStackBytes, on_report_stack);
    arch::san_start_switch(from, report_san, false, &report_san);
    arch::switch_context(to, nullptr);
  }
  print_and_leave();
}

// Returns on one thread only.
void become_reporter() {
  const int me = arch::thread_id();
  int none = 0;
  if (reporter.compare_exchange_strong(none, me, memory_order_relaxed)) {
    emit_as_crash();
    return;
  }
  if (none == me) {
    emit("\n[another fault while reporting]\n");
    ::_exit(2);
  }
  for (;;) ::pause();
}

void emit_who(const G* gp) {
  emit("goroutine ");
  emit_dec(gp ? gp->id : 0);
  if (gp && gp->extra && !gp->extra->spawn.name.empty()) {
    emit(" \"");
    emit(gp->extra->spawn.name.c_str());
    emit("\"");
  }
}

void emit_range(const StackSlot* s) {
  emit("[");
  emit_hex(reinterpret_cast<std::uintptr_t>(s->cls == kOwnMapping ? s->lo : s->bottom()));
  emit(", ");
  emit_hex(reinterpret_cast<std::uintptr_t>(s->hi));
  emit(")");
}

/// `at`: the segment that sp lies in, or whose guard was hit.
void emit_segments(const G* gp, const StackSlot* at, std::uintptr_t sp) {
  const Segment* first = first_segment(gp);
  std::size_t n = 1;
  for (const Segment* s = segment_of(at); s != first && s->older; s = s->older) n++;
  emit(" [running]: segmented stack of ");
  emit_dec(first->bytes);
  emit(" bytes in ");
  emit_dec(n);
  emit(n == 1 ? " segment " : " segments, the first ");
  if (n > 1) {
    emit_range(first->slot);
    emit(", the last ");
  }
  emit_range(at);
  emit(", sp=");
  emit_hex(sp);
  emit(", guard ");
  emit(guard_name(at->guard));
  emit("\n");
}

/// Code that does not ask for segments has come to the end of one.
void emit_end_of_segment(const G* gp, const StackSlot* s, std::uintptr_t sp) {
  emit("runtime: goroutine stack exceeds ");
  emit_dec(s->limit());
  emit("-byte limit of a segment\nfatal error: stack overflow\n\n");
  emit_who(gp);
  emit_segments(gp, s, sp);
  if (arch::guard_word() != segment_of(s)->guard) {
    emit("a longjmp has left later segments behind: an exception would have told the runtime\n");
    return;
  }
  emit("code that is not built with -fsplit-stack does not ask for more: build it so, or use weft::go({.stack = weft::Stack::Growable, "
       ".stack_bytes = ");
  emit_dec(std::min(std::max(first_segment(gp)->bytes, std::size_t{4} << 20) * 2, kStackBytesMax));
  emit("}, ...)\n");
}

void emit_header(const G* gp, const StackSlot* s, std::uintptr_t sp) {
  if (gp && has_segments(gp) && s->kind == StackKind::Segmented) return emit_end_of_segment(gp, s, sp);
  emit("runtime: goroutine stack exceeds ");
  emit_dec(s->limit());
  emit("-byte limit\nfatal error: stack overflow\n\n");
  emit_who(gp);
  emit(s->kind == StackKind::Copyable ? " [running]: copyable stack " : " [running]: growable stack ");
  emit_range(s);
  emit(" of ");
  emit_dec(s->limit());
  emit(" bytes, ");
  if (sp) {
    emit("sp=");
    emit_hex(sp);
    emit(", ");
  }
  emit("guard ");
  emit(guard_name(s->guard));
  emit("\nto give it more: weft::go({.stack_bytes = ");
  emit_dec(s->limit() < kStackBytesMax / 2 ? s->limit() * 2 : kStackBytesMax);
  emit("}, ...) or Config::stack_bytes or WEFT_STACK_BYTES\n");
}

[[noreturn]] void report(const arch::FaultRegs& regs) {
  limit_patience();
  walk.fault_pc = regs.pc;
  walk.sp = regs.sp;
  _Unwind_Backtrace(take_frame, nullptr);
  if (walk.frames.count == 0) walk.frames.add(regs.pc, true);
  walk.list = walk.frames.list();
  known.store(kFrames, memory_order_release);  // [overflow]
  print_with_room();
}

bool take_own_frame(std::uintptr_t pc, bool exact, void*) {
  walk.frames.add(pc, exact);
  return walk.frames.count < kFramesMax;
}

/// A segmented stack that cannot have another segment. On that stack: it still has its reserve.
void on_segments(const G* gp, std::uintptr_t sp, std::size_t need, bool refused) {
  become_reporter();
  culprit = gp;
  const Segment* first = first_segment(gp);
  if (refused) {
    emit("fatal error: out of memory: no segment for ");
    emit_dec(need);
    emit(" bytes more\n\n");
  } else {
    emit("runtime: goroutine stack exceeds ");
    emit_dec(first->limit);
    emit("-byte limit\nfatal error: stack overflow\n\n");
  }
  emit_who(gp);
  emit_segments(gp, slot_at(gp, reinterpret_cast<const void*>(sp)), sp);
  if (!refused && first->limit < kStackBytesMax) {
    emit("to give it more: weft::go({.stack = weft::Stack::Segmented, .stack_bytes = ");
    emit_dec(first->limit < kStackBytesMax / 2 ? first->limit * 2 : kStackBytesMax);
    emit("}, ...)\n");
  }
  emit("\n");
  limit_patience();
  walk.frames.add(reinterpret_cast<const std::uintptr_t*>(sp)[1], false);  // who asks is in no frame yet
  arch::walk_here(take_own_frame, nullptr);
  walk.list = walk.frames.list();
  known.store(kFrames, memory_order_release);  // [overflow]
  print_with_room();
}

// The canary's finding: the goroutine has ended, there are no frames left to show.
void on_canary(StackSlot* s, G* owner) {
  become_reporter();
  culprit = owner;
  emit_header(owner, s, 0);
  emit("found when it ended: a canary stands in for the guard\n\n");
  limit_patience();
  print_with_room();
}

// The stack that this fault overflowed and its goroutine; null: none.
StackSlot* overflowed(const M* mp, const char* addr, const char* sp, G** who) {
  G* gp = mp->curg;
  if (gp && gp->stack) {
    StackSlot* s = slot_at(gp, sp);
    const bool below = addr < s->lo && s->lo - addr <= kJump && in_stack_memory(addr);
    // However far it came: canaries stop nobody. Below a mapping of its own there may be anything; the access has to
    // belong to the frame.
    const bool frame = sp < s->lo && addr >= sp - arch::kPageBytes && (in_stack_memory(sp) || s->lo - sp <= kJump);
    if (in_guard(s, addr) || below || frame) {
      *who = gp;
      return s;
    }
  }
  StackSlot* s = find_stack(addr);
  if (s && in_guard(s, addr) && sp >= s->bottom() - arch::kPageBytes && sp <= s->lo + arch::kPageBytes) {
    *who = s->owner.load(memory_order_relaxed);
    return *who ? s : nullptr;
  }
  return nullptr;
}

/// With traps the stack of a copyable goroutine has no access while it is parked.
bool touched_foreign(const M* mp, const char* addr, G** who) {
  const StackSlot* s = copy_mode() == CopyMode::Trapped ? find_stack(addr) : nullptr;
  if (!s || s->kind != StackKind::Copyable || addr < s->lo) return false;
  *who = s->owner.load(memory_order_relaxed);
  return *who && *who != mp->curg;
}

bool on_fault(int, siginfo_t* info, void* uc) {
  if (info->si_code <= 0) return false;  // sent, not suffered
  const M* mp = arch::current_m();
  if (!mp) return false;
  const arch::FaultRegs regs = arch::fault_regs(uc);
  const auto* addr = static_cast<const char*>(info->si_addr);
  const auto* sp = reinterpret_cast<const char*>(regs.sp);

  G* who = nullptr;
  if (StackSlot* s = overflowed(mp, addr, sp, &who)) {
    become_reporter();
    culprit = who;
    emit_header(culprit, s, regs.sp);
    emit("\n");
    report(regs);
  }
  if (touched_foreign(mp, addr, &who)) {
    become_reporter();
    culprit = mp->curg;
    emit("fatal error: weft: goroutine ");
    emit_dec(culprit->id);
    emit(" touches the copyable stack of goroutine ");
    emit_dec(who->id);
    emit(", which is parked (");
    emit(state_text(who));
    emit("), at ");
    emit_hex(reinterpret_cast<std::uintptr_t>(addr));
    emit(": what goroutines share must not lie on a copyable stack\n\n");
    report(regs);
  }
  if (mp->curg == &mp->g0 && addr >= sp - 16 * arch::kPageBytes && addr < sp + kJump && !in_stack_memory(addr)) {
    become_reporter();
    emit("runtime: the stack of thread ");
    emit_dec(static_cast<std::uint64_t>(arch::thread_id()));
    emit(" is full, which runs no goroutine now, sp=");
    emit_hex(regs.sp);
    emit("\nfatal error: stack overflow\n\n");
    report(regs);
  }
  return false;
}

}  // namespace

bool overflow_install() {
  canary_reporter = on_canary;
  segments_reporter = on_segments;
  // The unwinder allocates and takes the loader's lock on its first use in a process: now is better than then.
  _Unwind_Backtrace([](_Unwind_Context*, void*) { return _URC_END_OF_STACK; }, nullptr);
  return arch::install_fault_handlers(on_fault);
}

void overflow_remove() { arch::remove_fault_handlers(); }

}  // namespace weft::rt
