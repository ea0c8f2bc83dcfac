#include "launch/commands/plot.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "launch/options.h"
#include "launch/run_curves.h"

namespace bireme {

namespace {

int run_plot_curves(Arguments arguments) {
  Options options("bireme plot curves",
                  "draws loss, k-NN accuracy, entropies, learning rate and speed of runs");
  options.required_list("run", "DIR", "run folders to draw, together when there are several")
      .required("output", "FILE", "picture to write: .png, .svg or .pdf")
      .example("bireme plot curves --run runs/fashion --output curves.png")
      .example("bireme plot curves --run runs/momentum_0.99 runs/momentum_0.996 --output compared.svg");
  if (!options.parse(arguments)) return 0;

  std::vector<RunCurves> runs;
  for (const std::string& folder : options.texts("run")) runs.push_back(read_run(folder));
  const Figure figure = curves_figure(runs);
  draw(figure, options.path("output"));
  if (options.json()) {
    nlohmann::ordered_json result = {{"output", options.text("output")}, {"panels", nlohmann::json::array()}};
    for (const Panel& panel : figure.panels) result["panels"].push_back(panel.title);
    fmt::print("{}\n", json_text(result));
  } else {
    fmt::print("wrote {} ({} panels)\n", options.text("output"), figure.panels.size());
  }
  return 0;
}

}  // namespace

int run_plot(Arguments arguments) {
  static constexpr Command list[] = {
      {"attention", "where a vision transformer looks, for each head of its last block", run_plot_attention},
      {"decay", "how far back each layer and channel of an RWKV looks", run_plot_decay},
      {"propagation", "where in an RWKV a fact of the prompt passes on its way to the answer",
       run_plot_propagation},
      {"curves", "loss, k-NN accuracy, entropies, learning rate and speed over the steps", run_plot_curves},
      {"ranking", "ranking accuracy and win rate over a run of alignment", run_plot_ranking},
      {"coefficients", "the factors of ORPO's gradient against the probability", run_plot_coefficients},
  };
  return dispatch("bireme plot", "draws pictures of models and runs", list, arguments);
}

}  // namespace bireme
