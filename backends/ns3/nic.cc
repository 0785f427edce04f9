// SPDX-License-Identifier: MIT
#include <algorithm>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr uint32_t kCnpBytes = 16;  // what RoCEv2's CNP has behind its headers

}  // namespace

NS_OBJECT_ENSURE_REGISTERED(RdmaNic);

ns3::TypeId RdmaNic::GetTypeId() {
  static ns3::TypeId tid =
      ns3::TypeId("astra_ns3::RdmaNic")
          .SetParent<Device>()
          .AddConstructor<RdmaNic>()
          .AddTraceSource("Complete", "A transfer is acknowledged: its id, the ticks it took",
                          ns3::MakeTraceSourceAccessor(&RdmaNic::trace_complete),
                          "astra_ns3::RdmaNic::CompleteCallback")
          .AddTraceSource("Pfc", "A pause (true) or resume frame has arrived: link, pause",
                          ns3::MakeTraceSourceAccessor(&RdmaNic::trace_pfc),
                          "astra_ns3::RdmaNic::PfcCallback");
  return tid;
}

void RdmaNic::Add(QueuePair* qp) {
  qp->port->pairs.Add(qp);
  qp->port->RequestService();
}

void RdmaNic::Wake(Port& port, Tick at) {
  port.wake_at = at;
  port.wake_order = fabric->sim->Reserve();
  fabric->sim->At(at, port.wake_order, &port, Port::kWake);
}

void RdmaNic::ChangeRate(QueuePair* qp, int64_t bps) {
  if (bps != qp->bps) {
    qp->next_available +=
        fabric->Ticks(qp->last_wire_bytes, bps) - fabric->Ticks(qp->last_wire_bytes, qp->bps);
    qp->SetRate(bps);
    qp->Changed();
  }
  Port& port = *qp->port;
  if (port.wake_at != kNeverTick && qp->next_available < port.wake_at)
    Wake(port, std::max(qp->next_available, fabric->sim->NowTick()));
}

QueuePair* RdmaNic::Select(Port& port) {
  QueuePair* chosen = port.pairs.Select(fabric->sim->NowTick(), port.paused, &dropped_);
  for (QueuePair* qp : dropped_) fabric->Release(qp);
  dropped_.clear();
  return chosen;
}

void RdmaNic::Serve(Port& port) {
  if (!port.up) return;
  const Parameters& parameters = fabric->parameters;
  const uint32_t ack_queue = parameters.ack_high_priority ? 0 : 3;
  if (!port.queue[0].empty() && !(port.paused >> ack_queue & 1)) {
    port.Send(port.queue[0].pop());
  } else if (QueuePair* qp = Select(port)) {
    SendData(port, qp);
  } else {
    SetAlarm(port);
    return;
  }
  if (MoreToSend(port)) port.ExpectDone();
}

// Nothing may go now: wake up when the first pair's pacing allows it.  The fork also counts pairs
// that cannot send, and then may not wake up for the others: they go on with the next ACK.
void RdmaNic::SetAlarm(Port& port) {
  if (port.wake_at != kNeverTick) return;
  const Tick at = port.pairs.NextTime(port.paused);
  if (at != kNeverTick && at > fabric->sim->NowTick()) Wake(port, at);
}

// Whether there is something to do when the port is free again.  The fork looks at its pairs every
// time; what it then does besides sending, dropping ended pairs and setting an alarm for the next
// one, decides the order of events that fall on one time, so that mode needs the event as well.
// With a timer running, the rate and so the window may grow until then.
bool RdmaNic::MoreToSend(const Port& port) const {
  if (!port.queue[0].empty() || port.pairs.AnyAble()) return true;
  return fabric->parameters.upstream_order && port.pairs.ForkLooksAgain(port.busy_until);
}

void RdmaNic::SendData(Port& port, QueuePair* qp) {
  const Parameters& parameters = fabric->parameters;
  const auto payload =
      static_cast<uint32_t>(std::min<uint64_t>(qp->BytesLeft(), parameters.mtu_bytes));
  PacketRecord* packet = fabric->NewPacket();
  packet->qp = qp;
  packet->seq = qp->next_seq;
  packet->wire_bytes = payload + parameters.header_bytes;
  packet->kind = PacketKind::kData;
  packet->queue = qp->queue;
  qp->forward.Enter(packet);
  packet->marked = false;
  if (parameters.telemetry)
    packet->telemetry = fabric->NewTelemetry();
  else if (parameters.pint)
    packet->power = 0;
  else
    packet->sent = fabric->sim->NowTick();
  qp->next_seq += payload;
  ++qp->in_network;
  ++fabric->data_packets;
  port.Send(packet);
  qp->last_wire_bytes = packet->wire_bytes;
  if (parameters.cnp_interval > 0) fabric->control->OnSend(*qp, payload);
  const int64_t bps = parameters.rate_bound ? qp->bps : qp->max_bps;
  qp->next_available =
      fabric->sim->NowTick() +
      (bps == port.bps ? port.TxTicks(packet->wire_bytes) : fabric->Ticks(packet->wire_bytes, bps));
  qp->Changed();
}

