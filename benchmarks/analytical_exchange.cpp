// SPDX-License-Identifier: MIT
//
// How long an analytical backend takes per transfer behind exchange(): `ranks` transfers start at
// one instant, to the next rank, and when all have arrived the next ones start.  No engine.
// Usage: analytical_exchange LIBRARY TOPOLOGY RANKS ROUNDS LATENCY_NS [SPREAD]
// With SPREAD, sizes differ between ranks, so that arrivals have RANKS distinct times.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "astra_net.h"

int main(int argc, char** argv) {
  if (argc < 6) return std::fprintf(stderr, "see the head of the source\n"), 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  auto* init =
      reinterpret_cast<astra_net_backend_init_fn*>(dlsym(library, "astra_net_backend_init"));
  astra_net_error err{};
  err.struct_size = sizeof err;
  astra_net_backend net{};
  net.struct_size = sizeof net;
  if (init(ASTRA_NET_VERSION_1_1, &net, &err) != 0) return std::puts(err.message), 1;
  const int ranks = std::atoi(argv[3]);
  const long rounds = std::atol(argv[4]);
  const bool spread = argc > 6;
  const std::string count = std::to_string(ranks);
  const astra_net_option options[] = {{"topology", argv[2]},
                                      {"npus_count", count.c_str()},
                                      {"bandwidth", "50.0"},
                                      {"latency", argv[5]}};
  astra_net_config config{};
  config.struct_size = sizeof config;
  config.endpoints = ranks;
  config.nodes = 2 * ranks;
  config.options = options;
  config.option_count = 4;
  astra_net_sim* sim = nullptr;
  if (net.create(&config, nullptr, &sim, &err) != 0) return std::puts(err.message), 1;

  std::vector<astra_net_transfer> starts(static_cast<size_t>(ranks));
  std::vector<astra_net_completion> done(static_cast<size_t>(ranks));
  astra_net_exchange x{};
  x.struct_size = sizeof x;
  x.starts = starts.data();
  x.completions = done.data();
  x.capacity = done.size();
  x.until_ps = ASTRA_NET_TIME_NEVER;
  x.until_place = INT64_MAX;
  long calls = 0, finished = 0;
  const std::clock_t begin = std::clock();  // CPU time: others may use the machine
  for (long round = 0; round < rounds; ++round) {
    for (int i = 0; i < ranks; ++i) {
      const int64_t bytes = 262144 + (spread ? 1000 * ((i * 7919) % ranks) : 0);
      starts[static_cast<size_t>(i)] = {x.place, x.now_ps, bytes, i, (i + 1) % ranks, 0, 0, 0};
      x.place += ASTRA_NET_PLACES_PER_TRANSFER;
    }
    x.start_count = starts.size();
    for (int left = ranks; left > 0; left -= static_cast<int>(x.completion_count)) {
      if (net.exchange(sim, &x, &err) != 0) return std::puts(err.message), 1;
      x.start_count = 0;
      ++calls;
      finished += static_cast<long>(x.completion_count);
    }
  }
  const double took = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  std::printf(
      "%s %s ranks=%d latency=%s%s: %ld transfers, %ld calls, %.3f CPU s, %.1f ns per transfer\n",
      std::strstr(argv[1], "unaware") ? "unaware" : "aware", argv[2], ranks, argv[5],
      spread ? " spread" : "", finished, calls, took, took * 1e9 / static_cast<double>(finished));
  net.destroy(sim);
  return 0;
}
