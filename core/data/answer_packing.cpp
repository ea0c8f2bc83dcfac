#include "core/data/answer_packing.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

namespace {

/// Collects rows and scored tokens, then makes tensors of them.
class Packer {
 public:
  explicit Packer(const PackingOptions& options) : options_(options) {}

  void add(const AnswerRecord& record) {
    const std::size_t count = options_.chosen_only ? 1 : record.answers.size();
    if (options_.share_prompts) {
      begin_document(record);
      for (std::size_t i = 0; i < count; ++i) add_answer(record, i);
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      begin_document(record);
      add_answer(record, i);
    }
  }

  AnswerRows finish(Memory& memory) && {
    result_.tokens = tensor_of(memory, tokens_).reshape({1, std::ssize(tokens_)});
    result_.rows = tensor_of(memory, rows_);
    result_.targets = tensor_of(memory, targets_);
    result_.places = result_.rows;
    if (options_.share_prompts) select_rows(memory);
    return std::move(result_);
  }

 private:
  static Tensor tensor_of(Memory& memory, const std::vector<std::int32_t>& values) {
    Tensor tensor(memory, {std::ssize(values)}, DType::i32);
    std::ranges::copy(values, tensor.data<std::int32_t>());
    return tensor;
  }
  void select_rows(Memory& memory) {
    std::vector<std::int32_t> needed = rows_, places;
    std::ranges::sort(needed);
    needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
    if (needed.size() == tokens_.size()) return;
    places.reserve(rows_.size());
    for (const std::int32_t row : rows_)
      places.push_back(static_cast<std::int32_t>(std::ranges::lower_bound(needed, row) - needed.begin()));
    result_.needed = tensor_of(memory, needed);
    result_.places = tensor_of(memory, places);
  }
  std::int64_t next_row() const { return std::ssize(tokens_); }

  void begin_document(const AnswerRecord& record) {
    result_.documents.push_back({.begin = next_row(), .trunk = std::ssize(record.prompt), .branches = {}});
    tokens_.insert(tokens_.end(), record.prompt.begin(), record.prompt.end());
  }

  void score(std::int64_t row, std::int32_t target, bool counts, bool imitated) {
    rows_.push_back(static_cast<std::int32_t>(row));
    targets_.push_back(target);
    result_.scored.push_back({.answer = static_cast<std::int32_t>(result_.answers.size()),
                              .counts = counts,
                              .imitated = imitated});
  }

  void add_answer(const AnswerRecord& record, std::size_t which) {
    const std::vector<std::int32_t>& answer = record.answers[which];
    Branching& document = result_.documents.back();
    const bool imitates = options_.imitation != Imitation::none && which == 0;
    const std::int64_t scored_before = std::ssize(rows_);
    if (imitates && options_.imitation == Imitation::sequence)
      for (std::size_t j = 1; j < record.prompt.size(); ++j)
        score(document.begin + static_cast<std::int64_t>(j) - 1, record.prompt[j], false, true);
    const std::int64_t prompt_items = std::ssize(rows_) - scored_before, first = next_row();
    for (std::size_t j = 0; j < answer.size(); ++j) {
      if (j > 0) {
        score(first + static_cast<std::int64_t>(j) - 1, answer[j], true, imitates);
      } else if (document.trunk > 0) {
        score(document.begin + document.trunk - 1, answer[j], true, imitates);
      }
    }
    const std::int64_t items = std::ssize(rows_) - scored_before;
    if (items == prompt_items)
      throw Error(ErrorKind::data,
                  fmt::format("answer {} of record {} has no token to score", which, record.number),
                  "dataset", "prepare the dataset again, which drops such answers");
    if (answer.size() > 1) tokens_.insert(tokens_.end(), answer.begin(), answer.end() - 1);
    document.branches.push_back(std::ssize(answer) - 1);
    result_.answers.push_back({.record = record.number,
                               .position = std::ssize(result_.answers),
                               .tokens = items - prompt_items,
                               .imitated = imitates ? items : 0,
                               .prompt_begin = document.begin,
                               .prompt_length = document.trunk});
  }

  PackingOptions options_;
  AnswerRows result_;
  std::vector<std::int32_t> tokens_, rows_, targets_;
};

}  // namespace

std::int64_t count_imitated(const AnswerLengths& lengths, Imitation imitation) {
  if (imitation == Imitation::none) return 0;
  const std::int64_t prompt = imitation == Imitation::sequence && lengths.prompt > 0 ? lengths.prompt - 1 : 0;
  return prompt + lengths.scored(0);
}

AnswerRows pack_answers(std::span<const AnswerRecord> records, const PackingOptions& options,
                        Memory& memory) {
  Packer packer(options);
  for (const AnswerRecord& record : records) packer.add(record);
  return std::move(packer).finish(memory);
}

}  // namespace bireme
