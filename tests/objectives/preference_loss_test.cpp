#include <gtest/gtest.h>

#include <cmath>

#include "objectives/preference/dpo.h"
#include "objectives/preference/dro.h"
#include "objectives/preference/ipo.h"
#include "objectives/preference/kto.h"
#include "objectives/preference/orpo.h"
#include "objectives/preference/simpo.h"
#include "tests/support/answers.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"

namespace bireme::test {
namespace {

// Everything is computed in double from the fixtures' own inputs, which were rounded to fp32 beforehand.
constexpr double kTolerance = 1e-10;

void expect_numbers(const std::vector<double>& actual, const Golden& golden, const std::string& path) {
  const Tensor tensor(*make_host_memory(), {std::ssize(actual)}, DType::f64);
  std::ranges::copy(actual, tensor.data<double>());
  expect_close(tensor, golden.tensor(path), kTolerance, 1e-13, path);
}

std::vector<Answer> golden_pairs(const Golden& golden) {
  std::vector<Answer> answers;
  const auto field = [&](const std::string& name) { return golden_numbers(golden, "inputs/" + name); };
  const auto w = field("chosen_logps"), l = field("rejected_logps"), n_w = field("chosen_tokens"),
             n_l = field("rejected_tokens"), q_w = field("reference_chosen_logps"),
             q_l = field("reference_rejected_logps");
  for (std::size_t i = 0; i < w.size(); ++i) {
    answers.push_back({.log_probability = w[i], .reference = q_w.empty() ? 0 : q_w[i], .tokens = n_w[i]});
    answers.push_back({.log_probability = l[i], .reference = q_l.empty() ? 0 : q_l[i], .tokens = n_l[i]});
  }
  return answers;
}

/// Losses and gradients of a file of pairs; the loss there is the mean over them, `scale` times.
void expect_golden_pairs(const std::string& file, const PreferenceLoss& loss, double scale = 1) {
  SCOPED_TRACE(file);
  const Golden golden("alignment/" + file);
  const std::vector<Answer> answers = golden_pairs(golden);
  std::vector<double> slopes(answers.size());
  const auto pairs = static_cast<double>(answers.size()) / 2;
  expect_numbers({scale * loss.evaluate(answers, slopes) / pairs}, golden, "outputs/loss");
  std::vector<double> chosen, rejected, losses;
  for (std::size_t i = 0; i < answers.size(); i += 2) {
    chosen.push_back(scale * slopes[i] / pairs);
    rejected.push_back(scale * slopes[i + 1] / pairs);
    std::vector<double> unused(2);
    losses.push_back(scale * loss.evaluate(std::span(answers).subspan(i, 2), unused));
  }
  expect_numbers(losses, golden, "outputs/losses");
  expect_numbers(chosen, golden, "grads/chosen_logps");
  expect_numbers(rejected, golden, "grads/rejected_logps");
}

TEST(PreferenceLoss, DpoMatchesTheReference) {
  expect_golden_pairs("sequence_dpo.h5", DpoLoss({.beta = 0.1}));
  expect_golden_pairs("sequence_dpo_smooth.h5", DpoLoss({.beta = 0.1, .label_smoothing = 0.1}));
  expect_golden_pairs("sequence_dpo_gamma.h5", DpoLoss({.beta = 0.1, .gamma = 0.5}));
}

TEST(PreferenceLoss, IpoMatchesTheReferenceInBothForms) {
  expect_golden_pairs("sequence_ipo.h5", IpoLoss({.beta = 0.1, .length_normalise = true}));
  expect_golden_pairs("sequence_ipo_sum.h5", IpoLoss({.beta = 0.1, .length_normalise = false}));
}

TEST(PreferenceLoss, SimpoMatchesTheReference) {
  expect_golden_pairs("sequence_simpo.h5", SimpoLoss({.beta = 2, .gamma = 1}));
}

TEST(PreferenceLoss, OrpoMatchesTheReferenceWithItsDiagnostics) {
  const OrpoLoss loss({.lambda = 0.1});
  expect_golden_pairs("sequence_orpo.h5", loss, 0.1);
  const Golden golden("alignment/sequence_orpo.h5");
  const std::vector<Answer> answers = golden_pairs(golden);
  std::vector<double> ratio, delta, inverse_w, inverse_l, coefficient_w, coefficient_l;
  for (std::size_t i = 0; i < answers.size(); i += 2) {
    const OrpoLoss::Pair pair = loss.compare(answers[i].average(), answers[i + 1].average());
    ratio.push_back(pair.log_odds_ratio);
    delta.push_back(pair.delta);
    inverse_w.push_back(pair.inverse_chosen);
    inverse_l.push_back(pair.inverse_rejected);
    coefficient_w.push_back(pair.coefficient_chosen);
    coefficient_l.push_back(pair.coefficient_rejected);
  }
  expect_numbers(ratio, golden, "outputs/log_odds_ratio");
  expect_numbers(delta, golden, "outputs/delta");
  expect_numbers(inverse_w, golden, "outputs/inverse_chosen");
  expect_numbers(inverse_l, golden, "outputs/inverse_rejected");
  expect_numbers(coefficient_w, golden, "outputs/coefficient_chosen");
  expect_numbers(coefficient_l, golden, "outputs/coefficient_rejected");
}

TEST(PreferenceLoss, OrpoCoefficientsMatchTheirClosedForm) {
  const Golden golden("alignment/orpo_coefficients.h5");
  const auto w = golden_numbers(golden, "inputs/average_chosen"),
             l = golden_numbers(golden, "inputs/average_rejected");
  std::vector<double> chosen, rejected;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const OrpoLoss::Pair pair = OrpoLoss({}).compare(w[i], l[i]);
    chosen.push_back(pair.coefficient_chosen);
    rejected.push_back(pair.coefficient_rejected);
  }
  expect_numbers(chosen, golden, "outputs/coefficient_chosen");
  expect_numbers(chosen, golden, "outputs/coefficient_chosen_closed_form");
  expect_numbers(rejected, golden, "outputs/coefficient_rejected");
}

TEST(PreferenceLoss, OrpoStaysFiniteForCertainAndForHopelessAnswers) {
  const OrpoLoss loss({});
  const std::vector<Answer> answers = {{.log_probability = 0, .tokens = 1},
                                       {.log_probability = -8e5, .tokens = 1e4}};
  for (const bool swapped : {false, true}) {
    const std::vector<Answer> pair = swapped ? std::vector{answers[1], answers[0]} : answers;
    std::vector<double> slopes(2);
    EXPECT_TRUE(std::isfinite(loss.evaluate(pair, slopes)));
    for (const double slope : slopes) EXPECT_TRUE(std::isfinite(slope)) << slope;
    for (const auto& [name, value] : loss.terms(pair)) EXPECT_TRUE(std::isfinite(value)) << name;
  }
}

void expect_golden_kto(const std::string& file, const KtoLoss::Options& options) {
  SCOPED_TRACE(file);
  const Golden golden("alignment/" + file);
  const auto s = golden_numbers(golden, "inputs/logps"), q = golden_numbers(golden, "inputs/reference_logps"),
             like = golden_numbers(golden, "inputs/like"), other = golden_numbers(golden, "inputs/kl_logps"),
             other_q = golden_numbers(golden, "inputs/reference_kl_logps");
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < s.size(); ++i)
    answers.push_back({.log_probability = s[i], .reference = q[i], .tokens = 1, .liked = like[i] != 0});
  double sum = 0;
  for (std::size_t i = 0; i < other.size(); ++i) sum += other[i] - other_q[i];
  KtoLoss loss(options);
  loss.set_mismatched(sum, static_cast<double>(other.size()));
  expect_numbers({loss.reference_point()}, golden, "outputs/kl");
  std::vector<double> slopes(answers.size());
  const auto count = static_cast<double>(answers.size());
  expect_numbers({loss.evaluate(answers, slopes) / count}, golden, "outputs/loss");
  for (double& slope : slopes) slope /= count;
  expect_numbers(slopes, golden, "grads/logps");
}

