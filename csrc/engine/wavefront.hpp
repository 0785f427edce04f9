// SPDX-License-Identifier: MIT
//
// Wavefronts: a phase in which every member sends to the next one only, on links that carry nothing
// else, is a recurrence over arrays.  Step k of member i runs at done[k][i], when its packet k is
// processed, and packet k + 1 follows when message k has come from the member before, and the step
// has asked for it:
//
//   done[k + 1][i] = max(arrival of what i - 1 sends at done[k][i - 1], done[k][i]) + bus[i] + cost[k + 1]
//
// A link serves its messages in turn, so its part is a maximum too: start = max(comes, free), free =
// start + hold, and the message is at the next link, or arrives, at start + takes.
#ifndef ASTRA_ENGINE_WAVEFRONT_HPP
#define ASTRA_ENGINE_WAVEFRONT_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace engine {

// The links that each of `count` transfers crosses, if it meets nobody: link h of transfer i is at
// h * count + i.  It has number -1 where nobody can be met there.
struct Hops {
  size_t hops = 0;
  std::vector<int64_t> link, hold_ps, takes_ps;
};

// What the engine is told: the phases that may be wavefronts (none: no phase), what says the hops of
// transfers of one size (no hops: it cannot say), and how many threads there may be.
struct Waves {
  std::vector<uint8_t> phases;
  std::function<Hops(const std::vector<int32_t>& src, const std::vector<int32_t>& dst,
                     int64_t bytes)>
      hops_of;
  int32_t threads = 1;
};

// Why a run with wavefronts counts for nothing.
enum class Doubt : int32_t {
  kNone,
  kOrder,  // the order of what happens in one instant may matter
  kMeeting,  // messages may meet on a link
  kUnknown,  // the network cannot say what a message takes
  kRange,  // a time is beyond what is kept
};

// The times of the members of one phase, in the order in which messages go round.
class Recurrence {
 public:
  static constexpr int64_t kLatest = int64_t{1} << 61;

  // Messages to member i cross hop h at h * count + i.  `grid_ps`: they start at multiples of it.
  Recurrence(size_t count, size_t hops, int64_t grid_ps, int32_t threads);

  int64_t* done_ps() { return done_.data() + ahead_; }
  int64_t* bus_ps() { return bus_.data() + ahead_; }
  int64_t* free_ps(size_t hop) { return row(free_, hop); }
  int64_t* hold_ps(size_t hop) { return row(hold_, hop); }
  int64_t* takes_ps(size_t hop) { return row(takes_, hop); }

  // All packets so far are processed: pay bus and cost of the first ones.
  void begin(int64_t cost_ps);
  // One step; `entered` gets when messages came to their hops.
  void step(int64_t cost_ps, std::vector<int64_t>* entered);
  // So many steps that cost the same; `pause` is called now and then.
  void steps(int64_t count, int64_t cost_ps, const std::function<void()>& pause);
  // Whether all times stay in range for so many further steps.
  bool fits(int64_t count, int64_t cost_ps) const;

 private:
  // A block of members depends, for so many steps, on so many members before it, and no others.
  static constexpr size_t kAhead = 128, kLeast = 512, kMost = 2048;
  static constexpr size_t kWorthThreads = size_t{1} << 18;  // messages

  int64_t* row(std::vector<int64_t>& rows, size_t hop) {
    return rows.data() + hop * (count_ + ahead_) + ahead_;
  }
  const int64_t* row(const std::vector<int64_t>& rows, size_t hop) const {
    return rows.data() + hop * (count_ + ahead_) + ahead_;
  }
  void wrap(std::vector<int64_t>& rows, size_t hops) const;
  // A regime in which each step makes all times later by the same, where it is.
  struct Steady {
    bool is = false, turns = false;
    int64_t by_ps = 0;
  };
  bool later_by(int64_t by_ps, bool turned) const;
  Steady steady();
  void jump(const Steady& regime, int64_t count);
  void steps_by_blocks(size_t count, int64_t cost_ps);
  void advance_block(size_t first, size_t last, size_t count, int64_t cost_ps,
                     std::vector<int64_t>& scratch);

  const size_t count_, hops_;
  const size_t ahead_;  // before the first member of each row, where there are blocks
  const int64_t grid_ps_;
  const int32_t threads_;
  bool wrapped_ = false;  // hold_, takes_ and bus_ are
  bool compared_ = false, alike_ = false;  // whether they are the same for all members
  // Each row has the last members before its first one, too.
  std::vector<int64_t> done_, bus_, free_, hold_, takes_;
  std::vector<int64_t> next_done_, next_free_, comes_, old_done_, old_free_;
  std::vector<std::vector<int64_t>> scratch_;  // thread by thread
};

// Members of a group that have begun a phase, until all have.
struct Gathering {
  // Tag, phase of the chunk, first rank of the group and its stride, schedule.
  using Key = std::tuple<int64_t, int32_t, int32_t, int32_t, int32_t>;
  struct Member {
    int64_t begun_ps = -1;
    int32_t stream = -1;
  };
  int32_t to_come = 0;
  std::vector<Member> members;  // in the order in which messages go round
};

// The messages of one phase of one group: one flow to each member.
struct Flows {
  // Schedule, group, its first rank, job.
  using Key = std::tuple<int32_t, int32_t, int32_t, int32_t>;
  std::vector<int32_t> src, dst;
  int64_t bytes = 0;
  int64_t messages = 0;  // of each flow, so far
  Hops hops;  // links by their number among those that are known
};

// What a run with wavefronts keeps.
struct WaveState {
  Waves told;
  std::map<Gathering::Key, Gathering> gatherings;
  std::map<Flows::Key, Flows> flows;
  std::unordered_map<int64_t, int64_t> link_of_number;
  // When the last message came to a link, and when the link is free of it.
  struct Link {
    int64_t entered_ps = -1, free_ps = -1;
  };
  std::vector<Link> links;
  // What has happened to a queue, or (kind 1) to the nodes of a rank, in the last instant.
  struct Instant {
    int64_t now_ps = -1, event = -1;
    bool entered = false, left = false, started = false;
    int32_t entered_priority = 0, least_started = 0;
  };
  std::vector<Instant> of_queue, of_rank;
  int64_t events = 0;  // that there would have been in their place
  int64_t waved = 0, by_events = 0;  // phases of a chunk on a rank
  Doubt doubt = Doubt::kNone;
  int32_t rank = -1;  // and time, of the doubt
  int64_t now_ps = -1;

  explicit operator bool() const { return !told.phases.empty(); }
};

}  // namespace engine

#endif  // ASTRA_ENGINE_WAVEFRONT_HPP
