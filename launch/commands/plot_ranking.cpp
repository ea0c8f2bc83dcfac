#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "launch/commands/plot.h"
#include "launch/options.h"
#include "launch/ranking_figures.h"

namespace bireme {

namespace {

using Json = nlohmann::ordered_json;

Json number(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json json_of(const Correlation& c, const std::optional<Interval>& interval = {}) {
  Json json{{"points", c.points}, {"pearson", number(c.pearson)}, {"spearman", number(c.spearman)}};
  if (interval) json["spearman_interval"] = {interval->low, interval->high};
  return json;
}

std::string text_of(const std::string& where, const Correlation& c,
                    const std::optional<Interval>& interval = {}) {
  if (!c.spearman || !c.pearson) return fmt::format("{}: too few points ({})", where, c.points);
  return fmt::format("{}: Pearson {:+.3f}, Spearman {:+.3f}{} ({} points)", where, *c.pearson, *c.spearman,
                     interval ? fmt::format(" [{:+.2f}, {:+.2f}]", interval->low, interval->high) : "",
                     c.points);
}

const char* pattern_of(const TrainingCorrelation& c) {
  return !c.until_turn.spearman || !c.after_turn.spearman
             ? "too few evaluations to say whether the two go together, then against each other"
         : c.shows_pattern() ? "the two go together, then against each other, as in Chen et al. 2024"
                             : "the two do not go together, then against each other, as in Chen et al. 2024";
}

}  // namespace

int run_plot_ranking(Arguments arguments) {
  Options options("bireme plot ranking", "draws ranking accuracy and win rate over a run");
  options.required("run", "DIR", "a run that measured ranking accuracy on the way")
      .value(
          "win-rates", "FILE",
          "results of its checkpoints, from `evaluate win-rate --append`; those that the run measured itself "
          "unless given")
      .value("pairs", "F.h5",
             "from `evaluate ranking --reference M --output`: each pair's loss and difficulty")
      .value("beta", "BETA", "of the run, for the curve among the pairs", "0.1")
      .required("output", "FILE", "picture to write: .png, .svg or .pdf")
      .example("bireme plot ranking --run runs/dpo --output ranking.png")
      .example("bireme plot ranking --run runs/dpo --win-rates dpo.jsonl --output ranking.png")
      .example("bireme plot ranking --run runs/dpo --pairs pairs.h5 --beta 0.1 --output ranking.svg");
  if (!options.parse(arguments)) return 0;
  const MetricHistory run = read_metrics(options.path("run"));
  std::vector<JudgedStep> judged;
  judged = options.has("win-rates") ? read_win_rates(options.path("win-rates")) : judged_steps(run);
  std::optional<PairFile> pairs;
  if (options.has("pairs")) pairs = read_pairs(options.path("pairs"));
  const RankingFigure found =
      ranking_figure(run, judged, pairs ? &*pairs : nullptr, options.number("beta", 1e-9));
  draw(found.figure, options.path("output"));
  CorrelationIntervals intervals;
  if (found.correlation && !options.has("win-rates"))
    intervals = bootstrap_correlation(read_outcomes(options.path("run"), judged), found.correlation->turn);
  const std::size_t panels = found.figure.panels.size();
  if (options.json()) {
    Json json{{"output", options.text("output")}, {"panels", panels}};
    if (found.correlation)
      json.update({{"turn", judged[found.correlation->turn].step},
                   {"whole", json_of(found.correlation->whole, intervals.whole)},
                   {"until_turn", json_of(found.correlation->until_turn, intervals.until_turn)},
                   {"after_turn", json_of(found.correlation->after_turn, intervals.after_turn)},
                   {"shows_pattern", found.correlation->shows_pattern()},
                   {"judges_reliable", has_reliable_judges(run)}});
    if (found.gold)
      json["gold"] = {{"whole", json_of(found.gold->whole)},
                      {"until_turn", json_of(found.gold->until_turn)},
                      {"after_turn", json_of(found.gold->after_turn)},
                      {"shows_pattern", found.gold->shows_pattern()}};
    fmt::print("{}\n", json_text(json));
    return 0;
  }
  fmt::print("wrote {} ({} panels)\n", options.text("output"), panels);
  if (found.correlation) {
    const TrainingCorrelation& c = *found.correlation;
    fmt::print("ranking accuracy and win rate\n  {}\n  {}\n  {}\n",
               text_of("over all evaluations", c.whole, intervals.whole),
               text_of(fmt::format("until step {}", judged[c.turn].step), c.until_turn, intervals.until_turn),
               text_of("after it", c.after_turn, intervals.after_turn));
    if (!has_reliable_judges(run)) fmt::print("judges not reliable: the win rates prove nothing\n");
    fmt::print("{}\n", pattern_of(c));
  }
  if (found.gold)
    fmt::print("ranking accuracy and gold win rate\n  {}\n  {}\n  {}\n{}\n",
               text_of("over all evaluations", found.gold->whole),
               text_of("until its highest", found.gold->until_turn),
               text_of("after it", found.gold->after_turn), pattern_of(*found.gold));
  return 0;
}

int run_plot_coefficients(Arguments arguments) {
  Options options("bireme plot coefficients",
                  "draws how the factors of ORPO's gradient depend on the probability of an answer");
  options.value("run", "DIR", "a run of ORPO with diagnostics.h5")
      .list("pairs", "F.h5",
            "instead of a run: files of `evaluate ranking --output`, one for each checkpoint")
      .required("output", "FILE", "picture to write: .png, .svg or .pdf")
      .example("bireme plot coefficients --run runs/orpo --output coefficients.png")
      .example("bireme plot coefficients --pairs early.h5 late.h5 --output coefficients.svg");
  if (!options.parse(arguments)) return 0;
  std::vector<PairFile> files;
  for (const std::string& name : options.texts("pairs")) files.push_back(read_pairs(name));
  if (files.empty()) files = read_diagnostics(options.path("run"));
  const CoefficientFigure found = coefficient_figure(files);
  draw(found.figure, options.path("output"));
  if (options.json())
    fmt::print("{}\n", json_text(Json{{"output", options.text("output")},
                                      {"inverse_correlation", number(found.inverse_correlation)},
                                      {"product_correlation", number(found.product_correlation)},
                                      {"probability_low", found.low},
                                      {"probability_high", found.high},
                                      {"outcome", found.outcome}}));
  else
    fmt::print("wrote {}\n{}\n", options.text("output"), found.outcome);
  return 0;
}

}  // namespace bireme
