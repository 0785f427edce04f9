// SPDX-License-Identifier: MIT
//
// Congestion-aware: a message holds one link after the other, and queues where a link is busy,
// first come, first served (Won et al., "ASTRA-sim2.0", ISPASS 2023, section IV-C).  It holds a
// link for floor(bytes / bandwidth) ns and is at the next node, whole, floor(latency + bytes /
// bandwidth) ns after it got the link: store and forward.  With semantics=corrected the next link
// may take it as soon as its head is there: cut-through.
#include <optional>

#include "core.hpp"
#include "topology.hpp"

namespace {

using namespace analytical;

class Aware final : public Core<Aware> {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "analytical-aware";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT |
                        ASTRA_NET_CAP_LINK_FAULTS | ASTRA_NET_CAP_CONGESTION |
                        ASTRA_NET_CAP_ORDERED;
    info.resolution_ps = kPsPerNs;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Aware(astra_net::Config& config, const astra_net::Log&)
      : cut_through_(is_corrected(config)) {
    if (has_dimensions(config))
      dimensions_.emplace(config, cut_through_);
    else
      graph_.emplace(config);
    const std::vector<Rate>& rates = dimensions_ ? dimensions_->rates() : graph_->rates();
    for (const Rate& rate : rates) speeds_.push_back({rate, whole_ns(rate.latency_ns), 0, 0, 0});
    const int64_t count = dimensions_ ? dimensions_->link_count() : graph_->link_count();
    if (count <= kDenseLinks) dense_.assign(static_cast<size_t>(count), -1);
  }

  void begin(const astra_net_transfer& transfer, int64_t now_ps) {
    ++transfers_;
    bytes_ += transfer.bytes;
    forward({transfer.id, transfer.bytes, 0, transfer.src, transfer.dst, {transfer.src, -1}},
            now_ps);
  }

  void handle(EventKind kind, int64_t subject, int64_t now_ps) {
    const auto index = static_cast<size_t>(subject);
    switch (kind) {
      case EventKind::kRelease:
        links_[index].busy = false;
        serve(index, now_ps);
        break;
      case EventKind::kForward: {
        const Message message = messages_[index].message;
        release(static_cast<int32_t>(subject));
        forward(message, now_ps);
        break;
      }
      case EventKind::kChange:
        change(changes_[index], now_ps);
        break;
      case EventKind::kDeliver:
        break;
    }
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) final {
    // A change comes before everything else in its instant.
    const auto change = static_cast<int64_t>(changes_.size());
    const Event event{INT64_MIN + change, change, EventKind::kChange};
    changes_.push_back({link, bandwidth_scale});
    if (at_ps == now_ps_) links_[link_state(link)].scale = bandwidth_scale;
    queue_.push(at_ps, event);
  }

  std::string stats() final {
    std::vector<std::pair<int64_t, const Link*>> used;
    for (const Link& link : links_) used.emplace_back(link.number, &link);
    std::sort(used.begin(), used.end());
    std::string link, src, dst, bytes, busy;
    for (const auto& [number, one] : used) {
      const Ends ends = dimensions_ ? dimensions_->ends(number) : graph_->ends(number);
      const char* comma = link.empty() ? "" : ",";
      link += comma + std::to_string(number);
      src += comma + std::to_string(ends.src);
      dst += comma + std::to_string(ends.dst);
      bytes += comma + std::to_string(one->bytes);
      busy += comma + std::to_string(one->busy_ns * kPsPerNs);
    }
    return "{\"transfers\": " + std::to_string(transfers_) +
           ", \"bytes\": " + std::to_string(bytes_) + ", \"tables\": {\"links\": {\"link\": [" +
           link + "], \"src\": [" + src + "], \"dst\": [" + dst + "], \"bytes\": [" + bytes +
           "], \"busy_ps\": [" + busy + "]}}}";
  }

  std::string where_stuck() const final {
    std::string text;
    int named = 0;
    for (const Link& link : links_) {
      if (link.first < 0 || ++named > 4) continue;
      const Ends ends = dimensions_ ? dimensions_->ends(link.number) : graph_->ends(link.number);
      text += (text.empty() ? "waiting for link " : ", ") + std::to_string(link.number) + " (" +
              std::to_string(ends.src) + " -> " + std::to_string(ends.dst) + ")";
    }
    return text.empty() ? text : "(" + text + (named > 4 ? ", ..." : "") + ", which is down)";
  }

 private:
  struct Message {
    int64_t id, bytes;
    int64_t tail_ps;  // when its last byte is at the present node (cut-through only)
    int32_t src, dst;
    Position at;
  };
  // A message that waits for a link or travels to a node that is not its last.
  struct Stored {
    Message message;
    Hop hop;       // the one that it waits for
    int32_t next;  // in the link's queue, or in the free list
  };
  struct Link {
    int64_t number;
    int64_t bytes = 0, busy_ns = 0;
    double scale = 1;               // of the bandwidth; 0 is down
    int32_t first = -1, last = -1;  // queue of stored messages
    bool busy = false;
  };
  // A rate, and the last delays at it: collectives send one size again and again.
  struct Speed {
    Rate rate;
    int64_t latency_ns;
    int64_t bytes, free_ns, arrival_ns;
  };
  struct Change {
    int64_t link;
    double scale;
  };
  static constexpr int64_t kDenseLinks = int64_t{1} << 16;

