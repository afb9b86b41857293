/// weft/singleflight.hpp: one execution for all who ask for the same thing at once.
#pragma once

#include <weft/chan.hpp>
#include <weft/context.hpp>
#include <weft/detail/mask.hpp>
#include <weft/error.hpp>
#include <weft/detail/value.hpp>
#include <weft/go.hpp>
#include <weft/latch.hpp>
#include <weft/mutex.hpp>
#include <weft/once.hpp>

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace weft {

/// Go's singleflight.Group. Callers that come with a key while a call with it is under way wait for that one and share its
/// result, a copy each. What f throws, a Panic too, is raised in all of them; a goexit of f ends all of them. If the task in which
/// f runs is cancelled, the others get a std::system_error of Errc::canceled. Threads: any.
/// Lifetime: must outlive the calls.
template <class K, class V, class Hash = std::hash<K>, class Equal = std::equal_to<K>>
class Singleflight {
 public:
  struct Result {
    V value;
    bool shared;  ///< more than one caller got it
  };
  /// What the channel of run_chan carries: a value, or what f threw.
  struct Report {
    std::optional<V> value;
    std::exception_ptr raised;
    bool shared = false;
  };

  /// The result of f(), of this call or of one under way.
  template <class F>
  Result run(const K& key, F&& f) {
    auto [c, first] = join(key, nullptr);
    if (first)
      execute(key, c, f);
    else
      c->done.wait();
    return result_of(*c);
  }

  /// The same for a limited time. If it is the first, f runs in a goroutine of its own, and runs on for the others when this caller
  /// has left: what it refers to must live that long. Nullopt: the time ran out.
  template <class Rep, class Period, class F>
  std::optional<Result> run_for(const K& key, std::chrono::duration<Rep, Period> d, F&& f) {
    return run_until(key, Time(Clock::duration(detail::deadline_after(detail::to_ns(d)))), std::forward<F>(f));
  }
  template <class F>
  std::optional<Result> run_until(const K& key, Time t, F&& f) {
    const CallRef c = start(key, nullptr, std::forward<F>(f));
    if (!c->done.wait_until(t)) return std::nullopt;
    return result_of(*c);
  }
  /// The same with a context, which is not that of f. Nullopt: ctx is or became done first, ctx.err() says why. If it was done
  /// before, f does not run.
  template <class F>
  std::optional<Result> run(const Context& ctx, const K& key, F&& f) {
    if (ctx.err()) return std::nullopt;
    const CallRef c = start(key, nullptr, std::forward<F>(f));
    if (c->done.wait(ctx)) return std::nullopt;
    return result_of(*c);
  }

  /// The same without waiting: one Report on a channel with room for it. f runs in a goroutine of its own if it is the first.
  /// If it calls goexit nothing comes.
  template <class F>
  RecvChan<Report> run_chan(const K& key, F&& f) {
    Chan<Report> out = make_chan<Report>(1);
    start(key, &out, std::forward<F>(f));
    return out;
  }

  /// The next call with this key runs its function, though one is under way.
  void forget(const K& key) {
    detail::MaskedLock l(mu_);
    calls_.erase(key);
  }

 private:
  struct Call {
    Latch done{1};
    // Under mu_ until done.
    int others = 0;
    std::vector<Chan<Report>> chans;
    // Written before done.
    std::optional<V> value;
    std::exception_ptr raised;
    bool shared = false;
  };
  using CallRef = std::shared_ptr<Call>;

  std::pair<CallRef, bool> join(const K& key, const Chan<Report>* out) {
    detail::MaskedLock l(mu_);
    auto [at, fresh] = calls_.try_emplace(key);
    if (fresh)
      at->second = detail::make_shared_value<Call>();
    else
      at->second->others++;
    if (out) at->second->chans.push_back(*out);
    return {at->second, fresh};
  }

  /// Joins the call under way, or starts one in a goroutine of its own.
  template <class F>
  CallRef start(const K& key, const Chan<Report>* out, F&& f) {
    auto [c, first] = join(key, out);
    if (first)
      go([this, key, c = c, f = std::decay_t<F>(std::forward<F>(f))]() mutable {
        try {
          execute(key, c, f);
        } catch (...) {
          if (detail::unwinding_now()) throw;  // anything else is kept for those who ask
        }
      });
    return c;
  }

  static Result result_of(const Call& c) {
    if (c.raised) std::rethrow_exception(c.raised);
    if (!c.value) goexit();
    return {*c.value, c.shared};
  }

  template <class F>
  void execute(const K& key, const CallRef& c, F& f) {
    struct Land {  // also when f is unwound by goexit
      Singleflight* s;
      const K& key;
      const CallRef& c;
      ~Land() {
        std::vector<Chan<Report>> chans;
        {
          detail::MaskedLock l(s->mu_);
          if (auto at = s->calls_.find(key); at != s->calls_.end() && at->second == c) s->calls_.erase(at);
          c->shared = c->others > 0;
          chans.swap(c->chans);
        }
        if (c->value || c->raised)
          for (const Chan<Report>& out : chans) out.try_send(Report{c->value, c->raised, c->shared});
        c->done.count_down();
      }
    } land{this, key, c};
    try {
      c->value.emplace(std::invoke(f));
    } catch (const Canceled&) {
      // The end of this caller's task is not that of the others.
      c->raised = std::make_exception_ptr(std::system_error(Errc::canceled));
      throw;
    } catch (...) {
      if (detail::unwinding_now()) throw;
      c->raised = std::current_exception();
    }
  }

  Mutex mu_;
  std::unordered_map<K, CallRef, Hash, Equal> calls_;  // under mu_
};

}  // namespace weft
