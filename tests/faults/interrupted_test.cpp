// Faults in the midst of a training: it ends on all ranks, and goes on later from what was saved.
#include <sys/resource.h>

#include <csignal>

#include "core/data/writer.h"
#include "tests/cli/program.h"
#include "tests/faults/training.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

// Without an end of its own, so that there is a training to interrupt however fast the machine.
constexpr const char* kEndless = "--run.steps 1000000 --run.checkpoint_every 20 --run.keep_checkpoints 2";

class Interrupted : public FaultyTraining {};

TEST_F(Interrupted, AFlippedBitInAShardNamesIt) {
  std::string pixels;  // of record 8, the third of this shard
  for (int pixel = 0; pixel < 16; ++pixel) pixels += static_cast<char>((pixel * 7 + 8 * 31) % 251);
  flip_bit(shard(), pixels);
  expect_failure(end_of(train(kEndless)), 3, {shard().string(), "checksum"});
}

TEST_F(Interrupted, APictureThatDoesNotDecodeIsNamed) {
  DatasetWriter writer({.output = path("broken"), .classes = {"a"}});
  for (int i = 0; i < 8; ++i) {
    EncodedPicture picture{.bytes = {}, .height = 8, .width = 8, .channels = 1, .label = 0};
    picture.bytes.assign(64, static_cast<std::uint8_t>(i));
    if (i == 5) {
      picture.codec = Codec::jpeg;  // the beginning of one, and no more
      picture.bytes = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F'};
    }
    writer.append(std::move(picture));
  }
  writer.finish({0.5}, {0.25});
  expect_failure(end_of(train(std::string(kEndless) + " --data.path " + path("broken").string())), 3,
                 {"shard-00000.h5, record 5"});
}

TEST_F(Interrupted, AFlippedBitInACheckpointIsNotResumedFrom) {
  ASSERT_EQ(end_of(train("--run.steps 2 --run.checkpoint_every 1")).code, 0);
  ASSERT_EQ(saved().size(), 2U);
  flip_bit(saved()[1] / "student.safetensors");
  const std::string again = "train --resume --run " + run().string();
  const JobEnd fell_back = end_of(again);
  EXPECT_EQ(fell_back.code, 0) << fell_back.errors;
  EXPECT_TRUE(mentions(fell_back.errors, {"warning: ", "student.safetensors", "resumed after step 1"}));

  for (const auto& checkpoint : saved()) flip_bit(checkpoint / "optimizer.safetensors");
  expect_failure(end_of(again), 4, {"optimizer.safetensors"});
}

TEST_F(Interrupted, ARunBeginsFromTheLastWholeCheckpointOfAnother) {
  ASSERT_EQ(end_of(train("--run.steps 2 --run.checkpoint_every 1")).code, 0);
  flip_bit(saved()[1] / "student.safetensors");
  const JobEnd next =
      end_of("train --config " + path("tiny.toml").string() + " --data.path " + dataset().string() +
             " --model.init " + run().string() + " --run.steps 1 --run " + path("next").string());
  EXPECT_EQ(next.code, 0) << next.errors;
  const std::string warning = "checkpoint of step 2 is damaged and passed over";
  const std::size_t first = next.errors.find(warning);
  EXPECT_NE(first, std::string::npos) << next.errors;
  EXPECT_EQ(next.errors.find(warning, first + 1), std::string::npos) << "not once a rank: " << next.errors;
}

TEST_F(Interrupted, AFullDiskLeavesTheLastCheckpointWhole) {
  Job job(train(kEndless));
  const std::vector<pid_t> ranks = job.ranks();
  wait_for_checkpoint(job);
  // A limit on the size of files, set from outside when all of MPI's own are there.
  const rlimit little{.rlim_cur = 2048, .rlim_max = 2048};
  for (const pid_t rank : ranks) ASSERT_EQ(::prlimit(rank, RLIMIT_FSIZE, &little, nullptr), 0);
  expect_failure(job.wait(), 4, {".safetensors", checkpoints().string()});
  expect_resumable();
}

TEST_F(Interrupted, ALossThatIsNotFiniteEndsAfterTheAllowedSteps) {
  const JobEnd end = end_of(
      train("--run.steps 50 --run.checkpoint_every 1 --run.max_skipped_steps 2 --schedule.warmup_steps 0 "
            "--optimizer.learning_rate 1e30 --optimizer.minimum_learning_rate 1e30"));
  expect_failure(end, 5, {"not finite in 3 steps in a row", "learning_rate"});
  ASSERT_FALSE(saved().empty()) << "the steps before were good";
  const Outcome inspected = run_program("inspect " + run().string());
  EXPECT_EQ(inspected.code, 0) << inspected.errors;
}

TEST_F(Interrupted, ARankThatIsKilledEndsTheOthers) {
  Job job(train(kEndless));
  const std::vector<pid_t> ranks = job.ranks();
  wait_for_checkpoint(job);
  ASSERT_EQ(::kill(ranks[1], SIGKILL), 0);
  const JobEnd end = job.wait();
  EXPECT_TRUE(end.code == 7 || end.code == 128 + SIGKILL) << end.code << end.errors;
  EXPECT_TRUE(end.left_behind.empty());
  EXPECT_LE(end.error_lines().size(), 1U) << end.errors;
  expect_resumable();
  expect_nothing_half_written();
}

TEST_F(Interrupted, ARankThatStopsIsNamedByTheWatchdog) {
  Job job(train(std::string(kEndless) + " --run.timeout_seconds 3"));
  const std::vector<pid_t> ranks = job.ranks();
  wait_for_checkpoint(job);
  ASSERT_EQ(::kill(ranks[1], SIGSTOP), 0);
  expect_failure(job.wait(), 6, {"has not finished", "rank 1", "stopped"});
}

TEST_F(Interrupted, ASignalEndsTheRunWithACheckpoint) {
  Job job(train("--run.steps 1000000 --run.checkpoint_every 0"));
  wait_for_step(job);
  ::kill(job.launcher(), SIGUSR1);
  const JobEnd end = job.wait();
  EXPECT_EQ(end.code, 0) << end.errors;
  EXPECT_TRUE(end.error_lines().empty()) << end.errors;
  EXPECT_TRUE(mentions(end.errors, {"stopped by a signal after step", "--resume"}));
  ASSERT_EQ(saved().size(), 1U);
  expect_resumable();
}

}  // namespace
}  // namespace bireme::test
