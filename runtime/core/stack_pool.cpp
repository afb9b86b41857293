// Growable stacks: reservations, carving, the central lists, and who lies where.
//
// Reservation  One per class from its first stack on (16 million stacks of address space, less where the kernel or
//              RLIMIT_AS objects; then further ones follow). Carved from its low end upwards in batches of 32, so that a
//              frame that jumps over a guard meets a neighbour's guard or the pad at the bottom, not free memory. The
//              side table of slots is a mapping of the same capacity beside it: it grows by being touched and never
//              moves.
// Trimming     Of the central list's cold end, what was not wanted for a second: its pages go back in batches (sysmon), and it
//              moves to the cold list, which is used up last. Fewer than kTrimLeast stay as they are. While memory is short
//              (hibernator.cpp) all others go at once.
// Carving      A batch is claimed under the lock and guarded without it: 32 guards are 20 us.
// Own          Stacks above 1 MiB: a mapping each, and an entry of `own` that a reader can check without a lock.
// Locks        pool_mu guards the lists, the claims and the own entries' free list. Readers of reservations, ready
//              bytes and own entries take none.
// Orders       [base] a reservation's fields are written before its base is, and read after it.
//              [ready] a batch's slots are written before its ready byte is, and read after it.
//              [own] an entry's end is written before its begin, begin is cleared before anything else changes; a
//              reader that finds the same begin twice has the end that belongs to it.
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "runtime/base/check.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/core/guard.hpp"
#include "runtime/core/stack.hpp"

namespace weft::rt {

std::atomic<bool> memory_short{false};
void (*stack_bound_hook)(StackSlot* s) = nullptr;
void (*stack_ended_hook)(const G* gp, const StackSlot* s) = nullptr;
void (*canary_reporter)(StackSlot* s, G* owner) = nullptr;

namespace {

constexpr unsigned kBatch = kStacksAtOnce;
constexpr unsigned kReservations = 64;
constexpr unsigned kIndexBits = 26;  // of a slot's place in its reservation; kReservations take the other 6
constexpr std::size_t kStacksWished[kStackClasses] = {16u << 20, 16u << 20, 16u << 20, 4u << 20};
constexpr std::size_t kPadBytes = 2 << 20;       // without access, below the first stack
constexpr std::size_t kCommitBytes = 64 << 20;   // a step where the kernel accounts for reservations
constexpr std::size_t kOwnMax = 1 << 20;
constexpr std::size_t kTrimLeast = 64;

static_assert((std::size_t{1} << kIndexBits) > (16u << 20));

struct Reservation {
  std::atomic<std::uintptr_t> base{0};  // of stack 0; 0: unused
  std::uintptr_t end = 0;
  char* map = nullptr;  // with the pad
  std::size_t map_bytes = 0;
  std::uint8_t cls = 0;
  GuardKind asked = GuardKind::Canary;  // the rung in force when it was made
  GuardKind rung = GuardKind::Canary;   // the one that its stacks start from
  StackSlot* slots = nullptr;
  std::atomic<std::uint8_t>* ready = nullptr;  // per batch
  std::size_t side_bytes = 0;                  // slots and ready bytes are one mapping
  std::size_t capacity = 0;                    // a multiple of kBatch
  std::size_t claimed = 0;
  bool needs_commit = false;
  std::size_t committed = 0;

  char* stack(std::size_t i) const {
    return reinterpret_cast<char*>(base.load(memory_order_relaxed)) + i * kStackClassBytes[cls];
  }
};

struct Own {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  Own* free_link = nullptr;
  StackSlot slot;
};

Reservation reservations[kReservations];
std::atomic<unsigned> reservations_used{0};  // how many entries were ever in use

std::atomic<Own*> own{nullptr};
std::atomic<std::size_t> own_used{0};

Mutex pool_mu{Rank::Stacks};
/// Places of stacks that nobody has, the hottest last.
struct PlaceList {
  std::uint32_t* at = nullptr;
  std::size_t count = 0;
  std::size_t capacity = 0;

