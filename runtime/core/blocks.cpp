// See blocks.hpp.
#include "runtime/core/blocks.hpp"

#include <cstdlib>

#include "arch/stack_memory.hpp"
#include "runtime/base/atomic.hpp"
#include "runtime/base/lock.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kStep = 64;
constexpr std::size_t kMost = 4096 + 64;
constexpr std::size_t kChunkBytes = 2 << 20;
constexpr std::size_t kHead = 16;  // of a peer block: its size, and the alignment of what follows

struct Free {
  Free* next;
};

/// In the first block of each.
struct Chunk {
  Chunk* next;
};

SpinLock lock;
Free* lists[kMost / kStep + 1];
char* chunk_at = nullptr;
char* chunk_end = nullptr;
Chunk* chunks = nullptr;
std::atomic<std::size_t> count{0};
std::atomic<std::size_t> bytes{0};

bool more() {
  char* c = arch::map_chunk(kChunkBytes, chunks != nullptr);
  if (!c) return false;
  auto* chunk = reinterpret_cast<Chunk*>(c);
  chunk->next = chunks;
  chunks = chunk;
  chunk_at = c + kStep;
  chunk_end = c + kChunkBytes;
  return true;
}

}  // namespace

std::size_t block_bytes(std::size_t n) { return (n + kStep - 1) & ~(kStep - 1); }

void* block_acquire(std::size_t size) {
  void* block = nullptr;
  if (size > kMost) {
    block = std::malloc(size);
  } else {
    lock.lock();
    Free*& list = lists[size / kStep];
    if (list) {
      block = list;
      list = list->next;
    } else {
      // What a chunk has left at its end is lost: at most 4 KiB in 2 MiB.
      if (static_cast<std::size_t>(chunk_end - chunk_at) >= size || more()) {
        block = chunk_at;
        chunk_at += size;
      }
    }
    lock.unlock();
  }
  if (block) {
    count.fetch_add(1, memory_order_relaxed);
    bytes.fetch_add(size, memory_order_relaxed);
  }
  return block;
}

void block_release(void* block, std::size_t size) {
  count.fetch_sub(1, memory_order_relaxed);
  bytes.fetch_sub(size, memory_order_relaxed);
  if (size > kMost) {
    std::free(block);
    return;
  }
  auto* f = static_cast<Free*>(block);
  lock.lock();
  f->next = lists[size / kStep];
  lists[size / kStep] = f;
  lock.unlock();
}

void* peer_block_acquire(std::size_t n) {
  auto* head = static_cast<std::size_t*>(block_acquire(block_bytes(n + kHead)));
  if (!head) return nullptr;
  *head = n;
  return reinterpret_cast<char*>(head) + kHead;
}

void peer_block_release(void* block) {
  auto* head = reinterpret_cast<std::size_t*>(static_cast<char*>(block) - kHead);
  block_release(head, block_bytes(*head + kHead));
}

std::size_t peer_block_bytes(const void* block) {
  const auto* at = static_cast<const char*>(block);
  for (const Chunk* c = chunks; c; c = c->next) {
    const char* lo = reinterpret_cast<const char*>(c);
    if (at < lo + kStep + kHead || at >= lo + kChunkBytes) continue;
    const std::size_t n = *reinterpret_cast<const std::size_t*>(at - kHead);
    return n <= kMost && static_cast<std::size_t>(lo + kChunkBytes - at) >= n ? n : 0;
  }
  return 0;
}

void blocks_stop() {
  while (Chunk* c = chunks) {
    chunks = c->next;
    arch::unmap_chunk(reinterpret_cast<char*>(c), kChunkBytes);
  }
  chunk_at = chunk_end = nullptr;
  for (Free*& list : lists) list = nullptr;
  count.store(0, memory_order_relaxed);
  bytes.store(0, memory_order_relaxed);
}

BlockStats block_stats() { return {peek(count), peek(bytes)}; }

}  // namespace weft::rt
