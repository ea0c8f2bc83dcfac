#include "core/tensor/host_blocks.h"

#include <sys/mman.h>

#include <cstdlib>

namespace bireme {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

std::byte* acquire_host_block(std::size_t bytes) {
  // Large blocks start on a huge page: fewer TLB misses in matrix products and passes over activations.
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  void* block = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (block != nullptr && bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(block);
}

void release_host_block(std::byte* block, std::size_t) { std::free(block); }

}  // namespace bireme
