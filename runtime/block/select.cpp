// select: the first of several operations.
//
// Protocol   1. Look at all cases without locks; of those that seem ready take one at random (or the first, prioritized), lock
//               its channel, do it. If it was not ready after all, the others that seemed so get their turn.
//            2. Nothing: lock all channels in order of address and look again. Now "none is ready" is true at one moment, so
//               `otherwise` may be chosen, or the caller queues a node per case and parks; the locks are released by the next
//               context, from a copy in the M: the G may run again after the first release, and its frame be gone with
//               the last.
//            3. Whoever wins the wait says which node fired. The caller takes the other nodes out, one lock at a time.
//            Descriptors and the timeout are armed in the commit as well: they may fire at once.
//
//              commit, on the M that it left    peer                              goes on, on another M
//              (context saved)
//              unlock B
//                                               lock B, takes its node, wins
//                                               unlock B, moves the element,
//                                               readies it
//                                                                                 lock A: its node there is queued yet
//              unlock A
//                                                                                 takes the node out, returns
//
//            (tests/model/select_test.cpp has all of its orders.)
// Invariant  A node is in the queue of a channel only while its G is in select_go(): whoever ends the wait takes out
//            the one that fires, the G the others, each under its channel's lock. So the G leaves after the last
//            release of its commit.
// Nodes      In the descriptor's array (a plain thread's in its own), never on the stack.
// Choice     Uniform among the ready ones: reservoir of size one over the ready set.
#include <weft/select.hpp>

#include <memory>

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <vector>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/chan.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/block/peer_cell.hpp"
#include "runtime/block/queue.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

using weft::detail::CaseKind;
using weft::detail::SelectCase;

constexpr int kInline = 16;
// The count in the descriptor has 16 bits, and a select of more is a loop over all of them each time.
constexpr int kCasesMax = 65'535;
static_assert(kCasesMax <= std::numeric_limits<decltype(G::nodes_count)>::max());

bool is_chan(const SelectCase& s) { return (s.kind == CaseKind::Recv || s.kind == CaseKind::Send) && s.chan; }

bool fd_ready_now(const SelectCase& s) {
  pollfd p{s.fd, static_cast<short>(s.io == Io::Read ? POLLIN | POLLRDHUP : POLLOUT), 0};
  return ::poll(&p, 1, 0) != 0;  // an error is for the operation that follows
}

bool maybe_ready(const SelectCase& s) {
  switch (s.kind) {
    case CaseKind::Recv: return s.chan && maybe_receivable(core_of(s.chan));
    case CaseKind::Send: return s.chan && maybe_sendable(core_of(s.chan));
    case CaseKind::Fd: return fd_ready_now(s);
    case CaseKind::Off:
    case CaseKind::Timeout:
    case CaseKind::Default: return false;
  }
  return false;
}

Rng& my_rng() {
  if (M* mp = current_m()) return mp->p ? mp->p->rng : mp->rng;
  static thread_local Rng rng = [] {  // a plain thread never switches
    Rng r;
    r.seed(sched.seed ^ reinterpret_cast<std::uintptr_t>(&r));
    return r;
  }();
  return rng;
}

/// Does case i, whose channel is locked; releases the lock if it happened.
Attempt attempt(SelectCase& s) {
  ChanCore* c = core_of(s.chan);
  if (s.kind == CaseKind::Send) return attempt_send(c, s.elem);
  const Attempt a = attempt_recv(c, s.elem);
  s.ok = a == Attempt::Done;
  return a;
}

// ---- a set of cases to choose from ---------------------------------------------------------------------------------

