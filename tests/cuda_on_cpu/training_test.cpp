// Training by the kernels for GPUs, on the harness, against training on the CPU: the programs themselves.
#include "tests/cuda_on_cpu/training.h"

#include <map>

namespace bireme::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Models, CudaLanguageModel, ::testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& info) { return info.param; });

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double relative) {
  ASSERT_EQ(actual.size(), expected.size());
  ASSERT_FALSE(actual.empty());
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], relative * std::abs(expected[i])) << "step " << i + 1;
}

TEST_F(CudaTraining, DinoFollowsTheTrajectoryOfTheCpu) {
  const Outcome cpu = train(BIREME_PROGRAM, "cpu", "--run.device cpu");
  ASSERT_EQ(cpu.code, 0) << cpu.output;
  const Outcome gpu = train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda");
  ASSERT_EQ(gpu.code, 0) << gpu.output;
  // fp32 on both; four steps multiply what single kernels differ by.
  expect_near(metric("gpu", "loss"), metric("cpu", "loss"), 1e-5);
  expect_near(metric("gpu", "grad_norm"), metric("cpu", "grad_norm"), 1e-4);
}

TEST_F(CudaTraining, DinoInTwoPartsWithEvaluationsIsAsOnTheCpu) {
  const std::string words = " --parallel.accumulate 2 --run.evaluate_every 2 --data.evaluation_train " +
                            path("more") + " --data.evaluation_test " + path("more");
  write_made_up_pictures(folder_.path() / "more", kMorePictures);
  const Outcome cpu = train(BIREME_PROGRAM, "cpu", "--run.device cpu" + words);
  ASSERT_EQ(cpu.code, 0) << cpu.output;
  const Outcome gpu = train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda" + words);
  ASSERT_EQ(gpu.code, 0) << gpu.output;
  for (const char* name : {"loss", "center_norm", "marginal_entropy"})
    expect_near(metric("gpu", name), metric("cpu", name), 1e-5);
  for (const char* name : {"knn_raw", "knn_teacher", "knn_student"})
    EXPECT_EQ(metric("gpu", name), metric("cpu", name)) << name;
}

TEST_P(CudaLanguageModel, FollowsTheTrajectoryOfTheCpu) {
  const std::string model = words_of(GetParam());
  const Outcome cpu = train(BIREME_PROGRAM, "cpu", "--run.device cpu" + model);
  ASSERT_EQ(cpu.code, 0) << cpu.output;
  const Outcome gpu = train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda" + model);
  ASSERT_EQ(gpu.code, 0) << gpu.output;
  expect_near(metric("gpu", "loss"), metric("cpu", "loss"), 1e-5);
  expect_near(metric("gpu", "grad_norm"), metric("cpu", "grad_norm"), 1e-4);
}

TEST_P(CudaLanguageModel, EvaluatesOnTheWayLikeTheCpuAndGoesOnFromItsCheckpoint) {
  const std::string words = words_of(GetParam()) +
                            " --run.steps 4 --run.evaluate_every 2 --data.validation " + path(dataset_) +
                            " --run.checkpoint_every 2 --run.keep_checkpoints 9";
  const Outcome cpu = train(BIREME_PROGRAM, "cpu", "--run.device cpu" + words);
  ASSERT_EQ(cpu.code, 0) << cpu.output;
  const Outcome gpu = train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda" + words);
  ASSERT_EQ(gpu.code, 0) << gpu.output;
  expect_near(metric("gpu", "validation_perplexity"), metric("cpu", "validation_perplexity"), 1e-5);
  const std::vector<double> whole = metric("gpu", "loss");
  std::filesystem::remove_all(folder_.path() / "gpu" / "checkpoints" / "step-00000004");
  const Outcome again = train(BIREME_CUDA_PROGRAM, "gpu", "--resume --run.device cuda" + words);
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(metric("gpu", "loss"), whole);
}

TEST_P(CudaLanguageModel, Bf16StaysNearTheTrajectoryOfFp32) {
  const std::string model = words_of(GetParam());
  ASSERT_EQ(train(BIREME_PROGRAM, "cpu", "--run.device cpu" + model).code, 0);
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda --precision.type bf16" + model).code, 0);
  expect_near(metric("gpu", "loss"), metric("cpu", "loss"), 0.01);
}

