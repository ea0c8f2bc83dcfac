#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/io/archive.h"
#include "core/io/gzip_file.h"

namespace bireme {

namespace {

constexpr std::int64_t kMaxExpansion = 1100;  // deflate cannot expand more than 1032 : 1

}  // namespace

bool is_idx(const std::filesystem::path& path) {
  std::array<std::uint8_t, 4> magic{};
  return GzipFile(path).read(magic.data(), 4) == 4 && magic[0] == 0 && magic[1] == 0 && magic[2] == 8 &&
         magic[3] >= 1 && magic[3] <= Shape::kMaxRank;
}

IdxArray read_idx(const std::filesystem::path& path) {
  GzipFile file(path);
  std::array<std::uint8_t, 4> magic{};
  if (file.read(magic.data(), 4) != 4 || magic[0] != 0 || magic[1] != 0) file.fail("is not an IDX file");
  if (magic[2] != 8) file.fail(fmt::format("holds entries of type {:#04x}, not unsigned bytes", magic[2]));
  if (magic[3] < 1 || magic[3] > Shape::kMaxRank) file.fail(fmt::format("declares {} dimensions", magic[3]));

  IdxArray array;
  std::int64_t expected = 1;
  const std::int64_t longest = static_cast<std::int64_t>(std::filesystem::file_size(path)) * kMaxExpansion;
  for (int i = 0; i < magic[3]; ++i) {
    std::array<std::uint8_t, 4> size{};
    if (file.read(size.data(), 4) != 4) file.fail("ends inside its header");
    array.shape.push_back(std::int64_t{size[0]} << 24 | size[1] << 16 | size[2] << 8 | size[3]);
    if (__builtin_mul_overflow(expected, array.shape.back(), &expected))
      expected = std::numeric_limits<std::int64_t>::max();
  }
  if (expected > longest)
    file.fail(fmt::format("declares {} entries, more than its length can hold", to_string(array.shape)));
  array.bytes.resize(static_cast<std::size_t>(expected));
  const std::size_t got = file.read(array.bytes.data(), array.bytes.size());
  std::uint8_t surplus;
  if (got < array.bytes.size()) file.fail(fmt::format("declares {} entries but holds {}", expected, got));
  if (file.read(&surplus, 1) != 0) file.fail(fmt::format("declares {} entries but holds more", expected));
  return array;
}

}  // namespace bireme
