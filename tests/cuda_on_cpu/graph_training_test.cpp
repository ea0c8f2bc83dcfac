// Training with CUDA graphs, on the harness, against training without: the programs themselves.
#include <cmath>
#include <map>

#include "tests/cuda_on_cpu/training.h"

namespace bireme::test {
namespace {

/// Trains twice and compares. There are two stretches in a step, the pass of its one part and the optimizer;
/// the first step is not captured.
template <class Base>
class WithGraphs : public Base {
 protected:
  /// @param instantiations  0: any number
  void expect_same_bits(const std::string& words, std::int64_t instantiations,
                        const std::string& before = "") {
    SCOPED_TRACE(before + words);
    const std::string run = std::to_string(this->runs_++), device = "--run.device cuda --run.steps 5 ";
    const Outcome without = this->train(BIREME_CUDA_PROGRAM, run + "-without", device + words, before);
    ASSERT_EQ(without.code, 0) << without.output;
    const Outcome with =
        this->train(BIREME_CUDA_PROGRAM, run + "-with", device + "--run.cuda_graphs true " + words, before);
    ASSERT_EQ(with.code, 0) << with.output;
    for (const char* name : {"loss", "grad_norm", "center_norm", "marginal_entropy", "accuracy"})
      EXPECT_EQ(this->metric(run + "-with", name), this->metric(run + "-without", name)) << name;
    ASSERT_EQ(this->metric(run + "-with", "loss").size(), 5U);
    EXPECT_TRUE(std::isfinite(this->metric(run + "-with", "loss").back()));
    EXPECT_TRUE(this->metric(run + "-without", "graph_launches").empty());
    // Metrics are written when the optimizer has been started.
    const double launches = this->metric(run + "-with", "graph_launches").back(),
                 instantiated = this->metric(run + "-with", "graph_instantiations").back();
    EXPECT_GE(launches, 8);
    EXPECT_TRUE(instantiations == 0 || instantiated == static_cast<double>(instantiations)) << instantiated;
    EXPECT_TRUE(
        mentions(with.output, {"CUDA graphs: " + std::to_string(std::llround(launches)) + " launches, " +
                               std::to_string(std::llround(instantiated)) + " instantiations"}))
        << with.output;
  }
};

using GraphTraining = WithGraphs<CudaTraining>;
using GraphLanguageModel = WithGraphs<CudaLanguageModel>;
using GraphPreferences = WithGraphs<CudaAnswers>;
INSTANTIATE_TEST_SUITE_P(Models, GraphLanguageModel, ::testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Models, GraphPreferences, ::testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& info) { return info.param; });

TEST_F(GraphTraining, DinoGivesTheSameBits) {
  expect_same_bits("", 2);
  expect_same_bits("--precision.type bf16", 2);
  expect_same_bits("--precision.recompute true", 2);
}

TEST_F(GraphTraining, DinoInTwoPartsHasAGraphForEach) { expect_same_bits("--parallel.accumulate 2", 3); }

TEST_F(GraphTraining, AGraphIsInstantiatedAnewWhereTheLastLayerIsNoLongerFrozen) {
  expect_same_bits("--objective.freeze_last_layer_steps 3", 3);
}

TEST_F(GraphTraining, EveryOrderOfThreadsStreamsAndBranchesGivesTheSameBits) {
  const std::string words = "--run.device cuda --run.cuda_graphs true";
  for (const std::string seed : {"1", "2", "3"})
    ASSERT_EQ(train(BIREME_CUDA_PROGRAM, seed, words, "CUDA_ON_CPU_SEED=" + seed + " " + ranks(2)).code, 0);
  for (const char* name : {"loss", "grad_norm"}) {
    EXPECT_EQ(metric("1", name), metric("2", name));
    EXPECT_EQ(metric("1", name), metric("3", name));
  }
}

TEST_F(GraphTraining, RanksOverNcclGiveTheSameBits) {
  expect_same_bits("", 2, ranks(2));
  // Small buckets: many collectives beside the way back.
  expect_same_bits("--parallel.bucket_bytes 1024 --parallel.accumulate 2", 3, ranks(2));
  expect_same_bits("--parallel.zero 1", 2, ranks(2));
  expect_same_bits("--parallel.tensor 2", 2, ranks(2));
  expect_same_bits("--parallel.tensor 2", 2, ranks(4));
}

TEST_F(GraphTraining, AFailureOfNcclEndsEveryRankWithOneLine) {
  for (const std::string kind : {"call", "later"}) {
    const Outcome failed =
        train(BIREME_CUDA_PROGRAM, "failed-" + kind, "--run.device cuda --run.cuda_graphs true --run.steps 9",
              "CUDA_ON_CPU_NCCL_FAULT=1:7:" + kind + " " + ranks(2));
    EXPECT_EQ(failed.code, 7) << failed.output;
    EXPECT_TRUE(mentions(failed.output, {"failed on rank 1 (NCCL: "})) << failed.output;
  }
}

TEST_F(GraphTraining, GoesOnFromItsCheckpoint) {
  const std::string words = "--run.device cuda --run.cuda_graphs true";
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "whole", words).code, 0);
  ASSERT_EQ(
      train(BIREME_CUDA_PROGRAM, "parts", words + " --run.checkpoint_every 2 --run.keep_checkpoints 9").code,
      0);
  std::filesystem::remove_all(folder_.path() / "parts" / "checkpoints" / "step-00000004");
  const Outcome again = train(BIREME_CUDA_PROGRAM, "parts", "--resume " + words);
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(metric("parts", "loss"), metric("whole", "loss"));
}

