#pragma once

#include "core/data/dataset.h"
#include "core/image/multi_crop.h"
#include "core/optimizer/schedule.h"
#include "launch/configuration.h"
#include "models/dino_network.h"
#include "objectives/dino.h"

namespace bireme {

// What the configuration's keys mean for each part of a DINO run.

DinoNetworkOptions network_options(const Configuration& configuration);
/// Mean and deviation of the pixels come from the dataset where the configuration gives none.
MultiCropOptions multi_crop_options(const Configuration& configuration, const Dataset& dataset);
DinoStep dino_step(const Configuration& configuration, std::int64_t step, std::int64_t steps);

}  // namespace bireme
