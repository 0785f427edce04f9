// SPDX-License-Identifier: MIT
//
// How long the analytical backends take per transfer on a list of links: a fat-tree of k-port
// switches (k^3 / 4 hosts), random pairs.  Every host starts a transfer to a random other one, and
// when all have arrived again.  The sum of all arrival times is printed too: it tells whether two
// libraries took the same ways.
// Usage: analytical_fat_tree LIBRARY K TRANSFERS
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <vector>

#include "astra_net.h"

namespace {

std::vector<astra_net_link> fat_tree(int k) {
  const int half = k / 2, hosts = k * k * k / 4;
  const int edges = hosts, aggregations = edges + k * half, cores = aggregations + k * half;
  std::vector<astra_net_link> links;
  const auto cable = [&links](int a, int b) {
    for (const auto& [src, dst] : {std::pair(a, b), std::pair(b, a)}) {
      astra_net_link link{};
      link.src = src;
      link.dst = dst;
      link.bytes_per_second = 50e9;
      link.latency_ps = 500000;
      links.push_back(link);
    }
  };
  for (int edge = 0; edge < k * half; ++edge) {
    const int pod = edge / half;
    for (int i = 0; i < half; ++i) cable(edge * half + i, edges + edge);
    for (int i = 0; i < half; ++i) cable(edges + edge, aggregations + pod * half + i);
  }
  for (int aggregation = 0; aggregation < k * half; ++aggregation)
    for (int i = 0; i < half; ++i)
      cable(aggregations + aggregation, cores + aggregation % half * half + i);
  return links;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return std::fprintf(stderr, "see the head of the source\n"), 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  auto* init =
      reinterpret_cast<astra_net_backend_init_fn*>(dlsym(library, "astra_net_backend_init"));
  astra_net_error err{};
  err.struct_size = sizeof err;
  astra_net_backend net{};
  net.struct_size = sizeof net;
  if (init(ASTRA_NET_VERSION_1_1, &net, &err) != 0) return std::puts(err.message), 1;
  const int k = std::atoi(argv[2]), hosts = k * k * k / 4;
  const long transfers = std::atol(argv[3]);
  const std::vector<astra_net_link> links = fat_tree(k);
  astra_net_config config{};
  config.struct_size = sizeof config;
  config.endpoints = hosts;
  config.nodes = hosts + k * k + k * k / 4;
  config.links = links.data();
  config.link_count = links.size();
  astra_net_sim* sim = nullptr;
  if (net.create(&config, nullptr, &sim, &err) != 0) return std::puts(err.message), 1;

  std::mt19937 random(1);
  std::vector<astra_net_transfer> starts(static_cast<size_t>(hosts));
  std::vector<astra_net_completion> done(starts.size());
  astra_net_exchange x{};
  x.struct_size = sizeof x;
  x.starts = starts.data();
  x.completions = done.data();
  x.capacity = done.size();
  x.until_ps = ASTRA_NET_TIME_NEVER;
  x.until_place = INT64_MAX;
  long finished = 0;
  uint64_t sum = 0;
  const std::clock_t begin = std::clock();  // CPU time: others may use the machine
  while (finished < transfers) {
    for (int i = 0; i < hosts; ++i) {
      const int peer =
          (i + 1 + static_cast<int>(random() % static_cast<unsigned>(hosts - 1))) % hosts;
      starts[static_cast<size_t>(i)] = {x.place, x.now_ps, 65536, i, peer, 0, 0, 0};
      x.place += ASTRA_NET_PLACES_PER_TRANSFER;
    }
    x.start_count = starts.size();
    for (int left = hosts; left > 0; left -= static_cast<int>(x.completion_count)) {
      if (net.exchange(sim, &x, &err) != 0) return std::puts(err.message), 1;
      x.start_count = 0;
      finished += static_cast<long>(x.completion_count);
      for (size_t i = 0; i < x.completion_count; ++i)
        sum += static_cast<uint64_t>(done[i].time_ps) * static_cast<uint64_t>(done[i].id | 1);
    }
  }
  const double took = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  std::printf("k=%d hosts=%d: %ld transfers, %.3f CPU s, %.2f us per transfer, arrivals %016llx\n",
              k, hosts, finished, took, took * 1e6 / static_cast<double>(finished),
              static_cast<unsigned long long>(sum));
  net.destroy(sim);
  return 0;
}
