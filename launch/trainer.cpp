#include "launch/trainer.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/optimizer/clip.h"
#include "distributed/shares.h"

namespace bireme {

namespace {

LearningRateSchedule learning_rate_schedule(const Configuration& configuration, std::int64_t steps) {
  using Shape = LearningRateSchedule::Shape;
  const std::string& type = configuration.schedule.type;
  return {.shape = type == "cosine"        ? Shape::cosine
                   : type == "linear"      ? Shape::linear
                   : type == "exponential" ? Shape::exponential
                                           : Shape::constant,
          .base = configuration.optimizer.learning_rate,
          .minimum = configuration.optimizer.minimum_learning_rate,
          .warmup = configuration.schedule.warmup_steps,
          .total = steps};
}

/// The slice of the flat buffers whose moments this rank keeps: all of it, or its share under ZeRO-1.
Share optimizer_share(const Configuration& configuration, const Communicator& data, std::int64_t elements) {
  return configuration.parallel.zero == 0 ? Share{0, elements} : share_of(elements, data);
}

AdamWOptimizer make_optimizer(const Configuration& configuration, const Context& context,
                              ParameterSet& parameters) {
  const Share share =
      optimizer_share(configuration, context.mesh->data(), parameters.flat_values().elements());
  const auto& o = configuration.optimizer;
  return {*context.backend, parameters, AdamWOptimizer::Options{o.beta1, o.beta2, o.epsilon}, share.begin,
          share.end};
}

}  // namespace

Trainer::Trainer(const Configuration& configuration, const Context& context, Objective& objective,
                 std::int64_t steps)
    : configuration_(configuration),
      context_(context),
      objective_(objective),
      steps_(steps),
      learning_rate_(learning_rate_schedule(configuration, steps)),
      model_(make_network(objective.parameters())) {
  if (const TrainedNetwork* companion = objective.companion())
    companion_.emplace(make_network(companion->parameters));
}

Trainer::Network Trainer::make_network(ParameterSet& parameters) const {
  return {.parameters = parameters,
          .optimizer = make_optimizer(configuration_, context_, parameters),
          .sync = GradientSync(parameters, context_.mesh->data(), configuration_.parallel.bucket_bytes)};
}

ClippedGradients Trainer::clip(const Network& network) const {
  const auto& o = configuration_.optimizer;
  Communicator& tensor = context_.mesh->tensor();
  return clip_gradients(*context_.backend, network.parameters,
                        {.type = o.clip_type == "global" ? ClipType::global : ClipType::parameter,
                         .limit = o.clip_norm,
                         .scale = objective_.gradient_scale()},
                        [&](const Tensor& squares) { tensor.all_reduce(squares, Reduce::sum).wait(); });
}

void Trainer::move(Network& network, double learning_rate, std::int64_t step,
                   const ClippedGradients& clipped) {
  const auto& o = configuration_.optimizer;
  network.optimizer.step(learning_rate, cosine_between(o.weight_decay, o.weight_decay_end, step, steps_),
                         clipped.scales);
}

void Trainer::learn(const Batch& batch, bool is_last) {
  Tape tape(*context_.backend, Tape::Mode::record, profile_);
  const Var loss = objective_.compute(tape, batch);
  model_.sync.begin(is_last);  // only the last part communicates
  tape.backward(loss, &model_.parameters, [&](Parameter& parameter) { model_.sync.ready(parameter); });
  if (companion_) {
    companion_->sync.begin(is_last);
    objective_.backward_companion([&](Parameter& parameter) { companion_->sync.ready(parameter); });
  }
  if (!is_last) return;
  timed("gradient_sync", [&] {
    model_.sync.wait();
    if (companion_) companion_->sync.wait();
  });
}

StepReport Trainer::step(std::int64_t step, const std::function<Batch()>& next,
                         const std::function<void()>& meanwhile) {
  const auto parts = configuration_.parallel.accumulate;
  const Backend& backend = *context_.backend;
  StepReport report{.learning_rate = learning_rate_.at(step)};
  objective_.begin(step);
  model_.parameters.begin_gradients();
  if (companion_) companion_->parameters.begin_gradients();
  for (std::int64_t part = 0; part < parts; ++part) {
    const Batch batch = timed("data", next);
    // A stretch for each part: a GPU runs the one while the next is captured.
    backend.captured(fmt::format("part {}", part), [&] { learn(batch, part + 1 == parts); });
  }
  timed("data", meanwhile);
  report.loss = objective_.reduce();
  const ClippedGradients clipped = clip(model_);
  report.gradient_norm = clipped.norm;
  bool finite = std::isfinite(report.loss) && clipped.finite;
  ClippedGradients clipped_companion;
  if (companion_) {
    clipped_companion = clip(*companion_);
    objective_.companion()->gradient_norm = clipped_companion.norm;
    finite = finite && clipped_companion.finite;
  }
  // Decided alike on all ranks, before any of them moves a weight: what is summed over ranks is not finite
  // anywhere.
  report.skipped = context_.mesh->world().all_reduce_value(finite ? 0 : 1, Reduce::max) > 0;
  if (report.skipped) return report;
  backend.captured("optimizer", [&] {
    timed("optimizer", [&] {
      move(model_, report.learning_rate, step, clipped);
      if (companion_)
        move(*companion_, report.learning_rate * objective_.companion()->learning_rate_scale, step,
             clipped_companion);
    });
    gather_values(model_.parameters);
    if (companion_) gather_values(companion_->parameters);
    objective_.after_step();
  });
  return report;
}

void Trainer::gather_values(ParameterSet& parameters) {
  if (configuration_.parallel.zero == 0 || context_.mesh->data().size() == 1) return;
  gather_shares(parameters.flat_values(), context_.mesh->data());
  parameters.refresh_bf16();
}

}  // namespace bireme
