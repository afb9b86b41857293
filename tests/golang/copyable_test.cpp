// Goroutines on copyable stacks: what they do like all others, and what they may not.
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/internals.hpp"
#include "tests/support/migrate.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

const Spawn kCopyable{.stack = Stack::Copyable};

/// How many goroutines are parked for `why` now.
std::size_t parked_in(rt::WaitReason why) {
  struct Count {
    rt::WaitReason why;
    std::size_t n = 0;
  } count{why};
  rt::g_table_each(
      [](rt::G* gp, void* arg) {
        auto* c = static_cast<Count*>(arg);
        if (gp->status.load(std::memory_order_acquire) == rt::GStatus::Waiting && gp->reason == c->why) c->n++;
      },
      &count);
  return count.n;
}

/// Bytes in a frame that must be as they were, whoever lies on the slot meanwhile.
struct Marked {
  explicit Marked(std::uint64_t seed) {
    for (std::size_t i = 0; i < kWords; i++) words[i] = seed * 31 + i;
    self = words;
  }
  bool intact(std::uint64_t seed) const {
    if (self != words) return false;
    for (std::size_t i = 0; i < kWords; i++)
      if (words[i] != seed * 31 + i) return false;
    return true;
  }
  static constexpr std::size_t kWords = 40;
  volatile std::uint64_t words[kWords];
  const volatile std::uint64_t* self;
};

TEST(Copyable, KeepsItsFramesAcrossEveryKindOfWait) {
  each_run([] {
    constexpr int kMany = 500;
    auto wg = std::make_shared<WaitGroup>();
    auto mu = std::make_shared<Mutex>();
    auto c = make_chan<std::string>();
    auto back = make_chan<std::uint64_t>(3);
    std::atomic<int> intact{0};
    for (std::uint64_t i = 0; i < kMany; i++) {
      wg->add(1);
      go(kCopyable, [=, &intact] {
        Marked m(i);
        c.send(std::to_string(i));
        yield();
        {
          std::lock_guard l(*mu);
          yield();
        }
        sleep_for(std::chrono::microseconds(i % 50));
        std::optional<std::uint64_t> v;
        select(recv(back, v), timeout(10s));
        if (v && m.intact(i)) intact++;
        wg->done();
      });
    }
    std::uint64_t sum = 0;
    for (int i = 0; i < kMany; i++) sum += std::stoull(*c.recv());
    EXPECT_EQ(sum, kMany * (kMany - 1) / 2);
    for (int i = 0; i < kMany; i++) back.send(7);
    wg->wait();
    EXPECT_EQ(intact.load(), kMany);
  });
}

TEST(Copyable, ElementsArriveWhereverTheStackIs) {
  each_run([] {
    struct Large {
      std::uint64_t a[20];
    };
    auto in = make_chan<Large>();
    auto out = make_chan<std::unique_ptr<int>>();
    constexpr int kMany = 300;
    for (int i = 0; i < kMany; i++)
      go(kCopyable, [=] {
        std::optional<Large> v = in.recv();  // all parked before the first comes
        out.send(std::make_unique<int>(static_cast<int>(v->a[19])));
      });
    for (int i = 0; i < kMany; i++) {
      Large v{};
      v.a[19] = static_cast<std::uint64_t>(i);
      in.send(v);
    }
    long sum = 0;
    for (int i = 0; i < kMany; i++) sum += **out.recv();
    EXPECT_EQ(sum, kMany * (kMany - 1) / 2);
  });
}

TEST(Copyable, AnElementThatIsNotTakenStaysItsSenders) {
  each_run([] {
    auto never = make_chan<std::unique_ptr<int>>();
    auto done = make_chan<bool>();
    for (int i = 0; i < 100; i++)
      go(kCopyable, [=] {
        auto p = std::make_unique<int>(i);
        const bool sent = never.send_for(std::move(p), 1ms);
        done.send(!sent && p && *p == i);
      });
    for (int i = 0; i < 100; i++) EXPECT_TRUE(*done.recv());
  });
}

TEST(Copyable, ExceptionsAndDefersSurviveCopying) {
  each_run([] {
    auto done = make_chan<int>();
    constexpr int kMany = 200;
    for (int i = 0; i < kMany; i++)
      go(kCopyable, [=] {
        int got = 0;
        func([&](Frame<>& f) {
          f.defer([&] {
            yield();
            if (auto p = f.recover()) got += *p->value<int>();
          });
          try {
            yield();
            throw std::runtime_error(std::to_string(i));
          } catch (const std::runtime_error& e) {
            yield();
            panic(std::stoi(e.what()));
          }
        });
        done.send(got);
      });
    int sum = 0;
    for (int i = 0; i < kMany; i++) sum += *done.recv();
    EXPECT_EQ(sum, kMany * (kMany - 1) / 2);
  });
}

