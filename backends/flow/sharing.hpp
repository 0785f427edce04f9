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
// A flow without tight links is sure to end when it is said to, until one of its links gets tight: then
// it is woken.  One that is over stays on its links, which costs nothing, until one of them would get
// tight by it, or its way has a next message.
//
// Shares are found at the end of every instant in which flows of a group came or went, where these
// are few.  Where they are many, one more or less changes little for each: shares are found again
// after `tolerance` of the time in which the group would send all its messages, at the earliest.
// Until then those that come get what is free on their ways, and no more than an equal share of each
// link.  A change of a link counts at once.
//
// Where one endpoint stands for many that are alike ("Folded ranks" in docs/contract.md), a link and a
// flow stand for one of each turn of the network, and shares are those of all.  Whether a group is one
// of many is then found by walking through the flows and links of all turns.  Where the flows of one
// group might not get the same bits in all turns, or something depends on an order, ties() counts it.
#ifndef ASTRA_FLOW_SHARING_HPP
#define ASTRA_FLOW_SHARING_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "astra_turns.hpp"

namespace flow {

// A part of a flow's way: the flow sends `weight` of its rate over this link; with folded ranks, over
// the one to which the turn `by` takes it.
struct Leg {
  int32_t link;
  double weight;
  int32_t by = 0;
};

// A few numbers, in the record of whom they are of, or more elsewhere.  In no order.
class Members {
 public:
  size_t size() const { return size_; }
  const int32_t* begin() const { return size_ > kFew ? more_.data() : few_.data(); }
  const int32_t* end() const { return begin() + size_; }
  // Whether these are the same ones; each has a number once.
  bool same(const Members& other) const {
    if (size_ != other.size_) return false;
    return std::all_of(begin(), end(), [&](int32_t number) {
      return std::find(other.begin(), other.end(), number) != other.end();
    });
  }
  void push(int32_t number) {
    if (size_ == kFew) more_.assign(few_.begin(), few_.end());
    if (size_ < kFew)
      few_[size_] = number;
    else
      more_.push_back(number);
    ++size_;
  }
  void remove(int32_t number) {
    int32_t* all = size_ > kFew ? more_.data() : few_.data();
    *std::find(all, all + size_, number) = all[size_ - 1];
    if (--size_ < kFew) return;
    more_.pop_back();
    if (size_ == kFew) std::copy_n(more_.begin(), kFew, few_.begin());
  }

  template <class A>
  void visit(A& archive) {
    std::vector<int32_t> all(begin(), end());
    archive(all);
    if (!A::kReads) return;
    *this = Members();
    for (const int32_t number : all) push(number);
  }

 private:
  static constexpr size_t kFew = 5;
  uint32_t size_ = 0;
  std::array<int32_t, kFew> few_{};
  std::vector<int32_t> more_;
};

class Sharing {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // `weighted`: legs may have weights other than 1.  `turns`: by which links stand for others.
  Sharing(bool weighted, double tolerance, astra_net::Turns turns)
      : tolerance_(tolerance),
        turns_(std::move(turns)),
        weighted_(weighted),
        folds_(turns_.any()) {}

  int32_t add_link(double bytes_per_ps) {
    links_.emplace_back();
    fills_.emplace_back();
    links_.back().bytes_per_ps = bytes_per_ps;
    links_.back().room = room_of(bytes_per_ps);
    return static_cast<int32_t>(links_.size() - 1);
  }
  void set_rate(int64_t now_ps, int32_t number, double bytes_per_ps) {
    ++rates_set_;
    Link& link = at(number);
    end_over(now_ps, link);
    for (const int32_t index : link.members)
      if (flow_at(index).end_ps != kNever) wake(index);
    link.bytes_per_ps = bytes_per_ps;
    link.room = room_of(bytes_per_ps);
    link.patience_ps = 0;
    weigh(now_ps, link);
    change(number, 0);
    const auto each_link = [&](auto&& visit) {
      for (const int32_t index : link.members) {
        const Way& way = way_of(index);
        const int32_t* links = links_of(way);
        for (int32_t i = 0; i < way.legs.count; ++i) visit(way, i, links[i]);
      }
    };
    each_link([&](const Way& way, int32_t i, int32_t other) { at(other).wanted -= units(way, i); });
    for (const int32_t index : link.members) {
      Way& way = ways_[static_cast<size_t>(flow_at(index).way)];
      find_cap(way);
      flow_at(index).cap = way.cap;
    }
    each_link([&](const Way& way, int32_t i, int32_t number_of_other) {
      Link& other = at(number_of_other);
      other.wanted += units(way, i);
      weigh(now_ps, other);
      other.patience_ps = 0;
      change(number_of_other, 0);
    });
  }

