#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>
#include <string>

#include "tests/faults/job.h"
#include "tests/support/temporary_folder.h"

namespace bireme::test {

/// A training of seconds on two ranks that a test breaks: 12 grey pictures of 8 x 8 pixels in two shards, a
/// network of 16 channels.
class FaultyTraining : public ::testing::Test {
 protected:
  FaultyTraining();

  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  std::filesystem::path dataset() const { return path("set"); }
  std::filesystem::path shard() const { return dataset() / "shard-00001.h5"; }
  std::filesystem::path run() const { return path("run"); }
  std::filesystem::path checkpoints() const { return run() / "checkpoints"; }

  /// The words of `bireme train` with the small network, the dataset, the run folder, and more.
  std::string train(const std::string& more = "") const;
  static JobEnd end_of(const std::string& words) { return Job(words).wait(); }

  /// Checkpoints that stand under their final names, oldest first.
  std::vector<std::filesystem::path> saved() const;
  /// Waits until the training has saved one.
  void wait_for_checkpoint(Job& job) const;
  /// Waits until the training has logged a step after the time of the call.
  void wait_for_step(Job& job) const;

  /// All ranks ended with this code, soon, after one line that holds every part; nothing half-written stays.
  void expect_failure(const JobEnd& end, int code, std::initializer_list<std::string> parts) const;
  void expect_nothing_half_written() const;
  /// Every checkpoint holds what its manifest says, and the run goes on from the newest until it is told to
  /// stop.
  void expect_resumable() const;

  TemporaryFolder folder_;
};

/// Turns over one bit of the first place where the file holds `bytes`, or of the middle when that is empty.
void flip_bit(const std::filesystem::path& file, const std::string& bytes = "");

}  // namespace bireme::test
