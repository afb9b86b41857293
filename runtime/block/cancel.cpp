// See cancel.hpp.
#include "runtime/block/cancel.hpp"

#include <weft/task.hpp>

namespace weft::rt {

void throw_canceled() { throw Canceled(); }

void result_canceled() {
  if (const G* gp = current_g(); gp && gp->domain && gp->domain->throws) throw_canceled();
}

std::error_code error_of(Outcome o, const ContextWait& by) {
  if (o == Outcome::Wake) return {};
  if (std::error_code e = by.error()) return e;
  if (o == Outcome::Cancel) result_canceled();
  return Errc::canceled;
}

namespace {
[[maybe_unused]] const bool registered = (cancel_thrower = throw_canceled, true);
}

}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

void* mask_cancel() noexcept {
  const G* gp = current_g();
  Domain* d = gp ? gp->domain : nullptr;
  if (d) d->masked++;
  return d;
}

void unmask_cancel(void* domain) noexcept { static_cast<Domain*>(domain)->masked--; }

void result_canceled() { rt::result_canceled(); }

}  // namespace weft::detail