  // Which way flows of that number take; none may flow.
  void set_way(int32_t number, const std::vector<Leg>& legs) {
    if (static_cast<size_t>(number) >= ways_.size()) ways_.resize(static_cast<size_t>(number) + 1);
    if (folds_) {
      turns_of_ways_.resize(ways_.size());
      std::vector<int32_t>& turns = turns_of_ways_[static_cast<size_t>(number)];
      turns.clear();
      for (const Leg& leg : legs) turns.push_back(leg.by);
    }
    Way& way = ways_[static_cast<size_t>(number)];
    way.legs.count = static_cast<int32_t>(legs.size());
    const bool apart = weighted_ || legs.size() > Legs::kFew;
    if (apart && way.legs.count > way.room) {
      way.room = way.legs.count;
      way.first = static_cast<int32_t>(more_legs_.size());
      more_legs_.resize(more_legs_.size() + legs.size());
      if (weighted_) weights_.resize(more_legs_.size());
    }
    for (size_t i = 0; i < legs.size(); ++i) {
      if (legs.size() <= Legs::kFew) way.legs.few[i] = legs[i].link;
      if (!apart) continue;
      more_legs_[static_cast<size_t>(way.first) + i] = legs[i].link;
      if (weighted_) weights_[static_cast<size_t>(way.first) + i] = legs[i].weight;
    }
    find_cap(way);
  }
  template <class Visit>
  void each_leg(int32_t number, Visit&& visit) const {
    const Way& way = ways_[static_cast<size_t>(number)];
    const int32_t* links = links_of(way);
    for (int32_t i = 0; i < way.legs.count; ++i) visit(links[i], weight(way, i));
  }

  // A flow begins to send.  No two flows have the same id.  Returns what apply() calls it.
  int32_t begin(int64_t now_ps, int64_t id, double bytes, int32_t number) {
    if (free_.empty()) {
      free_.push_back(static_cast<int32_t>(flows_.size()));
      flows_.emplace_back();
      messages_.emplace_back();
      open_.push_back(0);
    }
    const int32_t index = free_.back();
    free_.pop_back();
    Way& way = ways_[static_cast<size_t>(number)];
    if (way.rates_set != rates_set_) find_cap(way);
    messages_[static_cast<size_t>(index)] = {id, bytes};
    Flow& flow = flow_at(index);
    flow.way = number;
    flow.legs = way.legs;
    flow.cap = way.cap;
    flow.tight = 0;
    flow.end_ps = kNever;
    const int32_t* links = links_of(flow);
    for (int32_t i = 0; i < flow.legs.count; ++i) {
      Link& link = at(links[i]);
      link.members.push(index);
      link.wanted += units(way, i);
      if (link.tight)
        ++flow.tight;
      else
        weigh(now_ps, link);
      if (link.tight)
        change(links[i], link.bytes_per_ps / static_cast<double>(link.members.size()));
    }
    flow.held_by = -1;
    flow.rate = flow.tight > 0 ? 0 : way.cap;
    if (flow.tight > 0) fresh_.push_back(index);
    return index;
  }
  // What a flow sends [bytes per ps]; 0 also where it is yet to be found.
  double rate(int32_t index) const { return flow_at(index).rate; }
  // The message of the flow has gone, another of the same way takes its place: nothing changes.
  void hand_over(int32_t index, int64_t id, double bytes) {
    messages_[static_cast<size_t>(index)] = {id, bytes};
  }
  // Whether the links of a flow bear all that cross them: it has its cap.
  bool is_loose(int32_t index) const { return flow_at(index).tight == 0 && flow_at(index).cap > 0; }
  // A flow that is loose will have sent all at that time, if nothing is said of it until then: it is
  // sure.  After that it is over: it stays on its links, where it touches nobody, until it is said
  // to send again, or is ended.
  void set_sure(int32_t index, int64_t end_ps) {
    Flow& flow = flow_at(index);
    flow.rate = flow.cap;
    flow.held_by = -1;
    flow.end_ps = end_ps;
  }
  int64_t end_ps(int32_t index) const { return flow_at(index).end_ps; }
  bool is_over(int32_t index, int64_t now_ps) const { return flow_at(index).end_ps <= now_ps; }
  void wake(int32_t index) {
    flow_at(index).end_ps = kNever;
    woken_.push_back(index);
  }
  // What begin(), set_rate() and wake() found: sure flows whose rates may change from now on, and those that
  // were over and are no more.
  template <class Woken, class Ended>
  void tell(Woken&& woken, Ended&& ended) {
    for (const int32_t index : woken_) woken(index);
    woken_.clear();
    for (const int32_t index : ended_) ended(index);
    ended_.clear();
  }

  // It has sent all.
  void end(int32_t index) {
    const Flow& flow = flow_at(index);
    const Way& way = ways_[static_cast<size_t>(flow.way)];
    const int32_t* links = links_of(flow);
    for (int32_t i = 0; i < flow.legs.count; ++i) {
      Link& link = at(links[i]);
      link.members.remove(index);
      link.wanted -= units(way, i);
      if (!link.tight) continue;
      weigh(kNever, link);
      change(links[i], flow.rate);
    }
    free_.push_back(index);
  }

