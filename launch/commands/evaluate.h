#pragma once

#include "launch/commands.h"

namespace bireme {

// The measures of `bireme evaluate` that have a file of their own.
int run_perplexity(Arguments arguments);

}  // namespace bireme
