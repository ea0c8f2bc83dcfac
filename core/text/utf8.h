#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bireme {

/// Bytes of `text` up to the first that does not belong to well-formed UTF-8 (Unicode 15, table 3-7: no
/// overlong forms, no surrogates, nothing beyond U+10FFFF); text.size() when all of it is.
std::size_t valid_utf8(std::string_view text);

/// True when `bytes` is the beginning of a well-formed character whose rest is missing.
bool is_cut_utf8(std::string_view bytes);

/// U+FFFD, which stands for bytes that are no UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

/// Appends one code point; it must not be a surrogate.
void append_utf8(std::string& text, std::uint32_t code_point);

/// The code point of the well-formed character that begins at `position`, which moves past it.
std::uint32_t next_code_point(std::string_view text, std::size_t& position);

}  // namespace bireme
