// SPDX-License-Identifier: MIT
//
// Which links a transfer crosses in any directed graph, the same in every backend: fewest hops, and
// where several links lead one hop closer (parallel ones too), a rule picks one.  An endpoint passes
// nothing on for others unless the network says so, and begins ways with the fastest of such links:
// what stays in a host takes NVLink, though a leaf that its adapters share is no farther.
//
// Ways lead to a destination alike from and to many nodes, so that little is held:
//
// * Ways pass inner nodes only: switches, and endpoints where they forward, unless all links of one
//   lead to a single other node.  Ways to any other node are ways to the inner nodes before it.
// * Inner nodes that are entered from the same inner nodes, and lead to the same ones in the same
//   order, are of one kind: ways lead to all of them alike, and away from them alike.
//
// A table per kind of destination says for each kind of node which of its links lead one hop
// closer.  A fat-tree of 8192 hosts has 1280 switches of 560 kinds, and tables for 32 of these.
#ifndef ASTRA_ROUTES_HPP
#define ASTRA_ROUTES_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"

namespace astra_net {

// A well-mixed number of a flow at a node (the finaliser of SplitMix64, Steele et al., OOPSLA 2014).
// `label` tells flows of one pair apart: a queue pair, a packet.
inline uint64_t flow_hash(int32_t src, int32_t dst, int32_t node, uint64_t label = 0) {
  uint64_t x = (static_cast<uint64_t>(src) << 42) ^ (static_cast<uint64_t>(dst) << 21) ^
               static_cast<uint64_t>(node) ^ (label * 0xD1342543DE82EF95u);
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

enum class Routing {
  kEcmp,  // by the hash of the flow
  kStatic,  // by the destination alone: D-mod-k (Zahavi, "D-Mod-K Routing", 2010)
  kSpray,  // every packet, or the smallest thing that the model moves, by a hash of its own
  kAdaptive,  // as kSpray, but where least waits
};

class Routes {
 public:
  static constexpr size_t kMostRoom = size_t{1} << 25;  // 128 MiB of int32
  static constexpr int32_t kNone = -1;

  // Equally good links, in ascending order, until the next call.
  class Choice {
   public:
    int32_t count() const { return count_; }
    int32_t link(size_t pick) const {
      return ways_[positions_ == nullptr ? pick : static_cast<size_t>(positions_[pick])].link;
    }

   private:
    friend class Routes;
    struct Way {
      int32_t link, src, dst;
    };
    const Way* ways_ = nullptr;
    int32_t count_ = 0;
    const int32_t* positions_ = nullptr;  // of the ways_; nullptr: all of them
  };

  // Reads the options `routing` and `endpoints_forward`.  `most_room` bounds the entries of all
  // tables: any of them can be made again.
  explicit Routes(Config& config, size_t most_room = kMostRoom)
      : nodes_(static_cast<size_t>(config.nodes)),
        most_room_(most_room),
        endpoints_(config.endpoints) {
    const std::string routing =
        config.options.choice("routing", "ecmp", {"ecmp", "static", "spray", "adaptive"});
    routing_ = routing == "ecmp"     ? Routing::kEcmp
               : routing == "static" ? Routing::kStatic
               : routing == "spray"  ? Routing::kSpray
                                     : Routing::kAdaptive;
    forward_ = config.options.flag("endpoints_forward", false);
    find_inner(config);
    gather(config.links);
    if (!forward_) find_rates(config.links);
    find_kinds();
    if (routing_ == Routing::kStatic) find_heights(config);
  }

  Routing routing() const { return routing_; }

  // The links at `node` that a way to `dst` may take; none where there is no way.
  Choice choices(int32_t dst, int32_t node) {
    const Choice found = shortest(dst, node);
    const bool unequal =
        static_cast<size_t>(node) < unequal_.size() && unequal_[static_cast<size_t>(node)];
    return unequal && found.count_ > 1 ? fastest(found) : found;
  }

  // The link that a flow takes at `node`, or kNone.
  int32_t next(int32_t src, int32_t dst, int32_t node, uint64_t label = 0) {
    const Choice choice = choices(dst, node);
    if (choice.count() == 0) return kNone;
    if (choice.count() == 1) return choice.link(0);
    const auto count = static_cast<uint64_t>(choice.count());
    const uint64_t key = routing_ == Routing::kStatic ? static_key(dst, node, count)
                                                      : flow_hash(src, dst, node, label);
    return choice.link(static_cast<size_t>(key % count));
  }

  // Where a way breaks off: what an error says.
  std::string no_way(int32_t src, int32_t dst) const {
    return "no way from endpoint " + std::to_string(src) + " to endpoint " + std::to_string(dst) +
           remedy();
  }
  std::string remedy() const {
    return forward_
               ? ""
               : " over switches alone; endpoints_forward: true lets endpoints pass on what is "
                 "for others";
  }

 private:
  using Way = Choice::Way;
  // Toward a kind of inner node: hops[kind] from a kind of node to those that lead to it, and where
  // in `blocks` the positions in out_ of the links that lead one hop closer are: first their number,
  // then they.
  struct Table {
    int32_t kind;
    uint64_t used;
    std::vector<int32_t> hops, rows, blocks;
    size_t room() const { return hops.size() + rows.size() + blocks.size(); }
  };
  static constexpr int32_t kFar = std::numeric_limits<int32_t>::max();

  // The links at `node` that lead one hop closer to `dst`.
  Choice shortest(int32_t dst, int32_t node) {
    const Choice direct = between(node, dst);
    if (direct.count_ > 0) return direct;
    if (inner(node)) return toward(dst, node);
    const Choice out = all(out_first_, out_, node);
    if (out.count_ == 0) return {};
    const int32_t first = out.ways_[0].dst;
    const auto same = [first](const Way& way) { return way.dst == first; };
    if (std::all_of(out.ways_, out.ways_ + out.count_, same))
      return distance(first, dst) == kFar ? Choice{} : out;
    int32_t least = kFar;
    merged_.clear();
    for (int32_t i = 0; i < out.count_; ++i) {
      const int32_t hops = distance(out.ways_[i].dst, dst);
      if (hops > least || hops == kFar) continue;
      if (hops < least) merged_.clear();
      least = hops;
      merged_.push_back(out.ways_[i]);
    }
    return merged();
  }

  Choice fastest(const Choice& of) {
    const auto rate = [&](int32_t i) {
      return rates_[static_cast<size_t>(of.link(static_cast<size_t>(i)))];
    };
    double most = 0;
    for (int32_t i = 0; i < of.count_; ++i) most = std::max(most, rate(i));
    fastest_.clear();
    for (int32_t i = 0; i < of.count_; ++i)
      if (rate(i) == most) fastest_.push_back({of.link(static_cast<size_t>(i)), 0, 0});
    return make(fastest_.data(), static_cast<int32_t>(fastest_.size()));
  }

  bool inner(int32_t node) const { return kind_[static_cast<size_t>(node)] >= 0; }
  int32_t kind_of(int32_t node) const { return kind_[static_cast<size_t>(node)]; }

  static Choice make(const Way* ways, int32_t count, const int32_t* positions = nullptr) {
    Choice choice;
    choice.ways_ = ways;
    choice.count_ = count;
    choice.positions_ = positions;
    return choice;
  }
  static Choice all(const std::vector<int32_t>& first, const std::vector<Way>& ways, int32_t node) {
    const auto at = static_cast<size_t>(node);
    return make(ways.data() + first[at], first[at + 1] - first[at]);
  }
  Choice between(int32_t node, int32_t target) const {
    const Choice in = all(in_first_, in_, target);
    const auto [begin, end] =
        std::equal_range(in.ways_, in.ways_ + in.count_, Way{0, node, 0},
                         [](const Way& a, const Way& b) { return a.src < b.src; });
    return make(begin, static_cast<int32_t>(end - begin));
  }
  Choice merged() {
    const auto by_link = [](const Way& a, const Way& b) { return a.link < b.link; };
    std::sort(merged_.begin(), merged_.end(), by_link);
    const auto same = [](const Way& a, const Way& b) { return a.link == b.link; };
    merged_.erase(std::unique(merged_.begin(), merged_.end(), same), merged_.end());
    return make(merged_.data(), static_cast<int32_t>(merged_.size()));
  }

  // Calls `visit` with each inner node that ways to `dst` end at: itself, or those before it.
  template <class Visit>
  void entries(int32_t dst, Visit&& visit) const {
    if (inner(dst)) return visit(dst);
    const Choice in = all(in_first_, in_, dst);
    for (int32_t i = 0; i < in.count_; ++i) {
      const int32_t entry = in.ways_[i].src;
      if (inner(entry) && (i == 0 || entry != in.ways_[i - 1].src)) visit(entry);
    }
  }

  // Hops between two inner nodes.
  int32_t hops(int32_t node, int32_t target) {
    if (node == target) return 0;
    const int32_t known = table(kind_of(target)).hops[static_cast<size_t>(kind_of(node))];
    return known < 0 ? kFar : known + 1;
  }
  // From an inner node to the nearest entry of `dst`.
  int32_t distance(int32_t node, int32_t dst) {
    int32_t least = kFar;
    entries(dst, [&](int32_t entry) { least = std::min(least, hops(node, entry)); });
    return least;
  }

  // At an inner node that is none of the entries of `dst`.
  Choice toward(int32_t dst, int32_t node) {
    int32_t least = kFar, nearest = 0, several = 0;
    entries(dst, [&](int32_t entry) {
      const int32_t far = hops(node, entry);
      several = far == least ? several + 1 : far < least ? 1 : several;
      nearest = far < least ? entry : nearest;
      least = std::min(least, far);
    });
    if (least == kFar) return {};
    if (several == 1) return closer(node, nearest);
    merged_.clear();
    entries(dst, [&](int32_t entry) {
      if (hops(node, entry) != least) return;
      const Choice part = closer(node, entry);
      for (int32_t i = 0; i < part.count_; ++i)
        merged_.push_back(part.ways_[part.positions_ == nullptr ? i : part.positions_[i]]);
    });
    return merged();
  }

  // The links that lead from an inner node to another, or one hop closer to it; there is a way.
  Choice closer(int32_t node, int32_t target) {
    const Table& known = table(kind_of(target));
    const auto row = static_cast<size_t>(kind_of(node));
    if (known.hops[row] == 0) return between(node, target);
    const int32_t* block = &known.blocks[static_cast<size_t>(known.rows[row])];
    return make(out_.data() + out_first_[static_cast<size_t>(node)], block[0], block + 1);
  }

  void find_inner(const Config& config) {
    constexpr int32_t kSeveral = -2;
    std::vector<int32_t> other(nodes_, kNone);
    const auto note = [](int32_t& known, int32_t one) {
      known = known == kNone || known == one ? one : kSeveral;
    };
    for (const astra_net_link& link : config.links) {
      note(other[static_cast<size_t>(link.src)], link.dst);
      note(other[static_cast<size_t>(link.dst)], link.src);
    }
    const auto endpoints = static_cast<size_t>(config.endpoints);
    kind_.assign(nodes_, kNone);
    for (size_t node = 0; node < nodes_; ++node)
      if ((forward_ || node >= endpoints) && other[node] == kSeveral) kind_[node] = 0;
  }

  // Links by one of their ends, ways[first[node] .. first[node + 1]): into a node by where they
  // come from, out of it in ascending order and to inner nodes only.
  void gather(const std::vector<astra_net_link>& links) {
    std::vector<Way> ways;
    ways.reserve(links.size());
    for (size_t i = 0; i < links.size(); ++i)
      ways.push_back({static_cast<int32_t>(i), links[i].src, links[i].dst});
    const auto sorted = [this](std::vector<int32_t>& first, const std::vector<Way>& from,
                               int32_t Way::* end) {
      first.assign(nodes_ + 1, 0);
      for (const Way& way : from) ++first[static_cast<size_t>(way.*end) + 1];
      for (size_t node = 0; node < nodes_; ++node) first[node + 1] += first[node];
      std::vector<int32_t> next = first;
      std::vector<Way> to(from.size());
      for (const Way& way : from)
        to[static_cast<size_t>(next[static_cast<size_t>(way.*end)]++)] = way;
      return to;
    };
    std::vector<int32_t> unused;
    in_ = sorted(in_first_, sorted(unused, ways, &Way::src), &Way::dst);
    ways.erase(std::remove_if(ways.begin(), ways.end(),
                              [this](const Way& way) { return !inner(way.dst); }),
               ways.end());
    out_ = sorted(out_first_, ways, &Way::src);
  }

  // Of the links where ways begin, if they differ at any endpoint.
  void find_rates(const std::vector<astra_net_link>& links) {
    std::vector<double> first(static_cast<size_t>(endpoints_));
    for (const astra_net_link& link : links) {
      if (link.src >= endpoints_) continue;
      double& known = first[static_cast<size_t>(link.src)];
      if (known == 0) known = link.bytes_per_second;
      if (known == link.bytes_per_second) continue;
      unequal_.resize(first.size());
      unequal_[static_cast<size_t>(link.src)] = true;
    }
    if (unequal_.empty()) return;
    for (const astra_net_link& link : links) rates_.push_back(link.bytes_per_second);
  }

  void find_kinds() {
    std::map<std::vector<int32_t>, int32_t> known;
    std::vector<int32_t> key;  // entered from ..., -1, leads to ...
    std::vector<int32_t> kinds(nodes_, kNone);
    for (size_t i = 0; i < nodes_; ++i) {
      const auto node = static_cast<int32_t>(i);
      if (!inner(node)) continue;
      key.clear();
      const Choice in = all(in_first_, in_, node), out = all(out_first_, out_, node);
      for (const Way* way = in.ways_; way != in.ways_ + in.count_; ++way)
        if (inner(way->src) && (key.empty() || key.back() != way->src)) key.push_back(way->src);
      key.push_back(-1);
      for (const Way* way = out.ways_; way != out.ways_ + out.count_; ++way)
        key.push_back(way->dst);
      kinds[i] = known.try_emplace(key, static_cast<int32_t>(known.size())).first->second;
      if (kinds[i] == static_cast<int32_t>(example_.size())) example_.push_back(node);
    }
    kind_ = std::move(kinds);
    for (const int32_t node : example_) {
      const Choice in = all(in_first_, in_, node);
      std::vector<int32_t> before;
      for (const Way* way = in.ways_; way != in.ways_ + in.count_; ++way)
        if (inner(way->src)) before.push_back(kind_of(way->src));
      std::sort(before.begin(), before.end());
      before.erase(std::unique(before.begin(), before.end()), before.end());
      before_first_.push_back(before_.size());
      before_.insert(before_.end(), before.begin(), before.end());
    }
    before_first_.push_back(before_.size());
    table_of_.assign(example_.size(), kNone);
  }

  const Table& table(int32_t kind) {
    int32_t& known = table_of_[static_cast<size_t>(kind)];
    if (known < 0) {
      Table fresh = make_table(kind);
      room_ += fresh.room();
      while (room_ > most_room_ && !tables_.empty()) forget_oldest();
      known = static_cast<int32_t>(tables_.size());
      tables_.push_back(std::move(fresh));
    }
    Table& found = tables_[static_cast<size_t>(known)];
    found.used = ++uses_;
    return found;
  }
  // There are at most as many tables as rows in one, so making one costs more than this search.
  void forget_oldest() {
    const auto oldest =
        std::min_element(tables_.begin(), tables_.end(),
                         [](const Table& a, const Table& b) { return a.used < b.used; });
    room_ -= oldest->room();
    table_of_[static_cast<size_t>(tables_.back().kind)] =
        static_cast<int32_t>(oldest - tables_.begin());
    table_of_[static_cast<size_t>(oldest->kind)] = kNone;
    std::swap(*oldest, tables_.back());
    tables_.pop_back();
  }

  Table make_table(int32_t kind) const {
    const size_t kinds = example_.size();
    // Hops to the nodes that lead to the destination: the last hop is another choice.
    Table made{kind, 0, std::vector<int32_t>(kinds, -1), std::vector<int32_t>(kinds, 0), {}};
    std::vector<int32_t> ahead;
    const auto reach = [&](int32_t from, int32_t distance) {
      const auto at = static_cast<size_t>(from);
      for (size_t k = before_first_[at]; k < before_first_[at + 1]; ++k) {
        int32_t& known = made.hops[static_cast<size_t>(before_[k])];
        if (known >= 0) continue;
        known = distance;
        ahead.push_back(before_[k]);
      }
    };
    reach(kind, 0);
    for (size_t i = 0; i < ahead.size(); ++i)
      reach(ahead[i], made.hops[static_cast<size_t>(ahead[i])] + 1);

    std::vector<int32_t> block;
    size_t last = 0, last_size = 0;  // many rows are like the one before: they share a block
    for (size_t row = 0; row < kinds; ++row) {
      if (made.hops[row] <= 0) continue;
      const Choice out = all(out_first_, out_, example_[row]);
      block.assign(1, 0);
      for (int32_t i = 0; i < out.count_; ++i) {
        const auto there = static_cast<size_t>(kind_of(out.ways_[i].dst));
        if (made.hops[there] == made.hops[row] - 1) block.push_back(i);
      }
      block[0] = static_cast<int32_t>(block.size()) - 1;
      const auto start = made.blocks.begin() + static_cast<std::ptrdiff_t>(last);
      if (last_size != block.size() || !std::equal(block.begin(), block.end(), start)) {
        last = made.blocks.size();
        last_size = block.size();
        made.blocks.insert(made.blocks.end(), block.begin(), block.end());
      }
      made.rows[row] = static_cast<int32_t>(last);
    }
    return made;
  }

  // D-mod-k: a switch `height` tiers above the endpoints spreads by that digit of the destination.
  uint64_t static_key(int32_t dst, int32_t node, uint64_t count) const {
    auto key = static_cast<uint64_t>(dst);
    for (int32_t tier = 1; tier < height_[static_cast<size_t>(node)] && key > 0; ++tier)
      key /= count;
    return key;
  }
  // Hops from the nearest endpoint.
  void find_heights(const Config& config) {
    height_.assign(nodes_, kNone);
    std::vector<int32_t> ahead;
    for (int32_t node = 0; node < config.endpoints; ++node) {
      height_[static_cast<size_t>(node)] = 0;
      ahead.push_back(node);
    }
    for (size_t i = 0; i < ahead.size(); ++i) {
      const Choice out = all(out_first_, out_, ahead[i]);
      for (const Way* way = out.ways_; way != out.ways_ + out.count_; ++way) {
        int32_t& known = height_[static_cast<size_t>(way->dst)];
        if (known >= 0) continue;
        known = height_[static_cast<size_t>(ahead[i])] + 1;
        ahead.push_back(way->dst);
      }
    }
  }

  size_t nodes_, most_room_;
  int32_t endpoints_;
  Routing routing_ = Routing::kEcmp;
  bool forward_ = false;
  std::vector<int32_t> out_first_, in_first_;
  std::vector<Way> out_, in_;
  std::vector<int32_t> kind_;  // of an inner node, else kNone
  std::vector<int32_t> example_;  // a node of each kind
  std::vector<size_t> before_first_;
  std::vector<int32_t> before_;  // kinds of the nodes that lead to a kind
  std::vector<int32_t> table_of_;  // index into tables_, or kNone
  std::vector<Table> tables_;
  std::vector<Way> merged_, fastest_;
  std::vector<bool> unequal_;  // endpoints whose links differ in rate; empty: none
  std::vector<double> rates_;  // of links, where any endpoint is unequal
  std::vector<int32_t> height_;  // of kStatic
  size_t room_ = 0;
  uint64_t uses_ = 0;
};

}  // namespace astra_net

#endif  // ASTRA_ROUTES_HPP
