// Run under mpirun: what the communicator promises, over MPI. The first argument, if any, is a number of
// ranks to take for a host, so that the way between hosts is tested on one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/base/error.h"
#include "distributed/communicator.h"
#include "distributed/failure.h"
#include "distributed/mesh.h"
#include "distributed/placement.h"

namespace bireme {
namespace {

Communicator* world = nullptr;

double value_of(int rank, std::int64_t i) { return std::sin(static_cast<double>(i) * 0.7 + rank * 1.3); }

Tensor values_of_rank(Memory& memory, int rank, std::int64_t count) {
  const Tensor tensor(memory, {count}, DType::f32);
  for (std::int64_t i = 0; i < count; ++i) tensor.data<float>()[i] = static_cast<float>(value_of(rank, i));
  return tensor;
}

TEST(Mpi, SumsOddSizesToTheSameBitsEverywhere) {
  const auto memory = make_host_memory();
  for (const std::int64_t size : {1, 2, 3, 1001, 700001}) {  // the last over several pieces of 1 MiB
    const Tensor first = values_of_rank(*memory, world->rank(), size), second = clone(*memory, first);
    world->all_reduce(first, Reduce::sum).wait();
    world->all_reduce(second, Reduce::sum).wait();
    EXPECT_EQ(std::memcmp(first.raw(), second.raw(), first.bytes()), 0);
    double worst = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      double sum = 0;
      for (int rank = 0; rank < world->size(); ++rank) sum += static_cast<float>(value_of(rank, i));
      worst = std::max(worst, std::abs(first.data<float>()[i] - sum));
    }
    EXPECT_LE(worst, world->size() * world->size() * 6e-8);  // size - 1 roundings of sums below size
    const Tensor of_root = clone(*memory, first);
    world->broadcast(of_root, world->size() - 1).wait();
    EXPECT_EQ(std::memcmp(first.raw(), of_root.raw(), first.bytes()), 0);
  }
}

TEST(Mpi, ScatteredThenGatheredSharesAreTheSum) {
  const auto memory = make_host_memory();
  for (const std::int64_t share : {1, 77, 300001}) {
    const Tensor whole = values_of_rank(*memory, world->rank(), share * world->size());
    const Tensor slice = whole.slice(world->rank() * share, (world->rank() + 1) * share),
                 expected = clone(*memory, whole);
    world->all_reduce(expected, Reduce::sum).wait();
    world->reduce_scatter(whole, slice, Reduce::sum).wait();
    world->all_gather(slice, whole).wait();
    double worst = 0;
    for (std::int64_t i = 0; i < whole.elements(); ++i) {
      worst =
          std::max(worst, static_cast<double>(std::abs(whole.data<float>()[i] - expected.data<float>()[i])));
    }
    EXPECT_LE(worst, world->size() * world->size() * 6e-8);
  }
}

TEST(Mpi, MeshesExchangeAlongTheirAxes) {
  if (world->size() % 2 != 0) {
    EXPECT_THROW(Mesh(*world, 2), Error);
    return;
  }
  const Mesh mesh(*world, 2);
  EXPECT_EQ(mesh.tensor().all_reduce_value(world->rank(), Reduce::sum), world->rank() / 2 * 4 + 1);
  EXPECT_EQ(mesh.data().gather_text(std::to_string(world->rank())).back(),
            std::to_string(world->size() - 2 + world->rank() % 2));
}

TEST(Mpi, CommunicatorsWorkBesideEachOther) {
  const auto memory = make_host_memory();
  const auto other = world->split(0, world->rank());
  const Tensor a = values_of_rank(*memory, world->rank(), 200001), b = clone(*memory, a);
  Work first = world->all_reduce(a, Reduce::sum), second = other->all_reduce(b, Reduce::sum);
  second.wait();
  first.wait();
  EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0);
}

TEST(Mpi, AgreesOnErrorsAndPlacement) {
  EXPECT_FALSE(agree_on_error(*world, std::nullopt));
  const auto agreed =
      agree_on_error(*world, Error(ErrorKind::usage, "no", std::to_string(world->rank()), ""));
  EXPECT_EQ(agreed->error.where(), "0");
  const Placement placement = world->placement();
  EXPECT_LT(placement.local_rank, placement.local_size);
  EXPECT_LE(placement.local_size, world->size());
  EXPECT_GE(default_threads(*world), 1);
}

TEST(Mpi, MeasuresItselfAgainstTheLibrary) {
  const AllReduceRate rate = measure_all_reduce(*world, 1 << 16);
  EXPECT_GT(rate.bytes_per_second, 0);
  EXPECT_GT(rate.library_bytes_per_second, 0);
}

}  // namespace
}  // namespace bireme

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // `abort` as the second argument: one rank fails, and the code of its error must become that of mpirun.
  const auto communicator = bireme::connect({.ranks_per_host = argc > 1 ? std::atoi(argv[1]) : 0});
  bireme::world = communicator.get();
  if (argc > 2 && std::string(argv[2]) == "abort") {
    if (communicator->rank() == 1) {
      bireme::abort_all(communicator.get(), bireme::Error(bireme::ErrorKind::data, "torn", "", ""));
    }
    communicator->barrier();
  }
  return RUN_ALL_TESTS();
}
