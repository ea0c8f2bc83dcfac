#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace bireme {

/// Tasks that tell the memories of language models apart.
enum class SyntheticTask {
  /// Is the number of ones even? Bits are tokens 1 and 2, drawn evenly; the answer, 1 + (count of 2s mod 2),
  /// follows the last bit, then padding of 0 up to the length. Nothing says which bit is the last, so the
  /// parity of all bits so far has to be carried along: state tracking.
  parity,
  /// Multi-query associative recall (Arora et al. 2023): pairs of a key and its value, k₁ v₁ … k_N v_N with
  /// distinct keys, and later each key once more, in random order at random places, where its value has to be
  /// predicted. All other places hold random values. Keys are 1 … V/2 - 1, values V/2 … V - 1.
  recall
};

struct SyntheticOptions {
  SyntheticTask task = SyntheticTask::parity;
  std::int64_t length = 40;      ///< T, tokens of a sequence with its answers and padding
  std::int64_t shortest = 3;     ///< parity: tokens of the shortest before padding, drawn evenly up to T
  std::int64_t pairs = 8;        ///< recall: N
  std::int64_t vocabulary = 64;  ///< recall: V
  std::uint64_t seed = 0;

  /// Ids are below it.
  std::int64_t token_kinds() const { return task == SyntheticTask::parity ? 3 : vocabulary; }
  /// @throws Error (usage)
  void validate() const;
};

struct SyntheticSequence {
  std::vector<std::int32_t> tokens;   ///< [T]
  std::vector<std::uint8_t> targets;  ///< [T]: 1 for answers
};

/// Sequence `number` of the endless row that a seed stands for. The options must be valid.
SyntheticSequence make_sequence(const SyntheticOptions& options, std::int64_t number);

struct PrepareSyntheticOptions {
  SyntheticOptions synthetic;
  std::int64_t sequences = 0;
  std::filesystem::path output = {};
  std::string split = "train";
  std::int64_t shard_size = 1 << 24;  ///< tokens of a shard
  bool replace = false;               ///< a dataset that stands at `output` makes way
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};  ///< sequences
};

/// Writes a dataset of tokens with one such sequence in each document, and its answers as the only targets.
/// @throws Error (usage) as the options' validate(), or for an output in use, (checkpoint) for a full disk
void prepare_synthetic(const PrepareSyntheticOptions& options);

}  // namespace bireme
