// SPDX-License-Identifier: MIT
#include "tcp.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ecmp.h"
#include "ns3/boolean.h"
#include "ns3/config.h"
#include "ns3/data-rate.h"
#include "ns3/double.h"
#include "ns3/drop-tail-queue.h"
#include "ns3/error-model.h"
#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/ipv4-route.h"
#include "ns3/ipv4-routing-protocol.h"
#include "ns3/ipv4.h"
#include "ns3/net-device-queue-interface.h"
#include "ns3/packet.h"
#include "ns3/point-to-point-channel.h"
#include "ns3/pointer.h"
#include "ns3/rng-seed-manager.h"
#include "ns3/simulator.h"
#include "ns3/string.h"
#include "ns3/tcp-socket-factory.h"
#include "ns3/traffic-control-helper.h"
#include "ns3/uinteger.h"
#include "tables.h"
#include "transport.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

using namespace ns3;

struct TcpNetwork::Flow {
  int64_t id = 0;
  int32_t src = 0, dst = 0;
  uint64_t bytes = 0, written = 0, received = 0;
  Ptr<Socket> sender;
};

// Shortest paths over what is up, a table per destination, made when it is first asked for.
class TcpNetwork::Routes {
 public:
  Routes(size_t endpoints, size_t nodes, const std::vector<TcpLink>& links)
      : endpoints_(endpoints), links_(links), up_(links.size(), true), out_(nodes) {
    for (uint32_t i = 0; i < links.size(); ++i)
      out_[static_cast<size_t>(links[i].src)].push_back(i);
  }
  void SetUp(uint32_t link, bool up) {
    up_[link] = up;
    towards_.clear();
  }
  // The links by which `node` sends on to `host`.
  const std::vector<uint32_t>& Choices(int32_t node, int32_t host) {
    std::vector<std::vector<uint32_t>>& table = towards_[host];
    if (table.empty()) table = TableTo(host);
    return table[static_cast<size_t>(node)];
  }

 private:
  // Breadth first from the destination; only switches forward.
  std::vector<std::vector<uint32_t>> TableTo(int32_t host) const {
    std::vector<std::vector<uint32_t>> table(out_.size());
    std::vector<int32_t> distance(out_.size(), -1), queue = {host};
    distance[static_cast<size_t>(host)] = 0;
    for (size_t i = 0; i < queue.size(); ++i)
      for (const uint32_t back : out_[static_cast<size_t>(queue[i])]) {
        const uint32_t link = links_[back].reverse;
        if (!up_[link] || !up_[back]) continue;
        const auto next = static_cast<size_t>(links_[link].src);
        const int32_t steps = distance[static_cast<size_t>(queue[i])] + 1;
        if (distance[next] < 0) {
          distance[next] = steps;
          if (next >= endpoints_) queue.push_back(links_[link].src);
        }
        if (distance[next] == steps) table[next].push_back(link);
      }
    return table;
  }

  size_t endpoints_;
  const std::vector<TcpLink>& links_;
  std::vector<bool> up_;
  std::vector<std::vector<uint32_t>> out_;  // per node, its links
  std::unordered_map<int32_t, std::vector<std::vector<uint32_t>>> towards_;
};

// Per flow over all shortest paths, with the same hash as RDMA's switches.  ns-3's own global
// routing takes one of the paths for everything, or another one for each packet.
class TcpNetwork::Routing final : public Ipv4RoutingProtocol {
 public:
  Routing(TcpNetwork* network, int32_t node) : network_(network), node_(node) {}

