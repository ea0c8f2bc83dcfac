#include "launch/training_task.h"

#include "launch/configuration_keys.h"
#include "launch/dino_task.h"
#include "launch/judge_task.h"
#include "launch/language_task.h"
#include "launch/preference_task.h"

namespace bireme {

std::unique_ptr<TrainingTask> make_training_task(const Configuration& configuration, const Context& context,
                                                 TaskData data) {
  if (configuration.objective.type == "language_model")
    return std::make_unique<LanguageTask>(configuration, context, data);
  if (configuration.objective.type == "judge")
    return std::make_unique<JudgeTask>(configuration, context, data);
  if (is_alignment(configuration.objective.type))
    return std::make_unique<PreferenceTask>(configuration, context, data);
  return std::make_unique<DinoTask>(configuration, context, data);
}

}  // namespace bireme
