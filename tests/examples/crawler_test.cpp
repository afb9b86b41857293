// A whole program: a crawler with a fixed number of workers and a limit per host, over loopback sockets. The hosts
// are goroutines that serve a generated graph of pages over HTTP, one port each.
//
// The coordinator alone knows what has been seen, what waits and how many fetches each host has now: no locks, and no
// worker waits for a host's turn while another host has pages.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

// Last: socket code looks at errno before and after a wait, which may end on another thread.
#include <weft/errno.hpp>

using namespace std::chrono_literals;

namespace {

// ---- sockets -------------------------------------------------------------------------------------------------------

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    if (fd < 0) fail("socket");
  }
  Socket(Socket&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

  /// Everything until the other side has finished, or has sent `end`.
  std::string read_until(std::string_view end) const {
    std::string all;
    char buf[512];
    while (end.empty() || all.find(end) == std::string::npos) {
      const ssize_t n = ::read(fd_, buf, sizeof buf);
      if (n == 0) break;
      if (n > 0)
        all.append(buf, static_cast<size_t>(n));
      else
        wait_or_fail(weft::Io::Read, "read");
    }
    return all;
  }
  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n >= 0)
        text.remove_prefix(static_cast<size_t>(n));
      else
        wait_or_fail(weft::Io::Write, "write");
    }
  }
  void wait_or_fail(weft::Io dir, const char* what) const {
    if (errno != EAGAIN && errno != EINPROGRESS) fail(what);
    if (std::error_code e = weft::wait_fd(fd_, dir, weft::now() + 30s)) throw std::system_error(e, what);
  }

 private:
  int fd_;
};

int tcp_socket() { return ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

sockaddr_in loopback(int port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  a.sin_port = htons(static_cast<uint16_t>(port));
  return a;
}

Socket dial(int port) {
  Socket s(tcp_socket());
  const sockaddr_in a = loopback(port);
  if (::connect(s.fd(), reinterpret_cast<const sockaddr*>(&a), sizeof a)) {
    s.wait_or_fail(weft::Io::Write, "connect");
    socklen_t len = sizeof errno;
    int error = 0;
    ::getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &error, &len);
    errno = error;
    if (error) fail("connect");
  }
  return s;
}

struct Url {
  int port = 0;
  std::string path;
  auto operator<=>(const Url&) const = default;
};

// "http://127.0.0.1:PORT/PATH"
Url parse_url(std::string_view text) {
  text.remove_prefix(text.rfind(':') + 1);
  const size_t slash = text.find('/');
  return {std::stoi(std::string(text.substr(0, slash))), std::string(text.substr(slash))};
}

// ---- the crawler ----------------------------------------------------------------------------------------------------

struct Page {
  Url url;
  std::vector<Url> links;
  std::string error;  // empty: fetched
};

Page fetch(const Url& url) {
  Page page{url, {}, {}};
  try {
    const Socket s = dial(url.port);
    s.write("GET " + url.path + " HTTP/1.0\r\n\r\n");
    const std::string answer = s.read_until("");
    std::istringstream lines(answer);
    std::string line;
    std::getline(lines, line);
    if (line.find(" 200 ") == std::string::npos) page.error = line.substr(0, line.find('\r'));
    while (std::getline(lines, line))
      if (line.starts_with("link ")) page.links.push_back(parse_url(line.substr(5)));
  } catch (const std::exception& e) {
    page.error = e.what();
  }
  return page;
}

struct Limits {
  int workers = 6;
  int per_host = 2;
};

std::vector<Page> crawl(const Url& start, Limits limits) {
  const auto jobs = weft::make_chan<Url>();
  const auto pages = weft::make_chan<Page>();
  weft::WaitGroup workers;
  for (int i = 0; i < limits.workers; i++)
    workers.go([=] {
      for (const Url& url : jobs) pages.send(fetch(url));
    });

  struct Host {
    std::deque<Url> waiting;
    int fetching = 0;
  };
  std::vector<Page> got;
  std::set<Url> seen{start};
  std::map<int, Host> hosts;
  hosts[start.port].waiting.push_back(start);
  for (int fetching = 0;;) {
    Host* free = nullptr;
    for (auto& [port, h] : hosts)
      if (!h.waiting.empty() && h.fetching < limits.per_host) free = &h;
    if (!free && fetching == 0) break;
    const Url next = free ? free->waiting.front() : Url{};
    Page page;
    if (weft::select(weft::send(jobs, next).when(free), weft::recv(pages, page)) == 0) {
      free->waiting.pop_front();
      free->fetching++;
      fetching++;
      continue;
    }
    fetching--;
    hosts[page.url.port].fetching--;
    for (const Url& link : page.links)
      if (seen.insert(link).second) hosts[link.port].waiting.push_back(link);
    got.push_back(std::move(page));
  }
  jobs.close();
  workers.wait();
  return got;
}

// ---- the hosts ------------------------------------------------------------------------------------------------------

// Counted on the serving side, from the request's arrival until its answer: what really went over the sockets.
struct Site {
  explicit Site(size_t pages) : links(pages), hits(pages) {}
  int port = 0;
  std::vector<std::vector<std::string>> links;  // by page
  std::vector<std::atomic<int>> hits;
  std::atomic<int> now{0}, most{0};
};

struct Load {
  std::atomic<int> now{0}, most{0};
  static void enter(std::atomic<int>& now, std::atomic<int>& most) {
    const int n = ++now;
    for (int m = most; m < n && !most.compare_exchange_weak(m, n);) {
    }
  }
};