  void make_room(std::size_t n) {
    if (n <= capacity) return;
    n = std::max(n, 2 * capacity);
    void* bigger = std::realloc(at, n * sizeof *at);
    if (!bigger) fatalf("out of memory: no room for a list of %zu stacks", n);
    at = static_cast<std::uint32_t*>(bigger);
    capacity = n;
  }
  void push(std::uint32_t place) {
    make_room(count + 1);
    at[count++] = place;
  }
};

struct Pool {
  PlaceList central[kStackClasses];
  PlaceList cold[kStackClasses];        // their pages have been given back
  std::size_t least[kStackClasses] = {};  // in central since the last look: so many at its cold end were not wanted
  std::int64_t looked_at = 0;
  std::size_t central_count = 0;        // in both
  std::size_t bytes_max = 0;            // of all stacks' ranges; 0: no limit
  std::size_t bytes = 0;                // of what is carved
  std::size_t carved = 0;  // of classes
  std::size_t trimmed = 0;
  std::size_t own_count = 0;
  std::size_t peak = 0;
  Own* own_free = nullptr;
} pool;
std::atomic<std::size_t> refused{0};

struct Lock {
  Lock() { pool_mu.lock(); }
  ~Lock() { pool_mu.unlock(); }
};

StackSlot* refuse() {
  refused.fetch_add(1, memory_order_relaxed);
  return nullptr;
}

// --- places of slots, packed: 6 bits of reservation, 26 bits of index + 1 ---

std::uint32_t pack(unsigned r, std::size_t i) { return (r << kIndexBits) | static_cast<std::uint32_t>(i + 1); }

StackSlot* unpack(std::uint32_t place) {
  return &reservations[place >> kIndexBits].slots[(place & ((1u << kIndexBits) - 1)) - 1];
}

std::uint32_t place_of(const StackSlot* s) {
  const unsigned n = reservations_used.load(memory_order_acquire);  // [base]
  for (unsigned r = 0; r < n; r++) {
    const Reservation& res = reservations[r];
    if (res.slots && s >= res.slots && s < res.slots + res.capacity)
      return pack(r, static_cast<std::size_t>(s - res.slots));
  }
  check_failed("a stack belongs to a reservation", __FILE__, __LINE__);
}

void push_central(StackSlot* s) {
  pool.central[s->cls].push(place_of(s));
  pool.central_count++;
}

StackSlot* pop_central(std::uint8_t cls) {
  PlaceList& hot = pool.central[cls];
  PlaceList& list = hot.count != 0 ? hot : pool.cold[cls];
  if (list.count == 0) return nullptr;
  StackSlot* s = unpack(list.at[--list.count]);
  if (hot.count < pool.least[cls]) pool.least[cls] = hot.count;
  pool.central_count--;
  s->used = true;
  return s;
}

void note_peak() { pool.peak = std::max(pool.peak, pool.carved + pool.own_count - pool.central_count); }

// --- reservations ---

void unmap(Reservation& res) {
  pool.bytes -= res.claimed * kStackClassBytes[res.cls];
  res.base.store(0, memory_order_release);  // [base]
  for (std::size_t i = 0; i < res.claimed; i++) {
    StackSlot& s = res.slots[i];
    if (!s.hi) continue;
    guard_gone(s.guard);
    arch::san_forget_stack(s.san);
    pool.carved--;
  }
  arch::san_forget_range(res.map, kPadBytes + res.claimed * kStackClassBytes[res.cls]);
  arch::release_range(res.map, res.map_bytes);
  arch::release_range(reinterpret_cast<char*>(res.slots), res.side_bytes);
  guard_reservation_gone(res.rung);
  res.slots = nullptr;
  res.ready = nullptr;
  res.claimed = res.committed = res.capacity = 0;
}

bool map(Reservation& res, std::uint8_t cls, std::size_t stacks) {
  const std::size_t stride = kStackClassBytes[cls];
  bool needs_commit = false;
  const std::size_t map_bytes = kPadBytes + stacks * stride;
  char* lo = arch::reserve_range(map_bytes, &needs_commit);
  if (!lo) return false;
  bool side_commit = false;
  const std::size_t side_bytes = stacks * sizeof(StackSlot) + stacks / kBatch;
  char* side = arch::reserve_range(side_bytes, &side_commit);
  if (side && side_commit && !arch::commit_range(side, side_bytes)) {
    arch::release_range(side, side_bytes);
    side = nullptr;
  }
  if (!side) {
    arch::release_range(lo, map_bytes);
    return false;
  }
  res.cls = cls;
  res.map = lo;
  res.map_bytes = map_bytes;
  res.slots = reinterpret_cast<StackSlot*>(side);
  res.ready = reinterpret_cast<std::atomic<std::uint8_t>*>(side + stacks * sizeof(StackSlot));
  res.side_bytes = side_bytes;
  res.capacity = stacks;
  res.claimed = 0;
  res.needs_commit = needs_commit;
  res.committed = needs_commit ? 0 : stacks * stride;
  res.asked = guards_rung();
  res.rung = guard_reservation(lo + kPadBytes, stacks * stride);
  // A refused pad leaves the lowest stack with its guard alone.
  if (!needs_commit) arch::deny_access(lo, kPadBytes);
  res.end = reinterpret_cast<std::uintptr_t>(lo) + map_bytes;
  res.base.store(reinterpret_cast<std::uintptr_t>(lo) + kPadBytes, memory_order_release);  // [base]
  return true;
}

// One more reservation for the class, as large as can be had.
Reservation* add_reservation(std::uint8_t cls) {
  unsigned r = 0;
  while (r < kReservations && reservations[r].slots) r++;
  if (r == kReservations) return nullptr;
  const std::size_t stride = kStackClassBytes[cls];
  std::size_t stacks = arch::reservation_limit(kStacksWished[cls] * stride) / stride;
  if (arch::kSanStacksMax) stacks = std::min(stacks, arch::kSanStacksMax);
  for (stacks = std::max<std::size_t>(stacks / kBatch, 1) * kBatch;; stacks = stacks / 8 / kBatch * kBatch) {
    if (stacks == 0) return nullptr;
    if (map(reservations[r], cls, stacks)) break;
  }
  if (reservations_used.load(memory_order_relaxed) <= r)
    reservations_used.store(r + 1, memory_order_release);  // [base]
  return &reservations[r];
}

struct Claim {
  Reservation* res = nullptr;
  std::size_t first = 0;
};

// A batch that nobody else will carve. Locks: pool_mu.
Claim claim_batch(std::uint8_t cls) {
  const std::size_t bytes = kBatch * kStackClassBytes[cls];
  if (pool.bytes_max != 0 && pool.bytes + bytes > pool.bytes_max) return {};
  Reservation* res = nullptr;
  for (Reservation& r : reservations)
    if (r.slots && r.cls == cls && r.asked == guards_rung() && r.claimed < r.capacity) res = &r;
  if (!res) res = add_reservation(cls);
  if (!res) return {};
  const std::size_t need = (res->claimed + kBatch) * kStackClassBytes[cls];
  if (need > res->committed) {
    const std::size_t whole = res->capacity * kStackClassBytes[cls];
    const std::size_t step = std::min(std::max(kCommitBytes, need - res->committed), whole - res->committed);
    if (!arch::commit_range(res->stack(0) + res->committed, step)) return {};
    res->committed += step;
  }
  const Claim c{res, res->claimed};
  res->claimed += kBatch;
  pool.bytes += bytes;
  return c;
}

// Guards the batch's stacks and makes their slots. Returns how many are usable; those are in `out`. Locks: none.
unsigned carve(Claim c, StackSlot** out) {
  const std::uint8_t cls = c.res->cls;
  unsigned n = 0;
  for (unsigned i = 0; i < kBatch; i++) {
    auto* s = ::new (&c.res->slots[c.first + i]) StackSlot;
    char* const bottom = c.res->stack(c.first + i);
    s->cls = cls;
    s->lo = bottom + kStackGuardBytes[cls];
    char* const hi = bottom + kStackClassBytes[cls];
    if (!guard_stack(c.res->rung, bottom, s->lo, hi, &s->guard)) continue;  // hi stays null: not a stack
    s->hi = hi;
    out[n++] = s;
  }
  c.res->ready[c.first / kBatch].store(1, memory_order_release);  // [ready]
  guards_warn();
  return n;
}

// --- own mappings ---

Own* to_own(StackSlot* s) {
  return reinterpret_cast<Own*>(reinterpret_cast<char*>(s) - offsetof(Own, slot));
}

Own* take_own_entry() {
  const Lock lock;
  Own* o = pool.own_free;
  if (o) {
    pool.own_free = o->free_link;
  } else {
    Own* table = own.load(memory_order_relaxed);
    if (!table) {
      bool needs_commit = false;
      char* p = arch::reserve_range(kOwnMax * sizeof(Own), &needs_commit);
      if (p && needs_commit && !arch::commit_range(p, kOwnMax * sizeof(Own))) {
        arch::release_range(p, kOwnMax * sizeof(Own));
        p = nullptr;
      }
      if (!p) return nullptr;
      table = reinterpret_cast<Own*>(p);
      own.store(table, memory_order_release);  // [own]
    }
    const std::size_t i = own_used.load(memory_order_relaxed);
    if (i == kOwnMax) return nullptr;
    o = ::new (&table[i]) Own;
    own_used.store(i + 1, memory_order_release);  // [own]
  }
  pool.own_count++;
  note_peak();
  return o;
}

void give_own_entry(Own* o) {
  const Lock lock;
  o->free_link = pool.own_free;
  pool.own_free = o;
  pool.own_count--;
}

/// False: Config::stacks_bytes_max is reached.
bool count_bytes(std::size_t bytes) {
  const Lock lock;
  if (pool.bytes_max != 0 && pool.bytes + bytes > pool.bytes_max) return false;
  pool.bytes += bytes;
  return true;
}

void uncount_bytes(std::size_t bytes) {
  const Lock lock;
  pool.bytes -= bytes;
}

StackSlot* acquire_own_counted(std::size_t bytes) {
  bool needs_commit = false;
  const std::size_t whole = bytes + kOwnGuardBytes;
  char* bottom = arch::reserve_range(whole, &needs_commit);
  if (!bottom) return refuse();
  if (needs_commit && !arch::commit_range(bottom, whole)) {
    arch::release_range(bottom, whole);
    return refuse();
  }
  Own* o = take_own_entry();
  if (!o) {
    arch::release_range(bottom, whole);
    return refuse();
  }
  StackSlot& s = o->slot;
  s.lo = bottom + kOwnGuardBytes;
  s.hi = bottom + whole;
  s.cls = kOwnMapping;
  s.used = true;
  // Filling a mapping that is used once costs more than the VMA that a hole would save.
  const GuardKind rung = guards_rung() == GuardKind::Hole ? GuardKind::Mprotect : guards_rung();
  guard_stack(rung, bottom, s.lo, s.hi, &s.guard);
  arch::san_ready_stack(s.san);
  o->end.store(reinterpret_cast<std::uintptr_t>(s.hi), memory_order_relaxed);
  o->begin.store(reinterpret_cast<std::uintptr_t>(bottom), memory_order_release);  // [own]
  guards_warn();
  return &s;
}

StackSlot* acquire_own(std::size_t bytes) {
  bytes = (std::min(bytes, kStackBytesMax) + arch::kPageBytes - 1) & ~(arch::kPageBytes - 1);
  if (!count_bytes(bytes)) return refuse();
  StackSlot* s = acquire_own_counted(bytes);
  if (!s) uncount_bytes(bytes);
  return s;
}

void release_own(StackSlot* s) {
  uncount_bytes(s->bytes());
  Own* o = to_own(s);
  o->begin.store(0, memory_order_seq_cst);  // [own] before any other change of the entry
  char* const bottom = s->bottom();
  arch::san_forget_stack(s->san);
  arch::san_forget_range(s->lo, s->bytes());
  arch::release_range(bottom, static_cast<std::size_t>(s->hi - bottom));
  guard_gone(s->guard);
  s->owner.store(nullptr, memory_order_relaxed);
  give_own_entry(o);
}

StackSlot* find_own(std::uintptr_t a) {
  Own* table = own.load(memory_order_acquire);  // [own]
  const std::size_t n = own_used.load(memory_order_acquire);  // [own]
  if (!table) return nullptr;
  for (std::size_t i = 0; i < n; i++) {
    Own& o = table[i];
    const std::uintptr_t begin = o.begin.load(memory_order_acquire);  // [own]
    if (begin == 0 || a < begin || a >= o.end.load(memory_order_acquire)) continue;  // [own]
    if (o.begin.load(memory_order_relaxed) == begin) return &o.slot;
  }
  return nullptr;
}

// Locks: pool_mu.
std::size_t count_bound(const Reservation& res) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < res.claimed; i++) {
    if (res.ready[i / kBatch].load(memory_order_acquire) == 0) continue;  // [ready]
    if (peek(res.slots[i].owner)) n++;
  }
  return n;
}

