/* The least that starts a command in a session of its own, deaf to hangups, with its streams on /dev/null.
 * It says nothing, records nothing, and inherits whatever the caller has set. Each ratio of the benchmark is to it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    posix_spawn_file_actions_t streams;
    posix_spawnattr_t attributes;

    if (argc < 2 || signal(SIGHUP, SIG_IGN) == SIG_ERR)
        return 1;
    if (posix_spawn_file_actions_init(&streams) || posix_spawnattr_init(&attributes))
        return 1;
    for (int stream = 0; stream < 3; stream++)
        if (posix_spawn_file_actions_addopen(&streams, stream, "/dev/null", O_RDWR, 0))
            return 1;
    if (posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID))
        return 1;
    return posix_spawn(NULL, argv[1], &streams, &attributes, argv + 1, environ) != 0;
}
