#include "objectives/dino.h"

#include <array>
#include <cmath>
#include <tuple>

#include "core/ops/pointwise/pointwise_kernels.h"
#include "core/ops/update/update_kernels.h"

namespace bireme {

namespace {

constexpr int kGlobalCrops = 2;
constexpr int kStepsToWarn = 100;

int crops_of(const ImageBatch& batch) {
  int crops = 0;
  for (const ImageGroup& group : batch.groups) crops += group.crops;
  return crops;
}

/// The group of the two globals. Where locals have the globals' size all crops are one group, globals first.
ImageGroup globals_of(const ImageBatch& batch) {
  const ImageGroup& first = batch.groups.front();
  const std::int64_t images = first.pixels.shape().front() / first.crops;
  return {first.pixels.slice(0, kGlobalCrops * images), kGlobalCrops, first.side};
}

}  // namespace

DinoObjective::DinoObjective(Options options, const Backend& backend, const Mesh& mesh, DinoNetwork& student,
                             DinoNetwork& teacher)
    : options_(std::move(options)), backend_(backend), mesh_(mesh), student_(student), teacher_(teacher) {
  const Shape prototypes{student.head().options().out_dim / mesh.tensor().size()};
  for (Tensor* sum : {&center_, &logit_sum_, &probability_sum_}) {
    *sum = Tensor(backend.memory(), prototypes, DType::f32);
    fill(*sum, 0);
  }
}

ReduceOverColumns DinoObjective::over_columns() const {
  if (mesh_.tensor().size() == 1) return {};
  return [this](const Tensor& rows, RowReduction reduction) {
    mesh_.tensor().all_reduce(rows, reduction == RowReduction::sum ? Reduce::sum : Reduce::max).wait();
  };
}

void DinoObjective::begin(std::int64_t step) {
  step_ = step;
  settings_ = options_.schedule(step);
  parts_.clear();
  fill(logit_sum_, 0);
  fill(probability_sum_, 0);
  student_.head().freeze_last_layer(settings_.freeze_last_layer);
}

Batch DinoObjective::bring(Batch batch) const {
  for (ImageGroup& group : std::get<ImageBatch>(batch).groups)
    group.pixels = on_device(backend_.memory(), group.pixels);
  return batch;
}

Var DinoObjective::compute(Tape& tape, const Batch& any_batch) {
  const auto batch = std::get<ImageBatch>(bring(any_batch));  // once, for teacher and student
  const int crops = crops_of(batch);
  // The teacher goes first: its activations are freed before the student needs memory.
  Tape no_tape(backend_, Tape::Mode::inference, tape.profile());
  const ImageGroup globals = globals_of(batch);
  const Tensor teacher_logits =
      teacher_.forward(no_tape, std::span(&globals, 1), {.type = options_.type}).value();
  const KeepBranch keep = student_.keep(
      {.seed = options_.seed, .step = static_cast<std::uint64_t>(step_), .records = batch.records});
  const Var logits = student_.forward(tape, batch.groups,
                                      {.type = options_.type, .keep = keep, .recompute = options_.recompute});
  const DinoLoss result = dino_loss(tape, logits, teacher_logits, center_,
                                    {.crops = crops,
                                     .student_temperature = static_cast<float>(options_.student_temperature),
                                     .teacher_temperature = static_cast<float>(settings_.teacher_temperature),
                                     .global_images = options_.global_images},
                                    over_columns());
  parts_.add(result.loss.value(), result.statistics.entropy_sum);
  backend_.pointwise().add({.from = result.statistics.teacher_logit_sum, .to = logit_sum_});
  backend_.pointwise().add({.from = result.statistics.mean_probability_sum, .to = probability_sum_});
  return result.loss;
}

double DinoObjective::sum_over_tensor(double value) const {
  return mesh_.tensor().all_reduce_value(value, Reduce::sum);
}

double DinoObjective::reduce() {
  Communicator& data = mesh_.data();
  data.all_reduce(logit_sum_, Reduce::sum).wait();
  data.all_reduce(probability_sum_, Reduce::sum).wait();
  std::tie(loss_, entropy_) = parts_.sums();
  loss_ = data.all_reduce_value(loss_, Reduce::sum);
  const double rows = static_cast<double>(kGlobalCrops * options_.global_images);
  entropy_ = data.all_reduce_value(entropy_, Reduce::sum) / rows;
  judge_collapse();
  return loss_;
}

void DinoObjective::after_step() {
  const auto keep = static_cast<float>(options_.center_momentum);
  const float share = (1 - keep) / static_cast<float>(kGlobalCrops * options_.global_images);
  backend_.pointwise().scale({.x = center_, .factor = keep, .to = {center_, false}});
  backend_.pointwise().scale({.x = logit_sum_, .factor = share, .to = {center_, true}});
  backend_.update().average({.values = student_.parameters().flat_values(),
                             .average = teacher_.parameters().flat_values(),
                             .bf16_copy = teacher_.parameters().flat_bf16(),
                             .momentum = static_cast<float>(settings_.teacher_momentum)});
}

void DinoObjective::judge_collapse() {
  const double largest = std::log(static_cast<double>(student_.head().options().out_dim));
  const double kl = loss_ - entropy_;
  const bool collapsed = kl < 0.01 && (entropy_ > 0.98 * largest || entropy_ < 0.02 * largest);
  collapsed_steps_ = collapsed ? collapsed_steps_ + 1 : 0;
}

std::string DinoObjective::warning() const {
  if (collapsed_steps_ == 0 || collapsed_steps_ % kStepsToWarn != 0) return {};
  const bool uniform = entropy_ > 1;
  return uniform ? "the teacher's outputs are uniform (its entropy is that of all prototypes alike): lower "
                   "objective.teacher_temperature or optimizer.learning_rate, raise data.batch_size, or "
                   "freeze the last "
                   "layer longer"
                 : "the teacher's outputs have collapsed to one prototype (entropy near 0): raise "
                   "objective.teacher_temperature, or check that objective.center_momentum is below 1";
}

double DinoObjective::flops(const Batch& any_batch) const {
  const auto& batch = std::get<ImageBatch>(any_batch);
  const ImageGroup globals = globals_of(batch);
  return 3 * student_.flops(batch.groups) + teacher_.flops(std::span(&globals, 1));
}

std::vector<std::pair<std::string, double>> DinoObjective::terms() const {
  const std::vector<Tensor> found = on_host(std::array{center_, probability_sum_});
  double square = 0, marginal_entropy = 0;
  for (const float c : found[0].values<float>()) square += double{c} * c;
  for (const float sum : found[1].values<float>()) {
    const double p = sum / static_cast<double>(kGlobalCrops * options_.global_images);
    if (p > 0) marginal_entropy -= p * std::log(p);
  }
  return {{"teacher_entropy", entropy_},
          {"kl", loss_ - entropy_},
          {"marginal_entropy", sum_over_tensor(marginal_entropy)},
          {"center_norm", std::sqrt(sum_over_tensor(square))},
          {"teacher_temperature", settings_.teacher_temperature},
          {"teacher_momentum", settings_.teacher_momentum}};
}

}  // namespace bireme
