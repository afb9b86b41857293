// Select: exactly one case happens, whatever the order in which channels are named, locked and
// closed.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/panic.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;
using Token = std::uint64_t;

template <class T>
void shuffle(Rng& rng, std::vector<T>& v) {
  for (std::size_t i = v.size(); i > 1; i--) std::swap(v[i - 1], v[rng.below(i)]);
}

/// Four channels. Dedicated senders and receivers, and selecting ones that name the channels in
/// another order each time and switch a case off when its quota is used up. What goes in comes out.
void crossed(Context& c) {
  constexpr std::size_t kChannels = 4;
  const int selecting = std::max(1, std::min(c.goroutines / 16, c.rng.between(1, 6)));
  const auto quota = static_cast<std::uint64_t>(c.times(20, 500));
  std::array<weft::Chan<Token>, kChannels> channels;
  for (auto& channel : channels)
    channel = weft::make_chan<Token>(c.rng.chance(60) ? 0 : c.rng.between(1, 3));
  const std::size_t senders = kChannels + static_cast<std::size_t>(selecting) * kChannels;
  Marks marks(senders * quota);
  std::array<std::atomic<std::uint64_t>, kChannels> received{};
  weft::WaitGroup done;

  auto take = [&](std::size_t channel, Token token) {
    marks.mark(token, "crossed");
    received[channel].fetch_add(1, std::memory_order_relaxed);
    beat();
  };
  for (std::size_t k = 0; k < kChannels; k++) {
    done.go([&, k] {
      for (Token i = 0; i < quota; i++) channels[k].send(k * quota + i);
    });
    done.go([&, k] {
      for (Token i = 0; i < quota; i++) take(k, channels[k].recv().value());
    });
  }
  for (int s = 0; s < selecting; s++) {
    const std::size_t base = kChannels * (1 + static_cast<std::size_t>(s));
    done.go([&, base, rng = c.rng.fork()]() mutable {
      std::array<Token, kChannels> sent{};
      for (Token left = quota * kChannels; left > 0; left--) {
        auto value = [&](std::size_t k) { return (base + k) * quota + sent[k]; };
        auto open = [&](std::size_t k) { return sent[k] < quota; };
        if (rng.chance(50)) {
          int chosen = weft::select(weft::send(channels[3], value(3)).when(open(3)),
                                    weft::send(channels[1], value(1)).when(open(1)),
                                    weft::send(channels[0], value(0)).when(open(0)),
                                    weft::send(channels[2], value(2)).when(open(2)));
          constexpr std::size_t kOrder[] = {3, 1, 0, 2};
          sent[kOrder[chosen]]++;
        } else {
          std::vector<std::size_t> order;
          for (std::size_t k = 0; k < kChannels; k++) {
            if (open(k)) order.push_back(k);
          }
          shuffle(rng, order);
          weft::Selector selector;
          for (std::size_t k : order) selector.send(channels[k], value(k));
          sent[order[static_cast<std::size_t>(selector.wait())]]++;
        }
      }
    });
    done.go([&, rng = c.rng.fork()]() mutable {
      std::array<Token, kChannels> got{};
      for (Token left = quota * kChannels; left > 0; left--) {
        auto open = [&](std::size_t k) { return got[k] < quota; };
        std::optional<Token> token;
        std::size_t k;
        if (rng.chance(50)) {
          k = static_cast<std::size_t>(weft::select(weft::recv(channels[0], token).when(open(0)),
                                                    weft::recv(channels[1], token).when(open(1)),
                                                    weft::recv(channels[2], token).when(open(2)),
                                                    weft::recv(channels[3], token).when(open(3))));
        } else {
          std::vector<std::size_t> order;
          for (std::size_t i = 0; i < kChannels; i++) {
            if (open(i)) order.push_back(i);
          }
          shuffle(rng, order);
          weft::Selector selector;
          for (std::size_t i : order) selector.recv(channels[i], token);
          k = order[static_cast<std::size_t>(selector.wait())];
        }
        got[k]++;
        take(k, token.value());
      }
    });
  }
  done.wait();
  marks.all_marked("crossed");
  for (std::size_t k = 0; k < kChannels; k++) {
    STRESS_CHECK(received[k] == quota * (1 + static_cast<Token>(selecting)),
                 "crossed: channel %zu carried %llu tokens", k,
                 static_cast<unsigned long long>(received[k]));
  }
}

