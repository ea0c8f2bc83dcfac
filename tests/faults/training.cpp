#include "tests/faults/training.h"

#include <algorithm>
#include <csignal>
#include <fstream>

#include "tests/cli/program.h"
#include "tests/support/expect_error.h"
#include "tests/support/made_up_pictures.h"

namespace bireme::test {

namespace {

constexpr const char* kConfiguration = R"([model]
embed_dim = 16
depth = 1
heads = 2
patch_size = 4
image_size = 8
head_hidden = 16
head_bottleneck = 8
prototypes = 16

[data]
batch_size = 4
global_size = 8
local_size = 4
local_crops = 2

[run]
log_every = 1
evaluate_every = 0
)";

// Each of these jobs takes about a second on an idle machine.
constexpr double kSoonSeconds = 30;

std::string content_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

FaultyTraining::FaultyTraining() {
  folder_.write("tiny.toml", kConfiguration);
  write_made_up_pictures(dataset(), 12);
}

std::string FaultyTraining::train(const std::string& more) const {
  return "train --config " + path("tiny.toml").string() + " --data.path " + dataset().string() + " --run " +
         run().string() + " " + more;
}

std::vector<std::filesystem::path> FaultyTraining::saved() const {
  std::vector<std::filesystem::path> found;
  std::error_code not_yet;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints(), not_yet))
    if (entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

void FaultyTraining::wait_for_checkpoint(Job& job) const {
  job.wait_until("a checkpoint", [this] { return !saved().empty(); });
}

void FaultyTraining::wait_for_step(Job& job) const {
  const std::filesystem::path metrics = run() / "metrics.jsonl";
  const std::size_t before = content_of(metrics).size();
  job.wait_until("a step", [&] { return content_of(metrics).size() > before; });
}

void FaultyTraining::expect_failure(const JobEnd& end, int code,
                                    std::initializer_list<std::string> parts) const {
  EXPECT_EQ(end.code, code) << end.errors;
  EXPECT_LT(end.seconds, kSoonSeconds);
  EXPECT_TRUE(end.left_behind.empty()) << "a rank outlived the job";
  const std::vector<std::string> lines = end.error_lines();
  ASSERT_EQ(lines.size(), 1U) << "one line says it: " << end.errors;
  EXPECT_TRUE(mentions(lines.front(), parts));
  expect_nothing_half_written();
}

void FaultyTraining::expect_nothing_half_written() const {
  std::error_code no_run;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(run(), no_run))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp")) << entry.path();
}

void FaultyTraining::expect_resumable() const {
  const Outcome inspected = run_program("inspect " + run().string());
  EXPECT_EQ(inspected.code, 0) << inspected.errors;
  const std::filesystem::path newest = saved().back();
  Job again("train --resume --run " + run().string());
  wait_for_step(again);
  ::kill(again.launcher(), SIGUSR1);
  const JobEnd end = again.wait();
  EXPECT_EQ(end.code, 0) << end.errors;
  EXPECT_TRUE(mentions(end.errors, {"resumed after step", newest.string()}));
}

void flip_bit(const std::filesystem::path& file, const std::string& bytes) {
  std::string content = content_of(file);
  const std::size_t place = bytes.empty() ? content.size() / 2 : content.find(bytes);
  ASSERT_LT(place, content.size()) << file << " does not hold what was to be flipped";
  content[place] ^= 1;
  std::ofstream(file, std::ios::binary) << content;
}

}  // namespace bireme::test
