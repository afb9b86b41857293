// What may travel through a channel: nothing at all, channels, large, move-only, over-aligned and
// throwing elements.
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct Empty {
  bool operator==(const Empty&) const = default;
};

TEST(Chan, ZeroSizeElements) {  // 35
  each_run([] {
    for (int cap : {0, 1, 1000}) {
      Chan<Empty> c = make_chan<Empty>(cap);
      go([c] {
        for (int i = 0; i < 1000; i++) c.send(Empty{});
        c.close();
      });
      int n = 0;
      for ([[maybe_unused]] Empty e : c) n++;
      EXPECT_EQ(n, 1000);
    }
  });
}

TEST(Chan, OfVoidCarriesEvents) {  // 35
  each_run([] {
    for (int cap : {0, 1, 100}) {
      Chan<void> c = make_chan<void>(cap);
      EXPECT_EQ(c.cap(), static_cast<size_t>(cap));
      EXPECT_FALSE(cap == 0 && c.try_send());
      go([c] {
        for (int i = 0; i < 500; i++) c.send();
        c.close();
      });
      EXPECT_TRUE(c.recv());
      int n = 1;
      for ([[maybe_unused]] Unit u : c) n++;
      EXPECT_EQ(n, 500);
      EXPECT_FALSE(c.recv());
      const Recv<Unit> r = c.try_recv();
      EXPECT_EQ(r.status, RecvStatus::Closed);
      bool ok = true;
      EXPECT_EQ(select(recv(c, ok)), 0);
      EXPECT_FALSE(ok);
    }
    // A large number of buffered events takes no memory of their own.
    Chan<void> many = make_chan<void>(1 << 30);
    for (int i = 0; i < 1000; i++) many.send();
    EXPECT_EQ(many.len(), 1000u);
  });
}

TEST(Chan, OfChan) {  // 36
  each_run([] {
    Chan<Chan<int>> requests = make_chan<Chan<int>>();
    go([requests] {
      int n = 0;
      for (Chan<int> reply : requests) reply.send(n++);
    });
    for (int i = 0; i < 100; i++) {
      Chan<int> reply = make_chan<int>(i % 2);
      requests.send(reply);
      EXPECT_EQ(reply.recv(), i);
    }
    requests.close();
  });
}

struct Large {
  std::array<uint64_t, 9000> words;  // 72,000 bytes
};

TEST(Chan, ElementsLargerThan64K) {  // 36
  each_run([] {
    for (int cap : {0, 3}) {
      Chan<std::unique_ptr<Large>> boxes = make_chan<std::unique_ptr<Large>>(cap);
      Chan<Large> c = make_chan<Large>(cap);
      go([c] {
        auto v = std::make_unique<Large>();
        for (uint64_t i = 0; i < 20; i++) {
          v->words.fill(i);
          c.send(*v);
        }
        c.close();
      });
      uint64_t n = 0;
      for (Recv<Large> r; (r = c.recv_for(1h)).status == RecvStatus::Ok; n++)
        for (uint64_t w : r.value->words) ASSERT_EQ(w, n);
      EXPECT_EQ(n, 20u);
    }
  });
}

TEST(Chan, MoveOnlyElements) {  // 36
  each_run([] {
    for (int cap : {0, 1, 8}) {
      auto c = make_chan<std::unique_ptr<int>>(cap);
      go([c] {
        for (int i = 0; i < 50; i++) c.send(std::make_unique<int>(i));
        std::unique_ptr<int> last = std::make_unique<int>(50);
        EXPECT_EQ(select(send(c, std::move(last))), 0);
        EXPECT_EQ(last, nullptr);
        c.close();
      });
      int n = 0;
      for (std::unique_ptr<int> p : c) EXPECT_EQ(*p, n++);
      EXPECT_EQ(n, 51);
    }
  });
}

TEST(Chan, FailedTrySendOrSendForLeavesItsArgument) {  // 36
  each_run([] {
    auto c = make_chan<std::unique_ptr<int>>();
    auto p = std::make_unique<int>(7);
    EXPECT_FALSE(c.try_send(std::move(p)));
    ASSERT_NE(p, nullptr);
    EXPECT_FALSE(c.send_for(std::move(p), 1ms));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(select(send(c, std::move(p)), otherwise()), 1);
    ASSERT_NE(p, nullptr) << "a case that was not chosen moved from its operand";
    EXPECT_EQ(select(send(c, std::move(p)), timeout(1ms)), 1);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(*p, 7);
    go_parked("chan receive", [c] { EXPECT_EQ(*c.recv_or(), 7); });
    EXPECT_TRUE(c.try_send(std::move(p)));
    EXPECT_EQ(p, nullptr);
  });
}

TEST(Chan, SendCopiesAnLvalueAndMovesAnRvalue) {
  each_run([] {
    Chan<std::string> c = make_chan<std::string>(2);
    std::string s(100, 's');
    c.send(s);
    EXPECT_EQ(s.size(), 100u);
    c.send(std::move(s));
    EXPECT_TRUE(s.empty());
    EXPECT_EQ(c.recv_or(), std::string(100, 's'));
    EXPECT_EQ(c.recv_or(), std::string(100, 's'));
  });
}

