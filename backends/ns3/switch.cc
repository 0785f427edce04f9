// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

NS_OBJECT_ENSURE_REGISTERED(SharedBufferSwitch);

ns3::TypeId SharedBufferSwitch::GetTypeId() {
  static ns3::TypeId tid =
      ns3::TypeId("astra_ns3::SharedBufferSwitch")
          .SetParent<Device>()
          .AddConstructor<SharedBufferSwitch>()
          .AddTraceSource("Pfc", "A pause (true) or resume frame is sent: link, pause",
                          ns3::MakeTraceSourceAccessor(&SharedBufferSwitch::trace_pfc),
                          "astra_ns3::SharedBufferSwitch::PfcCallback")
          .AddTraceSource("Mark", "A packet is marked on leaving by a link",
                          ns3::MakeTraceSourceAccessor(&SharedBufferSwitch::trace_mark),
                          "astra_ns3::SharedBufferSwitch::MarkCallback")
          .AddTraceSource("Drop", "No buffer or no route: link of entry, bytes",
                          ns3::MakeTraceSourceAccessor(&SharedBufferSwitch::trace_drop),
                          "astra_ns3::SharedBufferSwitch::DropCallback");
  return tid;
}

void SharedBufferSwitch::Configure() {
  int64_t reserved = 0;
  for (const Port* port : ports)
    reserved +=
        (port->headroom_limit + fabric->parameters.reserve_bytes) * fabric->lossless_classes;
  shareable_bytes_ = static_cast<int64_t>(buffer_bytes) - reserved;
}

// Choudhury and Hahne's dynamic threshold (IEEE/ACM ToN 6(2), 1998): a share, alpha = 2^-shift,
// of what is free now.
int64_t SharedBufferSwitch::PauseThreshold(const Port& port) const {
  // The fork computes in 32 bits without sign: where the headrooms alone exceed the buffer, the
  // threshold is huge and nothing is ever paused.
  if (fabric->parameters.upstream_order)
    return static_cast<uint32_t>(shareable_bytes_ - shared_bytes_) >> port.alpha_shift;
  return std::max<int64_t>(0, shareable_bytes_ - shared_bytes_) >> port.alpha_shift;
}

void SharedBufferSwitch::Describe(std::vector<uint64_t>* words) const {
  words->insert(words->end(),
                {static_cast<uint64_t>(shared_bytes_), static_cast<uint64_t>(buffered_bytes_)});
}

int64_t SharedBufferSwitch::SharedUse(const Port& port, uint32_t queue) const {
  return std::max<int64_t>(0, port.ingress_bytes[queue] - fabric->parameters.reserve_bytes);
}

void SharedBufferSwitch::SetUse(Port& ingress, const std::array<int64_t, kQueues>& bytes) {
  for (uint32_t queue = 0; queue < kQueues; ++queue) {
    const int64_t before = SharedUse(ingress, queue);
    buffered_bytes_ += bytes[queue] - ingress.ingress_bytes[queue];
    ingress.ingress_bytes[queue] = bytes[queue];
    shared_bytes_ += SharedUse(ingress, queue) - before;
  }
}

void SharedBufferSwitch::SendPause(Port& port, uint32_t queue, bool pause) {
  const uint32_t bit = 1u << queue;
  port.pausing = pause ? port.pausing | bit : port.pausing & ~bit;
  ++(pause ? port.pauses : port.resumes);
  port.Irregular();
  trace_pfc(port.link, pause);
  if (fabric->pause_events.size() < fabric->parameters.pfc_rows)
    fabric->pause_events.push_back({fabric->sim->NowTick(), port.link, queue, pause});
  if (fabric->parameters.upstream_order) fabric->random.SkipStreams(1);  // the fork's IP ident
  if (!port.up) return;
  PacketRecord* packet = fabric->NewPacket();
  packet->qp = nullptr;
  packet->kind = pause ? PacketKind::kPause : PacketKind::kResume;
  packet->queue = static_cast<uint8_t>(queue);
  packet->wire_bytes = fabric->parameters.pause_bytes;
  packet->arrive = fabric->sim->NowTick();
  port.queue[0].push(packet);
  port.waiting |= 1;
  port.waiting_bytes += packet->wire_bytes;
  port.RequestService();
}

