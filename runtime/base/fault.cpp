// See fault.hpp.
#include "runtime/base/fault.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>

#include "arch/kernel.hpp"
#include "runtime/base/atomic.hpp"
#include "runtime/base/knobs.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kRulesMax = 32;

// Written before the runtime starts, read by all its threads.
FaultRule plan[kRulesMax];
std::size_t plan_size = 0;

struct Count {
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> hits{0};
};
Count counts[kCalls];

/// The error with which this call has to fail; 0: it is a real one.
int due(Call c) {
  Count& count = counts[static_cast<std::size_t>(c)];
  const std::uint64_t n = count.calls.fetch_add(1, memory_order_relaxed) + 1;
  for (std::size_t i = 0; i < plan_size; i++) {
    const FaultRule& r = plan[i];
    if (r.call == c && n >= r.first && n <= r.last) {
      count.hits.fetch_add(1, memory_order_relaxed);
      return r.error;
    }
  }
  return 0;
}

/// A wrapper of the real call `M` that fails as its kind does: mmap with MAP_FAILED, pthread_create with the number.
template <Call C, auto M>
struct Wrapped;

template <Call C, class R, class... A, R (*arch::Kernel::*M)(A...)>
struct Wrapped<C, M> {
  static R call(A... a) {
    if (const int e = due(C)) {
      if constexpr (C == Call::PthreadCreate) {
        return e;
      } else {
        errno = e;
        if constexpr (C == Call::Mmap)
          return MAP_FAILED;
        else
          return -1;
      }
    }
    return (arch::kRealKernel.*M)(a...);
  }
};

template <Call C, auto M>
void wrap() {
  arch::kernel.*M = Wrapped<C, M>::call;
}

struct Named {
  const char* name;
  int value;
};

constexpr const char* kCallNames[kCalls] = {
    "mmap",        "munmap",      "mprotect", "madvise",    "pthread_create", "sigaltstack",   "epoll_create",      "epoll_ctl",
    "epoll_pwait2", "eventfd",    "futex_wait", "futex_wake", "clock_gettime", "sched_getaffinity", "userfaultfd", "ioctl",
    "membarrier",  "process_madvise", "sched_getattr", "sched_setattr", "read_file"};

constexpr Named kErrors[] = {
    {"EPERM", EPERM},   {"ENOENT", ENOENT}, {"EINTR", EINTR},   {"EIO", EIO},       {"EBADF", EBADF},     {"EAGAIN", EAGAIN},
    {"ENOMEM", ENOMEM}, {"EACCES", EACCES}, {"EFAULT", EFAULT}, {"EBUSY", EBUSY},   {"EEXIST", EEXIST},   {"ENODEV", ENODEV},
    {"EINVAL", EINVAL}, {"ENFILE", ENFILE}, {"EMFILE", EMFILE}, {"ENOSPC", ENOSPC}, {"ENOSYS", ENOSYS},   {"ETIMEDOUT", ETIMEDOUT},
    {"EOPNOTSUPP", EOPNOTSUPP}};

/// The text up to `c`, taken off the front of `rest`.
std::string_view take_until(std::string_view& rest, char c) {
  const std::size_t at = rest.find(c);
  std::string_view part = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  return part;
}

bool parse_call(std::string_view text, Call* out) {
  for (std::size_t i = 0; i < kCalls; i++)
    if (text == kCallNames[i]) {
      *out = static_cast<Call>(i);
      return true;
    }
  return false;
}

bool parse_range(std::string_view text, FaultRule* r) {
  const std::size_t dash = text.find('-');
  if (!parse_number(text.substr(0, dash), &r->first) || r->first == 0) return false;
  if (dash == std::string_view::npos) {
    r->last = r->first;
    return true;
  }
  text.remove_prefix(dash + 1);
  r->last = FaultRule::kForEver;
  return text.empty() || (parse_number(text, &r->last) && r->last >= r->first);
}

