// A whole program: a server whose handlers panic, run over their time, and are cancelled by their clients, while
// others are served.
//
// Shape    One scope holds all requests, and each has a scope of its own with its time limit and its client's
//          context. A handler takes no context: its waits, and those of what it spawns, end when that scope is
//          cancelled.
// Outcome  Each request is answered and counted once, in a deferred call: also when the handler panicked or the
//          server gave it up. 200 served, 404 no handler, 499 the client went, 500 it panicked or threw, 503 the
//          server stopped, 504 out of time.
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

struct Response {
  int status = 503;
  std::string body = "the server has stopped";
};

class Server {
 public:
  using Handler = std::function<std::string(const std::string& argument)>;

  void route(const std::string& name, std::chrono::nanoseconds limit, Handler h) {
    routes_[name] = {limit, std::move(h)};
  }

  /// Serves until ctx is done, then gives the requests in flight `drain` to end. All are answered when it returns.
  void serve(const weft::Context& ctx, std::chrono::nanoseconds drain) {
    weft::scope([&](weft::Scope& s) {
      weft::WaitGroup in_flight;
      while (weft::Recv<Request> r = requests_.recv(ctx)) {
        in_flight.add(1);
        s.spawn([this, &in_flight, r = std::move(*r.value)] {
          weft::Defer done{[&] { in_flight.done(); }};
          answer(r);
        });
      }
      stopped_.close();
      if (!in_flight.wait_for(drain)) s.cancel();
      weft::shield([&] { in_flight.wait(); });
    });
  }

  /// The client's side: the answer to "NAME ARGUMENT". Waits for it even if ctx is done: then it comes soon.
  Response call(const weft::Context& ctx, const std::string& name, const std::string& argument = "") {
    const Request r{name, argument, ctx, weft::make_chan<Response>(1)};
    if (weft::select(weft::send(requests_, r), weft::recv(stopped_)) == 1) return {};
    return *r.reply.recv();
  }

  std::map<int, int> outcomes() {
    std::lock_guard l(mu_);
    return outcomes_;
  }

 private:
  struct Request {
    std::string name, argument;
    weft::Context ctx;
    weft::Chan<Response> reply;
  };
  struct Route {
    std::chrono::nanoseconds limit;
    Handler handler;
  };

  void answer(const Request& r) {
    weft::func<Response>([&](weft::Frame<Response>& f) {
      f.defer([&] {
        {
          std::lock_guard l(mu_);
          outcomes_[f.result.status]++;
        }
        r.reply.send(f.result);
      });
      f.defer([&] {
        if (std::optional<weft::Panic> p = f.recover()) f.result = {500, p->what()};
      });
      const auto route = routes_.find(r.name);
      if (route == routes_.end()) {
        f.result = {404, r.name};
        return;
      }
      try {
        f.result = {200, weft::scope({.timeout = route->second.limit, .context = r.ctx},
                                     [&] { return route->second.handler(r.argument); })};
      } catch (const std::system_error& e) {
        if (e.code() == weft::Errc::deadline_exceeded)
          f.result = {504, "out of time"};
        else if (e.code() == weft::Errc::canceled)
          f.result = {499, "the client went"};
        else
          throw;
      }
    });
  }

  std::map<std::string, Route> routes_;
  const weft::Chan<Request> requests_ = weft::make_chan<Request>();
  const weft::Chan<void> stopped_ = weft::make_chan<void>();
  weft::Mutex mu_;
  std::map<int, int> outcomes_;
};

// What the handlers use, and have to give back however they end.
struct Backend {
  static constexpr int kConnections = 4;
  weft::Semaphore connections{kConnections};
  std::atomic<int> shards_cancelled{0};
  weft::Chan<void> begun = weft::make_chan<void>(10000);  // a handler that waits for its client to go has begun
};

