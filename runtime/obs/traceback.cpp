// See traceback.hpp.
#include "runtime/obs/traceback.hpp"

#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <new>
#include <vector>

#include "arch/clock.hpp"
#include "arch/signal.hpp"
#include "arch/thread.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

// ---- patience ------------------------------------------------------------------------------------------------------

constexpr long kNamePatience = 2;
constexpr long kReportPatience = 10;

struct Patience {
  volatile bool on = false;
  volatile bool lost = false;
  volatile bool naming = false;
  int tid = 0;
  void (*leave)() = nullptr;
  sigjmp_buf back;
  struct sigaction before = {};
};
Patience patience;

void set_alarm(long seconds) {
  itimerval t{};
  t.it_value.tv_sec = seconds;
  ::setitimer(ITIMER_REAL, &t, nullptr);
}

void on_alarm(int signo) {
  if (!patience.on) return;
  if (!patience.naming) {
    emit("\n[the report hangs and is cut short]\n");
    patience.leave();
  } else if (arch::thread_id() != patience.tid) {
    ::syscall(SYS_tgkill, ::getpid(), patience.tid, signo);
  } else {
    siglongjmp(patience.back, 1);
  }
}

/// The names for `pc`; null: none to be had.
const Symbol* names_of(SymbolCache& cache, std::uintptr_t pc) {
  if (patience.on) {
    if (patience.lost || patience.naming) return nullptr;
    if (sigsetjmp(patience.back, 1) != 0) {
      // Whatever lock the naming waits for, it is not asked for again.
      patience.lost = true;
      patience.naming = false;
      set_alarm(kReportPatience);
      return nullptr;
    }
    patience.naming = true;
    set_alarm(kNamePatience);
  }
  const Symbol* s = nullptr;
  try {
    s = &cache.at(pc);
  } catch (const std::bad_alloc&) {
  }
  if (patience.on) {
    patience.naming = false;
    set_alarm(kReportPatience);
  }
  return s;
}

// ---- frames --------------------------------------------------------------------------------------------------------

bool take_frame(std::uintptr_t pc, bool exact, void* arg) {
  static_cast<Frames*>(arg)->add(pc, exact);
  return true;
}

struct Shown {
  const SourceFrame* frame;
  std::uintptr_t pc;
  std::uintptr_t offset;
};

void print_place(Sink& out, const SourceFrame& f, std::uintptr_t offset) {
  out << "\t" << (f.file.empty() ? std::string_view("?") : std::string_view(f.file)) << ":";
  out.dec(static_cast<std::uint64_t>(f.line));
  if (!f.inlined && offset) {
    out << " +";
    out.hex(offset);
  }
}

void print_shown(Sink& out, const Shown& s, const PrintOptions& options) {
  out << s.frame->function << "\n";
  print_place(out, *s.frame, s.offset);
  if (options.system || s.frame->file.empty()) {
    out << " pc=";
    out.hex(s.pc);
  }
  out << "\n";
}

void print_bare(Sink& out, std::uintptr_t pc) {
  out << "\tpc=";
  out.hex(pc);
  out << "\n";
}

void print_elided(Sink& out, std::size_t n) {
  if (n == 0) return;
  out << "...";
  out.dec(n);
  out << " frames elided...\n";
}

void print_bare_frames(Sink& out, const FrameList& frames) {
  for (std::size_t i = 0; i < frames.kept; i++) {
    if (frames.kept > 2 * kFramesShown && i >= kFramesShown && i < frames.kept - kFramesShown) {
      if (i == kFramesShown) print_elided(out, frames.count - 2 * kFramesShown);
      continue;
    }
    print_bare(out, frames.pcs[i]);
  }
}

