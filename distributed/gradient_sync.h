#pragma once

#include <vector>

#include "core/autograd/parameter.h"
#include "distributed/communicator.h"

namespace bireme {

/// Sums gradients over the data axis while the backward pass goes on. Buckets are slices of the flat gradient
/// buffer, in the order in which backward finishes parameters; the all-reduce of a bucket starts when the
/// last of its parameters is ready. Nothing is copied.
class GradientSync {
 public:
  /// @param bucket_bytes  least size of a bucket; a larger parameter is a bucket of its own
  GradientSync(ParameterSet& parameters, Communicator& data, std::int64_t bucket_bytes);

  /// Before a backward pass. Of several accumulated passes only the last communicates.
  void begin(bool communicates);
  /// The gradient of this parameter is complete on this rank.
  void ready(const Parameter& parameter);
  /// After the last backward pass: until every gradient is the sum over ranks.
  void wait();

  std::size_t buckets() const { return buckets_.size(); }

 private:
  struct Bucket {
    std::int64_t begin = 0, end = 0;
    int parameters = 0;
    int missing = 0;
  };
  ParameterSet& parameters_;
  Communicator& data_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by parameter index
  std::vector<Work> under_way_;
  bool communicates_ = false;
};

}  // namespace bireme
