// SPDX-License-Identifier: MIT
#include "replay.h"

#include <algorithm>
#include <array>
#include <utility>

#include "congestion.h"
#include "fabric.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr size_t kMostPairs = 256;  // of a component
constexpr size_t kMostMessages = 64;  // of a pair
constexpr size_t kMostWords = 2u << 20;  // of what is known, in all
constexpr uint64_t kLeastHops = 4;  // per link, for which leaving them out is worth it
// What looking may cost, in events: a share of those that are simulated; what led to something is given
// back several times.
constexpr int64_t kFirstTokens = 200000, kMostTokens = 1000000;
constexpr int64_t kEventsPerToken = 16, kWordsPerToken = 8, kStepsPerToken = 16, kGivenBack = 4;
constexpr size_t kPast = 8;  // descriptions of a component that are kept
constexpr uint32_t kMostPatience = 64;  // asks of the reference between two of them
constexpr uint32_t kMostMisses = 16;  // of states that are not known, after which few are looked up
constexpr uint32_t kMostInterruptions = 4;  // without one success

template <class Action>
void OnWay(const QueuePair& qp, const Action& action) {
  const auto walk = [&](Port* first, const Route& rest) {
    if (first == nullptr) return;
    action(*first);
    for (uint32_t hop = 0; hop < rest.size(); ++hop) action(*rest[hop]);
  };
  walk(qp.port, qp.forward);
  walk(qp.receiver_port, qp.backward);
}

Run* RunAt(const Port& port) {
  for (const QueuePair* qp : port.users)
    if (qp->run != nullptr) return qp->run;
  return nullptr;
}

SharedBufferSwitch* SwitchOf(Device* device) {
  return device->IsNic() ? nullptr : static_cast<SharedBufferSwitch*>(device);
}

template <class Action>
void OnPackets(const Port& port, const Action& action) {
  for (const PacketRecord* at = port.wire.head; at != nullptr; at = at->next) action(*at, kQueues);
  for (uint32_t queue = 0; queue < kQueues; ++queue)
    for (const PacketRecord* at = port.queue[queue].head; at != nullptr; at = at->next)
      action(*at, queue);
}

}  // namespace

struct PacketCopy {
  uint32_t pair;
  PacketKind kind;
  uint8_t place;  // queue of the port, or kQueues: on its wire
  uint8_t queue, hop;
  uint32_t wire_bytes, gap;
  uint64_t seq_back;  // from what the pair has sent
  Tick arrive;  // as all times here: from the end
};

struct PortEnd {
  uint64_t bytes, packets;
  Tick busy;
  unsigned __int128 queue_byte_ticks;
  uint32_t max_queue_bytes;
  Tick busy_until, wake_at;  // or kNeverTick
  bool done_pending;
  uint32_t last_queue, waiting, waiting_bytes, last_pair;
  std::array<int64_t, kQueues> egress_bytes, ingress_bytes;  // the second where its wire ends
  std::vector<PacketCopy> packets_here;
};

struct PairEnd {
  uint64_t sent, acked_back, expected_back, requested_back, packets;
  Tick available, progress;
  uint32_t last_wire_bytes, in_network;
  bool acked;
};

struct Trajectory {
  uint64_t hash = 0;
  std::vector<uint64_t> words;  // of the beginning
  Run* recording = nullptr;
  std::vector<Run*> followers;  // began like it, and wait for its end
  bool complete = false, worth = false;
  uint32_t interruptions = 0, successes = 0;
  Tick ticks = 0;
  uint64_t hops = 0;
  std::vector<PairEnd> pairs;
  std::vector<PortEnd> ports;
  std::vector<uint32_t> orders;  // of the times and packets that have a place in their instant
  std::vector<std::pair<uint32_t, bool>> steps;  // of its last instant: pairs
};

// A component as it was, to be compared with itself.
struct Past {
  Tick now;
  uint64_t hash;
  std::vector<uint64_t> words, sent, counts;
  std::vector<unsigned __int128> queue_byte_ticks;
};

// A component that is watched and may be recorded, or whose events are left out.
struct Run final : public EventTarget {
  Replay* replay = nullptr;
  std::vector<QueuePair*> pairs;
  std::vector<Port*> ports;
  bool used = false;
  int64_t cost = 0;  // of looking at it
  Trajectory* trajectory = nullptr;  // that it records, or that stands for its events
  bool left_out = false;
  Tick period = 0;  // left out are repetitions of the newest period, and not a trajectory
  Tick begin = 0, left_out_begin = 0;
  QueuePair* reference = nullptr;
  uint32_t asks = 0, patience = 1, in_vain = 0;
  std::vector<Past> past;
  size_t past_count = 0, same = 0;  // the one that is as the newest
  uint64_t end_order = 0;
  struct PortBase {
    uint64_t bytes, packets, irregular;
    Tick busy;
    unsigned __int128 queue_byte_ticks;
    uint32_t max_queue_bytes;
  };
  struct PairBase {
    uint64_t next_seq, acked_seq;
  };
  std::vector<PortBase> port_base;
  std::vector<PairBase> pair_base;
  std::vector<std::vector<uint64_t>> ends;  // per pair: where its messages end

