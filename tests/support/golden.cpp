#include "tests/support/golden.h"

namespace bireme::test {

std::filesystem::path golden_folder() { return std::filesystem::path(BIREME_TEST_FOLDER) / "golden"; }

Golden::Golden(const std::string& relative_path)
    : memory_(make_host_memory()), reader_(golden_folder() / relative_path) {}

}  // namespace bireme::test
