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
    const double tolerance = config.options.number("tolerance", 0.02, 0, 1);
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
    while (!interrupted()) {
      if (settled() || next_ps() > until_ps || (delivered_something() && next_ps() > now_ps_)) {
        if (until_ps != kNever && !delivered_something()) now_ps_ = until_ps;
        break;
      }
      const int64_t id = step();
      if (id != kNobody) deliver(id, now_ps_);
    }
    return {now_ps_, next_ps() == kNever && !sharing_->asks()};
  }

  // -- the contract: exchange ----------------------------------------------------------------

  // Events of a transfer have its own places, so that none is ever drawn.
  void exchange(astra_net_exchange& x) override {
    astra_net::check_place(x);
    catch_up(x.now_ps);
    now_ps_ = x.now_ps;
    for (size_t i = 0; i < x.start_count; ++i) begin(x.starts[i]);
    x.completion_count = 0;
    for (;;) {
      if (settled()) break;
      const Key next = next_key();
      if (next.time_ps > x.until_ps ||
          (next.time_ps == x.until_ps && next.place() >= x.until_place))
        break;
      if (x.completion_count > 0 && (next.time_ps > now_ps_ || x.completion_count == x.capacity))
        break;
      const int64_t id = step();
      if (id != kNobody)
        x.completions[x.completion_count++] = {id, now_ps_, ASTRA_NET_DELIVERED, 0, 0};
    }
    const Key next = next_key();
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
  int64_t next_event_ps() override { return sharing_->asks() ? now_ps_ : next_ps(); }
  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) override {
    if (at_ps == kNever)
      throw Error(ASTRA_NET_INVALID, "at_ps=" + std::to_string(at_ps) + " is never");
    const Change change{at_ps, changed_++, link, bandwidth_scale};
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
    for (const Link& one : links_)
      if (one.bytes > 0) used.emplace_back(one.number, &one);
    std::sort(used.begin(), used.end());
    std::vector<std::pair<int64_t, size_t>> counted;
    for (const auto& [number, one] : used) {
      counted.emplace_back(number, static_cast<size_t>(one - links_.data()));
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

  // When and in which order things happen.  Changes of links come before all else of their instant.
  struct Key {
    int64_t time_ps, id;
    Stage stage;
    bool change = false;
    bool operator<(const Key& other) const {
      if (time_ps != other.time_ps) return time_ps < other.time_ps;
      if (change != other.change) return change;
      return id != other.id ? id < other.id : stage < other.stage;
    }
    int64_t place() const { return change ? INT64_MIN + id : id + static_cast<int32_t>(stage); }
  };
  struct Message {
    int64_t id = 0, bytes = 0;
    int64_t time_ps = 0;  // of its next event
    double left = 0;  // bytes that have not left the narrowest link at since_ps
    int64_t since_ps = 0, began_ps = 0;
    double rate = 0;  // [bytes per ps]
    int32_t connection = 0;
    int32_t at = -1;  // in the heap
    int32_t after = -1;  // the next one of its connection, or of the list of free ones
    Stage stage = Stage::kWaits;
    template <class A>
    void visit(A& archive) {
      archive(id, bytes, time_ps, left, since_ps, began_ps, rate, connection, at, after, stage);
    }
  };
  // A pair of endpoints with messages between them.
  struct Connection {
    int64_t pair = 0;
    int64_t flowing = 0;  // messages that flow, at most queue_pairs_
    int32_t first = -1, last = -1;  // those that wait
    double latency_ps = 0;
    double per_byte_ps = 0;  // of one packet, at all links but the narrowest
    std::vector<Leg> legs;
    template <class A>
    void visit(A& archive) {
      archive(pair, flowing, first, last, latency_ps, per_byte_ps, legs);
    }
  };
  struct Link {
    int64_t number = 0;
    double bytes_per_ps = 0, scale = 1;
    double bytes = 0, wire_bytes = 0;  // of all messages that began
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
    archive(now_ps_, share_ps_, shared_ps_, links_, messages_, free_message_, connections_,
            free_connections_, heap_, changes_, next_change_, changed_, *sharing_, transfers_,
            bytes_, sharings_, load_);
    if (!A::kReads) return;
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

  Key key_of(int32_t slot) const {
    const Message& one = message(slot);
    return {one.time_ps, one.id, one.stage};
  }
  Key next_key() const {
    Key next{kNever, 0, Stage::kWaits};
    if (!heap_.empty()) next = key_of(heap_[0]);
    if (next_change_ < changes_.size() && changes_[next_change_].at_ps <= next.time_ps)
      next = {changes_[next_change_].at_ps, changes_[next_change_].index, Stage::kWaits, true};
    if (share_ps_ < next.time_ps) next = {share_ps_, astra_net::kMostPlace, Stage::kShares};
    return next;
  }
  int64_t next_ps() const { return next_key().time_ps; }

  // At the end of an instant, when nothing else happens in it: finds the rates, if they are due, or
  // decides when they will be.  Then whether nothing is left to happen.
  bool settled() {
    if (sharing_->asks() && next_ps() > now_ps_) {
      ++sharings_;
      const double patience_ps =
          sharing_->settle([this](int32_t slot, double rate) { set_rate(slot, rate); });
      if (patience_ps < 9e18)
        share_ps_ = std::min(
            share_ps_, std::max(now_ps_, astra_net::add_ps(shared_ps_, whole_ps(patience_ps))));
    }
    return next_ps() == kNever;
  }
  void share() {
    share_ps_ = kNever;
    shared_ps_ = now_ps_;
    ++sharings_;
    sharing_->share([this](int32_t slot, double rate) { set_rate(slot, rate); });
  }

  // The next event; returns the id of a transfer that has arrived, or kNobody.
  int64_t step() {
    const Key next = next_key();
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
    const int32_t slot = heap_[0];
    Message& one = message(slot);
    if (one.stage == Stage::kArrives) {
      const int64_t id = one.id;
      remove(slot);
      one.after = free_message_;
      free_message_ = slot;
      return id;
    }
    if (one.stage == Stage::kBegins) {
      remove(slot);
      flow_now(slot);
      return kNobody;
    }
    leave(slot);
    return kNobody;
  }

  // A host that does not know of changes of links may come back after them.
  void catch_up(int64_t now_ps) {
    while (!settled() && next_ps() < now_ps) {
      const Key next = next_key();
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
      ++connection.flowing;
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
    one.time_ps = astra_net::add_ps(now_ps_, whole_ps(delay_ps));
    push(slot);
  }
  void flow_now(int32_t slot) {
    Message& one = message(slot);
    const Connection& connection = connections_[static_cast<size_t>(one.connection)];
    one.stage = Stage::kFlows;
    one.left = wire_bytes_of(one);
    one.since_ps = one.began_ps = now_ps_;
    one.rate = 0;
    for (const Leg& leg : connection.legs) {
      Link& link = links_[static_cast<size_t>(leg.link)];
      link.bytes += leg.weight * static_cast<double>(one.bytes);
      link.wire_bytes += leg.weight * one.left;
    }
    sharing_->begin(slot, one.id, one.left, connection.legs);
  }

  // Its last byte has left the narrowest link.
  void leave(int32_t slot) {
    Message& one = message(slot);
    if (load_.on()) record(one, one.left);
    sharing_->end(slot, now_ps_ - one.began_ps);
    const int32_t index = one.connection;
    Connection& connection = connections_[static_cast<size_t>(index)];
    const auto packet_bytes = static_cast<double>(std::min(one.bytes, mtu_bytes_) + header_bytes_);
    const double delay_ps = connection.latency_ps + packet_bytes * connection.per_byte_ps;
    one.stage = Stage::kArrives;
    one.time_ps = astra_net::add_ps(now_ps_, whole_ps(delay_ps));
    sift(one.at);
    if (connection.first >= 0) {
      const int32_t next = connection.first;
      connection.first = message(next).after;
      if (connection.first < 0) connection.last = -1;
      set_out(next);
    } else if (--connection.flowing == 0) {
      pairs_.erase(connection.pair);
      connection.pair = -1;
      free_connections_.push_back(index);
    }
  }

  void set_rate(int32_t slot, double rate) {
    Message& one = message(slot);
    if (one.rate == rate && one.at >= 0) return;
    const double left =
        std::max(0.0, one.left - one.rate * static_cast<double>(now_ps_ - one.since_ps));
    if (load_.on()) record(one, one.left - left);
    one.left = left;
    one.since_ps = now_ps_;
    one.rate = rate;
    if (rate > 0) {
      one.time_ps = astra_net::add_ps(now_ps_, whole_ps(one.left / rate));
      one.at < 0 ? push(slot) : sift(one.at);
    } else if (one.at >= 0) {
      remove(slot);
    }
  }

  // What a message has put on its links since its rate was found [bytes with headers].
  void record(const Message& one, double wire_bytes) {
    if (!(wire_bytes > 0)) return;
    const double share = static_cast<double>(one.bytes) / wire_bytes_of(one);
    for (const Leg& leg : connections_[static_cast<size_t>(one.connection)].legs) {
      const auto count = static_cast<size_t>(leg.link);
      const double bytes = wire_bytes * leg.weight;
      load_.add(count, one.since_ps, now_ps_, bytes * share, bytes / links_[count].bytes_per_ps);
    }
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
    auto index = static_cast<int32_t>(connections_.size());
    if (free_connections_.empty()) {
      connections_.emplace_back();
    } else {
      index = free_connections_.back();
      free_connections_.pop_back();
    }
    Connection& one = connections_[static_cast<size_t>(index)];
    find_way(src, dst, one);
    one.pair = pair;
    one.flowing = 0;
    one.first = one.last = -1;
    pairs_.insert(pair, index);
    return index;
  }

  void find_way(int32_t src, int32_t dst, Connection& one) {
    one.legs.clear();
    one.latency_ps = one.per_byte_ps = 0;
    double slowest_ps = 0;
    const auto cross = [&](int64_t number, const Rate& rate, double weight, bool counts) {
      const int32_t index = link_state(number);
      const double per_byte_ps = 1 / links_[static_cast<size_t>(index)].bytes_per_ps;
      one.legs.push_back({index, -1, weight});
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

  // -- a heap of messages by their next events, which may move ------------------------------------

  void push(int32_t slot) {
    message(slot).at = static_cast<int32_t>(heap_.size());
    heap_.push_back(slot);
    sift(message(slot).at);
  }
  void remove(int32_t slot) {
    const int32_t at = message(slot).at;
    message(slot).at = -1;
    const int32_t last = heap_.back();
    heap_.pop_back();
    if (last == slot) return;
    put(at, last);
    sift(at);
  }
  void put(int32_t at, int32_t slot) {
    heap_[static_cast<size_t>(at)] = slot;
    message(slot).at = at;
  }
  // The message at `at` goes to where it belongs.
  void sift(int32_t at) {
    const int32_t slot = heap_[static_cast<size_t>(at)];
    const Key key = key_of(slot);
    while (at > 0) {
      const int32_t parent = (at - 1) / 2;
      if (!(key < key_of(heap_[static_cast<size_t>(parent)]))) break;
      put(at, heap_[static_cast<size_t>(parent)]);
      at = parent;
    }
    const auto size = static_cast<int32_t>(heap_.size());
    for (;;) {
      int32_t child = 2 * at + 1;
      if (child >= size) break;
      const auto key_at = [this](int32_t i) { return key_of(heap_[static_cast<size_t>(i)]); };
      if (child + 1 < size && key_at(child + 1) < key_at(child)) ++child;
      if (!(key_at(child) < key)) break;
      put(at, heap_[static_cast<size_t>(child)]);
      at = child;
    }
    put(at, slot);
  }

  int64_t mtu_bytes_ = 0, header_bytes_ = 0, queue_pairs_ = 1;
  double round_trips_ = 0;
  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> graph_;
  std::optional<Sharing> sharing_;
  int64_t now_ps_ = 0;
  int64_t share_ps_ = kNever;  // when the rates of many flows are to be found,
  int64_t shared_ps_ = 0;  // and when they were
  std::optional<LinkIndex> index_;
  std::vector<Link> links_;  // those in use
  astra_net::LinkLoad load_;  // of these
  std::vector<Message> messages_;
  int32_t free_message_ = -1;
  std::vector<Connection> connections_;
  std::vector<int32_t> free_connections_;
  astra::FlatMap<int32_t> pairs_;  // endpoints -> connection
  std::vector<int32_t> heap_;
  std::vector<Change> changes_;  // by time; those before next_change_ have been
  size_t next_change_ = 0;
  int64_t changed_ = 0;
  int64_t transfers_ = 0, bytes_ = 0, sharings_ = 0;
};

}  // namespace

ASTRA_NET_BACKEND(Flow)
