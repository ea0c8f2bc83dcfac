#include "core/ops/branches/branches.h"

#include <gtest/gtest.h>

#include "core/ops/attention/causal_attention.h"
#include "core/ops/convolution/convolution.h"
#include "core/ops/embedding/embedding.h"
#include "core/ops/mlstm/mlstm.h"
#include "core/ops/slstm/slstm.h"
#include "core/ops/token_shift/token_shift.h"
#include "core/ops/wkv/wkv.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

using Documents = std::vector<Branching>;

/// A trunk with two branches, one with none, one shorter than a convolution, one without a trunk, and one
/// with an empty branch.
Documents documents() {
  Documents all;
  std::int64_t begin = 0;
  const auto add = [&](std::int64_t trunk, std::vector<std::int64_t> branches) {
    all.push_back({.begin = begin, .trunk = trunk, .branches = std::move(branches)});
    begin += all.back().rows();
  };
  add(5, {3, 4});
  add(6, {});
  add(2, {5, 1, 2});
  add(0, {3, 2});
  add(1, {0, 2});
  return all;
}

std::int64_t rows_of(const Documents& all) { return all.back().begin + all.back().rows(); }

/// Each way from a root to a leaf, as the rows that it reads; and how many rows of it are a branch's own.
struct Path {
  std::vector<std::int64_t> rows;
  std::int64_t own;
};
std::vector<Path> paths(const Documents& all) {
  std::vector<Path> found;
  for (const Branching& document : all) {
    for (const Branching::Piece& piece : document.pieces()) {
      Path path{.rows = {}, .own = piece.length};
      if (piece.is_branch)
        for (std::int64_t i = 0; i < document.trunk; ++i) path.rows.push_back(document.begin + i);
      for (std::int64_t i = 0; i < piece.length; ++i) path.rows.push_back(piece.begin + i);
      found.push_back(std::move(path));
    }
  }
  return found;
}

/// An op in both forms: over documents, and over one sequence.
struct Branched {
  std::string name;
  std::vector<std::int64_t> channels;  // of the inputs
  std::vector<Shape> parameters;
  std::function<Var(Tape&, const std::vector<Var>&, ParameterSet&, const Documents&)> run;
};

/// Side by side as one tensor of rows: all results of an op count.
Var stack(Tape& tape, const std::vector<Var>& results) {
  const std::int64_t rows = results[0].value().rows(), channels = results[0].value().channels(),
                     count = std::ssize(results);
  const Tensor y = tape.empty({rows, count * channels}, results[0].dtype());
  const auto for_rows = [=](const auto& body) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < count; ++i)
        body(r, static_cast<std::size_t>(i), (r * count + i) * channels);
  };
  for_rows([&](std::int64_t r, std::size_t i, std::int64_t at) {
    copy(results[i].value().slice(r, r + 1), y.view(at, {1, channels}));
  });
  return tape.record("stack", {results.begin(), results.end()}, y,
                     [results, for_rows, channels](const Tensor& dy, Gradients& into) {
                       std::vector<Tensor> parts;
                       for (const Var& result : results) parts.push_back(into[result].tensor);
                       for_rows([&](std::int64_t r, std::size_t i, std::int64_t at) {
                         copy(dy.view(at, {1, channels}), parts[i].slice(r, r + 1));
                       });
                     });
}

Sequences whole(const Var& x) { return {.count = 1, .length = x.value().rows()}; }
Sequences sequences_of(const Var& x, const Documents& all) {
  Sequences sequences = whole(x);
  sequences.documents = all;
  return sequences;
}

const std::vector<Branched>& ops() {
  static const std::vector<Branched> all = {
      {"attention",
       {4 * 4},
       {},
       [](Tape& t, const std::vector<Var>& x, ParameterSet&, const Documents& d) {
         const AttentionHeads heads{.queries = 2, .keys = 1, .dimension = 4};
         return d.empty() ? causal_attention(t, x[0], heads, x[0].value().rows(), {})
                          : causal_attention(t, x[0], heads, d);
       }},
      {"token_shift",
       {5},
       {Shape{5}, Shape{5}},
       [](Tape& t, const std::vector<Var>& x, ParameterSet& p, const Documents& d) {
         return stack(t, token_shift(t, x[0], {use(t, p[0]), use(t, p[1])}, sequences_of(x[0], d)));
       }},
      {"convolution",
       {6},
       {Shape{6, 1, 4}, Shape{6}},
       [](Tape& t, const std::vector<Var>& x, ParameterSet& p, const Documents& d) {
         return d.empty() ? causal_convolution(t, x[0], p[0], p[1], Tensor(), Tensor(), 1, true)
                          : causal_convolution(t, x[0], p[0], p[1], d, true);
       }},
      {"wkv",
       {3, 3, 3},
       {Shape{3}, Shape{3}},
       [](Tape& t, const std::vector<Var>& x, ParameterSet& p, const Documents& d) {
         const Sequences sequences = sequences_of(x[0], d);
         return wkv(t, {.sequences = sequences,
                        .r = x[0],
                        .k = x[1],
                        .v = x[2],
                        .time_decay = p[0],
                        .time_first = p[1]})
             .y;
       }},
      {"mlstm",
       {4, 4, 6, 4},
       {},
       [](Tape& t, const std::vector<Var>& x, ParameterSet&, const Documents& d) {
         const MlstmInputs in{.q = x[0], .k = x[1], .v = x[2], .gates = x[3]};
         const MlstmOptions options{.sequences = 1, .heads = 2, .chunk = 3};
         return d.empty() ? mlstm(t, in, nullptr, Tensor(), options).h
                          : mlstm_of_documents(t, in, nullptr, d, options);
       }},
      {"slstm",
       {2 * 4 * 3},
       {Shape{2, 12, 3}, Shape{24}},
       [](Tape& t, const std::vector<Var>& x, ParameterSet& p, const Documents& d) {
         const SlstmOptions options{.sequences = 1, .heads = 2};
         const DType type = x[0].dtype();
         return d.empty() ? slstm(t, x[0], p[0], p[1], nullptr, Tensor(), options, type).h
                          : slstm_of_documents(t, x[0], p[0], p[1], d, options, type);
       }},
  };
  return all;
}

