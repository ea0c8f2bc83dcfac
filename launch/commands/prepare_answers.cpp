#include "core/data/prepare_answers.h"

#include <spdlog/fmt/fmt.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "launch/commands.h"
#include "launch/numbers.h"
#include "launch/options.h"
#include "launch/progress.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

namespace fs = std::filesystem;

Options& declare(Options& options, const char* input_help) {
  return options.required_list("input", "FILE", input_help)
      .required(
          "tokenizer", "T",
          "`byte`, a SentencePiece .model, a Hugging Face tokenizer.json, an RWKV vocabulary .txt, or a "
          "folder with one")
      .required("output", "DATASET", "folder to write; it keeps a copy of the tokenizer")
      .value("max-length", "TOKENS", "most tokens of prompt and answer together", "1024")
      .value(
          "truncate", "WHAT",
          "what gives way beyond that: end (of the answer), prompt (its oldest tokens) or drop (the record)",
          "end")
      .value("eos", "TOKEN",
             "id or text of the token that closes an answer, or none; the tokenizer's own unless given")
      .value("chat-template", "NAME",
             "how conversations are written: chatml, llama2, llama3, zephyr or transcript; auto: as the "
             "tokenizer's configuration says",
             "auto")
      .flag("chat", "read strings and transcripts as conversations, so that the chat template applies")
      .value("part", "PART",
             "prompts to take, by their hash: all, train (60 %), judge (25 %), judge-validation (5 %) or "
             "evaluation (10 %)",
             "all")
      .flag("skip-bad", "leave lines out that cannot be read, and count them, instead of stopping")
      .value("shard-size", "RECORDS", "records of a shard", "16384")
      .value("split", "NAME", "what the dataset is for, kept in its manifest", "train")
      .flag("force", "replace a dataset that stands at the output");
}

std::int32_t end_token(const Options& options, const Tokenizer& tokenizer) {
  if (!options.has("eos")) {
    const std::int32_t found = find_end_token(tokenizer, options.text("tokenizer"));
    if (found >= 0) return found;
    throw Error(ErrorKind::usage, "the tokenizer names no token that ends an answer",
                options.text("tokenizer"),
                "name one with --eos ID or --eos TOKEN, or --eos none to teach no end");
  }
  const std::string& word = options.text("eos");
  if (word == "none") return -1;
  if (word.find_first_not_of("0123456789") == std::string::npos)
    return static_cast<std::int32_t>(options.integer("eos", 0, tokenizer.vocabulary() - 1));
  for (std::int32_t id = 0; id < tokenizer.vocabulary(); ++id)
    if (tokenizer.piece(id) == word) return id;
  throw Error(ErrorKind::usage, fmt::format("the tokenizer has no token `{}`", word), "--eos",
              "give its id, or its text as the vocabulary writes it");
}

std::optional<ChatTemplate> chat_template(const Options& options, const Tokenizer& tokenizer) {
  if (options.text("chat-template") != "auto") return ChatTemplate(options.text("chat-template"));
  std::string jinja = ChatTemplate::jinja_of(tokenizer);
  const fs::path given = options.path("tokenizer"),
                 beside = (fs::is_directory(given) ? given : given.parent_path()) / "chat_template.jinja";
  if (jinja.empty() && fs::is_regular_file(beside)) jinja = read_file(beside, 1 << 20, ErrorKind::data);
  if (jinja.empty()) return {};
  const std::string name = ChatTemplate::recognize(jinja);
  // Only conversations need it, so the complaint waits until there is one.
  if (name.empty() && !options.flag("chat")) return {};
  if (name.empty())
    throw Error(ErrorKind::usage, "the tokenizer's chat template is none of those that bireme writes",
                options.text("tokenizer"),
                fmt::format("name the one that comes nearest with --chat-template: {}",
                            fmt::join(ChatTemplate::names(), ", ")));
  return ChatTemplate(name);
}

nlohmann::ordered_json json_of(const PrepareAnswersReport& report, const std::string& output) {
  const AnswerManifest& m = report.manifest;
  nlohmann::ordered_json json{{"output", output},
                              {"kind", m.kind},
                              {"records", m.records},
                              {"tokens", m.tokens},
                              {"answer_tokens", m.answer_tokens},
                              {"counts", m.counts},
                              {"first_bad_lines", report.first_bad_lines}};
  if (m.likes + m.dislikes > 0) json.update({{"likes", m.likes}, {"dislikes", m.dislikes}});
  if (m.scores > 0) json.update({{"score_mean", m.score_mean}, {"score_deviation", m.score_deviation}});
  return json;
}

void print_summary(const PrepareAnswersReport& report, const std::string& output) {
  for (const std::string& line : report.first_bad_lines) fmt::print("left out: {}\n", line);
  const AnswerManifest& m = report.manifest;
  fmt::print("wrote {} records of {} to {}: {} tokens, {} of them in answers\n", m.records, m.kind, output,
             m.tokens, m.answer_tokens);
  for (const auto& [name, count] : m.counts) fmt::print("  {:<20} {}\n", name, count);
}

