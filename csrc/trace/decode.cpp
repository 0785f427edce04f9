// SPDX-License-Identifier: MIT
#include "decode.hpp"

#include <iterator>
#include <unordered_map>

#include "wire.hpp"

namespace trace {
namespace {

// Slots of the attributes that a simulation reads (ATTRIBUTES in raw.py); below kIntColumns they
// are those of `ints`.
enum Slot : int { ROOT = 8, IS_CPU_OP = 12, PG_NAME = 13, INVOLVED_DIM = 14, OTHER = -1 };
constexpr std::string_view kInts[kIntColumns] = {
    "comm_type", "comm_size",   "comm_src",  "comm_dst",    "comm_tag", "comm_priority",
    "num_ops",   "tensor_size", "root_rank", "duration_ns", "stream",   "tid",
};

int slot_of(std::string_view name) {
  switch (name.size()) {  // most names differ in length: one comparison instead of fourteen
    case 3:
      return name == kInts[11] ? 11 : OTHER;
    case 6:
      return name == kInts[10] ? 10 : OTHER;
    case 7:
      if (name == "num_ops") return 6;
      return name == "pg_name" ? PG_NAME : OTHER;
    case 8:
      for (int i : {2, 3, 4})
        if (name == kInts[i]) return i;
      return OTHER;
    case 9:
      for (int i : {0, 1, 8})
        if (name == kInts[i]) return i;
      if (name == "comm_root") return ROOT;
      return name == "is_cpu_op" ? IS_CPU_OP : OTHER;
    case 11:
      for (int i : {7, 9})
        if (name == kInts[i]) return i;
      return OTHER;
    case 12:
      return name == "involved_dim" ? INVOLVED_DIM : OTHER;
    case 13:
      return name == kInts[5] ? 5 : OTHER;
    default:
      return OTHER;
  }
}

// Members of AttributeProto's oneof: a scalar and a list of each kind, from field 3 on.
// clang-format off
enum Kind {
    DOUBLE, FLOAT, INT32, INT64, UINT32, UINT64, SINT32, SINT64, FIX32, FIX64, SFIX32, SFIX64,
    BOOL, STRING, BYTES
};
// clang-format on
struct KindInfo {
  const char* name;
  Wire wire;
};
constexpr KindInfo kKinds[] = {
    {"double", FIXED64},  {"float", FIXED32},   {"int32", VARINT},     {"int64", VARINT},
    {"uint32", VARINT},   {"uint64", VARINT},   {"sint32", VARINT},    {"sint64", VARINT},
    {"fixed32", FIXED32}, {"fixed64", FIXED64}, {"sfixed32", FIXED32}, {"sfixed64", FIXED64},
    {"bool", VARINT},     {"string", LEN},      {"bytes", LEN},
};
constexpr uint32_t kFirstField = 3, kLastField = kFirstField + 2 * std::size(kKinds) - 1;
constexpr uint32_t scalar_field(Kind kind) { return kFirstField + 2 * kind; }
constexpr uint32_t kBoolList = scalar_field(BOOL) + 1;

std::string field_name(uint32_t field) {
  const std::string kind = kKinds[(field - kFirstField) / 2].name;
  return kind + ((field - kFirstField) % 2 ? "_list" : "_val");
}

struct Attribute {
  std::string_view name;
  uint32_t field = 0;     // 0: no value
  uint64_t number = 0;    // of a scalar, as it stands in the file
  std::string_view text;  // of string and bytes
  std::string bools;      // of bool_list, a byte each
};

void parse_bools(std::string_view bytes, int depth, std::string& out) {
  if (depth < 0) throw Malformed{};
  Cursor in(bytes, depth);
  while (!in.done()) {
    uint32_t wire;
    const uint32_t field = in.tag(wire);
    if (field == 1 && wire == VARINT) {
      out.push_back(in.varint() != 0);
    } else if (field == 1 && wire == LEN) {
      Cursor packed(in.bytes());
      while (!packed.done()) out.push_back(packed.varint() != 0);
    } else {
      in.skip(field, wire);
    }
  }
}

void parse_attribute(std::string_view bytes, Attribute& out) {
  out.name = {};
  out.field = 0;
  Cursor in(bytes);
  while (!in.done()) {
    uint32_t wire;
    const uint32_t field = in.tag(wire);
    if (field == 1 && wire == LEN) {
      out.name = in.bytes();
      continue;
    }
    if (field < kFirstField || field > kLastField) {
      in.skip(field, wire);
      continue;
    }
    const bool is_list = (field - kFirstField) % 2;
    const Wire wanted = is_list ? LEN : kKinds[(field - kFirstField) / 2].wire;
    if (wire != wanted) {  // protobuf treats it as a field that it does not know
      in.skip(field, wire);
      continue;
    }
    switch (wanted) {
      case VARINT:
        out.number = in.varint();
        break;
      case FIXED64:
        out.number = in.fixed(8);
        break;
      case FIXED32:
        out.number = in.fixed(4);
        break;
      default:
        if (field != kBoolList) {
          out.text = in.bytes();
          break;
        }
        // The same message twice is merged; after another member it starts afresh.
        if (out.field != kBoolList) out.bools.clear();
        parse_bools(in.bytes(), in.depth() - 1, out.bools);
    }
    out.field = field;
  }
}

template <class T>
int64_t unzigzag(T value) {
  return static_cast<int64_t>(
      static_cast<std::make_signed_t<T>>((value >> 1) ^ (~(value & 1) + 1)));
}

// The integer that an attribute holds, whatever its kind.
struct Integer {
  bool valid;        // it is an integer at all
  bool is_unsigned;  // `value` holds a uint64
  int64_t value;
};

Integer integer(const Attribute& a) {
  const uint32_t low = static_cast<uint32_t>(a.number);
  switch (a.field) {
    case scalar_field(INT32):
    case scalar_field(SFIX32):
      return {true, false, static_cast<int32_t>(low)};
    case scalar_field(UINT32):
    case scalar_field(FIX32):
      return {true, false, low};
    case scalar_field(INT64):
    case scalar_field(SFIX64):
      return {true, false, static_cast<int64_t>(a.number)};
    case scalar_field(UINT64):
    case scalar_field(FIX64):
      return {true, true, static_cast<int64_t>(a.number)};
    case scalar_field(SINT32):
      return {true, false, unzigzag(low)};
    case scalar_field(SINT64):
      return {true, false, unzigzag(a.number)};
    default:
      return {false, false, 0};
  }
}

struct Record {
  uint64_t id = 0, duration_micros = 0;
  int32_t type = 0;
  bool has_id = false, has_type = false, has_duration = false;
  std::vector<uint64_t> data_deps, ctrl_deps;
  std::vector<std::string_view> attributes;
};

void parse_record(std::string_view bytes, Record& out) {
  out.id = out.duration_micros = 0;
  out.type = 0;
  out.has_id = out.has_type = out.has_duration = false;
  out.data_deps.clear();
  out.ctrl_deps.clear();
  out.attributes.clear();
  Cursor in(bytes);
  while (!in.done()) {
    uint32_t wire;
    const uint32_t field = in.tag(wire);
    if (field == 1 && wire == VARINT) {
      out.id = in.varint();
      out.has_id = true;
    } else if (field == 3 && wire == VARINT) {
      out.type = static_cast<int32_t>(static_cast<uint32_t>(in.varint()));
      out.has_type = true;
    } else if (field == 7 && wire == VARINT) {
      out.duration_micros = in.varint();
      out.has_duration = true;
    } else if ((field == 4 || field == 5) && (wire == VARINT || wire == LEN)) {
      auto& deps = field == 4 ? out.ctrl_deps : out.data_deps;
      if (wire == VARINT) {
        deps.push_back(in.varint());
      } else {
        Cursor packed(in.bytes());
        while (!packed.done()) deps.push_back(packed.varint());
      }
    } else if (field == 10 && wire == LEN) {
      out.attributes.push_back(in.bytes());
    } else {
      in.skip(field, wire);
    }
  }
}

std::string parse_version(std::string_view bytes) {
  std::string_view version;
  Cursor in(bytes);
  while (!in.done()) {
    uint32_t wire;
    const uint32_t field = in.tag(wire);
    if (field == 1 && wire == LEN)
      version = in.bytes();
    else
      in.skip(field, wire);
  }
  return std::string(version);
}

std::string at_byte(size_t position) { return "byte " + std::to_string(position); }

// Splits the file into records: length prefix, then content.
class Framing {
 public:
  explicit Framing(std::string_view data) : data_(data) {}

