/*
 * Opens a file from each kind of task a program can have: its first thread, a second one, a child,
 * an orphan, a thread of a child, and a task that stays when the first one has ended.
 *
 * Prints for each its label, process id and thread id in the container.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void opens(const char *label)
{
	char path[64];

	snprintf(path, sizeof(path), "/tree/%s", label);
	dprintf(1, "%s %d %ld\n", label, getpid(), syscall(SYS_gettid));
	syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
}

static void *thread(void *label)
{
	opens(label);
	return NULL;
}

static void in_thread(char *label)
{
	pthread_t id;

	pthread_create(&id, NULL, thread, label);
	pthread_join(id, NULL);
}

int main(int argc, char **argv)
{
	int status, ends[2];
	pid_t child;

	opens("main");
	in_thread("thread");

	child = fork();
	if (child == 0) {
		opens("child");
		in_thread("thread-of-child");
		_exit(0);
	}
	waitpid(child, &status, 0);

	/* The pipe ends when the orphan does. */
	if (pipe(ends))
		return 1;
	child = fork();
	if (child == 0) {
		if (fork() == 0) {
			setsid();
			/* We are process 1's from now on. */
			while (getppid() != 1)
				usleep(1000);
			opens("orphan");
		}
		_exit(0);
	}
	close(ends[1]);
	while (read(ends[0], &status, 1) > 0)
		;
	while (wait(&status) > 0)
		;
	if (argc > 1)
		syscall(SYS_openat, AT_FDCWD, argv[1], O_RDONLY, 0);
	return 0;
}
