#include "launch/training_task.h"

#include "launch/dino_task.h"

namespace bireme {

std::unique_ptr<TrainingTask> make_training_task(const Configuration& configuration, const Context& context,
                                                 TaskData data) {
  return std::make_unique<DinoTask>(configuration, context, data);
}

}  // namespace bireme
