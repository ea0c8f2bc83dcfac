#include "models/decoding/token_sampler.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/base/error.h"
#include "core/tensor/random.h"

namespace bireme {

namespace {

/// The k-th largest logit.
float kth_largest(std::span<const float> logits, std::int64_t k) {
  std::vector<float> sorted(logits.begin(), logits.end());
  const auto kth = sorted.begin() + (k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  return *kth;
}

double total(std::span<const Candidate> list) {
  double sum = 0;
  for (const Candidate& c : list) sum += c.weight;
  return sum;
}

/// Drops the least likely, in ascending order and with the smaller id first among equals, as long as what is
/// dropped has at most 1 - top_p of the mass. One stays.
void keep_top_p(std::vector<Candidate>& list, double top_p) {
  std::vector<Candidate> ascending = list;
  std::sort(ascending.begin(), ascending.end(), [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.token < b.token;
  });
  const double limit = (1 - top_p) * total(list);
  std::unordered_set<std::int32_t> dropped;
  double mass = 0;
  for (std::size_t i = 0; i + 1 < ascending.size(); ++i) {
    mass += ascending[i].weight;
    if (mass > limit) break;
    dropped.insert(ascending[i].token);
  }
  std::erase_if(list, [&](const Candidate& c) { return dropped.contains(c.token); });
}

void penalize(std::span<float> logits, std::span<const std::int32_t> seen, double penalty) {
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t token : std::unordered_set<std::int32_t>(seen.begin(), seen.end())) {
    float& z = logits[static_cast<std::size_t>(token)];
    z = z > 0 ? z / factor : z * factor;
  }
}

}  // namespace

void SamplingOptions::validate() const {
  const auto require = [](bool holds, const char* name, double value, const char* remedy) {
    if (!holds) throw Error(ErrorKind::usage, fmt::format("{} is {}", name, value), "sampling", remedy);
  };
  require(temperature >= 0 && std::isfinite(temperature), "temperature", temperature,
          "choose 0 (always the likeliest token) or more");
  require(top_k >= 0, "top-k", static_cast<double>(top_k), "choose 0 (all tokens) or more");
  require(top_p > 0 && top_p <= 1, "top-p", top_p, "choose a number above 0, up to 1");
  require(min_p >= 0 && min_p <= 1, "min-p", min_p, "choose a number from 0 to 1");
  require(repetition_penalty > 0 && std::isfinite(repetition_penalty), "repetition penalty",
          repetition_penalty, "choose a number above 0; 1 is none");
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options) {
  const auto size = static_cast<std::int64_t>(logits.size());
  const float largest = *std::max_element(logits.begin(), logits.end());
  const float lowest = options.top_k > 0 && options.top_k < size ? kth_largest(logits, options.top_k)
                                                                 : -std::numeric_limits<float>::infinity();
  std::vector<Candidate> list;
  for (std::int64_t i = 0; i < size; ++i) {
    const float z = logits[static_cast<std::size_t>(i)];
    if (z < lowest) continue;
    list.push_back(
        {static_cast<std::int32_t>(i), std::exp((double{z} - double{largest}) / options.temperature)});
  }
  if (options.top_p < 1) keep_top_p(list, options.top_p);
  // The likeliest has the weight 1.
  if (options.min_p > 0) std::erase_if(list, [&](const Candidate& c) { return c.weight < options.min_p; });
  return list;
}

std::int32_t draw(std::span<const Candidate> candidates, double u) {
  const double target = u * total(candidates);
  double sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.weight;
    if (sum > target) return c.token;
  }
  return candidates.back().token;
}

std::int32_t sample(std::span<float> logits, std::span<const std::int32_t> seen, std::int64_t sequence,
                    std::int64_t position, const SamplingOptions& options) {
  if (options.repetition_penalty != 1) penalize(logits, seen, options.repetition_penalty);
  if (options.temperature == 0)
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  RandomStream random(options.seed, static_cast<std::uint64_t>(sequence), RandomUse::sampling,
                      static_cast<std::uint64_t>(position));
  return draw(candidates(logits, options), random.uniform());
}

}  // namespace bireme
