// SPDX-License-Identifier: MIT
// BookSim 2, cycle by cycle, as a backend: transfers become packets of flits.
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <deque>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "astra_net.hpp"
#include "booksim.hpp"
#include "booksim_config.hpp"
#include "network.hpp"
#include "routefunc.hpp"
#include "trafficmanager.hpp"

// What BookSim's main.cpp defines, and its parser, which is not compiled: options come one by one.
TrafficManager* trafficManager = nullptr;
int GetSimTime() { return trafficManager->getTime(); }
Stats* GetStats(const std::string& name) { return trafficManager->getStats(name); }
bool gPrintActivity = false, gTrace = false;
int gK, gN, gC, gNodes;
std::ostream* gWatchOut = nullptr;
extern "C" int yyparse() { return 1; }

std::ostringstream booksim_said;
static astra_net_status failure = ASTRA_NET_INTERNAL;  // what one of BookSim means at present

void booksim_failed() {
  std::string all = booksim_said.str();
  while (!all.empty() && all.back() == '\n') all.pop_back();
  throw astra_net::Error(failure, "BookSim: " + all.substr(all.find_last_of('\n') + 1));
}

namespace {
constexpr int64_t kDeadlockCycles = 1000000;  // without an arrival

struct Message {
  int64_t id, from_cycle, flits;  // flits that have not been made
  int64_t packets;                // those that have not arrived
  int dest;
};

// BookSim's traffic manager steps the network and its injection queues.  It is given messages in
// place of random traffic: `_empty_network` keeps it from drawing any.
class Traffic final : public TrafficManager {
 public:
  Traffic(const Configuration& config, const std::vector<Network*>& nets, int packet_flits)
      : TrafficManager(config, nets), packet_flits_(packet_flits), queues_(_nodes) {
    _empty_network = true;
    _sim_state = warming_up;  // counts every packet
  }

  void send(int src, const Message& message) {
    Message& kept = messages_[message.id] = message;
    kept.packets = (message.flits - 1) / packet_flits_ + 1;
    queues_[src].push_back(&kept);
  }

  // One cycle; messages that have arrived go to `arrived`.
  void step(int64_t cycle, std::vector<int64_t>& arrived) {
    arrived_ = &arrived;
    if (_cur_id > INT_MAX - static_cast<int64_t>(packet_flits_) * _nodes || _time == INT_MAX - 1)
      throw astra_net::Error(ASTRA_NET_MODEL,
                             "BookSim counts no further than 2^31 flits or cycles");
    for (int src = 0; src < _nodes; ++src)
      if (!queues_[src].empty() && queues_[src].front()->from_cycle <= cycle &&
          _partial_packets[src][0].empty())
        make_packet(src);
    ++quiet_cycles_;
    _Step();
  }

  bool busy() const { return !messages_.empty(); }
  int64_t quiet_cycles() const { return quiet_cycles_; }
  std::string stats() const {
    const Stats& latency = *_plat_stats[0];
    const double mean = latency.NumSamples() > 0 ? latency.Average() : 0;
    return "{\"cycles\":" + std::to_string(_time) + ",\"flits\":" + std::to_string(_cur_id) +
           ",\"mean_packet_latency_cycles\":" + std::to_string(mean) + "}";
  }

 private:
  void make_packet(int src) {
    Message& message = *queues_[src].front();
    const int size = static_cast<int>(std::min<int64_t>(packet_flits_, message.flits));
    for (int i = 0; i < size; ++i) {
      Flit* flit = Flit::New();
      flit->type = Flit::ANY_TYPE;
      flit->id = _cur_id++;
      flit->pid = _cur_pid;
      flit->src = src;
      flit->ctime = _time;
      flit->cl = 0;
      flit->subnetwork = _cur_pid % _subnets;
      flit->pri = _pri_type == age_based ? INT_MAX - _time : 0;
      flit->head = i == 0;
      flit->tail = i == size - 1;
      flit->dest = flit->head ? message.dest : -1;
      flit->data = &message;
      _total_in_flight_flits[0].emplace_hint(_total_in_flight_flits[0].end(), flit->id, flit);
      _partial_packets[src][0].push_back(flit);
    }
    ++_cur_pid;
    message.flits -= size;
    if (message.flits == 0) queues_[src].pop_front();
  }

  void _RetireFlit(Flit* flit, int dest) override {
    auto* message = static_cast<Message*>(flit->data);
    const bool tail = flit->tail;
    TrafficManager::_RetireFlit(flit, dest);
    quiet_cycles_ = 0;
    if (!tail || --message->packets > 0) return;
    arrived_->push_back(message->id);
    messages_.erase(message->id);
  }

