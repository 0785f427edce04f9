// SPDX-License-Identifier: MIT
//
// Congestion-aware: a message holds one link after the other, and queues where a link is busy,
// first come, first served (Won et al., "ASTRA-sim2.0", ISPASS 2023, section IV-C).  It holds a
// link for floor(bytes / bandwidth) ns and is at the next node, whole, floor(latency + bytes /
// bandwidth) ns after it got the link: store and forward.  With store-and-forward=false the next
// link may take it as soon as its head is there: cut-through.
#include <optional>
#include <unordered_map>

#include "astra_blocks.hpp"
#include "astra_load.hpp"
#include "core.hpp"
#include "link_index.hpp"
#include "link_list.hpp"
#include "topology.hpp"

namespace {

using namespace analytical;

class Aware final : public Core<Aware> {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "analytical-aware";
    info.version = "1.0";
    info.capabilities =
        ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL | ASTRA_NET_CAP_INTERRUPT |
        ASTRA_NET_CAP_SNAPSHOT | ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION |
        ASTRA_NET_CAP_ORDERED | ASTRA_NET_CAP_SAVE | ASTRA_NET_CAP_PEEK | ASTRA_NET_CAP_PIECES;
    info.resolution_ps = kPsPerNs;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Aware(astra_net::Config& config, const astra_net::Log&)
      : recent_(static_cast<size_t>(config.endpoints)) {
    const Quirks quirks = quirks_of(config);
    cut_through_ = !quirks.store_and_forward;
    if (has_dimensions(config))
      dimensions_.emplace(config, quirks.first_dimension_only);
    else
      graph_.emplace(config);
    by_message_ = graph_ && graph_->by_message();
    const std::vector<Rate>& rates = dimensions_ ? dimensions_->rates() : graph_->rates();
    for (const Rate& rate : rates) speeds_.push_back({rate});
    index_.emplace(link_count(0));
    load_ = astra_net::LinkLoad(astra_net::sample_interval_ps(config.options));
    folds_ = (dimensions_ ? dimensions_->turns() : graph_->turns()).any();
    special_ = cut_through_ || load_.on() || folds_;
  }

  [[gnu::always_inline]] void begin(const astra_net_transfer& transfer, int64_t now_ps) {
    ++transfers_;
    astra_net::add_bytes(bytes_, transfer.bytes);
    Recent& recent = recent_[static_cast<size_t>(transfer.src)];
    if (recent.dst != transfer.dst || by_message_) find_way(transfer, recent);
    Link& link = links_[recent.link];
    if (recent.direct && is_free(link)) {
      // The common case: one link, and nobody on it.  No message needs to be remembered.
      const Times times = occupy(link, recent.hop.rate, transfer.bytes);
      schedule(EventKind::kDeliver, now_ps, times.arrival_ns, transfer.id);
      schedule(EventKind::kRelease, now_ps, times.free_ns, &link - links_.data());
      return;
    }
    begin_way(transfer, recent.hop, recent.link, now_ps);
  }

  // A transfer that needs several links, or has to wait.
  [[gnu::noinline]] void begin_way(const astra_net_transfer& transfer, const Hop& hop, size_t link,
                                   int64_t now_ps) {
    over_several_ += !is_last(hop.next, transfer.dst);
    const int32_t slot = allocate(links_[link].waiting);
    Message& message = messages_[static_cast<size_t>(slot)];
    message = {transfer.id, transfer.bytes, transfer.dst, -1};
    if (graph_) sources_[static_cast<size_t>(slot)] = transfer.src;
    if (special_) {
      Way& way = ways_[static_cast<size_t>(slot)];
      way = {};
      way.arrived_ps = way.start_ps = now_ps;
    }
    if (folds_) note_entry(hop, now_ps, now_ps, true);
    enter(slot, hop, now_ps);
  }

  void handle(EventKind kind, int64_t subject, int64_t now_ps) {
    if (kind == EventKind::kRelease) {
      Link& link = links_[static_cast<size_t>(subject)];
      link.busy = false;
      if (link.first >= 0) serve(link, now_ps);
    } else if (kind == EventKind::kForward) {
      const auto [slot, link] = crossing(subject);
      const Message& message = messages_[static_cast<size_t>(slot)];
      const Position at = end_of(links_[link], slot);
      const int32_t src = graph_ ? sources_[static_cast<size_t>(slot)] : -1;
      const Hop hop = next(src, message.dst, at, message.id);
      if (folds_) note_entry(hop, now_ps, way_of(slot).drawn_ps, false);
      enter(slot, hop, now_ps);
    } else {
      const Change& change = changes_[static_cast<size_t>(subject)];
      Link& link = links_[link_state(change.link)];
      link.scale = change.scale;
      // A message on the link keeps the bandwidth that it began with.
      if (link.first >= 0) serve(link, on_grid(now_ps));
    }
  }

