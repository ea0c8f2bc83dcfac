#include "models/decoding/generator.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

namespace {

// Longer prompts are read in pieces of this many tokens, which bounds the memory of their activations.
constexpr std::size_t kPiece = 512;

}  // namespace

Generator::Generator(const Backend& backend, const LanguageModel& model, std::int64_t sequences,
                     std::int64_t capacity, DType type)
    : backend_(backend),
      model_(model),
      sequences_(sequences),
      capacity_(capacity),
      state_(model.make_state(backend, sequences, capacity, type)),
      seen_(static_cast<std::size_t>(sequences)),
      pending_(static_cast<std::size_t>(sequences)) {}

Tensor Generator::read(const std::vector<TokenList>& columns, std::size_t begin, std::size_t end) {
  const auto length = static_cast<std::int64_t>(end - begin);
  const Tensor tokens(backend_.memory().host(), {sequences_, length}, DType::i32);
  for (std::int64_t s = 0; s < sequences_; ++s)
    std::copy_n(columns[static_cast<std::size_t>(s)].begin() + static_cast<std::ptrdiff_t>(begin), length,
                tokens.data<std::int32_t>() + s * length);
  const Tensor hidden = model_.advance(backend_, tokens, *state_);
  if (length == 1) return on_host(model_.head().logits(backend_, hidden));
  const std::int64_t channels = model_.channels();
  const Tensor last(backend_.memory(), {sequences_, channels}, hidden.dtype());
  for (std::int64_t s = 0; s < sequences_; ++s)
    copy(hidden.slice((s + 1) * length - 1, (s + 1) * length), last.slice(s, s + 1));
  return on_host(model_.head().logits(backend_, last));
}

std::vector<TokenList> Generator::generate(const std::vector<TokenList>& prompts,
                                           const GenerateOptions& options, const OnToken& on_token) {
  options.sampling.validate();
  if (sequences_ > 1 && state_->position() > 0)
    throw Error(ErrorKind::usage,
                fmt::format("{} sequences were continued side by side, and cannot go on", sequences_),
                "generate",
                "make a new generator for them; one of a single sequence goes on as often as it is asked");
  const auto count = static_cast<std::size_t>(sequences_);
  std::vector<TokenList> columns(count), written(count);
  std::size_t shortest = SIZE_MAX, longest = 0;
  for (std::size_t s = 0; s < count; ++s) {
    columns[s] = pending_[s];
    columns[s].insert(columns[s].end(), prompts[s].begin(), prompts[s].end());
    seen_[s].insert(seen_[s].end(), prompts[s].begin(), prompts[s].end());
    shortest = std::min(shortest, columns[s].size());
    longest = std::max(longest, columns[s].size());
    pending_[s].clear();
  }
  if (shortest == 0)
    throw Error(ErrorKind::usage, "a prompt has no tokens", "generate",
                "give some text to go on from; a beginning or end-of-document token will do");
  const std::int64_t needed = state_->position() + static_cast<std::int64_t>(longest) + options.max_tokens;
  if (needed > capacity_)
    throw Error(ErrorKind::usage,
                fmt::format("prompt and new tokens are {} together, more than the {} that there is room for",
                            needed, capacity_),
                "generate", "shorten the prompt or lower --max-tokens");

  Tensor logits;
  for (std::size_t begin = 0; begin < shortest; begin += kPiece)
    logits = read(columns, begin, std::min(shortest, begin + kPiece));
  std::vector<char> has_ended(count, options.max_tokens > 0 ? 0 : 1);
  const std::int64_t vocabulary = model_.vocabulary();
  for (std::size_t column = shortest;; ++column) {
    for (std::size_t s = 0; s < count; ++s) {
      if (column < columns[s].size()) continue;  // its prompt is not at its end
      if (has_ended[s] != 0) {
        columns[s].push_back(columns[s].back());  // runs along; what comes out is not looked at
        continue;
      }
      const std::span<float> row(logits.data<float>() + static_cast<std::int64_t>(s) * vocabulary,
                                 static_cast<std::size_t>(vocabulary));
      const std::int32_t token =
          sample(row, seen_[s], options.keys.empty() ? static_cast<std::int64_t>(s) : options.keys[s],
                 static_cast<std::int64_t>(seen_[s].size()), options.sampling);
      const auto& stops = options.stop_tokens;
      const bool stops_here = std::find(stops.begin(), stops.end(), token) != stops.end();
      if (!stops_here) written[s].push_back(token);
      seen_[s].push_back(token);
      columns[s].push_back(token);
      const bool wants_more = stops_here || !on_token || on_token(static_cast<std::int64_t>(s), token);
      has_ended[s] =
          static_cast<char>(stops_here || !wants_more || std::ssize(written[s]) >= options.max_tokens);
      if (has_ended[s] != 0) pending_[s] = {token};
    }
    if (std::all_of(has_ended.begin(), has_ended.end(), [](char ended) { return ended != 0; })) break;
    logits = read(columns, column, column + 1);
  }
  return written;
}

}  // namespace bireme
