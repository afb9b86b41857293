// A whole program: a queue of jobs with a rate limit, retries with backoff, and a shutdown that keeps its deadline
// and hands back what it could not do.
//
// Accounting  Each job that submit() accepts gets exactly one report: done, failed (attempts used up) or undone
//             (handed back). The race that loses jobs is a submit beside the shutdown: a send into the backlog that
//             nobody reads any more. Here a submitter holds `gate_` shared around its send; the shutdown first closes
//             `quit_`, which ends the sends under way, then takes `gate_` alone: after that no job gets in, and the
//             backlog is all there is.
// Rejected    Closing the backlog: with several submitters, one panics.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

struct Job {
  int id = 0;
  int attempts = 0;
};

enum class Outcome { Done, Failed, Undone };

struct Report {
  Job job;
  Outcome outcome;
};

class JobQueue {
 public:
  /// Does one attempt; fails by its result or by an exception. Ends early when ctx is done.
  using Handler = std::function<std::error_code(const weft::Context& ctx, const Job& job)>;

  struct Options {
    int workers = 4;
    int backlog = 8;
    int attempts = 3;
    std::chrono::nanoseconds interval = 1ms;  // between two attempts, of whichever jobs
    std::chrono::nanoseconds backoff = 1ms;   // before the second attempt; doubles
  };

  JobQueue(Options o, Handler handler)
      : options_(o), handler_(std::move(handler)), backlog_(weft::make_chan<Job>(o.backlog)), rate_(o.interval) {
    for (int i = 0; i < o.workers; i++) workers_.go([this] { work(); });
  }

  /// False: the queue shuts down, or ctx is done, and the job is still the caller's.
  bool submit(const weft::Context& ctx, Job job) {
    std::shared_lock open(gate_);
    if (closed_) return false;
    open_jobs_.add(1);
    if (weft::select(weft::send(backlog_, job), weft::recv(quit_), weft::recv(ctx.done())) == 0) return true;
    open_jobs_.done();
    return false;
  }

  /// Takes no more jobs, gives those it has `limit` to end, then ends them. Every accepted job has its report.
  std::vector<Report> shutdown(std::chrono::nanoseconds limit) {
    quit_.close();
    {
      std::unique_lock alone(gate_);
      closed_ = true;
    }
    auto [in_time, cancel] = weft::with_timeout(weft::background(), limit);
    (void)open_jobs_.wait(in_time);
    stop_();
    workers_.wait();
    retries_.wait();
    while (weft::Recv<Job> left = backlog_.try_recv()) report(*left.value, Outcome::Undone);
    return std::move(reports_);
  }

 private:
  void work() {
    for (Job job;;) {
      if (weft::select(weft::recv(backlog_, job), weft::recv(again_, job), weft::recv(stopped_.done())) == 2) return;
      if (!rate_.chan().recv(stopped_)) {
        report(job, Outcome::Undone);
        continue;
      }
      attempt(job);
    }
  }

  void attempt(Job job) {
    job.attempts++;
    std::error_code failed;
    try {
      failed = handler_(stopped_, job);
    } catch (const std::exception&) {
      failed = std::make_error_code(std::errc::io_error);
    }
    if (!failed)
      report(job, Outcome::Done);
    else if (failed == std::errc::operation_canceled)
      report(job, Outcome::Undone);
    else if (job.attempts >= options_.attempts)
      report(job, Outcome::Failed);
    else
      retries_.go([this, job] {
        if (weft::sleep_for(stopped_, options_.backoff * (1 << (job.attempts - 1))) || again_.send(stopped_, job))
          report(job, Outcome::Undone);
      });
  }

  void report(Job job, Outcome outcome) {
    {
      std::lock_guard l(mu_);
      reports_.push_back({job, outcome});
    }
    open_jobs_.done();
  }

  const Options options_;
  const Handler handler_;
  const weft::Chan<Job> backlog_;
  const weft::Chan<Job> again_ = weft::make_chan<Job>();
  const weft::Chan<void> quit_ = weft::make_chan<void>();
  weft::Ticker rate_;
  weft::RwMutex gate_;
  bool closed_ = false;
  weft::Mutex mu_;
  std::vector<Report> reports_;
  weft::WaitGroup open_jobs_;
  weft::WaitGroup workers_, retries_;
  weft::CancelContext stopping_ = weft::with_cancel(weft::background());
  const weft::Context stopped_ = stopping_.ctx;
  const weft::CancelFunc stop_ = stopping_.cancel;
};

