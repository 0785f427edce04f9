// SPDX-License-Identifier: MIT
#include "trains.h"

#include <algorithm>
#include <cmath>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr uint64_t kLeastPackets = 8;  // for which a train is worth it
constexpr uint64_t kWindowPackets = 32;  // of a measurement, at least
constexpr double kSteady = 0.005;  // two windows in a row differ by no more

template <class Action>
void OnWay(Port* first, const Route& rest, const Action& action) {
  if (first == nullptr) return;
  action(*first);
  for (uint32_t hop = 0; hop < rest.size(); ++hop) action(*rest[hop]);
}

}  // namespace

void Trains::Occupy(QueuePair* qp) {
  if (qp->occupies || !qp->routed) return;
  qp->occupies = true;
  OnWay(qp->port, qp->forward, [&](Port& port) {
    ++port.data_pairs;
    if (port.train != nullptr) Break(port.train);
  });
  OnWay(qp->receiver_port, qp->backward, [](Port& port) { ++port.ack_pairs; });
}

void Trains::Vacate(QueuePair* qp) {
  if (!qp->occupies) return;
  qp->occupies = false;
  OnWay(qp->port, qp->forward, [](Port& port) { --port.data_pairs; });
  OnWay(qp->receiver_port, qp->backward, [](Port& port) { --port.ack_pairs; });
}

uint64_t Trains::Links(const QueuePair& qp) const {
  if (!qp.occupies || qp.train.packets != 0 || qp.LostBytes() > 0 ||
      (qp.repair && !qp.repair->held.Empty()) || qp.bps != qp.max_bps ||
      !fabric_->control->Settled(qp))
    return 0;
  bool able = true;
  auto links = static_cast<uint64_t>(qp.base_rtt);
  const auto add = [&](const Port& port, bool others) {
    able = able && port.up && port.paused == 0 && port.loss == 0;
    links = (links * 0x9e3779b97f4a7c15u ^ static_cast<uint64_t>(port.bps)) * 2 + (others ? 1 : 0);
  };
  OnWay(qp.port, qp.forward, [&](const Port& port) {
    able = able && port.data_pairs == 1;
    add(port, port.ack_pairs > 0);
  });
  OnWay(qp.receiver_port, qp.backward, [&](const Port& port) { add(port, port.data_pairs > 0); });
  return able ? links | 1ull << 63 : 0;
}

// Whether those whose packets its acknowledgements meet send packets, and not trains.
bool Trains::Undisturbed(const QueuePair& qp) const {
  bool packets = true;
  OnWay(qp.receiver_port, qp.backward,
        [&](const Port& port) { packets = packets && port.train == nullptr; });
  return packets;
}

// Known, or found just now: two windows in a row, each of a round trip at least, had nearly the same,
// not counting the first one, in which the links fill.
const Pace* Trains::PaceOf(QueuePair* qp, uint64_t links) {
  TrainState& state = qp->train;
  const auto known = paces_.find(links);
  if (known != paces_.end()) return &known->second;
  const Parameters& parameters = fabric_->parameters;
  const Tick now = fabric_->sim->NowTick();
  if (state.links != links || qp->in_network == 0 || !Undisturbed(*qp)) {
    state.links = links;
    state.window_begin = now;
    state.window_seq = qp->next_seq;
    state.last = -1;
    return nullptr;
  }
  const uint64_t mtu = parameters.mtu_bytes;
  const uint64_t group = std::max<uint64_t>(1, (parameters.ack_interval_bytes + mtu - 1) / mtu);
  const uint64_t least = std::max<uint64_t>(kWindowPackets, qp->bdp_bytes / mtu + 1);
  const uint64_t bytes = qp->next_seq - state.window_seq;
  if (bytes < (least + group - 1) / group * group * mtu) return nullptr;
  const double ticks = static_cast<double>(now - state.window_begin) * static_cast<double>(mtu) /
                       static_cast<double>(bytes);
  const double last = state.last, change = last > 0 ? std::abs(ticks / last - 1) : 1;
  state.window_begin = now;
  state.window_seq = qp->next_seq;
  state.last = last < 0 ? 0 : ticks;
  if (change > kSteady) return nullptr;
  return &paces_.emplace(links, Pace{(ticks + last) / 2, change}).first->second;
}

bool Trains::Begin(QueuePair* qp) {
  const Parameters& parameters = fabric_->parameters;
  if (qp->next_seq >= qp->send_end && qp->sending->next == nullptr) return false;
  const uint64_t end = qp->next_seq < qp->send_end ? qp->send_end : qp->sending->next->end;
  const uint64_t packets = (end - qp->next_seq + parameters.mtu_bytes - 1) / parameters.mtu_bytes;
  if (packets < kLeastPackets) return false;
  const uint64_t links = Links(*qp);
  if (links == 0) {
    qp->train.links = 0;
    return false;
  }
  const Pace* pace = PaceOf(qp, links);
  if (pace == nullptr) return false;
  OnWay(qp->port, qp->forward, [qp](Port& port) { port.train = qp; });
  TrainState& train = qp->train;
  train.packets = packets;
  train.begin = fabric_->sim->NowTick();
  train.pace = pace->ticks;
  train.links = 0;
  train.last = pace->change;
  qp->next_available =
      train.begin + static_cast<Tick>(static_cast<double>(packets - 1) * pace->ticks);
  qp->Changed();
  return true;
}

uint64_t Trains::Send(QueuePair* qp, PacketRecord* packet) {
  packet->train = static_cast<uint32_t>(qp->train.packets - 1);
  ++count_;
  packets_ += packet->train;
  const Tick ticks = fabric_->sim->NowTick() - qp->train.begin;
  // As steady as the pace was, and one packet: that in whose place the last one may have to wait.
  const double error = qp->train.last * static_cast<double>(ticks) + qp->train.pace;
  bound_ = (bound_ * static_cast<double>(ticks_) + error) /
           std::max(1.0, static_cast<double>(ticks_ + ticks));
  ticks_ += ticks;
  OnWay(qp->port, qp->forward, [qp](Port& port) {
    if (port.train == qp) port.train = nullptr;
  });
  qp->train.packets = 0;
  const uint64_t bytes = static_cast<uint64_t>(packet->train) * fabric_->parameters.mtu_bytes;
  qp->train_bytes += bytes;
  return bytes;
}

// What has begun to leave is sent; the rest goes on as packets.
void Trains::Break(QueuePair* qp) {
  const Tick now = fabric_->sim->NowTick();
  const auto sent =
      static_cast<uint64_t>(static_cast<double>(now - qp->train.begin) / qp->train.pace) + 1;
  OnWay(qp->port, qp->forward, [](Port& port) { port.train = nullptr; });
  if (sent >= qp->train.packets) return;
  qp->train.packets = sent;
  qp->next_available = now;
  qp->Changed();
  qp->port->RequestService();
}

void Trains::BreakAll() {
  for (const auto& port : fabric_->ports)
    if (port->train != nullptr) Break(port->train);
}

void Trains::Recount() {
  for (const auto& port : fabric_->ports) port->data_pairs = port->ack_pairs = 0;
  for (const auto& pair : fabric_->pairs()) {
    pair->occupies = false;
    if (pair->expected_seq < pair->bytes) Occupy(pair.get());
  }
}

}  // namespace astra_ns3
