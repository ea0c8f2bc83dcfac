#include "launch/run_curves.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/base/error.h"
#include "launch/configuration.h"

namespace bireme {

RunCurves read_run(const std::filesystem::path& folder) {
  RunCurves run{.name = folder.lexically_normal().filename().string(), .metrics = read_metrics(folder)};
  if (run.name.empty()) run.name = folder.lexically_normal().parent_path().filename().string();
  const auto configuration = folder / "config.toml";
  if (std::filesystem::exists(configuration)) {
    try {
      run.prototypes = static_cast<double>(load_configuration(configuration).model.prototypes);
    } catch (const Error&) {
      // A run of another version: its curves are still worth a picture, without the line of the collapse.
      run.prototypes = 0;
    }
  }
  return run;
}

namespace {

/// A metric of a panel: its name in metrics.jsonl, what the legend calls it, and how it is drawn.
struct Quantity {
  const char *metric, *title;
  Series::Style style = Series::Style::line;
  double factor = 1;
};

struct PanelPlan {
  const char *title,
      *title_of_several;  ///< several runs show their first quantity only: more would be a thicket
  std::vector<Quantity> quantities;
  bool starts_at_zero = false;
  bool shows_uniform_entropy = false;  ///< a line at ln K, where a collapse to the uniform distribution sits
};

const std::vector<PanelPlan>& panel_plans() {
  using enum Series::Style;
  static const std::vector<PanelPlan> plans = {
      {.title = "loss",
       .title_of_several = "loss",
       .quantities = {{"loss", "loss"}},
       .shows_uniform_entropy = true},
      {.title = "k-NN accuracy (%)",
       .title_of_several = "k-NN accuracy of the teacher (%)",
       .quantities = {{"knn_teacher", "teacher", marked, 100},
                      {"knn_student", "student", marked, 100},
                      {"knn_untrained", "untrained", dashed, 100},
                      {"knn_raw", "raw pixels", dashed, 100}}},
      {.title = "entropy of the teacher and KL (nats)",
       .title_of_several = "entropy of the teacher (nats)",
       .quantities = {{"teacher_entropy", "of a picture"},
                      {"marginal_entropy", "of the batch"},
                      {"kl", "KL to the student"}},
       .starts_at_zero = true,
       .shows_uniform_entropy = true},
      {.title = "learning rate",
       .title_of_several = "learning rate",
       .quantities = {{"learning_rate", "learning rate"}},
       .starts_at_zero = true},
      {.title = "gradient norm",
       .title_of_several = "gradient norm",
       .quantities = {{"grad_norm", "gradient norm"}},
       .starts_at_zero = true},
      {.title = "images per second",
       .title_of_several = "images per second",
       .quantities = {{"images_per_second", "images per second"}},
       .starts_at_zero = true},
  };
  return plans;
}

std::vector<std::pair<double, double>> points_of(const MetricHistory::Curve& curve, double factor) {
  std::vector<std::pair<double, double>> points;
  for (const auto& [step, value] : curve) points.emplace_back(static_cast<double>(step), value * factor);
  return points;
}

/// Constant values, such as the accuracy before training, reach over all steps of the run.
void stretch(std::vector<std::pair<double, double>>& points, const MetricHistory& metrics) {
  double last = 1;
  for (const auto& [name, curve] : metrics.curves)
    last = std::max(last, static_cast<double>(curve.back().first));
  const double value = points.back().second;
  points = {{0, value}, {last, value}};
}

bool is_constant(const std::vector<std::pair<double, double>>& points) {
  return std::all_of(points.begin(), points.end(),
                     [&](const auto& p) { return p.second == points.front().second; });
}

void add_curve(Panel& panel, const Quantity& quantity, const RunCurves& run, const std::string& title,
               int color) {
  const MetricHistory::Curve* curve = run.metrics.find(quantity.metric);
  if (curve == nullptr || curve->empty()) return;
  auto points = points_of(*curve, quantity.factor);
  if (quantity.style == Series::Style::dashed) stretch(points, run.metrics);
  // The noise of single batches stays visible, but pale, behind its mean over about a fiftieth of the run.
  constexpr std::size_t many = 60;
  if (quantity.style == Series::Style::line && points.size() >= many && !is_constant(points) &&
      std::string_view(quantity.metric) != "learning_rate") {
    panel.series.push_back({.title = "", .points = points, .color = color, .style = Series::Style::faint});
    points = smoothed(points, static_cast<std::int64_t>(points.size() / 50) + 1);
  }
  panel.series.push_back(
      {.title = title, .points = std::move(points), .color = color, .style = quantity.style});
}

Panel make_panel(const PanelPlan& plan, const std::vector<RunCurves>& runs) {
  const bool is_single = runs.size() == 1;
  Panel panel{.title = is_single ? plan.title : plan.title_of_several,
              .series = {},
              .starts_at_zero = plan.starts_at_zero};
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const std::size_t shown = is_single ? plan.quantities.size() : 1;
    for (std::size_t q = 0; q < shown; ++q) {
      const Quantity& quantity = plan.quantities[q];
      // A panel of one quantity names it in its title, and a picture of several runs names them above all
      // panels.
      const std::string title = is_single && plan.quantities.size() > 1 ? quantity.title : "";
      add_curve(panel, quantity, runs[r], title, static_cast<int>(is_single ? q : r));
    }
  }
  // Pale noise first, so that no run's noise covers another's mean.
  std::stable_partition(panel.series.begin(), panel.series.end(),
                        [](const Series& s) { return s.style == Series::Style::faint; });
  return panel;
}

void add_uniform_entropy(Panel& panel, const std::vector<RunCurves>& runs) {
  const double prototypes = runs.front().prototypes;
  const bool is_shared =
      std::all_of(runs.begin(), runs.end(), [&](const RunCurves& r) { return r.prototypes == prototypes; });
  if (prototypes < 2 || !is_shared) return;
  double first = INFINITY, last = 0;
  for (const Series& series : panel.series) {
    first = std::min(first, series.points.front().first);
    last = std::max(last, series.points.back().first);
  }
  panel.series.push_back({.title = fmt::format("ln {:.0f}", prototypes),
                          .points = {{first, std::log(prototypes)}, {last, std::log(prototypes)}},
                          .color = 6,
                          .style = Series::Style::dashed});
}

}  // namespace

Figure curves_figure(const std::vector<RunCurves>& runs) {
  Figure figure;
  for (std::size_t r = 0; r < runs.size(); ++r)
    figure.words.push_back({.text = runs[r].name, .color = runs.size() == 1 ? -1 : static_cast<int>(r)});
  for (const PanelPlan& plan : panel_plans()) {
    Panel panel = make_panel(plan, runs);
    if (panel.series.empty()) continue;
    if (plan.shows_uniform_entropy) add_uniform_entropy(panel, runs);
    figure.panels.push_back(std::move(panel));
  }
  if (figure.panels.empty())
    throw Error(ErrorKind::data, "the metrics hold nothing to draw yet", runs.front().name,
                "wait for the first logged step");
  return figure;
}

}  // namespace bireme
