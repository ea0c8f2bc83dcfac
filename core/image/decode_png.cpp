#include "core/image/decode_png.h"

#include <png.h>
#include <spdlog/fmt/fmt.h>

#include <csetjmp>
#include <cstring>

#include "core/base/error.h"
#include "core/image/decode.h"

namespace bireme {

namespace {

/// What libpng's callbacks see. libpng reports errors by longjmp, so the functions that it may jump out of
/// hold nothing with a destructor.
struct Source {
  std::span<const std::uint8_t> bytes;
  std::size_t position = 0;
  char message[128] = "";
  std::jmp_buf failed;
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source->message, message, sizeof source->message - 1);
  std::longjmp(source->failed, 1);
}

void on_warning(png_structp, png_const_charp) {}  // ancillary chunks only; the pixels are not in doubt

void on_read(png_structp png, png_bytep into, std::size_t count) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (source->bytes.size() - source->position < count) png_error(png, "it ends too early");
  std::memcpy(into, source->bytes.data() + source->position, count);
  source->position += count;
}

class PngReader {
 public:
  explicit PngReader(std::span<const std::uint8_t> bytes) {
    source_.bytes = bytes;
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool ready() const { return info_ != nullptr; }
  const char* message() const { return source_.message; }

  /// Reads up to the pixels and asks for 8 bits without alpha.
  bool read_header(Picture& picture) {
    if (setjmp(source_.failed) != 0) return false;
    png_set_read_fn(png_, &source_, on_read);
    png_set_user_limits(png_, 1 << 20, 1 << 20);
    png_set_chunk_malloc_max(png_, 64 << 20);
    png_set_chunk_cache_max(png_, 128);
    png_read_info(png_, info_);
    picture.width = static_cast<int>(png_get_image_width(png_, info_));
    picture.height = static_cast<int>(png_get_image_height(png_, info_));
    picture.channels = (png_get_color_type(png_, info_) & PNG_COLOR_MASK_COLOR) != 0 ? 3 : 1;
    png_set_strip_16(png_);
    png_set_expand(png_);  // palettes to RGB, 1, 2 and 4 bits of grey to 8
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }

  bool read_pixels(png_bytepp rows) {
    if (setjmp(source_.failed) != 0) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

 private:
  Source source_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Picture decode_png(std::span<const std::uint8_t> bytes, const std::string& name) {
  const auto fail = [&](const std::string& why) {
    throw Error(ErrorKind::data, fmt::format("the PNG picture does not decode ({})", why), name,
                "replace or remove the file");
  };
  PngReader reader(bytes);
  if (!reader.ready()) fail("libpng did not start");
  Picture picture;
  if (!reader.read_header(picture)) fail(reader.message());
  if (std::int64_t{picture.width} * picture.height > kMaxPixels)
    fail(fmt::format("{} x {} pixels are more than {}", picture.width, picture.height, kMaxPixels));
  const std::size_t row_bytes =
      static_cast<std::size_t>(picture.width) * static_cast<std::size_t>(picture.channels);
  if (reader.row_bytes() != row_bytes) fail("its pixels have an unknown form");
  picture.pixels.resize(row_bytes * static_cast<std::size_t>(picture.height));
  std::vector<png_bytep> rows;
  rows.reserve(static_cast<std::size_t>(picture.height));
  for (int y = 0; y < picture.height; ++y)
    rows.push_back(picture.pixels.data() + row_bytes * static_cast<std::size_t>(y));
  if (!reader.read_pixels(rows.data())) fail(reader.message());
  return picture;
}

}  // namespace bireme
