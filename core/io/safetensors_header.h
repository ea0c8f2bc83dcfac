#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "core/tensor/types.h"

namespace bireme {

/// One tensor of a safetensors file. Offsets count from the end of the header.
struct SafetensorsEntry {
  std::string stored_type;  ///< as the file spells it: "F32", "BF16", …
  Shape shape;
  std::int64_t begin = 0, end = 0;
};

/// The JSON at the start of a safetensors file.
struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;

  static constexpr std::int64_t kMaxBytes = 100'000'000;  // the format's own limit
  static constexpr std::size_t kMaxTensors = 1'000'000;
  static constexpr std::size_t kMaxNameBytes = 4096;
};

/// Parses and checks a header: known types, every size computed without overflow and equal to its offsets,
/// tensors that fill the `data_bytes` behind the header without hole or overlap, no name twice. Works from
/// untrusted bytes in memory proportional to the header. Verdicts are those of the reference implementation
/// (safetensors 0.8.0), except that entries written as arrays and shapes of more than Shape::kMaxRank
/// dimensions are refused.
/// @throws Error (checkpoint) naming the tensor and, as its place, `file`
SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_bytes,
                                           const std::string& file);

/// The type that a stored type becomes in memory: F16 widens to fp32. Nothing for types that are not read
/// here (I8, F8, …).
std::optional<DType> readable_type(std::string_view stored_type);
/// How a type is spelt in a file.
const char* stored_type_name(DType type);
/// A name from a file for a message: quoted, control characters escaped, cut when long.
std::string shown_name(std::string_view name);

}  // namespace bireme
