// SPDX-License-Identifier: MIT
//
// Congestion-unaware: every transfer has the network for itself, and takes
// floor(latency of the way + bytes / bandwidth) ns (Won et al., "ASTRA-sim2.0", ISPASS 2023,
// section IV-C).
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core.hpp"
#include "link_list.hpp"
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
                        ASTRA_NET_CAP_INTERRUPT | ASTRA_NET_CAP_SNAPSHOT | ASTRA_NET_CAP_ORDERED |
                        ASTRA_NET_CAP_SAVE | ASTRA_NET_CAP_PEEK | ASTRA_NET_CAP_REDUCTION |
                        ASTRA_NET_CAP_PIECES;
    info.resolution_ps = kPsPerNs;
    info.max_in_flight = INT64_MAX;
    info.traffic_classes = 1;
    return info;
  }

  Unaware(astra_net::Config& config, const astra_net::Log&)
      : recent_(static_cast<size_t>(config.endpoints)) {
    const bool first_only = quirks_of(config).first_dimension_only;
    if (has_dimensions(config))
      dimensions_.emplace(config, first_only);
    else
      links_.emplace(config);
    by_message_ = links_ && links_->by_message();
  }

  [[gnu::always_inline]] void begin(const astra_net_transfer& transfer, int64_t now_ps) {
    ++transfers_;
    astra_net::add_bytes(bytes_, transfer.bytes);
    if (transfer.flags != 0) {
      reduce(transfer, now_ps);
      return;
    }
    Recent& recent = recent_[static_cast<size_t>(transfer.src)];
    if (recent.dst != transfer.dst || recent.bytes != transfer.bytes || by_message_)
      recent = found(transfer);
    shortened_ += recent.shortened;
    schedule(EventKind::kDeliver, now_ps, recent.delay_ns, transfer.id);
  }

  void handle(EventKind, int64_t, int64_t) {}
  static constexpr bool is_large() { return false; }
  void fetch(const Event&, bool) const {}
  void settle(astra_net_exchange&) {}

  template <class A>
  void visit(A& archive) {
    archive(transfers_, bytes_, shortened_, reductions_);
  }

  std::string stats() final {
    return "{\"transfers\": " + std::to_string(transfers_) +
           ", \"bytes\": " + std::to_string(bytes_) +
           (shortened_ == 0
                ? ""
                : ", \"quirks\": {\"first-dimension-only\": " + std::to_string(shortened_) + "}") +
           "}";
  }

 private:
  // The switches begin when the last member has, and all get the result as if it were that
  // member's: data goes up and comes down at the same time.
  [[gnu::noinline]] void reduce(const astra_net_transfer& transfer, int64_t now_ps) {
    auto& parts = reductions_[transfer.reserved];
    parts.emplace_back(transfer.id, found(transfer).delay_ns);
    if (parts.size() < transfer.flags >> 8) return;
    for (const auto& [id, delay_ns] : parts)
      schedule_alike(EventKind::kDeliver, now_ps, delay_ns, id);
    reductions_.erase(transfer.reserved);
  }

  // The last transfer from an endpoint.  Collectives send the same size to the same peer again and
  // again, and finding the way takes longer than all the rest.
  struct Recent {
    int32_t dst = -1;
    int64_t bytes = 0, delay_ns = 0;
    int64_t shortened = 0;  // 1 where it pays for one dimension of several
  };

  [[gnu::noinline]] Recent found(const astra_net_transfer& transfer) {
    Dimensions::Price price{};
    if (dimensions_)
      price = dimensions_->price(transfer.src, transfer.dst);
    else
      price.cost = links_->cost(transfer.src, transfer.dst, transfer.id);
    const double serialisation_ns = static_cast<double>(transfer.bytes) / price.cost.bytes_per_ns;
    return {transfer.dst, transfer.bytes,
            whole_ns(price.cost.latency_ns + serialisation_ns, kArrival), price.shortened};
  }

  std::optional<Dimensions> dimensions_;
  std::optional<LinkList> links_;
  bool by_message_ = false;
  std::vector<Recent> recent_;  // per endpoint
  int64_t transfers_ = 0, bytes_ = 0, shortened_ = 0;
  // Number -> id and delay of the members that have started.
  std::map<int64_t, std::vector<std::pair<int64_t, int64_t>>> reductions_;
};

}  // namespace

ASTRA_NET_BACKEND(Unaware)
