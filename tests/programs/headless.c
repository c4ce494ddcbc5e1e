// A process whose main thread exits while another one goes on: opens PATH again and again.
//
//     headless PATH
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *go_on(void *path)
{
    for (;;) {
        int fd = open(path, O_RDONLY);
        if (fd >= 0)
            close(fd);
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc != 2 || pthread_create(&thread, NULL, go_on, argv[1]))
        return 2;
    // Not exit(3), which would end the other thread, too.
    syscall(SYS_exit, 0);
}
