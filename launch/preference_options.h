#pragma once

#include <memory>

#include "core/data/answer_packing.h"
#include "launch/configuration.h"
#include "objectives/preference/preference_loss.h"

namespace bireme {

/// The loss that objective.type names, with the options of the configuration.
std::unique_ptr<PreferenceLoss> make_preference_loss(const Configuration& configuration);
/// Which answers of a record are laid out, and what of them is imitated.
PackingOptions packing_options(const Configuration& configuration);
/// Whether the objective has a value function.
bool has_value_function(const Configuration& configuration);
/// Whether it reads pairs, or single answers.
bool reads_pairs(const Configuration& configuration);

}  // namespace bireme
