// Starting and ending goroutines, and the end of the program around them.
#include <array>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Scheduler, NumGoroutinesEqualsTheNumberInADumpWhenQuiet) {  // 51
  each_run([] {
    eventually([] { return num_goroutines() == 1; });
    Chan<int> c = make_chan<int>();
    for (int i = 0; i < 50; i++) go_parked("chan receive", [c] { (void)c.recv(); });
    EXPECT_EQ(num_goroutines(), 51);
    const std::string dump = dump_goroutines();
    int n = 0;
    for (size_t at = dump.find("goroutine "); at != std::string::npos;
         at = dump.find("\ngoroutine ", at + 1))
      n++;
    EXPECT_EQ(n, 51) << dump.substr(0, 2000);
    EXPECT_NE(dump.find("goroutine 1 [running]:"), std::string::npos) << dump.substr(0, 400);
    EXPECT_NE(dump.find("[chan receive]:"), std::string::npos);
    c.close();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(num_goroutines(), 1);
  });
}

TEST(Scheduler, OneThatStartsTheNextAndEndsIsNeverNobody) {
  in_run({2, 1}, [] {
    struct Relay {
      std::atomic<bool> over{false};
      void run(int left) {
        if (left == 0)
          over = true;
        else
          go([this, left] { run(left - 1); });
      }
    } relay;
    go([&] { relay.run(scaled(200'000, 20'000)); });
    std::uint64_t looks = 0, missed = 0;
    for (;; looks++) {
      const int n = num_goroutines();
      if (relay.over) break;
      if (n < 2) missed++;
      safepoint();
    }
    EXPECT_EQ(missed, 0u) << "of " << looks << " looks";
    EXPECT_TRUE(settle(1, 30s));
  });
}

// More lives than TSan's stack of functions would bear if each left a few behind.
TEST(Scheduler, OneStackServesManyLives) {
  in_run({1, 1}, [] {
    constexpr int kLives = scaled(100'000, 25'000);
    std::atomic<int> lives = 0;  // one that is slow may have lost its P
    for (int i = 0; i < kLives; i++) {
      go([&] { lives++; });
      yield();
    }
    EXPECT_TRUE(eventually([&] { return lives == kLives; }));
  });
}

TEST(Scheduler, AGoroutineKnowsItselfAfterItHasMoved) {  // 62
  each_run([] {
    constexpr int kGoroutines = 50;
    constexpr int kSteps = scaled(2000, 200);
    std::atomic<int> wrong{0}, moved{0};
    auto batch = [&] {
      WaitGroup wg;
      for (int g = 0; g < kGoroutines; g++)
        wg.go([&] {
          const uint64_t me = goid();
          pid_t last = thread_now();
          for (int i = 0; i < kSteps; i++) {
            if (i % 64 == 0)
              sleep_for(10us);
            else
              yield();
            if (goid() != me) wrong++;
            const pid_t here = thread_now();
            if (here != last) moved++;
            last = here;
          }
        });
      wg.wait();
    };
    batch();
    // A machine under load may need longer until a second thread gets to run.
    if (procs() > 1) {
      eventually([&] {
        if (moved == 0) batch();
        return moved > 0;
      });
    }
    EXPECT_EQ(wrong.load(), 0);
  });
}

TEST(Scheduler, GoroutineIdsAreNeverReusedWhileARuntimeRuns) {
  each_run([] {
    EXPECT_EQ(goid(), 1u);
    std::set<uint64_t> seen;
    Chan<uint64_t> c = make_chan<uint64_t>();
    for (int i = 0; i < 1000; i++) {
      go([c] { c.send(goid()); });
      ASSERT_TRUE(seen.insert(c.recv_or()).second);
    }
    EXPECT_EQ(seen.count(0), 0u);
    EXPECT_EQ(seen.count(1), 0u);
  });
  EXPECT_EQ(goid(), 0u);
}

void keeps_memory_flat(int batches) {
  each_run([batches] {
    constexpr int kBatch = scaled(1000, 500);
    auto batch = [] {
      WaitGroup wg;
      for (int i = 0; i < kBatch; i++) wg.go([] {});
      wg.wait();
    };
    for (int i = 0; i < 5; i++) batch();
    const size_t before = resident_bytes();
    for (int i = 0; i < batches; i++) batch();
    if (!kTsan && !kAsan) {
      EXPECT_LT(resident_bytes(), before + (8u << 20));
    }
    eventually([] { return num_goroutines() == 1; });
  });
}

