#include "distributed/checkpoint_reader.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/files.h"
#include "core/base/json.h"
#include "distributed/agreement.h"

namespace bireme {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::int64_t kMaxTextBytes = std::int64_t{64} << 20;
constexpr std::size_t kListed = 10;  // differences shown before "and N more"

[[noreturn]] void refuse_file(const std::string& file, const fs::path& folder) {
  throw Error(ErrorKind::checkpoint, fmt::format("checkpoint holds no {}", file), folder.string(),
              "name a checkpoint of the same kind of run");
}

bool is_floating(DType type) { return type == DType::f32 || type == DType::bf16 || type == DType::f64; }

void require_same_structure(const CheckpointFile& expected, const SafetensorsFile& stored,
                            const LoadOptions& options) {
  std::vector<std::string> differences;
  std::set<std::string> wanted;
  for (const CheckpointTensor& tensor : expected.tensors) {
    wanted.insert(tensor.name);
    if (!stored.contains(tensor.name)) {
      if (!options.allow_missing)
        differences.push_back(fmt::format("{} is missing", shown_name(tensor.name)));
      continue;
    }
    const SafetensorsEntry& entry = stored.entry(tensor.name);
    const std::optional<DType> type = readable_type(entry.stored_type);
    if (entry.shape != tensor.whole) {
      differences.push_back(fmt::format("{} is {}, expected {}", shown_name(tensor.name),
                                        to_string(entry.shape), to_string(tensor.whole)));
    } else if (type != tensor.local.dtype() &&
               !(type && is_floating(*type) && is_floating(tensor.local.dtype()))) {
      differences.push_back(fmt::format("{} has type {}, expected {}", shown_name(tensor.name),
                                        entry.stored_type, stored_type_name(tensor.local.dtype())));
    }
  }
  for (const auto& entry : stored.entries())
    if (!options.allow_extra && !wanted.contains(entry.first))
      differences.push_back(fmt::format("{} is not part of the model", shown_name(entry.first)));
  if (differences.empty()) return;
  const std::size_t more = differences.size() - std::min(differences.size(), kListed);
  differences.resize(differences.size() - more);
  throw Error(ErrorKind::checkpoint,
              fmt::format("tensors differ from the model: {}{}", fmt::join(differences, "; "),
                          more > 0 ? fmt::format("; and {} more", more) : ""),
              stored.path().string(), "use the model configuration that the checkpoint was made with");
}

}  // namespace

CheckpointReader CheckpointReader::open(const fs::path& folder, Verify verify) {
  CheckpointReader reader(folder, CheckpointManifest::read(folder));
  reader.manifest_.check_sizes(folder);
  if (verify == Verify::checksums)
    for (const auto& file : reader.manifest_.files) reader.manifest_.check_content(folder, file.first);
  return reader;
}

CheckpointReader CheckpointReader::open(const fs::path& folder, Communicator& world) {
  std::vector<CheckpointReader> reader;  // one, or gather_or_fail throws
  (void)gather_or_fail(world, [&] {
    const CheckpointManifest& manifest = reader.emplace_back(open(folder, Verify::sizes)).manifest_;
    int turn = 0;
    for (const auto& file : manifest.files)
      if (turn++ % world.size() == world.rank()) manifest.check_content(folder, file.first);
    return std::string();
  });
  return std::move(reader.front());
}

std::string CheckpointReader::text(const std::string& file) const {
  if (!has(file)) refuse_file(file, folder_);
  std::string text = read_file(folder_ / file, kMaxTextBytes);
  const std::string& expected = manifest_.files.at(file).record.checksum;
  if (const std::string actual = checksum_bytes(text); actual != expected) {
    throw Error(ErrorKind::checkpoint, fmt::format("checksum is {}, the manifest says {}", actual, expected),
                (folder_ / file).string(), "resume from an older checkpoint, or copy this one again");
  }
  return text;
}

