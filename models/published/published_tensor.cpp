#include "models/published/published_tensor.h"

#include <spdlog/fmt/fmt.h>

#include <cassert>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/io/safetensors_writer.h"

namespace bireme {

namespace {

constexpr std::size_t kProblemsShown = 8;

const Parameter& parameter_of(const PublishedTensor& tensor, const ParameterSet& parameters) {
  const Parameter* parameter = parameters.find(tensor.parameter);
  assert(parameter != nullptr);
  return *parameter;
}

/// What keeps a tensor from being read, or nothing.
std::string problem_with(const PublishedTensor& tensor, const PublishedNames& names,
                         const TensorSource& source) {
  const auto found = names.find(tensor.name);
  if (found == names.end())
    return fmt::format("`{}` of shape {} is missing", tensor.name, to_string(tensor.shape));
  const SafetensorsEntry& entry = source.entry(found->second);
  if (!(entry.shape == tensor.shape))
    return fmt::format("`{}` has the shape {}, the configuration asks for {}", found->second,
                       to_string(entry.shape), to_string(tensor.shape));
  const std::optional<DType> type = readable_type(entry.stored_type);
  if (type != DType::f32 && type != DType::bf16 && type != DType::f64)
    return fmt::format("`{}` is stored as {}, which is no floating-point type read here", found->second,
                       entry.stored_type);
  return {};
}

void require_agreement(const std::vector<PublishedTensor>& tensors, const PublishedNames& names,
                       const TensorSource& source, const std::string& where) {
  std::vector<std::string> problems;
  std::set<std::string> expected;
  for (const PublishedTensor& tensor : tensors) {
    expected.insert(tensor.name);
    if (std::string problem = problem_with(tensor, names, source); !problem.empty())
      problems.push_back(std::move(problem));
  }
  for (const auto& [name, stored] : names)
    if (!expected.contains(name))
      problems.push_back(fmt::format("{} is no part of the model", shown_name(stored)));
  if (problems.empty()) return;
  const std::size_t count = problems.size();
  if (count > kProblemsShown) {
    problems.resize(kProblemsShown);
    problems.push_back(fmt::format("and {} more", count - kProblemsShown));
  }
  throw Error(ErrorKind::checkpoint, fmt::format("{}", fmt::join(problems, "; ")), where,
              "check that config.json and the weights belong to the same model");
}

}  // namespace

PublishedPart local_part(const PublishedTensor& tensor, const Parameter& parameter) {
  Partition partition = parameter.partition();
  std::int64_t begin = 0, rows = parameter.shape().front();
  if (tensor.blocks.count() > 1) {
    assert(partition.axis == -1 || (partition.axis == 0 && partition.blocks == tensor.blocks));
    begin = tensor.blocks.begin(tensor.block, parameter.shape().front());
    rows = tensor.blocks.length(tensor.block, parameter.shape().front());
    partition.blocks = 1;
  }
  return {parameter.value().slice(begin, begin + rows).reshape(local_shape(tensor.shape, partition)),
          partition};
}

Tensor published_part(const PublishedTensor& tensor, const Tensor& whole) {
  const std::int64_t rows = whole.shape().front(), begin = tensor.blocks.begin(tensor.block, rows);
  return whole.slice(begin, begin + tensor.blocks.length(tensor.block, rows)).reshape(tensor.shape);
}

void import_tensors(const TensorSource& source, const std::vector<PublishedTensor>& tensors,
                    const PublishedNames& names, ParameterSet& parameters, const std::string& where) {
  require_agreement(tensors, names, source, where);
  const std::shared_ptr<Memory> memory = make_host_memory();
  for (const PublishedTensor& tensor : tensors) {
    const PublishedPart part = local_part(tensor, parameter_of(tensor, parameters));
    copy(source.read_part(names.at(tensor.name), part.partition, *memory), part.local);
  }
  parameters.refresh_bf16();
}

void require_same_model(const std::vector<PublishedTensor>& tensors, const ParameterSet& parameters,
                        const std::string& prefix, const std::string& where) {
  const auto refuse = [&](const std::string& problem) {
    throw Error(ErrorKind::checkpoint, problem, where,
                "give the run the sizes that the folder's config.json has");
  };
  std::set<std::string> covered;
  for (const PublishedTensor& tensor : tensors) {
    const Parameter* parameter = parameters.find(tensor.parameter);
    if (parameter == nullptr) refuse(fmt::format("`{}` has no place in this run's network", tensor.name));
    const Shape& whole = parameter->whole_shape();
    const std::int64_t block_rows = tensor.blocks.length(tensor.block, whole.front());
    if (whole.elements() / whole.front() * block_rows != tensor.shape.elements())
      refuse(fmt::format(
          "`{}` has the shape {}, this run's `{}` has {}{}", tensor.name, to_string(tensor.shape),
          tensor.parameter, to_string(whole),
          tensor.blocks.count() > 1 ? fmt::format(" for {} of these", tensor.blocks.count()) : ""));
    covered.insert(tensor.parameter);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name();
    if (name.starts_with(prefix) && !covered.contains(name))
      refuse(fmt::format("the folder has nothing for `{}` of this run", name));
  }
}

namespace {

using Shard = std::vector<PublishedTensor>;

/// Cuts the list where the next tensor would not fit any more; a tensor larger than a shard has one for
/// itself.
std::vector<Shard> shards_of(const std::vector<PublishedTensor>& tensors, const ExportOptions& options) {
  std::vector<Shard> shards(1);
  std::int64_t filled = 0;
  for (const PublishedTensor& tensor : tensors) {
    const std::int64_t bytes = tensor.shape.elements() * static_cast<std::int64_t>(size_of(options.type));
    if (options.shard_bytes > 0 && filled > 0 && filled + bytes > options.shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(tensor);
    filled += bytes;
  }
  return shards;
}

void write_shard(const std::filesystem::path& path, const Shard& shard, const ParameterSet& parameters,
                 DType type) {
  std::vector<SafetensorsDeclaration> declarations;
  std::map<std::string, const PublishedTensor*> by_name;
  for (const PublishedTensor& tensor : shard) {
    declarations.push_back({.name = tensor.name, .type = type, .shape = tensor.shape});
    by_name[tensor.name] = &tensor;
  }
  const std::shared_ptr<Memory> memory = make_host_memory();
  SafetensorsWriter writer(path, declarations);
  for (const SafetensorsDeclaration& next : writer.order()) {
    const PublishedTensor& tensor = *by_name.at(next.name);
    const Tensor part = published_part(tensor, parameter_of(tensor, parameters).value());
    writer.write(convert(*memory, part, type));
  }
  writer.finish();
}

void write_index(const std::filesystem::path& path, const std::map<std::string, std::string>& files,
                 std::int64_t bytes) {
  const nlohmann::json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", files}};
  OutputFile file(path);
  file.write(json_text(index, 2) + "\n");
  file.finish();
}

}  // namespace

void export_tensors(const std::filesystem::path& folder, const std::string& name,
                    const std::vector<PublishedTensor>& tensors, const ParameterSet& parameters,
                    const ExportOptions& options) {
  const std::vector<Shard> shards = shards_of(tensors, options);
  if (shards.size() == 1) {
    write_shard(folder / (name + ".safetensors"), shards.front(), parameters, options.type);
    return;
  }
  std::map<std::string, std::string> files;
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string file = fmt::format("{}-{:05}-of-{:05}.safetensors", name, i + 1, shards.size());
    write_shard(folder / file, shards[i], parameters, options.type);
    for (const PublishedTensor& tensor : shards[i]) {
      files[tensor.name] = file;
      bytes += tensor.shape.elements() * static_cast<std::int64_t>(size_of(options.type));
    }
  }
  write_index(folder / (name + ".safetensors.index.json"), files, bytes);
}

void write_documents(const std::filesystem::path& folder, const std::vector<Document>& documents) {
  for (const Document& document : documents) {
    OutputFile file(folder / document.name);
    file.write(document.text);
    file.finish();
  }
}

void export_folder(const std::filesystem::path& folder, const FolderContent& content,
                   const ExportOptions& options) {
  StagedFolder staged(folder);
  write_documents(staged.path(), content.documents);
  export_tensors(staged.path(), "model", content.tensors, content.parameters, options);
  staged.commit();
}

}  // namespace bireme
