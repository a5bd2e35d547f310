/* Notes the longest time in which it did not run. Usage: gap FILE N: N processes, one of them the parent of the others. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

int main(int count, char **words) {
    if (count < 3)
        return 1;
    int file = open(words[1], O_RDWR | O_CREAT, 0600), processes = atoi(words[2]), number = 0;
    /* For each process: how often it has looked, and the longest gap in nanoseconds. */
    if (ftruncate(file, 4096) != 0)
        return 1;
    volatile uint64_t *board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    while (number + 1 < processes && fork() != 0)
        number++;
    volatile uint64_t *looks = board + 2 * number, *longest = looks + 1;
    for (uint64_t last = now(), time;; last = time) {
        usleep(50);
        time = now();
        if (*looks > 100 && time - last > *longest)
            *longest = time - last;
        ++*looks;
    }
}
