#include <gtest/gtest.h>

#include "core/tensor/memory.h"
#include "distributed/checkpoint.h"
#include "tests/cli/program.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

/// Turns one bit over in the middle of a file.
void flip(const TemporaryFolder& folder, const std::string& name) {
  std::string bytes = folder.read(name);
  bytes[bytes.size() / 2] ^= 1;
  folder.write(name, bytes);
}

TEST(InspectCommand, FindsAFlippedBitInADataset) {
  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_pictures(10)).string(),
                    labels = folder.write("labels", idx_labels(10)).string(),
                    dataset = (folder.path() / "dataset").string();
  ASSERT_EQ(
      run_program("prepare images --shard-size 5 --input " + images + " " + labels + " --output " + dataset)
          .code,
      0);
  const Outcome whole = run_program("inspect " + dataset + " --json");
  EXPECT_EQ(whole.code, 0) << whole.errors;
  const nlohmann::json report = json_of(whole);
  EXPECT_EQ(report["kind"], "dataset");
  EXPECT_EQ(report["records"], 10);
  EXPECT_EQ(report["is_whole"], true);

  flip(folder, "dataset/shard-00001.h5");
  const Outcome damaged = run_program("inspect " + dataset + " --json");
  EXPECT_EQ(damaged.code, 3);
  EXPECT_EQ(json_of(damaged)["is_whole"], false);
  EXPECT_TRUE(mentions(damaged.errors, {"shard-00001.h5", "checksum"}));
  EXPECT_EQ(damaged.errors.find("shard-00000.h5"), std::string::npos) << "that one is whole";

  std::filesystem::remove(folder.path() / "dataset/shard-00001.h5");
  const Outcome missing = run_program("inspect " + dataset);
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(mentions(missing.errors, {"shard-00001.h5"}));
}

TEST(InspectCommand, FindsAFlippedBitInACheckpointAndInItsRun) {
  const TemporaryFolder folder;
  const auto memory = make_host_memory();
  const Tensor weight(*memory, {64, 64}, DType::f32);
  fill(weight, 1.5);
  const auto alone = make_single_process();
  save_checkpoint(folder.path() / "run/checkpoints", 20,
                  {.files = {{"model.safetensors", {{"weight", weight, {64, 64}, Partition{}}}}},
                   .texts = {{"config.json", "{}"}}},
                  *alone, *alone);
  const std::string run = (folder.path() / "run").string();
  const Outcome whole = run_program("inspect " + run + " --json");
  EXPECT_EQ(whole.code, 0) << whole.errors;
  EXPECT_EQ(json_of(whole)["checkpoints"][0]["step"], 20);
  EXPECT_EQ(json_of(whole)["checkpoints"][0]["files"]["model.safetensors"]["values"], 64 * 64);

  flip(folder, "run/checkpoints/step-00000020/model.safetensors");
  for (const std::string& path : {run, run + "/checkpoints/step-00000020"}) {
    const Outcome damaged = run_program("inspect " + path);
    EXPECT_EQ(damaged.code, 4);
    EXPECT_TRUE(mentions(damaged.errors, {"model.safetensors", "weight"}));
  }
}

TEST(InspectCommand, SaysWhatItWants) {
  const TemporaryFolder folder;
  EXPECT_EQ(run_program("inspect /no/such/folder").code, 3);
  const Outcome empty = run_program("inspect " + folder.path().string());
  EXPECT_EQ(empty.code, 3);
  EXPECT_TRUE(mentions(empty.errors, {folder.path().string(), "dataset, checkpoint, run"}));
  EXPECT_EQ(run_program("inspect").code, 2);
  const Outcome help = run_program("inspect --help");
  EXPECT_EQ(help.code, 0);
  EXPECT_TRUE(mentions(help.output, {"Examples:", "bireme inspect "}));
}

}  // namespace
}  // namespace bireme::test
