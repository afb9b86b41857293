// weft-gc-demo: goroutines that share a collected heap, in two parts that run at once.
//
// trees     half of the goroutines: each builds binary trees, keeps one and drops the others, and counts their nodes
// pipeline  the other half, in rows of 50 that channels join: lists go through, each stage makes a new one with numbers larger by one
//
// What must hold: every count and every sum is right, and the heap stays below --heap-max although what is dropped would fill it
// many times. 0: it did; 1: it did not; 2: bad usage.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <weft/chan.hpp>
#include <weft/gc_boehm.hpp>
#include <weft/gc_hook.hpp>
#include <weft/runtime.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/cli.hpp"
#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"

namespace {

using Steady = std::chrono::steady_clock;
namespace boehm = weft::gc::boehm;

constexpr const char* kName = "weft-gc-demo";
constexpr int kStages = 50;
constexpr int kListLength = 20;
constexpr unsigned kDepthMax = 7;

struct Options {
  std::uint64_t seed = 0;
  int procs = 0;
  int goroutines = 10'000;
  std::chrono::nanoseconds duration = std::chrono::seconds(10);
  std::uint64_t heap_max_mib = 256;
  bool json = false;
};

struct Counts {
  std::atomic<std::uint64_t> trees{0}, lists{0}, wrong{0}, most_bytes{0};
};

struct Tree {
  Tree* left;
  Tree* right;
};

Tree* build(unsigned depth) {
  if (depth == 0) return boehm::make<Tree>();
  Tree* left = build(depth - 1);
  return boehm::make<Tree>(left, build(depth - 1));
}

std::uint64_t nodes(const Tree* t) { return t->left ? 1 + nodes(t->left) + nodes(t->right) : 1; }

constexpr std::uint64_t nodes_of(unsigned depth) { return (std::uint64_t{2} << depth) - 1; }

void grow_trees(std::uint64_t seed, const std::atomic<bool>& stop, Counts& counts) {
  std::minstd_rand random(static_cast<std::uint32_t>(seed));
  const unsigned kept_depth = 2 + static_cast<unsigned>(random()) % (kDepthMax - 1);
  const Tree* kept = build(kept_depth);
  while (!stop.load(std::memory_order_relaxed)) {
    const unsigned depth = static_cast<unsigned>(random()) % (kDepthMax + 1);
    if (nodes(build(depth)) != nodes_of(depth)) counts.wrong++;
    counts.trees++;
    weft::yield();
    if (nodes(kept) != nodes_of(kept_depth)) counts.wrong++;
  }
}

struct Link {
  Link* next;
  std::uint64_t value;
};
/// A list with the number that it began with.
struct List {
  Link* first;
  std::uint64_t began;
};

void feed(std::uint64_t seed, weft::SendChan<List> out, const std::atomic<bool>& stop) {
  std::minstd_rand random(static_cast<std::uint32_t>(seed));
  while (!stop.load(std::memory_order_relaxed)) {
    List l{nullptr, random() % 1'000'000};
    for (int i = 0; i < kListLength; i++) l.first = boehm::make<Link>(l.first, l.began + static_cast<std::uint64_t>(i));
    out.send(l);
  }
  out.close();
}

void add_one(weft::RecvChan<List> in, weft::SendChan<List> out) {
  for (const List l : in) {
    Link* first = nullptr;
    for (const Link* at = l.first; at; at = at->next) first = boehm::make<Link>(first, at->value + 1);
    out.send(List{first, l.began});
  }
  out.close();
}

void add_up(weft::RecvChan<List> in, std::uint64_t stages, Counts& counts) {
  for (const List l : in) {
    std::uint64_t sum = 0, length = 0;
    for (const Link* at = l.first; at; at = at->next, length++) sum += at->value;
    constexpr std::uint64_t kFirsts = std::uint64_t{kListLength} * (kListLength - 1) / 2;
    if (length != kListLength || sum != kListLength * (l.began + stages) + kFirsts) counts.wrong++;
    counts.lists++;
  }
}

/// A row of about kStages goroutines, joined by channels of all kinds.
void start_row(std::uint64_t seed, int goroutines, weft::WaitGroup& wg, const std::atomic<bool>& stop, Counts& counts) {
  const int stages = std::max(goroutines - 2, 1);
  auto in = weft::make_chan<List>(static_cast<int>(seed % 3));
  wg.go([=, &stop] { feed(seed, in, stop); });
  for (int i = 0; i < stages; i++) {
    auto out = weft::make_chan<List>(i % 4);
    wg.go([=] { add_one(in, out); });
    in = out;
  }
  wg.go([=, &counts] { add_up(in, static_cast<std::uint64_t>(stages), counts); });
}

int demo(const Options& o, Counts& counts) {
  std::atomic<bool> stop{false};
  const auto begin = Steady::now();
  {
    weft::WaitGroup wg;
    const int trees = std::max(o.goroutines / 2, 1);
    for (int i = 0; i < trees; i++) wg.go([&, i] { grow_trees(o.seed + static_cast<std::uint64_t>(i), stop, counts); });
    for (int left = o.goroutines - trees, row = 0; left > 0; left -= kStages, row++)
      start_row(o.seed * 31 + static_cast<std::uint64_t>(row), std::min(left, kStages), wg, stop, counts);
    tools::Progress progress([&] {
      auto ms = [](auto d) { return static_cast<std::uint64_t>(d / std::chrono::milliseconds(1)); };
      const boehm::HeapStats heap = boehm::heap_stats();
      return tools::progress_text(ms(Steady::now() - begin), ms(o.duration)) + "  " + tools::with_commas(counts.trees) + " trees, " +
             tools::with_commas(counts.lists) + " lists, heap " + tools::human_bytes(heap.heap_bytes) + ", " +
             tools::with_commas(heap.collections) + " collections";
    });
    while (Steady::now() - begin < o.duration && counts.wrong == 0) {
      weft::sleep_for(std::chrono::milliseconds(20));
      const std::uint64_t now = boehm::heap_stats().heap_bytes;
      if (now > counts.most_bytes) counts.most_bytes = now;
      if (now > o.heap_max_mib << 20) break;
    }
    stop = true;
    wg.wait();
  }
  return 0;
}

int verdict(const Options& o, const Counts& counts, std::chrono::nanoseconds took) {
  const boehm::HeapStats heap = boehm::heap_stats();
  const weft::gc::PauseStats p = weft::gc::pause_stats();
  std::string finding;
  if (counts.wrong != 0) finding = std::to_string(counts.wrong) + " wrong sums";
  if (counts.most_bytes > o.heap_max_mib << 20) finding = "the heap grew to " + tools::human_bytes(counts.most_bytes);
  if (counts.trees == 0 || (o.goroutines > 1 && counts.lists == 0)) finding = "nothing was done";
  const bool pass = finding.empty();
  auto ms = [](std::int64_t ns) { return static_cast<double>(ns) / 1e6; };
  const std::string options = "--seed " + std::to_string(o.seed) + " --procs " + std::to_string(o.procs) + " --goroutines " +
                              std::to_string(o.goroutines) + " --duration " + tools::duration_option(o.duration);
  if (o.json) {
    std::printf(
        "{\"program\": \"%s\", \"seed\": %llu, \"procs\": %d, \"goroutines\": %d, \"trees\": %llu, \"lists\": %llu, \"wrong\": %llu, "
        "\"allocated_bytes\": %llu, \"heap_bytes_max\": %llu, \"collections\": %llu, \"pause_p50_ms\": %.3f, \"pause_p99_ms\": %.3f, "
        "\"pause_max_ms\": %.3f, \"elapsed_s\": %.3f, \"verdict\": \"%s\"}\n",
        kName, static_cast<unsigned long long>(o.seed), o.procs, o.goroutines, static_cast<unsigned long long>(counts.trees),
        static_cast<unsigned long long>(counts.lists), static_cast<unsigned long long>(counts.wrong),
        static_cast<unsigned long long>(heap.allocated_bytes), static_cast<unsigned long long>(counts.most_bytes),
        static_cast<unsigned long long>(heap.collections), ms(p.p50_ns), ms(p.p99_ns), ms(p.max_ns),
        static_cast<double>(took.count()) / 1e9, pass ? "pass" : "fail");
    return pass ? tools::kExitPass : tools::kExitFail;
  }
  std::printf("%s goroutines built %s trees and summed %s lists in %s: %s allocated, heap at most %s\n",
              tools::with_commas(static_cast<std::uint64_t>(o.goroutines)).c_str(), tools::with_commas(counts.trees).c_str(),
              tools::with_commas(counts.lists).c_str(), tools::human_duration(took).c_str(),
              tools::human_bytes(heap.allocated_bytes).c_str(), tools::human_bytes(counts.most_bytes).c_str());
  std::printf("%s collections, pauses of %.2f ms (half), %.2f ms (99 of 100), %.2f ms at most\n",
              tools::with_commas(heap.collections).c_str(), ms(p.p50_ns), ms(p.p99_ns), ms(p.max_ns));
  if (pass)
    std::printf("%s: PASS %s\n", kName, options.c_str());
  else
    std::printf("%s: FAIL: %s; reproduce: %s %s\n", kName, finding.c_str(), kName, options.c_str());
  return pass ? tools::kExitPass : tools::kExitFail;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  std::optional<std::uint64_t> seed;
  CLI::App app{
      "Goroutines on the heap of the Boehm collector: binary trees, and lists that go through channels.\n"
      "Exit status: 0 pass, 1 a wrong sum or a heap that grows, 2 bad usage.",
      kName};
  app.add_option("--seed", seed, "of shapes and numbers; a fresh one without it")->type_name("N");
  app.add_option("--goroutines", o.goroutines, "half grow trees, half pass lists on")
      ->check(CLI::Range(2, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--heap-max", o.heap_max_mib, "MiB that the heap may reach")->check(CLI::Range(1, 1 << 20))->type_name("MIB")->capture_default_str();
  tools::add_procs(app, o.procs);
  tools::add_duration(app, "--duration", o.duration, "how long, such as 1m or 30s; default 10s");
  app.add_flag("--json", o.json, "the verdict as one line of JSON");
  if (std::optional<int> status = tools::parse(app, argc, argv)) return *status;
  o.seed = seed ? *seed : std::random_device{}() % 1'000'000'000u;

  boehm::init();
  Counts counts;
  const auto begin = Steady::now();
  const int status = weft::run([&] { return demo(o, counts); }, {.procs = o.procs});
  if (status != 0) return status;
  return verdict(o, counts, Steady::now() - begin);
}
