#include "launch/configuration_check.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "launch/configuration_keys.h"

namespace bireme {

void known_section(const std::string& section, const std::string& where) {
  std::vector<std::string> sections;
  for (const Key& key : key_table())
    if (sections.empty() || sections.back() != key.section()) sections.emplace_back(key.section());
  if (std::find(sections.begin(), sections.end(), section) != sections.end()) return;
  const std::string nearest = nearest_name(section, sections);
  throw Error(ErrorKind::usage, fmt::format("unknown section `[{}]`", section), where,
              nearest.empty() ? fmt::format("choose one of {}", fmt::join(sections, ", "))
                              : fmt::format("did you mean `[{}]`?", nearest));
}

namespace {

/// Complains with both keys, both values, and the place that was given last.
class Check {
 public:
  explicit Check(const Origins& origins) : origins_(origins) {}

  void require(bool holds, const std::string& problem, const std::string& key, const std::string& other,
               const std::string& remedy) const {
    if (!holds) throw Error(ErrorKind::usage, problem, origins_.where(key, other), remedy);
  }

  void ordered(const std::string& low_key, double low, const std::string& high_key, double high) const {
    require(low <= high, fmt::format("{} is {}, but {} is {}", low_key, low, high_key, high), low_key,
            high_key, "make the first at most the second");
  }

  void at_least_a_patch(const std::string& key, std::int64_t size, std::int64_t patch) const {
    require(size >= patch,
            fmt::format("{} is {}, less than one patch (model.patch_size is {})", key, size, patch), key,
            "model.patch_size", "make the crop larger or the patch smaller");
  }

 private:
  const Origins& origins_;
};

std::string divisors(std::int64_t number, std::int64_t largest) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 1; i <= std::min(number, largest); ++i)
    if (number % i == 0) all.push_back(i);
  return fmt::format("{}", fmt::join(all, ", "));
}

void check_pictures(const Configuration& configuration, const Check& check) {
  const auto& [model, data, objective, optimizer, schedule, parallel, precision, evaluation, run] =
      configuration;
  check.at_least_a_patch("model.image_size", model.image_size, model.patch_size);
  check.at_least_a_patch("data.global_size", data.global_size, model.patch_size);
  if (data.local_crops > 0) check.at_least_a_patch("data.local_size", data.local_size, model.patch_size);
  check.ordered("data.global_scale_min", data.global_scale_min, "data.global_scale_max",
                data.global_scale_max);
  check.ordered("data.local_scale_min", data.local_scale_min, "data.local_scale_max", data.local_scale_max);
  check.ordered("data.blur_radius_min", data.blur_radius_min, "data.blur_radius_max", data.blur_radius_max);
  check.require(
      data.mean.size() == data.std.size(),
      fmt::format("data.mean has {} entries, but data.std has {}", data.mean.size(), data.std.size()),
      "data.mean", "data.std", "give one entry a channel to both, or to neither");
  check.require(
      data.mean.empty() || std::ssize(data.mean) == model.channels,
      fmt::format("data.mean has {} entries, but model.channels is {}", data.mean.size(), model.channels),
      "data.mean", "model.channels", "give one entry a channel");
  check.require(data.evaluation_train.empty() == data.evaluation_test.empty(),
                "only one of data.evaluation_train and data.evaluation_test is given",
                "data.evaluation_train", "data.evaluation_test", "give both, or neither");
}

void check_language(const Configuration& configuration, const Check& check) {
  const auto& model = configuration.model;
  check.require(model.pattern.find_first_not_of("ms") == std::string::npos && !model.pattern.empty(),
                fmt::format("model.pattern is \"{}\"", model.pattern), "model.pattern", "",
                "write m for each block of matrix memory and s for each of scalar memory, such as mmms");
  check.require(model.variant != "large" || model.pattern == "m",
                fmt::format("model.pattern is \"{}\", but the large xlstm has m blocks only", model.pattern),
                "model.pattern", "model.variant",
                "leave model.pattern out, or choose model.variant = \"paper\"");
  check.require(
      model.kv_heads == 0 || model.heads % model.kv_heads == 0,
      fmt::format("model.kv_heads is {}, which does not divide {} heads", model.kv_heads, model.heads),
      "model.kv_heads", "model.heads", "choose model.kv_heads from " + divisors(model.heads, 1024));
}

