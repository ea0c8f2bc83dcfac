#include "core/text/tokenizer.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/data/text_documents.h"
#include "core/text/train_sentencepiece.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

constexpr const char* kTokenizerHelp =
    "`byte`, a SentencePiece .model, a Hugging Face tokenizer.json, an RWKV vocabulary .txt, or a folder "
    "with "
    "one";

int run_train_tokenizer(Arguments arguments) {
  Options options("bireme tokenizer train", "learns a SentencePiece vocabulary from text");
  options
      .required_list("input", "FILE", ".txt or .jsonl (with the text under \"text\"), each also .gz; UTF-8")
      .required("vocab-size", "N",
                "pieces of the vocabulary, the 256 bytes and three special ones among them")
      .required("output", "FILE.model", "model file to write")
      .value("type", "TYPE", "bpe or unigram", "bpe")
      .value("bad-lines", "POLICY",
             "stop at a line that is not UTF-8 or not the right JSON, or skip such lines and count them",
             "stop")
      .flag("force", "replace a file that stands at the output")
      .example("bireme tokenizer train --input shakespeare.txt --vocab-size 4096 --output shakespeare.model")
      .example(
          "bireme tokenizer train --input books.jsonl.gz --vocab-size 8000 --type unigram --output "
          "books.model");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  const std::filesystem::path output = options.path("output");
  if (output.extension() != ".model")
    throw Error(ErrorKind::usage, "the name of a SentencePiece model ends in .model", output.string(),
                "name the output FILE.model");
  if (std::filesystem::exists(output) && !options.flag("force"))
    throw Error(ErrorKind::usage, "there is such a file already", output.string(),
                "choose another name, or replace it with --force");
  TextDocumentsOptions text;
  for (const std::string& input : options.texts("input")) text.inputs.emplace_back(input);
  text.skip_bad_lines = options.choice("bad-lines", {"stop", "skip"}) == "skip";
  TextDocuments documents(std::move(text));
  const std::string model = train_sentencepiece({.vocabulary = options.integer("vocab-size", 260, 1 << 22),
                                                 .type = options.choice("type", {"bpe", "unigram"}),
                                                 .threads = omp_get_max_threads()},
                                                [&] { return documents.next(); });
  if (!output.parent_path().empty()) std::filesystem::create_directories(output.parent_path());
  write_file_atomically(output, model);

  const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(output.string());
  const TextDocumentsReport& report = documents.report();
  if (options.json()) {
    fmt::print("{}\n", json_text(nlohmann::ordered_json{{"output", output.string()},
                                                        {"vocabulary", tokenizer->vocabulary()},
                                                        {"bytes", report.bytes},
                                                        {"bad_lines", report.bad_lines},
                                                        {"fingerprint", tokenizer->fingerprint()}}));
    return 0;
  }
  for (const std::string& line : report.first_bad_lines) fmt::print("left out: {}\n", line);
  fmt::print("wrote {} pieces, learnt from {} of text, to {}\n", tokenizer->vocabulary(),
             readable_bytes(report.bytes), output.string());
  if (report.bad_lines > 0) fmt::print("left {} bad lines out\n", report.bad_lines);
  return 0;
}

int run_encode(Arguments arguments) {
  Options options("bireme tokenizer encode", "shows the tokens of a text");
  options.required("tokenizer", "T", kTokenizerHelp)
      .required("text", "TEXT", "what to encode")
      .example("bireme tokenizer encode --tokenizer books.model --text 'Call me Ishmael.'")
      .example("bireme tokenizer encode --tokenizer byte --text hello --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(options.text("tokenizer"));
  const std::vector<std::int32_t> ids = tokenizer->encode(options.text("text"));
  nlohmann::ordered_json json{{"ids", ids}, {"pieces", nlohmann::ordered_json::array()}};
  for (const std::int32_t id : ids) json["pieces"].push_back(tokenizer->piece(id));
  if (options.json()) {
    fmt::print("{}\n", json_text(json));
    return 0;
  }
  for (const std::int32_t id : ids) fmt::print("{:>8}  {}\n", id, tokenizer->piece(id));
  return 0;
}

int run_decode(Arguments arguments) {
  Options options("bireme tokenizer decode", "shows the text of tokens");
  options.required("tokenizer", "T", kTokenizerHelp)
      .required("ids", "LIST", "token ids, such as 104,105")
      .example("bireme tokenizer decode --tokenizer byte --ids 104,105")
      .example("bireme tokenizer decode --tokenizer books.model --ids 300,271,12 --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const std::shared_ptr<const Tokenizer> tokenizer = open_tokenizer(options.text("tokenizer"));
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : options.integers("ids", 0, tokenizer->vocabulary() - 1))
    ids.push_back(static_cast<std::int32_t>(id));
  const std::string text = tokenizer->decode(ids);
  if (options.json())
    fmt::print("{}\n", json_text(nlohmann::json{{"text", text}}));
  else
    fmt::print("{}\n", text);
  return 0;
}

}  // namespace

int run_tokenizer(Arguments arguments) {
  static constexpr Command list[] = {
      {"train", "learn a SentencePiece vocabulary from text", run_train_tokenizer},
      {"encode", "show the tokens of a text", run_encode},
      {"decode", "show the text of tokens", run_decode},
  };
  return dispatch("bireme tokenizer", "makes and shows the vocabularies of language models", list, arguments);
}

}  // namespace bireme
