// One goroutine as Go prints it: header, frames, who created it.
//
//   goroutine 17 "reader" [chan receive, 12 minutes labels:{"conn": "7"}]:
//   ns::serve(...)
//   	/src/serve.cpp:33 +0x5d
//   created by ns::listen in goroutine 1
//   	/src/listen.cpp:8 +0x165
//
// The name stands where Go puts its gp=..., the labels as since Go 1.26. Without a name and labels the header is Go's.
// Steps      Collecting frames allocates nothing and names nothing; printing does both. Between them the world may run on.
// Patience   A fatal report may hang: the fault may have happened inside malloc or the loader, or under a lock of ours.
//            begin_patience() bounds it.
// Orders     [status] see core/g.hpp.
#pragma once

#include <weft/runtime.hpp>

#include <cstddef>
#include <cstdint>

#include "arch/unwind.hpp"
#include "runtime/core/g.hpp"
#include "runtime/obs/sink.hpp"
#include "runtime/obs/symbolize.hpp"

namespace weft::rt {

inline constexpr unsigned kFramesShown = 50;  // at either end of a deep stack
inline constexpr unsigned kFramesKept = 72;   // at either end: some are the runtime's own and not shown

/// The PCs of one stack, innermost first. If some are left out in the middle, kFramesKept lie on either side of the gap.
struct FrameList {
  const std::uintptr_t* pcs = nullptr;
  std::size_t kept = 0;
  std::size_t count = 0;
  std::size_t elided() const { return count - kept; }
};

/// Collects one: each frame is added, innermost first. No allocation.
struct Frames {
  std::uintptr_t pcs[2 * kFramesKept];  // the second half is a ring once it is full
  std::size_t count = 0;

  /// `exact`: pc is the instruction itself, not a return address.
  void add(std::uintptr_t pc, bool exact) {
    const std::size_t at = count < 2 * kFramesKept ? count : kFramesKept + (count - kFramesKept) % kFramesKept;
    pcs[at] = exact ? pc : pc - 1;
    count++;
  }
  /// Puts the ring in order; nothing may be added afterwards.
  FrameList list();
};

/// The caller's own stack.
void collect_own_frames(Frames* out);
/// A goroutine that does not run, or is in a blocking call (from there up). `checked`: the world is not stopped. False: it has
/// no frames now (it runs, or never ran).
bool collect_parked_frames(G* gp, bool checked, arch::FrameRules* rules, Frames* out);
/// The stack of gp, which a signal has interrupted.
void collect_frames_from_ucontext(const G* gp, const void* ucontext, Frames* out);
/// What may be read of gp's stack where `sp` is.
arch::StackBounds bounds_at(const G* gp, std::uintptr_t sp, bool checked);

struct PrintOptions {
  bool system = false;   // also the runtime's own frames, and PCs
  bool checked = false;  // the world is not stopped: goroutines may end while they are looked at
  SymbolCache* cache = nullptr;
};

void print_frames(Sink& out, const FrameList& frames, const PrintOptions& options);
/// "created by F in goroutine K" and its place.
void print_created_by(Sink& out, const void* site, std::uint64_t parent, const PrintOptions& options);
/// Where it was created; null for goroutine 1, which nobody's `go` created.
inline const void* shown_site(const G* gp) { return gp->is_main ? nullptr : gp->site; }
/// `state` overrides what the status says; null: none.
void print_header(Sink& out, const G* gp, const char* state, const PrintOptions& options);
/// Header, frames and creation site of the goroutine that runs here.
void print_current(Sink& out, const G* gp, const FrameList& frames, const PrintOptions& options);

/// What a header calls its state: the wait reason or the status. May be stale unless the world is stopped.
const char* state_text(const G* gp);
/// For how long it has been parked, in milliseconds; 0: it is not.
std::uint64_t parked_ms(const G* gp);
/// The first frame that is the user's; empty: none.
SourceFrame first_user_frame(const FrameList& frames, SymbolCache& cache);
/// Where `site` is, in the function that says `go`.
SourceFrame creation_site(const void* site, SymbolCache& cache, std::uintptr_t* offset);

/// From here on a report has to end: naming a frame may take two seconds, then all others are printed bare; if nothing is named
/// for ten seconds, `leave` is called in a signal handler. SIGALRM is taken for it until end_patience().
void begin_patience(void (*leave)());
void end_patience();

}  // namespace weft::rt
