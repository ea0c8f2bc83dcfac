#include "core/base/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "core/autograd/tape.h"
#include "core/base/json.h"
#include "core/cpu/cpu_backend.h"
#include "tests/support/expect_error.h"

namespace bireme::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kNap = 0.005;
void nap(int times = 1) { std::this_thread::sleep_for(std::chrono::duration<double>(times * kNap)); }

/// Ops that take a known time at least: a sleep never ends early.
class ProfiledTape : public ::testing::Test {
 protected:
  Tensor number() const {
    const Tensor tensor(backend_->memory(), {1}, DType::f64);
    fill(tensor, 1);
    return tensor;
  }
  /// Takes `forward` naps, and `backward` of them on the way back.
  static Var sleeper(Tape& tape, const char* name, const Var& x, int forward, int backward) {
    nap(forward);
    const Tensor y = tape.empty({1}, DType::f64);
    fill(y, 1);
    return tape.record(name, {x}, y, [x, backward](const Tensor& dy, Gradients& into) {
      nap(backward);
      into.give(x, dy);
    });
  }
  const Profile::Entry& of(const std::string& name) const { return profile_.entries().at(name); }

  std::unique_ptr<Backend> backend_ = make_cpu_backend(make_host_memory());
  Profile profile_;
};

TEST_F(ProfiledTape, CountsAndTimesEachOperationInBothDirections) {
  Tape tape(*backend_, Tape::Mode::record, &profile_);
  const Var x = tape.leaf(number());
  const Var once = sleeper(tape, "quick", x, 1, 2);
  const Var twice = sleeper(tape, "slow", once, 4, 0);
  const Var y = sleeper(tape, "quick", twice, 1, 2);
  tape.backward(y);
  EXPECT_EQ(of("quick").calls, 2);
  EXPECT_EQ(of("slow").calls, 1);
  EXPECT_GE(of("quick").forward_seconds, 2 * kNap);
  EXPECT_GE(of("quick").backward_seconds, 4 * kNap);
  EXPECT_GE(of("slow").forward_seconds, 4 * kNap);
  EXPECT_LT(of("slow").backward_seconds, of("quick").backward_seconds);
}

TEST_F(ProfiledTape, InferenceIsTimedToo) {
  Tape tape(*backend_, Tape::Mode::inference, &profile_);
  (void)sleeper(tape, "teacher", Var(number()), 1, 0);
  EXPECT_EQ(of("teacher").calls, 1);
  EXPECT_GE(of("teacher").forward_seconds, kNap);
}

TEST_F(ProfiledTape, WhatPassesBetweenTapesBelongsToNoOperation) {
  const auto began = Clock::now();
  for (int i = 0; i < 2; ++i) {
    nap(4);  // a batch that comes late
    Tape tape(*backend_, Tape::Mode::record, &profile_);
    const Var y = sleeper(tape, "op", tape.leaf(number()), 1, 1);
    nap(4);
    tape.backward(y);
  }
  const double wall = std::chrono::duration<double>(Clock::now() - began).count();
  EXPECT_GE(of("op").seconds(), 4 * kNap);
  EXPECT_LE(of("op").seconds(), wall - 16 * kNap);
}

TEST_F(ProfiledTape, ARecomputedBlockIsNotCountedTwice) {
  const auto began = Clock::now();
  Tape tape(*backend_, Tape::Mode::record, &profile_);
  const Var y = tape.recompute([](Tape& inner, const Var& x) { return sleeper(inner, "inside", x, 2, 3); },
                               tape.leaf(number()));
  tape.backward(y);
  const double wall = std::chrono::duration<double>(Clock::now() - began).count();
  EXPECT_EQ(of("inside").calls, 2) << "on the way forward, and again on the way back";
  EXPECT_GE(of("inside").forward_seconds, 4 * kNap);
  EXPECT_GE(of("inside").backward_seconds, 3 * kNap);
  EXPECT_LE(of("inside").seconds() + of("recompute").seconds(), wall);
}

TEST_F(ProfiledTape, ReportsTheShareOfTheStepLongestFirst) {
  EXPECT_EQ(profile_.measure("update",
                             [] {
                               nap(2);
                               return 7;
                             }),
            7);
  Tape tape(*backend_, Tape::Mode::record, &profile_);
  tape.backward(sleeper(tape, "product", tape.leaf(number()), 3, 3));
  const double step = 4 * (of("update").seconds() + of("product").seconds());
  profile_.end_step(step / 2);
  profile_.end_step(step / 2);

  const auto report = parse_json(profile_.json());
  EXPECT_EQ(report["steps"], 2);
  EXPECT_DOUBLE_EQ(report["step_seconds"], step);
  EXPECT_NEAR(report["unaccounted_seconds"], 0.75 * step, 1e-9);
  ASSERT_EQ(report["operations"].size(), 2U);
  EXPECT_EQ(report["operations"][0]["name"], "product");
  EXPECT_EQ(report["operations"][1]["name"], "update");
  EXPECT_EQ(report["operations"][1]["calls"], 1);
  EXPECT_GE(report["operations"][1]["outside_seconds"], 2 * kNap);
  EXPECT_NEAR(report["operations"][0]["share"].get<double>() + report["operations"][1]["share"].get<double>(),
              0.25, 1e-9);

  const std::string table = profile_.table();
  EXPECT_TRUE(mentions(table, {"of 2 steps", "forward ms", "everything else", " 75.0 %", "100.0 %"}));
  EXPECT_LT(table.find("product"), table.find("update"));
}

TEST_F(ProfiledTape, WorkThatFailsIsCountedAndItsErrorGoesOn) {
  EXPECT_THROW(profile_.measure("loader", []() -> int { throw Error(ErrorKind::data, "torn", "", ""); }),
               Error);
  EXPECT_EQ(of("loader").calls, 1);
}

}  // namespace
}  // namespace bireme::test