/// The ready ones so far, of which one is drawn at a time.
class ReadySet {
 public:
  /// Room for `n`: nothing is allocated later, under locks.
  ReadySet(bool prioritized, int n) : prioritized_(prioritized) {
    if (n > kInline) rest_.reserve(static_cast<std::size_t>(n - kInline));
  }
  void add(int i) {
    if (n_ < kInline)
      some_[n_++] = i;
    else
      rest_.push_back(i);
  }
  /// Removes one and returns it; -1: empty.
  int draw() {
    const int total = n_ + static_cast<int>(rest_.size());
    if (total == 0) return -1;
    const int k = prioritized_ || total == 1 ? 0 : static_cast<int>(my_rng().below(static_cast<std::uint32_t>(total)));
    int& at = k < n_ ? some_[k] : rest_[static_cast<std::size_t>(k - n_)];
    const int got = at;
    if (prioritized_) {  // keep the order
      if (!rest_.empty()) {
        std::copy(some_ + 1, some_ + n_, some_);
        some_[n_ - 1] = rest_.front();
        rest_.erase(rest_.begin());
      } else {
        std::copy(some_ + 1, some_ + n_, some_);
        n_--;
      }
    } else if (!rest_.empty()) {
      at = rest_.back();
      rest_.pop_back();
    } else {
      at = some_[--n_];
    }
    return got;
  }

 private:
  bool prioritized_;
  int n_ = 0;
  int some_[kInline];
  std::vector<int> rest_;
};

// ---- the channels' locks -------------------------------------------------------------------------------------------

/// The distinct channels of the cases, by address.
class LockSet {
 public:
  LockSet(const SelectCase* cases, int n) {
    ChanCore** end = n <= kInline ? some_ : (many_.resize(static_cast<std::size_t>(n)), many_.data());
    first_ = end;
    for (int i = 0; i < n; i++)
      if (is_chan(cases[i])) *end++ = core_of(cases[i].chan);
    std::sort(first_, end);
    last_ = std::unique(first_, end);
    repeats_ = last_ != end;
  }
  LockSet(const LockSet&) = delete;
  LockSet& operator=(const LockSet&) = delete;
  void lock() {
    for (ChanCore** c = first_; c != last_; c++) (*c)->lock.lock();
  }
  void unlock() { unlock_except(nullptr); }
  /// Whether a channel stands in several cases.
  bool repeats() const { return repeats_; }
  void unlock_except(const ChanCore* kept) {
    for (ChanCore** c = last_; c != first_;)
      if (*--c != kept) (*c)->lock.unlock();
  }
  void copy_to(std::vector<SpinLock*>& out) const {
    out.clear();
    for (ChanCore** c = first_; c != last_; c++) out.push_back(&(*c)->lock);
  }

 private:
  ChanCore* some_[kInline];
  std::vector<ChanCore*> many_;
  ChanCore** first_;
  ChanCore** last_;
  bool repeats_ = false;
};

// ---- parking -------------------------------------------------------------------------------------------------------

struct Wait {
  SelectCase* cases;
  int n;
  Waiter* w;
  WaitNode* nodes;  // one per case
  std::uint64_t ticket;
  std::int64_t deadline = kNever;
  bool has_fd = false;
  PeerCell* cells = nullptr;  // of a goroutine on a copyable stack: one per case
};

// In random order unless prioritized: of a channel's nodes in one queue the first is the one that fires.
void enqueue_all(Wait& wt, bool shuffle) {
  int order[kInline];
  shuffle = shuffle && wt.n > 1;
  const int start = shuffle && wt.n > kInline ? static_cast<int>(my_rng().below(static_cast<std::uint32_t>(wt.n))) : 0;
  if (shuffle && wt.n <= kInline) {
    for (int i = 0; i < wt.n; i++) {
      const int j = static_cast<int>(my_rng().below(static_cast<std::uint32_t>(i + 1)));
      order[i] = order[j];
      order[j] = i;
    }
  }
  for (int k = 0; k < wt.n; k++) {
    const int i = !shuffle ? k : wt.n <= kInline ? order[k] : (start + k) % wt.n;
    SelectCase& s = wt.cases[i];
    WaitNode* node = &wt.nodes[i];
    node->queue = nullptr;
    node->lock = nullptr;
    node->waiter = wt.w;
    node->ticket = wt.ticket;
    node->index = static_cast<std::uint32_t>(i);
    node->racy = true;
    node->success = false;
    node->elem = s.elem;
    if (is_chan(s)) {
      ChanCore* c = core_of(s.chan);
      if (WEFT_UNLIKELY(wt.cells != nullptr)) {
        wt.cells[i].use(wt.w->g(), s.elem, c->size, s.kind == CaseKind::Send);
        node->elem = wt.cells[i].get();
      }
      (s.kind == CaseKind::Send ? c->senders : c->receivers).push(node, &c->lock);
    }
  }
}

