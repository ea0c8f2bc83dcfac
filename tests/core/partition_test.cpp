#include "core/autograd/partition.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/base/error.h"

namespace bireme {
namespace {

/// Whole tensors hold their own element numbers, so a part shows where each of its elements came from.
Tensor numbered(Memory& memory, const Shape& shape) {
  Tensor tensor(memory, shape, DType::i32);
  std::iota(tensor.values<std::int32_t>().begin(), tensor.values<std::int32_t>().end(), 0);
  return tensor;
}

TEST(Partition, PartsAreWhereGlobalIndexSaysAndMakeUpTheWhole) {
  const auto memory = make_host_memory();
  const Tensor whole = numbered(*memory, {24, 12, 5});
  for (const int axis : {-1, 0, 1}) {
    for (const int blocks : {1, 3}) {
      for (const int parts : {1, 2, 4}) {
        SCOPED_TRACE(testing::Message() << "axis " << axis << ", blocks " << blocks << ", parts " << parts);
        const Tensor rebuilt(*memory, whole.shape(), DType::i32);
        fill(rebuilt, -1);
        for (int part = 0; part < parts; ++part) {
          const Partition partition{.axis = axis, .blocks = blocks, .part = part, .parts = parts};
          const Tensor local(*memory, local_shape(whole.shape(), partition), DType::i32);
          ASSERT_EQ(local.elements() * (axis < 0 ? 1 : parts), whole.elements());
          copy_part(whole, local, partition);
          for (std::int64_t i = 0; i < local.elements(); ++i)
            ASSERT_EQ(local.values<std::int32_t>()[static_cast<std::size_t>(i)],
                      global_index(i, whole.shape(), partition));
          place_part(local, rebuilt, partition);
        }
        for (std::int64_t i = 0; i < whole.elements(); ++i) ASSERT_EQ(rebuilt.data<std::int32_t>()[i], i);
      }
    }
  }
}

TEST(Partition, FusedBlocksAreSplitOneByOne) {
  // q, k, v of two rows each: part 1 of 2 holds the second row of each, not the last three rows.
  const auto memory = make_host_memory();
  const Tensor whole = numbered(*memory, {6, 1});
  const Partition partition{.axis = 0, .blocks = 3, .part = 1, .parts = 2};
  const Tensor local(*memory, local_shape(whole.shape(), partition), DType::i32);
  copy_part(whole, local, partition);
  const auto rows = local.values<std::int32_t>();
  EXPECT_EQ(std::vector<std::int32_t>(rows.begin(), rows.end()), (std::vector<std::int32_t>{1, 3, 5}));
}

TEST(Partition, UnevenPartsAndBlocksOfUnequalSizesMakeUpTheWhole) {
  const auto memory = make_host_memory();
  // 11 rows over 3 parts: 4, 4, 3. 16 rows as blocks of 8, 4 and 4: 4 + 2 + 2 rows for each of two parts.
  const Tensor uneven = numbered(*memory, {11, 3}), fused = numbered(*memory, {16, 3});
  for (const auto& [whole, pattern] : {std::pair{uneven, Partition{.axis = 0, .parts = 3, .uneven = true}},
                                       {fused, Partition{.axis = 0, .blocks = {2, 1, 1}, .parts = 2}}}) {
    const Tensor rebuilt(*memory, whole.shape(), DType::i32);
    fill(rebuilt, -1);
    for (int part = 0; part < pattern.parts; ++part) {
      Partition partition = pattern;
      partition.part = part;
      const Tensor local(*memory, local_shape(whole.shape(), partition), DType::i32);
      ASSERT_EQ(local.shape().front(), pattern.uneven ? (part < 2 ? 4 : 3) : 8);
      copy_part(whole, local, partition);
      for (std::int64_t i = 0; i < local.elements(); ++i)
        ASSERT_EQ(local.data<std::int32_t>()[i], global_index(i, whole.shape(), partition));
      place_part(local, rebuilt, partition);
    }
    for (std::int64_t i = 0; i < whole.elements(); ++i) ASSERT_EQ(rebuilt.data<std::int32_t>()[i], i);
  }
  // Part 1 of the fused rows: the second half of each block.
  const Partition second{.axis = 0, .blocks = {2, 1, 1}, .part = 1, .parts = 2};
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < 8; ++i) rows.push_back(global_index(3 * i, {16, 3}, second) / 3);
  EXPECT_EQ(rows, (std::vector<std::int64_t>{4, 5, 6, 7, 10, 11, 14, 15}));
}

TEST(Partition, SecondAxisTakesColumns) {
  const auto memory = make_host_memory();
  const Tensor whole = numbered(*memory, {2, 4});
  const Partition partition{.axis = 1, .part = 1, .parts = 2};
  const Tensor local(*memory, local_shape(whole.shape(), partition), DType::i32);
  copy_part(whole, local, partition);
  const auto values = local.values<std::int32_t>();
  EXPECT_EQ(std::vector<std::int32_t>(values.begin(), values.end()), (std::vector<std::int32_t>{2, 3, 6, 7}));
}

TEST(Partition, AnAxisThatDoesNotDivideIsRefusedWithItsSize) {
  EXPECT_NO_THROW(local_shape({6}, {.axis = 0, .blocks = 3, .parts = 2}));
  try {
    local_shape({6, 8}, {.axis = 0, .blocks = 3, .parts = 4});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_NE(error.problem().find("dimension 0 of [6, 8]"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace bireme
