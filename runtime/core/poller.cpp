// See poller.hpp.
// Orders  [desc] a chunk or table is filled before it is published.
#include "runtime/core/poller.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "arch/clock.hpp"
#include "arch/kernel.hpp"
#include "runtime/base/check.hpp"
#include "runtime/core/g.hpp"

namespace weft::rt {

void GList::push(G* g) {
  g->link = nullptr;
  if (last)
    last->link = g;
  else
    first = g;
  last = g;
  count++;
}

G* GList::pop() {
  G* g = first;
  if (g) {
    first = g->link;
    if (!first) last = nullptr;
    g->link = nullptr;
    count--;
  }
  return g;
}

struct Poller::Desc {
  SpinLock lock;
  std::uint32_t armings = 0;  // under lock: travels with each event, so that one of an earlier arming is known
  WaitQueue queues[2];        // read, write

  /// Arms for whoever waits. lock held. 0 or an errno.
  int arm(int epfd, int fd) {
    epoll_event ev{};
    ev.events = EPOLLONESHOT | (queues[0].empty() ? 0u : EPOLLIN | EPOLLRDHUP) | (queues[1].empty() ? 0u : EPOLLOUT);
    ev.data.u64 = std::uint64_t{++armings} << 32 | static_cast<std::uint32_t>(fd);
    int r = arch::kernel.epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev);
    if (r < 0 && errno == ENOENT) r = arch::kernel.epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
    return r < 0 ? errno : 0;
  }
};

// Descriptors by number, in chunks that never move; the top level is replaced as a whole when it grows.
struct Poller::Table {
  static constexpr unsigned kPerChunk = 256;
  static constexpr unsigned kChunks = 1 << 14;  // 4 M descriptors
  std::atomic<Desc*> chunks[kChunks] = {};
  ~Table() {
    for (auto& c : chunks) delete[] peek(c);
  }
};

bool Poller::start() {
  break_pending_.store(0, memory_order_relaxed);
  waiting_.store(0, memory_order_relaxed);
  epfd_ = arch::kernel.epoll_create(EPOLL_CLOEXEC);
  if (epfd_ < 0) return false;
  eventfd_ = arch::kernel.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event ev{};
  ev.events = EPOLLIN;
  ev.data.u64 = 0xffffffff;
  if (eventfd_ < 0 || arch::kernel.epoll_ctl(epfd_, EPOLL_CTL_ADD, eventfd_, &ev) < 0) {
    stop();
    return false;
  }
  return true;
}

void Poller::stop() {
  if (eventfd_ >= 0) ::close(eventfd_);
  if (epfd_ >= 0) ::close(epfd_);
  eventfd_ = epfd_ = -1;
  // Plain threads that still wait here go on: their next operation tells what is the matter. The table stays: they are about
  // to look at their nodes, and descriptors' numbers come again.
  Table* t = peek(table_);
  if (!t) return;
  GList none;
  for (auto& chunk : t->chunks) {
    Desc* c = peek(chunk);
    for (unsigned i = 0; c && i < Table::kPerChunk; i++) {
      c[i].lock.lock();
      for (WaitQueue& q : c[i].queues) wake_all(q, none);
      c[i].lock.unlock();
    }
  }
}

Poller::Desc* Poller::desc(int fd, bool make) {
  if (fd < 0 || static_cast<unsigned>(fd) >= Table::kChunks * Table::kPerChunk) return nullptr;
  Table* t = table_.load(memory_order_acquire);  // [desc]
  if (!t) {
    if (!make) return nullptr;
    auto* fresh = new (std::nothrow) Table;
    if (!fresh) return nullptr;
    if (table_.compare_exchange_strong(t, fresh, memory_order_acq_rel, memory_order_acquire))  // [desc]
      t = fresh;
    else
      delete fresh;
  }
  auto& slot = t->chunks[static_cast<unsigned>(fd) / Table::kPerChunk];
  Desc* c = slot.load(memory_order_acquire);  // [desc]
  if (!c) {
    if (!make) return nullptr;
    Desc* fresh = new (std::nothrow) Desc[Table::kPerChunk];
    if (!fresh) return nullptr;
    if (slot.compare_exchange_strong(c, fresh, memory_order_acq_rel, memory_order_acquire))  // [desc]
      c = fresh;
    else
      delete[] fresh;
  }
  return &c[static_cast<unsigned>(fd) % Table::kPerChunk];
}

