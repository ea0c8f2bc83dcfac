#include "objectives/evaluate/judging.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/json.h"

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
std::vector<TokenList> write_answers(const Backend& backend, const LanguageModel& model,
                                     const std::vector<Question>& questions,
                                     std::span<const std::size_t> batch,
                                     const SampleAnswersOptions& options) {
  std::vector<TokenList> prompts;
  GenerateOptions generate{
      .max_tokens = options.max_tokens, .sampling = options.sampling, .stop_tokens = options.stop_tokens};
  std::size_t longest = 0;
  for (const std::size_t i : batch) {
    prompts.push_back(questions[i].tokens);
    generate.keys.push_back(questions[i].number);
    longest = std::max(longest, prompts.back().size());
  }
  Generator generator(backend, model, std::ssize(batch),
                      static_cast<std::int64_t>(longest) + options.max_tokens, options.type);
  return generator.generate(prompts, generate);
}

}  // namespace

SampledAnswer sampled_answer(const Tokenizer& tokenizer, TokenList tokens, bool ended_by_limit) {
  SampledAnswer answer{.tokens = std::move(tokens), .text = {}, .ended_by_limit = ended_by_limit};
  TokenStream stream(tokenizer, false);
  for (const std::int32_t token : answer.tokens) answer.text += stream.push(token);
  answer.text += stream.finish();
  return answer;
}

std::vector<SampledAnswer> sample_answers(const Backend& backend, Communicator& ranks,
                                          const LanguageModel& model, const Tokenizer& tokenizer,
                                          const std::vector<Question>& questions,
                                          const SampleAnswersOptions& options,
                                          const JudgingProgress& progress) {
  // Every rank takes each size()-th of the prompts by length, so that all have as much to do.
  std::vector<std::size_t> order(questions.size()), own;
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return questions[i].tokens.size(); });
  for (auto i = static_cast<std::size_t>(ranks.rank()); i < order.size();
       i += static_cast<std::size_t>(ranks.size()))
    own.push_back(order[i]);
  nlohmann::json sent = nlohmann::json::array();
  const auto batch_size = static_cast<std::size_t>(options.batch_size);
  for (std::size_t begin = 0; begin < own.size(); begin += batch_size) {
    const auto batch = std::span(own).subspan(begin, std::min(batch_size, own.size() - begin));
    const std::vector<TokenList> written = write_answers(backend, model, questions, batch, options);
    for (std::size_t s = 0; s < batch.size(); ++s) sent.push_back({batch[s], written[s]});
    ranks.beat();
    const auto done =
        static_cast<std::int64_t>((begin + batch.size()) * static_cast<std::size_t>(ranks.size()));
    if (progress) progress(std::min(std::ssize(questions), done), std::ssize(questions));
  }
  std::vector<SampledAnswer> answers(questions.size());
  for (const std::string& text : ranks.gather_text(json_text(sent)))
    for (const auto& one : parse_json(text)) {
      auto tokens = one[1].get<TokenList>();
      const bool ended_by_limit = std::ssize(tokens) >= options.max_tokens;
      answers[one[0].get<std::size_t>()] = sampled_answer(tokenizer, std::move(tokens), ended_by_limit);
    }
  return answers;
}

AnswerLook look_of(const std::vector<SampledAnswer>& answers) {
  AnswerLook look;
  const auto n = static_cast<double>(answers.size());
  for (const SampledAnswer& answer : answers) {
    look.mean_length += static_cast<double>(answer.tokens.size()) / n;
    look.ended_by_limit += (answer.ended_by_limit ? 1 : 0) / n;
  }
  return look;
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
