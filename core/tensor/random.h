#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "core/base/bf16.h"

namespace bireme {

/// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011). A draw is a pure function of what it is
/// for, so results depend neither on the number of ranks nor on threads, and nothing has to be saved to
/// repeat or resume them.
BIREME_HOST_DEVICE inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

/// What a stream of random numbers is for. Two uses never share one.
enum class RandomUse : std::uint32_t {
  permutation = 1,
  initialize = 2,
  augment = 3,
  drop_path = 4,
  dropout = 5,
  sampling = 6,
  noise = 7,
  synthetic = 8,
  test = 100
};

/// The stream of numbers of one (seed, record, use, detail): `record` is the record's number in the dataset
/// (or a hash of a name), `detail` tells apart crops, steps or layers. Cheap to make, meant to live for one
/// decision.
class RandomStream {
 public:
  BIREME_HOST_DEVICE RandomStream(std::uint64_t seed, std::uint64_t record, RandomUse use,
                                  std::uint64_t detail = 0)
      : key_{static_cast<std::uint32_t>(seed) ^ static_cast<std::uint32_t>(detail >> 32) * 0x85EBCA6BU,
             static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(use) * 0x9E3779B1U},
        counter_{0, static_cast<std::uint32_t>(detail), static_cast<std::uint32_t>(record),
                 static_cast<std::uint32_t>(record >> 32)} {}

  BIREME_HOST_DEVICE std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }
  /// Uniform in [0, 1), 53 bits.
  BIREME_HOST_DEVICE double uniform() {
    const std::uint64_t high = next() >> 5, low = next() >> 6;
    return static_cast<double>((high << 26) | low) * 0x1p-53;
  }
  BIREME_HOST_DEVICE double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform in 0 … bound-1 without bias that matters (64-bit multiply-shift).
  BIREME_HOST_DEVICE std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>((static_cast<unsigned __int128>((std::uint64_t{next()} << 32) | next()) *
                                      static_cast<std::uint64_t>(bound)) >>
                                     64);
  }
  BIREME_HOST_DEVICE bool chance(double probability) { return uniform() < probability; }
  /// Standard normal (Box-Muller, the cosine half).
  BIREME_HOST_DEVICE double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace bireme
