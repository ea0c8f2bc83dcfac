#pragma once

#include <string>

#include "launch/commands.h"
#include "models/rwkv.h"

namespace bireme {

// The pictures of `bireme plot` that have a file of their own.
int run_plot_attention(Arguments arguments);
int run_plot_decay(Arguments arguments);
int run_plot_propagation(Arguments arguments);
int run_plot_ranking(Arguments arguments);
int run_plot_coefficients(Arguments arguments);

/// @throws Error (usage) when the model of `folder` is of another kind
const Rwkv& require_rwkv(const LanguageModel& model, const std::string& folder);

}  // namespace bireme
