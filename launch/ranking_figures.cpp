#include "launch/ranking_figures.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/data/shard_file.h"
#include "core/io/text_lines.h"
#include "objectives/preference/preference_loss.h"

namespace bireme {

namespace fs = std::filesystem;
using Points = std::vector<std::pair<double, double>>;

std::vector<JudgedStep> read_win_rates(const fs::path& file) {
  std::vector<JudgedStep> steps;
  TextLines lines(file);
  while (lines.next()) {
    const auto json = try_parse_json(lines.line());
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() ||
        !json.contains("judged_win_rate") || !json["judged_win_rate"].is_number())
      throw Error(ErrorKind::data, "is not a result of a checkpoint's win rate", lines.place(),
                  "give a file of `bireme evaluate win-rate --append`");
    steps.push_back({.step = json["step"].get<std::int64_t>(),
                     .win_rate = json["judged_win_rate"].get<double>(),
                     .error = json.value("win_rate_error", 0.0)});
  }
  std::ranges::sort(steps, {}, &JudgedStep::step);
  return steps;
}

namespace {

std::vector<JudgedStep> steps_of(const MetricHistory& run, const std::string& rate,
                                 const std::string& error) {
  std::vector<JudgedStep> steps;
  const MetricHistory::Curve *rates = run.find(rate), *errors = run.find(error);
  if (rates == nullptr || errors == nullptr) return steps;
  steps.reserve(rates->size());
  for (std::size_t i = 0; i < rates->size(); ++i)
    steps.push_back({.step = (*rates)[i].first,
                     .win_rate = (*rates)[i].second,
                     .error = i < errors->size() ? (*errors)[i].second : 0});
  return steps;
}

}  // namespace

std::vector<JudgedStep> judged_steps(const MetricHistory& run) {
  return steps_of(run, "judged_win_rate", "win_rate_error");
}

std::vector<SingleOutcomes> read_outcomes(const fs::path& run, const std::vector<JudgedStep>& judged) {
  std::vector<SingleOutcomes> outcomes;
  for (const JudgedStep& one : judged) {
    const fs::path file = run / "evaluation" / fmt::format("step-{:08}.json", one.step);
    if (!fs::exists(file)) return {};
    const auto json = try_parse_json(read_file(file, std::int64_t{1} << 30));
    if (!json.is_object() || !json.contains("right") || !json.contains("wins")) return {};
    outcomes.push_back(
        {.right = json["right"].get<std::vector<double>>(), .wins = json["wins"].get<std::vector<double>>()});
    if (outcomes.back().right.size() != outcomes.front().right.size() ||
        outcomes.back().wins.size() != outcomes.front().wins.size())
      return {};
  }
  return outcomes;
}

bool has_reliable_judges(const MetricHistory& run) {
  const MetricHistory::Curve* reliable = run.find("judge_reliable");
  return reliable == nullptr || reliable->back().second > 0;
}

PairFile read_pairs(const fs::path& path) {
  const Hdf5Reader file(path);
  const auto doubles = [&](const char* name) { return read_shard_list<double>(file, name); };
  if (!file.has("chosen_log_probability") || !file.has("chosen_tokens"))
    throw Error(ErrorKind::data, "the file holds no scores of pairs", path.string(),
                "give a file of `bireme evaluate ranking --output`");
  PairFile pairs{.name = path.stem().string(),
                 .chosen_average = doubles("chosen_log_probability"),
                 .rejected_average = doubles("rejected_log_probability"),
                 .shortfall = {},
                 .loss = {},
                 .log_ratio = doubles("log_ratio")};
  const auto chosen = read_shard_list<std::int64_t>(file, "chosen_tokens"),
             rejected = read_shard_list<std::int64_t>(file, "rejected_tokens");
  for (std::size_t i = 0; i < pairs.chosen_average.size(); ++i) {
    pairs.chosen_average[i] /= static_cast<double>(chosen.at(i));
    pairs.rejected_average.at(i) /= static_cast<double>(rejected.at(i));
  }
  if (file.has("shortfall")) {
    pairs.shortfall = doubles("shortfall");
    pairs.loss = doubles("dpo_loss");
  }
  return pairs;
}

