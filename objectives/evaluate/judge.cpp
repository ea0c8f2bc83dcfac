#include "objectives/evaluate/judge.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/io/safetensors.h"
#include "objectives/answer_pass.h"
#include "objectives/answer_scores.h"
#include "objectives/reference_cache.h"

namespace bireme {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr std::int64_t kBudget = 1 << 12;  // rows of a pass
constexpr const char* kHead = "score.weight";

[[noreturn]] void refuse_judge(const std::string& what, const fs::path& where) {
  throw Error(ErrorKind::checkpoint, what, where.string(),
              "give a judge: a folder or run of `bireme train` with objective.type = judge");
}

}  // namespace

std::string JudgeDescription::to_json() const {
  return json_text(Json{{"format", "bireme judge"},
                        {"base_sha256", base},
                        {"part", part},
                        {"data_fingerprint", data},
                        {"seed", seed},
                        {"end", end},
                        {"chat_template", chat_template},
                        {"max_length", max_length}},
                   2) +
         "\n";
}

JudgeDescription JudgeDescription::read(const fs::path& folder) {
  const fs::path path = folder / kFile;
  if (!fs::exists(path)) refuse_judge("the folder holds a model, but no judge", folder);
  const nlohmann::json json = try_parse_json(read_file(path, 1 << 20));
  if (!json.is_object() || json.value("format", "") != "bireme judge")
    refuse_judge("is not the description of a judge", path);
  try {
    return {.base = json.at("base_sha256").get<std::string>(),
            .part = json.at("part").get<std::string>(),
            .data = json.at("data_fingerprint").get<std::string>(),
            .seed = json.at("seed").get<std::int64_t>(),
            .end = json.at("end").get<std::int32_t>(),
            .chat_template = json.at("chat_template").get<std::string>(),
            .max_length = json.at("max_length").get<std::int64_t>()};
  } catch (const Json::exception& error) {
    refuse_judge(fmt::format("the description of the judge is damaged ({})", error.what()), path);
  }
}

bool holds_judge(const fs::path& folder) { return fs::exists(folder / JudgeDescription::kFile); }

Judge Judge::open(const fs::path& folder, const Backend& backend, Communicator& tensor, DType type) {
  Judge judge(backend, type);
  judge.description_ = JudgeDescription::read(folder);
  judge.tokenizer_ = open_tokenizer(folder.string());
  judge.published_ = open_language_model(folder, backend.memory(), tensor,
                                         {.gradients = false, .bf16_copy = type == DType::bf16});
  const SafetensorsFile file = SafetensorsFile::open(folder / JudgeDescription::kWeights);
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor weight = file.read(kHead, *memory);
  const std::int64_t channels = judge.published_->model().channels();
  if (weight.dtype() != DType::f32 || weight.elements() != channels)
    refuse_judge(fmt::format("`{}` is {} of {}, the model has {} channels", kHead, to_string(weight.shape()),
                             to_string(weight.dtype()), channels),
                 file.path());
  judge.weight_.assign(weight.values<float>().begin(), weight.values<float>().end());
  return judge;
}

Judge Judge::open_likelihood(const fs::path& folder, const Backend& backend, Communicator& tensor,
                             DType type) {
  Judge judge(backend, type);
  judge.tokenizer_ = open_tokenizer(folder.string());
  judge.published_ = open_language_model(folder, backend.memory(), tensor,
                                         {.gradients = false, .bf16_copy = type == DType::bf16});
  judge.description_ = {.base = hash_of_model(folder),
                        .part = "unknown",
                        .data = {},
                        .end = judge.tokenizer_->special().document_end,
                        .chat_template = ChatTemplate::recognize(ChatTemplate::jinja_of(*judge.tokenizer_))};
  if (const std::int64_t context = judge.published_->model().context(); context > 0)
    judge.description_.max_length = context;
  return judge;
}

namespace {

/// r of one row. @param hidden  [R, C], fp32 or bf16
double score_row(const Tensor& hidden, std::int64_t row, std::span<const float> weight) {
  const auto channels = static_cast<std::int64_t>(weight.size());
  double sum = 0;
  const auto add = [&]<class T>(const T* from) {
    for (std::int64_t c = 0; c < channels; ++c)
      sum += double{to_float(from[row * channels + c])} * double{weight[static_cast<std::size_t>(c)]};
  };
  if (hidden.dtype() == DType::bf16)
    add(hidden.data<bf16>());
  else
    add(hidden.data<float>());
  return sum;
}

}  // namespace

std::vector<std::vector<double>> judge_records(const Backend& backend, const LanguageModel& model,
                                               std::span<const float> weight,
                                               std::span<const AnswerRecord> records, DType type) {
  std::vector<std::vector<double>> scores;
  for (const AnswerRecord& record : records) scores.emplace_back(record.answers.size());
  for_each_pass(records, kBudget, backend.memory().host(), [&](const AnswerPass& pass) {
    Tape tape(backend, Tape::Mode::inference);
    const Var hidden = model.hidden(tape, {pass.tokens, pass.starts}, {.type = type});
    const Tensor rows = on_host(hidden.value());
    for (const PlacedDocument& document : pass.documents)
      scores[document.record][document.answer] = score_row(rows, document.last_row(), weight);
  });
  return scores;
}

std::vector<std::vector<double>> Judge::score(std::span<const AnswerRecord> records) const {
  if (!reads_likelihoods()) return judge_records(*backend_, published_->model(), weight_, records, type_);
  std::vector<std::vector<double>> means;
  means.reserve(records.size());
  for (const std::vector<AnswerScore>& answers :
       score_answers(*backend_, published_->model(), records, {.type = type_})) {
    means.emplace_back();
    for (const AnswerScore& answer : answers) means.back().push_back(answer.mean());
  }
  return means;
}

std::vector<std::vector<double>> Judge::score(std::span<const AnswerText> texts) const {
  AnswerTokensOptions options{.tokenizer = tokenizer_,
                              .end = description_.end,
                              .chat_template = {},
                              .as_chat = !description_.chat_template.empty(),
                              .max_length = description_.max_length,
                              .truncation = Truncation::end};
  if (!description_.chat_template.empty()) options.chat_template = ChatTemplate(description_.chat_template);
  std::vector<AnswerRecord> records;
  for (const AnswerText& text : texts) {
    Counts counts;
    std::optional<AnswerRecord> record = tokenize_answers(text, options, counts);
    if (!record) {
      AnswerTokensOptions other = options;
      other.truncation = Truncation::prompt;
      record = tokenize_answers(text, other, counts);
    }
    if (!record)
      throw Error(ErrorKind::data, "an answer has no token that the judge could score", "judge",
                  "leave empty answers out");
    records.push_back(std::move(*record));
  }
  return score(records);
}

}  // namespace bireme
