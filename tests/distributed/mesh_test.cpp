#include "distributed/mesh.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/ranks.h"

namespace bireme {
namespace {

TEST(Mesh, TensorIsTheInnermostAxis) {
  test::run_on_ranks(4, [](Communicator& world) {
    const Mesh mesh(world, 2);
    EXPECT_EQ(mesh.data().size(), 2);
    EXPECT_EQ(mesh.tensor().size(), 2);
    EXPECT_EQ(world.rank(), mesh.data().rank() * 2 + mesh.tensor().rank());
    // Ranks {0, 1} and {2, 3} share records; {0, 2} and {1, 3} share parts of the model.
    EXPECT_EQ(mesh.tensor().all_reduce_value(world.rank(), Reduce::sum), world.rank() < 2 ? 1 : 5);
    EXPECT_EQ(mesh.data().all_reduce_value(world.rank(), Reduce::sum), world.rank() % 2 == 0 ? 2 : 4);
  });
}

TEST(Mesh, AnAxisOfOneNeedsNoExchange) {
  test::run_on_ranks(3, [](Communicator& world) {
    const Mesh mesh(world, 1);
    EXPECT_EQ(mesh.data().size(), 3);
    EXPECT_EQ(mesh.tensor().size(), 1);
    EXPECT_EQ(mesh.tensor().all_reduce_value(world.rank(), Reduce::sum), world.rank());
  });
}

TEST(Mesh, ListsTheDegreesToChooseFrom) {
  test::run_on_ranks(4, [](Communicator& world) {
    for (const int degree : {0, 3, 8}) {
      try {
        const Mesh mesh(world, degree);
        ADD_FAILURE() << degree;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
        EXPECT_EQ(error.remedy(), "choose 1, 2 or 4 with --parallel.tensor");
      }
    }
  });
}

}  // namespace
}  // namespace bireme
