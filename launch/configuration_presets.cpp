#include "launch/configuration_presets.h"

#include "launch/configuration_keys.h"
#include "models/vision_transformer.h"

namespace bireme {

namespace {

/// A first run that learns something in minutes on two cores: about five million parameters.
void fill_language_model(Configuration& c, const Origins& origins) {
  const auto fill = [&](const char* key, auto& member, const auto& value) {
    if (origins.source(key) == Origins::defaults) member = value;
  };
  const bool is_rwkv = c.model.type == "rwkv";
  fill("model.embed_dim", c.model.embed_dim, 256);
  fill("model.depth", c.model.depth, 6);
  fill("model.heads", c.model.heads, 4);
  fill("objective.type", c.objective.type, "language_model");
  fill("data.batch_size", c.data.batch_size, 8);
  fill("optimizer.learning_rate", c.optimizer.learning_rate, 1e-3);
  fill("optimizer.minimum_learning_rate", c.optimizer.minimum_learning_rate, 1e-4);
  fill("optimizer.weight_decay", c.optimizer.weight_decay, 0.1);
  fill("optimizer.beta2", c.optimizer.beta2, is_rwkv ? 0.99 : 0.95);
  fill("optimizer.clip_norm", c.optimizer.clip_norm, 1.0);
  fill("optimizer.clip_type", c.optimizer.clip_type, "global");
  if (is_rwkv) fill("objective.l2_wrap", c.objective.l2_wrap, 1e-4);
}

/// Small steps from a model that can do something already, and what the papers have where they differ.
void fill_alignment(Configuration& c, const Origins& origins) {
  const auto fill = [&](const char* key, auto& member, const auto& value) {
    if (origins.source(key) == Origins::defaults) member = value;
  };
  const std::string& type = c.objective.type;
  fill("optimizer.learning_rate", c.optimizer.learning_rate, 1e-4);
  fill("optimizer.minimum_learning_rate", c.optimizer.minimum_learning_rate, 1e-5);
  fill("optimizer.weight_decay", c.optimizer.weight_decay, 0.01);
  fill("optimizer.beta2", c.optimizer.beta2, 0.999);
  fill("objective.l2_wrap", c.objective.l2_wrap, 0.0);
  if (type == "simpo") fill("objective.beta", c.objective.beta, 2.0);
  if (type == "ipo") fill("objective.length_normalise", c.objective.length_normalise, true);
  if (type == "orpo") fill("objective.nll_scope", c.objective.nll_scope, "sequence");
}

void fill_size(Configuration& configuration, const Origins& origins) {
  if (configuration.model.size == "custom") return;
  const VisionTransformerOptions size = vision_transformer_size(configuration.model.size);
  const auto fill = [&](const char* key, std::int64_t& member, std::int64_t value) {
    const auto given = origins.source(key);
    if (given == Origins::defaults || given < origins.source("model.size")) member = value;
  };
  fill("model.embed_dim", configuration.model.embed_dim, size.embed_dim);
  fill("model.depth", configuration.model.depth, size.depth);
  fill("model.heads", configuration.model.heads, size.heads);
}

}  // namespace

void apply_presets(Configuration& configuration, const Origins& origins) {
  if (is_language(configuration)) {
    fill_language_model(configuration, origins);
    if (is_alignment(configuration.objective.type)) fill_alignment(configuration, origins);
  } else {
    fill_size(configuration, origins);
  }
  if (origins.source("optimizer.weight_decay_end") == Origins::defaults)
    configuration.optimizer.weight_decay_end = configuration.optimizer.weight_decay;
}

}  // namespace bireme
