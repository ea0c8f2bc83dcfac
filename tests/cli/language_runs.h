#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/cli/program.h"

namespace bireme::test {

/// Runs of a step each, of networks of 16 channels that read bytes.
class LanguageRuns : public ::testing::Test {
 protected:
  /// The run folder of a model of this type, trained when it is first asked for.
  std::string run_of(const std::string& type, const std::string& more = "") {
    const std::string run = (folder_.path() / type).string();
    if (std::filesystem::exists(run)) return run;
    const std::string dataset = (folder_.path() / "text").string();
    if (!std::filesystem::exists(dataset)) {
      std::string text;
      for (int i = 0; i < 100; ++i) text += "the oars of ship " + std::to_string(i * 37 % 211) + " row\n";
      const Outcome prepared =
          run_program("prepare text --tokenizer byte --input " + folder_.write("ships.txt", text).string() +
                      " --output " + dataset);
      EXPECT_EQ(prepared.code, 0) << prepared.errors;
    }
    const Outcome trained =
        run_program("train --model.type " + type +
                    " --model.embed_dim 16 --model.depth 2 --data.sequence_length 16 --data.batch_size 4 "
                    "--run.steps 1 --schedule.warmup_steps 0 --run.evaluate_every 0 --data.path " +
                    dataset + " --run " + run + " " + more);
    EXPECT_EQ(trained.code, 0) << trained.errors;
    return run;
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  TemporaryFolder folder_;
};

}  // namespace bireme::test