void check_alignment(const Configuration& configuration, const Check& check) {
  const auto& objective = configuration.objective;
  const bool needs_whole_step = objective.type == "dro" && objective.variant != "value";
  check.require(!needs_whole_step || configuration.parallel.accumulate == 1,
                fmt::format("objective.variant is \"{}\", but parallel.accumulate is {}", objective.variant,
                            configuration.parallel.accumulate),
                "objective.variant", "parallel.accumulate",
                "values of the whole batch need it in one part: set parallel.accumulate to 1");
  check.require(!needs_whole_step || configuration.data.batch_size > 1,
                fmt::format("objective.variant is \"{}\", but data.batch_size is 1", objective.variant),
                "objective.variant", "data.batch_size",
                "a single answer has nothing to be compared with: choose a larger batch");
  check.require(objective.value_warmup_steps == 0 || objective.variant == "value",
                "objective.value_warmup_steps is given, but objective.variant has no value function",
                "objective.value_warmup_steps", "objective.variant", "leave out one of them");
  check.require(objective.value_learning_rate == 0 || configuration.optimizer.learning_rate > 0,
                "objective.value_learning_rate is given, but optimizer.learning_rate is 0",
                "objective.value_learning_rate", "optimizer.learning_rate",
                "train the value function alone with objective.value_warmup_steps");
  const auto& evaluation = configuration.evaluation;
  const bool has_judge = !evaluation.judge.empty() || evaluation.gold_rule,
             has_prompts = !evaluation.prompts.empty();
  check.require(has_judge == has_prompts,
                fmt::format("{} is given without {}", has_prompts ? "evaluation.prompts" : "evaluation.judge",
                            has_prompts ? "evaluation.judge" : "evaluation.prompts"),
                "evaluation.prompts", "evaluation.judge",
                "a win rate needs both: prompts to answer, and judges of the answers");
}

/// A key of another kind of model or objective would be read by nothing.
void check_topics(const Configuration& configuration, const Origins& origins) {
  const Topic topic = topic_of(configuration);
  for (const Key& key : key_table()) {
    const std::string name(key.name);
    if (key.applies_to(configuration) || origins.source(name) == Origins::defaults) continue;
    if (key.applies_to(topic))
      throw Error(
          ErrorKind::usage,
          fmt::format("{} has no meaning for objective.type \"{}\"", name, configuration.objective.type),
          origins.where(name), "remove it; `bireme train --help-config` says what each key is for");
    throw Error(
        ErrorKind::usage,
        fmt::format("{} has no meaning for model.type \"{}\"", name, configuration.model.type),
        origins.where(name),
        fmt::format("remove it: it is for {} (`bireme train --help-config` says what each key is for)",
                    topic_name(key.topic)));
  }
}

}  // namespace

