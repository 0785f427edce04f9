// SPDX-License-Identifier: MIT
//
// Links shared max-min fairly by the flows that cross them, by progressive filling (Bertsekas and
// Gallager, "Data Networks", 2nd ed., 1992, section 6.5.2): the link with the least share for each
// of its flows is full; its flows get that share, everywhere; again, with what is left.
//
// Only the flows that a change can touch are looked at: those that are joined to the changed links
// by links that they share.  What they get depends on which flows there are, and not on how they
// came, so that a simulation that is cut into pieces gives the same bits.
//
// Shares are found at the end of every instant in which flows came or went, where that touches a few
// hundred flows at most.  Where it would touch more, one flow more or less changes little for each:
// shares are found again after `tolerance` of the time that the flows take, at the earliest.  Until then
// what the gone ones had stays unused, and those that came wait.
#ifndef ASTRA_FLOW_SHARING_HPP
#define ASTRA_FLOW_SHARING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace flow {

// A part of a flow's way: the flow sends `weight` of its rate over this link.
struct Leg {
  int32_t link;
  int32_t place = -1;  // in the link's list of legs, while the flow is there
  double weight = 1;
  template <class A>
  void visit(A& archive) {
    archive(link, place, weight);
  }
};

class Sharing {
 public:
  // `weighted`: legs may have weights other than 1.
  Sharing(bool weighted, double tolerance) : tolerance_(tolerance), weighted_(weighted) {}

  int32_t add_link(double bytes_per_ps) {
    links_.emplace_back();
    links_.back().bytes_per_ps = bytes_per_ps;
    return static_cast<int32_t>(links_.size() - 1);
  }
  void set_rate(int32_t link, double bytes_per_ps) {
    links_[static_cast<size_t>(link)].bytes_per_ps = bytes_per_ps;
    change(link);
  }

  // The flow in `slot` begins to send.  No two flows have the same id.
  void begin(int32_t slot, int64_t id, double bytes, const std::vector<Leg>& legs) {
    if (static_cast<size_t>(slot) >= flows_.size()) flows_.resize(static_cast<size_t>(slot) + 1);
    Flow& flow = flows_[static_cast<size_t>(slot)];
    flow.rate = 0;
    flow.id = id;
    flow.bytes = bytes;
    flow.legs = legs;
    for (size_t i = 0; i < flow.legs.size(); ++i) {
      Link& link = links_[static_cast<size_t>(flow.legs[i].link)];
      flow.legs[i].place = static_cast<int32_t>(link.members.size());
      link.members.push_back({slot, static_cast<int32_t>(i)});
      change(flow.legs[i].link);
    }
    fresh_.push_back(slot);
  }
  // It has sent all, for `taken_ps`.
  void end(int32_t slot, int64_t taken_ps) {
    patience_ps_ = std::min(patience_ps_, tolerance_ * static_cast<double>(taken_ps));
    Flow& flow = flows_[static_cast<size_t>(slot)];
    for (const Leg& leg : flow.legs) {
      Link& link = links_[static_cast<size_t>(leg.link)];
      const Member last = link.members.back();
      link.members[static_cast<size_t>(leg.place)] = last;
      flows_[static_cast<size_t>(last.slot)].legs[static_cast<size_t>(last.leg)].place = leg.place;
      link.members.pop_back();
      change(leg.link);
    }
    flow.legs.clear();
  }

  // Whether a flow crosses the link now.
  bool crossed(int32_t link) const { return !links_[static_cast<size_t>(link)].members.empty(); }

  // Whether flows came or went in this instant.
  bool asks() const { return !recent_.empty(); }

