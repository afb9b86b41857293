// A hundred thousand goroutines that each sleep for 1 to 10 ms.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>

#include <weft/runtime.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"
#include "tools/tour/programs.hpp"

namespace tour {

int sleepers(const Options& options) {
  using namespace std::chrono_literals;
  const int count = options.small ? 1'000 : 100'000;
  return weft::run(
      [&] {
        tools::Progress progress("sleepers", count);
        std::atomic<int> early{0};
        std::chrono::nanoseconds slept{0};
        weft::WaitGroup all;
        for (int i = 0; i < count; i++) {
          std::chrono::nanoseconds nap = 1ms * (1 + i % 10);
          slept += nap;
          all.go([&, nap] {
            weft::Time begin = weft::now();
            weft::sleep_for(nap);
            if (weft::now() - begin < nap) early++;
            progress.add();
          });
        }
        all.wait();
        std::printf("%s goroutines slept %s in all, %d woke early\n",
                    tools::with_commas(count).c_str(), tools::human_duration(slept).c_str(),
                    early.load());
        return early == 0 ? 0 : 1;
      },
      {.procs = options.procs});
}

}  // namespace tour