/// Tokens move between buffered channels, taken and put by selects in which channels stand several
/// times.
void circulate(Context& c) {
  const auto channels_n = static_cast<std::size_t>(c.rng.between(2, 20));
  const int tokens = c.rng.between(1, 60), workers = c.some_goroutines(30),
            times = c.times(10, 500);
  std::vector<weft::Chan<Token>> channels;
  for (std::size_t i = 0; i < channels_n; i++) channels.push_back(weft::make_chan<Token>(tokens));
  for (int t = 0; t < tokens; t++) channels[c.rng.below(channels_n)].send(static_cast<Token>(t));
  weft::WaitGroup done;
  std::vector<Thread> threads;
  done.add(workers);
  for (int w = 0; w < workers; w++) {
    go_or_thread(c.rng, threads, [&, rng = c.rng.fork()]() mutable {
      for (int i = 0; i < times; i++) {
        Token token = 0;
        weft::Selector take;
        for (std::size_t k = rng.below(3) + channels_n; k > 0; k--) {
          take.recv(channels[k % channels_n], token);
        }
        if (take.wait_for(rng.micros(500)) < 0) continue;  // all tokens are in other hands
        if (rng.chance(5)) pause(rng);
        weft::Selector put;
        for (std::size_t k = rng.between(1, 4); k > 0; k--)
          put.send(channels[rng.below(channels_n)], token);
        STRESS_CHECK(put.wait() >= 0, "circulate: a select without a limit came back empty");
        beat();
      }
      done.done();
    });
  }
  done.wait();
  threads.clear();
  Marks marks(static_cast<std::size_t>(tokens));
  for (auto& channel : channels) {
    while (weft::Recv<Token> r = channel.try_recv()) marks.mark(*r.value, "circulate");
  }
  marks.all_marked("circulate");
}

/// Both sides give up after a moment, at the moment the other side comes.
void timeouts(Context& c) {
  const int pairs = c.some_goroutines(40), each = c.times(10, 300);
  auto values = weft::make_chan<std::unique_ptr<int>>(c.rng.chance(70) ? 0 : 1);
  const auto limit = c.rng.between(1, 60);
  std::atomic<int> sent{0}, received{0};
  weft::WaitGroup senders, receivers;
  std::atomic<bool> over{false};
  for (int p = 0; p < pairs; p++) {
    senders.go([&, rng = c.rng.fork()]() mutable {
      for (int i = 0; i < each; i++) {
        auto value = std::make_unique<int>(i);
        auto time = rng.micros(limit);
        bool in_time = rng.chance(50) ? values.send_for(std::move(value), time)
                                      : weft::select(weft::send(values, std::move(value)),
                                                     weft::timeout(time)) == 0;
        STRESS_CHECK((value == nullptr) == in_time, "timeouts: a send that %s its value",
                     in_time ? "succeeded kept" : "timed out lost");
        if (in_time) sent++;
        beat();
      }
    });
    receivers.go([&, rng = c.rng.fork()]() mutable {
      while (!over) {
        auto time = rng.micros(limit);
        std::unique_ptr<int> value;
        bool got;
        if (rng.chance(50)) {
          weft::Recv<std::unique_ptr<int>> r = values.recv_for(time);
          got = r.status == weft::RecvStatus::Ok;
          if (got) value = std::move(*r.value);
        } else {
          got = weft::select(weft::recv(values, value), weft::timeout(time)) == 0;
        }
        STRESS_CHECK(!got || value != nullptr, "timeouts: an empty value came");
        if (got) received++;
        if (rng.chance(2)) pause(rng);
      }
    });
  }
  senders.wait();
  over = true;
  receivers.wait();
  while (values.try_recv()) received++;
  STRESS_CHECK(sent == received, "timeouts: %d sent, %d received", sent.load(), received.load());
}

