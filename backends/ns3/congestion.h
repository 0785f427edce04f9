// SPDX-License-Identifier: MIT
//
// Congestion controls.  One object serves all queue pairs of a fabric; what it remembers of each
// pair stands in the pair.  All follow the published algorithms; where the public RDMA fork that
// ASTRA-sim uses differs from a paper, an attribute says so.
#ifndef ASTRA_NS3_CONGESTION_H
#define ASTRA_NS3_CONGESTION_H

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

// None: line rate and a fixed window.  Also the base of the others.
class CongestionControl : public ns3::Object {
 public:
  static ns3::TypeId GetTypeId();
  virtual void Begin(QueuePair&) {}
  // An ACK or NACK for the pair has arrived; `ack` carries the mark and telemetry of its packet.
  virtual void OnAck(QueuePair&, const PacketRecord& /*ack*/) {}
  // With cnp_interval: a congestion notification packet has arrived; so many bytes are sent.
  virtual void OnCnp(QueuePair&) {}
  virtual void OnSend(QueuePair&, uint32_t /*bytes*/) {}
  virtual void OnTimer(QueuePair&, uint32_t /*kind*/) {}
  virtual void OnPortRate(QueuePair&) {}  // its port is another, or slower or faster
  virtual void End(QueuePair&) {}  // the last ACK has come

  // Fast-forward: what it remembers of a pair and what decides on the pair's future, as long as no
  // packet is marked; false where it cannot tell, as most cannot that learn from every ACK.
  virtual bool Describe(const QueuePair& qp, std::vector<uint64_t>* words) const;
  // So many bytes may be sent before it reacts to their number, and so many have been.
  virtual uint64_t BytesToChange(const QueuePair&) const { return UINT64_MAX; }
  virtual void Skipped(QueuePair&, uint64_t /*bytes*/) {}
  // How often the pair can move on by so many bytes before a message of it ends, or is sent or
  // acknowledged as a whole, or it counts to an end.
  uint64_t PeriodsLeft(const QueuePair& qp, uint64_t bytes) const;
  // Whether the pair's rate stays as it is while no packet is marked.
  virtual bool Settled(const QueuePair& qp) const;

  Fabric* fabric = nullptr;
  int64_t min_bps = 100000000;

 protected:
  FabricSimulator& Sim() const { return *fabric->sim; }
  Tick Microseconds(double us) const;
  void StartTimer(QueuePair& qp, uint32_t kind, Tick delay);
  void StopTimer(QueuePair& qp, uint32_t kind);
};

// DCQCN as the simulator of the HPCC paper and so ASTRA-sim's fork have it: marks come back in
// acknowledgements, the sender paces its decreases, alpha moves by its timer alone, and only a timer
// raises the rate.
class Dcqcn final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;
  void OnTimer(QueuePair& qp, uint32_t kind) override;
  void OnPortRate(QueuePair& qp) override;
  void End(QueuePair& qp) override;
  bool Describe(const QueuePair& qp, std::vector<uint64_t>* words) const override;
  bool Settled(const QueuePair& qp) const override { return qp.timer[kIncrease] == 0; }

  double gain = 1.0 / 256;
  double alpha_interval_us = 55, decrease_interval_us = 4, increase_interval_us = 55;
  uint32_t fast_recovery_times = 5;
  int64_t additive_bps = 0, hyper_bps = 0;  // 0: in proportion to the line rate
  bool clamp_target = false;

 private:
  enum Timer : uint32_t { kAlpha, kDecrease, kIncrease };
  void Rest(QueuePair& qp, uint32_t kind);
  void Wake(QueuePair& qp, uint32_t kind);
  void CatchUp(QueuePair& qp);
  Tick Interval(uint32_t kind) const;
};