  // Whether a flow crosses the link now.
  bool crossed(int32_t link, int64_t now_ps) const {
    const Members& members = links_[static_cast<size_t>(link)].members;
    return std::any_of(members.begin(), members.end(),
                       [&](int32_t index) { return !is_over(index, now_ps); });
  }

  // With folded ranks: how many flows cross the link, and how often it is not known that all turns of
  // one got the same.
  size_t flows(int32_t link) const { return at(link).members.size(); }
  int64_t ties() const { return ties_; }

  // Whether flows came or went in this instant where shares depend on it.
  bool asks() const { return !recent_.empty(); }

  // At the end of an instant: gives every flow that its changes touch its rate, by calls of
  // `apply(index, bytes_per_ps)`, but where these are many.  Returns when share() is due, or kNever.
  template <class Apply>
  int64_t settle(int64_t now_ps, Apply&& apply) {
    const uint64_t first = stamp_ + 1;
    double least = weighted_ ? 0 : kAll;
    for (const int32_t number : recent_) {
      least = std::min(least, at(number).least);
      at(number).least = kAll;
    }
    for (const int32_t number : recent_) {
      Link& link = at(number);
      link.recent = false;
      if (!link.many && link.seen < first && (folds_ || !simple(number, link, apply))) {
        seek(number);
        int32_t met = -1;
        if (gather(least, kFew, met)) {
          if (folds_ || !fill_few()) fill(weighted_);
          give(apply);
        } else {
          join(met);
        }
      }
      if (link.many)
        touch(number, now_ps);
      else
        link.patience_ps = 0;
    }
    recent_.clear();
    for (const int32_t index : fresh_) start(index, apply);
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
      int32_t met = -1;
      gather(0, std::numeric_limits<size_t>::max(), met);
      const bool many = together_.size() > kFew || (folds_ && are_many(number, 0));
      fill(true);
      const double patience_ps = many ? tolerance_ * turnover_ps() : 0;
      for (const int32_t other : around_) {
        Link& link = at(other);
        link.many = many;
        link.touched = false;
        link.patience_ps = patience_ps;
        link.shared_ps = now_ps;
      }
      give(apply);
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
    archive(links_, ways_, more_legs_, weights_, flows_, messages_, free_, touched_, recent_,
            fresh_, due_ps_, rates_set_);
    if (!A::kReads) return;
    fills_.resize(links_.size());
    open_.resize(flows_.size());
  }

 private:
  static constexpr double kAll = std::numeric_limits<double>::infinity();
  using Offer = std::pair<double, int32_t>;  // share, link: the least first, of equals the first
  struct alignas(64) Link {
    double bytes_per_ps = 0;
    double room = 0, wanted = 0;  // and the caps of its flows, in whole units
    uint64_t seen = 0;
    bool tight = false;  // has several flows, whose caps it cannot bear together
    bool touched = false, recent = false;
    bool many = false;  // is of a group of more than kFew flows,
    Members members;
    double least = kAll;  // no flow that is slower is touched by what changed
    double patience_ps = 0;  // whose shares are kept so long,
    int64_t shared_ps = -kNever;  // since they were found
    template <class A>
    void visit(A& archive) {
      archive(bytes_per_ps, room, wanted, members, least, patience_ps, shared_ps, tight, touched,
              recent, many);
    }
  };
  // The links of a way: a few here, more in more_legs_.
  struct Legs {
    static constexpr size_t kFew = 6;
    int32_t count = 0;
    std::array<int32_t, kFew> few{};
  };
  struct alignas(64) Way {
    double cap = 0, units = 0;  // of a flow, and in whole units
    int64_t rates_set = -1;  // when cap was found
    int32_t first = 0, room = 0;  // in more_legs_
    Legs legs;
    template <class A>
    void visit(A& archive) {
      archive(cap, units, rates_set, first, room, legs);
    }
  };
  struct alignas(64) Flow {
    double rate = 0, cap = 0;  // and that of its way
    int64_t end_ps = kNever;  // where it is sure
    int32_t way = -1;
    int32_t tight = 0;  // links of its way
    int32_t held_by = -1;  // the link that gives it no more; none where it has its cap
    Legs legs;
    template <class A>
    void visit(A& archive) {
      archive(rate, cap, end_ps, way, tight, held_by, legs);
    }
  };
  struct Message {
    int64_t id = 0;
    double bytes = 0;
    template <class A>
    void visit(A& archive) {
      archive(id, bytes);
    }
  };
  // Of a link, while shares are found: what is left for how many flows, of what weight if not each 1.
  struct Fill {
    double left = 0, weight = 0;
    double offered = 0;  // the last share that it was known to have
    int32_t open = 0;
    double share(bool weighted) const { return left > 0 ? left / (weighted ? weight : open) : 0; }
  };
  // A group of more flows is shared again after a while only.
  static constexpr size_t kFew = 512;
  // So many flows of a link are compared with those of other links.
  static constexpr size_t kFewAlike = 8;
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
  int64_t id_of(int32_t index) const { return messages_[static_cast<size_t>(index)].id; }
  uint16_t& open(int32_t index) { return open_[static_cast<size_t>(index)]; }
  const int32_t* links_of(const Way& way) const {
    return static_cast<size_t>(way.legs.count) <= Legs::kFew ? way.legs.few.data()
                                                             : more_legs_.data() + way.first;
  }
  const int32_t* links_of(const Flow& flow) const {
    return static_cast<size_t>(flow.legs.count) <= Legs::kFew
               ? flow.legs.few.data()
               : links_of(ways_[static_cast<size_t>(flow.way)]);
  }
  double weight(const Way& way, int32_t i) const {
    return weighted_ ? weights_[static_cast<size_t>(way.first) + static_cast<size_t>(i)] : 1;
  }

