// SPDX-License-Identifier: MIT
//
// Where the states of links in use are.  They are made when first used: n endpoints that are
// FullyConnected have n (n - 1) links, of which a ring uses n.
#ifndef ASTRA_ANALYTICAL_LINK_INDEX_HPP
#define ASTRA_ANALYTICAL_LINK_INDEX_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "astra_flat_map.hpp"

namespace analytical {

class LinkIndex {
 public:
  explicit LinkIndex(int64_t link_count) {
    if (link_count <= kDenseLinks) dense_.assign(static_cast<size_t>(link_count), -1);
  }
  // The place of the link's state, or -1.
  int32_t find(int64_t number) const {
    return dense_.empty() ? sparse_.find(number) : dense_[static_cast<size_t>(number)];
  }
  void insert(int64_t number, int32_t place) {
    if (dense_.empty())
      sparse_.insert(number, place);
    else
      dense_.at(static_cast<size_t>(number)) = place;
  }
  // As they are after a load: the states say which links they are of.
  template <class Links>
  void insert_all(const Links& links) {
    for (size_t i = 0; i < links.size(); ++i) insert(links[i].number, static_cast<int32_t>(i));
  }

 private:
  static constexpr int64_t kDenseLinks = int64_t{1} << 16;
  std::vector<int32_t> dense_;
  astra::FlatMap<int32_t> sparse_;  // where there are too many links for a table
};

}  // namespace analytical

#endif  // ASTRA_ANALYTICAL_LINK_INDEX_HPP