SafetensorsFile CheckpointReader::tensors(const std::string& file) const {
  if (!has(file)) refuse_file(file, folder_);
  return SafetensorsFile::open(folder_ / file);
}

void CheckpointReader::load(const CheckpointFile& file, const LoadOptions& options) const {
  const SafetensorsFile stored = tensors(file.name);
  require_same_structure(file, stored, options);
  const auto memory = make_host_memory();
  for (const CheckpointTensor& tensor : file.tensors) {
    if (!stored.contains(tensor.name)) continue;
    const Tensor part = stored.read_part(tensor.name, tensor.partition, *memory);
    if (const auto position = first_non_finite(part); position && !options.allow_non_finite) {
      throw Error(
          ErrorKind::not_finite,
          fmt::format("element {} of tensor {} is NaN or infinite",
                      global_index(*position, tensor.whole, tensor.partition), shown_name(tensor.name)),
          stored.path().string(), "resume from an older checkpoint");
    }
    copy(part, tensor.local);
  }
}

// ---- a folder of checkpoints ----

namespace {

/// The steps that have a folder, newest first.
std::vector<std::int64_t> steps_in(const fs::path& folder) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    std::int64_t step = 0;
    const auto parsed =
        std::from_chars(name.data() + std::min<std::size_t>(5, name.size()), name.data() + name.size(), step);
    if (parsed.ec == std::errc() && checkpoint_path(folder, step).filename() == name && entry.is_directory())
      steps.push_back(step);
  }
  std::ranges::sort(steps, std::greater{});
  return steps;
}

}  // namespace

std::optional<LatestCheckpoint> find_latest_checkpoint(const fs::path& folder, Verify verify) {
  LatestCheckpoint latest;
  for (const std::int64_t step : steps_in(folder)) {
    try {
      latest.folder = CheckpointReader::open(checkpoint_path(folder, step), verify).folder();
      latest.step = step;
      return latest;
    } catch (const Error& error) {
      latest.warnings.push_back(fmt::format("checkpoint of step {} is damaged and passed over: {}: {}", step,
                                            error.problem(), error.where()));
    }
  }
  if (latest.warnings.empty()) return std::nullopt;
  throw Error(ErrorKind::checkpoint,
              fmt::format("no checkpoint is whole ({})", fmt::join(latest.warnings, "; ")), folder.string(),
              "copy a whole checkpoint there, or start a new run");
}

std::optional<LatestCheckpoint> find_latest_checkpoint(const fs::path& folder, Communicator& world) {
  const json found = parse_json(run_on_first(world, [&] {
    const std::optional<LatestCheckpoint> latest = find_latest_checkpoint(folder);
    return latest ? json_text(json{{"step", latest->step}, {"warnings", latest->warnings}})
                  : std::string("{}");
  }));
  if (found.empty()) return std::nullopt;
  return LatestCheckpoint{
      .folder = checkpoint_path(folder, found["step"]), .step = found["step"], .warnings = found["warnings"]};
}

std::vector<fs::path> prune_checkpoints(const fs::path& folder, int keep) {
  std::vector<fs::path> deleted;
  int whole = 0;
  for (const std::int64_t step : steps_in(folder)) {
    const fs::path path = checkpoint_path(folder, step);
    try {
      (void)CheckpointReader::open(path, Verify::sizes);
    } catch (const Error&) {
      continue;
    }
    if (++whole <= std::max(keep, 1)) continue;
    const fs::path hidden =
        folder / fmt::format(".tmp-old-{}", path.filename().string());  // swept, should this be interrupted
    std::error_code error;
    fs::remove_all(hidden, error);
    fs::rename(path, hidden, error);
    if (!error) fs::remove_all(hidden, error);
    if (error) {
      throw Error(ErrorKind::checkpoint, fmt::format("cannot delete an old checkpoint: {}", error.message()),
                  path.string(), "check the permissions of the folder");
    }
    deleted.push_back(path);
  }
  return deleted;
}

}  // namespace bireme
