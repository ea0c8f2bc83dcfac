#include "models/xlstm_block.h"

#include <algorithm>
#include <cmath>

#include "models/mlstm_block.h"
#include "models/slstm_block.h"
#include "models/xlstm_large_block.h"

namespace bireme {

Initializer small_law(std::int64_t channels) {
  return {.law = Initializer::Law::normal, .value = std::sqrt(2 / (5 * static_cast<double>(channels)))};
}

Initializer wang_law(std::int64_t channels, int layers) {
  return {.law = Initializer::Law::normal, .value = 2 / (layers * std::sqrt(static_cast<double>(channels)))};
}

Initializer ramp_law(double first, double last, std::int64_t count) {
  Initializer law{.law = Initializer::Law::given, .value = 0, .values = {}};
  for (std::int64_t i = 0; i < count; ++i)
    law.values.push_back(count == 1 ? first
                                    : first + (last - first) * static_cast<double>(i) /
                                                  static_cast<double>(count - 1));
  return law;
}

Tensor convolution_memory(Memory& memory, const Tensor& x, const Tensor& before, std::int64_t sequences) {
  const std::int64_t kept = before.shape()[1], channels = x.channels(), time = x.rows() / sequences;
  const Tensor after(memory, before.shape(), before.dtype());
  const Tensor old = before.reshape({sequences * kept, channels}),
               now = after.reshape({sequences * kept, channels});
  const std::int64_t fresh = std::min(kept, time), stays = kept - fresh;
  for (std::int64_t b = 0; b < sequences; ++b) {
    if (stays > 0)
      copy(old.slice((b + 1) * kept - stays, (b + 1) * kept), now.slice(b * kept, b * kept + stays));
    copy(x.slice((b + 1) * time - fresh, (b + 1) * time), now.slice(b * kept + stays, (b + 1) * kept));
  }
  return after;
}

std::unique_ptr<XlstmBlock> make_xlstm_block(ParameterSet& parameters, const std::string& prefix,
                                             const XlstmOptions& options, int index, Communicator& tensor) {
  if (options.architecture == XlstmArchitecture::large)
    return std::make_unique<XlstmLargeBlock>(parameters, prefix, options, tensor);
  if (options.is_slstm(index))
    return std::make_unique<SlstmBlock>(parameters, prefix, options, index, tensor);
  return std::make_unique<MlstmBlock>(parameters, prefix, options, tensor);
}

}  // namespace bireme
