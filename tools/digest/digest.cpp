// Digests a directory tree with bounded parallelism: Go's pipeline of three stages.
//
//   walk --paths--> N digesters --results--> run(), which prints
//
// The walk visits the names in the order in which `LC_ALL=C sort` puts the whole paths, and numbers
// them. The results arrive in any order; run() keeps those that came early until their turn.
// Closing `done` makes every stage return, which is all that --fail-fast needs.
//
// Invariant  Each numbered entry gives exactly one result, unless `done` is closed.
#include "tools/digest/digest.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include <weft/blocking.hpp>
#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/select.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"
#include "tools/common/syscall.hpp"

namespace digest {

namespace {

constexpr std::size_t kReadBytes = 128 << 10;  // as the coreutils read

struct Entry {
  std::uint64_t index;
  std::string path;
};

struct Result {
  Entry entry;
  std::string hex;
  std::uint64_t bytes = 0;
  int error = 0;  // errno
};

/// A system call that may last: other goroutines run meanwhile if it does. Gives -errno on failure.
template <class Call>
long sys(Call call) {
  weft::SyscallRegion region;
  return tools::result_or_errno(call);
}

// ---- stage 1: the names

struct Name {
  std::string path;
  bool directory;
};

/// The order of whole paths: everything below a directory begins with its path and a slash.
bool sorts_before(const Name& a, const Name& b) {
  std::size_t common = std::min(a.path.size(), b.path.size());
  if (int order = a.path.compare(0, common, b.path, 0, common); order != 0) return order < 0;
  auto next = [common](const Name& name) {
    if (common < name.path.size())
      return static_cast<int>(static_cast<unsigned char>(name.path[common]));
    return name.directory ? static_cast<int>('/') : -1;
  };
  return next(a) < next(b);
}

/// Appends the regular files and directories in `dir`, last one first. An errno if it cannot be
/// read. Out of line because of that errno (syscall.hpp).
[[gnu::noinline]] int list(const std::string& dir, std::vector<Name>& names) {
  const auto already = static_cast<std::ptrdiff_t>(names.size());
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(dir.c_str()), ::closedir);
  if (!stream) return errno;
  const std::string prefix = dir.back() == '/' ? dir : dir + '/';
  errno = 0;
  while (dirent* found = ::readdir(stream.get())) {
    std::string_view name = found->d_name;
    if (name == "." || name == "..") continue;
    auto type = found->d_type;
    if (type == DT_UNKNOWN) {  // some file systems do not say
      struct stat status;
      if (::fstatat(::dirfd(stream.get()), found->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        type = S_ISDIR(status.st_mode) ? DT_DIR : S_ISREG(status.st_mode) ? DT_REG : DT_UNKNOWN;
      }
    }
    if (type == DT_DIR || type == DT_REG) names.push_back({prefix + found->d_name, type == DT_DIR});
    errno = 0;
  }
  int error = errno;
  std::sort(names.begin() + already, names.end(),
            [](const Name& a, const Name& b) { return sorts_before(b, a); });
  return error;
}

/// Sends the files under `root` to `paths`; a directory that cannot be read is a result at once.
/// Returns the number of files.
std::uint64_t walk(const std::string& root, const weft::SendChan<Entry>& paths,
                   const weft::SendChan<Result>& results, const weft::RecvChan<void>& done) {
  std::uint64_t files = 0;
  std::uint64_t index = 0;
  auto refused = [&](const std::string& path, int error) {  // false: canceled
    return weft::select(weft::send(results, Result{{index++, path}, {}, 0, error}),
                        weft::recv(done)) == 0;
  };

  // A stack instead of recursion: a tree may be deeper than a goroutine's stack.
  std::vector<Name> todo;
  struct stat status;
  if (long error = tools::result_or_errno([&] { return ::lstat(root.c_str(), &status); });
      error < 0) {
    refused(root, static_cast<int>(-error));
  } else if (S_ISDIR(status.st_mode) || S_ISREG(status.st_mode)) {
    todo.push_back({root, S_ISDIR(status.st_mode)});
  }
  while (!todo.empty()) {
    Name name = std::move(todo.back());
    todo.pop_back();
    if (name.directory) {
      int error = weft::blocking([&] { return list(name.path, todo); });
      if (error != 0 && !refused(name.path, error)) break;
    } else {
      files++;
      Entry entry{index++, std::move(name.path)};
      if (weft::select(weft::send(paths, std::move(entry)), weft::recv(done)) == 1) break;
    }
  }
  return files;
}

// ---- stage 2: the digests

class Digester {
 public:
  explicit Digester(const EVP_MD* algorithm)
      : algorithm_(algorithm),
        context_(EVP_MD_CTX_new(), EVP_MD_CTX_free),
        buffer_(new char[kReadBytes]) {
    if (!context_) throw std::bad_alloc();
  }

  /// Fills `result`; gives up with ECANCELED when `done` is closed.
  void digest(const char* path, const weft::RecvChan<void>& done, Result& result) {
    begin();
    result.error = read_all(path, done, result.bytes);
    if (result.error == 0) result.hex = end();
  }

