#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "launch/options.h"

namespace bireme {

/// Everything that a training run can be told. The values here are the defaults: a small vision transformer
/// for Fashion-MNIST that learns something in minutes on two cores; other kinds of model change some of them
/// (configuration_presets.h). configuration_keys.cpp binds each member to its key and says what it means, in
/// which unit and range; `bireme train --help-config` prints that table.
struct Configuration {
  struct Model {
    std::string type = "vit";
    std::string size = "custom";
    std::string init;
    std::int64_t embed_dim = 96, depth = 4, heads = 3;
    std::int64_t patch_size = 7, image_size = 28, channels = 1;
    double mlp_ratio = 4, drop_path = 0, init_std = 0;
    std::int64_t head_layers = 3, head_hidden = 512, head_bottleneck = 128, prototypes = 1024;
    bool norm_last_layer = true, head_batch_norm = false;
    std::int64_t vocabulary_size = 0, kv_heads = 0, head_dim = 0, hidden_dim = 0, attention_dim = 0;
    std::int64_t context = 0;
    double rope_theta = 10000;
    bool tie_embeddings = false;
    std::string variant = "paper", pattern = "m", memory = "associative";
  } model;

  struct Data {
    std::string path, evaluation_train, evaluation_test;
    std::int64_t batch_size = 64;
    std::string order = "shuffled";
    std::int64_t workers = 0, sequence_length = 256;
    std::int64_t global_size = 28, local_size = 14, local_crops = 4;
    double global_scale_min = 0.6, global_scale_max = 1, local_scale_min = 0.3, local_scale_max = 0.6;
    double flip_probability = 0.5;
    double jitter_probability = 0.8, brightness = 0.4, contrast = 0.4, saturation = 0.2, hue = 0.1;
    double greyscale_probability = 0.2;
    double blur_probability_global1 = 0, blur_probability_global2 = 0, blur_probability_local = 0;
    double blur_radius_min = 0.1, blur_radius_max = 2;
    double solarize_probability = 0.2;
    std::vector<double> mean, std;
    std::string validation;
    std::int64_t validation_sequences = 256;
    bool documents_apart = false;
  } data;

  struct Objective {
    std::string type = "dino";
    double student_temperature = 0.1;
    double teacher_temperature_start = 0.04, teacher_temperature = 0.04;
    std::int64_t teacher_temperature_warmup_steps = 0;
    double teacher_momentum = 0.99, teacher_momentum_end = 1;
    double center_momentum = 0.9;
    std::int64_t freeze_last_layer_steps = 0;
    double z_loss = 0, l2_wrap = 0;
    double beta = 0.1, gamma = 1, label_smoothing = 0, lambda = 0.1, log_prob_ceiling = -1e-6;
    bool length_normalise = false, share_prompts = true;
    std::string nll_answers = "all", nll_scope = "completion", nll_reduction = "token";
    std::string kl_pairing = "previous_other_prompt";
    double desirable_weight = 1, undesirable_weight = 1;
    double tau = 1;
    bool rescale_policy = true;
    std::string variant = "value", value = "separate";
    bool value_detach = false;
    double value_learning_rate = 0;
    std::int64_t value_warmup_steps = 0;
    std::string reward_normalise = "standard";
    double reward_scale = 1, reward_clip = 0;
    std::string reference;
    std::int64_t diagnostics_every = 100, variance_every = 0, variance_answers = 256;
  } objective;

  struct Optimizer {
    double learning_rate = 2e-3, minimum_learning_rate = 2e-5;
    double weight_decay = 0.04, weight_decay_end = 0.04;
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
    double clip_norm = 3;
    std::string clip_type = "parameter";
  } optimizer;

  struct Schedule {
    std::string type = "cosine";
    std::int64_t warmup_steps = 100;
  } schedule;

  struct Parallel {
    std::int64_t tensor = 1, zero = 0, accumulate = 1, bucket_bytes = 4 << 20;
  } parallel;

  struct Precision {
    std::string type = "fp32";
    bool recompute = false;
  } precision;

  struct Evaluation {
    std::vector<std::string> judge;
    std::string prompts, judge_validation;
    std::string part = "evaluation";
    bool allow_overlap = false, gold_rule = false;
    std::int64_t prompt_limit = 0, max_tokens = 256, batch_size = 32, seed = 0;
    double temperature = 1, tie_band = 0.05;
  } evaluation;

  struct Run {
    std::int64_t steps = 2000, epochs = 0, seed = 0;
    std::int64_t log_every = 10, checkpoint_every = 500, keep_checkpoints = 2, evaluate_every = 200;
    std::string device = "auto";
    std::int64_t threads = 0, max_skipped_steps = 0;
    double timeout_seconds = 600;
    bool profile = false, cuda_graphs = false;
  } run;
};

/// The configuration of a run: defaults, overridden by a TOML file, overridden by the command line.
/// `model.size` fills model.embed_dim, depth and heads, unless the same place or one that overrides it gives
/// them; `model.init` gives model.type, unless one of these places does.
/// @param file     empty for the defaults
/// @throws Error   (usage) naming file:line:column, or the command line: unknown key (with the nearest),
///                 wrong type, value outside its range, values that contradict each other; (checkpoint) when
///                 the type is that of model.init, and no model lies there
Configuration load_configuration(const std::filesystem::path& file, std::span<const Override> overrides = {});

/// The same from a text; `name` stands for the file in messages.
Configuration parse_configuration(std::string_view toml, const std::string& name,
                                  std::span<const Override> overrides = {});

/// What is allowed but rarely meant, one sentence each, for the log.
std::vector<std::string> configuration_warnings(const Configuration& configuration);

/// Every key with its value, as TOML that load_configuration reads back to the same configuration.
std::string to_toml(const Configuration& configuration);

/// All keys, in the order of the sections.
std::vector<std::string> configuration_keys();

/// The reference of all keys in Markdown: type, default, unit, range and meaning.
std::string configuration_reference();

struct ConfigurationDifference {
  std::string key, before, after;
};
/// The keys that differ and change the mathematics of a run (not its speed, place, or what it reports): a run
/// that resumes with any of these would not be the run that was started.
std::vector<ConfigurationDifference> mathematical_differences(const Configuration& before,
                                                              const Configuration& after);

/// @throws Error (usage) listing mathematical_differences, when there are any; `folder` is the run's
void require_same_mathematics(const Configuration& before, const Configuration& after,
                              const std::string& folder);

}  // namespace bireme
