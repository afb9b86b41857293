// The personality of gate_frame(), and what the exceptions of C++ look like from outside. See gate.hpp.
//
// Layout     An _Unwind_Exception of C++ is the last member of a header (Itanium ABI, 2.2.1); the object that was thrown
//            follows it. What std::rethrow_exception throws is a header without an object (class "GNUCC++\1") whose first word
//            points to it. A std::exception_ptr is that pointer, counted. tests/unit/gate_test.cpp checks each of these.
#include "arch/gate.hpp"

#include <cxxabi.h>

#include "arch/cpu.hpp"

extern "C" {
__attribute__((visibility("hidden"))) extern char weft_gate_landing[];
__attribute__((visibility("hidden"))) extern char weft_gate_end[];
__attribute__((visibility("hidden"), used)) _Unwind_Reason_Code weft_gate_personality(
    int version, _Unwind_Action actions, _Unwind_Exception_Class, _Unwind_Exception* thrown, _Unwind_Context* context);
}

namespace weft::arch {
namespace {

#if defined(__x86_64__)
constexpr int kGateRegister = 3;  // rbx, in DWARF's count: holds the gate across the call
#else
#error "arch/gate.cpp: add this CPU's gate"
#endif

constexpr std::size_t kHeaderBefore = 80;  // from the first word of a header to its _Unwind_Exception
constexpr std::uint64_t kVendorMask = ~std::uint64_t{0xff};
constexpr std::uint64_t kVendor = 0x474e5543432b2b00;  // "GNUCC++\0"

static_assert(sizeof(std::exception_ptr) == sizeof(void*));

/// The gate, if `context` is a gate_frame() that stands in its call.
Gate* gate_of(_Unwind_Context* context) {
  const auto pc = reinterpret_cast<const char*>(_Unwind_GetIP(context));
  if (pc < reinterpret_cast<const char*>(&gate_frame) || pc >= weft_gate_end) return nullptr;
  return reinterpret_cast<Gate*>(_Unwind_GetGR(context, kGateRegister));
}

struct Search {
  bool any = false;            // stop at any gate
  const Gate* gate = nullptr;  // at this one; null: at none
  const Gate* found = nullptr;
  std::uintptr_t* pcs = nullptr;
  std::size_t count = 0;
  std::size_t max = 0;
};

_Unwind_Reason_Code look(_Unwind_Context* context, void* arg) {
  auto& s = *static_cast<Search*>(arg);
  if (const Gate* gate = gate_of(context); gate && (s.any || s.gate == gate)) {
    s.found = gate;
    return _URC_END_OF_STACK;
  }
  const std::uintptr_t pc = _Unwind_GetIP(context);
  if (pc == 0) return _URC_END_OF_STACK;
  if (s.count < s.max) s.pcs[s.count] = pc;
  s.count++;
  return _URC_NO_REASON;
}

}  // namespace

const Gate* innermost_gate() {
  Search s{.any = true};
  _Unwind_Backtrace(look, &s);
  return s.found;
}

std::size_t frames_above(const Gate* gate, std::uintptr_t* pcs, std::size_t max) {
  Search s{.gate = gate, .pcs = pcs, .max = max};
  _Unwind_Backtrace(look, &s);
  return s.count;
}

std::exception_ptr in_flight(const _Unwind_Exception* thrown) {
  const std::uint64_t cls = thrown->exception_class;
  if ((cls & kVendorMask) != kVendor) return {};
  void* object = const_cast<_Unwind_Exception*>(thrown) + 1;
  if (cls & 0xff) object = *reinterpret_cast<void* const*>(reinterpret_cast<const char*>(thrown) - kHeaderBefore);
  return *reinterpret_cast<const std::exception_ptr*>(&object);  // the copy counts
}

const void* object_in(const std::exception_ptr& e) { return *reinterpret_cast<void* const*>(&e); }

void land(_Unwind_Exception* thrown) {
  abi::__cxa_begin_catch(thrown);
  abi::__cxa_end_catch();
}

}  // namespace weft::arch

_Unwind_Reason_Code weft_gate_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class,
                                          _Unwind_Exception* thrown, _Unwind_Context* context) {
  using namespace weft::arch;
  if (version != 1) return _URC_FATAL_PHASE1_ERROR;
  if (actions & _UA_SEARCH_PHASE) {
    Gate* gate = reinterpret_cast<Gate*>(_Unwind_GetGR(context, kGateRegister));
    return gate->asked(gate, thrown) ? _URC_HANDLER_FOUND : _URC_CONTINUE_UNWIND;
  }
  if (!(actions & _UA_HANDLER_FRAME) || (actions & _UA_FORCE_UNWIND)) return _URC_CONTINUE_UNWIND;
  _Unwind_SetGR(context, __builtin_eh_return_data_regno(0), reinterpret_cast<_Unwind_Word>(thrown));
  _Unwind_SetIP(context, reinterpret_cast<_Unwind_Ptr>(weft_gate_landing));
  return _URC_INSTALL_CONTEXT;
}
