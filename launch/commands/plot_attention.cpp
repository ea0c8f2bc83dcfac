#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/cpu/cpu_backend.h"
#include "core/data/dataset.h"
#include "core/data/picture_input.h"
#include "core/image/decode.h"
#include "core/image/png_writer.h"
#include "core/image/transform.h"
#include "launch/attention_picture.h"
#include "launch/commands/plot.h"
#include "launch/model_folder.h"
#include "launch/options.h"
#include "launch/terminal.h"
#include "models/attention_maps.h"
#include "models/published/vision_transformer.h"

namespace bireme {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMostPictureBytes = std::int64_t{1} << 30;
constexpr std::size_t kNameLength = 60;  // characters that fit above a row

/// A picture as the model reads it, before normalisation, and what to write above it.
struct Shown {
  std::string name;
  Planes planes;
};

/// Reads pictures as evaluation does: decoded, cropped to the middle, in the channels that the model has.
class PictureReader {
 public:
  PictureReader(int channels, int size) : channels_(channels), crop_(size) {}

  Shown read(std::span<const std::uint8_t> bytes, const std::string& name) {
    return cropped(decoder_.decode(bytes, name, wanted()), name);
  }
  Shown read(const EncodedPicture& picture, const std::string& name) {
    return cropped(decoder_.decode(picture, name, wanted()), name);
  }

 private:
  Channels wanted() const { return channels_ == 3 ? Channels::rgb : Channels::as_stored; }
  Shown cropped(const Picture& picture, const std::string& name) {
    if (picture.channels != channels_)
      throw Error(ErrorKind::data,
                  fmt::format("the picture has {} channels, the model reads {}", picture.channels, channels_),
                  name, "give grey pictures to a model that was trained on grey ones");
    return {name.size() <= kNameLength ? name : name.substr(name.size() - kNameLength), crop_(picture)};
  }

  int channels_;
  PictureDecoder decoder_;
  EvaluationCrop crop_;
};

/// `count` numbers below `size`, evenly apart, so that a dataset sorted by class shows more than one of them.
std::vector<std::int64_t> evenly(std::int64_t size, std::int64_t count) {
  std::vector<std::int64_t> chosen;
  count = std::min(count, size);
  chosen.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) chosen.push_back(i * size / count);
  return chosen;
}

void add_dataset(const fs::path& path, std::int64_t count, PictureReader& reader, std::vector<Shown>& all) {
  const Dataset dataset = Dataset::open(path);
  for (const std::int64_t i : evenly(dataset.records(), count)) {
    const EncodedPicture picture = dataset.read(i);
    all.push_back(reader.read(picture, dataset.place(i)));
    const auto& classes = dataset.manifest().classes;
    const bool is_named = picture.label >= 0 && static_cast<std::size_t>(picture.label) < classes.size();
    all.back().name = fmt::format("record {}{}", i,
                                  is_named ? ": " + classes[static_cast<std::size_t>(picture.label)] : "");
  }
}

void add_files(const fs::path& path, std::int64_t count, PictureReader& reader, std::vector<Shown>& all) {
  const std::unique_ptr<PictureInput> input = open_picture_input({path});
  for (const std::int64_t i : evenly(input->size(), count)) {
    all.push_back(reader.read(input->load(i).bytes, input->name(i)));
    all.back().name = fs::path(input->name(i)).filename().string();
  }
}

