#include <gtest/gtest.h>

#include "core/ops/convolution/convolution.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct Case {
  std::int64_t sequences, time, channels, taps;
  bool silu, starts, before;
};

OpCase convolution_case(Memory& memory, const Case& s) {
  const std::int64_t rows = s.sequences * s.time;
  Tensor starts;
  if (s.starts) {
    starts = Tensor(memory.host(), {s.sequences, s.time}, DType::u8);
    for (std::int64_t i = 0; i < rows; ++i) starts.data<std::uint8_t>()[i] = i % 5 == 2 || i % 7 == 3;
  }
  const Tensor before =
      s.before ? random_normal({s.sequences, s.taps - 1, s.channels}, {.seed = 5}) : Tensor();
  return {.inputs = {{random_normal({rows, s.channels}, {.seed = 1})}},
          .parameters = {random_normal({s.channels, 1, s.taps}, {.seed = 2}),
                         random_normal({s.channels}, {.seed = 3})},
          .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
            const Tensor past = before ? convert(tape.backend().memory(), before, type) : before;
            return {causal_convolution(tape, x[0], p[0], p[1], past, starts, s.sequences, s.silu)};
          }};
}

class CausalConvolution : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, CausalConvolution, on_every_device(), device_name);

TEST_P(CausalConvolution, GradientsMatchCentralDifferencesAndTypesAgree) {
  for (const Case& s : {Case{1, 1, 1, 4, false, false, false}, Case{2, 9, 3, 4, false, false, true},
                        Case{2, 12, 5, 4, true, true, false}, Case{2, 2, 17, 4, true, true, true},
                        Case{3, 6, 4, 1, true, false, false}, Case{1, 8, 4, 3, false, true, false}}) {
    const OpCase op = convolution_case(memory(), s);
    expect_gradients(backend(), op);
    expect_agrees_with_double(backend(), op, DType::f32, 1e-5);
    expect_agrees_with_double(backend(), op, DType::bf16, 0.02);
  }
}

TEST_P(CausalConvolution, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(
        backend(), convolution_case(memory(), {3, 300, 96, 4, true, true, false}), type);
}

TEST_P(CausalConvolution, MayBeCutAnywhereAndDocumentsDoNotSeeEachOther) {
  const std::int64_t T = 9, C = 6;
  ParameterSet p;
  Parameter& w = p.add({.name = "w", .shape = {C, 1, 4}, .initial = {Initializer::Law::normal, 1}});
  Parameter& b = p.add({.name = "b", .shape = {C}, .initial = {Initializer::Law::normal, 1}});
  p.build(memory(), {.master = DType::f64});
  p.initialize(1);
  const Tensor x = random_normal({T, C});
  const auto run = [&](const Tensor& part, const Tensor& before, const Tensor& starts) {
    Tape tape(backend(), Tape::Mode::inference);
    return on_host(causal_convolution(tape, Var(here(part)), w, b, here(before), starts, 1, true).value());
  };
  const Tensor whole = run(x, {}, {});
  // y[4, 0] by hand: the last tap is the token itself.
  const Tensor weight = on_host(w.value());
  double sum = on_host(b.value()).data<double>()[0];
  for (std::int64_t j = 0; j < 4; ++j) sum += weight.data<double>()[j] * x.data<double>()[(1 + j) * C];
  EXPECT_NEAR(whole.data<double>()[4 * C], sum / (1 + std::exp(-sum)), 1e-12);
  for (const std::int64_t cut : {3, 5, 8})
    expect_identical(run(x.slice(cut, T), x.slice(cut - 3, cut).reshape({1, 3, C}), {}), whole.slice(cut, T));
  const Tensor starts(host(), {1, T}, DType::u8);
  fill(starts, 0);
  starts.data<std::uint8_t>()[4] = 1;
  expect_identical(run(x, {}, starts).slice(4, T), run(x.slice(4, T), {}, {}));
}

}  // namespace
}  // namespace bireme::test
