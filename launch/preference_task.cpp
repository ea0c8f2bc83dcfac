#include "launch/preference_task.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/tensor/random.h"
#include "distributed/agreement.h"
#include "launch/checkpoint_files.h"
#include "launch/model_folder.h"
#include "launch/preference_options.h"
#include "objectives/preference/kto.h"
#include "objectives/preference/orpo.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace {

ParameterSet::BuildOptions build_options(const Context& context, bool gradients) {
  return {.master = DType::f32, .gradients = gradients, .bf16_copy = context.type == DType::bf16};
}

std::vector<double> score_dataset(const Context& context, const LanguageModel& model,
                                  const AnswerDataset& dataset) {
  return score_sums(context, model, dataset.size(), dataset.manifest().answers(),
                    [&](std::int64_t i) { return dataset.read(i); });
}

const char* unit_of(const Configuration& configuration) {
  return reads_pairs(configuration) ? "pairs" : "answers";
}

}  // namespace

PreferenceTask::PreferenceTask(const Configuration& configuration, const Context& context, TaskData data)
    : configuration_(configuration),
      context_(context),
      steps_(std::max<std::int64_t>(1, configuration.run.steps)),
      unit_(unit_of(configuration)) {
  if (data == TaskData::real) open_data();
  model_ = make_model();
  make_value_function();
  model_->build(context.backend->memory(), build_options(context, true));
  initialize(*model_);
  if (value_model_) {
    value_model_->build(context.backend->memory(), build_options(context, true));
    initialize(*value_model_);
    // It predicts no tokens. A head that shares the embedding's weights stays in use as these.
    Parameter& head = value_model_->model().head().weight();
    if (head.name().find("head") != std::string::npos) head.set_trainable(false);
  }
  if (constant_) {
    constant_->build(context.backend->memory(), {});
    constant_->initialize(0);
  }
  make_objective();
  if (data == TaskData::real) compute_references();
}

void PreferenceTask::open_data() {
  const auto& o = configuration_.objective;
  if (o.type == "sft") {
    data_ =
        AnswerTrainingData::open(configuration_, {AnswerKind::sft, AnswerKind::pairs, AnswerKind::feedback});
  } else {
    data_ = AnswerTrainingData::open(
        configuration_, {reads_pairs(configuration_) ? AnswerKind::pairs : AnswerKind::feedback});
  }
  steps_ = data_->steps;
  tokenizer_ = data_->dataset.tokenizer();
  scores_ = data_->dataset.score_statistics();
  if (o.type == "dro" && o.reward_normalise == "standard" && scores_.deviation == 0)
    throw Error(ErrorKind::data, "all scores are equal: there is nothing to learn from them",
                configuration_.data.path,
                "prepare answers with different scores, or set objective.reward_normalise to \"none\"");
}

std::unique_ptr<PublishedLanguageModel> PreferenceTask::make_model() const {
  return describe_answer_model(configuration_, *context_.mesh, data_ ? &data_->dataset : nullptr);
}

void PreferenceTask::initialize(PublishedLanguageModel& model) const {
  ParameterSet& parameters = model.model().parameters();
  parameters.initialize(static_cast<std::uint64_t>(configuration_.run.seed));
  if (!configuration_.model.init.empty())
    model.import(resolve_model_folder(configuration_.model.init, context_.mesh->world()));
  parameters.refresh_bf16();
}

void PreferenceTask::make_value_function() {
  if (!has_value_function(configuration_)) return;
  const auto& o = configuration_.objective;
  const double rate =
      o.value_learning_rate > 0 ? o.value_learning_rate / configuration_.optimizer.learning_rate : 2;
  const std::int64_t channels = model_->model().channels();
  if (o.value == "shared") {
    value_head_ = ValueHead::add(model_->model().parameters(), "value.head", channels, rate);
  } else if (o.value == "separate") {
    value_model_ = make_model();
    value_head_ = ValueHead::add(value_model_->model().parameters(), "value.head", channels);
  } else {
    constant_ = std::make_unique<ParameterSet>();
    value_head_ = ValueHead::add(*constant_, "value.head", 0);
  }
}