  bool done() const { return position_ == data_.size(); }
  size_t position() const { return position_; }

  std::string_view next() {
    uint64_t size = 0;
    size_t at = position_;
    for (int shift = 0;; shift += 7) {
      if (at == data_.size() || shift == 70)
        throw Error{at_byte(position_),
                    "the length of the next record is truncated or longer than 10 bytes"};
      const uint8_t byte = static_cast<uint8_t>(data_[at++]);
      // Bits beyond the 64th make it too long for any file.
      if (shift == 63 && (byte & 0x7E)) size = UINT64_MAX;
      size |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) break;
    }
    const size_t rest = data_.size() - at;
    if (size > rest)
      throw Error{at_byte(position_),
                  "the record that starts here is longer than the rest of the file (" +
                      std::to_string(rest) + " bytes)"};
    position_ = at + static_cast<size_t>(size);
    return data_.substr(at, static_cast<size_t>(size));
  }

 private:
  std::string_view data_;
  size_t position_ = 0;
};

class Decoder {
 public:
  explicit Decoder(Trace& out, size_t n) : t_(out), n_(n) {}

  void store(size_t i, const Record& record) {
    t_.node_id[i] = record.id;
    t_.type[i] = record.type;
    t_.duration_micros[i] = record.duration_micros;
    t_.dep_id.insert(t_.dep_id.end(), record.data_deps.begin(), record.data_deps.end());
    t_.dep_id.insert(t_.dep_id.end(), record.ctrl_deps.begin(), record.ctrl_deps.end());
    t_.data_dep_count[i] = static_cast<int32_t>(record.data_deps.size());
    t_.dep_start[i + 1] = static_cast<int64_t>(t_.dep_id.size());
    uint32_t seen = 0;
    for (std::string_view bytes : record.attributes) {
      parse_attribute(bytes, attribute_);
      const int slot = slot_of(attribute_.name);
      // Of two attributes of one name the first counts, as in ASTRA-sim.
      if (slot == OTHER || seen >> slot & 1) continue;
      seen |= 1u << slot;
      store_attribute(i, record.id, slot);
    }
  }

