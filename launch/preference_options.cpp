#include "launch/preference_options.h"

#include "objectives/preference/dpo.h"
#include "objectives/preference/dro.h"
#include "objectives/preference/ipo.h"
#include "objectives/preference/kto.h"
#include "objectives/preference/orpo.h"
#include "objectives/preference/sft.h"
#include "objectives/preference/simpo.h"

namespace bireme {

std::unique_ptr<PreferenceLoss> make_preference_loss(const Configuration& configuration) {
  const auto& o = configuration.objective;
  if (o.type == "orpo")
    return std::make_unique<OrpoLoss>(
        OrpoLoss::Options{.lambda = o.lambda, .log_prob_ceiling = o.log_prob_ceiling});
  if (o.type == "dpo")
    return std::make_unique<DpoLoss>(
        DpoLoss::Options{.beta = o.beta, .gamma = o.gamma, .label_smoothing = o.label_smoothing});
  if (o.type == "ipo")
    return std::make_unique<IpoLoss>(
        IpoLoss::Options{.beta = o.beta, .length_normalise = o.length_normalise});
  if (o.type == "simpo")
    return std::make_unique<SimpoLoss>(SimpoLoss::Options{.beta = o.beta, .gamma = o.gamma});
  if (o.type == "kto")
    return std::make_unique<KtoLoss>(KtoLoss::Options{
        .beta = o.beta, .desirable_weight = o.desirable_weight, .undesirable_weight = o.undesirable_weight});
  if (o.type == "dro") {
    using Variant = DroLoss::Variant;
    return std::make_unique<DroLoss>(DroLoss::Options{.tau = o.tau,
                                                      .rescale_policy = o.rescale_policy,
                                                      .length_normalise = o.length_normalise,
                                                      .variant = o.variant == "batch"   ? Variant::batch
                                                                 : o.variant == "group" ? Variant::group
                                                                                        : Variant::value});
  }
  return std::make_unique<SftLoss>();
}

PackingOptions packing_options(const Configuration& configuration) {
  const auto& o = configuration.objective;
  const bool imitates = o.type == "sft" || o.type == "orpo";
  return {.share_prompts = o.share_prompts,
          .imitation = !imitates                   ? Imitation::none
                       : o.nll_scope == "sequence" ? Imitation::sequence
                                                   : Imitation::completion,
          .chosen_only = o.type == "sft"};
}

bool has_value_function(const Configuration& configuration) {
  return configuration.objective.type == "dro" && configuration.objective.variant == "value";
}

bool reads_pairs(const Configuration& configuration) {
  const std::string& type = configuration.objective.type;
  return type != "sft" && type != "kto" && type != "dro";
}

}  // namespace bireme