  bool is_large() const { return messages_.size() > kMessagesNear; }
  [[gnu::always_inline]] void fetch(const Event& event, bool near) const {
    if (event.kind == EventKind::kForward) {
      if (!near) __builtin_prefetch(&messages_[static_cast<size_t>(crossing(event.subject).first)]);
    } else if (event.kind == EventKind::kRelease) {
      const Link& link = links_[static_cast<size_t>(event.subject)];
      if (!near)
        __builtin_prefetch(&link, 1);
      else if (link.first >= 0)
        __builtin_prefetch(&messages_[static_cast<size_t>(link.first)], 1);
    }
  }

  template <class A>
  void visit(A& archive) {
    archive(links_, messages_, sources_, ways_, shelves_, shelf_of_, changes_, transfers_, bytes_,
            over_several_, load_);
    archive(waited_, ties_);
    if (A::kReads) index_->insert_all(links_);
  }

  int64_t link_count(int64_t) const final {
    return dimensions_ ? dimensions_->link_count() : graph_->link_count();
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) final {
    if (at_ps == astra_net::kNever)
      throw Error(ASTRA_NET_INVALID, "at_ps=" + std::to_string(at_ps) + " is never");
    const auto change = static_cast<int64_t>(changes_.size());
    changes_.push_back({link, bandwidth_scale});
    if (at_ps == now_ps_) links_[link_state(link)].scale = bandwidth_scale;
    // A change comes before everything else in its instant.
    queue_.push(EventKind::kChange, at_ps, INT64_MIN + change, change);
  }

  std::string stats() final {
    std::string link, src, dst, bytes, busy;
    std::vector<std::pair<int64_t, size_t>> counted;
    for (const auto& [number, one] : by_number()) {
      if (one->bytes == 0) continue;  // only changed, or waited for
      counted.emplace_back(number, static_cast<size_t>(one - links_.data()));
      const auto [from, to] = ends(*one);
      const char* comma = link.empty() ? "" : ",";
      link += comma + std::to_string(number);
      src += comma + std::to_string(from);
      dst += comma + std::to_string(to);
      bytes += comma + std::to_string(one->bytes);
      busy += comma + std::to_string(one->busy_ns * kPsPerNs);
    }
    return "{\"transfers\": " + std::to_string(transfers_) +
           ", \"bytes\": " + std::to_string(bytes_) +
           (cut_through_ || over_several_ == 0
                ? ""
                : ", \"quirks\": {\"store-and-forward\": " + std::to_string(over_several_) + "}") +
           ", " + (folds_ ? "\"fold_ties\": " + std::to_string(ties_) + ", " : "") +
           load_.interval_json() + "\"tables\": {\"links\": {\"link\": [" + link + "], \"src\": [" +
           src + "], \"dst\": [" + dst + "], \"bytes\": [" + bytes + "], \"busy_ps\": [" + busy +
           "]}" + load_.table_json(counted) + "}}";
  }

  // With folded ranks, records say how long after its start a transfer got the place of its delivery.
  void settle(astra_net_exchange& x) {
    for (size_t i = 0; folds_ && !waited_.empty() && i < x.completion_count; ++i) {
      const auto found = waited_.find(x.completions[i].id);
      if (found == waited_.end()) continue;
      x.completions[i].reserved = found->second;
      waited_.erase(found);
    }
  }

  std::string where_stuck() const final {
    std::string text;
    int named = 0;
    for (const auto& [number, link] : by_number()) {
      if (link->first < 0 || ++named > 4) continue;
      const auto [from, to] = ends(*link);
      text += (text.empty() ? "waiting for link " : ", ") + std::to_string(number) + " (" +
              std::to_string(from) + " -> " + std::to_string(to) + ")";
    }
    return text.empty() ? text : "(" + text + (named > 4 ? ", ..." : "") + ", which is down)";
  }

