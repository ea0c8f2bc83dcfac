#include "launch/judge_task.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/data/loader.h"
#include "core/tensor/random.h"
#include "launch/checkpoint_files.h"
#include "launch/language_task.h"
#include "launch/model_folder.h"
#include "models/registry.h"
#include "objectives/evaluate/win_rate.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace {

constexpr const char* kHead = "score.weight";

}  // namespace

JudgeTask::JudgeTask(const Configuration& configuration, const Context& context, TaskData data)
    : configuration_(configuration),
      context_(context),
      steps_(std::max<std::int64_t>(1, configuration.run.steps)) {
  if (data == TaskData::real) open_data();
  model_ = make_model();
  ParameterSet& parameters = model_->model().parameters();
  const std::int64_t channels = model_->model().channels();
  // As reward models usually begin (Stiennon et al. 2020): scores of about one, whatever the width.
  head_ = &parameters.add({.name = kHead,
                           .shape = {1, channels},
                           .initial = {.law = Initializer::Law::normal,
                                       .value = 1 / std::sqrt(static_cast<double>(channels + 1))},
                           .partition = {}});
  model_->build(context.backend->memory(),
                {.master = DType::f32, .gradients = true, .bf16_copy = context.type == DType::bf16});
  parameters.initialize(static_cast<std::uint64_t>(configuration.run.seed));
  if (!configuration.model.init.empty()) {
    const std::filesystem::path folder = resolve_model_folder(configuration.model.init);
    model_->import(folder);
    if (data == TaskData::real) base_ = hash_of_model(folder);
  }
  // It predicts no tokens. A head that shares the embedding's weights stays in use as these.
  Parameter& head = model_->model().head().weight();
  if (head.name().find("head") != std::string::npos) head.set_trainable(false);
  parameters.refresh_bf16();
  objective_ = std::make_unique<JudgeObjective>(
      JudgeObjective::Options{.type = context.type, .recompute = configuration.precision.recompute},
      *context.mesh, model_->model(), *head_);
}

void JudgeTask::open_data() {
  const auto& d = configuration_.data;
  dataset_ = AnswerDataset::open(d.path, {AnswerKind::pairs});
  tokenizer_ = dataset_->tokenizer();
  sampler_.emplace(SamplerOptions{.records = dataset_->size(),
                                  .batch_size = d.batch_size,
                                  .seed = static_cast<std::uint64_t>(configuration_.run.seed),
                                  .shuffled = d.order == "shuffled"});
  if (configuration_.run.epochs > 0) steps_ = configuration_.run.epochs * sampler_->iterations_per_epoch();
  if (configuration_.run.evaluate_every <= 0 || d.validation.empty()) return;
  validation_ = AnswerDataset::open(d.validation, {AnswerKind::pairs});
  if (dataset_->manifest().tokenizer_fingerprint != validation_->manifest().tokenizer_fingerprint)
    throw Error(ErrorKind::data,
                "the validation pairs were made with another tokenizer than the training data", d.validation,
                "prepare both with the same --tokenizer");
}

std::unique_ptr<PublishedLanguageModel> JudgeTask::make_model() const {
  const auto& m = configuration_.model;
  constexpr std::int64_t made_up = 4096;
  const std::int64_t tokens = dataset_ ? dataset_->manifest().vocabulary : made_up;
  std::unique_ptr<PublishedLanguageModel> model;
  if (!m.init.empty()) {
    const std::filesystem::path folder = resolve_model_folder(m.init);
    if (const std::string found(model_type_of(folder).name); found != m.type)
      throw Error(ErrorKind::usage,
                  fmt::format("model.type is \"{}\", but the folder holds a {}", m.type, found), m.init,
                  fmt::format("set model.type to \"{}\"", found));
    model = describe_language_model(folder, context_.mesh->tensor());
  } else {
    LanguageModelSettings settings = language_model_settings(configuration_, tokens);
    if (dataset_) {
      if (m.context == 0) settings.context = dataset_->manifest().max_length;
      settings.begin_token = dataset_->manifest().begin;
      settings.end_token = dataset_->manifest().end;
    }
    model = make_language_model(settings, context_.mesh->tensor());
  }
  if (dataset_ && model->model().vocabulary() < tokens)
    throw Error(ErrorKind::usage,
                fmt::format("the model knows {} kinds of tokens, but the dataset has {}",
                            model->model().vocabulary(), tokens),
                configuration_.data.path, "prepare the data with the tokenizer that the model was made with");
  return model;
}

void JudgeTask::start(std::int64_t step) {
  const Communicator& data = context_.mesh->data();
  const int accumulate = static_cast<int>(configuration_.parallel.accumulate);
  require_divisible_batch(sampler_->batch_size(), accumulate, data.size());
  constexpr int ahead = 3;
  // No batch depends on ranks: the share does, and the order of the pairs in it is that of the global batch.
  batches_ = std::make_unique<ReadAhead<TokenBatch>>(
      [this, accumulate, rank = data.rank(), size = data.size(),
       memory = make_host_memory()](std::int64_t part) {
        const Sampler::Share share = sampler_->share_of_part(part, accumulate, rank, size);
        std::vector<AnswerRecord> pairs;
        for (const std::int64_t number : share.records) pairs.push_back(dataset_->read(number));
        TokenBatch batch = judge_batch(pairs, *memory);
        batch.epoch = share.epoch;
        batch.global_count = sampler_->batch_size();
        return batch;
      },
      step * accumulate, ahead);
}

