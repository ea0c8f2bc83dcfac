#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/image/picture.h"

namespace bireme {

/// How the bytes of a stored picture are to be read.
enum class Codec : std::uint8_t { raw = 0, jpeg = 1, png = 2 };
const char* to_string(Codec codec);

/// A picture as it lies in a dataset.
struct EncodedPicture {
  Codec codec = Codec::raw;
  std::vector<std::uint8_t> bytes;  ///< raw: pixels [height, width, channels]
  int height = 0, width = 0, channels = 0;
  std::int32_t label = -1;  ///< -1: unknown
};

enum class Channels : std::uint8_t {
  as_stored,  ///< 1 for grey pictures, else 3
  rgb,        ///< always 3; grey is repeated
};

/// Pillow's guard against pictures that are small as files and huge in memory.
constexpr std::int64_t kMaxPixels = 178956970;

/// Decodes JPEG and PNG to what Pillow's convert("RGB") gives: palettes are looked up, alpha is dropped (not
/// blended), 16 bits are cut to their upper 8, CMYK follows Adobe's inverted convention, an EXIF orientation
/// is not applied. One per thread.
class PictureDecoder {
 public:
  PictureDecoder();
  PictureDecoder(PictureDecoder&&) noexcept;
  PictureDecoder& operator=(PictureDecoder&&) noexcept;
  ~PictureDecoder();

  /// The format is told from the bytes. `name` is for messages.
  /// @throws Error (data) for bytes that are no picture, truncated, corrupt, or of more than kMaxPixels
  Picture decode(std::span<const std::uint8_t> bytes, const std::string& name,
                 Channels channels = Channels::as_stored);
  /// A picture of a dataset. @throws Error (data) also when it decodes to another size than it declares
  Picture decode(const EncodedPicture& picture, const std::string& name,
                 Channels channels = Channels::as_stored);

 private:
  struct Jpeg;
  std::unique_ptr<Jpeg> jpeg_;
};

/// The codec that the first bytes announce. @throws Error (data) for anything but JPEG and PNG
Codec codec_of(std::span<const std::uint8_t> bytes, const std::string& name);

/// JPEG with full chroma resolution. @throws Error (other)
std::vector<std::uint8_t> encode_jpeg(const Picture& picture, int quality = 95);

/// Grey to RGB; an RGB picture stays as it is.
Picture to_rgb(Picture picture);

}  // namespace bireme
