// See leaks.hpp.
// Orders  [status] see core/g.hpp.
#include "runtime/obs/leaks.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/obs/dump.hpp"
#include "runtime/obs/traceback.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kNamedMost = 10;

struct Group {
  std::vector<const G*> members;
  SourceFrame waits_at;
};

void print_at(Sink& out, const SourceFrame& f) {
  out << f.function;
  if (!f.file.empty()) {
    out << " at " << f.file << ":";
    out.dec(static_cast<std::uint64_t>(f.line));
  }
}

void print_group(Sink& out, const char* reason, const void* site, const Group& g, SymbolCache& cache) {
  out << "  ";
  out.dec(g.members.size());
  out << " [" << reason << "]";
  if (!g.waits_at.function.empty()) {
    out << " in ";
    print_at(out, g.waits_at);
  }
  const SourceFrame created = creation_site(site, cache, nullptr);
  if (!created.function.empty()) {
    out << ", created by ";
    print_at(out, created);
  }
  out << ": goroutine" << (g.members.size() > 1 ? "s" : "");
  std::size_t n = 0;
  for (const G* gp : g.members) {
    if (n++ == kNamedMost) {
      out << ", ...";
      break;
    }
    out << (n > 1 ? ", " : " ");
    out.dec(gp->id);
    if (gp->extra && !gp->extra->spawn.name.empty()) {
      out << " ";
      out.quoted(gp->extra->spawn.name);
    }
  }
  out << "\n";
}

}  // namespace

void report_leaks() {
  EmitSink out;
  try {
    using Key = std::tuple<const void*, std::uintptr_t, std::string>;  // site, first frame, reason
    SymbolCache cache;
    std::map<Key, Group> groups;
    std::size_t n = 0;
    arch::FrameRules* rules = arch::new_frame_rules();
    for (G* gp : goroutines_by_id()) {
      if (gp->status.load(memory_order_acquire) != GStatus::Waiting) continue;  // [status]
      Frames frames;
      const bool has = collect_parked_frames(gp, false, rules, &frames);
      const FrameList list = frames.list();
      // The frame that tells waits apart is the first that is not ours, which takes its name.
      const SourceFrame at = has ? first_user_frame(list, cache) : SourceFrame{};
      const std::uintptr_t place = std::hash<std::string>()(at.function + at.file) + static_cast<std::uintptr_t>(at.line);
      Group& g = groups[{gp->site, place, state_text(gp)}];
      if (g.members.empty()) g.waits_at = at;
      g.members.push_back(gp);
      n++;
    }
    arch::delete_frame_rules(rules);
    if (n == 0) return;
    out << "weft: ";
    out.dec(n);
    out << (n == 1 ? " goroutine was" : " goroutines were") << " still parked at exit\n";
    std::vector<const std::pair<const Key, Group>*> order;
    for (const auto& g : groups) order.push_back(&g);
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return a->second.members.size() > b->second.members.size(); });
    for (const auto* g : order) print_group(out, std::get<2>(g->first).c_str(), std::get<0>(g->first), g->second, cache);
  } catch (const std::bad_alloc&) {
    out << "weft: no memory for the report of parked goroutines\n";
  }
}

}  // namespace weft::rt
