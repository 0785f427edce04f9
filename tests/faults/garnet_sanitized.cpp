// SPDX-License-Identifier: MIT
//
// Drives Garnet through the contract with random networks, good and bad options, and random
// traffic, copies, reloads and changes of links.  Compiled with sanitizers by
// test_garnet_sanitized.py: any report ends the program.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "astra_net.h"

namespace {

std::mt19937_64 rng(1);
int64_t pick(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}

[[noreturn]] void fail(const char* what, const astra_net_error& err) {
  std::printf("%s: %s\n", what, err.message);
  std::exit(1);
}

astra_net_error fresh() {
  astra_net_error err{};
  err.struct_size = sizeof err;
  return err;
}

using Options = std::vector<std::pair<std::string, std::string>>;

constexpr int64_t kClocks[] = {1'000'000'000, 1'000'000'000, 2'345'678'901, 1'000'000'000'000};

// A network in Garnet's terms; sometimes a value is wrong.
Options own_network(int& nodes, bool& bad) {
  const int64_t routers = pick(1, 9);
  std::string depths, interfaces, links;
  for (int64_t r = 0; r < routers; ++r) depths += std::to_string(pick(1, 3)) + " ";
  nodes = static_cast<int>(pick(1, 12));
  for (int n = 0; n < nodes; ++n)
    interfaces += std::to_string(pick(0, routers - 1)) + " " + std::to_string(pick(0, 2)) + ";";
  for (int64_t r = 1; r < routers; ++r)
    for (const auto& [a, b] : {std::pair<int64_t, int64_t>{r, r / 2}, {r / 2, r}})
      links += std::to_string(a) + " " + std::to_string(b) + " " + std::to_string(pick(0, 90)) +
               " " + std::to_string(pick(1, 3)) + (pick(0, 1) ? " 2.75;" : ";");
  Options options{{"routers", depths},
                  {"nodes", interfaces},
                  {"links", links},
                  {"flit_bytes", std::to_string(pick(1, 64))},
                  {"packet_bytes", std::to_string(pick(0, 1) * pick(1, 300))},
                  {"vnets", pick(0, 1) ? "data, ctrl ordered, data" : "data ordered"},
                  {"vcs_per_vnet", std::to_string(pick(0, 3) ? pick(1, 5) : pick(60, 100))},
                  {"buffers_per_data_vc", std::to_string(pick(1, 5))},
                  {"series_cycles", std::to_string(pick(0, 1) * 50)},
                  {"record_packets", pick(0, 1) ? "true" : "false"},
                  {"clock_hz", std::to_string(kClocks[pick(0, 3)])}};
  bad = pick(0, 3) == 0;
  if (bad) {
    const char* const wrong[] = {"-1",           "x",    "9 9 9 9 9 9 9 9",
                                 ";;7 7 7 7 7;", "1e99", "99999999999"};
    options[static_cast<size_t>(pick(0, 6))].second = wrong[pick(0, 5)];
  }
  return options;
}

// Some links are slowed or go down; most of them come back.
void change_links(const astra_net_backend& backend, astra_net_sim* sim, int64_t now_ps) {
  constexpr double kScales[] = {0, 1e-9, 0.01, 0.3, 0.999, 1, 2};
  const auto change = [&](int64_t link, int64_t at_ps, double scale) {
    astra_net_error err = fresh();
    const astra_net_status status =
        backend.set_link(sim, static_cast<int32_t>(link), at_ps, scale, &err);
    // There may be no such link, or it has no such rate.
    if (status != ASTRA_NET_OK && status != ASTRA_NET_INVALID) fail("set_link", err);
  };
  for (int64_t n = pick(0, 6); n > 0; --n) {
    const int64_t link = pick(0, 12);
    const int64_t room = ASTRA_NET_TIME_NEVER - now_ps;
    change(link, now_ps + std::min(room, pick(0, 400'000)), kScales[pick(0, 6)]);
    if (pick(0, 19) > 0) change(link, now_ps + std::min(room, pick(0, 1'000'000)), 1);
  }
}

// Goes on with what was saved and loaded.
void reload(const astra_net_backend& backend, const astra_net_config& config, astra_net_sim*& sim) {
  astra_net_error err = fresh();
  size_t needed = 0;
  if (backend.save(sim, nullptr, 0, &needed, &err)) fail("save", err);
  std::vector<uint8_t> bytes(needed);
  if (backend.save(sim, bytes.data(), bytes.size(), &needed, &err)) fail("save", err);
  backend.destroy(sim);
  if (backend.load(&config, nullptr, bytes.data(), bytes.size(), &sim, &err)) fail("load", err);
}

}  // namespace

int main() {
  astra_net_backend backend{};
  backend.struct_size = sizeof backend;
  astra_net_error err = fresh();
  if (astra_net_backend_init(ASTRA_NET_VERSION_1_2, &backend, &err)) fail("init", err);
  int refused = 0, deadlocks = 0, done = 0;
  for (int round = 0; round < 400; ++round) {
    int nodes = 1;
    bool bad = false;
    Options options;
    std::vector<astra_net_link> links;
    astra_net_config config{};
    config.struct_size = sizeof config;
    if (pick(0, 2) == 0) {  // links of the contract: a star around a switch, or a ring
      nodes = static_cast<int>(pick(2, 7));
      config.nodes = nodes + 1;
      for (int n = 0; n < nodes; ++n) {
        const int other = pick(0, 1) ? nodes : (n + 1) % nodes;
        const double rate = static_cast<double>(pick(1, 900)) * 1e8;
        links.push_back({n, other, rate, pick(0, 700'000), 0});
        links.push_back({other, n, rate, pick(0, 700'000), 0});
      }
      bad = pick(0, 9) == 0;
      if (bad) links.front().latency_ps = ASTRA_NET_TIME_NEVER - pick(0, 9);
    } else {
      options = own_network(nodes, bad);
      config.nodes = nodes;
    }
    config.endpoints = nodes;
    config.links = links.data();
    config.link_count = links.size();
    std::vector<astra_net_option> raw;
    for (const auto& [key, value] : options) raw.push_back({key.c_str(), value.c_str()});
    config.options = raw.data();
    config.option_count = raw.size();
    astra_net_sim* sim = nullptr;
    err = fresh();
    const astra_net_status made = backend.create(&config, nullptr, &sim, &err);
    if (made != ASTRA_NET_OK) {
      if (!bad || made != ASTRA_NET_INVALID) fail("create", err);
      ++refused;
      continue;
    }
    // Sometimes all of it happens where times end.
    const int64_t begin_ps = pick(0, 9) ? 0 : ASTRA_NET_TIME_NEVER - pick(1, 2) * 2'000'000;
    std::vector<astra_net_transfer> items;
    for (int64_t id = 0; id < (nodes > 1 ? pick(1, 60) : 0); ++id) {
      astra_net_transfer item{};
      item.id = id;
      item.start_ps = begin_ps + pick(0, 300'000);
      item.bytes = pick(1, 4000);
      item.src = static_cast<int32_t>(pick(0, nodes - 1));
      item.dst = static_cast<int32_t>((item.src + pick(1, nodes - 1)) % nodes);
      item.traffic_class = static_cast<uint32_t>(pick(0, 31));
      items.push_back(item);
    }
    size_t accepted = 0;
    if (backend.submit(sim, items.data(), items.size(), &accepted, &err)) fail("submit", err);
    const bool faults = pick(0, 2) == 0;
    if (faults) change_links(backend, sim, pick(0, 1) ? 0 : begin_ps);
    size_t delivered = 0;
    int64_t now = 0;
    astra_net_status status = ASTRA_NET_OK;
    while (delivered < items.size() && status == ASTRA_NET_OK) {
      uint32_t stop = 0;
      status = backend.advance(sim, ASTRA_NET_TIME_NEVER, pick(0, 50'000), &now, &stop, &err);
      astra_net_completion records[8];
      size_t count = 8;
      while (status == ASTRA_NET_OK && count == 8) {
        if (backend.poll(sim, records, 8, &count, &err)) fail("poll", err);
        delivered += count;
      }
      if (pick(0, 9) == 0 && status == ASTRA_NET_OK) {  // go on with a copy
        astra_net_sim* copy = nullptr;
        if (backend.snapshot(sim, &copy, &err)) fail("snapshot", err);
        backend.destroy(sim);
        sim = copy;
      }
      if (pick(0, 9) == 0 && status == ASTRA_NET_OK) reload(backend, config, sim);
      if (faults && pick(0, 3) == 0 && status == ASTRA_NET_OK) change_links(backend, sim, now);
    }
    if (status == ASTRA_NET_OK) {
      size_t needed = 0;
      if (backend.stats(sim, nullptr, 0, &needed, &err)) fail("stats", err);
      std::vector<uint8_t> text(needed);
      if (backend.stats(sim, text.data(), text.size(), &needed, &err)) fail("stats", err);
      ++done;
    } else if (status == ASTRA_NET_MODEL) {
      // A ring without datelines, a way that a link of the star does not have, or no time left.
      ++deadlocks;
    } else {
      fail("advance", err);
    }
    backend.destroy(sim);
  }
  std::printf("%d done, %d refused, %d stuck\n", done, refused, deadlocks);
  return done > 200 && refused > 20 ? 0 : 1;
}