  // At the end of an instant: gives every flow that its changes touch its rate, by calls of
  // `apply(slot, bytes_per_ps)`, but where these are many.  Returns after what time share() may follow
  // the one before, in ps: infinite where none is needed.
  template <class Apply>
  double settle(Apply&& apply) {
    const uint64_t first = stamp_ + 1;
    double patience_ps = patience_ps_;
    for (const int32_t number : recent_) {
      Link& link = links_[static_cast<size_t>(number)];
      link.recent = false;
      if (link.touched || link.seen >= first) continue;
      around_.clear();
      together_.clear();
      ++stamp_;
      reach(number);
      if (gather(first, kFew)) {
        fill();
        for (const int32_t slot : together_) apply(slot, flows_[static_cast<size_t>(slot)].rate);
      } else {
        touch(number);
      }
    }
    recent_.clear();
    for (const int32_t slot : fresh_) {
      const Flow& flow = flows_[static_cast<size_t>(slot)];
      if (flow.rate > 0) continue;
      double alone_ps = 0;
      for (const Leg& leg : flow.legs) {
        const Link& link = links_[static_cast<size_t>(leg.link)];
        alone_ps = std::max(
            alone_ps, flow.bytes * static_cast<double>(link.members.size()) / link.bytes_per_ps);
      }
      patience_ps = std::min(patience_ps, tolerance_ * alone_ps);
    }
    fresh_.clear();
    patience_ps_ = std::numeric_limits<double>::infinity();
    return touched_.empty() ? patience_ps_ : patience_ps;
  }

  // The rates of all flows that a change has touched.
  template <class Apply>
  void share(Apply&& apply) {
    around_.clear();
    together_.clear();
    ++stamp_;
    for (const int32_t number : touched_) {
      links_[static_cast<size_t>(number)].touched = false;
      reach(number);
    }
    touched_.clear();
    gather(stamp_, std::numeric_limits<size_t>::max());
    fill();
    for (const int32_t slot : together_) apply(slot, flows_[static_cast<size_t>(slot)].rate);
  }

  template <class A>
  void visit(A& archive) {
    archive(links_, flows_, touched_, recent_, fresh_, patience_ps_);
  }

 private:
  using Offer = std::pair<double, int32_t>;  // share, link: the least first, of equals the first
  struct Member {
    int32_t slot, leg;
  };
  struct Link {
    double bytes_per_ps = 0;
    std::vector<Member> members;
    // While shares are found: what is left for how many flows, of what weight.
    double left = 0, weight = 0;
    int32_t open = 0;
    uint64_t seen = 0;
    bool touched = false, recent = false;
    double share() const { return left > 0 ? left / weight : 0; }
    template <class A>
    void visit(A& archive) {
      archive(bytes_per_ps, members, touched, recent);
    }
  };
  struct Flow {
    double rate = 0, bytes = 0;
    int64_t id = 0;
    uint64_t seen = 0;
    bool open = false;
    Offer own;  // of the narrowest link that it has for itself
    std::vector<Leg> legs;
    template <class A>
    void visit(A& archive) {
      archive(rate, bytes, id, legs);
    }
  };
  static constexpr size_t kFew = 128;

  void change(int32_t number) {
    Link& link = links_[static_cast<size_t>(number)];
    if (!link.recent) recent_.push_back(number);
    link.recent = true;
  }
  void touch(int32_t number) {
    Link& link = links_[static_cast<size_t>(number)];
    if (!link.touched) touched_.push_back(number);
    link.touched = true;
  }

  // together_ and around_: the flows and links that are joined to those in around_.  False where
  // there are more than `most` flows, or those that such a search from `first` on has found.
  bool gather(uint64_t first, size_t most) {
    for (size_t i = 0; i < around_.size(); ++i) {
      for (const Member& member : links_[static_cast<size_t>(around_[i])].members) {
        Flow& flow = flows_[static_cast<size_t>(member.slot)];
        if (flow.seen == stamp_) continue;
        if (flow.seen >= first || together_.size() == most) return false;
        flow.seen = stamp_;
        together_.push_back(member.slot);
        for (const Leg& leg : flow.legs) reach(leg.link);
      }
    }
    return true;
  }
  void reach(int32_t number) {
    Link& link = links_[static_cast<size_t>(number)];
    if (link.seen == stamp_) return;
    link.seen = stamp_;
    around_.push_back(number);
  }