  void Fire(uint32_t, uint64_t order) override {
    if (order == end_order) replay->Finish(this);
  }
};

Replay::Replay(Fabric* fabric) : fabric_(fabric), tokens_(kFirstTokens) {}
Replay::~Replay() = default;

// ---------------------------------------------------------------------------------------------
// What happens

void Replay::Touch(QueuePair* qp) {
  touched_.push_back(qp);
  fabric_->sim->RequestSettle();
}

void Replay::Passed(QueuePair* qp, bool arrived) {
  steps_.push_back({qp, arrived});
  Touch(qp);
}

void Replay::Input(QueuePair* qp) {
  if (qp->run != nullptr) Interrupt(qp->run);
  if (!qp->active) {
    OnWay(*qp, [&](Port& port) {
      while (Run* run = RunAt(port)) Interrupt(run);
    });
    qp->active = true;
    OnWay(*qp, [&](Port& port) { port.users.push_back(qp); });
  }
  Touch(qp);
}

void Replay::Ended(QueuePair* qp) {
  if (!qp->active) return;
  qp->active = false;
  OnWay(*qp, [&](Port& port) {
    const auto at = std::find(port.users.begin(), port.users.end(), qp);
    if (at != port.users.end()) port.users.erase(at);
  });
}

void Replay::Asked(QueuePair* qp) {
  Run* run = qp->run;
  if (run == nullptr || catching_up_) return;
  if (run->reference == nullptr) {
    run->reference = qp;
    run->patience = std::max(1u, qp->patience / 2);
  }
  if (run->reference != qp || ++run->asks < run->patience) return;
  run->asks = 0;
  due_.push_back(run);
  fabric_->sim->RequestSettle();
}

// Chance has decided something in a recording, or a buffer: for others it would decide otherwise.
void Replay::Irregular(const Port& port) {
  for (const Port* at : {&port, static_cast<const Port*>(port.peer)}) {
    Run* run = RunAt(*at);
    if (run == nullptr || run->left_out || run->trajectory == nullptr) continue;
    std::vector<Run*> followers;
    followers.swap(run->trajectory->followers);
    for (Run* follower : followers) follower->trajectory = nullptr;
    Forget(run->trajectory);
    run->trajectory = nullptr;
    for (Run* follower : followers) Interrupt(follower);
  }
}

// Something comes from outside before the end: of a recording, nothing is kept; what was left out
// happens now.
void Replay::Interrupt(Run* run) {
  touched_.insert(touched_.end(), run->pairs.begin(), run->pairs.end());
  fabric_->sim->RequestSettle();
  Trajectory* trajectory = run->trajectory;
  std::vector<Run*> followers;
  if (trajectory != nullptr) {
    auto& all = trajectory->followers;
    if (trajectory->recording == run) {
      followers.swap(all);
    } else {
      ++trajectory->interruptions;
      all.erase(std::remove(all.begin(), all.end(), run), all.end());
    }
  }
  if (run->left_out) CatchUp(run);
  Release(run);
  for (Run* follower : followers) follower->trajectory = nullptr;
  if (trajectory != nullptr && trajectory->recording == run) Forget(trajectory);
  for (Run* follower : followers) Interrupt(follower);
}

// What was left out until now.
void Replay::CatchUp(Run* run) {
  Tick from = run->left_out_begin;
  if (run->period > 0) {
    const Tick passed = std::max<Tick>(0, fabric_->sim->NowTick() - from - 1);
    const Tick periods = passed / run->period;
    from += periods * run->period;
    Shift(run, static_cast<uint64_t>(periods));
  }
  run->period = 0;
  run->left_out = false;
  run->end_order = 0;
  for (Port* port : run->ports) port->left_out = false;
  const bool nested = catching_up_;
  catching_up_ = true;
  fabric_->sim->CatchUp(from, [&] { PushEvents(*run); });
  catching_up_ = nested;
}

void Replay::MakeUp() {
  for (const auto& run : runs_)
    if (run->used) Interrupt(run.get());
}

void Replay::MakeUpAt(const SharedBufferSwitch& device) {
  for (const Port* port : device.ports)
    for (const Port* at : {port, static_cast<const Port*>(port->peer)})
      while (Run* run = RunAt(*at)) Interrupt(run);
}

void Replay::Recount() {
  known_.clear();
  words_kept_ = 0;
  for (const auto& port : fabric_->ports) port->users.clear();
  for (const auto& pair : fabric_->pairs()) {
    pair->active = pair->routed && !(pair->Finished() && pair->in_network == 0);
    if (pair->active) OnWay(*pair, [&](Port& port) { port.users.push_back(pair.get()); });
  }
}

