#pragma once

#include <initializer_list>
#include <memory>

#include "core/data/answer_dataset.h"
#include "core/data/sampler.h"
#include "launch/job.h"
#include "models/published/language_model.h"
#include "objectives/answer_scores.h"

namespace bireme {

/// What trainings on prompts with answers read.
struct AnswerTrainingData {
  AnswerDataset dataset;
  std::unique_ptr<AnswerDataset> validation;  ///< held-out pairs; null where the run does not evaluate
  Sampler sampler;
  std::int64_t steps = 0;  ///< of the whole run

  /// @throws Error (data, usage) for a dataset of another kind, and for held-out pairs of another tokenizer
  static std::unique_ptr<AnswerTrainingData> open(const Configuration& configuration,
                                                  std::initializer_list<AnswerKind> accepted);
};

/// A model of model.init's kind and sizes, or of the configuration's, that knows the dataset's tokens; not
/// built. Collective.
/// @param dataset  null for made-up data
/// @throws Error (usage) where model.init is of another type, or knows fewer tokens
std::unique_ptr<PublishedLanguageModel> describe_answer_model(const Configuration& configuration,
                                                              const Mesh& mesh, const AnswerDataset* dataset);

/// Log-probabilities of every answer of `count` records under a model, by record and answer; each data rank
/// computes its share, all get the whole. Collective.
std::vector<double> score_sums(const Context& context, const LanguageModel& model, std::int64_t count,
                               int answers, const ReadAnswers& read);

}  // namespace bireme
