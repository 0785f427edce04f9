// SPDX-License-Identifier: MIT
//
// A network behind the contract: cycles to picoseconds, transfers to messages.
#pragma once

#include <algorithm>
#include <cstdio>

#include "astra_net.hpp"
#include "clock.hpp"
#include "network.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace garnet {

constexpr uint32_t kTrafficClasses = 32;

// Whatever Network::make() makes; an adapter adds who it is, and what that can do.
class Model : public astra_net::Model {
  using Error = astra_net::Error;
  static constexpr int64_t kNever = astra_net::kNever;

 public:
  Model(astra_net::Config& given, const astra_net::Log& log) : log_(log) {
    const Config config = read_config(given);
    clock_.hz = config.clock_hz;
    vnet_per_dimension_ = given.options.flag("vnet_per_dimension", false);
    record_transfers_ = given.options.flag("record_transfers", true);
    try {
      network_ = Network::make(config);
    } catch (const ConfigError& error) {
      throw Error(ASTRA_NET_INVALID, error.what());
    }
    for (const Channel& channel : config.channels)
      link_ends_.emplace_back(channel.src, channel.dst);
  }

  // NOLINTNEXTLINE(bugprone-copy-constructor-init): what the base holds is its simulation's own.
  Model(const Model& other)
      : astra_net::Model(),
        log_(other.log_),
        clock_(other.clock_),
        network_(other.network_->clone()),
        vnet_per_dimension_(other.vnet_per_dimension_),
        record_transfers_(other.record_transfers_),
        link_ends_(other.link_ends_),
        flows_(other.flows_) {}

  // Endpoints are the interfaces, again and again where there are more: endpoint e is interface
  // e mod n.  So a message of an interface to itself, which Garnet has and the contract has not,
  // can be written as one from e to e + n.
  void start(const astra_net_transfer& transfer) override {
    const Config& config = network_->config();
    const auto nodes = static_cast<int32_t>(config.nodes.size());
    Message message;
    message.id = transfer.id;
    message.order = transfer.start_ps;
    message.cycle = clock_.first_cycle_from(transfer.start_ps);
    if (message.cycle > kMostCycle) clock_.beyond_time(message.cycle);
    message.bytes = transfer.bytes;
    message.src = transfer.src % nodes;
    message.dst = transfer.dst % nodes;
    if (!network_->has_route(message.src, message.dst))
      throw Error(ASTRA_NET_MODEL, "transfer " + std::to_string(transfer.id) +
                                       ": no route from node " + std::to_string(message.src) +
                                       " to node " + std::to_string(message.dst) +
                                       (config.graph ? config.graph->remedy() : ""));
    message.packet_bytes = network_->packet_bytes(message.src, message.dst);
    const int64_t largest =
        message.packet_bytes ? std::min(message.packet_bytes, transfer.bytes) : transfer.bytes;
    if (largest / config.flit_bytes >= INT32_MAX)
      throw Error(ASTRA_NET_MODEL, "transfer " + std::to_string(transfer.id) + ": a packet of " +
                                       std::to_string(largest) +
                                       " bytes has more than 2^31 flits; set a smaller "
                                       "packet_bytes");
    uint32_t vnet = transfer.traffic_class;
    // Then a transfer over a slow dimension does not hold up those behind it over fast ones.
    if (vnet_per_dimension_)
      vnet = static_cast<uint32_t>(network_->first_dimension(message.src, message.dst));
    message.vnet = static_cast<int32_t>(vnet % config.vnets.size());
    network_->enqueue(message);
    statistics_.clear();
  }

  astra_net::Reached run(int64_t until_ps) override {
    statistics_.clear();
    const int64_t last = until_ps == kNever ? kNever : clock_.last_cycle_to(until_ps);
    for (;;) {
      const int64_t cycle = network_->next_cycle();
      if (cycle == garnet::kNever) {
        // Stuck for want of a link is no deadlock; the caller says so, with where_stuck().
        if (network_->in_flight() > 0) deadlock(true);
        return {until_ps, true};
      }
      if (cycle > last) return {until_ps, false};
      if (cycle > kMostCycle) clock_.beyond_time(cycle);
      network_->run(cycle);
      if (!network_->deliveries().empty()) {
        report(cycle);
        return {clock_.ps_of(cycle), false};
      }
      if (network_->take_suspicion()) deadlock(false);
      if (network_->config().fast_forward) network_->fast_forward(last);
      if (interrupted()) return {clock_.ps_of(cycle), false};
    }
  }

  int64_t link_count(int64_t) const override {
    return static_cast<int64_t>(network_->config().channels.size());
  }