void Replay::Settle() {
  const uint64_t events = fabric_->sim->EventsRun();
  tokens_ = std::min(kMostTokens,
                     tokens_ + static_cast<int64_t>(events - events_seen_) / kEventsPerToken);
  events_seen_ = events % kEventsPerToken == 0 ? events : events - events % kEventsPerToken;
  for (size_t i = 0; i < steps_.size(); ++i)
    if (Run* run = steps_[i].qp->run; run != nullptr && !run->left_out) Close(run);
  steps_.clear();
  for (size_t i = 0; i < due_.size(); ++i)
    if (due_[i]->used && !due_[i]->left_out && tokens_ > 0) Repeat(due_[i]);
  due_.clear();
  ++stamp_;
  const std::vector<QueuePair*> touched = std::move(touched_);
  touched_.clear();
  for (QueuePair* qp : touched)
    if (tokens_ > 0 && qp->active && qp->run == nullptr && qp->stamp != stamp_ &&
        (qp->waits == 0 || --qp->waits == 0))
      Look(qp);
}

// ---------------------------------------------------------------------------------------------
// Runs

Run* Replay::NewRun() {
  if (free_runs_.empty()) {
    runs_.push_back(std::make_unique<Run>());
    runs_.back()->replay = this;
    free_runs_.push_back(runs_.back().get());
  }
  Run* run = free_runs_.back();
  free_runs_.pop_back();
  run->used = true;
  run->cost = 0;
  run->trajectory = nullptr;
  run->left_out = false;
  run->period = 0;
  run->end_order = 0;
  run->reference = nullptr;
  run->asks = run->in_vain = 0;
  run->patience = 1;
  run->past_count = 0;
  return run;
}

void Replay::Release(Run* run) {
  for (QueuePair* qp : run->pairs) qp->run = nullptr;
  for (size_t i = 0; i < run->ports.size(); ++i) {
    Port& port = *run->ports[i];
    port.left_out = false;
    if (i < run->port_base.size())
      port.max_queue_bytes = std::max(port.max_queue_bytes, run->port_base[i].max_queue_bytes);
  }
  run->used = run->left_out = false;
  run->trajectory = nullptr;
  run->end_order = 0;
  run->port_base.clear();
  free_runs_.push_back(run);
}

// All that share links with `first`, and their links.  Pairs count in the order in which their oldest
// packets were sent, so that a ring in which all do the same at one time is the same whoever is first.
void Replay::Collect(QueuePair* first, Run* run) {
  auto& pairs = run->pairs;
  auto& ports = run->ports;
  pairs.assign(1, first);
  ports.clear();
  first->stamp = stamp_;
  size_t steps = 0;
  for (size_t i = 0; i < pairs.size(); ++i)
    OnWay(*pairs[i], [&](Port& port) {
      if (port.stamp == stamp_) return;
      port.stamp = stamp_;
      ports.push_back(&port);
      steps += port.users.size();
      for (QueuePair* other : port.users)
        if (other->stamp != stamp_) {
          other->stamp = stamp_;
          pairs.push_back(other);
        }
    });
  for (QueuePair* qp : pairs) qp->oldest_order = UINT64_MAX;
  for (const Port* port : ports)
    for (const PacketRecord* at = port->wire.head; at != nullptr; at = at->next, ++steps)
      if (at->qp != nullptr) at->qp->oldest_order = std::min(at->qp->oldest_order, at->order);
  std::sort(pairs.begin(), pairs.end(), [](const QueuePair* a, const QueuePair* b) {
    return a->oldest_order != b->oldest_order ? a->oldest_order < b->oldest_order : a->id < b->id;
  });
  for (Port* port : ports) port->place = UINT32_MAX;
  ports.clear();
  for (uint32_t i = 0; i < pairs.size(); ++i) {
    pairs[i]->place = i;
    OnWay(*pairs[i], [&](Port& port) {
      ++steps;
      if (port.place != UINT32_MAX) return;
      port.place = static_cast<uint32_t>(ports.size());
      ports.push_back(&port);
    });
  }
  Pay(run, steps / kStepsPerToken);
}

