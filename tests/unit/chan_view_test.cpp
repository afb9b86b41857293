// What a report sees of a channel that somebody else is using.
#include <weft/chan.hpp>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using rt::chan_view;
using rt::ChanCore;
using rt::ChanView;
using rt::WaitNode;

TEST(ChanView, CountsWhoWaits) {
  ChanCore c;
  WaitNode receivers[3], sender;
  for (WaitNode& n : receivers) c.receivers.push(&n, &c.lock);
  c.senders.push(&sender, &c.lock);
  c.cap = 4;
  c.count = 2;
  const ChanView v = chan_view(&c);
  EXPECT_EQ(v.receivers, 3u);
  EXPECT_EQ(v.senders, 1u);
  EXPECT_EQ(v.cap, 4u);
  EXPECT_EQ(v.len, 2u);
  EXPECT_FALSE(v.busy);
  EXPECT_FALSE(c.lock.held());
}

TEST(ChanView, LeavesQueuesAloneThatSomebodyHolds) {
  ChanCore c;
  WaitNode receiver;
  c.receivers.push(&receiver, &c.lock);
  c.cap = 4;
  c.lock.lock();
  const ChanView busy = chan_view(&c);  // comes back although the lock does not
  EXPECT_TRUE(busy.busy);
  EXPECT_EQ(busy.receivers, 0u);
  EXPECT_EQ(busy.cap, 4u);
  EXPECT_TRUE(c.lock.held());
  c.lock.unlock();
  EXPECT_EQ(chan_view(&c).receivers, 1u);
}

}  // namespace
}  // namespace weft::test
