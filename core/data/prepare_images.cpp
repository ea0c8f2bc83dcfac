#include "core/data/prepare_images.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <optional>

#include "core/base/error.h"
#include "core/data/picture_input.h"
#include "core/data/writer.h"
#include "core/image/decode.h"
#include "core/image/resize.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxRawPixels = 64 * 64;
constexpr std::int64_t kBlock = 256;  // pictures decoded side by side before they are written in order

/// Sums of pixel values and of their squares. Whole numbers, so the order of adding does not matter and
/// nothing cancels: 2^64 has room for the squares of 2.8e14 pixels.
struct PixelSums {
  std::array<std::uint64_t, 3> sum{}, square{};
  std::uint64_t count = 0;

  void add(const Picture& picture) {
    const std::size_t channels = static_cast<std::size_t>(picture.channels);
    for (std::size_t i = 0; i < picture.pixels.size(); ++i) {
      const std::uint64_t value = picture.pixels[i];
      sum[i % channels] += value;
      square[i % channels] += value * value;
    }
    count += picture.pixels.size() / channels;
  }
  void add(const PixelSums& other) {
    for (std::size_t c = 0; c < 3; ++c) {
      sum[c] += other.sum[c];
      square[c] += other.square[c];
    }
    count += other.count;
  }
  /// Grey pictures among colours count as the RGB pictures that they are shown as.
  PixelSums as_rgb() const {
    return {.sum = {sum[0], sum[0], sum[0]}, .square = {square[0], square[0], square[0]}, .count = count};
  }

  double mean(std::size_t channel) const {
    return static_cast<double>(sum[channel]) / static_cast<double>(count) / 255.0;
  }
  /// variance = (count · Σx² - (Σx)²) / count², the difference in 128 bits
  double deviation(std::size_t channel) const {
    const auto difference = static_cast<unsigned __int128>(count) * square[channel] -
                            static_cast<unsigned __int128>(sum[channel]) * sum[channel];
    return std::sqrt(static_cast<double>(difference)) / static_cast<double>(count) / 255.0;
  }
};

struct Prepared {
  EncodedPicture picture;
  PixelSums pixels;
  std::exception_ptr failure;
};

Picture resized(const Picture& picture, int shorter, const std::string& name) {
  const std::int64_t low = std::min(picture.width, picture.height),
                     high = std::max(picture.width, picture.height);
  if (low == shorter) return picture;
  const std::int64_t longer = high * shorter / low;
  if (longer * shorter > kMaxPixels)
    throw Error(ErrorKind::data,
                fmt::format("{} x {} pixels would become {} x {}", high, low, longer, shorter), name,
                "replace or remove the file");
  const bool upright = picture.height >= picture.width;
  return resize(picture, upright ? shorter : static_cast<int>(longer),
                upright ? static_cast<int>(longer) : shorter);
}

/// Decodes, resizes where asked to, and chooses how to store.
Prepared prepare(PictureDecoder& decoder, EncodedPicture from, const std::string& name, int image_size) {
  const bool is_file = from.codec == Codec::raw && from.height == 0;
  Picture picture = is_file ? decoder.decode(from.bytes, name) : decoder.decode(from, name);
  if (is_file) from.codec = codec_of(from.bytes, name);
  const int width = picture.width, height = picture.height;
  if (image_size > 0) picture = resized(picture, image_size, name);
  const bool changed = picture.width != width || picture.height != height;

  Prepared result;
  result.pixels.add(picture);
  result.picture = std::move(from);
  result.picture.width = picture.width;
  result.picture.height = picture.height;
  result.picture.channels = picture.channels;
  if (std::int64_t{picture.width} * picture.height <= kMaxRawPixels) {
    result.picture.codec = Codec::raw;
    result.picture.bytes = std::move(picture.pixels);
  } else if (changed) {
    result.picture.codec = Codec::jpeg;
    result.picture.bytes = encode_jpeg(picture);
  }
  return result;
}

/// Pictures [begin, end), in parallel. A failure stays with its picture.
std::vector<Prepared> prepare_block(const PictureInput& input, std::vector<PictureDecoder>& decoders,
                                    int image_size, std::int64_t begin, std::int64_t end) {
  std::vector<Prepared> block(static_cast<std::size_t>(end - begin));
#pragma omp parallel for schedule(dynamic, 4) num_threads(static_cast <int>(decoders.size()))
  for (std::int64_t i = begin; i < end; ++i) {
    Prepared& prepared = block[static_cast<std::size_t>(i - begin)];
    try {
      PictureDecoder& decoder = decoders[static_cast<std::size_t>(omp_get_thread_num())];
      prepared = prepare(decoder, input.load(i), input.name(i), image_size);
    } catch (...) {
      prepared.failure = std::current_exception();
    }
  }
  return block;
}

/// The reason why a picture is left out; rethrows what must stop the work.
std::string reason_to_skip(const std::exception_ptr& failure, bool skip_broken) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::data) throw;
    if (!skip_broken)
      throw Error(error.kind(), error.problem(), error.where(),
                  "replace or remove the file, or leave such out with --skip-broken");
    return fmt::format("{}: {}", error.where(), error.problem());
  }
}

}  // namespace

PrepareImagesReport prepare_images(const PrepareImagesOptions& options) {
  if (options.image_size < 0 || options.image_size > 1 << 14)
    throw Error(ErrorKind::usage, fmt::format("--image-size is {}", options.image_size), "",
                "choose 1 to 16384 pixels");
  const std::unique_ptr<PictureInput> input = open_picture_input(options.inputs);
  DatasetWriter writer({.output = options.output,
                        .split = options.split,
                        .classes = input->classes(),
                        .shard_size = options.shard_size,
                        .replace = options.replace});
  PrepareImagesReport report{
      .records = 0, .ignored = input->ignored(), .broken = {}, .classes = input->classes()};
  std::vector<PictureDecoder> decoders(static_cast<std::size_t>(omp_get_max_threads()));
  PixelSums grey, rgb;
  for (std::int64_t begin = 0; begin < input->size(); begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, input->size());
    for (Prepared& prepared : prepare_block(*input, decoders, options.image_size, begin, end)) {
      if (prepared.failure) {
        report.broken.push_back(reason_to_skip(prepared.failure, options.skip_broken));
        continue;
      }
      (prepared.picture.channels == 1 ? grey : rgb).add(prepared.pixels);
      writer.append(std::move(prepared.picture));
    }
    if (options.progress) options.progress(end, input->size());
  }

  report.records = writer.records();
  std::vector<double> mean, deviation;
  if (writer.channels() == 3) rgb.add(grey.as_rgb());
  const PixelSums& all = writer.channels() == 3 ? rgb : grey;
  for (std::size_t c = 0; c < static_cast<std::size_t>(writer.channels()) && all.count > 0; ++c) {
    mean.push_back(all.mean(c));
    deviation.push_back(all.deviation(c));
  }
  writer.finish(mean, deviation);
  return report;
}

}  // namespace bireme
