// See queue.hpp.
#include "runtime/block/queue.hpp"

#include <bit>
#include <cstdio>
#include <vector>

#include "runtime/core/g.hpp"

namespace weft::rt {

WaitNode* nodes_for(G* gp, std::uint32_t n) {
  if (!gp) {
    static thread_local std::vector<WaitNode> mine;  // a plain thread never switches
    if (mine.size() < n) mine.resize(n);
    return mine.data();
  }
  if (gp->nodes_capacity() < n) {
    delete[] gp->nodes;
    gp->nodes = nullptr;
    gp->nodes_log = 0;
    const std::uint32_t cap = n == 1 || n > 8 ? std::bit_ceil(n) : 8;
    gp->nodes = new WaitNode[cap];
    gp->nodes_log = static_cast<std::uint8_t>(std::bit_width(cap));
  }
  return gp->nodes;
}

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
