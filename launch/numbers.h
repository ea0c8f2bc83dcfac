#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bireme {

/// The whole of `text` as a decimal integer; nothing for `3x`, `1.0`, an empty text or a number too large for
/// 64 bits.
std::optional<std::int64_t> parse_integer(std::string_view text);
/// The whole of `text` as a finite decimal number; nothing for `3x`, `nan` or `1e400`.
std::optional<double> parse_number(std::string_view text);
/// `a,b,c`, also with spaces and in brackets, as its parts.
std::vector<std::string> split_list(std::string_view text);

/// Three digits and a unit of thousands, for people: 31415 → "31.4k", 0.25 → "0.25".
std::string short_number(double value);
/// A time for people: 8 → "8 s", 90 → "1 min 30 s", 725 → "12 min", 9000 → "2 h 30 min", 200000 → "2 d 7 h".
std::string short_duration(double seconds);

}  // namespace bireme
