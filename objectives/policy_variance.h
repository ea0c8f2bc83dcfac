#pragma once

#include "distributed/mesh.h"
#include "models/language_model.h"
#include "objectives/preference/preference_loss.h"
#include "objectives/value_function.h"

namespace bireme {

/// What a value function is worth to the policy's gradient on some answers: the variance of the gradient with
/// it, how that without it (the rewards as they are, or less one constant) compares, how far apart the means
/// are, and the share of the rewards' variance that it explains.
/// Takes one backward pass per answer; gradients are overwritten: between steps only. Collective.
/// @param rows  this data rank's answers, the same number on each
Terms measure_policy_variance(const Backend& backend, const Mesh& mesh, LanguageModel& model,
                              const PreferenceLoss& loss, const ValueFunction& value, const AnswerRows& rows,
                              DType type);

}  // namespace bireme