void add_routes(Server& server, Backend& b) {
  server.route("echo", 1min, [](const std::string& text) { return text; });
  server.route("query", 1min, [&b](const std::string& text) {
    b.connections.acquire();
    weft::Defer release{[&] { b.connections.release(); }};
    weft::yield();
    return "rows of " + text;
  });
  server.route("panic", 1min, [&b](const std::string& text) -> std::string {
    b.connections.acquire();
    weft::Defer release{[&] { b.connections.release(); }};
    weft::panic("handler of " + text);
  });
  server.route("throw", 1min, [](const std::string& text) -> std::string { return std::to_string(std::stoi(text)); });
  server.route("sleep", 1ms, [](const std::string&) {
    weft::sleep_for(24h);
    return std::string("slept");
  });
  server.route("compute", 1ms, [](const std::string&) -> std::string {
    for (;;) weft::throw_if_canceled();
  });
  server.route("wait", 1min, [&b](const std::string&) -> std::string {
    weft::Mutex mu;
    std::lock_guard l(mu);
    b.begun.send();
    mu.lock();  // deadlocked, until its client goes
    return "waited";
  });
  // Asks three shards at once. One is down: the others are cancelled, the request fails.
  server.route("shards", 1min, [&b](const std::string& text) {
    return weft::scope([&](weft::Scope& s) {
      auto shard = [&](int n) -> std::string {
        if (text == "down" && n == 2) weft::panic("shard 2 is down");
        if (text == "down") {
          weft::Defer count{[&] { b.shards_cancelled++; }};
          weft::Chan<int>().recv();  // never answers
        }
        return text + std::to_string(n);
      };
      auto x = s.spawn(shard, 0), y = s.spawn(shard, 1), z = s.spawn(shard, 2);
      return x.get() + " " + y.get() + " " + z.get();
    });
  });
  // Leaves something running that would never end: that ends with the limit. The handler was not cut short: it answers.
  server.route("leak", 1ms, [](const std::string&) {
    return weft::scope([](weft::Scope& s) {
      s.spawn([] { weft::Chan<int>().recv(); });
      return std::string("done");
    });
  });
}

// ---- the program ----------------------------------------------------------------------------------------------------

int requests(std::ostream& out) {
  return weft::run([&] {
    Backend backend;
    Server server;
    add_routes(server, backend);
    auto [serving, stop] = weft::with_cancel(weft::background());
    weft::WaitGroup wg;
    wg.go([&, ctx = serving] { server.serve(ctx, 1min); });

    auto print = [&](const std::string& name, const Response& r) {
      out << name << ": " << r.status << " " << r.body << "\n";
    };
    for (auto [name, argument] : std::vector<std::pair<std::string, std::string>>{
             {"echo", "hello"}, {"query", "t"}, {"panic", "x"}, {"throw", "seven"}, {"throw", "7"}, {"sleep", ""},
             {"compute", ""}, {"shards", "up"}, {"shards", "down"}, {"leak", ""}, {"nothing", ""},
             {"echo", "still here"}})
      print(name, server.call(weft::background(), name, argument));

    auto [client, hang_up] = weft::with_cancel(weft::background());
    weft::Task<Response> waiting = weft::spawn([&, ctx = client] { return server.call(ctx, "wait"); });
    backend.begun.recv();
    hang_up();
    print("wait", waiting.get());

    stop();
    wg.wait();
    print("echo", server.call(weft::background(), "echo", "too late"));
    for (auto [status, n] : server.outcomes()) out << status << " x " << n << "\n";
  });
}

TEST(RequestServer, AnswersEachRequestWhateverItsHandlerDoes) {
  std::ostringstream out;
  EXPECT_EQ(requests(out), 0);
  EXPECT_EQ(out.str(),
            "echo: 200 hello\nquery: 200 rows of t\npanic: 500 handler of x\nthrow: 500 stoi\nthrow: 200 7\n"
            "sleep: 504 out of time\ncompute: 504 out of time\nshards: 200 up0 up1 up2\nshards: 500 shard 2 is down\n"
            "leak: 200 done\n"
            "nothing: 404 nothing\necho: 200 still here\nwait: 499 the client went\necho: 503 the server has stopped\n"
            "200 x 6\n404 x 1\n499 x 1\n500 x 3\n504 x 2\n");
}

