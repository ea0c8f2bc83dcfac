#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/data/synthetic.h"
#include "core/data/synthetic_preferences.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 31;

/// Pairs, or single answers with scores.
int prepare_preferences(const Options& options, bool are_singles) {
  const SyntheticPreferenceOptions how{.noise = options.number("noise"),
                                       .length_bias = options.number("length-bias"),
                                       .seed = static_cast<std::uint64_t>(options.integer("seed", 0)),
                                       .answers = options.integer("answers"),
                                       .score_noise = options.number("score-noise")};
  const std::filesystem::path output = options.path("output");
  if (std::filesystem::exists(output) && !options.flag("force"))
    throw Error(ErrorKind::usage, "there is something already", output.string(),
                "choose another --output, or replace it with --force");
  const std::int64_t count = options.integer("sequences", 1, kMost);
  are_singles ? write_feedback(how, count, output) : write_preferences(how, count, output);
  const char* const unit = are_singles ? "prompts" : "pairs";
  if (options.json())
    fmt::print("{}\n", json_text(nlohmann::ordered_json{{"output", output.string()}, {unit, count}}));
  else
    fmt::print("wrote {} {} to {}\n", count, unit, output.string());
  return 0;
}

}  // namespace

int run_prepare_synthetic(Arguments arguments) {
  Options options("bireme prepare synthetic",
                  "makes sequences of a task that tells memories apart, or preferences of a known rule");
  options
      .required("task", "TASK",
                "parity (are the ones so far even?), recall (what value came with this key?), preference "
                "(pairs of answers, of which the better one names what was asked for) or feedback (single "
                "answers of that kind, with scores)")
      .required("output", "DATASET",
                "folder to write; preference, feedback: a file .jsonl for `bireme prepare pairs` or feedback")
      .value("sequences", "N", "how many sequences, pairs, or prompts of feedback", "100000")
      .value("length", "T",
             "tokens of a sequence with its answers; 40 for parity, 64 for recall unless given")
      .value("shortest", "T", "parity: lengths are drawn from this to --length; shorter ones are padded", "3")
      .value("pairs", "N", "recall: pairs of key and value, each asked for once", "8")
      .value("vocab-size", "V", "recall: half of them keys, half values", "64")
      .value("noise", "SHARE", "preference: pairs that raters got wrong", "0.1")
      .value("length-bias", "SHARE",
             "preference, feedback: better answers that say more, which a judge may take for the rule", "0.6")
      .value("answers", "N", "feedback: answers to each prompt", "4")
      .value("score-noise", "D",
             "feedback: standard deviation of what raters add to a score, of which 1 is "
             "for a right answer",
             "0.3")
      .value("seed", "N", "another seed gives other sequences: one for training, one for testing", "0")
      .value("shard-size", "TOKENS", "tokens of a shard", "16777216")
      .value("split", "NAME", "what the dataset is for, kept in its manifest", "train")
      .flag("force", "replace a dataset that stands at the output")
      .example("bireme prepare synthetic --task parity --output data/parity")
      .example(
          "bireme prepare synthetic --task recall --pairs 16 --length 128 --seed 1 --sequences 2000 --split "
          "test --output data/recall-test")
      .example("bireme prepare synthetic --task preference --sequences 20000 --output preferences.jsonl")
      .example("bireme prepare synthetic --task feedback --sequences 10000 --output scored.jsonl");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  const std::string task = options.choice("task", {"parity", "recall", "preference", "feedback"});
  if (task == "preference" || task == "feedback") return prepare_preferences(options, task == "feedback");
  PrepareSyntheticOptions what;
  SyntheticOptions& synthetic = what.synthetic;
  if (task == "recall") {
    synthetic.task = SyntheticTask::recall;
    synthetic.length = 64;
  }
  if (options.has("length")) synthetic.length = options.integer("length", 1, kMost);
  synthetic.shortest = options.integer("shortest", 1, kMost);
  synthetic.pairs = options.integer("pairs", 1, kMost);
  synthetic.vocabulary = options.integer("vocab-size", 1, kMost);
  synthetic.seed = static_cast<std::uint64_t>(options.integer("seed", 0));
  what.sequences = options.integer("sequences", 1, kMost);
  what.output = options.path("output");
  what.split = options.text("split");
  what.shard_size = options.integer("shard-size", 1, kMost);
  what.replace = options.flag("force");
  std::optional<Progress> bar;
  what.progress = [&](std::int64_t done, std::int64_t total) {
    if (!bar) bar.emplace(terminal_progress("sequence", total, 0, 0));
    bar->update(done);
  };
  prepare_synthetic(what);
  bar.reset();
  const nlohmann::ordered_json result = {{"output", options.text("output")},
                                         {"sequences", what.sequences},
                                         {"length", synthetic.length},
                                         {"vocabulary", synthetic.token_kinds()}};
  if (options.json())
    fmt::print("{}\n", json_text(result));
  else
    fmt::print("wrote {} sequences of {} tokens to {}\n", what.sequences, synthetic.length,
               options.text("output"));
  return 0;
}

}  // namespace bireme
