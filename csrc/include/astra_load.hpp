// SPDX-License-Identifier: MIT
//
// astra_load.hpp: what links carry over time, interval by interval: the table "link_load" of the
// statistics (docs/contract.md).
#ifndef ASTRA_LOAD_HPP
#define ASTRA_LOAD_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"

namespace astra_net {

// The option sample_interval_us, in ps; 0 is off.
inline int64_t sample_interval_ps(Options& options) {
  return static_cast<int64_t>(std::ceil(options.number("sample_interval_us", 0, 0, 1e9) * 1e6));
}

// Intervals begin at multiples of their length.  What a link does from `begin_ps` to `end_ps` counts
// in each interval by the share of that time.
class LinkLoad {
 public:
  // 0: nothing is recorded.  So many rows are kept at most: beyond, intervals become twice as long.
  explicit LinkLoad(int64_t interval_ps = 0, uint64_t most_rows = uint64_t{1} << 20)
      : interval_ps_(interval_ps), most_rows_(most_rows) {}

  bool on() const { return interval_ps_ > 0; }

  // `link` counts the caller's links in any way.
  void add(size_t link, int64_t begin_ps, int64_t end_ps, double bytes, double busy_ps) {
    if (link >= links_.size()) links_.resize(link + 1);
    std::vector<Bin>& bins = links_[link];
    const int64_t until_ps = end_ps > begin_ps ? end_ps - 1 : begin_ps;
    while (rows_ + static_cast<uint64_t>((until_ps - begin_ps) / interval_ps_) > most_rows_ &&
           interval_ps_ < int64_t{1} << 60)
      lengthen();
    const size_t before = bins.size();
    const int64_t first = begin_ps / interval_ps_, last = until_ps / interval_ps_;
    if (first == last && !bins.empty() && bins.back().number == first) {
      bins.back().bytes += bytes;
      bins.back().busy_ps += busy_ps;
      return;
    }
    // Few things overlap what came before, so that almost always nothing is moved.
    const auto at = std::lower_bound(bins.begin(), bins.end(), first,
                                     [](const Bin& bin, int64_t n) { return bin.number < n; });
    const std::vector<Bin> later(at, bins.end());
    bins.erase(at, bins.end());
    auto next = later.begin();
    for (int64_t n = first; n <= last; ++n) {
      Bin bin{n, 0, 0};
      if (next != later.end() && next->number == n) bin = *next++;
      double share = 1;
      if (first != last) {
        const int64_t from = std::max(begin_ps, n * interval_ps_);
        const int64_t to = n < last ? (n + 1) * interval_ps_ : end_ps;
        share = static_cast<double>(to - from) / static_cast<double>(end_ps - begin_ps);
      }
      bin.bytes += bytes * share;
      bin.busy_ps += busy_ps * share;
      bins.push_back(bin);
    }
    bins.insert(bins.end(), next, later.end());
    rows_ += bins.size() - before;
  }

  // JSON to put before "tables", and into it.  `links` are numbers with the caller's counts of them, in
  // the order of the rows.  Sums over a link are, but for rounding, what was added.
  std::string interval_json() const {
    std::string text;
    if (on())
      text.append("\"sample_interval_ps\": ").append(std::to_string(interval_ps_)).append(", ");
    return text;
  }
  std::string table_json(const std::vector<std::pair<int64_t, size_t>>& links) const {
    if (!on()) return "";
    std::string link, time, bytes, busy;
    for (const auto& [number, count] : links) {
      if (count >= links_.size()) continue;
      double all_bytes = 0, all_busy_ps = 0;
      for (const Bin& bin : links_[count]) {
        const char* comma = link.empty() ? "" : ",";
        link.append(comma).append(std::to_string(number));
        time.append(comma).append(std::to_string(bin.number * interval_ps_));
        bytes.append(comma).append(std::to_string(rest(all_bytes, bin.bytes)));
        busy.append(comma).append(std::to_string(rest(all_busy_ps, bin.busy_ps)));
      }
    }
    return ", \"link_load\": {\"link\": [" + link + "], \"time_ps\": [" + time + "], \"bytes\": [" +
           bytes + "], \"busy_ps\": [" + busy + "]}";
  }

  template <class A>
  void visit(A& archive) {
    archive(interval_ps_, rows_, links_);
  }

 private:
  struct Bin {
    int64_t number;
    double bytes, busy_ps;
    template <class A>
    void visit(A& archive) {
      archive(number, bytes, busy_ps);
    }
  };

  static int64_t rest(double& sum, double more) {
    const double before = std::floor(sum + 0.5);
    sum += more;
    return static_cast<int64_t>(std::floor(sum + 0.5) - before);
  }

  void lengthen() {
    interval_ps_ *= 2;
    rows_ = 0;
    for (std::vector<Bin>& bins : links_) {
      size_t kept = 0;
      for (const Bin& bin : bins) {
        const int64_t number = bin.number / 2;
        if (kept > 0 && bins[kept - 1].number == number) {
          bins[kept - 1].bytes += bin.bytes;
          bins[kept - 1].busy_ps += bin.busy_ps;
        } else {
          bins[kept++] = {number, bin.bytes, bin.busy_ps};
        }
      }
      bins.resize(kept);
      rows_ += kept;
    }
  }

  int64_t interval_ps_;
  uint64_t most_rows_;
  uint64_t rows_ = 0;
  std::vector<std::vector<Bin>> links_;
};

}  // namespace astra_net

#endif  // ASTRA_LOAD_HPP