void check_consistency(const Configuration& configuration, const Origins& origins) {
  const Check check(origins);
  const auto& [model, data, objective, optimizer, schedule, parallel, precision, evaluation, run] =
      configuration;
  const bool reads_text = is_language(configuration);

  check.require((objective.type == "dino") != reads_text,
                fmt::format("objective.type is \"{}\", but model.type is \"{}\"", objective.type, model.type),
                "objective.type", "model.type",
                reads_text
                    ? "train a language model with objective.type = \"language_model\", or align it with "
                      "sft, orpo, dpo, ipo, kto, simpo or dro"
                    : "name the language model to begin with (--model.init FOLDER) or its model.type, or "
                      "train a vision transformer with objective.type = \"dino\"");
  check_topics(configuration, origins);
  if (model.type != "rwkv") {
    check.require(
        model.embed_dim % model.heads == 0 || model.head_dim > 0,
        fmt::format("model.embed_dim is {}, which {} heads do not divide", model.embed_dim, model.heads),
        "model.embed_dim", "model.heads", "choose model.heads from " + divisors(model.embed_dim, 64));
    check.require(model.heads % parallel.tensor == 0,
                  fmt::format("parallel.tensor is {}, which does not divide {} attention heads",
                              parallel.tensor, model.heads),
                  "parallel.tensor", "model.heads",
                  "choose parallel.tensor from " + divisors(model.heads, 64));
  }
  check.require(data.batch_size % parallel.accumulate == 0,
                fmt::format("parallel.accumulate is {}, which does not divide data.batch_size {}",
                            parallel.accumulate, data.batch_size),
                "parallel.accumulate", "data.batch_size",
                "choose parallel.accumulate from " + divisors(data.batch_size, 64));
  check.ordered("optimizer.minimum_learning_rate", optimizer.minimum_learning_rate, "optimizer.learning_rate",
                optimizer.learning_rate);
  check.require(!run.cuda_graphs || run.device == "cuda",
                fmt::format("run.cuda_graphs is true, but run.device is \"{}\"", run.device),
                "run.cuda_graphs", "run.device", "set run.device to cuda, or leave out run.cuda_graphs");
  check.require(run.steps > 0 || run.epochs > 0, "run.steps and run.epochs are both 0", "run.steps",
                "run.epochs", "say how long to train with one of them");
  if (reads_text) {
    check_language(configuration, check);
    if (is_alignment(objective.type)) check_alignment(configuration, check);
  } else {
    check_pictures(configuration, check);
  }
}

std::vector<std::string> configuration_warnings(const Configuration& configuration) {
  std::vector<std::string> warnings;
  const auto& [model, data, objective, optimizer, schedule, parallel, precision, evaluation, run] =
      configuration;
  const bool reads_text = is_language(configuration);
  const auto warn_of_remainder = [&](const char* key, std::int64_t size) {
    if (size % model.patch_size != 0)
      warnings.push_back(
          fmt::format("{} {} is not a multiple of the patch size {}: the last {} rows and columns of each "
                      "crop are ignored",
                      key, size, model.patch_size, size % model.patch_size));
  };
  if (!reads_text) {
    warn_of_remainder("data.global_size", data.global_size);
    if (data.local_crops > 0) warn_of_remainder("data.local_size", data.local_size);
  }
  if (run.epochs == 0) {
    if (schedule.warmup_steps >= run.steps)
      warnings.push_back(fmt::format(
          "schedule.warmup_steps {} is not shorter than run.steps {}: the learning rate never reaches {}",
          schedule.warmup_steps, run.steps, optimizer.learning_rate));
    if (!reads_text && objective.freeze_last_layer_steps >= run.steps)
      warnings.push_back(fmt::format(
          "objective.freeze_last_layer_steps {} is not shorter than run.steps {}: the prototypes never train",
          objective.freeze_last_layer_steps, run.steps));
  }
  const bool aligns = is_alignment(objective.type);
  if (aligns && model.init.empty())
    warnings.emplace_back("model.init is not given: alignment begins with random weights");
  if (run.evaluate_every == 0 && !evaluation.prompts.empty())
    warnings.emplace_back("no win rate during training: run.evaluate_every is 0");
  if (run.evaluate_every > 0 && (reads_text ? data.validation : data.evaluation_train).empty())
    warnings.emplace_back(
        aligns ? "no ranking accuracy during training: data.validation is not given"
        : reads_text
            ? "no perplexity during training: data.validation is not given"
            : "no k-NN during training: data.evaluation_train and data.evaluation_test are not given");
  return warnings;
}

}  // namespace bireme
