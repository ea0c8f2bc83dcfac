#include "core/ops/wkv/wkv.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

// fp32 against fp64: a few roundings for each factor between a token and those that see it. bf16: inputs are
// rounded for both, results and gradients once.
constexpr double kWkvTolerance = 1e-5, kWkvBf16Tolerance = 0.01;

struct WkvSizes {
  std::int64_t batch, length, channels;
};

Tensor ramp(std::int64_t channels, double low, double high) {
  const Tensor tensor(*make_host_memory(), {channels}, DType::f64);
  for (std::int64_t c = 0; c < channels; ++c)
    tensor.data<double>()[c] = low + (high - low) * static_cast<double>(c) /
                                         static_cast<double>(std::max<std::int64_t>(1, channels - 1));
  return tensor;
}

/// Documents start at every token whose number in the batch is divisible by `every`.
Tensor starts_at_every(std::int64_t every, const WkvSizes& sizes) {
  const Tensor starts(*make_host_memory(), {sizes.batch, sizes.length}, DType::u8);
  for (std::int64_t i = 0; i < starts.elements(); ++i) starts.data<std::uint8_t>()[i] = i % every == 0;
  return starts;
}

/// Inputs r, k, v; parameters time_decay and time_first. Sequences may be cut in two, the second part going
/// on from the state of the first.
struct WkvCase {
  WkvSizes sizes;
  double k_deviation = 1;
  std::int64_t documents_of = 0;  // length of documents; 0: one a sequence
};

std::vector<OpInput> inputs_of(const WkvCase& what) {
  const auto& [batch, length, channels] = what.sizes;
  const Shape shape{batch * length, channels};
  return {{random_normal(shape, {.deviation = 2, .seed = 1})},
          {random_normal(shape, {.deviation = what.k_deviation, .seed = 2})},
          {random_normal(shape, {.seed = 3})}};
}

OpCase whole_case(const WkvCase& what) {
  return {
      .inputs = inputs_of(what),
      .parameters = {ramp(what.sizes.channels, -6, 1.5), random_normal({what.sizes.channels}, {.seed = 5})},
      .run = [what](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) -> std::vector<Var> {
        Sequences sequences{.count = what.sizes.batch, .length = what.sizes.length};
        if (what.documents_of > 0) sequences.starts = starts_at_every(what.documents_of, what.sizes);
        return {wkv(tape, {.sequences = sequences,
                           .r = x[0],
                           .k = x[1],
                           .v = x[2],
                           .time_decay = p[0],
                           .time_first = p[1]})
                    .y};
      }};
}

/// One sequence whose state starts as the inputs a and b say (p random), cut at token `cut`.
OpCase carried_case(std::int64_t length, std::int64_t cut, std::int64_t channels) {
  OpCase op;
  for (const std::int64_t part : {cut, length - cut})
    for (const OpInput& input : inputs_of({.sizes = {1, part, channels}})) op.inputs.push_back(input);
  op.inputs.push_back({random_normal({1, channels}, {.seed = 8}), true});
  op.inputs.push_back({random_normal({1, channels}, {.mean = 3, .deviation = 0.5, .seed = 9}), true});
  op.parameters = {ramp(channels, -6, 1.5), random_normal({channels}, {.seed = 5})};
  op.run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType type) -> std::vector<Var> {
    const Tensor exponent = convert(tape.backend().memory(), random_normal({1, channels}, {.seed = 10}),
                                    type == DType::f64 ? DType::f64 : DType::f32);
    const Sequences first{.count = 1, .length = cut}, second{.count = 1, .length = length - cut};
    const WkvResult begin = wkv(tape, {.sequences = first,
                                       .r = x[0],
                                       .k = x[1],
                                       .v = x[2],
                                       .time_decay = p[0],
                                       .time_first = p[1],
                                       .initial = {.a = x[6], .b = x[7], .p = exponent},
                                       .wants_last = true});
    const WkvResult end = wkv(tape, {.sequences = second,
                                     .r = x[3],
                                     .k = x[4],
                                     .v = x[5],
                                     .time_decay = p[0],
                                     .time_first = p[1],
                                     .initial = begin.last});
    return {begin.y, end.y};
  };
  return op;
}