 private:
  void store_attribute(size_t i, uint64_t node_id, int slot) {
    const Attribute& a = attribute_;
    const auto refuse = [&](const std::string& problem) {
      throw Error{"node " + std::to_string(node_id) + ": " + std::string(a.name), problem};
    };
    const auto refuse_kind = [&](const char* wanted) {
      refuse("a " + field_name(a.field) + " is not allowed here; it takes " + wanted);
    };
    if (a.field == 0) refuse("the attribute has no value");
    if (slot == PG_NAME) {
      if (a.field != scalar_field(STRING)) refuse_kind("a string_val");
      t_.pg_name[i] = intern(strings_, a.text, t_.strings);
      return;
    }
    if (slot == INVOLVED_DIM) {
      if (a.field != kBoolList) refuse_kind("a bool_list");
      t_.involved_dim[i] = intern_bools(a.bools);
      return;
    }
    if (slot == IS_CPU_OP && a.field == scalar_field(BOOL)) {
      t_.is_cpu_op[i] = a.number != 0;
      return;
    }
    const Integer value = integer(a);
    if (!value.valid) refuse_kind("any kind of integer");
    if (slot == IS_CPU_OP) {
      t_.is_cpu_op[i] = value.value != 0;
      return;
    }
    if (value.is_unsigned ? value.value < 0 : value.value == kMissing)
      refuse((value.is_unsigned ? std::to_string(static_cast<uint64_t>(value.value))
                                : std::to_string(value.value)) +
             " is out of range (-2**63 + 1 to 2**63 - 1)");
    std::vector<int64_t>& column = t_.ints[slot];
    if (column.empty()) column.assign(n_, kMissing);
    column[i] = value.value;
  }

  // Views stay valid: they point into the file's bytes.
  int32_t intern(std::unordered_map<std::string_view, int32_t>& known, std::string_view text,
                 std::vector<std::string>& list) {
    const auto [entry, is_new] = known.try_emplace(text, static_cast<int32_t>(list.size()));
    if (is_new) list.emplace_back(text);
    return entry->second;
  }

  int32_t intern_bools(const std::string& bools) {
    const auto [entry, is_new] =
        dims_.try_emplace(bools, static_cast<int32_t>(t_.involved_dims.size()));
    if (is_new) t_.involved_dims.push_back(bools);
    return entry->second;
  }

  Trace& t_;
  size_t n_;
  Attribute attribute_;
  std::unordered_map<std::string_view, int32_t> strings_;
  std::unordered_map<std::string, int32_t> dims_;
};

}  // namespace

Trace decode(std::string_view data) {
  if (data.empty())
    throw Error{at_byte(0), "the file is empty; a trace has at least a GlobalMetadata record"};
  size_t records = 0, empty = 0;
  for (Framing framing(data); !framing.done(); ++records) {
    if (!framing.next().empty() || records == 0) continue;
    // An empty record is node 0.  A file of zeros has as many records as bytes: end before they
    // take memory.
    if (empty > 0)
      throw Error{"node 0", "the id is used twice, by the nodes at positions " +
                                std::to_string(empty - 1) + " and " + std::to_string(records - 1) +
                                "; ids must be unique"};
    empty = records;
  }

  Trace t;
  Framing framing(data);
  Record record;
  try {
    const std::string_view first = framing.next();
    t.version = parse_version(first);
    parse_record(first, record);
  } catch (Malformed) {
    throw Error{at_byte(0), "the first record is not a Chakra GlobalMetadata message"};
  }
  if (record.has_id || record.has_type || record.has_duration)
    throw Error{at_byte(0),
                "the first record is a node; a trace starts with a GlobalMetadata record"};

  const size_t n = records - 1;
  t.record_start.resize(n);
  t.node_id.resize(n);
  t.type.resize(n);
  t.duration_micros.resize(n);
  t.is_cpu_op.resize(n);
  t.pg_name.assign(n, -1);
  t.involved_dim.assign(n, -1);
  t.dep_start.resize(n + 1);
  t.dep_id.reserve(n);
  t.data_dep_count.resize(n);
  Decoder decoder(t, n);
  for (size_t i = 0; i < n; ++i) {
    const size_t position = framing.position();
    t.record_start[i] = static_cast<int64_t>(position);
    try {
      parse_record(framing.next(), record);
      decoder.store(i, record);
    } catch (Malformed) {
      throw Error{at_byte(position), "this record is not a Chakra Node message"};
    }
  }
  t.dep_id.shrink_to_fit();
  return t;
}

}  // namespace trace
