#include "core/ops/loss/loss.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <barrier>
#include <cmath>
#include <thread>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

OpCase dino_case(int crops, std::int64_t images, std::int64_t columns) {
  const Tensor teacher = random_normal({2 * images, columns}, {.deviation = 0.3, .seed = 8});
  const Tensor center = random_normal({columns}, {.deviation = 0.1, .seed = 9});
  return {.inputs = {{random_normal({crops * images, columns}, {.deviation = 0.3, .seed = 7})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType type) -> std::vector<Var> {
            Memory& memory = tape.backend().memory();
            const DType master = type == DType::f64 ? DType::f64 : DType::f32;
            const DinoLossOptions options{.crops = crops, .global_images = images + 3};
            return {dino_loss(tape, x[0], convert(memory, teacher, type), convert(memory, center, master),
                              options)
                        .loss};
          }};
}

OpCase cross_entropy_case(std::int64_t rows, std::int64_t classes, double mean = 0) {
  return {.inputs = {{random_normal({rows, classes}, {.mean = mean, .deviation = 2, .seed = 7})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            const Tensor labels(tape.backend().memory().host(), {rows}, DType::i32);
            for (std::int64_t r = 0; r < rows; ++r)
              labels.data<std::int32_t>()[r] = static_cast<std::int32_t>(r * 5 % classes);
            return {cross_entropy(tape, x[0], labels, static_cast<double>(2 * rows))};
          }};
}

class Loss : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Loss, on_every_device(), device_name);

TEST_P(Loss, DinoGradientsMatchCentralDifferences) {
  // Temperatures of 0.1 sharpen third derivatives by 1000, hence the smaller step.
  for (const auto& [crops, images, columns] : {std::tuple{2, 1, 3}, {2, 3, 7}, {5, 2, 16}, {4, 3, 33}}) {
    SCOPED_TRACE(fmt::format("{} crops, {} images, {} columns", crops, images, columns));
    expect_gradients(backend(), dino_case(crops, images, columns), {.relative = 1e-6, .step = 1e-6});
  }
}

TEST_P(Loss, DinoInFp32AndBf16AgreesWithFp64) {
  // fp32: exponents of up to 50 carry an error of 50 · 6e-8, which exp makes relative. bf16: logits are
  // exact, but the teacher's exponentials and the gradient are stored with 2⁻⁹.
  for (const std::int64_t columns : {1, 3, 7, 64, 129, 1000}) {
    SCOPED_TRACE(columns);
    expect_agrees_with_double(backend(), dino_case(4, 3, columns), DType::f32, columns == 1 ? 1e-4 : 2e-5);
  }
  expect_agrees_with_double(backend(), dino_case(4, 3, 129), DType::bf16, 0.05);
}

TEST_P(Loss, DinoMatchesTheReferenceOverFourIterations) {
  const Golden golden("vision/loss.h5");
  const std::vector<double> temperatures = golden.numbers("config", "teacher_temps");
  for (const DType type : {DType::f64, DType::f32}) {
    Tensor center = convert(memory(), golden.tensor("inputs/center"), type).reshape({64});
    for (int i = 0; i < 4; ++i) {
      SCOPED_TRACE(fmt::format("{}, iteration {}", to_string(type), i));
      const auto at = [i](const char* group, const char* name) {
        return fmt::format("{}/{}/{}", group, i, name);
      };
      const auto number = [&](const char* name) {
        return golden.tensor(at("outputs", name)).data<double>()[0];
      };
      Tape tape(backend());
      const Var student = tape.leaf(convert(memory(), golden.tensor(at("inputs", "student")), type));
      const Tensor teacher = convert(memory(), golden.tensor(at("inputs", "teacher")), type);
      const DinoLossOptions options{
          .crops = 5,
          .teacher_temperature = static_cast<float>(temperatures[static_cast<std::size_t>(i)]),
          .global_images = 4};
      const DinoLoss result = dino_loss(tape, student, teacher, center, options);
      const double loss = convert(host(), result.loss.value(), DType::f64).data<double>()[0];
      EXPECT_NEAR(loss, number("loss"), 5e-6 * number("loss"));
      EXPECT_NEAR(on_host(result.statistics.entropy_sum).data<double>()[0] / 8, number("teacher_entropy"),
                  5e-6 * std::log(64));
      expect_close(teacher, golden.tensor(at("outputs", "teacher_probabilities")), 5e-6, 0,
                   "teacher probabilities");
      tape.backward(result.loss);
      expect_close(tape.gradient(student), golden.tensor(at("grads", "student")), 5e-6, 0, "gradient");

      const Tensor mean = convert(host(), result.statistics.mean_probability_sum, DType::f64);
      double marginal = 0;
      for (const double q : mean.values<double>()) marginal -= q / 8 * std::log(q / 8);
      EXPECT_NEAR(marginal, number("teacher_marginal_entropy"), 5e-6 * std::log(64));
      const Tensor sum = convert(host(), result.statistics.teacher_logit_sum, DType::f64);
      const Tensor old = convert(host(), center, DType::f64);
      for (std::int64_t k = 0; k < 64; ++k)
        old.data<double>()[k] = 0.9 * old.data<double>()[k] + 0.1 * sum.data<double>()[k] / 8;
      expect_close(old, golden.tensor(at("outputs", "center")).reshape({64}), 5e-6, 0, "center");
      center = convert(memory(), old, type);
    }
  }
}

TEST_P(Loss, DinoOfHalvesOfABatchAddsUpToTheWhole) {
  const int crops = 4;
  const std::int64_t images = 6, columns = 40;
  const Tensor student = random_normal({crops * images, columns}, {.deviation = 0.3, .seed = 1});
  const Tensor teacher = random_normal({2 * images, columns}, {.deviation = 0.3, .seed = 2});
  const Tensor center = random_normal({columns}, {.deviation = 0.1, .seed = 3});
  const auto loss_of = [&](std::int64_t begin, std::int64_t end) {
    const auto part = [&](const Tensor& whole, std::int64_t views) {
      const Tensor result(memory(), {views * (end - begin), columns}, DType::f64);
      for (std::int64_t v = 0; v < views; ++v)
        copy(whole.slice(v * images + begin, v * images + end),
             result.slice(v * (end - begin), (v + 1) * (end - begin)));
      return result;
    };
    Tape tape(backend(), Tape::Mode::inference);
    const DinoLossOptions options{.crops = crops, .global_images = images};
    const Var loss = dino_loss(tape, Var(part(student, crops)), part(teacher, 2), here(center), options).loss;
    return on_host(loss.value()).data<double>()[0];
  };
  EXPECT_NEAR(loss_of(0, 2) + loss_of(2, 6), loss_of(0, 6), 1e-13 * loss_of(0, 6));
}

/// Two ranks as two threads: a buffer that both add to, or take the maximum of, between two barriers.
class TwoRanks {
 public:
  void reduce(int rank, const Tensor& mine, RowReduction reduction) {
    vectors_[rank] = on_host(mine);
    barrier_.arrive_and_wait();
    std::vector<double> total;
    for (std::int64_t i = 0; i < mine.elements(); ++i) {
      const double a = vectors_[0].data<double>()[i], b = vectors_[1].data<double>()[i];
      total.push_back(reduction == RowReduction::sum ? a + b : std::max(a, b));
    }
    barrier_.arrive_and_wait();
    std::copy(total.begin(), total.end(), vectors_[rank].data<double>());
    copy(vectors_[rank], mine);
  }

 private:
  std::barrier<> barrier_{2};
  Tensor vectors_[2];
};

TEST_P(Loss, DinoWithTheColumnsSplitOverTwoRanksEqualsTheWhole) {
  const int crops = 5;
  const std::int64_t images = 3, columns = 50, split = 17;
  const Tensor student = random_normal({crops * images, columns}, {.deviation = 0.3, .seed = 1});
  const Tensor teacher = random_normal({2 * images, columns}, {.deviation = 0.3, .seed = 2});
  const Tensor center = random_normal({columns}, {.deviation = 0.1, .seed = 3});
  const DinoLossOptions options{.crops = crops, .global_images = images};

  Tape whole_tape(backend());
  const Var whole_student = whole_tape.leaf(clone(memory(), student));
  const DinoLoss whole =
      dino_loss(whole_tape, whole_student, clone(memory(), teacher), here(center), options);
  whole_tape.backward(whole.loss);

  const auto columns_of = [&](const Tensor& given, std::int64_t begin, std::int64_t end) {
    const Tensor tensor = here(given);
    const Shape shape = tensor.shape().rank() == 1 ? Shape{end - begin} : Shape{tensor.rows(), end - begin};
    const Tensor part(memory(), shape, DType::f64);
    copy_columns(tensor, part, {.from_column = begin, .columns = end - begin});
    return part;
  };
  TwoRanks ranks;
  const auto run_rank = [&](int rank) {
    const std::int64_t begin = rank == 0 ? 0 : split, end = rank == 0 ? split : columns;
    Tape tape(backend());
    const Var part = tape.leaf(columns_of(student, begin, end));
    const DinoLoss loss =
        dino_loss(tape, part, columns_of(teacher, begin, end), columns_of(center, begin, end), options,
                  [&](const Tensor& rows, RowReduction reduction) { ranks.reduce(rank, rows, reduction); });
    tape.backward(loss.loss);
    expect_close(loss.loss.value(), whole.loss.value(), 1e-13, 0, "loss");
    expect_close(loss.statistics.entropy_sum, whole.statistics.entropy_sum, 0, 1e-12);
    expect_close(loss.statistics.mean_probability_sum,
                 columns_of(whole.statistics.mean_probability_sum, begin, end), 1e-13);
    expect_close(loss.statistics.teacher_logit_sum,
                 columns_of(whole.statistics.teacher_logit_sum, begin, end), 1e-13);
    expect_close(tape.gradient(part), columns_of(whole_tape.gradient(whole_student), begin, end), 1e-12, 0,
                 "gradient");
  };
  std::jthread other([&] { run_rank(1); });
  run_rank(0);
}

TEST_P(Loss, DinoWritesTheGradientOverTheLogits) {
  Tape tape(backend());
  const Var student = tape.leaf(convert(memory(), random_normal({4, 9}), DType::f32));
  const Tensor teacher = convert(memory(), random_normal({4, 9}, {.seed = 2}), DType::f32);
  const Tensor center(memory(), {9}, DType::f32);
  fill(center, 0);
  tape.backward(dino_loss(tape, student, teacher, center, {.crops = 2, .global_images = 2}).loss);
  EXPECT_EQ(tape.gradient(student).raw(), student.value().raw());
}

TEST_P(Loss, DinoStaysFiniteFarOutsideTheRangeOfCosines) {
  // With a trained magnitude logits are not bounded: 1000 / 0.04 overflows exp unless the maximum is taken
  // out.
  OpCase op = dino_case(3, 2, 20);
  op.inputs[0].value = random_normal({6, 20}, {.deviation = 1000, .seed = 7});
  const OpResult result = run_op(backend(), op, DType::f32);
  EXPECT_TRUE(std::isfinite(result.outputs[0].data<float>()[0]));
  for (const float ds : result.input_gradients[0].values<float>()) EXPECT_TRUE(std::isfinite(ds));
}

TEST_P(Loss, CrossEntropyGradientsMatchCentralDifferences) {
  for (const auto& [rows, classes] : {std::pair{1, 2}, {3, 7}, {5, 16}, {2, 129}}) {
    SCOPED_TRACE(fmt::format("{} rows, {} classes", rows, classes));
    expect_gradients(backend(), cross_entropy_case(rows, classes));
    expect_agrees_with_double(backend(), cross_entropy_case(rows, classes), DType::f32, 1e-5);
  }
}

TEST_P(Loss, CrossEntropyOfLargeLogitsIsExact) {
  // A common shift of 10000 would overflow exp; fp32 knows logits of that size to 1e-3, and the inputs are
  // rounded first.
  expect_agrees_with_double(backend(), cross_entropy_case(4, 10, 10000), DType::f32, 1e-3);
}

TEST_P(Loss, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(backend(), dino_case(6, 16, 2500), type);
  expect_same_bits_on_any_number_of_threads(backend(), cross_entropy_case(200, 100), DType::f32);
}

TEST_P(Loss, NamesWhatDoesNotFit) {
  Tape tape(backend());
  const auto tensor = [&](const Shape& shape) { return convert(memory(), random_normal(shape), DType::f32); };
  const DinoLossOptions three{.crops = 3, .global_images = 2};
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       dino_loss(tape, Var(tensor({7, 4})), tensor({4, 4}), tensor({4}), three);
                     })
                .find("7 rows of student logits are not 3 crops of the same images"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       dino_loss(tape, Var(tensor({6, 4})), tensor({6, 4}), tensor({4}), three);
                     })
                .find("dino_loss: teacher has shape [6, 4], expected [4, 4]"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       dino_loss(tape, Var(tensor({6, 4})), tensor({4, 4}), tensor({5}), three);
                     })
                .find("dino_loss: center has shape [5], expected [4]"),
            std::string::npos);
  const Tensor labels(host(), {2}, DType::i32);
  labels.data<std::int32_t>()[0] = 0, labels.data<std::int32_t>()[1] = 4;
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       cross_entropy(tape, Var(tensor({2, 4})), labels, 2);
                     })
                .find("label 4 lies outside 0 ... 3"),
            std::string::npos);
}

}  // namespace
}  // namespace bireme::test
