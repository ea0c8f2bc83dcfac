#include "launch/training_state.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "distributed/checkpoint_reader.h"
#include "distributed/shares.h"
#include "launch/checkpoint_files.h"

namespace bireme {

namespace {

constexpr const char* kTrainingFile = "training.json";

/// Parameters, what moves them, and what stands before their names.
struct Network {
  std::string prefix;
  ParameterSet& parameters;
  AdamWOptimizer& optimizer;

  bool is_sharded() const {
    return optimizer.end() - optimizer.begin() < parameters.flat_values().elements();
  }
  /// This rank's share of a whole buffer of moments.
  Tensor own_share(const Tensor& whole) const {
    return whole.view(optimizer.begin(), optimizer.first_moment().shape());
  }
};

std::vector<Network> networks_of(const TrainingState& state) {
  Objective& objective = state.task.objective();
  std::vector<Network> networks{{"", objective.parameters(), state.optimizer}};
  if (const TrainedNetwork* companion = objective.companion())
    networks.push_back({companion->name, companion->parameters, *state.companion});
  return networks;
}

/// Both moments for the whole flat buffers; on the host where ranks share them, since no GPU has room for
/// all.
struct Moments {
  Tensor first, second;
};

Moments empty_moments(const TrainingState& state, const Network& network) {
  const Shape flat{network.parameters.flat_values().elements()};
  Memory& memory = state.context.backend->memory().host();
  return {Tensor(memory, flat, DType::f32), Tensor(memory, flat, DType::f32)};
}

/// Gathered over the data axis where each rank holds a share.
Moments gather_moments(const TrainingState& state, const Network& network) {
  const AdamWOptimizer& optimizer = network.optimizer;
  if (!network.is_sharded()) return {optimizer.first_moment(), optimizer.second_moment()};
  const Moments whole = empty_moments(state, network);
  copy(optimizer.first_moment(), network.own_share(whole.first));
  copy(optimizer.second_moment(), network.own_share(whole.second));
  gather_shares(whole.first, state.context.mesh->data());
  gather_shares(whole.second, state.context.mesh->data());
  return whole;
}

CheckpointFile moments_file(const std::vector<Network>& networks, const std::vector<Moments>& moments) {
  CheckpointFile file{.name = "optimizer.safetensors", .tensors = {}};
  for (std::size_t n = 0; n < networks.size(); ++n) {
    const auto& [prefix, parameters, optimizer] = networks[n];
    const auto add = [&, &of = parameters, &before = prefix](const Parameter& parameter, const char* kind,
                                                             const Tensor& flat) {
      file.tensors.push_back(whole_parameter(kind + before + parameter.name(), parameter,
                                             flat.view(of.offset(parameter), parameter.shape())));
    };
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      add(parameters[i], "exp_avg.", moments[n].first);
      add(parameters[i], "exp_avg_sq.", moments[n].second);
    }
  }
  return file;
}

std::string training_text(const TrainingState& state, std::int64_t step) {
  nlohmann::ordered_json json{{"format", 1},
                              {"step", step},
                              {"dataset", state.task.fingerprint()},
                              {"configuration", state.configuration}};
  nlohmann::ordered_json steps;
  for (const auto& [prefix, parameters, optimizer] : networks_of(state))
    for (std::size_t i = 0; i < parameters.size(); ++i)
      steps[prefix + parameters[i].name()] = optimizer.steps()[i];
  json["optimizer_steps"] = steps;
  return json_text(json, 1) + "\n";
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
  const std::vector<Network> networks = networks_of(state);
  std::vector<Moments> moments;
  moments.reserve(networks.size());
  for (const Network& network : networks) moments.push_back(gather_moments(state, network));
  CheckpointContent content = state.task.model();
  for (CheckpointFile& file : state.task.state()) content.files.push_back(std::move(file));
  content.files.push_back(moments_file(networks, moments));
  content.texts[kTrainingFile] = training_text(state, step);
  return save(state, folder, step, content);
}

std::int64_t load_training_state(const TrainingState& state, const std::filesystem::path& checkpoint) {
  const CheckpointReader reader = CheckpointReader::open(checkpoint, state.context.mesh->world());
  const auto json = parse_json(reader.text(kTrainingFile));
  if (json.at("dataset").get<std::string>() != state.task.fingerprint()) {
    throw Error(ErrorKind::checkpoint, "the run was trained on another dataset", checkpoint.string(),
                "set data.path to the dataset that the run began with");
  }
  for (const CheckpointFile& file : state.task.model().files) reader.load(file);
  for (const CheckpointFile& file : state.task.state()) reader.load(file);
  const std::vector<Network> networks = networks_of(state);
  std::vector<Moments> moments;
  moments.reserve(networks.size());
  for (const Network& network : networks)
    moments.push_back(network.is_sharded()
                          ? empty_moments(state, network)
                          : Moments{network.optimizer.first_moment(), network.optimizer.second_moment()});
  reader.load(moments_file(networks, moments));
  for (std::size_t n = 0; n < networks.size(); ++n) {
    const auto& [prefix, parameters, optimizer] = networks[n];
    if (networks[n].is_sharded()) {
      copy(networks[n].own_share(moments[n].first), optimizer.first_moment());
      copy(networks[n].own_share(moments[n].second), optimizer.second_moment());
    }
    for (std::size_t i = 0; i < parameters.size(); ++i)
      optimizer.steps()[i] = json.at("optimizer_steps").at(prefix + parameters[i].name()).get<std::int64_t>();
  }
  state.task.loaded();
  return json.at("step").get<std::int64_t>();
}

}  // namespace bireme
