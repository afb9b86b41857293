// The failures that a scope's first one stands for.
//
// Nobody can attach anything to a foreign exception. So they stand in a table by the first one's address, and its destructor is
// replaced by one that takes them out of the table: they live exactly as long.
#include <cstdint>
#include <unordered_map>

#include "arch/exception.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/base/log.hpp"
#include "runtime/block/domain.hpp"

namespace weft::rt {
namespace {

struct Entry {
  void (*destroy)(void* object) = nullptr;
  std::vector<std::exception_ptr> others;
};

struct Table {
  Mutex mu{Rank::Log};
  std::unordered_map<void*, Entry> entries;
};
// Never destroyed: exceptions may outlive everything.
Table& table() {
  static Table* t = new Table;
  return *t;
}

void ended(void* object) {
  Table& t = table();
  t.mu.lock();
  auto node = t.entries.extract(object);
  t.mu.unlock();
  if (node.mapped().destroy) node.mapped().destroy(object);
}

}  // namespace

void attach_suppressed(const std::exception_ptr& first, std::vector<std::exception_ptr> others) {
  void* object = arch::exception_object(first);
  Table& t = table();
  t.mu.lock();
  auto [at, fresh] = t.entries.try_emplace(object);
  bool attached = !fresh;
  if (fresh) {
    attached = arch::hook_exception_end(first, ended, &at->second.destroy);
    if (!attached) t.entries.erase(at);
  }
  if (attached)
    for (std::exception_ptr& e : others) at->second.others.push_back(std::move(e));
  t.mu.unlock();
  if (attached) return;
  for (const std::exception_ptr& e : others) log_warn("a scope fails with more than it can say: %s", describe_failure(e).c_str());
}

}  // namespace weft::rt

namespace weft {

std::vector<std::exception_ptr> suppressed(const std::exception_ptr& e) {
  if (!e) return {};
  rt::Table& t = rt::table();
  t.mu.lock();
  auto at = t.entries.find(arch::exception_object(e));
  std::vector<std::exception_ptr> others;
  if (at != t.entries.end()) others = at->second.others;
  t.mu.unlock();
  return others;
}

}  // namespace weft
