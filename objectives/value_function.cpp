#include "objectives/value_function.h"

#include <algorithm>
#include <map>

#include "core/ops/dispatch.h"
#include "core/ops/embedding/embedding.h"

namespace bireme {

namespace {

/// Element c of row r, whatever the type.
template <class T>
double at(const Tensor& tensor, std::int64_t index) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_float(tensor.data<T>()[index]);
  } else {
    return tensor.data<T>()[index];
  }
}

/// Adds to the entry, or writes it.
template <class T>
void put(const Target& target, std::int64_t index, double value) {
  T& entry = target.tensor.data<T>()[index];
  const double sum = value + (target.accumulate ? at<T>(target.tensor, index) : 0);
  if constexpr (std::is_same_v<T, bf16>) {
    entry = to_bf16(static_cast<float>(sum));
  } else {
    entry = static_cast<T>(sum);
  }
}

double number(const Tensor& tensor, std::int64_t index) {
  return tensor.dtype() == DType::f64 ? at<double>(tensor, index) : at<float>(tensor, index);
}
void put_number(const Target& target, std::int64_t index, double value) {
  if (target.tensor.dtype() == DType::f64) {
    put<double>(target, index, value);
  } else {
    put<float>(target, index, value);
  }
}

void head_backward(const Tensor& dy, const Var& x, const ValueHead& head, Gradients& into) {
  const double* dvalue = dy.data<double>();
  const std::int64_t rows = dy.elements() - 1;
  double total = 0;
  for (std::int64_t r = 0; r <= rows; ++r) total += dvalue[r];
  if (const Target dbias = into[*head.bias]) put_number(dbias, 0, total);
  if (rows == 0) return;
  const std::int64_t channels = x.value().channels();
  const Target dx = into[x], dweight = into[*head.weight];
  dispatch_float(x.dtype(), [&]<class T>(Type<T>) {
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (std::int64_t r = 0; r < rows; ++r) {
        sum += dvalue[r] * at<T>(x.value(), r * channels + c);
        if (dx) put<T>(dx, r * channels + c, dvalue[r] * number(head.weight->value(), c));
      }
      if (dweight) put_number(dweight, c, sum);
    }
  });
}

}  // namespace

ValueHead ValueHead::add(ParameterSet& parameters, const std::string& name, std::int64_t channels,
                         double learning_rate_scale) {
  ValueHead head;
  if (channels > 0)
    head.weight = &parameters.add({.name = name + ".weight",
                                   .shape = {1, channels},
                                   .initial = {},
                                   .partition = {},
                                   .learning_rate_scale = learning_rate_scale});
  head.bias = &parameters.add({.name = name + ".bias",
                               .shape = {1},
                               .initial = {},
                               .partition = {},
                               .decays = false,
                               .learning_rate_scale = learning_rate_scale});
  return head;
}

Var head_values(Tape& tape, const Var& x, const ValueHead& head) {
  const std::int64_t rows = x.value() ? x.value().rows() : 0;
  const Tensor y = tape.empty({rows + 1}, DType::f64);
  const double bias = number(head.bias->value(), 0);
  double* values = y.data<double>();
  std::fill(values, values + rows + 1, bias);
  if (rows > 0) {
    const std::int64_t channels = x.value().channels();
    dispatch_float(x.dtype(), [&]<class T>(Type<T>) {
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < channels; ++c)
          values[r] += at<T>(x.value(), r * channels + c) * number(head.weight->value(), c);
    });
  }
  std::vector<Source> sources{*head.bias};
  if (rows > 0) sources.insert(sources.end(), {x, *head.weight});
  return tape.record("value_head", sources, y,
                     [x, head](const Tensor& dy, Gradients& into) { head_backward(dy, x, head, into); });
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
  Memory& memory = tape.backend().memory();
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
