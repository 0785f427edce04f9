// SPDX-License-Identifier: MIT
//
// Which links a transfer crosses.  Nodes and links are numbered as astra_bridge/topology.py does;
// nothing is held per pair of endpoints.
#ifndef ASTRA_ANALYTICAL_TOPOLOGY_HPP
#define ASTRA_ANALYTICAL_TOPOLOGY_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "astra_flat_map.hpp"

namespace analytical {

using astra_net::Error;

// Bandwidth and latency, shared by all links of a dimension.  Doubles, evaluated in the order that
// ASTRA-sim evaluates them: its results depend on the last bit.
struct Rate {
  double bytes_per_ns;
  double latency_ns;
};

// The way of a transfer, as far as it has come.  Between the two links of a Switch it is at the
// hub, and `node` is the endpoint that it enters from.
struct Position {
  int32_t node;
  int32_t hub = -1;  // the dimension whose hub it is at, or -1
};

struct Hop {
  int64_t link;
  int32_t rate;  // index into rates()
  Position next;
};

// What the whole way costs a transfer that has the network for itself.
struct Cost {
  double latency_ns;
  double bytes_per_ns;
};

struct Ends {
  int32_t src, dst;
};

// A network of dimensions, from the options topology, npus_count, bandwidth and latency.
class Dimensions {
 public:
  Dimensions(astra_net::Config& config, bool corrected)
      : endpoints_(config.endpoints), corrected_(corrected) {
    const auto kinds = split(config.options.text("topology", ""));
    const auto sizes = split(config.options.text("npus_count", ""));
    const auto bandwidths = split(config.options.text("bandwidth", ""));
    const auto latencies = split(config.options.text("latency", ""));
    if (kinds.size() != sizes.size() || kinds.size() != bandwidths.size() ||
        kinds.size() != latencies.size())
      refuse("options topology, npus_count, bandwidth, latency differ in length");
    int64_t stride = 1, first_link = 0;
    int32_t first_hub = endpoints_;
    for (size_t d = 0; d < kinds.size(); ++d) {
      Dimension one{};
      one.kind = kinds[d] == "Ring"             ? Kind::kRing
                 : kinds[d] == "FullyConnected" ? Kind::kFullyConnected
                 : kinds[d] == "Switch"         ? Kind::kSwitch
                                                : Kind::kNone;
      if (one.kind == Kind::kNone)
        refuse("option 'topology' has '" + kinds[d] + "'; allowed: Ring, FullyConnected, Switch");
      const double size = number("npus_count", sizes[d]);
      const double bandwidth_GiBps = number("bandwidth", bandwidths[d]);
      const double latency_ns = number("latency", latencies[d]);
      if (!(size >= 1 && size <= endpoints_ && size == std::floor(size)))
        refuse("option 'npus_count' has " + sizes[d] + ", not a whole number from 1 to " +
               std::to_string(endpoints_));
      if (!(bandwidth_GiBps > 0 && std::isfinite(bandwidth_GiBps)))
        refuse("option 'bandwidth' has " + bandwidths[d] + ", which is not positive");
      if (!(latency_ns >= 0 && std::isfinite(latency_ns)))
        refuse("option 'latency' has " + latencies[d] + ", which is not 0 or more");
      one.size = static_cast<int32_t>(size);
      one.stride = static_cast<int32_t>(stride);
      one.first_link = first_link;
      one.links_per_endpoint = one.size < 2                         ? 0
                               : one.kind == Kind::kFullyConnected ? one.size - 1
                               : one.kind == Kind::kRing && one.size == 2 ? 1
                                                                          : 2;
      one.first_hub = first_hub;
      if (one.kind == Kind::kSwitch && one.size > 1) first_hub += endpoints_ / one.size;
      stride *= one.size;
      if (stride > endpoints_) break;
      first_link += static_cast<int64_t>(one.links_per_endpoint) * endpoints_;
      dimensions_.push_back(one);
      rates_.push_back({bandwidth_GiBps * (1 << 30) / 1e9, latency_ns});
    }
    if (stride != endpoints_)
      refuse("npus_count multiplies to " + std::to_string(stride) + ", but there are " +
             std::to_string(endpoints_) + " endpoints");
    link_count_ = first_link;
    digits_.reserve(static_cast<size_t>(endpoints_) * dimensions_.size());
    for (int32_t node = 0; node < endpoints_; ++node)
      for (const Dimension& one : dimensions_) digits_.push_back(node / one.stride % one.size);
  }

