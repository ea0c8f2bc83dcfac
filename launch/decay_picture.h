#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bireme {

/// For each layer what its channels keep from one token to the next, 0 … 1, largest first.
using DecayCurves = std::vector<std::vector<double>>;

/// How far back the layers look, before training and after (Peng et al. 2023, figure 6): above the decays,
/// below them the tokens until a channel has forgotten all but 1/e, on a logarithmic axis. A curve is a
/// layer.
struct DecayPicture {
  DecayCurves initial, trained;
  std::string name;  ///< of the model, for the title
};

/// As a script for gnuplot, data included. @throws Error (usage) as gnuplot_terminal
std::string decay_script(const DecayPicture& picture, const std::filesystem::path& output);

/// Tokens until a channel that keeps `decay` of its sums at each token has forgotten all but 1/e:
/// -1 / ln(decay), at most 10^7 where decay rounds to 1.
double look_back(double decay);

}  // namespace bireme
