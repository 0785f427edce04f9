// SPDX-License-Identifier: MIT
//
// Messages: sends meet receives here, above the network contract.
#include "engine.hpp"

#include <algorithm>

#include "failure.hpp"

namespace engine {

namespace {

constexpr int64_t kMostMessages = INT32_MAX;
constexpr int64_t kControl = int64_t{1} << 62;  // added to a tag: the rendezvous control message

uint32_t channel_hash(int64_t tag, int32_t src, int32_t dst, int64_t bytes) {
  uint64_t h = static_cast<uint64_t>(tag) * 0x9E3779B97F4A7C15u;
  h ^= (static_cast<uint64_t>(static_cast<uint32_t>(src)) << 32) | static_cast<uint32_t>(dst);
  h *= 0xD6E8FEB86659FD93u;
  h ^= h >> 32;
  h += static_cast<uint64_t>(bytes);
  h *= 0x9E3779B97F4A7C15u;
  return static_cast<uint32_t>(h >> 32);
}

}  // namespace

int32_t Engine::open_channel(int64_t tag, int32_t src, int32_t dst, int64_t bytes) {
  if (folding_) folding_.turn(src, dst);
  const uint32_t hash = channel_hash(tag, src, dst, bytes);
  size_t mask = channel_table_.size() - 1;
  size_t i = hash & mask;
  for (; channel_table_[i].second >= 0; i = (i + 1) & mask) {
    if (channel_table_[i].first != hash) continue;
    const Channel& found = channels_[static_cast<size_t>(channel_table_[i].second)];
    if (found.tag == tag && found.src == src && found.dst == dst && found.bytes == bytes)
      return channel_table_[i].second;
  }
  if (2 * (channel_count_ + 1) > channel_table_.size()) {
    std::vector<std::pair<uint32_t, int32_t>> old(channel_table_.size() * 2, {0, -1});
    old.swap(channel_table_);
    mask = channel_table_.size() - 1;
    for (const auto& entry : old) {
      if (entry.second < 0) continue;
      size_t j = entry.first & mask;
      while (channel_table_[j].second >= 0) j = (j + 1) & mask;
      channel_table_[j] = entry;
    }
    i = hash & mask;
    while (channel_table_[i].second >= 0) i = (i + 1) & mask;
  }
  int32_t index;
  if (free_channels_.empty()) {
    index = static_cast<int32_t>(channels_.size());
    channels_.emplace_back();
  } else {
    index = free_channels_.back();
    free_channels_.pop_back();
  }
  Channel& channel = channels_[static_cast<size_t>(index)];
  channel = {tag, bytes, src, dst};
  channel_table_[i] = {hash, index};
  ++channel_count_;
  return index;
}

// A channel that nobody remembers and nothing waits in is forgotten: an all-to-all among thousands
// of ranks opens millions.
void Engine::close_channel(int32_t index) {
  const Channel& channel = channels_[static_cast<size_t>(index)];
  const uint32_t hash = channel_hash(channel.tag, channel.src, channel.dst, channel.bytes);
  const size_t mask = channel_table_.size() - 1;
  size_t hole = hash & mask;
  while (channel_table_[hole].second != index) hole = (hole + 1) & mask;
  for (size_t i = (hole + 1) & mask; channel_table_[i].second >= 0; i = (i + 1) & mask) {
    if (((i - (channel_table_[i].first & mask)) & mask) >= ((i - hole) & mask)) {
      channel_table_[hole] = channel_table_[i];
      hole = i;
    }
  }
  channel_table_[hole] = {0, -1};
  --channel_count_;
  free_channels_.push_back(index);
}

void Engine::leave_channel(int32_t& index) {
  if (index < 0) return;
  Channel& channel = channels_[static_cast<size_t>(index)];
  if (--channel.users == 0 && channel.last < 0) close_channel(index);
  index = -1;
}

int32_t Engine::add_message() {
  if (static_cast<int64_t>(messages_.size()) == kMostMessages)
    give_up("more than %lld messages are in flight or wait at once",
            static_cast<long long>(kMostMessages));
  messages_.emplace_back();
  const auto index = static_cast<int32_t>(messages_.size()) - 1;
  widen_ids(2 * int64_t{index});
  return index;
}

int32_t Engine::new_message(int32_t channel) {
  int32_t index;
  if (!free_messages_.empty()) {
    index = free_messages_.back();
    free_messages_.pop_back();
    messages_[static_cast<size_t>(index)] = Message{};
    const size_t left = free_messages_.size();
    if (left > 4) __builtin_prefetch(&messages_[static_cast<size_t>(free_messages_[left - 4])], 1);
  } else {
    index = add_message();
  }
  messages_[static_cast<size_t>(index)].channel = channel;
  // A message keeps its channel open until it is complete.
  ++channels_[static_cast<size_t>(channel)].users;
  return index;
}

// Complete on both sides: the message may be used again, and its channel closed.
void Engine::release(int32_t index) {
  Message& message = messages_[static_cast<size_t>(index)];
  leave_channel(message.channel);
  free_messages_.push_back(index);
}

// A new message that is the last to wait.
void Engine::wait_in(Channel& channel, int32_t index, int32_t collective, int32_t node) {
  Message& message = messages_[static_cast<size_t>(index)];
  message.collective = collective;
  message.node = node;
  message.next = index;
  if (channel.last >= 0) std::swap(message.next, messages_[static_cast<size_t>(channel.last)].next);
  channel.last = index;
}

int32_t Engine::take_first(Channel& channel) {
  Message& last = messages_[static_cast<size_t>(channel.last)];
  const int32_t first = last.next;
  if (first == channel.last)
    channel.last = -1;
  else
    last.next = messages_[static_cast<size_t>(first)].next;
  return first;
}

void Engine::send_on(int32_t channel_index, Action then, int32_t collective, int32_t node,
                     uint16_t level) {
  Channel& channel = channels_[static_cast<size_t>(channel_index)];
  int32_t index;
  if (channel.last >= 0 && messages_[static_cast<size_t>(channel.last)].received) {
    index = take_first(channel);
  } else {
    index = new_message(channel_index);
    wait_in(channel, index, collective, node);
  }
  Message& message = messages_[static_cast<size_t>(index)];
  message.on_sent = then;
  message.id = start_transfer(2 * int64_t{index}, channel.src, channel.dst, channel.bytes, level);
  message.start_ps = now_ps_;
  if (keeps_deliveries_) note_sent(index);
}

void Engine::widen_ids(int64_t ticket) {
  while (ticket > ticket_mask_) ticket_mask_ = 2 * ticket_mask_ + 1;
}

// The id of a transfer that starts now.
[[gnu::always_inline]] inline int64_t Engine::start_transfer(int64_t ticket, int32_t src,
                                                             int32_t dst, int64_t bytes,
                                                             uint16_t level) {
  if (pieces_ && starts_.size() == kPiece) hand_over();
  // The least id that is free and ends in the ticket.
  int64_t id = (place_ & ~ticket_mask_) | ticket;
  if (id < place_) id += ticket_mask_ + 1;
  if (id > kMostPlace - kMostDrawn)
    give_up("after %lld transfers there is no number left for another",
            static_cast<long long>(transfers_));
  place_ = id + ASTRA_NET_PLACES_PER_TRANSFER;
  // Field by field, in place: a record that is built elsewhere in pieces and copied whole makes the
  // processor wait for the pieces, which took a tenth of a whole run.
  starts_.emplace_back();
  astra_net_transfer& transfer = starts_.back();
  transfer.id = id;
  transfer.start_ps = now_ps_;
  transfer.bytes = bytes;
  transfer.src = src;
  transfer.dst = dst;
  transfer.traffic_class = level;
  ++transfers_;
  ++in_flight_;
  first_start_ = std::min(first_start_, id);
  return id;
}

void Engine::note_held(int32_t index) {
  const size_t at = static_cast<size_t>(index);
  if (at >= owner_of_rendezvous_.size()) owner_of_rendezvous_.resize(at + 1);
  owner_of_rendezvous_[at] = owner_;
}

void Engine::note_sent(int32_t index) {
  const size_t at = static_cast<size_t>(index);
  Message& message = messages_[at];
  const Channel& channel = channels_[static_cast<size_t>(message.channel)];
  if (at >= delivery_of_message_.size()) {
    delivery_of_message_.resize(messages_.size());
    receiver_of_message_.resize(messages_.size());
  }
  delivery_of_message_[at] = static_cast<int64_t>(deliveries.size());
  Delivery delivery{};
  delivery.start_ps = now_ps_;
  delivery.end_ps = -1;
  delivery.bytes = channel.bytes;
  delivery.sender = owner_;
  delivery.receiver = message.received ? receiver_of_message_[at] : -1;
  delivery.src = channel.src;
  delivery.dst = channel.dst;
  delivery.control = (channel.tag & kControl) != 0 ? 1 : 0;
  deliveries.push_back(delivery);
}

void Engine::note_receive(int32_t index) {
  const size_t at = static_cast<size_t>(index);
  if (at >= receiver_of_message_.size()) {
    delivery_of_message_.resize(messages_.size());
    receiver_of_message_.resize(messages_.size());
  }
  receiver_of_message_[at] = owner_;
  const Message& message = messages_[at];
  if (message.id >= 0 || message.arrived)
    deliveries[static_cast<size_t>(delivery_of_message_[at])].receiver = owner_;
}

void Engine::receive_on(int32_t channel_index, Action then, int32_t collective, int32_t node) {
  Channel& channel = channels_[static_cast<size_t>(channel_index)];
  const bool sent = channel.last >= 0 && !messages_[static_cast<size_t>(channel.last)].received;
  const int32_t index = sent ? take_first(channel) : new_message(channel_index);
  Message& message = messages_[static_cast<size_t>(index)];
  message.received = true;
  message.on_received = then;
  if (keeps_deliveries_) note_receive(index);
  if (!sent) wait_in(channel, index, collective, node);
  if (!message.arrived) return;
  release(index);
  receive_early(then);
}

void Engine::receive_early(Action then) {
  // It came first: the receive completes now, after all that is already due now; or inside its post,
  // where a packet that has a bus to cross cannot end the stream whose step this is.
  if (program_.receives_at_once && then.then == Then::kArrived &&
      streams_[then.b].bus != Bus::kNone) {
    arrived(streams_[then.b]);
    return;
  }
  if (then.then != Then::kNothing) queue_.push_alone(now_ps_, place_, then);
}

void Engine::send(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Action then,
                  int32_t collective, int32_t node, uint16_t level) {
  if (program_.rendezvous_bytes == 0) {
    send_on(open_channel(tag, address(rank), peer, bytes), then, collective, node, level);
    return;
  }
  const int32_t go = rendezvous_.take();
  rendezvous_[go] = {bytes, tag, then, rank, peer, collective, node, true, level};
  if (keeps_deliveries_) note_held(go);
  receive_on(open_channel(tag | kControl, peer, address(rank), program_.rendezvous_bytes),
             {Then::kRendezvous, 0, go}, collective, node);
}

void Engine::receive(int32_t rank, int32_t peer, int64_t bytes, int64_t tag, Action then,
                     int32_t collective, int32_t node, uint16_t level) {
  if (program_.rendezvous_bytes == 0) {
    receive_on(open_channel(tag, peer, address(rank), bytes), then, collective, node);
    return;
  }
  const int32_t go = rendezvous_.take();
  rendezvous_[go] = {bytes, tag, then, rank, peer, collective, node, false, level};
  if (keeps_deliveries_) note_held(go);
  send_on(open_channel(tag | kControl, address(rank), peer, program_.rendezvous_bytes),
          {Then::kRendezvous, 0, go}, collective, node, level);
}

// The control message is complete: now the message itself.
void Engine::meet(int32_t index) {
  const Rendezvous held = rendezvous_[index];
  rendezvous_.give_back(index);
  if (keeps_deliveries_) owner_ = owner_of_rendezvous_[static_cast<size_t>(index)];
  if (held.sends)
    send_on(open_channel(held.tag, address(held.rank), held.peer, held.bytes), held.then,
            held.collective, held.node, held.level);
  else
    receive_on(open_channel(held.tag, held.peer, address(held.rank), held.bytes), held.then,
               held.collective, held.node);
}

std::vector<Wait> Engine::waits() const {
  std::vector<Wait> result;
  for (const Message& message : messages_) {
    if (message.channel < 0) continue;
    const Channel& channel = channels_[static_cast<size_t>(message.channel)];
    if (message.id >= 0)
      result.push_back({channel.src, channel.dst, channel.bytes, message.node, message.collective,
                        WaitFor::kInFlight});
    else if (message.arrived)
      result.push_back({channel.src, channel.dst, channel.bytes, message.node, message.collective,
                        WaitFor::kUnreceived});
    else
      result.push_back({channel.dst, channel.src, channel.bytes, message.node, message.collective,
                        WaitFor::kReceive});
  }
  wait_for_numbered(result);
  return result;
}

// Messages that meet by number

void Engine::join_meeting(Stream& stream, Chunk& chunk, const Phase& phase) {
  const int32_t index = numberings_.of(program_, chunk.phases[chunk.next_phase - 1].phase);
  if (index == Numberings::kNone) return;
  const Numbering& numbering = numberings_[index];
  const Group& group = program_.groups[phase.layout];
  const int32_t first = chunk.members != nullptr ? chunk.members[0] : chunk.base;
  const Meeting::Key key{chunk.tag, index, static_cast<int32_t>(chunk.next_phase), first,
                         group.stride};
  const auto [found, fresh] = meeting_of_.try_emplace(key, -1);
  if (fresh) {
    found->second = meetings_.take();
    Meeting& made = meetings_[found->second];
    made = {};
    made.key = key;
    made.numbering = index;
    made.collective = stream.collective;
    made.to_come = chunk.size;
    made.streams.assign(static_cast<size_t>(chunk.size), -1);
    for (int32_t i = 0; i < chunk.size; ++i)
      made.ranks.push_back(peer_of(chunk, Peers::kRelative, i - chunk.position));
    made.first = words_.take(numbering.words(chunk.size), found->second);
    widen_ids(2 * static_cast<int64_t>(words_.size()) + 1);
  }
  stream.sends = {Remembered::kMeets, found->second};
  meetings_[found->second].streams[static_cast<size_t>(chunk.position)] = stream.self;
}

// A member has done all that it has to do.
void Engine::leave_meeting(Stream& stream) {
  if (stream.sends.channel != Remembered::kMeets) return;
  const int32_t index = stream.sends.step;
  stream.sends = {};
  Meeting& meeting = meetings_[index];
  meeting.streams[static_cast<size_t>(chunk_of(stream).position)] = -1;
  --meeting.to_come;
  close_if_over(index);
}

void Engine::close_if_over(int32_t index) {
  Meeting& meeting = meetings_[index];
  if (meeting.to_come > 0 || meeting.open > 0) return;
  const auto size = static_cast<int32_t>(meeting.ranks.size());
  words_.give_back(meeting.first, numberings_[meeting.numbering].words(size));
  meeting_of_.erase(meeting.key);
  meeting = {};
  meetings_.give_back(index);
}

void Engine::send_numbered(Meeting& meeting, const Numbering& numbering, const Stream& stream,
                           int32_t position, int32_t number) {
  const auto size = static_cast<int32_t>(meeting.ranks.size());
  const int64_t word = meeting.first + numbering.word(position, number, size);
  const int32_t to = numbering.receiver(position, number, size);
  words_[word] = start_transfer(2 * word + 1, stream.rank, meeting.ranks[static_cast<size_t>(to)],
                                numbering.bytes[static_cast<size_t>(number)], stream.level);
  ++meeting.open;
}

void Engine::receive_numbered(Meeting& meeting, const Numbering& numbering, Stream& stream,
                              int32_t position, int32_t number) {
  if (meeting.early == 0) return;
  const auto size = static_cast<int32_t>(meeting.ranks.size());
  const int32_t from = numbering.sender(position, number, size);
  int64_t& word = words_[meeting.first + numbering.word(from, number, size)];
  if (word != MessageWords::kArrived) return;
  word = MessageWords::kReceived;
  --meeting.early;
  --meeting.open;
  receive_early({Then::kArrived, 0, stream.self});
}

Engine::Numbered Engine::numbered(int64_t index) const {
  Numbered found{};
  found.meeting = words_.owner(index);
  const Meeting& meeting = meetings_[found.meeting];
  const Numbering& numbering = numberings_[meeting.numbering];
  const auto size = static_cast<int32_t>(meeting.ranks.size());
  const Numbering::Message message = numbering.message(index - meeting.first, size);
  found.sender = message.sender;
  found.number = message.number;
  found.receiver = numbering.receiver(message.sender, message.number, size);
  return found;
}

// A transfer has arrived: its receiver goes on, if it has posted the receive.
void Engine::complete_numbered(int64_t index) {
  const Numbered found = numbered(index);
  Meeting& meeting = meetings_[found.meeting];
  const int32_t self = meeting.streams[static_cast<size_t>(found.receiver)];
  if (self < 0 || !has_posted(meeting, streams_[self], found.number)) {
    words_[index] = MessageWords::kArrived;
    ++meeting.early;
    return;
  }
  words_[index] = MessageWords::kReceived;
  --meeting.open;
  arrived(streams_[self]);
}

bool Engine::has_posted(const Meeting& meeting, const Stream& stream, int32_t number) const {
  const auto schedule = static_cast<int32_t>(stream.schedule - &program_.schedules[0]);
  const Numbering::Part& part = numberings_[meeting.numbering].part(schedule);
  return stream.step > part.received_at[static_cast<size_t>(number)];
}

void Engine::fetch_numbered(int64_t index, bool near) const {
  if (!words_.has(index)) return;
  if (!near) {
    words_.fetch(index);
    return;
  }
  const Numbered found = numbered(index);
  const int32_t self = meetings_[found.meeting].streams[static_cast<size_t>(found.receiver)];
  if (self >= 0) __builtin_prefetch(&streams_[self], 1);
}

void Engine::wait_for_numbered(std::vector<Wait>& waits) const {
  for (const auto& [key, index] : meeting_of_) {
    const Meeting& meeting = meetings_[index];
    const Numbering& numbering = numberings_[meeting.numbering];
    const auto size = static_cast<int32_t>(meeting.ranks.size());
    for (int64_t i = 0; i < numbering.words(size); ++i) {
      const auto sender = static_cast<int32_t>(i / numbering.row());
      const auto number = static_cast<int32_t>(i % numbering.row());
      const int64_t at = meeting.first + numbering.word(sender, number, size);
      const int64_t word = words_[at];
      const Numbered found = numbered(at);
      const int32_t src = meeting.ranks[static_cast<size_t>(found.sender)];
      const int32_t dst = meeting.ranks[static_cast<size_t>(found.receiver)];
      const int64_t bytes = numbering.bytes[static_cast<size_t>(found.number)];
      if (word >= 0) {
        waits.push_back({src, dst, bytes, -1, meeting.collective, WaitFor::kInFlight});
      } else if (word == MessageWords::kArrived) {
        waits.push_back({src, dst, bytes, -1, meeting.collective, WaitFor::kUnreceived});
      } else if (word == MessageWords::kUnsent) {
        const int32_t self = meeting.streams[static_cast<size_t>(found.receiver)];
        if (self >= 0 && has_posted(meeting, streams_[self], found.number))
          waits.push_back({dst, src, bytes, -1, meeting.collective, WaitFor::kReceive});
      }
    }
  }
}

}  // namespace engine
