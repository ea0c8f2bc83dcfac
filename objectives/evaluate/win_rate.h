#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace bireme {

/// Two systems' answers to one prompt, as judges score them.
struct Contest {
  double score_a = 0, score_b = 0;
  std::int64_t length_a = 0, length_b = 0;  ///< tokens
  bool is_identical = false;                ///< the texts are equal: a tie whatever the scores
};

struct WinRateOptions {
  double tie_band = 0.05;  ///< scores that differ by no more are a tie
  double ridge = 1e-6;     ///< of the regression on length, on its mean log-likelihood
};

/// How often A's answer is preferred to B's: mean over prompts of 1 (A), ½ (cannot tell), 0 (B).
struct WinRate {
  std::int64_t count = 0, ties = 0;
  double value = 0, error = 0;  ///< with its standard error, sd(w)/√N
  double soft = 0;              ///< mean of σ(r_A - r_B): smoother over checkpoints
  /// With the advantage of length taken out: σ of the intercept of a logistic regression of w on 1 and
  /// tanh((len_A - len_B)/sd).
  double length_controlled = 0;
  std::array<double, 2> length_coefficients{};
  std::vector<double> outcomes;  ///< w of each contest: 1 (A), ½, 0
};

/// @throws Error (data) when there is no contest
WinRate win_rate(std::span<const Contest> contests, const WinRateOptions& options = {});

/// Scores that judges gave the same answers become one: the mean of each judge's scores brought to mean 0 and
/// standard deviation 1, so that none counts more for its scale.
/// @param scores  one list for each judge, all of one length
std::vector<double> mean_of_standardized(std::span<const std::vector<double>> scores);

/// Share of contests in which all judges prefer the same side.
/// @param margins  r_A - r_B, one list for each judge
double agreement(std::span<const std::vector<double>> margins);

struct Interval {
  double low = 0, high = 1;
};
/// Of a share of `right` in `count` at 95 % (Wilson 1927).
Interval wilson_interval(std::int64_t right, std::int64_t count);

/// A pair of known preference as a judge scores it.
struct JudgedPair {
  double chosen = 0, rejected = 0;
  std::int64_t chosen_length = 0, rejected_length = 0;
};

/// Whether a judge may speak: how often it finds the preferred answer on pairs that it has not seen, on all
/// of them and on those whose preferred answer is the shorter one, which a judge that has learnt length gets
/// wrong.
struct JudgeCheck {
  std::int64_t count = 0, shorter_count = 0;
  double accuracy = 0, shorter_accuracy = 0;
  Interval interval, shorter_interval;

  /// Both intervals lie above one half.
  bool is_reliable() const { return interval.low > 0.5 && shorter_interval.low > 0.5; }
};
JudgeCheck check_judge(std::span<const JudgedPair> pairs);

/// What trains a judge: mean over pairs of -log σ(r_w - r_l) + centre·(r_w + r_l)² (Bradley and Terry 1952;
/// the second term pins the mean of scores, which the first leaves free), with its gradients.
struct BradleyTerry {
  std::vector<double> losses;  ///< of each pair, the first term
  double loss = 0;             ///< mean of both terms
  double accuracy = 0;         ///< share with r_w > r_l
  std::vector<double> dchosen, drejected;
};
/// @param count  pairs that the mean is over: those of the whole step where others hold the rest; 0: these
BradleyTerry bradley_terry(std::span<const double> chosen, std::span<const double> rejected,
                           double centre = 0.01, std::int64_t count = 0);

}  // namespace bireme
