// A host that owns its threads embeds a Runtime: plain threads send jobs, goroutines answer, the host stops it all.
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include <weft/weft.hpp>

using namespace std::chrono_literals;

int main() {
  weft::Config config;
  config.procs = 2;
  weft::Runtime rt{config};
  if (std::error_code e = rt.start()) {
    std::fprintf(stderr, "start: %s\n", e.message().c_str());
    return 1;
  }

  auto jobs = weft::make_chan<int>(8);
  auto squares = weft::make_chan<long>();
  for (int i = 0; i < 3; i++) {
    rt.go([jobs, squares] {
      for (int n : jobs) squares.send(static_cast<long>(n) * n);
    });
  }

  std::vector<std::thread> hosts;
  for (int first : {0, 50}) {
    hosts.emplace_back([jobs, first] {
      for (int n = first; n < first + 50; n++) jobs.send(n);
    });
  }
  long sum = 0;
  for (int i = 0; i < 100; i++) sum += squares.recv_or();
  for (std::thread& host : hosts) host.join();
  jobs.close();

  std::printf("sum of squares %ld\n", sum);
  const weft::StopResult stopped = rt.stop(5s);
  std::printf("left behind %zu\n", stopped.unwound.size() + stopped.abandoned.size());
}