void add_picture(const fs::path& path, PictureReader& reader, std::vector<Shown>& all) {
  const std::string bytes = read_file(path, kMostPictureBytes, ErrorKind::data);
  all.push_back(
      reader.read({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, path.string()));
  all.back().name = path.filename().string();
}

std::vector<Shown> read_inputs(const std::vector<std::string>& inputs, std::int64_t count,
                               PictureReader& reader) {
  std::vector<Shown> all;
  for (const fs::path path : inputs) {
    if (folder_kind(path) == FolderKind::dataset) {
      add_dataset(path, count, reader, all);
    } else if (fs::is_directory(path) || path.extension() == ".tar") {
      add_files(path, count, reader, all);
    } else {
      add_picture(path, reader, all);
    }
  }
  return all;
}

std::vector<float> or_half(const std::vector<double>& values, int channels) {
  // transformers' ViTImageProcessor takes 0.5 for mean and deviation where a folder does not say.
  if (values.empty()) return std::vector<float>(static_cast<std::size_t>(channels), 0.5F);
  return {values.begin(), values.end()};
}

/// What the class token looks at in the last block, for each head.
AttentionMaps maps_of(const Backend& backend, const LoadedVisionTransformer& loaded, const Planes& planes) {
  const PublishedVisionTransformer& published = loaded.published;
  const int channels = published.options.channels;
  const Normalization normalize(or_half(published.mean, channels), or_half(published.deviation, channels));
  const Tensor pixels(backend.memory(), {1, channels, planes.height, planes.width}, DType::f32);
  normalize(planes, pixels.data<float>());
  const Tensor maps =
      class_attention(backend.memory(), loaded.model->attention(backend, pixels));  // [1, H, N]
  const auto values = maps.values<float>();
  return {.heads = static_cast<int>(maps.shape()[1]),
          .rows = planes.height / published.options.patch,
          .columns = planes.width / published.options.patch,
          .values = {values.begin(), values.end()}};
}

int chosen_size(const Options& options, const VisionTransformerOptions& model) {
  if (!options.has("size")) return model.image_size;
  const auto size = static_cast<int>(options.integer("size", model.patch, 4096));
  if (size % model.patch != 0)
    throw Error(ErrorKind::usage,
                fmt::format("--size is {}, which patches of {} pixels do not fill", size, model.patch),
                "bireme plot attention", fmt::format("choose {}", size / model.patch * model.patch));
  return size;
}

}  // namespace

int run_plot_attention(Arguments arguments) {
  Options options("bireme plot attention",
                  "draws where the class token of the last block looks, for each head");
  options.required("model", "M", "checkpoint, run or Hugging Face folder of a vision transformer")
      .required_list("input", "PATH", "pictures (.jpg, .png), datasets, folders or .tar archives of pictures")
      .required("output", "FILE.png", "picture to write: one row for each input picture")
      .value("count", "N", "pictures to take of each dataset, folder or archive, evenly apart", "4")
      .value("size", "PIXELS",
             "side of the picture that the model sees; more gives finer maps (default the model's)")
      .example(
          "bireme plot attention --model runs/first --input data/fashion-test --count 8 --output "
          "attention.png")
      .example(
          "bireme plot attention --model models/vit-small --input cat.jpg dog.jpg --size 480 --output "
          "pets.png");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  const std::unique_ptr<Backend> backend = make_cpu_backend(make_host_memory());
  const std::unique_ptr<Communicator> alone = make_single_process();
  const LoadedVisionTransformer loaded =
      load_vision_transformer(resolve_model_folder(options.path("model")), backend->memory(), *alone);
  PictureReader reader(loaded.published.options.channels, chosen_size(options, loaded.published.options));

  std::vector<Picture> pictures;
  std::vector<AttentionMaps> maps;
  AttentionPictureOptions layout;
  for (Shown& shown : read_inputs(options.texts("input"), options.integer("count", 1, 1000), reader)) {
    pictures.push_back(to_picture(shown.planes));
    maps.push_back(maps_of(*backend, loaded, shown.planes));
    layout.names.push_back(std::move(shown.name));
  }
  write_png(options.path("output"), attention_picture(pictures, maps, layout));
  if (options.json()) {
    const nlohmann::ordered_json result = {{"output", options.text("output")}, {"pictures", pictures.size()}};
    fmt::print("{}\n", json_text(result));
  } else {
    fmt::print("wrote {}: {} pictures, {} heads each\n", options.text("output"), pictures.size(),
               maps.front().heads);
  }
  return 0;
}

}  // namespace bireme
