#include "distributed/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/files.h"
#include "core/base/json.h"
#include "distributed/checkpoint_reader.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace bireme {
namespace {

namespace fs = std::filesystem;

/// The position of this rank in a mesh whose tensor axis is innermost.
struct Seat {
  int tensor_rank = 0;
  int tensor_size = 1;
};

class Checkpoint : public ::testing::Test {
 protected:
  /// A tensor whose elements are `first` plus their position in the whole tensor.
  CheckpointTensor tensor(const std::string& name, const Shape& whole, Partition partition, Seat seat,
                          double first, DType type = DType::f32) const {
    partition.part = seat.tensor_rank;
    partition.parts = seat.tensor_size;
    const Shape shape = local_shape(whole, partition);
    const Tensor values(*memory_, shape, DType::f64);
    for (std::int64_t i = 0; i < shape.elements(); ++i)
      values.data<double>()[i] = first + static_cast<double>(global_index(i, whole, partition));
    return {.name = name, .local = convert(*memory_, values, type), .whole = whole, .partition = partition};
  }

  /// What a rank holds at `step`: fused rows, columns, whole tensors and several types, in three files of
  /// unequal size.
  CheckpointContent content(std::int64_t step, Seat seat = {}) const {
    const auto s = static_cast<double>(step);
    return {
        .files = {{"model.safetensors",
                   {tensor("attention.qkv.weight", {12, 6}, {.axis = 0, .blocks = 3}, seat, s),
                    tensor("attention.proj.weight", {6, 8}, {.axis = 1}, seat, s + 1000),
                    tensor("norm.weight", {6}, {}, seat, s + 2000), tensor("scale", {}, {}, seat, s)}},
                  {"optimizer.safetensors",
                   {tensor("first.attention.qkv.weight", {12, 6}, {.axis = 0, .blocks = 3}, seat, s + 3000),
                    tensor("first.embedding.weight", {11, 6}, {.axis = 0, .uneven = true}, seat, s + 5000),
                    tensor("count", {3}, {}, seat, s, DType::i64),
                    tensor("mask", {5}, {}, seat, 1, DType::u8)}},
                  {"teacher.safetensors", {tensor("norm.weight", {6}, {}, seat, s + 4000, DType::bf16)}}},
        .texts = {{"config.json", R"({"model_type":"vit"})"},
                  {"training.json", "{\"step\":" + std::to_string(step) + "}"}}};
  }

  /// The same tensors with other values, to be filled by loading.
  CheckpointContent blank(Seat seat = {}) const {
    CheckpointContent result = content(0, seat);
    for (const CheckpointFile& file : result.files)
      for (const CheckpointTensor& t : file.tensors) fill(t.local, 77);
    return result;
  }

  fs::path save(std::int64_t step) const {
    const auto world = make_single_process();
    return save_checkpoint(folder_, step, content(step), *world, *world);
  }

  /// Saves on data × tensor ranks.
  void save_on(int data, int tensor_size, std::int64_t step, const fs::path& folder) const {
    test::run_on_ranks(data * tensor_size, [&](Communicator& world) {
      const auto group = world.split(world.rank() / tensor_size, world.rank());
      save_checkpoint(folder, step, content(step, {world.rank() % tensor_size, tensor_size}), world, *group);
    });
  }

  void expect_state(const CheckpointReader& reader, std::int64_t step, Seat seat = {}) const {
    const CheckpointContent expected = content(step, seat), loaded = blank(seat);
    for (std::size_t f = 0; f < loaded.files.size(); ++f) {
      reader.load(loaded.files[f]);
      for (std::size_t t = 0; t < loaded.files[f].tensors.size(); ++t)
        test::expect_identical(loaded.files[f].tensors[t].local, expected.files[f].tensors[t].local,
                               expected.files[f].tensors[t].name);
    }
  }

  /// Is the checkpoint of this step the newest whole one, with nothing half-made beside it?
  void expect_newest(std::int64_t step) const {
    const auto latest = find_latest_checkpoint(folder_);
    ASSERT_TRUE(latest);
    EXPECT_EQ(latest->step, step);
    EXPECT_TRUE(latest->warnings.empty());
    expect_state(CheckpointReader::open(latest->folder), step);
    for (const auto& entry : fs::directory_iterator(folder_))
      EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry;
  }

