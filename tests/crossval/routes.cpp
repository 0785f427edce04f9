// SPDX-License-Identifier: MIT
// Routes of csrc/include/astra_routes.hpp for every pair of endpoints.  Reads "most_room", then
// graphs "endpoints nodes links routing endpoints_forward", each link as "src dst rate"; writes a line
// per pair, "-" where there is no way.
#include <iostream>

#include "astra_routes.hpp"

int main() {
  size_t most_room = 0;
  std::cin >> most_room;
  int endpoints = 0, nodes = 0, links = 0;
  std::string routing, forward;
  while (std::cin >> endpoints >> nodes >> links >> routing >> forward) {
    astra_net::Config config;
    config.endpoints = endpoints;
    config.nodes = nodes;
    config.options.add("routing", routing);
    config.options.add("endpoints_forward", forward);
    for (int i = 0; i < links; ++i) {
      astra_net_link link{};
      std::cin >> link.src >> link.dst >> link.bytes_per_second;
      config.links.push_back(link);
    }
    astra_net::Routes routes(config, most_room);
    for (int src = 0; src < endpoints; ++src) {
      for (int dst = 0; dst < endpoints; ++dst) {
        if (src == dst) continue;
        std::string line;
        for (int at = src; at != dst;) {
          const int32_t link = routes.next(src, dst, at);
          line += link < 0 ? "- " : std::to_string(link) + " ";
          if (link < 0) break;
          at = config.links[static_cast<size_t>(link)].dst;
        }
        std::cout << line << "\n";
      }
    }
  }
}
