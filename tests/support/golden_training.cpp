#include "tests/support/golden_training.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/optimizer/clip.h"
#include "distributed/gradient_sync.h"

namespace bireme::test {

namespace {

/// Of a step's sequences every size-th is this rank's: what is read, and what comes next.
struct Share {
  Tensor tokens, targets;
};

Share share_of(const Golden& golden, std::int64_t step, const Communicator& data) {
  const Tensor all = golden.tensor("inputs/tokens");
  const std::int64_t batch = all.shape()[1], length = all.shape()[2] - 1,
                     own = (batch - data.rank() + data.size() - 1) / data.size();
  const Tensor rows = convert(golden.memory(), all.slice(step, step + 1), DType::i32);
  Share share{.tokens = Tensor(golden.memory(), {own, length}, DType::i32),
              .targets = Tensor(golden.memory(), {own, length}, DType::i32)};
  for (std::int64_t b = 0; b < own; ++b) {
    const std::int32_t* row = rows.data<std::int32_t>() + (b * data.size() + data.rank()) * (length + 1);
    std::copy_n(row, length, share.tokens.data<std::int32_t>() + b * length);
    std::copy_n(row + 1, length, share.targets.data<std::int32_t>() + b * length);
  }
  return share;
}

}  // namespace

void follow(const Golden& golden, const GoldenTraining& t) {
  ParameterSet& parameters = t.model.parameters();
  AdamWOptimizer optimizer(t.backend, parameters, t.adamw, 0, parameters.flat_values().elements());
  GradientSync sync(parameters, t.mesh.data(), 4096);
  const Shape batches = golden.tensor("inputs/tokens").shape();
  const std::int64_t steps = batches[0];
  const auto targets = static_cast<double>(batches[1] * (batches[2] - 1));
  for (std::int64_t step = 0; step < steps; ++step) {
    const Share share = share_of(golden, step, t.mesh.data());
    parameters.begin_gradients();
    Tape tape(t.backend);
    const Var hidden =
        t.model.hidden(tape, {.tokens = share.tokens, .starts = {}}, {.recompute = t.recompute});
    const TokenLoss loss = t.model.head().loss(tape, hidden, share.targets,
                                               {.count = targets, .z_loss = 0, .l2_wrap = t.l2_wrap});
    const double own = convert(golden.memory(), loss.loss.value(), DType::f64).data<double>()[0];
    sync.begin(true);
    tape.backward(loss.loss, &parameters, [&](Parameter& parameter) { sync.ready(parameter); });
    sync.wait();
    const ClippedGradients clipped = clip_gradients(
        t.backend, parameters, {.type = ClipType::global, .limit = t.clip},
        [&](const Tensor& squares) { t.mesh.tensor().all_reduce(squares, Reduce::sum).wait(); });
    const std::string at = "steps/" + std::to_string(step);
    const double expected = golden.tensor(at + "/loss").data<double>()[0],
                 norm = golden.tensor(at + "/grad_norm").data<double>()[0];
    EXPECT_NEAR(t.mesh.data().all_reduce_value(own, Reduce::sum), expected,
                t.loss_absolute + t.loss_relative * expected)
        << at;
    EXPECT_NEAR(clipped.norm, norm, t.norm_relative * norm) << at;
    if (t.before_update) t.before_update();
    optimizer.step(t.rates.empty() ? golden.tensor("inputs/lr").data<double>()[step]
                                   : t.rates[static_cast<std::size_t>(step)],
                   t.weight_decay, clipped.scales);
  }
}

}  // namespace bireme::test
