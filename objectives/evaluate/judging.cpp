#include "objectives/evaluate/judging.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

namespace bireme {

namespace {

/// This rank's part of `count` things.
struct Share {
  std::int64_t first, last;
};
Share share_of(std::int64_t count, const Communicator& ranks) {
  const std::int64_t each = (count + ranks.size() - 1) / ranks.size();
  const std::int64_t first = std::min(count, ranks.rank() * each);
  return {first, std::min(count, first + each)};
}

/// Answers prompts of about one length side by side.
void answer(const Backend& backend, const LanguageModel& model, const Tokenizer& tokenizer,
            const std::vector<TokenList>& prompts, const std::vector<std::int64_t>& numbers,
            const std::vector<std::size_t>& batch, const SampleAnswersOptions& options,
            std::vector<SampledAnswer>& answers) {
  std::vector<TokenList> some;
  GenerateOptions generate{
      .max_tokens = options.max_tokens, .sampling = options.sampling, .stop_tokens = options.stop_tokens};
  std::size_t longest = 0;
  for (const std::size_t i : batch) {
    some.push_back(prompts[i]);
    generate.keys.push_back(numbers[i]);
    longest = std::max(longest, prompts[i].size());
  }
  Generator generator(backend, model, std::ssize(batch),
                      static_cast<std::int64_t>(longest) + options.max_tokens, options.type);
  const std::vector<TokenList> written = generator.generate(some, generate);
  for (std::size_t s = 0; s < batch.size(); ++s) {
    TokenStream stream(tokenizer, false);
    SampledAnswer& one = answers[batch[s]];
    for (const std::int32_t token : written[s]) one.text += stream.push(token);
    one.text += stream.finish();
    one.tokens = std::ssize(written[s]);
    one.ended_by_limit = one.tokens >= options.max_tokens;
  }
}

}  // namespace

std::vector<SampledAnswer> sample_answers(const Backend& backend, Communicator& ranks,
                                          const LanguageModel& model, const Tokenizer& tokenizer,
                                          const std::vector<TokenList>& prompts,
                                          const std::vector<std::int64_t>& numbers,
                                          const SampleAnswersOptions& options,
                                          const JudgingProgress& progress) {
  const Share own = share_of(std::ssize(prompts), ranks);
  std::vector<std::size_t> order(static_cast<std::size_t>(own.last - own.first));
  std::iota(order.begin(), order.end(), static_cast<std::size_t>(own.first));
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return prompts[i].size(); });
  std::vector<SampledAnswer> answers(prompts.size());
  for (std::size_t begin = 0; begin < order.size(); begin += static_cast<std::size_t>(options.batch_size)) {
    const std::size_t end = std::min(order.size(), begin + static_cast<std::size_t>(options.batch_size));
    answer(backend, model, tokenizer, prompts, numbers,
           {order.begin() + static_cast<std::ptrdiff_t>(begin),
            order.begin() + static_cast<std::ptrdiff_t>(end)},
           options, answers);
    ranks.beat();
    if (progress)
      progress(std::min<std::int64_t>(std::ssize(prompts), static_cast<std::int64_t>(end) * ranks.size()),
               std::ssize(prompts));
  }
  nlohmann::json sent = nlohmann::json::array();
  for (std::int64_t i = own.first; i < own.last; ++i) {
    const SampledAnswer& one = answers[static_cast<std::size_t>(i)];
    sent.push_back({one.text, one.tokens, one.ended_by_limit});
  }
  std::size_t next = 0;
  for (const std::string& text : ranks.gather_text(sent.dump()))
    for (const auto& one : nlohmann::json::parse(text))
      answers[next++] = {.text = one[0], .tokens = one[1], .ended_by_limit = one[2]};
  return answers;
}

std::vector<double> judge_texts(Communicator& ranks, const Judge& judge, const std::vector<AnswerText>& texts,
                                const JudgingProgress& progress) {
  constexpr std::int64_t block = 16;
  std::vector<std::int64_t> first_score{0};
  for (const AnswerText& text : texts) first_score.push_back(first_score.back() + std::ssize(text.answers));
  // Each number comes from one rank, zeros from the others: the sum is exact.
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor all(*memory, {std::max<std::int64_t>(first_score.back(), 1)}, DType::f64);
  std::fill_n(all.data<double>(), all.elements(), 0.0);
  const Share own = share_of(std::ssize(texts), ranks);
  for (std::int64_t begin = own.first; begin < own.last; begin += block) {
    const std::int64_t end = std::min(own.last, begin + block);
    const std::span<const AnswerText> some(texts.data() + begin, static_cast<std::size_t>(end - begin));
    double* into = all.data<double>() + first_score[static_cast<std::size_t>(begin)];
    for (const std::vector<double>& scores : judge.score(some)) into = std::ranges::copy(scores, into).out;
    ranks.beat();
    if (progress) progress(std::min(std::ssize(texts), (end - own.first) * ranks.size()), std::ssize(texts));
  }
  ranks.all_reduce(all, Reduce::sum).wait();
  return {all.data<double>(), all.data<double>() + first_score.back()};
}

}  // namespace bireme