  // Rounded to the safe side, but for what is a whole number and a rounding error.
  static double room_of(double bytes_per_ps) {
    return std::min(std::floor(bytes_per_ps * kUnits + 1e-3), kMostUnits);
  }
  static double units_of(double bytes_per_ps) {
    return std::min(std::ceil(bytes_per_ps * kUnits - 1e-3), kMostUnits);
  }
  double units(const Way& way, int32_t i) const {
    return weighted_ ? units_of(way.cap * weight(way, i)) : way.units;
  }
  void find_cap(Way& way) {
    way.rates_set = rates_set_;
    way.cap = std::numeric_limits<double>::infinity();
    const int32_t* links = links_of(way);
    for (int32_t i = 0; i < way.legs.count; ++i)
      way.cap = std::min(way.cap, at(links[i]).bytes_per_ps / weight(way, i));
    way.units = units_of(way.cap);
  }
  // Finds whether the link is tight now; one that has a flow for itself is not.
  static bool is_tight(const Link& link) {
    return link.members.size() > 1 && link.wanted > link.room;
  }
  void weigh(int64_t now_ps, Link& link) {
    bool tight = is_tight(link);
    if (tight == link.tight) return;
    if (tight) {
      end_over(now_ps, link);
      tight = is_tight(link);
      if (!tight) return;
    }
    link.tight = tight;
    for (const int32_t index : link.members) {
      Flow& flow = flow_at(index);
      flow.tight += tight ? 1 : -1;
      if (flow.end_ps != kNever) wake(index);
    }
  }
  // Ends the flows of a link that are over.
  void end_over(int64_t now_ps, const Link& link) {
    for (size_t i = link.members.size(); i-- > 0;) {
      const int32_t index = link.members.begin()[i];
      if (!is_over(index, now_ps)) continue;
      ended_.push_back(index);
      end(index);
    }
  }
  // Flows that are slower than `least` are not touched by the change.
  void change(int32_t number, double least) {
    Link& link = at(number);
    if (!link.recent) recent_.push_back(number);
    link.recent = true;
    link.least = std::min(link.least, least);
  }
  void touch(int32_t number, int64_t now_ps) {
    Link& link = at(number);
    if (!link.touched) touched_.push_back(number);
    link.touched = true;
    const int64_t due = due_ps(link, now_ps);
    due_ps_ = std::min(due_ps_, due);
    // The last bit of how long shares are kept depends on the order of all flows; and so does who
    // gets what is free meanwhile.
    ties_ += folds_ && due > now_ps;
  }
  static int64_t due_ps(const Link& link, int64_t now_ps) {
    const double due = static_cast<double>(link.shared_ps) + std::ceil(link.patience_ps);
    return due < 9e18 ? std::max(now_ps, static_cast<int64_t>(due)) : kNever;
  }

  // A flow that would wait until shares are found gets what is free.
  template <class Apply>
  void start(int32_t index, Apply&& apply) {
    Flow& flow = flow_at(index);
    if (flow.rate > 0) return;
    double most = flow.cap;
    const Way& way = ways_[static_cast<size_t>(flow.way)];
    const int32_t* links = links_of(flow);
    for (int32_t i = 0; i < flow.legs.count; ++i) {
      const double free = most_of(links[i], at(links[i])) / weight(way, i);
      if (!(free < most)) continue;
      if (!(free > 1e-3 * flow.cap)) return;
      most = free;
      flow.held_by = links[i];
    }
    flow.rate = most;
    apply(index, most);
  }
  // What is free of a link, and no more than an equal share of it.
  double most_of(int32_t number, const Link& link) const {
    double left = link.bytes_per_ps;
    for (const int32_t index : link.members) left -= flow_at(index).rate * weight_on(index, number);
    return std::min(left, link.bytes_per_ps / static_cast<double>(link.members.size()));
  }
  double weight_on(int32_t index, int32_t number) const {
    if (!weighted_) return 1;
    const Way& way = way_of(index);
    const int32_t* links = links_of(way);
    return weight(way,
                  static_cast<int32_t>(std::find(links, links + way.legs.count, number) - links));
  }