  const std::vector<Rate>& rates() const { return rates_; }
  int64_t link_count() const { return link_count_; }

  // The first dimension in which two endpoints differ, and both digits; or dimension -1.
  struct Difference {
    int32_t dimension, from, to;
  };
  Difference difference(int32_t from, int32_t to) const {
    const int32_t* a = &digits_[static_cast<size_t>(from) * dimensions_.size()];
    const int32_t* b = &digits_[static_cast<size_t>(to) * dimensions_.size()];
    for (size_t d = 0; d < dimensions_.size(); ++d)
      if (a[d] != b[d]) return {static_cast<int32_t>(d), a[d], b[d]};
    return {-1, 0, 0};
  }
  int32_t hops(const Difference& by) const {
    const Dimension& one = dimensions_[static_cast<size_t>(by.dimension)];
    if (one.kind != Kind::kRing) return one.kind == Kind::kSwitch ? 2 : 1;
    const int32_t clockwise = by.to > by.from ? by.to - by.from : by.to - by.from + one.size;
    return std::min(clockwise, one.size - clockwise);
  }

  // Dimensions are crossed in ascending order, rings the shorter way (clockwise when equal).
  Hop next(int32_t /*src*/, int32_t dst, Position at) const {
    const Difference by = difference(at.node, dst);
    const Dimension& one = dimensions_[static_cast<size_t>(by.dimension)];
    const int64_t out = one.first_link + static_cast<int64_t>(at.node) * one.links_per_endpoint;
    if (one.kind == Kind::kRing) {
      const int32_t clockwise = by.to > by.from ? by.to - by.from : by.to - by.from + one.size;
      const bool forward = 2 * static_cast<int64_t>(clockwise) <= one.size;
      int32_t digit = by.from + (forward ? 1 : -1);
      if (digit == one.size) digit = 0;
      if (digit < 0) digit = one.size - 1;
      return {out + (forward ? 0 : 1), by.dimension,
              {at.node + (digit - by.from) * one.stride, -1}};
    }
    const int32_t there = at.node + (by.to - by.from) * one.stride;
    if (one.kind == Kind::kFullyConnected)
      return {out + (by.to < by.from ? by.to : by.to - 1), by.dimension, {there, -1}};
    if (at.hub < 0) return {out, by.dimension, {at.node, by.dimension}};
    return {one.first_link + 2 * static_cast<int64_t>(there) + 1, by.dimension, {there, -1}};
  }

  // ASTRA-sim's congestion-unaware model counts the first differing dimension only.
  Cost cost(int32_t src, int32_t dst) const {
    Cost all{0.0, std::numeric_limits<double>::infinity()};
    while (src != dst) {
      const Difference by = difference(src, dst);
      const Rate& rate = rates_[static_cast<size_t>(by.dimension)];
      all.latency_ns += hops(by) * rate.latency_ns;
      all.bytes_per_ns = std::min(all.bytes_per_ns, rate.bytes_per_ns);
      if (!corrected_) break;
      src += (by.to - by.from) * dimensions_[static_cast<size_t>(by.dimension)].stride;
    }
    return all;
  }