// Stacks of a reservation that stays because of others: their memory goes back, they are free again.
void empty_unbound(Reservation& res) {
  for (std::size_t i = 0; i < res.claimed; i++) {
    StackSlot& s = res.slots[i];
    if (!s.hi || !s.used || peek(s.owner)) continue;
    arch::san_forget_stack(s.san);
    arch::san_forget_range(s.lo, s.bytes());
    const bool emptied = arch::empty_range(s.lo, s.bytes());
    s.used = false;
    if (emptied && guard_refill(&s)) continue;
    if (!emptied && s.guard != GuardKind::Hole) continue;  // keeps its pages
    s.hi = nullptr;
    pool.carved--;
  }
}

}  // namespace

std::uint8_t stack_class(std::size_t bytes) {
  for (unsigned c = 0; c < kStackClasses; c++)
    if (bytes <= kStackClassBytes[c]) return static_cast<std::uint8_t>(c);
  return kOwnMapping;
}

WEFT_NOINLINE StackSlot* stack_acquire_slow(StackCache* cache, std::uint8_t cls, std::size_t bytes) {
  if (cls == kOwnMapping) return acquire_own(bytes);
  if (cache && cache->cls != cls) cache = nullptr;
  const unsigned want = cache ? StackCache::kCapacity / 2 : 1;

  StackSlot* got[kBatch];
  unsigned n = 0;
  Claim claim;
  {
    const Lock lock;
    while (n < want) {
      StackSlot* s = pop_central(cls);
      if (!s) break;
      got[n++] = s;
    }
    if (n == 0) claim = claim_batch(cls);
    else note_peak();
  }
  if (claim.res) {
    n = carve(claim, got);
    const unsigned taken = std::min(n, want);
    const Lock lock;
    pool.carved += n;
    while (n > taken) push_central(got[--n]);
    for (unsigned i = 0; i < n; i++) got[i]->used = true;
    note_peak();
  }
  if (n == 0) return refuse();
  // The hottest, which central handed out first, goes out first.
  StackSlot* const s = got[0];
  if (cache) {
    for (unsigned i = n - 1; i > 0; i--) cache->slots[cache->count++] = got[i];
  }
  arch::san_ready_stack(s->san);
  return s;
}

