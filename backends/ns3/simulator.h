// SPDX-License-Identifier: MIT
//
// FabricSimulator: an ns3::SimulatorImpl with one queue for two kinds of events, ns-3's own
// (EventImpl on the heap, one allocation each) and the fabric's (a target that lives as long as
// the run, no allocation).  ns3::Simulator::Now(), Schedule() and Cancel() work as always, so
// ns-3 models (TCP, pcap, applications) share the clock and the order of events with the fabric.
//
// Why a SimulatorImpl of our own: the contract needs "run to this time, and stop at the end of the
// first instant that delivers something", and a packet-hop should cost one queue operation.
#ifndef ASTRA_NS3_SIMULATOR_H
#define ASTRA_NS3_SIMULATOR_H

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "ns3/event-impl.h"
#include "ns3/simulator-impl.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

using Tick = int64_t;  // of the clock, 1 ps or 1 ns, and no less than a step of ns3::Time
constexpr Tick kNeverTick = INT64_MAX;

// What a fabric event calls.  `kind` says which of the target's events, `order` is the event's
// place among those of the same time (unique, so it also identifies the event).
class EventTarget {
 public:
  virtual void Fire(uint32_t kind, uint64_t order) = 0;
  // Whether its events belong to the state of the network, and move when that is moved on.
  virtual bool Moves() const { return false; }

 protected:
  ~EventTarget() = default;
};

class FabricSimulator : public ns3::SimulatorImpl {
 public:
  static ns3::TypeId GetTypeId();
  FabricSimulator();
  ~FabricSimulator() override;

  // The fabric's side.
  void SetTick(int64_t steps) { tick_steps_ = steps; }  // of ns3::Time
  Tick NowTick() const { return now_; }
  uint64_t CurrentOrder() const { return order_; }
  // Events of one time run in the order in which their places were reserved, as in ns-3.
  uint64_t Reserve() { return next_order_++; }
  void At(Tick time, uint64_t order, EventTarget* target, uint32_t kind) {
    Push({MakeKey(time, order), target, kind});
  }
  uint64_t After(Tick delay, EventTarget* target, uint32_t kind) {
    const uint64_t order = Reserve();
    At(now_ + delay, order, target, kind);
    return order;
  }
  // Later than everything that happens in the instant `time` without it (contract rule R7).
  void AtEndOf(Tick time, EventTarget* target, uint32_t kind) {
    At(time, kLast + next_last_++, target, kind);
  }

  // Run every event at or before `limit`, or to the end of the first instant after which
  // *stop is true or `interrupted`.  Returns false when no event is left at any time.
  bool RunUntil(Tick limit, const bool* stop, const std::function<bool()>& interrupted);
  // From outside of any event: the present is `time`, after all of its events.
  void EnterEndOf(Tick time) {
    if (time > now_) now_ = time;
    order_ = kLast - 1;
  }
  bool Idle() const { return heap_.empty(); }

  // Fast-forward.  `on_look` is called between two instants, once after each request; where it
  // answers true, events have moved.
  std::function<bool(Tick limit)> on_look;
  void RequestLook() { look_ = true; }
  // Replay: `on_settle` is called once after each request, before time goes on; and events of before now
  // that `push` schedules from `begin` on happen, and those that follow from them, until now.
  std::function<void()> on_settle;
  void RequestSettle() { settle_ = true; }
  void CatchUp(Tick begin, const std::function<void()>& push);
  uint64_t NextOrder() const { return next_order_; }
  // The events that move, in order, relative to now; false where there are some of ns-3's own.
  bool Describe(std::vector<uint64_t>* words) const;
  Tick NextFixed() const;  // the first that does not move
  void Move(Tick time, uint64_t orders, uint64_t events);
  Tick NextTick() const { return heap_.empty() ? kNeverTick : TimeOf(heap_.front().key); }
  uint64_t EventsRun() const { return events_run_; }

