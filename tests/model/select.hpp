// The runtime's select and channels on the model's atomics, for select_test.cpp, which says what they keep.
//
// The functions mirror select_go() with attempt(), enqueue_all(), commit_select(), commit_select_guarded(),
// leave_all(), park_g() and block_thread() of block/select.cpp; attempt_send_inline(), attempt_recv_inline() and
// chan_close() of block/chan.cpp; landed(), end_guarded_commit() and cancel_runner() as in cancel_test.cpp. The win
// word and take_winner() are the runtime's own (core/waiter.hpp). A goroutine that is readied goes on in a thread of
// its own: the M that takes it. Plain operations are those of plain threads. Nodes, frames and cells are Plain:
// touching one that its owner uses again is a race.
#pragma once

#include <array>
#include <utility>

#include "tests/model/mutants.hpp"
#include "tests/model/queue.hpp"

namespace weft::model {

using rt::Outcome;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

struct Goroutine;
struct Node;
using Queue = WaitQueue<Node>;

constexpr std::uint32_t kNone = 0xffffffff;

struct Waiter : rt::WinWord<Waiter> {
  Atomic<std::uint64_t> word{0};
  Atomic<std::uint32_t> note{0};
  Field<std::uint32_t> fired{kNone};
  Goroutine* g = nullptr;
};

struct Node {
  Field<Node*> next;
  Field<Node*> prev;
  Waiter* waiter = nullptr;
  Field<Queue*> queue;
  Field<Lock*> lock;
  Field<Field<int>*> elem;
  Field<std::uint64_t> ticket;
  Field<std::uint32_t> index;
  Field<bool> racy;
  Field<bool> success;
};

/// Unbuffered, or with room for one.
struct Chan {
  explicit Chan(std::size_t room = 0) : cap(room) {}
  const std::size_t cap;
  Lock lock;
  Atomic<bool> closed{false};
  Atomic<std::size_t> count{0};
  Field<int> buffer;
  Queue receivers, senders;
  Plain<int> memory;  // written when it is freed
};

struct Operand {
  bool send = false;
  Chan* c = nullptr;
  Field<int> elem;
  bool ok = false;
};

enum : int { kNotYet = -1, kTimedOut = -2, kCanceled = -3, kPanicked = -4 };

struct Goroutine {
  static constexpr int kCases = 2;
  Waiter w;
  Node node[kCases];
  Operand cases[kCases];
  bool timed = false;
  bool domain = false;
  bool frees = false;  // holds the last handles
  int result = kNotYet;
  int went_on = 0;
  Plain<int> ctx;
  Plain<int> frame;  // the Wait and the cases
  Plain<int> timer;
  Lock guard;
};

enum class Step {
  Real,
  NoSecondLook,      // parks on what the first look said
  LocksInOrder,      // of its cases
  UnlocksUnsaved,    // the locks go before the context is saved
  UnlocksFromFrame,  // the commit reads the locks from the frame
  ArmsLate,          // the timer is armed after the first unlock, without the guard
  LeavesUnlocked,    // takes its nodes out without their locks
  LeavesNone,        // leaves them there
  PopsUnwon,         // a peer takes a node without winning
  MovesLate,         // the element moves after the peer is readied
  WakesUnlocked,     // success and fired are written after the peer is readied
  ClosesLate,        // close() reads the next waiter after it has readied one
  ClosesUnwon,       // close() readies who has another outcome by then
  KeepsOthers,       // a hit under all locks keeps the others
  NoGuard,           // the commit of a guarded wait holds nothing
  NoLookInCommit,    // the commit does not look whether it is cancelled
  NoPass,            // who goes on does not wait for a canceller
  ThreadRunsOff,     // a thread whose time is up does not wait for who has won
};

class Select : public Stepped<Step> {
 public:
  using Stepped::Stepped;

  void after(bool) override {
    for (int i = 0; i < kThreadsMax; i++) check(!busy_[i], "a thread sleeps on a lock for ever");
    for (int v = 1; v < kValues; v++) {
      check(got_[v] <= 1, "a value was received twice");
      check(!sent_[v] || got_[v] == 1, "a value was sent and nobody has it");
      check(!got_[v] || sent_[v], "a value was received, and its sender does not know");
    }
    for (Chan* c : {&a_, &b_})
      check(!(c->cap == 0 && c->receivers.first.final() && c->senders.first.final()) || own(c),
            "a sender and a receiver sleep beside each other");
  }

