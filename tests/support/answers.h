#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/data/answer_packing.h"
#include "tests/support/golden.h"

namespace bireme::test {

/// Records of a golden file whose rows are padded: PATH/chosen/… and PATH/rejected/… of pairs, or PATH/… of
/// single answers. Records with equal prompts have the same prompt_key.
std::vector<AnswerRecord> golden_records(const Golden& golden, const std::string& path);
/// Numbers of any type as doubles; none where the array is absent.
std::vector<double> golden_numbers(const Golden& golden, const std::string& path);

/// A share of a step as a batch: records [rank · N/size, …) of it.
struct BatchShare {
  PackingOptions packing;
  int rank = 0, size = 1;
};
AnswerBatch batch_of(const std::vector<AnswerRecord>& step, const BatchShare& share, Memory& memory);

/// Made-up pairs: prompts of about three times the length of an answer, some tokens of the alphabet.
std::vector<AnswerRecord> made_up_pairs(std::int64_t count, std::int64_t prompt, std::int64_t answer,
                                        std::int64_t vocabulary, std::uint64_t seed = 1);

}  // namespace bireme::test
