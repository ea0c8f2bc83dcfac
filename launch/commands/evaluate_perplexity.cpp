#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "launch/commands/evaluate.h"
#include "launch/language_session.h"
#include "launch/progress.h"
#include "objectives/evaluate/perplexity.h"

namespace bireme {

namespace {

/// Bytes of text for each token, from the beginning of the dataset; 0 where there is no tokenizer.
double bytes_per_token(const TokenDataset& text) {
  const std::shared_ptr<const Tokenizer> tokenizer = text.tokenizer();
  if (!tokenizer) return 0;
  constexpr std::int64_t sample = 1 << 20;
  const TokenRun run = text.read(0, std::min(sample, text.tokens()));
  std::size_t bytes = 0;
  for (const std::int32_t token : run.tokens) bytes += tokenizer->bytes(token).size();
  return static_cast<double>(bytes) / static_cast<double>(run.tokens.size());
}

/// Calls f(fewest tokens before, most, perplexity) for each part of a window that has tokens to predict.
template <class F>
void for_each_part(const Perplexity& found, std::int64_t length, const F& f) {
  const std::int64_t parts = std::ssize(found.parts);
  const auto first = [&](std::int64_t part) { return (part * length + parts - 1) / parts + 1; };
  for (std::int64_t i = 0; i < parts; ++i)
    if (const Perplexity& part = found.parts[static_cast<std::size_t>(i)]; part.tokens > 0)
      f(first(i), first(i + 1) - 1, part);
}

nlohmann::ordered_json json_of_parts(const Perplexity& found, std::int64_t length) {
  auto json = nlohmann::ordered_json::array();
  for_each_part(found, length, [&](std::int64_t fewest, std::int64_t most, const Perplexity& part) {
    json.push_back({{"fewest_before", fewest},
                    {"most_before", most},
                    {"perplexity", part.value()},
                    {"accuracy", part.accuracy},
                    {"tokens", part.tokens}});
  });
  return json;
}

void print_parts(const Perplexity& found, std::int64_t length) {
  for_each_part(found, length, [](std::int64_t fewest, std::int64_t most, const Perplexity& part) {
    fmt::print("after {:>5} to {:>5} tokens: perplexity {:>9.4f}, accuracy {:6.2f} %, {} tokens\n", fewest,
               most, part.value(), 100 * part.accuracy, part.tokens);
  });
}

}  // namespace

int run_perplexity(Arguments arguments) {
  Options options("bireme evaluate perplexity", "measures how well a language model predicts a text");
  LanguageSession::declare_with_tensor(options)
      .required("data", "DATASET", "text, from `bireme prepare text`")
      .value("length", "T",
             "tokens of a window; 0: a sequence where the dataset has such, the model's context, or 1024",
             "0")
      .value("stride", "S", "tokens between windows, each scoring its last S; 0: the length", "0")
      .value("windows", "N", "windows to take at most, from the beginning; 0: all", "0")
      .value("batch-size", "N", "windows at a time", "8")
      .value("parts", "N",
             "also by the number of tokens before the predicted one, in N equal parts of the window", "1")
      .flag("documents-apart", "neither state nor attention crosses the borders of documents")
      .example("bireme evaluate perplexity --model runs/parity --data parity-test --parts 8")
      .example(
          "mpirun -n 2 bireme evaluate perplexity --model runs/bible --data bible-validation --length 2048 "
          "--stride 512 --json");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) {
    const LanguageSession session(options, world);
    const TokenDataset text = TokenDataset::open(options.path("data"));
    session.require_vocabulary(text.manifest().vocabulary, options.text("data"));
    PerplexityOptions perplexity{.windows = options.integer("windows", 0),
                                 .batch_size = options.integer("batch-size", 1, 1 << 20),
                                 .documents_apart = options.flag("documents-apart"),
                                 .parts = static_cast<int>(options.integer("parts", 1, 1 << 16)),
                                 .type = session.type()};
    constexpr std::int64_t unbounded = 1024;
    const std::int64_t context = session.model().context(), length = options.integer("length", 0, 1 << 24),
                       stride = options.integer("stride", 0, 1 << 24);
    const std::int64_t sequence = text.manifest().sequence_length;
    perplexity.length = length > 0 ? length : sequence > 0 ? sequence : context > 0 ? context : unbounded;
    perplexity.stride = stride > 0 ? stride : perplexity.length;
    std::optional<Progress> bar;
    const Perplexity found =
        evaluate_perplexity(session.backend(), session.data(), session.model(), text, perplexity,
                            [&](std::int64_t done, std::int64_t total) {
                              if (!bar) bar.emplace(terminal_progress("window", total, 0, world.rank()));
                              bar->update(done);
                            });
    bar.reset();
    if (world.rank() != 0) return 0;
    const double bits = found.log_loss / std::log(2.0), bytes = bytes_per_token(text);
    if (options.json()) {
      nlohmann::ordered_json json{{"perplexity", found.value()}, {"log_loss", found.log_loss},
                                  {"bits_per_token", bits},      {"accuracy", found.accuracy},
                                  {"tokens", found.tokens},      {"length", perplexity.length},
                                  {"stride", perplexity.stride}};
      if (bytes > 0) json["bits_per_byte"] = bits / bytes;
      if (perplexity.parts > 1) json["parts"] = json_of_parts(found, perplexity.length);
      fmt::print("{}\n", json_text(json));
      return 0;
    }
    fmt::print("perplexity {:.4f} over {} tokens (log-loss {:.4f}, {:.4f} bits a token{})\n", found.value(),
               found.tokens, found.log_loss, bits,
               bytes > 0 ? fmt::format(", {:.4f} bits a byte", bits / bytes) : "");
    fmt::print("accuracy {:.2f} %\n", 100 * found.accuracy);
    if (perplexity.parts > 1) print_parts(found, perplexity.length);
    return 0;
  });
}

}  // namespace bireme
