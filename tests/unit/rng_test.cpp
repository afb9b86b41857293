// The runtime's randomness, and the order in which thieves visit the Ps.
#include <set>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

TEST(Rng, BelowStaysInRange) {
  rt::Rng rng;
  rng.seed(7);
  for (std::uint32_t n : {1u, 2u, 3u, 10u, 1024u, 0x80000000u, 0xffffffffu})
    for (int i = 0; i < 1'000; i++) EXPECT_LT(rng.below(n), n);
}

TEST(Rng, BelowReachesEachNumberAboutAsOften) {
  rt::Rng rng;
  rng.seed(1);
  int count[10] = {};
  for (int i = 0; i < 100'000; i++) count[rng.below(10)]++;
  for (int i = 0; i < 10; i++) {
    EXPECT_GT(count[i], 9'500) << i;
    EXPECT_LT(count[i], 10'500) << i;
  }
}

TEST(Rng, SameSeedGivesSameNumbers) {
  rt::Rng a;
  rt::Rng b;
  a.seed(42);
  b.seed(42);
  for (int i = 0; i < 1'000; i++) EXPECT_EQ(a.next(), b.next());
}

TEST(Rng, OtherSeedsGiveOtherNumbers) {
  std::set<std::uint64_t> first;
  for (std::uint64_t seed = 0; seed < 1'000; seed++) {
    rt::Rng rng;
    rng.seed(seed);
    first.insert(rng.next());
  }
  EXPECT_EQ(first.size(), 1'000u);
}

TEST(StealOrder, VisitsEachPOnce) {
  rt::Rng rng;
  rng.seed(3);
  for (std::uint32_t n = 1; n <= 130; n++) {
    for (int pass = 0; pass < 20; pass++) {
      rt::StealOrder order(rng, n);
      std::vector<int> visits(n);
      for (std::uint32_t k = 0; k < n; k++) {
        const std::uint32_t at = order.next();
        ASSERT_LT(at, n);
        visits[at]++;
      }
      EXPECT_EQ(visits, std::vector<int>(n, 1)) << n << " Ps";
    }
  }
}

TEST(StealOrder, StartsAnywhere) {
  rt::Rng rng;
  rng.seed(5);
  std::set<std::uint32_t> starts;
  for (int pass = 0; pass < 1'000; pass++) starts.insert(rt::StealOrder(rng, 8).next());
  EXPECT_EQ(starts.size(), 8u);
}

}  // namespace
}  // namespace weft::test
