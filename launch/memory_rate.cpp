#include "launch/memory_rate.h"

#include <algorithm>
#include <chrono>

#include "core/tensor/tensor.h"

namespace bireme {

double measure_read_rate(std::int64_t bytes, Memory& memory) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t lanes = 32;  // independent sums, so that the additions hide behind the loads
  const std::int64_t words = std::max<std::int64_t>(bytes / 4 / lanes, 1) * lanes;
  const Tensor buffer(memory, {words}, DType::i32);
  std::int32_t* const data = buffer.data<std::int32_t>();
  // Each thread writes first what it reads later, so that the pages lie near it.
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < words; ++i) data[i] = static_cast<std::int32_t>(i);

  double best = 0;
  std::int32_t total = 0;
  constexpr int least_passes = 4;
  constexpr double seconds = 0.3;
  const auto began = Clock::now();
  for (int pass = 0;
       pass < least_passes || std::chrono::duration<double>(Clock::now() - began).count() < seconds; ++pass) {
    const auto start = Clock::now();
#pragma omp parallel for schedule(static) reduction(+ : total)
    for (std::int64_t block = 0; block < words / lanes; ++block) {
      std::int32_t sum = 0;
      for (std::int64_t i = 0; i < lanes; ++i) sum ^= data[block * lanes + i];
      total += sum;
    }
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(words) * 4 / took);
  }
  volatile std::int32_t keep = total;  // the sums count as used
  static_cast<void>(keep);
  return best;
}

}  // namespace bireme
