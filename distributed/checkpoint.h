#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/autograd/partition.h"
#include "core/tensor/tensor.h"
#include "distributed/communicator.h"

namespace bireme {

/// A tensor of the training state: stored whole under its published name, whatever the layout over ranks.
/// Ranks of the tensor axis hold parts, ranks of the data axis copies.
struct CheckpointTensor {
  std::string name;
  Tensor local;  ///< this rank's part, in host memory
  Shape whole;
  Partition partition = {};
};

struct CheckpointFile {
  std::string name;  ///< "model.safetensors"
  std::vector<CheckpointTensor> tensors;
};

/// A Hugging Face folder with the training state beside it. Every rank describes the same files, tensors and
/// texts in the same order; only `local` and `partition.part` differ.
struct CheckpointContent {
  std::vector<CheckpointFile> files;
  std::map<std::string, std::string>
      texts;  ///< file name → content: config.json, training.json; those of rank 0 count
};

/// FOLDER/step-00001000
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t step);

/// Writes a checkpoint into FOLDER/step-NNNNNNNN, which appears when every byte is on the disk and not
/// before: files are written into a hidden folder beside it, the manifest with their sizes and checksums
/// last, then one rename. Files are spread over the data ranks; tensors are gathered within the tensor group
/// one at a time. A checkpoint of the same step is replaced. Collective over `world`; `tensor` is this rank's
/// group of the tensor axis, whose ranks are neighbours in `world`. All ranks must see the same file system.
/// @return        the folder
/// @throws Error  (checkpoint) the same on every rank, when any of them fails; what was saved before is
/// untouched
std::filesystem::path save_checkpoint(const std::filesystem::path& folder, std::int64_t step,
                                      const CheckpointContent& content, Communicator& world,
                                      Communicator& tensor);

}  // namespace bireme
