#include "core/text/byte_symbols.h"

#include "core/text/utf8.h"

namespace bireme {

ByteSymbols::ByteSymbols() {
  bytes_.fill(-1);
  std::uint32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const std::uint32_t code_point = is_visible ? static_cast<std::uint32_t>(byte) : next++;
    append_utf8(symbols_[static_cast<std::size_t>(byte)], code_point);
    bytes_[code_point] = static_cast<short>(byte);
  }
}

std::optional<std::string> ByteSymbols::bytes(std::string_view token) const {
  std::string result;
  for (std::size_t position = 0; position < token.size();) {
    const std::uint32_t code_point = next_code_point(token, position);
    if (code_point >= bytes_.size() || bytes_[code_point] < 0) return {};
    result += static_cast<char>(bytes_[code_point]);
  }
  return result;
}

}  // namespace bireme
