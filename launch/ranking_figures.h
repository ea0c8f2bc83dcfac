#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "launch/metrics.h"
#include "launch/plot.h"
#include "objectives/evaluate/correlation.h"

namespace bireme {

/// How often a run's answers won at a step, as judges said.
struct JudgedStep {
  std::int64_t step = 0;
  double win_rate = 0, error = 0;
};
/// From `evaluate win-rate --json` lines with a step each, see --append. @throws Error (data) with the line
std::vector<JudgedStep> read_win_rates(const std::filesystem::path& file);
/// As the run measured them on the way; empty where it did not.
std::vector<JudgedStep> judged_steps(const MetricHistory& run);
/// Of every judged step, as the run's evaluation/step-NNNNNNNN.json has them; empty where one is missing or
/// of other pairs and prompts.
std::vector<SingleOutcomes> read_outcomes(const std::filesystem::path& run,
                                          const std::vector<JudgedStep>& judged);
/// Whether the judges of the run were good enough to be believed; true where it had none.
bool has_reliable_judges(const MetricHistory& run);

/// What `evaluate ranking --output` wrote of pairs.
struct PairFile {
  std::string name = {};
  std::vector<double> chosen_average{}, rejected_average{};  ///< a = s/n
  std::vector<double> shortfall{}, loss{}, log_ratio{};      ///< c, DPO loss, Δ; empty without a reference
};
/// @throws Error (data)
PairFile read_pairs(const std::filesystem::path& file);
/// Pairs of the steps that a run's diagnostics.h5 has (`step`, `chosen_average`, `rejected_average`), a
/// file's worth for each step. @throws Error (data) when there is none
std::vector<PairFile> read_diagnostics(const std::filesystem::path& run);

/// Whether alignment learns preferences (Chen et al. 2024, figure 4): ranking accuracy and win rate against
/// the step and against the distance of the weights from the reference; shares of pairs by what became of
/// them; and each pair's loss against c, by which the reference ranks it wrong, with the curve
/// log(1 + e^(-βc)) below which it is ranked right.
struct RankingFigure {
  Figure figure;
  std::optional<TrainingCorrelation> correlation;  ///< nothing without win rates
  /// Of ranking accuracy with the win rate by a rule that is known; nothing where none is.
  std::optional<TrainingCorrelation> gold;
};
/// @param pairs  for the last panel, or null
RankingFigure ranking_figure(const MetricHistory& run, const std::vector<JudgedStep>& judged,
                             const PairFile* pairs, double beta);

/// How the factors of ORPO's gradient depend on the probabilities P = e^a of the answers: 1/(1 - P), which
/// some say grows as P falls; δ, which does; and their products.
struct CoefficientFigure {
  Figure figure;
  std::optional<double> inverse_correlation;  ///< Spearman's, of 1/(1 - P_w) with P_w: +1 by construction
  std::optional<double> product_correlation;  ///< of C_w = δ/(1 - P_w) with P_w
  double low = 0, high = 0;                   ///< 5 % and 95 % of P_w
  std::string outcome;                        ///< one sentence
};
/// @param pairs  one file for each step or model
CoefficientFigure coefficient_figure(const std::vector<PairFile>& pairs);

}  // namespace bireme
