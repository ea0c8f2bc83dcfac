#include "core/image/decode.h"

#include <spdlog/fmt/fmt.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/base/owned.h"
#include "core/image/decode_png.h"

namespace bireme {

namespace {

struct TurboJpegTraits {
  using Handle = tjhandle;
  static Handle null() noexcept { return nullptr; }
  static void close(Handle handle) noexcept { tjDestroy(handle); }
};

[[noreturn]] void fail(const std::string& what, const std::string& name) {
  throw Error(ErrorKind::data, what, name, "replace or remove the file");
}

/// a · b / 255, rounded, as Pillow computes it.
int scaled(int a, int b) {
  const int t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

/// Adobe writes the four inks inverted, 255 meaning none, so that R = C · K with both as stored.
std::vector<std::uint8_t> cmyk_to_rgb(const std::vector<std::uint8_t>& inks) {
  std::vector<std::uint8_t> rgb(inks.size() / 4 * 3);
  for (std::size_t i = 0; i < inks.size() / 4; ++i)
    for (std::size_t c = 0; c < 3; ++c) {
      const int black = inks[i * 4 + 3];
      rgb[i * 3 + c] = static_cast<std::uint8_t>(black - scaled(255 - inks[i * 4 + c], black));
    }
  return rgb;
}

}  // namespace

const char* to_string(Codec codec) {
  switch (codec) {
    case Codec::raw: return "raw";
    case Codec::jpeg: return "jpeg";
    case Codec::png: return "png";
  }
  return "unknown";
}

Codec codec_of(std::span<const std::uint8_t> bytes, const std::string& name) {
  constexpr std::uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (bytes.size() >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff) return Codec::jpeg;
  if (bytes.size() >= 8 && std::equal(std::begin(png), std::end(png), bytes.begin())) return Codec::png;
  fail(bytes.empty() ? "the file is empty" : "the file is neither a JPEG nor a PNG picture", name);
}

struct PictureDecoder::Jpeg {
  Owned<TurboJpegTraits> handle{tjInitDecompress()};

  [[noreturn]] void fail_decoding(const std::string& name) {
    const std::string reason = tjGetErrorStr2(handle.get());
    // A handle that failed within a header refuses the next, whole picture.
    handle = Owned<TurboJpegTraits>(tjInitDecompress());
    fail(fmt::format("the JPEG picture does not decode ({})", reason), name);
  }

  Picture decode(std::span<const std::uint8_t> bytes, const std::string& name) {
    int width = 0, height = 0, subsampling = -1, colours = -1;
    // The call also fails on an unusual chroma layout, after it has found the size; decoding copes with that.
    if (tjDecompressHeader3(handle.get(), bytes.data(), bytes.size(), &width, &height, &subsampling,
                            &colours) != 0 &&
        (width <= 0 || height <= 0 || colours < 0))
      fail_decoding(name);
    if (width <= 0 || height <= 0) fail("the JPEG picture has no pixels", name);
    if (std::int64_t{width} * height > kMaxPixels)
      fail(fmt::format("{} x {} pixels are more than {}", width, height, kMaxPixels), name);
    const bool inks = colours == TJCS_CMYK || colours == TJCS_YCCK;
    const int format = inks ? TJPF_CMYK : colours == TJCS_GRAY ? TJPF_GRAY : TJPF_RGB;
    Picture picture{.width = width, .height = height, .channels = format == TJPF_GRAY ? 1 : 3, .pixels = {}};
    picture.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                          static_cast<std::size_t>(tjPixelSize[format]));
    if (tjDecompress2(handle.get(), bytes.data(), bytes.size(), picture.pixels.data(), width, 0, height,
                      format, TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS) != 0 &&
        !is_harmless(tjGetErrorStr2(handle.get())))
      fail_decoding(name);
    if (inks) picture.pixels = cmyk_to_rgb(picture.pixels);
    return picture;
  }

  /// Padding between segments, which cameras and editors leave behind, costs no pixel; every other warning
  /// does.
  bool is_harmless(const char* message) const {
    return tjGetErrorCode(handle.get()) == TJERR_WARNING &&
           std::strstr(message, "extraneous bytes before marker") != nullptr;
  }
};

PictureDecoder::PictureDecoder() : jpeg_(std::make_unique<Jpeg>()) {
  if (!jpeg_->handle)
    throw Error(ErrorKind::other, "TurboJPEG did not start", "", "check the memory limit of the process");
}
PictureDecoder::PictureDecoder(PictureDecoder&&) noexcept = default;
PictureDecoder& PictureDecoder::operator=(PictureDecoder&&) noexcept = default;
PictureDecoder::~PictureDecoder() = default;

Picture PictureDecoder::decode(std::span<const std::uint8_t> bytes, const std::string& name,
                               Channels channels) {
  Picture picture =
      codec_of(bytes, name) == Codec::jpeg ? jpeg_->decode(bytes, name) : decode_png(bytes, name);
  return channels == Channels::rgb ? to_rgb(std::move(picture)) : picture;
}

Picture PictureDecoder::decode(const EncodedPicture& from, const std::string& name, Channels channels) {
  if (from.codec != Codec::raw) {
    Picture picture = decode(from.bytes, name, channels);
    if (picture.width != from.width || picture.height != from.height)
      fail(fmt::format("the picture is {} x {}, the dataset says {} x {}", picture.width, picture.height,
                       from.width, from.height),
           name);
    return picture;
  }
  Picture picture{
      .width = from.width, .height = from.height, .channels = from.channels, .pixels = from.bytes};
  if (std::int64_t{from.width} * from.height * from.channels != std::ssize(from.bytes))
    fail(fmt::format("{} bytes are not {} x {} x {} pixels", from.bytes.size(), from.height, from.width,
                     from.channels),
         name);
  return channels == Channels::rgb ? to_rgb(std::move(picture)) : picture;
}

std::vector<std::uint8_t> encode_jpeg(const Picture& picture, int quality) {
  const Owned<TurboJpegTraits> handle(tjInitCompress());
  const bool is_grey = picture.channels == 1;
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int status = tjCompress2(handle.get(), picture.pixels.data(), picture.width, 0, picture.height,
                                 is_grey ? TJPF_GRAY : TJPF_RGB, &bytes, &size,
                                 is_grey ? TJSAMP_GRAY : TJSAMP_444, quality, TJFLAG_ACCURATEDCT);
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
  if (status != 0)
    throw Error(ErrorKind::other, fmt::format("cannot compress a picture ({})", tjGetErrorStr2(handle.get())),
                "", "");
  return {bytes, bytes + size};
}

Picture to_rgb(Picture picture) {
  if (picture.channels == 3) return picture;
  std::vector<std::uint8_t> rgb(picture.pixels.size() * 3);
  for (std::size_t i = 0; i < picture.pixels.size(); ++i)
    for (std::size_t c = 0; c < 3; ++c) rgb[i * 3 + c] = picture.pixels[i];
  return {.width = picture.width, .height = picture.height, .channels = 3, .pixels = std::move(rgb)};
}

}  // namespace bireme
