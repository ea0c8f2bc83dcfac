#include "core/autograd/tape.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "core/base/profile.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

Target Gradients::operator[](const Var& var) {
  if (var.slot_ < 0) return {};
  Tensor& slot = slots_[static_cast<std::size_t>(var.slot_)];
  if (!slot.defined()) {
    slot = Tensor(backend_.memory(), var.shape(), var.dtype());
    return {slot, false};
  }
  if (slot.shared())
    slot = clone(backend_.memory(), slot);  // given to several: adding here must not show there
  return {slot, true};
}

Target Gradients::operator[](Parameter& parameter) {
  if (!parameter.trainable()) return {};
  return {parameter.gradient(), std::exchange(parameter.has_gradient_, true)};
}

void Gradients::give(const Var& var, const Tensor& gradient) {
  if (var.slot_ < 0) return;
  Tensor& slot = slots_[static_cast<std::size_t>(var.slot_)];
  if (!slot.defined()) {
    slot = gradient.reshape(var.shape());
    return;
  }
  if (slot.shared()) slot = clone(backend_.memory(), slot);
  backend_.pointwise().add({.from = gradient, .to = slot});
}

Tape::Tape(const Backend& backend, Mode mode, Profile* profile)
    : backend_(backend), mode_(mode), profile_(profile) {
  if (profile_ != nullptr) profile_->mark();
}

Var Tape::leaf(const Tensor& value) {
  if (mode_ == Mode::inference) return Var(value);
  leaves_.emplace_back(slots_, Tensor());
  return {value, slots_++};
}

void Tape::count_uses(const std::vector<Source>& sources, Step& step) {
  for (const Source& source : sources) {
    if (source.parameter_ == nullptr || !source.wants_gradient_) continue;
    step.parameters.push_back(source.parameter_);
    const auto index = static_cast<std::size_t>(source.parameter_->index());
    if (shared_uses_->size() <= index) shared_uses_->resize(index + 1, 0);
    ++(*shared_uses_)[index];
  }
}

Var Tape::record(const char* name, const std::vector<Source>& sources, const Tensor& y, Backward backward) {
  return record(
      name, sources, std::vector<Tensor>{y},
      [run = std::move(backward)](std::span<const Tensor> dy, Gradients& into) { run(dy[0], into); })[0];
}

std::vector<Var> Tape::record(const char* name, const std::vector<Source>& sources,
                              const std::vector<Tensor>& ys, BackwardMany backward) {
  if (profile_ != nullptr) profile_->forward(name);  // its kernels have just run
  const bool wanted =
      mode_ == Mode::record && std::any_of(sources.begin(), sources.end(),
                                           [](const Source& source) { return source.wants_gradient_; });
  std::vector<Var> results;
  if (!wanted) {
    for (const Tensor& y : ys) results.emplace_back(y);
    return results;
  }
  Step step{.name = name, .outputs = {}, .parameters = {}, .backward = {}};
  count_uses(sources, step);
  for (const Tensor& y : ys) {
    results.push_back(Var(y, slots_));
    step.outputs.push_back(slots_++);
  }
  if (keeps_steps_) {
    step.backward = std::move(backward);
    steps_.push_back(std::move(step));
  }
  return results;
}

Var Tape::recompute(const Block& block, const Var& x) {
  if (mode_ == Mode::inference) return block(*this, x);
  Tape counting(backend_, Mode::record, profile_);
  counting.keeps_steps_ = false;
  counting.shared_uses_ = shared_uses_;
  const Var inner = counting.leaf(x.value());
  const Tensor y = block(counting, inner).value();
  return record("recompute", {x.wants_gradient() ? Source(x) : Source(inner)}, y,
                [this, block, x](const Tensor& dy, Gradients& into) {
                  Tape again(backend_, Mode::record, profile_);
                  std::vector<int> counted_already;  // uses were counted on the way forward
                  again.shared_uses_ = &counted_already;
                  const Var leaf = again.leaf(x.value());
                  const Var y_again = block(again, leaf);
                  again.shared_uses_ = shared_uses_;
                  again.ready_ = ready_;
                  Gradients inner_gradients(backend_, static_cast<std::size_t>(again.slots_));
                  inner_gradients.give(y_again, dy);
                  again.walk_back(inner_gradients);
                  if (const Tensor& dx = inner_gradients.slots_[static_cast<std::size_t>(leaf.slot_)];
                      dx.defined())
                    into.give(x, dx);
                });
}

void Tape::finished_use(Parameter& parameter) {
  if (--(*shared_uses_)[static_cast<std::size_t>(parameter.index())] == 0 && ready_) ready_(parameter);
}

void Tape::walk_back(Gradients& gradients) {
  while (!steps_.empty()) {
    Step step = std::move(steps_.back());
    steps_.pop_back();
    std::vector<Tensor> dy;
    bool reached = false;
    for (const int slot : step.outputs) {
      dy.push_back(std::exchange(gradients.slots_[static_cast<std::size_t>(slot)], {}));
      reached = reached || dy.back().defined();
    }
    if (profile_ != nullptr) profile_->mark();
    if (reached) step.backward(dy, gradients);
    // What the step saved is freed before any communication that `ready` may start.
    step.backward = nullptr;
    dy.clear();
    if (profile_ != nullptr) profile_->backward(step.name);
    for (Parameter* parameter : step.parameters) finished_use(*parameter);
  }
}

void Tape::backward(const Var& y, ParameterSet* parameters, const Ready& ready, const Tensor& dy) {
  std::vector<char> announced(parameters != nullptr ? parameters->size() : 0, 0);
  ready_ = [&](Parameter& parameter) {
    if (parameters == nullptr) return;
    announced[static_cast<std::size_t>(parameter.index())] = 1;
    // Uses that nothing reached: the gradient is zero, but still has to be there.
    if (!parameter.has_gradient_) fill(parameter.gradient(), 0);
    parameter.has_gradient_ = true;
    if (ready) ready(parameter);
  };
  Gradients gradients(backend_, static_cast<std::size_t>(slots_));
  Tensor seed = dy;
  if (!seed.defined()) {
    assert(y.value().elements() == 1);
    seed = empty(y.shape(), y.dtype());
    fill(seed, 1);
  }
  gradients.give(y, seed);
  walk_back(gradients);
  for (auto& [slot, gradient] : leaves_) gradient = gradients.slots_[static_cast<std::size_t>(slot)];
  if (parameters != nullptr) {
    for (std::size_t i = parameters->size(); i-- > 0;) {
      Parameter& parameter = (*parameters)[i];
      if (!announced[i] && parameter.gradient().defined()) ready_(parameter);
    }
  }
  ready_ = {};
}

Tensor Tape::gradient(const Var& leaf) const {
  for (const auto& [slot, gradient] : leaves_)
    if (slot == leaf.slot_) return gradient;
  return {};
}

}  // namespace bireme
