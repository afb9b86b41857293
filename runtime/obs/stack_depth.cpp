// See stack_depth.hpp.
//
// A stack is emptied when a goroutine gets it and looked at when it ends: the lowest page that is there was touched. That costs a
// fault per page and goroutine, so it is asked for. Copyable stacks, which are shared, are left out.
// Locks      `found` has its own, and calls nothing under it but the allocator.
#include "runtime/obs/stack_depth.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <weft/stacks.hpp>

#include <algorithm>
#include <map>
#include <mutex>

#include "arch/stack_memory.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/obs/sink.hpp"
#include "runtime/obs/traceback.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

struct Depth {
  std::uint64_t goroutines = 0;
  std::size_t deepest = 0;
  std::size_t has = 0;
};

int pagemap = -1;
std::mutex mu;
Immortal<std::map<const void*, Depth>> found;

/// Bytes from the lowest page that is there to the top; 0: not known.
std::size_t depth_of(const StackSlot* s) {
  constexpr std::size_t kEntries = 512;
  constexpr std::uint64_t kThere = std::uint64_t{3} << 62;  // present or swapped
  std::uint64_t pages[kEntries];
  for (char* at = s->lo; at < s->hi; at += kEntries * arch::kPageBytes) {
    const std::size_t left = static_cast<std::size_t>(s->hi - at) / arch::kPageBytes;
    const std::size_t n = std::min(left, kEntries);
    const auto place = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at) / arch::kPageBytes * sizeof *pages);
    if (::pread(pagemap, pages, n * sizeof *pages, place) != static_cast<ssize_t>(n * sizeof *pages)) return 0;
    for (std::size_t i = 0; i < n; i++)
      if (pages[i] & kThere) return static_cast<std::size_t>(s->hi - at) - i * arch::kPageBytes;
  }
  return 0;
}

void on_bound(StackSlot* s) { arch::empty_range(s->lo, s->bytes()); }

void on_ended(const G* gp, const StackSlot* s) {
  const std::size_t depth = depth_of(s);
  std::lock_guard lock(mu);
  Depth& d = (*found)[gp->site];
  d.goroutines++;
  d.deepest = std::max(d.deepest, depth);
  d.has = std::max(d.has, s->limit());
}

std::size_t recommended(std::size_t deepest) {
  for (std::size_t bytes : kStackClassBytes)
    if (2 * deepest <= bytes) return bytes;
  std::size_t bytes = kStackClassBytes[kStackClasses - 1];
  while (bytes < 2 * deepest && bytes < kStackBytesMax) bytes *= 2;
  return bytes;
}

std::vector<StackSite> sites() {
  std::vector<StackSite> all;
  std::lock_guard lock(mu);
  SymbolCache cache;
  for (const auto& [site, d] : *found) {
    StackSite s;
    s.site = site;
    const SourceFrame at = creation_site(site, cache, nullptr);
    s.function = at.function;
    s.file = at.file;
    s.line = at.line;
    s.goroutines = d.goroutines;
    s.deepest = d.deepest;
    s.has = d.has;
    s.recommended = recommended(d.deepest);
    all.push_back(std::move(s));
  }
  std::sort(all.begin(), all.end(), [](const StackSite& a, const StackSite& b) { return a.deepest > b.deepest; });
  return all;
}

}  // namespace

bool stack_depth_start() {
  if (guards_are_holes()) return false;  // an emptied page there would be a guard
  pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) return false;
  stack_bound_hook = on_bound;
  stack_ended_hook = on_ended;
  return true;
}

void stack_depth_stop() {
  stack_bound_hook = nullptr;
  stack_ended_hook = nullptr;
  if (pagemap >= 0) ::close(pagemap);
  pagemap = -1;
  std::lock_guard lock(mu);
  found->clear();
}

void report_stack_depths() {
  EmitSink out;
  out << "weft: how deep goroutines came, by where they were started\n";
  for (const StackSite& s : sites()) {
    out << "  ";
    out.dec(s.deepest);
    out << " of ";
    out.dec(s.has);
    out << " bytes, ";
    out.dec(s.goroutines);
    out << (s.goroutines == 1 ? " goroutine of " : " goroutines of ") << (s.function.empty() ? std::string("?") : s.function);
    if (!s.file.empty()) {
      out << " at " << s.file << ":";
      out.dec(static_cast<std::uint64_t>(s.line));
    }
    if (s.recommended != s.has) {
      out << "; stack_bytes = ";
      out.dec(s.recommended);
      out << (s.recommended < s.has ? " would do" : " would be safer");
    }
    out << "\n";
  }
}

}  // namespace weft::rt

namespace weft {

StackStats stack_stats() {
  const rt::StackStats pool = rt::stack_stats();
  const rt::HibernateStats hib = rt::hibernate_stats();
  const rt::RunSlotStats slots = rt::run_slot_stats();
  StackStats s;
  s.guard = rt::guard_name(pool.guard);
  s.made = pool.carved;
  s.bound = pool.bound;
  s.peak_bound = pool.peak_bound;
  s.trimmed = pool.trimmed;
  s.refused = pool.refused;
  s.hibernated = hib.away;
  s.hibernated_ever = hib.taken;
  s.touched = hib.touched;
  s.slots = slots.slots;
  s.copied_out = slots.copied_out;
  s.block_bytes = slots.block_bytes;
  s.sites = rt::sites();
  return s;
}

}  // namespace weft
