// SPDX-License-Identifier: MIT
#include "capture.h"

#include <algorithm>
#include <cstdint>
#include <ios>

#include "congestion.h"

namespace [[gnu::visibility("hidden")]] astra_ns3 {

namespace {

constexpr uint32_t kEthernet = 1;     // pcap link type
constexpr uint32_t kSnapBytes = 128;  // payloads are zeros: headers suffice
constexpr uint16_t kRocePort = 4791;

// Opcodes of InfiniBand's reliable connection (InfiniBand Architecture, volume 1, table 38), and of
// RoCEv2's congestion notification (annex 17).
enum Opcode : uint8_t {
  kSendFirst = 0,
  kSendMiddle = 1,
  kSendLast = 2,
  kSendOnly = 4,
  kAck = 17,
  kCnp = 129
};

class Writer {
 public:
  explicit Writer(std::vector<uint8_t>* bytes) : bytes_(*bytes) { bytes_.clear(); }
  void Put(uint64_t value, int size) {
    for (int i = size - 1; i >= 0; --i) bytes_.push_back(static_cast<uint8_t>(value >> (8 * i)));
  }
  // Locally administered addresses, made of the node's number.
  void Mac(const Device& device) { Put(0x020000000000ull + static_cast<uint64_t>(device.node), 6); }

 private:
  std::vector<uint8_t>& bytes_;
};

uint32_t Address(const Device& device) {
  const uint32_t id = device.address_id;
  return 0x0b000001u + (id / 256) * 0x10000u + (id % 256) * 0x100u;
}

}  // namespace

Capture::Capture(const std::string& path, const Parameters& parameters) : parameters_(parameters) {
  file_.Open(path, std::ios::out);
  if (!file_.Fail()) file_.Init(kEthernet, kSnapBytes, ns3::PcapFile::ZONE_DEFAULT, false, true);
}

// Of data its own, of an acknowledgement that of the last packet that it covers, of a NACK that of the
// first that is missing.
uint64_t Capture::PacketNumber(const PacketRecord& packet) const {
  const bool covers = packet.kind != PacketKind::kData && packet.kind != PacketKind::kNack;
  const uint64_t byte = covers && packet.seq > 0 ? packet.seq - 1 : packet.seq;
  const Message* message = byte < packet.qp->acked_seq ? nullptr : packet.qp->Find(byte);
  if (message == nullptr) return byte / parameters_.mtu_bytes & 0xffffff;
  return (message->first_packet + (byte - message->begin) / parameters_.mtu_bytes) & 0xffffff;
}

void Capture::Write(const Port& port, const PacketRecord& packet, Tick now) {
  const auto ns = static_cast<uint64_t>(now) * static_cast<uint64_t>(parameters_.tick_ps) / 1000;
  const auto seconds = static_cast<uint32_t>(ns / 1000000000);
  const auto nanoseconds = static_cast<uint32_t>(ns % 1000000000);
  Writer out(&frame_);
  if (packet.qp == nullptr) {  // IEEE 802.1Qbb
    out.Put(0x0180c2000001ull, 6);
    out.Mac(*port.owner);
    out.Put(0x8808, 2);
    out.Put(0x0101, 2);
    out.Put(1u << packet.queue, 2);
    for (uint32_t queue = 0; queue < kQueues; ++queue)
      out.Put(queue == packet.queue && packet.kind == PacketKind::kPause ? 0xffff : 0, 2);
    frame_.resize(60);
    file_.Write(seconds, nanoseconds, frame_.data(), static_cast<uint32_t>(frame_.size()));
    return;
  }
  const QueuePair& qp = *packet.qp;
  const bool data = packet.kind == PacketKind::kData, cnp = packet.kind == PacketKind::kCnp;
  const Fabric& fabric = *port.fabric;
  const Device& source = *fabric.nodes[static_cast<size_t>(data ? qp.src : qp.dst)];
  const Device& destination = *fabric.nodes[static_cast<size_t>(data ? qp.dst : qp.src)];
  const uint32_t payload = data || cnp ? packet.wire_bytes - parameters_.header_bytes : 0;
  const uint32_t padding = (4 - payload % 4) % 4;
  const uint32_t transport = 12 + (data || cnp ? 0 : 4) + payload + padding + 4;  // BTH, AETH, ICRC
  out.Mac(*port.peer->owner);
  out.Mac(*port.owner);
  out.Put(0x0800, 2);
  const size_t ip = frame_.size();
  out.Put(0x45, 1);
  // Priority as DSCP class selector; ECN capable, and congestion experienced once marked.
  out.Put(static_cast<uint32_t>(packet.queue) << 5 | (data ? (packet.marked ? 3u : 2u) : 0u), 1);
  out.Put(20 + 8 + transport, 2);
  out.Put(0, 2);
  out.Put(0x4000, 2);
  out.Put(64, 1);
  out.Put(17, 1);
  out.Put(0, 2);
  out.Put(Address(source), 4);
  out.Put(Address(destination), 4);
  uint32_t sum = 0;
  for (size_t i = ip; i < ip + 20; i += 2)
    sum += static_cast<uint32_t>(frame_[i] << 8 | frame_[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~((sum & 0xffff) + (sum >> 16)) & 0xffff;
  frame_[ip + 10] = static_cast<uint8_t>(sum >> 8);
  frame_[ip + 11] = static_cast<uint8_t>(sum);
  out.Put(qp.source_port | 0xc000u, 2);
  out.Put(kRocePort, 2);
  out.Put(8 + transport, 2);
  out.Put(0, 2);
  // Of a message that is over there is no record, and what comes of it again is a middle one.
  const Message* message = packet.seq < qp.acked_seq ? nullptr : qp.Find(packet.seq);
  const bool first = message != nullptr && packet.seq == message->begin;
  const bool last = message != nullptr && packet.seq + payload >= message->end;
  const uint8_t opcode = cnp             ? kCnp
                         : !data         ? kAck
                         : first && last ? kSendOnly
                         : first         ? kSendFirst
                         : last          ? kSendLast
                                         : kSendMiddle;
  out.Put(opcode, 1);
  out.Put(padding << 4, 1);
  out.Put(0xffff, 2);
  out.Put(cnp || (!data && packet.marked) ? 0x40 : 0, 1);  // BECN: the mark travels back
  out.Put(static_cast<uint64_t>(qp.id) & 0xffffff, 3);
  out.Put(data && packet.wants_ack ? 0x80 : 0, 1);
  out.Put(PacketNumber(packet), 3);
  if (!data && !cnp) {
    out.Put(packet.kind == PacketKind::kNack ? 0x60 : 0x1f, 1);  // PSN sequence error, or ACK
    out.Put(PacketNumber(packet), 3);
  }
  const auto whole = static_cast<uint32_t>(frame_.size()) + payload + padding + 4;
  frame_.resize(std::max<size_t>(whole, kSnapBytes));  // Write() takes the first kSnapBytes of it
  file_.Write(seconds, nanoseconds, frame_.data(), whole);
}

}  // namespace astra_ns3