class CudaPreferences : public CudaAnswers {
 protected:
  void expect_the_trajectory_of_the_cpu(const std::string& objective) {
    SCOPED_TRACE(objective);
    const std::string words = " --model.type " + GetParam() + " --model.init " + path("base") +
                              " --objective." + "type " + objective,
                      run = std::to_string(runs_++);
    const Outcome cpu = train(BIREME_PROGRAM, run + "-cpu", "--run.device cpu" + words);
    ASSERT_EQ(cpu.code, 0) << cpu.output;
    const Outcome gpu = train(BIREME_CUDA_PROGRAM, run + "-gpu", "--run.device cuda" + words);
    ASSERT_EQ(gpu.code, 0) << gpu.output;
    expect_near(metric(run + "-gpu", "loss"), metric(run + "-cpu", "loss"), 1e-5);
    expect_near(metric(run + "-gpu", "grad_norm"), metric(run + "-cpu", "grad_norm"), 1e-4);
  }
};
INSTANTIATE_TEST_SUITE_P(Models, CudaPreferences, ::testing::Values("llama", "rwkv", "xlstm"),
                         [](const auto& info) { return info.param; });

TEST_P(CudaPreferences, OrpoFollowsTheTrajectoryOfTheCpu) {
  begin("pairs");
  expect_the_trajectory_of_the_cpu("orpo --objective.lambda 0.25 --objective.diagnostics_every 2");
}

TEST_P(CudaPreferences, PairsFollowTheTrajectoryOfTheCpu) {
  begin("pairs");
  for (const std::string objective : {"sft", "dpo", "ipo", "simpo"})
    expect_the_trajectory_of_the_cpu(objective);
}

TEST_P(CudaPreferences, FeedbackFollowsTheTrajectoryOfTheCpu) {
  begin("feedback");
  for (const std::string value : {"separate", "shared", "constant"})
    expect_the_trajectory_of_the_cpu("dro --objective.value " + value);
  expect_the_trajectory_of_the_cpu("kto");
}

TEST_F(CudaTraining, RanksOverNcclFollowTheTrajectoryOfMpi) {
  ASSERT_EQ(train(BIREME_PROGRAM, "cpu", "--run.device cpu").code, 0);
  const std::vector<std::pair<int, std::string>> layouts{
      {2, ""}, {2, " --parallel.zero 1"}, {4, " --parallel.tensor 2"}};
  for (const auto& [count, words] : layouts) {
    const std::string launcher = ranks(count),
                      run = std::to_string(count) + (words.empty() ? "" : words.substr(12, 2));
    SCOPED_TRACE(launcher + words);
    const Outcome mpi = train(BIREME_PROGRAM, run + "-mpi", "--run.device cpu" + words, launcher);
    ASSERT_EQ(mpi.code, 0) << mpi.output;
    const Outcome nccl = train(BIREME_CUDA_PROGRAM, run + "-nccl", "--run.device cuda" + words, launcher);
    ASSERT_EQ(nccl.code, 0) << nccl.output;
    expect_near(metric(run + "-nccl", "loss"), metric(run + "-mpi", "loss"), 1e-5);
    expect_near(metric(run + "-nccl", "loss"), metric("cpu", "loss"), 1e-5);
  }
}

TEST_P(CudaLanguageModel, TwoByTwoRanksOverNcclFollowTheTrajectoryOfMpi) {
  const std::string model = words_of(GetParam()) + " --parallel.tensor 2";
  const Outcome mpi = train(BIREME_PROGRAM, "mpi", "--run.device cpu" + model, ranks(4));
  ASSERT_EQ(mpi.code, 0) << mpi.output;
  const Outcome nccl = train(BIREME_CUDA_PROGRAM, "nccl", "--run.device cuda" + model, ranks(4));
  ASSERT_EQ(nccl.code, 0) << nccl.output;
  expect_near(metric("nccl", "loss"), metric("mpi", "loss"), 1e-5);
  expect_near(metric("nccl", "grad_norm"), metric("mpi", "grad_norm"), 1e-4);
}

TEST_F(CudaTraining, AFailureOfNcclEndsEveryRankWithOneLine) {
  for (const std::string kind : {"call", "later"}) {
    const Outcome failed = train(BIREME_CUDA_PROGRAM, "failed-" + kind, "--run.device cuda",
                                 "CUDA_ON_CPU_NCCL_FAULT=1:3:" + kind + " " + ranks(2));
    EXPECT_EQ(failed.code, 7) << failed.output;
    EXPECT_TRUE(mentions(failed.output, {"failed on rank 1 (NCCL: "})) << failed.output;
  }
}