 protected:
  static constexpr int kValues = 8;

  static void operands(Goroutine& g, int i, bool send, Chan& c, int v = 0) {
    g.cases[i].send = send;
    g.cases[i].c = &c;
    g.cases[i].elem = v;
  }

  // --- what a thread does ---

  /// The selecting goroutine's M, until it parks or is through.
  void select(int self, Goroutine& g) {
    busy_[self] = true;
    g.w.g = &g;
    g.frame.set(1);
    if (!select_go(self, g, nullptr)) park_g(g);
    busy_[self] = false;
  }
  /// The M that takes it when it is readied.
  void runs(int self) {
    Goroutine* g = runnable_.sleep_while(nullptr, memory_order_acquire);
    busy_[self] = true;
    goes_on(*g);
    busy_[self] = false;
  }
  void select_on_thread(int self, Goroutine& g) {
    busy_[self] = true;
    if (!select_go(self, g, &self)) block_thread(self, g);
    busy_[self] = false;
  }

  void send(int self, Chan& c, int v) {
    busy_[self] = true;
    cell_[self] = v;
    c.lock.lock();
    const Attempt a = attempt_send(c, cell_[self]);
    bool done = a == Attempt::Done;
    if (a == Attempt::WouldBlock) done = waits_in(self, c, c.senders);
    if (done) sent_[v] = true;
    busy_[self] = false;
  }
  void recv(int self, Chan& c) {
    busy_[self] = true;
    c.lock.lock();
    const Attempt a = attempt_recv(c, cell_[self]);
    bool done = a == Attempt::Done;
    if (a == Attempt::WouldBlock) done = waits_in(self, c, c.receivers);
    if (done) got_[cell_[self]]++;
    busy_[self] = false;
  }

  void close(int self, Chan& c) {
    busy_[self] = true;
    c.lock.lock();
    c.closed.store(true, memory_order_release);
    Node* all = nullptr;
    Node* end = nullptr;
    for (Queue* q : {&c.receivers, &c.senders})
      while (Node* n = pop(*q, Outcome::Close)) {
        n->success = false;
        n->next = nullptr;
        if (end)
          end->next = n;
        else
          all = n;
        end = n;
      }
    c.lock.unlock();
    while (all) {
      Node* n = all;
      if (step_ != Step::ClosesLate) all = n->next;
      wake(n->waiter);
      if (step_ == Step::ClosesLate) all = n->next;
    }
    busy_[self] = false;
  }

  void fire_timeout(int self, Goroutine& g) {
    if (armed_.load(memory_order_acquire) == 0) return;  // the heap's lock
    busy_[self] = true;
    if (g.w.try_win(armed_ticket_, Outcome::Timeout)) wake(&g.w);
    busy_[self] = false;
  }

  void cancel(int self, Goroutine& g) {
    busy_[self] = true;
    domain_lock_.lock();
    byte_.store(1, memory_order_relaxed);
    domain_lock_.unlock();
    publish_fence();  // membarrier
    domain_lock_.lock();
    bool won = false;
    if (status_.load(memory_order_acquire) == kWaiting) {
      (void)static_cast<bool>(g.node[0].racy);
      g.guard.lock();
      won = win_guarded(g);
      g.guard.unlock();
    }
    domain_lock_.unlock();
    if (won) wake(&g.w);
    busy_[self] = false;
  }

  Chan a_{0}, b_{0};
  Goroutine g_;
  int got_[kValues] = {};
  bool sent_[kValues] = {};
  bool looks_ = true;  // does the first look, without locks
  Field<int> cell_[kThreadsMax];
  Node own_[kThreadsMax];
  Waiter thread_[2];  // of the plain threads 1 and 2
  bool busy_[kThreadsMax] = {};
  Atomic<Goroutine*> runnable_{nullptr};

 private:
  enum class Attempt { Done, Closed, WouldBlock };
  static constexpr int kWaiting = 1, kRunning = 2;