class Wkv : public DeviceTest {
 protected:
  struct Run {
    Tensor y;
    WkvState last;
  };
  /// Forward only, r far above 0 unless given, so that the gate is 1.
  Run run(const Sequences& sequences, const Tensor& k, const Tensor& v, const Tensor& time_decay,
          const Tensor& time_first, const WkvState& initial, DType type) {
    ParameterSet p;
    add_parameters(p, time_decay, time_first, type);
    Tape tape(backend(), Tape::Mode::inference);
    const auto var = [&](const Tensor& tensor) {
      return Var(tensor ? convert(memory(), tensor, type) : tensor);
    };
    const Tensor gate = open_gate(k.shape(), type);
    const WkvResult result =
        wkv(tape, {.sequences = sequences,
                   .r = Var(gate),
                   .k = var(k),
                   .v = var(v),
                   .time_decay = p[0],
                   .time_first = p[1],
                   .initial = {.a = var(initial.a), .b = var(initial.b), .p = var(initial.p).value()},
                   .wants_last = true});
    return {result.y.value(), {result.last.a.value(), result.last.b.value(), result.last.p}};
  }

  void add_parameters(ParameterSet& p, const Tensor& time_decay, const Tensor& time_first, DType type) {
    p.add({.name = "decay", .shape = time_decay.shape()});
    p.add({.name = "first", .shape = time_first.shape()});
    p.build(memory(), {.master = type});
    copy(time_decay, p[0].value());
    copy(time_first, p[1].value());
    p.begin_gradients();
  }

  Tensor open_gate(const Shape& shape, DType type) {
    const Tensor gate(memory(), shape, type);
    fill(gate, 100);
    return gate;
  }

  void expect_golden(const std::string& file, DType type, double tolerance);
};
INSTANTIATE_TEST_SUITE_P(Devices, Wkv, on_every_device(), device_name);

void Wkv::expect_golden(const std::string& file, DType type, double tolerance) {
  SCOPED_TRACE(file + " " + to_string(type));
  const Golden golden("rwkv/" + file + ".h5");
  const Tensor k = golden.tensor("inputs/k");
  const std::int64_t batch = k.shape()[0], length = k.shape()[1], channels = k.shape()[2];
  const Shape rows{batch * length, channels};
  const auto input = [&](const char* name) {
    return convert(memory(), golden.tensor(std::string("inputs/") + name), type);
  };
  ParameterSet p;
  add_parameters(p, golden.tensor("inputs/time_decay"), golden.tensor("inputs/time_first"), type);
  Tape tape(backend());
  const Var k_leaf = tape.leaf(input("k").reshape(rows)), v_leaf = tape.leaf(input("v").reshape(rows));
  WkvCarry initial;
  const bool has_state = golden.has("inputs/aa");
  if (has_state) initial = {.a = tape.leaf(input("aa")), .b = tape.leaf(input("bb")), .p = input("pp")};
  const Sequences sequences{.count = batch, .length = length};
  const WkvResult result = wkv(tape, {.sequences = sequences,
                                      .r = Var(open_gate(rows, type)),
                                      .k = k_leaf,
                                      .v = v_leaf,
                                      .time_decay = p[0],
                                      .time_first = p[1],
                                      .initial = initial,
                                      .wants_last = true});
  const auto compare = [&](const Tensor& actual, const std::string& path) {
    expect_close(actual, golden.tensor(path).reshape(actual.shape()), tolerance, 0, path);
  };
  compare(result.y.value(), "outputs/y");
  compare(result.last.a.value(), "outputs/aa");
  compare(result.last.b.value(), "outputs/bb");
  compare(result.last.p, "outputs/pp");
  tape.backward(result.y, &p, {}, input("gy").reshape(rows));
  compare(tape.gradient(k_leaf), "grads/k");
  compare(tape.gradient(v_leaf), "grads/v");
  compare(p[0].gradient(), "grads/time_decay");
  compare(p[1].gradient(), "grads/time_first");
  if (!has_state) return;
  compare(tape.gradient(initial.a), "grads/aa");
  compare(tape.gradient(initial.b), "grads/bb");
}

