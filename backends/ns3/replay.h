// SPDX-License-Identifier: MIT
//
// Replay: a component of the network, the pairs that have something under way and share links with one
// another and with nobody else, goes on in the same way whenever it is in the same state.  From the
// start or the end of one message to the next end, what a component does is recorded, under a
// description of the state in which it began: all that decides on what happens next, times and bytes as
// distances, pairs and links by their number in the component.  Where a component, this or another one
// like it, comes to that state again, its events are left out, and at the end of the same time it is
// put into the state in which the recording ended.  If another pair comes to one of its links before,
// its events are made up for, until now, and it goes on packet by packet.  So nothing is estimated.
#ifndef ASTRA_NS3_REPLAY_H
#define ASTRA_NS3_REPLAY_H

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "simulator.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

class Fabric;
class SharedBufferSwitch;
struct PacketRecord;
struct Port;
struct QueuePair;
struct Run;
struct Trajectory;

class Replay {
 public:
  explicit Replay(Fabric* fabric);
  ~Replay();

  // The pair, which has a route, is about to be given a message.
  void Input(QueuePair* qp);
  // In this instant messages of the pair have arrived, or their arrival is known to the sender.
  void Arrived(QueuePair* qp) { Passed(qp, true); }
  void Acknowledged(QueuePair* qp) { Passed(qp, false); }
  // A pair has asked for an acknowledgement: whether a component repeats itself is looked at then.
  void Asked(QueuePair* qp);
  // Something is about to happen at a port that cannot be replayed.
  void Irregular(const Port& port);
  // Nothing of the pair is under way any more.
  void Ended(QueuePair* qp);
  // Between two instants, on request.
  void Settle();
  // Whatever is left out is made up for: ways are about to change, or someone looks.
  void MakeUp();
  void MakeUpAt(const SharedBufferSwitch& device);
  void Recount();  // ways have changed
  // The end of what is left out has come.
  void Finish(Run* run);

  uint64_t count() const { return count_; }
  uint64_t hops() const { return hops_; }  // packet-hops that were left out
  uint64_t repeats() const { return repeats_; }
  Tick ticks() const { return ticks_; }

 private:
  struct Step {
    QueuePair* qp;
    bool arrived;
  };
  void Passed(QueuePair* qp, bool arrived);
  void Touch(QueuePair* qp);
  void Interrupt(Run* run);
  void Collect(QueuePair* first, Run* run);
  bool Describe(const Run& run, bool with_ends, std::vector<uint64_t>* words);
  bool Capture(const Run& run, Trajectory* to);
  void Look(QueuePair* first);
  void Close(Run* run);
  void Apply(const Run& run);
  void Watch(Run* run);
  void LeaveOut(Run* run);
  void Schedule(Run* run, Tick end);
  void FinishTrajectory(Run* run);
  void Repeat(Run* run);
  uint64_t Periods(const Run& run) const;
  void Shift(Run* run, uint64_t periods);
  void CatchUp(Run* run);
  void Pay(Run* run, size_t tokens);
  Run* NewRun();
  void Release(Run* run);
  void Forget(Trajectory* trajectory);
  void PushEvents(const Run& run);

  Fabric* fabric_;
  std::vector<std::unique_ptr<Run>> runs_;
  std::vector<Run*> free_runs_;
  std::unordered_multimap<uint64_t, std::unique_ptr<Trajectory>> known_;  // by hash
  size_t words_kept_ = 0;
  std::vector<Step> steps_;  // of this instant
  std::vector<QueuePair*> touched_;
  std::vector<Run*> due_;  // in which the reference has asked
  bool catching_up_ = false;
  int64_t tokens_;
  uint64_t events_seen_ = 0;
  uint64_t stamp_ = 0;
  std::vector<uint64_t> words_;
  std::vector<std::pair<uint64_t, uint64_t>> orders_;
  uint64_t count_ = 0, repeats_ = 0, hops_ = 0;
  Tick ticks_ = 0;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_REPLAY_H
