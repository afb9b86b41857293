// What contexts keep: entries in their parents, and memory.
#include <malloc.h>

#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// Who is to be told when `ctx` is done.
size_t registered_with(const Context& ctx) {
  detail::CancelNode* node = detail::cancel_of(detail::node_of(ctx.head()));
  node->lock.lock();
  size_t n = 0;
  for (const detail::Dependent* d = node->first; d; d = d->next) n++;
  node->lock.unlock();
  return n;
}

// Go: TestCancelRemoves.
TEST(Context, AChildThatIsDoneLeavesItsParentThoughItIsHeld) {  // 132
  each_run([] {
    auto [root, cancel_root] = with_cancel(background());
    auto [child, cancel] = with_cancel(root);
    auto [timed, cancel_timed] = with_timeout(root, 1h);
    StopFunc stop = after_func(root, [] {});
    EXPECT_EQ(registered_with(root), 3u);
    cancel();
    EXPECT_EQ(registered_with(root), 2u);
    cancel_timed();
    EXPECT_EQ(registered_with(root), 1u);
    EXPECT_TRUE(stop());
    EXPECT_EQ(registered_with(root), 0u);
    auto [soon, cancel_soon] = with_timeout(root, 1ms);
    soon.done().recv();
    EXPECT_TRUE(eventually([&, root = root] { return registered_with(root) == 0; })) << "its deadline has ended it";
    EXPECT_FALSE(root.err());
    EXPECT_EQ(child.err(), Errc::canceled);
  });
}

// Go bounds the number of allocations; here it is what they come to, with what malloc adds.
TEST(Context, AChildTakesLittleMemory) {  // 136
  if (kTsan || kAsan) GTEST_SKIP() << "another malloc";
  in_run({1, 1}, [] {
    static const ContextKey<int> kNumber{"number"};
    constexpr size_t kMany = 1000;
    std::vector<CancelContext> children, timed;
    std::vector<Context> values;
    children.reserve(kMany);
    timed.reserve(kMany);
    values.reserve(kMany);
    auto [root, cancel] = with_cancel(background());
    size_t at[4] = {::mallinfo2().uordblks};
    for (size_t i = 0; i < kMany; i++) children.push_back(with_cancel(root));
    at[1] = ::mallinfo2().uordblks;
    for (size_t i = 0; i < kMany; i++) timed.push_back(with_timeout(root, 1h));
    at[2] = ::mallinfo2().uordblks;
    for (size_t i = 0; i < kMany; i++) values.push_back(with_value(root, kNumber, 1));
    at[3] = ::mallinfo2().uordblks;
    EXPECT_LE((at[1] - at[0]) / kMany, 320u);
    EXPECT_LE((at[2] - at[1]) / kMany, 448u);
    EXPECT_LE((at[3] - at[2]) / kMany, 128u);
    children.clear();
    timed.clear();
    values.clear();
    EXPECT_LE(::mallinfo2().uordblks, at[0] + 100 * kMany) << "children that are gone left something in their parent";
  });
}

}  // namespace
}  // namespace weft::test
