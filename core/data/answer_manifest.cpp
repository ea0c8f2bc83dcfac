#include "core/data/answer_manifest.h"

#include <cmath>

#include "core/data/manifest_json.h"

namespace bireme {

using manifest_json::Fields;

namespace {

constexpr AnswerKind kKinds[] = {AnswerKind::sft, AnswerKind::pairs, AnswerKind::feedback};
constexpr Truncation kTruncations[] = {Truncation::end, Truncation::prompt, Truncation::drop};

/// The one whose name it is. @throws Error (data)
template <class T, std::size_t N>
T named(const Fields& fields, const char* key, const T (&choices)[N]) {
  const std::string name = fields.text(key);
  for (const T choice : choices)
    if (name == to_string(choice)) return choice;
  fields.fail(fmt::format("`{}` is `{}`", key, name));
}

std::int32_t token(const Fields& fields, const char* key, std::int64_t vocabulary) {
  return fields.has(key) ? static_cast<std::int32_t>(fields.count(key, vocabulary - 1)) : -1;
}

double number(const Fields& fields, const char* key) {
  if (!fields.at(key).is_number()) fields.fail(fmt::format("`{}` is not a number", key));
  return fields.at(key).get<double>();
}

}  // namespace

const char* to_string(AnswerKind kind) {
  return kind == AnswerKind::sft ? "sft" : kind == AnswerKind::pairs ? "pairs" : "feedback";
}

const char* to_string(Truncation truncation) {
  return truncation == Truncation::end ? "end" : truncation == Truncation::prompt ? "prompt" : "drop";
}

std::string to_json(const AnswerManifest& manifest) {
  manifest_json::Json json = manifest_json::common(manifest);
  json["tokens"] = manifest.tokens;
  json["answer_tokens"] = manifest.answer_tokens;
  json["vocabulary"] = manifest.vocabulary;
  if (manifest.begin >= 0) json["begin"] = manifest.begin;
  if (manifest.end >= 0) json["end"] = manifest.end;
  json["max_length"] = manifest.max_length;
  json["truncation"] = to_string(manifest.truncation);
  json["chat_template"] = manifest.chat_template;
  json["part"] = manifest.part;
  json["tokenizer"] = {{"kind", manifest.tokenizer_kind}, {"fingerprint", manifest.tokenizer_fingerprint}};
  json["counts"] = manifest_json::Json::object();
  for (const auto& [name, count] : manifest.counts) json["counts"][name] = count;
  json["likes"] = manifest.likes;
  json["dislikes"] = manifest.dislikes;
  json["scores"] = {{"count", manifest.scores}};
  if (manifest.scores > 0)
    json["scores"].update({{"mean", manifest.score_mean}, {"deviation", manifest.score_deviation}});
  return manifest_json::finished(std::move(json), manifest);
}

AnswerManifest parse_answer_manifest(std::string_view text, const std::string& where) {
  const manifest_json::Json json = manifest_json::parse(text, where);
  const Fields fields(json, where);
  AnswerManifest manifest;
  manifest.answer_kind = named(fields, "kind", kKinds);
  manifest_json::parse_common(manifest, fields, to_string(manifest.answer_kind), true, where);
  manifest.tokens = fields.count("tokens");
  manifest_json::require_sum(fields, manifest, "tokens", &ShardEntry::tokens);
  manifest.answer_tokens = fields.count("answer_tokens", manifest.tokens);
  if (manifest.answer_tokens < manifest.records) fields.fail("has more records than tokens of answers");
  manifest.vocabulary = fields.count("vocabulary", std::int64_t{1} << 31);
  if (manifest.vocabulary == 0) fields.fail("`vocabulary` is 0");
  manifest.begin = token(fields, "begin", manifest.vocabulary);
  manifest.end = token(fields, "end", manifest.vocabulary);
  manifest.max_length = fields.count("max_length");
  manifest.truncation = named(fields, "truncation", kTruncations);
  manifest.chat_template = fields.text("chat_template");
  manifest.part = fields.text("part");
  const Fields tokenizer(fields.at("tokenizer"), where + ": tokenizer");
  manifest.tokenizer_kind = tokenizer.text("kind");
  manifest.tokenizer_fingerprint = tokenizer.text("fingerprint");
  const Fields counts(fields.at("counts"), where + ": counts");
  for (const auto& [name, value] : fields.at("counts").items())
    manifest.counts[name] = counts.count(name.c_str());
  manifest.likes = fields.count("likes", manifest.records);
  manifest.dislikes = fields.count("dislikes", manifest.records - manifest.likes);
  const Fields scores(fields.at("scores"), where + ": scores");
  manifest.scores = scores.count("count", manifest.records * manifest.answers());
  if (manifest.scores > 0) {
    manifest.score_mean = number(scores, "mean");
    manifest.score_deviation = number(scores, "deviation");
    if (!(manifest.score_deviation >= 0)) scores.fail("`deviation` is negative");
  }
  return manifest;
}

}  // namespace bireme
