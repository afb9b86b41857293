// See thread.hpp.
#include "arch/thread.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "arch/cpu.hpp"
#include "arch/kernel.hpp"

namespace weft::arch {

int start_thread(pthread_t* out, void* (*fn)(void*), void* arg) {
  return kernel.pthread_create(out, nullptr, fn, arg);
}

void name_this_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

namespace {

/// What a stat file of /proc says after the name, which may hold anything: " R 1 ...". Null: it cannot be read.
const char* read_stat(const char* path, char* text, std::size_t size) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  const ssize_t n = ::read(fd, text, size - 1);
  ::close(fd);
  if (n <= 0) return nullptr;
  text[n] = 0;
  const char* end = std::strrchr(text, ')');
  return end && end[1] == ' ' ? end + 1 : nullptr;
}

}  // namespace

int count_process_threads() {
  // Not the entries of /proc/self/task: a thread that ends while they are listed cuts the list short.
  constexpr int kFieldsBefore = 17;  // from the state to num_threads
  char text[1024];
  const char* at = read_stat("/proc/self/stat", text, sizeof text);
  for (int i = 0; at && i < kFieldsBefore; i++) at = std::strchr(at + 1, ' ');
  return at ? std::atoi(at + 1) - WEFT_TSAN : -1;
}

int allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (kernel.sched_getaffinity(&set) < 0) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

bool is_first_thread() { return thread_id() == ::getpid(); }

bool own_thread_stack(void** lo, void** hi) {
  pthread_attr_t attr;
  std::size_t bytes = 0;
  if (::pthread_getattr_np(pthread_self(), &attr) != 0) return false;
  const bool known = ::pthread_attr_getstack(&attr, lo, &bytes) == 0;
  *hi = static_cast<char*>(*lo) + bytes;
  ::pthread_attr_destroy(&attr);
  return known;
}

long long thread_cpu_ns(pthread_t thread) {
  clockid_t id;
  timespec ts;
  if (pthread_getcpuclockid(thread, &id) != 0 || kernel.clock_gettime(id, &ts) != 0) return -1;
  return ts.tv_sec * 1'000'000'000LL + ts.tv_nsec;
}

bool thread_is_runnable(int tid) {
  char path[64], text[256];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  const char* at = read_stat(path, text, sizeof text);
  return at && at[1] == 'R';
}

bool set_thread_turns(int tid, std::int64_t ns) {
  SchedAttr attr{};
  attr.size = sizeof attr;
  if (kernel.sched_getattr(tid, &attr) != 0) return false;
  if (attr.policy != SCHED_OTHER && attr.policy != SCHED_BATCH) return true;
  attr.size = sizeof attr;
  attr.runtime = static_cast<std::uint64_t>(ns);
  return kernel.sched_setattr(tid, &attr) == 0;
}

int thread_id() { return static_cast<int>(::syscall(SYS_gettid)); }

}  // namespace weft::arch
