// The prime sieve of Hoare and McIlroy: a chain of goroutines, one for each prime, and every number
// walks along it.
#include <cstdio>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/runtime.hpp>

#include "tools/common/progress.hpp"
#include "tools/tour/programs.hpp"

namespace tour {

namespace {

void generate(weft::SendChan<int> out) {
  for (int i = 2;; i++) out.send(i);
}

void filter(weft::RecvChan<int> in, weft::SendChan<int> out, int prime) {
  for (int i : in) {
    if (i % prime != 0) out.send(i);
  }
}

}  // namespace

int sieve(const Options& options) {
  const int count = options.small ? 100 : 2000;
  const int expected = options.small ? 541 : 17389;
  return weft::run(
      [&] {
        tools::Progress progress("sieve", count);
        int prime = 0;
        auto numbers = weft::make_chan<int>();
        weft::go(generate, numbers);
        for (int i = 0; i < count; i++) {
          prime = numbers.recv_or();
          auto rest = weft::make_chan<int>();
          weft::go(filter, numbers, rest, prime);
          numbers = rest;
          progress.add();
        }
        std::printf("prime number %d is %d\n", count, prime);
        return prime == expected ? 0 : 1;
      },
      {.procs = options.procs});
}

}  // namespace tour
