// SPDX-License-Identifier: MIT
//
// Congestion-unaware: every transfer has the network for itself, and takes
// floor(latency of the way + bytes / bandwidth) ns (Won et al., "ASTRA-sim2.0", ISPASS 2023,
// section IV-C).
#include <optional>

#include "core.hpp"
#include "topology.hpp"

namespace {

using namespace analytical;

class Unaware final : public Core<Unaware> {
 public:
  static astra_net_info info() {
    astra_net_info info{};
    info.name = "analytical-unaware";
    info.version = "1.0";
    info.capabilities = ASTRA_NET_CAP_MULTI_INSTANCE | ASTRA_NET_CAP_PARALLEL |
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT | ASTRA_NET_CAP_ORDERED;
    info.resolution_ps = kPsPerNs;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Unaware(astra_net::Config& config, const astra_net::Log&)
      : endpoints_(config.endpoints), corrected_(is_corrected(config)) {
    if (has_dimensions(config)) {
      dimensions_.emplace(config, corrected_);
      recent_.resize(dimensions_->rates().size());
    } else {
      links_.emplace(config);
    }
  }

  void begin(const astra_net_transfer& transfer, int64_t now_ps) {
    ++transfers_;
    bytes_ += transfer.bytes;
    schedule(now_ps, delay_ns(transfer), EventKind::kDeliver, transfer.id);
  }

  void handle(EventKind, int64_t, int64_t) {}

  std::string stats() final {
    return "{\"transfers\": " + std::to_string(transfers_) +
           ", \"bytes\": " + std::to_string(bytes_) + "}";
  }

 private:
  // The last delay in a dimension.  Collectives send the same size over the same distance again
  // and again, and a division takes as long as the rest of a transfer.
  struct Recent {
    int64_t bytes = 0, delay_ns = 0;
    int32_t hops = 0;
  };
  static constexpr size_t kMostCosts = size_t{1} << 16;

  int64_t delay_ns(const astra_net_transfer& transfer) {
    if (links_ || corrected_) {
      const Cost cost = links_ ? cost_of(transfer.src, transfer.dst)
                               : dimensions_->cost(transfer.src, transfer.dst);
      return whole_ns(cost.latency_ns + static_cast<double>(transfer.bytes) / cost.bytes_per_ns);
    }
    const auto by = dimensions_->difference(transfer.src, transfer.dst);
    const int32_t hops = dimensions_->hops(by);
    Recent& recent = recent_[static_cast<size_t>(by.dimension)];
    if (recent.bytes != transfer.bytes || recent.hops != hops) {
      const Rate& rate = dimensions_->rates()[static_cast<size_t>(by.dimension)];
      recent.delay_ns = whole_ns(hops * rate.latency_ns +
                                 static_cast<double>(transfer.bytes) / rate.bytes_per_ns);
      recent.bytes = transfer.bytes;
      recent.hops = hops;
    }
    return recent.delay_ns;
  }

  const Cost& cost_of(int32_t src, int32_t dst) {
    const int64_t pair = static_cast<int64_t>(src) * endpoints_ + dst;
    int32_t index = cost_of_.find(pair);
    if (index < 0) {
      if (costs_.size() >= kMostCosts) {
        costs_.clear();
        cost_of_.clear();
      }
      costs_.push_back(links_->cost(src, dst));
      index = static_cast<int32_t>(costs_.size() - 1);
      cost_of_.insert(pair, index);
    }
    return costs_[static_cast<size_t>(index)];
  }

  int32_t endpoints_;
  bool corrected_;
  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> links_;
  std::vector<Recent> recent_;  // per dimension
  FlatMap cost_of_;             // pair of endpoints -> index into costs_
  std::vector<Cost> costs_;
  int64_t transfers_ = 0, bytes_ = 0;
};

}  // namespace

ASTRA_NET_BACKEND(Unaware)
