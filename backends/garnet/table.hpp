// SPDX-License-Identifier: MIT
//
// Numbers and tables as JSON.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>
#include <type_traits>

namespace garnet {

inline std::string json_text(double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.10g", std::isfinite(value) ? value : 0.0);
  return buffer;
}
template <class Integer, std::enable_if_t<std::is_integral_v<Integer>, int> = 0>
std::string json_text(Integer value) {
  return std::to_string(value);
}
// Names of ours, and of a simulator's statistics: no character of them needs an escape.
inline std::string json_text(const std::string& value) { return '"' + value + '"'; }

// A table of columns, at the end of a JSON object of tables; finished when it goes out of scope.
class Table {
 public:
  Table(std::string& json, const char* name) : json_(json) {
    if (json_.back() == '}') json_ += ',';
    json_ += '"' + std::string(name) + "\":{";
  }
  ~Table() { json_ += '}'; }
  template <class Rows, class Value>
  Table& column(const char* name, const Rows& rows, Value&& value) {
    if (json_.back() == ']') json_ += ',';
    json_ += '"' + std::string(name) + "\":[";
    size_t index = 0;
    for (const auto& row : rows) {
      if (index > 0) json_ += ',';
      json_ += json_text(value(row, index++));
    }
    json_ += ']';
    return *this;
  }

 private:
  std::string& json_;
};

}  // namespace garnet
