// close: who wakes, who panics, what is still received.
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Chan, AfterCloseBufferedValuesComeFirstThenZeroForEver) {  // 6
  each_run([] {
    for (int cap = 0; cap <= 20; cap++) {
      Chan<int> c = make_chan<int>(cap);
      for (int i = 0; i < cap; i++) c.send(i + 1);
      c.close();
      EXPECT_EQ(c.len(), static_cast<size_t>(cap));
      for (int i = 0; i < cap; i++) ASSERT_EQ(c.recv(), i + 1);
      for (int i = 0; i < 10; i++) {
        ASSERT_EQ(c.recv(), std::nullopt);
        ASSERT_EQ(c.recv_or(), 0);
        ASSERT_EQ(c.recv_or(-3), -3);
        ASSERT_EQ(c.try_recv().status, RecvStatus::Closed);
        ASSERT_EQ(c.recv_for(1h).status, RecvStatus::Closed);
        int v = 9;
        bool ok = true;
        ASSERT_EQ(select(recv(c, v, ok), otherwise()), 0);
        ASSERT_EQ(v, 0);
        ASSERT_FALSE(ok);
      }
      for (int v : c) FAIL() << "a closed and drained channel gave " << v;
    }
  });
}

TEST(Chan, CloseWakesABlockedReceiver) {  // 7
  each_run([] {
    for (int cap : {0, 1, 10}) {
      Chan<int> c = make_chan<int>(cap);
      Chan<int> done = make_chan<int>();
      go_parked("chan receive", [=] {
        EXPECT_EQ(c.recv(), std::nullopt);
        done.send(1);
      });
      c.close();
      EXPECT_EQ(done.recv(), 1);
    }
  });
}

TEST(Chan, CloseWakesAllBlockedReceivers) {  // 8
  each_run([] {
    constexpr int kReceivers = 100;
    Chan<int> c = make_chan<int>();
    Chan<int> done = make_chan<int>(kReceivers);
    for (int i = 0; i < kReceivers; i++)
      go_parked("", [=] {
        switch (i % 3) {
          case 0:
            EXPECT_EQ(c.recv(), std::nullopt);
            break;
          case 1:
            for (int v : c) ADD_FAILURE() << v;
            break;
          default: {
            std::optional<int> v = 1;
            EXPECT_EQ(select(recv(Chan<int>(), v), recv(c, v)), 1);
            EXPECT_FALSE(v);
          }
        }
        done.send(1);
      });
    c.close();
    for (int i = 0; i < kReceivers; i++) EXPECT_EQ(done.recv(), 1);
  });
}

TEST(Chan, CloseMakesBlockedSendersPanicAndEachRecovers) {  // 9
  each_run([] {
    for (int cap : {0, 1, 3}) {
      constexpr int kSenders = 20;
      Chan<int> c = make_chan<int>(cap);
      Chan<std::string> said = make_chan<std::string>(kSenders);
      for (int i = 0; i < cap; i++) c.send(i);
      for (int i = 0; i < kSenders; i++)
        go_parked("", [=] {
          said.send(panic_of([&] {
            if (i % 2 == 0)
              c.send(100 + i);
            else
              select(send(c, 100 + i), recv(Chan<int>()));
          }));
        });
      c.close();
      for (int i = 0; i < kSenders; i++) EXPECT_EQ(said.recv_or(), "send on closed channel");
      for (int i = 0; i < cap; i++) EXPECT_EQ(c.recv(), i);
      EXPECT_EQ(c.recv(), std::nullopt) << "the value of a sender that panicked was received";
    }
  });
}

