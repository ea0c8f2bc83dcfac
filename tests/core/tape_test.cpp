#include "core/autograd/tape.h"

#include <gtest/gtest.h>

#include <memory>

#include "core/cpu/cpu_backend.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme::test {
namespace {

/// Small values and ops made for these tests: what matters is when and how often they run.
class TapeTest : public ::testing::Test {
 protected:
  TapeTest() : backend_(make_cpu_backend(make_host_memory())) {}

  const Backend& backend() const { return *backend_; }
  Memory& memory() const { return backend_->memory(); }

  Tensor number(double value) const {
    const Tensor tensor(memory(), {1}, DType::f64);
    fill(tensor, value);
    return tensor;
  }
  static double value(const Tensor& tensor) { return tensor.data<double>()[0]; }

  /// y = x · factor
  static Var scale(Tape& tape, const Var& x, double factor) {
    const Tensor y = tape.empty({1}, DType::f64);
    fill(y, value(x.value()) * factor);
    return tape.record("scale", {x}, y, [x, factor](const Tensor& dy, Gradients& into) {
      add_to(into[x], factor * value(dy));
    });
  }
  /// y = x · p, which needs both values on the way back.
  static Var multiply(Tape& tape, const Var& x, Parameter& p) {
    const Tensor y = tape.empty({1}, DType::f64);
    fill(y, value(x.value()) * value(p.value()));
    return tape.record("multiply", {x, p}, y, [x, &p](const Tensor& dy, Gradients& into) {
      add_to(into[x], value(p.value()) * value(dy));
      add_to(into[p], value(x.value()) * value(dy));
    });
  }
  static Var sum(Tape& tape, const Var& a, const Var& b) {
    const Tensor y = tape.empty({1}, DType::f64);
    fill(y, value(a.value()) + value(b.value()));
    return tape.record("sum", {a, b}, y, [a, b](const Tensor& dy, Gradients& into) {
      into.give(a, dy);
      into.give(b, dy);
    });
  }
  /// What a kernel does with a Target.
  static void add_to(const Target& target, double contribution) {
    if (target) fill(target.tensor, contribution + (target.accumulate ? value(target.tensor) : 0));
  }

  void build(int parameters) {
    for (int i = 0; i < parameters; ++i)
      parameters_.add({.name = std::string(1, static_cast<char>('a' + i)),
                       .shape = {1},
                       .initial = {Initializer::Law::constant, 2.0 + i}});
    parameters_.build(memory(), {.master = DType::f64});
    parameters_.initialize(1);
    parameters_.begin_gradients();
  }
  Parameter& parameter(std::size_t i) { return parameters_[i]; }
  ParameterSet& parameters() { return parameters_; }

  /// Walks back and returns the names in the order in which they became ready.
  std::string ready_order(Tape& tape, const Var& y) {
    std::string order;
    tape.backward(y, &parameters_, [&order](Parameter& p) { order += p.name(); });
    return order;
  }