void RdmaNic::Receive(Port& ingress, PacketRecord* packet) {
  switch (packet->kind) {
    case PacketKind::kData:
      ReceiveData(packet);
      return;
    case PacketKind::kAck:
    case PacketKind::kNack:
      ReceiveAck(packet);
      return;
    case PacketKind::kCnp:
      if (!packet->qp->acknowledged) fabric->control->OnCnp(*packet->qp);
      fabric->Free(packet);
      return;
    case PacketKind::kPause:
    case PacketKind::kResume: {
      const bool pause = packet->kind == PacketKind::kPause;
      const uint32_t bit = 1u << packet->queue;
      ingress.paused = pause ? ingress.paused | bit : ingress.paused & ~bit;
      trace_pfc(ingress.link, pause);
      fabric->Free(packet);
      if (!pause) ingress.RequestService();
      return;
    }
  }
}

void RdmaNic::ReceiveData(PacketRecord* packet) {
  const Parameters& parameters = fabric->parameters;
  QueuePair* qp = packet->qp;
  const uint64_t expected = qp->expected_seq;
  if (packet->marked && parameters.cnp_interval > 0) SendCnp(qp);
  PacketKind answer = PacketKind::kData;  // none
  if (packet->seq == expected) {
    qp->expected_seq = expected + (packet->wire_bytes - parameters.header_bytes);
    if (qp->expected_seq >= qp->bytes && !qp->delivered) fabric->Deliver(qp);
    // Acknowledged: everything past the ACK interval, chunk ends, and the end of the transfer.
    if (qp->expected_seq >= parameters.ack_interval_bytes || qp->expected_seq >= qp->bytes ||
        (parameters.chunk_bytes != 0 && qp->expected_seq % parameters.chunk_bytes == 0))
      answer = PacketKind::kAck;
  } else if (packet->seq > expected) {
    const Tick now = fabric->sim->NowTick();
    if (now >= qp->nack_until || qp->nacked_seq != expected) {
      qp->nack_until = now + parameters.nack_interval;
      qp->nacked_seq = expected;
      if (parameters.back_to_zero && parameters.chunk_bytes != 0)
        qp->expected_seq = expected / parameters.chunk_bytes * parameters.chunk_bytes;
      answer = PacketKind::kNack;
    }
  } else if (!parameters.upstream_order || qp->timeouts > 0) {
    // Again, because the first ACK may be lost.  The fork has no timeouts, and keeps silent.
    answer = PacketKind::kAck;
  }
  if (answer == PacketKind::kData) {
    fabric->Free(packet);
    return;
  }
  // The packet turns into its answer: telemetry, timestamp and mark travel back in it.
  packet->kind = answer;
  packet->seq = qp->expected_seq;
  packet->wire_bytes = parameters.ack_bytes;
  qp->backward.Enter(packet);
  // The fork gives acknowledgements priority in its NICs and forgets its switches.
  if (parameters.ack_high_priority && !parameters.upstream_order) packet->queue = 0;
  Port* port = qp->receiver_port;
  if (port == nullptr || !port->up) {
    fabric->Free(packet);
    return;
  }
  port->queue[0].push(packet);
  port->RequestService();
}

// A congestion notification packet, which goes before everything else: at once for the first mark,
// then at most one per interval (section 3.1 of the DCQCN paper).
void RdmaNic::SendCnp(QueuePair* qp) {
  const Tick now = fabric->sim->NowTick();
  Port* port = qp->receiver_port;
  if (now < qp->cnp_until || port == nullptr || !port->up) return;
  qp->cnp_until = now + fabric->parameters.cnp_interval;
  PacketRecord* packet = fabric->NewPacket();
  packet->qp = qp;
  packet->seq = qp->expected_seq;
  packet->wire_bytes = fabric->parameters.header_bytes + kCnpBytes;
  packet->kind = PacketKind::kCnp;
  packet->queue = 0;
  qp->backward.Enter(packet);
  packet->marked = false;
  ++qp->in_network;
  ++fabric->cnps;
  port->queue[0].push(packet);
  port->RequestService();
}

void RdmaNic::ReceiveAck(PacketRecord* packet) {
  const Parameters& parameters = fabric->parameters;
  QueuePair* qp = packet->qp;
  if (qp->acknowledged) {
    fabric->Free(packet);
    return;
  }
  uint64_t seq = packet->seq;
  if (parameters.back_to_zero && parameters.chunk_bytes != 0 && seq < qp->bytes)
    seq = seq / parameters.chunk_bytes * parameters.chunk_bytes;
  if (seq > qp->acked_seq) {
    qp->acked_seq = seq;
    qp->next_seq = std::max(qp->next_seq, seq);  // a retransmission that proved needless
    qp->progress = fabric->sim->NowTick();
    qp->timeouts = 0;
    qp->Changed();
  }
  Port* port = qp->routed ? qp->port : nullptr;  // read now: an ended pair may be taken anew
  if (qp->Finished()) {
    trace_complete(qp->id, static_cast<uint64_t>(fabric->sim->NowTick() - qp->start));
    fabric->Acknowledged(qp);
    // The fork goes on to adapt the rate of the pair that has just ended, which may wake its NIC
    // earlier and draws random numbers.
    if (parameters.upstream_order && (parameters.telemetry || parameters.pint))
      fabric->control->OnAck(*qp, *packet);
  } else {
    if (packet->kind == PacketKind::kNack) {
      qp->retransmitted += qp->next_seq - qp->acked_seq;
      ++fabric->retransmissions;
      qp->next_seq = qp->acked_seq;
      qp->Changed();
    }
    fabric->control->OnAck(*qp, *packet);
  }
  fabric->Free(packet);
  if (port != nullptr) port->RequestService();
}

}  // namespace astra_ns3
