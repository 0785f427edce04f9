// SPDX-License-Identifier: MIT
//
// Which links a transfer crosses in any directed graph: fewest hops, and equal-cost multi-path by
// a hash of the flow.  Ways lead to a destination alike from and to many nodes, so that little is
// held:
//
// * A stub is a node whose links lead to one other node and come from it, its gate, as nearly
//   every host's do.  No way passes through a stub, and ways to it are ways to its gate.
// * Nodes other than stubs that are entered from the same nodes, and lead to the same nodes in the
//   same order, are of one kind: ways lead to all of them alike, and away from them alike.
//
// A table per kind of destination says for each kind of node which of its links lead one hop
// closer.  A fat-tree of 8192 hosts has 1280 switches of 560 kinds, and tables for 32 of these.
#ifndef ASTRA_ANALYTICAL_LINK_LIST_HPP
#define ASTRA_ANALYTICAL_LINK_LIST_HPP

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "topology.hpp"

namespace analytical {

class LinkList {
 public:
  static constexpr size_t kMostRoom = size_t{1} << 25;  // 128 MiB of int32

  // `most_room` bounds the entries of all tables: any of them can be made again.
  explicit LinkList(const astra_net::Config& config, size_t most_room = kMostRoom)
      : nodes_(static_cast<size_t>(config.nodes)), most_room_(most_room), links_(config.links) {
    std::map<std::pair<double, double>, int32_t> known;
    for (const astra_net_link& link : links_) {
      const Rate rate{link.bytes_per_second / 1e9, static_cast<double>(link.latency_ps) / 1000};
      const auto index = static_cast<int32_t>(rates_.size());
      const auto [same, fresh] = known.try_emplace({rate.bytes_per_ns, rate.latency_ns}, index);
      if (fresh) rates_.push_back(rate);
      rate_of_.push_back(same->second);
    }
    find_stubs();
    gather();
    find_kinds();
  }

  const std::vector<Rate>& rates() const { return rates_; }
  int64_t link_count() const { return static_cast<int64_t>(links_.size()); }

