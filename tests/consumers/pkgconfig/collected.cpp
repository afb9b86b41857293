// Goroutines that keep collected memory, as a stranger's program would.
#include <weft/chan.hpp>
#include <weft/gc_boehm.hpp>
#include <weft/runtime.hpp>

struct Cell {
  Cell* next;
  int n;
};

int main() {
  weft::gc::boehm::init();
  return weft::run([] {
    auto out = weft::make_chan<Cell*>();
    weft::go([out] {
      Cell* first = nullptr;
      for (int i = 0; i < 1000; i++) first = weft::gc::boehm::make<Cell>(first, i);
      weft::gc::boehm::collect();
      out.send(first);
    });
    int sum = 0;
    for (const Cell* c = out.recv_or(); c; c = c->next) sum += c->n;
    return sum == 499'500 ? 0 : 1;
  });
}
