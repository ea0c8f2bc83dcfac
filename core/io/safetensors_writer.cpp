#include "core/io/safetensors_writer.h"

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/io/safetensors_header.h"

namespace bireme {

std::vector<SafetensorsDeclaration> SafetensorsWriter::layout(std::vector<SafetensorsDeclaration> tensors) {
  std::ranges::stable_sort(tensors, std::greater{},
                           [](const SafetensorsDeclaration& tensor) { return size_of(tensor.type); });
  return tensors;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<SafetensorsDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : order_(layout(std::move(tensors))), file_(path) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t position = 0;
  for (const SafetensorsDeclaration& tensor : order_) {
    assert(!header.contains(tensor.name));
    const std::int64_t end =
        position + tensor.shape.elements() * static_cast<std::int64_t>(size_of(tensor.type));
    header[tensor.name] = {{"dtype", stored_type_name(tensor.type)},
                           {"shape", std::vector<std::int64_t>(tensor.shape.begin(), tensor.shape.end())},
                           {"data_offsets", {position, end}}};
    position = end;
  }
  std::string text = header.is_null() ? "{}" : json_text(header);
  text.resize((text.size() + 7) / 8 * 8,
              ' ');  // so that data starts at a multiple of 8, as mapped readers want it
  const auto length = static_cast<std::uint64_t>(text.size());
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(text);
}

void SafetensorsWriter::write(const Tensor& tensor) {
  assert(next_ < order_.size() && tensor.shape() == order_[next_].shape &&
         tensor.dtype() == order_[next_].type);
  ++next_;
  const Tensor host = on_host(tensor);
  file_.write(std::span(host.raw(), host.bytes()));
}

FileRecord SafetensorsWriter::finish() {
  assert(next_ == order_.size());
  return file_.finish();
}

FileRecord write_safetensors(const std::filesystem::path& path,
                             const std::vector<std::pair<std::string, Tensor>>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsDeclaration> declarations;
  std::map<std::string_view, const Tensor*> by_name;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back({name, tensor.dtype(), tensor.shape()});
    by_name[name] = &tensor;
  }
  SafetensorsWriter writer(path, std::move(declarations), metadata);
  for (const SafetensorsDeclaration& tensor : writer.order()) writer.write(*by_name.at(tensor.name));
  return writer.finish();
}

}  // namespace bireme
