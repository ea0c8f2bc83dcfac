#pragma once

#include <cstdint>
#include <string>

#include "core/autograd/tape.h"
#include "distributed/communicator.h"

namespace bireme {

/// A linear layer as its whole: weight [out, in] and bias [out], registered as NAME.weight and NAME.bias.
struct LinearOptions {
  std::string name;
  std::int64_t in = 0;
  std::int64_t out = 0;
  Initializer weight;
  Initializer bias;
  Blocks blocks = 1;  ///< logical blocks of the outputs, each split over ranks by itself
  bool has_bias = true;
};

/// @throws Error (usage) naming parallel.tensor and the degrees that would do, when `degree` ranks cannot
/// share `count` `things` evenly
void require_tensor_degree(int degree, std::int64_t count, const std::string& things,
                           const std::string& where);

/// y = x·Wᵀ + b with the *outputs* split over the ranks of the tensor axis: each rank holds out / size rows
/// of W and b, and yields its channels of y from the whole x. Plain on an axis of one rank.
class ColumnLinear {
 public:
  /// @throws Error (usage) when the outputs (of each block) cannot be split evenly
  ColumnLinear(ParameterSet& parameters, const LinearOptions& options, Communicator& tensor);

  /// @param x  [..., in], the same on all ranks
  /// @return   [..., out / size], this rank's channels; block by block when there are several
  Var forward(Tape& tape, const Var& x) const;
  /// GELU of the same, fused.
  Var forward_gelu(Tape& tape, const Var& x) const;

 private:
  Communicator& tensor_;
  Parameter& weight_;
  Parameter* bias_;  // or null
};

/// y = x·Wᵀ + b with the *inputs* split over the ranks: each holds in / size columns of W, and the partial
/// products are summed over ranks before the bias, which all hold. Plain on an axis of one rank.
class RowLinear {
 public:
  /// @throws Error (usage) when the inputs cannot be split evenly
  RowLinear(ParameterSet& parameters, const LinearOptions& options, Communicator& tensor);

  /// @param x  [..., in / size], this rank's channels
  /// @return   [..., out], the same on all ranks
  Var forward(Tape& tape, const Var& x) const;

 private:
  Communicator& tensor_;
  Parameter& weight_;
  Parameter* bias_;  // or null
};

}  // namespace bireme