/// Everybody waits in selects of all shapes; one close lets everybody go.
void close_all(Context& c) {
  const int n = c.some_goroutines(500);
  auto done = weft::make_chan<void>();
  auto silent = weft::make_chan<int>(), full = weft::make_chan<int>(1), nil = weft::Chan<int>();
  full.send(0);
  std::atomic<int> left{0};
  weft::WaitGroup all;
  for (int i = 0; i < n; i++) {
    all.go([&, rng = c.rng.fork()]() mutable {
      int value = 0;
      bool more = true;
      switch (rng.below(5)) {
        case 0:
          STRESS_CHECK(weft::select(weft::recv(silent, value), weft::recv(done, more)) == 1,
                       "close_all: a value came on a silent channel");
          STRESS_CHECK(!more, "close_all: a value came instead of the close");
          break;
        case 1:
          STRESS_CHECK(
              weft::select(weft::send(full, 1), weft::recv(done), weft::recv(nil, value)) == 1,
              "close_all: a full channel took a value");
          break;
        case 2:
          STRESS_CHECK(weft::select(weft::recv(done), weft::timeout(1h), weft::recv(done)) != 1,
                       "close_all: an hour has passed");
          break;
        case 3: {
          weft::Selector s;
          s.recv(done).recv(silent, value).recv(done).send(nil, 3);
          int chosen = s.wait();
          STRESS_CHECK(chosen == 0 || chosen == 2, "close_all: case %d was chosen", chosen);
          break;
        }
        default:
          done.recv();
      }
      left++;
      beat();
    });
  }
  if (c.rng.chance(70)) weft::sleep_for(c.rng.micros(1'000));
  done.close();
  all.wait();
  STRESS_CHECK(left == n, "close_all: %d of %d were let go", left.load(), n);
}

/// One select sends and receives on the channels of the others at once, over unbuffered channels:
/// every meeting has two sides, and nobody meets himself.
void meet(Context& c) {
  const int n = c.some_goroutines(30), times = c.times(10, 300);
  std::vector<weft::Chan<int>> channels;
  for (int i = c.rng.between(1, 4); i > 0; i--) channels.push_back(weft::make_chan<int>());
  std::atomic<long> sent{0}, received{0};
  std::atomic<bool> over{false};
  weft::WaitGroup all;
  for (int i = 0; i < n; i++) {
    all.go([&, i, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times && !over; k++) {
        auto& out = channels[rng.below(channels.size())];
        auto& in = channels[rng.below(channels.size())];
        int other = -1;
        switch (weft::select(weft::send(out, i), weft::recv(in, other),
                             weft::timeout(rng.micros(2'000)))) {
          case 0:
            sent++;
            break;
          case 1:
            received++;
            STRESS_CHECK(other != i, "meet: a goroutine received from itself");
            break;
          default:
            break;
        }
        beat();
      }
    });
  }
  all.wait();
  STRESS_CHECK(sent == received, "meet: %ld sent, %ld received", sent.load(), received.load());
}

/// The choices that need no luck.
void choices(Context& c) {
  auto a = weft::make_chan<int>(2), b = weft::make_chan<int>(2);
  for (int i = c.times(5, 200); i > 0; i--) {
    int value = 0;
    STRESS_CHECK(weft::select(weft::recv(a, value), weft::recv(b, value), weft::otherwise()) == 2,
                 "choices: an empty channel gave a value");
    a.send(1);
    b.send(2);
    STRESS_CHECK(weft::select(weft::prioritized, weft::recv(b, value), weft::recv(a, value)) == 0 &&
                     value == 2,
                 "choices: prioritized took the second");
    STRESS_CHECK(weft::select(weft::recv(a, value).when(false), weft::recv(b, value),
                              weft::otherwise()) == 2,
                 "choices: a case that is off was taken");
    STRESS_CHECK(weft::select(weft::recv(a, value), weft::timeout(0s)) == 0 && value == 1,
                 "choices: a timeout of zero won against a ready case");
    pause(c.rng);
    beat();
  }
  // Uniform: each of two ready cases is taken now and then.
  int taken[2] = {0, 0};
  a.send(1);
  b.send(2);
  for (int i = 0; i < 200; i++) {
    int value = 0;
    int chosen = weft::select(weft::recv(a, value), weft::recv(b, value));
    taken[chosen == 0 ? 0 : 1]++;
    (chosen == 0 ? a : b).send(value);
  }
  STRESS_CHECK(taken[0] > 40 && taken[1] > 40, "choices: of 200 selects %d and %d took each case",
               taken[0], taken[1]);
}

/// A server that reads requests, answers on the channel that came with each, and stops when it is
/// told.
void requests(Context& c) {
  struct Request {
    int question;
    weft::SendChan<int> answer;
  };
  const int servers = c.some_goroutines(4), clients = c.some_goroutines(50), each = c.times(3, 60);
  auto inbox = weft::make_chan<Request>(c.rng.between(0, 4));
  auto quit = weft::make_chan<void>();
  weft::WaitGroup serving, asking;
  std::atomic<int> answered{0}, gave_up{0}, late{0};
  for (int s = 0; s < servers; s++) {
    serving.go([&, rng = c.rng.fork()]() mutable {
      for (std::optional<Request> request;;) {
        if (weft::select(weft::recv(inbox, request), weft::recv(quit)) == 1) return;
        if (rng.chance(10)) pause(rng);
        // The client may have gone: its channel has room for one answer.
        request->answer.send(request->question * 2);
        beat();
      }
    });
  }
  for (int k = 0; k < clients; k++) {
    asking.go([&, rng = c.rng.fork()]() mutable {
      for (int i = 0; i < each; i++) {
        auto answer = weft::make_chan<int>(1);
        inbox.send({i, answer});
        int got = -1;
        if (weft::select(weft::recv(answer, got), weft::timeout(rng.micros(500))) == 1) {
          gave_up++;
          if (rng.chance(50)) continue;
          got = answer.recv_or(-1);
          late++;
        }
        STRESS_CHECK(got == 2 * i, "requests: answer %d to question %d", got, i);
        answered++;
      }
    });
  }
  asking.wait();
  quit.close();
  serving.wait();
  STRESS_CHECK(answered - late + gave_up == clients * each,
               "requests: %d answers in time, %d not, of %d", answered - late, gave_up.load(),
               clients * each);
}

constexpr Scenario kScenarios[] = {
    {"crossed", crossed},     {"circulate", circulate}, {"timeouts", timeouts},
    {"close_all", close_all}, {"meet", meet},           {"choices", choices},
    {"requests", requests},
};

}  // namespace

std::span<const Scenario> select_scenarios() { return kScenarios; }

}  // namespace stress
