#pragma once

#include <png.h>
#include <turbojpeg.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bireme::test {

/// What a PNG is to be made of. `rows` holds the packed pixels of one line after the other.
struct PngParts {
  int width, height, bits, color_type;
  std::string rows;
  std::vector<png_color> palette = {};
  std::vector<png_byte> palette_alpha = {};
  bool interlaced = false;
};

inline std::string png(const PngParts& parts) {
  std::string bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &bytes,
      [](png_structp p, png_bytep data, std::size_t count) {
        static_cast<std::string*>(png_get_io_ptr(p))->append(reinterpret_cast<const char*>(data), count);
      },
      [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(parts.width), static_cast<png_uint_32>(parts.height),
               parts.bits, parts.color_type, parts.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!parts.palette.empty())
    png_set_PLTE(png, info, parts.palette.data(), static_cast<int>(parts.palette.size()));
  if (!parts.palette_alpha.empty())
    png_set_tRNS(png, info, parts.palette_alpha.data(), static_cast<int>(parts.palette_alpha.size()),
                 nullptr);
  png_write_info(png, info);
  std::string rows = parts.rows;
  std::vector<png_bytep> lines;
  lines.reserve(static_cast<std::size_t>(parts.height));
  const std::size_t row = rows.size() / static_cast<std::size_t>(parts.height);
  for (int y = 0; y < parts.height; ++y)
    lines.push_back(reinterpret_cast<png_bytep>(rows.data()) + row * static_cast<std::size_t>(y));
  png_write_image(png, lines.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

/// A JPEG of the given TurboJPEG pixel format and chroma layout.
inline std::string jpeg(int width, int height, const std::string& pixels, int format = TJPF_RGB,
                        int subsampling = TJSAMP_444, int quality = 100, int flags = 0) {
  const tjhandle handle = tjInitCompress();
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  tjCompress2(handle, reinterpret_cast<const unsigned char*>(pixels.data()), width, 0, height, format, &bytes,
              &size, subsampling, quality, flags);
  std::string result(reinterpret_cast<char*>(bytes), size);
  tjFree(bytes);
  tjDestroy(handle);
  return result;
}

/// A picture with no two neighbouring lines alike, smooth enough for JPEG: `channels` bytes a pixel.
inline std::string ramp(int width, int height, int channels, int seed = 0) {
  std::string pixels;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        pixels.push_back(static_cast<char>((x * 3 + y * 2 + c * 40 + seed * 17) % 256));
  return pixels;
}

}  // namespace bireme::test
