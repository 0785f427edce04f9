// SPDX-License-Identifier: MIT
//
// Which parts a transfer crosses, hop by hop.  A hop is what one part carries, over dimensions or
// links that are all its own: between two ranks, or switches at its border.  There a part has an
// endpoint for each of the ranks that are nearest to the switch, which stands in for it: so the flows
// of different ranks stay different flows.
#ifndef ASTRA_COMPOSITE_WAYS_HPP
#define ASTRA_COMPOSITE_WAYS_HPP

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "astra_routes.hpp"

namespace composite {

using astra_net::Error;

struct Hop {
  int32_t part, to;
};

class Ways {
 public:
  // Options: `part_of_link`, the part of each link as "COUNT*PART,..."; of a network of dimensions
  // `npus_count`, and `part_of_dimension` one after the other; of a network of links `border`, a
  // line for each switch where parts meet: the switch, the first endpoint at it, and the ranks that
  // these stand in for, ascending.
  Ways(astra_net::Config& config, int32_t parts) : parts_(parts) {
    const std::string sizes = config.options.text("npus_count", "");
    const std::string dimensions = config.options.text("part_of_dimension", "");
    int64_t endpoints = 1;
    for (const std::string& item : split(sizes)) {
      sizes_.push_back(static_cast<int32_t>(whole("npus_count", item, INT32_MAX)));
      endpoints *= sizes_.back();
      if (sizes_.back() < 1 || endpoints > config.endpoints) refuse("npus_count", sizes);
    }
    for (const std::string& item : split(dimensions))
      part_of_dimension_.push_back(
          static_cast<int32_t>(whole("part_of_dimension", item, parts - 1)));
    read_links(config.options.text("part_of_link", ""));
    read_border(config.options.text("border", ""));
    if (!sizes_.empty()) {
      if (endpoints != config.endpoints) refuse("npus_count", sizes);
      if (part_of_dimension_.size() != sizes_.size()) refuse("part_of_dimension", dimensions);
      return;
    }
    if (link_count() != static_cast<int64_t>(config.links.size()))
      throw Error(ASTRA_NET_INVALID, "option 'part_of_link' is for " +
                                         std::to_string(link_count()) + " links; there are " +
                                         std::to_string(config.links.size()));
    routes_.emplace(config, astra_net::Routes::kMostRoom);
    for (const astra_net_link& link : config.links) ends_.push_back(link.dst);
    endpoints_ = config.endpoints;
  }

  int64_t link_count() const { return runs_.empty() ? 0 : runs_.back().end; }
  int32_t part_of_link(int64_t link) const { return run_of(link).part; }
  // What the part calls it: a part of dimensions knows all links, one of links its own.
  int32_t own_number(int64_t link) const {
    if (!sizes_.empty()) return static_cast<int32_t>(link);
    const Run& run = run_of(link);
    return static_cast<int32_t>(run.own_end - (run.end - link));
  }

  // What parts call a node that a hop begins or ends at: a rank, or an endpoint at their border.
  int32_t endpoint(int32_t node, int32_t src, int32_t dst) const {
    if (!sizes_.empty() || node < endpoints_) return node;
    const auto found = border_.find(node);
    if (found == border_.end())
      throw Error(ASTRA_NET_MODEL, "the way from endpoint " + std::to_string(src) +
                                       " to endpoint " + std::to_string(dst) +
                                       " goes from one part to another at switch " +
                                       std::to_string(node) + ", which is none of the border");
    const std::vector<int32_t>& ranks = found->second.ranks;
    const auto place = [&](int32_t rank) {
      const auto at = std::lower_bound(ranks.begin(), ranks.end(), rank);
      return at == ranks.end() || *at != rank ? -1 : static_cast<int32_t>(at - ranks.begin());
    };
    int32_t at = place(src);
    if (at < 0) at = place(dst);
    if (at < 0) at = static_cast<int32_t>(astra_net::flow_hash(src, dst, node) % ranks.size());
    return found->second.first + at;
  }

