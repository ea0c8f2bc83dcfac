#include "tests/support/golden.h"

namespace bireme::test {

std::filesystem::path golden_folder() { return std::filesystem::path(BIREME_TEST_FOLDER) / "golden"; }

Golden::Golden(const std::string& relative_path)
    : memory_(make_host_memory()), reader_(golden_folder() / relative_path) {}

std::vector<double> Golden::numbers(const std::string& path) const {
  const Tensor values = tensor(path);
  std::vector<double> list;
  for (std::int64_t i = 0; i < values.elements(); ++i)
    list.push_back(values.dtype() == DType::f64   ? values.data<double>()[i]
                   : values.dtype() == DType::f32 ? double{values.data<float>()[i]}
                                                  : double(values.data<std::int32_t>()[i]));
  return list;
}

}  // namespace bireme::test