  /// The digest of no bytes at all.
  std::string of_nothing() {
    begin();
    return end();
  }

 private:
  void begin() { check(EVP_DigestInit_ex(context_.get(), algorithm_, nullptr)); }

  int read_all(const char* path, const weft::RecvChan<void>& done, std::uint64_t& bytes) {
    long fd = sys([&] { return ::open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY); });
    if (fd < 0) return static_cast<int>(-fd);
    long n;
    while ((n = sys([&] { return ::read(static_cast<int>(fd), buffer_.get(), kReadBytes); })) > 0) {
      check(EVP_DigestUpdate(context_.get(), buffer_.get(), static_cast<std::size_t>(n)));
      bytes += static_cast<std::uint64_t>(n);
      if (done.try_recv().status == weft::RecvStatus::Closed) n = -ECANCELED;
      if (n < 0) break;
    }
    ::close(static_cast<int>(fd));
    return static_cast<int>(-n);
  }

  std::string end() {
    unsigned char value[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    check(EVP_DigestFinal_ex(context_.get(), value, &size));
    std::string hex;
    for (unsigned i = 0; i < size; i++) {
      hex += "0123456789abcdef"[value[i] >> 4];
      hex += "0123456789abcdef"[value[i] & 15];
    }
    return hex;
  }

  static void check(int success) {
    if (success != 1) throw std::runtime_error("libcrypto refuses this digest");
  }

  const EVP_MD* algorithm_;
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
  std::unique_ptr<char[]> buffer_;
};

void digester(const EVP_MD* algorithm, const weft::RecvChan<Entry>& paths,
              const weft::SendChan<Result>& results, const weft::RecvChan<void>& done) {
  Digester one(algorithm);
  for (Entry&& entry : paths) {
    Result result{std::move(entry), {}, 0, 0};
    one.digest(result.entry.path.c_str(), done, result);
    if (weft::select(weft::send(results, std::move(result)), weft::recv(done)) == 1) return;
  }
}

// ---- stage 3: the lines

/// As sha256sum prints it: a name with a newline, carriage return or backslash is escaped, and the
/// line then begins with a backslash.
std::string line(const std::string& hex, const std::string& path) {
  std::string text;
  bool escaped = false;
  for (char c : path) {
    std::size_t at = std::string_view("\\\n\r").find(c);
    if (at == std::string_view::npos) {
      text += c;
    } else {
      text += '\\';
      text += "\\nr"[at];
      escaped = true;
    }
  }
  return (escaped ? "\\" : "") + hex + "  " + text + '\n';
}

const EVP_MD* algorithm_named(const std::string& name) {
  const EVP_MD* found = EVP_get_digestbyname(name.c_str());
  if (found == nullptr) throw std::runtime_error("libcrypto has no " + name);
  return found;
}

}  // namespace

Totals run(const Options& options, const Sink& sink) {
  const EVP_MD* algorithm = algorithm_named(options.algorithm);
  const std::string nothing =
      Digester(algorithm).of_nothing();  // throws if libcrypto is set to refuse it
  auto paths = weft::make_chan<Entry>();
  auto results = weft::make_chan<Result>();
  auto done = weft::make_chan<void>();
  std::uint64_t found = 0;  // written before `results` is closed

  weft::go({.name = "digest"}, [&, results] {
    weft::WaitGroup digesters;
    for (int i = 0; i < options.jobs; i++) {
      digesters.go([&] { digester(algorithm, paths, results, done); });
    }
    found = walk(options.root, paths, results, done);
    paths.close();
    digesters.wait();
    results.close();  // run() may return at once: from here on only this handle is ours
  });

  std::atomic<std::uint64_t> files{0}, bytes{0};  // also read by the progress line
  std::uint64_t errors = 0;
  tools::Progress progress([&] {
    return "digested " + tools::with_commas(files) + " files, " + tools::human_bytes(bytes);
  });
  auto print = [&](const Result& result) {
    if (result.error != 0) {
      errors++;
      sink.error(tools::quoted_path(result.entry.path) + ": " + std::strerror(result.error));
    } else {
      files++;
      bytes += result.bytes;
      sink.out(line(result.hex, result.entry.path));
    }
  };

  std::map<std::uint64_t, Result> early;
  std::uint64_t next = 0;
  bool canceled = false;
  for (Result&& result : results) {
    if (canceled) continue;
    if (result.error != 0 && options.fail_fast) {
      canceled = true;
      done.close();
      print(result);
      continue;
    }
    std::uint64_t index = result.entry.index;
    early.emplace(index, std::move(result));
    for (auto at = early.begin(); at != early.end() && at->first == next;
         at = early.begin(), next++) {
      print(at->second);
      early.erase(at);
    }
  }
  // Without a name xargs still runs sha256sum once, on an empty standard input.
  if (found == 0 && !canceled) sink.out(line(nothing, "-"));
  return {files, bytes, errors};
}

}  // namespace digest
