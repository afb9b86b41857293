// Counts the words of each file named: one goroutine per file, results over a channel, totals in order of arrival.
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <utility>

#include <weft/weft.hpp>

int main(int argc, char** argv) {
  return weft::run([&] {
    auto counts = weft::make_chan<std::pair<std::string, int>>(4);
    auto files = weft::make_chan<std::string>();
    weft::WaitGroup readers;
    for (int i = 0; i < 4; i++) {
      readers.go([=] {
        for (const std::string& path : files) {
          std::ifstream in{path};
          std::string word;
          while (in >> word) counts.send({word, 1});
        }
      });
    }
    weft::go([&] {
      for (int i = 1; i < argc; i++) files.send(argv[i]);
      files.close();
      readers.wait();
      counts.close();
    });
    std::map<std::string, int> totals;
    for (auto&& [word, n] : counts) totals[word] += n;
    for (const auto& [word, n] : totals) std::printf("%s %d\n", word.c_str(), n);
  });
}
