#include "models/published/split_source.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

void SplitSource::split(const std::string& fused, const std::vector<Piece>& pieces,
                        const std::string& where) {
  if (!source_.contains(fused)) return;
  const SafetensorsEntry& whole = source_.entry(fused);
  std::int64_t rows = 0;
  for (const Piece& piece : pieces) rows += piece.rows;
  if (whole.shape.rank() == 0 || whole.shape.front() != rows)
    throw Error(ErrorKind::checkpoint,
                fmt::format("the fused tensor `{}` has the shape {}, and its parts {} rows together", fused,
                            to_string(whole.shape), rows),
                where, "check the sizes in config.json");
  const std::int64_t bytes_of_row = rows == 0 ? 0 : (whole.end - whole.begin) / rows;
  std::int64_t row = 0;
  for (const Piece& piece : pieces) {
    Part part{.fused = fused, .offset = row * bytes_of_row, .entry = whole};
    part.entry.shape[0] = piece.rows;
    part.entry.begin = whole.begin + part.offset;
    part.entry.end = part.entry.begin + piece.rows * bytes_of_row;
    parts_.insert_or_assign(piece.name, std::move(part));
    row += piece.rows;
  }
  gone_.push_back(fused);
}

bool SplitSource::contains(std::string_view name) const {
  return parts_.contains(name) ||
         (source_.contains(name) && std::find(gone_.begin(), gone_.end(), name) == gone_.end());
}

const SafetensorsEntry& SplitSource::entry(std::string_view name) const {
  const auto found = parts_.find(name);
  return found == parts_.end() ? source_.entry(name) : found->second.entry;
}

std::vector<std::string> SplitSource::names() const {
  std::vector<std::string> all;
  for (const std::string& name : source_.names())
    if (std::find(gone_.begin(), gone_.end(), name) == gone_.end()) all.push_back(name);
  for (const auto& [name, part] : parts_) all.push_back(name);
  std::sort(all.begin(), all.end());
  return all;
}

void SplitSource::read_bytes(std::string_view name, std::int64_t offset, std::span<std::byte> into) const {
  const auto found = parts_.find(name);
  if (found == parts_.end()) {
    source_.read_bytes(name, offset, into);
  } else {
    source_.read_bytes(found->second.fused, found->second.offset + offset, into);
  }
}

}  // namespace bireme
