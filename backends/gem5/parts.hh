// SPDX-License-Identifier: MIT
//
// What we derive from gem5's classes: a message of any size, a link with a rate, an end that hears
// of deliveries at once, and a network that says what these need.  Nothing in gem5 is changed.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "mem/ruby/common/Consumer.hh"
#include "mem/ruby/common/NetDest.hh"
#include "mem/ruby/network/MessageBuffer.hh"
#include "mem/ruby/network/garnet/CreditLink.hh"
#include "mem/ruby/network/garnet/GarnetLink.hh"
#include "mem/ruby/network/garnet/GarnetNetwork.hh"
#include "mem/ruby/network/garnet/NetworkInterface.hh"
#include "mem/ruby/network/garnet/NetworkLink.hh"
#include "mem/ruby/network/garnet/Router.hh"
#include "mem/ruby/network/garnet/flit.hh"
#include "mem/ruby/protocol/L1Cache_Controller.hh"
#include "mem/ruby/slicc_interface/Message.hh"
#include "network.hpp"

namespace garnet {

namespace ruby = gem5::ruby;
namespace g5 = gem5::ruby::garnet;

// A message of the host, and how far it is.
struct Transfer {
  Message message;
  int64_t bytes_left = 0;  // not yet handed to gem5
  int64_t open_packets = 0;
  int64_t first_pick = -1, packets = 0, flits = 0, queueing = 0, network = 0, hops = 0;
};

// gem5's network, with its tables and sizes open to us.
class Fabric final : public g5::GarnetNetwork {
 public:
  // Nodes that are reached over a link between routers; empty: as gem5's own table says.
  using Reached = std::unordered_map<const ruby::BasicLink*, ruby::NetDest>;

  Fabric(const Params& params, Reached reached)
      : GarnetNetwork(params), reached_(std::move(reached)) {}

  // gem5 knows two sizes of messages, and asks for a message's kind right before its size.
  void announce(uint32_t bytes) { m_data_msg_size = bytes; }

  void makeInternalLink(ruby::SwitchID src, ruby::SwitchID dst, ruby::BasicLink* link,
                        std::vector<ruby::NetDest>& table, ruby::PortDirection src_port,
                        ruby::PortDirection dst_port) override {
    const auto found = reached_.find(link);
    if (found != reached_.end()) table.assign(table.size(), found->second);
    GarnetNetwork::makeInternalLink(src, dst, link, table, src_port, dst_port);
  }

 private:
  Reached reached_;
};

class Packet final : public ruby::Message {
 public:
  using Picked = std::function<void(Packet&)>;

  Packet(gem5::Tick enqueued, std::shared_ptr<Transfer> transfer, uint32_t bytes, int32_t flits,
         Fabric& fabric, const ruby::NetDest& to, const Picked& picked)
#ifdef GEM5_MESSAGE_TAKES_BLOCK_SIZE
      : Message(enqueued, 64),
#else
      : Message(enqueued),
#endif
        transfer(std::move(transfer)),
        fabric_(&fabric),
        to_(to),
        picked_(&picked),
        bytes_(bytes) {
    record.id = this->transfer->message.id;
    record.flits = flits;
  }

  // The interface clones the message that it has found a VC for; flits carry the clone.
  ruby::MsgPtr clone() const override {
    auto copy = std::make_shared<Packet>(*this);
    (*picked_)(*copy);
    return copy;
  }
  const ruby::MessageSizeType& getMessageSize() const override {
    fabric_->announce(bytes_);
    return kind_;
  }
  ruby::MessageSizeType& getMessageSize() override {
    fabric_->announce(bytes_);
    return kind_;
  }
  const ruby::NetDest& getDestination() const override { return to_; }
  ruby::NetDest& getDestination() override { return to_; }
  void print(std::ostream& out) const override { out << "packet of transfer " << record.id; }

  std::shared_ptr<Transfer> transfer;
  PacketRecord record{};

 private:
  Fabric* fabric_;
  ruby::NetDest to_;
  const Picked* picked_;
  uint32_t bytes_;
  ruby::MessageSizeType kind_ = ruby::MessageSizeType_Data;
};

// A link that a flit takes a while to cross, one after another; and one at an interface, which sees
// the flits that the interface sends and gets.
class Link final : public g5::NetworkLink {
 public:
  enum class At { kSource, kEnd, kBetween };