  std::shared_ptr<Memory> memory_ = make_host_memory();
  test::TemporaryFolder temporary_;
  fs::path folder_ = temporary_.path() / "checkpoints";
};

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void flip(const fs::path& path, std::int64_t at) {
  ASSERT_LT(at, static_cast<std::int64_t>(fs::file_size(path)));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char flipped = static_cast<char>(file.get() ^ 0x10);
  file.seekp(at);
  file.put(flipped);
}

TEST_F(Checkpoint, ComesBackToTheBit) {
  const fs::path place = save(1200);
  EXPECT_EQ(place, folder_ / "step-00001200");
  const CheckpointReader reader = CheckpointReader::open(place);
  EXPECT_EQ(reader.step(), 1200);
  EXPECT_EQ(reader.text("config.json"), R"({"model_type":"vit"})");
  EXPECT_EQ(reader.text("training.json"), R"({"step":1200})");
  expect_state(reader, 1200);
  expect_newest(1200);
}

TEST_F(Checkpoint, IsAFolderThatOtherProgramsOpen) {
  // transformers wants model.safetensors with the metadata format = pt, and whole tensors under their
  // published names.
  const SafetensorsFolder model = SafetensorsFolder::open(save(1));
  EXPECT_EQ(model.files().front().metadata().at("format"), "pt");
  EXPECT_EQ(model.entry("attention.qkv.weight").shape, (Shape{12, 6}));
}

TEST_F(Checkpoint, IsTheSameFileFromEveryLayout) {
  const fs::path reference = save(5);
  for (const auto& [data, tensor_size] : {std::pair{2, 1}, {1, 2}, {2, 2}, {3, 1}, {4, 1}}) {
    SCOPED_TRACE(testing::Message() << data << " × " << tensor_size);
    const fs::path folder = folder_.parent_path() / ("layout-" + std::to_string(data * 10 + tensor_size));
    save_on(data, tensor_size, 5, folder);
    for (const auto& entry : fs::directory_iterator(reference)) {
      const fs::path name = entry.path().filename();
      EXPECT_EQ(read_file(entry.path(), 1 << 20), read_file(folder / "step-00000005" / name, 1 << 20))
          << name;
    }
  }
}

TEST_F(Checkpoint, SavedOnOneLayoutLoadsOnAnother) {
  save_on(2, 1, 8, folder_);
  for (const int tensor_size : {1, 2}) {
    test::run_on_ranks(tensor_size, [&](Communicator& world) {
      const auto latest = find_latest_checkpoint(folder_, world);
      ASSERT_TRUE(latest);
      expect_state(CheckpointReader::open(latest->folder, world), 8, {world.rank(), tensor_size});
    });
  }
  save_on(1, 2, 9, folder_);
  expect_state(CheckpointReader::open(checkpoint_path(folder_, 9)), 9);
}

TEST_F(Checkpoint, LoadingConvertsFloatingPointTypes) {
  const CheckpointReader reader = CheckpointReader::open(save(3));
  const CheckpointFile teacher{"teacher.safetensors",
                               {tensor("norm.weight", {6}, {}, {}, 0)}};  // fp32 from bf16
  reader.load(teacher);
  test::expect_identical(teacher.tensors[0].local,
                         convert(*memory_, content(3).files[2].tensors[0].local, DType::f32));
}

TEST_F(Checkpoint, EveryDamageIsFoundAndNamed) {
  const fs::path whole = save(1);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(whole)) names.push_back(entry.path().filename());
  ASSERT_EQ(names.size(), 6U);
  const fs::path damaged = folder_ / "step-00000002";
  for (const std::string& name : names) {
    const std::string text = read_file(whole / name, 1 << 20);
    const auto size = static_cast<std::int64_t>(text.size());
    const auto expect_refused = [&](const std::string& damage,
                                    const std::function<void(const fs::path&)>& inflict) {
      fs::copy(whole, damaged);
      inflict(damaged / name);
      const std::string message = error_of([&] { (void)CheckpointReader::open(damaged); });
      EXPECT_NE(message.find(name), std::string::npos) << damage << " of " << name << ": " << message;
      fs::remove_all(damaged);
    };
    for (std::int64_t at = 0; at < size; at += 1 + size / 40) {
      // White space between the values of the manifest means nothing, so it may change or go.
      if (name == "manifest.json" && std::isspace(text[static_cast<std::size_t>(at)]) != 0) continue;
      expect_refused("flip at " + std::to_string(at), [&](const fs::path& path) { flip(path, at); });
      expect_refused("cut at " + std::to_string(at),
                     [&](const fs::path& path) { fs::resize_file(path, static_cast<std::uintmax_t>(at)); });
    }
    expect_refused("loss", [](const fs::path& path) { fs::remove(path); });
    if (name != "manifest.json")
      expect_refused("growth", [](const fs::path& path) { std::ofstream(path, std::ios::app) << 'x'; });
  }
}

TEST_F(Checkpoint, DamagedTensorIsNamedWithBothChecksums) {
  const fs::path place = save(1);
  const SafetensorsFile file = SafetensorsFile::open(place / "model.safetensors");
  const auto data_start = static_cast<std::int64_t>(fs::file_size(file.path())) - (72 + 48 + 6 + 1) * 4;
  flip(file.path(), data_start + file.entry("norm.weight").begin + 2);
  const std::string message = error_of([&] { (void)CheckpointReader::open(place); });
  EXPECT_NE(message.find(R"((damaged: "norm.weight"))"), std::string::npos) << message;
  EXPECT_NE(message.find(checksum_file(file.path())), std::string::npos) << message;
  EXPECT_NO_THROW((void)CheckpointReader::open(place, Verify::sizes));  // which reads no content
}

