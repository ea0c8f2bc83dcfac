#include "core/io/safetensors.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kReadBytes = std::int64_t{16} << 20;  // what a strided read holds beside its result
constexpr std::int64_t kMaxIndexBytes = std::int64_t{64} << 20;

/// IEEE 754 half precision to single: exact.
float half_to_float(std::uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  float magnitude =
      std::ldexp(static_cast<float>(mantissa + (exponent > 0 ? 1024 : 0)), std::max(exponent, 1) - 25);
  if (exponent == 31) magnitude = mantissa == 0 ? INFINITY : NAN;
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

/// Widens in place: the halves lie in the upper half of the tensor's memory, so the front never overtakes
/// them.
void widen_halves(const Tensor& tensor) {
  const std::int64_t count = tensor.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, tensor.raw() + 2 * (count + i),
                sizeof half);  // memcpy: the two types share the memory
    const float value = half_to_float(half);
    std::memcpy(tensor.raw() + 4 * i, &value, sizeof value);
  }
}

[[noreturn]] void refuse_name(std::string_view name, const std::vector<std::string>& names,
                              const fs::path& place) {
  const std::string nearest = nearest_name(name, names);
  throw Error(ErrorKind::checkpoint, fmt::format("there is no tensor {}", shown_name(name)), place.string(),
              nearest.empty() ? "check that this is the model that was meant"
                              : fmt::format("the nearest name is {}", shown_name(nearest)));
}

DType type_of(std::string_view name, const SafetensorsEntry& entry) {
  if (const std::optional<DType> type = readable_type(entry.stored_type)) return *type;
  throw Error(ErrorKind::checkpoint, fmt::format("tensors of type {} are not read", entry.stored_type),
              shown_name(name), "convert it to F32, BF16, F16, F64, I32, I64 or U8");
}

Shape with_rows(Shape shape, std::int64_t rows) {
  shape[0] = rows;
  return shape;
}

}  // namespace

Tensor TensorSource::read(std::string_view name, Memory& memory) const {
  const SafetensorsEntry& stored = entry(name);
  Tensor tensor(memory, stored.shape, type_of(name, stored));
  read_rows_into(name, 0, tensor);
  return tensor;
}

Tensor TensorSource::read_rows(std::string_view name, std::int64_t begin, std::int64_t end,
                               Memory& memory) const {
  const SafetensorsEntry& stored = entry(name);
  if (stored.shape.rank() == 0 || begin < 0 || end < begin || end > stored.shape.front()) {
    throw Error(
        ErrorKind::checkpoint,
        fmt::format("rows {} to {} lie outside a tensor of shape {}", begin, end, to_string(stored.shape)),
        shown_name(name), "check the sizes in the model's configuration");
  }
  Tensor tensor(memory, with_rows(stored.shape, end - begin), type_of(name, stored));
  read_rows_into(name, begin, tensor);
  return tensor;
}

Tensor TensorSource::read_part(std::string_view name, const Partition& partition, Memory& memory) const {
  const SafetensorsEntry& stored = entry(name);
  if (partition.axis < 0 || partition.parts == 1) return read(name, memory);
  Tensor local(memory, local_shape(stored.shape, partition), type_of(name, stored));
  if (local.elements() == 0) return local;
  if (partition.axis == 0) {  // each logical block of the part is a run of whole rows
    for (const AxisRun& run : axis_runs(stored.shape, partition))
      read_rows_into(name, run.whole, local.slice(run.local, run.local + run.length));
    return local;
  }
  const std::int64_t rows = stored.shape.front();
  const std::int64_t bytes_of_row = (stored.end - stored.begin) / rows;
  const std::int64_t step = std::clamp<std::int64_t>(kReadBytes / bytes_of_row, 1, rows);
  for (std::int64_t row = 0; row < rows; row += step) {
    const std::int64_t end = std::min(row + step, rows);
    copy_part(read_rows(name, row, end, memory), local.slice(row, end), partition);
  }
  return local;
}

void TensorSource::read_rows_into(std::string_view name, std::int64_t begin, const Tensor& into) const {
  assert(into.device().type == DeviceType::cpu);
  if (into.elements() == 0) return;
  const SafetensorsEntry& stored = entry(name);
  const bool is_half = stored.stored_type == "F16";
  const std::size_t bytes = is_half ? into.bytes() / 2 : into.bytes();
  const std::int64_t bytes_of_row = begin == 0 ? 0 : (stored.end - stored.begin) / stored.shape.front();
  read_bytes(name, begin * bytes_of_row, {into.raw() + (into.bytes() - bytes), bytes});
  if (is_half) widen_halves(into);
}

// ---- one file ----

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile result{InputFile(path, ErrorKind::checkpoint)};
  const InputFile& file = result.file_;
  static_assert(std::endian::native == std::endian::little, "the format is little-endian");
  std::uint64_t length = 0;
  const auto refuse = [&](const std::string& problem) {
    throw Error(ErrorKind::checkpoint, "not a valid safetensors file: " + problem, path.string(),
                "the file is torn or was not written by a safetensors writer; copy or make it again");
  };
  if (file.size() < 8) refuse(fmt::format("it has {} bytes", file.size()));
  file.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > static_cast<std::uint64_t>(SafetensorsHeader::kMaxBytes) ||
      static_cast<std::int64_t>(length) > file.size() - 8) {
    refuse(fmt::format("header claims {} bytes, the file has {}", length, file.size()));
  }
  std::string text(length, '\0');
  file.read_at(8, std::as_writable_bytes(std::span(text)));
  result.data_start_ = 8 + static_cast<std::int64_t>(length);
  result.header_ = parse_safetensors_header(text, file.size() - result.data_start_, path.string());
  return result;
}

