#pragma once

namespace bireme {

/// What the launcher says about this process, before MPI is started: mpirun's and PMIx's variables first,
/// Slurm's only inside a job step, since a batch script has some of them too.
struct LaunchedAs {
  int rank = 0;
  int size = 1;
  const char* launcher = "";  ///< "mpirun (Open MPI)", "PMIx", "PMI", "srun", or empty for a single process
};
LaunchedAs launched_as();

/// Columns of the terminal behind a file descriptor; 0 when there is none. Open MPI puts a terminal of size 0
/// x 0 behind the standard output of every rank, which is not one that anybody looks at.
int terminal_columns(int file_descriptor);

}  // namespace bireme
