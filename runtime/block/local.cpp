// Goroutine-local values: whose they are. The goroutine's are in its GExtra; a plain thread's hang on a pthread key.
#include "runtime/core/local.hpp"

#include <pthread.h>

#include <memory>

#include "runtime/base/atomic.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

pthread_key_t thread_key() {
  static const pthread_key_t key = [] {
    pthread_key_t k;
    if (pthread_key_create(&k, [](void* locals) { delete static_cast<Locals*>(locals); }) != 0)
      fatalf("weft: GLocal: no key for thread-specific data");
    return k;
  }();
  return key;
}

Locals* locals_here(bool make) {
  if (G* gp = current_g()) {
    if (!make) return gp->extra ? gp->extra->locals.get() : nullptr;
    if (!gp->extra) gp->extra = new GExtra{};
    if (!gp->extra->locals) gp->extra->locals = std::make_unique<Locals>();
    return gp->extra->locals.get();
  }
  auto* locals = static_cast<Locals*>(pthread_getspecific(thread_key()));
  if (!locals && make) {
    auto made = std::make_unique<Locals>();
    if (pthread_setspecific(thread_key(), made.get()) != 0) throw std::bad_alloc();
    locals = made.release();
  }
  return locals;
}

}  // namespace
}  // namespace weft::rt

namespace weft::detail {

std::uint64_t new_local_key() {
  static std::atomic<std::uint64_t> last{0};
  return last.fetch_add(1, rt::memory_order_relaxed) + 1;
}

void* find_local(std::uint64_t key) {
  const rt::Locals* locals = rt::locals_here(false);
  return locals ? locals->find(key) : nullptr;
}

void set_local(std::uint64_t key, void* value, const LocalOps* ops) {
  if (rt::Locals* locals = rt::locals_here(value != nullptr)) locals->set(key, value, ops);
}

}  // namespace weft::detail
