// SPDX-License-Identifier: MIT
#include "rdma.h"

#include "tables.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

Rdma::Rdma(const Site& site, const Parameters& parameters)
    : Transport(site),
      flow_table_(parameters.flow_table),
      sample_interval_(parameters.sample_interval),
      load_(parameters.sample_interval * site.tick_ps) {
  // A forwarding endpoint's switch is it, but for the cable in between.
  for (uint32_t link = 0; link < site.config.links.size(); ++link) {
    const auto end = [&](int32_t node) {
      return link < site.own_links && node >= site.stand_in ? node - site.stand_in : node;
    };
    ends_.emplace_back(end(site.config.links[link].src), end(site.config.links[link].dst));
  }
}

void Rdma::SampleFromNowOn() {
  if (sample_interval_ == 0 || sampling_) return;
  sampling_ = true;
  SampleLater();
}

// At the next multiple of the interval.
void Rdma::SampleLater() {
  simulator_->After(sample_interval_ - simulator_->NowTick() % sample_interval_, this, 0);
}

void Rdma::Fire(uint32_t, uint64_t) {
  const Tick now = simulator_->NowTick();
  for (size_t link = 0; link < Links(); ++link) {
    const LinkState state = Link(link);
    if (state.waiting_bytes > 0 || state.bytes > 0)
      samples_.push_back({now, static_cast<uint32_t>(link), state.waiting_bytes, state.bytes});
  }
  sampling_ = InFlight() > 0;
  if (sampling_) SampleLater();
}

std::string Rdma::Statistics() const {
  uint64_t drops = 0, lost = 0, marks = 0, pauses = 0;
  JsonTable links("links", {"link", "src", "dst", "bytes", "busy_ps", "packets", "drops", "lost",
                            "ecn_marks", "pauses_sent", "max_queue_bytes", "mean_queue_bytes"});
  std::vector<std::pair<int64_t, size_t>> counted;
  for (size_t link = 0; link < Links(); ++link) {
    const LinkState state = Link(link);
    drops += state.drops;
    lost += state.lost;
    marks += state.marks;
    pauses += state.pauses;
    const auto number = static_cast<int64_t>(link);
    links.Add({number, ends_[link].first, ends_[link].second, static_cast<int64_t>(state.bytes),
               state.busy_ps, static_cast<int64_t>(state.packets),
               static_cast<int64_t>(state.drops), static_cast<int64_t>(state.lost),
               static_cast<int64_t>(state.marks), static_cast<int64_t>(state.pauses),
               state.max_queue_bytes, state.mean_queue_bytes});
    counted.emplace_back(number, link);
  }
  JsonTable flows("flows", {"id", "src", "dst", "bytes", "start_ps", "fct_ps", "ideal_fct_ps",
                            "retransmitted_bytes"});
  for (const Flow& flow : flows_)
    flows.Add({flow.id, flow.src, flow.dst, flow.bytes, flow.start_ps, flow.fct_ps,
               flow.ideal_fct_ps, flow.retransmitted_bytes});
  JsonTable pfc("pfc", {"time_ps", "link", "priority", "pause"});
  for (const PauseEvent& pause : Pauses())
    pfc.Add({pause.time * tick_ps_, pause.link, pause.queue, pause.pause ? 1 : 0});
  JsonTable queues("queues", {"time_ps", "link", "queue_bytes", "tx_bytes"});
  for (const QueueSample& sample : samples_)
    queues.Add({sample.time * tick_ps_, sample.link, sample.queue_bytes,
                static_cast<int64_t>(sample.tx_bytes)});
  const Counts counts = Count();
  std::vector<std::pair<const char*, uint64_t>> numbers = {
      {"packet_hops", counts.packet_hops},
      {"data_packets", counts.data_packets},
      {"events", simulator_->EventsRun()},
      {"ecn_marks", marks},
      {"drops", drops},
      {"lost", lost},
      {"pfc_pauses", pauses},
      {"pfc_resumes", counts.resumes},
      {"retransmissions", counts.retransmissions},
      {"timeouts", counts.timeouts},
      {"pfc_rows_left_out", pauses + counts.resumes - Pauses().size()}};
  numbers.insert(numbers.end(), counts.more.begin(), counts.more.end());
  std::string text = "{";
  for (const auto& [name, value] : numbers)
    text.append("\"").append(name).append("\": ").append(std::to_string(value)).append(", ");
  text.append(load_.interval_json()).append("\"tables\": {").append(links.Text());
  text.append(", ").append(flows.Text()).append(", ").append(pfc.Text());
  if (sample_interval_ > 0) text.append(", ").append(queues.Text());
  return text.append(load_.table_json(counted)).append("}}");
}

}  // namespace astra_ns3
