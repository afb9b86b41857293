// See probe.hpp.
#include "runtime/base/probe.hpp"

#include <weft/hooks.hpp>

namespace weft::rt::probe {

std::atomic<void (*)(std::uint64_t id, std::uint64_t parent)> on_create{nullptr};
std::atomic<void (*)(std::uint64_t id, const char* reason)> on_park{nullptr};
std::atomic<void (*)(std::uint64_t id)> on_exit{nullptr};
#ifndef NDEBUG
std::atomic<void (*)(void* m)> on_landed{nullptr};
#endif

}  // namespace weft::rt::probe

namespace weft {

void set_hooks(const Hooks& hooks) {
  using namespace rt;
  probe::on_create.store(hooks.on_create, memory_order_relaxed);
  probe::on_park.store(hooks.on_park, memory_order_relaxed);
  probe::on_exit.store(hooks.on_exit, memory_order_relaxed);
}

}  // namespace weft
