#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "tests/cli/program.h"
#include "tests/support/expect_error.h"
#include "tests/support/made_up_pictures.h"
#include "tests/support/made_up_text.h"

namespace bireme::test {

inline constexpr const char* kConfiguration = R"([model]
embed_dim = 16
depth = 2
heads = 2
patch_size = 4
image_size = 8
drop_path = 0.1
head_hidden = 16
head_bottleneck = 8
prototypes = 24

[data]
batch_size = 4
global_size = 8
local_size = 4
local_crops = 2

[run]
steps = 4
log_every = 1
evaluate_every = 0
)";
inline constexpr int kPictures = 12, kMorePictures = 24;

inline constexpr const char* kLanguageModel = R"([model]
embed_dim = 32
depth = 2

[data]
batch_size = 2
sequence_length = 24
documents_apart = true

[schedule]
warmup_steps = 1

[run]
steps = 3
log_every = 1
evaluate_every = 0
)";

inline constexpr const char* kPreferences = R"([data]
batch_size = 4

[schedule]
warmup_steps = 1

[run]
steps = 3
log_every = 1
evaluate_every = 0
)";

/// What runs on the GPU, and by how many calls.
struct Counted {
  std::int64_t kernels = 0, products = 0, copies = 0, waits = 0, calls = 0;
  friend bool operator==(const Counted&, const Counted&) = default;
  friend Counted operator-(const Counted& a, const Counted& b) {
    return {a.kernels - b.kernels, a.products - b.products, a.copies - b.copies, a.waits - b.waits,
            a.calls - b.calls};
  }
  friend std::ostream& operator<<(std::ostream& to, const Counted& c) {
    return to << c.kernels << " kernels, " << c.products << " products, " << c.copies << " copies, "
              << c.waits << " waits, " << c.calls << " calls";
  }
};

class CudaTraining : public ::testing::Test {
 protected:
  CudaTraining() {
    folder_.write("tiny.toml", kConfiguration);
    write_made_up_pictures(folder_.path() / "set", kPictures);
  }

  /// Trains into the folder `run` and returns how it ended.
  Outcome train(const char* program, const std::string& run, const std::string& more,
                const std::string& before = "") {
    const std::string words = "train --config " + path(configuration_) + " --data.path " + path(dataset_) +
                              " --run " + path(run) + " " + more;
    FILE* pipe = popen((before + " '" + program + "' " + words + " 2>&1").c_str(), "r");
    std::string output;
    std::array<char, 4096> piece;
    for (std::size_t count; (count = fread(piece.data(), 1, piece.size(), pipe)) > 0;)
      output.append(piece.data(), count);
    const int status = pclose(pipe);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output, ""};
  }

  /// What the third step of a training launches.
  Counted launches_of_a_step(const std::string& words) {
    const auto count = [&](int steps) {
      const std::string file = path("launches"), run = "steps" + std::to_string(runs_++);
      const Outcome outcome =
          train(BIREME_CUDA_PROGRAM, run, "--run.device cuda --run.steps " + std::to_string(steps) + words,
                "CUDA_ON_CPU_LAUNCHES=" + file);
      EXPECT_EQ(outcome.code, 0) << outcome.output;
      Counted counted;
      std::ifstream(file) >> counted.kernels >> counted.products >> counted.copies >> counted.waits >>
          counted.calls;
      return counted;
    };
    const Counted three = count(3);
    return three - count(2);
  }

  /// A number of each step that has it, from the run's metrics.
  std::vector<double> metric(const std::string& run, const std::string& name) const {
    std::ifstream lines(folder_.path() / run / "metrics.jsonl");
    std::vector<double> values;
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json numbers = parse_json(line);
      if (numbers.contains(name)) values.push_back(numbers.at(name));
    }
    return values;
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  int runs_ = 0;
  TemporaryFolder folder_;
  std::string configuration_ = "tiny.toml", dataset_ = "set";
};

inline std::string words_of(const std::string& model) {
  return " --model.type " + model + (model == "rwkv" ? "" : " --model.heads 2") +
         (model == "xlstm" ? " --model.pattern ms" : "");
}

class CudaLanguageModel : public CudaTraining, public ::testing::WithParamInterface<std::string> {
 protected:
  CudaLanguageModel() {
    configuration_ = "language.toml", dataset_ = "text";
    folder_.write(configuration_, kLanguageModel);
    write_made_up_text(folder_.path() / dataset_, {.documents = 20, .shortest = 10});
  }

  /// A dataset of bytes of its own, to train on from now on.
  void prepare(const std::string& kind, const std::string& lines) {
    dataset_ = "own-" + kind;
    const std::string name = kind == "text" ? "lines.txt" : "lines.jsonl";
    const Outcome prepared = run_program("prepare " + kind + " --tokenizer byte --input " +
                                         folder_.write(name, lines).string() + " --output " + path(dataset_));
    ASSERT_EQ(prepared.code, 0) << prepared.errors;
  }
};

/// Objectives over answers, from a model that has learnt a little text.
class CudaAnswers : public CudaLanguageModel {
 protected:
  /// Trains the base, and prepares answers for objectives from now on.
  void begin(const std::string& kind) {
    std::string text;
    for (int i = 0; i < 60; ++i) text += "the oars of ship " + std::to_string(i * 37 % 211) + " row\n";
    prepare("text", text);
    ASSERT_EQ(train(BIREME_PROGRAM, "base", "--run.device cpu" + words_of(GetParam())).code, 0);
    std::string lines;
    for (int i = 0; i < 6; ++i) {
      const std::string prompt = R"({"prompt": "the oars of ship )" + std::to_string(i * 37 % 211) + "\", ";
      const std::string answer = "\" row " + std::string(i % 3, 'x') + "\"";
      lines +=
          prompt + (kind == "pairs" ? "\"chosen\": " + answer + ", \"rejected\": \" rest\"}\n"
                                    : "\"completion\": " + answer + ", \"label\": " + std::to_string(i % 2) +
                                          ", \"score\": " + std::to_string(i) + "}\n");
    }
    prepare(kind, lines);
    folder_.write(configuration_, kPreferences);
  }
};

/// What starts a program on n ranks of this host, with a GPU each.
inline std::string ranks(int n) {
  const std::string count = std::to_string(n);
  return "CUDA_ON_CPU_DEVICES=" + count +
         " OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 '" BIREME_MPIRUN
         "' -n " +
         count + " --oversubscribe";
}

}  // namespace bireme::test
