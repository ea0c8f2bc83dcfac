#include "core/ops/wkv/wkv.h"

#include "core/ops/branches/branches.h"
#include "core/ops/lane_type.h"
#include "core/ops/wkv/wkv_kernels.h"

namespace bireme {

namespace {

void require_sizes(const WkvArguments& a) {
  const std::int64_t rows = a.sequences.rows(), channels = a.k.value().channels();
  require_shape("wkv: r", a.r.value(), {rows, channels});
  require_shape("wkv: k", a.k.value(), {rows, channels});
  require_shape("wkv: v", a.v.value(), {rows, channels});
  require_shape("wkv: time_decay", a.time_decay.value(), {channels});
  require_shape("wkv: time_first", a.time_first.value(), {channels});
  if (a.initial.p) require_shape("wkv: initial state", a.initial.p, {a.sequences.count, channels});
  if (a.sequences.starts)
    require_shape("wkv: starts", a.sequences.starts, {a.sequences.count, a.sequences.length});
}

Var wkv_of_documents(Tape& tape, const WkvArguments& a) {
  const auto run = [&](const std::vector<Var>& rkv, const WkvCarry* before, bool wants_after) {
    const Sequences rows{.count = 1, .length = rkv[0].value().rows()};
    const WkvResult result = wkv(tape, {.sequences = rows,
                                        .r = rkv[0],
                                        .k = rkv[1],
                                        .v = rkv[2],
                                        .time_decay = a.time_decay,
                                        .time_first = a.time_first,
                                        .initial = before != nullptr ? *before : WkvCarry{},
                                        .wants_last = wants_after});
    return std::pair(result.y, result.last);
  };
  return over_branches<WkvCarry>(tape, {a.r, a.k, a.v}, a.sequences.documents, nullptr, run);
}

}  // namespace

WkvState empty_wkv_state(Memory& memory, std::int64_t sequences, std::int64_t channels, DType type) {
  const Shape shape{sequences, channels};
  const WkvState state{
      .a = Tensor(memory, shape, type), .b = Tensor(memory, shape, type), .p = Tensor(memory, shape, type)};
  fill(state.a, 0);
  fill(state.b, 0);
  fill(state.p, -1e38);
  return state;
}

WkvResult wkv(Tape& tape, const WkvArguments& arguments) {
  require_sizes(arguments);
  if (!arguments.sequences.documents.empty()) return {.y = wkv_of_documents(tape, arguments), .last = {}};
  const auto& [sequences, r, k, v, time_decay, time_first, carried, wants_last] = arguments;
  const Backend& backend = tape.backend();
  const DType type = lane_type(k.dtype());
  const std::int64_t channels = k.value().channels();
  const WkvState initial{.a = carried.a.value(), .b = carried.b.value(), .p = carried.p};
  WkvState last;
  if (wants_last) last = empty_wkv_state(backend.memory(), sequences.count, channels, type);
  const Tensor y = tape.empty(k.shape(), k.dtype());
  Tensor states;
  if (tape.recording())
    states = tape.empty({sequences.count, wkv_chunks(sequences.length), 3, channels}, type);
  backend.wkv().wkv(WkvForward{.sequences = sequences,
                               .r = r.value(),
                               .k = k.value(),
                               .v = v.value(),
                               .time_decay = time_decay.value(),
                               .time_first = time_first.value(),
                               .initial = initial,
                               .y = y,
                               .states = states,
                               .last = last});
  std::vector<Source> sources{r, k, v, time_decay, time_first};
  if (carried.p) sources.insert(sources.end(), {carried.a, carried.b});
  std::vector<Tensor> results{y};
  if (wants_last) results.insert(results.end(), {last.a, last.b});
  const std::vector<Var> vars =
      tape.record("wkv", sources, results,
                  [&backend, sequences = sequences, r = r, k = k, v = v, &time_decay = time_decay,
                   &time_first = time_first, carried = carried, states, initial,
                   last_p = last.p](std::span<const Tensor> dy, Gradients& into) {
                    Tensor gradient = dy[0];
                    if (!gradient) {  // only the last state was used
                      gradient = Tensor(backend.memory(), k.shape(), k.dtype());
                      fill(gradient, 0);
                    }
                    WkvState last_gradient;
                    if (dy.size() == 3) last_gradient = {.a = dy[1], .b = dy[2], .p = last_p};
                    backend.wkv().wkv(WkvBackward{.sequences = sequences,
                                                  .dy = gradient,
                                                  .r = r.value(),
                                                  .k = k.value(),
                                                  .v = v.value(),
                                                  .time_decay = time_decay.value(),
                                                  .time_first = time_first.value(),
                                                  .states = states,
                                                  .last_gradient = last_gradient,
                                                  .dr = into[r],
                                                  .dk = into[k],
                                                  .dv = into[v],
                                                  .dtime_decay = into[time_decay],
                                                  .dtime_first = into[time_first],
                                                  .initial = initial,
                                                  .dinitial_a = into[carried.a],
                                                  .dinitial_b = into[carried.b]});
                  });
  WkvResult result{.y = vars[0], .last = {}};
  if (wants_last) result.last = {.a = vars[1], .b = vars[2], .p = last.p};
  return result;
}

}  // namespace bireme
