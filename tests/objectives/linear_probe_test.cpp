#include "objectives/evaluate/linear_probe.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"

namespace bireme::test {
namespace {

TEST(LinearProbe, MatchesGolden) {
  const auto backend = make_cpu_backend(make_host_memory());
  const Golden golden("vision/linear_probe.h5");
  LabeledFeatures train{golden.tensor("inputs/features"), {}};
  const Tensor labels = golden.tensor("inputs/labels");
  for (const std::int64_t label : labels.values<std::int64_t>())
    train.labels.push_back(static_cast<std::int32_t>(label));
  LinearClassifier classifier{golden.tensor("weights/linear.weight"), golden.tensor("weights/linear.bias")};
  const auto batch = static_cast<std::int64_t>(golden.number("config", "batch"));
  const std::vector<double> own = train_linear_probe(
      *backend, train, classifier,
      {.epochs = static_cast<int>(golden.number("config", "epochs")),
       .batch_size = batch,
       .momentum = golden.number("config", "momentum"),
       .learning_rate = golden.number("config", "base_lr") * static_cast<double>(batch) / 256,
       .shuffled = false});
  const Tensor losses(*make_host_memory(), {static_cast<std::int64_t>(own.size())}, DType::f64);
  std::copy(own.begin(), own.end(), losses.data<double>());
  expect_close(losses, golden.tensor("outputs/losses"), 1e-5, 0, "losses");  // the fixture's own tolerance
  expect_close(classifier.weight, golden.tensor("outputs/linear.weight"), 1e-5, 0, "weight");
  expect_close(classifier.bias, golden.tensor("outputs/linear.bias"), 1e-5, 0, "bias");
  EXPECT_NEAR(100 * accuracy(*backend, train, classifier), golden.number("outputs", "train_top1"), 1e-9);
}

}  // namespace
}  // namespace bireme::test