std::vector<PairFile> read_diagnostics(const fs::path& run) {
  const fs::path path = run / "diagnostics.h5";
  if (!fs::exists(path))
    throw Error(ErrorKind::data, "the run left no diagnostics.h5", run.string(),
                "train with objective.type = orpo and objective.diagnostics_every above 0, or give --pairs");
  const Hdf5Reader file(path);
  const auto steps = read_shard_list<std::int64_t>(file, "step");
  const auto chosen = read_shard_list<double>(file, "chosen_average"),
             rejected = read_shard_list<double>(file, "rejected_average");
  if (steps.empty() || chosen.size() != steps.size() || rejected.size() != steps.size())
    throw Error(ErrorKind::data, "its lists are empty or differ in length", path.string(),
                "train the run again");
  std::map<std::int64_t, PairFile> by_step;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    PairFile& pairs = by_step[steps[i]];
    pairs.name = fmt::format("step {}", steps[i]);
    pairs.chosen_average.push_back(chosen[i]);
    pairs.rejected_average.push_back(rejected[i]);
  }
  std::vector<PairFile> list;
  list.reserve(by_step.size());
  for (auto& [step, pairs] : by_step) list.push_back(std::move(pairs));
  return list;
}

namespace {

constexpr int kBlue = 0, kRed = 1, kGreen = 2, kPurple = 3, kYellow = 4, kGrey = 6;

double percent(double share) { return 100 * share; }

/// A metric over the steps, in percent.
Points curve(const MetricHistory& run, const std::string& name) {
  Points points;
  if (const MetricHistory::Curve* found = run.find(name))
    for (const auto& [step, value] : *found) points.emplace_back(static_cast<double>(step), percent(value));
  return points;
}

/// The value of a metric at a step, or the last before it.
std::optional<double> at(const MetricHistory& run, const std::string& name, std::int64_t step) {
  std::optional<double> value;
  if (const MetricHistory::Curve* found = run.find(name))
    for (const auto& [other, number] : *found)
      if (other <= step) value = number;
  return value;
}

std::vector<JudgedStep> gold_steps(const MetricHistory& run) {
  return steps_of(run, "gold_win_rate", "gold_win_rate_error");
}

void add(Panel& panel, const std::string& title, Points points, int color,
         Series::Style style = Series::Style::marked) {
  if (!points.empty()) panel.series.push_back({title, std::move(points), color, style});
}

/// Accuracies and win rate against what `x_of` makes of a step.
template <class XOf>
Panel accuracy_panel(const MetricHistory& run, const std::vector<JudgedStep>& judged, const XOf& x_of) {
  Panel panel;
  const auto moved = [&](const std::string& name) {
    Points points;
    for (const auto& [step, value] : curve(run, name))
      if (const std::optional<double> x = x_of(static_cast<std::int64_t>(step)))
        points.emplace_back(*x, value);
    return points;
  };
  const Points right = moved("ranking_accuracy"), errors = moved("ranking_accuracy_error");
  add(panel, "R", right, kBlue);
  if (errors.size() == right.size())
    for (const double side : {-1.0, 1.0}) {
      Points band = right;
      for (std::size_t i = 0; i < band.size(); ++i) band[i].second += side * errors[i].second;
      add(panel, "", std::move(band), kBlue, Series::Style::faint);
    }
  add(panel, "R per token", moved("ranking_accuracy_normalized"), kGreen);
  const auto add_rates = [&](const std::vector<JudgedStep>& rates, const char* title, int color) {
    Points middle, low, high;
    for (const JudgedStep& one : rates)
      if (const std::optional<double> x = x_of(one.step)) {
        middle.emplace_back(*x, percent(one.win_rate));
        low.emplace_back(*x, percent(one.win_rate - one.error));
        high.emplace_back(*x, percent(one.win_rate + one.error));
      }
    add(panel, "", low, color, Series::Style::faint);
    add(panel, "", high, color, Series::Style::faint);
    add(panel, title, middle, color);
  };
  add_rates(judged, "win rate", kRed);
  add_rates(gold_steps(run), "gold win rate", kYellow);
  return panel;
}

/// Of ranking accuracy with win rates; nothing where there are none.
std::optional<TrainingCorrelation> correlation_of(const MetricHistory& run,
                                                  const std::vector<JudgedStep>& judged) {
  std::vector<double> accuracies, rates;
  for (const JudgedStep& one : judged) {
    const std::optional<double> accuracy = at(run, "ranking_accuracy", one.step);
    if (!accuracy)
      throw Error(ErrorKind::data, fmt::format("step {} has a win rate, but no ranking accuracy", one.step),
                  "win rates", "give those of this run");
    accuracies.push_back(*accuracy);
    rates.push_back(one.win_rate);
  }
  if (rates.empty()) return {};
  return correlate(accuracies, rates);
}

/// Shares of pairs, stacked: what is drawn first reaches to the top.
Panel category_panel(const MetricHistory& run) {
  Panel panel{.title = "pairs, reference to policy (%)", .series = {}, .y_range = {{0, 100}}};
  Points all, without_wrong, without_lost, flipped;
  const MetricHistory::Curve* right = run.find("ranking_accuracy");
  for (std::size_t i = 0; right && i < right->size(); ++i) {
    const auto [step, accuracy] = (*right)[i];
    const double gained = at(run, "flipped_to_right", step).value_or(0),
                 lost = at(run, "flipped_to_wrong", step).value_or(0), kept = accuracy - gained;
    const auto x = static_cast<double>(step);
    all.emplace_back(x, 100);
    without_wrong.emplace_back(x, percent(kept + gained + lost));
    without_lost.emplace_back(x, percent(kept + gained));
    flipped.emplace_back(x, percent(gained));
  }
  add(panel, "stays wrong", all, kGrey, Series::Style::area);
  add(panel, "lost", without_wrong, kRed, Series::Style::area);
  add(panel, "stays right", without_lost, kBlue, Series::Style::area);
  add(panel, "flipped to right", flipped, kGreen, Series::Style::area);
  return panel;
}

/// At most this many points of a cloud, evenly taken.
constexpr std::size_t kMostPoints = 3000;

Panel threshold_panel(const PairFile& pairs, double beta) {
  Panel panel{.title = fmt::format("DPO loss against c (nats), beta {}", beta),
              .x_label = "c, by which the reference ranks a pair wrong",
              .series = {},
              .starts_at_zero = true,
              .counts_steps = false};
  Points right, wrong, curve;
  const std::size_t stride = pairs.loss.size() / kMostPoints + 1;
  for (std::size_t i = 0; i < pairs.loss.size(); i += stride)
    (pairs.log_ratio[i] >= 0 ? right : wrong).emplace_back(pairs.shortfall[i], pairs.loss[i]);
  // A few far pairs would press all others into a corner.
  const double low = std::min(-1.0, quantile(pairs.shortfall, 0.02)),
               high = std::max(1.0, quantile(pairs.shortfall, 0.98));
  panel.x_range = {low, high};
  panel.y_range = {0, std::max(1.0, 1.1 * quantile(pairs.loss, 0.99))};
  constexpr int steps = 200;
  for (int i = 0; i <= steps; ++i) {
    const double c = low + (high - low) * i / steps, x = -beta * c;
    curve.emplace_back(c, std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))));
  }
  add(panel, "ranked wrong", wrong, kRed, Series::Style::points);
  add(panel, "ranked right", right, kBlue, Series::Style::points);
  add(panel, "where the ranking flips", curve, kGrey, Series::Style::dashed);
  return panel;
}

