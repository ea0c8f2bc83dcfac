#include "models/dino_network.h"

#include <utility>

namespace bireme {

namespace {

DinoHeadOptions head_options(const DinoNetworkOptions& options) {
  DinoHeadOptions head = options.head;
  head.in_dim = options.backbone.embed_dim;
  return head;
}

}  // namespace

DinoNetwork::DinoNetwork(const DinoNetworkOptions& options, Communicator& tensor, SumOverRanks sum)
    : backbone_(options.backbone, parameters_, "backbone.", tensor),
      head_(head_options(options), parameters_, "head.", tensor, std::move(sum)) {}

void DinoNetwork::build(Memory& memory, const ParameterSet::BuildOptions& options) {
  parameters_.build(memory, options);
  head_.build(memory);
}

Var DinoNetwork::forward(Tape& tape, std::span<const ImageGroup> groups, const VisionForward& how) {
  std::vector<Var> images;
  for (const ImageGroup& group : groups) images.emplace_back(group.pixels);
  return head_.logits(tape, backbone_.features(tape, images, how));
}

KeepBranch DinoNetwork::keep(DropPathKeys keys) const {
  return keyed_drop_path(std::move(keys), backbone_.options().drop_path, backbone_.options().depth);
}

double DinoNetwork::flops(std::span<const ImageGroup> groups) const {
  const DinoHeadOptions& head = head_.options();
  const double in = static_cast<double>(head.in_dim), hidden = static_cast<double>(head.hidden);
  const double bottleneck = static_cast<double>(head.bottleneck);
  double weights = bottleneck * static_cast<double>(head.out_dim);
  weights += head.layers == 1 ? in * bottleneck
                              : in * hidden + (head.layers - 2) * hidden * hidden + hidden * bottleneck;
  double total = 0;
  for (const ImageGroup& group : groups) {
    const Shape& shape = group.pixels.shape();
    total += static_cast<double>(shape[0]) * (backbone_.flops(shape[2], shape[3]) + 2 * weights);
  }
  return total;
}

}  // namespace bireme