  // Where the state of a link is.  Made when first used: n endpoints that are FullyConnected have
  // n (n - 1) links, of which a ring uses n.
  size_t link_state(int64_t number) {
    int32_t index = dense_.empty() ? sparse_.find(number) : dense_[static_cast<size_t>(number)];
    if (index < 0) {
      index = static_cast<int32_t>(links_.size());
      links_.emplace_back();
      links_.back().number = number;
      if (dense_.empty())
        sparse_.insert(number, index);
      else
        dense_[static_cast<size_t>(number)] = index;
    }
    return static_cast<size_t>(index);
  }

  void forward(const Message& message, int64_t now_ps) {
    const Hop hop = dimensions_ ? dimensions_->next(message.src, message.dst, message.at)
                                : graph_->next(message.src, message.dst, message.at);
    const size_t index = link_state(hop.link);
    Link& link = links_[index];
    if (!link.busy && link.scale > 0 && link.first < 0) {
      transmit(index, message, hop, now_ps);
      return;
    }
    const int32_t stored = store(message, hop);
    if (link.first < 0)
      link.first = stored;
    else
      messages_[static_cast<size_t>(link.last)].next = stored;
    link.last = stored;
  }

  // The first message that waits for a link gets it, if the link is up and free.
  void serve(size_t index, int64_t now_ps) {
    Link& link = links_[index];
    if (link.first < 0 || link.busy || !(link.scale > 0)) return;
    const int32_t stored = link.first;
    const Stored first = messages_[static_cast<size_t>(stored)];
    link.first = first.next;
    release(stored);
    transmit(index, first.message, first.hop, now_ps);
  }

  void transmit(size_t index, const Message& message, const Hop& hop, int64_t now_ps) {
    Link& link = links_[index];
    Speed& speed = speeds_[static_cast<size_t>(hop.rate)];
    if (link.scale != 1) {
      // A slowed link shares nothing; 0 bytes match no message.
      compute(speed, message.bytes, link.scale);
      speed.bytes = 0;
    } else if (speed.bytes != message.bytes) {
      compute(speed, message.bytes, 1);
      speed.bytes = message.bytes;
    }
    int64_t free_ns = speed.free_ns, arrival_ns = speed.arrival_ns;
    const bool last = hop.next.node == message.dst && hop.next.hub < 0;
    if (cut_through_ && message.tail_ps > now_ps) {
      // A slower link behind us feeds this one: it is held until the tail has passed.
      const int64_t late_ns = (message.tail_ps - now_ps) / kPsPerNs;
      free_ns = std::max(free_ns, late_ns);
      arrival_ns = std::max(arrival_ns, late_ns + speed.latency_ns);
    }
    link.busy = true;
    link.bytes += message.bytes;
    link.busy_ns += free_ns;
    // The arrival comes before the release: the order that ASTRA-sim schedules them in.
    if (last) {
      schedule(now_ps, arrival_ns, EventKind::kDeliver, message.id);
    } else {
      Message onward = message;
      onward.at = hop.next;
      if (cut_through_) onward.tail_ps = astra_net::add_ps(now_ps, arrival_ns * kPsPerNs);
      schedule(now_ps, cut_through_ ? speed.latency_ns : arrival_ns, EventKind::kForward,
               store(onward, {}));
    }
    schedule(now_ps, free_ns, EventKind::kRelease, static_cast<int64_t>(index));
  }

  static void compute(Speed& speed, int64_t bytes, double scale) {
    const double serialisation_ns =
        static_cast<double>(bytes) / (speed.rate.bytes_per_ns * scale);
    speed.free_ns = whole_ns(serialisation_ns);
    speed.arrival_ns = whole_ns(speed.rate.latency_ns + serialisation_ns);
  }

  void change(const Change& one, int64_t now_ps) {
    const size_t index = link_state(one.link);
    links_[index].scale = one.scale;
    // A message on the link keeps the bandwidth that it began with.
    serve(index, now_ps);
  }

  int32_t store(const Message& message, const Hop& hop) {
    int32_t index = free_;
    if (index < 0) {
      index = static_cast<int32_t>(messages_.size());
      messages_.emplace_back();
    } else {
      free_ = messages_[static_cast<size_t>(index)].next;
    }
    messages_[static_cast<size_t>(index)] = {message, hop, -1};
    return index;
  }
  void release(int32_t index) {
    messages_[static_cast<size_t>(index)].next = free_;
    free_ = index;
  }

  bool cut_through_;
  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> graph_;
  std::vector<Speed> speeds_;     // per rate of the topology
  std::vector<int32_t> dense_;    // number of a link -> index into links_, or -1
  FlatMap sparse_;                // the same, where there are too many links for a table
  std::vector<Link> links_;       // those in use
  std::vector<Stored> messages_;
  int32_t free_ = -1;
  std::vector<Change> changes_;
  int64_t transfers_ = 0, bytes_ = 0;
};

}  // namespace

ASTRA_NET_BACKEND(Aware)
