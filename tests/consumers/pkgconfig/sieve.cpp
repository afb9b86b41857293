// The concurrent prime sieve: a chain of goroutines, each of which drops the multiples of one prime.
#include <cstdio>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/runtime.hpp>

int main() {
  return weft::run([] {
    weft::Chan<int> numbers = weft::make_chan<int>();
    weft::go([numbers] {
      for (int i = 2;; i++) numbers.send(i);
    });
    for (int i = 0; i < 10; i++) {
      const int prime = numbers.recv_or();
      std::printf("%d\n", prime);
      weft::Chan<int> rest = weft::make_chan<int>();
      weft::go([numbers, rest, prime] {
        for (int n : numbers)
          if (n % prime != 0) rest.send(n);
      });
      numbers = rest;
    }
  });
}