/// The frames to show of the PCs [from, to). False: names are not to be had.
bool name_range(const FrameList& frames, std::size_t from, std::size_t to, bool hidden_too, SymbolCache& cache,
                std::vector<Shown>* out) {
  for (std::size_t i = from; i < to; i++) {
    const Symbol* s = names_of(cache, frames.pcs[i]);
    if (!s) return false;
    for (const SourceFrame& f : s->frames)
      if (hidden_too || !f.internal) out->push_back({&f, frames.pcs[i], s->offset});
  }
  return true;
}

/// False: nothing was printed.
bool print_named_frames(Sink& out, const FrameList& frames, bool hidden_too, const PrintOptions& options, SymbolCache& cache) {
  const std::size_t gap = frames.elided() ? std::size_t{kFramesKept} : frames.kept;
  std::vector<Shown> head, tail;
  if (!name_range(frames, 0, gap, hidden_too, cache, &head)) return false;
  if (!name_range(frames, gap, frames.kept, hidden_too, cache, &tail)) return false;
  if (head.empty() && tail.empty()) return false;
  std::size_t elided = frames.elided();
  if (!elided && head.size() > 2 * kFramesShown) {
    elided = head.size() - 2 * kFramesShown;
    tail.assign(head.end() - kFramesShown, head.end());
    head.resize(kFramesShown);
  } else if (elided) {
    const std::size_t all = head.size() + tail.size();
    if (head.size() > kFramesShown) head.resize(kFramesShown);
    if (tail.size() > kFramesShown) tail.erase(tail.begin(), tail.end() - kFramesShown);
    elided += all - head.size() - tail.size();
  }
  for (const Shown& s : head) print_shown(out, s, options);
  print_elided(out, elided);
  for (const Shown& s : tail) print_shown(out, s, options);
  return true;
}

std::string_view without_parameters(std::string_view function) {
  constexpr std::string_view kEnd = "(...)";
  if (function.size() > kEnd.size() && function.substr(function.size() - kEnd.size()) == kEnd) function.remove_suffix(kEnd.size());
  return function;
}

std::uint64_t now_ms() { return static_cast<std::uint64_t>((arch::clock_now() - sched.started_at) / 1'000'000); }

/// Which frame of a `go` statement's address is the user's: the glue of go() is inlined into it.
const SourceFrame& user_frame_of(const Symbol& s) {
  for (const SourceFrame& f : s.frames)
    if (!f.internal) return f;
  return s.frames.back();
}

}  // namespace

void begin_patience(void (*leave)()) {
  patience.leave = leave;
  patience.tid = arch::thread_id();
  patience.lost = false;
  struct sigaction a = {};
  a.sa_handler = on_alarm;
  a.sa_flags = SA_ONSTACK;
  sigfillset(&a.sa_mask);
  ::sigaction(SIGALRM, &a, &patience.before);
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
  patience.on = true;
  set_alarm(kReportPatience);
}

void end_patience() {
  patience.on = false;
  set_alarm(0);
  ::sigaction(SIGALRM, &patience.before, nullptr);
}

// ---- collecting ----------------------------------------------------------------------------------------------------

FrameList Frames::list() {
  if (count > 2 * kFramesKept) {
    std::uintptr_t* ring = pcs + kFramesKept;
    std::rotate(ring, ring + count % kFramesKept, ring + kFramesKept);
  }
  return {pcs, count < 2 * kFramesKept ? count : 2 * kFramesKept, count};
}

void collect_own_frames(Frames* out) { arch::walk_here(take_frame, out); }

namespace {

// Where its frames are. Of a world that could not be stopped it may be changing: all that is read from there is checked.
struct Place {
  StackSlot* stack;
  arch::Context ctx;
};
WEFT_NO_SANITIZE WEFT_NOINLINE Place place_of(const G* gp) { return {gp->stack, gp->ctx}; }

}  // namespace

