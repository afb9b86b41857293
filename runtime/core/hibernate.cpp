// See hibernate.hpp.
//
// Orders     [emptied] a block's bytes are done with before it is pushed.
#include "runtime/core/hibernate.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "arch/hibernation.hpp"
#include "arch/stack_memory.hpp"
#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/core/blocks.hpp"
#include "runtime/core/guard.hpp"
#include "runtime/core/run_slot.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kPage = arch::kPageBytes;

/// A block that the handler has emptied: below the live bytes, for the world may be frozen and a collector look at
/// these.
struct Emptied {
  Emptied* next;
  std::size_t bytes;
};

struct State {
  int fd = -1;
  int stop_fd = -1;
  pthread_t thread{};
  std::unordered_set<char*> watched;  // the hibernator's thread only
  char* staging = nullptr;
  std::size_t staging_bytes = 0;
};
Immortal<State> state;
std::atomic<bool> running{false};
std::atomic<Emptied*> emptied{nullptr};

std::atomic<std::size_t> away{0};
std::atomic<std::uint64_t> taken{0}, resumed{0}, touched{0}, changed_mind{0};

char* top_page(const StackSlot* s) { return s->hi - kPage; }

/// The whole page, from what was live of it.
void fill_page(const StackSlot* s, std::uintptr_t word, char* page) {
  const std::size_t n = away_bytes(word);
  std::memset(page, 0, kPage);
  std::memcpy(page + (s->start() - n - top_page(s)), block_of(word), n);
}

/// Whoever waits for it cannot go on without: the kernel is asked for a second.
void put_back(const StackSlot* s, const char* bytes) {
  for (int tries = 0; tries < 1000; tries++) {
    if (arch::put_page(state->fd, top_page(s), bytes)) return;
    ::usleep(1000);
  }
  fatalf("out of memory: a hibernated stack cannot be brought back (error %d)", errno);
}

// ---- the handler -----------------------------------------------------------------------------------------------------

void push_emptied(char* block, std::size_t bytes) {
  auto* e = reinterpret_cast<Emptied*>(block);
  e->bytes = bytes;
  e->next = emptied.load(memory_order_relaxed);
  while (!emptied.compare_exchange_weak(e->next, e, memory_order_release, memory_order_relaxed)) {  // [emptied]
  }
}

/// Locks: none.
void answer(std::uintptr_t at) {
  char* page = reinterpret_cast<char*>(at & ~(kPage - 1));
  StackSlot* s = find_stack(page);
  if (!s || page != top_page(s)) {
    arch::clear_page(state->fd, page);
    arch::wake_faults(state->fd, page);
    return;
  }
  for (;;) {
    std::uintptr_t w = s->away.load(memory_order_acquire);  // [away]
    if (is_busy(w)) {
      ::sched_yield();
      continue;
    }
    if (!s->away.compare_exchange_weak(w, kBusy | w, memory_order_acquire, memory_order_relaxed)) continue;  // [away]
    if (is_away(w)) {
      alignas(64) char bytes[kPage];
      fill_page(s, w, bytes);
      away.fetch_sub(1, memory_order_relaxed);
      touched.fetch_add(1, memory_order_relaxed);
      put_back(s, bytes);
      const G* gp = s->owner.load(memory_order_relaxed);
      s->away.store(gp ? std::uintptr_t{gp->since} << 6 : 0, memory_order_release);  // [away] left alone
      push_emptied(block_of(w), away_bytes(w));
    } else {
      arch::clear_page(state->fd, page);
      s->away.store(w, memory_order_release);  // [away]
    }
    arch::wake_faults(state->fd, page);
    return;
  }
}

void* handler_main(void*) {
  arch::name_this_thread("weft-pager");
  for (std::uintptr_t at; arch::next_fault(state->fd, state->stop_fd, &at);)
    if (at) answer(at);
  return nullptr;
}

}  // namespace

