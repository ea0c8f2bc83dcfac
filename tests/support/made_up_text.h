#pragma once

#include <cstdint>
#include <filesystem>

namespace bireme::test {

struct MadeUpText {
  std::uint64_t documents = 40;
  std::int64_t shortest = 20;  ///< pairs of letters; the longest has three times as many
};

/// A dataset of documents of random letters; every other letter follows from the one before, so there is
/// something to learn.
void write_made_up_text(const std::filesystem::path& folder, const MadeUpText& text);

}  // namespace bireme::test
