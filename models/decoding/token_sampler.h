#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bireme {

/// How the next token is chosen from logits z. In this order: repetition penalty, temperature, top-k, top-p,
/// min-p, then the draw.
struct SamplingOptions {
  double temperature = 1;         ///< z / temperature; 0: the largest logit, the smallest id of equals
  std::int64_t top_k = 0;         ///< keep the k largest, and what equals the smallest of them; 0: all
  double top_p = 1;               ///< drop the least likely, as many as have at most 1 - top_p together
  double min_p = 0;               ///< drop what is less likely than min_p times the likeliest
  double repetition_penalty = 1;  ///< of tokens seen: z / penalty for z > 0, else z · penalty (Keskar 2019)
  std::uint64_t seed = 0;

  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

/// A token that may be drawn.
struct Candidate {
  std::int32_t token = 0;
  double weight = 0;  ///< proportional to its probability
};

/// What the filters leave, by ascending id.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options);

/// The smallest id whose cumulative weight exceeds u times the total; u in [0, 1).
std::int32_t draw(std::span<const Candidate> candidates, double u);

/// The token of this sequence at this position. Random numbers are keyed by (seed, sequence, position): the
/// choice depends neither on the batch nor on ranks, nor on whether a drafter proposed it.
/// @param logits  [V], overwritten where a repetition penalty applies
/// @param seen    tokens that the penalty applies to
std::int32_t sample(std::span<float> logits, std::span<const std::int32_t> seen, std::int64_t sequence,
                    std::int64_t position, const SamplingOptions& options);

}  // namespace bireme
