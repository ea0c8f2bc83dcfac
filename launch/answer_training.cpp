#include "launch/answer_training.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "launch/language_task.h"
#include "launch/model_folder.h"
#include "models/registry.h"

namespace bireme {

namespace {

/// The records that a likelihood imitates, where these are not all of them.
std::shared_ptr<const std::vector<std::int64_t>> imitated_records(const Configuration& configuration,
                                                                  const AnswerDataset& dataset) {
  const auto& o = configuration.objective;
  if (o.type != "sft" || o.nll_answers == "all") return nullptr;
  if (dataset.kind() != AnswerKind::feedback)
    throw Error(
        ErrorKind::usage,
        fmt::format("the dataset holds {}, which are not liked or disliked one by one",
                    to_string(dataset.kind())),
        configuration.data.path,
        "make single answers with `bireme prepare feedback`, or set objective.nll_answers to \"all\"");
  auto liked = std::make_shared<std::vector<std::int64_t>>();
  for (std::int64_t i = 0; i < dataset.size(); ++i)
    if (dataset.label(i)) liked->push_back(i);
  if (std::ssize(*liked) < configuration.data.batch_size)
    throw Error(ErrorKind::usage,
                fmt::format("{} of {} answers are liked, fewer than one batch of {}", liked->size(),
                            dataset.size(), configuration.data.batch_size),
                configuration.data.path,
                "set objective.nll_answers to \"all\", or prepare answers that are liked");
  return liked;
}

}  // namespace

std::unique_ptr<AnswerTrainingData> AnswerTrainingData::open(const Configuration& configuration,
                                                             std::initializer_list<AnswerKind> accepted) {
  const auto& d = configuration.data;
  AnswerDataset dataset = AnswerDataset::open(d.path, accepted);
  const auto only = imitated_records(configuration, dataset);
  const Sampler sampler({.records = only ? std::ssize(*only) : dataset.size(),
                         .batch_size = d.batch_size,
                         .seed = static_cast<std::uint64_t>(configuration.run.seed),
                         .shuffled = d.order == "shuffled",
                         .only = only});
  const std::int64_t steps = configuration.run.epochs > 0
                                 ? configuration.run.epochs * sampler.iterations_per_epoch()
                                 : std::max<std::int64_t>(1, configuration.run.steps);
  auto data = std::make_unique<AnswerTrainingData>(AnswerTrainingData{
      .dataset = std::move(dataset), .validation = nullptr, .sampler = sampler, .steps = steps});
  if (configuration.run.evaluate_every <= 0 || d.validation.empty()) return data;
  data->validation = std::make_unique<AnswerDataset>(AnswerDataset::open(d.validation, {AnswerKind::pairs}));
  if (data->dataset.manifest().tokenizer_fingerprint != data->validation->manifest().tokenizer_fingerprint)
    throw Error(ErrorKind::data,
                "the validation pairs were made with another tokenizer than the training data", d.validation,
                "prepare both with the same --tokenizer");
  return data;
}

std::unique_ptr<PublishedLanguageModel> describe_answer_model(const Configuration& configuration,
                                                              const Mesh& mesh,
                                                              const AnswerDataset* dataset) {
  const auto& m = configuration.model;
  constexpr std::int64_t made_up = 4096;
  const std::int64_t tokens = dataset != nullptr ? dataset->manifest().vocabulary : made_up;
  std::unique_ptr<PublishedLanguageModel> model;
  if (!m.init.empty()) {
    const std::filesystem::path folder = resolve_model_folder(m.init, mesh.world());
    if (const std::string found(model_type_of(folder).name); found != m.type)
      throw Error(ErrorKind::usage,
                  fmt::format("model.type is \"{}\", but the folder holds a {}", m.type, found), m.init,
                  fmt::format("set model.type to \"{}\"", found));
    model = describe_language_model(folder, mesh.tensor());
  } else {
    LanguageModelSettings settings = language_model_settings(configuration, tokens);
    if (dataset != nullptr) {
      if (m.context == 0) settings.context = std::max<std::int64_t>(1, dataset->manifest().max_length);
      settings.begin_token = dataset->manifest().begin;
      settings.end_token = dataset->manifest().end;
    }
    model = make_language_model(settings, mesh.tensor());
  }
  if (dataset != nullptr && model->model().vocabulary() < tokens)
    throw Error(ErrorKind::usage,
                fmt::format("the model knows {} kinds of tokens, but the dataset has {}",
                            model->model().vocabulary(), tokens),
                configuration.data.path, "prepare the data with the tokenizer that the model was made with");
  return model;
}

std::vector<double> score_sums(const Context& context, const LanguageModel& model, std::int64_t count,
                               int answers, const ReadAnswers& read) {
  std::vector<double> sums;
  for (const auto& record : score_records(*context.backend, context.mesh->data(), model, count, answers, read,
                                          {.type = context.type}))
    for (const AnswerScore& answer : record) sums.push_back(answer.log_probability);
  return sums;
}

}  // namespace bireme
