#pragma once

#include "launch/configuration.h"
#include "launch/configuration_check.h"

namespace bireme {

/// Fills in what follows from other keys, where the same place, or one that overrides it, does not give it:
///  - for a language model the defaults of one, in place of those of pictures;
///  - embed_dim, depth and heads of a model.size;
///  - optimizer.weight_decay_end, which is weight_decay unless told.
void apply_presets(Configuration& configuration, const Origins& origins);

}  // namespace bireme
