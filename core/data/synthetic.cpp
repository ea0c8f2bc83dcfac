#include "core/data/synthetic.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/data/token_writer.h"
#include "core/tensor/random.h"

namespace bireme {

namespace {

void require(bool holds, const std::string& problem, const char* where, const std::string& remedy) {
  if (!holds) throw Error(ErrorKind::usage, problem, where, remedy);
}

/// `count` different numbers below `bound`, in random order.
std::vector<std::int64_t> choose(RandomStream& random, std::int64_t count, std::int64_t bound) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(bound));
  std::iota(numbers.begin(), numbers.end(), 0);
  for (std::int64_t i = 0; i < count; ++i)
    std::swap(numbers[static_cast<std::size_t>(i)],
              numbers[static_cast<std::size_t>(i + random.below(bound - i))]);
  numbers.resize(static_cast<std::size_t>(count));
  return numbers;
}

void make_parity(const SyntheticOptions& options, RandomStream& random, SyntheticSequence& sequence) {
  const auto bits =
      static_cast<std::size_t>(options.shortest - 1 + random.below(options.length - options.shortest + 1));
  std::int32_t ones = 0;
  for (std::size_t i = 0; i < bits; ++i) {
    const auto bit = static_cast<std::int32_t>(random.below(2));
    sequence.tokens[i] = 1 + bit;
    ones += bit;
  }
  sequence.tokens[bits] = 1 + ones % 2;
  sequence.targets[bits] = 1;
}

void make_recall(const SyntheticOptions& options, RandomStream& random, SyntheticSequence& sequence) {
  const std::int64_t pairs = options.pairs, half = options.vocabulary / 2;
  const auto value = [&] { return static_cast<std::int32_t>(half + random.below(half)); };
  for (std::int32_t& token : sequence.tokens) token = value();
  const std::vector<std::int64_t> keys = choose(random, pairs, half - 1);
  for (std::size_t i = 0; i < keys.size(); ++i)
    sequence.tokens[2 * i] = 1 + static_cast<std::int32_t>(keys[i]);
  // A query and its answer take two places, so the i-th in order is i places further than a choice among
  // places for one: every way to lay them out is as likely.
  std::vector<std::int64_t> places = choose(random, pairs, options.length - 3 * pairs);
  std::sort(places.begin(), places.end());
  const std::vector<std::int64_t> order = choose(random, pairs, pairs);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::size_t place = 2 * keys.size() + static_cast<std::size_t>(places[i]) + i;
    const auto pair = 2 * static_cast<std::size_t>(order[i]);
    sequence.tokens[place] = sequence.tokens[pair];
    sequence.tokens[place + 1] = sequence.tokens[pair + 1];
    sequence.targets[place + 1] = 1;
  }
}

}  // namespace

void SyntheticOptions::validate() const {
  constexpr std::int64_t longest = 1 << 24;
  require(length >= 2 && length <= longest, fmt::format("a sequence of {} tokens cannot be", length),
          "--length", fmt::format("choose from 2 to {}", longest));
  if (task == SyntheticTask::parity) {
    require(shortest >= 2 && shortest <= length,
            fmt::format("the shortest sequence has {} tokens, the longest {}", shortest, length),
            "--shortest", "choose from 2, which is a bit and the answer, to the length");
    return;
  }
  require(vocabulary >= 4 && vocabulary % 2 == 0 && vocabulary <= longest,
          fmt::format("{} tokens are not half keys, half values", vocabulary), "--vocab-size",
          fmt::format("choose an even number from 4 to {}", longest));
  require(pairs >= 1 && pairs < vocabulary / 2,
          fmt::format("{} pairs need as many keys, a vocabulary of {} has {}", pairs, vocabulary,
                      vocabulary / 2 - 1),
          "--pairs", "choose fewer pairs, or a larger --vocab-size");
  require(4 * pairs <= length,
          fmt::format("{} pairs and their queries do not fit into {} tokens", pairs, length), "--length",
          fmt::format("choose at least {}", 4 * pairs));
}

SyntheticSequence make_sequence(const SyntheticOptions& options, std::int64_t number) {
  RandomStream random(options.seed, static_cast<std::uint64_t>(number), RandomUse::synthetic);
  const auto length = static_cast<std::size_t>(options.length);
  SyntheticSequence sequence{.tokens = std::vector<std::int32_t>(length, 0),
                             .targets = std::vector<std::uint8_t>(length, 0)};
  options.task == SyntheticTask::parity ? make_parity(options, random, sequence)
                                        : make_recall(options, random, sequence);
  return sequence;
}

void prepare_synthetic(const PrepareSyntheticOptions& options) {
  options.synthetic.validate();
  require(options.sequences >= 1, fmt::format("a dataset of {} sequences cannot be", options.sequences),
          "--sequences", "choose 1 or more");
  TokenWriter writer({.output = options.output,
                      .split = options.split,
                      .shard_size = options.shard_size,
                      .vocabulary = options.synthetic.token_kinds(),
                      .sequence_length = options.synthetic.length,
                      .marks_targets = true,
                      .replace = options.replace});
  for (std::int64_t i = 0; i < options.sequences; ++i) {
    const SyntheticSequence sequence = make_sequence(options.synthetic, i);
    writer.append(sequence.tokens, sequence.targets);
    writer.end_document();
    if (options.progress) options.progress(i + 1, options.sequences);
  }
  writer.finish();
}

}  // namespace bireme
