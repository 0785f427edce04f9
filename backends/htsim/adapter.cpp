// SPDX-License-Identifier: MIT
//
// The contract (astra_net.h) over htsim: options in, statistics out, its event list in bounded steps.
#include <memory>
#include <string>
#include <vector>

#include "astra_net.hpp"
#include "network.hpp"

namespace astra_htsim {

namespace {

// A transport that this version of htsim has, and what its own program runs it with; but for deeper
// queues where packets are dropped, since Swift does not always send again what is lost.
struct Known {
  const char* name;
  std::unique_ptr<Transport> (*make)(Network&, Options&);
  int packet_bytes;
  const char* queue;
  int queue_packets, mark_packets;
  const char* host_queue;
  bool sprays;
  uint32_t most_switches;
};

const std::vector<Known>& transports() {
  static const std::vector<Known> known = {
#ifdef ASTRA_HTSIM_HAS_NDP
      {"ndp", make_ndp, 9000, "composite", 15, 0, "fair_prio", true, UINT32_MAX},
#endif
#ifdef ASTRA_HTSIM_HAS_EQDS
      {"eqds", make_eqds, 4150, "composite", 35, 0, "fair_prio", true, UINT32_MAX},
#endif
#ifdef ASTRA_HTSIM_HAS_ROCE
      {"roce", make_roce, 9000, "lossless", 15, 0, "fair_prio", false, UINT32_MAX},
#endif
#ifdef ASTRA_HTSIM_HAS_HPCC
      {"hpcc", make_hpcc, 9000, "lossless", 15, 0, "fair_prio", false, 5},
#endif
#ifdef ASTRA_HTSIM_HAS_SWIFT
      {"swift", make_swift, 4000, "random", 100, 0, "swift", false, UINT32_MAX},
#endif
#ifdef ASTRA_HTSIM_HAS_TCP
      {"tcp", make_tcp, 1500, "random", 97, 0, "fair_prio", false, UINT32_MAX},
      {"dctcp", make_dctcp, 1500, "ecn", 97, 15, "fair_prio", false, UINT32_MAX},
#endif
  };
  return known;
}

const Known& chosen(Options& options) {
  std::vector<std::string> names;
  for (const Known& known : transports()) names.emplace_back(known.name);
  if (names.empty()) refuse("this version of htsim has no transport that the adapter knows");
  const std::string name = options.choice("transport", names.front(), names);
  for (const Known& known : transports())
    if (name == known.name) return known;
  refuse("transport");
}

Settings settings_of(Options& options) {
  const Known& known = chosen(options);
  Settings settings;
  settings.transport = known.name;
  // Sizes are 16 bits in htsim, headers of up to 64 bytes included.
  settings.packet_bytes =
      static_cast<int>(options.integer("mtu_bytes", known.packet_bytes, 128, 65000));
  settings.queue =
      options.choice("queue", known.queue, {"composite", "lossless", "ecn", "random", "fifo"});
  const bool trims = settings.queue == "composite",
             wanted = std::string(known.queue) == "composite";
  const bool lossless = settings.queue == "lossless";
  if (trims != wanted || (lossless && std::string(known.queue) != "lossless"))
    refuse("option 'queue' is '" + settings.queue + "', but transport=" + known.name + " needs " +
           (wanted ? "composite: only its packets can be trimmed, and it counts on it"
                   : "one that neither trims nor pauses"));
  settings.queue_bytes =
      options.integer("queue_packets", known.queue_packets, 1, 1 << 20) * settings.packet_bytes;
  settings.mark_bytes =
      options.integer("mark_packets", known.mark_packets, 0, 1 << 20) * settings.packet_bytes;
  settings.host_queue =
      options.choice("host_queue", known.host_queue, {"fair_prio", "prio", "swift"});
  if ((settings.host_queue == "swift") != (settings.transport == "swift"))
    refuse("option 'host_queue' is '" + settings.host_queue +
           "', but swift is for transport=swift");
  settings.pfc_low = static_cast<uint64_t>(options.integer("pfc_low_packets", 12, 1, 1 << 20));
  settings.pfc_high = static_cast<uint64_t>(options.integer("pfc_high_packets", 15, 2, 1 << 20));
  if (settings.pfc_low >= settings.pfc_high)
    refuse("option 'pfc_low_packets' must be below pfc_high_packets");
  settings.most_paths = static_cast<uint32_t>(options.integer("paths", 64, 1, 10000));
  settings.all_ways = known.sprays || options.flag("plb", false);
  settings.sprays = known.sprays;
  settings.scan_ps = static_cast<int64_t>(options.number("timer_us", 10000, 1, 1e9) * 1e6);
  settings.completes_with_data = options.choice("completion", "data", {"data", "ack"}) == "data";
  settings.most_switches = known.most_switches;
  return settings;
}

}  // namespace

class HtsimModel final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "htsim";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  HtsimModel(astra_net::Config& config, const astra_net::Log& log) {
#ifdef ASTRA_HTSIM_HAS_FAT_TREE
    fat_tree_part = make_fat_tree;
#endif
    network_ = std::make_unique<Network>(config, settings_of(config.options), log);
    const Known& known = chosen(config.options);
    network_->transport = known.make(*network_, config.options);
    network_->on_delivery = [this](int64_t id) { deliver(id, network_->now_ps()); };
  }

  void start(const astra_net_transfer& transfer) override {
    statistics_.clear();
    network_->start(transfer);
  }

  astra_net::Reached run(int64_t until_ps) override {
    statistics_.clear();
    const auto until = static_cast<simtime_picosec>(until_ps - network_->epoch_ps());
    bool idle = false;
    while (!interrupted()) {
      idle = Clock::idle();
      if (idle && until_ps == astra_net::kNever) break;
      const simtime_picosec next = idle ? until : Clock::next();
      if (delivered_something() && (idle || next > Clock::now())) break;
      if (idle || next > until) {
        Clock::set(until);
        break;
      }
      EventList::doNextEvent();
      ++network_->events_run;
    }
    return {network_->now_ps(), idle};
  }

  int64_t next_event_ps() override { return network_->next_ps(); }

  std::string stats() override {
    // Asked for its size, then for its text.
    if (statistics_.empty()) statistics_ = network_->stats();
    return statistics_;
  }
  std::string where_stuck() const override { return network_->where_stuck(); }

 private:
  std::unique_ptr<Network> network_;
  std::string statistics_;  // empty where something happened since
};

}  // namespace astra_htsim

ASTRA_NET_BACKEND(astra_htsim::HtsimModel)
