// See thread.hpp.
#include "arch/thread.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "arch/cpu.hpp"
#include "arch/kernel.hpp"

namespace weft::arch {

int start_thread(pthread_t* out, void* (*fn)(void*), void* arg) {
  return kernel.pthread_create(out, nullptr, fn, arg);
}

void name_this_thread(const char* name) { pthread_setname_np(pthread_self(), name); }

int count_process_threads() {
  DIR* dir = ::opendir("/proc/self/task");
  if (!dir) return -1;
  int n = 0;
  while (dirent* e = ::readdir(dir))
    if (e->d_name[0] != '.') n++;
  ::closedir(dir);
  return n - WEFT_TSAN;
}

int allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (kernel.sched_getaffinity(&set) < 0) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
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
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (n <= 0) return false;
  text[n] = 0;
  const char* end = std::strrchr(text, ')');  // the name may hold anything
  return end && end[1] == ' ' && end[2] == 'R';
}

int thread_id() { return static_cast<int>(::syscall(SYS_gettid)); }

}  // namespace weft::arch
