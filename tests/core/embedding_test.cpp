#include "core/ops/embedding/embedding.h"

#include <gtest/gtest.h>

#include "core/ops/pointwise/pointwise.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

constexpr double kFloatTolerance = 1e-5;  // sums of a few dozen terms
constexpr double kBf16Tolerance = 0.01;   // one rounding of patches or gradients by 2⁻⁹

OpCase resize_case(std::int64_t grid, std::int64_t rows, std::int64_t columns, std::int64_t channels) {
  return {.inputs = {},
          .parameters = {random_normal({1, grid * grid + 1, channels}, {.seed = 7})},
          .run = [=](Tape& tape, const std::vector<Var>&, ParameterSet& p, DType) -> std::vector<Var> {
            const bool identity = rows == grid && columns == grid;
            return {resize_positions(tape, p[0], rows, columns, PositionRule::official, identity)};
          }};
}

/// Two segments, three pictures of 5 tokens and two of 3. The positions are values on the tape.
OpCase assemble_case(std::int64_t channels) {
  return {.inputs = {{random_normal({3 * 4 + 2 * 2, channels}, {.seed = 7})},
                     {random_normal({5, channels}, {.seed = 8}), true},
                     {random_normal({3, channels}, {.seed = 9}), true}},
          .parameters = {random_normal({1, 1, channels}, {.seed = 10})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {assemble_tokens(tape, x[0], p[0], {x[1], x[2]}, {{3, 5}, {2, 3}})};
          }};
}

/// Some tokens occur several times, some lie outside the rows that are held.
OpCase look_up_case(std::int64_t rows, std::int64_t channels) {
  return {.inputs = {},
          .parameters = {random_normal({6, channels}, {.seed = 7})},
          .run = [=](Tape& tape, const std::vector<Var>&, ParameterSet& p, DType) -> std::vector<Var> {
            const Tensor tokens(tape.backend().memory().host(), {rows}, DType::i32);
            for (std::int64_t r = 0; r < rows; ++r)
              tokens.data<std::int32_t>()[r] = static_cast<std::int32_t>(r * r % 11);
            // Twice: the second contribution to the gradient is added.
            return {look_up(tape, tokens, p[0], 2), look_up(tape, tokens, p[0], 2)};
          }};
}

OpCase select_case(std::int64_t rows, std::int64_t channels) {
  return {.inputs = {{random_normal({rows, channels}, {.seed = 7})}},
          .parameters = {},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
            return {select_rows(tape, x[0], {rows - 1, 0, rows / 2})};
          }};
}

class Embedding : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Embedding, on_every_device(), device_name);

TEST_P(Embedding, GradientsMatchCentralDifferences) {
  for (const std::int64_t channels : {1, 7, 16, 33}) {
    SCOPED_TRACE(channels);
    expect_gradients(backend(), resize_case(4, 3, 5, channels));
    expect_gradients(backend(), resize_case(3, 3, 3, channels));
    expect_gradients(backend(), assemble_case(channels));
    expect_gradients(backend(), select_case(9, channels));
    expect_gradients(backend(), look_up_case(13, channels));
  }
}

TEST_P(Embedding, Fp32AndBf16AgreeWithFp64) {
  for (const std::int64_t channels : {1, 7, 64, 129}) {
    SCOPED_TRACE(channels);
    expect_agrees_with_double(backend(), resize_case(4, 7, 2, channels), DType::f32, kFloatTolerance);
    expect_agrees_with_double(backend(), assemble_case(channels), DType::f32, kFloatTolerance);
    expect_agrees_with_double(backend(), assemble_case(channels), DType::bf16, kBf16Tolerance);
    expect_agrees_with_double(backend(), select_case(9, channels), DType::bf16, kBf16Tolerance);
  }
}

TEST_P(Embedding, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), resize_case(14, 6, 6, 96), DType::f32);
    expect_same_bits_on_any_number_of_threads(backend(), look_up_case(3000, 40), DType::f32);
    expect_same_bits_on_any_number_of_threads(backend(), assemble_case(4096), type);
    expect_same_bits_on_any_number_of_threads(backend(), select_case(500, 96), type);
  }
}

TEST_P(Embedding, PositionsMatchTheReferenceAtEverySize) {
  // The reference's own bicubic resampling in fp64; its fp32 run is within 1.3e-6, the tolerance is the
  // fixture's.
  const Golden golden("vision/vit_interpolated.h5");
  ParameterSet p;
  Parameter& positions = p.add({.name = "pos_embed", .shape = {1, 17, 36}});
  p.build(memory(), {});
  copy(golden.tensor("weights/pos_embed"), positions.value());
  for (const std::string& name : golden.members("outputs")) {
    SCOPED_TRACE(name);
    const std::size_t cross = name.find('x');
    const int height = std::stoi(name.substr(0, cross)), width = std::stoi(name.substr(cross + 1));
    const std::int64_t rows = height / 8, columns = width / 8;
    const bool identity = rows * columns == 16 && height == width;
    Tape tape(backend(), Tape::Mode::inference);
    const Var y = resize_positions(tape, positions, rows, columns, PositionRule::official, identity);
    expect_close(y.value(), golden.tensor("outputs/" + name + "/positions"), 2e-5);
  }
}

