#include "launch/vision_features.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/image/decode.h"

namespace bireme {

namespace {

constexpr std::int64_t kBatch = 64;

/// Grey pictures that a colour model sees as colour have the same statistics in each channel.
std::vector<float> for_each_channel(const std::vector<double>& values, int channels) {
  if (values.size() == 1)
    return std::vector<float>(static_cast<std::size_t>(channels), static_cast<float>(values[0]));
  return {values.begin(), values.end()};
}

/// Fills rows [begin, end) of this rank's share by `forward`, then gathers the shares.
LabeledFeatures gather_features(const Backend& backend, Communicator& ranks,
                                const EvaluationPictures& pictures, std::int64_t channels,
                                const FeatureProgress& progress,
                                const std::function<Tensor(const Tensor&)>& forward) {
  const std::int64_t records = pictures.records();
  const std::int64_t share = (records + ranks.size() - 1) / ranks.size();
  const Tensor all(backend.memory(), {share * ranks.size(), channels}, DType::f32);
  const Tensor own = all.slice(share * ranks.rank(), share * (ranks.rank() + 1));
  fill(own, 0);
  const std::int64_t first = std::min(records, share * ranks.rank()), last = std::min(records, first + share);
  for (std::int64_t begin = first; begin < last; begin += kBatch) {
    const std::int64_t end = std::min(last, begin + kBatch);
    copy(forward(pictures.pixels(backend.memory().host(), begin, end)),
         own.slice(begin - first, end - first));
    ranks.beat();
    if (progress) progress(std::min(records, (end - first) * ranks.size()), records);
  }
  ranks.all_gather(own, all).wait();
  return {all.slice(0, records), pictures.labels()};
}

}  // namespace

EvaluationPictures::EvaluationPictures(const Dataset& dataset, int size, int channels,
                                       const std::vector<double>& mean, const std::vector<double>& deviation)
    : size_(size),
      channels_(channels),
      normalization_(for_each_channel(mean, channels), for_each_channel(deviation, channels)) {
  if (normalization_.channels() != channels)
    throw Error(ErrorKind::data,
                fmt::format("the pictures have mean and deviation of {} channels, the model reads {}",
                            normalization_.channels(), channels),
                dataset.folder().string(), "give grey pictures to a model that was trained on grey ones");
  const std::int64_t area = std::int64_t{size} * size * channels;
  planes_.resize(static_cast<std::size_t>(dataset.records() * area));
  PictureDecoder decoder;
  EvaluationCrop crop(size);
  for (std::int64_t record = 0; record < dataset.records(); ++record) {
    const EncodedPicture encoded = dataset.read(record);
    const Planes& planes = crop(
        decoder.decode(encoded, dataset.place(record), channels == 3 ? Channels::rgb : Channels::as_stored));
    if (planes.channels != channels)
      throw Error(ErrorKind::data,
                  fmt::format("the picture has {} channels, the model reads {}", planes.channels, channels),
                  dataset.place(record), "give grey pictures to a model that was trained on grey ones");
    std::copy_n(planes.values.begin(), area, planes_.begin() + record * area);
    labels_.push_back(encoded.label);
  }
}

Tensor EvaluationPictures::pixels(Memory& memory, std::int64_t begin, std::int64_t end) const {
  const Tensor pixels(memory, {end - begin, channels_, size_, size_}, DType::f32);
  const std::int64_t area = std::int64_t{size_} * size_;
  const std::uint8_t* from = planes_.data() + begin * channels_ * area;
  float* to = pixels.data<float>();
#pragma omp parallel for
  for (std::int64_t plane = 0; plane < (end - begin) * channels_; ++plane) {
    normalization_.normalize_plane(static_cast<int>(plane % channels_),
                                   {from + plane * area, static_cast<std::size_t>(area)}, to + plane * area);
  }
  return pixels;
}

LabeledFeatures class_token_features(const Backend& backend, Communicator& ranks,
                                     const VisionTransformer& model, const EvaluationPictures& pictures,
                                     DType type, const FeatureProgress& progress) {
  return gather_features(backend, ranks, pictures, model.options().embed_dim, progress,
                         [&](const Tensor& pixels) {
                           Tape tape(backend, Tape::Mode::inference);
                           return model.features(tape, {Var(pixels)}, {.type = type, .keep = {}}).value();
                         });
}

LabeledFeatures last_blocks_features(const Backend& backend, Communicator& ranks,
                                     const VisionTransformer& model, const EvaluationPictures& pictures,
                                     int blocks, DType type, const FeatureProgress& progress) {
  const std::int64_t channels = model.options().embed_dim;
  return gather_features(backend, ranks, pictures, blocks * channels, progress, [&](const Tensor& pixels) {
    Tape tape(backend, Tape::Mode::inference);
    const std::vector<Var> tokens =
        model.intermediate(tape, {Var(pixels)}, blocks, {.type = type, .keep = {}});
    const std::int64_t images = pixels.shape().front(), length = tokens.front().value().rows() / images;
    const Tensor features(backend.memory(), {images, blocks * channels}, DType::f32);
    for (std::int64_t image = 0; image < images; ++image)
      for (int block = 0; block < blocks; ++block)
        copy(tokens[static_cast<std::size_t>(block)].value().view(image * length * channels, {channels}),
             features.view((image * blocks + block) * channels, {channels}));
    return features;
  });
}

LabeledFeatures pixel_features(const Backend& backend, const EvaluationPictures& pictures) {
  const Tensor pixels = pictures.pixels(backend.memory().host(), 0, pictures.records());
  return {
      pixels.reshape({pictures.records(), pixels.elements() / std::max<std::int64_t>(1, pictures.records())}),
      pictures.labels()};
}

}  // namespace bireme
