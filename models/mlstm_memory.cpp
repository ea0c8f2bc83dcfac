#include "models/mlstm_memory.h"

#include <cmath>

#include "core/ops/lane_type.h"
#include "core/ops/linear/linear.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

/// The values of a parameter once for each sequence: [B, …]. On the way back, their sum over sequences.
Var for_each_sequence(Tape& tape, Parameter& parameter, std::int64_t sequences) {
  const std::int64_t size = parameter.value().elements();
  Shape shape{sequences};
  for (const std::int64_t length : parameter.shape()) shape.push_back(length);
  const Tensor y = tape.empty(shape, parameter.value().dtype());
  const PointwiseKernels& kernels = tape.backend().pointwise();
  for (std::int64_t b = 0; b < sequences; ++b)
    kernels.add({.from = parameter.value(), .to = y.view(b * size, parameter.shape()), .accumulate = false});
  return tape.record("for_each_sequence", {parameter}, y,
                     [&kernels, &parameter, sequences, size](const Tensor& dy, Gradients& into) {
                       const Target target = into[parameter];
                       for (std::int64_t b = 0; target && b < sequences; ++b)
                         kernels.add({.from = dy.view(b * size, parameter.shape()),
                                      .to = target.tensor,
                                      .accumulate = target.accumulate || b > 0});
                     });
}

Tensor zeros(Memory& memory, const Shape& shape, DType type) {
  const Tensor tensor(memory, shape, type);
  fill(tensor, 0);
  return tensor;
}

/// The documents of packed sequences; one begins at the start of each sequence in any case.
std::vector<Branching> documents_of(const Tensor& starts) {
  const std::int64_t time = starts.shape()[1];
  const auto is_start = starts.values<std::uint8_t>();
  std::vector<Branching> documents;
  for (std::int64_t row = 0; row < starts.elements(); ++row) {
    if (row % time == 0 || is_start[static_cast<std::size_t>(row)] != 0)
      documents.push_back({.begin = row, .trunk = 0});
    ++documents.back().trunk;
  }
  return documents;
}

}  // namespace

MlstmMemory::MlstmMemory(ParameterSet& parameters, const std::string& prefix, const Options& options,
                         Communicator& tensor)
    : options_(options), local_heads_(options.heads / tensor.size()) {
  if (options.kind == XlstmMemory::associative) return;
  const Partition heads{.axis = 0, .part = tensor.rank(), .parts = tensor.size()};
  const auto add = [&](const char* name, const Shape& shape, const Initializer& initial, bool decays) {
    return &parameters.add(
        {.name = prefix + name, .shape = shape, .initial = initial, .partition = heads, .decays = decays});
  };
  const double deviation = 1 / std::sqrt(static_cast<double>(options.keys));
  memory_ = add("memory", {options.heads, options.keys, options.values},
                {.law = Initializer::Law::normal, .value = deviation}, true);
  if (options.kind == XlstmMemory::learned_initial)
    normalizer_ = add("normalizer", {options.heads, options.keys}, {}, false);
}

Var MlstmMemory::read(Tape& tape, const Var& q, const Var& k, const Var& v, const Var& gates,
                      const XlstmPass& pass) const {
  if (is_learned()) return memory_product(tape, q, *memory_);
  const MlstmInputs inputs{.q = q, .k = k, .v = v, .gates = gates};
  const MlstmOptions options{.sequences = pass.sequences,
                             .heads = local_heads_,
                             .chunk = options_.chunk,
                             .epsilon = options_.epsilon};
  if (pass.state != nullptr) {
    if (q.value().rows() == pass.sequences)
      return Var(mlstm_step(tape.backend(), inputs, pass.state->mlstm, options_.epsilon));
    const MlstmResult result = mlstm(tape, inputs, &pass.state->mlstm, pass.starts, options);
    pass.state->mlstm = result.state;
    return result.h;
  }
  if (options_.kind == XlstmMemory::associative)
    return pass.documents.empty() ? mlstm(tape, inputs, nullptr, pass.starts, options).h
                                  : mlstm_of_documents(tape, inputs, nullptr, pass.documents, options);
  // The kernels empty the cell where a document begins; one that begins with something else runs by itself.
  const std::vector<Branching> documents = pass.starts ? documents_of(pass.starts) : pass.documents;
  const std::int64_t states = documents.empty() ? pass.sequences : 1;
  const MlstmState initial{
      .memory = for_each_sequence(tape, *memory_, states),
      .normalizer = for_each_sequence(tape, *normalizer_, states),
      .maximum = zeros(tape.backend().memory(), {states, local_heads_}, lane_type(q.dtype()))};
  return documents.empty() ? mlstm(tape, inputs, &initial, {}, options).h
                           : mlstm_of_documents(tape, inputs, &initial, documents, options);
}

MlstmState MlstmMemory::make_state(Memory& memory, std::int64_t sequences, DType type) const {
  if (is_learned()) return {};
  MlstmState state =
      empty_mlstm_state(memory, sequences, local_heads_, options_.keys, options_.values, lane_type(type));
  if (options_.kind == XlstmMemory::learned_initial)
    for (std::int64_t b = 0; b < sequences; ++b) {
      copy(memory_->value(), state.memory.value().slice(b, b + 1).reshape(memory_->shape()));
      copy(normalizer_->value(), state.normalizer.value().slice(b, b + 1).reshape(normalizer_->shape()));
    }
  return state;
}

double MlstmMemory::flops_per_token() const {
  const auto keys = static_cast<double>(options_.keys), values = static_cast<double>(options_.values);
  if (is_learned()) return 2 * options_.heads * keys * values;
  // Half of the chunk's products with keys and with values, and the state read and written.
  return options_.heads * (static_cast<double>(options_.chunk) * (keys + values) + 4 * keys * values);
}

}  // namespace bireme
