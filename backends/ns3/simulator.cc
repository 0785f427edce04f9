// SPDX-License-Identifier: MIT
#include "simulator.h"

#include <algorithm>
#include <tuple>  // make-event.h of some releases of ns-3 needs it, and does not say so

#include "ns3/event-id.h"
#include "ns3/make-event.h"
#include "ns3/simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

NS_OBJECT_ENSURE_REGISTERED(FabricSimulator);

ns3::TypeId FabricSimulator::GetTypeId() {
  static ns3::TypeId tid = ns3::TypeId("astra_ns3::FabricSimulator")
                               .SetParent<ns3::SimulatorImpl>()
                               .AddConstructor<FabricSimulator>();
  return tid;
}

FabricSimulator::FabricSimulator() { heap_.reserve(1024); }

FabricSimulator::~FabricSimulator() = default;

bool FabricSimulator::RunUntil(Tick limit, const bool* stop,
                               const std::function<bool()>& interrupted) {
  stopped_ = false;
  for (;;) {
    if (settle_ && (heap_.empty() || TimeOf(heap_.front().key) > now_)) {
      settle_ = false;
      on_settle();
    }
    if (heap_.empty()) break;
    const Entry entry = heap_.front();
    const Tick time = TimeOf(entry.key);
    if (time > limit) return true;
    if (time > now_) {
      if (*stop) return true;
      // Whether someone outside wants us to stop: looked at every few thousand events, which is
      // some hundred microseconds, and obeyed between instants.
      if (events_run_ - looked_ >= 4096) {
        looked_ = events_run_;
        if (interrupted()) return true;
      }
      if (look_) {
        look_ = false;
        if (on_look(limit)) continue;
      }
    }
    now_ = time;
    order_ = static_cast<uint64_t>(entry.key);
    ++events_run_;
    hole_ = true;
    if (entry.target != nullptr) {
      entry.target->Fire(entry.kind, order_);
    } else {
      const Ns3Event event = slots_[entry.kind];
      free_slots_.push_back(entry.kind);
      context_ = event.context;
      event.impl->Invoke();
      event.impl->Unref();
      context_ = 0xffffffff;
    }
    if (hole_) {
      hole_ = false;
      PopRoot();
    }
    if (stopped_) break;
  }
  return !heap_.empty();
}

void FabricSimulator::CatchUp(Tick begin, const std::function<void()>& push) {
  const Key until = MakeKey(now_, order_);
  std::vector<Entry> others;
  others.swap(heap_);
  const bool hole = hole_;
  const Tick now = now_;
  const uint64_t order = order_;
  hole_ = false;
  now_ = begin;
  order_ = 0;
  push();
  while (!heap_.empty() && heap_.front().key < until) {
    const Entry entry = heap_.front();
    now_ = TimeOf(entry.key);
    order_ = static_cast<uint64_t>(entry.key);
    ++events_run_;
    hole_ = true;
    entry.target->Fire(entry.kind, order_);
    if (hole_) {
      hole_ = false;
      PopRoot();
    }
  }
  others.swap(heap_);
  hole_ = hole;
  now_ = now;
  order_ = order;
  for (const Entry& entry : others) Push(entry);
}

bool FabricSimulator::Describe(std::vector<uint64_t>* words) const {
  std::vector<Entry> moving;
  for (const Entry& entry : heap_) {
    if (entry.target == nullptr) return false;
    if (entry.target->Moves()) moving.push_back(entry);
  }
  std::sort(moving.begin(), moving.end(),
            [](const Entry& a, const Entry& b) { return a.key < b.key; });
  for (const Entry& entry : moving)
    words->insert(words->end(), {static_cast<uint64_t>(TimeOf(entry.key) - now_),
                                 next_order_ - static_cast<uint64_t>(entry.key),
                                 reinterpret_cast<uintptr_t>(entry.target), entry.kind});
  return true;
}

Tick FabricSimulator::NextFixed() const {
  Tick next = kNeverTick;
  for (const Entry& entry : heap_)
    if (entry.target == nullptr || !entry.target->Moves()) next = std::min(next, TimeOf(entry.key));
  return next;
}