  Ends ends(int64_t link) const {
    size_t d = dimensions_.size() - 1;
    while (dimensions_[d].links_per_endpoint == 0 || dimensions_[d].first_link > link) --d;
    const Dimension& one = dimensions_[d];
    const auto node = static_cast<int32_t>((link - one.first_link) / one.links_per_endpoint);
    const auto which = static_cast<int32_t>((link - one.first_link) % one.links_per_endpoint);
    if (one.kind == Kind::kSwitch) {
      const int32_t hub =
          one.first_hub + node % one.stride + node / (one.stride * one.size) * one.stride;
      return which == 0 ? Ends{node, hub} : Ends{hub, node};
    }
    const int32_t digit = node / one.stride % one.size;
    const int32_t peer = one.kind == Kind::kFullyConnected
                             ? (which < digit ? which : which + 1)
                             : (digit + (which == 0 ? 1 : one.size - 1)) % one.size;
    return {node, node + (peer - digit) * one.stride};
  }
  int32_t rate_of(int64_t link) const {
    size_t d = dimensions_.size() - 1;
    while (dimensions_[d].links_per_endpoint == 0 || dimensions_[d].first_link > link) --d;
    return static_cast<int32_t>(d);
  }

 private:
  enum class Kind { kNone, kRing, kFullyConnected, kSwitch };
  struct Dimension {
    Kind kind;
    int32_t size, stride, links_per_endpoint, first_hub;
    int64_t first_link;
  };

  [[noreturn]] static void refuse(const std::string& message) {
    throw Error(ASTRA_NET_INVALID, message);
  }
  static std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts(1);
    for (const char c : text) {
      if (c == ',')
        parts.emplace_back();
      else
        parts.back() += c;
    }
    return parts;
  }
  static double number(const char* key, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || *end != '\0')
      refuse("option '" + std::string(key) + "' has '" + text + "', which is not a number");
    return value;
  }

  int32_t endpoints_;
  bool corrected_;
  std::vector<Dimension> dimensions_;
  std::vector<Rate> rates_;
  std::vector<int32_t> digits_;  // of each endpoint: dividing takes longer than all the rest
  int64_t link_count_ = 0;
};

// Any directed graph: fewest hops, and equal-cost multi-path by a hash of the flow.
class LinkList {
 public:
  explicit LinkList(const astra_net::Config& config)
      : nodes_(static_cast<size_t>(config.nodes)), links_(config.links) {
    std::map<std::pair<double, double>, int32_t> known;
    for (const astra_net_link& link : links_) {
      const Rate rate{link.bytes_per_second / 1e9, static_cast<double>(link.latency_ps) / 1000};
      const auto index = static_cast<int32_t>(rates_.size());
      const auto [same, fresh] = known.try_emplace({rate.bytes_per_ns, rate.latency_ns}, index);
      if (fresh) rates_.push_back(rate);
      rate_of_.push_back(same->second);
    }
    gather(out_first_, out_, &astra_net_link::src);
    gather(in_first_, in_, &astra_net_link::dst);
  }

  const std::vector<Rate>& rates() const { return rates_; }
  int64_t link_count() const { return static_cast<int64_t>(links_.size()); }

  Hop next(int32_t src, int32_t dst, Position at) {
    const std::vector<int32_t>& ways = toward(dst);
    const auto node = static_cast<size_t>(at.node);
    const int32_t first = ways[node], count = ways[node + 1] - first;
    if (count == 0)
      throw Error(ASTRA_NET_MODEL, "no way from endpoint " + std::to_string(src) +
                                       " to endpoint " + std::to_string(dst));
    const auto pick = static_cast<int32_t>(hash(src, dst, at.node) % static_cast<uint64_t>(count));
    const int32_t link = ways[static_cast<size_t>(first + pick)];
    return {link, rate_of(link), {links_[static_cast<size_t>(link)].dst, -1}};
  }

  Cost cost(int32_t src, int32_t dst) {
    Cost all{0.0, std::numeric_limits<double>::infinity()};
    for (Position at{src}; at.node != dst;) {
      const Hop hop = next(src, dst, at);
      const Rate& rate = rates_[static_cast<size_t>(hop.rate)];
      all.latency_ns += rate.latency_ns;
      all.bytes_per_ns = std::min(all.bytes_per_ns, rate.bytes_per_ns);
      at = hop.next;
    }
    return all;
  }