void Replay::Look(QueuePair* first) {
  Run* run = NewRun();
  Collect(first, run);
  run->begin = fabric_->sim->NowTick();
  QueuePair& eldest = *run->pairs.front();
  if (++eldest.misses > kMostMisses && eldest.misses % kMostMisses != 0) {
    Watch(run);
    return;
  }
  words_.clear();
  const bool described = Describe(*run, true, &words_);
  Pay(run, words_.size() / kWordsPerToken);
  if (!described) {
    for (QueuePair* qp : run->pairs) {
      qp->patience = std::min(2 * qp->patience, kMostPatience);
      qp->waits = qp->patience;
    }
    Release(run);
    return;
  }
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint64_t word : words_) hash = (hash ^ word) * 0x100000001b3u;
  Trajectory* trajectory = nullptr;
  const auto [from, to] = known_.equal_range(hash);
  for (auto at = from; at != to && trajectory == nullptr; ++at)
    if (at->second->words == words_) trajectory = at->second.get();
  if (trajectory == nullptr) {
    if (words_kept_ + words_.size() > kMostWords) {
      Watch(run);
      return;
    }
    words_kept_ += words_.size();
    auto made = std::make_unique<Trajectory>();
    trajectory = made.get();
    trajectory->hash = hash;
    trajectory->words = words_;
    known_.emplace(hash, std::move(made));
  }
  const bool in_vain =
      trajectory->interruptions >= kMostInterruptions * (1 + trajectory->successes);
  if (trajectory->complete || trajectory->recording != nullptr)
    for (QueuePair* qp : run->pairs) qp->misses = 0;
  Watch(run);
  if (in_vain || (trajectory->complete && !trajectory->worth)) return;
  run->trajectory = trajectory;
  if (trajectory->complete) {
    LeaveOut(run);
    Schedule(run, run->begin + trajectory->ticks);
    return;
  }
  if (trajectory->recording != nullptr) {
    LeaveOut(run);
    trajectory->followers.push_back(run);
    return;
  }
  trajectory->recording = run;
  run->pair_base.clear();
  run->ends.clear();
  for (Port* port : run->ports) {
    run->port_base.push_back({port->tx_bytes, port->tx_packets,
                              port->irregular + port->peer->irregular, port->busy_ticks,
                              port->queue_byte_ticks, port->max_queue_bytes});
    port->max_queue_bytes = port->waiting_bytes;
  }
  for (const QueuePair* qp : run->pairs) {
    run->pair_base.push_back({qp->next_seq, qp->acked_seq});
    run->ends.emplace_back();
    for (const Message* at = qp->oldest; at != nullptr; at = at->next)
      run->ends.back().push_back(at->end);
  }
}

void Replay::Watch(Run* run) {
  for (QueuePair* qp : run->pairs) qp->run = run;
}

void Replay::LeaveOut(Run* run) {
  run->left_out = true;
  run->left_out_begin = fabric_->sim->NowTick();
  for (Port* port : run->ports) {
    port->left_out = true;
    if (SharedBufferSwitch* device = SwitchOf(port->owner)) device->left_out = true;
  }
}

void Replay::Schedule(Run* run, Tick end) {
  run->end_order = fabric_->sim->Reserve();
  fabric_->sim->At(end, run->end_order, run, 0);
}

// ---------------------------------------------------------------------------------------------
// Repetition

// A component that is as it was a moment ago goes on by whole periods.
void Replay::Repeat(Run* run) {
  if (run->past.empty()) run->past.resize(kPast);
  if (run->past_count == kPast) {
    std::rotate(run->past.begin(), run->past.begin() + 1, run->past.end());
    --run->past_count;
  }
  Past& now = run->past[run->past_count];
  now.words.clear();
  now.sent.clear();
  now.counts.clear();
  now.queue_byte_ticks.clear();
  now.now = fabric_->sim->NowTick();
  for (uint32_t i = 0; i < run->pairs.size(); ++i) run->pairs[i]->place = i;
  for (uint32_t i = 0; i < run->ports.size(); ++i) run->ports[i]->place = i;
  bool moves = false;
  const bool described = Describe(*run, false, &now.words);
  Pay(run, now.words.size() / kWordsPerToken);
  if (described) {
    now.hash = 0xcbf29ce484222325u;
    for (const uint64_t word : now.words) now.hash = (now.hash ^ word) * 0x100000001b3u;
    uint64_t irregular = 0;
    for (const QueuePair* qp : run->pairs) now.sent.push_back(qp->next_seq);
    for (const Port* port : run->ports) {
      now.counts.insert(now.counts.end(), {port->tx_bytes, port->tx_packets,
                                           static_cast<uint64_t>(port->busy_ticks)});
      now.queue_byte_ticks.push_back(port->queue_byte_ticks);
      irregular += port->irregular + port->peer->irregular;
    }
    now.counts.push_back(irregular);
    for (size_t i = run->past_count; i-- > 0;) {
      const Past& before = run->past[i];
      if (before.hash != now.hash || before.words != now.words || before.counts.back() != irregular)
        continue;
      run->same = i;
      const uint64_t periods = Periods(*run);
      if (periods > 0) {
        moves = true;
        LeaveOut(run);
        run->period = now.now - before.now;
        Schedule(run, now.now + static_cast<Tick>(periods) * run->period);
      }
      break;
    }
    if (!moves) ++run->past_count;
  } else {
    run->past_count = 0;
  }
  // Where nothing ever repeats, descriptions become rare.
  if (moves)
    run->patience = 1;
  else if (++run->in_vain % kPast == 0)
    run->patience = std::min(2 * run->patience, kMostPatience);
  run->reference->patience = run->patience;
}

// So many that no message ends, is sent or is acknowledged as a whole, and no counter expires.
uint64_t Replay::Periods(const Run& run) const {
  const Past& before = run.past[run.same];
  uint64_t periods = UINT64_MAX;
  for (size_t i = 0; i < run.pairs.size(); ++i) {
    const QueuePair& qp = *run.pairs[i];
    periods = std::min(periods, fabric_->control->PeriodsLeft(qp, qp.next_seq - before.sent[i]));
  }
  return periods == UINT64_MAX ? 0 : periods;
}

