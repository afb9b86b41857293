// A TCP echo server and its clients on loopback sockets. A goroutine whose socket is not ready
// parks in wait_fd(); the code reads as if the calls blocked.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <weft/chan.hpp>
#include <weft/fd.hpp>
#include <weft/go.hpp>
#include <weft/runtime.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"
#include "tools/common/syscall.hpp"
#include "tools/tour/programs.hpp"

namespace tour {

namespace {

[[noreturn]] void fail(int error, const char* what) {
  throw std::system_error(error, std::generic_category(), what);
}

/// A non-blocking socket that closes itself.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }

  static Socket tcp() {
    int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail(errno, "socket");
    return Socket(fd);
  }

  int fd() const { return fd_; }

  /// 0 at the end of the stream.
  std::size_t read(char* to, std::size_t size) {
    return when_ready(weft::Io::Read, "read", [&] { return ::recv(fd_, to, size, 0); });
  }

  void write(std::string_view data) {
    while (!data.empty()) {
      data.remove_prefix(when_ready(weft::Io::Write, "write", [&] {
        return ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
      }));
    }
  }

  Socket accept() {
    auto call = [&] { return ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); };
    return Socket(static_cast<int>(when_ready(weft::Io::Read, "accept", call)));
  }

  void connect(const sockaddr_in& to) {
    long n = tools::result_or_errno(
        [&] { return ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to); });
    if (n == 0) return;
    if (n != -EINPROGRESS) fail(static_cast<int>(-n), "connect");
    if (std::error_code error = weft::wait_fd(fd_, weft::Io::Write)) throw std::system_error(error);
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) fail(error, "connect");
  }

 private:
  /// Makes the call, and parks this goroutine for as long as it would block.
  template <class Call>
  std::size_t when_ready(weft::Io direction, const char* what, Call call) {
    for (;;) {
      long n = tools::result_or_errno(call);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (n == -EINTR) continue;
      if (n != -EAGAIN) fail(static_cast<int>(-n), what);
      if (std::error_code error = weft::wait_fd(fd_, direction))
        throw std::system_error(error, what);
    }
  }

  int fd_;
};

void serve(Socket connection) {
  char buffer[4096];
  while (std::size_t n = connection.read(buffer, sizeof buffer)) connection.write({buffer, n});
}

/// The server: takes that many connections, and ends when they have.
void accept_all(Socket& listener, int connections) {
  weft::WaitGroup open;
  for (int i = 0; i < connections; i++) open.go(serve, listener.accept());
  open.wait();
}

/// Sends `trips` messages and takes each one back; returns how many came back as they were sent.
int talk(const sockaddr_in& server, int client, int trips, tools::Progress& progress) {
  Socket socket = Socket::tcp();
  socket.connect(server);
  int echoed = 0;
  for (int i = 0; i < trips; i++) {
    std::string message = "message " + std::to_string(i) + " of client " + std::to_string(client);
    socket.write(message);
    std::string answer(message.size(), '\0');
    std::size_t got = 0;
    while (got < answer.size()) {
      std::size_t n = socket.read(answer.data() + got, answer.size() - got);
      if (n == 0) return echoed;
      got += n;
    }
    if (answer == message) echoed++;
    progress.add();
  }
  return echoed;
}

}  // namespace

int echo(const Options& options) {
  const int clients = options.small ? 8 : 64;
  const int trips = options.small ? 50 : 1'000;
  return weft::run(
      [&] {
        Socket listener = Socket::tcp();
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        if (::bind(listener.fd(), reinterpret_cast<sockaddr*>(&address), size) != 0)
          fail(errno, "bind");
        if (::listen(listener.fd(), clients) != 0) fail(errno, "listen");
        ::getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size);

        tools::Progress progress("echo", static_cast<std::uint64_t>(clients) * trips);
        weft::WaitGroup server;
        server.go([&] { accept_all(listener, clients); });
        auto echoed = weft::make_chan<int>();
        for (int client = 0; client < clients; client++) {
          weft::go([&, client, echoed] { echoed.send(talk(address, client, trips, progress)); });
        }
        int total = 0;
        for (int client = 0; client < clients; client++) total += echoed.recv_or();
        server.wait();
        std::printf("%d clients on 127.0.0.1:%d had %s of %s messages echoed\n", clients,
                    ntohs(address.sin_port), tools::with_commas(total).c_str(),
                    tools::with_commas(static_cast<std::uint64_t>(clients) * trips).c_str());
        return total == clients * trips ? 0 : 1;
      },
      {.procs = options.procs});
}

}  // namespace tour
