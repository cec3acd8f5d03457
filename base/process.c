// SPDX-License-Identifier: Apache-2.0
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

extern char **environ;

sh_status sh_process_wait(pid_t pid, const char *name, int *code)
{
    sh_status st = SH_OK;
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        SH_CHECK(errno == EINTR, SH_ERR_IO, "cannot wait for %s: %s", name, strerror(errno));
    *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
out:
    return st;
}

void sh_process_catch_stops(void (*handler)(int number))
{
    static const int numbers[] = {SIGTERM, SIGUSR1, SIGINT};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < SH_COUNT(numbers); i++) sigaction(numbers[i], &action, NULL);
}

/* All of a file in memory, as text. */
static sh_status read_text(int fd, char **out)
{
    sh_status st = SH_OK;
    struct stat info;
    char *text = NULL;

    SH_CHECK(fstat(fd, &info) == 0, SH_ERR_IO, "output of a program: %s", strerror(errno));
    text = calloc((size_t)info.st_size + 1, 1);
    SH_CHECK(text != NULL, SH_ERR_NO_MEMORY, "output of a program");
    SH_TRY(sh_file_read_at(fd, "output of a program", 0, text, (size_t)info.st_size));
    *out = text;
    text = NULL;
out:
    free(text);
    return st;
}

/* Output goes to files in memory instead of pipes: nobody has to read while the program runs. */
static sh_status spawn(const char *const *argv, const int fds[2], pid_t *pid)
{
    sh_status st = SH_OK;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&actions);
    int failure = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);

    if (failure == 0) failure = posix_spawn_file_actions_adddup2(&actions, fds[0], 1);
    if (failure == 0) failure = posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
    if (failure == 0)
        failure = posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
    SH_CHECK(failure == 0, SH_ERR_NOT_FOUND, "cannot run %s: %s", argv[0], strerror(failure));
out:
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return st;
}

sh_status sh_process_run(const char *const *argv, sh_process_result *out)
{
    sh_status st = SH_OK;
    int fds[2] = {memfd_create("stdout", MFD_CLOEXEC), memfd_create("stderr", MFD_CLOEXEC)};
    pid_t pid = 0;
    sh_process_result result = {0};

    SH_CHECK(fds[0] >= 0 && fds[1] >= 0, SH_ERR_IO, "no room for the output of %s: %s", argv[0],
             strerror(errno));
    SH_TRY(spawn(argv, fds, &pid));
    SH_TRY(sh_process_wait(pid, argv[0], &result.code));
    SH_TRY(read_text(fds[0], &result.out));
    SH_TRY(read_text(fds[1], &result.err));
    *out = result;
    result = (sh_process_result){0};
out:
    sh_process_result_clear(&result);
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    return st;
}

void sh_process_result_clear(sh_process_result *result)
{
    free(result->out);
    free(result->err);
    *result = (sh_process_result){0};
}
