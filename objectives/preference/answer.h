#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace bireme {

/// One answer y to a prompt x, as objectives see it. Sums of thousands of log-probabilities, and the
/// differences of two such sums, need more digits than fp32 has.
struct Answer {
  double log_probability = 0;  ///< s(y): sum over its scored tokens of log π(token | what precedes)
  double reference = 0;        ///< q(y): the same under the reference model, where there is one
  double tokens = 0;           ///< n(y): how many tokens are scored
  double imitated = 0;         ///< sum of log π over the tokens that a likelihood term imitates
  double imitated_tokens = 0;  ///< how many these are; 0: the answer is not imitated
  double reward = 0;           ///< r(x, y), normalised
  double value = 0;            ///< V(x)
  bool liked = false;          ///< the label of a single answer
  std::int64_t prompt = -1;    ///< answers to the same prompt have the same number

  double average() const { return log_probability / tokens; }       ///< a(y)
  double log_ratio() const { return log_probability - reference; }  ///< ρ(y)
};

using Terms = std::vector<std::pair<std::string, double>>;

/// -log σ(x), finite for any x.
inline double negative_log_sigmoid(double x) {
  return std::fmax(-x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
}
/// σ(x), without overflow on either side.
inline double sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

}  // namespace bireme
