// SPDX-License-Identifier: MIT
// The native trace decoder: the bytes of a Chakra .et file to columns.
// astra_bridge/trace/raw.py describes the columns, astra_bridge/trace/decode.py is its twin.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trace {

constexpr int64_t kMissing = INT64_MIN;
constexpr size_t kIntColumns = 12;

struct Trace {
  std::string version;
  std::vector<int64_t> record_start;
  std::vector<uint64_t> node_id, duration_micros;
  std::vector<int32_t> type, pg_name, involved_dim;
  std::vector<uint8_t> is_cpu_op;
  std::vector<int64_t> ints[kIntColumns];  // empty where no node has the attribute
  std::vector<std::string> strings, involved_dims;
  std::vector<int64_t> dep_start;
  std::vector<uint64_t> dep_id;  // of each node, data_deps and then ctrl_deps
  std::vector<int32_t> data_dep_count;
};

struct Error {  // thrown
  std::string place, problem;
};

Trace decode(std::string_view data);

}  // namespace trace
