// SPDX-License-Identifier: MIT
//
// Tables: those that options are, and those that statistics have.
#ifndef ASTRA_NS3_TABLES_H
#define ASTRA_NS3_TABLES_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace [[gnu::visibility("hidden")]] astra_ns3 {

[[noreturn]] void Refuse(const std::string& message);

// "a:b:c,a:b:c" -> rows of numbers, each of the same width.
std::vector<std::vector<double>> ReadTable(const std::string& key, const std::string& text,
                                           size_t width);

// A table in JSON, by columns.
class JsonTable {
 public:
  JsonTable(const char* name, const std::vector<const char*>& columns);
  void Add(const std::vector<int64_t>& row);
  std::string Text() const;

 private:
  std::string name_;
  std::vector<std::string> columns_;
  size_t rows_ = 0;
};

}  // namespace astra_ns3

#endif  // ASTRA_NS3_TABLES_H
