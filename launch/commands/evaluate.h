#pragma once

#include "launch/commands.h"

namespace bireme {

// The measures of `bireme evaluate` that have a file of their own.
int run_perplexity(Arguments arguments);
int run_ranking(Arguments arguments);
int run_win_rate(Arguments arguments);

}  // namespace bireme