  Ends ends(int64_t link) const {
    const astra_net_link& one = links_[static_cast<size_t>(link)];
    return {one.src, one.dst};
  }
  int32_t rate_of(int64_t link) const { return rate_of_[static_cast<size_t>(link)]; }

 private:
  // Links by one of their ends, in ascending order: list[first[node] .. first[node + 1]).
  void gather(std::vector<int32_t>& first, std::vector<int32_t>& list,
              int32_t astra_net_link::*end) const {
    first.assign(nodes_ + 1, 0);
    for (const astra_net_link& link : links_) ++first[static_cast<size_t>(link.*end) + 1];
    for (size_t node = 0; node < nodes_; ++node) first[node + 1] += first[node];
    list.resize(links_.size());
    std::vector<int32_t> next = first;
    for (size_t i = 0; i < links_.size(); ++i)
      list[static_cast<size_t>(next[static_cast<size_t>(links_[i].*end)]++)] =
          static_cast<int32_t>(i);
  }

  // Per node the links that lead one hop closer to `dst`: [first position per node..., links...].
  const std::vector<int32_t>& toward(int32_t dst) {
    const int32_t known = table_of_.find(dst);
    if (known >= 0) return tables_[static_cast<size_t>(known)];
    std::vector<int32_t> hops(nodes_, -1), ahead{dst};
    hops[static_cast<size_t>(dst)] = 0;
    for (size_t i = 0; i < ahead.size(); ++i) {
      const auto node = static_cast<size_t>(ahead[i]);
      for (int32_t k = in_first_[node]; k < in_first_[node + 1]; ++k) {
        const int32_t before =
            links_[static_cast<size_t>(in_[static_cast<size_t>(k)])].src;
        if (hops[static_cast<size_t>(before)] >= 0) continue;
        hops[static_cast<size_t>(before)] = hops[node] + 1;
        ahead.push_back(before);
      }
    }
    std::vector<int32_t> table(nodes_ + 1);
    for (size_t node = 0; node < nodes_; ++node) {
      table[node] = static_cast<int32_t>(table.size());
      if (hops[node] <= 0) continue;
      for (int32_t k = out_first_[node]; k < out_first_[node + 1]; ++k) {
        const int32_t link = out_[static_cast<size_t>(k)];
        const int32_t there = links_[static_cast<size_t>(link)].dst;
        if (hops[static_cast<size_t>(there)] == hops[node] - 1) table.push_back(link);
      }
    }
    table[nodes_] = static_cast<int32_t>(table.size());
    // A table can be made again at any time, so the memory for them can be bounded.
    room_ += table.size();
    if (room_ > kMostRoom && !tables_.empty()) {
      tables_.clear();
      table_of_.clear();
      room_ = table.size();
    }
    table_of_.insert(dst, static_cast<int32_t>(tables_.size()));
    tables_.push_back(std::move(table));
    return tables_.back();
  }

  // A well-mixed number (the finaliser of SplitMix64, Steele et al., OOPSLA 2014).
  static uint64_t hash(int32_t src, int32_t dst, int32_t node) {
    uint64_t x = (static_cast<uint64_t>(src) << 42) ^ (static_cast<uint64_t>(dst) << 21) ^
                 static_cast<uint64_t>(node);
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }

  static constexpr size_t kMostRoom = size_t{1} << 25;  // 128 MiB of int32

  size_t nodes_;
  std::vector<astra_net_link> links_;
  std::vector<Rate> rates_;
  std::vector<int32_t> rate_of_;
  std::vector<int32_t> out_first_, out_, in_first_, in_;
  astra::FlatMap<int32_t> table_of_;  // destination -> index into tables_
  std::vector<std::vector<int32_t>> tables_;
  size_t room_ = 0;
};

inline bool is_corrected(astra_net::Config& config) {
  return config.options.choice("semantics", "astra-sim", {"astra-sim", "corrected"}) ==
         "corrected";
}

// Whether the options describe the topology; otherwise the links do.
inline bool has_dimensions(astra_net::Config& config) {
  return !config.options.text("topology", "").empty();
}

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_TOPOLOGY_HPP
