// SPDX-License-Identifier: MIT
//
// TCP as a transport: nothing of ours, ns-3's own internet stack over its point-to-point devices,
// with one connection per transfer.
#ifndef ASTRA_NS3_TCP_H
#define ASTRA_NS3_TCP_H

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ns3/ipv4-address.h"
#include "ns3/node-container.h"
#include "ns3/point-to-point-net-device.h"
#include "ns3/socket.h"
#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

struct TcpParameters {
  std::string control = "TcpCubic";  // an ns-3 TypeId, without "ns3::"
  uint32_t segment_bytes = 1448;
  uint64_t queue_bytes = 4u << 20;   // per port
  uint64_t socket_bytes = 4u << 20;  // send and receive buffers
  double min_rto_us = 1000;
  bool ecn = false;
  double kmin_bytes = 0, kmax_bytes = 0, pmax = 0;
  uint32_t seed = 1, run = 1;
};

struct TcpLink {
  int32_t src, dst;
  int64_t bps;
  int64_t latency_ps;
  double loss;
  uint32_t reverse;  // index of the other direction
};

class TcpNetwork {
 public:
  TcpNetwork(const TcpParameters& parameters, int32_t endpoints, int32_t nodes,
             const std::vector<TcpLink>& links);
  ~TcpNetwork();
  void Start(int64_t id, int32_t src, int32_t dst, uint64_t bytes);
  void SetLink(uint32_t link, double scale);
  std::string WhereStuck() const;
  size_t InFlight() const { return flows_.size(); }

  struct LinkCount {
    uint64_t bytes = 0, packets = 0, drops = 0;
  };
  std::vector<LinkCount> counts;
  std::function<void(int64_t id)> on_complete;
  std::function<void(const std::string&)> on_failure;  // why the run cannot go on

 private:
  struct Flow;
  class Routes;
  class Routing;
  void Accept(ns3::Ptr<ns3::Socket> socket, const ns3::Address& from);
  void Receive(ns3::Ptr<ns3::Socket> socket);
  void Connected(ns3::Ptr<ns3::Socket> socket);
  void GivesUp(ns3::Ptr<ns3::Socket> socket);
  void Sendable(ns3::Ptr<ns3::Socket> socket, uint32_t room);

  TcpParameters parameters_;
  std::vector<TcpLink> links_;
  ns3::NodeContainer nodes_;
  std::vector<ns3::Ptr<ns3::PointToPointNetDevice>> devices_;  // per directed link, its sender
  std::unique_ptr<Routes> routes_;
  std::vector<ns3::Ipv4Address> far_end_;             // per directed link
  std::vector<ns3::Ipv4Address> addresses_;           // per endpoint, of its first link
  std::unordered_map<int32_t, uint32_t> first_link_;  // per endpoint
  std::unordered_map<uint32_t, int32_t> host_of_;     // endpoints by all of their addresses
  std::vector<ns3::Ptr<ns3::Socket>> listeners_;
  std::map<int64_t, std::unique_ptr<Flow>> flows_;
  std::unordered_map<uint64_t, Flow*> by_port_;  // sender's address and port
  std::unordered_map<ns3::Socket*, Flow*> sending_, receiving_;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_TCP_H
