#include "distributed/shares.h"

namespace bireme {

Share share_of(std::int64_t elements, const Communicator& axis) {
  const std::int64_t share = elements / axis.size(), begin = share * axis.rank();
  return {begin, axis.rank() + 1 == axis.size() ? elements : begin + share};
}

void gather_shares(const Tensor& flat, Communicator& axis) {
  const std::int64_t elements = flat.elements(), share = elements / axis.size(), even = share * axis.size();
  if (share > 0) axis.all_gather(flat.view(share * axis.rank(), {share}), flat.view(0, {even})).wait();
  if (even < elements) axis.broadcast(flat.view(even, {elements - even}), axis.size() - 1).wait();
}

}  // namespace bireme
