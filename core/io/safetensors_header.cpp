#include "core/io/safetensors_header.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/json.h"

namespace bireme {

namespace {

struct StoredType {
  std::string_view name;
  int bits;
  std::optional<DType> type;  // in memory; none where no tensor type here can hold it
};

constexpr StoredType kStoredTypes[] = {
    {"F32", 32, DType::f32},      {"BF16", 16, DType::bf16},    {"F16", 16, DType::f32},
    {"F64", 64, DType::f64},      {"I64", 64, DType::i64},      {"I32", 32, DType::i32},
    {"U8", 8, DType::u8},         {"BOOL", 8, std::nullopt},    {"I8", 8, std::nullopt},
    {"I16", 16, std::nullopt},    {"U16", 16, std::nullopt},    {"U32", 32, std::nullopt},
    {"U64", 64, std::nullopt},    {"C64", 64, std::nullopt},    {"F8_E5M2", 8, std::nullopt},
    {"F8_E4M3", 8, std::nullopt}, {"F8_E8M0", 8, std::nullopt}, {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt}, {"F4", 4, std::nullopt},
};

const StoredType* find_stored_type(std::string_view name) {
  const auto* const found = std::ranges::find(kStoredTypes, name, &StoredType::name);
  return found == std::end(kStoredTypes) ? nullptr : found;
}

[[noreturn]] void refuse(const std::string& problem, const std::string& file) {
  throw Error(ErrorKind::checkpoint, "not a valid safetensors file: " + problem, file,
              "the file is torn or was not written by a safetensors writer; copy or make it again");
}

/// Receives the header piece by piece, so that duplicate keys are seen and nothing unexpected is ever stored.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(std::size_t) override {
    if (depth_ >= 2) check_ignored();
    enter();
    if (depth_ == 2) entry_ = {};
    return true;
  }

  bool key(std::string& name) override {
    if (depth_ == 1) begin_entry(name);
    if (depth_ == 2) begin_field(name);
    return true;
  }

  bool end_object() override {
    if (depth_-- == 2 && !in_metadata_) end_entry();
    return true;
  }

  bool start_array(std::size_t) override {
    const bool is_list = depth_ == 2 && !in_metadata_ && (field_ == Field::shape || field_ == Field::offsets);
    if (!is_list) check_ignored();
    enter();
    return true;
  }

  bool end_array() override {
    --depth_;
    return true;
  }

  bool string(std::string& value) override {
    if (in_metadata_ && depth_ == 2) {
      header_.metadata[key_] = value;
    } else if (depth_ == 2 && field_ == Field::type) {
      entry_.type = find_stored_type(value);
      if (entry_.type == nullptr)
        refuse(fmt::format("tensor {} has the unknown type {}", shown_name(name_), shown_name(value)), file_);
    } else {
      check_ignored();
    }
    return true;
  }

