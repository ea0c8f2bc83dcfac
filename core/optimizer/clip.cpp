#include "core/optimizer/clip.h"

#include <algorithm>
#include <cmath>

#include "core/ops/update/update_kernels.h"

namespace bireme {

namespace {

/// Squared norms by parameter index; frozen parameters have none.
std::vector<double> squared_norms(const Backend& backend, const ParameterSet& parameters) {
  std::vector<std::pair<std::int64_t, std::int64_t>> slices;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const std::int64_t begin = parameters.offset(parameter);
    slices.emplace_back(begin, parameter.trainable() ? begin + parameter.value().elements() : begin);
  }
  std::vector<double> squares(slices.size());
  backend.update().squared_norms(parameters.flat_gradients(), slices, squares);
  return squares;
}

void sum_split_parameters(const Backend& backend, const ParameterSet& parameters,
                          std::vector<double>& squares, const std::function<void(const Tensor&)>& sum) {
  std::vector<std::size_t> split;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (parameters[i].partition().parts > 1 && parameters[i].partition().axis >= 0) split.push_back(i);
  if (!sum || split.empty()) return;
  const Tensor values(backend.memory().host(), {static_cast<std::int64_t>(split.size())}, DType::f64);
  for (std::size_t i = 0; i < split.size(); ++i) values.data<double>()[i] = squares[split[i]];
  sum(values);
  for (std::size_t i = 0; i < split.size(); ++i) squares[split[i]] = values.data<double>()[i];
}

}  // namespace

ClippedGradients clip_gradients(const Backend& backend, const ParameterSet& parameters,
                                const ClipOptions& options, const std::function<void(const Tensor&)>& sum) {
  std::vector<double> squares = squared_norms(backend, parameters);
  sum_split_parameters(backend, parameters, squares, sum);
  ClippedGradients result;
  double total = 0;
  for (const double square : squares) {
    total += square;
    result.norms.push_back(options.scale * std::sqrt(square));
  }
  result.norm = options.scale * std::sqrt(total);
  result.finite = std::isfinite(result.norm);
  for (const double norm : result.norms) {
    const double length = options.type == ClipType::global ? result.norm : norm;
    const double clip = options.limit > 0 ? std::min(1.0, options.limit / (length + 1e-6)) : 1.0;
    result.scales.push_back(static_cast<float>(options.scale * clip));
  }
  return result;
}

}  // namespace bireme
