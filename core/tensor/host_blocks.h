#pragma once

#include <cstddef>

namespace bireme {

/// Where the host's tensors come from: memory of the system, 64-byte aligned; null when there is no more.
/// Programs on the harness of tests/cuda_on_cpu have one of their own in its place, which kernels cannot
/// touch.
std::byte* acquire_host_block(std::size_t bytes);
void release_host_block(std::byte* block, std::size_t bytes);

}  // namespace bireme
