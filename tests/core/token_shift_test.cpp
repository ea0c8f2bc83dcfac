#include "core/ops/token_shift/token_shift.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

constexpr double kShiftTolerance = 1e-5, kShiftBf16Tolerance = 0.01;

/// A document starts at token 3 of each sequence where they are long enough.
Tensor starts_at_three(const Sequences& sequences) {
  const Tensor starts(*make_host_memory(), {sequences.count, sequences.length}, DType::u8);
  for (std::int64_t i = 0; i < starts.elements(); ++i)
    starts.data<std::uint8_t>()[i] = i % sequences.length == 3;
  return starts;
}

OpCase shift_case(const Sequences& sequences, std::int64_t channels, int mixtures, bool documents = false) {
  OpCase op;
  op.inputs = {{random_normal({sequences.rows(), channels}, {.seed = 1})}};
  for (int i = 0; i < mixtures; ++i)
    op.inputs.push_back({random_normal({channels}, {.seed = static_cast<std::uint64_t>(2 + i)}), true});
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) {
    Sequences with_starts = sequences;
    if (documents) with_starts.starts = starts_at_three(sequences);
    return token_shift(tape, x[0], {x.begin() + 1, x.end()}, with_starts);
  };
  return op;
}

class TokenShift : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, TokenShift, on_every_device(), device_name);

TEST_P(TokenShift, GradientsMatchCentralDifferences) {
  for (const int mixtures : {1, 2, 3})
    for (const bool documents : {false, true}) {
      expect_gradients(backend(), shift_case({.count = 1, .length = 1}, 3, mixtures, documents));
      expect_gradients(backend(), shift_case({.count = 2, .length = 7}, 19, mixtures, documents));
    }
}

TEST_P(TokenShift, InFp32AndBf16AgreesWithFp64) {
  const OpCase op = shift_case({.count = 3, .length = 37}, 65, 3, true);
  expect_agrees_with_double(backend(), op, DType::f32, kShiftTolerance);
  expect_agrees_with_double(backend(), op, DType::bf16, kShiftBf16Tolerance);
}

TEST_P(TokenShift, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(backend(), shift_case({.count = 5, .length = 150}, 96, 3),
                                              type);
}

TEST_P(TokenShift, MixesWithTheTokenBefore) {
  const Tensor x(host(), {4, 1}, DType::f32), mu(memory(), {1}, DType::f32);
  for (int i = 0; i < 4; ++i) x.data<float>()[i] = static_cast<float>(1 << i);
  fill(mu, 0.75);
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor mixed =
      on_host(token_shift(tape, Var(here(x)), {Var(mu)}, {.count = 2, .length = 2})[0].value());
  const float expected[] = {0.75f, 1.75f, 3, 7};  // the third begins a sequence
  for (int i = 0; i < 4; ++i) EXPECT_EQ(mixed.data<float>()[i], expected[i]);
}

TEST_P(TokenShift, ACarriedTokenJoinsTwoParts) {
  const std::int64_t channels = 21;
  const Tensor x = convert(memory(), random_normal({9, channels}), DType::f32);
  const Tensor mu = convert(memory(), random_normal({channels}, {.seed = 2}), DType::f32);
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor whole = token_shift(tape, Var(x), {Var(mu)}, {.count = 1, .length = 9})[0].value();
  const Tensor carried(memory(), {1, channels}, DType::f32);
  fill(carried, 0);
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    return token_shift(tape, Var(x.slice(begin, end)), {Var(mu)}, {.count = 1, .length = end - begin},
                       carried)[0]
        .value();
  };
  expect_identical(part(0, 4), whole.slice(0, 4));
  expect_identical(part(4, 5), whole.slice(4, 5));
  expect_identical(part(5, 9), whole.slice(5, 9));
  expect_identical(carried, x.slice(8, 9));
}

TEST_P(TokenShift, NamesBothShapesWhenARateHasTheWrongSize) {
  OpCase wrong = shift_case({.count = 1, .length = 2}, 6, 1);
  wrong.inputs[1].value = random_normal({7});
  const std::string message = error_of(ErrorKind::data, [&] { run_op(backend(), wrong, DType::f32); });
  EXPECT_NE(message.find("token_shift: mu has shape [7], expected [6]"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
