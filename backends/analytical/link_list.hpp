// SPDX-License-Identifier: MIT
//
// Which links a transfer crosses in any directed graph, and what they cost.
#ifndef ASTRA_ANALYTICAL_LINK_LIST_HPP
#define ASTRA_ANALYTICAL_LINK_LIST_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "astra_routes.hpp"
#include "astra_turns.hpp"
#include "topology.hpp"

namespace analytical {

class LinkList {
 public:
  explicit LinkList(astra_net::Config& config, size_t most_room = astra_net::Routes::kMostRoom)
      : routes_(config, most_room), links_(config.links) {
    std::map<std::pair<double, double>, int32_t> known;
    for (const astra_net_link& link : links_) {
      const Rate rate{link.bytes_per_second / 1e9, static_cast<double>(link.latency_ps) / 1000};
      const auto index = static_cast<int32_t>(rates_.size());
      const auto [same, fresh] = known.try_emplace({rate.bytes_per_ns, rate.latency_ns}, index);
      if (fresh) rates_.push_back(rate);
      rate_of_.push_back(same->second);
    }
    turns_ = astra_net::Turns(config.options.text("fold", ""), config.endpoints);
    read_folded(config.options.text("fold_links", ""));
  }

  // How ranks may be turned, of which some then stand for others; the link that stands for a link; and
  // the turn that takes it there.
  const astra_net::Turns& turns() const { return turns_; }
  int64_t folded(int64_t link) const { return fold_of(link).stands; }
  int32_t turn_of(int64_t link) const { return fold_of(link).by; }

  const std::vector<Rate>& rates() const { return rates_; }
  int64_t link_count() const { return static_cast<int64_t>(links_.size()); }

  // Whether messages of one pair may take different ways: messages are the least that this model
  // moves.
  bool by_message() const {
    return routes_.routing() == astra_net::Routing::kSpray ||
           routes_.routing() == astra_net::Routing::kAdaptive;
  }

  Hop next(int32_t src, int32_t dst, Position at, int64_t message = 0) {
    const uint64_t label = by_message() ? static_cast<uint64_t>(message) : 0;
    const int32_t link = routes_.next(src, dst, at.node, label);
    if (link < 0) throw Error(ASTRA_NET_MODEL, routes_.no_way(src, dst));
    return {link, rate_of(link), {links_[static_cast<size_t>(link)].dst, -1}};
  }

  // A link of all the ways of a pair, and which share of what is sent crosses it where each node
  // spreads evenly; `first` of those of one way.
  struct Part {
    int32_t link, rate;
    double weight;
    bool first;
  };
  std::vector<Part> spread(int32_t src, int32_t dst) {
    std::vector<Part> parts;
    std::map<int32_t, double> at{{src, 1.0}};
    for (int32_t first = src; first != dst;) {
      std::map<int32_t, double> after;
      int32_t next = dst;
      for (const auto& [node, share] : at) {
        const astra_net::Routes::Choice choice = routes_.choices(dst, node);
        if (choice.count() == 0) throw Error(ASTRA_NET_MODEL, routes_.no_way(src, dst));
        const double weight = share / choice.count();
        for (int32_t i = 0; i < choice.count(); ++i) {
          const int32_t link = choice.link(static_cast<size_t>(i));
          const int32_t there = links_[static_cast<size_t>(link)].dst;
          const bool on_first = node == first && i == 0;
          parts.push_back({link, rate_of(link), weight, on_first});
          after[there] += weight;
          if (on_first) next = there;
        }
      }
      first = next;
      at = std::move(after);
    }
    return parts;
  }

  Cost cost(int32_t src, int32_t dst, int64_t message = 0) {
    Cost all{0.0, std::numeric_limits<double>::infinity()};
    for (Position at{src}; at.node != dst;) {
      const Hop hop = next(src, dst, at, message);
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
  // With folded ranks: what stands for a link, and the turn that takes it there.
  struct Fold {
    int64_t stands = -1;
    int32_t by = 0;
  };
  const Fold& fold_of(int64_t link) const {
    const Fold& fold = folds_[static_cast<size_t>(link)];
    if (fold.stands < 0)
      throw Error(ASTRA_NET_MODEL, "link " + std::to_string(link) + " is none of 'fold_links'");
    return fold;
  }
  // "link,stands,by;...": all links that are used.
  void read_folded(const std::string& text) {
    if (!turns_.any()) return;
    folds_.resize(links_.size());
    std::istringstream rows(text);
    int64_t link = 0, stands = 0, by = 0;
    for (char comma = 0; rows >> link >> comma >> stands >> comma >> by; rows >> comma) {
      const int64_t count = link_count();
      if (link < 0 || link >= count || stands < 0 || stands >= count || by < 0 || by > INT32_MAX)
        throw Error(ASTRA_NET_INVALID, "option 'fold_links' has a row of link " +
                                           std::to_string(link) + ", which does not fit");
      folds_[static_cast<size_t>(link)] = {stands, static_cast<int32_t>(by)};
    }
  }

  astra_net::Turns turns_;
  std::vector<Fold> folds_;
  astra_net::Routes routes_;
  std::vector<astra_net_link> links_;
  std::vector<Rate> rates_;
  std::vector<int32_t> rate_of_;
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_LINK_LIST_HPP
