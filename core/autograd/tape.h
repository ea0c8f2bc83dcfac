#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/autograd/parameter.h"
#include "core/ops/backend.h"
#include "core/tensor/tensor.h"

namespace bireme {

class Profile;
class Tape;

/// A value on the way forward: a tensor, and the slot of its gradient. Slot -1: no gradient is wanted.
class Var {
 public:
  Var() = default;
  /// A constant.
  explicit Var(Tensor value) : value_(std::move(value)) {}

  const Tensor& value() const { return value_; }
  const Shape& shape() const { return value_.shape(); }
  DType dtype() const { return value_.dtype(); }
  bool wants_gradient() const { return slot_ >= 0; }

 private:
  friend class Tape;
  friend class Gradients;
  Var(Tensor value, int slot) : value_(std::move(value)), slot_(slot) {}
  Tensor value_;
  int slot_ = -1;
};

/// Where a kernel puts a gradient: it writes on the first contribution and adds on later ones, so that
/// nothing is ever cleared and no sum is a pass of its own. An empty target means that nobody wants this
/// gradient.
struct Target {
  Tensor tensor;
  bool accumulate = false;
  explicit operator bool() const { return tensor.defined(); }
};

/// Gradients under way during a backward pass.
class Gradients {
 public:
  Target operator[](const Var& var);
  Target operator[](Parameter& parameter);
  /// Hands over a whole tensor as a contribution: taken as it is when it is the first. A tensor may be given
  /// to several.
  void give(const Var& var, const Tensor& gradient);

 private:
  friend class Tape;
  Gradients(const Backend& backend, std::size_t slots) : backend_(backend), slots_(slots) {}
  const Backend& backend_;
  std::vector<Tensor> slots_;
};

/// What a step reads: an earlier value or a parameter.
class Source {
 public:
  Source(const Var& var) : wants_gradient_(var.wants_gradient()) {}  // NOLINT(google-explicit-constructor)
  Source(Parameter& parameter)
      : wants_gradient_(parameter.trainable()),
        parameter_(&parameter) {}  // NOLINT(google-explicit-constructor)

 private:
  friend class Tape;
  bool wants_gradient_;
  Parameter* parameter_ = nullptr;
};

/// Records a forward pass as a list of steps and walks it backwards (reverse-mode differentiation).
///  - A step none of whose sources wants a gradient is not recorded: teachers, references and inference pay
///  nothing.
///  - A step is destroyed as soon as it has run, and with it what it saved and the gradient of what it
///  produced.
///  - Uses of a parameter are counted while recording; when the last one has run backwards, `ready` is called
///  for it,
///    once, in the same order on every rank and step. Parameters not used are announced at the end with a
///    zero gradient.
class Tape {
 public:
  using Ready = std::function<void(Parameter&)>;
  using Backward = std::function<void(const Tensor& dy, Gradients& into)>;
  using BackwardMany = std::function<void(std::span<const Tensor> dy, Gradients& into)>;

  enum class Mode { record, inference };
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() = default;
  /// @param profile  told of every operation, with its time forward and backward; null: nothing is measured
  explicit Tape(const Backend& backend, Mode mode = Mode::record, Profile* profile = nullptr);

  const Backend& backend() const { return backend_; }
  bool recording() const { return mode_ != Mode::inference; }
  /// For another tape of the same step, such as a teacher's.
  Profile* profile() const { return profile_; }
  Tensor empty(const Shape& shape, DType type) const { return {backend_.memory(), shape, type}; }

  /// A leaf whose gradient can be asked for after backward: gradient(leaf).
  Var leaf(const Tensor& value);
  Var record(const char* name, const std::vector<Source>& sources, const Tensor& y, Backward backward);
  /// For steps of several results; in `dy` a result that nobody used is an undefined tensor.
  std::vector<Var> record(const char* name, const std::vector<Source>& sources, const std::vector<Tensor>& ys,
                          BackwardMany backward);

  /// Runs `block` without keeping what it computes, and again on the way back: memory for time, bit for bit
  /// the same result, since random numbers are keyed and not stateful.
  using Block = std::function<Var(Tape&, const Var&)>;
  Var recompute(const Block& block, const Var& x);

  /// Walks back from a scalar, or from any value with its gradient given. Calls `ready` for each parameter of
  /// `parameters`.
  void backward(const Var& y, ParameterSet* parameters = nullptr, const Ready& ready = {},
                const Tensor& dy = {});
  /// After backward: the gradient of a leaf; undefined if nothing reached it.
  Tensor gradient(const Var& leaf) const;
  std::size_t steps() const { return steps_.size(); }

 private:
  struct Step {
    const char* name;
    std::vector<int> outputs;
    std::vector<Parameter*> parameters;
    BackwardMany backward;
  };
  void count_uses(const std::vector<Source>& sources, Step& step);
  void walk_back(Gradients& gradients);
  void finished_use(Parameter& parameter);

  const Backend& backend_;
  Mode mode_ = Mode::record;
  Profile* profile_ = nullptr;
  bool keeps_steps_ = true;
  int slots_ = 0;
  std::vector<Step> steps_;
  std::vector<int> uses_;  // by parameter index
  std::vector<int>* shared_uses_ = &uses_;
  Ready ready_;
  std::vector<std::pair<int, Tensor>> leaves_;
};

}  // namespace bireme
