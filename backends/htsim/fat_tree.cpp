// SPDX-License-Identifier: MIT
//
// htsim's own fat-tree, of its .topo files: its switches choose the ways of packets.
#include "network.hpp"
// htsim, whose macros reach far.
#include "fat_tree_switch.h"
#include "fat_tree_topology.h"

namespace astra_htsim {

namespace {

class FatTree final : public Fabric {
 public:
  FatTree(Network& network, const std::string& file, const std::vector<astra_net_link>& links,
          int32_t endpoints, Options& options)
      : network_(network) {
    const Settings& settings = network.settings();
    options.choice("routing", "ecmp", {"ecmp"});
    const std::map<std::string, FatTreeSwitch::routing_strategy> strategies = {
        {"ecmp", FatTreeSwitch::ECMP},
        {"adaptive", FatTreeSwitch::ADAPTIVE_ROUTING},
        {"rr", FatTreeSwitch::RR},
        {"rr_ecmp", FatTreeSwitch::RR_ECMP}};
    FatTreeSwitch::_strategy = strategies.at(
        options.choice("switch_routing", "ecmp", {"ecmp", "adaptive", "rr", "rr_ecmp"}));
    const std::map<std::string, queue_type> queues = {
        {"composite", COMPOSITE}, {"lossless", LOSSLESS_INPUT}, {"ecn", ECN}, {"random", RANDOM}};
    const auto queue = queues.find(settings.queue);
    if (queue == queues.end())
      refuse("option 'queue' is '" + settings.queue + "', which htsim's fat-tree does not have");
    queue_type kind = queue->second;
    if (kind == COMPOSITE && settings.mark_bytes > 0) {
      kind = COMPOSITE_ECN_LB;
      FatTreeSwitch::_ecn_threshold_fraction =
          static_cast<double>(settings.mark_bytes) / static_cast<double>(settings.queue_bytes);
    }
    const queue_type host = settings.host_queue == "swift"  ? SWIFT_SCHEDULER
                            : settings.host_queue == "prio" ? PRIORITY
                                                            : FAIR_PRIO;
    // It takes what another file has said before for a key that is there twice.
    for (int tier = 0; tier < 3; ++tier)
      FatTreeTopology::set_tier_parameters(tier, 0, 0, 0, 0, 1, 0, 1);
    FatTreeTopology::set_latencies(0, 0, 0, 0, 0, 0);
    tree_ = FatTreeTopology::load(file.c_str(), nullptr, network.events(),
                                  static_cast<mem_b>(settings.queue_bytes), kind, host);
    if (tree_->no_of_nodes() != static_cast<uint32_t>(endpoints))
      refuse("option 'fat_tree': " + std::to_string(tree_->no_of_nodes()) +
             " hosts, but the network has " + std::to_string(endpoints));
    count_links(links, endpoints);
  }

  bool switched() const override { return true; }

  void attach(flowid_t flow, int32_t src, int32_t dst) override {
    for (const int32_t host : {src, dst})
      switch_of(host)->addHostPort(host, static_cast<int>(flow), &network_.port(host));
  }

  const Ways& ways(int32_t src, int32_t dst) override {
    const std::pair<int32_t, int32_t> pair(src, dst);
    const auto found = pairs_.find(pair);
    if (found != pairs_.end()) return found->second;
    Ways made;
    std::unique_ptr<std::vector<const Route*>> paths(
        tree_->get_bidir_paths(static_cast<uint32_t>(src), static_cast<uint32_t>(dst), false));
    for (const Route* path : *paths) {
      auto* whole = new Route(*path, network_.port(dst));
      delete path;
      made.all.push_back(whole);
    }
    made.one = made.all[astra_net::flow_hash(src, dst, src) % made.all.size()];
    BaseQueue* queue = out(src);
    made.entry = new Route();
    made.entry->push_back(queue);
    made.entry->push_back(tree_->pipes_ns_nlp[at(src)][tor(src)][0]);
    made.entry->push_back(queue->getRemoteEndpoint());
    made.count = network_.settings().most_paths;
    made.send_bps = bps_[at(src)];
    made.receive_bps = bps_[at(dst)];
    made.send_port = src;
    made.receive_port = dst;
    made.host_queue = dynamic_cast<HostQueue*>(queue);
    return pairs_.emplace(pair, made).first->second;
  }

 private:
  static size_t at(int32_t node) { return static_cast<size_t>(node); }
  uint32_t tor(int32_t host) { return tree_->HOST_POD_SWITCH(static_cast<uint32_t>(host)); }
  Switch* switch_of(int32_t host) { return tree_->switches_lp[tor(host)]; }
  BaseQueue* out(int32_t host) { return tree_->queues_ns_nlp[at(host)][tor(host)][0]; }

  // The links of the network, as the reader of .topo files numbers nodes: hosts, then tier by tier.
  void count_links(const std::vector<astra_net_link>& links, int32_t endpoints) {
    std::map<std::pair<int32_t, int32_t>, std::vector<size_t>> numbers;
    for (size_t i = 0; i < links.size(); ++i) numbers[{links[i].src, links[i].dst}].push_back(i);
    bps_.assign(at(endpoints), 0);
    for (const astra_net_link& link : links)
      if (link.src < endpoints)
        bps_[at(link.src)] = static_cast<linkspeed_bps>(link.bytes_per_second * 8 + 0.5);
    const auto leaves = static_cast<int32_t>(tree_->switches_lp.size());
    const int32_t leaf = endpoints, spine = leaf + leaves;
    const int32_t core = spine + static_cast<int32_t>(tree_->switches_up.size());
    const auto all = [&](std::vector<std::vector<std::vector<BaseQueue*>>>& queues, int32_t from,
                         int32_t to) {
      for (size_t a = 0; a < queues.size(); ++a)
        for (size_t b = 0; b < queues[a].size(); ++b) {
          const std::vector<size_t>& known =
              numbers[{from + static_cast<int32_t>(a), to + static_cast<int32_t>(b)}];
          for (size_t i = 0; i < queues[a][b].size() && i < known.size(); ++i)
            if (queues[a][b][i] != nullptr) queues[a][b][i]->setLogger(network_.counter(known[i]));
        }
    };
    all(tree_->queues_ns_nlp, 0, leaf);
    all(tree_->queues_nlp_ns, leaf, 0);
    all(tree_->queues_nlp_nup, leaf, spine);
    all(tree_->queues_nup_nlp, spine, leaf);
    all(tree_->queues_nup_nc, spine, core);
    all(tree_->queues_nc_nup, core, spine);
  }

  Network& network_;
  FatTreeTopology* tree_ = nullptr;  // which has no destructor worth the name
  std::vector<linkspeed_bps> bps_;
  std::map<std::pair<int32_t, int32_t>, Ways> pairs_;
};

}  // namespace

std::unique_ptr<Fabric> make_fat_tree(Network& network, const std::string& file,
                                      const std::vector<astra_net_link>& links, int32_t endpoints,
                                      Options& options) {
  return std::make_unique<FatTree>(network, file, links, endpoints, options);
}

}  // namespace astra_htsim