// ---- starting --------------------------------------------------------------------------------------------------------

Faults probe_faults(const char** why) {
  const char* none = nullptr;
  if (!why) why = &none;
#if WEFT_ASAN || WEFT_TSAN
  *why = "a sanitizer watches the stacks";
  return Faults::None;
#else
  if (guards_rung() == GuardKind::Hole) {
    *why = "the guards are userfaultfd's (WEFT_GUARD=hole)";
    return Faults::None;
  }
  if (const int fd = arch::open_faults(false); fd >= 0) {
    arch::close_faults(fd);
    return Faults::All;
  }
  const bool cannot_move = errno == ENOSYS;
  if (const int fd = arch::open_faults(true); fd >= 0) {
    arch::close_faults(fd);
    *why = "userfaultfd is not allowed to serve the kernel's own accesses (vm.unprivileged_userfaultfd, CAP_SYS_PTRACE)";
    return Faults::UserOnly;
  }
  *why = cannot_move ? "this kernel's userfaultfd cannot move pages (Linux 6.8)" : "userfaultfd is refused";
  return Faults::None;
#endif
}

bool faults_open(bool user_only) {
  if (state->fd >= 0) return true;
  state->fd = arch::open_faults(user_only);
  if (state->fd < 0) return false;
  state->stop_fd = ::eventfd(0, EFD_CLOEXEC);
  if (state->stop_fd >= 0) return true;
  arch::close_faults(state->fd);
  *state = {};
  return false;
}

bool faults_start(bool user_only) {
  if (peek(running)) return true;
  if (!faults_open(user_only) || arch::start_thread(&state->thread, handler_main, nullptr) != 0) return false;
  running.store(true, memory_order_release);  // [away]
  return true;
}

bool faults_running() { return running.load(memory_order_acquire); }  // [away]

void faults_stop() {
  if (state->fd < 0) return;
  if (peek(running)) {
    const std::uint64_t one = 1;
    (void)!::write(state->stop_fd, &one, sizeof one);
    pthread_join(state->thread, nullptr);
    running.store(false, memory_order_relaxed);
  }
  arch::close_faults(state->fd);  // nothing is watched any more
  ::close(state->stop_fd);
  if (state->staging) arch::release_range(state->staging, state->staging_bytes);
  free_emptied();
  *state = {};
  for (auto* n : {&taken, &resumed, &touched, &changed_mind}) n->store(0, memory_order_relaxed);
  away.store(0, memory_order_relaxed);
}

// ---- out -------------------------------------------------------------------------------------------------------------

bool Outgoing::begin(G* gp, StackSlot* s) {
  const std::uintptr_t w = s->away.load(memory_order_acquire);  // [away]
  if (is_busy(w) || is_away(w) || (w != 0 && w == std::uintptr_t{gp->since} << 6)) return false;
  page_ = top_page(s);
  auto* ctx = static_cast<char*>(gp->ctx);
  if (ctx < page_ || ctx >= s->start()) return false;
  bytes_ = block_bytes(static_cast<std::size_t>(s->start() - ctx) + sizeof(Emptied));
  if (bytes_ < 128) bytes_ = 128;
  if (s->start() - bytes_ < page_ || !watch_around(s)) return false;
  block_ = block_acquire(bytes_);
  if (!block_) return false;
  std::uintptr_t expected = w;
  if (!s->away.compare_exchange_strong(expected, kBusy | w, memory_order_acquire, memory_order_relaxed)) {  // [away]
    clean_up();
    return false;
  }
  g_ = gp;
  s_ = s;
  was_ = w;
  return true;
}

bool Outgoing::take(char* staging) {
  staging_ = staging;
  if (arch::move_page(state->fd, staging, page_)) return true;
  s_->away.store(was_, memory_order_release);  // [away]
  return false;
}

