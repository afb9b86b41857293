// The API by example, "Channels": each line as a user writes it, compiled without warnings, and
// run.
#include <memory>
#include <optional>
#include <unordered_set>

#include <gtest/gtest.h>
#include <weft/chan.hpp>
#include <weft/runtime.hpp>

using namespace std::chrono_literals;

namespace {

int used = 0;
void use(int i) { used += i; }

struct Job {
  int n = 0;
};

TEST(Api, ChannelLines) {
  weft::run([] {
    weft::Chan<int> c = weft::make_chan<int>(128);
    weft::Chan<int> nil;
    c.send(1);
    std::optional<int> v = c.recv();
    EXPECT_EQ(v, 1);
    c.send(2);
    int x = c.recv_or();
    EXPECT_EQ(x, 2);
    c.send(3);
    EXPECT_EQ(c.recv_or(8), 3);
    bool sent = c.try_send(1);
    EXPECT_TRUE(sent);
    bool in_time = c.send_for(1, 10ms);
    EXPECT_TRUE(in_time);
    weft::Recv<int> r = c.try_recv();
    EXPECT_TRUE(r.status == weft::RecvStatus::Ok && r.value == 1);
    weft::Recv<int> q = c.recv_for(10ms);
    EXPECT_TRUE(q.status == weft::RecvStatus::Ok);
    EXPECT_TRUE(c.try_recv().status == weft::RecvStatus::Empty);
    EXPECT_TRUE(c.recv_for(1ms).status == weft::RecvStatus::Empty);
    c.send(20);
    c.send(22);
    EXPECT_EQ(c.len(), 2u);
    EXPECT_EQ(c.cap(), 128u);
    c.close();
    for (int i : c) use(i);
    EXPECT_EQ(used, 42);
    EXPECT_TRUE(c.try_recv().status == weft::RecvStatus::Closed);
    EXPECT_EQ(c.recv(), std::nullopt);
    EXPECT_EQ(c.recv_or(), 0);
    EXPECT_EQ(c.recv_or(8), 8);
    weft::Chan<int> d = c;
    EXPECT_TRUE(c == d);
    if (c) d = nullptr;
    EXPECT_FALSE(d);
    EXPECT_TRUE(d == nil);
    EXPECT_FALSE(nil);
    EXPECT_TRUE((c <=> nil) != 0);
    std::unordered_set<weft::Chan<int>> set{c, nil};
    EXPECT_EQ(set.count(c), 1u);
    auto canceled = weft::RecvStatus::Canceled;
    EXPECT_TRUE(canceled != weft::RecvStatus::Ok);
  });
}

template <class C>
requires weft::Sender<C, int>
void fill(const C& c) { c.send(5); }
template <class C>
requires weft::Receiver<C, int>
int empty(const C& c) { return c.recv_or(); }

TEST(Api, DirectionsOfAChannel) {
  weft::run([] {
    weft::Chan<int> c = weft::make_chan<int>(2);
    weft::SendChan<int> in = c;
    weft::RecvChan<int> out = c;
    fill(in);
    fill(c);
    EXPECT_EQ(empty(out) + empty(c), 10);
    in.close();
    for (int i : out) use(i);
  });
}

TEST(Api, ChanOfVoid) {
  weft::run([] {
    weft::Chan<void> sig = weft::make_chan<void>();
    EXPECT_FALSE(sig.try_send());
    EXPECT_FALSE(sig.send_for(1ms));
    weft::go([sig] {
      sig.send();
      sig.send();
      sig.send();
      sig.close();
    });
    bool value = sig.recv();
    EXPECT_TRUE(value);
    weft::Recv<weft::Unit> r = sig.recv_for(30s);
    EXPECT_TRUE(r.status == weft::RecvStatus::Ok);
    int n = 0;
    for (auto unit : sig) n++;
    EXPECT_EQ(n, 1);
    EXPECT_FALSE(sig.recv());
  });
}

TEST(Api, MoveOnlyElements) {
  weft::run([] {
    auto jobs = weft::make_chan<std::unique_ptr<Job>>(1);
    jobs.send(std::make_unique<Job>());
    auto job = std::make_unique<Job>(Job{9});
    EXPECT_FALSE(jobs.try_send(std::move(job)));
    EXPECT_FALSE(jobs.send_for(std::move(job), 1ms));
    ASSERT_TRUE(job);
    EXPECT_EQ(job->n, 9);
    jobs.close();
    for (std::unique_ptr<Job> j : jobs) use(j->n);
    for (auto&& j : jobs) use(j->n);
  });
}

TEST(Api, AnyIntegralCapacity) {
  weft::run([] {
    EXPECT_EQ(weft::make_chan<int>(3u).cap(), 3u);
    EXPECT_EQ(weft::make_chan<int>(3L).cap(), 3u);
    EXPECT_EQ(weft::make_chan<int>(sizeof(int)).cap(), sizeof(int));
    EXPECT_EQ(weft::make_chan<int>('\3').cap(), 3u);
  });
}

}  // namespace
