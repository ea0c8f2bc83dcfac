#include "core/autograd/parameter.h"

#include <xxhash.h>

#include <cassert>

#include "core/autograd/orthogonal.h"
#include "core/tensor/random.h"

namespace bireme {

namespace {

// Each parameter starts on a cache line of the flat buffers.
constexpr std::int64_t kAlignment = 16;

double draw(const Initializer& initial, std::uint64_t seed, std::uint64_t name, std::int64_t position) {
  RandomStream random(seed, name, RandomUse::initialize, static_cast<std::uint64_t>(position));
  switch (initial.law) {
    case Initializer::Law::constant: return initial.value;
    case Initializer::Law::normal: return initial.value * random.normal();
    case Initializer::Law::uniform: return random.uniform(-initial.value, initial.value);
    case Initializer::Law::orthogonal:
    case Initializer::Law::given: break;  // not drawn one by one
  }
  return 0;
}

/// All values of a law that looks at the whole tensor; empty for the others.
std::vector<double> whole_values(const Parameter& parameter, const Initializer& initial, std::uint64_t seed,
                                 std::uint64_t name) {
  if (initial.law == Initializer::Law::given) {
    assert(static_cast<std::int64_t>(initial.values.size()) == parameter.whole_shape().elements());
    return initial.values;
  }
  if (initial.law != Initializer::Law::orthogonal) return {};
  const std::int64_t columns = parameter.whole_shape().back();
  std::vector<double> values =
      orthogonal_matrix(parameter.whole_shape().elements() / columns, columns, [&](std::int64_t position) {
        return draw({.law = Initializer::Law::normal, .value = 1}, seed, name, position);
      });
  for (double& x : values) x *= initial.value;
  return values;
}

}  // namespace

Parameter& ParameterSet::add(ParameterOptions options) {
  assert(!values_.defined() && find(options.name) == nullptr);
  parameters_.push_back(std::make_unique<Parameter>());
  Parameter& parameter = *parameters_.back();
  parameter.options_ = std::move(options);
  parameter.index_ = static_cast<int>(parameters_.size()) - 1;
  return parameter;
}

void ParameterSet::build(Memory& memory, const BuildOptions& options) {
  std::int64_t total = 0;
  for (auto it = parameters_.rbegin(); it != parameters_.rend(); ++it) {
    Parameter& parameter = **it;
    parameter.offset_ = total;
    const std::int64_t elements = local_shape(parameter.whole_shape(), parameter.partition()).elements();
    total += (elements + kAlignment - 1) / kAlignment * kAlignment;
  }
  values_ = Tensor(memory, {total}, options.master);
  fill(values_, 0);
  if (options.gradients) {
    gradients_ = Tensor(memory, {total}, options.master);
    fill(gradients_, 0);
  }
  if (options.bf16_copy) {
    bf16_ = Tensor(memory, {total}, DType::bf16);
    fill(bf16_, 0);
  }
  for (auto& parameter : parameters_) {
    const Shape shape = local_shape(parameter->whole_shape(), parameter->partition());
    parameter->value_ = values_.view(parameter->offset_, shape);
    if (options.gradients) parameter->gradient_ = gradients_.view(parameter->offset_, shape);
    if (options.bf16_copy) parameter->bf16_ = bf16_.view(parameter->offset_, shape);
  }
}

void ParameterSet::initialize(std::uint64_t seed) {
  // Drawn on the host, and in place where it reaches the values.
  const Tensor drawn = values_.is_on_host() ? values_ : clone(values_.memory().host(), values_);
  for (auto& parameter : parameters_) {
    const Initializer& initial = parameter->options_.initial;
    if (initial.law == Initializer::Law::constant) {
      fill(drawn.view(parameter->offset_, parameter->shape()), initial.value);
      continue;
    }
    const std::uint64_t name = XXH3_64bits(parameter->name().data(), parameter->name().size());
    const Tensor value = drawn.view(parameter->offset_, parameter->shape());
    const std::vector<double> whole = whole_values(*parameter, initial, seed, name);
    const std::int64_t count = value.elements();
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t position = global_index(i, parameter->whole_shape(), parameter->partition());
      const double x =
          whole.empty() ? draw(initial, seed, name, position) : whole[static_cast<std::size_t>(position)];
      if (value.dtype() == DType::f64) {
        value.data<double>()[i] = x;
      } else {
        value.data<float>()[i] = static_cast<float>(x);
      }
    }
  }
  copy(drawn, values_);
  refresh_bf16();
}

void ParameterSet::refresh_bf16() {
  if (bf16_.defined()) copy(values_, bf16_);
}

void ParameterSet::copy_from(const ParameterSet& other) {
  assert(values_.elements() == other.values_.elements());
  copy(other.values_, values_);
  refresh_bf16();
}

void ParameterSet::begin_gradients() {
  for (auto& parameter : parameters_) parameter->has_gradient_ = false;
}

Parameter* ParameterSet::find(std::string_view name) {
  for (auto& parameter : parameters_)
    if (parameter->name() == name) return parameter.get();
  return nullptr;
}

const Parameter* ParameterSet::find(std::string_view name) const {
  return const_cast<ParameterSet*>(this)->find(name);
}

std::int64_t ParameterSet::elements() const {
  std::int64_t total = 0;
  for (const auto& parameter : parameters_) total += parameter->value_.elements();
  return total;
}

}  // namespace bireme
