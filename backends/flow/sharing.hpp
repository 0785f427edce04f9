// SPDX-License-Identifier: MIT
//
// Links shared max-min fairly by the flows that cross them, by progressive filling (Bertsekas and
// Gallager, "Data Networks", 2nd ed., 1992, section 6.5.2): the link with the least share for each
// of its flows is full; its flows get that share, everywhere; again, with what is left.
//
// No flow is faster than its cap, what the narrowest link of its way would give it alone.  A link
// that bears the caps of all its flows together holds none of them up: it is left out, and a flow
// with no other links has its cap at once.  The rest, the tight links, join flows to groups, and only
// the groups that a change can touch are looked at.  What a group gets depends on which flows it has,
// and not on how they came, so that a simulation that is cut into pieces gives the same bits.
//
// Shares are found at the end of every instant in which flows of a group came or went, where these
// are few.  Where they are many, one more or less changes little for each: shares are found again
// after `tolerance` of the time that the flows take, at the earliest.  Until then what the gone ones
// had stays unused, and those that came wait.  A change of a link counts at once.
#ifndef ASTRA_FLOW_SHARING_HPP
#define ASTRA_FLOW_SHARING_HPP

#include <algorithm>
#include <cmath>
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
  double weight;
};

class Sharing {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // `weighted`: legs may have weights other than 1.
  Sharing(bool weighted, double tolerance) : tolerance_(tolerance), weighted_(weighted) {}

  int32_t add_link(double bytes_per_ps) {
    links_.emplace_back();
    fills_.emplace_back();
    links_.back().bytes_per_ps = bytes_per_ps;
    links_.back().room = room_of(bytes_per_ps);
    return static_cast<int32_t>(links_.size() - 1);
  }
  void set_rate(int32_t number, double bytes_per_ps) {
    ++rates_set_;
    Link& link = at(number);
    link.bytes_per_ps = bytes_per_ps;
    link.room = room_of(bytes_per_ps);
    link.patience_ps = 0;
    weigh(link);
    change(number);
    const auto each_link = [&](auto&& visit) {
      for (const int32_t index : link.members) {
        Way& way = ways_[static_cast<size_t>(flow_at(index).way)];
        for (size_t i = 0; i < way.links.size(); ++i) visit(way, i);
      }
    };
    each_link([&](Way& way, size_t i) { at(way.links[i]).wanted -= units(way, i); });
    for (const int32_t index : link.members) {
      Way& way = ways_[static_cast<size_t>(flow_at(index).way)];
      find_cap(way);
      flow_at(index).cap = way.cap;
    }
    each_link([&](Way& way, size_t i) {
      Link& other = at(way.links[i]);
      other.wanted += units(way, i);
      weigh(other);
      other.patience_ps = 0;
      change(way.links[i]);
    });
  }

  // Which way flows of that number take; none may flow.
  void set_way(int32_t number, const std::vector<Leg>& legs) {
    if (static_cast<size_t>(number) >= ways_.size()) ways_.resize(static_cast<size_t>(number) + 1);
    Way& way = ways_[static_cast<size_t>(number)];
    way.links.clear();
    way.weights.clear();
    for (const Leg& leg : legs) {
      way.links.push_back(leg.link);
      if (weighted_) way.weights.push_back(leg.weight);
    }
    find_cap(way);
  }
  template <class Visit>
  void each_leg(int32_t number, Visit&& visit) const {
    const Way& way = ways_[static_cast<size_t>(number)];
    for (size_t i = 0; i < way.links.size(); ++i) visit(way.links[i], way.weight(i));
  }

