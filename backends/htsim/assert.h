// SPDX-License-Identifier: MIT
//
// Stands before the system's header of this name: what htsim asserts becomes an error of the
// simulation, where it would have ended the process.  Like every assert.h, without an include guard.
#undef assert
#define assert(condition) \
  ((condition) ? static_cast<void>(0) : astra_htsim::failed(#condition, __FILE__, __LINE__))

#ifndef ASTRA_HTSIM_FAILED
#define ASTRA_HTSIM_FAILED
namespace astra_htsim {
// Throws.
[[noreturn]] void failed(const char* condition, const char* file, int line);
}  // namespace astra_htsim
#endif
