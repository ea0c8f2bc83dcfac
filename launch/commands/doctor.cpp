#include <spdlog/fmt/fmt.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/base/files.h"
#include "core/base/json.h"
#include "core/cpu/features.h"
#include "core/cuda/devices.h"
#include "distributed/mpi_library.h"
#include "distributed/nccl/nccl_communicator.h"
#include "launch/commands.h"
#include "launch/gnuplot.h"
#include "launch/machine.h"
#include "launch/options.h"
#include "launch/terminal.h"

namespace bireme {

namespace {

/// One line of the report: a part, whether it is used, and what was found, or why it is not used.
struct Finding {
  std::string part;
  bool is_used;
  std::string text;
  nlohmann::ordered_json details = nlohmann::json::object();
};

Finding cpu(const Machine& machine) {
  return {"CPU", true, machine.cpu_model, {{"model", machine.cpu_model}, {"cores", machine.cores_online}}};
}

Finding instructions(const Machine& machine) {
  const auto supported = cpu::supported_instruction_sets();
  const std::string used = supported.empty() ? "none" : cpu::to_string(supported.back());
  return {"vector instructions",
          !supported.empty(),
          fmt::format("kernels use {}; found {}", used, fmt::join(machine.instructions, " ")),
          {{"kernels", used}, {"found", machine.instructions}}};
}

Finding bf16(const Machine& machine) {
  return {"bf16 on the CPU", machine.has_fast_bf16,
          machine.has_fast_bf16 ? "matrix products run on the CPU's own bf16 instructions"
                                : "this CPU has neither AVX512-BF16 nor AMX: train in fp32 here"};
}

Finding threads(const Machine& machine) {
  std::string text = fmt::format("{} of {} cores may be used ({}); {} threads, from {}",
                                 machine.affinity.size(), machine.cores_online, core_ranges(machine.affinity),
                                 machine.threads, machine.threads_reason);
  // mpirun -n 1 of Open MPI 4 ties a process to one core: half a laptop, silently.
  const bool is_bound = std::ssize(machine.affinity) < machine.cores_online;
  if (is_bound && launched_as().launcher[0] != '\0')
    text += "; the launcher tied this rank to them: mpirun --bind-to none, or --map-by slot:PE=N, gives more";
  return {"cores and threads",
          true,
          text,
          {{"affinity", machine.affinity},
           {"threads", machine.threads},
           {"threads_from", machine.threads_reason}}};
}

Finding memory(const Machine& machine) {
  return {"memory",
          true,
          fmt::format("{}, {} of it free", readable_bytes(machine.memory_bytes),
                      readable_bytes(machine.memory_available_bytes)),
          {{"bytes", machine.memory_bytes}, {"available_bytes", machine.memory_available_bytes}}};
}

Finding mpi() {
  const std::string version = mpi_library_version();
  const LaunchedAs as = launched_as();
  const bool is_launched = as.launcher[0] != '\0';
  return {"MPI",
          true,
          is_launched
              ? fmt::format("{}; rank {} of {}, started by {}", version, as.rank, as.size, as.launcher)
              : fmt::format("{}; this is a single process (mpirun -n N bireme ... starts N ranks)", version),
          {{"version", version}, {"is_launched", is_launched}, {"rank", as.rank}, {"size", as.size}}};
}

Finding slurm() {
  const char* job = std::getenv("SLURM_JOB_ID");
  if (job != nullptr) return {"Slurm", true, fmt::format("inside job {}", job), {{"job", job}}};
  return {"Slurm", false,
          is_program_installed("srun") ? "installed; this is not a job" : "srun is not on the PATH"};
}

Finding cuda() {
  const cuda::DeviceReport report = cuda::find_devices();
  return {
      "CUDA", report.count > 0, report.explanation, {{"is_built", report.built}, {"devices", report.count}}};
}

Finding nccl() {
  const std::string version = nccl_version();
  return {"NCCL", !version.empty(),
          version.empty() ? "not built in: ranks exchange data through MPI and shared host memory" : version};
}

Finding cudnn() {
  const cuda::CudnnReport report = cuda::find_cudnn();
  return {"cuDNN", !report.version.empty(),
          report.version.empty() ? report.explanation
                                 : fmt::format("{}: {}", report.version, report.explanation)};
}

Finding gnuplot() {
  const std::string version = gnuplot_version();
  return {"gnuplot", !version.empty(),
          version.empty() ? "not found: install gnuplot-nox to draw plots" : version};
}

std::vector<Finding> examine() {
  const Machine machine = this_machine();
  return {cpu(machine),    instructions(machine),
          bf16(machine),   threads(machine),
          memory(machine), mpi(),
          slurm(),         cuda(),
          nccl(),          cudnn(),
          gnuplot()};
}

/// "bf16 on the CPU" as a key: bf16_on_the_cpu.
std::string key_of(std::string part) {
  for (char& c : part) c = c == ' ' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return part;
}

}  // namespace

int run_doctor(Arguments arguments) {
  Options options("bireme doctor", "shows what was found on this machine and is used, what is not, and why");
  options.example("bireme doctor").example("mpirun -n 2 bireme doctor --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;

  nlohmann::ordered_json result;
  for (Finding& finding : examine()) {
    if (options.json()) {
      nlohmann::ordered_json entry = {{"used", finding.is_used}, {"text", finding.text}};
      entry.update(finding.details);
      result[key_of(finding.part)] = std::move(entry);
    } else {
      fmt::print("{} {:<20} {}\n", finding.is_used ? "yes" : " no", finding.part, finding.text);
    }
  }
  if (options.json()) fmt::print("{}\n", json_text(result));
  return 0;
}

}  // namespace bireme
