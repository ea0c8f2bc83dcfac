#include "core/image/png_writer.h"

#include <png.h>
#include <spdlog/fmt/fmt.h>

#include <string>

#include "core/base/error.h"
#include "core/base/files.h"

namespace bireme {

void write_png(const std::filesystem::path& path, const Picture& picture) {
  const std::size_t expected = static_cast<std::size_t>(picture.width) * picture.height * picture.channels;
  if (expected == 0 || (picture.channels != 1 && picture.channels != 3) || picture.pixels.size() != expected)
    throw Error(ErrorKind::other,
                fmt::format("a picture of {} x {} pixels with {} channels and {} values is no PNG",
                            picture.width, picture.height, picture.channels, picture.pixels.size()),
                path.string(), "give one or three channels");

  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = picture.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  const auto encode = [&](void* into, png_alloc_size_t& bytes) {
    if (png_image_write_to_memory(&image, into, &bytes, 0, picture.pixels.data(), 0, nullptr) == 0)
      throw Error(ErrorKind::other, fmt::format("libpng could not write the picture ({})", image.message),
                  path.string(), "make the picture smaller");
  };
  // Without a target libpng says how much memory is enough; with one, how much it used.
  png_alloc_size_t bytes = 0;
  encode(nullptr, bytes);
  std::string file(bytes, '\0');
  encode(file.data(), bytes);
  file.resize(bytes);
  write_file_atomically(path, file);
}

}  // namespace bireme