 private:
  // A transfer that waits for a link, or is on its way to a node that is not its last.  There may be
  // many millions.
  struct Message {
    int64_t id, bytes;
    int32_t dst;
    int32_t after;  // the next one in the link's queue, or in the list of free ones
    template <class A>
    void visit(A& archive) {
      archive(id, bytes, dst, after);
    }
  };
  // What only some models know of a message.
  struct Way {
    // Cut-through: when its head came to the node before its link, how far the exact time is behind
    // that, and how far its tail is.
    int64_t arrived_ps = 0;
    double carry_ns = 0, tail_ns = 0;
    // With folded ranks: its start, when the place of the event that it waits for was drawn, and the
    // end of its link, which has the state of another one.
    int64_t start_ps = 0, drawn_ps = 0;
    Position at{};
    template <class A>
    void visit(A& archive) {
      archive(arrived_ps, carry_ns, tail_ns, start_ps, drawn_ps, at);
    }
  };
  // The first hop of the last transfer from an endpoint: collectives send to the same peer again
  // and again, and finding the way takes longer than all the rest.
  struct Recent {
    int32_t dst = -1;
    Hop hop{};
    size_t link = 0;  // its state
    bool direct = false;  // the hop is all, and nothing is recorded
  };
  struct Link {
    int64_t number;
    int64_t bytes = 0, busy_ns = 0;
    double scale = 1;  // of the bandwidth; 0 is down
    int32_t first = -1, last = -1, waiting = 0;  // queue of messages
    bool busy = false;
    int32_t rate = 0;   // where a message has come to it
    Position next{};    // and that message's end of it
    // With folded ranks only: when a message last came to it, and when the place of that was drawn.
    int64_t came_ps = -1, drawn_ps = -1;
    template <class A>
    void visit(A& archive) {
      archive(number, bytes, busy_ns, scale, first, last, waiting, busy, rate, next, came_ps,
              drawn_ps);
    }
  };
  struct Times {
    int64_t free_ns, arrival_ns;
  };
  // A rate, and the last times at it: collectives send one size again and again.
  struct Speed {
    Rate rate;
    int64_t bytes = 0;
    Times times{};
  };
  // Slots for messages.  Those that stand equally far behind in their queues are served at about
  // the same time, and so stand on one shelf: a queue of thousands is many pages of memory, and
  // there are thousands of queues, of which all have to be looked at before the next one's turn.
  struct Shelf {
    int32_t free = -1;  // first of the slots that were in use
    int32_t next = 0, end = 0;  // those of the last row that were not
  };
  static constexpr int32_t kTogether = 8;  // messages of a queue
  static constexpr size_t kShelves = 512, kRow = 128;
  static constexpr size_t kMessagesNear = size_t{1} << 14;
  struct Change {
    int64_t link;
    double scale;
    template <class A>
    void visit(A& archive) {
      archive(link, scale);
    }
  };

  std::vector<std::pair<int64_t, const Link*>> by_number() const {
    std::vector<std::pair<int64_t, const Link*>> all;
    all.reserve(links_.size());
    for (const Link& link : links_) all.emplace_back(link.number, &link);
    std::sort(all.begin(), all.end());
    return all;
  }
  // What comes to a node on its way: a message, and the state of the link that it was on.
  int64_t crossed_by(const Link& link, int32_t slot) const {
    return (&link - links_.data()) << 32 | slot;
  }
  static std::pair<int32_t, size_t> crossing(int64_t subject) {
    return {static_cast<int32_t>(subject), static_cast<size_t>(subject >> 32)};
  }
  Way& way_of(int64_t slot) { return ways_[static_cast<size_t>(slot)]; }
  Position end_of(const Link& link, int32_t slot) { return folds_ ? way_of(slot).at : link.next; }
  static bool is_last(const Position& at, int32_t dst) { return at.node == dst && at.hub < 0; }
  static bool is_free(const Link& link) { return !link.busy && link.first < 0 && link.scale > 0; }
  Hop next(int32_t src, int32_t dst, const Position& at, int64_t id) {
    return dimensions_ ? dimensions_->next(src, dst, at) : graph_->next(src, dst, at, id);
  }
  Ends ends(const Link& link) const {
    return dimensions_ ? dimensions_->ends(link.number) : graph_->ends(link.number);
  }

  [[gnu::noinline]] void find_way(const astra_net_transfer& transfer, Recent& recent) {
    // To a switch it is the same way for all behind it.
    const int32_t hub = recent.hop.next.hub;
    if (hub >= 0 && dimensions_->difference(transfer.src, transfer.dst).dimension == hub) {
      recent.dst = transfer.dst;
      return;
    }
    const Hop hop = next(transfer.src, transfer.dst, {transfer.src, -1}, transfer.id);
    const bool direct = is_last(hop.next, transfer.dst) && !load_.on() && !folds_;
    recent = {transfer.dst, hop, link_state(hop.link), direct};
  }

