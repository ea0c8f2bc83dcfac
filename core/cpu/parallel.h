#pragma once

#include <algorithm>
#include <cstdint>

namespace bireme::cpu {

/// A loop cut into pieces whose bounds depend on the shape of the data alone, never on the number of threads:
/// what a piece computes, and with it every rounding, is the same on 1 thread and on 16.
struct Chunks {
  std::int64_t items = 0;
  std::int64_t size = 1;  // items of a chunk; the last may have fewer

  std::int64_t count() const { return (items + size - 1) / size; }
};

/// For loops whose items are independent: chunks of about 32 KiB, so that handing one out costs little and
/// small tensors stay on one thread.
inline Chunks chunks_of(std::int64_t items, std::int64_t bytes_per_item) {
  constexpr std::int64_t kChunkBytes = 32 << 10;
  return {items, std::max<std::int64_t>(1, kChunkBytes / std::max<std::int64_t>(1, bytes_per_item))};
}

/// For reductions with a partial result of `width` numbers per chunk: at most 64 chunks (what the sum of
/// partials costs stays below 1 % from a few thousand rows on), at least 16 items and 4096 numbers in each.
inline Chunks partial_chunks(std::int64_t items, std::int64_t width) {
  constexpr std::int64_t kMostPartials = 64, kFewestItems = 16, kFewestNumbers = 4096;
  const std::int64_t fewest = std::max(kFewestItems, kFewestNumbers / std::max<std::int64_t>(1, width));
  return {items, std::max(fewest, (items + kMostPartials - 1) / kMostPartials)};
}

/// Calls f(begin, end, chunk) for every chunk, spread over the threads.
template <class F>
void parallel_chunks(const Chunks& chunks, F&& f) {
  const std::int64_t count = chunks.count();
  const auto run = [&](std::int64_t chunk) {
    f(chunk * chunks.size, std::min(chunks.items, (chunk + 1) * chunks.size), chunk);
  };
  if (count == 1) {
    run(0);
    return;
  }
#pragma omp parallel for schedule(static)
  for (std::int64_t chunk = 0; chunk < count; ++chunk) run(chunk);
}

/// Calls f(begin, end) for pieces of independent items.
template <class F>
void parallel_rows(std::int64_t rows, std::int64_t bytes_per_row, F&& f) {
  parallel_chunks(chunks_of(rows, bytes_per_row),
                  [&](std::int64_t begin, std::int64_t end, std::int64_t) { f(begin, end); });
}

}  // namespace bireme::cpu