// ---- the program ---------------------------------------------------------------------------------------------------

// Thumbnails: every third picture needs a second try, one is broken.
int thumbnails(std::ostream& out) {
  return weft::run([&] {
    JobQueue queue({.workers = 3, .interval = 200us}, [](const weft::Context&, const Job& job) -> std::error_code {
      if (job.id == 7) weft::panic("not a picture");
      if (job.id % 3 == 0 && job.attempts == 1) return std::make_error_code(std::errc::resource_unavailable_try_again);
      return {};
    });
    for (int id = 1; id <= 10; id++) queue.submit(weft::background(), {.id = id});
    std::vector<Report> reports = queue.shutdown(1min);
    std::sort(reports.begin(), reports.end(), [](auto& a, auto& b) { return a.job.id < b.job.id; });
    for (const Report& r : reports)
      out << "job " << r.job.id << (r.outcome == Outcome::Done ? " done" : " failed") << " after " << r.job.attempts
          << "\n";
    if (!queue.submit(weft::background(), {.id = 11})) out << "job 11 refused\n";
  });
}

TEST(JobQueue, DrainRetriesAndReportsEveryJob) {
  std::ostringstream out;
  EXPECT_EQ(thumbnails(out), 0);
  EXPECT_EQ(out.str(),
            "job 1 done after 1\njob 2 done after 1\njob 3 done after 2\njob 4 done after 1\njob 5 done after 1\n"
            "job 6 done after 2\njob 7 failed after 3\njob 8 done after 1\njob 9 done after 2\njob 10 done after 1\n"
            "job 11 refused\n");
}

// The n-th attempt takes the n-th tick or a later one.
TEST(JobQueue, AttemptsKeepToTheRate) {
  weft::run([] {
    constexpr auto kInterval = 500us;
    weft::Mutex mu;
    std::vector<weft::Time> began;
    const weft::Time opened = weft::now();
    JobQueue queue({.workers = 8, .backlog = 40, .interval = kInterval}, [&](const weft::Context&, const Job&) {
      std::lock_guard l(mu);
      began.push_back(weft::now());
      return std::error_code();
    });
    for (int id = 0; id < 40; id++) EXPECT_TRUE(queue.submit(weft::background(), {.id = id}));
    EXPECT_EQ(queue.shutdown(1min).size(), 40u);
    ASSERT_EQ(began.size(), 40u);
    for (size_t i = 0; i < began.size(); i++) EXPECT_GE(began[i] - opened, kInterval * static_cast<int>(i + 1)) << i;
  });
}

TEST(JobQueue, ShutdownEndsAtItsDeadlineAndHandsBackTheRest) {
  weft::run([] {
    auto begun = weft::make_chan<int>(8);
    JobQueue queue({.workers = 2, .backlog = 4, .interval = 1us}, [&](const weft::Context& ctx, const Job& job) {
      begun.send(job.id);
      ctx.done().recv();  // a job that would never end
      return ctx.err();
    });
    for (int id = 0; id < 6; id++) EXPECT_TRUE(queue.submit(weft::background(), {.id = id}));
    begun.recv();
    begun.recv();  // both workers are busy, the backlog is full: the next one waits
    auto waiting = weft::make_chan<bool>(1);
    weft::go([&] { waiting.send(queue.submit(weft::background(), {.id = 6})); });
    const weft::Time before = weft::now();
    const std::vector<Report> reports = queue.shutdown(5ms);
    EXPECT_GE(weft::now() - before, 5ms);
    EXPECT_EQ(waiting.recv(), false);
    ASSERT_EQ(reports.size(), 6u);
    int begun_jobs = 0;
    for (const Report& r : reports) {
      EXPECT_EQ(r.outcome, Outcome::Undone);
      begun_jobs += r.job.attempts;
    }
    EXPECT_EQ(begun_jobs, 2);
    EXPECT_TRUE(weft::settle(1, 1min));
  });
}

// ---- a thousand shutdowns at random points --------------------------------------------------------------------------

struct Tally {
  int runs_with[3] = {0, 0, 0};  // in how many runs each outcome occurred
  int refused = 0;
};