TEST_F(Checkpoint, ManifestCannotNameFilesOutsideTheFolder) {
  CheckpointManifest manifest;
  manifest.files["../../secret"] = {};
  EXPECT_NE(
      error_of([&] { (void)CheckpointManifest::parse(manifest.to_text(), "m"); }).find("no plain file name"),
      std::string::npos);
}

TEST_F(Checkpoint, NewerFormatIsRefusedAsSuch) {
  nlohmann::json manifest = parse_json(read_file(save(1) / "manifest.json", 1 << 20));
  manifest["version"] = 99;
  manifest.erase("checksum");
  manifest["checksum"] = checksum_bytes(json_text(manifest));
  EXPECT_NE(error_of([&] { (void)CheckpointManifest::parse(json_text(manifest), "m"); }).find("format 99"),
            std::string::npos);
}

TEST_F(Checkpoint, LatestFallsBackToTheNewestWholeOneAndSaysSo) {
  EXPECT_FALSE(find_latest_checkpoint(folder_));
  for (const std::int64_t step : {5, 10, 20}) save(step);
  for (const char* name : {"step-30", "step-00000040x", "other", "step-"})
    fs::create_directory(folder_ / name);
  expect_state(CheckpointReader::open(find_latest_checkpoint(folder_)->folder), 20);
  flip(checkpoint_path(folder_, 20) / "optimizer.safetensors", 300);
  fs::create_directory(checkpoint_path(folder_, 50));  // no manifest
  const auto latest = find_latest_checkpoint(folder_);
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->step, 10);
  ASSERT_EQ(latest->warnings.size(), 2U);
  EXPECT_NE(latest->warnings[0].find("step 50"), std::string::npos);
  EXPECT_NE(latest->warnings[1].find("step 20"), std::string::npos);
  EXPECT_NE(latest->warnings[1].find("optimizer.safetensors"), std::string::npos);
  test::run_on_ranks(2, [&](Communicator& world) {
    const auto agreed = find_latest_checkpoint(folder_, world);
    ASSERT_TRUE(agreed);
    EXPECT_EQ(agreed->folder, checkpoint_path(folder_, 10));
    EXPECT_EQ(agreed->warnings, latest->warnings);
  });
  fs::remove(checkpoint_path(folder_, 10) / "config.json");
  fs::remove(checkpoint_path(folder_, 5) / "config.json");
  EXPECT_NE(error_of([&] { (void)find_latest_checkpoint(folder_); }).find("no checkpoint is whole"),
            std::string::npos);
}

TEST_F(Checkpoint, DamageIsTheSameErrorOnEveryRank) {
  flip(save(1) / "teacher.safetensors", 20);
  std::atomic<int> refused = 0;
  test::run_on_ranks(3, [&](Communicator& world) {
    const std::string message =
        error_of([&] { (void)CheckpointReader::open(checkpoint_path(folder_, 1), world); });
    if (message.find("teacher.safetensors") != std::string::npos) ++refused;
  });
  EXPECT_EQ(refused, 3);
}

TEST_F(Checkpoint, PruningKeepsTheNewestAndLeavesDamagedOnesAlone) {
  for (const std::int64_t step : {1, 2, 3, 4, 5}) save(step);
  fs::remove(checkpoint_path(folder_, 5) / "manifest.json");
  EXPECT_EQ(prune_checkpoints(folder_, 2),
            (std::vector<fs::path>{checkpoint_path(folder_, 2), checkpoint_path(folder_, 1)}));
  for (const auto& [step, is_there] : {std::pair{1, false}, {2, false}, {3, true}, {4, true}, {5, true}})
    EXPECT_EQ(fs::exists(checkpoint_path(folder_, step)), is_there) << step;
  EXPECT_EQ(prune_checkpoints(folder_, 0).size(), 1U);  // never the newest whole one
  EXPECT_TRUE(fs::exists(checkpoint_path(folder_, 4)));
}

TEST_F(Checkpoint, SavingAStepAgainReplacesIt) {
  flip(save(7) / "model.safetensors", 400);
  save(7);
  expect_newest(7);
}

