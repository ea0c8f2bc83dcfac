#pragma once

#include <functional>

#include "core/ops/loss/loss.h"
#include "distributed/mesh.h"
#include "models/dino_network.h"
#include "objectives/objective.h"
#include "objectives/part_sums.h"

namespace bireme {

/// Settings of self-distillation that change from step to step.
struct DinoStep {
  double teacher_temperature = 0.04;
  double teacher_momentum = 0.996;
  bool freeze_last_layer = false;
};

/// Self-distillation without labels (Caron et al. 2021): the student predicts, from every crop, what its
/// moving average, the teacher, says of the two global crops. Owns the teacher and the centre of its outputs,
/// which are part of a checkpoint.
class DinoObjective final : public Objective {
 public:
  struct Options {
    double student_temperature = 0.1;
    double center_momentum = 0.9;
    std::uint64_t seed = 0;
    DType type = DType::f32;  ///< compute type
    bool recompute = false;
    std::int64_t global_images = 0;  ///< of an optimiser step, over ranks and micro-batches
    std::function<DinoStep(std::int64_t step)> schedule;
  };
  /// @param student, teacher  built, of the same structure; the caller sets their values
  DinoObjective(Options options, const Backend& backend, const Mesh& mesh, DinoNetwork& student,
                DinoNetwork& teacher);

  ParameterSet& parameters() override { return student_.parameters(); }
  Batch bring(Batch batch) const override;
  void begin(std::int64_t step) override;
  Var compute(Tape& tape, const Batch& batch) override;
  double reduce() override;
  /// Centre and teacher move (eqs. 3 and 4 of the paper's method: c ← m_c·c + (1-m_c)·mean of teacher logits;
  /// θ_t ← m·θ_t + (1-m)·θ_s).
  void after_step() override;

  /// teacher_entropy, kl, marginal_entropy, center_norm, …
  std::vector<std::pair<std::string, double>> terms() const override;
  /// Says so when the outputs have collapsed for 100 steps.
  std::string warning() const override;
  double flops(const Batch& batch) const override;

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
  std::int64_t step_ = 0;
  DinoStep settings_;
  double loss_ = 0, entropy_ = 0;
  PartSums parts_;  // loss and entropy
  int collapsed_steps_ = 0;
};

}  // namespace bireme
