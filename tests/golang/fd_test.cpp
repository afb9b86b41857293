// Waiting for descriptors: readiness, deadlines, many waiters, numbers that are reused, and select
// beside channels.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct Pipe {
  int fds[2] = {-1, -1};
  Pipe() {
    if (::pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) ADD_FAILURE() << "pipe2";
  }
  Pipe(Pipe&& o) noexcept : fds{std::exchange(o.fds[0], -1), std::exchange(o.fds[1], -1)} {}
  ~Pipe() {
    for (int fd : fds)
      if (fd >= 0) ::close(fd);
  }
  int in() const { return fds[0]; }
  int out() const { return fds[1]; }
  void put() const { EXPECT_EQ(::write(out(), "x", 1), 1); }
  bool get() const {
    char c;
    return ::read(in(), &c, 1) == 1;
  }
};

TEST(Fd, AReaderIsWokenByAWrite) {
  each_run([] {
    Pipe p;
    for (int i = 0; i < scaled(1000, 100); i++) {
      go([&] { p.put(); });
      ASSERT_FALSE(wait_fd(p.in(), Io::Read));
      ASSERT_TRUE(p.get());
    }
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Fd, ReadyOnesReturnAtOnce) {
  each_run([] {
    Pipe p;
    EXPECT_FALSE(wait_fd(p.out(), Io::Write));
    p.put();
    EXPECT_FALSE(wait_fd(p.in(), Io::Read));
    // A deadline that has passed fails at once, also when there is something to read; without it there is.
    EXPECT_EQ(wait_fd(p.in(), Io::Read, now() - 1h), Errc::deadline_exceeded);
    EXPECT_FALSE(wait_fd(p.in(), Io::Read));
    const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(file, 0);
    EXPECT_FALSE(wait_fd(file, Io::Read));
    ::close(file);
  });
}

TEST(Fd, ADeadlineEndsTheWait) {
  each_run([] {
    Pipe p;
    const Time before = now();
    EXPECT_EQ(wait_fd(p.in(), Io::Read, before + 5ms), Errc::deadline_exceeded);
    EXPECT_GE(now() - before, 5ms);
    EXPECT_EQ(wait_fd(p.in(), Io::Read, before), Errc::deadline_exceeded);
    // And the descriptor is as usable as before.
    go([&] { p.put(); });
    EXPECT_FALSE(wait_fd(p.in(), Io::Read, now() + 1h));
    EXPECT_TRUE(p.get());
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Fd, AContextEndsTheWait) {
  each_run([] {
    Pipe p;
    auto [ctx, cancel] = with_cancel(background());
    go_parked("IO wait", [&, ctx = ctx] { EXPECT_EQ(wait_fd(ctx, p.in(), Io::Read), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(wait_fd(ctx, p.out(), Io::Write), Errc::canceled) << "one that is done fails at once";
    auto [soon, f] = with_timeout(background(), 2ms);
    EXPECT_EQ(wait_fd(soon, p.in(), Io::Read), Errc::deadline_exceeded);
    EXPECT_EQ(wait_fd(background(), -1, Io::Read), std::error_code(EBADF, std::system_category()));
    auto [live, end] = with_cancel(background());
    EXPECT_EQ(wait_fd(live, -1, Io::Read), std::error_code(EBADF, std::system_category()));
    EXPECT_FALSE(wait_fd(live, p.out(), Io::Write));
    // And the descriptor is as usable as before; a cancel that comes later finds nobody.
    go_parked("IO wait", [&, live = live] { EXPECT_FALSE(wait_fd(live, p.in(), Io::Read)); });
    p.put();
    EXPECT_TRUE(settle(1, kPatience));
    end();
    EXPECT_TRUE(p.get());
    go([&] { p.put(); });
    EXPECT_FALSE(wait_fd(background(), p.in(), Io::Read));
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(Fd, AContextEndsTheWaitOfAPlainThread) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      Pipe p, q;
      auto [ctx, cancel] = with_cancel(background());
      std::atomic<int> ended{0};
      std::thread a([&, ctx = ctx] { ended += wait_fd(ctx, p.in(), Io::Read) == Errc::canceled; });
      std::thread b([&, ctx = ctx] { ended += !wait_fd(ctx, q.in(), Io::Read) && q.get(); });
      q.put();
      b.join();
      rt.go([cancel = cancel] { cancel(); });
      a.join();
      EXPECT_EQ(ended.load(), 2);
      p.put();
      EXPECT_FALSE(wait_fd(background(), p.in(), Io::Read));
    }
    rt.stop(5s);
  }
}

// Cancel and readiness at once: one of them ends the wait, and neither leaves anything behind.
TEST(Fd, CancelsRaceWithReadiness) {
  each_run([] {
    Pipe p;
    int both[2] = {};
    for (int i = 0; i < scaled(2000, 200); i++) {
      auto [ctx, cancel] = with_cancel(background());
      std::atomic<int> got{-1};
      go([&, ctx = ctx] { got = !wait_fd(ctx, p.in(), Io::Read); });
      if (i % 3) yield();
      go([cancel = cancel] { cancel(); });
      p.put();
      EXPECT_TRUE(settle(1, kPatience));
      both[got]++;
      EXPECT_FALSE(wait_fd(p.in(), Io::Read));
      EXPECT_TRUE(p.get());
    }
    EXPECT_GT(both[0], 0);
  });
}

TEST(Fd, ABadDescriptorIsAnError) {
  each_run([] {
    EXPECT_TRUE(wait_fd(-1, Io::Read));
    EXPECT_EQ(wait_fd(1 << 20, Io::Read), std::errc::bad_file_descriptor);
  });
}

TEST(Fd, AHangUpWakesReadersAndWriters) {
  each_run([] {
    auto p = std::make_unique<Pipe>();
    go_parked("IO wait", [fd = p->in()] { EXPECT_FALSE(wait_fd(fd, Io::Read)); });
    ::close(std::exchange(p->fds[1], -1));
    EXPECT_TRUE(settle(1, 30s));
    int s[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    go_parked("IO wait", [&] { EXPECT_FALSE(wait_fd(s[0], Io::Read)); });
    ::shutdown(s[1], SHUT_RDWR);
    EXPECT_TRUE(settle(1, 30s));
    ::close(s[0]);
    ::close(s[1]);
  });
}

TEST(Fd, SeveralWaitersOfOneDescriptorAllWake) {
  each_run([] {
    Pipe p;
    for (int i = 0; i < 10; i++)
      go_parked("IO wait", [&] { EXPECT_FALSE(wait_fd(p.in(), Io::Read)); });
    p.put();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_TRUE(p.get());
  });
}

TEST(Fd, BothDirectionsOfOneSocketAreIndependent) {
  each_run([] {
    int s[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    // Fill it, so that writing has to wait too.
    std::vector<char> block(4096, 'b');
    size_t filled = 0;
    for (ssize_t n; (n = ::write(s[0], block.data(), block.size())) > 0;)
      filled += static_cast<size_t>(n);
    std::atomic<bool> readable{false}, writable{false};
    go_parked("IO wait", [&] {
      EXPECT_FALSE(wait_fd(s[0], Io::Read));
      readable = true;
    });
    go_parked("IO wait", [&] {
      EXPECT_FALSE(wait_fd(s[0], Io::Write));
      writable = true;
    });
    ASSERT_EQ(::write(s[1], "x", 1), 1);
    eventually([&] { return readable.load(); });
    EXPECT_FALSE(writable.load());
    for (size_t drained = 0; drained < filled;) {
      const ssize_t n = ::read(s[1], block.data(), block.size());
      if (n > 0)
        drained += static_cast<size_t>(n);
      else
        ASSERT_FALSE(wait_fd(s[1], Io::Read));
    }
    eventually([&] { return writable.load(); });
    EXPECT_TRUE(settle(1, 30s));
    ::close(s[0]);
    ::close(s[1]);
  });
}

TEST(Fd, AReusedNumberIsAnotherDescriptor) {
  each_run([] {
    // Pipes of the same numbers, one after the other, some closed with a past deadline on them.
    for (int i = 0; i < scaled(500, 100); i++) {
      Pipe p;
      if (i % 3 == 0) {
        EXPECT_EQ(wait_fd(p.in(), Io::Read, now()), Errc::deadline_exceeded);
      }
      if (i % 2) p.put();
      const std::error_code e = wait_fd(p.in(), Io::Read, now() + (i % 2 ? 30s : 0s));
      if (i % 2)
        EXPECT_FALSE(e) << e.message() << " in round " << i;
      else
        EXPECT_EQ(e, Errc::deadline_exceeded) << "somebody else's readiness, round " << i;
    }
  });
}

TEST(Fd, SelectTakesADescriptorBesideChannels) {
  each_run([] {
    Pipe p;
    Chan<int> c = make_chan<int>(1);
    EXPECT_EQ(select(ready(p.in(), Io::Read), recv(c), otherwise()), 2);
    EXPECT_EQ(select(ready(p.in(), Io::Read), recv(c), timeout(1ms)), 2);
    c.send(1);
    EXPECT_EQ(select(ready(p.in(), Io::Read), recv(c)), 1);
    p.put();
    EXPECT_EQ(select(ready(p.in(), Io::Read), recv(c)), 0);
    EXPECT_EQ(select(recv(c), ready(p.out(), Io::Write)), 1);
    EXPECT_TRUE(p.get());
    for (int i = 0; i < 50; i++) {
      go_parked("select", [&, i] {
        EXPECT_EQ(select(ready(p.in(), Io::Read), recv(c), timeout(1h)), i % 2);
        if (i % 2 == 0) {
          EXPECT_TRUE(p.get());
        }
      });
      if (i % 2)
        c.send(1);
      else
        p.put();
      ASSERT_TRUE(settle(1, 30s));
    }
    EXPECT_EQ(c.len(), 0u);
    Selector s;
    int v = 0;
    s.recv(c, v);
    s.ready(p.in(), Io::Read);
    EXPECT_EQ(s.try_wait(), -1);
    p.put();
    EXPECT_EQ(s.wait(), 1);
  });
}

TEST(Fd, ManyPairsPassBytesAround) {
  each_run([] {
    constexpr int kPairs = 50;
    constexpr int kBytes = scaled(200, 50);
    std::vector<Pipe> pipes(kPairs);
    std::atomic<int> received{0};
    WaitGroup wg;
    for (int i = 0; i < kPairs; i++) {
      wg.go([&, i] {
        const Pipe& p = pipes[static_cast<size_t>(i)];
        for (int n = 0; n < kBytes;) {
          if (p.get()) {
            n++;
            received++;
          } else {
            ASSERT_FALSE(wait_fd(p.in(), Io::Read));
          }
        }
      });
      wg.go([&, i] {
        const Pipe& p = pipes[static_cast<size_t>(i)];
        for (int n = 0; n < kBytes; n++) {
          p.put();
          if (n % 3 == 0) yield();
          if (n % 31 == 0) sleep_for(50us);
        }
      });
    }
    wg.wait();
    EXPECT_EQ(received.load(), kPairs * kBytes);
  });
}

TEST(Fd, APlainThreadPollsForItself) {
  Runtime rt{Machine{2, 1}.config()};
  ASSERT_FALSE(rt.start());
  {
    Pipe p;
    EXPECT_EQ(wait_fd(p.in(), Io::Read, now() + 2ms), Errc::deadline_exceeded);
    go([&] { p.put(); });
    EXPECT_FALSE(wait_fd(p.in(), Io::Read));
    EXPECT_TRUE(p.get());
    EXPECT_TRUE(settle(0, 30s));
  }
  rt.stop(1s);
}

}  // namespace
}  // namespace weft::test