  int packet_flits_;
  int64_t quiet_cycles_ = 0;
  std::vector<int64_t>* arrived_ = nullptr;
  std::unordered_map<int64_t, Message> messages_;  // in flight
  std::vector<std::deque<Message*>> queues_;       // of each node, not wholly made into packets
};

class BookSim final : public astra_net::Model {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "booksim";
    info.version = "2";
    // All is global: one simulation in a process.
    info.capabilities = ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_CONGESTION | ASTRA_NET_CAP_PEEK;
    info.resolution_ps = 1;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  BookSim(astra_net::Config& config, const astra_net::Log&)
      : flit_bytes_(config.options.integer("flit_bytes", 64, 1, 1 << 20)),
        cycle_ps_(config.options.number("cycle_ps", 1000, 1, 1e9)) {
    failure = ASTRA_NET_INVALID;
    booksim_said.str("");
    const auto packet_flits = static_cast<int>(config.options.integer("packet_size", 16, 1, 4096));
    take_settings(config.options);
    const std::string links = config.options.text("anynet", "");
    if (!links.empty()) write_links(links);
    settings_.Assign("traffic", std::string("uniform"));  // which is not used, and fits any network
    InitializeRoutingMap(settings_);
    std::vector<Network*> nets;
    for (int i = 0; i < settings_.GetInt("subnets"); ++i) {
      nets_.emplace_back(Network::New(settings_, "network_" + std::to_string(i)));
      if (nets_.back() == nullptr) booksim_failed();
      nets.push_back(nets_.back().get());
    }
    if (nets.empty() || nets[0]->NumNodes() != config.endpoints)
      throw astra_net::Error(ASTRA_NET_INVALID,
                             "BookSim makes a network of " + std::to_string(gNodes) +
                                 " nodes, but there are " + std::to_string(config.endpoints));
    traffic_ = new Traffic(settings_, nets, packet_flits);
    trafficManager = traffic_;
    settle_cycles_ = 16 + settings_.GetInt("credit_delay") + settings_.GetInt("output_delay");
    for (Network* net : nets)
      for (const CreditChannel* credits : net->GetChannelsCred())
        settle_cycles_ = std::max<int64_t>(settle_cycles_, 16 + credits->GetLatency());
    failure = ASTRA_NET_INTERNAL;
  }

  void start(const astra_net_transfer& transfer) override {
    auto cycle = static_cast<int64_t>(transfer.start_ps / static_cast<long double>(cycle_ps_));
    while (begin_ps(cycle) < transfer.start_ps) ++cycle;
    if (!traffic_->busy()) {
      // Nothing moves but credits on their way back; then BookSim's clock stands still.
      while (cycle_ < cycle && traffic_->quiet_cycles() < settle_cycles_) step();
      cycle_ = std::max(cycle_, cycle);
    }
    const int64_t flits = (transfer.bytes - 1) / flit_bytes_ + 1;
    traffic_->send(transfer.src, {transfer.id, cycle, flits, 0, transfer.dst});
  }

  // What arrives in a cycle is known when it has been simulated: at its end.
  astra_net::Reached run(int64_t until_ps) override {
    while (traffic_->busy() && begin_ps(cycle_ + 1) <= until_ps) {
      if (interrupted()) return {begin_ps(cycle_), false};
      step();
      for (const int64_t id : arrived_) deliver(id, begin_ps(cycle_));
      if (!arrived_.empty()) return {begin_ps(cycle_), !traffic_->busy()};
      if (traffic_->quiet_cycles() > kDeadlockCycles)
        throw astra_net::Error(ASTRA_NET_MODEL, "no flit arrives any more: a deadlock");
    }
    return {until_ps, !traffic_->busy()};
  }

  int64_t next_event_ps() override {
    return traffic_->busy() ? begin_ps(cycle_ + 1) : astra_net::kNever;
  }
  std::string stats() override { return traffic_->stats(); }

 private:
  int64_t begin_ps(int64_t cycle) const {
    const long double at_ps = std::ceil(static_cast<long double>(cycle) * cycle_ps_);
    if (at_ps > 9e18L) throw astra_net::Error(ASTRA_NET_MODEL, "time passes int64 picoseconds");
    return static_cast<int64_t>(at_ps);
  }

  void step() {
    arrived_.clear();
    booksim_said.str("");
    traffic_->step(cycle_++, arrived_);
  }

  // BookSim reads a list of links from a file only.
  void write_links(const std::string& links) {
    std::string name = "/tmp/booksim-XXXXXX";
    const int file = mkstemp(name.data());
    if (file < 0) throw astra_net::Error(ASTRA_NET_INTERNAL, "cannot write to /tmp");
    close(file);
    network_file_ = std::shared_ptr<void>(nullptr, [name](void*) { unlink(name.c_str()); });
    std::ofstream(name) << links << "\n";
    settings_.Assign("network_file", name);
  }

  // Numbers and texts, as in BookSim's files.
  void take_settings(astra_net::Options& options) {
    const auto ints = settings_.GetIntMap();
    const auto floats = settings_.GetFloatMap();
    const auto texts = settings_.GetStrMap();
    std::set<std::string> names;
    for (const auto& [name, value] : ints) names.insert(name);
    for (const auto& [name, value] : floats) names.insert(name);
    for (const auto& [name, value] : texts) names.insert(name);
    for (const std::string& name : names) {
      const std::string text = options.text(name, "");
      if (text.empty()) continue;
      char* end = nullptr;
      const double number = std::strtod(text.c_str(), &end);
      const bool is_number = *end == '\0' && std::abs(number) <= INT_MAX;
      if (is_number && ints.count(name) > 0 && number == std::floor(number))
        settings_.Assign(name, static_cast<int>(number));
      else if (is_number && floats.count(name) > 0)
        settings_.Assign(name, number);
      else if (texts.count(name) > 0)
        settings_.Assign(name, text);
      else
        throw astra_net::Error(ASTRA_NET_INVALID,
                               "option '" + name + "' is '" + text + "', but must be a number");
    }
  }

  int64_t flit_bytes_;
  double cycle_ps_;
  int64_t cycle_ = 0;  // the next one
  int64_t settle_cycles_ = 0;
  BookSimConfig settings_;
  std::shared_ptr<void> network_file_;
  // Never deleted: it would free the flits of all simulations, and BookSim would use them again.
  Traffic* traffic_ = nullptr;
  std::vector<std::unique_ptr<Network>> nets_;
  std::vector<int64_t> arrived_;
};

}  // namespace

ASTRA_NET_BACKEND(BookSim)
