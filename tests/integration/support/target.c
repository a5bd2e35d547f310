/* Programs to let go of. Each maps FILE, in which it counts what it has done and what went wrong.
 * Usage: target KIND FILE [TERMINAL] */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct board {
    volatile uint64_t blocks; /* of work that were done */
    volatile uint64_t wrong;  /* results that were not as before */
    volatile uint64_t sent;   /* signals that it has queued for itself */
    volatile uint64_t got;    /* those that its handler has seen */
    volatile uint64_t quiet;  /* no more are sent */
};

static struct board *board;
static const char *terminal;

/* A sum in integers and in floating point, without a system call. */
static uint64_t work(void) {
    uint64_t sum = 88172645463325252u;
    double product = 1.0;
    for (int i = 0; i < 20000; i++) {
        sum ^= sum << 13, sum ^= sum >> 7, sum ^= sum << 17;
        product = product * 1.0000001 + (double)(sum >> 40) * 1e-9;
    }
    uint64_t bits;
    memcpy(&bits, &product, sizeof bits);
    return sum ^ bits;
}

static void *spin(void *unused) {
    uint64_t expected = work();
    for (;;) {
        if (work() != expected)
            __sync_fetch_and_add(&board->wrong, 1);
        __sync_fetch_and_add(&board->blocks, 1);
    }
    return unused;
}

static void *spin_gently(void *unused) {
    uint64_t expected = work();
    for (;; usleep(1000))
        if (work() != expected)
            __sync_fetch_and_add(&board->wrong, 1);
    return unused;
}

/* Goes back to the terminal, so that it can be let go of again. */
static void return_to_terminal(int signal) {
    int saved = errno, fd = open(terminal, O_RDWR | O_NOCTTY);
    for (int stream = 0; stream <= 2; stream++)
        dup2(fd, stream);
    close(fd);
    errno = saved;
    (void)signal;
}

static void count(int signal) {
    __sync_fetch_and_add(&board->got, 1);
    (void)signal;
}

/* Queues signals for the process: not one of them may be lost. */
static void *send(void *unused) {
    union sigval value = {0};
    for (;;) {
        if (!board->quiet && sigqueue(getpid(), SIGRTMIN, value) == 0)
            __sync_fetch_and_add(&board->sent, 1);
        usleep(300);
    }
    return unused;
}

static int ends[2];

static void *write_pipe(void *unused) {
    for (unsigned char byte = 0;; byte++) {
        if (write(ends[1], &byte, 1) != 1)
            __sync_fetch_and_add(&board->wrong, 1);
        usleep(500);
    }
    return unused;
}

static volatile int is_ready;

static void *read_pipe(void *unused) {
    while (!is_ready)
        usleep(100);
    for (unsigned char expected = 0, byte;; expected++) {
        if (read(ends[0], &byte, 1) != 1 || byte != expected)
            __sync_fetch_and_add(&board->wrong, 1);
        __sync_fetch_and_add(&board->blocks, 1);
    }
    return unused;
}

static void start(void *(*body)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, body, NULL);
}

static void handle(int signal, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(signal, &action, NULL);
}

static long ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* When the calls began, in milliseconds: a thread may start late. */
static long begin;

/* Makes a call that blocks for three seconds, and prints how it ended and how many milliseconds after the beginning. */
static void *wait_in(void *name) {
    struct timespec time = {3, 0}, later;
    struct timeval also = {3, 0};
    struct pollfd nothing = {.fd = -1};
    long result = -1;
    int status, word = 0;
    char byte;
    clock_gettime(CLOCK_MONOTONIC, &later), later.tv_sec += 3;
    if (!strcmp(name, "nanosleep"))
        result = nanosleep(&time, NULL);
    else if (!strcmp(name, "clock_nanosleep"))
        result = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &later, NULL);
    else if (!strcmp(name, "poll"))
        result = poll(&nothing, 1, 3000);
    else if (!strcmp(name, "ppoll"))
        result = ppoll(&nothing, 1, &time, NULL);
    else if (!strcmp(name, "select"))
        result = select(0, NULL, NULL, NULL, &also);
    else if (!strcmp(name, "futex"))
        result = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, NULL, 0) == -1 && errno == ETIMEDOUT ? 0 : -1;
    else if (!strcmp(name, "read"))
        result = read(ends[0], &byte, 1) == 1 ? 0 : -1;
    else if (!strcmp(name, "wait")) {
        pid_t child = fork();
        if (child == 0)
            usleep(3000000), _exit(7);
        result = waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7 ? 0 : -1;
    }
    dprintf(9, "%s %s %ld\n", (char *)name, result == 0 ? "ok" : strerror(errno), ms() - begin);
    return NULL;
}

static void wait_in_all(void) {
    static char *names[] = {"nanosleep", "clock_nanosleep", "poll", "ppoll", "select", "futex", "read", "wait"};
    enum { COUNT = sizeof names / sizeof *names };
    pthread_t threads[COUNT];
    begin = ms();
    for (int i = 0; i < COUNT; i++)
        pthread_create(&threads[i], NULL, wait_in, names[i]);
    board->blocks = 1;
    usleep(1500000);
    board->blocks = 2;
    usleep(1500000);
    if (write(ends[1], "x", 1) != 1)
        board->wrong++;
    for (int i = 0; i < COUNT; i++)
        pthread_join(threads[i], NULL);
}

/* The child of a vfork takes its time before its exec. */
static void wait_in_vfork(useconds_t time) {
    board->blocks = 1;
    pid_t child = vfork();
    if (child == 0) {
        syscall(SYS_nanosleep, &(struct timespec){time / 1000000, time % 1000000 * 1000}, NULL);
        execl("/bin/sleep", "sleep", "60", NULL);
        _exit(1);
    }
    board->blocks = 2;
    pause();
}

static void filter(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int count_of_words, char **words) {
    const char *kind = words[1];
    int file = open(words[2], O_RDWR | O_CREAT, 0644);
    if (ftruncate(file, sizeof *board) != 0)
        return 1;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    terminal = count_of_words > 3 ? words[3] : "/dev/null";
    if (pipe2(ends, O_CLOEXEC) != 0)
        return 1;
    handle(SIGUSR1, return_to_terminal);
    if (!strcmp(kind, "spin")) {
        spin(NULL);
    } else if (!strcmp(kind, "threads")) {
        handle(SIGRTMIN, count);
        sigset_t blocked;
        sigemptyset(&blocked), sigaddset(&blocked, SIGUSR2), sigprocmask(SIG_BLOCK, &blocked, NULL);
        start(write_pipe), start(read_pipe), start(send), start(spin_gently);
        for (is_ready = 1;;)
            sigsuspend(&blocked);
    } else if (!strcmp(kind, "dead-leader")) {
        start(spin);
        pthread_exit(NULL);
    } else if (!strcmp(kind, "waits")) {
        wait_in_all();
    } else if (!strcmp(kind, "vfork")) {
        wait_in_vfork(300000);
    } else if (!strcmp(kind, "slow-vfork")) {
        wait_in_vfork(60000000);
    } else if (!strcmp(kind, "seccomp")) {
        filter(), board->blocks = 1, pause();
    } else if (!strcmp(kind, "hidden")) {
        prctl(PR_SET_DUMPABLE, 0), board->blocks = 1, pause();
    } else if (!strcmp(kind, "full")) {
        while (dup(0) >= 0)
            ;
        board->blocks = 1, pause();
    } else {
        board->blocks = 1;
        pause();
    }
    return 0;
}
