#pragma once

#include "core/autograd/tape.h"
#include "distributed/communicator.h"

namespace bireme {

// A value that all ranks of the tensor axis hold enters a part where each rank works on its share (copy_to),
// and the shares' partial sums come out of it (reduce_from): the pair f and g of Shoeybi et al. 2019,
// section 3. On an axis of one rank both are the identity and record nothing.

/// y = x. On the way back, dx = the sum over ranks of dy.
Var copy_to(Tape& tape, const Var& x, Communicator& axis);

/// The values of a parameter that all ranks hold and each uses for its share: its gradient is summed over
/// ranks. On an axis of one rank too a step of its own: ops that take values can be given a parameter.
Var copy_to(Tape& tape, Parameter& parameter, Communicator& axis);

/// y = the sum over ranks of x, whose memory it takes: x is not to be read afterwards. On the way back, dx =
/// dy.
Var reduce_from(Tape& tape, const Var& x, Communicator& axis);

// Together scatter and gather move as many bytes as one reduce_from, and leave what stands between them to be
// computed once, not by every rank. On an axis of one rank these are the identity.

/// Of the sum over ranks of x [R, C] the channels of this rank: [R, C / size]. On the way back, dx = the
/// channels of dy from all ranks.
Var scatter_channels_from(Tape& tape, const Var& x, Communicator& axis);

/// This rank's channels of an x [R, C] that is the same on all ranks: [R, C / size]. On the way back, dx =
/// the channels of dy from all ranks.
Var own_channels(Tape& tape, const Var& x, Communicator& axis);

/// The channels of all ranks: [R, C] of x [R, C / size]. On the way back, dx = this rank's channels of dy,
/// which is the same on all ranks.
Var gather_channels(Tape& tape, const Var& x, Communicator& axis);

}  // namespace bireme