  Ptr<Ipv4Route> RouteOutput(Ptr<Packet> packet, const Ipv4Header& header, Ptr<NetDevice>,
                             Socket::SocketErrno& error) override {
    Ptr<Ipv4Route> route = Find(packet, header);
    // ns-3 asks for a connection's own address before its first packet; that one has a route, or is
    // repeated until it has.
    if (route == nullptr && packet == nullptr && network_->first_link_.count(node_) > 0)
      route = By(network_->first_link_.at(node_), header.GetDestination());
    error = route == nullptr ? Socket::ERROR_NOROUTETOHOST : Socket::ERROR_NOTERROR;
    return route;
  }
  bool RouteInput(Ptr<const Packet> packet, const Ipv4Header& header, Ptr<const NetDevice> device,
                  const UnicastForwardCallback& forward, const MulticastForwardCallback&,
                  const LocalDeliverCallback& deliver, const ErrorCallback&) override {
    const auto interface = static_cast<uint32_t>(ipv4_->GetInterfaceForDevice(device));
    if (ipv4_->IsDestinationAddress(header.GetDestination(), interface)) {
      deliver(packet, header, interface);
      return true;
    }
    const Ptr<Ipv4Route> route = Find(packet, header);
    if (route != nullptr) forward(route, packet, header);
    return route != nullptr;
  }
  void NotifyInterfaceUp(uint32_t) override {}
  void NotifyInterfaceDown(uint32_t) override {}
  void NotifyAddAddress(uint32_t, Ipv4InterfaceAddress) override {}
  void NotifyRemoveAddress(uint32_t, Ipv4InterfaceAddress) override {}
  void SetIpv4(Ptr<Ipv4> ipv4) override { ipv4_ = ipv4; }
  void PrintRoutingTable(Ptr<OutputStreamWrapper>, Time::Unit) const override {}

 private:
  Ptr<Ipv4Route> Find(Ptr<const Packet> packet, const Ipv4Header& header) const {
    const uint32_t source = header.GetSource().Get(), destination = header.GetDestination().Get();
    const auto host = network_->host_of_.find(destination);
    if (host == network_->host_of_.end()) return nullptr;
    const std::vector<uint32_t>& choices = network_->routes_->Choices(node_, host->second);
    if (choices.empty()) return nullptr;
    std::array<uint8_t, 4> ports{};  // the first words of a TCP header
    if (packet != nullptr) packet->CopyData(ports.data(), ports.size());
    const auto port = [&](size_t at) {
      return static_cast<uint16_t>(ports[at] << 8 | ports[at + 1]);
    };
    const uint32_t hash =
        EcmpHash(source, destination, port(0), port(2), static_cast<uint32_t>(node_));
    return By(choices[hash % choices.size()], header.GetDestination());
  }
  Ptr<Ipv4Route> By(uint32_t link, Ipv4Address destination) const {
    auto route = Create<Ipv4Route>();
    route->SetDestination(destination);
    route->SetGateway(network_->far_end_[link]);
    route->SetOutputDevice(network_->devices_[link]);
    if (static_cast<size_t>(node_) < network_->addresses_.size())
      route->SetSource(network_->addresses_[static_cast<size_t>(node_)]);
    return route;
  }

  TcpNetwork* network_;
  int32_t node_;
  Ptr<Ipv4> ipv4_;
};

namespace {

constexpr uint16_t kPort = 4791;

void CountPacket(TcpNetwork::LinkCount* count, Ptr<const Packet> packet) {
  count->bytes += packet->GetSize();
  ++count->packets;
}

void CountDrop(TcpNetwork::LinkCount* count, Ptr<const Packet>) { ++count->drops; }

uint64_t PortKey(const Address& address) {
  const InetSocketAddress inet = InetSocketAddress::ConvertFrom(address);
  return (static_cast<uint64_t>(inet.GetIpv4().Get()) << 16) | inet.GetPort();
}

}  // namespace

