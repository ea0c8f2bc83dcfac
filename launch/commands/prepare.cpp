#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/json.h"
#include "core/data/prepare_images.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "launch/terminal.h"

namespace bireme {

int run_prepare_text(Arguments arguments);
int run_prepare_tokens(Arguments arguments);
int run_prepare_sft(Arguments arguments);
int run_prepare_pairs(Arguments arguments);
int run_prepare_feedback(Arguments arguments);
int run_prepare_synthetic(Arguments arguments);
int run_prepare_reference(Arguments arguments);

namespace {

constexpr std::int64_t kMostPixels = 1 << 15;  // a side; larger pictures are beyond what decoders accept
constexpr std::int64_t kMostRecords = std::int64_t{1} << 40;

void print_json(const PrepareImagesReport& report, const std::string& output) {
  const nlohmann::ordered_json result = {{"output", output},
                                         {"records", report.records},
                                         {"classes", report.classes},
                                         {"ignored", report.ignored},
                                         {"broken", report.broken}};
  fmt::print("{}\n", json_text(result));
}

void print_summary(const PrepareImagesReport& report, const std::string& output) {
  for (const std::string& picture : report.broken) fmt::print("left out: {}\n", picture);
  std::string text = fmt::format("wrote {} pictures", report.records);
  if (!report.classes.empty()) text += fmt::format(" of {} classes", report.classes.size());
  text += fmt::format(" to {}", output);
  if (!report.broken.empty()) text += fmt::format("; left {} out that do not decode", report.broken.size());
  if (report.ignored > 0) text += fmt::format("; passed over {} files of other kinds", report.ignored);
  fmt::print("{}\n", text);
}

int run_prepare_images(Arguments arguments) {
  Options options("bireme prepare images", "turns pictures into a dataset of checksummed shards");
  options
      .required_list("input", "PATH",
                     "folders with a sub-folder for each class, .tar files of such folders, or an IDX pair "
                     "(images and labels; .gz too)")
      .required("output", "DATASET", "folder to write")
      .value("image-size", "PIXELS", "resize the shorter side to this; sizes stay unless given")
      .value("shard-size", "RECORDS", "records of a shard", "16384")
      .value("split", "NAME", "what the dataset is for, kept in its manifest", "train")
      .flag("skip-broken", "leave out pictures that do not decode, and name them, instead of stopping")
      .flag("force", "replace a dataset that stands at the output")
      .example("bireme prepare images --input cifar10_train.tar --output data/cifar-train")
      .example(
          "bireme prepare images --input t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz "
          "--split test --output data/fashion-test");
  if (!options.parse(arguments)) return 0;
  // Under a launcher one process does the work: it is bound by decoding, which uses all threads, and done
  // once.
  if (launched_as().rank != 0) return 0;

  PrepareImagesOptions what{.inputs = {},
                            .output = options.path("output"),
                            .split = options.text("split"),
                            .shard_size = options.integer("shard-size", 1, kMostRecords),
                            .skip_broken = options.flag("skip-broken"),
                            .replace = options.flag("force")};
  for (const std::string& input : options.texts("input")) what.inputs.emplace_back(input);
  if (options.has("image-size"))
    what.image_size = static_cast<int>(options.integer("image-size", 1, kMostPixels));

  std::optional<Progress> bar;
  what.progress = [&](std::int64_t done, std::int64_t total) {
    if (!bar) bar.emplace(terminal_progress("picture", total, 0, 0));
    bar->update(done);
  };
  const PrepareImagesReport report = prepare_images(what);
  bar.reset();
  options.json() ? print_json(report, options.text("output")) : print_summary(report, options.text("output"));
  return 0;
}

}  // namespace

int run_prepare(Arguments arguments) {
  static constexpr Command list[] = {
      {"images", "from class folders, .tar archives or IDX files", run_prepare_images},
      {"text", "from text files or JSON lines, through a tokenizer", run_prepare_text},
      {"tokens", "from ready-made token ids in HDF5", run_prepare_tokens},
      {"sft", "prompts with answers to imitate, from JSON lines", run_prepare_sft},
      {"pairs", "prompts with a chosen and a rejected answer, from JSON lines", run_prepare_pairs},
      {"feedback", "prompts with an answer and its label or score, from JSON lines", run_prepare_feedback},
      {"synthetic", "tasks that tell memories apart: parity, associative recall", run_prepare_synthetic},
      {"reference", "what a reference model says of a dataset's answers, for alignment",
       run_prepare_reference},
  };
  return dispatch("bireme prepare", "turns raw data into datasets that train and evaluate read", list,
                  arguments);
}

}  // namespace bireme
