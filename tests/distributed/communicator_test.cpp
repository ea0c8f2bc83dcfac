#include "distributed/communicator.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/base/error.h"
#include "tests/support/ranks.h"

namespace bireme {
namespace {

using test::run_on_ranks;

constexpr int kRankCounts[] = {1, 2, 3, 4};
// Nothing, fewer elements than ranks, odd sizes around a slot (256 KiB, 65536 fp32), and more pieces than
// slots.
constexpr std::int64_t kSizes[] = {0, 1, 3, 1001, 65535, 65537, 300007};

/// Values without a pattern, of either sign and several magnitudes, so that an order of summation leaves a
/// trace.
double value_of(int rank, std::int64_t i) {
  return std::sin(static_cast<double>(i) * 0.7 + rank * 1.3) *
         std::pow(10.0, static_cast<double>((i + rank) % 5) - 2);
}

template <class T>
T as(double x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

template <class T>
double as_double(T x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_float(x);
  } else {
    return static_cast<double>(x);
  }
}

template <class T>
Tensor values_of_rank(Memory& memory, int rank, std::int64_t count) {
  const Tensor tensor(memory, {count}, TypeOf<T>::value);
  for (std::int64_t i = 0; i < count; ++i)
    tensor.data<T>()[i] = as<T>(value_of(rank, i) * (std::is_integral_v<T> ? 1000 : 1));
  return tensor;
}

/// Sum over ranks in fp64 of what the ranks hold, and the sum of magnitudes, to which rounding errors are
/// relative.
template <class T>
std::pair<double, double> exact_sum(int ranks, std::int64_t i) {
  double sum = 0, magnitude = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const double x = as_double(as<T>(value_of(rank, i) * (std::is_integral_v<T> ? 1000 : 1)));
    sum += x;
    magnitude += std::abs(x);
  }
  return {sum, magnitude};
}

template <class T>
class AllReduce : public testing::Test {
 public:
  // At most three additions, each rounded to half a unit in the last place; bf16 is rounded once more, at the
  // end.
  static constexpr double kTolerance = std::is_integral_v<T>       ? 0
                                       : std::is_same_v<T, double> ? 4e-16
                                       : std::is_same_v<T, float>  ? 2e-7
                                                                   : 4e-3;
};
using Types = testing::Types<float, double, bf16, std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(AllReduce, Types);

TYPED_TEST(AllReduce, SumsOddSizesOnEveryNumberOfRanks) {
  for (const int ranks : kRankCounts) {
    run_on_ranks(ranks, [&](Communicator& world) {
      const auto memory = make_host_memory();
      for (const std::int64_t size : kSizes) {
        const Tensor tensor = values_of_rank<TypeParam>(*memory, world.rank(), size);
        world.all_reduce(tensor, Reduce::sum).wait();
        double worst = 0;
        for (std::int64_t i = 0; i < size; ++i) {
          const auto [sum, magnitude] = exact_sum<TypeParam>(ranks, i);
          worst = std::max(worst, std::abs(as_double(tensor.data<TypeParam>()[i]) - sum) / magnitude);
        }
        EXPECT_LE(worst, TestFixture::kTolerance) << size << " elements";
      }
    });
  }
}

TEST(Communicator, SumsHaveTheSameBitsOnAllRanksAndInEveryRepeat) {
  constexpr int kRanks = 4;
  constexpr std::int64_t kSize = 300007;
  std::vector<std::vector<float>> results(kRanks * 3);
  run_on_ranks(kRanks, [&](Communicator& world) {
    const auto memory = make_host_memory();
    for (int repeat = 0; repeat < 3; ++repeat) {
      const Tensor tensor = values_of_rank<float>(*memory, world.rank(), kSize);
      world.all_reduce(tensor, Reduce::sum).wait();
      const auto values = tensor.values<float>();
      results[static_cast<std::size_t>(repeat) * kRanks + static_cast<std::size_t>(world.rank())].assign(
          values.begin(), values.end());
    }
  });
  // The promised order: ((rank 0 + rank 1) + rank 2) + rank 3.
  std::vector<float> expected(kSize);
  for (std::int64_t i = 0; i < kSize; ++i) {
    float sum = static_cast<float>(value_of(0, i));
    for (int rank = 1; rank < kRanks; ++rank) sum += static_cast<float>(value_of(rank, i));
    expected[static_cast<std::size_t>(i)] = sum;
  }
  for (const auto& result : results) {
    ASSERT_EQ(result.size(), expected.size());
    EXPECT_EQ(result, expected);
  }
}

TEST(Communicator, TakesTheLargestAndTheSmallest) {
  run_on_ranks(3, [](Communicator& world) {
    EXPECT_EQ(world.all_reduce_value(-world.rank(), Reduce::max), 0);
    EXPECT_EQ(world.all_reduce_value(-world.rank(), Reduce::min), -2);
    EXPECT_EQ(world.all_reduce_value(world.rank(), Reduce::sum), 3);
  });
}

TEST(Communicator, ScatteredThenGatheredSharesAreTheAllReduce) {
  for (const int ranks : kRankCounts) {
    run_on_ranks(ranks, [&](Communicator& world) {
      const auto memory = make_host_memory();
      for (const std::int64_t share :
           {std::int64_t{0}, std::int64_t{1}, std::int64_t{5}, std::int64_t{100003}}) {
        const Tensor whole = values_of_rank<float>(*memory, world.rank(), share * ranks);
        const Tensor in_place = clone(*memory, whole), expected = clone(*memory, whole);
        world.all_reduce(expected, Reduce::sum).wait();

        const Tensor own(*memory, {share}, DType::f32), gathered(*memory, {share * ranks}, DType::f32);
        world.reduce_scatter(whole, own, Reduce::sum).wait();
        world.all_gather(own, gathered).wait();
        EXPECT_EQ(std::memcmp(gathered.raw(), expected.raw(), expected.bytes()), 0) << share;

        const Tensor slice = in_place.slice(world.rank() * share, (world.rank() + 1) * share);
        world.reduce_scatter(in_place, slice, Reduce::sum).wait();
        world.all_gather(slice, in_place).wait();
        EXPECT_EQ(std::memcmp(in_place.raw(), expected.raw(), expected.bytes()), 0) << share << " in place";
      }
    });
  }
}

TEST(Communicator, BroadcastsFromEveryRoot) {
  run_on_ranks(3, [](Communicator& world) {
    const auto memory = make_host_memory();
    for (int root = 0; root < 3; ++root) {
      const Tensor tensor = values_of_rank<double>(*memory, world.rank(), 50001);
      const Tensor expected = values_of_rank<double>(*memory, root, 50001);
      world.broadcast(tensor, root).wait();
      EXPECT_EQ(std::memcmp(tensor.raw(), expected.raw(), expected.bytes()), 0);
    }
  });
}

TEST(Communicator, ExchangesTexts) {
  run_on_ranks(3, [](Communicator& world) {
    const std::string own(static_cast<std::size_t>(world.rank() * 3), static_cast<char>('a' + world.rank()));
    EXPECT_EQ(world.gather_text(own), (std::vector<std::string>{"", "bbb", "cccccc"}));
    EXPECT_EQ(world.broadcast_text(own, 2), "cccccc");
    EXPECT_EQ(world.broadcast_text(own, 0), "");
  });
}

TEST(Communicator, RunsManyCollectivesInFlightInOrder) {
  run_on_ranks(3, [](Communicator& world) {
    const auto memory = make_host_memory();
    // Each reads what the one before it wrote, so any other order gives other numbers: x -> 3 x, then rank
    // 1's, ….
    const Tensor tensor(*memory, {40001}, DType::i64);
    for (std::int64_t& x : tensor.values<std::int64_t>()) x = world.rank() + 1;
    std::vector<Work> works;
    works.push_back(world.all_reduce(tensor, Reduce::sum));  // 6
    for (int i = 0; i < 10; ++i) works.push_back(world.all_reduce(tensor, Reduce::sum));
    works.push_back(world.all_reduce(tensor, Reduce::max));
    for (std::size_t i = works.size(); i-- > 0;) works[i].wait();  // in any order
    for (const std::int64_t x : tensor.values<std::int64_t>()) ASSERT_EQ(x, 6 * 59049);
  });
}

TEST(Communicator, NamesBothOperationsWhenRanksDisagree) {
  run_on_ranks(2, [](Communicator& world) {
    const auto memory = make_host_memory();
    const Tensor tensor(*memory, {world.rank() == 0 ? 256 : 1}, DType::f32);
    fill(tensor, 1);
    try {
      world.all_reduce(tensor, Reduce::sum).wait();
      ADD_FAILURE() << "sizes differ, and nobody noticed";
    } catch (const Error& error) {
      EXPECT_NE(error.problem().find("all_reduce of 1.0 KiB (fp32, sum)"), std::string::npos) << error.what();
      EXPECT_NE(error.problem().find("all_reduce of 4 bytes (fp32, sum)"), std::string::npos) << error.what();
    }
  });
}

TEST(Communicator, RefusesSharesThatDoNotFit) {
  run_on_ranks(2, [](Communicator& world) {
    const auto memory = make_host_memory();
    const Tensor whole(*memory, {5}, DType::f32), share(*memory, {2}, DType::f32);
    EXPECT_THROW(world.reduce_scatter(whole, share, Reduce::sum).wait(), Error);
  });
}

TEST(Communicator, SplitsAreOrderedByKey) {
  run_on_ranks(4, [](Communicator& world) {
    const auto half = world.split(world.rank() % 2, -world.rank());
    EXPECT_EQ(half->size(), 2);
    EXPECT_EQ(half->rank(), world.rank() < 2 ? 1 : 0);
    EXPECT_EQ(half->all_reduce_value(world.rank(), Reduce::sum), world.rank() % 2 == 0 ? 2 : 4);
    const auto alone = world.split(world.rank(), 0);
    EXPECT_EQ(alone->size(), 1);
  });
}

TEST(Communicator, RanksThatLeaveReleaseThoseThatWait) {
  run_on_ranks(2, [](Communicator& world) {
    if (world.rank() == 1) return;
    try {
      world.barrier();
      ADD_FAILURE() << "rank 1 has left";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::rank_lost);
      EXPECT_NE(error.problem().find("rank 1 left"), std::string::npos) << error.what();
    }
    EXPECT_THROW(world.barrier(), Error);  // of no more use
  });
}