TcpNetwork::TcpNetwork(const TcpParameters& parameters, int32_t endpoints, int32_t nodes,
                       const std::vector<TcpLink>& links)
    : counts(links.size()), parameters_(parameters), links_(links), devices_(links.size()) {
  RngSeedManager::SetSeed(parameters.seed);
  RngSeedManager::SetRun(parameters.run);
  TypeId control;
  TypeId::LookupByNameFailSafe("ns3::" + parameters.control, &control);
  Config::SetDefault("ns3::TcpL4Protocol::SocketType", TypeIdValue(control));
  Config::SetDefault("ns3::TcpSocket::SegmentSize", UintegerValue(parameters.segment_bytes));
  Config::SetDefault("ns3::TcpSocket::SndBufSize", UintegerValue(parameters.socket_bytes));
  Config::SetDefault("ns3::TcpSocket::RcvBufSize", UintegerValue(parameters.socket_bytes));
  Config::SetDefault("ns3::TcpSocketBase::MinRto",
                     TimeValue(NanoSeconds(static_cast<uint64_t>(parameters.min_rto_us * 1000))));
  // A second is the Internet's; on a microsecond network it would decide every result.
  Config::SetDefault("ns3::TcpSocket::ConnTimeout",
                     TimeValue(NanoSeconds(static_cast<uint64_t>(parameters.min_rto_us * 4000))));
  Config::SetDefault("ns3::TcpSocket::DelAckTimeout",
                     TimeValue(NanoSeconds(static_cast<uint64_t>(parameters.min_rto_us * 200))));
  Config::SetDefault("ns3::TcpSocketBase::UseEcn", StringValue(parameters.ecn ? "On" : "Off"));

  nodes_.Create(static_cast<uint32_t>(nodes));
  InternetStackHelper internet;
  internet.SetIpv6StackInstall(false);
  internet.Install(nodes_);
  routes_ =
      std::make_unique<Routes>(static_cast<size_t>(endpoints), static_cast<size_t>(nodes), links_);
  for (int32_t node = 0; node < nodes; ++node)
    nodes_.Get(static_cast<uint32_t>(node))
        ->GetObject<Ipv4>()
        ->SetRoutingProtocol(CreateObject<Routing>(this, node));
  addresses_.resize(static_cast<size_t>(endpoints));
  far_end_.resize(links.size());
  Ipv4AddressHelper address("10.0.0.0", "255.255.255.252");
  for (size_t i = 0; i < links.size(); ++i) {
    const TcpLink& link = links[i];
    if (link.reverse < i) continue;
    auto channel = CreateObject<PointToPointChannel>();
    channel->SetAttribute("Delay", TimeValue(PicoSeconds(static_cast<uint64_t>(link.latency_ps))));
    NetDeviceContainer pair;
    for (const size_t side : {i, static_cast<size_t>(link.reverse)}) {
      auto device = CreateObject<PointToPointNetDevice>();
      device->SetDataRate(DataRate(static_cast<uint64_t>(links[side].bps)));
      device->SetMtu(
          static_cast<uint16_t>(std::min<uint32_t>(65535, parameters.segment_bytes + 120)));
      device->SetAddress(Mac48Address::Allocate());
      auto queue = CreateObject<DropTailQueue<Packet>>();
      // With ECN the packets wait, and are marked, in a queue disc above the device.
      queue->SetAttribute(
          "MaxSize", StringValue(parameters.ecn ? std::string("2p")
                                                : std::to_string(parameters.queue_bytes) + "B"));
      device->SetQueue(queue);
      // What is lost on a link is found corrupt at its end.
      const double loss = links[links[side].reverse].loss;
      if (loss > 0) {
        auto model = CreateObject<RateErrorModel>();
        model->SetAttribute("ErrorRate", DoubleValue(loss));
        model->SetAttribute("ErrorUnit", StringValue("ERROR_UNIT_PACKET"));
        device->SetAttribute("ReceiveErrorModel", PointerValue(model));
      }
      nodes_.Get(static_cast<uint32_t>(links[side].src))->AddDevice(device);
      device->Attach(channel);
      devices_[side] = device;
      device->TraceConnectWithoutContext("PhyTxBegin",
                                         MakeBoundCallback(&CountPacket, &counts[side]));
      queue->TraceConnectWithoutContext("Drop", MakeBoundCallback(&CountDrop, &counts[side]));
      if (parameters.ecn) {  // lets the queue disc see when the device's own queue is full
        auto interface = CreateObject<NetDeviceQueueInterface>();
        interface->GetTxQueue(0)->ConnectQueueTraces(queue);
        device->AggregateObject(interface);
      }
      pair.Add(device);
    }
    TrafficControlHelper control_helper;
    if (parameters.ecn) {
      // Marks on the queue's present length, as data-centre switches do.
      control_helper.SetRootQueueDisc(
          "ns3::RedQueueDisc", "MaxSize", StringValue(std::to_string(parameters.queue_bytes) + "B"),
          "MinTh", DoubleValue(parameters.kmin_bytes), "MaxTh",
          DoubleValue(std::max(parameters.kmax_bytes, parameters.kmin_bytes + 1)), "LInterm",
          DoubleValue(parameters.pmax > 0 ? 1 / parameters.pmax : 50), "QW", DoubleValue(1),
          "UseEcn", BooleanValue(true), "UseHardDrop", BooleanValue(false), "MeanPktSize",
          UintegerValue(parameters.segment_bytes));
      control_helper.Install(pair);
    }
    const Ipv4InterfaceContainer interfaces = address.Assign(pair);
    address.NewNetwork();
    for (uint32_t side = 0; side < 2; ++side) {
      const int32_t node = side == 0 ? link.src : link.dst;
      const uint32_t out = side == 0 ? static_cast<uint32_t>(i) : link.reverse;
      far_end_[out] = interfaces.GetAddress(1 - side);
      if (node >= endpoints) continue;
      if (first_link_.emplace(node, out).second)
        addresses_[static_cast<size_t>(node)] = interfaces.GetAddress(side);
      host_of_[interfaces.GetAddress(side).Get()] = node;
    }
  }
  for (int32_t node = 0; node < endpoints; ++node) {
    Ptr<Socket> listener = Socket::CreateSocket(nodes_.Get(static_cast<uint32_t>(node)),
                                                TcpSocketFactory::GetTypeId());
    listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), kPort));
    listener->Listen();
    listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                MakeCallback(&TcpNetwork::Accept, this));
    listeners_.push_back(listener);
  }
}

