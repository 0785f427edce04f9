// SPDX-License-Identifier: MIT
//
// Several simulators on one clock: each carries the dimensions, or the links, that are its own, and a
// transfer that crosses several goes from one to the next at the rank between them.
//
// The clock is a co-simulation master without rollback (Blockwitz et al., "Functional Mockup Interface
// 2.0", Modelica 2012; here with events instead of steps): whoever has the earliest next event runs,
// up to the earliest of all others, so nobody is ever ahead of what another may still hand to it.
//
// With exchange(), simulators that share the order of one instant (ORDERED) keep it among themselves
// and with the host.  One that does not has the whole instant at once: what it still has to do there
// comes before all else, answers to its completions are handed to it before anything else happens,
// and what starts besides is handed to it when all others are done with the instant.  That is how a
// host runs it alone, so alone it gives the same.
//
// With folded ranks ("Folded ranks" in docs/contract.md) every part gets the option `fold`, and what it
// is given is turned until its destination is an endpoint that stands for others.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.hpp"
#include "astra_turns.hpp"
#include "borders.hpp"
#include "part.hpp"
#include "ways.hpp"

namespace composite {
namespace {

// Before and after all else of an instant; changes of links come before the first.
constexpr int64_t kFirst = -1, kLast = kNever - 1;

struct Key {
  int64_t time_ps, place;
  bool operator<(const Key& other) const {
    return std::pair(time_ps, place) < std::pair(other.time_ps, other.place);
  }
};
constexpr Key kNone{kNever, kNever};

class Composite final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "composite";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_LINK_FAULTS |
                        ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_ORDERED | ASTRA_NET_CAP_LEVELS |
                        ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 32;
    return info;
  }

  Composite(astra_net::Config& config, const astra_net::Log&) {
    const std::vector<astra_net::Part> given = config.take_parts();
    if (given.empty()) throw Error(ASTRA_NET_INVALID, "a composite network needs parts");
    ways_ = std::make_unique<Ways>(config, static_cast<int32_t>(given.size()));
    turns_ = astra_net::Turns(config.options.text("fold", ""), config.endpoints);
    border_bytes_ = config.options.integer("border_bytes", 16384, 0, int64_t{1} << 62);
    for (const astra_net::Part& part : given) {
      if (part.config->endpoints < config.endpoints)
        throw Error(ASTRA_NET_INVALID, part.backend + ": has fewer endpoints than the whole");
      sides_.push_back(std::make_unique<Side>(part, config.host));
      const Part& made = sides_.back()->part;
      if (!made.can(ASTRA_NET_CAP_PEEK))
        throw Error(ASTRA_NET_INVALID, part.backend + " cannot be a part: PEEK is not declared");
      if (turns_.any() && !sides_.back()->ordered)
        throw Error(ASTRA_NET_INVALID, part.backend + " cannot be folded: ORDERED is not declared");
    }
  }

  // A part that fails knows the transfers by other numbers than the host.
  template <class Body>
  auto named(Body&& body) {
    try {
      return body();
    } catch (const Error& error) {
      if (error.status != ASTRA_NET_MODEL) throw;
      throw Error(error.status, named_in_flight() + error.what(), -1, error.native_code);
    }
  }

  // -- the contract: submit and advance ------------------------------------------------------

  void start(const astra_net_transfer& transfer) override {
    now_ps_ = transfer.start_ps;
    begin(transfer);
  }

  astra_net::Reached run(int64_t until_ps) override {
    return named([&] { return run_parts(until_ps); });
  }
  astra_net::Reached run_parts(int64_t until_ps) {
    while (!interrupted()) {
      Side* side = nullptr;
      int64_t first_ps = kNever, second_ps = kNever;
      for (const auto& one : sides_) {
        hand_over(*one);
        const int64_t next_ps = one->part.peek();
        if (next_ps < first_ps) {
          second_ps = std::exchange(first_ps, next_ps);
          side = one.get();
        } else {
          second_ps = std::min(second_ps, next_ps);
        }
      }
      if (side == nullptr && !delivered_something()) say_who_is_stuck();
      const int64_t limit_ps = delivered_something() ? now_ps_ : until_ps;
      if (side == nullptr || first_ps > limit_ps) {
        if (limit_ps != kNever) now_ps_ = limit_ps;
        return {now_ps_, side == nullptr};
      }
      done_.clear();
      const bool whole = side->part.advance(std::min(limit_ps, second_ps), done_);
      if (whole && done_.empty() && side->part.peek() <= first_ps)
        side->part.lies("it stands still at " + std::to_string(first_ps) + " ps");
      for (const astra_net_completion& record : done_) {
        const Arrived arrived = arrive(*side, record);
        if (arrived.piece >= 0) {
          forward(arrived.piece, next_id_++, arrived.waited_ps);
        } else if (arrived.message != kNobody) {
          arrived.lost ? lose(arrived.message, now_ps_) : deliver(arrived.message, now_ps_);
        }
      }
    }
    return {now_ps_, false};
  }

