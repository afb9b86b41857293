// Fault points: the n-th kernel call of a kind fails, as a plan says.
//
// Protocol   fault_install() puts counting wrappers in front of the calls in arch::kernel, before the runtime starts;
//            fault_restore() takes them away, after it has ended. Calls are counted from 1, each kind by itself, all threads
//            together. A plan's text is a comma-separated list of CALL:FIRST[-[LAST]]:ERRNO, as in
//            "mmap:3:ENOMEM,pthread_create:1-:EAGAIN,epoll_ctl:2-4:ENOSPC".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace weft::rt {

/// The members of arch::Kernel, in order.
enum class Call : std::uint8_t {
  Mmap,
  Munmap,
  Mprotect,
  Madvise,
  PthreadCreate,
  Sigaltstack,
  EpollCreate,
  EpollCtl,
  EpollPwait2,
  Eventfd,
  FutexWait,
  FutexWake,
  ClockGettime,
  SchedGetaffinity,
  Userfaultfd,
  Ioctl,
  Membarrier,
  ProcessMadvise,
  SchedGetattr,
  SchedSetattr,
  ReadFile,
};
inline constexpr std::size_t kCalls = static_cast<std::size_t>(Call::ReadFile) + 1;
const char* call_name(Call c);

/// The calls `first` to `last` of this kind fail with `error`.
struct FaultRule {
  static constexpr std::uint64_t kForEver = ~std::uint64_t{0};
  Call call = Call::Mmap;
  std::uint64_t first = 1;
  std::uint64_t last = kForEver;
  int error = 0;
};

/// Counts all calls from now on and fails those that a rule names. At most 32 rules; a later call replaces the plan.
void fault_install(const std::vector<FaultRule>& rules);
/// The real calls again. Counters keep their values until the next install.
void fault_restore();

/// Calls of this kind since fault_install(), and how many of them failed by the plan.
std::uint64_t fault_calls(Call c);
std::uint64_t fault_hits(Call c);

/// False: `*why` says which part of the text is wrong.
bool fault_parse(std::string_view text, std::vector<FaultRule>* rules, std::string* why);

/// Installs the plan in WEFT_FAULT. True if there is none or it was good; else `*why` is one line as apply_env() gives.
bool fault_from_env(std::string* why);

}  // namespace weft::rt