void SharedBufferSwitch::Receive(Port& ingress, PacketRecord* packet) {
  if (packet->qp == nullptr) {
    const bool pause = packet->kind == PacketKind::kPause;
    const uint32_t bit = 1u << packet->queue;
    ingress.paused = pause ? ingress.paused | bit : ingress.paused & ~bit;
    trace_pfc(ingress.link, pause);
    fabric->Free(packet);
    if (!pause) ingress.RequestService();
    return;
  }
  const int64_t bytes = packet->wire_bytes;
  const uint32_t queue = packet->queue;
  Port* egress = fabric->NextHop(*this, packet);
  if (egress == nullptr || !egress->up) {
    ++ingress.peer->drops;
    ingress.Irregular();
    trace_drop(ingress.peer->link, packet->wire_bytes);
    fabric->Free(packet);
    return;
  }
  if (left_out && Pressed()) [[unlikely]]
    fabric->replay->MakeUpAt(*this);
  if (queue != 0) {
    const int64_t reserve = fabric->parameters.reserve_bytes;
    const int64_t threshold = PauseThreshold(ingress);
    int64_t& used = ingress.ingress_bytes[queue];
    int64_t& headroom = ingress.headroom_bytes[queue];
    const int64_t over_reserve = used + bytes - reserve;
    // Where reserves and headrooms together exceed the buffer, the fork makes memory out of nothing.
    const bool full = !fabric->parameters.upstream_order &&
                      buffered_bytes_ + bytes > static_cast<int64_t>(buffer_bytes);
    if (full || (headroom + bytes > ingress.headroom_limit &&
                 bytes + SharedUse(ingress, queue) > threshold)) {
      ++ingress.peer->drops;
      ingress.Irregular();
      trace_drop(ingress.peer->link, packet->wire_bytes);
      fabric->Free(packet);
      return;
    }
    // A packet goes to the queue's reserve, then to the shared pool up to the threshold, then to
    // the headroom that pays for what is on the wire after a pause.
    if (over_reserve > threshold && over_reserve > 0) {
      headroom += bytes;
    } else {
      used += bytes;
      if (over_reserve > 0) shared_bytes_ += std::min(bytes, over_reserve);
    }
    egress->egress_bytes[queue] += bytes;
    buffered_bytes_ += bytes;
    if (fabric->parameters.pfc && !(ingress.pausing >> queue & 1) &&
        (headroom > 0 || SharedUse(ingress, queue) >= PauseThreshold(ingress)))
      SendPause(ingress, queue, true);
  }
  packet->ingress = ingress.local;
  egress->queue[queue].push(packet);
  egress->waiting |= 1u << queue;
  egress->waiting_bytes += packet->wire_bytes;
  egress->max_queue_bytes = std::max(egress->max_queue_bytes, egress->waiting_bytes);
  egress->RequestService();
}

void SharedBufferSwitch::Serve(Port& port) {
  if (!port.up) {
    // Everything that waits for a dead link is lost, and its buffer is free again.
    while (port.waiting != 0) {
      const auto queue = static_cast<uint32_t>(__builtin_ctz(port.waiting));
      PacketRecord* packet = port.queue[queue].pop();
      if (port.queue[queue].empty()) port.waiting &= ~(1u << queue);
      port.waiting_bytes -= packet->wire_bytes;
      ++port.lost;
      if (queue != 0) {
        port.egress_bytes[queue] -= packet->wire_bytes;
        Unbuffer(*ports[packet->ingress], queue, packet->wire_bytes);
      }
      fabric->Free(packet);
    }
    return;
  }
  const uint32_t ready = (port.waiting & 1) | (port.waiting & ~port.paused);
  if (ready == 0) return;
  uint32_t queue = 0;
  if (!(ready & 1)) {  // control first, then round robin
    queue = port.last_queue;
    do queue = (queue + 1) % kQueues;
    while (!(ready >> queue & 1));
    port.last_queue = queue;
  }
  PacketRecord* packet = port.queue[queue].pop();
  if (port.queue[queue].empty()) port.waiting &= ~(1u << queue);
  port.waiting_bytes -= packet->wire_bytes;
  port.queue_byte_ticks += static_cast<unsigned __int128>(packet->wire_bytes) *
                           static_cast<uint64_t>(fabric->sim->NowTick() - packet->arrive);
  if (queue != 0) {
    port.egress_bytes[queue] -= packet->wire_bytes;
    // A mark on an acknowledgement would be nobody's: its own flag carries the mark of its data.
    if (fabric->parameters.ecn && Mark(port, queue) && packet->kind == PacketKind::kData) {
      packet->marked = true;
      ++port.marks;
      trace_mark(port.link);
    }
    Unbuffer(*ports[packet->ingress], queue, packet->wire_bytes);
  }
  if (packet->kind == PacketKind::kData) {
    if (fabric->parameters.telemetry)
      Stamp(port, packet);
    else if (fabric->parameters.pint)
      StampPint(port, packet);
  }
  port.Send(packet);
  port.last_bytes = packet->wire_bytes;
  port.last_time = fabric->sim->NowTick();
  if ((port.waiting & 1) | (port.waiting & ~port.paused)) port.ExpectDone();
}

