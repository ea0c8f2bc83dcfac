#include "objectives/evaluate/nearest_neighbors.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

LabeledFeatures read_features(const Golden& golden, const std::string& set) {
  LabeledFeatures features{golden.tensor("inputs/" + set + "_features"), {}};
  const Tensor labels = golden.tensor("inputs/" + set + "_labels");
  for (const std::int64_t label : labels.values<std::int64_t>())
    features.labels.push_back(static_cast<std::int32_t>(label));
  return features;
}

const std::vector<int> kNeighbors{1, 5, 10, 20, 100};

void expect_golden_neighbors(Communicator& ranks) {
  const auto backend = make_cpu_backend(make_host_memory());
  const Golden golden("vision/knn.h5");
  const LabeledFeatures train = read_features(golden, "train"), test = read_features(golden, "test");
  const auto results = evaluate_knn(*backend, ranks, train, test, {.neighbors = kNeighbors});
  const Neighbors neighbors = nearest_neighbors(*backend, ranks, train.features, test.features, 100);
  for (std::size_t i = 0; i < kNeighbors.size(); ++i) {
    const int k = kNeighbors[i];
    const std::string path = "outputs/k" + std::to_string(k);
    EXPECT_NEAR(100 * results[i].top1, golden.number(path, "top1"), 1e-9) << path;
    EXPECT_NEAR(100 * results[i].top5, golden.number(path, "top5"), 1e-9) << path;
    const Tensor predictions = golden.tensor(path + "/predictions");
    for (std::int64_t r = 0; r < predictions.elements(); ++r)
      EXPECT_EQ(results[i].predictions[static_cast<std::size_t>(r)], predictions.data<std::int64_t>()[r])
          << path;
    const Tensor expected = golden.tensor(path + "/votes");
    const Tensor votes(*make_host_memory(), expected.shape(), DType::f64);
    const std::vector<double> own = knn_votes(neighbors, k, train.labels, 10, 0.07);
    std::copy(own.begin(), own.end(), votes.data<double>());
    expect_close(votes, expected, 2e-5, 0, path);  // the fixture's own tolerance
  }
}

TEST(NearestNeighbors, MatchGolden) {
  const auto alone = make_single_process();
  expect_golden_neighbors(*alone);
}

TEST(NearestNeighbors, AreTheSameOverThreeRanks) {
  run_on_ranks(3, [](Communicator& ranks) { expect_golden_neighbors(ranks); });
}

TEST(NearestNeighbors, TakeTheLowerIndexAmongEqualOnes) {
  const auto backend = make_cpu_backend(make_host_memory());
  const auto alone = make_single_process();
  const Tensor train(backend->memory(), {4, 2}, DType::f32), test(backend->memory(), {1, 2}, DType::f32);
  const float rows[] = {0, 1, 2, 0, 1, 0, 5, 0};
  std::copy(std::begin(rows), std::end(rows), train.data<float>());
  test.data<float>()[0] = 3;
  test.data<float>()[1] = 0;
  EXPECT_EQ(nearest_neighbors(*backend, *alone, train, test, 3).indices,
            (std::vector<std::int64_t>{1, 2, 3}));
}

TEST(NearestNeighbors, RefuseWhatCannotBe) {
  const auto backend = make_cpu_backend(make_host_memory());
  const auto alone = make_single_process();
  const Tensor features(backend->memory(), {3, 2}, DType::f32);
  fill(features, 1);
  const LabeledFeatures good{features, {0, 1, 2}}, unlabelled{features, {0, -1, 2}};
  EXPECT_TRUE(mentions(
      error_of(ErrorKind::usage, [&] { evaluate_knn(*backend, *alone, good, good, {.neighbors = {4}}); }),
      {"k is 4", "3 records"}));
  EXPECT_TRUE(
      mentions(error_of(ErrorKind::data,
                        [&] { evaluate_knn(*backend, *alone, unlabelled, good, {.neighbors = {1}}); }),
               {"no labels", "training set"}));
  const Tensor zero = clone(backend->memory(), features);
  fill(zero.slice(1, 2), 0);
  EXPECT_TRUE(mentions(error_of(ErrorKind::data,
                                [&] {
                                  evaluate_knn(*backend, *alone, good, {zero, {0, 1, 2}}, {.neighbors = {1}});
                                }),
                       {"record 1", "test set"}));
}

}  // namespace
}  // namespace bireme::test