TEST(Chan, SendOnClosedPanicsAlsoWithRoomAndInSelect) {  // 10
  each_run([] {
    for (int cap : {0, 1, 10}) {
      Chan<int> c = make_chan<int>(cap);
      c.close();
      const std::string message = "send on closed channel";
      EXPECT_EQ(panic_of([&] { c.send(1); }), message);
      EXPECT_EQ(panic_of([&] { (void)c.try_send(1); }), message);
      EXPECT_EQ(panic_of([&] { (void)c.send_for(1, 1ms); }), message);
      EXPECT_EQ(panic_of([&] { select(send(c, 1)); }), message);
      EXPECT_EQ(panic_of([&] { select(send(c, 1), otherwise()); }), message);
      EXPECT_EQ(panic_of([&] { select(send(c, 1), recv(Chan<int>())); }), message);
      EXPECT_EQ(panic_of([&] {
                  Selector s;
                  s.send(c, 1);
                  (void)s.wait();
                }),
                message);
    }
    Chan<void> sig = make_chan<void>();
    sig.close();
    EXPECT_EQ(panic_of([&] { sig.send(); }), "send on closed channel");
  });
}

TEST(Chan, CloseOfClosedAndOfNilPanic) {  // 11
  each_run([] {
    Chan<int> c = make_chan<int>(1);
    c.close();
    EXPECT_EQ(panic_of([&] { c.close(); }), "close of closed channel");
    EXPECT_EQ(panic_of([] { Chan<int>().close(); }), "close of nil channel");
    EXPECT_EQ(panic_of([] { Chan<void>().close(); }), "close of nil channel");
  });
}

TEST(Chan, MisusePanicsAreRuntimeErrors) {  // 11
  each_run([] {
    Chan<int> c = make_chan<int>(1);
    c.close();
    EXPECT_TRUE(runtime_panic([&] { c.close(); }));
    EXPECT_TRUE(runtime_panic([&] { c.send(1); }));
    EXPECT_TRUE(runtime_panic([&] { select(send(c, 1)); }));
    EXPECT_TRUE(runtime_panic([] { Chan<int>().close(); }));
    EXPECT_FALSE(runtime_panic([] { panic("mine"); }));
  });
}

TEST(Chan, TryReceiverFindsTheValueOrTheClose) {  // 15
  each_run([] {
    constexpr int kRounds = scaled(1000, 200);
    for (int i = 0; i < kRounds; i++) {
      Chan<int> c = make_chan<int>(1);
      c.send(1);
      Chan<bool> found = make_chan<bool>(1);
      go([=] { found.send(c.try_recv().status != RecvStatus::Empty); });
      c.close();
      (void)c.recv();
      ASSERT_TRUE(found.recv_or()) << "neither the value nor the close was seen, round " << i;
    }
  });
}

TEST(Chan, CloseRacingWithReceiversLosesNothing) {
  each_run([] {
    constexpr int kRounds = scaled(300, 60);
    for (int round = 0; round < kRounds; round++) {
      Chan<int> c = make_chan<int>(round % 4);
      std::atomic<int> got{0};
      WaitGroup wg;
      for (int r = 0; r < 4; r++)
        wg.go([&, c] {
          for (int v : c) got += v;
        });
      for (int i = 0; i < 10; i++) c.send(1);
      c.close();
      wg.wait();
      ASSERT_EQ(got.load(), 10);
    }
  });
}

TEST(Chan, DroppingTheLastHandleReleasesBufferedElements) {
  each_run([] {
    auto token = std::make_shared<int>(1);
    {
      Chan<std::shared_ptr<int>> c = make_chan<std::shared_ptr<int>>(10);
      for (int i = 0; i < 7; i++) c.send(token);
      EXPECT_EQ(token.use_count(), 8);
      EXPECT_EQ(c.recv_or(), token);
      EXPECT_EQ(token.use_count(), 7);
    }
    EXPECT_EQ(token.use_count(), 1);
    {
      // A closed channel keeps what was not received until then, too.
      Chan<std::shared_ptr<int>> c = make_chan<std::shared_ptr<int>>(10);
      c.send(token);
      c.close();
    }
    EXPECT_EQ(token.use_count(), 1);
  });
}

}  // namespace
}  // namespace weft::test