TEST(Communicator, WithoutALauncherIsASingleProcess) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "SLURM_STEP_ID"}) unsetenv(name);
  const auto world = connect();
  EXPECT_EQ(world->size(), 1);
  EXPECT_EQ(world->placement().local_size, 1);
}

TEST(Communicator, SaysHowToStartTasksThatDoNotKnowOfEachOther) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) unsetenv(name);
  setenv("SLURM_STEP_ID", "0", 1);
  setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  try {
    const auto world = connect();
    ADD_FAILURE() << "four single processes would train";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_EQ(error.remedy(), "start with srun --mpi=pmix");
  }
  unsetenv("SLURM_STEP_ID");
  unsetenv("SLURM_STEP_NUM_TASKS");
}

class NamedPending final : public Pending {
 public:
  void wait() override {}
  std::string name() const override { return "all_reduce of a test"; }
};

TEST(CommunicatorDeathTest, WorkThatNobodyWaitedForIsReported) {
  const auto drop = [] {
    { const Work work(std::make_shared<NamedPending>()); }
    std::fflush(stdout);
  };
  // The log goes to standard output, which a death test does not see.
  const auto drop_and_end = [&] {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    drop();
    std::abort();
  };
  EXPECT_DEATH(drop_and_end(), "nobody waited for all_reduce of a test");
}

}  // namespace
}  // namespace bireme
