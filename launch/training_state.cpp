#include "launch/training_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "distributed/checkpoint_reader.h"
#include "models/published/vision_transformer_names.h"

namespace bireme {

namespace {

constexpr const char* kTrainingFile = "training.json";

CheckpointTensor whole_parameter(const std::string& name, const Parameter& parameter, const Tensor& local) {
  return {.name = name, .local = local, .whole = parameter.whole_shape(), .partition = parameter.partition()};
}

/// A published tensor as a part of the parameter that holds it: one of its logical blocks.
CheckpointTensor published_tensor(const PublishedTensor& tensor, ParameterSet& parameters) {
  const Parameter& parameter = *parameters.find(tensor.parameter);
  Partition partition = parameter.partition();
  if (partition.axis == 0) partition.blocks /= tensor.blocks;
  const std::int64_t count = parameter.value().elements() / tensor.blocks;
  return {.name = tensor.name,
          .local = parameter.value().view(tensor.block * count, local_shape(tensor.shape, partition)),
          .whole = tensor.shape,
          .partition = partition};
}

CheckpointFile teacher_file(const TrainingState& state) {
  CheckpointFile file{.name = "model.safetensors", .tensors = {}};
  ParameterSet& teacher = state.objective.teacher().parameters();
  for (const PublishedTensor& tensor : vision_transformer_tensors(state.published.options, "backbone."))
    file.tensors.push_back(published_tensor(tensor, teacher));
  return file;
}

/// Running statistics under the names of the head's parameters in that file: with or without `head.`.
void add_statistics(CheckpointFile& file, std::size_t cut, const DinoHead& head) {
  for (const DinoHead::Buffer& buffer : head.buffers())
    file.tensors.push_back({.name = buffer.name.substr(cut),
                            .local = buffer.value,
                            .whole = buffer.value.shape(),
                            .partition = {}});
}

CheckpointFile head_file(const TrainingState& state) {
  CheckpointFile file{.name = "dino_head.safetensors", .tensors = {}};
  ParameterSet& teacher = state.objective.teacher().parameters();
  for (const PublishedTensor& tensor : dino_head_tensors(teacher, "head."))
    file.tensors.push_back(published_tensor(tensor, teacher));
  add_statistics(file, std::string_view("head.").size(), state.objective.teacher().head());
  return file;
}

CheckpointFile student_file(const TrainingState& state) {
  CheckpointFile file{.name = "student.safetensors", .tensors = {}};
  const ParameterSet& student = state.objective.student().parameters();
  for (std::size_t i = 0; i < student.size(); ++i)
    file.tensors.push_back(whole_parameter(student[i].name(), student[i], student[i].value()));
  add_statistics(file, 0, state.objective.student().head());
  const Tensor& center = state.objective.center();
  const Communicator& tensor = state.mesh.tensor();
  file.tensors.push_back(
      {.name = "center",
       .local = center,
       .whole = {center.elements() * tensor.size()},
       .partition = {.axis = 0, .blocks = 1, .part = tensor.rank(), .parts = tensor.size()}});
  return file;
}

/// Both moments for the whole flat buffers: gathered over the data axis where each rank holds a share.
struct Moments {
  Tensor first, second;
};

bool is_sharded(const TrainingState& state) {
  return state.optimizer.end() - state.optimizer.begin() <
         state.objective.student().parameters().flat_values().elements();
}

Tensor gather_shares(const TrainingState& state, const Tensor& share) {
  const std::int64_t elements = state.objective.student().parameters().flat_values().elements();
  const Tensor whole(state.backend.memory(), {elements}, DType::f32);
  fill(whole, 0);
  copy(share, whole.view(state.optimizer.begin(), share.shape()));
  state.mesh.data().all_reduce(whole, Reduce::sum).wait();
  return whole;
}

Moments gather_moments(const TrainingState& state) {
  const AdamWOptimizer& optimizer = state.optimizer;
  if (!is_sharded(state)) return {optimizer.first_moment(), optimizer.second_moment()};
  return {gather_shares(state, optimizer.first_moment()), gather_shares(state, optimizer.second_moment())};
}

CheckpointFile moments_file(const TrainingState& state, const Moments& moments) {
  CheckpointFile file{.name = "optimizer.safetensors", .tensors = {}};
  const ParameterSet& student = state.objective.student().parameters();
  for (std::size_t i = 0; i < student.size(); ++i) {
    const Parameter& parameter = student[i];
    const std::int64_t offset = student.offset(parameter);
    file.tensors.push_back(whole_parameter("exp_avg." + parameter.name(), parameter,
                                           moments.first.view(offset, parameter.shape())));
    file.tensors.push_back(whole_parameter("exp_avg_sq." + parameter.name(), parameter,
                                           moments.second.view(offset, parameter.shape())));
  }
  return file;
}

std::map<std::string, std::string> documents(const TrainingState& state) {
  std::map<std::string, std::string> texts;
  for (const Document& document : vision_transformer_documents(state.published, DType::f32))
    texts[document.name] = document.text;
  return texts;
}

std::string training_text(const TrainingState& state, std::int64_t step) {
  nlohmann::ordered_json json{
      {"format", 1}, {"step", step}, {"dataset", state.dataset}, {"configuration", state.configuration}};
  nlohmann::ordered_json steps;
  const ParameterSet& student = state.objective.student().parameters();
  for (std::size_t i = 0; i < student.size(); ++i) steps[student[i].name()] = state.optimizer.steps()[i];
  json["optimizer_steps"] = steps;
  return json.dump(1) + "\n";
}

}  // namespace

std::filesystem::path save_teacher(const TrainingState& state, const std::filesystem::path& folder,
                                   std::int64_t step) {
  CheckpointContent content;
  content.files = {teacher_file(state), head_file(state)};
  content.texts = documents(state);
  return save_checkpoint(folder, step, content, state.world, state.mesh.tensor());
}

std::filesystem::path save_training_state(const TrainingState& state, const std::filesystem::path& folder,
                                          std::int64_t step) {
  const Moments moments = gather_moments(state);
  CheckpointContent content;
  content.files = {teacher_file(state), head_file(state), student_file(state), moments_file(state, moments)};
  content.texts = documents(state);
  content.texts[kTrainingFile] = training_text(state, step);
  return save_checkpoint(folder, step, content, state.world, state.mesh.tensor());
}

std::int64_t load_training_state(const TrainingState& state, const std::filesystem::path& checkpoint) {
  const CheckpointReader reader = CheckpointReader::open(checkpoint, state.world);
  const auto json = nlohmann::json::parse(reader.text(kTrainingFile));
  if (json.at("dataset").get<std::string>() != state.dataset) {
    throw Error(ErrorKind::checkpoint, "the run was trained on another dataset", checkpoint.string(),
                "set data.path to the dataset that the run began with");
  }
  reader.load(teacher_file(state));
  reader.load(head_file(state));
  reader.load(student_file(state));
  const std::int64_t elements = state.objective.student().parameters().flat_values().elements();
  Moments moments{state.optimizer.first_moment(), state.optimizer.second_moment()};
  if (is_sharded(state)) {
    moments = {Tensor(state.backend.memory(), {elements}, DType::f32),
               Tensor(state.backend.memory(), {elements}, DType::f32)};
    fill(moments.first, 0);
    fill(moments.second, 0);
  }
  reader.load(moments_file(state, moments));
  if (is_sharded(state)) {
    const Shape share = state.optimizer.first_moment().shape();
    copy(moments.first.view(state.optimizer.begin(), share), state.optimizer.first_moment());
    copy(moments.second.view(state.optimizer.begin(), share), state.optimizer.second_moment());
  }
  ParameterSet& student = state.objective.student().parameters();
  for (std::size_t i = 0; i < student.size(); ++i)
    state.optimizer.steps()[i] = json.at("optimizer_steps").at(student[i].name()).get<std::int64_t>();
  student.refresh_bf16();
  state.objective.teacher().parameters().refresh_bf16();
  return json.at("step").get<std::int64_t>();
}

}  // namespace bireme
