#include "tests/support/made_up_text.h"

#include <vector>

#include "core/data/token_writer.h"
#include "core/tensor/random.h"

namespace bireme::test {

void write_made_up_text(const std::filesystem::path& folder, const MadeUpText& text) {
  TokenWriter writer({.output = folder, .vocabulary = 27, .document_end = 26, .tokenizer = nullptr});
  for (std::uint64_t document = 0; document < text.documents; ++document) {
    RandomStream random(1, document, RandomUse::test);
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = text.shortest + random.below(2 * text.shortest); i > 0; --i) {
      tokens.push_back(static_cast<std::int32_t>(random.below(26)));
      tokens.push_back((tokens.back() + 3) % 26);
    }
    tokens.push_back(26);
    writer.append(tokens);
    writer.end_document();
  }
  writer.finish();
}

}  // namespace bireme::test