  // Sums of unequal numbers depend on the order of the terms.
  auto by_id() const {
    return [this](int32_t a, int32_t b) {
      return flows_[static_cast<size_t>(a)].id < flows_[static_cast<size_t>(b)].id;
    };
  }
  void fill() {
    offers_.clear();
    const Offer none{std::numeric_limits<double>::infinity(), -1};
    for (const int32_t slot : together_) {
      flows_[static_cast<size_t>(slot)].open = true;
      flows_[static_cast<size_t>(slot)].own = none;
    }
    for (const int32_t number : around_) {
      Link& link = links_[static_cast<size_t>(number)];
      link.left = link.bytes_per_ps;
      link.open = static_cast<int32_t>(link.members.size());
      link.weight = weight_of(link);
      const Offer offer{link.share(), number};
      if (link.open > 1) offers_.push_back(offer);
      // Of the links that a flow has for itself, which are many, the narrowest alone counts.
      if (link.open != 1) continue;
      Offer& own = flows_[static_cast<size_t>(link.members[0].slot)].own;
      own = std::min(own, offer);
    }
    for (const int32_t slot : together_)
      if (flows_[static_cast<size_t>(slot)].own != none)
        offers_.push_back(flows_[static_cast<size_t>(slot)].own);
    const auto later = std::greater<Offer>();
    std::make_heap(offers_.begin(), offers_.end(), later);
    while (!offers_.empty()) {
      const auto [offered, number] = offers_.front();
      std::pop_heap(offers_.begin(), offers_.end(), later);
      offers_.pop_back();
      Link& link = links_[static_cast<size_t>(number)];
      if (link.open == 0) continue;
      const double share = link.share();
      if (share > offered) {  // its flows got less elsewhere
        offers_.emplace_back(share, number);
        std::push_heap(offers_.begin(), offers_.end(), later);
        continue;
      }
      closing_.clear();
      for (const Member& member : link.members)
        if (flows_[static_cast<size_t>(member.slot)].open) closing_.push_back(member.slot);
      if (weighted_) std::sort(closing_.begin(), closing_.end(), by_id());
      for (const int32_t slot : closing_) close(slot, std::max(share, offered));
    }
  }
  void close(int32_t slot, double share) {
    Flow& flow = flows_[static_cast<size_t>(slot)];
    flow.open = false;
    flow.rate = share;
    for (const Leg& leg : flow.legs) {
      Link& link = links_[static_cast<size_t>(leg.link)];
      link.left -= leg.weight * share;
      link.weight -= leg.weight;
      --link.open;
    }
  }
  double weight_of(const Link& link) {
    if (!weighted_) return static_cast<double>(link.members.size());
    weights_.clear();
    for (const Member& member : link.members) {
      const Flow& flow = flows_[static_cast<size_t>(member.slot)];
      weights_.emplace_back(flow.id, flow.legs[static_cast<size_t>(member.leg)].weight);
    }
    std::sort(weights_.begin(), weights_.end());
    double sum = 0;
    for (const auto& [id, weight] : weights_) sum += weight;
    return sum;
  }

  std::vector<Link> links_;
  std::vector<Flow> flows_;
  double tolerance_;
  std::vector<int32_t> touched_;  // links with changes that wait for share()
  std::vector<int32_t> recent_, fresh_;  // links that changed, and flows that came, in this instant
  double patience_ps_ = std::numeric_limits<double>::infinity();  // for the flows that went in it
  std::vector<int32_t> around_, together_, closing_;
  std::vector<Offer> offers_;
  std::vector<std::pair<int64_t, double>> weights_;  // id, weight
  uint64_t stamp_ = 0;
  bool weighted_;
};

}  // namespace flow

#endif  // ASTRA_FLOW_SHARING_HPP