void SharedBufferSwitch::Unbuffer(Port& ingress, uint32_t queue, int64_t bytes) {
  int64_t& used = ingress.ingress_bytes[queue];
  int64_t& headroom = ingress.headroom_bytes[queue];
  const int64_t from_headroom = std::min(headroom, bytes);
  buffered_bytes_ -= bytes;
  shared_bytes_ -= std::min(bytes - from_headroom, SharedUse(ingress, queue));
  headroom -= from_headroom;
  used -= bytes - from_headroom;
  if (!(ingress.pausing >> queue & 1) || headroom > 0) return;
  const int64_t shared = SharedUse(ingress, queue);
  if (shared == 0 || shared + fabric->parameters.resume_offset_bytes <= PauseThreshold(ingress))
    SendPause(ingress, queue, false);
}

// RED on the queue that the packet leaves behind (Floyd and Jacobson, 1993, without averaging), as
// in section 3.1 of the DCQCN paper.
bool SharedBufferSwitch::Mark(Port& port, uint32_t queue) {
  const int64_t length = port.egress_bytes[queue];
  if (length <= port.kmin) return false;
  port.Irregular();
  if (length > port.kmax) return true;
  const double probability = port.pmax * static_cast<double>(length - port.kmin) /
                             static_cast<double>(port.kmax - port.kmin);
  return (fabric->parameters.upstream_order ? fabric->random.FirstOfNextStream()
                                            : fabric->random.Next()) < probability;
}

void SharedBufferSwitch::Stamp(Port& port, PacketRecord* packet) {
  Telemetry& telemetry = *packet->telemetry;
  const Parameters& parameters = fabric->parameters;
  const bool full = !parameters.telemetry_exact && telemetry.hop.size() == kForkTelemetry;
  if (telemetry.hops == telemetry.hop.size() && !full) telemetry.hop.emplace_back();
  HopTelemetry& hop = telemetry.hop[telemetry.hops % telemetry.hop.size()];
  ++telemetry.hops;
  hop.time = static_cast<uint64_t>(fabric->sim->NowTick());
  hop.bps = port.bps;
  if (parameters.telemetry_exact) {
    hop.tx_bytes = port.tx_bytes;
    hop.queue_bytes = port.waiting_bytes;
  } else {  // in the units of the header field: 128 bytes, 80 bytes, 17 bits
    hop.tx_bytes = port.tx_bytes / (128ull * parameters.telemetry_multiple);
    const uint32_t unit = 80 * parameters.telemetry_multiple;
    hop.queue_bytes = (port.waiting_bytes / unit & ((1u << 17) - 1)) * unit;
    // The rate is a code for one of seven; it stays 0, which is 25 Gbit/s, for all others.
    constexpr std::array<int64_t, 7> kGbps = {25, 50, 100, 200, 400, 1200, 2400};
    if (std::find(kGbps.begin(), kGbps.end(), port.bps / 1000000000) == kGbps.end() ||
        port.bps % 1000000000 != 0)
      hop.bps = 25000000000;
  }
}

