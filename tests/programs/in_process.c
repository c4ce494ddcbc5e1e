// Stands for runtimes that run a container's program within themselves: crun's krun and wasm handlers, youki's wasm. It makes a
// container of DIR/rootfs and opens PATH in there. No entrypoint is ever executed.
//
//     crun-wasm create --bundle DIR ID      with PATH in the environment variable OPENS
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int enter(const char *bundle)
{
    char root[4096];
    snprintf(root, sizeof root, "%s/rootfs", bundle);
    return unshare(CLONE_NEWNS | CLONE_NEWPID) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) ||
           mount(root, root, 0, MS_BIND | MS_REC, 0) || chdir(root) || syscall(SYS_pivot_root, ".", ".") ||
           umount2(".", MNT_DETACH) || chdir("/");
}

int main(int argc, char **argv)
{
    const char *path = getenv("OPENS");
    if (argc < 4 || !path)
        return 2;
    pid_t child = fork();
    if (child == 0) {
        // Long enough for the bundle to be read, as a container waits to be started.
        usleep(300000);
        if (enter(argv[3]))
            _exit(1);
        pid_t program = fork();
        if (program == 0) {
            int fd = open(path, O_RDONLY);
            if (fd >= 0)
                close(fd);
            _exit(0);
        }
        waitpid(program, NULL, 0);
        _exit(0);
    }
    int status;
    return waitpid(child, &status, 0) < 0 || status;
}
