#include "core/ops/slstm/slstm.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

/// [R, a, b, D] to [R, b, a, D]: golden gates have the gate before the head.
Tensor swap_inner(Memory& memory, const Tensor& from, std::int64_t a, std::int64_t b) {
  const Tensor values = convert(memory.host(), from, DType::f64), to(memory.host(), from.shape(), DType::f64);
  const std::int64_t units = from.channels(), rows = from.elements() / (a * b * units);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t i = 0; i < a; ++i)
      for (std::int64_t j = 0; j < b; ++j)
        for (std::int64_t u = 0; u < units; ++u)
          to.data<double>()[((r * b + j) * a + i) * units + u] =
              values.data<double>()[((r * a + i) * b + j) * units + u];
  return to;
}

class Slstm : public DeviceTest {
 protected:
  void expect_golden(const std::string& file, DType type) const {
    SCOPED_TRACE(file + " " + to_string(type));
    const Golden golden("xlstm/" + file + ".h5");
    Memory& m = memory();
    const double tolerance = type == DType::f64 ? 1e-12 : 5e-6;
    const auto number = [&](const char* name) {
      return static_cast<std::int64_t>(golden.number("config", name));
    };
    const std::int64_t B = number("batch"), T = number("time"), H = number("heads"), D = number("head_dim");
    ParameterSet p;
    Parameter& r = p.add({.name = "r", .shape = {H, 4 * D, D}});
    Parameter& b = p.add({.name = "b", .shape = {4 * H * D}});
    p.build(m, {.master = type});
    copy(golden.tensor("weights_vanilla/_recurrent_kernel_"), r.value());
    copy(golden.tensor("weights_vanilla/_bias_"), b.value());

    Tape tape(backend());
    const Tensor gates = swap_inner(m, golden.tensor("inputs/gates"), 4, H);
    const Var x = tape.leaf(convert(m, gates.reshape({B * T, H * 4 * D}), type));
    SlstmState state;
    const bool has_state = golden.has("inputs/c");
    if (has_state) {
      const auto leaf = [&](const char* name) {
        return tape.leaf(convert(m, golden.tensor(std::string("inputs/") + name), type));
      };
      state = {
          .h = leaf("h"), .c = leaf("c"), .n = leaf("n"), .m = convert(m, golden.tensor("inputs/m"), type)};
    }
    const SlstmResult result =
        slstm(tape, x, r, b, has_state ? &state : nullptr, {}, {.sequences = B, .heads = H}, type);
    expect_close(result.h.value(), golden.tensor("outputs/h").reshape({B * T, H * D}), tolerance, 0, "h");
    const auto last = [&](const char* name) {
      const Tensor all = golden.tensor(std::string("outputs/") + name);
      const Tensor rows(m.host(), {B, H * D}, all.dtype());
      for (std::int64_t i = 0; i < B; ++i)
        copy(all.reshape({B * T, H * D}).slice((i + 1) * T - 1, (i + 1) * T), rows.slice(i, i + 1));
      return rows;
    };
    expect_close(result.state.c.value(), last("c_all"), tolerance, 0, "c");
    expect_close(result.state.n.value(), last("n_all"), tolerance, 0, "n");
    expect_close(result.state.m, last("m_all"), tolerance, 0, "m");
    p.begin_gradients();
    tape.backward(result.h, &p, {}, convert(m, golden.tensor("inputs/gh").reshape({B * T, H * D}), type));
    const Tensor dgates = swap_inner(m, golden.tensor("grads/gates"), 4, H).reshape({B * T, H * 4 * D});
    expect_close(tape.gradient(x), dgates, tolerance, 0, "dgates");
    // Head-neutral [H, in, gate, out] to [H, gate, out, in], and [H, gate, unit] to [gate, H, unit].
    const Tensor dr = golden.tensor("grads/R"), db = swap_inner(m, golden.tensor("grads/b"), H, 4);
    const Tensor vanilla(m.host(), {H, 4 * D, D}, DType::f64);
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t i = 0; i < D; ++i)
        for (std::int64_t o = 0; o < 4 * D; ++o)
          vanilla.data<double>()[(h * 4 * D + o) * D + i] = dr.data<double>()[(h * D + i) * 4 * D + o];
    expect_close(r.gradient(), vanilla, tolerance, 1e-12, "dR");
    expect_close(b.gradient(), db.reshape({4 * H * D}), tolerance, 0, "db");
    if (!has_state) return;
    expect_close(tape.gradient(state.h), golden.tensor("grads/h"), tolerance, 0, "dh");
    expect_close(tape.gradient(state.c), golden.tensor("grads/c"), tolerance, 0, "dc");
    expect_close(tape.gradient(state.n), golden.tensor("grads/n"), tolerance, 0, "dn");
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, Slstm, on_every_device(), device_name);

TEST_P(Slstm, MatchesGolden) {
  for (const char* file : {"slstm_cell_basic", "slstm_cell_length1", "slstm_cell_state", "slstm_cell_stress"})
    for (const DType type : {DType::f64, DType::f32}) expect_golden(file, type);
}

struct SlstmCellShape {
  std::int64_t sequences, time, heads, units;
};

