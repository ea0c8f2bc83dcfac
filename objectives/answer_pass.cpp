#include "objectives/answer_pass.h"

#include <algorithm>

namespace bireme {

namespace {

AnswerPass lay_out(std::span<const AnswerRecord> records, std::vector<PlacedDocument> documents,
                   std::int64_t rows, Memory& memory) {
  AnswerPass pass{.tokens = Tensor(memory, {1, rows}, DType::i32),
                  .starts = Tensor(memory, {1, rows}, DType::u8),
                  .documents = std::move(documents)};
  std::fill_n(pass.starts.data<std::uint8_t>(), rows, std::uint8_t{0});
  for (const PlacedDocument& document : pass.documents) {
    const AnswerRecord& record = records[document.record];
    const std::vector<std::int32_t>& answer = record.answers[document.answer];
    std::int32_t* into = pass.tokens.data<std::int32_t>() + document.first_row;
    std::copy(answer.begin(), answer.end(), std::copy(record.prompt.begin(), record.prompt.end(), into));
    pass.starts.data<std::uint8_t>()[document.first_row] = 1;
  }
  return pass;
}

}  // namespace

void for_each_pass(std::span<const AnswerRecord> records, std::int64_t budget, Memory& memory,
                   const std::function<void(const AnswerPass&)>& use) {
  std::vector<PlacedDocument> documents;
  std::int64_t rows = 0;
  const auto flush = [&] {
    if (!documents.empty()) use(lay_out(records, std::move(documents), rows, memory));
    documents.clear();
    rows = 0;
  };
  for (std::size_t i = 0; i < records.size(); ++i)
    for (std::size_t a = 0; a < records[i].answers.size(); ++a) {
      const std::int64_t prompt = std::ssize(records[i].prompt),
                         length = prompt + std::ssize(records[i].answers[a]);
      if (rows + length > budget) flush();
      documents.push_back({.record = i, .answer = a, .first_row = rows, .prompt = prompt, .length = length});
      rows += length;
    }
  flush();
}

}  // namespace bireme