TcpNetwork::~TcpNetwork() = default;

void TcpNetwork::Start(int64_t id, int32_t src, int32_t dst, uint64_t bytes) {
  auto owned = std::make_unique<Flow>();
  Flow* flow = owned.get();
  flow->id = id;
  flow->src = src;
  flow->dst = dst;
  flow->bytes = bytes;
  flow->sender =
      Socket::CreateSocket(nodes_.Get(static_cast<uint32_t>(src)), TcpSocketFactory::GetTypeId());
  flows_[id] = std::move(owned);
  flow->sender->Bind(InetSocketAddress(addresses_[static_cast<size_t>(src)], 0));
  Address local;
  flow->sender->GetSockName(local);
  by_port_[PortKey(local)] = flow;
  sending_[PeekPointer(flow->sender)] = flow;
  flow->sender->SetConnectCallback(MakeCallback(&TcpNetwork::Connected, this),
                                   MakeCallback(&TcpNetwork::GivesUp, this));
  flow->sender->SetCloseCallbacks(MakeNullCallback<void, Ptr<Socket>>(),
                                  MakeCallback(&TcpNetwork::GivesUp, this));
  flow->sender->SetSendCallback(MakeCallback(&TcpNetwork::Sendable, this));
  flow->sender->Connect(InetSocketAddress(addresses_[static_cast<size_t>(dst)], kPort));
}

void TcpNetwork::Connected(Ptr<Socket> socket) { Sendable(socket, 0); }

// ns-3 tries six times.  The run ends here: what has been delivered before goes on to say goodbye
// over a dead link for ever.
void TcpNetwork::GivesUp(Ptr<Socket> socket) {
  const auto found = sending_.find(PeekPointer(socket));
  if (found == sending_.end()) return;
  on_failure("TCP gives transfer " + std::to_string(found->second->id) +
             " up after its retransmissions" + WhereStuck());
}

void TcpNetwork::Sendable(Ptr<Socket> socket, uint32_t) {
  const auto found = sending_.find(PeekPointer(socket));
  if (found == sending_.end()) return;
  Flow* flow = found->second;
  while (flow->written < flow->bytes) {
    const uint64_t room = flow->sender->GetTxAvailable();
    const uint64_t size = std::min<uint64_t>({flow->bytes - flow->written, room, 1u << 20});
    if (size == 0) return;
    const int sent = flow->sender->Send(Create<Packet>(static_cast<uint32_t>(size)));
    if (sent <= 0) return;
    flow->written += static_cast<uint64_t>(sent);
  }
}