TEST(Copyable, WaitsForDescriptorsAndBlocksInCalls) {
  each_run([] {
    constexpr int kPairs = 20;
    auto done = make_chan<bool>();
    std::vector<int> ends;
    for (int i = 0; i < kPairs; i++) {
      int fds[2];
      ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
      go(kCopyable, [=] {
        Marked m(static_cast<std::uint64_t>(i));
        char got[16] = "";
        bool ok = !wait_fd(fds[0], Io::Read);
        ok = ok && ::read(fds[0], got, sizeof got) == 5 && std::strcmp(got, "hello") == 0;
        blocking([] { ::usleep(100); });
        done.send(ok && m.intact(static_cast<std::uint64_t>(i)));
        ::close(fds[0]);
      });
      ends.push_back(fds[1]);
    }
    for (int i = 0; i < 5; i++) yield();
    for (int fd : ends) EXPECT_EQ(::write(fd, "hello", 5), 5);
    for (int i = 0; i < kPairs; i++) EXPECT_TRUE(*done.recv());
    for (int fd : ends) ::close(fd);
  });
}

TEST(Copyable, WaitingOnAnObjectOnItsOwnStackIsAPanic) {
  each_run([] {
    auto said = make_chan<std::string>();
    auto none = make_chan<void>();
    go(kCopyable, [=] {
      std::string text;
      text += panic_of([] {
        WaitGroup wg;
        wg.add(1);
        Defer done{[&] { wg.done(); }};
        wg.wait();
      });
      text += panic_of([] {
        Mutex mu;
        Cond cv;
        std::unique_lock l(mu);
        cv.wait(l);
      });
      text += panic_of([] {
        Semaphore s(0);
        s.acquire();
      });
      said.send(text);
    });
    const std::string text = *said.recv();
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find("on its own copyable stack", at)) != std::string::npos; at++) n++;
    EXPECT_EQ(n, 3u) << text;
  });
}

TEST(Copyable, LockedToAThreadAndPreempted) {
  each_run([] {
    auto done = make_chan<bool>();
    for (int i = 0; i < 10; i++)
      go(kCopyable, [=] {
        Marked m(static_cast<std::uint64_t>(i));
        lock_os_thread();
        const pid_t here = thread_now();
        bool ok = true;
        for (int k = 0; k < 20; k++) {
          yield();
          ok = ok && thread_now() == here;
        }
        unlock_os_thread();
        for (int k = 0; k < 20; k++) yield();
        done.send(ok && m.intact(static_cast<std::uint64_t>(i)));
      });
    for (int i = 0; i < 10; i++) EXPECT_TRUE(*done.recv());
  });
}

TEST(Copyable, GoexitAndStopUnwindIt) {
  std::atomic<int> destroyed = 0;
  struct Counts {
    std::atomic<int>* n;
    ~Counts() { ++*n; }
  };
  const StopResult r = in_runtime({.procs = 2, .seed = 1}, [&] {
    auto ready = make_chan<void>();
    for (int i = 0; i < 100; i++)
      go(kCopyable, [ready, &destroyed] {
        Counts c{&destroyed};
        ready.send();
        (void)make_chan<int>().recv();
      });
    for (int i = 0; i < 100; i++) (void)ready.recv();
    WaitGroup wg;
    wg.add(1);
    go(kCopyable, [&] {
      Defer d{[&] { wg.done(); }};
      goexit();
    });
    wg.wait();
  });
  EXPECT_EQ(r.unwound.size(), 100u);
  EXPECT_EQ(destroyed, 100);
}

TEST(Copyable, TasksAreCancelledInEveryWait) {
  each_run([] {
    struct Large {
      std::uint64_t a[20];
    };
    for (int kind = 0; kind < 4; kind++)
      for (int i = 0; i < 30; i++) {
        auto large = make_chan<Large>();
        auto small = make_chan<int>();
        auto began = make_chan<void>(1);
        Task<void> t = spawn(kCopyable, [=] {
          began.send();
          Large v;
          int x = 0;
          if (kind == 0) (void)large.recv();
          if (kind == 1) (void)small.recv();
          if (kind == 2) select(recv(large, v), recv(small, x));
          if (kind == 3) (void)large.recv_for(10s);
        });
        (void)began.recv();
        if (i % 2) yield();
        t.cancel();
        t.wait();
      }
  });
}