std::string coefficient(const std::optional<double>& value) {
  return value ? fmt::format("{:+.2f}", *value) : "too few";
}

}  // namespace

RankingFigure ranking_figure(const MetricHistory& run, const std::vector<JudgedStep>& judged,
                             const PairFile* pairs, double beta) {
  if (!run.find("ranking_accuracy"))
    throw Error(ErrorKind::data, "the run measured no ranking accuracy", "metrics",
                "train with data.validation (pairs) and run.evaluate_every above 0");
  RankingFigure result;
  Panel by_step =
      accuracy_panel(run, judged, [](std::int64_t step) { return std::optional(static_cast<double>(step)); });
  by_step.title = "ranking accuracy and win rate (%)";
  result.correlation = correlation_of(run, judged);
  result.gold = correlation_of(run, gold_steps(run));
  if (result.correlation) {
    const auto turn = static_cast<double>(judged[result.correlation->turn].step);
    double low = 100, high = 0;
    for (const Series& series : by_step.series)
      for (const auto& [x, y] : series.points) {
        low = std::min(low, y);
        high = std::max(high, y);
      }
    add(by_step, "turn", {{turn, low}, {turn, high}}, kGrey, Series::Style::dashed);
    const TrainingCorrelation& c = *result.correlation;
    result.figure.words = {{fmt::format(
        "rank correlation of R and win rate: {} over all, {} until step {}, {} after{}",
        coefficient(c.whole.spearman), coefficient(c.until_turn.spearman), turn,
        coefficient(c.after_turn.spearman), has_reliable_judges(run) ? "" : "; judges not reliable")}};
  }
  result.figure.panels.push_back(std::move(by_step));
  if (run.find("distance_squared")) {
    Panel by_distance =
        accuracy_panel(run, judged, [&](std::int64_t step) { return at(run, "distance_squared", step); });
    by_distance.title = "the same against the way from the reference (%)";
    by_distance.x_label = "squared distance of the weights";
    by_distance.counts_steps = false;
    result.figure.panels.push_back(std::move(by_distance));
  }
  if (run.find("flipped_to_right")) result.figure.panels.push_back(category_panel(run));
  if (pairs && !pairs->loss.empty()) result.figure.panels.push_back(threshold_panel(*pairs, beta));
  return result;
}