void Replay::Shift(Run* run, uint64_t periods) {
  if (periods == 0) return;
  const Past& before = run->past[run->same];
  const Past& now = run->past[run->past_count];
  const Tick time = run->period * static_cast<Tick>(periods);
  for (size_t i = 0; i < run->pairs.size(); ++i) {
    QueuePair& qp = *run->pairs[i];
    const uint64_t bytes = (now.sent[i] - before.sent[i]) * periods;
    qp.skipped = bytes;
    if (bytes > 0) qp.progress += time;
    qp.next_seq += bytes;
    qp.acked_seq += bytes;
    qp.expected_seq += bytes;
    qp.requested_seq += bytes;
    qp.next_available += time;
    fabric_->control->Skipped(qp, bytes);
    fabric_->data_packets += bytes / fabric_->parameters.mtu_bytes;
  }
  uint64_t hops = 0;
  for (size_t i = 0; i < run->ports.size(); ++i) {
    Port& port = *run->ports[i];
    const auto more = [&](size_t count) {
      return (now.counts[3 * i + count] - before.counts[3 * i + count]) * periods;
    };
    port.tx_bytes += more(0);
    port.tx_packets += more(1);
    hops += more(1);
    port.busy_ticks += static_cast<Tick>(more(2));
    port.queue_byte_ticks += (now.queue_byte_ticks[i] - before.queue_byte_ticks[i]) * periods;
    if (port.busy_until > now.now) port.busy_until += time;
    if (port.wake_at != kNeverTick) port.wake_at += time;
    const auto move = [&](PacketRecord* packet) {
      for (; packet != nullptr; packet = packet->next) {
        packet->seq += packet->qp->skipped;
        packet->arrive += time;
      }
    };
    move(port.wire.head);
    for (PacketQueue& queue : port.queue) move(queue.head);
  }
  fabric_->packet_hops += hops;
  hops_ += hops;
  ticks_ += time;
  ++repeats_;
}

// ---------------------------------------------------------------------------------------------
// States

// False where something is in it that a description does not tell, or that chance decides.
bool Replay::Describe(const Run& run, bool with_ends, std::vector<uint64_t>* words) {
  if (run.pairs.size() > kMostPairs) return false;
  const Tick now = fabric_->sim->NowTick();
  const uint8_t epoch = fabric_->epoch();
  uint64_t under_way = 0;
  words->push_back(run.pairs.size() << 32 | run.ports.size());
  for (const QueuePair* pair : run.pairs) {
    const QueuePair& qp = *pair;
    if (!qp.lasting || !qp.routed || qp.receiver_port == nullptr ||
        qp.timer != std::array<uint64_t, 3>{} || qp.marked_since || qp.timeouts != 0 ||
        qp.max_bps == 0 || !fabric_->control->Settled(qp) || qp.forward.epoch != epoch ||
        qp.backward.epoch != epoch ||
        (qp.repair && !(qp.repair->held.Empty() && qp.repair->lost.empty())))
      return false;
    under_way += qp.in_network;
    words->insert(
        words->end(),
        {qp.forward.size() | static_cast<uint64_t>(qp.backward.size()) << 16 |
             static_cast<uint64_t>(qp.queue) << 32,
         static_cast<uint64_t>(qp.max_bps), static_cast<uint64_t>(qp.bps), qp.current_window,
         qp.next_seq - qp.acked_seq, qp.next_seq - qp.expected_seq, qp.next_seq - qp.requested_seq,
         static_cast<uint64_t>(std::max<Tick>(0, qp.next_available - now)),
         static_cast<uint64_t>(qp.last_wire_bytes) << 32 | qp.in_network});
    OnWay(qp, [&](const Port& port) { words->push_back(port.place); });
    size_t messages = 0;
    for (const Message* at = qp.oldest; at != nullptr; at = at->next) {
      words->push_back((with_ends ? (qp.next_seq - at->end) << 2 : 0) |
                       (at == qp.sending ? 2u : 0) | (at == qp.receiving ? 1u : 0));
      if (++messages > kMostMessages) return false;
    }
    words->push_back(messages | 1ull << 63);
  }
  orders_.clear();
  const auto ordered = [&](uint64_t order) { orders_.emplace_back(order, orders_.size()); };
  bool able = true;
  for (const Port* port : run.ports) {
    const Port& far = *port->peer;
    const SharedBufferSwitch* device = SwitchOf(port->owner);
    const SharedBufferSwitch* next = SwitchOf(far.owner);
    if (!port->up || port->loss > 0 || port->paused != 0 || far.pausing != 0 ||
        (device != nullptr && device->Pressed()) || (next != nullptr && next->Pressed()))
      return false;
    const bool busy = port->busy_until > now, wakes = port->wake_at != kNeverTick;
    words->insert(words->end(),
                  {static_cast<uint64_t>(port->bps), static_cast<uint64_t>(port->delay),
                   static_cast<uint64_t>(port->kmin) << 1 | (device == nullptr ? 1u : 0),
                   static_cast<uint64_t>(busy ? port->busy_until - now : 0),
                   static_cast<uint64_t>(wakes ? port->wake_at - now : -1),
                   port->last_queue | port->waiting << 8 | (port->done_pending ? 1ull << 32 : 0)});
    if (busy) ordered(port->done_order);
    if (wakes) ordered(port->wake_order);
    for (uint32_t queue = 0; queue < kQueues; ++queue) {
      if (far.headroom_bytes[queue] != 0) return false;
      if (port->egress_bytes[queue] != 0 || far.ingress_bytes[queue] != 0)
        words->insert(words->end(),
                      {queue | 1ull << 62, static_cast<uint64_t>(port->egress_bytes[queue]),
                       static_cast<uint64_t>(far.ingress_bytes[queue])});
    }
    OnPackets(*port, [&](const PacketRecord& packet, uint32_t place) {
      const QueuePair* qp = packet.qp;
      const bool data = packet.kind == PacketKind::kData;
      if (qp == nullptr || !(data || packet.kind == PacketKind::kAck) || packet.marked ||
          packet.epoch != epoch || (!data && packet.gap != 0)) {
        able = false;
        return;
      }
      --under_way;
      if (place == kQueues) ordered(packet.order);
      const bool on_wire = place == kQueues;
      words->insert(
          words->end(),
          {static_cast<uint64_t>(packet.kind) | static_cast<uint64_t>(packet.queue) << 4 |
               static_cast<uint64_t>(packet.hop) << 8 | (place | 16u) << 16 |
               static_cast<uint64_t>(data && packet.wants_ack) << 24 |
               static_cast<uint64_t>(qp->place) << 32,
           packet.wire_bytes, qp->next_seq - packet.seq,
           static_cast<uint64_t>(on_wire || device != nullptr ? packet.arrive - now : 0)});
    });
    // Whose turn it is, where there are several.
    if (device == nullptr && port->users.size() > 1) {
      std::vector<std::pair<size_t, uint32_t>> turns;
      for (const QueuePair* qp : port->users)
        if (qp->port == port && qp->listed) turns.emplace_back(port->pairs.TurnsTo(*qp), qp->place);
      std::sort(turns.begin(), turns.end());
      for (const auto& [turn, place] : turns) words->push_back(place | 1ull << 61);
    }
    if (!able) return false;
  }
  if (under_way != 0) return false;
  std::sort(orders_.begin(), orders_.end());
  for (const auto& [order, place] : orders_) words->push_back(place);
  return true;
}