  // A flow begins to send.  `slot` is what apply() calls it; no two flows have the same id.  Returns
  // its index.
  int32_t begin(int32_t slot, int64_t id, double bytes, int32_t number) {
    if (free_.empty()) {
      free_.push_back(static_cast<int32_t>(flows_.size()));
      flows_.emplace_back();
    }
    const int32_t index = free_.back();
    free_.pop_back();
    Way& way = ways_[static_cast<size_t>(number)];
    if (way.rates_set != rates_set_) find_cap(way);
    Flow& flow = flow_at(index);
    flow.slot = slot;
    flow.id = id;
    flow.bytes = bytes;
    flow.way = number;
    flow.tight = 0;
    for (size_t i = 0; i < way.links.size(); ++i) {
      Link& link = at(way.links[i]);
      link.members.push_back(index);
      link.wanted += units(way, i);
      if (link.tight)
        ++flow.tight;
      else
        weigh(link);
      if (link.tight) change(way.links[i]);
    }
    flow.cap = way.cap;
    flow.rate = flow.tight > 0 ? 0 : way.cap;
    if (flow.tight > 0) fresh_.push_back(index);
    return index;
  }
  // What a flow sends [bytes per ps]; 0 also where it is yet to be found.
  double rate(int32_t index) const { return flow_at(index).rate; }
  // The message of the flow has gone, another of the same way takes its place: nothing changes.
  void hand_over(int32_t index, int32_t slot, int64_t id, double bytes) {
    Flow& flow = flow_at(index);
    flow.slot = slot;
    flow.id = id;
    flow.bytes = bytes;
  }
  // It has sent all, for `taken_ps`.
  void end(int32_t index, int64_t taken_ps) {
    const double patience_ps = tolerance_ * static_cast<double>(taken_ps);
    const Way& way = way_of(index);
    for (size_t i = 0; i < way.links.size(); ++i) {
      Link& link = at(way.links[i]);
      *std::find(link.members.begin(), link.members.end(), index) = link.members.back();
      link.members.pop_back();
      link.wanted -= units(way, i);
      if (!link.tight) continue;
      weigh(link);
      link.patience_ps = std::min(link.patience_ps, patience_ps);
      change(way.links[i]);
    }
    free_.push_back(index);
  }

  // Whether a flow crosses the link now.
  bool crossed(int32_t link) const { return !links_[static_cast<size_t>(link)].members.empty(); }

  // Whether flows came or went in this instant where shares depend on it.
  bool asks() const { return !recent_.empty(); }

  // At the end of an instant: gives every flow that its changes touch its rate, by calls of
  // `apply(slot, bytes_per_ps)`, but where these are many.  Returns when share() is due, or kNever.
  template <class Apply>
  int64_t settle(int64_t now_ps, Apply&& apply) {
    const uint64_t first = stamp_ + 1;
    for (const int32_t number : recent_) {
      Link& link = at(number);
      link.recent = false;
      if (!link.many && link.seen < first && !simple(link, apply)) {
        seek(number);
        if (gather(first, kFew)) {
          fill();
          found(apply);
        } else {
          for (const int32_t other : around_) at(other).many = true;
        }
      }
      if (link.many)
        touch(number, now_ps);
      else
        link.patience_ps = kPatient;
    }
    recent_.clear();
    for (const int32_t index : fresh_) be_patient(index, now_ps);
    fresh_.clear();
    return due_ps_;
  }

  // The rates of all flows that changes have touched which are due.  Returns when it is due again.
  template <class Apply>
  int64_t share(int64_t now_ps, Apply&& apply) {
    const uint64_t first = stamp_ + 1;
    for (const int32_t number : touched_) {
      if (at(number).seen >= first || due_ps(at(number), now_ps) > now_ps) continue;
      seek(number);
      gather(first, std::numeric_limits<size_t>::max());
      fill();
      const bool many = together_.size() > kFew;
      for (const int32_t other : around_) {
        Link& link = at(other);
        link.many = many;
        link.touched = false;
        link.patience_ps = kPatient;
        link.shared_ps = now_ps;
      }
      found(apply);
    }
    const auto rest = std::remove_if(touched_.begin(), touched_.end(),
                                     [this](int32_t number) { return !at(number).touched; });
    touched_.erase(rest, touched_.end());
    due_ps_ = kNever;
    for (const int32_t number : touched_) due_ps_ = std::min(due_ps_, due_ps(at(number), now_ps));
    return due_ps_;
  }

  template <class A>
  void visit(A& archive) {
    archive(links_, ways_, flows_, free_, touched_, recent_, fresh_, due_ps_, rates_set_);
    if (A::kReads) fills_.resize(links_.size());
  }