  Link(const Params& params, At at, double cycles_per_flit)
      : NetworkLink(params),
        at_(at),
        latency_(params.link_latency),
        busy_(static_cast<int64_t>(std::ceil(std::ldexp(cycles_per_flit, kFraction)))) {}

  void wakeup() override {
    if (link_srcQueue->isReady(gem5::curTick())) {
      g5::flit* flit = link_srcQueue->peekTopFlit();
      const auto now = static_cast<int64_t>(gem5::curTick() / clockPeriod());
      // Its sender wrote it for this cycle.
      const auto ready = static_cast<int64_t>(flit->get_time() / clockPeriod());
      if (leaves_ < 0) {
        if (free_at_ < ready) {
          free_at_ = ready;
          free_part_ = 0;
        }
        const int64_t part = free_part_ + busy_;
        free_at_ += part >> kFraction;
        free_part_ = part & ((1 << kFraction) - 1);
        leaves_ = free_at_ - (free_part_ == 0);
      }
      if (now < leaves_) {
        scheduleEvent(gem5::Cycles(static_cast<uint64_t>(leaves_ - now)));
        return;
      }
      leaves_ = -1;
      if (at_ != At::kBetween) see(*flit, ready, now);
    }
    NetworkLink::wakeup();
  }

 private:
  static constexpr int kFraction = 16;  // bits after the point

  void see(g5::flit& flit, int64_t ready, int64_t now) const {
    PacketRecord& record = static_cast<Packet*>(flit.get_msg_ptr().get())->record;
    const bool head = flit.get_type() == g5::HEAD_ || flit.get_type() == g5::HEAD_TAIL_;
    const bool tail = flit.get_type() == g5::TAIL_ || flit.get_type() == g5::HEAD_TAIL_;
    if (at_ == At::kSource) {
      if (head) record.head_send = ready - 1;
      if (tail) record.tail_send = ready - 1;
      record.src_vc = flit.get_vc();
    } else {
      if (head) record.head_recv = now + static_cast<int64_t>(latency_);
      record.dst_vc = flit.get_vc();
      record.hops = flit.get_route().hops_traversed;
    }
  }

  At at_;
  gem5::Cycles latency_;
  int64_t busy_;  // cycles per flit << kFraction
  int64_t free_at_ = 0, free_part_ = 0;  // cycle, plus free_part_ >> kFraction
  int64_t leaves_ = -1;  // cycle in which the first waiting flit has crossed; -1: it has not begun
};

// The link of an interface's credits.  An interface stamps a credit with the present cycle and means
// the next.  Where the link wakes in this cycle anyway, and gem5 happens to run it after the interface,
// it would take the credit along a cycle early.
class Credits final : public g5::CreditLink {
 public:
  using CreditLink::CreditLink;
  void wakeup() override {
    if (!link_srcQueue->isEmpty() && link_srcQueue->peekTopFlit()->get_time() == gem5::curTick())
      scheduleEvent(gem5::Cycles(1));
    else
      CreditLink::wakeup();
  }
};

// The controller of a node, of which only the number counts, and the queues that it is given.
class Controller final : public ruby::L1Cache_Controller {
 public:
  using L1Cache_Controller::L1Cache_Controller;
  void initNetQueues() override { attach(*m_net_ptr); }
  void wakeup() override {}
  std::function<void(ruby::Network&)> attach;
};

// A buffer says that it gives its consumer something while it still does: earlier than the consumer
// may take it, which is a cycle later.
class Receiver final : public ruby::Consumer {
 public:
  using Heard = std::function<void(size_t)>;

  Receiver(gem5::ClockedObject* clocked, Heard heard)
      : Consumer(clocked), heard_(std::move(heard)) {}
  void storeEventInfo(int buffer) override { heard_(static_cast<size_t>(buffer)); }
  void wakeup() override {}
  void print(std::ostream& out) const override { out << "receiver"; }

 private:
  Heard heard_;
};

}  // namespace garnet