bool Replay::Capture(const Run& run, Trajectory* to) {
  const Tick now = fabric_->sim->NowTick();
  orders_.clear();
  const auto ordered = [&](uint64_t order) { orders_.emplace_back(order, orders_.size()); };
  to->ticks = now - run.begin;
  to->hops = 0;
  const uint64_t mtu = fabric_->parameters.mtu_bytes;
  for (size_t i = 0; i < run.pairs.size(); ++i) {
    const QueuePair& qp = *run.pairs[i];
    const Run::PairBase& base = run.pair_base[i];
    if (qp.timer != std::array<uint64_t, 3>{} || qp.marked_since ||
        !fabric_->control->Settled(qp) || qp.next_seq < base.next_seq)
      return false;
    uint64_t packets = 0, at = base.next_seq;
    for (const uint64_t end : run.ends[i]) {
      if (end <= at) continue;
      const uint64_t until = std::min(end, qp.next_seq);
      if (until <= at) break;
      packets += (until - at + mtu - 1) / mtu;
      at = until;
    }
    to->pairs.push_back({qp.next_seq - base.next_seq, qp.next_seq - qp.acked_seq,
                         qp.next_seq - qp.expected_seq, qp.next_seq - qp.requested_seq, packets,
                         qp.next_available - now, qp.progress - now, qp.last_wire_bytes,
                         qp.in_network, qp.acked_seq != base.acked_seq});
  }
  for (size_t i = 0; i < run.ports.size(); ++i) {
    const Port& port = *run.ports[i];
    const Port& far = *port.peer;
    const Run::PortBase& base = run.port_base[i];
    if (port.irregular + far.irregular != base.irregular || port.paused != 0) return false;
    const SharedBufferSwitch* device = SwitchOf(port.owner);
    if (device != nullptr && !device->Ample(port.max_queue_bytes)) return false;
    const bool busy = port.busy_until > now, wakes = port.wake_at != kNeverTick;
    const QueuePair* last = port.pairs.Last();
    const bool ours = last != nullptr && last->run == &run;
    PortEnd end{port.tx_bytes - base.bytes,
                port.tx_packets - base.packets,
                port.busy_ticks - base.busy,
                port.queue_byte_ticks - base.queue_byte_ticks,
                port.max_queue_bytes,
                port.busy_until - now,
                wakes ? port.wake_at - now : kNeverTick,
                port.done_pending,
                port.last_queue,
                port.waiting,
                port.waiting_bytes,
                ours ? last->place : UINT32_MAX,
                port.egress_bytes,
                far.ingress_bytes,
                {}};
    if (busy) ordered(port.done_order);
    if (wakes) ordered(port.wake_order);
    bool able = true;
    OnPackets(port, [&](const PacketRecord& packet, uint32_t place) {
      const QueuePair* qp = packet.qp;
      const bool data = packet.kind == PacketKind::kData;
      able = able && qp != nullptr && (data || packet.kind == PacketKind::kAck) && !packet.marked &&
             qp->run == &run;
      if (!able) return;
      if (place == kQueues) ordered(packet.order);
      end.packets_here.push_back({qp->place, packet.kind, static_cast<uint8_t>(place), packet.queue,
                                  packet.hop, packet.wire_bytes,
                                  data ? (packet.wants_ack ? 1u : 0u) : packet.gap,
                                  qp->next_seq - packet.seq, packet.arrive - now});
    });
    if (!able) return false;
    to->hops += end.packets;
    to->ports.push_back(std::move(end));
  }
  std::sort(orders_.begin(), orders_.end());
  for (const auto& [order, place] : orders_) to->orders.push_back(static_cast<uint32_t>(place));
  for (const Step& step : steps_)
    if (step.qp->run == &run) to->steps.emplace_back(step.qp->place, step.arrived);
  return true;
}

