// A program in build/tools/ finds its tree by going up from itself; an installed one finds none.
#include "tools/common/repository.hpp"

#include <filesystem>
#include <system_error>

namespace tools {

namespace fs = std::filesystem;

std::string own_executable() {
  std::error_code error;
  fs::path path = fs::read_symlink("/proc/self/exe", error);
  return error ? "/proc/self/exe" : path.string();
}

std::string repository_or_current_directory() {
  std::error_code error;
  for (fs::path dir = fs::path(own_executable()).parent_path(); dir.has_relative_path();
       dir = dir.parent_path()) {
    if (fs::exists(dir / "meson.build", error) && fs::exists(dir / "include/weft", error)) {
      return fs::equivalent(dir, ".", error) ? "." : dir.string();
    }
  }
  return ".";
}

}  // namespace tools
