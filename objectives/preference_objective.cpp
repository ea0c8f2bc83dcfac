#include "objectives/preference_objective.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "core/ops/pointwise/pointwise_kernels.h"
#include "objectives/policy_variance.h"

namespace bireme {

namespace {

/// The numbers of an answer that ranks exchange.
constexpr std::int64_t kNumbers = 9;

void write(const Answer& y, double* to) {
  const double numbers[kNumbers] = {y.log_probability, y.reference,         y.tokens,
                                    y.imitated,        y.imitated_tokens,   y.reward,
                                    y.value,           y.liked ? 1.0 : 0.0, static_cast<double>(y.prompt)};
  std::copy_n(numbers, kNumbers, to);
}

Answer read(const double* from) {
  return {.log_probability = from[0],
          .reference = from[1],
          .tokens = from[2],
          .imitated = from[3],
          .imitated_tokens = from[4],
          .reward = from[5],
          .value = from[6],
          .liked = from[7] != 0,
          .prompt = static_cast<std::int64_t>(from[8])};
}

/// L = loss, a function of the log-probabilities whose derivative by each is known already.
/// @param dscores, dvalues  on the host
Var known_loss(Tape& tape, double loss, const Var& scores, const Tensor& dscores, const Var& values,
               const Tensor& dvalues) {
  const Backend& backend = tape.backend();
  const Tensor y = tape.empty({}, DType::f64);
  fill(y, loss);
  std::vector<Source> sources{scores};
  if (values.wants_gradient()) sources.emplace_back(values);
  const auto give = [&backend](const Var& to, const Tensor& known, const Tensor& dy, Gradients& into) {
    if (!to.wants_gradient()) return;
    const Tensor gradient = on_device(backend.memory(), known);
    backend.pointwise().scale({.x = gradient, .factor = 1, .to = {gradient, false}, .by = dy});
    into.give(to, gradient);
  };
  return tape.record("preference_loss", sources, y,
                     [give, scores, dscores, values, dvalues](const Tensor& dy, Gradients& into) {
                       give(scores, dscores, dy, into);
                       give(values, dvalues, dy, into);
                     });
}

Tensor zeros(Memory& memory, std::int64_t count) {
  Tensor tensor(memory, {count}, DType::f64);
  fill(tensor, 0);
  return tensor;
}

}  // namespace

std::vector<Answer> add_up(const AnswerRows& rows, const Tensor& log_probabilities) {
  std::vector<Answer> answers(rows.answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const PlacedAnswer& placed = rows.answers[i];
    answers[i].reference = placed.reference;
    answers[i].tokens = static_cast<double>(placed.tokens);
    answers[i].imitated_tokens = static_cast<double>(placed.imitated);
    answers[i].reward = placed.reward;
    answers[i].liked = placed.liked;
    answers[i].prompt = placed.prompt;
  }
  const Tensor found = on_host(log_probabilities);
  for (std::size_t i = 0; i < rows.scored.size(); ++i) {
    Answer& answer = answers[static_cast<std::size_t>(rows.scored[i].answer)];
    const double log_probability = found.data<double>()[i];
    if (rows.scored[i].counts) answer.log_probability += log_probability;
    if (rows.scored[i].imitated) answer.imitated += log_probability;
  }
  return answers;
}

std::vector<Answer> score_answers(const Backend& backend, const LanguageModel& model, const AnswerRows& rows,
                                  DType type) {
  Tape tape(backend, Tape::Mode::inference);
  const Tensor everywhere;
  const Var hidden =
      model.hidden(tape, {rows.tokens, everywhere, rows.documents, rows.needed}, {.type = type});
  return add_up(rows, model.head().scores(tape, hidden, rows.places, rows.targets).value());
}

PreferenceObjective::PreferenceObjective(const Options& options, const Mesh& mesh, LanguageModel& model,
                                         std::unique_ptr<PreferenceLoss> loss, Networks networks)
    : options_(options), mesh_(mesh), model_(model), loss_(std::move(loss)), networks_(std::move(networks)) {
  if (networks_.value_parameters != nullptr)
    companion_.emplace(TrainedNetwork{.name = "value.",
                                      .parameters = *networks_.value_parameters,
                                      .learning_rate_scale = options.companion_rate});
}

void PreferenceObjective::begin(std::int64_t step) {
  step_.clear();
  combined_ = false;
  step_number_ = step;
  is_first_part_ = true;
  if (options_.value_warmup_steps == 0) return;
  for (std::size_t i = 0; i < parameters().size(); ++i) {
    Parameter& parameter = parameters()[i];
    if (!parameter.name().starts_with("value.")) parameter.set_trainable(step >= options_.value_warmup_steps);
  }
}

void PreferenceObjective::set_reference_point(const Backend& backend, const AnswerBatch& batch) {
  double ratios = 0, count = 0;
  for (const AnswerRows& rows : batch.mismatched) {
    const std::vector<Answer> policy = score_answers(backend, model_, rows, options_.type);
    std::vector<Answer> reference;
    if (networks_.reference != nullptr)
      reference = score_answers(backend, *networks_.reference, rows, options_.type);
    for (std::size_t i = 0; i < policy.size(); ++i) {
      ratios += policy[i].log_probability -
                (reference.empty() ? rows.answers[i].reference : reference[i].log_probability);
      count += 1;
    }
  }
  Communicator& data = mesh_.data();
  ratios = data.all_reduce_value(ratios, Reduce::sum);
  count = data.all_reduce_value(count, Reduce::sum);
  loss_->set_mismatched(ratios, count);
}

std::vector<double> PreferenceObjective::values_of(Tape& tape, const AnswerBatch& batch, const Var& hidden) {
  const LanguageForward how{.type = options_.type, .recompute = options_.recompute};
  Tape* own = &tape;
  if (companion_) {
    value_tape_ = std::make_unique<Tape>(tape.backend(), Tape::Mode::record, tape.profile());
    own = value_tape_.get();
  }
  values_ = networks_.value->values(*own, batch.rows, hidden, how);
  std::vector<double> values;
  values.reserve(values_.of_answer.size());
  const Tensor found = on_host(values_.values.value());
  for (const std::size_t index : values_.of_answer) values.push_back(found.data<double>()[index]);
  return values;
}

void PreferenceObjective::place(const AnswerBatch& batch, const std::vector<Answer>& answers) {
  step_.resize(static_cast<std::size_t>(batch.global_answers));
  for (std::size_t i = 0; i < answers.size(); ++i)
    step_[static_cast<std::size_t>(batch.rows.answers[i].position)] = answers[i];
}

void PreferenceObjective::combine_step() {
  if (combined_) return;
  combined_ = true;
  const Tensor table(*make_host_memory(), {std::ssize(step_), kNumbers}, DType::f64);
  for (std::size_t i = 0; i < step_.size(); ++i)
    write(step_[i], table.data<double>() + static_cast<std::int64_t>(i) * kNumbers);
  // Entries of other ranks are zero: the sum is exact, whatever the number of ranks.
  for (std::size_t i = 0; i < step_.size(); ++i)
    if (step_[i].tokens == 0)
      std::fill_n(table.data<double>() + static_cast<std::int64_t>(i) * kNumbers, kNumbers, 0.0);
  mesh_.data().all_reduce(table, Reduce::sum).wait();
  for (std::size_t i = 0; i < step_.size(); ++i)
    step_[i] = read(table.data<double>() + static_cast<std::int64_t>(i) * kNumbers);
}

double PreferenceObjective::imitation_of(const Answer& answer, const AnswerBatch& batch) const {
  if (answer.imitated_tokens == 0) return 0;
  return options_.imitates_by_record ? 1 / (answer.imitated_tokens * static_cast<double>(batch.global_count))
                                     : 1 / static_cast<double>(batch.global_imitated);
}

Var PreferenceObjective::compute(Tape& tape, const Batch& any_batch) {
  const auto& batch = std::get<AnswerBatch>(any_batch);
  const AnswerRows& rows = batch.rows;
  if (!batch.mismatched.empty()) set_reference_point(tape.backend(), batch);
  const Tensor everywhere;
  const Var hidden = model_.hidden(tape, {rows.tokens, everywhere, rows.documents, rows.needed},
                                   {.type = options_.type, .recompute = options_.recompute});
  const Var scores = model_.head().scores(tape, hidden, rows.places, rows.targets);
  std::vector<Answer> answers = add_up(rows, scores.value());
  if (networks_.value) {
    const std::vector<double> values = values_of(tape, batch, hidden);
    for (std::size_t i = 0; i < answers.size(); ++i) answers[i].value = values[i];
  }
  place(batch, answers);
  if (loss_->needs_whole_step()) {
    combine_step();
    loss_->settle(step_);
    for (std::size_t i = 0; i < answers.size(); ++i)
      answers[i] = step_[static_cast<std::size_t>(rows.answers[i].position)];
  }

  const auto records = static_cast<double>(batch.global_count);
  std::vector<double> slopes(answers.size());
  double loss = loss_->preference_weight() * loss_->evaluate(answers, slopes) / records;
  Memory& memory = tape.backend().memory().host();
  const Tensor dscores = zeros(memory, std::ssize(rows.scored));
  std::vector<double> imitation;
  imitation.reserve(answers.size());
  for (const Answer& answer : answers) {
    imitation.push_back(loss_->imitation_weight() * imitation_of(answer, batch));
    loss -= imitation.back() * answer.imitated;
  }
  for (std::size_t i = 0; i < rows.scored.size(); ++i) {
    const ScoredToken& token = rows.scored[i];
    const auto answer = static_cast<std::size_t>(token.answer);
    dscores.data<double>()[i] = (token.counts ? loss_->preference_weight() * slopes[answer] / records : 0) -
                                (token.imitated ? imitation[answer] : 0);
  }
  if (measures_share()) add_shares(tape.backend(), hidden.value(), rows, dscores, imitation);
  is_first_part_ = false;
  backend_ = &tape.backend();
  if (!networks_.value) return known_loss(tape, loss, scores, dscores, {}, {});
  dvalues_ = zeros(memory, values_.values.value().elements());
  for (std::size_t i = 0; i < answers.size(); ++i)
    dvalues_.data<double>()[values_.of_answer[i]] -= loss_->value_residual(answers[i]) / records;
  return companion_ ? known_loss(tape, loss, scores, dscores, {}, {})
                    : known_loss(tape, loss, scores, dscores, values_.values, dvalues_);
}

void PreferenceObjective::backward_companion(const Tape::Ready& ready) {
  assert(companion_);
  value_tape_->backward(values_.values, &companion_->parameters, ready, dvalues_);
  value_tape_.reset();
  values_ = {};
}

double PreferenceObjective::reduce() {
  combine_step();
  if (measures_share()) measure_share();
  const auto records = static_cast<double>(step_.size()) / static_cast<double>(loss_->answers_per_record());
  std::vector<double> slopes(step_.size());
  double loss = loss_->preference_weight() * loss_->evaluate(step_, slopes) / records;
  if (loss_->imitation_weight() == 0) return loss;
  return loss + loss_->imitation_weight() * negative_log_likelihood();
}

double PreferenceObjective::negative_log_likelihood() const {
  double sum = 0, tokens = 0, means = 0, imitated = 0;
  for (const Answer& answer : step_) {
    if (answer.imitated_tokens == 0) continue;
    sum += answer.imitated;
    tokens += answer.imitated_tokens;
    means += answer.imitated / answer.imitated_tokens;
    imitated += 1;
  }
  if (imitated == 0) return 0;
  return options_.imitates_by_record ? -means / imitated : -sum / tokens;
}

bool PreferenceObjective::measures_share() const {
  return options_.diagnostics_every > 0 && step_number_ % options_.diagnostics_every == 0 &&
         loss_->imitation_weight() != 0 && loss_->preference_weight() != 0 &&
         model_.head().weight().trainable();
}

void PreferenceObjective::add_shares(const Backend& backend, const Tensor& hidden, const AnswerRows& rows,
                                     const Tensor& dscores, const std::vector<double>& imitation) {
  const Parameter& weight = model_.head().weight();
  const Tensor& gradient = weight.gradient();
  Memory& host = backend.memory().host();
  const std::array weights{zeros(host, dscores.elements()), zeros(host, dscores.elements())};
  for (std::size_t i = 0; i < rows.scored.size(); ++i) {
    const ScoredToken& token = rows.scored[i];
    double& likelihood = weights[0].data<double>()[i];
    likelihood = token.imitated ? -imitation[static_cast<std::size_t>(token.answer)] : 0;
    weights[1].data<double>()[i] = dscores.data<double>()[i] - likelihood;
  }
  if (is_first_part_) {
    shares_ = Tensor(host, {2, gradient.elements()}, DType::f32);
    fill(shares_, 0);
  }
  const Tensor kept = is_first_part_ ? Tensor() : clone(backend.memory(), gradient);
  for (std::int64_t k = 0; k < 2; ++k) {
    if (!is_first_part_) fill(gradient, 0);  // what earlier parts left there comes back below
    Tape tape(backend);
    const Var scores = model_.head().scores(tape, Var(hidden), rows.places, rows.targets);
    tape.backward(scores, nullptr, {}, on_device(backend.memory(), weights[static_cast<std::size_t>(k)]));
    const Tensor found = on_host(gradient);
    float* sum = shares_.data<float>() + k * gradient.elements();
    for (const float value : found.values<float>()) *sum++ += value;
    if (is_first_part_) parameters().begin_gradients();  // this was no part of the step
  }
  if (!is_first_part_) copy(kept, gradient);
}

void PreferenceObjective::measure_share() {
  mesh_.data().all_reduce(shares_, Reduce::sum).wait();
  const auto norm = [&](std::int64_t k) {
    double squares = 0;
    for (const float x : shares_.slice(k, k + 1).values<float>()) squares += double{x} * x;
    return std::sqrt(mesh_.tensor().all_reduce_value(squares, Reduce::sum));
  };
  const double imitates = norm(0);
  preference_share_ = norm(1) / std::max(imitates, 1e-300);
  shares_ = {};
}

void PreferenceObjective::after_step() {
  const bool is_due = options_.variance_every > 0 && step_number_ % options_.variance_every == 0;
  // While the value function learns alone, there is no gradient of the policy.
  if (is_due && networks_.value && step_number_ >= options_.value_warmup_steps)
    variance_ = measure_policy_variance(*backend_, mesh_, model_, *loss_, *networks_.value,
                                        options_.answers_after(step_number_), options_.type);
}

Terms PreferenceObjective::terms() const {
  Terms terms;
  if (loss_->imitation_weight() != 0) terms.emplace_back("nll", negative_log_likelihood());
  for (const auto& term : loss_->terms(step_)) terms.push_back(term);
  if (companion_) terms.emplace_back("value_grad_norm", companion_->gradient_norm);
  if (preference_share_ >= 0) terms.emplace_back("or_share", preference_share_);
  for (const auto& term : variance_) terms.push_back(term);
  return terms;
}

double PreferenceObjective::flops(const Batch& any_batch) const {
  const AnswerRows& rows = std::get<AnswerBatch>(any_batch).rows;
  double total = 0;
  for (const Branching& document : rows.documents) total += model_.flops(1, document.rows());
  // The head reads the scored tokens, not all rows.
  const double unscored = static_cast<double>(rows.tokens.elements() - std::ssize(rows.scored));
  total -= 2 * unscored * static_cast<double>(model_.channels() * model_.vocabulary());
  return 3 * total;
}

}  // namespace bireme
