// SPDX-License-Identifier: MIT
#include "repetition.h"

#include <algorithm>
#include <utility>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr size_t kPast = 8;  // descriptions that are kept
constexpr uint64_t kWordsPerEvent = 16;  // what a description may cost, beside the events
constexpr uint64_t kMostPatience = 64;

bool Idle(const QueuePair& qp) {
  return qp.Finished() && qp.in_network == 0 && qp.timer == std::array<uint64_t, 3>{};
}

}  // namespace

void Repetition::Asked(const QueuePair* qp) {
  if (fabric_->disturbances != disturbances_seen_) Forget();
  if (next_look_ > fabric_->sim->EventsRun()) return;
  if (reference_ == nullptr) reference_ = qp;
  if (reference_ == qp) fabric_->sim->RequestLook();
}

void Repetition::Forget() {
  count_ = 0;
  reference_ = nullptr;
  disturbances_seen_ = fabric_->disturbances;
}

bool Repetition::Look(Tick limit) {
  if (fabric_->disturbances != disturbances_seen_) Forget();
  if (past_.empty()) past_.resize(kPast);
  if (count_ == kPast) {
    std::rotate(past_.begin(), past_.begin() + 1, past_.end());
    --count_;
  }
  Description& now = past_[count_];
  const bool possible = Describe(&now);
  bool moved = false;
  if (possible) {
    for (size_t i = count_; i-- > 0;) {
      const Description& before = past_[i];
      if (before.hash != now.hash || before.words != now.words) continue;
      const uint64_t periods = Periods(before, now, limit);
      if (periods > 0) {
        Move(before, now, periods);
        moved = true;
        patience_ = 1;
        in_vain_ = 0;
      }
      break;
    }
    ++count_;
  }
  // Where nothing ever repeats, descriptions become rare.
  if (!moved && ++in_vain_ % kPast == 0) patience_ = std::min(2 * patience_, kMostPatience);
  if (moved) Forget();
  next_look_ = fabric_->sim->EventsRun() + 1 + patience_ * now.words.size() / kWordsPerEvent;
  return moved;
}

bool Repetition::Describe(Description* to) {
  const FabricSimulator& sim = *fabric_->sim;
  Words& words = to->words;
  words.clear();
  to->sent.clear();
  to->counts.clear();
  pairs_.clear();
  to->now = sim.NowTick();
  to->next_order = sim.NextOrder();
  if (!sim.Describe(&words)) return false;
  for (const auto& node : fabric_->nodes) node->Describe(&words);
  for (const auto& port : fabric_->ports) {
    if (!Add(*port, &words)) return false;
    to->counts.insert(to->counts.end(),
                      {port->tx_bytes, port->tx_packets,
                       static_cast<unsigned __int128>(port->busy_ticks), port->queue_byte_ticks});
  }
  to->counts.insert(to->counts.end(),
                    {fabric_->packet_hops, fabric_->data_packets, sim.EventsRun()});
  const auto& pairs = fabric_->pairs();
  for (size_t i = 0; i < pairs.size(); ++i) {
    QueuePair* qp = pairs[i].get();
    if (Idle(*qp)) continue;
    words.push_back(i);
    if (!Add(*qp, &words)) return false;
    pairs_.push_back(qp);
    to->sent.push_back(qp->next_seq);
  }
  // FNV-1a, by words.
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint64_t word : words) hash = (hash ^ word) * 0x100000001b3u;
  to->hash = hash;
  return true;
}

bool Repetition::Add(const PacketRecord& packet, bool on_wire, Words* words) const {
  const QueuePair* qp = packet.qp;
  const bool data = packet.kind == PacketKind::kData;
  if (qp == nullptr || !(data || packet.kind == PacketKind::kAck)) return false;
  const FabricSimulator& sim = *fabric_->sim;
  const uint64_t ingress = on_wire ? 0 : packet.ingress;  // until it is somewhere
  words->push_back(static_cast<uint64_t>(packet.kind) | static_cast<uint64_t>(packet.queue) << 4 |
                   static_cast<uint64_t>(packet.hop) << 8 |
                   static_cast<uint64_t>(packet.marked) << 16 | ingress << 17 |
                   static_cast<uint64_t>(packet.epoch) << 33 |
                   static_cast<uint64_t>(data && packet.wants_ack) << 41);
  words->push_back(static_cast<uint64_t>(packet.wire_bytes) << 32 | (data ? 0 : packet.gap));
  words->push_back(reinterpret_cast<uintptr_t>(qp));
  words->push_back(qp->next_seq - packet.seq);
  words->push_back(static_cast<uint64_t>(packet.arrive - sim.NowTick()));
  if (on_wire) words->push_back(sim.NextOrder() - packet.order);
  return true;
}