void Replay::Close(Run* run) {
  Trajectory* trajectory = run->trajectory;
  touched_.insert(touched_.end(), run->pairs.begin(), run->pairs.end());
  if (trajectory == nullptr) {
    Release(run);
    return;
  }
  const std::vector<Run*> followers = std::move(trajectory->followers);
  trajectory->followers.clear();
  trajectory->recording = nullptr;
  // Places of pairs: others may have been collected since.
  for (uint32_t i = 0; i < run->pairs.size(); ++i) run->pairs[i]->place = i;
  const bool complete = trajectory->complete = Capture(*run, trajectory);
  trajectory->worth = trajectory->hops >= kLeastHops * trajectory->ports.size();
  Release(run);
  for (Run* follower : followers) {
    if (complete) {
      Schedule(follower, follower->begin + trajectory->ticks);
    } else {
      follower->trajectory = nullptr;
      Interrupt(follower);
    }
  }
  if (!complete) Forget(trajectory);
}

void Replay::Forget(Trajectory* trajectory) {
  words_kept_ -= std::min(words_kept_, trajectory->words.size());
  const auto [from, to] = known_.equal_range(trajectory->hash);
  for (auto at = from; at != to; ++at)
    if (at->second.get() == trajectory) {
      known_.erase(at);
      return;
    }
}

void Replay::PushEvents(const Run& run) {
  FabricSimulator& sim = *fabric_->sim;
  const Tick now = sim.NowTick();
  orders_.clear();
  std::vector<uint64_t*> places;
  const auto ordered = [&](uint64_t* order) {
    orders_.emplace_back(*order, places.size());
    places.push_back(order);
  };
  for (Port* port : run.ports) {
    if (port->busy_until > now) ordered(&port->done_order);
    if (port->wake_at != kNeverTick) ordered(&port->wake_order);
    for (PacketRecord* at = port->wire.head; at != nullptr; at = at->next) ordered(&at->order);
  }
  std::sort(orders_.begin(), orders_.end());
  for (const auto& [order, place] : orders_) *places[place] = sim.Reserve();
  for (Port* port : run.ports) {
    if (port->done_pending) sim.At(port->busy_until, port->done_order, port, Port::kDone);
    if (port->wake_at != kNeverTick) sim.At(port->wake_at, port->wake_order, port, Port::kWake);
    if (!port->wire.empty())
      sim.At(port->wire.head->arrive, port->wire.head->order, port, Port::kArrival);
  }
}

void Replay::Pay(Run* run, size_t tokens) {
  run->cost += static_cast<int64_t>(tokens);
  tokens_ -= static_cast<int64_t>(tokens);
}

void Replay::Finish(Run* run) {
  tokens_ = std::min(kMostTokens, tokens_ + kGivenBack * run->cost);
  run->cost = 0;
  if (run->period == 0) {
    FinishTrajectory(run);
    return;
  }
  Shift(run, static_cast<uint64_t>((fabric_->sim->NowTick() - run->left_out_begin) / run->period));
  run->period = 0;
  run->left_out = false;
  run->end_order = 0;
  for (Port* port : run->ports) port->left_out = false;
  run->past_count = 0;
  run->patience = 1;
  PushEvents(*run);
  for (QueuePair* qp : run->pairs) qp->Changed();
}