bool stack_at_hand(const StackCache* cache, std::uint8_t cls) {
  if (cache && cache->cls == cls && cache->count > 0) return true;
  const Lock lock;
  return pool.central[cls].count > 0;
}

namespace {

constexpr std::size_t kTrimAtOnce = 256;

// At most kMost that are nobody's, and in no list: no lock while the kernel works.
template <std::size_t kMost>
WEFT_NOINLINE void give_pages_back(unsigned cls, StackSlot* const* some, std::size_t n) {
  arch::Range ranges[kMost] = {};
  std::size_t k = 0;
  for (std::size_t i = 0; i < n; i++)
    if (some[i]->used && some[i]->guard != GuardKind::Hole) ranges[k++] = {some[i]->lo, some[i]->bytes()};  // there a page that is gone is a guard
  const bool emptied = arch::empty_ranges(ranges, k);
  const Lock lock;
  for (std::size_t i = 0; i < n; i++) {
    StackSlot* s = some[i];
    if (emptied && s->guard != GuardKind::Hole) s->used = false;
    pool.cold[cls].push(place_of(s));
    pool.central_count++;
  }
  pool.trimmed += k;
}

}  // namespace

WEFT_NOINLINE void stack_release_slow(StackCache* cache, StackSlot* s) {
  s->kind = StackKind::Growable;
  if (s->guard == GuardKind::Canary && !canary_intact(s)) {
    if (canary_reporter) canary_reporter(s, s->owner.load(memory_order_relaxed));
    fatalf("stack overflow: a goroutine wrote below its stack of %zu bytes", s->limit());
  }
  if (s->cls == kOwnMapping) return release_own(s);
  s->owner.store(nullptr, memory_order_relaxed);
  if (cache && cache->cls == s->cls) {
    if (cache->count == StackCache::kCapacity) {
      // The coldest half goes.
      constexpr unsigned kHalf = StackCache::kCapacity / 2;
      if (WEFT_UNLIKELY(peek(memory_short))) {
        give_pages_back<kHalf>(s->cls, cache->slots, kHalf);  // a goroutine's stack: a small frame
      } else {
        const Lock lock;
        for (unsigned i = 0; i < kHalf; i++) push_central(cache->slots[i]);
      }
      std::copy(cache->slots + kHalf, cache->slots + StackCache::kCapacity, cache->slots);
      cache->count = kHalf;
    }
    cache->slots[cache->count++] = s;
    return;
  }
  const Lock lock;
  push_central(s);
}

