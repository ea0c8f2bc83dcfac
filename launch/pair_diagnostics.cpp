#include "launch/pair_diagnostics.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/io/hdf5.h"

namespace bireme {

namespace {

constexpr const char* kColumns[] = {"chosen_average", "rejected_average", "chosen_tokens", "rejected_tokens",
                                    "delta"};
constexpr std::size_t kMostPairs = 2048;

template <class T>
Tensor tensor_of(const std::vector<T>& values) {
  Tensor tensor(*make_host_memory(), {std::ssize(values)}, TypeOf<T>::value);
  std::ranges::copy(values, tensor.data<T>());
  return tensor;
}

}  // namespace

void PairDiagnostics::read(const std::filesystem::path& file, std::int64_t before) {
  if (!std::filesystem::exists(file)) return;
  const Hdf5Reader reader(file);
  const std::shared_ptr<Memory> memory = make_host_memory();
  const Tensor steps = reader.read("step", *memory);
  for (std::size_t i = 0; i < steps.values<std::int64_t>().size(); ++i)
    if (steps.values<std::int64_t>()[i] < before) steps_.push_back(steps.values<std::int64_t>()[i]);
  for (std::size_t c = 0; c < std::size(kColumns); ++c) {
    const Tensor values = reader.read(kColumns[c], *memory);
    // Steps never fall: what is kept comes first.
    columns_[c].assign(values.data<double>(), values.data<double>() + steps_.size());
  }
}

void PairDiagnostics::write(const std::filesystem::path& run, std::int64_t step,
                            std::span<const Answer> pairs, const std::vector<double>& delta) {
  const std::filesystem::path file = run / "diagnostics.h5", part = run / "diagnostics.h5.part";
  if (!is_read_) read(file, step);
  is_read_ = true;
  for (std::size_t i = 0; i < std::min(kMostPairs, pairs.size() / 2); ++i) {
    const Answer &w = pairs[2 * i], &l = pairs[2 * i + 1];
    steps_.push_back(step);
    const std::array<double, 5> row{w.average(), l.average(), w.tokens, l.tokens, delta[i]};
    for (std::size_t c = 0; c < row.size(); ++c) columns_[c].push_back(row[c]);
  }
  Hdf5Writer writer(part);
  writer.write("step", tensor_of(steps_));
  for (std::size_t c = 0; c < std::size(kColumns); ++c) writer.write(kColumns[c], tensor_of(columns_[c]));
  writer.close();
  std::filesystem::rename(part, file);
}

}  // namespace bireme
