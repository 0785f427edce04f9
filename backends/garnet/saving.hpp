// SPDX-License-Identifier: MIT
//
// All that changes in a network; what follows from the configuration is made again.
#pragma once

#include "core.hpp"

namespace garnet {
namespace {

template <int W>
template <class A>
void Core<W>::visit(A& archive) {
  archive(now_, suspicious_, jumps_, jumped_cycles_, packets_);
  archive(inputs_, outputs_, buffers_, credits_of_, routers_, occupied_ports_);
  archive(interfaces_, queues_, to_send_, filled_at_, interface_filled_at_);
  archive(messages_, free_messages_, packet_pool_, free_packets_, serial_, in_flight_, starts_);
  archive(flits_, credits_, wheel_used_, far_, changes_, next_change_, changed_);
  archive(awake_routers_, awake_interfaces_, router_awake_, interface_awake_);
  archive(binned_flits_, binned_router_flits_, series_, next_bin_, next_check_, progress_);
}

}  // namespace
}  // namespace garnet
