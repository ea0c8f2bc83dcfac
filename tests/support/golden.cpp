#include "tests/support/golden.h"

#include <filesystem>

namespace bireme::test {

Golden::Golden(const std::string& relative_path)
    : memory_(make_host_memory()),
      reader_(std::filesystem::path(BIREME_TEST_FOLDER) / "golden" / relative_path) {}

}  // namespace bireme::test
