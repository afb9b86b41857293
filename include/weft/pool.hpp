/// weft/pool.hpp: things to be used again.
#pragma once

#include <weft/detail/value.hpp>

#include <cstddef>
#include <functional>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {

struct PoolNode {
  PoolNode* next = nullptr;
  PoolNode* prev = nullptr;
};

/// Lists of nodes, one set per P. Knows of a node only how to destroy it.
struct PoolCore;
PoolCore* pool_make(void (*destroy)(PoolNode* node));
void pool_free(PoolCore* p);
/// A node that is the caller's then; null: none.
PoolNode* pool_get(PoolCore* p);
void pool_put(PoolCore* p, PoolNode* node);

}  // namespace detail

/// Go's sync.Pool: what is put may be got again, by anybody, in no particular order, or be gone. Each P keeps one thing to
/// itself and a list that others take from when they have none. What nobody has taken for two trim_pools() is destroyed.
/// Order: a put happens before the get that gives the same thing. Cost: a lock of the P's own and a small allocation per put.
/// Threads: any. Lifetime: must outlive its users.
template <class T>
class Pool {
 public:
  /// Empty: get() gives T{}.
  Pool()
    requires std::is_default_constructible_v<T>
      : make_([] { return T{}; }) {}
  template <class F>
    requires std::is_invocable_r_v<T, F&>
  explicit Pool(F make) : make_(std::move(make)) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { detail::pool_free(core_); }

  T get() {
    detail::PoolNode* n = detail::pool_get(core_);
    if (!n) return make_();
    struct Drop {
      Node* n;
      ~Drop() { delete n; }
    } d{static_cast<Node*>(n)};
    return std::move(d.n->value);
  }
  void put(T value) { detail::pool_put(core_, new Node(std::move(value))); }

 private:
  struct Node : detail::PoolNode, detail::ValueBlock {
    T value;
    explicit Node(T&& v) : value(std::move(v)) {}
  };

  std::function<T()> make_;
  detail::PoolCore* core_ = detail::pool_make([](detail::PoolNode* n) { delete static_cast<Node*>(n); });
};

/// What Go's collector does to pools at each collection: what has not been used since the last call is destroyed, the rest is
/// next. Call it when memory is short, or from a collector. Any goroutine or thread; destructors run in the caller.
void trim_pools();

}  // namespace weft
