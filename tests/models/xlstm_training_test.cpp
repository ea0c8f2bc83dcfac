#include <gtest/gtest.h>

#include "core/optimizer/adamw.h"
#include "core/optimizer/clip.h"
#include "distributed/gradient_sync.h"
#include "distributed/mesh.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/xlstm.h"

namespace bireme::test {
namespace {

constexpr double kDecay = 0.1, kClip = 1;

/// Their gradients vanish by invariance; Adam turns what rounding leaves of them into steps.
bool is_noise(const std::string& name) {
  return name.find("igate.bias") != std::string::npos ||
         name.find("igate_preact.bias") != std::string::npos || name.ends_with("slstm_cell._bias_");
}

void follow_golden_training(const std::string& file, Communicator& world, int tensor_degree, bool recompute) {
  const Golden golden("xlstm/" + file + ".h5");
  const Mesh mesh(world, tensor_degree);
  XlstmFixture f(golden, DType::f32, &mesh.tensor());
  ParameterSet& parameters = f.model.parameters();
  AdamWOptimizer optimizer(*f.backend, parameters,
                           {.beta1 = golden.number("config", "beta1"),
                            .beta2 = golden.number("config", "beta2"),
                            .epsilon = golden.number("config", "epsilon")},
                           0, parameters.flat_values().elements());
  GradientSync sync(parameters, mesh.data(), 4096);
  const Tensor batches = golden.tensor("inputs/tokens"),
               rates = golden.tensor("inputs/lr");  // [5, 2, 17], [5]
  for (std::int64_t step = 0; step < 5; ++step) {
    const std::int64_t own = 2 / mesh.data().size();
    const Tensor tokens(*f.memory, {own, 16}, DType::i32), targets(*f.memory, {own, 16}, DType::i32);
    for (std::int64_t b = 0; b < own; ++b) {
      const std::int32_t* row = batches.data<std::int32_t>() + (step * 2 + mesh.data().rank() * own + b) * 17;
      std::copy_n(row, 16, tokens.data<std::int32_t>() + b * 16);
      std::copy_n(row + 1, 16, targets.data<std::int32_t>() + b * 16);
    }
    parameters.begin_gradients();
    Tape tape(*f.backend);
    const Var hidden = f.model.hidden(tape, {.tokens = tokens, .starts = {}}, f.how(recompute));
    const TokenLoss loss = f.model.head().loss(tape, hidden, targets, {.count = 2 * 16});
    sync.begin(true);
    tape.backward(loss.loss, &parameters, [&](Parameter& parameter) { sync.ready(parameter); });
    sync.wait();
    const ClippedGradients clipped =
        clip_gradients(*f.backend, parameters, {.type = ClipType::global, .limit = kClip},
                       [&](const Tensor& squares) { mesh.tensor().all_reduce(squares, Reduce::sum).wait(); });
    const std::string at = "steps/" + std::to_string(step);
    const double mean = mesh.data().all_reduce_value(double{loss.loss.value().data<float>()[0]}, Reduce::sum);
    EXPECT_NEAR(mean, golden.tensor(at + "/loss").data<double>()[0], 1e-5) << at;
    const double norm = golden.tensor(at + "/grad_norm").data<double>()[0];
    EXPECT_NEAR(clipped.norm, norm, 1e-4 * norm) << at;
    optimizer.step(rates.data<double>()[step], kDecay, clipped.scales);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (!is_noise(parameters[i].name())) {
      const Tensor expected = golden_part(golden, "final_weights", parameters[i], DType::f64);
      // Of an sLSTM's biases the first quarter belongs to its input gates.
      const bool is_bias = parameters[i].name().ends_with("slstm_cell._bias_");
      const std::int64_t rows = expected.shape()[0], first = is_bias ? rows / 4 : 0;
      expect_close(parameters[i].value().slice(first, rows), expected.slice(first, rows), 1e-4, 0,
                   parameters[i].name());
    }
}

void follow_both(Communicator& world, int tensor_degree, bool recompute) {
  for (const char* file : {"train_msm", "large_train"})
    follow_golden_training(file, world, tensor_degree, recompute);
}

TEST(XlstmTraining, FollowsTheReferenceOnOneRank) {
  const auto alone = make_single_process();
  follow_both(*alone, 1, false);
  follow_both(*alone, 1, true);
}
TEST(XlstmTraining, FollowsTheReferenceOnTwoDataRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_both(world, 1, false); });
}
TEST(XlstmTraining, FollowsTheReferenceOnTwoTensorRanks) {
  run_on_ranks(2, [](Communicator& world) { follow_both(world, 2, false); });
}
TEST(XlstmTraining, FollowsTheReferenceOnAMeshOfTwoByTwo) {
  run_on_ranks(4, [](Communicator& world) { follow_both(world, 2, true); });
}

}  // namespace
}  // namespace bireme::test
