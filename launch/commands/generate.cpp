#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "launch/language_session.h"
#include "models/decoding/generator.h"

namespace bireme {

namespace {

GenerateOptions generate_options(const Options& options, const LanguageSession& session) {
  GenerateOptions generate{.max_tokens = options.integer("max-tokens", 0, 1 << 24),
                           .sampling = {.temperature = options.number("temperature"),
                                        .top_k = options.integer("top-k"),
                                        .top_p = options.number("top-p"),
                                        .min_p = options.number("min-p"),
                                        .repetition_penalty = options.number("repetition-penalty"),
                                        .seed = static_cast<std::uint64_t>(options.integer("seed", 0))},
                           .stop_tokens = {}};
  generate.sampling.validate();
  generate.stop_tokens = session.published().end_tokens();
  if (const std::int32_t end = session.tokenizer().special().document_end; end >= 0)
    generate.stop_tokens.push_back(end);
  return generate;
}

/// What one sequence has become: text as it grows, cut where one of the stop texts begins.
class GrowingText {
 public:
  GrowingText(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : stream_(tokenizer, false), stops_(stops) {}

  /// Text that is sure to stay.
  std::string push(std::int32_t token) { return settle(stream_.push(token), false); }
  std::string finish() { return settle(stream_.finish(), true); }
  bool has_stopped() const { return has_stopped_; }

 private:
  std::string settle(const std::string& more, bool is_last) {
    if (has_stopped_) return {};
    waiting_ += more;
    std::size_t keep = is_last ? waiting_.size() : waiting_.size() - possible_stop();
    for (const std::string& stop : stops_) {
      const std::size_t found = waiting_.find(stop);
      if (found == std::string::npos) continue;
      keep = std::min(keep, found);
      has_stopped_ = true;
    }
    std::string sure = waiting_.substr(0, keep);
    waiting_.erase(0, keep);
    return sure;
  }
  /// Length of the longest end of the text that a stop text may begin with.
  std::size_t possible_stop() const {
    std::size_t longest = 0;
    for (const std::string& stop : stops_)
      for (std::size_t n = std::min(stop.size() - 1, waiting_.size()); n > longest; --n)
        if (std::string_view(waiting_).ends_with(std::string_view(stop).substr(0, n))) longest = n;
    return longest;
  }

  TokenStream stream_;
  const std::vector<std::string>& stops_;
  std::string waiting_;
  bool has_stopped_ = false;
};

void show(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

/// Reads lines and answers each, until the input ends; the model remembers what was said.
int converse(const LanguageSession& session, const GenerateOptions& generate, const Options& options,
             const std::vector<std::string>& stops) {
  const Tokenizer& tokenizer = session.tokenizer();
  Generator generator(session.backend(), session.model(), 1, options.integer("context", 1, 1 << 28),
                      session.type());
  std::string line;
  for (bool is_first = true; fmt::print(stderr, "> "), std::getline(std::cin, line); is_first = false) {
    line += '\n';
    const TokenList prompt = is_first ? tokenizer.encode_start(line) : tokenizer.encode(line);
    GrowingText text(tokenizer, stops);
    generator.generate({prompt}, generate, [&](std::int64_t, std::int32_t token) {
      show(text.push(token));
      return !text.has_stopped();
    });
    show(text.finish() + "\n");
  }
  return 0;
}

int run_prompts(const LanguageSession& session, const GenerateOptions& generate, const Options& options,
                const std::vector<std::string>& stops) {
  const Tokenizer& tokenizer = session.tokenizer();
  const std::vector<std::string> texts = options.texts("prompt");
  std::vector<TokenList> prompts;
  std::size_t longest = 0;
  for (const std::string& text : texts) {
    prompts.push_back(tokenizer.encode_start(text));
    // Nothing to go on from: begin like a document.
    if (prompts.back().empty() && tokenizer.special().document_end >= 0)
      prompts.back() = {tokenizer.special().document_end};
    longest = std::max(longest, prompts.back().size());
  }
  const auto length = static_cast<std::int64_t>(longest);
  const std::int64_t context = session.model().context(), needed = length + generate.max_tokens;
  if (context > 0 && length > context && !options.flag("beyond-context"))
    throw Error(ErrorKind::usage,
                fmt::format("the prompt has {} tokens, more than the model's context of {}", length, context),
                "--prompt", "shorten it, or go on all the same with --beyond-context");
  if (context > 0 && needed > context)
    log_warning("prompt and new tokens may reach {}, past the model's context of {}", needed, context);
  Generator generator(session.backend(), session.model(), std::ssize(prompts), needed, session.type());
  // Every rank chooses the same tokens, and one shows them.
  const bool speaks = session.tensor().rank() == 0;
  const bool streams = options.flag("stream") && prompts.size() == 1 && !options.json() && speaks;
  std::vector<GrowingText> growing(prompts.size(), GrowingText(tokenizer, stops));
  std::vector<std::string> results(prompts.size());
  if (streams) show(texts.front());
  const auto began = std::chrono::steady_clock::now();
  const std::vector<TokenList> written =
      generator.generate(prompts, generate, [&](std::int64_t sequence, std::int32_t token) {
        const auto s = static_cast<std::size_t>(sequence);
        const std::string more = growing[s].push(token);
        results[s] += more;
        if (streams) show(more);
        return !growing[s].has_stopped();
      });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::size_t tokens = 0;
  for (std::size_t s = 0; s < prompts.size(); ++s) {
    const std::string rest = growing[s].finish();
    results[s] += rest;
    tokens += written[s].size();
    if (streams) show(rest + "\n");
    if (!streams && !options.json() && speaks)
      show(texts[s] + results[s] + (s + 1 < texts.size() ? "\n----\n" : "\n"));
  }
  if (!speaks) return 0;
  if (options.json()) {
    nlohmann::ordered_json json{{"results", nlohmann::ordered_json::array()},
                                {"tokens_per_second", static_cast<double>(tokens) / seconds}};
    for (std::size_t s = 0; s < prompts.size(); ++s)
      json["results"].push_back({{"prompt", texts[s]},
                                 {"text", results[s]},
                                 {"prompt_tokens", prompts[s]},
                                 {"tokens", written[s]}});
    fmt::print("{}\n", json_text(json));
  } else {
    fmt::print(stderr, "{} tokens, {:.1f} tokens/s\n", tokens, static_cast<double>(tokens) / seconds);
  }
  return 0;
}

}  // namespace

int run_generate(Arguments arguments) {
  Options options("bireme generate", "continues text with a language model");
  LanguageSession::declare_with_tensor(options)
      .list("prompt", "TEXT", "text to go on from; several are continued side by side")
      .value("max-tokens", "N", "tokens to add at most", "100")
      .value("temperature", "T", "0 always takes the likeliest token, 1 draws as the model says", "1")
      .value("top-k", "K", "draw from the K likeliest; 0: from all", "0")
      .value("top-p", "P", "draw from the likeliest that have the share P together", "1")
      .value("min-p", "P", "leave out what is less likely than P times the likeliest", "0")
      .value("repetition-penalty", "R", "divides the logits of tokens that were seen; 1: none", "1")
      .value("seed", "N", "of the draws", "0")
      .list("stop", "TEXT", "end where this would appear")
      .flag("stream", "show the text while it grows")
      .flag("interactive", "read lines from standard input and answer each; what was said is remembered")
      .value("context", "N", "tokens that a conversation may have", "16384")
      .flag("beyond-context", "take prompts longer than the model was made for")
      .example("bireme generate --model runs/shakespeare --prompt \"ROMEO:\" --temperature 0.8 --stream")
      .example(
          "bireme generate --model runs/bible --prompt \"In the beginning\" \"And God said\" --top-k 40 "
          "--json");
  if (!options.parse(arguments)) return 0;
  if (!options.flag("interactive") && options.texts("prompt").empty())
    throw Error(ErrorKind::usage, "no prompt is given", "bireme generate",
                "pass --prompt TEXT, or --interactive");
  return run_job([&](Communicator& world) {
    if (!options.has("tensor")) LanguageSession::require_one_rank(world, "bireme generate");
    if (options.flag("interactive"))
      LanguageSession::require_one_rank(world, "bireme generate --interactive");
    const LanguageSession session(options, world);
    if (session.data().size() > 1)
      throw Error(
          ErrorKind::usage,
          fmt::format("{} ranks were started, but {} share the model", world.size(), session.tensor().size()),
          "bireme generate",
          fmt::format("start {}, or pass --tensor {}", session.tensor().size(), world.size()));
    const GenerateOptions generate = generate_options(options, session);
    const std::vector<std::string> stops = options.texts("stop");
    return options.flag("interactive") ? converse(session, generate, options, stops)
                                       : run_prompts(session, generate, options, stops);
  });
}

}  // namespace bireme
