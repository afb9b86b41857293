/// weft/hooks.hpp: being told of goroutines' lives.
#pragma once

#include <cstdint>

namespace weft {

/// Each is called on the thread where it happens: on_create in the creator, on_park and on_exit in the goroutine
/// itself. They must not block, panic or call the runtime. Null: not called. Cost without hooks: one load.
struct Hooks {
  void (*on_create)(std::uint64_t id, std::uint64_t parent) = nullptr;
  void (*on_park)(std::uint64_t id, const char* reason) = nullptr;
  void (*on_exit)(std::uint64_t id) = nullptr;
};

/// Replaces all of them. Before the runtime starts or while it runs; calls already under way may still see the old ones.
void set_hooks(const Hooks& hooks);

}  // namespace weft