int Poller::arm(int fd, bool write, WaitNode* n) {
  if (!ok()) return ENOSYS;
  if (fd < 0) return EBADF;
  Desc* d = desc(fd, true);
  if (!d) return ENOMEM;
  d->lock.lock();
  d->queues[write].push(n, &d->lock);
  const int err = d->arm(epfd_, fd);
  if (err)
    d->queues[write].remove(n);
  else
    waiting_.fetch_add(1, memory_order_seq_cst);  // [idle]
  d->lock.unlock();
  return err;
}

void Poller::disarm(WaitNode* n) {
  n->lock->lock();
  if (n->queue) {
    n->queue->remove(n);
    waiting_.fetch_sub(1, memory_order_relaxed);
  }
  n->lock->unlock();
}

void Poller::wake_all(WaitQueue& q, GList& ready) {
  while (WaitNode* node = peek(q.first)) {
    q.remove(node);
    Waiter* w = node->waiter;
    if (!w->try_win(node->ticket, Outcome::Wake)) {
      waiting_.fetch_sub(1, memory_order_relaxed);
      continue;
    }
    w->fired = node->index;
    node->success = true;
    if (G* gp = w->g()) {
      ready.push(gp);
    } else {
      waiting_.fetch_sub(1, memory_order_relaxed);
      w->note.wake();
    }
  }
}

void Poller::queued(unsigned n) {
  if (n != 0) waiting_.fetch_sub(n, memory_order_release);  // [idle] after the queue that they are in
}

bool Poller::wait(std::int64_t deadline, GList& ready, bool sleeper) {
  constexpr int kBatch = 128;
  epoll_event evs[kBatch];
  timespec ts{};
  timespec* limit = nullptr;
  if (deadline != kNever) {
    std::int64_t left = deadline <= 0 ? 0 : deadline - arch::clock_now();
    if (left < 0) left = 0;
    ts.tv_sec = left / 1'000'000'000;
    ts.tv_nsec = left % 1'000'000'000;
    limit = &ts;
  }
  const int n = arch::kernel.epoll_pwait2(epfd_, evs, kBatch, limit);
  for (int i = 0; i < n; i++) {
    const int fd = static_cast<int>(evs[i].data.u64);
    if (fd == -1) {
      if (!sleeper) continue;  // it is for whoever sleeps here, and stays readable until it is seen
      std::uint64_t count;
      while (::read(eventfd_, &count, sizeof count) < 0 && errno == EINTR) {
      }
      break_pending_.exchange(0, memory_order_acq_rel);  // [poll-break] sees what a waker that skipped its write published
      continue;
    }
    Desc* d = desc(fd, false);
    if (!d) continue;
    const bool failed = evs[i].events & (EPOLLERR | EPOLLHUP);
    const bool hit[2] = {failed || (evs[i].events & (EPOLLIN | EPOLLRDHUP)), failed || (evs[i].events & EPOLLOUT)};
    d->lock.lock();
    // Fetched by another thread before the number was closed, reused and armed again: not for the waiter there now.
    if (d->armings != evs[i].data.u64 >> 32) {
      d->lock.unlock();
      continue;
    }
    for (int dir = 0; dir < 2; dir++) {
      if (!hit[dir]) continue;
      wake_all(d->queues[dir], ready);
    }
    // The direction that was not hit stays armed.
    if (!d->queues[0].empty() || !d->queues[1].empty()) {
      if (d->arm(epfd_, fd) != 0) {
        // Closed meanwhile: whoever still waits finds out by its next operation.
        for (int dir = 0; dir < 2; dir++) wake_all(d->queues[dir], ready);
      }
    }
    d->lock.unlock();
  }
  return ready.first != nullptr;
}

void Poller::wake() {
  if (!ok()) return;
  if (break_pending_.exchange(1, memory_order_acq_rel) != 0) return;  // [poll-break]
  const std::uint64_t one = 1;
  while (::write(eventfd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

}  // namespace weft::rt
