#include "launch/training_state.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "distributed/checkpoint_reader.h"
#include "distributed/shares.h"
#include "launch/checkpoint_files.h"

namespace bireme {

namespace {

constexpr const char* kTrainingFile = "training.json";

/// Both moments for the whole flat buffers.
struct Moments {
  Tensor first, second;
};

bool is_sharded(const TrainingState& state) {
  return state.optimizer.end() - state.optimizer.begin() <
         state.task.objective().parameters().flat_values().elements();
}

Moments empty_moments(const TrainingState& state) {
  const Shape flat{state.task.objective().parameters().flat_values().elements()};
  Memory& memory = state.context.backend->memory();
  return {Tensor(memory, flat, DType::f32), Tensor(memory, flat, DType::f32)};
}

/// This rank's share of a whole buffer of moments.
Tensor own_share(const TrainingState& state, const Tensor& whole) {
  return whole.view(state.optimizer.begin(), state.optimizer.first_moment().shape());
}

/// Gathered over the data axis where each rank holds a share.
Moments gather_moments(const TrainingState& state) {
  const AdamWOptimizer& optimizer = state.optimizer;
  if (!is_sharded(state)) return {optimizer.first_moment(), optimizer.second_moment()};
  const Moments whole = empty_moments(state);
  copy(optimizer.first_moment(), own_share(state, whole.first));
  copy(optimizer.second_moment(), own_share(state, whole.second));
  gather_shares(whole.first, state.context.mesh->data());
  gather_shares(whole.second, state.context.mesh->data());
  return whole;
}

CheckpointFile moments_file(const TrainingState& state, const Moments& moments) {
  CheckpointFile file{.name = "optimizer.safetensors", .tensors = {}};
  const ParameterSet& parameters = state.task.objective().parameters();
  const auto add = [&](const Parameter& parameter, const char* prefix, const Tensor& flat) {
    file.tensors.push_back(whole_parameter(prefix + parameter.name(), parameter,
                                           flat.view(parameters.offset(parameter), parameter.shape())));
  };
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    add(parameters[i], "exp_avg.", moments.first);
    add(parameters[i], "exp_avg_sq.", moments.second);
  }
  return file;
}

std::string training_text(const TrainingState& state, std::int64_t step) {
  nlohmann::ordered_json json{{"format", 1},
                              {"step", step},
                              {"dataset", state.task.fingerprint()},
                              {"configuration", state.configuration}};
  nlohmann::ordered_json steps;
  const ParameterSet& parameters = state.task.objective().parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    steps[parameters[i].name()] = state.optimizer.steps()[i];
  json["optimizer_steps"] = steps;
  return json.dump(1) + "\n";
}

std::filesystem::path save(const TrainingState& state, const std::filesystem::path& folder, std::int64_t step,
                           const CheckpointContent& content) {
  const Mesh& mesh = *state.context.mesh;
  return save_checkpoint(folder, step, content, mesh.world(), mesh.tensor());
}

}  // namespace

std::filesystem::path save_model(const TrainingState& state, const std::filesystem::path& folder,
                                 std::int64_t step) {
  return save(state, folder, step, state.task.model());
}

std::filesystem::path save_training_state(const TrainingState& state, const std::filesystem::path& folder,
                                          std::int64_t step) {
  const Moments moments = gather_moments(state);
  CheckpointContent content = state.task.model();
  for (CheckpointFile& file : state.task.state()) content.files.push_back(std::move(file));
  content.files.push_back(moments_file(state, moments));
  content.texts[kTrainingFile] = training_text(state, step);
  return save(state, folder, step, content);
}

std::int64_t load_training_state(const TrainingState& state, const std::filesystem::path& checkpoint) {
  const CheckpointReader reader = CheckpointReader::open(checkpoint, state.context.mesh->world());
  const auto json = nlohmann::json::parse(reader.text(kTrainingFile));
  if (json.at("dataset").get<std::string>() != state.task.fingerprint()) {
    throw Error(ErrorKind::checkpoint, "the run was trained on another dataset", checkpoint.string(),
                "set data.path to the dataset that the run began with");
  }
  for (const CheckpointFile& file : state.task.model().files) reader.load(file);
  for (const CheckpointFile& file : state.task.state()) reader.load(file);
  AdamWOptimizer& optimizer = state.optimizer;
  if (is_sharded(state)) {
    const Moments whole = empty_moments(state);
    reader.load(moments_file(state, whole));
    copy(own_share(state, whole.first), optimizer.first_moment());
    copy(own_share(state, whole.second), optimizer.second_moment());
  } else {
    reader.load(moments_file(state, {optimizer.first_moment(), optimizer.second_moment()}));
  }
  const ParameterSet& parameters = state.task.objective().parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    optimizer.steps()[i] = json.at("optimizer_steps").at(parameters[i].name()).get<std::int64_t>();
  state.task.loaded();
  return json.at("step").get<std::int64_t>();
}

}  // namespace bireme
