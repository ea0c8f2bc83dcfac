#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace bireme {

/// Runs `body` on every rank and returns the texts of all, by rank. When it throws an Error on any rank, all
/// ranks throw that of the lowest such rank (its problem preceded by "rank R: " where there are several), so
/// that none waits for one that gave up. A lost rank or a hang is thrown at once. Collective; `body` must
/// make no collective of `world`.
std::vector<std::string> gather_or_fail(Communicator& world, const std::function<std::string()>& body);

/// The text that `body` makes on rank 0, on every rank; its Error likewise. Collective.
std::string run_on_first(Communicator& world, const std::function<std::string()>& body);

}  // namespace bireme