  // together_ and around_: the flows of one link whose rates a change may touch, and the tight links
  // of these, and so on.  Filling goes as before up to the rate `least`; so a flow that is no faster
  // and is held up by a link elsewhere stays as it is.  False where there are more than `most` flows,
  // or a link that is known to have many around it, which is then `met`.
  void seek(int32_t number) {
    around_.assign(1, number);
    together_.clear();
    at(number).seen = ++stamp_;
  }
  bool gather(double least, size_t most, int32_t& met) {
    Link* const all = links_.data();
    const Flow* const flows = flows_.data();
    uint16_t* const open = open_.data();
    const uint64_t stamp = stamp_;
    for (size_t i = 0; i < around_.size(); ++i) {
      const int32_t number = around_[i];
      const Link& link = all[number];
      if (link.many && most == kFew) {
        met = number;
        return give_up();
      }
      const double stays = link.tight ? least : kAll;
      const int32_t alone = link.tight ? 1 : 0;
      for (const int32_t index : link.members) {
        if (open[index] != 0) continue;
        const Flow& flow = flows[index];
        if (flow.tight == 0 && flow.rate == flow.cap) continue;
        if (untouched(flow, number, stays)) continue;
        // Whether that link holds it up, or the same one of another turn, is not known.
        ties_ += folds_ && flow.rate > 0 && flow.rate <= stays && crossings(flow, number) > 1;
        if (together_.size() == most) return give_up();
        together_.push_back(index);
        open[index] = static_cast<uint16_t>(std::min(together_.size(), size_t{UINT16_MAX}));
        if (flow.tight <= alone) continue;
        const int32_t* links = links_of(flow);
        for (int32_t leg = 0; leg < flow.legs.count; ++leg) {
          Link& other = all[links[leg]];
          if (other.seen == stamp || !other.tight) continue;
          other.seen = stamp;
          around_.push_back(links[leg]);
        }
      }
    }
    return !folds_ || most != kFew || !are_many(around_[0], least) || give_up();
  }
  // A flow that is no faster than what a change leaves alone, and is held up by another link.
  static bool untouched(const Flow& flow, int32_t number, double least) {
    return flow.rate <= least && flow.rate > 0 && flow.held_by != number;
  }
  int64_t crossings(const Flow& flow, int32_t number) const {
    const int32_t* links = links_of(flow);
    return std::count(links, links + flow.legs.count, number);
  }
  // With folded ranks: whether what gather() has found are more than kFew flows of all ranks.
  bool are_many(int32_t number, double least) {
    using Turned = std::pair<int32_t, int32_t>;  // a link or flow, and the turn that takes it there
    std::set<Turned> flows, links{{number, 0}};
    std::vector<Turned> ahead{{number, 0}};
    for (size_t i = 0; i < ahead.size(); ++i) {
      const auto [here, by] = ahead[i];
      const Link& link = at(here);
      for (const int32_t index : link.members) {
        const Flow& flow = flow_at(index);
        if (untouched(flow, here, link.tight ? least : kAll)) continue;
        const int32_t* legs = links_of(flow);
        const std::vector<int32_t>& turns = turns_of_ways_[static_cast<size_t>(flow.way)];
        for (size_t leg = 0; leg < turns.size(); ++leg) {
          if (legs[leg] != here) continue;
          const int32_t turn = turns_.back(by, turns[leg]);
          if (!flows.emplace(index, turn).second) continue;
          if (flows.size() > kFew) return true;
          if (flow.tight <= (link.tight ? 1 : 0)) continue;
          for (size_t other = 0; other < turns.size(); ++other) {
            const Turned next{legs[other], turns_.turned(turn, turns[other])};
            if (at(legs[other]).tight && links.insert(next).second) ahead.push_back(next);
          }
        }
      }
    }
    return false;
  }
  bool give_up() {
    for (const int32_t index : together_) open(index) = 0;
    return false;
  }
  // These links are of a group of many: of the one of `met`, or of a new one, which is due now.
  void join(int32_t met) {
    for (const int32_t number : around_) {
      Link& link = at(number);
      if (link.many) continue;
      link.many = true;
      link.patience_ps = met < 0 ? 0 : at(met).patience_ps;
      if (met >= 0) link.shared_ps = at(met).shared_ps;
    }
  }
  // How long together_ takes for all it sends.
  double turnover_ps() const {
    double bytes = 0, bytes_per_ps = 0;
    for (const int32_t index : together_) {
      bytes += messages_[static_cast<size_t>(index)].bytes;
      bytes_per_ps += flow_at(index).rate;
    }
    return bytes_per_ps > 0 ? bytes / bytes_per_ps : 0;
  }

