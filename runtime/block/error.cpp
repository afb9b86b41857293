// Errc as a std::error_category.
#include <weft/error.hpp>

#include <string>

namespace weft {
namespace {

class Category : public std::error_category {
 public:
  const char* name() const noexcept override { return "weft"; }

  std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {
      case Errc::canceled: return "context canceled";
      case Errc::deadline_exceeded: return "context deadline exceeded";
      case Errc::bad_config: return "bad configuration";
      case Errc::already_running: return "a runtime runs already";
      case Errc::not_running: return "no runtime runs";
      case Errc::refused: return "the kernel refused a resource";
    }
    return "unknown error " + std::to_string(value);
  }

  std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<Errc>(value)) {
      case Errc::canceled: return std::errc::operation_canceled;
      case Errc::deadline_exceeded: return std::errc::timed_out;
      default: return {value, *this};
    }
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  // Never destroyed: an error_code may be looked at by static destructors.
  static const auto* category = new Category;
  return *category;
}

std::error_code make_error_code(Errc e) noexcept { return {static_cast<int>(e), error_category()}; }

}  // namespace weft