void Replay::FinishTrajectory(Run* run) {
  Trajectory* trajectory = run->trajectory;
  const Run parts = *run;
  ++trajectory->successes;
  ++count_;
  hops_ += trajectory->hops;
  ticks_ += trajectory->ticks;
  Release(run);
  Apply(parts);
  touched_.insert(touched_.end(), parts.pairs.begin(), parts.pairs.end());
  fabric_->sim->RequestSettle();
  for (const auto& [place, arrived] : trajectory->steps) {
    QueuePair* qp = parts.pairs[place];
    if (arrived)
      fabric_->Deliver(qp);
    else
      fabric_->Acknowledge(qp);
  }
  for (QueuePair* qp : parts.pairs)
    if (qp->in_network == 0 && qp->Finished()) Ended(qp);
}

void Replay::Apply(const Run& run) {
  const Trajectory& end = *run.trajectory;
  FabricSimulator& sim = *fabric_->sim;
  const Tick now = sim.NowTick();
  uint64_t on_wire_before = 0, on_wire = 0;
  for (size_t i = 0; i < run.pairs.size(); ++i) {
    QueuePair& qp = *run.pairs[i];
    const PairEnd& its = end.pairs[i];
    qp.next_seq += its.sent;
    qp.acked_seq = qp.next_seq - its.acked_back;
    qp.expected_seq = qp.next_seq - its.expected_back;
    qp.requested_seq = qp.next_seq - its.requested_back;
    qp.next_available = now + its.available;
    if (its.acked) qp.progress = now + its.progress;
    qp.last_wire_bytes = its.last_wire_bytes;
    qp.in_network = its.in_network;
    while (qp.sending != nullptr && qp.next_seq > qp.send_end) {
      qp.sending = qp.sending->next;
      qp.send_end = qp.sending->end;
    }
    fabric_->control->Skipped(qp, its.sent);
    fabric_->data_packets += its.packets;
  }
  for (size_t i = 0; i < run.ports.size(); ++i) {
    Port& port = *run.ports[i];
    Port& far = *port.peer;
    const PortEnd& its = end.ports[i];
    while (!port.wire.empty()) {
      ++on_wire_before;
      fabric_->Recycle(port.wire.pop());
    }
    for (PacketQueue& queue : port.queue)
      while (!queue.empty()) fabric_->Recycle(queue.pop());
    for (const PacketCopy& copy : its.packets_here) {
      QueuePair* qp = run.pairs[copy.pair];
      const bool data = copy.kind == PacketKind::kData;
      const Route& route = data ? qp->forward : qp->backward;
      PacketRecord* packet = fabric_->NewPacket();
      packet->qp = qp;
      packet->kind = copy.kind;
      packet->queue = copy.queue;
      route.Enter(packet);
      packet->hop = copy.hop;
      packet->egress = copy.hop < packet->hops ? route[copy.hop] : nullptr;
      packet->wire_bytes = copy.wire_bytes;
      packet->gap = 0;
      if (data)
        packet->wants_ack = copy.gap != 0;
      else
        packet->gap = copy.gap;
      packet->marked = false;
      packet->seq = qp->next_seq - copy.seq_back;
      packet->arrive = now + copy.arrive;
      packet->sent = now;
      packet->ingress = 0;
      if (copy.hop > 0) {
        Port* before = copy.hop > 1 ? route[copy.hop - 2u] : (data ? qp->port : qp->receiver_port);
        packet->ingress = before->peer->local;
      }
      if (copy.place == kQueues) {
        ++on_wire;
        port.wire.push(packet);
      } else {
        port.queue[copy.place].push(packet);
      }
    }
    port.tx_bytes += its.bytes;
    port.tx_packets += its.packets;
    port.busy_ticks += its.busy;
    port.queue_byte_ticks += its.queue_byte_ticks;
    port.max_queue_bytes = std::max(port.max_queue_bytes, its.max_queue_bytes);
    port.busy_until = now + its.busy_until;
    port.wake_at = its.wake_at == kNeverTick ? kNeverTick : now + its.wake_at;
    port.done_pending = its.done_pending;
    port.last_queue = its.last_queue;
    port.waiting = its.waiting;
    port.waiting_bytes = its.waiting_bytes;
    port.egress_bytes = its.egress_bytes;
    if (SharedBufferSwitch* next = SwitchOf(far.owner)) next->SetUse(far, its.ingress_bytes);
    if (its.last_pair != UINT32_MAX) port.pairs.SetTurn(*run.pairs[its.last_pair]);
  }
  fabric_->on_wire += on_wire - on_wire_before;
  fabric_->packet_hops += end.hops;
  // Places in their instants, in the order in which the recording had them.
  std::vector<uint64_t*> places;
  for (Port* port : run.ports) {
    if (port->busy_until > now) places.push_back(&port->done_order);
    if (port->wake_at != kNeverTick) places.push_back(&port->wake_order);
    for (PacketRecord* at = port->wire.head; at != nullptr; at = at->next)
      places.push_back(&at->order);
  }
  for (size_t i = 0; i < end.orders.size(); ++i) *places[end.orders[i]] = i;
  PushEvents(run);
  for (QueuePair* qp : run.pairs) qp->Changed();
}

}  // namespace astra_ns3