  int64_t next_event_ps() override {
    int64_t next_ps = held_.empty() ? kNever : now_ps_;
    for (const auto& side : sides_)
      next_ps = std::min(next_ps, side->waiting.empty() ? side->part.peek() : now_ps_);
    return next_ps;
  }

  // -- the contract: exchange ----------------------------------------------------------------

  void exchange(astra_net_exchange& x) override {
    astra_net::check_place(x);
    named([&] { exchange_parts(x); });
  }
  void exchange_parts(astra_net_exchange& x) {
    exchanging_ = true;
    now_ps_ = x.now_ps;
    place_ = x.place;
    x.completion_count = 0;
    prompt_ = std::exchange(answer_, false) && x.now_ps == answer_ps_;
    for (size_t i = 0; i < x.start_count; ++i) begin(x.starts[i]);
    for (const auto& side : sides_)
      if (side->ordered || prompt_) hand_over(*side);
    take_held(x);
    const Key until{x.until_ps, x.until_place};
    while (held_.empty()) {
      Side* side = nullptr;
      Key next = kNone, second = kNone;
      for (const auto& one : sides_) {
        const Key key = key_of(*one);
        if (key < next) {
          second = std::exchange(next, key);
          side = one.get();
        } else if (key < second) {
          second = key;
        }
      }
      if (side == nullptr && x.completion_count == 0) say_who_is_stuck();
      if (!(next < until)) break;
      // The host answers first, unless all of the instant is at hand.
      if (x.completion_count > 0 && (side->ordered || next.time_ps > now_ps_ ||
                                     next.place == kLast || x.completion_count == x.capacity))
        break;
      if (!side->waiting.empty() && side->room && !side->ordered) {
        hand_over(*side);
        continue;
      }
      done_.clear();
      const int64_t before_ps = side->part.now_ps();
      const Key bound = std::min(until, second);
      bool whole = true;
      if (side->ordered) {
        call(*side, {}, bound, x.capacity - x.completion_count);
      } else {
        const int64_t until_ps = bound.place > kFirst ? bound.time_ps : bound.time_ps - 1;
        whole = side->part.advance(until_ps, done_);
      }
      if (whole && done_.empty() && side->part.now_ps() == before_ps && !(next < key_of(*side)))
        side->part.lies("it stands still at " + std::to_string(before_ps) + " ps");
      for (const astra_net_completion& record : done_) held_.push_back({side, record});
      take_held(x);
    }
    finish(x);
  }

  // -- the contract: what is optional --------------------------------------------------------

