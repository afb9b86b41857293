/// weft/frame.hpp: a function with Go's defer and recover, in Go's exact order.
///
///   int f() {
///     return weft::func<int>([&](weft::Frame<int>& f) {
///       f.defer([&] { if (std::optional<weft::Panic> p = f.recover()) f.result = -1; });
///       return risky();
///     });
///   }
///
/// Order   Deferred calls run newest first, on return, panic and goexit. For an exception, any, they run before anything unwinds:
///         on top of the stack that threw it, which is whole in their tracebacks and, if nobody recovers, in the report. Handlers of
///         C++ (`catch`) that stand between the throw and the function come first. Once somebody has recovered or caught it,
///         destructors run, those of the deferred calls' own locals apart, which have run.
///         A panic in a deferred call replaces the one that it was called for; goexit drops it; a panic in goexit's, once
///         recovered, lets goexit go on.
/// Cost    Nanoseconds per function; a deferred call is a small closure, the first few without an allocation.
/// Threads Any; the frame belongs to the function's own goroutine or thread.
/// Go      The same but for two things. recover() may also be called by ordinary functions that the deferred call calls, unless
///         a func() lies between. An exception that meets a noexcept function ends the program before frames further out
///         run theirs.
#pragma once

#include <weft/detail/closure.hpp>
#include <weft/panic.hpp>

#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {

struct Deferred {
  Deferred* next = nullptr;
  void (*run)(Deferred* self) = nullptr;
  void (*drop)(Deferred* self) = nullptr;  // destroys it and gives back its memory
};

template <class F>
struct DeferredCall final : Deferred {
  F f;
  bool on_heap;
  DeferredCall(F&& g, bool heap) : f(std::move(g)), on_heap(heap) {}
};

[[noreturn]] void panic_nil_deferred();

class FrameBase {
 public:
  FrameBase(const FrameBase&) = delete;
  FrameBase& operator=(const FrameBase&) = delete;

  /// Calls f when the function ends. An empty f (a null pointer, an empty std::function) panics then, not now.
  template <class F>
  void defer(F f) {
    using Call = DeferredCall<F>;
    void* at = nullptr;
    bool heap = true;
    if constexpr (alignof(Call) <= alignof(std::max_align_t)) {
      constexpr std::size_t kSize = (sizeof(Call) + alignof(std::max_align_t) - 1) & ~(alignof(std::max_align_t) - 1);
      if (sizeof room_ - used_ >= kSize) {
        at = room_ + used_;
        used_ += kSize;
        heap = false;
      }
    }
    if (heap) at = ::operator new(sizeof(Call), std::align_val_t(alignof(Call)));
    Call* c = ::new (at) Call(std::move(f), heap);
    c->run = [](Deferred* self) {
      Call* call = static_cast<Call*>(self);
      if (is_nil_callable(call->f)) panic_nil_deferred();
      (void)call->f();
    };
    c->drop = [](Deferred* self) {
      Call* call = static_cast<Call*>(self);
      const bool was_heap = call->on_heap;
      std::destroy_at(call);
      if (was_heap) ::operator delete(call, std::align_val_t(alignof(Call)));
    };
    c->next = newest_;
    newest_ = c;
  }

  /// In a deferred call that runs because of a panic: stops it and returns it; func() returns once the deferred calls are done.
  /// nullopt: nothing panics, goexit or a cancel is under way, it has been recovered already, or this is not called from the deferred call.
  std::optional<Panic> recover();

 protected:
  FrameBase() = default;
  ~FrameBase() {
    while (newest_) drop_newest();
  }

 private:
  friend struct FrameAccess;

  void drop_newest() {
    Deferred* d = newest_;
    newest_ = d->next;
    d->drop(d);
  }

  Deferred* newest_ = nullptr;
  void* handling_ = nullptr;   // the panic that the deferred call under way runs for
  const void* gate_ = nullptr; // of that call
  std::size_t used_ = 0;
  alignas(std::max_align_t) std::byte room_[160];
};

/// Runs body and then what it has deferred.
void run_frame(FrameBase& frame, void (*body)(void*), void* arg);

}  // namespace detail

/// What func() hands to its body. `result`: Go's named result; deferred calls may change it. R needs a default value.
template <class R = void>
class Frame : public detail::FrameBase {
 public:
  R result{};
};

template <>
class Frame<void> : public detail::FrameBase {};

/// Calls body(frame) and then what it has deferred. Returns frame.result: what body returned, unless it returns nothing.
template <class R = void, class F>
R func(F&& body) {
  Frame<R> frame;
  auto run = [&] {
    if constexpr (std::is_void_v<R> || std::is_void_v<std::invoke_result_t<F&, Frame<R>&>>)
      (void)body(frame);
    else
      frame.result = body(frame);
  };
  detail::run_frame(frame, [](void* f) { (*static_cast<decltype(run)*>(f))(); }, &run);
  if constexpr (!std::is_void_v<R>) return std::move(frame.result);
}

}  // namespace weft