  bool number_unsigned(std::uint64_t value) override {
    if (depth_ == 3 && !in_metadata_ && field_ != Field::other) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) refuse_value();
      std::vector<std::int64_t>& list = field_ == Field::shape ? entry_.shape : entry_.offsets;
      if (list.size() > static_cast<std::size_t>(Shape::kMaxRank)) refuse_value();
      list.push_back(static_cast<std::int64_t>(value));
    } else {
      check_ignored();
    }
    return true;
  }

  bool null() override {
    if (depth_ == 1 && in_metadata_) return true;
    return check_ignored();
  }
  bool boolean(bool) override { return check_ignored(); }
  bool number_integer(std::int64_t) override { return check_ignored(); }
  bool number_float(double, const std::string&) override { return check_ignored(); }
  bool binary(nlohmann::json::binary_t&) override { return check_ignored(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
    refuse(fmt::format("header is not JSON at byte {}", position), file_);
  }

 private:
  static constexpr int kMaxDepth = 128;
  enum class Field { type, shape, offsets, other };

  struct Entry {
    const StoredType* type = nullptr;
    std::vector<std::int64_t> shape, offsets;
    bool has_type = false, has_shape = false, has_offsets = false;
  };

  void enter() {
    if (++depth_ > kMaxDepth) refuse("header is nested too deeply", file_);
  }

  /// Fields that the format does not know may hold anything; the known ones only what the caller handles.
  bool check_ignored() const {
    if (depth_ < 2 || in_metadata_ || field_ != Field::other) refuse_value();
    return true;
  }

  [[noreturn]] void refuse_value() const {
    if (depth_ == 0) refuse("header is not a JSON object", file_);
    if (in_metadata_) refuse("metadata holds something that is no string", file_);
    refuse(fmt::format("tensor {} is not described by a type, a shape and two offsets", shown_name(name_)),
           file_);
  }

  void begin_entry(const std::string& name) {
    in_metadata_ = name == "__metadata__";
    if (name.size() > SafetensorsHeader::kMaxNameBytes) refuse("a tensor's name is too long", file_);
    if (header_.entries.size() >= SafetensorsHeader::kMaxTensors)
      refuse("more than a million tensors", file_);
    const bool is_new =
        in_metadata_ ? !std::exchange(has_metadata_, true) : header_.entries.try_emplace(name).second;
    if (!is_new) refuse(fmt::format("{} is there twice", shown_name(name)), file_);
    name_ = name;
  }

  void begin_field(const std::string& name) {
    key_ = name;
    bool is_new = true;
    if (in_metadata_) {
      is_new = !header_.metadata.contains(name);
    } else if (name == "dtype") {
      field_ = Field::type;
      is_new = !std::exchange(entry_.has_type, true);
    } else if (name == "shape") {
      field_ = Field::shape;
      is_new = !std::exchange(entry_.has_shape, true);
    } else if (name == "data_offsets") {
      field_ = Field::offsets;
      is_new = !std::exchange(entry_.has_offsets, true);
    } else {
      field_ = Field::other;
    }
    if (!is_new) refuse(fmt::format("{} of {} is there twice", shown_name(name), shown_name(name_)), file_);
  }

  void end_entry() {
    if (!entry_.has_type || !entry_.has_shape || entry_.offsets.size() != 2) refuse_value();
    if (entry_.shape.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
      refuse(fmt::format("tensor {} has more than {} dimensions", shown_name(name_), Shape::kMaxRank), file_);
    }
    const std::int64_t begin = entry_.offsets[0], end = entry_.offsets[1];
    std::int64_t bits = entry_.type->bits;
    bool overflows = false;
    // Elements first: a zero among the sizes must not hide that the others overflow.
    std::int64_t elements = 1;
    for (const std::int64_t size : entry_.shape)
      overflows |= __builtin_mul_overflow(elements, std::max<std::int64_t>(size, 1), &elements);
    overflows |= __builtin_mul_overflow(elements, bits, &bits);
    if (std::ranges::find(entry_.shape, 0) != entry_.shape.end()) bits = 0;
    const Shape shape(entry_.shape.begin(), entry_.shape.end());
    if (overflows || begin > end || bits % 8 != 0 || bits / 8 != end - begin) {
      refuse(fmt::format("tensor {} of shape {} and type {} does not fit its offsets {} to {}",
                         shown_name(name_), to_string(shape), entry_.type->name, begin, end),
             file_);
    }
    header_.entries[name_] = {std::string(entry_.type->name), shape, begin, end};
  }

  const std::string& file_;
  SafetensorsHeader header_;
  int depth_ = 0;
  bool in_metadata_ = false, has_metadata_ = false;
  std::string name_, key_;
  Field field_ = Field::other;
  Entry entry_;
};

/// Tensors must follow one another from the first byte of the data to the last.
void check_layout(const SafetensorsHeader& header, std::int64_t data_bytes, const std::string& file) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  order.reserve(header.entries.size());
  for (const auto& item : header.entries) order.push_back(&item);
  std::ranges::sort(order, {},
                    [](const auto* item) { return std::pair(item->second.begin, item->second.end); });
  std::int64_t position = 0;
  for (const auto* item : order) {
    if (item->second.begin != position) {
      refuse(fmt::format("tensor {} begins at {}, the one before it ends at {}", shown_name(item->first),
                         item->second.begin, position),
             file);
    }
    position = item->second.end;
  }
  if (position != data_bytes)
    refuse(fmt::format("header describes {} bytes of data, the file holds {}", position, data_bytes), file);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_bytes,
                                           const std::string& file) {
  // Two liberties of the JSON library that the format does not grant: a byte-order mark, and a NUL as the
  // end.
  if (text.starts_with("\xEF\xBB\xBF")) refuse("header starts with a byte-order mark", file);
  if (text.find('\0') != std::string_view::npos) refuse("header holds a NUL", file);
  HeaderReader reader(file);
  nlohmann::json::sax_parse(text, &reader);
  SafetensorsHeader header = reader.take();
  check_layout(header, data_bytes, file);
  return header;
}

std::optional<DType> readable_type(std::string_view stored_type) {
  const StoredType* type = find_stored_type(stored_type);
  return type == nullptr ? std::nullopt : type->type;
}

const char* stored_type_name(DType type) {
  switch (type) {
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::f64: return "F64";
    case DType::i32: return "I32";
    case DType::i64: return "I64";
    case DType::u8: return "U8";
  }
  return "?";
}

std::string shown_name(std::string_view name) {
  constexpr std::size_t kShown = 200;
  const std::string text = json_beginning(nlohmann::json(name.substr(0, kShown)), std::string::npos);
  return name.size() > kShown ? text + "…" : text;
}

}  // namespace bireme
