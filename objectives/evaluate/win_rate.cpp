#include "objectives/evaluate/win_rate.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "objectives/preference/answer.h"

namespace bireme {

namespace {

/// Mean and population standard deviation.
struct Moments {
  double mean = 0, deviation = 0;
};
Moments moments(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  Moments result;
  for (const double value : values) result.mean += value / n;
  for (const double value : values) result.deviation += (value - result.mean) * (value - result.mean) / n;
  result.deviation = std::sqrt(result.deviation);
  return result;
}

/// Maximises the mean log-likelihood of w under σ(b0 + b1 t) minus ridge/2·‖b‖² by Newton's method.
std::array<double, 2> regress(std::span<const double> w, std::span<const double> t, double ridge) {
  std::array<double, 2> b{};
  const auto n = static_cast<double>(w.size());
  // Quadratic convergence: a handful of steps reach the last digit; separable data stop at the ridge.
  for (int step = 0; step < 100; ++step) {
    double g0 = -ridge * b[0], g1 = -ridge * b[1], h00 = ridge, h01 = 0, h11 = ridge;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double p = sigmoid(b[0] + b[1] * t[i]), v = p * (1 - p) / n, d = (w[i] - p) / n;
      g0 += d;
      g1 += d * t[i];
      h00 += v;
      h01 += v * t[i];
      h11 += v * t[i] * t[i];
    }
    const double determinant = h00 * h11 - h01 * h01;
    double d0 = (h11 * g0 - h01 * g1) / determinant, d1 = (h00 * g1 - h01 * g0) / determinant;
    // A step on a flat likelihood would overshoot.
    const double longest = std::max(std::abs(d0), std::abs(d1)), allowed = 5;
    if (longest > allowed) {
      d0 *= allowed / longest;
      d1 *= allowed / longest;
    }
    b[0] += d0;
    b[1] += d1;
    if (longest < 1e-15) break;
  }
  return b;
}

}  // namespace

WinRate win_rate(std::span<const Contest> contests, const WinRateOptions& options) {
  if (contests.empty())
    throw Error(ErrorKind::data, "there are no answers to compare", "win rate", "give at least one prompt");
  WinRate result;
  result.count = std::ssize(contests);
  const auto n = static_cast<double>(result.count);
  std::vector<double> w, lead;
  w.reserve(contests.size());
  lead.reserve(contests.size());
  for (const Contest& contest : contests) {
    const double margin = contest.score_a - contest.score_b;
    const bool is_tie = contest.is_identical || std::abs(margin) <= options.tie_band;
    result.ties += is_tie;
    w.push_back(is_tie ? 0.5 : margin > 0 ? 1 : 0);
    lead.push_back(static_cast<double>(contest.length_a - contest.length_b));
    result.value += w.back();
    result.soft += contest.is_identical ? 0.5 : sigmoid(margin);
  }
  result.value /= n;
  result.soft /= n;
  double squares = 0;
  for (const double one : w) squares += (one - result.value) * (one - result.value);
  result.error = result.count > 1 ? std::sqrt(squares / (n - 1) / n) : 0;
  // Lengths that all lead by the same have no effect to take out.
  if (const double deviation = moments(lead).deviation; deviation > 0)
    for (double& one : lead) one = std::tanh(one / deviation);
  else
    std::ranges::fill(lead, 0.0);
  result.length_coefficients = regress(w, lead, options.ridge);
  result.length_controlled = sigmoid(result.length_coefficients[0]);
  result.outcomes = std::move(w);
  return result;
}

std::vector<double> mean_of_standardized(std::span<const std::vector<double>> scores) {
  std::vector<double> mean(scores.front().size(), 0.0);
  for (const std::vector<double>& judge : scores) {
    const Moments m = moments(judge);
    const double scale = m.deviation > 0 ? 1 / m.deviation : 0;
    for (std::size_t i = 0; i < judge.size(); ++i)
      mean[i] += (judge[i] - m.mean) * scale / static_cast<double>(scores.size());
  }
  return mean;
}

double agreement(std::span<const std::vector<double>> margins) {
  const std::size_t count = margins.front().size();
  std::size_t agreed = 0;
  for (std::size_t i = 0; i < count; ++i)
    agreed += std::ranges::all_of(margins, [&](const auto& one) { return one[i] > 0; }) ||
              std::ranges::all_of(margins, [&](const auto& one) { return one[i] < 0; });
  return static_cast<double>(agreed) / static_cast<double>(std::max<std::size_t>(count, 1));
}

Interval wilson_interval(std::int64_t right, std::int64_t count) {
  if (count == 0) return {};
  constexpr double z = 1.959963984540054;  // of 95 %
  const auto n = static_cast<double>(count);
  const double p = static_cast<double>(right) / n, scale = 1 / (1 + z * z / n);
  const double middle = (p + z * z / (2 * n)) * scale,
               half = z * scale * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

JudgeCheck check_judge(std::span<const JudgedPair> pairs) {
  JudgeCheck check;
  std::int64_t right = 0, shorter_right = 0;
  for (const JudgedPair& pair : pairs) {
    const bool is_right = pair.chosen > pair.rejected;
    ++check.count;
    right += is_right;
    if (pair.chosen_length >= pair.rejected_length) continue;
    ++check.shorter_count;
    shorter_right += is_right;
  }
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  check.accuracy = share(right, check.count);
  check.shorter_accuracy = share(shorter_right, check.shorter_count);
  check.interval = wilson_interval(right, check.count);
  check.shorter_interval = wilson_interval(shorter_right, check.shorter_count);
  return check;
}

BradleyTerry bradley_terry(std::span<const double> chosen, std::span<const double> rejected, double centre,
                           std::int64_t count) {
  BradleyTerry result;
  const auto n = static_cast<double>(count > 0 ? count : std::ssize(chosen));
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const double margin = chosen[i] - rejected[i], sum = chosen[i] + rejected[i];
    result.losses.push_back(negative_log_sigmoid(margin));
    result.loss += (result.losses.back() + centre * sum * sum) / n;
    result.accuracy += (margin > 0 ? 1 : 0) / n;
    const double pull = sigmoid(-margin) / n, pin = 2 * centre * sum / n;
    result.dchosen.push_back(pin - pull);
    result.drejected.push_back(pin + pull);
  }
  return result;
}

}  // namespace bireme
