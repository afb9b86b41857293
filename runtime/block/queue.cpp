// See queue.hpp.
#include "runtime/block/queue.hpp"

#include <cstdio>

#include "runtime/core/g.hpp"

namespace weft::rt {

void describe_waiters(const WaitQueue& q, char* text, std::size_t size) {
  std::size_t at = 0;
  const char* sep = "";
  text[0] = 0;
  for (const WaitNode* n = peek(q.first); n && at + 32 < size; n = n->next, sep = ", ") {
    const G* gp = n->waiter->g();
    const int k = gp ? std::snprintf(text + at, size - at, "%sgoroutine %llu", sep, static_cast<unsigned long long>(gp->id))
                     : std::snprintf(text + at, size - at, "%sa thread", sep);
    at += static_cast<std::size_t>(k);
  }
}

}  // namespace weft::rt
