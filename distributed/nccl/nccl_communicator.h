#pragma once

#include <memory>
#include <string>

#include "distributed/communicator.h"

namespace bireme {

/// The NCCL library that this binary runs with, such as "2.28.9"; empty when it was built without.
std::string nccl_version();

/// The ranks of `control`, one GPU each, whose collectives of tensors that lie on a GPU go through NCCL: on a
/// stream of their own, beside the caller's, which waits for a collective only where Work::wait() is called.
/// Everything else, and the ids that NCCL's groups begin with, goes through `control`. Groups that are split
/// off share the stream, so that all ranks run collectives of different groups in the same order.
///
/// NCCL is joined by the first collective of a group. Its asynchronous errors are looked for all the time;
/// after one the communicator is aborted, and the next call throws an Error (rank_lost) that names rank and
/// collective. bf16 is rounded at each hop between ranks, not once.
/// @param control  outlives the result
/// @param memory   of the backend, whose stream is the caller's
/// @return         null when this binary has no NCCL
std::unique_ptr<Communicator> make_nccl(Communicator& control, Memory& memory);

}  // namespace bireme
