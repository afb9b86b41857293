// Skynet: a goroutine starts ten, each of which starts ten, until a million of them send their
// numbers back up.
#include <cstdint>
#include <cstdio>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/runtime.hpp>

#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"
#include "tools/tour/programs.hpp"

namespace tour {

namespace {

using Number = std::int64_t;

void node(weft::SendChan<Number> parent, Number first, Number leaves) {
  if (leaves == 1) return parent.send(first);
  auto children = weft::make_chan<Number>();
  for (int i = 0; i < 10; i++) weft::go(node, children, first + i * leaves / 10, leaves / 10);
  Number sum = 0;
  for (int i = 0; i < 10; i++) sum += children.recv_or();
  parent.send(sum);
}

}  // namespace

int skynet(const Options& options) {
  const Number leaves = options.small ? 1'000 : 1'000'000;
  return weft::run(
      [&] {
        tools::Progress progress("skynet", 10);
        auto branches = weft::make_chan<Number>();
        for (int i = 0; i < 10; i++) weft::go(node, branches, i * leaves / 10, leaves / 10);
        Number sum = 0;
        for (int i = 0; i < 10; i++) {
          sum += branches.recv_or();
          progress.add();
        }
        std::printf("%s goroutines counted to %s\n", tools::with_commas(leaves).c_str(),
                    tools::with_commas(sum).c_str());
        return sum == leaves * (leaves - 1) / 2 ? 0 : 1;
      },
      {.procs = options.procs});
}

}  // namespace tour
