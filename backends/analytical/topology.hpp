// SPDX-License-Identifier: MIT
//
// Which links a transfer crosses in a network of dimensions, and what every topology says of a way.
// Nodes and links are numbered as astra_bridge/topology.py does; nothing is held per pair of
// endpoints.
#ifndef ASTRA_ANALYTICAL_TOPOLOGY_HPP
#define ASTRA_ANALYTICAL_TOPOLOGY_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "astra_turns.hpp"

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
  Dimensions(astra_net::Config& config, bool first_only)
      : endpoints_(config.endpoints), first_only_(first_only) {
    const auto kinds = split(config.options.text("topology", ""));
    const auto sizes = split(config.options.text("npus_count", ""));
    const auto bandwidths = split(config.options.text("bandwidth", ""));
    const auto latencies = split(config.options.text("latency", ""));
    turns_ = astra_net::Turns(config.options.text("fold", ""), endpoints_);
    if (kinds.size() != sizes.size() || kinds.size() != bandwidths.size() ||
        kinds.size() != latencies.size())
      refuse("options topology, npus_count, bandwidth, latency differ in length");
    int64_t stride = 1, first_link = 0, first_hub = endpoints_;
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
      one.links_per_endpoint = one.size < 2                               ? 0
                               : one.kind == Kind::kFullyConnected        ? one.size - 1
                               : one.kind == Kind::kRing && one.size == 2 ? 1
                                                                          : 2;
      one.first_hub = static_cast<int32_t>(first_hub);
      if (one.kind == Kind::kSwitch && one.size > 1) first_hub += endpoints_ / one.size;
      if (first_hub > INT32_MAX)
        refuse("option 'npus_count' makes " + std::to_string(first_hub) +
               " endpoints and switches; allowed: " + std::to_string(INT32_MAX));
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

  // How ranks may be turned, of which some then stand for others (the option fold); the turn that
  // takes the link that stands for a link to it; and that link, which is of an endpoint that runs.
  const astra_net::Turns& turns() const { return turns_; }
  int32_t turn_of(int64_t link) const {
    const Dimension& one = dimensions_[static_cast<size_t>(rate_of(link))];
    return turns_.to(static_cast<int32_t>((link - one.first_link) / one.links_per_endpoint));
  }
  int64_t folded(int64_t link) const {
    const Dimension& one = dimensions_[static_cast<size_t>(rate_of(link))];
    const int64_t at = link - one.first_link;
    const auto node = static_cast<int32_t>(at / one.links_per_endpoint);
    auto which = static_cast<int32_t>(at % one.links_per_endpoint);
    const int32_t by = turns_.to(node);
    const int32_t owner = node - by;
    if (one.kind == Kind::kFullyConnected) {
      const int32_t digit = node / one.stride % one.size;
      const int32_t ahead = (which < digit ? which : which + 1) - digit;
      const int32_t peer = turns_.back(node + ahead * one.stride, by);
      const int32_t from = owner / one.stride % one.size, to = peer / one.stride % one.size;
      which = to < from ? to : to - 1;
    }
    return one.first_link + static_cast<int64_t>(owner) * one.links_per_endpoint + which;
  }

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
      return {
          out + (forward ? 0 : 1), by.dimension, {at.node + (digit - by.from) * one.stride, -1}};
    }
    const int32_t there = at.node + (by.to - by.from) * one.stride;
    if (one.kind == Kind::kFullyConnected)
      return {out + (by.to < by.from ? by.to : by.to - 1), by.dimension, {there, -1}};
    if (at.hub < 0) return {out, by.dimension, {at.node, by.dimension}};
    return {one.first_link + 2 * static_cast<int64_t>(there) + 1, by.dimension, {there, -1}};
  }

  // What a transfer costs, and whether that is for a part of its way: ASTRA-sim's congestion-unaware
  // model counts the first differing dimension only.
  struct Price {
    Cost cost;
    bool shortened;
  };
  Price price(int32_t src, int32_t dst) const {
    Price all{{0.0, std::numeric_limits<double>::infinity()}, false};
    Cost whole = all.cost;
    for (bool first = true; src != dst; first = false) {
      const Difference by = difference(src, dst);
      const Rate& rate = rates_[static_cast<size_t>(by.dimension)];
      whole.latency_ns += hops(by) * rate.latency_ns;
      whole.bytes_per_ns = std::min(whole.bytes_per_ns, rate.bytes_per_ns);
      if (first || !first_only_) all.cost = whole;
      src += (by.to - by.from) * dimensions_[static_cast<size_t>(by.dimension)].stride;
    }
    all.shortened =
        all.cost.latency_ns != whole.latency_ns || all.cost.bytes_per_ns != whole.bytes_per_ns;
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
  bool first_only_;
  astra_net::Turns turns_;
  std::vector<Dimension> dimensions_;
  std::vector<Rate> rates_;
  std::vector<int32_t> digits_;  // of each endpoint: dividing takes longer than all the rest
  int64_t link_count_ = 0;
};

// The quirks of ASTRA-sim that the two models have.  The option semantics says what they are where
// their own options do not.
struct Quirks {
  bool store_and_forward, first_dimension_only;
};
inline Quirks quirks_of(astra_net::Config& config) {
  const bool all =
      config.options.choice("semantics", "astra-sim", {"astra-sim", "corrected"}) == "astra-sim";
  return {config.options.flag("store-and-forward", all),
          config.options.flag("first-dimension-only", all)};
}

// Whether the options describe the topology; otherwise the links do.
inline bool has_dimensions(astra_net::Config& config) {
  return !config.options.text("topology", "").empty();
}

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_TOPOLOGY_HPP
