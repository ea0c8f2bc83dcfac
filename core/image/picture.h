#pragma once

#include <cstdint>
#include <vector>

namespace bireme {

/// An 8-bit picture in memory, channels interleaved: pixels[(y · width + x) · channels + c]. Grey (1) or RGB
/// (3).
struct Picture {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<std::uint8_t> pixels;
};

}  // namespace bireme
