#include "core/data/staged_dataset.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/data/shard_file.h"

namespace bireme {

namespace {

StagedDataset::Options checked(StagedDataset::Options options) {
  namespace fs = std::filesystem;
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw Error(ErrorKind::usage, what, options.output.string(), remedy);
  };
  if (options.shard_size < 1) refuse("--shard-size is not positive", "choose 1 or more");
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "name/" is "name"
  if (!fs::exists(options.output)) return options;
  if (!fs::is_directory(options.output)) refuse("the output is a file", "give the name of a new folder");
  if (fs::is_empty(options.output)) return options;
  // Only ever a dataset is deleted, whatever the command line says.
  if (!fs::exists(options.output / DatasetManifest::kFile))
    refuse("the output folder holds other files", "give the name of a new folder");
  if (!options.replace)
    refuse("the output folder holds a dataset already", "choose another name, or replace it with --force");
  return options;
}

}  // namespace

StagedDataset::StagedDataset(Options options)
    : options_(checked(std::move(options))), folder_(options_.output) {}

std::filesystem::path StagedDataset::next_shard() const {
  return folder_.path() / fmt::format("shard-{:05}.h5", shards_);
}

void StagedDataset::finish_shard(Hdf5Writer& writer, ShardEntry entry, DatasetManifest& manifest) {
  const std::filesystem::path path = next_shard();
  writer.attribute("", shard_names::records, entry.records);
  writer.attribute("", shard_names::first_record, manifest.records);
  writer.close();
  entry.file = path.filename().string();
  entry.bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
  entry.checksum = checksum_file(path);
  manifest.records += entry.records;
  manifest.shards.push_back(std::move(entry));
  ++shards_;
}

void StagedDataset::commit(const std::string& manifest) {
  write_file_atomically(folder_.path() / DatasetManifest::kFile, manifest);
  folder_.commit();
}

}  // namespace bireme