void TcpNetwork::Accept(Ptr<Socket> socket, const Address& from) {
  const auto found = by_port_.find(PortKey(from));
  if (found == by_port_.end()) return;
  receiving_[PeekPointer(socket)] = found->second;
  socket->SetRecvCallback(MakeCallback(&TcpNetwork::Receive, this));
}

void TcpNetwork::Receive(Ptr<Socket> socket) {
  const auto found = receiving_.find(PeekPointer(socket));
  if (found == receiving_.end()) {
    while (socket->Recv() != nullptr) {
    }
    return;
  }
  Flow* flow = found->second;
  while (Ptr<Packet> packet = socket->Recv()) {
    if (packet->GetSize() == 0) break;
    flow->received += packet->GetSize();
  }
  if (flow->received < flow->bytes) return;
  const int64_t id = flow->id;
  receiving_.erase(found);
  Address local;
  flow->sender->GetSockName(local);
  by_port_.erase(PortKey(local));
  sending_.erase(PeekPointer(flow->sender));
  flow->sender->Close();
  socket->Close();
  flows_.erase(id);
  on_complete(id);
}

void TcpNetwork::SetLink(uint32_t link, double scale) {
  Ptr<PointToPointNetDevice> device = devices_[link];
  Ptr<Ipv4> ipv4 = device->GetNode()->GetObject<Ipv4>();
  const auto interface = static_cast<uint32_t>(ipv4->GetInterfaceForDevice(device));
  routes_->SetUp(link, scale != 0);
  if (scale == 0) {
    ipv4->SetDown(interface);
  } else {
    device->SetDataRate(DataRate(std::max<uint64_t>(
        1, static_cast<uint64_t>(static_cast<double>(links_[link].bps) * scale))));
    if (!ipv4->IsUp(interface)) ipv4->SetUp(interface);
  }
}

std::string TcpNetwork::WhereStuck() const {
  std::string text;
  int named = 0;
  for (const auto& [id, flow] : flows_) {
    if (++named > 3) break;
    text += (named == 1 ? "; waiting: transfer " : ", transfer ") + std::to_string(id) + " (" +
            std::to_string(flow->src) + " -> " + std::to_string(flow->dst) + ", " +
            std::to_string(flow->received) + " of " + std::to_string(flow->bytes) +
            " bytes over TCP)";
  }
  return text;
}

namespace {

class TcpTransport final : public Transport {
 public:
  TcpTransport(const Site& site, const TcpParameters& parameters, const std::vector<TcpLink>& links)
      : Transport(site),
        links_(site.config.links),
        network_(parameters, site.config.endpoints, site.config.nodes, links) {
    network_.on_failure = [this](const std::string& why) {
      if (failure().empty()) Fail(why);
    };
    network_.on_complete = [this](int64_t id) {
      Deliver(id);
      Flow flow = running_[id];
      running_.erase(id);
      flow.fct_ps = NowPs() - flow.start_ps;
      flows_.push_back(flow);
    };
  }

  void Start(const astra_net_transfer& t) override {
    // The stack has one queue per port, so another class would not be what it says.
    if (t.traffic_class != 0)
      throw astra_net::Error(ASTRA_NET_MODEL,
                             "transfer " + std::to_string(t.id) +
                                 ": traffic_class=" + std::to_string(t.traffic_class) +
                                 ", but transport=tcp has only class 0");
    running_[t.id] = {t.id, t.src, t.dst, t.bytes, t.start_ps, 0};
    network_.Start(t.id, t.src, t.dst, static_cast<uint64_t>(t.bytes));
  }
  void SetLink(uint32_t link, double scale) override { network_.SetLink(link, scale); }
  std::string WhereStuck() const override { return network_.WhereStuck(); }
  std::string Statistics() const override;

