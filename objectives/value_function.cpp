#include "objectives/value_function.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "core/ops/embedding/embedding.h"
#include "core/ops/pointwise/pointwise_kernels.h"
#include "objectives/host_numbers.h"

namespace bireme {

namespace {

/// Gives numbers of the host to a gradient.
void contribute(const Backend& backend, const Tensor& numbers, const Target& to) {
  if (!to) return;
  const Tensor gradient = convert(backend.memory(), numbers, to.tensor.dtype()).reshape(to.tensor.shape());
  backend.pointwise().add({.from = gradient, .to = to.tensor, .accumulate = to.accumulate});
}

/// What the head computes, a few rows that the host works on: vectors [M, D] and weights [D], fp64.
struct HeadInputs {
  Tensor x, weight;
};

void head_backward(const Backend& backend, const Tensor& dy, const Var& x, const ValueHead& head,
                   const HeadInputs& inputs, Gradients& into) {
  const Tensor dvalues = numbers_of(dy);
  const double* dvalue = dvalues.data<double>();
  const std::int64_t rows = dy.elements() - 1;
  Memory& host = backend.memory().host();
  const Tensor dbias(host, {1}, DType::f64);
  dbias.data<double>()[0] = std::accumulate(dvalue, dvalue + rows + 1, 0.0);
  contribute(backend, dbias, into[*head.bias]);
  if (rows == 0) return;
  const std::int64_t channels = inputs.x.channels();
  const Tensor dx(host, {rows, channels}, DType::f64), dweight(host, {channels}, DType::f64);
  fill(dweight, 0);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < channels; ++c) {
      dweight.data<double>()[c] += dvalue[r] * inputs.x.data<double>()[r * channels + c];
      dx.data<double>()[r * channels + c] = dvalue[r] * inputs.weight.data<double>()[c];
    }
  contribute(backend, dx, into[x]);
  contribute(backend, dweight, into[*head.weight]);
}

}  // namespace

ValueHead ValueHead::add(ParameterSet& parameters, const std::string& name, std::int64_t channels,
                         double learning_rate_scale) {
  ValueHead head;
  if (channels > 0)
    head.weight = &parameters.add(
        {.name = name + ".weight", .shape = {1, channels}, .learning_rate_scale = learning_rate_scale});
  head.bias = &parameters.add(
      {.name = name + ".bias", .shape = {1}, .decays = false, .learning_rate_scale = learning_rate_scale});
  return head;
}

Var head_values(Tape& tape, const Var& x, const ValueHead& head) {
  const std::int64_t rows = x.value() ? x.value().rows() : 0;
  const Tensor y(tape.backend().memory().host(), {rows + 1}, DType::f64);
  double* values = y.data<double>();
  std::fill_n(values, rows + 1, numbers_of(head.bias->value()).data<double>()[0]);
  HeadInputs inputs;
  if (rows > 0) {
    inputs = {.x = numbers_of(x.value()), .weight = numbers_of(head.weight->value())};
    const std::int64_t channels = x.value().channels();
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < channels; ++c)
        values[r] += inputs.x.data<double>()[r * channels + c] * inputs.weight.data<double>()[c];
  }
  std::vector<Source> sources{*head.bias};
  if (rows > 0) sources.insert(sources.end(), {x, *head.weight});
  return tape.record("value_head", sources, on_device(tape.backend().memory(), y),
                     [&backend = tape.backend(), x, head, inputs](const Tensor& dy, Gradients& into) {
                       head_backward(backend, dy, x, head, inputs, into);
                     });
}

ValueFunction::ValueFunction(Kind kind, const ValueHead& head, const LanguageModel* network, bool detached)
    : kind_(kind), head_(head), network_(network), detached_(detached) {}

ValueFunction::Values ValueFunction::values(Tape& tape, const AnswerRows& rows, const Var& policy_hidden,
                                            const LanguageForward& how) const {
  Values result;
  // Prompts in the order of their first answer; one without tokens has nothing to read from.
  std::vector<const PlacedAnswer*> prompts;
  std::map<std::int64_t, std::size_t> index_of;  // by first row
  for (const PlacedAnswer& answer : rows.answers) {
    if (answer.prompt_length == 0 || kind_ == Kind::constant) continue;
    if (index_of.try_emplace(answer.prompt_begin, prompts.size()).second) prompts.push_back(&answer);
  }
  for (const PlacedAnswer& answer : rows.answers) {
    const auto found = index_of.find(answer.prompt_begin);
    const bool reads = answer.prompt_length > 0 && found != index_of.end();
    result.of_answer.push_back(reads ? found->second : prompts.size());
  }
  if (prompts.empty()) {
    result.values = head_values(tape, Var(), head_);
    return result;
  }
  Memory& memory = tape.backend().memory().host();
  const Tensor ends(memory, {std::ssize(prompts)}, DType::i32);
  Var hidden = policy_hidden;
  if (kind_ == Kind::separate) {
    std::vector<std::int32_t> tokens;
    std::vector<Branching> documents;
    const std::int32_t* all = rows.tokens.data<std::int32_t>();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const std::int32_t* first = all + prompts[i]->prompt_begin;
      documents.push_back({.begin = std::ssize(tokens), .trunk = prompts[i]->prompt_length});
      tokens.insert(tokens.end(), first, first + prompts[i]->prompt_length);
      ends.data<std::int32_t>()[i] = static_cast<std::int32_t>(tokens.size()) - 1;
    }
    const Tensor read(memory, {1, std::ssize(tokens)}, DType::i32), everywhere;
    std::ranges::copy(tokens, read.data<std::int32_t>());
    hidden = network_->hidden(tape, {read, everywhere, documents, ends}, how);
  } else {
    for (std::size_t i = 0; i < prompts.size(); ++i)
      ends.data<std::int32_t>()[i] =
          static_cast<std::int32_t>(prompts[i]->prompt_begin + prompts[i]->prompt_length) - 1;
    if (rows.needed) {  // the hidden vectors are of these rows; the end of a prompt always is one of them
      const std::span<const std::int32_t> needed = rows.needed.values<std::int32_t>();
      for (std::int32_t& end : ends.values<std::int32_t>())
        end = static_cast<std::int32_t>(std::ranges::lower_bound(needed, end) - needed.begin());
    }
    if (detached_) hidden = Var(hidden.value());
    hidden = gather_rows(tape, hidden, ends);
  }
  result.values = head_values(tape, hidden, head_);
  return result;
}

}  // namespace bireme
