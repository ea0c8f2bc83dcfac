#include "launch/dino_task.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "launch/checkpoint_files.h"
#include "launch/dino_options.h"
#include "launch/model_folder.h"
#include "models/published/vision_transformer_names.h"

namespace bireme {

namespace {

constexpr int kNeighbors = 20;  // usually the best of the paper's 10, 20, 100, 200

SumOverRanks over_data(const Mesh& mesh) {
  if (mesh.data().size() == 1) return {};
  return [&mesh](const Tensor& values) { mesh.data().all_reduce(values, Reduce::sum).wait(); };
}

DinoNetworkOptions without_drop_path(DinoNetworkOptions options) {
  options.backbone.drop_path = 0;
  return options;
}

/// Running statistics under the names of the head's parameters in that file: with or without `head.`.
void add_statistics(CheckpointFile& file, std::size_t cut, const DinoHead& head) {
  for (const DinoHead::Buffer& buffer : head.buffers())
    file.tensors.push_back(
        {.name = buffer.name.substr(cut), .local = buffer.value, .whole = buffer.value.shape()});
}

}  // namespace

DinoTask::DinoTask(const Configuration& configuration, const Context& context, TaskData data)
    : configuration_(configuration),
      context_(context),
      steps_(std::max<std::int64_t>(1, configuration.run.steps)),
      student_(network_options(configuration), context.mesh->tensor(), over_data(*context.mesh)),
      teacher_(without_drop_path(network_options(configuration)), context.mesh->tensor(),
               over_data(*context.mesh)) {
  if (data == TaskData::real) open_data();
  Memory& memory = context.backend->memory();
  const bool bf16_copy = context.type == DType::bf16;
  student_.build(memory, {.master = DType::f32, .gradients = true, .bf16_copy = bf16_copy});
  teacher_.build(memory, {.master = DType::f32, .gradients = false, .bf16_copy = bf16_copy});
  published_ = {.options = teacher_.backbone().options(),
                .mean = {crops_.mean.begin(), crops_.mean.end()},
                .deviation = {crops_.std.begin(), crops_.std.end()},
                .head = teacher_.head().options()};
  initialize();
  const auto& o = configuration.objective;
  objective_ = std::make_unique<DinoObjective>(
      DinoObjective::Options{
          .student_temperature = o.student_temperature,
          .center_momentum = o.center_momentum,
          .seed = static_cast<std::uint64_t>(configuration.run.seed),
          .type = context.type,
          .recompute = configuration.precision.recompute,
          .global_images = configuration.data.batch_size,
          .schedule = [this](std::int64_t step) { return dino_step(configuration_, step, steps_); }},
      *context.backend, *context.mesh, student_, teacher_);
}

void DinoTask::open_data() {
  const auto& d = configuration_.data;
  dataset_ = std::make_unique<Dataset>(Dataset::open(d.path));
  const ImageManifest& manifest = dataset_->manifest();
  if (manifest.channels != configuration_.model.channels) {
    throw Error(ErrorKind::usage,
                fmt::format("model.channels is {}, but the pictures have {}", configuration_.model.channels,
                            manifest.channels),
                dataset_->folder().string(), fmt::format("set model.channels to {}", manifest.channels));
  }
  crops_ = multi_crop_options(configuration_, *dataset_);
  validate(crops_, manifest.width > 0 ? manifest.width : crops_.global_size,
           manifest.height > 0 ? manifest.height : crops_.global_size, manifest.channels);
  sampler_ =
      std::make_unique<Sampler>(SamplerOptions{.records = dataset_->records(),
                                               .batch_size = d.batch_size,
                                               .seed = static_cast<std::uint64_t>(configuration_.run.seed),
                                               .shuffled = d.order == "shuffled"});
  if (configuration_.run.epochs > 0) steps_ = configuration_.run.epochs * sampler_->iterations_per_epoch();
  if (configuration_.run.evaluate_every <= 0 || d.evaluation_train.empty()) return;
  const int size = static_cast<int>(configuration_.model.image_size);
  const int channels = static_cast<int>(configuration_.model.channels);
  const std::vector<double> mean(crops_.mean.begin(), crops_.mean.end()),
      deviation(crops_.std.begin(), crops_.std.end());
  train_ = std::make_unique<EvaluationPictures>(Dataset::open(d.evaluation_train), size, channels, mean,
                                                deviation);
  test_ =
      std::make_unique<EvaluationPictures>(Dataset::open(d.evaluation_test), size, channels, mean, deviation);
}

void DinoTask::initialize() {
  ParameterSet& parameters = student_.parameters();
  parameters.initialize(static_cast<std::uint64_t>(configuration_.run.seed));
  if (!configuration_.model.init.empty()) {
    const std::filesystem::path folder =
        resolve_model_folder(configuration_.model.init, context_.mesh->world());
    const PublishedVisionTransformer source = read_vision_transformer(folder);
    import_vision_transformer(folder, source, parameters, "backbone.");
    if (source.head) import_dino_head(folder, parameters, "head.", student_.head());
    parameters.refresh_bf16();
  }
  teacher_.parameters().copy_from(parameters);
}

void DinoTask::start(std::int64_t step) {
  const Communicator& data = context_.mesh->data();
  const std::int64_t workers = configuration_.data.workers;
  loader_ = std::make_unique<ImageLoader>(
      LoaderOptions{.seed = static_cast<std::uint64_t>(configuration_.run.seed),
                    .start_step = step,
                    .accumulate = static_cast<int>(configuration_.parallel.accumulate),
                    .data_rank = data.rank(),
                    .data_size = data.size(),
                    .workers = workers > 0 ? static_cast<int>(workers) : 1},
      crops_, *sampler_,
      PictureSource{.read = [this](std::int64_t record) { return dataset_->read(record); },
                    .name = [this](std::int64_t record) { return dataset_->place(record); }},
      make_host_memory());
}

Batch DinoTask::made_up_batch() const {
  const auto& d = configuration_.data;
  const Communicator& data = context_.mesh->data();
  const std::int64_t images = d.batch_size / configuration_.parallel.accumulate / data.size();
  ImageBatch batch;
  for (std::int64_t i = 0; i < images; ++i) batch.records.push_back(data.rank() * images + i);
  const auto add = [&](std::int64_t crops, std::int64_t side) {
    if (crops == 0) return;
    const Tensor pixels(context_.backend->memory().host(),
                        {crops * images, configuration_.model.channels, side, side}, DType::f32);
    RandomStream random(0, static_cast<std::uint64_t>(side), RandomUse::test);
    for (float& x : pixels.values<float>()) x = static_cast<float>(random.uniform(-1.7, 1.7));
    batch.groups.push_back({pixels, static_cast<int>(crops), static_cast<int>(side)});
  };
  if (d.local_size == d.global_size) {
    add(2 + d.local_crops, d.global_size);
  } else {
    add(2, d.global_size);
    add(d.local_crops, d.local_size);
  }
  batch.global_count = d.batch_size;
  return batch;
}

CheckpointContent DinoTask::model() const {
  const ParameterSet& teacher = teacher_.parameters();
  CheckpointContent content;
  content.files = {published_file("model.safetensors",
                                  vision_transformer_tensors(published_.options, "backbone."), teacher),
                   published_file("dino_head.safetensors", dino_head_tensors(teacher, "head."), teacher)};
  add_statistics(content.files.back(), std::string_view("head.").size(), teacher_.head());
  for (const Document& document : vision_transformer_documents(published_, DType::f32))
    content.texts[document.name] = document.text;
  return content;
}

std::vector<CheckpointFile> DinoTask::state() const {
  CheckpointFile file{.name = "student.safetensors", .tensors = {}};
  const ParameterSet& student = student_.parameters();
  for (std::size_t i = 0; i < student.size(); ++i)
    file.tensors.push_back(whole_parameter(student[i].name(), student[i], student[i].value()));
  add_statistics(file, 0, student_.head());
  const Tensor& center = objective_->center();
  const Communicator& tensor = context_.mesh->tensor();
  file.tensors.push_back(
      {.name = "center",
       .local = center,
       .whole = {center.elements() * tensor.size()},
       .partition = {.axis = 0, .blocks = 1, .part = tensor.rank(), .parts = tensor.size()}});
  return {file};
}

void DinoTask::loaded() {
  student_.parameters().refresh_bf16();
  teacher_.parameters().refresh_bf16();
}

double DinoTask::score(const LabeledFeatures& train, const LabeledFeatures& test) const {
  return evaluate_knn(*context_.backend, context_.mesh->data(), train, test, {.neighbors = {kNeighbors}})[0]
      .top1;
}

double DinoTask::accuracy(const DinoNetwork& network) const {
  const auto features = [&](const EvaluationPictures& pictures) {
    return class_token_features(*context_.backend, context_.mesh->data(), network.backbone(), pictures,
                                context_.type);
  };
  return score(features(*train_), features(*test_));
}

TrainingEvaluation DinoTask::evaluate(bool is_first) {
  const double teacher = accuracy(teacher_);
  if (is_first) {
    const double raw =
        score(pixel_features(*context_.backend, *train_), pixel_features(*context_.backend, *test_));
    return {.numbers = {{"knn_untrained", teacher}, {"knn_raw", raw}, {"knn_teacher", teacher}},
            .message = fmt::format("20-NN before training: network {:.2f} %, raw pixels {:.2f} %",
                                   100 * teacher, 100 * raw)};
  }
  const double student = accuracy(student_);
  return {.numbers = {{"knn_teacher", teacher}, {"knn_student", student}},
          .message = fmt::format("20-NN teacher {:.2f} %, student {:.2f} %", 100 * teacher, 100 * student)};
}

}  // namespace bireme
