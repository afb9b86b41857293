// Everybody is asleep: who waits on what, then the stacks.
//
// In run() the report ends the process with Go's message and exit status 2. Else it goes to Config::on_stuck, or to the log.
// What the waiters' queues hold is read under their objects' locks, and given up if one is not to be had: plain threads, which
// the stop of the world does not stop, may be at them.
// Orders  [status] see core/g.hpp.
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <new>
#include <string>
#include <vector>

#include "runtime/base/emit.hpp"
#include "runtime/base/log.hpp"
#include "runtime/block/chan.hpp"
#include "runtime/obs/dump.hpp"
#include "runtime/obs/report.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::size_t kExplainedMost = 100;

void print_name(Sink& out, const G* gp) {
  out << "goroutine ";
  out.dec(gp->id);
  if (gp->extra && !gp->extra->spawn.name.empty()) {
    out << " ";
    out.quoted(gp->extra->spawn.name);
  }
}

void print_chan(Sink& out, const void* chan) {
  const ChanView v = chan_view(chan);
  out << "chan ";
  out.hex(reinterpret_cast<std::uintptr_t>(chan));
  if (v.cap == 0) {
    out << " (unbuffered";
  } else {
    out << " (cap ";
    out.dec(v.cap);
    out << ", len ";
    out.dec(v.len);
  }
  if (v.busy) {
    out << "), which a thread is just using";
    return;
  }
  out << "), where ";
  out.dec(v.receivers);
  out << " receive and ";
  out.dec(v.senders);
  out << " send";
}

/// The channel whose lock this would be: a select's node knows no more of it.
const ChanCore* chan_of(const SpinLock* lock) {
  static const std::ptrdiff_t lock_at = [] {
    alignas(ChanCore) static unsigned char bytes[sizeof(ChanCore)];
    const auto* c = reinterpret_cast<const ChanCore*>(bytes);
    return reinterpret_cast<const unsigned char*>(&c->lock) - bytes;
  }();
  return reinterpret_cast<const ChanCore*>(reinterpret_cast<const unsigned char*>(lock) - lock_at);
}

/// The queue that a node is in; null: none, or not to be known now. A plain thread may be taking it out.
const WaitQueue* queue_of(const WaitNode& n) {
  if (!n.lock || !n.lock->lock_for_report()) return nullptr;
  const WaitQueue* q = n.queue;
  n.lock->unlock();
  return q;
}

void print_select(Sink& out, const G* gp) {
  out << "waits for one of " << (gp->nodes_count == 0 ? "no cases" : "its cases: ");
  unsigned shown = 0;
  for (unsigned i = 0; i < gp->nodes_count; i++) {
    const WaitQueue* queue = queue_of(gp->nodes[i]);
    if (!queue) continue;
    const ChanCore* c = chan_of(gp->nodes[i].lock);
    if (queue != &c->senders && queue != &c->receivers) continue;  // a descriptor's
    if (shown++ > 0) out << "; ";
    if (shown > 8) {
      out << "...";
      break;
    }
    out << (queue == &c->senders ? "send on " : "receive from ");
    print_chan(out, c);
  }
  if (shown == 0 && gp->nodes_count != 0) out << "none of them can ever be ready (nil channels)";
}

