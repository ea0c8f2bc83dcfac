#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/autograd/parameter.h"
#include "distributed/communicator.h"

namespace bireme {

/// ‖θ - θ'‖², how far the weights of a model are from others: over all parameters but those that have no
/// counterpart, in double. Collective over `tensor`.
/// @param others  of each parameter its values in the other model, or an undefined tensor
/// @param tensor  ranks that the model is split over
double squared_distance(const ParameterSet& parameters, std::span<const Tensor> others, Communicator& tensor);

/// Of each parameter its values in another set, by name; nothing where one is missing or of another shape.
/// @param ignored  begins the names of parameters that the other need not have
std::optional<std::vector<Tensor>> counterparts(const ParameterSet& parameters, const ParameterSet& others,
                                                std::string_view ignored = "value.");

}  // namespace bireme
