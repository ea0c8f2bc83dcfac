#include "distributed/tensor_parallel.h"

#include <spdlog/fmt/fmt.h>

#include <vector>

#include "core/base/error.h"
#include "core/ops/linear/linear.h"
#include "core/ops/pointwise/pointwise.h"
#include "distributed/collective_ops.h"

namespace bireme {

namespace {

/// "1, 2, 4, 8 or 16": the divisors of `count`, few enough to read.
std::string degrees_of(std::int64_t count) {
  constexpr std::int64_t kLargestDegree = 64;  // beyond a node, tensor parallelism does not pay
  std::vector<std::int64_t> degrees;
  for (std::int64_t degree = 1; degree <= std::min(count, kLargestDegree); ++degree)
    if (count % degree == 0) degrees.push_back(degree);
  if (degrees.size() == 1) return "1";
  const std::int64_t last = degrees.back();
  degrees.pop_back();
  return fmt::format("{} or {}", fmt::join(degrees, ", "), last);
}

Parameter& add_weight(ParameterSet& parameters, const LinearOptions& options, const Partition& partition) {
  return parameters.add({.name = options.name + ".weight",
                         .shape = {options.out, options.in},
                         .initial = options.weight,
                         .partition = partition,
                         .decays = true});
}

Parameter* add_bias_parameter(ParameterSet& parameters, const LinearOptions& options,
                              const Partition& partition) {
  if (!options.has_bias) return nullptr;
  return &parameters.add({.name = options.name + ".bias",
                          .shape = {options.out},
                          .initial = options.bias,
                          .partition = partition,
                          .decays = false});
}

Partition split_outputs(const LinearOptions& options, const Communicator& tensor) {
  for (int block = 0; block < options.blocks.count(); ++block)
    require_tensor_degree(tensor.size(), options.blocks.length(block, options.out), "output channels",
                          options.name);
  return {.axis = 0, .blocks = options.blocks, .part = tensor.rank(), .parts = tensor.size()};
}

Partition split_inputs(const LinearOptions& options, const Communicator& tensor) {
  require_tensor_degree(tensor.size(), options.in, "input channels", options.name);
  return {.axis = 1, .blocks = 1, .part = tensor.rank(), .parts = tensor.size()};
}

}  // namespace

void require_tensor_degree(int degree, std::int64_t count, const std::string& things,
                           const std::string& where) {
  if (count % degree == 0) return;
  throw Error(
      ErrorKind::usage,
      fmt::format("parallel.tensor is {}, but {} {} do not divide by {}", degree, count, things, degree),
      where, fmt::format("choose {}", degrees_of(count)));
}

ColumnLinear::ColumnLinear(ParameterSet& parameters, const LinearOptions& options, Communicator& tensor)
    : tensor_(tensor),
      weight_(add_weight(parameters, options, split_outputs(options, tensor))),
      bias_(add_bias_parameter(parameters, options, split_outputs(options, tensor))) {}

Var ColumnLinear::forward(Tape& tape, const Var& x) const {
  return linear(tape, copy_to(tape, x, tensor_), weight_, bias_);
}

Var ColumnLinear::forward_gelu(Tape& tape, const Var& x) const {
  return linear_gelu(tape, copy_to(tape, x, tensor_), weight_, *bias_);
}

RowLinear::RowLinear(ParameterSet& parameters, const LinearOptions& options, Communicator& tensor)
    : tensor_(tensor),
      weight_(add_weight(parameters, options, split_inputs(options, tensor))),
      bias_(add_bias_parameter(parameters, options, {})) {}

Var RowLinear::forward(Tape& tape, const Var& x) const {
  if (tensor_.size() == 1) return linear(tape, x, weight_, bias_);
  const Var sum = reduce_from(tape, linear(tape, x, weight_, nullptr), tensor_);
  return bias_ != nullptr ? add_bias(tape, sum, *bias_) : sum;
}

}  // namespace bireme
