// wait_fd: parking until a descriptor is ready.
//
// Arming is a kernel call and may fire at once, so it is done once the G's context is saved; the G's guard keeps it from going
// on before the commit is through with its node (as in select.cpp). With a context the commit also queues the source's node (wait.hpp):
// after the poller's, whose error ends the wait without either.
#include <weft/fd.hpp>

#include <weft/error.hpp>

#include <poll.h>

#include <cerrno>

#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/wait.hpp"
#include "runtime/sched/sched.hpp"

namespace weft {

using namespace rt;

namespace {

struct FdWait {
  int fd;
  bool write;
  std::int64_t deadline;
  WaitNode* node;
  CancelSource* source = nullptr;
  WaitNode* source_node = nullptr;
  int error = 0;
};

void commit_fd(M*, G* from, void* arg) {
  auto& f = *static_cast<FdWait*>(arg);
  f.error = sched.poller.arm(f.fd, f.write, f.node);
  if (f.error) {
    if (from->waiter.try_win(f.node->ticket, Outcome::Wake)) ready(from);
  } else {
    if (f.source) enroll(f.source, f.source_node);
    if (f.deadline != kNever) timer_arm(&from->timer);
  }
  end_guarded_commit(from);
}

std::error_code poll_on_thread(int fd, Io dir, std::int64_t deadline) {
  for (;;) {
    timespec ts{};
    timespec* limit = nullptr;
    if (deadline != kNever) {
      std::int64_t left = deadline - arch::clock_now();
      if (left < 0) left = 0;
      ts.tv_sec = left / 1'000'000'000;
      ts.tv_nsec = left % 1'000'000'000;
      limit = &ts;
    }
    pollfd p{fd, static_cast<short>(dir == Io::Read ? POLLIN | POLLRDHUP : POLLOUT), 0};
    const int r = ::ppoll(&p, 1, limit, nullptr);
    if (r > 0) return p.revents & POLLNVAL ? std::error_code(EBADF, std::system_category()) : std::error_code();
    if (r == 0) return Errc::deadline_exceeded;
    if (errno != EINTR) return {errno, std::system_category()};
  }
}

/// Wake: it is ready, or f.error is set. The Limit holds what f does.
Outcome wait(FdWait& f) {
  Waiter* w = my_waiter();
  G* gp = w->g();
  f.node = plain_node(w, true);
  if (f.source) f.source_node = source_node(w, f.node->ticket);
  if (gp) {
    set_timeout(gp, f.node->ticket, f.deadline);
    if (f.source) gp->nodes_count = 1;
    gp->guard.lock();
    park_call(current_m(), WaitReason::Io, nullptr, commit_fd, &f);
    gp->guard.lock();
    gp->guard.unlock();
    pass_canceller(gp);
    if (f.deadline != kNever) timer_remove(&gp->timer);
    if (f.source) gp->nodes_count = 0;
  } else {
    f.error = sched.poller.arm(f.fd, f.write, f.node);
    if (f.error) return Outcome::Wake;
    enroll(f.source, f.source_node);
    wake_one();  // somebody must sleep in the poller
    w->note.sleep();
  }
  const Outcome o = w->outcome();
  if (f.source) leave_queue(f.source_node);
  if (o != Outcome::Wake && f.node->lock) sched.poller.disarm(f.node);
  if (o == Outcome::Stop) unwind_current(true);
  return o;
}

std::error_code error_in(const FdWait& f) {
  if (f.error && f.error != EPERM) return {f.error, std::system_category()};
  return {};
}

}  // namespace

std::error_code wait_fd(int fd, Io dir, std::optional<Time> deadline) {
  SCHED_POINT("wait fd");
  const std::int64_t until = deadline ? timed(deadline->time_since_epoch().count()) : kNever;
  if (!current_g()) return poll_on_thread(fd, dir, until);
  Inside inside;
  if (until <= arch::clock_now()) return Errc::deadline_exceeded;
  FdWait f{fd, dir == Io::Write, until, nullptr};
  const Outcome o = wait(f);
  if (o == Outcome::Timeout) return Errc::deadline_exceeded;
  if (o == Outcome::Cancel) {
    result_canceled();
    return Errc::canceled;
  }
  return error_in(f);
}

std::error_code wait_fd(const Context& ctx, int fd, Io dir) {
  SCHED_POINT("wait fd");
  Inside inside;
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  Limit limit = by.limit();
  if (!current_g()) {
    if (!limit.source) return poll_on_thread(fd, dir, kNever);
    if (!sched.poller.ok()) return Errc::not_running;
  }
  prepare_wait(current_g(), limit);
  FdWait f{fd, dir == Io::Write, kNever, nullptr, limit.source};
  if (std::error_code e = error_of(wait(f), by)) return e;
  return error_in(f);
}

}  // namespace weft