TEST_F(GraphTraining, WithoutAGpuIsRefused) {
  const Outcome refused = train(BIREME_PROGRAM, "none", "--run.cuda_graphs true");
  EXPECT_EQ(refused.code, 2) << refused.output;
  EXPECT_TRUE(mentions(refused.output, {"run.cuda_graphs is true, but run.device is \"auto\"", "to cuda"}))
      << refused.output;
}

TEST_F(GraphTraining, AStepOfDinoTakesAsManyCallsAsTheDocumentationStates) {
  const std::string graphs = " --run.cuda_graphs true";
  EXPECT_EQ(launches_of_a_step(" --model.depth 2" + graphs), (Counted{104, 51, 25, 3, 14}));
  EXPECT_EQ(launches_of_a_step(" --model.depth 3" + graphs), (Counted{126, 67, 27, 3, 14}));
}

TEST_P(GraphLanguageModel, AStepTakesAsManyCallsAsTheDocumentationStates) {
  const std::string words = words_of(GetParam()) + " --data.documents_apart false --run.cuda_graphs true";
  const std::map<std::string, Counted> stated{
      {"llama", {43, 27, 13, 2, 8}}, {"rwkv", {70, 45, 12, 2, 8}}, {"xlstm", {101, 18, 18, 2, 8}}};
  EXPECT_EQ(launches_of_a_step(words), stated.at(GetParam()));
}

TEST_P(GraphLanguageModel, GivesTheSameBits) {
  expect_same_bits(words_of(GetParam()), 2);
  expect_same_bits(words_of(GetParam()) + " --precision.type bf16", 2);
}

TEST_P(GraphLanguageModel, RanksOverNcclGiveTheSameBits) {
  expect_same_bits(words_of(GetParam()) + " --parallel.bucket_bytes 1024", 2, ranks(2));
  expect_same_bits(words_of(GetParam()) + " --parallel.tensor 2", 2, ranks(2));
}

// Their answers differ in length from step to step, and the host waits in the middle: graphs save nothing
// here, but must not be wrong.
TEST_P(GraphPreferences, PairsGiveTheSameBits) {
  begin("pairs");
  const std::string words =
      "--model.type " + GetParam() + " --model.init " + path("base") + " --objective.type ";
  for (const std::string objective :
       {"dpo", "orpo --objective.lambda 0.25 --objective.diagnostics_every 2 --parallel.accumulate 2"})
    expect_same_bits(words + objective, 0);
}

TEST_P(GraphPreferences, FeedbackGivesTheSameBits) {
  begin("feedback");
  const std::string words =
      "--model.type " + GetParam() + " --model.init " + path("base") + " --objective.type ";
  for (const std::string objective : {"kto", "dro --objective.value separate"})
    expect_same_bits(words + objective, 0);
  expect_same_bits(words + "dro --objective.value separate", 0, ranks(2));
}

}  // namespace
}  // namespace bireme::test