TEST(PreferenceLoss, KtoMatchesTheReference) {
  expect_golden_kto("sequence_kto.h5", {.beta = 0.1});
  expect_golden_kto("sequence_kto_weighted.h5",
                    {.beta = 0.3, .desirable_weight = 1.33, .undesirable_weight = 0.8});
}

TEST(PreferenceLoss, KtoBorrowsAnswersOfOtherPrompts) {
  using Sources = std::vector<std::int64_t>;
  const std::vector<std::int64_t> prompts = {5, 5, 7, 7, 7, 9};
  EXPECT_EQ(mismatched_records(prompts, KtoPairing::previous), (Sources{5, 0, 1, 2, 3, 4}));
  EXPECT_EQ(mismatched_records(prompts, KtoPairing::previous_other_prompt), (Sources{5, 5, 1, 1, 1, 4}));
  const std::vector<std::int64_t> same = {3, 3, 3};
  EXPECT_EQ(mismatched_records(same, KtoPairing::previous_other_prompt), (Sources{2, 0, 1}));
  EXPECT_TRUE(mismatched_records(std::span(same).first(1), KtoPairing::previous).empty());
}

void expect_golden_dro(const std::string& file, const DroLoss::Options& options) {
  SCOPED_TRACE(file);
  const Golden golden("alignment/" + file);
  const auto s = golden_numbers(golden, "inputs/logps"), q = golden_numbers(golden, "inputs/reference_logps"),
             n = golden_numbers(golden, "inputs/tokens"), r = golden_numbers(golden, "inputs/rewards"),
             v = golden_numbers(golden, "inputs/values");
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < s.size(); ++i)
    answers.push_back({.log_probability = s[i],
                       .reference = q[i],
                       .tokens = n.empty() ? 1 : n[i],
                       .reward = r[i],
                       .value = v.empty() ? 0 : v[i]});
  const DroLoss loss(options);
  if (loss.needs_whole_step()) loss.settle(answers);
  std::vector<double> slopes(answers.size()), values;
  const auto count = static_cast<double>(answers.size());
  expect_numbers({loss.evaluate(answers, slopes) / count}, golden, "outputs/loss");
  for (double& slope : slopes) slope /= count;
  expect_numbers(slopes, golden, "grads/logps");
  for (const Answer& y : answers) values.push_back(-loss.residual(y) / count);
  if (golden.has("grads/values")) expect_numbers(values, golden, "grads/values");
  if (!golden.has("outputs/regulariser")) return;
  for (const auto& [name, value] : loss.terms(answers))
    if (name == "regulariser") expect_numbers({value}, golden, "outputs/regulariser");
}

