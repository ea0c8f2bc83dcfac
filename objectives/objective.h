#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/autograd/tape.h"
#include "core/data/batch.h"

namespace bireme {

/// Parameters that an optimiser of their own moves.
struct TrainedNetwork {
  std::string name;  ///< before the names of its parameters in checkpoints; empty for the model
  ParameterSet& parameters;
  double learning_rate_scale = 1;  ///< multiplies the learning rate of the run
  double gradient_norm = 0;        ///< of the last step, before clipping; set by the trainer
};

/// What a run learns: turns batches into a loss, and owns whatever a step moves beside the trained parameters
/// (a teacher, a centre). One optimiser step is begin, compute for each micro-batch, reduce, and, unless the
/// step is skipped, after_step.
class Objective {
 public:
  virtual ~Objective() = default;

  /// The parameters that the optimiser moves.
  virtual ParameterSet& parameters() = 0;

  /// A second network that learns beside the first, with moments, clipping and a rate of its own, such as a
  /// value function; null: none.
  virtual TrainedNetwork* companion() { return nullptr; }

  /// Brings there what compute() would otherwise fetch from the host. May be done while a GPU still works at
  /// an earlier batch.
  virtual Batch bring(Batch batch) const { return batch; }

  virtual void begin(std::int64_t step) = 0;
  /// This rank's share of the loss of the whole global batch: shares of ranks and micro-batches add up to it.
  virtual Var compute(Tape& tape, const Batch& batch) = 0;
  /// The companion's own backward pass, after that of compute().
  virtual void backward_companion(const Tape::Ready& /*ready*/) {}
  /// After the last backward pass: adds loss and statistics over the data ranks. The loss, the same on every
  /// rank. Collective.
  virtual double reduce() = 0;
  /// By how much gradients are too large still: the number by which the optimiser multiplies them. 1 unless
  /// the batch held fewer targets than compute() divided by. Known after reduce().
  virtual double gradient_scale() const { return 1; }
  virtual void after_step() {}

  /// The step's own numbers, by name. Collective.
  virtual std::vector<std::pair<std::string, double>> terms() const = 0;
  /// What is wrong with the training, and what helps; empty otherwise.
  virtual std::string warning() const { return {}; }
  /// Floating-point operations of a step over this batch on this rank, two per multiply-add, forward and
  /// backward, matrix products and mixing of tokens only, summed over tensor ranks.
  virtual double flops(const Batch& batch) const = 0;
};

}  // namespace bireme