TEST(Copyable, SlotsAreSharedAndBlocksComeBack) {
  in_run({.procs = 1, .seed = 1}, [] {
    if (rt::copy_mode() != rt::CopyMode::Copied) GTEST_SKIP() << "this build gives each its own stack";
    constexpr std::size_t kMany = 5000;
    auto gate = make_chan<void>();
    auto wg = std::make_shared<WaitGroup>();
    for (std::size_t i = 0; i < kMany; i++) {
      wg->add(1);
      go(kCopyable, [=] {
        (void)gate.recv();
        wg->done();
      });
    }
    while (parked_in(rt::WaitReason::ChanReceive) < kMany) yield();
    rt::RunSlotStats st = rt::run_slot_stats();
    EXPECT_EQ(st.slots, rt::kRunSlotsPerP);
    EXPECT_GE(st.copied_out, kMany - rt::kRunSlotsPerP);
    EXPECT_LE(st.block_bytes, kMany * 1024);
    gate.close();
    wg->wait();
    EXPECT_TRUE(settle(1, 10s));
    st = rt::run_slot_stats();
    EXPECT_LE(st.copied_out, 2 * rt::kRunSlotsPerP);  // spares
  });
}

TEST(Copyable, AHogHoldsUpItsSlotOnlyAndTheOthersRun) {
  in_run({.procs = 1, .seed = 1}, [] {
    std::atomic<bool> stop{false};
    auto done = make_chan<void>();
    go(kCopyable, [&stop, done] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
      done.send();
    });
    yield();
    for (int i = 0; i < 20; i++) {
      go(kCopyable, [done] { done.send(); });
      (void)done.recv();
    }
    stop = true;
    (void)done.recv();
  });
}

TEST(Copyable, DumpsShowItsFrames) {
  each_run([] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 100; i++) go({.name = "copied", .stack = Stack::Copyable}, [=] { (void)gate.recv(); });
    while (parked_in(rt::WaitReason::ChanReceive) < 100) yield();
    const std::string dump = dump_goroutines();
    std::size_t named = 0, framed = 0;
    for (std::size_t at = 0; (at = dump.find("\"copied\" [chan receive", at)) != std::string::npos; at++) {
      named++;
      const std::string block = dump.substr(at, dump.find("\n\n", at) - at);
      if (block.find("copyable_test.cpp") != std::string::npos) framed++;
    }
    EXPECT_EQ(named, 100u) << dump.substr(0, 2000);
    if (rt::symbols_available()) {
      EXPECT_EQ(framed, 100u) << dump.substr(0, 3000);
    }
    gate.close();
  });
}

TEST(Copyable, SuspendAndResume) {
  each_run([] {
    auto ids = make_chan<std::uint64_t>();
    auto c = make_chan<int>();
    go(kCopyable, [=] {
      ids.send(goid());
      for (int i = 0; i < 5; i++) c.send(i);
    });
    const std::uint64_t id = *ids.recv();
    EXPECT_EQ(*c.recv(), 0);
    ASSERT_TRUE(gc::suspend(id));
    int next = 1;
    if (c.recv_for(5ms).status == RecvStatus::Ok) next++;  // it was parked in this send already
    EXPECT_EQ(c.recv_for(5ms).status, RecvStatus::Empty);
    gc::resume(id);
    for (; next < 5; next++) EXPECT_EQ(*c.recv(), next);
  });
}

TEST(Copyable, RandomWorkOverManySlots) {
  for (std::uint64_t seed = 1; seed <= 5; seed++)
    for (int procs : {1, 2, 8})
      in_run({.procs = procs, .seed = seed}, [] {
        constexpr int kMany = 400, kRounds = 30;
        auto c = make_chan<std::uint64_t>(4);
        auto wg = std::make_shared<WaitGroup>();
        std::atomic<std::uint64_t> sent{0}, got{0};
        std::atomic<int> broken{0};
        for (int i = 0; i < kMany; i++) {
          wg->add(1);
          go({.stack = i % 3 ? Stack::Copyable : Stack::Growable}, [=, &sent, &got, &broken] {
            Marked m(static_cast<std::uint64_t>(i));
            for (int k = 0; k < kRounds; k++) {
              const auto v = static_cast<std::uint64_t>(i * kRounds + k);
              if (k % 2 == 0) {  // all send first, so that they cannot all wait to receive
                c.send(v);
                sent += v;
              } else {
                got += c.recv_or();
              }
              if (!m.intact(static_cast<std::uint64_t>(i))) broken++;
            }
            wg->done();
          });
        }
        wg->wait();
        EXPECT_EQ(sent.load(), got.load());
        EXPECT_EQ(broken.load(), 0);
      });
}

}  // namespace
}  // namespace weft::test
