#pragma once

#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>

#include "cuda_api.h"

namespace cuda_on_cpu {

/// What a GPU would leave undefined, or wait for for ever.
class Violation : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct GridShape {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;
};

/// Runs a kernel: blocks one after another and the threads of a block as fibers, both in a shuffled order.
/// @throws Violation  when threads miss each other at a barrier or in a warp
void run_grid(const GridShape& shape, const std::function<void()>& thread,
              const std::source_location& launched);

/// The dynamic shared memory of the running block: filled with NaN when it starts, fenced under
/// AddressSanitizer.
void* shared_memory();

/// The order of threads, blocks and streams follows from a seed: of the environment variable
/// CUDA_ON_CPU_SEED, or 1.
class Shuffle {
 public:
  explicit Shuffle(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL | 1) {}
  std::uint32_t below(std::uint32_t bound) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<std::uint32_t>((state_ >> 32) * bound >> 32);
  }
  template <class Container>
  void operator()(Container& items) {
    for (std::size_t i = items.size(); i > 1; --i)
      std::swap(items[i - 1], items[below(static_cast<std::uint32_t>(i))]);
  }

 private:
  std::uint64_t state_;
};
Shuffle& shuffle();
void set_seed(std::uint64_t seed);

}  // namespace cuda_on_cpu
