// SPDX-License-Identifier: Apache-2.0
/** The subcommands of `shoal`, one file each (trainer/cmd_<name>.c); trainer/main.c has their
 * table. argv[0] is the subcommand's name. The status becomes the exit code; messages are printed
 * by main. */
#ifndef SH_TRAINER_COMMANDS_H
#define SH_TRAINER_COMMANDS_H

#include "base/status.h"

sh_status sh_cmd_bench(int argc, char **argv);
sh_status sh_cmd_compare(int argc, char **argv);
sh_status sh_cmd_doctor(int argc, char **argv);
sh_status sh_cmd_embed(int argc, char **argv);
sh_status sh_cmd_eval(int argc, char **argv);
sh_status sh_cmd_export(int argc, char **argv);
sh_status sh_cmd_identify(int argc, char **argv);
sh_status sh_cmd_import(int argc, char **argv);
sh_status sh_cmd_inspect(int argc, char **argv);
sh_status sh_cmd_job(int argc, char **argv);
sh_status sh_cmd_pack(int argc, char **argv);
sh_status sh_cmd_status(int argc, char **argv);
sh_status sh_cmd_submit(int argc, char **argv);
sh_status sh_cmd_synth(int argc, char **argv);
sh_status sh_cmd_tail(int argc, char **argv);
sh_status sh_cmd_train(int argc, char **argv);

/* Parts of `shoal bench` (trainer/bench_<name>.c); `shoal bench` dispatches to them. */
sh_status sh_bench_comm(int argc, char **argv);
sh_status sh_bench_data(int argc, char **argv);
sh_status sh_bench_mining(int argc, char **argv);
sh_status sh_bench_embed(int argc, char **argv);
sh_status sh_bench_ops(int argc, char **argv);
sh_status sh_bench_step(int argc, char **argv);
sh_status sh_bench_train(int argc, char **argv);

#endif
