// See probe.hpp.
#include "runtime/base/probe.hpp"

#include <weft/hooks.hpp>

#include "runtime/base/collector.hpp"

namespace weft::rt::probe {

std::atomic<void (*)(std::uint64_t id, std::uint64_t parent)> on_create{nullptr};
std::atomic<void (*)(std::uint64_t id, const char* reason)> on_park{nullptr};
std::atomic<void (*)(std::uint64_t id)> on_exit{nullptr};
#ifndef NDEBUG
std::atomic<void (*)(void* m)> on_landed{nullptr};
#endif

}  // namespace weft::rt::probe

namespace weft {

namespace {

using namespace rt;

// A collector listens as well: then both are told through these.
std::atomic<void (*)(std::uint64_t id, std::uint64_t parent)> users_create{nullptr};
std::atomic<void (*)(std::uint64_t id)> users_exit{nullptr};

void tell_both_of_create(std::uint64_t id, std::uint64_t parent) {
  collector.goroutine_made(id, parent);
  if (auto f = peek(users_create)) f(id, parent);
}

void tell_both_of_exit(std::uint64_t id) {
  if (auto f = peek(users_exit)) f(id);
  collector.goroutine_ended(id);
}

}  // namespace

void set_hooks(const Hooks& hooks) {
  users_create.store(hooks.on_create, memory_order_relaxed);
  users_exit.store(hooks.on_exit, memory_order_relaxed);
  probe::on_create.store(collector.goroutine_made ? tell_both_of_create : hooks.on_create, memory_order_relaxed);
  probe::on_park.store(hooks.on_park, memory_order_relaxed);
  probe::on_exit.store(collector.goroutine_ended ? tell_both_of_exit : hooks.on_exit, memory_order_relaxed);
}

namespace rt::probe {

void tell_collector() {
  Hooks users;
  users.on_create = peek(users_create);
  users.on_park = peek(on_park);
  users.on_exit = peek(users_exit);
  set_hooks(users);
}

}  // namespace rt::probe

}  // namespace weft