void PreferenceTask::make_objective() {
  const auto& o = configuration_.objective;
  PreferenceObjective::Networks networks;
  PreferenceObjective::Options options{.type = context_.type,
                                       .recompute = configuration_.precision.recompute,
                                       .imitates_by_record = o.nll_reduction == "sequence",
                                       .diagnostics_every = o.diagnostics_every,
                                       .variance_every = o.type == "dro" && data_ ? o.variance_every : 0,
                                       .value_warmup_steps = o.value_warmup_steps};
  if (data_) options.answers_after = [this](std::int64_t step) { return answers_after(step); };
  if (has_value_function(configuration_)) {
    using Kind = ValueFunction::Kind;
    networks.value = std::make_unique<ValueFunction>(
        o.value == "separate" ? Kind::separate
        : o.value == "shared" ? Kind::shared
                              : Kind::constant,
        value_head_, value_model_ ? &value_model_->model() : nullptr, o.value_detach);
    if (value_model_) networks.value_parameters = &value_model_->model().parameters();
    if (constant_) networks.value_parameters = constant_.get();
    options.companion_rate =
        o.value_learning_rate > 0 ? o.value_learning_rate / configuration_.optimizer.learning_rate : 2;
  }
  // Which answers a step borrows is known when it comes: their reference is computed then.
  if (o.type == "kto" && o.kl_pairing.starts_with("previous")) {
    if (o.reference.empty()) {
      reference_ = make_model();
      reference_->build(context_.backend->memory(), build_options(context_, false));
      initialize(*reference_);
    } else {
      reference_ = open_language_model(resolve_model_folder(o.reference, context_.mesh->world()),
                                       context_.backend->memory(), context_.mesh->tensor(),
                                       build_options(context_, false));
    }
    networks.reference = &reference_->model();
  }
  objective_ = std::make_unique<PreferenceObjective>(
      options, *context_.mesh, model_->model(), make_preference_loss(configuration_), std::move(networks));
}

void PreferenceTask::compute_references() {
  const auto& o = configuration_.objective;
  if (PreferenceEvaluation::is_wanted(configuration_, *data_))
    evaluation_ = std::make_unique<PreferenceEvaluation>(configuration_, context_, *data_, *model_,
                                                         reference(), objective_->loss());
  if (!objective_->loss().needs_reference()) return;
  const bool borrows = o.type == "kto" && o.kl_pairing == "dataset";
  const std::string folder = o.reference.empty() ? configuration_.model.init : o.reference;
  if (folder.empty()) {  // random weights, of this run alone
    references_ = score_dataset(context_, model_->model(), data_->dataset);
    if (borrows)
      mismatched_references_ =
          score_sums(context_, model_->model(), data_->dataset.size(), 1,
                     [this](std::int64_t i) { return read_mismatched(data_->dataset, i); });
    return;
  }
  read_references(resolve_model_folder(folder, context_.mesh->world()), borrows);
}

const LanguageModel& PreferenceTask::reference() {
  const std::string& folder = configuration_.objective.reference;
  if (folder.empty()) return model_->model();
  if (reference_) return reference_->model();
  if (!opened_reference_)
    opened_reference_ =
        open_language_model(resolve_model_folder(folder, context_.mesh->world()), context_.backend->memory(),
                            context_.mesh->tensor(), build_options(context_, false));
  return opened_reference_->model();
}

void PreferenceTask::enter(const std::filesystem::path& run) {
  if (evaluation_) evaluation_->begin(run, [this]() -> const LanguageModel& { return reference(); });
  opened_reference_.reset();
}

void PreferenceTask::read_references(const std::filesystem::path& folder, bool borrows) {
  Communicator& world = context_.mesh->world();
  // One rank reads the weights for the hash, once: that is slower than the disk.
  const std::string hash = run_on_first(world, [&] {
    const auto known = evaluation_ ? evaluation_->reference_hash() : std::nullopt;
    return known ? *known : hash_of_model(folder);
  });
  const auto score = [&](std::span<const AnswerRecord> records) {
    return score_answers(*context_.backend, reference(), records, {.type = context_.type});
  };
  const ReferenceCache cache =
      ReferenceCache::prepare(data_->dataset, identity_of(data_->dataset, hash, context_.type, borrows),
                              context_.mesh->data(), score, {.writes = context_.mesh->tensor().rank() == 0});
  if (world.rank() == 0) log_info("reference log-probabilities: {}", cache.folder().string());
  references_ = cache.sums();
  if (borrows) mismatched_references_ = cache.mismatched_sums();
}

void PreferenceTask::describe(PlacedAnswer& answer, std::size_t which) const {
  const auto& o = configuration_.objective;
  if (!references_.empty())
    answer.reference =
        references_[static_cast<std::size_t>(answer.record * data_->dataset.manifest().answers()) + which];
  if (o.type == "kto") answer.liked = data_->dataset.label(answer.record);
  if (o.type != "dro") return;
  answer.reward = data_->dataset.score(answer.record);
  if (o.reward_normalise == "standard") {
    answer.reward = (answer.reward - scores_.mean) / std::max(scores_.deviation, 1e-8);
    if (o.reward_clip > 0) answer.reward = std::clamp(answer.reward, -o.reward_clip, o.reward_clip);
  }
  answer.reward *= o.reward_scale;
}

