#include "objectives/evaluate/squared_distance.h"

namespace bireme {

double squared_distance(const ParameterSet& parameters, std::span<const Tensor> others,
                        Communicator& tensor) {
  double split = 0, whole = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!others[i].defined()) continue;
    const Tensor a = on_host(parameters[i].value()), b = on_host(others[i]);
    const std::span<const float> x = a.values<float>(), y = b.values<float>();
    const bool is_split = parameters[i].partition().parts > 1 && parameters[i].partition().axis >= 0;
    double& sum = is_split ? split : whole;
    for (std::size_t j = 0; j < x.size(); ++j) {
      const double step = double{x[j]} - double{y[j]};
      sum += step * step;
    }
  }
  return whole + tensor.all_reduce_value(split, Reduce::sum);
}

std::optional<std::vector<Tensor>> counterparts(const ParameterSet& parameters, const ParameterSet& others,
                                                std::string_view ignored) {
  std::vector<Tensor> values;
  values.reserve(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter* other = others.find(parameters[i].name());
    if (other == nullptr && parameters[i].name().starts_with(ignored)) {
      values.emplace_back();
      continue;
    }
    if (other == nullptr || other->shape() != parameters[i].shape()) return {};
    values.push_back(other->value());
  }
  return values;
}

}  // namespace bireme