OpCase case_of(const Branched& op, const Documents& all) {
  OpCase found{.inputs = {}, .parameters = {}, .run = {}};
  std::uint64_t seed = 3;
  for (const std::int64_t channels : op.channels)
    found.inputs.push_back({random_normal({rows_of(all), channels}, {.seed = ++seed})});
  for (const Shape& shape : op.parameters)
    found.parameters.push_back(random_normal(shape, {.deviation = 0.5, .seed = ++seed}));
  found.run = [op, all](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) {
    return std::vector<Var>{op.run(tape, x, p, all)};
  };
  return found;
}

class Branches : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, Branches, on_every_device(), device_name);

TEST_P(Branches, EqualSequencesOfTheirOwn) {
  const Documents all = documents();
  for (const Branched& op : ops()) {
    SCOPED_TRACE(op.name);
    OpCase branched = case_of(op, all), apart = branched;
    // Every path by itself; rows of a trunk count where the trunk is the path.
    apart.run = [&](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) {
      std::vector<Var> pieces;
      for (const Path& path : paths(all)) {
        const Tensor rows(tape.backend().memory().host(), {std::ssize(path.rows)}, DType::i32);
        for (std::size_t i = 0; i < path.rows.size(); ++i)
          rows.data<std::int32_t>()[i] = static_cast<std::int32_t>(path.rows[i]);
        std::vector<Var> inputs;
        for (const Var& input : x) inputs.push_back(gather_rows(tape, input, rows));
        const Var y = op.run(tape, inputs, p, {});
        const std::int64_t before = std::ssize(path.rows) - path.own;
        pieces.push_back(before == 0 ? y : split_rows(tape, y, {before, path.own})[1]);
      }
      return std::vector<Var>{join_rows(tape, pieces)};
    };
    const OpResult actual = run_op(backend(), branched, DType::f64),
                   expected = run_op(backend(), apart, DType::f64);
    expect_close(actual.outputs[0], expected.outputs[0], 1e-12);
    for (std::size_t i = 0; i < expected.input_gradients.size(); ++i)
      expect_close(actual.input_gradients[i], expected.input_gradients[i], 1e-11, 0, "input");
    for (std::size_t i = 0; i < expected.parameter_gradients.size(); ++i)
      expect_close(actual.parameter_gradients[i], expected.parameter_gradients[i], 1e-11, 0, "parameter");
  }
}

TEST_P(Branches, GradientsMatchCentralDifferences) {
  for (const Branched& op : ops()) {
    SCOPED_TRACE(op.name);
    // Third derivatives of the mLSTM's gates err by 1e-6, as in its own test.
    const GradientTolerance loose{.relative = 5e-6, .absolute = 1e-8};
    expect_gradients(backend(), case_of(op, documents()), op.name == "mlstm" ? loose : GradientTolerance{});
  }
}

TEST_P(Branches, InFp32AndBf16AgreesWithFp64) {
  for (const Branched& op : ops()) {
    SCOPED_TRACE(op.name);
    expect_agrees_with_double(backend(), case_of(op, documents()), DType::f32, 1e-5);
    expect_same_bits_on_any_number_of_threads(backend(), case_of(op, documents()), DType::f32);
  }
}

TEST_P(Branches, AttentionLooksAcrossTilesOfATrunk) {
  // Tiles of 256 keys and 48 queries: the trunk ends within one, branches begin there.
  const Documents all = {{.begin = 0, .trunk = 300, .branches = {70, 250}}};
  expect_agrees_with_double(backend(), case_of(ops()[0], all), DType::f32, 1e-5);
  const OpCase branched = case_of(ops()[0], all);
  OpCase apart = branched;
  apart.run = [](Tape& tape, const std::vector<Var>& x, ParameterSet& p, DType) {
    const std::vector<Var> parts = split_rows(tape, x[0], {300, 70, 250});
    const Var first = ops()[0].run(tape, {join_rows(tape, {parts[0], parts[1]})}, p, {}),
              second = ops()[0].run(tape, {join_rows(tape, {parts[0], parts[2]})}, p, {});
    return std::vector<Var>{join_rows(tape, {first, split_rows(tape, second, {300, 250})[1]})};
  };
  const OpResult actual = run_op(backend(), branched, DType::f64),
                 expected = run_op(backend(), apart, DType::f64);
  expect_close(actual.outputs[0], expected.outputs[0], 1e-12);
  expect_close(actual.input_gradients[0], expected.input_gradients[0], 1e-11);
}

}  // namespace
}  // namespace bireme::test
