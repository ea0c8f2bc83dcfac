#pragma once

#include <cstdint>
#include <vector>

#include "core/image/picture.h"

namespace bireme {

/// An 8-bit picture with its channels apart: values[(c · height + y) · width + x]. The transforms work on
/// this form, because lines of equal channels fill vector registers; a Picture (channels interleaved) is what
/// decoders give.
struct Planes {
  int width = 0;
  int height = 0;
  int channels = 0;
  std::vector<std::uint8_t> values;

  /// Gives the planes a size; values are then undefined. Keeps the memory it has.
  void resize(int new_width, int new_height, int new_channels) {
    width = new_width;
    height = new_height;
    channels = new_channels;
    values.resize(static_cast<std::size_t>(width) * height * channels);
  }
  std::int64_t area() const { return std::int64_t{width} * height; }
  std::uint8_t* plane(int channel) { return values.data() + channel * area(); }
  const std::uint8_t* plane(int channel) const { return values.data() + channel * area(); }
};

Planes to_planes(const Picture& picture);
Picture to_picture(const Planes& planes);

/// A rectangle of pixels inside a picture.
struct Rectangle {
  int top = 0, left = 0, height = 0, width = 0;
};

}  // namespace bireme
