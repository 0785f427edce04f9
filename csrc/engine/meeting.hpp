// SPDX-License-Identifier: MIT
//
// Where the messages of a phase are known before it begins, each has a number: its sender's place
// in the group and one of its sender's row.  Sends meet receives by this number, so a message takes
// one word, and nothing is searched for.
#ifndef ASTRA_ENGINE_MEETING_HPP
#define ASTRA_ENGINE_MEETING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "program.hpp"

namespace engine {

// How the messages that each member of a group sends in a phase are numbered: the same way for all
// members, since they play one schedule, or, the other way round, one that sends the same.
struct Numbering {
  // What a schedule has to do with a number.
  struct Part {
    int32_t schedule;
    std::vector<int32_t> sends, receives;  // by step: the number, or -1
    std::vector<int32_t> received_at;  // by number: the step that posts the receive
    template <class A>
    void visit(A& archive) {
      archive(schedule, sends, receives, received_at);
    }
  };
  Peers peers = Peers::kRelative;
  std::vector<int32_t> lanes;  // by number: the receiver, as the sender sees it
  std::vector<int64_t> bytes;  // by number
  std::vector<Part> parts;

  template <class A>
  void visit(A& archive) {
    archive(peers, lanes, bytes, parts);
  }
  int32_t row() const { return static_cast<int32_t>(lanes.size()); }
  const Part& part(int32_t schedule) const {
    size_t i = 0;
    while (parts[i].schedule != schedule) ++i;
    return parts[i];
  }
  // Where the word of a message stands among those of a group of `size`.  Members send at about the
  // same time what has about the same number: so the words of some numbers of all members stand
  // together, as otherwise each member's are on a page of memory of their own.
  int64_t words(int32_t size) const { return int64_t{size} * row(); }
  int64_t word(int32_t sender, int32_t number, int32_t size) const {
    const int32_t first = number / kTogether * kTogether;
    return int64_t{first} * size + int64_t{sender} * together(first) + (number - first);
  }
  struct Message {
    int32_t sender, number;
  };
  Message message(int64_t word, int32_t size) const {
    const auto all = static_cast<uint64_t>(size) * kTogether, at = static_cast<uint64_t>(word);
    // Division of 32 bits is faster.
    const uint64_t block =
        at >> 32 == 0 ? static_cast<uint32_t>(at) / static_cast<uint32_t>(all) : at / all;
    const auto first = static_cast<int32_t>(block) * kTogether;
    const auto rest = static_cast<uint32_t>(at - block * all);
    const auto most = static_cast<uint32_t>(together(first));
    const uint32_t sender = most == kTogether ? rest / kTogether : rest / most;
    return {static_cast<int32_t>(sender), first + static_cast<int32_t>(rest - sender * most)};
  }
  int32_t receiver(int32_t sender, int32_t number, int32_t size) const {
    const int32_t lane = lanes[static_cast<size_t>(number)];
    if (peers == Peers::kXor) return sender ^ lane;
    return sender + lane < size ? sender + lane : sender + lane - size;
  }
  int32_t sender(int32_t receiver, int32_t number, int32_t size) const {
    const int32_t lane = lanes[static_cast<size_t>(number)];
    if (peers == Peers::kXor) return receiver ^ lane;
    return receiver >= lane ? receiver - lane : receiver - lane + size;
  }

 private:
  static constexpr int32_t kTogether = 32;  // words, four cache lines
  int32_t together(int32_t first) const { return std::min(kTogether, row() - first); }
};

// The numberings of the phases of a Program.
class Numberings {
 public:
  static constexpr int32_t kNone = -1;

  const Numbering& operator[](int32_t index) const { return all_[static_cast<size_t>(index)]; }

  // Of a phase, or kNone where its messages have to be searched for.
  int32_t of(const Program& program, int32_t phase) {
    while (known_.size() <= static_cast<size_t>(phase)) known_.push_back(kUnknown);
    if (known_[static_cast<size_t>(phase)] == kUnknown) {
      const int32_t found = find(program, program.phases[phase]);
      known_[static_cast<size_t>(phase)] = found;
    }
    return known_[static_cast<size_t>(phase)];
  }
  template <class A>
  void visit(A& archive) {
    archive(all_, known_);
  }

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kFewMessages = 64;
  using Key = std::tuple<int32_t, int64_t, int32_t>;  // lane, bytes, which of those that are alike
  using Keys = std::map<Key, int32_t>;

  static int32_t lane_of(Peers peers, int32_t value, int32_t size) {
    return peers == Peers::kXor || value >= 0 ? value : value + size;
  }

  int32_t find(const Program& program, const Phase& phase) {
    const int32_t size = program.groups[phase.layout].size;
    Numbering made;
    Keys keys;
    std::vector<int32_t> schedules;
    for (const int32_t family : {phase.family0, phase.family1}) {
      if (program.families[family].positions != 0) return kNone;
      const int32_t schedule = program.families[family].first;
      if (std::find(schedules.begin(), schedules.end(), schedule) != schedules.end()) continue;
      if (!add(program, schedule, size, made, keys)) return kNone;
      schedules.push_back(schedule);
    }
    const Schedule& first = program.schedules[schedules.front()];
    // A word for each message pays where most are on their way at once.
    if (made.row() > std::max(kFewMessages, 2 * first.window)) return kNone;
    std::vector<int32_t> lanes = made.lanes;
    std::sort(lanes.begin(), lanes.end());
    const auto peers = std::unique(lanes.begin(), lanes.end()) - lanes.begin();
    // Those that stay with one peer search once.
    if (2 * peers < made.row()) return kNone;
    for (size_t i = 0; i < all_.size(); ++i) {
      Numbering& known = all_[i];
      if (known.peers != made.peers || known.lanes != made.lanes || known.bytes != made.bytes)
        continue;
      for (Numbering::Part& part : made.parts)
        if (std::none_of(known.parts.begin(), known.parts.end(),
                         [&](const auto& other) { return other.schedule == part.schedule; }))
          known.parts.push_back(std::move(part));
      return static_cast<int32_t>(i);
    }
    all_.push_back(std::move(made));
    return static_cast<int32_t>(all_.size()) - 1;
  }

