#include "core/ops/attention/causal_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/attention/attention_kernels.h"
#include "tests/support/devices.h"
#include "tests/support/expect.h"
#include "tests/support/golden.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensor.h"

namespace bireme::test {
namespace {

struct CausalLayout {
  std::int64_t sequences, length;
  AttentionHeads heads;
  std::int64_t document = 0;  ///< a new one every so many tokens (sequence b's are b tokens longer); 0: one
};

Tensor firsts(Memory& memory, const CausalLayout& s) {
  if (s.document == 0) return {};
  const Tensor first(memory, {s.sequences * s.length}, DType::i32);
  for (std::int64_t r = 0; r < first.elements(); ++r) {
    const std::int64_t t = r % s.length, each = s.document + r / s.length;
    first.data<std::int32_t>()[r] = static_cast<std::int32_t>(t / each * each);
  }
  return first;
}

OpCase causal_case(const CausalLayout& s, double deviation = 1) {
  return {
      .inputs = {{random_normal({s.sequences * s.length, s.heads.channels()},
                                {.deviation = deviation, .seed = 7})}},
      .parameters = {},
      .run = [=](Tape& tape, const std::vector<Var>& x, ParameterSet&, DType) -> std::vector<Var> {
        return {causal_attention(tape, x[0], s.heads, s.length, firsts(tape.backend().memory().host(), s))};
      }};
}

/// The definition, row by row, in fp64.
Tensor by_definition(Memory& memory, const Tensor& qkv, const CausalLayout& s) {
  const auto [H, G, d] = s.heads;
  const std::int64_t stride = s.heads.channels();
  const Tensor first = firsts(memory, s), y(memory, {qkv.rows(), H * d}, DType::f64);
  fill(y, 0);
  for (std::int64_t r = 0; r < qkv.rows(); ++r)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t begin = r / s.length * s.length + (first ? first.data<std::int32_t>()[r] : 0);
      const double* q = qkv.data<double>() + r * stride + h * d;
      std::vector<double> weights;
      double total = 0;
      for (std::int64_t c = begin; c <= r; ++c) {
        const double* k = qkv.data<double>() + c * stride + (H + h / (H / G)) * d;
        double score = 0;
        for (std::int64_t j = 0; j < d; ++j) score += q[j] * k[j] / std::sqrt(static_cast<double>(d));
        weights.push_back(std::exp(score));
        total += weights.back();
      }
      for (std::int64_t c = begin; c <= r; ++c)
        for (std::int64_t j = 0; j < d; ++j)
          y.data<double>()[(r * H + h) * d + j] +=
              weights[static_cast<std::size_t>(c - begin)] / total *
              qkv.data<double>()[c * stride + (H + G + h / (H / G)) * d + j];
    }
  return y;
}

const std::vector<CausalLayout> kCausalLayouts = {
    {1, 1, {1, 1, 3}},        {2, 5, {2, 1, 4}},   {2, 13, {4, 2, 8}, 4}, {1, 60, {2, 2, 2}, 7},
    {1, 300, {2, 1, 4}, 100}, {2, 530, {1, 1, 8}}, {2, 40, {4, 2, 8}}};

class CausalAttention : public DeviceTest {};
INSTANTIATE_TEST_SUITE_P(Devices, CausalAttention, on_every_device(), device_name);

TEST_P(CausalAttention, FollowsItsDefinitionAcrossTiles) {
  for (const CausalLayout& s : kCausalLayouts) {
    SCOPED_TRACE(testing::Message() << s.length << " tokens, documents of " << s.document);
    const OpCase op = causal_case(s);
    Tape tape(backend(), Tape::Mode::inference);
    const Tensor y =
        causal_attention(tape, Var(here(op.inputs[0].value)), s.heads, s.length, firsts(host(), s)).value();
    expect_close(y, by_definition(host(), op.inputs[0].value, s), 1e-13);
  }
}

TEST_P(CausalAttention, GradientsMatchCentralDifferences) {
  for (const CausalLayout& s : kCausalLayouts)
    if (s.length <= 60) expect_gradients(backend(), causal_case(s));
  // Across a boundary of key tiles: a single channel, to keep the differences affordable.
  expect_gradients(backend(), causal_case({1, 270, {1, 1, 1}}), {.relative = 1e-6});
}

TEST_P(CausalAttention, InFp32AndBf16AgreesWithFp64) {
  for (const CausalLayout& s : kCausalLayouts) {
    SCOPED_TRACE(s.length);
    expect_agrees_with_double(backend(), causal_case(s), DType::f32, s.length == 1 ? 1 : 1e-5);
    if (s.length > 1) expect_agrees_with_double(backend(), causal_case(s), DType::bf16, 0.02);
  }
}

TEST_P(CausalAttention, LargeScoresStayFinite) {
  expect_agrees_with_double(backend(), causal_case({1, 300, {1, 1, 16}}, 20), DType::f32, 1e-3);
}

TEST_P(CausalAttention, MatchesTheReference) {
  const Golden golden("llama/operators.h5");
  const AttentionHeads heads{4, 2, 8};
  // [B, H, T, d] of q, k, v → [B·T, (H + 2·G)·d]
  const auto pack = [&](const std::string& group, std::initializer_list<const char*> names) {
    std::int64_t channels = 0, at = 0;
    for (const char* name : names) channels += golden.tensor(group + name).shape()[1] * 8;
    const Tensor rows(host(), {14, channels}, DType::f64);
    for (const char* name : names) {
      const Tensor x = convert(host(), golden.tensor(group + name), DType::f64);
      for (std::int64_t i = 0; i < x.elements(); ++i) {
        const std::int64_t j = i % 8, t = i / 8 % 7, h = i / 56 % x.shape()[1], b = i / 56 / x.shape()[1];
        rows.data<double>()[(b * 7 + t) * channels + at + h * 8 + j] = x.data<double>()[i];
      }
      at += x.shape()[1] * 8;
    }
    return rows;
  };
  for (const DType type : {DType::f64, DType::f32}) {
    const double t = type == DType::f64 ? 1e-10 : 1e-5;
    Tape tape(backend());
    const Var x = tape.leaf(convert(memory(), pack("attention/inputs/", {"q", "k", "v"}), type));
    const Var y = causal_attention(tape, x, heads, 7, {});
    expect_close(y.value(), pack("attention/outputs/", {"y"}), t, 0, "y");
    tape.backward(y, nullptr, {}, convert(memory(), pack("attention/inputs/", {"cotangent"}), type));
    expect_close(tape.gradient(x), pack("attention/grads/", {"q", "k", "v"}), t, 0, "gradient");
  }
}

TEST_P(CausalAttention, OverACacheEqualsTheWhole) {
  const CausalLayout s{2, 300, {4, 2, 20}};
  const OpCase op = causal_case(s);
  for (const DType type : {DType::f64, DType::f32, DType::bf16}) {
    const Tensor qkv = convert(memory(), op.inputs[0].value, type);
    Tape tape(backend(), Tape::Mode::inference);
    const Tensor whole = causal_attention(tape, Var(qkv), s.heads, s.length, {}).value();
    const std::int64_t channels = s.heads.channels(), width = whole.channels();
    const Tensor keys(memory(), {2, 2, 310, 20}, type), values(memory(), {2, 2, 310, 20}, type);
    std::int64_t done = 0;
    for (const std::int64_t tokens : {1, 3, 130, 8, 1, 9, 148}) {
      const Tensor part(memory(), {2 * tokens, channels}, type), y(memory(), {2 * tokens, width}, type);
      const Tensor expected(memory(), {2 * tokens, width}, type);
      for (std::int64_t b = 0; b < 2; ++b) {
        copy(qkv.slice(b * 300 + done, b * 300 + done + tokens), part.slice(b * tokens, (b + 1) * tokens));
        copy(whole.slice(b * 300 + done, b * 300 + done + tokens),
             expected.slice(b * tokens, (b + 1) * tokens));
      }
      const std::vector<std::int64_t> lengths{done, done};
      backend().attention().append(
          {.qkv = part, .heads = s.heads, .lengths = lengths, .keys = keys, .values = values});
      backend().attention().cached_attention(
          {.qkv = part, .heads = s.heads, .lengths = lengths, .keys = keys, .values = values, .y = y});
      expect_close(y, expected,
                   type == DType::f64   ? 1e-13
                   : type == DType::f32 ? 1e-6
                                        : 0.005,
                   0, std::to_string(tokens) + " tokens");
      done += tokens;
    }
  }
}

TEST_P(CausalAttention, HasTheSameBitsOnAnyNumberOfThreads) {
  for (const DType type : {DType::f32, DType::bf16})
    expect_same_bits_on_any_number_of_threads(backend(), causal_case({3, 300, {4, 2, 16}, 90}), type);
}

}  // namespace
}  // namespace bireme::test
