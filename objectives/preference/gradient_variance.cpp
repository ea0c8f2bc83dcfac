#include "objectives/preference/gradient_variance.h"

#include <algorithm>
#include <cmath>

namespace bireme {

namespace {

/// Of vectors that lie in the flat buffers of the parameters; parts on other tensor ranks count as well.
class FlatNorm {
 public:
  FlatNorm(const ParameterSet& parameters, Communicator& tensor) : parameters_(parameters), tensor_(tensor) {}

  /// Collective. @param at  entry i of the vector
  template <class Entry>
  double squared(const Entry& at) const {
    double split = 0, whole = 0;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      const Parameter& parameter = parameters_[p];
      const bool is_split = parameter.partition().parts > 1 && parameter.partition().axis >= 0;
      const std::int64_t begin = parameters_.offset(parameter);
      double sum = 0;
      for (std::int64_t i = begin; i < begin + parameter.value().elements(); ++i) sum += at(i) * at(i);
      (is_split ? split : whole) += sum;
    }
    return whole + tensor_.all_reduce_value(split, Reduce::sum);
  }

 private:
  const ParameterSet& parameters_;
  Communicator& tensor_;
};

}  // namespace

GradientVariance measure_gradient_variance(ParameterSet& parameters, const Mesh& mesh,
                                           const std::vector<std::vector<double>>& weightings,
                                           const std::function<void(std::size_t)>& backward) {
  const std::size_t kinds = weightings.size(), answers = weightings.front().size();
  const std::int64_t size = parameters.flat_gradients().elements();
  const FlatNorm norm(parameters, mesh.tensor());
  const Tensor sums(*make_host_memory(), {static_cast<std::int64_t>(kinds), size}, DType::f32);
  fill(sums, 0);
  // A parameter that these passes do not reach, such as a value head among the policy's, would keep the
  // gradient of the step.
  fill(parameters.flat_gradients(), 0);
  std::vector<double> squared_lengths;
  for (std::size_t i = 0; i < answers; ++i) {
    parameters.begin_gradients();
    backward(i);
    const Tensor gradients = on_host(parameters.flat_gradients());
    const float* gradient = gradients.data<float>();
    squared_lengths.push_back(norm.squared([&](std::int64_t at) { return double{gradient[at]}; }));
    for (std::size_t k = 0; k < kinds; ++k) {
      const double a = weightings[k][i];
      float* sum = sums.data<float>() + static_cast<std::int64_t>(k) * size;
      for (std::int64_t at = 0; at < size; ++at) sum[at] += static_cast<float>(a) * gradient[at];
    }
  }
  Communicator& data = mesh.data();
  data.all_reduce(sums, Reduce::sum).wait();
  const double count = data.all_reduce_value(static_cast<double>(answers), Reduce::sum);
  const auto mean_over_answers = [&](const auto& of) {
    double sum = 0;
    for (std::size_t i = 0; i < answers; ++i) sum += of(i);
    return data.all_reduce_value(sum, Reduce::sum) / count;
  };
  const auto square = [&](std::size_t k, std::size_t i) {
    return weightings[k][i] * weightings[k][i] * squared_lengths[i];
  };
  const auto mean = [&](std::size_t k) { return sums.data<float>() + static_cast<std::int64_t>(k) * size; };
  std::vector<double> traces, lengths;
  for (std::size_t k = 0; k < kinds; ++k) {
    lengths.push_back(norm.squared([&](std::int64_t at) { return mean(k)[at] / count; }));
    traces.push_back(mean_over_answers([&](std::size_t i) { return square(k, i); }) - lengths.back());
  }
  GradientVariance found{.trace = traces[0], .others = {}};
  for (std::size_t k = 1; k < kinds; ++k) {
    const double apart =
        norm.squared([&](std::int64_t at) { return (double{mean(k)[at]} - mean(0)[at]) / count; });
    const double ratio = traces[k] / std::max(traces[0], 1e-300);
    // A ratio of means: to first order it varies as the mean of what each answer adds beyond the ratio.
    const auto beyond = [&](std::size_t i) { return square(k, i) - ratio * square(0, i); };
    const double middle = mean_over_answers(beyond);
    const double spread =
        mean_over_answers([&](std::size_t i) { return (beyond(i) - middle) * (beyond(i) - middle); });
    found.others.push_back({.variance = ratio,
                            .error = std::sqrt(spread / count) / std::max(traces[0], 1e-300),
                            .distance = std::sqrt(apart / std::max(lengths[0], 1e-300))});
  }
  return found;
}

}  // namespace bireme
