// Blocks of memory for what is copied out of stacks: size classes of 64 bytes, dense.
//
// Chunks of 2 MiB on huge pages, carved front to back; freed blocks go to a list per class and are never given back while the runtime
// runs. Above 4 KiB and a little: malloc. A million parked goroutines read their blocks in random order: page by page from malloc that would
// be a TLB miss each.
#pragma once

#include <cstddef>

namespace weft::rt {

/// What a block for `bytes` has room for.
std::size_t block_bytes(std::size_t bytes);
/// `size`: as block_bytes() says. Null: no memory. Threads: any.
void* block_acquire(std::size_t size);
void block_release(void* block, std::size_t size);
/// A block for an element of `bytes` on its way, which says how large it is. Null: no memory.
void* peer_block_acquire(std::size_t bytes);
void peer_block_release(void* block);
/// The bytes of one that may have been released; 0: no block of these. For who looks on from a frozen world.
std::size_t peer_block_bytes(const void* block);
/// All of them, at the end of a run. (Those of abandoned goroutines, which never run again, too.)
void blocks_stop();

/// Sets G::block, which the holder of the goroutine's slot changes while who wakes it may look (expect() in sched/switch.hpp: a hint).
inline void set_block(void*& at, void* block) { __atomic_store_n(&at, block, __ATOMIC_RELAXED); }

struct BlockStats {
  std::size_t count = 0;
  std::size_t bytes = 0;
};
BlockStats block_stats();

}  // namespace weft::rt
