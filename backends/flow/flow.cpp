// SPDX-License-Identifier: MIT
//
// Flows: every transfer is a fluid that takes its way at once, and links are shared max-min fairly
// by the flows that cross them (sharing.hpp).  What packets add is counted where it is simple: their
// headers on the wire, one packet's time at every link but the narrowest, the latency of the way,
// and that messages between two endpoints go one after another, as on a queue pair.
//
// A transfer of `bytes` is bytes + ceil(bytes / mtu) * header on the wire.  It has left the narrowest
// link when that many bytes have flowed, and is there after the latencies of its way and one packet's
// time at each of the other links.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "astra_flat_map.hpp"
#include "astra_load.hpp"
#include "astra_net.hpp"
#include "events.hpp"
#include "link_index.hpp"
#include "link_list.hpp"
#include "sharing.hpp"
#include "topology.hpp"

namespace {

using analytical::Dimensions;
using analytical::Ends;
using analytical::Hop;
using analytical::LinkIndex;
using analytical::LinkList;
using analytical::Position;
using analytical::Rate;
using astra_net::Error;
using astra_net::kNever;
using flow::Event;
using flow::Events;
using flow::Leg;
using flow::Sharing;

class Flow final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "flow";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT |
                        ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION |
                        ASTRA_NET_CAP_ORDERED | ASTRA_NET_CAP_SAVE | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Flow(astra_net::Config& config, const astra_net::Log&) {
    mtu_bytes_ = config.options.integer("mtu_bytes", 4096, 1, int64_t{1} << 40);
    header_bytes_ = config.options.integer("header_bytes", 82, 0, 1 << 20);
    queue_pairs_ = config.options.integer("queue_pairs", 1, 1, 1 << 20);
    round_trips_ = config.options.number("start_up_round_trips", 0, 0, 1e6);
    if (analytical::has_dimensions(config))
      dimensions_.emplace(config, false);
    else
      graph_.emplace(config);
    const double tolerance = config.options.number("tolerance", 0.1, 0, 1);
    sharing_.emplace(graph_ && graph_->by_message(), tolerance);
    index_.emplace(link_count(0));
    load_ = astra_net::LinkLoad(astra_net::sample_interval_ps(config.options));
  }

  // -- the contract: submit and advance ------------------------------------------------------

  void start(const astra_net_transfer& transfer) override {
    now_ps_ = transfer.start_ps;
    begin(transfer);
  }

  astra_net::Reached run(int64_t until_ps) override {
    const Key& next = next_;
    for (settled(); !interrupted(); settled()) {
      if (next.time_ps == kNever || next.time_ps > until_ps ||
          (delivered_something() && next.time_ps > now_ps_)) {
        if (until_ps != kNever && !delivered_something()) now_ps_ = until_ps;
        break;
      }
      const int64_t id = step();
      if (id != kNobody) deliver(id, now_ps_);
    }
    return {now_ps_, next.time_ps == kNever && !sharing_->asks()};
  }

  // -- the contract: exchange ----------------------------------------------------------------

  // Events of a transfer have its own places, so that none is ever drawn.
  void exchange(astra_net_exchange& x) override {
    astra_net::check_place(x);
    catch_up(x.now_ps);
    now_ps_ = x.now_ps;
    for (size_t i = 0; i < x.start_count; ++i) begin(x.starts[i]);
    x.completion_count = 0;
    const Key& next = next_;
    for (settled(); next.time_ps != kNever; settled()) {
      if (next.time_ps > x.until_ps ||
          (next.time_ps == x.until_ps && next.place() >= x.until_place))
        break;
      if (x.completion_count > 0 && (next.time_ps > now_ps_ || x.completion_count == x.capacity))
        break;
      const int64_t id = step();
      if (id != kNobody)
        x.completions[x.completion_count++] = {id, now_ps_, ASTRA_NET_DELIVERED, 0, 0};
    }
    if (x.completion_count > 0) {
      x.stop = ASTRA_NET_STOP_COMPLETION;
      x.now_ps = now_ps_;
    } else if (next.time_ps == kNever && x.until_ps == kNever) {
      x.stop = ASTRA_NET_STOP_IDLE;
      x.now_ps = now_ps_;
    } else {
      x.stop = ASTRA_NET_STOP_REACHED;
      x.now_ps = now_ps_ = x.until_ps;
    }
    x.next_ps = next.time_ps;
    x.next_place = next.time_ps == kNever ? 0 : next.place();
  }