/// Runs `body` in a child: a limit on the size of files, once lowered, stays for the rest of a process.
int exit_code_of_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(Checkpoint, FailedWriteIsOneErrorOnEveryRankAndLeavesThePreviousOne) {
  save(1);
  const auto size = [&](const char* name) { return fs::file_size(checkpoint_path(folder_, 1) / name); };
  // The limit stands for a full disk: it stops the largest file, then also the other files' writers on
  // another data rank.
  ASSERT_GT(size("manifest.json"), size("model.safetensors"));
  for (const rlim_t limit : {size("manifest.json") - 1, size("model.safetensors") - 1, std::uintmax_t{10}}) {
    const int failed = exit_code_of_child([&] {
      ignore_file_size_signal();
      std::atomic<int> count = 0;
      test::run_on_ranks(4, [&](Communicator& world) {
        const auto group = world.split(world.rank() / 2, world.rank());
        world.barrier();  // behind it nobody needs to make shared memory any more
        const rlimit limits{limit, limit};
        if (world.rank() == 0) ::setrlimit(RLIMIT_FSIZE, &limits);
        world.barrier();
        const std::string message = error_of([&] {
          save_checkpoint(folder_, 2, content(2, {world.rank() % 2, 2}), world, *group);
        });
        if (message.find("file size limit") != std::string::npos && message.starts_with("rank ")) ++count;
        world.barrier();  // nobody is left behind in a collective
        group->barrier();
      });
      return count.load();
    });
    EXPECT_EQ(failed, 4) << "limit " << limit;
    expect_newest(1);
  }
}

TEST_F(Checkpoint, KilledWhileSavingLeavesTheLastCommittedOne) {
  const auto start = std::chrono::steady_clock::now();
  save(1);
  const auto one_save = std::chrono::steady_clock::now() - start;
  std::int64_t newest = 1;
  int unfinished = 0;
  // At least twelve; more where the machine is busy, until one came after a whole save and one amid another.
  for (int kill = 1; kill <= 12 || (kill <= 100 && (newest == 1 || unfinished == 0)); ++kill) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (std::int64_t step = newest + 1;; ++step) save(step);
    }
    std::this_thread::sleep_for(one_save * kill /
                                5);  // from the start of a save on, in the first and in later ones
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    unfinished += StagedFolder::sweep(folder_);
    const auto latest = find_latest_checkpoint(folder_);
    ASSERT_TRUE(latest && latest->warnings.empty());  // whatever has a final name is whole
    ASSERT_GE(latest->step, newest);
    newest = latest->step;
    expect_newest(newest);
  }
  EXPECT_GT(newest, 1);
  EXPECT_GT(unfinished, 0);  // at least one kill came in the middle
}

TEST_F(Checkpoint, DifferencesFromTheModelAreListed) {
  const CheckpointReader reader = CheckpointReader::open(save(1));
  CheckpointFile other = blank().files[0];
  other.tensors[0] = tensor("attention.qkv.weight", {12, 7}, {}, {}, 0);
  other.tensors[1].name = "attention.output.weight";
  other.tensors[2] = tensor("norm.weight", {6}, {}, {}, 0, DType::i32);
  const std::string message = error_of([&] { reader.load(other); });
  EXPECT_NE(message.find(R"("attention.qkv.weight" is [12, 6], expected [12, 7])"), std::string::npos)
      << message;
  EXPECT_NE(message.find(R"("attention.output.weight" is missing)"), std::string::npos) << message;
  EXPECT_NE(message.find(R"("attention.proj.weight" is not part of the model)"), std::string::npos)
      << message;
  EXPECT_NE(message.find(R"("norm.weight" has type F32, expected I32)"), std::string::npos) << message;

  CheckpointFile fewer = blank().files[0];
  fewer.tensors[1].name = "new.weight";
  reader.load(fewer, {.allow_missing = true, .allow_extra = true});
  test::expect_identical(fewer.tensors[2].local, content(1).files[0].tensors[2].local);
  EXPECT_EQ(fewer.tensors[1].local.data<float>()[0], 77.0f);  // left alone
  EXPECT_NE(error_of([&] {
              reader.load({"other.safetensors", {}});
            }).find("holds no other.safetensors"),
            std::string::npos);
}

TEST_F(Checkpoint, NonFiniteWeightsAreRefusedByNameAndPosition) {
  CheckpointContent poisoned = content(1);
  poisoned.files[0].tensors[1].local.data<float>()[13] = std::numeric_limits<float>::quiet_NaN();
  const auto world = make_single_process();
  const CheckpointReader reader =
      CheckpointReader::open(save_checkpoint(folder_, 1, poisoned, *world, *world));
  try {
    reader.load(
        blank({1, 2})
            .files[0]);  // part 1 of 2 holds columns 4 to 7: element 13 of the whole is its row 1, column 5
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::not_finite);
    EXPECT_NE(error.problem().find(R"(element 13 of tensor "attention.proj.weight")"), std::string::npos)
        << error.what();
  }
  EXPECT_NO_THROW(reader.load(blank().files[0], {.allow_non_finite = true}));
}

}  // namespace
}  // namespace bireme