/// Two calls one after the other, so that gradients through the state count.
OpCase cell_case(Memory& m, const SlstmCellShape& s, bool with_state, bool with_starts,
                 SlstmFunction function) {
  const std::int64_t rows = s.sequences * s.time, channels = s.heads * s.units;
  Tensor starts;
  if (with_starts) {
    starts = Tensor(m.host(), {s.sequences, s.time}, DType::u8);
    for (std::int64_t i = 0; i < rows; ++i) starts.data<std::uint8_t>()[i] = i % 5 == 3 || i % 7 == 2;
  }
  OpCase op{.inputs = {{random_normal({rows, 4 * channels}, {.seed = 1}), true}},
            .parameters = {random_normal({s.heads, 4 * s.units, s.units}, {.deviation = 0.5, .seed = 2}),
                           random_normal({4 * channels}, {.seed = 3})},
            .run = {}};
  if (with_state)
    for (const std::uint64_t seed : {4, 5, 6})
      op.inputs.push_back(
          {random_normal({s.sequences, channels}, {.mean = seed == 6 ? 4.0 : 0, .seed = seed}), true});
  const Tensor maximum = random_normal({s.sequences, channels}, {.seed = 7});
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
    const SlstmOptions options{.sequences = s.sequences, .heads = s.heads, .function = function};
    SlstmState state;
    if (with_state)
      state = {.h = x[1], .c = x[2], .n = x[3], .m = convert(tape.backend().memory(), maximum, x[1].dtype())};
    const SlstmResult first =
        slstm(tape, x[0], p[0], p[1], with_state ? &state : nullptr, starts, options, type);
    const SlstmResult second = slstm(tape, x[0], p[0], p[1], &first.state, starts, options, type);
    return {first.h, second.h};
  };
  return op;
}

TEST_P(Slstm, GradientsMatchCentralDifferences) {
  for (const SlstmFunction function : {SlstmFunction::slstm, SlstmFunction::lstm})
    for (const SlstmCellShape& s :
         {SlstmCellShape{1, 1, 1, 1}, SlstmCellShape{2, 6, 2, 3}, SlstmCellShape{13, 2, 1, 2}})
      for (const bool state : {false, true}) {
        // An lstm does not use n, to which no gradient comes then.
        if (function == SlstmFunction::lstm && state) continue;
        for (const bool starts : {false, true})
          expect_gradients(backend(), cell_case(memory(), s, state, starts, function),
                           {.relative = 1e-6, .absolute = 1e-8});
      }
}

TEST_P(Slstm, Fp32AndBf16AgreeWithFp64) {
  for (const SlstmFunction function : {SlstmFunction::slstm, SlstmFunction::lstm})
    // On a GPU, R fits in registers; in registers and shared memory; in shared memory and L2.
    for (const SlstmCellShape& s :
         {SlstmCellShape{5, 30, 2, 20}, SlstmCellShape{2, 6, 2, 90}, SlstmCellShape{1, 4, 1, 150}}) {
      const OpCase op = cell_case(memory(), s, false, true, function);
      expect_agrees_with_double(backend(), op, DType::f32, 2e-5);
      expect_agrees_with_double(backend(), op, DType::bf16, 0.02);
    }
}

TEST_P(Slstm, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(
        backend(), cell_case(memory(), {30, 9, 2, 17}, true, true, SlstmFunction::slstm), type);
}

TEST_P(Slstm, MayBeCutAnywhereAndDocumentsGiveWhatTheyGiveAlone) {
  const std::int64_t T = 20, H = 2, D = 5;
  ParameterSet p;
  Parameter& r = p.add({.name = "r", .shape = {H, 4 * D, D}, .initial = {Initializer::Law::normal, 0.5}});
  Parameter& b = p.add({.name = "b", .shape = {4 * H * D}, .initial = {Initializer::Law::normal, 1}});
  p.build(memory(), {.master = DType::f64});
  p.initialize(3);
  Tape tape(backend(), Tape::Mode::inference);
  const Tensor gates = here(random_normal({T, H * 4 * D}));
  const SlstmOptions options{.sequences = 1, .heads = H};
  const Tensor whole = slstm(tape, Var(gates), r, b, nullptr, {}, options, DType::f64).h.value();
  const Tensor starts(host(), {1, T}, DType::u8);
  fill(starts, 0);
  starts.data<std::uint8_t>()[7] = 1;
  const Tensor packed = slstm(tape, Var(gates), r, b, nullptr, starts, options, DType::f64).h.value();
  const SlstmResult head = slstm(tape, Var(gates.slice(0, 7)), r, b, nullptr, {}, options, DType::f64);
  const Tensor tail =
      slstm(tape, Var(gates.slice(7, T)), r, b, &head.state, {}, options, DType::f64).h.value();
  const Tensor alone = slstm(tape, Var(gates.slice(7, T)), r, b, nullptr, {}, options, DType::f64).h.value();
  expect_identical(head.h.value(), whole.slice(0, 7));
  expect_identical(tail, whole.slice(7, T));
  expect_identical(packed.slice(7, T), alone);
}

}  // namespace
}  // namespace bireme::test
