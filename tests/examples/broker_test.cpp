// A whole program: a broker of messages. Each subscriber says what happens when it is slow: the oldest message is
// dropped, the newest is, it is disconnected, or the publisher waits for it, for a time.
//
// Invariants  A subscriber's messages are in the order of their deliveries: `mu_` is held for each. Received, dropped
//             and still buffered are together all that were delivered.
// Closing     Whoever ends a subscription closes `gone_` first, which frees a publisher that waits, then takes `mu_`
//             and closes the messages: nobody sends on a closed channel.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

struct Message {
  int publisher = 0;
  int number = 0;
};

enum class Slow { DropOldest, DropNewest, Disconnect, Wait };

class Subscription {
 public:
  struct Options {
    Slow slow = Slow::DropOldest;
    int buffer = 3;
    std::chrono::nanoseconds patience = 0ms;  // of Slow::Wait
  };

  explicit Subscription(Options o) : options_(o), messages_(weft::make_chan<Message>(o.buffer)) {}

  /// Closed when the subscription has ended; what is buffered can be received still.
  const weft::RecvChan<Message>& messages() const { return received_; }
  int dropped() const { return dropped_; }
  bool too_slow() const { return too_slow_; }

  /// By the subscriber or the broker; any number of times.
  void end() {
    ended_.call([this] { gone_.close(); });
    std::lock_guard l(mu_);
    close();
  }

  /// By the broker. False: it has ended.
  bool deliver(const Message& m) {
    std::lock_guard l(mu_);
    if (closed_) return false;
    switch (options_.slow) {
      case Slow::DropOldest:
        while (!messages_.try_send(m))
          if (messages_.try_recv()) dropped_++;
        break;
      case Slow::DropNewest:
        if (!messages_.try_send(m)) dropped_++;
        break;
      case Slow::Disconnect:
        if (!messages_.try_send(m)) {
          too_slow_ = true;
          close();
        }
        break;
      case Slow::Wait:
        switch (weft::select(weft::send(messages_, m), weft::recv(gone_), weft::timeout(options_.patience))) {
          case 1: return false;
          case 2: dropped_++;
        }
    }
    return !closed_;
  }
  bool waits() const { return options_.slow == Slow::Wait; }

 private:
  void close() {
    if (!std::exchange(closed_, true)) messages_.close();
  }

  const Options options_;
  const weft::Chan<Message> messages_;
  const weft::RecvChan<Message> received_ = messages_;
  const weft::Chan<void> gone_ = weft::make_chan<void>();
  weft::Once ended_;
  weft::Mutex mu_;
  bool closed_ = false;
  std::atomic<int> dropped_{0};
  std::atomic<bool> too_slow_{false};
};

class Broker {
 public:
  std::shared_ptr<Subscription> subscribe(const std::string& topic, Subscription::Options o) {
    auto s = std::make_shared<Subscription>(o);
    std::unique_lock l(mu_);
    if (closed_) s->end();
    topics_[topic].push_back(s);
    return s;
  }

  /// Delivers to those that never wait first. Returns how many subscribers the topic still has.
  int publish(const std::string& topic, const Message& m) {
    std::vector<std::shared_ptr<Subscription>> subscribers;
    {
      std::shared_lock l(mu_);
      if (auto t = topics_.find(topic); t != topics_.end()) subscribers = t->second;
    }
    std::stable_partition(subscribers.begin(), subscribers.end(), [](auto& s) { return !s->waits(); });
    std::vector<std::shared_ptr<Subscription>> ended;
    for (const auto& s : subscribers)
      if (!s->deliver(m)) ended.push_back(s);
    if (!ended.empty()) {
      std::unique_lock l(mu_);
      for (const auto& s : ended) std::erase(topics_[topic], s);
    }
    return static_cast<int>(subscribers.size() - ended.size());
  }

  void close() {
    std::unique_lock l(mu_);
    closed_ = true;
    for (auto& [name, subscribers] : topics_)
      for (const auto& s : subscribers) s->end();
    topics_.clear();
  }

 private:
  weft::RwMutex mu_;
  bool closed_ = false;
  std::map<std::string, std::vector<std::shared_ptr<Subscription>>> topics_;
};

// ---- the program ----------------------------------------------------------------------------------------------------

// Ten messages; four subscribers that read when all is over, one that reads along.
int ten_messages(std::ostream& out) {
  return weft::run([&] {
    Broker broker;
    const std::pair<const char*, std::shared_ptr<Subscription>> late[] = {
        {"drop oldest", broker.subscribe("news", {.slow = Slow::DropOldest})},
        {"drop newest", broker.subscribe("news", {.slow = Slow::DropNewest})},
        {"disconnect", broker.subscribe("news", {.slow = Slow::Disconnect})},
        {"wait", broker.subscribe("news", {.slow = Slow::Wait, .patience = 100us})},
    };
    const auto along = broker.subscribe("news", {.slow = Slow::Wait, .patience = 1min});
    std::ostringstream read_along;
    weft::WaitGroup reader;
    reader.go([&] {
      for (const Message& m : along->messages()) read_along << " " << m.number;
    });
    for (int i = 1; i <= 10; i++) broker.publish("news", {.number = i});
    out << broker.publish("weather", {}) << " subscribers for the weather\n";
    broker.close();
    reader.wait();
    for (const auto& [name, s] : late) {
      out << name << ":";
      for (const Message& m : s->messages()) out << " " << m.number;
      out << ", " << s->dropped() << " dropped" << (s->too_slow() ? ", too slow" : "") << "\n";
    }
    out << "reads along:" << read_along.str() << "\n";
  });
}