struct alignas(128) Aligned {
  int v = 0;
  // Counts in `bad` every object that was built at a wrong address.
  static inline std::atomic<int> bad{0};
  explicit Aligned(int n = 0) : v(n) { check(); }
  Aligned(const Aligned& o) noexcept : v(o.v) { check(); }
  Aligned& operator=(const Aligned&) = default;
  void check() const {
    if (reinterpret_cast<uintptr_t>(this) % alignof(Aligned) != 0) bad++;
  }
};

TEST(Chan, OverAlignedElements) {
  each_run([] {
    for (int cap : {0, 1, 5}) {
      Chan<Aligned> c = make_chan<Aligned>(cap);
      go([c] {
        for (int i = 0; i < 100; i++) {
          if (i % 2 == 0)
            c.send(Aligned(i));
          else
            select(send(c, Aligned(i)), recv(Chan<int>()));
        }
        c.close();
      });
      int n = 0;
      for (Aligned a : c) EXPECT_EQ(a.v, n++);
      EXPECT_EQ(n, 100);
    }
    EXPECT_EQ(Aligned::bad.load(), 0);
  });
}

// Throws when its n-th copy or move is made; counts what lives.
struct Thrower {
  int v = 0;
  static inline std::atomic<int> living{0};
  static inline std::atomic<int> fuse{-1};
  explicit Thrower(int n) : v(n) { living++; }
  Thrower(const Thrower& o) : v(o.v) {
    if (fuse >= 0 && fuse-- == 0) throw std::runtime_error("copy refused");
    living++;
  }
  Thrower(Thrower&& o) : v(std::exchange(o.v, -1)) {
    if (fuse >= 0 && fuse-- == 0) throw std::runtime_error("move refused");
    living++;
  }
  Thrower& operator=(const Thrower&) = default;
  Thrower& operator=(Thrower&&) = default;
  ~Thrower() { living--; }
};

TEST(Chan, ElementsThatThrowWhenCopiedReachTheCallerAndLeaveTheChannelWhole) {
  each_run([] {
    Thrower::fuse = -1;
    for (int cap : {0, 1, 4}) {
      Chan<Thrower> c = make_chan<Thrower>(cap);
      const Thrower original(5);
      for (int n = 0; n < 6; n++) {
        // The n-th copy or move of one exchange is refused; the exception reaches whoever made it,
        // and a second try with the same channel succeeds.
        Chan<int> got = make_chan<int>(8);
        go([=] {
          for (int tries = 0; tries < 8; tries++) {
            try {
              const std::optional<Thrower> v = c.recv();
              got.send(v ? v->v : -2);
              return;
            } catch (const std::runtime_error&) {
              got.send(-1);
            }
          }
        });
        Thrower::fuse = n;
        int sent = -1;
        while (sent != 5) {
          try {
            c.send(original);
          } catch (const std::runtime_error&) {
            Thrower::fuse = -1;
            continue;
          }
          // Either it arrives, or the receiver's own move threw: then it asks again and gets the
          // next one.
          sent = got.recv_or();
          Thrower::fuse = -1;
        }
      }
      c.close();
    }
    eventually([] { return num_goroutines() == 1; });
    EXPECT_EQ(Thrower::living.load(), 0);
  });
}

TEST(Chan, HandlesCompareHashAndOrderByIdentity) {
  each_run([] {
    Chan<int> a = make_chan<int>(), b = make_chan<int>(), a2 = a;
    EXPECT_TRUE(a == a2);
    EXPECT_FALSE(a == b);
    EXPECT_TRUE((a <=> a2) == 0);
    EXPECT_TRUE((a < b) != (b < a));
    EXPECT_EQ(std::hash<Chan<int>>{}(a), std::hash<Chan<int>>{}(a2));
    SendChan<int> in = a;
    RecvChan<int> out = a;
    go([in] { in.send(4); });
    EXPECT_EQ(out.recv(), 4);
    EXPECT_EQ(in.cap(), 0u);
    EXPECT_EQ(out.len(), 0u);
  });
}

template <class C>
concept CanSend = requires(C c) {
  c.send(1);
};
template <class C>
concept CanReceive = requires(C c) {
  c.recv();
};
template <class C>
concept CanClose = requires(C c) {
  c.close();
};
static_assert(CanSend<Chan<int>> && CanReceive<Chan<int>> && CanClose<Chan<int>>);
static_assert(CanSend<SendChan<int>> && !CanReceive<SendChan<int>> && CanClose<SendChan<int>>);
static_assert(!CanSend<RecvChan<int>> && CanReceive<RecvChan<int>> && !CanClose<RecvChan<int>>);
static_assert(!std::is_convertible_v<SendChan<int>, Chan<int>>);
static_assert(!std::is_convertible_v<RecvChan<int>, Chan<int>>);
static_assert(!std::is_convertible_v<RecvChan<int>, SendChan<int>>);
static_assert(Sender<Chan<int>, int> && Sender<SendChan<int>, int> && !Sender<RecvChan<int>, int>);
static_assert(Receiver<Chan<int>, int> && Receiver<RecvChan<int>, int> &&
              !Receiver<SendChan<int>, int>);

}  // namespace
}  // namespace weft::test
