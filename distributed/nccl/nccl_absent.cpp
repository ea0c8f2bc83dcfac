#include "distributed/nccl/nccl_communicator.h"

namespace bireme {

std::string nccl_version() { return {}; }

std::unique_ptr<Communicator> make_nccl(Communicator&, Memory&) { return nullptr; }

}  // namespace bireme