bool parse_error(std::string_view text, int* out) {
  for (const Named& e : kErrors)
    if (text == e.name) {
      *out = e.value;
      return true;
    }
  std::uint64_t n = 0;
  if (!parse_number(text, &n) || n == 0 || n > 4095) return false;
  *out = static_cast<int>(n);
  return true;
}

}  // namespace

const char* call_name(Call c) { return kCallNames[static_cast<std::size_t>(c)]; }

void fault_install(const std::vector<FaultRule>& rules) {
  using arch::Kernel;
  plan_size = rules.size() < kRulesMax ? rules.size() : kRulesMax;
  for (std::size_t i = 0; i < plan_size; i++) plan[i] = rules[i];
  for (Count& c : counts) {
    c.calls.store(0, memory_order_relaxed);
    c.hits.store(0, memory_order_relaxed);
  }
  wrap<Call::Mmap, &Kernel::mmap>();
  wrap<Call::Munmap, &Kernel::munmap>();
  wrap<Call::Mprotect, &Kernel::mprotect>();
  wrap<Call::Madvise, &Kernel::madvise>();
  wrap<Call::PthreadCreate, &Kernel::pthread_create>();
  wrap<Call::Sigaltstack, &Kernel::sigaltstack>();
  wrap<Call::EpollCreate, &Kernel::epoll_create>();
  wrap<Call::EpollCtl, &Kernel::epoll_ctl>();
  wrap<Call::EpollPwait2, &Kernel::epoll_pwait2>();
  wrap<Call::Eventfd, &Kernel::eventfd>();
  wrap<Call::FutexWait, &Kernel::futex_wait>();
  wrap<Call::FutexWake, &Kernel::futex_wake>();
  wrap<Call::ClockGettime, &Kernel::clock_gettime>();
  wrap<Call::SchedGetaffinity, &Kernel::sched_getaffinity>();
  wrap<Call::Userfaultfd, &Kernel::userfaultfd>();
  wrap<Call::Ioctl, &Kernel::ioctl>();
  wrap<Call::Membarrier, &Kernel::membarrier>();
  wrap<Call::ProcessMadvise, &Kernel::process_madvise>();
  wrap<Call::SchedGetattr, &Kernel::sched_getattr>();
  wrap<Call::SchedSetattr, &Kernel::sched_setattr>();
  wrap<Call::ReadFile, &Kernel::read_file>();
}

void fault_restore() {
  plan_size = 0;
  arch::kernel = arch::kRealKernel;
}

std::uint64_t fault_calls(Call c) { return peek(counts[static_cast<std::size_t>(c)].calls); }
std::uint64_t fault_hits(Call c) { return peek(counts[static_cast<std::size_t>(c)].hits); }

bool fault_parse(std::string_view text, std::vector<FaultRule>* rules, std::string* why) {
  rules->clear();
  while (!text.empty()) {
    const std::string_view part = take_until(text, ',');
    std::string_view rest = part;
    FaultRule r;
    const std::string_view call = take_until(rest, ':');
    const std::string_view range = take_until(rest, ':');
    const char* wrong = !parse_call(call, &r.call)      ? "no such call"
                        : !parse_range(range, &r)       ? "want a number, or FIRST-LAST"
                        : !parse_error(rest, &r.error)  ? "no such errno"
                        : rules->size() == kRulesMax    ? "too many rules"
                                                        : nullptr;
    if (wrong) {
      if (why) *why = "\"" + std::string(part) + "\": " + wrong;
      return false;
    }
    rules->push_back(r);
  }
  return true;
}

bool fault_from_env(std::string* why) {
  const char* text = std::getenv("WEFT_FAULT");
  if (!text || !*text) return true;
  std::vector<FaultRule> rules;
  std::string wrong;
  if (!fault_parse(text, &rules, &wrong)) {
    if (why) *why = "weft: WEFT_FAULT: " + wrong;
    return false;
  }
  fault_install(rules);
  return true;
}

}  // namespace weft::rt
