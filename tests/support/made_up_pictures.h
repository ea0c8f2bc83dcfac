#pragma once

#include <filesystem>

namespace bireme::test {

inline constexpr int kPictureSide = 8;

/// A dataset of grey pictures of kPictureSide pixels a side, in three classes and shards of six.
void write_made_up_pictures(const std::filesystem::path& folder, int pictures);

}  // namespace bireme::test
