// The API by example, "Start, go, wait": each line as a user writes it, compiled without warnings,
// and run.
#include <cstdio>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

struct Node {
  int served = 0;
  void serve(int n) { served += n; }
};

int hello_main() {
  return weft::run([&] {
    weft::WaitGroup wg;
    for (int i = 0; i < 3; i++) wg.go([i] { std::printf("hello %d\n", i); });
    wg.wait();
  });
}

TEST(Api, HelloWorld) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(hello_main(), 0);
  std::fflush(stdout);
  const std::string out = testing::internal::GetCapturedStdout();
  for (const char* line : {"hello 0\n", "hello 1\n", "hello 2\n"})
    EXPECT_NE(out.find(line), std::string::npos);
  EXPECT_EQ(out.size(), 24u);
}

TEST(Api, MainMayReturnAnIntAndRunMayBeCalledAgain) {
  EXPECT_EQ(weft::run([] { return 5; }, weft::Config{.procs = 2}), 5);
  EXPECT_EQ(weft::run([] { return weft::procs(); }, weft::Config{.procs = 2}), 2);
  auto f = [] { return 3; };
  EXPECT_EQ(weft::run(f), 3);
}

TEST(Api, Go) {
  weft::run([] {
    weft::Chan<int> c = weft::make_chan<int>(10);
    auto f = [c](auto... v) { c.send((v + ... + 1)); };
    int a = 2, b = 3;
    Node n;
    Node* node = &n;
    weft::go(f);
    weft::go(f, a, b);
    EXPECT_EQ(c.recv().value() + c.recv().value(), 7);
    weft::go(&Node::serve, node, 7);
    auto shared = std::make_shared<Node>();
    weft::go(&Node::serve, shared, 7);
    EXPECT_TRUE(weft::settle(1, 30s));
    EXPECT_EQ(n.served, 7);
    EXPECT_EQ(shared->served, 7);
    weft::go({.name = "reader", .labels = {{"conn", "7"}}, .stack_bytes = 1 << 20}, f);
    weft::go({.name = "reader",
              .labels = {{"conn", "7"}},
              .stack = weft::Stack::Growable,
              .stack_bytes = 1 << 20,
              .hibernate = weft::Hibernate::Off,
              .save_fp = false},
             f);
    weft::go({.name = "with arguments"}, f, a, b);
    bool started = weft::try_go(f);
    EXPECT_TRUE(started);
    EXPECT_TRUE(weft::try_go({.name = "tried"}, f, a));
    EXPECT_TRUE(weft::settle(1, 30s));
    EXPECT_EQ(c.len(), 5u);
  });
}

TEST(Api, WaitGroup) {
  weft::run([] {
    weft::WaitGroup wg;
    auto f = [](int, int) {};
    wg.add(2);
    weft::go([&] { wg.done(); });
    weft::go([&] { wg.done(); });
    wg.go(f, 1, 2);
    wg.wait();
  });
}

TEST(Api, YieldGoexitGoid) {
  EXPECT_EQ(weft::goid(), 0u);
  weft::run([] {
    weft::yield();
    std::uint64_t id = weft::goid();
    EXPECT_EQ(id, 1u);
    bool after = false;
    weft::WaitGroup wg;
    wg.go([&] {
      if (weft::goid() > 1) weft::goexit();
      after = true;
    });
    wg.wait();
    EXPECT_FALSE(after);
  });
}

}  // namespace
