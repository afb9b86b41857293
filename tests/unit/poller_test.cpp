// The poller by itself: its break, and descriptors that plain threads wait for.
#include <sys/eventfd.h>
#include <unistd.h>

#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

/// A poller, and waits of this thread in it.
class PollerTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(poller.start()); }
  void TearDown() override { poller.stop(); }

  /// A thread that sleeps in the poller until it is told to come back.
  std::thread sleeper(std::atomic<bool>& back) {
    return std::thread([&] {
      rt::GList none;
      poller.wait(rt::kNever, none, true);
      back.store(true);
    });
  }

  // Never deleted, as the runtime's own: its table outlives it.
  static rt::Poller& make() {
    static auto* all = new std::vector<rt::Poller*>;
    return *all->emplace_back(new rt::Poller);
  }
  rt::Poller& poller = make();
};

TEST_F(PollerTest, WakeEndsTheSleep) {
  std::atomic<bool> back{false};
  std::thread t = sleeper(back);
  poller.wake();
  t.join();
  EXPECT_TRUE(back.load());
}

TEST_F(PollerTest, WakeBeforeTheSleepEndsTheNextOne) {
  poller.wake();
  rt::GList none;
  EXPECT_FALSE(poller.wait(rt::kNever, none, true));
}

TEST_F(PollerTest, WakesAddUpToOne) {
  for (int i = 0; i < 3; i++) poller.wake();
  rt::GList none;
  EXPECT_FALSE(poller.wait(rt::kNever, none, true));
  const std::int64_t before = arch::clock_now();
  EXPECT_FALSE(poller.wait(before + 1'000'000, none, true));
  EXPECT_GE(arch::clock_now(), before + 1'000'000) << "the second sleep was broken too";
}

// poll_now() and sysmon look into the poller beside its sleeper: they must not swallow its break.
TEST_F(PollerTest, WakeReachesTheSleeperThoughOthersPoll) {
  for (int round = 0; round < scaled(2'000, 200); round++) {
    std::atomic<bool> back{false};
    std::thread t = sleeper(back);
    rt::GList none;
    poller.wake();
    for (int i = 0; i < 20; i++) poller.wait(0, none, false);
    const bool came = eventually([&] { return back.load(); });
    if (!came) poller.wake();
    t.join();
    ASSERT_TRUE(came) << "round " << round << ": the sleeper never came back";
  }
}

TEST_F(PollerTest, ReadinessWinsAThreadsWait) {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT_GE(fd, 0);
  rt::Waiter w;
  w.node.of_thread = true;
  w.note.clear();
  const std::uint64_t ticket = w.begin();
  w.node.waiter = &w;
  w.node.ticket = ticket;
  w.node.racy = true;
  ASSERT_EQ(poller.arm(fd, false, &w.node), 0);
  EXPECT_EQ(poller.waiting(), 1u);
  rt::GList none;
  EXPECT_FALSE(poller.wait(0, none, false));
  EXPECT_EQ(w.outcome(), rt::Outcome::Pending);
  const std::uint64_t one = 1;
  ASSERT_EQ(write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  EXPECT_FALSE(poller.wait(rt::kNever, none, true)) << "a plain thread is not in the list of Gs";
  EXPECT_EQ(w.outcome(), rt::Outcome::Wake);
  EXPECT_TRUE(w.node.success);
  EXPECT_EQ(poller.waiting(), 0u);
  w.note.sleep();
  close(fd);
}

TEST_F(PollerTest, AGoroutineCountsUntilItIsQueued) {
  const int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT_GE(fd, 0);
  rt::G g;
  rt::WaitNode* n = &g.waiter.node;
  n->waiter = &g.waiter;
  n->ticket = g.waiter.begin();
  n->racy = true;
  ASSERT_EQ(poller.arm(fd, false, n), 0);
  rt::GList ready;
  ASSERT_TRUE(poller.wait(rt::kNever, ready, true));
  EXPECT_EQ(ready.first, &g);
  EXPECT_EQ(poller.waiting(), 1u) << "a look for a deadlock would miss it";
  poller.queued(ready.count);
  EXPECT_EQ(poller.waiting(), 0u);
  close(fd);
}

TEST_F(PollerTest, DisarmTakesAWaitBack) {
  const int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
  ASSERT_GE(fd, 0);
  rt::Waiter w;
  w.node.of_thread = true;
  w.node.waiter = &w;
  w.node.ticket = w.begin();
  w.node.racy = true;
  ASSERT_EQ(poller.arm(fd, false, &w.node), 0);
  poller.disarm(&w.node);
  EXPECT_EQ(poller.waiting(), 0u);
  rt::GList none;
  poller.wait(0, none, false);
  EXPECT_EQ(w.outcome(), rt::Outcome::Pending);
  close(fd);
}

TEST_F(PollerTest, RefusesWhatIsNoDescriptor) {
  rt::Waiter w;
  w.node.waiter = &w;
  EXPECT_EQ(poller.arm(-1, false, &w.node), EBADF);
  EXPECT_EQ(poller.arm(1'000'000, false, &w.node), EBADF);
  EXPECT_EQ(poller.waiting(), 0u);
}

}  // namespace
}  // namespace weft::test
