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

// A message's last packet asks for an acknowledgement, as does one in so many, and one after which the
// sender may not go on.
bool RdmaNic::AsksForAck(const QueuePair& qp) const {
  return qp.next_seq == qp.send_end ||
         qp.next_seq - qp.requested_seq >= fabric->parameters.ack_interval_bytes ||
         (qp.current_window != 0 && qp.next_seq - qp.acked_seq >= qp.current_window);
}

// The first packet that is to be sent again; its payload.
uint32_t RdmaNic::TakeLost(QueuePair* qp, PacketRecord* packet) {
  Repair& repair = *qp->repair;
  LostRange& range = *std::find_if(repair.lost.begin(), repair.lost.end(),
                                   [](const LostRange& lost) { return lost.next < lost.end; });
  const uint64_t end =
      std::min({range.end, qp->Find(range.next)->end, range.next + fabric->parameters.mtu_bytes});
  const auto payload = static_cast<uint32_t>(end - range.next);
  packet->seq = range.next;
  range.next = end;
  range.sent_before = qp->next_seq;
  repair.unsent -= payload;
  packet->wants_ack = end == range.end;
  return payload;
}

void RdmaNic::SendData(Port& port, QueuePair* qp) {
  const Parameters& parameters = fabric->parameters;
  PacketRecord* packet = fabric->NewPacket();
  packet->qp = qp;
  uint32_t payload;
  if (qp->LostBytes() > 0) {
    payload = TakeLost(qp, packet);
  } else {
    while (qp->next_seq >= qp->send_end) {
      qp->sending = qp->sending->next;
      qp->send_end = qp->sending->end;
    }
    packet->seq = qp->next_seq;
    payload = static_cast<uint32_t>(
        std::min<uint64_t>(qp->send_end - qp->next_seq, parameters.mtu_bytes));
    qp->next_seq += payload;
    packet->wants_ack = parameters.upstream_order || AsksForAck(*qp);
    if (packet->wants_ack && !parameters.upstream_order) qp->requested_seq = qp->next_seq;
  }
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
  ++qp->in_network;
  ++fabric->data_packets;
  if (packet->wants_ack && fabric->repetition) fabric->repetition->Asked(qp);
  if (packet->wants_ack && fabric->replay) fabric->replay->Asked(qp);
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

// Whether to acknowledge a packet that comes in its turn.
inline bool RdmaNic::TakeInOrder(QueuePair* qp, const PacketRecord& packet) {
  const Parameters& parameters = fabric->parameters;
  qp->expected_seq += fabric->Bytes(packet);
  bool closes = false;
  if (qp->repair && !qp->repair->held.Empty()) {
    const uint64_t end = qp->repair->held.TakeUpTo(qp->expected_seq);
    closes = end != qp->expected_seq;
    qp->expected_seq = end;
  }
  if (qp->expected_seq >= qp->receive_end) fabric->Deliver(qp);
  if (parameters.chunk_bytes != 0 && (parameters.upstream_order || parameters.back_to_zero) &&
      qp->expected_seq % parameters.chunk_bytes == 0)
    return true;
  if (!parameters.upstream_order) return packet.wants_ack || closes;
  // The fork: everything past the interval, and the end of the transfer.
  return qp->expected_seq >= parameters.ack_interval_bytes || qp->expected_seq >= qp->bytes;
}

// Whether to answer, by the NACK that `packet` then is, one that comes before its turn.  Selective
// repeat names what is missing, once; where all packets take one way, that is lost.
bool RdmaNic::TakeEarly(QueuePair* qp, PacketRecord* packet) {
  const Parameters& parameters = fabric->parameters;
  const uint64_t expected = qp->expected_seq;
  ++fabric->disturbances;
  if (parameters.selective) {
    ByteRanges& held = qp->Repairs().held;
    const uint64_t known = held.Empty() ? expected : held.End();
    const uint64_t begin = packet->seq;
    held.Add(begin, begin + fabric->Bytes(*packet));
    if (begin <= known || fabric->Reorders()) return false;
    packet->kind = PacketKind::kNack;
    packet->seq = known;
    packet->gap = static_cast<uint32_t>(std::min<uint64_t>(begin - known, UINT32_MAX));
    return true;
  }
  const Tick now = fabric->sim->NowTick();
  if (now < qp->nack_until && qp->nacked_seq == expected) return false;
  qp->nack_until = now + parameters.nack_interval;
  qp->nacked_seq = expected;
  if (parameters.back_to_zero && parameters.chunk_bytes != 0)
    qp->expected_seq = expected / parameters.chunk_bytes * parameters.chunk_bytes;
  packet->kind = PacketKind::kNack;
  packet->seq = qp->expected_seq;
  packet->gap = 0;
  return true;
}

void RdmaNic::ReceiveData(PacketRecord* packet) {
  const Parameters& parameters = fabric->parameters;
  QueuePair* qp = packet->qp;
  if (packet->marked && parameters.cnp_interval > 0) SendCnp(qp);
  bool acknowledge;
  if (packet->seq == qp->expected_seq) {
    acknowledge = TakeInOrder(qp, *packet);
  } else if (packet->seq > qp->expected_seq) {
    acknowledge = !TakeEarly(qp, packet) && parameters.selective && packet->wants_ack;
  } else {
    // Again, because the first ACK may be lost.  The fork has no timeouts, and keeps silent.
    acknowledge = parameters.upstream_order ? qp->timeouts > 0 : packet->wants_ack;
  }
  if (acknowledge) {
    packet->kind = PacketKind::kAck;
    packet->seq = qp->expected_seq;
    packet->gap = 0;
    if (qp->repair && !qp->repair->held.Empty())
      packet->gap = static_cast<uint32_t>(
          std::min<uint64_t>(qp->repair->held.End() - qp->expected_seq, UINT32_MAX));
  } else if (packet->kind == PacketKind::kData) {  // no answer
    qp->marked_since = qp->marked_since || packet->marked;
    fabric->Free(packet);
    return;
  }
  // The packet turns into its answer: telemetry, timestamp and mark travel back in it.
  if (!parameters.upstream_order) {
    packet->marked = packet->marked || qp->marked_since;
    qp->marked_since = false;
  }
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
  ++fabric->disturbances;
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
  uint64_t seq = packet->kind == PacketKind::kNack && packet->gap > 0 ? 0 : packet->seq;
  if (parameters.back_to_zero && parameters.chunk_bytes != 0 && seq < qp->bytes)
    seq = seq / parameters.chunk_bytes * parameters.chunk_bytes;
  if (seq > qp->acked_seq) {
    qp->acked_seq = seq;
    qp->next_seq = std::max(qp->next_seq, seq);  // a retransmission that proved needless
    qp->progress = fabric->sim->NowTick();
    qp->timeouts = 0;
    if (qp->repair) qp->repair->Arrived(seq);
    qp->Changed();
  }
  Port* port = qp->routed ? qp->port : nullptr;  // read now: an ended pair may be taken anew
  const bool over = !qp->lasting && qp->Finished();
  if (qp->oldest != nullptr && qp->acked_seq >= qp->oldest->end) fabric->Acknowledge(qp);
  if (over) {
    // The fork goes on to adapt the rate of the pair that has just ended, which may wake its NIC
    // earlier and draws random numbers.
    if (parameters.upstream_order && (parameters.telemetry || parameters.pint))
      fabric->control->OnAck(*qp, *packet);
  } else {
    if (parameters.selective) {
      if (packet->gap > 0) FindLost(qp, *packet);
    } else if (packet->kind == PacketKind::kNack && qp->oldest != nullptr) {
      if (qp->next_seq > qp->acked_seq) fabric->Repeat(qp, qp->acked_seq, qp->next_seq);
      qp->GoBack();
      qp->Changed();
    }
    fabric->control->OnAck(*qp, *packet);
  }
  fabric->Free(packet);
  if (port != nullptr) port->RequestService();
}

// A NACK names what is lost.  An ACK that tells of bytes beyond the one that it expects says that this one
// is lost: if the sender does not know, the NACK was lost too, and if a packet has arrived that was
// sent after it had been sent again, it is lost again.
void RdmaNic::FindLost(QueuePair* qp, const PacketRecord& answer) {
  const uint64_t begin = std::max(answer.seq, qp->acked_seq);
  uint64_t end = answer.seq + answer.gap;
  if (answer.kind == PacketKind::kAck) {
    if (fabric->Reorders() || answer.seq != qp->acked_seq || qp->Finished()) return;
    std::vector<LostRange>& lost = qp->Repairs().lost;
    if (!lost.empty() && lost.front().begin <= begin) {
      LostRange& head = lost.front();
      if (head.next < head.end || end <= head.sent_before) return;
      fabric->Repeat(qp, head.begin, head.end);
      qp->repair->Again(head);
      qp->Changed();
      return;
    }
    end = std::min(begin + fabric->parameters.mtu_bytes, qp->Find(begin)->end);
  }
  if (begin >= end) return;
  qp->Repairs().Lose(begin, end);
  fabric->Repeat(qp, begin, end);
  qp->Changed();
}

}  // namespace astra_ns3
