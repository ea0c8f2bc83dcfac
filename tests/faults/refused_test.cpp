// Faults that are there before the first step: the training says which, and leaves nothing behind.
#include "tests/faults/training.h"

namespace bireme::test {
namespace {

class Refused : public FaultyTraining {
 protected:
  void expect_refused(const std::string& words, int code, std::initializer_list<std::string> parts) const {
    expect_failure(end_of(words), code, parts);
    EXPECT_FALSE(std::filesystem::exists(run())) << "the run folder was made for a run that never began";
  }
};

TEST_F(Refused, MissingShard) {
  std::filesystem::remove(shard());
  expect_refused(train(), 3, {shard().string(), "copy the shard again"});
}

TEST_F(Refused, TornShard) {
  std::filesystem::resize_file(shard(), std::filesystem::file_size(shard()) / 2);
  expect_refused(train(), 3, {shard().string(), "bytes, the manifest says"});
}

TEST_F(Refused, UnknownKeySuggestsTheNearest) {
  expect_refused(train("--optimizer.learning_rat 1e-3"), 2,
                 {"optimizer.learning_rat", "did you mean `--optimizer.learning_rate`"});
  folder_.write("tiny.toml", "[data]\nbatch_sise = 4\n");
  expect_refused(train(), 2, {"data.batch_sise", "tiny.toml:2", "did you mean `data.batch_size`"});
}

TEST_F(Refused, CropsLargerThanThePictures) {
  expect_refused(train("--data.global_size 12"), 2,
                 {"data.global_size is 12", "8 x 8", "at most 8, or prepare the dataset with a larger"});
}

TEST_F(Refused, TensorDegreeThatDoesNotDivideTheHeads) {
  expect_refused(train("--parallel.tensor 2 --model.heads 1"), 2,
                 {"parallel.tensor is 2", "1 attention heads", "choose parallel.tensor from 1"});
}

TEST_F(Refused, TensorDegreeThatDoesNotDivideTheRanks) {
  expect_refused(train("--parallel.tensor 4 --model.heads 4"), 2, {"parallel.tensor", "4", "2 ranks"});
}

TEST_F(Refused, BatchThatTheRanksCannotShare) {
  expect_refused(train("--data.batch_size 3"), 2, {"data.batch_size", "3", "2"});
}

TEST_F(Refused, AFolderThatHoldsARun) {
  ASSERT_EQ(end_of(train("--run.steps 1")).code, 0);
  const std::vector<std::filesystem::path> before = saved();
  const auto written = std::filesystem::last_write_time(run() / "config.toml");
  expect_failure(end_of(train("--run.steps 2")), 2, {"already holds a run", run().string(), "--resume"});
  EXPECT_EQ(saved(), before);
  EXPECT_EQ(std::filesystem::last_write_time(run() / "config.toml"), written);
}

TEST_F(Refused, ADegreeOfTheRunItselfThatDoesNotFitTheRanksOfAResume) {
  ASSERT_EQ(end_of(train("--run.steps 1 --parallel.tensor 2")).code, 0);
  const JobEnd end = Job("train --resume --run " + run().string(), 3).wait();
  expect_failure(end, 2, {"parallel.tensor is 2", "3 ranks", "config.toml", "with --parallel.tensor"});
}

}  // namespace
}  // namespace bireme::test