arch::StackBounds bounds_at(const G* gp, std::uintptr_t sp, bool checked) {
  const StackSlot* s = is_segmented(gp) ? slot_at(gp, reinterpret_cast<const void*>(sp)) : place_of(gp).stack;
  if (!s) return {};
  arch::StackBounds b{reinterpret_cast<std::uintptr_t>(s->lo), reinterpret_cast<std::uintptr_t>(s->hi), checked};
  if (has_segments(gp)) {
    b.of = gp;
    b.piece = [](const void* of, std::uintptr_t at, arch::StackBounds* out) {
      const StackSlot* s = segment_slot_at(static_cast<const G*>(of), at);
      if (!s) return false;
      out->lo = reinterpret_cast<std::uintptr_t>(s->lo);
      out->hi = reinterpret_cast<std::uintptr_t>(s->hi);
      return true;
    };
  }
  return b;
}

bool collect_parked_frames(G* gp, bool checked, arch::FrameRules* rules, Frames* out) {
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  const auto [stack, ctx] = place_of(gp);
  if (s == GStatus::Dead || !gp->started || !stack) return false;
  if (s == GStatus::Syscall) {
    // The frames above the call stay as they are until it ends, and that is a safepoint.
    const M* mp = gp->m;
    if (!mp) return false;
    arch::walk_from(mp->call, false, bounds_at(gp, mp->call.sp, checked), rules, take_frame, out);
    return out->count > 0;
  }
  if (s != GStatus::Waiting && s != GStatus::Runnable) return false;
  if (!ctx) return false;
  const auto at = reinterpret_cast<std::uintptr_t>(ctx);
  arch::StackBounds bounds = bounds_at(gp, at, checked);
  if (at < bounds.lo || at >= bounds.hi) return false;
  const StackImage image = stack_image(gp);
  if (image.shift != 0) {
    bounds.lo = reinterpret_cast<std::uintptr_t>(image.lo);
    bounds.hi = reinterpret_cast<std::uintptr_t>(image.hi);
    bounds.shift = image.shift;
  }
  if (WEFT_UNLIKELY(is_copyable(gp)) && !checked) open_for_reading(gp, true);
  char probe[128];
  char* const bytes = static_cast<char*>(ctx) + bounds.shift;
  if (!checked || arch::read_checked(bytes, probe, sizeof probe)) {
    arch::SavedRegs regs = arch::saved_regs(bytes);
    regs.sp -= static_cast<std::uintptr_t>(bounds.shift);
    if (regs.pc != 0) arch::walk_from(regs, false, bounds, rules, take_frame, out);
  }
  if (WEFT_UNLIKELY(is_copyable(gp)) && !checked) open_for_reading(gp, false);
  return out->count > 0;
}

void collect_frames_from_ucontext(const G* gp, const void* ucontext, Frames* out) {
  const arch::FaultRegs r = arch::fault_regs(ucontext);
  arch::walk_from({r.pc, r.sp, r.fp}, true, bounds_at(gp, r.sp, true), nullptr, take_frame, out);
}

// ---- printing ------------------------------------------------------------------------------------------------------

void print_frames(Sink& out, const FrameList& frames, const PrintOptions& options) {
  SymbolCache own;
  SymbolCache& cache = options.cache ? *options.cache : own;
  // If all frames are the runtime's own they are better than none.
  if (!print_named_frames(out, frames, options.system, options, cache) &&
      !print_named_frames(out, frames, true, options, cache))
    print_bare_frames(out, frames);
}

void print_created_by(Sink& out, const void* site, std::uint64_t parent, const PrintOptions& options) {
  if (!site) return;
  const std::uintptr_t pc = reinterpret_cast<std::uintptr_t>(site) - 1;
  SymbolCache own;
  const Symbol* s = names_of(options.cache ? *options.cache : own, pc);
  out << "created by ";
  if (s)
    out << without_parameters(user_frame_of(*s).function);
  else
    out.hex(pc);
  if (parent) {
    out << " in goroutine ";
    out.dec(parent);
  }
  out << "\n";
  if (s) {
    SourceFrame f = user_frame_of(*s);
    f.inlined = false;
    print_place(out, f, s->offset);
    out << "\n";
  } else {
    print_bare(out, pc);
  }
}