  // ns3::SimulatorImpl
  void Destroy() override;
  bool IsFinished() const override { return heap_.empty(); }
  void Stop() override { stopped_ = true; }
  // Nothing in older releases of ns-3, the event since 3.42.
  using StopEvent =
      decltype(std::declval<ns3::SimulatorImpl&>().Stop(std::declval<const ns3::Time&>()));
  StopEvent Stop(const ns3::Time& delay) override;
  ns3::EventId Schedule(const ns3::Time& delay, ns3::EventImpl* event) override;
  void ScheduleWithContext(uint32_t context, const ns3::Time& delay,
                           ns3::EventImpl* event) override;
  ns3::EventId ScheduleNow(ns3::EventImpl* event) override;
  ns3::EventId ScheduleDestroy(ns3::EventImpl* event) override;
  void Remove(const ns3::EventId& id) override { Cancel(id); }
  void Cancel(const ns3::EventId& id) override;
  bool IsExpired(const ns3::EventId& id) const override;
  void Run() override;
  ns3::Time Now() const override { return ToTime(now_); }
  ns3::Time GetDelayLeft(const ns3::EventId& id) const override;
  ns3::Time GetMaximumSimulationTime() const override { return ns3::TimeStep(INT64_MAX); }
  void SetScheduler(ns3::ObjectFactory) override {}  // the queue is part of this class
  uint32_t GetSystemId() const override { return 0; }
  uint32_t GetContext() const override { return context_; }
  uint64_t GetEventCount() const override { return events_run_; }

 private:
  using Key = unsigned __int128;  // time, then order: one comparison
  struct Entry {
    Key key;
    EventTarget* target;  // nullptr: an ns-3 event, `kind` is its slot
    uint32_t kind;
  };
  struct Ns3Event {
    ns3::EventImpl* impl;
    uint32_t context;
  };
  static constexpr uint64_t kLast = 1ull << 62;
  static constexpr uint32_t kFirstOrder = 16;  // ns-3 keeps the first uids for itself
  static Key MakeKey(Tick time, uint64_t order) {
    return (static_cast<Key>(static_cast<uint64_t>(time)) << 64) | order;
  }
  static Tick TimeOf(Key key) { return static_cast<Tick>(static_cast<uint64_t>(key >> 64)); }

  void Push(const Entry& entry);
  void SiftDown(const Entry& entry);
  void PopRoot();
  ns3::Time ToTime(Tick tick) const {
    return ns3::TimeStep(static_cast<uint64_t>(tick * tick_steps_));
  }
  Tick Ceil(const ns3::Time& delay) const {
    return (delay.GetTimeStep() + tick_steps_ - 1) / tick_steps_;
  }
  ns3::EventId Insert(Tick time, uint32_t context, ns3::EventImpl* event);

  // A 4-ary heap.  While an event runs the root is a hole, which the first event that it
  // schedules fills: for a packet-hop that saves the second half of the heap's work.
  std::vector<Entry> heap_;
  bool hole_ = false, look_ = false, settle_ = false;
  int64_t tick_steps_ = 1;
  Tick now_ = 0;
  uint64_t order_ = 0, next_order_ = kFirstOrder, next_last_ = 0;
  uint64_t events_run_ = 0, looked_ = 0;
  bool stopped_ = false;
  uint32_t context_ = 0xffffffff;
  std::vector<Ns3Event> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<ns3::EventId> at_destroy_;
};

inline void FabricSimulator::SiftDown(const Entry& entry) {
  const size_t size = heap_.size();
  size_t hole = 0;
  for (;;) {
    const size_t first = 4 * hole + 1;
    if (first >= size) break;
    size_t least = first;
    if (first + 4 <= size) {
      // Without branches: which child is the least is as good as random to a predictor.
      const Entry* child = &heap_[first];
      const size_t a = child[1].key < child[0].key ? 1 : 0;
      const size_t b = child[3].key < child[2].key ? 3 : 2;
      const size_t swap = child[b].key < child[a].key ? 1 : 0;
      least += a + swap * (b - a);
    } else {
      for (size_t child = first + 1; child < size; ++child)
        if (heap_[child].key < heap_[least].key) least = child;
    }
    if (entry.key <= heap_[least].key) break;
    heap_[hole] = heap_[least];
    hole = least;
  }
  heap_[hole] = entry;
}

inline void FabricSimulator::Push(const Entry& entry) {
  if (hole_) {
    hole_ = false;
    SiftDown(entry);
    return;
  }
  size_t hole = heap_.size();
  heap_.push_back(entry);
  while (hole > 0) {
    const size_t parent = (hole - 1) / 4;
    if (heap_[parent].key <= entry.key) break;
    heap_[hole] = heap_[parent];
    hole = parent;
  }
  heap_[hole] = entry;
}

inline void FabricSimulator::PopRoot() {
  const Entry last = heap_.back();
  heap_.pop_back();
  if (!heap_.empty()) SiftDown(last);
}

}  // namespace astra_ns3

#endif  // ASTRA_NS3_SIMULATOR_H
