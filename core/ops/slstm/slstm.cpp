#include "core/ops/slstm/slstm.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/branches/branches.h"
#include "core/ops/slstm/slstm_kernels.h"

namespace bireme {

namespace {

SlstmSizes sizes_of(const Var& gates, const Tensor& recurrent, const SlstmOptions& options) {
  const std::int64_t rows = gates.value().rows();
  if (options.sequences < 1 || rows % options.sequences != 0)
    throw Error(ErrorKind::usage,
                fmt::format("slstm: {} rows do not make {} sequences", rows, options.sequences), "",
                "give B·T rows");
  const SlstmSizes sizes{.sequences = options.sequences,
                         .time = rows / options.sequences,
                         .heads = options.heads,
                         .units = recurrent.channels()};
  require_shape("slstm: recurrent weights", recurrent, {sizes.heads, 4 * sizes.units, sizes.units});
  require_shape("slstm: gates", gates.value(), {rows, 4 * sizes.heads * sizes.units});
  return sizes;
}

void require_state(const SlstmState& state, const SlstmSizes& s) {
  const Shape shape{s.sequences, s.heads * s.units};
  for (const Tensor* tensor : {&state.h.value(), &state.c.value(), &state.n.value(), &state.m})
    require_shape("slstm: state", *tensor, shape);
}

SlstmStateTensors tensors_of(const SlstmState& state) {
  return {.h = state.h.value(), .c = state.c.value(), .n = state.n.value(), .m = state.m};
}

}  // namespace

SlstmState empty_slstm_state(Memory& memory, std::int64_t sequences, std::int64_t channels, DType type) {
  const auto zeros = [&] {
    const Tensor tensor(memory, {sequences, channels}, type);
    fill(tensor, 0);
    return tensor;
  };
  return {.h = Var(zeros()), .c = Var(zeros()), .n = Var(zeros()), .m = zeros()};
}

SlstmResult slstm(Tape& tape, const Var& gates, Parameter& recurrent, Parameter& bias,
                  const SlstmState* initial, const Tensor& starts, const SlstmOptions& options, DType type) {
  const SlstmSizes sizes = sizes_of(gates, recurrent.value(), options);
  const std::int64_t rows = gates.value().rows(), channels = sizes.heads * sizes.units;
  require_shape("slstm: bias", bias.value(), {4 * channels});
  if (starts) require_shape("slstm: starts", starts, {sizes.sequences, sizes.time});
  const SlstmState before = initial != nullptr ? *initial : SlstmState{};
  if (initial != nullptr) require_state(before, sizes);

  const SlstmKernels& kernels = tape.backend().slstm();
  const DType lane = gates.dtype();
  const SlstmState after = empty_slstm_state(tape.backend().memory(), sizes.sequences, channels, lane);
  const Tensor h = tape.empty({rows, channels}, type);
  const Tensor hidden =
      type == lane || !tape.recording() ? (type == lane ? h : Tensor()) : tape.empty({rows, channels}, lane);
  const Tensor kept = tape.recording() ? tape.empty({rows, sizes.heads * sizes.kept()}, lane) : Tensor();
  const SlstmStateTensors from = tensors_of(before);
  kernels.slstm(SlstmForward{.gates = gates.value(),
                             .recurrent = recurrent.value(),
                             .bias = bias.value(),
                             .starts = starts,
                             .before = from,
                             .after = tensors_of(after),
                             .h = h,
                             .hidden = hidden,
                             .kept = kept,
                             .sizes = sizes,
                             .function = options.function});
  const auto backward = [&kernels, gates, &recurrent, &bias, before, from, starts, hidden, kept, sizes,
                         function = options.function](std::span<const Tensor> dy, Gradients& into) {
    kernels.slstm(SlstmBackward{.dh = dy[0],
                                .dafter = {.h = dy[1], .c = dy[2], .n = dy[3], .m = {}},
                                .recurrent = recurrent.value(),
                                .starts = starts,
                                .before = from,
                                .hidden = hidden,
                                .kept = kept,
                                .sizes = sizes,
                                .function = function,
                                .dgates = into[gates],
                                .drecurrent = into[recurrent],
                                .dbias = into[bias],
                                .dbefore_h = into[before.h],
                                .dbefore_c = into[before.c],
                                .dbefore_n = into[before.n]});
  };
  const std::vector<Var> results =
      tape.record("slstm", {gates, recurrent, bias, before.h, before.c, before.n},
                  {h, after.h.value(), after.c.value(), after.n.value()}, backward);
  return {.h = results[0], .state = {.h = results[1], .c = results[2], .n = results[3], .m = after.m}};
}

Var slstm_of_documents(Tape& tape, const Var& gates, Parameter& recurrent, Parameter& bias,
                       const std::vector<Branching>& documents, const SlstmOptions& options, DType type) {
  SlstmOptions of_piece = options;
  of_piece.sequences = 1;
  const auto run = [&](const std::vector<Var>& x, const SlstmState* before, bool /*wants_after*/) {
    const SlstmResult result = slstm(tape, x[0], recurrent, bias, before, Tensor(), of_piece, type);
    return std::pair(result.h, result.state);
  };
  return over_branches<SlstmState>(tape, {gates}, documents, nullptr, run);
}

}  // namespace bireme
