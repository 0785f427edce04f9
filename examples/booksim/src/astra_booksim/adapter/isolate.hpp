// SPDX-License-Identifier: MIT
// Included before everything else.  BookSim prints, and ends the process where something is wrong:
// a library must do neither, so both become what the adapter throws.
#pragma once
#include <cstdlib>
#include <iostream>
#include <sstream>

extern std::ostringstream booksim_said;
[[noreturn]] void booksim_failed();

#define cout booksim_said
#define cerr booksim_said
#define exit(code) booksim_failed()