bool Outgoing::finish(bool still) {
  if (!still || static_cast<char*>(g_->ctx) < s_->start() - bytes_ + sizeof(Emptied)) {
    if (!arch::move_page(state->fd, page_, staging_)) put_back(s_, staging_);
    changed_mind.fetch_add(1, memory_order_relaxed);
    s_->away.store(was_, memory_order_release);  // [away]
    arch::wake_faults(state->fd, page_);
    return false;
  }
  std::memcpy(block_, staging_ + (s_->start() - bytes_ - page_), bytes_);
  // From here on only g0 starts it, and brings its page back first.
  __atomic_store_n(&g_->started, static_cast<std::uint8_t>(kSpecial), __ATOMIC_RELAXED);
  away.fetch_add(1, memory_order_relaxed);
  taken.fetch_add(1, memory_order_relaxed);
  s_->away.store(reinterpret_cast<std::uintptr_t>(block_) | bytes_ / 64, memory_order_release);  // [away]
  block_ = nullptr;
  return true;
}

void Outgoing::clean_up() {
  if (block_) block_release(std::exchange(block_, nullptr), bytes_);
}

void bring_back(StackSlot* s) {
  for (;;) {
    std::uintptr_t w = s->away.load(memory_order_acquire);  // [away]
    if (is_busy(w)) {
      ::sched_yield();
      continue;
    }
    if (!is_away(w)) return;
    if (!s->away.compare_exchange_weak(w, kBusy | w, memory_order_acquire, memory_order_relaxed)) continue;  // [away]
    alignas(64) char bytes[kPage];
    fill_page(s, w, bytes);
    put_back(s, bytes);
    s->away.store(0, memory_order_release);  // [away]
    block_release(block_of(w), away_bytes(w));
    away.fetch_sub(1, memory_order_relaxed);
    resumed.fetch_add(1, memory_order_relaxed);
    return;
  }
}

// Reports of a world that could not be stopped ask, too; they check what they read there.
WEFT_NO_SANITIZE StackImage stack_image(const G* gp) {
  StackImage image;
  const StackSlot* s = gp->stack;
  auto* ctx = static_cast<char*>(gp->ctx);
  if (!s || ctx < s->lo || ctx >= s->hi) return image;
  image.lo = ctx;
  image.hi = s->hi;
  const std::uintptr_t w = s->away.load(memory_order_acquire);  // [away]
  if (is_copyable(gp)) {
    image.shift = copied_by(gp);
    image.hi = s->start();
  } else if (has_block(w)) {
    image.shift = block_of(w) - (s->start() - away_bytes(w));
    image.hi = s->start();
  }
  return image;
}

bool watch_around(StackSlot* s) {
  char *lo = nullptr, *hi = nullptr;
  if (!stack_neighbourhood(s, &lo, &hi)) return false;
  if (state->watched.count(lo)) return true;
  if (!arch::watch_range(state->fd, lo, static_cast<std::size_t>(hi - lo))) return false;
  state->watched.insert(lo);
  return true;
}

char* staging_pages(std::size_t n) {
  if (state->staging) return state->staging;
  bool needs_commit = false;
  char* p = arch::reserve_range(n * kPage, &needs_commit);
  if (!p) return nullptr;
  if ((needs_commit && !arch::commit_range(p, n * kPage)) || !arch::watch_range(state->fd, p, n * kPage)) {
    arch::release_range(p, n * kPage);
    return nullptr;
  }
  state->staging = p;
  state->staging_bytes = n * kPage;
  return p;
}

void empty_staging(char* staging, std::size_t n) { arch::empty_range(staging, n * kPage); }

void free_emptied() {
  for (Emptied* e = emptied.exchange(nullptr, memory_order_acquire); e;) {  // [emptied]
    Emptied* next = e->next;
    block_release(e, e->bytes);
    e = next;
  }
}

HibernateStats hibernate_stats() { return {peek(away), peek(taken), peek(resumed), peek(touched), peek(changed_mind)}; }

}  // namespace weft::rt