void stack_flush(StackCache* cache, std::uint8_t) {
  const Lock lock;
  for (unsigned i = 0; i < cache->count; i++) push_central(cache->slots[i]);
  cache->count = 0;
}

StackSlot* find_stack(const void* addr) {
  const auto a = reinterpret_cast<std::uintptr_t>(addr);
  const unsigned n = reservations_used.load(memory_order_acquire);  // [base]
  for (unsigned r = 0; r < n; r++) {
    Reservation& res = reservations[r];
    const std::uintptr_t base = res.base.load(memory_order_acquire);  // [base]
    if (base == 0 || a < base || a >= res.end) continue;
    const std::size_t i = (a - base) / kStackClassBytes[res.cls];
    if (res.ready[i / kBatch].load(memory_order_acquire) == 0) return nullptr;  // [ready]
    StackSlot* s = &res.slots[i];
    return s->hi ? s : nullptr;
  }
  return find_own(a);
}

bool stack_neighbourhood(const StackSlot* s, char** lo, char** hi) {
  constexpr std::size_t kAround = 64;
  if (s->cls == kOwnMapping) return false;
  const std::uint32_t place = place_of(s);
  const Reservation& res = reservations[place >> kIndexBits];
  if (res.needs_commit) return false;
  const std::size_t first = ((place & ((1u << kIndexBits) - 1)) - 1) / kAround * kAround;
  const std::size_t end = std::min(first + kAround, res.capacity);
  *lo = res.stack(first);
  *hi = *lo + (end - first) * kStackClassBytes[res.cls];
  return true;
}

