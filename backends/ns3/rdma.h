// SPDX-License-Identifier: MIT
//
// What RDMA has whoever its devices are: queues that are sampled, and statistics.
#ifndef ASTRA_NS3_RDMA_H
#define ASTRA_NS3_RDMA_H

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "astra_load.hpp"
#include "parameters.h"
#include "transport.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

// What a link did, in one direction; `waiting_bytes` is now.
struct LinkState {
  uint64_t bytes, packets, drops, lost, marks, pauses;
  int64_t busy_ps;
  int64_t waiting_bytes, max_queue_bytes, mean_queue_bytes;
};

struct PauseEvent {
  Tick time;
  uint32_t link;  // towards the paused sender
  uint32_t queue;
  bool pause;
};

class Rdma : public Transport, private EventTarget {
 public:
  std::string Statistics() const override;

 protected:
  Rdma(const Site& site, const Parameters& parameters);

  struct Flow {
    int64_t id, src, dst, bytes, start_ps, fct_ps, ideal_fct_ps, retransmitted_bytes;
  };
  virtual size_t InFlight() const = 0;
  virtual size_t Links() const = 0;
  virtual LinkState Link(size_t link) const = 0;
  // Names and values of what is counted, to follow packet_hops, data_packets and events.
  struct Counts {
    uint64_t packet_hops, data_packets, resumes, retransmissions, timeouts;
    std::vector<std::pair<const char*, uint64_t>> more;
  };
  virtual Counts Count() const = 0;
  virtual const std::vector<PauseEvent>& Pauses() const = 0;

  void Complete(const Flow& flow) {
    Deliver(flow.id);
    if (flow_table_) flows_.push_back(flow);
  }
  // Once a transfer has started.
  void SampleFromNowOn();
  // A packet of so many bytes has begun to leave by a link, until `end`.
  void Load(size_t link, Tick end, uint32_t bytes) {
    const Tick now = simulator_->NowTick();
    load_.add(link, now * tick_ps_, end * tick_ps_, bytes,
              static_cast<double>((end - now) * tick_ps_));
  }
  bool LoadIsWanted() const { return load_.on(); }

 private:
  struct QueueSample {
    Tick time;
    uint32_t link;
    int64_t queue_bytes;
    uint64_t tx_bytes;
  };
  void Fire(uint32_t kind, uint64_t order) override;
  void SampleLater();

  bool flow_table_;
  std::vector<Flow> flows_;
  Tick sample_interval_;
  bool sampling_ = false;
  std::vector<QueueSample> samples_;
  astra_net::LinkLoad load_;
  // Of each link in the network as it was given, where an endpoint's stand-in is the endpoint.
  std::vector<std::pair<int32_t, int32_t>> ends_;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_RDMA_H