 private:
  static constexpr double kPatient = std::numeric_limits<double>::infinity();
  using Offer = std::pair<double, int32_t>;  // share, link: the least first, of equals the first
  struct Link {
    double bytes_per_ps = 0;
    double room = 0, wanted = 0;  // and the caps of its flows, in whole units
    std::vector<int32_t> members;
    uint64_t seen = 0;
    bool tight = false;  // has several flows, whose caps it cannot bear together
    bool touched = false, recent = false;
    bool many = false;  // is of a group of more than kFew flows
    double patience_ps = kPatient;  // of what changed since
    int64_t shared_ps = -kNever;  // when shares of its group, of many flows, were found
    template <class A>
    void visit(A& archive) {
      archive(bytes_per_ps, members, room, wanted, patience_ps, shared_ps, tight, touched, recent,
              many);
    }
  };
  // Of a link, while shares are found: what is left for how many flows, of what weight.
  struct Fill {
    double left = 0, weight = 0;
    int32_t open = 0;
    double share() const { return left > 0 ? left / weight : 0; }
  };
  struct Way {
    double cap = 0, units = 0;  // of a flow, and in whole units
    int64_t rates_set = -1;  // when cap was found
    std::vector<int32_t> links;
    std::vector<double> weights;  // none: all 1
    double weight(size_t i) const { return weights.empty() ? 1 : weights[i]; }
    template <class A>
    void visit(A& archive) {
      archive(cap, units, rates_set, links, weights);
    }
  };
  struct Flow {
    double rate = 0, found = 0;
    double cap = 0;  // of its way
    uint64_t seen = 0;
    int32_t way = -1, slot = -1;
    int32_t tight = 0;  // links of its way
    bool open = false;
    int64_t id = 0;
    double bytes = 0;
    template <class A>
    void visit(A& archive) {
      archive(rate, cap, bytes, id, slot, way, tight);
    }
  };
  // A group of more flows is shared again after a while only.
  static constexpr size_t kFew = 128;
  // So many links are looked through for the least share; more are in a heap.
  static constexpr size_t kFewLinks = 16;
  // Caps are compared with what a link bears in whole units of kB/s, whose sums are exact whatever
  // the order.
  static constexpr double kUnits = 1e9, kMostUnits = 1e12;

  Fill& fill_at(int32_t number) { return fills_[static_cast<size_t>(number)]; }
  Link& at(int32_t number) { return links_[static_cast<size_t>(number)]; }
  const Link& at(int32_t number) const { return links_[static_cast<size_t>(number)]; }
  Flow& flow_at(int32_t index) { return flows_[static_cast<size_t>(index)]; }
  const Flow& flow_at(int32_t index) const { return flows_[static_cast<size_t>(index)]; }
  const Way& way_of(int32_t index) const { return ways_[static_cast<size_t>(flow_at(index).way)]; }