  // The part that a transfer at `node` goes over next, and where that leads.
  Hop next(int32_t src, int32_t dst, int32_t node) {
    return sizes_.empty() ? over_links(src, dst, node) : over_dimensions(dst, node);
  }

 private:
  // Links that follow one another and belong to one part; own_end counts that part's links.
  struct Run {
    int64_t end;
    int32_t part;
    int64_t own_end;
  };

  const Run& run_of(int64_t link) const {
    return *std::upper_bound(runs_.begin(), runs_.end(), link,
                             [](int64_t value, const Run& run) { return value < run.end; });
  }

  // Dimensions in ascending order, as long as they are of one part.
  Hop over_dimensions(int32_t dst, int32_t node) const {
    Hop hop{-1, node};
    int32_t stride = 1;
    for (size_t d = 0; d < sizes_.size(); stride *= sizes_[d], ++d) {
      const int32_t step = dst / stride % sizes_[d] - node / stride % sizes_[d];
      if (step == 0) continue;
      if (hop.part >= 0 && hop.part != part_of_dimension_[d]) break;
      hop.part = part_of_dimension_[d];
      hop.to += step * stride;
    }
    return hop;
  }

  Hop over_links(int32_t src, int32_t dst, int32_t node) {
    Hop hop{-1, node};
    while (hop.to != dst) {
      const int32_t link = routes_->next(src, dst, hop.to);
      if (link == astra_net::Routes::kNone) throw Error(ASTRA_NET_MODEL, routes_->no_way(src, dst));
      const int32_t part = part_of_link(link);
      if (hop.part >= 0 && hop.part != part) break;
      hop.part = part;
      hop.to = ends_[static_cast<size_t>(link)];
    }
    return hop;
  }

  void read_links(const std::string& text) {
    std::vector<int64_t> own(static_cast<size_t>(parts_), 0);
    for (const std::string& item : split(text)) {
      const size_t star = item.find('*');
      if (star == std::string::npos) refuse("part_of_link", item);
      const int64_t count = whole("part_of_link", item.substr(0, star), INT32_MAX);
      const int64_t part = whole("part_of_link", item.substr(star + 1), parts_ - 1);
      own[static_cast<size_t>(part)] += count;
      if (count == 0) continue;
      runs_.push_back(
          {link_count() + count, static_cast<int32_t>(part), own[static_cast<size_t>(part)]});
    }
  }

  void read_border(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream numbers(line);
      int32_t node = 0, rank = 0;
      Border border;
      if (!(numbers >> node >> border.first)) refuse("border", line);
      while (numbers >> rank) border.ranks.push_back(rank);
      if (border.ranks.empty() || !std::is_sorted(border.ranks.begin(), border.ranks.end()))
        refuse("border", line);
      border_[node] = std::move(border);
    }
  }

  static std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> items;
    std::istringstream stream(text);
    for (std::string item; std::getline(stream, item, ',');) items.push_back(item);
    return items;
  }
  static int64_t whole(const char* key, const std::string& text, int64_t most) {
    astra_net::Options one;
    one.add(key, text);
    return one.integer(key, 0, 0, most);
  }
  [[noreturn]] static void refuse(const char* key, const std::string& given) {
    throw Error(ASTRA_NET_INVALID,
                std::string("option '") + key + "': '" + given + "' does not fit the network");
  }

  struct Border {
    int32_t first = 0;
    std::vector<int32_t> ranks;
  };

  int32_t parts_, endpoints_ = 0;
  std::map<int32_t, Border> border_;
  std::vector<int32_t> sizes_, part_of_dimension_;
  std::vector<Run> runs_;
  std::vector<int32_t> ends_;  // of links
  std::optional<astra_net::Routes> routes_;
};

}  // namespace composite

#endif  // ASTRA_COMPOSITE_WAYS_HPP
