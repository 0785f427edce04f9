// SPDX-License-Identifier: MIT
// The plain events of Kineto's trace (torch.profiler's JSON) as columns.  What is not plain, and all
// that is rare, is left to Python: astra_bridge/sources/kineto.py, which says what the columns are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace trace {

// Kinds of events, as in kineto.py.
enum class EventKind : int8_t { kHost, kRuntime, kGpu, kNote, kSync, kOther };

struct KinetoColumns {
  std::vector<int32_t> op_thread;
  std::vector<double> op_start_us, op_took_us;
  std::vector<int32_t> call_thread;
  std::vector<double> call_start_us, call_took_us;
  std::vector<int32_t> call_name;
  std::vector<int64_t> call_correlation;
  std::vector<int64_t> gpu_device, gpu_stream;
  std::vector<double> gpu_start_us, gpu_took_us;
  std::vector<int32_t> gpu_name;
  std::vector<int64_t> gpu_correlation;
  // Of kernels that communicate: which, and their arguments as they stand in the file.
  std::vector<std::pair<int64_t, std::string_view>> gpu_args;
  std::vector<std::string_view> rest;  // events for Python
};

// What Python knows; a text is as it stands in the file, without its quotes.
struct KinetoNames {
  std::function<int32_t(std::string_view pid, std::string_view tid)> thread;  // its number
  std::function<bool(std::string_view)> communicates;  // an operator
  std::function<int32_t(std::string_view)> call;  // number of the name
  std::function<std::pair<int32_t, bool>(std::string_view)> kernel;  // and whether it communicates
};

class KinetoScanner {
 public:
  KinetoScanner(const std::vector<std::pair<std::string, int>>& categories, KinetoNames names);

  // Take the whole entries at the start of a text, which ends with a zero byte behind it, as far as
  // they are plain and a comma follows.  Returns where the rest begins; `plain` is false where that
  // is because of what stands there, and not because it is cut off or the list ends.
  size_t scan(std::string_view text, KinetoColumns& out, bool& plain);

 private:
  struct Event;
  struct Outer {
    double start_us, end_us;
  };
  void take(const Event& event, KinetoColumns& out);
  int32_t thread_of(const Event& event);

  // Values by texts, each of which is asked for once.
  template <class Value>
  class Known {
   public:
    template <class Ask>
    const Value& of(std::string_view text, const Ask& ask) {
      const auto found = values_.find(text);
      if (found != values_.end()) return found->second;
      const Value value = ask(text);
      texts_.emplace_back(text);
      return values_.emplace(texts_.back(), value).first->second;
    }

   private:
    std::deque<std::string> texts_;
    std::unordered_map<std::string_view, Value> values_;
  };

  std::deque<std::string> category_texts_;
  std::unordered_map<std::string_view, EventKind> categories_;
  KinetoNames names_;
  Known<bool> communicates_;
  Known<int32_t> calls_, threads_;
  Known<std::pair<int32_t, bool>> kernels_;
  std::string last_thread_;
  int32_t last_ = -1;
  std::vector<Outer> outermost_;  // per thread, the last operator around others
};

}  // namespace trace