/// On the next context: now everything may end this wait.
void commit_select(M* mp, G* from, void* arg) {
  // After the first release the G may run and `arg`, in its frame, be gone: the timer first, then from the M's copy.
  const auto& wt = *static_cast<Wait*>(arg);
  if (wt.deadline != kNever) timer_arm(&from->timer);
  for (std::size_t i = mp->commit_locks.size(); i-- > 0;) mp->commit_locks[i]->unlock();
}

/// With descriptors, and in a task or scope (sched/cancel.hpp): arming is a kernel call that may fail, and any of them may fire before the next is armed. The G's guard
/// keeps its frame and nodes alive until all is done.
void arm_fds(Wait& wt) {
  for (int i = 0; i < wt.n; i++) {
    const SelectCase& s = wt.cases[i];
    if (s.kind != CaseKind::Fd) continue;
    if (sched.poller.arm(s.fd, s.io == Io::Write, &wt.nodes[i]) == 0) continue;
    // One that the poller refuses counts as ready: the operation that follows tells why.
    if (wt.w->try_win(wt.ticket, Outcome::Wake)) {
      wt.w->fired = static_cast<std::uint32_t>(i);
      wt.nodes[i].success = true;
      wake_waiter(wt.w);
    }
    return;
  }
}

void commit_select_guarded(M* mp, G* from, void* arg) {
  auto& wt = *static_cast<Wait*>(arg);
  for (std::size_t i = mp->commit_locks.size(); i-- > 0;) mp->commit_locks[i]->unlock();
  if (wt.has_fd) arm_fds(wt);
  if (wt.deadline != kNever) timer_arm(&from->timer);
  end_guarded_commit(from);
}

/// Takes what has not fired out of its queues.
void leave_all(Wait& wt) {
  for (int i = 0; i < wt.n; i++) {
    WaitNode* node = &wt.nodes[i];
    if (static_cast<std::uint32_t>(i) == wt.w->fired || !node->lock) continue;
    if (wt.cases[i].kind == CaseKind::Fd) {
      sched.poller.disarm(node);
      continue;
    }
    node->lock->lock();
    if (node->queue) node->queue->remove(node);
    node->lock->unlock();
  }
}

Outcome park_g(Wait& wt, LockSet& locks, WaitReason reason) {
  M* mp = current_m();
  G* gp = mp->curg;
  gp->select_ = true;
  locks.copy_to(mp->commit_locks);
  if (wt.deadline != kNever) {
    set_timeout(gp, wt.ticket, wt.deadline);
  }
  if (wt.has_fd || gp->domain) {
    gp->guard.lock();
    park_call(mp, reason, gp, commit_select_guarded, &wt);
    gp->guard.lock();  // its commit may still be at work on another thread
    gp->guard.unlock();
    pass_canceller(gp);
  } else {
    park_call(mp, reason, gp, commit_select, &wt);
  }
  if (wt.deadline != kNever) timer_remove(&gp->timer);
  leave_all(wt);
  gp->nodes_count = 0;
  gp->select_ = false;
  const Outcome o = wt.w->outcome();
  if (WEFT_UNLIKELY(o == Outcome::Stop)) unwind_current(true);
  return o;
}

Outcome block_thread(Wait& wt, LockSet& locks) {
  locks.unlock();
  if (wt.has_fd) {
    if (!sched.poller.ok()) fatalf("weft: select on a descriptor while no runtime runs");
    arm_fds(wt);
    wake_one();  // somebody must sleep in the poller
  }
  if (wt.deadline == kNever) {
    wt.w->note.sleep();
  } else if (!wt.w->note.sleep_until(wt.deadline)) {
    if (!wt.w->try_win(wt.ticket, Outcome::Timeout)) wt.w->note.sleep();
  }
  leave_all(wt);
  return wt.w->outcome();
}

}  // namespace
}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

