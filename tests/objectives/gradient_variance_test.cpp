#include "objectives/preference/gradient_variance.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/tensor/random.h"
#include "tests/support/ranks.h"

namespace bireme::test {
namespace {

constexpr std::size_t kEntries = 3;

/// Answers with gradients that are given, and what each is weighted with.
struct Drawn {
  std::vector<std::array<float, kEntries>> gradients;
  std::vector<std::vector<double>> weightings;
};

/// Rewards of which a value explains half the variance, and gradients with a mean of their own.
Drawn draw(std::int64_t count, std::uint64_t seed) {
  RandomStream random(seed, 0, RandomUse::test);
  Drawn drawn{.gradients = {}, .weightings = std::vector<std::vector<double>>(2)};
  for (std::int64_t i = 0; i < count; ++i) {
    auto& gradient = drawn.gradients.emplace_back();
    for (float& x : gradient) x = static_cast<float>(0.3 + random.normal());
    const double value = random.normal(), rest = random.normal();
    drawn.weightings[0].push_back(rest);
    drawn.weightings[1].push_back(value + rest);
  }
  return drawn;
}

/// Every `size`-th answer, from `rank` on: the measurement of one rank.
GradientVariance measure(Communicator& world, const Drawn& drawn) {
  const Mesh mesh(world, 1);
  ParameterSet parameters;
  Parameter& weight = parameters.add({.name = "weight", .shape = {kEntries}});
  Parameter& unreached = parameters.add({.name = "unreached", .shape = {2}});
  parameters.build(*make_host_memory(), {});
  fill(unreached.gradient(), 1000);  // left there by the step
  std::vector<std::size_t> own;
  for (auto i = static_cast<std::size_t>(world.rank()); i < drawn.gradients.size();
       i += static_cast<std::size_t>(world.size()))
    own.push_back(i);
  std::vector<std::vector<double>> weightings;
  for (const auto& all : drawn.weightings) {
    auto& some = weightings.emplace_back();
    for (const std::size_t i : own) some.push_back(all[i]);
  }
  return measure_gradient_variance(parameters, mesh, weightings, [&](std::size_t i) {
    std::ranges::copy(drawn.gradients[own[i]], weight.gradient().data<float>());
  });
}

/// tr Cov of the weighted gradients and their mean, as the definition has it.
struct Moments {
  double trace = 0;
  std::array<double, kEntries> mean{};
};
Moments moments(const Drawn& drawn, std::size_t kind) {
  Moments found;
  const auto count = static_cast<double>(drawn.gradients.size());
  const auto entry = [&](std::size_t i, std::size_t c) {
    return drawn.weightings[kind][i] * drawn.gradients[i][c];
  };
  for (std::size_t c = 0; c < kEntries; ++c) {
    for (std::size_t i = 0; i < drawn.gradients.size(); ++i) found.mean[c] += entry(i, c) / count;
    for (std::size_t i = 0; i < drawn.gradients.size(); ++i)
      found.trace += (entry(i, c) - found.mean[c]) * (entry(i, c) - found.mean[c]) / count;
  }
  return found;
}

TEST(GradientVariance, IsThatOfTheDefinitionOnAnyNumberOfRanks) {
  const Drawn drawn = draw(60, 1);
  const Moments with = moments(drawn, 0), without = moments(drawn, 1);
  double apart = 0, length = 0;
  for (std::size_t c = 0; c < kEntries; ++c) {
    apart += (without.mean[c] - with.mean[c]) * (without.mean[c] - with.mean[c]);
    length += with.mean[c] * with.mean[c];
  }
  std::vector<double> errors(2);
  for (const int ranks : {1, 2})
    run_on_ranks(ranks, [&](Communicator& world) {
      const GradientVariance found = measure(world, drawn);
      EXPECT_NEAR(found.trace, with.trace, 1e-5 * with.trace) << "what no pass reaches is no part of it";
      EXPECT_NEAR(found.others[0].variance, without.trace / with.trace, 1e-5);
      EXPECT_NEAR(found.others[0].distance, std::sqrt(apart / length), 1e-5);
      if (world.rank() == 0) errors[static_cast<std::size_t>(ranks - 1)] = found.others[0].error;
    });
  EXPECT_NEAR(errors[0], errors[1], 1e-6);
}

TEST(GradientVariance, KnowsHowSureItsRatioIs) {
  // The spread of the ratio over many draws is what the error of one says.
  constexpr int draws = 400;
  const auto alone = make_single_process();
  std::vector<double> ratios;
  double told = 0;
  for (int i = 0; i < draws; ++i) {
    const GradientVariance found = measure(*alone, draw(200, 10 + static_cast<std::uint64_t>(i)));
    ratios.push_back(found.others[0].variance);
    told += found.others[0].error / draws;
  }
  double mean = 0, squares = 0;
  for (const double ratio : ratios) mean += ratio / draws;
  for (const double ratio : ratios) squares += (ratio - mean) * (ratio - mean) / draws;
  EXPECT_NEAR(mean, 2, 0.1) << "a value that explains half halves the variance";
  // The spread itself is known to 1/sqrt(2 · 400) = 3.5 %; the error is of first order in 1/200.
  EXPECT_NEAR(told / std::sqrt(squares), 1, 0.15);
}

}  // namespace
}  // namespace bireme::test
