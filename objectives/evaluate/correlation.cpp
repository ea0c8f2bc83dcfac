#include "objectives/evaluate/correlation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bireme {

std::optional<double> pearson(std::span<const double> x, std::span<const double> y) {
  if (x.empty()) return {};
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
               mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  if (xx == 0 || yy == 0) return {};
  return xy / std::sqrt(xx * yy);
}

std::vector<double> average_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end + 1) / 2;
    begin = end;
  }
  return ranks;
}

std::optional<double> spearman(std::span<const double> x, std::span<const double> y) {
  return pearson(average_ranks(x), average_ranks(y));
}

std::vector<double> median_of_three(std::span<const double> values) {
  std::vector<double> result(values.begin(), values.end());
  for (std::size_t i = 1; i + 1 < values.size(); ++i)
    result[i] = std::max(std::min(values[i - 1], values[i]),
                         std::min(std::max(values[i - 1], values[i]), values[i + 1]));
  return result;
}

namespace {

Correlation part(std::span<const double> x, std::span<const double> y) {
  Correlation result{.points = x.size(), .pearson = {}, .spearman = {}};
  if (x.size() < TrainingCorrelation::kFewest) return result;
  result.pearson = pearson(x, y);
  result.spearman = spearman(x, y);
  return result;
}

}  // namespace

bool TrainingCorrelation::shows_pattern() const {
  return until_turn.spearman && after_turn.spearman && *until_turn.spearman > 0 && *after_turn.spearman < 0;
}

TrainingCorrelation correlate(std::span<const double> accuracy, std::span<const double> win_rate) {
  TrainingCorrelation result;
  if (accuracy.empty()) return result;
  const std::vector<double> smooth = median_of_three(win_rate);
  result.turn = static_cast<std::size_t>(std::ranges::max_element(smooth) - smooth.begin());
  result.whole = part(accuracy, win_rate);
  result.until_turn = part(accuracy.first(result.turn + 1), win_rate.first(result.turn + 1));
  result.after_turn = part(accuracy.subspan(result.turn + 1), win_rate.subspan(result.turn + 1));
  return result;
}

}  // namespace bireme