  // -- the contract: what is optional --------------------------------------------------------

  int64_t link_count(int64_t) const override {
    return dimensions_ ? dimensions_->link_count() : graph_->link_count();
  }
  // Shares of this instant are found when it is left.
  int64_t next_event_ps() override { return sharing_->asks() ? now_ps_ : next_key().time_ps; }
  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) override {
    if (at_ps == kNever)
      throw Error(ASTRA_NET_INVALID, "at_ps=" + std::to_string(at_ps) + " is never");
    const Change change{at_ps, changed_++, link, bandwidth_scale};
    next_known_ = false;
    changes_.insert(std::upper_bound(changes_.begin() + static_cast<std::ptrdiff_t>(next_change_),
                                     changes_.end(), change),
                    change);
  }
  std::unique_ptr<astra_net::Model> copy() const override { return std::make_unique<Flow>(*this); }
  void save(astra::Writer& archive) override { visit(archive); }
  void load(astra::Reader& archive) override { visit(archive); }

  std::string stats() override {
    std::string link, src, dst, bytes, busy;
    std::vector<std::pair<int64_t, const Link*>> used;
    std::vector<Link> links = links_;
    for (size_t i = 0; i < connections_.size(); ++i)
      if (connections_[i].pair >= 0) count(links, static_cast<int32_t>(i));
    for (const Link& one : links)
      if (one.bytes > 0) used.emplace_back(one.number, &one);
    std::sort(used.begin(), used.end());
    std::vector<std::pair<int64_t, size_t>> counted;
    for (const auto& [number, one] : used) {
      counted.emplace_back(number, static_cast<size_t>(one - links.data()));
      const Ends ends = dimensions_ ? dimensions_->ends(number) : graph_->ends(number);
      const char* comma = link.empty() ? "" : ",";
      link += comma + std::to_string(number);
      src += comma + std::to_string(ends.src);
      dst += comma + std::to_string(ends.dst);
      bytes += comma + std::to_string(std::llround(one->bytes));
      busy += comma + std::to_string(whole_ps(one->wire_bytes / one->bytes_per_ps));
    }
    return "{\"transfers\": " + std::to_string(transfers_) +
           ", \"bytes\": " + std::to_string(bytes_) +
           ", \"sharings\": " + std::to_string(sharings_) + ", " + load_.interval_json() +
           "\"tables\": {\"links\": {\"link\": [" + link + "], \"src\": [" + src + "], \"dst\": [" +
           dst + "], \"bytes\": [" + bytes + "], \"busy_ps\": [" + busy + "]}" +
           load_.table_json(counted) + "}}";
  }

  std::string where_stuck() const override {
    std::string text;
    int named = 0;
    std::vector<int64_t> down;
    for (size_t i = 0; i < links_.size(); ++i)
      if (links_[i].scale == 0 && sharing_->crossed(static_cast<int32_t>(i)))
        down.push_back(links_[i].number);
    std::sort(down.begin(), down.end());
    for (const int64_t number : down) {
      if (++named > 4) break;
      const Ends ends = dimensions_ ? dimensions_->ends(number) : graph_->ends(number);
      text += (text.empty() ? "waiting for link " : ", ") + std::to_string(number) + " (" +
              std::to_string(ends.src) + " -> " + std::to_string(ends.dst) + ")";
    }
    return text.empty() ? text : "(" + text + (named > 4 ? ", ..." : "") + ", which is down)";
  }

 private:
  enum class Stage : int32_t { kWaits, kBegins, kFlows, kArrives, kShares };
  static constexpr int64_t kNobody = INT64_MIN;
  static constexpr int64_t kMostIdle = 1 << 16;  // pairs at rest whose ways are kept
  static constexpr size_t kFewEvents = 64;

  // When and in which order things happen.  Changes of links come before all else of their instant.
  struct Key {
    int64_t time_ps, id;
    Stage stage;
    bool change = false;
    int32_t slot = -1;
    int64_t place() const { return change ? INT64_MIN + id : id + static_cast<int32_t>(stage); }
  };
  struct Message {
    int64_t id = 0, bytes = 0;
    double left = 0;  // bytes that have not left the narrowest link at since_ps
    int64_t since_ps = 0, began_ps = 0;
    int64_t time_ps = kNever;  // of its next event,
    int64_t queued_ps = kNever;  // and that of events_, which may be too early
    double rate = 0;  // [bytes per ps]
    int32_t connection = 0;
    int32_t flow = -1;  // of sharing_
    int32_t after = -1;  // the next one of its connection, or of the list of free ones
    Stage stage = Stage::kWaits;
    template <class A>
    void visit(A& archive) {
      archive(id, bytes, left, since_ps, began_ps, time_ps, queued_ps, rate, connection, flow,
              after, stage);
    }
  };
  // A pair of endpoints with messages between them, or where there were some: its way is kept.
  struct Connection {
    int64_t pair = 0;
    int64_t flowing = 0;  // messages that flow, at most queue_pairs_
    int32_t first = -1, last = -1;  // those that wait
    double latency_ps = 0;
    double per_byte_ps = 0;  // of one packet, at all links but the narrowest
    double bytes = 0, wire_bytes = 0;  // of its messages that began
    template <class A>
    void visit(A& archive) {
      archive(pair, flowing, first, last, latency_ps, per_byte_ps, bytes, wire_bytes);
    }
  };
  struct Link {
    int64_t number = 0;
    double bytes_per_ps = 0, scale = 1;
    double bytes = 0, wire_bytes = 0;  // of messages that began, of pairs that are forgotten
    template <class A>
    void visit(A& archive) {
      archive(number, bytes_per_ps, scale, bytes, wire_bytes);
    }
  };
  struct Change {
    int64_t at_ps, index;
    int32_t link;
    double scale;
    bool operator<(const Change& other) const {
      return std::pair(at_ps, index) < std::pair(other.at_ps, other.index);
    }
    template <class A>
    void visit(A& archive) {
      archive(at_ps, index, link, scale);
    }
  };

  template <class A>
  void visit(A& archive) {
    archive(now_ps_, share_ps_, links_, messages_, free_message_, connections_, free_connections_,
            idle_, events_, changes_, next_change_, changed_, *sharing_, transfers_, bytes_,
            sharings_, load_);
    if (!A::kReads) return;
    next_known_ = false;
    index_->insert_all(links_);
    for (size_t i = 0; i < connections_.size(); ++i)
      if (connections_[i].pair >= 0) pairs_.insert(connections_[i].pair, static_cast<int32_t>(i));
  }

  static int64_t whole_ps(double delay_ps) {
    if (!(delay_ps < 9.2e18)) {
      char number[32];
      std::snprintf(number, sizeof number, "%.6g", delay_ps);
      throw Error(ASTRA_NET_MODEL,
                  std::string("a delay, ") + number + " ps, is beyond the range of time (2^63 ps)");
    }
    return static_cast<int64_t>(std::ceil(delay_ps));
  }

  Message& message(int32_t slot) { return messages_[static_cast<size_t>(slot)]; }
  const Message& message(int32_t slot) const { return messages_[static_cast<size_t>(slot)]; }

  // -- events ----------------------------------------------------------------------------------

  // Begins, ends of flows and arrivals.  A flow that became slower is put off when its end comes up;
  // the old end of one that became faster is passed over.
  void schedule(int32_t slot, int64_t time_ps) {
    Message& one = message(slot);
    one.time_ps = time_ps;
    next_known_ = false;
    if (one.queued_ps <= time_ps) return;
    one.queued_ps = time_ps;
    events_.push(kind_of(one), {time_ps, place_of(one), slot});
    if (events_.size() > 2 * messages_.size() + kFewEvents) {
      events_.keep([this](const Event& event) {
        return holds(event) ? kind_of(message(event.slot)) : Events::kKinds;
      });
    }
  }
  static size_t kind_of(const Message& one) { return static_cast<size_t>(one.stage); }
  static int64_t place_of(const Message& one) { return one.id + static_cast<int32_t>(one.stage); }
  bool holds(const Event& event) const {
    const Message& one = message(event.slot);
    return one.queued_ps == event.time_ps && place_of(one) == event.place;
  }

  // What happens next; found again only after something has changed.
  const Key& next_key() {
    if (next_known_) return next_;
    next_known_ = true;
    Key& next = next_;
    next = {kNever, 0, Stage::kWaits};
    while (!events_.empty()) {
      const Event first = events_.first();
      Message& one = message(first.slot);
      if (!holds(first)) {
        events_.pop();
      } else if (one.time_ps == first.time_ps) {
        next = {first.time_ps, one.id, one.stage, false, first.slot};
        break;
      } else {
        one.queued_ps = one.time_ps;
        if (one.time_ps == kNever)
          events_.pop();
        else
          events_.replace_first(kind_of(one), {one.time_ps, first.place, first.slot});
      }
    }
    if (next_change_ < changes_.size() && changes_[next_change_].at_ps <= next.time_ps)
      next = {changes_[next_change_].at_ps, changes_[next_change_].index, Stage::kWaits, true};
    if (share_ps_ < next.time_ps) next = {share_ps_, astra_net::kMostPlace, Stage::kShares};
    return next;
  }

  // What happens next.  Where that is after this instant, rates are found, if they are due, or it is
  // decided when they will be.
  const Key& settled() {
    const Key& next = next_key();
    if (!sharing_->asks() || next.time_ps <= now_ps_) return next;
    ++sharings_;
    share_ps_ =
        sharing_->settle(now_ps_, [this](int32_t slot, double rate) { set_rate(slot, rate); });
    next_known_ = false;
    return next_key();
  }
  void share() {
    ++sharings_;
    share_ps_ =
        sharing_->share(now_ps_, [this](int32_t slot, double rate) { set_rate(slot, rate); });
  }

  // What happens next happens; returns the id of a transfer that has arrived, or kNobody.
  int64_t step() {
    const Key& next = next_;
    next_known_ = false;
    now_ps_ = next.time_ps;
    if (next.change) {
      const Change& change = changes_[next_change_++];
      const int32_t index = link_state(change.link);
      Link& link = links_[static_cast<size_t>(index)];
      link.scale = change.scale;
      sharing_->set_rate(index, link.bytes_per_ps * change.scale);
      if (next_change_ == changes_.size()) {
        changes_.clear();
        next_change_ = 0;
      }
      return kNobody;
    }
    if (next.stage == Stage::kShares) {
      share();
      return kNobody;
    }
    const int32_t slot = next.slot;
    Message& one = message(slot);
    if (one.stage == Stage::kFlows) {
      leave(slot);
      return kNobody;
    }
    events_.pop();
    one.time_ps = one.queued_ps = kNever;
    if (one.stage == Stage::kBegins) {
      flow_now(slot);
      return kNobody;
    }
    one.after = free_message_;
    free_message_ = slot;
    return one.id;
  }

  // A host that does not know of changes of links may come back after them.
  void catch_up(int64_t now_ps) {
    const Key& next = next_;
    for (settled(); next.time_ps < now_ps; settled()) {
      if (!next.change)
        throw Error(ASTRA_NET_INVALID, "now_ps=" + std::to_string(now_ps) +
                                           " is past the next event, at " +
                                           std::to_string(next.time_ps));
      step();
    }
  }

  // -- the way of a message --------------------------------------------------------------------

  void begin(const astra_net_transfer& transfer) {
    ++transfers_;
    astra_net::add_bytes(bytes_, transfer.bytes);
    const int32_t index = connection_of(transfer.src, transfer.dst);
    const int32_t slot = allocate();
    Message& one = message(slot);
    one = {};
    one.id = transfer.id;
    one.bytes = transfer.bytes;
    one.connection = index;
    Connection& connection = connections_[static_cast<size_t>(index)];
    if (connection.flowing < queue_pairs_) {
      if (connection.flowing++ == 0) --idle_;
      set_out(slot);
      return;
    }
    (connection.first < 0 ? connection.first : message(connection.last).after) = slot;
    connection.last = slot;
  }

  // It is its turn on a queue pair.
  void set_out(int32_t slot) {
    Message& one = message(slot);
    const Connection& connection = connections_[static_cast<size_t>(one.connection)];
    const double delay_ps = round_trips_ * 2 * connection.latency_ps;
    if (delay_ps == 0) return flow_now(slot);
    one.stage = Stage::kBegins;
    schedule(slot, astra_net::add_ps(now_ps_, whole_ps(delay_ps)));
  }
  void flow_now(int32_t slot) {
    Message& one = message(slot);
    send(one);
    one.flow = sharing_->begin(slot, one.id, one.left, one.connection);
    set_rate(slot, sharing_->rate(one.flow));
  }
  // All that a message has to send, from now on.
  void send(Message& one) {
    Connection& connection = connections_[static_cast<size_t>(one.connection)];
    one.stage = Stage::kFlows;
    one.left = wire_bytes_of(one);
    one.since_ps = one.began_ps = now_ps_;
    one.rate = 0;
    connection.bytes += static_cast<double>(one.bytes);
    connection.wire_bytes += one.left;
  }

  // Its last byte has left the narrowest link.
  void leave(int32_t slot) {
    Message& one = message(slot);
    if (load_.on()) record(one, one.left);
    const int32_t index = one.connection;
    Connection& connection = connections_[static_cast<size_t>(index)];
    const auto packet_bytes = static_cast<double>(std::min(one.bytes, mtu_bytes_) + header_bytes_);
    const double delay_ps = connection.latency_ps + packet_bytes * connection.per_byte_ps;
    one.stage = Stage::kArrives;
    one.time_ps = one.queued_ps = astra_net::add_ps(now_ps_, whole_ps(delay_ps));
    events_.replace_first(kind_of(one), {one.time_ps, place_of(one), slot});
    const int32_t next = connection.first;
    if (next >= 0) {
      connection.first = message(next).after;
      if (connection.first < 0) connection.last = -1;
      if (round_trips_ * connection.latency_ps == 0) return follow(next, one.flow);
    }
    sharing_->end(one.flow, now_ps_ - one.began_ps);
    if (next >= 0) return set_out(next);
    if (--connection.flowing > 0) return;
    if (++idle_ > kMostIdle) forget(index);
  }
  // The message goes the way of one that has just left, as fast as that: no other flow is touched.
  void follow(int32_t slot, int32_t flow) {
    Message& one = message(slot);
    send(one);
    one.flow = flow;
    sharing_->hand_over(flow, slot, one.id, one.left);
    set_rate(slot, sharing_->rate(flow));
  }

  void set_rate(int32_t slot, double rate) {
    Message& one = message(slot);
    if (one.rate == rate) return;
    const double left =
        std::max(0.0, one.left - one.rate * static_cast<double>(now_ps_ - one.since_ps));
    if (load_.on()) record(one, one.left - left);
    one.left = left;
    one.since_ps = now_ps_;
    one.rate = rate;
    if (rate > 0)
      schedule(slot, astra_net::add_ps(now_ps_, whole_ps(one.left / rate)));
    else
      one.time_ps = kNever;
    next_known_ = false;
  }

  // What a message has put on its links since its rate was found [bytes with headers].
  void record(const Message& one, double wire_bytes) {
    if (!(wire_bytes > 0)) return;
    const double share = static_cast<double>(one.bytes) / wire_bytes_of(one);
    sharing_->each_leg(one.connection, [&](int32_t number, double weight) {
      const auto count = static_cast<size_t>(number);
      const double bytes = wire_bytes * weight;
      load_.add(count, one.since_ps, now_ps_, bytes * share, bytes / links_[count].bytes_per_ps);
    });
  }
  double wire_bytes_of(const Message& one) const {
    const int64_t packets = one.bytes / mtu_bytes_ + (one.bytes % mtu_bytes_ != 0);
    return static_cast<double>(one.bytes) +
           static_cast<double>(packets) * static_cast<double>(header_bytes_);
  }

  int32_t allocate() {
    if (free_message_ < 0) {
      messages_.emplace_back();
      return static_cast<int32_t>(messages_.size() - 1);
    }
    const int32_t slot = free_message_;
    free_message_ = message(slot).after;
    return slot;
  }

  // -- ways ------------------------------------------------------------------------------------

  int32_t connection_of(int32_t src, int32_t dst) {
    const int64_t pair = static_cast<int64_t>(src) << 32 | dst;
    const int32_t known = pairs_.find(pair);
    if (known >= 0) return known;
    ++idle_;
    auto index = static_cast<int32_t>(connections_.size());
    if (free_connections_.empty()) {
      connections_.emplace_back();
    } else {
      index = free_connections_.back();
      free_connections_.pop_back();
    }
    Connection& one = connections_[static_cast<size_t>(index)];
    find_way(src, dst, one);
    sharing_->set_way(index, legs_);
    one.pair = pair;
    one.flowing = 0;
    one.first = one.last = -1;
    one.bytes = one.wire_bytes = 0;
    pairs_.insert(pair, index);
    return index;
  }
  // Adds what a pair has sent to its links.
  void count(std::vector<Link>& links, int32_t index) const {
    const Connection& one = connections_[static_cast<size_t>(index)];
    sharing_->each_leg(index, [&](int32_t number, double weight) {
      Link& link = links[static_cast<size_t>(number)];
      link.bytes += weight * one.bytes;
      link.wire_bytes += weight * one.wire_bytes;
    });
  }
  void forget(int32_t index) {
    --idle_;
    Connection& one = connections_[static_cast<size_t>(index)];
    count(links_, index);
    pairs_.erase(one.pair);
    one.pair = -1;
    free_connections_.push_back(index);
  }

  void find_way(int32_t src, int32_t dst, Connection& one) {
    legs_.clear();
    one.latency_ps = one.per_byte_ps = 0;
    double slowest_ps = 0;
    const auto cross = [&](int64_t number, const Rate& rate, double weight, bool counts) {
      const int32_t index = link_state(number);
      const double per_byte_ps = 1 / links_[static_cast<size_t>(index)].bytes_per_ps;
      legs_.push_back({index, weight});
      if (!counts) return;
      one.latency_ps += rate.latency_ns * 1000;
      one.per_byte_ps += per_byte_ps;
      slowest_ps = std::max(slowest_ps, per_byte_ps);
    };
    if (graph_ && graph_->by_message()) {
      for (const LinkList::Part& part : graph_->spread(src, dst))
        cross(part.link, graph_->rates()[static_cast<size_t>(part.rate)], part.weight, part.first);
    } else {
      for (Position at{src}; at.node != dst || at.hub >= 0;) {
        const Hop hop = dimensions_ ? dimensions_->next(src, dst, at) : graph_->next(src, dst, at);
        cross(hop.link, rates()[static_cast<size_t>(hop.rate)], 1, true);
        at = hop.next;
      }
    }
    one.per_byte_ps = std::max(0.0, one.per_byte_ps - slowest_ps);
  }
  const std::vector<Rate>& rates() const {
    return dimensions_ ? dimensions_->rates() : graph_->rates();
  }

  int32_t link_state(int64_t number) {
    int32_t index = index_->find(number);
    if (index >= 0) return index;
    const int32_t rate = dimensions_ ? dimensions_->rate_of(number) : graph_->rate_of(number);
    Link one;
    one.number = number;
    one.bytes_per_ps = rates()[static_cast<size_t>(rate)].bytes_per_ns / 1000;
    index = sharing_->add_link(one.bytes_per_ps);
    links_.push_back(one);
    index_->insert(number, index);
    return index;
  }

  int64_t mtu_bytes_ = 0, header_bytes_ = 0, queue_pairs_ = 1;
  double round_trips_ = 0;
  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> graph_;
  std::optional<Sharing> sharing_;
  int64_t now_ps_ = 0;
  int64_t share_ps_ = kNever;  // when the rates of many flows are to be found
  std::optional<LinkIndex> index_;
  std::vector<Link> links_;  // those in use
  astra_net::LinkLoad load_;  // of these
  std::vector<Message> messages_;
  int32_t free_message_ = -1;
  std::vector<Connection> connections_;
  std::vector<int32_t> free_connections_;
  std::vector<Leg> legs_;  // of the way that is found
  int64_t idle_ = 0;  // connections without messages
  astra::FlatMap<int32_t> pairs_;  // endpoints -> connection
  Key next_{};  // what happens next, where next_known_
  bool next_known_ = false;
  Events events_;  // also some that are not to happen any more
  std::vector<Change> changes_;  // by time; those before next_change_ have been
  size_t next_change_ = 0;
  int64_t changed_ = 0;
  int64_t transfers_ = 0, bytes_ = 0, sharings_ = 0;
};

}  // namespace

ASTRA_NET_BACKEND(Flow)
