// SPDX-License-Identifier: MIT
//
// How the engine ends when it cannot go on.
#ifndef ASTRA_ENGINE_FAILURE_HPP
#define ASTRA_ENGINE_FAILURE_HPP

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "astra_net.h"

namespace engine {

// A call of the network contract failed; Python turns it into the exception that fits the status.
struct NetworkFailure : std::runtime_error {
  NetworkFailure(const char* call_name, astra_net_status code, const astra_net_error& error)
      : std::runtime_error(text_of(error)),
        call(call_name),
        status(code),
        native_code(error.native_code),
        item(error.item) {}
  // The text of an error, which may have no end and no meaning.
  static std::string text_of(const astra_net_error& error) {
    return {error.message, strnlen(error.message, sizeof error.message)};
  }
  std::string call;
  astra_net_status status;
  int32_t native_code;
  int64_t item;
};

inline astra_net_error fresh_error() {
  astra_net_error error{};
  error.struct_size = sizeof error;
  error.item = -1;
  return error;
}

inline void check(const char* call, astra_net_status status, const astra_net_error& error) {
  if (status != ASTRA_NET_OK) throw NetworkFailure(call, status, error);
}

// What the engine itself cannot go on with; Python makes a SimulationError of it.
[[noreturn, gnu::format(printf, 1, 2), gnu::cold]] inline void give_up(const char* format, ...) {
  astra_net_error error = fresh_error();
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error.message, sizeof error.message, format, arguments);
  va_end(arguments);
  throw NetworkFailure("engine", ASTRA_NET_MODEL, error);
}

}  // namespace engine

#endif  // ASTRA_ENGINE_FAILURE_HPP
