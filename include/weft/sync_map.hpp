/// weft/sync_map.hpp: a map that goroutines and threads share.
#pragma once

#include <weft/detail/mask.hpp>
#include <weft/detail/value.hpp>
#include <weft/rw_mutex.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace weft {

/// Go's sync.Map, typed. Values are copied out. Hash, equality and copies of keys and values run under a lock of the map (an
/// RwMutex of one of its parts): they may wait, but not use the map.
/// Order: a call that observes what another wrote happens after it. Cost: O(1), two locked instructions for a load; range
/// copies a part at a time. Threads: any.
template <class K, class V, class Hash = std::hash<K>, class Equal = std::equal_to<K>>
class SyncMap {
 public:
  struct Loaded {
    V value;
    bool loaded;  ///< it was there before
  };

  SyncMap() = default;
  SyncMap(const SyncMap&) = delete;
  SyncMap& operator=(const SyncMap&) = delete;

  std::optional<V> load(const K& key) const {
    Part& p = part(key);
    detail::MaskedSharedLock l(p.mu);
    auto at = p.map.find(key);
    return at == p.map.end() ? std::nullopt : std::optional<V>(at->second);
  }
  void store(const K& key, V value) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    p.map.insert_or_assign(key, std::move(value));
  }
  /// The value that was there, or else the given one, which is there now.
  Loaded load_or_store(const K& key, V value) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    auto [at, fresh] = p.map.try_emplace(key, std::move(value));
    return {at->second, !fresh};
  }
  /// What was there, taken out.
  std::optional<V> load_and_delete(const K& key) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    auto at = p.map.find(key);
    if (at == p.map.end()) return std::nullopt;
    std::optional<V> was(std::move(at->second));
    p.map.erase(at);
    return was;
  }
  void erase(const K& key) { (void)load_and_delete(key); }
  /// What was there before.
  std::optional<V> swap(const K& key, V value) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    auto [at, fresh] = p.map.try_emplace(key, value);
    if (fresh) return std::nullopt;
    return std::optional<V>(std::exchange(at->second, std::move(value)));
  }
  /// True: `old` was there, `fresh` is now. V needs ==.
  bool compare_and_swap(const K& key, const V& old, V fresh) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    auto at = p.map.find(key);
    if (at == p.map.end() || !(at->second == old)) return false;
    at->second = std::move(fresh);
    return true;
  }
  bool compare_and_delete(const K& key, const V& old) {
    Part& p = part(key);
    detail::MaskedLock l(p.mu);
    auto at = p.map.find(key);
    if (at == p.map.end() || !(at->second == old)) return false;
    p.map.erase(at);
    return true;
  }

  /// Calls f(key, value) until it returns false (it may return nothing). Each key at most once; no snapshot: of what changes
  /// meanwhile it may see the state before or after. f may use the map, range() included.
  template <class F>
  void range(F&& f) const {
    std::vector<std::pair<K, V>> some;
    for (Part& p : parts_) {
      some.clear();
      {
        detail::MaskedSharedLock l(p.mu);
        some.reserve(p.map.size());
        for (const auto& [k, v] : p.map) some.emplace_back(k, v);
      }
      for (auto& [k, v] : some) {
        if constexpr (std::is_void_v<std::invoke_result_t<F&, const K&, V&>>)
          std::invoke(f, std::as_const(k), v);
        else if (!std::invoke(f, std::as_const(k), v))
          return;
      }
    }
  }

  void clear() {
    for (Part& p : parts_) {
      Map old;  // destroyed without the lock
      detail::MaskedLock l(p.mu);
      old.swap(p.map);
    }
  }

 private:
  using Map = std::unordered_map<K, V, Hash, Equal, detail::ValueAllocator<std::pair<const K, V>>>;
  static constexpr std::size_t kParts = 32;
  struct alignas(64) Part {
    RwMutex mu;
    Map map;
  };

  Part& part(const K& key) const {
    // The maps use the low bits of the hash: the high ones of a mix choose the part.
    const auto h = static_cast<std::uint64_t>(Hash{}(key)) * 0x9e3779b97f4a7c15u;
    return parts_[h >> 59];
  }
  static_assert(kParts == 32, "five bits of the hash");

  mutable std::array<Part, kParts> parts_;
};

}  // namespace weft
