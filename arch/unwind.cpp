// See unwind.hpp.
//
// Format     .eh_frame: a CIE with what functions share, an FDE per function, both with instructions that say for each
//            address where the caller's registers are, relative to the CFA (the stack pointer before the call).
#include "arch/unwind.hpp"

#include <sys/uio.h>
#include <unistd.h>
#include <unwind.h>

#include <cstring>
#include <new>

#include "arch/cpu.hpp"

extern "C" {
struct dwarf_eh_bases {
  void* tbase;
  void* dbase;
  void* func;
};
/// libgcc's and LLVM's unwinder export it: the FDE that covers `pc`.
const void* _Unwind_Find_FDE(void* pc, dwarf_eh_bases* bases);
}

namespace weft::arch {
namespace {

#if defined(__x86_64__)
constexpr unsigned kFp = 6, kSp = 7, kRa = 16;
#elif defined(__aarch64__)
constexpr unsigned kFp = 29, kSp = 31, kRa = 30;
#else
#error "arch/unwind.cpp: add this CPU's DWARF register numbers"
#endif

constexpr std::size_t kFramesMax = 1'000'000;

// ---- reading the stack ---------------------------------------------------------------------------------------------

WEFT_NO_SANITIZE bool load(const StackBounds& b, std::uintptr_t at, std::uintptr_t* out) {
  if (at < b.lo || at > b.hi - sizeof *out || at % sizeof *out != 0) return false;
  if (!b.checked) {
    *out = *reinterpret_cast<const volatile std::uintptr_t*>(at + static_cast<std::uintptr_t>(b.shift));
    return true;
  }
  return read_checked(reinterpret_cast<const void*>(at + static_cast<std::uintptr_t>(b.shift)), out, sizeof *out);
}

// ---- reading the tables --------------------------------------------------------------------------------------------

class Bytes {
 public:
  Bytes(const std::uint8_t* at, const std::uint8_t* end) : at_(at), end_(end) {}
  bool more() const { return at_ < end_; }
  const std::uint8_t* at() const { return at_; }
  void skip(std::size_t n) { at_ += n; }