 private:
  struct Flow {
    int64_t id, src, dst, bytes, start_ps, fct_ps;
  };
  std::vector<astra_net_link> links_;
  TcpNetwork network_;
  std::map<int64_t, Flow> running_;
  std::vector<Flow> flows_;
};

std::string TcpTransport::Statistics() const {
  JsonTable links("links", {"link", "src", "dst", "bytes", "busy_ps", "packets", "drops"});
  JsonTable flows("flows", {"id", "src", "dst", "bytes", "start_ps", "fct_ps"});
  uint64_t packets = 0, drops = 0;
  for (size_t i = 0; i < links_.size(); ++i) {
    const TcpNetwork::LinkCount& count = network_.counts[i];
    packets += count.packets;
    drops += count.drops;
    links.Add({static_cast<int64_t>(i), links_[i].src, links_[i].dst,
               static_cast<int64_t>(count.bytes),
               std::llround(static_cast<double>(count.bytes) / links_[i].bytes_per_second * 1e12),
               static_cast<int64_t>(count.packets), static_cast<int64_t>(count.drops)});
  }
  for (const Flow& flow : flows_)
    flows.Add({flow.id, flow.src, flow.dst, flow.bytes, flow.start_ps, flow.fct_ps});
  return "{\"packet_hops\": " + std::to_string(packets) + ", \"drops\": " + std::to_string(drops) +
         ", \"events\": " + std::to_string(simulator_->EventsRun()) + ", \"tables\": {" +
         links.Text() + ", " + flows.Text() + "}}";
}

}  // namespace

std::unique_ptr<Transport> MakeTcp(Site* site) {
  const astra_net::Config& config = site->config;
  astra_net::Options& options = site->config.options;
  site->SetTick(kNanosecondClock ? 1000 : 1);
  options.choice("routing", "ecmp", {"ecmp"});
  TcpParameters parameters;
  parameters.control = options.text("tcp", parameters.control);
  // The parent of TcpCubic is another one in older releases of ns-3, by mistake.
  const auto fits = [](const TypeId& tid) {
    return tid.IsChildOf(TypeId::LookupByName("ns3::TcpCongestionOps")) ||
           tid.GetName() == "ns3::TcpCubic";
  };
  TypeId control;
  if (!TypeId::LookupByNameFailSafe("ns3::" + parameters.control, &control) || !fits(control)) {
    std::string known;
    for (uint16_t i = 0; i < TypeId::GetRegisteredN(); ++i) {
      const TypeId tid = TypeId::GetRegistered(i);
      if (fits(tid) && tid.HasConstructor() && tid.GetName().rfind("ns3::Tcp", 0) == 0)
        known += (known.empty() ? "" : ", ") + tid.GetName().substr(5);
    }
    Refuse("option 'tcp' is '" + parameters.control + "', but must be one of " + known);
  }
  parameters.segment_bytes = static_cast<uint32_t>(options.integer("mtu_bytes", 1448, 1, 60000));
  parameters.queue_bytes =
      static_cast<uint64_t>(options.integer("queue_bytes", 4 << 20, 2048, 1 << 30));
  parameters.socket_bytes =
      static_cast<uint64_t>(options.integer("socket_bytes", 4 << 20, 4096, 1 << 30));
  parameters.min_rto_us = options.number("rto_us", 1000, 1, 1e9);
  parameters.seed = static_cast<uint32_t>(options.integer("seed", 1, 1, 4294944442));
  parameters.run = static_cast<uint32_t>(options.integer("run", 1, 0, 1 << 20));
  parameters.ecn = options.flag("ecn", parameters.control == "TcpDctcp");
  for (const auto& row : ReadTable("ecn_map", options.text("ecn_map", "0:65000:65000:1"), 4)) {
    parameters.kmin_bytes = row[1];
    parameters.kmax_bytes = row[2];
    parameters.pmax = row[3];
  }
  std::vector<TcpLink> links;
  for (size_t i = 0; i < config.links.size(); ++i) {
    const astra_net_link& link = config.links[i];
    links.push_back({link.src, link.dst,
                     static_cast<int64_t>(std::llround(link.bytes_per_second * 8)), link.latency_ps,
                     link.loss, site->reverse[i]});
  }
  return std::make_unique<TcpTransport>(*site, parameters, links);
}

}  // namespace astra_ns3
