#include "core/text/utf8.h"

#include <cstring>

namespace bireme {

namespace {

struct Lead {
  std::size_t length;       // of the character; 0 where the byte cannot begin one
  unsigned char low, high;  // what the second byte may be
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};  // below A0: overlong
  if (byte == 0xED) return {3, 0x80, 0x9F};  // above 9F: surrogates
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};  // below 90: overlong
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};  // above 8F: beyond U+10FFFF
  return {0, 0, 0};
}

/// Bytes from `begin` on that fit the character that begins there, up to its length.
std::size_t fitting_bytes(std::string_view text, std::size_t begin, const Lead& lead) {
  std::size_t fitting = 1;
  while (fitting < lead.length && begin + fitting < text.size()) {
    const auto byte = static_cast<unsigned char>(text[begin + fitting]);
    const bool fits = fitting == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xC0) == 0x80;
    if (!fits) break;
    ++fitting;
  }
  return fitting;
}

}  // namespace

std::size_t valid_utf8(std::string_view text) {
  std::size_t position = 0;
  while (position < text.size()) {
    std::uint64_t eight;
    while (position + sizeof eight <= text.size()) {  // most text is ASCII
      std::memcpy(&eight, text.data() + position, sizeof eight);
      if ((eight & 0x8080808080808080u) != 0) break;
      position += sizeof eight;
    }
    if (position >= text.size()) break;
    const Lead lead = lead_of(static_cast<unsigned char>(text[position]));
    if (lead.length == 0 || fitting_bytes(text, position, lead) < lead.length) return position;
    position += lead.length;
  }
  return text.size();
}

bool is_cut_utf8(std::string_view bytes) {
  if (bytes.empty()) return false;
  const Lead lead = lead_of(static_cast<unsigned char>(bytes[0]));
  return bytes.size() < lead.length && fitting_bytes(bytes, 0, lead) == bytes.size();
}

void append_utf8(std::string& text, std::uint32_t c) {
  const auto add = [&text](std::uint32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xC0 | c >> 6);
    add(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
    add(0x80 | (c & 0x3F));
  }
}

std::uint32_t next_code_point(std::string_view text, std::size_t& position) {
  const auto byte = [&](std::size_t i) {
    return std::uint32_t{static_cast<unsigned char>(text[position + i])};
  };
  const std::uint32_t first = byte(0);
  if (first < 0x80) {
    ++position;
    return first;
  }
  std::uint32_t code_point;
  if (first < 0xE0) {
    code_point = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    position += 2;
  } else if (first < 0xF0) {
    code_point = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    position += 3;
  } else {
    code_point = (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    position += 4;
  }
  return code_point;
}

}  // namespace bireme
