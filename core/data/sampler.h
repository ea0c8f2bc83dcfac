#pragma once

#include <spdlog/fmt/fmt.h>

#include <cassert>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/tensor/random.h"

namespace bireme {

/// A bijection of 0 … N-1 keyed by (seed, epoch), computed without a table: a Feistel network over the
/// smallest domain of 4^h ≥ N numbers, walked along its cycle until it comes back below N (Black and Rogaway
/// 2002, "Ciphers with arbitrary finite domains", §3 and §5). Philox is its round function. The domain is
/// below 4·N, so fewer than four walks are expected.
class Permutation {
 public:
  Permutation(std::int64_t records, std::uint64_t seed, std::uint64_t epoch)
      : records_(static_cast<std::uint64_t>(records)), seed_(seed), epoch_(epoch) {
    while (half_bits_ < 31 && (std::uint64_t{1} << (2 * half_bits_)) < records_) ++half_bits_;
  }

  std::int64_t operator()(std::int64_t position) const {
    assert(position >= 0 && static_cast<std::uint64_t>(position) < records_);
    auto value = static_cast<std::uint64_t>(position);
    do value = encrypt(value);
    while (value >= records_);
    return static_cast<std::int64_t>(value);
  }

 private:
  // Four rounds are enough for wide halves; the few bits of a small dataset need more to spread evenly.
  static constexpr std::uint64_t kRounds = 8;

  std::uint64_t encrypt(std::uint64_t value) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      RandomStream stream(seed_, epoch_, RandomUse::permutation, round << 32 | right);
      left = std::exchange(right, (left ^ stream.next()) & mask);
    }
    return left << half_bits_ | right;
  }

  std::uint64_t records_, seed_, epoch_;
  int half_bits_ = 0;
};

struct SamplerOptions {
  std::int64_t records = 0;     ///< in the dataset, or of it
  std::int64_t batch_size = 0;  ///< records of one optimiser step over all ranks
  std::uint64_t seed = 0;
  bool shuffled = true;  ///< false: records in their order, the same in every epoch
  /// The records that take part, as many as `records`; null: all of the dataset.
  std::shared_ptr<const std::vector<std::int64_t>> only = nullptr;
};

/// Which records make up which batch. Position p of epoch e is one record, whatever the number of ranks;
/// global batch i of an epoch is positions [i·B, (i + 1)·B), and the records after the last whole batch sit
/// out that epoch.
class Sampler {
 public:
  /// @throws Error (usage) when the dataset is smaller than one batch
  explicit Sampler(const SamplerOptions& options) : options_(options) {
    if (options.batch_size < 1)
      throw Error(ErrorKind::usage, "data.batch_size is not positive", "", "choose 1 or more");
    if (options.records < options.batch_size)
      throw Error(ErrorKind::usage,
                  fmt::format("the dataset has {} records, fewer than one batch of {}", options.records,
                              options.batch_size),
                  "data.batch_size", fmt::format("choose at most {}, or prepare more data", options.records));
  }

  std::int64_t iterations_per_epoch() const { return options_.records / options_.batch_size; }
  std::int64_t batch_size() const { return options_.batch_size; }

  std::int64_t record(std::uint64_t epoch, std::int64_t position) const {
    if (options_.shuffled) position = Permutation(options_.records, options_.seed, epoch)(position);
    return options_.only ? (*options_.only)[static_cast<std::size_t>(position)] : position;
  }

  struct Share {
    std::uint64_t epoch = 0;
    std::vector<std::int64_t> records;
  };
  /// What data rank `rank` of `ranks` takes of the global batch of this step (counted from 0 over all
  /// epochs): its contiguous part [rank·B / ranks, (rank + 1)·B / ranks). Together the ranks cover the batch
  /// once, in order.
  Share share(std::int64_t step, int rank, int ranks) const {
    Share share{.epoch = static_cast<std::uint64_t>(step / iterations_per_epoch()), .records = {}};
    const std::int64_t batch = step % iterations_per_epoch() * options_.batch_size;
    const std::int64_t begin = rank * options_.batch_size / ranks,
                       end = (rank + 1) * options_.batch_size / ranks;
    share.records.reserve(static_cast<std::size_t>(end - begin));
    for (std::int64_t i = begin; i < end; ++i) share.records.push_back(record(share.epoch, batch + i));
    return share;
  }

  /// The same for a global batch that is delivered in `accumulate` parts, counted over all steps. Part m of
  /// rank r is share m · R + r of A · R, so the parts of a step follow each other in the global batch.
  Share share_of_part(std::int64_t part, int accumulate, int rank, int ranks) const {
    const auto within = static_cast<int>(part % accumulate);
    return share(part / accumulate, within * ranks + rank, accumulate * ranks);
  }

 private:
  SamplerOptions options_;
};

}  // namespace bireme