const char* state_text(const G* gp) {
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  return s == GStatus::Waiting ? wait_reason_text(gp->reason) : status_text(s);
}

std::uint64_t parked_ms(const G* gp) {
  if (gp->status.load(memory_order_acquire) != GStatus::Waiting) return 0;  // [status]
  const std::uint64_t now = now_ms();
  return now > gp->since ? now - gp->since : 0;
}

namespace {

/// A copy of a string that may be gone: what is read goes through the kernel.
bool copy_checked(const std::string* from, char* to, std::size_t* size) {
  alignas(std::string) unsigned char image[sizeof(std::string)];
  if (!arch::read_checked(from, image, sizeof image)) return false;
  const auto* s = reinterpret_cast<const std::string*>(image);
  const char* data = s->data();
  // A short string's characters lie inside the object that the image is a copy of.
  if (s->size() == 0 || s->size() > *size || !arch::read_checked(data, to, s->size())) return false;
  *size = s->size();
  return true;
}

void print_name(Sink& out, const G* gp, bool checked) {
  const GExtra* extra = gp->extra;
  if (!extra) return;
  if (!checked) {
    if (extra->spawn.name.empty()) return;
    out << " ";
    out.quoted(extra->spawn.name);
    return;
  }
  char name[200];
  std::size_t size = sizeof name;
  if (!copy_checked(&extra->spawn.name, name, &size)) return;
  out << " ";
  out.quoted(std::string_view(name, size));
}

void print_labels(Sink& out, const GExtra* extra) {
  if (!extra || extra->spawn.labels.empty()) return;
  out << " labels:{";
  bool first = true;
  for (const auto& [key, value] : extra->spawn.labels) {
    if (!first) out << ", ";
    first = false;
    out.quoted(key);
    out << ": ";
    out.quoted(value);
  }
  out << "}";
}

}  // namespace

void print_header(Sink& out, const G* gp, const char* state, const PrintOptions& options) {
  out << "goroutine ";
  out.dec(gp->id);
  if (options.system) {
    out << " gp=";
    out.hex(reinterpret_cast<std::uintptr_t>(gp));
    const GStatus s = gp->status.load(memory_order_acquire);  // [status]
    if (const M* mp = s == GStatus::Running || s == GStatus::Syscall ? gp->m : nullptr) {
      out << " m=";
      out.dec(mp->id);
      out << " mp=";
      out.hex(reinterpret_cast<std::uintptr_t>(mp));
    } else {
      out << " m=nil";
    }
  }
  print_name(out, gp, options.checked);
  out << " [" << (state ? state : state_text(gp));
  if (const std::uint64_t minutes = state ? 0 : parked_ms(gp) / 60'000) {
    out << ", ";
    out.dec(minutes);
    out << " minutes";
  }
  if (gp->extra && gp->extra->locked_m) out << ", locked to thread";
  if (!options.checked) print_labels(out, gp->extra);
  out << "]:\n";
}

void print_current(Sink& out, const G* gp, const FrameList& frames, const PrintOptions& options) {
  print_header(out, gp, "running", options);
  print_frames(out, frames, options);
  print_created_by(out, shown_site(gp), gp->parent, options);
}

SourceFrame first_user_frame(const FrameList& frames, SymbolCache& cache) {
  for (std::size_t i = 0; i < frames.kept; i++) {
    const Symbol* s = names_of(cache, frames.pcs[i]);
    if (!s) break;
    for (const SourceFrame& f : s->frames)
      if (!f.internal) return f;
  }
  return {};
}

SourceFrame creation_site(const void* site, SymbolCache& cache, std::uintptr_t* offset) {
  const Symbol* s = site ? names_of(cache, reinterpret_cast<std::uintptr_t>(site) - 1) : nullptr;
  if (!s) return {};
  SourceFrame f = user_frame_of(*s);
  f.function = without_parameters(f.function);
  if (offset) *offset = s->offset;
  return f;
}

}  // namespace weft::rt
