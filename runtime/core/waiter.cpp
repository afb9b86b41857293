// See waiter.hpp.
#include "runtime/core/waiter.hpp"

namespace weft::rt {

const char* wait_reason_text(WaitReason r) {
  switch (r) {
    case WaitReason::None: return "waiting";
    case WaitReason::ChanReceive: return "chan receive";
    case WaitReason::ChanSend: return "chan send";
    case WaitReason::ChanReceiveNil: return "chan receive (nil chan)";
    case WaitReason::ChanSendNil: return "chan send (nil chan)";
    case WaitReason::Select: return "select";
    case WaitReason::SelectNoCases: return "select (no cases)";
    case WaitReason::Sleep: return "sleep";
    case WaitReason::Io: return "IO wait";
    case WaitReason::Mutex: return "sync.Mutex.Lock";
    case WaitReason::RwMutexRead: return "sync.RWMutex.RLock";
    case WaitReason::RwMutexWrite: return "sync.RWMutex.Lock";
    case WaitReason::Cond: return "sync.Cond.Wait";
    case WaitReason::Semaphore: return "semacquire";
    case WaitReason::Barrier: return "barrier wait";
    case WaitReason::Latch: return "latch wait";
    case WaitReason::WaitGroup: return "sync.WaitGroup.Wait";
    case WaitReason::Await: return "await";
    case WaitReason::Settle: return "settle";
    case WaitReason::Task: return "task wait";
    case WaitReason::ScopeEnd: return "scope end";
    case WaitReason::Yield: return "runnable";
    case WaitReason::Preempted: return "preempted";
    case WaitReason::NoStack: return "waiting for a stack";
    case WaitReason::PanicWait: return "panicwait";
    case WaitReason::Syscall: return "syscall";
    case WaitReason::BlockingCall: return "blocking call (too many at once)";
  }
  return "?";
}

}  // namespace weft::rt