TEST_P(Embedding, TheSizeRuleSamplesAtTheRatioOfTheSizes) {
  // Enlarged twice, output row 0 lies at -1/4 of the grid: taps -2 … 1, clamped, with the weights of t = 3/4.
  ParameterSet p;
  Parameter& positions = p.add({.name = "positions", .shape = {1, 5, 1}});
  p.build(memory(), {.master = DType::f64});
  const double grid[] = {9, 0, 0, 1, 1};  // class token, then rows (0, 0) and (1, 1)
  const Tensor values(host(), {1, 5, 1}, DType::f64);
  std::copy_n(grid, 5, values.data<double>());
  copy(values, positions.value());
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor y = on_host(resize_positions(tape, positions, 4, 4, PositionRule::size, false).value());
  EXPECT_EQ(y.data<double>()[0], 9);
  // Only the last tap, at distance 2 - t = 5/4, reaches grid row 1: a·u³ - 5a·u² + 8a·u - 4a with a = -3/4.
  const double u = 1.25, last = -0.75 * (u * u * u - 5 * u * u + 8 * u - 4);
  EXPECT_NEAR(y.data<double>()[1], last, 1e-12);
  EXPECT_NEAR(y.data<double>()[16], 1 - last, 1e-12);  // the mirror image
}

TEST_P(Embedding, TokensAreClassTokenAndPatchesEachWithItsPosition) {
  OpCase op = assemble_case(1);
  const auto set = [](const Tensor& tensor, double first, double step) {
    for (std::int64_t i = 0; i < tensor.elements(); ++i)
      tensor.data<double>()[i] = first + step * static_cast<double>(i);
  };
  set(op.inputs[0].value, 1, 1);        // patches 1 … 16
  set(op.inputs[1].value, 100, 100);    // positions 100 … 500
  set(op.inputs[2].value, 1000, 1000);  // positions 1000 … 3000
  set(op.parameters[0], 0.5, 0);
  const Tensor y = run_op(backend(), op, DType::f64).outputs[0];
  const std::vector<double> expected = {100.5, 201, 302, 403, 504,    100.5, 205,  306,    407,  508, 100.5,
                                        209,   310, 411, 512, 1000.5, 2013,  3014, 1000.5, 2015, 3016};
  ASSERT_EQ(y.elements(), 21);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(y.data<double>()[i], expected[i]) << i;
}

TEST_P(Embedding, RowsThatAreNotSelectedGetAZeroGradientAndKeepWhatOthersAdded) {
  Tape tape(backend());
  const Var x = tape.leaf(convert(memory(), random_normal({4, 3}), DType::f32));
  const Var picked = select_rows(tape, x, {2});
  const Tensor seed(memory(), {1, 3}, DType::f32);
  fill(seed, 5);
  tape.backward(picked, nullptr, {}, seed);
  const Tensor dx = on_host(tape.gradient(x));
  for (std::int64_t i = 0; i < 12; ++i) EXPECT_EQ(dx.data<float>()[i], i / 3 == 2 ? 5 : 0);

  OpCase twice = select_case(6, 5);
  twice.run = [](Tape& t, const std::vector<Var>& in, ParameterSet&, DType) -> std::vector<Var> {
    return {select_rows(t, in[0], {1, 3}), gelu(t, in[0]), select_rows(t, in[0], {3, 0})};
  };
  expect_gradients(backend(), twice);
}

TEST_P(Embedding, AParameterUsedAsAValueGetsItsGradientFromEveryUse) {
  OpCase op{.inputs = {{random_normal({3, 7}, {.seed = 7})}},
            .parameters = {random_normal({3, 7}, {.seed = 8})},
            .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
              return {residual_add(tape, x[0], use(tape, p[0])), gelu(tape, use(tape, p[0]))};
            }};
  expect_gradients(backend(), op);
}

TEST_P(Embedding, NamesWhatDoesNotFit) {
  ParameterSet p;
  Parameter& positions = p.add({.name = "pos_embed", .shape = {1, 17, 4}});
  Parameter& uneven = p.add({.name = "uneven", .shape = {1, 16, 4}});
  Parameter& token = p.add({.name = "cls_token", .shape = {1, 1, 4}});
  p.build(memory(), {});
  Tape tape(backend());
  const auto official = PositionRule::official;
  EXPECT_NE(error_of(ErrorKind::data, [&] { resize_positions(tape, positions, 3, 5, official, true); })
                .find("16 position embeddings do not fit 3 x 5 patches: pos_embed"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data, [&] { resize_positions(tape, uneven, 3, 5, official, false); })
                .find("15 position embeddings do not fit a square grid: uneven"),
            std::string::npos);
  const Var patches(Tensor(memory(), {4, 4}, DType::f32)), four(Tensor(memory(), {4, 4}, DType::f32));
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       assemble_tokens(tape, patches, token, {four}, {{1, 5}});
                     })
                .find("positions has shape [4, 4], expected [5, 4]"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data, [&] { select_rows(tape, patches, {4}); })
                .find("row 4 is asked for, there are 4"),
            std::string::npos);
}

}  // namespace
}  // namespace bireme::test
