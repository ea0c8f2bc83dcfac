#pragma once

#include "distributed/communicator.h"

namespace bireme {

/// What one rank of an axis keeps of a flat buffer that is spread over its ranks: entries [begin, end).
struct Share {
  std::int64_t begin = 0, end = 0;
};

/// Equal shares in the order of the ranks; the last takes what does not divide.
Share share_of(std::int64_t elements, const Communicator& axis);

/// Fills in the shares of all other ranks, of which each holds its own at its place. Collective.
void gather_shares(const Tensor& flat, Communicator& axis);

}  // namespace bireme
