#include "core/text/python_literal.h"

#include <charconv>
#include <cstdint>
#include <cstring>

#include "core/text/utf8.h"

namespace bireme {

namespace {

/// `digits` digits to that base from the front of `rest`, which they are taken from.
std::optional<std::uint32_t> take_number(std::string_view& rest, std::size_t digits, int base) {
  std::uint32_t value = 0;
  if (rest.size() < digits) return {};
  const char *const first = rest.data(), *const last = first + digits;
  const auto [end, failure] = std::from_chars(first, last, value, base);
  if (failure != std::errc() || end != last) return {};
  rest.remove_prefix(digits);
  return value;
}

/// What follows a backslash, taken from the front of `rest`: a code point, or a byte in a bytes literal.
std::optional<std::uint32_t> take_escape(std::string_view& rest, bool is_bytes) {
  if (rest.empty()) return {};
  const char kind = rest.front();
  if (kind >= '0' && kind <= '7') {
    std::size_t digits = 1;
    while (digits < 3 && digits < rest.size() && rest[digits] >= '0' && rest[digits] <= '7') ++digits;
    return take_number(rest, digits, 8);
  }
  rest.remove_prefix(1);
  if (kind == 'x') return take_number(rest, 2, 16);
  if (kind == 'u' && !is_bytes) return take_number(rest, 4, 16);
  if (kind == 'U' && !is_bytes) return take_number(rest, 8, 16);
  constexpr const char* kNames = "nrtabfv\\'\"";
  constexpr const char* kValues = "\n\r\t\a\b\f\v\\'\"";
  const char* found = kind == '\0' ? nullptr : std::strchr(kNames, kind);
  if (found == nullptr) return {};
  return static_cast<unsigned char>(kValues[found - kNames]);
}

}  // namespace

std::optional<std::string> parse_python_literal(std::string_view literal) {
  const bool is_bytes = literal.starts_with('b');
  if (is_bytes) literal.remove_prefix(1);
  if (literal.size() < 2 || (literal.front() != '\'' && literal.front() != '"') ||
      literal.back() != literal.front())
    return {};
  const char quote = literal.front();
  std::string_view rest = literal.substr(1, literal.size() - 2);
  if (valid_utf8(rest) < rest.size()) return {};
  std::string bytes;
  while (!rest.empty()) {
    const char next = rest.front();
    if (next == quote || (is_bytes && static_cast<unsigned char>(next) >= 0x80)) return {};
    rest.remove_prefix(1);
    if (next != '\\') {
      bytes += next;
      continue;
    }
    const std::optional<std::uint32_t> value = take_escape(rest, is_bytes);
    if (!value) return {};
    if (is_bytes) {
      if (*value > 0xFF) return {};
      bytes += static_cast<char>(*value);
    } else {
      if (*value > 0x10FFFF || (*value >= 0xD800 && *value < 0xE000)) return {};
      append_utf8(bytes, *value);
    }
  }
  return bytes;
}

}  // namespace bireme