  // Whether the flows of a link share all their tight links with each other and nobody else, or have
  // none, and get equal shares or their caps: then they have them now.
  template <class Apply>
  bool simple(int32_t number, Link& link, Apply&& apply) {
    const size_t count = link.members.size();
    if (count == 0) return true;
    if (count > (link.tight ? kFewAlike : kFew) || (weighted_ && link.tight)) return false;
    const int32_t* const members = link.members.begin();
    const Flow& first = flow_at(members[0]);
    if (!link.tight && first.tight > 0) return false;
    double least_cap = first.cap;
    for (size_t i = 1; i < count; ++i) {
      const Flow& flow = flow_at(members[i]);
      if (flow.tight != first.tight) return false;
      least_cap = std::min(least_cap, flow.cap);
    }
    double narrowest = link.bytes_per_ps;
    int32_t holds = link.tight ? number : -1;
    bool alike = true;
    if (first.tight > 1) {
      const int32_t* links = links_of(first);
      for (int32_t i = 0; i < first.legs.count; ++i) {
        const Link& other = at(links[i]);
        if (!other.tight || links[i] == number) continue;
        if (other.many || !other.members.same(link.members)) return false;
        alike &= other.bytes_per_ps == narrowest;
        if (other.bytes_per_ps > narrowest) continue;
        if (other.bytes_per_ps == narrowest && links[i] > holds) continue;
        narrowest = other.bytes_per_ps;
        holds = links[i];
      }
    }
    const double share = narrowest / static_cast<double>(count);
    if (link.tight && least_cap < share) return false;
    link.seen = ++stamp_;
    if (first.tight > 1) {
      const int32_t* links = links_of(first);
      for (int32_t i = 0; i < first.legs.count; ++i)
        if (at(links[i]).tight) at(links[i]).seen = stamp_;
    }
    for (size_t i = 0; i < count; ++i) {
      Flow& flow = flow_at(members[i]);
      const double found = link.tight ? share : flow.cap;
      flow.held_by = alike && first.tight > 1 ? first_tight(flow) : holds;
      if (found == flow.rate) continue;
      flow.rate = found;
      apply(members[i], found);
    }
    return true;
  }

