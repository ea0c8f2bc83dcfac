#include "tests/support/answers.h"

#include <map>

#include "core/tensor/random.h"

namespace bireme::test {

std::vector<double> golden_numbers(const Golden& golden, const std::string& path) {
  if (!golden.has(path)) return {};
  const Tensor tensor = golden.tensor(path);
  std::vector<double> values;
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    switch (tensor.dtype()) {
      case DType::i32: values.push_back(tensor.data<std::int32_t>()[i]); break;
      case DType::u8: values.push_back(tensor.data<std::uint8_t>()[i]); break;
      case DType::f32: values.push_back(tensor.data<float>()[i]); break;
      default: values.push_back(tensor.data<double>()[i]); break;
    }
  }
  return values;
}

namespace {

struct Rows {
  std::vector<std::vector<std::int32_t>> prompts, answers;
};

Rows rows_of(const Golden& golden, const std::string& path) {
  const std::vector<double> tokens = golden_numbers(golden, path + "/tokens"),
                            lengths = golden_numbers(golden, path + "/length"),
                            prompts = golden_numbers(golden, path + "/prompt_length");
  const std::size_t width = tokens.size() / lengths.size();
  Rows rows;
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const auto length = static_cast<std::size_t>(lengths[b]), prompt = static_cast<std::size_t>(prompts[b]);
    const auto part = [&](std::size_t begin, std::size_t end) {
      std::vector<std::int32_t> ids;
      for (std::size_t j = begin; j < end; ++j)
        ids.push_back(static_cast<std::int32_t>(tokens[b * width + j]));
      return ids;
    };
    rows.prompts.push_back(part(0, prompt));
    rows.answers.push_back(part(prompt, length));
  }
  return rows;
}

}  // namespace

std::vector<AnswerRecord> golden_records(const Golden& golden, const std::string& path) {
  const bool pairs = golden.has(path + "/chosen/tokens");
  const Rows first = rows_of(golden, pairs ? path + "/chosen" : path);
  const Rows second = pairs ? rows_of(golden, path + "/rejected") : Rows();
  std::map<std::vector<std::int32_t>, std::uint64_t> keys;
  std::vector<AnswerRecord> records(first.prompts.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    records[i].number = static_cast<std::int64_t>(i);
    records[i].prompt = first.prompts[i];
    records[i].answers = {first.answers[i]};
    if (pairs) records[i].answers.push_back(second.answers[i]);
    records[i].prompt_key = keys.try_emplace(first.prompts[i], keys.size()).first->second;
  }
  return records;
}

AnswerBatch batch_of(const std::vector<AnswerRecord>& step, const BatchShare& share, Memory& memory) {
  const std::size_t each = step.size() / static_cast<std::size_t>(share.size),
                    first = each * static_cast<std::size_t>(share.rank);
  AnswerBatch batch;
  batch.global_count = std::ssize(step);
  batch.rows = pack_answers(std::span(step).subspan(first, each), share.packing, memory);
  const std::int64_t answers = std::ssize(batch.rows.answers) / static_cast<std::int64_t>(each);
  batch.global_answers = answers * batch.global_count;
  for (const AnswerRecord& record : step) {
    AnswerLengths lengths{.prompt = std::ssize(record.prompt), .answers = {}};
    for (const auto& answer : record.answers) lengths.answers.push_back(std::ssize(answer));
    batch.global_imitated += count_imitated(lengths, share.packing.imitation);
  }
  for (std::size_t i = 0; i < batch.rows.answers.size(); ++i) {
    PlacedAnswer& answer = batch.rows.answers[i];
    answer.position = static_cast<std::int64_t>(first) * answers + static_cast<std::int64_t>(i);
    answer.prompt =
        static_cast<std::int64_t>(step[static_cast<std::size_t>(answer.position / answers)].prompt_key);
  }
  for (std::size_t i = 0; i < each; ++i) batch.records.push_back(static_cast<std::int64_t>(first + i));
  return batch;
}

std::vector<AnswerRecord> made_up_pairs(std::int64_t count, std::int64_t prompt, std::int64_t answer,
                                        std::int64_t vocabulary, std::uint64_t seed) {
  std::vector<AnswerRecord> records;
  RandomStream random(seed, 0, RandomUse::test);
  const auto some = [&](std::int64_t length) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = 0; i < length; ++i)
      tokens.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
    return tokens;
  };
  for (std::int64_t i = 0; i < count; ++i) {
    AnswerRecord record;
    record.number = i;
    record.prompt = some(prompt + i % 3);
    record.answers = {some(answer + i % 2), some(answer + (i + 1) % 4)};
    record.prompt_key = static_cast<std::uint64_t>(i);
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace bireme::test
