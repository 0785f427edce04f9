// SPDX-License-Identifier: MIT
// trace_fuzz COUNT SEED FILE...: decodes COUNT random mutations of the files, and random bytes.
// Built with -fsanitize=address,undefined it must end with "ok"; every input is a heap block of
// its exact size, so that a read of one byte too many is caught.  With libFuzzer
// (clang -fsanitize=fuzzer -DTRACE_LIBFUZZER) the same decoder is its target.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>

#include "decode.hpp"

namespace {

bool run(const uint8_t* data, size_t size) {
  const auto block = std::make_unique<char[]>(size);
  std::copy(data, data + size, block.get());
  try {
    trace::decode({block.get(), size});
    return true;
  } catch (const trace::Error&) {
    return false;
  }
}

}  // namespace

#ifdef TRACE_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(data, size);
  return 0;
}
#else
int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s COUNT SEED [FILE...]\n", argv[0]);
    return 2;
  }
  std::mt19937_64 random(std::strtoull(argv[2], nullptr, 10));
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::vector<std::vector<uint8_t>> seeds(1);
  for (int i = 3; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  size_t accepted = 0;
  const size_t count = std::strtoull(argv[1], nullptr, 10);
  for (size_t k = 0; k < count; ++k) {
    std::vector<uint8_t> bytes = seeds[below(seeds.size())];
    if (bytes.empty()) {
      bytes.resize(below(64));
      for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
    }
    for (size_t edits = below(6); edits > 0 && !bytes.empty(); --edits) {
      const size_t at = below(bytes.size());
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<uint8_t>(random());
          break;
        case 1:
          bytes[at] ^= static_cast<uint8_t>(1u << below(8));
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(random()));
          break;
        default:
          bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at),
                      bytes.begin() + static_cast<ptrdiff_t>(at + below(bytes.size() - at)));
      }
    }
    accepted += run(bytes.data(), bytes.size());
  }
  std::printf("ok: %zu inputs, %zu accepted\n", count, accepted);
}
#endif
