#include "launch/attention_picture.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr int kGap = 6;       // pixels between cells, and around all
constexpr int kCaption = 20;  // height of a line of text, 14 pixels of it letters
constexpr int kNameGap = 6;   // between a row and the name of the next
constexpr int kTextScale = 2;
constexpr Rgb kInk = {68, 68, 68};

Picture blank(int width, int height) {
  return {.width = width,
          .height = height,
          .channels = 3,
          .pixels = std::vector<std::uint8_t>(static_cast<std::size_t>(width) * height * 3, 255)};
}

void put(Picture& canvas, int x, int y, Rgb color) {
  if (x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) return;
  std::uint8_t* pixel = &canvas.pixels[(static_cast<std::size_t>(y) * canvas.width + x) * 3];
  pixel[0] = color.red;
  pixel[1] = color.green;
  pixel[2] = color.blue;
}

/// Fills a square cell from a grid of `rows` x `columns` colours, each repeated; a grid that is not square
/// keeps its shape and is centred.
template <class ColorAt>
void draw_grid(Picture& canvas, int left, int top, int side, int rows, int columns, const ColorAt& color_at) {
  const int longest = std::max(rows, columns);
  const int height = side * rows / longest, width = side * columns / longest;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      put(canvas, left + (side - width) / 2 + x, top + (side - height) / 2 + y,
          color_at(y * rows / height, x * columns / width));
}

void draw_picture(Picture& canvas, int left, int top, int side, const Picture& picture) {
  draw_grid(canvas, left, top, side, picture.height, picture.width, [&](int row, int column) {
    const std::uint8_t* pixel =
        &picture.pixels[(static_cast<std::size_t>(row) * picture.width + column) * picture.channels];
    return picture.channels == 1 ? Rgb{pixel[0], pixel[0], pixel[0]} : Rgb{pixel[0], pixel[1], pixel[2]};
  });
}

void draw_map(Picture& canvas, int left, int top, int side, std::span<const float> values, int rows,
              int columns) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double low = *least, range = std::max(static_cast<double>(*most) - low, 1e-30);
  draw_grid(canvas, left, top, side, rows, columns, [&](int row, int column) {
    return viridis((values[static_cast<std::size_t>(row) * columns + column] - low) / range);
  });
}

std::vector<float> mean_of_heads(const AttentionMaps& maps) {
  const std::size_t patches = static_cast<std::size_t>(maps.rows) * maps.columns;
  std::vector<float> mean(patches);
  for (std::size_t i = 0; i < maps.values.size(); ++i)
    mean[i % patches] += maps.values[i] / static_cast<float>(maps.heads);
  return mean;
}

void check(std::span<const Picture> pictures, std::span<const AttentionMaps> maps,
           const AttentionPictureOptions& options) {
  const auto require = [](bool holds, const std::string& problem) {
    if (!holds)
      throw Error(ErrorKind::other, problem, "attention picture", "give one set of maps for each picture");
  };
  require(!pictures.empty() && pictures.size() == maps.size(),
          fmt::format("{} pictures, but {} sets of attention maps", pictures.size(), maps.size()));
  require(options.names.empty() || options.names.size() == pictures.size(),
          fmt::format("{} pictures, but {} names", pictures.size(), options.names.size()));
  for (const Picture& p : pictures)
    require((p.channels == 1 || p.channels == 3) && !p.pixels.empty() &&
                p.pixels.size() == static_cast<std::size_t>(p.width) * p.height * p.channels,
            fmt::format("a picture of {} x {} pixels has {} channels and {} values", p.width, p.height,
                        p.channels, p.pixels.size()));
  for (const AttentionMaps& m : maps)
    require(m.heads == maps.front().heads && m.heads > 0 && !m.values.empty() &&
                m.values.size() == static_cast<std::size_t>(m.heads) * m.rows * m.columns,
            fmt::format("maps of {} heads on {} x {} patches hold {} values", m.heads, m.rows, m.columns,
                        m.values.size()));
}

}  // namespace

Picture attention_picture(std::span<const Picture> pictures, std::span<const AttentionMaps> maps,
                          const AttentionPictureOptions& options) {
  check(pictures, maps, options);
  // Cells are a whole number of pixels for each patch, so that all patches come out alike.
  int side = options.cell_pixels;
  const int patches = std::max(maps.front().rows, maps.front().columns);
  side = (side + patches - 1) / patches * patches;

  const int heads = maps.front().heads, columns = heads + 2, step = side + kGap;
  const int header = options.has_captions ? kCaption : 0,
            name_line = options.names.empty() ? 0 : kCaption + kNameGap;
  const int rows = static_cast<int>(pictures.size());
  Picture canvas = blank(kGap + columns * step, kGap + header + rows * (step + name_line));

  if (options.has_captions) {
    for (int column = 0; column < columns; ++column) {
      const std::string caption = column == 0   ? "picture"
                                  : column == 1 ? "mean"
                                                : fmt::format("head {}", column - 1);
      draw_text(canvas, kGap + column * step + (side - text_width(caption, kTextScale)) / 2, kGap, caption,
                kTextScale, kInk);
    }
  }
  for (int row = 0; row < rows; ++row) {
    int top = kGap + header + row * (step + name_line);
    if (name_line > 0)
      draw_text(canvas, kGap, top + kNameGap, options.names[static_cast<std::size_t>(row)], kTextScale, kInk);
    top += name_line;
    const AttentionMaps& m = maps[static_cast<std::size_t>(row)];
    draw_picture(canvas, kGap, top, side, pictures[static_cast<std::size_t>(row)]);
    draw_map(canvas, kGap + step, top, side, mean_of_heads(m), m.rows, m.columns);
    const std::size_t size = static_cast<std::size_t>(m.rows) * m.columns;
    for (int head = 0; head < heads; ++head)
      draw_map(canvas, kGap + (head + 2) * step, top, side, std::span(m.values).subspan(head * size, size),
               m.rows, m.columns);
  }
  return canvas;
}

Rgb viridis(double value) {
  // Every sixteenth of the published table; straight lines between stay within two levels of it.
  static constexpr std::array<Rgb, 17> table = {{{68, 1, 84},
                                                 {72, 24, 106},
                                                 {71, 45, 123},
                                                 {66, 64, 134},
                                                 {59, 82, 139},
                                                 {51, 99, 141},
                                                 {44, 114, 142},
                                                 {38, 130, 142},
                                                 {33, 145, 140},
                                                 {31, 160, 136},
                                                 {40, 174, 128},
                                                 {63, 188, 115},
                                                 {94, 201, 98},
                                                 {132, 212, 75},
                                                 {173, 220, 48},
                                                 {216, 226, 25},
                                                 {253, 231, 37}}};
  const double place = (value >= 0 ? std::min(value, 1.0) : 0.0) * 16;  // NaN is drawn as 0
  const int index = std::min(static_cast<int>(place), 15);
  const double t = place - index;
  const auto mix = [t](std::uint8_t a, std::uint8_t b) {
    return static_cast<std::uint8_t>(std::lround(a + t * (b - a)));
  };
  const Rgb &a = table[static_cast<std::size_t>(index)], &b = table[static_cast<std::size_t>(index) + 1];
  return {mix(a.red, b.red), mix(a.green, b.green), mix(a.blue, b.blue)};
}

}  // namespace bireme
