// Where a peer finds, or leaves, the element of a goroutine that waits on a channel: in its own cell, or, if that lies on a copyable
// stack, in a block meanwhile: the stack may be somewhere else then.
#pragma once

#include <cstddef>
#include <cstring>

#include "runtime/base/check.hpp"
#include "runtime/core/blocks.hpp"
#include "runtime/core/run_slot.hpp"

namespace weft::rt {

class PeerCell {
 public:
  PeerCell() = default;
  /// `full`: the cell holds what is sent; else it is for what comes.
  PeerCell(const G* gp, void* cell, std::size_t size, bool full) { use(gp, cell, size, full); }
  PeerCell(const PeerCell&) = delete;
  PeerCell& operator=(const PeerCell&) = delete;
  ~PeerCell() {
    if (block_) peer_block_release(block_);
  }

  void use(const G* gp, void* cell, std::size_t size, bool full) {
    cell_ = cell;
    if (WEFT_LIKELY(!gp || gp->started == kStarted) || !is_copyable(gp) || !cell || size == 0) return;
    block_ = peer_block_acquire(size);  // no user code, no exception: the channel is locked
    if (!block_) fatalf("out of memory: no block for an element of %zu bytes", size);
    size_ = size;
    full_ = full;
    if (full) std::memcpy(block_, cell, size);
  }

  void* get() const { return block_ ? block_ : cell_; }
  /// `success`: an element has moved.
  void arrived(bool success) {
    if (block_ && success && !full_) std::memcpy(cell_, block_, size_);
  }

 private:
  void* cell_ = nullptr;
  void* block_ = nullptr;
  std::size_t size_ = 0;
  bool full_ = false;
};

}  // namespace weft::rt
