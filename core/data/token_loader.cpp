#include "core/data/token_loader.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/data/loader.h"
#include "core/data/read_ahead.h"

namespace bireme {

std::int64_t count_windows(std::int64_t tokens, const TokenWindows& windows) {
  if (windows.length < 1)
    throw Error(ErrorKind::usage, fmt::format("data.sequence_length is {}", windows.length), "section [data]",
                "choose 1 or more");
  if (tokens <= windows.length)
    throw Error(ErrorKind::usage,
                fmt::format("the dataset has {} tokens, too few for one sequence of {} and its last target",
                            tokens, windows.length),
                "data.sequence_length",
                tokens > 1 ? fmt::format("choose at most {}, or prepare more text", tokens - 1)
                           : "prepare more text");
  return (tokens - 1) / windows.length;
}

void require_whole_sequences(const TokenManifest& manifest, std::int64_t length, const std::string& where) {
  if (manifest.sequence_length == 0 || manifest.sequence_length == length) return;
  throw Error(ErrorKind::usage,
              fmt::format("windows of {} tokens cut across the dataset's sequences of {}", length,
                          manifest.sequence_length),
              where, fmt::format("set it to {}", manifest.sequence_length));
}

void fill_window(const TokenRun& run, const TokenWindow& window) {
  const std::int64_t length = std::ssize(run.tokens) - 1;
  std::copy_n(run.tokens.begin(), length, window.tokens);
  for (std::int64_t i = 0; i < length; ++i) {
    const auto next = static_cast<std::size_t>(i + 1);
    window.targets[i] = run.targets.empty() || run.targets[next] != 0 ? run.tokens[next] : -1;
  }
  if (window.starts == nullptr) return;
  std::fill_n(window.starts, length, std::uint8_t{0});
  window.starts[0] = 1;  // a window begins with an empty state, wherever in a document it lies
  for (const std::int64_t start : run.starts) {
    if (start < length) window.starts[start] = 1;
    if (start > 0) window.targets[start - 1] = -1;  // nothing before a document tells of its first token
  }
}

TokenBatch read_windows(const TokenDataset& dataset, std::span<const std::int64_t> records,
                        const TokenWindows& windows, Memory& memory) {
  const std::int64_t rows = std::ssize(records), length = windows.length;
  TokenBatch batch;
  batch.records.assign(records.begin(), records.end());
  batch.tokens = Tensor(memory, {rows, length}, DType::i32);
  batch.targets = Tensor(memory, {rows, length}, DType::i32);
  if (windows.documents_apart) batch.starts = Tensor(memory, {rows, length}, DType::u8);
  for (std::int64_t row = 0; row < rows; ++row)
    fill_window(dataset.read(records[static_cast<std::size_t>(row)] * length, length + 1),
                {.tokens = batch.tokens.data<std::int32_t>() + row * length,
                 .targets = batch.targets.data<std::int32_t>() + row * length,
                 .starts = batch.starts ? batch.starts.data<std::uint8_t>() + row * length : nullptr});
  return batch;
}

struct TokenLoader::Implementation {
  Implementation(const TokenLoaderOptions& options, std::function<TokenBatch(std::int64_t)> make)
      : accumulate(options.accumulate),
        parts(std::move(make), options.start_step * options.accumulate, options.parts_ahead) {}

  int accumulate;
  ReadAhead<TokenBatch> parts;
};

TokenLoader::TokenLoader(const TokenLoaderOptions& options, const Sampler& sampler,
                         const TokenDataset& dataset, std::shared_ptr<Memory> memory) {
  require_divisible_batch(sampler.batch_size(), options.accumulate, options.data_size);
  if (options.parts_ahead < 1)
    throw Error(ErrorKind::usage, fmt::format("{} parts ahead", options.parts_ahead), "section [data]",
                "choose at least 1");
  const auto make = [options, sampler, &dataset, memory = std::move(memory)](std::int64_t part) {
    const Sampler::Share share =
        sampler.share_of_part(part, options.accumulate, options.data_rank, options.data_size);
    TokenBatch batch = read_windows(dataset, share.records, options.windows, *memory);
    batch.epoch = share.epoch;
    batch.global_count = sampler.batch_size();
    return batch;
  };
  implementation_ = std::make_unique<Implementation>(options, make);
}

TokenLoader::~TokenLoader() = default;

TokenBatch TokenLoader::next() { return implementation_->parts.next(); }
std::int64_t TokenLoader::step() const {
  return implementation_->parts.number() / implementation_->accumulate;
}
double TokenLoader::wait_seconds() const { return implementation_->parts.wait_seconds(); }

}  // namespace bireme
