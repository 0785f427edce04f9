// SPDX-License-Identifier: MIT
//
// Put before every source of htsim as it is compiled (-include): what would reach out of a library is
// kept in.  Nothing is printed; nothing ends the process; nobody but the adapter seeds the random
// numbers (some constructors of htsim do, by the clock).
#ifndef ASTRA_HTSIM_HOST_H
#define ASTRA_HTSIM_HOST_H

// What htsim includes, before its words are given other meanings below.
#include <algorithm>
#include <bitset>
#include <cassert>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace astra_htsim {
extern std::ostream nowhere;
}
namespace std {
using astra_htsim::nowhere;
}
using astra_htsim::nowhere;

#define cout nowhere
#define printf(...) static_cast<void>(0)
#define abort() astra_htsim::failed("abort()", __FILE__, __LINE__)
#define exit(code) astra_htsim::failed("exit(" #code ")", __FILE__, __LINE__)
#ifndef ASTRA_HTSIM_RANDOM
#define srand(seed) static_cast<void>(0)
#define srandom(seed) static_cast<void>(0)
#endif

#endif  // ASTRA_HTSIM_HOST_H
