#pragma once

#include "launch/commands.h"

namespace bireme {

// The benchmarks of `bireme bench` that have a file of their own.
int run_bench_decode(Arguments arguments);
int run_bench_step(Arguments arguments);

}  // namespace bireme
