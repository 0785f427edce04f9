// SPDX-License-Identifier: MIT
//
// For backends that let one endpoint stand for all that are alike ("Folded ranks" in docs/contract.md):
// the ways to turn a network onto itself, as the option `fold` says them.
#ifndef ASTRA_TURNS_HPP
#define ASTRA_TURNS_HPP

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "astra_net.hpp"

namespace astra_net {

// Endpoints that differ in these digits of their numbers alone, endpoint / stride % size, are alike.  A
// turn is named by the endpoint to which it takes endpoint 0.
class Turns {
 public:
  Turns() = default;
  // Reads "stride:size,...", of a network of so many endpoints; "" is none.
  Turns(const std::string& text, int32_t endpoints) {
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
      std::istringstream numbers(item);
      int64_t stride = 0, size = 0;
      char colon = 0;
      if (!(numbers >> stride >> colon >> size) || colon != ':' || !numbers.eof() || stride < 1 ||
          size < 2 || size > endpoints / stride)
        throw Error(ASTRA_NET_INVALID,
                    "option 'fold' has '" + item + "', which is no digit of the endpoints");
      digits_.push_back({static_cast<int32_t>(stride), static_cast<int32_t>(size)});
    }
  }
  bool any() const { return !digits_.empty(); }

  // An endpoint after a turn, and before it.
  int32_t turned(int32_t endpoint, int32_t by) const {
    for (const Digit& one : digits_) {
      const int32_t digit = endpoint / one.stride % one.size;
      const int32_t more = by / one.stride % one.size;
      endpoint += ((digit + more) % one.size - digit) * one.stride;
    }
    return endpoint;
  }
  int32_t back(int32_t endpoint, int32_t by) const {
    for (const Digit& one : digits_) {
      const int32_t digit = endpoint / one.stride % one.size;
      const int32_t less = by / one.stride % one.size;
      endpoint += ((digit - less + one.size) % one.size - digit) * one.stride;
    }
    return endpoint;
  }
  // Which turn takes the endpoint that stands for this one to it.
  int32_t to(int32_t endpoint) const {
    int32_t by = 0;
    for (const Digit& one : digits_) by += endpoint / one.stride % one.size * one.stride;
    return by;
  }

 private:
  struct Digit {
    int32_t stride, size;
  };
  std::vector<Digit> digits_;
};

}  // namespace astra_net

#endif  // ASTRA_TURNS_HPP
