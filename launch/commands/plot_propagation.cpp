#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/text/tokenizer.h"
#include "launch/commands/plot.h"
#include "launch/gnuplot.h"
#include "launch/language_session.h"
#include "launch/propagation_picture.h"

namespace bireme {

namespace {

/// Tokens [begin, end) of a prompt.
struct Subject {
  std::int64_t begin = 0, end = 0;
};

/// The tokens of `text`'s first appearance in the prompt, those that hold only a part of it included.
Subject tokens_of(const std::string& text, const Tokenizer& tokenizer,
                  const std::vector<std::int32_t>& prompt) {
  std::string whole;
  std::vector<std::size_t> ends;
  for (const std::int32_t token : prompt) {
    whole += tokenizer.bytes(token);
    ends.push_back(whole.size());
  }
  const std::size_t found = text.empty() ? std::string::npos : whole.find(text);
  if (found == std::string::npos)
    throw Error(ErrorKind::usage, fmt::format("`{}` does not appear in the prompt", text), "--subject",
                "give words of the prompt, spelt as there");
  Subject subject;
  while (ends[static_cast<std::size_t>(subject.begin)] <= found) ++subject.begin;
  subject.end = subject.begin + 1;
  while (ends[static_cast<std::size_t>(subject.end) - 1] < found + text.size()) ++subject.end;
  return subject;
}

std::string first_word(const std::string& prompt) {
  const std::size_t begin = prompt.find_first_not_of(" \n\t");
  return begin == std::string::npos ? prompt
                                    : prompt.substr(begin, prompt.find_first_of(" \n\t", begin) - begin);
}

Subject chosen_subject(const Options& options, const Tokenizer& tokenizer,
                       const std::vector<std::int32_t>& prompt) {
  if (options.has("token") && options.has("subject"))
    throw Error(ErrorKind::usage, "both --token and --subject are given", "bireme plot propagation",
                "leave one of them out");
  if (options.has("token")) {
    const std::int64_t token = options.integer("token", 0, std::ssize(prompt) - 1);
    return {token, token + 1};
  }
  return tokens_of(options.has("subject") ? options.text("subject") : first_word(options.text("prompt")),
                   tokenizer, prompt);
}

/// The first token of --answer as it follows the prompt; -1: what the model finds likeliest.
std::int32_t chosen_answer(const Options& options, const Tokenizer& tokenizer) {
  if (!options.has("answer")) return -1;
  const std::vector<std::int32_t> tokens = tokenizer.encode(options.text("answer"));
  if (tokens.empty())
    throw Error(ErrorKind::usage, "the answer is empty", "--answer", "give what should follow the prompt");
  return tokens.front();
}

}  // namespace

int run_plot_propagation(Arguments arguments) {
  Options options(
      "bireme plot propagation",
      "draws where in an RWKV a fact of the prompt passes on its way to the answer: the subject's "
      "embeddings are spoilt by noise, and one vector at a time is put back");
  LanguageSession::declare(options)
      .required("prompt", "TEXT", "text whose next token is the answer")
      .required("output", "FILE", "picture to write: .png, .svg or .pdf")
      .value("subject", "TEXT", "words of the prompt to spoil; without it and --token, the first word")
      .value("token", "N", "spoil this token of the prompt, counted from 0")
      .value("answer", "TEXT", "watch its first token; without it, what the model finds likeliest")
      .value("draws", "N", "draws of the noise to average over", "10")
      .value("seed", "N", "of the noise", "0")
      .example(
          "bireme plot propagation --model runs/bible --prompt \"And God said, Let there be \" --subject "
          "God --output fact.png")
      .example(
          "bireme plot propagation --model models/rwkv-4-430m-pile --prompt \"The Eiffel Tower is located "
          "in the city of\" --subject \"The Eiffel Tower\" --answer \" Paris\" --output paris.pdf");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) {
    LanguageSession::require_one_rank(world, "bireme plot propagation");
    require_picture_name(options.path("output"));
    const LanguageSession session(options, world);
    const Rwkv& model = require_rwkv(session.model(), options.text("model"));
    const Tokenizer& tokenizer = session.tokenizer();
    const std::vector<std::int32_t> prompt = tokenizer.encode_start(options.text("prompt"));
    if (prompt.empty())
      throw Error(ErrorKind::usage, "the prompt is empty", "--prompt", "give the words before the answer");
    const Subject subject = chosen_subject(options, tokenizer, prompt);
    const Tensor tokens(session.backend().memory(), {1, std::ssize(prompt)}, DType::i32);
    std::copy(prompt.begin(), prompt.end(), tokens.data<std::int32_t>());
    const Propagation trace = trace_propagation(
        session.backend(), model,
        {.tokens = tokens,
         .subject_begin = subject.begin,
         .subject_end = subject.end,
         .noise = propagation_noise(model, options.integer("draws", 1, 1000), subject.end - subject.begin,
                                    static_cast<std::uint64_t>(options.integer("seed", 0))),
         .answer = chosen_answer(options, tokenizer),
         .type = session.type()});

    PropagationPicture picture{.trace = trace,
                               .tokens = {},
                               .subject_begin = subject.begin,
                               .subject_end = subject.end,
                               .answer = visible_text(tokenizer.bytes(trace.answer))};
    for (const std::int32_t token : prompt) {
      const std::string text = visible_text(tokenizer.bytes(token));
      picture.tokens.push_back(text.empty() ? tokenizer.piece(token) : text);
    }
    draw_with_gnuplot(options.path("output"),
                      [&](const std::filesystem::path& drawn) { return propagation_script(picture, drawn); });
    if (options.json()) {
      nlohmann::ordered_json result = {{"output", options.text("output")},
                                       {"answer", picture.answer},
                                       {"clean_probability", trace.clean_probability},
                                       {"corrupted_probability", trace.corrupted_probability},
                                       {"tokens", picture.tokens},
                                       {"subject", {subject.begin, subject.end}},
                                       {"probability", nlohmann::ordered_json::array()}};
      for (std::int64_t l = 0; l < trace.probability.shape()[0]; ++l) {
        const auto row = trace.probability.slice(l, l + 1).values<double>();
        result["probability"].push_back(std::vector<double>(row.begin(), row.end()));
      }
      fmt::print("{}\n", json_text(result));
      return 0;
    }
    fmt::print("answer `{}`: probability {:.4g}, {:.4g} with noise on tokens {} to {}; wrote {}\n",
               picture.answer, trace.clean_probability, trace.corrupted_probability, subject.begin,
               subject.end - 1, options.text("output"));
    return 0;
  });
}

}  // namespace bireme