void print_wait(Sink& out, const G* gp) {
  // Read only where it is one: else the word may be the link of a list that sysmon makes.
  const auto object = [gp] { return reinterpret_cast<std::uintptr_t>(gp->wait_object); };
  switch (gp->reason) {
    case WaitReason::ChanReceive:
      out << "waits for a sender on ";
      print_chan(out, gp->wait_object);
      break;
    case WaitReason::ChanSend:
      out << "waits for a receiver on ";
      print_chan(out, gp->wait_object);
      break;
    case WaitReason::ChanReceiveNil:
    case WaitReason::ChanSendNil: out << "waits for ever: nothing can happen on a nil channel"; break;
    case WaitReason::Select: print_select(out, gp); break;
    case WaitReason::SelectNoCases: out << "waits for ever: its select has no case that can be ready"; break;
    case WaitReason::Mutex:
      out << "waits for an unlock of Mutex ";
      out.hex(object());
      break;
    case WaitReason::RwMutexRead:
    case WaitReason::RwMutexWrite:
      out << (gp->reason == WaitReason::RwMutexRead ? "waits to read under RwMutex " : "waits to write under RwMutex ");
      out.hex(object());
      break;
    case WaitReason::Cond:
      out << "waits for a notification of Cond ";
      out.hex(object());
      break;
    case WaitReason::Semaphore:
      out << "waits for a release of Semaphore ";
      out.hex(object());
      break;
    case WaitReason::Barrier:
      out << "waits for others at Barrier ";
      out.hex(object());
      break;
    case WaitReason::Latch:
      out << "waits for count_down() on Latch ";
      out.hex(object());
      break;
    case WaitReason::WaitGroup:
      out << "waits for done() on WaitGroup ";
      out.hex(object());
      break;
    case WaitReason::Await: out << "waits for somebody to call its Resume"; break;
    case WaitReason::Settle: out << "waits for other goroutines to end"; break;
    default: out << "waits"; break;
  }
}

void explain(Sink& out, const std::vector<G*>& all) {
  out << "who waits on what:\n";
  std::size_t n = 0;
  for (const G* gp : all) {
    if (gp->status.load(memory_order_acquire) != GStatus::Waiting) continue;  // [status]
    if (n++ == kExplainedMost) continue;
    if (n > kExplainedMost) continue;
    out << "  ";
    print_name(out, gp);
    // Without the colon of a stack's header: tools that read those skip this list.
    out << " [" << state_text(gp) << "] ";
    print_wait(out, gp);
    out << "\n";
  }
  if (n > kExplainedMost) {
    out << "  ...and ";
    out.dec(n - kExplainedMost);
    out << " more\n";
  }
}

[[noreturn]] void report_and_leave(const char* headline) {
  // Two threads that go to sleep at once may both find that nobody is left.
  static std::atomic<bool> begun{false};
  if (begun.exchange(true, memory_order_relaxed))
    for (;;) ::pause();
  sched.panicking.store(true, memory_order_relaxed);
  begin_patience([] { leave_with_2(); });
  emit_as_crash();
  EmitSink out;
  out << "fatal error: " << headline << "\n";
  out.flush();
  if (traceback_level() != Traceback::None) {
    try {
      const std::vector<G*> all = goroutines_by_id();
      if (!all.empty()) {
        out << "\n";
        explain(out, all);
      }
      StackDump stacks(traceback_level() >= Traceback::System);
      stacks.take(nullptr, true);  // nobody runs
      stacks.print(out);
    } catch (const std::bad_alloc&) {
      out << "\n[no memory for the report]\n";
    }
    out.flush();
  }
  leave_with_2();
}

void report_and_go_on(const char* headline) {
  // A thread that we do not know may wake somebody at any moment.
  if (!stop_world_for_report()) return;
  StuckReport report;
  report.text = headline;
  report.text += "\n\n";
  StringSink out(&report.text, kDumpBytesMax);
  StackDump stacks(traceback_level() >= Traceback::System);
  try {
    const std::vector<G*> all = goroutines_by_id();
    explain(out, all);
    for (const G* gp : all) {
      GoroutineInfo info;
      info.id = gp->id;
      if (gp->extra) info.name = gp->extra->spawn.name;
      info.reason = state_text(gp);
      report.goroutines.push_back(std::move(info));
    }
    stacks.take(nullptr, true);
  } catch (const std::bad_alloc&) {
    out << "[no memory for the report]\n";
  }
  start_world();
  const Config* config = sched.config;
  if (config && config->on_stuck) {
    stacks.print(out);
    config->on_stuck(report);
    return;
  }
  if (!report.text.empty() && report.text.back() == '\n') report.text.pop_back();
  log_text(LogLevel::Warn, report.text);
}

}  // namespace

// Stack: g0. Locks: none.
void report_stuck(bool fatal_in_run, const char* headline) {
  if (fatal_in_run)
    report_and_leave(headline);
  else
    report_and_go_on(headline);
}

}  // namespace weft::rt