class Host {
 public:
  Host(Site& site, Load& all) : site_(site), all_(all), listener_(tcp_socket()) {
    sockaddr_in a = loopback(0);
    socklen_t len = sizeof a;
    if (::bind(listener_.fd(), reinterpret_cast<sockaddr*>(&a), len) || ::listen(listener_.fd(), 64) ||
        ::getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&a), &len))
      fail("listen");
    site_.port = ntohs(a.sin_port);
    serving_.go([this] { accept_all(); });
  }
  ~Host() {
    quit_.close();
    serving_.wait();
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0)
        serving_.go([this, s = std::make_shared<Socket>(fd)] { serve(*s); });
      else if (weft::select(weft::ready(listener_.fd(), weft::Io::Read), weft::recv(quit_)) == 1)
        return;
    }
  }

  void serve(const Socket& s) {
    std::istringstream request(s.read_until("\r\n\r\n"));
    std::string method, path;
    request >> method >> path;
    Load::enter(site_.now, site_.most);
    Load::enter(all_.now, all_.most);
    weft::sleep_for(200us);  // its disk
    std::string answer = "HTTP/1.0 404 Not Found\r\n\r\n";
    const size_t page = path.size() > 1 ? std::stoul(path.substr(1)) : 0;
    if (page < site_.links.size()) {
      site_.hits[page]++;
      answer = "HTTP/1.0 200 OK\r\n\r\n";
      for (const std::string& link : site_.links[page]) answer += "link " + link + "\n";
    }
    all_.now--;
    site_.now--;
    s.write(answer);
  }

  Site& site_;
  Load& all_;
  const Socket listener_;
  const weft::Chan<void> quit_ = weft::make_chan<void>();
  weft::WaitGroup serving_;
};

struct Web {
  static constexpr size_t kHosts = 4, kPages = 40;
  Load load;
  std::vector<std::unique_ptr<Site>> sites;
  std::vector<std::unique_ptr<Host>> hosts;

  // Each page links to four others, on any host; the last tenth is linked to by nobody of the rest. One link is dead.
  explicit Web(uint32_t seed) {
    std::minstd_rand rng(seed);
    for (size_t h = 0; h < kHosts; h++) {
      sites.push_back(std::make_unique<Site>(kPages));
      hosts.push_back(std::make_unique<Host>(*sites.back(), load));
    }
    for (auto& site : sites)
      for (auto& links : site->links)
        for (int i = 0; i < 4; i++) links.push_back(url(rng() % kHosts, rng() % (kPages * 9 / 10)));
    sites[0]->links[0].push_back(url(1, 1000));
  }
  std::string url(size_t host, size_t page) const {
    return "http://127.0.0.1:" + std::to_string(sites[host]->port) + "/" + std::to_string(page);
  }
};

// ---- the program ----------------------------------------------------------------------------------------------------

int crawl_and_print(const std::string& start, Limits limits, std::ostream& out) {
  const std::vector<Page> pages = crawl(parse_url(start), limits);
  std::set<int> hosts;
  for (const Page& p : pages) {
    hosts.insert(p.url.port);
    if (!p.error.empty()) out << p.url.path << ": " << p.error << "\n";
  }
  out << pages.size() << " pages of " << hosts.size() << " hosts\n";
  return 0;
}

// What can be reached, by the graph.
size_t reachable(const Web& web) {
  std::set<std::string> seen{web.url(0, 0)};
  std::deque<std::string> todo{web.url(0, 0)};
  while (!todo.empty()) {
    const Url u = parse_url(todo.front());
    todo.pop_front();
    for (const auto& site : web.sites)
      if (const size_t page = std::stoul(u.path.substr(1)); site->port == u.port && page < Web::kPages)
        for (const std::string& link : site->links[page])
          if (seen.insert(link).second) todo.push_back(link);
  }
  return seen.size();
}

TEST(Crawler, FetchesEveryPageOnceWithinItsLimits) {
  for (int procs : {1, 2, 8}) {
    const Limits limits{.workers = 6, .per_host = 2};
    const int status = weft::run(
        [&] {
          {
            Web web(static_cast<uint32_t>(procs));
            std::ostringstream out;
            EXPECT_EQ(crawl_and_print(web.url(0, 0), limits, out), 0);
            const size_t all = reachable(web);
            EXPECT_GT(all, Web::kHosts * Web::kPages / 2);
            EXPECT_EQ(out.str(), "/1000: HTTP/1.0 404 Not Found\n" + std::to_string(all) + " pages of 4 hosts\n");
            size_t fetched = 1;  // the dead link
            for (const auto& site : web.sites) {
              for (const auto& n : site->hits) {
                EXPECT_LE(n, 1) << "fetched twice";
                fetched += n == 1;
              }
              EXPECT_LE(site->most, limits.per_host);
            }
            EXPECT_EQ(fetched, all);
            EXPECT_LE(web.load.most, limits.workers);
            EXPECT_GT(web.load.most, limits.per_host) << "hosts were not fetched from at once";
          }
          EXPECT_TRUE(weft::settle(1, 1min));
        },
        {.procs = procs});
    EXPECT_EQ(status, 0);
  }
}

TEST(Crawler, HostThatDoesNotAnswerIsAnErrorOfItsPage) {
  weft::run([] {
    int port;
    {
      Web web(1);
      port = web.sites[0]->port;
    }  // gone
    std::ostringstream out;
    EXPECT_EQ(crawl_and_print("http://127.0.0.1:" + std::to_string(port) + "/0", {}, out), 0);
    EXPECT_EQ(out.str(), "/0: connect: Connection refused\n1 pages of 1 hosts\n");
    EXPECT_TRUE(weft::settle(1, 1min));
  });
}

}  // namespace
