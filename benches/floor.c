/* The least that starts a command in a session of its own, ignoring SIGHUP, with its streams on /dev/null:
 *
 *     floor COMMAND [ARG]...
 *     floor -f PATH COMMAND [ARG]...      creates a new file first; the last 16 characters of PATH become random
 *
 * It prints nothing, records nothing, and lets the command inherit whatever the caller has set. The benchmark gives its
 * results as multiples of what this program takes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* The kernel gives each program 16 random bytes, so that a fresh name takes no system call. */
static int create_file(char *path)
{
    const unsigned char *random = (const unsigned char *) getauxval(AT_RANDOM);
    char *name = path + strlen(path) - 16;

    for (int i = 0; i < 16; i++)
        name[i] = 'a' + random[i] % 16;
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

int main(int argc, char **argv)
{
    posix_spawn_file_actions_t streams;
    posix_spawnattr_t attributes;

    if (argc > 3 && strcmp(argv[1], "-f") == 0) {
        if (create_file(argv[2]) == -1)
            return 1;
        argv += 2;
    }
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
