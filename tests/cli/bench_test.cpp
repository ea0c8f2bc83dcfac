#include <gtest/gtest.h>

#include <algorithm>

#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

TEST(BenchCommand, MeasuresProductsAndTheLoader) {
  const Outcome gemm = run_program("bench gemm --rows 64 --width 32 --square 64 --json");
  ASSERT_EQ(gemm.code, 0) << gemm.errors;
  double best = 0;
  const nlohmann::json result = json_of(gemm);
  ASSERT_FALSE(result["products"].empty());
  for (const auto& product : result["products"]) {
    EXPECT_GT(product["gflops"], 0.0) << product;
    best = std::max(best, product["fraction_of_peak"].get<double>());
  }
  EXPECT_EQ(best, 1.0) << "the peak is the best product";

  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_pictures(10)).string(),
                    labels = folder.write("labels", idx_labels(10)).string(),
                    dataset = (folder.path() / "dataset").string();
  ASSERT_EQ(run_program("prepare images --input " + images + " " + labels + " --output " + dataset).code, 0);
  const Outcome loader = run_program(
      "bench loader --seconds 0.05 --data.global_size 8 --data.local_size 4 --model.patch_size 4 "
      "--model.image_size 8 --json --data " +
      dataset);
  ASSERT_EQ(loader.code, 0) << loader.errors;
  EXPECT_GT(json_of(loader)["pictures_per_second"], 0.0);
}

TEST(BenchCommand, TimesWholeSteps) {
  const Outcome step = run_program(
      "bench step --steps 2 --data.batch_size 2 --data.local_crops 1 --model.embed_dim 12 --model.depth 1 "
      "--model.head_hidden 8 --model.prototypes 16 --json");
  ASSERT_EQ(step.code, 0) << step.errors;
  const nlohmann::json result = json_of(step);
  EXPECT_GT(result["images_per_second"], 0.0);
  EXPECT_NEAR(result["images_per_second"].get<double>() * result["seconds"].get<double>(), 2, 1e-6)
      << "two images a step";
  EXPECT_GT(result["fraction_of_peak"], 0.0);
}

TEST(BenchCommand, AllReduceWantsMoreThanOneRank) {
  const Outcome alone = run_program("bench allreduce");
  EXPECT_EQ(alone.code, 2);
  EXPECT_TRUE(mentions(alone.errors, {"mpirun -n 2"}));
}

}  // namespace
}  // namespace bireme::test
