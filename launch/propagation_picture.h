#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "objectives/evaluate/propagation.h"

namespace bireme {

/// A causal trace as a heat map: tokens along x, layers upward, and in colours, on a logarithmic scale, the
/// probability of the answer once the clean vector is back there. The scale reaches from the answer's
/// probability with noise on the subject to that of the clean run.
struct PropagationPicture {
  const Propagation& trace;
  std::vector<std::string> tokens;                  ///< how each is written below its column
  std::int64_t subject_begin = 0, subject_end = 0;  ///< these are marked
  std::string answer;
};

/// As a script for gnuplot, data included. @throws Error (usage) as gnuplot_terminal
std::string propagation_script(const PropagationPicture& picture, const std::filesystem::path& output);

/// Bytes of a token as a label: spaces and line ends are shown as signs, what is no UTF-8 as \xHH.
std::string visible_text(std::string_view bytes);

}  // namespace bireme
