/*
 * A container whose first process ends while others of it go on opening files, until the kernel has
 * killed them: they are of the container to the end.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int ready[2];
	char byte, path[128];

	/* The argument tells this one's opens from those of others that run at the same time. */
	snprintf(path, sizeof(path), "%s/child", argc > 1 ? argv[1] : "");
	if (pipe(ready))
		return 1;
	for (int i = 0; i < 4; i++) {
		if (fork() == 0) {
			if (write(ready[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
		}
	}
	for (int i = 0; i < 4; i++)
		if (read(ready[0], &byte, 1) != 1)
			return 1;
	snprintf(path, sizeof(path), "%s/main", argc > 1 ? argv[1] : "");
	syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
	return 0;
}
