// SPDX-License-Identifier: MIT
//
// With folded ranks: whether what begins at a node, or goes on from there into another part, does so in
// one order wherever that node may be turned to.
#ifndef ASTRA_COMPOSITE_BORDERS_HPP
#define ASTRA_COMPOSITE_BORDERS_HPP

#include <cstdint>
#include <unordered_map>

namespace composite {

// Things of one instant come in the order of their places, and those that were drawn in different
// instants, or by one endpoint in its own order, come in the same order everywhere.  Of any others it
// is not known.
class Borders {
 public:
  // A message begins at a border: in its sender's own order, but with pieces of which all but the
  // first draw places of their own.
  void starts(int64_t border, int64_t now_ps, bool cut) {
    Last& last = at(border, now_ps);
    ties_ += last.cut || last.came;
    last.started = true;
    last.cut = last.cut || cut;
  }
  // A piece goes on; the place of its arrival was drawn then, by `actor`, or by who knows whom (-1).
  void goes_on(int64_t border, int64_t now_ps, int64_t drawn_ps, int32_t actor) {
    Last& last = at(border, now_ps);
    const bool as_last = last.came && last.drawn_ps == drawn_ps;
    const bool other = actor < 0 || actor != last.actor;
    ties_ += last.started || (as_last && other);
    last.actor = as_last && other ? -1 : actor;
    last.drawn_ps = drawn_ps;
    last.came = true;
  }
  void doubt() { ++ties_; }
  int64_t ties() const { return ties_; }

 private:
  // What has happened at a border at that time.
  struct Last {
    int64_t now_ps = -1, drawn_ps = -1;
    int32_t actor = -1;
    bool started = false, cut = false, came = false;
  };
  Last& at(int64_t border, int64_t now_ps) {
    Last& last = last_[border];
    if (last.now_ps != now_ps) {
      last = Last();
      last.now_ps = now_ps;
    }
    return last;
  }
  std::unordered_map<int64_t, Last> last_;
  int64_t ties_ = 0;
};

}  // namespace composite

#endif  // ASTRA_COMPOSITE_BORDERS_HPP
