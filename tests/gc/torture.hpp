// Goroutines in every state, each of which keeps a chain of collected objects where only the adapter can find it, and looks at it
// again and again: an object that was collected too early has lost its number, since libgc clears what it gives out again.
#pragma once

#include <weft/gc_boehm.hpp>
#include <weft/gc_hook.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {

struct Node {
  Node* next = nullptr;
  std::uint64_t id = 0;
  std::uint64_t check = 0;
  std::uint64_t more[3] = {};
};

inline std::uint64_t mixed(std::uint64_t id, unsigned at) { return (id + 1) * 0x9e3779b97f4a7c15u ^ (at * 0x5bd1e995ull); }

/// `n` new nodes that carry `id`.
__attribute__((noinline)) inline Node* chain(std::uint64_t id, unsigned n) {
  Node* first = nullptr;
  for (unsigned i = 0; i < n; i++) {
    Node* fresh = gc::boehm::make<Node>();
    fresh->next = first;
    fresh->id = id;
    fresh->check = mixed(id, i);
    first = fresh;
  }
  return first;
}

/// False: it is not what chain() has made.
__attribute__((noinline)) inline bool whole(const Node* first, std::uint64_t id, unsigned n) {
  for (unsigned i = n; i-- > 0; first = first->next)
    if (!first || first->id != id || first->check != mixed(id, i)) return false;
  return first == nullptr;
}

struct Torture {
  static constexpr unsigned kLength = 12;

  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> checks{0}, premature{0}, ids{0};
  Chan<int> never = make_chan<int>();
  Mutex mu;

  void look(const Node* c, std::uint64_t id) {
    checks.fetch_add(1, std::memory_order_relaxed);
    if (!whole(c, id, kLength)) premature++;
  }

  /// A chain in the caller's frame over one step.
  template <class Step>
  void hold(Step step) {
    while (!stop) {
      const std::uint64_t id = ids++;
      Node* c = chain(id, kLength);
      for (int i = 0; i < 3 && !stop; i++) {
        step();
        look(c, id);
      }
    }
  }

  /// The chain is in the deepest frame only.
  template <class Step>
  __attribute__((noinline)) void hold_deep(unsigned frames, Step& step) {
    [[maybe_unused]] volatile char room[900];
    room[0] = 1;
    if (frames != 0) {
      hold_deep(frames - 1, step);
      room[1] = 2;
      return;
    }
    const std::uint64_t id = ids++;
    Node* c = chain(id, kLength);
    step();
    look(c, id);
  }

  /// Everything of one kind each, `copies` times. With `classes` on stacks of all sizes.
  void start(WaitGroup& wg, unsigned copies) {
    struct Large {  // travels in a box, and does not fit into a descriptor
      Node* c;
      std::uint64_t id;
      std::array<char, 5000> rest;
    };
    struct Job {
      Node* c;
      std::uint64_t id;
    };
    for (unsigned k = 0; k < copies; k++) {
      struct Kind {
        Stack stack;
        std::size_t bytes;
      };
      for (const auto [stack, bytes] : {Kind{Stack::Growable, 64 << 10}, Kind{Stack::Growable, 256 << 10}, Kind{Stack::Growable, 1 << 20},
                                        Kind{Stack::Growable, 4 << 20}, Kind{Stack::Copyable, 256 << 10}}) {
        auto spawn = [&, stack = stack, bytes = bytes](auto f) {
          wg.add(1);
          go({.stack = stack, .stack_bytes = bytes}, [&wg, f] {
            f();
            wg.done();
          });
        };
        if (stack == Stack::Copyable)  // more than there are slots, so that they are copied out and in
          for (int i = 0; i < 60; i++) spawn([this] { hold([] { sleep_for(std::chrono::milliseconds(2)); }); });
        spawn([this] { hold([] { yield(); }); });
        spawn([this] { hold([] { sleep_for(std::chrono::microseconds(300)); }); });
        spawn([this] {
          hold([this] {
            std::lock_guard<Mutex> l(mu);
            yield();
          });
        });
        spawn([this] { hold([] { blocking([] { std::this_thread::sleep_for(std::chrono::microseconds(200)); }); }); });
        spawn([this] {
          hold([] {
            SyscallRegion r;
            std::this_thread::sleep_for(std::chrono::microseconds(30));
          });
        });
        spawn([this, frames = static_cast<unsigned>(bytes / 4096)] {
          auto step = [] { yield(); };
          while (!stop) hold_deep(frames, step);
        });
        spawn([this] {  // select, and parked until the end of the round
          Chan<int> tick = make_chan<int>();
          hold([&] { select(recv(tick), recv(never), timeout(std::chrono::microseconds(200))); });
        });
      }
      // Hogs: computing on their chain, inside malloc, allocating.
      wg.go([this] {
        hold([this] {
          for (int i = 0; i < 2000 && !stop; i++) asm volatile("" ::: "memory");
        });
      });
      wg.go([this] {
        hold([] {
          for (int i = 0; i < 200; i++) std::free(std::malloc(64 + i));
        });
      });
      wg.go([this] {
        hold([] {
          for (int i = 0; i < 100; i++) chain(0, 1);
        });
      });
      // In flight: unbuffered, buffered, boxed; out of the sender's frame before anybody looks.
      pipe<Job>(wg, 0);
      pipe<Job>(wg, 64);
      auto boxes = make_chan<Large>(16);
      wg.go([this, boxes] {
        while (!stop) {
          const std::uint64_t id = ids++;
          if (!boxes.send_for(Large{chain(id, kLength), id, {}}, std::chrono::milliseconds(5))) continue;
        }
        boxes.close();
      });
      wg.go([this, boxes] {
        for (Large&& l : boxes) look(l.c, l.id);
      });
      // Closures, small and large, from one goroutine to the next.
      wg.go([this, &wg] { 
        const std::uint64_t id = ids++;
        relay(wg, chain(id, kLength), id);
      });
      // What the runtime keeps for others.
      wg.go([this] {
        while (!stop) {
          const std::uint64_t id = ids++;
          static const ContextKey<Node*> key{"chain"};
          Context ctx = with_value(background(), key, chain(id, kLength));
          sleep_for(std::chrono::microseconds(100));
          look(*ctx.value(key), id);
        }
      });
      wg.go([this] {
        while (!stop) {
          const std::uint64_t id = ids++;
          Node* c = await<Node*>([&](Resume<Node*> done) {
            go([done, id]() mutable { done(chain(id, kLength)), yield(); });
            yield();
          });
          look(c, id);
        }
      });
      wg.go([this] {
        SyncMap<std::uint64_t, Node*> map;
        Pool<Node*> pool;
        while (!stop) {
          const std::uint64_t id = ids++;
          map.store(id, chain(id, kLength));
          pool.put(chain(id, kLength));
          sleep_for(std::chrono::microseconds(100));
          look(*map.load_and_delete(id), id);
          if (Node* c = pool.get()) look(c, c->id);
        }
      });
      wg.go([this] {
        while (!stop) {
          const std::uint64_t id = ids++;
          auto done = make_chan<void>();
          struct Words {
            std::array<Node*, 20> c;
          } w{};
          w.c[19] = chain(id, kLength);
          Timer t = after_func(std::chrono::microseconds(200), [this, w, id, done] {
            look(w.c[19], id);
            done.close();
          });
          w = {};
          done.recv();
        }
      });
    }
  }