// The moving average of equation 4 of HPCC over the largest RTT T, kept by the port:
// U = (T - dt)/T U + qlen dt / (B T^2) + bytes / (B T).
double SharedBufferSwitch::Utilization(const Port& port) const {
  const auto rtt = static_cast<double>(fabric->max_rtt);
  const double dt = std::min(rtt, static_cast<double>(fabric->sim->NowTick() - port.last_time));
  const double bytes_per_tick =
      static_cast<double>(port.bps) / 8 * static_cast<double>(fabric->parameters.tick_ps) * 1e-12;
  return (rtt - dt) / rtt * port.utilization +
         port.waiting_bytes * dt / (bytes_per_tick * rtt * rtt) +
         port.last_bytes / (bytes_per_tick * rtt);
}

constexpr double kLogUnit = 32768;  // logarithms are whole numbers of 2^-15

// A switch's logarithm (PINT, appendix on approximate arithmetic): of the 16 leading bits, rounded
// at random.
int32_t SharedBufferSwitch::RoughLog2(int32_t x) {
  if (x <= 0) return INT32_MIN;
  const int bits = 32 - __builtin_clz(static_cast<uint32_t>(x));
  if (bits > 16) {
    const int32_t low = (1 << (bits - 16)) - 1, rest = x & low;
    x -= rest;
    if (rest > static_cast<int32_t>(fabric->library_random.Next() & static_cast<uint32_t>(low)))
      x += low + 1;
  }
  return static_cast<int32_t>(std::log2(x) * kLogUnit);
}

// The same with additions of logarithms instead of products, as the fork has it.
double SharedBufferSwitch::UtilizationByLogarithms(const Port& port) {
  const auto rtt = static_cast<int64_t>(fabric->max_rtt);
  const int64_t dt = std::min<int64_t>(rtt, fabric->sim->NowTick() - port.last_time);
  const double log_rtt = std::log2(rtt) * kLogUnit, log_rate = std::log2(port.bps / 8) * kLogUnit;
  const double log_unit = std::log2(1e9) * kLogUnit;  // ns per second
  double queue = 0, bytes = 0, average = 0;
  if (port.waiting_bytes >> 8 > 0) {
    const int32_t time = RoughLog2(static_cast<int32_t>(dt));
    const int32_t length = RoughLog2(static_cast<int32_t>(port.waiting_bytes >> 8));
    queue = std::pow(2, (time + length + log_unit - log_rate - 2 * log_rtt) / kLogUnit) * 256;
  }
  if (port.last_bytes > 0)
    bytes = std::pow(
        2, (RoughLog2(static_cast<int32_t>(port.last_bytes)) + log_unit - log_rate - log_rtt) /
               kLogUnit);
  if (rtt > dt && port.utilization > 0) {
    const int32_t left = RoughLog2(static_cast<int32_t>(rtt - dt));
    const int32_t u = RoughLog2(static_cast<int32_t>(std::round(port.utilization * 8192)));
    average = std::pow(2, (left + u - log_rtt) / kLogUnit) / 8192;
  }
  return queue + bytes + average;
}

void SharedBufferSwitch::StampPint(Port& port, PacketRecord* packet) {
  const bool upstream = fabric->parameters.upstream_order;
  port.utilization = upstream ? UtilizationByLogarithms(port) : Utilization(port);
  // Coded as a power of the base, rounded up or down at random so that the mean is right.
  const double base = fabric->parameters.pint_log_base, factor = 1 / std::log(base);
  const double units = std::max(1.0, std::ceil(port.utilization * kPintUnit));
  const double exact = std::log(units) * factor;
  const double lower = std::floor(exact), upper = std::ceil(exact);
  const double low = std::pow(base, lower);
  const double high = std::pow(base, upper) * (upper == lower ? base : 1);
  const double share = (units - low) / (high - low);
  const bool up = upstream ? fabric->library_random.Next() % 65536 < share * 65536
                           : fabric->random.Next() < share;
  auto power = static_cast<uint64_t>(up ? upper : lower);
  // The fork's header has as many whole bytes as 512 flows' worth of utilisation needs.
  if (upstream) power &= std::log(kPintUnit * kPintUnit) * factor <= 256 ? 0xff : 0xffff;
  packet->power = std::max(packet->power, power);
}

}  // namespace astra_ns3
