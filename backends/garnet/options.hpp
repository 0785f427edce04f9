// SPDX-License-Identifier: MIT
//
// What create() got becomes the configuration of a network.
#pragma once

#include <cstdint>

#include "astra_net.hpp"
#include "config.hpp"

namespace garnet {

__extension__ typedef __int128 Wide;

constexpr int64_t kPsPerS = 1'000'000'000'000;
constexpr int64_t kMost = 1'000'000'000;  // cycles of a latency, bytes of a flit, buffers of a VC

// Throws astra_net::Error; what the network itself refuses is left to validate().
Config read_config(astra_net::Config& given);

}  // namespace garnet