void FabricSimulator::Move(Tick time, uint64_t orders, uint64_t events) {
  for (Entry& entry : heap_)
    if (entry.target != nullptr && entry.target->Moves()) entry.key += MakeKey(time, orders);
  // Ascending, and so a heap.
  std::sort(heap_.begin(), heap_.end(),
            [](const Entry& a, const Entry& b) { return a.key < b.key; });
  now_ += time;
  if (order_ < kLast - 1) order_ += orders;
  next_order_ += orders;
  events_run_ += events;
}

void FabricSimulator::Run() {
  const bool never = false;
  RunUntil(kNeverTick - 1, &never, [] { return false; });
}

ns3::EventId FabricSimulator::Insert(Tick time, uint32_t context, ns3::EventImpl* event) {
  uint32_t slot;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.push_back({event, context});
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = {event, context};
  }
  // A uid has 32 bits of the order's 64; ns-3 keeps the first few for its own marks.
  uint64_t order = Reserve();
  while (static_cast<uint32_t>(order) < kFirstOrder) order = Reserve();
  At(time, order, nullptr, slot);
  return ns3::EventId(event, static_cast<uint64_t>(time), context, static_cast<uint32_t>(order));
}

FabricSimulator::StopEvent FabricSimulator::Stop(const ns3::Time& delay) {
  void (*const stop)() = &ns3::Simulator::Stop;
  return static_cast<StopEvent>(Schedule(delay, ns3::MakeEvent(stop)));
}

ns3::EventId FabricSimulator::Schedule(const ns3::Time& delay, ns3::EventImpl* event) {
  return Insert(now_ + Ceil(delay), context_, event);
}

void FabricSimulator::ScheduleWithContext(uint32_t context, const ns3::Time& delay,
                                          ns3::EventImpl* event) {
  Insert(now_ + Ceil(delay), context, event);
}

ns3::EventId FabricSimulator::ScheduleNow(ns3::EventImpl* event) {
  return Insert(now_, context_, event);
}

ns3::EventId FabricSimulator::ScheduleDestroy(ns3::EventImpl* event) {
  // uid 2 is ns-3's mark of an event that waits for Simulator::Destroy().
  const ns3::EventId id(ns3::Ptr<ns3::EventImpl>(event, false), static_cast<uint64_t>(now_),
                        0xffffffff, 2);
  at_destroy_.push_back(id);
  return id;
}

void FabricSimulator::Destroy() {
  while (!at_destroy_.empty()) {
    const ns3::EventId id = at_destroy_.front();
    at_destroy_.erase(at_destroy_.begin());
    if (!id.PeekEventImpl()->IsCancelled()) id.PeekEventImpl()->Invoke();
  }
  for (const Entry& entry : heap_)
    if (entry.target == nullptr) slots_[entry.kind].impl->Unref();
  heap_.clear();
}

void FabricSimulator::Cancel(const ns3::EventId& id) {
  if (!IsExpired(id)) id.PeekEventImpl()->Cancel();
}

bool FabricSimulator::IsExpired(const ns3::EventId& id) const {
  if (id.PeekEventImpl() == nullptr || id.PeekEventImpl()->IsCancelled()) return true;
  if (id.GetUid() == 2) {
    for (const ns3::EventId& waiting : at_destroy_)
      if (waiting == id) return false;
    return true;
  }
  const auto time = static_cast<Tick>(id.GetTs());
  if (time != now_) return time < now_;
  // Orders are 64 bits, uids 32: inside one instant the difference tells which is earlier.
  return order_ >= kLast - 1 ||
         static_cast<int32_t>(id.GetUid() - static_cast<uint32_t>(order_)) <= 0;
}

ns3::Time FabricSimulator::GetDelayLeft(const ns3::EventId& id) const {
  return IsExpired(id) ? ns3::TimeStep(0) : ToTime(static_cast<Tick>(id.GetTs()) - now_);
}

}  // namespace astra_ns3
