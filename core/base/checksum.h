#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bireme {

/// XXH3-128 of a stream of bytes. It finds accidents (flipped bits, torn files), not forgeries.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(Checksum&&) noexcept;
  Checksum& operator=(Checksum&&) noexcept;

  void update(std::span<const std::byte> bytes);
  /// 32 lower-case hexadecimal digits of all that came so far.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string checksum_bytes(std::span<const std::byte> bytes);
std::string checksum_bytes(std::string_view text);

}  // namespace bireme