  // Rounded to the safe side, but for what is a whole number and a rounding error.
  static double room_of(double bytes_per_ps) {
    return std::min(std::floor(bytes_per_ps * kUnits + 1e-3), kMostUnits);
  }
  static double units_of(double bytes_per_ps) {
    return std::min(std::ceil(bytes_per_ps * kUnits - 1e-3), kMostUnits);
  }
  static double units(const Way& way, size_t i) {
    return way.weights.empty() ? way.units : units_of(way.cap * way.weights[i]);
  }
  void find_cap(Way& way) {
    way.rates_set = rates_set_;
    way.cap = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < way.links.size(); ++i)
      way.cap = std::min(way.cap, at(way.links[i]).bytes_per_ps / way.weight(i));
    way.units = units_of(way.cap);
  }
  // Finds whether the link is tight now; one that has a flow for itself is not.
  void weigh(Link& link) {
    const bool tight = link.members.size() > 1 && link.wanted > link.room;
    if (tight == link.tight) return;
    link.tight = tight;
    for (const int32_t index : link.members) flow_at(index).tight += tight ? 1 : -1;
  }
  void change(int32_t number) {
    Link& link = at(number);
    if (!link.recent) recent_.push_back(number);
    link.recent = true;
  }
  void touch(int32_t number, int64_t now_ps) {
    Link& link = at(number);
    if (!link.touched) touched_.push_back(number);
    link.touched = true;
    due_ps_ = std::min(due_ps_, due_ps(link, now_ps));
  }

  // A flow that may have to wait for its share.
  void be_patient(int32_t index, int64_t now_ps) {
    const Flow& flow = flow_at(index);
    if (flow.rate > 0) return;
    double alone_ps = 0;
    for (const int32_t number : way_of(index).links) {
      const Link& link = at(number);
      alone_ps = std::max(
          alone_ps, flow.bytes * static_cast<double>(link.members.size()) / link.bytes_per_ps);
    }
    for (const int32_t number : way_of(index).links) {
      Link& link = at(number);
      if (!link.touched) continue;
      link.patience_ps = std::min(link.patience_ps, tolerance_ * alone_ps);
      due_ps_ = std::min(due_ps_, due_ps(link, now_ps));
    }
  }
  static int64_t due_ps(const Link& link, int64_t now_ps) {
    const double due = static_cast<double>(link.shared_ps) + std::ceil(link.patience_ps);
    return due < 9e18 ? std::max(now_ps, static_cast<int64_t>(due)) : kNever;
  }
  // together_ and around_: the flows of one link, and the flows and tight links that are joined to
  // those; without flows that such a search from `first` on has found.  False where there are more
  // than `most` flows, or a link that is known to have many around it.
  void seek(int32_t number) {
    around_.clear();
    together_.clear();
    ++stamp_;
    reach(number);
  }
  bool gather(uint64_t first, size_t most) {
    for (size_t i = 0; i < around_.size(); ++i) {
      const Link& link = at(around_[i]);
      if (link.many && most == kFew) return false;
      for (const int32_t index : link.members) {
        Flow& flow = flow_at(index);
        if (flow.seen >= first) continue;
        if (together_.size() == most) return false;
        flow.seen = stamp_;
        together_.push_back(index);
        if (flow.tight <= (link.tight ? 1 : 0)) continue;
        for (const int32_t number : way_of(index).links)
          if (at(number).tight) reach(number);
      }
    }
    return true;
  }
  void reach(int32_t number) {
    Link& link = at(number);
    if (link.seen == stamp_) return;
    link.seen = stamp_;
    around_.push_back(number);
  }

  // Whether the link is the only tight one of all its flows, or none is, and these get equal shares
  // or their caps: then they have them now.
  template <class Apply>
  bool simple(Link& link, Apply&& apply) {
    if (link.members.size() > kFew) return false;
    const int32_t tight = link.tight ? 1 : 0;
    const double share =
        weighted_ || !link.tight ? 0 : link.bytes_per_ps / static_cast<double>(link.members.size());
    for (const int32_t index : link.members)
      if (flow_at(index).tight != tight || (link.tight && flow_at(index).cap < share)) return false;
    if (weighted_ && link.tight) return false;
    link.seen = ++stamp_;
    for (const int32_t index : link.members) {
      Flow& flow = flow_at(index);
      flow.seen = stamp_;
      flow.found = link.tight ? share : flow_at(index).cap;
      give(flow, apply);
    }
    return true;
  }
  template <class Apply>
  void found(Apply&& apply) {
    for (const int32_t index : together_) {
      give(flow_at(index), apply);
    }
  }

  template <class Apply>
  void give(Flow& flow, Apply&& apply) {
    if (flow.found == flow.rate) return;
    flow.rate = flow.found;
    apply(flow.slot, flow.rate);
  }

  // What each flow of the group gets, in `found`.
  void fill() {
    bool equal = true;
    for (const int32_t index : together_) {
      flow_at(index).open = true;
      equal &= flow_at(index).cap == flow_at(together_[0]).cap;
    }
    if (!equal || weighted_) {
      std::sort(together_.begin(), together_.end(), [this](int32_t a, int32_t b) {
        return std::pair(flow_at(a).cap, flow_at(a).id) < std::pair(flow_at(b).cap, flow_at(b).id);
      });
    }
    offers_.clear();
    for (const int32_t number : around_) {
      const Link& link = at(number);
      if (!link.tight) continue;
      Fill& fill = fill_at(number);
      fill.left = link.bytes_per_ps;
      fill.open = static_cast<int32_t>(link.members.size());
      fill.weight = weight_of(number);
      offers_.emplace_back(fill.share(), number);
    }
    const bool heap = offers_.size() > kFewLinks;
    const auto later = std::greater<Offer>();
    if (heap) std::make_heap(offers_.begin(), offers_.end(), later);
    size_t slowest = 0;  // of together_: those before it are closed
    while (!offers_.empty()) {
      // Shares only grow: an offer that is old is too small.
      const auto least = heap ? offers_.begin() : std::min_element(offers_.begin(), offers_.end());
      const auto [offered, number] = *least;
      for (; slowest < together_.size(); ++slowest) {
        const int32_t index = together_[slowest];
        const double cap = flow_at(index).cap;
        if (cap > offered) break;
        if (flow_at(index).open) close(index, cap);
      }
      const Fill& fill = fill_at(number);
      const double share = fill.share();
      if (fill.open > 0 && share > offered) {  // its flows got less elsewhere
        if (heap) std::pop_heap(offers_.begin(), offers_.end(), later);
        (heap ? offers_.back() : *least) = {share, number};
        if (heap) std::push_heap(offers_.begin(), offers_.end(), later);
        continue;
      }
      if (heap)
        std::pop_heap(offers_.begin(), offers_.end(), later);
      else
        *least = offers_.back();
      offers_.pop_back();
      if (fill.open == 0) continue;
      const double given = std::max(share, offered);
      if (!weighted_) {
        for (const int32_t index : at(number).members)
          if (flow_at(index).open) close(index, given);
        continue;
      }
      closing_.clear();
      for (const int32_t index : at(number).members)
        if (flow_at(index).open) closing_.push_back(index);
      // Sums of unequal numbers depend on the order of the terms.
      std::sort(closing_.begin(), closing_.end(),
                [this](int32_t a, int32_t b) { return flow_at(a).id < flow_at(b).id; });
      for (const int32_t index : closing_) close(index, given);
    }
    for (; slowest < together_.size(); ++slowest) {
      const int32_t index = together_[slowest];
      if (flow_at(index).open) flow_at(index).found = flow_at(index).cap;
    }
  }
  void close(int32_t index, double share) {
    Flow& flow = flow_at(index);
    flow.open = false;
    flow.found = share;
    const Way& way = way_of(index);
    if (!weighted_) {
      for (const int32_t number : way.links) {
        Fill& fill = fill_at(number);
        fill.left -= share;
        fill.weight -= 1;
        --fill.open;
      }
      return;
    }
    for (size_t i = 0; i < way.links.size(); ++i) {
      Fill& fill = fill_at(way.links[i]);
      fill.left -= way.weights[i] * share;
      fill.weight -= way.weights[i];
      --fill.open;
    }
  }
  double weight_of(int32_t number) {
    const Link& link = at(number);
    if (!weighted_) return static_cast<double>(link.members.size());
    weights_.clear();
    for (const int32_t index : link.members) {
      const Way& way = way_of(index);
      const auto leg = std::find(way.links.begin(), way.links.end(), number) - way.links.begin();
      weights_.emplace_back(flow_at(index).id, way.weights[static_cast<size_t>(leg)]);
    }
    std::sort(weights_.begin(), weights_.end());
    double sum = 0;
    for (const auto& [id, weight] : weights_) sum += weight;
    return sum;
  }

  std::vector<Link> links_;
  std::vector<Fill> fills_;  // of each link
  std::vector<Way> ways_;
  std::vector<Flow> flows_;
  std::vector<int32_t> free_;  // of flows_
  double tolerance_;
  std::vector<int32_t> touched_;  // links with changes that wait for share()
  std::vector<int32_t> recent_, fresh_;  // links that changed, and flows that came, in this instant
  std::vector<int32_t> around_, together_, closing_;
  std::vector<Offer> offers_;
  std::vector<std::pair<int64_t, double>> weights_;  // id, weight
  int64_t due_ps_ = kNever;  // when the first of touched_ is due
  int64_t rates_set_ = 0;  // how often
  uint64_t stamp_ = 0;
  bool weighted_;
};

}  // namespace flow

#endif  // ASTRA_FLOW_SHARING_HPP