// One queue, shut down when `cut` submits and attempts have begun. Every accepted job is accounted for once, and truly.
void shut_down_somewhere(uint32_t seed, Tally& tally) {
  constexpr int kSubmitters = 3, kJobs = 12, kAttempts = 3;
  std::minstd_rand rng(seed);
  auto below = [&](int n) { return static_cast<int>(rng() % static_cast<uint32_t>(n)); };
  const int cut = 1 + below(kSubmitters * kJobs * 2);  // there are at least as many: each job has an attempt
  std::vector<int> good_at;  // the attempt that succeeds
  for (int i = 0; i < kSubmitters * kJobs; i++) good_at.push_back(1 + below(kAttempts + 1));

  std::atomic<int> begun{0};
  const auto now = weft::make_chan<void>(1);
  auto step = [&] {
    if (begun.fetch_add(1) + 1 == cut) now.send();
  };
  std::vector<std::atomic<int>> effects(good_at.size());
  JobQueue::Options options;
  options.workers = 1 + below(4);
  options.backlog = below(6);
  options.attempts = kAttempts;
  options.interval = std::chrono::microseconds(1 + below(10));
  options.backoff = std::chrono::microseconds(1 + below(20));
  const auto limit = std::chrono::microseconds(below(2) ? below(300) : 0);
  JobQueue queue(options, [&](const weft::Context& ctx, const Job& job) -> std::error_code {
    step();
    const size_t id = static_cast<size_t>(job.id);
    if (id % 4 == 1)
      if (std::error_code e = weft::sleep_for(ctx, 5us)) return e;
    if (job.attempts < good_at[id]) {
      if (id % 4 == 2) weft::panic("a bad attempt");
      return std::make_error_code(std::errc::resource_unavailable_try_again);
    }
    effects[id].fetch_add(1);
    return {};
  });

  std::vector<std::atomic<bool>> accepted(good_at.size());
  auto [asking, ask_no_more] = weft::with_cancel(weft::background());
  weft::WaitGroup submitters;
  for (int s = 0; s < kSubmitters; s++)
    submitters.go([&, ctx = asking, s] {
      for (int i = 0; i < kJobs; i++) {
        step();
        const int id = s * kJobs + i;
        accepted[static_cast<size_t>(id)] = queue.submit(ctx, {.id = id});
      }
    });
  if (seed % 5 == 0) {  // after the last submit
    submitters.wait();
  } else {
    now.recv();
    if (seed % 5 == 1) ask_no_more();
  }
  const std::vector<Report> reports = queue.shutdown(limit);
  submitters.wait();

  std::map<int, int> reported;
  bool occurred[3] = {false, false, false};
  for (const Report& r : reports) {
    const size_t id = static_cast<size_t>(r.job.id);
    occurred[static_cast<int>(r.outcome)] = true;
    reported[r.job.id]++;
    ASSERT_TRUE(accepted[id]) << "reported, not accepted: job " << id << ", seed " << seed;
    ASSERT_EQ(effects[id], r.outcome == Outcome::Done ? 1 : 0) << "job " << id << ", seed " << seed;
    const int due[] = {good_at[id], kAttempts, r.job.attempts};  // by outcome
    ASSERT_EQ(r.job.attempts, due[static_cast<int>(r.outcome)]) << "job " << id << ", seed " << seed;
  }
  for (size_t id = 0; id < accepted.size(); id++) {
    ASSERT_EQ(reported[static_cast<int>(id)], accepted[id] ? 1 : 0) << "job " << id << ", seed " << seed;
    tally.refused += !accepted[id];
  }
  for (int o = 0; o < 3; o++) tally.runs_with[o] += occurred[o];
}

TEST(JobQueue, ThousandShutdownsAtRandomPointsAccountForEveryAcceptedJob) {
  Tally tally;
  for (int procs : {1, 2, 8}) {
    const int status = weft::run(
        [&] {
          for (uint32_t i = 0; i < 334; i++) {
            shut_down_somewhere(static_cast<uint32_t>(procs) * 1000 + i, tally);
            if (testing::Test::HasFatalFailure()) return;
            ASSERT_TRUE(weft::settle(1, 1min)) << weft::num_goroutines() << " left, procs " << procs << ", run " << i;
          }
        },
        {.procs = procs});
    ASSERT_EQ(status, 0);
    if (HasFatalFailure()) return;
  }
  // The cuts did fall everywhere.
  for (int runs : tally.runs_with) EXPECT_GT(runs, 100);
  EXPECT_GT(tally.refused, 1000);
}

}  // namespace
