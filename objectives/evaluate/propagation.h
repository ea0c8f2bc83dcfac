#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/rwkv.h"

namespace bireme {

/// How much of its sums each channel keeps from one token to the next, e^{-e^{time_decay}} in 0 … 1, largest
/// first: the curve of a layer in Peng et al. 2023, figure 6. The look-back of such a channel is
/// -1 / ln(decay) tokens.
std::vector<double> decay_curve(std::span<const double> time_decay);
/// The curves of all layers, of a model on one tensor rank; as it is, and as it was initialised.
std::vector<std::vector<double>> decay_curves(const Rwkv& model);
std::vector<std::vector<double>> initial_decay_curves(const RwkvOptions& options);

/// Where a fact passes on its way to the answer (causal tracing, Meng et al. 2022; for RWKV Peng et al. 2023,
/// figure 7): the subject's embeddings are spoilt by noise, and one vector of the residual stream at a time
/// is put back to what it was in the clean run.
struct PropagationInput {
  const Tensor& tokens;                             ///< [1, T] i32
  std::int64_t subject_begin = 0, subject_end = 0;  ///< tokens [begin, end) are the subject
  const Tensor& noise;                              ///< [draws, end - begin, D] fp32
  std::int32_t answer = -1;                         ///< token; -1: the clean run's most likely one
  DType type = DType::f32;                          ///< compute type
};

struct Propagation {
  std::int32_t answer = 0;
  double clean_probability = 0;      ///< of the answer after the last token
  double corrupted_probability = 0;  ///< with noise, mean over draws
  /// [L, T] fp64: the mean over draws with noise and the stream after block l put back at position t.
  Tensor probability;
};

/// Runs L·T·draws sequences in batches; for one tensor rank.
/// @throws Error (usage) when subject and noise do not fit the tokens
Propagation trace_propagation(const Backend& backend, const Rwkv& model, const PropagationInput& input);

/// Noise for the above: normal, with three times the deviation of all entries of the embedding.
Tensor propagation_noise(const Rwkv& model, std::int64_t draws, std::int64_t tokens, std::uint64_t seed);

}  // namespace bireme