namespace {

/// 1 - P from a = log P, without losing digits where P is near 1; the ceiling of the objective keeps it above
/// 0.
double complement(double average) { return -std::expm1(std::min(average, -1e-6)); }
double log_odds(double average) { return std::min(average, -1e-6) - std::log(complement(average)); }

struct Factors {
  double p_w, p_l, inverse, delta, chosen, rejected;
};
Factors factors_of(double a_w, double a_l) {
  const double d = log_odds(a_w) - log_odds(a_l), e = std::exp(-std::abs(d)),
               delta = d >= 0 ? e / (1 + e) : 1 / (1 + e);  // σ(-d)
  return {.p_w = std::exp(a_w),
          .p_l = std::exp(a_l),
          .inverse = 1 / complement(a_w),
          .delta = delta,
          .chosen = delta / complement(a_w),
          .rejected = delta / complement(a_l)};
}

/// A curve over P from 0 to almost 1.
template <class Of>
Points over_probability(const Of& of, double last = 0.95) {
  Points points;
  for (double p = 0.005; p <= last; p += 0.005) points.emplace_back(p, of(p));
  return points;
}

Panel panel_of(const std::string& title, const std::string& x_label, double top) {
  return {.title = title,
          .x_label = x_label,
          .series = {},
          .counts_steps = false,
          .x_range = {{0, 1}},
          .y_range = {{0, top}}};
}

}  // namespace

