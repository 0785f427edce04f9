// SPDX-License-Identifier: MIT
#include "congestion.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ns3/boolean.h"
#include "ns3/double.h"
#include "ns3/integer.h"
#include "ns3/uinteger.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

template <class T>
ns3::TypeId Id(const char* name) {
  return ns3::TypeId(name).SetParent<CongestionControl>().AddConstructor<T>();
}

// Rates are whole bits per second, rounded down at every step, as in ns3::DataRate.
int64_t Scale(int64_t bps, double factor) {
  return static_cast<int64_t>(static_cast<double>(bps) * factor);
}
int64_t Mean(int64_t a, int64_t b) { return a / 2 + b / 2; }

// The step of DCQCN's increase.  The paper has R_AI = 40 Mbit/s for 40 Gbit/s, and mlx5 adapters ten
// times as much for R_HAI (rpg_ai_rate 5, rpg_hai_rate 50).
int64_t IncreaseStep(const QueuePair& qp, bool hyper, int64_t additive_bps, int64_t hyper_bps) {
  const int64_t given = hyper ? hyper_bps : additive_bps;
  return given != 0 ? given : std::max<int64_t>(1, qp.port->bps / (hyper ? 100 : 1000));
}

}  // namespace

#define RATE(name, text, Class, member)                                  \
  AddAttribute(name, text " [bit/s]", ns3::IntegerValue(Class().member), \
               ns3::MakeIntegerAccessor(&Class::member), ns3::MakeIntegerChecker<int64_t>(1))
#define STEP(name, text, Class, member)                                                       \
  AddAttribute(name, text " [bit/s]; 0: by the line rate", ns3::IntegerValue(Class().member), \
               ns3::MakeIntegerAccessor(&Class::member), ns3::MakeIntegerChecker<int64_t>(0))
#define NUMBER(name, text, Class, member, least, most)       \
  AddAttribute(name, text, ns3::DoubleValue(Class().member), \
               ns3::MakeDoubleAccessor(&Class::member),      \
               ns3::MakeDoubleChecker<double>(least, most))
#define REAL(name, text, Class, member) NUMBER(name, text, Class, member, 0, 1e9)
#define SHARE(name, text, Class, member) NUMBER(name, text, Class, member, 0, 1)
// Timers of less than a nanosecond would stop the clock.
#define TIME(name, text, Class, member) NUMBER(name, text, Class, member, 1e-3, 1e9)
#define COUNT(name, text, Class, member)                       \
  AddAttribute(name, text, ns3::UintegerValue(Class().member), \
               ns3::MakeUintegerAccessor(&Class::member), ns3::MakeUintegerChecker<uint32_t>())
#define FLAG(name, text, Class, member)                       \
  AddAttribute(name, text, ns3::BooleanValue(Class().member), \
               ns3::MakeBooleanAccessor(&Class::member), ns3::MakeBooleanChecker())

NS_OBJECT_ENSURE_REGISTERED(CongestionControl);
NS_OBJECT_ENSURE_REGISTERED(Dcqcn);
NS_OBJECT_ENSURE_REGISTERED(DcqcnSigcomm15);
NS_OBJECT_ENSURE_REGISTERED(Hpcc);
NS_OBJECT_ENSURE_REGISTERED(HpccPint);
NS_OBJECT_ENSURE_REGISTERED(Timely);
NS_OBJECT_ENSURE_REGISTERED(Dctcp);
NS_OBJECT_ENSURE_REGISTERED(Swift);

ns3::TypeId CongestionControl::GetTypeId() {
  static ns3::TypeId tid =
      ns3::TypeId("astra_ns3::CongestionControl")
          .SetParent<ns3::Object>()
          .AddConstructor<CongestionControl>()
          .RATE("MinRate", "Lowest rate of a queue pair", CongestionControl, min_bps);
  return tid;
}

Tick CongestionControl::Microseconds(double us) const {
  return static_cast<Tick>(us * 1e6 / static_cast<double>(fabric->parameters.tick_ps));
}

bool CongestionControl::Describe(const QueuePair&, std::vector<uint64_t>*) const {
  return GetInstanceTypeId() == CongestionControl::GetTypeId();
}