/// Everything that the three commands share, once the options are read.
int prepare(const Options& options, PrepareAnswersOptions what) {
  if (launched_as().rank != 0) return 0;  // one process does the work, with all threads
  for (const std::string& input : options.texts("input")) what.lines.inputs.emplace_back(input);
  what.lines.skip_bad = options.flag("skip-bad");
  what.tokens.tokenizer = open_tokenizer(options.text("tokenizer"));
  what.tokens.end = end_token(options, *what.tokens.tokenizer);
  what.tokens.chat_template = chat_template(options, *what.tokens.tokenizer);
  what.tokens.as_chat = options.flag("chat");
  what.tokens.max_length = options.integer("max-length", 2, 1 << 30);
  const std::string& truncate = options.choice("truncate", {"end", "prompt", "drop"});
  what.tokens.truncation = truncate == "end"      ? Truncation::end
                           : truncate == "prompt" ? Truncation::prompt
                                                  : Truncation::drop;
  what.output = options.path("output");
  what.split = options.text("split");
  what.part = parse_part(options.text("part"));
  what.shard_size = options.integer("shard-size", 1, std::int64_t{1} << 31);
  what.replace = options.flag("force");
  std::optional<Progress> bar;
  what.progress = [&](std::int64_t done, std::int64_t total, std::int64_t records) {
    if (!bar) bar.emplace(terminal_progress("byte", total, 0, 0));
    bar->update(done, fmt::format("{} records", short_number(static_cast<double>(records))));
  };
  const PrepareAnswersReport report = prepare_answers(what);
  bar.reset();
  if (options.json())
    fmt::print("{}\n", json_text(json_of(report, options.text("output"))));
  else
    print_summary(report, options.text("output"));
  return 0;
}

}  // namespace

int run_prepare_pairs(Arguments arguments) {
  Options options("bireme prepare pairs",
                  "turns preferences into a dataset: prompts with a chosen and a rejected answer");
  declare(options,
          ".jsonl[.gz] with prompt, chosen and rejected, in strings or conversations, or chosen and rejected "
          "transcripts")
      .flag("keep-identical", "keep pairs whose answers are equal; they are left out and counted otherwise")
      .flag("drop-ties", "leave out pairs on which the raters were divided (preference 0.5)")
      .flag("from-feedback", "make pairs of scored single answers to the same prompt")
      .value("min-margin", "SCORE", "with --from-feedback: leave out pairs whose scores are closer", "0")
      .example(
          "bireme prepare pairs --input harmless.jsonl.gz --tokenizer models/pythia --output data/harmless "
          "--part train")
      .example(
          "bireme prepare pairs --input scored.jsonl --from-feedback --min-margin 0.5 --tokenizer byte "
          "--output data/scored");
  if (!options.parse(arguments)) return 0;
  PrepareAnswersOptions what;
  what.kind = AnswerKind::pairs;
  what.lines.kind = options.flag("from-feedback") ? AnswerKind::feedback : AnswerKind::pairs;
  what.keep_identical = options.flag("keep-identical");
  what.drop_ties = options.flag("drop-ties");
  what.min_margin = options.number("min-margin", 0);
  return prepare(options, what);
}

int run_prepare_feedback(Arguments arguments) {
  Options options(
      "bireme prepare feedback",
      "turns judged single answers into a dataset: prompts with an answer, and a label or a score");
  declare(options, ".jsonl[.gz] with prompt and completion (or messages), and label, score or both")
      .flag("from-pairs",
            "read pairs: each becomes a liked and a disliked answer with the scores given, or 1 and 0")
      .example(
          "bireme prepare feedback --input scored.jsonl.gz --tokenizer models/pythia --output data/scored")
      .example(
          "bireme prepare feedback --input pairs.jsonl --from-pairs --tokenizer byte --output data/singles "
          "--max-length 512 --truncate prompt");
  if (!options.parse(arguments)) return 0;
  PrepareAnswersOptions what;
  what.kind = AnswerKind::feedback;
  what.lines.kind = options.flag("from-pairs") ? AnswerKind::pairs : AnswerKind::feedback;
  return prepare(options, what);
}

int run_prepare_sft(Arguments arguments) {
  Options options("bireme prepare sft",
                  "turns instructions into a dataset: prompts with an answer to imitate");
  declare(options, ".jsonl[.gz] with prompt and completion, or messages whose last turn is the answer")
      .flag("from-pairs", "read pairs, and take their chosen answers")
      .example("bireme prepare sft --input dolly.jsonl.gz --tokenizer models/pythia --output data/dolly")
      .example(
          "bireme prepare sft --input pairs.jsonl.gz --from-pairs --chat --chat-template chatml --tokenizer "
          "models/pythia --output data/chosen");
  if (!options.parse(arguments)) return 0;
  PrepareAnswersOptions what;
  what.kind = AnswerKind::sft;
  what.lines.kind = options.flag("from-pairs") ? AnswerKind::pairs : AnswerKind::sft;
  return prepare(options, what);
}

}  // namespace bireme