 private:
  std::unique_ptr<Backend> backend_;
  ParameterSet parameters_;
};

// Promise 1: a step none of whose inputs wants a gradient is not recorded.

TEST_F(TapeTest, StepsOnConstantsAreNotRecorded) {
  Tape tape(backend());
  const Var y = scale(tape, scale(tape, Var(number(3)), 2), 5);
  EXPECT_EQ(value(y.value()), 30);
  EXPECT_FALSE(y.wants_gradient());
  EXPECT_EQ(tape.steps(), 0U);
}

TEST_F(TapeTest, AnInferenceTapeRecordsNothingAndKeepsNothing) {
  build(1);
  Tape tape(backend(), Tape::Mode::inference);
  Var y = tape.leaf(number(3));
  const std::size_t before = memory().statistics().in_use;
  for (int i = 0; i < 10; ++i) y = multiply(tape, y, parameter(0));
  EXPECT_EQ(tape.steps(), 0U);
  EXPECT_FALSE(y.wants_gradient());
  EXPECT_EQ(memory().statistics().in_use, before);  // the last value took the place of the leaf
}

TEST_F(TapeTest, AFrozenParameterDoesNotRecordAndKeepsItsGradient) {
  build(1);
  parameter(0).set_trainable(false);
  fill(parameter(0).gradient(), 77);
  Tape tape(backend());
  multiply(tape, Var(number(3)), parameter(0));
  EXPECT_EQ(tape.steps(), 0U);
  const Var x = tape.leaf(number(3));
  tape.backward(multiply(tape, x, parameter(0)));
  EXPECT_EQ(value(tape.gradient(x)), 2);
  EXPECT_EQ(value(parameter(0).gradient()), 77);
}

// Promise 2: a Target says write first and add later; nothing is cleared, no sum is a separate pass.

TEST_F(TapeTest, TheFirstContributionIsWrittenAndLaterOnesAreAdded) {
  Tape tape(backend());
  const Var x = tape.leaf(number(1));
  std::vector<bool> accumulates;
  const auto use = [&](double factor) {
    return tape.record("use", {x}, number(0), [&, x, factor](const Tensor&, Gradients& into) {
      const Target target = into[x];
      accumulates.push_back(target.accumulate);
      add_to(target, factor);
    });
  };
  const Var first = use(3), second = use(4), third = use(5);
  tape.backward(sum(tape, sum(tape, first, second), third));
  EXPECT_EQ(accumulates, (std::vector<bool>{false, true, true}));
  EXPECT_EQ(value(tape.gradient(x)), 12);
}

TEST_F(TapeTest, AGradientGivenToSeveralIsNotChangedByWhatOneOfThemAddsLater) {
  // sum gives one tensor to both of its inputs; a then receives 10 more, which b must not see.
  Tape tape(backend());
  const Var a = tape.leaf(number(1)), b = tape.leaf(number(2));
  const Var more = scale(tape, a, 10);
  tape.backward(sum(tape, more, sum(tape, a, b)));
  EXPECT_EQ(value(tape.gradient(a)), 11);
  EXPECT_EQ(value(tape.gradient(b)), 1);
}

TEST_F(TapeTest, ParameterGradientsAddUpOverBackwardPassesUntilANewStepBegins) {
  build(1);
  for (int pass = 0; pass < 2; ++pass) {
    Tape tape(backend());
    tape.backward(multiply(tape, Var(number(3)), parameter(0)), &parameters());
  }
  EXPECT_EQ(value(parameter(0).gradient()), 6);
  parameters().begin_gradients();
  Tape tape(backend());
  tape.backward(multiply(tape, Var(number(5)), parameter(0)), &parameters());
  EXPECT_EQ(value(parameter(0).gradient()), 5);
}

TEST_F(TapeTest, AResultThatNobodyUsedIsAnUndefinedGradient) {
  Tape tape(backend());
  const Var x = tape.leaf(number(1));
  std::vector<bool> defined;
  const auto results = tape.record("two", {x}, std::vector<Tensor>{number(1), number(2)},
                                   [&, x](std::span<const Tensor> dy, Gradients& into) {
                                     for (const Tensor& d : dy) defined.push_back(d.defined());
                                     into.give(x, dy[1]);
                                   });
  tape.backward(scale(tape, results[1], 7));
  EXPECT_EQ(defined, (std::vector<bool>{false, true}));
  EXPECT_EQ(value(tape.gradient(x)), 7);
}

TEST_F(TapeTest, AStepThatNothingReachedDoesNotRun) {
  Tape tape(backend());
  const Var x = tape.leaf(number(1));
  tape.record("unused", {x}, number(0),
              [](const Tensor&, Gradients&) { FAIL() << "no gradient came this way"; });
  tape.backward(scale(tape, x, 3));
  EXPECT_EQ(value(tape.gradient(x)), 3);
}

// Promise 3: a step is destroyed as soon as it has run, with what it saved and the gradient of what it
// produced.

TEST_F(TapeTest, WhatAStepSavedIsFreedBeforeTheNextOneRuns) {
  Tape tape(backend());
  const Var x = tape.leaf(number(1));
  std::weak_ptr<int> saved_by_second;
  Var y = tape.record("first", {x}, number(0), [&, x](const Tensor& dy, Gradients& into) {
    EXPECT_TRUE(saved_by_second.expired()) << "the step after this one has run and still holds what it saved";
    into.give(x, dy);
  });
  {
    const auto saved = std::make_shared<int>(0);
    saved_by_second = saved;
    y = tape.record("second", {y}, number(0),
                    [saved, y](const Tensor& dy, Gradients& into) { into.give(y, dy); });
  }
  EXPECT_FALSE(saved_by_second.expired());
  tape.backward(y);
  EXPECT_EQ(tape.steps(), 0U);
}

TEST_F(TapeTest, MemoryOfAChainFallsWhileItIsWalkedBack) {
  constexpr std::int64_t kElements = 1 << 16;
  constexpr int kLength = 8;
  Tape tape(backend());
  const Tensor start(memory(), {kElements}, DType::f64);
  Var x = tape.leaf(start);
  std::vector<std::size_t> in_use;
  for (int i = 0; i < kLength; ++i) {
    const Tensor y = tape.empty({kElements}, DType::f64);
    x = tape.record("keep", {x}, y, [&, x](const Tensor&, Gradients& into) {
      fill(into[x].tensor, 1);
      in_use.push_back(memory().statistics().in_use);
    });
  }
  const Tensor seed(memory(), {kElements}, DType::f64);
  const Var last = std::exchange(x, Var());
  tape.backward(last, nullptr, {}, seed);
  ASSERT_EQ(in_use.size(), std::size_t{kLength});
  // Each step frees the value it saved and the gradient it read, and makes one gradient: one block less a
  // step. The first ones still share the seed and the last value with this test.
  for (std::size_t i = 2; i < in_use.size(); ++i)
    EXPECT_EQ(in_use[i - 1] - in_use[i], kElements * sizeof(double)) << i;
}

TEST_F(TapeTest, AChainOfManyStepsNeedsNoDeepStack) {
  Tape tape(backend());
  const Var x = tape.leaf(number(1));
  Var y = x;
  for (int i = 0; i < 300000; ++i)
    y = tape.record("pass", {y}, y.value(), [y](const Tensor& dy, Gradients& into) { into.give(y, dy); });
  tape.backward(y);
  EXPECT_EQ(value(tape.gradient(x)), 1);
}

// Promise 4: ready fires once for each parameter, at its last use, in the same order every time; unused ones
// at the end, with 0.

TEST_F(TapeTest, AParameterIsReadyAfterItsLastUseAndOnlyOnce) {
  build(3);
  Parameter &a = parameter(0), &b = parameter(1), &c = parameter(2);
  for (int repeat = 0; repeat < 2; ++repeat) {
    parameters().begin_gradients();
    Tape tape(backend());
    const Var x(number(1));
    // a is used first and last (a tied weight): it is ready only when the walk comes back to its first use.
    const Var y = multiply(tape, multiply(tape, multiply(tape, multiply(tape, x, a), b), c), a);
    EXPECT_EQ(ready_order(tape, y), "cba");
    EXPECT_EQ(value(a.gradient()), 2 * 2 * 3 * 4);  // d(a²bc)/da = 2abc, a = 2, b = 3, c = 4
    EXPECT_EQ(value(b.gradient()), 2 * 2 * 4);
    EXPECT_EQ(value(c.gradient()), 2 * 2 * 3);
  }
}

TEST_F(TapeTest, TheGradientIsCompleteWhenReadyFires) {
  build(2);
  Tape tape(backend());
  const Var y =
      sum(tape, multiply(tape, Var(number(3)), parameter(0)), multiply(tape, Var(number(4)), parameter(0)));
  double seen = 0;
  tape.backward(y, &parameters(), [&](Parameter& p) {
    if (p.name() == "a") seen = value(p.gradient());
  });
  EXPECT_EQ(seen, 7);
}

TEST_F(TapeTest, UnusedParametersAreReadyAtTheEndWithAZeroGradient) {
  build(3);
  for (std::size_t i = 0; i < 3; ++i) fill(parameter(i).gradient(), 77);  // left over from an earlier step
  Tape tape(backend());
  EXPECT_EQ(ready_order(tape, multiply(tape, Var(number(5)), parameter(1))), "bca");
  EXPECT_EQ(value(parameter(0).gradient()), 0);
  EXPECT_EQ(value(parameter(1).gradient()), 5);
  EXPECT_EQ(value(parameter(2).gradient()), 0);
}

TEST_F(TapeTest, AUseThatNothingReachedCountsAsUsedWithAZeroGradient) {
  build(2);
  fill(parameter(0).gradient(), 77);
  Tape tape(backend());
  multiply(tape, Var(number(5)), parameter(0));  // its result is not part of the loss
  EXPECT_EQ(ready_order(tape, multiply(tape, Var(number(5)), parameter(1))), "ba");
  EXPECT_EQ(value(parameter(0).gradient()), 0);
}

TEST_F(TapeTest, AFrozenParameterIsAnnouncedWithAZeroGradient) {
  // All ranks make the same collectives, frozen or not: the gradient that is announced must be one that ranks
  // may add up.
  build(2);
  parameter(0).set_trainable(false);
  Tape tape(backend());
  EXPECT_EQ(ready_order(tape, multiply(tape, multiply(tape, Var(number(5)), parameter(0)), parameter(1))),
            "ba");
  EXPECT_EQ(value(parameter(0).gradient()), 0);
}

// Promise 5: recompute gives the same gradients and the same order, and keeps nothing of what the block
// computes.

class RecomputeTest : public TapeTest {
 protected:
  /// x · a · b through a block, then · c; the block's own steps are counted in `runs`.
  Var network(Tape& tape, const Var& x, bool recompute, int& runs) {
    const Tape::Block block = [this, &runs](Tape& inner, const Var& in) {
      ++runs;
      return multiply(inner, multiply(inner, in, parameter(0)), parameter(1));
    };
    const Var middle = recompute ? tape.recompute(block, x) : block(tape, x);
    return multiply(tape, middle, parameter(2));
  }
};

TEST_F(RecomputeTest, GivesTheSameGradientsInTheSameOrder) {
  build(3);
  std::vector<std::vector<double>> gradients;
  for (const bool recompute : {false, true}) {
    parameters().begin_gradients();
    Tape tape(backend());
    const Var x = tape.leaf(number(5));
    int runs = 0;
    const Var y = network(tape, x, recompute, runs);
    EXPECT_EQ(value(y.value()), 5 * 2 * 3 * 4);
    EXPECT_EQ(ready_order(tape, y), "cba");
    EXPECT_EQ(runs, recompute ? 2 : 1);
    gradients.push_back({value(tape.gradient(x)), value(parameter(0).gradient()),
                         value(parameter(1).gradient()), value(parameter(2).gradient())});
  }
  EXPECT_EQ(gradients[0], (std::vector<double>{24, 60, 40, 30}));
  EXPECT_EQ(gradients[1], gradients[0]);
}

TEST_F(RecomputeTest, CountsUsesOfAParameterThatIsAlsoUsedOutside) {
  build(2);
  Tape tape(backend());
  const Var x = tape.leaf(number(5));
  const Var first = multiply(tape, x, parameter(0));
  const Var second =
      tape.recompute([this](Tape& inner, const Var& in) { return multiply(inner, in, parameter(0)); }, first);
  EXPECT_EQ(ready_order(tape, multiply(tape, second, parameter(1))), "ba");
  EXPECT_EQ(value(parameter(0).gradient()), 2 * 2 * 5 * 3);  // d(5·a²·b)/da
}

TEST_F(RecomputeTest, WorksOnAConstantInputWhenTheBlockHasParameters) {
  build(1);
  Tape tape(backend());
  const Var y = tape.recompute(
      [this](Tape& inner, const Var& in) { return multiply(inner, in, parameter(0)); }, Var(number(5)));
  EXPECT_EQ(ready_order(tape, y), "a");
  EXPECT_EQ(value(parameter(0).gradient()), 5);
}

TEST_F(RecomputeTest, BlocksNestAndFollowOneAnother) {
  build(3);
  const auto once = [this](std::size_t i) -> Tape::Block {
    return [this, i](Tape& inner, const Var& in) { return multiply(inner, in, parameter(i)); };
  };
  Tape tape(backend());
  const Var x = tape.leaf(number(5));
  const Var y = tape.recompute(
      [&](Tape& inner, const Var& in) { return inner.recompute(once(1), inner.recompute(once(0), in)); }, x);
  EXPECT_EQ(ready_order(tape, tape.recompute(once(2), y)), "cba");
  EXPECT_EQ(value(tape.gradient(x)), 24);
  EXPECT_EQ(value(parameter(0).gradient()), 60);
}

TEST_F(RecomputeTest, KeepsTheBlocksInputAndOutputAlone) {
  build(0);
  constexpr std::int64_t kElements = 1 << 16;
  const auto live_after = [&](bool recompute) {
    Tape tape(backend());
    const Var x = tape.leaf(Tensor(memory(), {kElements}, DType::f64));
    const Tape::Block block = [&](Tape& inner, const Var& in) {
      Var y = in;
      for (int i = 0; i < 6; ++i) {
        const Tensor next = inner.empty({kElements}, DType::f64);
        y = inner.record("keep", {y}, next, [y](const Tensor& dy, Gradients& into) { into.give(y, dy); });
      }
      return y;
    };
    const std::size_t before = memory().statistics().in_use;
    const Var y = recompute ? tape.recompute(block, x) : block(tape, x);
    return (memory().statistics().in_use - before) / (kElements * sizeof(double));
  };
  EXPECT_EQ(live_after(false), 6U);
  EXPECT_EQ(live_after(true), 1U);
}

}  // namespace
}  // namespace bireme::test
