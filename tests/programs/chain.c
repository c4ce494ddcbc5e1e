// A chain of processes, each of which opens a file, forks the next one and exits: none lives as long as it takes to read /proc.
//
//     chain PATH MILLISECONDS     as a container's first process, which reaps them until it is killed
//
// Link N opens PATH.N.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void link_of(const char *path, long number, long milliseconds, pid_t first)
{
    // No link outlives the first process, which the others descend from.
    for (; kill(first, 0) == 0; number++) {
        char name[256];
        snprintf(name, sizeof name, "%s.%ld", path, number);
        int fd = open(name, O_RDONLY);
        if (fd >= 0)
            close(fd);
        struct timespec pause = {0, milliseconds * 1000000};
        nanosleep(&pause, NULL);
        pid_t next = fork();
        if (next < 0)
            exit(1);
        if (next > 0)
            exit(0);
    }
    exit(0);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    pid_t first = fork();
    if (first < 0)
        return 1;
    if (first == 0)
        link_of(argv[1], 0, atol(argv[2]), getppid());
    for (;;)
        if (wait(NULL) < 0)
            pause();
}