TEST(RequestServer, ThousandsOfFailuresLeakNothingAndDisturbNobody) {
  constexpr int kClients = 24, kRounds = 40;
  for (int procs : {1, 2, 8})
    weft::run(
        [&] {
          Backend backend;
          Server server;
          add_routes(server, backend);
          auto [serving, stop] = weft::with_cancel(weft::background());
          weft::WaitGroup wg;
          wg.go([&, ctx = serving] { server.serve(ctx, 1min); });
          weft::WaitGroup clients;
          std::atomic<int> wrong{0};
          for (int c = 0; c < kClients; c++)
            clients.go([&, c] {
              for (int i = 0; i < kRounds; i++) {
                const std::string text = std::to_string(c * kRounds + i);
                auto expect = [&](const char* name, const std::string& argument, int status, const std::string& body) {
                  const Response r = server.call(weft::background(), name, argument);
                  if ((r.status != status || r.body != body) && wrong++ < 5)
                    ADD_FAILURE() << name << ": " << r.status << " " << r.body << ", procs " << procs;
                };
                expect("echo", text, 200, text);
                expect("query", text, 200, "rows of " + text);
                switch ((c + i) % 8) {
                  case 0: expect("panic", text, 500, "handler of " + text); break;
                  case 1: expect("throw", "x", 500, "stoi"); break;
                  case 2: expect("sleep", "", 504, "out of time"); break;
                  case 3: expect("shards", "down", 500, "shard 2 is down"); break;
                  case 4: expect("leak", "", 200, "done"); break;
                  case 5: expect("shards", text, 200, text + "0 " + text + "1 " + text + "2"); break;
                  default: {  // the client goes: before the request has begun, or in the middle
                    auto [ctx, hang_up] = weft::with_cancel(weft::background());
                    weft::Task<Response> t = weft::spawn([&, ctx = ctx] { return server.call(ctx, "wait"); });
                    if (i % 2) backend.begun.recv();
                    hang_up();
                    const Response r = t.get();
                    if (r.status != 499 && wrong++ < 5) ADD_FAILURE() << "wait: " << r.status << " " << r.body;
                  }
                }
              }
            });
          clients.wait();
          stop();
          wg.wait();
          int answered = 0;
          for (auto [status, n] : server.outcomes()) answered += n;
          EXPECT_EQ(answered, kClients * kRounds * 3);
          EXPECT_EQ(server.outcomes()[200], kClients * kRounds * 2 + kClients * kRounds * 2 / 8);
          EXPECT_EQ(server.outcomes()[499], kClients * kRounds * 2 / 8);
          EXPECT_EQ(backend.shards_cancelled, kClients * kRounds / 8 * 2);
          EXPECT_TRUE(backend.connections.try_acquire(Backend::kConnections)) << "a connection was not given back";
          backend.connections.release(Backend::kConnections);
          EXPECT_TRUE(weft::settle(1, 1min)) << weft::num_goroutines() << " goroutines are left";
        },
        {.procs = procs});
}

TEST(RequestServer, StopGivesUpWhatDoesNotEndInTimeAndAnswersIt) {
  weft::run([] {
    Backend backend;
    Server server;
    add_routes(server, backend);
    auto [serving, stop] = weft::with_cancel(weft::background());
    weft::WaitGroup wg;
    wg.go([&, ctx = serving] { server.serve(ctx, 1ms); });
    std::vector<weft::Task<Response>> calls;
    for (int i = 0; i < 20; i++)
      calls.push_back(weft::spawn([&] { return server.call(weft::background(), "wait"); }));
    for (int i = 0; i < 20; i++) backend.begun.recv();
    stop();
    wg.wait();
    for (auto& c : calls) EXPECT_EQ(c.get().status, 503);
    EXPECT_EQ(server.outcomes(), (std::map<int, int>{{503, 20}}));
    EXPECT_TRUE(weft::settle(1, 1min));
  });
}

}  // namespace
