// See hogs.hpp.
//
// sysmon calls it when a goroutine has run for a slice without a safepoint and others wait. The goroutine's thread is stopped for
// a moment in a signal handler, its stack is walked from there, and it goes on. Each goroutine is named once for each function
// that it was found in.
#include "runtime/obs/hogs.hpp"

#include <weft/runtime.hpp>

#include <set>
#include <string>
#include <utility>

#include "runtime/base/emit.hpp"
#include "runtime/base/knobs.hpp"
#include "runtime/base/log.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kRemembered = 10'000;

/// sysmon's alone: goroutine and function.
std::set<std::pair<std::uint64_t, std::string>>* told = nullptr;

/// All that the report needs: the goroutine may have ended when it is written.
struct Look {
  Frames frames;
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  const void* site = nullptr;
  char name[128] = "";
};

/// On sysmon, while the goroutine's thread stands still: allocates nothing.
void take_stack(G* gp, const void* ucontext, void* arg) {
  auto* look = static_cast<Look*>(arg);
  look->id = gp->id;
  look->parent = gp->parent;
  look->site = shown_site(gp);
  if (gp->extra) look->name[gp->extra->spawn.name.copy(look->name, sizeof look->name - 1)] = 0;
  if (gp->stack) collect_frames_from_ucontext(gp, ucontext, &look->frames);
}

void report_overrun(M* mp, G* gp, std::int64_t ran_ns) {
  static Look look;
  look = Look{};
  if (!look_at_running_g(mp, gp, take_stack, &look) || look.id == 0) return;  // it has gone on meanwhile
  SymbolCache cache;
  const FrameList frames = look.frames.list();
  const SourceFrame at = first_user_frame(frames, cache);
  if (told->size() >= kRemembered || !told->emplace(look.id, at.function).second) return;

  OverrunReport r;
  r.id = look.id;
  r.ran = std::chrono::milliseconds(ran_ns / 1'000'000);
  r.name = look.name;
  StringSink out(&r.text, std::size_t{1} << 16);
  out << "goroutine ";
  out.dec(r.id);
  if (!r.name.empty()) {
    out << " ";
    out.quoted(r.name);
  }
  out << " has run for ";
  out.dec(static_cast<std::uint64_t>(ran_ns / 1'000'000));
  out << " ms without a safepoint; its thread goes on without a P\n";
  const PrintOptions options{.cache = &cache};
  print_frames(out, frames, options);
  print_created_by(out, look.site, look.parent, options);
  if (sched.config->on_overrun)
    sched.config->on_overrun(r);
  else
    log_warn("%s", r.text.c_str());
}

}  // namespace

void hogs_install(bool wanted) {
  if (!wanted) return;
  told = new std::set<std::pair<std::uint64_t, std::string>>;
  overrun_reporter = report_overrun;
}

void hogs_remove() {
  overrun_reporter = nullptr;
  delete std::exchange(told, nullptr);
}

}  // namespace weft::rt