bool guards_are_holes() { return guards_rung() == GuardKind::Hole; }

bool in_guard(const StackSlot* s, const void* addr) {
  const auto* a = static_cast<const char*>(addr);
  return a >= s->bottom() && a < s->lo;
}

bool in_stack_memory(const void* addr) {
  const auto a = reinterpret_cast<std::uintptr_t>(addr);
  const unsigned n = reservations_used.load(memory_order_acquire);  // [base]
  for (unsigned r = 0; r < n; r++) {
    const std::uintptr_t base = reservations[r].base.load(memory_order_acquire);  // [base]
    if (base && a >= base - kPadBytes && a < reservations[r].end) return true;
  }
  return find_own(a) != nullptr;
}

bool stacks_start(GuardKind forced, std::size_t bytes_max) {
  if (!guards_start(forced)) return false;
  const Lock lock;
  pool.bytes_max = bytes_max;
  pool.looked_at = 0;
  pool.peak = 0;
  refused.store(0, memory_order_relaxed);
  // Reservations that outlived the last stop: their free stacks serve again if they are guarded as asked now.
  for (Reservation& res : reservations) {
    if (!res.slots || res.asked != guards_rung()) continue;
    for (std::size_t i = 0; i < res.claimed; i++) {
      StackSlot& s = res.slots[i];
      if (s.hi && !peek(s.owner)) push_central(&s);
    }
  }
  return true;
}