  Hop next(int32_t src, int32_t dst, Position at) {
    const int32_t node = at.node, gate = gate_of(node), target = gate_of(dst);
    Choice choice;
    if (node == target) {
      choice = {all(in_first_, in_, dst)};
    } else if (node == gate) {
      choice = closer(node, target);
    } else if (gate == target || closer(gate, target).count > 0) {
      choice = {all(out_first_, out_, node)};
    }
    if (choice.count == 0)
      throw Error(ASTRA_NET_MODEL, "no way from endpoint " + std::to_string(src) + " to endpoint " +
                                       std::to_string(dst));
    auto pick = static_cast<size_t>(hash(src, dst, node) % static_cast<uint64_t>(choice.count));
    if (choice.positions != nullptr) pick = static_cast<size_t>(choice.positions[pick]);
    const Way& way = choice.ways[pick];
    return {way.link, way.rate, {way.dst, -1}};
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
  // A link, as seen from one of its ends.
  struct Way {
    int32_t link, src, dst, rate;
  };
  // Equally good ways, in ascending order of links: all `count` of them, or those at `positions`.
  struct Choice {
    const Way* ways = nullptr;
    int32_t count = 0;
    const int32_t* positions = nullptr;
  };
  // Toward a kind of node.  rows[kind] says where the positions in out_ of the links that lead one
  // hop closer are: first their number, then they.
  struct Table {
    int32_t kind;
    uint64_t used;
    std::vector<int32_t> rows;
  };
  static constexpr int32_t kNoWay = -1;
  static constexpr int32_t kDirect = -2;  // links lead to the destination itself

  int32_t gate_of(int32_t node) const { return gate_[static_cast<size_t>(node)]; }
  bool is_stub(int32_t node) const { return gate_of(node) != node; }
  int32_t kind_of(int32_t node) const { return kind_[static_cast<size_t>(node)]; }

  static Choice all(const std::vector<int32_t>& first, const std::vector<Way>& ways, int32_t node) {
    const auto at = static_cast<size_t>(node);
    return {ways.data() + first[at], first[at + 1] - first[at]};
  }

  // The links that lead from a node to another, neither of them a stub, or one hop closer to it.
  Choice closer(int32_t node, int32_t target) {
    const std::vector<int32_t>& rows = toward(kind_of(target));
    const int32_t row = rows[static_cast<size_t>(kind_of(node))];
    if (row == kNoWay) return {};
    if (row == kDirect) {
      const Choice in = all(in_first_, in_, target);
      const auto [begin, end] =
          std::equal_range(in.ways, in.ways + in.count, Way{0, node, 0, 0},
                           [](const Way& a, const Way& b) { return a.src < b.src; });
      return {begin, static_cast<int32_t>(end - begin)};
    }
    const int32_t* block = &rows[static_cast<size_t>(row)];
    return {out_.data() + out_first_[static_cast<size_t>(node)], block[0], block + 1};
  }

  void find_stubs() {
    constexpr int32_t kNone = -1, kSeveral = -2;
    std::vector<int32_t> to(nodes_, kNone), from(nodes_, kNone);
    const auto note = [](int32_t& known, int32_t other) {
      known = known == kNone || known == other ? other : kSeveral;
    };
    for (const astra_net_link& link : links_) {
      note(to[static_cast<size_t>(link.src)], link.dst);
      note(from[static_cast<size_t>(link.dst)], link.src);
    }
    for (size_t node = 0; node < nodes_; ++node) gate_.push_back(static_cast<int32_t>(node));
    for (size_t node = 0; node < nodes_; ++node)
      if (to[node] >= 0 && to[node] == from[node] && !is_stub(to[node])) gate_[node] = to[node];
  }

  // Links by one of their ends, ways[first[node] .. first[node + 1]): into a node by where they
  // come from, out of it in ascending order and without those to stubs, which no way passes.
  void gather() {
    std::vector<Way> ways;
    ways.reserve(links_.size());
    for (size_t i = 0; i < links_.size(); ++i)
      ways.push_back({static_cast<int32_t>(i), links_[i].src, links_[i].dst, rate_of_[i]});
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
                              [this](const Way& way) { return is_stub(way.dst); }),
               ways.end());
    out_ = sorted(out_first_, ways, &Way::src);
  }

  void find_kinds() {
    kind_.assign(nodes_, -1);
    std::map<std::vector<int32_t>, int32_t> known;
    std::vector<int32_t> key;  // entered from ..., -1, leads to ...
    for (size_t i = 0; i < nodes_; ++i) {
      const auto node = static_cast<int32_t>(i);
      if (is_stub(node)) continue;
      key.clear();
      const Choice in = all(in_first_, in_, node), out = all(out_first_, out_, node);
      for (const Way* way = in.ways; way != in.ways + in.count; ++way)
        if (!is_stub(way->src) && (key.empty() || key.back() != way->src)) key.push_back(way->src);
      key.push_back(-1);
      for (const Way* way = out.ways; way != out.ways + out.count; ++way) key.push_back(way->dst);
      kind_[i] = known.try_emplace(key, static_cast<int32_t>(known.size())).first->second;
      if (kind_of(node) == static_cast<int32_t>(example_.size())) example_.push_back(node);
    }
    for (const int32_t node : example_) {
      const Choice in = all(in_first_, in_, node);
      std::vector<int32_t> kinds;
      for (const Way* way = in.ways; way != in.ways + in.count; ++way)
        if (!is_stub(way->src)) kinds.push_back(kind_of(way->src));
      std::sort(kinds.begin(), kinds.end());
      kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
      before_first_.push_back(before_.size());
      before_.insert(before_.end(), kinds.begin(), kinds.end());
    }
    before_first_.push_back(before_.size());
    table_of_.assign(example_.size(), -1);
  }

