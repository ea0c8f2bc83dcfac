#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/autograd/partition.h"
#include "core/tensor/tensor.h"

namespace bireme {

/// The law of a parameter's initial values. Draws are keyed by (seed, name, position in the whole tensor),
/// hence the same for every layout over ranks.
struct Initializer {
  enum class Law {
    constant,
    normal,
    uniform,
    orthogonal,  ///< a matrix with orthonormal rows or columns, whichever are fewer, times `value`
    given        ///< `values`
  };
  Law law = Law::constant;
  double value = 0;                 ///< the constant, the standard deviation, the half width, or the gain
  std::vector<double> values = {};  ///< of the whole tensor
};

struct ParameterOptions {
  std::string name;  ///< published name, unique in its set
  Shape shape;       ///< of the whole tensor
  Initializer initial = {};
  Partition partition = {};
  bool decays = true;              ///< takes part in weight decay
  double learning_rate_scale = 1;  ///< multiplies the optimiser's learning rate
};

/// A trained tensor: views into its set's flat buffers. `value` is the master copy that the optimiser moves.
class Parameter {
 public:
  const std::string& name() const { return options_.name; }
  const Shape& whole_shape() const { return options_.shape; }
  const Partition& partition() const { return options_.partition; }
  bool decays() const { return options_.decays; }
  double learning_rate_scale() const { return options_.learning_rate_scale; }
  int index() const { return index_; }

  const Shape& shape() const { return value_.shape(); }
  const Tensor& value() const { return value_; }
  const Tensor& gradient() const { return gradient_; }  ///< undefined in sets built without gradients
  /// The values in the type that a matrix product wants: bf16 from the copy that the optimiser keeps, else
  /// the master.
  const Tensor& as(DType type) const { return type == DType::bf16 ? bf16_ : value_; }

  /// A parameter that is not trainable gets no gradient and is left alone by the optimiser (frozen last
  /// layer).
  bool trainable() const { return trainable_ && gradient_.defined(); }
  void set_trainable(bool trainable) { trainable_ = trainable; }

 private:
  friend class ParameterSet;
  friend class Gradients;
  friend class Tape;
  ParameterOptions options_;
  int index_ = 0;
  std::int64_t offset_ = 0;
  Tensor value_, gradient_, bf16_;
  bool trainable_ = true;
  bool has_gradient_ = false;  // written since begin_gradients(): later contributions add
};

/// All parameters of a network, laid out in flat buffers in *reverse* order of registration: gradients become
/// ready in about that order, so a bucket of the gradient reduction is a slice, and the optimiser is one
/// loop.
class ParameterSet {
 public:
  struct BuildOptions {
    DType master = DType::f32;  ///< fp64 in gradient checks
    bool gradients = true;
    bool bf16_copy = false;
  };

  Parameter& add(ParameterOptions options);
  /// Allocates the buffers; afterwards no parameter can be added.
  void build(Memory& memory, const BuildOptions& options);
  void initialize(std::uint64_t seed);
  /// Rounds the master values into the bf16 copy, where there is one: after initialisation and loading.
  void refresh_bf16();
  /// Copies the values of a set of the same structure.
  void copy_from(const ParameterSet& other);

  /// Before the first backward pass of an optimiser step: gradients are overwritten, not added to, by their
  /// first contribution.
  void begin_gradients();

  std::size_t size() const { return parameters_.size(); }
  Parameter& operator[](std::size_t i) { return *parameters_[i]; }
  const Parameter& operator[](std::size_t i) const { return *parameters_[i]; }
  Parameter* find(std::string_view name);
  const Parameter* find(std::string_view name) const;
  std::int64_t elements() const;  ///< of the local parts, without padding
  /// Where a parameter starts in the flat buffers.
  std::int64_t offset(const Parameter& parameter) const { return parameter.offset_; }

  const Tensor& flat_values() const { return values_; }
  const Tensor& flat_gradients() const { return gradients_; }
  const Tensor& flat_bf16() const { return bf16_; }

 private:
  std::vector<std::unique_ptr<Parameter>> parameters_;
  Tensor values_, gradients_, bf16_;
};

}  // namespace bireme
