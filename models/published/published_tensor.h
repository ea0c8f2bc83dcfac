#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/autograd/parameter.h"
#include "core/io/safetensors.h"

namespace bireme {

/// How one tensor of a published folder lies in a parameter: it is block `block` of the logical
/// blocks of the first dimension. Fused weights (query, key, value) are several of these; most
/// parameters are one.
struct PublishedTensor {
  std::string name;       ///< in the file
  Shape shape;            ///< in the file; as many elements as the block, row by row the same
  std::string parameter;  ///< name in the ParameterSet
  int block = 0;
  Blocks blocks = 1;
};

/// This rank's part of the published tensor, a view of the parameter's value, and how that part lies in it.
struct PublishedPart {
  Tensor local;
  Partition partition;
};
PublishedPart local_part(const PublishedTensor& tensor, const Parameter& parameter);

/// The whole published tensor out of the parameter's whole value; shares its memory.
Tensor published_part(const PublishedTensor& tensor, const Tensor& whole);

/// Where each published tensor is found in a file whose names may differ: published name → name in the file.
using PublishedNames = std::map<std::string, std::string>;

/// Fills parameters from a source, whatever of them this rank owns; floating-point types are converted.
/// @param names    what the source holds, tensors to be ignored left out
/// @throws Error (checkpoint) naming every tensor that is missing, unknown, or has another shape or a type
/// that is not floating-point
void import_tensors(const TensorSource& source, const std::vector<PublishedTensor>& tensors,
                    const PublishedNames& names, ParameterSet& parameters, const std::string& where);

/// Holds a folder's model against the network that is to take it: every parameter named PREFIX… is made of
/// published tensors, and of as many numbers. @throws Error (checkpoint) naming the first that differs, with
/// both shapes
void require_same_model(const std::vector<PublishedTensor>& tensors, const ParameterSet& parameters,
                        const std::string& prefix, const std::string& where);

/// Writes the values of a set that is not split over ranks: NAME.safetensors, or shards of at most
/// `shard_bytes` each with NAME.safetensors.index.json.
struct ExportOptions {
  DType type = DType::f32;
  std::int64_t shard_bytes = 0;  ///< 0: one file
};
void export_tensors(const std::filesystem::path& folder, const std::string& name,
                    const std::vector<PublishedTensor>& tensors, const ParameterSet& parameters,
                    const ExportOptions& options);

/// A text file of a published folder.
struct Document {
  std::string name;
  std::string text;
};
void write_documents(const std::filesystem::path& folder, const std::vector<Document>& documents);

/// What a folder with one model is made of.
struct FolderContent {
  std::vector<Document> documents;
  std::vector<PublishedTensor> tensors;
  const ParameterSet& parameters;  ///< not split over ranks
};
/// Writes a folder as a whole: it appears under its name when all of it is on the disk. @throws Error
/// (checkpoint)
void export_folder(const std::filesystem::path& folder, const FolderContent& content,
                   const ExportOptions& options);

}  // namespace bireme