  template <class T>
  T get() {
    T v;
    std::memcpy(&v, at_, sizeof v);
    at_ += sizeof v;
    return v;
  }
  std::uint64_t uleb() {
    std::uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
      const std::uint8_t b = *at_++;
      if (shift < 64) v |= std::uint64_t{b & 0x7fu} << shift;
      if (!(b & 0x80)) return v;
    }
  }
  std::int64_t sleb() {
    std::uint64_t v = 0;
    for (unsigned shift = 0;;) {
      const std::uint8_t b = *at_++;
      if (shift < 64) v |= std::uint64_t{b & 0x7fu} << shift;
      shift += 7;
      if (b & 0x80) continue;
      if (shift < 64 && (b & 0x40)) v |= ~std::uint64_t{0} << shift;
      return static_cast<std::int64_t>(v);
    }
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

/// Bytes of an encoded pointer; 0: an encoding that we do not read.
std::size_t encoded_size(std::uint8_t encoding) {
  switch (encoding & 0x0f) {
    case 0x00: return sizeof(void*);
    case 0x02: case 0x0a: return 2;
    case 0x03: case 0x0b: return 4;
    case 0x04: case 0x0c: return 8;
    default: return 0;
  }
}

enum class How : std::uint8_t { Same, Undefined, AtCfa, Expression, Other };

struct Rule {
  How how = How::Same;
  std::int32_t offset = 0;            // AtCfa: the register lies at CFA + offset
  const std::uint8_t* expr = nullptr;  // Expression: its address; points at the length
};

struct Row {
  bool cfa_is_expr = false;
  std::uint8_t cfa_reg = kSp;
  std::int32_t cfa_offset = 0;
  const std::uint8_t* cfa_expr = nullptr;
  Rule fp;
  Rule ra;
  bool bad = false;

  Rule* rule(std::uint64_t reg) { return reg == kFp ? &fp : reg == kRa ? &ra : nullptr; }
};

struct Cie {
  std::uint64_t code_align = 1;
  std::int64_t data_align = 1;
  std::uint8_t encoding = 0;
  bool augmented = false;
  bool signal_frame = false;
  const std::uint8_t* code = nullptr;
  const std::uint8_t* end = nullptr;
};

bool read_cie(const std::uint8_t* p, Cie* cie) {
  std::uint32_t length;
  std::memcpy(&length, p, 4);
  if (length == 0 || length == 0xffffffff) return false;
  cie->end = p + 4 + length;
  Bytes b(p + 8, cie->end);
  const std::uint8_t version = b.get<std::uint8_t>();
  if (version != 1 && version != 3) return false;
  const char* aug = reinterpret_cast<const char*>(b.at());
  b.skip(std::strlen(aug) + 1);
  cie->code_align = b.uleb();
  cie->data_align = b.sleb();
  if (version == 1) b.skip(1); else b.uleb();
  if (*aug == 'z') {
    cie->augmented = true;
    const std::uint64_t n = b.uleb();
    const std::uint8_t* after = b.at() + n;
    for (const char* a = aug + 1; *a; a++) {
      if (*a == 'R') {
        cie->encoding = b.get<std::uint8_t>();
      } else if (*a == 'L') {
        b.skip(1);
      } else if (*a == 'P') {
        const std::uint8_t e = b.get<std::uint8_t>();
        if (!encoded_size(e)) return false;
        b.skip(encoded_size(e));
      } else if (*a == 'S') {
        cie->signal_frame = true;
      } else if (*a != 'B') {
        return false;
      }
    }
    cie->code = after;
  } else if (*aug == 0) {
    cie->code = b.at();
  } else {
    return false;
  }
  return true;
}

/// Runs call-frame instructions up to the row for `pc`.
void run_cfa(Bytes b, const Cie& cie, std::uintptr_t loc, std::uintptr_t pc, const Row& initial, Row* row) {
  Row saved[8];
  unsigned n_saved = 0;
  auto set = [&](std::uint64_t reg, How how, std::int64_t offset = 0, const std::uint8_t* expr = nullptr) {
    if (Rule* r = row->rule(reg)) *r = {how, static_cast<std::int32_t>(offset), expr};
  };
  auto restore = [&](std::uint64_t reg) {
    if (reg == kFp) row->fp = initial.fp;
    if (reg == kRa) row->ra = initial.ra;
  };
  auto skip_expr = [&] {
    const std::uint8_t* at = b.at();
    b.skip(b.uleb());
    return at;
  };
  auto set_cfa = [&](std::uint64_t reg, std::int64_t offset) {
    row->cfa_is_expr = false;
    row->cfa_reg = static_cast<std::uint8_t>(reg);
    row->cfa_offset = static_cast<std::int32_t>(offset);
  };
  while (b.more() && loc <= pc) {
    const std::uint8_t op = b.get<std::uint8_t>();
    const std::uint8_t low = op & 0x3f;
    switch (op & 0xc0) {
      case 0x40: loc += low * cie.code_align; continue;
      case 0x80: set(low, How::AtCfa, static_cast<std::int64_t>(b.uleb()) * cie.data_align); continue;
      case 0xc0: restore(low); continue;
    }
    switch (low) {
      case 0x00: break;                                                     // nop
      case 0x01: {                                                          // set_loc
        const std::size_t n = encoded_size(cie.encoding);
        row->bad = true;  // nobody emits it for .eh_frame
        b.skip(n);
        break;
      }
      case 0x02: loc += b.get<std::uint8_t>() * cie.code_align; break;      // advance_loc1
      case 0x03: loc += b.get<std::uint16_t>() * cie.code_align; break;     // advance_loc2
      case 0x04: loc += b.get<std::uint32_t>() * cie.code_align; break;     // advance_loc4
      case 0x05: {                                                          // offset_extended
        const std::uint64_t reg = b.uleb();
        set(reg, How::AtCfa, static_cast<std::int64_t>(b.uleb()) * cie.data_align);
        break;
      }
      case 0x06: restore(b.uleb()); break;                                  // restore_extended
      case 0x07: set(b.uleb(), How::Undefined); break;                      // undefined
      case 0x08: set(b.uleb(), How::Same); break;                           // same_value
      case 0x09: {                                                          // register
        const std::uint64_t reg = b.uleb();
        b.uleb();
        set(reg, How::Other);
        break;
      }
      case 0x0a: if (n_saved < 8) saved[n_saved++] = *row; else row->bad = true; break;  // remember_state
      case 0x0b: if (n_saved > 0) *row = saved[--n_saved]; else row->bad = true; break;  // restore_state
      case 0x0c: { const auto reg = b.uleb(); set_cfa(reg, static_cast<std::int64_t>(b.uleb())); break; }  // def_cfa
      case 0x0d: set_cfa(b.uleb(), row->cfa_offset); break;                 // def_cfa_register
      case 0x0e: set_cfa(row->cfa_reg, static_cast<std::int64_t>(b.uleb())); break;  // def_cfa_offset
      case 0x0f: row->cfa_is_expr = true; row->cfa_expr = skip_expr(); break;  // def_cfa_expression
      case 0x10: { const auto reg = b.uleb(); set(reg, How::Expression, 0, skip_expr()); break; }  // expression
      case 0x11: { const auto reg = b.uleb(); set(reg, How::AtCfa, b.sleb() * cie.data_align); break; }
      case 0x12: { const auto reg = b.uleb(); set_cfa(reg, b.sleb() * cie.data_align); break; }
      case 0x13: set_cfa(row->cfa_reg, b.sleb() * cie.data_align); break;   // def_cfa_offset_sf
      case 0x14: case 0x15: {                                               // val_offset, val_offset_sf
        const std::uint64_t reg = b.uleb();
        b.uleb();
        set(reg, How::Other);
        break;
      }
      case 0x16: { const auto reg = b.uleb(); skip_expr(); set(reg, How::Other); break; }  // val_expression
      case 0x2d: break;                                                     // GNU_window_save, AARCH64_negate_ra_state
      case 0x2e: b.uleb(); break;                                           // GNU_args_size
      default: row->bad = true; return;
    }
  }
}

struct Regs {
  std::uintptr_t pc, sp, fp;
};

/// A DWARF expression over sp, fp and pc. False: something in it is not for us.
bool evaluate(const std::uint8_t* expr, const Regs& r, const StackBounds& bounds, const std::uintptr_t* first, std::uintptr_t* out) {
  Bytes head(expr, expr + 16);
  const std::uint64_t size = head.uleb();
  Bytes b(head.at(), head.at() + size);
  std::uintptr_t stack[16];
  unsigned n = 0;
  if (first) stack[n++] = *first;
  auto push = [&](std::uintptr_t v) {
    if (n == 16) return false;
    stack[n++] = v;
    return true;
  };
  while (b.more()) {
    const std::uint8_t op = b.get<std::uint8_t>();
    bool ok = true;
    if (op >= 0x30 && op <= 0x4f) {
      ok = push(op - 0x30u);
    } else if (op >= 0x70 && op <= 0x8f) {
      const unsigned reg = op - 0x70u;
      const auto offset = static_cast<std::uintptr_t>(b.sleb());
      ok = (reg == kSp || reg == kFp || reg == kRa) && push((reg == kSp ? r.sp : reg == kFp ? r.fp : r.pc) + offset);
    } else if (op == 0x08) {
      ok = push(b.get<std::uint8_t>());
    } else if (op == 0x09) {
      ok = push(static_cast<std::uintptr_t>(b.get<std::int8_t>()));
    } else if (op == 0x0a) {
      ok = push(b.get<std::uint16_t>());
    } else if (op == 0x0b) {
      ok = push(static_cast<std::uintptr_t>(b.get<std::int16_t>()));
    } else if (op == 0x10) {
      ok = push(b.uleb());
    } else if (op == 0x11) {
      ok = push(static_cast<std::uintptr_t>(b.sleb()));
    } else if (op == 0x06) {
      ok = n > 0 && load(bounds, stack[n - 1], &stack[n - 1]);
    } else if (op == 0x23) {
      ok = n > 0;
      const std::uint64_t by = b.uleb();
      if (ok) stack[n - 1] += by;
    } else if (op == 0x1a || op == 0x1c || op == 0x22 || op == 0x24 || op == 0x2a) {
      if (n < 2) return false;
      const std::uintptr_t y = stack[--n];
      std::uintptr_t& x = stack[n - 1];
      switch (op) {
        case 0x1a: x &= y; break;
        case 0x1c: x -= y; break;
        case 0x22: x += y; break;
        case 0x24: x <<= y & 63; break;
        case 0x2a: x = static_cast<std::intptr_t>(x) >= static_cast<std::intptr_t>(y); break;
      }
    } else {
      return false;
    }
    if (!ok) return false;
  }
  if (n == 0) return false;
  *out = stack[n - 1];
  return true;
}

/// The row for `pc`. False: no table covers it.
bool find_row(std::uintptr_t pc, Row* row, bool* signal_frame) {
  dwarf_eh_bases bases;
  const auto* fde = static_cast<const std::uint8_t*>(_Unwind_Find_FDE(reinterpret_cast<void*>(pc), &bases));
  if (!fde) return false;
  std::uint32_t length, delta;
  std::memcpy(&length, fde, 4);
  std::memcpy(&delta, fde + 4, 4);
  if (length == 0xffffffff) return false;
  Cie cie;
  if (!read_cie(fde + 4 - delta, &cie)) return false;
  const std::size_t width = encoded_size(cie.encoding);
  if (!width) return false;
  Bytes b(fde + 8 + 2 * width, fde + 4 + length);
  if (cie.augmented) {
    const std::uint64_t n = b.uleb();
    b.skip(n);
  }
  Row initial;
  run_cfa(Bytes(cie.code, cie.end), cie, 0, 0, initial, &initial);
  *row = initial;
  run_cfa(b, cie, reinterpret_cast<std::uintptr_t>(bases.func), pc, initial, row);
  *signal_frame = cie.signal_frame;
  return !row->bad;
}

}  // namespace

bool read_checked(const void* from, void* to, std::size_t n) {
  iovec local{to, n};
  iovec remote{const_cast<void*>(from), n};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(n);
}

struct FrameRules {
  static constexpr std::size_t kEntries = 1024;
  struct Entry {
    std::uintptr_t pc = 0;
    Row row;
    bool signal_frame = false;
  };
  Entry entries[kEntries];
};

FrameRules* new_frame_rules() { return new (std::nothrow) FrameRules; }
void delete_frame_rules(FrameRules* rules) { delete rules; }

namespace {

enum class Step : std::uint8_t { Next, End, NoTable };

Step step_by_table(Regs* r, bool* exact, StackBounds& bounds, FrameRules* rules) {
  // A return address may be the first byte of the next function: the call stands before it.
  const std::uintptr_t pc = *exact ? r->pc : r->pc - 1;
  Row row;
  bool signal_frame = false;
  FrameRules::Entry* cached = rules ? &rules->entries[(pc ^ pc >> 10) % FrameRules::kEntries] : nullptr;
  if (cached && cached->pc == pc) {
    row = cached->row;
    signal_frame = cached->signal_frame;
  } else {
    if (!find_row(pc, &row, &signal_frame)) return Step::NoTable;
    if (cached) *cached = {pc, row, signal_frame};
  }
  std::uintptr_t cfa;
  if (row.cfa_is_expr) {
    if (!evaluate(row.cfa_expr, *r, bounds, nullptr, &cfa)) return Step::End;
  } else if (row.cfa_reg == kSp || row.cfa_reg == kFp) {
    cfa = (row.cfa_reg == kSp ? r->sp : r->fp) + static_cast<std::uintptr_t>(static_cast<std::intptr_t>(row.cfa_offset));
  } else {
    return Step::NoTable;
  }
  if (!signal_frame && (cfa <= r->sp || cfa > bounds.hi) && !(bounds.piece && bounds.piece(bounds.of, cfa - 1, &bounds))) return Step::End;
  auto value_of = [&](const Rule& rule, std::uintptr_t same, std::uintptr_t* out) {
    switch (rule.how) {
      case How::Same: *out = same; return true;
      case How::AtCfa: return load(bounds, cfa + static_cast<std::uintptr_t>(static_cast<std::intptr_t>(rule.offset)), out);
      case How::Expression: {
        std::uintptr_t at;
        return evaluate(rule.expr, *r, bounds, &cfa, &at) && load(bounds, at, out);
      }
      default: return false;
    }
  };
  Regs up = *r;
  if (row.ra.how == How::Same || !value_of(row.ra, 0, &up.pc) || up.pc == 0) return Step::End;
  if (!value_of(row.fp, r->fp, &up.fp)) up.fp = 0;
  up.sp = cfa;
  *r = up;
  *exact = signal_frame;
  return Step::Next;
}

Step step_by_frame_pointer(Regs* r, bool* exact, const StackBounds& bounds) {
  Regs up;
  if (r->fp < r->sp || !load(bounds, r->fp, &up.fp) || !load(bounds, r->fp + sizeof(void*), &up.pc) || up.pc == 0)
    return Step::End;
  up.sp = r->fp + 2 * sizeof(void*);
  *r = up;
  *exact = false;
  return Step::Next;
}

struct Own {
  FrameFn f;
  void* arg;
  std::size_t left = kFramesMax;
};

_Unwind_Reason_Code own_frame(_Unwind_Context* context, void* arg) {
  auto* own = static_cast<Own*>(arg);
  int before = 0;
  const std::uintptr_t pc = _Unwind_GetIPInfo(context, &before);
  if (pc == 0 || own->left-- == 0 || !own->f(pc, before != 0, own->arg)) return _URC_END_OF_STACK;
  return _URC_NO_REASON;
}

}  // namespace

WEFT_NOINLINE void walk_here(FrameFn f, void* arg) {
  Own own{f, arg};
  _Unwind_Backtrace(own_frame, &own);
}

void walk_from(const SavedRegs& regs, bool exact, const StackBounds& where, FrameRules* rules, FrameFn f, void* arg) {
  Regs r{regs.pc, regs.sp, regs.fp};
  StackBounds bounds = where;
  if (r.pc == 0 || bounds.hi < bounds.lo + sizeof(void*) || r.sp < bounds.lo || r.sp > bounds.hi) return;
  for (std::size_t n = 0; n < kFramesMax; n++) {
    if (!f(r.pc, exact, arg)) return;
    Step s = step_by_table(&r, &exact, bounds, rules);
    if (s == Step::NoTable) s = step_by_frame_pointer(&r, &exact, bounds);
    if (s != Step::Next) return;
  }
}

}  // namespace weft::arch
