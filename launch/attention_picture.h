#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/image/picture.h"

namespace bireme {

/// Where each head of the last block looks from the class token: values [heads, rows, columns], one for each
/// patch.
struct AttentionMaps {
  int heads = 0, rows = 0, columns = 0;
  std::vector<float> values;
};

struct AttentionPictureOptions {
  int cell_pixels = 112;           ///< side of a picture or map, at least
  std::vector<std::string> names;  ///< one for each picture, written above its row; may be empty
  bool has_captions = true;        ///< "picture", "mean", "head 1" ... above the columns
};

/// One row a picture: the picture, the mean of the heads, and each head, on white. Maps run from their least
/// value (dark violet) to their largest (yellow) along the viridis scale, each on its own, and are enlarged
/// without smoothing, so a square is a patch.
/// @param pictures  grey or RGB, of any sizes
/// @param maps      as many, all with the same number of heads
/// @throws Error    (other) when the numbers do not match
Picture attention_picture(std::span<const Picture> pictures, std::span<const AttentionMaps> maps,
                          const AttentionPictureOptions& options = {});

struct Rgb {
  std::uint8_t red, green, blue;
};
/// The viridis scale (Smith and van der Walt 2015) at 0 to 1: even steps of brightness, also in grey print.
Rgb viridis(double value);

/// Writes text in a 5 x 7 bitmap font, each dot `scale` pixels wide, on an RGB picture; what lies outside is
/// cut off. Letters have one case.
void draw_text(Picture& picture, int x, int y, std::string_view text, int scale, Rgb color);
/// Pixels that text takes.
int text_width(std::string_view text, int scale);

}  // namespace bireme