AnswerRows PreferenceTask::rows_of_steps(std::int64_t first, std::size_t wanted) const {
  const Communicator& data = context_.mesh->data();
  std::vector<AnswerRecord> records;
  for (std::int64_t step = first; records.size() < wanted; ++step)
    for (const std::int64_t number : data_->sampler.share(step, data.rank(), data.size()).records)
      if (records.size() < wanted) records.push_back(data_->dataset.read(number));
  AnswerRows rows = pack_answers(records, {}, context_.backend->memory().host());
  const auto each = static_cast<std::size_t>(data_->dataset.manifest().answers());
  for (std::size_t i = 0; i < rows.answers.size(); ++i) describe(rows.answers[i], i % each);
  return rows;
}

AnswerRows PreferenceTask::answers_after(std::int64_t step) const {
  const std::int64_t ranks = context_.mesh->data().size();
  const std::int64_t each = (configuration_.objective.variance_answers + ranks - 1) / ranks;
  return rows_of_steps(step + 1, static_cast<std::size_t>(each));
}

AnswerLoaderOptions PreferenceTask::loader_options(std::int64_t step) const {
  const Communicator& data = context_.mesh->data();
  AnswerLoaderOptions options{.packing = packing_options(configuration_),
                              .start_step = step,
                              .accumulate = static_cast<int>(configuration_.parallel.accumulate),
                              .data_rank = data.rank(),
                              .data_size = data.size()};
  options.describe = [this](PlacedAnswer& answer, std::size_t which) { describe(answer, which); };
  const auto& o = configuration_.objective;
  if (o.type != "kto" || o.kl_pairing == "none") return options;
  if (o.kl_pairing == "dataset") {
    options.mismatch = [size = data_->dataset.size()](std::vector<std::int64_t> records) {
      for (std::int64_t& record : records) record = record_before(record, size);
      return records;
    };
    options.describe_mismatched = [this](PlacedAnswer& answer, std::size_t) {
      answer.reference = mismatched_references_[static_cast<std::size_t>(answer.record)];
    };
    return options;
  }
  const KtoPairing pairing =
      o.kl_pairing == "previous" ? KtoPairing::previous : KtoPairing::previous_other_prompt;
  options.mismatch = [this, pairing](const std::vector<std::int64_t>& records) {
    std::vector<std::int64_t> prompts;
    prompts.reserve(records.size());
    for (const std::int64_t record : records)
      prompts.push_back(static_cast<std::int64_t>(data_->dataset.prompt_key(record)));
    std::vector<std::int64_t> sources = mismatched_records(prompts, pairing);
    for (std::int64_t& source : sources) source = records[static_cast<std::size_t>(source)];
    return sources;
  };
  return options;
}

void PreferenceTask::start(std::int64_t step) {
  if (step == 0) check_start();
  loader_ = std::make_unique<AnswerLoader>(loader_options(step), data_->sampler, data_->dataset,
                                           make_host_memory());
}

void PreferenceTask::check_start() {
  const bool speaks = context_.mesh->world().rank() == 0;
  if (configuration_.objective.type == "kto" && speaks) {
    const auto [likes, dislikes] = data_->dataset.label_counts();
    const double ratio =
        configuration_.objective.desirable_weight * static_cast<double>(likes) /
        std::max(1e-9, configuration_.objective.undesirable_weight * static_cast<double>(dislikes));
    if (ratio < 1 || ratio > 1.5)
      log_warning(
          "liked answers weigh {:.2f} times as much as others ({} and {} of them); set "
          "objective.desirable_weight and undesirable_weight so that it is 1 to 1.5",
          ratio, likes, dislikes);
    if (configuration_.data.batch_size == 1)
      log_warning("a batch of one answer has no other to estimate the reference point from: it is 0");
  }
  if (references_.empty()) return;
  // While the policy still is the reference, both give the same sums: what differs is a wrong template, type
  // or cache.
  const AnswerRows rows = rows_of_steps(0, 8);
  const auto each = static_cast<std::size_t>(data_->dataset.manifest().answers());
  double largest = 0;
  for (const Answer& answer : score_answers(*context_.backend, model_->model(), rows, context_.type))
    largest = std::max(largest, std::fabs(answer.log_ratio()) / answer.tokens);
  largest = context_.mesh->data().all_reduce_value(largest, Reduce::max);
  if (!speaks) return;
  std::vector<double> averages;
  for (std::int64_t i = 0; i < data_->dataset.size(); ++i) {
    const AnswerLengths lengths = data_->dataset.lengths(i);
    for (std::size_t which = 0; which < each; ++which)
      averages.push_back(references_[static_cast<std::size_t>(i) * each + which] /
                         static_cast<double>(lengths.scored(which)));
  }
  const double middle = quantile(averages, 0.5), lowest = quantile(averages, 0);
  log_info(
      "start: largest log ratio of a token {:.1e}; reference {:.2f} nats a token (median), {:.2f} (lowest)",
      largest, middle, lowest);
  const double allowed = context_.type == DType::f32 ? 1e-4 : 2e-2;
  if (largest > allowed && configuration_.objective.reference.empty())
    log_warning(
        "the policy differs from its reference before the first step: look at template and precision");
  if (lowest < 4 * middle - 4)
    log_warning("some answers are very unlikely under the reference: their log ratios will dominate");
}

