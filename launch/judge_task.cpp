#include "launch/judge_task.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/data/loader.h"
#include "core/tensor/random.h"
#include "distributed/agreement.h"
#include "launch/checkpoint_files.h"
#include "launch/model_folder.h"
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
  if (data == TaskData::real) {
    data_ = AnswerTrainingData::open(configuration, {AnswerKind::pairs});
    steps_ = data_->steps;
    tokenizer_ = data_->dataset.tokenizer();
  }
  model_ = describe_answer_model(configuration, *context.mesh, data_ ? &data_->dataset : nullptr);
  ParameterSet& parameters = model_->model().parameters();
  const std::int64_t channels = model_->model().channels();
  // As reward models usually begin (Stiennon et al. 2020): scores of about one, whatever the width.
  head_ = &parameters.add({.name = kHead,
                           .shape = {1, channels},
                           .initial = {.law = Initializer::Law::normal,
                                       .value = 1 / std::sqrt(static_cast<double>(channels + 1))}});
  model_->build(context.backend->memory(),
                {.master = DType::f32, .gradients = true, .bf16_copy = context.type == DType::bf16});
  parameters.initialize(static_cast<std::uint64_t>(configuration.run.seed));
  if (!configuration.model.init.empty()) {
    const std::filesystem::path folder =
        resolve_model_folder(configuration.model.init, context.mesh->world());
    model_->import(folder);
    if (data == TaskData::real)
      base_ = run_on_first(context.mesh->world(), [&] { return hash_of_model(folder); });
  }
  // It predicts no tokens. A head that shares the embedding's weights stays in use as these.
  Parameter& head = model_->model().head().weight();
  if (head.name().find("head") != std::string::npos) head.set_trainable(false);
  parameters.refresh_bf16();
  objective_ = std::make_unique<JudgeObjective>(
      JudgeObjective::Options{.type = context.type, .recompute = configuration.precision.recompute},
      *context.mesh, model_->model(), *head_);
}

void JudgeTask::start(std::int64_t step) {
  const Communicator& data = context_.mesh->data();
  const int accumulate = static_cast<int>(configuration_.parallel.accumulate);
  require_divisible_batch(data_->sampler.batch_size(), accumulate, data.size());
  constexpr int ahead = 3;
  // No batch depends on ranks: the share does, and the order of the pairs in it is that of the global batch.
  batches_ = std::make_unique<ReadAhead<TokenBatch>>(
      [this, accumulate, rank = data.rank(), size = data.size(),
       memory = make_host_memory()](std::int64_t part) {
        const Sampler::Share share = data_->sampler.share_of_part(part, accumulate, rank, size);
        std::vector<AnswerRecord> pairs;
        pairs.reserve(share.records.size());
        for (const std::int64_t number : share.records) pairs.push_back(data_->dataset.read(number));
        TokenBatch batch = judge_batch(pairs, *memory);
        batch.epoch = share.epoch;
        batch.global_count = data_->sampler.batch_size();
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
      tokens.reserve(static_cast<std::size_t>(count));
      for (std::int64_t i = 0; i < count; ++i)
        tokens.push_back(static_cast<std::int32_t>(random.below(model_->model().vocabulary())));
      return tokens;
    };
    const std::int64_t length = std::max<std::int64_t>(4, configuration_.data.sequence_length);
    record.prompt = fill(length * 3 / 4);
    record.answers = {fill(length / 4), fill(length / 4)};
  }
  TokenBatch batch = judge_batch(records, context_.backend->memory().host());
  batch.global_count = configuration_.data.batch_size;
  return batch;
}

JudgeDescription JudgeTask::description() const {
  JudgeDescription description{.base = base_, .part = {}, .data = {}, .seed = configuration_.run.seed};
  if (!data_) return description;
  const AnswerManifest& manifest = data_->dataset.manifest();
  description.part = manifest.part;
  description.data = data_->dataset.fingerprint();
  description.end = manifest.end;
  description.chat_template = manifest.chat_template;
  description.max_length = manifest.max_length;
  return description;
}

CheckpointContent JudgeTask::model() const {
  CheckpointContent content = published_content(*model_, tokenizer_.get());
  content.files.push_back(
      {.name = JudgeDescription::kWeights, .tensors = {whole_parameter(kHead, *head_, head_->value())}});
  content.texts[JudgeDescription::kFile] = description().to_json();
  return content;
}

TrainingEvaluation JudgeTask::evaluate(bool /*is_first*/) {
  Communicator& data = context_.mesh->data();
  const std::int64_t count = data_->validation->size(), first = data.rank() * count / data.size(),
                     last = (data.rank() + 1) * count / data.size();
  Memory& host = context_.backend->memory().host();
  const Tensor weight = on_host(head_->value());
  // Each number comes from one rank, zeros from the others: the sum is exact.
  const Tensor scores(host, {count, 2}, DType::f64);
  std::fill_n(scores.data<double>(), scores.elements(), 0.0);
  constexpr std::int64_t block = 16;
  for (std::int64_t begin = first; begin < last; begin += block) {
    std::vector<AnswerRecord> pairs;
    for (std::int64_t i = begin; i < std::min(last, begin + block); ++i)
      pairs.push_back(data_->validation->read(i));
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
    const AnswerLengths lengths = data_->validation->lengths(i);
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
