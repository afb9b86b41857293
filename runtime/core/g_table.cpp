// The table of all descriptors: dense slabs, recycled, never moved.
//
// Slabs      2 MiB each, huge pages asked for (that takes the page faults out of spawning), carved in address order.
// Free lists One central list here under a lock, one per P without; batches go back and forth.
// Ids        Handed out in blocks, never reused while a runtime runs.
// Abandoned  A thread that a run has left behind comes back to its descriptor at any time, or never: from then on the slabs stay,
//            and each end of a run makes all other descriptors new.
#include "runtime/core/g.hpp"

#include <new>
#include <vector>

#include "arch/stack_memory.hpp"
#include "runtime/base/check.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kSlabBytes = std::size_t{2} << 20;
constexpr std::size_t kPerSlab = kSlabBytes / sizeof(G);

struct Table {
  Mutex mu{Rank::GTable};
  std::vector<char*> slabs;
  std::size_t carved = 0;  // in the last slab
  bool kept = false;       // somebody has been abandoned
  std::vector<G*> free;  // of addresses, not a list through cold descriptors
  std::atomic<std::uint64_t> next_id{1};
};
Table table;

// One more slab, aligned so that huge pages fit. False: refused.
bool grow() {
  // The first slab stays on small pages: a small program should not pay 2 MiB for ten goroutines.
  char* at = arch::map_chunk(kSlabBytes, !table.slabs.empty());
  if (!at) return false;
  try {
    // Giving back must never fail: room for all of them, in steps that double.
    const std::size_t all = (table.slabs.size() + 1) * kPerSlab;
    if (table.free.capacity() < all) table.free.reserve(all * 2);
    table.slabs.push_back(at);
  } catch (const std::bad_alloc&) {
    arch::unmap_chunk(at, kSlabBytes);
    return false;
  }
  table.carved = 0;
  return true;
}

}  // namespace

const char* status_text(GStatus s) {
  switch (s) {
    case GStatus::Dead: return "dead";
    case GStatus::Runnable: return "runnable";
    case GStatus::Running: return "running";
    case GStatus::Syscall: return "syscall";
    case GStatus::Waiting: return "waiting";
  }
  return "?";
}

#ifndef NDEBUG
void check_status(G* gp, GStatus from, GStatus to) {
  const GStatus is = gp->status.load(memory_order_relaxed);
  if (is != from)
    fatalf("weft: goroutine %llu is %s, not %s, on its way to %s", static_cast<unsigned long long>(gp->id), status_text(is),
           status_text(from), status_text(to));
}
#endif

std::uint32_t g_table_take(G** out, std::uint32_t n) {
  std::uint32_t got = 0;
  table.mu.lock();
  while (got < n && !table.free.empty()) {
    out[got++] = table.free.back();
    table.free.pop_back();
  }
  while (got < n) {
    if ((table.slabs.empty() || table.carved == kPerSlab) && !grow()) break;
    out[got++] = ::new (table.slabs.back() + table.carved * sizeof(G)) G;
    table.carved++;
  }
  table.mu.unlock();
  return got;
}

void g_table_give(G* const* gs, std::uint32_t n) {
  table.mu.lock();
  table.free.insert(table.free.end(), gs, gs + n);  // grow() has reserved room for every descriptor there is
  table.mu.unlock();
}

void g_table_each(void (*f)(G*, void*), void* arg) {
  table.mu.lock();
  const std::vector<char*> slabs = table.slabs;
  const std::size_t carved = table.carved;
  table.mu.unlock();
  for (std::size_t s = 0; s < slabs.size(); s++) {
    const std::size_t n = s + 1 == slabs.size() ? carved : kPerSlab;
    for (std::size_t i = 0; i < n; i++) f(std::launder(reinterpret_cast<G*>(slabs[s] + i * sizeof(G))), arg);
  }
}

std::uint64_t g_table_ids(unsigned n) { return table.next_id.fetch_add(n, memory_order_relaxed); }

void g_table_reset(bool keep) {
  table.mu.lock();
  table.next_id.store(1, memory_order_relaxed);
  table.kept |= keep;
  table.free.clear();
  if (table.kept) {
    for (std::size_t s = table.slabs.size(); s-- > 0;)
      for (std::size_t i = s + 1 == table.slabs.size() ? table.carved : kPerSlab; i-- > 0;) {
        char* at = table.slabs[s] + i * sizeof(G);
        const GStatus status = std::launder(reinterpret_cast<G*>(at))->status.load(memory_order_acquire);  // [status]
        if (status == GStatus::Running || status == GStatus::Syscall) continue;  // its thread may come back
        table.free.push_back(::new (at) G);
      }
  } else {
    for (char* s : table.slabs) arch::unmap_chunk(s, kSlabBytes);
    table.slabs.clear();
    table.slabs.shrink_to_fit();
    table.carved = 0;
    table.free.shrink_to_fit();
  }
  table.mu.unlock();
}

}  // namespace weft::rt
