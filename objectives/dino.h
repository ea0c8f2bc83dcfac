#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/data/batch.h"
#include "core/ops/loss/loss.h"
#include "distributed/mesh.h"
#include "models/dino_network.h"

namespace bireme {

/// Settings of self-distillation that change from step to step.
struct DinoStep {
  std::int64_t step = 0;
  double teacher_temperature = 0.04;
  double teacher_momentum = 0.996;
  bool freeze_last_layer = false;
};

/// Self-distillation without labels (Caron et al. 2021): the student predicts, from every crop, what its
/// moving average, the teacher, says of the two global crops. Owns the teacher and the centre of its outputs,
/// which are part of a checkpoint.
class DinoObjective {
 public:
  struct Options {
    double student_temperature = 0.1;
    double center_momentum = 0.9;
    std::uint64_t seed = 0;
    DType type = DType::f32;  ///< compute type
    bool recompute = false;
  };
  /// @param student, teacher  built, of the same structure; the caller sets their values
  DinoObjective(const Options& options, const Backend& backend, const Mesh& mesh, DinoNetwork& student,
                DinoNetwork& teacher);

  /// Once before the micro-batches of an optimiser step.
  void begin(const DinoStep& step);
  /// This rank's share of the loss of the whole global batch: shares of ranks and micro-batches add up to it.
  /// @param global_images  of the optimiser step, over ranks and micro-batches
  Var compute(Tape& tape, const ImageBatch& batch, std::int64_t global_images);
  /// After the last backward pass: adds loss and statistics over the data ranks. The same on every rank.
  /// Collective.
  double reduce();
  /// After the optimiser: centre and teacher move (eqs. 3 and 4 of the paper's method: c ← m_c·c +
  /// (1-m_c)·mean of teacher logits; θ_t ← m·θ_t + (1-m)·θ_s). Not called for a step that was skipped.
  void after_step();

  /// The step's own numbers, by name: teacher_entropy, kl, marginal_entropy, center_norm, …
  std::vector<std::pair<std::string, double>> terms() const;
  /// What is wrong, and what helps, when the outputs have collapsed for 100 steps; empty otherwise.
  std::string collapse_warning() const;

  const Tensor& center() const { return center_; }  ///< [K / tensor ranks] fp32
  DinoNetwork& teacher() { return teacher_; }
  DinoNetwork& student() { return student_; }

 private:
  ReduceOverColumns over_columns() const;
  double sum_over_tensor(double value) const;
  void judge_collapse();

  Options options_;
  const Backend& backend_;
  const Mesh& mesh_;
  DinoNetwork &student_, &teacher_;
  Tensor center_, logit_sum_, probability_sum_;  // [K / tensor ranks]
  DinoStep step_;
  double loss_ = 0, entropy_ = 0, marginal_entropy_ = 0;
  std::int64_t images_ = 0;
  int collapsed_steps_ = 0;
};

}  // namespace bireme
