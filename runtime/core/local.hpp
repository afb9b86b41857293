// The goroutine-local values of one goroutine or plain thread. See include/weft/local.hpp.
//
// A short array: a goroutine has a few at most, and a search by key costs less than a table.
#pragma once

#include <weft/local.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace weft::rt {

class Locals {
 public:
  Locals() = default;
  Locals(const Locals&) = delete;
  Locals& operator=(const Locals&) = delete;
  ~Locals() { end(); }

  void* find(std::uint64_t key) const {
    for (const Value& v : values_)
      if (v.key == key) return v.value;
    return nullptr;
  }

  /// Destroys what was there, which runs user code: may park, and use this.
  void set(std::uint64_t key, void* value, const weft::detail::LocalOps* ops) {
    Value old{};
    for (auto at = values_.begin(); at != values_.end(); ++at)
      if (at->key == key) {
        old = *at;
        if (value)
          *at = {key, value, ops};
        else
          values_.erase(at);
        break;
      }
    if (value && !old.value) values_.push_back({key, value, ops});
    if (old.value) old.ops->destroy(old.value);
  }

  bool hands_on() const {
    for (const Value& v : values_)
      if (v.ops->inherit) return true;
    return false;
  }

  /// What a new goroutine gets. Runs user code; if that throws, nothing is left.
  void inherit(const Locals& from) {
    for (const Value& v : from.values_) {
      if (!v.ops->inherit) continue;
      values_.reserve(values_.size() + 1);
      values_.push_back({v.key, v.ops->inherit(v.value), v.ops});
    }
  }

  /// Newest first, also those that a destructor makes meanwhile.
  void end() {
    while (!values_.empty()) {
      const Value v = values_.back();
      values_.pop_back();
      v.ops->destroy(v.value);
    }
  }

 private:
  struct Value {
    std::uint64_t key = 0;
    void* value = nullptr;
    const weft::detail::LocalOps* ops = nullptr;
  };
  std::vector<Value> values_;
};

}  // namespace weft::rt
