#include "core/ops/loss/loss.h"

#include <spdlog/fmt/fmt.h>

#include "core/base/error.h"
#include "core/ops/lane_type.h"
#include "core/ops/loss/loss_kernels.h"

namespace bireme {

namespace {

/// B, the images of this rank.
std::int64_t check_sizes(const Tensor& student, const Tensor& teacher, const Tensor& center,
                         const DinoLossOptions& options) {
  if (options.crops < 2 || student.rows() % options.crops != 0) {
    throw Error(ErrorKind::data,
                fmt::format("{} rows of student logits are not {} crops of the same images", student.rows(),
                            options.crops),
                "dino_loss", "there must be at least the two global crops");
  }
  const std::int64_t images = student.rows() / options.crops;
  require_shape("dino_loss: teacher", teacher, {2 * images, student.channels()});
  require_shape("dino_loss: center", center, {student.channels()});
  return images;
}

/// The statistics of all rows side by side in one buffer, so that ranks exchange them at once.
struct DinoRows {
  Tensor maxima, student_maxima, teacher_maxima;
  Tensor sums, exponentials, dots, teacher_exponentials, teacher_exponents;

  DinoRows(const Tape& tape, std::int64_t student_rows, std::int64_t teacher_rows, DType type)
      : maxima(tape.empty({student_rows + teacher_rows}, type)),
        student_maxima(maxima.slice(0, student_rows)),
        teacher_maxima(maxima.slice(student_rows, student_rows + teacher_rows)),
        sums(tape.empty({3 * student_rows + 2 * teacher_rows}, type)),
        exponentials(sums.slice(0, student_rows)),
        dots(sums.view(student_rows, {2, student_rows})),
        teacher_exponentials(sums.view(3 * student_rows, {teacher_rows})),
        teacher_exponents(sums.view(3 * student_rows + teacher_rows, {teacher_rows})) {}
};

}  // namespace

DinoLoss dino_loss(Tape& tape, const Var& student, const Tensor& teacher, const Tensor& center,
                   const DinoLossOptions& options, const ReduceOverColumns& reduce) {
  const std::int64_t images = check_sizes(student.value(), teacher, center, options),
                     columns = center.elements();
  const LossKernels& kernels = tape.backend().loss();
  const DType type = lane_type(student.dtype());
  const DinoRows rows(tape, student.value().rows(), 2 * images, type);
  const double pairs = (2.0 * options.crops - 2) * static_cast<double>(options.global_images);
  DinoStatistics statistics{.entropy_sum = tape.empty({}, DType::f64),
                            .mean_probability_sum = tape.empty({columns}, type),
                            .teacher_logit_sum = tape.empty({columns}, type)};

  kernels.dino_maxima({.student = student.value(),
                       .teacher = teacher,
                       .center = center,
                       .student_maxima = rows.student_maxima,
                       .teacher_maxima = rows.teacher_maxima});
  if (reduce) reduce(rows.maxima, RowReduction::max);
  kernels.dino_sums({.student = student.value(),
                     .teacher = teacher,
                     .center = center,
                     .student_maxima = rows.student_maxima,
                     .teacher_maxima = rows.teacher_maxima,
                     .exponentials = rows.exponentials,
                     .dots = rows.dots,
                     .teacher_exponentials = rows.teacher_exponentials,
                     .teacher_exponents = rows.teacher_exponents,
                     .teacher_logit_sum = statistics.teacher_logit_sum,
                     .student_temperature = options.student_temperature,
                     .teacher_temperature = options.teacher_temperature});
  if (reduce) reduce(rows.sums, RowReduction::sum);
  const Tensor loss = tape.empty({}, type);
  kernels.dino_finish({.teacher = teacher,
                       .exponentials = rows.exponentials,
                       .dots = rows.dots,
                       .teacher_exponentials = rows.teacher_exponentials,
                       .teacher_exponents = rows.teacher_exponents,
                       .loss = loss,
                       .entropy_sum = statistics.entropy_sum,
                       .mean_probability_sum = statistics.mean_probability_sum,
                       .pairs = pairs});

  const float temperature = options.student_temperature;
  const Var value = tape.record(
      "dino_loss", {student}, loss,
      [&kernels, student, teacher, rows, temperature, pairs](const Tensor& dloss, Gradients& into) {
        kernels.dino_backward({.dloss = dloss,
                               .student = student.value(),
                               .teacher = teacher,
                               .student_maxima = rows.student_maxima,
                               .exponentials = rows.exponentials,
                               .student_temperature = temperature,
                               .pairs = pairs});
        into.give(student, student.value());
      });
  return {.loss = value, .statistics = statistics};
}

Var cross_entropy(Tape& tape, const Var& logits, const Tensor& labels, double count) {
  const std::int64_t classes = logits.value().channels();
  require_shape("cross_entropy: labels", labels, {logits.value().rows()});
  for (const std::int32_t label : labels.values<std::int32_t>()) {
    if (label < 0 || label >= classes)
      throw Error(ErrorKind::data, fmt::format("label {} lies outside 0 ... {}", label, classes - 1),
                  "cross_entropy", "check the labels of the dataset and the number of classes");
  }
  const LossKernels& kernels = tape.backend().loss();
  const Tensor loss = tape.empty({}, logits.dtype()),
               log_sum_exp = tape.empty({logits.value().rows()}, logits.dtype());
  kernels.cross_entropy(CrossEntropyForward{
      .logits = logits.value(), .labels = labels, .log_sum_exp = log_sum_exp, .loss = loss, .count = count});
  return tape.record("cross_entropy", {logits}, loss,
                     [&kernels, logits, labels, log_sum_exp, count](const Tensor& dloss, Gradients& into) {
                       kernels.cross_entropy(CrossEntropyBackward{.dloss = dloss,
                                                                  .logits = logits.value(),
                                                                  .labels = labels,
                                                                  .log_sum_exp = log_sum_exp,
                                                                  .count = count});
                       into.give(logits, logits.value());
                     });
}

}  // namespace bireme