  const std::vector<int32_t>& toward(int32_t kind) {
    int32_t& known = table_of_[static_cast<size_t>(kind)];
    if (known < 0) {
      Table table{kind, 0, make_table(kind)};
      room_ += table.rows.size();
      while (room_ > most_room_ && !tables_.empty()) forget_oldest();
      known = static_cast<int32_t>(tables_.size());
      tables_.push_back(std::move(table));
    }
    Table& table = tables_[static_cast<size_t>(known)];
    table.used = ++uses_;
    return table.rows;
  }
  // There are at most as many tables as rows in one, so making one costs more than this search.
  void forget_oldest() {
    const auto oldest =
        std::min_element(tables_.begin(), tables_.end(),
                         [](const Table& a, const Table& b) { return a.used < b.used; });
    room_ -= oldest->rows.size();
    table_of_[static_cast<size_t>(tables_.back().kind)] =
        static_cast<int32_t>(oldest - tables_.begin());
    table_of_[static_cast<size_t>(oldest->kind)] = -1;
    std::swap(*oldest, tables_.back());
    tables_.pop_back();
  }

  std::vector<int32_t> make_table(int32_t kind) const {
    const size_t kinds = example_.size();
    // Hops to the nodes that lead to the destination: the last hop is another choice.
    std::vector<int32_t> hops(kinds, -1), ahead;
    const auto reach = [&](int32_t from, int32_t distance) {
      const auto at = static_cast<size_t>(from);
      for (size_t k = before_first_[at]; k < before_first_[at + 1]; ++k) {
        int32_t& known = hops[static_cast<size_t>(before_[k])];
        if (known >= 0) continue;
        known = distance;
        ahead.push_back(before_[k]);
      }
    };
    reach(kind, 0);
    for (size_t i = 0; i < ahead.size(); ++i)
      reach(ahead[i], hops[static_cast<size_t>(ahead[i])] + 1);

    std::vector<int32_t> rows(kinds, kNoWay), block;
    size_t last = 0, last_size = 0;  // many rows are like the one before: they share a block
    for (size_t row = 0; row < kinds; ++row) {
      if (hops[row] == 0) rows[row] = kDirect;
      if (hops[row] <= 0) continue;
      const Choice out = all(out_first_, out_, example_[row]);
      block.assign(1, 0);
      for (int32_t i = 0; i < out.count; ++i) {
        const auto there = static_cast<size_t>(kind_of(out.ways[i].dst));
        if (hops[there] == hops[row] - 1) block.push_back(i);
      }
      block[0] = static_cast<int32_t>(block.size()) - 1;
      const auto start = rows.begin() + static_cast<std::ptrdiff_t>(last);
      if (last == 0 || block.size() != last_size ||
          !std::equal(block.begin(), block.end(), start)) {
        last = rows.size();
        last_size = block.size();
        rows.insert(rows.end(), block.begin(), block.end());
      }
      rows[row] = static_cast<int32_t>(last);
    }
    return rows;
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

  size_t nodes_, most_room_;
  std::vector<astra_net_link> links_;
  std::vector<Rate> rates_;
  std::vector<int32_t> rate_of_;
  std::vector<int32_t> gate_;  // of a stub, else the node itself
  std::vector<int32_t> out_first_, in_first_;
  std::vector<Way> out_, in_;
  std::vector<int32_t> kind_;     // of a node; -1 for a stub
  std::vector<int32_t> example_;  // a node of each kind
  std::vector<size_t> before_first_;
  std::vector<int32_t> before_;    // kinds of the nodes that lead to a kind
  std::vector<int32_t> table_of_;  // index into tables_, or -1
  std::vector<Table> tables_;
  size_t room_ = 0;
  uint64_t uses_ = 0;
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_LINK_LIST_HPP
