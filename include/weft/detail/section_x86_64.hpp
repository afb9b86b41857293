// Sections: a look at a word and a plain store that depends on it, as one step towards whoever asks for it, without a locked
// instruction.
//
// Protocol   The kernel's restartable sequences (rseq): a thread that is switched out, signalled or asked to by a
//            barrier while it is between `1` and `2` goes on at `4`, as if it had not begun. So whoever changes the
//            word and then calls arch::section_barrier() knows that no store is still to come from a look before the
//            change:
//
//              section                              who changes the word
//              word == from ?                       word: from -> other   (CAS)
//              word = to                            section_barrier()
//                                                   word is other still: every section sees that from here on;
//                                                   else one was through before, and the change was lost
//
//            A section that was interrupted says false, as one that found another value: its caller does without. It is
//            not tried again here, so that a debugger may step through it.
// Unloading  The kernel reads the description of the last section that began; so it is cleared, lest its library is
//            gone by then.
// Orders     On this CPU a store is a release, a load an acquire.
// Once       Descriptions and ways out go into the group of the function they are inlined into ("?"); the ways out into a section
//            of their own: in .text.unlikely they would come between the label that gcc counts a function's cold call sites
//            from and the first of its cold instructions, and exceptions from there would find no handler.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace weft::detail {

/// From the thread pointer to the thread's struct rseq; 0: no sections here. (arch/section.cpp)
extern std::atomic<std::ptrdiff_t> section_at;

[[gnu::always_inline]] inline bool has_sections() { return section_at.load(std::memory_order_relaxed) != 0; }

// Offsets in struct rseq: the CPU (negative: the kernel knows nothing of this thread), the description of the section.
#define WEFT_SECTION_CPU "%%fs:4(%[at])"
#define WEFT_SECTION_BEGIN                                                                                 \
  ".pushsection __rseq_cs, \"aw?\"\n\t.balign 32\n3:\t.long 0, 0\n\t.quad 1f, 2f - 1f, 4f\n\t.popsection\n\t" \
  "leaq 3b(%%rip), %%rax\n\tmovq %%rax, %%fs:8(%[at])\n"                                                    \
  "1:\n\t"
// The way out stands behind the signature that the kernel asks for.
#define WEFT_SECTION_END                                                                                   \
  "\n2:\tmovq $0, %%fs:8(%[at])\n\t"                                                                        \
  ".pushsection .text.weft_section, \"ax?\"\n\t.byte 0x0f, 0xb9, 0x3d\n\t.long 0x53053053\n"                    \
  "4:\tmovq $0, %%fs:8(%[at])\n\tjmp %l[out]\n\t.popsection"

/// word == from: it is `to` now. False: it was not, or the section was interrupted; nothing has happened.
[[gnu::always_inline]] inline bool section_replace(std::atomic<std::uint32_t>& word, std::uint32_t from, std::uint32_t to) {
  const std::ptrdiff_t at = section_at.load(std::memory_order_relaxed);
  if (__builtin_expect(at == 0, 0)) return false;
  asm goto(WEFT_SECTION_BEGIN
           "cmpl $0, " WEFT_SECTION_CPU "\n\tjs 4f\n\t"
           "cmpl %[from], %[word]\n\tjne 4f\n\t"
           "movl %[to], %[word]"
           WEFT_SECTION_END
           :
           : [at] "r"(at), [word] "m"(word), [from] "er"(from), [to] "er"(to)
           : "rax", "memory", "cc"
           : out);
  return true;
out:
  return false;
}

/// A cache line that begins with how many there are (32 bits), then one per CPU that begins with a count (64 bits).
struct PerCpu;

#define WEFT_SECTION_FIND_COUNT \
  "movq %[counts], %%rcx\n\ttestq %%rcx, %%rcx\n\tje 4f\n\t" \
  "movl " WEFT_SECTION_CPU ", %%eax\n\tcmpl (%%rcx), %%eax\n\tjae 4f\n\tshlq $6, %%rax\n\t"

/// One more in the count of this CPU. False: there is none, or the section was interrupted; nothing has happened.
[[gnu::always_inline]] inline bool section_count_in(std::atomic<PerCpu*>& counts) {
  const std::ptrdiff_t at = section_at.load(std::memory_order_relaxed);
  if (__builtin_expect(at == 0, 0)) return false;  // ended since the counts were made
  asm goto(WEFT_SECTION_BEGIN WEFT_SECTION_FIND_COUNT "incq 64(%%rcx, %%rax)" WEFT_SECTION_END
           :
           : [at] "r"(at), [counts] "m"(counts)
           : "rax", "rcx", "memory", "cc"
           : out);
  return true;
out:
  return false;
}

/// One less. False also if that count is zero.
[[gnu::always_inline]] inline bool section_count_out(std::atomic<PerCpu*>& counts) {
  if (!counts.load(std::memory_order_relaxed)) return false;
  const std::ptrdiff_t at = section_at.load(std::memory_order_relaxed);
  if (__builtin_expect(at == 0, 0)) return false;  // as above
  asm goto(WEFT_SECTION_BEGIN WEFT_SECTION_FIND_COUNT
           "cmpq $0, 64(%%rcx, %%rax)\n\tjle 4f\n\tdecq 64(%%rcx, %%rax)" WEFT_SECTION_END
           :
           : [at] "r"(at), [counts] "m"(counts)
           : "rax", "rcx", "memory", "cc"
           : out);
  return true;
out:
  return false;
}

#undef WEFT_SECTION_FIND_COUNT
#undef WEFT_SECTION_CPU
#undef WEFT_SECTION_BEGIN
#undef WEFT_SECTION_END

}  // namespace weft::detail
