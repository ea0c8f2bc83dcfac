#include "launch/language_task.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"
#include "core/tensor/random.h"
#include "launch/checkpoint_files.h"
#include "launch/model_folder.h"
#include "objectives/evaluate/perplexity.h"

namespace bireme {

LanguageModelSettings language_model_settings(const Configuration& configuration, std::int64_t vocabulary) {
  const auto& m = configuration.model;
  return {.type = m.type,
          .vocabulary = m.vocabulary_size > 0 ? m.vocabulary_size : vocabulary,
          .channels = m.embed_dim,
          .layers = static_cast<int>(m.depth),
          .heads = static_cast<int>(m.heads),
          .kv_heads = static_cast<int>(m.kv_heads),
          .head_dim = m.head_dim,
          .hidden = m.hidden_dim,
          .attention_channels = m.attention_dim,
          .context = m.context > 0 ? m.context : configuration.data.sequence_length,
          .rope_theta = m.rope_theta,
          .tie_embeddings = m.tie_embeddings,
          .variant = m.variant,
          .pattern = m.pattern,
          .memory = m.memory};
}

LanguageTask::LanguageTask(const Configuration& configuration, const Context& context, TaskData data)
    : configuration_(configuration),
      context_(context),
      steps_(std::max<std::int64_t>(1, configuration.run.steps)) {
  if (data == TaskData::real) open_data();
  model_ = make_language_model(settings(), context.mesh->tensor());
  model_->build(context.backend->memory(),
                {.master = DType::f32, .gradients = true, .bf16_copy = context.type == DType::bf16});
  initialize();
  objective_ = std::make_unique<LanguageModelObjective>(
      LanguageModelObjective::Options{.type = context.type,
                                      .recompute = configuration.precision.recompute,
                                      .step_tokens = units_per_step(),
                                      .z_loss = configuration.objective.z_loss,
                                      .l2_wrap = configuration.objective.l2_wrap},
      *context.mesh, model_->model());
}

void LanguageTask::open_data() {
  const auto& d = configuration_.data;
  dataset_ = std::make_unique<TokenDataset>(TokenDataset::open(d.path));
  tokenizer_ = dataset_->tokenizer();
  require_whole_sequences(dataset_->manifest(), d.sequence_length, "data.sequence_length");
  sampler_ =
      std::make_unique<Sampler>(SamplerOptions{.records = count_windows(dataset_->tokens(), windows()),
                                               .batch_size = d.batch_size,
                                               .seed = static_cast<std::uint64_t>(configuration_.run.seed),
                                               .shuffled = d.order == "shuffled"});
  if (configuration_.run.epochs > 0) steps_ = configuration_.run.epochs * sampler_->iterations_per_epoch();
  if (configuration_.run.evaluate_every <= 0 || d.validation.empty()) return;
  validation_ = std::make_unique<TokenDataset>(TokenDataset::open(d.validation));
  const TokenManifest& ours = dataset_->manifest();
  const TokenManifest& theirs = validation_->manifest();
  if (ours.tokenizer_fingerprint != theirs.tokenizer_fingerprint)
    throw Error(ErrorKind::data, "the validation text was made with another tokenizer than the training text",
                d.validation, "prepare both with the same --tokenizer");
}

TokenWindows LanguageTask::windows() const {
  return {.length = configuration_.data.sequence_length,
          .documents_apart = configuration_.data.documents_apart};
}

std::int64_t LanguageTask::units_per_step() const {
  return configuration_.data.batch_size * configuration_.data.sequence_length;
}

LanguageModelSettings LanguageTask::settings() const {
  const auto& m = configuration_.model;
  constexpr std::int64_t made_up = 256;  // bytes
  const std::int64_t tokens = dataset_ ? dataset_->manifest().vocabulary : made_up;
  if (m.vocabulary_size > 0 && m.vocabulary_size < tokens)
    throw Error(ErrorKind::usage,
                fmt::format("model.vocabulary_size is {}, but the text has {} kinds of tokens",
                            m.vocabulary_size, tokens),
                configuration_.data.path, "set it to 0, which takes the tokenizer's number, or higher");
  LanguageModelSettings settings = language_model_settings(configuration_, tokens);
  if (tokenizer_) settings.begin_token = tokenizer_->special().begin;
  if (dataset_) settings.end_token = dataset_->manifest().document_end;
  return settings;
}

void LanguageTask::initialize() {
  ParameterSet& parameters = model_->model().parameters();
  parameters.initialize(static_cast<std::uint64_t>(configuration_.run.seed));
  if (configuration_.model.init.empty()) return;
  model_->import(resolve_model_folder(configuration_.model.init, context_.mesh->world()));
  parameters.refresh_bf16();
}

void LanguageTask::start(std::int64_t step) {
  const Communicator& data = context_.mesh->data();
  loader_ = std::make_unique<TokenLoader>(
      TokenLoaderOptions{.windows = windows(),
                         .start_step = step,
                         .accumulate = static_cast<int>(configuration_.parallel.accumulate),
                         .data_rank = data.rank(),
                         .data_size = data.size()},
      *sampler_, *dataset_, make_host_memory());
}

Batch LanguageTask::made_up_batch() const {
  const Communicator& data = context_.mesh->data();
  const std::int64_t sequences =
      configuration_.data.batch_size / configuration_.parallel.accumulate / data.size();
  const Shape shape{sequences, configuration_.data.sequence_length};
  Memory& memory = context_.backend->memory().host();
  TokenBatch batch{.records = {},
                   .epoch = 0,
                   .global_count = configuration_.data.batch_size,
                   .tokens = Tensor(memory, shape, DType::i32),
                   .targets = Tensor(memory, shape, DType::i32),
                   .starts = {}};
  for (std::int64_t i = 0; i < sequences; ++i) batch.records.push_back(data.rank() * sequences + i);
  RandomStream random(0, static_cast<std::uint64_t>(data.rank()), RandomUse::test);
  for (const Tensor& tensor : {batch.tokens, batch.targets})
    for (std::int32_t& token : tensor.values<std::int32_t>())
      token = static_cast<std::int32_t>(random.below(model_->model().vocabulary()));
  return batch;
}

CheckpointContent LanguageTask::model() const { return published_content(*model_, tokenizer_.get()); }

TrainingEvaluation LanguageTask::evaluate(bool /*is_first*/) {
  const std::int64_t length = configuration_.data.sequence_length;
  const Perplexity found =
      evaluate_perplexity(*context_.backend, context_.mesh->data(), model_->model(), *validation_,
                          {.length = length,
                           .stride = length,
                           .windows = configuration_.data.validation_sequences,
                           .documents_apart = configuration_.data.documents_apart,
                           .type = context_.type});
  return {.numbers = {{"validation_loss", found.log_loss},
                      {"validation_perplexity", found.value()},
                      {"validation_accuracy", found.accuracy}},
          .message = fmt::format("validation loss {:.4f}, perplexity {:.3f}, accuracy {:.4f}", found.log_loss,
                                 found.value(), found.accuracy)};
}

}  // namespace bireme
