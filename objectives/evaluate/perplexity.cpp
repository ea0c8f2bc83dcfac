#include "objectives/evaluate/perplexity.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/base/error.h"
#include "core/data/token_loader.h"

namespace bireme {

namespace {

/// Windows of one length as a batch; what is not to be scored has no target.
struct Windows {
  Tensor tokens, targets, starts;
};

/// Window i reads tokens [i·stride, i·stride + length) and predicts those one further on.
class WindowReader {
 public:
  WindowReader(const Backend& backend, const TokenDataset& text, const PerplexityOptions& options)
      : backend_(backend), text_(text), options_(options) {}

  std::int64_t count() const {
    const std::int64_t predicted = text_.tokens() - 1, rest = predicted - options_.length;
    const std::int64_t all = rest <= 0 ? 1 : 1 + (rest + options_.stride - 1) / options_.stride;
    return options_.windows > 0 ? std::min(all, options_.windows) : all;
  }
  /// The last window of the text may be shorter than the others.
  std::int64_t length(std::int64_t window) const {
    return std::min(options_.length, text_.tokens() - 1 - window * options_.stride);
  }

  /// Windows [begin, end), all of one length.
  Windows read(std::int64_t begin, std::int64_t end) const {
    const std::int64_t length = this->length(begin), count = end - begin;
    const Shape shape{count, length};
    Memory& memory = backend_.memory().host();
    Windows w{Tensor(memory, shape, DType::i32), Tensor(memory, shape, DType::i32), {}};
    if (options_.documents_apart) w.starts = Tensor(memory, shape, DType::u8);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t window = begin + i, first = i * length;
      const TokenRun run = text_.read(window * options_.stride, length + 1);
      std::int32_t* targets = w.targets.data<std::int32_t>() + first;
      fill_window(run, {.tokens = w.tokens.data<std::int32_t>() + first,
                        .targets = targets,
                        .starts = w.starts ? w.starts.data<std::uint8_t>() + first : nullptr});
      if (window > 0) std::fill_n(targets, std::min(length, options_.length - options_.stride), -1);
    }
    return w;
  }

 private:
  const Backend& backend_;
  const TokenDataset& text_;
  const PerplexityOptions& options_;
};

/// Over the scored tokens of a part of the window.
struct Sums {
  double loss = 0, count = 0, top = 0;

  Perplexity means() const {
    const double divisor = std::max(1.0, count);
    return {
        .log_loss = loss / divisor, .accuracy = top / divisor, .tokens = static_cast<std::int64_t>(count)};
  }
};

void add(const TokenLoss& result, const Tensor& targets, const PerplexityOptions& options,
         std::vector<Sums>& sums) {
  const std::vector<Tensor> found = on_host(std::array{result.log_probability, result.is_top});
  for (std::int64_t row = 0; row < targets.elements(); ++row) {
    if (targets.data<std::int32_t>()[row] < 0) continue;
    const std::int64_t place = row % targets.channels();
    Sums& part = sums[static_cast<std::size_t>(place * options.parts / options.length)];
    part.loss -= static_cast<double>(found[0].data<float>()[row]);
    part.count += 1;
    part.top += found[1].data<std::uint8_t>()[row];
  }
}

}  // namespace

void PerplexityOptions::validate() const {
  if (length < 1 || stride < 1 || stride > length)
    throw Error(ErrorKind::usage, fmt::format("the length is {} and the stride {}", length, stride),
                "perplexity", "choose a stride from 1 to the length");
  if (parts < 1 || parts > length)
    throw Error(ErrorKind::usage, fmt::format("a window of {} tokens has no {} parts", length, parts),
                "perplexity", "choose from 1 part to the length");
}

double Perplexity::value() const { return std::exp(log_loss); }

Perplexity evaluate_perplexity(const Backend& backend, Communicator& ranks, const LanguageModel& model,
                               const TokenDataset& text, const PerplexityOptions& options,
                               const std::function<void(std::int64_t, std::int64_t)>& progress) {
  options.validate();
  if (text.tokens() < 2)
    throw Error(ErrorKind::data, fmt::format("the text has {} tokens", text.tokens()), "perplexity",
                "give at least two: the first is predicted by nothing");
  for (const std::int64_t distance : {options.length, options.stride})
    require_whole_sequences(text.manifest(), distance, "perplexity: length and stride");
  const WindowReader reader(backend, text, options);
  const std::int64_t windows = reader.count(), share = (windows + ranks.size() - 1) / ranks.size();
  const std::int64_t first = std::min(windows, ranks.rank() * share), last = std::min(windows, first + share);
  std::vector<Sums> sums(static_cast<std::size_t>(options.parts));
  for (std::int64_t begin = first; begin < last;) {
    std::int64_t end = std::min(last, begin + options.batch_size);
    while (reader.length(end - 1) != reader.length(begin)) --end;
    const Windows w = reader.read(begin, end);
    Tape tape(backend, Tape::Mode::inference);
    const Var hidden = model.hidden(tape, {w.tokens, w.starts}, {.type = options.type});
    const TokenLoss result = model.head().loss(tape, hidden, w.targets, {});
    add(result, w.targets, options, sums);
    begin = end;
    ranks.beat();
    if (progress) progress(std::min(windows, (begin - first) * ranks.size()), windows);
  }
  Sums all;
  std::vector<Perplexity> parts;
  for (Sums& part : sums) {
    for (double* sum : {&part.loss, &part.count, &part.top}) *sum = ranks.all_reduce_value(*sum, Reduce::sum);
    all = {all.loss + part.loss, all.count + part.count, all.top + part.top};
    parts.push_back(part.means());
  }
  Perplexity found = all.means();
  found.parts = std::move(parts);
  return found;
}

}  // namespace bireme
