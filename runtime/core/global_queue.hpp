// The global run queue: a FIFO of G pointers in a ring that grows.
//
// An array, not a list through the descriptors: taking a batch out of two million queued Gs must not walk cold memory, and lets
// the taker prefetch all of them at once. Guarded by Sched::mu.
//
// Three kinds. Those that have run hold a stack and are nearer to giving it back than those that have not are to needing theirs:
// behind a burst of newcomers in one common queue, all of them would be holding stacks before the first one could end. And of
// those that have run, who was woken does not wait behind those that were made to give way because they compute for long.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "runtime/base/check.hpp"
#include "runtime/core/g.hpp"

namespace weft::rt {

/// One ring of it.
class GlobalRing {
 public:
  std::uint32_t size() const { return static_cast<std::uint32_t>(tail_ - head_); }

  void push(G* const* gs, std::uint32_t n) {
    if (size() + n > capacity_) grow(size() + n);
    for (std::uint32_t i = 0; i < n; i++) slots_[tail_++ & (capacity_ - 1)] = gs[i];
  }

  /// Takes the oldest `n` (at most size()), prefetching what running them touches first.
  void pop(G** out, std::uint32_t n) {
    for (std::uint32_t i = 0; i < n; i++) {
      G* gp = out[i] = slots_[head_++ & (capacity_ - 1)];
      __builtin_prefetch(gp, 1);
      __builtin_prefetch(reinterpret_cast<char*>(gp) + arch::kCacheLine, 1);
    }
    // A burst is over: give its memory back.
    if (head_ == tail_ && capacity_ > kKeep) free_all();
  }

  void free_all() {
    std::free(slots_);
    slots_ = nullptr;
    capacity_ = 0;
    head_ = tail_ = 0;
  }

 private:
  static constexpr std::uint64_t kKeep = 1 << 16;

  void grow(std::uint64_t need) {
    std::uint64_t capacity = capacity_ ? capacity_ * 2 : 1024;
    while (capacity < need) capacity *= 2;
    auto** bigger = static_cast<G**>(std::malloc(capacity * sizeof(G*)));
    if (!bigger) fatalf("out of memory: no room for the queue of %llu goroutines", static_cast<unsigned long long>(need));
    std::uint64_t n = 0;
    for (std::uint64_t i = head_; i != tail_; i++) bigger[n++] = slots_[i & (capacity_ - 1)];
    std::free(slots_);
    slots_ = bigger;
    capacity_ = capacity;
    head_ = 0;
    tail_ = n;
  }

  G** slots_ = nullptr;
  std::uint64_t capacity_ = 0;  // a power of two
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

class GlobalQueue {
 public:
  std::uint32_t size() const { return woken_.size() + started_.size() + fresh_.size(); }

  void push(G* const* gs, std::uint32_t n, bool woken) {
    while (n > 0) {
      // As long a run of one kind as there is.
      std::uint32_t k = 1;
      while (k < n && gs[k]->started == gs[0]->started) k++;
      (!gs[0]->started ? fresh_ : woken ? woken_ : started_).push(gs, k);
      gs += k;
      n -= k;
    }
    show();
  }

  /// Takes `n` (at most size()), the oldest of each kind: of four, two that were woken, one that had given way, one that has
  /// never run. What one kind lacks the others fill.
  void pop(G** out, std::uint32_t n) {
    const std::uint32_t turn = n == 1 ? turn_++ % 4 : 0;
    std::uint32_t fresh = n == 1 ? turn == 3 : n / 4;
    std::uint32_t started = n == 1 ? turn == 1 : n / 4;
    fresh = std::min(fresh, fresh_.size());
    started = std::min(started, started_.size());
    const std::uint32_t woken = std::min(n - fresh - started, woken_.size());
    started = std::min(n - fresh - woken, started_.size());
    fresh = n - woken - started;
    woken_.pop(out, woken);
    started_.pop(out + woken, started);
    fresh_.pop(out + woken + started, fresh);
    show();
  }

  /// The oldest that was woken.
  G* pop_woken() {
    if (woken_.size() == 0) return nullptr;
    G* gp = nullptr;
    woken_.pop(&gp, 1);
    show();
    return gp;
  }

  /// The oldest that was woken, else the oldest that had given way: anybody but a newcomer.
  G* pop_started() {
    if (G* gp = pop_woken()) return gp;
    if (started_.size() == 0) return nullptr;
    G* gp = nullptr;
    started_.pop(&gp, 1);
    show();
    return gp;
  }

  /// Somebody waits there whose time, descriptor or peer has come: sysmon looks after those that run for long. Without the lock: a hint.
  bool woken_wait() const { return peek(woken_seen_) != 0; }
  /// Somebody waits there who has run before. A hint, too.
  bool started_wait() const { return peek(started_seen_) != 0 || woken_wait(); }

  void free_all() {
    woken_.free_all();
    started_.free_all();
    fresh_.free_all();
    show();
  }

 private:
  void show() {
    woken_seen_.store(woken_.size(), memory_order_relaxed);
    started_seen_.store(started_.size(), memory_order_relaxed);
  }

  GlobalRing woken_;
  GlobalRing started_;
  GlobalRing fresh_;
  std::atomic<std::uint32_t> woken_seen_{0};
  std::atomic<std::uint32_t> started_seen_{0};
  std::uint8_t turn_ = 0;
};

}  // namespace weft::rt
