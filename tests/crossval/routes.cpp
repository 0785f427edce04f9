// SPDX-License-Identifier: MIT
// Routes of backends/analytical/link_list.hpp for every pair of endpoints.  Reads "most_room",
// then graphs "endpoints nodes links", each link as "src dst"; writes a line per pair, "-" where
// there is no way.
#include <iostream>

#include "link_list.hpp"

int main() {
  size_t most_room = 0;
  std::cin >> most_room;
  int endpoints = 0, nodes = 0, links = 0;
  while (std::cin >> endpoints >> nodes >> links) {
    astra_net::Config config;
    config.endpoints = endpoints;
    config.nodes = nodes;
    for (int i = 0; i < links; ++i) {
      astra_net_link link{};
      std::cin >> link.src >> link.dst;
      link.bytes_per_second = 1e9;
      config.links.push_back(link);
    }
    analytical::LinkList routes(config, most_room);
    for (int src = 0; src < endpoints; ++src) {
      for (int dst = 0; dst < endpoints; ++dst) {
        if (src == dst) continue;
        std::string line;
        try {
          for (analytical::Position at{src}; at.node != dst;) {
            const analytical::Hop hop = routes.next(src, dst, at);
            line += std::to_string(hop.link) + " ";
            at = hop.next;
          }
        } catch (const astra_net::Error&) {
          line += "- ";
        }
        std::cout << line << "\n";
      }
    }
  }
}