TEST(PreferenceLoss, DroMatchesTheReference) {
  using Variant = DroLoss::Variant;
  expect_golden_dro("sequence_dro.h5", {});
  expect_golden_dro("sequence_dro_tau.h5", {.tau = 0.5});
  expect_golden_dro("sequence_dro_plain.h5", {.tau = 0.5, .rescale_policy = false});
  expect_golden_dro("sequence_dro_normalised.h5", {.length_normalise = true});
  expect_golden_dro("sequence_dro_p.h5", {.tau = 0.5, .variant = Variant::batch});
}

TEST(PreferenceLoss, DroTakesTheOtherAnswersOfAPromptForItsValue) {
  std::vector<Answer> answers(4);
  const double rewards[] = {1, -3, 2, 8};
  for (std::size_t i = 0; i < 4; ++i) {
    answers[i].tokens = 1;
    answers[i].reward = rewards[i];
    answers[i].prompt = i < 3 ? 1 : 2;
  }
  const DroLoss loss({.variant = DroLoss::Variant::group});
  loss.settle(answers);
  EXPECT_DOUBLE_EQ(answers[0].value, -0.5);
  EXPECT_DOUBLE_EQ(answers[1].value, 1.5);
  EXPECT_DOUBLE_EQ(answers[2].value, -1);
  EXPECT_DOUBLE_EQ(answers[3].value, 2);  // alone with its prompt: the step's mean
}

