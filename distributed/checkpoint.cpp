#include "distributed/checkpoint.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "core/base/files.h"
#include "core/base/json.h"
#include "core/io/safetensors_writer.h"
#include "distributed/agreement.h"
#include "distributed/checkpoint_manifest.h"

namespace bireme {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// The whole tensor on the host, joined from the parts of the tensor group. Collective over the group where
/// it is split.
Tensor gather_whole(const CheckpointTensor& part, Communicator& group, Memory& memory) {
  if (part.partition.axis < 0 || part.partition.parts == 1) return on_device(memory, part.local);
  assert(part.partition.parts == group.size());
  const auto partition_of = [&part](int rank) {
    Partition partition = part.partition;
    partition.part = rank;
    return partition;
  };
  // The first part is the largest; where parts are uneven, the others are padded to its size.
  const std::int64_t elements = local_shape(part.whole, partition_of(0)).elements();
  const Tensor parts(memory, {group.size() * elements}, part.local.dtype());
  const Tensor mine = parts.view(group.rank() * elements, {elements});
  copy(part.local, mine.view(0, part.local.shape()));
  group.all_gather(mine, parts).wait();
  Tensor whole(memory, part.whole, part.local.dtype());
  for (int rank = 0; rank < group.size(); ++rank) {
    const Partition partition = partition_of(rank);
    place_part(parts.view(rank * elements, local_shape(part.whole, partition)), whole, partition);
  }
  return whole;
}

std::vector<SafetensorsDeclaration> declarations_of(const CheckpointFile& file) {
  std::vector<SafetensorsDeclaration> declarations;
  declarations.reserve(file.tensors.size());
  for (const CheckpointTensor& tensor : file.tensors)
    declarations.push_back({tensor.name, tensor.local.dtype(), tensor.whole});
  return declarations;
}

std::int64_t bytes_of(const CheckpointFile& file) {
  return std::accumulate(file.tensors.begin(), file.tensors.end(), std::int64_t{0},
                         [](std::int64_t sum, const CheckpointTensor& tensor) {
                           return sum + tensor.whole.elements() *
                                            static_cast<std::int64_t>(size_of(tensor.local.dtype()));
                         });
}

/// Writes one file, on every rank of a tensor group; the first of the group does the writing. A rank that
/// fails goes on with the gathering, since the others of its group wait for its parts, and reports at the
/// end.
CheckpointManifest::File write_file(const fs::path& path, const CheckpointFile& file, Communicator& group) {
  const auto memory = make_host_memory();  // its cached blocks go with it
  CheckpointManifest::File written;
  std::optional<SafetensorsWriter> writer;
  std::exception_ptr failure;
  const auto try_to = [&](const auto& action) {
    if (group.rank() != 0 || failure) return;
    try {
      action();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  try_to([&] { writer.emplace(path, declarations_of(file)); });
  for (const SafetensorsDeclaration& next : SafetensorsWriter::layout(declarations_of(file))) {
    const auto tensor = std::ranges::find(file.tensors, next.name, &CheckpointTensor::name);
    const Tensor whole = gather_whole(*tensor, group, *memory);
    try_to([&] {
      writer->write(whole);
      written.tensors[next.name] = checksum_bytes(std::span<const std::byte>(whole.raw(), whole.bytes()));
    });
  }
  try_to([&] { written.record = writer->finish(); });
  writer.reset();
  if (failure) std::rethrow_exception(failure);
  return written;
}

/// Which data rank writes which file: the largest goes to the one with the least to write. The same on every
/// rank.
std::vector<int> assign_writers(const std::vector<CheckpointFile>& files, int data_ranks) {
  std::vector<std::size_t> order(files.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return bytes_of(files[i]); });
  std::vector<std::int64_t> load(static_cast<std::size_t>(data_ranks));
  std::vector<int> writers(files.size());
  for (const std::size_t i : order) {
    const auto least = std::ranges::min_element(load);
    writers[i] = static_cast<int>(least - load.begin());
    *least += bytes_of(files[i]) + 1;
  }
  return writers;
}

void finish_checkpoint(StagedFolder& staged, CheckpointManifest manifest,
                       const std::map<std::string, std::string>& texts) {
  for (const auto& [name, text] : texts) {
    OutputFile file(staged.path() / name);
    file.write(text);
    manifest.files[name].record = file.finish();
  }
  manifest.check_sizes(staged.path());  // also finds ranks whose file system is another one
  OutputFile file(staged.path() / CheckpointManifest::kFileName);
  file.write(manifest.to_text());
  file.finish();
  staged.commit();
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, std::int64_t step) {
  return folder / fmt::format("step-{:08}", step);
}

fs::path save_checkpoint(const fs::path& folder, std::int64_t step, const CheckpointContent& content,
                         Communicator& world, Communicator& tensor) {
  const fs::path target = checkpoint_path(folder, step);
  std::optional<StagedFolder> staged;  // on rank 0; removed again when anything below throws
  const fs::path place = run_on_first(world, [&] {
    std::int64_t bytes = 0;
    for (const CheckpointFile& file : content.files) bytes += bytes_of(file);
    staged.emplace(target);
    require_free_space(folder, bytes, "the checkpoint");
    return staged->path().string();
  });

  const int data_rank = world.rank() / tensor.size();
  const std::vector<int> writers = assign_writers(content.files, world.size() / tensor.size());
  const std::vector<std::string> reports = gather_or_fail(world, [&] {
    json report = json::object();
    std::exception_ptr failure;  // the first; the group's other files are gathered all the same
    for (std::size_t i = 0; i < content.files.size(); ++i) {
      if (writers[i] != data_rank) continue;
      try {
        const CheckpointManifest::File file =
            write_file(place / content.files[i].name, content.files[i], tensor);
        if (tensor.rank() != 0) continue;
        report[content.files[i].name] = {
            {"bytes", file.record.bytes}, {"checksum", file.record.checksum}, {"tensors", file.tensors}};
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::rank_lost || error.kind() == ErrorKind::hang) throw;
        if (!failure) failure = std::current_exception();
      } catch (const std::exception&) {
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return json_text(report);
  });

  run_on_first(world, [&] {
    CheckpointManifest manifest;
    manifest.step = step;
    for (const std::string& text : reports) {
      const json report = parse_json(text);
      for (const auto& [name, file] : report.items()) {
        manifest.files[name] = {.record = {.bytes = file["bytes"], .checksum = file["checksum"]},
                                .tensors = file["tensors"]};
      }
    }
    finish_checkpoint(*staged, std::move(manifest), content.texts);
    return std::string();
  });
  return target;
}

}  // namespace bireme
