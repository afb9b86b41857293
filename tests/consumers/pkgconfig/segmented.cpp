// A recursion of 16 MiB in a goroutine that began with a few pages; exit status 0 if it came back right.
#include <weft/weft.hpp>

#include <cstdint>
#include <thread>

namespace {

[[gnu::noinline]] std::uint64_t depth(std::uint64_t n) {
  volatile char frame[1000];
  frame[0] = static_cast<char>(n);
  return n == 0 ? 0 : depth(n - 1) + 1 + (frame[0] != static_cast<char>(n));
}

}  // namespace

int main() {
  return weft::run([] {
    std::uint64_t got = 0;
    auto done = weft::make_chan<void>();
    weft::go({.stack = weft::Stack::Segmented}, [&] {
      got = depth(16 << 10);
      done.send();
    });
    (void)done.recv();
    std::thread([&] { got += depth(1000); }).join();  // on a plain thread nothing is split
    return got == (16 << 10) + 1000 ? 0 : 1;
  });
}
