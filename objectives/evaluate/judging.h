#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "models/decoding/generator.h"
#include "objectives/evaluate/judge.h"
#include "objectives/evaluate/questions.h"
#include "objectives/evaluate/win_rate.h"

namespace bireme {

using JudgingProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// An answer that a model wrote.
struct SampledAnswer {
  TokenList tokens;             ///< without the one that ended it
  std::string text;             ///< of these
  bool ended_by_limit = false;  ///< it had not come to its end
};

/// The answer from its tokens.
SampledAnswer sampled_answer(const Tokenizer& tokenizer, TokenList tokens, bool ended_by_limit);

struct SampleAnswersOptions {
  std::int64_t max_tokens = 256;
  std::int64_t batch_size = 16;  ///< answers written side by side
  SamplingOptions sampling{};    ///< temperature 1 and the whole distribution, unless stated
  TokenList stop_tokens;
  DType type = DType::f32;
};

/// One answer to each question, spread over `ranks`; every rank gets all. Random numbers are keyed by (seed,
/// number of the question), not by the system, the batch or the rank: two systems that agree on the
/// probabilities write the same. Collective over `ranks`, and over the tensor ranks of the model.
std::vector<SampledAnswer> sample_answers(const Backend& backend, Communicator& ranks,
                                          const LanguageModel& model, const Tokenizer& tokenizer,
                                          const std::vector<Question>& questions,
                                          const SampleAnswersOptions& options,
                                          const JudgingProgress& progress = {});

/// Tokens of an answer on average, and the share that the limit ended.
struct AnswerLook {
  double mean_length = 0, ended_by_limit = 0;
};
AnswerLook look_of(const std::vector<SampledAnswer>& answers);

/// A judge's score of every answer of every text, in one list; spread over `ranks`, every rank gets all.
std::vector<double> judge_texts(Communicator& ranks, const Judge& judge, const std::vector<AnswerText>& texts,
                                const JudgingProgress& progress = {});

}  // namespace bireme
