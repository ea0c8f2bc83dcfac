#include "models/attention_maps.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace bireme {

Tensor class_attention(Memory& memory, const Tensor& attention) {
  const Shape& shape = attention.shape();
  const std::int64_t tokens = shape.back(), patches = tokens - 1;
  const Tensor maps(memory, {shape[0], shape[1], patches}, DType::f32);
  for (std::int64_t map = 0; map < shape[0] * shape[1]; ++map)
    std::copy_n(attention.data<float>() + map * tokens * tokens + 1, patches,
                maps.data<float>() + map * patches);
  return maps;
}

namespace {

void mask_one(std::span<const float> map, double kept, std::uint8_t* mask) {
  std::vector<std::size_t> order(map.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return map[a] < map[b]; });
  const double mass = std::accumulate(map.begin(), map.end(), 0.0);
  double sum = 0;
  for (const std::size_t patch : order) {
    sum += map[patch];
    mask[patch] = sum > (1 - kept) * mass ? 1 : 0;
  }
}

}  // namespace

Tensor attention_masks(Memory& memory, const Tensor& maps, double kept) {
  if (!(kept > 0 && kept <= 1))
    throw Error(ErrorKind::usage, fmt::format("a mask is to keep {} of the attention", kept),
                "attention masks", "choose a share above 0, up to 1, such as 0.6");
  const Tensor masks(memory, maps.shape(), DType::u8);
  const std::int64_t patches = maps.channels();
  for (std::int64_t i = 0; i < maps.rows(); ++i)
    mask_one(maps.values<float>().subspan(static_cast<std::size_t>(i * patches),
                                          static_cast<std::size_t>(patches)),
             kept, masks.data<std::uint8_t>() + i * patches);
  return masks;
}

Tensor repeat_patches(Memory& memory, const Tensor& maps, std::int64_t rows, std::int64_t columns,
                      int patch) {
  assert(maps.channels() == rows * columns);
  Shape shape(maps.shape().begin(), maps.shape().end() - 1);
  shape.push_back(rows * patch);
  shape.push_back(columns * patch);
  const Tensor pixels(memory, shape, maps.dtype());
  const std::size_t size = size_of(maps.dtype());
  std::byte* to = pixels.raw();
  for (std::int64_t map = 0; map < maps.rows(); ++map)
    for (std::int64_t y = 0; y < rows * patch; ++y)
      for (std::int64_t x = 0; x < columns * patch; ++x, to += size)
        std::memcpy(
            to, maps.raw() + static_cast<std::size_t>((map * rows + y / patch) * columns + x / patch) * size,
            size);
  return pixels;
}

}  // namespace bireme
