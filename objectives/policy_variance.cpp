#include "objectives/policy_variance.h"

#include <algorithm>

#include "objectives/preference/gradient_variance.h"
#include "objectives/preference_objective.h"

namespace bireme {

namespace {

/// One answer with its prompt, as a pass of its own.
AnswerRows single_answer(const AnswerRows& rows, std::size_t answer) {
  AnswerRows one;
  one.answers = {rows.answers[answer]};
  const Branching* document = nullptr;
  for (const Branching& candidate : rows.documents)
    if (candidate.begin == one.answers.front().prompt_begin) document = &candidate;
  const std::shared_ptr<Memory> host = make_host_memory();
  Memory& memory = *host;
  const std::int64_t first = document->begin, count = document->rows();
  one.tokens = Tensor(memory, {1, count}, DType::i32);
  std::copy_n(rows.tokens.data<std::int32_t>() + first, count, one.tokens.data<std::int32_t>());
  one.documents = {{.begin = 0, .trunk = document->trunk, .branches = document->branches}};
  std::vector<std::int32_t> places, targets;
  for (std::size_t i = 0; i < rows.scored.size(); ++i) {
    if (rows.scored[i].answer != static_cast<std::int32_t>(answer) || !rows.scored[i].counts) continue;
    places.push_back(static_cast<std::int32_t>(rows.rows.data<std::int32_t>()[i] - first));
    targets.push_back(rows.targets.data<std::int32_t>()[i]);
    one.scored.push_back({.answer = 0});
  }
  one.rows = Tensor(memory, {std::ssize(places)}, DType::i32);
  one.targets = Tensor(memory, {std::ssize(places)}, DType::i32);
  std::ranges::copy(places, one.rows.data<std::int32_t>());
  std::ranges::copy(targets, one.targets.data<std::int32_t>());
  one.places = one.rows;
  one.answers.front().prompt_begin = 0;
  return one;
}

Var hidden_of(Tape& tape, const LanguageModel& model, const AnswerRows& rows, DType type) {
  const Tensor everywhere;
  return model.hidden(tape, {rows.tokens, everywhere, rows.documents, rows.needed}, {.type = type});
}

/// Its sums under the model, and the value of its prompt.
Answer judge_answer(const Backend& backend, const LanguageModel& model, const ValueFunction& value,
                    const AnswerRows& rows, DType type) {
  Tape tape(backend, Tape::Mode::inference);
  const Var hidden = hidden_of(tape, model, rows, type);
  Answer answer = add_up(rows, model.head().scores(tape, hidden, rows.places, rows.targets).value()).front();
  const ValueFunction::Values values = value.values(tape, rows, hidden, {.type = type});
  answer.value = on_host(values.values.value()).data<double>()[values.of_answer.front()];
  return answer;
}

/// Mean over the answers of all ranks. Collective.
template <class Function>
double mean_over_ranks(Communicator& data, const std::vector<Answer>& answers, const Function& of) {
  double sum = 0;
  for (const Answer& answer : answers) sum += of(answer);
  const double count = data.all_reduce_value(static_cast<double>(answers.size()), Reduce::sum);
  return data.all_reduce_value(sum, Reduce::sum) / std::max(1.0, count);
}

template <class Function>
double variance_over_ranks(Communicator& data, const std::vector<Answer>& answers, const Function& of) {
  const double mean = mean_over_ranks(data, answers, of);
  return mean_over_ranks(data, answers, [&](const Answer& y) { return (of(y) - mean) * (of(y) - mean); });
}

}  // namespace

Terms measure_policy_variance(const Backend& backend, const Mesh& mesh, LanguageModel& model,
                              const PreferenceLoss& loss, const ValueFunction& value, const AnswerRows& rows,
                              DType type) {
  std::vector<AnswerRows> each;
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < rows.answers.size(); ++i) {
    each.push_back(single_answer(rows, i));
    answers.push_back(judge_answer(backend, model, value, each.back(), type));
  }
  Communicator& data = mesh.data();
  const auto target = [&](const Answer& y) { return y.value + loss.value_residual(y); };  // r - τρ
  const double mean = mean_over_ranks(data, answers, target);
  // What the gradient of each answer is multiplied by: with its value, with none, with one number for all.
  const auto weights = [&](const auto& value_of) {
    std::vector<Answer> valued = answers;
    for (Answer& answer : valued) answer.value = value_of(answer);
    std::vector<double> slopes(valued.size());
    loss.evaluate(valued, slopes);
    return slopes;
  };
  const std::vector<std::vector<double>> weightings{weights([](const Answer& y) { return y.value; }),
                                                    weights([](const Answer&) { return 0.0; }),
                                                    weights([&](const Answer&) { return mean; })};
  const GradientVariance found =
      measure_gradient_variance(model.parameters(), mesh, weightings, [&](std::size_t i) {
        Tape tape(backend);
        const Var hidden = hidden_of(tape, model, each[i], type);
        const Var scores = model.head().scores(tape, hidden, each[i].places, each[i].targets);
        const Tensor ones(backend.memory(), {std::ssize(each[i].scored)}, DType::f64);
        fill(ones, 1);
        tape.backward(scores, &model.parameters(), {}, ones);
      });
  const double rewards = variance_over_ranks(data, answers, [](const Answer&y) { return y.reward; }),
               advantages =
                   variance_over_ranks(data, answers, [](const Answer&y) { return y.reward - y.value; });
  return {{"policy_variance", found.trace},
          {"policy_variance_without_value", found.others[0].variance},
          {"policy_variance_without_value_error", found.others[0].error},
          {"policy_mean_distance_without_value", found.others[0].distance},
          {"policy_variance_with_constant", found.others[1].variance},
          {"policy_variance_with_constant_error", found.others[1].error},
          {"policy_mean_distance_with_constant", found.others[1].distance},
          {"value_explained_ahead", rewards > 0 ? 1 - advantages / rewards : 0}};
}

}  // namespace bireme
