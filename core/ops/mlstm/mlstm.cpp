#include "core/ops/mlstm/mlstm.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/branches/branches.h"
#include "core/ops/lane_type.h"
#include "core/ops/mlstm/mlstm_kernels.h"

namespace bireme {

namespace {

std::int64_t per_head(const char* what, std::int64_t channels, std::int64_t heads) {
  if (heads >= 1 && channels % heads == 0) return channels / heads;
  throw Error(ErrorKind::usage,
              fmt::format("mlstm: {} channels of {} do not divide by {} heads", channels, what, heads), "",
              "choose a number of heads that divides the inner width");
}

MlstmSizes sizes_of(const MlstmInputs& in, std::int64_t sequences, std::int64_t heads, std::int64_t chunk) {
  const std::int64_t rows = in.q.value().rows();
  if (sequences < 1 || rows % sequences != 0 || chunk < 1)
    throw Error(ErrorKind::usage,
                fmt::format("mlstm: {} rows do not make {} sequences, or the chunk of {} is empty", rows,
                            sequences, chunk),
                "", "give B·T rows and a chunk of 1 or more");
  const MlstmSizes sizes{.sequences = sequences,
                         .time = rows / sequences,
                         .heads = heads,
                         .keys = per_head("q", in.q.value().channels(), heads),
                         .values = per_head("v", in.v.value().channels(), heads),
                         .chunk = chunk};
  require_shape("mlstm: k", in.k.value(), {rows, heads * sizes.keys});
  require_shape("mlstm: v", in.v.value(), {rows, heads * sizes.values});
  require_shape("mlstm: gates", in.gates.value(), {rows, 2 * heads});
  return sizes;
}

void require_state(const MlstmState& state, const MlstmSizes& s) {
  require_shape("mlstm: state", state.memory.value(), {s.sequences, s.heads, s.keys, s.values});
  require_shape("mlstm: normaliser", state.normalizer.value(), {s.sequences, s.heads, s.keys});
  require_shape("mlstm: maximum", state.maximum, {s.sequences, s.heads});
}

MlstmSaved allocate_saved(Tape& tape, const MlstmSizes& s, DType type) {
  return {.states = tape.empty({s.sequences, s.heads, s.chunks() + 1, s.state()}, type),
          .maxima = tape.empty({s.sequences, s.heads, s.chunks() + 1}, type),
          .gates = tape.empty({s.sequences, s.heads, 3, s.time}, type),
          .denominator = tape.empty({s.sequences, s.heads, s.time}, type),
          .slope = tape.empty({s.sequences, s.heads, s.time}, type)};
}

}  // namespace

MlstmState empty_mlstm_state(Memory& memory, std::int64_t sequences, std::int64_t heads, std::int64_t keys,
                             std::int64_t values, DType type) {
  const Tensor c(memory, {sequences, heads, keys, values}, type), n(memory, {sequences, heads, keys}, type),
      m(memory, {sequences, heads}, type);
  for (const Tensor& tensor : {c, n, m}) fill(tensor, 0);
  return {.memory = Var(c), .normalizer = Var(n), .maximum = m};
}

MlstmResult mlstm(Tape& tape, const MlstmInputs& in, const MlstmState* initial, const Tensor& starts,
                  const MlstmOptions& options) {
  const MlstmSizes sizes = sizes_of(in, options.sequences, options.heads, options.chunk);
  if (starts) require_shape("mlstm: starts", starts, {sizes.sequences, sizes.time});
  const MlstmState before = initial != nullptr ? *initial : MlstmState{};
  if (initial != nullptr) require_state(before, sizes);
  const MlstmKernels& kernels = tape.backend().mlstm();
  const DType type = lane_type(in.q.dtype());
  const MlstmState after = [&] {
    const Shape heads{sizes.sequences, sizes.heads};
    return MlstmState{.memory = Var(tape.empty({heads[0], heads[1], sizes.keys, sizes.values}, type)),
                      .normalizer = Var(tape.empty({heads[0], heads[1], sizes.keys}, type)),
                      .maximum = tape.empty(heads, type)};
  }();
  const Tensor h = tape.empty(in.v.shape(), in.q.dtype());
  const MlstmSaved saved = allocate_saved(tape, sizes, type);
  kernels.mlstm(MlstmForward{.q = in.q.value(),
                             .k = in.k.value(),
                             .v = in.v.value(),
                             .gates = in.gates.value(),
                             .starts = starts,
                             .memory = before.memory.value(),
                             .normalizer = before.normalizer.value(),
                             .maximum = before.maximum,
                             .h = h,
                             .memory_out = after.memory.value(),
                             .normalizer_out = after.normalizer.value(),
                             .maximum_out = after.maximum,
                             .saved = saved,
                             .sizes = sizes,
                             .epsilon = options.epsilon});
  const auto backward = [&kernels, &memory = tape.backend().memory(), q = in.q, k = in.k, v = in.v,
                         gates = in.gates, before, starts, h, saved, sizes,
                         with_normalizer = options.normalizer_gradient](std::span<const Tensor> dy,
                                                                        Gradients& into) {
    Tensor dh = dy[0];
    if (!dh) {  // only the state was used
      dh = Tensor(memory, h.shape(), h.dtype());
      fill(dh, 0);
    }
    kernels.mlstm(MlstmBackward{.dh = dh,
                                .dmemory_out = dy[1],
                                .dnormalizer_out = dy[2],
                                .q = q.value(),
                                .k = k.value(),
                                .v = v.value(),
                                .gates = gates.value(),
                                .starts = starts,
                                .h = h,
                                .saved = saved,
                                .sizes = sizes,
                                .normalizer_gradient = with_normalizer,
                                .dq = into[q],
                                .dk = into[k],
                                .dv = into[v],
                                .dgates = into[gates],
                                .dmemory = into[before.memory],
                                .dnormalizer = into[before.normalizer]});
  };
  const std::vector<Var> results =
      tape.record("mlstm", {in.q, in.k, in.v, in.gates, before.memory, before.normalizer},
                  {h, after.memory.value(), after.normalizer.value()}, backward);
  return {.h = results[0],
          .state = {.memory = results[1], .normalizer = results[2], .maximum = after.maximum}};
}

Var mlstm_of_documents(Tape& tape, const MlstmInputs& in, const MlstmState* initial,
                       const std::vector<Branching>& documents, const MlstmOptions& options) {
  MlstmOptions of_piece = options;
  of_piece.sequences = 1;
  const auto run = [&](const std::vector<Var>& x, const MlstmState* before, bool /*wants_after*/) {
    const MlstmResult result =
        mlstm(tape, {.q = x[0], .k = x[1], .v = x[2], .gates = x[3]}, before, Tensor(), of_piece);
    return std::pair(result.h, result.state);
  };
  return over_branches<MlstmState>(tape, {in.q, in.k, in.v, in.gates}, documents, initial, run);
}

Tensor mlstm_step(const Backend& backend, const MlstmInputs& in, const MlstmState& state, float epsilon) {
  const Shape& memory = state.memory.shape();
  const MlstmSizes sizes = sizes_of(in, memory[0], memory[1], 1);
  require_state(state, sizes);
  const Tensor h(backend.memory(), in.v.shape(), in.q.dtype());
  backend.mlstm().step({.q = in.q.value(),
                        .k = in.k.value(),
                        .v = in.v.value(),
                        .gates = in.gates.value(),
                        .memory = state.memory.value(),
                        .normalizer = state.normalizer.value(),
                        .maximum = state.maximum,
                        .h = h,
                        .epsilon = epsilon});
  return h;
}

}  // namespace bireme
