#include "core/ops/mlstm/mlstm.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

/// Golden tensors are [B, H, T, D]; ops want [B·T, H·D].
Tensor to_rows(Memory& memory, const Tensor& from, DType type) {
  const Shape& s = from.shape();
  const std::int64_t B = s[0], H = s[1], T = s[2], D = s.rank() == 4 ? s[3] : 1;
  const Tensor values = convert(memory.host(), from, DType::f64),
               to(memory.host(), {B * T, H * D}, DType::f64);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < H; ++h)
      for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t c = 0; c < D; ++c)
          to.data<double>()[((b * T + t) * H + h) * D + c] =
              values.data<double>()[((b * H + h) * T + t) * D + c];
  return convert(memory, to, type);
}

/// ĩ and f̃ side by side: [R, H] and [R, H] to [R, 2·H].
Tensor beside(Memory& memory, const Tensor& left, const Tensor& right) {
  const std::int64_t channels = left.channels();
  const Tensor to(memory, {left.rows(), 2 * channels}, left.dtype());
  copy_columns(left, to, {.columns = channels});
  copy_columns(right, to, {.to_column = channels, .columns = channels});
  return to;
}

/// One half of [R, 2·H].
Tensor half(Memory& memory, const Tensor& from, int which) {
  const std::int64_t channels = from.channels() / 2;
  const Tensor to(memory, {from.rows(), channels}, from.dtype());
  copy_columns(from, to, {.from_column = which * channels, .columns = channels});
  return to;
}

struct GoldenCell {
  const char* file;
  double fp32_tolerance;
};
// The README of the golden files states these: what fp32 loses in exponents of differences of sums.
const std::vector<GoldenCell> kCells = {{"mlstm_cell_basic", 5e-6},  {"mlstm_cell_length1", 5e-6},
                                        {"mlstm_cell_state", 1e-5},  {"mlstm_cell_narrow_keys", 5e-6},
                                        {"mlstm_cell_stress", 5e-4}, {"mlstm_cell_long_memory", 1e-4}};

/// A cell's leaves on a tape.
struct Leaves {
  Var q, k, v, gates;
  MlstmState state;
  MlstmOptions options;
  bool has_state = false;

  Leaves(Tape& tape, Memory& memory, const Golden& golden, DType type) {
    const auto rows = [&](const char* name) {
      return to_rows(memory, golden.tensor(std::string("inputs/") + name), type);
    };
    q = tape.leaf(rows("q"));
    k = tape.leaf(rows("k"));
    v = tape.leaf(rows("v"));
    gates = tape.leaf(beside(memory, rows("i"), rows("f")));
    options.sequences = static_cast<std::int64_t>(golden.number("config", "batch"));
    options.heads = static_cast<std::int64_t>(golden.number("config", "heads"));
    has_state = golden.has("inputs/C");
    if (has_state)
      state = {.memory = tape.leaf(convert(memory, golden.tensor("inputs/C"), type)),
               .normalizer = tape.leaf(convert(memory, golden.tensor("inputs/n"), type)),
               .maximum = convert(memory, golden.tensor("inputs/m"), type)};
  }
  MlstmResult run(Tape& tape, const Tensor& starts = {}) const {
    return mlstm(tape, {.q = q, .k = k, .v = v, .gates = gates}, has_state ? &state : nullptr, starts,
                 options);
  }
};

