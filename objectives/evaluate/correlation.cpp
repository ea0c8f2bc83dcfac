#include "objectives/evaluate/correlation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/tensor/random.h"

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

TrainingCorrelation correlate_at(std::span<const double> x, std::span<const double> y, std::size_t turn) {
  return {.turn = turn,
          .whole = part(x, y),
          .until_turn = part(x.first(turn + 1), y.first(turn + 1)),
          .after_turn = part(x.subspan(turn + 1), y.subspan(turn + 1))};
}

}  // namespace

bool TrainingCorrelation::shows_pattern() const {
  return until_turn.spearman && after_turn.spearman && *until_turn.spearman > 0 && *after_turn.spearman < 0;
}

TrainingCorrelation correlate(std::span<const double> accuracy, std::span<const double> win_rate) {
  if (accuracy.empty()) return {};
  const std::vector<double> smooth = median_of_three(win_rate);
  return correlate_at(accuracy, win_rate,
                      static_cast<std::size_t>(std::ranges::max_element(smooth) - smooth.begin()));
}

namespace {

/// Mean of the values at these places.
double mean_at(std::span<const double> values, std::span<const std::int64_t> places) {
  double sum = 0;
  for (const std::int64_t place : places) sum += values[static_cast<std::size_t>(place)];
  return sum / static_cast<double>(places.size());
}

std::vector<std::int64_t> draw_places(RandomStream& random, std::size_t count) {
  std::vector<std::int64_t> places(count);
  for (std::int64_t& place : places) place = random.below(static_cast<std::int64_t>(count));
  return places;
}

std::optional<Interval> middle(std::vector<double> values, int samples) {
  if (2 * std::ssize(values) < samples) return {};
  std::ranges::sort(values);
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return Interval{.low = at(0.025), .high = at(0.975)};
}

}  // namespace

CorrelationIntervals bootstrap_correlation(std::span<const SingleOutcomes> evaluations, std::size_t turn,
                                           int samples) {
  std::array<std::vector<double>, 3> found;
  for (int sample = 0; sample < samples && !evaluations.empty(); ++sample) {
    RandomStream random(0, static_cast<std::uint64_t>(sample), RandomUse::noise);
    const std::vector<std::int64_t> pairs = draw_places(random, evaluations.front().right.size()),
                                    prompts = draw_places(random, evaluations.front().wins.size());
    std::vector<double> accuracies, rates;
    accuracies.reserve(evaluations.size());
    rates.reserve(evaluations.size());
    for (const SingleOutcomes& evaluation : evaluations) {
      accuracies.push_back(mean_at(evaluation.right, pairs));
      rates.push_back(mean_at(evaluation.wins, prompts));
    }
    const TrainingCorrelation c = correlate_at(accuracies, rates, turn);
    const std::array parts{c.whole.spearman, c.until_turn.spearman, c.after_turn.spearman};
    for (std::size_t p = 0; p < parts.size(); ++p)
      if (const std::optional<double>& part = parts[p]) found[p].push_back(*part);
  }
  return {.whole = middle(found[0], samples),
          .until_turn = middle(found[1], samples),
          .after_turn = middle(found[2], samples)};
}

}  // namespace bireme