bool SafetensorsFile::contains(std::string_view name) const {
  return header_.entries.contains(std::string(name));
}

const SafetensorsEntry& SafetensorsFile::entry(std::string_view name) const {
  const auto found = header_.entries.find(std::string(name));
  if (found == header_.entries.end()) refuse_name(name, names(), path());
  return found->second;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  names.reserve(header_.entries.size());
  for (const auto& item : header_.entries) names.push_back(item.first);
  return names;
}

void SafetensorsFile::read_bytes(std::string_view name, std::int64_t offset,
                                 std::span<std::byte> into) const {
  const SafetensorsEntry& stored = entry(name);
  assert(offset >= 0 && offset + static_cast<std::int64_t>(into.size()) <= stored.end - stored.begin);
  file_.read_at(data_start_ + stored.begin + offset, into);
}

// ---- a folder ----

namespace {

/// The shards of an index and which tensors each must hold.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& path) {
  const auto refuse = [&](const std::string& problem) {
    throw Error(ErrorKind::checkpoint, problem, path.string(), "copy or make the folder again");
  };
  const nlohmann::json index = try_parse_json(read_file(path, kMaxIndexBytes));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    refuse("the index is not a JSON object with a weight_map");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) refuse(fmt::format("the index gives no file for tensor {}", shown_name(tensor)));
    const auto& file = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(file))
      refuse(fmt::format("the index names {}, which is no plain file name", shown_name(file)));
    shards[file].push_back(tensor);
  }
  return shards;
}

/// A link may lead to a file of the folder itself, or of `blobs/` two levels up as in the Hugging Face cache.
void check_stays_inside(const fs::path& folder, const fs::path& file) {
  std::error_code error;
  const fs::path home = fs::canonical(folder, error), target = fs::canonical(file, error);
  if (error || target.parent_path() == home ||
      target.parent_path() == home.parent_path().parent_path() / "blobs")
    return;
  throw Error(ErrorKind::checkpoint, "link leads out of its folder", file.string(),
              "put the file itself in its place");
}

}  // namespace

SafetensorsFolder SafetensorsFolder::open(const fs::path& folder, const std::string& name) {
  SafetensorsFolder result;
  result.folder_ = folder;
  const std::string single = name + ".safetensors";
  const fs::path index = folder / (single + ".index.json");
  const bool is_single = fs::exists(folder / single);
  if (!is_single && !fs::exists(index)) {
    throw Error(ErrorKind::checkpoint, fmt::format("there is neither {} nor {}.index.json", single, single),
                folder.string(), "name a folder with weights in safetensors format");
  }
  std::map<std::string, std::vector<std::string>> shards{{single, {}}};
  if (!is_single) shards = read_index(index);
  for (const auto& [shard, tensors] : shards) {
    check_stays_inside(folder, folder / shard);
    result.files_.push_back(SafetensorsFile::open(folder / shard));
    for (const std::string& tensor : tensors) {
      if (result.files_.back().contains(tensor)) continue;
      throw Error(ErrorKind::checkpoint,
                  fmt::format("the index places tensor {} here, but it is missing", shown_name(tensor)),
                  (folder / shard).string(), "copy or make the folder again");
    }
    for (const auto& item : result.files_.back().entries()) {
      if (result.places_.try_emplace(item.first, result.files_.size() - 1).second) continue;
      throw Error(ErrorKind::checkpoint, fmt::format("tensor {} is in two shards", shown_name(item.first)),
                  (folder / shard).string(), "copy or make the folder again");
    }
  }
  return result;
}

const SafetensorsFile& SafetensorsFolder::file_of(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) refuse_name(name, names(), folder_);
  return files_[found->second];
}

bool SafetensorsFolder::contains(std::string_view name) const { return places_.contains(name); }

const SafetensorsEntry& SafetensorsFolder::entry(std::string_view name) const {
  return file_of(name).entry(name);
}

void SafetensorsFolder::read_bytes(std::string_view name, std::int64_t offset,
                                   std::span<std::byte> into) const {
  file_of(name).read_bytes(name, offset, into);
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> names;
  names.reserve(places_.size());
  for (const auto& item : places_) names.push_back(item.first);
  return names;
}

// ---- values ----

namespace {

template <class T>
std::optional<std::int64_t> first_non_finite_of(const Tensor& tensor) {
  const std::span<T> values = tensor.values<T>();
  const auto found = std::ranges::find_if(values, [](T value) { return !std::isfinite(to_float(value)); });
  if (found == values.end()) return std::nullopt;
  return found - values.begin();
}

}  // namespace

std::optional<std::int64_t> first_non_finite(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::f32: return first_non_finite_of<float>(tensor);
    case DType::bf16: return first_non_finite_of<bf16>(tensor);
    case DType::f64: return first_non_finite_of<double>(tensor);
    case DType::i32:
    case DType::i64:
    case DType::u8: break;
  }
  return std::nullopt;
}

}  // namespace bireme