  // What each flow of the group gets; given_ has those that had another rate.
  void fill(bool all) {
    given_.clear();
    bool equal = true;
    const double cap_of_first = together_.empty() ? 0 : flow_at(together_[0]).cap;
    for (const int32_t index : together_) equal &= flow_at(index).cap == cap_of_first;
    if (!equal || weighted_) sort_by_cap();
    offers_.clear();
    for (const int32_t number : around_) {
      const Link& link = at(number);
      if (!link.tight) continue;
      Fill& fill = fill_at(number);
      fill.left = link.bytes_per_ps;
      fill.open = static_cast<int32_t>(link.members.size());
      if (weighted_) fill.weight = weight_of(number);
      if (!all) leave_out(link, fill);
      fill.offered = fill.share(weighted_);
      if (fill.open > 0) offers_.emplace_back(fill.offered, number);
    }
    if (!weighted_ && fill_alike()) return;
    const bool heap = offers_.size() > kFewLinks;
    if (heap)
      for (size_t i = offers_.size() / 2; i-- > 0;) sink(i);
    size_t slowest = 0;  // of together_: those before it are closed
    while (!offers_.empty()) {
      // Shares only grow: an offer that is old is too small.
      const auto least = heap ? offers_.begin() : std::min_element(offers_.begin(), offers_.end());
      const auto [offered, number] = *least;
      for (; slowest < together_.size(); ++slowest) {
        const int32_t index = together_[slowest];
        const double cap = flow_at(index).cap;
        if (cap > offered) break;
        if (open(index)) close(index, cap, -1);
      }
      Fill& fill = fill_at(number);
      const double share = fill.share(weighted_);
      if (fill.open > 0 && share > offered) {  // its flows got less elsewhere
        least->first = fill.offered = share;
        if (heap) sink(0);
        continue;
      }
      *least = offers_.back();
      offers_.pop_back();
      if (heap && !offers_.empty()) sink(0);
      if (fill.open == 0) continue;
      const double given = std::max(share, offered);
      if (!weighted_) {
        close_all(number, given);
        continue;
      }
      closing_.clear();
      for (const int32_t index : at(number).members)
        if (open(index)) closing_.push_back(index);
      // Sums of unequal numbers depend on the order of the terms.
      std::sort(closing_.begin(), closing_.end(),
                [this](int32_t a, int32_t b) { return id_of(a) < id_of(b); });
      for (const int32_t index : closing_) close(index, given, number);
    }
    for (; slowest < together_.size(); ++slowest) {
      const int32_t index = together_[slowest];
      if (!open(index)) continue;
      open(index) = 0;
      found(index, flow_at(index).cap, -1);
    }
  }
  // The same where there are so few flows and links that all is kept at hand, in a few numbers; false
  // where there are more.
  bool fill_few() {
    constexpr size_t kMost = 16;
    const size_t count = together_.size();
    if (weighted_ || count > kMost || around_.size() > kMost) return false;
    struct {
      double left, offered;
      uint32_t open, flows;  // how many, and which
      int32_t number;
    } links[kMost];
    size_t used = 0;
    for (const int32_t number : around_) {
      const Link& link = at(number);
      if (!link.tight) continue;
      if (link.members.size() > 2 * kMost) return false;
      auto& one = links[used];
      one = {link.bytes_per_ps, 0, 0, 0, number};
      std::array<double, 2 * kMost> stay;
      size_t stays = 0;
      for (const int32_t index : link.members) {
        if (const uint16_t place = open(index); place > 0) {
          one.flows |= 1u << (place - 1);
          ++one.open;
          continue;
        }
        // In the order in which a filling of all would close them: the slowest first.
        const double rate = flow_at(index).rate;
        size_t hole = stays++;
        for (; hole > 0 && stay[hole - 1] > rate; --hole) stay[hole] = stay[hole - 1];
        stay[hole] = rate;
      }
      if (one.open == 0) continue;
      for (size_t i = 0; i < stays; ++i) one.left -= stay[i];
      one.offered = one.left > 0 ? one.left / one.open : 0;
      ++used;
    }
    given_.clear();
    bool alike = used > 0;
    for (size_t i = 1; i < used; ++i) alike &= links[i].offered == links[0].offered;
    if (alike && give_alike(links[0].offered)) return true;
    uint32_t rest = (1u << count) - 1;
    const auto close = [&](size_t place, double share, int32_t number) {
      rest &= ~(1u << place);
      open(together_[place]) = 0;
      found(together_[place], share, number);
      for (size_t i = 0; i < used; ++i) {
        if ((links[i].flows >> place & 1) == 0) continue;
        links[i].left -= share;
        --links[i].open;
      }
    };
    std::array<double, kMost> caps;
    double least_cap = kAll;
    for (size_t i = 0; i < count; ++i) {
      caps[i] = flow_at(together_[i]).cap;
      least_cap = std::min(least_cap, caps[i]);
    }
    while (rest != 0) {
      size_t best = 0;
      for (size_t i = 1; i < used; ++i)
        if (links[i].offered < links[best].offered ||
            (links[i].offered == links[best].offered && links[i].number < links[best].number))
          best = i;
      const double offered = used > 0 ? links[best].offered : kAll;
      while (least_cap <= offered) {  // the slowest, if any, have their caps
        for (size_t i = 0; i < count; ++i)
          if ((rest >> i & 1) != 0 && caps[i] == least_cap) close(i, least_cap, -1);
        double next = kAll;
        for (size_t i = 0; i < count; ++i)
          if ((rest >> i & 1) != 0) next = std::min(next, caps[i]);
        if (rest == 0) return true;
        least_cap = next;
      }
      auto& one = links[best];
      const double share = one.left > 0 ? one.left / one.open : 0;
      if (one.open > 0 && share > offered) {  // its flows got less elsewhere
        one.offered = share;
        continue;
      }
      const double given = std::max(share, offered);
      const uint32_t flows = one.flows & rest;
      const int32_t number = one.number;
      one = links[--used];
      for (size_t i = 0; i < count; ++i)
        if ((flows >> i & 1) != 0) close(i, given, number);
    }
    return true;
  }
  // Where all links of the group have the same share for each of their flows, which could all bear
  // it, all flows get it: whatever order the links are filled in, but for rounding.
  bool fill_alike() {
    if (offers_.empty()) return false;
    const double share = offers_[0].first;
    for (const Offer& offer : offers_)
      if (offer.first != share) return false;
    return give_alike(share);
  }
  bool give_alike(double share) {
    for (const int32_t index : together_)
      if (flow_at(index).tight > 0 && flow_at(index).cap < share) return false;
    for (const int32_t index : together_) {
      open(index) = 0;
      const int32_t held_by = first_tight(flow_at(index));
      found(index, held_by < 0 ? flow_at(index).cap : share, held_by);
    }
    return true;
  }
  int32_t first_tight(const Flow& flow) const {
    if (flow.tight == 0) return -1;
    const int32_t* link = links_of(flow);
    while (!at(*link).tight) ++link;
    return *link;
  }
  // What is left to the others by those whose rates stay.  These are the slowest, and are taken away
  // in the order in which a filling of all would close them.
  void leave_out(const Link& link, Fill& fill) {
    stay_.clear();
    for (const int32_t index : link.members)
      if (!open(index)) stay_.push_back(flow_at(index).rate);
    if (stay_.empty()) return;
    if (stay_.size() > 1) std::sort(stay_.begin(), stay_.end());
    for (const double rate : stay_) fill.left -= rate;
    const auto count = static_cast<int32_t>(stay_.size());
    fill.open -= count;
  }
  void sort_by_cap() {
    by_cap_.clear();
    for (const int32_t index : together_)
      by_cap_.emplace_back(flow_at(index).cap, id_of(index), index);
    std::sort(by_cap_.begin(), by_cap_.end());
    for (size_t i = 0; i < together_.size(); ++i) together_[i] = std::get<2>(by_cap_[i]);
  }
  // The offer goes down the heap to its place.
  void sink(size_t hole) {
    const Offer offer = offers_[hole];
    for (size_t child; (child = 2 * hole + 1) < offers_.size(); hole = child) {
      if (child + 1 < offers_.size() && offers_[child + 1] < offers_[child]) ++child;
      if (!(offers_[child] < offer)) break;
      offers_[hole] = offers_[child];
    }
    offers_[hole] = offer;
  }
  // All flows of a link that are open get that share.
  void close_all(int32_t number, double share) {
    uint16_t* const open = open_.data();
    for (const int32_t index : at(number).members) {
      if (open[index] == 0) continue;
      open[index] = 0;
      if (folds_) note_closing(flow_at(index), share, number);
      found(index, share, number);
      take(flow_at(index), share);
    }
  }
  // Takes the share of a flow from its links.
  void take(const Flow& flow, double share) {
    Fill* const fills = fills_.data();
    const int32_t* links = links_of(flow);
    const int32_t count = flow.legs.count;
    for (int32_t i = 0; i < count; ++i) {
      Fill& fill = fills[links[i]];
      fill.left -= share;
      --fill.open;
    }
  }
  void close(int32_t index, double share, int32_t number) {
    open(index) = 0;
    if (folds_ && number >= 0) note_closing(flow_at(index), share, number);
    found(index, share, number);
    const Flow& flow = flow_at(index);
    if (!weighted_) return take(flow, share);
    const int32_t* links = links_of(flow);
    const Way& way = ways_[static_cast<size_t>(flow.way)];
    for (int32_t i = 0; i < flow.legs.count; ++i) {
      Fill& fill = fill_at(links[i]);
      fill.left -= weight(way, i) * share;
      fill.weight -= weight(way, i);
      --fill.open;
    }
  }
  // With folded ranks: a link gives its share to a flow.  Its turns do so one after the other; where
  // one changes what is left of another, or of a link that has its turn among them, the last bit may
  // depend on the order.
  void note_closing(const Flow& flow, double share, int32_t number) {
    ties_ += crossings(flow, number) > 1;
    const int32_t* links = links_of(flow);
    for (int32_t i = 0; i < flow.legs.count; ++i) {
      const Link& link = at(links[i]);
      ties_ += links[i] != number && link.tight && link.seen == stamp_ &&
               fill_at(links[i]).offered <= share;
    }
  }
  void found(int32_t index, double share, int32_t number) {
    Flow& flow = flow_at(index);
    flow.held_by = number;
    if (flow.rate == share) return;
    flow.rate = share;
    given_.push_back(index);
  }
  template <class Apply>
  void give(Apply&& apply) {
    for (const int32_t index : given_) apply(index, flow_at(index).rate);
  }
  double weight_of(int32_t number) {
    const Link& link = at(number);
    terms_.clear();
    for (const int32_t index : link.members)
      terms_.emplace_back(id_of(index), weight_on(index, number));
    std::sort(terms_.begin(), terms_.end());
    double sum = 0;
    for (const auto& [id, weight] : terms_) sum += weight;
    return sum;
  }

