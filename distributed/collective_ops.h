#pragma once

#include "core/autograd/tape.h"
#include "distributed/communicator.h"

namespace bireme {

// A value that all ranks of the tensor axis hold enters a part where each rank works on its share (copy_to),
// and the shares' partial sums come out of it (reduce_from): the pair f and g of Shoeybi et al. 2019,
// section 3. On an axis of one rank both are the identity and record nothing.

/// y = x. On the way back, dx = the sum over ranks of dy.
Var copy_to(Tape& tape, const Var& x, Communicator& axis);

/// y = the sum over ranks of x, whose memory it takes: x is not to be read afterwards. On the way back, dx =
/// dy.
Var reduce_from(Tape& tape, const Var& x, Communicator& axis);

}  // namespace bireme