TEST(Broker, EachPolicyKeepsTheMessagesThatItPromises) {
  std::ostringstream out;
  EXPECT_EQ(ten_messages(out), 0);
  EXPECT_EQ(out.str(),
            "0 subscribers for the weather\n"
            "drop oldest: 8 9 10, 7 dropped\n"
            "drop newest: 1 2 3, 7 dropped\n"
            "disconnect: 1 2 3, 0 dropped, too slow\n"
            "wait: 1 2 3, 7 dropped\n"
            "reads along: 1 2 3 4 5 6 7 8 9 10\n");
}

TEST(Broker, EndingASubscriptionFreesThePublisherThatWaitsForIt) {
  weft::run([] {
    for (int i = 0; i < 300; i++) {
      Broker broker;
      const auto s = broker.subscribe("t", {.slow = Slow::Wait, .buffer = 0, .patience = 24h});
      const auto left = weft::make_chan<int>();
      const auto begun = weft::make_chan<void>();
      weft::go([&] {
        begun.send();
        left.send(broker.publish("t", {}));
      });
      begun.recv();
      for (int n = 0; n < i % 3; n++) weft::yield();  // from before the wait to well into it
      s->end();
      EXPECT_EQ(left.recv(), 0);
      EXPECT_FALSE(s->messages().recv());
      EXPECT_EQ(broker.publish("t", {}), 0);
    }
    EXPECT_TRUE(weft::settle(1, 1min));
  });
}

// Several publishers, readers that fall behind now and then, and some that leave in the middle.
TEST(Broker, EveryMessageIsReceivedOrDroppedAndTheRestAreInOrder) {
  constexpr int kPublishers = 3, kMessages = 2000, kTotal = kPublishers * kMessages;
  for (int procs : {1, 2, 8}) {
    weft::run(
        [&] {
          struct Reader {
            Subscription::Options options;
            int leaves_after;
            std::shared_ptr<Subscription> s;
            int received = 0;
            int last[kPublishers] = {};
            bool in_order = true, gapless = true;
          };
          Broker broker;
          std::vector<Reader> readers;
          for (Slow slow : {Slow::DropOldest, Slow::DropNewest, Slow::Disconnect, Slow::Wait})
            for (int leaves_after : {kTotal, kTotal + 1, 100}) {
              const Subscription::Options o{.slow = slow, .buffer = leaves_after > kTotal ? 1 : 8, .patience = 1h};
              readers.push_back({o, leaves_after, broker.subscribe("t", o)});
            }
          weft::WaitGroup reading, publishing;
          for (size_t i = 0; i < readers.size(); i++)
            reading.go([&r = readers[i], i] {
              for (const Message& m : r.s->messages()) {
                int& last = r.last[m.publisher];
                r.in_order = r.in_order && m.number > last;
                r.gapless = r.gapless && m.number == last + 1;
                last = m.number;
                if (++r.received == r.leaves_after) r.s->end();
                for (size_t n = 0; n < i % 3 && r.received % 7 == 0; n++) weft::yield();
              }
            });
          for (int p = 0; p < kPublishers; p++)
            publishing.go([&, p] {
              for (int i = 1; i <= kMessages; i++) {
                broker.publish("t", {p, i});
                if (i % 5 == 0) weft::yield();
              }
            });
          std::atomic<bool> over{false};
          for (Slow slow : {Slow::DropOldest, Slow::Wait})
            reading.go([&, slow] {  // comes and goes
              while (!over) {
                const auto s = broker.subscribe("t", {.slow = slow, .buffer = 1, .patience = 1h});
                for (int n = 0; n < 3; n++) s->messages().recv();
                s->end();
              }
            });
          publishing.wait();
          over = true;
          broker.close();
          reading.wait();
          for (const Reader& r : readers) {
            const int policy = static_cast<int>(r.options.slow);
            SCOPED_TRACE("policy " + std::to_string(policy) + ", procs " + std::to_string(procs));
            EXPECT_TRUE(r.in_order);
            if (r.options.slow == Slow::Wait || r.options.slow == Slow::Disconnect) {
              EXPECT_TRUE(r.gapless);
            }
            const bool left = r.leaves_after < kTotal;
            if (!left && !r.s->too_slow()) {
              EXPECT_EQ(r.received + r.s->dropped(), kTotal);
            }
            if (!left && r.options.slow == Slow::Wait) {
              EXPECT_EQ(r.received, kTotal);
            }
            if (left) {
              EXPECT_LE(r.received, r.leaves_after + r.options.buffer + 1);
            }
            EXPECT_GE(r.received, r.options.buffer);
          }
          EXPECT_TRUE(weft::settle(1, 1min));
        },
        {.procs = procs});
  }
}

}  // namespace