bool CongestionControl::Settled(const QueuePair&) const {
  return GetInstanceTypeId() == CongestionControl::GetTypeId();
}

void CongestionControl::StartTimer(QueuePair& qp, uint32_t kind, Tick delay) {
  qp.timer[kind] = Sim().After(delay, &qp, kind);
  qp.Changed();
}

void CongestionControl::StopTimer(QueuePair& qp, uint32_t kind) {
  qp.timer[kind] = 0;
  qp.Changed();
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId Dcqcn::GetTypeId() {
  static ns3::TypeId tid =
      Id<Dcqcn>("astra_ns3::Dcqcn")
          .SHARE("Gain", "g of equations 1 and 2", Dcqcn, gain)
          .TIME("AlphaInterval", "Time between updates of alpha [us]", Dcqcn, alpha_interval_us)
          .TIME("DecreaseInterval", "Shortest time between two decreases [us]", Dcqcn,
                decrease_interval_us)
          .TIME("IncreaseInterval", "Time between increases [us]", Dcqcn, increase_interval_us)
          .COUNT("FastRecoveryTimes", "F: steps of fast recovery", Dcqcn, fast_recovery_times)
          .STEP("AdditiveRate", "Step of additive increase", Dcqcn, additive_bps)
          .STEP("HyperRate", "Step of hyper increase", Dcqcn, hyper_bps)
          .FLAG("ClampTarget", "Every decrease lowers the target rate", Dcqcn, clamp_target);
  return tid;
}

void Dcqcn::Begin(QueuePair& qp) { qp.dcqcn = {qp.max_bps, 1, false, false, true, 0, {}}; }

// A timer that would find nothing to do sleeps until the next mark: on slow links there are millions
// of those.  The fork's run on, for they take part in the order of events that fall on one time.
void Dcqcn::Rest(QueuePair& qp, uint32_t kind) {
  if (fabric->parameters.upstream_order) {
    StartTimer(qp, kind, Interval(kind));
    return;
  }
  StopTimer(qp, kind);
  qp.dcqcn.fired[kind] = Sim().NowTick();
}

// Wakes a sleeping timer for its next turn.
void Dcqcn::Wake(QueuePair& qp, uint32_t kind) {
  if (qp.timer[kind] != 0) return;
  const Tick slept = Sim().NowTick() - qp.dcqcn.fired[kind], interval = Interval(kind);
  StartTimer(qp, kind, interval - slept % interval);
}

// Alpha as it is now: what its timer would have made of it while it slept.
void Dcqcn::CatchUp(QueuePair& qp) {
  DcqcnState& s = qp.dcqcn;
  if (qp.timer[kAlpha] != 0) return;
  const Tick interval = Interval(kAlpha);
  const int64_t missed = (Sim().NowTick() - s.fired[kAlpha]) / interval;
  s.fired[kAlpha] += missed * interval;
  double before = -1;
  for (int64_t i = 0; i < missed && s.alpha != before; ++i) {
    before = s.alpha;
    s.alpha *= 1 - gain;
  }
}

Tick Dcqcn::Interval(uint32_t kind) const {
  return Microseconds(kind == kAlpha      ? alpha_interval_us
                      : kind == kDecrease ? decrease_interval_us
                                          : increase_interval_us);
}

void Dcqcn::OnAck(QueuePair& qp, const PacketRecord& ack) {
  if (!ack.marked) return;
  DcqcnState& s = qp.dcqcn;
  s.alpha_cnp = s.decrease_cnp = true;
  if (!s.first_cnp) {
    CatchUp(qp);
    Wake(qp, kAlpha);
    Wake(qp, kDecrease);
    return;
  }
  s.first_cnp = false;
  s.alpha = 1;
  s.alpha_cnp = false;
  s.target_bps = qp.bps;
  StartTimer(qp, kAlpha, Microseconds(alpha_interval_us));
  // One nanosecond later, so that alpha is up to date when both fall on one time.
  StartTimer(qp, kDecrease, Microseconds(decrease_interval_us) + Microseconds(0.001));
}

void Dcqcn::OnTimer(QueuePair& qp, uint32_t kind) {
  DcqcnState& s = qp.dcqcn;
  switch (kind) {
    case kAlpha:
      // Equation 1, alpha = (1 - g) alpha + g, with feedback; equation 2 without.
      s.alpha = s.alpha_cnp ? (1 - gain) * s.alpha + gain : (1 - gain) * s.alpha;
      s.alpha_cnp = false;
      Rest(qp, kAlpha);
      break;
    case kDecrease:
      Rest(qp, kDecrease);
      if (!s.decrease_cnp) break;
      CatchUp(qp);
      // Equation 1: R_T = R_C, R_C = R_C (1 - alpha / 2); the target stays where it is when no
      // increase came in between, unless it is clamped.
      if (clamp_target || s.stage != 0) s.target_bps = qp.bps;
      qp.SetRate(std::max(min_bps, Scale(qp.bps, 1 - s.alpha / 2)));
      s.stage = 0;
      s.decrease_cnp = false;
      StartTimer(qp, kIncrease, Microseconds(increase_interval_us));
      break;
    case kIncrease: {
      // Section 3.2: fast recovery, then additive, then hyper increase of the target, and the
      // current rate goes half way to it (equation 3).
      if (s.stage >= fast_recovery_times)
        s.target_bps =
            std::min(qp.port->bps, s.target_bps + IncreaseStep(qp, s.stage != fast_recovery_times,
                                                               additive_bps, hyper_bps));
      const int64_t bps = Mean(qp.bps, s.target_bps);
      // At the top nothing changes any more, until a decrease starts the timer anew.
      if (s.stage > fast_recovery_times && s.target_bps == qp.port->bps && bps == qp.bps)
        Rest(qp, kIncrease);
      else
        StartTimer(qp, kIncrease, Interval(kIncrease));
      qp.SetRate(bps);
      ++s.stage;
      break;
    }
  }
}

void Dcqcn::OnPortRate(QueuePair& qp) {
  if (qp.dcqcn.stage > fast_recovery_times) Wake(qp, kIncrease);
}

// Without marks nobody asks since when a timer sleeps.
bool Dcqcn::Describe(const QueuePair& qp, std::vector<uint64_t>* words) const {
  const DcqcnState& s = qp.dcqcn;
  uint64_t alpha;
  std::memcpy(&alpha, &s.alpha, sizeof alpha);
  const uint64_t flags =
      (s.alpha_cnp ? 1u : 0) | (s.decrease_cnp ? 2u : 0) | (s.first_cnp ? 4u : 0);
  words->insert(words->end(), {static_cast<uint64_t>(s.target_bps), alpha,
                               static_cast<uint64_t>(s.stage) << 3 | flags});
  return true;
}

void Dcqcn::End(QueuePair& qp) {
  qp.timer.fill(0);
  qp.Changed();
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId DcqcnSigcomm15::GetTypeId() {
  static ns3::TypeId tid =
      Id<DcqcnSigcomm15>("astra_ns3::DcqcnSigcomm15")
          .SHARE("Gain", "g of equations 1 and 2", DcqcnSigcomm15, gain)
          .TIME("CnpInterval", "N: shortest time between two CNPs of a pair [us]", DcqcnSigcomm15,
                cnp_interval_us)
          .TIME("AlphaInterval", "K: time without a CNP after which alpha falls [us]",
                DcqcnSigcomm15, alpha_interval_us)
          .TIME("IncreaseInterval", "T: the increase timer [us]", DcqcnSigcomm15,
                increase_interval_us)
          .AddAttribute("ByteCounter", "B: bytes sent between increases",
                        ns3::UintegerValue(DcqcnSigcomm15().byte_counter),
                        ns3::MakeUintegerAccessor(&DcqcnSigcomm15::byte_counter),
                        ns3::MakeUintegerChecker<uint64_t>(1))
          .COUNT("FastRecoveryTimes", "F: steps of fast recovery", DcqcnSigcomm15,
                 fast_recovery_times)
          .STEP("AdditiveRate", "R_AI: step of additive increase", DcqcnSigcomm15, additive_bps)
          .STEP("HyperRate", "R_HAI: step of hyper increase", DcqcnSigcomm15, hyper_bps);
  return tid;
}

void DcqcnSigcomm15::Begin(QueuePair& qp) {
  qp.cnp = {qp.max_bps, 1, byte_counter, 0, 0, 0, false};
}

// Equation 1, with the alpha of before: R_T = R_C, R_C = R_C (1 - alpha / 2), alpha = (1 - g) alpha
// + g; and both counters begin anew.
void DcqcnSigcomm15::OnCnp(QueuePair& qp) {
  CnpState& s = qp.cnp;
  // Equation 2, for all intervals without a CNP since the last one.
  const Tick now = Sim().NowTick();
  if (s.limited) s.alpha *= std::pow(1 - gain, (now - s.last) / Microseconds(alpha_interval_us));
  s.last = now;
  s.target_bps = qp.bps;
  const int64_t bps = std::max(min_bps, Scale(qp.bps, 1 - s.alpha / 2));
  s.alpha = (1 - gain) * s.alpha + gain;
  s.limited = true;
  s.timer_stage = s.byte_stage = 0;
  s.bytes_left = byte_counter;
  StartTimer(qp, kIncrease, Microseconds(increase_interval_us));
  static_cast<RdmaNic*>(qp.port->owner)->ChangeRate(&qp, bps);
}

void DcqcnSigcomm15::OnSend(QueuePair& qp, uint32_t bytes) {
  CnpState& s = qp.cnp;
  if (!s.limited) return;
  if (bytes < s.bytes_left) {
    s.bytes_left -= bytes;
    return;
  }
  qp.SetRate(Increased(qp));  // before the packet is paced
  s.bytes_left = byte_counter;
  ++s.byte_stage;
}

void DcqcnSigcomm15::OnTimer(QueuePair& qp, uint32_t) {
  CnpState& s = qp.cnp;
  const int64_t bps = Increased(qp);
  ++s.timer_stage;
  // At the top nothing changes any more, until a CNP starts the timer anew.
  if (bps != qp.bps || s.target_bps != qp.port->bps)
    StartTimer(qp, kIncrease, Microseconds(increase_interval_us));
  else
    StopTimer(qp, kIncrease);
  static_cast<RdmaNic*>(qp.port->owner)->ChangeRate(&qp, bps);
}

// Figure 7: fast recovery until one of the counters has made F steps, hyper increase once both have
// made more, and in between additive increase of the target, half way to which the rate goes.
int64_t DcqcnSigcomm15::Increased(QueuePair& qp) const {
  CnpState& s = qp.cnp;
  if (std::max(s.timer_stage, s.byte_stage) >= fast_recovery_times) {
    const bool hyper = std::min(s.timer_stage, s.byte_stage) > fast_recovery_times;
    s.target_bps =
        std::min(qp.port->bps, s.target_bps + IncreaseStep(qp, hyper, additive_bps, hyper_bps));
  }
  return Mean(qp.bps, s.target_bps);
}

void DcqcnSigcomm15::OnPortRate(QueuePair& qp) {
  if (qp.cnp.limited && qp.timer[kIncrease] == 0)
    StartTimer(qp, kIncrease, Microseconds(increase_interval_us));
}

uint64_t CongestionControl::PeriodsLeft(const QueuePair& qp, uint64_t bytes) const {
  if (bytes == 0) return UINT64_MAX;
  if (qp.oldest == nullptr) return 0;
  const auto room = [bytes](uint64_t at, uint64_t end) {
    return end > at ? (end - 1 - at) / bytes : 0;
  };
  return std::min({room(qp.next_seq, qp.send_end), room(qp.expected_seq, qp.receive_end),
                   room(qp.acked_seq, qp.oldest->end), BytesToChange(qp) / bytes});
}

// How many bytes it has counted is the business of BytesToChange.
bool DcqcnSigcomm15::Describe(const QueuePair& qp, std::vector<uint64_t>* words) const {
  const CnpState& s = qp.cnp;
  uint64_t alpha;
  std::memcpy(&alpha, &s.alpha, sizeof alpha);
  words->insert(words->end(),
                {static_cast<uint64_t>(s.target_bps), alpha,
                 static_cast<uint64_t>(s.timer_stage) << 32 | s.byte_stage, s.limited ? 1u : 0u});
  return true;
}

void DcqcnSigcomm15::End(QueuePair& qp) { StopTimer(qp, kIncrease); }

// ---------------------------------------------------------------------------------------------

ns3::TypeId Hpcc::GetTypeId() {
  static ns3::TypeId tid =
      Id<Hpcc>("astra_ns3::Hpcc")
          .NUMBER("TargetUtilization", "eta", Hpcc, target_utilization, 1e-3, 10)
          .COUNT("MaxStage", "Additive steps before a multiplicative one", Hpcc, max_stage)
          .RATE("AdditiveRate", "Additive step", Hpcc, additive_bps)
          .FLAG("FastReact", "React to every ACK, from the rate of the last RTT", Hpcc, fast_react)
          .FLAG("PerHopRates", "Keep a rate per hop and use the least", Hpcc, per_hop_rates)
          .FLAG("SampleFeedback", "Between RTTs, react to hops with a queue only", Hpcc,
                sample_feedback);
  return tid;
}

void Hpcc::Begin(QueuePair& qp) {
  qp.hpcc = {0, qp.max_bps, 0, {1, true}};
  qp.hpcc_hop.clear();
}

void Hpcc::OnAck(QueuePair& qp, const PacketRecord& ack) {
  // Once per RTT the rate is moved for good; other ACKs react from it ("fast reaction").
  if (ack.seq > qp.hpcc.last_update_seq)
    Update(qp, ack, false);
  else if (fast_react)
    Update(qp, ack, true);
}

namespace {

// The moving average over one base RTT (equation 4); what is unknown once stays so, and an
// infinite load counts only while it has a weight.
Load Average(Load old, Load sample, uint64_t weight, uint64_t base_rtt) {
  const auto counts = [](Load load, uint64_t share) {
    return load.known && (share > 0 || std::isfinite(load.value));
  };
  if (!counts(old, base_rtt - weight) || !counts(sample, weight)) return {0, false};
  return {(old.value * static_cast<double>(base_rtt - weight) +
           sample.value * static_cast<double>(weight)) /
              static_cast<double>(base_rtt),
          true};
}

}  // namespace

// Equation 2: U = min(qlen) / (B T) + txRate / B.  The fork divides by its window where it has
// none: a hop with a queue is then infinitely loaded, the load of one without is unknown.
Load Hpcc::Sample(const QueuePair& qp, const HopTelemetry& last, const HopTelemetry& now,
                  uint64_t* tau) const {
  const Parameters& parameters = fabric->parameters;
  uint64_t bytes = now.tx_bytes - last.tx_bytes;
  *tau = now.time - last.time;
  double tick_s = static_cast<double>(parameters.tick_ps) * 1e-12;
  if (!parameters.telemetry_exact) {
    // The fork's counters are 24 bits of nanoseconds and 20 bits of 128-byte units.
    *tau &= (1u << 24) - 1;
    bytes = (bytes & ((1u << 20) - 1)) * 128ull * parameters.telemetry_multiple;
    tick_s = 1e-9;
  }
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const uint32_t queue = std::min(now.queue_bytes, last.queue_bytes);
  uint64_t window = qp.window;
  if (window == 0 && !parameters.upstream_order) window = qp.bdp_bytes;
  if (window == 0 && queue == 0) return {0, false};
  if (*tau == 0) return {kInfinite, bytes > 0};
  if (window == 0) return {kInfinite, true};
  const auto line = static_cast<double>(now.bps);
  const double rate = static_cast<double>(bytes * 8) / (static_cast<double>(*tau) * tick_s);
  return {rate / line + static_cast<double>(queue) * static_cast<double>(qp.max_bps) / line /
                            static_cast<double>(window),
          true};
}

// Algorithm 1: a multiplicative step when over the target or after max_stage additive ones; from
// an unknown load it leads to the line rate.
std::pair<int64_t, uint32_t> Hpcc::Step(const QueuePair& qp, Load u, int64_t bps,
                                        uint32_t stage) const {
  const double c = u.value / target_utilization;
  const bool multiply = (u.known && c >= 1) || stage >= max_stage;
  int64_t wanted = bps;
  if (multiply) {
    const auto line = static_cast<double>(qp.max_bps);
    wanted = u.known && c > 0 ? static_cast<int64_t>(std::min(static_cast<double>(bps) / c, line))
                              : qp.max_bps;
  }
  return {std::min(std::max(wanted + additive_bps, min_bps), qp.max_bps), multiply ? 0 : stage + 1};
}

void Hpcc::Update(QueuePair& qp, const PacketRecord& ack, bool fast) {
  HpccState& s = qp.hpcc;
  if (ack.telemetry == nullptr) return;
  const Telemetry& now = *ack.telemetry;
  // The first RTT only fills the history, as do hops that a new route brings; in the fork's these
  // begin with zeros.
  const bool first = s.last_update_seq == 0;
  const bool exact = fabric->parameters.telemetry_exact;
  const size_t known = exact ? qp.hpcc_hop.size() : kForkTelemetry;
  for (size_t i = qp.hpcc_hop.size(); i < now.hop.size() && i < now.hops; ++i)
    qp.hpcc_hop.push_back({first || exact ? now.hop[i] : HopTelemetry{}, {1, true}, qp.max_bps, 0});
  if (first) {
    s.last_update_seq = qp.next_seq;
    return;
  }
  // A packet of the fork that has met more switches than it has room for tells nothing, and its
  // pair stays at its rate.
  if (now.hops <= now.hop.size()) {
    const auto base_rtt = static_cast<uint64_t>(qp.base_rtt);
    Load highest{0, true};
    uint64_t highest_tau = 0;
    bool any = false;
    int64_t bps = qp.max_bps;
    for (uint32_t i = 0; i < now.hops; ++i) {
      const HopTelemetry& hop = now.hop[i];
      HpccHop& state = qp.hpcc_hop[i];
      if (i >= known || (sample_feedback && hop.queue_bytes == 0 && fast)) {
        if (per_hop_rates) bps = std::min(bps, state.bps);
        continue;
      }
      any = true;
      uint64_t tau;
      const Load u = Sample(qp, state.last, hop, &tau);
      state.last = hop;
      if (!per_hop_rates) {
        if (u.known && u.value > highest.value) {
          highest = u;
          highest_tau = tau;
        }
        continue;
      }
      state.u = Average(state.u, u, std::min(tau, base_rtt), base_rtt);
      const auto [next, stage] = Step(qp, state.u, state.bps, state.increase_stage);
      bps = std::min(bps, next);
      if (!fast) {
        state.bps = next;
        state.increase_stage = stage;
      }
    }
    if (any && !per_hop_rates) {
      s.u = Average(s.u, highest, std::min(highest_tau, base_rtt), base_rtt);
      const auto [next, stage] = Step(qp, s.u, s.current_bps, s.increase_stage);
      bps = next;
      if (!fast) {
        s.current_bps = next;
        s.increase_stage = stage;
      }
    }
    if (any) static_cast<RdmaNic*>(qp.port->owner)->ChangeRate(&qp, bps);
  }
  if (!fast) s.last_update_seq = std::max(s.last_update_seq, qp.next_seq);
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId HpccPint::GetTypeId() {
  static ns3::TypeId tid =
      Id<HpccPint>("astra_ns3::HpccPint")
          .NUMBER("TargetUtilization", "eta", HpccPint, target_utilization, 1e-3, 10)
          .NUMBER("LogBase", "Base of the code of the utilisation", HpccPint, log_base, 1.0001, 100)
          .SHARE("Probability", "Share of the ACKs that are looked at", HpccPint, probability)
          .COUNT("MaxStage", "Additive steps before a multiplicative one", HpccPint, max_stage)
          .RATE("AdditiveRate", "Additive step", HpccPint, additive_bps);
  return tid;
}

void HpccPint::Begin(QueuePair& qp) { qp.hpcc = {0, qp.max_bps, 0, {1, true}}; }

void HpccPint::OnAck(QueuePair& qp, const PacketRecord& ack) {
  HpccState& s = qp.hpcc;
  if (fabric->parameters.upstream_order) {
    if (fabric->library_random.Next() % 65536 >= static_cast<uint32_t>(65536 * probability)) return;
  } else if (probability < 1 && fabric->random.Next() >= probability) {
    return;
  }
  const bool fast = ack.seq <= s.last_update_seq;
  if (s.last_update_seq == 0) {
    s.last_update_seq = qp.next_seq;
    return;
  }
  const double u = std::pow(log_base, static_cast<double>(ack.power)) / kPintUnit;
  const double c = u / target_utilization;
  const bool multiply = c >= 1 || s.increase_stage >= max_stage;
  int64_t bps =
      (multiply ? static_cast<int64_t>(static_cast<double>(s.current_bps) / c) : s.current_bps) +
      additive_bps;
  bps = std::min(std::max(bps, min_bps), qp.max_bps);
  static_cast<RdmaNic*>(qp.port->owner)->ChangeRate(&qp, bps);
  if (fast) return;
  s.current_bps = bps;
  s.increase_stage = multiply ? 0 : s.increase_stage + 1;
  s.last_update_seq = std::max(s.last_update_seq, qp.next_seq);
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId Timely::GetTypeId() {
  static ns3::TypeId tid =
      Id<Timely>("astra_ns3::Timely")
          .SHARE("Alpha", "Weight of a new RTT difference", Timely, alpha)
          .SHARE("Beta", "Factor of decrease", Timely, beta)
          .REAL("LowThreshold", "T_low [us]", Timely, low_us)
          .REAL("HighThreshold", "T_high [us]", Timely, high_us)
          .TIME("MinRtt", "Unit of the gradient [us]", Timely, min_rtt_us)
          .RATE("AdditiveRate", "delta", Timely, additive_bps)
          .RATE("HyperRate", "delta after five increases", Timely, hyper_bps)
          .FLAG("Unstamped", "Packets carry no time, as in the public fork", Timely, unstamped);
  return tid;
}

void Timely::Begin(QueuePair& qp) { qp.timely = {0, qp.max_bps, 0, 0, 0}; }

void Timely::OnAck(QueuePair& qp, const PacketRecord& ack) {
  TimelyState& s = qp.timely;
  if (ack.seq <= s.last_update_seq) return;  // once per RTT
  const Tick rtt = Sim().NowTick() - (unstamped ? 0 : ack.sent);
  if (s.last_update_seq != 0) {
    // Algorithm 1.
    const double difference =
        (1 - alpha) * s.rtt_diff + alpha * static_cast<double>(rtt - s.last_rtt);
    const double gradient = difference / static_cast<double>(Microseconds(min_rtt_us));
    const Tick low = Microseconds(low_us), high = Microseconds(high_us);
    if (rtt < low || (rtt <= high && gradient <= 0)) {
      s.current_bps =
          std::min(qp.max_bps, s.current_bps + (s.increase_stage < 5 ? additive_bps : hyper_bps));
      ++s.increase_stage;
    } else {
      const double factor =
          rtt > high ? 1 - beta * (1 - static_cast<double>(high) / static_cast<double>(rtt))
                     : std::max(0.0, 1 - beta * gradient);
      s.current_bps = std::max(min_bps, Scale(s.current_bps, factor));
      s.increase_stage = 0;
    }
    s.rtt_diff = difference;
    qp.SetRate(s.current_bps);
  }
  if (qp.next_seq > s.last_update_seq) {
    s.last_update_seq = qp.next_seq;
    s.last_rtt = rtt;
  }
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId Dctcp::GetTypeId() {
  static ns3::TypeId tid = Id<Dctcp>("astra_ns3::Dctcp")
                               .SHARE("Gain", "g of equation 1", Dctcp, gain)
                               .RATE("AdditiveRate", "Increase per RTT", Dctcp, additive_bps);
  return tid;
}

void Dctcp::Begin(QueuePair& qp) { qp.dctcp = {0, 0, false, 1, 0, 0}; }

void Dctcp::OnAck(QueuePair& qp, const PacketRecord& ack) {
  DctcpState& s = qp.dctcp;
  const uint64_t mtu = fabric->parameters.mtu_bytes;
  if (ack.marked) ++s.marked;
  const bool round = ack.seq > s.last_update_seq;
  if (round) {
    if (s.last_update_seq == 0) {
      s.batch = qp.next_seq / mtu + 1;
    } else {
      // Equation 1: alpha = (1 - g) alpha + g F.
      const double share =
          std::min(1.0, static_cast<double>(s.marked) / static_cast<double>(s.batch));
      s.alpha = (1 - gain) * s.alpha + gain * share;
      s.marked = 0;
      s.batch = (qp.next_seq - std::min(ack.seq, qp.next_seq)) / mtu + 1;
    }
    s.last_update_seq = qp.next_seq;
  }
  if (s.reduced && ack.seq > s.high_seq) s.reduced = false;
  if (ack.marked && !s.reduced) {
    // Equation 2: cwnd = cwnd (1 - alpha / 2), once per window.
    qp.SetRate(std::max(min_bps, Scale(qp.bps, 1 - s.alpha / 2)));
    s.reduced = true;
    s.high_seq = qp.next_seq;
  }
  if (!s.reduced && round) qp.SetRate(std::min(qp.max_bps, qp.bps + additive_bps));
}

// ---------------------------------------------------------------------------------------------

ns3::TypeId Swift::GetTypeId() {
  static ns3::TypeId tid =
      Id<Swift>("astra_ns3::Swift")
          .REAL("AdditivePackets", "ai, packets per RTT", Swift, additive_packets)
          .SHARE("Beta", "Factor of decrease", Swift, beta)
          .SHARE("MaxDecrease", "max_mdf", Swift, max_decrease)
          .REAL("BaseTarget", "Delay allowed above the unloaded RTT [us]", Swift, base_us)
          .REAL("FlowScaling", "Target that a window of one packet adds [us]", Swift,
                flow_scaling_us)
          .REAL("FlowScalingLimit", "Its limit [us]", Swift, flow_scaling_limit_us)
          .NUMBER("MinWindow", "Smallest window [packets]", Swift, min_window, 1e-6, 1e9);
  return tid;
}

void Swift::Begin(QueuePair& qp) {
  const double packet = fabric->parameters.mtu_bytes;
  const uint64_t start = qp.window != 0 ? qp.window : fabric->max_bdp;
  qp.swift = {std::max(1.0, static_cast<double>(start) / packet), 0};
}

void Swift::OnAck(QueuePair& qp, const PacketRecord& ack) {
  SwiftState& s = qp.swift;
  const Tick now = Sim().NowTick();
  const auto delay = static_cast<double>(now - ack.sent);
  const double packet = fabric->parameters.mtu_bytes;
  const double scaling =
      std::min(flow_scaling_us / std::sqrt(s.window_packets), flow_scaling_limit_us);
  // Section 3.2: the target grows with the path (here its unloaded RTT) and, as windows shrink,
  // with the number of flows.
  const double target =
      static_cast<double>(qp.base_rtt) + static_cast<double>(Microseconds(base_us + scaling));
  if (delay < target) {  // Algorithm 1, line 6
    s.window_packets +=
        s.window_packets >= 1 ? additive_packets / s.window_packets : additive_packets;
  } else if (now - s.last_decrease >= static_cast<Tick>(delay)) {  // once per RTT
    s.window_packets *= std::max(1 - beta * (delay - target) / delay, 1 - max_decrease);
    s.last_decrease = now;
  }
  const double most =
      static_cast<double>(qp.window != 0 ? qp.window : fabric->max_bdp) / packet + 1;
  s.window_packets = std::min(std::max(s.window_packets, min_window), most);
  // Below one packet the window cannot hold a flow back: it is paced instead.
  if (s.window_packets < 1) {
    const double rtt_s = delay * static_cast<double>(fabric->parameters.tick_ps) * 1e-12;
    qp.SetRate(std::max(min_bps, std::min(qp.max_bps, static_cast<int64_t>(s.window_packets *
                                                                           packet * 8 / rtt_s))));
  } else {
    qp.SetRate(qp.max_bps);
  }
  qp.current_window = static_cast<uint64_t>(std::max(1.0, std::floor(s.window_packets)) * packet);
  qp.Changed();
}

}  // namespace astra_ns3