CoefficientFigure coefficient_figure(const std::vector<PairFile>& files) {
  std::vector<double> p_w, p_l, inverse, product;
  Panel panels[] = {panel_of("1/(1 - P) of the chosen answer", "P of the chosen answer", 6),
                    panel_of("delta", "P of the chosen answer", 1.05),
                    panel_of("delta/(1 - P) of the chosen answer", "P of the chosen answer", 3),
                    panel_of("delta/(1 - P) of the rejected answer", "P of the rejected answer", 3)};
  std::size_t total = 0;
  for (const PairFile& file : files) total += file.chosen_average.size();
  if (total == 0)
    throw Error(ErrorKind::data, "there are no pairs", "coefficients", "give a file that has some");
  const std::size_t stride = total / kMostPoints + 1;
  // Colours go with the steps, from the first to the last; more than five would not be told apart.
  const std::size_t colors = std::min<std::size_t>(files.size(), 5);
  std::vector<std::array<Points, 4>> clouds(colors);
  std::vector<std::string> names(colors);
  for (std::size_t f = 0; f < files.size(); ++f) {
    const std::size_t color = f * colors / files.size();
    if (names[color].empty()) names[color] = files[f].name;
    for (std::size_t i = 0; i < files[f].chosen_average.size(); i += stride) {
      const Factors x = factors_of(files[f].chosen_average[i], files[f].rejected_average[i]);
      p_w.push_back(x.p_w);
      p_l.push_back(x.p_l);
      inverse.push_back(x.inverse);
      product.push_back(x.chosen);
      clouds[color][0].emplace_back(x.p_w, x.inverse);
      clouds[color][1].emplace_back(x.p_w, x.delta);
      clouds[color][2].emplace_back(x.p_w, x.chosen);
      clouds[color][3].emplace_back(x.p_l, x.rejected);
    }
  }
  CoefficientFigure result;
  result.inverse_correlation = spearman(p_w, inverse);
  result.product_correlation = spearman(p_w, product);
  result.low = quantile(p_w, 0.05);
  result.high = quantile(p_w, 0.95);
  // The first panel shows where the points lie on the whole curve, the others these points themselves.
  for (std::size_t p = 1; p < 4; ++p)
    panels[p].x_range = {{0, std::clamp(1.3 * quantile(p < 3 ? p_w : p_l, 0.98), 0.05, 1.0)}};
  for (std::size_t p = 0; p < 4; ++p) {
    for (std::size_t c = 0; c < colors; ++c)
      add(panels[p], names[c], clouds[c][p], static_cast<int>(c), Series::Style::points);
    if (p == 0)
      add(panels[p], "exact", over_probability([](double x) { return 1 / (1 - x); }), kGrey,
          Series::Style::line);
    if (p == 2)
      for (const double rejected : {0.05, 0.2, 0.5, 0.8})
        add(panels[p], rejected == 0.05 ? "rejected P 0.05, 0.2, 0.5, 0.8" : "",
            over_probability([&](double x) { return factors_of(std::log(x), std::log(rejected)).chosen; },
                             0.995),
            kGrey, Series::Style::dashed);
    if (p == 0 || p == 2)
      panels[p].note =
          fmt::format("rank correlation with P: {}; run: P {:.2f} to {:.2f}",
                      coefficient(p == 0 ? result.inverse_correlation : result.product_correlation),
                      result.low, result.high);
    result.figure.panels.push_back(panels[p]);
  }
  const double c = result.product_correlation.value_or(0);
  result.outcome = fmt::format(
      "Where these {} pairs lie (P {:.2f} to {:.2f}), 1/(1 - P) is between {:.2f} and {:.2f} and falls as P "
      "falls; "
      "with delta the factor on the chosen answer {} as P falls (rank correlation {:+.2f}).",
      p_w.size(), result.low, result.high, 1 / (1 - result.low), 1 / (1 - result.high),
      c < 0   ? "grows"
      : c > 0 ? "shrinks"
              : "does not change",
      c);
  result.figure.words = {
      {fmt::format("1/(1 - P) falls as P falls; with delta the factor on the chosen answer {}",
                   c < 0   ? "grows"
                   : c > 0 ? "shrinks"
                           : "does not change")}};
  return result;
}

}  // namespace bireme
