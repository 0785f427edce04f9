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
using flow::Leg;
using flow::Sharing;
using flow::Soonest;
using flow::Timer;
using flow::Timers;
using flow::When;

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
    const astra_net::Turns& turns = dimensions_ ? dimensions_->turns() : graph_->turns();
    folds_ = turns.any();
    sharing_.emplace(graph_ && graph_->by_message(), tolerance, turns);
    index_.emplace(link_count(0));
    recent_.assign(static_cast<size_t>(config.endpoints), -1);
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
      if (next.time_ps > x.until_ps || (next.time_ps == x.until_ps && next.place >= x.until_place))
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
    x.next_place = next.time_ps == kNever ? 0 : next.place;
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
           (folds_ ? "\"fold_ties\": " + std::to_string(ties_ + sharing_->ties()) + ", " : "") +
           "\"tables\": {\"links\": {\"link\": [" + link + "], \"src\": [" + src + "], \"dst\": [" +
           dst + "], \"bytes\": [" + bytes + "], \"busy_ps\": [" + busy + "]}" +
           load_.table_json(counted) + "}}";
  }

  std::string where_stuck() const override {
    std::string text;
    int named = 0;
    std::vector<int64_t> down;
    for (size_t i = 0; i < links_.size(); ++i)
      if (links_[i].scale == 0 && sharing_->crossed(static_cast<int32_t>(i), now_ps_))
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
  // What happens to a message, at places of its own; and to the network.
  enum class Stage : int32_t { kBegins = 1, kFlows = 2, kArrives = 3, kShares, kChange };
  static constexpr int64_t kNobody = INT64_MIN;
  static constexpr int64_t kMostIdle = 1 << 16;  // pairs at rest whose ways are kept

  // When and in which order things happen.  Changes of links come before all else of their instant.
  struct Key {
    int64_t time_ps = kNever, place = 0;
    Stage stage = Stage::kFlows;
  };
  // One that flows; its number is that of its flow.
  struct alignas(64) Message {
    double left = 0;  // bytes that have not left the narrowest link at since_ps
    double rate = 0;  // [bytes per ps]
    int64_t since_ps = 0;
    int64_t end_ps = 0;  // where that is sure
    int64_t id = 0, bytes = 0;
    int32_t connection = 0;
    template <class A>
    void visit(A& archive) {
      archive(left, rate, since_ps, end_ps, id, bytes, connection);
    }
  };
  // One that waits for its turn, or for its round trips.
  struct Waiting {
    int64_t id = 0, bytes = 0;
    int64_t end_ps = 0;  // where that is sure
    int32_t connection = 0;
    int32_t after = -1;  // the next one of its connection, or of the list of free ones
  };
  // A pair of endpoints with messages between them, or where there were some: its way is kept.
  struct Connection {
    int64_t pair = 0;
    int64_t flowing = 0;  // messages that set out or flow, at most queue_pairs_; and maybe
    int32_t flow = -1;  // one that is sure or over: its message was the last one to begin,
    int32_t first = -1, last = -1;  // those that wait, or are sure to come after it
    double latency_ps = 0;
    double per_byte_ps = 0;  // of one packet, at all links but the narrowest
    double bytes = 0, wire_bytes = 0;  // of its messages that began
    // What was found of the last one, as most are of one size: on the wire, from its last byte at
    // the narrowest link to its arrival, and how long it flows at that rate.
    int64_t last_bytes = -1, last_tail_ps = 0;
    double last_wire_bytes = 0, last_rate = 0;
    int64_t last_flow_ps = 0;
    template <class A>
    void visit(A& archive) {
      archive(pair, flowing, flow, first, last, latency_ps, per_byte_ps, bytes, wire_bytes);
      if (A::kReads) last_bytes = -1;
    }
  };
  // With folded ranks: when a message last came to a link, left it, and of which connection; and when
  // it was last shared, or had messages of several connections in one instant.
  struct Noted {
    int64_t came_ps = -1, left_ps = -1, at_ps = -1, shared_ps = -1;
    int32_t connection = -1;
  };
  struct Link {
    int64_t number = 0;
    double bytes_per_ps = 0, scale = 1;
    double bytes = 0, wire_bytes = 0;  // of messages that began, of pairs that are forgotten
    Noted noted;
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
    archive(now_ps_, share_ps_, links_, messages_, waiting_, free_waiting_, connections_,
            free_connections_, idle_, ends_, timers_, changes_, next_change_, changed_, *sharing_,
            transfers_, bytes_, sharings_, shared_ps_, load_);
    if (!A::kReads) return;
    next_known_ = false;
    index_->insert_all(links_);
    for (size_t i = 0; i < connections_.size(); ++i)
      if (connections_[i].pair >= 0) pairs_.insert(connections_[i].pair, static_cast<int32_t>(i));
  }

  [[noreturn, gnu::noinline, gnu::cold]] static void refuse(double delay_ps) {
    char number[32];
    std::snprintf(number, sizeof number, "%.6g", delay_ps);
    throw Error(ASTRA_NET_MODEL,
                std::string("a delay, ") + number + " ps, is beyond the range of time (2^63 ps)");
  }
  static int64_t whole_ps(double delay_ps) {
    if (!(delay_ps < 9.2e18)) refuse(delay_ps);
    const auto whole = static_cast<int64_t>(delay_ps);
    return whole + (static_cast<double>(whole) < delay_ps ? 1 : 0);
  }

  Message& message(int32_t flow) { return messages_[static_cast<size_t>(flow)]; }
  Waiting& waiting(int32_t slot) { return waiting_[static_cast<size_t>(slot)]; }
  Connection& connection(int32_t index) { return connections_[static_cast<size_t>(index)]; }

  // -- events ----------------------------------------------------------------------------------

  static int64_t place_of(int64_t id, Stage stage) { return id + static_cast<int32_t>(stage); }
  void end_at(int32_t flow, int64_t time_ps) {
    ends_.set(flow, {time_ps, place_of(message(flow).id, Stage::kFlows)});
    next_known_ = false;
  }

  // What happens next; found again only after something has changed.
  const Key& next_key() {
    if (!next_known_) find_next();
    return next_;
  }
  void find_next() {
    next_known_ = true;
    const When end = ends_.first(), timer = timers_.first();
    const bool ends = end < timer;
    next_.stage = ends ? Stage::kFlows : Stage::kArrives;
    next_.time_ps = ends ? end.time_ps : timer.time_ps;
    next_.place = ends ? end.place : timer.place;
    if (next_change_ < changes_.size() && changes_[next_change_].at_ps <= next_.time_ps)
      next_ = {changes_[next_change_].at_ps, INT64_MIN + changes_[next_change_].index,
               Stage::kChange};
    if (share_ps_ < next_.time_ps) next_ = {share_ps_, astra_net::kMostPlace, Stage::kShares};
  }

  // What happens next.  Where that is after this instant, rates are found, if they are due, or it is
  // decided when they will be.
  const Key& settled() {
    const Key& next = next_key();
    if (!sharing_->asks() || next.time_ps <= now_ps_) return next;
    count_sharing();
    share_ps_ =
        sharing_->settle(now_ps_, [this](int32_t flow, double rate) { set_rate(flow, rate); });
    next_known_ = false;
    return next_key();
  }
  // Instants, not calls: how often a host asks within one is its own matter.
  void count_sharing() {
    sharings_ += shared_ps_ != now_ps_;
    shared_ps_ = now_ps_;
  }
  void share() {
    count_sharing();
    share_ps_ =
        sharing_->share(now_ps_, [this](int32_t flow, double rate) { set_rate(flow, rate); });
  }

  // What happens next happens; returns the id of a transfer that has arrived, or kNobody.
  int64_t step() {
    const Key& next = next_;
    next_known_ = false;
    now_ps_ = next.time_ps;
    if (next.stage == Stage::kFlows) {
      leave(ends_.first_index());
      return kNobody;
    }
    if (next.stage == Stage::kArrives) {
      const Timer timer = timers_.take();
      if (static_cast<Stage>(timer.kind) == Stage::kArrives)
        return timer.when.place - static_cast<int32_t>(Stage::kArrives);
      const Waiting one = waiting(timer.subject);
      free(timer.subject);
      --connection(one.connection).flowing;
      if (folds_) note(one.connection, true);
      flow_now(one.connection, one.id, one.bytes);
      return kNobody;
    }
    if (next.stage == Stage::kShares) {
      share();
      return kNobody;
    }
    const Change& change = changes_[next_change_++];
    const int32_t index = link_state(change.link);
    Link& link = links_[static_cast<size_t>(index)];
    link.scale = change.scale;
    sharing_->set_rate(now_ps_, index, link.bytes_per_ps * change.scale);
    heed();
    if (next_change_ == changes_.size()) {
      changes_.clear();
      next_change_ = 0;
    }
    return kNobody;
  }

  // A host that does not know of changes of links may come back after them.
  void catch_up(int64_t now_ps) {
    const Key& next = next_;
    for (settled(); next.time_ps < now_ps; settled()) {
      if (next.stage != Stage::kChange)
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
    Connection& one = connection(index);
    if (folds_) note(index, true);
    const bool flows = one.flow >= 0 && !sharing_->is_over(one.flow, now_ps_);
    if (one.flowing + flows < queue_pairs_) {
      if (one.flowing == 0 && one.flow < 0) --idle_;
      return set_out(index, transfer.id, transfer.bytes);
    }
    if (flows && queue_pairs_ == 1) return follow(index, transfer.id, transfer.bytes);
    if (flows) {
      sharing_->wake(one.flow);
      heed();
    }
    append(one, wait(index, transfer.id, transfer.bytes));
  }
  void append(Connection& one, int32_t slot) {
    (one.first < 0 ? one.first : waiting(one.last).after) = slot;
    one.last = slot;
  }

  // It is its turn on a queue pair.
  void set_out(int32_t index, int64_t id, int64_t bytes) {
    const double delay_ps = round_trips_ * 2 * connection(index).latency_ps;
    if (delay_ps == 0) return flow_now(index, id, bytes);
    ++connection(index).flowing;
    set_timer(astra_net::add_ps(now_ps_, whole_ps(delay_ps)), id, Stage::kBegins,
              wait(index, id, bytes));
  }
  void set_timer(int64_t time_ps, int64_t id, Stage stage, int32_t subject) {
    timers_.push({{time_ps, place_of(id, stage)}, static_cast<int32_t>(stage), subject});
    next_known_ = false;
  }
  void flow_now(int32_t index, int64_t id, int64_t bytes) {
    Connection& way = connection(index);
    measure(way, bytes);
    if (way.flow >= 0 && sharing_->is_over(way.flow, now_ps_)) {
      while (way.first >= 0) take_next(way);
      return plan(way, message(way.flow), now_ps_, id, bytes);
    }
    const int32_t flow = sharing_->begin(now_ps_, id, way.last_wire_bytes, index);
    heed();
    measure(way, bytes);  // others of its way may have been woken
    if (static_cast<size_t>(flow) >= messages_.size()) messages_.resize(2 * messages_.size() + 1);
    message(flow).connection = index;
    if (may_be_sure(way, flow)) {
      way.flow = flow;
      return plan(way, message(flow), now_ps_, id, bytes);
    }
    ++way.flowing;
    send(flow, index, id, bytes);
  }
  // Loads are recorded at the end of a message, round trips begin there, and what comes to a link is
  // compared with it where ranks are folded.
  bool may_be_sure(const Connection& way, int32_t flow) const {
    return way.flow < 0 && sharing_->is_loose(flow) && !load_.on() && round_trips_ == 0 && !folds_;
  }
  // The message flows from `since_ps` on, and nobody will touch it: when it is there is known.
  void plan(Connection& way, Message& one, int64_t since_ps, int64_t id, int64_t bytes) {
    one.id = id;
    one.bytes = bytes;
    one.since_ps = since_ps;
    one.left = way.last_wire_bytes;
    one.rate = sharing_->rate(way.flow);
    one.end_ps = sure_end(way, since_ps, id, bytes);
  }
  int64_t sure_end(Connection& way, int64_t since_ps, int64_t id, int64_t bytes) {
    way.bytes += static_cast<double>(bytes);
    way.wire_bytes += way.last_wire_bytes;
    const int64_t end_ps = astra_net::add_ps(since_ps, flow_ps(way, sharing_->rate(way.flow)));
    sharing_->set_sure(way.flow, end_ps);
    set_timer(astra_net::add_ps(end_ps, way.last_tail_ps), id, Stage::kArrives, -1);
    return end_ps;
  }
  // It begins when the one before it, which is sure, has ended.
  void follow(int32_t index, int64_t id, int64_t bytes) {
    Connection& way = connection(index);
    pass(way);
    measure(way, bytes);
    const int32_t slot = wait(index, id, bytes);
    append(way, slot);
    waiting(slot).end_ps = sure_end(way, sharing_->end_ps(way.flow), id, bytes);
  }
  // The message of a flow that is sure is the one that flows now.
  void pass(Connection& way) {
    Message& one = message(way.flow);
    while (one.end_ps <= now_ps_) {
      const Waiting next = take_next(way);
      one.since_ps = one.end_ps;
      one.end_ps = next.end_ps;
      one.id = next.id;
      one.bytes = next.bytes;
      one.left = wire_bytes_of(next.bytes);
    }
  }
  Waiting take_next(Connection& way) {
    const int32_t slot = way.first;
    const Waiting next = waiting(slot);
    free(slot);
    way.first = next.after;
    if (way.first < 0) way.last = -1;
    return next;
  }

  // What others have done to flows that were sure, or over.
  void heed() {
    sharing_->tell([this](int32_t flow) { wake(flow); },
                   [this](int32_t flow) {
                     const int32_t index = message(flow).connection;
                     Connection& way = connection(index);
                     while (way.first >= 0) take_next(way);
                     way.flow = -1;
                     rest(way, index);
                   });
  }
  // Its end, and those of its next ones, may come later: they are not planned any more.
  void wake(int32_t flow) {
    const int32_t index = message(flow).connection;
    Connection& way = connection(index);
    pass(way);
    const Message& one = message(flow);
    sharing_->hand_over(flow, one.id, one.left);
    cancel(way, one.id, one.bytes, one.end_ps);
    for (int32_t slot = way.first; slot >= 0; slot = waiting(slot).after) {
      const Waiting& next = waiting(slot);
      cancel(way, next.id, next.bytes, next.end_ps);
      way.bytes -= static_cast<double>(next.bytes);
      way.wire_bytes -= way.last_wire_bytes;
    }
    way.flow = -1;
    ++way.flowing;
    end_at(flow, one.end_ps);
  }
  void cancel(Connection& way, int64_t id, int64_t bytes, int64_t end_ps) {
    measure(way, bytes);
    timers_.cancel({end_ps + way.last_tail_ps, place_of(id, Stage::kArrives)});
    next_known_ = false;
  }

  // All that a message has to send, from now on.
  void send(int32_t flow, int32_t index, int64_t id, int64_t bytes) {
    Connection& way = connection(index);
    way.bytes += static_cast<double>(bytes);
    way.wire_bytes += way.last_wire_bytes;
    const double rate = sharing_->rate(flow);
    Message& one = message(flow);
    one.left = way.last_wire_bytes;
    one.rate = rate;
    one.since_ps = now_ps_;
    one.id = id;
    one.bytes = bytes;
    one.connection = index;
    end_at(flow, rate > 0 ? astra_net::add_ps(now_ps_, flow_ps(way, rate)) : kNever);
  }
  // How long a message as the last one flows at that rate.
  static int64_t flow_ps(Connection& way, double rate) {
    if (rate != way.last_rate) {
      way.last_flow_ps = whole_ps(way.last_wire_bytes / rate);
      way.last_rate = rate;
    }
    return way.last_flow_ps;
  }

  // Its last byte has left the narrowest link.
  void leave(int32_t flow) {
    const Message& one = message(flow);
    if (load_.on()) record(one, one.left);
    const int32_t index = one.connection;
    if (folds_) note(index, false);
    Connection& way = connection(index);
    measure(way, one.bytes);
    set_timer(astra_net::add_ps(now_ps_, way.last_tail_ps), one.id, Stage::kArrives, -1);
    if (way.first >= 0) {
      const Waiting next = take_next(way);
      if (round_trips_ * way.latency_ps > 0) {
        end(way, flow);
        return set_out(index, next.id, next.bytes);
      }
      // It goes on as fast as the one before it: no other flow is touched.
      measure(way, next.bytes);
      sharing_->hand_over(flow, next.id, way.last_wire_bytes);
      return send(flow, index, next.id, next.bytes);
    }
    end(way, flow);
    rest(way, index);
  }
  void end(Connection& way, int32_t flow) {
    --way.flowing;
    ends_.set(flow, When());
    if (may_be_sure(way, flow)) {
      way.flow = flow;
      message(flow).end_ps = now_ps_;
      return sharing_->set_sure(flow, now_ps_);
    }
    sharing_->end(flow);
  }
  // Whether its way is to be kept.
  void rest(Connection& way, int32_t index) {
    if (way.flowing > 0 || way.flow >= 0) return;
    if (++idle_ > kMostIdle) forget(index);
  }

  void set_rate(int32_t flow, double rate) {
    Message& one = message(flow);
    if (one.rate == rate) return;
    const double left =
        std::max(0.0, one.left - one.rate * static_cast<double>(now_ps_ - one.since_ps));
    if (load_.on()) record(one, one.left - left);
    one.left = left;
    one.since_ps = now_ps_;
    one.rate = rate;
    end_at(flow, rate > 0 ? astra_net::add_ps(now_ps_, whole_ps(one.left / rate)) : kNever);
  }

  // What a message has put on its links since its rate was found [bytes with headers].
  void record(const Message& one, double wire_bytes) {
    if (!(wire_bytes > 0)) return;
    const double share = static_cast<double>(one.bytes) / wire_bytes_of(one.bytes);
    sharing_->each_leg(one.connection, [&](int32_t number, double weight) {
      const auto count = static_cast<size_t>(number);
      const double bytes = wire_bytes * weight;
      load_.add(count, one.since_ps, now_ps_, bytes * share, bytes / links_[count].bytes_per_ps);
    });
  }
  double wire_bytes_of(int64_t bytes) const {
    const int64_t packets = bytes / mtu_bytes_ + (bytes % mtu_bytes_ != 0);
    return static_cast<double>(bytes) +
           static_cast<double>(packets) * static_cast<double>(header_bytes_);
  }
  // Finds what a connection keeps of messages of that size.
  void measure(Connection& way, int64_t bytes) const {
    if (way.last_bytes == bytes) return;
    const auto packet_bytes = static_cast<double>(std::min(bytes, mtu_bytes_) + header_bytes_);
    way.last_bytes = bytes;
    way.last_wire_bytes = wire_bytes_of(bytes);
    way.last_tail_ps = whole_ps(way.latency_ps + packet_bytes * way.per_byte_ps);
    way.last_rate = 0;
  }

  int32_t wait(int32_t index, int64_t id, int64_t bytes) {
    int32_t slot = free_waiting_;
    if (slot < 0) {
      slot = static_cast<int32_t>(waiting_.size());
      waiting_.emplace_back();
    } else {
      free_waiting_ = waiting(slot).after;
    }
    waiting(slot) = {id, bytes, 0, index, -1};
    return slot;
  }
  void free(int32_t slot) {
    waiting(slot).after = free_waiting_;
    free_waiting_ = slot;
  }

  // With folded ranks: a message comes to its way, or leaves it.  Where both happen to a link in one
  // instant, which is first may differ from turn to turn, and so whether shares are found; unless the
  // link has one pair's messages, one at a time: then the next one has it for itself as well.
  void note(int32_t index, bool comes) {
    sharing_->each_leg(index, [&](int32_t number, double) {
      Noted& noted = links_[static_cast<size_t>(number)].noted;
      const size_t flows = sharing_->flows(number);
      const bool others = noted.at_ps == now_ps_ && noted.connection != index;
      if (others || flows > 1 || (queue_pairs_ > 1 && comes && flows > 0))
        noted.shared_ps = now_ps_;
      (comes ? noted.came_ps : noted.left_ps) = noted.at_ps = now_ps_;
      noted.connection = index;
      ties_ += noted.came_ps == now_ps_ && noted.left_ps == now_ps_ && noted.shared_ps == now_ps_;
    });
  }

  // -- ways ------------------------------------------------------------------------------------

  int32_t connection_of(int32_t src, int32_t dst) {
    const int64_t pair = static_cast<int64_t>(src) << 32 | dst;
    int32_t& recent = recent_[static_cast<size_t>(src)];
    if (recent >= 0 && connection(recent).pair == pair) return recent;
    const int32_t known = pairs_.find(pair);
    return recent = known >= 0 ? known : connect(src, dst, pair);
  }
  int32_t connect(int32_t src, int32_t dst, int64_t pair) {
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
    one.last_bytes = -1;
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
      const int32_t index = link_state(folds_ ? folded(number) : number);
      const double per_byte_ps = 1 / links_[static_cast<size_t>(index)].bytes_per_ps;
      legs_.push_back({index, weight, folds_ ? turn_of(number) : 0});
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
  int64_t folded(int64_t link) const {
    return dimensions_ ? dimensions_->folded(link) : graph_->folded(link);
  }
  int32_t turn_of(int64_t link) const {
    return dimensions_ ? dimensions_->turn_of(link) : graph_->turn_of(link);
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
  bool folds_ = false;  // some links stand for others
  int64_t now_ps_ = 0;
  int64_t share_ps_ = kNever;  // when the rates of many flows are to be found
  std::optional<LinkIndex> index_;
  std::vector<Link> links_;  // those in use
  astra_net::LinkLoad load_;  // of these
  std::vector<Message> messages_;
  std::vector<Waiting> waiting_;
  int32_t free_waiting_ = -1;  // a list
  std::vector<Connection> connections_;
  std::vector<int32_t> free_connections_;
  std::vector<Leg> legs_;  // of the way that is found
  int64_t idle_ = 0;  // connections without messages
  astra::FlatMap<int32_t> pairs_;  // endpoints -> connection
  std::vector<int32_t> recent_;  // the last one of each source, or -1
  Key next_;  // what happens next, where next_known_
  bool next_known_ = false;
  Soonest ends_;  // of flows
  Timers timers_;  // begins and arrivals
  std::vector<Change> changes_;  // by time; those before next_change_ have been
  size_t next_change_ = 0;
  int64_t changed_ = 0;
  int64_t transfers_ = 0, bytes_ = 0, sharings_ = 0, shared_ps_ = -1;
  int64_t ties_ = 0;  // with folded ranks: orders that may be others elsewhere
};

}  // namespace

ASTRA_NET_BACKEND(Flow)
