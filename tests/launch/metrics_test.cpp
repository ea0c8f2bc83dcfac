#include "launch/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "launch/append_file.h"
#include "launch/gnuplot.h"

namespace bireme {
namespace {

std::string read_metrics_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> event_files(const std::filesystem::path& run) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(run / "tensorboard"))
    files.push_back(entry.path());
  return files;
}

TEST(Metrics, LineHoldsTheStepThenTheNumbersInOrderAndNullForNaN) {
  const std::vector<Metric> metrics = {{"loss", 2.5}, {"images", 64}, {"kl", NAN}, {"grad_norm", INFINITY}};
  EXPECT_EQ(metrics_line(12, metrics),
            "{\"step\":12,\"loss\":2.5,\"images\":64,\"kl\":null,\"grad_norm\":null}\n");
}

TEST(Metrics, DoublesReadBackToTheSameBits) {
  const TemporaryFolder run;
  Metrics metrics(run.path(), 0);
  metrics.set("loss", 1.0 / 3);
  metrics.set("loss", 0.1);  // the last value of a step stays
  metrics.set("tiny", 5e-324);
  metrics.write(1);
  EXPECT_TRUE(metrics.current().empty());
  const MetricHistory history = read_metrics(run.path());
  EXPECT_EQ(history.curves.at("loss"), (MetricHistory::Curve{{1, 0.1}}));
  EXPECT_EQ(history.curves.at("tiny"), (MetricHistory::Curve{{1, 5e-324}}));
  EXPECT_EQ(history.find("nothing"), nullptr);
}

TEST(Metrics, ResumingCutsWhatCameAfterTheCheckpointAndGoesOn) {
  const TemporaryFolder run;
  {
    Metrics metrics(run.path(), 0);
    for (const int step : {10, 20, 30, 40}) {
      metrics.set("loss", step);
      metrics.write(step);
    }
  }
  std::ofstream(run.path() / "metrics.jsonl", std::ios::app) << "{\"step\":50,\"lo";  // killed while writing
  EXPECT_EQ(read_metrics(run.path()).curves.at("loss").size(), 4U);
  Metrics metrics(run.path(), 25);
  metrics.set("loss", 7);
  metrics.write(30);
  EXPECT_EQ(read_metrics_text(run.path() / "metrics.jsonl"),
            "{\"step\":10,\"loss\":10}\n{\"step\":20,\"loss\":20}\n{\"step\":30,\"loss\":7}\n");
}

TEST(Metrics, FreshStartOverwritesAnOldFile) {
  const TemporaryFolder run;
  std::ofstream(run.path() / "metrics.jsonl") << "{\"step\":0,\"loss\":2}\n{\"step\":1,\"loss\":1}\n";
  const Metrics metrics(run.path(), 0);
  EXPECT_EQ(read_metrics_text(run.path() / "metrics.jsonl"), "");
}

TEST(Metrics, BrokenLineIsNamed) {
  const TemporaryFolder run;
  std::ofstream(run.path() / "metrics.jsonl") << "{\"step\":1,\"loss\":1}\nnonsense\n{\"step\":2}\n";
  try {
    read_metrics(run.path());
    FAIL() << "a broken line was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_TRUE(error.where().ends_with("metrics.jsonl:2")) << error.what();
  }
}

// /dev/full takes no byte: every write fails with "No space left on device".
TEST(AppendFile, FullDiskLosesRecordsAndCountsThem) {
  AppendFile file("/dev/full");
  EXPECT_FALSE(file.append("one\n"));
  EXPECT_FALSE(file.append("two\n"));
  EXPECT_EQ(file.lost(), 2);
  EXPECT_EQ(file.problem(), std::strerror(ENOSPC));
}

TEST(AppendFile, FullDiskDoesNotStopMetrics) {
  const TemporaryFolder run;
  std::filesystem::create_symlink("/dev/full", run.path() / "metrics.jsonl");
  Metrics metrics(run.path(), 0);
  for (int step = 1; step <= 3; ++step) {
    metrics.set("loss", step);
    EXPECT_NO_THROW(metrics.write(step));
  }
  EXPECT_EQ(metrics.lost(), 3);
}

TEST(Tensorboard, ChecksumIsCastagnolis) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);  // RFC 3720, appendix B.4 in another form
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
}

/// Walks the records of an event file by their lengths and checks that the file ends with the last.
std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> found;
  std::size_t at = 0;
  while (at + 12 <= file.size()) {
    std::uint64_t length = 0;
    std::memcpy(&length, file.data() + at, 8);
    found.push_back(file.substr(at + 12, length));
    at += 12 + length + 4;
  }
  EXPECT_EQ(at, file.size());
  return found;
}

TEST(Tensorboard, FileStartsWithItsVersionAndHoldsOneRecordAStep) {
  const TemporaryFolder run;
  Metrics metrics(run.path(), 0);
  metrics.set("loss", 1.5);
  metrics.write(3);
  const auto files = event_files(run.path());
  ASSERT_EQ(files.size(), 1U);
  const auto found = records(read_metrics_text(files[0]));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_TRUE(found[0].ends_with(std::string("\x1a\x0d", 2) + "brain.Event:2"));
  // Summary{value{tag "loss", simple_value 1.5f}}: 1.5f is 0x3fc00000.
  const std::string summary("\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\xc0\x3f", 15);
  EXPECT_TRUE(found[1].find(summary) != std::string::npos);
  EXPECT_TRUE(found[1].find(std::string("\x10\x03", 2)) != std::string::npos);  // step 3
}

TEST(Tensorboard, ResumedFilePurgesWhatEarlierOnesHoldAfterTheCheckpoint) {
  const TemporaryFolder run;
  const Metrics metrics(run.path(), 20);
  const auto found = records(read_metrics_text(event_files(run.path()).at(0)));
  ASSERT_EQ(found.size(), 2U);
  // step 21, SessionLog{status START}
  EXPECT_TRUE(found[1].ends_with(std::string("\x10\x15\x3a\x02\x08\x01", 6)));
}

}  // namespace
}  // namespace bireme
