#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace bireme {
namespace {

struct Outcome {
  int code;
  std::string output;
};

/// Runs the installed program through a shell, standard error after standard output.
Outcome run(const std::string& words, const std::string& environment = "") {
  FILE* pipe = popen((environment + " '" BIREME_PROGRAM "' " + words + " 2>&1").c_str(), "r");
  std::string output;
  std::array<char, 4096> piece;
  for (std::size_t count; (count = fread(piece.data(), 1, piece.size(), pipe)) > 0;)
    output.append(piece.data(), count);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

TEST(Program, FailureIsOneLineAndAnExitCode) {
  const Outcome unknown = run("docter");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.output,
            "bireme: error: unknown command `docter`: bireme: did you mean `bireme doctor`?\n");
  const Outcome missing = run("plot curves --run /no/such/run --output a.png");
  EXPECT_EQ(missing.code, 3);
  EXPECT_EQ(missing.output,
            "bireme: error: there are no metrics: /no/such/run: give the folder of a run: bireme train --run "
            "DIR\n");
}

TEST(Program, HelpAndDoctorSucceed) {
  EXPECT_EQ(run("--help").code, 0);
  EXPECT_EQ(run("doctor --help").code, 0);
  const Outcome doctor = run("doctor --json");
  EXPECT_EQ(doctor.code, 0);
  for (const char* part : {"\"cpu\":", "\"mpi\":", "\"slurm\":", "\"cuda\":", "\"nccl\":", "\"gnuplot\":"})
    EXPECT_NE(doctor.output.find(part), std::string::npos) << part << " is missing in " << doctor.output;
}

TEST(Program, OfTheRanksOnlyTheFirstSpeaksOfUsage) {
  const Outcome other = run("docter", "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2");
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(other.output, "");
  EXPECT_EQ(run("doctor", "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2").output, "");
}

TEST(Program, ClosedOutputDoesNotKillIt) {
  // The shell's own status is that of `true`; a death by SIGPIPE would be reported as 141 by the inner shell.
  EXPECT_EQ(run("doctor >&- ; echo code $?").output, "code 0\n");
}

}  // namespace
}  // namespace bireme
