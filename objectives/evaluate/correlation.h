#pragma once

#include <optional>
#include <span>
#include <vector>

#include "objectives/evaluate/win_rate.h"

namespace bireme {

/// Pearson's coefficient; nothing where a list is constant.
std::optional<double> pearson(std::span<const double> x, std::span<const double> y);
/// Spearman's: Pearson's of ranks, equal values sharing the mean of theirs.
std::optional<double> spearman(std::span<const double> x, std::span<const double> y);
std::vector<double> average_ranks(std::span<const double> values);

/// Median of each value and its neighbours; the ends, which have one, keep their values.
std::vector<double> median_of_three(std::span<const double> values);

/// How ranking accuracy and win rate go together over a run.
struct Correlation {
  std::size_t points = 0;
  std::optional<double> pearson, spearman;  ///< nothing: too few points, or one of them is constant
};
struct TrainingCorrelation {
  static constexpr std::size_t kFewest = 4;  ///< points below which no coefficient is given

  std::size_t turn = 0;  ///< t*: the evaluation with the highest win rate after median_of_three()
  Correlation whole, until_turn, after_turn;

  /// The pattern of the paper: together until the turn, against each other after it.
  bool shows_pattern() const;
};
/// @param accuracy, win_rate  one value for each evaluation, in order
TrainingCorrelation correlate(std::span<const double> accuracy, std::span<const double> win_rate);

/// What an evaluation found of single pairs and prompts, the same ones in each evaluation.
struct SingleOutcomes {
  std::vector<double> right;  ///< of each pair: 1 where it is ranked right
  std::vector<double> wins;   ///< of each prompt: 1 (won), ½, 0
};
/// Where Spearman's coefficients lie in 95 % of samples of pairs and of prompts, drawn with replacement;
/// nothing where there are too few evaluations, or one list is constant in most samples.
struct CorrelationIntervals {
  std::optional<Interval> whole, until_turn, after_turn;
};
/// @param turn     t* of the measured values, which stays: the parts are those that the coefficients are of
/// @param samples  drawn by the seed 0: the same intervals in every call
CorrelationIntervals bootstrap_correlation(std::span<const SingleOutcomes> evaluations, std::size_t turn,
                                           int samples = 1000);

}  // namespace bireme