bool Repetition::Add(const Port& port, Words* words) const {
  const FabricSimulator& sim = *fabric_->sim;
  words->push_back(port.last_queue | port.paused << 8 | port.pausing << 16 |
                   static_cast<uint64_t>(port.done_pending) << 24 | port.pairs.Turn() << 32);
  const bool busy = port.busy_until > sim.NowTick(), wakes = port.wake_at != kNeverTick;
  if (!busy && !wakes && port.wire.empty() && port.waiting == 0 && port.queue[0].empty() &&
      port.ingress_bytes == std::array<int64_t, kQueues>{})
    return true;
  words->push_back(port.link);
  words->push_back(busy ? static_cast<uint64_t>(port.busy_until - sim.NowTick()) : 0);
  words->push_back(busy ? sim.NextOrder() - port.done_order : 0);
  words->push_back(wakes ? static_cast<uint64_t>(port.wake_at - sim.NowTick()) : UINT64_MAX);
  words->push_back(wakes ? sim.NextOrder() - port.wake_order : 0);
  for (const PacketRecord* at = port.wire.head; at != nullptr; at = at->next)
    if (!Add(*at, true, words)) return false;
  for (uint32_t queue = 0; queue < kQueues; ++queue) {
    words->push_back(UINT64_MAX - queue);
    for (const PacketRecord* at = port.queue[queue].head; at != nullptr; at = at->next)
      if (!Add(*at, false, words)) return false;
    words->push_back(static_cast<uint64_t>(port.ingress_bytes[queue]));
    words->push_back(static_cast<uint64_t>(port.headroom_bytes[queue]));
    words->push_back(static_cast<uint64_t>(port.egress_bytes[queue]));
  }
  return true;
}

bool Repetition::Add(const QueuePair& qp, Words* words) const {
  const FabricSimulator& sim = *fabric_->sim;
  const Parameters& parameters = fabric_->parameters;
  if (qp.repair && !(qp.repair->held.Empty() && qp.repair->lost.empty())) return false;
  const uint64_t chunk = parameters.upstream_order || parameters.back_to_zero
                             ? std::max<uint64_t>(1, parameters.chunk_bytes)
                             : 1;
  words->insert(words->end(),
                {qp.next_seq - qp.acked_seq, qp.next_seq - qp.expected_seq,
                 qp.requested_seq == UINT64_MAX ? UINT64_MAX : qp.next_seq - qp.requested_seq,
                 qp.next_seq % chunk, std::min(qp.expected_seq, parameters.ack_interval_bytes),
                 qp.current_window, static_cast<uint64_t>(qp.bps),
                 static_cast<uint64_t>(qp.next_available - sim.NowTick()),
                 static_cast<uint64_t>(qp.last_wire_bytes) << 32 | qp.in_network,
                 static_cast<uint64_t>(qp.slot) << 32 | qp.timeouts << 4 |
                     (qp.marked_since ? 1u : 0) | (qp.listed ? 2u : 0)});
  for (const uint64_t timer : qp.timer) words->push_back(timer == 0 ? 0 : sim.NextOrder() - timer);
  return fabric_->control->Describe(qp, words);
}

// So many that no pair comes to the end of what it sends, receives or has acknowledged, that its
// congestion control counts to no end, and that no event of anything else falls in between.
uint64_t Repetition::Periods(const Description& before, const Description& now, Tick limit) const {
  const Tick last = std::min(limit, fabric_->sim->NextFixed() - 1);
  const Tick period = now.now - before.now;
  uint64_t periods =
      last > now.now ? static_cast<uint64_t>((last - now.now) / period) : uint64_t{0};
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const uint64_t bytes = now.sent[i] - before.sent[i];
    periods = std::min(periods, fabric_->control->PeriodsLeft(*pairs_[i], bytes));
  }
  return periods;
}

void Repetition::Move(const Description& before, const Description& now, uint64_t periods) {
  FabricSimulator& sim = *fabric_->sim;
  const Tick time = (now.now - before.now) * static_cast<Tick>(periods);
  const uint64_t orders = (now.next_order - before.next_order) * periods;
  auto more = [&, at = size_t{0}]() mutable {
    const unsigned __int128 count = (now.counts[at] - before.counts[at]) * periods;
    ++at;
    return count;
  };
  for (size_t i = 0; i < pairs_.size(); ++i) {
    QueuePair& qp = *pairs_[i];
    const uint64_t bytes = (now.sent[i] - before.sent[i]) * periods;
    qp.skipped = bytes;
    if (bytes > 0) qp.progress += time;
    qp.next_seq += bytes;
    qp.acked_seq += bytes;
    qp.expected_seq += bytes;
    if (qp.requested_seq != UINT64_MAX) qp.requested_seq += bytes;
    qp.next_available += time;
    for (uint64_t& timer : qp.timer) timer += timer == 0 ? 0 : orders;
    fabric_->control->Skipped(qp, bytes);
  }
  for (auto& port : fabric_->ports) {
    port->tx_bytes += static_cast<uint64_t>(more());
    port->tx_packets += static_cast<uint64_t>(more());
    port->busy_ticks += static_cast<Tick>(more());
    port->queue_byte_ticks += more();
    if (port->busy_until > now.now) {
      port->busy_until += time;
      port->done_order += orders;
    }
    if (port->wake_at != kNeverTick) {
      port->wake_at += time;
      port->wake_order += orders;
    }
    const auto move = [&](PacketRecord* packet) {
      for (; packet != nullptr; packet = packet->next) {
        packet->seq += packet->qp->skipped;
        packet->arrive += time;
        packet->order += orders;
      }
    };
    move(port->wire.head);
    for (PacketQueue& queue : port->queue) move(queue.head);
  }
  fabric_->packet_hops += static_cast<uint64_t>(more());
  fabric_->data_packets += static_cast<uint64_t>(more());
  sim.Move(time, orders, static_cast<uint64_t>(more()));
  for (QueuePair* qp : pairs_) qp->Changed();
  jumped_ += time;
  ++jumps_;
}

}  // namespace astra_ns3
