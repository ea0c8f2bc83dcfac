#include "launch/preference_evaluation.h"

#include <spdlog/fmt/fmt.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "launch/preference_options.h"
#include "objectives/evaluate/squared_distance.h"

namespace bireme {

bool PreferenceEvaluation::is_wanted(const Configuration& configuration, const AnswerTrainingData& data) {
  return data.validation != nullptr || WinRateEvaluation::is_wanted(configuration);
}

PreferenceEvaluation::PreferenceEvaluation(const Configuration& configuration, const Context& context,
                                           const AnswerTrainingData& data, PublishedLanguageModel& policy,
                                           const LanguageModel& reference, const PreferenceLoss& loss)
    : configuration_(configuration), context_(context), data_(data), policy_(policy), loss_(loss) {
  if (data.validation) {
    comparable_ = comparable_records(*data.validation, policy.model().context());
    reference_scores_ = scores_under(reference);
  }
  if (WinRateEvaluation::is_wanted(configuration))
    win_rate_ = std::make_unique<WinRateEvaluation>(configuration, context, data.dataset, policy);
  if (const auto values = counterparts(policy.model().parameters(), reference.parameters()))
    for (const Tensor& one : *values)
      reference_values_.push_back(one.defined() ? clone(context.backend->memory(), one) : Tensor());
}

void PreferenceEvaluation::begin(const std::filesystem::path& run,
                                 const std::function<const LanguageModel&()>& reference) {
  if (win_rate_) win_rate_->begin(run, reference);
}

RecordScores PreferenceEvaluation::scores_under(const LanguageModel& model) const {
  const AnswerDataset& pairs = *data_.validation;
  return score_records(
      *context_.backend, context_.mesh->data(), model, std::ssize(comparable_.numbers),
      pairs.manifest().answers(),
      [&](std::int64_t i) { return pairs.read(comparable_.numbers[static_cast<std::size_t>(i)]); },
      {.type = context_.type});
}

TrainingEvaluation PreferenceEvaluation::measure() {
  TrainingEvaluation found;
  nlohmann::ordered_json details;
  if (data_.validation) rank(found, details);
  if (!reference_values_.empty())
    found.numbers.emplace_back(
        "distance_squared",
        squared_distance(policy_.model().parameters(), reference_values_, context_.mesh->tensor()));
  if (win_rate_ && win_rate_->has_begun()) judge(found, details);
  found.details = json_text(details);
  return found;
}

void PreferenceEvaluation::rank(TrainingEvaluation& found, nlohmann::ordered_json& details) const {
  const auto& o = configuration_.objective;
  const std::vector<RankedPair> pairs =
      ranked_pairs(*data_.validation, comparable_, scores_under(policy_.model()), &reference_scores_);
  RankingOptions options;
  if (o.type == "dpo" || o.type == "kto") options.beta = o.beta;
  const RankingResult r = evaluate_ranking(pairs, options);
  found.numbers.insert(found.numbers.end(),
                       {{"ranking_accuracy", r.accuracy.plain},
                        {"ranking_accuracy_normalized", r.accuracy.normalized},
                        {"ranking_accuracy_error", r.error.plain},
                        {"ranking_accuracy_normalized_error", r.error.normalized},
                        {"reference_ranking_accuracy", r.reference.value_or(Accuracies{}).plain},
                        {"validation_reward_accuracy", r.reward_accuracy}});
  constexpr std::array kCategories = {"wrong_wrong", "flipped_to_right", "flipped_to_wrong", "right_right"};
  for (std::size_t c = 0; c < kCategories.size(); ++c)
    found.numbers.emplace_back(kCategories[c],
                               static_cast<double>(r.categories[c]) / static_cast<double>(r.count));
  for (std::size_t c = 0; c < kCategories.size(); ++c) {
    found.numbers.emplace_back(std::string("dpo_loss_") + kCategories[c], r.category_loss[c]);
    found.numbers.emplace_back(std::string("log_ratio_") + kCategories[c], r.category_log_ratio[c]);
  }
  found.numbers.insert(found.numbers.end(), {{"validation_chosen_log_ratio", r.chosen_reward},
                                             {"validation_rejected_log_ratio", r.rejected_reward},
                                             {"validation_pairs", static_cast<double>(r.count)}});
  if (reads_pairs(configuration_)) {
    std::vector<Answer> answers;
    for (const RankedPair& pair : pairs) {
      const std::array reference = pair.reference.value_or(std::array{0.0, 0.0});
      for (const auto& [score, q] : {std::pair(pair.chosen, reference[0]), {pair.rejected, reference[1]}})
        answers.push_back({.log_probability = score.log_probability,
                           .reference = q,
                           .tokens = static_cast<double>(score.tokens)});
    }
    std::vector<double> slopes(answers.size());
    found.numbers.emplace_back("validation_loss",
                               loss_.evaluate(answers, slopes) / static_cast<double>(pairs.size()));
  }
  // Ties take no part.
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (r.outcomes[i].category != RankingCategory::tie) {
      details["records"].push_back(pairs[i].record);
      details["right"].push_back(r.outcomes[i].log_ratio >= 0 ? 1 : 0);
    }
  found.message =
      fmt::format("ranking accuracy {:.1f} %, of averages {:.1f} %, of rewards {:.1f} % over {} pairs",
                  100 * r.accuracy.plain, 100 * r.accuracy.normalized, 100 * r.reward_accuracy, r.count);
}

void PreferenceEvaluation::judge(TrainingEvaluation& found, nlohmann::ordered_json& details) {
  const WinRateEvaluation::Found judged = win_rate_->evaluate(policy_.model());
  found.numbers.insert(found.numbers.end(), judged.numbers.begin(), judged.numbers.end());
  if (!reference_values_.empty()) found.numbers.emplace_back("own_samples_kl", divergence(judged.answers));
  if (!judged.outcomes.empty()) details["wins"] = judged.outcomes;
  if (!judged.gold.empty()) details["gold_wins"] = judged.gold;
  details["answers"] = judged.texts;
  found.message += (found.message.empty() ? "" : "; ") + judged.message;
}

double PreferenceEvaluation::divergence(const std::vector<AnswerRecord>& answers) {
  const auto score = [&] {
    return score_sums(context_, policy_.model(), std::ssize(answers), 1,
                      [&](std::int64_t i) { return answers[static_cast<std::size_t>(i)]; });
  };
  const std::vector<double> own = score();
  // The reference is no second model in memory: the policy puts on its weights for a moment.
  ParameterSet& parameters = policy_.model().parameters();
  const Tensor kept = clone(context_.backend->memory(), parameters.flat_values());
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (reference_values_[i].defined()) copy(reference_values_[i], parameters[i].value());
  parameters.refresh_bf16();
  const std::vector<double> reference = score();
  copy(kept, parameters.flat_values());
  parameters.refresh_bf16();
  double sum = 0;
  for (std::size_t i = 0; i < own.size(); ++i) sum += own[i] - reference[i];
  return sum / static_cast<double>(own.size());
}

}  // namespace bireme
