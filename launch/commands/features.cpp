#include <spdlog/fmt/fmt.h>

#include "core/io/hdf5.h"
#include "launch/evaluation.h"
#include "launch/options.h"

namespace bireme {

int run_features(Arguments arguments) {
  Options options("bireme features", "computes class-token features of all pictures of a dataset");
  options.required("model", "M", "checkpoint, run or Hugging Face folder")
      .required("data", "DATASET", "dataset of pictures")
      .required("output", "FILE.h5", "receives features [N, D] and labels [N]")
      .example("bireme features --model runs/first --data fashion-test --output features.h5")
      .example("mpirun -n 2 bireme features --model facebook-dino --data photos --output photos.h5");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) {
    const Evaluation evaluation(options.text("model"), world);
    const LabeledFeatures features = evaluation.features(options.text("data"));
    if (world.rank() != 0) return 0;
    Hdf5Writer file(options.path("output"));
    file.write("features", features.features);
    const Tensor labels(evaluation.backend().memory(), {static_cast<std::int64_t>(features.labels.size())},
                        DType::i32);
    std::copy(features.labels.begin(), features.labels.end(), labels.data<std::int32_t>());
    file.write("labels", labels);
    file.close();
    fmt::print("{} features of {} channels in {}\n", features.features.rows(), features.features.channels(),
               options.text("output"));
    return 0;
  });
}

}  // namespace bireme
