#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/tensor/memory.h"
#include "distributed/communicator.h"
#include "launch/commands/plot.h"
#include "launch/decay_picture.h"
#include "launch/gnuplot.h"
#include "launch/model_folder.h"
#include "launch/options.h"
#include "launch/terminal.h"
#include "models/published/language_model.h"
#include "objectives/evaluate/propagation.h"

namespace bireme {

namespace {

/// Median of a sorted curve.
double middle(const std::vector<double>& curve) { return curve[curve.size() / 2]; }

}  // namespace

const Rwkv& require_rwkv(const LanguageModel& model, const std::string& folder) {
  if (const auto* rwkv = dynamic_cast<const Rwkv*>(&model)) return *rwkv;
  throw Error(ErrorKind::usage, "this picture is of an RWKV, and the model is none", folder,
              "name a run or folder of model.type rwkv");
}

int run_plot_decay(Arguments arguments) {
  Options options("bireme plot decay",
                  "draws how far back each layer and channel of an RWKV looks, before training and as it is");
  options.required("model", "M", "checkpoint, run or Hugging Face folder of an RWKV")
      .required("output", "FILE", "picture to write: .png, .svg or .pdf")
      .example("bireme plot decay --model runs/bible --output decay.png")
      .example("bireme plot decay --model models/rwkv-4-169m-pile --output decay.pdf --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const std::filesystem::path output = options.path("output");
  require_picture_name(output);
  const std::shared_ptr<Memory> memory = make_host_memory();
  const std::unique_ptr<Communicator> alone = make_single_process();
  const std::filesystem::path folder = resolve_model_folder(options.path("model"));
  const auto published = open_language_model(folder, *memory, *alone);
  const Rwkv& model = require_rwkv(published->model(), folder.string());

  const std::string name = options.path("model").filename().string();
  const DecayPicture picture{.initial = initial_decay_curves(model.options()),
                             .trained = decay_curves(model),
                             .name = name.empty() ? "the model" : name};
  draw_with_gnuplot(output, [&](const std::filesystem::path& drawn) { return decay_script(picture, drawn); });
  nlohmann::ordered_json layers = nlohmann::json::array();
  for (std::size_t l = 0; l < picture.trained.size(); ++l) {
    const auto &before = picture.initial[l], &now = picture.trained[l];
    layers.push_back({{"layer", l + 1},
                      {"initial_median_tokens", look_back(middle(before))},
                      {"median_tokens", look_back(middle(now))},
                      {"longest_tokens", look_back(now.front())}});
  }
  if (options.json()) {
    const nlohmann::ordered_json result = {{"output", options.text("output")}, {"layers", layers}};
    fmt::print("{}\n", json_text(result));
    return 0;
  }
  fmt::print(
      "tokens until a channel has forgotten all but 1/e\nlayer  median before  median now  longest now\n");
  for (const auto& layer : layers)
    fmt::print("{:5}  {:13.2f}  {:10.2f}  {:11.2f}\n", layer["layer"].get<int>(),
               layer["initial_median_tokens"].get<double>(), layer["median_tokens"].get<double>(),
               layer["longest_tokens"].get<double>());
  fmt::print("wrote {}\n", options.text("output"));
  return 0;
}

}  // namespace bireme