Batch PreferenceTask::made_up_batch() const {
  const Communicator& data = context_.mesh->data();
  const std::int64_t records =
      configuration_.data.batch_size / configuration_.parallel.accumulate / data.size();
  const std::int64_t length = std::max<std::int64_t>(8, configuration_.data.sequence_length);
  const int answers = reads_pairs(configuration_) ? 2 : 1;
  RandomStream random(0, static_cast<std::uint64_t>(data.rank()), RandomUse::test);
  const auto some = [&](std::int64_t count) {
    std::vector<std::int32_t> tokens;
    tokens.reserve(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i)
      tokens.push_back(static_cast<std::int32_t>(random.below(model_->model().vocabulary())));
    return tokens;
  };
  std::vector<AnswerRecord> made_up;
  for (std::int64_t i = 0; i < records; ++i) {
    AnswerRecord record;
    record.number = data.rank() * records + i;
    record.prompt = some(length / 4 * 3);
    for (int a = 0; a < answers; ++a) record.answers.push_back(some(length - length / 4 * 3));
    made_up.push_back(std::move(record));
  }
  AnswerBatch batch;
  const PackingOptions packing = packing_options(configuration_);
  batch.rows = pack_answers(made_up, packing, context_.backend->memory().host());
  const std::int64_t each = std::ssize(batch.rows.answers) / records;
  batch.global_count = configuration_.data.batch_size;
  batch.global_answers = batch.global_count * each;
  for (std::size_t i = 0; i < batch.rows.answers.size(); ++i) {
    PlacedAnswer& answer = batch.rows.answers[i];
    answer.position = data.rank() * records * each + static_cast<std::int64_t>(i);
    answer.prompt = answer.position / each;
    answer.liked = i % 2 == 0;
    answer.reward = i % 2 == 0 ? 1 : -1;
    batch.global_imitated += answer.imitated;
  }
  batch.global_imitated *= configuration_.data.batch_size / records;
  for (const AnswerRecord& record : made_up) batch.records.push_back(record.number);
  if (configuration_.objective.type == "kto" && configuration_.objective.kl_pairing != "none")
    batch.mismatched = {pack_answers(made_up, {}, context_.backend->memory().host())};
  return batch;
}

CheckpointContent PreferenceTask::model() const { return published_content(*model_, tokenizer_.get()); }

std::vector<CheckpointFile> PreferenceTask::state() const {
  if (value_head_.bias == nullptr) return {};
  CheckpointFile file{.name = "value.safetensors", .tensors = {}};
  if (value_model_) {
    file = published_file(file.name, value_model_->tensors(), value_model_->model().parameters());
    std::erase_if(file.tensors, [](const CheckpointTensor& tensor) {
      return tensor.name.find("head.weight") != std::string::npos;  // it predicts no tokens
    });
    for (CheckpointTensor& tensor : file.tensors)
      tensor.name = (tensor.name.starts_with("model.") ? "value." : "value.model.") + tensor.name;
  }
  for (const Parameter* parameter : {value_head_.weight, value_head_.bias})
    if (parameter != nullptr)
      file.tensors.push_back(whole_parameter(parameter->name(), *parameter, parameter->value()));
  return {file};
}

void PreferenceTask::loaded() {
  model_->model().parameters().refresh_bf16();
  if (value_model_) value_model_->model().parameters().refresh_bf16();
}

void PreferenceTask::record(const std::filesystem::path& run, std::int64_t done) {
  const auto& o = configuration_.objective;
  // The first step counts as one: where the run comes from.
  if (o.type != "orpo" || o.diagnostics_every == 0 || (done - 1) % o.diagnostics_every != 0) return;
  const OrpoLoss loss({.lambda = o.lambda, .log_prob_ceiling = o.log_prob_ceiling});
  const std::vector<Answer>& pairs = objective_->step();
  std::vector<double> delta;
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2)
    delta.push_back(loss.compare(pairs[i].average(), pairs[i + 1].average()).delta);
  diagnostics_.write(run, done, pairs, delta);
}

TrainingEvaluation PreferenceTask::evaluate(bool /*is_first*/) { return evaluation_->measure(); }

}  // namespace bireme
