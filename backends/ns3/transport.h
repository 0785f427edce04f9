// SPDX-License-Identifier: MIT
//
// What carries transfers through ns-3: RDMA or TCP.  RDMA is made of our devices (models.cc) or,
// where the ns-3 is the public RDMA fork, of the fork's (fork.cc); one of the two is compiled.
#ifndef ASTRA_NS3_TRANSPORT_H
#define ASTRA_NS3_TRANSPORT_H

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "astra_net.hpp"
#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

// Whether ns3::Time counts nanoseconds, as all that the fork computes with supposes, or picoseconds.
extern const bool kNanosecondClock;

// The network, and what a transport works with.  Endpoints that pass packets on for others are two
// nodes in `config`, an endpoint and the switch `stand_in` + its number, joined by links from
// `own_links` on; `graph` is the network as it was given.
struct Site {
  astra_net::Config& config;
  const astra_net::Config& graph;
  int32_t stand_in;
  uint32_t own_links;
  std::vector<uint32_t> reverse;  // per link of `config`: the other direction
  FabricSimulator* simulator;
  int64_t tick_ps = 1;
  std::function<void(int64_t id, int64_t time_ps)> deliver;
  astra_net::Log log;

  void SetTick(int64_t ps) {
    tick_ps = ps;
    simulator->SetTick(kNanosecondClock ? ps / 1000 : ps);
  }
};

class Transport {
 public:
  explicit Transport(const Site& site)
      : simulator_(site.simulator), tick_ps_(site.tick_ps), deliver_(site.deliver) {}
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  virtual void Start(const astra_net_transfer& transfer) = 0;
  virtual void SetLink(uint32_t link, double scale) = 0;
  // As FabricSimulator::RunUntil; stops at the end of an instant that delivered something, or failed.
  virtual bool Run(Tick limit, const std::function<bool()>& interrupted) {
    stop_ = false;
    return simulator_->RunUntil(limit, &stop_, interrupted);
  }
  bool stopped() const { return stop_; }
  const std::string& failure() const { return failure_; }  // why it cannot go on, or empty
  // What was left out so far happens now, so that statistics have it.
  virtual void CatchUp() {}
  virtual std::string Statistics() const = 0;  // JSON
  virtual std::string WhereStuck() const = 0;

 protected:
  int64_t NowPs() const { return simulator_->NowTick() * tick_ps_; }
  void Deliver(int64_t id) {
    stop_ = true;
    deliver_(id, NowPs());
  }
  void Fail(const std::string& why) {
    stop_ = true;
    failure_ = why;
  }

  FabricSimulator* simulator_;
  int64_t tick_ps_;

 private:
  std::function<void(int64_t, int64_t)> deliver_;
  bool stop_ = false;
  std::string failure_;
};

// Each reads its options, sets the tick, and adds what it makes to ns-3.
std::unique_ptr<Transport> MakeTcp(Site* site);
std::unique_ptr<Transport> MakeRdma(Site* site);

}  // namespace astra_ns3

#endif  // ASTRA_NS3_TRANSPORT_H
