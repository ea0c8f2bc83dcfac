#include <cmath>

#include "launch/trainer.h"

namespace bireme {

namespace {

SumOverRanks over_data(const Mesh& mesh) {
  if (mesh.data().size() == 1) return {};
  return [&mesh](const Tensor& values) { mesh.data().all_reduce(values, Reduce::sum).wait(); };
}

DinoNetworkOptions without_drop_path(DinoNetworkOptions options) {
  options.backbone.drop_path = 0;
  return options;
}

/// This data rank's share of the flat buffers when optimiser state is sharded.
std::pair<std::int64_t, std::int64_t> optimizer_share(const Configuration& configuration,
                                                      const Communicator& data, std::int64_t elements) {
  if (configuration.parallel.zero == 0) return {0, elements};
  return {elements * data.rank() / data.size(), elements * (data.rank() + 1) / data.size()};
}

}  // namespace

DinoTrainer::DinoTrainer(const Configuration& configuration, const Context& context,
                         const std::vector<double>& mean, const std::vector<double>& deviation,
                         std::int64_t steps)
    : configuration_(configuration),
      context_(context),
      steps_(steps),
      learning_rate_(learning_rate_schedule(configuration, steps)),
      student_(network_options(configuration), context.mesh->tensor(), over_data(*context.mesh)),
      teacher_(without_drop_path(network_options(configuration)), context.mesh->tensor(),
               over_data(*context.mesh)) {
  Memory& memory = context.backend->memory();
  const bool bf16_copy = context.type == DType::bf16;
  student_.build(memory, {.master = DType::f32, .gradients = true, .bf16_copy = bf16_copy});
  teacher_.build(memory, {.master = DType::f32, .gradients = false, .bf16_copy = bf16_copy});
  published_ = {.options = teacher_.backbone().options(),
                .mean = mean,
                .deviation = deviation,
                .head = teacher_.head().options()};
  initialize();
  const auto& o = configuration.objective;
  objective_ = std::make_unique<DinoObjective>(
      DinoObjective::Options{.student_temperature = o.student_temperature,
                             .center_momentum = o.center_momentum,
                             .seed = static_cast<std::uint64_t>(configuration.run.seed),
                             .type = context.type,
                             .recompute = configuration.precision.recompute},
      *context.backend, *context.mesh, student_, teacher_);
  const auto [begin, end] =
      optimizer_share(configuration, context.mesh->data(), student_.parameters().flat_values().elements());
  optimizer_ = std::make_unique<AdamWOptimizer>(
      *context.backend, student_.parameters(),
      AdamWOptimizer::Options{configuration.optimizer.beta1, configuration.optimizer.beta2,
                              configuration.optimizer.epsilon},
      begin, end);
  sync_ = std::make_unique<GradientSync>(student_.parameters(), context.mesh->data(),
                                         configuration.parallel.bucket_bytes);
}

void DinoTrainer::initialize() {
  ParameterSet& parameters = student_.parameters();
  parameters.initialize(static_cast<std::uint64_t>(configuration_.run.seed));
  if (!configuration_.model.init.empty()) {
    const std::filesystem::path folder = configuration_.model.init;
    const PublishedVisionTransformer source = read_vision_transformer(folder);
    import_vision_transformer(folder, source, parameters, "backbone.");
    if (source.head) import_dino_head(folder, parameters, "head.", student_.head());
    parameters.refresh_bf16();
  }
  teacher_.parameters().copy_from(parameters);
}

StepReport DinoTrainer::step(std::int64_t step, const std::function<ImageBatch()>& next) {
  const auto parts = configuration_.parallel.accumulate;
  StepReport report{.learning_rate = learning_rate_.at(step)};
  ParameterSet& parameters = student_.parameters();
  objective_->begin(dino_step(configuration_, step, steps_));
  parameters.begin_gradients();
  for (std::int64_t part = 0; part < parts; ++part) {
    const ImageBatch batch = next();
    Tape tape(*context_.backend);
    const Var loss = objective_->compute(tape, batch, configuration_.data.batch_size);
    sync_->begin(part + 1 == parts);  // only the last part communicates
    tape.backward(loss, &parameters, [&](Parameter& parameter) { sync_->ready(parameter); });
  }
  sync_->wait();
  report.loss = objective_->reduce();
  Communicator& tensor = context_.mesh->tensor();
  const ClippedGradients clipped =
      clip_gradients(*context_.backend, parameters,
                     configuration_.optimizer.clip_type == "global" ? ClipType::global : ClipType::parameter,
                     configuration_.optimizer.clip_norm,
                     [&](const Tensor& squares) { tensor.all_reduce(squares, Reduce::sum).wait(); });
  report.gradient_norm = clipped.norm;
  // Decided alike on all ranks, before any of them moves a weight: what is summed over ranks is not finite
  // anywhere.
  const bool finite = std::isfinite(report.loss) && clipped.finite;
  report.skipped = context_.mesh->world().all_reduce_value(finite ? 0 : 1, Reduce::max) > 0;
  if (report.skipped) return report;
  optimizer_->step(report.learning_rate,
                   cosine_between(configuration_.optimizer.weight_decay,
                                  configuration_.optimizer.weight_decay_end, step, steps_),
                   clipped.scales);
  gather_values();
  objective_->after_step();
  return report;
}

void DinoTrainer::gather_values() {
  Communicator& data = context_.mesh->data();
  if (configuration_.parallel.zero == 0 || data.size() == 1) return;
  ParameterSet& parameters = student_.parameters();
  const std::int64_t elements = parameters.flat_values().elements();
  for (int rank = 0; rank < data.size(); ++rank) {
    const std::int64_t begin = elements * rank / data.size(), end = elements * (rank + 1) / data.size();
    data.broadcast(parameters.flat_values().view(begin, {end - begin}), rank).wait();
  }
  parameters.refresh_bf16();
}

double DinoTrainer::flops(const ImageBatch& batch) const {
  const ImageGroup& first = batch.groups.front();
  const std::int64_t images = first.pixels.shape().front() / first.crops;
  const ImageGroup globals{first.pixels.slice(0, 2 * images), 2, first.side};
  return 3 * student_.flops(batch) + teacher_.flops(std::span(&globals, 1));
}

}  // namespace bireme