int select_go(SelectCase* cases, int n, bool prioritized) {
  SCHED_POINT("select");
  if (WEFT_UNLIKELY(n > kCasesMax)) panic_runtime("select: too many cases (max 65535)");
  Inside inside;
  int otherwise = -1, timeout = -1;
  std::int64_t deadline = kNever;
  bool has_fd = false, has_any = false;
  Outside outside(inside.m);
  // 1. without locks
  ReadySet ready(prioritized, n);
  for (int i = 0; i < n; i++) {
    const SelectCase& s = cases[i];
    if (s.kind == CaseKind::Default) {
      otherwise = i;
    } else if (s.kind == CaseKind::Timeout) {
      if (timeout < 0 || s.deadline < deadline) deadline = timed(s.deadline), timeout = i;
    } else {
      has_fd |= s.kind == CaseKind::Fd;
      has_any |= s.kind == CaseKind::Fd || is_chan(s);
      if (maybe_ready(s)) ready.add(i);
    }
  }
  for (int i; (i = ready.draw()) >= 0;) {
    if (cases[i].kind == CaseKind::Fd) return i;
    ChanCore* c = core_of(cases[i].chan);
    c->lock.lock();
    const Attempt a = attempt(cases[i]);
    if (a == Attempt::Closed && cases[i].kind == CaseKind::Send) panic_runtime("send on closed channel");
    if (a != Attempt::WouldBlock) return i;
    c->lock.unlock();
  }
  if (!has_any) {
    if (otherwise >= 0) return otherwise;
    if (timeout >= 0) {
      outside.leave();
      must_not_be_canceled(rt::sleep_until(deadline));
      return timeout;
    }
  }

  // 2. all locks: now "none is ready" is true at one moment
  G* const gp = current_g();
  WaitNode* const nodes = nodes_for(gp, static_cast<std::uint32_t>(n));  // may allocate: not under locks
  if (M* mp = gp ? current_m() : nullptr) mp->commit_locks.reserve(static_cast<std::size_t>(n));
  std::unique_ptr<PeerCell[]> cells;
  if (WEFT_UNLIKELY(gp && gp->started != kStarted) && is_copyable(gp)) cells.reset(new PeerCell[static_cast<std::size_t>(n)]);
  LockSet locks(cases, n);
  ReadySet sure(prioritized, n);
  locks.lock();
  for (int i = 0; i < n; i++)
    if (is_chan(cases[i]) && maybe_ready(cases[i])) sure.add(i);
  for (int i; (i = sure.draw()) >= 0;) {
    ChanCore* c = core_of(cases[i].chan);
    // A parked peer may lose its wait to its own timeout while we look: then this case is not ready after all.
    const Attempt a = attempt(cases[i]);
    if (a == Attempt::WouldBlock) continue;
    locks.unlock_except(c);
    if (a == Attempt::Closed && cases[i].kind == CaseKind::Send) panic_runtime("send on closed channel");
    return i;
  }
  if (otherwise >= 0 || (timeout >= 0 && deadline <= arch::clock_now())) {
    locks.unlock();
    return otherwise >= 0 ? otherwise : timeout;
  }

  // 3. park
  outside.leave();
  if (gp) gp->nodes_count = static_cast<std::uint16_t>(n);
  Wait wt{.cases = cases, .n = n, .w = my_waiter(), .nodes = nodes, .ticket = 0, .deadline = deadline, .has_fd = has_fd, .cells = cells.get()};
  wt.ticket = wt.w->begin();
  enqueue_all(wt, !prioritized && locks.repeats());
  const Outcome o = gp ? park_g(wt, locks, has_any ? WaitReason::Select : WaitReason::SelectNoCases) : block_thread(wt, locks);
  if (o == Outcome::Timeout) return timeout;
  must_not_be_canceled(o);
  const int i = static_cast<int>(wt.w->fired);
  if (WEFT_UNLIKELY(cells != nullptr)) cells[static_cast<std::size_t>(i)].arrived(wt.nodes[i].success);
  if (cases[i].kind == CaseKind::Recv) cases[i].ok = wt.nodes[i].success;
  if (cases[i].kind == CaseKind::Send && !wt.nodes[i].success) panic_runtime("send on closed channel");
  return i;
}

}  // namespace weft::detail

namespace weft {

void select() {
  detail::select_go(nullptr, 0, false);
  __builtin_unreachable();
}

}  // namespace weft
