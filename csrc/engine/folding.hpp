// SPDX-License-Identifier: MIT
//
// One rank runs for all that are alike.  astra_bridge/engine/folding.py does the same, and explains
// why the answer is that of all ranks.
#ifndef ASTRA_ENGINE_FOLDING_HPP
#define ASTRA_ENGINE_FOLDING_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace engine {

// A digit of the ranks' numbers: rank / stride % size.  Adding to it, round and round, changes nothing.
struct Digit {
  int64_t stride, size;
};

class Folding {
 public:
  // `digits`: the lowest first.
  Folding(std::vector<Digit> digits, size_t ranks)
      : folds_(!digits.empty()), digits_(std::move(digits)) {
    if (!folds_) return;
    last_.resize(ranks);
    for (size_t i = 0; i < ranks; ++i) {
      auto rank = static_cast<int64_t>(i);
      for (const Digit& digit : digits_)
        rank = rank / digit.stride * digit.stride * digit.size + rank % digit.stride;
      ranks_.push_back(static_cast<int32_t>(rank));
    }
  }
  explicit operator bool() const { return folds_; }

  // The rank of the network that stands at `index` of the ranks that run, and the other way round.
  int32_t rank_at(int32_t index) const { return ranks_[static_cast<size_t>(index)]; }
  int32_t index_of(int64_t rank) const {
    for (size_t i = digits_.size(); i-- > 0;)
      rank = rank / (digits_[i].stride * digits_[i].size) * digits_[i].stride +
             rank % digits_[i].stride;
    return static_cast<int32_t>(rank);
  }

  // Turn the network until `dst` is a rank that runs.
  void turn(int32_t& src, int32_t& dst) const {
    for (const Digit& digit : digits_) {
      const int64_t to = dst / digit.stride % digit.size;
      if (to == 0) continue;
      const int64_t from = src / digit.stride % digit.size;
      const int64_t turned = from >= to ? from - to : from - to + digit.size;
      src = static_cast<int32_t>(src + (turned - from) * digit.stride);
      dst = static_cast<int32_t>(dst - to * digit.stride);
    }
  }

  // From now on places are drawn at this time.
  void at(int64_t place, int64_t now_ps) {
    if (marks_.empty() || marks_.back().second != now_ps) marks_.emplace_back(place, now_ps);
  }
  // When a place was drawn.
  int64_t drawn_ps(int64_t place) const {
    const auto after = std::upper_bound(
        marks_.begin(), marks_.end(), place,
        [](int64_t one, const std::pair<int64_t, int64_t>& mark) { return one < mark.first; });
    return after == marks_.begin() ? -1 : std::prev(after)->second;
  }

  // Something happens to a rank now, at a place that `actor` (a rank of the network; -1 is nobody
  // else's) has drawn.  Events of the same `stream`, unless that is -1, may change places.  Returns
  // whether its order is in doubt; `loud` or `quiet` says then what it was.
  [[nodiscard]] bool happens(int32_t index, int64_t now_ps, int64_t drawn_ps, int32_t actor,
                             int64_t stream) {
    Last& last = last_[static_cast<size_t>(index)];
    if (last.now_ps != now_ps || last.drawn_ps != drawn_ps) {
      last.now_ps = now_ps;
      last.drawn_ps = drawn_ps;
      last.stream = stream;
      last.actor = actor;
      last.loud = false;
      last.quiet.clear();
      return false;
    }
    const bool same_actor = actor >= 0 && actor == last.actor;
    const bool same_stream = stream >= 0 && stream == last.stream;
    if (!same_actor) last.actor = -1;
    if (!same_stream) last.stream = -1;
    return !same_actor && !same_stream;
  }
  // It was a receive that does nothing but count, whose node this is.
  void quiet(int32_t index, int64_t node) {
    last_[static_cast<size_t>(index)].quiet.push_back(node);
  }
  // It was anything else: a tie, if in doubt, unless all that came before it was quiet, and
  // `waits` says of these nodes that what they could free still waits.
  template <class Waits>
  void loud(int32_t index, bool doubtful, const Waits& waits) {
    Last& last = last_[static_cast<size_t>(index)];
    const bool alone = !last.loud && std::all_of(last.quiet.begin(), last.quiet.end(), waits);
    if (doubtful && !alone && ties_++ == 0)
      tie_ = {ranks_[static_cast<size_t>(index)], last.now_ps};
    last.loud = true;
  }
  void loud(int32_t index, bool doubtful) {
    loud(index, doubtful, [](int64_t) { return false; });
  }
  int64_t ties() const { return ties_; }
  std::pair<int32_t, int64_t> first_tie() const { return tie_; }

 private:
  struct Last {
    int64_t now_ps = -1, drawn_ps = -1, stream = -1;
    int32_t actor = -1;
    bool loud = false;
    std::vector<int64_t> quiet;  // nodes
  };
  bool folds_;
  std::vector<Digit> digits_;
  std::vector<int32_t> ranks_;
  std::vector<Last> last_;  // by the index of the rank
  std::vector<std::pair<int64_t, int64_t>> marks_;  // first place, time
  int64_t ties_ = 0;
  std::pair<int32_t, int64_t> tie_{-1, -1};  // rank and time of the first
};

}  // namespace engine

#endif  // ASTRA_ENGINE_FOLDING_HPP
