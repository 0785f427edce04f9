// SPDX-License-Identifier: MIT
//
// The rules of astra_bridge/program/rules.py, as one answer: whether a Program keeps them all.  Which
// one is broken, and where, Python says.
#ifndef ASTRA_ENGINE_RULES_HPP
#define ASTRA_ENGINE_RULES_HPP

#include "program.hpp"

namespace engine {

// Types and scalars have been checked.
bool keeps_rules(const Program& program);

// `sizes`: members of the smallest group that runs each schedule.
bool schedules_keep_rules(const Table<Schedule>& schedules, const Table<Step>& steps,
                          const Table<Packet>& packets, const Table<int64_t>& sizes);

// Whether every message that a member sends is one that another receives, as check_peers in
// astra_bridge/collectives/check.py; `sizes`: members of the group that runs each family.
bool peers_agree(const Table<Family>& families, const Table<int32_t>& schedule_of_position,
                 const Table<Schedule>& schedules, const Table<Step>& steps,
                 const Table<int64_t>& sizes);

}  // namespace engine

#endif  // ASTRA_ENGINE_RULES_HPP
