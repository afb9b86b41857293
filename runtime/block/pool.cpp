// Pool.
//
// Slots      One per P (plain threads share them by their stack's address). A slot has one node to itself and a list; its owner
//            takes the newest from the list, others the oldest. An M may lose its P at any moment, so each slot has a lock;
//            it is nearly always free.
// Victims    trim() moves what a slot has to its victims and destroys the victims of the time before. get() looks there last.
// Locks      The registry's, then one slot's. Nothing is destroyed under either: destructors are user code.
// Orders     The slot's lock. `some` is a hint: a stale false costs a new thing, a stale true a look.
#include <weft/pool.hpp>

#include <algorithm>
#include <bit>
#include <memory>

#include "arch/cpu.hpp"
#include "arch/thread.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::detail {

using namespace rt;

namespace {

struct NodeList {
  PoolNode* first = nullptr;
  PoolNode* last = nullptr;

  void push(PoolNode* n) {
    n->prev = nullptr;
    n->next = first;
    (first ? first->prev : last) = n;
    first = n;
  }
  PoolNode* remove(PoolNode* n) {
    if (!n) return nullptr;
    (n->prev ? n->prev->next : first) = n->next;
    (n->next ? n->next->prev : last) = n->prev;
    return n;
  }
  PoolNode* newest() { return remove(first); }
  PoolNode* oldest() { return remove(last); }
};

struct alignas(arch::kCacheLine) Slot {
  SpinLock lock;
  Relaxed<bool> some_shared, some_victims;
  PoolNode* own = nullptr;
  NodeList shared;
  NodeList victims;
};

}  // namespace

struct PoolCore {
  std::uint32_t count;  // a power of two
  std::unique_ptr<Slot[]> slots;
  void (*destroy)(PoolNode* node);
  PoolCore* next = nullptr;  // in the registry
};

namespace {

struct Registry {
  SpinLock lock;
  PoolCore* first = nullptr;
};
// Never destroyed: pools may be static.
Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}

std::uint32_t my_slot(const PoolCore* p, const M* mp) {
  if (const P* pp = mp ? static_cast<P*>(mp->p) : nullptr) return pp->id & (p->count - 1);
  const char here = 0;
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(&here) >> 16) & (p->count - 1);
}

PoolNode* take_shared(Slot& s) {
  if (!s.some_shared) return nullptr;
  s.lock.lock();
  PoolNode* n = s.shared.oldest();
  s.some_shared = s.shared.first != nullptr;
  s.lock.unlock();
  return n;
}

PoolNode* take_victim(Slot& s) {
  if (!s.some_victims) return nullptr;
  s.lock.lock();
  PoolNode* n = s.victims.oldest();
  s.some_victims = s.victims.first != nullptr;
  s.lock.unlock();
  return n;
}

void destroy_all(PoolNode* n, void (*destroy)(PoolNode*)) {
  while (n) {
    PoolNode* next = n->next;
    destroy(n);
    n = next;
  }
}

}  // namespace

PoolCore* pool_make(void (*destroy)(PoolNode* node)) {
  auto p = std::make_unique<PoolCore>();
  p->count = std::bit_ceil(static_cast<std::uint32_t>(std::clamp(arch::allowed_cpus(), 1, 64)));
  p->slots = std::make_unique<Slot[]>(p->count);
  p->destroy = destroy;
  Registry& r = registry();
  r.lock.lock();
  p->next = r.first;
  r.first = p.get();
  r.lock.unlock();
  return p.release();
}

void pool_free(PoolCore* p) {
  Registry& r = registry();
  r.lock.lock();
  for (PoolCore** at = &r.first; *at; at = &(*at)->next)
    if (*at == p) {
      *at = p->next;
      break;
    }
  r.lock.unlock();
  for (std::uint32_t i = 0; i < p->count; i++) {
    Slot& s = p->slots[i];
    if (s.own) p->destroy(s.own);
    destroy_all(s.shared.first, p->destroy);
    destroy_all(s.victims.first, p->destroy);
  }
  delete p;
}

PoolNode* pool_get(PoolCore* p) {
  SCHED_POINT("pool get");
  Inside inside;
  const std::uint32_t mine = my_slot(p, inside.m);
  Slot& s = p->slots[mine];
  s.lock.lock();
  PoolNode* n = std::exchange(s.own, nullptr);
  if (!n && (n = s.shared.newest())) s.some_shared = s.shared.first != nullptr;
  s.lock.unlock();
  for (std::uint32_t i = 1; !n && i < p->count; i++) n = take_shared(p->slots[(mine + i) & (p->count - 1)]);
  for (std::uint32_t i = 0; !n && i < p->count; i++) n = take_victim(p->slots[(mine + i) & (p->count - 1)]);
  return n;
}

void pool_put(PoolCore* p, PoolNode* node) {
  SCHED_POINT("pool put");
  Inside inside;
  Slot& s = p->slots[my_slot(p, inside.m)];
  s.lock.lock();
  if (!s.own) {
    s.own = node;
  } else {
    s.shared.push(node);
    s.some_shared = true;
  }
  s.lock.unlock();
}

}  // namespace weft::detail

namespace weft {

void trim_pools() {
  using namespace detail;
  rt::Inside inside;
  // All that goes, one list per kind of node: `next` chains nodes, and a pool that dies meanwhile has let go of them.
  struct Gone {
    PoolNode* nodes;
    void (*destroy)(PoolNode*);
  };
  // Room for them before the lock.
  Registry& r = registry();
  std::size_t pools = 0;
  r.lock.lock();
  for (PoolCore* p = r.first; p; p = p->next) pools += p->count;
  r.lock.unlock();
  const auto gone = std::make_unique<Gone[]>(pools);
  std::size_t n = 0;
  r.lock.lock();
  for (PoolCore* p = r.first; p; p = p->next)
    for (std::uint32_t i = 0; i < p->count && n < pools; i++) {
      Slot& s = p->slots[i];
      s.lock.lock();
      gone[n++] = {s.victims.first, p->destroy};
      s.victims = std::exchange(s.shared, {});
      if (PoolNode* own = std::exchange(s.own, nullptr)) s.victims.push(own);
      s.some_shared = false;
      s.some_victims = s.victims.first != nullptr;
      s.lock.unlock();
    }
  r.lock.unlock();
  for (std::size_t i = 0; i < n; i++) destroy_all(gone[i].nodes, gone[i].destroy);
}

}  // namespace weft
