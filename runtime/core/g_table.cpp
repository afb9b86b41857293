// The table of all descriptors: dense slabs, recycled, never moved.
//
// Slabs      2 MiB each, huge pages asked for (that takes the page faults out of spawning), carved in address order.
// Free lists One central list here under a lock, one per P without; batches go back and forth.
// Readers    g_table_each() takes no lock and allocates nothing: whoever has stopped the world at any instruction must not wait
//            for a thread that stands still with the lock. Slabs are chained from the newest to the oldest; each says how many of
//            its descriptors are there.
// Ids        Handed out in blocks, never reused while a runtime runs.
// Abandoned  A thread that a run has left behind comes back to its descriptor at any time, or never: from then on the slabs stay,
//            and each end of a run makes all other descriptors new.
// Orders     [slab] a slab is whole before it is `newest`, a descriptor before it is counted; acquire by readers.
//            [status] see g.hpp.
#include "runtime/core/g.hpp"

#include <new>
#include <vector>

#include "arch/stack_memory.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/immortal.hpp"

namespace weft::rt {

void (*local_roots)(const G* gp, void (*each)(const void* lo, const void* hi, void* arg), void* arg) = nullptr;

namespace {

constexpr std::size_t kSlabBytes = std::size_t{2} << 20;

/// The end of a slab.
struct Slab {
  char* older = nullptr;
  std::atomic<std::size_t> carved{0};
};

constexpr std::size_t kPerSlab = (kSlabBytes - sizeof(Slab)) / sizeof(G);

Slab* slab_of(char* at) { return std::launder(reinterpret_cast<Slab*>(at + kSlabBytes - sizeof(Slab))); }
G* in_slab(char* at, std::size_t i) { return std::launder(reinterpret_cast<G*>(at + i * sizeof(G))); }

struct Table {
  Mutex mu{Rank::GTable};
  std::atomic<char*> newest{nullptr};
  std::size_t slabs = 0;
  bool kept = false;       // somebody has been abandoned
  std::vector<G*> free;  // of addresses, not a list through cold descriptors
  std::atomic<std::uint64_t> next_id{1};
};
Immortal<Table> table;

// One more slab, aligned so that huge pages fit. False: refused.
bool grow() {
  // The first slab stays on small pages: a small program should not pay 2 MiB for ten goroutines.
  char* at = arch::map_chunk(kSlabBytes, table->slabs != 0);
  if (!at) return false;
  try {
    // Giving back must never fail: room for all of them, in steps that double.
    const std::size_t all = (table->slabs + 1) * kPerSlab;
    if (table->free.capacity() < all) table->free.reserve(all * 2);
  } catch (const std::bad_alloc&) {
    arch::unmap_chunk(at, kSlabBytes);
    return false;
  }
  auto* slab = ::new (at + kSlabBytes - sizeof(Slab)) Slab;
  slab->older = peek(table->newest);
  table->slabs++;
  table->newest.store(at, memory_order_release);  // [slab]
  return true;
}

/// How many descriptors of the newest slab are there. mu held.
std::size_t carved_now() { return peek(slab_of(peek(table->newest))->carved); }

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
  table->mu.lock();
  while (got < n && !table->free.empty()) {
    out[got++] = table->free.back();
    table->free.pop_back();
  }
  while (got < n) {
    if ((table->slabs == 0 || carved_now() == kPerSlab) && !grow()) break;
    char* at = peek(table->newest);
    const std::size_t n_there = carved_now();
    out[got++] = ::new (at + n_there * sizeof(G)) G;
    slab_of(at)->carved.store(n_there + 1, memory_order_release);  // [slab]
  }
  table->mu.unlock();
  return got;
}

void g_table_give(G* const* gs, std::uint32_t n) {
  table->mu.lock();
  table->free.insert(table->free.end(), gs, gs + n);  // grow() has reserved room for every descriptor there is
  table->mu.unlock();
}

void g_table_each(void (*f)(G*, void*), void* arg) {
  for (char* at = table->newest.load(memory_order_acquire); at; at = slab_of(at)->older) {  // [slab]
    const std::size_t n = slab_of(at)->carved.load(memory_order_acquire);                  // [slab]
    for (std::size_t i = 0; i < n; i++) f(in_slab(at, i), arg);
  }
}

std::uint64_t g_table_ids(unsigned n) { return table->next_id.fetch_add(n, memory_order_relaxed); }

void g_table_reset(bool keep) {
  table->mu.lock();
  table->next_id.store(1, memory_order_relaxed);
  table->kept |= keep;
  table->free.clear();
  if (table->kept) {
    for (char* at = peek(table->newest); at; at = slab_of(at)->older)
      for (std::size_t i = peek(slab_of(at)->carved); i-- > 0;) {
        const GStatus status = in_slab(at, i)->status.load(memory_order_acquire);  // [status]
        if (status == GStatus::Running || status == GStatus::Syscall) continue;  // its thread may come back
        table->free.push_back(::new (at + i * sizeof(G)) G);
      }
  } else {
    while (char* at = peek(table->newest)) {
      table->newest.store(slab_of(at)->older, memory_order_release);  // [slab]
      arch::unmap_chunk(at, kSlabBytes);
    }
    table->slabs = 0;
    table->free.shrink_to_fit();
  }
  table->mu.unlock();
}

}  // namespace weft::rt