// DCQCN as published: Zhu et al., "Congestion Control for Large-Scale RDMA Deployments", SIGCOMM
// 2015, sections 3.1 and 3.2.  The receiver paces CNPs, each of which lowers the rate; a timer and a
// byte counter raise it.
class DcqcnSigcomm15 final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnCnp(QueuePair& qp) override;
  void OnSend(QueuePair& qp, uint32_t bytes) override;
  void OnTimer(QueuePair& qp, uint32_t kind) override;
  void OnPortRate(QueuePair& qp) override;
  void End(QueuePair& qp) override;
  bool Describe(const QueuePair& qp, std::vector<uint64_t>* words) const override;
  uint64_t BytesToChange(const QueuePair& qp) const override {
    return qp.cnp.limited ? qp.cnp.bytes_left - 1 : UINT64_MAX;
  }
  void Skipped(QueuePair& qp, uint64_t bytes) override {
    CnpState& s = qp.cnp;
    if (!s.limited) return;
    const uint64_t before = byte_counter - s.bytes_left;
    s.byte_stage += static_cast<uint32_t>((before + bytes) / byte_counter);
    s.bytes_left = byte_counter - (before + bytes) % byte_counter;
  }
  bool Settled(const QueuePair& qp) const override { return qp.timer[kIncrease] == 0; }
  Tick CnpInterval() const { return Microseconds(cnp_interval_us); }

  double gain = 1.0 / 256;
  double cnp_interval_us = 50, alpha_interval_us = 55, increase_interval_us = 55;
  uint64_t byte_counter = 10000000;
  uint32_t fast_recovery_times = 5;
  int64_t additive_bps = 0, hyper_bps = 0;  // 0: in proportion to the line rate

 private:
  enum Timer : uint32_t { kIncrease };
  int64_t Increased(QueuePair& qp) const;
};

// Li et al., "HPCC: High Precision Congestion Control", SIGCOMM 2019.
class Hpcc final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;

  double target_utilization = 0.95;
  uint32_t max_stage = 5;
  int64_t additive_bps = 50000000;
  bool fast_react = true, per_hop_rates = false, sample_feedback = false;

 private:
  void Update(QueuePair& qp, const PacketRecord& ack, bool fast);
  Load Sample(const QueuePair& qp, const HopTelemetry& last, const HopTelemetry& now,
              uint64_t* tau) const;
  std::pair<int64_t, uint32_t> Step(const QueuePair& qp, Load u, int64_t bps, uint32_t stage) const;
};

// Ben Basat et al., "PINT: Probabilistic In-band Network Telemetry", SIGCOMM 2020, section 4.3:
// HPCC from one number, the highest utilisation on the path, in a logarithmic code.
class HpccPint final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;

  double target_utilization = 0.95, log_base = 1.05, probability = 1;
  uint32_t max_stage = 5;
  int64_t additive_bps = 50000000;
};

// Mittal et al., "TIMELY: RTT-based Congestion Control for the Datacenter", SIGCOMM 2015.
class Timely final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;

  double alpha = 0.875, beta = 0.8;
  double low_us = 50, high_us = 500, min_rtt_us = 20;
  int64_t additive_bps = 10000000, hyper_bps = 50000000;
  // The fork never stamps its packets, so that the RTT it sees is the time since the start of the
  // simulation and every rate falls to the minimum.
  bool unstamped = false;
};

// Alizadeh et al., "Data Center TCP", SIGCOMM 2010, acting on a rate.
class Dctcp final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;

  double gain = 1.0 / 16;
  int64_t additive_bps = 1000000000;
};

// Kumar et al., "Swift: Delay is Simple and Effective for Congestion Control in the Datacenter",
// SIGCOMM 2020.
class Swift final : public CongestionControl {
 public:
  static ns3::TypeId GetTypeId();
  void Begin(QueuePair& qp) override;
  void OnAck(QueuePair& qp, const PacketRecord& ack) override;

  double additive_packets = 1, beta = 0.8, max_decrease = 0.5;
  // Target = the pair's unloaded RTT + base + min(flow scaling / sqrt(window), its limit).
  double base_us = 5, flow_scaling_us = 10, flow_scaling_limit_us = 50, min_window = 0.01;
};

// The logarithmic code of PINT (its section 4.3): utilisation in units of 1/512.
constexpr double kPintUnit = 512;

}  // namespace astra_ns3

#endif  // ASTRA_NS3_CONGESTION_H
