// SPDX-License-Identifier: MIT
// BookSim with its own random traffic (`own KEY=VALUE ...`) prints a line for each packet: source,
// destination, flits, and the cycles in which it was made and has arrived.
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "booksim.hpp"
#include "booksim_config.hpp"
#include "network.hpp"
#include "routefunc.hpp"
#include "trafficmanager.hpp"

TrafficManager* trafficManager = nullptr;
int GetSimTime() { return trafficManager->getTime(); }
Stats* GetStats(const std::string& name) { return trafficManager->getStats(name); }
bool gPrintActivity = false, gTrace = false;
int gK, gN, gC, gNodes;
std::ostream* gWatchOut = nullptr;
extern "C" int yyparse() { return 1; }

class Traffic final : public TrafficManager {
 public:
  using TrafficManager::TrafficManager;
  void run(int cycles) {
    _sim_state = running;
    while (_time < cycles) _Step();
    _empty_network = true;  // no more packets
    while (!_total_in_flight_flits[0].empty()) _Step();
  }

 private:
  void _RetireFlit(Flit* flit, int dest) override {
    const int source = flit->src, made = flit->ctime, packet = flit->pid;
    const bool tail = flit->tail;
    ++flits_[packet];
    TrafficManager::_RetireFlit(flit, dest);
    if (tail) std::printf("%d %d %d %d %d\n", source, dest, flits_[packet], made, _time);
  }
  std::map<int, int> flits_;
};

int main(int argc, char** argv) {
  BookSimConfig settings;
  settings.Assign("include_queuing", 0);
  int cycles = 1000;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::string key = word.substr(0, word.find('=')), value = word.substr(key.size() + 1);
    const bool is_number = std::isdigit(static_cast<unsigned char>(value[0])) != 0;
    if (key == "cycles")
      cycles = std::stoi(value);
    else if (is_number && settings.GetIntMap().count(key) > 0)
      settings.Assign(key, std::stoi(value));
    else if (is_number && settings.GetFloatMap().count(key) > 0)
      settings.Assign(key, std::stod(value));
    else
      settings.Assign(key, value);
  }
  InitializeRoutingMap(settings);
  Network* net = Network::New(settings, "network");
  auto* traffic = new Traffic(settings, {net});
  trafficManager = traffic;
  traffic->run(cycles);
  std::fflush(stdout);
  _Exit(0);
}