  int64_t next_event_ps() override {
    const int64_t cycle = network_->next_cycle();
    return cycle == garnet::kNever ? kNever : clock_.ps_of(std::min(cycle, kMostCycle));
  }

  void set_link(int32_t link, int64_t at_ps, double bandwidth_scale) override {
    const double given =
        network_->config().channels[static_cast<size_t>(link)].wire.cycles_per_flit;
    LinkChange change;
    change.cycle = clock_.first_cycle_from(at_ps);
    change.order = at_ps;
    change.channel = link;
    if (at_ps == kNever || change.cycle > kMostCycle)
      throw Error(ASTRA_NET_INVALID,
                  "at_ps=" + std::to_string(at_ps) + " is beyond the range of time");
    if (bandwidth_scale > 0) {
      change.cycles_per_flit = given / bandwidth_scale;
      if (!(change.cycles_per_flit >= 1 && change.cycles_per_flit <= static_cast<double>(kMost)))
        throw Error(ASTRA_NET_INVALID, "bandwidth_scale=" + text(bandwidth_scale) + " of link " +
                                           std::to_string(link) + "; allowed: 0, or from " +
                                           text(given / static_cast<double>(kMost)) + " to " +
                                           text(given) + ", a flit per cycle");
    }
    network_->change_link(change);
  }

  std::string where_stuck() const override {
    const std::vector<int32_t> links = network_->links_waited_for();
    if (links.empty()) return "";
    std::string named;
    for (size_t i = 0; i < links.size() && i < 4; ++i) {
      const auto [src, dst] = link_ends_[static_cast<size_t>(links[i])];
      named += (named.empty() ? "" : ", ") + std::to_string(links[i]) + " (" + std::to_string(src) +
               " -> " + std::to_string(dst) + ")";
    }
    return "(waiting for link " + named + (links.size() > 4 ? ", ..." : "") + ", which is down)";
  }

  // Hosts ask for the size first, then for the text.
  std::string stats() override {
    if (!statistics_.empty()) return statistics_;
    for (Flow& flow : flows_)
      if (flow.ideal_fct_ps == 0)
        flow.ideal_fct_ps = clock_.ps_of(network_->zero_load_cycles(
            static_cast<int32_t>(flow.src), static_cast<int32_t>(flow.dst), flow.bytes));
    const std::string warning = saturation_warning(*network_);
    if (!warning.empty()) log_(30, warning);
    return statistics_ = statistics_json(*network_, flows_, link_ends_);
  }

  std::unique_ptr<astra_net::Model> copy() const override { return std::make_unique<Model>(*this); }
  void save(astra::Writer& archive) override {
    archive(flows_);
    network_->save(archive);
  }
  void load(astra::Reader& archive) override {
    archive(flows_);
    network_->load(archive);
  }

 private:
  static std::string text(double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", value);
    return digits;
  }

  void report(int64_t cycle) {
    auto& deliveries = network_->deliveries();
    const int64_t now_ps = clock_.ps_of(cycle);
    std::sort(deliveries.begin(), deliveries.end(),
              [](const auto& a, const auto& b) { return a.message.id < b.message.id; });
    for (const Delivery& delivery : deliveries) {
      const Message& message = delivery.message;
      deliver(message.id, now_ps);
      if (!record_transfers_) continue;
      flows_.push_back({message.id, message.src, message.dst, message.bytes, message.order,
                        now_ps - message.order, 0, delivery.packets, delivery.hops,
                        clock_.ps_of(delivery.queueing_cycles / delivery.packets),
                        clock_.ps_of(delivery.network_cycles / delivery.packets)});
    }
    deliveries.clear();
  }

  // `all`: nothing can move.  Otherwise only VCs that stood still for a whole threshold count.
  void deadlock(bool all) {
    const std::string circle = network_->find_deadlock(all);
    if (circle.empty() && (!all || !network_->links_waited_for().empty())) return;
    const std::string cycle = std::to_string(network_->now());
    log_(40, "deadlock in cycle " + cycle + ": " + (circle.empty() ? "no circle found" : circle));
    throw Error(ASTRA_NET_MODEL, "deadlock in cycle " + cycle + ", " +
                                     std::to_string(network_->in_flight()) +
                                     " transfers in flight: " + circle);
  }

  astra_net::Log log_;
  Clock clock_;
  std::unique_ptr<Network> network_;
  bool vnet_per_dimension_ = false, record_transfers_ = true;
  std::vector<std::pair<int32_t, int32_t>> link_ends_;
  std::vector<Flow> flows_;
  std::string statistics_;  // empty where something happened since
};

}  // namespace garnet