class Mlstm : public DeviceTest {
 protected:
  void expect_golden(const GoldenCell& cell, DType type, std::int64_t chunk) const {
    SCOPED_TRACE(std::string(cell.file) + " " + to_string(type) + " chunk " + std::to_string(chunk));
    const Golden golden(std::string("xlstm/") + cell.file + ".h5");
    Memory& m = memory();
    // fp64: the reference's gradients pass through the stabiliser, which weighs epsilon; ours are exact
    // without.
    const bool is_double = type == DType::f64;
    const double tolerance = is_double ? 1e-10 : cell.fp32_tolerance;
    const double gate_tolerance = is_double ? 2e-5 : std::max(2e-5, cell.fp32_tolerance);
    Tape tape(backend());
    Leaves leaves(tape, m, golden, type);
    leaves.options.chunk = chunk;
    const MlstmResult result = leaves.run(tape);
    expect_close(result.h.value(), to_rows(m, golden.tensor("outputs/h"), DType::f64), tolerance, 0, "h");
    expect_close(result.state.memory.value(), golden.tensor("outputs/C"), tolerance, 0, "C");
    expect_close(result.state.normalizer.value(), golden.tensor("outputs/n"), tolerance, 0, "n");
    expect_close(result.state.maximum, golden.tensor("outputs/m"), tolerance, 1e-6, "m");
    tape.backward(result.h, nullptr, {}, to_rows(m, golden.tensor("inputs/gh"), type));
    const auto expected = [&](const char* name) {
      return to_rows(m, golden.tensor(std::string("grads/") + name), DType::f64);
    };
    // dq, dk and dv meet epsilon too: 1e-9 of the largest entry where gates are stressed.
    const double inner = is_double ? 1e-8 : tolerance;
    expect_close(tape.gradient(leaves.q), expected("q"), inner, 0, "dq");
    expect_close(tape.gradient(leaves.k), expected("k"), inner, 0, "dk");
    expect_close(tape.gradient(leaves.v), expected("v"), inner, 0, "dv");
    const Tensor gates = tape.gradient(leaves.gates);
    expect_close(half(m, gates, 0), expected("i"), gate_tolerance, 0, "di");
    if (leaves.q.value().rows() > leaves.options.sequences)  // with one token df is nothing but epsilon
      expect_close(half(m, gates, 1), expected("f"), gate_tolerance, 0, "df");
    if (leaves.has_state) {
      expect_close(tape.gradient(leaves.state.memory), golden.tensor("grads/C"), inner, 0, "dC");
      expect_close(tape.gradient(leaves.state.normalizer), golden.tensor("grads/n"), inner, 0, "dn");
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, Mlstm, on_every_device(), device_name);

TEST_P(Mlstm, MatchesGoldenForChunksThatDivideAndThatDoNot) {
  for (const GoldenCell& cell : kCells)
    for (const std::int64_t chunk : {1, 7, 16, 64, 1000}) {
      expect_golden(cell, DType::f64, chunk);
      expect_golden(cell, DType::f32, chunk);
    }
}

struct CellShape {
  std::int64_t sequences, heads, time, keys, values, chunk;
};

/// The cell on random inputs; `extreme` gates overflow an exponential that is not stabilised.
struct CellInputs {
  Tensor q, k, v, gates, memory, normalizer, maximum, starts;
};
CellInputs random_cell(Memory& m, const CellShape& s, double gate_deviation, bool with_starts) {
  const std::int64_t rows = s.sequences * s.time;
  CellInputs in{
      .q = random_normal({rows, s.heads * s.keys}, {.seed = 1}),
      .k = random_normal({rows, s.heads * s.keys}, {.seed = 2}),
      .v = random_normal({rows, s.heads * s.values}, {.seed = 3}),
      .gates = random_normal({rows, 2 * s.heads}, {.mean = 1, .deviation = gate_deviation, .seed = 4}),
      .memory = random_normal({s.sequences, s.heads, s.keys, s.values}, {.seed = 5}),
      .normalizer = random_normal({s.sequences, s.heads, s.keys}, {.seed = 6}),
      .maximum = random_normal({s.sequences, s.heads}, {.seed = 7}),
      .starts = {}};
  if (with_starts) {
    in.starts = Tensor(m.host(), {s.sequences, s.time}, DType::u8);
    for (std::int64_t i = 0; i < rows; ++i) in.starts.data<std::uint8_t>()[i] = i % 11 == 3 || i % 29 == 4;
  }
  return in;
}

/// Two calls one after the other, so that gradients through the state count too; its own scale is arbitrary.
OpCase cell_case(Memory& m, const CellShape& s, bool with_state, bool with_starts, float epsilon = 0) {
  const CellInputs in = random_cell(m, s, 1.5, with_starts);
  OpCase op{.inputs = {{in.q}, {in.k}, {in.v}, {in.gates, true}}, .parameters = {}, .run = {}};
  if (with_state) {
    op.inputs.push_back({in.memory, true});
    op.inputs.push_back({in.normalizer, true});
  }
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
    Memory& memory = tape.backend().memory();
    const MlstmOptions options{
        .sequences = s.sequences, .heads = s.heads, .chunk = s.chunk, .epsilon = epsilon};
    const MlstmInputs inputs{.q = x[0], .k = x[1], .v = x[2], .gates = x[3]};
    MlstmState state;
    if (with_state)
      state = {.memory = x[4], .normalizer = x[5], .maximum = convert(memory, in.maximum, x[4].dtype())};
    const MlstmResult first = mlstm(tape, inputs, with_state ? &state : nullptr, in.starts, options);
    const MlstmResult second = mlstm(tape, inputs, &first.state, in.starts, options);
    return {first.h, second.h};
  };
  return op;
}

TEST_P(Mlstm, GradientsMatchCentralDifferences) {
  for (const CellShape& s : {CellShape{1, 1, 1, 1, 1, 4}, CellShape{2, 2, 9, 3, 5, 4},
                             CellShape{1, 1, 19, 2, 3, 64}, CellShape{1, 1, 5, 17, 4, 2}})
    for (const bool state : {false, true})
      for (const bool starts : {false, true}) {
        SCOPED_TRACE(std::to_string(s.time) + (state ? " state" : "") + (starts ? " starts" : ""));
        // Central differences cross no kink of max(|l|, exp(-m)) here; third derivatives of gates err by
        // 1e-6.
        expect_gradients(backend(), cell_case(memory(), s, state, starts),
                         {.relative = 2e-6, .absolute = 1e-8});
      }
}

TEST_P(Mlstm, Fp32AndBf16AgreeWithFp64) {
  for (const CellShape& s : {CellShape{2, 2, 70, 8, 24, 16}, CellShape{1, 3, 100, 32, 64, 64},
                             CellShape{1, 1, 150, 72, 80, 140}}) {
    expect_agrees_with_double(backend(), cell_case(memory(), s, true, true, 1e-6f), DType::f32, 1e-4);
    expect_agrees_with_double(backend(), cell_case(memory(), s, true, true, 1e-6f), DType::bf16, 0.03);
  }
}

TEST_P(Mlstm, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(
        backend(), cell_case(memory(), {3, 2, 150, 16, 32, 32}, true, true, 1e-6f), type);
}

/// Token by token.
Tensor recurrent(const Backend& backend, const CellInputs& in, const CellShape& s, const MlstmState& state) {
  Memory& m = backend.memory();
  const Tensor h(m, in.v.shape(), in.q.dtype());
  const auto row_of = [&](const Tensor& from, std::int64_t t) {
    const Tensor to(m, {s.sequences, from.channels()}, from.dtype());
    for (std::int64_t b = 0; b < s.sequences; ++b)
      copy(from.slice(b * s.time + t, b * s.time + t + 1), to.slice(b, b + 1));
    return Var(to);
  };
  for (std::int64_t t = 0; t < s.time; ++t) {
    const Var q = row_of(in.q, t), k = row_of(in.k, t), v = row_of(in.v, t), gates = row_of(in.gates, t);
    const Tensor step = mlstm_step(backend, {.q = q, .k = k, .v = v, .gates = gates}, state, 1e-6f);
    for (std::int64_t b = 0; b < s.sequences; ++b)
      copy(step.slice(b, b + 1), h.slice(b * s.time + t, b * s.time + t + 1));
  }
  return h;
}

TEST_P(Mlstm, ChunkwiseFormEqualsTheRecurrentOneAtAnyLength) {
  for (const double deviation : {1.0, 60.0})  // exp(60) squared overflows fp32
    for (const std::int64_t time : {1, 2, 3, 17, 64, 65, 333, 4096})
      for (const DType type : {DType::f64, DType::f32}) {
        const CellShape s{2, 2, time, 8, 12, time == 333 ? 50 : 64};
        SCOPED_TRACE(std::to_string(time) + " " + to_string(type) + " " + std::to_string(deviation));
        CellInputs in = random_cell(memory(), s, deviation, false);
        for (Tensor* tensor : {&in.q, &in.k, &in.v, &in.gates}) *tensor = convert(memory(), *tensor, type);
        const MlstmState state = empty_mlstm_state(memory(), s.sequences, s.heads, s.keys, s.values, type);
        const Tensor expected = recurrent(backend(), in, s, state);
        Tape tape(backend(), Tape::Mode::inference);
        const Var q(in.q), k(in.k), v(in.v), gates(in.gates);
        const MlstmResult result = mlstm(tape, {.q = q, .k = k, .v = v, .gates = gates}, nullptr, {},
                                         {.sequences = s.sequences, .heads = s.heads, .chunk = s.chunk});
        // fp32: sums of logarithms reach thousands with wild gates, so exponents are good to 1e-4.
        const double tolerance = type == DType::f64 ? 1e-10 : deviation > 1 ? 1e-3 : 2e-5;
        expect_close(result.h.value(), expected, tolerance, 0, "h");
        expect_close(result.state.memory.value(), state.memory.value(), tolerance, 0, "C");
        expect_close(result.state.normalizer.value(), state.normalizer.value(), tolerance, 0, "n");
        expect_close(result.state.maximum, state.maximum, 1e-5, 1e-6, "m");
      }
}

TEST_P(Mlstm, PackedDocumentsGiveWhatTheyGiveAlone) {
  const CellShape s{1, 2, 90, 8, 12, 32};
  CellInputs in = random_cell(memory(), s, 1.5, true);
  Tape tape(backend(), Tape::Mode::inference);
  for (Tensor* tensor : {&in.q, &in.k, &in.v, &in.gates}) *tensor = here(*tensor);
  const Var q(in.q), k(in.k), v(in.v), gates(in.gates);
  const MlstmOptions options{.sequences = 1, .heads = 2, .chunk = 32};
  const Tensor packed =
      mlstm(tape, {.q = q, .k = k, .v = v, .gates = gates}, nullptr, in.starts, options).h.value();
  std::int64_t begin = 0;
  for (std::int64_t t = 1; t <= s.time; ++t) {
    if (t < s.time && in.starts.data<std::uint8_t>()[t] == 0) continue;
    const Var qs(in.q.slice(begin, t)), ks(in.k.slice(begin, t)), vs(in.v.slice(begin, t)),
        gs(in.gates.slice(begin, t));
    const Tensor alone =
        mlstm(tape, {.q = qs, .k = ks, .v = vs, .gates = gs}, nullptr, {}, options).h.value();
    expect_close(packed.slice(begin, t), alone, 1e-12, 0, "document");
    begin = t;
  }
}

TEST_P(Mlstm, WithoutTheNormalizersGradientOnlyTheDenominatorIsLeftOut) {
  // dh orthogonal to h: nothing reaches the denominator, and the shortcut is exact.
  const CellShape s{1, 1, 20, 4, 6, 8};
  const CellInputs in = random_cell(memory(), s, 1, false);
  std::vector<Tensor> gradients;
  for (const bool full : {true, false}) {
    Tape tape(backend());
    const Var q = tape.leaf(here(in.q)), k = tape.leaf(here(in.k)), v = tape.leaf(here(in.v)),
              gates = tape.leaf(here(in.gates));
    const Var h = mlstm(tape, {.q = q, .k = k, .v = v, .gates = gates}, nullptr, {},
                        {.chunk = 8, .normalizer_gradient = full})
                      .h;
    const Tensor dh = random_normal(h.shape(), {.seed = 9}), hs = on_host(h.value());
    for (std::int64_t r = 0; r < s.time; ++r) {
      double along = 0, squares = 0;
      const double* row = hs.data<double>() + r * s.values;
      double* g = dh.data<double>() + r * s.values;
      for (std::int64_t c = 0; c < s.values; ++c) along += g[c] * row[c], squares += row[c] * row[c];
      for (std::int64_t c = 0; c < s.values; ++c) g[c] -= along / squares * row[c];
    }
    tape.backward(h, nullptr, {}, here(dh));
    for (const Var& x : {q, k, v, gates}) gradients.push_back(tape.gradient(x));
  }
  for (std::size_t i = 0; i < 4; ++i) expect_close(gradients[i + 4], gradients[i], 1e-9, 1e-12);
}

TEST_P(Mlstm, RefusesHeadsThatDoNotDivideTheWidth) {
  Tape tape(backend());
  const Var x(random_normal({4, 6})), gates(random_normal({4, 8}));
  const std::string message = error_of(ErrorKind::usage, [&] {
    mlstm(tape, {.q = x, .k = x, .v = x, .gates = gates}, nullptr, {}, {.heads = 4});
  });
  EXPECT_NE(message.find("6 channels of q do not divide by 4 heads"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
