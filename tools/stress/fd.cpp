// Descriptors and other people's threads: wait_fd and ready() on pipes, socket pairs and TCP, peers
// that close, numbers that are used again at once, deadlines, and callbacks that come from
// anywhere.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <weft/await.hpp>
#include <weft/chan.hpp>
#include <weft/error.hpp>
#include <weft/fd.hpp>
#include <weft/go.hpp>
#include <weft/panic.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/syscall.hpp"
#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;
using tools::result_or_errno;

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~Fd() { close(); }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

struct Ends {
  Fd in, out;  // read from in what was written to out
};

/// A pipe or a socket pair, non-blocking.
Ends make_ends(Rng& rng) {
  int fds[2];
  if (rng.chance(50)) {
    STRESS_CHECK(::pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0, "fd: no pipe");
  } else {
    STRESS_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                 "fd: no socket pair");
  }
  return {Fd(fds[0]), Fd(fds[1])};
}

/// Parks until `fd` is ready, by one of the ways there are.
void wait_ready(Rng& rng, int fd, weft::Io direction) {
  switch (rng.below(4)) {
    case 0:
      weft::select(weft::ready(fd, direction));
      break;
    case 1:
      while (weft::select(weft::ready(fd, direction), weft::timeout(rng.micros(500))) == 1) {
      }
      break;
    case 2:
      for (;;) {
        std::error_code error = weft::wait_fd(fd, direction, weft::now() + rng.micros(500));
        if (!error) break;
        STRESS_CHECK(error == weft::Errc::deadline_exceeded, "fd: wait_fd says %s",
                     error.message().c_str());
      }
      break;
    default: {
      std::error_code error = weft::wait_fd(fd, direction);
      STRESS_CHECK(!error, "fd: wait_fd says %s", error.message().c_str());
    }
  }
}

/// 0: the end of the stream.
std::size_t read_some(Rng& rng, int fd, char* to, std::size_t size) {
  for (;;) {
    long n = result_or_errno([&] { return ::read(fd, to, size); });
    if (n >= 0) return static_cast<std::size_t>(n);
    if (n == -ECONNRESET) return 0;  // the peer closed with data unread
    STRESS_CHECK(n == -EAGAIN || n == -EINTR, "fd: read fails with errno %ld", -n);
    if (n == -EAGAIN) wait_ready(rng, fd, weft::Io::Read);
  }
}

/// False: nobody reads any more.
bool write_all(Rng& rng, int fd, const char* from, std::size_t size) {
  while (size > 0) {
    long n = result_or_errno([&] { return ::write(fd, from, size); });
    if (n == -EPIPE || n == -ECONNRESET) return false;
    STRESS_CHECK(n >= 0 || n == -EAGAIN || n == -EINTR, "fd: write fails with errno %ld", -n);
    if (n == -EAGAIN) wait_ready(rng, fd, weft::Io::Write);
    if (n > 0) {
      from += n;
      size -= static_cast<std::size_t>(n);
    }
  }
  return true;
}

char byte_at(std::size_t offset) { return static_cast<char>(offset * 7 + offset / 251); }

/// Bytes through pipes and socket pairs: all of them, in order, then the end.
void streams(Context& c) {
  const int n = c.some_goroutines(60);
  const auto bytes = static_cast<std::size_t>(c.times(1'000, 400'000));
  weft::WaitGroup done;
  for (int i = 0; i < n / 2 + 1; i++) {
    auto ends = std::make_shared<Ends>(make_ends(c.rng));
    done.go([=, rng = c.rng.fork()]() mutable {
      std::array<char, 4'096> buffer;
      for (std::size_t sent = 0; sent < bytes;) {
        std::size_t size = std::min<std::size_t>(1 + rng.below(buffer.size()), bytes - sent);
        for (std::size_t k = 0; k < size; k++) buffer[k] = byte_at(sent + k);
        STRESS_CHECK(write_all(rng, ends->out.get(), buffer.data(), size), "streams: nobody reads");
        sent += size;
        beat();
      }
      ends->out.close();
    });
    done.go([=, rng = c.rng.fork()]() mutable {
      std::array<char, 4'096> buffer;
      std::size_t got = 0;
      while (std::size_t size =
                 read_some(rng, ends->in.get(), buffer.data(), 1 + rng.below(buffer.size()))) {
        for (std::size_t k = 0; k < size; k++) {
          STRESS_CHECK(buffer[k] == byte_at(got + k), "streams: byte %zu is wrong", got + k);
        }
        got += size;
        beat();
      }
      STRESS_CHECK(got == bytes, "streams: %zu of %zu bytes came", got, bytes);
    });
  }
  done.wait();
}

