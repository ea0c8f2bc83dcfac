#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bireme {

/// SHA-256 of a stream of bytes (FIPS 180-4): says whether two things are the same where a mix-up must not
/// pass, such as a cache and the model that it was made with. For accidents on a disk see checksum.h, which
/// is much faster.
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  /// 64 lower-case hexadecimal digits of all that came so far.
  std::string text() const;

 private:
  void block(const std::uint8_t* bytes);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> waiting_{};
  std::uint64_t length_ = 0;  // bytes so far
};

std::string sha256_text(std::string_view text);

}  // namespace bireme