TEST_F(CudaTraining, AStepOfDinoLaunchesAsManyKernelsAsTheDocumentationStates) {
  const Counted depth2 = launches_of_a_step(" --model.depth 2"),
                depth3 = launches_of_a_step(" --model.depth 3");
  EXPECT_EQ(depth3 - depth2, (Counted{22, 16, 2, 0, 40}));
  EXPECT_EQ(depth2, (Counted{104, 51, 25, 3, 180}));
}

TEST_P(CudaLanguageModel, AStepLaunchesAsManyKernelsAsTheDocumentationStates) {
  const std::string words = words_of(GetParam()) + " --data.documents_apart false";
  const std::map<std::string, Counted> stated{
      {"llama", {43, 27, 13, 2, 83}}, {"rwkv", {70, 45, 12, 2, 127}}, {"xlstm", {101, 18, 18, 2, 137}}};
  EXPECT_EQ(launches_of_a_step(words), stated.at(GetParam()));
}

TEST_F(CudaTraining, AGpuThatIsLeftAloneIsMentioned) {
  const Outcome outcome = train(BIREME_CUDA_PROGRAM, "auto", "");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_TRUE(mentions(outcome.output, {"warning: a GPU is here", "--run.device cuda"})) << outcome.output;
}

TEST_F(CudaTraining, MoreRanksThanGpusIsRefused) {
  const Outcome two = train(BIREME_CUDA_PROGRAM, "two", "--run.device cuda",
                            "CUDA_ON_CPU_DEVICES=1 " + ranks(2).substr(ranks(2).find(' ')));
  EXPECT_EQ(two.code, 8) << two.output;
  EXPECT_TRUE(mentions(two.output, {"2 ranks on this host, but 1 GPU", "--run.device cpu"}));
}

TEST_F(CudaTraining, EveryOrderOfThreadsAndStreamsGivesTheSameBits) {
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "one", "--run.device cuda", "CUDA_ON_CPU_SEED=1").code, 0);
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "two", "--run.device cuda", "CUDA_ON_CPU_SEED=2").code, 0);
  EXPECT_EQ(metric("one", "loss"), metric("two", "loss"));
  EXPECT_EQ(metric("one", "grad_norm"), metric("two", "grad_norm"));
}

TEST_F(CudaTraining, Bf16StaysNearTheTrajectoryOfFp32) {
  const Outcome cpu = train(BIREME_PROGRAM, "cpu", "--run.device cpu");
  ASSERT_EQ(cpu.code, 0) << cpu.output;
  const Outcome gpu = train(BIREME_CUDA_PROGRAM, "gpu", "--run.device cuda --precision.type bf16");
  ASSERT_EQ(gpu.code, 0) << gpu.output;
  // Activations are rounded by up to 2⁻⁹ of themselves; the loss is a mean over many of them.
  expect_near(metric("gpu", "loss"), metric("cpu", "loss"), 0.01);
}

TEST_F(CudaTraining, GoesOnFromItsCheckpoint) {
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "whole", "--run.device cuda").code, 0);
  ASSERT_EQ(train(BIREME_CUDA_PROGRAM, "parts",
                  "--run.device cuda --run.checkpoint_every 2 --run.keep_checkpoints 9")
                .code,
            0);
  std::filesystem::remove_all(folder_.path() / "parts" / "checkpoints" / "step-00000004");
  const Outcome again = train(BIREME_CUDA_PROGRAM, "parts", "--resume --run.device cuda");
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(metric("parts", "loss"), metric("whole", "loss"));
}

TEST_F(CudaTraining, WithoutAGpuSaysSoInOneLine) {
  const Outcome none = train(BIREME_CUDA_PROGRAM, "none", "--run.device cuda", "CUDA_ON_CPU_DEVICES=0");
  EXPECT_EQ(none.code, 8) << none.output;
  EXPECT_TRUE(mentions(none.output, {"no GPU is present", "use --run.device cpu"})) << none.output;
  EXPECT_EQ(std::count(none.output.begin(), none.output.end(), '\n'), 1) << none.output;
}

TEST_F(CudaTraining, OutOfMemorySaysWhatWasAskedForHeldAndFree) {
  const Outcome full = train(BIREME_CUDA_PROGRAM, "full", "--run.device cuda", "CUDA_ON_CPU_MEMORY=131072");
  EXPECT_EQ(full.code, 1) << full.output;
  EXPECT_TRUE(mentions(full.output,
                       {"out of memory", "GPU 0", "asked for", "held by tensors", "free", "data.batch_size"}))
      << full.output;
}

}  // namespace
}  // namespace bireme::test
