// SPDX-License-Identifier: MIT
#include "tables.h"

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "astra_net.hpp"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

}  // namespace

void Refuse(const std::string& message) { throw astra_net::Error(ASTRA_NET_INVALID, message); }

std::vector<std::vector<double>> ReadTable(const std::string& key, const std::string& text,
                                           size_t width) {
  std::vector<std::vector<double>> rows;
  for (const std::string& item : Split(text, ',')) {
    std::vector<double> row;
    for (const std::string& field : Split(item, ':')) {
      char* end = nullptr;
      row.push_back(std::strtod(field.c_str(), &end));
      if (end == field.c_str() || *end != '\0' || !std::isfinite(row.back()))
        Refuse("option '" + key + "': '" + field + "' in '" + item + "' is not a number");
    }
    if (row.size() != width)
      Refuse("option '" + key + "': '" + item + "' must be " + std::to_string(width) +
             " numbers with ':' between them");
    rows.push_back(std::move(row));
  }
  return rows;
}

JsonTable::JsonTable(const char* name, const std::vector<const char*>& columns) : name_(name) {
  for (const char* column : columns) columns_.push_back(std::string("\"") + column + "\": [");
}

void JsonTable::Add(const std::vector<int64_t>& row) {
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (rows_ > 0) columns_[i] += ", ";
    columns_[i] += std::to_string(row[i]);
  }
  ++rows_;
}

std::string JsonTable::Text() const {
  std::string text = "\"" + name_ + "\": {";
  for (size_t i = 0; i < columns_.size(); ++i) text += (i > 0 ? ", " : "") + columns_[i] + "]";
  return text + "}";
}

}  // namespace astra_ns3