  static bool own(Chan* c) {
    const Node* r = c->receivers.first.final();
    return r->waiter == c->senders.first.final()->waiter;
  }

  // --- block/chan.cpp ---

  Node* pop(Queue& q, Outcome how) {
    if (step_ == Step::PopsUnwon || (step_ == Step::ClosesUnwon && how == Outcome::Close)) {
      Node* n = peek(q.first);
      if (!n) return nullptr;
      q.remove(n);
      n->waiter->try_win(n->ticket, how);
      n->waiter->fired = n->index;
      return n;
    }
    return rt::take_winner(q, how);
  }

  void wake(Waiter* w) {
    if (!w->g) {
      w->note.exchange(1, memory_order_release);
      return;
    }
    check(w->g->went_on++ == 0, "a goroutine is readied twice");
    runnable_.store(w->g, memory_order_release);  // runnext, or the global queue
  }

  Attempt attempt_send(Chan& c, Field<int>& elem) {
    if (peek(c.closed)) {
      c.lock.unlock();
      return Attempt::Closed;
    }
    if (Node* n = pop(c.receivers, Outcome::Wake)) {
      if (step_ != Step::WakesUnlocked) n->success = true;
      c.lock.unlock();
      Field<int>* to = n->elem;
      if (step_ != Step::MovesLate) *to = elem;
      wake(n->waiter);
      if (step_ == Step::MovesLate) *to = elem;
      if (step_ == Step::WakesUnlocked) n->success = true;
      return Attempt::Done;
    }
    const std::size_t count = peek(c.count);
    if (count < c.cap) {
      c.buffer = elem;
      c.count.store(count + 1, memory_order_relaxed);
      c.lock.unlock();
      return Attempt::Done;
    }
    return Attempt::WouldBlock;
  }

  Attempt attempt_recv(Chan& c, Field<int>& elem) {
    const std::size_t count = peek(c.count);
    if (count != 0) {
      elem = c.buffer;
      if (Node* n = peek(c.senders.first) == nullptr ? nullptr : pop(c.senders, Outcome::Wake)) {
        c.buffer = *n->elem;
        n->success = true;
        c.lock.unlock();
        wake(n->waiter);
        return Attempt::Done;
      }
      c.count.store(count - 1, memory_order_relaxed);
      c.lock.unlock();
      return Attempt::Done;
    }
    if (Node* n = pop(c.senders, Outcome::Wake)) {
      n->success = true;
      c.lock.unlock();
      Field<int>* from = n->elem;
      if (step_ != Step::MovesLate) elem = *from;
      wake(n->waiter);
      if (step_ == Step::MovesLate) elem = *from;
      return Attempt::Done;
    }
    if (peek(c.closed)) {
      c.lock.unlock();
      return Attempt::Closed;
    }
    return Attempt::WouldBlock;
  }

  bool waits_in(int self, Chan& c, Queue& q) {
    Node* n = &own_[self];
    Waiter* w = &thread_[self - 1];
    n->ticket = w->next_ticket();
    n->waiter = w;
    n->elem = &cell_[self];
    n->success = false;
    n->racy = false;
    n->lock = &c.lock;
    q.push(n);
    c.lock.unlock();
    busy_[self] = false;
    w->note.sleep_while(0, memory_order_acquire);
    busy_[self] = true;
    const Outcome o = w->outcome();
    check(o == Outcome::Wake || o == Outcome::Close, "a wait of a channel ends by nobody");
    check(n->success == (o == Outcome::Wake), "a wait of a channel does not say how it ended");
    n->next = nullptr;  // the next wait
    n->queue = nullptr;
    return o == Outcome::Wake;
  }

  // --- block/select.cpp ---

  static bool maybe_ready(const Operand& s) {
    const Chan& c = *s.c;
    if (s.send) return peek(c.closed) || peek(c.receivers.first) || peek(c.count) < c.cap;
    return peek(c.count) != 0 || peek(c.senders.first) || peek(c.closed);
  }

  Attempt attempt(Operand& s) {
    if (s.send) return attempt_send(*s.c, s.elem);
    const Attempt a = attempt_recv(*s.c, s.elem);
    s.ok = a == Attempt::Done;
    return a;
  }