  // What a schedule sends and receives; false where that is not the same.
  static bool add(const Program& program, int32_t index, int32_t size, Numbering& made,
                  Keys& keys) {
    const Schedule& schedule = program.schedules[index];
    const bool is_first = made.parts.empty();
    Numbering::Part part;
    part.schedule = index;
    std::map<std::pair<int32_t, int64_t>, int32_t> sent, received;
    for (int32_t i = 0; i < schedule.step_count; ++i) {
      const Step& step = program.steps[schedule.step_start + i];
      if (is_first && i == 0) made.peers = step.peers;
      if (step.peers == Peers::kReduced) return false;  // the network answers, and not a peer
      if (step.peers != made.peers) return false;
      int32_t number = -1;
      if (step.send_bytes > 0) {
        const int32_t lane = lane_of(step.peers, step.send_to, size);
        const Key key{lane, step.send_bytes, sent[{lane, step.send_bytes}]++};
        if (is_first) {
          keys.emplace(key, made.row());
          made.lanes.push_back(lane);
          made.bytes.push_back(step.send_bytes);
        }
        const auto found = keys.find(key);
        if (found == keys.end()) return false;
        number = found->second;
      }
      part.sends.push_back(number);
    }
    part.received_at.assign(made.lanes.size(), -1);
    size_t receives = 0, sends = 0;
    for (int32_t i = 0; i < schedule.step_count; ++i) {
      const Step& step = program.steps[schedule.step_start + i];
      sends += step.send_bytes > 0;
      int32_t number = -1;
      if (step.recv_bytes > 0) {
        ++receives;
        const int32_t value = step.peers == Peers::kXor ? step.recv_from : -step.recv_from;
        const int32_t lane = lane_of(step.peers, value, size);
        const auto found = keys.find({lane, step.recv_bytes, received[{lane, step.recv_bytes}]++});
        if (found == keys.end()) return false;
        number = found->second;
        part.received_at[static_cast<size_t>(number)] = i;
      }
      part.receives.push_back(number);
    }
    made.parts.push_back(std::move(part));
    return sends == made.lanes.size() && receives == sends && sends > 0;
  }

  std::vector<Numbering> all_;
  std::vector<int32_t> known_;  // by phase
};

// A phase of a chunk in one group, while anybody is in it or anything of it on its way.
struct Meeting {
  // Tag, numbering, phase of the chunk, first rank and stride of the group.
  using Key = std::tuple<int64_t, int32_t, int32_t, int32_t, int32_t>;
  Key key;
  int64_t first = 0;  // of its words
  int32_t numbering = -1;
  int32_t collective = -1;  // for diagnosis
  int32_t to_come = 0;  // members that have not left
  int32_t early = 0;  // messages that have arrived and are not received yet
  int64_t open = 0;  // messages that have been sent and not received
  std::vector<int32_t> streams;  // by position, or -1
  std::vector<int32_t> ranks;  // by position, of the network
  template <class A>
  void visit(A& archive) {
    archive(key, first, numbering, collective, to_come, early, open, streams, ranks);
  }
};

// The words of all messages that meet by number: the id of the transfer while that is in flight, or
// one of these.
class MessageWords {
 public:
  static constexpr int64_t kUnsent = -1, kArrived = -2, kReceived = -3;

  int64_t& operator[](int64_t index) { return words_[static_cast<size_t>(index)]; }
  int64_t operator[](int64_t index) const { return words_[static_cast<size_t>(index)]; }
  [[gnu::always_inline]] void fetch(int64_t index) const {
    __builtin_prefetch(&words_[static_cast<size_t>(index)], 1);
  }
  bool has(int64_t index) const { return static_cast<size_t>(index) < words_.size(); }
  size_t size() const { return words_.size(); }
  // Whose a word is: what take() was given.
  int32_t owner(int64_t index) const { return owners_[static_cast<size_t>(index) / kPage]; }

  // The first of `count` words.
  int64_t take(int64_t count, int32_t owner) {
    const int64_t pages = (count + kPage - 1) / kPage;
    std::vector<int64_t>& free = free_[pages];
    int64_t page;
    if (free.empty()) {
      page = static_cast<int64_t>(owners_.size());
      owners_.resize(owners_.size() + static_cast<size_t>(pages));
      words_.resize(owners_.size() * kPage);
    } else {
      page = free.back();
      free.pop_back();
    }
    const auto at = [](auto& values, int64_t i) {
      return values.begin() + static_cast<std::ptrdiff_t>(i);
    };
    std::fill(at(owners_, page), at(owners_, page + pages), owner);
    std::fill(at(words_, page * kPage), at(words_, (page + pages) * kPage), kUnsent);
    return page * kPage;
  }
  void give_back(int64_t first, int64_t count) {
    free_[(count + kPage - 1) / kPage].push_back(first / kPage);
  }
  template <class A>
  void visit(A& archive) {
    archive(words_, owners_, free_);
  }

 private:
  static constexpr int64_t kPage = 64;  // words of one owner
  std::vector<int64_t> words_;
  std::vector<int32_t> owners_;  // by page
  std::map<int64_t, std::vector<int64_t>> free_;  // by number of pages: the first one
};

}  // namespace engine

#endif  // ASTRA_ENGINE_MEETING_HPP