TEST_P(Wkv, MatchesGolden) {
  for (const auto& [file, tolerance] : {std::pair{"wkv_basic", 2e-6},
                                        {"wkv_length1", 0.0},
                                        {"wkv_state", 1e-5},
                                        {"wkv_large_k", 1e-3},
                                        {"wkv_extreme_decay", 2e-5}}) {
    expect_golden(file, DType::f32, tolerance);
    expect_golden(file, DType::f64, tolerance == 0 ? 0 : 1e-11);
  }
}

TEST_P(Wkv, GradientsMatchCentralDifferences) {
  for (const WkvSizes& sizes : {WkvSizes{1, 1, 1}, {2, 5, 3}, {1, 40, 5}, {3, 33, 1}}) {
    SCOPED_TRACE(sizes.length);
    expect_gradients(backend(), whole_case({.sizes = sizes}));
    expect_gradients(backend(), whole_case({.sizes = sizes, .documents_of = 4}));
  }
}

TEST_P(Wkv, GradientsPassThroughACarriedState) {
  expect_gradients(backend(), carried_case(9, 4, 3));
  expect_gradients(backend(), carried_case(70, 35, 1));  // both parts have several chunks
}

// Wide enough for a task to run through all of its chunks, and narrow enough for chunks beside each other.
const std::vector<WkvSizes> kSizes = {{2, 7, 5}, {1, 100, 40}, {2, 65, 129}, {8, 70, 66}, {1, 200, 600}};

TEST_P(Wkv, InFp32AndBf16AgreesWithFp64) {
  for (const WkvSizes& sizes : kSizes)
    for (const std::int64_t documents_of : {0, 29}) {
      SCOPED_TRACE(std::to_string(sizes.batch) + " x " + std::to_string(sizes.length) + " x " +
                   std::to_string(sizes.channels));
      const OpCase op = whole_case({.sizes = sizes, .documents_of = documents_of});
      expect_agrees_with_double(backend(), op, DType::f32, kWkvTolerance);
      expect_agrees_with_double(backend(), op, DType::bf16, kWkvBf16Tolerance);
    }
}

TEST_P(Wkv, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const WkvSizes& sizes : kSizes)
      expect_same_bits_on_any_number_of_threads(backend(), whole_case({.sizes = sizes, .documents_of = 60}),
                                                type);
}

/// The first `channels` channels of each row.
Tensor narrowed(Memory& memory, const Tensor& x, std::int64_t channels) {
  const Tensor part(memory, {x.rows(), channels}, x.dtype());
  for (std::int64_t r = 0; r < x.rows(); ++r)
    std::copy_n(x.data<double>() + r * x.channels(), channels, part.data<double>() + r * channels);
  return part;
}

