#include <gtest/gtest.h>

#include "core/base/json.h"
#include "tests/cli/program.h"
#include "tests/support/encode.h"
#include "tests/support/expect_error.h"
#include "tests/support/tar.h"

namespace bireme::test {
namespace {

TEST(PrepareCommand, TurnsAnIdxPairIntoADataset) {
  const TemporaryFolder folder;
  const std::string images = folder.write("images", idx_pictures(10)).string(),
                    labels = folder.write("labels", idx_labels(10)).string(),
                    dataset = (folder.path() / "dataset").string();
  const std::string words =
      "prepare images --input " + images + " " + labels + " --output " + dataset + " --split tiny";
  const Outcome outcome = run_program(words + " --shard-size 4 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.errors;
  EXPECT_EQ(json_of(outcome)["records"], 10);
  const auto manifest = parse_json(folder.read("dataset/dataset.json"));
  EXPECT_EQ(manifest["split"], "tiny");
  EXPECT_EQ(manifest["shards"].size(), 3U) << "10 records by 4";

  const Outcome again = run_program(words);
  EXPECT_EQ(again.code, 2);
  EXPECT_TRUE(mentions(again.errors, {dataset, "--force"}));
  EXPECT_EQ(run_program(words + " --force").code, 0);
}

TEST(PrepareCommand, NamesAPictureThatDoesNotDecodeAndSkipsItOnlyWhenAsked) {
  const TemporaryFolder folder;
  const std::string whole = jpeg(16, 16, ramp(16, 16, 3));
  const std::string archive =
      folder
          .write("pictures.tar", tar_member("cats/a.jpg", whole) +
                                     tar_member("cats/torn.jpg", whole.substr(0, whole.size() / 2)) +
                                     tar_member("dogs/b.jpg", whole) + tar_end())
          .string();
  const std::string words = "prepare images --input " + archive + " --output ";
  const Outcome stopped = run_program(words + (folder.path() / "stopped").string());
  EXPECT_EQ(stopped.code, 3);
  EXPECT_TRUE(mentions(stopped.errors, {"bireme: error: ", "cats/torn.jpg"}));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "stopped")) << "nothing is left half-written";

  const Outcome skipped = run_program(words + (folder.path() / "skipped").string() + " --skip-broken --json");
  ASSERT_EQ(skipped.code, 0) << skipped.errors;
  const nlohmann::json result = json_of(skipped);
  EXPECT_EQ(result["records"], 2) << "a decoder that met a broken picture reads the next one: " << result;
  EXPECT_EQ(result["classes"], nlohmann::json({"cats", "dogs"}));
  ASSERT_EQ(result["broken"].size(), 1U);
  EXPECT_TRUE(mentions(result["broken"][0], {"cats/torn.jpg"}));
}

TEST(PrepareCommand, SaysWhatIsWrongWithItsWords) {
  EXPECT_TRUE(mentions(run_program("prepare imagse").errors, {"did you mean `bireme prepare images`?"}));
  const Outcome unknown = run_program("prepare images --input a --output b --imagesize 3");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(mentions(unknown.errors, {"--imagesize", "--image-size"}));
  const Outcome missing = run_program("prepare images --input /no/such.tar --output /tmp/never");
  EXPECT_EQ(missing.code, 3);
  EXPECT_TRUE(mentions(missing.errors, {"/no/such.tar"}));
  EXPECT_EQ(run_program("prepare images --input a").code, 2) << "--output is required";
  EXPECT_EQ(run_program("prepare images --input a --output b --shard-size 0").code, 2);
}

}  // namespace
}  // namespace bireme::test