  template <class Job>
  void pipe(WaitGroup& wg, int cap) {
    auto jobs = make_chan<Job>(cap);
    wg.go([this, jobs] {
      while (!stop) {
        const std::uint64_t id = ids++;
        jobs.send_for(Job{chain(id, kLength), id}, std::chrono::milliseconds(5));
      }
      jobs.close();
    });
    wg.go([this, jobs] {
      for (Job j : jobs) look(j.c, j.id);
    });
  }

  void relay(WaitGroup& wg, Node* c, std::uint64_t id) {
    look(c, id);
    if (stop) return;
    const std::uint64_t next = ids++;
    Node* fresh = chain(next, kLength);
    if (next % 2 == 0) {
      wg.go([this, &wg, fresh, next] { relay(wg, fresh, next); });
    } else {
      std::array<Node*, 16> large{};
      large[15] = fresh;
      wg.go([this, &wg, large, next] { relay(wg, large[15], next); });
    }
  }
};

struct Verdict {
  std::uint64_t checks = 0, premature = 0, collections = 0;
  gc::PauseStats pauses;
  gc::boehm::HeapStats heap;
};

/// Runs it all for `seconds`, collecting all the time; ends early at the first object that was collected too early.
inline Verdict torture(int procs, std::chrono::milliseconds lasts, unsigned copies, Hibernate hibernate = Hibernate::Off) {
  Verdict v;
  run(
      [&] {
        Torture t;
        WaitGroup wg;
        t.start(wg, copies);
        const auto until = std::chrono::steady_clock::now() + lasts;
        // A thread that libgc knows and the runtime does not allocates and collects beside the goroutines.
        std::thread beside([&] {
          GC_stack_base_here([&] {
            while (!t.stop) {
              const std::uint64_t id = t.ids++;
              Node* c = chain(id, Torture::kLength);
              gc::boehm::collect();
              t.look(c, id);
              std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
          });
        });
        while (std::chrono::steady_clock::now() < until && t.premature == 0) {
          sleep_for(std::chrono::milliseconds(3));
          gc::boehm::collect();
        }
        t.stop = true;
        t.never.close();
        blocking([&] { beside.join(); });
        wg.wait();
        v.checks = t.checks;
        v.premature = t.premature;
      },
      {.procs = procs, .hibernate = hibernate, .hibernate_after = std::chrono::milliseconds(1), .use_env = false});
  gc::boehm::collect();
  gc::boehm::collect();
  v.pauses = gc::pause_stats();
  v.heap = gc::boehm::heap_stats();
  v.collections = v.heap.collections;
  return v;
}

}  // namespace weft::test
