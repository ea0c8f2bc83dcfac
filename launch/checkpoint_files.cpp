#include "launch/checkpoint_files.h"

namespace bireme {

namespace {

/// One of the logical blocks of the parameter that holds it.
CheckpointTensor published_tensor(const PublishedTensor& tensor, const ParameterSet& parameters) {
  const Parameter& parameter = *parameters.find(tensor.parameter);
  Partition partition = parameter.partition();
  if (partition.axis == 0) partition.blocks /= tensor.blocks;
  const std::int64_t count = parameter.value().elements() / tensor.blocks;
  return {.name = tensor.name,
          .local = parameter.value().view(tensor.block * count, local_shape(tensor.shape, partition)),
          .whole = tensor.shape,
          .partition = partition};
}

}  // namespace

CheckpointTensor whole_parameter(const std::string& name, const Parameter& parameter, const Tensor& local) {
  return {.name = name, .local = local, .whole = parameter.whole_shape(), .partition = parameter.partition()};
}

CheckpointFile published_file(const std::string& name, const std::vector<PublishedTensor>& tensors,
                              const ParameterSet& parameters) {
  CheckpointFile file{.name = name, .tensors = {}};
  for (const PublishedTensor& tensor : tensors) file.tensors.push_back(published_tensor(tensor, parameters));
  return file;
}

}  // namespace bireme