std::int64_t stacks_trim(std::int64_t now) {
  constexpr std::int64_t kPeriod = 1'000'000'000;
  constexpr std::int64_t kSoon = 1'000'000;
  constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();
  StackSlot* some[kTrimAtOnce];
  std::int64_t next = kForever;
  for (unsigned c = 0; c < kStackClasses; c++) {
    std::size_t n = 0;
    {
      const Lock lock;
      if (c == 0) {
        if (now - pool.looked_at < kPeriod) return pool.central_count >= kTrimLeast ? pool.looked_at + kPeriod : kForever;
        pool.looked_at = now;
      }
      PlaceList& hot = pool.central[c];
      std::size_t idle = std::min(pool.least[c], hot.count);
      if (idle >= kTrimLeast) {
        n = std::min(idle, kTrimAtOnce);
        for (std::size_t i = 0; i < n; i++) some[i] = unpack(hot.at[i]);
        std::memmove(hot.at, hot.at + n, (hot.count - n) * sizeof *hot.at);
        hot.count -= n;
        pool.central_count -= n;
        idle -= n;
        if (idle >= kTrimLeast) pool.looked_at = 0;  // go on soon
      }
      pool.least[c] = pool.looked_at == 0 ? idle : hot.count;
      if (hot.count >= kTrimLeast) next = std::min(next, now + (pool.looked_at == 0 ? kSoon : kPeriod));
    }
    if (n != 0) give_pages_back<kTrimAtOnce>(c, some, n);
  }
  return next;
}

void stacks_trim_all() {
  StackSlot* some[kTrimAtOnce];
  for (unsigned c = 0; c < kStackClasses; c++)
    for (;;) {
      std::size_t n = 0;
      {
        const Lock lock;
        PlaceList& hot = pool.central[c];
        while (hot.count > kTrimLeast && n < kTrimAtOnce) some[n++] = unpack(hot.at[--hot.count]);
        pool.central_count -= n;
        pool.least[c] = std::min(pool.least[c], hot.count);
      }
      if (n == 0) break;
      give_pages_back<kTrimAtOnce>(c, some, n);
    }
}

void stacks_stop() {
  const Lock lock;
  for (PlaceList* lists : {pool.central, pool.cold})
    for (unsigned c = 0; c < kStackClasses; c++) {
      std::free(lists[c].at);
      lists[c] = {};
    }
  for (std::size_t& n : pool.least) n = 0;
  pool.central_count = 0;
  for (Reservation& res : reservations) {
    if (!res.slots) continue;
    if (count_bound(res) == 0) unmap(res);
    else empty_unbound(res);
  }
  if (pool.own_count == 0) {
    if (Own* table = own.load(memory_order_relaxed)) {
      own_used.store(0, memory_order_release);  // [own]
      own.store(nullptr, memory_order_release);  // [own]
      arch::release_range(reinterpret_cast<char*>(table), kOwnMax * sizeof(Own));
      pool.own_free = nullptr;
    }
  }
  guards_stop();
}

StackStats stack_stats() {
  const Lock lock;
  StackStats st;
  st.guard = guards_rung();
  st.carved = pool.carved + pool.own_count;
  st.bound = pool.own_count;
  for (const Reservation& res : reservations)
    if (res.slots) st.bound += count_bound(res);
  st.peak_bound = pool.peak;
  st.refused = peek(refused);
  st.trimmed = pool.trimmed;
  return st;
}

}  // namespace weft::rt