/// Both sides talk and listen at once on one socket, then one of them closes while the other waits.
void close_peer(Context& c) {
  const int n = c.some_goroutines(100);
  weft::WaitGroup done;
  for (int i = 0; i < n / 2 + 1; i++) {
    auto ends = std::make_shared<Ends>(make_ends(c.rng));
    const bool reader_goes = c.rng.chance(50);
    done.go([=, rng = c.rng.fork()]() mutable {  // the side that goes
      if (rng.chance(70)) weft::sleep_for(rng.micros(1'000));
      if (reader_goes) {
        char some[64];
        if (rng.chance(50)) read_some(rng, ends->in.get(), some, sizeof some);
        ends->in.close();
      } else {
        if (rng.chance(50)) write_all(rng, ends->out.get(), "farewell", 8);
        ends->out.close();
      }
      beat();
    });
    done.go([=, rng = c.rng.fork()]() mutable {  // the side that stays and must notice
      char buffer[8'192] = {};
      if (reader_goes) {
        while (write_all(rng, ends->out.get(), buffer, sizeof buffer)) beat();
      } else {
        while (read_some(rng, ends->in.get(), buffer, sizeof buffer) > 0) beat();
      }
    });
  }
  done.wait();
}

/// Descriptors that live for a moment: the number means another file the next time somebody waits
/// for it.
void reuse(Context& c) {
  const int n = c.some_goroutines(30), times = c.times(5, 150);
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([=, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) {
        Ends ends = make_ends(rng);
        weft::Time begin = weft::now();
        auto limit = rng.micros(300);
        switch (rng.below(4)) {
          case 0: {  // nothing comes
            std::error_code error = weft::wait_fd(ends.in.get(), weft::Io::Read, begin + limit);
            STRESS_CHECK(error == weft::Errc::deadline_exceeded,
                         "reuse: an empty pipe is readable (%s)", error.message().c_str());
            STRESS_CHECK(weft::now() - begin >= limit, "reuse: a deadline came early");
            break;
          }
          case 1:  // it is there already
            STRESS_CHECK(write_all(rng, ends.out.get(), "x", 1), "reuse: nobody reads");
            wait_ready(rng, ends.in.get(), weft::Io::Read);
            break;
          case 2: {  // it comes while we wait
            weft::WaitGroup written;
            written.go([&ends, fork = rng.fork()]() mutable {
              pause(fork);
              write_all(fork, ends.out.get(), "x", 1);
            });
            wait_ready(rng, ends.in.get(), weft::Io::Read);
            char x = 0;
            STRESS_CHECK(::read(ends.in.get(), &x, 1) == 1 && x == 'x',
                         "reuse: ready, but nothing to read");
            written.wait();
            break;
          }
          default:  // room to write
            wait_ready(rng, ends.out.get(), weft::Io::Write);
        }
        beat();
      }
    });
  }
  done.wait();
}

/// Several goroutines wait for one descriptor: all wake, from a plain thread's write too.
void crowd(Context& c) {
  const int n = c.some_goroutines(100), times = c.times(1, 10);
  for (int k = 0; k < times; k++) {
    Fd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    STRESS_CHECK(event.get() >= 0, "crowd: no eventfd");
    weft::WaitGroup done;
    std::atomic<int> woken{0};
    for (int i = 0; i < n; i++) {
      done.go([&, rng = c.rng.fork()]() mutable {
        wait_ready(rng, event.get(), weft::Io::Read);
        woken++;
        beat();
      });
    }
    auto write = [&event, time = c.rng.micros(500)] {
      ::usleep(static_cast<useconds_t>(time.count()));
      ::eventfd_write(event.get(), 1);
    };
    if (c.rng.chance(50)) {
      Thread writer(write);
    } else {
      weft::blocking(write);
    }
    done.wait();
    STRESS_CHECK(woken == n, "crowd: %d of %d woke", woken.load(), n);
  }
}

/// select between a descriptor, a channel and time: what is reported as ready is.
void with_channels(Context& c) {
  const int n = c.some_goroutines(60), times = c.times(3, 80);
  weft::WaitGroup done;
  for (int i = 0; i < n / 2 + 1; i++) {
    auto ends = std::make_shared<Ends>(make_ends(c.rng));
    auto values = weft::make_chan<int>();
    auto quit = weft::make_chan<void>();
    const int to_pipe = c.times(1, times), to_channel = times;
    done.go([=, rng = c.rng.fork()]() mutable {
      int bytes = 0, received = 0;
      for (bool running = true; running;) {
        int value = 0;
        switch (weft::select(weft::ready(ends->in.get(), weft::Io::Read), weft::recv(values, value),
                             weft::timeout(rng.micros(2'000)), weft::recv(quit))) {
          case 0: {
            char x;
            if (::read(ends->in.get(), &x, 1) == 1) bytes++;
            break;
          }
          case 1:
            STRESS_CHECK(value == received, "with_channels: %d came instead of %d", value,
                         received);
            received++;
            break;
          case 3:
            running = false;
            break;
          default:
            break;
        }
        beat();
      }
      char x;
      while (::read(ends->in.get(), &x, 1) == 1) bytes++;
      STRESS_CHECK(bytes == to_pipe && received == to_channel,
                   "with_channels: %d of %d bytes and %d of %d values came", bytes, to_pipe,
                   received, to_channel);
    });
    done.go([=, rng = c.rng.fork()]() mutable {
      weft::WaitGroup senders;
      senders.go([&, fork = rng.fork()]() mutable {
        for (int k = 0; k < to_pipe; k++) {
          write_all(fork, ends->out.get(), "x", 1);
          if (fork.chance(30)) pause(fork);
        }
      });
      for (int k = 0; k < to_channel; k++) values.send(k);
      senders.wait();
      quit.close();
    });
  }
  done.wait();
}

/// A TCP server and clients that come and go.
void tcp(Context& c) {
  const int clients = c.some_goroutines(40), messages = c.times(1, 20);
  Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  STRESS_CHECK(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                   ::listen(listener.get(), 1'024) == 0,
               "tcp: cannot listen");
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  weft::WaitGroup done;
  done.go([&, rng = c.rng.fork()]() mutable {
    for (int accepted = 0; accepted < clients;) {
      long fd = result_or_errno([&] {
        return ::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      });
      if (fd < 0) {
        STRESS_CHECK(fd == -EAGAIN || fd == -EINTR || fd == -ECONNABORTED,
                     "tcp: accept fails with errno %ld", -fd);
        wait_ready(rng, listener.get(), weft::Io::Read);
        continue;
      }
      accepted++;
      done.go(
          [connection = std::make_shared<Fd>(static_cast<int>(fd)), fork = rng.fork()]() mutable {
            char buffer[256];
            while (std::size_t n = read_some(fork, connection->get(), buffer, sizeof buffer)) {
              if (!write_all(fork, connection->get(), buffer, n)) return;
            }
          });
    }
  });
  for (int i = 0; i < clients; i++) {
    done.go([&, rng = c.rng.fork()]() mutable {
      Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      long n = result_or_errno([&] {
        return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
      });
      STRESS_CHECK(n == 0 || n == -EINPROGRESS, "tcp: connect fails with errno %ld", -n);
      wait_ready(rng, socket.get(), weft::Io::Write);
      for (int k = 0; k < messages; k++) {
        std::string message = std::to_string(rng.next());
        STRESS_CHECK(write_all(rng, socket.get(), message.data(), message.size()),
                     "tcp: nobody reads");
        std::string answer(message.size(), '\0');
        for (std::size_t got = 0; got < answer.size();) {
          std::size_t some = read_some(rng, socket.get(), answer.data() + got, answer.size() - got);
          STRESS_CHECK(some > 0, "tcp: the server is gone");
          got += some;
        }
        STRESS_CHECK(answer == message, "tcp: %s came back for %s", answer.c_str(),
                     message.c_str());
        beat();
      }
    });
  }
  done.wait();
}

/// Threads that know nothing of goroutines and run what they are given.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; i++) {
      threads_.emplace_back([this] { work(); });
    }
  }
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
  }
  void run(std::function<void()> job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return over_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool over_ = false;
  std::vector<Thread> threads_;  // last: joined first
};

/// await: the callback comes at once, later, from a thread, from a goroutine, twice, or never.
void callbacks(Context& c) {
  const int n = c.some_goroutines(100), times = c.times(3, 60);
  weft::WaitGroup done;
  {
    Pool pool(c.rng.between(1, 4));
    for (int i = 0; i < n; i++) {
      done.go([&, i, rng = c.rng.fork()]() mutable {
        for (int k = 0; k < times; k++) {
          const int expected = i * times + k;
          const int way = rng.between(0, 5);
          const auto time = static_cast<useconds_t>(rng.micros(100).count());
          try {
            int got = weft::await<int>([&](weft::Resume<int> resume) {
              switch (way) {
                case 0:
                  resume(expected);
                  break;
                case 1:
                  weft::go([resume, expected] { resume(expected); });
                  break;
                case 2:  // two race: both say the same, one of them is heard
                  pool.run([resume, expected] { resume(expected); });
                  pool.run([resume, expected] { resume(expected); });
                  break;
                case 3:  // nobody will call it
                  pool.run([resume] { (void)resume; });
                  break;
                case 4:
                  weft::after_func(std::chrono::microseconds(time),
                                   [resume, expected] { resume(expected); });
                  break;
                default:
                  pool.run([resume, expected, time] {
                    ::usleep(time);
                    resume(expected);
                    resume(-1);
                  });
              }
            });
            STRESS_CHECK(got == expected, "callbacks: %d came instead of %d", got, expected);
            STRESS_CHECK(way != 3, "callbacks: something came from a callback that was dropped");
          } catch (const weft::Panic&) {
            STRESS_CHECK(way == 3, "callbacks: await panicked though it was resumed");
          }
          beat();
        }
      });
    }
    done.wait();
  }
}

constexpr Scenario kScenarios[] = {
    {"streams", streams},     {"close_peer", close_peer},       {"reuse", reuse},
    {"crowd", crowd},         {"with_channels", with_channels}, {"tcp", tcp},
    {"callbacks", callbacks},
};

}  // namespace

std::span<const Scenario> fd_scenarios() { return kScenarios; }

}  // namespace stress