  size_t link_state(int64_t number) {
    if (folds_) number = dimensions_ ? dimensions_->folded(number) : graph_->folded(number);
    int32_t index = index_->find(number);
    if (index < 0) {
      index = static_cast<int32_t>(links_.size());
      links_.emplace_back();
      links_.back().number = number;
      index_->insert(number, index);
    }
    return static_cast<size_t>(index);
  }

  // A message takes the link of `hop`, or queues for it.
  void enter(int32_t slot, const Hop& hop, int64_t now_ps) {
    Message& message = messages_[static_cast<size_t>(slot)];
    const size_t state = link_state(hop.link);
    Link& link = links_[state];
    link.next = hop.next;
    link.rate = hop.rate;
    message.after = -1;
    if (folds_) way_of(slot).at = hop.next;
    if (is_free(link)) {
      transmit(link, slot, now_ps);
      return;
    }
    if (link.first < 0)
      link.first = slot;
    else
      messages_[static_cast<size_t>(link.last)].after = slot;
    link.last = slot;
    ++link.waiting;
  }

  // The first message that waits for a link gets it, if the link is up and idle.
  void serve(Link& link, int64_t now_ps) {
    if (link.first < 0 || link.busy || !(link.scale > 0)) return;
    const int32_t slot = link.first;
    link.first = messages_[static_cast<size_t>(slot)].after;
    --link.waiting;
    transmit(link, slot, now_ps);
  }

  void transmit(Link& link, int32_t slot, int64_t now_ps) {
    if (special_) return transmit_specially(link, slot, now_ps);
    transmit_whole(link, slot, now_ps);
  }

  // Cut-through, or with loads over time: away from the common way, which is slower by any call in it.
  [[gnu::noinline]] void transmit_specially(Link& link, int32_t slot, int64_t now_ps) {
    const int64_t bytes = link.bytes, busy_ns = link.busy_ns;
    if (folds_) note_leaving(slot, now_ps);
    cut_through_ ? transmit_head(link, slot, now_ps) : transmit_whole(link, slot, now_ps);
    const int64_t held_ns = link.busy_ns - busy_ns;
    // Order among what takes no time is nobody's.
    ties_ += folds_ && held_ns == 0;
    if (!load_.on()) return;
    load_.add(static_cast<size_t>(&link - links_.data()), now_ps, later(now_ps, held_ns),
              static_cast<double>(link.bytes - bytes), static_cast<double>(held_ns * kPsPerNs));
  }

  // With folded ranks: messages that come to a link in one instant, at places that were drawn in one
  // instant by different ranks or links, might come in another order elsewhere.
  void note_entry(const Hop& hop, int64_t now_ps, int64_t drawn_ps, bool starts) {
    Link& link = links_[link_state(hop.link)];
    // Only one endpoint starts transfers on a link, and does so in its own order.
    if (link.came_ps == now_ps && link.drawn_ps == drawn_ps && !starts) ++ties_;
    link.came_ps = now_ps;
    link.drawn_ps = drawn_ps;
  }
  void note_leaving(int32_t slot, int64_t now_ps) {
    const Message& message = messages_[static_cast<size_t>(slot)];
    Way& way = way_of(slot);
    way.drawn_ps = now_ps;
    if (is_last(way.at, message.dst) && now_ps != way.start_ps)
      waited_.emplace(message.id, now_ps - way.start_ps);
  }

  void transmit_whole(Link& link, int32_t slot, int64_t now_ps) {
    Message& message = messages_[static_cast<size_t>(slot)];
    const Times times = occupy(link, link.rate, message.bytes);
    // The arrival comes before the release: the order that ASTRA-sim schedules them in.
    if (is_last(end_of(link, slot), message.dst)) {
      schedule(EventKind::kDeliver, now_ps, times.arrival_ns, message.id);
      release(slot);
    } else {
      schedule(EventKind::kForward, now_ps, times.arrival_ns, crossed_by(link, slot));
    }
    schedule(EventKind::kRelease, now_ps, times.free_ns, &link - links_.data());
  }