Batch JudgeTask::made_up_batch() const {
  const Communicator& data = context_.mesh->data();
  const std::int64_t pairs =
      configuration_.data.batch_size / configuration_.parallel.accumulate / data.size();
  RandomStream random(0, static_cast<std::uint64_t>(data.rank()), RandomUse::test);
  std::vector<AnswerRecord> records(static_cast<std::size_t>(pairs));
  for (AnswerRecord& record : records) {
    const auto fill = [&](std::int64_t count) {
      std::vector<std::int32_t> tokens;
      for (std::int64_t i = 0; i < count; ++i)
        tokens.push_back(static_cast<std::int32_t>(random.below(model_->model().vocabulary())));
      return tokens;
    };
    const std::int64_t length = std::max<std::int64_t>(4, configuration_.data.sequence_length);
    record.prompt = fill(length * 3 / 4);
    record.answers = {fill(length / 4), fill(length / 4)};
  }
  TokenBatch batch = judge_batch(records, context_.backend->memory());
  batch.global_count = configuration_.data.batch_size;
  return batch;
}

JudgeDescription JudgeTask::description() const {
  JudgeDescription description{.base = base_, .part = {}, .data = {}, .seed = configuration_.run.seed};
  if (!dataset_) return description;
  const AnswerManifest& manifest = dataset_->manifest();
  description.part = manifest.part;
  description.data = dataset_->fingerprint();
  description.end = manifest.end;
  description.chat_template = manifest.chat_template;
  description.max_length = manifest.max_length;
  return description;
}

CheckpointContent JudgeTask::model() const {
  CheckpointContent content;
  content.files = {
      published_file("model.safetensors", model_->tensors(), model_->model().parameters()),
      {.name = JudgeDescription::kWeights, .tensors = {whole_parameter(kHead, *head_, head_->value())}}};
  for (const Document& document : model_->documents(DType::f32)) content.texts[document.name] = document.text;
  if (tokenizer_)
    for (const TokenizerFile& file : tokenizer_->files()) content.texts[file.name] = file.bytes;
  content.texts[JudgeDescription::kFile] = description().to_json();
  return content;
}

TrainingEvaluation JudgeTask::evaluate(bool /*is_first*/) {
  Communicator& data = context_.mesh->data();
  const std::int64_t count = validation_->size(), first = data.rank() * count / data.size(),
                     last = (data.rank() + 1) * count / data.size();
  const std::shared_ptr<Memory> host = make_host_memory();
  const Tensor weight = clone(*host, head_->value());
  // Each number comes from one rank, zeros from the others: the sum is exact.
  const Tensor scores(*host, {count, 2}, DType::f64);
  std::fill_n(scores.data<double>(), scores.elements(), 0.0);
  constexpr std::int64_t block = 16;
  for (std::int64_t begin = first; begin < last; begin += block) {
    std::vector<AnswerRecord> pairs;
    for (std::int64_t i = begin; i < std::min(last, begin + block); ++i)
      pairs.push_back(validation_->read(i));
    double* into = scores.data<double>() + 2 * begin;
    for (const std::vector<double>& pair :
         judge_records(*context_.backend, model_->model(), weight.values<float>(), pairs, context_.type))
      into = std::ranges::copy(pair, into).out;
    data.beat();
  }
  data.all_reduce(scores, Reduce::sum).wait();
  std::vector<JudgedPair> judged;
  std::vector<double> chosen, rejected;
  for (std::int64_t i = 0; i < count; ++i) {
    const AnswerLengths lengths = validation_->lengths(i);
    chosen.push_back(scores.data<double>()[2 * i]);
    rejected.push_back(scores.data<double>()[2 * i + 1]);
    judged.push_back({.chosen = chosen.back(),
                      .rejected = rejected.back(),
                      .chosen_length = lengths.answers[0],
                      .rejected_length = lengths.answers[1]});
  }
  const JudgeCheck check = check_judge(judged);
  const double loss = bradley_terry(chosen, rejected, 0).loss;
  return {
      .numbers = {{"validation_loss", loss},
                  {"validation_accuracy", check.accuracy},
                  {"validation_accuracy_shorter", check.shorter_accuracy}},
      .message = fmt::format("validation loss {:.4f}, accuracy {:.1f} % [{:.1f}, {:.1f}], {:.1f} % where the "
                             "chosen answer is shorter",
                             loss, 100 * check.accuracy, 100 * check.interval.low, 100 * check.interval.high,
                             100 * check.shorter_accuracy)};
}

}  // namespace bireme