TEST(Scheduler, CreatingAndEndingAMillionGoroutinesKeepsMemoryFlat) { keeps_memory_flat(scaled(350, 20)); }  // 75
TEST(Scheduler, DISABLED_TenMillionKeepMemoryFlat) { keeps_memory_flat(scaled(10'000, 100)); }

TEST(Scheduler, RunReturnsWhatMainReturns) {
  EXPECT_EQ(run([] { return 7; }), 7);
  EXPECT_EQ(run([] { return 0; }), 0);
  EXPECT_EQ(run([] {}), 0);
  EXPECT_EQ(run([] { return 300; }, Machine{2, 1}.config()), 300);
}

TEST(Scheduler, NoStatementOfOthersRunsAfterMainHasReturned) {
  // Under ASan and TSan too: what is left of the others is never touched again.
  for (const Machine& m : kMachines) {
    static std::atomic<bool> ended;
    static std::atomic<int> late;
    ended = false;
    late = 0;
    run(
        [&] {
          for (int i = 0; i < 20; i++)
            go([] {
              for (;;) {
                if (ended) late++;
                safepoint();
                yield();
              }
            });
          for (int i = 0; i < 50; i++) yield();
        },
        m.config());
    ended = true;
    std::this_thread::sleep_for(20ms);
    EXPECT_EQ(late.load(), 0);
  }
}

void free_function(Chan<int> c, int a, int b) { c.send(a + b); }

struct Node {
  int base;
  void serve(Chan<int> c, int v) { c.send(base + v); }
};

TEST(Go, TakesAnythingThatCanBeCalledAndCopiesItsArguments) {
  each_run([] {
    Chan<int> c = make_chan<int>();
    go(free_function, c, 1, 2);
    EXPECT_EQ(c.recv(), 3);
    Node n{10};
    go(&Node::serve, &n, c, 7);
    EXPECT_EQ(c.recv(), 17);
    auto shared = std::make_shared<Node>(Node{20});
    go(&Node::serve, shared, c, 7);
    EXPECT_EQ(c.recv(), 27);
    int v = 5;
    go([](Chan<int> out, int x) { out.send(x); }, c, v);
    v = 6;
    EXPECT_EQ(c.recv(), 5);
    auto only = std::make_unique<int>(8);
    go([c, p = std::move(only)] { c.send(*p); });
    EXPECT_EQ(c.recv(), 8);
    std::array<char, 1000> large{};
    large.fill(3);
    go([=] { c.send(large[999]); });
    EXPECT_EQ(c.recv(), 3);
    go({.name = "named", .labels = {{"k", "v"}}, .stack_bytes = 1 << 20}, [=] { c.send(9); });
    EXPECT_EQ(c.recv(), 9);
    EXPECT_TRUE(try_go([=] { c.send(11); }));
    EXPECT_EQ(c.recv(), 11);
    // The closure is destroyed when the goroutine ends.
    auto token = std::make_shared<int>(0);
    WaitGroup wg;
    for (int i = 0; i < 100; i++) wg.go([token] {});
    wg.wait();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(token.use_count(), 1);
  });
}

TEST(Go, WhatHappenedBeforeIsSeenByTheGoroutine) {
  each_run([] {
    // Checked by TSan; here the values must agree.
    for (int i = 0; i < 1000; i++) {
      int plain = i;
      WaitGroup wg;
      wg.go([&] {
        EXPECT_EQ(plain, i);
        plain++;
      });
      wg.wait();
      ASSERT_EQ(plain, i + 1);
    }
  });
}

TEST(Hooks, TellOfCreationParkingAndExit) {
  static std::atomic<int> created, parked, exited, wrong;
  created = parked = exited = wrong = 0;
  set_hooks({.on_create =
                 [](uint64_t id, uint64_t parent) {
                   created++;
                   if (id == parent) wrong++;
                 },
             .on_park =
                 [](uint64_t id, const char* reason) {
                   if (id == 0 || !reason || !*reason) wrong++;
                   if (std::string_view(reason) == "chan receive") parked++;
                 },
             .on_exit = [](uint64_t) { exited++; }});
  in_run({2, 1}, [] {
    Chan<int> c = make_chan<int>();
    for (int i = 0; i < 10; i++) go_parked("chan receive", [c] { (void)c.recv(); });
    EXPECT_GE(parked.load(), 10);
    c.close();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_GE(created.load(), 10);
    eventually([] { return exited >= 10; });
  });
  set_hooks({});
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace weft::test
