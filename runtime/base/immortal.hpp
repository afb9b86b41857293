// A static that is never destroyed: threads of the runtime run on while exit() destroys statics.
#pragma once

#include <utility>

namespace weft::rt {

template <class T>
union Immortal {
  constexpr Immortal() : value{} {}
  template <class F>
  explicit Immortal(std::in_place_t, F make) : value(make()) {}
  Immortal(const Immortal&) = delete;
  Immortal& operator=(const Immortal&) = delete;
  ~Immortal() {}  // NOLINT(modernize-use-equals-default): a defaulted one would be deleted

  constexpr T* operator->() { return &value; }
  constexpr T& operator*() { return value; }

 private:
  T value;
};

}  // namespace weft::rt
