#include <gtest/gtest.h>

#include "core/ops/linear/linear.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

OpCase block_case(std::int64_t rows, std::int64_t blocks, std::int64_t out, std::int64_t in, int parts,
                  bool full_precision = false) {
  OpCase op;
  for (int i = 0; i < parts; ++i) {
    op.inputs.push_back({random_normal({rows, blocks * in}, {.seed = static_cast<std::uint64_t>(i + 1)})});
    op.parameters.push_back(random_normal({blocks, out, in}, {.seed = static_cast<std::uint64_t>(i + 10)}));
  }
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
    std::vector<BlockPart> list;
    for (std::size_t i = 0; i < x.size(); ++i) list.push_back({x[i], &p[i]});
    return {block_linear(tape, list, full_precision && type == DType::bf16 ? DType::f32 : type)};
  };
  return op;
}

OpCase gates_case(std::int64_t rows, std::int64_t heads, const std::vector<std::int64_t>& channels,
                  double cap) {
  OpCase op;
  std::int64_t total = 0;
  for (const std::int64_t count : channels) {
    op.inputs.push_back({random_normal({rows, count}, {.seed = static_cast<std::uint64_t>(count)})});
    total += count;
  }
  op.parameters = {random_normal({heads, total}, {.seed = 3}), random_normal({heads, total}, {.seed = 4}),
                   random_normal({heads - 1}, {.seed = 5}), random_normal({heads - 1}, {.seed = 6})};
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
    return {cap_gates(tape, gate_products(tape, x, p[0], p[1]), p[2], p[3], 1, cap)};
  };
  return op;
}

OpCase memory_case(std::int64_t rows, std::int64_t heads, std::int64_t keys, std::int64_t values) {
  return {.inputs = {{random_normal({rows, heads * keys}, {.seed = 1})}},
          .parameters = {random_normal({heads, keys, values}, {.seed = 2})},
          .run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            return {memory_product(tape, x[0], p[0])};
          }};
}

OpCase linear_blocks_case(bool uses_all) {
  return {.inputs = {{random_normal({7, 5}, {.seed = 1})}},
          .parameters = {random_normal({9, 5}, {.seed = 2}), random_normal({9}, {.seed = 3})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
            const std::vector<Var> y = linear_blocks(tape, x[0], p[0], &p[1], {4, 2, 3});
            return uses_all ? y : std::vector<Var>{y[0], y[2]};
          }};
}

class BlockLinear : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, BlockLinear, on_every_device(), device_name);

TEST_P(BlockLinear, GradientsMatchCentralDifferencesAndTypesAgree) {
  for (const OpCase& op : {block_case(3, 5, 4, 4, 1), block_case(5, 8, 4, 4, 1), block_case(2, 2, 3, 5, 1),
                           block_case(3, 2, 5, 5, 4), block_case(3, 1, 17, 16, 2), memory_case(5, 2, 3, 4),
                           memory_case(4, 1, 4, 4)}) {
    expect_gradients(backend(), op);
    expect_agrees_with_double(backend(), op, DType::f32, 1e-5);
    expect_agrees_with_double(backend(), op, DType::bf16, 0.02);
  }
  // Past the rows that go through a block together.
  expect_agrees_with_double(backend(), block_case(50, 2, 5, 5, 4), DType::f32, 1e-5);
  expect_agrees_with_double(backend(), memory_case(60, 1, 4, 4), DType::f32, 1e-5);
  expect_agrees_with_double(backend(), block_case(50, 2, 5, 5, 4, true), DType::bf16, 0.02);
}

TEST_P(BlockLinear, GatesMatchCentralDifferencesAndTypesAgree) {
  for (const OpCase& op :
       {gates_case(3, 3, {7}, 0), gates_case(20, 2, {5, 17, 3}, 0), gates_case(4, 4, {16, 9}, 2)}) {
    expect_gradients(backend(), op);
    expect_agrees_with_double(backend(), op, DType::f32, 1e-5);
    expect_agrees_with_double(backend(), op, DType::bf16, 0.02);
  }
}

TEST_P(BlockLinear, BlocksOfRowsAreLinearLayersOfTheirOwn) {
  for (const bool uses_all : {true, false}) {
    expect_gradients(backend(), linear_blocks_case(uses_all));
    expect_agrees_with_double(backend(), linear_blocks_case(uses_all), DType::f32, 1e-5);
  }
}

TEST_P(BlockLinear, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16}) {
    expect_same_bits_on_any_number_of_threads(backend(), block_case(300, 16, 4, 4, 1), type);
    expect_same_bits_on_any_number_of_threads(backend(), block_case(300, 3, 20, 20, 4), type);
    expect_same_bits_on_any_number_of_threads(backend(), gates_case(300, 4, {96, 32}, 15), type);
  }
}

TEST_P(BlockLinear, BlocksOfFourEqualTheDenseLayerWithZerosElsewhere) {
  const std::int64_t blocks = 6, channels = 24;
  ParameterSet p;
  Parameter& small = p.add({.name = "s", .shape = {blocks, 4, 4}, .initial = {Initializer::Law::normal, 1}});
  Parameter& dense = p.add({.name = "d", .shape = {channels, channels}});
  p.build(memory(), {});
  p.initialize(1);
  const Tensor wide(host(), dense.shape(), DType::f32), blocks_of_four = on_host(small.value());
  fill(wide, 0);
  for (std::int64_t o = 0; o < channels; ++o)
    for (std::int64_t i = 0; i < 4; ++i)
      wide.data<float>()[o * channels + o / 4 * 4 + i] = blocks_of_four.data<float>()[o * 4 + i];
  copy(wide, dense.value());
  Tape tape(backend(), Tape::Mode::inference);
  const Var x(convert(memory(), random_normal({5, channels}), DType::f32));
  expect_close(block_linear(tape, {{x, &small}}, DType::f32).value(), linear(tape, x, dense, nullptr).value(),
               1e-6);
}

}  // namespace
}  // namespace bireme::test