  /// Which of the ready ones: any.
  static int draw(bool (&ready)[Goroutine::kCases]) {
    int some[Goroutine::kCases];
    int n = 0;
    for (int i = 0; i < Goroutine::kCases; i++)
      if (ready[i]) some[n++] = i;
    if (n == 0) return -1;
    const int i = some[choose(n)];
    ready[i] = false;
    return i;
  }

  std::array<Chan*, 2> lock_set(const Goroutine& g) const {
    std::array<Chan*, 2> set{g.cases[0].c, g.cases[1].c};
    if (step_ != Step::LocksInOrder && set[1] < set[0]) std::swap(set[0], set[1]);
    if (set[1] == set[0]) set[1] = nullptr;
    return set;
  }
  static void unlock_except(const std::array<Chan*, 2>& set, const Chan* kept) {
    for (std::size_t i = set.size(); i-- > 0;)
      if (set[i] && set[i] != kept) set[i]->lock.unlock();
  }

  /// True: through. Else its nodes are queued, and it holds all locks.
  bool select_go(int self, Goroutine& g, const int* thread) {
    bool ready[Goroutine::kCases];
    for (int i = 0; i < Goroutine::kCases; i++) ready[i] = looks_ && maybe_ready(g.cases[i]);
    for (int i; (i = draw(ready)) >= 0;) {
      g.cases[i].c->lock.lock();
      const Attempt a = attempt(g.cases[i]);
      if (a != Attempt::WouldBlock) return through(g, i, a);
      g.cases[i].c->lock.unlock();
    }
    const auto set = lock_set(g);
    for (Chan* c : set)
      if (c) c->lock.lock();
    if (step_ != Step::NoSecondLook) {
      for (int i = 0; i < Goroutine::kCases; i++) ready[i] = maybe_ready(g.cases[i]);
      for (int i; (i = draw(ready)) >= 0;) {
        Chan* c = g.cases[i].c;
        const Attempt a = attempt(g.cases[i]);
        if (a == Attempt::WouldBlock) continue;
        if (step_ != Step::KeepsOthers) unlock_except(set, c);
        return through(g, i, a);
      }
    }
    Waiter* w = thread ? &thread_[self - 1] : &g.w;
    const std::uint64_t ticket = w->next_ticket();
    w->fired = kNone;
    for (int i = 0; i < Goroutine::kCases; i++) {
      Node* n = &g.node[i];
      n->queue = nullptr;
      n->waiter = w;
      n->ticket = ticket;
      n->index = static_cast<std::uint32_t>(i);
      n->racy = true;
      n->success = false;
      n->elem = &g.cases[i].elem;
      n->lock = &g.cases[i].c->lock;
      (g.cases[i].send ? g.cases[i].c->senders : g.cases[i].c->receivers).push(n);
    }
    return false;
  }

  bool through(Goroutine& g, int i, Attempt a) {
    if (a == Attempt::Done) {
      if (g.cases[i].send)
        sent_[g.cases[i].elem] = true;
      else
        got_[g.cases[i].elem]++;
    }
    g.result = a == Attempt::Closed && g.cases[i].send ? kPanicked : i;
    return true;
  }

  void arm(Goroutine& g) {
    g.timer.set(1);
    armed_ticket_ = g.w.word.final() >> 3;
    armed_.store(1, memory_order_release);
  }

  bool win_guarded(Goroutine& g) {
    const std::uint64_t word = peek(g.w.word);
    return (word & 7) == 0 && g.w.try_win(word >> 3, Outcome::Cancel);
  }

  // park_g() up to the switch, and landed() on the next context.
  void park_g(Goroutine& g) {
    const auto copy = lock_set(g);
    const bool guarded = g.domain;
    const bool timed = g.timed;
    if (guarded && step_ != Step::NoGuard) g.guard.lock();
    if (guarded) status_.store(kWaiting, memory_order_release);
    if (step_ == Step::UnlocksUnsaved) unlock_except(copy, nullptr);
    g.ctx.set(1);  // from->ctx = t.from
    g.frame.get();
    if (!guarded) {
      if (timed && step_ != Step::ArmsLate) arm(g);
      for (std::size_t i = copy.size(); i-- > 0;) {
        if (!copy[i] || step_ == Step::UnlocksUnsaved) continue;
        copy[i]->memory.get();
        copy[i]->lock.unlock();
        if (step_ == Step::UnlocksFromFrame) g.frame.get();  // is there another?
        if (timed && step_ == Step::ArmsLate && i == 1) arm(g);
      }
      return;
    }
    publish_fence();  // the canceller's membarrier
    unlock_except(copy, nullptr);
    g.frame.get();
    if (timed) arm(g);
    bool won = false;
    if (step_ != Step::NoLookInCommit && peek(byte_) != 0) won = win_guarded(g);
    if (step_ != Step::NoGuard) g.guard.unlock();
    if (won) wake(&g.w);
  }