// A call with many channels runs each sequence from end to end, one with few of them runs its chunks beside
// each other, and token by token is what inference does. Channels are independent, so all three must agree.
TEST_P(Wkv, ParallelChunksEqualOnePassEqualsTokenByToken) {
  const std::int64_t wide = 544, narrow = 24;  // 34 vectors of 16 channels, and 2
  const Tensor decay = ramp(wide, -8, 2), first = random_normal({wide}, {.seed = 5});
  for (const std::int64_t length : {1, 2, 3, 31, 32, 33, 63, 64, 65, 100, 257, 1000, 4096}) {
    SCOPED_TRACE(length);
    const Tensor k = random_normal({length, wide}, {.deviation = 3, .seed = 2}),
                 v = random_normal({length, wide}, {.seed = 3});
    const Tensor narrow_k = narrowed(host(), k, narrow), narrow_v = narrowed(host(), v, narrow);
    const Tensor narrow_decay = decay.slice(0, narrow), narrow_first = first.slice(0, narrow);
    const Sequences whole{.count = 1, .length = length}, one{.count = 1, .length = 1};
    for (const DType type : {DType::f64, DType::f32}) {
      // While one token leads, each step rounds the exponent (fp32: up to 12, by 4.8e-7) the same way.
      const double drift = (type == DType::f64 ? 9e-16 : 4.8e-7) * static_cast<double>(length);
      const double tolerance = (type == DType::f64 ? 1e-13 : 1e-6) + drift;
      const Run pass = run(whole, k, v, decay, first, {}, type);
      const Run chunks = run(whole, narrow_k, narrow_v, narrow_decay, narrow_first, {}, type);
      const Tensor expected = narrowed(host(), convert(host(), pass.y, DType::f64), narrow);
      expect_close(chunks.y, expected, tolerance, 0, "chunks");
      if (length > 300) continue;  // token by token takes a call for each
      WkvState state = empty_wkv_state(memory(), 1, narrow, type);
      for (std::int64_t t = 0; t < length; ++t) {
        const Run step = run(one, narrow_k.slice(t, t + 1), narrow_v.slice(t, t + 1), narrow_decay,
                             narrow_first, state, type);
        expect_close(step.y, expected.slice(t, t + 1), tolerance, tolerance, "step");
        state = step.last;
      }
      expect_close(state.a, chunks.last.a, tolerance, 0, "a");
      expect_close(state.b, chunks.last.b, tolerance, 0, "b");
      expect_close(state.p, chunks.last.p, tolerance, tolerance, "p");
    }
  }
}

TEST_P(Wkv, StaysFiniteAndAMeanOfTheValuesWhereExponentialsOverflow) {
  const WkvSizes sizes{2, 70, 48};
  const OpCase op = whole_case({.sizes = sizes, .k_deviation = 5000});
  const OpResult result = run_op(backend(), op, DType::f32);
  for (const float y : result.outputs[0].values<float>()) EXPECT_LE(std::abs(y), 6);  // of normal values
  for (const auto* tensors : {&result.input_gradients, &result.parameter_gradients})
    for (const Tensor& tensor : *tensors)
      for (const float x : tensor.values<float>()) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(Wkv, ADocumentStartForgetsWhatStandsBefore) {
  const WkvSizes sizes{2, 150, 20};
  const Tensor k = random_normal({300, 20}, {.seed = 2}), v = random_normal({300, 20}, {.seed = 3});
  const Tensor decay = ramp(20, -6, 1.5), first = random_normal({20}, {.seed = 5});
  const Run packed = run({.count = 2, .length = 150, .starts = starts_at_every(50, sizes)}, k, v, decay,
                         first, {}, DType::f32);
  for (std::int64_t document = 0; document < 6; ++document) {
    const std::int64_t begin = 50 * document;
    const Run alone = run({.count = 1, .length = 50}, k.slice(begin, begin + 50), v.slice(begin, begin + 50),
                          decay, first, {}, DType::f32);
    expect_close(packed.y.slice(begin, begin + 50), alone.y, 1e-6);
  }
}

TEST_P(Wkv, NoTokensLeaveTheStateAsItIs) {
  const WkvState state = {random_normal({2, 5}, {.seed = 1}), random_normal({2, 5}, {.seed = 2}),
                          random_normal({2, 5}, {.seed = 3})};
  const Tensor none(memory(), {0, 5}, DType::f64);
  const Run result =
      run({.count = 2, .length = 0}, none, none, ramp(5, -6, 1), ramp(5, -1, 1), state, DType::f64);
  expect_identical(result.last.a, state.a);
  expect_identical(result.last.b, state.b);
  expect_identical(result.last.p, state.p);
}

TEST_P(Wkv, NamesBothShapesWhenASizeDoesNotFit) {
  OpCase wrong = whole_case({.sizes = {1, 4, 6}});
  wrong.parameters[1] = random_normal({7});
  const std::string message = error_of(ErrorKind::data, [&] { run_op(backend(), wrong, DType::f32); });
  EXPECT_NE(message.find("wkv: time_first has shape [7], expected [6]"), std::string::npos) << message;
}

}  // namespace
}  // namespace bireme::test