  int64_t link_count(int64_t) const override { return ways_->link_count(); }
  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) override {
    Side& side = *sides_[static_cast<size_t>(ways_->part_of_link(link))];
    side.part.set_link(ways_->own_number(link), at_ps, bandwidth_scale);
    if (side.next.time_ps >= at_ps) side.next = {at_ps, INT64_MIN};
  }
  void interrupt() noexcept override {
    for (const auto& side : sides_) side->part.interrupt();
  }

  std::string stats() override {
    std::string parts;
    for (const auto& side : sides_)
      parts += (parts.empty() ? "" : ", ") + ("{\"backend\": \"" + escaped(side->part.backend())) +
               "\", \"hops\": " + std::to_string(side->hops) +
               ", \"statistics\": " + side->part.stats() + "}";
    return "{\"transfers\": " + std::to_string(transfers_) +
           (turns_.any() ? ", \"fold_ties\": " + std::to_string(borders_.ties()) : "") +
           ", \"parts\": [" + parts + "]}";
  }

 private:
  static constexpr int64_t kNobody = INT64_MIN;

  struct Side {
    Side(const astra_net::Part& given, const astra_net_host* host)
        : part(given, host), ordered(part.can(ASTRA_NET_CAP_ORDERED)) {}
    Part part;
    const bool ordered;
    bool room = true;  // it took all that it was given last
    std::vector<astra_net_transfer> waiting;  // to be handed to it
    Key next = kNone;  // exchange() of an ordered one: its next event
    int64_t hops = 0;
  };
  struct Message {
    int64_t id, left_bytes;
    int32_t src, dst;
    uint32_t traffic_class;
    bool lost;
  };
  // What goes from part to part as one: a message, or some bytes of it.
  struct Piece {
    int32_t message;
    int32_t node;  // where its hop leads
    int64_t bytes;
  };
  // With folded ranks: what else is known of a piece.
  struct Trail {
    int64_t start_ps = -1;  // of its message,
    int64_t since_ps = -1;  // of this hop,
    int32_t from = -1;  // and where that began, as its part knows it
    bool forwarded = false;
  };
  struct Arrived {
    int32_t piece;  // that goes on, or -1
    int64_t message;  // the id of one that is there, or kNobody
    bool lost;
    int64_t
        waited_ps;  // with folded ranks: since its start, until the place of its arrival was drawn
  };
  struct Held {
    Side* side;
    astra_net_completion record;
  };

  template <class Item>
  struct Pool {
    std::vector<Item> items;
    std::vector<int32_t> free;
    int32_t add(const Item& item) {
      if (free.empty()) {
        items.push_back(item);
        return static_cast<int32_t>(items.size()) - 1;
      }
      const int32_t index = free.back();
      free.pop_back();
      items[static_cast<size_t>(index)] = item;
      return index;
    }
    Item& operator[](int32_t index) { return items[static_cast<size_t>(index)]; }
    const Item& operator[](int32_t index) const { return items[static_cast<size_t>(index)]; }
  };

  void begin(const astra_net_transfer& transfer) {
    ++transfers_;
    const int32_t message = messages_.add(
        {transfer.id, transfer.bytes, transfer.src, transfer.dst, transfer.traffic_class, false});
    const Hop hop = ways_->next(transfer.src, transfer.dst, transfer.src);
    // Only what crosses a border is cut for it.
    const bool whole = hop.to == transfer.dst || border_bytes_ == 0;
    if (turns_.any())
      borders_.starts(border(transfer.src, hop.part), now_ps_,
                      !whole && transfer.bytes > border_bytes_);
    int64_t id = exchanging_ ? transfer.id : next_id_++;
    for (int64_t left = transfer.bytes; left > 0;) {
      const int64_t bytes = whole ? left : std::min(left, border_bytes_);
      send(pieces_.add({message, hop.to, bytes}), hop.part, transfer.src, id);
      left -= bytes;
      if (left > 0) id = fresh_id();
    }
  }
  int64_t fresh_id() {
    if (!exchanging_) return next_id_++;
    return std::exchange(place_, place_ + ASTRA_NET_PLACES_PER_TRANSFER);
  }
  void send(int32_t piece, int32_t part, int32_t node, int64_t id) {
    Side& side = *sides_[static_cast<size_t>(part)];
    const Piece& what = pieces_[piece];
    const uint32_t given = messages_[what.message].traffic_class;
    const uint32_t kept =
        side.part.can(ASTRA_NET_CAP_LEVELS) ? std::min(given, side.part.traffic_classes() - 1) : 0;
    side.part.carried.insert(id, piece);
    const Message& message = messages_[what.message];
    const int32_t from = ways_->endpoint(node, message.src, message.dst);
    const int32_t to = ways_->endpoint(what.node, message.src, message.dst);
    if (side.part.now_ps() > now_ps_)
      side.part.lies("it is at " + std::to_string(side.part.now_ps()) +
                     " ps; another, whose peek was wrong, sends something at " +
                     std::to_string(now_ps_));
    side.waiting.push_back({id, now_ps_, what.bytes, from, to, kept, 0, 0});
    if (turns_.any()) turn(piece, side.waiting.back());
    ++side.hops;
  }
  // Folded ranks: in the form in which it ends at an endpoint that stands for others.
  void turn(int32_t piece, astra_net_transfer& hop) {
    const int32_t by = turns_.to(hop.dst);
    hop.src = turns_.back(hop.src, by);
    hop.dst = turns_.back(hop.dst, by);
    const auto index = static_cast<size_t>(piece);
    if (index >= trails_.size()) trails_.resize(pieces_.items.size());
    Trail& trail = trails_[index];
    trail.forwarded = trail.start_ps >= 0;
    if (!trail.forwarded) trail.start_ps = now_ps_;
    trail.since_ps = now_ps_;
    trail.from = hop.src;
  }
  // A node, of all that are alike, and the part that something goes over from there.
  int64_t border(int32_t node, int32_t part) const {
    return static_cast<int64_t>(node - turns_.to(node)) << 32 | part;
  }

  // From where it is to where its next hop leads.
  void forward(int32_t piece, int64_t id, int64_t waited_ps) {
    Piece& what = pieces_[piece];
    const Message& message = messages_[what.message];
    const int32_t node = what.node;
    const Hop hop = ways_->next(message.src, message.dst, node);
    what.node = hop.to;
    if (turns_.any()) {
      const Trail& trail = trails_[static_cast<size_t>(piece)];
      const int64_t drawn_ps = trail.start_ps + waited_ps;
      borders_.goes_on(border(node, hop.part), now_ps_, drawn_ps,
                       drawn_ps == trail.since_ps ? trail.from : -1);
    }
    send(piece, hop.part, node, id);
  }

  // The piece that a record is about.
  int32_t carried(Side& side, const astra_net_completion& record) const {
    const int32_t index = side.part.carried.find(record.id);
    const bool known = record.kind == ASTRA_NET_DELIVERED ||
                       (record.kind == ASTRA_NET_SENT && side.part.can(ASTRA_NET_CAP_SENT));
    if (index < 0 || !known || record.time_ps > side.part.now_ps() ||
        (record.kind == ASTRA_NET_DELIVERED && record.time_ps < now_ps_))
      side.part.lies("a record of transfer " + std::to_string(record.id) + ", kind " +
                     std::to_string(record.kind) + ", at " + std::to_string(record.time_ps) +
                     " ps; now is " + std::to_string(now_ps_));
    return index;
  }
  // A part says that something has arrived.
  Arrived arrive(Side& side, const astra_net_completion& record) {
    const int32_t index = carried(side, record);
    if (record.kind == ASTRA_NET_SENT) return {-1, kNobody, false, 0};
    side.part.carried.erase(record.id);
    side.room = true;
    now_ps_ = record.time_ps;
    const Piece piece = pieces_[index];
    Message& message = messages_[piece.message];
    const bool goes_on = record.outcome == 0 && piece.node != message.dst;
    const int64_t waited_ps = turns_.any() ? waited(side, record, index, goes_on) : 0;
    if (goes_on) return {index, kNobody, false, waited_ps};
    pieces_.free.push_back(index);
    message.left_bytes -= piece.bytes;
    message.lost = message.lost || record.outcome != 0;
    if (message.left_bytes > 0) return {-1, kNobody, false, 0};
    messages_.free.push_back(piece.message);
    return {-1, message.id, message.lost, waited_ps};
  }
  // With folded ranks: how long after the start of its message the place of an arrival was drawn.
  int64_t waited(const Side& side, const astra_net_completion& record, int32_t piece,
                 bool goes_on) {
    Trail& trail = trails_[static_cast<size_t>(piece)];
    if (record.reserved < 0 || record.reserved > record.time_ps - trail.since_ps)
      side.part.lies("it drew the place of a record " + std::to_string(record.reserved) +
                     " ps after the start of its transfer");
    const int64_t waited_ps = trail.since_ps - trail.start_ps + record.reserved;
    // Not its sender's own order, though it may look like that.
    if (waited_ps == 0 && trail.forwarded) borders_.doubt();
    if (!goes_on) trail = Trail();
    return waited_ps;
  }

  // Completions in order; a transfer that goes on draws a place, so the host answers first (the
  // rest is held until it has).
  void take_held(astra_net_exchange& x) {
    while (!held_.empty()) {
      const auto [side, record] = held_.front();
      const Piece& piece = pieces_[carried(*side, record)];
      const bool there = piece.node == messages_[piece.message].dst;
      if (x.completion_count > 0 && (!there || x.completion_count == x.capacity)) return;
      held_.pop_front();
      const Arrived arrived = arrive(*side, record);
      if (arrived.message != kNobody) {
        x.completions[x.completion_count++] = {arrived.message, now_ps_, ASTRA_NET_DELIVERED,
                                               arrived.lost ? ASTRA_NET_MODEL : 0,
                                               arrived.waited_ps};
        answer_ = answer_ || !side->ordered;
      }
      if (arrived.piece < 0) continue;
      forward(arrived.piece, fresh_id(), arrived.waited_ps);
      for (const auto& one : sides_) hand_over(*one);
    }
  }

  // To the part, in its own half of the contract.
  void hand_over(Side& side) {
    if (side.waiting.empty()) return;
    if (exchanging_ && side.ordered) {
      // Of cut messages, places were drawn among those of others.
      std::sort(side.waiting.begin(), side.waiting.end(),
                [](const auto& a, const auto& b) { return a.id < b.id; });
      std::vector<astra_net_transfer> starts = std::move(side.waiting);
      side.waiting.clear();
      call(side, starts, {now_ps_, INT64_MIN}, 1);
    } else if (side.room) {
      for (astra_net_transfer& one : side.waiting)
        one.start_ps = std::max(one.start_ps, side.part.now_ps());
      side.part.submit(side.waiting);
      side.room = side.waiting.empty();
    }
  }

  void call(Side& side, const std::vector<astra_net_transfer>& starts, Key until, size_t most) {
    done_.resize(std::max<size_t>(1, std::min<size_t>(most, 1024)));
    astra_net_exchange x{};
    x.starts = starts.data();
    x.start_count = starts.size();
    x.now_ps = std::max(now_ps_, side.part.now_ps());
    x.until_ps = std::max(until.time_ps, x.now_ps);
    x.until_place = until.place;
    x.place = place_;
    x.completions = done_.data();
    x.capacity = done_.size();
    side.part.exchange(x);
    done_.resize(x.completion_count);
    place_ = std::max(place_, x.place);
    side.next = x.next_ps == kNever ? kNone : Key{x.next_ps, x.next_place};
  }

  Key key_of(Side& side) {
    if (side.ordered) return side.next;
    Key key = kNone;
    if (!side.waiting.empty() && side.room) key = {now_ps_, prompt_ ? kFirst : kLast};
    const int64_t next_ps = side.part.peek();
    if (next_ps == kNever) return key;
    const bool begun = next_ps == side.part.now_ps() && !prompt_;
    return std::min(key, Key{next_ps, begun ? kLast : kFirst});
  }

  // No event is left anywhere: a part that still carries something knows why.
  void say_who_is_stuck() {
    for (const auto& side : sides_) {
      if (side->part.in_flight() == 0) continue;
      if (exchanging_ && side->ordered)
        call(*side, {}, kNone, 1);
      else
        side->part.advance(kNever, done_);
    }
  }
  std::string named_in_flight() const {
    std::vector<int64_t> ids;
    for (const Message& one : messages_.items)
      if (one.left_bytes > 0) ids.push_back(one.id);
    std::sort(ids.begin(), ids.end());
    std::string text = std::to_string(ids.size()) + " transfers are in flight: ";
    for (size_t i = 0; i < ids.size() && i < 4; ++i)
      text += (i > 0 ? ", " : "") + std::to_string(ids[i]);
    return text + (ids.size() > 4 ? ", ...; " : "; ");
  }

  void finish(astra_net_exchange& x) {
    Key next = held_.empty() ? kNone : Key{now_ps_, kFirst};
    for (const auto& side : sides_) next = std::min(next, key_of(*side));
    if (x.completion_count > 0) {
      x.stop = ASTRA_NET_STOP_COMPLETION;
      x.now_ps = answer_ps_ = now_ps_;
      // The host comes back at once with its answers.
      if (answer_) next = {now_ps_, kFirst};
    } else {
      x.stop = x.until_ps == kNever ? ASTRA_NET_STOP_IDLE : ASTRA_NET_STOP_REACHED;
      if (x.until_ps != kNever) now_ps_ = x.until_ps;
      x.now_ps = now_ps_;
    }
    x.place = place_;
    x.next_ps = next.time_ps;
    x.next_place = next.time_ps == kNever ? 0 : next.place;
  }

  static std::string escaped(const std::string& text) {
    std::string safe;
    for (const char c : text) {
      if (c == '"' || c == '\\') safe += '\\';
      if (static_cast<unsigned char>(c) >= 0x20) safe += c;
    }
    return safe;
  }

  std::unique_ptr<Ways> ways_;
  std::vector<std::unique_ptr<Side>> sides_;
  int64_t border_bytes_ = 0;
  astra_net::Turns turns_;  // by which endpoints stand for others
  Borders borders_;
  Pool<Message> messages_;
  Pool<Piece> pieces_;
  std::vector<Trail> trails_;  // of these, with folded ranks
  std::vector<astra_net_completion> done_;
  std::deque<Held> held_;  // completions of parts that the host has not seen
  int64_t now_ps_ = 0, place_ = 0, next_id_ = 0, transfers_ = 0;
  int64_t answer_ps_ = 0;  // time of the last completions
  bool exchanging_ = false;
  bool answer_ = false;  // they were, some of them, of a part without an order
  bool prompt_ = false;  // this exchange brings the answers to them
};

}  // namespace
}  // namespace composite

using composite::Composite;
ASTRA_NET_BACKEND(Composite)