  // The rest of park_g() and of select_go().
  void goes_on(Goroutine& g) {
    check(g.ctx.get() == 1, "a goroutine goes on before its context is saved");
    g.ctx.set(2);
    if (g.domain) {
      status_.store(kRunning, memory_order_release);
      publish_fence();
      g.guard.lock();
      g.guard.unlock();
      if (step_ != Step::NoPass && peek(byte_) != 0) {
        domain_lock_.lock();
        domain_lock_.unlock();
      }
    }
    if (g.timed) g.timer.set(0);
    leave_all(g, g.w);
    ends(g, g.w);
    if (g.frees) a_.memory.set(1), b_.memory.set(1);
  }

  void leave_all(Goroutine& g, Waiter& w) {
    if (step_ == Step::LeavesNone) return;
    for (int i = 0; i < Goroutine::kCases; i++) {
      Node* n = &g.node[i];
      if (static_cast<std::uint32_t>(i) == w.fired) continue;
      Lock* lock = n->lock;
      if (step_ != Step::LeavesUnlocked) lock->lock();
      Queue* q = n->queue;
      if (q) q->remove(n);
      if (step_ != Step::LeavesUnlocked) lock->unlock();
    }
  }

  void ends(Goroutine& g, Waiter& w) {
    const Outcome o = w.outcome();
    check(o != Outcome::Pending, "a select goes on and nobody has ended its wait");
    if (o == Outcome::Timeout || o == Outcome::Cancel) {
      g.result = o == Outcome::Timeout ? kTimedOut : kCanceled;
    } else {
      const auto i = static_cast<int>(static_cast<std::uint32_t>(w.fired));
      check(i >= 0 && i < Goroutine::kCases, "a select was woken for none of its cases");
      Operand& s = g.cases[i];
      s.ok = g.node[i].success;
      check(s.ok == (o == Outcome::Wake), "a case does not say whether it happened");
      g.result = s.send && !s.ok ? kPanicked : i;
      if (s.ok && s.send) sent_[s.elem] = true;
      if (s.ok && !s.send) got_[s.elem]++;
    }
    for (Chan* c : {g.cases[0].c, g.cases[1].c})
      for (Queue* q : {&c->receivers, &c->senders})
        for (const Node& n : g.node) check(q->first.final() != &n, "a node is left in the queue of a channel");
    // The frame is another's; the next wait.
    g.frame.set(0);
    for (int i = 0; i < Goroutine::kCases; i++) {
      g.cases[i].elem = 0;
      Node& n = g.node[i];
      n.queue = nullptr;
      n.elem = nullptr;
      n.ticket = 0;
      n.racy = true;
      n.success = false;
    }
    w.fired = kNone;
  }

  void block_thread(int self, Goroutine& g) {
    Waiter& w = thread_[self - 1];
    unlock_except(lock_set(g), nullptr);
    busy_[self] = false;
    if (g.timed && choose(2)) {
      if (!w.try_win(peek(w.word) >> 3, Outcome::Timeout) && step_ != Step::ThreadRunsOff)
        w.note.sleep_while(0, memory_order_acquire);
    } else {
      w.note.sleep_while(0, memory_order_acquire, g.timed);
    }
    busy_[self] = true;
    leave_all(g, w);
    ends(g, w);
  }

  Lock domain_lock_;
  Atomic<int> byte_{0};
  Atomic<int> status_{kRunning};
  Atomic<int> armed_{0};
  std::uint64_t armed_ticket_ = 0;
};

}  // namespace weft::model
