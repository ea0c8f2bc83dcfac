#include "launch/batch_ahead.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace bireme {
namespace {

Batch numbered(std::int64_t number) {
  TokenBatch batch;
  batch.records = {number};
  return batch;
}

std::int64_t number_of(const Batch& batch) { return std::get<TokenBatch>(batch).records.front(); }

/// Batches 0, 1, 2 and no more; those that were brought count from 100.
struct ThreeBatches {
  std::int64_t made = 0;
  Batch next() {
    if (made == 3) throw std::runtime_error("no batch 3");
    return numbered(made++);
  }
  static Batch bring(const Batch& batch) { return numbered(100 + number_of(batch)); }
  BatchAhead ahead() {
    return {[this] { return next(); }, [](const Batch& batch) { return bring(batch); }};
  }
};

TEST(BatchAhead, KeepsTheOrderWhetherBroughtOrNot) {
  ThreeBatches three;
  BatchAhead batches = three.ahead();
  EXPECT_EQ(number_of(batches.next()), 0);
  batches.bring();
  EXPECT_EQ(three.made, 2);
  EXPECT_EQ(number_of(batches.next()), 101);
  EXPECT_EQ(number_of(batches.next()), 2);
}

TEST(BatchAhead, WhatFailsAheadIsReportedOnlyWhenItIsNeeded) {
  ThreeBatches three{.made = 3};
  BatchAhead batches = three.ahead();
  EXPECT_NO_THROW(batches.bring());
  EXPECT_THROW(batches.next(), std::runtime_error);
}

TEST(BatchAhead, FailureToBringEndsTheStep) {
  BatchAhead batches([] { return numbered(0); }, [](const Batch&) -> Batch { throw std::bad_alloc(); });
  EXPECT_THROW(batches.bring(), std::bad_alloc);
}

}  // namespace
}  // namespace bireme
