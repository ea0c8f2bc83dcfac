#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace bireme {

/// The characters that byte-level vocabularies write bytes with (Radford et al. 2019): the visible ones of
/// Latin-1 stand for themselves, the other 68 bytes for U+0100 … U+0143 in order.
class ByteSymbols {
 public:
  ByteSymbols();
  /// UTF-8 of the character that stands for a byte.
  const std::string& symbol(unsigned char byte) const { return symbols_[byte]; }
  /// The bytes that a token stands for; nothing when one of its characters is no such symbol.
  std::optional<std::string> bytes(std::string_view token) const;

 private:
  std::array<std::string, 256> symbols_;
  std::array<short, 0x144> bytes_;  // by code point; -1: none
};

}  // namespace bireme