  // Cut-through: the event that a node sees is the arrival of the head.  What is cut off to whole
  // ns is carried along, so that a lone message takes floor(latencies + bytes / bandwidth).
  void transmit_head(Link& link, int32_t slot, int64_t now_ps) {
    const Message& message = messages_[static_cast<size_t>(slot)];
    Way& way = way_of(slot);
    const Rate& rate = speeds_[static_cast<size_t>(link.rate)].rate;
    const double waited_ns =
        static_cast<double>(now_ps - way.arrived_ps) / static_cast<double>(kPsPerNs);
    const double carry_ns = waited_ns > 0 ? 0 : way.carry_ns;
    const double serialisation_ns =
        static_cast<double>(message.bytes) / (rate.bytes_per_ns * link.scale);
    // A slower link behind us feeds this one: it is held until the tail has passed.
    const double held_ns = std::max(carry_ns + serialisation_ns, way.tail_ns - waited_ns);
    const int64_t free_ns = whole_ns(held_ns, kSerialisation);
    if (is_last(end_of(link, slot), message.dst)) {
      const int64_t arrival_ns = whole_ns(rate.latency_ns + held_ns, kArrival);
      schedule(EventKind::kDeliver, now_ps, arrival_ns, message.id);
      release(slot);
    } else {
      const int64_t head_ns = whole_ns(rate.latency_ns + carry_ns, kLatency);
      way.arrived_ps = later(now_ps, head_ns);
      way.carry_ns = rate.latency_ns + carry_ns - static_cast<double>(head_ns);
      way.tail_ns = rate.latency_ns + held_ns - static_cast<double>(head_ns);
      schedule(EventKind::kForward, now_ps, head_ns, crossed_by(link, slot));
    }
    hold(link, message.bytes, free_ns);
    schedule(EventKind::kRelease, now_ps, free_ns, &link - links_.data());
  }

  // A link gets busy with a message; from now, when it is free again and the message arrives.
  Times occupy(Link& link, int32_t rate, int64_t bytes) {
    Speed& speed = speeds_[static_cast<size_t>(rate)];
    Times times = speed.times;
    if (link.scale != 1) {
      times = compute(speed.rate, bytes, link.scale);
    } else if (speed.bytes != bytes) {
      times = speed.times = compute(speed.rate, bytes, 1);
      speed.bytes = bytes;
    }
    hold(link, bytes, times.free_ns);
    return times;
  }
  static void hold(Link& link, int64_t bytes, int64_t free_ns) {
    link.busy = true;
    link.bytes += bytes;  // no more than bytes_, which is checked
    link.busy_ns += free_ns;
  }
  static Times compute(const Rate& rate, int64_t bytes, double scale) {
    const double serialisation_ns = static_cast<double>(bytes) / (rate.bytes_per_ns * scale);
    return {whole_ns(serialisation_ns, kSerialisation),
            whole_ns(rate.latency_ns + serialisation_ns, kArrival)};
  }

  // For a message before which so many wait.
  int32_t allocate(int32_t before) {
    const auto number = static_cast<uint16_t>(before / kTogether % kShelves);
    Shelf& shelf = shelves_[number];
    const int32_t slot = shelf.free;
    if (slot >= 0) {
      shelf.free = messages_[static_cast<size_t>(slot)].after;
      return slot;
    }
    if (shelf.next == shelf.end) {
      if (messages_.size() > INT32_MAX - kRow)
        throw Error(ASTRA_NET_MODEL, "more than 2^31 - 1 transfers wait or are on their way");
      shelf.next = static_cast<int32_t>(messages_.size());
      shelf.end = shelf.next + static_cast<int32_t>(kRow);
      messages_.resize(messages_.size() + kRow);
      if (special_) ways_.resize(messages_.size());
      if (graph_) sources_.resize(messages_.size());
      shelf_of_.push_back(number);
    }
    return shelf.next++;
  }
  void release(int32_t slot) {
    Shelf& shelf = shelves_[shelf_of_[static_cast<size_t>(slot) / kRow]];
    messages_[static_cast<size_t>(slot)].after = shelf.free;
    shelf.free = slot;
  }

  bool cut_through_ = false, special_ = false, by_message_ = false, folds_ = false;
  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> graph_;
  std::vector<Recent> recent_;  // per endpoint
  std::vector<Speed> speeds_;  // per rate of the topology
  std::optional<LinkIndex> index_;
  std::vector<Link> links_;  // those in use
  astra_net::LinkLoad load_;  // of these
  astra::Blocks<Message> messages_;
  // Of the messages_, or empty: where they come from, which only lists of links ask, and more.
  astra::Blocks<int32_t> sources_;
  astra::Blocks<Way> ways_;
  Shelf shelves_[kShelves];
  std::vector<uint16_t> shelf_of_;  // by row of the messages_
  std::vector<Change> changes_;
  int64_t transfers_ = 0, bytes_ = 0;
  int64_t over_several_ = 0;  // transfers of more than one link
  // With folded ranks: by transfer, how long after its start it got the place of its delivery; and
  // how often the order of two messages could differ from that elsewhere.
  std::unordered_map<int64_t, int64_t> waited_;
  int64_t ties_ = 0;
};

}  // namespace

ASTRA_NET_BACKEND(Aware)
