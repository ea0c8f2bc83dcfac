#include "tests/cuda_on_cpu/host_blocks.h"

#include <sys/mman.h>

#include <cstdlib>

#include "core/tensor/host_blocks.h"

namespace cuda_on_cpu {

namespace {

#if defined(__SANITIZE_ADDRESS__)
int make_key() { return -1; }  // its own bounds of blocks say more
#else
int make_key() { return pkey_alloc(0, 0); }
#endif

/// Made before there are threads: these inherit what their maker may touch.
const int kKey = make_key();

}  // namespace

ClosedHost::ClosedHost() {
  if (kKey >= 0) pkey_set(kKey, PKEY_DISABLE_ACCESS);
}
ClosedHost::~ClosedHost() {
  if (kKey >= 0) pkey_set(kKey, 0);
}

bool closes_host() { return kKey >= 0; }

}  // namespace cuda_on_cpu

namespace bireme {

std::byte* acquire_host_block(std::size_t bytes) {
  if (cuda_on_cpu::kKey < 0) return static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  if (pkey_mprotect(block, bytes, PROT_READ | PROT_WRITE, cuda_on_cpu::kKey) != 0) std::abort();
  return static_cast<std::byte*>(block);
}

void release_host_block(std::byte* block, std::size_t bytes) {
  cuda_on_cpu::kKey < 0 ? std::free(block) : static_cast<void>(munmap(block, bytes));
}

}  // namespace bireme