/// A softmax policy over five prompts and seven answers each, whose expectation over the behaviour policy is
/// known exactly.
TEST(PreferenceLoss, DroOfATableHasTheKnownGradientAndOptimum) {
  const Golden golden("alignment/dro_tabular.h5");
  const std::size_t prompts = 5, answers = 7;
  const auto theta = golden_numbers(golden, "inputs/theta"),
             rewards = golden_numbers(golden, "inputs/rewards"),
             values = golden_numbers(golden, "inputs/values");
  // Probabilities of fp32 do not quite add up to 1.
  const auto normalised = [&](std::vector<double> probabilities) {
    for (std::size_t x = 0; x < prompts; ++x) {
      double total = 0;
      for (std::size_t y = 0; y < answers; ++y) total += probabilities[x * answers + y];
      for (std::size_t y = 0; y < answers; ++y) probabilities[x * answers + y] /= total;
    }
    return probabilities;
  };
  const auto reference = normalised(golden_numbers(golden, "inputs/reference")),
             mu = normalised(golden_numbers(golden, "inputs/behaviour"));
  const DroLoss objective({.tau = golden.number("config", "tau"), .rescale_policy = false});
  const auto run = [&](const auto& log_policy, const std::vector<double>& value, bool check) {
    double loss = 0;
    std::vector<double> dtheta(prompts * answers), dvalues(prompts);
    for (std::size_t x = 0; x < prompts; ++x) {
      std::vector<double> slope_of(answers);
      double slope_sum = 0;
      for (std::size_t y = 0; y < answers; ++y) {
        const std::size_t at = x * answers + y;
        const Answer answer{.log_probability = log_policy(x, y),
                            .reference = std::log(reference[at]),
                            .tokens = 1,
                            .reward = rewards[at],
                            .value = value[x]};
        double slope = 0;
        const double weight = mu[at] / static_cast<double>(prompts);
        loss += weight * objective.evaluate(std::span(&answer, 1), std::span(&slope, 1));
        slope_of[y] = weight * slope;
        slope_sum += slope_of[y];
        dvalues[x] -= weight * objective.residual(answer);
      }
      for (std::size_t y = 0; y < answers; ++y)  // ∂ log softmax
        dtheta[x * answers + y] = slope_of[y] - std::exp(log_policy(x, y)) * slope_sum;
    }
    if (!check) return loss;
    expect_numbers(dtheta, golden, "grads/theta");
    expect_numbers(dvalues, golden, "grads/values");
    return loss;
  };
  const auto softmax = [&](std::size_t x, std::size_t y) {
    double total = 0;
    for (std::size_t i = 0; i < answers; ++i) total += std::exp(theta[x * answers + i]);
    return theta[x * answers + y] - std::log(total);
  };
  expect_numbers({run(softmax, values, true)}, golden, "outputs/loss");
  const auto best = golden_numbers(golden, "outputs/optimal_log_policy");
  const auto optimal = [&](std::size_t x, std::size_t y) { return best[x * answers + y]; };
  EXPECT_NEAR(run(optimal, golden_numbers(golden, "outputs/optimal_values"), false), 0, 1e-12);
}

TEST(PreferenceLoss, SumsOfVeryLongAnswersStayFinite) {
  const std::vector<Answer> answers = {
      {.log_probability = -1e6, .reference = -9e5, .tokens = 1e5, .imitated_tokens = 1, .reward = 30},
      {.log_probability = -9e5, .reference = -1e6, .tokens = 1e5, .reward = -30}};
  const DpoLoss dpo({.beta = 1});
  const IpoLoss ipo({.beta = 1, .length_normalise = false});
  const SimpoLoss simpo({});
  const KtoLoss kto({.beta = 1});
  const DroLoss dro({});
  for (const PreferenceLoss* loss :
       std::initializer_list<const PreferenceLoss*>{&dpo, &ipo, &simpo, &kto, &dro}) {
    std::vector<double> slopes(2);
    EXPECT_TRUE(std::isfinite(loss->evaluate(answers, slopes)));
    for (const double slope : slopes) EXPECT_TRUE(std::isfinite(slope));
    for (const auto& [name, value] : loss->terms(answers)) EXPECT_TRUE(std::isfinite(value)) << name;
  }
}

}  // namespace
}  // namespace bireme::test
