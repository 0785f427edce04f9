// SPDX-License-Identifier: MIT
// A file in memory that somebody may cut short while it is read: what is no longer there reads as
// zeros, where the system would end the process with SIGBUS.  The reader looks afterwards whether
// the file is still the same.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <system_error>

namespace trace {

class MappedFile {
 public:
  MappedFile(int descriptor, size_t size) : size_(size) {
    const std::lock_guard<std::mutex> guard(mutex());
    int slot = 0;
    while (slot < kMost && ranges()[slot].begin.load() != 0) ++slot;
    if (slot == kMost) throw std::system_error(EMFILE, std::generic_category());
    void* at = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category());
    range_ = &ranges()[slot];
    data_ = static_cast<const uint8_t*>(at);
    range_->end = reinterpret_cast<uintptr_t>(at) + size;
    range_->begin = reinterpret_cast<uintptr_t>(at);
    if (users()++ == 0) install();
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  ~MappedFile() {
    const std::lock_guard<std::mutex> guard(mutex());
    if (--users() == 0) remove();
    range_->begin = 0;
    munmap(const_cast<uint8_t*>(data_), size_);
  }

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  static constexpr int kMost = 64;
  struct Range {
    std::atomic<uintptr_t> begin{0}, end{0};
  };

  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }
  static Range* ranges() {
    static Range all[kMost];
    return all;
  }
  static int& users() {
    static int count = 0;
    return count;
  }
  static struct sigaction& before() {
    static struct sigaction action;
    return action;
  }

  static void install() {
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before());
  }

  static void remove() {
    struct sigaction now;
    if (sigaction(SIGBUS, nullptr, &now) == 0 && now.sa_sigaction == on_bus_error)
      sigaction(SIGBUS, &before(), nullptr);
  }

  // Runs in the thread that touched the missing page; makes only system calls.
  static void on_bus_error(int signal, siginfo_t* info, void* context) {
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    for (int i = 0; i < kMost; ++i) {
      const uintptr_t begin = ranges()[i].begin, end = ranges()[i].end;
      if (begin == 0 || at < begin || at >= end) continue;
      const uintptr_t page = at & ~static_cast<uintptr_t>(sysconf(_SC_PAGESIZE) - 1);
      const int flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS;
      if (mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, flags, -1, 0) != MAP_FAILED)
        return;
    }
    if (before().sa_flags & SA_SIGINFO) {
      before().sa_sigaction(signal, info, context);
    } else if (before().sa_handler == SIG_DFL || before().sa_handler == SIG_IGN) {
      ::signal(SIGBUS, SIG_DFL);  // the access is tried again, and ends the process
    } else {
      before().sa_handler(signal);
    }
  }

  size_t size_;
  const uint8_t* data_ = nullptr;
  Range* range_ = nullptr;
};

}  // namespace trace