  std::vector<Link> links_;
  std::vector<Fill> fills_;  // of each link
  std::vector<Way> ways_;
  std::vector<int32_t> more_legs_;
  std::vector<double> weights_;  // of these, where they differ
  std::vector<Flow> flows_;
  std::vector<Message> messages_;  // of each flow
  std::vector<uint16_t> open_;  // of each flow: its share is yet to be found
  std::vector<int32_t> free_;  // of flows_
  double tolerance_;
  astra_net::Turns turns_;
  std::vector<std::vector<int32_t>> turns_of_ways_;  // with folded ranks: of each leg
  std::vector<int32_t> touched_;  // links with changes that wait for share()
  std::vector<int32_t> recent_, fresh_;  // links that changed, and flows that came, in this instant
  std::vector<int32_t> woken_, ended_;  // what tell() tells
  std::vector<int32_t> around_, together_, closing_, given_;
  std::vector<Offer> offers_;
  std::vector<double> stay_;
  std::vector<std::tuple<double, int64_t, int32_t>> by_cap_;
  std::vector<std::pair<int64_t, double>> terms_;  // id, weight
  int64_t due_ps_ = kNever;  // when the first of touched_ is due
  int64_t rates_set_ = 0;  // how often
  uint64_t stamp_ = 0;
  int64_t ties_ = 0;
  bool weighted_, folds_;
};

}  // namespace flow

#endif  // ASTRA_FLOW_SHARING_HPP
