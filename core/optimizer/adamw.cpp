#include "core/optimizer/adamw.h"

#include <algorithm>
#include <cmath>

#include "core/ops/update/update_kernels.h"

namespace bireme {

AdamWOptimizer::AdamWOptimizer(const Backend& backend, ParameterSet& parameters, const Options& options,
                               std::int64_t begin, std::int64_t end)
    : backend_(backend),
      parameters_(parameters),
      options_(options),
      begin_(begin),
      end_(end),
      first_(backend.memory(), {end - begin}, DType::f32),
      second_(backend.memory(), {end - begin}, DType::f32),
      steps_(parameters.size(), 0) {
  fill(first_, 0);
  fill(second_, 0);
}

void AdamWOptimizer::step(double learning_rate, double weight_decay, std::span<const float> scales) {
  std::vector<AdamWSlice> slices;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    if (!parameter.trainable()) continue;
    const auto t = static_cast<double>(++steps_[i]);
    const std::int64_t offset = parameters_.offset(parameter);
    const std::int64_t from = std::max(offset, begin_),
                       to = std::min(offset + parameter.value().elements(), end_);
    if (from >= to) continue;
    slices.push_back({.begin = from - begin_,
                      .end = to - begin_,
                      .learning_rate = static_cast<float>(learning_rate * parameter.learning_rate_scale()),
                      .weight_decay = parameter.decays() ? static_cast<float>(weight_decay) : 0.0F,
                      .gradient_scale = scales.empty() ? 1.0F : scales[i],
                      .bias1 = static_cast<float>(1 - std::pow(options_.beta1, t)),
                      .bias2 = static_cast<float>(1 - std::pow(options_.beta2, t))});
  }
  const Shape own{end_ - begin_};
  const Tensor& copy = parameters_.flat_bf16();
  backend_.update().adamw({.values = parameters_.flat_values().view(begin_, own),
                           .gradients = parameters_.flat_gradients().view(begin_, own),
                           .first_moment = first_,
                           .second_moment = second_,
                           .bf16_copy = copy.defined() ? copy.view(begin_, own) : Tensor(),
                           .slices = slices,
                           .beta1 = static_cast<float>(options_.beta1),
                           .beta2 = static_cast<float>(options_.beta2),
                           .epsilon = static_cast<float>(options_.epsilon)});
}

}  // namespace bireme
