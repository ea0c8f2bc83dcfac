#pragma once

namespace cuda_on_cpu {

/// While one exists, this thread cannot touch the tensors of the host: what a kernel does on a GPU. Other
/// threads can. Nothing is closed where the CPU has no memory protection keys, or AddressSanitizer is at
/// work.
class ClosedHost {
 public:
  ClosedHost();
  ~ClosedHost();
  ClosedHost(const ClosedHost&) = delete;
  ClosedHost& operator=(const ClosedHost&) = delete;
};

/// Whether ClosedHost does anything here.
bool closes_host();

}  // namespace cuda_on_cpu
